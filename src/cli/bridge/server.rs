//! WHIP and WHEP on loopback, for programs of this machine.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest as _, Path, Request, State};
use axum::http::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HOST, LOCATION, ORIGIN};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, post};
use axum::{Router, routing};
use reqwest::Url;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::problem::Problem;
use super::relay::{Allocation, Paths};
use super::sdp;
use super::session::{Reason, Shared};
use super::status::{Event, Status};
use super::upstream::{Answer, Refused, SDP, Upstream, own_right};
use crate::app::dev;
use crate::ids::{NameError, StreamName};
use crate::wire::sdp::MAX_SDP;

/// Sessions at once: one machine's encoders and monitors.
const MAX_SESSIONS: u32 = 64;
/// A second of 8 Mbit/s.
const RECEIVE_BUFFER: usize = 1 << 20;
/// A local client sends its offer within this.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// At the end, the gateway is told of every session within this.
const GOODBYE: Duration = Duration::from_secs(5);
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
const ACCEPT_POST: HeaderName = HeaderName::from_static("accept-post");

#[derive(Clone, Copy, PartialEq, Eq)]
enum Endpoint {
    Whip,
    Whep,
}

impl Endpoint {
    const fn name(self) -> &'static str {
        match self {
            Self::Whip => "whip",
            Self::Whep => "whep",
        }
    }
}

/// All a bridge has.
pub(super) struct Bridge {
    pub(super) upstream: Upstream,
    pub(super) paths: Paths,
    /// Where the sessions' UDP sockets are: loopback, or an address of this machine.
    pub(super) ip: IpAddr,
    /// A session is over when either side says nothing for so long.
    pub(super) silence: Duration,
    pub(super) status: Status,
    sessions: Mutex<BTreeMap<String, Arc<Session>>>,
    slots: Arc<Semaphore>,
    count: AtomicU64,
    /// What begins now ends at once: nobody else would tell the gateway.
    stopping: AtomicBool,
}

/// A session as signalling sees it.
struct Session {
    url: Url,
    /// The right it was begun with: to end it when its client does not.
    authorization: HeaderValue,
    shared: Shared,
}

/// A session's place here.
struct Seat {
    /// Of its local URL; whoever knows it may end the session.
    id: String,
    slot: OwnedSemaphorePermit,
}

/// What the gateway agreed to.
struct Agreed {
    answer: Answer,
    session: Session,
    socket: UdpSocket,
}

impl Bridge {
    pub(super) fn new(
        upstream: Upstream,
        paths: Paths,
        ip: IpAddr,
        silence: Duration,
        status: Status,
    ) -> Self {
        let slots = Arc::new(Semaphore::new(MAX_SESSIONS as usize));
        let (sessions, count) = (Mutex::default(), AtomicU64::new(0));
        let stopping = AtomicBool::new(false);
        Self { upstream, paths, ip, silence, status, sessions, slots, count, stopping }
    }

    fn sessions(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, id: &str) -> Option<Arc<Session>> {
        self.sessions().get(id).map(Arc::clone)
    }

    fn end_all(&self) {
        let sessions = self.sessions();
        self.stopping.store(true, Ordering::Relaxed);
        for session in sessions.values() {
            session.shared.end(Reason::Stopped);
        }
    }

    /// Ends every session and tells the gateway.
    pub(super) async fn stop(&self) {
        self.end_all();
        // A session keeps its slot until the gateway knows.
        let all = self.slots.acquire_many(MAX_SESSIONS);
        let _late = tokio::time::timeout(GOODBYE, all).await;
    }

    /// Begins a session: a credential, an allocation, the offer, the permission, in this order, so
    /// that the gateway has no session that no packet can reach.
    async fn open(
        self: Arc<Self>,
        endpoint: Endpoint,
        name: StreamName,
        authorization: HeaderValue,
        offer: String,
    ) -> Result<Response, Refused> {
        let id = dev::hex(&dev::random::<16>().map_err(|_| Problem::broken())?);
        let slot = Arc::clone(&self.slots).try_acquire_owned().map_err(|_| Problem::full())?;
        let seat = Seat { id, slot };
        let server = self.upstream.ice(&authorization).await?;
        let allocation =
            self.paths.allocate(&server).await.map_err(|why| Problem::no_relay(&why))?;
        let path = format!("/{}/{name}", endpoint.name());
        let agreed = match self.agree(&allocation, &path, authorization, &offer).await {
            Ok(agreed) => agreed,
            Err(refused) => {
                allocation.close().await;
                return Err(refused);
            }
        };
        Ok(self.begin(endpoint, &name, agreed, allocation, seat))
    }

    async fn agree(
        &self,
        allocation: &Allocation,
        path: &str,
        authorization: HeaderValue,
        offer: &str,
    ) -> Result<Agreed, Refused> {
        let socket = UdpSocket::bind((self.ip, 0)).await;
        let socket = socket.map_err(|error| Problem::no_socket(&error))?;
        // A keyframe comes in one burst. As much as the system lets us have is enough.
        let _less = SockRef::from(&socket).set_recv_buffer_size(RECEIVE_BUFFER);
        let local = socket.local_addr().map_err(|error| Problem::no_socket(&error))?;
        let own = (!local.ip().is_loopback()).then(dev::interface_addresses).transpose();
        let own = own.map_err(|error| Problem::no_socket(&error))?;
        let mut answer = self.upstream.offer(path, &authorization, sdp::outgoing(offer)).await?;
        if answer.status != StatusCode::CREATED {
            return Err(Refused::Answer(answer));
        }
        let url = answer.location.take().ok_or_else(|| Problem::bad_answer("no Location"))?;
        match self.understand(allocation, &mut answer, local).await {
            Ok((ufrags, media)) => {
                let shared = Shared::new(local, own, ufrags, media);
                Ok(Agreed { answer, session: Session { url, authorization, shared }, socket })
            }
            Err(problem) => {
                self.leave(&url, &authorization).await;
                Err(problem.into())
            }
        }
    }

    /// Puts the local socket into the answer, and opens the way to the media address in it.
    async fn understand(
        &self,
        allocation: &Allocation,
        answer: &mut Answer,
        local: SocketAddr,
    ) -> Result<(Vec<String>, SocketAddr), Problem> {
        if !answer.is(SDP) {
            return Err(Problem::bad_answer("it is not application/sdp"));
        }
        let read = sdp::incoming(answer.text()?, local);
        // A relayed address reaches its own family alone (RFC 6156 section 6).
        let v4 = allocation.address.is_ipv4();
        let media = read.media.iter().find(|media| media.is_ipv4() == v4).copied();
        let media = media.ok_or_else(|| {
            Problem::bad_answer("it has no candidate of the relayed address's family")
        })?;
        allocation.permit(media).await.map_err(|why| Problem::no_permission(&why))?;
        answer.body = read.text.into_bytes();
        Ok((read.ufrags, media))
    }

    async fn leave(&self, url: &Url, authorization: &HeaderValue) {
        let (none, nothing) = (HeaderMap::new(), String::new());
        let told = self.upstream.session(Method::DELETE, url, authorization, &none, nothing).await;
        if let Err(problem) = told {
            // Without checks, the gateway ends it by itself.
            self.status.note(&format!("the gateway was not told of an end: {}", problem.detail));
        }
    }

    /// Has the packets carried, from now until the session's end.
    fn begin(
        self: Arc<Self>,
        endpoint: Endpoint,
        name: &StreamName,
        agreed: Agreed,
        allocation: Allocation,
        seat: Seat,
    ) -> Response {
        let Agreed { answer, session, socket } = agreed;
        let (Seat { id, slot }, session) = (seat, Arc::new(session));
        let mut sessions = self.sessions();
        sessions.insert(id.clone(), Arc::clone(&session));
        if self.stopping.load(Ordering::Relaxed) {
            session.shared.end(Reason::Stopped);
        }
        drop(sessions);
        let number = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        let mut response = reply(answer);
        if let Ok(location) = HeaderValue::from_str(&format!("/{}/session/{id}", endpoint.name())) {
            response.headers_mut().insert(LOCATION, location);
        }
        self.status.tell(&Event::SessionStarted {
            session: number,
            kind: endpoint.name(),
            stream: name.as_str(),
            transport: allocation.transport,
        });
        tokio::spawn(async move {
            let connected = || self.status.tell(&Event::SessionConnected { session: number });
            let shared = &session.shared;
            let reason = shared.carry(socket, allocation, self.silence, connected).await;
            self.sessions().remove(&id);
            if reason != Reason::Deleted {
                self.leave(&session.url, &session.authorization).await;
            }
            let packets = shared.counts();
            self.status.tell(&Event::SessionEnded { session: number, reason, packets });
            drop(slot);
        });
        response
    }

    fn refuse(&self, endpoint: Endpoint, refused: Refused) -> Response {
        let kind = endpoint.name();
        match refused {
            Refused::Problem(problem) => {
                let (status, code) = (problem.status.as_u16(), problem.code);
                let detail = Some(problem.detail.as_str());
                self.status.tell(&Event::Refused { kind, status, code, detail });
                problem.into_response()
            }
            Refused::Answer(answer) => {
                let told: Option<serde_json::Value> = serde_json::from_slice(&answer.body).ok();
                let field = |name| told.as_ref().and_then(|told| told.get(name)?.as_str());
                let code = field("code").unwrap_or("gateway");
                let (status, detail) = (answer.status.as_u16(), field("detail"));
                self.status.tell(&Event::Refused { kind, status, code, detail });
                reply(answer)
            }
        }
    }
}

fn reply(answer: Answer) -> Response {
    (answer.status, answer.headers, answer.body).into_response()
}

/// The local router.
pub(super) fn router(bridge: Arc<Bridge>) -> Router {
    let endpoint = |endpoint: Endpoint| -> MethodRouter<Arc<Bridge>> {
        post(move |State(bridge): State<Arc<Bridge>>, names: Names, request: Request| async move {
            let Ok(Path((room, stream))) = names else {
                return Problem::not_found().into_response();
            };
            offered(bridge, endpoint, &room, &stream, request).await
        })
        .options(endpoint_options)
    };
    // A room may be called "session", and POST still means it.
    let session = |endpoint: Endpoint| -> MethodRouter<Arc<Bridge>> {
        post(move |State(bridge): State<Arc<Bridge>>, tail: Tail, request: Request| async move {
            let Ok(Path(stream)) = tail else { return Problem::not_found().into_response() };
            offered(bridge, endpoint, "session", &stream, request).await
        })
        .delete(ended)
        .patch(patched)
        .options(session_options)
    };
    Router::new()
        .route("/whip/{room}/{stream}", endpoint(Endpoint::Whip))
        .route("/whep/{room}/{stream}", endpoint(Endpoint::Whep))
        .route("/whip/session/{id}", session(Endpoint::Whip))
        .route("/whep/session/{id}", session(Endpoint::Whep))
        .method_not_allowed_fallback(|| async { Problem::wrong_method() })
        .fallback(routing::any(|| async { Problem::not_found() }))
        .with_state(bridge)
        .layer(DefaultBodyLimit::max(MAX_SDP))
        .layer(middleware::from_fn(only_local_programs))
}

type Names = Result<Path<(String, String)>, PathRejection>;
type Tail = Result<Path<String>, PathRejection>;

/// A page in a browser of this machine may not use the bridge's token: neither from its own
/// origin, nor by a name that it had resolved to loopback (DNS rebinding).
async fn only_local_programs(request: Request, next: Next) -> Response {
    let headers = request.headers();
    if headers.contains_key(ORIGIN) || !headers.get(HOST).is_some_and(is_loopback) {
        return Problem::from_a_page().into_response();
    }
    next.run(request).await
}

fn is_loopback(host: &HeaderValue) -> bool {
    let authority = host.to_str().ok().and_then(|text| text.parse::<Authority>().ok());
    let Some(authority) = authority else { return false };
    let host = authority.host();
    let ip = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    ip.map_or_else(|_| host.eq_ignore_ascii_case("localhost"), |ip| ip.is_loopback())
}

async fn offered(
    bridge: Arc<Bridge>,
    endpoint: Endpoint,
    room: &str,
    stream: &str,
    request: Request,
) -> Response {
    let asked = async {
        let name: StreamName = format!("{room}/{stream}")
            .parse()
            .map_err(|error: NameError| Problem::bad_name(error.to_string()))?;
        let authorization = bridge.upstream.authorization(request.headers().get(AUTHORIZATION))?;
        let offer = read(request, SDP).await?;
        Ok((name, authorization, offer))
    };
    let (name, authorization, offer) = match asked.await {
        Ok(asked) => asked,
        Err(problem) => return bridge.refuse(endpoint, Refused::Problem(problem)),
    };
    // A client that hangs up half-way must not leave an allocation behind.
    let opening = tokio::spawn(Arc::clone(&bridge).open(endpoint, name, authorization, offer));
    match opening.await {
        Ok(Ok(response)) => response,
        Ok(Err(refused)) => bridge.refuse(endpoint, refused),
        Err(_) => bridge.refuse(endpoint, Refused::Problem(Problem::broken())),
    }
}

async fn read(request: Request, content_type: &'static str) -> Result<String, Problem> {
    let value = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = value.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !essence.trim().eq_ignore_ascii_case(content_type) {
        return Err(Problem::not_sdp(content_type));
    }
    let body = tokio::time::timeout(BODY_TIMEOUT, Bytes::from_request(request, &()))
        .await
        .map_err(|_| Problem::bad_body(StatusCode::REQUEST_TIMEOUT))?
        .map_err(|rejection| Problem::bad_body(rejection.status()))?;
    String::from_utf8(body.into()).map_err(|_| Problem::bad_body(StatusCode::BAD_REQUEST))
}

/// The client's own right, else the one that the session was begun with.
fn right(headers: &HeaderMap, begun_with: &HeaderValue) -> HeaderValue {
    own_right(headers.get(AUTHORIZATION)).unwrap_or_else(|| begun_with.clone())
}

/// `DELETE`: passed on; what has ended already is done.
async fn ended(
    State(bridge): State<Arc<Bridge>>,
    id: Tail,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| Problem::not_found())?;
    let Some(session) = bridge.session(&id) else { return Ok(StatusCode::OK.into_response()) };
    let authorization = right(&headers, &session.authorization);
    let (method, nothing) = (Method::DELETE, String::new());
    let told =
        bridge.upstream.session(method, &session.url, &authorization, &headers, nothing).await;
    match told {
        Ok(answer) => {
            if answer.status.is_success() || answer.status == StatusCode::NOT_FOUND {
                session.shared.end(Reason::Deleted);
            }
            Ok(reply(answer))
        }
        Err(problem) => {
            // No packet passes any more, so the gateway ends it by itself.
            session.shared.end(Reason::Deleted);
            Err(problem)
        }
    }
}

/// `PATCH`: candidates of the client stay here, those of the gateway become the bridge's.
async fn patched(
    State(bridge): State<Arc<Bridge>>,
    id: Tail,
    request: Request,
) -> Result<Response, Problem> {
    let Path(id) = id.map_err(|_| Problem::not_found())?;
    let session = bridge.session(&id).ok_or_else(Problem::no_session)?;
    let headers = request.headers().clone();
    let fragment = read(request, FRAGMENT).await?;
    let authorization = right(&headers, &session.authorization);
    let fragment = sdp::outgoing(&fragment);
    let upstream = &bridge.upstream;
    let mut answer =
        upstream.session(Method::PATCH, &session.url, &authorization, &headers, fragment).await?;
    if answer.is(FRAGMENT) {
        let read = sdp::incoming(answer.text()?, session.shared.local());
        if !read.ufrags.is_empty() {
            session.shared.restart(read.ufrags, &read.media);
        }
        answer.body = read.text.into_bytes();
    }
    Ok(reply(answer))
}

async fn endpoint_options() -> Response {
    (StatusCode::OK, [(ACCEPT_POST, SDP), (ALLOW, "POST, OPTIONS")]).into_response()
}

async fn session_options() -> Response {
    (StatusCode::OK, [(ALLOW, "DELETE, OPTIONS, PATCH, POST")]).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_token_field_is_no_right_of_a_clients_own() {
        let begun_with = HeaderValue::from_static("Bearer of-the-file");
        let mut headers = HeaderMap::new();
        assert_eq!(right(&headers, &begun_with), begun_with);
        for empty in ["", "Bearer", "Bearer "] {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(empty));
            assert_eq!(right(&headers, &begun_with), begun_with, "{empty:?}");
        }
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer own"));
        assert_eq!(right(&headers, &begun_with), "Bearer own");
        assert!(right(&headers, &begun_with).is_sensitive());
    }

    #[test]
    fn only_names_of_this_machine_are_loopback() {
        let is = |text: &'static str| is_loopback(&HeaderValue::from_static(text));
        for text in ["127.0.0.1:8889", "127.9.9.9", "localhost:1", "LOCALHOST", "[::1]:8889"] {
            assert!(is(text), "{text}");
        }
        for text in ["evil.example:8889", "10.0.0.1", "[2001:db8::1]:1", "localhost.evil", ""] {
            assert!(!is(text), "{text}");
        }
    }
}
