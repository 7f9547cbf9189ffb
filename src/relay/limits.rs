//! Bounds: how many, how long, how fast.

use super::Relay;
use crate::ids::AllocationHandle;
use crate::metrics::{Counters, Id};
use crate::time::Mono;

/// A bucket starts full and holds this much: bursts (a keyframe, a woken page) pass.
const BURST_NANOS: u64 = 500_000_000;
const SECOND_NANOS: u64 = 1_000_000_000;

/// Bounds of one shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Allocations in all; beyond: 508.
    pub allocations: u32,
    /// Allocations of one subject; beyond: 486.
    pub allocations_per_subject: u32,
    /// Peers' IPs that one allocation may permit, where they are outside; beyond: 508.
    pub permissions_per_allocation: u16,
    /// Channels of one allocation to peers outside; beyond: 508.
    pub channels_per_allocation: u16,
    /// Lifetime of an allocation whose client asks for less or nothing, seconds.
    pub default_lifetime: u32,
    /// Longest lifetime granted at a time, seconds.
    pub max_lifetime: u32,
    /// Replies to requests without valid credentials, per second and source prefix (/32 of IPv4,
    /// /64 of IPv6).
    pub unauthenticated_replies: u16,
    /// What one client may send to its peers, and as much again its peers to it; beyond: dropped.
    pub allocation_rate: Rate,
    /// What all clients together may send, and as much again be sent; beyond: dropped.
    pub total_rate: Rate,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            allocations: 50_000,
            allocations_per_subject: 32,
            permissions_per_allocation: 64,
            channels_per_allocation: 64,
            default_lifetime: 600,
            max_lifetime: 3600,
            unauthenticated_replies: 256,
            // Several times what a browser sends of 4K video.
            allocation_rate: Rate { packets: 20_000, bits: 200_000_000 },
            total_rate: Rate::UNLIMITED,
        }
    }
}

/// A rate of payloads in one direction; 0 means no limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Packets a second.
    pub packets: u32,
    /// Bits of payload a second.
    pub bits: u64,
}

impl Rate {
    /// No limit.
    pub const UNLIMITED: Self = Self { packets: 0, bits: 0 };
}

/// Which of the two was exceeded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Exceeded {
    Packets,
    Bits,
}

/// Two token buckets as two times: when each would be full again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Bucket {
    packets: Mono,
    bits: Mono,
}

impl Bucket {
    /// Takes one packet out of both, or out of none.
    pub(super) fn take(&mut self, now: Mono, rate: &Rate, bytes: usize) -> Result<(), Exceeded> {
        let cost = |units: u64, per_second: u64| {
            SECOND_NANOS.saturating_mul(units).checked_div(per_second).unwrap_or(0)
        };
        let step = |full_at: Mono, cost: u64| {
            let full_at = full_at.max(now).as_nanos().saturating_add(cost);
            let full_at = Mono::from_nanos(full_at);
            // A single packet of any size passes a full bucket.
            let fits = full_at.since(now).as_nanos() <= u128::from(BURST_NANOS.max(cost));
            fits.then_some(full_at)
        };
        let packets = step(self.packets, cost(1, rate.packets.into())).ok_or(Exceeded::Packets)?;
        let bits = step(self.bits, cost(8 * bytes as u64, rate.bits)).ok_or(Exceeded::Bits)?;
        *self = Self { packets, bits };
        Ok(())
    }
}

/// The way of a payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Direction {
    FromClient,
    ToClient,
}

impl Direction {
    /// What is counted beyond the packets, the bits and the total.
    const fn reasons(self) -> [Id; 3] {
        match self {
            Self::FromClient => {
                [Id::RelayDropPacketRate, Id::RelayDropBitRate, Id::RelayDropTotalRate]
            }
            Self::ToClient => {
                [Id::RelayDropPacketRateOut, Id::RelayDropBitRateOut, Id::RelayDropTotalRateOut]
            }
        }
    }
}

impl Relay {
    /// Whether a payload for a client is within the rates; beyond them it is counted, and must not
    /// be sent. For every packet out: two divisions, no lock, no allocation.
    #[must_use]
    pub fn charge(
        &mut self,
        now: Mono,
        allocation: AllocationHandle,
        bytes: usize,
        counters: &mut Counters,
    ) -> bool {
        let live = self.table.resolve(allocation).map(|_| allocation.index);
        let within = live
            .ok_or(Id::RelayDropNoAllocation)
            .and_then(|index| self.take(now, index, Direction::ToClient, bytes));
        within.map_err(|reason| counters.inc(reason)).is_ok()
    }

    /// Takes a payload out of the buckets of its allocation and of all; or says why not.
    pub(super) fn take(
        &mut self,
        now: Mono,
        index: u32,
        direction: Direction,
        bytes: usize,
    ) -> Result<(), Id> {
        let limits = &self.config.limits;
        let [packets, bits, total] = direction.reasons();
        let allocation = self.table.get_mut(index).ok_or(Id::RelayDropNoAllocation)?;
        let (own, all) = match direction {
            Direction::FromClient => (&mut allocation.sent, &mut self.total_sent),
            Direction::ToClient => (&mut allocation.received, &mut self.total_received),
        };
        own.take(now, &limits.allocation_rate, bytes).map_err(|exceeded| match exceeded {
            Exceeded::Packets => packets,
            Exceeded::Bits => bits,
        })?;
        all.take(now, &limits.total_rate, bytes).map_err(|_| total)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(rate: Rate, bytes: usize, per_second: u64, seconds: u64) -> u64 {
        let mut bucket = Bucket::default();
        let step = SECOND_NANOS / per_second;
        (0..per_second * seconds)
            .filter(|n| bucket.take(Mono::from_nanos(n * step), &rate, bytes).is_ok())
            .count() as u64
    }

    #[test]
    fn sustained_rate_is_the_limit_plus_half_a_second_of_burst() {
        let packets = Rate { packets: 100, bits: 0 };
        assert!((1_049..=1_051).contains(&sent(packets, 1_200, 1_000, 10)));
        let bits = Rate { packets: 0, bits: 1_000_000 };
        assert!((1_048..=1_051).contains(&sent(bits, 1_250, 1_000, 10)));
        assert_eq!(sent(packets, 1_200, 100, 10), 1_000, "at the limit nothing is lost");
        assert_eq!(sent(Rate::UNLIMITED, 1_200, 10_000, 1), 10_000);
    }

    #[test]
    fn refused_packet_costs_nothing_in_either_bucket() {
        let rate = Rate { packets: 2, bits: 8_000 };
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(Mono::ZERO, &rate, 500), Ok(()));
        assert_eq!(bucket.take(Mono::ZERO, &rate, 1), Err(Exceeded::Packets));
        let rate = Rate { packets: 0, ..rate };
        let before = bucket;
        assert_eq!(bucket.take(Mono::ZERO, &rate, 1), Err(Exceeded::Bits));
        assert_eq!(bucket, before);
    }

    #[test]
    fn packet_larger_than_the_burst_passes_a_full_bucket() {
        let rate = Rate { packets: 0, bits: 8 };
        let mut bucket = Bucket::default();
        assert_eq!(bucket.take(Mono::ZERO, &rate, 1_400), Ok(()));
        assert_eq!(bucket.take(Mono::from_nanos(SECOND_NANOS), &rate, 1), Err(Exceeded::Bits));
    }
}
