//! A replay window over a growing index (RFC 3711 section 3.3.2).

/// Packets the window remembers.
pub(super) const WINDOW: u64 = 1024;

const WORDS: usize = (WINDOW / 64) as usize;

/// The newest index and one bit for each of the [`WINDOW`] indices up to it.
#[derive(Debug, Default)]
pub(super) struct Window {
    highest: Option<u64>,
    /// A ring: the bit of index `i` is `i % WINDOW`, so nothing is shifted when it moves on.
    bits: [u64; WORDS],
}

impl Window {
    pub(super) fn highest(&self) -> Option<u64> {
        self.highest
    }

    /// Neither seen nor too old.
    pub(super) fn is_fresh(&self, index: u64) -> bool {
        let Some(highest) = self.highest else { return true };
        if index > highest {
            return true;
        }
        highest - index < WINDOW && self.bits[word(index)] & bit(index) == 0
    }

    /// Remembers an index that was fresh and whose packet proved authentic.
    pub(super) fn accept(&mut self, index: u64) {
        match self.highest {
            Some(highest) if index <= highest => {}
            Some(highest) if index - highest < WINDOW => {
                for skipped in highest + 1..=index {
                    self.bits[word(skipped)] &= !bit(skipped);
                }
                self.highest = Some(index);
            }
            _ => {
                self.bits = [0; WORDS];
                self.highest = Some(index);
            }
        }
        self.bits[word(index)] |= bit(index);
    }
}

const fn word(index: u64) -> usize {
    (index % WINDOW / 64) as usize
}

const fn bit(index: u64) -> u64 {
    1 << (index % 64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn window_agrees_with_a_set(steps in prop::collection::vec(-1200i64..1200, 1..400)) {
            let mut window = Window::default();
            let mut seen = BTreeSet::new();
            let mut at = 5_000i64;
            for step in steps {
                at = (at + step).max(0);
                let index = at as u64;
                let newest = seen.last().copied();
                let expected = !seen.contains(&index)
                    && newest.is_none_or(|n: u64| index + WINDOW > n);
                prop_assert_eq!(window.is_fresh(index), expected);
                if expected {
                    window.accept(index);
                    seen.insert(index);
                }
            }
        }
    }
}
