//! The sending end of one player.

use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;

use crate::metrics::{Counters, Id};
use crate::time::{Mono, Now, Unix};
use crate::wire::media::{CodecName, MediaKind, PlaySpec, PlayTrackSpec};
use crate::wire::rtcp::{self, Packet, ReportBlock, SenderInfo};

use super::choice::{Target, TrackRates, Wish};
use super::clock::Clock;
use super::rewrite::{self, Numbers};
use super::selector::{Selector, Taken};
use super::{LayerId, MAX_PAYLOAD, PacketHead};

/// First outgoing numbers are below this: a receiver that loses the first packets must not take
/// the wrap for a start (RFC 3711 section 3.3.1).
const FIRST_SEQUENCE: u64 = 1 << 15;
/// Most packets named by one compound that are passed on.
const MAX_NACKS: usize = 512;
/// Least time between two repeats of one packet: what a duplicated NACK brings.
const REPEAT_INTERVAL: Duration = Duration::from_millis(10);
/// And most, however slow the path.
const LONGEST_REPEAT_INTERVAL: Duration = Duration::from_millis(500);
const REPEAT_MEMORY: usize = 128;
/// Repeats may take half of what is sent, and this many bytes at once. More would turn NACKs into
/// an amplifier and a congested link into a dead one.
const REPEAT_BURST: usize = 128 * 1024;
const REPEAT_SHARE: usize = 2;
/// On a path whose rate is known, what it carries in so long, and at least so much.
const REPEAT_TIME: Duration = Duration::from_millis(250);
const LEAST_REPEAT_BURST: usize = 4 * 1024;
const REPORT_INTERVAL: Duration = Duration::from_secs(1);
/// Until the publisher's clock is known.
const REPORT_RETRY: Duration = Duration::from_millis(100);
const REPORTS_KEPT: usize = 4;
const LONGEST_RTT: Duration = Duration::from_secs(10);

/// What a player's RTCP asks for. Kept and reused by the caller; [`Player::on_rtcp`] adds to it.
#[derive(Debug, Default)]
pub struct Wants {
    /// Layers to ask a keyframe of, each once.
    pub keyframes: Vec<LayerId>,
    /// Lost packets as layer and [`PacketHead::sequence`].
    pub nacks: Vec<(LayerId, u64)>,
}

impl Wants {
    /// Empties both lists and keeps their memory.
    pub fn clear(&mut self) {
        self.keyframes.clear();
        self.nacks.clear();
    }
}

/// What is known of one track's way to the player.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct TrackStats {
    /// Packets written, repeats not counted.
    pub packets: u64,
    /// Payload bytes of these.
    pub octets: u64,
    /// Bytes of repeats.
    pub repeated: u64,
    /// From the player's last report, in 1/256.
    pub fraction_lost: u8,
    /// From the player's last report; repairs may make it shrink.
    pub cumulative_lost: i32,
    /// From the player's last report, in units of the media clock.
    pub jitter: u32,
    /// Round trip between us and the player.
    pub rtt: Option<Duration>,
}

/// One player of a stream: [`PacketHead`]s and payloads in, its RTP out; its RTCP in and out.
#[derive(Debug)]
pub struct Player {
    cname: Box<[u8]>,
    tracks: Vec<PlayTrack>,
    /// For the next packet.
    transport: Option<u16>,
    repeat_interval: Duration,
    repeat_burst: usize,
}

#[derive(Debug)]
struct PlayTrack {
    spec: PlayTrackSpec,
    kind: MediaKind,
    codec: CodecName,
    selector: Selector,
    rtx_sequence: u16,
    repeat_budget: usize,
    repeats: Box<[(u64, Mono)]>,
    next_report: Mono,
    /// Compact NTP and time of the last sender reports.
    reports: [(u32, Mono); REPORTS_KEPT],
    stats: TrackStats,
    /// Of the last packet written.
    last_timestamp: u32,
}

impl Player {
    /// Starts with nothing sent. First sequences and timestamp offsets are drawn from `rng`.
    #[must_use]
    pub fn new(spec: PlaySpec, mut rng: StdRng, now: Now) -> Self {
        let streams = &spec.stream.tracks;
        let track = |play: PlayTrackSpec| {
            let source = streams.get(usize::from(play.track))?;
            let first = rng.random_range(0..FIRST_SEQUENCE);
            Some(PlayTrack {
                kind: source.kind,
                codec: source.codec.name,
                selector: Selector::new(
                    source,
                    play.extensions.dependency_descriptor.is_some(),
                    first,
                    rng.random(),
                    now.mono,
                ),
                rtx_sequence: rng.random_range(0..FIRST_SEQUENCE as u16),
                repeat_budget: REPEAT_BURST,
                repeats: Box::default(),
                next_report: now.mono,
                reports: [(0, Mono::ZERO); REPORTS_KEPT],
                stats: TrackStats::default(),
                last_timestamp: 0,
                spec: play,
            })
        };
        Self {
            cname: spec.cname.into_bytes().into_boxed_slice(),
            tracks: spec.tracks.into_iter().filter_map(track).collect(),
            transport: None,
            repeat_interval: REPEAT_INTERVAL,
            repeat_burst: REPEAT_BURST,
        }
    }

    /// What is known of the path: its round trip while a queue stands in it, and what it carries
    /// in bits per second. A packet repeated less than such a round trip ago waits in that queue,
    /// whoever asks for it (without a queue it may well be lost again); and what is repeated on a
    /// slow path is kept from filling it, which would lose more still.
    pub fn set_path(&mut self, queue_rtt: Option<Duration>, bits: u64) {
        let rtt = queue_rtt.unwrap_or_default();
        self.repeat_interval = (rtt * 3 / 4).clamp(REPEAT_INTERVAL, LONGEST_REPEAT_INTERVAL);
        let burst = bits / 8 * REPEAT_TIME.as_millis() as u64 / 1_000;
        let burst = usize::try_from(burst).unwrap_or(usize::MAX);
        self.repeat_burst = burst.clamp(LEAST_REPEAT_BURST, REPEAT_BURST);
    }

    /// The transport-wide number of the next packet that is written, if its track is numbered
    /// (draft-holmer-rmcat-transport-wide-cc-extensions-01). It is the session's, not the player's.
    pub const fn offer_number(&mut self, number: u16) {
        self.transport = Some(number);
    }

    /// Whether the last packet took the number offered.
    pub const fn took_number(&mut self) -> bool {
        self.transport.take().is_none()
    }

    /// Whether any track's packets are numbered for the whole transport.
    #[must_use]
    pub fn is_numbered(&self) -> bool {
        self.tracks.iter().any(|track| track.spec.extensions.transport_cc.is_some())
    }

    /// Whether it takes a track.
    #[must_use]
    pub fn takes(&self, track: u8) -> bool {
        self.tracks.iter().any(|found| found.spec.track == track)
    }

    /// Whether [`Player::write_padding`] can write.
    #[must_use]
    pub fn can_pad(&self) -> bool {
        self.tracks.iter().any(PlayTrack::can_pad)
    }

    /// Writes a packet of 255 bytes of padding on the RTX source of a video track that is being
    /// sent: it repairs nothing and is thrown away, but says how the path is.
    pub fn write_padding(&mut self, slot: &mut [u8]) -> Option<usize> {
        let track = self.tracks.iter_mut().find(|track| track.can_pad())?;
        let (payload_type, ssrc) = track.spec.rtx_pt.zip(track.spec.rtx_ssrc)?;
        let numbers = Numbers {
            payload_type,
            ssrc,
            sequence: track.rtx_sequence,
            timestamp: track.last_timestamp,
            original: None,
            transport: self.transport.take(),
        };
        let len = rewrite::write_padding(&track.spec, numbers, slot)?;
        track.rtx_sequence = track.rtx_sequence.wrapping_add(1);
        Some(len)
    }

    /// What the player's application wishes of a track.
    pub fn set_wish(&mut self, track: u8, wish: Wish) {
        if let Some(track) = self.by_track(track) {
            track.selector.set_wish(wish);
        }
    }

    /// What of a track is sent at most for want of bandwidth; `None`: nothing. Without a call, the
    /// best.
    pub fn set_target(&mut self, track: u8, target: Option<Target>) {
        if let Some(track) = self.by_track(track) {
            track.selector.set_target(target);
        }
    }

    /// What may be sent of a track by its wish, ascending, with the rates of each choice.
    #[must_use]
    pub fn options(&self, track: u8, rates: &TrackRates) -> Vec<(Target, u32)> {
        let found = self.tracks.iter().find(|found| found.spec.track == track);
        found.map(|found| found.selector.wish().options(rates)).unwrap_or_default()
    }

    /// True once when [`Player::wants_keyframe`] has become more than before.
    pub fn take_asks(&mut self) -> bool {
        self.tracks.iter_mut().fold(false, |asks, track| asks | track.selector.take_asks())
    }

    /// Writes a packet of the stream as this player gets it. `None`: it does not take the track or
    /// the layer, or waits for a keyframe, or the packet is from before it started; a counter says
    /// which.
    pub fn write_rtp(
        &mut self,
        now: Now,
        head: &PacketHead,
        payload: &[u8],
        slot: &mut [u8],
        counters: &mut Counters,
    ) -> Option<usize> {
        let track = self.tracks.iter_mut().find(|track| track.spec.track == head.track)?;
        if payload.len() > MAX_PAYLOAD {
            counters.inc(Id::ForwardDropTooLarge);
            return None;
        }
        let taken = match track.selector.take(now.mono, head, payload) {
            Ok(taken) => taken,
            Err(reason) => {
                counters.inc(reason);
                return None;
            }
        };
        let mut numbers = track.plain(head, &taken);
        numbers.transport = track.spec.extensions.transport_cc.and(self.transport);
        let Some(len) =
            rewrite::write(&track.spec, numbers, (track.codec, &taken.edit), head, payload, slot)
        else {
            counters.inc(Id::ForwardDropTooLarge);
            return None;
        };
        if numbers.transport.is_some() {
            self.transport = None;
        }
        track.last_timestamp = numbers.timestamp;
        if track.stats.packets == 0 {
            track.next_report = now.mono;
        }
        track.stats.packets += 1;
        track.stats.octets += payload.len() as u64;
        track.repeat_budget = (track.repeat_budget + len / REPEAT_SHARE).min(self.repeat_burst);
        counters.inc(Id::ForwardPackets);
        counters.add(Id::ForwardBytes, len as u64);
        Some(len)
    }

    /// Writes a packet again: as RTX (RFC 4588) where that was negotiated, else byte for byte as
    /// the first time. `None`: never sent in this form, repeated just now, or too much repeated.
    /// (The caller counts what its cache does not hold, [`Id::ForwardRetransmitMiss`].)
    pub fn write_retransmission(
        &mut self,
        now: Now,
        head: &PacketHead,
        payload: &[u8],
        slot: &mut [u8],
        counters: &mut Counters,
    ) -> Option<usize> {
        let track = self.tracks.iter_mut().find(|track| track.spec.track == head.track)?;
        let taken = track.selector.again(head).filter(|_| payload.len() <= MAX_PAYLOAD)?;
        if track.repeats.is_empty() {
            // Not before something is lost: most sessions idle, or are on good paths.
            track.repeats = vec![(u64::MAX, Mono::ZERO); REPEAT_MEMORY].into_boxed_slice();
        }
        let repeat = track.repeats.get_mut((taken.number % REPEAT_MEMORY as u64) as usize)?;
        let again = repeat.0 == taken.number && now.mono.since(repeat.1) < self.repeat_interval;
        if again || track.repeat_budget.min(self.repeat_burst) < payload.len() {
            counters.inc(Id::ForwardRetransmitLimited);
            return None;
        }
        *repeat = (taken.number, now.mono);
        let mut numbers = track.plain(head, &taken);
        if let (Some(payload_type), Some(ssrc)) = (track.spec.rtx_pt, track.spec.rtx_ssrc) {
            numbers.payload_type = payload_type;
            numbers.ssrc = ssrc;
            numbers.sequence = track.rtx_sequence;
            numbers.original = Some(taken.number as u16);
            numbers.transport = track.spec.extensions.transport_cc.and(self.transport);
        } else if track.spec.extensions.transport_cc.is_some() {
            // Its first number has gone out with the first bytes, and a new one would make others.
            counters.inc(Id::ForwardRetransmitLimited);
            return None;
        }
        let len =
            rewrite::write(&track.spec, numbers, (track.codec, &taken.edit), head, payload, slot)?;
        if numbers.transport.is_some() {
            self.transport = None;
        }
        if numbers.original.is_some() {
            track.rtx_sequence = track.rtx_sequence.wrapping_add(1);
        }
        let budget = track.repeat_budget.min(self.repeat_burst);
        track.repeat_budget = budget.saturating_sub(len);
        track.stats.repeated += len as u64;
        counters.inc(Id::ForwardRetransmitted);
        Some(len)
    }

    /// Takes one RTCP compound in the clear and adds what it asks for to `wants`.
    pub fn on_rtcp(
        &mut self,
        now: Now,
        compound: &[u8],
        wants: &mut Wants,
        counters: &mut Counters,
    ) {
        for packet in rtcp::Compound::new(compound) {
            match packet {
                Ok(Packet::ReceiverReport { blocks, .. } | Packet::SenderReport { blocks, .. }) => {
                    for block in blocks {
                        if let Some(track) = self.by_ssrc(block.ssrc) {
                            track.on_report(now.mono, &block);
                        }
                    }
                }
                Ok(Packet::Nack { media, lost }) => {
                    let Some(track) = self.by_ssrc(media) else { continue };
                    for sequence in lost {
                        counters.inc(Id::ForwardNackReceived);
                        if wants.nacks.len() < MAX_NACKS
                            && let Some((layer, sequence)) = track.selector.source(sequence)
                        {
                            let layer = LayerId { track: track.spec.track, layer };
                            wants.nacks.push((layer, sequence));
                        }
                    }
                }
                Ok(Packet::Pli { media }) => self.on_keyframe_request(media, wants, counters),
                Ok(Packet::Fir(targets)) => {
                    for (media, _) in targets {
                        self.on_keyframe_request(media, wants, counters);
                    }
                }
                // Of the whole transport, which has players of other streams too.
                Ok(Packet::Remb { .. } | Packet::TransportCc { .. }) => {}
                Ok(Packet::Sdes(_) | Packet::Bye(_) | Packet::Other) => {}
                Err(rtcp::Malformed) => counters.inc(Id::ForwardRtcpMalformed),
            }
        }
    }

    /// Writes the sender reports that are due with our CNAME as one compound, to protect and send;
    /// `clocks` by track number. Call until it returns `None`. `out` should have 1,200 bytes.
    pub fn poll_rtcp(
        &mut self,
        now: Now,
        clocks: &[Option<Clock>],
        out: &mut [u8],
    ) -> Option<usize> {
        if self.poll_timeout()? > now.mono {
            return None;
        }
        let mut writer = rtcp::Writer::new(out);
        let mut names = [0; rtcp::MAX_COUNT];
        let mut count = 0;
        for track in &mut self.tracks {
            if !track.report_due(now.mono) {
                continue;
            }
            let clock = clocks.get(usize::from(track.spec.track)).copied().flatten();
            let Some(clock) = clock else {
                track.next_report = now.mono.plus(REPORT_RETRY);
                continue;
            };
            // Room for this report and for the chunks of all: the rest waits for the next call.
            let chunk = self.cname.len() + 4 + 2 + 4;
            let Some(name) = names.get_mut(count) else { break };
            if writer.room() < 28 + 4 + chunk * (count + 1) {
                break;
            }
            let info = track.sender_info(now.unix, &track.selector.clock(&clock));
            if !writer.sender_report(track.spec.ssrc, &info, []) {
                break;
            }
            *name = track.spec.ssrc;
            count += 1;
            track.next_report = now.mono.plus(REPORT_INTERVAL);
            track.reports.rotate_right(1);
            track.reports[0] = ((info.ntp >> 16) as u32, now.mono);
        }
        if count == 0 {
            return None;
        }
        writer.sdes(names.into_iter().take(count), &self.cname);
        Some(writer.len())
    }

    /// Layers that it waits for a keyframe of: just joined, restarted, or to change to. To be asked
    /// again and again, for instance at each [`Player::poll_timeout`]: the publisher merges and
    /// paces the requests.
    pub fn wants_keyframe(&self) -> impl Iterator<Item = LayerId> {
        let wanted = |track: &PlayTrack| {
            Some(LayerId { track: track.spec.track, layer: track.selector.wanted()? })
        };
        self.tracks.iter().filter_map(wanted)
    }

    /// When [`Player::poll_rtcp`] may have something to write. `None` before the first packet.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Mono> {
        let sending = self.tracks.iter().filter(|track| track.stats.packets > 0);
        sending.map(|track| track.next_report).min()
    }

    /// Of the track with this number, if the player takes it.
    #[must_use]
    pub fn stats(&self, track: u8) -> Option<TrackStats> {
        self.tracks.iter().find(|found| found.spec.track == track).map(|found| found.stats)
    }

    fn by_ssrc(&mut self, ssrc: u32) -> Option<&mut PlayTrack> {
        self.tracks.iter_mut().find(|track| track.spec.ssrc == ssrc)
    }

    fn on_keyframe_request(&mut self, media: u32, wants: &mut Wants, counters: &mut Counters) {
        let Some(track) = self.by_ssrc(media) else { return };
        counters.inc(Id::ForwardKeyframeAsked);
        let layer = track.selector.current().or_else(|| track.selector.wanted());
        let Some(layer) = layer else { return };
        let layer = LayerId { track: track.spec.track, layer };
        if track.kind == MediaKind::Video && !wants.keyframes.contains(&layer) {
            wants.keyframes.push(layer);
        }
    }

    fn by_track(&mut self, number: u8) -> Option<&mut PlayTrack> {
        self.tracks.iter_mut().find(|track| track.spec.track == number)
    }
}

impl PlayTrack {
    const fn plain(&self, head: &PacketHead, taken: &Taken) -> Numbers {
        Numbers {
            payload_type: self.spec.pt,
            ssrc: self.spec.ssrc,
            sequence: taken.number as u16,
            timestamp: head.timestamp.wrapping_add(taken.edit.timestamp),
            original: None,
            transport: None,
        }
    }

    fn can_pad(&self) -> bool {
        let negotiated = self.spec.rtx_pt.is_some() && self.spec.rtx_ssrc.is_some();
        let numbered = self.spec.extensions.transport_cc.is_some();
        negotiated && numbered && self.kind == MediaKind::Video && self.stats.packets > 0
    }

    fn report_due(&self, now: Mono) -> bool {
        self.stats.packets > 0 && self.next_report <= now
    }

    fn sender_info(&self, now: Unix, clock: &Clock) -> SenderInfo {
        SenderInfo {
            ntp: now.as_ntp(),
            rtp: clock.rtp_at(now, self.codec.clock_rate()),
            packets: self.stats.packets as u32,
            octets: self.stats.octets as u32,
        }
    }

    fn on_report(&mut self, now: Mono, block: &ReportBlock) {
        self.stats.fraction_lost = block.fraction_lost;
        self.stats.cumulative_lost = block.cumulative_lost;
        self.stats.jitter = block.jitter;
        // By our own record of the report named, so that a false LSR or a set clock says nothing.
        let sent = self.reports.iter().find(|(ntp, _)| *ntp != 0 && *ntp == block.last_sr);
        if let Some((_, sent)) = sent {
            let rtt = now.since(*sent).checked_sub(rewrite::compact(block.delay));
            if let Some(rtt) = rtt.filter(|rtt| *rtt <= LONGEST_RTT) {
                self.stats.rtt = Some(rtt);
            }
        }
    }
}
