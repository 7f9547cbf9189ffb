//! veilgate: the relay-first WebRTC media gateway.
//!
//! # The one idea
//! The relay is the only door. A browser opens a TURN allocation here with a minted, short-lived
//! credential; what it relays reaches, in this process, a DTLS-SRTP forwarder that has no socket.
//! The forwarder's ICE candidate, the *media address*, is a row in a table that the kernel never
//! bound, and so is every relayed transport address. Nobody can see, learn or reach anybody's
//! address, because there is no other path to refuse.
//!
//! # The way of a packet
//! ```text
//! NIC -> engine::sys::udp   recvmmsg, GRO
//!      -> relay::Relay::handle          STUN answered, ChannelData and Send opened: a payload
//!      -> engine::shard                 allocation -> session
//!      -> session::Session::handle      ICE-lite | DTLS | SRTP opened in place
//!      -> forward::Publisher::on_rtp    a packet of a track
//!      -> engine::media::MediaBatch     one slab a stream and batch; other shards get it too
//!      -> forward::Player::write_rtp    rewritten into an egress slot, once per player
//!      -> session::Session::protect_rtp sealed in place
//!      -> relay::Framing::encapsulate   ChannelData or Data indication into the headroom
//! NIC <- engine::egress     sendmmsg
//! ```
//!
//! # The rooms
//! Each imports only downwards; `tests/layers.rs` reads the `use` lines against this table.
//!
//! | layer | room | holds |
//! |---|---|---|
//! | - | [`app`], [`cli`], [`ids`], [`net`], [`time`] | composition root, commands, newtypes |
//! | 0 | [`wire`] | bytes to types and back, no state |
//! | 1 | [`auth`], [`metrics`], [`config`] | credentials, tokens, revocation; counters; YAML |
//! | 2 | [`relay`], [`session`], [`forward`] | TURN; one remote endpoint; tracks and players |
//! | 3 | [`engine`] | shards: sockets, routes, timers, what crosses between them |
//! | 4 | [`control`] | who publishes what, who plays it; the store, what is revoked |
//! | 6 | [`http`] | TLS, WHIP, WHEP, ICE servers, admin API, the page |
//!
//! Layers 0 to 2 know no socket, clock, thread or runtime: time and randomness are arguments.
//! Verbs: `handle_*` takes input and `now`, `poll_*` yields output or a deadline, `on_*` reacts to
//! an event of the crate, `mint` and `verify` are for secrets.

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod engine;
pub mod forward;
pub mod http;
pub mod ids;
pub mod metrics;
pub mod net;
pub mod relay;
pub mod session;
pub mod time;
pub mod wire;
