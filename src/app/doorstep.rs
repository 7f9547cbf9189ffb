//! How many TCP connections one source may have: whoever opens thousands and says nothing shall be in
//! nobody else's way.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::AtomicU32;
use std::sync::{Arc, Mutex, PoisonError};

use crate::engine::Held;

/// Sources remembered before those without connections are forgotten.
const SOURCES: usize = 16_384;

/// Connections by source prefix; clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Doorstep {
    limit: u32,
    sources: Arc<Mutex<HashMap<IpAddr, Arc<AtomicU32>>>>,
}

impl Doorstep {
    /// With so many connections for each /32 of IPv4 and each /64 of IPv6.
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, sources: Arc::default() }
    }

    /// A place for one more connection of `client`, given back when it is dropped; `None`: there
    /// are too many.
    pub(super) fn enter(&self, client: IpAddr) -> Option<Held> {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if sources.len() >= SOURCES {
            // Whoever holds a place holds a clone of the count.
            sources.retain(|_, count| Arc::strong_count(count) > 1);
        }
        let count = sources.entry(prefix(client)).or_default();
        Held::take(count, self.limit)
    }
}

fn prefix(ip: IpAddr) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => ip.into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("valid")
    }

    #[test]
    fn source_has_its_places_and_gets_them_back() {
        let door = Doorstep::new(2);
        let first = door.enter(ip("192.0.2.1")).expect("free");
        let second = door.enter(ip("192.0.2.1")).expect("free");
        assert!(door.enter(ip("192.0.2.1")).is_none());
        assert!(door.enter(ip("192.0.2.2")).is_some(), "another source");
        drop(first);
        let third = door.enter(ip("192.0.2.1")).expect("free again");
        assert!(door.enter(ip("192.0.2.1")).is_none());
        drop((second, third));
        assert!(door.enter(ip("192.0.2.1")).is_some());
    }

    #[test]
    fn addresses_of_one_ipv6_network_are_one_source() {
        let door = Doorstep::new(1);
        let _held = door.enter(ip("2001:db8:0:1::1")).expect("free");
        assert!(door.enter(ip("2001:db8:0:1:ffff::2")).is_none());
        assert!(door.enter(ip("2001:db8:0:2::1")).is_some());
    }

    #[test]
    fn sources_without_connections_are_forgotten() {
        let door = Doorstep::new(1);
        let held = door.enter(ip("192.0.2.1")).expect("free");
        for n in 0..2 * SOURCES as u32 {
            assert!(door.enter(Ipv4Addr::from_bits(n).into()).is_some());
        }
        assert!(door.sources.lock().expect("sound").len() <= SOURCES + 1);
        assert!(door.enter(ip("192.0.2.1")).is_none(), "a living one is not");
        drop(held);
    }
}
