//! Bytes to types and back, without state. Nothing here can panic on any input.

pub mod media;
pub mod sdp;
