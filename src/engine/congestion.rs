//! What the path of one playing session carries, and how the tracks of all its streams share it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::endpoint::Part;
use crate::forward::TrackRates;
use crate::forward::allocate::{Allocator, Ask};
use crate::ids::StreamId;
use crate::metrics::{Counters, Id};
use crate::session::bwe::Estimator;
use crate::time::Mono;
use crate::wire::rtcp::{Compound, Packet};

/// Tracks share anew so often while something is sent or held back.
const SHARE_EVERY: Duration = Duration::from_millis(200);
/// And at once when the estimate fell by this much, in percent.
const FALL: u64 = 95;

/// What others may know of a session while it lives; without a lock.
#[derive(Debug, Default)]
pub struct SessionShared {
    /// Bits per second; 0 is unknown.
    estimate: AtomicU64,
}

impl SessionShared {
    /// What the path to the client carries by our estimate, bits per second.
    #[must_use]
    pub fn estimate(&self) -> Option<u64> {
        Some(self.estimate.load(Ordering::Relaxed)).filter(|bits| *bits > 0)
    }
}

/// Congestion control of one playing session.
#[derive(Debug)]
pub struct Congestion {
    estimator: Estimator,
    allocator: Allocator,
    shared: Arc<SessionShared>,
    asks: Vec<Ask>,
    /// When tracks share anew.
    due: Option<Mono>,
    /// Something was sent since they did.
    sent: bool,
    /// The estimate that they shared.
    shared_out: u64,
    /// What the gauges hold of it.
    counted: Option<u64>,
    probes: u64,
}

impl Congestion {
    /// Of a session that has sent nothing.
    #[must_use]
    pub fn new(shared: Arc<SessionShared>) -> Self {
        Self {
            estimator: Estimator::new(),
            allocator: Allocator::default(),
            shared,
            asks: Vec::new(),
            // Before the first packet: it should not be of a layer that does not fit.
            due: Some(Mono::ZERO),
            sent: false,
            shared_out: 0,
            counted: None,
            probes: 0,
        }
    }

    /// The transport-wide number for the next packet.
    #[must_use]
    pub const fn next_number(&self) -> u16 {
        self.estimator.next_number()
    }

    /// A packet was written, `len` bytes of SRTP. `numbered`: it carries [`Self::next_number`].
    /// True when [`Self::poll_timeout`] may have become earlier.
    pub fn on_sent(&mut self, now: Mono, len: usize, numbered: bool, video: bool) -> bool {
        if numbered {
            self.estimator.on_sent(now, len, video);
        }
        self.sent = true;
        if self.due.is_some() || self.estimator.estimate().is_none() {
            return false;
        }
        self.due = Some(now.plus(SHARE_EVERY));
        true
    }

    /// Reads what an RTCP compound of the client says of the whole path.
    pub fn on_rtcp(&mut self, now: Mono, compound: &[u8], counters: &mut Counters) {
        for packet in Compound::new(compound).map_while(Result::ok) {
            match packet {
                Packet::TransportCc { feedback, .. } => {
                    counters.inc(Id::ForwardFeedbackReceived);
                    self.estimator.on_feedback(now, &feedback);
                }
                Packet::Remb { bitrate, .. } => self.estimator.on_remb(bitrate),
                _ => {}
            }
        }
        self.tell(counters);
        let fell = |estimate| self.shared_out == 0 || estimate < self.shared_out * FALL / 100;
        if self.estimator.estimate().is_some_and(fell) {
            self.due = Some(now);
        }
    }

    /// Does what is due: lets tracks share anew. `rates` by stream and track.
    pub fn handle_timeout(
        &mut self,
        now: Mono,
        parts: &mut [Part],
        rates: impl FnMut(StreamId, u8) -> Option<TrackRates>,
        counters: &mut Counters,
    ) {
        self.estimator.handle_timeout(now);
        if self.due.is_some_and(|due| due <= now) {
            let wanted = self.share(now, parts, rates, counters);
            let active = std::mem::take(&mut self.sent) || wanted > 0;
            self.due = active.then(|| now.plus(SHARE_EVERY));
        }
        self.tell(counters);
    }

    fn share(
        &mut self,
        now: Mono,
        parts: &mut [Part],
        mut rates: impl FnMut(StreamId, u8) -> Option<TrackRates>,
        counters: &mut Counters,
    ) -> u64 {
        if parts.iter().any(|part| part.player.is_numbered()) {
            self.estimator.expect_feedback();
        }
        let estimate = self.estimator.estimate();
        if estimate.is_none() && self.shared_out == 0 {
            return 0;
        }
        self.shared_out = estimate.unwrap_or_default();
        self.asks.clear();
        for part in &*parts {
            let stream = part.stream.spec.id;
            for (track, spec) in (0_u8..).zip(&part.stream.spec.tracks) {
                if part.player.takes(track) {
                    let rates = rates(stream, track).unwrap_or_default();
                    let options = part.player.options(track, &rates);
                    self.asks.push(Ask { key: (stream.0, track), kind: spec.kind, options });
                }
            }
        }
        // Without padding nobody would find out that a paused track fits again.
        let can_pad = parts.iter().any(|part| part.player.can_pad());
        let proven = can_pad && self.estimator.is_proven();
        let outcome = self.allocator.allocate(now, estimate, proven, &self.asks);
        if let Some(estimate) = estimate.filter(|_| self.estimator.is_heard()) {
            for part in &mut *parts {
                part.player.set_path(self.estimator.queue_rtt(), estimate);
            }
        }
        for share in self.allocator.shares() {
            let part = parts.iter_mut().find(|part| part.stream.spec.id.0 == share.key.0);
            if let Some(part) = part {
                part.player.set_target(share.key.1, share.target);
            }
        }
        counters.add(Id::ForwardLayerUp, outcome.ups);
        counters.add(Id::ForwardLayerDown, outcome.downs);
        self.estimator.set_wanted(outcome.wanted);
        self.estimator.set_can_probe(can_pad);
        outcome.wanted
    }

    /// Whether to send a packet of padding now; ask again after each.
    pub fn wants_padding(&mut self, now: Mono, counters: &mut Counters) -> bool {
        let wants = self.estimator.wants_padding(now);
        let probes = self.estimator.probes();
        counters.add(Id::ForwardProbes, probes - self.probes);
        self.probes = probes;
        wants
    }

    /// Padding was asked for and no track can carry it.
    pub const fn cannot_pad(&mut self) {
        self.estimator.set_can_probe(false);
    }

    /// When [`Self::handle_timeout`] and [`Self::wants_padding`] want to be called.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        [self.due, self.estimator.poll_timeout()].into_iter().flatten().min()
    }

    /// Puts the estimate where others read it.
    fn tell(&mut self, counters: &mut Counters) {
        let estimate = self.estimator.estimate();
        self.shared.estimate.store(estimate.unwrap_or_default(), Ordering::Relaxed);
        change(self.counted, estimate, counters);
        self.counted = estimate;
    }

    /// Puts the session on the gauges of its shard when it comes, and takes it off when it goes.
    pub fn on_move(&self, came: bool, counters: &mut Counters) {
        if came {
            change(None, self.counted, counters);
        } else {
            change(self.counted, None, counters);
        }
    }
}

/// Another estimate of one session on the gauges of its shard.
fn change(before: Option<u64>, after: Option<u64>, counters: &mut Counters) {
    let one = |some: Option<u64>| u64::from(some.is_some());
    for (id, before, after) in [
        (Id::ForwardEstimate, before.unwrap_or_default(), after.unwrap_or_default()),
        (Id::ForwardEstimates, one(before), one(after)),
    ] {
        let sum = counters.get(id).saturating_add(after).saturating_sub(before);
        counters.set(id, sum);
    }
}
