//! The calls into BoringSSL that `boring` does not wrap: retransmission timers on our clock.
#![allow(unsafe_code, reason = "foreign functions of the DTLS library without a safe wrapper")]

use std::cell::Cell;
use std::time::Duration;

use boring::ssl::{SslContextBuilder, SslRef};
use boring_sys as ffi;
use foreign_types_shared::ForeignTypeRef;

use crate::time::Mono;

/// Added to our clock: BoringSSL takes a timer at second zero for an unset one.
const EPOCH_SECONDS: u64 = 1 << 20;

thread_local! {
    /// What BoringSSL reads as the time; set around every call into it.
    static CLOCK: Cell<Mono> = const { Cell::new(Mono::ZERO) };
}

/// Runs `call` with BoringSSL's clock at `now`. Calls do not nest.
pub(super) fn at<R>(now: Mono, call: impl FnOnce() -> R) -> R {
    CLOCK.set(now);
    call()
}

unsafe extern "C" fn read_clock(_: *const ffi::SSL, out: *mut ffi::timeval) {
    let nanos = CLOCK.get().as_nanos();
    let seconds = nanos / 1_000_000_000 + EPOCH_SECONDS;
    let micros = nanos % 1_000_000_000 / 1_000;
    // SAFETY: BoringSSL passes a pointer to a `timeval` on its own stack, valid for this call.
    // Both values fit: `seconds` < 2^35, `micros` < 10^6.
    unsafe { out.write(ffi::timeval { tv_sec: seconds as _, tv_usec: micros as _ }) };
}

/// Makes every connection of the context read our clock.
pub(super) fn install_clock(context: &mut SslContextBuilder) {
    // SAFETY: the pointer is a live SSL_CTX owned by the builder, and `read_clock` is a plain
    // function without captured state, so it outlives the context.
    unsafe { ffi::SSL_CTX_set_current_time_cb(context.as_ptr(), Some(read_clock)) };
}

/// Time until the next retransmission or acknowledgement, from the clock set by [`at`].
pub(super) fn timeout(ssl: &SslRef) -> Option<Duration> {
    let mut left = ffi::timeval { tv_sec: 0, tv_usec: 0 };
    // SAFETY: the pointer is a live SSL borrowed for this call, `left` is a valid out-parameter.
    let set = unsafe { ffi::DTLSv1_get_timeout(ssl.as_ptr(), &raw mut left) };
    if set != 1 {
        return None;
    }
    let seconds = u64::try_from(left.tv_sec).unwrap_or(0);
    let micros = u64::try_from(left.tv_usec).unwrap_or(0);
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_micros(micros)))
}

/// Retransmits what is due. False: the peer has stopped answering, or the library failed.
pub(super) fn handle_timeout(ssl: &mut SslRef) -> bool {
    // SAFETY: the pointer is a live SSL, borrowed mutably, so nothing else uses it or its BIO
    // during the call. Its BIO is boring's wrapper of a Rust stream, which catches panics.
    unsafe { ffi::DTLSv1_handle_timeout(ssl.as_ptr()) >= 0 }
}
