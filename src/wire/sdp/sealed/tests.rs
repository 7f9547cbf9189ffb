use proptest::prelude::*;

use super::super::MAX_SDP;
use super::*;

const CHROMIUM: &str = include_str!("../../../../tests/data/sdp/chromium156-sendonly.sdp");
const FIREFOX: &str = include_str!("../../../../tests/data/sdp/firefox153esr-sendonly.sdp");
const DATA: &str =
    include_str!("../../../../tests/data/sdp/node-datachannel-0.33.4-datachannel.sdp");

const OURS: &str = "203.0.113.9";
/// An address as it may turn up in an SDP, in all the places where one could hide.
const CANARIES: [&str; 8] = [
    "198.51.100.7",
    "198-51-100-7",
    "2001:db8::77",
    "3325256711",
    "c6336407",
    "C6336407",
    "canary.local",
    "0xc6.0x33",
];

/// Every line of an offer that could carry an address, carrying one.
fn poisoned(canary: &str) -> String {
    let hash = ["AB"; 32].join(":");
    let name = canary.replace(':', ".");
    format!(
        "v=0\r\no={canary} 1 1 IN IP4 {canary}\r\ns={canary}\r\ni={canary}\r\nu={canary}\r\n\
         e={canary}\r\np={canary}\r\nc=IN IP4 {canary}\r\nb=AS:{canary}\r\nt=0 0\r\n\
         k=clear:{canary}\r\na=tool:{canary}\r\na=group:BUNDLE 0 1 2\r\na=group:LS {canary}\r\n\
         a=msid-semantic: WMS {canary}\r\na=ice-options:{canary}\r\na=identity:{canary}\r\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 111 63\r\ni={canary}\r\nc=IN IP4 {canary}\r\n\
         b=TIAS:{canary}\r\na=rtcp:9 IN IP4 {canary}\r\na=ice-ufrag:abcd\r\n\
         a=ice-pwd:abcdefghijklmnopqrstuv\r\na=fingerprint:sha-256 {hash}\r\na=setup:actpass\r\n\
         a=mid:0\r\na=rtcp-mux\r\na=sendrecv\r\na=remote-candidates:1 {canary} 5\r\n\
         a=candidate:{canary} 1 udp 2 {canary} 5 typ host generation 0 {canary}\r\n\
         a=candidate:1 1 udp 2 {canary} 5 typ srflx raddr {canary} rport 5\r\n\
         a=candidate:1 1 tcp 2 {canary} 9 typ host tcptype active\r\n\
         a=candidate:1 1 udp 2 {canary} 5 typ relay raddr {canary} rport 9\r\n\
         a=candidate:{canary} 1 udp 2 {OURS} 5000 typ relay raddr {canary} rport 5 x {canary}\r\n\
         a=candidate:2 1 tcp 2 {OURS} 5001 typ relay raddr {canary} rport 5\r\n\
         a=rtpmap:111 opus/48000/2\r\na=fmtp:111 minptime=10;x={canary};stereo={canary}\r\n\
         a=rtcp-fb:111 {canary}\r\na=rtcp-fb:111 transport-cc\r\n\
         a=rtpmap:63 {name}/48000\r\na=fmtp:63 {canary}\r\n\
         a=extmap:1 {canary}\r\na=extmap:2/sendonly urn:{canary}\r\n\
         a=msid:{canary} {canary}\r\na=ssrc:1 cname:{canary}\r\na=ssrc:1 msid:{canary} {canary}\r\n\
         a=rid:{canary} send\r\na=simulcast:send {canary}\r\na=x:{canary}\r\n\
         m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:1\r\na=sctp-port:{canary}\r\n\
         a=max-message-size:{canary}\r\n\
         m=video 0 UDP/TLS/RTP/SAVPF {canary}\r\na=mid:2\r\na=bundle-only\r\na=label:{canary}\r\n"
    )
}

fn names() -> Names<'static> {
    Names { session: 7, stream: "k9" }
}

fn ours(address: SocketAddr) -> bool {
    address.ip().to_string() == OURS && address.port() != 1
}

fn written(text: &str, role: Role) -> Result<String, Fault> {
    let mut description = Description::parse(text, role)?;
    description.keep(ours).1?;
    description.write(names())
}

/// A recorded offer with a relayed candidate of ours in every section.
fn relayed(text: &str) -> String {
    let line = format!("a=candidate:9 1 UDP 41 {OURS} 5000 typ relay raddr 10.0.0.1 rport 9");
    text.lines()
        .flat_map(|l| if l.starts_with("a=mid:") { vec![l, &line] } else { vec![l] })
        .map(|l| format!("{l}\r\n"))
        .collect()
}

#[test]
fn nothing_that_could_be_an_address_comes_through() {
    for canary in CANARIES {
        let text = poisoned(canary);
        let out = written(&text, Role::Offerer).expect("an offer like any other");
        assert!(!out.contains(canary), "{canary} in\n{out}");
        assert!(out.contains(&format!("{OURS} 5000 typ relay raddr 0.0.0.0 rport 0\r\n")), "{out}");
        // What is left of it is an offer all the same.
        for line in ["a=rtpmap:111 opus/48000/2", "a=fmtp:111 minptime=10", "a=sctp-port:5000"] {
            assert!(out.contains(line), "{line} in\n{out}");
        }
        assert_eq!(out.matches(" typ ").count(), 2, "one candidate in two sections:\n{out}");
    }
}

#[test]
fn candidates_are_sifted_and_counted() {
    let mut description =
        Description::parse(&poisoned("198.51.100.7"), Role::Offerer).expect("an offer");
    let (sifted, kept) = description.keep(ours);
    assert_eq!((sifted, kept), (Sifted { kept: 1, not_relayed: 3, foreign: 2 }, Ok(())));
    let (sifted, kept) = description.keep(|_| false);
    assert_eq!((sifted.kept, kept), (0, Err(Fault::NoRelayCandidate)));
}

#[test]
fn a_mid_that_could_be_an_address_is_refused() {
    for mid in CANARIES.into_iter().chain(["", "1234", "a.b", "a-b", "aaaaaaaaaaaaaaaaa"]) {
        let text = poisoned("x").replace("BUNDLE 0 1 2", &format!("BUNDLE {mid} 1 2"));
        let text = text.replace("a=mid:0", &format!("a=mid:{mid}"));
        let fault = Description::parse(&text, Role::Offerer).expect_err(mid);
        assert!(matches!(fault, Fault::BadMid | Fault::Sdp(_)), "{mid}: {fault}");
        assert!(mid.is_empty() || mid.len() < 4 || !fault.to_string().contains(mid));
    }
    let text = poisoned("x").replace("BUNDLE 0", "BUNDLE audio0").replace("mid:0", "mid:audio0");
    assert!(written(&text, Role::Offerer).expect("fine").contains("a=mid:audio0\r\n"));
}

#[test]
fn offers_of_browsers_keep_what_a_call_needs() {
    let out = written(&relayed(CHROMIUM), Role::Offerer).expect("Chromium's");
    for line in [
        "a=group:BUNDLE 0 1",
        "a=ice-ufrag:2QA9",
        "a=setup:actpass",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126",
        "a=fmtp:63 111/111",
        "a=fmtp:126 0-15",
        "a=rtcp-fb:96 transport-cc",
        "a=rtcp-fb:96 nack pli",
        "a=fmtp:97 apt=96",
        "a=fmtp:108 level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=msid:k9 k9-1",
        "a=rtcp-rsize",
    ] {
        assert!(out.lines().any(|l| l == line), "{line} in\n{out}");
    }
    assert!(out.len() < MAX_WRITTEN / 2, "{}", out.len());
    let out = written(&relayed(FIREFOX), Role::Offerer).expect("Firefox's");
    for line in
        ["a=extmap:2/recvonly urn:ietf:params:rtp-hdrext:csrc-audio-level", "a=setup:actpass"]
    {
        assert!(out.lines().any(|l| l == line), "{line} in\n{out}");
    }
    assert_eq!(out.matches("a=fingerprint:sha-256 61:BF:A4").count(), 2, "session level:\n{out}");
    let out = written(&relayed(DATA), Role::Offerer).expect("libdatachannel's");
    assert!(out.contains("m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\n"), "{out}");
    assert!(out.contains("a=sctp-port:5000\r\na=max-message-size:262144\r\n"), "{out}");
}

#[test]
fn preferred_candidates_stay_preferred_and_numbers_are_ours() {
    let more = format!(
        "a=mid:0\r\na=candidate:7 1 udp 3325256711 {OURS} 5007 typ relay\r\n\
         a=candidate:8 1 udp 9 2001:db8::9 5008 typ relay raddr :: rport 9\r\n"
    );
    let mut description =
        Description::parse(&poisoned("x").replace("a=mid:0\r\n", &more), Role::Offerer)
            .expect("ok");
    description.keep(|address| address.port() > 5).1.expect("three");
    let out = description.write(names()).expect("short");
    let lines: Vec<_> = out.lines().filter(|l| l.starts_with("a=candidate")).take(3).collect();
    assert_eq!(
        lines,
        [
            "a=candidate:1 1 udp 16777215 203.0.113.9 5007 typ relay raddr 0.0.0.0 rport 0",
            "a=candidate:2 1 udp 16776959 2001:db8::9 5008 typ relay raddr :: rport 0",
            "a=candidate:3 1 udp 16776703 203.0.113.9 5000 typ relay raddr 0.0.0.0 rport 0",
        ]
    );
}

#[test]
fn each_fault_has_its_code() {
    let base = poisoned("x");
    let with = |from: &str, to: &str| {
        assert!(base.contains(from), "{from}");
        base.replace(from, to)
    };
    let section = "m=video 0 UDP/TLS/RTP/SAVPF 96\r\n";
    let mids = |n: usize| (3..3 + n).map(|i| format!("{section}a=mid:{i}\r\n")).collect::<String>();
    for (text, code) in [
        (String::new(), "bad_sdp"),
        (format!("{base}{}", section.repeat(200)), "bad_sdp"),
        (format!("{base}{}", mids(6)), "too_many_sections"),
        (with("sha-256", "md5"), "no_fingerprint"),
        (with("BUNDLE 0 1 2", "BUNDLE 0"), "not_bundled"),
        (with("a=group:BUNDLE 0 1 2\r\n", ""), "not_bundled"),
        (with("a=rtcp-mux\r\n", ""), "no_rtcp_mux"),
        (with("a=setup:actpass", "a=setup:holdconn"), "bad_setup"),
        (with("5000 typ relay", "1 typ relay"), "no_relay_candidate"),
        (with("opus/", "speex/").replace("UDP/DTLS/SCTP", "DTLS/SCTP"), "no_codec"),
        (with("stereo=x", "stereo=1\r\na=x:\u{0}"), "bad_sdp"),
        ("v=0\r\n".repeat(MAX_SDP / 5 + 1), "bad_sdp"),
    ] {
        let fault = written(&text, Role::Offerer).expect_err(code);
        assert_eq!(fault.code(), code, "{fault}");
    }
    assert_eq!(written(&base, Role::Answerer).expect_err("actpass").code(), "bad_setup");
    let many: String = (0..48).map(|pt| format!("{pt} ")).collect();
    let maps: String = (0..48)
        .map(|pt| format!("a=rtpmap:{pt} H264/90000\r\na=rtcp-fb:{pt} transport-cc\r\na=rtcp-fb:{pt} goog-remb\r\na=rtcp-fb:{pt} ccm fir\r\na=rtcp-fb:{pt} nack\r\na=rtcp-fb:{pt} nack pli\r\n"))
        .collect();
    let video = |mid: usize| {
        format!("m=video 9 UDP/TLS/RTP/SAVPF {many}\r\na=mid:{mid}\r\na=rtcp-mux\r\n{maps}")
    };
    let large = format!(
        "{}{}",
        with("BUNDLE 0 1 2", "BUNDLE 0 1 2 3 4 5 6 7"),
        (3..8).map(video).collect::<String>()
    );
    assert_eq!(written(&large, Role::Offerer).expect_err("large").code(), "sdp_too_large");
}

#[test]
fn line_breaks_in_values_add_no_lines_of_a_client() {
    for brk in ["\r\n", "\n", "\r", "\u{85}", "\u{2028}", "\u{b}"] {
        let inject = format!("minptime=10{brk}a=candidate:1 1 udp 1 198.51.100.7 9 typ host");
        let text = poisoned("x").replace("minptime=10", &inject);
        match written(&text, Role::Offerer) {
            Ok(out) => assert!(!out.contains("198.51") && !out.contains("typ host"), "{out}"),
            Err(fault) => assert_eq!(fault.code(), "bad_sdp", "{brk:?}"),
        }
    }
}

#[test]
fn an_answer_has_the_sections_of_its_offer() {
    let parse = |text: &str, role| Description::parse(text, role).expect("good");
    let offer = poisoned("x");
    let answer = offer.replace("actpass", "active");
    let offer = parse(&offer, Role::Offerer);
    assert_eq!(parse(&answer, Role::Answerer).check_answers(&offer), Ok(()));
    let fewer = answer.split("m=video").next().expect("a head").replace("1 2", "1");
    assert_eq!(parse(&fewer, Role::Answerer).check_answers(&offer), Err(Fault::Mismatch));
    let renamed = answer.replace("mid:1", "mid:z").replace("0 1 2", "0 z 2");
    assert_eq!(parse(&renamed, Role::Answerer).check_answers(&offer), Err(Fault::Mismatch));
    let refused = answer.replace("m=application 9", "m=application 0").replace("0 1 2", "0 2");
    assert_eq!(parse(&refused, Role::Answerer).check_answers(&offer), Ok(()));
    // And nobody may answer what was never offered.
    let offer = parse(&refused.replace("active", "actpass"), Role::Offerer);
    assert_eq!(parse(&answer, Role::Answerer).check_answers(&offer), Err(Fault::Mismatch));
}

/// What may stand in a line: keys we know, values that are nearly right, and anything else.
fn line() -> impl Strategy<Value = String> {
    let canary = prop::sample::select(CANARIES.to_vec());
    let key = prop::sample::select(vec![
        "a=mid:",
        "a=fmtp:111 ",
        "a=rtpmap:",
        "a=candidate:1 1 udp 1 ",
        "a=extmap:5 ",
        "c=IN IP4 ",
        "a=rtcp-fb:111 ",
        "a=sctp-port:",
        "a=msid:",
        "a=ssrc:1 cname:",
        "a=ice-options:",
        "o=",
        "a=max-message-size:",
        "a=fmtp:111 apt=",
        "m=video 9 UDP/TLS/RTP/SAVPF ",
        "a=setup:",
        "a=",
    ]);
    let tail = prop::sample::select(vec![
        "",
        " 5 typ relay",
        " 5 typ host",
        "/90000",
        ";stereo=1",
        " raddr 1 rport 2",
        "\r",
    ]);
    let value = prop_oneof![canary.prop_map(str::to_owned), "[ -~]{0,24}", "\\PC{0,12}"];
    (key, value, tail).prop_map(|(key, value, tail)| format!("{key}{value}{tail}\r\n"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]

    #[test]
    fn whatever_is_written_parses_again_and_names_no_foreign_address(
        lines in prop::collection::vec((0_usize..40, line()), 0..8),
        base in prop::sample::select(vec![CHROMIUM, FIREFOX, DATA]),
    ) {
        let text = relayed(base);
        let mut all: Vec<String> = text.split_inclusive("\r\n").map(str::to_owned).collect();
        for (at, line) in lines {
            all.insert((at + 4).min(all.len()), line);
        }
        let Ok(out) = written(&all.concat(), Role::Offerer) else { return Ok(()) };
        for canary in CANARIES {
            prop_assert!(!out.contains(canary), "{} in\n{}", canary, out);
        }
        prop_assert!(out.is_ascii());
        prop_assert!(out.split("\r\n").all(|line| !line.contains(['\r', '\n'])));
        let mut again = Description::parse(&out, Role::Offerer).expect("our own");
        again.keep(ours).1.expect("our candidates");
        prop_assert_eq!(again.write(names()).expect("no longer"), out);
    }
}
