//! One simulcast layer at a time: what a player gets when it joins, changes, pauses and drops
//! temporal layers; scripts with exact numbers.

mod forward_kit;
#[path = "forward_kit/layered.rs"]
mod layered;

use forward_kit::*;
use layered::*;
use veilgate::forward::{LayerId, Target, TrackRates, Wish};
use veilgate::metrics::Id;
use veilgate::time::Now;
use veilgate::wire::rtp::Rtp;

/// Three encoders in front of one player, a picture each 100 ms.
struct Film {
    scene: Scene,
    encoders: [Encoder; 3],
    active: [bool; 3],
    time: u64,
}

impl Film {
    fn new(rtx: bool) -> Self {
        let encoders = [0, 1, 2].map(|layer| Encoder::new(layer, 5));
        Self { scene: Scene::new(rtx, 1), encoders, active: [true; 3], time: 0 }
    }

    fn now(&self) -> Now {
        at(self.time)
    }

    /// So many pictures of each layer, all of which arrive; keyframes are made as asked for.
    fn play(&mut self, pictures: u32) {
        for _ in 0..pictures {
            for layer in self.scene.wanted() {
                self.encoders[usize::from(layer)].wants_key = true;
            }
            for (encoder, active) in self.encoders.iter_mut().zip(self.active) {
                for packet in encoder.picture() {
                    if active {
                        self.scene.arrive(at(self.time), &packet);
                    }
                }
            }
            self.time += 100;
        }
    }

    fn reports(&mut self) {
        for encoder in &self.encoders {
            let report = encoder.report(at(self.time));
            self.scene.publisher.on_rtcp(at(self.time), &report, &mut self.scene.counters);
        }
    }

    fn wish(&mut self, spatial: u8) {
        self.scene.player.set_wish(0, Wish { spatial: Some(spatial), ..Wish::default() });
    }

    /// What came since `from`, which must go on without a gap in any number.
    fn since(&self, from: usize) -> &[Got] {
        let got = &self.scene.got;
        for pair in got.windows(2) {
            let [a, b] = pair else { continue };
            assert_eq!(b.sequence, a.sequence.wrapping_add(1), "{a:?} {b:?}");
            let (x, y) = (a.vp8.expect("full"), b.vp8.expect("full"));
            let step = b.timestamp.wrapping_sub(a.timestamp);
            if x.made == y.made {
                assert_eq!((y.picture, y.tl0, y.key, step), (x.picture, x.tl0, x.key, 0));
            } else {
                assert!((1..90_000).contains(&step), "{a:?} {b:?}");
                assert_eq!(y.picture, (x.picture + 1) & 0x7FFF, "{a:?} {b:?}");
                let base = u8::from(y.temporal == 0);
                assert_eq!(y.tl0, x.tl0.wrapping_add(base), "{a:?} {b:?}");
                let key = u8::from(y.keyframe);
                assert_eq!(y.key, x.key.wrapping_add(key) & 0x1F, "{a:?} {b:?}");
                // Another layer begins with a keyframe.
                assert!(x.made.0 == y.made.0 || y.keyframe, "{a:?} {b:?}");
            }
        }
        &got[from..]
    }

    fn layers_since(&self, from: usize) -> Vec<u8> {
        let mut layers: Vec<u8> =
            self.since(from).iter().map(|got| got.vp8.expect("full").made.0).collect();
        layers.dedup();
        layers
    }
}

#[test]
fn a_newcomer_starts_with_what_is_there_and_goes_up_to_the_best() {
    let mut film = Film::new(true);
    film.play(5);
    assert_eq!(film.layers_since(0), [0, 1, 2]);
    assert!(film.scene.wanted().is_empty());
}

#[test]
fn a_change_waits_for_a_keyframe_and_the_old_layer_goes_on_meanwhile() {
    let mut film = Film::new(true);
    film.play(5);
    for (wish, from) in [(0, 2), (2, 0), (1, 2), (0, 1), (1, 0)] {
        film.reports();
        let start = film.scene.got.len();
        film.wish(wish);
        assert_eq!(film.scene.wanted(), [wish]);
        // No keyframe comes for three pictures.
        for _ in 0..3 {
            for encoder in &mut film.encoders {
                for packet in encoder.picture() {
                    film.scene.arrive(at(film.time), &packet);
                }
            }
            film.time += 100;
        }
        assert_eq!(film.layers_since(start), [from]);
        film.play(5);
        assert_eq!(film.layers_since(start), [from, wish]);
        assert!(film.scene.wanted().is_empty());
    }
}

#[test]
fn timestamps_of_all_layers_are_of_one_clock_once_reports_tell() {
    let mut film = Film::new(true);
    film.play(3);
    film.reports();
    // The instant of a picture on our clock, whichever layer it is of.
    let mut base = None;
    for wish in [0, 1, 2, 1, 0] {
        film.wish(wish);
        film.play(4);
        let last = film.since(0).last().expect("some").timestamp;
        let ticks = (film.time as u32) * 90;
        let offset = last.wrapping_sub(ticks);
        let known = *base.get_or_insert(offset);
        // A picture of the instant of the last one is put a millisecond behind it.
        assert!((offset.wrapping_sub(known) as i32).abs() <= 9_000, "{wish}: {offset} {known}");
        film.play(1);
    }
}

#[test]
fn without_reports_time_passes_as_it_was_seen() {
    let mut film = Film::new(true);
    film.play(4);
    let before = film.since(0).last().expect("some").timestamp;
    film.wish(0);
    film.play(10);
    let after = film.since(0).last().expect("some").timestamp;
    let ticks = after.wrapping_sub(before) as i32;
    assert!((ticks - 90_000).abs() <= 9_000, "{ticks}");
}

#[test]
fn a_layer_that_stops_is_left_and_comes_back() {
    let mut film = Film::new(true);
    film.play(5);
    let start = film.scene.got.len();
    film.active[2] = false;
    film.play(15);
    assert_eq!(film.layers_since(start), [1]);
    let gap: Vec<_> = film
        .since(start - 1)
        .windows(2)
        .map(|w| w[1].timestamp.wrapping_sub(w[0].timestamp))
        .collect();
    assert!(gap.iter().all(|step| *step <= 90_000), "{gap:?}");
    // Chromium begins anew with a keyframe.
    film.active[2] = true;
    film.encoders[2].wants_key = true;
    film.play(2);
    assert_eq!(film.layers_since(start), [1, 2]);
}

#[test]
fn a_rid_that_never_sends_is_no_obstacle() {
    let mut film = Film::new(true);
    film.active = [true, false, false];
    film.play(10);
    assert_eq!(film.layers_since(0), [0]);
    assert!(film.scene.wanted().is_empty());
    // Wished for, it is waited for with what there is.
    film.wish(1);
    film.play(2);
    assert_eq!(film.layers_since(0), [0]);
    let mut film = Film::new(true);
    film.active = [false, true, false];
    film.wish(0);
    film.play(10);
    assert_eq!(film.layers_since(0), [1]);
}

#[test]
fn upper_temporal_layers_are_left_out_and_come_back_at_a_sync_point() {
    let mut film = Film::new(true);
    film.play(6);
    let start = film.scene.got.len();
    let temporal = |temporal| Wish { temporal: Some(temporal), ..Wish::default() };
    film.scene.player.set_wish(0, temporal(0));
    film.play(12);
    let seen: Vec<u8> =
        film.since(start).iter().map(|got| got.vp8.expect("full").temporal).collect();
    // Three packets each.
    assert_eq!(seen, [0; 9]);
    let start = film.scene.got.len();
    film.scene.player.set_wish(0, temporal(1));
    film.play(8);
    let seen: Vec<u8> =
        film.since(start).iter().map(|got| got.vp8.expect("full").temporal).collect();
    assert!(seen.contains(&1) && !seen.contains(&2), "{seen:?}");
    let start = film.scene.got.len();
    film.scene.player.set_wish(0, Wish::default());
    film.play(8);
    let first = film.since(start).iter().find(|got| got.vp8.expect("full").temporal == 2);
    assert!(first.expect("they are back").vp8.expect("full").sync);
    assert!(film.scene.counters.get(Id::ForwardDropLayer) > 0);
}

#[test]
fn a_paused_track_sends_nothing_and_resumes_at_a_keyframe() {
    let mut film = Film::new(true);
    film.play(5);
    for pause in [true, false] {
        let start = film.scene.got.len();
        let player = &mut film.scene.player;
        if pause {
            player.set_wish(0, Wish { paused: true, ..Wish::default() });
        } else {
            player.set_target(0, None);
        }
        assert!(film.scene.wanted().is_empty());
        film.play(20);
        assert_eq!(film.scene.got.len(), start);
        let player = &mut film.scene.player;
        player.set_wish(0, Wish::default());
        player.set_target(0, Some(Target { spatial: 3, temporal: 3 }));
        assert_eq!(film.scene.wanted(), [2]);
        film.play(3);
        let before = film.scene.got[start - 1].timestamp;
        let got = &film.scene.got[start];
        assert!(got.vp8.expect("full").keyframe);
        assert_eq!(got.sequence, film.scene.got[start - 1].sequence.wrapping_add(1));
        let ticks = got.timestamp.wrapping_sub(before) as i32;
        assert!((ticks - 21 * 9_000).abs() <= 18_000, "the clock went on: {ticks}");
    }
    assert!(film.scene.counters.get(Id::ForwardDropPaused) > 0);
}

#[test]
fn the_smaller_of_wish_and_target_decides() {
    let mut film = Film::new(true);
    film.play(5);
    let start = film.scene.got.len();
    film.wish(1);
    film.scene.player.set_target(0, Some(Target { spatial: 0, temporal: 3 }));
    film.play(4);
    film.scene.player.set_target(0, Some(Target { spatial: 2, temporal: 3 }));
    film.play(4);
    assert_eq!(film.layers_since(start), [0, 1]);
}

#[test]
fn options_are_what_the_wish_allows_with_their_rates() {
    let mut film = Film::new(true);
    let mut rates = TrackRates::default();
    rates.bps[0] = [50, 80, 100, 0];
    rates.bps[2] = [500, 0, 900, 0];
    let target = |spatial, temporal| Target { spatial, temporal };
    let all = [(target(0, 0), 50), (target(0, 1), 80), (target(0, 2), 100), (target(2, 2), 900)];
    let player = &mut film.scene.player;
    assert_eq!(player.options(0, &rates), all);
    player.set_wish(0, Wish { spatial: Some(1), temporal: Some(1), paused: false });
    assert_eq!(player.options(0, &rates), all[..2]);
    player.set_wish(0, Wish { paused: true, ..Wish::default() });
    assert!(player.options(0, &rates).is_empty());
    assert!(player.options(7, &rates).is_empty());
}

#[test]
fn a_repeat_of_any_layer_is_what_was_sent() {
    for rtx in [true, false] {
        let mut film = Film::new(rtx);
        film.play(4);
        let temporal = Wish { temporal: Some(0), ..Wish::default() };
        film.scene.player.set_wish(0, temporal);
        film.play(8);
        film.wish(0);
        film.play(5);
        film.wish(1);
        film.play(5);
        let all: Vec<u16> = film.since(0).iter().map(|got| got.sequence).collect();
        // The scene compares each with what was sent under its number.
        film.scene.nack(film.now(), &all);
        assert_eq!(film.scene.repeated as usize, all.len());
    }
}

#[test]
fn a_number_kept_for_a_packet_of_a_layer_left_out_is_filled() {
    let mut film = Film::new(true);
    film.wish(0);
    film.play(1);
    film.scene.player.set_wish(0, Wish { spatial: Some(0), temporal: Some(0), paused: false });
    film.play(4);
    let mut packets: Vec<_> = (0..4).flat_map(|_| film.encoders[0].picture()).collect();
    // The second of the period comes last.
    let late = packets.remove(0);
    let before = film.scene.got.len();
    for packet in &packets {
        film.scene.arrive(film.now(), packet);
    }
    film.scene.arrive(film.now(), &late);
    let got = &film.scene.got[before..];
    let last = film.scene.got[before - 1].sequence;
    // Of temporal layer 0 is only the last of the four.
    assert_eq!(got.len(), 2);
    assert_eq!((got[0].sequence, got[0].vp8.expect("full").temporal), (last.wrapping_add(2), 0));
    assert_eq!((got[1].sequence, got[1].vp8), (last.wrapping_add(1), None));
    assert!(!got[1].marker);
}

#[test]
fn rids_route_and_lying_ones_are_counted_drops() {
    let mut scene = Scene::new(true, 1);
    const PAYLOAD: &[u8] = &[0x90, 0xF0, 0x80, 1, 1, 0, 0, 0, 0, 0, 0, 1];
    let packet = |ssrc, sequence, elements: &[(u8, &[u8])]| {
        rtp((96, ssrc, sequence, 1000), elements, PAYLOAD)
    };
    let unknown = |scene: &Scene| scene.counters.get(Id::ForwardDropUnknownTrack);
    // No rid, one that was not offered, one too long.
    for elements in [
        &[(MID, &b"1"[..])][..],
        &[(MID, b"1"), (RID, b"x")],
        &[(MID, b"1"), (RID, b"qqqqqqqqqqqqqqqq")],
        &[(MID, b"2"), (RID, b"q")],
    ] {
        assert!(scene.arrive(at(0), &packet(7, 1, elements)).is_none());
    }
    assert_eq!(unknown(&scene), 4);
    let q: &[(u8, &[u8])] = &[(MID, b"1"), (RID, b"q")];
    let h: &[(u8, &[u8])] = &[(MID, b"1"), (RID, b"h")];
    assert_eq!(scene.arrive(at(1), &packet(7, 1, q)).expect("taken").layer, 0);
    assert_eq!(scene.arrive(at(1), &packet(7, 2, &[])).expect("taken").layer, 0);
    assert_eq!(scene.arrive(at(1), &packet(8, 1, h)).expect("taken").layer, 1);
    // A known SSRC does not become another layer's.
    assert!(scene.arrive(at(2), &packet(7, 3, h)).is_none());
    assert_eq!(unknown(&scene), 5);
    // RTX by its repaired rid.
    let again =
        rtp((97, 9, 1, 1000), &[(MID, b"1"), (REPAIRED, b"h")], &[&[0, 0], PAYLOAD].concat());
    let recovered = scene.arrive(at(3), &again).expect("taken");
    assert_eq!(recovered.layer, 1);
    // SSRCs of one layer are bounded, and do not take another's room.
    for ssrc in 100..200 {
        scene.arrive(at(4), &packet(ssrc, 1, q));
    }
    assert!(unknown(&scene) > 90);
    assert!(scene.arrive(at(4), &packet(900, 1, &[(MID, b"1"), (RID, b"f")])).is_some());
}

#[test]
fn each_layer_is_asked_for_its_own_keyframe_and_repeats() {
    let mut scene = Scene::new(true, 1);
    let mut encoders = [0, 1, 2].map(|layer| Encoder::new(layer, 9));
    for encoder in &mut encoders {
        for packet in encoder.picture() {
            scene.arrive(at(0), &packet);
        }
    }
    let layer = LayerId { track: 0, layer: 1 };
    scene.publisher.request_keyframe(at(0), layer, &mut scene.counters);
    // The second packet of a picture of the largest is lost.
    let mut packets = encoders[2].picture();
    packets.remove(1);
    for packet in &packets {
        scene.arrive(at(10), packet);
    }
    let mut out = [0; 1_200];
    let mut words = Vec::new();
    while let Some(len) = scene.publisher.poll_rtcp(at(25), &mut out, &mut scene.counters) {
        words.extend(words_of(&out[..len]));
    }
    let lost = encoders[2].sequence.wrapping_sub(1);
    assert!(words.contains(&format!("pli {:x}", ssrc_of(1))), "{words:?}");
    assert!(words.contains(&format!("nack {:x} [{lost}]", ssrc_of(2))), "{words:?}");
    let reports = words.iter().filter(|word| word.starts_with("rr ")).count();
    assert_eq!(reports, 3, "{words:?}");
    let pictures = Rtp::parse(&packets[0]).expect("valid").timestamp();
    assert_ne!(pictures, 0);
}
