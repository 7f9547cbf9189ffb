//! The impairment link does what it is told: its losses, delays, queue and copies are those asked
//! for, and one seed always loses the same packets.

mod common;

use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use common::link::{BEHIND, Impairment, Link};
use common::{GATEWAY, Network};

const SIZE: usize = 1_000;
/// With its IP and UDP headers.
const WIRE_BITS: f64 = (SIZE + 28) as f64 * 8.0;
/// What a packet is given beyond what the link was told to take.
const PATIENCE: Duration = Duration::from_secs(3);

/// A socket at each end. Fields drop in order: the link before its network.
struct Ends {
    link: Link,
    near: UdpSocket,
    far: UdpSocket,
    _network: Network,
}

impl Ends {
    fn new(seed: u64) -> Self {
        let network = Network::with(&[&format!("{GATEWAY}/24")], &["10.78.0.3/24"]);
        let link = Link::between(&network, seed);
        let bind = |at: Ipv4Addr| {
            let socket = UdpSocket::bind((at, 0)).expect("an address of the namespace");
            socket.set_read_timeout(Some(PATIENCE)).expect("socket option");
            socket
        };
        let near = network.as_gateway(|| bind(GATEWAY));
        let far = link.as_client(|| bind(BEHIND));
        near.connect(far.local_addr().expect("bound")).expect("a route");
        far.connect(near.local_addr().expect("bound")).expect("a route");
        Self { link, near, far, _network: network }
    }

    /// Sends one numbered packet down.
    fn send(&self, number: u32) {
        let mut packet = [0; SIZE];
        packet[..4].copy_from_slice(&number.to_be_bytes());
        self.near.send(&packet).expect("sends");
    }

    /// The number of the next packet that comes.
    fn receive(socket: &UdpSocket) -> Option<u32> {
        let mut packet = [0; SIZE];
        let len = socket.recv(&mut packet).ok()?;
        assert_eq!(len, SIZE);
        Some(u32::from_be_bytes(packet[..4].try_into().expect("four bytes")))
    }

    /// Sends `count` packets down, a few at a time so that no socket's buffer is too small, and
    /// returns those that arrived in the order of their arrival, until the link has no more.
    fn run(&self, count: u32) -> Vec<u32> {
        let before = self.link.counters().0;
        let mut arrived = Vec::new();
        for first in (0..count).step_by(50) {
            let next = count.min(first + 50);
            (first..next).for_each(|number| self.send(number));
            // The counters say how many will come: nobody waits for a lost one.
            loop {
                let now = self.link.counters().0;
                let gone = now.lost + now.queue_dropped - before.lost - before.queue_dropped;
                let copies = now.duplicated - before.duplicated;
                let all_in = now.received - before.received == u64::from(next);
                if all_in && arrived.len() as u64 == u64::from(next) - gone + copies {
                    break;
                }
                arrived.push(Self::receive(&self.far).expect("what is not lost arrives"));
            }
        }
        arrived
    }
}

#[test]
fn a_link_without_a_fault_delivers_all_in_order_both_ways() {
    let ends = Ends::new(1);
    assert_eq!(ends.run(2_000), (0..2_000).collect::<Vec<_>>());
    for number in 0..200_u32 {
        ends.send(number);
        let mut packet = [0; SIZE];
        let len = ends.far.recv(&mut packet).expect("arrives");
        ends.far.send(&packet[..len]).expect("sends");
        assert_eq!(Ends::receive(&ends.near), Some(number));
    }
    let (down, up) = ends.link.counters();
    assert_eq!((down.received, down.delivered), (2_200, 2_200));
    assert_eq!((up.received, up.delivered), (200, 200));
}

#[test]
fn one_seed_loses_the_same_packets_and_another_seed_others() {
    let lossy = Impairment { loss: 0.05, ..Impairment::default() };
    let lost = |ends: &Ends| {
        ends.link.down(lossy);
        let arrived = ends.run(4_000);
        assert!(arrived.is_sorted(), "in order");
        (0..4_000).filter(|number| arrived.binary_search(number).is_err()).collect::<Vec<u32>>()
    };
    let ends = Ends::new(7);
    let first = lost(&ends);
    // 5 % of 4,000 is 200; five standard deviations are 69.
    assert!((131..=269).contains(&first.len()), "{} of 4,000 lost", first.len());
    assert_eq!(lost(&ends), first, "an order starts the sequence again");
    assert_eq!(lost(&Ends::new(7)), first, "one seed, one pattern");
    assert_ne!(lost(&Ends::new(8)), first, "another seed, another pattern");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the link's times are real ones")]
fn every_packet_takes_the_delay_and_its_jitter() {
    let ends = Ends::new(2);
    for reorder in [false, true] {
        ends.link.down(Impairment {
            delay_ms: 50.0,
            jitter_ms: 40.0,
            reorder,
            ..Impairment::default()
        });
        let mut took = Vec::new();
        for number in 0..40 {
            let sent = Instant::now();
            ends.send(number);
            assert_eq!(Ends::receive(&ends.far), Some(number));
            took.push(sent.elapsed());
        }
        took.sort_unstable();
        assert!(took[0] >= Duration::from_millis(50), "{took:?}");
        // Evenly from 50 to 90 ms: half of them above 70 within the luck of 40 draws and the load
        // of the machine. A link that took neither long enough nor differing times fails.
        assert!(took[20] >= Duration::from_millis(58), "{took:?}");
        assert!(took[20] <= Duration::from_millis(200), "{took:?}");
        assert!(took[35] - took[5] >= Duration::from_millis(12), "{took:?}");
    }
}

#[test]
fn packets_overtake_each_other_only_where_it_was_asked_for() {
    let ends = Ends::new(3);
    for reorder in [false, true] {
        ends.link.down(Impairment { jitter_ms: 40.0, reorder, ..Impairment::default() });
        let arrived = ends.run(1_000);
        let mut sorted = arrived.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1_000).collect::<Vec<_>>(), "nothing is lost");
        assert_eq!(arrived != sorted, reorder);
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the link's times are real ones")]
fn the_rate_is_kept_and_its_queue_is_bounded() {
    let ends = Ends::new(4);
    let rate = |rate_kbps: f64, queue_ms: f64| Impairment {
        rate_kbps: Some(rate_kbps),
        queue_ms: Some(queue_ms),
        ..Impairment::default()
    };
    // 100 packets at 1.5 Mbit/s: the last one cannot be there before their sum has passed the line.
    ends.link.down(rate(1_500.0, 10_000.0));
    let started = Instant::now();
    (0..100).for_each(|number| ends.send(number));
    for number in 0..100 {
        assert_eq!(Ends::receive(&ends.far), Some(number));
    }
    let took = started.elapsed().as_secs_f64();
    let least = 100.0 * WIRE_BITS / 1_500_000.0;
    assert!(took >= least, "{took} s, {least} s by the rate");
    assert!(took <= 3.0 * least, "{took} s, {least} s by the rate");
    // 200 ms of 1 Mbit/s hold 24 packets. Where this process or the link is held up in the middle,
    // some have left the queue meanwhile.
    ends.link.down(rate(1_000.0, 200.0));
    let before = ends.link.counters().0;
    let arrived = ends.run(100).len();
    let dropped = ends.link.counters().0.queue_dropped - before.queue_dropped;
    assert!((24..=75).contains(&arrived), "{arrived} of 100 arrived");
    assert_eq!(arrived as u64 + dropped, 100);
}

#[test]
fn copies_are_delivered_as_often_as_asked_for() {
    let ends = Ends::new(5);
    ends.link.down(Impairment { duplicate: 0.1, ..Impairment::default() });
    let arrived = ends.run(2_000);
    let copies = arrived.len() - 2_000;
    // 10 % of 2,000 is 200; five standard deviations are 67.
    assert!((133..=267).contains(&copies), "{copies} copies of 2,000");
    let mut numbers = arrived;
    numbers.dedup();
    assert_eq!(numbers, (0..2_000).collect::<Vec<_>>());
}
