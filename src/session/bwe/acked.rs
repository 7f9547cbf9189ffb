//! How fast bytes went: a window over buckets of time.

const BUCKETS: usize = 32;
/// Buckets of the usual measure.
const USUAL: i64 = 9;
/// Length of a bucket, ms.
const BUCKET: f64 = 50.0;

/// Bytes of the last second and a half, by a clock of the caller's in ms.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    bytes: [u32; BUCKETS],
    /// The bucket of the newest bytes, and the first ever.
    newest: i64,
    first: Option<i64>,
}

impl Meter {
    pub(super) fn add(&mut self, at: f64, bytes: u64) {
        let bucket = (at / BUCKET).floor() as i64;
        if self.first.is_none() {
            self.first = Some(bucket);
            self.newest = bucket;
        }
        self.advance(bucket);
        if self.newest - bucket < BUCKETS as i64
            && let Some(place) = self.bytes.get_mut(bucket.rem_euclid(BUCKETS as i64) as usize)
        {
            *place = place.saturating_add(u32::try_from(bytes).unwrap_or(u32::MAX));
        }
    }

    fn advance(&mut self, bucket: i64) {
        let steps = (bucket.saturating_sub(self.newest)).clamp(0, BUCKETS as i64);
        for step in 0..steps {
            let place = (bucket - step).rem_euclid(BUCKETS as i64) as usize;
            if let Some(place) = self.bytes.get_mut(place) {
                *place = 0;
            }
        }
        self.newest = self.newest.max(bucket);
    }

    /// Bits per second up to `at`, of whole buckets; `None` before there are some.
    pub(super) fn rate(&mut self, at: f64) -> Option<f64> {
        self.over(at, USUAL)
    }

    /// The same over half of that time.
    pub(super) fn recent(&mut self, at: f64) -> Option<f64> {
        self.over(at, USUAL / 2 + 1)
    }

    /// The same over the last `millis`, as far back as is known.
    pub(super) fn over_last(&mut self, at: f64, millis: f64) -> Option<f64> {
        self.over(at, ((millis / BUCKET) as i64).clamp(4, BUCKETS as i64 - 1))
    }

    fn over(&mut self, at: f64, most: i64) -> Option<f64> {
        let first = self.first?;
        let bucket = (at / BUCKET).floor() as i64;
        self.advance(bucket);
        let known = (self.newest - first).min(most);
        if known < 3 {
            return None;
        }
        let places = (self.newest - known..self.newest).map(|n| n.rem_euclid(BUCKETS as i64));
        let bytes = places.filter_map(|place| self.bytes.get(place as usize));
        let bytes: u64 = bytes.map(|bytes| u64::from(*bytes)).sum();
        Some(bytes as f64 * 8_000.0 / (known as f64 * BUCKET))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_is_measured_and_its_end_too() {
        let mut meter = Meter::default();
        for n in 0..200 {
            meter.add(f64::from(n) * 10.0, 125);
        }
        let rate = meter.rate(2_000.0).expect("known");
        assert!((rate - 100_000.0).abs() < 1_000.0, "{rate}");
        assert_eq!(meter.rate(3_000.0), Some(0.0));
        assert_eq!(Meter::default().rate(5.0), None);
    }
}
