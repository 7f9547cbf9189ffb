//! Spatial and temporal layers of AV1 by its dependency descriptor: scripts with exact packets.

#[path = "forward_kit/dependency.rs"]
mod dependency;
mod forward_kit;

use dependency::{L1T3, L3T3_KEY, Template, Written, long_rtp};
use forward_kit::*;
use veilgate::forward::{Cache, MAX_OVERHEAD, MAX_PAYLOAD, MediaPacket, Player, Target};
use veilgate::metrics::{Counters, Id};
use veilgate::wire::media::{Codec, CodecName, Extensions, MediaKind, TrackSpec};
use veilgate::wire::rtp::Rtp;

const DESCRIPTOR: u8 = 12;
/// Its id towards the player.
const TAKEN: u8 = 7;
/// Temporal layer of each picture of a period of four.
const PATTERN: [u8; 4] = [0, 2, 1, 2];
/// AV1's aggregation header: of no keyframe, as the descriptor has to tell it.
const AGGREGATION: u8 = 0x10;

/// What a player got: spatial and temporal layer, picture, marker, number.
type Got = (u8, u8, u8, bool, u16);

struct Film {
    taken: Option<u8>,
    rig: Rig,
    player: Player,
    cache: Cache,
    templates: &'static [Template],
    offset: u8,
    sequence: u16,
    picture: u8,
    since_key: usize,
    top: u8,
    got: Vec<Got>,
    sent: Vec<Vec<u8>>,
}

impl Film {
    fn new(templates: &'static [Template]) -> Self {
        Self::with(templates, Some(TAKEN))
    }

    /// `taken`: the id by which the player takes descriptors.
    fn with(templates: &'static [Template], taken: Option<u8>) -> Self {
        let codec = Codec { name: CodecName::Av1, fmtp: Vec::new() };
        let extensions = Extensions {
            mid: Some(MID),
            dependency_descriptor: Some(DESCRIPTOR),
            ..Default::default()
        };
        let video = TrackSpec { codec, extensions, ..video_spec() };
        let stream = stream_of(vec![audio_spec(), video]);
        let mut spec = play(&stream, &[VIDEO], false);
        spec.tracks[0].extensions.dependency_descriptor = taken;
        Self {
            taken,
            rig: Rig::new(&stream),
            player: Player::new(spec, rng(3), at(0)),
            cache: Cache::new(MediaKind::Video),
            templates,
            offset: 50,
            sequence: 100,
            picture: 10,
            since_key: 0,
            top: templates.iter().map(|it| it.0).max().expect("a template"),
            got: Vec::new(),
            sent: Vec::new(),
        }
    }

    /// The template of a frame, and its index: the first of a layer for a keyframe, else the last.
    fn template(&self, key: bool, spatial: u8, temporal: u8) -> u8 {
        let is = |it: &Template| (it.0, it.1) == (spatial, temporal);
        let found = if key {
            self.templates.iter().position(is)
        } else {
            self.templates.iter().rposition(is)
        };
        found.expect("a template") as u8
    }

    /// The packets of the next picture: two of each spatial layer.
    fn picture(&mut self, key: bool) -> Vec<Vec<u8>> {
        self.picture = (self.picture + 1) & 0x7F;
        self.since_key = if key { 0 } else { self.since_key + 1 };
        if key {
            // As encoders do, so that nobody reads a frame by another structure.
            self.offset = (self.offset + self.templates.len() as u8) & 0x3F;
        }
        let temporal = PATTERN[self.since_key % 4];
        let mut packets = Vec::new();
        for spatial in 0..=self.top {
            for part in 0..2 {
                let (starts, ends) = (part == 0, part == 1);
                let descriptor = Written {
                    starts,
                    ends,
                    template: self.template(key, spatial, temporal),
                    offset: self.offset,
                    frame: u16::from(self.picture),
                    structure: (key && spatial == 0 && starts).then_some(self.templates),
                    chains: 1,
                    resolutions: true,
                    ..Default::default()
                };
                let payload = [AGGREGATION, self.picture, spatial, temporal, 0xAA];
                self.sequence += 1;
                let timestamp = u32::from(self.picture) * 9_000;
                let packet = rtp((96, VIDEO_SSRC, self.sequence, timestamp), &[], &payload);
                let mut packet = long_rtp(&packet, DESCRIPTOR, &descriptor.bytes());
                if ends && spatial == self.top {
                    packet[1] |= 0x80;
                }
                packets.push(packet);
            }
        }
        packets
    }

    fn arrive(&mut self, packet: &[u8]) -> MediaPacket {
        let media = self.rig.rtp(at(0), packet).expect("taken");
        let payload = &packet[media.payload.clone()];
        self.cache.store(&media, payload);
        let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
        let (player, counters) = (&mut self.player, &mut self.rig.counters);
        let Some(len) = player.write_rtp(at(0), &media, payload, &mut slot, counters) else {
            return media;
        };
        self.sent.push(slot[..len].to_vec());
        let rtp = Rtp::parse(&slot[..len]).expect("valid");
        let came = Rtp::parse(packet).expect("valid").extension(DESCRIPTOR);
        let told = self.taken.and_then(|id| rtp.extension(id));
        let filler = rtp.payload().is_empty();
        assert_eq!(told, came.filter(|_| self.taken.is_some() && !filler));
        assert_eq!(rtp.extension(9), Some(&b"m1"[..]), "beside the others");
        // Empty: a filler.
        if let [_, picture, spatial, temporal, _] = *rtp.payload() {
            self.got.push((spatial, temporal, picture, rtp.marker(), rtp.sequence()));
        }
        media
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

fn all(got: &[Got], layer: impl Fn(&Got) -> u8) -> Vec<u8> {
    let mut all: Vec<_> = got.iter().map(layer).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn spatials(got: &[Got]) -> Vec<u8> {
    all(got, |got| got.0)
}

fn temporals(got: &[Got]) -> Vec<u8> {
    all(got, |got| got.1)
}

#[test]
fn a_structure_at_the_start_of_a_frame_is_the_start_of_a_keyframe() {
    let mut film = Film::new(&L3T3_KEY);
    let heads: Vec<_> = film.picture(true).iter().map(|packet| film.arrive(packet)).collect();
    let keyframes: Vec<_> = heads.iter().map(|head| head.keyframe).collect();
    assert_eq!(keyframes, [true, false, false, false, false, false]);
    let places: Vec<_> =
        heads.iter().map(|head| (head.spatial, head.temporal, head.ends)).collect();
    let expected =
        [(0, 0, false), (0, 0, true), (1, 0, false), (1, 0, true), (2, 0, false), (2, 0, true)];
    assert_eq!(places, expected);
    assert_eq!(film.got.len(), 6);
    let deltas: Vec<_> = film.picture(false).iter().map(|packet| film.arrive(packet)).collect();
    assert!(deltas.iter().all(|head| !head.keyframe && head.temporal == 2));
}

#[test]
fn spatial_layers_of_av1_go_down_at_any_picture_and_up_at_a_keyframe() {
    let mut film = Film::new(&L3T3_KEY);
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
fn a_player_without_descriptors_gets_the_lowest_spatial_layer() {
    let mut film = Film::with(&L3T3_KEY, None);
    let got = film.play(8);
    assert_eq!((spatials(&got), temporals(&got)), (vec![0], vec![0, 1, 2]));
    assert!(!film.wants(), "no keyframe would bring more");
}

#[test]
fn temporal_layers_of_av1_come_back_where_the_templates_let_one_switch() {
    let mut film = Film::new(&L3T3_KEY);
    film.play(4);
    film.target(3, 0);
    assert_eq!(temporals(&film.play(8)), [0]);
    film.target(3, 1);
    assert_eq!(temporals(&film.play(8)), [0, 1]);
    film.target(1, 3);
    assert_eq!(temporals(&film.play(8)), [0, 1, 2]);
    assert!(!film.wants(), "no keyframe is needed for it");
}

#[test]
fn temporal_layers_that_allow_no_switch_come_back_at_a_keyframe() {
    let mut film = Film::new(&L1T3);
    assert_eq!(temporals(&film.play(8)), [0, 1, 2]);
    film.target(3, 0);
    assert_eq!(temporals(&film.play(8)), [0]);
    film.target(3, 2);
    assert_eq!(temporals(&film.play(8)), [0], "the lower pictures promise nothing");
    for packet in film.picture(true) {
        film.arrive(&packet);
    }
    assert_eq!(temporals(&film.play(4)), [0, 1, 2]);
}

#[test]
fn a_picture_lost_on_the_way_forbids_to_rise() {
    let mut film = Film::new(&L3T3_KEY);
    film.play(4);
    film.target(3, 0);
    film.play(4);
    film.target(3, 2);
    // The lowest picture, of which the upper ones speak, comes; the next does not.
    for packet in film.picture(false) {
        film.arrive(&packet);
    }
    film.picture(false);
    let from = film.got.len();
    for _ in 0..2 {
        for packet in film.picture(false) {
            film.arrive(&packet);
        }
    }
    assert_eq!(film.got[from..], []);
    // From the next lowest on.
    let from = film.got.len();
    for _ in 0..4 {
        for packet in film.picture(false) {
            film.arrive(&packet);
        }
    }
    assert_eq!(temporals(&film.got[from..]), [0, 1, 2]);
}

#[test]
fn a_late_packet_is_read_by_the_structure_of_its_time() {
    let mut film = Film::new(&L3T3_KEY);
    film.play(3);
    let mut late = film.picture(false);
    let late = late.pop().expect("of the highest layer");
    let key = film.picture(true);
    for packet in &key {
        film.arrive(packet);
    }
    let head = film.arrive(&late);
    assert_eq!((head.spatial, head.temporal, head.ends), (2, 2, true));
}

#[test]
fn a_descriptor_that_cannot_be_read_leaves_the_packet_in_the_lowest_layer() {
    let mut film = Film::new(&L3T3_KEY);
    let structure = Written { structure: Some(&L3T3_KEY), starts: true, ..Default::default() };
    let whole = structure.bytes();
    let mut sequence = 500;
    let mut send = |film: &mut Film, value: &[u8], aggregation: u8| {
        sequence += 1;
        let plain = rtp((96, VIDEO_SSRC, sequence, 9_000), &[], &[aggregation, 1, 0, 0, 0xAA]);
        let media = film.rig.rtp(at(0), &long_rtp(&plain, DESCRIPTOR, value)).expect("taken");
        (media.head.spatial, media.head.temporal, media.head.ends, media.head.keyframe)
    };
    // No structure yet, cut off everywhere, and a template it has not.
    assert_eq!(send(&mut film, &[0xC1, 0, 0], AGGREGATION), (0, 0, false, false));
    for len in 0..whole.len() {
        assert_eq!(send(&mut film, &whole[..len], AGGREGATION), (0, 0, false, false), "{len}");
    }
    assert_eq!(send(&mut film, &[], 0x18), (0, 0, false, true), "the payload tells a keyframe");
    assert_eq!(send(&mut film, &whole, AGGREGATION), (0, 0, false, true));
    assert_eq!(send(&mut film, &[0xFF, 0, 0], AGGREGATION), (0, 0, false, false));
    assert_eq!(send(&mut film, &[0x4D, 0, 0], AGGREGATION), (2, 2, true, false));
}

#[test]
fn a_repeat_of_av1_has_the_marker_that_was_sent() {
    let mut film = Film::new(&L3T3_KEY);
    film.play(2);
    film.target(1, 1);
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
