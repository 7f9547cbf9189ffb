//! Pins a thread to a core.
#![allow(unsafe_code, reason = "sched_setaffinity has no safe wrapper in our dependencies")]

use std::io;

/// The cores this process may run on, ascending.
#[must_use]
pub fn cores() -> Vec<usize> {
    // SAFETY: a zeroed cpu_set_t is an empty set; it is plain data.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is to a live cpu_set_t of the size given.
    let rc = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
    if rc != 0 {
        return vec![0];
    }
    // SAFETY: the index is below CPU_SETSIZE, so the bit is inside the set.
    (0..libc::CPU_SETSIZE as usize).filter(|i| unsafe { libc::CPU_ISSET(*i, &set) }).collect()
}

/// Pins the calling thread to one core.
///
/// # Errors
/// When the kernel refuses, for instance for a core outside the container's set.
pub fn pin(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: a zeroed cpu_set_t is an empty set; it is plain data.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `core` is below CPU_SETSIZE, checked above.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the pointer is to a live cpu_set_t of the size given.
    let rc = unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    if rc == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_can_be_pinned_to_a_core_it_has() {
        let core = *cores().first().expect("at least one core");
        std::thread::spawn(move || {
            pin(core).expect("own core");
            assert_eq!(cores(), [core]);
        })
        .join()
        .expect("no panic");
    }
}
