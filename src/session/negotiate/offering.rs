//! Our offers: a playing connection on which the gateway says what it sends, and says it anew when
//! streams come and go.
//!
//! Section 0 is an anchor: inactive, never closed, it names the bundle's transport, because a
//! browser takes the rejection of the tagged section for that of the whole bundle. Every other
//! section sends one track. When its track goes, it is offered with port 0; once that is answered
//! it is recycled under a new mid for a later track of the same kind (RFC 8829 section 5.2.2).
//! Payload types and extension ids mean the same in every section.

use std::sync::Arc;

use rand::RngCore;
use rand::rngs::StdRng;

use super::codecs::typed;
use super::payloads::{Payload, Payloads};
use super::{
    AUDIO_LEVEL, MID, PLAYOUT_DELAY, Refusal, Ssrcs, TRANSPORT_CC, VIDEO_ORIENTATION,
    encoding_name, kind_name, media_kind,
};
use crate::ids::StreamId;
use crate::wire::media::{
    Codec, CodecName, Extensions, MediaKind, PlaySpec, PlayTrackSpec, StreamSpec,
};
use crate::wire::sdp::{
    AnsweredCodec, AnsweredExtension, Feedback, Fingerprint, MAX_OWN_SECTIONS, MediaSection, Offer,
    OwnMedia, OwnOffer, OwnSection, OwnTrack, SectionKind, Setup, Transport,
};

/// SSRCs drawn in the life of one connection: an SSRC is never used twice under one key, and the
/// SRTP sender remembers each.
pub const MAX_SSRCS: usize = 4_000;

const ANCHOR: &str = "0";

/// The offering end of one playing connection.
#[derive(Debug)]
pub struct Offering {
    session: u64,
    cname: String,
    rng: StdRng,
    ssrcs: Vec<u32>,
    payloads: Payloads,
    /// Behind the anchor, in the order of their m-lines.
    slots: Vec<Slot>,
    next_mid: u32,
    revision: u32,
    awaiting: bool,
    /// Tracks the client would not take, for as long as their stream is wanted.
    declined: Vec<(StreamId, u8)>,
    remote: Option<Remote>,
    /// The offer that waits has new ICE credentials of ours: so must its answer.
    restarting: bool,
}

/// What the client's answers must keep to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remote {
    /// Its `a=ice-ufrag`.
    pub ufrag: String,
    /// Its `a=fingerprint` lines.
    pub fingerprints: Vec<Fingerprint>,
}

#[derive(Debug)]
struct Slot {
    mid: String,
    kind: MediaKind,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Rejected, and that is agreed: free to be recycled.
    Free,
    /// Rejected by the offer that waits.
    Closing,
    /// The client takes nothing here: closed with the next offer.
    Declined,
    /// Sends a track.
    Open(Box<Open>),
}

#[derive(Debug)]
struct Open {
    stream: Arc<StreamSpec>,
    track: u8,
    codec: Codec,
    payload: Payload,
    ssrc: u32,
    rtx_ssrc: Option<u32>,
    /// As the client answered.
    taken: Option<PlayTrackSpec>,
}

/// A track of an offer.
#[derive(Clone, Copy, Debug)]
pub struct Offered<'a> {
    /// Its `a=mid`.
    pub mid: &'a str,
    /// Its stream.
    pub stream: &'a Arc<StreamSpec>,
    /// Its number there.
    pub track: u8,
    /// Audio or video.
    pub kind: MediaKind,
}

/// What an answer came to.
#[derive(Debug)]
pub struct Taken {
    /// All that is sent from now on, a stream once.
    pub plays: Vec<PlaySpec>,
    /// What this answer would not take, by stream and track, and why.
    pub declined: Vec<(Arc<StreamSpec>, u8, &'static str)>,
}

impl Offering {
    /// Nothing offered yet.
    #[must_use]
    pub fn new(mut rng: StdRng) -> Self {
        let cname = Ssrcs { rng: &mut rng, drawn: Vec::new() }.cname();
        Self {
            session: u64::from(rng.next_u32()),
            cname,
            rng,
            ssrcs: Vec::new(),
            payloads: Payloads::default(),
            slots: Vec::new(),
            next_mid: 1,
            revision: 0,
            awaiting: false,
            declined: Vec::new(),
            remote: None,
            restarting: false,
        }
    }

    /// Of the last offer; 0 before the first.
    #[must_use]
    pub const fn revision(&self) -> u32 {
        self.revision
    }

    /// Whether the last offer has no answer yet.
    #[must_use]
    pub const fn is_awaiting(&self) -> bool {
        self.awaiting
    }

    /// Whether the last offer has new ICE credentials, and no answer yet.
    #[must_use]
    pub const fn restarts(&self) -> bool {
        self.restarting
    }

    /// What the client's last answer said.
    #[must_use]
    pub const fn remote(&self) -> Option<&Remote> {
        self.remote.as_ref()
    }

    /// Makes the next offer if these streams are others than the last one had: false when they
    /// are not, or an answer is awaited. Streams for which there is no section left are left out,
    /// the last of `wanted` first. `restart`: it has new ICE credentials of ours, and is made even
    /// without another reason.
    pub fn offer(&mut self, wanted: &[Arc<StreamSpec>], restart: bool) -> bool {
        if self.awaiting {
            return false;
        }
        let is_wanted = |id: StreamId| wanted.iter().any(|stream| stream.id == id);
        let mut changed = restart;
        for slot in &mut self.slots {
            if let State::Open(open) = &slot.state
                && !is_wanted(open.stream.id)
            {
                slot.state = State::Closing;
                changed = true;
            }
        }
        self.declined.retain(|(id, _)| is_wanted(*id));
        for stream in wanted {
            changed |= self.add(stream);
        }
        if changed {
            for slot in &mut self.slots {
                if matches!(slot.state, State::Declined) {
                    slot.state = State::Closing;
                }
            }
            self.restarting = restart;
            self.revision += 1;
            self.awaiting = true;
        }
        changed
    }

    /// Gives a stream's tracks sections, if it has none; all of them or none.
    fn add(&mut self, stream: &Arc<StreamSpec>) -> bool {
        if self.open().any(|open| open.stream.id == stream.id) {
            return false;
        }
        let free = |kind| {
            let of_kind = |slot: &&Slot| matches!(slot.state, State::Free) && slot.kind == kind;
            self.slots.iter().filter(of_kind).count()
        };
        let mut room = MAX_OWN_SECTIONS - 1 - self.slots.len();
        let mut places = Vec::new();
        for kind in [MediaKind::Audio, MediaKind::Video] {
            let declined = |number| self.declined.contains(&(stream.id, number));
            let tracks = (0..).zip(&stream.tracks);
            let of_kind: Vec<u8> = tracks
                .filter(|(number, track)| track.kind == kind && !declined(*number))
                .map(|(number, _)| number)
                .collect();
            let more = of_kind.len().saturating_sub(free(kind));
            if more > room {
                return false;
            }
            room -= more;
            places.extend(of_kind);
        }
        if self.ssrcs.len() + 2 * places.len() > MAX_SSRCS {
            return false;
        }
        places.sort_unstable();
        let mut added = false;
        for number in places {
            added |= self.place(stream, number).is_some();
        }
        added
    }

    /// `None`: no payload type is left for its codec.
    fn place(&mut self, stream: &Arc<StreamSpec>, track: u8) -> Option<()> {
        let source = stream.tracks.get(usize::from(track))?;
        let kind = source.kind;
        let codec = offered_codec(&source.codec);
        let slots = &self.slots;
        let used = |payload: Payload| {
            let states = slots.iter().map(|slot| &slot.state);
            states.filter_map(open_of).any(|open| open.payload == payload)
        };
        let payload = self.payloads.take(&codec, kind == MediaKind::Video, used)?;
        let mut draw = || {
            let drawn = std::mem::take(&mut self.ssrcs);
            let mut ssrcs = Ssrcs { rng: &mut self.rng, drawn };
            let ssrc = ssrcs.draw();
            self.ssrcs = ssrcs.drawn;
            ssrc
        };
        let (ssrc, rtx_ssrc) = (draw(), payload.rtx.map(|_| draw()));
        let stream = Arc::clone(stream);
        let open = Open { stream, track, codec, payload, ssrc, rtx_ssrc, taken: None };
        let (mid, state) = (self.next_mid.to_string(), State::Open(Box::new(open)));
        self.next_mid += 1;
        let free = |slot: &&mut Slot| matches!(slot.state, State::Free) && slot.kind == kind;
        match self.slots.iter_mut().find(free) {
            Some(slot) => *slot = Slot { mid, kind, state },
            None => self.slots.push(Slot { mid, kind, state }),
        }
        Some(())
    }

    fn open(&self) -> impl Iterator<Item = &Open> {
        self.slots.iter().filter_map(|slot| open_of(&slot.state))
    }

    /// The tracks of the last offer.
    pub fn tracks(&self) -> impl Iterator<Item = Offered<'_>> {
        self.slots.iter().filter_map(|slot| {
            let open = open_of(&slot.state)?;
            Some(Offered {
                mid: &slot.mid,
                stream: &open.stream,
                track: open.track,
                kind: slot.kind,
            })
        })
    }

    /// The last offer. `transport`'s session is ours to set.
    #[must_use]
    pub fn sdp(&self, transport: &Transport<'_>) -> String {
        let section = |slot: &Slot| {
            let open = open_of(&slot.state);
            let media = open.map_or_else(|| self.idle(slot.kind), |open| self.media(slot, open));
            let kind = section_kind(slot.kind);
            OwnSection { kind, mid: slot.mid.clone(), closed: open.is_none(), media }
        };
        let anchor = OwnSection {
            kind: SectionKind::Audio,
            mid: ANCHOR.to_owned(),
            closed: false,
            media: self.idle(MediaKind::Audio),
        };
        let sections = std::iter::once(anchor).chain(self.slots.iter().map(section)).collect();
        let offer = OwnOffer { version: self.revision, sections };
        offer.write(&Transport { session: self.session, ..*transport })
    }

    /// What a section says in which nothing flows.
    fn idle(&self, kind: MediaKind) -> OwnMedia {
        let codec = match kind {
            MediaKind::Audio => Some(answered(&opus(), Payloads::OPUS.pt, kind)),
            MediaKind::Video => self.payloads.any().map(|(codec, pt)| answered(codec, pt, kind)),
        };
        let extensions = extensions(kind).map(|(it, _)| it).collect();
        OwnMedia { codecs: codec.into_iter().collect(), extensions, track: None }
    }

    fn media(&self, slot: &Slot, open: &Open) -> OwnMedia {
        let mut codecs = vec![answered(&open.codec, open.payload.pt, slot.kind)];
        codecs.extend(open.payload.rtx.map(|pt| AnsweredCodec {
            pt,
            name: "rtx",
            clock: open.codec.name.clock_rate(),
            channels: 1,
            fmtp: vec![("apt".to_owned(), open.payload.pt.to_string())],
            feedback: Feedback::default(),
        }));
        let stream = open.stream.name.stream().to_owned();
        OwnMedia {
            codecs,
            extensions: extensions(slot.kind).map(|(it, _)| it).collect(),
            track: Some(OwnTrack {
                ssrc: open.ssrc,
                rtx_ssrc: open.rtx_ssrc,
                cname: self.cname.clone(),
                label: format!("{stream}-{}", slot.mid),
                stream,
            }),
        }
    }

    /// Takes the answer to the last offer. A refused one changes nothing: the offer still waits.
    ///
    /// # Errors
    /// [`Refusal`]: sections that are not those of the offer, another transport than before.
    pub fn answer(&mut self, answer: &Offer) -> Result<Taken, Refusal> {
        let remote = self.check_transport(answer)?;
        self.check_sections(answer)?;
        let mut declined = Vec::new();
        for (slot, media) in self.slots.iter_mut().zip(answer.media.iter().skip(1)) {
            match &mut slot.state {
                State::Free | State::Closing | State::Declined => slot.state = State::Free,
                State::Open(open) => match judge(open, &slot.mid, media) {
                    // What was agreed once stays as it is: its packets are under way.
                    Ok(spec) => {
                        open.taken.get_or_insert(spec);
                    }
                    Err(why) => {
                        declined.push((Arc::clone(&open.stream), open.track, why));
                        slot.state = if media.disabled { State::Free } else { State::Declined };
                    }
                },
            }
        }
        self.declined.extend(declined.iter().map(|(stream, track, _)| (stream.id, *track)));
        self.remote = Some(remote);
        self.restarting = false;
        self.awaiting = false;
        Ok(Taken { plays: self.plays(), declined })
    }

    fn check_transport(&self, answer: &Offer) -> Result<Remote, Refusal> {
        let bad = |text: &str| Err(Refusal::BadSdp(text.to_owned()));
        if answer.setup != Setup::Active {
            return bad("a=setup must be active in the answer: the gateway is the DTLS server");
        }
        if answer.fingerprints.is_empty() {
            return Err(Refusal::NoFingerprint);
        }
        if let Some(known) = &self.remote {
            if known.fingerprints != answer.fingerprints {
                return bad("a=fingerprint is not that of the first answer");
            }
            if !self.restarting && known.ufrag != answer.ufrag {
                return bad("a=ice-ufrag has changed, but the offer did not restart ICE");
            }
            if self.restarting && known.ufrag == answer.ufrag {
                return bad("a=ice-ufrag has not changed, but the offer restarts ICE");
            }
        }
        let Offer { ufrag, fingerprints, .. } = answer;
        Ok(Remote { ufrag: ufrag.clone(), fingerprints: fingerprints.clone() })
    }

    fn check_sections(&self, answer: &Offer) -> Result<(), Refusal> {
        let (sections, offered) = (answer.media.len(), self.slots.len() + 1);
        if sections != offered {
            let text = format!("the answer has {sections} m-sections, the offer has {offered}");
            return Err(Refusal::BadSdp(text));
        }
        let anchor = std::iter::once((ANCHOR, MediaKind::Audio, true));
        let slots = self.slots.iter();
        let slots = slots.map(|s| (s.mid.as_str(), s.kind, open_of(&s.state).is_some()));
        for (index, ((mid, kind, open), media)) in
            anchor.chain(slots).zip(&answer.media).enumerate()
        {
            let bad = |fault: &str| {
                let text = format!("m-section {index} of the answer: {fault}");
                Err(Refusal::BadSdp(text))
            };
            if media_kind(media.kind) != Some(kind) {
                return bad("its kind is not the offer's");
            }
            // A rejected section needs no mid.
            if media.mid.as_deref().map_or(open && !media.disabled, |it| it != mid) {
                return bad("its a=mid is not the offer's");
            }
            if !open || media.disabled {
                if index == 0 {
                    return bad("it carries the bundle's transport and cannot be rejected");
                }
                continue;
            }
            if !answer.bundle.iter().any(|bundled| bundled == mid) {
                return bad("it is not in a=group:BUNDLE");
            }
            if !media.rtcp_mux {
                return bad("a=rtcp-mux is required");
            }
            if media.protocol.is_none_or(|protocol| !protocol.is_dtls_srtp()) {
                return bad("the protocol must be UDP/TLS/RTP/SAVPF");
            }
        }
        Ok(())
    }

    /// What the client takes.
    fn plays(&self) -> Vec<PlaySpec> {
        let mut plays: Vec<PlaySpec> = Vec::new();
        for open in self.open() {
            let Some(track) = &open.taken else { continue };
            match plays.iter_mut().find(|play| play.stream.id == open.stream.id) {
                Some(play) => play.tracks.push(track.clone()),
                None => plays.push(PlaySpec {
                    stream: Arc::clone(&open.stream),
                    cname: self.cname.clone(),
                    tracks: vec![track.clone()],
                }),
            }
        }
        plays
    }
}

const fn open_of(state: &State) -> Option<&Open> {
    match state {
        State::Open(open) => Some(open),
        State::Free | State::Closing | State::Declined => None,
    }
}

/// How an answer takes a track.
fn judge(open: &Open, mid: &str, media: &MediaSection) -> Result<PlayTrackSpec, &'static str> {
    if media.disabled {
        return Err("the client rejected it");
    }
    if !media.direction.receives() {
        return Err("the client does not receive it");
    }
    let Payload { pt, rtx } = open.payload;
    let codec = media.codecs.iter().find(|codec| codec.pt == pt);
    let same = codec.and_then(|codec| typed(media.kind, codec));
    if same.is_none_or(|codec| codec.name != open.codec.name) {
        return Err("the client does not receive its codec");
    }
    let mut taken = Extensions::default();
    let kind = media_kind(media.kind).ok_or("the client changed its kind")?;
    for (extension, slot) in extensions(kind) {
        let ours = |it: &&crate::wire::sdp::HeaderExtension| it.uri == extension.uri;
        if media.extensions.iter().find(ours).is_some_and(|it| it.id == extension.id) {
            *slot(&mut taken) = Some(extension.id);
        }
    }
    let rtx = rtx.filter(|rtx| media.rtx_of(pt) == Some(*rtx));
    Ok(PlayTrackSpec {
        track: open.track,
        mid: mid.to_owned(),
        pt,
        rtx_pt: rtx,
        // Players of our offers get plain Opus.
        red_pt: None,
        ssrc: open.ssrc,
        rtx_ssrc: open.rtx_ssrc.filter(|_| rtx.is_some()),
        extensions: taken,
    })
}

type Field = fn(&mut Extensions) -> &mut Option<u8>;

/// What we offer for a kind, one id for one meaning in the whole bundle (RFC 8843 section 9.1).
fn extensions(kind: MediaKind) -> impl Iterator<Item = (AnsweredExtension, Field)> {
    const ALL: [(u8, &str, Option<MediaKind>, Field); 5] = [
        (1, MID, None, |it| &mut it.mid),
        (2, AUDIO_LEVEL, Some(MediaKind::Audio), |it| &mut it.audio_level),
        (3, VIDEO_ORIENTATION, Some(MediaKind::Video), |it| &mut it.video_orientation),
        (4, PLAYOUT_DELAY, Some(MediaKind::Video), |it| &mut it.playout_delay),
        (5, TRANSPORT_CC, None, |it| &mut it.transport_cc),
    ];
    ALL.into_iter()
        .filter(move |(_, _, only, _)| only.is_none_or(|only| only == kind))
        .map(|(id, uri, _, field)| (AnsweredExtension { id, direction: None, uri }, field))
}

fn opus() -> Codec {
    let parameter = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let fmtp = vec![parameter("minptime", "10"), parameter("useinbandfec", "1")];
    Codec { name: CodecName::Opus, fmtp }
}

/// A publisher's codec as we offer it. The parameters of its audio are what it wants to receive,
/// and no matter of ours; those of its video say what a decoder must take.
fn offered_codec(codec: &Codec) -> Codec {
    match codec.name {
        CodecName::Opus => opus(),
        _ => codec.clone(),
    }
}

fn answered(codec: &Codec, pt: u8, kind: MediaKind) -> AnsweredCodec {
    let video = kind == MediaKind::Video;
    let feedback =
        Feedback { nack: video, pli: video, fir: video, remb: video, transport_cc: true };
    AnsweredCodec {
        pt,
        name: encoding_name(codec.name),
        clock: codec.name.clock_rate(),
        channels: if codec.name == CodecName::Opus { 2 } else { 1 },
        fmtp: codec.fmtp.clone(),
        feedback,
    }
}

fn section_kind(kind: MediaKind) -> SectionKind {
    match kind_name(kind) {
        "audio" => SectionKind::Audio,
        _ => SectionKind::Video,
    }
}

#[cfg(test)]
mod tests;
