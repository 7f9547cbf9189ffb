//! Offer in, agreement out: which tracks a publisher sends, which a player takes.
//!
//! Of an offer, the first audio and the first video section that flow our way are taken; further
//! ones are rejected with port 0, and those in which nothing can flow are answered inactive, so
//! that the bundle's tagged section stays valid. Every section taken shares one transport (BUNDLE, rtcp-mux), and
//! has one codec in the answer: the first of the offer that passes through, with its RTX.
//! A video that is offered with simulcast by rid (RFC 8853) is taken with all its layers, up to
//! four; with no identification of them in its packets, with one.
//!
//! A client's codec parameters come back to that client only, and only those on a closed list
//! with a closed form ([`codecs::typed`]): nothing one client wrote reaches another. Parameter sets in
//! `a=fmtp` (`sprop-parameter-sets`) are therefore dropped: H.264 must carry them in band, as
//! every WebRTC sender does (RFC 7742 section 6.2).

mod codecs;
pub mod offering;
mod payloads;

use std::net::SocketAddr;
use std::sync::Arc;

use rand::RngCore;
use rand::rngs::StdRng;

use crate::wire::media::{
    Codec, CodecName, Extensions, MediaKind, PlaySpec, PlayTrackSpec, StreamSpec, TrackSpec,
};
use crate::wire::sdp::{
    Accepted, Answer, AnsweredCodec, AnsweredExtension, Direction, Feedback, MediaSection, Offer,
    OfferedCodec, Outgoing, ParseError, Section, SectionKind, Setup, Transport,
};
use codecs::{
    H264Profile, answered_red, first_codec, h264_profile, matching, precedes, red_of, usable,
};

/// Why an offer is refused. The texts never quote the offer.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Refusal {
    /// Not SDP, or SDP that no WebRTC client makes.
    #[error("{0}")]
    BadSdp(String),
    /// Nothing in it that we could pass on.
    #[error("{0}")]
    NoCodec(String),
    /// No DTLS fingerprint by SHA-256 or longer.
    #[error("the offer has no a=fingerprint with sha-256, sha-384 or sha-512")]
    NoFingerprint,
}

impl From<ParseError> for Refusal {
    fn from(error: ParseError) -> Self {
        Self::BadSdp(error.to_string())
    }
}

/// What the answer will say, but for our transport.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AnswerPlan {
    answer: Answer,
}

impl AnswerPlan {
    /// The answer's SDP, with our ICE credentials, our certificate's fingerprint
    /// (`sha-256 AA:BB:…`) and our media addresses, first the preferred.
    #[must_use]
    pub fn answer_sdp(
        &self,
        ufrag: &str,
        pwd: &str,
        fingerprint: &str,
        candidates: &[SocketAddr],
    ) -> String {
        // RFC 8866 section 5.2 wants another number for another session; the ufrag is random.
        let session = u64::from(crc32fast::hash(ufrag.as_bytes()));
        self.answer.write(&Transport { session, ufrag, pwd, fingerprint, candidates })
    }
}

/// Agrees with a publisher.
///
/// # Errors
/// [`Refusal`].
pub fn publish(offer: &Offer) -> Result<(Vec<TrackSpec>, AnswerPlan), Refusal> {
    check_transport(offer)?;
    let mut tracks = Vec::new();
    let sections = take(offer, |section, media, kind| {
        if !media.direction.sends() {
            return inactive(section, media);
        }
        let (offered, codec) = first_codec(media).ok_or_else(|| no_codec(section, kind))?;
        let described = codec.name == CodecName::Av1;
        let (extensions, answered) =
            extensions(media, offered.feedback, described, Direction::sends);
        let primary = media.fid.first().copied();
        let ssrc = primary.map(|(ssrc, _)| ssrc).or_else(|| media.ssrcs.first().copied());
        let rtx_pt = media.rtx_of(offered.pt).filter(|pt| usable(*pt));
        let feedback = offered.feedback;
        let red = red_of(media, kind).filter(|red| precedes(media, red.pt, offered.pt));
        let rids = simulcast(kind, media, &extensions);
        // Announced SSRCs do not say whose layer they are: packets do.
        let announced = rids.is_empty();
        tracks.push(TrackSpec {
            kind,
            mid: media.mid.clone().unwrap_or_default(),
            codec: codec.clone(),
            pt: offered.pt,
            rtx_pt,
            red_pt: red.map(|red| red.pt),
            ssrc: ssrc.filter(|_| announced),
            rtx_ssrc: primary.map(|(_, rtx)| rtx).filter(|_| announced && rtx_pt.is_some()),
            nack: feedback.nack,
            pli: feedback.pli,
            remb: feedback.remb && extensions.transport_cc.is_none(),
            extensions,
            rids: rids.clone(),
        });
        let codec = (offered, &codec, rtx_pt);
        let mut accepted = accept(section, media, Direction::RecvOnly, codec, answered)?;
        if let Some(red) = red {
            // In front, as in the offer: what is first is sent.
            accepted.codecs.insert(0, answered_red(red, offered));
        }
        Ok(Some(Accepted { rids, ..accepted }))
    })?;
    if tracks.is_empty() {
        return Err(Refusal::NoCodec("the offer sends neither audio nor video".to_owned()));
    }
    let plan = plan(offer, sections)?;
    Ok((tracks, plan))
}

/// Agrees with a player of `stream`. SSRCs and the CNAME are drawn from `rng`.
///
/// # Errors
/// [`Refusal`]; [`Refusal::NoCodec`] names the codec that the player would need.
pub fn play(
    offer: &Offer,
    stream: &Arc<StreamSpec>,
    rng: &mut StdRng,
) -> Result<(PlaySpec, AnswerPlan), Refusal> {
    check_transport(offer)?;
    let mut ssrcs = Ssrcs { rng, drawn: Vec::new() };
    let cname = ssrcs.cname();
    let mut tracks: Vec<PlayTrackSpec> = Vec::new();
    let sections = take(offer, |section, media, kind| {
        if !media.direction.receives() {
            return inactive(section, media);
        }
        let wanted = (0_u8..).zip(&stream.tracks).find(|(_, track)| track.kind == kind);
        let Some((number, track)) = wanted else {
            return inactive(section, media);
        };
        let (offered, codec) =
            matching(media, &track.codec).ok_or_else(|| lacks(section, kind, &track.codec))?;
        // Chromium decodes no more than the lowest spatial layer without it. Encodings of simulcast
        // number their frames each for itself: whoever changes between them is better off without.
        let described = track.extensions.dependency_descriptor.is_some()
            && track.rids.is_empty()
            && media.extmap_allow_mixed;
        let (extensions, answered) =
            extensions(media, offered.feedback, described, Direction::receives);
        let rtx_pt = media.rtx_of(offered.pt).filter(|pt| usable(*pt) && offered.feedback.nack);
        let red = red_of(media, kind).filter(|_| track.red_pt.is_some());
        let spec = PlayTrackSpec {
            track: number,
            mid: media.mid.clone().unwrap_or_default(),
            pt: offered.pt,
            rtx_pt,
            red_pt: red.map(|red| red.pt),
            ssrc: ssrcs.draw(),
            rtx_ssrc: rtx_pt.map(|_| ssrcs.draw()),
            extensions,
        };
        let outgoing = Outgoing { ssrc: spec.ssrc, rtx_ssrc: spec.rtx_ssrc, cname: cname.clone() };
        tracks.push(spec);
        let codec = (offered, &codec, rtx_pt);
        let mut accepted = accept(section, media, Direction::SendOnly, codec, answered)?;
        accepted.codecs.extend(red.map(|red| answered_red(red, offered)));
        Ok(Some(Accepted { outgoing: Some(outgoing), ..accepted }))
    })?;
    if tracks.is_empty() {
        let has: Vec<_> = stream.tracks.iter().map(|t| kind_name(t.kind)).collect();
        let text = format!("the offer receives nothing the stream has ({})", has.join(" and "));
        return Err(Refusal::NoCodec(text));
    }
    let plan = plan(offer, sections)?;
    Ok((PlaySpec { stream: Arc::clone(stream), cname, tracks }, plan))
}

/// The layers of a video, by rid; none where its packets could not say which they are of.
fn simulcast(kind: MediaKind, media: &MediaSection, extensions: &Extensions) -> Vec<String> {
    let told = extensions.mid.is_some() && extensions.rid.is_some();
    let layered = kind == MediaKind::Video && told && media.rids.len() > 1;
    if layered { media.rids.clone() } else { Vec::new() }
}

/// What does not depend on the codecs.
fn check_transport(offer: &Offer) -> Result<(), Refusal> {
    let media = |m: &MediaSection| media_kind(m.kind).is_some() && !m.disabled;
    if !offer.media.iter().any(media) {
        return Err(Refusal::NoCodec("the offer has no audio and no video section".to_owned()));
    }
    check_security(offer)
}

fn check_security(offer: &Offer) -> Result<(), Refusal> {
    if offer.fingerprints.is_empty() {
        return Err(Refusal::NoFingerprint);
    }
    // We are ICE-lite and passive (RFC 8842 section 5.3): the client must open the handshake.
    if matches!(offer.setup, Setup::Passive | Setup::Holdconn) {
        let text = "a=setup must be actpass or active: the gateway is the DTLS server";
        return Err(Refusal::BadSdp(text.to_owned()));
    }
    Ok(())
}

/// Walks the offer's sections: the first of each kind for which `accept` makes something is
/// taken, the rest are rejected.
fn take<F>(offer: &Offer, mut accept: F) -> Result<Vec<Section>, Refusal>
where
    F: FnMut(usize, &MediaSection, MediaKind) -> Result<Option<Accepted>, Refusal>,
{
    let (mut audio, mut video) = (false, false);
    let mut sections = Vec::with_capacity(offer.media.len());
    for (index, media) in offer.media.iter().enumerate() {
        let mut accepted = None;
        if let Some(kind) = media_kind(media.kind).filter(|_| !media.disabled) {
            let taken = match kind {
                MediaKind::Audio => &mut audio,
                MediaKind::Video => &mut video,
            };
            if !*taken {
                accepted = accept(index, media, kind)?;
                *taken = accepted.as_ref().is_some_and(|a| a.direction != Direction::Inactive);
            }
        }
        sections.push(match accepted {
            Some(accepted) => Section::Accepted(Box::new(accepted)),
            None => Section::Rejected {
                kind: media.kind,
                protocol: media.protocol,
                mid: media.mid.clone(),
            },
        });
    }
    Ok(sections)
}

/// Nothing flows; `None` when the section has no codec to say so with.
fn inactive(section: usize, media: &MediaSection) -> Result<Option<Accepted>, Refusal> {
    let codec = first_codec(media);
    let codec = codec.as_ref().map(|(offered, codec)| (*offered, codec, None));
    codec.map(|codec| accept(section, media, Direction::Inactive, codec, Vec::new())).transpose()
}

fn accept(
    section: usize,
    media: &MediaSection,
    direction: Direction,
    (offered, codec, rtx_pt): (&OfferedCodec, &Codec, Option<u8>),
    extensions: Vec<AnsweredExtension>,
) -> Result<Accepted, Refusal> {
    let bad = |fault: &str| Refusal::BadSdp(format!("m-section {section}: {fault}"));
    let protocol = media
        .protocol
        .filter(|protocol| protocol.is_dtls_srtp())
        .ok_or_else(|| bad("the protocol must be UDP/TLS/RTP/SAVPF"))?;
    if !media.rtcp_mux {
        return Err(bad("a=rtcp-mux is required (RFC 9725 section 4.4.1)"));
    }
    // One or the other: a steady REMB would cap what the client finds out by transport-wide
    // feedback.
    let transport_cc = extensions.iter().any(|extension| extension.uri == TRANSPORT_CC);
    let remb = offered.feedback.remb && !transport_cc;
    // A descriptor with its structure is longer than the one-byte form carries.
    let long = extensions.iter().any(|extension| extension.uri == DEPENDENCY_DESCRIPTOR);
    let mut codecs = vec![AnsweredCodec {
        pt: offered.pt,
        name: encoding_name(codec.name),
        clock: codec.name.clock_rate(),
        channels: offered.channels,
        fmtp: codec.fmtp.clone(),
        feedback: Feedback { remb, transport_cc, ..offered.feedback },
    }];
    codecs.extend(rtx_pt.map(|pt| AnsweredCodec {
        pt,
        name: "rtx",
        clock: codec.name.clock_rate(),
        channels: 1,
        fmtp: vec![("apt".to_owned(), offered.pt.to_string())],
        feedback: Feedback::default(),
    }));
    Ok(Accepted {
        kind: media.kind,
        protocol,
        mid: media.mid.clone(),
        direction,
        rtcp_rsize: media.rtcp_rsize,
        codecs,
        extensions,
        extmap_allow_mixed: long && media.extmap_allow_mixed,
        rids: Vec::new(),
        outgoing: None,
    })
}

/// One transport carries all that was accepted: two sections must be in the BUNDLE group.
fn plan(offer: &Offer, sections: Vec<Section>) -> Result<AnswerPlan, Refusal> {
    let accepted = |s: &Section| match s {
        Section::Accepted(a) => Some(a.mid.clone()),
        Section::Rejected { .. } | Section::Data { .. } => None,
    };
    let mids: Vec<Option<String>> = sections.iter().filter_map(accepted).collect();
    let bundled = |mid: &Option<String>| mid.as_ref().is_some_and(|m| offer.bundle.contains(m));
    if mids.len() > 1 && !mids.iter().all(bundled) {
        let text = "audio and video must be in one a=group:BUNDLE (RFC 9725 section 4.4.1)";
        return Err(Refusal::BadSdp(text.to_owned()));
    }
    let keep = |mid: &&String| mids.iter().flatten().any(|m| m == *mid);
    let bundle = offer.bundle.iter().filter(keep).cloned().collect();
    Ok(AnswerPlan { answer: Answer { sections, bundle } })
}

const fn media_kind(kind: SectionKind) -> Option<MediaKind> {
    match kind {
        SectionKind::Audio => Some(MediaKind::Audio),
        SectionKind::Video => Some(MediaKind::Video),
        SectionKind::Application | SectionKind::Other(_) => None,
    }
}

const fn kind_name(kind: MediaKind) -> &'static str {
    match kind {
        MediaKind::Audio => "audio",
        MediaKind::Video => "video",
    }
}

const fn encoding_name(name: CodecName) -> &'static str {
    match name {
        CodecName::Opus => "opus",
        CodecName::Vp8 => "VP8",
        CodecName::Vp9 => "VP9",
        CodecName::H264 => "H264",
        CodecName::Av1 => "AV1",
        CodecName::H265 => "H265",
    }
}

fn no_codec(section: usize, kind: MediaKind) -> Refusal {
    let codecs = match kind {
        MediaKind::Audio => "opus/48000/2",
        MediaKind::Video => "VP8, VP9, H264 with packetization-mode=1, AV1 or H265",
    };
    let kind = kind_name(kind);
    Refusal::NoCodec(format!("m-section {section} ({kind}): none of its codecs is {codecs}"))
}

fn lacks(section: usize, kind: MediaKind, codec: &Codec) -> Refusal {
    let name = encoding_name(codec.name);
    let kind = kind_name(kind);
    let detail = match codec.name {
        CodecName::H264 => match h264_profile(codec) {
            Some(H264Profile::ConstrainedBaseline) => " (constrained baseline profile)",
            Some(H264Profile::Baseline) => " (baseline profile)",
            Some(H264Profile::Main) => " (main profile)",
            Some(H264Profile::ConstrainedHigh) => " (constrained high profile)",
            Some(H264Profile::High) => " (high profile)",
            Some(H264Profile::Other(_)) | None => "",
        },
        CodecName::Vp9 | CodecName::Av1 | CodecName::H265 | CodecName::Opus | CodecName::Vp8 => "",
    };
    Refusal::NoCodec(format!(
        "m-section {section} ({kind}): the stream is {name}{detail}, which the offer does not receive"
    ))
}

const MID: &str = "urn:ietf:params:rtp-hdrext:sdes:mid";
const AUDIO_LEVEL: &str = "urn:ietf:params:rtp-hdrext:ssrc-audio-level";
const VIDEO_ORIENTATION: &str = "urn:3gpp:video-orientation";
const PLAYOUT_DELAY: &str = "http://www.webrtc.org/experiments/rtp-hdrext/playout-delay";
const RID: &str = "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id";
const REPAIRED_RID: &str = "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id";
const TRANSPORT_CC: &str =
    "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
const DEPENDENCY_DESCRIPTOR: &str =
    "https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension";
/// Longest mid a one-byte header extension carries (RFC 8285 section 4.2), in bytes.
const MAX_SENT_MID: usize = 16;

/// The extensions of a section that we take, with ids that fit a one-byte header (1 to 14), the
/// dependency descriptor only where it is read (`described`);
/// `flows` tells whether a direction the client restricted one to is the one of the media.
fn extensions(
    media: &MediaSection,
    feedback: Feedback,
    described: bool,
    flows: impl Fn(Direction) -> bool,
) -> (Extensions, Vec<AnsweredExtension>) {
    let mut taken = Extensions::default();
    let mut answered: Vec<AnsweredExtension> = Vec::new();
    for offered in &media.extensions {
        let (slot, uri) = match offered.uri.as_str() {
            MID if media.mid.as_ref().is_some_and(|mid| mid.len() <= MAX_SENT_MID) => {
                (&mut taken.mid, MID)
            }
            AUDIO_LEVEL => (&mut taken.audio_level, AUDIO_LEVEL),
            VIDEO_ORIENTATION => (&mut taken.video_orientation, VIDEO_ORIENTATION),
            PLAYOUT_DELAY => (&mut taken.playout_delay, PLAYOUT_DELAY),
            RID if media.rids.len() > 1 => (&mut taken.rid, RID),
            REPAIRED_RID if media.rids.len() > 1 => (&mut taken.repaired_rid, REPAIRED_RID),
            TRANSPORT_CC if feedback.transport_cc => (&mut taken.transport_cc, TRANSPORT_CC),
            DEPENDENCY_DESCRIPTOR if described => {
                (&mut taken.dependency_descriptor, DEPENDENCY_DESCRIPTOR)
            }
            _ => continue,
        };
        let id_is_free = !answered.iter().any(|known| known.id == offered.id);
        let fits = (1..=14).contains(&offered.id) && offered.direction.is_none_or(&flows);
        if slot.is_none() && id_is_free && fits {
            *slot = Some(offered.id);
            let direction = offered.direction.map(Direction::reversed);
            answered.push(AnsweredExtension { id: offered.id, direction, uri });
        }
    }
    (taken, answered)
}

/// Numbers of one player, no two the same.
struct Ssrcs<'a> {
    rng: &'a mut StdRng,
    drawn: Vec<u32>,
}

impl Ssrcs<'_> {
    fn draw(&mut self) -> u32 {
        loop {
            let ssrc = self.rng.next_u32();
            // 0 is what some stacks write for "none".
            if ssrc != 0 && !self.drawn.contains(&ssrc) {
                self.drawn.push(ssrc);
                return ssrc;
            }
        }
    }

    /// RFC 7022 section 4.2: 96 random bits.
    fn cname(&mut self) -> String {
        use base64::Engine as _;
        let mut bytes = [0; 12];
        self.rng.fill_bytes(&mut bytes);
        base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes)
    }
}

mod data;
pub use data::publish_with_data;

#[cfg(test)]
mod tests;
