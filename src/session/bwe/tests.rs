//! The estimator over a seeded model of a link, in virtual time.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::wire::rtcp::{Compound, Packet, Writer};

/// One direction of a path; rates in bits per second, times in ms.
#[derive(Clone, Copy)]
struct Path {
    rate: f64,
    queue: f64,
    delay: f64,
    jitter: f64,
    loss: f64,
    /// Traffic of others, at its highest.
    cross: f64,
}

const PLAIN: Path =
    Path { rate: 1_500_000.0, queue: 300.0, delay: 30.0, jitter: 0.0, loss: 0.0, cross: 0.0 };

#[derive(Clone, Copy)]
enum Source {
    /// Sends what the estimate allows, up to so much.
    Elastic(f64),
    /// Sends the highest of these rates that fits with a margin, as simulcast does.
    Layers(&'static [f64]),
}

struct World {
    rng: StdRng,
    time: u64,
    path: Path,
    source: Source,
    estimator: Estimator,
    /// When the bottleneck is free again, ms.
    busy: f64,
    crossing: f64,
    under_way: BTreeMap<(u64, u64), u16>,
    count: u64,
    arrivals: BTreeMap<u64, Mono>,
    numbers: u64,
    told: u64,
    index: u8,
    reports: BTreeMap<u64, Vec<u8>>,
    debt: f64,
    layer: usize,
    /// Media bits that arrived.
    delivered: f64,
    probing: f64,
}

impl World {
    fn new(seed: u64, path: Path, source: Source) -> Self {
        Self {
            rng: StdRng::seed_from_u64(seed),
            time: 10_000,
            path,
            source,
            estimator: Estimator::new(),
            busy: 0.0,
            crossing: 0.0,
            under_way: BTreeMap::new(),
            count: 0,
            arrivals: BTreeMap::new(),
            numbers: 1,
            told: 1,
            index: 0,
            reports: BTreeMap::new(),
            debt: 0.0,
            layer: 0,
            delivered: 0.0,
            probing: 0.0,
        }
    }

    fn send(&mut self, size: usize, video: bool) {
        self.numbers += 1;
        let number = self.estimator.next_number();
        assert_eq!(number, (self.numbers - 1) as u16);
        self.estimator.on_sent(at(self.time), size, video);
        let time = self.time as f64;
        let bits = (size + HEADERS) as f64 * 8.0;
        self.busy = self.busy.max(time);
        if self.busy - time > self.path.queue {
            return;
        }
        self.busy += bits / self.path.rate * 1e3;
        if self.rng.random_bool(self.path.loss) {
            return;
        }
        let jitter = self.rng.random_range(0.0..=self.path.jitter);
        let arrival = (self.busy + self.path.delay + jitter) * 1e3;
        self.count += 1;
        self.under_way.insert((arrival as u64, self.count), number);
        if video {
            self.delivered += bits;
        } else {
            self.probing += bits;
        }
    }

    fn step(&mut self) {
        self.time += 1;
        let time = self.time;
        // Others come and go twice a second.
        if self.path.cross > 0.0 {
            if time.is_multiple_of(500) {
                self.crossing = self.rng.random_range(0.0..self.path.cross);
            }
            self.busy = self.busy.max(time as f64) + self.crossing / self.path.rate;
        }
        if time.is_multiple_of(33) {
            let estimate = self.estimator.estimate().unwrap_or(START) as f64;
            let rate = match self.source {
                Source::Elastic(most) => {
                    self.estimator.set_wanted(most as u64);
                    (0.9 * estimate).min(most)
                }
                Source::Layers(rates) => {
                    let fits = |margin: f64| {
                        rates.iter().rposition(|rate| rate * margin <= estimate).unwrap_or(0)
                    };
                    self.layer = self.layer.min(fits(1.0)).max(fits(1.15));
                    let next = rates.get(self.layer + 1).or_else(|| rates.last()).copied();
                    self.estimator.set_wanted((1.15 * next.unwrap_or(0.0)) as u64);
                    rates[self.layer]
                }
            };
            self.debt += rate * 0.033 / 8.0 * self.rng.random_range(0.7..1.3);
            while self.debt > 0.0 {
                let size = self.debt.clamp(200.0, 1_150.0) as usize;
                self.debt -= (size + HEADERS) as f64;
                self.send(size, true);
            }
        }
        while let Some(entry) = self.under_way.first_entry()
            && entry.key().0 <= time * 1_000
        {
            let ((arrival, _), number) = entry.remove_entry();
            let behind = (self.numbers as u16).wrapping_sub(number);
            let number = self.numbers - u64::from(behind);
            self.arrivals.insert(number, Mono::from_nanos(arrival * 1_000 + 77_000_000_000));
            self.told = self.told.min(number);
        }
        if time.is_multiple_of(50) {
            self.report();
        }
        while let Some(entry) = self.reports.first_entry()
            && *entry.key() <= time
        {
            let bytes = entry.remove();
            for packet in Compound::new(&bytes) {
                let Ok(Packet::TransportCc { feedback, .. }) = packet else { panic!("{packet:?}") };
                self.estimator.on_feedback(at(time), &feedback);
            }
        }
        if self.estimator.poll_timeout().is_some_and(|due| due <= at(time)) {
            self.estimator.handle_timeout(at(time));
            let mut burst = 0;
            while self.estimator.wants_padding(at(time)) {
                self.send(265, false);
                burst += 1;
                assert!(burst < 1_000, "padding comes to an end");
            }
        }
    }

    fn report(&mut self) {
        let Some((last, _)) = self.arrivals.last_key_value() else { return };
        let last = *last;
        while self.told <= last {
            let told: Vec<_> =
                (self.told..=last).map(|n| self.arrivals.get(&n).copied()).take(500).collect();
            let mut out = [0; 1_200];
            let mut writer = Writer::new(&mut out);
            let count = writer.transport_cc((1, 2), self.index, self.told as u16, &told);
            if count == 0 {
                self.told = last + 1;
                break;
            }
            self.index = self.index.wrapping_add(1);
            self.told += count as u64;
            let len = writer.len();
            if !self.rng.random_bool(self.path.loss) {
                let back = self.time + self.path.delay as u64;
                self.reports.entry(back).or_default().extend(&out[..len]);
            }
        }
        let old = last.saturating_sub(2_000);
        self.arrivals = self.arrivals.split_off(&old);
    }

    fn run(&mut self, millis: u64) {
        for _ in 0..millis {
            self.step();
        }
    }

    fn estimate(&self) -> f64 {
        self.estimator.estimate().unwrap_or(START) as f64
    }

    /// Mean of the estimate over some time.
    fn mean(&mut self, millis: u64) -> f64 {
        let mut sum = 0.0;
        for _ in 0..millis {
            self.step();
            sum += self.estimate();
        }
        sum / millis as f64
    }

    /// How long until the estimate is where it should be, ms.
    fn until(&mut self, most: u64, reached: impl Fn(f64) -> bool) -> u64 {
        (0..most)
            .find(|_| {
                self.step();
                reached(self.estimate())
            })
            .unwrap_or(most)
    }
}

fn at(millis: u64) -> Mono {
    Mono::from_nanos(millis * 1_000_000)
}

const LAYERS: Source = Source::Layers(&[150_000.0, 500_000.0, 2_500_000.0]);
const SEEDS: u64 = 100;

/// A path that a seed makes up, slow or fast, clean or not.
fn some_path(seed: u64) -> Path {
    let mut rng = StdRng::seed_from_u64(seed ^ 0xFACE);
    let rate = rng.random_range(300_000.0..8_000_000.0);
    Path {
        rate,
        queue: rng.random_range(100.0..500.0),
        delay: rng.random_range(5.0..80.0),
        jitter: [0.0, 10.0, 40.0][rng.random_range(0..3)],
        loss: [0.0, 0.02, 0.05][rng.random_range(0..3)],
        cross: [0.0, 0.2 * rate][rng.random_range(0..2)],
    }
}

#[test]
fn the_estimate_settles_within_a_quarter_of_what_the_path_carries() {
    for seed in 0..SEEDS {
        let path = some_path(seed);
        let mut world = World::new(seed, path, Source::Elastic(20_000_000.0));
        world.run(12_000);
        let mean = world.mean(10_000);
        // Others take half of their most in the mean.
        let true_rate = path.rate - path.cross / 2.0;
        let off = mean / true_rate - 1.0;
        assert!(off.abs() < 0.25, "seed {seed}: {mean:.0} of {true_rate:.0}");
    }
}

#[test]
fn a_link_that_becomes_slow_is_noticed_and_one_that_recovers_is_found_by_bursts() {
    for seed in 0..SEEDS {
        let dirt = some_path(seed);
        let fast = Path { rate: 5_000_000.0, jitter: dirt.jitter, loss: dirt.loss, ..PLAIN };
        let mut world = World::new(seed, fast, LAYERS);
        let up = world.until(10_000, |estimate| estimate > 2_800_000.0);
        assert!(up < 10_000, "seed {seed}: the top layer after {up} ms");
        world.run(5_000);
        world.path.rate = PLAIN.rate;
        let down = world.until(4_000, |estimate| estimate < 1_600_000.0);
        assert!(down < 2_500, "seed {seed}: down after {down} ms");
        world.run(15_000 - down);
        assert_eq!(world.layer, 1, "seed {seed}: the middle layer fits");
        assert!(world.estimate() > 700_000.0, "seed {seed}: {}", world.estimate());
        world.path.rate = fast.rate;
        let up = world.until(10_000, |estimate| estimate > 2_800_000.0);
        assert!(up < 8_000, "seed {seed}: up again after {up} ms");
    }
}

#[test]
fn losses_by_chance_do_not_bring_the_estimate_down() {
    for seed in 0..SEEDS {
        let path = Path { rate: 4_000_000.0, loss: 0.05, jitter: 40.0, ..PLAIN };
        let mut world = World::new(seed, path, LAYERS);
        world.run(10_000);
        let mut sum = 0.0;
        for _ in 0..20_000 {
            world.step();
            assert!(world.estimate() > 1_500_000.0, "seed {seed}: {}", world.estimate());
            sum += world.estimate() / 20_000.0;
        }
        assert!(sum > 2_500_000.0, "seed {seed}: {sum:.0} in the mean");
    }
}

#[test]
fn a_stream_that_sends_little_keeps_its_estimate() {
    for seed in 0..SEEDS {
        let path = Path { jitter: 40.0, ..PLAIN };
        let mut world = World::new(seed, path, Source::Layers(&[500_000.0]));
        world.run(10_000);
        for _ in 0..20_000 {
            world.step();
            assert!(world.estimate() > 600_000.0, "seed {seed}: {}", world.estimate());
        }
    }
}

#[test]
fn bursts_are_a_small_part_of_what_is_sent() {
    for seed in 0..SEEDS {
        let mut world = World::new(seed, PLAIN, LAYERS);
        world.run(30_000);
        let share = world.probing / world.delivered;
        assert!(share < 0.25, "seed {seed}: {share}");
        assert!(world.estimator.probes() >= 3, "seed {seed}");
    }
}

#[test]
fn without_padding_the_estimate_grows_with_what_is_sent() {
    let mut world = World::new(1, PLAIN, Source::Elastic(20_000_000.0));
    world.estimator.set_can_probe(false);
    world.run(40_000);
    let mean = world.mean(5_000);
    assert!((1_125_000.0..1_875_000.0).contains(&mean), "{mean}");
    assert_eq!((world.estimator.probes(), world.probing), (0, 0.0));
}

#[test]
fn a_path_that_says_nothing_any_more_is_sent_less_and_less() {
    let mut world = World::new(1, PLAIN, LAYERS);
    world.run(10_000);
    let before = world.estimate();
    world.path.loss = 1.0;
    world.run(5_000);
    assert!(world.estimate() < 0.5 * before, "{} of {before}", world.estimate());
    // Nor does silence after the last packet count as such.
    let mut estimator = world.estimator;
    let mut due = at(world.time);
    let mut timers = 0;
    while let Some(next) = estimator.poll_timeout().filter(|_| timers < 100) {
        due = due.max(next);
        estimator.handle_timeout(due);
        estimator.set_can_probe(false);
        timers += 1;
    }
    assert!(timers < 100, "timers come to an end");
}

#[test]
fn remb_counts_where_there_is_no_feedback() {
    let mut estimator = Estimator::new();
    assert_eq!(estimator.estimate(), None);
    estimator.on_remb(700_000);
    assert_eq!(estimator.estimate(), Some(700_000));
    let mut world = World::new(1, PLAIN, LAYERS);
    world.run(1_000);
    let before = world.estimator.estimate();
    world.estimator.on_remb(100);
    assert_eq!(world.estimator.estimate(), before);
}

proptest::proptest! {
    #[test]
    fn no_feedback_makes_it_panic_or_leave_its_bounds(
        messages in proptest::collection::vec(
            (
                proptest::num::u16::ANY,
                0_u64..1 << 44,
                proptest::collection::vec(proptest::option::of(0_u64..5_000_000_000), 1..40),
            ),
            1..40,
        ),
    ) {
        let mut estimator = Estimator::new();
        let mut time = 1_000;
        for (base, start, arrivals) in messages {
            for n in 0..30 {
                estimator.on_sent(at(time + n), 1_000, true);
            }
            time += 100;
            let close = estimator.next_number().wrapping_sub(base % 64);
            let mut out = [0; 1_200];
            let mut writer = Writer::new(&mut out);
            let arrivals: Vec<_> = arrivals
                .iter()
                .map(|nanos| nanos.map(|nanos| Mono::from_nanos(start * 1_000 + nanos)))
                .collect();
            writer.transport_cc((1, 2), 0, close, &arrivals);
            let len = writer.len();
            for packet in Compound::new(&out[..len]) {
                let Ok(Packet::TransportCc { feedback, .. }) = packet else { panic!("{packet:?}") };
                estimator.on_feedback(at(time), &feedback);
            }
            estimator.handle_timeout(at(time));
            while estimator.wants_padding(at(time)) {
                estimator.on_sent(at(time), 265, false);
            }
            let estimate = estimator.estimate().expect("known") as f64;
            assert!((rate::LEAST..=rate::MOST).contains(&estimate), "{estimate}");
        }
    }
}
