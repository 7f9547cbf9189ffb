//! One socket that is many clients: each datagram leaves from a loopback address of its own and
//! the answer tells which one it is for. So fifty thousand 5-tuples cost the load two system calls
//! a batch, and the server sees what it would see of fifty thousand sockets.
#![allow(unsafe_code, reason = "sendmmsg, recvmmsg and IP_PKTINFO have no safe wrapper")]

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::ops::Range;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

const BATCH: usize = 128;
const SLOT: usize = 2_048;
/// As much as the load can have on its way.
const BUFFER: libc::c_int = 64 * 1024 * 1024;

/// Room for one `IP_PKTINFO`.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

const ZERO: Control = Control([0; 64]);
const SPACE: usize = 32;

/// The address of client `index`.
pub fn address(index: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(0x7f01_0000 + index as u32)
}

fn index(address: Ipv4Addr) -> Option<usize> {
    address.to_bits().checked_sub(0x7f01_0000).map(|index| index as usize)
}

pub struct Fan {
    socket: UdpSocket,
    to: SocketAddrV4,
    out: Vec<u8>,
    queue: Vec<(usize, Range<usize>)>,
    buffers: Vec<u8>,
    /// Requests under way at a time.
    pub window: usize,
}

fn option(socket: &UdpSocket, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> bool {
    // SAFETY: the descriptor is open; the pointer is to a live c_int of the size stated.
    let rc = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    rc == 0
}

impl Fan {
    pub fn new(to: SocketAddrV4, window: usize) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.set_nonblocking(true)?;
        let told = option(&socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
            && option(&socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, BUFFER)
            && option(&socket, libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, BUFFER);
        if !told {
            return Err(io::Error::last_os_error());
        }
        let buffers = vec![0; BATCH * SLOT];
        Ok(Self { socket, to, out: Vec::new(), queue: Vec::new(), buffers, window })
    }

    /// Queues a datagram of client `from`.
    pub fn queue(&mut self, from: usize, datagram: &[u8]) {
        let start = self.out.len();
        self.out.extend_from_slice(datagram);
        self.queue.push((from, start..self.out.len()));
    }

    /// Sends what is queued.
    pub fn flush(&mut self) -> io::Result<()> {
        let mut at = 0;
        while at < self.queue.len() {
            match self.send(&self.queue[at..]) {
                Ok(sent) => at += sent,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.wait(libc::POLLOUT, None)?
                }
                Err(e) => return Err(e),
            }
        }
        self.queue.clear();
        self.out.clear();
        Ok(())
    }

    fn send(&self, queue: &[(usize, Range<usize>)]) -> io::Result<usize> {
        let count = queue.len().min(BATCH);
        let mut controls = [ZERO; BATCH];
        let mut name = libc::sockaddr_in {
            sin_family: libc::AF_INET as libc::sa_family_t,
            sin_port: self.to.port().to_be(),
            sin_addr: libc::in_addr { s_addr: self.to.ip().to_bits().to_be() },
            sin_zero: [0; 8],
        };
        let mut iovecs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        // SAFETY: plain C data for which zero is a valid value.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
        for (i, (from, range)) in queue.iter().take(count).enumerate() {
            let bytes = &self.out[range.clone()];
            iovecs[i] =
                libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
            let header = &mut headers[i].msg_hdr;
            header.msg_name = (&raw mut name).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_iov = &raw mut iovecs[i];
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut controls[i]).cast();
            header.msg_controllen = SPACE as _;
            // SAFETY: the control buffer is aligned and has room for one in_pktinfo.
            unsafe {
                let control = libc::CMSG_FIRSTHDR(header);
                (*control).cmsg_level = libc::IPPROTO_IP;
                (*control).cmsg_type = libc::IP_PKTINFO;
                (*control).cmsg_len =
                    libc::CMSG_LEN(size_of::<libc::in_pktinfo>() as libc::c_uint) as _;
                let info = libc::in_pktinfo {
                    ipi_ifindex: 0,
                    ipi_spec_dst: libc::in_addr { s_addr: address(*from).to_bits().to_be() },
                    ipi_addr: libc::in_addr { s_addr: 0 },
                };
                libc::CMSG_DATA(control).cast::<libc::in_pktinfo>().write_unaligned(info);
            }
        }
        // SAFETY: every header points at live memory of this call with the lengths it states.
        let n = unsafe {
            let fd = self.socket.as_raw_fd();
            libc::sendmmsg(fd, headers.as_mut_ptr(), count as libc::c_uint, 0)
        };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    fn wait(&self, events: libc::c_short, patience: Option<Duration>) -> io::Result<()> {
        let mut poll = libc::pollfd { fd: self.socket.as_raw_fd(), events, revents: 0 };
        let patience = patience.map(|patience| libc::timespec {
            tv_sec: patience.as_secs() as libc::time_t,
            tv_nsec: patience.subsec_nanos().into(),
        });
        let patience = patience.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: one live pollfd, a live timespec or none, no signal mask.
        let rc = unsafe { libc::ppoll(&raw mut poll, 1, patience, std::ptr::null()) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Hands each datagram that is there to `take`, with the client it is for; waits up to
    /// `patience` for the first. Returns how many there were.
    pub fn receive(
        &mut self,
        patience: Duration,
        mut take: impl FnMut(usize, &[u8]),
    ) -> io::Result<usize> {
        if !patience.is_zero() {
            self.wait(libc::POLLIN, Some(patience))?;
        }
        let mut total = 0;
        loop {
            let mut controls = [ZERO; BATCH];
            let mut iovecs = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: SLOT }; BATCH];
            // SAFETY: plain C data for which zero is a valid value.
            let mut headers: [libc::mmsghdr; BATCH] = unsafe { std::mem::zeroed() };
            for i in 0..BATCH {
                iovecs[i].iov_base = self.buffers[i * SLOT..].as_mut_ptr().cast();
                let header = &mut headers[i].msg_hdr;
                header.msg_iov = &raw mut iovecs[i];
                header.msg_iovlen = 1;
                header.msg_control = (&raw mut controls[i]).cast();
                header.msg_controllen = size_of::<Control>() as _;
            }
            // SAFETY: every header points at live memory with the lengths it states.
            let n = unsafe {
                libc::recvmmsg(
                    self.socket.as_raw_fd(),
                    headers.as_mut_ptr(),
                    BATCH as libc::c_uint,
                    libc::MSG_DONTWAIT as _,
                    std::ptr::null_mut(),
                )
            };
            let Ok(n) = usize::try_from(n) else {
                let error = io::Error::last_os_error();
                return match error.kind() {
                    io::ErrorKind::WouldBlock => Ok(total),
                    _ => Err(error),
                };
            };
            for (i, header) in headers.iter().take(n).enumerate() {
                let Some(client) = destination(&header.msg_hdr).and_then(index) else { continue };
                take(client, &self.buffers[i * SLOT..][..(header.msg_len as usize).min(SLOT)]);
            }
            total += n;
            if n < BATCH {
                return Ok(total);
            }
        }
    }
}

fn destination(header: &libc::msghdr) -> Option<Ipv4Addr> {
    // SAFETY: the kernel filled the control buffer and set its length; the macros stay within it.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while !control.is_null() {
            if (*control).cmsg_level == libc::IPPROTO_IP && (*control).cmsg_type == libc::IP_PKTINFO
            {
                let info = libc::CMSG_DATA(control).cast::<libc::in_pktinfo>().read_unaligned();
                return Some(Ipv4Addr::from_bits(u32::from_be(info.ipi_addr.s_addr)));
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}
