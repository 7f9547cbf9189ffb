//! Which packets of a track a player gets, and with which numbers.

use std::time::Duration;

use crate::metrics::Id;
use crate::time::Mono;
use crate::wire::media::{CodecName, MediaKind, TrackSpec};

use super::choice::{Target, Wish};
use super::clock::Clock;
use super::descriptor::{self, Numbers, Shifts};
use super::runs::{Edit, Runs};
use super::{MAX_LAYERS, PacketHead};

/// A step further than this would make a receiver's rollover counter ambiguous.
const MAX_STEP: u64 = 1 << 14;
/// Video without any keyframe for this long starts all the same: some picture, or at least the
/// receiver's own requests.
const START_WITHOUT_KEYFRAME: Duration = Duration::from_secs(2);
/// A layer is gone when it was silent for this long while others sent so many pictures.
const SILENT: Duration = Duration::from_millis(500);
const SILENT_PICTURES: u8 = 5;

/// What becomes of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Taken {
    /// Outgoing number.
    pub(crate) number: u64,
    pub(crate) edit: Edit,
}

/// When a layer was last heard.
#[derive(Clone, Copy, Debug, Default)]
struct Heard {
    at: Option<Mono>,
    /// Pictures of other layers since.
    others: u8,
}

impl Heard {
    fn lives(&self, now: Mono) -> bool {
        let gone = |at| self.others >= SILENT_PICTURES && now.since(at) >= SILENT;
        self.at.is_some_and(|at| !gone(at))
    }
}

/// Chooses the layer of one track for one player, and numbers its packets.
#[derive(Debug)]
pub(crate) struct Selector {
    codec: CodecName,
    kind: MediaKind,
    clock_rate: u32,
    /// Simulcast layers.
    layers: u8,
    /// The player can make nothing of more than the lowest spatial layer.
    flat: bool,
    wish: Wish,
    target: Option<Target>,
    /// Of both; `None`: nothing is sent.
    limit: Option<Target>,
    heard: [Heard; MAX_LAYERS],
    /// The highest spatial layer that came since the last keyframe.
    top: u8,
    /// The layer to be sent, from its next keyframe.
    goal: u8,
    /// Packets of the current run's layer are sent.
    sending: bool,
    wants_keyframe: bool,
    /// There is something to ask for that was not asked for yet.
    asks: bool,
    /// Since when packets are held back for want of a keyframe.
    since: Option<Mono>,
    runs: Runs,
    edit: Edit,
    /// The temporal layer that may be sent from the next picture on.
    rise: u8,
    /// Random part of the outgoing timestamps.
    base: u32,
    /// Of the newest packet sent: the source's timestamp, what aligns it, our timestamp and time,
    /// our picture.
    picture: Option<u32>,
    align: u32,
    timestamp: u32,
    sent: Mono,
    numbers: Numbers,
}

impl Selector {
    /// Outgoing numbers start with `first`; timestamps are shifted by `base`. `described`: the
    /// player takes dependency descriptors.
    pub(crate) fn new(
        source: &TrackSpec,
        described: bool,
        first: u64,
        base: u32,
        now: Mono,
    ) -> Self {
        Self {
            codec: source.codec.name,
            kind: source.kind,
            clock_rate: source.codec.name.clock_rate(),
            layers: source.rids.len().clamp(1, MAX_LAYERS) as u8,
            flat: source.extensions.dependency_descriptor.is_some() && !described,
            wish: Wish::default(),
            target: Some(Target::BEST),
            limit: Some(Target::BEST),
            heard: [Heard::default(); MAX_LAYERS],
            top: 0,
            goal: source.rids.len().clamp(1, MAX_LAYERS) as u8 - 1,
            sending: false,
            wants_keyframe: false,
            asks: false,
            since: None,
            runs: Runs::new(first),
            edit: Edit::default(),
            rise: 0,
            base,
            picture: None,
            align: 0,
            timestamp: 0,
            sent: now,
            numbers: Numbers::default(),
        }
    }

    pub(crate) const fn wish(&self) -> &Wish {
        &self.wish
    }

    pub(crate) fn set_wish(&mut self, wish: Wish) {
        self.wish = wish;
        self.set_limit();
    }

    pub(crate) fn set_target(&mut self, target: Option<Target>) {
        self.target = target;
        self.set_limit();
    }

    /// The spatial layer that a keyframe would bring, at most. Of simulcast each layer has one.
    fn spatial(&self, limit: Target) -> u8 {
        match (self.flat, self.layers > 1) {
            (true, _) => 0,
            (false, true) => u8::MAX,
            (false, false) => limit.spatial,
        }
    }

    fn set_limit(&mut self) {
        let limit = self.wish.limit(self.target);
        if limit == self.limit {
            return;
        }
        self.limit = limit;
        if limit.is_none() {
            self.sending = false;
            self.since = None;
        }
        self.set_goal(self.sent);
        self.asks |= self.wanted().is_some();
    }

    /// The layer whose packets are sent.
    pub(crate) fn current(&self) -> Option<u8> {
        self.runs.current().filter(|_| self.sending).map(|run| run.layer)
    }

    /// The layer that a keyframe is wanted of.
    pub(crate) fn wanted(&self) -> Option<u8> {
        let limit = self.limit.filter(|_| self.kind == MediaKind::Video)?;
        let higher = self.spatial(limit).min(self.top) > self.edit.spatial;
        let wants = self.wants_keyframe || self.current() != Some(self.goal) || higher;
        wants.then_some(self.goal)
    }

    /// True once for each new wish for a keyframe.
    pub(crate) fn take_asks(&mut self) -> bool {
        std::mem::take(&mut self.asks)
    }

    /// The best layer that lives and is allowed; else the smallest that lives.
    fn set_goal(&mut self, now: Mono) {
        let Some(limit) = self.limit else { return };
        let top = limit.spatial.min(self.layers - 1);
        let lives =
            |layer: &u8| self.heard.get(usize::from(*layer)).is_some_and(|heard| heard.lives(now));
        let below = (0..=top).rev().find(lives);
        let goal = below.or_else(|| (top..self.layers).find(lives)).unwrap_or(top);
        if goal != self.goal || !self.sending {
            self.asks |= self.kind == MediaKind::Video;
            self.goal = goal;
        }
    }

    /// Notes which layers live.
    fn hear(&mut self, now: Mono, head: &PacketHead) {
        if head.spatial > self.top && head.spatial < MAX_LAYERS as u8 {
            self.top = head.spatial;
            self.asks |= self.wanted().is_some();
        }
        if self.layers == 1 {
            return;
        }
        let Some(heard) = self.heard.get_mut(usize::from(head.layer)) else { return };
        let back = !heard.lives(now);
        *heard = Heard { at: Some(now), others: 0 };
        if head.marker {
            for (layer, heard) in (0u8..).zip(&mut self.heard) {
                heard.others = heard.others.saturating_add(u8::from(layer != head.layer));
            }
        }
        if back || head.marker {
            self.set_goal(now);
        }
    }

    /// What becomes of a packet as it comes; else the counter of why it is left out.
    pub(crate) fn take(
        &mut self,
        now: Mono,
        head: &PacketHead,
        payload: &[u8],
    ) -> Result<Taken, Id> {
        self.hear(now, head);
        if !self.runs.is_new(head.layer, head.sequence) {
            return self.again(head).ok_or(Id::ForwardDropLate);
        }
        let Some(limit) = self.limit else { return Err(Id::ForwardDropPaused) };
        let number = if self.current() == Some(head.layer) {
            self.go_on(now, head, payload, limit)?
        } else {
            self.start(now, head, payload, limit)?
        };
        if head.keyframe {
            self.wants_keyframe = false;
            self.top = head.spatial;
        }
        self.note_time(now, head);
        if self.picture != Some(head.timestamp) {
            self.picture = Some(head.timestamp);
            self.note_numbers(payload);
        }
        Ok(Taken { number, edit: self.edit })
    }

    /// What became of a packet, or would have. `None`: it has no number.
    pub(crate) fn again(&self, head: &PacketHead) -> Option<Taken> {
        let (number, edit) = self.runs.find(head.layer, head.sequence)?;
        Some(Taken { number, edit })
    }

    /// The layer and sequence that an outgoing number stands for.
    pub(crate) fn source(&self, number: u16) -> Option<(u8, u64)> {
        self.runs.source(number)
    }

    /// The next packet of the layer that is sent.
    fn go_on(
        &mut self,
        now: Mono,
        head: &PacketHead,
        payload: &[u8],
        limit: Target,
    ) -> Result<u64, Id> {
        let last = self.runs.current().map_or(0, |run| run.last);
        let before = self.edit;
        let begins = self.picture != Some(head.timestamp);
        if head.sequence != last + 1 {
            // What is missing may be of the layer to rise to.
            self.rise = 0;
        }
        if begins {
            let spatial = self.spatial(limit);
            let edit = &mut self.edit;
            let next = edit.temporal.saturating_add(1);
            if head.keyframe || spatial < edit.spatial {
                edit.spatial = spatial;
            }
            if head.keyframe || limit.temporal < edit.temporal {
                edit.temporal = limit.temporal;
            } else if head.sync && head.temporal == next && next <= limit.temporal {
                edit.temporal = next;
            } else {
                edit.temporal = edit.temporal.max(self.rise.min(limit.temporal));
            }
            self.rise = if self.edit.passes(head) { head.up_to } else { 0 };
        } else if self.edit.passes(head) {
            // What one of its spatial layers forbids is forbidden.
            self.rise = self.rise.min(head.up_to);
        }
        if head.sequence - last > MAX_STEP {
            // Numbers go on behind the last.
            self.wants_keyframe = self.kind == MediaKind::Video;
            return Ok(self.runs.open(head.layer, head.sequence, self.edit, 1));
        }
        // What is missing may be of this picture or of one before, of which a part was left out: it
        // keeps numbers, and is sent where both then and now it would have been.
        let gap = Edit {
            spatial: before.spatial.min(self.edit.spatial),
            temporal: before.temporal.min(self.edit.temporal),
            ..before
        };
        if self.edit.passes(head) {
            if head.sequence > last + 1 {
                self.runs.send(head.sequence - 1, gap);
            }
            return Ok(self.runs.send(head.sequence, self.edit));
        }
        if begins {
            self.picture = Some(head.timestamp);
            // The numbers of VP8's pictures stay without gaps; VP9's tell of the layers left out.
            if self.codec == CodecName::Vp8 {
                self.edit.shifts.picture = self.edit.shifts.picture.wrapping_sub(1);
            }
            // What is missing before it has at most the number before its own.
            self.note_numbers(payload);
        }
        self.note_time(now, head);
        self.runs.skip(head.sequence, gap);
        Err(Id::ForwardDropLayer)
    }

    fn note_time(&mut self, now: Mono, head: &PacketHead) {
        self.align = head.align;
        self.timestamp = head.timestamp.wrapping_add(self.edit.timestamp);
        self.sent = now;
    }

    fn note_numbers(&mut self, payload: &[u8]) {
        let numbers = descriptor::numbers(self.codec, payload, self.edit.shifts);
        self.numbers = numbers.unwrap_or(self.numbers);
    }

    /// A packet of a layer that is not sent: with it begins what is to be sent, or it is left out.
    fn start(
        &mut self,
        now: Mono,
        head: &PacketHead,
        payload: &[u8],
        limit: Target,
    ) -> Result<u64, Id> {
        let video = self.kind == MediaKind::Video;
        // Whoever sees nothing takes a smaller picture first.
        let fits = head.layer == self.goal || (!self.sending && head.layer < self.goal);
        if !fits {
            return Err(Id::ForwardDropLayer);
        }
        if video && !head.keyframe {
            if self.sending {
                return Err(Id::ForwardDropLayer);
            }
            let since = *self.since.get_or_insert(now);
            if now.since(since) < START_WITHOUT_KEYFRAME {
                return Err(Id::ForwardDropAwaitKeyframe);
            }
            self.wants_keyframe = true;
        }
        let edit = match self.runs.current().map(|run| run.layer) {
            None => Edit { timestamp: head.align.wrapping_add(self.base), ..Edit::default() },
            Some(before) => self.continued(now, head, payload, before == head.layer),
        };
        self.edit = Edit { spatial: self.spatial(limit), temporal: limit.temporal, ..edit };
        self.rise = head.up_to;
        self.sending = true;
        self.since = None;
        self.picture = None;
        self.asks |= self.wanted().is_some();
        Ok(self.runs.open(head.layer, head.sequence, self.edit, 0))
    }

    /// How a run begins behind another: the clock and the numbers of pictures go on.
    fn continued(&self, now: Mono, head: &PacketHead, payload: &[u8], same: bool) -> Edit {
        let mut edit = Edit::default();
        let rate = self.clock_rate;
        let aligned = if same {
            head.timestamp.wrapping_add(self.edit.timestamp)
        } else {
            head.timestamp.wrapping_add(head.align).wrapping_add(self.base)
        };
        let elapsed = now.since(self.sent).as_micros() as u64;
        let ticks = elapsed.saturating_mul(u64::from(rate)) / 1_000_000;
        let expected = self.timestamp.wrapping_add(ticks as u32);
        // Reports that lie, or none yet: time as we saw it pass.
        let lies = (aligned.wrapping_sub(expected) as i32).unsigned_abs() > rate;
        let wanted = if lies { expected } else { aligned };
        // A picture of the instant of the last one gets its own all the same.
        let step = (wanted.wrapping_sub(self.timestamp) as i32).max((rate / 1_000) as i32);
        let timestamp = self.timestamp.wrapping_add(step as u32);
        edit.timestamp = timestamp.wrapping_sub(head.timestamp);
        if let Some(own) = descriptor::numbers(self.codec, payload, Shifts::default()) {
            let picture = self.numbers.picture.zip(own.picture);
            let tl0 = self.numbers.tl0.zip(own.tl0);
            let key = self.numbers.key.zip(own.key);
            edit.shifts = Shifts {
                picture: picture.map_or(0, |(last, own)| last.wrapping_add(1).wrapping_sub(own)),
                tl0: tl0.map_or(0, |(last, own)| last.wrapping_add(1).wrapping_sub(own)),
                key: key.map_or(0, |(last, own)| last.wrapping_add(1).wrapping_sub(own)),
            };
        }
        edit
    }

    /// Our media clock at the instant of `clock`, the track's.
    pub(crate) fn clock(&self, clock: &Clock) -> Clock {
        let shift = self.edit.timestamp.wrapping_sub(self.align);
        Clock { rtp: clock.rtp.wrapping_add(shift), unix: clock.unix }
    }
}
