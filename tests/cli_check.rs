//! `veilgate check` explains a configuration, or tells all that is wrong with it.

mod cli_support;

use cli_support::Home;

#[test]
fn sound_configuration_is_shown_without_its_secrets() {
    let home = Home::configured();
    let ran = home.run(&["check", "--config", "veilgate.yaml"]).expect(0);
    assert_eq!(ran.stderr, "");
    for word in ["turn:turn.example.org:3478?transport=udp", "203.0.113.7", "turn-", "token-"] {
        assert!(ran.stdout.contains(word), "{word} in {}", ran.stdout);
    }
    let json = home.run(&["check", "--config", "veilgate.yaml", "--json"]).expect(0);
    assert_eq!(json.json()["ok"], true);
    assert_eq!(json.json()["config"]["relay"]["realm"], "turn.example.org");
    for file in ["turn.keys", "token.keys"] {
        let ring = home.read(file);
        let (_, secret) = ring.lines().last().unwrap().split_once(':').unwrap();
        assert!(!ran.stdout.contains(secret) && !json.stdout.contains(secret), "{file}");
    }
}

#[test]
fn all_faults_are_told_at_once_with_line_column_and_key() {
    let home = Home::empty();
    home.write(
        "v.yaml",
        "public: { ip: nowhere }\nlisten:\n  upd: 0.0.0.0:1\nlog: { level: loud }\n",
    );
    let ran = home.run(&["check", "--config", "v.yaml"]).expect(78);
    assert_eq!(ran.stdout, "");
    assert_eq!(
        ran.stderr,
        "\
v.yaml:1:1: auth.turn_keys_file: missing: a file of keys, or the environment variable VEILGATE_TURN_KEYS
v.yaml:1:1: auth.token_keys_file: missing: a file of keys, or the environment variable VEILGATE_TOKEN_KEYS
v.yaml:1:1: tls.certificate: missing: signalling is never plain; a PEM file with the certificate chain
v.yaml:1:1: tls.key: missing: a PEM file with the certificate's private key
v.yaml:1:15: public.ip: \"nowhere\" is not an IPv4 address, like 203.0.113.7
v.yaml:3:3: listen.upd: unknown key; did you mean \"udp\"?
v.yaml:4:15: log.level: must be one of error, warn, info, debug, trace
7 errors
"
    );
    let json = home.run(&["check", "--config", "v.yaml", "--json"]).expect(78).json();
    assert_eq!(json["ok"], false);
    assert_eq!(json["errors"].as_array().unwrap().len(), 7);
    assert_eq!(json["errors"][4]["line"], 1);
    assert_eq!(json["errors"][4]["column"], 15);
    assert_eq!(json["errors"][4]["key"], "public.ip");
}

#[test]
fn missing_host_name_is_a_warning() {
    let home = Home::configured();
    let text = home.read("veilgate.yaml").replace("  host: turn.example.org\n", "");
    home.write("veilgate.yaml", &text);
    let ran = home.run(&["check", "--config", "veilgate.yaml"]).expect(0);
    assert!(ran.stderr.contains("Firefox fails silently on turns:<IP>"), "{}", ran.stderr);
}

#[test]
fn keys_and_certificate_are_read_too() {
    let home = Home::configured();
    home.write("token.keys", "k1:AAAA\nk1\n");
    let pem = home.read("certs/dev/server.pem");
    home.write("certs/dev/server.key", &pem);
    let ran = home.run(&["check", "--config", "veilgate.yaml"]).expect(78);
    assert!(ran.stderr.contains("token.keys:1: the secret of key"), "{}", ran.stderr);
    assert!(ran.stderr.contains("token.keys:2: a key is written"), "{}", ran.stderr);
    assert!(ran.stderr.contains("tls.key: "), "{}", ran.stderr);
    assert!(ran.stderr.contains("3 errors"), "{}", ran.stderr);
}

#[test]
fn flags_and_environment_lie_over_the_file_in_that_order() {
    let home = Home::configured();
    let mut command =
        home.command(&["check", "--config", "veilgate.yaml", "--json", "--shards", "3"]);
    command.env("VEILGATE_SHARDS", "2").env("VEILGATE_UDP", "127.0.0.1:4000");
    let output = command.output().unwrap();
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["config"]["shards"], "3");
    assert_eq!(report["config"]["listen"]["udp"], serde_json::json!(["127.0.0.1:4000"]));
    let open = ["check", "--config", "veilgate.yaml", "--metrics", "0.0.0.0:9641"];
    let ran = home.run(&open).expect(78);
    assert!(ran.stderr.contains("--metrics: must be a loopback address"), "{}", ran.stderr);
}

#[test]
fn missing_and_binary_files_are_told() {
    let home = Home::empty();
    let ran = home.run(&["check", "--config", "gone.yaml"]).expect(78);
    assert!(ran.stderr.contains("gone.yaml: cannot be read"), "{}", ran.stderr);
    std::fs::write(home.file("b.yaml"), [0xff, 0xfe, 0x00]).unwrap();
    home.run(&["check", "--config", "b.yaml"]).expect(78);
    home.write("t.yaml", "\t: [\n");
    home.run(&["check", "--config", "t.yaml"]).expect(78);
}

#[test]
fn admin_key_and_static_users_are_read_and_never_shown() {
    let home = Home::configured();
    let text = home.read("veilgate.yaml");
    let on = text
        .replace("# plain_rest: false", "plain_rest: true")
        .replace("# static_users_file", "static_users_file");
    home.write("veilgate.yaml", &on);
    home.write("turn.users", "printer:a-long-password-of-ours\ncamera:short\n");
    let admin = home.read("admin.key");
    home.write("admin.key", "too short\n");
    let ran = home.run(&["check", "--config", "veilgate.yaml"]).expect(78);
    for words in
        ["admin.key: an admin key has 32 to 512 characters, not 9", "turn.users:2: the password of"]
    {
        assert!(ran.stderr.contains(words), "{words} in {}", ran.stderr);
    }
    assert!(!ran.stderr.contains("short:"), "{}", ran.stderr);

    home.write("turn.users", "printer:a-long-password-of-ours\n");
    home.write("admin.key", &admin);
    let ran = home.run(&["check", "--config", "veilgate.yaml"]).expect(0);
    for words in
        ["auth.plain_rest: plain names", "static users never expire", "turn.users: others than"]
    {
        assert!(ran.stderr.contains(words), "{words} in {}", ran.stderr);
    }
    for words in ["turn.users (users: 1)", "veilgate.db"] {
        assert!(ran.stdout.contains(words), "{words} in {}", ran.stdout);
    }
    let all = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!all.contains("a-long-password") && !all.contains(admin.trim()), "{all}");
}
