//! Commands that ask a running gateway, through its REST API.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::Args;
use reqwest::{Certificate, Client, Url, redirect};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Failure;
use super::keys::StateArgs;
use crate::app::{dev, keys};

/// A gateway answers within this, or does not.
const PATIENCE: Duration = Duration::from_secs(30);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1024 * 1024;

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Through a running gateway")]
pub(super) struct RemoteArgs {
    /// Ask the gateway at this address, like https://turn.example.org
    #[arg(long, value_name = "URL", env = "VEILGATE_GATEWAY")]
    gateway: Option<String>,

    /// The file with its admin key: a copy of its auth.admin_key_file
    #[arg(long, value_name = "FILE", env = "VEILGATE_ADMIN_KEY_FILE")]
    key_file: Option<PathBuf>,

    /// Trust this certificate authority (PEM), and no other [default: those of the system]
    #[arg(long, value_name = "FILE", env = "VEILGATE_CA")]
    ca: Option<PathBuf>,
}

/// A gateway and the right to ask it.
pub(super) struct Remote {
    base: String,
    key: String,
    client: Client,
    runtime: tokio::runtime::Runtime,
}

/// RFC 9457, as far as we say it.
#[derive(Deserialize)]
struct Problem {
    code: String,
    detail: String,
}

impl RemoteArgs {
    /// The gateway asked for, if one is.
    pub(super) fn given(&self) -> Result<Option<Remote>, Failure> {
        let Some(gateway) = &self.gateway else { return Ok(None) };
        let Some(key_file) = &self.key_file else {
            return Err(Failure::Usage("--gateway needs --key-file".to_owned()));
        };
        Remote::new(gateway, key_file, self.ca.as_deref()).map(Some)
    }

    /// The gateway asked for, else the development gateway.
    pub(super) fn given_or_development(&self, state: &StateArgs) -> Result<Remote, Failure> {
        if let Some(remote) = self.given()? {
            return Ok(remote);
        }
        let folder = state.directory()?;
        let gateway = dev::read_gateway(&folder).with_context(|| {
            format!(
                "no --gateway is given, and no development gateway has left its note in {}",
                folder.display()
            )
        })?;
        Remote::new(&gateway.page, &dev::admin_key(&folder), Some(&gateway.ca))
    }
}

impl Remote {
    fn new(
        gateway: &str,
        key_file: &std::path::Path,
        ca: Option<&std::path::Path>,
    ) -> Result<Self, Failure> {
        let usage =
            || Failure::Usage(format!("\"{gateway}\" is not like https://turn.example.org:443"));
        let url: Url = gateway.parse().map_err(|_| usage())?;
        // The key must never travel in the clear, nor to whatever an address may hide.
        let plain = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        if url.scheme() != "https" || !plain || url.fragment().is_some() {
            return Err(usage());
        }
        let key = keys::read_admin_text(key_file).map_err(Failure::Config)?;
        let mut client = Client::builder()
            .https_only(true)
            .redirect(redirect::Policy::none())
            .timeout(PATIENCE)
            .user_agent(concat!("veilgate/", env!("CARGO_PKG_VERSION")));
        if let Some(ca) = ca {
            let pem =
                std::fs::read(ca).with_context(|| format!("{} cannot be read", ca.display()))?;
            let roots = Certificate::from_pem_bundle(&pem).map_err(|error| anyhow!(error))?;
            if roots.is_empty() {
                return Err(anyhow!("{} holds no certificate", ca.display()).into());
            }
            client = client.tls_certs_only(roots);
        }
        let client = client.build().map_err(|error| anyhow!(error))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { base: url.as_str().trim_end_matches('/').to_owned(), key, client, runtime })
    }

    /// `POST`s JSON.
    pub(super) fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let request = self.client.post(format!("{}{path}", self.base));
        let request = request.bearer_auth(&self.key).json(body);
        let (status, text) = self
            .runtime
            .block_on(async {
                let mut response = request.send().await?;
                let mut text = Vec::new();
                while let Some(chunk) = response.chunk().await? {
                    if text.len() + chunk.len() > MAX_ANSWER {
                        break;
                    }
                    text.extend_from_slice(&chunk);
                }
                Ok((response.status(), text))
            })
            .map_err(|error: reqwest::Error| {
                anyhow!(error.without_url()).context(format!("{} does not answer", self.base))
            })?;
        if !status.is_success() {
            let told = match serde_json::from_slice::<Problem>(&text) {
                Ok(problem) => format!("{} ({})", problem.detail, problem.code),
                Err(_) => format!("status {status}; is this a veilgate?"),
            };
            return Err(anyhow!("{} refuses: {told}", self.base).into());
        }
        serde_json::from_slice(&text).map_err(|error| {
            anyhow!(error).context(format!("{} answers what is not understood", self.base)).into()
        })
    }
}
