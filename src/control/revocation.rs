//! Revocation: on the disk first, then on every shard, then acknowledged.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use super::store::{MAX_REASON, NewRevocation, Record, Store, StoreError};
use crate::auth::explain::{Explained, Question, explain};
use crate::auth::revocation::{Revocation, Revoked, Target};
use crate::auth::turn::{self, Keys, NEVER};
use crate::engine;
use crate::ids::{CredentialId, RoomHash, SubjectHash};
use crate::time::Unix;

/// A revocation is kept for so long unless it is told otherwise: a day more than the longest
/// session limit that a configuration may set, so it outlives all it struck.
pub const RETENTION: Duration = Duration::from_secs(8 * 24 * 3_600);
/// Expired rows stay on the disk for so long: a clock that jumped forward loses nothing.
const GRACE: Duration = Duration::from_secs(24 * 3_600);
/// How often expired rows are looked for.
const PURGE_EVERY: Duration = Duration::from_secs(3_600);
/// A full mailbox is tried again after this,
const RETRY: Duration = Duration::from_millis(5);
/// at most so often: a shard that takes nothing for so long has died, and the process with it.
const RETRIES: u32 = 2_000;

/// What is to be revoked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum What {
    /// The credential with this TURN username.
    Username(String),
    /// All credentials of a subject.
    Subject(String),
    /// All credentials of a room.
    Room(String),
}

/// A wish to revoke.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What.
    pub what: What,
    /// Why, for people.
    pub reason: Option<String>,
    /// Of a subject or a room: what was minted up to this moment. None: now.
    pub not_before: Option<Unix>,
    /// When the revocation may be forgotten. None: when nothing it struck can be alive.
    pub expires: Option<Unix>,
}

/// Why nothing was revoked.
#[derive(Debug, thiserror::Error)]
pub enum RevokeError {
    /// The name is no credential: a revocation of it would strike nothing.
    #[error("{0}")]
    NoCredential(#[from] turn::Refused),
    /// The times contradict each other, or the reason is too long.
    #[error("{0}")]
    Senseless(&'static str),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// All revocations, on the disk and in force; clones share them.
#[derive(Clone)]
pub struct Revocations {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    keys: Arc<Keys>,
    engine: engine::Handle,
    /// What the shards know, for questions.
    revoked: RwLock<Revoked>,
}

impl std::fmt::Debug for Revocations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Revocations").finish_non_exhaustive()
    }
}

impl Revocations {
    /// Loads what is in force and tells every shard. Blocks; outside of any runtime.
    ///
    /// # Errors
    /// When the store cannot be read: a gateway that does not know what is revoked must not run.
    pub fn start(
        store: Store,
        keys: Arc<Keys>,
        engine: engine::Handle,
    ) -> Result<Self, StoreError> {
        let live: Arc<[Revocation]> = store.live_revocations(engine.clock().now().unix)?.into();
        let mut revoked = Revoked::default();
        live.iter().for_each(|revocation| revoked.add(revocation));
        if !live.is_empty() {
            tracing::info!(revocations = live.len(), "revocations are in force");
            for shard in 0..engine.shards() {
                // The mailbox of a shard that has just started has room.
                while !engine.revoke(shard, &live) {
                    std::thread::yield_now();
                }
            }
        }
        let inner = Inner { store, keys, engine, revoked: RwLock::new(revoked) };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Forgets what has expired, for ever.
    pub async fn run(self) {
        let mut tick = tokio::time::interval(PURGE_EVERY);
        loop {
            tick.tick().await;
            let now = self.now();
            self.inner.revoked.write().unwrap_or_else(PoisonError::into_inner).purge(now);
            let then = now.as_micros().saturating_sub(GRACE.as_micros() as u64);
            match self.inner.store.purge_revocations(Unix::from_micros(then)).await {
                Ok(0) => {}
                Ok(rows) => tracing::info!(rows, "expired revocations were deleted"),
                Err(error) => tracing::warn!(%error, "expired revocations stay"),
            }
        }
    }

    fn now(&self) -> Unix {
        self.inner.engine.clock().now().unix
    }

    /// Revokes. When this returns the revocation is on the disk and every shard has it in its
    /// mailbox; what was begun is finished even when the caller stops waiting.
    ///
    /// # Errors
    /// [`RevokeError`]; nothing is revoked then.
    pub async fn revoke(&self, request: Request) -> Result<Record, RevokeError> {
        let new = self.resolve(request)?;
        let this = self.clone();
        let work = tokio::spawn(async move {
            let record = this.inner.store.revoke(new).await?;
            this.apply(record.revocation).await;
            Ok(record)
        });
        work.await.unwrap_or(Err(RevokeError::Store(StoreError::Closed)))
    }

    /// From names and wishes to hashes and moments.
    fn resolve(&self, request: Request) -> Result<NewRevocation, RevokeError> {
        let now = self.now();
        if request.reason.as_ref().is_some_and(|reason| reason.len() > MAX_REASON) {
            return Err(RevokeError::Senseless("the reason is longer than 200 bytes"));
        }
        if matches!(request.what, What::Username(_)) && request.not_before.is_some() {
            return Err(RevokeError::Senseless("not_before is for subjects and rooms"));
        }
        let not_before = request.not_before.unwrap_or(now);
        let kept = |from: Unix| {
            let micros = from.as_micros().saturating_add(RETENTION.as_micros() as u64);
            Unix::from_micros(micros).min(NEVER)
        };
        // What is not dated may live for ever, and so must what strikes it.
        let by_default =
            if self.inner.keys.all_are_dated() { kept(not_before.max(now)) } else { NEVER };
        let (target, by_default) = match &request.what {
            What::Subject(subject) => (Target::Subject(SubjectHash::of(subject)), by_default),
            What::Room(room) => (Target::Room(RoomHash::of(room)), by_default),
            What::Username(name) => {
                let end = match self.inner.keys.verify(name, "") {
                    Ok(verified) => verified.live_until.min(NEVER),
                    // Its key has left the ring, but what it opened may still be alive.
                    Err(turn::Refused::UnknownKey) => kept(now),
                    Err(refused) => return Err(refused.into()),
                };
                (Target::Credential(CredentialId::of(name)), end)
            }
        };
        let expires = request.expires.unwrap_or(by_default);
        if request.expires.is_some_and(|expires| expires <= now) {
            return Err(RevokeError::Senseless("expires_at is not in the future"));
        }
        let revocation = Revocation { target, not_before, expires };
        Ok(NewRevocation { revocation, reason: request.reason, made_at: now })
    }

    async fn apply(&self, revocation: Revocation) {
        self.inner.revoked.write().unwrap_or_else(PoisonError::into_inner).add(&revocation);
        let list: Arc<[Revocation]> = Arc::new([revocation]);
        for shard in 0..self.inner.engine.shards() {
            let mut tries = 0;
            while !self.inner.engine.revoke(shard, &list) {
                tries += 1;
                if tries > RETRIES {
                    tracing::error!(shard, "a shard does not take a revocation");
                    break;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
        let kind = match revocation.target {
            Target::Credential(_) => "username",
            Target::Subject(_) => "subject",
            Target::Room(_) => "room",
        };
        tracing::info!(kind, "TURN credentials were revoked");
    }

    /// The newest `limit` revocations in force, those before the number `before` if it is given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list(&self, before: Option<i64>, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.inner.store.list_revocations(self.now(), before, limit).await
    }

    /// What a TURN username was minted for, and whether it still holds.
    #[must_use]
    pub fn explain(&self, question: Question<'_>) -> Explained {
        let now = self.now();
        explain(&self.inner.keys, now, question, |who| {
            self.inner.revoked.read().unwrap_or_else(PoisonError::into_inner).covers(now, who)
        })
    }
}
