//! One remote WebRTC endpoint.

pub mod srtp;
