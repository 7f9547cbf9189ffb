//! Against the client side of the same SCTP library, in virtual time; browsers are in `tests/`.

use proptest::prelude::*;
use sctp_proto::ClientConfig;

use super::*;

struct Client {
    endpoint: Endpoint,
    handle: AssociationHandle,
    association: Association,
}

impl Client {
    fn new() -> Self {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::new()), None);
        let (handle, association) =
            endpoint.connect(ClientConfig::new(), PEER).expect("a first association");
        Self { endpoint, handle, association }
    }

    fn say(&mut self, stream: u16, bytes: &[u8], ppid: Ppid) {
        let known = self.association.stream(stream).is_ok();
        let mut stream = if known {
            self.association.stream(stream).expect("known")
        } else {
            self.association.open_stream(stream, ppid).expect("free")
        };
        stream.write_with_ppi(bytes, ppid).expect("taken");
    }

    fn open(&mut self, stream: u16, label: &str) {
        let mut open = Vec::new();
        dcep::write_open(Reliability::default(), label, &mut open);
        self.say(stream, &open, Ppid::Dcep);
    }

    fn hear(&mut self, stream: u16) -> Vec<(Ppid, Vec<u8>)> {
        let mut heard = Vec::new();
        while let Ok(mut found) = self.association.stream(stream)
            && let Ok(Some(chunks)) = found.read_sctp()
        {
            let mut bytes = vec![0; chunks.len()];
            chunks.read(&mut bytes).expect("room");
            heard.push((chunks.ppi, bytes));
        }
        heard
    }
}

struct Pair {
    client: Client,
    data: Data,
    counters: Counters,
    now: Mono,
}

impl Pair {
    fn connected() -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let zero = Instant::now();
        let mut pair = Self {
            client: Client::new(),
            data: Data::new(zero),
            counters: Counters::default(),
            now: Mono::from_nanos(1_000_000_000),
        };
        pair.exchange();
        assert!(!pair.client.association.is_handshaking());
        pair
    }

    /// Carries packets both ways until nobody has one, a millisecond a round.
    fn exchange(&mut self) {
        for _ in 0..2_000 {
            let at = self.data.instant(self.now);
            self.client.association.handle_timeout(at);
            self.data.handle_timeout(self.now, &mut self.counters);
            let mut carried = false;
            while let Some(transmit) = self.client.association.poll_transmit(at) {
                let Payload::RawEncode(packets) = transmit.payload else { continue };
                for packet in packets {
                    self.data.handle(self.now, &packet, &mut self.counters);
                    carried = true;
                }
            }
            while let Some(packet) = self.data.poll_transmit(self.now) {
                carried = true;
                let event = self.client.endpoint.handle(at, PEER, None, None, packet);
                if let Some((handle, DatagramEvent::AssociationEvent(event))) = event {
                    assert_eq!(handle, self.client.handle);
                    self.client.association.handle_event(event);
                }
            }
            while self.client.association.poll().is_some() {}
            self.now = self.now.plus(Duration::from_millis(1));
            // A delayed acknowledgement waits 200 ms.
            if !carried && self.client.association.poll_timeout().is_none() {
                return;
            }
        }
    }

    fn messages(&mut self) -> Vec<Message> {
        let mut all = Vec::new();
        while let Some(message) = self.data.poll_message(self.now, &mut self.counters) {
            all.push(message);
        }
        all
    }
}

#[test]
fn a_message_arrives_with_its_channels_label() {
    let mut pair = Pair::connected();
    pair.client.open(0, "chat");
    pair.client.say(0, b"hello", Ppid::String);
    pair.client.say(0, &[0], Ppid::BinaryEmpty);
    pair.exchange();
    let all = pair.messages();
    let read: Vec<_> = all.iter().map(|m| (&*m.label, m.text, &m.bytes[..])).collect();
    assert_eq!(read, [("chat", true, &b"hello"[..]), ("chat", false, &b""[..])]);
    pair.exchange();
    assert_eq!(pair.client.hear(0), [(Ppid::Dcep, dcep::ACK.to_vec())]);
}

#[test]
fn what_we_send_opens_one_channel_for_each_label() {
    let mut pair = Pair::connected();
    let message = |label: &str, text: &str| Message {
        label: label.into(),
        reliability: Reliability { ordered: false, limit: dcep::Limit::Retransmits(2) },
        text: true,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    };
    for (label, text) in [("bob/chat", "one"), ("eve/chat", "two"), ("bob/chat", "three")] {
        assert!(pair.data.send(&message(label, text), &mut pair.counters), "{text}");
    }
    pair.exchange();
    let heard = pair.client.hear(1);
    let open = dcep::Message::parse(&heard[0].1).expect("an OPEN comes first");
    let dcep::Message::Open(open) = open else { panic!("{open:?}") };
    assert_eq!(open.label, "bob/chat");
    assert_eq!(open.reliability, message("", "").reliability);
    let said: Vec<_> = heard[1..].iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(said, [&b"one"[..], &b"three"[..]]);
    assert_eq!(pair.client.hear(3).len(), 2);
}

#[test]
fn a_message_without_an_open_channel_is_dropped() {
    let mut pair = Pair::connected();
    pair.client.say(4, b"who?", Ppid::String);
    pair.client.open(5, "odd streams are ours");
    pair.exchange();
    assert_eq!(pair.messages(), []);
    assert_eq!(pair.counters.get(Id::DataDropNoChannel), 2);
}

#[test]
fn a_client_has_so_many_channels_and_no_more() {
    let mut pair = Pair::connected();
    for stream in 0..MAX_CHANNELS as u16 + 8 {
        pair.client.open(2 * stream, "one of many");
    }
    pair.exchange();
    // Within its rate it takes a while.
    for _ in 0..4 {
        assert_eq!(pair.messages(), []);
        pair.now = pair.now.plus(Duration::from_secs(1));
        pair.exchange();
    }
    assert_eq!(pair.data.theirs.len(), MAX_CHANNELS);
    assert_eq!(pair.counters.get(Id::DataDropNoChannel), 8);
}

#[test]
fn a_client_beyond_its_rate_is_slowed_down_and_loses_nothing() {
    let mut pair = Pair::connected();
    pair.client.open(0, "bulk");
    let total = 24;
    for n in 0..total {
        pair.client.say(0, &vec![n as u8; 60_000], Ppid::Binary);
    }
    let began = pair.now;
    let mut got = Vec::new();
    while got.len() < total {
        pair.exchange();
        got.extend(pair.messages());
        pair.now = pair.now.plus(Duration::from_millis(10));
        assert!(pair.now.since(began) < Duration::from_secs(60), "{} of {total}", got.len());
    }
    let order: Vec<_> = got.iter().map(|m| usize::from(m.bytes[0])).collect();
    assert_eq!(order, (0..total).collect::<Vec<_>>());
    let least = Duration::from_millis((1_000 * (total * 60_000 - 2 * RATE) / RATE) as u64);
    assert!(pair.now.since(began) >= least, "{:?}", pair.now.since(began));
}

#[test]
fn messages_for_a_client_that_takes_none_are_bounded() {
    let mut pair = Pair::connected();
    let message = Message {
        label: "bob/bulk".into(),
        reliability: Reliability::default(),
        text: false,
        bytes: vec![7; MAX_MESSAGE].into(),
    };
    let taken = (0..100).filter(|_| pair.data.send(&message, &mut pair.counters)).count();
    assert!((1..=MAX_WAITING / MAX_MESSAGE).contains(&taken), "{taken}");
    assert_eq!(pair.counters.get(Id::DataDropSlow), 100 - taken as u64);
}

#[test]
fn channels_of_one_who_left_are_closed() {
    let mut pair = Pair::connected();
    for label in ["bob/a", "bob/b", "bobby/a"] {
        let message = Message {
            label: label.into(),
            reliability: Reliability::default(),
            text: true,
            bytes: Bytes::from_static(b"x"),
        };
        assert!(pair.data.send(&message, &mut pair.counters));
    }
    pair.exchange();
    pair.data.close_of("bob/");
    assert_eq!(pair.data.ours.keys().map(|l| &**l).collect::<Vec<_>>(), ["bobby/a"]);
}

#[test]
fn an_association_started_anew_takes_the_place_of_the_old() {
    let mut pair = Pair::connected();
    pair.client.open(0, "old");
    pair.exchange();
    assert_eq!(pair.messages(), []);
    pair.client = Client::new();
    pair.exchange();
    pair.client.open(0, "new");
    pair.client.say(0, b"again", Ppid::String);
    pair.exchange();
    let all = pair.messages();
    assert_eq!(all.iter().map(|m| &*m.label).collect::<Vec<_>>(), ["new"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn bytes_of_no_meaning_are_dropped(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)
    ) {
        let mut pair = Pair::connected();
        for packet in &packets {
            pair.data.handle(pair.now, packet, &mut pair.counters);
            let _none = pair.data.poll_message(pair.now, &mut pair.counters);
        }
    }
}
