//! Dates of `-rtc base=`.

/// Seconds since 1970-01-01 of `2006-06-17T16:01:21` or `2006-06-17` (UTC, proleptic Gregorian).
pub fn parse_date(text: &str) -> Option<i64> {
    let (date, time) = match text.split_once('T') {
        Some((date, time)) => (date, time),
        None => (text, "00:00:00"),
    };
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days = match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days).contains(&day) || hour > 23 || minute > 59 || second > 59 || year > 9999 {
        return None;
    }
    // Days since 0000-03-01, by counting years from March.
    let (y, m) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let day_of_year = (153 * m + 2) / 5 + day - 1;
    let days =
        365 * y + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + day_of_year - 719_468;
    Some(days * 86_400 + hour * 3600 + minute * 60 + second)
}

fn numbers(text: &str, separator: char) -> Option<[i64; 3]> {
    let parts: Vec<_> = text.split(separator).collect();
    let [a, b, c] = parts[..] else { return None };
    let number = |s: &str| {
        if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
            None
        } else {
            s.parse::<i64>().ok()
        }
    };
    Some([number(a)?, number(b)?, number(c)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(parse_date("1970-01-01"), Some(0));
        assert_eq!(parse_date("2006-06-17T16:01:21"), Some(1_150_560_081));
        assert_eq!(parse_date("2000-02-29"), Some(951_782_400));
        for bad in [
            "",
            "foo",
            "2001-02-29",
            "2006-13-01",
            "2006-06-17T24:00:00",
            "2006-06",
            "2006-06-+7",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
    }
}
