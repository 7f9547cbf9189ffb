//! Reading an offer.

use std::io::Cursor;

use sdp::SessionDescription;
use sdp::description::common::Attribute;
use sdp::description::media::MediaDescription;

use super::{
    CandidateTypes, Direction, Fingerprint, HashAlgorithm, MAX_ANSWER_SDP, MAX_FINGERPRINTS,
    MAX_LINE, MAX_MID, MAX_OWN_SECTIONS, MAX_PARAMETER, MAX_PARAMETERS, MAX_PER_SECTION, MAX_SDP,
    MAX_SECTIONS, PWD_LEN, Protocol, SectionKind, Setup, UFRAG_LEN, is_ice_char, is_token_char,
    simulcast,
};

/// Why a text is not an offer we can read. No variant carries text of the offer: it may hold
/// addresses, and the message goes into an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// More bytes than these: [`MAX_SDP`], [`MAX_ANSWER_SDP`].
    #[error("the SDP is longer than {0} bytes")]
    TooLarge(usize),
    /// A line (1-based) is not `letter=value`, too long, or has control characters.
    #[error("line {line}: {fault}")]
    Line {
        /// Which line, 1-based.
        line: usize,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// No `m=` line.
    #[error("the SDP has no m-section")]
    NoSections,
    /// More than these: [`MAX_SECTIONS`], [`MAX_OWN_SECTIONS`].
    #[error("the SDP has more than {0} m-sections")]
    TooManySections(usize),
    /// The grammar refused it: the session part or an `m=` line.
    #[error("an m= line has an unknown media type, port or protocol")]
    Grammar,
    /// A value in the session part that we depend on.
    #[error("session part: {fault}")]
    Session {
        /// What is wrong.
        fault: &'static str,
    },
    /// A value in an m-section (0-based) that we depend on.
    #[error("m-section {section}: {fault}")]
    Section {
        /// Which m-section, 0-based.
        section: usize,
        /// What is wrong.
        fault: &'static str,
    },
}

/// An offer, as far as we need it.
#[derive(Clone, PartialEq, Eq)]
pub struct Offer {
    /// The client's ICE user fragment: of the section whose transport the bundle uses.
    pub ufrag: String,
    /// Its ICE password.
    pub pwd: String,
    /// Its certificate's fingerprints: any of them may match. Empty: none we can use.
    pub fingerprints: Vec<Fingerprint>,
    /// Its DTLS role.
    pub setup: Setup,
    /// The mids of the first `a=group:BUNDLE` (RFC 9143), in its order.
    pub bundle: Vec<String>,
    /// The m-sections in order.
    pub media: Vec<MediaSection>,
    /// Types of its candidates.
    pub candidate_types: CandidateTypes,
}

impl std::fmt::Debug for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The ICE password is a secret.
        f.debug_struct("Offer").field("ufrag", &self.ufrag).field("media", &self.media).finish()
    }
}

/// One m-section of an offer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MediaSection {
    /// Audio, video or something we reject.
    pub kind: SectionKind,
    /// Its protocol; `None`: a combination of words we do not know.
    pub protocol: Option<Protocol>,
    /// `a=mid`.
    pub mid: Option<String>,
    /// Which way the client wants media to flow.
    pub direction: Direction,
    /// Offered as unused: port 0 without `a=bundle-only` (RFC 9143 section 6).
    pub disabled: bool,
    /// `a=rtcp-mux`.
    pub rtcp_mux: bool,
    /// `a=rtcp-rsize` (RFC 5506).
    pub rtcp_rsize: bool,
    /// The first entry of its format list, if a payload type.
    pub first_format: Option<u8>,
    /// Its codecs in the order of preference, RTX and FEC included.
    pub codecs: Vec<OfferedCodec>,
    /// Its header extensions.
    pub extensions: Vec<HeaderExtension>,
    /// `a=extmap-allow-mixed` (RFC 8285 section 6): their elements may have the two-byte form.
    pub extmap_allow_mixed: bool,
    /// Its SSRCs in order.
    pub ssrcs: Vec<u32>,
    /// Its `a=ssrc-group:FID`: a stream and its retransmissions.
    pub fid: Vec<(u32, u32)>,
    /// The layers it sends by simulcast (RFC 8853), at most [`super::MAX_RIDS`], in its order.
    pub rids: Vec<String>,
}

impl MediaSection {
    /// The payload type that carries retransmissions of `pt` (RFC 4588 section 8).
    #[must_use]
    pub fn rtx_of(&self, pt: u8) -> Option<u8> {
        let apt = |c: &OfferedCodec| c.parameter("apt").and_then(|v| v.parse::<u8>().ok());
        self.codecs.iter().find(|c| c.is("rtx") && apt(c) == Some(pt)).map(|c| c.pt)
    }
}

/// One payload type of an m-section.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferedCodec {
    /// The payload type, below 128.
    pub pt: u8,
    /// The encoding's name, lower case; a token.
    pub name: String,
    /// RTP clock rate, Hz.
    pub clock: u32,
    /// Channels; 1 when not said.
    pub channels: u8,
    /// `a=fmtp` parameters that have the form `key=value`, keys lower case, visible ASCII.
    pub fmtp: Vec<(String, String)>,
    /// `a=rtcp-fb`.
    pub feedback: Feedback,
}

impl OfferedCodec {
    /// Whether it is `name` (lower case).
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name == name
    }

    /// A parameter's value.
    #[must_use]
    pub fn parameter(&self, key: &str) -> Option<&str> {
        self.fmtp.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// RTCP feedback of a codec (RFC 4585, RFC 5104); what we never use is not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Feedback {
    /// `nack`.
    pub nack: bool,
    /// `nack pli`.
    pub pli: bool,
    /// `ccm fir`.
    pub fir: bool,
    /// `goog-remb`.
    pub remb: bool,
    /// `transport-cc`.
    pub transport_cc: bool,
}

impl Feedback {
    fn add(&mut self, what: &str) {
        let mut words = what.split_ascii_whitespace();
        match (words.next(), words.next()) {
            (Some("nack"), None) => self.nack = true,
            (Some("nack"), Some("pli")) => self.pli = true,
            (Some("ccm"), Some("fir")) => self.fir = true,
            (Some("goog-remb"), _) => self.remb = true,
            (Some("transport-cc"), _) => self.transport_cc = true,
            _ => {}
        }
    }

    const fn or(self, other: Self) -> Self {
        Self {
            nack: self.nack || other.nack,
            pli: self.pli || other.pli,
            fir: self.fir || other.fir,
            remb: self.remb || other.remb,
            transport_cc: self.transport_cc || other.transport_cc,
        }
    }
}

/// An `a=extmap` (RFC 8285 section 5).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeaderExtension {
    /// Its id, 1 to 255.
    pub id: u8,
    /// Restricted to one direction, from the client's side.
    pub direction: Option<Direction>,
    /// What it is.
    pub uri: String,
}

impl Offer {
    /// Reads an offer. Unknown lines and attributes are passed over.
    ///
    /// # Errors
    /// [`ParseError`] where a value that we depend on is missing, malformed or out of bounds.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        Self::read(&describe(text)?)
    }

    /// Reads an answer to an offer of ours: the same lines say the same from the other side.
    ///
    /// # Errors
    /// As of [`Self::parse`].
    pub fn parse_answer(text: &str) -> Result<Self, ParseError> {
        Self::read(&describe_within(text, MAX_ANSWER_SDP, MAX_OWN_SECTIONS)?)
    }

    pub(super) fn read(description: &SessionDescription) -> Result<Self, ParseError> {
        let session =
            Level::read(&description.attributes).map_err(|fault| ParseError::Session { fault })?;
        let mut candidate_types = CandidateTypes::default();
        let mut media = Vec::with_capacity(description.media_descriptions.len());
        let mut transports = Vec::with_capacity(media.capacity());
        for (section, description) in description.media_descriptions.iter().enumerate() {
            let fail = |fault| ParseError::Section { section, fault };
            let level = Level::read(&description.attributes).map_err(fail)?;
            let direction = level.direction.or(session.direction).unwrap_or_default();
            media.push(MediaSection::read(description, direction).map_err(fail)?);
            transports.push(level);
            count_candidates(&description.attributes, &mut candidate_types);
        }
        count_candidates(&description.attributes, &mut candidate_types);
        let bundle = read_bundle(&description.attributes, &media)?;
        // RFC 9143 section 7.2: the bundle's transport is that of the first mid in the group.
        let tag = bundle.first().and_then(|mid| position(&media, mid));
        let tag = tag.or_else(|| media.iter().position(|m| !m.disabled)).unwrap_or_default();
        let tagged = transports.into_iter().nth(tag).ok_or(ParseError::NoSections)?;
        // RFC 8829 section 5.2.1: only the tagged section says how RTCP travels.
        let (mux, rsize) = media.get(tag).map_or((false, false), |m| (m.rtcp_mux, m.rtcp_rsize));
        let mixed = description.attributes.iter().any(|a| a.key == "extmap-allow-mixed");
        for section in &mut media {
            section.extmap_allow_mixed |= mixed;
            if section.mid.as_ref().is_some_and(|mid| bundle.contains(mid)) {
                section.rtcp_mux |= mux;
                section.rtcp_rsize |= rsize;
            }
        }
        let fail = |fault| ParseError::Section { section: tag, fault };
        let fingerprints =
            if tagged.saw_fingerprint { tagged.fingerprints } else { session.fingerprints };
        Ok(Self {
            ufrag: tagged.ufrag.or(session.ufrag).ok_or_else(|| fail("a=ice-ufrag is missing"))?,
            pwd: tagged.pwd.or(session.pwd).ok_or_else(|| fail("a=ice-pwd is missing"))?,
            fingerprints,
            // RFC 4145 section 4.1: an offerer that says nothing is active.
            setup: tagged.setup.or(session.setup).unwrap_or(Setup::Active),
            bundle,
            media,
            candidate_types,
        })
    }
}

/// What the grammar makes of the lines that we use.
pub(super) fn describe(text: &str) -> Result<SessionDescription, ParseError> {
    describe_within(text, MAX_SDP, MAX_SECTIONS)
}

fn describe_within(
    text: &str,
    bytes: usize,
    sections: usize,
) -> Result<SessionDescription, ParseError> {
    let wanted = wanted_lines(text, bytes, sections)?;
    SessionDescription::unmarshal(&mut Cursor::new(wanted.as_bytes()))
        .map_err(|_| ParseError::Grammar)
}

/// Keeps `v=`, `m=` and `a=` lines, and puts the lines the grammar insists on in between.
fn wanted_lines(text: &str, bytes: usize, most: usize) -> Result<String, ParseError> {
    const HEAD: &str = "o=- 0 0 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n";
    if text.len() > bytes {
        return Err(ParseError::TooLarge(bytes));
    }
    let mut wanted = String::with_capacity(text.len() + HEAD.len());
    let mut sections = 0;
    let mut started = false;
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
        let Some((kind, value)) = line.split_once('=').filter(|(kind, _)| kind.len() == 1) else {
            return Err(fail("is not of the form letter=value"));
        };
        match (started, kind) {
            (false, "v") if value == "0" => {
                started = true;
                wanted.push_str("v=0\r\n");
                wanted.push_str(HEAD);
                continue;
            }
            (false, _) => return Err(fail("SDP begins with v=0")),
            (true, "m") => {
                sections += 1;
                if sections > most {
                    return Err(ParseError::TooManySections(most));
                }
            }
            (true, "a") => {}
            _ => continue,
        }
        wanted.push_str(line);
        wanted.push_str("\r\n");
    }
    if !started || sections == 0 {
        return Err(ParseError::NoSections);
    }
    Ok(wanted)
}

/// What may stand in the session part or in a section.
#[derive(Default)]
struct Level {
    ufrag: Option<String>,
    pwd: Option<String>,
    saw_fingerprint: bool,
    fingerprints: Vec<Fingerprint>,
    setup: Option<Setup>,
    direction: Option<Direction>,
}

impl Level {
    fn read(attributes: &[Attribute]) -> Result<Self, &'static str> {
        let mut level = Self::default();
        for attribute in attributes {
            let value = attribute.value.as_deref().map(str::trim);
            match (attribute.key.as_str(), value) {
                ("ice-ufrag", value) => {
                    level.ufrag = Some(read_ufrag(value.unwrap_or_default())?);
                }
                ("ice-pwd", value) => {
                    level.pwd = Some(read_pwd(value.unwrap_or_default())?);
                }
                ("fingerprint", value) => {
                    level.saw_fingerprint = true;
                    if let Some(read) = read_fingerprint(value.unwrap_or_default())?
                        && !level.fingerprints.contains(&read)
                    {
                        if level.fingerprints.len() == MAX_FINGERPRINTS {
                            return Err("more than 8 fingerprints");
                        }
                        level.fingerprints.push(read);
                    }
                }
                ("setup", value) => {
                    let setup = Setup::from_name(value.unwrap_or_default());
                    level.setup = Some(setup.ok_or("a=setup has an unknown value")?);
                }
                (key, None) => level.direction = Direction::from_name(key).or(level.direction),
                _ => {}
            }
        }
        Ok(level)
    }
}

/// `None`: a hash function we do not trust or know, which is no fault of the offer.
fn read_fingerprint(value: &str) -> Result<Option<Fingerprint>, &'static str> {
    const FAULT: &str = "a=fingerprint is not a hash function and its bytes in hexadecimal";
    let (name, hex) = value.split_once(' ').ok_or(FAULT)?;
    let Some(algorithm) = HashAlgorithm::from_name(name) else { return Ok(None) };
    let mut bytes = Vec::with_capacity(algorithm.hash_len());
    for pair in hex.trim().split(':') {
        let byte = (pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u8::from_str_radix(pair, 16).ok())
            .flatten();
        bytes.push(byte.ok_or(FAULT)?);
        if bytes.len() > algorithm.hash_len() {
            return Err(FAULT);
        }
    }
    if bytes.len() != algorithm.hash_len() {
        return Err(FAULT);
    }
    Ok(Some(Fingerprint { algorithm, bytes }))
}

fn count_candidates(attributes: &[Attribute], types: &mut CandidateTypes) {
    for attribute in attributes.iter().filter(|a| a.key == "candidate") {
        count_candidate(attribute.value.as_deref().unwrap_or_default(), types);
    }
}

pub(super) fn count_candidate(value: &str, types: &mut CandidateTypes) {
    let mut words = value.split_ascii_whitespace().skip_while(|word| *word != "typ");
    let count = match words.nth(1) {
        Some("host") => &mut types.host,
        Some("srflx" | "prflx") => &mut types.reflexive,
        Some("relay") => &mut types.relay,
        _ => &mut types.unknown,
    };
    *count += 1;
}

pub(super) fn read_ufrag(value: &str) -> Result<String, &'static str> {
    let fits = UFRAG_LEN.contains(&value.len()) && value.bytes().all(is_ice_char);
    fits.then(|| value.to_owned()).ok_or("a=ice-ufrag is not 4 to 256 ICE characters")
}

pub(super) fn read_pwd(value: &str) -> Result<String, &'static str> {
    let fits = PWD_LEN.contains(&value.len()) && value.bytes().all(is_ice_char);
    fits.then(|| value.to_owned()).ok_or("a=ice-pwd is not 22 to 256 ICE characters")
}

fn read_bundle(
    attributes: &[Attribute],
    media: &[MediaSection],
) -> Result<Vec<String>, ParseError> {
    let fail = |fault| ParseError::Session { fault };
    let groups = attributes.iter().filter(|a| a.key == "group");
    let mut words = groups
        .filter_map(|a| a.value.as_deref())
        .map(str::split_ascii_whitespace)
        .find_map(|mut words| (words.next() == Some("BUNDLE")).then_some(words));
    let mut bundle: Vec<String> = Vec::new();
    for mid in words.iter_mut().flatten() {
        if position(media, mid).is_none() {
            return Err(fail("a=group:BUNDLE names an a=mid that no m-section has"));
        }
        if bundle.iter().any(|known| known == mid) {
            return Err(fail("a=group:BUNDLE names an a=mid twice"));
        }
        bundle.push(mid.to_owned());
    }
    for (section, m) in media.iter().enumerate() {
        let mid = m.mid.as_deref();
        if mid.is_some_and(|mid| position(media, mid) != Some(section)) {
            return Err(ParseError::Section { section, fault: "a=mid is used twice" });
        }
    }
    Ok(bundle)
}

fn position(media: &[MediaSection], mid: &str) -> Option<usize> {
    media.iter().position(|m| m.mid.as_deref() == Some(mid))
}

impl MediaSection {
    fn read(description: &MediaDescription, direction: Direction) -> Result<Self, &'static str> {
        let name = &description.media_name;
        let kind = SectionKind::from_name(&name.media).ok_or("unknown media type")?;
        let has = |key: &str| description.has_attribute(key);
        let mut section = Self {
            kind,
            protocol: Protocol::from_words(&name.protos),
            mid: None,
            direction,
            disabled: name.port.value == 0 && !has("bundle-only"),
            rtcp_mux: has("rtcp-mux"),
            rtcp_rsize: has("rtcp-rsize"),
            first_format: name.formats.first().and_then(|f| payload_type(f)),
            codecs: Vec::new(),
            extensions: Vec::new(),
            extmap_allow_mixed: has("extmap-allow-mixed"),
            ssrcs: Vec::new(),
            fid: Vec::new(),
            rids: Vec::new(),
        };
        for attribute in &description.attributes {
            let Some(value) = attribute.value.as_deref().map(str::trim) else { continue };
            match attribute.key.as_str() {
                "mid" => section.mid = Some(read_mid(value)?),
                "extmap" if section.extensions.len() < MAX_PER_SECTION => {
                    section.extensions.extend(read_extension(value));
                }
                "ssrc" => {
                    let id = value.split(' ').next().and_then(|id| id.parse().ok());
                    let id = id.ok_or("a=ssrc has no 32-bit id")?;
                    if !section.ssrcs.contains(&id) && section.ssrcs.len() < MAX_PER_SECTION {
                        section.ssrcs.push(id);
                    }
                }
                "ssrc-group" if section.fid.len() < MAX_PER_SECTION => {
                    section.fid.extend(read_fid(value));
                }
                _ => {}
            }
        }
        section.rids = simulcast::read(&description.attributes);
        section.codecs = read_codecs(&name.formats, &description.attributes)?;
        Ok(section)
    }
}

fn read_mid(value: &str) -> Result<String, &'static str> {
    let fits = (1..=MAX_MID).contains(&value.len()) && value.bytes().all(is_token_char);
    fits.then(|| value.to_owned()).ok_or("a=mid is not a token of 1 to 64 characters")
}

/// `None`: an extension we could not use anyway.
fn read_extension(value: &str) -> Option<HeaderExtension> {
    let mut words = value.split_ascii_whitespace();
    let first = words.next()?;
    let (id, direction) = match first.split_once('/') {
        Some((id, direction)) => (id, Some(Direction::from_name(direction)?)),
        None => (first, None),
    };
    let id = id.parse().ok().filter(|id| *id != 0)?;
    Some(HeaderExtension { id, direction, uri: words.next()?.to_owned() })
}

fn read_fid(value: &str) -> Option<(u32, u32)> {
    let mut words = value.split_ascii_whitespace();
    (words.next() == Some("FID")).then_some(())?;
    Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
}

pub(super) fn payload_type(word: &str) -> Option<u8> {
    word.parse().ok().filter(|pt| *pt < 128)
}

/// Codecs in the order of the format list; formats without an `a=rtpmap` are not ours anyway.
fn read_codecs(
    formats: &[String],
    attributes: &[Attribute],
) -> Result<Vec<OfferedCodec>, &'static str> {
    let mut by_pt: [Option<OfferedCodec>; 128] = [const { None }; 128];
    let values = |key: &'static str| {
        let of_key = attributes.iter().filter(move |a| a.key == key);
        of_key.filter_map(|a| a.value.as_deref()?.trim().split_once(' '))
    };
    for (pt, value) in values("rtpmap") {
        let pt = payload_type(pt).ok_or("a=rtpmap has no payload type below 128")?;
        let slot = by_pt.get_mut(usize::from(pt)).ok_or("a=rtpmap has no payload type")?;
        *slot = Some(read_rtpmap(pt, value)?);
    }
    let mut for_all = Feedback::default();
    for (pt, value) in values("rtcp-fb") {
        if pt == "*" {
            for_all.add(value);
        } else if let Some(codec) = codec_mut(&mut by_pt, pt) {
            codec.feedback.add(value);
        }
    }
    for (pt, value) in values("fmtp") {
        if let Some(codec) = codec_mut(&mut by_pt, pt) {
            codec.fmtp.extend(value.split(';').filter_map(read_parameter));
            codec.fmtp.truncate(MAX_PARAMETERS);
        }
    }
    let mut codecs = Vec::new();
    for pt in formats.iter().filter_map(|f| payload_type(f)) {
        // Taken out, so that a payload type named twice counts once.
        if let Some(mut codec) = by_pt.get_mut(usize::from(pt)).and_then(Option::take) {
            codec.feedback = codec.feedback.or(for_all);
            codecs.push(codec);
        }
    }
    Ok(codecs)
}

fn codec_mut<'a>(
    by_pt: &'a mut [Option<OfferedCodec>; 128],
    pt: &str,
) -> Option<&'a mut OfferedCodec> {
    by_pt.get_mut(usize::from(payload_type(pt)?))?.as_mut()
}

fn read_rtpmap(pt: u8, value: &str) -> Result<OfferedCodec, &'static str> {
    let mut parts = value.trim().split('/');
    let name = parts.next().unwrap_or_default();
    if name.is_empty() || name.len() > 32 || !name.bytes().all(is_token_char) {
        return Err("a=rtpmap has no encoding name");
    }
    let clock = parts.next().and_then(|c| c.parse().ok());
    let channels = parts.next().map_or(Some(1), |c| c.parse().ok());
    Ok(OfferedCodec {
        pt,
        name: name.to_ascii_lowercase(),
        clock: clock.ok_or("a=rtpmap has no clock rate")?,
        channels: channels.ok_or("a=rtpmap has a bad number of channels")?,
        fmtp: Vec::new(),
        feedback: Feedback::default(),
    })
}

fn read_parameter(item: &str) -> Option<(String, String)> {
    let (key, value) = item.trim().split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    let good = !key.is_empty()
        && key.len() <= MAX_PARAMETER
        && key.bytes().all(is_token_char)
        && value.len() <= MAX_PARAMETER
        && value.bytes().all(|b| b.is_ascii_graphic());
    good.then(|| (key.to_ascii_lowercase(), value.to_owned()))
}
