//! What HTTP sees of the control plane.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::auth::explain::{Explained, Question};
use crate::auth::turn::{Class, MintError};
use crate::control::restart::{IfMatch, Patched};
use crate::control::revocation::{self, Revocations, RevokeError};
use crate::control::rooms::Rooms;
use crate::control::sealed::Sealed;
use crate::control::store::{Record, StoreError};
use crate::control::{Accepted, Control, IceConfig, Principal, Refusal};
use crate::forward::Wish;
use crate::http;
use crate::ids::StreamName;
use crate::metrics::Exposition;
use crate::time::Now;
use crate::wire::media::MediaKind;
use crate::wire::sdp::Fragment;

/// The control plane, ready or not, and its metrics.
#[derive(Clone, Debug)]
pub(super) struct Gateway {
    control: Control,
    rooms: Rooms,
    revocations: Revocations,
    exposition: Exposition,
    ready: Arc<AtomicBool>,
}

impl Gateway {
    pub(super) fn new(
        control: Control,
        rooms: Rooms,
        revocations: Revocations,
        exposition: Exposition,
        ready: Arc<AtomicBool>,
    ) -> Self {
        Self { control, rooms, revocations, exposition, ready }
    }
}

impl http::Gateway for Gateway {
    async fn publish(
        &self,
        name: StreamName,
        who: &Principal,
        offer: &str,
    ) -> Result<Accepted, Refusal> {
        if !self.ready() {
            return Err(Refusal::Draining);
        }
        self.control.publish(&name, who, offer)
    }

    async fn play(
        &self,
        name: StreamName,
        who: &Principal,
        offer: &str,
    ) -> Result<Accepted, Refusal> {
        if !self.ready() {
            return Err(Refusal::Draining);
        }
        self.control.play(&name, who, offer)
    }

    async fn close(&self, resource: &str, who: Option<&Principal>) -> Result<(), Refusal> {
        self.control.close(resource, who)
    }

    async fn patch(
        &self,
        resource: &str,
        who: Option<&Principal>,
        expected: &IfMatch,
        fragment: &Fragment,
    ) -> Result<Patched, Refusal> {
        self.control.patch(resource, who, expected, fragment)
    }

    fn steer(
        &self,
        resource: &str,
        who: Option<&Principal>,
        track: MediaKind,
        wish: Wish,
    ) -> Result<(), Refusal> {
        self.control.steer(resource, who, None, track, wish)
    }

    fn layer_called(
        &self,
        resource: &str,
        who: Option<&Principal>,
        rid: &str,
    ) -> Result<u8, Refusal> {
        self.control.layer_called(resource, who, None, rid)
    }

    fn ice_config(&self, who: &Principal) -> Result<IceConfig, Refusal> {
        self.control.ice_config(who)
    }

    fn mint(
        &self,
        subject: &str,
        room: Option<&str>,
        class: Class,
        ttl: Option<Duration>,
    ) -> Result<IceConfig, MintError> {
        self.control.mint(subject, room, class, ttl)
    }

    fn sealed(&self) -> &Sealed {
        self.control.sealed()
    }

    fn rooms(&self) -> &Rooms {
        &self.rooms
    }

    fn explain(&self, question: Question<'_>) -> Explained {
        self.revocations.explain(question)
    }

    async fn revoke(&self, request: revocation::Request) -> Result<Record, RevokeError> {
        self.revocations.revoke(request).await
    }

    async fn revocations(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        self.revocations.list(before, limit).await
    }

    fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    fn metrics(&self) -> String {
        self.exposition.text().unwrap_or_else(|error| {
            tracing::error!(%error, "metrics cannot be written");
            String::new()
        })
    }

    fn now(&self) -> Now {
        self.control.now()
    }
}
