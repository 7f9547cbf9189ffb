//! Fresh keys for the relay's nonces, about once an hour.

use std::io;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::engine;
use crate::relay::{NONCE_LIFETIME_SECS, NonceKey};

/// Between two keys: more than the life of a nonce, as a shard that got one key late takes no
/// other for so long.
pub const PERIOD: Duration = Duration::from_secs(NONCE_LIFETIME_SECS + 60);
/// A shard with a full mailbox is asked again after this,
const RETRY: Duration = Duration::from_millis(5);
/// at most so often. One that misses a key keeps its own until the next.
const RETRIES: u32 = 2_000;

/// Gives every shard a key from `random` each `period`, for ever.
pub async fn rotate(
    engine: engine::Handle,
    period: Duration,
    random: impl Fn() -> io::Result<[u8; 32]>,
) {
    let mut tick = interval(period);
    // After a pause (a suspended machine) the keys do not follow each other sooner.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first comes at once, and the shards have just been given theirs.
    tick.tick().await;
    loop {
        tick.tick().await;
        let key = match random() {
            Ok(bytes) => NonceKey::new(bytes),
            Err(error) => {
                tracing::error!(%error, "no new nonce key; the old one stays");
                continue;
            }
        };
        for shard in 0..engine.shards() {
            let mut tries = 0;
            while !engine.rotate_nonces(shard, key) {
                tries += 1;
                if tries > RETRIES {
                    tracing::error!(shard, "a shard does not take a nonce key");
                    break;
                }
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}
