//! What comes to the TCP ports and what signalling answers, counted off the data plane.

use prometheus::{IntCounterVec, Opts};

use super::Exposition;

/// Connections and answers of the HTTPS side.
#[derive(Clone, Debug)]
pub struct Signalling {
    responses: IntCounterVec,
    refusals: IntCounterVec,
    connections: IntCounterVec,
    sealed_candidates: IntCounterVec,
    trickled_candidates: IntCounterVec,
}

impl Signalling {
    /// Counters that nobody scrapes yet.
    ///
    /// # Errors
    /// Never with these names; the library cannot promise it.
    pub fn new() -> Result<Self, prometheus::Error> {
        let responses = IntCounterVec::new(
            Opts::new("veilgate_http_responses_total", "HTTPS responses by status class"),
            &["status"],
        )?;
        for class in CLASSES {
            responses.with_label_values(&[class]);
        }
        let refusals = IntCounterVec::new(
            Opts::new("veilgate_http_refusals_total", "Problem responses by their stable code"),
            &["code"],
        )?;
        let connections = IntCounterVec::new(
            Opts::new("veilgate_http_connections_total", "TCP connections by what they were"),
            &["kind"],
        )?;
        for kind in KINDS {
            connections.with_label_values(&[kind]);
        }
        let sealed_candidates = IntCounterVec::new(
            Opts::new(
                "veilgate_http_sealed_candidates_total",
                "Candidates in descriptions of sealed calls; only relayed ones of the room are kept",
            ),
            &["result"],
        )?;
        for result in CANDIDATES {
            sealed_candidates.with_label_values(&[result]);
        }
        let trickled_candidates = IntCounterVec::new(
            Opts::new(
                "veilgate_http_trickled_candidates_total",
                "Candidates that WHIP and WHEP clients trickled; none is kept",
            ),
            &["type"],
        )?;
        for kind in TRICKLED {
            trickled_candidates.with_label_values(&[kind]);
        }
        Ok(Self { responses, refusals, connections, sealed_candidates, trickled_candidates })
    }

    /// Exposes them.
    ///
    /// # Errors
    /// When the names are taken.
    pub fn register(&self, exposition: &Exposition) -> Result<(), prometheus::Error> {
        exposition.register(Box::new(self.responses.clone()))?;
        exposition.register(Box::new(self.connections.clone()))?;
        exposition.register(Box::new(self.refusals.clone()))?;
        exposition.register(Box::new(self.trickled_candidates.clone()))?;
        exposition.register(Box::new(self.sealed_candidates.clone()))
    }

    /// Counts the candidates of a sealed call's description.
    pub fn on_sealed_candidates(&self, kept: u32, not_relayed: u32, foreign: u32) {
        for (result, count) in CANDIDATES.into_iter().zip([kept, not_relayed, foreign]) {
            self.sealed_candidates.with_label_values(&[result]).inc_by(count.into());
        }
    }

    /// Counts candidates a client trickled, by their types: host, reflexive, relay, unknown.
    pub fn on_trickled_candidates(&self, counts: [u32; 4]) {
        for (kind, count) in TRICKLED.into_iter().zip(counts) {
            self.trickled_candidates.with_label_values(&[kind]).inc_by(count.into());
        }
    }

    /// Counts one connection; `kind` is from a closed list.
    pub fn on_connection(&self, kind: &'static str) {
        self.connections.with_label_values(&[kind]).inc();
    }

    /// Counts one response. `code` is the problem's, from a closed list.
    pub fn on_response(&self, status: u16, code: Option<&'static str>) {
        let class = usize::from(status / 100).checked_sub(1).and_then(|i| CLASSES.get(i));
        self.responses.with_label_values(&[class.unwrap_or(&"other")]).inc();
        if let Some(code) = code {
            self.refusals.with_label_values(&[code]).inc();
        }
    }
}

const KINDS: [&str; 8] =
    ["http", "turn_tcp", "turn_tls", "silent", "foreign", "tls_failed", "proxy_header", "crowd"];
const CANDIDATES: [&str; 3] = ["kept", "not_relayed", "foreign"];
const TRICKLED: [&str; 4] = ["host", "reflexive", "relay", "unknown"];
const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_and_codes_are_exposed() {
        let exposition = Exposition::new(Vec::new()).expect("a registry");
        let signalling = Signalling::new().expect("counters");
        signalling.register(&exposition).expect("free names");
        signalling.on_response(401, Some("token_expired"));
        signalling.on_response(999, None);
        let text = exposition.text().expect("encodes");
        for line in [
            "veilgate_http_responses_total{status=\"4xx\"} 1",
            "veilgate_http_responses_total{status=\"other\"} 1",
            "veilgate_http_responses_total{status=\"2xx\"} 0",
            "veilgate_http_refusals_total{code=\"token_expired\"} 1",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
