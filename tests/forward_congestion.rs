//! A seeded world in virtual time: a publisher of three simulcast layers, the forwarder, and twenty
//! players behind links that lose, reorder, double and are too slow. The laws of forwarding hold at
//! each step; in the end each path's estimate is what the path carries.

mod forward_kit;
#[path = "forward_kit/layered.rs"]
mod layered;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use forward_kit::*;
use layered::{Encoder, layered_spec};
use rand::Rng;
use rand::rngs::StdRng;
use veilgate::engine::congestion::{Congestion, SessionShared};
use veilgate::engine::endpoint::Part;
use veilgate::engine::media::StreamShared;
use veilgate::forward::{
    Cache, MAX_OVERHEAD, MAX_PAYLOAD, PacketHead, Publisher, RateMeter, Wants,
};
use veilgate::metrics::{Counters, Id};
use veilgate::time::{Mono, Now};
use veilgate::wire::media::MediaKind;
use veilgate::wire::rtcp::{Compound, Packet, Writer};
use veilgate::wire::rtp::Rtp;

const SEEDS: u64 = 200;
const PLAYERS: usize = 20;
/// Virtual time of one world and its step, ms.
const RUN: u64 = 14_000;
const STEP: u64 = 5;
/// Links change here, and are at rest from here on.
const CHANGE: u64 = 3_000;
const STEADY: u64 = 9_000;
/// SRTP's tag, and what a bottleneck sees around it.
const TAG: usize = 16;
const HEADERS: usize = 32;
/// Payload of each packet by layer, and packets of a picture: 50, 160 and 420 kbit/s.
const SIZES: [usize; 3] = [550, 900, 1_230];
const PACKETS: [u32; 3] = [1, 2, 4];

/// What arrives at a browser.
#[derive(Clone, Copy)]
struct Arriving {
    ssrc: u32,
    sequence: u16,
    /// Of RTX with a payload.
    original: Option<u16>,
    number: Option<u16>,
}

/// The way down to one player.
struct Link {
    /// Bits per second.
    rate: f64,
    queue: f64,
    delay: f64,
    jitter: f64,
    loss: f64,
    doubles: f64,
    busy: f64,
    under_way: BTreeMap<(u64, u64), Arriving>,
    count: u64,
}

impl Link {
    fn new(rng: &mut StdRng) -> Self {
        Self {
            rate: 160_000.0 * rng.random_range(0.0_f64..2.0).exp(),
            queue: rng.random_range(200.0..400.0),
            delay: rng.random_range(5.0..60.0),
            jitter: [0.0, 10.0, 40.0][rng.random_range(0..3)],
            loss: [0.0, 0.02, 0.05][rng.random_range(0..3)],
            doubles: [0.0, 0.02][rng.random_range(0..2)],
            busy: 0.0,
            under_way: BTreeMap::new(),
            count: 0,
        }
    }

    fn send(&mut self, rng: &mut StdRng, time: u64, size: usize, packet: Arriving) {
        self.busy = self.busy.max(time as f64);
        if self.busy - time as f64 > self.queue {
            return;
        }
        self.busy += (size + TAG + HEADERS) as f64 * 8_000.0 / self.rate;
        for _ in 0..1 + usize::from(rng.random_bool(self.doubles)) {
            if !rng.random_bool(self.loss) {
                let late = rng.random_range(0.0..=self.jitter);
                self.count += 1;
                let arrival = (self.busy + self.delay + late) * 1e3;
                self.under_way.insert((arrival as u64, self.count), packet);
            }
        }
    }
}

/// The receiving end: reports, NACKs.
#[derive(Default)]
struct Browser {
    /// Arrivals by transport-wide number without wrap, µs.
    arrivals: BTreeMap<u64, u64>,
    newest: u64,
    told: u64,
    index: u8,
    highest: Option<u64>,
    missing: BTreeMap<u64, u32>,
}

impl Browser {
    fn take(&mut self, time: u64, packet: Arriving, video: u32) {
        if let Some(number) = packet.number {
            let number = near(self.newest, number);
            self.newest = self.newest.max(number);
            if let std::collections::btree_map::Entry::Vacant(place) = self.arrivals.entry(number) {
                place.insert(time);
                self.told = self.told.min(number);
            }
        }
        if let Some(original) = packet.original {
            self.missing.retain(|number, _| *number as u16 != original);
        } else if packet.ssrc == video {
            let first = u64::from(packet.sequence);
            let number = near(self.highest.unwrap_or(first), packet.sequence);
            for lost in self.highest.map_or(number, |highest| highest + 1)..number {
                self.missing.insert(lost, 0);
            }
            self.missing.remove(&number);
            self.highest = Some(self.highest.unwrap_or(0).max(number));
        }
    }

    fn report(&mut self, writer: &mut Writer<'_>, video: u32) {
        writer.receiver_report(1, []);
        self.missing.retain(|_, tries| *tries < 5);
        if !self.missing.is_empty() {
            let asked = self.missing.iter_mut().take(60).map(|(number, tries)| {
                *tries += 1;
                *number as u16
            });
            writer.nack(1, video, asked);
        }
        while self.told <= self.newest && !self.arrivals.is_empty() {
            let range = self.told..=self.newest.min(self.told + 200);
            let times: Vec<_> = range
                .map(|number| {
                    let at = self.arrivals.get(&number)?;
                    Some(Mono::from_nanos(at * 1_000 + 9_000_000_000))
                })
                .collect();
            let told = writer.transport_cc((1, 2), self.index, self.told as u16, &times);
            self.index = self.index.wrapping_add(1);
            self.told += if told == 0 { times.len() } else { told } as u64;
        }
        self.arrivals = self.arrivals.split_off(&self.newest.saturating_sub(400));
    }
}

/// The number next to `reference` with these low bits.
fn near(reference: u64, low: u16) -> u64 {
    reference.wrapping_add_signed(i64::from(low.wrapping_sub(reference as u16) as i16))
}

/// How a player tells of its path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tells {
    TransportCc,
    Remb,
    Nothing,
}

struct Seat {
    part: Vec<Part>,
    congestion: Congestion,
    shared: Arc<SessionShared>,
    tracks: &'static [u8],
    tells: Tells,
    link: Link,
    browser: Browser,
    /// Every packet that was ever sealed: sum and length of its bytes, by SSRC and index.
    sealed: HashMap<(u32, u64), (u32, usize)>,
    highest: HashMap<u32, u64>,
    reports: BTreeMap<(u64, u64), Vec<u8>>,
    /// In the steady state.
    estimates: Vec<u64>,
    due: Mono,
}

impl Seat {
    fn new(rng: &mut StdRng, place: usize, stream: &Arc<StreamShared>) -> Self {
        let tells = match place {
            18 => Tells::Remb,
            19 => Tells::Nothing,
            _ => Tells::TransportCc,
        };
        let tracks: &[u8] = if place == 17 { &[AUDIO] } else { &[AUDIO, VIDEO] };
        let mut spec = play(&stream.spec, tracks, true);
        if tells == Tells::TransportCc {
            for track in &mut spec.tracks {
                track.extensions.transport_cc = Some(TRANSPORT_CC);
            }
        }
        let shared = Arc::new(SessionShared::default());
        Self {
            part: vec![Part::new(Arc::clone(stream), spec, rng, at(0))],
            congestion: Congestion::new(Arc::clone(&shared)),
            shared,
            tracks,
            tells,
            link: Link::new(rng),
            browser: Browser::default(),
            sealed: HashMap::new(),
            highest: HashMap::new(),
            reports: BTreeMap::new(),
            estimates: Vec::new(),
            due: Mono::ZERO,
        }
    }

    /// What the engine does with a written packet.
    fn seal(&mut self, rng: &mut StdRng, time: u64, packet: &[u8], video: bool) {
        let rtp = Rtp::parse(packet).expect("valid");
        let spec = |track: &u8| play_track(*track, *track == VIDEO);
        let own = self
            .tracks
            .iter()
            .map(spec)
            .find(|spec| rtp.ssrc() == spec.ssrc || Some(rtp.ssrc()) == spec.rtx_ssrc);
        assert!(own.is_some(), "a packet of a track that it does not take");
        let first = u64::from(rtp.sequence());
        let highest = self.highest.entry(rtp.ssrc()).or_insert(first);
        let index = near(*highest, rtp.sequence());
        assert!(index <= *highest + 1 + u64::from(rtp.ssrc() & 0x2000 == 0) * 40, "a leap");
        *highest = index.max(*highest);
        let sum = (crc32fast::hash(packet), packet.len());
        let before = self.sealed.insert((rtp.ssrc(), index), sum);
        assert!(before.is_none_or(|before| before == sum), "one nonce, two byte strings");
        let number = rtp
            .extension(TRANSPORT_CC)
            .map(|value| u16::from_be_bytes(value.try_into().expect("two bytes")));
        let numbered = self.part[0].player.took_number();
        assert_eq!(numbered, number.is_some(), "what is numbered is accounted for");
        assert_eq!(numbered, self.tells == Tells::TransportCc);
        assert!(number.is_none_or(|number| number == self.congestion.next_number()));
        let now = at(time).mono;
        self.congestion.on_sent(now, packet.len() + TAG, numbered, video);
        let rtx = rtp.ssrc() & 0x2000 != 0;
        let original = rtp.payload().first_chunk::<2>().filter(|_| rtx);
        let arriving = Arriving {
            ssrc: rtp.ssrc(),
            sequence: rtp.sequence(),
            original: original.map(|bytes| u16::from_be_bytes(*bytes)),
            number,
        };
        self.link.send(rng, time, packet.len(), arriving);
    }

    fn forward(
        &mut self,
        rng: &mut StdRng,
        time: u64,
        (head, payload): (&PacketHead, &[u8]),
        counters: &mut Counters,
    ) {
        let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
        let player = &mut self.part[0].player;
        player.offer_number(self.congestion.next_number());
        if let Some(len) = player.write_rtp(at(time), head, payload, &mut slot, counters) {
            self.seal(rng, time, &slot[..len], head.track == VIDEO);
            self.due = Mono::ZERO;
        }
    }

    /// The browser's turn, and what it says.
    fn browse(&mut self, rng: &mut StdRng, time: u64) {
        let video = play_track(VIDEO, true).ssrc;
        while let Some(entry) = self.link.under_way.first_entry()
            && entry.key().0 <= time * 1_000
        {
            let ((at, _), packet) = entry.remove_entry();
            self.browser.take(at, packet, video);
        }
        if time.is_multiple_of(100) {
            let mut out = [0; 1_200];
            let mut writer = Writer::new(&mut out);
            self.browser.report(&mut writer, video);
            if self.tells == Tells::Remb {
                writer.remb(1, (0.9 * self.link.rate) as u64, [video]);
            }
            let len = writer.len();
            if !rng.random_bool(self.link.loss) {
                let arrival = time + self.link.delay as u64;
                self.reports.insert((arrival, time), out[..len].to_vec());
            }
        }
    }
}

struct World {
    rng: StdRng,
    stream: Arc<StreamShared>,
    publisher: Publisher,
    encoders: Vec<Encoder>,
    audio: (u16, u32),
    caches: [Cache; 2],
    meters: [RateMeter; 2],
    seats: Vec<Seat>,
    counters: Counters,
    wants: Wants,
    /// Publisher's packets on their way.
    up: BTreeMap<(u64, u64), Vec<u8>>,
    count: u64,
    loss: f64,
    keys: BTreeSet<u8>,
    /// Paths whose estimate was looked at.
    estimated: u32,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = rng(seed);
        let spec = stream_of(vec![audio_spec(), layered_spec()]);
        let stream = Arc::new(StreamShared::new(Arc::clone(&spec)));
        let mut encoders: Vec<_> =
            (0..3).map(|layer| Encoder::new(layer, seed as u16 & 0xFF)).collect();
        for (encoder, packets) in encoders.iter_mut().zip(PACKETS) {
            encoder.packets = packets;
        }
        let seats = (0..PLAYERS).map(|place| Seat::new(&mut rng, place, &stream)).collect();
        Self {
            publisher: Publisher::new(Arc::clone(&spec), forward_kit::rng(seed), at(0)),
            stream,
            encoders,
            audio: (rng.random(), rng.random()),
            caches: [Cache::new(MediaKind::Audio), Cache::new(MediaKind::Video)],
            meters: [RateMeter::new(&spec.tracks[0]), RateMeter::new(&spec.tracks[1])],
            seats,
            counters: Counters::default(),
            wants: Wants::default(),
            up: BTreeMap::new(),
            count: 0,
            loss: [0.0, 0.005][rng.random_range(0..2)],
            keys: BTreeSet::new(),
            estimated: 0,
            rng,
        }
    }

    fn publish(&mut self, time: u64) {
        let mut packets = Vec::new();
        if time.is_multiple_of(40) {
            self.audio = (self.audio.0.wrapping_add(1), self.audio.1.wrapping_add(1_920));
            let numbers = (111, AUDIO_SSRC, self.audio.0, self.audio.1);
            packets.push(rtp(numbers, &[(MID, b"0")], &[0x55; 60]));
        }
        if time.is_multiple_of(100) {
            for (encoder, size) in self.encoders.iter_mut().zip(SIZES) {
                encoder.wants_key |= self.keys.remove(&encoder.layer);
                for mut packet in encoder.picture() {
                    packet.resize(packet.len() + size - 12, 0x55);
                    packets.push(packet);
                }
            }
        }
        for packet in packets {
            if !self.rng.random_bool(self.loss) {
                self.count += 1;
                let arrival = time + self.rng.random_range(5..20);
                self.up.insert((arrival, self.count), packet);
            }
        }
        while let Some(entry) = self.up.first_entry()
            && entry.key().0 <= time
        {
            let packet = entry.remove();
            let media = self.publisher.on_rtp(at(time), &packet, &mut self.counters);
            let Some(media) = media else { continue };
            let payload = &packet[media.payload.clone()];
            let track = usize::from(media.track);
            self.caches[track].store(&media, payload);
            self.meters[track].add(at(time).mono, &media, payload.len());
            for seat in &mut self.seats {
                seat.forward(&mut self.rng, time, (&media, payload), &mut self.counters);
            }
        }
    }

    fn step(&mut self, time: u64) {
        let now = at(time);
        self.publish(time);
        let mut out = [0; 1_200];
        while let Some(len) = self.publisher.poll_rtcp(now, &mut out, &mut self.counters) {
            for packet in Compound::new(&out[..len]) {
                if let Packet::Pli { media } = packet.expect("ours are valid") {
                    self.keys.insert((media & 3) as u8);
                }
            }
        }
        let mut seats = std::mem::take(&mut self.seats);
        for (place, seat) in seats.iter_mut().enumerate() {
            seat.browse(&mut self.rng, time);
            while let Some(entry) = seat.reports.first_entry()
                && entry.key().0 <= time
            {
                let compound = entry.remove();
                self.on_rtcp(now, time, seat, &compound);
                seat.due = Mono::ZERO;
            }
            if seat.due <= now.mono {
                self.settle(now, time, seat);
            }
            if time >= STEADY && time.is_multiple_of(50) {
                seat.estimates.push(seat.shared.estimate().unwrap_or_default());
            }
            // Half of the links become slower or faster.
            if time == CHANGE && place.is_multiple_of(2) {
                seat.link.rate *= [0.5, 0.7, 2.0][self.rng.random_range(0..3)];
                seat.link.rate = seat.link.rate.max(160_000.0);
            }
        }
        self.seats = seats;
        assert!(self.caches[0].memory() <= 64 * MAX_PAYLOAD);
        assert!(self.caches[1].memory() <= 512 * MAX_PAYLOAD);
    }

    fn on_rtcp(&mut self, now: Now, time: u64, seat: &mut Seat, compound: &[u8]) {
        seat.congestion.on_rtcp(now.mono, compound, &mut self.counters);
        self.wants.clear();
        let player = &mut seat.part[0].player;
        player.on_rtcp(now, compound, &mut self.wants, &mut self.counters);
        assert!(self.wants.nacks.len() <= 512 && self.wants.keyframes.len() <= 8);
        for (layer, sequence) in std::mem::take(&mut self.wants.nacks) {
            let cache = &self.caches[usize::from(layer.track)];
            let Some((head, payload)) = cache.load(layer.layer, sequence) else { continue };
            let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
            let player = &mut seat.part[0].player;
            player.offer_number(seat.congestion.next_number());
            let counters = &mut self.counters;
            let len = player.write_retransmission(now, &head, payload, &mut slot, counters);
            if let Some(len) = len {
                seat.seal(&mut self.rng, time, &slot[..len], true);
            }
        }
    }

    /// As the engine after input or a timer.
    fn settle(&mut self, now: Now, time: u64, seat: &mut Seat) {
        let meters = &mut self.meters;
        let id = self.stream.spec.id;
        let rates = |stream, track: u8| {
            assert_eq!(stream, id);
            Some(meters[usize::from(track)].rates(now.mono))
        };
        seat.congestion.handle_timeout(now.mono, &mut seat.part, rates, &mut self.counters);
        let mut padding = 0;
        while seat.congestion.wants_padding(now.mono, &mut self.counters) {
            let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
            let player = &mut seat.part[0].player;
            player.offer_number(seat.congestion.next_number());
            match player.write_padding(&mut slot) {
                Some(len) => seat.seal(&mut self.rng, time, &slot[..len], false),
                None => seat.congestion.cannot_pad(),
            }
            padding += 1;
            assert!(padding < 1_000, "padding comes to an end");
        }
        for layer in seat.part[0].player.wants_keyframe() {
            self.publisher.request_keyframe(now, layer, &mut self.counters);
        }
        let due = seat.congestion.poll_timeout();
        seat.due = due.unwrap_or(Mono::from_nanos(u64::MAX));
    }

    fn end(&mut self) {
        let audio = 25.0 * (60 + 20 + TAG + HEADERS) as f64 * 8.0;
        let video = |layer: usize| {
            let packet = (SIZES[layer] + 20 + TAG + HEADERS) as f64 * 8.0;
            10.0 * f64::from(PACKETS[layer]) * packet
        };
        let top = audio + video(2);
        for (place, seat) in self.seats.iter_mut().enumerate() {
            // Over five seconds: layers and bursts come and go meanwhile, and what is known with them.
            let sum: u64 = seat.estimates.iter().sum();
            let mean = sum as f64 / seat.estimates.len() as f64;
            match seat.tells {
                Tells::Nothing => assert_eq!(mean, 0.0),
                Tells::Remb => assert!((mean / seat.link.rate - 0.9).abs() < 0.05, "{mean}"),
                Tells::TransportCc if seat.tracks == [AUDIO] => {}
                Tells::TransportCc => {
                    // More than all there is to send nobody looks for.
                    let least = 0.75 * seat.link.rate.min(1.1 * top);
                    let most = if seat.link.rate < top { 1.25 * seat.link.rate } else { f64::MAX };
                    self.estimated += 1;
                    let Link { rate, jitter, loss, queue, .. } = seat.link;
                    assert!(
                        (least..=most).contains(&mean),
                        "player {place}: {mean:.0} of {rate:.0} ({:.2}; jitter {jitter}, loss \
                         {loss}, queue {queue:.0})",
                        mean / rate
                    );
                }
            }
            assert!(seat.sealed.len() > 300, "player {place} was sent {}", seat.sealed.len());
        }
        assert_eq!(self.counters.get(Id::ForwardDropMalformed), 0);
        assert_eq!(self.counters.get(Id::ForwardRtcpMalformed), 0);
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
fn laws_hold_and_estimates_are_true_for_twenty_players_under_loss_and_rate_limits() {
    let alone = std::env::var("VEILGATE_SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = alone.map_or(0..SEEDS, |seed: u64| seed..seed + 1);
    let (mut worlds, mut estimated) = (0, 0);
    let (mut probes, mut ups, mut downs, mut repeated) = (0, 0, 0, 0);
    for seed in seeds {
        let guard = Seed(seed);
        let mut world = World::new(seed);
        for time in (0..RUN).step_by(STEP as usize) {
            world.step(time);
        }
        world.end();
        probes += world.counters.get(Id::ForwardProbes);
        ups += world.counters.get(Id::ForwardLayerUp);
        downs += world.counters.get(Id::ForwardLayerDown);
        repeated += world.counters.get(Id::ForwardRetransmitted);
        (worlds, estimated) = (worlds + 1, estimated + world.estimated);
        drop(guard);
    }
    assert_eq!(estimated, 17 * worlds, "each path of each world");
    // The world does what it is for.
    assert!(probes > 0 && ups > 0 && downs > 0 && repeated > 0);
}
