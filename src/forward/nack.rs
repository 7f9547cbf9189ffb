//! Which packets of a track are missing, when to ask for them, when to give up.

use std::ops::Range;
use std::time::Duration;

use crate::time::Mono;

/// Most packets missing at once. More is an outage: a keyframe repairs it, 256 repeats do not.
const MAX_MISSING: usize = 256;
/// How long a packet may be merely reordered. Longer costs latency of the repair, shorter asks
/// for what is on its way.
const REORDERING_TIME: Duration = Duration::from_millis(10);
/// The same in packets that came after it.
const REORDERING_PACKETS: u64 = 3;
/// Wait after the first request; each further wait is half as long again, up to the cap. Shorter
/// than a round trip asks twice for one packet.
const FIRST_RETRY: Duration = Duration::from_millis(40);
const LONGEST_RETRY: Duration = Duration::from_millis(200);
const MAX_TRIES: u8 = 10;
/// After this a player has no use for the packet.
const GIVE_UP: Duration = Duration::from_secs(1);
/// The same where the publisher does not take NACKs: only reordering can bring it.
const GIVE_UP_WITHOUT_NACK: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
struct Entry {
    extended: u64,
    since: Mono,
    due: Mono,
    wait: Duration,
    tries: u8,
}

/// Missing packets of one source, ascending.
#[derive(Debug)]
pub(crate) struct Missing {
    entries: Vec<Entry>,
    nack: bool,
    next: Option<Mono>,
}

impl Missing {
    /// `nack`: the publisher answers NACKs.
    pub(crate) fn new(nack: bool) -> Self {
        Self { entries: Vec::with_capacity(MAX_MISSING), nack, next: None }
    }

    /// Notes that a packet jumped over `gap`. Returns how many packets were given up for it.
    pub(crate) fn on_gap(&mut self, now: Mono, gap: Range<u64>) -> u64 {
        let length = gap.end.saturating_sub(gap.start);
        if self.entries.len() as u64 + length > MAX_MISSING as u64 {
            return self.clear() + length;
        }
        let due = now.plus(if self.nack { REORDERING_TIME } else { GIVE_UP_WITHOUT_NACK });
        for extended in gap {
            let entry = Entry { extended, since: now, due, wait: FIRST_RETRY, tries: 0 };
            self.entries.push(entry);
            self.wake_at(due);
        }
        0
    }

    /// Notes the newest packet: what it leaves far behind is not merely reordered.
    pub(crate) fn on_newest(&mut self, now: Mono, newest: u64) {
        if !self.nack {
            return;
        }
        let mut hurried = false;
        for entry in self.entries.iter_mut().rev().take_while(|entry| entry.tries == 0) {
            if newest.saturating_sub(entry.extended) >= REORDERING_PACKETS && entry.due > now {
                entry.due = now;
                hurried = true;
            }
        }
        if hurried {
            self.wake_at(now);
        }
    }

    /// Notes an arrival. Returns whether the packet had been asked for.
    pub(crate) fn on_found(&mut self, extended: u64) -> bool {
        match self.entries.binary_search_by_key(&extended, |entry| entry.extended) {
            Ok(index) => self.entries.remove(index).tries > 0,
            Err(_) => false,
        }
    }

    /// A keyframe starts at `extended`: what was asked for before it is of no use any more.
    /// Returns how many packets were given up.
    pub(crate) fn on_keyframe(&mut self, extended: u64) -> u64 {
        let before = self.entries.len();
        self.entries.retain(|entry| entry.extended >= extended || entry.tries == 0);
        (before - self.entries.len()) as u64
    }

    /// Forgets all. Returns how many there were.
    pub(crate) fn clear(&mut self) -> u64 {
        let count = self.entries.len() as u64;
        self.entries.clear();
        self.next = None;
        count
    }

    /// Puts what is to be asked for now, at most `room`, into `ask` (cleared first) and returns
    /// how many packets are given up.
    pub(crate) fn sweep(&mut self, now: Mono, room: usize, ask: &mut Vec<u16>) -> u64 {
        ask.clear();
        if self.next.is_none_or(|next| next > now) {
            return 0;
        }
        let before = self.entries.len();
        let nack = self.nack;
        let mut next: Option<Mono> = None;
        self.entries.retain_mut(|entry| {
            if entry.due <= now {
                let done = !nack || entry.tries >= MAX_TRIES;
                if done || now.since(entry.since) >= GIVE_UP {
                    return false;
                }
                if ask.len() < room {
                    ask.push(entry.extended as u16);
                    entry.tries += 1;
                    entry.due = now.plus(entry.wait).min(entry.since.plus(GIVE_UP));
                    entry.wait = (entry.wait * 3 / 2).min(LONGEST_RETRY);
                }
            }
            next = Some(next.map_or(entry.due, |at| at.min(entry.due)));
            true
        });
        self.next = next;
        (before - self.entries.len()) as u64
    }

    /// When [`Missing::sweep`] has something to do.
    pub(crate) const fn poll_timeout(&self) -> Option<Mono> {
        self.next
    }

    fn wake_at(&mut self, at: Mono) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Mono {
        Mono::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn requests_back_off_and_end_after_a_second() {
        let mut missing = Missing::new(true);
        let mut ask = Vec::new();
        assert_eq!(missing.on_gap(at(0), 70_000..70_002), 0);
        let mut script = Vec::new();
        let mut lost = 0;
        while let Some(next) = missing.poll_timeout() {
            lost += missing.sweep(next, 99, &mut ask);
            script.push((next.as_nanos() / 1_000_000, ask.clone()));
        }
        let both = vec![4464, 4465];
        let times: Vec<_> = script.iter().map(|(time, _)| *time).collect();
        assert_eq!(times, [10, 50, 110, 200, 335, 535, 735, 935, 1000]);
        assert!(script[..8].iter().all(|(_, ask)| *ask == both));
        assert!(script[8].1.is_empty());
        assert_eq!(lost, 2);
    }

    #[test]
    fn three_newer_packets_end_the_patience() {
        let mut missing = Missing::new(true);
        let mut ask = Vec::new();
        missing.on_gap(at(0), 10..11);
        missing.on_newest(at(1), 11);
        missing.on_newest(at(1), 12);
        assert_eq!(missing.poll_timeout(), Some(at(10)));
        missing.on_newest(at(2), 13);
        assert_eq!(missing.poll_timeout(), Some(at(2)));
        missing.sweep(at(2), 9, &mut ask);
        assert_eq!(ask, [10]);
        assert!(missing.on_found(10));
        assert!(!missing.on_found(10));
    }

    #[test]
    fn what_has_no_room_is_asked_next_time() {
        let mut missing = Missing::new(true);
        let mut ask = Vec::new();
        missing.on_gap(at(0), 0..5);
        missing.sweep(at(10), 2, &mut ask);
        assert_eq!(ask, [0, 1]);
        assert_eq!(missing.poll_timeout(), Some(at(10)));
        missing.sweep(at(10), 9, &mut ask);
        assert_eq!(ask, [2, 3, 4]);
    }

    #[test]
    fn an_outage_is_given_up_at_once_and_memory_stays() {
        let mut missing = Missing::new(true);
        assert_eq!(missing.on_gap(at(0), 0..200), 0);
        assert_eq!(missing.on_gap(at(0), 201..2000), 1999);
        assert_eq!(missing.poll_timeout(), None);
        assert_eq!(missing.entries.capacity(), MAX_MISSING);
    }

    #[test]
    fn without_nack_nothing_is_asked() {
        let mut missing = Missing::new(false);
        let mut ask = Vec::new();
        missing.on_gap(at(0), 0..3);
        missing.on_newest(at(0), 50);
        assert_eq!(missing.poll_timeout(), Some(at(100)));
        assert_eq!(missing.sweep(at(100), 9, &mut ask), 3);
        assert!(ask.is_empty());
    }

    #[test]
    fn a_keyframe_ends_older_requests() {
        let mut missing = Missing::new(true);
        let mut ask = Vec::new();
        missing.on_gap(at(0), 0..2);
        missing.sweep(at(10), 9, &mut ask);
        missing.on_gap(at(11), 5..6);
        missing.on_gap(at(11), 9..10);
        assert_eq!(missing.on_keyframe(7), 2);
        assert_eq!(missing.entries.len(), 2);
    }
}
