//! Which SSRC belongs to which layer of which track: announced ones, and a bounded number learned
//! from packets.

use std::time::Duration;

use crate::time::Mono;
use crate::wire::media::TrackSpec;
use crate::wire::rtp::Rtp;

use super::LayerId;

/// Most SSRCs of one layer, RTX included: its own and its RTX, twice, for a publisher that changes
/// them, and two to spare.
const MAX_PER_LAYER: usize = 6;
/// A learned SSRC that was silent for this long makes room for another.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Route {
    ssrc: u32,
    layer: LayerId,
    announced: bool,
    last: Mono,
}

/// A packet's place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Found {
    /// Track and layer.
    pub(crate) layer: LayerId,
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
        let mut routes: Vec<Route> = Vec::with_capacity(tracks.len() * MAX_PER_LAYER);
        for (track, spec) in (0u8..).zip(tracks) {
            for ssrc in [spec.ssrc, spec.rtx_ssrc].into_iter().flatten() {
                if !routes.iter().any(|route| route.ssrc == ssrc) {
                    let layer = LayerId { track, layer: 0 };
                    routes.push(Route { ssrc, layer, announced: true, last: now });
                }
            }
        }
        Self { routes }
    }

    /// Finds a packet's track: by SSRC, else by mid (RFC 9143 section 9.2), else by a payload type
    /// that only one track has; its layer by SSRC, else by rid (RFC 8852). Its SSRC is remembered.
    /// `None`: no track or layer of ours, a rid that is not the one of its SSRC, or too many SSRCs.
    pub(crate) fn find(&mut self, now: Mono, tracks: &[TrackSpec], rtp: &Rtp<'_>) -> Option<Found> {
        let ssrc = rtp.ssrc();
        if let Some(route) = self.routes.iter_mut().find(|route| route.ssrc == ssrc) {
            let spec = tracks.get(usize::from(route.layer.track))?;
            let rtx = accepts(spec, rtp.payload_type())?;
            if !spec.rids.is_empty()
                && rid(spec, rtp, rtx)
                    .is_some_and(|rid| by_rid(spec, rid) != Some(route.layer.layer))
            {
                return None;
            }
            route.last = now;
            return Some(Found { layer: route.layer, rtx, fresh: false });
        }
        let (track, rtx) = by_mid_or_type(tracks, rtp)?;
        let spec = tracks.get(usize::from(track))?;
        let layer = if spec.rids.is_empty() { 0 } else { by_rid(spec, rid(spec, rtp, rtx)?)? };
        let layer = LayerId { track, layer };
        self.learn(Route { ssrc, layer, announced: false, last: now })?;
        Some(Found { layer, rtx, fresh: true })
    }

    /// The layer of a known SSRC.
    pub(crate) fn layer_of(&self, ssrc: u32) -> Option<LayerId> {
        self.routes.iter().find(|route| route.ssrc == ssrc).map(|route| route.layer)
    }

    fn learn(&mut self, new: Route) -> Option<()> {
        if self.routes.iter().filter(|route| route.layer == new.layer).count() < MAX_PER_LAYER {
            self.routes.push(new);
            return Some(());
        }
        let oldest = self
            .routes
            .iter_mut()
            .filter(|route| route.layer == new.layer && !route.announced)
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
    if payload_type == spec.pt || spec.red_pt == Some(payload_type) {
        return Some(false);
    }
    (spec.rtx_pt == Some(payload_type)).then_some(true)
}

/// What a packet says of its layer.
fn rid<'a>(spec: &TrackSpec, rtp: &Rtp<'a>, rtx: bool) -> Option<&'a [u8]> {
    let id = if rtx { spec.extensions.repaired_rid } else { spec.extensions.rid };
    rtp.extension(id?)
}

fn by_rid(spec: &TrackSpec, rid: &[u8]) -> Option<u8> {
    let place = spec.rids.iter().position(|known| known.as_bytes() == rid)?;
    u8::try_from(place).ok()
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
