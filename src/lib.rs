//! veilgate: the relay-first WebRTC media gateway.

pub mod auth;
pub mod ids;
pub mod metrics;
pub mod relay;
pub mod time;
pub mod wire;
