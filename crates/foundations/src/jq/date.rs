//! Instants as texts and as seconds since 1970, always in UTC.

use super::{
    meter::{Step, Stop},
    number::Number,
    value::Value,
};

const DAY: i64 = 86_400;

/// The seconds since 1970 that an RFC 3339 timestamp says, with its fraction.
pub(super) fn from_text(text: &str) -> Step<Value> {
    let seconds = read(text).ok_or_else(|| Stop::raise(format!("{} is no timestamp", Value::text(text).shown())))?;
    Ok(Value::Number(seconds))
}

fn read(text: &str) -> Option<Number> {
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|byte| byte.is_ascii_digit()).then(|| part.parse().ok()).flatten()
    };
    let is = |at: usize, wanted: &[u8]| text.as_bytes().get(at).is_some_and(|byte| wanted.contains(byte));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let is_right = (1..=12).contains(&month)
        && (1..=days_in(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    let rest = text.get(19..)?;
    let after = rest.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let fraction = &rest[..rest.len() - after.len()];
    let offset = match after.as_bytes() {
        b"Z" | b"z" => 0,
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let at = text.len() - 5;
            let (hours, minutes) = (digits(at..at + 2)?, digits(at + 3..at + 5)?);
            let size = (hours < 24 && minutes < 60).then_some(hours * 3600 + minutes * 60)?;
            if *sign == b'-' { -size } else { size }
        }
        _ => return None,
    };
    let whole = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    let fraction = if fraction.is_empty() { Number::ZERO } else { Number::read(&format!("0{fraction}")).ok()? };
    is_right.then(|| Number::from(whole).plus(fraction).ok()).flatten()
}

/// The timestamp of so many seconds since 1970; what is less than a second is left out.
pub(super) fn to_text(value: &Value) -> Step<Value> {
    let seconds = match value {
        Value::Number(number) => number.floored(),
        _ => None,
    };
    let years = days(0, 1, 1) * DAY..days(10_000, 1, 1) * DAY;
    let seconds = seconds.filter(|seconds| years.contains(seconds));
    let seconds = seconds.ok_or_else(|| Stop::raise(format!("{} is no time in seconds", value.shown())))?;
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let of_day = seconds.rem_euclid(DAY);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    Ok(Value::text(format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")))
}

fn days_in(year: i64, month: i64) -> i64 {
    let next = if month == 12 { days(year + 1, 1, 1) } else { days(year, month + 1, 1) };
    next - days(year, month, 1)
}

/// Days since 1970-01-01. Source: Hinnant, "chrono-compatible low-level date algorithms".
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// Year, month and day of a day since 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}
