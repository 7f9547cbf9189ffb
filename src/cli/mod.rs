//! The command line: one file a command. Data goes to stdout, talk to stderr.
//!
//! Exit codes: 0 done, 1 no (a refusal or a failure), 2 misuse of the command line, 78 a
//! configuration that cannot be used (`EX_CONFIG` of sysexits). A reader of stdout that went away
//! is no failure.

mod bridge;
mod check;
mod init;
mod keys;
mod out;
mod probe;
mod remote;
mod serve;
mod token;
mod turn;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use clap::{Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

pub use out::plain as print;
pub use serve::ServePlan;

use crate::config::{ENV_TOKEN_KEYS, ENV_TURN_KEYS, Fault, Overrides, Shards};
use crate::time::Unix;

/// A refusal or a failure.
pub const EXIT_NO: u8 = 1;
/// Misuse of the command line.
pub const EXIT_USAGE: u8 = 2;
/// A configuration that cannot be used.
pub const EXIT_CONFIG: u8 = 78;

/// What to do after the command line was read.
#[derive(Debug)]
pub enum Outcome {
    /// All is done: end with this code.
    Exit(u8),
    /// Run the gateway.
    Serve(Box<ServePlan>),
}

/// Why a command did not do its work.
#[derive(Debug)]
enum Failure {
    /// Told already; only the exit code is left.
    Told(u8),
    /// A refusal or a failure.
    No(anyhow::Error),
    /// Misuse of the command line.
    Usage(String),
    /// A configuration that cannot be used.
    Config(Vec<Fault>),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::No(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::No(error.into())
    }
}

type Done = Result<(), Failure>;

#[derive(Parser)]
#[command(
    name = "veilgate",
    version,
    about = "A WebRTC gateway whose TURN relay is the only door: nobody learns anybody's address",
    long_about = "\
A WebRTC media gateway whose TURN relay is the only door.

A browser gets a short-lived TURN credential and a publish or play token, opens a TURN allocation \
here, and everything it sends reaches, inside this same process, a forwarder that has no socket \
of its own. One UDP port and one TCP port are open, nothing else, and nobody can see, learn or \
reach anybody's address.",
    after_long_help = "\
FIRST STEPS
  veilgate serve --dev                     try it on this machine
  veilgate init /etc/veilgate              write a configuration and fresh keys
  veilgate check --config veilgate.yaml    explain a configuration
  veilgate serve --config veilgate.yaml    run it
  veilgate probe --config veilgate.yaml    see from outside that it relays, and only where it may

EXIT STATUS
  0   done
  1   no: refused, not valid, or failed
  2   the command line was misused
  78  the configuration cannot be used

Data goes to stdout, talk to stderr. Secrets are read from files or the environment, never from \
arguments.",
    disable_help_subcommand = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Serve(serve::ServeArgs),
    Check(check::CheckArgs),
    Init(init::InitArgs),
    #[command(subcommand)]
    Turn(turn::TurnCommand),
    #[command(subcommand)]
    Token(token::TokenCommand),
    Probe(probe::ProbeArgs),
    Bridge(bridge::BridgeArgs),
}

/// Settings that lie over the configuration file.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Settings that win over the file")]
struct OverrideArgs {
    /// IPv4 address under which clients reach this gateway
    #[arg(long, value_name = "IP", env = "VEILGATE_PUBLIC_IP")]
    public_ip: Option<Ipv4Addr>,

    /// IPv6 address under which clients reach this gateway
    #[arg(long, value_name = "IP", env = "VEILGATE_PUBLIC_IP6")]
    public_ip6: Option<Ipv6Addr>,

    /// Host name in handed-out URLs and in the certificate
    #[arg(long, value_name = "NAME", env = "VEILGATE_PUBLIC_HOST")]
    public_host: Option<String>,

    /// Where TURN listens; several with commas between
    #[arg(long, value_name = "IP:PORT", env = "VEILGATE_UDP", value_delimiter = ',')]
    udp: Vec<SocketAddr>,

    /// Where HTTPS listens, and TURN over TLS and TCP; several with commas between
    #[arg(long, value_name = "IP:PORT", env = "VEILGATE_HTTPS", value_delimiter = ',')]
    https: Vec<SocketAddr>,

    /// Where metrics and health listen: plain HTTP, loopback only
    #[arg(long, value_name = "IP:PORT", env = "VEILGATE_METRICS")]
    metrics: Option<SocketAddr>,

    /// Number of data-plane threads, or auto: one a core
    #[arg(long, value_name = "N", env = "VEILGATE_SHARDS")]
    shards: Option<Shards>,
}

impl OverrideArgs {
    fn overrides(&self) -> Overrides {
        Overrides {
            public_ip: self.public_ip,
            public_ip6: self.public_ip6,
            public_host: self.public_host.clone(),
            udp: self.udp.clone(),
            https: self.https.clone(),
            metrics: self.metrics,
            shards: self.shards,
            turn_keys_in_environment: std::env::var_os(ENV_TURN_KEYS).is_some(),
            token_keys_in_environment: std::env::var_os(ENV_TOKEN_KEYS).is_some(),
        }
    }
}

/// The environment alone, for commands that have no such flags.
#[derive(Parser)]
#[command(name = "veilgate", no_binary_name = true)]
struct Environment {
    #[command(flatten)]
    args: OverrideArgs,
}

fn environment() -> Result<Overrides, Failure> {
    Environment::try_parse_from(Vec::<OsString>::new())
        .map(|environment| environment.args.overrides())
        .map_err(|error| Failure::Usage(error.to_string()))
}

/// Commands read the clock once, when they start.
#[allow(clippy::disallowed_methods)]
fn unix_now() -> Unix {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    Unix::from_micros(u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX))
}

/// Reads the command line and does what it says, but for running the gateway itself.
#[must_use]
pub fn run(args: impl IntoIterator<Item = OsString>) -> Outcome {
    let matches = Cli::command().try_get_matches_from(args);
    let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => {
            let code = u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE);
            return Outcome::Exit(match error.print() {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => EXIT_NO,
                _ => code,
            });
        }
    };
    let done = match cli.command {
        Command::Serve(args) => match serve::plan(&args) {
            Ok(plan) => return Outcome::Serve(Box::new(plan)),
            Err(failure) => Err(failure),
        },
        Command::Check(args) => check::run(&args),
        Command::Init(args) => init::run(&args),
        Command::Turn(command) => turn::run(&command),
        Command::Token(command) => token::run(&command),
        Command::Probe(args) => probe::run(&args),
        Command::Bridge(args) => bridge::run(&args),
    };
    Outcome::Exit(match done {
        Ok(()) => 0,
        Err(failure) => tell(failure),
    })
}

/// Tells a failure on stderr; its exit code.
fn tell(failure: Failure) -> u8 {
    let mut stderr = io::stderr().lock();
    // There is nowhere to tell that stderr is gone.
    match failure {
        Failure::Told(code) => code,
        Failure::No(error) => {
            let pipe = error
                .downcast_ref::<io::Error>()
                .is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe);
            if pipe {
                return 0;
            }
            let _ = writeln!(stderr, "veilgate: {error:#}");
            EXIT_NO
        }
        Failure::Usage(message) => {
            let message = message.trim_end();
            let message = message.strip_prefix("error: ").unwrap_or(message);
            let _ = writeln!(stderr, "veilgate: {message}\nTry: veilgate --help");
            EXIT_USAGE
        }
        Failure::Config(faults) => {
            for fault in &faults {
                let _ = writeln!(stderr, "{fault}");
            }
            EXIT_CONFIG
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_tree_is_sound() {
        Cli::command().debug_assert();
        Environment::command().debug_assert();
    }
}
