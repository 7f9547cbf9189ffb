//! What a probe found: rows, a table for people, JSON for programs. The schema is in
//! `docs/probe.md`.

use serde::Serialize;

use super::target::Transport;

/// The number of the schema: it changes when a field changes its meaning or goes away.
const SCHEMA: u32 = 1;

/// Whether what should hold does.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum State {
    Ok,
    Fail,
    /// Not looked at, or not to be told from here.
    Skip,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Fail => "FAIL",
            Self::Skip => "skip",
        }
    }
}

/// What each way to a forbidden target led to: an error code, `silent`, `granted`, …
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(super) struct Answers {
    pub(super) create_permission: String,
    pub(super) channel_bind: String,
    pub(super) send: String,
}

/// One thing that should hold.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(in crate::cli) struct Row {
    pub(super) check: &'static str,
    /// What the check was tried on, where one check has several subjects.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) subject: Option<String>,
    pub(super) state: State,
    /// One line: what was seen, and after a failure what to do.
    pub(in crate::cli) reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) answers: Option<Answers>,
}

impl Row {
    fn new(check: &'static str, state: State, reason: impl Into<String>) -> Self {
        Self { check, subject: None, state, reason: reason.into(), answers: None }
    }

    pub(super) fn ok(check: &'static str, reason: impl Into<String>) -> Self {
        Self::new(check, State::Ok, reason)
    }

    pub(super) fn fail(check: &'static str, reason: impl Into<String>) -> Self {
        Self::new(check, State::Fail, reason)
    }

    pub(super) fn skip(check: &'static str, reason: impl Into<String>) -> Self {
        Self::new(check, State::Skip, reason)
    }
}

/// Round-trip times through the relay and back.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Rtt {
    pub(super) sent: u32,
    pub(super) received: u32,
    /// Of those sent, 0 to 1.
    pub(super) loss: f64,
    pub(super) p50_us: u64,
    pub(super) p99_us: u64,
}

/// A stream of payloads to the echo and back.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct Throughput {
    pub(super) seconds: f64,
    pub(super) sent: u64,
    pub(super) received: u64,
    /// Of those sent, 0 to 1.
    pub(super) loss: f64,
    /// Payload bits a second, each way.
    pub(super) sent_bits_per_second: u64,
    pub(super) received_bits_per_second: u64,
}

/// What was found over one transport to one address.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct PathReport {
    pub(super) url: String,
    pub(super) transport: Transport,
    pub(super) family: &'static str,
    pub(super) server: String,
    pub(super) checks: Vec<Row>,
    pub(super) rtt: Option<Rtt>,
    pub(super) throughput: Option<Throughput>,
}

/// Everything.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub(super) struct Report {
    pub(super) schema: u32,
    pub(super) target: String,
    pub(super) ok: bool,
    pub(super) failed: usize,
    pub(super) skipped: usize,
    /// Of the signalling, and of finding the server.
    pub(super) checks: Vec<Row>,
    pub(super) paths: Vec<PathReport>,
}

impl Report {
    pub(super) fn new(target: String, checks: Vec<Row>, paths: Vec<PathReport>) -> Self {
        let rows = || checks.iter().chain(paths.iter().flat_map(|path| &path.checks));
        let count = |state| rows().filter(|row| row.state == state).count();
        let (failed, skipped) = (count(State::Fail), count(State::Skip));
        // Nothing tried is nothing shown.
        let ok = failed == 0 && count(State::Ok) > 0;
        Self { schema: SCHEMA, target, ok, failed, skipped, checks, paths }
    }

    /// The table. Targets refused on a later path as on the first are only counted there.
    pub(super) fn table(&self) -> String {
        let mut text = String::new();
        if !self.checks.is_empty() {
            text.push_str(&format!("{}\n", self.target));
            for row in &self.checks {
                line(&mut text, row);
            }
            text.push('\n');
        }
        let mut told = false;
        for path in &self.paths {
            let transport = path.transport.name();
            text.push_str(&format!("{transport} {} {}\n", path.family, path.server));
            let mut more = 0;
            for row in &path.checks {
                if told && row.subject.is_some() && row.state == State::Ok {
                    more += 1;
                } else {
                    line(&mut text, row);
                }
            }
            if more > 0 {
                text.push_str(&format!("  ok    refuse      {more} targets, as above\n"));
            }
            told |= path.checks.iter().any(|row| row.subject.is_some());
            text.push('\n');
        }
        let rows = self.paths.iter().map(|path| path.checks.len()).sum::<usize>();
        let all = rows + self.checks.len();
        let skipped = match self.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} skipped"),
        };
        let held = all - self.failed - self.skipped;
        text.push_str(&if self.ok {
            format!("ok: {held} checks hold{skipped}\n")
        } else {
            format!("FAIL: {} of {all} checks do not hold{skipped}\n", self.failed)
        });
        text
    }
}

fn line(text: &mut String, row: &Row) {
    let word = row.state.word();
    let Row { check, reason, .. } = row;
    let line = match (&row.subject, &row.answers) {
        (Some(subject), Some(answers)) => {
            let Answers { create_permission, channel_bind, send } = answers;
            let answers = format!("{create_permission} {channel_bind} {send}");
            let reason = if row.state == State::Ok { "" } else { reason };
            format!("  {word:4}  {check:10}  {subject:44}  {answers:18}  {reason}")
        }
        (Some(subject), None) => format!("  {word:4}  {check:10}  {subject:44}  {reason}"),
        (None, _) => format!("  {word:4}  {check:10}  {reason}"),
    };
    text.push_str(line.trim_end());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(checks: Vec<Row>) -> PathReport {
        PathReport {
            url: "turn:h".to_owned(),
            transport: Transport::Udp,
            family: "ipv4",
            server: "192.0.2.1:3478".to_owned(),
            checks,
            rtt: None,
            throughput: None,
        }
    }

    #[test]
    fn one_failure_anywhere_makes_the_whole_fail() {
        let good = path(vec![Row::ok("challenge", "401"), Row::skip("echo", "no probe")]);
        let report = Report::new("t".to_owned(), vec![], vec![good.clone()]);
        assert!(report.ok);
        assert!(report.table().ends_with("ok: 1 checks hold, 1 skipped\n"), "{}", report.table());
        let bad = path(vec![Row::fail("allocation", "refused")]);
        let report = Report::new("t".to_owned(), vec![], vec![good, bad]);
        assert!(!report.ok);
        assert!(report.table().contains("FAIL  allocation  refused"), "{}", report.table());
        assert!(!Report::new("t".to_owned(), vec![], vec![]).ok, "nothing tried");
    }

    #[test]
    fn later_paths_count_what_the_first_has_shown() {
        let refused = Row { subject: Some("10.0.0.1:80".to_owned()), ..Row::ok("refuse", "") };
        let leaky = Row { state: State::Fail, ..refused.clone() };
        let report = Report::new(
            "t".to_owned(),
            vec![],
            vec![path(vec![refused.clone()]), path(vec![refused.clone(), refused, leaky])],
        );
        let table = report.table();
        assert_eq!(table.matches("10.0.0.1:80").count(), 2, "{table}");
        assert!(table.contains("2 targets, as above"), "{table}");
    }
}
