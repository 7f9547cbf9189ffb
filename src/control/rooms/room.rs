//! One room: who is in it, what is published there, who is told of what. A state machine: time and
//! randomness are arguments, media is a trait, and what is said waits in outboxes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::constant_time;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::bucket::{Bucket, Rate};
use super::media::{Media, StreamEvent, StreamInfo, TrackInfo};
use super::outbox::{Close, Outbox};
use super::playing::Playing;
use super::request::{Body, Request, Start};
use super::said::{Gone, Joined, May, Person, Said, Stream as SaidStream, Track};
use super::{Fault, Refused};
use crate::auth::token::Grant;
use crate::control::api::Principal;
use crate::ids::StreamName;
use crate::time::{Mono, Now};

/// Most participants of a room.
pub const MAX_PARTICIPANTS: usize = 100;
/// Most participants of one subject in a room: one token must not take every place.
pub const MAX_PER_SUBJECT: usize = 64;
/// A participant whose connection broke has this long to come back.
pub const RESUME_WITHIN: Duration = Duration::from_secs(30);
/// A token that was put out does not open the room again for this long.
pub const BARRED_FOR: Duration = Duration::from_secs(600);
/// Chat and data kept for somebody who is away: messages, and bytes.
const MAX_KEPT: (usize, usize) = (64, 64 * 1024);
/// Most tokens that are kept out of a room; the oldest is forgotten.
const MAX_BARRED: usize = 256;
/// What everybody in a room has to read: messages of one participant.
const TALK: Rate = Rate { burst: 30, per_second: 10 };
/// The same in bytes.
const TALK_BYTES: Rate = Rate { burst: 128 * 1024, per_second: 64 * 1024 };

/// A participant's id.
pub(super) type Id = Arc<str>;

/// A participant as one connection has it: another connection may take over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attached {
    pub(super) participant: Id,
    pub(super) generation: u64,
}

impl Attached {
    /// The participant's id.
    #[must_use]
    pub fn participant(&self) -> &str {
        &self.participant
    }
}

/// Who wants in, their token found good and for this room.
#[derive(Debug)]
pub struct Joining {
    /// What the reply carries.
    pub id: Option<u64>,
    /// What the token allows.
    pub grant: Grant,
    /// For people.
    pub name: String,
    /// What is played from the start.
    pub subscribe: Start,
    /// The resume token of somebody who was here.
    pub resume: Option<String>,
    /// A fresh resume token, unguessable.
    pub fresh: String,
}

pub(super) enum Seat {
    Attached { outbox: Outbox, generation: u64 },
    Away { since: Mono, kept: VecDeque<Arc<str>>, bytes: usize },
}

impl Seat {
    const fn away(since: Mono) -> Self {
        Self::Away { since, kept: VecDeque::new(), bytes: 0 }
    }
}

/// What a participant publishes.
pub(super) struct Publishing {
    pub(super) stream: String,
    pub(super) resource: String,
    pub(super) muted: BTreeSet<u8>,
}

/// A stream that is being ended for a participant.
pub(super) struct Ending {
    pub(super) stream: String,
    pub(super) resource: String,
    pub(super) until: Mono,
}

/// A `publish` that waits for its name to be free.
pub(super) struct Pending {
    pub(super) id: Option<u64>,
    pub(super) stream: StreamName,
    pub(super) sdp: String,
    pub(super) until: Mono,
}

pub(super) struct Participant {
    pub(super) name: String,
    pub(super) who: Principal,
    pub(super) grant: Grant,
    pub(super) seat: Seat,
    resume: String,
    pub(super) publishing: Option<Publishing>,
    pub(super) pending: Option<Pending>,
    pub(super) playing: Playing,
    pub(super) talk: Bucket,
    pub(super) talk_bytes: Bucket,
    _place: OwnedSemaphorePermit,
}

impl Participant {
    pub(super) fn publishes(&self, stream: &str) -> bool {
        self.publishing.as_ref().is_some_and(|own| own.stream == stream)
    }

    pub(super) fn sees(&self, stream: &StreamName) -> bool {
        self.publishes(stream.stream()) || self.grant.may_play(stream)
    }

    pub(super) const fn is_away(&self) -> bool {
        matches!(self.seat, Seat::Away { .. })
    }
}

/// A stream whose publisher is connected.
pub(super) struct Stream {
    pub(super) name: StreamName,
    pub(super) tracks: Vec<TrackInfo>,
    /// Who publishes it here; none: somebody outside, by WHIP.
    pub(super) owner: Option<Id>,
    /// Their session.
    pub(super) resource: Option<String>,
    pub(super) muted: BTreeSet<u8>,
}

impl Stream {
    fn said(&self) -> SaidStream<'_> {
        let tracks = (0..).zip(&self.tracks);
        SaidStream {
            stream: self.name.stream(),
            participant: self.owner.as_deref(),
            tracks: tracks.map(|(n, info)| Track::new(n, info, self.muted.contains(&n))).collect(),
        }
    }
}

/// One room.
pub struct Room {
    pub(super) name: String,
    pub(super) media: Arc<dyn Media>,
    /// Places on this node.
    places: Arc<Semaphore>,
    rng: StdRng,
    pub(super) participants: BTreeMap<Id, Participant>,
    pub(super) streams: BTreeMap<String, Stream>,
    /// Names of streams that are being ended for a participant, until they are free.
    pub(super) ending: Vec<Ending>,
    pub(super) speakers: super::speakers::Speakers,
    barred: VecDeque<(String, Mono)>,
    generation: u64,
    /// Nobody may come in any more: it is out of the list of rooms.
    pub(super) over: bool,
}

impl std::fmt::Debug for Room {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Room")
            .field("participants", &self.participants.len())
            .field("streams", &self.streams.len())
            .finish_non_exhaustive()
    }
}

impl Room {
    /// An empty room, with what is published there already. Participants take their places from
    /// `places`.
    #[must_use]
    pub fn new(name: &str, media: Arc<dyn Media>, places: Arc<Semaphore>, seed: u64) -> Self {
        let mut room = Self {
            name: name.to_owned(),
            media,
            places,
            rng: StdRng::seed_from_u64(seed),
            participants: BTreeMap::new(),
            streams: BTreeMap::new(),
            ending: Vec::new(),
            speakers: super::speakers::Speakers::default(),
            barred: VecDeque::new(),
            generation: 0,
            over: false,
        };
        room.resync(Mono::ZERO);
        room
    }

    /// How many are in it, those included who may still come back.
    #[must_use]
    pub fn len(&self) -> usize {
        self.participants.len()
    }

    /// Whether nobody is in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.participants.is_empty()
    }

    /// Whether it can be forgotten.
    pub(super) fn is_over(&self) -> bool {
        self.participants.is_empty() && self.barred.is_empty()
    }

    /// Lets somebody in, or back in; all that is to be said to them goes to `outbox`.
    ///
    /// # Errors
    /// [`Refused`]; `outbox` is as it was.
    pub fn join(
        &mut self,
        now: Now,
        joining: Joining,
        outbox: &Outbox,
    ) -> Result<Attached, Refused> {
        if self.barred.iter().any(|(jti, _)| *jti == joining.grant.jti) {
            return Err(Refused::Kicked);
        }
        let who = Principal {
            subject: joining.grant.subject.clone(),
            room: Some(self.name.clone()),
            jti: joining.grant.jti.clone(),
        };
        let ice = self.media.ice_config(&who).map_err(Refused::Media)?;
        let id = match &joining.resume {
            Some(resume) => self.resumed(resume, &who).ok_or(Refused::ResumeUnknown)?,
            None => self.admit(now.mono, &joining, &who)?,
        };
        self.generation += 1;
        let generation = self.generation;
        let resumed = joining.resume.is_some();
        let Some(participant) = self.participants.get_mut(&id) else { return Err(Refused::Full) };
        let seat = Seat::Attached { outbox: outbox.clone(), generation };
        let before = std::mem::replace(&mut participant.seat, seat);
        participant.resume = joining.fresh;
        participant.grant = joining.grant;
        participant.who = who;
        let kept = match before {
            Seat::Away { kept, .. } => kept,
            Seat::Attached { outbox: other, .. } => {
                if resumed {
                    other.close(Close::Replaced);
                }
                VecDeque::new()
            }
        };
        let Some(participant) = self.participants.get(&id) else { return Err(Refused::Full) };
        let joined = Said::Joined(Box::new(Joined {
            id: joining.id,
            protocol: 1,
            participant: &id,
            name: &participant.name,
            room: &self.name,
            resume: &participant.resume,
            resumed,
            may: self.may(&participant.grant),
            publishing: participant.publishing.as_ref().map(|own| own.stream.as_str()),
            ice: ice.rtc_configuration(),
            participants: self
                .participants
                .iter()
                .filter(|(other, _)| **other != id)
                .map(|(other, they)| Person { participant: other, name: &they.name })
                .collect(),
            streams: self
                .streams
                .values()
                .filter(|stream| participant.sees(&stream.name))
                .map(Stream::said)
                .collect(),
        }));
        let joined = joined.text();
        let offer = participant.playing.unanswered();
        let arrived = (!resumed)
            .then(|| Said::ParticipantJoined { participant: &id, name: &participant.name }.text());
        for text in std::iter::once(joined).chain(offer).chain(kept) {
            self.say(now.mono, &id, text);
        }
        if let Some(arrived) = arrived {
            self.tell_others(now.mono, &id, &arrived, |_| true);
        }
        self.refresh(now.mono, &id);
        Ok(Attached { participant: id, generation })
    }

    fn may(&self, grant: &Grant) -> May {
        let here = |patterns: &[crate::auth::token::Pattern]| {
            patterns.iter().any(|pattern| pattern.room() == self.name)
        };
        May {
            publish: here(&grant.publish),
            play: here(&grant.play),
            chat: grant.chat,
            data: grant.data,
            admin: grant.admin,
        }
    }

    fn resumed(&self, resume: &str, who: &Principal) -> Option<Id> {
        let same = |theirs: &str| {
            constant_time::verify_slices_are_equal(theirs.as_bytes(), resume.as_bytes()).is_ok()
        };
        let mut found = self.participants.iter();
        let found = found.find(|(_, p)| same(&p.resume) && p.who.subject == who.subject);
        found.map(|(id, _)| Arc::clone(id))
    }

    fn admit(&mut self, now: Mono, joining: &Joining, who: &Principal) -> Result<Id, Refused> {
        if self.participants.len() >= MAX_PARTICIPANTS {
            return Err(Refused::RoomFull);
        }
        let same = self.participants.values().filter(|p| p.who.subject == who.subject).count();
        if same >= MAX_PER_SUBJECT {
            return Err(Refused::SubjectFull);
        }
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(|_| Refused::Full)?;
        let id = loop {
            let id: Id = format!("{:016x}", self.rng.random::<u64>()).into();
            if !self.participants.contains_key(&id) {
                break id;
            }
        };
        let participant = Participant {
            name: joining.name.clone(),
            who: who.clone(),
            grant: joining.grant.clone(),
            seat: Seat::away(now),
            resume: String::new(),
            publishing: None,
            pending: None,
            playing: Playing::new(joining.subscribe),
            talk: Bucket::new(TALK, now),
            talk_bytes: Bucket::new(TALK_BYTES, now),
            _place: place,
        };
        self.participants.insert(Arc::clone(&id), participant);
        Ok(id)
    }

    /// Does what a participant asks. A connection that was taken over is not heard.
    pub fn handle(&mut self, now: Now, at: &Attached, request: Request) {
        let Some(outbox) = self.outbox_of(at).cloned() else { return };
        let Request { id, body } = request;
        let who = &at.participant;
        let mono = now.mono;
        let done = match body {
            Body::Join(_) => Err(Fault::new("already_joined", "this connection is in a room")),
            Body::Publish(publish) => match self.publish(mono, who, id, publish) {
                // Its reply came, or comes later.
                Ok(()) => return,
                Err(fault) => Err(fault),
            },
            Body::Unpublish => self.unpublish(mono, who),
            Body::Restart(super::request::Restart::Publish(sdp)) => {
                match self.restart_publishing(who, &sdp) {
                    Ok(sdp) => {
                        let connection = super::said::Connection::Publish;
                        let text = Said::Restarted { id, connection, sdp: &sdp }.text();
                        return self.say(mono, who, text);
                    }
                    Err(fault) => Err(fault),
                }
            }
            Body::Restart(super::request::Restart::Play) => {
                // The offer that follows comes after the reply.
                self.reply(mono, who, id, Ok(()));
                return self.restart_playing(mono, who);
            }
            Body::Answer(answer) => match self.answered(who, &answer) {
                Ok(next) => {
                    self.reply(mono, who, id, Ok(()));
                    return self.after_answer(mono, who, next);
                }
                Err(fault) => Err(fault),
            },
            Body::Subscribe(wanted) => match self.subscribe(who, wanted) {
                Ok(()) => {
                    self.reply(mono, who, id, Ok(()));
                    return self.refresh(mono, who);
                }
                Err(fault) => Err(fault),
            },
            Body::Layer(layer) => self.layer(who, &layer),
            Body::Pause(tracks, paused) => self.pause(who, &tracks, paused),
            Body::LastN(n) => {
                self.set_last_n(who, n);
                Ok(())
            }
            Body::Mute(mute) => self.mute(mono, who, &mute),
            Body::Chat(chat) => self.chat(now, who, &chat),
            Body::Data(data) => self.data(mono, who, &data),
            Body::Kick(kick) => self.kick(mono, who, &kick),
            Body::Ice => match self.fresh_ice(who) {
                Ok(ice) => {
                    let text = Said::Ice { id, ice: ice.rtc_configuration() }.text();
                    return self.say(mono, who, text);
                }
                Err(fault) => Err(fault),
            },
            Body::Leave => {
                self.reply(mono, who, id, Ok(()));
                outbox.close(Close::Left);
                return self.remove(mono, who, Gone::Left);
            }
            Body::Ping => return self.say(mono, who, Said::Pong { id }.text()),
        };
        self.reply(mono, who, id, done);
    }

    /// Says what is wrong with a message that could not be read.
    pub fn on_fault(&mut self, now: Now, at: &Attached, id: Option<u64>, fault: Fault) {
        if self.outbox_of(at).is_some() {
            self.reply(now.mono, &at.participant, id, Err(fault));
        }
    }

    /// The connection is gone; its participant may come back.
    pub fn on_disconnected(&mut self, now: Mono, at: &Attached) {
        if self.outbox_of(at).is_some()
            && let Some(participant) = self.participants.get_mut(&at.participant)
        {
            participant.seat = Seat::away(now);
        }
    }

    /// The connection was closed by somebody who meant it.
    pub fn on_left(&mut self, now: Mono, at: &Attached) {
        if self.outbox_of(at).is_some() {
            self.remove(now, &at.participant, Gone::Left);
        }
    }

    /// Something of this room came or went, or a session did.
    pub fn on_event(&mut self, now: Mono, event: &StreamEvent) {
        match event {
            StreamEvent::Started(info) if info.name.room() == self.name => {
                self.stream_started(now, info.clone());
            }
            StreamEvent::Ended(name) if name.room() == self.name => {
                self.stream_ended(now, name.stream());
            }
            StreamEvent::SessionEnded { resource } => self.session_ended(now, resource),
            StreamEvent::Started(_) | StreamEvent::Ended(_) => {}
        }
    }

    /// Compares what is known of streams with what there is: events were missed, or none came yet.
    pub fn resync(&mut self, now: Mono) {
        let live = self.media.streams_of(&self.name);
        let lives = |name: &StreamName| live.iter().any(|info| info.name == *name);
        let gone = self.streams.values().filter(|stream| !lives(&stream.name));
        let gone: Vec<String> = gone.map(|stream| stream.name.stream().to_owned()).collect();
        for stream in gone {
            self.stream_ended(now, &stream);
        }
        let known = |info: &StreamInfo| {
            self.streams.get(info.name.stream()).is_some_and(|stream| stream.tracks == info.tracks)
        };
        let new: Vec<StreamInfo> = live.iter().filter(|info| !known(info)).cloned().collect();
        for info in new {
            self.stream_started(now, info);
        }
    }

    /// What time brings; called twice a second or so.
    pub fn handle_timeout(&mut self, now: Now) {
        let now = now.mono;
        let late = |p: &Participant| matches!(p.seat, Seat::Away { since, .. } if now.since(since) >= RESUME_WITHIN);
        let lost = self.participants.iter().filter(|(_, p)| late(p));
        let lost: Vec<Id> = lost.map(|(id, _)| Arc::clone(id)).collect();
        for id in lost {
            self.remove(now, &id, Gone::Lost);
        }
        self.barred.retain(|(_, until)| *until > now);
        self.ending.retain(|ending| ending.until > now);
        self.refuse_late_publishers(now);
        self.hear(now);
        self.look_after_players(now);
    }

    /// Tells everybody that the gateway stops.
    pub fn stop(&mut self, retry_after: u32) {
        let text = Said::Closing { reason: "draining", retry_after }.text();
        for participant in self.participants.values() {
            if let Seat::Attached { outbox, .. } = &participant.seat {
                outbox.push(Arc::clone(&text));
                outbox.close(Close::Stopping);
            }
        }
    }

    fn outbox_of(&self, at: &Attached) -> Option<&Outbox> {
        match &self.participants.get(&at.participant)?.seat {
            Seat::Attached { outbox, generation } if *generation == at.generation => Some(outbox),
            Seat::Attached { .. } | Seat::Away { .. } => None,
        }
    }

    fn fresh_ice(&self, id: &str) -> Result<crate::control::api::IceConfig, Fault> {
        let participant = self.participants.get(id).ok_or_else(Fault::gone)?;
        Ok(self.media.ice_config(&participant.who)?)
    }

    /// Ends a participant's part in everything.
    pub(super) fn remove(&mut self, now: Mono, id: &str, why: Gone) {
        let Some(participant) = self.participants.remove(id) else { return };
        if let Some(own) = &participant.publishing {
            self.end_publishing(now, own);
        }
        if let Some(playing) = participant.playing.id() {
            self.media.close_playing(playing);
        }
        let text = Said::ParticipantLeft { participant: id, reason: why }.text();
        self.tell_others(now, id, &text, |_| true);
    }

    pub(super) fn bar(&mut self, now: Mono, jti: String) {
        if self.barred.len() >= MAX_BARRED {
            self.barred.pop_front();
        }
        self.barred.push_back((jti, now.plus(BARRED_FOR)));
    }

    pub(super) fn reply(&mut self, now: Mono, to: &str, id: Option<u64>, done: Result<(), Fault>) {
        match (done, id) {
            (Ok(()), Some(id)) => self.say(now, to, Said::Ok { id }.text()),
            (Ok(()), None) => {}
            (Err(fault), id) => self.say(now, to, fault.message(id)),
        }
    }

    /// Says something to one who is there; who is away learns of it from the next `joined`.
    pub(super) fn say(&mut self, now: Mono, to: &str, text: Arc<str>) {
        let Some(participant) = self.participants.get_mut(to) else { return };
        if let Seat::Attached { outbox, .. } = &participant.seat
            && !outbox.push(text)
        {
            participant.seat = Seat::away(now);
        }
    }

    /// Says something that no later state repeats: for one who is away it is kept.
    pub(super) fn say_or_keep(&mut self, now: Mono, to: &str, text: Arc<str>) {
        let Some(participant) = self.participants.get_mut(to) else { return };
        match &mut participant.seat {
            Seat::Attached { .. } => self.say(now, to, text),
            Seat::Away { kept, bytes, .. } => {
                if kept.len() < MAX_KEPT.0 && *bytes + text.len() <= MAX_KEPT.1 {
                    *bytes += text.len();
                    kept.push_back(text);
                }
            }
        }
    }

    pub(super) fn tell_others(
        &mut self,
        now: Mono,
        except: &str,
        text: &Arc<str>,
        whom: impl Fn(&Participant) -> bool,
    ) {
        let others = self.participants.iter().filter(|(id, p)| &***id != except && whom(p));
        let others: Vec<Id> = others.map(|(id, _)| Arc::clone(id)).collect();
        for id in others {
            self.say(now, &id, Arc::clone(text));
        }
    }

    pub(super) fn stream_text(&self, stream: &str) -> Option<Arc<str>> {
        Some(Said::StreamAdded(self.streams.get(stream)?.said()).text())
    }

    pub(super) fn ids(&self) -> Vec<Id> {
        self.participants.keys().cloned().collect()
    }
}
