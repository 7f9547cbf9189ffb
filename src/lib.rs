//! veilgate: the relay-first WebRTC media gateway.

pub mod engine;
pub mod ids;
pub mod metrics;
pub mod time;
pub mod wire;
