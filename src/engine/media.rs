//! What crosses shards: one slab of packets per stream and receive batch.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use crate::forward::{Clock, LayerId, Level, MAX_LAYERS, PacketHead, SILENCE};
use crate::ids::{RoomHash, SessionId, ShardId, StreamId};
use crate::session::data::Message;
use crate::time::Mono;
use crate::wire::media::StreamSpec;

/// A slab takes no further packet beyond this.
pub const BATCH_BYTES: usize = 128 * 1024;
/// Slabs waiting in one shard's ring.
pub const MEDIA_RING: usize = 256;
const _: () = assert!(BATCH_BYTES * MEDIA_RING <= 64 * 1024 * 1024, "ring memory per shard");

const NONE: u8 = u8::MAX;

/// Where the ends of a stream are; read by every shard, without a lock.
#[derive(Debug)]
pub struct StreamShared {
    /// What is sent.
    pub spec: Arc<StreamSpec>,
    publisher: AtomicU8,
    players: AtomicU64,
    /// Layers a keyframe has been asked for, by a message under way.
    wished: AtomicU64,
    /// From the low end: level + 1 (0: none yet), speaking at bit 8, and when in ms.
    level: AtomicU64,
}

/// A level older than this is silence: a muted microphone may send nothing.
const LEVEL_LASTS: Duration = Duration::from_secs(1);

impl StreamShared {
    /// A stream that nobody has connected to yet.
    #[must_use]
    pub fn new(spec: Arc<StreamSpec>) -> Self {
        Self {
            spec,
            publisher: AtomicU8::new(NONE),
            players: AtomicU64::new(0),
            wished: AtomicU64::new(0),
            level: AtomicU64::new(0),
        }
    }

    /// The shard of the publisher, once it is connected.
    #[must_use]
    pub fn publisher(&self) -> Option<ShardId> {
        let shard = self.publisher.load(Ordering::Relaxed);
        (shard != NONE).then_some(ShardId(shard))
    }

    /// Notes the publisher's shard.
    pub fn set_publisher(&self, shard: Option<ShardId>) {
        self.publisher.store(shard.map_or(NONE, |s| s.0), Ordering::Relaxed);
    }

    /// Notes a wish for a keyframe; true when no message with it is under way yet.
    pub fn wish(&self, layer: LayerId) -> bool {
        let bit = wish_bit(layer);
        self.wished.fetch_or(bit, Ordering::Relaxed) & bit == 0
    }

    /// The message arrived, or was lost.
    pub fn wish_done(&self, layer: LayerId) {
        self.wished.fetch_and(!wish_bit(layer), Ordering::Relaxed);
    }

    /// Notes how loud it is.
    pub fn set_level(&self, level: Level, now: Mono) {
        let ms = now.since(Mono::ZERO).as_millis() as u64;
        let (loudness, speaking) = (u64::from(level.level) + 1, u64::from(level.speaking));
        let word = loudness | (speaking << 8) | (ms << 16);
        self.level.store(word, Ordering::Relaxed);
    }

    /// How loud it is; `None`: its publisher does not say.
    #[must_use]
    pub fn level(&self, now: Mono) -> Option<Level> {
        let word = self.level.load(Ordering::Relaxed);
        let level = (word as u8).checked_sub(1)?;
        let at = Duration::from_millis(word >> 16);
        if now.since(Mono::ZERO) > at + LEVEL_LASTS {
            return Some(Level { level: SILENCE, speaking: false });
        }
        Some(Level { level, speaking: (word >> 8) & 1 == 1 })
    }

    /// Shards that have players, as a bit set.
    #[must_use]
    pub fn player_shards(&self) -> u64 {
        self.players.load(Ordering::Relaxed)
    }

    /// Notes whether a shard has players.
    pub fn set_players(&self, shard: ShardId, any: bool) {
        let bit = 1u64 << (shard.0 & 63);
        if any {
            self.players.fetch_or(bit, Ordering::Relaxed);
        } else {
            self.players.fetch_and(!bit, Ordering::Relaxed);
        }
    }
}

/// Who a session is among those of its room that have data channels.
#[derive(Clone, Debug)]
pub struct DataPeer {
    /// What the others know it by: the part of a channel's label before the slash. A slash in it is
    /// shown as a dot, lest `a/b` speak for `a`.
    pub name: Arc<str>,
    /// The room.
    pub room: RoomHash,
    /// Whether what it says is passed on; it hears the others all the same.
    pub may_send: bool,
}

impl DataPeer {
    /// The label under which the others see a channel of this session.
    #[must_use]
    pub fn label(&self, own: &str) -> Arc<str> {
        format!("{}/{own}", self.name.replace('/', ".")).into()
    }
}

/// What the sessions of a room hear of one that has data channels.
#[derive(Debug)]
pub enum DataNews {
    /// It said something.
    Message {
        /// The room.
        room: RoomHash,
        /// The session.
        from: SessionId,
        /// What, under the label that the others see.
        message: Message,
    },
    /// It closed a channel, or is gone.
    Closed {
        /// The room.
        room: RoomHash,
        /// The session.
        from: SessionId,
        /// The label that the others see; none: all of its channels.
        label: Option<Arc<str>>,
    },
}

impl DataNews {
    /// Whose news it is.
    #[must_use]
    pub const fn room(&self) -> RoomHash {
        match self {
            Self::Message { room, .. } | Self::Closed { room, .. } => *room,
        }
    }
}

const fn wish_bit(LayerId { track, layer }: LayerId) -> u64 {
    1 << ((track as usize * MAX_LAYERS + layer as usize) & 63)
}

/// Decrypted packets of one stream that arrived together.
#[derive(Debug, Default)]
pub struct MediaBatch {
    /// The stream; `None` only while pooled.
    pub stream: Option<StreamId>,
    /// The publisher's clock per track.
    pub clocks: Vec<Option<Clock>>,
    /// Packets, in order of arrival, with their payload in `bytes`.
    pub packets: Vec<(PacketHead, Range<usize>)>,
    /// Payloads.
    pub bytes: Vec<u8>,
}

impl MediaBatch {
    /// Empties it for reuse; keeps the memory.
    pub fn reset(&mut self, stream: StreamId) {
        self.stream = Some(stream);
        self.clocks.clear();
        self.packets.clear();
        self.bytes.clear();
    }

    /// Adds a packet; false when the slab is full.
    pub fn push(&mut self, head: PacketHead, payload: &[u8]) -> bool {
        let start = self.bytes.len();
        if start + payload.len() > BATCH_BYTES {
            return false;
        }
        self.bytes.extend_from_slice(payload);
        self.packets.push((head, start..start + payload.len()));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_speaks_for_another_on_data_channels() {
        let label = |name: &str, own: &str| {
            DataPeer { name: name.into(), room: RoomHash::of("lobby"), may_send: true }.label(own)
        };
        assert_eq!(&*label("eve", "chat"), "eve/chat");
        assert_ne!(label("bob", "x/chat"), label("bob/x", "chat"));
        assert_eq!(label("bob/x", "chat").split_once('/'), Some(("bob.x", "chat")));
    }
}
