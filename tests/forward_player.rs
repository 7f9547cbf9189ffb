//! What one player gets of a stream, and what its RTCP asks for: scripts with exact bytes.

mod forward_kit;

use std::time::Duration;

use forward_kit::*;
use veilgate::forward::{Clock, MAX_OVERHEAD, MAX_PAYLOAD, Meta, PacketHead, Player, Wants};
use veilgate::metrics::{Counters, Id};
use veilgate::time::Now;
use veilgate::wire::rtcp::{Compound, Packet, ReportBlock, Writer};
use veilgate::wire::rtp::Rtp;

struct Viewer {
    player: Player,
    counters: Counters,
    wants: Wants,
}

impl Viewer {
    fn new(tracks: &[u8], rtx: bool) -> Self {
        let player = Player::new(play(&stream(), tracks, rtx), rng(7), at(0));
        Self { player, counters: Counters::default(), wants: Wants::default() }
    }

    fn write(&mut self, now: Now, head: &PacketHead, payload: &[u8]) -> Option<Vec<u8>> {
        let mut slot = [0xEE; MAX_PAYLOAD + MAX_OVERHEAD];
        let len = self.player.write_rtp(now, head, payload, &mut slot, &mut self.counters)?;
        Some(slot[..len].to_vec())
    }

    fn again(&mut self, now: Now, head: &PacketHead, payload: &[u8]) -> Option<Vec<u8>> {
        let mut slot = [0xEE; MAX_PAYLOAD + MAX_OVERHEAD];
        let (player, counters) = (&mut self.player, &mut self.counters);
        let len = player.write_retransmission(now, head, payload, &mut slot, counters)?;
        Some(slot[..len].to_vec())
    }

    fn rtcp(&mut self, now: Now, compound: impl FnOnce(&mut Writer<'_>) -> bool) -> &Wants {
        let mut buf = [0; 1500];
        let mut writer = Writer::new(&mut buf);
        assert!(compound(&mut writer));
        let len = writer.len();
        self.wants.clear();
        self.player.on_rtcp(now, &buf[..len], &mut self.wants, &mut self.counters);
        &self.wants
    }

    fn wanted(&self) -> Vec<u8> {
        self.player.wants_keyframe().map(|layer| layer.track).collect()
    }
}

fn head(sequence: u64, keyframe: bool) -> PacketHead {
    PacketHead { track: VIDEO, sequence, timestamp: 3000, keyframe, ..PacketHead::default() }
}

fn sequence_of(packet: &[u8]) -> u16 {
    Rtp::parse(packet).expect("valid").sequence()
}

#[test]
fn header_is_the_players_own_and_the_payload_untouched() {
    let mut viewer = Viewer::new(&[AUDIO, VIDEO], true);
    let meta =
        Meta { audio_level: Some(0x85), orientation: Some(2), playout_delay: Some([1, 2, 3]) };
    let head = PacketHead { marker: true, meta, ..head(70_000, true) };
    let first = viewer.write(at(0), &head, KEY).expect("written");
    let rtp = Rtp::parse(&first).expect("valid");
    assert_eq!((rtp.payload_type(), rtp.ssrc(), rtp.marker()), (101, 0x1001, true));
    assert!(rtp.sequence() < 1 << 15);
    assert_eq!(rtp.csrc_count(), 0);
    // Playout delay was not negotiated with this player.
    let elements: Vec<_> = rtp.elements().collect();
    assert_eq!(elements, [(9, &b"m1"[..]), (10, &[0x85][..]), (11, &[2][..])]);
    assert_eq!(rtp.payload(), KEY);

    let later = PacketHead { sequence: 70_003, timestamp: 3000 + 90_000, ..head };
    let second = viewer.write(at(1), &later, MORE).expect("written");
    let next = Rtp::parse(&second).expect("valid");
    assert_eq!(next.sequence(), rtp.sequence() + 3);
    assert_eq!(next.timestamp(), rtp.timestamp().wrapping_add(90_000));
    // The offset is random: the source's own timestamp does not show.
    assert_ne!(rtp.timestamp(), 3000);
    assert_eq!(viewer.counters.get(Id::ForwardPackets), 2);
    assert_eq!(viewer.counters.get(Id::ForwardBytes), (first.len() + second.len()) as u64);
}

#[test]
fn video_waits_for_a_keyframe_and_audio_for_nothing() {
    let mut viewer = Viewer::new(&[AUDIO, VIDEO], true);
    assert_eq!(viewer.wanted(), [VIDEO]);
    let audio = PacketHead { track: AUDIO, sequence: 5, ..PacketHead::default() };
    assert!(viewer.write(at(0), &audio, b"x").is_some());
    assert!(viewer.write(at(0), &head(10, false), DELTA).is_none());
    assert!(viewer.write(at(1900), &head(11, false), DELTA).is_none());
    let base = sequence_of(&viewer.write(at(1950), &head(12, true), KEY).expect("written"));
    assert!(viewer.wanted().is_empty());
    // From before the start: it has no number, also when it comes late.
    assert!(viewer.write(at(1951), &head(11, false), DELTA).is_none());
    assert!(viewer.again(at(1951), &head(11, false), DELTA).is_none());
    let next = viewer.write(at(1952), &head(14, false), MORE).expect("written");
    assert_eq!(sequence_of(&next), base + 2);
    let late = viewer.write(at(1953), &head(13, false), MORE).expect("written");
    assert_eq!(sequence_of(&late), base + 1);
    assert_eq!(viewer.counters.get(Id::ForwardDropAwaitKeyframe), 2);
    assert_eq!(viewer.counters.get(Id::ForwardDropLate), 1);
}

#[test]
fn video_without_any_keyframe_starts_after_two_seconds_and_still_asks() {
    let mut viewer = Viewer::new(&[VIDEO], false);
    // Nothing came for a long time: the wait starts with the first packet.
    assert!(viewer.write(at(60_000), &head(10, false), DELTA).is_none());
    assert!(viewer.write(at(61_999), &head(11, false), DELTA).is_none());
    assert!(viewer.write(at(62_000), &head(12, false), DELTA).is_some());
    assert_eq!(viewer.wanted(), [VIDEO]);
    assert!(viewer.write(at(62_001), &head(13, true), KEY).is_some());
    assert!(viewer.wanted().is_empty());
}

#[test]
fn a_track_that_is_not_taken_is_not_written() {
    let mut viewer = Viewer::new(&[AUDIO], false);
    assert!(viewer.write(at(0), &head(10, true), KEY).is_none());
    assert!(viewer.again(at(0), &head(10, true), KEY).is_none());
    let unknown = PacketHead { track: 200, ..head(10, true) };
    assert!(viewer.write(at(0), &unknown, KEY).is_none());
    assert_eq!(viewer.counters.get(Id::ForwardPackets), 0);
    assert_eq!(viewer.player.stats(VIDEO), None);
}

#[test]
fn nack_is_answered_by_rtx_with_numbers_of_its_own() {
    let mut viewer = Viewer::new(&[VIDEO], true);
    let straight = viewer.write(at(0), &head(100, true), KEY).expect("written");
    let base = sequence_of(&straight);
    for sequence in 101..110 {
        viewer.write(at(0), &head(sequence, false), MORE).expect("written");
    }
    let lost = [base.wrapping_sub(1), base, base + 9, base + 10];
    let wants = viewer.rtcp(at(50), |to| to.nack(1, 0x1001, lost));
    // Only what was sent has a source.
    assert_eq!(wants.nacks, [(plain(VIDEO), 100), (plain(VIDEO), 109)]);
    assert_eq!(viewer.counters.get(Id::ForwardNackReceived), 4);

    let first = viewer.again(at(50), &head(100, true), KEY).expect("repeated");
    let rtp = Rtp::parse(&first).expect("valid");
    let original = Rtp::parse(&straight).expect("valid");
    assert_eq!((rtp.payload_type(), rtp.ssrc()), (121, 0x2001));
    assert_eq!(rtp.timestamp(), original.timestamp());
    assert_eq!(rtp.payload()[..2], base.to_be_bytes());
    assert_eq!(&rtp.payload()[2..], KEY);
    let second = viewer.again(at(50), &head(109, false), MORE).expect("repeated");
    assert_eq!(sequence_of(&second), rtp.sequence() + 1);
    // The same one again within 10 ms is a duplicated NACK.
    assert!(viewer.again(at(59), &head(100, true), KEY).is_none());
    assert!(viewer.again(at(60), &head(100, true), KEY).is_some());
    assert_eq!(viewer.counters.get(Id::ForwardRetransmitted), 3);
    assert_eq!(viewer.counters.get(Id::ForwardRetransmitLimited), 1);
}

#[test]
fn without_rtx_the_repeat_is_byte_identical() {
    let mut viewer = Viewer::new(&[VIDEO], false);
    let meta = Meta { orientation: Some(3), ..Meta::default() };
    let packet = PacketHead { meta, ..head(100, true) };
    let straight = viewer.write(at(0), &packet, KEY).expect("written");
    viewer.write(at(1), &head(200, false), MORE).expect("written");
    assert_eq!(viewer.again(at(500), &packet, KEY), Some(straight));
    // Never sent: no number of the future is spent.
    assert_eq!(viewer.again(at(500), &head(201, false), MORE), None);
}

#[test]
fn repeats_are_at_most_half_of_what_is_sent_beyond_a_burst() {
    let mut viewer = Viewer::new(&[VIDEO], true);
    let payload = [0x10; 1000];
    let mut sent = 0;
    for sequence in 0..10u64 {
        sent += viewer.write(at(0), &head(sequence, true), &payload).expect("written").len();
    }
    let mut repeated = 0;
    for round in 0..1000u64 {
        let again = viewer.again(at(100 + 20 * round), &head(round % 10, true), &payload);
        repeated += again.map_or(0, |packet| packet.len());
    }
    assert!((100_000..=128 * 1024 + 1100).contains(&repeated), "{repeated}");
    for sequence in 10..30u64 {
        sent += viewer.write(at(30_000), &head(sequence, true), &payload).expect("written").len();
    }
    let mut more = 0;
    for round in 0..1000u64 {
        let again = viewer.again(at(40_000 + 20 * round), &head(round % 10, true), &payload);
        more += again.map_or(0, |packet| packet.len());
    }
    assert!(more > 0 && more <= sent / 2 + 1100, "{more} of {sent}");
}

#[test]
fn pli_and_fir_name_the_track_once() {
    let mut viewer = Viewer::new(&[AUDIO, VIDEO], true);
    let wants = viewer.rtcp(at(0), |to| to.pli(1, 0x1001) && to.fir(1, 0x1001, 3));
    assert_eq!(wants.keyframes, [plain(VIDEO)]);
    // Audio has no keyframes; a foreign SSRC is nobody's.
    let wants = viewer.rtcp(at(0), |to| to.pli(1, 0x1000) && to.pli(1, 0x9999));
    assert!(wants.keyframes.is_empty());
    assert_eq!(viewer.counters.get(Id::ForwardKeyframeAsked), 3);
}

#[test]
fn a_flood_of_nacks_is_bounded() {
    let mut viewer = Viewer::new(&[VIDEO], true);
    let first = sequence_of(&viewer.write(at(0), &head(0, true), KEY).expect("written"));
    for sequence in 1..5000u64 {
        viewer.write(at(0), &head(sequence, false), MORE).expect("written");
    }
    let wants = viewer.rtcp(at(0), |to| to.nack(1, 0x1001, (0..5000).map(|n| first + n)));
    assert_eq!(wants.nacks.len(), 512);
}

#[test]
fn sender_reports_start_with_the_clock_and_come_each_second() {
    let mut viewer = Viewer::new(&[AUDIO, VIDEO], true);
    let mut out = [0; 1200];
    assert_eq!(viewer.player.poll_timeout(), None);
    let packet = viewer.write(at(10), &head(100, true), KEY).expect("written");
    assert_eq!(viewer.player.poll_timeout().map(millis), Some(10));
    assert_eq!(viewer.player.poll_rtcp(at(10), &[None, None], &mut out), None);
    assert_eq!(viewer.player.poll_timeout().map(millis), Some(110));
    // Source timestamp 3000 was sampled at 0 ms; no audio was sent, so none is reported.
    let clock = Some(Clock { rtp: 3000, unix: at(0).unix });
    let len = viewer.player.poll_rtcp(at(110), &[clock, clock], &mut out).expect("due");
    assert_eq!(words_of(&out[..len]), ["sr 1001 1 5"]);
    let shift = Rtp::parse(&packet).expect("valid").timestamp().wrapping_sub(3000);
    let Some(Ok(Packet::SenderReport { info, .. })) = Compound::new(&out[..len]).next() else {
        panic!("an SR leads");
    };
    assert_eq!(info.ntp, at(110).unix.as_ntp());
    assert_eq!(info.rtp, 3000u32.wrapping_add(9_900).wrapping_add(shift));
    assert_eq!(viewer.player.poll_rtcp(at(110), &[clock, clock], &mut out), None);
    assert_eq!(viewer.player.poll_timeout().map(millis), Some(1110));
    // Too little room for both: the second comes with the next call.
    let audio = PacketHead { track: AUDIO, sequence: 5, ..PacketHead::default() };
    viewer.write(at(1110), &audio, b"x").expect("written");
    let small = &mut out[..60];
    let len = viewer.player.poll_rtcp(at(1110), &[clock, clock], small).expect("due");
    assert_eq!(words_of(&small[..len]), ["sr 1000 1 1"]);
    let len = viewer.player.poll_rtcp(at(1110), &[clock, clock], small).expect("due");
    assert_eq!(words_of(&small[..len]), ["sr 1001 1 5"]);
}

#[test]
fn round_trip_and_loss_are_read_from_receiver_reports() {
    let mut viewer = Viewer::new(&[VIDEO], true);
    let mut out = [0; 1200];
    viewer.write(at(0), &head(100, true), KEY).expect("written");
    let clocks = [None, Some(Clock { rtp: 0, unix: at(0).unix })];
    viewer.player.poll_rtcp(at(0), &clocks, &mut out).expect("due");
    let block = ReportBlock {
        ssrc: 0x1001,
        fraction_lost: 13,
        cumulative_lost: 4,
        jitter: 77,
        last_sr: (at(0).unix.as_ntp() >> 16) as u32,
        delay: 65536 / 4,
        ..ReportBlock::default()
    };
    viewer.rtcp(at(320), |to| to.receiver_report(1, [block]));
    let stats = viewer.player.stats(VIDEO).expect("taken");
    assert_eq!(stats.rtt, Some(Duration::from_millis(70)));
    assert_eq!((stats.fraction_lost, stats.cumulative_lost, stats.jitter), (13, 4, 77));
    assert_eq!((stats.packets, stats.octets), (1, 5));
    // A report that we never sent, or a delay that cannot be, says nothing.
    let false_sr = ReportBlock { last_sr: 12345, ..block };
    let false_delay = ReportBlock { delay: u32::MAX, ..block };
    viewer.rtcp(at(400), |to| to.receiver_report(1, [false_sr, false_delay]));
    assert_eq!(viewer.player.stats(VIDEO).expect("taken").rtt, Some(Duration::from_millis(70)));
}

#[test]
fn malformed_rtcp_is_counted() {
    let mut viewer = Viewer::new(&[VIDEO], true);
    let bytes = [0x80, 201, 0, 1, 0, 0, 0, 1, 0x81, 205, 0, 99];
    viewer.player.on_rtcp(at(0), &bytes, &mut viewer.wants, &mut viewer.counters);
    assert_eq!(viewer.counters.get(Id::ForwardRtcpMalformed), 1);
}

#[test]
fn a_long_hole_in_what_a_player_got_does_not_break_its_numbers() {
    let mut viewer = Viewer::new(&[VIDEO], false);
    let first = viewer.write(at(0), &head(100, true), KEY).expect("written");
    let next = viewer.write(at(0), &head(100 + 40_000, false), MORE).expect("written");
    assert_eq!(sequence_of(&next), sequence_of(&first) + 2);
    assert_eq!(viewer.wanted(), [VIDEO]);
    // What lies in the hole has no number any more.
    assert!(viewer.write(at(0), &head(40_099, false), MORE).is_none());
    assert!(viewer.again(at(0), &head(40_099, false), MORE).is_none());
    // What lies before it has its own.
    assert_eq!(viewer.again(at(0), &head(100, true), KEY).as_ref(), Some(&first));
    let lost = sequence_of(&first);
    let wants = viewer.rtcp(at(0), |to| to.nack(1, 0x1001, [lost, lost + 1]));
    assert_eq!(wants.nacks, [(plain(VIDEO), 100)]);
}

#[test]
fn a_payload_too_large_or_a_slot_too_small_is_a_counted_drop() {
    let mut viewer = Viewer::new(&[VIDEO], true);
    assert!(viewer.write(at(0), &head(1, true), &[0; MAX_PAYLOAD + 1]).is_none());
    let mut slot = [0; 20];
    let (player, counters) = (&mut viewer.player, &mut viewer.counters);
    assert!(player.write_rtp(at(0), &head(1, true), KEY, &mut slot, counters).is_none());
    assert_eq!(viewer.counters.get(Id::ForwardDropTooLarge), 2);
    let largest = viewer.write(at(0), &head(2, true), &[0; MAX_PAYLOAD]).expect("written");
    assert!(largest.len() <= MAX_PAYLOAD + MAX_OVERHEAD);
}
