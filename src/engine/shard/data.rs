//! Data channel messages between the sessions of a room.

use std::sync::Arc;

use super::{Endpoint, Shard};
use crate::engine::media::{DataNews, DataPeer};
use crate::ids::{RoomHash, SessionId};
use crate::metrics::Id;
use crate::session::data::Heard;

/// What one session may say in one turn, so that the others get theirs.
const HEARD_PER_TURN: usize = 64;

impl Shard {
    /// Takes what a session's client said on its channels to the others of its room. What is left
    /// for the next turn is due at once.
    pub(super) fn poll_data(&mut self, endpoint: &mut Endpoint) {
        let Some(peer) = endpoint.data.clone() else { return };
        let now = self.now;
        for _ in 0..HEARD_PER_TURN {
            let heard = endpoint.session.poll_heard(now, &mut self.counters);
            let Some(heard) = heard else { return };
            if !peer.may_send {
                if matches!(heard, Heard::Message(_)) {
                    self.counters.inc(Id::DataDropNotGranted);
                }
                continue;
            }
            let (room, from) = (peer.room, endpoint.id);
            // The receiver learns from whom it is; nobody but us opens channels towards it.
            let news = match heard {
                Heard::Message(mut message) => {
                    message.label = peer.label(&message.label);
                    DataNews::Message { room, from, message }
                }
                Heard::Closed(label) => {
                    DataNews::Closed { room, from, label: Some(peer.label(&label)) }
                }
            };
            self.spread(&Arc::new(news));
        }
    }

    /// A session with data channels is gone: so are the channels that carried its words.
    pub(super) fn data_left(&mut self, from: SessionId, peer: &DataPeer) {
        self.spread(&Arc::new(DataNews::Closed { room: peer.room, from, label: None }));
    }

    fn spread(&mut self, news: &Arc<DataNews>) {
        let mailboxes = Arc::clone(&self.parts.mailboxes);
        for (shard, mailbox) in mailboxes.iter().enumerate() {
            if shard != usize::from(self.parts.id.0) && !mailbox.push_data(Arc::clone(news)) {
                self.counters.inc(Id::DataDropRing);
            }
        }
        self.on_data(news);
    }

    /// Gives the sessions here what another one said.
    pub(super) fn on_data(&mut self, news: &DataNews) {
        let Some(members) = self.data_rooms.get(&news.room()).cloned() else { return };
        let now = self.now;
        for index in members {
            // The sender itself is out of its slot, or has another id.
            self.with_endpoint(index, |endpoint, shard| match news {
                DataNews::Message { from, message, .. } if endpoint.id != *from => {
                    endpoint.session.send_message(now, *from, message, &mut shard.counters);
                }
                DataNews::Message { .. } => {}
                DataNews::Closed { from, label, .. } => {
                    endpoint.session.close_channels(*from, label.as_deref());
                }
            });
            self.touch(index);
        }
    }

    pub(super) fn join_data(&mut self, index: usize, room: RoomHash) {
        self.data_rooms.entry(room).or_default().push(index);
    }

    pub(super) fn leave_data(&mut self, index: usize, room: RoomHash) {
        let Some(members) = self.data_rooms.get_mut(&room) else { return };
        members.retain(|member| *member != index);
        if members.is_empty() {
            self.data_rooms.remove(&room);
        }
    }
}
