//! A session together with what it is for: the unit a shard owns, and moves to another shard.

use std::sync::Arc;

use super::media::{DataPeer, StreamShared};
use super::parked::{Blueprint, BlueprintRole};
use crate::forward::{Player, Publisher};
use crate::ids::{RoomHash, SessionId, StreamId, SubjectHash};
use crate::relay::Owner;
use crate::session::Session;
use crate::time::{Mono, Now};
use crate::wire::media::PlaySpec;

use rand::SeedableRng;
use rand::rngs::StdRng;

/// What a session does with media.
#[derive(Debug)]
pub enum Role {
    /// Sends a stream.
    Publish(Box<Publishing>),
    /// Takes streams.
    Play(Box<Playing>),
}

/// A session that sends a stream.
#[derive(Debug)]
pub struct Publishing {
    /// The stream.
    pub stream: Arc<StreamShared>,
    /// Its receiving end.
    pub publisher: Publisher,
}

/// A session that takes streams.
#[derive(Debug)]
pub struct Playing {
    /// One for each stream, no stream twice.
    pub parts: Vec<Part>,
    /// Of the change that made it so; 0: as claimed.
    pub revision: u32,
}

/// One stream that a session takes.
#[derive(Debug)]
pub struct Part {
    /// The stream.
    pub stream: Arc<StreamShared>,
    /// Its sending end.
    pub player: Player,
    /// Its first SSRC: another agreement on the same stream has another.
    ssrc: Option<u32>,
}

impl Part {
    /// Starts with nothing sent.
    #[must_use]
    pub fn new(stream: Arc<StreamShared>, spec: PlaySpec, rng: &mut StdRng, now: Now) -> Self {
        let ssrc = first_ssrc(&spec);
        Self { stream, player: Player::new(spec, StdRng::from_rng(rng), now), ssrc }
    }

    /// Whether this is what was agreed.
    #[must_use]
    pub fn fits(&self, spec: &PlaySpec) -> bool {
        self.stream.spec.id == spec.stream.id && self.ssrc == first_ssrc(spec)
    }
}

fn first_ssrc(spec: &PlaySpec) -> Option<u32> {
    spec.tracks.first().map(|track| track.ssrc)
}

impl Playing {
    /// The part that takes a stream.
    pub fn part(&mut self, stream: StreamId) -> Option<&mut Part> {
        self.parts.iter_mut().find(|part| part.stream.spec.id == stream)
    }
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
    /// ICE, DTLS, SRTP.
    pub session: Session,
    /// Publisher or player.
    pub role: Role,
    /// It has data channels.
    pub data: Option<DataPeer>,
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
        let Blueprint { params, dtls, role, data } = blueprint;
        let (id, ufrag) = (params.id, params.local.ufrag.clone());
        let (subject, room) = (params.subject, params.room);
        let session = Session::new(params, dtls, now)?;
        let role = match role {
            BlueprintRole::Publish(stream) => {
                let own = StdRng::from_rng(rng);
                let publisher = Publisher::new(Arc::clone(&stream.spec), own, now);
                Role::Publish(Box::new(Publishing { stream, publisher }))
            }
            BlueprintRole::Play(streams) => {
                let part = |(stream, spec)| Part::new(stream, spec, rng, now);
                let parts = streams.into_iter().map(part).collect();
                Role::Play(Box::new(Playing { parts, revision: 0 }))
            }
        };
        Ok(Self {
            id,
            ufrag,
            names: Vec::new(),
            session,
            role,
            data,
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
            Role::Publish(publishing) => publishing.publisher.poll_timeout(),
            Role::Play(playing) => {
                playing.parts.iter().filter_map(|part| part.player.poll_timeout()).min()
            }
        };
        [self.session.poll_timeout(), role].into_iter().flatten().min()
    }
}
