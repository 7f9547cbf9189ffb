use std::collections::BTreeMap;
use std::io::Cursor;

use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::ids::StreamId;
use crate::wire::sdp::{MAX_SDP, MAX_SECTIONS};

const FINGERPRINT: &str = "sha-256 00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF:\
                           00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF";

fn offers() -> BTreeMap<String, String> {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/sdp");
    let files = std::fs::read_dir(dir).expect("test data");
    files
        .map(|file| {
            let path = file.expect("test data").path();
            let name = path.file_stem().expect("a file").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).expect("text"))
        })
        .collect()
}

fn offer(name: &str) -> Offer {
    Offer::parse(&offers()[name]).expect("a real offer parses")
}

fn rng() -> StdRng {
    StdRng::seed_from_u64(7)
}

fn stream(tracks: Vec<TrackSpec>) -> Arc<StreamSpec> {
    let name = "lobby/cam1".parse().expect("valid");
    Arc::new(StreamSpec { id: StreamId(1), name, tracks })
}

/// A stream as Chromium publishes it: Opus and VP8.
fn chromium() -> Arc<StreamSpec> {
    stream(publish(&offer("chromium156-sendonly")).expect("agreed").0)
}

fn video(name: CodecName, fmtp: &[(&str, &str)]) -> Arc<StreamSpec> {
    let fmtp = fmtp.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    stream(vec![TrackSpec {
        kind: MediaKind::Video,
        mid: "0".to_owned(),
        codec: Codec { name, fmtp },
        pt: 96,
        rtx_pt: None,
        red_pt: None,
        ssrc: None,
        rtx_ssrc: None,
        nack: true,
        pli: true,
        remb: true,
        extensions: Extensions::default(),
        rids: Vec::new(),
    }])
}

fn write(plan: &AnswerPlan) -> String {
    let media = ["203.0.113.9:20000".parse().expect("valid")];
    plan.answer_sdp("ourfragment", "ourpasswordourpassword", FINGERPRINT, &media)
}

/// Every answer that the real offers lead to, with the offer and the label.
fn answers() -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    for (name, text) in offers() {
        let offer = Offer::parse(&text).expect("a real offer parses");
        if let Ok((_, plan)) = publish(&offer) {
            all.push((format!("{name} publishes"), text.clone(), write(&plan)));
        }
        if let Ok((_, plan)) = play(&offer, &chromium(), &mut rng()) {
            all.push((format!("{name} plays"), text, write(&plan)));
        }
    }
    assert!(all.len() > 12, "{}", all.len());
    all
}

#[test]
fn every_real_offer_is_agreed_to_or_refused_for_the_right_reason() {
    for (name, text) in offers() {
        let offer = Offer::parse(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        let published = publish(&offer);
        let played = play(&offer, &chromium(), &mut rng());
        if name.contains("datachannel") && !name.contains("only") {
            assert!(matches!(published, Err(Refusal::NoCodec(_))), "{name}");
            assert!(matches!(played, Err(Refusal::NoCodec(_))), "{name}");
            continue;
        }
        let sends = name.contains("sendonly");
        // Whoever merely adds tracks offers sendrecv: it may play as well.
        let both = name.starts_with("gstreamer") || name.starts_with("roamhq");
        let receives = name.contains("recvonly") || both;
        assert_eq!(published.is_ok(), sends, "{name}: {:?}", published.err());
        assert_eq!(played.is_ok(), receives, "{name}: {:?}", played.err());
        if let Ok((tracks, _)) = published {
            let names: Vec<_> = tracks.iter().map(|t| t.codec.name).collect();
            assert_eq!(names.len(), 2, "{name}");
            assert!(names.contains(&CodecName::Opus) && names.contains(&CodecName::Vp8), "{name}");
        }
    }
}

#[test]
fn chromium_publishes_opus_and_vp8_with_rtx() {
    let (tracks, plan) = publish(&offer("chromium156-sendonly")).expect("agreed");
    let [audio, video] = tracks.as_slice() else { panic!("two tracks") };
    assert_eq!((audio.pt, audio.ssrc, audio.nack), (111, Some(3_532_882_937), false));
    assert_eq!(audio.extensions.audio_level, Some(1));
    assert_eq!((video.pt, video.rtx_pt), (96, Some(97)));
    assert_eq!((video.ssrc, video.rtx_ssrc), (Some(3_404_939_353), Some(3_368_166_853)));
    assert!(video.nack && video.pli && !video.remb);
    assert_eq!(audio.extensions.transport_cc, Some(3));
    let ids = Extensions {
        transport_cc: Some(3),
        mid: Some(4),
        video_orientation: Some(13),
        playout_delay: Some(5),
        ..Extensions::default()
    };
    assert_eq!(video.extensions, ids);
    let expected = include_str!("answer_chromium.sdp").replace('\n', "\r\n");
    assert_eq!(write(&plan), expected);
}

#[test]
fn simulcast_of_browsers_is_agreed_by_rid() {
    for (name, rid, repaired) in
        [("chromium156-sendonly-simulcast", 10, 11), ("firefox153esr-sendonly-simulcast", 9, 10)]
    {
        let (tracks, plan) = publish(&offer(name)).expect("agreed");
        let video = tracks.iter().find(|t| t.kind == MediaKind::Video).expect("a video");
        assert_eq!(video.rids, ["q", "h", "f"], "{name}");
        assert_eq!(video.extensions.rid, Some(rid), "{name}");
        assert_eq!(video.extensions.repaired_rid, Some(repaired), "{name}");
        // Packets say whose they are, announced SSRCs do not.
        assert_eq!((video.ssrc, video.rtx_ssrc), (None, None), "{name}");
        let answer = write(&plan);
        let lines = "a=rid:q recv\r\na=rid:h recv\r\na=rid:f recv\r\na=simulcast:recv q;h;f\r\n";
        assert!(answer.contains(lines), "{answer}");
        assert_eq!(answer.matches("a=simulcast").count(), 1, "{answer}");
    }
}

#[test]
fn publishers_of_av1_are_asked_for_its_dependency_descriptor() {
    let descriptor = |id| format!("a=extmap:{id} {DEPENDENCY_DESCRIPTOR}\r\n");
    let simulcast = offers()["chromium156-sendonly-simulcast"].clone();
    let (audio, video) = simulcast.split_once("SAVPF 96 ").expect("VP8 comes first");
    let av1 = format!("{audio}SAVPF 45 96 {video}");
    let publish = |text: &str| publish(&Offer::parse(text).expect("parses")).expect("agreed");
    let (tracks, plan) = publish(&av1);
    assert_eq!(tracks[1].codec.name, CodecName::Av1);
    assert_eq!(tracks[1].extensions.dependency_descriptor, Some(12));
    let answer = write(&plan);
    assert!(answer.contains(&descriptor(12)), "{answer}");
    // Its structures need the two-byte form, which audio does not.
    let (audio, video) = answer.split_once("m=video").expect("a video");
    assert!(!audio.contains("a=extmap-allow-mixed"), "{answer}");
    assert_eq!(video.matches("a=extmap-allow-mixed\r\n").count(), 1, "{answer}");
    let (_, plan) = publish(&av1.replace("a=extmap-allow-mixed\r\n", ""));
    assert!(!write(&plan).contains("a=extmap-allow-mixed"));
    // Of the section, as Firefox says it.
    let own = av1.replace("a=extmap-allow-mixed\r\n", "");
    let own = own.replace(&descriptor(12), &format!("a=extmap-allow-mixed\r\n{}", descriptor(12)));
    assert!(write(&publish(&own).1).contains("a=extmap-allow-mixed\r\n"));
    // Other codecs tell their layers themselves.
    let (tracks, plan) = publish(&simulcast);
    assert_eq!(tracks[1].extensions.dependency_descriptor, None);
    let answer = write(&plan);
    assert!(!answer.contains(DEPENDENCY_DESCRIPTOR) && !answer.contains("allow-mixed"), "{answer}");
}

#[test]
fn players_of_av1_take_the_descriptor_that_its_publisher_sends() {
    let text = &offers()["chromium156-recvonly"];
    let lines = format!("a=extmap:12 {DEPENDENCY_DESCRIPTOR}\r\na=rtcp-mux\r\n");
    let text = text.replace("a=rtcp-mux\r\n", &lines);
    let taken = |text: &str, described: bool, rids: &[&str]| {
        let mut stream = video(CodecName::Av1, &[]);
        let track = &mut Arc::make_mut(&mut stream).tracks[0];
        track.extensions.dependency_descriptor = described.then_some(3);
        track.rids = rids.iter().map(|rid| (*rid).to_owned()).collect();
        let offer = Offer::parse(text).expect("parses");
        let (spec, plan) = play(&offer, &stream, &mut rng()).expect("agreed");
        let taken = spec.tracks[0].extensions.dependency_descriptor;
        assert_eq!(write(&plan).contains(DEPENDENCY_DESCRIPTOR), taken.is_some());
        assert_eq!(write(&plan).contains("a=extmap-allow-mixed"), taken.is_some());
        taken
    };
    assert_eq!(taken(&text, true, &[]), Some(12));
    assert_eq!(taken(&text, false, &[]), None);
    assert_eq!(taken(&text, true, &["q", "f"]), None, "encodings number their frames apart");
    assert_eq!(taken(&text.replace("a=extmap-allow-mixed\r\n", ""), true, &[]), None);
}

#[test]
fn simulcast_that_packets_could_not_tell_apart_is_one_encoding() {
    let text = &offers()["chromium156-sendonly-simulcast"];
    let without = |what: &str| {
        let lines = text.split_inclusive("\r\n").filter(|line| !line.contains(what));
        publish(&Offer::parse(&lines.collect::<String>()).expect("parses")).expect("agreed")
    };
    for what in ["sdes:rtp-stream-id", "hdrext:sdes:mid", "a=rid:", "a=simulcast:"] {
        let (tracks, plan) = without(what);
        assert!(tracks[1].rids.is_empty(), "{what}");
        assert!(!write(&plan).contains("recv q"), "{what}");
    }
    // One rid of the list is not sent: two are left.
    assert_eq!(without("a=rid:h send").0[1].rids, ["q", "f"]);
}

#[test]
fn simulcast_lists_are_read_whatever_stands_in_them() {
    let text = &offers()["chromium156-sendonly-simulcast"];
    let rids = |list: &str| {
        let names = ["a", "b", "c", "d", "e", "x.y", "seventeen-letters"];
        let all: String = names.iter().map(|rid| format!("a=rid:{rid} send\r\n")).collect();
        let text =
            text.replace("a=simulcast:send q;h;f\r\n", &format!("{all}a=simulcast:{list}\r\n"));
        publish(&Offer::parse(&text).expect("parses")).expect("agreed").0[1].rids.clone()
    };
    assert_eq!(rids("recv a;b send c;d"), ["c", "d"]);
    assert_eq!(rids("send a,b;~c;c"), ["a", "c"]);
    assert_eq!(rids("send a;b;c;d;e"), ["a", "b", "c", "d"]);
    for list in ["send x.y;seventeen-letters;a", "recv a;b", "send", "send ;;,~", "a;b", ""] {
        assert!(rids(list).is_empty(), "{list}");
    }
}

#[test]
fn redundant_opus_is_agreed_where_the_publisher_prefers_it_and_the_player_has_it() {
    let text = &offers()["chromium156-sendonly"];
    // Chromium sends it when it is first.
    let first = text.replace("SAVPF 111 63", "SAVPF 63 111");
    assert_ne!(&first, text);
    let (tracks, plan) = publish(&Offer::parse(&first).expect("parses")).expect("agreed");
    assert_eq!((tracks[0].pt, tracks[0].red_pt), (111, Some(63)));
    let answer = write(&plan);
    assert!(answer.contains("SAVPF 63 111\r\n"), "{answer}");
    assert!(answer.contains("a=rtpmap:63 red/48000/2\r\na=fmtp:63 111/111\r\n"), "{answer}");
    let stream = stream(tracks);
    let (spec, plan) = play(&offer("chromium156-recvonly"), &stream, &mut rng()).expect("agreed");
    let audio = spec.tracks.iter().find(|t| t.track == 0).expect("audio");
    assert_eq!((audio.pt, audio.red_pt), (111, Some(63)));
    assert!(write(&plan).contains("SAVPF 111 63\r\n"));
    // Firefox has none.
    let (spec, plan) = play(&offer("firefox153esr-recvonly"), &stream, &mut rng()).expect("agreed");
    assert!(spec.tracks.iter().all(|t| t.red_pt.is_none()));
    assert!(!write(&plan).contains("red/48000"));
    // A publisher without it.
    let (spec, _) = play(&offer("chromium156-recvonly"), &chromium(), &mut rng()).expect("agreed");
    assert!(spec.tracks.iter().all(|t| t.red_pt.is_none()));
}

#[test]
fn h265_passes_where_both_ends_have_it_in_one_profile() {
    let offers = offers();
    let text = offers["node-datachannel-0.33.4-sendonly"].replace("VP8/90000", "H265/90000");
    let (tracks, _) = publish(&Offer::parse(&text).expect("parses")).expect("agreed");
    assert_eq!(tracks[1].codec.name, CodecName::H265);
    let stream = stream(tracks);
    let player = offers["chromium156-recvonly"].replace("VP8/90000", "H265/90000");
    let pt = |fmtp: &str| {
        let text = player.replace("a=rtpmap:97", &format!("a=fmtp:96 {fmtp}\r\na=rtpmap:97"));
        play(&Offer::parse(&text).expect("parses"), &stream, &mut rng())
            .map(|(s, _)| s.tracks[1].pt)
    };
    assert_eq!(pt("profile-id=1;tier-flag=0;level-id=93;tx-mode=SRST"), Ok(96));
    assert!(matches!(pt("profile-id=2"), Err(Refusal::NoCodec(_))));
    assert!(matches!(pt("profile-id=1;tx-mode=MRST"), Err(Refusal::NoCodec(_))));
    let lacks = play(&offer("chromium156-recvonly"), &stream, &mut rng()).expect_err("no H.265");
    assert!(lacks.to_string().contains("H265"), "{lacks}");
}

#[test]
fn a_player_gets_numbers_of_its_own_and_no_others() {
    let stream = chromium();
    let (spec, plan) = play(&offer("firefox153esr-recvonly"), &stream, &mut rng()).expect("agreed");
    let [audio, video] = spec.tracks.as_slice() else { panic!("two tracks") };
    assert_eq!((audio.track, audio.pt, audio.rtx_pt), (0, 109, None));
    assert_eq!((video.track, video.pt, video.rtx_pt), (1, 120, Some(124)));
    assert_ne!(audio.ssrc, video.ssrc);
    assert_ne!(Some(video.ssrc), video.rtx_ssrc);
    // Firefox takes the playout delay (recvonly) but no video orientation.
    assert_eq!(
        (video.extensions.playout_delay, video.extensions.video_orientation),
        (Some(6), None)
    );
    let sdp = write(&plan);
    for line in [
        format!("a=msid:{0} {0}-1\r\n", spec.cname),
        format!("a=ssrc-group:FID {} {}\r\n", video.ssrc, video.rtx_ssrc.expect("rtx")),
        format!("a=ssrc:{} cname:{}\r\n", audio.ssrc, spec.cname),
        "a=extmap:6/sendonly http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n".into(),
        "a=fmtp:124 apt=120\r\n".into(),
    ] {
        assert!(sdp.contains(&line), "{line} in {sdp}");
    }
    assert_eq!(sdp.matches("a=sendonly\r\n").count(), 2);
}

#[test]
fn our_answers_parse_and_mirror_the_offer() {
    for (name, offered, answer) in answers() {
        let parsed = sdp::SessionDescription::unmarshal(&mut Cursor::new(answer.as_bytes()))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        let sections = |text: &str| text.lines().filter(|l| l.starts_with("m=")).count();
        assert_eq!(parsed.media_descriptions.len(), sections(&offered), "{name}");
        let again = Offer::parse(&answer).unwrap_or_else(|e| panic!("{name}: {e}"));
        let before = Offer::parse(&offered).expect("parsed before");
        assert_eq!(again.bundle, before.bundle, "{name}");
        for (ours, theirs) in again.media.iter().zip(&before.media) {
            assert_eq!((&ours.mid, ours.kind), (&theirs.mid, theirs.kind), "{name}");
            assert!(ours.rtcp_mux && ours.codecs.len() <= 2, "{name}");
        }
        for section in &parsed.media_descriptions {
            assert_eq!(section.media_name.port.value, 20_000, "{name}");
            for key in ["ice-ufrag", "ice-pwd", "fingerprint", "candidate", "end-of-candidates"] {
                assert!(section.has_attribute(key), "{name}: {key}");
            }
        }
        assert!(answer.contains("a=ice-lite\r\n"), "{name}");
    }
}

#[test]
fn transport_wide_feedback_is_agreed_with_its_extension_or_not_at_all() {
    let mut agreed = 0;
    for (name, _, answer) in answers() {
        for section in answer.split("m=").skip(1) {
            let extension = section.contains("transport-wide-cc-extensions-01");
            let feedback = section.lines().any(|line| line.ends_with(" transport-cc"));
            assert_eq!(extension, feedback, "{name}");
            // A steady REMB would cap what the client finds out itself.
            assert!(!(feedback && section.contains("goog-remb")), "{name}");
            agreed += u32::from(feedback);
        }
    }
    assert!(agreed > 8, "{agreed}");
    // One without the other.
    let text = &offers()["chromium156-sendonly"];
    for half in ["transport-cc\n", "transport-wide-cc-extensions-01"] {
        assert!(text.replace('\r', "").contains(half));
        let without = Offer::parse(&text.replace('\r', "").replace(half, "nothing\n"));
        let (tracks, plan) = publish(&without.expect("parses")).expect("agreed");
        assert!(tracks.iter().all(|track| track.extensions.transport_cc.is_none()), "{half}");
        assert!(tracks[1].remb && !write(&plan).contains("transport-"), "{half}");
    }
}

#[test]
fn an_answer_has_nothing_of_the_client_s_addresses_or_names() {
    for (name, offered, answer) in answers() {
        for line in offered.lines() {
            let words = line.split([' ', ':', '=']).map(|w| w.trim_matches(['{', '}']));
            let secret =
                ["a=candidate", "c=", "o=", "a=rtcp:", "a=ice-ufrag", "a=ice-pwd", "a=msid"];
            let cname = line.starts_with("a=ssrc");
            if !cname && !secret.iter().any(|start| line.starts_with(start)) {
                continue;
            }
            for word in words.filter(|w| w.len() > 5) {
                let harmless = ["candidate", "generation", "network-id", "ice-ufrag", "ice-pwd"];
                let shared = [
                    "0.0.0.0",
                    "passive",
                    "2130706431",
                    "a=msid-semantic",
                    "msid-semantic",
                    "ssrc-group",
                ];
                if !harmless.contains(&word) && !shared.contains(&word) {
                    assert!(!answer.contains(word), "{name}: {word:?} of {line:?}");
                }
            }
        }
        for address in ["10.78.0.1", "10.77.0", "127.0.0.1", "fe80", "cname:c\r\n"] {
            assert!(!answer.contains(address), "{name}: {address}");
        }
    }
}

#[test]
fn what_a_publisher_writes_never_reaches_a_player() {
    let text = offers()["chromium156-sendonly"].replace(
        "minptime=10;useinbandfec=1",
        "minptime=10;x-addr=198.51.100.77;stereo=198.51.100.77",
    );
    let (tracks, _) = publish(&Offer::parse(&text).expect("parses")).expect("agreed");
    assert_eq!(tracks[0].codec.fmtp, [("minptime".to_owned(), "10".to_owned())]);
}

#[test]
fn a_bundle_only_section_with_port_0_is_taken() {
    let (tracks, plan) = publish(&offer("gstreamer1.22-sendonly")).expect("agreed");
    assert_eq!(tracks.iter().map(|t| t.mid.as_str()).collect::<Vec<_>>(), ["video0", "audio1"]);
    assert!(!tracks[0].nack && tracks[0].pli && !tracks[0].remb);
    assert!(write(&plan).contains("a=group:BUNDLE video0 audio1\r\n"));
}

#[test]
fn max_bundle_offers_name_the_transport_once() {
    for name in ["chromium156-recvonly", "aiortc116-recvonly-relay"] {
        // RFC 8829 section 5.2.1: a bundle-only section has none of these.
        let transport = ["ice-ufrag", "ice-pwd", "fingerprint", "setup", "rtcp-mux", "rtcp-rsize"];
        let mut sections = 0;
        let mut text = String::new();
        for line in offers()[name].lines() {
            let mut line = line.to_owned();
            if line.starts_with("m=") {
                sections += 1;
                if sections > 1 {
                    let words: Vec<_> = line.split(' ').collect();
                    line = format!("{} 0 {}\r\na=bundle-only", words[0], words[2..].join(" "));
                }
            }
            let of_transport = transport.iter().any(|key| line.starts_with(&format!("a={key}")));
            if sections < 2 || !of_transport {
                text.push_str(&line);
                text.push_str("\r\n");
            }
        }
        let offer = Offer::parse(&text).expect("parses");
        let (spec, plan) = play(&offer, &chromium(), &mut rng()).expect("agreed");
        assert_eq!(spec.tracks.len(), 2, "{name}");
        let sdp = write(&plan);
        assert_eq!(sdp.matches("a=rtcp-mux\r\n").count(), 2, "{sdp}");
        assert_eq!(sdp.matches("a=candidate:").count(), 2, "{sdp}");
    }
}

#[test]
fn port_0_without_bundle_only_stays_rejected() {
    let text = offers()["gstreamer1.22-sendonly"].replace("a=bundle-only\r\n", "");
    let text = text.replace("a=bundle-only\n", "");
    let (tracks, plan) = publish(&Offer::parse(&text).expect("parses")).expect("agreed");
    assert_eq!(tracks.len(), 1);
    let sdp = write(&plan);
    assert!(sdp.contains("m=audio 0 ") && sdp.contains("a=group:BUNDLE video0\r\n"), "{sdp}");
}

#[test]
fn a_kind_the_stream_lacks_is_answered_inactive() {
    let stream = video(CodecName::Vp8, &[]);
    let (spec, plan) = play(&offer("chromium156-recvonly"), &stream, &mut rng()).expect("agreed");
    assert_eq!(spec.tracks.len(), 1);
    let sdp = write(&plan);
    assert!(sdp.contains("m=audio 20000 ") && sdp.contains("a=inactive\r\n"), "{sdp}");
    assert!(sdp.contains("a=group:BUNDLE 0 1\r\n"), "{sdp}");
}

#[test]
fn a_player_without_the_codec_is_told_which() {
    let h264 =
        video(CodecName::H264, &[("profile-level-id", "64001f"), ("packetization-mode", "1")]);
    for (player, stream, word) in [
        ("firefox153esr-recvonly", &h264, "H264 (high profile)"),
        ("node-datachannel-0.33.4-recvonly", &video(CodecName::Av1, &[]), "AV1"),
        ("aiortc1.16-recvonly", &video(CodecName::Vp9, &[("profile-id", "2")]), "VP9"),
    ] {
        let Err(Refusal::NoCodec(text)) = play(&offer(player), stream, &mut rng()) else {
            panic!("{player} has no {word}")
        };
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn profiles_choose_the_payload_type() {
    let play_pt = |stream: &Arc<StreamSpec>| {
        let (spec, _) = play(&offer("chromium156-recvonly"), stream, &mut rng()).expect("agreed");
        (spec.tracks[0].pt, spec.tracks[0].rtx_pt)
    };
    let h264 =
        |id| video(CodecName::H264, &[("profile-level-id", id), ("packetization-mode", "1")]);
    assert_eq!(play_pt(&h264("42e01f")), (108, Some(109)));
    assert_eq!(play_pt(&h264("42001f")), (102, Some(103)));
    assert_eq!(play_pt(&video(CodecName::Vp9, &[("profile-id", "2")])), (100, Some(101)));
    assert_eq!(play_pt(&video(CodecName::Vp9, &[])), (98, Some(99)));
    assert_eq!(play_pt(&video(CodecName::Av1, &[("profile", "1")])), (47, Some(48)));
}

#[test]
fn an_offer_without_a_codec_we_pass_is_refused_and_says_what_would_do() {
    let text = offers()["node-datachannel-0.33.4-sendonly"].replace("VP8/90000", "H261/90000");
    let refusal = publish(&Offer::parse(&text).expect("parses")).expect_err("H.261 does not pass");
    assert!(refusal.to_string().contains("AV1"), "{refusal}");
}

#[test]
fn h264_in_single_nal_mode_and_payload_types_that_look_like_rtcp_are_passed_over() {
    let text = offers()["aiortc1.16-sendonly"].replace("VP8/90000", "H261/90000");
    let single = text.replace("packetization-mode=1", "packetization-mode=0");
    assert!(publish(&Offer::parse(&text).expect("parses")).is_ok());
    assert!(publish(&Offer::parse(&single).expect("parses")).is_err());
    let text = offers()["node-datachannel-0.33.4-sendonly"].replace(" 96", " 72");
    let text = text.replace(":96", ":72");
    let parsed = Offer::parse(&text).expect("parses");
    assert!(matches!(publish(&parsed), Err(Refusal::NoCodec(_))));
}

#[test]
fn an_offer_without_a_usable_fingerprint_is_refused() {
    let text = &offers()["chromium156-sendonly"];
    let none: String =
        text.lines().filter(|l| !l.contains("fingerprint")).flat_map(|l| [l, "\r\n"]).collect();
    let weak = text.replace("sha-256", "sha-1");
    for text in [none, weak] {
        let refusal = publish(&Offer::parse(&text).expect("parses")).expect_err("refused");
        assert_eq!(refusal, Refusal::NoFingerprint);
    }
}

#[test]
fn offers_that_need_what_we_lack_are_bad() {
    let text = &offers()["chromium156-sendonly"];
    for (from, to, word) in [
        ("a=setup:actpass", "a=setup:passive", "DTLS server"),
        ("a=rtcp-mux\n", "", "rtcp-mux"),
        ("a=group:BUNDLE 0 1\n", "", "BUNDLE"),
        ("UDP/TLS/RTP/SAVPF", "RTP/AVP", "SAVPF"),
    ] {
        let text = text.replace("\r\n", "\n").replace(from, to);
        match publish(&Offer::parse(&text).expect("parses")) {
            Err(Refusal::BadSdp(text)) => assert!(text.contains(word), "{text}"),
            other => panic!("{word}: {other:?}"),
        }
    }
}

#[test]
fn further_sections_of_a_kind_are_rejected_with_port_0() {
    let text = offers()["node-datachannel-0.33.4-sendonly"].replace("\r\n", "\n");
    let at = text.find("m=video").expect("there");
    let twice = text[at..].replace("a=mid:1", "a=mid:2");
    let text = format!("{text}{twice}").replace("BUNDLE 0 1", "BUNDLE 0 1 2");
    let (tracks, plan) = publish(&Offer::parse(&text).expect("parses")).expect("agreed");
    assert_eq!(tracks.len(), 2);
    let sdp = write(&plan);
    assert!(sdp.contains("m=video 0 UDP/TLS/RTP/SAVPF 0\r\n"), "{sdp}");
    assert!(sdp.contains("a=group:BUNDLE 0 1\r\n"), "{sdp}");
}

#[test]
fn a_long_mid_is_kept_out_of_header_extensions() {
    let long = "m".repeat(17);
    let text = offers()["chromium156-sendonly"]
        .replace("a=mid:0", &format!("a=mid:{long}"))
        .replace("BUNDLE 0", &format!("BUNDLE {long}"));
    let (tracks, _) = publish(&Offer::parse(&text).expect("parses")).expect("agreed");
    assert_eq!((tracks[0].mid.as_str(), tracks[0].extensions.mid), (long.as_str(), None));
}

#[test]
fn answers_stay_in_proportion() {
    let section = "m=video 9 UDP/TLS/RTP/SAVPF 96\r\na=rtcp-mux\r\na=rtpmap:96 VP8/90000\r\n";
    let head = offers()["node-datachannel-0.33.4-sendonly"].replace("m=video", "m=text");
    let text = format!("{head}{}", section.repeat(MAX_SECTIONS - 2));
    let parsed = Offer::parse(&text).expect("parses");
    assert_eq!(parsed.media.len(), MAX_SECTIONS);
    assert!(Offer::parse(&format!("{text}{section}")).is_err());
}

/// A real offer with some bytes changed.
fn damaged() -> impl Strategy<Value = String> {
    let texts: Vec<String> = offers().into_values().collect();
    let hits =
        proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..12);
    (proptest::sample::select(texts), hits).prop_map(|(text, hits)| {
        let mut bytes = text.into_bytes();
        for (at, byte, how) in hits {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => drop(bytes.drain(at..(at + usize::from(byte)).min(bytes.len() - 1).max(at))),
                _ => bytes.insert(at, byte),
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

proptest! {
    #[test]
    fn damaged_offers_never_panic_and_answers_stay_well_formed(text in damaged()) {
        if let Ok(offer) = Offer::parse(&text) {
            let plans = [
                publish(&offer).map(|(_, plan)| plan),
                play(&offer, &chromium(), &mut rng()).map(|(_, plan)| plan),
            ];
            for plan in plans.into_iter().flatten() {
                let answer = write(&plan);
                prop_assert!(Offer::parse(&answer).is_ok(), "{}", answer);
                prop_assert!(answer.len() < MAX_SDP);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(v=0\r\n)?((m=audio 9 RTP/AVP 0|[a-z]=.{0,40}|a=[a-z-]{1,12}:.{0,40})\r\n){0,20}") {
        let _ = Offer::parse(&text);
    }
}
