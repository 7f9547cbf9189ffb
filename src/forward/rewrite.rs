//! A packet as one player gets it.

use std::time::Duration;

use crate::wire::media::{CodecName, PlayTrackSpec};
use crate::wire::rtp::Header;

use super::PacketHead;
use super::descriptor::Shifts;
use super::red;
use super::runs::Edit;

/// Numbers of one outgoing packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Numbers {
    pub(crate) payload_type: u8,
    pub(crate) ssrc: u32,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    /// Of an RTX packet (RFC 4588 section 4): the sequence it repeats.
    pub(crate) original: Option<u16>,
    /// Transport-wide, where that is numbered.
    pub(crate) transport: Option<u16>,
}

/// Writes header, extensions and payload into `slot`; `None` when it does not fit. The bytes depend
/// on the arguments alone: writing a packet anew gives the same bytes.
pub(crate) fn write(
    spec: &PlayTrackSpec,
    numbers: Numbers,
    (codec, edit): (CodecName, &Edit),
    head: &PacketHead,
    payload: &[u8],
    slot: &mut [u8],
) -> Option<usize> {
    // A number kept free for what turned out to be of a layer left out.
    let empty = !edit.passes(head);
    let payload = if empty { &[] } else { payload };
    // In the redundant form to whoever takes that; else the primary block alone.
    let redundant = spec.red_pt.filter(|_| head.redundant);
    let payload = if head.redundant && redundant.is_none() {
        payload.get(red::primary(payload)?..)?
    } else {
        payload
    };
    let header = Header {
        payload_type: redundant.unwrap_or(numbers.payload_type),
        marker: !empty && (head.marker || edit.ends_picture(head)),
        sequence: numbers.sequence,
        timestamp: numbers.timestamp,
        ssrc: numbers.ssrc,
    };
    let extensions = spec.extensions;
    let level = head.meta.audio_level.map(|value| [value]);
    let orientation = head.meta.orientation.map(|value| [value]);
    let transport = numbers.transport.map(u16::to_be_bytes);
    let elements = [
        extensions.mid.map(|id| (id, spec.mid.as_bytes())),
        extensions.audio_level.zip(level.as_ref().map(<[u8; 1]>::as_slice)),
        extensions.video_orientation.zip(orientation.as_ref().map(<[u8; 1]>::as_slice)),
        extensions.playout_delay.zip(head.meta.playout_delay.as_ref().map(<[u8; 3]>::as_slice)),
        extensions.transport_cc.zip(transport.as_ref().map(<[u8; 2]>::as_slice)),
        extensions.dependency_descriptor.zip(head.dependency.bytes().filter(|_| !empty)),
    ];
    let mut len = header.write(slot, elements.into_iter().flatten())?;
    if let Some(original) = numbers.original {
        slot.get_mut(len..len + 2)?.copy_from_slice(&original.to_be_bytes());
        len += 2;
    }
    let copy = slot.get_mut(len..len + payload.len())?;
    copy.copy_from_slice(payload);
    if redundant.is_some() {
        red::retype(copy, spec.pt);
    }
    if edit.shifts != Shifts::default() {
        edit.shifts.apply(codec, copy);
    }
    Some(len + payload.len())
}

/// Writes a packet of padding alone: what a burst for bandwidth is made of. `None` when it does not
/// fit.
pub(crate) fn write_padding(
    spec: &PlayTrackSpec,
    numbers: Numbers,
    slot: &mut [u8],
) -> Option<usize> {
    let header = Header {
        payload_type: numbers.payload_type,
        marker: false,
        sequence: numbers.sequence,
        timestamp: numbers.timestamp,
        ssrc: numbers.ssrc,
    };
    let extensions = spec.extensions;
    let transport = numbers.transport.map(u16::to_be_bytes);
    let elements = [
        extensions.mid.map(|id| (id, spec.mid.as_bytes())),
        extensions.transport_cc.zip(transport.as_ref().map(<[u8; 2]>::as_slice)),
    ];
    let len = header.write(slot, elements.into_iter().flatten())?;
    // RFC 3550 section 5.1: the last byte counts the padding, itself included.
    let padding = slot.get_mut(len..len + usize::from(u8::MAX))?;
    padding.fill(0);
    *padding.last_mut()? = u8::MAX;
    *slot.first_mut()? |= 0x20;
    Some(len + usize::from(u8::MAX))
}

/// Compact NTP (middle 32 bits) difference as a duration.
pub(crate) const fn compact(delay: u32) -> Duration {
    Duration::from_nanos(((delay as u64) * 1_000_000_000) >> 16)
}
