//! veilgate: the relay-first WebRTC media gateway.

pub mod app;
pub mod auth;
pub mod cli;
pub mod config;
pub mod ids;
pub mod metrics;
pub mod time;
pub mod wire;
