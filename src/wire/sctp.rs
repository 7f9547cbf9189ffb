//! What must be known of an SCTP packet (RFC 9260, 3758, 6525) before a library acts on it.
//!
//! Lengths are read strictly: a chunk that says it is longer than what its kind holds would be
//! read differently by somebody else, and hide other chunks.

/// Length of the common header, bytes.
pub const HEADER: usize = 12;
/// Length of a chunk's or parameter's header, bytes.
const TLV: usize = 4;

/// A chunk, as far as its cost and its reach go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chunk {
    /// DATA, never empty.
    Data {
        /// Its number.
        tsn: u32,
        /// Its stream.
        stream: u16,
    },
    /// INIT.
    Init {
        /// The number of the first DATA to come.
        tsn: u32,
    },
    /// SACK.
    Sack {
        /// All DATA up to here has arrived.
        cumulative: u32,
        /// The receiver's window, bytes.
        window: u32,
        /// Numbers that the gap blocks name, one by one.
        named: u32,
    },
    /// FORWARD-TSN.
    Forward {
        /// All DATA up to here is to be given up.
        cumulative: u32,
        /// Streams it lists.
        streams: u32,
    },
    /// RE-CONFIG with a request to reset streams.
    Reset {
        /// It holds once all DATA up to here has arrived.
        last: u32,
        /// Streams it lists.
        streams: u32,
    },
    /// RE-CONFIG with nothing but a response, and whatever is short and harmless.
    Other,
}

/// No packet, or one with a chunk that is not what it says, or that a server of data channels is
/// never sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed SCTP packet")]
pub struct Malformed;

/// The chunks of a packet, to the first that is malformed. The checksum is not looked at.
pub fn chunks(packet: &[u8]) -> impl Iterator<Item = Result<Chunk, Malformed>> + '_ {
    let mut rest = packet.get(HEADER..).unwrap_or_default();
    let mut empty = rest.is_empty();
    let alone = is_alone(rest);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return std::mem::take(&mut empty).then_some(Err(Malformed));
        }
        let chunk = next(&mut rest, alone);
        if chunk.is_none() {
            rest = &[];
        }
        Some(chunk.ok_or(Malformed))
    })
}

fn is_alone(rest: &[u8]) -> bool {
    rest.get(2..4).is_some_and(|len| usize::from(be16(len)).next_multiple_of(4) >= rest.len())
}

fn next(rest: &mut &[u8], alone: bool) -> Option<Chunk> {
    let [kind, _, high, low] = *rest.first_chunk::<TLV>()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    let value = rest.get(TLV..len)?;
    *rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    read(kind, value, alone)
}

fn read(kind: u8, value: &[u8], alone: bool) -> Option<Chunk> {
    match kind {
        // DATA. RFC 9260 section 6.2: one without data ends the association.
        0 if value.len() > 12 => {
            let stream = be16(value.get(4..6)?);
            Some(Chunk::Data { tsn: be32(value, 0)?, stream })
        }
        // INIT, which is never bundled (section 6.10).
        1 if alone => Some(Chunk::Init { tsn: be32(value, 12)? }),
        3 => {
            let (gaps, duplicates) = (be16(value.get(8..10)?), be16(value.get(10..12)?));
            let end = 12 + 4 * usize::from(gaps);
            if value.len() != end + 4 * usize::from(duplicates) {
                return None;
            }
            let named = |block: &[u8]| {
                let (from, to) = (be16(block), be16(block.get(2..).unwrap_or_default()));
                u32::from(to.saturating_sub(from)) + 1
            };
            let named = value.get(12..end)?.chunks_exact(4).map(named).sum();
            Some(Chunk::Sack { cumulative: be32(value, 0)?, window: be32(value, 4)?, named })
        }
        // HEARTBEAT: one parameter.
        4 => (parameter(value)?.1.len() == value.len()).then_some(Chunk::Other),
        // ABORT and ERROR, after which nothing is read.
        6 | 9 => Some(Chunk::Other),
        // SHUTDOWN.
        7 => (value.len() == 4).then_some(Chunk::Other),
        // COOKIE-ECHO.
        10 => Some(Chunk::Other),
        // SHUTDOWN-ACK, COOKIE-ACK, SHUTDOWN-COMPLETE.
        8 | 11 | 14 => value.is_empty().then_some(Chunk::Other),
        130 => read_reconfig(value),
        192 if value.len().is_multiple_of(4) => {
            let streams = u32::try_from(value.len() / 4).ok()?.checked_sub(1)?;
            Some(Chunk::Forward { cumulative: be32(value, 0)?, streams })
        }
        _ => None,
    }
}

/// One parameter or two (RFC 6525 section 3.1).
fn read_reconfig(value: &[u8]) -> Option<Chunk> {
    let (kind, first) = parameter(value)?;
    let mut found = reset_or_response(kind, first)?;
    let rest = value.get(first.len().next_multiple_of(4)..).unwrap_or_default();
    if !rest.is_empty() {
        let (kind, second) = parameter(rest)?;
        if second.len() != rest.len() {
            return None;
        }
        // A request beside a response (section 3.1); two requests have no meaning for us.
        match (found, reset_or_response(kind, second)?) {
            (Chunk::Other, other) => found = other,
            (_, Chunk::Other) => {}
            _ => return None,
        }
    }
    Some(found)
}

fn reset_or_response(kind: u16, parameter: &[u8]) -> Option<Chunk> {
    match kind {
        // Outgoing SSN Reset Request.
        13 if parameter.len() >= 16 && parameter.len().is_multiple_of(2) => {
            let streams = u32::try_from((parameter.len() - 16) / 2).ok()?;
            Some(Chunk::Reset { last: be32(parameter, 12)?, streams })
        }
        // Response.
        16 if parameter.len() == 12 => Some(Chunk::Other),
        _ => None,
    }
}

/// A parameter's kind, and all of it without what follows.
fn parameter(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let [a, b, high, low] = *bytes.first_chunk::<TLV>()?;
    let len = usize::from(u16::from_be_bytes([high, low]));
    (len >= TLV).then_some((u16::from_be_bytes([a, b]), bytes.get(..len)?))
}

fn be16(bytes: &[u8]) -> u16 {
    bytes.first_chunk().map_or(0, |bytes| u16::from_be_bytes(*bytes))
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(chunks: &[&[u8]]) -> Vec<u8> {
        let mut packet = vec![0; HEADER];
        for chunk in chunks {
            packet.extend_from_slice(chunk);
            packet.resize(packet.len().next_multiple_of(4), 0);
        }
        packet
    }

    fn read_all(packet: &[u8]) -> Vec<Result<Chunk, Malformed>> {
        chunks(packet).collect()
    }

    const DATA: &[u8] = &[0, 3, 0, 17, 0, 0, 0, 9, 0, 2, 0, 0, 0, 0, 0, 51, b'x'];

    #[test]
    fn chunks_are_read_in_their_order() {
        let sack = [3, 0, 0, 20, 0, 0, 0, 5, 0, 0, 1, 0, 0, 1, 0, 0, 0, 2, 0, 4];
        let forward = [192, 0, 0, 12, 0, 0, 0, 8, 0, 2, 0, 1];
        let reset = [130, 0, 0, 22, 0, 13, 0, 18, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 7, 0, 2];
        assert_eq!(
            read_all(&packet(&[DATA, &sack, &forward, &reset])),
            [
                Ok(Chunk::Data { tsn: 9, stream: 2 }),
                Ok(Chunk::Sack { cumulative: 5, window: 256, named: 3 }),
                Ok(Chunk::Forward { cumulative: 8, streams: 1 }),
                Ok(Chunk::Reset { last: 7, streams: 1 }),
            ]
        );
    }

    #[test]
    fn a_chunk_cannot_hide_another_behind_a_length_that_lies() {
        // A FORWARD-TSN behind what each of these kinds holds by itself.
        let hidden = [192, 0, 0, 8, 0x7F, 0, 0, 0];
        let lies: [&[u8]; 6] = [
            &[4, 0, 0, 16, 0, 1, 0, 4],
            &[8, 0, 0, 12],
            &[11, 0, 0, 12],
            &[7, 0, 0, 16, 0, 0, 0, 0],
            &[3, 0, 0, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[130, 0, 0, 24, 0, 16, 0, 12, 0, 0, 0, 1, 0, 0, 0, 1],
        ];
        for lie in lies {
            let chunk = [lie, &hidden].concat();
            assert_eq!(read_all(&packet(&[&chunk])), [Err(Malformed)], "{lie:?}");
        }
    }

    #[test]
    fn empty_data_and_an_init_in_company_are_malformed() {
        assert_eq!(read_all(&packet(&[&DATA[..16]])), [Err(Malformed)]);
        assert_eq!(read_all(&packet(&[])), [Err(Malformed)]);
        let init = [1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9];
        assert_eq!(read_all(&packet(&[&init])), [Ok(Chunk::Init { tsn: 9 })]);
        assert_eq!(read_all(&packet(&[&init, DATA])), [Err(Malformed)]);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert!(chunks(&bytes).count() <= 80);
        }
    }
}
