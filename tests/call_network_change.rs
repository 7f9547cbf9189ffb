//! A laptop goes from one network to another: its address changes under a call, and the call goes
//! on in the same sessions, by an ICE restart (RFC 9725 section 4.3.3).

mod common;

use common::expect::{all, relayed_only};
use common::tool::Tool;
use common::{CLIENT, GATEWAY, Gateway};
use serde_json::{Value, json};

/// Long enough for ICE to notice a dead path by itself, should nobody tell the page.
const SECONDS: u64 = 30;
const ELSEWHERE: &str = "10.78.0.9/24";

fn number(sample: &Value, field: &str) -> f64 {
    sample[field].as_f64().unwrap_or_else(|| panic!("no {field} in {sample:#}"))
}

#[test]
fn sessions_go_on_by_an_ice_restart_when_the_address_of_both_ends_changes() {
    let gateway = Gateway::start(1);
    let token = gateway.token();
    let side =
        |browser: &str| json!({ "browser": browser, "name": "lobby/moving", "token": token });
    let call = Tool::browsers(
        &gateway,
        &json!({
            "seconds": SECONDS,
            "publishers": [side("chromium")],
            "players": [side("chromium"), side("firefox")],
        }),
    );
    call.flowing();
    let network = &gateway.network;
    network.ip_clients(&["address", "add", ELSEWHERE, "dev", "v1"]);
    network.ip_clients(&["address", "del", &format!("{CLIENT}/24"), "dev", "v1"]);
    // The kernel drops what came after the first address with it.
    network.ip_clients(&["address", "replace", ELSEWHERE, "dev", "v1"]);
    network.ip_clients(&["route", "replace", "default", "via", &GATEWAY.to_string()]);

    let result = call.result();
    for who in all(&result, "publishers").iter().chain(all(&result, "players")) {
        relayed_only(who);
        let states = who["last"]["states"].as_array().expect("states").iter();
        let mut states: Vec<&str> = states.filter_map(|state| state[0].as_str()).collect();
        states.retain(|state| *state != "restarting");
        states.dedup();
        assert_eq!(states, ["connecting", "live"], "the session was never left: {who:#}");
        assert!(restarts(who) > 0, "the path was never mended: {who:#}");
        assert_eq!(who["last"]["connection"], "connected");
    }
    for player in all(&result, "players") {
        let samples = player["samples"].as_array().expect("samples");
        let (before, last) = (&samples[samples.len() - 6], &player["last"]);
        let pictures: Vec<&Value> =
            samples[samples.len() - 6..].iter().map(|s| &s["picture"]).collect();
        assert!(pictures.windows(2).any(|two| two[0] != two[1]), "the picture stands: {player:#}");
        let grown = number(last, "framesDecoded") - number(before, "framesDecoded");
        assert!(grown > 10.0, "{grown} frames in the last seconds: {player:#}");
    }
}

fn restarts(who: &Value) -> usize {
    let states = who["last"]["states"].as_array().expect("states").iter();
    states.filter(|state| state[0] == "restarting").count()
}
