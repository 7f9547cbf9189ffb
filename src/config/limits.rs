//! `relay.limits`: what one client, one subject, and all together, may hold and send.

use super::check::whole;
use super::section::Section;

/// Bounds of the relay. Rates are of payloads, and hold for each direction by itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Live allocations of one subject.
    pub allocations_per_subject: u32,
    /// Live allocations of this node.
    pub allocations_total: u32,
    /// Peers that one allocation of the external policy may permit.
    pub permissions_per_allocation: u16,
    /// Channels of one allocation of the external policy.
    pub channels_per_allocation: u16,
    /// Packets a second that one allocation's client may send, and as many that it is sent.
    pub packets_per_second: u32,
    /// Bits a second, likewise.
    pub bits_per_second: u32,
    /// Packets a second that all clients of this node may send, and as many that they are sent.
    pub total_packets_per_second: Option<u32>,
    /// Bits a second, likewise.
    pub total_bits_per_second: Option<u64>,
    /// Replies a second to what is not authenticated, for each source prefix (/32, /64) and shard.
    pub unauthenticated_replies_per_second: u16,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations_per_subject: 32,
            allocations_total: 100_000,
            permissions_per_allocation: 64,
            channels_per_allocation: 64,
            // Several times what a browser sends of 4K video.
            packets_per_second: 20_000,
            bits_per_second: 200_000_000,
            total_packets_per_second: None,
            total_bits_per_second: None,
            unauthenticated_replies_per_second: 256,
        }
    }
}

/// `None`: a fault was noted.
pub(super) fn read(root: &Section<'_>) -> Option<Limits> {
    let relay = root.section_quietly("relay");
    let section = relay.section("relay.limits");
    // The inner `None`: it is left out.
    let limit = |key, most: u64| -> Option<Option<u64>> {
        match section.get(key, whole(1, most.into())) {
            Some(found) => u64::try_from(found.value).ok().map(Some),
            None => (!section.has(key)).then_some(None),
        }
    };
    let small = |key, default: u32, most: u32| {
        let written = limit(key, most.into())?;
        written.map_or(Some(default), |written| u32::try_from(written).ok())
    };
    let defaults = Limits::default();
    let per_subject = small("allocations_per_subject", defaults.allocations_per_subject, 100_000);
    let total = small("allocations_total", defaults.allocations_total, 10_000_000);
    let permissions =
        small("permissions_per_allocation", defaults.permissions_per_allocation.into(), 256);
    let channels = small("channels_per_allocation", defaults.channels_per_allocation.into(), 256);
    let packets = small("packets_per_second", defaults.packets_per_second, 10_000_000);
    let bits = small("bits_per_second", defaults.bits_per_second, u32::MAX);
    let total_packets = limit("total_packets_per_second", u32::MAX.into());
    let total_bits = limit("total_bits_per_second", 1_000_000_000_000);
    let replies = defaults.unauthenticated_replies_per_second;
    let replies = small("unauthenticated_replies_per_second", replies.into(), u16::MAX.into());
    Some(Limits {
        allocations_per_subject: per_subject?,
        allocations_total: total?,
        permissions_per_allocation: permissions?.try_into().ok()?,
        channels_per_allocation: channels?.try_into().ok()?,
        packets_per_second: packets?,
        bits_per_second: bits?,
        total_packets_per_second: total_packets?.and_then(|packets| packets.try_into().ok()),
        total_bits_per_second: total_bits?,
        unauthenticated_replies_per_second: replies?.try_into().ok()?,
    })
}
