//! What losses say: on a path that always loses some, nothing; where they grow with what is sent,
//! that it is too much.

/// A verdict needs so many packets and so much time, ms.
const PACKETS: u32 = 50;
const TIME: f64 = 300.0;
/// More than this above what the path loses anyway is congestion.
const EXCESS: f64 = 0.10;
/// A path is not taken to lose more than this by nature.
const MOST_INHERENT: f64 = 0.25;
/// Losses are the path's own when so often in a row they stayed what they were after less was sent.
const PROOFS: u32 = 2;

/// Losses of a path.
#[derive(Clone, Debug, Default)]
pub(super) struct Loss {
    arrived: u32,
    lost: u32,
    since: f64,
    /// What the path loses whatever is sent.
    inherent: f64,
    /// Losses at the time of the last decrease and what they should be after it, if they were due
    /// to what was sent; until the next window tells.
    before: Option<(f64, f64)>,
    proofs: u32,
    congested: bool,
    /// The window after a decrease still shows what was sent before it.
    settling: bool,
    latest: f64,
}

impl Loss {
    /// Adds to the window. `taken_back`: reported lost before, and arrived.
    pub(super) fn add(&mut self, arrived: u32, lost: u32, taken_back: u32) {
        self.arrived = self.arrived.saturating_add(arrived);
        self.lost = self.lost.saturating_add(lost).saturating_sub(taken_back);
    }

    /// Share lost in the last whole window.
    pub(super) const fn latest(&self) -> f64 {
        self.latest
    }

    /// Whether the last verdict was that too much is sent.
    pub(super) const fn is_congested(&self) -> bool {
        self.congested
    }

    /// Closes the window when it is long enough: the factor by which to send less, if any.
    pub(super) fn verdict(&mut self, now: f64) -> Option<f64> {
        let all = self.arrived + self.lost;
        if all < PACKETS || now - self.since < TIME {
            return None;
        }
        let share = f64::from(self.lost) / f64::from(all);
        (self.arrived, self.lost, self.since) = (0, 0, now);
        self.latest = share;
        if std::mem::take(&mut self.settling) {
            return None;
        }
        if let Some((before, after)) = self.before.take() {
            self.proofs = if share > (before + after) / 2.0 { self.proofs + 1 } else { 0 };
            if self.proofs >= PROOFS {
                self.inherent = share.min(MOST_INHERENT);
                self.proofs = 0;
            }
        }
        if share < self.inherent {
            self.inherent += 0.3 * (share - self.inherent);
        }
        let excess = share - self.inherent;
        self.congested = excess > EXCESS;
        if !self.congested {
            return None;
        }
        let factor = 1.0 - 0.5 * excess;
        self.before = Some((share, 1.0 - (1.0 - share) / factor));
        self.settling = true;
        Some(factor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_that_do_not_follow_what_is_sent_are_the_paths_own() {
        let mut loss = Loss::default();
        let mut rate = 1.0;
        for window in 1..100 {
            loss.add(80, 20, 0);
            rate *= loss.verdict(f64::from(window) * 500.0).unwrap_or(1.0);
        }
        assert!(rate > 0.75, "{rate}");
    }

    #[test]
    fn losses_that_follow_what_is_sent_bring_it_down_to_what_fits() {
        let mut loss = Loss::default();
        let mut rate = 2.0_f64;
        for window in 1..200 {
            let lost = (100.0 * (1.0 - 1.0 / rate)).max(0.0) as u32;
            loss.add(100 - lost, lost, 0);
            rate *= loss.verdict(f64::from(window) * 500.0).unwrap_or(1.0);
        }
        assert!((1.0..1.25).contains(&rate), "{rate}");
    }
}
