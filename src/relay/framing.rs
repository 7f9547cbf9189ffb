//! How a payload travels from a peer to a client: ChannelData or a Data indication, written into
//! the headroom before it.

use std::net::SocketAddr;
use std::ops::Range;

use crate::ids::{AllocationHandle, FiveTuple};
use crate::wire::channel_data;
use crate::wire::stun::TransactionId;
use crate::wire::turn::{data_indication_header, write_data_indication};

/// Bytes any framing may need before the payload (a Data indication from an IPv6 peer).
pub const HEADROOM: usize = 48;
/// Bytes of padding any framing may need after the payload.
pub const TAILROOM: usize = 3;

/// Where and how to send to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Whose rates the payload counts against.
    pub allocation: AllocationHandle,
    /// The client's 5-tuple.
    pub tuple: FiveTuple,
    /// The wrapping.
    pub framing: Framing,
}

/// The wrapping of one payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Framing {
    /// ChannelData with this number. Unpadded: over UDP padding is optional (RFC 8656 12.5).
    Channel(u16),
    /// ChannelData on a stream, padded to four bytes as RFC 8656 section 12.5 demands there.
    StreamChannel(u16),
    /// A Data indication: the client has bound no channel to the peer.
    Indication {
        /// For XOR-PEER-ADDRESS.
        peer: SocketAddr,
    },
}

impl Framing {
    /// Writes the header directly before `payload` in `slot`, and zero padding after it where the
    /// framing needs it. Returns where the datagram lies, or `None` when the slot lacks
    /// [`HEADROOM`] or [`TAILROOM`] or the payload is longer than a datagram can be.
    ///
    /// `tid` is the transaction id of an indication; it should be random (RFC 8489 section 5).
    pub fn encapsulate(
        &self,
        slot: &mut [u8],
        payload: Range<usize>,
        tid: [u8; 12],
    ) -> Option<Range<usize>> {
        let len = slot.get(payload.clone())?.len();
        match *self {
            Self::Channel(channel) | Self::StreamChannel(channel) => {
                let start = payload.start.checked_sub(channel_data::HEADER)?;
                let padding = match self {
                    Self::StreamChannel(_) => len.next_multiple_of(4) - len,
                    _ => 0,
                };
                let end = payload.end + padding;
                slot.get_mut(payload.end..end)?.fill(0);
                let header = slot.get_mut(start..)?.first_chunk_mut()?;
                channel_data::write_header(header, channel, u16::try_from(len).ok()?);
                Some(start..end)
            }
            Self::Indication { peer } => {
                let start = payload.start.checked_sub(data_indication_header(peer))?;
                let end = payload.end + (len.next_multiple_of(4) - len);
                slot.get_mut(payload.end..end)?.fill(0);
                let header = slot.get_mut(start..payload.start)?;
                write_data_indication(header, TransactionId(tid), peer, len)?;
                Some(start..end)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::stun::{Class, Message, Method, attr};

    #[test]
    fn channel_data_is_four_bytes_in_front_and_nothing_behind() {
        let mut slot = [0xff; 64];
        let datagram = Framing::Channel(0x4001).encapsulate(&mut slot, 48..53, [0; 12]).unwrap();
        assert_eq!(datagram, 44..53);
        assert_eq!(slot[44..48], [0x40, 0x01, 0, 5]);
        assert_eq!(slot[53], 0xff);
    }

    #[test]
    fn channel_data_on_a_stream_is_padded_to_four() {
        for len in 0..9 {
            let mut slot = [0xff; 64];
            let payload = 48..48 + len;
            let framing = Framing::StreamChannel(0x4001);
            let datagram = framing.encapsulate(&mut slot, payload.clone(), [0; 12]).unwrap();
            assert_eq!(datagram, 44..48 + len.next_multiple_of(4));
            assert_eq!(slot[44..48], [0x40, 0x01, 0, len as u8], "the length is the payload's");
            assert!(slot[payload.end..datagram.end].iter().all(|byte| *byte == 0));
        }
        let mut full = [0; 53];
        assert_eq!(Framing::StreamChannel(0x4001).encapsulate(&mut full, 48..53, [0; 12]), None);
    }

    #[test]
    fn data_indication_is_padded_with_zeros() {
        for peer in ["192.0.2.10:20000", "[2001:db8::1]:20000"] {
            let peer: SocketAddr = peer.parse().unwrap();
            let framing = Framing::Indication { peer };
            for len in 0..8 {
                let mut slot = [0xff; 64];
                let payload = HEADROOM..HEADROOM + len;
                let datagram = framing.encapsulate(&mut slot, payload, [5; 12]).unwrap();
                let message = Message::parse(&slot[datagram.clone()]).unwrap();
                assert_eq!((message.class(), message.method()), (Class::Indication, Method::DATA));
                assert_eq!(message.first(attr::DATA), Some(&vec![0xff; len][..]));
                assert_eq!(message.xor_address(attr::XOR_PEER_ADDRESS), Some(peer));
                assert!(slot[HEADROOM + len..datagram.end].iter().all(|b| *b == 0));
                assert!(datagram.end - HEADROOM - len <= TAILROOM);
            }
        }
    }

    #[test]
    fn slot_without_room_yields_nothing() {
        let peer = "192.0.2.10:20000".parse().unwrap();
        let mut slot = [0; 64];
        assert_eq!(Framing::Channel(0x4000).encapsulate(&mut slot, 3..10, [0; 12]), None);
        assert_eq!(Framing::Channel(0x4000).encapsulate(&mut slot, 10..65, [0; 12]), None);
        let indication = Framing::Indication { peer };
        assert_eq!(indication.encapsulate(&mut slot, 35..36, [0; 12]), None);
        assert_eq!(indication.encapsulate(&mut slot, 48..61, [0; 12]), Some(12..64));
        assert_eq!(indication.encapsulate(&mut slot, 48..62, [0; 12]), Some(12..64));
        assert_eq!(indication.encapsulate(&mut slot[..63], 48..62, [0; 12]), None);
        let mut large = vec![0; 70_000];
        assert_eq!(Framing::Channel(0x4000).encapsulate(&mut large, 48..66_000, [0; 12]), None);
        assert_eq!(indication.encapsulate(&mut large, 48..65_580, [0; 12]), None);
    }
}
