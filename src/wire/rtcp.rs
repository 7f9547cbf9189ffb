//! RTCP: compounds (RFC 3550 section 6), feedback (RFC 4585, 5104), reduced size (RFC 5506) and
//! REMB (draft-alvestrand-rmcat-remb-03); transport-wide feedback is in `twcc`. Unknown packet types are passed over, lies are errors.

use super::twcc;

/// Packet types.
const SR: u8 = 200;
const RR: u8 = 201;
const SDES: u8 = 202;
const BYE: u8 = 203;
pub(super) const RTPFB: u8 = 205;
const PSFB: u8 = 206;
/// Feedback message types.
const FMT_NACK: u8 = 1;
const FMT_PLI: u8 = 1;
const FMT_FIR: u8 = 4;
const FMT_AFB: u8 = 15;
pub(super) const FMT_TRANSPORT_CC: u8 = 15;

const SDES_CNAME: u8 = 1;
const BLOCK: usize = 24;
/// Most report blocks, SSRCs or chunks a five-bit count can announce.
pub const MAX_COUNT: usize = 31;

/// The bytes are not RTCP, from here on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("malformed RTCP")]
pub struct Malformed;

/// Sender information of an SR (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SenderInfo {
    /// 32.32 fixed point, since 1900.
    pub ntp: u64,
    /// The same instant on the media clock.
    pub rtp: u32,
    /// RTP packets sent.
    pub packets: u32,
    /// Payload octets sent.
    pub octets: u32,
}

/// A report block (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReportBlock {
    /// The source reported on.
    pub ssrc: u32,
    /// Lost since the last report, in 1/256.
    pub fraction_lost: u8,
    /// Lost since the start, 24 bits signed.
    pub cumulative_lost: i32,
    /// Extended highest sequence number received.
    pub highest: u32,
    /// In units of the media clock.
    pub jitter: u32,
    /// Middle 32 bits of the NTP time of the last SR, or 0.
    pub last_sr: u32,
    /// Time since that SR, in 1/65536 s.
    pub delay: u32,
}

/// One packet of a compound.
#[derive(Clone, Debug)]
pub enum Packet<'a> {
    /// SR.
    SenderReport {
        /// Its sender.
        ssrc: u32,
        /// Clock and counts.
        info: SenderInfo,
        /// What it received.
        blocks: Blocks<'a>,
    },
    /// RR.
    ReceiverReport {
        /// Its sender.
        ssrc: u32,
        /// What it received.
        blocks: Blocks<'a>,
    },
    /// SDES: iterator over `(ssrc, cname)`.
    Sdes(Cnames<'a>),
    /// BYE; the reason is not read.
    Bye(Ssrcs<'a>),
    /// Generic NACK (RFC 4585 section 6.2.1).
    Nack {
        /// The packets' source.
        media: u32,
        /// Iterator over lost sequence numbers.
        lost: Lost<'a>,
    },
    /// Picture loss indication (RFC 4585 section 6.3.1).
    Pli {
        /// The source asked for a keyframe.
        media: u32,
    },
    /// Full intra request (RFC 5104 section 4.3.1): iterator over `(ssrc, command number)`.
    Fir(FirTargets<'a>),
    /// Receiver estimated maximum bitrate.
    Remb {
        /// Bits per second, all sources together.
        bitrate: u64,
        /// The sources it is about.
        ssrcs: Ssrcs<'a>,
    },
    /// When packets of the whole transport arrived.
    TransportCc {
        /// A source of some of them.
        media: u32,
        /// By transport-wide numbers.
        feedback: twcc::Feedback<'a>,
    },
    /// A type or format that we do not read.
    Other,
}

/// Iterator over the packets of a compound; ends after the first [`Malformed`].
#[derive(Clone, Debug)]
pub struct Compound<'a> {
    rest: &'a [u8],
}

impl<'a> Compound<'a> {
    /// Reads a datagram, also one of reduced size.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    fn step(&mut self) -> Result<Packet<'a>, Malformed> {
        let (&[first, kind, high, low], after) =
            self.rest.split_first_chunk::<4>().ok_or(Malformed)?;
        let length = 4 * usize::from(u16::from_be_bytes([high, low]));
        let (mut body, rest) = after.split_at_checked(length).ok_or(Malformed)?;
        if first >> 6 != 2 {
            return Err(Malformed);
        }
        if first & 0x20 != 0 {
            // RFC 3550 section 6.4.1: only the last packet of a compound may be padded, to a
            // multiple of four. libwebrtc's transport-wide feedback is padded by one to three
            // bytes, wherever it stands.
            let padding = usize::from(*body.last().ok_or(Malformed)?);
            let odd = padding % 4 != 0 || !rest.is_empty();
            if padding == 0 || odd && (kind, first & 0x1F) != (RTPFB, FMT_TRANSPORT_CC) {
                return Err(Malformed);
            }
            body = body.get(..body.len().wrapping_sub(padding)).ok_or(Malformed)?;
        }
        self.rest = rest;
        packet(kind, first & 0x1F, body)
    }
}

impl<'a> Iterator for Compound<'a> {
    type Item = Result<Packet<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let packet = self.step();
        if packet.is_err() {
            self.rest = &[];
        }
        Some(packet)
    }
}

fn packet(kind: u8, count: u8, body: &[u8]) -> Result<Packet<'_>, Malformed> {
    let items = usize::from(count);
    match (kind, count) {
        (SR, _) => {
            let (ssrc, body) = take_u32(body)?;
            let (high, body) = take_u32(body)?;
            let (low, body) = take_u32(body)?;
            let (rtp, body) = take_u32(body)?;
            let (packets, body) = take_u32(body)?;
            let (octets, body) = take_u32(body)?;
            let ntp = (u64::from(high) << 32) | u64::from(low);
            let blocks = Blocks { rest: body.get(..BLOCK * items).ok_or(Malformed)? };
            let info = SenderInfo { ntp, rtp, packets, octets };
            Ok(Packet::SenderReport { ssrc, info, blocks })
        }
        (RR, _) => {
            let (ssrc, body) = take_u32(body)?;
            let blocks = Blocks { rest: body.get(..BLOCK * items).ok_or(Malformed)? };
            Ok(Packet::ReceiverReport { ssrc, blocks })
        }
        (SDES, _) => Ok(Packet::Sdes(Cnames { rest: body, chunks: count })),
        (BYE, _) => Ok(Packet::Bye(Ssrcs { rest: body.get(..4 * items).ok_or(Malformed)? })),
        (RTPFB, FMT_NACK) => {
            let (media, fci) = feedback(body)?;
            Ok(Packet::Nack { media, lost: Lost { rest: fci, base: 0, mask: 0 } })
        }
        (RTPFB, FMT_TRANSPORT_CC) => {
            let (media, fci) = feedback(body)?;
            Ok(Packet::TransportCc { media, feedback: twcc::Feedback::parse(fci)? })
        }
        (PSFB, FMT_PLI) => feedback(body).map(|(media, _)| Packet::Pli { media }),
        (PSFB, FMT_FIR) => feedback(body).map(|(_, fci)| Packet::Fir(FirTargets { rest: fci })),
        (PSFB, FMT_AFB) => {
            let (_, fci) = feedback(body)?;
            let Some(fci) = fci.strip_prefix(b"REMB") else { return Ok(Packet::Other) };
            let (&[count, a, b, c], list) = fci.split_first_chunk::<4>().ok_or(Malformed)?;
            let list = list.get(..4 * usize::from(count)).ok_or(Malformed)?;
            let mantissa = u64::from(u32::from_be_bytes([0, a & 3, b, c]));
            let shift = u32::from(a >> 2);
            // An exponent that loses bits is a lie about a link that does not exist.
            let bitrate = mantissa.checked_mul(1 << shift).ok_or(Malformed)?;
            Ok(Packet::Remb { bitrate, ssrcs: Ssrcs { rest: list } })
        }
        _ => Ok(Packet::Other),
    }
}

/// Media SSRC and feedback control information; the sender's SSRC is not read.
fn feedback(body: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let (_, body) = take_u32(body)?;
    take_u32(body)
}

fn take_u32(bytes: &[u8]) -> Result<(u32, &[u8]), Malformed> {
    let (value, rest) = bytes.split_first_chunk::<4>().ok_or(Malformed)?;
    Ok((u32::from_be_bytes(*value), rest))
}

/// Iterator over report blocks.
#[derive(Clone, Debug)]
pub struct Blocks<'a> {
    rest: &'a [u8],
}

impl Iterator for Blocks<'_> {
    type Item = ReportBlock;

    fn next(&mut self) -> Option<ReportBlock> {
        let (ssrc, rest) = take_u32(self.rest).ok()?;
        let (loss, rest) = take_u32(rest).ok()?;
        let (highest, rest) = take_u32(rest).ok()?;
        let (jitter, rest) = take_u32(rest).ok()?;
        let (last_sr, rest) = take_u32(rest).ok()?;
        let (delay, rest) = take_u32(rest).ok()?;
        self.rest = rest;
        Some(ReportBlock {
            ssrc,
            fraction_lost: (loss >> 24) as u8,
            // Sign extension of 24 bits.
            cumulative_lost: ((loss << 8) as i32) >> 8,
            highest,
            jitter,
            last_sr,
            delay,
        })
    }
}

/// Iterator over SSRCs.
#[derive(Clone, Debug)]
pub struct Ssrcs<'a> {
    rest: &'a [u8],
}

impl Iterator for Ssrcs<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let (ssrc, rest) = take_u32(self.rest).ok()?;
        self.rest = rest;
        Some(ssrc)
    }
}

/// Iterator over `(ssrc, command sequence number)`.
#[derive(Clone, Debug)]
pub struct FirTargets<'a> {
    rest: &'a [u8],
}

impl Iterator for FirTargets<'_> {
    type Item = (u32, u8);

    fn next(&mut self) -> Option<(u32, u8)> {
        let (ssrc, rest) = take_u32(self.rest).ok()?;
        let (command, rest) = take_u32(rest).ok()?;
        self.rest = rest;
        Some((ssrc, (command >> 24) as u8))
    }
}

/// Iterator over lost sequence numbers, as listed.
#[derive(Clone, Debug)]
pub struct Lost<'a> {
    rest: &'a [u8],
    base: u16,
    mask: u16,
}

impl Iterator for Lost<'_> {
    type Item = u16;

    fn next(&mut self) -> Option<u16> {
        if self.mask != 0 {
            let bit = self.mask.trailing_zeros() as u16;
            self.mask &= self.mask - 1;
            return Some(self.base.wrapping_add(bit + 1));
        }
        let (fci, rest) = take_u32(self.rest).ok()?;
        self.rest = rest;
        self.base = (fci >> 16) as u16;
        self.mask = fci as u16;
        Some(self.base)
    }
}

/// Iterator over `(ssrc, cname)`; ends at the first lie.
#[derive(Clone, Debug)]
pub struct Cnames<'a> {
    rest: &'a [u8],
    chunks: u8,
}

impl<'a> Iterator for Cnames<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        while self.chunks > 0 {
            self.chunks -= 1;
            let (ssrc, mut items) = take_u32(self.rest).ok()?;
            let chunk = self.rest.len();
            let mut cname = None;
            loop {
                let (&kind, rest) = items.split_first()?;
                if kind == 0 {
                    // The list ends with a null, and the chunk on a 32-bit boundary.
                    let used = (chunk - rest.len()).next_multiple_of(4);
                    self.rest = self.rest.get(used..).unwrap_or_default();
                    break;
                }
                let (&length, rest) = rest.split_first()?;
                let (value, rest) = rest.split_at_checked(usize::from(length))?;
                if kind == SDES_CNAME {
                    cname = Some(value);
                }
                items = rest;
            }
            if let Some(cname) = cname {
                return Some((ssrc, cname));
            }
        }
        None
    }
}

/// Writes a compound into a buffer. Each method writes one whole packet and returns `true`, or
/// writes nothing and returns `false` when it does not fit.
#[derive(Debug)]
pub struct Writer<'b> {
    buf: &'b mut [u8],
    len: usize,
    end: usize,
    overflow: bool,
}

impl<'b> Writer<'b> {
    /// Starts at the beginning of `buf`.
    pub fn new(buf: &'b mut [u8]) -> Self {
        Self { buf, len: 0, end: 0, overflow: false }
    }

    /// Bytes written.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is written yet.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes left.
    #[must_use]
    pub const fn room(&self) -> usize {
        self.buf.len() - self.len
    }

    /// SR (RFC 3550 section 6.4.1). At most [`MAX_COUNT`] blocks are written.
    pub fn sender_report(
        &mut self,
        ssrc: u32,
        info: &SenderInfo,
        blocks: impl IntoIterator<Item = ReportBlock>,
    ) -> bool {
        self.begin();
        self.u32(ssrc);
        self.put(&info.ntp.to_be_bytes());
        self.u32(info.rtp);
        self.u32(info.packets);
        self.u32(info.octets);
        let count = self.blocks(blocks);
        self.finish(SR, count)
    }

    /// RR (RFC 3550 section 6.4.2). At most [`MAX_COUNT`] blocks are written.
    pub fn receiver_report(
        &mut self,
        ssrc: u32,
        blocks: impl IntoIterator<Item = ReportBlock>,
    ) -> bool {
        self.begin();
        self.u32(ssrc);
        let count = self.blocks(blocks);
        self.finish(RR, count)
    }

    /// SDES with one CNAME for each of at most [`MAX_COUNT`] sources.
    pub fn sdes(&mut self, ssrcs: impl IntoIterator<Item = u32>, cname: &[u8]) -> bool {
        let Ok(length) = u8::try_from(cname.len()) else { return false };
        self.begin();
        let mut count = 0;
        for ssrc in ssrcs.into_iter().take(MAX_COUNT) {
            self.u32(ssrc);
            self.put(&[SDES_CNAME, length]);
            self.put(cname);
            // One to four nulls end the chunk on a 32-bit boundary.
            let nulls = 4 - (2 + cname.len()) % 4;
            self.put(&[0; 4][..nulls]);
            count += 1;
        }
        self.finish(SDES, count)
    }

    /// BYE without a reason.
    pub fn bye(&mut self, ssrcs: impl IntoIterator<Item = u32>) -> bool {
        self.begin();
        let mut count = 0;
        for ssrc in ssrcs.into_iter().take(MAX_COUNT) {
            self.u32(ssrc);
            count += 1;
        }
        self.finish(BYE, count)
    }

    /// Generic NACK of `lost`, best in ascending order: up to 17 neighbours share four bytes.
    pub fn nack(&mut self, sender: u32, media: u32, lost: impl IntoIterator<Item = u16>) -> bool {
        self.begin();
        self.u32(sender);
        self.u32(media);
        let mut open: Option<(u16, u16)> = None;
        for sequence in lost {
            open = Some(match open {
                Some((base, mask)) => match sequence.wrapping_sub(base) {
                    0 => (base, mask),
                    ahead @ 1..=16 => (base, mask | (1 << (ahead - 1))),
                    _ => {
                        self.u32((u32::from(base) << 16) | u32::from(mask));
                        (sequence, 0)
                    }
                },
                None => (sequence, 0),
            });
        }
        if let Some((base, mask)) = open {
            self.u32((u32::from(base) << 16) | u32::from(mask));
        }
        self.finish(RTPFB, FMT_NACK)
    }

    /// PLI.
    pub fn pli(&mut self, sender: u32, media: u32) -> bool {
        self.begin();
        self.u32(sender);
        self.u32(media);
        self.finish(PSFB, FMT_PLI)
    }

    /// FIR for one source.
    pub fn fir(&mut self, sender: u32, media: u32, command: u8) -> bool {
        self.begin();
        self.u32(sender);
        self.u32(0);
        self.u32(media);
        self.u32(u32::from(command) << 24);
        self.finish(PSFB, FMT_FIR)
    }

    /// REMB: `bitrate` in bits per second, rounded down to what 18 bits of mantissa can say.
    pub fn remb(
        &mut self,
        sender: u32,
        bitrate: u64,
        ssrcs: impl IntoIterator<Item = u32>,
    ) -> bool {
        self.begin();
        self.u32(sender);
        self.u32(0);
        self.put(b"REMB");
        let count_at = self.end;
        let exponent = (64 - bitrate.leading_zeros()).saturating_sub(18);
        let mantissa = (bitrate >> exponent) as u32;
        self.u32((exponent << 18) | mantissa);
        let mut count = 0;
        for ssrc in ssrcs.into_iter().take(usize::from(u8::MAX)) {
            self.u32(ssrc);
            count += 1;
        }
        if let Some(byte) = self.buf.get_mut(count_at) {
            *byte = count;
        }
        self.finish(PSFB, FMT_AFB)
    }

    fn blocks(&mut self, blocks: impl IntoIterator<Item = ReportBlock>) -> u8 {
        let mut count = 0;
        for block in blocks.into_iter().take(MAX_COUNT) {
            self.u32(block.ssrc);
            let cumulative = block.cumulative_lost.clamp(-0x80_0000, 0x7F_FFFF) as u32;
            self.u32((u32::from(block.fraction_lost) << 24) | (cumulative & 0xFF_FFFF));
            self.u32(block.highest);
            self.u32(block.jitter);
            self.u32(block.last_sr);
            self.u32(block.delay);
            count += 1;
        }
        count
    }

    pub(super) fn begin(&mut self) {
        self.overflow = false;
        self.end = self.len;
        self.u32(0);
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        match self.buf.get_mut(self.end..self.end + bytes.len()) {
            Some(to) => {
                to.copy_from_slice(bytes);
                self.end += bytes.len();
            }
            None => self.overflow = true,
        }
    }

    /// Finishes a packet of any length: padded to 32 bits with zeros that its own lengths leave
    /// out.
    pub(super) fn finish_padded(&mut self, kind: u8, count: u8) -> bool {
        let over = (self.end - self.len) % 4;
        self.put([0; 4].get(..(4 - over) % 4).unwrap_or_default());
        self.finish(kind, count)
    }

    fn finish(&mut self, kind: u8, count: u8) -> bool {
        let words = u16::try_from((self.end - self.len) / 4 - usize::from(!self.overflow));
        let (false, Ok(words)) = (self.overflow, words) else { return false };
        let [high, low] = words.to_be_bytes();
        if let Some(header) = self.buf.get_mut(self.len..self.len + 4) {
            header.copy_from_slice(&[0x80 | (count & 0x1F), kind, high, low]);
        }
        self.len = self.end;
        true
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK_A: ReportBlock = ReportBlock {
        ssrc: 7,
        fraction_lost: 128,
        cumulative_lost: -5,
        highest: 0x0001_0203,
        jitter: 99,
        last_sr: 0xAABB_CCDD,
        delay: 65536,
    };

    fn read(bytes: &[u8]) -> Vec<Packet<'_>> {
        Compound::new(bytes).map(|packet| packet.expect("valid")).collect()
    }

    #[test]
    fn a_compound_is_read_back() {
        let mut buf = [0; 512];
        let mut writer = Writer::new(&mut buf);
        let info = SenderInfo { ntp: 0x0102_0304_0506_0708, rtp: 9, packets: 10, octets: 11 };
        assert!(writer.sender_report(1, &info, [BLOCK_A]));
        assert!(writer.receiver_report(2, [BLOCK_A, ReportBlock::default()]));
        assert!(writer.sdes([1, 2], b"cname"));
        assert!(writer.nack(1, 3, [65534, 65535, 0, 14, 15, 40]));
        assert!(writer.pli(1, 4));
        assert!(writer.fir(1, 5, 6));
        assert!(writer.remb(1, 3_000_000, [8, 9]));
        assert!(writer.bye([1, 2]));
        let len = writer.len();
        let packets = read(&buf[..len]);
        assert_eq!(packets.len(), 8);
        match &packets[0] {
            Packet::SenderReport { ssrc: 1, info: got, blocks } => {
                assert_eq!((*got, blocks.clone().collect::<Vec<_>>()), (info, vec![BLOCK_A]));
            }
            other => panic!("{other:?}"),
        }
        match &packets[1] {
            Packet::ReceiverReport { ssrc: 2, blocks } => assert_eq!(blocks.clone().count(), 2),
            other => panic!("{other:?}"),
        }
        match &packets[2] {
            Packet::Sdes(names) => {
                let names: Vec<_> = names.clone().collect();
                assert_eq!(names, [(1, &b"cname"[..]), (2, &b"cname"[..])]);
            }
            other => panic!("{other:?}"),
        }
        match &packets[3] {
            Packet::Nack { media: 3, lost } => {
                let lost: Vec<_> = lost.clone().collect();
                assert_eq!(lost, [65534, 65535, 0, 14, 15, 40]);
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(packets[4], Packet::Pli { media: 4 }));
        assert!(matches!(&packets[5], Packet::Fir(t) if t.clone().eq([(5, 6)])));
        match &packets[6] {
            Packet::Remb { bitrate, ssrcs } => {
                assert_eq!((*bitrate, ssrcs.clone().collect::<Vec<_>>()), (3_000_000, vec![8, 9]));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(&packets[7], Packet::Bye(ssrcs) if ssrcs.clone().eq([1, 2])));
    }

    #[test]
    fn what_does_not_fit_is_not_written() {
        for room in 0..32 {
            let mut buf = vec![0; room];
            let mut writer = Writer::new(&mut buf);
            assert!(!writer.receiver_report(1, [BLOCK_A]), "{room}");
            assert_eq!(writer.len(), 0);
            assert_eq!(writer.receiver_report(1, []), room >= 8);
        }
    }

    #[test]
    fn unknown_types_are_passed_over() {
        let packets = [0x80, 204, 0, 1, 1, 2, 3, 4, 0x89, 205, 0, 0, 0x81, 206, 0, 2];
        let mut bytes = packets.to_vec();
        bytes.extend([0, 0, 0, 1, 0, 0, 0, 2]);
        let kinds = read(&bytes);
        assert!(matches!(kinds[..], [Packet::Other, Packet::Other, Packet::Pli { media: 2 }]));
    }

    #[test]
    fn lies_end_the_compound() {
        for bytes in [
            &[0x80, 201, 0][..],
            &[0x80, 201, 0, 2, 0, 0, 0, 1],
            &[0x81, 201, 0, 1, 0, 0, 0, 1],
            &[0x40, 201, 0, 1, 0, 0, 0, 1],
            &[0xA0, 201, 0, 1, 0, 0, 0, 8],
            &[0xA0, 201, 0, 1, 0, 0, 0, 0],
            &[0x82, 203, 0, 1, 0, 0, 0, 1],
            &[0x81, 206, 0, 1, 0, 0, 0, 1],
            &[0x80, 201, 0, 0],
        ] {
            let read: Vec<_> = Compound::new(bytes).collect();
            assert!(matches!(read[..], [Err(Malformed)]), "{bytes:?}");
        }
        let remb =
            [0x8F, 206, 0, 4, 0, 0, 0, 1, 0, 0, 0, 0, b'R', b'E', b'M', b'B', 0, 0xFF, 0xFF, 0xFF];
        assert!(matches!(Compound::new(&remb).next(), Some(Err(Malformed))));
    }

    fn touch(bytes: &[u8]) -> usize {
        let mut items = 0;
        for packet in Compound::new(bytes).flatten() {
            items += match packet {
                Packet::SenderReport { blocks, .. } | Packet::ReceiverReport { blocks, .. } => {
                    blocks.count()
                }
                Packet::Sdes(names) => names.count(),
                Packet::Bye(ssrcs) | Packet::Remb { ssrcs, .. } => ssrcs.count(),
                Packet::Nack { lost, .. } => lost.count(),
                Packet::Fir(targets) => targets.count(),
                Packet::Pli { .. } | Packet::Other => 1,
                Packet::TransportCc { feedback, .. } => feedback.packets().count(),
            };
        }
        items
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(touch(&bytes) <= 17 * bytes.len());
        }

        #[test]
        fn random_bodies_never_panic(
            count in 0u8..32, kind in 200u8..208, body in prop::collection::vec(any::<u8>(), 0..120)
        ) {
            let mut bytes = vec![0x80 | count, kind, 0, (body.len() / 4) as u8];
            bytes.extend(body);
            prop_assert!(touch(&bytes) <= 17 * bytes.len());
        }
    }
}
