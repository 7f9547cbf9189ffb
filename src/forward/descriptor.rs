//! Payload descriptors: which layer a packet is of, and how its picture is numbered. They stay in
//! clear under end-to-end encryption. Reads never more than there is.

use crate::wire::media::CodecName;

/// The layer of a packet within its encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Place {
    pub(crate) spatial: u8,
    pub(crate) temporal: u8,
    /// Who takes only the temporal layers below may take this one from here on.
    pub(crate) sync: bool,
    /// Who takes this one may take this temporal layer from the next picture on.
    pub(crate) up_to: u8,
    /// The last packet of its spatial layer's frame.
    pub(crate) ends: bool,
}

/// The place of a packet; the lowest layer where it does not say.
pub(crate) fn describe(codec: CodecName, payload: &[u8]) -> Place {
    let fields = match codec {
        CodecName::Vp8 => Fields::vp8(payload),
        CodecName::Vp9 => Fields::vp9(payload),
        CodecName::H264 | CodecName::H265 | CodecName::Av1 | CodecName::Opus => None,
    };
    fields.map(|fields| fields.place).unwrap_or_default()
}

/// How a picture is numbered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Numbers {
    pub(crate) picture: Option<u16>,
    pub(crate) tl0: Option<u8>,
    pub(crate) key: Option<u8>,
}

/// What is added to the numbers of a descriptor, each modulo its width.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Shifts {
    /// Seven or fifteen bits.
    pub(crate) picture: u16,
    /// Eight bits.
    pub(crate) tl0: u8,
    /// Five bits.
    pub(crate) key: u8,
}

/// Where the optional fields lie, and what the layers are.
#[derive(Default)]
struct Fields {
    picture: Option<(usize, bool)>,
    tl0: Option<usize>,
    key: Option<usize>,
    place: Place,
}

impl Fields {
    fn of(codec: CodecName, payload: &[u8]) -> Option<Self> {
        match codec {
            CodecName::Vp8 => Self::vp8(payload),
            CodecName::Vp9 => Self::vp9(payload),
            CodecName::H264 | CodecName::H265 | CodecName::Av1 | CodecName::Opus => None,
        }
    }

    /// RFC 7741 section 4.2.
    fn vp8(payload: &[u8]) -> Option<Self> {
        let mut fields = Self::default();
        if payload.first()? & 0x80 == 0 {
            return Some(fields);
        }
        let flags = *payload.get(1)?;
        let mut at = 2;
        if flags & 0x80 != 0 {
            let long = payload.get(at)? & 0x80 != 0;
            fields.picture = Some((at, long));
            at += if long { 2 } else { 1 };
        }
        if flags & 0x40 != 0 {
            fields.tl0 = Some(at);
            at += 1;
        }
        if flags & 0x30 != 0 {
            let layers = *payload.get(at)?;
            if flags & 0x20 != 0 {
                fields.place.temporal = layers >> 6;
                fields.place.sync = layers & 0x20 != 0;
            }
            fields.key = (flags & 0x10 != 0).then_some(at);
            at += 1;
        }
        (payload.len() >= at).then_some(fields)
    }

    /// RFC 9628 section 4.2.
    fn vp9(payload: &[u8]) -> Option<Self> {
        let mut fields = Self::default();
        let flags = *payload.first()?;
        let mut at = 1;
        fields.place.ends = flags & 0x04 != 0;
        if flags & 0x80 != 0 {
            let long = payload.get(at)? & 0x80 != 0;
            fields.picture = Some((at, long));
            at += if long { 2 } else { 1 };
        }
        if flags & 0x20 != 0 {
            let layers = *payload.get(at)?;
            fields.place.temporal = layers >> 5;
            fields.place.sync = layers & 0x10 != 0;
            fields.place.spatial = (layers >> 1) & 0x07;
            at += 1;
            // Only where references are not told one by one.
            if flags & 0x10 == 0 {
                fields.tl0 = Some(at);
                at += 1;
            }
        }
        (payload.len() >= at).then_some(fields)
    }
}

/// The numbers of a payload's picture, after `shifts`.
pub(crate) fn numbers(codec: CodecName, payload: &[u8], shifts: Shifts) -> Option<Numbers> {
    let fields = Fields::of(codec, payload)?;
    let picture = |(at, long): (usize, bool)| {
        let first = *payload.get(at)?;
        let read = if long {
            u16::from_be_bytes([first & 0x7F, *payload.get(at + 1)?])
        } else {
            u16::from(first & 0x7F)
        };
        Some(read.wrapping_add(shifts.picture) & 0x7FFF)
    };
    let byte = |at: usize| payload.get(at).copied();
    Some(Numbers {
        picture: fields.picture.and_then(picture),
        tl0: fields.tl0.and_then(byte).map(|tl0| tl0.wrapping_add(shifts.tl0)),
        key: fields.key.and_then(byte).map(|key| key.wrapping_add(shifts.key) & 0x1F),
    })
}

impl Shifts {
    /// Adds them to the descriptor at the start of a payload.
    pub(crate) fn apply(self, codec: CodecName, payload: &mut [u8]) {
        let Some(fields) = Fields::of(codec, payload) else { return };
        if let Some((at, long)) = fields.picture {
            if long && let Some(bytes) = payload.get_mut(at..).and_then(|p| p.first_chunk_mut()) {
                let picture = u16::from_be_bytes(*bytes).wrapping_add(self.picture);
                *bytes = (picture | 0x8000).to_be_bytes();
            } else if let Some(byte) = payload.get_mut(at) {
                *byte = byte.wrapping_add(self.picture as u8) & 0x7F;
            }
        }
        if let Some(byte) = fields.tl0.and_then(|at| payload.get_mut(at)) {
            *byte = byte.wrapping_add(self.tl0);
        }
        if let Some(byte) = fields.key.and_then(|at| payload.get_mut(at)) {
            *byte = (*byte & 0xE0) | (byte.wrapping_add(self.key) & 0x1F);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn vp8_fields_are_read_and_shifted_in_place() {
        let read = |payload: &[u8]| numbers(CodecName::Vp8, payload, Shifts::default());
        let long = [0x90, 0xF0, 0xFF, 0xFE, 0xFF, 0x7F, 0xAA];
        let expected = Numbers { picture: Some(0x7FFE), tl0: Some(255), key: Some(31) };
        assert_eq!(read(&long), Some(expected));
        let place = Place { temporal: 1, sync: true, ..Place::default() };
        assert_eq!(describe(CodecName::Vp8, &long), place);
        let shifts = Shifts { picture: 3, tl0: 2, key: 4 };
        let mut shifted = long;
        shifts.apply(CodecName::Vp8, &mut shifted);
        assert_eq!(shifted, [0x90, 0xF0, 0x80, 0x01, 0x01, 0x63, 0xAA]);
        assert_eq!(read(&shifted), numbers(CodecName::Vp8, &long, shifts));
        let mut short = [0x90, 0x80, 0x7F, 0xAA];
        shifts.apply(CodecName::Vp8, &mut short);
        assert_eq!(short, [0x90, 0x80, 0x02, 0xAA]);
        let mut bare = [0x10, 0xAA];
        shifts.apply(CodecName::Vp8, &mut bare);
        assert_eq!(bare, [0x10, 0xAA]);
        // The descriptor says more than there is.
        assert_eq!(read(&[0x90, 0xF0, 0xFF, 0xFE, 0xFF]), None);
        assert_eq!(describe(CodecName::Vp8, &[0x90, 0xF0, 0xFF]), Place::default());
    }

    #[test]
    fn vp9_fields_are_read_and_shifted_in_place() {
        // Long picture id, layers (T 2, U, S 1, D), TL0PICIDX; the frame ends.
        let packet = [0xA4, 0x80, 0x05, 0x53, 0x09, 0xAA];
        let place = Place { spatial: 1, temporal: 2, sync: true, ends: true, up_to: 0 };
        assert_eq!(describe(CodecName::Vp9, &packet), place);
        let shifts = Shifts { picture: 0x7FFF, tl0: 1, key: 9 };
        let mut shifted = packet;
        shifts.apply(CodecName::Vp9, &mut shifted);
        assert_eq!(shifted, [0xA4, 0x80, 0x04, 0x53, 0x0A, 0xAA]);
        // Flexible: no TL0PICIDX.
        let flexible = [0xB0, 0x05, 0x53, 0xAA];
        let expected = Numbers { picture: Some(5), tl0: None, key: None };
        assert_eq!(numbers(CodecName::Vp9, &flexible, Shifts::default()), Some(expected));
        assert_eq!(describe(CodecName::Vp9, &[0xA4, 0x80]), Place::default());
    }

    proptest! {
        #[test]
        fn random_descriptors_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..12), picture: u16, tl0: u8, key: u8
        ) {
            for codec in [CodecName::Vp8, CodecName::Vp9, CodecName::H264] {
                let shifts = Shifts { picture, tl0, key };
                let before = (describe(codec, &bytes), numbers(codec, &bytes, shifts));
                shifts.apply(codec, &mut bytes);
                let after = (describe(codec, &bytes), numbers(codec, &bytes, Shifts::default()));
                prop_assert_eq!(before.0, after.0);
                prop_assert_eq!(before.1.is_some(), after.1.is_some());
            }
        }
    }
}
