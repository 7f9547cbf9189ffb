//! Every metric name once; per-shard plain counters; exposition; log set-up and redaction.

pub mod counters;

pub use counters::{Counters, Id, Published};
