//! A rate, as a bucket that fills again.

use crate::time::Mono;

/// How much of something, and how fast again.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Rate {
    /// At once.
    pub burst: u32,
    /// A second.
    pub per_second: u32,
}

/// What is left of a [`Rate`].
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Bucket {
    rate: Rate,
    left: f64,
    at: Mono,
}

impl Bucket {
    /// Full.
    #[must_use]
    pub fn new(rate: Rate, now: Mono) -> Self {
        Self { rate, left: f64::from(rate.burst), at: now }
    }

    /// Takes `amount`, if that much is left.
    pub fn take(&mut self, now: Mono, amount: u32) -> bool {
        let refilled = now.since(self.at).as_secs_f64() * f64::from(self.rate.per_second);
        self.left = (self.left + refilled).min(f64::from(self.rate.burst));
        self.at = self.at.max(now);
        let enough = self.left >= f64::from(amount);
        if enough {
            self.left -= f64::from(amount);
        }
        enough
    }
}
