//! Seeds of a publisher with three simulcast layers over a lossy, reordering way, and a player
//! that changes its mind: whatever happens, its numbers, clock and pictures go on.

mod forward_kit;
#[path = "forward_kit/layered.rs"]
mod layered;

use std::collections::{BTreeMap, HashMap, VecDeque};

use forward_kit::*;
use layered::*;
use rand::Rng;
use rand::rngs::StdRng;
use veilgate::forward::{Target, Wish};

const SEEDS: u64 = 200;
const RUN: u64 = 8_000;

struct World {
    rng: StdRng,
    scene: Scene,
    encoders: Vec<Encoder>,
    active: [bool; 3],
    /// Under way to the gateway: when they arrive.
    up: VecDeque<(u64, Vec<u8>)>,
    /// Sent, for the publisher's own repeats.
    sent: HashMap<(u32, u16), Vec<u8>>,
    loss: f64,
    rtx: u16,
    nacked: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let mut encoders: Vec<_> = (0..3).map(|layer| Encoder::new(layer, rng.random())).collect();
        for encoder in &mut encoders {
            encoder.packets = rng.random_range(1..6);
        }
        Self {
            scene: Scene::new(rng.random(), seed),
            encoders,
            active: [true; 3],
            up: VecDeque::new(),
            sent: HashMap::new(),
            loss: [0.0, 0.02, 0.1][rng.random_range(0..3)],
            rtx: 0,
            nacked: 0,
            rng,
        }
    }

    fn send(&mut self, time: u64, packet: Vec<u8>) {
        if self.rng.random_bool(self.loss) {
            return;
        }
        let late = if self.rng.random_bool(0.1) { self.rng.random_range(0..150) } else { 0 };
        let copies = if self.rng.random_bool(0.02) { 2 } else { 1 };
        for _ in 0..copies {
            self.up.push_back((time + 20 + late, packet.clone()));
        }
    }

    fn step(&mut self, time: u64) {
        let now = at(time);
        if time.is_multiple_of(66) {
            for layer in 0..3 {
                for packet in self.encoders[layer].picture() {
                    let numbers =
                        (ssrc_of(layer as u8), u16::from_be_bytes([packet[2], packet[3]]));
                    self.sent.insert(numbers, packet.clone());
                    if self.active[layer] {
                        self.send(time, packet);
                    }
                }
            }
        }
        if time.is_multiple_of(1000) && self.rng.random_bool(0.8) {
            for encoder in &self.encoders {
                let report = encoder.report(now);
                self.scene.publisher.on_rtcp(now, &report, &mut self.scene.counters);
            }
        }
        for _ in 0..self.up.len() {
            let Some((when, packet)) = self.up.pop_front() else { break };
            if when <= time {
                self.scene.arrive(now, &packet);
            } else {
                self.up.push_back((when, packet));
            }
        }
        self.change_mind();
        if time.is_multiple_of(20) {
            self.ask(time);
        }
    }

    fn change_mind(&mut self) {
        let rng = &mut self.rng;
        if rng.random_bool(0.002) {
            let wish = Wish {
                paused: rng.random_bool(0.2),
                spatial: rng.random_bool(0.7).then(|| rng.random_range(0..4)),
                temporal: rng.random_bool(0.5).then(|| rng.random_range(0..4)),
            };
            self.scene.player.set_wish(0, wish);
        }
        if rng.random_bool(0.002) {
            let target =
                Target { spatial: rng.random_range(0..4), temporal: rng.random_range(0..4) };
            self.scene.player.set_target(0, rng.random_bool(0.9).then_some(target));
        }
        if rng.random_bool(0.001) {
            let layer = rng.random_range(0..3);
            self.active[layer] = !self.active[layer];
            self.encoders[layer].wants_key = true;
        }
    }

    /// What gateway and player ask for.
    fn ask(&mut self, time: u64) {
        let now = at(time);
        let asked: Vec<_> = self.scene.player.wants_keyframe().collect();
        for layer in asked {
            self.scene.publisher.request_keyframe(now, layer, &mut self.scene.counters);
        }
        let mut out = [0; 1_200];
        while let Some(len) =
            self.scene.publisher.poll_rtcp(now, &mut out, &mut self.scene.counters)
        {
            for word in words_of(&out[..len]) {
                let mut words = word.split(' ');
                let (kind, ssrc) = (words.next().expect("a word"), words.next());
                let ssrc = ssrc.and_then(|ssrc| u32::from_str_radix(ssrc, 16).ok()).unwrap_or(0);
                match kind {
                    "pli" => self.encoders[(ssrc - ssrc_of(0)) as usize].wants_key = true,
                    "nack" => {
                        let list = word.split_once('[').expect("a list").1.trim_end_matches(']');
                        for lost in list.split(", ").filter_map(|lost| lost.parse().ok()) {
                            self.repeat(time, ssrc, lost);
                        }
                    }
                    _ => {}
                }
            }
        }
        // The player has everything that was sent to it; it asks for what it jumped over.
        let got = &self.scene.got;
        let new = got.get(self.nacked..).unwrap_or_default();
        let Some(highest) = new.iter().map(|got| got.sequence).max() else { return };
        self.nacked = got.len();
        let mut ask: Vec<u16> = (1..60)
            .map(|behind| highest.wrapping_sub(behind))
            .filter(|number| !self.scene.has(*number))
            .collect();
        // And now and then for what it has.
        ask.extend(got.iter().rev().take(100).step_by(7).map(|got| got.sequence));
        self.scene.nack(now, &ask);
    }

    fn repeat(&mut self, time: u64, ssrc: u32, lost: u16) {
        let Some(original) = self.sent.get(&(ssrc, lost)) else { return };
        let rtp = veilgate::wire::rtp::Rtp::parse(original).expect("ours");
        let rid = RIDS[(ssrc - ssrc_of(0)) as usize].as_bytes();
        self.rtx = self.rtx.wrapping_add(1);
        let numbers = (97, ssrc + 0x100, self.rtx, rtp.timestamp());
        let payload = [&lost.to_be_bytes(), rtp.payload()].concat();
        let mut packet = forward_kit::rtp(numbers, &[(MID, b"1"), (REPAIRED, rid)], &payload);
        packet[1] |= original[1] & 0x80;
        self.send(time, packet);
    }

    /// The laws, over all that the player got in the order of its numbers.
    fn end(self) -> (usize, usize) {
        let got = &self.scene.got;
        let mut ordered: BTreeMap<i64, &Got> = BTreeMap::new();
        let (mut last, mut unwrapped) = (got.first().map_or(0, |got| got.sequence), 0_i64);
        for packet in got {
            unwrapped += i64::from(packet.sequence.wrapping_sub(last) as i16);
            last = packet.sequence;
            ordered.insert(unwrapped, packet);
        }
        let full: Vec<_> = ordered.values().filter_map(|got| Some((*got, got.vp8?))).collect();
        let mut changes = 0;
        for pair in full.windows(2) {
            let [(a, x), (b, y)] = pair else { continue };
            let step = b.timestamp.wrapping_sub(a.timestamp) as i32;
            let pictures = (y.picture.wrapping_sub(x.picture) << 1) as i16 >> 1;
            if x.made == y.made {
                assert_eq!((step, pictures), (0, 0), "{a:?} {b:?}");
                continue;
            }
            assert!(step > 0 && pictures > 0, "{a:?} {b:?}");
            assert!((y.tl0.wrapping_sub(x.tl0) as i8) >= 0, "{a:?} {b:?}");
            if x.made.0 != y.made.0 {
                changes += 1;
                assert!(y.keyframe && y.first, "another layer begins with a keyframe: {a:?} {b:?}");
            }
        }
        // Holes are only what never reached the gateway.
        let span = ordered
            .keys()
            .next_back()
            .map_or(0, |last| last - ordered.keys().next().unwrap_or(&0) + 1);
        let holes = span as usize - ordered.len();
        assert!(holes as f64 <= 0.02 * span as f64 + 8.0, "{holes} holes of {span}");
        (full.len(), changes)
    }
}

struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failing seed: {} (VEILGATE_SEED={} runs it alone)", self.0, self.0);
        }
    }
}

#[test]
fn laws_hold_whatever_the_way_does_and_the_player_wishes() {
    let alone = std::env::var("VEILGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = alone.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let (mut packets, mut changes, mut repeated) = (0, 0, 0);
    for seed in seeds {
        let guard = Seed(seed);
        let mut world = World::new(seed);
        for time in (0..RUN).step_by(2) {
            world.step(time);
        }
        repeated += world.scene.repeated;
        let (seen, changed) = world.end();
        packets += seen;
        changes += changed;
        drop(guard);
    }
    // The world does what it is for.
    assert!(packets > 100 && changes > 3 && repeated > 10, "{packets} {changes} {repeated}");
}
