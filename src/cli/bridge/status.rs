//! What a bridge says of itself: lines for people on stderr, JSON on stdout. Neither has a token,
//! a session's secret URL or an address of a client.

use serde::Serialize;

use super::session::{Counts, Reason};
use crate::cli::out;
use crate::cli::probe::target::Transport;

/// One line of `--json`. The schema is in `docs/bridge.md`.
#[derive(Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event<'a> {
    /// The gateway is there and the endpoints are open.
    Ready {
        gateway: &'a str,
        whip: &'a str,
        whep: &'a str,
        /// `null`: not tried, for want of a token.
        transport: Option<Transport>,
    },
    SessionStarted {
        session: u64,
        kind: &'static str,
        stream: &'a str,
        transport: Transport,
    },
    /// The gateway's first packet went to the client.
    SessionConnected {
        session: u64,
    },
    SessionEnded {
        session: u64,
        reason: Reason,
        packets: Counts,
    },
    Refused {
        kind: &'static str,
        status: u16,
        code: &'a str,
        detail: Option<&'a str>,
    },
}

/// Where it says so.
#[derive(Clone, Copy)]
pub(super) struct Status {
    pub(super) json: bool,
}

impl Status {
    pub(super) fn tell(self, event: &Event<'_>) {
        if self.json {
            // A reader that went away is no reason to stop carrying media.
            let _gone = out::json(event);
        } else {
            out::talk(&format!("bridge: {}", one_line(&event.text())));
        }
    }

    /// What is no event, only talk.
    #[expect(clippy::unused_self, reason = "said where all else is said")]
    pub(super) fn note(self, text: &str) {
        out::talk(&format!("bridge: {}", one_line(text)));
    }
}

/// A gateway's words do not move the cursor of a terminal, nor make lines of their own.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

impl Event<'_> {
    fn text(&self) -> String {
        match self {
            Self::Ready { gateway, whip, whep, transport } => {
                let over = transport.map(|transport| format!(" over {}", transport.name()));
                let over = over.unwrap_or_default();
                format!("to {gateway}{over}; publish to {whip}, play from {whep}")
            }
            Self::SessionStarted { session, kind, stream, transport } => {
                format!("session {session}: {kind} {stream} over {}", transport.name())
            }
            Self::SessionConnected { session } => format!("session {session}: connected"),
            Self::SessionEnded { session, reason, packets } => format!(
                "session {session}: {}; {} packets from the client, {} from the gateway, {} dropped",
                reason.text(),
                packets.from_client,
                packets.from_gateway,
                packets.dropped
            ),
            Self::Refused { kind, status, code, detail } => {
                format!("{kind} refused with {status} ({code}): {}", detail.unwrap_or("no reason"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_a_gateway_stay_on_their_line() {
        let detail = Some("no\r\nbridge: session 1: connected\u{1b}[2J");
        let refused = Event::Refused { kind: "whip", status: 403, code: "c", detail };
        let line = one_line(&refused.text());
        assert!(!line.contains(char::is_control), "{line:?}");
    }
}
