//! ChannelData, RFC 8656 section 12.4: a channel number, a length, the data.

use std::ops::Range;

/// Bytes of the header.
pub const HEADER: usize = 4;
/// The lowest channel number a client may bind (RFC 8656 section 12).
pub const FIRST_CHANNEL: u16 = 0x4000;
/// The highest channel number a client may bind.
pub const LAST_CHANNEL: u16 = 0x4fff;
/// The highest that a client of RFC 5766 (section 11) may bind; RFC 8656 keeps the rest back, for
/// ports that serve other protocols as well.
pub const LAST_CHANNEL_5766: u16 = 0x7fff;

/// A parsed ChannelData message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChannelData {
    /// `FIRST_CHANNEL` to `LAST_CHANNEL_5766`.
    pub channel: u16,
    /// Where the application data lies in the datagram.
    pub data: Range<usize>,
}

/// Why a datagram is not ChannelData.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ChannelDataError {
    /// Fewer than four bytes.
    #[error("shorter than a ChannelData header")]
    Short,
    /// The channel number is outside 0x4000 to 0x7FFF.
    #[error("channel number out of range")]
    Channel,
    /// The length field claims more than the datagram holds.
    #[error("length field exceeds the datagram")]
    Length,
}

/// Parses one datagram. Over UDP bytes after the data are allowed: a client may pad to four.
///
/// # Errors
/// [`ChannelDataError`]; the datagram is then to be dropped (RFC 8656 section 12.5).
pub fn parse(datagram: &[u8]) -> Result<ChannelData, ChannelDataError> {
    let [c0, c1, l0, l1, rest @ ..] = datagram else {
        return Err(ChannelDataError::Short);
    };
    let channel = u16::from_be_bytes([*c0, *c1]);
    if !(FIRST_CHANNEL..=LAST_CHANNEL_5766).contains(&channel) {
        return Err(ChannelDataError::Channel);
    }
    let length = usize::from(u16::from_be_bytes([*l0, *l1]));
    if length > rest.len() {
        return Err(ChannelDataError::Length);
    }
    Ok(ChannelData { channel, data: HEADER..HEADER + length })
}

/// Writes the header that goes directly before `len` bytes of data.
pub const fn write_header(header: &mut [u8; HEADER], channel: u16, len: u16) {
    let [c0, c1] = channel.to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    *header = [c0, c1, l0, l1];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_exact_with_any_padding() {
        for pad in 0..=3 {
            let mut bytes = vec![0x40, 0x01, 0, 3, 7, 8, 9];
            bytes.extend(vec![0xee; pad]);
            let parsed = parse(&bytes).unwrap();
            assert_eq!((parsed.channel, &bytes[parsed.data]), (0x4001, &[7, 8, 9][..]));
        }
    }

    #[test]
    fn lies_and_foreign_numbers_are_refused() {
        assert_eq!(parse(&[0x40, 0, 0xff, 0xff, 0x41, 0x41]), Err(ChannelDataError::Length));
        assert_eq!(parse(&[0x40, 0, 0]), Err(ChannelDataError::Short));
        assert_eq!(parse(&[0x80, 0, 0, 0]), Err(ChannelDataError::Channel));
        assert_eq!(parse(&[0x3f, 0xff, 0, 0]), Err(ChannelDataError::Channel));
        assert_eq!(parse(&[0x4f, 0xff, 0, 0]).unwrap().data, 4..4);
        assert_eq!(parse(&[0x7f, 0xff, 0, 0]).unwrap().channel, 0x7fff);
    }

    #[test]
    fn a_written_header_parses_back() {
        let mut bytes = [0; 9];
        let (header, data) = bytes.split_first_chunk_mut().unwrap();
        write_header(header, 0x4abc, 5);
        data.copy_from_slice(&[1; 5]);
        assert_eq!(parse(&bytes), Ok(ChannelData { channel: 0x4abc, data: 4..9 }));
    }
}
