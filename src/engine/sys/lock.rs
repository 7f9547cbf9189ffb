//! One process per port: `SO_REUSEPORT` would let a second one silently steal half the packets.
//!
//! The lock is an abstract unix socket: it is per network namespace like the port itself, leaves
//! no file behind, is released by the kernel however the process ends, and knows its holder's pid.
#![allow(unsafe_code, reason = "SO_PEERCRED has no stable safe wrapper")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddr, UnixListener, UnixStream};

/// Held for as long as the process serves the port.
#[derive(Debug)]
pub struct PortLock {
    _listener: UnixListener,
}

/// Why the lock was not taken.
#[derive(Debug)]
pub enum LockError {
    /// Another process of ours has it; its pid when the kernel tells.
    Held(Option<u32>),
    /// The kernel refused.
    Io(io::Error),
}

/// Takes the lock of a UDP address.
///
/// # Errors
/// [`LockError::Held`] when another process has it.
pub fn take(udp: SocketAddr) -> Result<PortLock, LockError> {
    let name = format!("veilgate/udp/{udp}");
    let addr = UnixAddr::from_abstract_name(name).map_err(LockError::Io)?;
    match UnixListener::bind_addr(&addr) {
        Ok(listener) => Ok(PortLock { _listener: listener }),
        Err(e) if e.kind() == io::ErrorKind::AddrInUse => {
            let holder = UnixStream::connect_addr(&addr).ok().and_then(|s| peer_pid(&s));
            Err(LockError::Held(holder))
        }
        Err(e) => Err(LockError::Io(e)),
    }
}

fn peer_pid(stream: &UnixStream) -> Option<u32> {
    let mut cred = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut len = size_of::<libc::ucred>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `stream` lives; the pointers are to a live ucred and
    // to its length.
    let rc = unsafe {
        libc::getsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            (&raw mut cred).cast(),
            &raw mut len,
        )
    };
    (rc == 0).then(|| u32::try_from(cred.pid).ok()).flatten().filter(|pid| *pid != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_lock_names_the_holder() {
        let addr: SocketAddr = "127.0.0.1:59999".parse().expect("valid");
        let first = take(addr).expect("free");
        match take(addr) {
            Err(LockError::Held(Some(pid))) => assert_eq!(pid, std::process::id()),
            other => panic!("{other:?}"),
        }
        drop(first);
        take(addr).expect("free again");
    }
}
