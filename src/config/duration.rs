//! Spans of time as people write them: `90s`, `10m`, `1h30m`, `7d`.

use std::time::Duration;

/// Reads a span of whole seconds, minutes, hours and days: `90s`, `10m`, `1h30m`, `7d`.
///
/// # Errors
/// A sentence that says what is expected.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a span of time: write 90s, 10m, 1h30m or 7d");
    let mut total: u64 = 0;
    let mut number: Option<u64> = None;
    let mut smallest = u64::MAX;
    for character in text.trim().chars() {
        if let Some(digit) = character.to_digit(10) {
            let value = number.unwrap_or(0).checked_mul(10).ok_or_else(wrong)?;
            number = Some(value.checked_add(digit.into()).ok_or_else(wrong)?);
            continue;
        }
        let unit: u64 = match character {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        // Each unit once, from the largest to the smallest.
        if unit >= smallest {
            return Err(wrong());
        }
        smallest = unit;
        let part = number.take().ok_or_else(wrong)?.checked_mul(unit).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    if number.is_some() || smallest == u64::MAX {
        return Err(wrong());
    }
    Ok(Duration::from_secs(total))
}

/// Writes a span as [`parse`] reads it.
#[must_use]
pub fn show(span: Duration) -> String {
    let mut rest = span.as_secs();
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, letter) in [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')] {
        if rest >= unit {
            text.push_str(&(rest / unit).to_string());
            text.push(letter);
            rest %= unit;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        for (text, seconds) in
            [("90s", 90), ("10m", 600), ("1h30m", 5400), ("7d", 604_800), (" 0s ", 0)]
        {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "10", "m", "10 m", "-5s", "1.5h", "5m1h", "1m1m", "10ms", "1h30"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse("99999999999999999999s").is_err());
        assert!(parse("999999999999999999d").is_err());
    }

    proptest! {
        #[test]
        fn shown_spans_are_read_back(seconds in 0u64..10_000_000) {
            let span = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&show(span)), Ok(span));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = parse(&text);
        }
    }
}
