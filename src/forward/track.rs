//! One layer of a track as it comes from the publisher: its current source, its own sequence and
//! timeline.

use std::time::Duration;

use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now};
use crate::wire::media::{MediaKind, TrackSpec};
use crate::wire::rtcp::ReportBlock;

use super::dependencies::Dependencies;
use super::nack::Missing;
use super::receive_window::{ReceiveWindow, Verdict};

/// Least time between two keyframe requests for one track. Shorter and an encoder answers with
/// keyframe after keyframe, longer and a lost request is felt.
pub(crate) const KEYFRAME_INTERVAL: Duration = Duration::from_millis(500);
/// The same while the track is silent (muted, or a still screen).
const KEYFRAME_INTERVAL_SILENT: Duration = Duration::from_secs(2);
/// So many requests into silence, then none until a packet comes or someone asks anew.
const MAX_UNHEARD: u8 = 5;
/// A new source whose timestamps continue the old ones this closely keeps them.
const SAME_TIMELINE_SECS: u32 = 3;

#[derive(Clone, Copy, Debug)]
struct SenderReport {
    ssrc: u32,
    ntp: u64,
    rtp: u32,
    arrival: Mono,
}

#[derive(Debug)]
struct Source {
    window: ReceiveWindow,
    /// Track sequence less extended sequence, wrapping.
    shift: u64,
    /// Track timestamp less source timestamp, wrapping.
    timestamp_shift: u32,
}

/// A packet's place in the track.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Placed {
    pub(crate) sequence: u64,
    pub(crate) timestamp: u32,
    /// Of its source.
    pub(crate) extended: u64,
}

/// State of one layer; most tracks have one.
#[derive(Debug)]
pub(crate) struct Track {
    kind: MediaKind,
    clock_rate: u32,
    announced: Option<u32>,
    source: Option<Source>,
    /// SSRC and sequence that would confirm a restart (RFC 3550 A.1, "bad_seq").
    probation: Option<(u32, u16)>,
    /// Highest sequence, its timestamp and arrival.
    latest: Option<(u64, u32, Mono)>,
    report: Option<SenderReport>,
    /// What makes a timestamp of this layer one of the track's clock.
    pub(crate) align: u32,
    pub(crate) missing: Missing,
    pub(crate) dependencies: Dependencies,
    keyframe_wish: bool,
    keyframe_asked: Option<Mono>,
    /// Requests since the last packet.
    unheard: u8,
    pli: bool,
}

impl Track {
    pub(crate) fn new(spec: &TrackSpec) -> Self {
        Self {
            kind: spec.kind,
            clock_rate: spec.codec.name.clock_rate(),
            announced: spec.ssrc,
            source: None,
            probation: None,
            latest: None,
            report: None,
            align: 0,
            missing: Missing::new(spec.nack),
            dependencies: Dependencies::default(),
            keyframe_wish: false,
            keyframe_asked: None,
            unheard: 0,
            pli: spec.pli && spec.kind == MediaKind::Video,
        }
    }

    /// A packet that came straight. `fresh`: its SSRC was never seen before.
    pub(crate) fn on_media(
        &mut self,
        now: Now,
        (ssrc, sequence, timestamp): (u32, u16, u32),
        fresh: bool,
        counters: &mut Counters,
    ) -> Option<Placed> {
        let verdict = match &mut self.source {
            None => return Some(self.start(now, ssrc, sequence, timestamp, counters)),
            Some(source) if source.window.ssrc == ssrc => source.window.admit(sequence),
            // A new SSRC is a deliberate change; a known one may be a straggler of before it.
            Some(_) if fresh => {
                return Some(self.start(now, ssrc, sequence, timestamp, counters));
            }
            Some(_) => Verdict::Jump,
        };
        if verdict == Verdict::Jump {
            if self.probation == Some((ssrc, sequence)) {
                return Some(self.start(now, ssrc, sequence, timestamp, counters));
            }
            self.probation = Some((ssrc, sequence.wrapping_add(1)));
            counters.inc(Id::ForwardDropLate);
            return None;
        }
        let placed = self.place(now, &verdict, timestamp, counters)?;
        if let Some(source) = &mut self.source {
            source.window.on_arrival(now.mono, timestamp, self.clock_rate);
        }
        if self.missing.on_found(placed.extended) {
            counters.inc(Id::ForwardRecovered);
        }
        Some(placed)
    }

    /// A packet unwrapped from RTX, by its original sequence.
    pub(crate) fn on_recovered(
        &mut self,
        now: Now,
        sequence: u16,
        timestamp: u32,
        counters: &mut Counters,
    ) -> Option<Placed> {
        let Some(source) = &mut self.source else {
            counters.inc(Id::ForwardDropUnknownTrack);
            return None;
        };
        let verdict = source.window.admit_recovered(sequence);
        let placed = self.place(now, &verdict, timestamp, counters)?;
        self.missing.on_found(placed.extended);
        counters.inc(Id::ForwardRecovered);
        Some(placed)
    }

    fn place(
        &mut self,
        now: Now,
        verdict: &Verdict,
        timestamp: u32,
        counters: &mut Counters,
    ) -> Option<Placed> {
        let (extended, gap) = match verdict {
            Verdict::New { extended, gap } => (*extended, gap.clone()),
            Verdict::Duplicate => {
                counters.inc(Id::ForwardDropDuplicate);
                return None;
            }
            Verdict::Late | Verdict::Jump => {
                counters.inc(Id::ForwardDropLate);
                return None;
            }
        };
        self.unheard = 0;
        let source = self.source.as_ref()?;
        let placed = Placed {
            sequence: extended.wrapping_add(source.shift),
            timestamp: timestamp.wrapping_add(source.timestamp_shift),
            extended,
        };
        if extended == source.window.highest() {
            self.latest = Some((placed.sequence, placed.timestamp, now.mono));
            if !gap.is_empty() {
                let lost = self.missing.on_gap(now.mono, gap);
                self.on_lost(lost, counters);
            }
            self.missing.on_newest(now.mono, extended);
        }
        Some(placed)
    }

    /// Takes a packet as the first of a source: the track's sequence and timeline go on behind
    /// what was.
    fn start(
        &mut self,
        now: Now,
        ssrc: u32,
        sequence: u16,
        timestamp: u32,
        counters: &mut Counters,
    ) -> Placed {
        let mut window = ReceiveWindow::new(ssrc, sequence, self.latest.is_none());
        window.on_arrival(now.mono, timestamp, self.clock_rate);
        let extended = window.highest();
        let (mut shift, mut timestamp_shift) = (0, 0);
        if let Some((highest, last, arrival)) = self.latest {
            // A hole of one number tells a video decoder that what follows does not continue.
            let step = if self.kind == MediaKind::Video { 2 } else { 1 };
            shift = highest.wrapping_add(step).wrapping_sub(extended);
            let rate = u64::from(self.clock_rate);
            let elapsed = now.mono.since(arrival).as_micros() as u64;
            let ticks = (elapsed.saturating_mul(rate) / 1_000_000).max(rate / 100);
            let expected = last.wrapping_add(ticks as u32);
            let kept = self.source.as_ref().map_or(0, |source| source.timestamp_shift);
            let apart = timestamp.wrapping_add(kept).wrapping_sub(expected) as i32;
            let close = apart.unsigned_abs() < self.clock_rate * SAME_TIMELINE_SECS;
            timestamp_shift = if close { kept } else { expected.wrapping_sub(timestamp) };
            self.report = None;
            let lost = self.missing.clear();
            self.on_lost(lost, counters);
            self.wish_keyframe();
        }
        self.probation = None;
        self.unheard = 0;
        let placed = Placed {
            sequence: extended.wrapping_add(shift),
            timestamp: timestamp.wrapping_add(timestamp_shift),
            extended,
        };
        self.latest = Some((placed.sequence, placed.timestamp, now.mono));
        self.source = Some(Source { window, shift, timestamp_shift });
        placed
    }

    /// A keyframe starts with the packet `extended`.
    pub(crate) fn on_keyframe(&mut self, extended: u64, counters: &mut Counters) {
        self.keyframe_wish = false;
        counters.add(Id::ForwardLost, self.missing.on_keyframe(extended));
    }

    /// Packets were given up.
    pub(crate) fn on_lost(&mut self, lost: u64, counters: &mut Counters) {
        if lost > 0 {
            counters.add(Id::ForwardLost, lost);
            self.wish_keyframe();
        }
    }

    /// A player, or a loss, wants a keyframe.
    pub(crate) const fn wish_keyframe(&mut self) {
        self.keyframe_wish = self.pli;
        self.unheard = 0;
    }

    /// When the next keyframe request is due.
    pub(crate) fn keyframe_due(&self) -> Option<Mono> {
        self.ssrc()?;
        if !self.keyframe_wish || self.unheard >= MAX_UNHEARD {
            return None;
        }
        let silent = self.unheard > 0;
        let interval = if silent { KEYFRAME_INTERVAL_SILENT } else { KEYFRAME_INTERVAL };
        Some(self.keyframe_asked.map_or(Mono::ZERO, |asked| asked.plus(interval)))
    }

    /// The SSRC to ask for a keyframe now, if one is due.
    pub(crate) fn take_keyframe_request(&mut self, now: Mono) -> Option<u32> {
        if self.keyframe_due()? > now {
            return None;
        }
        self.keyframe_asked = Some(now);
        self.unheard += 1;
        self.ssrc()
    }

    /// A sender report of one of the track's SSRCs.
    pub(crate) fn on_sender_report(&mut self, now: Mono, ssrc: u32, ntp: u64, rtp: u32) {
        let current = self.ssrc().is_none_or(|known| known == ssrc);
        if current && ntp != 0 {
            self.report = Some(SenderReport { ssrc, ntp, rtp, arrival: now });
        }
    }

    /// The publisher's time and the layer's media clock by its last sender report, and when that
    /// came.
    pub(crate) fn reported(&self) -> Option<(u64, u32, Mono)> {
        let source = self.source.as_ref()?;
        let report = self.report.filter(|report| report.ssrc == source.window.ssrc)?;
        Some((report.ntp, report.rtp.wrapping_add(source.timestamp_shift), report.arrival))
    }

    /// The newest timestamp and its arrival.
    pub(crate) fn newest(&self) -> Option<(u32, Mono)> {
        self.latest.map(|(_, timestamp, arrival)| (timestamp, arrival))
    }

    /// A report block on what came since the last one.
    pub(crate) fn report_block(&mut self, now: Mono) -> Option<ReportBlock> {
        let window = &mut self.source.as_mut()?.window;
        let mut block = window.report();
        if let Some(report) = self.report.filter(|report| report.ssrc == window.ssrc) {
            block.last_sr = (report.ntp >> 16) as u32;
            let since = now.since(report.arrival).as_nanos();
            block.delay = u32::try_from((since << 16) / 1_000_000_000).unwrap_or(u32::MAX);
        }
        Some(block)
    }

    /// The SSRC that feedback is about: of the current source, else the announced one.
    pub(crate) fn ssrc(&self) -> Option<u32> {
        self.source.as_ref().map(|source| source.window.ssrc).or(self.announced)
    }
}
