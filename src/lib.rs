//! veilgate: the relay-first WebRTC media gateway.

pub mod auth;
pub mod control;
pub mod http;
pub mod ids;
pub mod metrics;
pub mod session;
pub mod time;
pub mod wire;
