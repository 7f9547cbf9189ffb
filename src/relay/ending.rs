//! How allocations end: by time, by their owner, with their connection, by revocation; and how a
//! draining relay makes no new ones.

use super::outside::Outlets;
use super::ports::IpFamily;
use super::table::Channel;
use super::{Alternate, Relay};
use crate::auth::turn::Class;
use crate::ids::{AllocationHandle, FiveTuple};
use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now};

/// Allocations looked at in one call of [`Relay::handle_timeout`]: the shard's other work waits.
pub(super) const TIMEOUT_BATCH: usize = 512;

/// Why an allocation ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    Expired,
    Released,
    Disconnected,
    Revoked,
}

impl Relay {
    /// When [`Relay::handle_timeout`] has something to do; may be early, and is in the past while
    /// a large batch is being worked off or live allocations are held against a revocation.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        if self.strikes.is_sweeping() {
            return Some(self.clock);
        }
        let reserved = self.outlets.as_ref().and_then(Outlets::next_deadline);
        [self.timers.next(), reserved].into_iter().flatten().min()
    }

    /// Ends what has expired: allocations, permissions, channels.
    pub fn handle_timeout(&mut self, now: Now, counters: &mut Counters) {
        self.clock = self.clock.max(now.mono);
        self.sweep(now, counters);
        self.forget_reserved(now.mono);
        for _ in 0..TIMEOUT_BATCH {
            let Some(handle) = self.timers.pop_due(now.mono, &mut self.table) else { break };
            let Some(allocation) = self.table.get_mut(handle.index) else { continue };
            if allocation.expires() <= now.mono {
                self.end(now, handle.index, End::Expired, counters);
                continue;
            }
            for until in &mut allocation.permissions {
                if *until != Mono::ZERO && *until <= now.mono {
                    *until = Mono::ZERO;
                    self.permissions = self.permissions.saturating_sub(1);
                }
            }
            for channel in &mut allocation.channels {
                if channel.number != 0 && channel.until <= now.mono {
                    *channel = Channel::default();
                    self.channels = self.channels.saturating_sub(1);
                }
            }
            let relayed = allocation.relayed;
            self.expire_outside(now.mono, handle.index);
            for (family, relayed) in IpFamily::BOTH.into_iter().zip(relayed) {
                if relayed.port != 0 && relayed.expires <= now.mono {
                    self.drop_family(handle.index, family);
                }
            }
            self.timers.arm(handle.index, &mut self.table);
        }
        self.publish(counters);
    }

    /// Ends one relayed address of several, and what belongs to it: RFC 8656 section 8.1.
    pub(super) fn drop_family(&mut self, index: u32, family: IpFamily) {
        let Some(port) = self.table.drop_relayed(index, family) else { return };
        let Some(allocation) = self.table.get_mut(index) else { return };
        let class = allocation.owner.class;
        match class {
            Class::Room => self.config.shared.release(family, port),
            Class::External => {
                self.drop_outside(index, family);
                self.close_outlet(family, port);
                return;
            }
            Class::Forwarder | Class::Probe => {}
        }
        for (place, until) in allocation.permissions.iter_mut().enumerate() {
            let same = self.policy.permission_family(class, place) == Some(family);
            if same && *until != Mono::ZERO {
                *until = Mono::ZERO;
                self.permissions = self.permissions.saturating_sub(1);
            }
        }
        for channel in &mut allocation.channels {
            let address = self.policy.address(channel.peer);
            let same = address.is_some_and(|address| IpFamily::of(&address) == family);
            if same && channel.number != 0 {
                *channel = Channel::default();
                self.channels = self.channels.saturating_sub(1);
            }
        }
    }

    /// From now on new allocations are refused: 300 with the alternate of the client's family (RFC
    /// 8489 section 10), or 508 where there is none. `None` serves again. What lives goes on.
    pub const fn set_draining(&mut self, alternate: Option<Alternate>) {
        self.draining = alternate;
    }

    /// Whether a client has an allocation.
    #[must_use]
    pub fn has_allocation(&self, tuple: FiveTuple) -> bool {
        self.table.find(tuple).is_some()
    }

    /// A client's connection is gone, and with it what was allocated over it: its 5-tuple cannot
    /// come back. Without effect for other transports than streams.
    pub fn on_disconnect(&mut self, now: Now, tuple: FiveTuple, counters: &mut Counters) {
        self.clock = self.clock.max(now.mono);
        if tuple.transport.is_stream()
            && let Some(index) = self.table.find(tuple)
        {
            self.end(now, index, End::Disconnected, counters);
        }
    }

    /// The next allocation that has ended; to be called until `None` after every other call.
    pub fn poll_ended(&mut self) -> Option<AllocationHandle> {
        self.ended.pop_front()
    }

    pub(super) fn end(&mut self, now: Now, index: u32, why: End, counters: &mut Counters) {
        let Some((handle, allocation)) = self.table.remove(index) else { return };
        for (family, relayed) in IpFamily::BOTH.into_iter().zip(&allocation.relayed) {
            match allocation.owner.class {
                Class::Room if relayed.port != 0 => {
                    self.config.shared.release(family, relayed.port);
                }
                Class::External if relayed.port != 0 => self.close_outlet(family, relayed.port),
                _ => {}
            }
        }
        let permissions = allocation.permissions.iter().filter(|until| **until != Mono::ZERO);
        let channels = allocation.channels.iter().filter(|channel| channel.number != 0);
        let outside = allocation.outside_counts();
        let (permissions, channels) = (permissions.count() as u64, channels.count() as u64);
        self.permissions = self.permissions.saturating_sub(permissions + outside.0);
        self.channels = self.channels.saturating_sub(channels + outside.1);
        // Lifetimes are whole seconds and never reach past the session limit.
        let at_limit =
            now.unix.as_micros().saturating_add(1_000_000) > allocation.live_until.as_micros();
        counters.inc(match why {
            End::Released => Id::RelayAllocationsEndedReleased,
            End::Revoked => Id::RelayAllocationsEndedRevoked,
            End::Disconnected => Id::RelayAllocationsEndedDisconnected,
            End::Expired if at_limit => Id::RelayAllocationsEndedSessionLimit,
            End::Expired => Id::RelayAllocationsEndedExpired,
        });
        self.ended.push_back(handle);
        self.publish(counters);
    }
}
