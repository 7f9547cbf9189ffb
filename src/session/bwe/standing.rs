//! Whether a queue stands on the way: one that neither grows nor shrinks, because it is full or is
//! fed as fast as it empties, has no trend for [`super::delay`] to see. But the least delay of late
//! is far above the least there was.

/// How far back the floors look at least, ms; at most twice as far.
const BASE: f64 = 5_000.0;
const RECENT: f64 = 400.0;
/// A queue stands when the least delay of late is so much above the least known, ms, for so long.
const HIGH: f64 = 60.0;
const LONG: f64 = 400.0;

/// The least of what was seen in one or two spans of time.
#[derive(Clone, Copy, Debug)]
struct Floor {
    now: f64,
    before: f64,
    turned: f64,
}

impl Floor {
    const fn new() -> Self {
        Self { now: f64::INFINITY, before: f64::INFINITY, turned: f64::NEG_INFINITY }
    }

    fn add(&mut self, at: f64, value: f64, span: f64) -> f64 {
        if at - self.turned >= span {
            self.before = if at - self.turned < 2.0 * span { self.now } else { f64::INFINITY };
            (self.now, self.turned) = (value, at);
        }
        self.now = self.now.min(value);
        self.now.min(self.before)
    }
}

/// Detector of standing queues; times in ms.
#[derive(Debug)]
pub(super) struct Standing {
    base: Floor,
    recent: Floor,
    since: Option<f64>,
    newest: f64,
}

impl Standing {
    pub(super) const fn new() -> Self {
        Self { base: Floor::new(), recent: Floor::new(), since: None, newest: 0.0 }
    }

    /// A packet arrived; in order of arrival.
    pub(super) fn on_packet(&mut self, sent: f64, arrival: f64) {
        let delay = arrival - sent;
        let base = self.base.add(arrival, delay, BASE);
        let recent = self.recent.add(arrival, delay, RECENT);
        let since = (recent - base > HIGH).then(|| self.since.unwrap_or(arrival));
        self.since = since;
        self.newest = arrival;
    }

    /// For how long a queue has stood, ms; what arrived meanwhile is what the path carries.
    pub(super) fn stands(&self) -> Option<f64> {
        let long = self.since.map(|since| self.newest - since);
        long.filter(|long| *long >= LONG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_stands_is_seen_and_jitter_is_none() {
        let mut standing = Standing::new();
        let mut feed = |from: u64, to: u64, delay: u64| {
            for at in (from..to).step_by(40) {
                let jitter = at * 7_919 % 120;
                standing.on_packet(at as f64, (at + delay + jitter) as f64);
            }
            standing.stands().is_some()
        };
        assert!(!feed(0, 5_000, 30));
        assert!(!feed(5_000, 5_600, 130));
        assert!(feed(5_600, 8_000, 130));
        assert!(!feed(8_000, 9_000, 40));
        // Another way, longer for good, is taken for what it is in the end.
        assert!(!feed(9_000, 40_000, 230));
    }
}
