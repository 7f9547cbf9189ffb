//! Revocation: allocations whose credential was struck end, and it opens no others.
//!
//! New requests are refused from the moment a shard is told. Live allocations are looked through
//! a batch at a time, so that a large table never holds up media.

use super::Relay;
use super::ending::End;
use crate::auth::revocation::{Identity, Revocation, Revoked};
use crate::metrics::Counters;
use crate::time::{Now, Unix};

/// Slots looked at in one call of [`Relay::handle_timeout`].
const SWEEP_BATCH: u32 = 2_048;
/// Targets that are kept, expired or not, before any is forgotten.
const SLACK: usize = 1_024;

/// What is revoked, and how much of the table is still to be held against it.
#[derive(Default)]
pub(super) struct Strikes {
    revoked: Revoked,
    /// At so many targets the expired ones are forgotten: rarely, as that looks at all of them.
    purge_at: usize,
    /// Where the sweep goes on.
    next: u32,
    /// Slots left to look at: a new revocation starts a whole round from where the last one was.
    left: u32,
    /// Slots there were when `left` was last right.
    slots: u32,
}

impl Strikes {
    pub(super) const fn is_sweeping(&self) -> bool {
        self.left > 0
    }
}

impl Relay {
    /// Takes revocations in. Nothing they strike is served from now on; live allocations end in
    /// the next calls of [`Relay::handle_timeout`], and are told by [`Relay::poll_ended`].
    pub fn revoke(&mut self, now: Now, revocations: &[Revocation]) {
        self.clock = self.clock.max(now.mono);
        if self.strikes.revoked.len() > self.strikes.purge_at {
            self.strikes.revoked.purge(now.unix);
            self.strikes.purge_at = SLACK.max(2 * self.strikes.revoked.len());
        }
        for revocation in revocations {
            self.strikes.revoked.add(revocation);
        }
        self.strikes.slots = self.table.slots();
        self.strikes.left = self.strikes.slots;
    }

    pub(super) fn is_revoked(&self, now: Unix, who: &Identity) -> bool {
        self.strikes.revoked.covers(now, who)
    }

    /// One batch of the sweep.
    pub(super) fn sweep(&mut self, now: Now, counters: &mut Counters) {
        let slots = self.table.slots();
        if self.strikes.is_sweeping() {
            // A table that grew meanwhile: its new slots are not to take the turns of old ones.
            self.strikes.left += slots.saturating_sub(self.strikes.slots);
            self.strikes.slots = slots;
        }
        for _ in 0..SWEEP_BATCH.min(self.strikes.left) {
            self.strikes.left -= 1;
            let index = if self.strikes.next < slots { self.strikes.next } else { 0 };
            self.strikes.next = index + 1;
            let struck = self
                .table
                .get(index)
                .is_some_and(|allocation| self.is_revoked(now.unix, &allocation.identity()));
            if struck {
                self.end(now, index, End::Revoked, counters);
            }
        }
    }
}
