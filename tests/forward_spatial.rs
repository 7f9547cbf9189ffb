//! Spatial and temporal layers of VP9 (RFC 9628) for one player: scripts with exact packets.

mod forward_kit;

use forward_kit::*;
use veilgate::forward::{Cache, MAX_OVERHEAD, MAX_PAYLOAD, Player, Target, Wish};
use veilgate::metrics::{Counters, Id};
use veilgate::wire::media::{Codec, CodecName, MediaKind, TrackSpec};
use veilgate::wire::rtp::Rtp;

/// Temporal layer and "switching up" of each picture of a period of four.
const PATTERN: [(u8, bool); 4] = [(0, false), (2, true), (1, true), (2, true)];

/// What a player got: spatial and temporal layer, picture, marker, number.
type Got = (u8, u8, u8, bool, u16);

struct Film {
    rig: Rig,
    player: Player,
    cache: Cache,
    sequence: u16,
    picture: u8,
    since_key: usize,
    top: u8,
    got: Vec<Got>,
    sent: Vec<Vec<u8>>,
}

impl Film {
    fn new() -> Self {
        let codec = Codec { name: CodecName::Vp9, fmtp: Vec::new() };
        let stream = stream_of(vec![audio_spec(), TrackSpec { codec, ..video_spec() }]);
        Self {
            rig: Rig::new(&stream),
            player: Player::new(play(&stream, &[VIDEO], false), rng(3), at(0)),
            cache: Cache::new(MediaKind::Video),
            sequence: 100,
            picture: 10,
            since_key: 0,
            top: 2,
            got: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// The packets of the next picture: two of each spatial layer.
    fn picture(&mut self, key: bool) -> Vec<Vec<u8>> {
        self.picture = (self.picture + 1) & 0x7F;
        self.since_key = if key { 0 } else { self.since_key + 1 };
        let (temporal, up) = PATTERN[self.since_key % 4];
        let mut packets = Vec::new();
        for spatial in 0..=self.top {
            for part in 0..2 {
                let (begins, ends) = (part == 0, part == 1);
                let flags =
                    0xA0 | (u8::from(!key) << 6) | (u8::from(begins) << 3) | (u8::from(ends) << 2);
                let layers = (temporal << 5) | (u8::from(up) << 4) | (spatial << 1);
                let payload = [flags, self.picture, layers, 7, 0xAA];
                self.sequence += 1;
                let timestamp = u32::from(self.picture) * 9_000;
                let mut packet = rtp((96, VIDEO_SSRC, self.sequence, timestamp), &[], &payload);
                if ends && spatial == self.top {
                    packet[1] |= 0x80;
                }
                packets.push(packet);
            }
        }
        packets
    }

    fn arrive(&mut self, packet: &[u8]) {
        let media = self.rig.rtp(at(0), packet).expect("taken");
        let payload = &packet[media.payload.clone()];
        self.cache.store(&media, payload);
        let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
        let (player, counters) = (&mut self.player, &mut self.rig.counters);
        let Some(len) = player.write_rtp(at(0), &media, payload, &mut slot, counters) else {
            return;
        };
        self.sent.push(slot[..len].to_vec());
        let rtp = Rtp::parse(&slot[..len]).expect("valid");
        let (layers, picture) = (rtp.payload()[2], rtp.payload()[1]);
        let spatial = (layers >> 1) & 7;
        self.got.push((spatial, layers >> 5, picture, rtp.marker(), rtp.sequence()));
    }

    /// So many pictures; a keyframe when it is wanted. What came of them.
    fn play(&mut self, pictures: u32) -> Vec<Got> {
        let from = self.got.len();
        for _ in 0..pictures {
            let key = self.wants();
            for packet in self.picture(key) {
                self.arrive(&packet);
            }
        }
        for pair in self.got.windows(2) {
            assert_eq!(pair[1].4, pair[0].4.wrapping_add(1), "{pair:?}");
        }
        // The marker is on the last packet of each picture, and on no other.
        for (index, got) in self.got.iter().enumerate() {
            let last = self.got.get(index + 1).is_none_or(|next| next.2 != got.2);
            assert_eq!(got.3, last, "{got:?}");
        }
        self.got[from..].to_vec()
    }

    fn wants(&self) -> bool {
        self.player.wants_keyframe().next().is_some()
    }

    fn target(&mut self, spatial: u8, temporal: u8) {
        self.player.set_target(VIDEO, Some(Target { spatial, temporal }));
    }
}

fn spatials(got: &[Got]) -> Vec<u8> {
    let mut all: Vec<_> = got.iter().map(|got| got.0).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn temporals(got: &[Got]) -> Vec<u8> {
    let mut all: Vec<_> = got.iter().map(|got| got.1).collect();
    all.sort_unstable();
    all.dedup();
    all
}

#[test]
fn spatial_layers_go_down_at_any_picture_and_up_at_a_keyframe() {
    let mut film = Film::new();
    assert_eq!(spatials(&film.play(4)), [0, 1, 2]);
    film.target(1, 3);
    assert!(!film.wants());
    assert_eq!(spatials(&film.play(3)), [0, 1]);
    film.target(0, 3);
    assert_eq!(spatials(&film.play(3)), [0]);
    film.target(2, 3);
    assert!(film.wants());
    // No keyframe comes yet.
    let from = film.got.len();
    for _ in 0..3 {
        for packet in film.picture(false) {
            film.arrive(&packet);
        }
    }
    assert_eq!(spatials(&film.got[from..]), [0]);
    assert_eq!(spatials(&film.play(2)), [0, 1, 2]);
    assert!(!film.wants());
}

#[test]
fn fewer_spatial_layers_than_wished_are_no_reason_to_ask() {
    let mut film = Film::new();
    film.top = 0;
    film.target(0, 3);
    film.play(4);
    film.target(2, 3);
    assert!(!film.wants());
    film.play(2);
    // The publisher has more to give.
    film.top = 1;
    for packet in film.picture(false) {
        film.arrive(&packet);
    }
    assert!(film.wants());
    assert_eq!(spatials(&film.play(2)), [0, 1]);
}

#[test]
fn temporal_layers_go_up_one_by_one_where_the_stream_allows() {
    let mut film = Film::new();
    film.play(4);
    film.target(3, 0);
    assert_eq!(temporals(&film.play(8)), [0]);
    film.target(3, 1);
    assert_eq!(temporals(&film.play(8)), [0, 1]);
    film.target(3, 3);
    assert_eq!(temporals(&film.play(8)), [0, 1, 2]);
    assert!(!film.wants(), "no keyframe is needed for it");
}

#[test]
fn a_repeat_has_the_marker_that_was_sent() {
    let mut film = Film::new();
    film.play(2);
    film.player.set_wish(VIDEO, Wish { spatial: Some(1), temporal: Some(1), paused: false });
    film.play(6);
    let mut again = 0;
    let mut counters = Counters::default();
    for sequence in (1 << 16)..(1 << 16) + 200 {
        let Some((head, payload)) = film.cache.load(0, sequence) else { continue };
        let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
        let player = &mut film.player;
        let len = player.write_retransmission(at(0), &head, payload, &mut slot, &mut counters);
        if let Some(len) = len {
            assert!(film.sent.contains(&slot[..len].to_vec()), "{head:?}");
            again += 1;
        }
    }
    assert_eq!(again, film.sent.len());
    assert!(film.rig.counters.get(Id::ForwardDropLayer) > 0);
}
