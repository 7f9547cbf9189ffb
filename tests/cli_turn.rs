//! `veilgate turn` mints credentials that the gateway's keys open, and explains them.

mod cli_support;

use cli_support::Home;
use veilgate::app::{dev, keys};
use veilgate::auth::turn::Keys;
use veilgate::ids::{RoomHash, SubjectHash};

#[test]
fn minted_json_is_one_entry_of_ice_servers() {
    let (home, info) = Home::after_dev();
    let args =
        ["turn", "mint", "--subject", "user-42", "--room", "lobby", "--ttl", "10m", "--json"];
    let ran = home.run(&args).expect(0);
    assert_eq!(ran.stderr, "");
    let entry = ran.json();
    let mut names: Vec<_> = entry.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["credential", "expires_at", "ttl", "urls", "username"]);
    assert_eq!(
        entry["urls"],
        serde_json::json!([
            "turn:127.0.0.1:3478?transport=udp",
            "turns:127.0.0.1:8443?transport=tcp",
            "turn:127.0.0.1:8443?transport=tcp",
        ])
    );
    assert_eq!(entry["ttl"], 600);
    assert_eq!(entry["credential"].as_str().unwrap().len(), 28);

    let ring = keys::read(&dev::turn_keys(&info.state_dir)).unwrap();
    let opened = Keys::new(ring.keys)
        .unwrap()
        .verify(entry["username"].as_str().unwrap(), "veilgate")
        .unwrap();
    assert_eq!(opened.subject, SubjectHash::of("user-42"));
    assert_eq!(opened.room, Some(RoomHash::of("lobby")));
    assert_eq!(opened.allocate_by.as_secs(), entry["expires_at"].as_u64().unwrap());
    assert_eq!(opened.live_until.as_secs() - opened.allocate_by.as_secs(), 43_200 - 600);
}

#[test]
fn credential_of_class_room_is_for_one_room() {
    let (home, _) = Home::after_dev();
    let mint = ["turn", "mint", "--subject", "a", "--class", "room"];
    let ran = home.run(&mint).expect(2);
    assert!(ran.stderr.contains("--class room takes --room"), "{}", ran.stderr);
    let entry = home.run(&[&mint[..], &["--room", "attic", "--json"]].concat()).expect(0).json();
    let name = entry["username"].as_str().unwrap();
    let ran = home.run(&["turn", "verify", name, "--room", "attic", "--json"]).expect(0);
    assert_eq!(ran.json()["class"], "room");
    let ran = home.run(&["turn", "mint", "--subject", "a", "--class", "world"]).expect(2);
    assert!(ran.stderr.contains("a class is forwarder, room or external"), "{}", ran.stderr);
}

#[test]
fn room_that_no_stream_can_have_is_refused() {
    let (home, _) = Home::after_dev();
    for room in ["a/b", "", "é", "attic/*"] {
        let ran = home.run(&["turn", "mint", "--subject", "a", "--room", room]).expect(2);
        assert!(ran.stderr.contains("--room"), "{}", ran.stderr);
        assert_eq!(ran.stdout, "", "{room}");
    }
}

#[test]
fn plain_output_shows_everything_a_person_needs() {
    let (home, _) = Home::after_dev();
    let ran = home.run(&["turn", "mint", "--subject", "a"]).expect(0);
    for word in ["url         turn:127.0.0.1:3478", "username    1", "credential  ", "(in 10m)"] {
        assert!(ran.stdout.contains(word), "{word} in {}", ran.stdout);
    }
}

#[test]
fn configuration_gives_keys_urls_and_lifetimes() {
    let home = Home::configured();
    let text = home.read("veilgate.yaml").replace("credential_ttl: 10m", "credential_ttl: 5m");
    home.write("veilgate.yaml", &text);
    let args = ["turn", "mint", "--subject", "a", "--json", "--config", "veilgate.yaml"];
    let entry = home.run(&args).expect(0).json();
    assert_eq!(
        entry["urls"],
        serde_json::json!([
            "turn:turn.example.org:3478?transport=udp",
            "turns:turn.example.org:443?transport=tcp",
            "turn:turn.example.org:443?transport=tcp",
        ])
    );
    assert_eq!(entry["ttl"], 300);
    assert!(entry["username"].as_str().unwrap().contains(":turn-"), "{entry}");
    let too_long = home.run(&[&args[..], &["--ttl", "13h"]].concat()).expect(1);
    assert!(too_long.stderr.contains("session limit"), "{}", too_long.stderr);
}

#[test]
fn credential_is_explained_and_compared() {
    let (home, _) = Home::after_dev();
    let mint = ["turn", "mint", "--subject", "a", "--room", "lobby", "--json"];
    let entry = home.run(&mint).expect(0).json();
    let name = entry["username"].as_str().unwrap();

    let ran = home.run_with_stdin(&["turn", "verify"], &format!("{name}\n")).expect(0);
    assert!(ran.stdout.starts_with("valid\n"), "{}", ran.stdout);
    let ran = home.run(&["turn", "verify", name, "--subject", "a", "--room", "lobby"]).expect(0);
    assert!(ran.stdout.contains("(as given)"), "{}", ran.stdout);
    let ran = home.run(&["turn", "verify", name, "--subject", "b", "--json"]).expect(1);
    assert_eq!(
        (&ran.json()["valid"], &ran.json()["reason"]),
        (&false.into(), &"other_subject".into())
    );
    let ran = home.run(&["turn", "verify", name, "--room", "attic", "--json"]).expect(1);
    assert_eq!(ran.json()["reason"], "other_room");

    let longer = format!("9{name}");
    let ran = home.run(&["turn", "verify", &longer, "--json"]).expect(1);
    assert_eq!(ran.json(), serde_json::json!({"valid": false, "reason": "forged"}));
    let ran = home.run(&["turn", "verify", "alice"]).expect(1);
    assert!(
        ran.stdout.starts_with("not valid: the username is not a credential"),
        "{}",
        ran.stdout
    );
    let other = Home::configured();
    let ran = other.run(&["turn", "verify", name, "--json", "--config", "veilgate.yaml"]).expect(1);
    assert_eq!(ran.json()["reason"], "unknown_key");
}

#[test]
fn without_gateway_or_configuration_the_way_out_is_told() {
    let home = Home::empty();
    let ran = home.run(&["turn", "mint", "--subject", "a"]).expect(1);
    assert!(ran.stderr.contains("veilgate serve --dev"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "");
}

#[test]
fn broken_key_file_is_a_configuration_fault_with_its_line() {
    let (home, info) = Home::after_dev();
    std::fs::write(info.state_dir.join("turn.keys"), "# mine\nk1:c2hvcnQ=\n").unwrap();
    let ran = home.run(&["turn", "mint", "--subject", "a"]).expect(78);
    assert!(
        ran.stderr.contains("turn.keys:2: the secret of key \"k1\" has 5 bytes"),
        "{}",
        ran.stderr
    );
    assert!(!ran.stderr.contains("c2hvcnQ"), "{}", ran.stderr);
}

#[test]
fn keys_may_come_from_the_environment() {
    let (home, _) = Home::after_dev();
    let mut command = home.command(&["turn", "mint", "--subject", "a", "--json"]);
    command.env("VEILGATE_TURN_KEYS", "env1:AAAAAAAAAAAAAAAAAAAAAAAA");
    let output = command.output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains(":env1."));
}
