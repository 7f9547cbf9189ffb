//! RTP (RFC 3550 section 5.1) with header extensions (RFC 8285): a zero-copy reader and a writer.
//!
//! The reader checks every length once, in [`Rtp::parse`]; what it hands out lies in the packet.

use std::ops::Range;

/// Bytes of the fixed header.
pub const FIXED_HEADER: usize = 12;

/// "defined by profile" value of one-byte header extensions (RFC 8285 section 4.2).
const ONE_BYTE: u16 = 0xBEDE;
/// The same of two-byte ones, without its four application bits (section 4.3).
const TWO_BYTE: u16 = 0x1000;

/// Why bytes are not an RTP packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ParseError {
    /// Shorter than the header says, or than any header.
    #[error("the packet is shorter than its header says")]
    Short,
    /// Not version 2.
    #[error("the version is not 2")]
    Version,
    /// The padding count is zero or larger than the payload.
    #[error("the padding is longer than the payload")]
    Padding,
}

/// A view of one RTP packet.
#[derive(Clone, Copy, Debug)]
pub struct Rtp<'a> {
    bytes: &'a [u8],
    fixed: &'a [u8; FIXED_HEADER],
    profile: u16,
    extensions: &'a [u8],
    payload_start: usize,
    payload_end: usize,
}

impl<'a> Rtp<'a> {
    /// Reads one packet. A malformed list of extensions is not an error: elements up to the fault
    /// are found, as RFC 8285 asks a receiver to ignore what it cannot read.
    ///
    /// # Errors
    /// [`ParseError`] when a length lies or the version is foreign.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ParseError> {
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_HEADER>().ok_or(ParseError::Short)?;
        if fixed[0] >> 6 != 2 {
            return Err(ParseError::Version);
        }
        let csrcs = 4 * usize::from(fixed[0] & 0x0F);
        let rest = rest.get(csrcs..).ok_or(ParseError::Short)?;
        let mut payload_start = FIXED_HEADER + csrcs;
        let mut profile = 0;
        let mut extensions: &[u8] = &[];
        if fixed[0] & 0x10 != 0 {
            let ([a, b, c, d], rest) = rest.split_first_chunk::<4>().ok_or(ParseError::Short)?;
            profile = u16::from_be_bytes([*a, *b]);
            let length = 4 * usize::from(u16::from_be_bytes([*c, *d]));
            extensions = rest.get(..length).ok_or(ParseError::Short)?;
            payload_start += 4 + length;
        }
        let mut payload_end = bytes.len();
        if fixed[0] & 0x20 != 0 {
            let padding = usize::from(*bytes.last().ok_or(ParseError::Short)?);
            if padding == 0 || payload_start + padding > payload_end {
                return Err(ParseError::Padding);
            }
            payload_end -= padding;
        }
        Ok(Self { bytes, fixed, profile, extensions, payload_start, payload_end })
    }

    /// Seven bits.
    #[must_use]
    pub const fn payload_type(&self) -> u8 {
        self.fixed[1] & 0x7F
    }

    /// Last packet of a frame (video) or first of a talk spurt (audio).
    #[must_use]
    pub const fn marker(&self) -> bool {
        self.fixed[1] & 0x80 != 0
    }

    /// Sequence number.
    #[must_use]
    pub const fn sequence(&self) -> u16 {
        u16::from_be_bytes([self.fixed[2], self.fixed[3]])
    }

    /// In units of the codec's clock.
    #[must_use]
    pub const fn timestamp(&self) -> u32 {
        u32::from_be_bytes([self.fixed[4], self.fixed[5], self.fixed[6], self.fixed[7]])
    }

    /// Synchronisation source.
    #[must_use]
    pub const fn ssrc(&self) -> u32 {
        u32::from_be_bytes([self.fixed[8], self.fixed[9], self.fixed[10], self.fixed[11]])
    }

    /// How many contributing sources the header lists.
    #[must_use]
    pub const fn csrc_count(&self) -> u8 {
        self.fixed[0] & 0x0F
    }

    /// Value of the first header extension element with this id (1 to 14 in the one-byte form,
    /// 1 to 255 in the two-byte form).
    #[must_use]
    pub fn extension(&self, id: u8) -> Option<&'a [u8]> {
        if id == 0 {
            return None;
        }
        self.elements().find(|(found, _)| *found == id).map(|(_, value)| value)
    }

    /// All extension elements, in order.
    pub fn elements(&self) -> Elements<'a> {
        let two_byte = self.profile & 0xFFF0 == TWO_BYTE;
        let known = two_byte || self.profile == ONE_BYTE;
        Elements { rest: if known { self.extensions } else { &[] }, two_byte }
    }

    /// Payload without padding.
    #[must_use]
    pub fn payload(&self) -> &'a [u8] {
        self.bytes.get(self.payload_range()).unwrap_or_default()
    }

    /// Where [`Rtp::payload`] lies in the packet.
    #[must_use]
    pub const fn payload_range(&self) -> Range<usize> {
        self.payload_start..self.payload_end
    }
}

/// Iterator over `(id, value)` of a header's extension elements.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    two_byte: bool,
}

impl<'a> Iterator for Elements<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (&first, rest) = self.rest.split_first()?;
            if first == 0 {
                self.rest = rest;
                continue;
            }
            let (id, length, rest) = if self.two_byte {
                let (&length, rest) = rest.split_first()?;
                (first, usize::from(length), rest)
            } else if first >> 4 == 15 {
                // RFC 8285 section 4.2: id 15 ends the list.
                self.rest = &[];
                return None;
            } else {
                (first >> 4, usize::from(first & 0x0F) + 1, rest)
            };
            let Some((value, rest)) = rest.split_at_checked(length) else {
                self.rest = &[];
                return None;
            };
            self.rest = rest;
            // In the one-byte form id 0 with a length is padding too.
            if id != 0 {
                return Some((id, value));
            }
        }
    }
}

/// The fields of a header to write; never CSRCs, never padding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// Seven bits; the eighth is ignored.
    pub payload_type: u8,
    /// Marker bit.
    pub marker: bool,
    /// Sequence number.
    pub sequence: u16,
    /// In units of the codec's clock.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
}

impl Header {
    /// Writes the header with extension elements at the start of `slot` and returns its length;
    /// `None` when it does not fit. They have the one-byte form, or the two-byte one when a value
    /// has more than 16 bytes. Elements with an id not 1 to 14, or a value not 1 to 255 bytes, are
    /// left out.
    pub fn write<'e>(
        &self,
        slot: &mut [u8],
        extensions: impl IntoIterator<Item = (u8, &'e [u8]), IntoIter: Clone>,
    ) -> Option<usize> {
        let extensions = extensions.into_iter();
        let fits = |(id, value): &(u8, &[u8])| {
            (1..=14).contains(id) && (1..=usize::from(u8::MAX)).contains(&value.len())
        };
        let extensions = extensions.filter(fits);
        let long = extensions.clone().any(|(_, value)| value.len() > 16);
        let (fixed, rest) = slot.split_first_chunk_mut::<FIXED_HEADER>()?;
        fixed[0] = 0x80;
        fixed[1] = (self.payload_type & 0x7F) | (u8::from(self.marker) << 7);
        fixed[2..4].copy_from_slice(&self.sequence.to_be_bytes());
        fixed[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        fixed[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        let mut used = 0;
        for (id, value) in extensions {
            let mut element = rest.get_mut(4 + used..)?;
            let length = value.len() as u8;
            if long {
                element.split_off_first_mut().map(|head| *head = id)?;
                element.split_off_first_mut().map(|head| *head = length)?;
            } else {
                // The length field holds the count less one (RFC 8285 section 4.2).
                element.split_off_first_mut().map(|head| *head = (id << 4) | (length - 1))?;
            }
            element.get_mut(..value.len())?.copy_from_slice(value);
            used += 1 + usize::from(long) + value.len();
        }
        if used == 0 {
            return Some(FIXED_HEADER);
        }
        let padded = used.next_multiple_of(4);
        rest.get_mut(4 + used..4 + padded)?.fill(0);
        let words = u16::try_from(padded / 4).ok()?;
        let (preamble, _) = rest.split_first_chunk_mut::<4>()?;
        preamble[..2].copy_from_slice(&if long { TWO_BYTE } else { ONE_BYTE }.to_be_bytes());
        preamble[2..].copy_from_slice(&words.to_be_bytes());
        fixed[0] |= 0x10;
        Some(FIXED_HEADER + 4 + padded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEADER: Header = Header {
        payload_type: 96,
        marker: true,
        sequence: 0x1234,
        timestamp: 0x8765_4321,
        ssrc: 0xDEAD_BEEF,
    };

    #[test]
    fn what_is_written_is_read_back() {
        let mut slot = [0xFF; 64];
        let len = HEADER
            .write(&mut slot, [(1, &b"0"[..]), (15, &b"no"[..]), (4, &[1, 2, 3][..]), (2, &[])])
            .expect("fits");
        assert_eq!(len, 12 + 4 + 8);
        let rtp = Rtp::parse(&slot[..len + 3]).expect("valid");
        assert_eq!((rtp.payload_type(), rtp.marker()), (96, true));
        assert_eq!((rtp.sequence(), rtp.timestamp()), (0x1234, 0x8765_4321));
        assert_eq!((rtp.ssrc(), rtp.csrc_count()), (0xDEAD_BEEF, 0));
        assert_eq!(rtp.extension(1), Some(&b"0"[..]));
        assert_eq!(rtp.extension(4), Some(&[1, 2, 3][..]));
        assert_eq!((rtp.extension(15), rtp.extension(2), rtp.extension(0)), (None, None, None));
        assert_eq!((rtp.payload(), rtp.payload_range()), (&[0xFF; 3][..], 24..27));
    }

    #[test]
    fn a_long_value_makes_all_elements_two_byte_ones() {
        let mut slot = [0xFF; 64];
        let value = [7; 17];
        let len = HEADER.write(&mut slot, [(1, &b"0"[..]), (12, &value[..])]).expect("fits");
        assert_eq!(len, 12 + 4 + 24);
        let rtp = Rtp::parse(&slot[..len + 3]).expect("valid");
        assert_eq!((rtp.extension(1), rtp.extension(12)), (Some(&b"0"[..]), Some(&value[..])));
        assert_eq!((rtp.payload(), rtp.elements().count()), (&[0xFF; 3][..], 2));
    }

    #[test]
    fn a_header_without_elements_has_no_extension() {
        let mut slot = [0; 12];
        assert_eq!(HEADER.write(&mut slot, []), Some(12));
        assert_eq!(slot[0], 0x80);
    }

    #[test]
    fn a_slot_too_small_is_refused_at_every_length() {
        for room in 0..24 {
            let mut slot = vec![0; room];
            let elements = [(1, &b"0"[..]), (4, &[1, 2, 3][..])];
            assert_eq!(HEADER.write(&mut slot, elements), None, "{room}");
        }
    }

    #[test]
    fn two_byte_elements_are_read() {
        let mut packet = vec![0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0x10, 0x07, 0, 2];
        packet.extend([17, 2, 0xAA, 0xBB, 0, 18, 0, 0]);
        packet.push(7);
        let rtp = Rtp::parse(&packet).expect("valid");
        assert_eq!(rtp.extension(17), Some(&[0xAA, 0xBB][..]));
        assert_eq!(rtp.extension(18), Some(&[][..]));
        assert_eq!(rtp.payload(), [7]);
    }

    #[test]
    fn an_element_longer_than_the_list_ends_it() {
        let packet = [0x90, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 0xBE, 0xDE, 0, 1, 0x10, 5, 0x2F, 1];
        let rtp = Rtp::parse(&packet).expect("valid");
        assert_eq!((rtp.extension(1), rtp.extension(2)), (Some(&[5][..]), None));
    }

    #[test]
    fn lying_lengths_are_refused() {
        let base = [0x80, 96, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        for len in 0..12 {
            assert_eq!(Rtp::parse(&base[..len]).err(), Some(ParseError::Short));
        }
        let with = |first: u8, tail: &[u8]| {
            let mut packet = base.to_vec();
            packet[0] = first;
            packet.extend(tail);
            Rtp::parse(&packet).map(|rtp| rtp.payload_range()).err()
        };
        assert_eq!(with(0x40, &[]), Some(ParseError::Version));
        assert_eq!(with(0x8F, &[0; 59]), Some(ParseError::Short));
        assert_eq!(with(0x90, &[0xBE, 0xDE, 0]), Some(ParseError::Short));
        assert_eq!(with(0x90, &[0xBE, 0xDE, 0xFF, 0xFF, 1, 2]), Some(ParseError::Short));
        assert_eq!(with(0xA0, &[1, 0]), Some(ParseError::Padding));
        assert_eq!(with(0xA0, &[1, 3]), Some(ParseError::Padding));
        assert_eq!(with(0xA0, &[1, 2]), None);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(first) = bytes.first_mut() {
                *first = (*first & 0x3F) | 0x80;
            }
            if let Ok(rtp) = Rtp::parse(&bytes) {
                prop_assert!(rtp.payload_range().end <= bytes.len());
                prop_assert_eq!(rtp.payload().len(), rtp.payload_range().len());
                prop_assert!(rtp.elements().count() <= bytes.len());
            }
        }
    }
}
