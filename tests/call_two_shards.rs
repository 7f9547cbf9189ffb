//! One publisher, players on both shards: the fan-out crosses threads.

mod common;

use common::Gateway;
use common::expect::{all, relayed_only, watched};
use common::tool::Tool;
use serde_json::{Value, json};

const SECONDS: u64 = 10;
/// The kernel's hash places each player: all of this many land on one of two shards once in
/// 2^(n-1) runs, so players join in rounds until both shards have some.
const A_ROUND: usize = 3;
const ROUNDS: usize = 5;

#[test]
fn players_on_both_shards_watch_one_publisher() {
    let gateway = Gateway::start(2);
    let token = gateway.token();
    let side = json!({ "browser": "chromium", "name": "lobby/cam1", "token": token });
    let publishing = Tool::browsers(&gateway, &json!({ "publishers": [side] }));
    publishing.flowing();

    let mut rounds: Vec<Tool> = Vec::new();
    let mut both = false;
    for _ in 0..ROUNDS {
        let players = vec![side.clone(); A_ROUND];
        let round = Tool::browsers(&gateway, &json!({ "share": true, "players": players }));
        round.flowing();
        rounds.push(round);
        let joined = (rounds.len() * A_ROUND) as f64;
        let metrics = gateway.metrics_when("the round joined", |m| {
            m.sum("veilgate_session_sessions", &["role=\"player\""]) >= joined
        });
        let on = |shard: usize| {
            let labels = ["role=\"player\"", &format!("shard=\"{shard}\"")];
            metrics.sum("veilgate_engine_shard_sessions", &labels)
        };
        both = on(0) > 0.0 && on(1) > 0.0;
        if both {
            break;
        }
    }
    assert!(both, "all players landed on one shard, {ROUNDS} times over");

    // Everybody watches on until frames have come for a while: one more player's ten seconds.
    let last = Tool::browsers(&gateway, &json!({ "seconds": SECONDS, "players": [side] }));
    last.flowing();
    let last = last.result();
    watched(&all(&last, "players")[0], SECONDS as f64);
    let results: Vec<Value> = rounds.into_iter().map(Tool::finish).collect();
    for player in results.iter().flat_map(|result| all(result, "players")) {
        watched(player, SECONDS as f64);
        relayed_only(player);
    }
    let dropped =
        gateway.metrics().sum("veilgate_forward_dropped_total", &["reason=\"ring_full\""]);
    assert_eq!(dropped, 0.0, "the ring between the shards overflowed");
    publishing.finish();
}
