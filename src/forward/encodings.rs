//! The layers of one track: one, or one for each rid, on one clock.

use crate::time::{Mono, Now};
use crate::wire::media::TrackSpec;

use super::MAX_LAYERS;
use super::clock::{Clock, Offset};
use super::track::Track;

/// All layers of a track. Its clock is that of the first layer heard; the others are aligned to it
/// by sender reports, and by arrival until both have one.
#[derive(Debug)]
pub(crate) struct Encodings {
    pub(crate) layers: Vec<Track>,
    anchor: Option<usize>,
    clock_rate: u32,
}

impl Encodings {
    pub(crate) fn new(spec: &TrackSpec) -> Self {
        let count = spec.rids.len().clamp(1, MAX_LAYERS);
        Self {
            layers: (0..count).map(|_| Track::new(spec)).collect(),
            anchor: None,
            clock_rate: spec.codec.name.clock_rate(),
        }
    }

    pub(crate) fn get_mut(&mut self, layer: u8) -> Option<&mut Track> {
        self.layers.get_mut(usize::from(layer))
    }

    /// The first packet of a layer came, with this timestamp of its timeline.
    pub(crate) fn on_first(&mut self, now: Now, layer: u8, timestamp: u32) {
        let layer = usize::from(layer);
        let Some(anchor) = self.anchor else {
            self.anchor = Some(layer);
            return;
        };
        let Some((newest, arrival)) = self.layers.get(anchor).and_then(Track::newest) else {
            return;
        };
        let elapsed = now.mono.since(arrival).as_micros() as u64;
        let ticks = elapsed.saturating_mul(u64::from(self.clock_rate)) / 1_000_000;
        if let Some(track) = self.layers.get_mut(layer) {
            track.align = newest.wrapping_add(ticks as u32).wrapping_sub(timestamp);
        }
    }

    /// A sender report of one of the layers.
    pub(crate) fn on_sender_report(
        &mut self,
        now: Mono,
        layer: u8,
        (ssrc, ntp, rtp): (u32, u64, u32),
    ) {
        if let Some(track) = self.get_mut(layer) {
            track.on_sender_report(now, ssrc, ntp, rtp);
        }
        let Some(anchor) = self.anchor else { return };
        let Some((ntp, rtp, _)) = self.layers.get(anchor).and_then(Track::reported) else { return };
        for (index, track) in self.layers.iter_mut().enumerate() {
            if let Some((its_ntp, its_rtp, _)) = track.reported().filter(|_| index != anchor) {
                let since = ticks(its_ntp.wrapping_sub(ntp) as i64, self.clock_rate);
                track.align = rtp.wrapping_add(since).wrapping_sub(its_rtp);
            }
        }
    }

    /// The track's clock on ours, by the newest report of any layer.
    pub(crate) fn clock(&self, offset: &Offset) -> Option<Clock> {
        let reported = |track: &Track| Some((track.reported()?, track.align));
        let all = self.layers.iter().filter_map(reported);
        let ((ntp, rtp, _), align) = all.max_by_key(|((_, _, arrival), _)| *arrival)?;
        Some(Clock { rtp: rtp.wrapping_add(align), unix: offset.to_unix(ntp)? })
    }
}

/// A difference of NTP times (32.32) in ticks of the media clock, wrapping.
const fn ticks(difference: i64, rate: u32) -> u32 {
    ((difference as i128 * rate as i128) >> 32) as u32
}
