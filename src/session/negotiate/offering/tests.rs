use std::collections::{HashMap, HashSet};

use proptest::prelude::*;
use rand::SeedableRng;

use super::*;
use crate::wire::media::TrackSpec;

fn track(kind: MediaKind, name: CodecName, fmtp: &[(&str, &str)]) -> TrackSpec {
    TrackSpec {
        kind,
        mid: "0".to_owned(),
        codec: Codec {
            name,
            fmtp: fmtp.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        },
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
    }
}

fn audio() -> TrackSpec {
    // What a publisher says of its own receiving is not passed on.
    track(MediaKind::Audio, CodecName::Opus, &[("stereo", "1"), ("maxplaybackrate", "8000")])
}

fn vp8() -> TrackSpec {
    track(MediaKind::Video, CodecName::Vp8, &[])
}

fn stream(id: u64, tracks: Vec<TrackSpec>) -> Arc<StreamSpec> {
    let name = format!("lobby/cam{id}").parse().expect("a name");
    Arc::new(StreamSpec { id: StreamId(id), name, tracks })
}

fn offering() -> Offering {
    Offering::new(StdRng::seed_from_u64(5))
}

fn written(offering: &Offering) -> String {
    offering.sdp(&Transport {
        session: 0,
        ufrag: "ours",
        pwd: "ourpasswordourpasswordou",
        fingerprint: "sha-256 00",
        candidates: &["203.0.113.9:20000".parse().expect("an address")],
    })
}

/// As an obedient client answers; `edit` may make it another one.
fn answer(offering: &mut Offering, edit: impl Fn(String) -> String) -> Taken {
    let mut sdp = String::from("v=0\r\n");
    let text = written(offering);
    let bundle = text.lines().find(|line| line.starts_with("a=group:BUNDLE")).expect("a group");
    sdp.push_str(&format!("{bundle}\r\na=ice-ufrag:theirs\r\na=ice-pwd:{}\r\n", "p".repeat(24)));
    sdp.push_str(&format!("a=fingerprint:sha-256 {}\r\na=setup:active\r\n", ["AB"; 32].join(":")));
    let kept = ["m=", "a=mid", "a=rtcp-mux", "a=rtpmap", "a=fmtp", "a=extmap", "a=inactive"];
    for line in text.lines().skip_while(|line| !line.starts_with("m=")) {
        if kept.iter().any(|start| line.starts_with(start)) {
            sdp.push_str(&format!("{line}\r\n"));
        } else if line == "a=sendonly" {
            sdp.push_str("a=recvonly\r\n");
        }
    }
    let sdp = edit(sdp);
    let answer = Offer::parse_answer(&sdp).unwrap_or_else(|e| panic!("{e}\n{sdp}"));
    offering.answer(&answer).unwrap_or_else(|e| panic!("{e}\n{sdp}"))
}

fn mids(offering: &Offering) -> Vec<String> {
    let text = written(offering);
    text.lines().filter_map(|line| line.strip_prefix("a=mid:")).map(str::to_owned).collect()
}

#[test]
fn offer_says_what_each_section_sends_and_nothing_of_the_publisher() {
    let mut offering = offering();
    let h264 = track(
        MediaKind::Video,
        CodecName::H264,
        &[("packetization-mode", "1"), ("profile-level-id", "42e01f")],
    );
    assert!(offering.offer(&[stream(1, vec![audio(), vp8()]), stream(2, vec![h264])], false));
    let text = written(&offering);
    let ssrcs: Vec<_> = offering.open().map(|open| (open.ssrc, open.rtx_ssrc)).collect();
    let (cname, session) = (&offering.cname, offering.session);
    let transport = "a=ice-ufrag:ours\r\na=ice-pwd:ourpasswordourpasswordou\r\n\
        a=fingerprint:sha-256 00\r\na=setup:actpass\r\n";
    let end = "a=candidate:1 1 udp 2130706431 203.0.113.9 20000 typ host\r\n\
        a=end-of-candidates\r\n";
    let opus = "a=rtpmap:111 opus/48000/2\r\na=rtcp-fb:111 transport-cc\r\n\
        a=fmtp:111 minptime=10;useinbandfec=1\r\n\
        a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
        a=extmap:2 urn:ietf:params:rtp-hdrext:ssrc-audio-level\r\n\
        a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n";
    let (a, v, w) = (ssrcs[0].0, ssrcs[1], ssrcs[2]);
    let (v, v_rtx, w, w_rtx) = (v.0, v.1.expect("rtx"), w.0, w.1.expect("rtx"));
    let source = |ssrc: u32, msid: &str| {
        format!("a=ssrc:{ssrc} cname:{cname}\r\na=ssrc:{ssrc} msid:{msid}\r\n")
    };
    let feedback = |pt: u8| {
        ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"]
            .map(|what| format!("a=rtcp-fb:{pt} {what}\r\n"))
            .concat()
    };
    let extensions = "a=extmap:1 urn:ietf:params:rtp-hdrext:sdes:mid\r\n\
        a=extmap:3 urn:3gpp:video-orientation\r\n\
        a=extmap:4 http://www.webrtc.org/experiments/rtp-hdrext/playout-delay\r\n\
        a=extmap:5 http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01\r\n";
    let expected = [
        format!("v=0\r\no=- {session} 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=ice-lite\r\n"),
        "a=group:BUNDLE 0 1 2 3\r\na=msid-semantic: WMS *\r\n".to_owned(),
        "m=audio 20000 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 203.0.113.9\r\n".to_owned(),
        format!("{transport}a=mid:0\r\na=inactive\r\na=rtcp-mux\r\na=rtcp-rsize\r\n{opus}{end}"),
        "m=audio 20000 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 203.0.113.9\r\n".to_owned(),
        format!("{transport}a=mid:1\r\na=sendonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n{opus}"),
        format!("a=msid:cam1 cam1-1\r\n{}{end}", source(a, "cam1 cam1-1")),
        "m=video 20000 UDP/TLS/RTP/SAVPF 96 97\r\nc=IN IP4 203.0.113.9\r\n".to_owned(),
        format!("{transport}a=mid:2\r\na=sendonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n"),
        format!("a=rtpmap:96 VP8/90000\r\n{}", feedback(96)),
        format!("a=rtpmap:97 rtx/90000\r\na=fmtp:97 apt=96\r\n{extensions}"),
        format!("a=msid:cam1 cam1-2\r\na=ssrc-group:FID {v} {v_rtx}\r\n"),
        source(v, "cam1 cam1-2") + &source(v_rtx, "cam1 cam1-2") + end,
        "m=video 20000 UDP/TLS/RTP/SAVPF 98 99\r\nc=IN IP4 203.0.113.9\r\n".to_owned(),
        format!("{transport}a=mid:3\r\na=sendonly\r\na=rtcp-mux\r\na=rtcp-rsize\r\n"),
        format!("a=rtpmap:98 H264/90000\r\n{}", feedback(98)),
        "a=fmtp:98 packetization-mode=1;profile-level-id=42e01f\r\n".to_owned(),
        format!("a=rtpmap:99 rtx/90000\r\na=fmtp:99 apt=98\r\n{extensions}"),
        format!("a=msid:cam2 cam2-3\r\na=ssrc-group:FID {w} {w_rtx}\r\n"),
        source(w, "cam2 cam2-3") + &source(w_rtx, "cam2 cam2-3") + end,
    ];
    assert_eq!(text, expected.concat());
}

#[test]
fn section_is_recycled_only_after_its_closing_was_answered() {
    let mut offering = offering();
    let [one, two, three] = [1, 2, 3].map(|id| stream(id, vec![vp8()]));
    assert!(offering.offer(std::slice::from_ref(&one), false));
    answer(&mut offering, |sdp| sdp);
    // A swap: the old one closes in this offer, so the new one needs a section of its own.
    assert!(offering.offer(std::slice::from_ref(&two), false));
    assert_eq!(mids(&offering), ["0", "1", "2"]);
    assert!(!offering.offer(&[two.clone(), three.clone()], false), "an answer is awaited");
    assert_eq!(mids(&offering), ["0", "1", "2"]);
    let taken = answer(&mut offering, |sdp| sdp);
    assert_eq!(taken.plays.len(), 1);
    assert!(offering.offer(&[two, three], false));
    assert_eq!(mids(&offering), ["0", "3", "2"]);
}

#[test]
fn what_was_agreed_stays_through_later_answers() {
    let mut offering = offering();
    let [one, two] = [1, 2].map(|id| stream(id, vec![vp8()]));
    offering.offer(std::slice::from_ref(&one), false);
    // Without RTX and without the orientation.
    let spare = |sdp: String| {
        let keep = |line: &&str| !line.contains("rtx") && !line.contains("orientation");
        let kept: Vec<_> = sdp.lines().filter(keep).collect();
        kept.join("\r\n") + "\r\n"
    };
    let first = answer(&mut offering, spare).plays.remove(0).tracks.remove(0);
    assert_eq!((first.rtx_pt, first.rtx_ssrc), (None, None));
    assert_eq!(first.extensions.video_orientation, None);
    assert_eq!((first.extensions.mid, first.extensions.transport_cc), (Some(1), Some(5)));
    offering.offer(&[one, two], false);
    let second = answer(&mut offering, |sdp| sdp);
    assert_eq!(second.plays[0].tracks[0], first, "its packets are under way");
    assert!(second.plays[1].tracks[0].rtx_pt.is_some());
    assert_eq!(second.plays[0].cname, second.plays[1].cname);
}

#[test]
fn sections_are_bounded_and_a_stream_has_all_it_needs_or_none() {
    let mut offering = offering();
    let streams: Vec<_> = (0..100).map(|id| stream(id, vec![audio(), vp8()])).collect();
    assert!(offering.offer(&streams, false));
    assert_eq!(offering.tracks().count(), 128);
    assert_eq!(mids(&offering).len(), MAX_OWN_SECTIONS);
    let taken = answer(&mut offering, |sdp| sdp);
    assert_eq!(taken.plays.len(), 64);
    assert!(taken.plays.iter().all(|play| play.tracks.len() == 2));
    assert!(!offering.offer(&streams, false), "nothing has changed");
    // The first go, the last come in their place.
    let rest = &streams[50..];
    assert!(offering.offer(rest, false));
    answer(&mut offering, |sdp| sdp);
    assert!(offering.offer(rest, false));
    assert_eq!(answer(&mut offering, |sdp| sdp).plays.len(), 50);
    assert_eq!(mids(&offering).len(), MAX_OWN_SECTIONS);
}

#[test]
fn ssrcs_of_one_connection_are_bounded() {
    let mut offering = offering();
    let mut rounds = 0;
    while offering.offer(&[stream(rounds, vec![vp8()])], false) {
        answer(&mut offering, |sdp| sdp);
        offering.offer(&[], false);
        answer(&mut offering, |sdp| sdp);
        rounds += 1;
        assert!(rounds <= 2_000, "it goes on for ever");
    }
    assert_eq!(rounds, 2_000, "two for each");
    const { assert!(MAX_SSRCS < crate::session::srtp::MAX_SENT_SSRCS) };
}

#[test]
fn payload_types_of_codecs_nobody_sends_are_given_out_again() {
    let mut offering = offering();
    let odd = |level: u64| {
        let level = format!("42{level:04x}");
        let fmtp = [("packetization-mode", "1"), ("profile-level-id", level.as_str())];
        stream(level_id(&level), vec![track(MediaKind::Video, CodecName::H264, &fmtp)])
    };
    for level in 0..100 {
        assert!(offering.offer(&[odd(level)], false), "{level}");
        assert_eq!(offering.tracks().count(), 1, "{level}");
        answer(&mut offering, |sdp| sdp);
    }
    // All at once do not fit: some are not offered, and no type means two things.
    let all: Vec<_> = (0..100).map(odd).collect();
    offering.offer(&all, false);
    let mut meaning = HashMap::new();
    for open in offering.open() {
        let codec = meaning.entry(open.payload.pt).or_insert_with(|| open.codec.clone());
        assert_eq!(*codec, open.codec);
    }
    assert!((28..=30).contains(&meaning.len()), "{}", meaning.len());
}

fn level_id(level: &str) -> u64 {
    u64::from_str_radix(level, 16).expect("a number")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes and goes, and whatever clients take of it: an SSRC and a mid mean one track
    /// for life, m-lines keep their kind, and all that is wanted and takeable is played.
    #[test]
    fn offers_stay_consistent(
        rounds in prop::collection::vec((any::<u16>(), any::<bool>(), any::<bool>()), 1..20),
    ) {
        let mut offering = offering();
        let streams: Vec<_> = (0..16)
            .map(|id| stream(id, if id % 3 == 0 { vec![vp8()] } else { vec![audio(), vp8()] }))
            .collect();
        let (mut of_ssrc, mut of_mid) = (HashMap::new(), HashMap::new());
        let mut kinds: Vec<String> = Vec::new();
        let mut ufrag = String::new();
        for (mask, rejects, restarts) in rounds {
            let wanted: Vec<_> = (0..16)
                .filter(|bit| mask & (1 << bit) != 0)
                .map(|bit| Arc::clone(&streams[bit]))
                .collect();
            let before = offering.revision();
            let restarts = restarts && offering.remote().is_some();
            if !offering.offer(&wanted, restarts) {
                prop_assert_eq!(offering.revision(), before);
                continue;
            }
            prop_assert_eq!(offering.revision(), before + 1);
            let text = written(&offering);
            let lines: Vec<_> = text.lines().filter(|line| line.starts_with("m=")).collect();
            for (place, line) in lines.iter().enumerate() {
                let kind = line.split(' ').next().expect("a word").to_owned();
                match kinds.get(place) {
                    Some(known) => prop_assert_eq!(known, &kind),
                    None => kinds.push(kind),
                }
            }
            let unique: HashSet<_> = mids(&offering).into_iter().collect();
            prop_assert_eq!(unique.len(), lines.len());
            for slot in &offering.slots {
                let Some(open) = open_of(&slot.state) else { continue };
                let meant = (open.stream.id, open.track);
                prop_assert_eq!(*of_mid.entry(slot.mid.clone()).or_insert(meant), meant);
                for ssrc in [Some(open.ssrc), open.rtx_ssrc].into_iter().flatten() {
                    let meant = (meant, slot.mid.clone());
                    prop_assert_eq!(of_ssrc.entry(ssrc).or_insert_with(|| meant.clone()), &meant);
                }
            }
            if restarts || offering.remote().is_none() {
                ufrag = format!("theirs{}", offering.revision());
            }
            let taken = answer(&mut offering, |sdp| {
                let sdp = sdp.replace("theirs", &ufrag);
                if rejects { sdp.replacen("m=video 20000", "m=video 0", 1) } else { sdp }
            });
            prop_assert!(taken.declined.len() <= usize::from(rejects));
            let live: HashSet<_> = taken.plays.iter().map(|play| play.stream.id).collect();
            prop_assert!(live.iter().all(|id| wanted.iter().any(|it| it.id == *id)));
        }
    }
}
