//! One session: datagrams between the local client and the gateway's media address, unread but
//! for whose ICE check comes first.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::relay::{Allocation, HEADROOM, Sender};
use crate::session::ice_lite;

/// No datagram is longer.
const LARGEST: usize = u16::MAX as usize;

/// Why a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reason {
    /// The local client deleted it.
    Deleted,
    /// Nothing came from the local client.
    ClientSilent,
    /// Nothing came from the gateway.
    GatewaySilent,
    /// The connection to the gateway broke.
    RelayLost,
    /// The bridge stops.
    Stopped,
}

impl Reason {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Deleted => "the client ended it",
            Self::ClientSilent => "nothing comes from the client any more",
            Self::GatewaySilent => "nothing comes from the gateway any more",
            Self::RelayLost => "the connection to the gateway broke",
            Self::Stopped => "the bridge stops",
        }
    }
}

/// What may change in a session's life.
struct Ends {
    /// The gateway's ICE user fragments: whose checks are this session's.
    ufrags: Vec<String>,
    media: SocketAddr,
    client: Option<SocketAddr>,
    /// The next check of the session says where the client is.
    open: bool,
}

/// What the signalling and the packets of a session share.
pub(super) struct Shared {
    /// The socket that the client sees.
    local: SocketAddr,
    /// Where this machine's programs come from. `None`: the socket is on loopback, where nobody
    /// else comes.
    own: Option<Vec<IpAddr>>,
    ends: Mutex<Ends>,
    end: watch::Sender<Option<Reason>>,
    from_client: AtomicU64,
    from_gateway: AtomicU64,
    /// From somebody else on this machine, or before a check of the session.
    dropped: AtomicU64,
}

/// Packets carried.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Counts {
    pub(super) from_client: u64,
    pub(super) from_gateway: u64,
    pub(super) dropped: u64,
}

impl Shared {
    pub(super) fn new(
        local: SocketAddr,
        own: Option<Vec<IpAddr>>,
        ufrags: Vec<String>,
        media: SocketAddr,
    ) -> Self {
        let (end, _) = watch::channel(None);
        Self {
            local,
            own,
            ends: Mutex::new(Ends { ufrags, media, client: None, open: true }),
            end,
            from_client: AtomicU64::new(0),
            from_gateway: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    pub(super) const fn local(&self) -> SocketAddr {
        self.local
    }

    fn ends(&self) -> MutexGuard<'_, Ends> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the session; the first reason counts.
    pub(super) fn end(&self, reason: Reason) {
        self.end.send_if_modified(|end| {
            let first = end.is_none();
            end.get_or_insert(reason);
            first
        });
    }

    /// After an ICE restart the client may come from another port; until it does, the old one
    /// goes on.
    pub(super) fn restart(&self, ufrags: Vec<String>, media: &[SocketAddr]) {
        let mut ends = self.ends();
        ends.ufrags = ufrags;
        ends.open = true;
        // Of the same family, as the allocation's: else the old one goes on.
        let v4 = ends.media.is_ipv4();
        let media = media.iter().find(|media| media.is_ipv4() == v4).copied();
        ends.media = media.unwrap_or(ends.media);
    }

    pub(super) fn counts(&self) -> Counts {
        Counts {
            from_client: self.from_client.load(Ordering::Relaxed),
            from_gateway: self.from_gateway.load(Ordering::Relaxed),
            dropped: self.dropped.load(Ordering::Relaxed),
        }
    }

    /// Where a datagram of the local side goes.
    fn admit(&self, datagram: &[u8], from: SocketAddr) -> Option<SocketAddr> {
        let mut ends = self.ends();
        let is_here = self.own.as_ref().is_none_or(|own| own.contains(&from.ip()));
        let is_first = is_here
            && ends.open
            && ice_lite::peek(datagram)
                .is_some_and(|check| ends.ufrags.iter().any(|own| own == check.local_ufrag));
        let admitted = is_first || ends.client == Some(from);
        let counter = if admitted { &self.from_client } else { &self.dropped };
        counter.fetch_add(1, Ordering::Relaxed);
        if !admitted {
            return None;
        }
        if is_first {
            ends.client = Some(from);
            ends.open = false;
        }
        Some(ends.media)
    }

    /// Carries packets until something ends the session, and gives the allocation back.
    ///
    /// `connected` is told once, when the first packet of the gateway goes to the client.
    pub(super) async fn carry(
        &self,
        socket: UdpSocket,
        mut allocation: Allocation,
        silence: Duration,
        connected: impl Fn() + Sync,
    ) -> Reason {
        let sender = allocation.sender();
        let mut gone = allocation.gone();
        let mut end = self.end.subscribe();
        let reason = tokio::select! {
            () = self.up(&socket, &sender) => Reason::RelayLost,
            () = sender.keep(|| self.ends().media) => Reason::RelayLost,
            () = self.down(&socket, &mut allocation.inbound, &connected) => Reason::RelayLost,
            reason = self.watch(silence) => reason,
            _ = gone.changed() => Reason::RelayLost,
            ended = end.wait_for(Option::is_some) => {
                ended.ok().and_then(|reason| *reason).unwrap_or(Reason::Stopped)
            }
        };
        allocation.close().await;
        reason
    }

    async fn up(&self, socket: &UdpSocket, sender: &Sender) {
        let mut buffer = vec![0; HEADROOM + LARGEST];
        loop {
            let Some(behind) = buffer.get_mut(HEADROOM..) else { return };
            let (len, from) = match socket.recv_from(behind).await {
                Ok(got) => got,
                // An earlier datagram found nobody: the client's clock runs out, if it is gone.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(_) => return,
            };
            let Some(datagram) = behind.get(..len) else { return };
            if let Some(media) = self.admit(datagram, from)
                && let Some(framed) = buffer.get_mut(..HEADROOM + len)
            {
                sender.send(framed, media).await;
            }
        }
    }

    async fn down(
        &self,
        socket: &UdpSocket,
        inbound: &mut mpsc::Receiver<Vec<u8>>,
        connected: &(impl Fn() + Sync),
    ) {
        while let Some(packet) = inbound.recv().await {
            let Some(client) = self.ends().client else { continue };
            if self.from_gateway.fetch_add(1, Ordering::Relaxed) == 0 {
                connected();
            }
            let _lost = socket.send_to(&packet, client).await;
        }
    }

    /// Either side silent for too long. The gateway answers every check, so a live session is
    /// never silent for long on any side.
    async fn watch(&self, silence: Duration) -> Reason {
        let step = (silence / 10).max(Duration::from_millis(100));
        let mut ticks = tokio::time::interval(step);
        let mut seen = self.counts();
        let begin = Instant::now();
        let (mut client, mut gateway) = (begin, begin);
        loop {
            let now = ticks.tick().await;
            let counts = self.counts();
            if counts.from_client != seen.from_client {
                client = now;
            }
            if counts.from_gateway != seen.from_gateway {
                gateway = now;
            }
            seen = counts;
            if now.duration_since(client) >= silence {
                return Reason::ClientSilent;
            }
            if now.duration_since(gateway) >= silence {
                return Reason::GatewaySilent;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEDIA: &str = "203.0.113.7:20000";

    /// A Binding request with a USERNAME.
    fn check(username: &str) -> Vec<u8> {
        use stun::attributes::ATTR_USERNAME;
        use stun::message::{BINDING_REQUEST, Message, Setter as _};
        use stun::textattrs::TextAttribute;
        let mut message = Message::new();
        message.set_type(BINDING_REQUEST);
        message.new_transaction_id().unwrap();
        message.write_header();
        TextAttribute::new(ATTR_USERNAME, username.to_owned()).add_to(&mut message).unwrap();
        message.raw
    }

    fn shared() -> Shared {
        Shared::new(
            "127.0.0.1:4000".parse().unwrap(),
            None,
            vec!["gate".to_owned()],
            MEDIA.parse().unwrap(),
        )
    }

    #[test]
    fn first_source_with_a_check_of_the_session_is_the_client_and_no_other_is() {
        let shared = shared();
        let (one, other) = ("127.0.0.1:5000".parse().unwrap(), "127.0.0.1:5001".parse().unwrap());
        let media: SocketAddr = MEDIA.parse().unwrap();
        for stranger in [&b"hello"[..], &[0x80; 20], &[], &check("else:mine"), &check("gate")] {
            assert_eq!(shared.admit(stranger, other), None);
        }
        assert_eq!(shared.admit(&check("gate:mine"), one), Some(media));
        assert_eq!(shared.admit(&[0x80; 20], one), Some(media));
        assert_eq!(shared.admit(&check("gate:mine"), other), None);
        let counts = shared.counts();
        assert_eq!((counts.from_client, counts.dropped), (2, 6));
    }

    #[test]
    fn nobody_from_the_network_is_the_client_of_a_socket_that_is_not_on_loopback() {
        let own: IpAddr = "192.0.2.2".parse().unwrap();
        let local = SocketAddr::new(own, 4000);
        let ufrags = vec!["gate".to_owned()];
        let shared = Shared::new(local, Some(vec![own]), ufrags, MEDIA.parse().unwrap());
        let check = check("gate:mine");
        assert_eq!(shared.admit(&check, "192.0.2.3:5000".parse().unwrap()), None);
        assert!(shared.admit(&check, SocketAddr::new(own, 5000)).is_some());
    }

    #[test]
    fn after_an_ice_restart_the_client_may_come_from_elsewhere() {
        let shared = shared();
        let (one, other) = ("127.0.0.1:5000".parse().unwrap(), "127.0.0.1:5001".parse().unwrap());
        assert!(shared.admit(&check("gate:mine"), one).is_some());
        shared.restart(vec!["new".to_owned()], &[]);
        assert_eq!(shared.admit(&check("gate:mine"), other), None, "of the old session");
        assert!(shared.admit(&[0x80; 20], one).is_some(), "the old path, until the new one");
        assert!(shared.admit(&check("new:mine"), other).is_some());
        assert_eq!(shared.admit(&[0x80; 20], one), None);
    }

    #[test]
    fn first_reason_is_the_reason() {
        let shared = shared();
        shared.end(Reason::Deleted);
        shared.end(Reason::Stopped);
        assert_eq!(*shared.end.subscribe().borrow(), Some(Reason::Deleted));
    }
}
