//! `veilgate serve`: prepares everything the gateway runs with.

use std::path::PathBuf;

use clap::Args;

use super::keys::StateArgs;
use super::{Failure, OverrideArgs, out, unix_now};
use crate::app::dev::{self, DevInfo};
use crate::app::keys::{self, Secrets};
use crate::config::{self, Config};

/// Run the gateway
#[derive(Args)]
#[command(
    long_about = "\
Run the gateway, from a configuration file or, to try it, with --dev.

With --dev a certificate authority and a server certificate are made under certs/dev/, random \
secrets in the state directory, and the machine's primary interface address is bound and handed \
out (loopback when there is no other). The mint commands find these secrets by themselves.",
    after_long_help = "\
EXAMPLES
  veilgate serve --dev
  veilgate serve --dev --public-ip 192.0.2.10 --shards 2
  veilgate serve --config /etc/veilgate/veilgate.yaml

ENVIRONMENT
  VEILGATE_TURN_KEYS, VEILGATE_TOKEN_KEYS   the text of a key file, instead of the file
  Options name their own variables above. The command line wins, then the environment, then the \
file."
)]
pub(super) struct ServeArgs {
    /// The configuration file [env: VEILGATE_CONFIG]
    #[arg(long, value_name = "FILE", conflicts_with = "dev")]
    config: Option<PathBuf>,

    /// Development: own certificates, random secrets, no file needed
    #[arg(long)]
    dev: bool,

    #[command(flatten)]
    state: StateArgs,

    /// Where --dev keeps its certificates
    #[arg(long, value_name = "DIR", env = "VEILGATE_CERTS_DIR", default_value = "certs/dev")]
    certs_dir: PathBuf,

    /// Seed of all randomness that is not cryptographic, to repeat a run
    #[arg(long, value_name = "N", env = "VEILGATE_RNG_SEED", hide = true)]
    rng_seed: Option<u64>,

    #[command(flatten)]
    overrides: OverrideArgs,
}

/// Everything the gateway runs with, checked.
#[derive(Clone, Debug)]
pub struct ServePlan {
    /// The checked configuration.
    pub config: Config,
    /// Keys and users.
    pub secrets: Secrets,
    /// Set in development; its [`DevInfo::announce`] is due once the sockets are bound.
    pub dev: Option<DevInfo>,
    /// Seed of randomness that is not cryptographic, to repeat a run.
    pub rng_seed: Option<u64>,
}

pub(super) fn plan(args: &ServeArgs) -> Result<ServePlan, Failure> {
    let overrides = args.overrides.overrides();
    // Not left to clap: --dev wins over the variable, and only collides with the option.
    let variable = std::env::var_os("VEILGATE_CONFIG").filter(|path| !path.is_empty());
    let file = args.config.clone().or_else(|| variable.map(PathBuf::from));
    let (config, dev) = match (&file, args.dev) {
        (Some(path), false) => {
            let checked = config::load(path, &overrides).map_err(Failure::Config)?;
            for warning in &checked.warnings {
                out::talk(&format!("warning: {warning}"));
            }
            (checked.config, None)
        }
        (_, true) => {
            let faults = config::check_overrides(&overrides);
            if !faults.is_empty() {
                return Err(Failure::Config(faults));
            }
            let state = args.state.directory()?;
            let (config, info) = dev::prepare(&state, &args.certs_dir, &overrides, unix_now())?;
            (config, Some(info))
        }
        (None, false) => {
            return Err(Failure::Usage("serve needs --config FILE, or --dev to try it".to_owned()));
        }
    };
    let secrets = keys::read_all(&config.auth).map_err(Failure::Config)?;
    for warning in &secrets.warnings {
        out::talk(&format!("warning: {warning}"));
    }
    Ok(ServePlan { config, secrets, dev, rng_seed: args.rng_seed })
}
