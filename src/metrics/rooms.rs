//! Rooms and their WebSockets, counted off the data plane.

use prometheus::{IntCounterVec, IntGauge, Opts};

use super::Exposition;

/// Rooms, who is in them, and what crosses.
#[derive(Clone, Debug)]
pub struct RoomMetrics {
    rooms: IntGauge,
    participants: IntGauge,
    joins: IntCounterVec,
    messages: IntCounterVec,
    closed: IntCounterVec,
}

impl RoomMetrics {
    /// Counters that nobody scrapes yet.
    ///
    /// # Errors
    /// Never with these names; the library cannot promise it.
    pub fn new() -> Result<Self, prometheus::Error> {
        let rooms = IntGauge::new("veilgate_room_rooms", "Rooms with somebody in them")?;
        let participants = IntGauge::new(
            "veilgate_room_participants",
            "Participants of rooms, those included who may still come back",
        )?;
        let joins = IntCounterVec::new(
            Opts::new("veilgate_room_joins_total", "Attempts to join a room by their result"),
            &["result"],
        )?;
        joins.with_label_values(&["ok"]);
        let messages = IntCounterVec::new(
            Opts::new("veilgate_room_messages_total", "Messages on the WebSockets of rooms"),
            &["direction"],
        )?;
        for direction in DIRECTIONS {
            messages.with_label_values(&[direction]);
        }
        let closed = IntCounterVec::new(
            Opts::new("veilgate_room_connections_closed_total", "WebSockets of rooms closed"),
            &["reason"],
        )?;
        Ok(Self { rooms, participants, joins, messages, closed })
    }

    /// Exposes them.
    ///
    /// # Errors
    /// When the names are taken.
    pub fn register(&self, exposition: &Exposition) -> Result<(), prometheus::Error> {
        exposition.register(Box::new(self.rooms.clone()))?;
        exposition.register(Box::new(self.participants.clone()))?;
        exposition.register(Box::new(self.joins.clone()))?;
        exposition.register(Box::new(self.messages.clone()))?;
        exposition.register(Box::new(self.closed.clone()))
    }

    /// Sets what there is.
    pub fn set(&self, rooms: usize, participants: usize) {
        self.rooms.set(i64::try_from(rooms).unwrap_or(i64::MAX));
        self.participants.set(i64::try_from(participants).unwrap_or(i64::MAX));
    }

    /// Counts an attempt to join; `result` is "ok" or an error's code, from a closed list.
    pub fn on_join(&self, result: &'static str) {
        self.joins.with_label_values(&[result]).inc();
    }

    /// Counts messages of clients.
    pub fn on_received(&self) {
        self.messages.with_label_values(&[DIRECTIONS[0]]).inc();
    }

    /// Counts messages to clients.
    pub fn on_sent(&self) {
        self.messages.with_label_values(&[DIRECTIONS[1]]).inc();
    }

    /// Counts a closed WebSocket; `reason` is from a closed list.
    pub fn on_closed(&self, reason: &'static str) {
        self.closed.with_label_values(&[reason]).inc();
    }
}

const DIRECTIONS: [&str; 2] = ["from_client", "to_client"];
