//! SDP offers in (RFC 8866, JSEP of RFC 8829), SDP answers out.
//!
//! The grammar is the `sdp` crate's; [`Offer`] is ours. Lines we never use (`o=`, `c=`, `b=`,
//! unknown letters) are not even given to the grammar: they cannot refuse an offer, and the
//! addresses in them end there. What an [`Answer`] says is written from our own types: the only
//! texts of a client that come back are its own `a=mid` and codec parameters, and these have been
//! checked character by character.

mod answer;
mod fragment;
mod offer;
mod offering;
pub mod sealed;
mod simulcast;

pub use answer::{
    Accepted, Answer, AnsweredCodec, AnsweredExtension, Outgoing, Section, Transport,
};
pub use fragment::Fragment;
pub use offer::{Feedback, HeaderExtension, MediaSection, Offer, OfferedCodec, ParseError};
pub use offering::{OwnMedia, OwnOffer, OwnSection, OwnTrack};

/// Longest offer, in bytes. Chromium's largest with every codec is under 12 KiB.
pub const MAX_SDP: usize = 64 * 1024;
/// Longest line, in bytes.
pub const MAX_LINE: usize = 4_096;
/// Most m-sections in an offer.
pub const MAX_SECTIONS: usize = 64;
/// Longest answer to an offer of ours, in bytes: we offer few codecs, and more m-sections.
pub const MAX_ANSWER_SDP: usize = 256 * 1024;
/// Most m-sections in an offer of ours.
pub const MAX_OWN_SECTIONS: usize = 129;
/// Shortest and longest ICE user fragment (RFC 8839 section 5.4), in bytes.
pub const UFRAG_LEN: std::ops::RangeInclusive<usize> = 4..=256;
/// Shortest and longest ICE password (RFC 8839 section 5.4), in bytes.
pub const PWD_LEN: std::ops::RangeInclusive<usize> = 22..=256;
/// Longest `a=mid`, in bytes.
pub const MAX_MID: usize = 64;
/// Most fingerprints kept of a section: one per hash function and some room.
pub const MAX_FINGERPRINTS: usize = 8;
/// Most SSRCs, SSRC groups and header extensions kept of a section, each.
pub const MAX_PER_SECTION: usize = 64;
/// Most simulcast layers of a section, and the longest rid a one-byte header extension carries.
pub const MAX_RIDS: usize = 4;
/// See [`MAX_RIDS`]; bytes.
pub const MAX_RID: usize = 16;
/// Most `a=fmtp` parameters kept of a codec.
pub const MAX_PARAMETERS: usize = 32;
/// Longest `a=fmtp` value kept, in bytes.
pub const MAX_PARAMETER: usize = 256;

/// Which way media flows, from the side of the one who says it (RFC 3264 section 5.1).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Direction {
    /// Both ways; the default.
    #[default]
    SendRecv,
    /// Out.
    SendOnly,
    /// In.
    RecvOnly,
    /// Not at all.
    Inactive,
}

impl Direction {
    /// From an attribute's name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::SendRecv, Self::SendOnly, Self::RecvOnly, Self::Inactive]
            .into_iter()
            .find(|direction| direction.name() == name)
    }

    /// Its attribute's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::SendRecv => "sendrecv",
            Self::SendOnly => "sendonly",
            Self::RecvOnly => "recvonly",
            Self::Inactive => "inactive",
        }
    }

    /// The same flow told by the other side.
    #[must_use]
    pub const fn reversed(self) -> Self {
        match self {
            Self::SendOnly => Self::RecvOnly,
            Self::RecvOnly => Self::SendOnly,
            Self::SendRecv | Self::Inactive => self,
        }
    }

    /// Whether whoever says it sends.
    #[must_use]
    pub const fn sends(self) -> bool {
        matches!(self, Self::SendRecv | Self::SendOnly)
    }

    /// Whether whoever says it receives.
    #[must_use]
    pub const fn receives(self) -> bool {
        matches!(self, Self::SendRecv | Self::RecvOnly)
    }
}

/// The DTLS role a side can take (RFC 8842 section 5.2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Setup {
    /// Client.
    Active,
    /// Server.
    Passive,
    /// Either.
    Actpass,
    /// None for now.
    Holdconn,
}

impl Setup {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "active" => Self::Active,
            "passive" => Self::Passive,
            "actpass" => Self::Actpass,
            "holdconn" => Self::Holdconn,
            _ => return None,
        })
    }
}

/// A hash function of `a=fingerprint` (RFC 8122 section 5) that is strong enough to identify
/// anybody.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HashAlgorithm {
    /// `sha-256`.
    Sha256,
    /// `sha-384`.
    Sha384,
    /// `sha-512`.
    Sha512,
}

impl HashAlgorithm {
    /// Its name in SDP.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha-256",
            Self::Sha384 => "sha-384",
            Self::Sha512 => "sha-512",
        }
    }

    /// Length of its hashes, in bytes.
    #[must_use]
    pub const fn hash_len(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha384, Self::Sha512]
            .into_iter()
            .find(|algorithm| name.eq_ignore_ascii_case(algorithm.name()))
    }
}

/// A certificate's fingerprint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fingerprint {
    /// The hash function.
    pub algorithm: HashAlgorithm,
    /// The hash of the certificate's DER encoding, of the function's length.
    pub bytes: Vec<u8>,
}

/// The first word of an `m=` line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SectionKind {
    /// `audio`.
    Audio,
    /// `video`.
    Video,
    /// `application`: data channels.
    Application,
    /// Another registered word.
    Other(&'static str),
}

impl SectionKind {
    /// As in the `m=` line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Video => "video",
            Self::Application => "application",
            Self::Other(name) => name,
        }
    }

    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "audio" => Self::Audio,
            "video" => Self::Video,
            "application" => Self::Application,
            "text" => Self::Other("text"),
            "message" => Self::Other("message"),
            "image" => Self::Other("image"),
            _ => return None,
        })
    }
}

/// The protocol of an `m=` line.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Protocol(&'static str);

impl Protocol {
    const KNOWN: [Self; 9] = [
        Self("UDP/TLS/RTP/SAVPF"),
        Self("UDP/TLS/RTP/SAVP"),
        Self("RTP/SAVPF"),
        Self("RTP/SAVP"),
        Self("RTP/AVPF"),
        Self("RTP/AVP"),
        Self("UDP/DTLS/SCTP"),
        Self("DTLS/SCTP"),
        Self("udptl"),
    ];

    /// The words of a section over DTLS-SRTP, all of which JSEP (RFC 8829 section 5.1.2) accepts.
    #[must_use]
    pub fn is_dtls_srtp(self) -> bool {
        matches!(self.0, "UDP/TLS/RTP/SAVPF" | "UDP/TLS/RTP/SAVP" | "RTP/SAVPF" | "RTP/SAVP")
    }

    /// As in the `m=` line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.0
    }

    fn from_words(words: &[String]) -> Option<Self> {
        let whole = words.join("/");
        Self::KNOWN.into_iter().find(|known| known.0 == whole)
    }
}

/// How many candidates of each type an offer had (RFC 8839 section 5.1). Their addresses are
/// gone by the time this exists.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CandidateTypes {
    /// An interface's own address (or its mDNS name).
    pub host: u32,
    /// An address seen by a STUN server or a peer.
    pub reflexive: u32,
    /// An allocation on a TURN server.
    pub relay: u32,
    /// A word we do not know.
    pub unknown: u32,
}

impl CandidateTypes {
    /// Candidates that would tell an address other than a relay's.
    #[must_use]
    pub const fn not_relay(&self) -> u32 {
        self.host.saturating_add(self.reflexive).saturating_add(self.unknown)
    }
}

/// RFC 8839 section 5.4: ALPHA / DIGIT / "+" / "/"; some agents also use "-", "_" and "=".
fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'-' | b'_' | b'=')
}

/// `token-char` of RFC 8866 section 9.
fn is_token_char(byte: u8) -> bool {
    matches!(byte,
        b'!' | b'#'..=b'\'' | b'*'..=b'+' | b'-'..=b'.' | b'0'..=b'9' | b'A'..=b'Z'
        | b'^'..=b'~')
}

#[cfg(test)]
mod tests;
