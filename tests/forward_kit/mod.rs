//! Streams, packets and time for the scripts of the forwarder.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of the kit")]

use std::sync::Arc;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::StdRng;
use veilgate::forward::{LayerId, MediaPacket, Publisher};
use veilgate::ids::StreamId;
use veilgate::metrics::Counters;
use veilgate::time::{Mono, Now, Unix};
use veilgate::wire::media::{
    Codec, CodecName, Extensions, MediaKind, PlaySpec, PlayTrackSpec, StreamSpec, TrackSpec,
};
use veilgate::wire::rtcp::{Compound, Packet, SenderInfo, Writer};
use veilgate::wire::rtp::Header;

pub const AUDIO: u8 = 0;
pub const VIDEO: u8 = 1;
pub const AUDIO_SSRC: u32 = 0xA0D1_0000;
pub const VIDEO_SSRC: u32 = 0xC0DE_0000;
pub const RTX_SSRC: u32 = 0xC0DE_0001;
pub const MID: u8 = 4;
pub const LEVEL: u8 = 1;
pub const ORIENTATION: u8 = 3;
pub const DELAY: u8 = 5;
pub const TRANSPORT_CC: u8 = 6;

/// VP8 payloads: first packet of a keyframe, of another frame, and what follows a first packet.
pub const KEY: &[u8] = &[0x10, 0x00, 1, 2, 3];
pub const DELTA: &[u8] = &[0x10, 0x01, 1, 2, 3];
pub const MORE: &[u8] = &[0x00, 0x00, 1, 2, 3];

pub fn at(millis: u64) -> Now {
    Now { mono: Mono::from_nanos(5_000_000_000), unix: Unix::from_secs(1_800_000_000) }
        .advanced(Duration::from_millis(millis))
}

pub fn millis(at: Mono) -> u64 {
    (at.as_nanos() - 5_000_000_000) / 1_000_000
}

pub fn rng(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed)
}

pub fn audio_spec() -> TrackSpec {
    TrackSpec {
        kind: MediaKind::Audio,
        mid: "0".into(),
        codec: Codec { name: CodecName::Opus, fmtp: Vec::new() },
        pt: 111,
        rtx_pt: None,
        red_pt: None,
        ssrc: Some(AUDIO_SSRC),
        rtx_ssrc: None,
        nack: false,
        pli: false,
        remb: true,
        extensions: Extensions { mid: Some(MID), audio_level: Some(LEVEL), ..Default::default() },
        rids: Vec::new(),
    }
}

pub fn video_spec() -> TrackSpec {
    TrackSpec {
        kind: MediaKind::Video,
        mid: "1".into(),
        codec: Codec { name: CodecName::Vp8, fmtp: Vec::new() },
        pt: 96,
        rtx_pt: Some(97),
        red_pt: None,
        ssrc: Some(VIDEO_SSRC),
        rtx_ssrc: Some(RTX_SSRC),
        nack: true,
        pli: true,
        remb: true,
        extensions: Extensions {
            mid: Some(MID),
            video_orientation: Some(ORIENTATION),
            playout_delay: Some(DELAY),
            ..Default::default()
        },
        rids: Vec::new(),
    }
}

pub fn stream_of(tracks: Vec<TrackSpec>) -> Arc<StreamSpec> {
    let name = "lobby/cam1".parse().expect("valid");
    Arc::new(StreamSpec { id: StreamId(1), name, tracks })
}

pub fn stream() -> Arc<StreamSpec> {
    stream_of(vec![audio_spec(), video_spec()])
}

/// The only layer of a track without simulcast.
pub fn plain(track: u8) -> LayerId {
    LayerId { track, layer: 0 }
}

pub fn play_track(track: u8, rtx: bool) -> PlayTrackSpec {
    PlayTrackSpec {
        track,
        mid: format!("m{track}"),
        pt: 100 + track,
        rtx_pt: rtx.then_some(120 + track),
        red_pt: None,
        ssrc: 0x1000 + u32::from(track),
        rtx_ssrc: rtx.then_some(0x2000 + u32::from(track)),
        extensions: Extensions {
            mid: Some(9),
            audio_level: Some(10),
            video_orientation: Some(11),
            ..Default::default()
        },
    }
}

pub fn play(stream: &Arc<StreamSpec>, tracks: &[u8], rtx: bool) -> PlaySpec {
    PlaySpec {
        stream: Arc::clone(stream),
        cname: "player".into(),
        tracks: tracks.iter().map(|track| play_track(*track, rtx && *track == VIDEO)).collect(),
    }
}

/// An RTP packet with the given extension elements.
pub fn rtp(
    (payload_type, ssrc, sequence, timestamp): (u8, u32, u16, u32),
    elements: &[(u8, &[u8])],
    payload: &[u8],
) -> Vec<u8> {
    let mut packet = vec![0; 100];
    let header = Header { payload_type, marker: false, sequence, timestamp, ssrc };
    let len = header.write(&mut packet, elements.iter().copied()).expect("fits");
    packet.truncate(len);
    packet.extend(payload);
    packet
}

pub fn video(sequence: u16, payload: &[u8]) -> Vec<u8> {
    rtp((96, VIDEO_SSRC, sequence, 1000), &[], payload)
}

pub fn rtx(sequence: u16, original: u16, payload: &[u8]) -> Vec<u8> {
    let mut with = original.to_be_bytes().to_vec();
    with.extend(payload);
    rtp((97, RTX_SSRC, sequence, 1000), &[], &with)
}

pub fn sender_report(ssrc: u32, ntp: u64, rtp: u32) -> Vec<u8> {
    let mut out = vec![0; 100];
    let mut writer = Writer::new(&mut out);
    assert!(writer.sender_report(ssrc, &SenderInfo { ntp, rtp, packets: 0, octets: 0 }, []));
    let len = writer.len();
    out.truncate(len);
    out
}

/// A publisher with its counters.
pub struct Rig {
    pub publisher: Publisher,
    pub counters: Counters,
}

impl Rig {
    pub fn new(stream: &Arc<StreamSpec>) -> Self {
        let publisher = Publisher::new(Arc::clone(stream), rng(1), at(0));
        Self { publisher, counters: Counters::default() }
    }

    pub fn rtp(&mut self, now: Now, packet: &[u8]) -> Option<MediaPacket> {
        self.publisher.on_rtp(now, packet, &mut self.counters)
    }

    /// All RTCP that is due, in words.
    pub fn rtcp(&mut self, now: Now) -> Vec<String> {
        let mut words = Vec::new();
        let mut out = [0; 1200];
        while let Some(len) = self.publisher.poll_rtcp(now, &mut out, &mut self.counters) {
            words.extend(words_of(&out[..len]));
            assert!(words.len() < 1000, "polling comes to an end");
        }
        words
    }
}

/// A compound in words, without its SDES.
pub fn words_of(compound: &[u8]) -> Vec<String> {
    let mut words = Vec::new();
    for packet in Compound::new(compound) {
        match packet.expect("valid") {
            Packet::SenderReport { ssrc, info, .. } => {
                words.push(format!("sr {ssrc:x} {} {}", info.packets, info.octets));
            }
            Packet::ReceiverReport { blocks, .. } => {
                words.extend(blocks.map(|b| {
                    format!(
                        "rr {:x} lost {}/256 {} highest {} lsr {:x} dlsr {}",
                        b.ssrc, b.fraction_lost, b.cumulative_lost, b.highest, b.last_sr, b.delay
                    )
                }));
            }
            Packet::Sdes(names) => assert!(names.clone().all(|(_, name)| name.len() >= 6)),
            Packet::Nack { media, lost } => {
                words.push(format!("nack {media:x} {:?}", lost.collect::<Vec<_>>()));
            }
            Packet::Pli { media } => words.push(format!("pli {media:x}")),
            Packet::Remb { bitrate, ssrcs } => {
                words.push(format!("remb {bitrate} {:x?}", ssrcs.collect::<Vec<_>>()));
            }
            Packet::TransportCc { media, feedback } => {
                let told = feedback.packets().map(|(n, at)| format!("{n}@{at:?}"));
                words.push(format!("twcc {media:x} {}", told.collect::<Vec<_>>().join(" ")));
            }
            Packet::Bye(_) | Packet::Fir(_) | Packet::Other => panic!("not ours"),
        }
    }
    words
}
