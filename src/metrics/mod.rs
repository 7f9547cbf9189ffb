//! Every metric name once; per-shard plain counters; exposition; log set-up.

pub mod counters;
mod exposition;
pub mod histogram;
mod log;
mod rooms;
mod signalling;

pub use counters::{Counters, Id, Published};
pub use exposition::Exposition;
pub use histogram::Hist;
pub use log::{LogFormat, init_log};
pub use rooms::RoomMetrics;
pub use signalling::Signalling;
