//! `veilgate bridge` that cannot work says why, and with which exit code, before it serves anybody.
#![allow(clippy::unwrap_used)] // a test may fail

mod cli_support;
mod common;

use cli_support::Home;
use common::bridge::arguments;
use common::{Gateway, veilgate};

/// Runs a bridge in the clients' namespace until it ends by itself: its code and its stderr.
fn ended(gateway: &Gateway, arguments: &[String]) -> (i32, String) {
    let mut command = veilgate();
    let output = gateway.network.as_client(|| command.args(arguments).output()).unwrap();
    assert!(output.stdout.is_empty(), "data of a bridge that never was");
    (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
}

fn replace(arguments: &mut [String], flag: &str, value: &str) {
    let at = arguments.iter().position(|argument| argument == flag).unwrap();
    value.clone_into(&mut arguments[at + 1]);
}

#[test]
fn misuse_ends_with_two_and_names_the_rule() {
    let home = Home::empty();
    home.write("token", "abc\n");
    let gateway = ["--gateway", "https://turn.example.org", "--token-file", "token"];
    let with = |more: &[&'static str]| [&["bridge"], &gateway[..], more].concat();
    for (args, told) in [
        (vec!["bridge"], "--gateway"),
        (vec!["bridge", "--gateway", "http://turn.example.org"], "https://"),
        (vec!["bridge", "--gateway", "https://me:secret@turn.example.org"], "https://"),
        (vec!["bridge", "--gateway", "https://turn.example.org/a"], "https://"),
        (with(&["--listen", "0.0.0.0:8889"]), "loopback only"),
        (with(&["--listen", "[::]:8889"]), "loopback only"),
        (with(&["--listen", "192.0.2.2:8889"]), "loopback only"),
        (with(&["--listen", "8889"]), "not like 127.0.0.1:8889"),
        (with(&["--media-ip", "203.0.113.77"]), "not an address of this machine"),
        (with(&["--silence", "0s"]), "--silence"),
        (with(&["--transport", "sctp"]), "udp, tcp, tls"),
    ] {
        let ran = home.run(&args).expect(2);
        assert!(ran.stderr.contains(told), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("secret"), "{}", ran.stderr);
    }
}

#[test]
fn files_that_cannot_be_used_end_with_seventy_eight() {
    let home = Home::empty();
    home.write("token", "abc\n");
    home.write("empty", "\n");
    home.write("words", "two words\n");
    let gateway = ["bridge", "--gateway", "https://127.0.0.1:1"];
    for (more, told) in [
        (&["--token-file", "gone"][..], "--token-file: cannot read gone"),
        (&["--token-file", "."], "--token-file: cannot read ."),
        (&["--token-file", "empty"], "--token-file: empty does not hold a token"),
        (&["--token-file", "words"], "--token-file: words does not hold a token"),
        (&["--token-file", "token", "--ca", "gone"], "--ca: gone cannot be used"),
        (&["--token-file", "token", "--ca", "token"], "--ca: token cannot be used"),
    ] {
        let ran = home.run(&[&gateway, more].concat()).expect(78);
        assert!(ran.stderr.starts_with(told), "{more:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("two words"), "{}", ran.stderr);
    }
}

#[test]
fn gateway_that_is_not_there_ends_with_one() {
    let home = Home::empty();
    home.write("token", "abc\n");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("https://127.0.0.1:{port}");
    let args = ["bridge", "--gateway", &url, "--token-file", "token", "--listen", "127.0.0.1:0"];
    let ran = home.run(&args).expect(1);
    let told = format!("the gateway: not reachable on TCP {port}");
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
    assert!(!ran.stderr.contains("abc"), "{}", ran.stderr);
    // Without a token of its own, too.
    let ran = home.run(&["bridge", "--gateway", &url, "--listen", "127.0.0.1:0"]).expect(1);
    assert!(ran.stderr.contains(&told), "{}", ran.stderr);
}

#[test]
fn wrong_authority_and_a_token_that_is_refused_end_with_one() {
    let gateway = Gateway::start(1);
    let mut wrong = arguments(&gateway, "not.a.token");
    let (code, told) = ended(&gateway, &wrong);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("refuses the token with 401"), "{told}");
    assert!(!told.contains("not.a.token"), "{told}");

    let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
    let file = gateway.folder().join("other.pem");
    std::fs::write(&file, other.cert.pem()).unwrap();
    replace(&mut wrong, "--ca", file.to_str().unwrap());
    let (code, told) = ended(&gateway, &wrong);
    assert_eq!(code, 1, "{told}");
    assert!(told.contains("certificate") && told.contains("--ca FILE"), "{told}");
}
