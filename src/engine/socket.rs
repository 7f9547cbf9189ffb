//! The UDP ports: claimed by one process, bound once per shard.

use std::fs;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

use super::sys::lock::{self, LockError, PortLock};
use super::sys::udp::enable_gro;

/// Socket buffers, bytes: a burst of a few milliseconds at a gigabit.
const BUFFER: usize = 4 * 1024 * 1024;

/// Why the port cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody else has it.
    #[error("UDP {addr} is in use{}", holder(.by.as_deref()))]
    InUse {
        /// The port.
        addr: SocketAddr,
        /// Process name and pid, as far as the system tells.
        by: Option<String>,
    },
    /// Anything else.
    #[error("UDP {addr} cannot be bound: {source}")]
    Io {
        /// The port.
        addr: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

fn holder(by: Option<&str>) -> String {
    by.map_or_else(String::new, |by| format!(" by {by}"))
}

/// Takes the port for this process. A probe bind without `SO_REUSEPORT` finds other programs'
/// sockets, a lock finds a second gateway that starts at the same time.
///
/// # Errors
/// [`BindError::InUse`], with the holder's name where the system tells it.
pub(super) fn claim(addr: SocketAddr) -> Result<PortLock, BindError> {
    let lock = lock::take(addr).map_err(|e| match e {
        LockError::Held(pid) => BindError::InUse { addr, by: pid.map(describe) },
        LockError::Io(source) => BindError::Io { addr, source },
    })?;
    match open(addr, false) {
        Ok(_) => Ok(lock),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            Err(BindError::InUse { addr, by: find_holder(addr).map(describe) })
        }
        Err(source) => Err(BindError::Io { addr, source }),
    }
}

/// One shard's sockets, in the order of the configuration: a [`crate::ids::FiveTuple`] names them
/// by their place.
#[derive(Debug)]
pub(super) struct Sockets {
    sockets: Vec<UdpSocket>,
    first: usize,
    /// Those that may have something to read, a bit each.
    readable: u32,
}

impl Sockets {
    /// Binds one socket an address.
    pub(super) fn bind(addrs: &[SocketAddr]) -> Result<Self, BindError> {
        let sockets = addrs.iter().copied().map(bind).collect::<Result<Vec<_>, _>>()?;
        let readable = (1 << sockets.len()) - 1;
        Ok(Self { sockets, first: 0, readable })
    }

    /// Their poll tokens are `first` and up.
    pub(super) fn register(&mut self, registry: &Registry, first: Token) -> io::Result<()> {
        self.first = first.0;
        for (place, socket) in self.sockets.iter_mut().enumerate() {
            registry.register(socket, Token(first.0 + place), Interest::READABLE)?;
        }
        Ok(())
    }

    /// The poller says something about `token`; false when it is none of ours.
    pub(super) fn on_ready(&mut self, token: Token) -> bool {
        let place = token.0.checked_sub(self.first).filter(|place| *place < self.sockets.len());
        self.readable |= place.map_or(0, |place| 1 << place);
        place.is_some()
    }

    /// Whether one may have something to read.
    pub(super) const fn is_readable(&self) -> bool {
        self.readable != 0
    }

    /// The sockets to read this turn, a bit each; they are to be put back unless found empty.
    pub(super) const fn take_readable(&mut self) -> u32 {
        std::mem::replace(&mut self.readable, 0)
    }

    /// `place` has more to read.
    pub(super) const fn read_later(&mut self, place: u8) {
        self.readable |= 1 << place;
    }

    pub(super) fn get(&self, place: u8) -> Option<BorrowedFd<'_>> {
        self.sockets.get(usize::from(place)).map(UdpSocket::as_fd)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.sockets.iter().map(UdpSocket::as_fd)
    }
}

fn bind(addr: SocketAddr) -> Result<UdpSocket, BindError> {
    let socket = open(addr, true).map_err(|source| BindError::Io { addr, source })?;
    // Best effort: the kernel caps these at net.core.{r,w}mem_max.
    let _capped = socket.set_recv_buffer_size(BUFFER);
    let _capped = socket.set_send_buffer_size(BUFFER);
    if let Err(error) = enable_gro(socket.as_fd()) {
        tracing::warn!(%error, "no receive coalescing (UDP_GRO) on this kernel");
    }
    Ok(UdpSocket::from_std(socket.into()))
}

fn open(addr: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_port(shared)?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&addr.into())?;
    Ok(socket)
}

fn describe(pid: u32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { format!("process {pid}") } else { format!("{name} (process {pid})") }
}

/// The pid behind a UDP port of this network namespace, as far as /proc lets us see.
fn find_holder(addr: SocketAddr) -> Option<u32> {
    let table = if addr.is_ipv4() { "/proc/net/udp" } else { "/proc/net/udp6" };
    let table = fs::read_to_string(table).ok()?;
    let inode = table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace();
        let local = fields.nth(1)?;
        let inode = fields.nth(7)?;
        let (ip, port) = local.split_once(':')?;
        let same_port = u16::from_str_radix(port, 16).ok()? == addr.port();
        let any = ip.bytes().all(|b| b == b'0');
        let same_ip = match addr.ip() {
            IpAddr::V4(v4) => {
                any || v4.is_unspecified()
                    || u32::from_str_radix(ip, 16).ok()? == u32::from_ne_bytes(v4.octets())
            }
            IpAddr::V6(_) => true,
        };
        (same_port && same_ip).then(|| format!("socket:[{inode}]"))
    })?;
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let pid: u32 = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files
            .any(|fd| fs::read_link(fd.path()).is_ok_and(|to| to.as_os_str() == inode.as_str()))
            .then_some(pid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_of_another_program_is_refused_and_its_holder_named() {
        let other = std::net::UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let addr = other.local_addr().expect("bound");
        let error = claim(addr).expect_err("held");
        let text = error.to_string();
        assert!(text.contains(&format!("process {}", std::process::id())), "{text}");
    }
}
