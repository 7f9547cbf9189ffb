//! Hostile bytes in any order: counted drops, never a panic, never more memory.

mod forward_kit;

use forward_kit::*;
use proptest::prelude::*;
use veilgate::forward::{Cache, MAX_OVERHEAD, MAX_PAYLOAD, Player, Wants};
use veilgate::metrics::{Counters, Id};
use veilgate::time::{Mono, Now, Unix};
use veilgate::wire::media::{CodecName, MediaKind};

#[derive(Clone, Debug)]
enum Input {
    Bytes(Vec<u8>),
    Media { pt: u8, ssrc: u8, sequence: u16, head: u8, extension: Vec<u8>, payload: Vec<u8> },
    Rtcp(Vec<u8>),
    Feedback { count: u8, kind: u8, ssrc: u8, body: Vec<u8> },
    Wait(u32),
    Keyframe(u8),
}

fn bytes(most: usize) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..most)
}

fn input() -> impl Strategy<Value = Input> {
    let pt = prop::sample::select(vec![96u8, 97, 111, 98, 96 | 0x80]);
    prop_oneof![
        bytes(80).prop_map(Input::Bytes),
        (pt, 0u8..12, any::<u16>(), any::<u8>(), bytes(40), bytes(60)).prop_map(
            |(pt, ssrc, sequence, head, extension, payload)| Input::Media {
                pt,
                ssrc,
                sequence,
                head,
                extension,
                payload,
            }
        ),
        bytes(80).prop_map(Input::Rtcp),
        (0u8..32, 200u8..208, 0u8..4, bytes(60))
            .prop_map(|(count, kind, ssrc, body)| Input::Feedback { count, kind, ssrc, body }),
        any::<u32>().prop_map(Input::Wait),
        any::<u8>().prop_map(Input::Keyframe),
    ]
}

fn ssrc_of(choice: u8) -> u32 {
    match choice {
        0 => VIDEO_SSRC,
        1 => RTX_SSRC,
        2 => AUDIO_SSRC,
        3 => 0x1001,
        other => u32::from(other),
    }
}

struct Victim {
    now: Now,
    rig: Rig,
    cache: Cache,
    player: Player,
    wants: Wants,
}

impl Victim {
    fn new(codec: CodecName) -> Self {
        let mut spec = video_spec();
        spec.codec.name = codec;
        let stream = stream_of(vec![audio_spec(), spec]);
        Self {
            now: at(0),
            rig: Rig::new(&stream),
            cache: Cache::new(MediaKind::Video),
            player: Player::new(play(&stream, &[AUDIO, VIDEO], true), rng(3), at(0)),
            wants: Wants::default(),
        }
    }

    fn media(&mut self, packet: &[u8]) {
        let Some(media) = self.rig.rtp(self.now, packet) else { return };
        let payload = &packet[media.payload.clone()];
        let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
        self.cache.store(&media, payload);
        let counters = &mut self.rig.counters;
        self.player.write_rtp(self.now, &media, payload, &mut slot, counters);
    }

    fn rtcp(&mut self, compound: &[u8]) {
        let counters = &mut self.rig.counters;
        self.rig.publisher.on_rtcp(self.now, compound, counters);
        self.wants.clear();
        self.player.on_rtcp(self.now, compound, &mut self.wants, counters);
        assert!(self.wants.nacks.len() <= 512 && self.wants.keyframes.len() <= 2);
        let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
        for (layer, sequence) in &self.wants.nacks {
            if let Some((head, payload)) = self.cache.load(layer.layer, *sequence) {
                let (player, counters) = (&mut self.player, &mut self.rig.counters);
                player.write_retransmission(self.now, &head, payload, &mut slot, counters);
            }
        }
    }

    fn take(&mut self, input: &Input) {
        match input {
            Input::Bytes(bytes) => self.media(bytes),
            Input::Media { pt, ssrc, sequence, head, extension, payload } => {
                let mut packet = vec![0x80 | (head & 0x3F), *pt];
                packet.extend(sequence.to_be_bytes());
                packet.extend([1, 2, 3, 4]);
                packet.extend(ssrc_of(*ssrc).to_be_bytes());
                packet.extend(vec![9; 4 * usize::from(head & 0x0F)]);
                if head & 0x10 != 0 {
                    let profile: [u8; 2] = if head & 1 == 0 { [0xBE, 0xDE] } else { [0x10, 0] };
                    packet.extend(profile);
                    packet.extend([0, (extension.len() / 4) as u8]);
                }
                packet.extend(extension);
                packet.extend(payload);
                self.media(&packet);
            }
            Input::Rtcp(bytes) => self.rtcp(bytes),
            Input::Feedback { count, kind, ssrc, body } => {
                let mut compound = vec![0x80 | count, *kind, 0, (body.len() / 4 + 2) as u8];
                compound.extend(ssrc_of(*ssrc).to_be_bytes());
                compound.extend(ssrc_of(*ssrc).to_be_bytes());
                compound.extend(&body[..body.len() / 4 * 4]);
                self.rtcp(&compound);
            }
            Input::Wait(micros) => {
                self.now = self.now.advanced(std::time::Duration::from_micros((*micros).into()));
            }
            Input::Keyframe(track) => {
                let counters = &mut self.rig.counters;
                self.rig.publisher.request_keyframe(self.now, plain(*track), counters);
            }
        }
        self.rig.rtcp(self.now);
        let clocks = [self.rig.publisher.clock(AUDIO), self.rig.publisher.clock(VIDEO)];
        let mut out = [0; 1200];
        while let Some(len) = self.player.poll_rtcp(self.now, &clocks, &mut out) {
            assert!(!words_of(&out[..len]).is_empty());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_input_in_any_order_panics(inputs in prop::collection::vec(input(), 1..80), codec in 0..4) {
        let codecs = [CodecName::Vp8, CodecName::Vp9, CodecName::H264, CodecName::Av1];
        let mut victim = Victim::new(codecs[codec as usize]);
        for input in &inputs {
            victim.take(input);
        }
        prop_assert!(victim.cache.memory() <= 512 * MAX_PAYLOAD);
    }

    #[test]
    fn no_output_buffer_is_too_small_to_be_safe(room in 0usize..200) {
        let mut rig = Rig::new(&stream());
        rig.rtp(at(0), &video(1, KEY)).expect("taken");
        rig.rtp(at(0), &video(200, DELTA)).expect("taken");
        rig.publisher.request_keyframe(at(0), plain(VIDEO), &mut rig.counters);
        let mut out = vec![0; room];
        let mut calls = 0;
        while rig.publisher.poll_rtcp(at(50), &mut out, &mut rig.counters).is_some() {
            calls += 1;
            prop_assert!(calls < 300);
        }
    }
}

#[test]
fn the_ends_of_time_are_borne() {
    let ends = [
        Now { mono: Mono::ZERO, unix: Unix::from_micros(0) },
        Now { mono: Mono::from_nanos(u64::MAX / 2), unix: Unix::from_micros(u64::MAX) },
        Now { mono: Mono::ZERO, unix: Unix::from_micros(u64::MAX / 2) },
    ];
    let mut victim = Victim::new(CodecName::Vp8);
    for (sequence, now) in (0u16..).zip(ends.into_iter().cycle().take(30)) {
        victim.now = now;
        for payload in [KEY, DELTA] {
            victim.media(&video(3 * sequence, payload));
            let pt = if sequence % 3 == 0 { 111 } else { 96 };
            victim.media(&rtp((pt, u32::from(sequence), sequence, u32::MAX), &[], payload));
        }
        for ntp in [0, 1, u64::MAX] {
            victim.take(&Input::Rtcp(sender_report(VIDEO_SSRC, ntp, u32::MAX)));
        }
    }
}

#[test]
fn garbage_is_counted() {
    let mut victim = Victim::new(CodecName::Vp8);
    for length in 0..12 {
        victim.media(&vec![0x80; length]);
    }
    assert_eq!(victim.rig.counters.get(Id::ForwardDropMalformed), 12);
    let mut counters = Counters::default();
    victim.player.on_rtcp(at(0), &[0x80; 7], &mut victim.wants, &mut counters);
    assert_eq!(counters.get(Id::ForwardRtcpMalformed), 1);
}
