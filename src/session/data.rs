//! Data channels of one session: SCTP over its DTLS (RFC 8831), opened by DCEP (RFC 8832).
//!
//! SCTP is `sctp-proto`'s, which draws its own initial numbers as BoringSSL does and wants
//! `Instant`s: they are made from the caller's [`Mono`] and the instant of its zero. Ours is what
//! a client may make us hold: channels, messages, bytes a second, bytes that wait.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod gate;
mod sending;

use bytes::Bytes;
use sctp_proto::{
    Association, AssociationHandle, DatagramEvent, Endpoint, EndpointConfig, Event, Payload,
    PayloadProtocolIdentifier as Ppid, ReliabilityType, ServerConfig, StreamEvent, TransportConfig,
};

use crate::ids::SessionId;
use crate::metrics::{Counters, Id};
use crate::time::Mono;
use crate::wire::dcep::{self, Reliability};
use gate::{Gate, Verdict};
use sending::Sending;

/// Longest message, bytes: the `a=max-message-size` of our answers.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Channels that a session may open.
pub const MAX_CHANNELS: usize = 256;
/// Bytes a client may send a second, and at once. Beyond it SCTP's window slows it down.
pub const RATE: usize = 512 * 1024;
/// Bytes waiting for a slow client, all channels together and with what keeping a message costs.
/// Beyond it messages are dropped.
const MAX_WAITING: usize = 1024 * 1024;
/// What a client may have under way to us, bytes.
const WINDOW: u32 = 256 * 1024;
/// Of a message, in one DATA chunk: with SCTP, DTLS and a TURN indication below 1,232 bytes, many
/// short ones together still below what a path carries.
const PAYLOAD: u32 = 1_096;
/// No packet is longer, DTLS not counted; a longer one (of thousands of gaps) cannot be sent.
const LONGEST_PACKET: usize = 1_400;

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

/// What is heard from a client.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// A message.
    Message(Message),
    /// It closed the channel of this label.
    Closed(Arc<str>),
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
    /// Labels of those it closed, to be told.
    closed: VecDeque<Arc<str>>,
    /// Channels we opened.
    ours: Sending,
    gate: Gate,
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
            .with_max_num_inbound_streams(gate::STREAMS)
            .with_max_num_outbound_streams(gate::STREAMS)
            .with_rto_initial_ms(1_000)
            .with_rto_min_ms(200)
            .with_rto_max_ms(5_000);
        let mut server = ServerConfig::new();
        server.transport = Arc::new(transport);
        let mut config = EndpointConfig::new();
        config.max_payload_size(PAYLOAD);
        let endpoint = Endpoint::new(Arc::new(config), Some(Arc::new(server)));
        Self {
            endpoint,
            association: None,
            established: false,
            zero,
            theirs: BTreeMap::new(),
            closed: VecDeque::new(),
            ours: Sending::default(),
            gate: Gate::new(WINDOW),
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
        let verdict = self.gate.judge(now, packet, !self.readable.is_empty());
        match verdict {
            Verdict::Pass => self.pass(now, Bytes::copy_from_slice(packet), None, counters),
            Verdict::Begin(tsn) => {
                self.pass(now, Bytes::copy_from_slice(packet), Some(tsn), counters);
            }
            Verdict::Later { last } => self.gate.keep(last, Bytes::copy_from_slice(packet)),
            Verdict::Flood => counters.inc(Id::DataDropFlood),
            Verdict::Malformed => counters.inc(Id::DataDropMalformed),
        }
    }

    fn pass(&mut self, now: Mono, packet: Bytes, begins: Option<u32>, counters: &mut Counters) {
        let at = self.instant(now);
        match self.endpoint.handle(at, PEER, None, None, packet) {
            None => counters.inc(Id::DataDropMalformed),
            Some((handle, DatagramEvent::NewAssociation(association))) => {
                // A client that starts anew has forgotten the old one.
                self.forget_association();
                self.gate.begun(begins.unwrap_or_default());
                self.association = Some((handle, Box::new(association)));
            }
            Some((handle, DatagramEvent::AssociationEvent(event))) => match &mut self.association {
                Some((ours, association))
                    if *ours == handle && begins.is_none_or(|tsn| self.gate.is_again(tsn)) =>
                {
                    association.handle_event(event);
                }
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
        self.closed.extend(std::mem::take(&mut self.theirs).into_values().map(|c| c.label));
        self.ours = Sending::default();
        self.readable.clear();
        // Its acknowledgements are not those of the next.
        self.waiting.clear();
        self.gate.forget();
    }

    /// Reads the association's events.
    fn settle(&mut self, counters: &mut Counters) {
        let Some((handle, association)) = &mut self.association else { return };
        let (mut lost, mut ended) = (false, Vec::new());
        while let Some(event) = association.poll() {
            match event {
                Event::Stream(StreamEvent::Readable { id } | StreamEvent::Opened { id })
                    if !self.readable.contains(&id) =>
                {
                    self.readable.push_back(id);
                }
                Event::Stream(StreamEvent::Finished { id } | StreamEvent::Stopped { id, .. }) => {
                    ended.push(id);
                }
                Event::DatagramReceived => self.gate.kept(),
                Event::Connected => self.established = true,
                Event::HandshakeFailed { .. } => lost = true,
                Event::AssociationLost { id, .. } => ended.push(id),
                _ => {}
            }
        }
        while association.accept_stream().is_some() {}
        while let Some(event) = association.poll_endpoint_event() {
            lost |= event.is_drained();
            let _none = self.endpoint.handle_event(*handle, event);
        }
        let closed = association.is_closed();
        for id in ended {
            self.end_theirs(id);
            self.ours.ended(id);
        }
        lost |= self.ours.is_hopeless();
        if lost || (self.established && closed) {
            counters.inc(Id::DataAssociationsEnded);
            self.forget_association();
        }
    }

    fn end_theirs(&mut self, id: u16) {
        let Some(Channel { label, .. }) = self.theirs.remove(&id) else { return };
        // Channels of one label are one to those who hear them.
        if !self.theirs.values().any(|channel| channel.label == label) {
            self.closed.push_back(label);
        }
    }

    /// What is heard next of the client, within its rate.
    pub fn poll_heard(&mut self, now: Mono, counters: &mut Counters) -> Option<Heard> {
        if let Some(label) = self.closed.pop_front() {
            return Some(Heard::Closed(label));
        }
        if let Some(message) = self.poll_message(now, counters) {
            return Some(Heard::Message(message));
        }
        if self.readable.is_empty() && self.gate.is_stuck() {
            counters.inc(Id::DataAssociationsEnded);
            self.forget_association();
        }
        if self.gate.is_due(!self.readable.is_empty())
            && let Some(packet) = self.gate.take()
        {
            self.pass(now, packet, None, counters);
        }
        self.closed.pop_front().map(Heard::Closed)
    }

    fn poll_message(&mut self, now: Mono, counters: &mut Counters) -> Option<Message> {
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
            self.gate.read(chunks.chunks.len());
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
                self.end_theirs(id);
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
        let Some(reliability) = self.ours.reliability(id) else { return };
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

    /// Sends a sender's message on its channel of this label, which is opened where there is none.
    /// False, and counted: the client is too slow, has no association, or has channels enough.
    pub fn send(
        &mut self,
        now: Mono,
        from: SessionId,
        message: &Message,
        counters: &mut Counters,
    ) -> bool {
        let sent = self.try_send(now, from, message).is_some();
        counters.inc(if sent { Id::DataMessagesOut } else { Id::DataDropSlow });
        sent
    }

    fn try_send(&mut self, now: Mono, from: SessionId, message: &Message) -> Option<()> {
        let (_, association) = self.association.as_mut()?;
        let id = self.ours.place(now, association, from, message)?;
        let (bytes, ppid): (&[u8], _) = match (message.text, message.bytes.is_empty()) {
            (true, false) => (&message.bytes, Ppid::String),
            (false, false) => (&message.bytes, Ppid::Binary),
            (true, true) => (&[0], Ppid::StringEmpty),
            (false, true) => (&[0], Ppid::BinaryEmpty),
        };
        if !self.write(id, bytes, ppid) {
            return None;
        }
        self.ours.sent(from, &message.label, bytes.len());
        Some(())
    }

    /// Closes the channels that carry a sender's words, or the one of a label.
    pub fn close_of(&mut self, from: SessionId, label: Option<&str>) {
        if let Some((_, association)) = &mut self.association {
            self.ours.close(association, from, label);
        }
    }

    /// The next packet for DTLS.
    pub fn poll_transmit(&mut self, now: Mono) -> Option<Bytes> {
        loop {
            if let Some(packet) = self.waiting.pop_front() {
                self.gate.sent(&packet);
                if packet.len() <= LONGEST_PACKET {
                    return Some(packet);
                }
                continue;
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
            if self.waiting.is_empty() {
                return None;
            }
        }
    }

    /// When [`Self::handle_timeout`], or [`Self::poll_heard`], has something to do.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        let association = self.association.as_ref();
        let due = association.and_then(|(_, association)| association.poll_timeout());
        let due = due.map(|at| Mono::ZERO.plus(at.saturating_duration_since(self.zero)));
        // Slowed down, or more than one turn takes.
        let pause = if self.budget == 0 { Duration::from_millis(20) } else { Duration::ZERO };
        let unheard = !self.readable.is_empty() || !self.closed.is_empty();
        let more = (unheard || self.gate.is_due(false)).then(|| self.refilled.plus(pause));
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
mod abuse_tests;
#[cfg(test)]
mod tests;
