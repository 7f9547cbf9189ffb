//! Does a payload start a keyframe? Reads only descriptors that stay in clear under end-to-end
//! encryption, and never more than it has.

use crate::wire::media::CodecName;

const H264_IDR: u8 = 5;
const H264_SPS: u8 = 7;
const H264_STAP_A: u8 = 24;
const H264_FU_A: u8 = 28;
const H265_AGGREGATION: u8 = 48;
const H265_FRAGMENT: u8 = 49;

/// Whether this is the first packet of a keyframe (for H.264 also a packet that carries the
/// parameter sets in front of one).
pub(crate) fn starts_keyframe(codec: CodecName, payload: &[u8]) -> bool {
    match codec {
        CodecName::Opus => false,
        CodecName::Vp8 => vp8(payload).unwrap_or(false),
        CodecName::Vp9 => vp9(payload).unwrap_or(false),
        CodecName::H264 => h264(payload).unwrap_or(false),
        CodecName::H265 => h265(payload).unwrap_or(false),
        CodecName::Av1 => payload.first().is_some_and(|aggregation| aggregation & 0x08 != 0),
    }
}

/// RFC 7741 section 4.2: descriptor, then the payload header whose lowest bit is "inverse key".
fn vp8(payload: &[u8]) -> Option<bool> {
    let (&first, mut rest) = payload.split_first()?;
    // Start of partition, partition 0.
    if first & 0x10 == 0 || first & 0x07 != 0 {
        return Some(false);
    }
    if first & 0x80 != 0 {
        let (&extension, after) = rest.split_first()?;
        rest = after;
        if extension & 0x80 != 0 {
            let long = rest.first()? & 0x80 != 0;
            rest = rest.get(if long { 2 } else { 1 }..)?;
        }
        if extension & 0x40 != 0 {
            rest = rest.get(1..)?;
        }
        if extension & 0x30 != 0 {
            rest = rest.get(1..)?;
        }
    }
    Some(rest.first()? & 0x01 == 0)
}

/// RFC 9628 section 4.2: not inter-picture predicted, start of a frame, lowest spatial layer.
fn vp9(payload: &[u8]) -> Option<bool> {
    let (&first, mut rest) = payload.split_first()?;
    if first & 0x40 != 0 || first & 0x08 == 0 {
        return Some(false);
    }
    if first & 0x80 != 0 {
        let long = rest.first()? & 0x80 != 0;
        rest = rest.get(if long { 2 } else { 1 }..)?;
    }
    if first & 0x20 != 0 {
        let layers = rest.first()?;
        return Some((layers >> 1) & 0x07 == 0);
    }
    Some(true)
}

/// RFC 6184 sections 5.6 to 5.8.
fn h264(payload: &[u8]) -> Option<bool> {
    let is_key = |nal: u8| matches!(nal & 0x1F, H264_IDR | H264_SPS);
    let (&first, mut rest) = payload.split_first()?;
    match first & 0x1F {
        H264_STAP_A => {
            while let Some((&[high, low], after)) = rest.split_first_chunk::<2>() {
                if is_key(*after.first()?) {
                    return Some(true);
                }
                rest = after.get(usize::from(u16::from_be_bytes([high, low]))..)?;
            }
            Some(false)
        }
        H264_FU_A => {
            let header = *rest.first()?;
            Some(header & 0x80 != 0 && is_key(header))
        }
        _ => Some(is_key(first)),
    }
}

/// RFC 7798 section 4.4.
fn h265(payload: &[u8]) -> Option<bool> {
    let kind = |first: u8| (first >> 1) & 0x3F;
    // Random access pictures, and the parameter sets in front of them.
    let is_key = |kind: u8| matches!(kind, 16..=21 | 32..=34);
    let (&[first, _], mut rest) = payload.split_first_chunk::<2>()?;
    match kind(first) {
        H265_AGGREGATION => {
            while let Some((&[high, low], after)) = rest.split_first_chunk::<2>() {
                if is_key(kind(*after.first()?)) {
                    return Some(true);
                }
                rest = after.get(usize::from(u16::from_be_bytes([high, low]))..)?;
            }
            Some(false)
        }
        H265_FRAGMENT => {
            let header = *rest.first()?;
            Some(header & 0x80 != 0 && is_key(header & 0x3F))
        }
        other => Some(is_key(other)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn expect(codec: CodecName, cases: &[(&[u8], bool)]) {
        for (payload, key) in cases {
            assert_eq!(starts_keyframe(codec, payload), *key, "{payload:02x?}");
        }
    }

    #[test]
    fn vp8_keyframe_is_found_behind_any_descriptor() {
        expect(
            CodecName::Vp8,
            &[
                (&[0x10, 0x00], true),
                (&[0x10, 0x01], false),
                (&[0x00, 0x00], false),
                (&[0x11, 0x00], false),
                (&[0x90, 0x80, 0x12, 0x00], true),
                (&[0x90, 0x80, 0x92, 0x34, 0x00], true),
                (&[0x90, 0xE0, 0x92, 0x34, 1, 2, 0x00], true),
                (&[0x90, 0xF0, 0x92, 0x34, 1, 2, 0x01], false),
                (&[0x90, 0x80, 0x92], false),
                (&[], false),
            ],
        );
    }

    #[test]
    fn vp9_keyframe_is_the_lowest_layer_of_an_unpredicted_frame() {
        expect(
            CodecName::Vp9,
            &[
                (&[0x8A, 0x92, 0x34], true),
                (&[0xCA, 0x92, 0x34], false),
                (&[0x82, 0x92, 0x34], false),
                (&[0xAA, 0x12, 0x00], true),
                (&[0xAA, 0x12, 0x02], false),
                (&[0xAA, 0x12], false),
            ],
        );
    }

    #[test]
    fn h264_keyframe_is_found_in_each_packetisation() {
        expect(
            CodecName::H264,
            &[
                (&[0x67, 1], true),
                (&[0x65, 1], true),
                (&[0x68, 1], false),
                (&[0x41, 1], false),
                (&[0x78, 0, 2, 0x09, 1, 0, 2, 0x67, 1], true),
                (&[0x78, 0, 2, 0x09, 1, 0, 2, 0x61, 1], false),
                (&[0x78, 0xFF, 0xFF, 0x09], false),
                (&[0x7C, 0x85], true),
                (&[0x7C, 0x05], false),
                (&[0x7C, 0x81], false),
                (&[0x7C], false),
            ],
        );
    }

    #[test]
    fn h265_keyframe_is_found_in_each_packetisation() {
        expect(
            CodecName::H265,
            &[
                // IDR_W_RADL, CRA, VPS; TRAIL_R.
                (&[0x26, 1, 9], true),
                (&[0x2A, 1, 9], true),
                (&[0x40, 1, 9], true),
                (&[0x02, 1, 9], false),
                (&[0x60, 1, 0, 2, 0x02, 1, 0, 2, 0x42, 1], true),
                (&[0x60, 1, 0, 2, 0x02, 1, 0, 2, 0x02, 1], false),
                (&[0x60, 1, 0xFF, 0xFF, 0x02], false),
                (&[0x62, 1, 0x93], true),
                (&[0x62, 1, 0x13], false),
                (&[0x62, 1], false),
                (&[0x26], false),
            ],
        );
    }

    #[test]
    fn av1_keyframe_is_a_new_coded_video_sequence() {
        expect(CodecName::Av1, &[(&[0x18], true), (&[0x10], false), (&[], false)]);
    }

    proptest! {
        #[test]
        fn random_payloads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            for codec in [
                CodecName::Opus, CodecName::Vp8, CodecName::Vp9, CodecName::H264, CodecName::Av1,
                CodecName::H265,
            ] {
                starts_keyframe(codec, &bytes);
            }
        }
    }
}
