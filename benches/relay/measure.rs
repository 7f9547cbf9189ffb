//! What a piece of work cost: the server, from outside, and the load itself.

use std::fs;
use std::time::Instant;

use crate::server::Server;

/// One round.
#[derive(Clone, Copy)]
pub struct Sample {
    /// The server's CPU, user and system: microseconds an allocation, or a delivered packet.
    pub cpu_us: f64,
    /// Of those in a second.
    pub rate: f64,
    /// Share of what was sent that did not arrive.
    pub lost: f64,
    /// Share of a core the load used.
    pub load: f64,
    /// Share of a core the server used.
    pub busy: f64,
}

fn own_cpu() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat")?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// Does `work`, which says how much came of it, and of how much.
pub fn measured(
    server: &Server,
    work: impl FnOnce() -> anyhow::Result<(usize, usize)>,
) -> anyhow::Result<Sample> {
    let (cpu, own, began) = (server.used()?.cpu, own_cpu()?, Instant::now());
    let (count, sent) = work()?;
    let elapsed = began.elapsed();
    let spent = server.used()?.cpu.saturating_sub(cpu) as f64;
    let own = own_cpu()?.saturating_sub(own) as f64;
    let nanos = elapsed.as_nanos() as f64;
    Ok(Sample {
        cpu_us: spent / 1e3 / (count.max(1) as f64),
        rate: count as f64 / elapsed.as_secs_f64(),
        lost: 1.0 - count as f64 / sent.max(1) as f64,
        load: own / nanos,
        busy: spent / nanos,
    })
}

/// The middle one.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.as_slice() {
        [] => f64::NAN,
        values if values.len() % 2 == 1 => values[values.len() / 2],
        values => values[values.len() / 2 - 1].midpoint(values[values.len() / 2]),
    }
}
