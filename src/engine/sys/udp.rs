//! Batched UDP: `recvmmsg` with GRO into large buffers, `sendmmsg` out of an arena.
#![allow(unsafe_code, reason = "recvmmsg, sendmmsg and UDP_GRO have no safe wrapper")]

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::ops::Range;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Datagrams (or coalesced trains) one receive call takes.
pub const RECV_BATCH: usize = 32;
/// The kernel's largest coalesced train.
const TRAIN: usize = 65_535;
/// Room for one `UDP_GRO` control message.
const CONTROL: usize = 64;
/// Datagrams one send call gives.
pub const SEND_BATCH: usize = 256;

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL]);

/// Asks the kernel to coalesce equal datagrams of one sender.
///
/// # Errors
/// On kernels without UDP GRO (before 5.0); receiving works without.
pub fn enable_gro(fd: BorrowedFd<'_>) -> io::Result<()> {
    const UDP_GRO: libc::c_int = 104;
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is borrowed and open; the pointer is to a live c_int of that size.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_UDP,
            UDP_GRO,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Never sets DF on what leaves by this socket, whatever the path.
///
/// # Errors
/// As the system says.
pub fn allow_fragments(fd: BorrowedFd<'_>, v6: bool) -> io::Result<()> {
    let (level, option, value) = if v6 {
        (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, libc::IPV6_PMTUDISC_DONT)
    } else {
        (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DONT)
    };
    let value: libc::c_int = value;
    // SAFETY: the descriptor is borrowed and open; the pointer is to a live c_int of that size.
    let rc = unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            level,
            option,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Buffers of one receive call, reused for ever.
pub struct RecvBatch {
    buffers: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    controls: Vec<Control>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    received: usize,
}

// SAFETY: the raw pointers in `iovecs` and `headers` point into the other fields' heap memory,
// are rebuilt before each call, and are used by no other thread.
unsafe impl Send for RecvBatch {}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch").field("received", &self.received).finish_non_exhaustive()
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        // SAFETY: all three are plain C data for which zero is a valid value.
        let (name, header) = unsafe {
            (std::mem::zeroed::<libc::sockaddr_storage>(), std::mem::zeroed::<libc::mmsghdr>())
        };
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            buffers: vec![0; RECV_BATCH * TRAIN],
            names: vec![name; RECV_BATCH],
            controls: vec![Control([0; CONTROL]); RECV_BATCH],
            iovecs: vec![iovec; RECV_BATCH],
            headers: vec![header; RECV_BATCH],
            received: 0,
        }
    }
}

/// One train of datagrams from one sender: all `segment` bytes long but the last.
#[derive(Debug)]
pub struct Train<'a> {
    /// Who sent it.
    pub from: SocketAddr,
    /// Bytes of each datagram but the last, which may be shorter. Never zero.
    pub segment: usize,
    /// The datagrams, one after another.
    pub bytes: &'a mut [u8],
}

impl RecvBatch {
    /// Receives what is there, without waiting; returns the number of trains.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub fn recv(&mut self, fd: BorrowedFd<'_>) -> io::Result<usize> {
        for i in 0..RECV_BATCH {
            self.iovecs[i] = libc::iovec {
                iov_base: self.buffers[i * TRAIN..].as_mut_ptr().cast(),
                iov_len: TRAIN,
            };
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[i]).cast();
            header.msg_controllen = CONTROL as _;
            header.msg_flags = 0;
        }
        self.received = 0;
        // SAFETY: every header points at live memory of this struct with the lengths it states.
        let n = unsafe {
            libc::recvmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                RECV_BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if n < 0 {
            return Err(io::Error::last_os_error());
        }
        self.received = usize::try_from(n).unwrap_or(0).min(RECV_BATCH);
        Ok(self.received)
    }

    /// Datagram `index` of the last [`Self::recv`] from a socket that does not coalesce; it may be
    /// empty. `None` for a truncated one.
    pub fn datagram(&mut self, index: usize) -> Option<(SocketAddr, &mut [u8])> {
        if index >= self.received {
            return None;
        }
        let header = &self.headers[index];
        if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 {
            return None;
        }
        let from = from_storage(&self.names[index])?;
        let start = index * TRAIN;
        let end = start + (header.msg_len as usize).min(TRAIN);
        Some((from, &mut self.buffers[start..end]))
    }

    /// Train `index` of the last [`Self::recv`]; `None` for an empty or truncated one.
    pub fn train(&mut self, index: usize) -> Option<Train<'_>> {
        if index >= self.received {
            return None;
        }
        let header = &self.headers[index];
        let len = (header.msg_len as usize).min(TRAIN);
        if len == 0 || header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0 {
            return None;
        }
        let from = from_storage(&self.names[index])?;
        let segment = gro_segment(&header.msg_hdr).filter(|s| *s > 0).unwrap_or(len);
        let start = index * TRAIN;
        Some(Train { from, segment, bytes: &mut self.buffers[start..start + len] })
    }
}

fn gro_segment(header: &libc::msghdr) -> Option<usize> {
    const UDP_GRO: libc::c_int = 104;
    // SAFETY: the kernel filled the control buffer that `header` points at and set its length;
    // the CMSG macros stay within that length.
    unsafe {
        let mut cmsg = libc::CMSG_FIRSTHDR(header);
        while !cmsg.is_null() {
            if (*cmsg).cmsg_level == libc::SOL_UDP && (*cmsg).cmsg_type == UDP_GRO {
                let value = std::ptr::read_unaligned(libc::CMSG_DATA(cmsg).cast::<libc::c_int>());
                return usize::try_from(value).ok();
            }
            cmsg = libc::CMSG_NXTHDR(header, cmsg);
        }
    }
    None
}

pub(super) fn from_storage(name: &libc::sockaddr_storage) -> Option<SocketAddr> {
    match libc::c_int::from(name.ss_family) {
        libc::AF_INET => {
            // SAFETY: sockaddr_storage is large enough and aligned for sockaddr_in, and the
            // family says that is what the kernel wrote.
            let v4 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: as above, for sockaddr_in6.
            let v6 = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            Some(SocketAddr::V6(SocketAddrV6::new(
                ip,
                u16::from_be(v6.sin6_port),
                0,
                // A link-local client is answered on its own link.
                v6.sin6_scope_id,
            )))
        }
        _ => None,
    }
}

fn to_storage(addr: SocketAddr, out: &mut libc::sockaddr_storage) -> libc::socklen_t {
    match addr {
        SocketAddr::V4(v4) => {
            // SAFETY: sockaddr_storage is large enough and aligned for sockaddr_in.
            let name = unsafe { &mut *std::ptr::from_mut(out).cast::<libc::sockaddr_in>() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = v4.port().to_be();
            name.sin_addr = libc::in_addr { s_addr: u32::from(*v4.ip()).to_be() };
            size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(v6) => {
            // SAFETY: sockaddr_storage is large enough and aligned for sockaddr_in6.
            let name = unsafe { &mut *std::ptr::from_mut(out).cast::<libc::sockaddr_in6>() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = v6.port().to_be();
            name.sin6_flowinfo = v6.flowinfo();
            name.sin6_addr = libc::in6_addr { s6_addr: v6.ip().octets() };
            name.sin6_scope_id = v6.scope_id();
            size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// Headers of one send call, reused for ever.
pub struct SendBatch {
    names: Vec<libc::sockaddr_storage>,
    iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    queued: usize,
}

// SAFETY: the raw pointers point into the other fields' heap memory or into the arena given to
// `send`, are rebuilt before each call, and are used by no other thread.
unsafe impl Send for SendBatch {}

impl std::fmt::Debug for SendBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendBatch").field("queued", &self.queued).finish_non_exhaustive()
    }
}

impl Default for SendBatch {
    fn default() -> Self {
        // SAFETY: plain C data for which zero is a valid value.
        let (name, header) = unsafe {
            (std::mem::zeroed::<libc::sockaddr_storage>(), std::mem::zeroed::<libc::mmsghdr>())
        };
        let iovec = libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 };
        Self {
            names: vec![name; SEND_BATCH],
            iovecs: vec![iovec; SEND_BATCH],
            headers: vec![header; SEND_BATCH],
            queued: 0,
        }
    }
}

impl SendBatch {
    /// Sends up to [`SEND_BATCH`] datagrams of `arena`; returns how many the kernel took.
    ///
    /// # Errors
    /// What the kernel says of the first datagram; `WouldBlock` when its buffer is full.
    pub fn send(
        &mut self,
        fd: BorrowedFd<'_>,
        arena: &[u8],
        datagrams: &[(SocketAddr, Range<usize>)],
    ) -> io::Result<usize> {
        let count = datagrams.len().min(SEND_BATCH);
        self.queued = count;
        for (i, (to, range)) in datagrams.iter().take(count).enumerate() {
            let bytes = arena.get(range.clone()).ok_or(io::ErrorKind::InvalidInput)?;
            self.iovecs[i] =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let namelen = to_storage(*to, &mut self.names[i]);
            let header = &mut self.headers[i].msg_hdr;
            header.msg_name = (&raw mut self.names[i]).cast();
            header.msg_namelen = namelen;
            header.msg_iov = &raw mut self.iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = std::ptr::null_mut();
            header.msg_controllen = 0;
            header.msg_flags = 0;
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: every header points at live memory: names and iovecs of this struct, bytes of
        // `arena`, which the kernel only reads.
        let n = unsafe {
            libc::sendmmsg(
                fd.as_raw_fd(),
                self.headers.as_mut_ptr(),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        if n < 0 { Err(io::Error::last_os_error()) } else { Ok(usize::try_from(n).unwrap_or(0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::os::fd::AsFd;

    #[test]
    fn a_batch_goes_out_and_comes_in_whole() {
        let a = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        let b = UdpSocket::bind("127.0.0.1:0").expect("loopback");
        enable_gro(b.as_fd()).expect("linux 5.0 or later");
        let arena: Vec<u8> = (0..200u8).collect();
        let to = b.local_addr().expect("bound");
        let datagrams = vec![(to, 0..100), (to, 100..150), (to, 150..200)];
        let sent = SendBatch::default().send(a.as_fd(), &arena, &datagrams).expect("sends");
        assert_eq!(sent, 3);
        b.set_nonblocking(true).expect("socket option");
        let mut batch = RecvBatch::default();
        let mut got = Vec::new();
        while got.len() < 3 {
            let Ok(n) = batch.recv(b.as_fd()) else { continue };
            for i in 0..n {
                let train = batch.train(i).expect("not empty");
                assert_eq!(train.from, a.local_addr().expect("bound"));
                let segment = train.segment;
                got.extend(train.bytes.chunks_mut(segment).map(|c| c.to_vec()));
            }
        }
        assert_eq!(got, [arena[..100].to_vec(), arena[100..150].to_vec(), arena[150..].to_vec()]);
    }
}
