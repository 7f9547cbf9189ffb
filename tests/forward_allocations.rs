//! After warm-up no packet costs a heap allocation: not on the way in, not on the way out, not
//! when it is repeated.
#![expect(unsafe_code, reason = "an allocator that counts can only be written with unsafe")]

mod forward_kit;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use forward_kit::*;
use veilgate::forward::{Cache, MAX_OVERHEAD, MAX_PAYLOAD, Player, Wants};
use veilgate::metrics::Id;
use veilgate::wire::media::MediaKind;
use veilgate::wire::rtcp::Writer;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: every call is passed to `System` unchanged; the counter beside it neither allocates
// (a constant-initialised `Cell` without destructor) nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: `ptr` came from `System` with this layout, for all ours do.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn ten_thousand_forwarded_packets_allocate_nothing() {
    const WARM: u16 = 2000;
    let stream = stream();
    let mut rig = Rig::new(&stream);
    let mut cache = Cache::new(MediaKind::Video);
    let mut players = [true, false]
        .map(|rtx| Player::new(play(&stream, &[AUDIO, VIDEO], rtx), rng(u64::from(rtx)), at(0)));
    let mut wants = Wants::default();
    let mut slot = [0; MAX_PAYLOAD + MAX_OVERHEAD];
    let mut payload = [0; 1100];
    let ssrc = play_track(VIDEO, false).ssrc;
    let mut last = [0; 2];
    let (mut written, mut repeated) = (0, 0);
    for sequence in 0..WARM + 10_000 {
        payload[..KEY.len()].copy_from_slice(if sequence % 300 == 0 { KEY } else { MORE });
        let mut out = [0; 1200];
        let lost = sequence % 50 == 49;
        let packet = if sequence % 50 == 1 && sequence > 50 {
            rtx(sequence, sequence - 2, &payload)
        } else {
            video(sequence, &payload)
        };
        let now = at(u64::from(sequence) * 3);
        let report = sender_report(VIDEO_SSRC, now.unix.as_ntp(), 9);
        // What the test builds is not the forwarder's.
        let before = ALLOCATIONS.with(Cell::get);
        let media = if lost { None } else { rig.publisher.on_rtp(now, &packet, &mut rig.counters) };
        if let Some(media) = media {
            let payload = &packet[media.payload.clone()];
            cache.store(&media, payload);
            for (player, last) in players.iter_mut().zip(&mut last) {
                let counters = &mut rig.counters;
                if player.write_rtp(now, &media, payload, &mut slot, counters).is_some() {
                    written += 1;
                    *last = u16::from_be_bytes([slot[2], slot[3]]);
                }
            }
        }
        rig.publisher.on_rtcp(now, &report, &mut rig.counters);
        while rig.publisher.poll_rtcp(now, &mut out, &mut rig.counters).is_some() {}
        let clocks = [rig.publisher.clock(AUDIO), rig.publisher.clock(VIDEO)];
        for (player, last) in players.iter_mut().zip(last) {
            let mut writer = Writer::new(&mut out);
            writer.nack(1, ssrc, [last.wrapping_sub(7), last]);
            let len = writer.len();
            wants.clear();
            player.on_rtcp(now, &out[..len], &mut wants, &mut rig.counters);
            for (layer, sequence) in &wants.nacks {
                if let Some((head, payload)) = cache.load(layer.layer, *sequence) {
                    let counters = &mut rig.counters;
                    let len = player.write_retransmission(now, &head, payload, &mut slot, counters);
                    repeated += u32::from(len.is_some());
                }
            }
            while player.poll_rtcp(now, &clocks, &mut out).is_some() {}
        }
        if sequence >= WARM {
            assert_eq!(ALLOCATIONS.with(Cell::get), before, "packet {sequence} allocated");
        }
    }
    assert!(ALLOCATIONS.with(Cell::get) > 0, "the counter counts");
    assert!(written > 20_000 && repeated > 100, "{written} written, {repeated} repeated");
    assert!(rig.counters.get(Id::ForwardRecovered) > 100);
}
