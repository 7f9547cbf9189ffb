//! Writing to stdout, and times for people.

use std::io::{self, Write as _};

use serde::Serialize;

/// One line of JSON on stdout.
pub(super) fn json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(value)?;
    text.push('\n');
    plain(&text)
}

/// Text on stdout, as it is.
///
/// # Errors
/// As the system says, a reader that went away included.
pub fn plain(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Text on stderr. Nobody can be told when that fails.
pub(super) fn talk(text: &str) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

/// Seconds since 1970 as `2026-06-01T12:00:00Z`.
pub(super) fn utc(secs: u64) -> String {
    // Days to a date of the proleptic Gregorian calendar, in eras of 400 years from 1 March 0000.
    let days = secs / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year + year / 4 - year / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (secs / 3600 % 24, secs / 60 % 60, secs % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// A moment and how far it is: `2026-06-01T12:00:00Z (in 10m)`.
pub(super) fn moment(secs: u64, now: u64) -> String {
    let span = |secs| crate::config::duration::show(std::time::Duration::from_secs(secs));
    let distance = match secs.cmp(&now) {
        std::cmp::Ordering::Less => format!("{} ago", span(now - secs)),
        std::cmp::Ordering::Equal => "now".to_owned(),
        std::cmp::Ordering::Greater => format!("in {}", span(secs - now)),
    };
    format!("{} ({distance})", utc(secs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        for (secs, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_780_000_000, "2026-05-28T20:26:40Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(secs), text);
        }
        assert!(utc(u64::MAX).ends_with('Z'));
        assert_eq!(moment(600, 0), "1970-01-01T00:10:00Z (in 10m)");
        assert_eq!(moment(0, 61), "1970-01-01T00:00:00Z (1m1s ago)");
    }
}
