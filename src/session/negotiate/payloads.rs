//! Payload types of one connection: a codec with its parameters has one for all its sections, and
//! none means two things in one description.

use crate::wire::media::{Codec, CodecName};

/// The payload types of a codec.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Payload {
    /// Of its media.
    pub(super) pt: u8,
    /// Of its retransmissions.
    pub(super) rtx: Option<u8>,
}

/// What has been given out.
#[derive(Debug, Default)]
pub(super) struct Payloads {
    given: Vec<(Codec, Payload)>,
}

impl Payloads {
    /// Opus is in every offer.
    pub(super) const OPUS: Payload = Payload { pt: 111, rtx: None };

    /// The payload types of a codec. When all are given out, those of codecs that are not `used`
    /// any more are free again; `None` when that is not enough.
    pub(super) fn take(
        &mut self,
        codec: &Codec,
        rtx: bool,
        used: impl Fn(Payload) -> bool,
    ) -> Option<Payload> {
        if codec.name == CodecName::Opus {
            return Some(Self::OPUS);
        }
        let known = |(it, payload): &&(Codec, Payload)| it == codec && payload.rtx.is_some() == rtx;
        if let Some((_, payload)) = self.given.iter().find(known) {
            return Some(*payload);
        }
        let payload = self.free(rtx).or_else(|| {
            self.given.retain(|(_, payload)| used(*payload));
            self.free(rtx)
        })?;
        self.given.push((codec.clone(), payload));
        Some(payload)
    }

    /// A video codec that has a payload type, with that; the one most clients have if there.
    pub(super) fn any(&self) -> Option<(&Codec, u8)> {
        let vp8 = self.given.iter().find(|(codec, _)| codec.name == CodecName::Vp8);
        vp8.or_else(|| self.given.first()).map(|(codec, payload)| (codec, payload.pt))
    }

    fn free(&self, rtx: bool) -> Option<Payload> {
        // The dynamic range, then what RFC 5761 and browsers leave unused below it.
        let mut free = (96..=127).chain(35..=63).filter(|pt| {
            let given = self.given.iter().flat_map(|(_, payload)| [Some(payload.pt), payload.rtx]);
            *pt != Self::OPUS.pt && !given.flatten().any(|it| it == *pt)
        });
        let pt = free.next()?;
        let rtx = if rtx { Some(free.next()?) } else { None };
        Some(Payload { pt, rtx })
    }
}
