//! Networks that let no UDP out: the relay over TLS and over TCP, on the port of HTTPS.

mod common;

use common::expect::{all, modern_crypto, relayed_only, relayed_over, watched};
use common::tool::Tool;
use common::{Gateway, HOST, alone};
use serde_json::{Value, json};

const SECONDS: u64 = 6;

/// One publisher and one player, each a browser and a transport.
fn call(gateway: &Gateway, name: &str, publisher: [&str; 2], players: &[[&str; 2]]) -> Value {
    let token = gateway.token();
    let side = |[browser, transport]: &[&str; 2]| json!({ "browser": browser, "name": name, "token": token, "transport": transport });
    let call = Tool::browsers(
        gateway,
        &json!({
            "seconds": SECONDS,
            "publishers": [side(&publisher)],
            "players": players.iter().map(side).collect::<Vec<_>>(),
        }),
    );
    call.flowing();
    call.result()
}

fn judge(result: &Value, publisher: [&str; 2], players: &[[&str; 2]]) {
    for (seen, [_, transport]) in all(result, "players").iter().zip(players) {
        watched(seen, SECONDS as f64);
        relayed_only(seen);
        relayed_over(seen, transport);
        modern_crypto(seen);
    }
    for seen in all(result, "publishers") {
        relayed_only(seen);
        relayed_over(seen, publisher[1]);
    }
}

#[test]
fn chromium_over_tls_is_watched_over_tcp_and_tls() {
    let _turn = alone();
    let gateway = Gateway::start_with(2, &["--public-host", HOST]);
    let (publisher, players) = (["chromium", "tls"], [["chromium", "tcp"], ["firefox", "tls"]]);
    let result = call(&gateway, "lobby/tls", publisher, &players);
    judge(&result, publisher, &players);
    let metrics = gateway
        .metrics_when("the connections ended", |m| m.sum("veilgate_engine_streams", &[]) == 0.0);
    assert!(metrics.sum("veilgate_engine_streams_opened_total", &[]) >= 3.0);
    assert!(metrics.sum("veilgate_engine_stream_messages_total", &["direction=\"out\""]) > 100.0);
}

#[test]
fn firefox_over_tcp_is_watched_over_tls() {
    let _turn = alone();
    let gateway = Gateway::start_with(1, &["--public-host", HOST]);
    let (publisher, players) = (["firefox", "tcp"], [["chromium", "tls"]]);
    let result = call(&gateway, "lobby/tcp", publisher, &players);
    judge(&result, publisher, &players);
}
