//! What a publisher sends becomes packets of tracks, reports, NACKs and PLIs: scripts.

mod forward_kit;

use forward_kit::*;
use veilgate::forward::MAX_PAYLOAD;
use veilgate::metrics::Id;
use veilgate::time::Unix;
use veilgate::wire::media::CodecName;
use veilgate::wire::media::TrackSpec;
use veilgate::wire::rtp::Rtp;

#[test]
fn tracks_are_found_by_ssrc_then_mid_then_payload_type() {
    let mut rig = Rig::new(&stream());
    let track = |rig: &mut Rig, packet: &[u8]| rig.rtp(at(0), packet).map(|p| p.track);
    assert_eq!(track(&mut rig, &rtp((96, VIDEO_SSRC, 1, 0), &[], KEY)), Some(VIDEO));
    assert_eq!(track(&mut rig, &rtp((111, AUDIO_SSRC, 1, 0), &[], b"x")), Some(AUDIO));

    let mut two = video_spec();
    two.mid = "2".into();
    two.ssrc = None;
    two.rtx_ssrc = None;
    let mut one = two.clone();
    one.mid = "1".into();
    let mut rig = Rig::new(&stream_of(vec![audio_spec(), one, two]));
    // Two tracks have this payload type: without a mid it says nothing.
    assert_eq!(track(&mut rig, &rtp((96, 7, 1, 0), &[], KEY)), None);
    assert_eq!(track(&mut rig, &rtp((96, 7, 1, 0), &[(MID, b"2")], KEY)), Some(2));
    // Learned: the mid may be left out from now on.
    assert_eq!(track(&mut rig, &rtp((96, 7, 2, 0), &[], KEY)), Some(2));
    assert_eq!(track(&mut rig, &rtp((96, 8, 2, 0), &[(MID, b"9")], KEY)), None);
    // Only one track has this one.
    assert_eq!(track(&mut rig, &rtp((111, 9, 1, 0), &[], b"x")), Some(0));
    // Never negotiated, also not on a known SSRC.
    assert_eq!(track(&mut rig, &rtp((98, 7, 3, 0), &[(MID, b"2")], KEY)), None);
    assert_eq!(rig.counters.get(Id::ForwardDropUnknownTrack), 3);
    assert_eq!(rig.counters.get(Id::ForwardReceived), 3);
}

#[test]
fn extension_values_pass_and_nothing_else_does() {
    let mut rig = Rig::new(&stream());
    let elements: &[(u8, &[u8])] = &[(ORIENTATION, &[1]), (DELAY, &[1, 2, 3]), (7, b"secret")];
    let packet = rtp((96, VIDEO_SSRC, 1, 0), elements, KEY);
    let media = rig.rtp(at(0), &packet).expect("taken");
    assert_eq!(media.meta.orientation, Some(1));
    assert_eq!(media.meta.playout_delay, Some([1, 2, 3]));
    assert_eq!(media.meta.audio_level, None);
    assert_eq!(&packet[media.payload], KEY);
    let packet = rtp((111, AUDIO_SSRC, 1, 0), &[(LEVEL, &[0x85])], b"x");
    assert_eq!(rig.rtp(at(0), &packet).expect("taken").meta.audio_level, Some(0x85));
}

#[test]
fn first_packet_brings_report_and_remb_at_once_and_then_each_second() {
    let mut rig = Rig::new(&stream());
    assert_eq!(rig.publisher.poll_timeout(), None);
    rig.rtp(at(0), &video(10, KEY)).expect("taken");
    let block = "rr c0de0000 lost 0/256 0 highest 10 lsr 0 dlsr 0";
    let remb = "remb 3000000 [c0de0000]";
    assert_eq!(rig.rtcp(at(0)), [block, remb]);
    assert_eq!(rig.publisher.poll_timeout().map(millis), Some(1000));
    assert!(rig.rtcp(at(999)).is_empty());
    let ntp = 0xAAAA_1234_5678_BBBB;
    rig.publisher.on_rtcp(at(750), &sender_report(VIDEO_SSRC, ntp, 5), &mut rig.counters);
    rig.rtp(at(800), &video(11, DELTA)).expect("taken");
    rig.rtp(at(800), &video(14, DELTA)).expect("taken");
    let words = rig.rtcp(at(1000));
    let block = "rr c0de0000 lost 128/256 2 highest 14 lsr 12345678 dlsr 16384";
    assert_eq!(words, [block, remb, "nack c0de0000 [12, 13]"]);
}

#[test]
fn lost_packets_are_asked_for_recovered_by_rtx_and_given_up() {
    let mut rig = Rig::new(&stream());
    let first = rig.rtp(at(0), &video(65534, KEY)).expect("taken").sequence;
    rig.rtcp(at(0));
    assert_eq!(rig.rtp(at(1), &video(1, MORE)).expect("taken").sequence, first + 3);
    // Within the tolerance for reordering nothing is asked.
    assert!(rig.rtcp(at(5)).is_empty());
    assert_eq!(rig.publisher.poll_timeout().map(millis), Some(11));
    assert_eq!(rig.rtcp(at(11)), ["nack c0de0000 [65535, 0]"]);
    let packet = rtx(500, 65535, MORE);
    let recovered = rig.rtp(at(30), &packet).expect("taken");
    assert_eq!((recovered.track, recovered.sequence), (VIDEO, first + 1));
    assert_eq!(&packet[recovered.payload], MORE);
    assert!(rig.rtp(at(30), &rtx(501, 65535, MORE)).is_none());
    assert_eq!(rig.rtcp(at(51)), ["nack c0de0000 [0]"]);
    let mut words = Vec::new();
    while let Some(due) = rig.publisher.poll_timeout().map(millis).filter(|due| *due < 1000) {
        words.extend(rig.rtcp(at(due)));
    }
    assert_eq!(words, vec!["nack c0de0000 [0]"; 6]);
    rig.rtcp(at(1000));
    // Given up: a keyframe repairs it.
    assert_eq!(rig.rtcp(at(1001)), ["pli c0de0000"]);
    assert_eq!(rig.counters.get(Id::ForwardLost), 1);
    assert_eq!(rig.counters.get(Id::ForwardRecovered), 1);
    assert_eq!(rig.counters.get(Id::ForwardDropDuplicate), 1);
    assert_eq!(rig.counters.get(Id::ForwardNackSent), 9);
}

#[test]
fn reordered_packets_are_neither_asked_for_nor_lost() {
    let mut rig = Rig::new(&stream());
    for sequence in [1, 3, 2, 6, 4, 5] {
        assert!(rig.rtp(at(0), &video(sequence, KEY)).is_some());
    }
    assert!(rig.rtp(at(0), &video(4, KEY)).is_none());
    assert_eq!(rig.rtcp(at(100)).len(), 2);
    assert_eq!(rig.counters.get(Id::ForwardDropDuplicate), 1);
    assert_eq!(rig.counters.get(Id::ForwardNackSent), 0);
}

#[test]
fn transport_wide_feedback_takes_the_place_of_remb_and_covers_all_sources() {
    let numbered = |mut spec: TrackSpec| {
        spec.extensions.transport_cc = Some(TRANSPORT_CC);
        spec
    };
    let mut rig = Rig::new(&stream_of(vec![numbered(audio_spec()), numbered(video_spec())]));
    let send = |rig: &mut Rig, time, number: u16, numbers, payload: &[u8]| {
        let packet = rtp(numbers, &[(TRANSPORT_CC, &number.to_be_bytes())], payload);
        rig.rtp(at(time), &packet);
    };
    send(&mut rig, 0, 7, (96, VIDEO_SSRC, 1, 1000), KEY);
    let words = rig.rtcp(at(0));
    assert!(!words.iter().any(|word| word.starts_with("remb")), "{words:?}");
    send(&mut rig, 10, 8, (111, AUDIO_SSRC, 1, 1000), b"sound");
    // A probe without payload is one of the transport's packets too.
    send(&mut rig, 30, 10, (97, RTX_SSRC, 1, 1000), &[]);
    assert_eq!(rig.publisher.poll_timeout(), Some(at(50).mono));
    // 5 s are 78 units of the reference time and 8 ms.
    let told = "twcc c0de0001 7@Some(8000) 8@Some(18000) 9@None 10@Some(38000)";
    assert_eq!(rig.rtcp(at(50)), [told]);
    assert_eq!(rig.counters.get(Id::ForwardFeedbackSent), 1);
}

#[test]
fn keyframe_requests_of_many_players_become_one_and_repeat_until_one_comes() {
    let mut rig = Rig::new(&stream());
    rig.rtp(at(0), &video(1, DELTA)).expect("taken");
    rig.rtcp(at(0));
    let mut script = Vec::new();
    let mut sequence = 1;
    for time in (10..2000).step_by(10) {
        if time == 10 || time == 20 || time == 30 {
            rig.publisher.request_keyframe(at(time), plain(VIDEO), &mut rig.counters);
        }
        sequence += 1;
        let payload = if time == 1400 { KEY } else { DELTA };
        rig.rtp(at(time), &video(sequence, payload)).expect("taken");
        let words = rig.rtcp(at(time));
        script.extend(words.into_iter().filter(|w| w.starts_with("pli")).map(|w| (time, w)));
    }
    let pli = || "pli c0de0000".to_owned();
    assert_eq!(script, [(10, pli()), (510, pli()), (1010, pli())]);
    assert_eq!(rig.counters.get(Id::ForwardKeyframeSent), 3);
    // Audio has none, a track that does not exist neither.
    rig.publisher.request_keyframe(at(2000), plain(AUDIO), &mut rig.counters);
    rig.publisher.request_keyframe(at(2000), plain(9), &mut rig.counters);
    assert!(rig.rtcp(at(2500)).iter().all(|word| !word.starts_with("pli")));
}

#[test]
fn a_silent_track_is_asked_five_times_and_again_when_it_speaks() {
    let mut rig = Rig::new(&stream());
    rig.publisher.request_keyframe(at(0), plain(VIDEO), &mut rig.counters);
    let mut times = Vec::new();
    while let Some(due) = rig.publisher.poll_timeout() {
        let due = at(millis(due.max(at(0).mono)));
        assert_eq!(rig.rtcp(due), ["pli c0de0000"]);
        times.push(millis(due.mono));
    }
    assert_eq!(times, [0, 2000, 4000, 6000, 8000]);
    rig.rtp(at(20_000), &video(1, DELTA)).expect("taken");
    assert!(rig.rtcp(at(20_000)).contains(&"pli c0de0000".to_owned()));
}

#[test]
fn a_burst_of_loss_is_given_up_for_a_keyframe() {
    let mut rig = Rig::new(&stream());
    rig.rtp(at(0), &video(1, KEY)).expect("taken");
    rig.rtcp(at(0));
    rig.rtp(at(1), &video(1001, DELTA)).expect("taken");
    assert_eq!(rig.rtcp(at(1)), ["pli c0de0000"]);
    assert_eq!(rig.counters.get(Id::ForwardLost), 999);
}

#[test]
fn a_restarted_counter_goes_on_behind_the_old_one() {
    let mut rig = Rig::new(&stream());
    let last = rig.rtp(at(0), &video(1000, KEY)).expect("taken").sequence;
    // One packet from far away proves nothing (RFC 3550 A.1).
    assert!(rig.rtp(at(1), &video(40_000, KEY)).is_none());
    assert_eq!(rig.rtp(at(2), &video(1001, DELTA)).expect("taken").sequence, last + 1);
    assert!(rig.rtp(at(3), &video(50_000, KEY)).is_none());
    // A hole of one, so that no decoder takes what follows for a continuation.
    assert_eq!(rig.rtp(at(3), &video(50_001, KEY)).expect("taken").sequence, last + 3);
    assert!(rig.rtp(at(3), &video(50_000, KEY)).is_none());
    assert_eq!(rig.rtp(at(4), &video(50_002, DELTA)).expect("taken").sequence, last + 4);
}

#[test]
fn a_new_ssrc_continues_sequence_and_timeline() {
    let mut rig = Rig::new(&stream());
    let packet = rtp((96, VIDEO_SSRC, 9, 90_000), &[], KEY);
    let last = rig.rtp(at(0), &packet).expect("taken");
    let other = |sequence, timestamp, payload: &[u8]| {
        rtp((96, 0x77, sequence, timestamp), &[(MID, b"1")], payload)
    };
    let next = rig.rtp(at(100), &other(60_000, 0x8000_0000, KEY)).expect("taken");
    assert_eq!((next.sequence, next.timestamp), (last.sequence + 2, 90_000 + 9_000));
    let next = rig.rtp(at(133), &other(60_001, 0x8000_0000 + 3_000, MORE)).expect("taken");
    assert_eq!((next.sequence, next.timestamp), (last.sequence + 3, 90_000 + 12_000));
    // A straggler of the old SSRC takes no number of the new one.
    assert!(rig.rtp(at(134), &rtp((96, VIDEO_SSRC, 10, 90_100), &[], MORE)).is_none());
    assert_eq!(rig.rtcp(at(134))[0], "rr 77 lost 0/256 0 highest 60001 lsr 0 dlsr 0");
}

#[test]
fn a_flood_of_ssrcs_is_bounded_and_leaves_room_later() {
    let mut rig = Rig::new(&stream());
    let packet = |ssrc| rtp((96, ssrc, 1, 0), &[(MID, b"1")], KEY);
    let taken = (1..=1000).filter(|ssrc| rig.rtp(at(0), &packet(*ssrc)).is_some()).count();
    // Six for a track, two of them announced.
    assert_eq!(taken, 4);
    assert_eq!(rig.counters.get(Id::ForwardDropUnknownTrack), 996);
    assert!(rig.rtp(at(6000), &packet(5000)).is_some());
}

#[test]
fn tracks_of_one_publisher_share_one_clock_offset() {
    let mut rig = Rig::new(&stream());
    rig.rtp(at(0), &rtp((111, AUDIO_SSRC, 1, 480), &[], b"x")).expect("taken");
    rig.rtp(at(0), &video(1, KEY)).expect("taken");
    assert_eq!(rig.publisher.clock(VIDEO), None);
    // The publisher's clock is 100 s ahead; the audio report took 20 ms, the video report 70 ms.
    let ntp = |millis: u64| at(100_000 + millis).unix.as_ntp();
    let counters = &mut rig.counters;
    rig.publisher.on_rtcp(at(1020), &sender_report(AUDIO_SSRC, ntp(1000), 48_480), counters);
    rig.publisher.on_rtcp(at(1170), &sender_report(VIDEO_SSRC, ntp(1100), 9_000), counters);
    let audio = rig.publisher.clock(AUDIO).expect("known");
    let video = rig.publisher.clock(VIDEO).expect("known");
    assert_eq!((audio.rtp, audio.unix), (48_480, at(1020).unix));
    assert_eq!((video.rtp, video.unix), (9_000, at(1120).unix));
    assert_eq!(audio.rtp_at(at(2020).unix, 48_000), 96_480);
    // A sender without a clock says zero, and is not believed.
    rig.publisher.on_rtcp(at(1200), &sender_report(VIDEO_SSRC, 0, 1), &mut rig.counters);
    assert_eq!(rig.publisher.clock(VIDEO), Some(video));
    assert_ne!(video.unix, Unix::from_micros(0));
}

#[test]
fn rtx_padding_and_rtx_before_media_are_dropped() {
    let mut rig = Rig::new(&stream());
    assert!(rig.rtp(at(0), &rtx(1, 7, MORE)).is_none());
    rig.rtp(at(0), &video(7, KEY)).expect("taken");
    assert!(rig.rtp(at(0), &rtp((97, RTX_SSRC, 2, 0), &[], &[])).is_none());
    assert!(rig.rtp(at(0), &rtp((97, RTX_SSRC, 2, 0), &[], &[0])).is_none());
    // From far away.
    assert!(rig.rtp(at(0), &rtx(3, 7 + 2000, MORE)).is_none());
    // The tail of what was sent.
    assert!(rig.rtp(at(0), &rtx(4, 9, MORE)).is_some());
    assert_eq!(rig.counters.get(Id::ForwardReceived), 2);
}

#[test]
fn too_large_and_malformed_packets_are_counted() {
    let mut rig = Rig::new(&stream());
    assert!(rig.rtp(at(0), &video(1, &[0x10; MAX_PAYLOAD])).is_some());
    assert!(rig.rtp(at(0), &video(2, &[0x10; MAX_PAYLOAD + 1])).is_none());
    assert_eq!(rig.counters.get(Id::ForwardDropTooLarge), 1);
    for packet in [&[][..], &[0x80; 11], &[0x9F; 40], &[0x40; 40], &[0x90; 16]] {
        assert!(rig.rtp(at(0), packet).is_none());
    }
    assert_eq!(rig.counters.get(Id::ForwardDropMalformed), 5);
    rig.publisher.on_rtcp(at(0), &[0x80, 200, 0, 9], &mut rig.counters);
    assert_eq!(rig.counters.get(Id::ForwardRtcpMalformed), 1);
}

#[test]
fn keyframes_of_each_codec_are_marked() {
    for (codec, key, delta) in [
        (CodecName::Vp8, KEY, DELTA),
        (CodecName::Vp9, &[0x88, 0x01][..], &[0xC8, 0x01][..]),
        (CodecName::H264, &[0x7C, 0x85][..], &[0x7C, 0x81][..]),
        (CodecName::Av1, &[0x18][..], &[0x10][..]),
    ] {
        let mut spec = video_spec();
        spec.codec.name = codec;
        let mut rig = Rig::new(&stream_of(vec![audio_spec(), spec]));
        assert!(rig.rtp(at(0), &video(1, key)).expect("taken").keyframe, "{codec:?}");
        assert!(!rig.rtp(at(0), &video(2, delta)).expect("taken").keyframe, "{codec:?}");
    }
}

#[test]
fn padding_is_taken_off_and_an_empty_packet_keeps_its_number() {
    let mut rig = Rig::new(&stream());
    let first = rig.rtp(at(0), &video(1, KEY)).expect("taken").sequence;
    let mut packet = video(2, &[0, 0, 0, 4]);
    packet[0] |= 0x20;
    assert_eq!(Rtp::parse(&packet).map(|rtp| rtp.payload().len()), Ok(0));
    let padded = rig.rtp(at(0), &packet).expect("taken");
    assert_eq!((padded.sequence, padded.payload.len()), (first + 1, 0));
}
