//! Which SSRC belongs to which track: announced ones, and a bounded number learned from packets.

use std::time::Duration;

use crate::time::Mono;
use crate::wire::media::TrackSpec;
use crate::wire::rtp::Rtp;

/// Most SSRCs of one track, RTX included: its own and its RTX, twice, for a publisher that changes
/// them, and two to spare.
const MAX_PER_TRACK: usize = 6;
/// A learned SSRC that was silent for this long makes room for another.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Route {
    ssrc: u32,
    track: u8,
    announced: bool,
    last: Mono,
}

/// A packet's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// Track number.
    pub(crate) track: u8,
    /// It is a retransmission (RFC 4588).
    pub(crate) rtx: bool,
    /// Its SSRC was not known before.
    pub(crate) fresh: bool,
}

/// SSRCs of all tracks of one publisher.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<Route>,
}

impl Routes {
    pub(crate) fn new(tracks: &[TrackSpec], now: Mono) -> Self {
        let mut routes: Vec<Route> = Vec::with_capacity(tracks.len() * MAX_PER_TRACK);
        for (track, spec) in (0u8..).zip(tracks) {
            for ssrc in [spec.ssrc, spec.rtx_ssrc].into_iter().flatten() {
                if !routes.iter().any(|route| route.ssrc == ssrc) {
                    routes.push(Route { ssrc, track, announced: true, last: now });
                }
            }
        }
        Self { routes }
    }

    /// Finds a packet's track: by SSRC, else by mid (RFC 8843 section 9.2), else by a payload type
    /// that only one track has. Its SSRC is remembered. `None`: no track of ours, or too many
    /// SSRCs.
    pub(crate) fn find(&mut self, now: Mono, tracks: &[TrackSpec], rtp: &Rtp<'_>) -> Option<Found> {
        let ssrc = rtp.ssrc();
        if let Some(route) = self.routes.iter_mut().find(|route| route.ssrc == ssrc) {
            let rtx = accepts(tracks.get(usize::from(route.track))?, rtp.payload_type())?;
            route.last = now;
            return Some(Found { track: route.track, rtx, fresh: false });
        }
        let (track, rtx) = by_mid_or_type(tracks, rtp)?;
        self.learn(Route { ssrc, track, announced: false, last: now })?;
        Some(Found { track, rtx, fresh: true })
    }

    /// The track of a known SSRC.
    pub(crate) fn track_of(&self, ssrc: u32) -> Option<u8> {
        self.routes.iter().find(|route| route.ssrc == ssrc).map(|route| route.track)
    }

    fn learn(&mut self, new: Route) -> Option<()> {
        if self.routes.iter().filter(|route| route.track == new.track).count() < MAX_PER_TRACK {
            self.routes.push(new);
            return Some(());
        }
        let oldest = self
            .routes
            .iter_mut()
            .filter(|route| route.track == new.track && !route.announced)
            .min_by_key(|route| route.last)?;
        if new.last.since(oldest.last) < IDLE {
            return None;
        }
        *oldest = new;
        Some(())
    }
}

/// Whether the track takes this payload type: as its codec (`false`) or as its RTX (`true`).
fn accepts(spec: &TrackSpec, payload_type: u8) -> Option<bool> {
    if payload_type == spec.pt {
        return Some(false);
    }
    (spec.rtx_pt == Some(payload_type)).then_some(true)
}

fn by_mid_or_type(tracks: &[TrackSpec], rtp: &Rtp<'_>) -> Option<(u8, bool)> {
    let payload_type = rtp.payload_type();
    let mut has_mid = false;
    let mut only = None;
    let mut several = false;
    for (track, spec) in (0u8..).zip(tracks) {
        let mid = spec.extensions.mid.and_then(|id| rtp.extension(id));
        has_mid |= mid.is_some();
        let Some(rtx) = accepts(spec, payload_type) else { continue };
        if mid == Some(spec.mid.as_bytes()) {
            return Some((track, rtx));
        }
        several |= only.is_some();
        only = Some((track, rtx));
    }
    // A mid that names no track of ours is not overruled by a guess.
    if has_mid || several { None } else { only }
}
