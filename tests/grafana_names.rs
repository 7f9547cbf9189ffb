//! A panel over a metric that does not exist is an empty panel that nobody notices.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use veilgate::metrics::{Exposition, Published, RoomMetrics, Signalling};

fn dashboards() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("grafana/dashboards");
    let entries = fs::read_dir(&folder).expect("grafana/dashboards");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|ext| ext == "json"))
        .collect();
    files.sort();
    files
}

/// Every `expr` and every template `query`, wherever it stands.
fn expressions(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                match inner {
                    Value::String(text) if key == "expr" || key == "query" => {
                        found.push(text.clone());
                    }
                    _ => expressions(inner, found),
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|inner| expressions(inner, found)),
        _ => {}
    }
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The metric names in an expression, each with the label names written in its braces.
fn uses(expression: &str) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut rest = expression;
    while let Some(at) = rest.find("veilgate_") {
        rest = &rest[at..];
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let name = rest[..end].to_owned();
        rest = &rest[end..];
        let mut labels = Vec::new();
        if let Some(inner) = rest.strip_prefix('{') {
            let braces = &inner[..inner.find('}').expect("closed braces")];
            for matcher in braces.split(',').filter(|m| !m.trim().is_empty()) {
                let label = matcher.trim().split(['=', '!']).next().unwrap_or_default();
                labels.push(label.trim().to_owned());
            }
        }
        found.push((name, labels));
    }
    found
}

/// What a gateway exposes after its first refusal: names of samples, and their labels.
fn exposed() -> (BTreeSet<String>, String) {
    let exposition = Exposition::new(vec![Arc::new(Published::default())]).expect("a registry");
    let signalling = Signalling::new().expect("counters");
    signalling.register(&exposition).expect("free names");
    let rooms = RoomMetrics::new().expect("counters");
    rooms.register(&exposition).expect("free names");
    rooms.on_closed("left");
    signalling.on_response(401, Some("token_expired"));
    let text = exposition.text().expect("text");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let names = lines.map(|line| line.chars().take_while(|c| is_name(*c)).collect()).collect();
    (names, text)
}

#[test]
fn every_expression_uses_metrics_and_labels_that_exist() {
    // What Prometheus itself adds to every sample.
    const ADDED: [&str; 2] = ["job", "instance"];
    let (names, text) = exposed();
    let files = dashboards();
    assert!(!files.is_empty(), "no dashboard in grafana/dashboards");
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for file in &files {
        let dashboard = fs::read_to_string(file).expect("utf-8");
        let dashboard: Value =
            serde_json::from_str(&dashboard).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut found = Vec::new();
        expressions(&dashboard, &mut found);
        assert!(found.len() >= 10, "{} has hardly a panel", file.display());
        for expression in found {
            for (name, labels) in uses(&expression) {
                if !names.contains(&name) {
                    wrong.push(format!("{}: {name} does not exist: {expression}", file.display()));
                }
                for label in labels.iter().filter(|label| !ADDED.contains(&label.as_str())) {
                    let there = text.lines().any(|line| {
                        line.starts_with(&name) && line.contains(&format!("{label}=\""))
                    });
                    if !there {
                        wrong.push(format!("{}: {name} has no label {label}", file.display()));
                    }
                }
                seen.insert(name);
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // And the other way: what the issue promises operators is on a panel.
    for family in [
        "veilgate_relay_allocations",
        "veilgate_relay_auth_failures_total",
        "veilgate_relay_packets_total",
        "veilgate_relay_bytes_total",
        "veilgate_relay_denied_peers_total",
        "veilgate_session_sessions",
        "veilgate_session_dtls_handshakes_total",
        "veilgate_session_srtp_dropped_total",
        "veilgate_forward_packets_total",
        "veilgate_forward_keyframe_requests_total",
        "veilgate_forward_nacks_total",
    ] {
        assert!(seen.contains(family), "{family} is on no panel");
    }
    for part in ["_loop", "batch"] {
        assert!(seen.iter().any(|name| name.contains(part)), "no panel shows {part}");
    }
}

#[test]
fn the_operator_guide_names_metrics_that_exist() {
    let (names, _) = exposed();
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operator.md");
    let text = fs::read_to_string(guide).expect("the guide");
    let found = uses(&text);
    assert!(found.len() > 5, "the guide names hardly a metric");
    for (name, _) in found {
        let histogram = names.contains(&format!("{name}_bucket"));
        assert!(histogram || names.contains(&name), "{name} does not exist");
    }
}

#[test]
fn the_reader_finds_names_and_labels() {
    let expression =
        r#"sum by (le) (rate(veilgate_a_total{direction="in", job=~"x"}[5m])) / veilgate_b"#;
    let expected = [
        ("veilgate_a_total".to_owned(), vec!["direction".to_owned(), "job".to_owned()]),
        ("veilgate_b".to_owned(), Vec::new()),
    ];
    assert_eq!(uses(expression), expected);
}
