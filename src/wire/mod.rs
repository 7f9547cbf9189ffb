//! Bytes to types and back, without state. Nothing here can panic on any input.

pub mod channel_data;
pub mod dcep;
pub mod dependency;
#[doc(hidden)]
pub mod fuzz;
pub mod media;
pub mod mux;
pub mod rtcp;
pub mod rtp;
pub mod sctp;
pub mod sdp;
pub mod stream_frames;
pub mod stun;
pub mod turn;
pub mod twcc;
