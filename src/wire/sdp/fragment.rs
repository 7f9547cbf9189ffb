//! `application/trickle-ice-sdpfrag` (RFC 8840 section 9): a client's candidates and, for an ICE
//! restart, its new credentials; and ours in return.

use std::fmt::{self, Write};
use std::net::SocketAddr;

use super::answer::write_candidates;
use super::offer::{count_candidate, read_pwd, read_ufrag};
use super::{CandidateTypes, MAX_LINE, MAX_MID, MAX_SDP, MAX_SECTIONS, ParseError, is_token_char};

/// A fragment, as far as we need it. Addresses of its candidates are gone by the time it exists.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Fragment {
    /// The client's ufrag; `None`: the fragment does not say which ICE generation it is of.
    pub ufrag: Option<String>,
    /// Whether it has a password beside each ufrag.
    pub has_pwd: bool,
    /// How many candidates of each type it has.
    pub candidates: CandidateTypes,
    /// The client has no more.
    pub end_of_candidates: bool,
    /// `a=mid` of its first m-section that has one, and whether that is video.
    pub section: Option<(String, bool)>,
}

impl fmt::Debug for Fragment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fragment").field("candidates", &self.candidates).finish_non_exhaustive()
    }
}

impl Fragment {
    /// Reads a fragment. Candidates of which we can make nothing are counted, never refused
    /// (RFC 9725 section 4.3.2).
    ///
    /// # Errors
    /// [`ParseError`]: too long, not lines of SDP, bad credentials, or those of two transports
    /// (we bundle, so there is one).
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() > MAX_SDP {
            return Err(ParseError::TooLarge(MAX_SDP));
        }
        let mut fragment = Self::default();
        let mut pwd: Option<&str> = None;
        let (mut sections, mut video) = (0, false);
        for (index, line) in text.split('\n').enumerate() {
            let fail = |fault| ParseError::Line { line: index + 1, fault };
            let line = line.strip_suffix('\r').unwrap_or(line).trim_end_matches(' ');
            if line.is_empty() {
                continue;
            }
            if line.len() > MAX_LINE {
                return Err(fail("longer than 4096 bytes"));
            }
            if line.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
                return Err(fail("has control characters"));
            }
            match line.split_once('=').filter(|(kind, _)| kind.len() == 1) {
                Some(("m", value)) => {
                    sections += 1;
                    video = value.starts_with("video ");
                    if sections > MAX_SECTIONS {
                        return Err(ParseError::TooManySections(MAX_SECTIONS));
                    }
                }
                Some(("a", value)) => {
                    let (key, value) = value.split_once(':').unwrap_or((value, ""));
                    let value = value.trim();
                    match key {
                        "ice-ufrag" => {
                            let value = read_ufrag(value).map_err(fail)?;
                            if fragment.ufrag.as_ref().is_some_and(|other| *other != value) {
                                return Err(fail("another a=ice-ufrag: a bundle has one"));
                            }
                            fragment.ufrag = Some(value);
                        }
                        "ice-pwd" => {
                            read_pwd(value).map_err(fail)?;
                            if pwd.is_some_and(|other| other != value) {
                                return Err(fail("another a=ice-pwd: a bundle has one"));
                            }
                            pwd = Some(value);
                        }
                        "candidate" => count_candidate(value, &mut fragment.candidates),
                        "end-of-candidates" => fragment.end_of_candidates = true,
                        "mid" if fragment.section.is_none() && sections > 0 => {
                            let fits = (1..=MAX_MID).contains(&value.len());
                            if !fits || !value.bytes().all(is_token_char) {
                                return Err(fail("a=mid is not a token of at most 64 bytes"));
                            }
                            fragment.section = Some((value.to_owned(), video));
                        }
                        _ => {}
                    }
                }
                Some(_) => {}
                None => return Err(fail("is not of the form letter=value")),
            }
        }
        fragment.has_pwd = pwd.is_some();
        Ok(fragment)
    }

    /// Our side of an ICE restart that this fragment asks for. All m-sections share one transport,
    /// so one stands for all.
    #[must_use]
    pub fn answer(&self, ufrag: &str, pwd: &str, candidates: &[SocketAddr]) -> String {
        let mut out = String::with_capacity(512);
        // Writing to a String cannot fail.
        let _infallible = self.write_to(&mut out, ufrag, pwd, candidates);
        out
    }

    fn write_to(
        &self,
        out: &mut String,
        ufrag: &str,
        pwd: &str,
        candidates: &[SocketAddr],
    ) -> fmt::Result {
        let (mid, video) = self.section.as_ref().map_or(("0", false), |(mid, video)| (mid, *video));
        let kind = if video { "video" } else { "audio" };
        // RFC 8840 section 9.2: port 9 and a format that says nothing.
        write!(out, "a=ice-lite\r\nm={kind} 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:{mid}\r\n")?;
        write!(out, "a=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n")?;
        write_candidates(out, candidates)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRICKLE: &str = "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\n\
        m=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:v1\r\n\
        a=candidate:1 1 udp 1 192.0.2.7 5 typ host\r\n\
        a=candidate:2 1 udp 1 0a7b.local 5 typ host\r\n\
        a=candidate:3 1 udp 1 203.0.113.7 5 typ relay raddr 0.0.0.0 rport 0\r\n\
        a=candidate:4 1 quic what\r\na=end-of-candidates\r\n";

    #[test]
    fn a_fragment_leaves_only_the_types_of_its_candidates() {
        let fragment = Fragment::parse(TRICKLE).unwrap();
        assert_eq!(fragment.ufrag.as_deref(), Some("EsAw"));
        assert!(fragment.has_pwd && fragment.end_of_candidates);
        let candidates = CandidateTypes { host: 2, relay: 1, unknown: 1, reflexive: 0 };
        assert_eq!(fragment.candidates, candidates);
        assert!(!format!("{fragment:?}").contains("EsAw"));
    }

    #[test]
    fn our_fragment_has_credentials_and_candidates_for_the_section_it_was_asked_for() {
        let fragment = Fragment::parse(TRICKLE).unwrap();
        let media = ["203.0.113.9:20000".parse().unwrap()];
        let text = fragment.answer("ours", "a password of ours....", &media);
        let expected = "a=ice-lite\r\nm=video 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:v1\r\n\
            a=ice-ufrag:ours\r\na=ice-pwd:a password of ours....\r\n\
            a=candidate:1 1 udp 2130706431 203.0.113.9 20000 typ host\r\n\
            a=end-of-candidates\r\n";
        assert_eq!(text, expected);
        let bare = Fragment::parse("a=ice-ufrag:EsAw").unwrap();
        assert!(
            bare.answer("u", "p", &media).contains("m=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=mid:0\r\n")
        );
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in "(a=|m=|ice-ufrag:|ice-pwd:|mid:|candidate:|typ |[ -~]|\\PC|\r|\n){0,60}") {
            if let Ok(fragment) = Fragment::parse(&text) {
                let answer = fragment.answer("ours", "a password of ours....", &[]);
                proptest::prop_assert!(answer.lines().count() == 6, "{}", answer);
            }
        }
    }

    #[test]
    fn what_is_no_fragment_is_refused_with_its_line() {
        for (text, line) in [
            ("a=ice-ufrag:E", 1),
            ("a=ice-ufrag:EsAw\na=ice-ufrag:EsAx", 2),
            ("a=ice-ufrag:EsAw\na=ice-pwd:short", 2),
            ("\nnot SDP", 2),
            ("a=x\u{1}", 1),
            ("m=audio 9 x 0\na=mid:a b", 2),
            (&"a".repeat(MAX_LINE + 1), 1),
        ] {
            let Err(ParseError::Line { line: found, .. }) = Fragment::parse(text) else {
                panic!("{text}")
            };
            assert_eq!(found, line, "{text}");
        }
        let many = "m=audio 9 x 0\n".repeat(MAX_SECTIONS + 1);
        assert_eq!(Fragment::parse(&many), Err(ParseError::TooManySections(MAX_SECTIONS)));
        assert_eq!(Fragment::parse(&"a=x\n".repeat(MAX_SDP)), Err(ParseError::TooLarge(MAX_SDP)));
        assert_eq!(Fragment::parse(""), Ok(Fragment::default()));
    }
}
