//! Two clients of one server that talk to each other through it.

use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use veilgate::wire::channel_data;
use veilgate::wire::stun::{Builder, Method, attr};

use crate::clients::{Ask, Client, ask};
use crate::fan::Fan;
use crate::measure::{Sample, measured};
use crate::server::Server;

/// Clients, in pairs.
pub const CLIENTS: usize = 100;
const CHANNEL: u16 = 0x4000;
const SECONDS: f64 = 1.0;
/// The load wakes so often and sends what is due.
const TICK: Duration = Duration::from_micros(250);
/// Late packets are waited for.
const DRAIN: Duration = Duration::from_millis(20);

/// One kind of traffic.
#[derive(Clone, Copy)]
pub struct Traffic {
    /// Payload bytes.
    pub size: usize,
    /// Packets one client sends in a row.
    pub train: usize,
    /// Packets offered in a second.
    pub rate: u32,
}

pub const TRAFFIC: [Traffic; 6] = [
    Traffic { size: 160, train: 1, rate: 30_000 },
    Traffic { size: 160, train: 8, rate: 30_000 },
    Traffic { size: 1_200, train: 1, rate: 30_000 },
    Traffic { size: 1_200, train: 8, rate: 30_000 },
    // More than either can do on this machine: what arrives is the most there is.
    Traffic { size: 160, train: 8, rate: 500_000 },
    Traffic { size: 1_200, train: 8, rate: 500_000 },
];

/// Binds a channel from each client to its partner.
pub fn pair(fan: &mut Fan, clients: &mut [Client]) -> anyhow::Result<()> {
    let relayed: Vec<_> = clients.iter().map(|client| client.relayed).collect();
    let range: Range<usize> = 0..clients.len();
    ensure!(relayed.iter().all(Option::is_some), "a client has no relayed address");
    let attributes = |builder: &mut Builder<'_>, index: usize| {
        builder.u32(attr::CHANNEL_NUMBER, u32::from(CHANNEL) << 16);
        if let Some(partner) = relayed.get(index ^ 1).copied().flatten() {
            builder.xor_address(attr::XOR_PEER_ADDRESS, partner);
        }
    };
    ask(fan, clients, range, &Ask { method: Method::CHANNEL_BIND, attributes: &attributes })?;
    Ok(())
}

/// Sends for a second; `count` of the sample is what was delivered.
pub fn run(server: &Server, fan: &mut Fan, traffic: Traffic) -> anyhow::Result<Sample> {
    let mut datagram = vec![0x5a; 4 + traffic.size];
    let header = datagram.first_chunk_mut().context("four bytes")?;
    channel_data::write_header(header, CHANNEL, u16::try_from(traffic.size)?);
    let len = datagram.len();
    measured(server, || {
        let began = Instant::now();
        let (mut due, mut sent, mut delivered, mut client) = (0, 0, 0, 0);
        let mut tick = TICK;
        loop {
            let elapsed = began.elapsed();
            if elapsed.as_secs_f64() >= SECONDS {
                break;
            }
            let now_due = (elapsed.as_secs_f64() * f64::from(traffic.rate)) as usize;
            // Whoever falls behind by more than some ticks cannot catch up: skip.
            due = due.max(now_due.saturating_sub(traffic.rate as usize / 500));
            while due + traffic.train <= now_due {
                for _ in 0..traffic.train {
                    fan.queue(client, &datagram);
                }
                client = (client + 1) % CLIENTS;
                due += traffic.train;
                sent += traffic.train;
            }
            fan.flush()?;
            fan.receive(Duration::ZERO, |_, bytes| delivered += usize::from(bytes.len() >= len))?;
            if let Some(early) = tick.checked_sub(began.elapsed()) {
                std::thread::sleep(early);
                tick += TICK;
            } else {
                tick = began.elapsed() + TICK;
            }
        }
        while fan.receive(DRAIN, |_, bytes| delivered += usize::from(bytes.len() >= len))? > 0 {}
        Ok((delivered, sent))
    })
}
