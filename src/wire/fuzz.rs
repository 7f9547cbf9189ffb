//! Entry points of the fuzzers for what strangers' bytes reach first: STUN, TURN, ChannelData and
//! the framing of streams. Each takes any bytes and panics when something that must hold does not;
//! what it tells is for the test that replays the corpora (`tests/fuzz_corpus.rs`).

use super::channel_data;
use super::channel_data::LAST_CHANNEL;
use super::mux::{Outer, outer};
use super::stream_frames::{Framer, MAX_FRAME};
use super::stun::{Builder, IntegrityKey, IntegrityKeySha256, MAGIC_COOKIE, Message, attr};
use super::turn;

const KEY: [u8; 16] = [7; 16];

/// What one input was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Parsed {
    /// A STUN message.
    pub stun: bool,
    /// With a right MESSAGE-INTEGRITY of the fuzzers' key, which the harness made.
    pub signed: bool,
    /// With an XOR address that could be read.
    pub address: bool,
    /// With a TURN attribute of the wrong size or value.
    pub malformed: bool,
    /// With a FINGERPRINT, right or wrong.
    pub fingerprint: Option<bool>,
    /// ChannelData.
    pub channel_data: bool,
}

/// One datagram.
#[must_use]
pub fn datagram(bytes: &[u8]) -> Parsed {
    let mut parsed = message(bytes);
    if let Ok(data) = channel_data::parse(bytes) {
        assert_eq!(bytes.first().map(|first| outer(*first)), Some(Outer::ChannelData));
        assert!(bytes.get(data.data).is_some(), "the data lies in the datagram");
        parsed.channel_data = true;
    }
    // The header put right, so that the fuzzer need not guess the cookie and the length.
    let mut fixed = bytes.to_vec();
    fixed.truncate(fixed.len() & !3);
    if let (Ok(length), Some(head)) =
        (u16::try_from(fixed.len().saturating_sub(20)), fixed.get_mut(..8))
        && bytes.len() >= 20
    {
        head[0] &= 0x3f;
        head[2..4].copy_from_slice(&length.to_be_bytes());
        head[4..8].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
        let again = message(&fixed);
        parsed.stun |= again.stun;
        parsed.address |= again.address;
        parsed.malformed |= again.malformed;
        parsed.signed |= again.signed;
        parsed.fingerprint = parsed.fingerprint.or(again.fingerprint);
    }
    parsed
}

fn message(bytes: &[u8]) -> Parsed {
    let Ok(message) = Message::parse(bytes) else { return Parsed::default() };
    let mut parsed = Parsed { stun: true, ..Parsed::default() };
    for (kind, value) in message.attributes() {
        let first = message.first(kind).expect("it was just seen");
        let range = message.range_of(kind).expect("it was just seen");
        assert_eq!(bytes.get(range), Some(first), "both name the same bytes");
        assert!(bytes.as_ptr_range().contains(&value.as_ptr()) || value.is_empty());
        parsed.address |= message.decode_xor_address(value).is_some();
    }
    let _ = (message.error_code(), message.text(attr::USERNAME), message.class());
    parsed.malformed = turn::lifetime(&message).is_err()
        || turn::requested_transport(&message).is_err()
        || turn::even_port(&message).is_err()
        || turn::channel_number(&message, LAST_CHANNEL).is_err()
        || turn::family(&message, attr::REQUESTED_ADDRESS_FAMILY).is_err();
    assert!(message.unknown_required(&[]).as_slice().len() <= 8);
    parsed.fingerprint = message.fingerprint();
    let key = IntegrityKey::from_bytes(&KEY);
    assert!(!message.verify_integrity(&key), "nobody guesses a MAC");
    parsed.signed = copied(&message);
    parsed
}

/// What was read, written anew, reads the same; and its signatures hold.
fn copied(message: &Message<'_>) -> bool {
    let mut buffer = vec![0; 70_000];
    let id = message.transaction_id();
    let (sha1, sha256) = (IntegrityKey::from_bytes(&KEY), IntegrityKeySha256::from_bytes(&KEY));
    let mut builder = Builder::new(&mut buffer, message.class(), message.method(), id);
    for (kind, value) in message.attributes() {
        builder.attribute(kind, value);
    }
    builder.integrity(&sha1);
    builder.integrity_sha256(&sha256);
    builder.fingerprint();
    // As long as a message can be, there is no room for signatures.
    let Some(len) = builder.finish() else { return false };
    let Some(written) = buffer.get(..len) else { return false };
    let Ok(again) = Message::parse(written) else {
        assert!(len > usize::from(u16::MAX), "what we write is well-formed");
        return false;
    };
    assert_eq!((again.class(), again.method()), (message.class(), message.method()));
    assert!(again.attributes().eq(message.attributes()));
    assert!(again.verify_integrity(&sha1) && again.verify_integrity_sha256(&sha256));
    assert_eq!(again.fingerprint(), Some(true));
    true
}

/// What one stream was.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cut {
    /// STUN messages.
    pub stun: usize,
    /// ChannelData messages.
    pub channel_data: usize,
    /// It ended by a lie.
    pub lied: bool,
    /// It ended within a frame.
    pub unfinished: bool,
}

/// One stream: first how many sizes of pieces there are (modulo 16), then those, then the stream.
#[must_use]
pub fn stream(bytes: &[u8]) -> Cut {
    let Some((count, rest)) = bytes.split_first() else { return Cut::default() };
    let count = usize::from(count % 16).min(rest.len());
    let (sizes, stream) = rest.split_at(count);
    let whole = cut(stream, &[]);
    let single = cut(stream, &[1]);
    let pieces = cut(stream, sizes);
    assert_eq!(whole, single, "any pieces make the same frames");
    assert_eq!(whole, pieces, "any pieces make the same frames");
    let (frames, lied, unfinished) = whole;
    let is = |frame: &&Vec<u8>, kind| frame.first().is_some_and(|first| outer(*first) == kind);
    Cut {
        stun: frames.iter().filter(|frame| is(frame, Outer::Stun)).count(),
        channel_data: frames.iter().filter(|frame| is(frame, Outer::ChannelData)).count(),
        lied,
        unfinished,
    }
}

/// All frames of a stream that comes in pieces of these sizes, whether it lied, and whether it ends
/// within a frame.
fn cut(stream: &[u8], sizes: &[u8]) -> (Vec<Vec<u8>>, bool, bool) {
    let mut framer = Framer::default();
    let mut frames = Vec::new();
    let mut stream = stream.to_vec();
    let mut rest = stream.as_mut_slice();
    let mut sizes = sizes.iter().map(|size| usize::from(*size).max(1)).cycle();
    while !rest.is_empty() {
        let size = sizes.next().unwrap_or(usize::MAX).min(rest.len());
        let (piece, behind) = std::mem::take(&mut rest).split_at_mut(size);
        rest = behind;
        let mut piece = piece;
        loop {
            match framer.next(&mut piece) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= MAX_FRAME, "bounded");
                    frames.push(frame.to_vec());
                }
                Ok(None) => break,
                Err(_) => {
                    assert!(framer.next(&mut piece).is_err(), "for good");
                    return (frames, true, false);
                }
            }
        }
        assert!(piece.is_empty(), "all is taken");
        assert!(framer.pending() < MAX_FRAME, "bounded");
    }
    (frames, false, framer.pending() > 0)
}
