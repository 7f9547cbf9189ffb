//! Memory that goes to another shard and is used again once that has read it.

use std::sync::Arc;

/// Slabs to be used again, so that a warm shard allocates nothing. The sender keeps a reference of
/// each: when it is the only one left, the receiver is done.
#[derive(Debug)]
pub struct Slabs<T> {
    kept: Vec<Arc<T>>,
    most: usize,
}

impl<T: Default> Slabs<T> {
    /// Keeps `most` at the most.
    #[must_use]
    pub const fn new(most: usize) -> Self {
        Self { kept: Vec::new(), most }
    }

    /// A slab that nobody else has; what was in it still is.
    pub fn take(&mut self) -> Arc<T> {
        // A slab another shard still reads is passed over; the oldest are in front.
        let free = self.kept.iter().position(|slab| Arc::strong_count(slab) == 1);
        let slab = free.map(|at| self.kept.swap_remove(at));
        slab.filter(|slab| Arc::strong_count(slab) == 1).unwrap_or_default()
    }

    /// Gives a slab back; others may still read it.
    pub fn put(&mut self, slab: Arc<T>) {
        if self.kept.len() < self.most {
            self.kept.push(slab);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slab_is_used_again_once_its_reader_is_done() {
        let mut slabs: Slabs<Vec<u8>> = Slabs::new(2);
        let first = slabs.take();
        let reader = Arc::clone(&first);
        let at = Arc::as_ptr(&first);
        slabs.put(first);
        assert_ne!(Arc::as_ptr(&slabs.take()), at, "still read");
        drop(reader);
        assert_eq!(Arc::as_ptr(&slabs.take()), at);
    }

    #[test]
    fn no_more_slabs_than_agreed_are_kept() {
        let mut slabs: Slabs<Vec<u8>> = Slabs::new(2);
        for _ in 0..5 {
            slabs.put(Arc::default());
        }
        assert_eq!(slabs.kept.len(), 2);
    }
}
