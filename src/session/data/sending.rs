//! The channels we open towards a client: one for each sender and label, with what waits in them.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use sctp_proto::{Association, PayloadProtocolIdentifier as Ppid};

use super::gate::STREAMS;
use super::{MAX_WAITING, Message};
use crate::ids::SessionId;
use crate::time::Mono;
use crate::wire::dcep::{self, Reliability};

/// Channels that carry one sender's words.
pub(super) const MAX_OF_ONE: usize = 64;
/// What keeping a message costs beside its bytes.
const OVERHEAD: usize = 256;
/// All channels are asked what they have sent at most this often.
const RECKON_EVERY: Duration = Duration::from_millis(50);

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) id: u16,
    pub(super) reliability: Reliability,
    /// Lengths of the messages that are not acknowledged, oldest first, and their sum.
    lengths: VecDeque<usize>,
    bytes: usize,
}

impl Channel {
    fn cost(&self) -> usize {
        self.bytes + OVERHEAD * self.lengths.len()
    }

    /// Forgets what has been acknowledged. A stream that is gone has nothing that waits.
    fn reckon(&mut self, association: &mut Association) {
        let waiting = association.stream(self.id).ok().and_then(|s| s.buffered_amount().ok());
        let waiting = waiting.unwrap_or_default();
        while let Some(oldest) = self.lengths.front()
            && self.bytes - oldest >= waiting
        {
            self.bytes -= oldest;
            self.lengths.pop_front();
        }
    }
}

#[derive(Debug, Default)]
struct Sender {
    channels: BTreeMap<Arc<str>, Channel>,
    cost: usize,
}

/// All channels we opened.
#[derive(Debug)]
pub(super) struct Sending {
    senders: HashMap<SessionId, Sender>,
    /// Closed by us; what they had to send is still under way.
    closing: Vec<Channel>,
    /// Cost of what waits in channels that the client closed: the library keeps it all the same.
    orphaned: usize,
    cost: usize,
    next: u16,
    /// Streams that both sides have closed.
    free: VecDeque<u16>,
    reckoned: Mono,
}

impl Default for Sending {
    fn default() -> Self {
        Self {
            senders: HashMap::new(),
            closing: Vec::new(),
            orphaned: 0,
            cost: 0,
            // RFC 8832 section 6: the DTLS server opens odd ones.
            next: 1,
            free: VecDeque::new(),
            reckoned: Mono::ZERO,
        }
    }
}

impl Sending {
    /// The stream for a message; opened where there is none. `None`: the client is too slow, or
    /// has channels enough.
    pub(super) fn place(
        &mut self,
        now: Mono,
        association: &mut Association,
        from: SessionId,
        message: &Message,
    ) -> Option<u16> {
        let cost = message.bytes.len().max(1) + OVERHEAD;
        if let Some(sender) = self.senders.get_mut(&from)
            && let Some(channel) = sender.channels.get_mut(&message.label)
        {
            let before = channel.cost();
            channel.reckon(association);
            sender.cost -= before - channel.cost();
            self.cost -= before - channel.cost();
        }
        if !self.has_room(from, cost) {
            if now.since(self.reckoned) < RECKON_EVERY {
                return None;
            }
            self.reckoned = now;
            self.reckon(association);
            if !self.has_room(from, cost) {
                return None;
            }
        }
        self.open(association, from, message)
    }

    /// A sender has half of what the others leave, so there is room for one more at any time.
    fn has_room(&self, from: SessionId, cost: usize) -> bool {
        let own = self.senders.get(&from).map_or(0, |sender| sender.cost);
        own + cost <= MAX_WAITING.saturating_sub(self.cost + self.orphaned)
    }

    fn reckon(&mut self, association: &mut Association) {
        let mut sum = 0;
        for sender in self.senders.values_mut() {
            for channel in sender.channels.values_mut() {
                channel.reckon(association);
            }
            sender.cost = sender.channels.values().map(Channel::cost).sum();
            sum += sender.cost;
        }
        for channel in &mut self.closing {
            channel.reckon(association);
        }
        self.closing.retain(|channel| channel.cost() > 0);
        sum += self.closing.iter().map(Channel::cost).sum::<usize>();
        // What is sent later is acknowledged later.
        if sum == 0 && self.cost > 0 {
            self.orphaned = 0;
        }
        self.cost = sum;
    }

    fn open(
        &mut self,
        association: &mut Association,
        from: SessionId,
        message: &Message,
    ) -> Option<u16> {
        let sender = self.senders.get(&from);
        if let Some(channel) = sender.and_then(|sender| sender.channels.get(&message.label)) {
            return Some(channel.id);
        }
        let open = sender.map_or(0, |sender| sender.channels.len());
        if association.is_handshaking() || open >= MAX_OF_ONE {
            return None;
        }
        let id = if self.next < STREAMS {
            self.next += 2;
            self.next - 2
        } else {
            self.free.pop_front()?
        };
        let Ok(mut stream) = association.open_stream(id, Ppid::Binary) else {
            // Its reset has not been answered yet.
            self.free.push_back(id);
            return None;
        };
        let (label, reliability) = (&message.label, message.reliability);
        let mut open = Vec::with_capacity(dcep::OPEN_HEADER + label.len());
        dcep::write_open(reliability, label, &mut open);
        stream.write_with_ppi(&open, Ppid::Dcep).ok()?;
        let channel = Channel { id, reliability, lengths: [open.len()].into(), bytes: open.len() };
        let sender = self.senders.entry(from).or_default();
        sender.cost += channel.cost();
        self.cost += channel.cost();
        sender.channels.insert(Arc::clone(label), channel);
        Some(id)
    }

    /// A message of so many bytes was handed to the library.
    pub(super) fn sent(&mut self, from: SessionId, label: &str, bytes: usize) {
        let Some(sender) = self.senders.get_mut(&from) else { return };
        let Some(channel) = sender.channels.get_mut(label) else { return };
        channel.lengths.push_back(bytes);
        channel.bytes += bytes;
        sender.cost += bytes + OVERHEAD;
        self.cost += bytes + OVERHEAD;
    }

    /// The client closes channels and acknowledges nothing of what was in them.
    pub(super) const fn is_hopeless(&self) -> bool {
        self.orphaned > MAX_WAITING / 4 * 3
    }

    pub(super) fn reliability(&self, id: u16) -> Option<Reliability> {
        let mut channels = self.senders.values().flat_map(|sender| sender.channels.values());
        channels.find(|channel| channel.id == id).map(|channel| channel.reliability)
    }

    /// The client has closed a stream, which ends it.
    pub(super) fn ended(&mut self, id: u16) {
        if id.is_multiple_of(2) {
            return;
        }
        let mut lost = 0;
        for sender in self.senders.values_mut() {
            sender.channels.retain(|_, channel| {
                let ended = channel.id == id;
                if ended {
                    lost += channel.cost();
                    sender.cost -= channel.cost();
                }
                !ended
            });
        }
        self.senders.retain(|_, sender| !sender.channels.is_empty());
        self.closing.retain(|channel| {
            let ended = channel.id == id;
            lost += if ended { channel.cost() } else { 0 };
            !ended
        });
        self.cost = self.cost.saturating_sub(lost);
        self.orphaned += lost;
        if id < self.next && !self.free.contains(&id) {
            self.free.push_back(id);
        }
    }

    /// Closes the channels of a sender, or one of them.
    pub(super) fn close(
        &mut self,
        association: &mut Association,
        from: SessionId,
        label: Option<&str>,
    ) {
        let Some(sender) = self.senders.get_mut(&from) else { return };
        let gone = match label {
            None => std::mem::take(&mut sender.channels).into_values().collect(),
            Some(label) => sender.channels.remove(label).into_iter().collect::<Vec<_>>(),
        };
        for channel in gone {
            sender.cost -= channel.cost();
            if let Ok(mut stream) = association.stream(channel.id) {
                let _unknown = stream.close();
                self.closing.push(channel);
            }
        }
        if sender.channels.is_empty() {
            self.senders.remove(&from);
        }
    }

    #[cfg(test)]
    pub(super) fn labels(&self) -> Vec<String> {
        let channels = self.senders.values().flat_map(|sender| sender.channels.keys());
        let mut labels: Vec<_> = channels.map(|label| label.to_string()).collect();
        labels.sort();
        labels
    }
}
