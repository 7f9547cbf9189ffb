//! One remote WebRTC endpoint.

pub mod negotiate;
