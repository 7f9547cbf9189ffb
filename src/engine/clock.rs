//! The one place that reads the clocks.

use std::time::{Duration, Instant, SystemTime};

use crate::time::{Mono, Now, Unix};

/// Reads both clocks; all clocks of a process share one start.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock {
    /// Starts at zero.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the home of the clock")]
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }

    /// The instant of [`Mono::ZERO`], for libraries that want instants.
    #[must_use]
    pub const fn zero(&self) -> Instant {
        self.start
    }

    /// Both clocks, now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the home of the clock")]
    pub fn now(&self) -> Now {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.mono(), unix: Unix::from_micros(micros(unix)) }
    }

    /// The monotonic clock alone.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "the home of the clock")]
    pub fn mono(&self) -> Mono {
        Mono::ZERO.plus(Instant::now().saturating_duration_since(self.start))
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}
