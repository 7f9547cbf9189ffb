//! The tables, and how an older file becomes a newer one.

use rusqlite::{Connection, TransactionBehavior};

/// `PRAGMA application_id`: "veil".
const APPLICATION: i32 = i32::from_be_bytes(*b"veil");

/// Each brings the file one version on. Never change one that was released: add another.
const MIGRATIONS: &[&str] = &["
    CREATE TABLE revocations (
        id         INTEGER PRIMARY KEY AUTOINCREMENT,
        kind       TEXT NOT NULL CHECK (kind IN ('username', 'subject', 'room')),
        value      BLOB NOT NULL,
        not_before INTEGER NOT NULL,
        expires    INTEGER NOT NULL,
        reason     TEXT,
        made_at    INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX revocations_by_expiry ON revocations (expires);
"];

pub(super) enum Error {
    /// Not our file, or of a version we do not know.
    Foreign(String),
    Sqlite(rusqlite::Error),
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// Brings the file to the current version, whole or not at all.
pub(super) fn migrate(connection: &mut Connection) -> Result<(), Error> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let pragma = |name: &str| {
        transaction.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0))
    };
    let (application, version) = (pragma("application_id")?, pragma("user_version")?);
    let tables: i64 =
        transaction.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let fresh = application == 0 && version == 0 && tables == 0;
    if !fresh && application != i64::from(APPLICATION) {
        return Err(Error::Foreign("is a database of another program".to_owned()));
    }
    let done = usize::try_from(version).unwrap_or(usize::MAX);
    let Some(due) = MIGRATIONS.get(done..) else {
        return Err(Error::Foreign(format!(
            "was written by a newer veilgate (schema {version}, this one knows {})",
            MIGRATIONS.len()
        )));
    };
    for migration in due {
        transaction.execute_batch(migration)?;
    }
    if !due.is_empty() {
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        transaction.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
    }
    Ok(transaction.commit()?)
}
