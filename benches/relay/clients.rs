//! TURN clients by the thousand: one state each, many requests in flight.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use veilgate::wire::stun::{Builder, Class, IntegrityKey, Message, Method, TransactionId, attr};

use crate::fan::Fan;
use crate::server::REALM;

/// A request without an answer is repeated after this.
const REPEAT: Duration = Duration::from_millis(400);
/// So often, then the run has failed.
const REPEATS: usize = 20;

/// A client: what it logs in with, and what the server told it.
pub struct Client {
    username: String,
    key: IntegrityKey,
    nonce: Vec<u8>,
    sequence: u32,
    tries: u32,
    pub relayed: Option<SocketAddr>,
}

impl Client {
    pub fn new(username: String, password: &str) -> anyhow::Result<Self> {
        let key = IntegrityKey::long_term(&username, REALM, password).context("MD5")?;
        Ok(Self { username, key, nonce: Vec::new(), sequence: 0, tries: 0, relayed: None })
    }

    fn id(&self, index: usize) -> TransactionId {
        let mut id = [0x56; 12];
        id[..4].copy_from_slice(&(index as u32).to_be_bytes());
        id[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        TransactionId(id)
    }

    fn write(&self, index: usize, ask: &Ask<'_>, buf: &mut [u8]) -> Option<usize> {
        let mut builder = Builder::new(buf, Class::Request, ask.method, self.id(index));
        (ask.attributes)(&mut builder, index);
        if !self.nonce.is_empty() {
            builder.text(attr::USERNAME, &self.username);
            builder.text(attr::REALM, REALM);
            builder.attribute(attr::NONCE, &self.nonce);
            builder.integrity(&self.key);
        }
        builder.finish()
    }
}

/// One kind of request, the same for all clients.
pub struct Ask<'a> {
    pub method: Method,
    pub attributes: &'a dyn Fn(&mut Builder<'_>, usize),
}

pub fn allocate() -> Ask<'static> {
    let attributes = &|b: &mut Builder<'_>, _| b.u32(attr::REQUESTED_TRANSPORT, 17 << 24);
    Ask { method: Method::ALLOCATE, attributes }
}

pub fn release() -> Ask<'static> {
    Ask { method: Method::REFRESH, attributes: &|b: &mut Builder<'_>, _| b.u32(attr::LIFETIME, 0) }
}

/// Lets each of `clients` (client `i` speaks from address `i`) make one request and waits for all
/// answers. Returns how many requests had to be repeated.
pub fn ask(
    fan: &mut Fan,
    clients: &mut [Client],
    range: Range<usize>,
    ask: &Ask<'_>,
) -> anyhow::Result<usize> {
    let mut next = range.start;
    let mut left = range.len();
    let mut under_way = 0;
    let mut repeated = 0;
    let mut waiting = vec![false; range.len()];
    let mut buf = [0; 1_024];
    let mut again = Vec::new();
    let mut heard = Instant::now();
    while left > 0 {
        while under_way < fan.window && next < range.end {
            let client = &mut clients[next];
            client.sequence += 1;
            client.tries = 0;
            let len = client.write(next, ask, &mut buf).context("too long a request")?;
            fan.queue(next, &buf[..len]);
            waiting[next - range.start] = true;
            under_way += 1;
            next += 1;
        }
        fan.flush()?;
        let mut refused = None;
        let got = fan.receive(Duration::from_millis(50), |index, datagram| {
            let known = range.contains(&index) && waiting[index - range.start];
            let Some(client) = clients.get_mut(index).filter(|_| known) else { return };
            let Ok(message) = Message::parse(datagram) else { return };
            if message.transaction_id() != client.id(index) {
                return;
            }
            if message.class() == Class::Error {
                let code = message.error_code().unwrap_or(0);
                let nonce = message.first(attr::NONCE).filter(|_| matches!(code, 401 | 438));
                match nonce {
                    Some(nonce) if client.tries < 2 => {
                        client.tries += 1;
                        client.sequence += 1;
                        client.nonce = nonce.to_vec();
                        again.push(index);
                    }
                    _ => refused = Some(code),
                }
                return;
            }
            if let Some(relayed) = message.xor_address(attr::XOR_RELAYED_ADDRESS) {
                client.relayed = Some(relayed);
            }
            waiting[index - range.start] = false;
            under_way -= 1;
            left -= 1;
        })?;
        if let Some(code) = refused {
            bail!("the server answered {code}");
        }
        if got > 0 {
            heard = Instant::now();
        } else if heard.elapsed() > REPEAT {
            heard = Instant::now();
            repeated += 1;
            if repeated > REPEATS {
                bail!("no answer to {} of {} requests", left, range.len());
            }
            again.extend((range.start..next).filter(|index| waiting[index - range.start]));
        }
        for index in again.drain(..) {
            let len = clients[index].write(index, ask, &mut buf).context("too long a request")?;
            fan.queue(index, &buf[..len]);
        }
    }
    Ok(repeated)
}

/// Strangers: an Allocate without credentials from each of the first `count` addresses. Returns
/// how many were challenged.
pub fn challenge(fan: &mut Fan, count: usize) -> anyhow::Result<usize> {
    let mut buf = [0; 64];
    let (mut next, mut answered, mut silent) = (0, 0, 0);
    while answered < count && silent < 8 {
        while next < count && next < answered + fan.window * (1 + silent) {
            let mut id = [0x57; 12];
            id[..8].copy_from_slice(&(next as u64).to_be_bytes());
            let mut builder =
                Builder::new(&mut buf, Class::Request, Method::ALLOCATE, TransactionId(id));
            builder.u32(attr::REQUESTED_TRANSPORT, 17 << 24);
            let len = builder.finish().context("too long a request")?;
            fan.queue(next, &buf[..len]);
            next += 1;
        }
        fan.flush()?;
        let got = fan.receive(Duration::from_millis(50), |_, datagram| {
            let error = Message::parse(datagram).ok().and_then(|message| message.error_code());
            answered += usize::from(error == Some(401));
        })?;
        // What is lost is not repeated, but must not stop the rest.
        silent = if got > 0 { 0 } else { silent + 1 };
    }
    Ok(answered)
}
