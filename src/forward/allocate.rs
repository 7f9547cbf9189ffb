//! How a player's tracks share what its path carries: audio first, then the lowest layer of each
//! video, then upper ones in turn, as long as they fit.
//!
//! Down goes at once where it is clear, else soon. Up needs room to spare and some time since the last step down, more of it
//! each time the step up proves wrong. A layer is given whole: its frame rate is not traded for
//! resolution, except at the lowest.

use std::time::Duration;

use crate::time::Mono;
use crate::wire::media::MediaKind;

use super::Target;

/// A step up needs this much more than its rate, in percent.
pub const MARGIN: u64 = 115;
/// Layers are kept for a while as long as the estimate is this share of what they take, in percent:
/// a moment's jitter brings it down as a full path does, but not for long.
const TOLERANCE: u64 = 80;
const GRACE: Duration = Duration::from_secs(3);
/// The lowest layer is kept down to this share of its rate, and taken up again at so much of it: a
/// poor picture before none.
const LAST: u64 = 50;
const LAST_AGAIN: u64 = 80;
/// After a step down none goes up for so long; at most, when steps up keep failing.
const HOLD: Duration = Duration::from_secs(2);
const LONGEST_HOLD: Duration = Duration::from_secs(16);
/// A step up failed when down follows so soon; one that lasted so long was right.
const FAILED: Duration = Duration::from_secs(8);

/// A track that asks for a share.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The caller's name for it, the same from call to call.
    pub key: (u64, u8),
    /// Audio is never held back.
    pub kind: MediaKind,
    /// What may be sent, ascending, with its rate in bits per second. Empty: nothing is known yet,
    /// or nothing is wished.
    pub options: Vec<(Target, u32)>,
}

/// What a track gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Share {
    /// Whose.
    pub key: (u64, u8),
    /// What to send at most; `None`: nothing.
    pub target: Option<Target>,
}

/// What one call decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// What all tracks take with the next step up, its margin included, bits per second; zero when
    /// everything is sent.
    pub wanted: u64,
    /// What they take now.
    pub taken: u64,
    /// Steps up.
    pub ups: u64,
    /// Steps down.
    pub downs: u64,
}

#[derive(Debug)]
struct Track {
    key: (u64, u8),
    target: Option<Target>,
    known: bool,
    seen: bool,
    up_at: Option<Mono>,
    hold: Duration,
    held_until: Mono,
}

/// The shares of one player's tracks, with what is remembered of them.
#[derive(Debug, Default)]
pub struct Allocator {
    tracks: Vec<Track>,
    /// Since when more is sent than is estimated.
    short: Option<Mono>,
    shares: Vec<Share>,
}

impl Allocator {
    /// Shares `estimate` bits per second; `None`: the path is not known to have a limit. Until the
    /// limit is `proven`, the lowest layers are sent whatever they take.
    pub fn allocate(
        &mut self,
        now: Mono,
        estimate: Option<u64>,
        proven: bool,
        asks: &[Ask],
    ) -> Outcome {
        self.shares.clear();
        for track in &mut self.tracks {
            track.seen = false;
        }
        let mut outcome = Outcome::default();
        let Some(estimate) = estimate else {
            self.tracks.clear();
            let best = |ask: &Ask| Share { key: ask.key, target: Some(Target::BEST) };
            self.shares.extend(asks.iter().map(best));
            return outcome;
        };
        let audio = asks.iter().filter(|ask| ask.kind == MediaKind::Audio);
        let audio = audio.filter_map(|ask| ask.options.last()).map(|(_, bps)| u64::from(*bps));
        outcome.taken = audio.sum();
        let mut rows: Vec<Row> = Vec::with_capacity(asks.len());
        for ask in asks {
            if ask.kind == MediaKind::Audio {
                self.shares.push(Share { key: ask.key, target: Some(Target::BEST) });
                continue;
            }
            let place = self.place(now, ask.key);
            let ladder = ladder(&ask.options);
            let before = self.held(place, &ladder);
            rows.push(Row { place, ladder, before, step: None });
        }
        let mut taken = outcome.taken;
        let held = rows.iter().map(Row::held).sum::<u64>() + taken;
        self.short = (held > estimate).then(|| self.short.unwrap_or(now));
        let patient = self.short.is_some_and(|since| now.since(since) < GRACE);
        let enough = if patient { estimate.saturating_mul(100) / TOLERANCE } else { estimate };
        // What is sent already, as far as it still fits.
        let rungs = rows.iter().map(|row| row.ladder.len()).max().unwrap_or_default();
        for rung in 0..rungs {
            for row in &mut rows {
                let Some(cost) = row.cost(rung).filter(|_| row.before >= Some(rung)) else {
                    continue;
                };
                let fits = match rung {
                    0 => !proven || taken + cost * LAST / 100 <= estimate,
                    _ => taken + cost <= enough,
                };
                if fits {
                    row.step = Some(rung);
                    taken += cost;
                }
            }
        }
        // Then what fits with room to spare.
        let mut next: Option<u64> = None;
        for rung in 0..rungs {
            for row in &mut rows {
                let Some(cost) = row.cost(rung) else { continue };
                let held = self.tracks.get(row.place).is_some_and(|track| now < track.held_until);
                let fits = match rung {
                    0 => !proven || taken + cost * LAST_AGAIN / 100 <= estimate,
                    _ => (taken + cost) * MARGIN / 100 <= estimate,
                };
                if fits && !held && row.step >= row.before {
                    row.step = Some(rung);
                    taken += cost;
                } else if cost > 0 {
                    next = Some(next.map_or(cost, |least| least.min(cost)));
                }
            }
        }
        for row in &rows {
            let Some(track) = self.tracks.get_mut(row.place) else { continue };
            track.decide(now, row, &mut outcome);
            self.shares.push(Share { key: track.key, target: track.target });
        }
        self.tracks.retain(|track| track.seen);
        outcome.taken = taken;
        outcome.wanted = next.map_or(0, |cost| (taken + cost) * MARGIN / 100);
        outcome
    }

    /// What the last call decided.
    #[must_use]
    pub fn shares(&self) -> &[Share] {
        &self.shares
    }

    fn place(&mut self, now: Mono, key: (u64, u8)) -> usize {
        let found = self.tracks.iter().position(|track| track.key == key);
        let place = found.unwrap_or_else(|| {
            self.tracks.push(Track {
                key,
                target: Some(Target { spatial: 0, temporal: u8::MAX }),
                known: false,
                seen: true,
                up_at: None,
                hold: HOLD,
                held_until: now,
            });
            self.tracks.len() - 1
        });
        if let Some(track) = self.tracks.get_mut(place) {
            track.seen = true;
        }
        place
    }

    /// The rung that is sent now: the ladder may have changed since the last call.
    fn held(&self, place: usize, ladder: &[(Target, u64)]) -> Option<usize> {
        let track = self.tracks.get(place).filter(|track| track.known)?;
        let target = track.target?;
        ladder.iter().rposition(|(rung, _)| *rung <= target)
    }
}

impl Track {
    fn decide(&mut self, now: Mono, row: &Row, outcome: &mut Outcome) {
        if row.ladder.is_empty() {
            // Nothing is known of it: what was decided stays.
            return;
        }
        if self.known && row.step < row.before {
            outcome.downs += 1;
            if self.up_at.is_some_and(|at| now.since(at) < FAILED) {
                self.hold = (self.hold * 2).min(LONGEST_HOLD);
            }
            self.up_at = None;
            self.held_until = now.plus(self.hold);
        } else if row.step > row.before {
            if self.known {
                outcome.ups += 1;
                self.up_at = Some(now);
            }
        } else if self.up_at.is_some_and(|at| now.since(at) >= FAILED) {
            self.hold = HOLD;
            self.up_at = None;
        }
        self.known = true;
        self.target = row.step.and_then(|step| row.ladder.get(step)).map(|(target, _)| *target);
    }
}

/// A track while it is decided.
#[derive(Debug)]
struct Row {
    place: usize,
    ladder: Vec<(Target, u64)>,
    /// Rungs of the ladder: what was sent, what will be. `None`: nothing.
    before: Option<usize>,
    step: Option<usize>,
}

impl Row {
    /// What is sent now.
    fn held(&self) -> u64 {
        self.before.and_then(|before| self.ladder.get(before)).map_or(0, |(_, bps)| *bps)
    }

    /// What a rung takes more than the one below, if that is where the track stands.
    fn cost(&self, rung: usize) -> Option<u64> {
        let below = rung.checked_sub(1);
        let (_, bps) = self.ladder.get(rung).filter(|_| self.step == below)?;
        let below = below.and_then(|below| self.ladder.get(below)).map_or(0, |(_, bps)| *bps);
        Some(bps.saturating_sub(below))
    }
}

/// The choices worth making: all of the lowest spatial layer, of others only the whole.
fn ladder(options: &[(Target, u32)]) -> Vec<(Target, u64)> {
    let lowest = options.first().map(|(target, _)| target.spatial);
    let mut rungs = Vec::with_capacity(options.len());
    for (n, (target, bps)) in options.iter().enumerate() {
        let whole = options.get(n + 1).is_none_or(|(next, _)| next.spatial != target.spatial);
        if Some(target.spatial) == lowest || whole {
            let temporal = if whole { u8::MAX } else { target.temporal };
            rungs.push((Target { temporal, ..*target }, u64::from(*bps)));
        }
    }
    rungs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(1_000_000_000 + millis * 1_000_000)
    }

    fn video(key: u8, rates: &[u32]) -> Ask {
        let options =
            (0..).zip(rates).map(|(spatial, bps)| (Target { spatial, temporal: 0 }, *bps));
        Ask { key: (1, key), kind: MediaKind::Video, options: options.collect() }
    }

    fn audio() -> Ask {
        let options = vec![(Target { spatial: 0, temporal: 0 }, 40_000)];
        Ask { key: (1, 99), kind: MediaKind::Audio, options }
    }

    const THREE: &[u32] = &[150_000, 500_000, 1_700_000];

    #[derive(Default)]
    struct Table {
        allocator: Allocator,
        ups: u64,
        downs: u64,
    }

    impl Table {
        /// Spatial layers of videos, `None`: paused; audio is always whole.
        fn share(&mut self, millis: u64, estimate: u64, asks: &[Ask]) -> Vec<Option<u8>> {
            let outcome = self.allocator.allocate(at(millis), Some(estimate), true, asks);
            assert!(outcome.taken * LAST / 100 <= estimate || outcome.taken <= 40_000);
            self.ups += outcome.ups;
            self.downs += outcome.downs;
            let of = |ask: &Ask| {
                let share = self.allocator.shares().iter().find(|share| share.key == ask.key);
                share.expect("a share for each").target
            };
            for ask in asks.iter().filter(|ask| ask.kind == MediaKind::Audio) {
                assert_eq!(of(ask), Some(Target::BEST));
            }
            let videos = asks.iter().filter(|ask| ask.kind == MediaKind::Video);
            videos.map(|ask| of(ask).map(|target| target.spatial)).collect()
        }
    }

    #[test]
    fn audio_comes_first_then_lowest_layers_then_upper_ones_in_turn() {
        let asks = [video(0, THREE), audio(), video(1, THREE), video(2, THREE)];
        for (estimate, expected) in [
            (39_000, [None; 3]),
            (190_000, [Some(0), None, None]),
            (490_000, [Some(0); 3]),
            (1_000_000, [Some(1), Some(0), Some(0)]),
            (1_774_000, [Some(1); 3]),
            (3_300_000, [Some(2), Some(1), Some(1)]),
            (10_000_000, [Some(2); 3]),
        ] {
            assert_eq!(Table::default().share(0, estimate, &asks), expected, "{estimate}");
        }
    }

    #[test]
    fn down_goes_at_once_and_up_with_room_and_after_a_while() {
        let (mut table, asks) = (Table::default(), [video(0, THREE)]);
        assert_eq!(table.share(0, 2_000_000, &asks), [Some(2)]);
        // It is kept without the room that taking it up needs.
        assert_eq!(table.share(200, 1_750_000, &asks), [Some(2)]);
        // Nor given up at once where little is missing, but soon.
        assert_eq!(table.share(400, 1_400_000, &asks), [Some(2)]);
        assert_eq!(table.share(3_300, 1_690_000, &asks), [Some(2)]);
        assert_eq!(table.share(3_500, 1_690_000, &asks), [Some(1)]);
        let (mut table, asks) = (Table::default(), [video(0, THREE)]);
        assert_eq!(table.share(0, 2_000_000, &asks), [Some(2)]);
        assert_eq!(table.share(400, 1_300_000, &asks), [Some(1)]);
        assert_eq!(table.share(600, 2_000_000, &asks), [Some(1)]);
        assert_eq!(table.share(2_600, 1_800_000, &asks), [Some(1)]);
        assert_eq!(table.share(2_800, 2_000_000, &asks), [Some(2)]);
        assert_eq!((table.ups, table.downs), (1, 1));
    }

    #[test]
    fn steps_up_that_fail_are_tried_less_and_less_often() {
        let (mut table, asks) = (Table::default(), [video(0, THREE)]);
        table.share(0, 600_000, &asks);
        let mut layer = 1;
        // A path whose estimate falls as soon as the top layer is sent.
        for step in 1..600_u64 {
            let estimate = if layer == 2 { 1_200_000 } else { 2_500_000 };
            layer = table.share(step * 200, estimate, &asks)[0].expect("sent");
        }
        // In 120 s: after 2, 4, 8, 16, 16, … s.
        assert!((5..=11).contains(&table.ups), "{}", table.ups);
        // One that holds makes the next wait short again.
        for step in 600..700_u64 {
            table.share(step * 200, 2_500_000, &asks);
        }
        assert_eq!(table.share(140_200, 1_000_000, &asks), [Some(1)]);
        assert_eq!(table.share(142_400, 2_500_000, &asks), [Some(2)]);
    }

    #[test]
    fn the_only_layer_is_kept_a_little_below_its_rate_and_then_paused() {
        let (mut table, asks) = (Table::default(), [video(0, &[1_000_000])]);
        assert_eq!(table.share(0, 1_000_000, &asks), [Some(0)]);
        assert_eq!(table.share(200, 850_000, &asks), [Some(0)]);
        assert_eq!(table.share(9_000, 550_000, &asks), [Some(0)]);
        assert_eq!(table.share(9_200, 450_000, &asks), [None]);
        assert_eq!(table.share(19_000, 750_000, &asks), [None]);
        assert_eq!(table.share(19_200, 800_000, &asks), [Some(0)]);
        // Before the path has shown a limit it is not believed to have one.
        let mut fresh = Allocator::default();
        fresh.allocate(at(0), Some(300_000), false, &asks);
        assert!(fresh.shares().iter().all(|share| share.target.is_some()));
    }

    #[test]
    fn what_is_wanted_is_the_next_step_with_its_margin() {
        let (mut table, asks) = (Allocator::default(), [video(0, THREE), audio()]);
        let outcome = table.allocate(at(0), Some(700_000), true, &asks);
        assert_eq!((outcome.taken, outcome.wanted), (540_000, 1_740_000 * MARGIN / 100));
        let outcome = table.allocate(at(200), Some(9_000_000), true, &asks);
        assert_eq!((outcome.taken, outcome.wanted), (1_740_000, 0));
        // Without an estimate everything is sent.
        assert_eq!(table.allocate(at(400), None, true, &asks), Outcome::default());
        assert!(table.shares().iter().all(|share| share.target == Some(Target::BEST)));
    }

    #[test]
    fn frame_rate_is_given_up_at_the_lowest_layer_only() {
        let rungs = |spatial, temporal, bps| (Target { spatial, temporal }, bps);
        let options = vec![
            rungs(0, 0, 80_000),
            rungs(0, 1, 150_000),
            rungs(1, 0, 300_000),
            rungs(1, 1, 500_000),
        ];
        let asks = [Ask { key: (1, 0), kind: MediaKind::Video, options }];
        for (estimate, expected) in [
            (100_000, Target { spatial: 0, temporal: 0 }),
            (400_000, Target { spatial: 0, temporal: u8::MAX }),
            (600_000, Target { spatial: 1, temporal: u8::MAX }),
        ] {
            let mut allocator = Allocator::default();
            allocator.allocate(at(0), Some(estimate), true, &asks);
            assert_eq!(allocator.shares()[0].target, Some(expected), "{estimate}");
        }
    }
}
