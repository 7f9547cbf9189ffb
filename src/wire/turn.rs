//! TURN attributes with a structure of their own (RFC 8656 section 18) and the Data indication.

use std::net::SocketAddr;

use super::channel_data::FIRST_CHANNEL;
use super::stun::{Builder, Class, Message, Method, TransactionId, attr};

/// The protocol number of UDP, the only REQUESTED-TRANSPORT of RFC 8656.
pub const PROTOCOL_UDP: u8 = 17;

/// An attribute that is there but has not the size or the value its definition gives it: 400.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed attribute")]
pub struct Malformed;

/// An address family as TURN numbers it (section 18.6).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    /// 0x01.
    V4,
    /// 0x02.
    V6,
    /// A number the RFC does not define.
    Other(u8),
}

impl Family {
    /// Of an address.
    #[must_use]
    pub const fn of(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(_) => Self::V4,
            SocketAddr::V6(_) => Self::V6,
        }
    }
}

/// `Ok(None)` without the attribute, `Malformed` when it is not `N` bytes long.
fn fixed<const N: usize>(message: &Message<'_>, kind: u16) -> Result<Option<[u8; N]>, Malformed> {
    message.first(kind).map(|value| value.try_into().map_err(|_| Malformed)).transpose()
}

/// LIFETIME, seconds.
///
/// # Errors
/// [`Malformed`] when it is not four bytes long.
pub fn lifetime(message: &Message<'_>) -> Result<Option<u32>, Malformed> {
    Ok(fixed(message, attr::LIFETIME)?.map(u32::from_be_bytes))
}

/// The protocol of REQUESTED-TRANSPORT.
///
/// # Errors
/// [`Malformed`] when it is not four bytes long.
pub fn requested_transport(message: &Message<'_>) -> Result<Option<u8>, Malformed> {
    Ok(fixed::<4>(message, attr::REQUESTED_TRANSPORT)?.map(|[protocol, ..]| protocol))
}

/// REQUESTED-ADDRESS-FAMILY or ADDITIONAL-ADDRESS-FAMILY.
///
/// # Errors
/// [`Malformed`] when it is not four bytes long.
pub fn family(message: &Message<'_>, kind: u16) -> Result<Option<Family>, Malformed> {
    Ok(fixed::<4>(message, kind)?.map(|[family, ..]| match family {
        1 => Family::V4,
        2 => Family::V6,
        other => Family::Other(other),
    }))
}

/// EVEN-PORT: whether the next higher port is to be reserved (its R bit).
///
/// # Errors
/// [`Malformed`] when it is not one byte long.
pub fn even_port(message: &Message<'_>) -> Result<Option<bool>, Malformed> {
    Ok(fixed::<1>(message, attr::EVEN_PORT)?.map(|[bits]| bits & 0x80 != 0))
}

/// CHANNEL-NUMBER, within the range that may be bound: 0x4000 to 0x4FFF, or to `last`.
///
/// # Errors
/// [`Malformed`] when it is not four bytes long or outside the range.
pub fn channel_number(message: &Message<'_>, last: u16) -> Result<Option<u16>, Malformed> {
    let Some([high, low, ..]) = fixed::<4>(message, attr::CHANNEL_NUMBER)? else {
        return Ok(None);
    };
    let number = u16::from_be_bytes([high, low]);
    if (FIRST_CHANNEL..=last).contains(&number) { Ok(Some(number)) } else { Err(Malformed) }
}

/// Bytes of a Data indication before its payload.
#[must_use]
pub const fn data_indication_header(peer: SocketAddr) -> usize {
    // Header, XOR-PEER-ADDRESS, then the type and length of DATA.
    match peer {
        SocketAddr::V4(_) => 20 + 12 + 4,
        SocketAddr::V6(_) => 20 + 24 + 4,
    }
}

/// Writes what precedes `payload` bytes of data (plus padding to four) in a Data indication:
/// `header` must be [`data_indication_header`] bytes. `None` when something does not fit.
pub fn write_data_indication(
    header: &mut [u8],
    id: TransactionId,
    peer: SocketAddr,
    payload: usize,
) -> Option<()> {
    let (head, data) = header.split_at_mut_checked(header.len().checked_sub(4)?)?;
    let mut builder = Builder::new(head, Class::Indication, Method::DATA, id);
    builder.xor_address(attr::XOR_PEER_ADDRESS, peer);
    let len = builder.finish()?;
    if len != head.len() {
        return None;
    }
    let total = u16::try_from(len - 20 + 4 + payload.next_multiple_of(4)).ok()?;
    head.get_mut(2..4)?.copy_from_slice(&total.to_be_bytes());
    let payload = u16::try_from(payload).ok()?;
    let [k0, k1] = attr::DATA.to_be_bytes();
    let [l0, l1] = payload.to_be_bytes();
    data.copy_from_slice(&[k0, k1, l0, l1]);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::channel_data::{LAST_CHANNEL, LAST_CHANNEL_5766};

    fn message(kind: u16, value: &[u8], check: impl FnOnce(&Message<'_>)) {
        let mut buf = [0; 128];
        let id = TransactionId([3; 12]);
        let mut builder = Builder::new(&mut buf, Class::Request, Method::ALLOCATE, id);
        builder.attribute(kind, value);
        let len = builder.finish().unwrap();
        check(&Message::parse(&buf[..len]).unwrap());
    }

    #[test]
    fn channel_numbers_outside_the_range_are_malformed() {
        for (number, expected) in [
            (0x3fff_u16, Err(Malformed)),
            (0x4000, Ok(Some(0x4000))),
            (0x4fff, Ok(Some(0x4fff))),
            (0x5000, Err(Malformed)),
            (0x7fff, Err(Malformed)),
            (0xffff, Err(Malformed)),
        ] {
            let [a, b] = number.to_be_bytes();
            message(attr::CHANNEL_NUMBER, &[a, b, 0, 0], |m| {
                assert_eq!(channel_number(m, LAST_CHANNEL), expected, "{number:x}");
            });
        }
        message(attr::CHANNEL_NUMBER, &[0x40, 0], |m| {
            assert_eq!(channel_number(m, LAST_CHANNEL), Err(Malformed));
        });
        message(attr::CHANNEL_NUMBER, &[0x7f, 0xff, 0, 0], |m| {
            assert_eq!(channel_number(m, LAST_CHANNEL_5766), Ok(Some(0x7fff)));
        });
        message(attr::LIFETIME, &[0; 4], |m| {
            assert_eq!(channel_number(m, LAST_CHANNEL), Ok(None));
        });
    }

    #[test]
    fn attributes_of_the_wrong_size_are_malformed() {
        message(attr::LIFETIME, &[0, 0, 2], |m| assert_eq!(lifetime(m), Err(Malformed)));
        message(attr::LIFETIME, &[0, 0, 2, 88], |m| assert_eq!(lifetime(m), Ok(Some(600))));
        message(attr::REQUESTED_TRANSPORT, &[17, 0, 0, 0], |m| {
            assert_eq!(requested_transport(m), Ok(Some(PROTOCOL_UDP)));
        });
        message(attr::REQUESTED_TRANSPORT, &[17], |m| {
            assert_eq!(requested_transport(m), Err(Malformed));
        });
        message(attr::EVEN_PORT, &[0x80], |m| assert_eq!(even_port(m), Ok(Some(true))));
        message(attr::EVEN_PORT, &[0x7f], |m| assert_eq!(even_port(m), Ok(Some(false))));
        message(attr::EVEN_PORT, &[0; 4], |m| assert_eq!(even_port(m), Err(Malformed)));
        message(attr::REQUESTED_ADDRESS_FAMILY, &[2, 0, 0, 0], |m| {
            assert_eq!(family(m, attr::REQUESTED_ADDRESS_FAMILY), Ok(Some(Family::V6)));
        });
    }

    #[test]
    fn a_written_data_indication_parses_back() {
        for peer in ["192.0.2.1:20000", "[2001:db8::1]:20000"] {
            let peer: SocketAddr = peer.parse().unwrap();
            let head = data_indication_header(peer);
            let mut bytes = vec![0; head + 8];
            bytes[head..head + 5].copy_from_slice(b"hello");
            write_data_indication(&mut bytes[..head], TransactionId([9; 12]), peer, 5).unwrap();
            let message = Message::parse(&bytes).unwrap();
            assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
            assert_eq!(message.xor_address(attr::XOR_PEER_ADDRESS), Some(peer));
            assert_eq!(message.first(attr::DATA), Some(&b"hello"[..]));
            assert_eq!(message.range_of(attr::DATA), Some(head..head + 5));
        }
    }
}
