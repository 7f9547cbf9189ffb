//! What participants say to each other, and who is put out.

use std::sync::Arc;

use super::Fault;
use super::outbox::Close;
use super::request::{Chat, Data, Kick, MAX_DATA};
use super::room::{Id, Room, Seat};
use super::said::{Gone, Said};
use crate::time::{Mono, Now};

impl Room {
    pub(super) fn chat(&mut self, now: Now, from: &Id, chat: &Chat) -> Result<(), Fault> {
        let participant = self.participants.get(from).ok_or_else(Fault::gone)?;
        if !participant.grant.chat {
            return Err(Fault::new("not_granted", "the token does not allow chat"));
        }
        let name = &participant.name;
        let (text, private, at) = (&chat.text, chat.to.is_some(), now.unix.as_micros() / 1_000);
        let said = Said::Chat { from, name, text, private, at }.text();
        self.pass_on(now.mono, from, chat.to.as_deref(), &said)
    }

    pub(super) fn data(&mut self, now: Mono, from: &Id, data: &Data) -> Result<(), Fault> {
        let participant = self.participants.get(from).ok_or_else(Fault::gone)?;
        if !participant.grant.data {
            return Err(Fault::new("not_granted", "the token does not allow data"));
        }
        let length = serde_json::to_string(&data.data).map_or(usize::MAX, |text| text.len());
        if length > MAX_DATA {
            return Err(Fault::new("too_long", "data has at most 16384 bytes of JSON"));
        }
        let said = Said::Data { from, data: &data.data, private: data.to.is_some() }.text();
        self.pass_on(now, from, data.to.as_deref(), &said)
    }

    fn pass_on(
        &mut self,
        now: Mono,
        from: &Id,
        to: Option<&str>,
        text: &Arc<str>,
    ) -> Result<(), Fault> {
        if let Some(to) = to
            && !self.participants.contains_key(to)
        {
            return Err(Fault::nobody());
        }
        let participant = self.participants.get_mut(from).ok_or_else(Fault::gone)?;
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        if !participant.talk.take(now, 1) || !participant.talk_bytes.take(now, length) {
            return Err(Fault::talks_too_much());
        }
        match to {
            Some(to) => self.say_or_keep(now, to, Arc::clone(text)),
            None => {
                for id in self.ids() {
                    if id != *from {
                        self.say_or_keep(now, &id, Arc::clone(text));
                    }
                }
            }
        }
        Ok(())
    }

    pub(super) fn kick(&mut self, now: Mono, by: &Id, kick: &Kick) -> Result<(), Fault> {
        let participant = self.participants.get(by).ok_or_else(Fault::gone)?;
        if !participant.grant.admin {
            return Err(Fault::new("not_granted", "the token does not allow putting others out"));
        }
        if kick.participant == **by {
            return Err(Fault::bad("kick: that is you; leave"));
        }
        let target = self.participants.get(&*kick.participant).ok_or_else(Fault::nobody)?;
        if let Seat::Attached { outbox, .. } = &target.seat {
            outbox.push(Said::Kicked { by }.text());
            outbox.close(Close::Kicked);
        }
        let jti = target.who.jti.clone();
        self.bar(now, jti);
        self.remove(now, &kick.participant, Gone::Kicked);
        Ok(())
    }
}
