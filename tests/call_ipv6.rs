//! A network without IPv4. Browsers ask for no IPv6 relayed address, so what they get is a virtual
//! IPv4 one, and the call is between two of those; only the way to the relay is IPv6.

mod common;

use common::expect::{all, modern_crypto, relayed_only_to, relayed_over, watched};
use common::tool::Tool;
use common::{GATEWAY6, Gateway, alone};
use serde_json::json;

const SECONDS: u64 = 6;
/// The dummy address of RFC 7600.
const DUMMY: &str = "192.0.0.8";

fn call(publisher: [&str; 2], players: &[[&str; 2]]) {
    let _turn = alone();
    let gateway = Gateway::start_on_ipv6(2);
    let token = gateway.token();
    let side = |[browser, transport]: [&str; 2]| json!({ "browser": browser, "name": "lobby/six", "token": token, "transport": transport });
    let call = Tool::browsers(
        &gateway,
        &json!({
            "seconds": SECONDS,
            "publishers": [side(publisher)],
            "players": players.iter().copied().map(side).collect::<Vec<_>>(),
        }),
    );
    call.flowing();
    let result = call.result();
    let media = [DUMMY.to_owned(), GATEWAY6.to_string()];
    let sides = [("publishers", &[publisher][..]), ("players", players)];
    for (role, wanted) in sides {
        for (seen, [_, transport]) in all(&result, role).iter().zip(wanted) {
            relayed_only_to(seen, &media);
            relayed_over(seen, transport);
            modern_crypto(seen);
            let selected = &seen["last"]["selected"];
            assert_eq!(selected["local"]["address"], DUMMY, "{selected:#}");
            assert_eq!(selected["remote"]["address"], DUMMY, "{selected:#}");
        }
    }
    for player in all(&result, "players") {
        watched(player, SECONDS as f64);
    }
    let ipv4 = gateway.sockets("-4unlp");
    assert!(ipv4.is_empty(), "{ipv4:?}");
}

#[test]
fn chromium_publishes_over_ipv6_alone_and_both_browsers_watch() {
    call(["chromium", "udp"], &[["chromium", "udp"], ["firefox", "udp"]]);
}

#[test]
fn firefox_publishes_over_ipv6_alone_and_over_tls_chromium_watches() {
    call(["firefox", "udp"], &[["chromium", "tls"]]);
}
