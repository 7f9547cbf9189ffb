//! ICMP errors about what left by a UDP socket, out of the kernel's error queue.
#![allow(unsafe_code, reason = "IP_RECVERR and MSG_ERRQUEUE have no safe wrapper")]

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

use super::udp::from_storage;

/// Room for the control messages of one error: the error and who sent it.
const CONTROL: usize = 256;

#[repr(C, align(8))]
struct Control([u8; CONTROL]);

/// What came back instead of arriving.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Error {
    /// Where the datagram was sent to.
    pub to: SocketAddr,
    /// ICMP type.
    pub kind: u8,
    /// ICMP code.
    pub code: u8,
    /// The MTU, where the error is about that.
    pub info: u32,
}

/// Lets the kernel keep the ICMP errors of a socket for [`next`].
///
/// # Errors
/// As the system says.
pub fn keep(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    let (level, option) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_RECVERR)
    } else {
        (libc::IPPROTO_IP, libc::IP_RECVERR)
    };
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed and open; the pointer is to a live c_int of that size.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The next error that is kept; the inner `None`: it is not from the network. What the datagram
/// held is not read.
pub fn next(fd: BorrowedFd<'_>) -> Option<Option<Error>> {
    // SAFETY: both are plain C data for which zero is a valid value.
    let (mut name, mut header) = unsafe {
        (std::mem::zeroed::<libc::sockaddr_storage>(), std::mem::zeroed::<libc::msghdr>())
    };
    let mut control = Control([0; CONTROL]);
    header.msg_name = (&raw mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = CONTROL as _;
    // SAFETY: the header points at live memory of this frame with the lengths it states, and at no
    // buffers.
    let n = unsafe {
        libc::recvmsg(fd.as_raw_fd(), &raw mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT)
    };
    if n < 0 {
        return None;
    }
    Some(found(&header).and_then(|error| {
        let network = matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6);
        let to = from_storage(&name).filter(|_| network)?;
        Some(Error { to, kind: error.ee_type, code: error.ee_code, info: error.ee_info })
    }))
}

fn found(header: &libc::msghdr) -> Option<libc::sock_extended_err> {
    // SAFETY: the kernel filled the control buffer that `header` points at and set its length; the
    // CMSG macros stay within that length, and the data of these two kinds is that struct.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while !cmsg.is_null() {
            let kind = ((*cmsg).cmsg_level, (*cmsg).cmsg_type);
            let whole = libc::CMSG_LEN(size_of::<libc::sock_extended_err>() as u32) as usize;
            let ours = kind == (libc::SOL_IP, libc::IP_RECVERR)
                || kind == (libc::SOL_IPV6, libc::IPV6_RECVERR);
            if ours && (*cmsg).cmsg_len as usize >= whole {
                let data = libc::CMSG_DATA(cmsg).cast::<libc::sock_extended_err>();
                return Some(std::ptr::read_unaligned(data));
            }
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    #[test]
    fn refused_datagram_comes_back_as_an_error_with_its_destination() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let socket = UdpSocket::bind(any).expect("loopback");
            keep(socket.as_fd(), any.starts_with('[')).expect("linux");
            let nobody = UdpSocket::bind(any).expect("loopback");
            let to = nobody.local_addr().expect("bound");
            drop(nobody);
            assert_eq!(next(socket.as_fd()), None);
            socket.send_to(b"anyone?", to).expect("sent");
            socket.set_read_timeout(Some(Duration::from_secs(10))).expect("socket option");
            socket.recv(&mut [0; 8]).expect_err("the error, told once");
            let error = next(socket.as_fd()).expect("kept").expect("from the network");
            let unreachable = if to.is_ipv4() { (3, 3) } else { (1, 4) };
            assert_eq!((error.to, (error.kind, error.code)), (to, unreachable));
            assert_eq!(next(socket.as_fd()), None);
        }
    }
}
