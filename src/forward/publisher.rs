//! The receiving end of one publisher.

use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now};
use crate::wire::media::{MediaKind, StreamSpec, TrackSpec};
use crate::wire::rtcp::{self, Packet};
use crate::wire::rtp::Rtp;

use super::arrivals::Arrivals;
use super::clock::{Clock, Offset};
use super::descriptor::describe;
use super::encodings::Encodings;
use super::keyframe::starts_keyframe;
use super::level::{Level, Meter};
use super::red;
use super::routes::Routes;
use super::track::Track;
use super::{Dependency, LayerId, MAX_PAYLOAD, MediaPacket, Meta, PacketHead};

/// What we say a publisher without transport-wide feedback may send, bits per second and video
/// track. Steady: it lifts a browser off its start of 300 kbit/s.
pub const VIDEO_BITRATE: u64 = 3_000_000;

/// RR, SDES and REMB: once in this time.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
const RTX_HEADER: usize = 2;
/// RTCP header, two SSRCs.
const FEEDBACK_HEADER: usize = 12;

/// One publisher: RTP and RTCP in, [`MediaPacket`]s and RTCP out.
#[derive(Debug)]
pub struct Publisher {
    spec: Arc<StreamSpec>,
    routes: Routes,
    tracks: Vec<Encodings>,
    offset: Offset,
    ssrc: u32,
    cname: [u8; 16],
    next_report: Option<Mono>,
    meter: Meter,
    level: Option<Level>,
    ask: Vec<u16>,
    arrivals: Arrivals,
}

impl Publisher {
    /// Starts without a packet seen. The SSRC and CNAME of our reports are drawn from `rng`.
    #[must_use]
    pub fn new(spec: Arc<StreamSpec>, mut rng: StdRng, now: Now) -> Self {
        let mut cname = [0; 16];
        let random: u128 = rng.random();
        for (nibble, byte) in cname.iter_mut().enumerate() {
            *byte = b'a' + ((random >> (4 * nibble)) & 0x0F) as u8;
        }
        Self {
            routes: Routes::new(&spec.tracks, now.mono),
            tracks: spec.tracks.iter().map(Encodings::new).collect(),
            spec,
            offset: Offset::default(),
            ssrc: rng.random(),
            cname,
            next_report: None,
            meter: Meter::default(),
            level: None,
            ask: Vec::with_capacity(256),
            arrivals: Arrivals::new(now.mono),
        }
    }

    /// Takes one RTP packet in the clear. `None`: nothing to forward; a counter says why.
    pub fn on_rtp(
        &mut self,
        now: Now,
        packet: &[u8],
        counters: &mut Counters,
    ) -> Option<MediaPacket> {
        let Ok(rtp) = Rtp::parse(packet) else {
            counters.inc(Id::ForwardDropMalformed);
            return None;
        };
        let Some(found) = self.routes.find(now.mono, &self.spec.tracks, &rtp) else {
            counters.inc(Id::ForwardDropUnknownTrack);
            return None;
        };
        let index = usize::from(found.layer.track);
        let (spec, encodings) = (self.spec.tracks.get(index)?, self.tracks.get_mut(index)?);
        let track = encodings.get_mut(found.layer.layer)?;
        let unheard = track.newest().is_none();
        // Probes too, which have no payload.
        let number = spec.extensions.transport_cc.and_then(|id| rtp.extension(id));
        if let Some(number) = number.and_then(|number| number.first_chunk()) {
            let number = u16::from_be_bytes(*number);
            self.arrivals.on_packet(now.mono, number, rtp.ssrc(), packet.len());
        }
        let mut range = rtp.payload_range();
        let placed = if found.rtx {
            // RFC 4588 section 4: the original sequence number leads the payload. Without one it
            // is a probe for bandwidth.
            let original = rtp.payload().first_chunk::<RTX_HEADER>()?;
            range.start += RTX_HEADER;
            track.on_recovered(now, u16::from_be_bytes(*original), rtp.timestamp(), counters)?
        } else {
            let numbers = (rtp.ssrc(), rtp.sequence(), rtp.timestamp());
            track.on_media(now, numbers, found.fresh, counters)?
        };
        self.next_report.get_or_insert(now.mono);
        if unheard {
            encodings.on_first(now, found.layer.layer, placed.timestamp);
        }
        let track = encodings.get_mut(found.layer.layer)?;
        if range.len() > MAX_PAYLOAD {
            counters.inc(Id::ForwardDropTooLarge);
            return None;
        }
        let payload = packet.get(range.clone())?;
        let redundant = spec.red_pt == Some(rtp.payload_type());
        if redundant && red::primary(payload).is_none() {
            counters.inc(Id::ForwardDropMalformed);
            return None;
        }
        let value = spec.extensions.dependency_descriptor.and_then(|id| rtp.extension(id));
        let told = value.and_then(|value| track.dependencies.read(placed.sequence, value));
        let (place, keyframe) = told.unwrap_or_else(|| {
            let codec = spec.codec.name;
            (describe(codec, payload), starts_keyframe(codec, payload))
        });
        if keyframe {
            track.on_keyframe(placed.extended, counters);
        }
        counters.inc(Id::ForwardReceived);
        let meta = meta(spec, &rtp);
        // Of several audio tracks the first speaks for the stream.
        if let Some(value) = meta.audio_level
            && self.spec.tracks.iter().position(|it| it.kind == MediaKind::Audio) == Some(index)
        {
            self.level = self.meter.on_packet(now.mono, value).or(self.level);
        }
        let head = PacketHead {
            track: found.layer.track,
            layer: found.layer.layer,
            spatial: place.spatial,
            temporal: place.temporal,
            sync: place.sync,
            up_to: place.up_to,
            ends: place.ends,
            sequence: placed.sequence,
            timestamp: placed.timestamp,
            align: track.align,
            marker: rtp.marker(),
            redundant,
            keyframe,
            meta,
            dependency: value.map(Dependency::new).unwrap_or_default(),
        };
        Some(MediaPacket { head, payload: range })
    }

    /// How loud the stream is, when that is to be told: a few times a second.
    pub fn poll_level(&mut self) -> Option<Level> {
        self.level.take()
    }

    /// Takes one RTCP compound in the clear.
    pub fn on_rtcp(&mut self, now: Now, compound: &[u8], counters: &mut Counters) {
        for packet in rtcp::Compound::new(compound) {
            match packet {
                Ok(Packet::SenderReport { ssrc, info, .. }) => {
                    let Some(LayerId { track, layer }) = self.routes.layer_of(ssrc) else {
                        continue;
                    };
                    if let Some(track) = self.tracks.get_mut(usize::from(track)) {
                        track.on_sender_report(now.mono, layer, (ssrc, info.ntp, info.rtp));
                    }
                    // Zero is what a sender without a clock puts (RFC 3550 section 6.4.1).
                    if info.ntp != 0 {
                        self.offset.observe(now.unix, info.ntp);
                    }
                }
                // It sends only: what else it says is about nothing of ours.
                Ok(_) => {}
                Err(rtcp::Malformed) => counters.inc(Id::ForwardRtcpMalformed),
            }
        }
    }

    /// Someone wants a keyframe of a layer. Requests of all players become at most one PLI in
    /// 500 ms, repeated until a keyframe comes; on a silent track one in 2 s, and none after the
    /// fifth until a packet comes or someone asks again. They leave by [`Publisher::poll_rtcp`],
    /// which also counts them.
    pub fn request_keyframe(&mut self, _now: Now, layer: LayerId, _counters: &mut Counters) {
        let track = self.tracks.get_mut(usize::from(layer.track));
        if let Some(track) = track.and_then(|track| track.get_mut(layer.layer)) {
            track.wish_keyframe();
        }
    }

    /// A track's media clock on the server's, from the publisher's sender reports; all tracks by
    /// one offset. `None` before the first report.
    #[must_use]
    pub fn clock(&self, track: u8) -> Option<Clock> {
        self.tracks.get(usize::from(track))?.clock(&self.offset)
    }

    /// Writes what is due as one compound, to protect and send: reports each second, PLIs, NACKs,
    /// transport-wide feedback.
    /// Call until it returns `None`. `out` should have 1,200 bytes.
    pub fn poll_rtcp(
        &mut self,
        now: Now,
        out: &mut [u8],
        counters: &mut Counters,
    ) -> Option<usize> {
        if self.poll_timeout()? > now.mono {
            return None;
        }
        let report = self.next_report.is_some_and(|at| at <= now.mono);
        let mut writer = rtcp::Writer::new(out);
        let tracks = &mut self.tracks;
        // Led by an RR and a CNAME even when only feedback is due (RFC 3550 section 6.1): reduced
        // size was not negotiated with everybody.
        let blocks = layers_mut(tracks).filter(|_| report);
        let led = writer
            .receiver_report(self.ssrc, blocks.filter_map(|track| track.report_block(now.mono)))
            && writer.sdes([self.ssrc], &self.cname);
        let lead = writer.len();
        if report {
            self.next_report = Some(now.mono.plus(REPORT_INTERVAL));
            remb(&mut writer, self.ssrc, &self.spec.tracks, tracks);
        }
        if !led {
            return None;
        }
        // NACKs come first, for what they give up asks for a keyframe; PLIs keep their room.
        let count: usize = tracks.iter().map(|track| track.layers.len()).sum();
        let reserved = FEEDBACK_HEADER * (1 + count);
        for track in layers_mut(tracks) {
            // Four bytes hold at least one number.
            let room = writer.room().saturating_sub(reserved) / 4;
            let lost = track.missing.sweep(now.mono, room, &mut self.ask);
            track.on_lost(lost, counters);
            let Some(media) = track.ssrc().filter(|_| !self.ask.is_empty()) else { continue };
            if writer.nack(self.ssrc, media, self.ask.iter().copied()) {
                counters.add(Id::ForwardNackSent, self.ask.len() as u64);
            }
        }
        for track in layers_mut(tracks) {
            if writer.room() < FEEDBACK_HEADER {
                break;
            }
            if let Some(media) = track.take_keyframe_request(now.mono)
                && writer.pli(self.ssrc, media)
            {
                counters.inc(Id::ForwardKeyframeSent);
            }
        }
        // The rest of its messages, if any, come with the next call.
        if self.arrivals.write(now.mono, self.ssrc, &mut writer) {
            counters.inc(Id::ForwardFeedbackSent);
        }
        (report || writer.len() > lead).then(|| writer.len())
    }

    /// When [`Publisher::poll_rtcp`] has something to write.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        let feedback = self
            .tracks
            .iter()
            .flat_map(|track| &track.layers)
            .flat_map(|track| [track.keyframe_due(), track.missing.poll_timeout()])
            .flatten();
        feedback.chain(self.next_report).chain(self.arrivals.poll_timeout()).min()
    }
}

fn layers_mut(tracks: &mut [Encodings]) -> impl Iterator<Item = &mut Track> {
    tracks.iter_mut().flat_map(|track| &mut track.layers)
}

fn remb(writer: &mut rtcp::Writer<'_>, sender: u32, specs: &[TrackSpec], tracks: &[Encodings]) {
    // It would cap what a sender with transport-wide feedback finds out itself.
    if specs.iter().any(|spec| spec.extensions.transport_cc.is_some()) {
        return;
    }
    let is_video = |spec: &TrackSpec| spec.kind == MediaKind::Video && spec.remb;
    // The layers of simulcast together need less than twice the largest.
    let videos = specs.iter().filter(|spec| is_video(spec));
    let count: u64 = videos.map(|spec| if spec.rids.is_empty() { 1 } else { 2 }).sum();
    if count > 0 {
        let known = specs.iter().zip(tracks).filter(|(spec, _)| is_video(spec));
        // One number for all: a sender takes it as the limit of the whole transport.
        let ssrcs = known.flat_map(|(_, track)| &track.layers).filter_map(Track::ssrc);
        writer.remb(sender, VIDEO_BITRATE * count, ssrcs);
    }
}

fn meta(spec: &TrackSpec, rtp: &Rtp<'_>) -> Meta {
    let value = |id: Option<u8>| id.and_then(|id| rtp.extension(id));
    Meta {
        audio_level: value(spec.extensions.audio_level).and_then(|v| v.first().copied()),
        orientation: value(spec.extensions.video_orientation).and_then(|v| v.first().copied()),
        playout_delay: value(spec.extensions.playout_delay).and_then(|v| v.first_chunk().copied()),
    }
}
