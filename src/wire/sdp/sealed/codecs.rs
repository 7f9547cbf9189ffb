//! Codecs, their parameters and header extensions: words of our own lists, numbers in bounds.

use sdp::description::common::Attribute;

use super::super::offer::payload_type;
use super::super::{Direction, HeaderExtension, OfferedCodec};

/// Most payload types kept of a section.
const MAX_CODECS: usize = 48;
/// Highest extension id with one-byte headers (RFC 8285 section 4.2).
const MAX_EXTENSION: u8 = 14;
/// Most encodings of a RED payload type (RFC 2198).
const MAX_REDUNDANT: usize = 4;

/// Names in lower case, and as their registrations write them.
const NAMES: [(&str, &str); 16] = [
    ("opus", "opus"),
    ("red", "red"),
    ("g722", "G722"),
    ("pcmu", "PCMU"),
    ("pcma", "PCMA"),
    ("cn", "CN"),
    ("telephone-event", "telephone-event"),
    ("vp8", "VP8"),
    ("vp9", "VP9"),
    ("h264", "H264"),
    ("h265", "H265"),
    ("av1", "AV1"),
    ("rtx", "rtx"),
    ("ulpfec", "ulpfec"),
    ("flexfec-03", "flexfec-03"),
    ("flexfec", "flexfec"),
];
const CLOCKS: [u32; 5] = [8_000, 16_000, 32_000, 48_000, 90_000];

/// Parameters that are a number, and the highest that makes sense: none has room for an address.
const NUMBERS: [(&str, u32); 31] = [
    ("apt", 127),
    ("cbr", 1),
    ("level-asymmetry-allowed", 1),
    ("level-id", 255),
    ("level-idx", 31),
    ("max-br", 9_999_999),
    ("max-cpb", 9_999_999),
    ("max-dpb", 9_999_999),
    ("max-fps", 99_999),
    ("max-fr", 999),
    ("max-fs", 9_999_999),
    ("max-mbps", 99_999_999),
    ("max-smbps", 99_999_999),
    ("maxaveragebitrate", 510_000),
    ("maxplaybackrate", 48_000),
    ("maxptime", 120),
    ("minptime", 120),
    ("packetization-mode", 2),
    ("profile", 7),
    ("profile-id", 255),
    ("profile-space", 3),
    ("ptime", 120),
    ("repair-window", 99_999_999),
    ("rtx-time", 99_999),
    ("sprop-maxcapturerate", 48_000),
    ("sprop-stereo", 1),
    ("stereo", 1),
    ("tier", 1),
    ("tier-flag", 1),
    ("usedtx", 1),
    ("useinbandfec", 1),
];
/// RFC 6184 section 8.1: three bytes in hexadecimal.
const LEVEL: &str = "profile-level-id";
/// RFC 7798 section 7.1.
const MODE: &str = "tx-mode";
const MODES: [&str; 3] = ["SRST", "MRST", "MRMT"];

/// `a=rtcp-fb` (RFC 4585, RFC 5104, and what browsers agree on).
const FEEDBACK: [&str; 5] = ["goog-remb", "transport-cc", "ccm fir", "nack", "nack pli"];

/// Header extensions: nothing that names a stream of simulcast, which sealed calls do not have.
const EXTENSIONS: [&str; 13] = [
    "urn:ietf:params:rtp-hdrext:sdes:mid",
    "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    "urn:ietf:params:rtp-hdrext:csrc-audio-level",
    "urn:ietf:params:rtp-hdrext:toffset",
    "urn:3gpp:video-orientation",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    "http://www.webrtc.org/experiments/rtp-hdrext/abs-capture-time",
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay",
    "http://www.webrtc.org/experiments/rtp-hdrext/video-content-type",
    "http://www.webrtc.org/experiments/rtp-hdrext/video-timing",
    "http://www.webrtc.org/experiments/rtp-hdrext/color-space",
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension",
];

/// A payload type.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Codec {
    pub(super) pt: u8,
    pub(super) name: &'static str,
    pub(super) clock: u32,
    pub(super) channels: u8,
    pub(super) parameters: Vec<(&'static str, Value)>,
    /// What RED holds.
    pub(super) redundant: Vec<u8>,
    /// One bit for each of [`FEEDBACK`].
    feedback: u8,
}

/// A parameter's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value {
    Number(u32),
    Level([u8; 3]),
    Word(&'static str),
}

/// A header extension.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Extension {
    pub(super) id: u8,
    pub(super) direction: Option<Direction>,
    pub(super) uri: &'static str,
}

impl Codec {
    fn read(offered: &OfferedCodec, attributes: &[Attribute]) -> Option<Self> {
        let (_, name) = NAMES.into_iter().find(|(known, _)| *known == offered.name)?;
        if !CLOCKS.contains(&offered.clock) || !(1..=2).contains(&offered.channels) {
            return None;
        }
        let mut parameters: Vec<(&'static str, Value)> = Vec::new();
        for (key, value) in &offered.fmtp {
            if let Some(read) = read_parameter(key, value)
                && !parameters.iter().any(|(known, _)| *known == read.0)
            {
                parameters.push(read);
            }
        }
        let values = |key: &'static str| {
            let of_key = attributes.iter().filter(move |a| a.key == key);
            of_key.filter_map(|a| a.value.as_deref()?.trim().split_once(' '))
        };
        let redundant = values("fmtp")
            .find(|(pt, _)| name == "red" && payload_type(pt) == Some(offered.pt))
            .map(|(_, list)| list.trim().split('/').map_while(payload_type).take(MAX_REDUNDANT));
        let feedback = values("rtcp-fb")
            .filter(|(pt, _)| *pt == "*" || payload_type(pt) == Some(offered.pt))
            .filter_map(|(_, what)| FEEDBACK.into_iter().position(|known| known == what.trim()))
            .fold(0, |bits, index| bits | 1 << index);
        Some(Self {
            pt: offered.pt,
            name,
            clock: offered.clock,
            channels: offered.channels,
            parameters,
            redundant: redundant.map(Iterator::collect).unwrap_or_default(),
            feedback,
        })
    }

    /// The payload type it repairs.
    fn apt(&self) -> Option<u32> {
        self.parameters.iter().find_map(|(key, value)| match value {
            Value::Number(pt) if *key == "apt" => Some(*pt),
            _ => None,
        })
    }

    pub(super) fn feedback(&self) -> impl Iterator<Item = &'static str> {
        let bits = self.feedback;
        let kept = move |(index, _): &(usize, &str)| bits & (1 << index) != 0;
        FEEDBACK.into_iter().enumerate().filter(kept).map(|(_, name)| name)
    }
}

/// The codecs of our list, in the order of preference.
pub(super) fn read(offered: &[OfferedCodec], attributes: &[Attribute]) -> Vec<Codec> {
    let known = offered.iter().filter_map(|codec| Codec::read(codec, attributes));
    let mut codecs: Vec<Codec> = known.take(MAX_CODECS).collect();
    let kept: Vec<(u8, bool)> = codecs.iter().map(|c| (c.pt, c.name == "rtx")).collect();
    let is_media = |pt: u32| kept.iter().any(|(own, rtx)| u32::from(*own) == pt && !rtx);
    // What repairs or repeats something that is not there is not there either.
    codecs.retain(|codec| codec.name != "rtx" || codec.apt().is_some_and(is_media));
    for codec in &mut codecs {
        if !codec.redundant.iter().all(|pt| is_media(u32::from(*pt))) {
            codec.redundant.clear();
        }
    }
    let repairs = ["rtx", "red", "ulpfec", "flexfec", "flexfec-03", "CN", "telephone-event"];
    if codecs.iter().all(|codec| repairs.contains(&codec.name)) {
        codecs.clear();
    }
    codecs
}

fn read_parameter(key: &str, value: &str) -> Option<(&'static str, Value)> {
    let number = |max: u32| {
        let digits = value.bytes().all(|b| b.is_ascii_digit());
        value.parse().ok().filter(|n| digits && *n <= max).map(Value::Number)
    };
    if let Some((name, max)) = NUMBERS.into_iter().find(|(name, _)| *name == key) {
        return Some((name, number(max)?));
    }
    match key {
        LEVEL if value.len() == 6 && value.bytes().all(|b| b.is_ascii_hexdigit()) => {
            let [_, a, b, c] = u32::from_str_radix(value, 16).ok()?.to_be_bytes();
            Some((LEVEL, Value::Level([a, b, c])))
        }
        MODE => Some((MODE, Value::Word(MODES.into_iter().find(|mode| *mode == value)?))),
        _ => None,
    }
}

/// The extensions of our list, each id and each extension once.
pub(super) fn read_extensions(offered: &[HeaderExtension]) -> Vec<Extension> {
    let mut extensions: Vec<Extension> = Vec::new();
    for HeaderExtension { id, direction, uri } in offered {
        let Some(uri) = EXTENSIONS.into_iter().find(|known| known == uri) else { continue };
        let taken = extensions.iter().any(|known| known.id == *id || known.uri == uri);
        if *id <= MAX_EXTENSION && !taken {
            extensions.push(Extension { id: *id, direction: *direction, uri });
        }
    }
    extensions
}
