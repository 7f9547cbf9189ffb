//! Data channel messages between the sessions of a room.

use std::sync::Arc;

use super::{Endpoint, Shard};
use crate::engine::mailbox::Message;
use crate::engine::media::{DataNews, DataPeer};
use crate::ids::RoomHash;
use crate::metrics::Id;

impl Shard {
    /// Takes what a session's client said on its channels to the others of its room.
    pub(super) fn poll_data(&mut self, endpoint: &mut Endpoint) {
        let Some(peer) = endpoint.data.clone() else { return };
        let now = self.now;
        while let Some(mut message) = endpoint.session.poll_message(now, &mut self.counters) {
            if !peer.may_send {
                self.counters.inc(Id::DataDropNotGranted);
                continue;
            }
            // The receiver learns from whom it is; nobody but us opens channels towards it.
            message.label = format!("{}/{}", peer.name, message.label).into();
            let (room, from) = (peer.room, endpoint.id);
            self.spread(&Arc::new(DataNews::Message { room, from, message }));
        }
    }

    /// A session with data channels is gone: so are the channels that carried its words.
    pub(super) fn data_left(&mut self, peer: &DataPeer) {
        let prefix = format!("{}/", peer.name);
        self.spread(&Arc::new(DataNews::Left { room: peer.room, prefix }));
    }

    fn spread(&mut self, news: &Arc<DataNews>) {
        let mailboxes = Arc::clone(&self.parts.mailboxes);
        for (shard, mailbox) in mailboxes.iter().enumerate() {
            if shard != usize::from(self.parts.id.0)
                && mailbox.send(Message::Data(Arc::clone(news))).is_err()
            {
                self.counters.inc(Id::DataDropRing);
            }
        }
        self.on_data(news);
    }

    /// Gives the sessions here what another one said.
    pub(super) fn on_data(&mut self, news: &DataNews) {
        let Some(members) = self.data_rooms.get(&news.room()).cloned() else { return };
        for index in members {
            // The sender itself is out of its slot, or has another id.
            self.with_endpoint(index, |endpoint, shard| match news {
                DataNews::Message { from, message, .. } if endpoint.id != *from => {
                    endpoint.session.send_message(message, &mut shard.counters);
                }
                DataNews::Message { .. } => {}
                DataNews::Left { prefix, .. } => endpoint.session.close_channels(prefix),
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
