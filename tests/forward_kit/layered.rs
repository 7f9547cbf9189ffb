//! A VP8 track in three simulcast layers, each with three temporal layers, and a player of it.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part of the kit")]

use std::collections::HashMap;

use veilgate::forward::{
    Cache, LayerId, MAX_OVERHEAD, MAX_PAYLOAD, MediaPacket, Player, Publisher, Wants,
};
use veilgate::metrics::Counters;
use veilgate::time::Now;
use veilgate::wire::media::{Extensions, MediaKind, TrackSpec};
use veilgate::wire::rtp::Rtp;

use crate::forward_kit::{MID, at, play, rng, rtp, sender_report, stream_of, video_spec};

pub const RID: u8 = 6;
pub const REPAIRED: u8 = 7;
pub const RIDS: [&str; 3] = ["q", "h", "f"];
/// Ticks between pictures: 10 a second.
pub const PICTURE: u32 = 9_000;
/// Temporal layer and "sync" of each picture of a period of four.
const PATTERN: [(u8, bool); 4] = [(0, false), (2, true), (1, true), (2, false)];

pub fn layered_spec() -> TrackSpec {
    let plain = video_spec();
    TrackSpec {
        ssrc: None,
        rtx_ssrc: None,
        extensions: Extensions {
            mid: Some(MID),
            rid: Some(RID),
            repaired_rid: Some(REPAIRED),
            ..plain.extensions
        },
        rids: RIDS.map(str::to_owned).to_vec(),
        ..plain
    }
}

pub const fn ssrc_of(layer: u8) -> u32 {
    0xA000 + layer as u32
}

/// The numbers of a VP8 payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vp8 {
    pub picture: u16,
    pub tl0: u8,
    pub temporal: u8,
    pub sync: bool,
    pub key: u8,
    pub keyframe: bool,
    pub first: bool,
    /// What the encoder put there: layer and number of the picture.
    pub made: (u8, u32),
}

impl Vp8 {
    fn write(&self) -> Vec<u8> {
        let mut out = vec![0x80 | (u8::from(self.first) << 4), 0xF0];
        out.extend((self.picture | 0x8000).to_be_bytes());
        out.push(self.tl0);
        out.push((self.temporal << 6) | (u8::from(self.sync) << 5) | (self.key & 0x1F));
        out.push(u8::from(!self.keyframe));
        out.push(self.made.0);
        out.extend(self.made.1.to_be_bytes());
        out
    }

    pub fn read(payload: &[u8]) -> Self {
        assert_eq!((payload[0] & 0xEF, payload[1], payload[2] & 0x80), (0x80, 0xF0, 0x80));
        Self {
            first: payload[0] & 0x10 != 0,
            picture: u16::from_be_bytes([payload[2] & 0x7F, payload[3]]),
            tl0: payload[4],
            temporal: payload[5] >> 6,
            sync: payload[5] & 0x20 != 0,
            key: payload[5] & 0x1F,
            keyframe: payload[6] & 1 == 0,
            made: (
                payload[7],
                u32::from_be_bytes([payload[8], payload[9], payload[10], payload[11]]),
            ),
        }
    }
}

/// One encoder: a layer's packets with clock and counters of its own.
pub struct Encoder {
    pub layer: u8,
    pub sequence: u16,
    pub timestamp: u32,
    pictures: u32,
    since_key: u32,
    picture_id: u16,
    tl0: u8,
    key: u8,
    pub wants_key: bool,
    /// Packets of each picture.
    pub packets: u32,
    /// The rid is in this many packets more.
    rids_left: u32,
}

impl Encoder {
    pub fn new(layer: u8, seed: u16) -> Self {
        Self {
            layer,
            sequence: seed.wrapping_mul(7919).wrapping_add(u16::from(layer) * 1000),
            timestamp: u32::from(seed)
                .wrapping_mul(77_777)
                .wrapping_add(u32::from(layer) * 1_234_567),
            pictures: 0,
            since_key: 0,
            picture_id: seed.wrapping_mul(31).wrapping_add(u16::from(layer) * 5_000),
            tl0: (seed as u8).wrapping_mul(3).wrapping_add(layer),
            key: layer * 3,
            wants_key: true,
            packets: 1 + u32::from(layer),
            rids_left: 10,
        }
    }

    /// The next picture's packets.
    pub fn picture(&mut self) -> Vec<Vec<u8>> {
        let keyframe = std::mem::take(&mut self.wants_key);
        if keyframe {
            self.since_key = 0;
            self.key = self.key.wrapping_add(1) & 0x1F;
        }
        let (temporal, sync) = PATTERN[(self.since_key % 4) as usize];
        if temporal == 0 {
            self.tl0 = self.tl0.wrapping_add(1);
        }
        self.picture_id = self.picture_id.wrapping_add(1) & 0x7FFF;
        self.pictures += 1;
        self.since_key += 1;
        self.timestamp = self.timestamp.wrapping_add(PICTURE);
        let mut out = Vec::new();
        for packet in 0..self.packets {
            let vp8 = Vp8 {
                picture: self.picture_id,
                tl0: self.tl0,
                temporal,
                sync,
                key: self.key,
                keyframe,
                first: packet == 0,
                made: (self.layer, self.pictures),
            };
            self.sequence = self.sequence.wrapping_add(1);
            let rid = RIDS[usize::from(self.layer)].as_bytes();
            let all: [(u8, &[u8]); 2] = [(MID, b"1"), (RID, rid)];
            let elements = if self.rids_left > 0 { &all[..] } else { &[] };
            self.rids_left = self.rids_left.saturating_sub(1);
            let numbers = (96, ssrc_of(self.layer), self.sequence, self.timestamp);
            let mut bytes = rtp(numbers, elements, &vp8.write());
            // The marker.
            if packet + 1 == self.packets {
                bytes[1] |= 0x80;
            }
            out.push(bytes);
        }
        out
    }

    pub fn report(&self, now: Now) -> Vec<u8> {
        sender_report(ssrc_of(self.layer), now.unix.as_ntp(), self.timestamp)
    }
}

/// A packet as a player got it.
#[derive(Clone, Debug)]
pub struct Got {
    pub sequence: u16,
    pub timestamp: u32,
    pub marker: bool,
    /// `None`: a filler.
    pub vp8: Option<Vp8>,
}

/// Publisher, cache and player in a row.
pub struct Scene {
    pub publisher: Publisher,
    pub cache: Cache,
    pub player: Player,
    pub counters: Counters,
    pub got: Vec<Got>,
    /// Everything that was ever sent under a number.
    bytes: HashMap<u16, Vec<u8>>,
    pub repeated: u32,
    wants: Wants,
}

impl Scene {
    pub fn new(rtx: bool, seed: u64) -> Self {
        let stream = stream_of(vec![layered_spec()]);
        let mut spec = play(&stream, &[0], false);
        if rtx {
            spec.tracks[0].rtx_pt = Some(120);
            spec.tracks[0].rtx_ssrc = Some(0x2000);
        }
        Self {
            publisher: Publisher::new(stream, rng(seed), at(0)),
            cache: Cache::new(MediaKind::Video),
            player: Player::new(spec, rng(seed ^ 99), at(0)),
            counters: Counters::default(),
            got: Vec::new(),
            bytes: HashMap::new(),
            repeated: 0,
            wants: Wants::default(),
        }
    }

    /// A packet arrives from the publisher.
    pub fn arrive(&mut self, now: Now, packet: &[u8]) -> Option<MediaPacket> {
        let media = self.publisher.on_rtp(now, packet, &mut self.counters)?;
        let payload = &packet[media.payload.clone()];
        self.cache.store(&media, payload);
        let mut slot = [0xEE; MAX_PAYLOAD + MAX_OVERHEAD];
        if let Some(len) =
            self.player.write_rtp(now, &media, payload, &mut slot, &mut self.counters)
        {
            self.note(&slot[..len]);
        }
        Some(media)
    }

    /// The player reports numbers as lost.
    pub fn nack(&mut self, now: Now, lost: &[u16]) {
        let mut out = [0; 1_200];
        let mut writer = veilgate::wire::rtcp::Writer::new(&mut out);
        assert!(writer.nack(1, 0x1000, lost.iter().copied()));
        let len = writer.len();
        self.wants.clear();
        self.player.on_rtcp(now, &out[..len], &mut self.wants, &mut self.counters);
        for (LayerId { layer, .. }, sequence) in std::mem::take(&mut self.wants.nacks) {
            let Some((head, payload)) = self.cache.load(layer, sequence) else { continue };
            let mut slot = [0xEE; MAX_PAYLOAD + MAX_OVERHEAD];
            let (player, counters) = (&mut self.player, &mut self.counters);
            if let Some(len) = player.write_retransmission(now, &head, payload, &mut slot, counters)
            {
                self.repeated += 1;
                self.note(&slot[..len]);
            }
        }
    }

    /// Whether anything was sent under a number.
    pub fn has(&self, number: u16) -> bool {
        self.bytes.contains_key(&number)
    }

    /// The layers a keyframe is wanted of.
    pub fn wanted(&self) -> Vec<u8> {
        self.player.wants_keyframe().map(|layer| layer.layer).collect()
    }

    fn note(&mut self, packet: &[u8]) {
        let rtp = Rtp::parse(packet).expect("valid");
        let (sequence, payload) = if rtp.ssrc() == 0x2000 {
            // RTX (RFC 4588): as what it repeats, which the first sending must have equalled.
            let original = u16::from_be_bytes([rtp.payload()[0], rtp.payload()[1]]);
            (original, rtp.payload()[2..].to_vec())
        } else {
            (rtp.sequence(), rtp.payload().to_vec())
        };
        let mut told = rtp.timestamp().to_be_bytes().to_vec();
        told.push(u8::from(rtp.marker()));
        told.extend(&payload);
        let before = self.bytes.insert(sequence, told.clone());
        assert!(before.is_none_or(|before| before == told), "{sequence} has two contents");
        let vp8 = (!payload.is_empty()).then(|| Vp8::read(&payload));
        self.got.push(Got { sequence, timestamp: rtp.timestamp(), marker: rtp.marker(), vp8 });
    }
}
