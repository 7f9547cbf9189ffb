//! A publisher's clock in terms of ours.

use std::time::Duration;

use crate::time::Unix;

/// The minimum is taken over one to two of these, so that a drifting clock is followed.
const BUCKET: Duration = Duration::from_secs(30);
/// One of the two clocks was set when they disagree by more than this.
const STEP_MICROS: u64 = 1_000_000;
const SECS_1900_TO_1970: i64 = 2_208_988_800;

/// One instant of a track on its media clock and on ours.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// Media clock, as in [`super::PacketHead::timestamp`].
    pub rtp: u32,
    /// The server's time.
    pub unix: Unix,
}

impl Clock {
    /// The media clock at `unix`; `rate` in Hz.
    #[must_use]
    pub fn rtp_at(&self, unix: Unix, rate: u32) -> u32 {
        let elapsed = i128::from(unix.as_micros()) - i128::from(self.unix.as_micros());
        let ticks = (elapsed * i128::from(rate)).div_euclid(1_000_000);
        self.rtp.wrapping_add(ticks as u32)
    }
}

/// Microseconds from a publisher's NTP clock to ours. One for all its tracks: they stay in step
/// with each other whatever the network does to single sender reports. The report with the
/// shortest way tells the offset best, hence the minimum.
#[derive(Debug, Default)]
pub(crate) struct Offset {
    current: Option<(Unix, i64)>,
    before: Option<i64>,
}

impl Offset {
    /// A sender report with the time `ntp` (32.32, since 1900) arrived.
    pub(crate) fn observe(&mut self, arrival: Unix, ntp: u64) {
        let offset = (arrival.as_micros() as i64).saturating_sub(micros(ntp));
        if self.get().is_some_and(|known| offset.saturating_sub(known).unsigned_abs() > STEP_MICROS)
        {
            *self = Self::default();
        }
        match &mut self.current {
            Some((since, least))
                if arrival.as_micros().saturating_sub(since.as_micros())
                    < BUCKET.as_micros() as u64 =>
            {
                *least = offset.min(*least);
            }
            current => {
                self.before = current.map(|(_, least)| least);
                *current = Some((arrival, offset));
            }
        }
    }

    /// Our time of the publisher's `ntp`; `None` before the first report.
    pub(crate) fn to_unix(&self, ntp: u64) -> Option<Unix> {
        let micros = micros(ntp).saturating_add(self.get()?);
        Some(Unix::from_micros(u64::try_from(micros).unwrap_or(0)))
    }

    fn get(&self) -> Option<i64> {
        let (_, least) = self.current?;
        Some(self.before.map_or(least, |before| before.min(least)))
    }
}

/// Microseconds since 1970 of an NTP time of era 0.
fn micros(ntp: u64) -> i64 {
    let secs = (ntp >> 32) as i64 - SECS_1900_TO_1970;
    let fraction = ((ntp & 0xFFFF_FFFF) * 1_000_000 + (1 << 31)) >> 32;
    secs * 1_000_000 + fraction as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unix(millis: u64) -> Unix {
        Unix::from_micros(millis * 1000)
    }

    #[test]
    fn the_earliest_arrival_decides() {
        let mut offset = Offset::default();
        assert_eq!(offset.to_unix(1), None);
        // The publisher's clock is 500 s behind; ways of 80, 20 and 300 ms.
        for (sent, way) in [(0, 80), (1000, 20), (2000, 300)] {
            offset.observe(unix(500_000 + sent + way), unix(sent).as_ntp());
        }
        assert_eq!(offset.to_unix(unix(2000).as_ntp()), Some(unix(502_020)));
    }

    #[test]
    fn an_old_minimum_is_forgotten() {
        let mut offset = Offset::default();
        for second in 0..120 {
            // The publisher's clock runs 1000 ppm slow.
            offset.observe(unix(1_000_000 + second * 1001), unix(second * 1000).as_ntp());
        }
        let at = offset.to_unix(unix(119_000).as_ntp()).expect("known").as_micros();
        assert!((1_119_055_000..=1_119_119_000).contains(&at), "{at}");
    }

    #[test]
    fn a_stepped_clock_starts_anew() {
        let mut offset = Offset::default();
        offset.observe(unix(10_000), unix(10_000).as_ntp());
        offset.observe(unix(11_000), unix(3_600_000).as_ntp());
        assert_eq!(offset.to_unix(unix(3_600_500).as_ntp()), Some(unix(11_500)));
    }

    #[test]
    fn media_clock_runs_both_ways() {
        let clock = Clock { rtp: 100, unix: unix(10_000) };
        assert_eq!(clock.rtp_at(unix(11_000), 90_000), 90_100);
        assert_eq!(clock.rtp_at(unix(9_000), 48_000), 100u32.wrapping_sub(48_000));
    }

    #[test]
    fn any_ntp_time_is_borne() {
        let mut offset = Offset::default();
        for ntp in [0, 1, u64::MAX, u64::MAX >> 1] {
            offset.observe(unix(1), ntp);
            offset.observe(Unix::from_micros(u64::MAX), ntp);
            offset.to_unix(!ntp);
        }
    }
}
