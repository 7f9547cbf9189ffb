//! A gateway that negotiates for real and has nothing behind it.

#![allow(dead_code, reason = "each test program uses a part")]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use rand::SeedableRng;
use rand::rngs::StdRng;
use tower::ServiceExt;
use veilgate::auth::admin::AdminKey;
use veilgate::auth::explain::{Explained, Question};
use veilgate::auth::revocation::{Revocation, Target};
use veilgate::auth::secret::Key;
use veilgate::auth::token::{TokenKeys, TokenRequest};
use veilgate::auth::turn::{Class, MintError, NEVER};
use veilgate::control::api::{Accepted, IceConfig, Principal, Refusal};
use veilgate::control::restart::{IfMatch, Patched, entity_tag};
use veilgate::control::revocation::{self, RevokeError, What};
use veilgate::control::rooms::Rooms;
use veilgate::control::sealed::{Plane, Sealed};
use veilgate::control::store::{Record, StoreError};
use veilgate::forward::Wish;
use veilgate::http::{Config, Gateway, router};
use veilgate::ids::{RoomHash, StreamId, StreamName, SubjectHash};
use veilgate::session::negotiate;
use veilgate::time::{Mono, Now, Unix};
use veilgate::wire::media::{MediaKind, StreamSpec};
use veilgate::wire::sdp::{CandidateTypes, Fragment, Offer};

pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const RESOURCE: &str = "r4nd0mResourceOfThisSession";
pub(crate) const PUBLISH: &str = include_str!("../data/sdp/chromium156-sendonly.sdp");
pub(crate) const PLAY: &str = include_str!("../data/sdp/firefox153esr-recvonly.sdp");

/// What was asked of the gateway.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Call {
    Publish(String, Principal),
    Play(String, Principal),
    Close(String, Option<Principal>),
    Patch(String, Option<Principal>, IfMatch, CandidateTypes),
    Steer(String, Option<Principal>, MediaKind, Wish),
    Mint(String, Option<String>, Class, Option<Duration>),
    Explain(String, Option<String>, Option<String>),
    Revoke(What, Option<String>, Option<Unix>, Option<Unix>),
    Revocations(Option<i64>, u32),
}

/// The only live relayed address, in every room.
pub(crate) const RELAYED: &str = "203.0.113.9:5000";

struct Relay;

impl Plane for Relay {
    fn is_room_address(&self, address: SocketAddr, _: RoomHash) -> bool {
        address.to_string() == RELAYED
    }

    fn now(&self) -> Mono {
        Mono::ZERO
    }
}

#[derive(Clone)]
pub(crate) struct Fake {
    sealed: Sealed,
    pub(crate) rooms: Option<Rooms>,
    /// The clock, since its start.
    pub(crate) elapsed: Arc<Mutex<Duration>>,
    pub(crate) refusal: Arc<Mutex<Option<Refusal>>>,
    pub(crate) calls: Arc<Mutex<Vec<Call>>>,
    /// Next answer to a revocation or to the question for them.
    pub(crate) store: Arc<Mutex<Option<RevokeError>>>,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            sealed: Sealed::new(Relay),
            rooms: None,
            elapsed: Arc::default(),
            refusal: Arc::default(),
            calls: Arc::default(),
            store: Arc::default(),
        }
    }
}

impl Fake {
    pub(crate) fn refusing(refusal: Refusal) -> Self {
        let fake = Self::default();
        *fake.refusal.lock().expect("not poisoned") = Some(refusal);
        fake
    }

    fn log(&self, call: Call) -> Result<(), Refusal> {
        self.calls.lock().expect("not poisoned").push(call);
        self.refusal.lock().expect("not poisoned").clone().map_or(Ok(()), Err)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.calls.lock().expect("not poisoned").clone()
    }
}

fn record(id: i64, reason: Option<String>) -> Record {
    let revocation = Revocation {
        target: Target::Subject(SubjectHash::of("alice")),
        not_before: Unix::from_secs(NOW),
        expires: if id == 9 { NEVER } else { Unix::from_secs(NOW + 60) },
    };
    Record { id, revocation, reason, made_at: Unix::from_secs(NOW) }
}

fn accepted(plan: &negotiate::AnswerPlan) -> Accepted {
    let media = ["203.0.113.9:20000".parse().expect("valid")];
    let fingerprint = format!("sha-256 {}", ["AB"; 32].join(":"));
    let answer = plan.answer_sdp("ufrg", "passwordpasswordpassword", &fingerprint, &media);
    Accepted { resource: RESOURCE.to_owned(), answer }
}

impl Gateway for Fake {
    async fn publish(
        &self,
        name: StreamName,
        who: &Principal,
        offer: &str,
    ) -> Result<Accepted, Refusal> {
        self.log(Call::Publish(name.to_string(), who.clone()))?;
        let offer = Offer::parse(offer).map_err(negotiate::Refusal::from)?;
        let (_, plan) = negotiate::publish(&offer)?;
        Ok(accepted(&plan))
    }

    async fn play(
        &self,
        name: StreamName,
        who: &Principal,
        offer: &str,
    ) -> Result<Accepted, Refusal> {
        self.log(Call::Play(name.to_string(), who.clone()))?;
        let offer = Offer::parse(offer).map_err(negotiate::Refusal::from)?;
        let published = Offer::parse(PUBLISH).expect("a real offer");
        let (tracks, _) = negotiate::publish(&published).expect("agreed");
        let stream = Arc::new(StreamSpec { id: StreamId(1), name, tracks });
        let (_, plan) = negotiate::play(&offer, &stream, &mut StdRng::seed_from_u64(1))?;
        Ok(accepted(&plan))
    }

    async fn close(&self, resource: &str, who: Option<&Principal>) -> Result<(), Refusal> {
        self.log(Call::Close(resource.to_owned(), who.cloned()))?;
        if resource == RESOURCE { Ok(()) } else { Err(Refusal::NotFound) }
    }

    async fn patch(
        &self,
        resource: &str,
        who: Option<&Principal>,
        expected: &IfMatch,
        fragment: &Fragment,
    ) -> Result<Patched, Refusal> {
        let expects = (expected.clone(), fragment.candidates);
        self.log(Call::Patch(resource.to_owned(), who.cloned(), expects.0, expects.1))?;
        if resource != RESOURCE {
            return Err(Refusal::NotFound);
        }
        Ok(match fragment.ufrag.as_deref() {
            Some("newufrag") => Patched::Restarted {
                fragment: fragment.answer("ourufrag", "our new password of ICE..", &[]),
                tag: entity_tag(RESOURCE, 1),
            },
            _ => Patched::Trickled,
        })
    }

    fn steer(
        &self,
        resource: &str,
        who: Option<&Principal>,
        track: MediaKind,
        wish: Wish,
    ) -> Result<(), Refusal> {
        self.log(Call::Steer(resource.to_owned(), who.cloned(), track, wish))?;
        if resource == RESOURCE { Ok(()) } else { Err(Refusal::NotFound) }
    }

    fn layer_called(&self, _: &str, _: Option<&Principal>, rid: &str) -> Result<u8, Refusal> {
        ["q", "h", "f"]
            .iter()
            .position(|known| *known == rid)
            .map(|n| n as u8)
            .ok_or(Refusal::NoLayer)
    }

    fn ice_config(&self, who: &Principal) -> Result<IceConfig, Refusal> {
        Ok(IceConfig {
            urls: vec![
                "turn:gw.example:3478?transport=udp".to_owned(),
                "turns:gw.example:443?transport=tcp".to_owned(),
            ],
            username: format!("{}:k1.{}", NOW + 600, who.subject),
            credential: "pass\"word=".to_owned(),
            ttl: 600,
            expires_at: NOW + 600,
            lifetime: 43_200,
        })
    }

    fn mint(
        &self,
        subject: &str,
        room: Option<&str>,
        class: Class,
        ttl: Option<Duration>,
    ) -> Result<IceConfig, MintError> {
        // This one has no such policy.
        if class == Class::External {
            return Err(MintError::ClassOff);
        }
        let call = Call::Mint(subject.to_owned(), room.map(str::to_owned), class, ttl);
        self.calls.lock().expect("not poisoned").push(call);
        if class == Class::Room && room.is_none() {
            return Err(MintError::NoRoom);
        }
        if ttl == Some(Duration::ZERO) {
            return Err(MintError::NoLife);
        }
        let who = Principal { subject: subject.to_owned(), room: None, jti: String::new() };
        Ok(self.ice_config(&who).expect("always"))
    }

    fn sealed(&self) -> &Sealed {
        &self.sealed
    }

    fn rooms(&self) -> &Rooms {
        self.rooms.as_ref().expect("a test of rooms brings them")
    }

    fn explain(&self, question: Question<'_>) -> Explained {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let username = question.username.to_owned();
        let call = Call::Explain(username, own(question.subject), own(question.room));
        self.calls.lock().expect("not poisoned").push(call);
        Explained { reason: Some("revoked".to_owned()), ..Explained::default() }
    }

    async fn revoke(&self, request: revocation::Request) -> Result<Record, RevokeError> {
        let revocation::Request { what, reason, not_before, expires } = request;
        let call = Call::Revoke(what, reason.clone(), not_before, expires);
        self.calls.lock().expect("not poisoned").push(call);
        match self.store.lock().expect("not poisoned").take() {
            Some(error) => Err(error),
            None => Ok(record(7, reason)),
        }
    }

    async fn revocations(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        self.calls.lock().expect("not poisoned").push(Call::Revocations(before, limit));
        let count = i64::from(limit.min(3));
        Ok((0..count).map(|i| record(9 - i, None)).collect())
    }

    fn ready(&self) -> bool {
        self.refusal.lock().expect("not poisoned").is_none()
    }

    fn metrics(&self) -> String {
        "veilgate_up 1\n".to_owned()
    }

    fn now(&self) -> Now {
        let elapsed = *self.elapsed.lock().expect("not poisoned");
        Now { mono: Mono::ZERO, unix: Unix::from_secs(NOW) }.advanced(elapsed)
    }
}

pub(crate) fn keys(id: &str, secret: &[u8]) -> TokenKeys {
    let key = Key { id: id.to_owned(), secret: secret.to_vec() };
    TokenKeys::new(vec![key]).expect("a good ring")
}

pub(crate) fn our_keys() -> TokenKeys {
    keys("k1", b"an HTTP test's own secret of 32 B")
}

pub(crate) fn request_for(publish: &[&str], play: &[&str]) -> TokenRequest {
    let list = |l: &[&str]| l.iter().map(|s| (*s).to_owned()).collect();
    TokenRequest {
        subject: Some("user-42".to_owned()),
        publish: list(publish),
        play: list(play),
        ttl: Duration::from_secs(3_600),
        ..TokenRequest::default()
    }
}

pub(crate) fn mint(publish: &[&str], play: &[&str]) -> String {
    let now = Unix::from_secs(NOW);
    our_keys().mint(now, &request_for(publish, play), "jti-1").expect("minted")
}

/// A token for everything in the lobby.
pub(crate) fn lobby() -> String {
    mint(&["lobby/*"], &["lobby/*"])
}

pub(crate) fn app(fake: &Fake) -> Router {
    router(fake.clone(), Arc::new(our_keys()), Config::default())
}

pub(crate) const ADMIN_KEY: &str = "an-admin-key-for-tests-of-32-bytes";

/// With the admin API open.
pub(crate) fn admin_app(fake: &Fake) -> Router {
    let admin = Some(AdminKey::read(ADMIN_KEY).expect("long enough"));
    router(fake.clone(), Arc::new(our_keys()), Config { admin, ..Config::default() })
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default()
    }

    /// The code of a problem, its form checked.
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.body);
        let body: serde_json::Value = serde_json::from_str(&self.body).expect("JSON");
        assert_eq!(body["status"], self.status.as_u16(), "{body}");
        for key in ["type", "title", "detail"] {
            assert!(body[key].as_str().is_some_and(|v| !v.is_empty()), "{key} of {body}");
        }
        body["code"].as_str().expect("a code").to_owned()
    }
}

pub(crate) async fn send(router: Router, request: Request<Body>) -> Answer {
    let response = router.oneshot(request).await.expect("a router never fails");
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, 1 << 20).await.expect("a whole body");
    let body = String::from_utf8(body.into()).expect("text");
    Answer { status: parts.status, headers: parts.headers, body }
}

/// A `POST` of an offer with a token.
pub(crate) fn post(path: &str, token: &str, offer: impl Into<Body>) -> Request<Body> {
    Request::post(path)
        .header("authorization", format!("Bearer {token}"))
        .header("content-type", "application/sdp")
        .body(offer.into())
        .expect("a good request")
}

/// Any request without a body.
pub(crate) fn bare(method: &str, path: &str, headers: &[(&str, &str)]) -> Request<Body> {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).expect("a good request")
}
