//! Outgoing datagrams of one shard: written once into an arena, kept as runs of equal segments
//! to one client, given to the kernel in batches.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use super::streams::Streams;
use super::sys::udp::{SEND_BATCH, SendBatch};
use crate::ids::{FiveTuple, Transport};
use crate::metrics::{Counters, Hist, Id};

/// Arena bytes; a full arena is flushed, so this bounds memory, not traffic.
const ARENA: usize = 2 * 1024 * 1024;

/// Datagrams of equal size (the last may be shorter) to one client: the unit of segmentation
/// offload.
#[derive(Clone, Copy, Debug)]
struct Run {
    to: FiveTuple,
    first: usize,
    count: usize,
    segment: usize,
    closed: bool,
}

/// The egress of one shard.
#[derive(Debug)]
pub struct Egress {
    arena: Vec<u8>,
    used: usize,
    datagrams: Vec<(SocketAddr, Range<usize>)>,
    runs: Vec<Run>,
    batch: SendBatch,
    /// Messages for connections, kept apart: they leave by other sockets.
    messages: Vec<(FiveTuple, Range<usize>)>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            arena: vec![0; ARENA],
            used: 0,
            datagrams: Vec::with_capacity(4_096),
            runs: Vec::with_capacity(4_096),
            batch: SendBatch::default(),
            messages: Vec::with_capacity(256),
        }
    }
}

impl Egress {
    /// A slot of `len` bytes to write into, or `None` when the arena must be flushed first.
    /// Until [`Self::commit`] the slot may be abandoned at no cost.
    pub fn slot(&mut self, len: usize) -> Option<&mut [u8]> {
        self.arena.get_mut(self.used..self.used.checked_add(len)?)
    }

    /// Queues `range` of the last [`Self::slot`] for `to`.
    pub fn commit(&mut self, to: FiveTuple, range: Range<usize>) {
        let absolute = self.used + range.start..self.used + range.end;
        let len = range.len();
        if len == 0 || absolute.end > self.arena.len() {
            return;
        }
        // Cache-line alignment keeps neighbours from sharing a line.
        self.used = (absolute.end + 63) & !63;
        if to.transport != Transport::Udp {
            self.messages.push((to, absolute));
            return;
        }
        let first = self.datagrams.len();
        self.datagrams.push((to.client.expose(), absolute));
        match self.runs.last_mut() {
            Some(run) if run.to == to && !run.closed && len <= run.segment => {
                run.count += 1;
                run.closed = len < run.segment;
            }
            _ => self.runs.push(Run { to, first, count: 1, segment: len, closed: false }),
        }
    }

    /// Nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.datagrams.is_empty() && self.messages.is_empty()
    }

    /// Gives everything to the kernel. A datagram the kernel refuses is a counted drop.
    pub(super) fn flush(
        &mut self,
        fd: BorrowedFd<'_>,
        streams: &mut Streams,
        counters: &mut Counters,
    ) {
        for (to, range) in self.messages.drain(..) {
            if let Some(message) = self.arena.get(range) {
                streams.send(to, message, counters);
            }
        }
        for run in &self.runs {
            counters.observe(Hist::RunLength, run.count as u64);
            debug_assert!(run.first + run.count <= self.datagrams.len());
        }
        let mut rest = self.datagrams.as_slice();
        while !rest.is_empty() {
            counters.inc(Id::EngineSendCalls);
            match self.batch.send(fd, &self.arena, rest) {
                Ok(sent) => {
                    counters.observe(Hist::SendBatch, sent as u64);
                    counters.add(Id::EngineDatagramsOut, sent as u64);
                    rest = rest.get(sent.max(1)..).unwrap_or_default();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    // A full socket buffer: media is worth nothing later, so it is dropped.
                    counters.add(Id::EngineSendBlocked, rest.len().min(SEND_BATCH) as u64);
                    rest = rest.get(SEND_BATCH..).unwrap_or_default();
                }
                Err(_) => {
                    counters.inc(Id::EngineSendErrors);
                    rest = rest.get(1..).unwrap_or_default();
                }
            }
        }
        self.datagrams.clear();
        self.runs.clear();
        self.used = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientAddr;

    fn client(port: u16) -> FiveTuple {
        let client = ClientAddr::new(SocketAddr::from(([127, 0, 0, 1], port)));
        FiveTuple { client, transport: Transport::Udp }
    }

    #[test]
    fn equal_segments_to_one_client_make_one_run() {
        let mut egress = Egress::default();
        for (port, len) in [(1, 100), (1, 100), (1, 60), (1, 60), (2, 100), (2, 120)] {
            egress.slot(200).expect("room")[..len].fill(7);
            egress.commit(client(port), 0..len);
        }
        let shape: Vec<_> = egress.runs.iter().map(|r| (r.count, r.segment)).collect();
        assert_eq!(shape, [(3, 100), (1, 60), (1, 100), (1, 120)]);
    }

    #[test]
    fn a_full_arena_gives_no_slot() {
        let mut egress = Egress::default();
        assert!(egress.slot(ARENA + 1).is_none());
        assert!(egress.slot(ARENA).is_some());
    }
}
