//! Taking keys out of a tree: every fault is noted, none stops the reading.

use std::cell::RefCell;
use std::fmt;

use super::tree::{Node, Place, Value, place};

/// Where a setting comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum At {
    /// A place in the file.
    File(Place),
    /// A flag, which has an environment variable of the same meaning.
    Flag(&'static str),
}

/// One thing wrong, or worth a word.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// The file, when the fault is in it.
    pub file: Option<String>,
    /// 1-based line; 0 when there is none.
    pub line: u64,
    /// 1-based column; 0 when there is none.
    pub column: u64,
    /// Key path (`listen.udp`), or the flag.
    pub key: String,
    /// What is wrong and what is expected.
    pub message: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
            for number in [self.line, self.column] {
                if number > 0 {
                    write!(f, "{number}:")?;
                }
            }
            f.write_str(" ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Gathers faults.
pub(super) struct Notes {
    file: String,
    faults: RefCell<Vec<Fault>>,
}

impl Notes {
    pub(super) const fn new(file: String) -> Self {
        Self { file, faults: RefCell::new(Vec::new()) }
    }

    pub(super) fn add(&self, at: At, key: &str, message: impl Into<String>) {
        let message = message.into();
        let fault = match at {
            At::File(place) => Fault {
                file: Some(self.file.clone()),
                line: place.line,
                column: place.column,
                key: key.to_owned(),
                message,
            },
            At::Flag(flag) => {
                Fault { file: None, line: 0, column: 0, key: flag.to_owned(), message }
            }
        };
        self.faults.borrow_mut().push(fault);
    }

    /// All faults, in order of place; those without a place come last.
    pub(super) fn into_faults(self) -> Vec<Fault> {
        let mut faults = self.faults.into_inner();
        faults.sort_by_key(|fault| (fault.file.is_none(), fault.line, fault.column));
        faults
    }
}

/// A value with its origin.
#[derive(Clone, Debug)]
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) at: At,
}

/// A group of keys.
pub(super) struct Section<'a> {
    path: &'static str,
    entries: &'a [(serde_yaml::Spanned<String>, Node)],
    /// Where a missing key is reported: at the name of the group.
    pub(super) here: Place,
    notes: &'a Notes,
}

/// The schema: every group and its keys.
pub(super) const SCHEMA: [(&str, &[&str]); 11] = [
    ("", &["public", "listen", "media", "relay", "auth", "store", "tls", "shards", "log"]),
    ("public", &["host", "ip", "ip6"]),
    ("listen", &["udp", "https", "metrics", "proxy_from", "connections_per_source"]),
    ("media", &["port"]),
    ("relay", &["realm", "urls", "external", "limits"]),
    ("relay.external", &["ports", "allow", "allow_private", "ip", "ip6", "names"]),
    (
        "relay.limits",
        &[
            "allocations_per_subject",
            "allocations_total",
            "permissions_per_allocation",
            "channels_per_allocation",
            "packets_per_second",
            "bits_per_second",
            "total_packets_per_second",
            "total_bits_per_second",
            "unauthenticated_replies_per_second",
        ],
    ),
    (
        "auth",
        &[
            "turn_keys_file",
            "token_keys_file",
            "credential_ttl",
            "session_limit",
            "admin_key_file",
            "plain_rest",
            "static_users_file",
        ],
    ),
    ("store", &["path"]),
    ("tls", &["certificate", "key"]),
    ("log", &["level", "format"]),
];

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(node: &'a Node, notes: &'a Notes) -> Self {
        Self::of("", node, Place::START, notes)
    }

    fn of(path: &'static str, node: &'a Node, here: Place, notes: &'a Notes) -> Self {
        let entries: &[_] = match &node.value {
            Value::Map(entries) => entries,
            Value::Null => &[],
            other => {
                let message = format!("expected a group of keys, found {}", other.kind());
                notes.add(At::File(place(node)), path, message);
                &[]
            }
        };
        let section = Self { path, entries, here, notes };
        section.check_keys();
        section
    }

    fn check_keys(&self) {
        let known = SCHEMA
            .iter()
            .find(|(path, _)| *path == self.path)
            .map_or(&[] as &[&str], |(_, keys)| *keys);
        for (index, (key, _)) in self.entries.iter().enumerate() {
            let name = key.value.as_str();
            let at = At::File(place(key));
            if !known.contains(&name) {
                let message = unknown_key(self.path, name, known);
                self.notes.add(at, &join(self.path, name), message);
            } else if let Some((first, _)) =
                self.entries.iter().take(index).find(|(other, _)| other.value == name)
            {
                let message = format!("given twice; first on line {}", place(first).line);
                self.notes.add(at, &join(self.path, name), message);
            }
        }
    }

    /// The full path of a key of this group.
    pub(super) fn path(&self, key: &str) -> String {
        join(self.path, key)
    }

    fn node(&self, key: &str) -> Option<(Place, &'a Node)> {
        self.entries
            .iter()
            .find(|(name, _)| name.value == key)
            .map(|(name, node)| (place(name), node))
    }

    /// Whether the key has a value, sound or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some_and(|(_, node)| node.value != Value::Null)
    }

    /// What the key holds, sound or not.
    pub(super) fn node_value(&self, key: &str) -> Option<&'a Value> {
        self.node(key).map(|(_, node)| &node.value)
    }

    /// How many items a list has; `None` when it is no list.
    pub(super) fn length(&self, key: &str) -> Option<Found<usize>> {
        let (_, node) = self.node(key)?;
        match &node.value {
            Value::List(items) => Some(Found { value: items.len(), at: At::File(place(node)) }),
            _ => None,
        }
    }

    /// A group within this one; an absent one is empty.
    pub(super) fn section(&self, path: &'static str) -> Self {
        let key = path.rsplit('.').next().unwrap_or(path);
        match self.node(key) {
            Some((here, node)) => Section::of(path, node, here, self.notes),
            None => Section { path, entries: &[], here: self.here, notes: self.notes },
        }
    }

    /// Like [`Self::section`], for a group that has been read before: its faults are noted already.
    pub(super) fn section_quietly(&self, path: &'static str) -> Self {
        let (here, entries) = match self.node(path) {
            Some((here, node)) => match &node.value {
                Value::Map(entries) => (here, entries.as_slice()),
                _ => (here, &[] as &[_]),
            },
            None => (self.here, &[] as &[_]),
        };
        Section { path, entries, here, notes: self.notes }
    }

    /// A setting written as text or number, read by `read`; `null` counts as absent.
    pub(super) fn get<T>(
        &self,
        key: &str,
        read: impl FnOnce(&Value) -> Result<T, String>,
    ) -> Option<Found<T>> {
        let (_, node) = self.node(key)?;
        let at = At::File(place(node));
        if node.value == Value::Null {
            return None;
        }
        match read(&node.value) {
            Ok(value) => Some(Found { value, at }),
            Err(message) => {
                self.notes.add(at, &self.path(key), message);
                None
            }
        }
    }

    /// The items of a list, each read by `read`; faults are noted at the item.
    pub(super) fn list<T>(
        &self,
        key: &str,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<Found<Vec<T>>> {
        let (_, node) = self.node(key)?;
        let Value::List(items) = &node.value else {
            let message = format!("expected a list, found {}", node.value.kind());
            self.notes.add(At::File(place(node)), &self.path(key), message);
            return None;
        };
        let mut list = Vec::new();
        for (index, item) in items.iter().enumerate() {
            match read(&item.value) {
                Ok(value) => list.push(value),
                Err(message) => {
                    let key = format!("{}[{index}]", self.path(key));
                    self.notes.add(At::File(place(item)), &key, message);
                }
            }
        }
        Some(Found { value: list, at: At::File(place(node)) })
    }

    /// One setting, or a list of them, each read by `read`; `None` when any is unsound.
    pub(super) fn one_or_more<T>(
        &self,
        key: &str,
        read: impl Fn(&Value) -> Result<T, String>,
    ) -> Option<Vec<Found<T>>> {
        let (_, node) = self.node(key)?;
        let Value::List(items) = &node.value else {
            return self.get(key, read).map(|found| vec![found]);
        };
        let mut list = Vec::new();
        let mut sound = true;
        for (index, item) in items.iter().enumerate() {
            let at = At::File(place(item));
            match read(&item.value) {
                Ok(value) => list.push(Found { value, at }),
                Err(message) => {
                    self.notes.add(at, &format!("{}[{index}]", self.path(key)), message);
                    sound = false;
                }
            }
        }
        sound.then_some(list)
    }

    /// Notes that a required key is missing; not when it is there and was unsound.
    pub(super) fn missing(&self, key: &str, message: &str) {
        if !self.has(key) {
            self.notes.add(At::File(self.here), &self.path(key), message);
        }
    }
}

fn unknown_key(path: &str, name: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|key| (distance(name, key), *key))
        .filter(|(steps, key)| *steps <= (key.len() / 3).max(1))
        .min();
    if let Some((_, key)) = near {
        return format!("unknown key; did you mean \"{key}\"?");
    }
    let elsewhere = SCHEMA.iter().find(|(other, keys)| *other != path && keys.contains(&name));
    if let Some((other, _)) = elsewhere {
        return format!("unknown key here; did you mean \"{}\"?", join(other, name));
    }
    format!("unknown key; known here: {}", known.join(", "))
}

/// Edits between two texts, a swap of neighbours counted as one (optimal string alignment).
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at =
                |cells: &[usize], index: usize| cells.get(index).copied().unwrap_or(usize::MAX - 1);
            let mut best = (at(&above, j) + usize::from(x != y))
                .min(at(&above, j + 1) + 1)
                .min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            if swapped {
                best = best.min(at(&before, j - 1) + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_edits() {
        for (a, b, steps) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("udp", "upd", 1), ("https", "http", 1)]
        {
            assert_eq!(distance(a, b), steps, "{a} {b}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
    }

    #[test]
    fn unknown_keys_get_the_best_hint() {
        let listen = ["udp", "https", "metrics"];
        assert!(unknown_key("listen", "metric", &listen).contains("\"metrics\""));
        assert!(unknown_key("listen", "realm", &listen).contains("\"relay.realm\""));
        assert!(unknown_key("listen", "zzzzzz", &listen).contains("udp, https, metrics"));
    }
}
