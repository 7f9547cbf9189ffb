use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::auth::revocation::{Revocation, Target};
use crate::ids::{CredentialId, RoomHash, SubjectHash};
use crate::time::Unix;

fn new(target: Target, expires: u64) -> NewRevocation {
    let revocation = Revocation {
        target,
        not_before: Unix::from_micros(1_500_000),
        expires: Unix::from_secs(expires),
    };
    let reason = Some("left the team".to_owned());
    NewRevocation { revocation, reason, made_at: Unix::from_secs(2) }
}

fn alice() -> Target {
    Target::Subject(SubjectHash::of("alice"))
}

fn at(secs: u64) -> Unix {
    Unix::from_secs(secs)
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

fn open(path: &Path) -> Store {
    Store::open(path).unwrap()
}

#[test]
fn revocations_of_every_kind_are_there_after_another_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/veilgate.db");
    let kinds = [
        Target::Credential(CredentialId::of("name")),
        alice(),
        Target::Room(RoomHash::of("lobby")),
    ];
    let store = open(&path);
    let made: Vec<Record> = kinds
        .iter()
        .map(|kind| runtime().block_on(store.revoke(new(*kind, 100))).unwrap())
        .collect();
    assert!(made.windows(2).all(|pair| pair[0].id < pair[1].id));
    drop(store);
    let store = open(&path);
    let live = store.live_revocations(at(99)).unwrap();
    assert_eq!(live, made.iter().map(|record| record.revocation).collect::<Vec<_>>());
    assert_eq!(store.live_revocations(at(100)).unwrap(), []);
    let page = |before, limit| runtime().block_on(store.list_revocations(at(3), before, limit));
    let newest_first: Vec<_> = made.iter().rev().cloned().collect();
    assert_eq!(page(None, 10).unwrap(), newest_first);
    assert_eq!(page(None, 2).unwrap(), newest_first[..2]);
    assert_eq!(page(Some(newest_first[1].id), 2).unwrap(), newest_first[2..]);
}

#[test]
fn commits_reach_the_disk_before_they_are_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("veilgate.db"));
    let (mode, synchronous) = store
        .call_blocking(|connection| {
            let mode: String = connection.query_row("PRAGMA journal_mode", [], |r| r.get(0))?;
            let synchronous: i64 = connection.query_row("PRAGMA synchronous", [], |r| r.get(0))?;
            Ok((mode, synchronous))
        })
        .unwrap();
    // 2 is FULL: the log is synced at every commit, not only at checkpoints.
    assert_eq!((mode.as_str(), synchronous), ("wal", 2));
}

#[test]
fn only_its_owner_may_read_the_file_and_its_log() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veilgate.db");
    let store = open(&path);
    runtime().block_on(store.revoke(new(alice(), 100))).unwrap();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{:?}", entry.file_name());
    }
}

#[test]
fn expired_rows_are_purged_and_their_numbers_not_used_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("veilgate.db"));
    let runtime = runtime();
    let first = runtime.block_on(store.revoke(new(alice(), 10))).unwrap();
    assert_eq!(runtime.block_on(store.purge_revocations(at(9))).unwrap(), 0);
    assert_eq!(runtime.block_on(store.purge_revocations(at(10))).unwrap(), 1);
    let second = runtime.block_on(store.revoke(new(alice(), 100))).unwrap();
    assert!(second.id > first.id);
}

#[test]
fn second_process_on_the_same_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veilgate.db");
    let _store = open(&path);
    let refused = Store::open(&path).unwrap_err();
    assert!(matches!(refused, StoreError::InUse(_)), "{refused}");
    assert!(refused.to_string().contains("store.path"), "{refused}");
}

#[test]
fn full_disk_changes_nothing_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("veilgate.db"));
    let runtime = runtime();
    runtime.block_on(store.revoke(new(alice(), 100))).unwrap();
    let pages = |most: i64| {
        store.call_blocking(move |connection| {
            let now: i64 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            connection
                .query_row(&format!("PRAGMA max_page_count = {}", now + most), [], |_| Ok(()))?;
            Ok(())
        })
    };
    pages(0).unwrap();
    let mut stored = 1;
    let full = loop {
        match runtime.block_on(store.revoke(new(alice(), 100))) {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 1_000, "the limit of pages holds");
    };
    assert!(matches!(full, StoreError::DiskFull), "{full}");
    assert_eq!(store.live_revocations(at(3)).unwrap().len(), stored);
    pages(1_000).unwrap();
    runtime.block_on(store.revoke(new(alice(), 100))).unwrap();
}

#[test]
fn number_of_live_revocations_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(&folder.path().join("veilgate.db"));
    let insert = |expires| {
        store.call_blocking(move |connection| {
            revocations::insert(connection, new(alice(), expires), 2)
        })
    };
    // Made at 2, so the first two count no more when they are over.
    insert(1).unwrap();
    insert(100).unwrap();
    insert(100).unwrap();
    assert!(matches!(insert(100), Err(StoreError::TooMany)));
}

#[test]
fn foreign_newer_and_broken_files_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);

    let foreign = Connection::open(path("foreign.db")).unwrap();
    foreign.execute_batch("CREATE TABLE t (x)").unwrap();
    drop(foreign);
    let told = Store::open(&path("foreign.db")).unwrap_err().to_string();
    assert!(told.contains("another program"), "{told}");

    drop(open(&path("newer.db")));
    let newer = Connection::open(path("newer.db")).unwrap();
    newer.pragma_update(None, "user_version", 99).unwrap();
    drop(newer);
    let told = Store::open(&path("newer.db")).unwrap_err().to_string();
    assert!(told.contains("newer veilgate (schema 99"), "{told}");

    fs::write(path("text.db"), "this is no database, and longer than a header of one".repeat(99))
        .unwrap();
    let told = Store::open(&path("text.db")).unwrap_err();
    assert!(matches!(told, StoreError::Unsound { .. }), "{told}");
}

#[test]
fn damaged_store_is_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("veilgate.db");
    let store = open(&path);
    let runtime = runtime();
    for _ in 0..500 {
        runtime.block_on(store.revoke(new(alice(), 100))).unwrap();
    }
    drop(store);
    assert!(!path.with_extension("db-wal").exists(), "a closed store is one whole file");
    // Everything after the page of the schema becomes noise.
    let mut bytes = fs::read(&path).unwrap();
    bytes[4_096..].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    let told = Store::open(&path).unwrap_err();
    assert!(matches!(told, StoreError::Unsound { .. }), "{told}");
}
