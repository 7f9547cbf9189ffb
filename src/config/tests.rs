use std::path::Path;

use proptest::prelude::*;

use super::*;

const SOUND: &str = "\
public:
  host: turn.example.org
  ip: 203.0.113.7
auth:
  turn_keys_file: turn.keys
  token_keys_file: token.keys
tls: { certificate: chain.pem, key: /etc/key.pem }
";

fn read(text: &str, overrides: &Overrides) -> Result<Checked, Vec<Fault>> {
    check(text, "v.yaml", Path::new("/etc/veilgate"), overrides, &|_| Ok(()))
}

fn faults(text: &str) -> Vec<String> {
    read(text, &Overrides::default()).unwrap_err().iter().map(ToString::to_string).collect()
}

#[test]
fn sound_file_gets_its_defaults() {
    let checked = read(SOUND, &Overrides::default()).unwrap();
    assert_eq!(checked.warnings, []);
    let config = checked.config;
    assert_eq!(config.listen.udp, ["0.0.0.0:3478".parse().unwrap()]);
    assert_eq!(config.listen.https, ["0.0.0.0:443".parse().unwrap()]);
    assert_eq!(config.listen.metrics, "127.0.0.1:9641".parse().unwrap());
    assert_eq!(config.media.port, 20_000);
    assert_eq!(config.relay.realm, "turn.example.org");
    assert_eq!(config.relay.urls, relay_urls("turn.example.org", &[3478], 443));
    assert_eq!(config.relay.limits, Limits::default());
    assert_eq!(config.auth.turn_keys, KeySource::File("/etc/veilgate/turn.keys".into()));
    assert_eq!(config.tls.key, Path::new("/etc/key.pem"));
    assert_eq!(config.auth.credential_ttl, Duration::from_secs(600));
    assert_eq!(config.auth.session_limit, Duration::from_secs(43_200));
    assert_eq!((config.auth.admin_key, config.auth.static_users), (None, None));
    assert!(!config.auth.plain_rest);
    assert_eq!(config.store.path, Path::new("/etc/veilgate/veilgate.db"));
    assert_eq!((config.shards, config.log), (Shards::Auto, Log::default()));
}

#[test]
fn documented_file_is_sound_and_says_the_defaults() {
    let document = include_str!("../../docs/config.md");
    let (_, rest) = document.split_once("```yaml\n").unwrap();
    let (example, _) = rest.split_once("```").unwrap();
    let minimal = SOUND
        .replace("chain.pem", "/etc/letsencrypt/live/turn.example.org/fullchain.pem")
        .replace("/etc/key.pem", "/etc/letsencrypt/live/turn.example.org/privkey.pem");
    let read = |text: &str| read(text, &Overrides::default()).unwrap().config;
    assert_eq!(read(example), read(&minimal));
    for (path, keys) in section::SCHEMA {
        for key in keys {
            let whole = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
            let group = section::SCHEMA.iter().any(|(path, _)| *path == whole);
            assert!(group || document.contains(&format!("`{whole}`")), "{whole}");
        }
    }
}

#[test]
fn every_key_is_read() {
    let text = "\
public: { ip: 203.0.113.7, ip6: '2001:db8::7' }
listen:
  { udp: ['192.0.2.1:443', '[2001:db8::7]:3478'], https: '[::]:8443', metrics: '[::1]:1',
    proxy_from: [10.0.0.0/8, '2001:db8::/32', 192.0.2.7], connections_per_source: 8 }
media: { port: 20001 }
relay:
  realm: my realm
  urls: ['turn:192.0.2.1:443?transport=udp', 'turns:a.example']
  limits:
    { allocations_per_subject: 1, allocations_total: 2, packets_per_second: 3, bits_per_second: 4,
      total_packets_per_second: 5, total_bits_per_second: 5000000000,
      unauthenticated_replies_per_second: 7 }
auth:
  { turn_keys_file: a, token_keys_file: b, credential_ttl: 1m, session_limit: 1h,
    admin_key_file: e, plain_rest: true, static_users_file: f }
store: { path: /var/lib/veilgate/db }
tls: { certificate: c, key: d }
shards: 3
log: { level: debug, format: json }
";
    let checked = read(text, &Overrides::default()).unwrap();
    let about: Vec<_> = checked.warnings.iter().map(|warning| warning.key.as_str()).collect();
    assert_eq!(about, ["public.host", "auth.static_users_file", "auth.plain_rest"]);
    let config = checked.config;
    let udp = ["192.0.2.1:443", "[2001:db8::7]:3478"].map(|address| address.parse().unwrap());
    assert_eq!((config.listen.udp, config.listen.https.len()), (udp.to_vec(), 1));
    assert_eq!(config.listen.https[0], "[::]:8443".parse().unwrap());
    assert_eq!(config.public.ip6, Some("2001:db8::7".parse().unwrap()));
    let proxies = ["10.0.0.0/8", "2001:db8::/32", "192.0.2.7/32"];
    assert_eq!(config.listen.proxy_from, proxies.map(|range| range.parse().unwrap()));
    assert_eq!(config.listen.connections_per_source, 8);
    assert_eq!(config.relay.realm, "my realm");
    assert_eq!(config.relay.urls.len(), 2);
    let limits = Limits {
        allocations_per_subject: 1,
        allocations_total: 2,
        packets_per_second: 3,
        bits_per_second: 4,
        total_packets_per_second: Some(5),
        total_bits_per_second: Some(5_000_000_000),
        unauthenticated_replies_per_second: 7,
        ..Limits::default()
    };
    assert_eq!(config.relay.limits, limits);
    assert_eq!(config.auth.credential_ttl, Duration::from_secs(60));
    assert_eq!(config.auth.admin_key.as_deref(), Some(Path::new("/etc/veilgate/e")));
    assert_eq!(config.auth.static_users.as_deref(), Some(Path::new("/etc/veilgate/f")));
    assert!(config.auth.plain_rest);
    assert_eq!(config.store.path, Path::new("/var/lib/veilgate/db"));
    assert_eq!(config.shards.count(64), 3);
    assert_eq!(config.log, Log { level: Level::Debug, format: Format::Json });
}

#[test]
fn all_faults_are_told_at_once_with_place_and_key() {
    let text = "\
public:
  host: https://turn.example.org
  ip: 300.1.2.3
listen:
  udp: 3478
  metrics: 0.0.0.0:9641
  htps: 0.0.0.0:443
media: { port: 80 }
relay:
  urls: [ 'stun:stun.example.org', 'turn:ok.example' ]
  limits: { allocations_total: many }
auth:
  turn_keys_file: a
  turn_keys_file: b
  credential_ttl: 10
  session_limit: 5s
tls:
  certificate: cert.pem
realm: x
shards: 0
log: loud
";
    assert_eq!(
        faults(text),
        [
            "v.yaml:2:9: public.host: \"https://turn.example.org\" is not a host name, like \
             turn.example.org",
            "v.yaml:3:7: public.ip: \"300.1.2.3\" is not an IPv4 address, like 203.0.113.7",
            "v.yaml:5:8: listen.udp: expected an address and a port, like 0.0.0.0:3478, found a \
             whole number",
            "v.yaml:6:12: listen.metrics: must be a loopback address: it is plain HTTP without \
             login",
            "v.yaml:7:3: listen.htps: unknown key; did you mean \"https\"?",
            "v.yaml:8:16: media.port: 80 is not between 1024 and 65535",
            "v.yaml:10:11: relay.urls[0]: a stun: URL would show clients' addresses: only turn: \
             and turns:",
            "v.yaml:11:32: relay.limits.allocations_total: expected a whole number, found text",
            "v.yaml:12:1: auth.token_keys_file: missing: a file of keys, or the environment \
             variable VEILGATE_TOKEN_KEYS",
            "v.yaml:14:3: auth.turn_keys_file: given twice; first on line 13",
            "v.yaml:15:19: auth.credential_ttl: 10 has no unit: write 10s, 10m or 10h",
            "v.yaml:16:18: auth.session_limit: 5s is not between 1m and 7d",
            "v.yaml:17:1: tls.key: missing: a certificate needs its private key",
            "v.yaml:19:1: realm: unknown key here; did you mean \"relay.realm\"?",
            "v.yaml:20:9: shards: write auto, or a number from 1 to 64",
            "v.yaml:21:6: log: expected a group of keys, found text",
        ]
    );
}

#[test]
fn empty_file_lacks_what_has_no_default() {
    let all = faults("").join("\n");
    for key in
        ["public.ip", "auth.turn_keys_file", "auth.token_keys_file", "tls.certificate", "tls.key"]
    {
        assert!(all.contains(&format!("v.yaml:1:1: {key}: missing")), "{key} in {all}");
    }
    assert_eq!(faults("").len(), 5);
}

#[test]
fn roots_that_are_no_groups_and_broken_yaml_are_told() {
    assert!(faults("- a\n")[0].contains("expected a group of keys, found a list"));
    let broken = faults("public: [\n");
    assert_eq!(broken.len(), 1);
    assert!(broken[0].contains("not valid YAML"), "{broken:?}");
}

#[test]
fn flags_win_over_the_file_and_mend_it() {
    let overrides = Overrides {
        public_ip: Some(Ipv4Addr::new(198, 51, 100, 1)),
        public_host: Some("OTHER.example".to_owned()),
        udp: vec!["198.51.100.1:3479".parse().unwrap()],
        shards: Some("2".parse().unwrap()),
        turn_keys_in_environment: true,
        ..Overrides::default()
    };
    let config = read(SOUND, &overrides).unwrap().config;
    assert_eq!(config.public.ip, Ipv4Addr::new(198, 51, 100, 1));
    assert_eq!(config.relay.urls, relay_urls("other.example", &[3479], 443));
    assert_eq!(config.shards.count(8), 2);
    assert_eq!(config.auth.turn_keys, KeySource::Environment(ENV_TURN_KEYS));

    let without_ip = SOUND.replace("  ip: 203.0.113.7\n", "");
    assert!(read(&without_ip, &overrides).is_ok());
    let open = Overrides { metrics: Some("0.0.0.0:1".parse().unwrap()), ..overrides };
    let faults = read(SOUND, &open).unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "--metrics: must be a loopback address: it is plain HTTP without login"
    );
}

#[test]
fn flags_are_checked_without_a_file() {
    assert_eq!(check_overrides(&Overrides::default()), []);
    let bad = Overrides {
        public_host: Some("a b".to_owned()),
        public_ip: Some(Ipv4Addr::UNSPECIFIED),
        udp: vec!["0.0.0.0:0".parse().unwrap()],
        ..Overrides::default()
    };
    let flags: Vec<_> = check_overrides(&bad).into_iter().map(|fault| fault.key).collect();
    assert_eq!(flags, ["--public-host", "--public-ip", "--udp"]);
}

#[test]
fn files_must_be_readable() {
    let gone = |path: &Path| {
        if path.ends_with("chain.pem") { Err("no such file".to_owned()) } else { Ok(()) }
    };
    let faults = check(SOUND, "v.yaml", Path::new("/etc/veilgate"), &Overrides::default(), &gone)
        .unwrap_err();
    assert_eq!(
        faults[0].to_string(),
        "v.yaml:7:21: tls.certificate: /etc/veilgate/chain.pem cannot be read: no such file"
    );
}

#[test]
fn ipv6_brings_its_own_listeners_and_needs_no_ipv4() {
    let both = SOUND.replace("  ip: ", "  ip6: 2001:db8::7\n  ip: ");
    let config = read(&both, &Overrides::default()).unwrap().config;
    let (udp, https) = (["0.0.0.0:3478", "[2001:db8::7]:3478"], ["0.0.0.0:443", "[::]:443"]);
    assert_eq!(config.listen.udp, udp.map(|address| address.parse().unwrap()));
    assert_eq!(config.listen.https, https.map(|address| address.parse().unwrap()));
    assert_eq!(config.relay.urls, relay_urls("turn.example.org", &[3478], 443));

    let alone = SOUND.replace("  ip: 203.0.113.7", "  ip6: 2001:db8::7");
    let config = read(&alone, &Overrides::default()).unwrap().config;
    assert_eq!(config.public.ip, DUMMY_IP);
    assert_eq!(config.listen.udp, ["[2001:db8::7]:3478".parse().unwrap()]);
    assert_eq!(config.listen.https, ["[::]:443".parse().unwrap()]);

    let nameless = alone.replace("  host: turn.example.org\n", "");
    let config = read(&nameless, &Overrides::default()).unwrap().config;
    assert_eq!(config.relay.urls, relay_urls("[2001:db8::7]", &[3478], 443));
    let said = format!("{nameless}relay: {{ urls: ['{}'] }}\n", config.relay.urls[0]);
    let again = read(&said, &Overrides::default()).unwrap().config;
    assert_eq!(again.relay.urls, config.relay.urls[..1]);
}

#[test]
fn second_udp_port_is_handed_out_too() {
    let text = format!("{SOUND}listen: {{ udp: ['0.0.0.0:3478', '0.0.0.0:443'] }}\n");
    let urls = read(&text, &Overrides::default()).unwrap().config.relay.urls;
    assert_eq!(urls, relay_urls("turn.example.org", &[3478, 443], 443));
    assert_eq!(urls[1], "turn:turn.example.org:443?transport=udp");
    // An address in URLs is of one family, and so are the ports that go with it.
    let nameless = "public: { ip: 203.0.113.7, ip6: '2001:db8::7' }\n\
                    listen: { udp: ['0.0.0.0:3478', '[2001:db8::7]:443'] }\n";
    let (_, rest) = SOUND.split_once("auth:").unwrap();
    let urls = read(&format!("{nameless}auth:{rest}"), &Overrides::default()).unwrap();
    assert_eq!(urls.config.relay.urls, relay_urls("203.0.113.7", &[3478], 443));
}

#[test]
fn listeners_that_cannot_be_are_told_each_at_its_place() {
    for (listen, words) in [
        ("udp: []", "v.yaml:8:1: listen.udp: lists 1 to 8 addresses"),
        (
            "udp: ['1.2.3.4:1', '0.0.0.0:1']",
            "v.yaml:8:30: listen.udp: 0.0.0.0:1 collides with 1.2.3.4:1",
        ),
        ("https: ['[::]:1', '[::1]:1']", "listen.https: [::1]:1 collides with [::]:1"),
        ("udp: ['1.2.3.4:0']", "listen.udp: port 0 cannot be handed out"),
        ("udp: ['1.2.3.4:1', nowhere]", "listen.udp[1]: \"nowhere\" is not an address and"),
        ("proxy_from: 10.0.0.0/33", "listen.proxy_from: \"10.0.0.0/33\" is not a block"),
        ("connections_per_source: 0", "listen.connections_per_source: 0 is not between 1 and"),
        ("proxy_from: ['0.0.0.0/0']", "trusts everybody to say who a client is"),
    ] {
        let found = faults(&format!("{SOUND}listen: {{ {listen} }}\n"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains(words), "{found:?}");
    }
    for ip6 in ["'::'", "ff02::1", "fe80::1", "'::ffff:192.0.2.1'", "192.0.2.1"] {
        let found = faults(&SOUND.replace("  ip: ", &format!("  ip6: {ip6}\n  ip: ")));
        assert!(found.len() == 1 && found[0].starts_with("v.yaml:3:8: public.ip6: "), "{found:?}");
    }
}

#[test]
fn groups_that_contradict_each_other_are_refused() {
    for (change, words) in [
        ("media: { port: 3478 }", "media.port: is the port of listen.udp"),
        ("listen: { https: '127.0.0.1:9641' }", "listen.metrics: is the address of listen.https"),
        ("listen: { udp: '0.0.0.0:0' }", "listen.udp: port 0"),
        ("listen: { udp: '0.0.0.0:20000' }", "media.port: is the port of listen.udp"),
        ("relay: { urls: [] }", "relay.urls: lists 1 to 8"),
        ("relay: { realm: 'a:b' }", "relay.realm: a realm has"),
        ("relay: { realm: '' }", "relay.realm: a realm has"),
    ] {
        let text = format!("{SOUND}{change}\n");
        assert!(faults(&text)[0].contains(words), "{:?}", faults(&text));
    }
    let same = SOUND.replace("token.keys", "turn.keys");
    assert!(faults(&same)[0].contains("whoever mints one"));
    let inverted = SOUND.replace("auth:\n", "auth:\n  credential_ttl: 2h\n  session_limit: 1h\n");
    assert!(faults(&inverted)[0].contains("shorter"));
}

#[test]
fn turn_urls_have_one_form() {
    for (url, sound) in [
        ("turn:a.example", true),
        ("turns:a.example:443?transport=tcp", true),
        ("turn:192.0.2.1:3478?transport=udp", true),
        ("turn:a.example:0", false),
        ("turn://a.example", false),
        ("turn:a.example?transport=dtls", false),
        ("https:a.example", false),
        ("turn:", false),
    ] {
        let text = format!("{SOUND}relay: {{ urls: ['{url}'] }}\n");
        assert_eq!(read(&text, &Overrides::default()).is_ok(), sound, "{url}");
    }
}

#[test]
fn port_among_the_kernels_own_is_worth_a_word() {
    let text = format!("{SOUND}media: {{ port: 40000 }}\n");
    let checked = read(&text, &Overrides::default()).unwrap();
    assert!(
        checked.warnings[0].to_string().contains("v.yaml:8:16: media.port"),
        "{:?}",
        checked.warnings
    );
}

#[test]
fn missing_file_is_one_clear_fault() {
    let faults = load(Path::new("/nonexistent/v.yaml"), &Overrides::default()).unwrap_err();
    assert!(faults[0].to_string().starts_with("/nonexistent/v.yaml: cannot be read"));
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let _ = read(&text, &Overrides::default());
    }

    #[test]
    fn no_yaml_panics(text in "(public|listen|udp|log|shards|tls|[a-z]{1,4}|[0-9]{1,30}|: |\n|  |- |\\[|\\]|\\{|\\}|, |&a |\\*a|!!int |<<|\\||'|\"){0,40}") {
        let _ = read(&text, &Overrides::default());
    }
}
