//! The async owner of what exists: who publishes what, who plays it, and how it ends.
//!
//! A session is agreed here, parked for the data plane, claimed there by the first valid
//! connectivity check, and reported back twice at most: connected and ended.

pub mod api;
mod directory;
pub mod playing;
pub mod restart;
pub mod revocation;
pub mod rooms;
pub mod sealed;
mod steer;
pub mod store;
pub mod streams;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, RngCore};
use tokio::sync::broadcast;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::auth::turn::{Class, Keys, Mint, MintError};
use crate::engine::mailbox::Event;
use crate::engine::media::{DataPeer, StreamShared};
use crate::engine::parked::{Blueprint, BlueprintRole};
use crate::engine::{self, Closing};
use crate::ids::{RoomHash, SessionId, StreamId, StreamName, SubjectHash};
use crate::session::negotiate::{self, AnswerPlan};
use crate::session::{IceCredentials, Params, Reason, dtls};
use crate::time::Now;
use crate::wire::media::StreamSpec;
use crate::wire::sdp;
pub use api::{Accepted, IceConfig, Principal, Refusal};
use directory::{Directory, Entry};
use playing::Playings;
pub use playing::{PlayOffer, PlayedTrack, PlayingId};
pub use streams::{AudioLevel, StreamEvent, StreamInfo, TrackInfo};

/// How long a client has from our answer to its first connectivity check.
const CLAIM_WITHIN: Duration = Duration::from_secs(30);

/// What control is told at start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our only candidates, in every answer.
    pub media: Vec<SocketAddr>,
    /// TURN URLs handed to clients, in order of preference.
    pub urls: Vec<String>,
    /// How long a minted TURN credential may open allocations.
    pub credential_ttl: Duration,
    /// How long its allocations may live.
    pub session_limit: Duration,
    /// Whether credentials of class external reach anybody.
    pub external: bool,
    /// Most sessions at once.
    pub max_sessions: usize,
}

/// The control plane; clones share it.
#[derive(Clone)]
pub struct Control {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    keys: Arc<Keys>,
    engine: engine::Handle,
    dtls: RwLock<Arc<dtls::Context>>,
    directory: Mutex<Directory>,
    /// Never taken while the directory is.
    playings: Mutex<Playings>,
    events: broadcast::Sender<StreamEvent>,
    rng: Mutex<StdRng>,
    sealed: sealed::Sealed,
    /// Sessions to end whose shard was too busy to hear it; at most all there are.
    unheard: Mutex<Vec<(SessionId, String)>>,
}

impl std::fmt::Debug for Control {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Control").finish_non_exhaustive()
    }
}

impl Control {
    /// A control plane over a running data plane. Ids come from `rng`; passwords and session
    /// URLs come from the operating system.
    #[must_use]
    pub fn new(
        config: Config,
        keys: Arc<Keys>,
        engine: engine::Handle,
        dtls: Arc<dtls::Context>,
        rng: StdRng,
    ) -> Self {
        let inner = Inner {
            sealed: sealed::Sealed::new(engine.clone()),
            config,
            keys,
            engine,
            dtls: RwLock::new(dtls),
            directory: Mutex::default(),
            playings: Mutex::default(),
            events: broadcast::Sender::new(streams::EVENTS),
            rng: Mutex::new(rng),
            unheard: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Where the pages of sealed calls find each other.
    #[must_use]
    pub fn sealed(&self) -> &sealed::Sealed {
        &self.inner.sealed
    }

    /// Uses another DTLS certificate for sessions agreed from now on.
    pub fn rotate_certificate(&self, dtls: Arc<dtls::Context>) {
        *self.inner.dtls.write().unwrap_or_else(PoisonError::into_inner) = dtls;
    }

    /// Follows the data plane until it ends.
    pub async fn run(&self, mut events: UnboundedReceiver<Event>) {
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                event = events.recv() => match event {
                    Some(Event::Connected(session)) => self.on_connected(session),
                    Some(Event::Ended(session, reason)) => self.on_ended(session, reason),
                    None => return,
                },
                _ = tick.tick() => {
                    let unheard = std::mem::take(
                        &mut *self.inner.unheard.lock().unwrap_or_else(PoisonError::into_inner),
                    );
                    for (session, ufrag) in unheard {
                        self.end(session, ufrag);
                    }
                    self.inner.sealed.sweep();
                    self.tell_playings_again();
                    for session in self.inner.engine.expire() {
                        tracing::info!(%session, "no connectivity check came in time");
                        self.on_ended(session, Reason::Timeout);
                    }
                }
            }
        }
    }

    /// Agrees on a publisher's session.
    ///
    /// # Errors
    /// A [`Refusal`] that says what is wrong with the offer or the name.
    pub fn publish(
        &self,
        name: &StreamName,
        who: &Principal,
        offer: &str,
    ) -> Result<Accepted, Refusal> {
        self.publish_with(name, who, offer, None)
    }

    /// As [`Self::publish`], for a member of a room: `data` says who it is on data channels, which
    /// the offer may then have beside its media, or alone.
    ///
    /// # Errors
    /// As [`Self::publish`].
    pub fn publish_with(
        &self,
        name: &StreamName,
        who: &Principal,
        offer: &str,
        data: Option<DataPeer>,
    ) -> Result<Accepted, Refusal> {
        let offer = sdp::Offer::parse(offer).map_err(negotiate::Refusal::from)?;
        let (tracks, plan, has_data) = match data {
            Some(_) => negotiate::publish_with_data(&offer)?,
            None => negotiate::publish(&offer).map(|(tracks, plan)| (tracks, plan, false))?,
        };
        let id = StreamId(self.random());
        let spec = Arc::new(StreamSpec { id, name: name.clone(), tracks });
        let stream = Arc::new(StreamShared::new(spec));
        let entry = |session| Entry::publisher(session, Arc::clone(&stream));
        let role = BlueprintRole::Publish(Arc::clone(&stream));
        let data = data.filter(|_| has_data);
        self.agree(name, who, &offer, &plan, role, data, entry)
    }

    /// Agrees on a player's session.
    ///
    /// # Errors
    /// A [`Refusal`]: nobody publishes under the name, or the two ends share no codec.
    pub fn play(
        &self,
        name: &StreamName,
        who: &Principal,
        offer: &str,
    ) -> Result<Accepted, Refusal> {
        let offer = sdp::Offer::parse(offer).map_err(negotiate::Refusal::from)?;
        let stream = self.directory(|d| d.stream(name)).ok_or(Refusal::NobodyPublishing)?;
        let (spec, plan) = {
            let mut rng = self.inner.rng.lock().unwrap_or_else(PoisonError::into_inner);
            negotiate::play(&offer, &stream.spec, &mut rng)?
        };
        let entry = |session| Entry::player(session, Arc::clone(&stream));
        let role = BlueprintRole::Play(vec![(Arc::clone(&stream), spec)]);
        self.agree(name, who, &offer, &plan, role, None, entry)
    }

    #[expect(clippy::too_many_arguments, reason = "all of a session's agreement")]
    fn agree(
        &self,
        name: &StreamName,
        who: &Principal,
        offer: &sdp::Offer,
        plan: &AnswerPlan,
        role: BlueprintRole,
        data: Option<DataPeer>,
        entry: impl FnOnce(Agreed) -> Entry,
    ) -> Result<Accepted, Refusal> {
        let session = SessionId(self.random());
        let local = IceCredentials { ufrag: secret(6), pwd: secret(24) };
        let resource = secret(24);
        let dtls = self.inner.dtls.read().unwrap_or_else(PoisonError::into_inner).clone();
        let answer = plan.answer_sdp(
            &local.ufrag,
            &local.pwd,
            &dtls.fingerprint(),
            &self.inner.config.media,
        );
        let agreed = Agreed {
            session,
            ufrag: local.ufrag.clone(),
            resource: resource.clone(),
            remote_ufrag: offer.ufrag.clone(),
            subject: who.subject.clone(),
            fingerprint: dtls.fingerprint(),
        };
        let ufrag = local.ufrag.clone();
        let limit = self.inner.config.max_sessions;
        self.directory(|d| d.insert(entry(agreed), limit))?;
        let params = Params {
            id: session,
            local,
            remote_ufrag: offer.ufrag.clone(),
            restart: None,
            fingerprints: offer.fingerprints.clone(),
            subject: SubjectHash::of(&who.subject),
            room: RoomHash::of(name.room()),
            data: data.as_ref().map(|_| self.inner.engine.clock().zero()),
        };
        let until = self.inner.engine.clock().mono().plus(CLAIM_WITHIN);
        let blueprint = Box::new(Blueprint { params, dtls, role, data });
        if self.inner.engine.park(blueprint, until).is_err() {
            self.directory(|d| d.remove(session));
            return Err(Refusal::Full);
        }
        // Its publisher may have ended since: then nobody but us knows of this player.
        if !self.directory(|d| d.contains(session)) {
            let _parked = self.inner.engine.close(session, &ufrag);
            return Err(Refusal::NobodyPublishing);
        }
        tracing::info!(%session, stream = %name, "session agreed");
        Ok(Accepted { resource, answer })
    }

    /// Ends a session by its resource. Ending what is gone is no error for the caller to mind:
    /// it is told apart only so that a foreign resource answers 404.
    ///
    /// # Errors
    /// [`Refusal::NotFound`] when there is no such session, or it is another subject's.
    pub fn close(&self, resource: &str, who: Option<&Principal>) -> Result<(), Refusal> {
        let (session, ufrag) =
            self.directory(|d| d.by_resource(resource, who)).ok_or(Refusal::NotFound)?;
        match self.inner.engine.close(session, &ufrag) {
            Closing::Told => Ok(()),
            Closing::Gone => {
                self.on_ended(session, Reason::Control);
                Ok(())
            }
            Closing::Busy => Err(Refusal::Full),
        }
    }

    /// A fresh TURN credential for whoever `who` is, with the URLs to use it at.
    ///
    /// # Errors
    /// When the subject cannot be sealed into a credential.
    pub fn ice_config(&self, who: &Principal) -> Result<IceConfig, Refusal> {
        self.mint(&who.subject, who.room.as_deref(), Class::Forwarder, None).map_err(|error| {
            tracing::error!(%error, "no TURN credential could be minted");
            Refusal::Full
        })
    }

    /// A fresh TURN credential for a subject, good for one room or for any.
    ///
    /// # Errors
    /// A `ttl` of less than a second, or longer than the session limit; a class that is off; class
    /// room without one.
    pub fn mint(
        &self,
        subject: &str,
        room: Option<&str>,
        class: Class,
        ttl: Option<Duration>,
    ) -> Result<IceConfig, MintError> {
        let config = &self.inner.config;
        if class == Class::External && !config.external {
            return Err(MintError::ClassOff);
        }
        let now = self.inner.engine.clock().now();
        let ttl = ttl.unwrap_or(config.credential_ttl);
        let session_limit = config.session_limit;
        let mint = Mint { subject, room, class, ttl, session_limit };
        mint.check()?;
        let mut nonce = [0; 12];
        self.inner.rng.lock().unwrap_or_else(PoisonError::into_inner).fill_bytes(&mut nonce);
        let minted = self.inner.keys.mint(now.unix, &mint, nonce)?;
        Ok(IceConfig {
            urls: config.urls.clone(),
            username: minted.username,
            credential: minted.credential,
            ttl: ttl.as_secs(),
            expires_at: minted.allocate_by.as_secs(),
            lifetime: session_limit.as_secs(),
        })
    }

    /// The engine's clocks.
    #[must_use]
    pub fn now(&self) -> Now {
        self.inner.engine.clock().now()
    }

    fn on_connected(&self, session: SessionId) {
        tracing::info!(%session, "session connected");
        if let Some(stream) = self.directory(|d| d.connected(session)) {
            tracing::info!(%session, stream = %stream.spec.name, "stream started");
            self.announce(StreamEvent::Started(StreamInfo::of(&stream.spec)));
        }
    }

    fn on_ended(&self, session: SessionId, reason: Reason) {
        let Some(ended) = self.directory(|d| d.remove(session)) else { return };
        match &ended.name {
            Some(name) => tracing::info!(%session, stream = %name, ?reason, "session ended"),
            None => tracing::info!(%session, ?reason, "playing connection ended"),
        }
        self.forget_playing(&ended.resource);
        // Without its publisher a stream is over: its players learn it now, not by a timeout.
        for (player, ufrag) in ended.players {
            self.end(player, ufrag);
        }
        if let (Some((stream, known)), Some(name)) = (ended.stream, ended.name) {
            self.drop_stream(stream);
            if known {
                self.announce(StreamEvent::Ended(name));
            }
        }
        self.announce(StreamEvent::SessionEnded { resource: ended.resource });
    }

    /// Ends a session that must end: a busy shard is asked again until it has heard.
    fn end(&self, session: SessionId, ufrag: String) {
        match self.inner.engine.close(session, &ufrag) {
            Closing::Told => {}
            Closing::Gone => self.on_ended(session, Reason::Control),
            Closing::Busy => {
                let mut unheard = self.inner.unheard.lock().unwrap_or_else(PoisonError::into_inner);
                unheard.push((session, ufrag));
            }
        }
    }

    fn directory<T>(&self, with: impl FnOnce(&mut Directory) -> T) -> T {
        with(&mut self.inner.directory.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn random(&self) -> u64 {
        self.inner.rng.lock().unwrap_or_else(PoisonError::into_inner).random()
    }
}

/// `bytes` random bytes as letters and digits.
fn secret(bytes: usize) -> String {
    use base64::Engine as _;
    let mut raw = vec![0; bytes];
    fill(&mut raw);
    // ice-char (RFC 8839 section 5.4) is ALPHA / DIGIT / "+" / "/": not the URL alphabet.
    base64::engine::general_purpose::STANDARD_NO_PAD.encode(raw).replace(['+', '/'], "x")
}

fn random_u64() -> u64 {
    let mut raw = [0; 8];
    fill(&mut raw);
    u64::from_be_bytes(raw)
}

fn fill(bytes: &mut [u8]) {
    aws_lc_rs::rand::fill(bytes).expect("the system's random number generator works");
}

/// The names of a session that was just agreed.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    pub(crate) session: SessionId,
    pub(crate) ufrag: String,
    pub(crate) resource: String,
    pub(crate) remote_ufrag: String,
    pub(crate) subject: String,
    /// Of our certificate, for the life of the session.
    pub(crate) fingerprint: String,
}
