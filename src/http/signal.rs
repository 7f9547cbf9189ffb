//! `GET /v1/signal`: a WebSocket (RFC 6455) that keeps a participant in a room.
//! docs/signalling.md is the protocol.
//!
//! Hostile is all that comes: its size, rate and order, a reader that does not read, a line that
//! says nothing. A connection holds one message of its client, one bounded queue towards it, and
//! nothing of anybody else's.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade};
use axum::http::HeaderMap;
use axum::response::Response;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};
use tungstenite::error::CapacityError;

use super::problem::Problem;
use super::{Gateway, Shared, cors};
use crate::control::api::Refusal;
use crate::control::rooms::bucket::{Bucket, Rate};
use crate::control::rooms::outbox::{Close, Item, Outbox};
use crate::control::rooms::request::{Body, Join, MAX_MESSAGE, Request, Unread};
use crate::control::rooms::{self, Fault, Joining, Member, Rooms};
use crate::ids::StreamName;

/// WebSockets at once: places of participants, and some for those who are still to join.
pub(super) const SOCKETS: usize = rooms::MAX_PARTICIPANTS + 512;
/// A silent line is closed after so many unanswered pings.
const UNANSWERED: u32 = 3;
/// Time for the close code to be read, and for the client's own.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// Messages of a client, of every kind.
const MESSAGES: Rate = Rate { burst: 200, per_second: 50 };
/// Buffers of a connection: most messages are small.
const READ_BUFFER: usize = 8 * 1024;

/// How long a WebSocket waits for its client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// To say who it is.
    pub join: Duration,
    /// To say anything, before it is asked by a ping; three of them unanswered are the end.
    pub ping: Duration,
    /// To take a message.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { join: seconds(10), ping: seconds(15), write: seconds(10) }
    }
}

pub(super) async fn upgrade<G: Gateway>(
    State(shared): State<Shared<G>>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    if !cors::may_call(&shared.origins, &headers) {
        return Err(Problem::wrong_origin());
    }
    let upgrade = upgrade.map_err(|_| Problem::no_websocket())?;
    if !shared.gateway.ready() {
        return Err(Refusal::Draining.into());
    }
    let slot = Arc::clone(&shared.sockets).try_acquire_owned().map_err(|_| Refusal::Full)?;
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER)
        // Each message is flushed as it is written.
        .write_buffer_size(0);
    Ok(upgrade.on_upgrade(async move |socket| {
        Line::new(socket, shared).run().await;
        drop(slot);
    }))
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// We close it.
    Closed(Close),
    /// The client closed it and meant it.
    Left,
    /// It broke, or the client means to come back.
    Broken,
}

/// One connection.
struct Line<G> {
    socket: WebSocket,
    shared: Shared<G>,
    rooms: Rooms,
    outbox: Outbox,
    messages: Bucket,
}

impl<G: Gateway> Line<G> {
    fn new(socket: WebSocket, shared: Shared<G>) -> Self {
        let rooms = shared.gateway.rooms().clone();
        let messages = Bucket::new(MESSAGES, shared.gateway.now().mono);
        Self { socket, shared, rooms, outbox: Outbox::default(), messages }
    }

    async fn run(mut self) {
        let end = match self.join().await {
            Err(end) => end,
            Ok(member) => {
                let end = self.serve(&member).await;
                let left = matches!(end, End::Left | End::Closed(Close::Left));
                member.on_closed(self.shared.gateway.now().mono, left);
                end
            }
        };
        if let Some(metrics) = self.rooms.metrics() {
            metrics.on_closed(match end {
                End::Closed(why) => why.reason(),
                End::Left => "left",
                End::Broken => "broken",
            });
        }
        if let End::Closed(why) = end {
            self.close(why).await;
        }
    }

    /// Waits for a good `join`.
    async fn join(&mut self) -> Result<Member, End> {
        let deadline = Instant::now() + self.shared.patience.join;
        loop {
            let got = timeout_at(deadline, self.socket.recv()).await;
            let got = got.map_err(|_| End::Closed(Close::Late))?;
            let Some(text) = self.take(got)? else { continue };
            let (id, fault, close) = match Request::read(&text) {
                Err(Unread::NotJson) => return Err(End::Closed(Close::NotJson)),
                Err(Unread::Bad(id, fault)) => (id, fault, None),
                Ok(Request { id, body: Body::Join(join) }) => match self.enter(id, join) {
                    Ok(member) => return Ok(member),
                    Err((fault, close)) => (id, fault, close),
                },
                Ok(Request { id, .. }) => {
                    (id, Fault::new("join_first", "the first message is join"), None)
                }
            };
            if !self.send(Message::text(fault.message(id).as_ref())).await {
                return Err(End::Broken);
            }
            if let Some(close) = close {
                return Err(End::Closed(close));
            }
        }
    }

    fn enter(&self, id: Option<u64>, join: Join) -> Result<Member, (Fault, Option<Close>)> {
        let Join { token, room, name, subscribe, resume } = join;
        let now = self.shared.gateway.now();
        StreamName::check_part(&room).map_err(|error| (Fault::new("bad_name", error), None))?;
        let grant = self
            .shared
            .keys
            .verify(now.unix, &token)
            .map_err(|error| (Fault::new(error.code(), error), Some(Close::BadToken)))?;
        if !grant.may_enter(&room) {
            let detail = format!("the token allows nothing in room {room}");
            return Err((Fault::new("not_granted", detail), Some(Close::NotGranted)));
        }
        if !self.shared.gateway.ready() {
            return Err((Refusal::Draining.into(), Some(Close::Full)));
        }
        let joining = Joining { id, grant, name, subscribe, resume, fresh: String::new() };
        self.rooms
            .join(now, &room, joining, &self.outbox)
            .map_err(|refused| (Fault::new(refused.code(), &refused), refused.close()))
    }

    async fn serve(&mut self, member: &Member) -> End {
        let every = self.shared.patience.ping;
        let mut ping = interval_at(Instant::now() + every, every);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut unanswered = 0;
        loop {
            tokio::select! {
                // What is said to it comes first: a talkative client still learns what it did.
                biased;
                item = self.outbox.next() => match item {
                    Item::Close(why) => return End::Closed(why),
                    Item::Text(text) => {
                        if !self.send(Message::text(text.as_ref())).await {
                            return self.unread();
                        }
                    }
                },
                got = self.socket.recv() => {
                    unanswered = 0;
                    match self.take(got) {
                        Err(end) => return end,
                        Ok(None) => {}
                        Ok(Some(text)) => {
                            if let Err(why) = member.handle(self.shared.gateway.now(), &text) {
                                return End::Closed(why);
                            }
                        }
                    }
                }
                _ = ping.tick() => {
                    if unanswered >= UNANSWERED {
                        return End::Closed(Close::Late);
                    }
                    unanswered += 1;
                    if !self.send(Message::Ping(axum::body::Bytes::new())).await {
                        return self.unread();
                    }
                }
            }
        }
    }

    /// What came, if it is a text that may be read.
    fn take(
        &mut self,
        got: Option<Result<Message, axum::Error>>,
    ) -> Result<Option<Utf8Bytes>, End> {
        let message = match got {
            None => return Err(End::Broken),
            Some(Err(error)) => return Err(fault_of(error)),
            Some(Ok(message)) => message,
        };
        if let Some(metrics) = self.rooms.metrics() {
            metrics.on_received();
        }
        if !self.messages.take(self.shared.gateway.now().mono, 1) {
            return Err(End::Closed(Close::Flood));
        }
        match message {
            Message::Text(text) => Ok(Some(text)),
            Message::Binary(_) => Err(End::Closed(Close::Binary)),
            Message::Ping(_) | Message::Pong(_) => Ok(None),
            // RFC 6455 section 7.4.1: done, or the page goes away.
            Message::Close(Some(frame)) if matches!(frame.code, 1000 | 1001) => Err(End::Left),
            Message::Close(_) => Err(End::Broken),
        }
    }

    /// Writes; false when that is of no use any more.
    async fn send(&mut self, message: Message) -> bool {
        let sent = tokio::select! {
            sent = timeout(self.shared.patience.write, self.socket.send(message)) => sent,
            () = self.outbox.overflowed() => return false,
        };
        match sent {
            Ok(Ok(())) => {
                if let Some(metrics) = self.rooms.metrics() {
                    metrics.on_sent();
                }
                true
            }
            Ok(Err(_)) => false,
            Err(_) => {
                self.outbox.close(Close::Slow);
                false
            }
        }
    }

    /// Why a write was of no use.
    fn unread(&self) -> End {
        self.outbox.ending().map_or(End::Broken, End::Closed)
    }

    /// Says why, and waits a moment for it to be heard: to close a socket with unread bytes would
    /// take back what was written.
    async fn close(mut self, why: Close) {
        let frame = CloseFrame { code: why.code(), reason: why.reason().into() };
        let goodbye = async {
            if self.socket.send(Message::Close(Some(frame))).await.is_ok() {
                while let Some(Ok(_)) = self.socket.recv().await {}
            }
        };
        let _late = timeout(CLOSE_WITHIN, goodbye).await;
    }
}

/// What an error of the library says of the client.
fn fault_of(error: axum::Error) -> End {
    use tungstenite::Error as E;
    match error.into_inner().downcast_ref::<E>() {
        Some(E::Capacity(CapacityError::MessageTooLong { .. })) => End::Closed(Close::TooLong),
        Some(E::Utf8(_)) => End::Closed(Close::NotText),
        Some(E::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake)) => {
            End::Broken
        }
        Some(E::Protocol(_)) => End::Closed(Close::Protocol),
        _ => End::Broken,
    }
}
