//! Against the client side of the same SCTP library, in virtual time; browsers are in `tests/`.

use proptest::prelude::*;
use sctp_proto::ClientConfig;

use super::*;

pub(super) struct Client {
    endpoint: Endpoint,
    handle: AssociationHandle,
    pub(super) association: Association,
}

impl Client {
    pub(super) fn new() -> Self {
        let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::new()), None);
        let (handle, association) =
            endpoint.connect(ClientConfig::new(), PEER).expect("a first association");
        Self { endpoint, handle, association }
    }

    pub(super) fn say(&mut self, stream: u16, bytes: &[u8], ppid: Ppid) {
        let known = self.association.stream(stream).is_ok();
        let mut stream = if known {
            self.association.stream(stream).expect("known")
        } else {
            self.association.open_stream(stream, ppid).expect("free")
        };
        stream.write_with_ppi(bytes, ppid).expect("taken");
    }

    pub(super) fn open(&mut self, stream: u16, label: &str) {
        let mut open = Vec::new();
        dcep::write_open(Reliability::default(), label, &mut open);
        self.say(stream, &open, Ppid::Dcep);
    }

    fn hear(&mut self, stream: u16) -> Vec<(Ppid, Vec<u8>)> {
        let mut heard = Vec::new();
        while let Ok(mut found) = self.association.stream(stream)
            && let Ok(Some(chunks)) = found.read_sctp()
        {
            let mut bytes = vec![0; chunks.len()];
            chunks.read(&mut bytes).expect("room");
            heard.push((chunks.ppi, bytes));
        }
        heard
    }
}

pub(super) struct Pair {
    pub(super) client: Client,
    pub(super) data: Data,
    pub(super) counters: Counters,
    pub(super) now: Mono,
    /// The verification tag of the client's packets.
    pub(super) tag: u32,
}

const BOB: SessionId = SessionId(1);
const EVE: SessionId = SessionId(2);

impl Pair {
    pub(super) fn connected() -> Self {
        #[expect(clippy::disallowed_methods, reason = "any instant will do")]
        let zero = Instant::now();
        let mut pair = Self {
            client: Client::new(),
            data: Data::new(zero),
            counters: Counters::default(),
            now: Mono::from_nanos(1_000_000_000),
            tag: 0,
        };
        pair.exchange();
        assert!(!pair.client.association.is_handshaking());
        pair
    }

    /// Carries packets both ways until nobody has one, a millisecond a round.
    pub(super) fn exchange(&mut self) {
        for _ in 0..2_000 {
            let at = self.data.instant(self.now);
            self.client.association.handle_timeout(at);
            self.data.handle_timeout(self.now, &mut self.counters);
            let mut carried = false;
            while let Some(transmit) = self.client.association.poll_transmit(at) {
                let Payload::RawEncode(packets) = transmit.payload else { continue };
                for packet in packets {
                    self.tag = u32::from_be_bytes(packet[4..8].try_into().expect("four"));
                    self.data.handle(self.now, &packet, &mut self.counters);
                    carried = true;
                }
            }
            while let Some(packet) = self.data.poll_transmit(self.now) {
                carried = true;
                let event = self.client.endpoint.handle(at, PEER, None, None, packet);
                if let Some((handle, DatagramEvent::AssociationEvent(event))) = event {
                    assert_eq!(handle, self.client.handle);
                    self.client.association.handle_event(event);
                }
            }
            while self.client.association.poll().is_some() {}
            self.now = self.now.plus(Duration::from_millis(1));
            // A delayed acknowledgement waits 200 ms.
            if !carried && self.client.association.poll_timeout().is_none() {
                return;
            }
        }
    }

    fn heard(&mut self) -> Vec<Heard> {
        let mut all = Vec::new();
        while let Some(heard) = self.data.poll_heard(self.now, &mut self.counters) {
            all.push(heard);
        }
        all
    }

    pub(super) fn messages(&mut self) -> Vec<Message> {
        let message = |heard| match heard {
            Heard::Message(message) => Some(message),
            Heard::Closed(_) => None,
        };
        self.heard().into_iter().filter_map(message).collect()
    }

    /// A packet of the client's, with these chunks.
    fn packet(&self, chunks: &[u8]) -> Vec<u8> {
        let mut packet = [&[0x13, 0x88, 0x13, 0x88], &self.tag.to_be_bytes()[..], &[0; 4]].concat();
        packet.extend_from_slice(chunks);
        packet.resize(packet.len().next_multiple_of(4), 0);
        let checksum = crc32c(&packet).to_le_bytes();
        packet[8..12].copy_from_slice(&checksum);
        packet
    }

    pub(super) fn inject(&mut self, chunks: &[u8]) {
        let packet = self.packet(chunks);
        self.data.handle(self.now, &packet, &mut self.counters);
    }

    /// What comes back is thrown away.
    pub(super) fn drain(&mut self) {
        while self.data.poll_transmit(self.now).is_some() {}
    }

    pub(super) fn send(&mut self, from: SessionId, label: &str, bytes: usize) -> bool {
        let message = Message {
            label: label.into(),
            reliability: Reliability::default(),
            text: false,
            bytes: vec![7; bytes].into(),
        };
        self.data.send(self.now, from, &message, &mut self.counters)
    }
}

/// RFC 9260 appendix A.
fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

/// A DATA chunk: one whole message of one byte, in order.
pub(super) fn data_chunk(tsn: u32, stream: u16, ssn: u16) -> Vec<u8> {
    let mut chunk = vec![0, 3, 0, 17];
    chunk.extend(tsn.to_be_bytes());
    chunk.extend(stream.to_be_bytes());
    chunk.extend(ssn.to_be_bytes());
    chunk.extend([0, 0, 0, 53, b'x', 0, 0, 0]);
    chunk
}

#[test]
fn a_message_arrives_with_its_channels_label() {
    let mut pair = Pair::connected();
    pair.client.open(0, "chat");
    pair.client.say(0, b"hello", Ppid::String);
    pair.client.say(0, &[0], Ppid::BinaryEmpty);
    pair.exchange();
    let all = pair.messages();
    let read: Vec<_> = all.iter().map(|m| (&*m.label, m.text, &m.bytes[..])).collect();
    assert_eq!(read, [("chat", true, &b"hello"[..]), ("chat", false, &b""[..])]);
    pair.exchange();
    assert_eq!(pair.client.hear(0), [(Ppid::Dcep, dcep::ACK.to_vec())]);
}

#[test]
fn what_we_send_opens_one_channel_for_each_label() {
    let mut pair = Pair::connected();
    let message = |label: &str, text: &str| Message {
        label: label.into(),
        reliability: Reliability { ordered: false, limit: dcep::Limit::Retransmits(2) },
        text: true,
        bytes: Bytes::copy_from_slice(text.as_bytes()),
    };
    for (label, text) in [("bob/chat", "one"), ("eve/chat", "two"), ("bob/chat", "three")] {
        let sent = pair.data.send(pair.now, BOB, &message(label, text), &mut pair.counters);
        assert!(sent, "{text}");
    }
    pair.exchange();
    let heard = pair.client.hear(1);
    let open = dcep::Message::parse(&heard[0].1).expect("an OPEN comes first");
    let dcep::Message::Open(open) = open else { panic!("{open:?}") };
    assert_eq!(open.label, "bob/chat");
    assert_eq!(open.reliability, message("", "").reliability);
    let said: Vec<_> = heard[1..].iter().map(|(_, bytes)| &bytes[..]).collect();
    assert_eq!(said, [&b"one"[..], &b"three"[..]]);
    assert_eq!(pair.client.hear(3).len(), 2);
}

#[test]
fn a_message_without_an_open_channel_is_dropped() {
    let mut pair = Pair::connected();
    pair.client.say(4, b"who?", Ppid::String);
    pair.client.open(5, "odd streams are ours");
    pair.exchange();
    assert_eq!(pair.messages(), []);
    assert_eq!(pair.counters.get(Id::DataDropNoChannel), 2);
}

#[test]
fn a_client_has_so_many_channels_and_no_more() {
    let mut pair = Pair::connected();
    for stream in 0..MAX_CHANNELS as u16 + 8 {
        pair.client.open(2 * stream, "one of many");
    }
    pair.exchange();
    // Within its rate it takes a while.
    for _ in 0..4 {
        assert_eq!(pair.messages(), []);
        pair.now = pair.now.plus(Duration::from_secs(1));
        pair.exchange();
    }
    assert_eq!(pair.data.theirs.len(), MAX_CHANNELS);
    assert_eq!(pair.counters.get(Id::DataDropNoChannel), 8);
}

#[test]
fn a_client_beyond_its_rate_is_slowed_down_and_loses_nothing() {
    let mut pair = Pair::connected();
    pair.client.open(0, "bulk");
    let total = 24;
    for n in 0..total {
        pair.client.say(0, &vec![n as u8; 60_000], Ppid::Binary);
    }
    let began = pair.now;
    let mut got = Vec::new();
    while got.len() < total {
        pair.exchange();
        got.extend(pair.messages());
        pair.now = pair.now.plus(Duration::from_millis(10));
        assert!(pair.now.since(began) < Duration::from_secs(60), "{} of {total}", got.len());
    }
    let order: Vec<_> = got.iter().map(|m| usize::from(m.bytes[0])).collect();
    assert_eq!(order, (0..total).collect::<Vec<_>>());
    let least = Duration::from_millis((1_000 * (total * 60_000 - 2 * RATE) / RATE) as u64);
    assert!(pair.now.since(began) >= least, "{:?}", pair.now.since(began));
}

#[test]
fn messages_for_a_client_that_takes_none_are_bounded() {
    let mut pair = Pair::connected();
    let taken = (0..100).filter(|_| pair.send(BOB, "bob/bulk", MAX_MESSAGE)).count();
    assert!((1..=MAX_WAITING / MAX_MESSAGE).contains(&taken), "{taken}");
    assert_eq!(pair.counters.get(Id::DataDropSlow), 100 - taken as u64);
}

#[test]
fn short_messages_that_wait_cost_more_than_their_bytes() {
    let mut pair = Pair::connected();
    let taken = (0..20_000).filter(|_| pair.send(BOB, "bob/bulk", 1)).count();
    assert!((100..=MAX_WAITING / 256).contains(&taken), "{taken}");
}

#[test]
fn one_fast_sender_leaves_a_slow_client_to_the_others() {
    let mut pair = Pair::connected();
    while pair.send(BOB, "bob/bulk", MAX_MESSAGE) {}
    for sender in 2..6 {
        assert!(pair.send(SessionId(sender), "quiet/chat", 1_000), "{sender}");
    }
}

#[test]
fn one_sender_cannot_take_all_channels_towards_a_client() {
    let mut pair = Pair::connected();
    let taken = (0..2_000).filter(|n| pair.send(BOB, &format!("bob/{n}"), 1)).count();
    assert_eq!(taken, sending::MAX_OF_ONE);
    assert!(pair.send(EVE, "eve/chat", 1));
}

#[test]
fn channels_of_one_who_left_are_closed() {
    let mut pair = Pair::connected();
    for (from, label) in [(BOB, "bob/a"), (BOB, "bob/b"), (EVE, "bob/a")] {
        assert!(pair.send(from, label, 1));
    }
    pair.exchange();
    pair.data.close_of(BOB, Some("bob/b"));
    assert_eq!(pair.data.ours.labels(), ["bob/a", "bob/a"]);
    pair.data.close_of(BOB, None);
    assert_eq!(pair.data.ours.labels(), ["bob/a"], "of another of the same name");
}

#[test]
fn streams_of_closed_channels_are_used_again() {
    let mut pair = Pair::connected();
    // More than there are streams.
    for n in 0..700 {
        let label = format!("bob/{n}");
        assert!(pair.send(BOB, &label, 1), "{n}");
        pair.exchange();
        pair.data.close_of(BOB, Some(&label));
        pair.exchange();
        let open = pair.client.association.stream_ids();
        for id in open {
            pair.client.association.stream(id).expect("known").close().expect("open");
        }
        pair.exchange();
    }
}

#[test]
fn a_client_that_acknowledges_nothing_and_closes_all_makes_us_hold_no_more() {
    let mut pair = Pair::connected();
    let mut taken = 0;
    for _ in 0..100 {
        while pair.send(BOB, "bob/bulk", MAX_MESSAGE) {
            taken += 1;
        }
        for id in (1..40).step_by(2) {
            pair.data.ours.ended(id);
        }
        pair.now = pair.now.plus(Duration::from_millis(100));
        pair.data.handle_timeout(pair.now, &mut pair.counters);
    }
    assert!(taken <= MAX_WAITING / MAX_MESSAGE, "{taken}");
}

#[test]
fn a_message_is_heard_though_its_channel_is_closed_right_after() {
    let mut pair = Pair::connected();
    pair.client.open(0, "files");
    pair.exchange();
    assert_eq!(pair.heard(), []);
    pair.client.say(0, b"the last", Ppid::String);
    pair.client.association.stream(0).expect("known").close().expect("open");
    let mut heard = Vec::new();
    for _ in 0..20 {
        pair.exchange();
        heard.extend(pair.heard());
        pair.now = pair.now.plus(Duration::from_millis(100));
    }
    let [Heard::Message(message), Heard::Closed(label)] = &heard[..] else { panic!("{heard:?}") };
    assert_eq!((&message.bytes[..], &**label), (&b"the last"[..], "files"));
}

#[test]
fn an_association_started_anew_takes_the_place_of_the_old() {
    let mut pair = Pair::connected();
    pair.client.open(0, "old");
    pair.exchange();
    assert_eq!(pair.messages(), []);
    pair.client = Client::new();
    pair.exchange();
    pair.client.open(0, "new");
    pair.client.say(0, b"again", Ppid::String);
    pair.exchange();
    let all = pair.messages();
    assert_eq!(all.iter().map(|m| &*m.label).collect::<Vec<_>>(), ["new"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// The checksum is right, so the library reads all of it.
    #[test]
    fn chunks_of_no_meaning_are_survived(
        packets in prop::collection::vec(
            prop::collection::vec(
                (0_u8..16, prop::collection::vec(any::<u8>(), 0..40), any::<bool>()),
                1..4,
            ),
            0..20,
        )
    ) {
        const KINDS: [u8; 16] =
            [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 14, 130, 192, 194];
        let mut pair = Pair::connected();
        pair.client.open(0, "chat");
        pair.send(BOB, "bob/chat", 10);
        pair.exchange();
        for packet in &packets {
            let mut chunks = Vec::new();
            for (kind, value, honest) in packet {
                let len = value.len() as u8 + if *honest { 4 } else { value.first().map_or(0, |b| b % 64) };
                chunks.extend([KINDS[usize::from(*kind)], 3, 0, len]);
                chunks.extend(value);
                chunks.resize(chunks.len().next_multiple_of(4), 0);
            }
            pair.inject(&chunks);
            let _heard = pair.heard();
            pair.drain();
            pair.now = pair.now.plus(Duration::from_millis(300));
            pair.data.handle_timeout(pair.now, &mut pair.counters);
        }
    }

    #[test]
    fn bytes_of_no_meaning_are_dropped(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..20)
    ) {
        let mut pair = Pair::connected();
        for packet in &packets {
            pair.data.handle(pair.now, packet, &mut pair.counters);
            let _none = pair.data.poll_heard(pair.now, &mut pair.counters);
        }
    }
}
