//! Running the real binary in an environment of its own.
#![allow(dead_code, clippy::unwrap_used)] // each test file uses what it needs, and may fail

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;
use veilgate::app::dev::{self, DevInfo};
use veilgate::config::Overrides;
use veilgate::time::Unix;

/// A folder with a home, and maybe what a development gateway left there.
pub(crate) struct Home {
    folder: TempDir,
}

/// What a command did.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }

    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }
}

impl Home {
    pub(crate) fn empty() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// As `serve --dev` leaves it once its sockets are bound.
    pub(crate) fn after_dev() -> (Self, DevInfo) {
        let home = Self::empty();
        let overrides =
            Overrides { public_ip: Some("127.0.0.1".parse().unwrap()), ..Overrides::default() };
        let state = home.path().join(".local/state/veilgate");
        let now = Unix::from_secs(1_780_000_000);
        let (_, info) =
            dev::prepare(&state, &home.path().join("certs/dev"), &overrides, now).unwrap();
        info.announce().unwrap();
        (home, info)
    }

    /// A folder with a whole configuration that stands: `veilgate.yaml`, keys, a certificate.
    pub(crate) fn configured() -> Self {
        let (home, _) = Self::after_dev();
        home.run(&["init", ".", "--public-host", "turn.example.org", "--public-ip", "203.0.113.7"])
            .expect(0);
        let text = home.read("veilgate.yaml");
        let live = "/etc/letsencrypt/live/turn.example.org";
        let text = text
            .replace(&format!("{live}/fullchain.pem"), "certs/dev/server.pem")
            .replace(&format!("{live}/privkey.pem"), "certs/dev/server.key");
        home.write("veilgate.yaml", &text);
        home
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.file(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        std::fs::write(self.file(name), text).unwrap();
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_veilgate"));
        command.args(args).current_dir(self.path()).env_clear().env("HOME", self.path());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    pub(crate) fn run_with_stdin(&self, args: &[&str], stdin: &str) -> Ran {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A command that refuses before it reads closes the pipe: no failure of the test.
        let _ = child.stdin.take().unwrap().write_all(stdin.as_bytes());
        ran(child.wait_with_output().unwrap())
    }
}

fn ran(output: Output) -> Ran {
    Ran {
        code: output.status.code().expect("ended by itself"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
