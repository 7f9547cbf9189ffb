//! Data channels of one session: SCTP over its DTLS (RFC 8831), opened by DCEP (RFC 8832).
//!
//! SCTP is `sctp-proto`'s, which draws its own initial numbers as BoringSSL does and wants
//! `Instant`s: they are made from the caller's [`Mono`] and the instant of its zero. Ours is what
//! a client may make us hold: channels, messages, bytes a second, bytes that wait.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};

use crate::metrics::{Counters, Id};
use crate::time::Mono;
use crate::wire::dcep::{self, Reliability};

/// Longest message, bytes: the `a=max-message-size` of our answers.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Channels of one session, its own and those we open, each.
pub const MAX_CHANNELS: usize = 256;
/// Bytes a client may send a second, and at once. Beyond it SCTP's window slows it down.
pub const RATE: usize = 512 * 1024;
/// Bytes waiting for a slow client, all channels together; beyond it messages are dropped.
const MAX_WAITING: usize = 1024 * 1024;
/// What a client may have under way to us, bytes.
const WINDOW: u32 = 256 * 1024;

/// A message of a channel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The channel's label, as whoever opened it chose it.
    pub label: Arc<str>,
    /// How the channel delivers.
    pub reliability: Reliability,
    /// Text (UTF-8, not checked) or bytes.
    pub text: bool,
    /// What it says.
    pub bytes: Bytes,
}

#[derive(Debug)]
struct Channel {
    label: Arc<str>,
    reliability: Reliability,
}

/// The data channels of one session.
#[derive(Debug)]
pub struct Data {
    endpoint: Endpoint,
    association: Option<(AssociationHandle, Box<Association>)>,
    /// It was established; one that waits for its COOKIE-ECHO is "closed" too.
    established: bool,
    zero: Instant,
    /// Channels the client opened, by stream.
    theirs: BTreeMap<u16, Channel>,
    /// Channels we opened, by label: their streams, and how they shall deliver.
    ours: BTreeMap<Arc<str>, (u16, Reliability)>,
    next: u16,
    readable: VecDeque<u16>,
    waiting: VecDeque<Bytes>,
    budget: usize,
    refilled: Mono,
}

/// SCTP wants an address; there is one peer.
const PEER: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 5_000);

impl Data {
    /// Waits for the client's INIT; `zero` is the instant of [`Mono::ZERO`].
    #[must_use]
    pub fn new(zero: Instant) -> Self {
        let transport = TransportConfig::default()
            .with_max_receive_buffer_size(WINDOW)
            .with_max_send_message_size(MAX_MESSAGE as u32)
            .with_max_receive_message_size(MAX_MESSAGE as u32)
            .with_max_num_inbound_streams(1_024)
            .with_max_num_outbound_streams(1_024)
            .with_rto_initial_ms(1_000)
            .with_rto_min_ms(200)
            .with_rto_max_ms(5_000);
        let mut server = ServerConfig::new();
        server.transport = Arc::new(transport);
        let endpoint = Endpoint::new(Arc::new(EndpointConfig::new()), Some(Arc::new(server)));
        Self {
            endpoint,
            association: None,
            established: false,
            zero,
            theirs: BTreeMap::new(),
            ours: BTreeMap::new(),
            // RFC 8832 section 6: the DTLS server opens odd ones.
            next: 1,
            readable: VecDeque::new(),
            waiting: VecDeque::new(),
            budget: RATE,
            refilled: Mono::ZERO,
        }
    }

    fn instant(&self, now: Mono) -> Instant {
        self.zero + now.since(Mono::ZERO)
    }

    /// Takes a packet out of DTLS.
    pub fn handle(&mut self, now: Mono, packet: &[u8], counters: &mut Counters) {
        let at = self.instant(now);
        let packet = Bytes::copy_from_slice(packet);
        match self.endpoint.handle(at, PEER, None, None, packet) {
            None => counters.inc(Id::DataDropMalformed),
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                // A client that starts anew has forgotten the old one.
                self.forget_association();
                self.association = Some((handle, Box::new(association)));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => match &mut self.association {
                Some((ours, association)) if *ours == handle => association.handle_event(event),
                _ => counters.inc(Id::DataDropMalformed),
            },
        }
        self.settle(counters);
    }

    fn forget_association(&mut self) {
        if let Some((handle, _)) = self.association.take() {
            let drained = sctp_proto::EndpointEvent::drained();
            let _none = self.endpoint.handle_event(handle, drained);
        }
        self.established = false;
        self.theirs.clear();
        self.ours.clear();
        self.readable.clear();
        self.next = 1;
    }

    /// Reads the association's events.
    fn settle(&mut self, counters: &mut Counters) {
        let Some((handle, association)) = &mut self.association else { return };
        let mut lost = false;
        while let Some(event) = association.poll() {
            match event {
                Event::Stream(StreamEvent::Readable { id } | StreamEvent::Opened { id })
                    if !self.readable.contains(&id) =>
                {
                    self.readable.push_back(id);
                }
                Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) => {
                    self.theirs.remove(&id);
                    self.ours.retain(|_, (ours, _)| *ours != id);
                }
                Event::Connected => self.established = true,
                Event::HandshakeFailed { .. } => lost = true,
                Event::AssociationLost { id, .. } => {
                    self.theirs.remove(&id);
                    self.ours.retain(|_, (ours, _)| *ours != id);
                }
                _ => {}
            }
        }
        while association.accept_stream().is_some() {}
        while let Some(event) = association.poll_endpoint_event() {
            lost |= event.is_drained();
            let _none = self.endpoint.handle_event(*handle, event);
        }
        if lost || (self.established && association.is_closed()) {
            counters.inc(Id::DataAssociationsEnded);
            self.forget_association();
        }
    }

    /// The next message of the client, within its rate.
    pub fn poll_message(&mut self, now: Mono, counters: &mut Counters) -> Option<Message> {
        self.refill(now);
        loop {
            let id = *self.readable.front()?;
            let (_, association) = self.association.as_mut()?;
            if self.budget == 0 {
                return None;
            }
            let chunks = association.stream(id).ok().and_then(|mut s| s.read_sctp().ok().flatten());
            let Some(chunks) = chunks else {
                self.readable.pop_front();
                continue;
            };
            // A message costs its bytes and what handling any message costs.
            self.budget = self.budget.saturating_sub(chunks.len() + 256);
            let mut bytes = vec![0; chunks.len()];
            if chunks.len() > MAX_MESSAGE || chunks.read(&mut bytes).is_err() {
                counters.inc(Id::DataDropMalformed);
                continue;
            }
            let text = match chunks.ppi {
                Ppid::Dcep => {
                    self.on_dcep(id, &bytes, counters);
                    continue;
                }
                Ppid::String => true,
                Ppid::Binary => false,
                // RFC 8831 section 6.6: one byte stands for none.
                Ppid::StringEmpty => {
                    bytes.clear();
                    true
                }
                Ppid::BinaryEmpty => {
                    bytes.clear();
                    false
                }
                Ppid::Unknown => {
                    counters.inc(Id::DataDropMalformed);
                    continue;
                }
            };
            // What comes back on a channel of ours has no receiver: it is one sender's alone.
            let Some(channel) = self.theirs.get(&id) else {
                counters.inc(Id::DataDropNoChannel);
                continue;
            };
            counters.inc(Id::DataMessagesIn);
            return Some(Message {
                label: Arc::clone(&channel.label),
                reliability: channel.reliability,
                text,
                bytes: bytes.into(),
            });
        }
    }

    fn refill(&mut self, now: Mono) {
        let micros = now.since(self.refilled).as_micros().min(1_000_000) as usize;
        let more = micros * RATE / 1_000_000;
        if more > 0 {
            self.budget = (self.budget + more).min(RATE);
            self.refilled = now;
        }
    }

    fn on_dcep(&mut self, id: u16, bytes: &[u8], counters: &mut Counters) {
        match dcep::Message::parse(bytes) {
            Ok(dcep::Message::Ack) => self.on_ack(id),
            // RFC 8832 section 6: the DTLS client opens even streams.
            Ok(dcep::Message::Open(open))
                if id.is_multiple_of(2) && self.theirs.len() < MAX_CHANNELS =>
            {
                let reliability = open.reliability;
                let label = Arc::from(open.label);
                self.theirs.insert(id, Channel { label, reliability });
                self.write(id, dcep::ACK, Ppid::Dcep);
                counters.inc(Id::DataChannelsOpened);
            }
            Ok(dcep::Message::Open(_)) => counters.inc(Id::DataDropNoChannel),
            Err(dcep::Malformed) => counters.inc(Id::DataDropMalformed),
        }
    }

    /// RFC 8832 section 6: until then everything goes in order behind the OPEN.
    fn on_ack(&mut self, id: u16) {
        let Some((_, reliability)) = self.ours.values().find(|(ours, _)| *ours == id) else {
            return;
        };
        let (kind, value) = match reliability.limit {
            dcep::Limit::None => (ReliabilityType::Reliable, 0),
            dcep::Limit::Retransmits(n) => (ReliabilityType::Rexmit, n),
            dcep::Limit::Lifetime(ms) => (ReliabilityType::Timed, ms),
        };
        if let Some((_, association)) = &mut self.association
            && let Ok(mut stream) = association.stream(id)
        {
            let _closed = stream.set_reliability_params(!reliability.ordered, kind, value);
        }
    }

    fn write(&mut self, id: u16, bytes: &[u8], ppid: Ppid) -> bool {
        let Some((_, association)) = &mut self.association else { return false };
        let Ok(mut stream) = association.stream(id) else { return false };
        stream.write_with_ppi(bytes, ppid).is_ok()
    }

    /// Sends a message on the channel of this label, which is opened where there is none. False,
    /// and counted: the client is too slow, has no association, or has channels enough.
    pub fn send(&mut self, message: &Message, counters: &mut Counters) -> bool {
        let sent = self.try_send(message);
        counters.inc(if sent { Id::DataMessagesOut } else { Id::DataDropSlow });
        sent
    }

    fn try_send(&mut self, message: &Message) -> bool {
        let Some(id) = self.channel_to(&message.label, message.reliability) else { return false };
        let Some((_, association)) = &mut self.association else { return false };
        let waits = |(id, _): &(u16, Reliability)| {
            association.stream(*id).ok().and_then(|s| s.buffered_amount().ok()).unwrap_or_default()
        };
        let waiting: usize = self.ours.values().map(waits).sum();
        if waiting + message.bytes.len() > MAX_WAITING {
            return false;
        }
        let (bytes, ppid): (&[u8], _) = match (message.text, message.bytes.is_empty()) {
            (true, false) => (&message.bytes, Ppid::String),
            (false, false) => (&message.bytes, Ppid::Binary),
            (true, true) => (&[0], Ppid::StringEmpty),
            (false, true) => (&[0], Ppid::BinaryEmpty),
        };
        self.write(id, bytes, ppid)
    }

    fn channel_to(&mut self, label: &Arc<str>, reliability: Reliability) -> Option<u16> {
        if let Some((id, _)) = self.ours.get(label) {
            return Some(*id);
        }
        let (_, association) = self.association.as_mut()?;
        if association.is_handshaking() || self.ours.len() >= MAX_CHANNELS || self.next > 1_023 {
            return None;
        }
        let id = self.next;
        let mut stream = association.open_stream(id, Ppid::Binary).ok()?;
        let mut open = Vec::with_capacity(dcep::OPEN_HEADER + label.len());
        dcep::write_open(reliability, label, &mut open);
        stream.write_with_ppi(&open, Ppid::Dcep).ok()?;
        self.next += 2;
        self.ours.insert(Arc::clone(label), (id, reliability));
        Some(id)
    }

    /// Closes the channels we opened whose label starts with this: their sender has gone.
    pub fn close_of(&mut self, prefix: &str) {
        let Some((_, association)) = &mut self.association else { return };
        self.ours.retain(|label, (id, _)| {
            let gone = label.starts_with(prefix);
            if gone && let Ok(mut stream) = association.stream(*id) {
                let _unknown = stream.close();
            }
            !gone
        });
    }

    /// The next packet for DTLS.
    pub fn poll_transmit(&mut self, now: Mono) -> Option<Bytes> {
        if let Some(packet) = self.waiting.pop_front() {
            return Some(packet);
        }
        let at = self.instant(now);
        while let Some(transmit) = self.endpoint.poll_transmit() {
            if let Payload::RawEncode(packets) = transmit.payload {
                self.waiting.extend(packets);
            }
        }
        if let Some((_, association)) = &mut self.association
            && let Some(transmit) = association.poll_transmit(at)
            && let Payload::RawEncode(packets) = transmit.payload
        {
            self.waiting.extend(packets);
        }
        self.waiting.pop_front()
    }

    /// When [`Self::handle_timeout`], or [`Self::poll_message`], has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        let (_, association) = self.association.as_ref()?;
        let due = association.poll_timeout();
        let due = due.map(|at| Mono::ZERO.plus(at.saturating_duration_since(self.zero)));
        let slowed = !self.readable.is_empty() && self.budget == 0;
        let more = slowed.then(|| self.refilled.plus(Duration::from_millis(20)));
        [due, more].into_iter().flatten().min()
    }

    /// Retransmits what is due.
    pub fn handle_timeout(&mut self, now: Mono, counters: &mut Counters) {
        let at = self.instant(now);
        let Some((_, association)) = &mut self.association else { return };
        if association.poll_timeout().is_some_and(|due| due <= at) {
            association.handle_timeout(at);
            self.settle(counters);
        }
    }
}

#[cfg(test)]
mod tests;
