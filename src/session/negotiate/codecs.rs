//! Which codecs pass, with which parameters, and whether two ends mean the same by one.

use crate::wire::media::{Codec, CodecName, MediaKind};
use crate::wire::sdp::{AnsweredCodec, Feedback, MediaSection, OfferedCodec, SectionKind};

/// RFC 5761 section 4: with rtcp-mux, 64 to 95 with the marker bit would read as RTCP.
pub(super) const fn usable(pt: u8) -> bool {
    !matches!(pt, 64..=95)
}

/// The first codec of a section that passes through.
pub(super) fn first_codec(media: &MediaSection) -> Option<(&OfferedCodec, Codec)> {
    media.codecs.iter().find_map(|offered| Some((offered, typed(media.kind, offered)?)))
}

/// The codec of a player's section that decodes `wanted`: with the same profile if there is one.
pub(super) fn matching<'a>(
    media: &'a MediaSection,
    wanted: &Codec,
) -> Option<(&'a OfferedCodec, Codec)> {
    let typed = || {
        let all = media.codecs.iter().filter_map(|o| Some((o, typed(media.kind, o)?)));
        all.filter(|(_, codec)| codec.name == wanted.name)
    };
    let exact = typed().find(|(_, codec)| same_profile(codec, wanted));
    exact.or_else(|| typed().find(|(_, codec)| decodes(codec, wanted)))
}

fn same_profile(a: &Codec, b: &Codec) -> bool {
    match a.name {
        CodecName::Opus | CodecName::Vp8 => true,
        CodecName::Vp9 => number(a, "profile-id") == number(b, "profile-id"),
        // Absent: the main profile (RFC 7798 section 7.1).
        CodecName::H265 => {
            let profile = |codec| parameter(codec, "profile-id").unwrap_or("1");
            profile(a) == profile(b)
        }
        CodecName::Av1 => number(a, "profile") == number(b, "profile"),
        CodecName::H264 => h264_profile(a).is_some() && h264_profile(a) == h264_profile(b),
    }
}

/// Whether a decoder of `decoder`'s profile takes a stream of `stream`'s.
fn decodes(decoder: &Codec, stream: &Codec) -> bool {
    use H264Profile::{Baseline, ConstrainedBaseline, ConstrainedHigh, High, Main};
    if decoder.name != CodecName::H264 || stream.name != CodecName::H264 {
        return false;
    }
    // RFC 6184 section 8.1, table 5: what is inside what.
    matches!(
        (h264_profile(stream), h264_profile(decoder)),
        (Some(ConstrainedBaseline), Some(Baseline | Main | ConstrainedHigh | High))
            | (Some(Main | ConstrainedHigh), Some(High))
    )
}

fn parameter<'a>(codec: &'a Codec, key: &str) -> Option<&'a str> {
    codec.fmtp.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
}

/// A numeric parameter whose absence means 0, as of `profile-id` and AV1's `profile`.
fn number(codec: &Codec, key: &str) -> u32 {
    parameter(codec, key).and_then(|v| v.parse().ok()).unwrap_or(0)
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum H264Profile {
    ConstrainedBaseline,
    Baseline,
    Main,
    ConstrainedHigh,
    High,
    Other(u16),
}

/// The profile of a profile-level-id (RFC 6184 section 8.1): 42e01f and 4de01f are both
/// constrained baseline. The level plays no part: both ends adapt to what comes.
pub(super) fn h264_profile(codec: &Codec) -> Option<H264Profile> {
    // Without the parameter: baseline, level 1.
    let id = parameter(codec, "profile-level-id").unwrap_or("42000a");
    let id = u32::from_str_radix(id, 16).ok()?;
    let [_, profile, constraints, _] = id.to_be_bytes();
    Some(match (profile, constraints) {
        (0x42, c) if c & 0x4f == 0x40 => H264Profile::ConstrainedBaseline,
        (0x4d, c) if c & 0x8f == 0x80 => H264Profile::ConstrainedBaseline,
        (0x58, c) if c & 0xcf == 0xc0 => H264Profile::ConstrainedBaseline,
        (0x42, c) if c & 0x4f == 0 => H264Profile::Baseline,
        (0x58, c) if c & 0xcf == 0x80 => H264Profile::Baseline,
        (0x4d, c) if c & 0xaf == 0 => H264Profile::Main,
        (0x64, 0x0c) => H264Profile::ConstrainedHigh,
        (0x64, 0) => H264Profile::High,
        (profile, constraints) => H264Profile::Other(u16::from_be_bytes([profile, constraints])),
    })
}

/// The form a parameter's value must have to be kept. All are too narrow for an address.
#[derive(Clone, Copy)]
enum Form {
    /// At most seven decimal digits.
    Number,
    /// `0` or `1`.
    Bool,
    /// Six hexadecimal digits.
    Profile,
    /// `SRST`.
    Single,
}

impl Form {
    fn fits(self, value: &str) -> bool {
        match self {
            Self::Number => {
                (1..=7).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit())
            }
            Self::Bool => matches!(value, "0" | "1"),
            Self::Single => value == "SRST",
            Self::Profile => value.len() == 6 && value.bytes().all(|b| b.is_ascii_hexdigit()),
        }
    }
}

/// A codec we pass through, with the parameters that come back in the answer. What a client
/// says of its own sending (`sprop-…`) or of limits to what it receives and would not mean for
/// us (VP8's `max-fs`) is left out.
pub(super) fn typed(kind: SectionKind, offered: &OfferedCodec) -> Option<Codec> {
    const OPUS: &[(&str, Form)] = &[
        ("minptime", Form::Number),
        ("maxptime", Form::Number),
        ("maxplaybackrate", Form::Number),
        ("maxaveragebitrate", Form::Number),
        ("stereo", Form::Bool),
        ("cbr", Form::Bool),
        ("useinbandfec", Form::Bool),
        ("usedtx", Form::Bool),
    ];
    const H264: &[(&str, Form)] = &[
        ("level-asymmetry-allowed", Form::Bool),
        ("packetization-mode", Form::Bool),
        ("profile-level-id", Form::Profile),
    ];
    const AV1: &[(&str, Form)] =
        &[("level-idx", Form::Number), ("profile", Form::Number), ("tier", Form::Bool)];
    const H265: &[(&str, Form)] = &[
        ("profile-id", Form::Number),
        ("tier-flag", Form::Bool),
        ("level-id", Form::Number),
        ("tx-mode", Form::Single),
    ];
    if !usable(offered.pt) {
        return None;
    }
    let video = kind == SectionKind::Video && offered.clock == 90_000;
    let (name, forms): (_, &[(&str, Form)]) = match offered.name.as_str() {
        "opus" if kind == SectionKind::Audio => (CodecName::Opus, OPUS),
        "vp8" if video => (CodecName::Vp8, &[]),
        "vp9" if video => (CodecName::Vp9, &[("profile-id", Form::Number)]),
        "h264" if video => (CodecName::H264, H264),
        "av1" if video => (CodecName::Av1, AV1),
        "h265" if video => (CodecName::H265, H265),
        _ => return None,
    };
    let well_formed = match name {
        // RFC 7587 section 7: always 48000/2.
        CodecName::Opus => offered.clock == 48_000 && offered.channels == 2,
        CodecName::H264 => {
            offered.parameter("packetization-mode") == Some("1")
                && offered.parameter("profile-level-id").is_none_or(|id| Form::Profile.fits(id))
        }
        // One stream in one session, the default.
        CodecName::H265 => offered.parameter("tx-mode").is_none_or(|mode| Form::Single.fits(mode)),
        CodecName::Vp8 | CodecName::Vp9 | CodecName::Av1 => true,
    };
    let keep = |(key, form): &(&str, Form)| {
        let value = offered.parameter(key).filter(|value| form.fits(value))?;
        Some(((*key).to_owned(), value.to_owned()))
    };
    well_formed.then(|| Codec { name, fmtp: forms.iter().filter_map(keep).collect() })
}

/// Redundant Opus (RFC 2198), where it is offered.
pub(super) fn red_of(media: &MediaSection, kind: MediaKind) -> Option<&OfferedCodec> {
    let is_red = |c: &&OfferedCodec| c.is("red") && c.clock == 48_000 && c.channels == 2;
    media.codecs.iter().filter(|_| kind == MediaKind::Audio).find(is_red).filter(|c| usable(c.pt))
}

/// Whether a client prefers one payload type to another.
pub(super) fn precedes(media: &MediaSection, one: u8, other: u8) -> bool {
    let place = |pt| media.codecs.iter().position(|codec| codec.pt == pt);
    place(one) < place(other)
}

pub(super) fn answered_red(red: &OfferedCodec, opus: &OfferedCodec) -> AnsweredCodec {
    AnsweredCodec {
        pt: red.pt,
        name: "red",
        clock: 48_000,
        channels: 2,
        fmtp: vec![(String::new(), format!("{0}/{0}", opus.pt))],
        feedback: Feedback::default(),
    }
}
