//! Exit codes, help, and pipes that close.

mod cli_support;

use std::process::Stdio;

use cli_support::Home;

#[test]
fn misuse_ends_with_two() {
    let home = Home::empty();
    for args in [
        &["nonsense"][..],
        &["serve"],
        &["serve", "--dev", "--config", "x"],
        &["serve", "--shards", "65", "--dev"],
        &["serve", "--udp", "here", "--dev"],
        &["turn", "mint"],
        &["check"],
        &[],
    ] {
        let ran = home.run(args).expect(2);
        assert!(!ran.stderr.is_empty() && ran.stdout.is_empty(), "{args:?}");
    }
    let mut command = home.command(&["check", "--config", "x"]);
    command.env("VEILGATE_SHARDS", "many");
    assert_eq!(command.output().unwrap().status.code(), Some(2));
}

#[test]
fn flags_of_development_are_checked_before_anything_is_made() {
    let home = Home::empty();
    let ran = home.run(&["serve", "--dev", "--metrics", "0.0.0.0:9641"]).expect(78);
    assert!(ran.stderr.starts_with("--metrics: must be a loopback address"), "{}", ran.stderr);
    assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 0);
}

#[test]
fn development_wins_over_a_configuration_of_the_environment() {
    let home = Home::empty();
    let mut command = home.command(&["serve", "--dev", "--metrics", "0.0.0.0:9641"]);
    let output = command.env("VEILGATE_CONFIG", "gone.yaml").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("--metrics"), "{told}");
    let output = home.command(&["serve"]).env("VEILGATE_CONFIG", "gone.yaml").output().unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.starts_with("gone.yaml: cannot be read"), "{told}");
}

#[test]
fn every_command_has_help_with_examples() {
    let home = Home::empty();
    for args in [
        &["serve"][..],
        &["check"],
        &["init"],
        &["turn", "mint"],
        &["turn", "verify"],
        &["turn", "revoke"],
        &["token", "mint"],
        &["token", "verify"],
        &["probe"],
        &["bridge"],
    ] {
        let ran = home.run(&[args, &["--help"]].concat()).expect(0);
        assert!(ran.stdout.contains("EXAMPLES\n  veilgate "), "{args:?}: {}", ran.stdout);
        assert!(!ran.stdout.contains("rng-seed"), "{args:?}");
    }
    let ran = home.run(&["--help"]).expect(0);
    assert!(ran.stdout.contains("FIRST STEPS") && ran.stdout.contains("EXIT STATUS"));
    home.run(&["--version"]).expect(0);
}

#[test]
fn reader_that_went_away_is_no_failure() {
    let (home, _) = Home::after_dev();
    for args in [&["token", "mint", "--play", "a/b"][..], &["--help"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut child = home.command(args).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0), "{args:?}");
    }
}
