//! The data channel establishment protocol (RFC 8832).

const OPEN: u8 = 0x03;
const ACKNOWLEDGE: u8 = 0x02;
/// The whole DATA_CHANNEL_ACK.
pub const ACK: &[u8] = &[ACKNOWLEDGE];
/// Length of a DATA_CHANNEL_OPEN before its label, bytes.
pub const OPEN_HEADER: usize = 12;
/// Longest label, bytes.
pub const MAX_LABEL: usize = 256;
/// Normal (RFC 8831 section 6.4).
const PRIORITY: u16 = 256;
/// The channel type's bit of unordered delivery.
const UNORDERED: u8 = 0x80;

/// Not DCEP, or a label that is not UTF-8 or too long.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed data channel message")]
pub struct Malformed;

/// When a message is given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Limit {
    /// Never.
    #[default]
    None,
    /// After so many retransmissions.
    Retransmits(u32),
    /// After so many milliseconds.
    Lifetime(u32),
}

/// How a channel delivers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reliability {
    /// In the order of sending.
    pub ordered: bool,
    /// Until when.
    pub limit: Limit,
}

impl Default for Reliability {
    fn default() -> Self {
        Self { ordered: true, limit: Limit::None }
    }
}

/// DATA_CHANNEL_OPEN (section 5.1); priority and protocol are not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Open<'a> {
    /// Channel type and reliability parameter.
    pub reliability: Reliability,
    /// Label.
    pub label: &'a str,
}

/// A message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Message<'a> {
    /// Opens a channel.
    Open(Open<'a>),
    /// It is open.
    Ack,
}

impl<'a> Message<'a> {
    /// Reads one.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Malformed> {
        match bytes {
            [ACKNOWLEDGE, ..] => Ok(Self::Ack),
            [OPEN, ..] => parse_open(bytes).ok_or(Malformed).map(Self::Open),
            _ => Err(Malformed),
        }
    }
}

fn parse_open(bytes: &[u8]) -> Option<Open<'_>> {
    let (header, rest) = bytes.split_first_chunk::<OPEN_HEADER>()?;
    let [_, kind, _, _, p0, p1, p2, p3, l0, l1, q0, q1] = *header;
    let parameter = u32::from_be_bytes([p0, p1, p2, p3]);
    let limit = match kind & !UNORDERED {
        0 => Limit::None,
        1 => Limit::Retransmits(parameter),
        2 => Limit::Lifetime(parameter),
        _ => return None,
    };
    let label = usize::from(u16::from_be_bytes([l0, l1]));
    let protocol = usize::from(u16::from_be_bytes([q0, q1]));
    if label > MAX_LABEL || rest.len() != label + protocol {
        return None;
    }
    let label = std::str::from_utf8(rest.get(..label)?).ok()?;
    Some(Open { reliability: Reliability { ordered: kind & UNORDERED == 0, limit }, label })
}

/// Appends a DATA_CHANNEL_OPEN without a protocol. A label beyond 65,535 bytes is cut.
pub fn write_open(reliability: Reliability, label: &str, out: &mut Vec<u8>) {
    let (kind, parameter) = match reliability.limit {
        Limit::None => (0, 0),
        Limit::Retransmits(n) => (1, n),
        Limit::Lifetime(ms) => (2, ms),
    };
    let kind = if reliability.ordered { kind } else { kind | UNORDERED };
    let label = label.as_bytes();
    let length = u16::try_from(label.len()).unwrap_or(u16::MAX);
    out.extend([OPEN, kind]);
    out.extend(PRIORITY.to_be_bytes());
    out.extend(parameter.to_be_bytes());
    out.extend(length.to_be_bytes());
    out.extend([0, 0]);
    out.extend(label.iter().take(usize::from(length)));
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for limit in [Limit::None, Limit::Retransmits(3), Limit::Lifetime(150)] {
            for ordered in [true, false] {
                let reliability = Reliability { ordered, limit };
                let mut out = Vec::new();
                write_open(reliability, "chat ü", &mut out);
                let open = Open { reliability, label: "chat ü" };
                assert_eq!(Message::parse(&out), Ok(Message::Open(open)));
            }
        }
        assert_eq!(Message::parse(ACK), Ok(Message::Ack));
    }

    #[test]
    fn lying_lengths_and_foreign_types_are_refused() {
        let mut open = Vec::new();
        write_open(Reliability::default(), "label", &mut open);
        for len in 0..open.len() {
            assert_eq!(Message::parse(&open[..len]), Err(Malformed), "{len}");
        }
        let long = [open.clone(), vec![0]].concat();
        assert_eq!(Message::parse(&long), Err(Malformed));
        open[1] = 3;
        assert_eq!(Message::parse(&open), Err(Malformed));
        open[1] = 0;
        open[12] = 0xFF;
        assert_eq!(Message::parse(&open), Err(Malformed));
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Some(first) = bytes.first_mut() {
                *first = OPEN;
            }
            let _read = Message::parse(&bytes);
        }
    }
}
