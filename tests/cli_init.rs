//! `veilgate init` writes what a deployment starts from, and overwrites nothing.

mod cli_support;

use std::os::unix::fs::PermissionsExt as _;

use cli_support::Home;

#[test]
fn fresh_folder_gets_configuration_and_private_keys() {
    let home = Home::empty();
    let args = ["init", "conf", "--public-host", "turn.example.org", "--public-ip", "203.0.113.7"];
    let ran = home.run(&args).expect(0);
    let written = "conf/veilgate.yaml\nconf/turn.keys\nconf/token.keys\nconf/admin.key\n";
    assert_eq!(ran.stdout, written);
    let mode = |name: &str| home.file(name).metadata().unwrap().permissions().mode() & 0o777;
    for file in ["conf/turn.keys", "conf/token.keys", "conf/admin.key"] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
    assert_ne!(home.read("conf/turn.keys"), home.read("conf/token.keys"));
    let text = home.read("conf/veilgate.yaml");
    assert!(text.contains("host: turn.example.org") && text.contains("ip: 203.0.113.7"));
    // Only the certificate is left to do.
    let ran = home.run(&["check", "--config", "conf/veilgate.yaml"]).expect(78);
    assert!(ran.stderr.contains("tls.certificate: /etc/letsencrypt"), "{}", ran.stderr);
    assert!(ran.stderr.contains("2 errors"), "{}", ran.stderr);
}

#[test]
fn nothing_that_exists_is_overwritten() {
    let home = Home::empty();
    home.write("token.keys", "mine");
    let ran = home.run(&["init"]).expect(1);
    assert!(ran.stderr.contains("token.keys exists already"), "{}", ran.stderr);
    assert_eq!(home.read("token.keys"), "mine");
    assert!(!home.file("veilgate.yaml").exists() && !home.file("turn.keys").exists());
}

#[test]
fn senseless_name_is_misuse() {
    let home = Home::empty();
    home.run(&["init", "--public-host", "https://x"]).expect(2);
    assert!(!home.file("veilgate.yaml").exists());
}
