//! Redundant audio (RFC 2198): older blocks in front of the primary one, each with a header.

/// A block's header, but the last one's, and that one's.
const HEADER: usize = 4;
const LAST_HEADER: usize = 1;
/// Most blocks: a sender repeats one or two.
const MAX_BLOCKS: usize = 16;

/// Where the primary block begins; `None`: the headers lie.
pub(crate) fn primary(payload: &[u8]) -> Option<usize> {
    let (headers, older) = layout(payload)?;
    let start = headers + older;
    (start <= payload.len()).then_some(start)
}

/// Gives all blocks the payload type `to`.
pub(crate) fn retype(payload: &mut [u8], to: u8) {
    let Some((headers, _)) = layout(payload) else { return };
    let Some(headers) = payload.get_mut(..headers) else { return };
    for header in headers.chunks_mut(HEADER) {
        if let Some(first) = header.first_mut() {
            *first = (*first & 0x80) | (to & 0x7F);
        }
    }
}

/// Bytes of all headers, and of the older blocks.
fn layout(payload: &[u8]) -> Option<(usize, usize)> {
    let (mut at, mut older) = (0, 0);
    for _ in 0..MAX_BLOCKS {
        if payload.get(at)? & 0x80 == 0 {
            return Some((at + LAST_HEADER, older));
        }
        let [_, _, high, low] = *payload.get(at..)?.first_chunk::<HEADER>()?;
        older += usize::from(u16::from_be_bytes([high, low]) & 0x03FF);
        at += HEADER;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_primary_block_is_behind_all_others() {
        // One older block of 3 bytes, 960 ticks before.
        let mut packet = [0xEF, 0x0F, 0x00, 0x03, 0x6F, 1, 2, 3, 9, 9];
        assert_eq!(primary(&packet), Some(8));
        retype(&mut packet, 100);
        assert_eq!(packet, [0xE4, 0x0F, 0x00, 0x03, 0x64, 1, 2, 3, 9, 9]);
        assert_eq!(primary(&[0x6F, 9, 9]), Some(1));
        assert_eq!(primary(&[0xEF, 0x0F, 0x00, 0x06, 0x6F, 1, 2, 3, 9, 9]), None);
        assert_eq!(primary(&[0xEF, 0x0F]), None);
        assert_eq!(primary(&[0x80; 200]), None);
        assert_eq!(primary(&[]), None);
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let before = primary(&bytes);
            retype(&mut bytes, 17);
            prop_assert_eq!(primary(&bytes), before);
        }
    }
}
