//! What the layers of a track take, measured where its packets are handed out.

use std::time::Duration;

use crate::time::Mono;
use crate::wire::media::TrackSpec;

use super::choice::TrackRates;
use super::{MAX_LAYERS, PacketHead};

const SLICE: Duration = Duration::from_millis(250);
/// The time measured over, in slices: with fewer, the rarest temporal layer of a slow picture
/// would come and go.
const SLICES: usize = 6;
/// What a packet has more than its payload on the wire, bytes: RTP header and extensions 24, the
/// tag of SRTP 16, TURN 4, UDP 8, IP 20. As the estimate counts them, or what fits would not.
const HEADER: u32 = 72;

/// Bytes of one slice of time by spatial (or simulcast) and temporal layer.
type Bytes = [[u32; MAX_LAYERS]; MAX_LAYERS];

/// Measures one track.
#[derive(Debug)]
pub struct RateMeter {
    simulcast: bool,
    slices: [Bytes; SLICES],
    current: usize,
    since: Option<Mono>,
    /// Slices that are over, up to all.
    full: usize,
}

impl RateMeter {
    /// Nothing measured yet.
    #[must_use]
    pub fn new(spec: &TrackSpec) -> Self {
        Self {
            simulcast: !spec.rids.is_empty(),
            slices: [Bytes::default(); SLICES],
            current: 0,
            since: None,
            full: 0,
        }
    }

    /// A packet came.
    pub fn add(&mut self, now: Mono, head: &PacketHead, payload: usize) {
        self.turn(now);
        let spatial = if self.simulcast { head.layer } else { head.spatial };
        let slice = self.slices.get_mut(self.current);
        let row = slice.and_then(|slice| slice.get_mut(usize::from(spatial)));
        if let Some(bytes) = row.and_then(|row| row.get_mut(usize::from(head.temporal))) {
            *bytes = bytes.saturating_add(payload as u32 + HEADER);
        }
    }

    /// The rates now.
    pub fn rates(&mut self, now: Mono) -> TrackRates {
        self.turn(now);
        let mut rates = TrackRates::default();
        let over = self.full.max(1) as u64;
        for spatial in 0..MAX_LAYERS {
            for temporal in 0..MAX_LAYERS {
                if self.sum(spatial..=spatial, temporal..=temporal) == 0 {
                    continue;
                }
                let lowest = if self.simulcast { spatial } else { 0 };
                let bytes = self.sum(lowest..=spatial, 0..=temporal);
                let bps = bytes * 8 * 1_000 / (over * SLICE.as_millis() as u64);
                if let Some(place) = rates.bps.get_mut(spatial).and_then(|r| r.get_mut(temporal)) {
                    *place = u32::try_from(bps).unwrap_or(u32::MAX).max(1);
                }
            }
        }
        rates
    }

    /// Bytes of these layers in the slices that are over, or in the first while none is.
    fn sum(
        &self,
        spatial: std::ops::RangeInclusive<usize>,
        temporal: std::ops::RangeInclusive<usize>,
    ) -> u64 {
        let counted = |(index, _): &(usize, &Bytes)| self.full == 0 || *index != self.current;
        let slices = self.slices.iter().enumerate().filter(counted);
        let rows = slices.flat_map(|(_, slice)| slice.get(spatial.clone()).unwrap_or_default());
        let cells = rows.flat_map(|row| row.get(temporal.clone()).unwrap_or_default());
        cells.map(|bytes| u64::from(*bytes)).sum()
    }

    /// Begins the slices that are due.
    fn turn(&mut self, now: Mono) {
        let since = *self.since.get_or_insert(now);
        let passed = (now.since(since).as_nanos() / SLICE.as_nanos()) as usize;
        if passed == 0 {
            return;
        }
        self.since = Some(since.plus(SLICE * u32::try_from(passed).unwrap_or(u32::MAX)));
        for _ in 0..passed.min(SLICES) {
            self.current = (self.current + 1) % SLICES;
            if let Some(slice) = self.slices.get_mut(self.current) {
                *slice = Bytes::default();
            }
        }
        self.full = (self.full + passed).min(SLICES - 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::media::{Codec, CodecName, Extensions, MediaKind};

    fn meter(rids: &[&str]) -> RateMeter {
        RateMeter::new(&TrackSpec {
            kind: MediaKind::Video,
            mid: "1".into(),
            codec: Codec { name: CodecName::Vp8, fmtp: Vec::new() },
            pt: 96,
            rtx_pt: None,
            red_pt: None,
            ssrc: None,
            rtx_ssrc: None,
            nack: true,
            pli: true,
            remb: true,
            extensions: Extensions::default(),
            rids: rids.iter().map(|rid| (*rid).to_owned()).collect(),
        })
    }

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(5_000_000_000 + millis * 1_000_000)
    }

    fn feed(meter: &mut RateMeter, millis: std::ops::Range<u64>, heads: &[(u8, u8, u8)]) {
        for time in millis.step_by(10) {
            for (layer, spatial, temporal) in heads {
                let head = PacketHead {
                    layer: *layer,
                    spatial: *spatial,
                    temporal: *temporal,
                    ..PacketHead::default()
                };
                // 100 of 125 bytes a second: 100 kbit/s.
                meter.add(at(time), &head, 125 - HEADER as usize);
            }
        }
    }

    #[test]
    fn rates_of_simulcast_count_each_layer_with_its_lower_temporal_ones() {
        let mut meter = meter(&["q", "h"]);
        feed(&mut meter, 0..3000, &[(0, 0, 0), (0, 0, 1), (1, 0, 0)]);
        let rates = meter.rates(at(3000)).bps;
        assert_eq!(rates[0], [100_000, 200_000, 0, 0]);
        assert_eq!(rates[1], [100_000, 0, 0, 0]);
        // The second layer stops, and is gone.
        feed(&mut meter, 3000..6000, &[(0, 0, 0)]);
        let rates = meter.rates(at(6000)).bps;
        assert_eq!(rates, [[100_000, 0, 0, 0], [0; 4], [0; 4], [0; 4]]);
        assert_eq!(meter.rates(at(60_000)), TrackRates::default());
    }

    #[test]
    fn rates_of_spatial_layers_count_those_below() {
        let mut meter = meter(&[]);
        feed(&mut meter, 0..3000, &[(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1)]);
        let rates = meter.rates(at(3000)).bps;
        assert_eq!(rates[..2], [[100_000, 200_000, 0, 0], [200_000, 400_000, 0, 0]]);
    }

    #[test]
    fn a_layer_out_of_bounds_is_not_counted() {
        let mut meter = meter(&[]);
        feed(&mut meter, 0..100, &[(0, 7, 0), (0, 0, 7)]);
        assert_eq!(meter.rates(at(100)), TrackRates::default());
    }
}
