use super::*;

const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 198.51.100.7\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
    m=audio 9 UDP/TLS/RTP/SAVPF 111\r\nc=IN IP4 198.51.100.7\r\na=mid:0\r\na=ice-ufrag:abcd\r\n\
    a=ice-pwd:abcdefghijklmnopqrstuv\r\na=rtpmap:111 opus/48000/2\r\na=rtcp-mux\r\n\
    a=candidate:1 1 udp 1 198.51.100.7 5 typ host\r\n\
    a=candidate:2 1 udp 1 198.51.100.7 5 typ srflx raddr 10.0.0.1 rport 1\r\n\
    a=candidate:3 1 udp 1 203.0.113.7 5 typ relay raddr 0.0.0.0 rport 0\r\n\
    a=candidate:nonsense\r\n";

fn with(from: &str, to: &str) -> Result<Offer, ParseError> {
    assert!(OFFER.contains(from), "{from}");
    Offer::parse(&OFFER.replace(from, to))
}

#[test]
fn candidates_leave_only_their_types() {
    let offer = Offer::parse(OFFER).expect("valid");
    let types = CandidateTypes { host: 1, reflexive: 1, relay: 1, unknown: 1 };
    assert_eq!((offer.candidate_types, types.not_relay()), (types, 3));
    let shown = format!("{offer:?}");
    assert!(!shown.contains("198.51") && !shown.contains("abcdefghij"), "{shown}");
}

#[test]
fn unknown_lines_and_attributes_are_passed_over() {
    for line in ["x=what", "b=AS:lots", "k=clear:x", "a=", "a=:", "a=fmtp:", "a=x:\u{e9}", "e=a b"]
    {
        assert!(with("a=mid:0\r\n", &format!("a=mid:0\r\n{line}\r\n")).is_ok(), "{line}");
    }
    assert!(with("o=- 1 1 IN IP4 198.51.100.7\r\n", "o=whatever\r\n").is_ok());
    assert!(Offer::parse(&OFFER.replace("\r\n", "\n")).is_ok());
}

#[test]
fn lengths_and_characters_we_depend_on_are_checked() {
    let ok = |from: &str, to: &str| with(from, to).is_ok();
    let ufrag = |n: usize| ok("ufrag:abcd", &format!("ufrag:{}", "a".repeat(n)));
    assert_eq!([3, 4, 256, 257].map(ufrag), [false, true, true, false]);
    let pwd = |n: usize| ok("pwd:abcdefghijklmnopqrstuv", &format!("pwd:{}", "a".repeat(n)));
    assert_eq!([21, 22, 256, 257].map(pwd), [false, true, true, false]);
    let mid = |n: usize| {
        let mid = "m".repeat(n);
        let text = OFFER
            .replace("mid:0", &format!("mid:{mid}"))
            .replace("BUNDLE 0", &format!("BUNDLE {mid}"));
        Offer::parse(&text).is_ok()
    };
    assert_eq!([1, 64, 65].map(mid), [true, true, false]);
    assert!(!ok("ufrag:abcd", "ufrag:ab cd") && !ok("ufrag:abcd", "ufrag:ab:d"));
    assert!(!ok("mid:0", "mid:\"0") && !ok("mid:0", "mid:0 1") && !ok("mid:0", "mid:"));
    assert!(!ok("a=mid:0", "a=mid:0\u{0}"));
    assert!(!ok("opus/48000/2", "opus/fast/2") && !ok("rtpmap:111", "rtpmap:400"));
}

#[test]
fn sizes_are_bounded() {
    let filler = |bytes: usize| "a=x:0123456\r\n".repeat(bytes / 13);
    let text = format!("{OFFER}{}", filler(MAX_SDP - OFFER.len()));
    assert!(Offer::parse(&text).is_ok());
    assert_eq!(Offer::parse(&format!("{text}{}", filler(26))), Err(ParseError::TooLarge(MAX_SDP)));
    let long = format!("{OFFER}a={}\r\n", "x".repeat(MAX_LINE));
    assert!(matches!(Offer::parse(&long), Err(ParseError::Line { line: 17, .. })));
    let section = "m=video 0 UDP/TLS/RTP/SAVPF 96\r\n";
    let sections = |n: usize| Offer::parse(&format!("{OFFER}{}", section.repeat(n)));
    assert!(sections(MAX_SECTIONS - 1).is_ok());
    assert_eq!(sections(MAX_SECTIONS), Err(ParseError::TooManySections(MAX_SECTIONS)));
}

#[test]
fn faults_name_the_line_and_never_quote_it() {
    for (text, words) in [
        (String::new(), "no m-section"),
        ("v=0\r\n".to_owned(), "no m-section"),
        ("hello 198.51.100.7".to_owned(), "line 1: is not of the form"),
        ("v=1\r\n".to_owned(), "line 1: SDP begins with v=0"),
        (OFFER.replace("m=audio", "m=198.51.100.7"), "unknown media type"),
        (OFFER.replace("BUNDLE 0", "BUNDLE 0 0"), "twice"),
        (OFFER.replace("BUNDLE 0", "BUNDLE 0 7"), "names an a=mid"),
        (OFFER.replace("a=ice-pwd", "a=ice-pw"), "m-section 0: a=ice-pwd is missing"),
        (OFFER.replace("a=mid:0", "a=setup:198.51.100.7"), "a=setup"),
        (OFFER.replace("a=mid:0", "a=fingerprint:sha-256 198.51.100.7"), "a=fingerprint"),
    ] {
        let fault = Offer::parse(&text).expect_err(words).to_string();
        assert!(fault.contains(words) && !fault.contains("198"), "{fault}");
    }
}

#[test]
fn session_level_transport_serves_every_section_and_sections_override_it() {
    let hash = |byte: &str| [byte; 32].join(":");
    let session = format!("t=0 0\r\na=fingerprint:sha-256 {}\r\na=setup:actpass\r\n", hash("AA"));
    let offer = with("t=0 0\r\n", &session).expect("valid");
    assert_eq!((offer.fingerprints[0].bytes[0], offer.setup), (0xaa, Setup::Actpass));
    let both = OFFER
        .replace("t=0 0\r\n", &session)
        .replace("a=mid:0\r\n", &format!("a=mid:0\r\na=fingerprint:SHA-256 {}\r\n", hash("bb")));
    assert_eq!(Offer::parse(&both).expect("valid").fingerprints[0].bytes, [0xbb; 32]);
}

#[test]
fn several_fingerprints_are_all_kept() {
    let text = include_str!("../../../tests/data/sdp/aiortc116-sendonly-relay.sdp");
    let offer = Offer::parse(text).expect("valid");
    let names: Vec<_> = offer.fingerprints.iter().map(|f| f.algorithm.name()).collect();
    assert_eq!(names, ["sha-256", "sha-384", "sha-512"]);
    assert_eq!(offer.candidate_types, CandidateTypes { relay: 2, ..CandidateTypes::default() });
}

#[test]
fn two_media_addresses_give_two_candidates_of_falling_priority() {
    let candidates =
        ["203.0.113.9:20000", "[2001:db8::9]:20000"].map(|a| a.parse().expect("valid"));
    let transport = Transport {
        session: 5,
        ufrag: "abcd",
        pwd: "abcdefghijklmnopqrstuv",
        fingerprint: "sha-256 AA",
        candidates: &candidates,
    };
    let accepted = Accepted {
        kind: SectionKind::Audio,
        protocol: Protocol("UDP/TLS/RTP/SAVPF"),
        mid: Some("0".to_owned()),
        direction: Direction::RecvOnly,
        rtcp_rsize: false,
        codecs: Vec::new(),
        extensions: Vec::new(),
        extmap_allow_mixed: false,
        rids: Vec::new(),
        outgoing: None,
    };
    let answer = Answer {
        sections: vec![Section::Accepted(Box::new(accepted))],
        bundle: vec!["0".to_owned()],
    };
    let text = answer.write(&transport);
    assert!(
        text.contains("a=candidate:1 1 udp 2130706431 203.0.113.9 20000 typ host\r\n"),
        "{text}"
    );
    assert!(
        text.contains("a=candidate:2 1 udp 2130706175 2001:db8::9 20000 typ host\r\n"),
        "{text}"
    );
}
