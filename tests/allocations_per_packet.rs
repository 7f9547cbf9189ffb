//! Forwarding a packet allocates nothing.
#![allow(unsafe_code, reason = "a counting allocator must implement the unsafe trait GlobalAlloc")]

mod peer;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use peer::gateway::{Gateway, eventually};
use peer::vp8;
use veilgate::metrics::Id;

static COUNTING: AtomicBool = AtomicBool::new(false);
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Set on the thread of the test, whose own allocations do not count.
    static IGNORED: Cell<bool> = const { Cell::new(false) };
}

struct Counting;

// SAFETY: every call is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTING.load(Ordering::Relaxed) && !IGNORED.with(Cell::get) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps GlobalAlloc's contract, which is System's as well.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[test]
fn ten_thousand_forwarded_packets_allocate_nothing() {
    IGNORED.with(|i| i.set(true));
    let mut gateway = Gateway::start(1);
    let (mut publisher, _) = gateway.publisher("lobby/cam1");
    let (mut player, _, _) = gateway.player("lobby/cam1", "viewer");
    let mut next = 1;
    let mut forward = |count: u16| {
        for _ in 0..count {
            publisher.send_rtp(&vp8(next, next == 1));
            next += 1;
            while player
                .recv_media(Duration::from_secs(5))
                .is_some_and(|p| (192..=223).contains(&p[1]))
            {}
        }
    };
    forward(2_000);
    let before = eventually(|| {
        let n = gateway.count(Id::ForwardPackets);
        (n >= 2_000).then_some(n)
    });
    COUNTING.store(true, Ordering::Relaxed);
    forward(10_000);
    COUNTING.store(false, Ordering::Relaxed);
    let forwarded = eventually(|| {
        let n = gateway.count(Id::ForwardPackets) - before;
        (n >= 10_000).then_some(n)
    });
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    // Reports and timers once a second are not per packet; the control thread's tick neither.
    assert!(
        allocations < 100,
        "{allocations} allocations while {forwarded} packets were forwarded"
    );
}
