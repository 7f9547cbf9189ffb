//! Key rings from files and environment variables, with every fault and its line.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;

use crate::auth::secret::{self, Key};
use crate::config::{Fault, KeySource};

/// A ring that was read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Ring {
    /// The first mints, all verify.
    pub keys: Vec<Key>,
    /// Set when others than the owner may read the file.
    pub warning: Option<Fault>,
}

/// Largest key file, in bytes.
const MAX_FILE: u64 = 256 * 1024;

/// Reads the ring at `source`.
///
/// # Errors
/// Every fault found; none repeats a secret.
pub fn read(source: &KeySource) -> Result<Ring, Vec<Fault>> {
    let name = source.to_string();
    let fault = |line: u64, message: String| Fault {
        file: Some(name.clone()),
        line,
        column: 0,
        key: String::new(),
        message,
    };
    let mut warning = None;
    let text = match source {
        KeySource::Environment(variable) => std::env::var(variable)
            .map_err(|_| vec![fault(0, "is not set, or not UTF-8".to_owned())])?,
        KeySource::File(path) => {
            let unreadable =
                |error: std::io::Error| vec![fault(0, format!("cannot be read: {error}"))];
            let file = File::open(path).map_err(unreadable)?;
            let mode = file.metadata().map_err(unreadable)?.permissions().mode();
            if mode & 0o077 != 0 {
                let message = format!("others than its owner may read it: chmod 600 {name}");
                warning = Some(fault(0, message));
            }
            let mut text = String::new();
            let length = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
            if length as u64 > MAX_FILE {
                return Err(vec![fault(0, "is larger than 256 KiB".to_owned())]);
            }
            text
        }
    };
    match secret::parse_ring(&text) {
        Ok(keys) => Ok(Ring { keys, warning }),
        Err(faults) => {
            Err(faults.into_iter().map(|found| fault(found.line as u64, found.message)).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_carry_file_and_line_and_open_files_a_warning() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("turn.keys");
        std::fs::write(&path, "# x\nk1:AAAA\n").unwrap();
        let faults = read(&KeySource::File(path.clone())).unwrap_err();
        let text = faults[0].to_string();
        assert!(text.starts_with(&format!("{}:2: the secret of key", path.display())), "{text}");

        std::fs::write(&path, "k1:AAAAAAAAAAAAAAAAAAAAAAAA\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        let ring = read(&KeySource::File(path.clone())).unwrap();
        assert!(ring.warning.unwrap().to_string().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read(&KeySource::File(path)).unwrap().warning, None);
    }

    #[test]
    fn missing_file_and_variable_are_told() {
        let gone = read(&KeySource::File("/nonexistent/keys".into())).unwrap_err();
        assert!(gone[0].to_string().starts_with("/nonexistent/keys: cannot be read"), "{gone:?}");
        let unset = read(&KeySource::Environment("VEILGATE_TEST_UNSET")).unwrap_err();
        assert!(unset[0].to_string().starts_with("$VEILGATE_TEST_UNSET: is not set"), "{unset:?}");
    }
}
