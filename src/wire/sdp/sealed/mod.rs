//! Descriptions of sealed calls: what one client says of itself, told to the other.
//!
//! Media goes end to end, so the gateway keeps no part in it; but neither client may learn the
//! other's address from the SDP that passes through us. Nothing of it is copied. A
//! [`Description`] holds numbers, words of our own lists, and four texts whose characters are
//! checked (user fragment, password, fingerprints, mids); everything else a client said, every
//! line that we do not know, ends at [`Description::parse`]. `o= s= c=`, msid and the numbering of
//! candidates are ours, and a candidate survives only as an address that [`Description::keep`]'s
//! caller vouched for.

mod codecs;
mod write;

use std::net::{IpAddr, SocketAddr};

use sdp::SessionDescription;
use sdp::description::common::Attribute;
use sdp::description::media::MediaDescription;

use super::offer::{Offer, ParseError, describe};
use super::{Direction, Fingerprint, MediaSection, Protocol, SectionKind, Setup};
use codecs::{Codec, Extension};
pub use write::Names;

/// Most m-sections of a sealed call.
pub const MAX_SEALED_SECTIONS: usize = 8;
/// Longest description that is written, in bytes. Chromium's with every codec is under 8 KiB.
pub const MAX_WRITTEN: usize = 32 * 1024;
/// Most relayed candidates kept: three URLs, two interfaces, two families, and some room.
const MAX_CANDIDATES: usize = 16;
/// Longest `a=mid`, in bytes, and most digits in it: "0" and "application2" fit, an address in
/// whatever form does not.
const MAX_MID: usize = 16;
const MAX_MID_DIGITS: usize = 3;
/// Chromium's own limit; a client is never told of a larger one.
const MAX_MESSAGE: u32 = 262_144;
const SCTP_PORT: u16 = 5_000;

/// Why a description is not passed on. No variant carries text of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// It cannot be read at all.
    #[error(transparent)]
    Sdp(#[from] ParseError),
    /// No certificate fingerprint with a hash function that means something.
    #[error("the SDP has no a=fingerprint with sha-256, sha-384 or sha-512")]
    NoFingerprint,
    /// More than [`MAX_SEALED_SECTIONS`].
    #[error("a sealed call has at most {MAX_SEALED_SECTIONS} m-sections")]
    TooManySections,
    /// Media on more than one transport.
    #[error("every m-section must be in one a=group:BUNDLE (bundlePolicy \"max-bundle\")")]
    NotBundled,
    /// An m-section for media without `a=rtcp-mux`.
    #[error("every m-section for audio or video needs a=rtcp-mux")]
    NoMux,
    /// An `a=mid` is missing or could be an address.
    #[error(
        "every m-section needs an a=mid of 1 to {MAX_MID} letters and digits, at most \
         {MAX_MID_DIGITS} of them digits"
    )]
    BadMid,
    /// `a=setup` is not one for this side.
    #[error(
        "a=setup must be actpass, active or passive in an offer, active or passive in an answer"
    )]
    BadSetup,
    /// No m-section that two clients could use.
    #[error("no m-section has a codec of the list for sealed calls, and none is for data channels")]
    NothingToCarry,
    /// No candidate survived.
    #[error(
        "the SDP has no relayed candidate of this gateway and room: use iceTransportPolicy \
         \"relay\" with a TURN credential of class room, and send the SDP when gathering is \
         complete"
    )]
    NoRelayCandidate,
    /// An answer's m-sections are not those of the offer.
    #[error("the answer's m-sections are not those of the offer")]
    Mismatch,
    /// What would be written is longer than [`MAX_WRITTEN`].
    #[error("the description would be longer than {MAX_WRITTEN} bytes")]
    TooLong,
}

impl Fault {
    /// A stable word for programs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Sdp(_) => "bad_sdp",
            Self::NoFingerprint => "no_fingerprint",
            Self::TooManySections => "too_many_sections",
            Self::NotBundled => "not_bundled",
            Self::NoMux => "no_rtcp_mux",
            Self::BadMid => "bad_mid",
            Self::BadSetup => "bad_setup",
            Self::NothingToCarry => "no_codec",
            Self::NoRelayCandidate => "no_relay_candidate",
            Self::Mismatch => "answer_mismatch",
            Self::TooLong => "sdp_too_large",
        }
    }
}

/// Which half of the exchange a description is (RFC 3264).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    /// The first word.
    Offerer,
    /// The reply.
    Answerer,
}

/// What became of a description's candidates.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sifted {
    /// Relayed addresses of the room, told to the other side.
    pub kept: u32,
    /// Not relayed: they would have told an address.
    pub not_relayed: u32,
    /// Called relayed, but no live address of the room.
    pub foreign: u32,
}

/// One side of a sealed call.
#[derive(Clone, PartialEq, Eq)]
pub struct Description {
    ufrag: String,
    pwd: String,
    fingerprints: Vec<Fingerprint>,
    setup: Setup,
    sections: Vec<Section>,
    candidates: Vec<SocketAddr>,
    not_relayed: u32,
    foreign: u32,
}

impl std::fmt::Debug for Description {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The ICE password is a secret, and what candidates name is nobody's business yet.
        f.debug_struct("Description").field("sections", &self.sections).finish_non_exhaustive()
    }
}

/// One m-section.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Section {
    kind: SectionKind,
    protocol: Option<Protocol>,
    mid: String,
    content: Content,
}

/// What an m-section is for.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Content {
    /// Nothing: port 0.
    Rejected,
    /// Audio or video.
    Media { direction: Direction, rtcp_rsize: bool, codecs: Vec<Codec>, extensions: Vec<Extension> },
    /// Data channels (RFC 8841).
    Data { port: u16, max_message: u32 },
}

impl Description {
    /// Reads one side's SDP.
    ///
    /// # Errors
    /// A [`Fault`] that says what its sender can do.
    pub fn parse(text: &str, role: Role) -> Result<Self, Fault> {
        let description = describe(text)?;
        let offer = Offer::read(&description)?;
        if offer.media.len() > MAX_SEALED_SECTIONS {
            return Err(Fault::TooManySections);
        }
        if offer.fingerprints.is_empty() {
            return Err(Fault::NoFingerprint);
        }
        match (role, offer.setup) {
            (_, Setup::Active | Setup::Passive) | (Role::Offerer, Setup::Actpass) => {}
            (_, Setup::Holdconn) | (Role::Answerer, Setup::Actpass) => return Err(Fault::BadSetup),
        }
        let sections = offer
            .media
            .iter()
            .zip(&description.media_descriptions)
            .map(|(media, description)| Section::read(media, description, &offer.bundle))
            .collect::<Result<Vec<_>, _>>()?;
        if sections.iter().all(|section| section.content == Content::Rejected) {
            return Err(Fault::NothingToCarry);
        }
        let (candidates, foreign) = relayed_candidates(&description, &offer);
        Ok(Self {
            ufrag: offer.ufrag,
            pwd: offer.pwd,
            fingerprints: offer.fingerprints,
            setup: offer.setup,
            sections,
            candidates,
            not_relayed: offer.candidate_types.not_relay(),
            foreign,
        })
    }

    /// Keeps the candidates that `is_ours` vouches for and forgets all others.
    ///
    /// # Errors
    /// [`Fault::NoRelayCandidate`] when none is left; the counts say why.
    pub fn keep(&mut self, is_ours: impl Fn(SocketAddr) -> bool) -> (Sifted, Result<(), Fault>) {
        let claimed = self.candidates.len();
        self.candidates.retain(|candidate| is_ours(*candidate));
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let sifted = Sifted {
            kept: count(self.candidates.len()),
            not_relayed: self.not_relayed,
            foreign: self.foreign.saturating_add(count(claimed - self.candidates.len())),
        };
        let left = if self.candidates.is_empty() { Err(Fault::NoRelayCandidate) } else { Ok(()) };
        (sifted, left)
    }

    /// Forgets all but the candidates: what was read takes several times the room of its text.
    pub fn keep_only_candidates(&mut self) {
        (self.ufrag, self.pwd) = (String::new(), String::new());
        (self.fingerprints, self.sections) = (Vec::new(), Vec::new());
    }

    /// The relayed addresses it names, of which [`Self::keep`] leaves ours.
    #[must_use]
    pub fn candidates(&self) -> &[SocketAddr] {
        &self.candidates
    }

    /// Whether it answers `offer`, as far as the other browser will insist (RFC 3264 section 6).
    ///
    /// # Errors
    /// [`Fault::Mismatch`].
    pub fn check_answers(&self, offer: &Self) -> Result<(), Fault> {
        let fits = |(ours, theirs): (&Section, &Section)| {
            let accepted = ours.content == Content::Rejected || theirs.content != Content::Rejected;
            ours.mid == theirs.mid && ours.kind == theirs.kind && accepted
        };
        let all = self.sections.len() == offer.sections.len()
            && self.sections.iter().zip(&offer.sections).all(fits);
        if all { Ok(()) } else { Err(Fault::Mismatch) }
    }
}

impl Section {
    fn read(
        media: &MediaSection,
        description: &MediaDescription,
        bundle: &[String],
    ) -> Result<Self, Fault> {
        let mid = media.mid.clone().filter(|mid| is_plain(mid)).ok_or(Fault::BadMid)?;
        let section = |content| Self {
            kind: media.kind,
            protocol: media.protocol,
            mid: mid.clone(),
            content,
        };
        let content = read_content(media, description)?;
        // Only what shares the one transport can work: there are candidates for no other.
        if content != Content::Rejected && !bundle.contains(&mid) {
            return Err(Fault::NotBundled);
        }
        Ok(section(content))
    }
}

fn read_content(media: &MediaSection, description: &MediaDescription) -> Result<Content, Fault> {
    let Some(protocol) = media.protocol.filter(|_| !media.disabled) else {
        return Ok(Content::Rejected);
    };
    match media.kind {
        SectionKind::Audio | SectionKind::Video if protocol.is_dtls_srtp() => {
            let codecs = codecs::read(&media.codecs, &description.attributes);
            if codecs.is_empty() {
                return Ok(Content::Rejected);
            }
            if !media.rtcp_mux {
                return Err(Fault::NoMux);
            }
            Ok(Content::Media {
                direction: media.direction,
                rtcp_rsize: media.rtcp_rsize,
                codecs,
                extensions: codecs::read_extensions(&media.extensions),
            })
        }
        SectionKind::Application if protocol.name() == "UDP/DTLS/SCTP" => {
            let number = |key| value(&description.attributes, key).and_then(|v| v.parse().ok());
            let port = number("sctp-port").and_then(|port: u32| u16::try_from(port).ok());
            Ok(Content::Data {
                port: port.unwrap_or(SCTP_PORT),
                // RFC 8841 section 6.1: 64 KiB when not said, any when 0.
                max_message: match number("max-message-size") {
                    None => 65_536,
                    Some(0) => MAX_MESSAGE,
                    Some(size) => size.min(MAX_MESSAGE),
                },
            })
        }
        _ => Ok(Content::Rejected),
    }
}

fn is_plain(mid: &str) -> bool {
    mid.len() <= MAX_MID
        && mid.bytes().all(|b| b.is_ascii_alphanumeric())
        && mid.bytes().filter(u8::is_ascii_digit).count() <= MAX_MID_DIGITS
}

fn value<'a>(attributes: &'a [Attribute], key: &str) -> Option<&'a str> {
    attributes.iter().find(|a| a.key == key)?.value.as_deref().map(str::trim)
}

/// Candidates of the bundle's transport that say they are relayed, the preferred first, and how
/// many of them cannot be any of ours.
fn relayed_candidates(description: &SessionDescription, offer: &Offer) -> (Vec<SocketAddr>, u32) {
    let tag = offer.bundle.first();
    let tagged = offer.media.iter().position(|m| m.mid.is_some() && m.mid.as_ref() == tag);
    let tagged = description.media_descriptions.get(tagged.unwrap_or_default());
    let attributes = description.attributes.iter().chain(tagged.iter().flat_map(|m| &m.attributes));
    let mut found: Vec<(u32, SocketAddr)> = Vec::new();
    let mut foreign = 0_u32;
    for attribute in attributes.filter(|a| a.key == "candidate") {
        let line = attribute.value.as_deref().unwrap_or_default();
        match read_candidate(line) {
            Candidate::Relayed(priority, address) => {
                if found.iter().any(|(_, known)| *known == address) {
                    continue;
                }
                if found.len() < MAX_CANDIDATES {
                    found.push((priority, address));
                } else {
                    foreign = foreign.saturating_add(1);
                }
            }
            Candidate::Foreign => foreign = foreign.saturating_add(1),
            Candidate::Other => {}
        }
    }
    found.sort_by_key(|(priority, _)| std::cmp::Reverse(*priority));
    (found.into_iter().map(|(_, address)| address).collect(), foreign)
}

enum Candidate {
    Relayed(u32, SocketAddr),
    /// Called relayed, but over TCP, of another component, or not an IP address.
    Foreign,
    /// Not relayed, or not a candidate.
    Other,
}

/// RFC 8839 section 5.1: foundation, component, transport, priority, address, port, `typ`, type.
fn read_candidate(line: &str) -> Candidate {
    let mut words = line.split_ascii_whitespace();
    let mut word = || words.next().unwrap_or_default();
    let [_, component, transport, priority, ip, port, typ, kind] = std::array::from_fn(|_| word());
    if typ != "typ" || kind != "relay" {
        return Candidate::Other;
    }
    let address = ip.parse::<IpAddr>().ok().zip(port.parse().ok()).map(SocketAddr::from);
    match (address, priority.parse()) {
        (Some(address), Ok(priority))
            if component == "1" && transport.eq_ignore_ascii_case("udp") =>
        {
            Candidate::Relayed(priority, address)
        }
        _ => Candidate::Foreign,
    }
}

#[cfg(test)]
mod tests;
