//! What a client's SCTP packets may cost us.
//!
//! The library does what a packet says, however much that is: a FORWARD-TSN of eight bytes walks
//! over two thousand million numbers, a fragment of a message that never ends is held for good and
//! searched for by each later one, a reset of streams that waits for data is kept without a bound.
//! So each packet is read here first.

use bytes::Bytes;

use crate::time::Mono;
use crate::wire::sctp::{self, Chunk};

/// Streams that a channel may have; more would each be kept, and walked over for every chunk.
pub(super) const STREAMS: u16 = 1_024;
/// How far a packet may be ahead of what we last acknowledged, numbers of DATA chunks.
const AHEAD: u32 = 2_048;
/// DATA chunks that may wait to be read: each may keep the whole packet it came in.
const MOST_UNREAD: usize = 2_048;
/// Work a second, and at once: a DATA chunk is one.
const WORK: u32 = 8_192;
/// A request of a reset may have to be repeated for a while, by us too.
const RESET_WORK: u32 = 32;
/// A new association.
const INIT_WORK: u32 = 32;

/// What to do with a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Verdict {
    /// The library may have it.
    Pass,
    /// It begins an association, whose first DATA will have this number.
    Begin(u32),
    /// It resets streams: once what came before it has been read.
    Later {
        /// The number up to which DATA must have arrived.
        last: u32,
    },
    /// Dropped; SCTP repeats what matters.
    Flood,
    /// Dropped.
    Malformed,
}

#[derive(Debug)]
pub(super) struct Gate {
    work: u32,
    refilled: Mono,
    /// The first DATA's number.
    first: u32,
    /// What we last acknowledged.
    acknowledged: u32,
    /// DATA chunks in the library, read by nobody yet.
    unread: usize,
    /// A reset that waits.
    waiting: Option<(u32, Bytes)>,
    window: u32,
}

impl Gate {
    /// `window` is ours, in bytes, while nothing waits to be read.
    pub(super) const fn new(window: u32) -> Self {
        Self {
            work: WORK,
            refilled: Mono::ZERO,
            first: 0,
            acknowledged: 0,
            unread: 0,
            waiting: None,
            window,
        }
    }

    pub(super) fn judge(&mut self, now: Mono, packet: &[u8], something_to_read: bool) -> Verdict {
        self.refill(now);
        let mut reset = None;
        let mut work = 1;
        let mut start = None;
        for chunk in sctp::chunks(packet) {
            let Ok(chunk) = chunk else { return Verdict::Malformed };
            work += match chunk {
                Chunk::Data { tsn, stream } => {
                    if stream >= STREAMS || self.ahead(tsn) > AHEAD || self.unread >= MOST_UNREAD {
                        return Verdict::Flood;
                    }
                    1
                }
                Chunk::Forward { cumulative, streams } => {
                    let ahead = self.ahead(cumulative);
                    if ahead > AHEAD {
                        return Verdict::Flood;
                    }
                    streams + ahead / 16
                }
                Chunk::Sack { named, .. } => named / 16,
                Chunk::Reset { last, streams } => {
                    reset = Some(last);
                    RESET_WORK + streams
                }
                Chunk::Init { tsn } => {
                    start = Some(tsn);
                    INIT_WORK
                }
                Chunk::Other => 1,
            };
        }
        let Some(left) = self.work.checked_sub(work) else { return Verdict::Flood };
        self.work = left;
        // An INIT is alone.
        if let Some(tsn) = start {
            return Verdict::Begin(tsn);
        }
        match reset {
            Some(last) if something_to_read || self.ahead(last) > 0 => Verdict::Later { last },
            _ => Verdict::Pass,
        }
    }

    #[cfg(test)]
    pub(super) const fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    /// How far beyond the last acknowledged a number is (RFC 1982); 0: not at all.
    fn ahead(&self, tsn: u32) -> u32 {
        let ahead = tsn.wrapping_sub(self.acknowledged);
        if ahead > u32::MAX / 2 { 0 } else { ahead }
    }

    fn refill(&mut self, now: Mono) {
        let micros = now.since(self.refilled).as_micros().min(1_000_000) as u64;
        let more = (micros * u64::from(WORK) / 1_000_000) as u32;
        if more > 0 {
            self.work = (self.work + more).min(WORK);
            self.refilled = now;
        }
    }

    /// The library has kept a DATA chunk.
    pub(super) fn kept(&mut self) {
        self.unread += 1;
    }

    /// So many chunks of a message were read.
    pub(super) fn read(&mut self, chunks: usize) {
        self.unread = self.unread.saturating_sub(chunks);
    }

    /// Nothing more can be read, so whatever is kept waits for more of itself. True: for too much.
    pub(super) const fn is_stuck(&self) -> bool {
        self.unread >= MOST_UNREAD
    }

    /// Learns from what we send.
    pub(super) fn sent(&mut self, packet: &[u8]) {
        for chunk in sctp::chunks(packet) {
            if let Ok(Chunk::Sack { cumulative, window, .. }) = chunk {
                self.acknowledged = cumulative;
                // No chunk is empty; what was given up is kept no more.
                self.unread = self.unread.min(self.window.saturating_sub(window) as usize);
            }
        }
    }

    /// The library has begun an association with this INIT.
    pub(super) fn begun(&mut self, tsn: u32) {
        self.forget();
        self.first = tsn;
        self.acknowledged = tsn.wrapping_sub(1);
    }

    /// An INIT sent again says the same: the library would believe another.
    pub(super) const fn is_again(&self, tsn: u32) -> bool {
        self.first == tsn
    }

    /// The association is gone; its client has the same right to work as before.
    pub(super) fn forget(&mut self) {
        self.unread = 0;
        self.waiting = None;
    }

    /// Keeps a packet for later; there is one such request at a time (RFC 6525 section 5.1.1).
    pub(super) fn keep(&mut self, last: u32, packet: Bytes) {
        self.waiting = Some((last, packet));
    }

    /// Whether the packet that waits need wait no more.
    pub(super) fn is_due(&self, something_to_read: bool) -> bool {
        let arrived = |(last, _): &(u32, Bytes)| self.ahead(*last) == 0;
        !something_to_read && self.waiting.as_ref().is_some_and(arrived)
    }

    pub(super) fn take(&mut self) -> Option<Bytes> {
        self.waiting.take().map(|(_, packet)| packet)
    }
}
