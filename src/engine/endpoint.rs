//! A session together with what it is for: the unit a shard owns, and moves to another shard.

use std::sync::Arc;

use super::media::StreamShared;
use super::parked::{Blueprint, BlueprintRole};
use crate::forward::{Player, Publisher};
use crate::ids::{RoomHash, SessionId, SubjectHash};
use crate::relay::Owner;
use crate::session::Session;
use crate::time::{Mono, Now};

use rand::SeedableRng;
use rand::rngs::StdRng;

/// What a session does with media.
#[derive(Debug)]
pub enum Role {
    /// Sends a stream.
    Publish(Box<Publisher>),
    /// Takes a stream.
    Play(Box<Player>),
}

/// One session on its shard.
#[derive(Debug)]
pub struct Endpoint {
    /// Which.
    pub id: SessionId,
    /// Its first local ufrag: its handle in the parked table.
    pub ufrag: String,
    /// Local ufrags by which its shard knows it.
    pub names: Vec<String>,
    /// The stream it sends or takes.
    pub stream: Arc<StreamShared>,
    /// ICE, DTLS, SRTP.
    pub session: Session,
    /// Publisher or player.
    pub role: Role,
    /// DTLS is done.
    pub connected: bool,
    /// The timer in the shard's heap that is valid for it.
    pub scheduled: Option<Mono>,
    /// Waits in the shard's handshake queue.
    pub queued: bool,
    subject: SubjectHash,
    room: RoomHash,
}

impl Endpoint {
    /// Builds what signalling agreed.
    ///
    /// # Errors
    /// When DTLS cannot be set up.
    pub fn new(
        blueprint: Blueprint,
        rng: &mut StdRng,
        now: Now,
    ) -> Result<Self, crate::session::SetupError> {
        let Blueprint { params, dtls, role } = blueprint;
        let (id, ufrag) = (params.id, params.local.ufrag.clone());
        let (subject, room) = (params.subject, params.room);
        let session = Session::new(params, dtls, now)?;
        let own = StdRng::from_rng(rng);
        let (stream, role) = match role {
            BlueprintRole::Publish(stream) => {
                let publisher = Publisher::new(Arc::clone(&stream.spec), own, now);
                (stream, Role::Publish(Box::new(publisher)))
            }
            BlueprintRole::Play(stream, spec) => {
                (stream, Role::Play(Box::new(Player::new(spec, own, now))))
            }
        };
        Ok(Self {
            id,
            ufrag,
            names: Vec::new(),
            stream,
            session,
            role,
            connected: false,
            scheduled: None,
            queued: false,
            subject,
            room,
        })
    }

    /// Whether an allocation minted for `owner` may carry this session.
    #[must_use]
    pub fn may_use(&self, owner: &Owner) -> bool {
        owner.subject == self.subject || owner.room == Some(self.room)
    }

    /// When it next wants to be called. Without a way to send (`routed`) its role waits: what is
    /// due could not be sent, and would stay due.
    #[must_use]
    pub fn poll_timeout(&self, routed: bool) -> Option<Mono> {
        let role = match &self.role {
            _ if !self.connected || !routed => None,
            Role::Publish(publisher) => publisher.poll_timeout(),
            Role::Play(player) => player.poll_timeout(),
        };
        [self.session.poll_timeout(), role].into_iter().flatten().min()
    }
}
