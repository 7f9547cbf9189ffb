//! Redundant audio (RFC 2198) for players with and without it; H.265 from a keyframe on.

mod forward_kit;

use forward_kit::*;
use veilgate::forward::{Cache, MAX_OVERHEAD, MAX_PAYLOAD, Player};
use veilgate::metrics::{Counters, Id};
use veilgate::wire::media::{Codec, CodecName, MediaKind, TrackSpec};
use veilgate::wire::rtp::Rtp;

const RED: u8 = 63;

fn written(player: &mut Player, rig: &mut Rig, packet: &[u8]) -> Option<Vec<u8>> {
    let media = rig.rtp(at(0), packet)?;
    let payload = &packet[media.payload.clone()];
    let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
    let mut counters = Counters::default();
    let len = player.write_rtp(at(0), &media, payload, &mut slot, &mut counters)?;
    // Again from the cache: the same bytes.
    let mut cache = Cache::new(MediaKind::Audio);
    cache.store(&media, payload);
    let (head, payload) = cache.load(0, media.sequence).expect("stored");
    let mut again = [0; MAX_PAYLOAD + MAX_OVERHEAD];
    let repeat = player.write_retransmission(at(0), &head, payload, &mut again, &mut counters);
    assert_eq!(again[..repeat.expect("repeated")], slot[..len]);
    Some(slot[..len].to_vec())
}

#[test]
fn redundant_audio_goes_to_who_takes_it_and_its_primary_block_to_the_rest() {
    let stream = stream_of(vec![TrackSpec { red_pt: Some(RED), ..audio_spec() }]);
    let mut rig = Rig::new(&stream);
    let mut spec = play(&stream, &[0], false);
    let mut without = Player::new(spec.clone(), rng(1), at(0));
    spec.tracks[0].red_pt = Some(77);
    let mut with = Player::new(spec, rng(1), at(0));

    // One older block of three bytes; Opus is 111 at the publisher and 100 at the players.
    let red = [0x80 | 111, 0x0F, 0x00, 0x03, 111, 1, 2, 3, 9, 9];
    let packet = rtp((RED, AUDIO_SSRC, 1, 1000), &[(LEVEL, &[0x85])], &red);
    let got = written(&mut with, &mut rig, &packet).expect("written");
    let rtp_of = |bytes: &[u8]| {
        let rtp = Rtp::parse(bytes).expect("valid");
        (rtp.payload_type(), rtp.payload().to_vec())
    };
    assert_eq!(rtp_of(&got), (77, vec![0x80 | 100, 0x0F, 0x00, 0x03, 100, 1, 2, 3, 9, 9]));
    let packet = rtp((RED, AUDIO_SSRC, 2, 1960), &[], &red);
    let got = written(&mut without, &mut rig, &packet).expect("written");
    assert_eq!(rtp_of(&got), (100, vec![9, 9]));
    // The plain form, in between.
    let packet = rtp((111, AUDIO_SSRC, 3, 2920), &[], &[7]);
    let got = written(&mut with, &mut rig, &packet).expect("written");
    assert_eq!(rtp_of(&got), (100, vec![7]));
    // Block lengths that lie.
    let lie = [0x80 | 111, 0x0F, 0x03, 0xFF, 111, 1, 2, 3, 9, 9];
    let packet = rtp((RED, AUDIO_SSRC, 4, 3880), &[], &lie);
    assert!(written(&mut with, &mut rig, &packet).is_none());
    assert_eq!(rig.counters.get(Id::ForwardDropMalformed), 1);
}

#[test]
fn h265_starts_with_a_random_access_picture() {
    let codec = Codec { name: CodecName::H265, fmtp: Vec::new() };
    let stream = stream_of(vec![audio_spec(), TrackSpec { codec, ..video_spec() }]);
    let mut rig = Rig::new(&stream);
    let mut player = Player::new(play(&stream, &[VIDEO], false), rng(1), at(0));
    let (trailing, parameters, picture) = ([0x02, 1, 9], [0x40, 1, 9], [0x26, 1, 9]);
    assert!(written(&mut player, &mut rig, &video(1, &trailing)).is_none());
    for (sequence, payload) in [(2, parameters), (3, picture), (4, trailing)] {
        let got = written(&mut player, &mut rig, &video(sequence, &payload)).expect("written");
        assert_eq!(Rtp::parse(&got).expect("valid").payload(), payload);
    }
}
