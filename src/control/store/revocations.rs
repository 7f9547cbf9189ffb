//! Revocations on the disk. Values are hashes: the file names nobody.

use rusqlite::types::Type;
use rusqlite::{Connection, Row, TransactionBehavior, params};

use super::{Store, StoreError};
use crate::auth::revocation::{Revocation, Target};
use crate::ids::{CredentialId, RoomHash, SubjectHash};
use crate::time::Unix;

/// Most live revocations: each shard keeps them all in memory, about 100 bytes each.
pub const MAX_REVOCATIONS: u32 = 100_000;
/// Longest reason, in bytes.
pub const MAX_REASON: usize = 200;

/// What is to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewRevocation {
    /// What is revoked, and until when.
    pub revocation: Revocation,
    /// Why, for people; at most [`MAX_REASON`] bytes.
    pub reason: Option<String>,
    /// When it was asked for.
    pub made_at: Unix,
}

/// What was written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Record {
    /// Its number; grows.
    pub id: i64,
    /// What is revoked, and until when.
    pub revocation: Revocation,
    /// Why, for people.
    pub reason: Option<String>,
    /// When it was asked for.
    pub made_at: Unix,
}

const COLUMNS: &str = "id, kind, value, not_before, expires, reason, made_at";

impl Store {
    /// Writes a revocation; when this returns, no crash can lose it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing is written then.
    pub async fn revoke(&self, new: NewRevocation) -> Result<Record, StoreError> {
        self.call(move |connection| insert(connection, new, MAX_REVOCATIONS)).await
    }

    /// All that have not expired. Blocks, and must not be called within a runtime.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn live_revocations(&self, now: Unix) -> Result<Vec<Revocation>, StoreError> {
        self.call_blocking(move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM revocations WHERE expires > ?1");
            let mut statement = connection.prepare(&sql)?;
            let rows = statement.query_map([micros(now)], record)?;
            Ok(rows.map(|row| row.map(|record| record.revocation)).collect::<Result<_, _>>()?)
        })
    }

    /// The newest `limit` that have not expired, those before the number `before` if it is given.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn list_revocations(
        &self,
        now: Unix,
        before: Option<i64>,
        limit: u32,
    ) -> Result<Vec<Record>, StoreError> {
        self.call(move |connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM revocations WHERE expires > ?1 AND id < ?2 \
                 ORDER BY id DESC LIMIT ?3"
            );
            let mut statement = connection.prepare(&sql)?;
            let range = params![micros(now), before.unwrap_or(i64::MAX), limit];
            Ok(statement.query_map(range, record)?.collect::<Result<_, _>>()?)
        })
        .await
    }

    /// Deletes what expired before `then`; says how many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn purge_revocations(&self, then: Unix) -> Result<usize, StoreError> {
        self.call(move |connection| {
            Ok(connection.execute("DELETE FROM revocations WHERE expires <= ?1", [micros(then)])?)
        })
        .await
    }
}

pub(super) fn insert(
    connection: &mut Connection,
    new: NewRevocation,
    most: u32,
) -> Result<Record, StoreError> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let live: u32 = transaction.query_row(
        "SELECT count(*) FROM revocations WHERE expires > ?1",
        [micros(new.made_at)],
        |row| row.get(0),
    )?;
    if live >= most {
        return Err(StoreError::TooMany);
    }
    let (kind, value): (&str, &[u8]) = match &new.revocation.target {
        Target::Credential(id) => ("username", &id.0),
        Target::Subject(subject) => ("subject", &subject.0),
        Target::Room(room) => ("room", &room.0),
    };
    let (not_before, expires) = (new.revocation.not_before, new.revocation.expires);
    transaction.execute(
        "INSERT INTO revocations (kind, value, not_before, expires, reason, made_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![kind, value, micros(not_before), micros(expires), new.reason, micros(new.made_at)],
    )?;
    let id = transaction.last_insert_rowid();
    transaction.commit()?;
    let NewRevocation { revocation, reason, made_at } = new;
    Ok(Record { id, revocation, reason, made_at })
}

/// SQLite's integers are signed; the year 292,000 will do for "never".
fn micros(at: Unix) -> i64 {
    i64::try_from(at.as_micros()).unwrap_or(i64::MAX)
}

fn record(row: &Row<'_>) -> rusqlite::Result<Record> {
    let at = |column| {
        let micros: i64 = row.get(column)?;
        Ok::<_, rusqlite::Error>(Unix::from_micros(u64::try_from(micros).unwrap_or(0)))
    };
    let kind: String = row.get(1)?;
    let value: Vec<u8> = row.get(2)?;
    let target = match kind.as_str() {
        "username" => value.try_into().ok().map(|id| Target::Credential(CredentialId(id))),
        "subject" => value.try_into().ok().map(|hash| Target::Subject(SubjectHash(hash))),
        "room" => value.try_into().ok().map(|hash| Target::Room(RoomHash(hash))),
        _ => None,
    };
    let target = target.ok_or_else(|| {
        let what = "not the hash of its kind".into();
        rusqlite::Error::FromSqlConversionFailure(2, Type::Blob, what)
    })?;
    Ok(Record {
        id: row.get(0)?,
        revocation: Revocation { target, not_before: at(3)?, expires: at(4)? },
        reason: row.get(5)?,
        made_at: at(6)?,
    })
}
