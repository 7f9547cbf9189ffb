//! The ways to a client that a valid check has proved, and the one it has chosen.

use std::time::Duration;

use crate::ids::Path;
use crate::time::Mono;

/// Paths kept: a browser checks from about four allocations.
const MAX_PATHS: usize = 8;

/// Consent lasts this long after a valid check (RFC 7675 section 5.1).
pub(super) const CONSENT: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Proved {
    path: Path,
    last_check: Mono,
}

/// Proved paths, bounded.
#[derive(Debug, Default)]
pub(super) struct Paths {
    proved: Vec<Proved>,
    nominated: Option<Path>,
}

impl Paths {
    /// Notes a valid check.
    pub(super) fn on_check(&mut self, now: Mono, path: Path) {
        if let Some(known) = self.proved.iter_mut().find(|known| known.path == path) {
            known.last_check = now;
            return;
        }
        if self.proved.len() >= MAX_PATHS {
            let nominated = self.nominated;
            let oldest = (self.proved.iter().enumerate())
                .filter(|(_, known)| Some(known.path) != nominated)
                .min_by_key(|(_, known)| known.last_check)
                .map(|(at, _)| at);
            if let Some(at) = oldest {
                self.proved.swap_remove(at);
            }
        }
        self.proved.push(Proved { path, last_check: now });
    }

    pub(super) fn is_proved(&self, path: Path) -> bool {
        self.proved.iter().any(|known| known.path == path)
    }

    pub(super) fn nominated(&self) -> Option<Path> {
        self.nominated
    }

    /// Chooses a proved path; true when that is news.
    pub(super) fn nominate(&mut self, path: Path) -> bool {
        let news = self.is_proved(path) && self.nominated != Some(path);
        if news {
            self.nominated = Some(path);
        }
        news
    }

    /// Forgets paths without consent. When the nominated one was among them the path checked last
    /// takes its place, and is returned.
    pub(super) fn expire(&mut self, now: Mono) -> Option<Path> {
        self.proved.retain(|known| now < known.last_check.plus(CONSENT));
        let nominated = self.nominated?;
        if self.is_proved(nominated) {
            return None;
        }
        let next = self.proved.iter().max_by_key(|known| known.last_check).map(|k| k.path)?;
        self.nominated = Some(next);
        Some(next)
    }

    /// When all consent is gone.
    pub(super) fn consent_until(&self) -> Option<Mono> {
        self.proved.iter().map(|known| known.last_check.plus(CONSENT)).max()
    }

    /// When [`Self::expire`] has something to do.
    pub(super) fn next_expiry(&self) -> Option<Mono> {
        self.proved.iter().map(|known| known.last_check.plus(CONSENT)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AllocationHandle, ShardId};

    fn path(index: u32) -> Path {
        Path { shard: ShardId(0), allocation: AllocationHandle { index, generation: 0 }, media: 0 }
    }

    fn at(seconds: u64) -> Mono {
        Mono::ZERO.plus(Duration::from_secs(seconds))
    }

    #[test]
    fn paths_are_bounded_and_the_nominated_one_stays() {
        let mut paths = Paths::default();
        paths.on_check(at(0), path(0));
        assert!(paths.nominate(path(0)));
        assert!(!paths.nominate(path(0)), "no news");
        assert!(!paths.nominate(path(99)), "never proved");
        for n in 1..100 {
            paths.on_check(at(u64::from(n) / 10), path(n));
        }
        assert_eq!(paths.proved.len(), MAX_PATHS);
        assert!(paths.is_proved(path(0)) && paths.is_proved(path(99)));
    }

    #[test]
    fn a_nominated_path_without_consent_gives_way_to_a_live_one() {
        let mut paths = Paths::default();
        paths.on_check(at(0), path(0));
        paths.on_check(at(5), path(1));
        paths.nominate(path(0));
        assert_eq!(paths.next_expiry(), Some(at(30)));
        assert_eq!(paths.consent_until(), Some(at(35)));
        assert_eq!(paths.expire(at(29)), None);
        assert_eq!(paths.expire(at(30)), Some(path(1)));
        assert_eq!(paths.nominated(), Some(path(1)));
        assert_eq!(paths.expire(at(40)), None);
        assert_eq!(paths.consent_until(), None);
    }
}
