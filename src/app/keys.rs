//! Secrets from files and environment variables, with every fault and its line.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::auth::admin::{self, AdminKey};
use crate::auth::secret::{self, Key};
use crate::auth::static_users::StaticUsers;
use crate::config::{Auth, Fault, KeySource};

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

/// What a secret file holds, and a warning when others than the owner may read it.
struct Read {
    text: String,
    warning: Option<Fault>,
}

fn fault(name: &str, line: u64, message: String) -> Fault {
    let key = String::new();
    Fault { file: Some(name.to_owned()), line, column: 0, key, message }
}

fn read_file(path: &Path) -> Result<Read, Vec<Fault>> {
    let name = path.display().to_string();
    let unreadable =
        |error: std::io::Error| vec![fault(&name, 0, format!("cannot be read: {error}"))];
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.permissions().mode();
    let warning = (mode & 0o077 != 0)
        .then(|| fault(&name, 0, format!("others than its owner may read it: chmod 600 {name}")));
    let mut text = String::new();
    let length = file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(unreadable)?;
    if length as u64 > MAX_FILE {
        return Err(vec![fault(&name, 0, "is larger than 256 KiB".to_owned())]);
    }
    Ok(Read { text, warning })
}

fn faults(name: &str, found: Vec<secret::LineFault>) -> Vec<Fault> {
    found.into_iter().map(|found| fault(name, found.line as u64, found.message)).collect()
}

/// Reads the ring at `source`.
///
/// # Errors
/// Every fault found; none repeats a secret.
pub fn read(source: &KeySource) -> Result<Ring, Vec<Fault>> {
    let name = source.to_string();
    let Read { text, warning } = match source {
        KeySource::Environment(variable) => {
            let unset = |_| vec![fault(&name, 0, "is not set, or not UTF-8".to_owned())];
            Read { text: std::env::var(variable).map_err(unset)?, warning: None }
        }
        KeySource::File(path) => read_file(path)?,
    };
    match secret::parse_ring(&text) {
        Ok(keys) => Ok(Ring { keys, warning }),
        Err(found) => Err(faults(&name, found)),
    }
}

/// Reads the admin key in a file; with it, maybe a warning.
///
/// # Errors
/// Every fault found; none repeats the key.
pub fn read_admin(path: &Path) -> Result<(AdminKey, Option<Fault>), Vec<Fault>> {
    let Read { text, warning } = read_file(path)?;
    let name = path.display().to_string();
    let key = AdminKey::read(&text).map_err(|error| vec![fault(&name, 0, error.to_string())])?;
    Ok((key, warning))
}

/// Reads the admin key in a file in the clear, for who has to present it.
///
/// # Errors
/// Every fault found; none repeats the key.
pub fn read_admin_text(path: &Path) -> Result<String, Vec<Fault>> {
    let Read { text, .. } = read_file(path)?;
    let name = path.display().to_string();
    match admin::check(&text) {
        Ok(key) => Ok(key.to_owned()),
        Err(error) => Err(vec![fault(&name, 0, error.to_string())]),
    }
}

/// Reads the static users in a file; with them, maybe a warning.
///
/// # Errors
/// Every fault found; none repeats a password.
pub fn read_users(path: &Path) -> Result<(StaticUsers, Option<Fault>), Vec<Fault>> {
    let Read { text, warning } = read_file(path)?;
    let name = path.display().to_string();
    let users = StaticUsers::parse(&text).map_err(|found| faults(&name, found))?;
    Ok((users, warning))
}

/// Everything secret a gateway runs with.
#[derive(Clone, Debug)]
pub struct Secrets {
    /// The TURN key ring, never empty.
    pub turn_keys: Vec<Key>,
    /// The token key ring, never empty.
    pub token_keys: Vec<Key>,
    /// The admin key.
    pub admin: Option<AdminKey>,
    /// Long-lived TURN users.
    pub users: StaticUsers,
    /// About files that others may read.
    pub warnings: Vec<Fault>,
}

/// Reads every secret a configuration names.
///
/// # Errors
/// Every fault of every file.
pub fn read_all(auth: &Auth) -> Result<Secrets, Vec<Fault>> {
    let mut found = Vec::new();
    let turn = read(&auth.turn_keys).map_err(|faults| found.extend(faults));
    let token = read(&auth.token_keys).map_err(|faults| found.extend(faults));
    let admin = auth.admin_key.as_deref().map(read_admin).transpose();
    let admin = admin.map_err(|faults| found.extend(faults));
    let users = auth.static_users.as_deref().map(read_users).transpose();
    let users = users.map_err(|faults| found.extend(faults));
    let (Ok(turn), Ok(token), Ok(admin), Ok(users)) = (turn, token, admin, users) else {
        return Err(found);
    };
    let (admin, admin_warning) = admin.unzip();
    let (users, users_warning) = users.unzip();
    let warnings = [turn.warning, token.warning, admin_warning.flatten(), users_warning.flatten()];
    Ok(Secrets {
        turn_keys: turn.keys,
        token_keys: token.keys,
        admin,
        users: users.unwrap_or_default(),
        warnings: warnings.into_iter().flatten().collect(),
    })
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
