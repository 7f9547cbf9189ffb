//! One remote WebRTC endpoint.

pub mod dtls;
mod dtls_ffi;
pub mod srtp;
