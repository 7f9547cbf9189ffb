//! TURN over TCP and TLS, read in turn with everything else a shard does.

use super::Shard;
use crate::engine::streams::{READ_PER_TURN, Taken};
use crate::metrics::Id;

impl Shard {
    /// Reads connections that have something, each its share.
    pub(super) fn read_connections(&mut self) {
        if !self.connections.is_busy() {
            return;
        }
        let mut order = std::mem::take(&mut self.order);
        self.connections.take_readable(&mut order);
        let mut scratch = std::mem::take(&mut self.scratch);
        for index in &order {
            if let Err(reason) = self.read_connection(*index, &mut scratch) {
                self.close_connection(*index, reason);
            }
            // A batch a connection: players' packets stay grouped and latency small.
            self.finish_batch();
        }
        self.scratch = scratch;
        self.order = order;
    }

    fn read_connection(&mut self, index: usize, scratch: &mut [u8]) -> Result<(), Id> {
        let mut share = READ_PER_TURN;
        loop {
            let n = match self.connections.read(index, scratch) {
                Taken::Bytes(n) => n,
                Taken::Nothing => return Ok(()),
                Taken::Closed => return Err(Id::StreamEnded),
            };
            let Some((tuple, mut framer)) = self.connections.take_framer(index) else {
                return Ok(());
            };
            let mut input = scratch.get_mut(..n).unwrap_or_default();
            let mut whole = false;
            let cut = loop {
                match framer.next(&mut input) {
                    Ok(Some(message)) => {
                        whole = true;
                        self.counters.inc(Id::StreamMessagesIn);
                        self.on_client_message(tuple, message);
                    }
                    Ok(None) => break Ok(()),
                    Err(_) => break Err(Id::StreamNotTurn),
                }
            };
            self.connections.put_framer(index, framer, whole, self.now.mono);
            cut?;
            share = share.saturating_sub(n);
            if share == 0 {
                self.connections.read_later(index);
                return Ok(());
            }
        }
    }

    /// Ends a connection and the allocation on it (RFC 8656 section 2.1).
    fn close_connection(&mut self, index: usize, reason: Id) {
        self.counters.inc(reason);
        if let Some(tuple) = self.connections.close(index, &mut self.counters) {
            self.parts.relay.on_disconnect(self.now, tuple, &mut self.counters);
        }
    }

    /// Ends connections that are idle without an allocation, or stalled within a message.
    pub(super) fn sweep_connections(&mut self) {
        let mut order = std::mem::take(&mut self.order);
        let relay = &self.parts.relay;
        self.connections.sweep(self.now.mono, |tuple| relay.has_allocation(tuple), &mut order);
        for index in &order {
            self.close_connection(*index, Id::StreamWasted);
        }
        self.order = order;
    }
}
