//! YAML as a tree in which every node knows its place, so that checking can go on after a fault.

use std::fmt;

use serde::Deserialize;
use serde::de::{self, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_yaml::{DuplicateKeyPolicy, MergeKeyPolicy, Spanned};

/// A place in a file, both 1-based.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl Place {
    pub(super) const START: Self = Self { line: 1, column: 1 };
}

/// What a node holds.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

impl Value {
    /// The kind, with its article, for messages.
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Null => "nothing",
            Self::Bool(_) => "a yes/no value",
            Self::Integer(_) => "a whole number",
            Self::Float(_) => "a fraction",
            Self::Text(_) => "text",
            Self::List(_) => "a list",
            Self::Map(_) => "a group of keys",
        }
    }
}

pub(super) type Node = Spanned<Value>;

pub(super) fn place<T>(spanned: &Spanned<T>) -> Place {
    let at = spanned.referenced;
    Place { line: at.line().max(1), column: at.column().max(1) }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Integer(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Float(value))
    }

    fn visit_str<E: de::Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = access.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = access.next_entry()? {
            map.push(entry);
        }
        Ok(Value::Map(map))
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

/// Reads a text. Doubled keys are kept, for the checker to name them all.
pub(super) fn parse(text: &str) -> Result<Node, (Place, String)> {
    let options = serde_yaml::options! {
        // Far above any configuration, far below what would hurt.
        budget: serde_yaml::budget! {
            max_depth: 32,
            max_nodes: 20_000,
            max_documents: 1,
            max_aliases: 100,
        },
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        merge_keys: MergeKeyPolicy::Error,
        strict_booleans: true,
        with_snippet: false,
    };
    serde_yaml::from_str_with_options::<Node>(text, options).map_err(|error| {
        let place = error.location().map_or(Place::START, |at| Place {
            line: at.line().max(1),
            column: at.column().max(1),
        });
        let message = error.without_snippet().to_string();
        // The place stands in front of the message already.
        let end = message.rfind(" at line ").unwrap_or(message.len());
        (place, message.get(..end).unwrap_or(&message).to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_know_their_places() {
        let root = parse("public:\n  ip: 203.0.113.7\n  port: 3478\n").unwrap();
        let Value::Map(entries) = &root.value else { panic!("{root:?}") };
        let Value::Map(public) = &entries[0].1.value else { panic!("{root:?}") };
        assert_eq!(place(&public[0].0), Place { line: 2, column: 3 });
        assert_eq!(place(&public[0].1), Place { line: 2, column: 7 });
        assert_eq!(public[0].1.value, Value::Text("203.0.113.7".to_owned()));
        assert_eq!(public[1].1.value, Value::Integer(3478));
    }

    #[test]
    fn broken_text_has_a_place() {
        for text in ["a: [1, 2\nb: 3\n", "a: *none\n", "a: b: c\n", "\u{0}", "--- 1\n--- 2\n"] {
            let (place, message) = parse(text).unwrap_err();
            assert!(place.line >= 1 && !message.is_empty(), "{text}");
            assert!(!message.contains(" at line "), "{message}");
        }
    }
}
