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
}

/// The place of a packet; the lowest layer where it does not say.
pub(crate) fn describe(codec: CodecName, payload: &[u8]) -> Place {
    match codec {
        CodecName::Vp8 => Vp8::parse(payload).map_or_else(Place::default, |vp8| Place {
            spatial: 0,
            temporal: vp8.temporal,
            sync: vp8.sync,
        }),
        CodecName::Vp9 | CodecName::H264 | CodecName::Av1 | CodecName::Opus => Place::default(),
    }
}

/// RFC 7741 section 4.2.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Vp8 {
    pub(crate) picture: Option<u16>,
    pub(crate) tl0: Option<u8>,
    pub(crate) key: Option<u8>,
    temporal: u8,
    sync: bool,
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

/// Where the optional fields lie.
struct Fields {
    picture: Option<(usize, bool)>,
    tl0: Option<usize>,
    layers: Option<usize>,
    flags: u8,
}

impl Fields {
    fn find(payload: &[u8]) -> Option<Self> {
        let mut fields = Self { picture: None, tl0: None, layers: None, flags: 0 };
        if payload.first()? & 0x80 == 0 {
            return Some(fields);
        }
        fields.flags = *payload.get(1)?;
        let mut at = 2;
        if fields.flags & 0x80 != 0 {
            let long = payload.get(at)? & 0x80 != 0;
            fields.picture = Some((at, long));
            at += if long { 2 } else { 1 };
        }
        if fields.flags & 0x40 != 0 {
            fields.tl0 = Some(at);
            at += 1;
        }
        if fields.flags & 0x30 != 0 {
            fields.layers = Some(at);
            at += 1;
        }
        (payload.len() >= at).then_some(fields)
    }
}

impl Vp8 {
    pub(crate) fn parse(payload: &[u8]) -> Option<Self> {
        let fields = Fields::find(payload)?;
        let picture = |(at, long): (usize, bool)| {
            let first = *payload.get(at)?;
            if !long {
                return Some(u16::from(first & 0x7F));
            }
            Some(u16::from_be_bytes([first & 0x7F, *payload.get(at + 1)?]))
        };
        let layers = fields.layers.and_then(|at| payload.get(at)).copied().unwrap_or(0);
        let (has_temporal, has_key) = (fields.flags & 0x20 != 0, fields.flags & 0x10 != 0);
        Some(Self {
            picture: fields.picture.and_then(picture),
            tl0: fields.tl0.and_then(|at| payload.get(at)).copied(),
            key: has_key.then_some(layers & 0x1F),
            temporal: if has_temporal { layers >> 6 } else { 0 },
            sync: has_temporal && layers & 0x20 != 0,
        })
    }

    /// The numbers as they are after `shifts`.
    pub(crate) fn shifted(self, shifts: Shifts) -> Self {
        Self {
            picture: self.picture.map(|picture| picture.wrapping_add(shifts.picture) & 0x7FFF),
            tl0: self.tl0.map(|tl0| tl0.wrapping_add(shifts.tl0)),
            key: self.key.map(|key| key.wrapping_add(shifts.key) & 0x1F),
            ..self
        }
    }
}

impl Shifts {
    /// Adds them to the descriptor at the start of a VP8 payload.
    pub(crate) fn apply(self, payload: &mut [u8]) {
        let Some(fields) = Fields::find(payload) else { return };
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
        if fields.flags & 0x10 != 0
            && let Some(byte) = fields.layers.and_then(|at| payload.get_mut(at))
        {
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
        let long = [0x90, 0xF0, 0xFF, 0xFE, 0xFF, 0x7F, 0xAA];
        let read = Vp8::parse(&long).expect("whole");
        let expected =
            Vp8 { picture: Some(0x7FFE), tl0: Some(255), key: Some(31), temporal: 1, sync: true };
        assert_eq!(read, expected);
        let shifts = Shifts { picture: 3, tl0: 2, key: 4 };
        let mut shifted = long;
        shifts.apply(&mut shifted);
        assert_eq!(shifted, [0x90, 0xF0, 0x80, 0x01, 0x01, 0x63, 0xAA]);
        assert_eq!(Vp8::parse(&shifted), Some(read.shifted(shifts)));
        let mut short = [0x90, 0x80, 0x7F, 0xAA];
        shifts.apply(&mut short);
        assert_eq!(short, [0x90, 0x80, 0x02, 0xAA]);
        let mut bare = [0x10, 0xAA];
        shifts.apply(&mut bare);
        assert_eq!(bare, [0x10, 0xAA]);
        // The descriptor says more than there is.
        assert_eq!(Vp8::parse(&[0x90, 0xF0, 0xFF, 0xFE, 0xFF]), None);
        assert_eq!(describe(CodecName::Vp8, &[0x90, 0xF0, 0xFF]), Place::default());
    }

    proptest! {
        #[test]
        fn random_descriptors_never_panic(
            mut bytes in prop::collection::vec(any::<u8>(), 0..12), picture: u16, tl0: u8, key: u8
        ) {
            let before = Vp8::parse(&bytes);
            let shifts = Shifts { picture, tl0, key };
            shifts.apply(&mut bytes);
            let after = Vp8::parse(&bytes);
            prop_assert_eq!(before.is_some(), after.is_some());
        }
    }
}
