//! Data channels among the browsers of a room: what each says reaches the others, whole, in order
//! and to the last word.

mod common;

use common::Gateway;
use common::tool::Tool;
use serde_json::{Value, json};

fn token(gateway: &Gateway, who: &str) -> String {
    let stream = format!("lobby/{who}");
    let rights = ["--publish", &stream, "--play", "lobby/*", "--data", "--ttl", "1h"];
    gateway.cli(&[&["token", "mint", "--subject", who], &rights[..]].concat())
}

#[test]
fn what_is_said_on_data_channels_reaches_the_others_of_the_room() {
    let gateway = Gateway::start(2);
    let guests = [("ada", "chromium"), ("fay", "firefox")].map(
        |(who, browser)| json!({ "who": who, "browser": browser, "token": token(&gateway, who) }),
    );
    let plan = json!({ "room": "lobby", "guests": guests });
    let room = Tool::node(&gateway, "room_data.mjs", &plan);
    room.flowing();
    let result = room.result();
    for (who, other) in [("ada", "fay"), ("fay", "ada")] {
        let from = result["ids"][other].as_str().expect("an id");
        let of = |label: &str| -> Vec<Value> {
            let label = json!(format!("{from}/{label}"));
            let heard = result["heard"][who].as_array().expect("a list").iter();
            heard.filter(|said| said[0] == label).map(|said| said[1].clone()).collect()
        };
        assert_eq!(of("chat"), [json!("hello")], "{result:#}");
        assert_eq!(of("files"), [json!(60_000), json!(1), json!(30_000)], "{result:#}");
        assert_eq!(result["closed"][who], json!([format!("{from}/files")]), "{result:#}");
    }
}
