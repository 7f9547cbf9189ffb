//! Reading `a=simulcast` and `a=rid` (RFC 8853, RFC 8851).

use sdp::description::common::Attribute;

use super::{MAX_RID, MAX_RIDS};

/// The first alternative of each stream of `a=simulcast:send`, where an `a=rid` says that it is
/// sent (RFC 8853 section 5.1). What is not well formed is not a layer.
pub(super) fn read(attributes: &[Attribute]) -> Vec<String> {
    let values = |key: &'static str| {
        let of_key = attributes.iter().filter(move |a| a.key == key);
        of_key.filter_map(|a| a.value.as_deref().map(str::trim))
    };
    let sends = |rid: &str| {
        values("rid").any(|value| {
            let mut words = value.split_ascii_whitespace();
            words.next() == Some(rid) && words.next() == Some("send")
        })
    };
    let mut rids: Vec<String> = Vec::new();
    let mut words = values("simulcast").flat_map(str::split_ascii_whitespace);
    let list = words.find(|word| *word == "send").and_then(|_| words.next()).unwrap_or_default();
    for stream in list.split(';') {
        let first = stream.split(',').next().unwrap_or_default();
        let rid = first.strip_prefix('~').unwrap_or(first);
        let fits = (1..=MAX_RID).contains(&rid.len())
            && rid.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'));
        if fits && rids.len() < MAX_RIDS && sends(rid) && !rids.iter().any(|known| known == rid) {
            rids.push(rid.to_owned());
        }
    }
    rids
}
