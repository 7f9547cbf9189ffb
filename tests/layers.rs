//! The house plan, kept: rooms import only downwards, siblings never meet, `unsafe` has two homes.

use std::fs;
use std::path::{Path, PathBuf};

/// Everybody's: newtypes and time.
const FREE: &[&str] = &["ids", "net", "time"];
/// Joins everything: the composition root and the command line.
const TOP: &[&str] = &["app", "cli", "lib.rs", "main.rs"];

/// A room and what it may import: whole rooms, or single modules of one.
const ROOMS: &[(&str, &[&str])] = &[
    ("ids.rs", &[]),
    ("net.rs", &[]),
    ("time.rs", &[]),
    ("wire", &[]),
    ("auth", &[]),
    ("metrics", &[]),
    ("config", &[]),
    ("relay", &["wire", "auth", "metrics"]),
    ("session", &["wire", "metrics"]),
    ("forward", &["wire", "metrics"]),
    ("engine", &["relay", "session", "forward", "wire", "metrics", "auth"]),
    // Control agrees sessions (negotiation, parameters) and parks them; media never passes it.
    (
        "control",
        &[
            "engine",
            "auth",
            "metrics",
            // What a player wishes of its layers, in the data plane's own words.
            "forward::Wish",
            "forward::MAX_LAYERS",
            "session::negotiate",
            "session::dtls",
            "session::Generation",
            "session::IceCredentials",
            "session::Params",
            "session::Reason",
            "wire::media",
            "wire::sdp",
        ],
    ),
    ("cluster", &["control", "auth", "metrics"]),
    ("http", &["cluster", "control", "auth", "metrics", "wire::sdp"]),
];

const UNSAFE_HOMES: &[&str] = &["engine/sys/", "session/dtls_ffi.rs"];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.expect("readable").path())
        .collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.push(path);
        }
    }
}

/// The source with comments, strings and characters blanked, every line where it was.
fn code_only(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let bytes: Vec<char> = text.chars().collect();
    let at = |i: usize| bytes.get(i).copied().unwrap_or('\0');
    let mut i = 0;
    let blank = |out: &mut String, c: char| out.push(if c == '\n' { '\n' } else { ' ' });
    while i < bytes.len() {
        let c = at(i);
        if c == '/' && at(i + 1) == '/' {
            while i < bytes.len() && at(i) != '\n' {
                blank(&mut out, at(i));
                i += 1;
            }
        } else if c == '/' && at(i + 1) == '*' {
            let mut depth = 0;
            loop {
                if at(i) == '/' && at(i + 1) == '*' {
                    depth += 1;
                    i += 2;
                } else if at(i) == '*' && at(i + 1) == '/' {
                    depth -= 1;
                    i += 2;
                } else {
                    blank(&mut out, at(i));
                    i += 1;
                }
                if depth == 0 || i >= bytes.len() {
                    break;
                }
            }
        } else if c == 'r' && matches!(at(i + 1), '"' | '#') && !word(at(i.wrapping_sub(1))) {
            let hashes = (i + 1..).take_while(|&j| at(j) == '#').count();
            if at(i + 1 + hashes) != '"' {
                out.push(c);
                i += 1;
                continue;
            }
            i += 2 + hashes;
            while i < bytes.len() && !(at(i) == '"' && (1..=hashes).all(|k| at(i + k) == '#')) {
                blank(&mut out, at(i));
                i += 1;
            }
            i += 1 + hashes;
        } else if c == '"' {
            i += 1;
            while i < bytes.len() && at(i) != '"' {
                if at(i) == '\\' {
                    blank(&mut out, at(i));
                    i += 1;
                }
                blank(&mut out, at(i));
                i += 1;
            }
            i += 1;
        } else if c == '\'' && (at(i + 2) == '\'' || at(i + 1) == '\\') {
            // A character, not a lifetime.
            i += if at(i + 1) == '\\' { 3 } else { 2 };
            while i < bytes.len() && at(i) != '\'' {
                i += 1;
            }
            i += 1;
        } else {
            out.push(c);
            i += 1;
        }
    }
    out
}

fn word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Every path that starts with `crate::`, groups spelt out: its line and its first two steps.
fn crate_paths(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].chars().next_back().is_some_and(|c| word(c) || c == '$') {
            continue;
        }
        let line = code[..at].matches('\n').count() + 1;
        expand(&code[at + "crate::".len()..], String::new(), 0, line, &mut found);
    }
    found
}

/// Follows one path or group; returns the text after it.
fn expand<'t>(
    text: &'t str,
    prefix: String,
    depth: usize,
    line: usize,
    found: &mut Vec<(usize, String)>,
) -> &'t str {
    let text = text.trim_start();
    if depth == 2 {
        found.push((line, prefix));
        return skip_path(text);
    }
    if let Some(mut rest) = text.strip_prefix('{') {
        loop {
            rest = rest.trim_start();
            if let Some(after) = rest.strip_prefix('}') {
                return after;
            }
            if let Some(after) = rest.strip_prefix(',') {
                rest = after;
                continue;
            }
            let before = rest.len();
            rest = expand(rest, prefix.clone(), depth, line, found);
            if rest.len() == before {
                return rest;
            }
        }
    }
    let end = text.find(|c: char| !word(c) && c != '*').unwrap_or(text.len());
    let (step, rest) = text.split_at(end);
    let path = if prefix.is_empty() { step.to_owned() } else { format!("{prefix}::{step}") };
    match rest.strip_prefix("::") {
        Some(rest) if !rest.starts_with('<') => expand(rest, path, depth + 1, line, found),
        _ => {
            found.push((line, path));
            match rest.trim_start().strip_prefix("as ") {
                Some(alias) => alias.trim_start().trim_start_matches(word),
                None => rest,
            }
        }
    }
}

fn skip_path(text: &str) -> &str {
    if !text.starts_with('{') {
        let end = text.find([',', '}', ';']).unwrap_or(text.len());
        return &text[end..];
    }
    let mut depth = 0;
    for (i, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[i + 1..];
        }
    }
    ""
}

fn allowed(room: &str, import: &str) -> bool {
    let target = import.split("::").next().unwrap_or_default();
    let own = room.trim_end_matches(".rs");
    if target == own || FREE.contains(&target) {
        return true;
    }
    let (_, may) = ROOMS.iter().find(|(name, _)| *name == room).unwrap_or_else(|| {
        panic!("src/{room} is not in the house plan: give it a row in tests/layers.rs")
    });
    may.iter().any(|row| *row == target || *row == import)
}

fn violations(file: &str, text: &str) -> Vec<String> {
    let room = file.split('/').next().unwrap_or_default();
    if TOP.contains(&room) {
        return Vec::new();
    }
    crate_paths(&code_only(text))
        .into_iter()
        .filter(|(_, import)| !allowed(room, import))
        .map(|(line, import)| format!("src/{file}:{line}: {room} may not import {import}"))
        .collect()
}

fn each_file(mut look: impl FnMut(&str, &str)) {
    let root = source();
    let mut found = Vec::new();
    files(&root, &mut found);
    assert!(found.len() > 5, "where is src/?");
    for path in found {
        let text = fs::read_to_string(&path).expect("utf-8");
        let name = path.strip_prefix(&root).expect("below src").to_str().expect("utf-8");
        look(name, &text);
    }
}

#[test]
fn rooms_import_only_what_the_plan_allows() {
    let mut wrong = Vec::new();
    each_file(|file, text| wrong.extend(violations(file, text)));
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_lives_in_its_two_homes() {
    let mut wrong = Vec::new();
    each_file(|file, text| {
        if UNSAFE_HOMES.iter().any(|home| file.starts_with(home)) {
            return;
        }
        for (i, line) in code_only(text).lines().enumerate() {
            if line.split(|c: char| !word(c)).any(|w| w == "unsafe") {
                wrong.push(format!("src/{file}:{}: unsafe outside its homes", i + 1));
            }
        }
    });
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn lower_rooms_know_no_runtime_and_no_socket() {
    const OUTSIDE: &[&str] = &["tokio::", "mio::", "std::net::UdpSocket", "std::thread", "std::fs"];
    const LOWER: &[&str] = &["wire", "relay", "session", "forward"];
    let mut wrong = Vec::new();
    each_file(|file, text| {
        // Unit tests read recorded offers and vectors from files.
        if !LOWER.contains(&file.split('/').next().unwrap_or_default())
            || file.ends_with("tests.rs")
        {
            return;
        }
        for (i, line) in code_only(text).lines().enumerate() {
            // BoringSSL reads the time from a thread-local that is set around each call.
            let line = line.replace("std::thread_local", "");
            for word in OUTSIDE.iter().filter(|word| line.contains(**word)) {
                wrong.push(format!("src/{file}:{}: {word} below layer 3", i + 1));
            }
        }
    });
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_reader_sees_groups_aliases_and_inline_paths() {
    let text = r##"
use crate::{
    auth::{turn::{self, Keys}, token},
    wire::stun as s,
    ids::*,
};
// use crate::http::Nothing;
const S: &str = "crate::http";
const R: &str = r#"crate::http "quoted""#;
fn f<'a>(x: &'a str) { let c = '"'; crate::relay::policy::decide(); $crate::http::x(); }
"##;
    let paths: Vec<String> = crate_paths(&code_only(text)).into_iter().map(|p| p.1).collect();
    let expected = ["auth::turn", "auth::token", "wire::stun", "ids::*", "relay::policy"];
    assert_eq!(paths, expected);
    let told = violations("forward/x.rs", "\nuse crate::session::Session;\n");
    assert_eq!(told, ["src/forward/x.rs:2: forward may not import session::Session"]);
    assert!(violations("http/x.rs", "use crate::wire::sdp::Offer;").is_empty());
    assert_eq!(violations("http/x.rs", "use crate::wire::{sdp, rtp};").len(), 1);
}
