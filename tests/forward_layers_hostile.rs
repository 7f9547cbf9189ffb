//! A publisher of layers that sends anything at all, and a player that wishes anything.

mod forward_kit;
#[path = "forward_kit/layered.rs"]
mod layered;

use forward_kit::*;
use layered::*;
use proptest::prelude::*;
use veilgate::forward::{
    Cache, MAX_OVERHEAD, MAX_PAYLOAD, Player, Publisher, RateMeter, Target, Wants, Wish,
};
use veilgate::metrics::Counters;
use veilgate::wire::media::{Codec, CodecName, MediaKind, TrackSpec};

#[derive(Clone, Debug)]
enum Step {
    Packet { pt: u8, ssrc: u8, rid: u8, sequence: u16, timestamp: u32, payload: Vec<u8> },
    Wish(Wish),
    Target(Option<(u8, u8)>),
    Report { ssrc: u8, ntp: u64, rtp: u32 },
    Nack(u16),
    Time(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let small = || prop::option::of(any::<u8>());
    prop_oneof![
        12 => (
            prop_oneof![8 => Just(96), 2 => Just(97), 1 => any::<u8>()],
            0..6u8,
            0..5u8,
            prop_oneof![4 => 0..40u16, 1 => any::<u16>()],
            any::<u32>(),
            prop::collection::vec(any::<u8>(), 0..14),
        )
            .prop_map(|(pt, ssrc, rid, sequence, timestamp, payload)| Step::Packet {
                pt: pt & 0x7F, ssrc, rid, sequence, timestamp, payload
            }),
        1 => (any::<bool>(), small(), small())
            .prop_map(|(paused, spatial, temporal)| Step::Wish(Wish { paused, spatial, temporal })),
        1 => prop::option::of(any::<(u8, u8)>()).prop_map(Step::Target),
        1 => (0..6u8, any::<u64>(), any::<u32>())
            .prop_map(|(ssrc, ntp, rtp)| Step::Report { ssrc, ntp, rtp }),
        2 => any::<u16>().prop_map(Step::Nack),
        1 => any::<u16>().prop_map(Step::Time),
    ]
}

proptest! {
    #[test]
    fn nothing_a_publisher_sends_panics_or_changes_what_was_sent(
        codec in prop::sample::select(vec![CodecName::Vp8, CodecName::Vp9, CodecName::H264]),
        steps in prop::collection::vec(step(), 1..300),
    ) {
        let codec = Codec { name: codec, fmtp: Vec::new() };
        let stream = stream_of(vec![TrackSpec { codec, ..layered_spec() }]);
        let mut meter = RateMeter::new(&stream.tracks[0]);
        let mut publisher = Publisher::new(stream.clone(), rng(1), at(0));
        let mut player = Player::new(play(&stream, &[0], false), rng(2), at(0));
        let mut cache = Cache::new(MediaKind::Video);
        let mut counters = Counters::default();
        let mut wants = Wants::default();
        let mut time = 0;
        let mut sent = std::collections::BTreeMap::new();
        let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
        for step in steps {
            time += 3;
            let now = at(time);
            match step {
                Step::Packet { pt, ssrc, rid, sequence, timestamp, payload } => {
                    let rid = [&b"q"[..], b"h", b"f", b"x", b"toolong"][usize::from(rid)];
                    let elements: [(u8, &[u8]); 3] = [(MID, b"1"), (RID, rid), (REPAIRED, rid)];
                    let numbers = (pt, u32::from(ssrc), sequence, timestamp);
                    let packet = rtp(numbers, &elements, &payload);
                    let Some(media) = publisher.on_rtp(now, &packet, &mut counters) else { continue };
                    let payload = &packet[media.payload.clone()];
                    cache.store(&media, payload);
                    meter.add(now.mono, &media, payload.len());
                    let len = player.write_rtp(now, &media, payload, &mut slot, &mut counters);
                    if let Some(len) = len {
                        let number = u16::from_be_bytes([slot[2], slot[3]]);
                        let before = sent.insert(number, slot[..len].to_vec());
                        prop_assert!(before.is_none_or(|before| before == slot[..len]));
                    }
                }
                Step::Wish(wish) => player.set_wish(0, wish),
                Step::Target(target) => player.set_target(
                    0,
                    target.map(|(spatial, temporal)| Target { spatial, temporal }),
                ),
                Step::Report { ssrc, ntp, rtp } => {
                    let report = sender_report(u32::from(ssrc), ntp, rtp);
                    publisher.on_rtcp(now, &report, &mut counters);
                }
                Step::Nack(number) => {
                    let near = sent.keys().next().copied().unwrap_or(number);
                    let mut out = [0; 100];
                    let mut writer = veilgate::wire::rtcp::Writer::new(&mut out);
                    writer.nack(1, 0x1000, [number, near]);
                    let len = writer.len();
                    wants.clear();
                    player.on_rtcp(now, &out[..len], &mut wants, &mut counters);
                    for (layer, sequence) in &wants.nacks {
                        let Some((head, payload)) = cache.load(layer.layer, *sequence) else { continue };
                        let len = player
                            .write_retransmission(now, &head, payload, &mut slot, &mut counters);
                        if let Some(len) = len {
                            let number = u16::from_be_bytes([slot[2], slot[3]]);
                            let before = sent.insert(number, slot[..len].to_vec());
                            prop_assert!(before.is_none_or(|before| before == slot[..len]));
                        }
                    }
                }
                Step::Time(millis) => time += u64::from(millis),
            }
            for layer in player.wants_keyframe().collect::<Vec<_>>() {
                prop_assert!(layer.layer < 3);
                publisher.request_keyframe(now, layer, &mut counters);
            }
            let mut out = [0; 1_200];
            while publisher.poll_rtcp(now, &mut out, &mut counters).is_some() {}
            let clocks = [publisher.clock(0)];
            while player.poll_rtcp(now, &clocks, &mut out).is_some() {}
            prop_assert!(player.options(0, &meter.rates(now.mono)).len() <= 16);
        }
    }
}
