//! What a participant plays: which streams, in which layers, and the offers that come of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::Fault;
use super::media::{PlayOffer, PlayingId, Wish};
use super::request::{Answer, Layer, Start, Tracks, Wanted};
use super::room::{Participant, Room};
use super::said::{self, Connection, Said};
use crate::control::api::Refusal;
use crate::ids::StreamName;
use crate::time::Mono;
use crate::wire::media::MediaKind;

/// A playing connection that could not be opened is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// The estimate is told at most this often,
const ESTIMATE_EVERY: Duration = Duration::from_secs(1);
/// and when it changed by this part of it.
const ESTIMATE_PART: u64 = 10;

enum Choice {
    All,
    Chosen(BTreeSet<String>),
}

struct Unanswered {
    /// As the participant knows it, and as the connection does.
    revision: (u32, u32),
    text: Arc<str>,
}

struct Connected {
    id: PlayingId,
    subscribed: Vec<StreamName>,
    unanswered: Option<Unanswered>,
    /// A stream of it was another's in between: what is subscribed must be said again.
    stale: bool,
    /// No offer of it was answered yet.
    fresh: bool,
    /// What the last offer carries.
    offered: Vec<(StreamName, u8, MediaKind)>,
    /// What the media side was told of each track.
    told: BTreeMap<(String, u8), Wish>,
}

/// A participant's playing connection and wishes.
pub(super) struct Playing {
    choice: Choice,
    connected: Option<Connected>,
    /// It ended on its own: another is opened when the participant asks.
    ended: bool,
    revision: u32,
    asked: BTreeMap<(String, u8), Wish>,
    last_n: Option<u8>,
    again: Option<Mono>,
    estimate: (u64, Mono),
}

impl Playing {
    pub(super) const fn new(start: Start) -> Self {
        let choice = match start {
            Start::All => Choice::All,
            Start::None => Choice::Chosen(BTreeSet::new()),
        };
        Self {
            choice,
            connected: None,
            ended: false,
            revision: 0,
            asked: BTreeMap::new(),
            last_n: None,
            again: None,
            estimate: (0, Mono::ZERO),
        }
    }

    pub(super) fn id(&self) -> Option<&PlayingId> {
        self.connected.as_ref().map(|connected| &connected.id)
    }

    /// The offer that waits for its answer.
    pub(super) fn unanswered(&self) -> Option<Arc<str>> {
        Some(Arc::clone(&self.connected.as_ref()?.unanswered.as_ref()?.text))
    }

    /// Whether it was this one that ended.
    pub(super) fn ended(&mut self, resource: &str) -> bool {
        let own = self.connected.take_if(|connected| connected.id.0 == resource).is_some();
        self.ended |= own;
        own
    }

    /// A stream is gone: what was wished of it, too.
    pub(super) fn forget(&mut self, stream: &str) {
        self.asked.retain(|(name, _), _| name != stream);
        if let Some(connected) = &mut self.connected {
            connected.told.retain(|(name, _), _| name != stream);
            connected.offered.retain(|(name, ..)| name.stream() != stream);
            connected.stale |= connected.subscribed.iter().any(|name| name.stream() == stream);
        }
    }

    fn offer(&mut self, offer: &PlayOffer) -> Option<Arc<str>> {
        let connected = self.connected.as_mut()?;
        self.revision = self.revision.saturating_add(1);
        let text = said::offer(self.revision, connected.fresh, offer);
        let revision = (self.revision, offer.revision);
        connected.unanswered = Some(Unanswered { revision, text: Arc::clone(&text) });
        let tracks = offer.tracks.iter();
        connected.offered = tracks.map(|t| (t.stream.clone(), t.track, t.kind)).collect();
        let offered = &connected.offered;
        let still = |(stream, track): &(String, u8)| {
            offered.iter().any(|(name, number, _)| name.stream() == stream && number == track)
        };
        connected.told.retain(|key, _| still(key));
        Some(text)
    }
}

impl Room {
    fn wants(&self, participant: &Participant) -> Vec<StreamName> {
        let wanted = |part: &str| match &participant.playing.choice {
            Choice::All => !participant.publishes(part),
            Choice::Chosen(chosen) => chosen.contains(part),
        };
        let streams = self
            .streams
            .iter()
            .filter(|(part, stream)| wanted(part) && participant.grant.may_play(&stream.name));
        streams.map(|(_, stream)| stream.name.clone()).collect()
    }

    pub(super) fn refresh_all(&mut self, now: Mono) {
        for id in self.ids() {
            self.refresh(now, &id);
        }
    }

    /// Sees to it that a participant is played what it wants.
    pub(super) fn refresh(&mut self, now: Mono, id: &str) {
        let Some(participant) = self.participants.get(id) else { return };
        let waits = participant.playing.again.is_some_and(|again| now < again);
        if participant.playing.ended || waits {
            return;
        }
        let wanted = self.wants(participant);
        let opened = match &participant.playing.connected {
            Some(connected) if connected.subscribed == wanted && !connected.stale => return,
            Some(_) => None,
            None if wanted.is_empty() => return,
            None => Some(self.media.open_playing(&participant.who, &self.name)),
        };
        let Some(participant) = self.participants.get_mut(id) else { return };
        participant.playing.again = None;
        match opened {
            None => {}
            Some(Ok(playing)) => {
                participant.playing.connected = Some(Connected {
                    id: playing,
                    subscribed: Vec::new(),
                    unanswered: None,
                    stale: false,
                    fresh: true,
                    offered: Vec::new(),
                    told: BTreeMap::new(),
                });
            }
            Some(Err(refusal)) => return self.cannot_play(now, id, refusal),
        }
        let Some(connected) = &mut participant.playing.connected else { return };
        match self.media.subscribe_playing(&connected.id, wanted.clone()) {
            Ok(offer) => {
                connected.subscribed = wanted;
                connected.stale = false;
                self.say_offer(now, id, offer.as_ref());
            }
            Err(Refusal::NotFound) => self.playing_lost(now, id),
            Err(refusal) => self.cannot_play(now, id, refusal),
        }
    }

    fn cannot_play(&mut self, now: Mono, id: &str, refusal: Refusal) {
        if let Some(participant) = self.participants.get_mut(id) {
            participant.playing.again = Some(now.plus(AGAIN));
        }
        self.reply(now, id, None, Err(refusal.into()));
    }

    fn playing_lost(&mut self, now: Mono, id: &str) {
        let Some(participant) = self.participants.get_mut(id) else { return };
        participant.playing.connected = None;
        participant.playing.ended = true;
        self.say_ended(now, id, Connection::Play);
    }

    fn say_offer(&mut self, now: Mono, id: &str, offer: Option<&PlayOffer>) {
        let Some(offer) = offer else { return };
        let Some(participant) = self.participants.get_mut(id) else { return };
        if let Some(text) = participant.playing.offer(offer) {
            self.say(now, id, text);
        }
        self.steer(id);
    }

    /// Takes an answer; the offer that follows at once, if any.
    pub(super) fn answered(
        &mut self,
        id: &str,
        answer: &Answer,
    ) -> Result<Option<PlayOffer>, Fault> {
        let participant = self.participants.get_mut(id).ok_or_else(Fault::gone)?;
        let none = || Fault::new("not_playing", "no offer waits for an answer");
        let connected = participant.playing.connected.as_mut().ok_or_else(none)?;
        let unanswered = connected.unanswered.as_ref().ok_or_else(none)?;
        let (revision, own) = unanswered.revision;
        if revision != answer.revision {
            let detail = format!("the offer that waits for an answer has revision {revision}");
            return Err(Fault::new("stale_revision", detail));
        }
        let next = self.media.answer_playing(&connected.id, own, &answer.sdp)?;
        connected.unanswered = None;
        connected.fresh = false;
        Ok(next)
    }

    pub(super) fn after_answer(&mut self, now: Mono, id: &str, next: Option<PlayOffer>) {
        self.say_offer(now, id, next.as_ref());
        self.steer(id);
        self.refresh(now, id);
    }

    pub(super) fn restart_playing(&mut self, now: Mono, id: &str) {
        let Some(participant) = self.participants.get_mut(id) else { return };
        participant.playing.ended = false;
        participant.playing.again = None;
        let Some(connected) = &participant.playing.connected else {
            return self.refresh(now, id);
        };
        match self.media.restart_playing(&connected.id) {
            Ok(offer) => self.say_offer(now, id, offer.as_ref()),
            Err(Refusal::NotFound) => {
                // It has just ended: another one does as well.
                participant.playing.connected = None;
                self.refresh(now, id);
            }
            Err(refusal) => self.cannot_play(now, id, refusal),
        }
    }

    pub(super) fn subscribe(&mut self, id: &str, wanted: Wanted) -> Result<(), Fault> {
        let choice = match wanted {
            Wanted::All => Choice::All,
            Wanted::Chosen(list) => {
                let participant = self.participants.get(id).ok_or_else(Fault::gone)?;
                for part in &list {
                    let name = self.stream_name(part)?;
                    if !participant.grant.may_play(&name) {
                        let detail = format!("the token does not allow playing {name}");
                        return Err(Fault::new("not_granted", detail));
                    }
                }
                Choice::Chosen(list.into_iter().collect())
            }
        };
        let participant = self.participants.get_mut(id).ok_or_else(Fault::gone)?;
        participant.playing.choice = choice;
        Ok(())
    }

    /// The tracks meant, of a stream that the participant may know of.
    fn tracks(
        &self,
        id: &str,
        stream: &str,
        track: Option<u8>,
        video: bool,
    ) -> Result<Vec<u8>, Fault> {
        let participant = self.participants.get(id).ok_or_else(Fault::gone)?;
        let known = self.streams.get(stream).filter(|s| participant.sees(&s.name));
        let known = known.ok_or_else(|| Fault::new("no_such_stream", "there is no such stream"))?;
        let numbered = || (0..).zip(&known.tracks);
        let chosen: Vec<u8> = match track {
            Some(track) => numbered().map(|(n, _)| n).filter(|n| *n == track).collect(),
            None if video => {
                let mut videos = numbered().filter(|(_, t)| t.kind == MediaKind::Video);
                videos.next().map(|(n, _)| n).into_iter().collect()
            }
            None => numbered().map(|(n, _)| n).collect(),
        };
        if chosen.is_empty() {
            return Err(Fault::new("no_such_track", "the stream has no such track"));
        }
        Ok(chosen)
    }

    pub(super) fn layer(&mut self, id: &str, layer: &Layer) -> Result<(), Fault> {
        let Layer { stream, track, rid, spatial, temporal } = layer;
        for track in self.tracks(id, stream, *track, true)? {
            let rids = self.streams.get(stream).and_then(|s| s.tracks.get(usize::from(track)));
            let rids = rids.map(|track| track.rids.as_slice()).unwrap_or_default();
            let spatial = match rid.as_deref() {
                None => *spatial,
                Some("auto") => None,
                Some(rid) => {
                    let place = rids.iter().position(|known| known == rid);
                    let place = place.and_then(|place| u8::try_from(place).ok());
                    Some(place.ok_or_else(|| {
                        Fault::new("no_such_layer", "the track has no layer of this name")
                    })?)
                }
            };
            let participant = self.participants.get_mut(id).ok_or_else(Fault::gone)?;
            let wish = participant.playing.asked.entry((stream.clone(), track)).or_default();
            *wish = Wish { paused: wish.paused, spatial, temporal: *temporal };
        }
        self.steer(id);
        Ok(())
    }

    pub(super) fn pause(&mut self, id: &str, tracks: &Tracks, paused: bool) -> Result<(), Fault> {
        for track in self.tracks(id, &tracks.stream, tracks.track, false)? {
            let participant = self.participants.get_mut(id).ok_or_else(Fault::gone)?;
            let wishes = &mut participant.playing.asked;
            wishes.entry((tracks.stream.clone(), track)).or_default().paused = paused;
        }
        self.steer(id);
        Ok(())
    }

    pub(super) fn set_last_n(&mut self, id: &str, n: Option<u8>) {
        if let Some(participant) = self.participants.get_mut(id) {
            participant.playing.last_n = n;
        }
        self.steer(id);
    }

    /// Tells the media side what it was not told yet of a participant's wishes.
    pub(super) fn steer(&mut self, id: &str) {
        let Some(participant) = self.participants.get_mut(id) else { return };
        let playing = &mut participant.playing;
        let Some(connected) = &mut playing.connected else { return };
        let plays = |stream: &str| {
            let mut offered = connected.offered.iter();
            offered.any(|(name, _, kind)| name.stream() == stream && *kind == MediaKind::Video)
        };
        let shown: Option<BTreeSet<&str>> = playing.last_n.map(|n| {
            let recent = self.speakers.recent().filter(|stream| plays(stream));
            recent.take(usize::from(n)).collect()
        });
        for (name, track, kind) in &connected.offered {
            let key = (name.stream().to_owned(), *track);
            let mut wish = playing.asked.get(&key).copied().unwrap_or_default();
            let hidden = shown.as_ref().is_some_and(|shown| !shown.contains(name.stream()));
            wish.paused |= *kind == MediaKind::Video && hidden;
            if connected.told.get(&key).copied().unwrap_or_default() == wish {
                continue;
            }
            // A track that is not there yet is told of after the next answer, or tick.
            if self.media.steer_playing(&connected.id, name, *track, wish).is_ok() {
                connected.told.insert(key, wish);
            }
        }
    }

    /// Estimates, and what could not be done before.
    pub(super) fn look_after_players(&mut self, now: Mono) {
        for id in self.ids() {
            self.refresh(now, &id);
            self.steer(&id);
            let Some(participant) = self.participants.get_mut(&id) else { continue };
            let playing = &mut participant.playing;
            let (before, at) = playing.estimate;
            let Some(connected) = &playing.connected else { continue };
            if now.since(at) < ESTIMATE_EVERY && at != Mono::ZERO {
                continue;
            }
            let Some(bps) = self.media.estimate_of(&connected.id) else { continue };
            if before.abs_diff(bps) > before / ESTIMATE_PART {
                playing.estimate = (bps, now);
                self.say(now, &id, Said::Estimate { bps }.text());
            }
        }
    }
}
