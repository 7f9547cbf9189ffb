//! Deadlines of allocations: a binary heap with lazy updates. A deadline that moves back costs
//! nothing until the old one comes; the table's `armed` says which entry is the current one.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::table::Table;
use crate::ids::AllocationHandle;
use crate::time::Mono;

/// Not armed.
pub(super) const NEVER: Mono = Mono::from_nanos(u64::MAX);
/// Stale entries that are always tolerated.
const SLACK: usize = 1024;

type Entry = Reverse<(Mono, u32, u32)>;

#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Entry>,
}

impl Timers {
    /// The earliest deadline; a stale one merely wakes the shard for nothing.
    pub(super) fn next(&self) -> Option<Mono> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes a due entry that is still its allocation's current one.
    pub(super) fn pop_due(&mut self, now: Mono, table: &mut Table) -> Option<AllocationHandle> {
        while self.next().is_some_and(|at| at <= now) {
            let Reverse((at, index, generation)) = self.heap.pop()?;
            let handle = AllocationHandle { index, generation };
            if table.resolve(handle).is_some_and(|allocation| allocation.armed == at) {
                table.get_mut(index)?.armed = NEVER;
                return Some(handle);
            }
        }
        None
    }

    /// Makes sure an entry exists no later than the allocation's next deadline.
    pub(super) fn arm(&mut self, index: u32, table: &mut Table) {
        let Some(handle) = table.handle(index) else { return };
        let Some(allocation) = table.get_mut(index) else { return };
        let at = allocation.next_deadline();
        if at < allocation.armed {
            allocation.armed = at;
            self.heap.push(Reverse((at, index, handle.generation)));
        }
        // Allocations that come and go leave stale entries: swept when they are the majority, so
        // that memory stays proportional to what lives, at a constant cost per entry.
        if self.heap.len() > 2 * table.len() + SLACK {
            self.heap.retain(|Reverse((at, index, generation))| {
                let handle = AllocationHandle { index: *index, generation: *generation };
                table.resolve(handle).is_some_and(|allocation| allocation.armed == *at)
            });
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.heap.len()
    }
}
