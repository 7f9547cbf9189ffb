//! What waits to be written to one participant's socket: bounded, and closed with a reason.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

/// Most messages that wait for a reader.
pub const MAX_WAITING: usize = 256;
/// Most bytes that wait for a reader; one message may be longer when nothing else waits.
pub const MAX_WAITING_BYTES: usize = 256 * 1024;

/// Why a connection is closed (docs/signalling.md).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Close {
    /// It left.
    Left,
    /// The gateway stops.
    Stopping,
    /// A binary message.
    Binary,
    /// Not a sound WebSocket.
    Protocol,
    /// A text that is not UTF-8.
    NotText,
    /// A message longer than one may be.
    TooLong,
    /// Not a message at all.
    NotJson,
    /// The token is no good.
    BadToken,
    /// The token does not open the room.
    NotGranted,
    /// Nothing came in time.
    Late,
    /// The room is full.
    RoomFull,
    /// Put out.
    Kicked,
    /// Another connection resumed the participant.
    Replaced,
    /// It reads too slowly.
    Slow,
    /// It sends too much.
    Flood,
    /// The gateway takes nobody now.
    Full,
}

impl Close {
    /// All there are.
    pub const ALL: [Self; 16] = [
        Self::Left,
        Self::Stopping,
        Self::Binary,
        Self::Protocol,
        Self::NotText,
        Self::TooLong,
        Self::NotJson,
        Self::BadToken,
        Self::NotGranted,
        Self::Late,
        Self::RoomFull,
        Self::Kicked,
        Self::Replaced,
        Self::Slow,
        Self::Flood,
        Self::Full,
    ];

    /// The close code: RFC 6455 section 7.4.1, and 4400 upwards ours.
    #[must_use]
    pub const fn code(self) -> u16 {
        match self {
            Self::Left => 1000,
            Self::Stopping => 1001,
            Self::Protocol => 1002,
            Self::Binary => 1003,
            Self::NotText => 1007,
            Self::TooLong => 1009,
            Self::NotJson => 4400,
            Self::BadToken => 4401,
            Self::NotGranted => 4403,
            Self::Late => 4408,
            Self::RoomFull => 4409,
            Self::Kicked => 4410,
            Self::Replaced => 4411,
            Self::Slow => 4413,
            Self::Flood => 4429,
            Self::Full => 4503,
        }
    }

    /// A stable word: the close reason on the wire, and a label of metrics.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Stopping => "stopping",
            Self::Protocol => "protocol_error",
            Self::Binary => "binary",
            Self::NotText => "not_utf8",
            Self::TooLong => "too_long",
            Self::NotJson => "not_json",
            Self::BadToken => "bad_token",
            Self::NotGranted => "not_granted",
            Self::Late => "timeout",
            Self::RoomFull => "room_full",
            Self::Kicked => "kicked",
            Self::Replaced => "replaced",
            Self::Slow => "slow_reader",
            Self::Flood => "flood",
            Self::Full => "full",
        }
    }
}

/// What a socket's writer does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Item {
    /// Send this text.
    Text(Arc<str>),
    /// Close; nothing comes after it.
    Close(Close),
}

#[derive(Debug, Default)]
struct Waiting {
    texts: VecDeque<Arc<str>>,
    bytes: usize,
    end: Option<Close>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
    cut: Notify,
}

/// A bounded queue towards one socket; clones share it.
#[derive(Clone, Debug, Default)]
pub struct Outbox {
    shared: Arc<Shared>,
}

impl Outbox {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a text. False: the box is closed, by this one having been too much or before.
    pub fn push(&self, text: Arc<str>) -> bool {
        let mut waiting = self.waiting();
        if waiting.end.is_some() {
            return false;
        }
        let crowded = waiting.texts.len() >= MAX_WAITING
            || waiting.bytes + text.len() > MAX_WAITING_BYTES && !waiting.texts.is_empty();
        if crowded {
            // What waits will not be read in time, and a later state would contradict it.
            *waiting = Waiting { end: Some(Close::Slow), ..Waiting::default() };
            self.shared.cut.notify_one();
        } else {
            waiting.bytes += text.len();
            waiting.texts.push_back(text);
        }
        self.shared.changed.notify_one();
        !crowded
    }

    /// Closes after what waits; the first reason counts.
    pub fn close(&self, why: Close) {
        self.waiting().end.get_or_insert(why);
        self.shared.changed.notify_one();
    }

    /// What to do next, if anything.
    #[must_use]
    pub fn take(&self) -> Option<Item> {
        let mut waiting = self.waiting();
        if let Some(text) = waiting.texts.pop_front() {
            waiting.bytes -= text.len();
            return Some(Item::Text(text));
        }
        waiting.end.map(Item::Close)
    }

    /// Why it is closed, if it is.
    #[must_use]
    pub fn ending(&self) -> Option<Close> {
        self.waiting().end
    }

    /// Waits for what to do next. One task may wait.
    pub async fn next(&self) -> Item {
        loop {
            if let Some(item) = self.take() {
                return item;
            }
            self.shared.changed.notified().await;
        }
    }

    /// Waits until the queue has overflowed: a write under way is then not worth waiting for.
    pub async fn overflowed(&self) {
        self.shared.cut.notified().await;
    }
}
