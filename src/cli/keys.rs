//! Where the mint and verify commands find their keys.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;

use super::{Failure, out};
use crate::app::{dev, keys};
use crate::auth::token::TokenKeys;
use crate::auth::turn;
use crate::config::{
    self, Config, DEFAULT_CREDENTIAL_TTL, DEFAULT_SESSION_LIMIT, ENV_TOKEN_KEYS, ENV_TURN_KEYS,
    KeySource,
};

#[derive(Args, Clone, Debug)]
pub(super) struct KeyArgs {
    /// Take keys and settings from this configuration; without it from the development gateway
    #[arg(long, value_name = "FILE", env = "VEILGATE_CONFIG")]
    config: Option<PathBuf>,

    #[command(flatten)]
    state: StateArgs,
}

#[derive(Args, Clone, Debug)]
pub(super) struct StateArgs {
    /// Where the development gateway keeps its secrets [default: $XDG_STATE_HOME/veilgate or
    /// ~/.local/state/veilgate]
    #[arg(long, value_name = "DIR", env = "VEILGATE_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

impl StateArgs {
    pub(super) fn directory(&self) -> Result<PathBuf, Failure> {
        self.state_dir.clone().or_else(dev::default_state_dir).ok_or_else(|| {
            Failure::Usage("neither HOME nor XDG_STATE_HOME is set: give --state-dir".to_owned())
        })
    }
}

/// What a command works with.
pub(super) enum Origin {
    Configuration(Box<Config>),
    Development(PathBuf),
}

/// Lifetimes of TURN credentials.
pub(super) struct Lives {
    pub(super) ttl: Duration,
    pub(super) session_limit: Duration,
}

impl KeyArgs {
    /// As if these options had been given.
    pub(super) const fn new(config: Option<PathBuf>, state: StateArgs) -> Self {
        Self { config, state }
    }

    pub(super) fn origin(&self) -> Result<Origin, Failure> {
        match &self.config {
            Some(path) => {
                let checked =
                    config::load(path, &super::environment()?).map_err(Failure::Config)?;
                Ok(Origin::Configuration(Box::new(checked.config)))
            }
            None => Ok(Origin::Development(self.state.directory()?)),
        }
    }
}

impl Origin {
    pub(super) fn turn_keys(&self) -> Result<turn::Keys, Failure> {
        let source = match self {
            Self::Configuration(config) => config.auth.turn_keys.clone(),
            Self::Development(folder) => development(ENV_TURN_KEYS, dev::turn_keys(folder))?,
        };
        let ring = read(&source)?;
        let keys = turn::Keys::new(ring).map_err(|error| Failure::No(error.into()))?;
        let Self::Configuration(config) = self else { return Ok(keys) };
        let users = config.auth.static_users.as_deref().map(keys::read_users).transpose();
        let (users, _) = users.map_err(Failure::Config)?.unwrap_or_default();
        Ok(keys
            .accept_plain_names(config.auth.plain_rest)
            .accept_static_users(users)
            .others_are_external(config.relay.external.as_ref().is_some_and(|it| it.names)))
    }

    pub(super) fn token_keys(&self) -> Result<TokenKeys, Failure> {
        let source = match self {
            Self::Configuration(config) => config.auth.token_keys.clone(),
            Self::Development(folder) => development(ENV_TOKEN_KEYS, dev::token_keys(folder))?,
        };
        let ring = read(&source)?;
        TokenKeys::new(ring).map_err(|error| Failure::No(error.into()))
    }

    /// Whether the external policy is on.
    pub(super) fn is_external(&self) -> bool {
        matches!(self, Self::Configuration(config) if config.relay.external.is_some())
    }

    pub(super) fn lives(&self) -> Lives {
        match self {
            Self::Configuration(config) => {
                Lives { ttl: config.auth.credential_ttl, session_limit: config.auth.session_limit }
            }
            Self::Development(_) => {
                Lives { ttl: DEFAULT_CREDENTIAL_TTL, session_limit: DEFAULT_SESSION_LIMIT }
            }
        }
    }

    /// The media address, where it is known: a configuration has it, and so has the note of a
    /// development gateway that has run.
    pub(super) fn media(&self) -> Option<SocketAddr> {
        match self {
            Self::Configuration(config) => {
                Some(SocketAddr::new(config.public.ip.into(), config.media.port))
            }
            Self::Development(folder) => dev::read_gateway(folder).ok().map(|note| note.media),
        }
    }

    pub(super) fn urls(&self) -> Result<Vec<String>, Failure> {
        match self {
            Self::Configuration(config) => Ok(config.relay.urls.clone()),
            Self::Development(folder) => {
                let gateway = dev::read_gateway(folder).with_context(|| {
                    format!(
                        "the development gateway has left no note in {}; start it with: veilgate \
                         serve --dev",
                        folder.display()
                    )
                })?;
                Ok(gateway.urls)
            }
        }
    }
}

fn development(variable: &'static str, file: KeySource) -> Result<KeySource, Failure> {
    if std::env::var_os(variable).is_some() {
        return Ok(KeySource::Environment(variable));
    }
    if let KeySource::File(path) = &file
        && !path.exists()
    {
        return Err(Failure::No(anyhow!(
            "there is no {}: no development gateway has run with this state directory. Give \
             --config FILE, or start one with: veilgate serve --dev",
            path.display()
        )));
    }
    Ok(file)
}

/// Reads a ring; tells its warning.
fn read(source: &KeySource) -> Result<Vec<turn::Key>, Failure> {
    let ring = keys::read(source).map_err(Failure::Config)?;
    if let Some(warning) = ring.warning {
        out::talk(&format!("warning: {warning}"));
    }
    Ok(ring.keys)
}
