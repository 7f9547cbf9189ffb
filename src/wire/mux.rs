//! What a datagram is, by its first byte: outside the relay (only TURN is accepted) and inside it
//! (RFC 7983, with RTCP told from RTP by RFC 5761).

/// What arrives on the TURN port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outer {
    /// A STUN or TURN message (0x00 to 0x03).
    Stun,
    /// A ChannelData message (0x40 to 0x4F, RFC 8656 section 12; to 0x7F with clients of RFC 5766:
    /// nothing else is served here that could begin so).
    ChannelData,
    /// Nothing this port serves.
    Other,
}

/// Classifies a datagram on the TURN port by its first byte.
#[must_use]
pub const fn outer(first: u8) -> Outer {
    match first {
        0x00..=0x03 => Outer::Stun,
        0x40..=0x7f => Outer::ChannelData,
        _ => Outer::Other,
    }
}

/// What a client sends to the media address, through the relay.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Inner {
    /// An ICE connectivity check (0 to 3).
    Stun,
    /// A DTLS record (20 to 63).
    Dtls,
    /// An SRTP packet (128 to 191, second byte outside 192 to 223).
    Rtp,
    /// An SRTCP packet (128 to 191, second byte 192 to 223).
    Rtcp,
    /// Anything else, an empty datagram included.
    Other,
}

/// Classifies a relayed datagram by its first two bytes.
#[must_use]
pub const fn inner(bytes: &[u8]) -> Inner {
    match bytes {
        [0..=3, ..] => Inner::Stun,
        [20..=63, ..] => Inner::Dtls,
        [128..=191, 192..=223, ..] => Inner::Rtcp,
        [128..=191, _, ..] => Inner::Rtp,
        _ => Inner::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outside_only_turn_is_told_apart() {
        for first in 0..=255_u8 {
            let expected = match first {
                0..=3 => Outer::Stun,
                64..=127 => Outer::ChannelData,
                _ => Outer::Other,
            };
            assert_eq!(outer(first), expected, "{first}");
        }
    }

    #[test]
    fn inside_the_ranges_of_rfc_7983_hold() {
        assert_eq!(inner(&[]), Inner::Other);
        assert_eq!(inner(&[0x80]), Inner::Other, "one byte cannot tell RTP from RTCP");
        assert_eq!(inner(&[0, 1]), Inner::Stun);
        assert_eq!(inner(&[4, 1]), Inner::Other);
        assert_eq!(inner(&[22]), Inner::Dtls);
        assert_eq!(inner(&[63, 0]), Inner::Dtls);
        assert_eq!(inner(&[64, 0]), Inner::Other);
        assert_eq!(inner(&[0x80, 96]), Inner::Rtp);
        assert_eq!(inner(&[0x90, 0x80 | 96]), Inner::Rtp, "the marker bit is not RTCP");
        assert_eq!(inner(&[0x80, 200]), Inner::Rtcp);
        assert_eq!(inner(&[0xbf, 223]), Inner::Rtcp);
        assert_eq!(inner(&[0xc0, 200]), Inner::Other);
    }
}
