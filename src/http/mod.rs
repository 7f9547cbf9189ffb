//! Signalling and the page over HTTPS: WHIP (RFC 9725), WHEP, `GET /v1/ice`, sealed calls; and, for whoever
//! holds the admin key, TURN credentials under `/v1/turn`.
//!
//! Every other request carries a token: `Authorization: Bearer <jwt>`, the bare token in the same
//! header, or, for clients that cannot set headers, `?access_token=<jwt>` (RFC 6750 section 2.3:
//! such a URL may end up in logs of proxies, so headers come first). Nothing is read of a body
//! before the token is found good. There are no cookies, so cross-origin requests are as safe as
//! any other and allowed unless [`Origins`] says otherwise; preflights are never authorised.
//!
//! Every error is `application/problem+json` (RFC 9457) with a stable `code`; none carries text
//! of an offer or an address.

mod admin;
mod cors;
mod guard;
mod headers;
mod ice;
mod layer;
mod page;
mod problem;
mod sealed;
pub mod server;
mod signal;
pub mod tls;
mod whip;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use tokio::sync::Semaphore;

use crate::auth::admin::AdminKey;
use crate::auth::explain::{Explained, Question};
use crate::auth::token::TokenKeys;
use crate::auth::turn::{Class, MintError};
use crate::control::api::{Accepted, IceConfig, MediaKind, Principal, Refusal, Wish};
use crate::control::restart::{IfMatch, Patched};
use crate::control::revocation::{self, RevokeError};
use crate::control::rooms::Rooms;
use crate::control::sealed::Sealed;
use crate::control::store::{Record, StoreError};
use crate::ids::StreamName;
use crate::metrics::Signalling;
use crate::time::Now;
use crate::wire::sdp::{Fragment, MAX_SDP};
pub use cors::Origins;
use problem::Problem;
pub use signal::Patience;

/// A request is answered within this time, or refused.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// What HTTP needs of the gateway behind it.
pub trait Gateway: Clone + Send + Sync + 'static {
    /// Agrees on a publisher's session.
    fn publish(
        &self,
        name: StreamName,
        who: &Principal,
        offer: &str,
    ) -> impl Future<Output = Result<Accepted, Refusal>> + Send;

    /// Agrees on a player's session.
    fn play(
        &self,
        name: StreamName,
        who: &Principal,
        offer: &str,
    ) -> impl Future<Output = Result<Accepted, Refusal>> + Send;

    /// Ends a session. Without `who`, the resource itself is the permission.
    fn close(
        &self,
        resource: &str,
        who: Option<&Principal>,
    ) -> impl Future<Output = Result<(), Refusal>> + Send;

    /// Takes trickled candidates, or restarts ICE. Without `who`, the resource itself is the
    /// permission.
    fn patch(
        &self,
        resource: &str,
        who: Option<&Principal>,
        expected: &IfMatch,
        fragment: &Fragment,
    ) -> impl Future<Output = Result<Patched, Refusal>> + Send;

    /// Wishes layers of what a session plays. Without `who`, the resource itself is the
    /// permission.
    ///
    /// # Errors
    /// No such session or track, or it is not connected yet.
    fn steer(
        &self,
        resource: &str,
        who: Option<&Principal>,
        track: MediaKind,
        wish: Wish,
    ) -> Result<(), Refusal>;

    /// The number of the layer that a session's publisher calls `rid`.
    ///
    /// # Errors
    /// No such session or layer.
    fn layer_called(
        &self,
        resource: &str,
        who: Option<&Principal>,
        rid: &str,
    ) -> Result<u8, Refusal>;

    /// A fresh TURN credential for `who`.
    ///
    /// # Errors
    /// When none can be minted.
    fn ice_config(&self, who: &Principal) -> Result<IceConfig, Refusal>;

    /// A fresh TURN credential for any subject.
    ///
    /// # Errors
    /// A `ttl` that makes no sense; class room without one.
    fn mint(
        &self,
        subject: &str,
        room: Option<&str>,
        class: Class,
        ttl: Option<Duration>,
    ) -> Result<IceConfig, MintError>;

    /// Where the pages of sealed calls find each other.
    fn sealed(&self) -> &Sealed;

    /// All rooms.
    fn rooms(&self) -> &Rooms;

    /// What a TURN username was minted for, and whether it still holds.
    fn explain(&self, question: Question<'_>) -> Explained;

    /// Revokes TURN credentials: done when it returns, whatever happens then.
    fn revoke(
        &self,
        request: revocation::Request,
    ) -> impl Future<Output = Result<Record, RevokeError>> + Send;

    /// The newest revocations in force, before a number.
    fn revocations(
        &self,
        before: Option<i64>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send;

    /// Whether new sessions are taken.
    fn ready(&self) -> bool;

    /// All metrics in Prometheus' text format.
    fn metrics(&self) -> String;

    /// The clocks.
    fn now(&self) -> Now;
}

/// How the HTTP side behaves.
#[derive(Clone, Debug)]
pub struct Config {
    /// Which other origins' pages may call.
    pub origins: Origins,
    /// `Strict-Transport-Security: max-age`; zero leaves the header out, for development on
    /// `localhost`, where it would bind every other port too.
    pub hsts: Duration,
    /// How long a client may take to send an offer.
    pub body_timeout: Duration,
    /// The key that opens `/v1/turn`; none: it stays closed.
    pub admin: Option<AdminKey>,
    /// How patient the WebSockets of rooms are.
    pub patience: Patience,
    /// Where answers are counted.
    pub metrics: Option<Signalling>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            origins: Origins::Any,
            hsts: Duration::from_secs(365 * 24 * 3_600),
            body_timeout: Duration::from_secs(10),
            admin: None,
            patience: Patience::default(),
            metrics: None,
        }
    }
}

/// What every handler gets.
struct Shared<G> {
    gateway: G,
    keys: Arc<TokenKeys>,
    admin: Option<AdminKey>,
    body_timeout: Duration,
    metrics: Option<Signalling>,
    /// Of WebSockets; [`cors::answer`] has its own.
    origins: Origins,
    patience: Patience,
    sockets: Arc<Semaphore>,
}

impl<G: Clone> Clone for Shared<G> {
    fn clone(&self) -> Self {
        Self {
            gateway: self.gateway.clone(),
            keys: Arc::clone(&self.keys),
            admin: self.admin.clone(),
            body_timeout: self.body_timeout,
            metrics: self.metrics.clone(),
            origins: self.origins.clone(),
            patience: self.patience,
            sockets: Arc::clone(&self.sockets),
        }
    }
}

/// The public router.
pub fn router<G: Gateway>(gateway: G, keys: Arc<TokenKeys>, config: Config) -> Router {
    let shared = Shared {
        gateway,
        keys,
        admin: config.admin.clone(),
        body_timeout: config.body_timeout,
        metrics: config.metrics.clone(),
        origins: config.origins.clone(),
        patience: config.patience,
        sockets: Arc::new(Semaphore::new(signal::SOCKETS)),
    };
    let config = Arc::new(config);
    let api = Router::new()
        .route(
            "/whip/{room}/{stream}",
            get(whip::look::<G>).post(whip::publish::<G>).options(whip::endpoint::<G>),
        )
        .route(
            "/whep/{room}/{stream}",
            get(whip::look::<G>).post(whip::play::<G>).options(whip::endpoint::<G>),
        )
        // A room may be called "session", and POST still means it.
        .route(
            "/whip/session/{resource}",
            get(whip::look_at_session::<G>)
                .post(whip::publish_in_session::<G>)
                .patch(whip::patch::<G>)
                .delete(whip::close::<G>)
                .options(whip::resource),
        )
        .route(
            "/whep/session/{resource}",
            get(whip::look_at_session::<G>)
                .post(whip::play_in_session::<G>)
                .patch(whip::patch::<G>)
                .delete(whip::close::<G>)
                .options(whip::resource),
        )
        .route("/whep/session/{resource}/layer", post(layer::wish::<G>).options(layer::options))
        .route("/v1/ice", get(ice::configuration::<G>).options(ice::options))
        .route("/v1/signal", get(signal::upgrade::<G>))
        .route("/v1/sealed/{room}", post(sealed::join::<G>).options(sealed::room_options))
        .route(
            "/v1/sealed/{room}/{seat}",
            get(sealed::other::<G>)
                .post(sealed::describe::<G>)
                .delete(sealed::leave::<G>)
                .options(sealed::seat_options),
        )
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(Arc::clone(&config), cors::answer));
    // No CORS here: an admin key has no business in a page.
    let admin = Router::new()
        .route("/v1/turn/credentials", post(admin::mint::<G>))
        .route("/v1/turn/credentials/verify", post(admin::verify::<G>))
        .route("/v1/turn/revocations", get(admin::revocations::<G>).post(admin::revoke::<G>))
        .method_not_allowed_fallback(wrong_method);
    Router::new()
        .merge(api)
        .merge(admin)
        .fallback(page::serve)
        .with_state(shared)
        .layer(DefaultBodyLimit::max(MAX_SDP))
        .layer(middleware::from_fn(within_time))
        .layer(middleware::from_fn_with_state(Arc::clone(&config), headers::secure))
        .layer(middleware::from_fn_with_state(config, count))
}

async fn count(State(config): State<Arc<Config>>, request: Request, next: Next) -> Response {
    let response = next.run(request).await;
    if let Some(metrics) = &config.metrics {
        let code = response.extensions().get::<problem::Code>().map(|code| code.0);
        metrics.on_response(response.status().as_u16(), code);
    }
    response
}

async fn wrong_method() -> Problem {
    Problem::wrong_method()
}

async fn within_time(request: Request, next: Next) -> Result<Response, Problem> {
    let answered = tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await;
    answered.map_err(|_| Problem::slow())
}
