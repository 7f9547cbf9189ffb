//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01
//! section 3.1): when the packets of one transport arrived, by their transport-wide numbers.

use super::rtcp::{FMT_TRANSPORT_CC, Malformed, RTPFB, Writer};
use crate::time::Mono;

/// Most packets one message may speak of. A receiver that tells as often as it should never needs
/// them; more would let a few bytes cost their reader milliseconds.
pub const MAX_STATUSES: u16 = 4_096;
/// Header, two SSRCs, base, count, reference time, index.
const FIXED: usize = 20;
/// Arrival times are told in these.
const TICK_NANOS: u64 = 250_000;
/// Ticks in one unit of the reference time, 64 ms.
const REFERENCE_TICKS: i64 = 256;
/// The reference time has 24 bits.
const REFERENCE_MASK: i64 = 0xFF_FFFF;
/// Most packets that [`Writer::transport_cc`] tells of in one message; below a run's 8,191.
pub const MAX_TOLD: usize = 512;
/// Symbols of a vector chunk: of one bit each, of two.
const NARROW: usize = 14;
const WIDE: usize = 7;

/// One message, checked: as many chunks and times as it says it has.
#[derive(Clone, Copy, Debug)]
pub struct Feedback<'a> {
    base: u16,
    count: u16,
    /// Units of 64 ms, 24 bits, wrapping.
    reference: u32,
    index: u8,
    chunks: &'a [u8],
    deltas: &'a [u8],
}

impl<'a> Feedback<'a> {
    /// Reads what follows the two SSRCs.
    pub(super) fn parse(fci: &'a [u8]) -> Result<Self, Malformed> {
        let (&[a, b, c, d, e, f, g, index], rest) =
            fci.split_first_chunk::<8>().ok_or(Malformed)?;
        let (base, count) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        if count == 0 || count > MAX_STATUSES {
            return Err(Malformed);
        }
        let mut statuses = Statuses { rest, chunk: Chunk::Run { symbol: 0, left: 0 } };
        let mut times = 0;
        for _ in 0..count {
            times += match statuses.next().ok_or(Malformed)? {
                symbol @ 0..=2 => usize::from(symbol),
                _ => return Err(Malformed),
            };
        }
        let (chunks, deltas) = rest.split_at(rest.len() - statuses.rest.len());
        let deltas = deltas.get(..times).ok_or(Malformed)?;
        let reference = u32::from_be_bytes([0, e, f, g]);
        Ok(Self { base, count, reference, index, chunks, deltas })
    }

    /// Transport-wide number of the first packet it speaks of.
    #[must_use]
    pub const fn base(&self) -> u16 {
        self.base
    }

    /// Packets it speaks of, at least one.
    #[must_use]
    pub const fn count(&self) -> u16 {
        self.count
    }

    /// Counts the receiver's messages, wrapping.
    #[must_use]
    pub const fn index(&self) -> u8 {
        self.index
    }

    /// Where its times start on the receiver's clock: units of 64 ms, 24 bits, wrapping.
    #[must_use]
    pub const fn reference(&self) -> u32 {
        self.reference
    }

    /// Each packet's transport-wide number and, unless it is lost, its arrival in microseconds
    /// since the reference time. In order of numbers, which need not be that of arrival.
    #[must_use]
    pub const fn packets(&self) -> Packets<'a> {
        Packets {
            statuses: Statuses { rest: self.chunks, chunk: Chunk::Run { symbol: 0, left: 0 } },
            deltas: self.deltas,
            next: self.base,
            left: self.count,
            micros: 0,
        }
    }
}

/// Iterator over the packets of a [`Feedback`].
#[derive(Clone, Debug)]
pub struct Packets<'a> {
    statuses: Statuses<'a>,
    deltas: &'a [u8],
    next: u16,
    left: u16,
    micros: i64,
}

impl Iterator for Packets<'_> {
    type Item = (u16, Option<i64>);

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let number = self.next;
        self.next = number.wrapping_add(1);
        let ticks = match self.statuses.next()? {
            1 => {
                let (&delta, rest) = self.deltas.split_first()?;
                self.deltas = rest;
                i64::from(delta)
            }
            2 => {
                let (&delta, rest) = self.deltas.split_first_chunk::<2>()?;
                self.deltas = rest;
                i64::from(i16::from_be_bytes(delta))
            }
            _ => return Some((number, None)),
        };
        self.micros += ticks * (TICK_NANOS / 1_000) as i64;
        Some((number, Some(self.micros)))
    }
}

#[derive(Clone, Copy, Debug)]
enum Chunk {
    Run {
        symbol: u8,
        left: u16,
    },
    /// Symbols of `width` bits, the next one on top.
    Vector {
        bits: u16,
        width: u8,
        left: u8,
    },
}

/// Iterator over two-bit symbols, past their announced count where the last chunk is longer.
#[derive(Clone, Debug)]
struct Statuses<'a> {
    rest: &'a [u8],
    chunk: Chunk,
}

impl Iterator for Statuses<'_> {
    type Item = u8;

    fn next(&mut self) -> Option<u8> {
        loop {
            match &mut self.chunk {
                Chunk::Run { symbol, left } if *left > 0 => {
                    *left -= 1;
                    return Some(*symbol);
                }
                Chunk::Vector { bits, width, left } if *left > 0 => {
                    let symbol = *bits >> (16 - *width);
                    *bits <<= *width;
                    *left -= 1;
                    return Some(symbol as u8);
                }
                Chunk::Run { .. } | Chunk::Vector { .. } => {}
            }
            let (&chunk, rest) = self.rest.split_first_chunk::<2>()?;
            self.rest = rest;
            let chunk = u16::from_be_bytes(chunk);
            self.chunk = match chunk >> 14 {
                0 | 1 => Chunk::Run { symbol: ((chunk >> 13) & 3) as u8, left: chunk & 0x1FFF },
                2 => Chunk::Vector { bits: chunk << 2, width: 1, left: 14 },
                _ => Chunk::Vector { bits: chunk << 2, width: 2, left: 7 },
            };
        }
    }
}

/// A packet's arrival as it is told: symbol, and ticks since the one before.
fn step(before: &mut i64, arrival: Option<Mono>) -> Option<(u8, i16)> {
    let Some(arrival) = arrival else { return Some((0, 0)) };
    let ticks = (arrival.as_nanos() / TICK_NANOS) as i64;
    let delta = i16::try_from(ticks - *before).ok()?;
    *before = ticks;
    Some((if (0..=255).contains(&delta) { 1 } else { 2 }, delta))
}

impl Writer<'_> {
    /// Feedback on consecutive packets from the transport-wide number `base` on: when each arrived,
    /// or `None`. `media` is the source of any of them. Returns how many were told, from the
    /// first, at most [`MAX_TOLD`]; fewer than given where room or a step in time ends the
    /// message, and none when nothing arrived or nothing fits.
    pub fn transport_cc(
        &mut self,
        (sender, media): (u32, u32),
        index: u8,
        base: u16,
        arrivals: &[Option<Mono>],
    ) -> usize {
        let Some(first) = arrivals.iter().flatten().next() else { return 0 };
        let reference = (first.as_nanos() / TICK_NANOS) as i64 / REFERENCE_TICKS;
        let start = reference * REFERENCE_TICKS;
        // How many fit, each chunk taken to be of the shortest kind.
        let room = self.room().saturating_sub(FIXED + 3);
        let (mut before, mut times, mut count, mut arrived) = (start, 0, 0, 0);
        let mut symbols = [0; MAX_TOLD];
        for (place, arrival) in symbols.iter_mut().zip(arrivals) {
            let Some((symbol, _)) = step(&mut before, *arrival) else { break };
            times += usize::from(symbol);
            if 2 * (count / 7 + 1) + times > room {
                break;
            }
            *place = symbol;
            count += 1;
            arrived += usize::from(symbol > 0);
        }
        if arrived == 0 {
            return 0;
        }
        self.begin();
        self.u32(sender);
        self.u32(media);
        self.put(&base.to_be_bytes());
        self.put(&(count as u16).to_be_bytes());
        self.u32((((reference & REFERENCE_MASK) as u32) << 8) | u32::from(index));
        self.chunks(symbols.get(..count).unwrap_or_default());
        let mut before = start;
        let told = arrivals.iter().take(count);
        for (symbol, delta) in told.map_while(|arrival| step(&mut before, *arrival)) {
            let [high, low] = delta.to_be_bytes();
            match symbol {
                0 => {}
                1 => self.put(&[low]),
                _ => self.put(&[high, low]),
            }
        }
        if self.finish_padded(RTPFB, FMT_TRANSPORT_CC) { count } else { 0 }
    }

    /// Symbols as chunks: a run where it is longer than what a vector would hold.
    fn chunks(&mut self, mut symbols: &[u8]) {
        while let Some(&first) = symbols.first() {
            let run = symbols.iter().take_while(|symbol| **symbol == first).count();
            let narrow = symbols.iter().take(NARROW).all(|symbol| *symbol < 2);
            let slots = if narrow { NARROW } else { WIDE };
            let (chunk, took) = if run > slots || run == symbols.len() {
                ((u16::from(first) << 13) | run as u16, run)
            } else {
                let width = NARROW / slots;
                let padded = symbols.iter().copied().chain(std::iter::repeat(0)).take(slots);
                let bits = padded.fold(0, |bits, symbol| (bits << width) | u16::from(symbol));
                ((if narrow { 0x8000 } else { 0xC000 }) | bits, slots.min(symbols.len()))
            };
            self.put(&chunk.to_be_bytes());
            symbols = symbols.get(took..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::rtcp::{Compound, Packet};

    fn at(micros: u64) -> Option<Mono> {
        Some(Mono::from_nanos(micros * 1_000))
    }

    fn only(bytes: &[u8]) -> Feedback<'_> {
        let mut packets = Compound::new(bytes);
        let Some(Ok(Packet::TransportCc { feedback, .. })) = packets.next() else {
            panic!("no feedback in {bytes:02x?}")
        };
        assert!(packets.next().is_none());
        feedback
    }

    #[test]
    fn known_bytes_are_read() {
        // Base 10, reference 3: received, lost twice, received before the first, lost three times
        // (a vector of seven), then a run of three with small times.
        let fci = [0, 10, 0, 10, 0, 0, 3, 9, 0b1101_0000, 0b1000_0000, 0x20, 3, 4, 0xFF, 0xFE];
        let whole: Vec<u8> = fci.into_iter().chain([1, 2, 3]).collect();
        let feedback = Feedback::parse(&whole).expect("valid");
        assert_eq!((feedback.base(), feedback.count()), (10, 10));
        assert_eq!((feedback.reference(), feedback.index()), (3, 9));
        let packets: Vec<_> = feedback.packets().filter_map(|(n, at)| Some((n, at?))).collect();
        assert_eq!(packets, [(10, 1_000), (13, 500), (17, 750), (18, 1_250), (19, 2_000)]);
        // As libwebrtc sends it, with two bytes of padding, and another packet behind.
        let mut compound = vec![0xAF, 205, 0, 7, 0, 0, 0, 1, 0, 0, 0, 2];
        compound.extend(whole);
        compound.extend([0, 2]);
        compound.extend([0x81, 206, 0, 2, 0, 0, 0, 1, 0, 0, 0, 2]);
        assert_eq!(Compound::new(&compound).filter(Result::is_ok).count(), 2);
    }

    #[test]
    fn the_reference_time_wraps() {
        let whole = 64_000 << 24;
        let mut out = [0; 64];
        let mut writer = Writer::new(&mut out);
        assert_eq!(
            writer.transport_cc((1, 2), 0, 0xFFFF, &[at(whole + 64_500), at(whole + 65_000)]),
            2
        );
        let len = writer.len();
        let feedback = only(&out[..len]);
        assert_eq!(feedback.reference(), 1);
        let packets: Vec<_> = feedback.packets().collect();
        assert_eq!(packets, [(0xFFFF, Some(500)), (0, Some(1_000))]);
    }

    #[test]
    fn what_is_not_told_is_left_for_the_next_message() {
        let far = [at(0), at(9_000_000)];
        let mut out = [0; 1_200];
        assert_eq!(Writer::new(&mut out).transport_cc((1, 2), 0, 0, &far), 1);
        let many = vec![at(5_000_000); 3_000];
        assert_eq!(Writer::new(&mut out).transport_cc((1, 2), 0, 0, &many), MAX_TOLD);
        let told = Writer::new(&mut out[..100]).transport_cc((1, 2), 0, 0, &many);
        assert!((40..80).contains(&told), "{told}");
        assert_eq!(Writer::new(&mut out[..20]).transport_cc((1, 2), 0, 0, &many), 0);
        assert_eq!(Writer::new(&mut out).transport_cc((1, 2), 0, 0, &[None; 9]), 0);
    }

    #[test]
    fn lies_are_refused() {
        for fci in [
            &[0, 1, 0, 0, 0, 0, 0, 0][..],
            // A run of two received packets and one time.
            &[0, 1, 0, 2, 0, 0, 0, 0, 0x20, 2, 1],
            // More packets than chunks.
            &[0, 1, 0, 9, 0, 0, 0, 0, 0x20, 2, 1, 1],
            // More than anybody may speak of.
            &[0, 1, 0x40, 0, 0, 0, 0, 0, 0x1F, 0xFF, 0x1F, 0xFF, 0x1F, 0xFF],
            // The reserved symbol.
            &[0, 1, 0, 1, 0, 0, 0, 0, 0x60, 1, 1, 1],
            &[0, 1],
        ] {
            assert!(Feedback::parse(fci).is_err(), "{fci:02x?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            base: u16,
            start in 0_u64..1 << 50,
            steps in proptest::collection::vec(
                prop_oneof![
                    3 => Just(None),
                    5 => (0_i64..200).prop_map(Some),
                    1 => (-3_000_i64..9_000).prop_map(Some),
                ],
                0..MAX_TOLD,
            ),
        ) {
            let mut ticks = (start / TICK_NANOS) as i64 + 10_000_000;
            let arrivals: Vec<_> = steps
                .iter()
                .map(|step| {
                    ticks += (*step)?;
                    Some(Mono::from_nanos(ticks as u64 * TICK_NANOS))
                })
                .collect();
            let mut out = [0; 1_500];
            let mut writer = Writer::new(&mut out);
            let told = writer.transport_cc((1, 2), 7, base, &arrivals);
            let len = writer.len();
            if arrivals.iter().all(Option::is_none) {
                prop_assert_eq!((told, len), (0, 0));
            } else {
                prop_assert_eq!(told, arrivals.len());
                let feedback = only(&out[..len]);
                prop_assert_eq!(usize::from(feedback.count()), told);
                let first = arrivals.iter().flatten().next().expect("one").as_nanos();
                let zero = first / 64_000_000 * 64_000;
                for (n, (number, micros)) in feedback.packets().enumerate() {
                    prop_assert_eq!(number, base.wrapping_add(n as u16));
                    let wanted = arrivals[n].map(|at| at.as_nanos() as i64 / 1_000 - zero as i64);
                    prop_assert_eq!(micros, wanted);
                }
                prop_assert_eq!(feedback.packets().count(), told);
            }
        }

        #[test]
        fn no_bytes_make_it_panic_or_run_on(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            if let Ok(feedback) = Feedback::parse(&bytes) {
                prop_assert_eq!(feedback.packets().count(), usize::from(feedback.count()));
            }
        }
    }
}
