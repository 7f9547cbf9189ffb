//! Round trips and throughput to the echo of probes and back.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout_at};
use webrtc_util::Conn;

use super::report::{Rtt, Throughput};

/// Bytes of a payload that a round trip is measured with: an audio packet's.
const SMALL: usize = 160;
/// Bytes of a payload of the throughput measurement: a video packet's.
const LARGE: usize = 1_100;
/// Between two payloads of the round-trip measurement.
const SPACING: Duration = Duration::from_millis(10);
/// Between two bursts of the throughput measurement.
const TICK: Duration = Duration::from_millis(2);
/// Most bits a second that a probe sends.
pub(super) const MOST_BITS_PER_SECOND: u64 = 20_000_000;
/// Longest throughput measurement.
pub(super) const LONGEST: Duration = Duration::from_secs(3);

type Relayed<'a> = &'a (dyn Conn + Send + Sync);

/// A payload: which series, which of it, when sent, and a pattern that depends on all three.
fn payload(series: u64, number: u64, sent: Duration, len: usize) -> Vec<u8> {
    let micros = u64::try_from(sent.as_micros()).unwrap_or(u64::MAX);
    let mut bytes = Vec::with_capacity(len);
    for word in [series, number, micros] {
        bytes.extend_from_slice(&word.to_be_bytes());
    }
    let pattern = series ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ micros;
    bytes.extend(pattern.to_be_bytes().iter().cycle().take(len.saturating_sub(24)));
    bytes
}

/// What an unaltered payload of the series says: its number and when it was sent.
fn read(series: u64, bytes: &[u8]) -> Option<(u64, Duration)> {
    let word = |at: usize| Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk::<8>()?));
    let (number, sent) = (word(8)?, Duration::from_micros(word(16)?));
    (word(0)? == series && bytes == payload(series, number, sent, bytes.len()))
        .then_some((number, sent))
}

/// What came back of a series.
#[derive(Default)]
struct Came {
    /// By number: whether it has come.
    seen: Vec<bool>,
    received: u64,
    bytes: u64,
    altered: u64,
    trips: Vec<Duration>,
    last: Duration,
}

impl Came {
    async fn next(&mut self, relayed: Relayed<'_>, echo: SocketAddr, series: u64, start: Instant) {
        let mut buffer = [0; 2_048];
        let Ok((len, from)) = relayed.recv_from(&mut buffer).await else {
            // Closed: nothing more will come, and the deadline ends the wait.
            return std::future::pending().await;
        };
        if from != echo {
            return;
        }
        let Some((number, sent)) = read(series, buffer.get(..len).unwrap_or_default()) else {
            self.altered += 1;
            return;
        };
        let Some(seen) = usize::try_from(number).ok().and_then(|n| self.seen.get_mut(n)) else {
            return;
        };
        if std::mem::replace(seen, true) {
            return;
        }
        self.last = start.elapsed();
        self.received += 1;
        self.bytes += len as u64;
        self.trips.push(self.last.saturating_sub(sent));
    }
}

/// Whether a payload comes back within the time, unaltered. Errors are what keeps it from that.
pub(super) async fn first_echo(
    relayed: Relayed<'_>,
    echo: SocketAddr,
    series: u64,
    patience: Duration,
) -> Result<Option<Duration>, String> {
    let start = Instant::now();
    let deadline = start + patience;
    let mut came = Came { seen: vec![false; 64], ..Came::default() };
    for number in 0..64 {
        let payload = payload(series, number, start.elapsed(), SMALL);
        let sent = timeout_at(deadline, relayed.send_to(&payload, echo)).await;
        match sent {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => break,
        }
        let again = (Instant::now() + Duration::from_millis(250)).min(deadline);
        while timeout_at(again, came.next(relayed, echo, series, start)).await.is_ok() {
            if let Some(trip) = came.trips.first() {
                return Ok(Some(*trip));
            }
        }
        if came.altered > 0 {
            return Err("what came back is not what was sent".to_owned());
        }
        if Instant::now() >= deadline {
            break;
        }
    }
    Ok(None)
}

/// Sends `count` payloads, ten milliseconds apart, and waits `patience` for the last.
pub(super) async fn round_trips(
    relayed: Relayed<'_>,
    echo: SocketAddr,
    series: u64,
    count: u32,
    patience: Duration,
) -> Rtt {
    let start = Instant::now();
    let mut came = Came { seen: vec![false; count as usize], ..Came::default() };
    let send = async {
        for number in 0..count {
            sleep_until(start + SPACING * number).await;
            let payload = payload(series, number.into(), start.elapsed(), SMALL);
            // What the system does not take is lost, and counted as that.
            let _lost = relayed.send_to(&payload, echo).await;
        }
    };
    let receive = async {
        let deadline = start + SPACING * count + patience;
        while came.received < u64::from(count) {
            if timeout_at(deadline, came.next(relayed, echo, series, start)).await.is_err() {
                break;
            }
        }
    };
    tokio::join!(send, receive);
    came.trips.sort_unstable();
    let received = u32::try_from(came.received).unwrap_or(count);
    Rtt {
        sent: count,
        received,
        loss: loss(count.into(), came.received),
        p50_us: percentile(&came.trips, 50),
        p99_us: percentile(&came.trips, 99),
    }
}

/// Sends at `bits_per_second` of payload for `length`; both are bounded here.
pub(super) async fn throughput(
    relayed: Relayed<'_>,
    echo: SocketAddr,
    series: u64,
    (bits_per_second, length): (u64, Duration),
    patience: Duration,
) -> Throughput {
    let (rate, length) = (bits_per_second.min(MOST_BITS_PER_SECOND), length.min(LONGEST));
    let due = |elapsed: Duration| {
        let bits = u128::from(rate) * elapsed.min(length).as_micros() / 1_000_000;
        usize::try_from(bits / (8 * LARGE as u128)).unwrap_or(usize::MAX)
    };
    let most = due(length);
    let start = Instant::now();
    let mut came = Came { seen: vec![false; most], ..Came::default() };
    let mut sent = 0;
    // Never more than a tick's worth late bursts: a stalled probe does not catch up in a flood.
    let burst = due(TICK * 8).max(1);
    let mut stopped = Duration::ZERO;
    let send = async {
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut skipped = 0;
        while start.elapsed() < length {
            tick.tick().await;
            let wanted = due(start.elapsed()).saturating_sub(skipped);
            skipped += wanted.saturating_sub(sent + burst);
            let now = wanted.min(sent + burst);
            while sent < now {
                let payload = payload(series, sent as u64, start.elapsed(), LARGE);
                let _lost = relayed.send_to(&payload, echo).await;
                sent += 1;
            }
        }
        stopped = start.elapsed();
    };
    let receive = async {
        let deadline = start + length + patience;
        while came.received < most as u64 {
            if timeout_at(deadline, came.next(relayed, echo, series, start)).await.is_err() {
                break;
            }
        }
    };
    // When all that was sent has come, there is nothing left to wait for but what was skipped.
    tokio::join!(send, receive);
    let per_second = |bytes: u64, time: Duration| {
        let micros = time.as_micros().max(1);
        u64::try_from(u128::from(bytes) * 8_000_000 / micros).unwrap_or(u64::MAX)
    };
    let sent = sent as u64;
    Throughput {
        seconds: stopped.as_secs_f64(),
        sent,
        received: came.received,
        loss: loss(sent, came.received),
        sent_bits_per_second: per_second(sent * LARGE as u64, stopped),
        received_bits_per_second: per_second(came.bytes, came.last.max(length)),
    }
}

/// To four digits: more are noise.
fn loss(sent: u64, received: u64) -> f64 {
    let lost = sent.saturating_sub(received) as f64 / sent.max(1) as f64;
    (lost * 10_000.0).round() / 10_000.0
}

/// Nearest rank, in microseconds; 0 of nothing.
fn percentile(sorted: &[Duration], percent: usize) -> u64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    let found = sorted.get(rank - 1).map_or(0, Duration::as_micros);
    u64::try_from(found).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn altered_payloads_and_those_of_another_series_are_not_read() {
        let sent = Duration::from_micros(1_234_567);
        let bytes = payload(7, 3, sent, SMALL);
        assert_eq!(bytes.len(), SMALL);
        assert_eq!(read(7, &bytes), Some((3, sent)));
        assert_eq!(read(8, &bytes), None);
        for at in 0..bytes.len() {
            let mut altered = bytes.clone();
            altered[at] ^= 1;
            assert_eq!(read(7, &altered), None, "byte {at}");
        }
        assert_eq!(read(7, &bytes[..20]), None);
        assert_eq!(read(7, b""), None);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let trips: Vec<_> = (1..=200).map(Duration::from_micros).collect();
        assert_eq!((percentile(&trips, 50), percentile(&trips, 99)), (100, 198));
        assert_eq!(percentile(&trips[..1], 99), 1);
        assert_eq!(percentile(&[], 50), 0);
        assert_eq!((loss(3, 2), loss(0, 0), loss(100, 100)), (0.3333, 0.0, 0.0));
    }
}
