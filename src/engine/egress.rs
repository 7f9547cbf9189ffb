//! Outgoing datagrams of one shard: written once into an arena, kept as runs of equal segments
//! to one client, given to the kernel in batches.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::BorrowedFd;

use super::MAX_UDP;
use super::socket::Sockets;
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

/// What leaves through one socket.
#[derive(Debug, Default)]
struct Queue {
    datagrams: Vec<(SocketAddr, Range<usize>)>,
    runs: Vec<Run>,
}

/// The egress of one shard.
#[derive(Debug)]
pub struct Egress {
    arena: Vec<u8>,
    used: usize,
    /// By the socket they leave through.
    queues: [Queue; MAX_UDP],
    batch: SendBatch,
    /// Messages for connections, kept apart: they leave by other sockets.
    messages: Vec<(FiveTuple, Range<usize>)>,
}

impl Default for Egress {
    fn default() -> Self {
        Self {
            arena: vec![0; ARENA],
            used: 0,
            queues: std::array::from_fn(|socket| {
                // The first port carries most; the others grow when they are used.
                let room = if socket == 0 { 4_096 } else { 0 };
                Queue { datagrams: Vec::with_capacity(room), runs: Vec::with_capacity(room) }
            }),
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
        let Some(queue) = self.queues.get_mut(usize::from(to.listener)) else { return };
        let first = queue.datagrams.len();
        queue.datagrams.push((to.client.expose(), absolute));
        match queue.runs.last_mut() {
            Some(run) if run.to == to && !run.closed && len <= run.segment => {
                run.count += 1;
                run.closed = len < run.segment;
            }
            _ => queue.runs.push(Run { to, first, count: 1, segment: len, closed: false }),
        }
    }

    /// Nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty() && self.queues.iter().all(|queue| queue.datagrams.is_empty())
    }

    /// Gives everything to the kernel. A datagram the kernel refuses is a counted drop.
    pub(super) fn flush(
        &mut self,
        sockets: &Sockets,
        streams: &mut Streams,
        counters: &mut Counters,
    ) {
        for (to, range) in self.messages.drain(..) {
            if let Some(message) = self.arena.get(range) {
                streams.send(to, message, counters);
            }
        }
        for (queue, fd) in self.queues.iter_mut().zip(sockets.iter()) {
            send_all(&mut self.batch, fd, &self.arena, queue, counters);
        }
        self.used = 0;
    }
}

fn send_all(
    batch: &mut SendBatch,
    fd: BorrowedFd<'_>,
    arena: &[u8],
    queue: &mut Queue,
    counters: &mut Counters,
) {
    for run in &queue.runs {
        counters.observe(Hist::RunLength, run.count as u64);
        debug_assert!(run.first + run.count <= queue.datagrams.len());
    }
    let mut rest = queue.datagrams.as_slice();
    while !rest.is_empty() {
        counters.inc(Id::EngineSendCalls);
        match batch.send(fd, arena, rest) {
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
    queue.datagrams.clear();
    queue.runs.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClientAddr;

    fn client(port: u16) -> FiveTuple {
        let client = ClientAddr::new(SocketAddr::from(([127, 0, 0, 1], port)));
        FiveTuple::new(client, Transport::Udp)
    }

    #[test]
    fn equal_segments_to_one_client_make_one_run() {
        let mut egress = Egress::default();
        for (port, len) in [(1, 100), (1, 100), (1, 60), (1, 60), (2, 100), (2, 120)] {
            egress.slot(200).expect("room")[..len].fill(7);
            egress.commit(client(port), 0..len);
        }
        let shape: Vec<_> = egress.queues[0].runs.iter().map(|r| (r.count, r.segment)).collect();
        assert_eq!(shape, [(3, 100), (1, 60), (1, 100), (1, 120)]);
    }

    #[test]
    fn a_full_arena_gives_no_slot() {
        let mut egress = Egress::default();
        assert!(egress.slot(ARENA + 1).is_none());
        assert!(egress.slot(ARENA).is_some());
    }
}
