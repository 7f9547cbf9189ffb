//! The reply cap: how many unauthenticated replies a source prefix gets in a second, counted in a
//! count-min sketch of fixed size, so that spoofed sources cannot make it grow.

use std::net::IpAddr;

use rand::Rng;

use super::table::RandomKey;
use crate::time::Mono;

const ROWS: usize = 4;
const COLUMNS: usize = 8192;
const WINDOW_NANOS: u64 = 1_000_000_000;
/// Over the cap one reply in this many still goes out: a spoofer who floods from a carrier's
/// addresses slows that carrier's users down, but cannot shut them out.
const LEAK: u32 = 8;

/// 64 KiB of counters, started anew each second.
pub(super) struct ReplyCap {
    counters: Box<[[u16; COLUMNS]; ROWS]>,
    key: RandomKey,
    window: u64,
    cap: u16,
}

impl ReplyCap {
    /// At most `cap` replies a second for each prefix (and one in eight beyond).
    pub(super) fn new(cap: u16, key: RandomKey) -> Self {
        Self { counters: Box::new([[0; COLUMNS]; ROWS]), key, window: 0, cap }
    }

    /// Whether one more reply may go to `source`; counts it.
    pub(super) fn admit(&mut self, now: Mono, source: IpAddr, rng: &mut impl Rng) -> bool {
        let window = now.as_nanos() / WINDOW_NANOS;
        if window != self.window {
            self.window = window;
            *self.counters = [[0; COLUMNS]; ROWS];
        }
        // IPv6 users own a /64 each: counted as one source.
        let prefix = match source {
            IpAddr::V4(ip) => u64::from(ip.to_bits()),
            IpAddr::V6(ip) => (ip.to_bits() >> 64) as u64,
        };
        let hash = self.key.hash(&[prefix, u64::from(source.is_ipv6())]);
        let column = |row: usize| (hash >> (row * 13)) as usize % COLUMNS;
        let seen = self
            .counters
            .iter()
            .enumerate()
            .filter_map(|(row, counters)| counters.get(column(row)))
            .min()
            .copied()
            .unwrap_or(u16::MAX);
        // Conservative update: only the smallest grow, so that others are overcounted less.
        for (row, counters) in self.counters.iter_mut().enumerate() {
            if let Some(counter) = counters.get_mut(column(row)) {
                *counter = (*counter).max(seen.saturating_add(1));
            }
        }
        seen < self.cap || rng.random_ratio(1, LEAK)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    #[test]
    fn flooded_prefix_is_capped_but_not_muted_and_others_are_not_touched() {
        let mut rng = StdRng::seed_from_u64(1);
        let mut cap = ReplyCap::new(64, RandomKey::new(&mut rng));
        let now = Mono::from_nanos(5_000_000_000);
        let flooded = IpAddr::from([198, 51, 100, 7]);
        let sent = (0..80_064).filter(|_| cap.admit(now, flooded, &mut rng)).count();
        assert!((9_500..10_700).contains(&sent), "64 and one in eight, got {sent}");
        assert!(cap.admit(now, IpAddr::from([198, 51, 100, 8]), &mut rng));
        let next = Mono::from_nanos(6_000_000_000);
        assert!((0..64).all(|_| cap.admit(next, flooded, &mut rng)), "a new second");
    }

    #[test]
    fn one_ipv6_prefix_is_one_source() {
        let mut rng = StdRng::seed_from_u64(2);
        let mut cap = ReplyCap::new(10, RandomKey::new(&mut rng));
        let sent = (0..1_000_u128)
            .filter(|i| {
                let ip = IpAddr::from((0x2001_0db8_u128 << 96 | i).to_be_bytes());
                cap.admit(Mono::ZERO, ip, &mut rng)
            })
            .count();
        assert!((60..250).contains(&sent), "{sent}");
    }

    #[test]
    fn spoofed_sources_do_not_make_it_grow_and_spare_most_of_the_others() {
        let mut rng = StdRng::seed_from_u64(3);
        let mut cap = ReplyCap::new(64, RandomKey::new(&mut rng));
        for spoofed in 0..100_000_u32 {
            cap.admit(Mono::ZERO, IpAddr::from(spoofed.to_be_bytes()), &mut rng);
        }
        let served = (0..100_u8)
            .filter(|i| cap.admit(Mono::ZERO, IpAddr::from([203, 0, 113, *i]), &mut rng))
            .count();
        assert!(served >= 95, "{served}");
        assert_eq!(size_of_val(&*cap.counters), 64 * 1024);
    }
}
