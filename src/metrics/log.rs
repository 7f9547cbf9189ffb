//! Log set-up. Values that identify a person are kept out by type (`ClientAddr` does not print).

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

/// How log lines look.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging to standard error. `filter` is a `tracing` directive such as `info` or
/// `veilgate=debug`. A second call in one process changes nothing.
///
/// # Errors
/// When `filter` is not a directive.
pub fn init_log(filter: &str, format: LogFormat) -> Result<(), ParseError> {
    let filter: EnvFilter = filter.parse()?;
    let base = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // `try_init` fails only when a subscriber is already there, which is what we want to keep.
    let _already_set = match format {
        LogFormat::Text => base.with_target(false).compact().try_init(),
        LogFormat::Json => base.json().try_init(),
    };
    Ok(())
}
