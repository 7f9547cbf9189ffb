//! Time as an argument. Layers 0 to 2 never read a clock: every call takes a [`Now`].

use std::time::Duration;

/// Monotonic time: nanoseconds since an arbitrary start of the process (or of a simulation).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Mono(u64);

impl Mono {
    /// The arbitrary start.
    pub const ZERO: Self = Self(0);

    /// From nanoseconds since the start.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the start.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// `self - earlier`, zero when `earlier` is later: no underflow is possible.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// `self + delay`, saturating.
    #[must_use]
    pub const fn plus(self, delay: Duration) -> Self {
        let nanos = delay.as_nanos();
        let nanos = if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 };
        Self(self.0.saturating_add(nanos))
    }
}

/// Wall-clock time: microseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Unix(u64);

impl Unix {
    /// From microseconds since 1970.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }

    /// From seconds since 1970.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since 1970.
    #[must_use]
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / 1_000_000
    }

    /// The 64-bit NTP timestamp (32.32 fixed point, since 1900) of RFC 3550 section 4.
    #[must_use]
    pub const fn as_ntp(self) -> u64 {
        const SECS_1900_TO_1970: u64 = 2_208_988_800;
        let secs = (self.0 / 1_000_000).wrapping_add(SECS_1900_TO_1970);
        let frac = ((self.0 % 1_000_000) << 32) / 1_000_000;
        (secs << 32) | frac
    }
}

/// One reading of both clocks, taken once per batch of input.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Now {
    /// For intervals and deadlines.
    pub mono: Mono,
    /// For credentials, tokens and sender reports.
    pub unix: Unix,
}

impl Now {
    /// The same instant moved on by `by`, on both clocks (scripts and simulations).
    #[must_use]
    pub const fn advanced(self, by: Duration) -> Self {
        Self {
            mono: self.mono.plus(by),
            unix: Unix(self.unix.0.saturating_add(by.as_micros() as u64)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ntp_of_1970_is_the_offset() {
        assert_eq!(Unix::from_secs(0).as_ntp(), 2_208_988_800 << 32);
        assert_eq!(Unix::from_micros(500_000).as_ntp() & 0xffff_ffff, 1 << 31);
    }

    #[test]
    fn since_never_underflows() {
        assert_eq!(Mono::from_nanos(1).since(Mono::from_nanos(2)), Duration::ZERO);
    }
}
