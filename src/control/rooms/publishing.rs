//! What participants publish, and what is published in the room whoever does it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Fault;
use super::media::{Speaker, StreamInfo};
use super::request::{Mute, Publish};
use super::room::{Ending, Id, Participant, Pending, Publishing, Room, Stream};
use super::said::{Connection, Gone, Said};
use crate::control::api::Refusal;
use crate::ids::StreamName;
use crate::time::Mono;

/// A name whose stream is just being ended is waited for so long.
const FREE_WITHIN: Duration = Duration::from_secs(2);

impl Room {
    pub(super) fn stream_name(&self, stream: &str) -> Result<StreamName, Fault> {
        let name = format!("{}/{stream}", self.name);
        name.parse().map_err(|error: crate::ids::NameError| Fault::new("bad_name", error))
    }

    pub(super) fn publish(
        &mut self,
        now: Mono,
        id: &Id,
        request: Option<u64>,
        publish: Publish,
    ) -> Result<(), Fault> {
        let stream = self.stream_name(&publish.stream)?;
        let participant = self.participants.get(id).ok_or_else(Fault::gone)?;
        if !participant.grant.may_publish(&stream) {
            let detail = format!("the token does not allow publishing {stream}");
            return Err(Fault::new("not_granted", detail));
        }
        if participant.publishing.is_some() || participant.pending.is_some() {
            let detail = "this participant publishes already; unpublish first";
            return Err(Fault::new("already_publishing", detail));
        }
        let Publish { sdp, .. } = publish;
        let may_send = participant.grant.data;
        let speaker = Speaker { participant: id, may_send };
        match self.media.publish(&stream, &participant.who, speaker, &sdp) {
            Ok(accepted) => self.published(now, id, request, &stream, accepted),
            Err(Refusal::NameInUse) if self.becomes_free(now, id, &stream) => {
                let until = now.plus(FREE_WITHIN);
                if let Some(participant) = self.participants.get_mut(id) {
                    participant.pending = Some(Pending { id: request, stream, sdp, until });
                }
            }
            Err(refusal) => return Err(refusal.into()),
        }
        Ok(())
    }

    fn published(
        &mut self,
        now: Mono,
        id: &str,
        request: Option<u64>,
        stream: &StreamName,
        accepted: crate::control::api::Accepted,
    ) {
        // Who had the name before has it no more, whether or not that was heard yet.
        let before = self.participants.iter_mut().find(|(_, p)| p.publishes(stream.stream()));
        if let Some((before, participant)) = before {
            participant.publishing = None;
            let before = Arc::clone(before);
            self.say_ended(now, &before, Connection::Publish);
        }
        let Some(participant) = self.participants.get_mut(id) else { return };
        participant.publishing = Some(Publishing {
            stream: stream.stream().to_owned(),
            resource: accepted.resource,
            muted: BTreeSet::new(),
        });
        let (id_of_request, sdp) = (request, &accepted.answer);
        let text = Said::Published { id: id_of_request, stream: stream.stream(), sdp }.text();
        self.say(now, id, text);
    }

    /// Whether a name in use will be free in a moment: its stream is being ended already, or it is
    /// of somebody of the same subject whose connection broke, as after a reloaded page.
    fn becomes_free(&mut self, now: Mono, id: &str, stream: &StreamName) -> bool {
        let ends = |ending: &Ending| ending.stream == stream.stream() && ending.until > now;
        if self.ending.iter().any(ends) {
            return true;
        }
        let Some(subject) = self.participants.get(id).map(|p| p.who.subject.clone()) else {
            return false;
        };
        let left_behind = |p: &Participant| {
            p.publishes(stream.stream()) && p.is_away() && p.who.subject == subject
        };
        let found = self.participants.iter().find(|(_, p)| left_behind(p));
        let Some(found) = found.map(|(id, _)| Arc::clone(id)) else { return false };
        self.remove(now, &found, Gone::Lost);
        true
    }

    pub(super) fn refuse_late_publishers(&mut self, now: Mono) {
        for id in self.ids() {
            let Some(participant) = self.participants.get_mut(&id) else { continue };
            if let Some(pending) = participant.pending.take_if(|pending| pending.until <= now) {
                self.reply(now, &id, pending.id, Err(Refusal::NameInUse.into()));
            }
        }
    }

    pub(super) fn unpublish(&mut self, now: Mono, id: &str) -> Result<(), Fault> {
        let participant = self.participants.get_mut(id).ok_or_else(Fault::gone)?;
        // Who asked for it does not want it any more.
        let pending = participant.pending.take();
        let own = participant.publishing.take();
        if let Some(pending) = &pending {
            let fault = Fault::new("not_publishing", "it was unpublished before it was published");
            self.reply(now, id, pending.id, Err(fault));
        }
        match own {
            Some(own) => self.end_publishing(now, &own),
            None if pending.is_none() => {
                return Err(Fault::new("not_publishing", "this participant publishes nothing"));
            }
            None => {}
        }
        Ok(())
    }

    pub(super) fn end_publishing(&mut self, now: Mono, own: &Publishing) {
        let (stream, resource) = (own.stream.clone(), own.resource.clone());
        self.ending.push(Ending { stream, resource, until: now.plus(FREE_WITHIN) });
        self.media.close_publishing(&own.resource);
    }

    pub(super) fn restart_publishing(&mut self, id: &str, sdp: &str) -> Result<String, Fault> {
        let participant = self.participants.get_mut(id).ok_or_else(Fault::gone)?;
        let own = participant.publishing.as_ref().ok_or_else(|| {
            Fault::new("not_publishing", "there is no publishing connection: publish")
        })?;
        let answer = self.media.restart_publishing(&own.resource, &participant.who, sdp);
        if answer == Err(Refusal::NotFound) {
            // Its end was not heard yet: to publish anew is possible at once.
            participant.publishing = None;
            let detail = "the publishing connection is over: publish";
            return Err(Fault::new("not_publishing", detail));
        }
        Ok(answer?)
    }

    pub(super) fn mute(&mut self, now: Mono, id: &Id, mute: &Mute) -> Result<(), Fault> {
        let Mute { stream, track, muted } = mute;
        let participant = self.participants.get_mut(id).ok_or_else(Fault::gone)?;
        let own = participant.publishing.as_mut().filter(|own| own.stream == *stream);
        let Some(own) = own else {
            return Err(Fault::new("not_your_stream", "only its publisher mutes a stream"));
        };
        let known = self.streams.get_mut(stream).filter(|s| s.owner.as_ref() == Some(id));
        if let Some(known) = &known
            && usize::from(*track) >= known.tracks.len()
        {
            return Err(Fault::new("no_such_track", format!("{stream} has no track {track}")));
        }
        let changed = if *muted { own.muted.insert(*track) } else { own.muted.remove(track) };
        let (Some(known), true) = (known, changed) else { return Ok(()) };
        known.muted = own.muted.clone();
        let name = known.name.clone();
        if !participant.talk.take(now, 1) {
            return Err(Fault::talks_too_much());
        }
        let said = Said::Muted { participant: id, stream, track: *track, muted: *muted }.text();
        self.tell_others(now, id, &said, |other| other.sees(&name));
        Ok(())
    }

    pub(super) fn stream_started(&mut self, now: Mono, info: StreamInfo) {
        let part = info.name.stream().to_owned();
        let before = self.streams.get(&part);
        if before.is_some_and(|known| known.tracks == info.tracks && known.name == info.name) {
            // It came and went, and the end was missed: players take the new one.
            self.forget_stream(&part);
        }
        let mut publishers = self.participants.iter();
        let own = publishers.find_map(|(id, p)| {
            let own = p.publishing.as_ref().filter(|own| own.stream == part)?;
            Some((Arc::clone(id), own.resource.clone(), own.muted.clone()))
        });
        let (owner, resource, muted) = match own {
            Some((owner, resource, muted)) => (Some(owner), Some(resource), muted),
            None => (None, None, BTreeSet::new()),
        };
        let StreamInfo { name, tracks } = info;
        let stream = Stream { name: name.clone(), tracks, owner, resource, muted };
        self.streams.insert(part.clone(), stream);
        self.speakers.arrived(&part);
        if let Some(text) = self.stream_text(&part) {
            self.tell_others(now, "", &text, |other| other.sees(&name));
        }
        self.refresh_all(now);
    }

    pub(super) fn stream_ended(&mut self, now: Mono, part: &str) {
        if let Some(stream) = self.streams.remove(part) {
            self.forget_stream(part);
            let text = Said::StreamRemoved { stream: part }.text();
            self.tell_others(now, "", &text, |other| other.sees(&stream.name));
            // A publisher's session ends with its stream, should nothing else say so.
            if let Some(resource) = &stream.resource {
                self.session_ended(now, resource);
            }
            self.refresh_all(now);
        }
        self.publish_now(now, part);
    }

    fn forget_stream(&mut self, part: &str) {
        self.speakers.went(part);
        for participant in self.participants.values_mut() {
            participant.playing.forget(part);
        }
    }

    /// Somebody may have waited for the name.
    fn publish_now(&mut self, now: Mono, part: &str) {
        let waits = |p: &Participant| {
            p.pending.as_ref().is_some_and(|pending| pending.stream.stream() == part)
        };
        let Some(id) = self.participants.iter().find(|(_, p)| waits(p)).map(|(id, _)| id.clone())
        else {
            return;
        };
        let Some(participant) = self.participants.get_mut(&id) else { return };
        let Some(pending) = participant.pending.take() else { return };
        let speaker = Speaker { participant: &id, may_send: participant.grant.data };
        match self.media.publish(&pending.stream, &participant.who, speaker, &pending.sdp) {
            Ok(accepted) => self.published(now, &id, pending.id, &pending.stream, accepted),
            Err(refusal) => self.reply(now, &id, pending.id, Err(refusal.into())),
        }
    }

    pub(super) fn session_ended(&mut self, now: Mono, resource: &str) {
        if let Some(at) = self.ending.iter().position(|ending| ending.resource == resource) {
            let free = self.ending.swap_remove(at);
            self.publish_now(now, &free.stream);
        }
        let publishes =
            |p: &Participant| p.publishing.as_ref().is_some_and(|own| own.resource == resource);
        let ended = self.participants.iter_mut().find_map(|(id, p)| {
            if publishes(p) {
                p.publishing = None;
                Some((Arc::clone(id), Connection::Publish))
            } else {
                p.playing.ended(resource).then(|| (Arc::clone(id), Connection::Play))
            }
        });
        if let Some((id, connection)) = ended {
            self.say_ended(now, &id, connection);
        }
    }

    pub(super) fn say_ended(&mut self, now: Mono, id: &str, connection: Connection) {
        self.say(now, id, Said::ConnectionEnded { connection }.text());
    }
}
