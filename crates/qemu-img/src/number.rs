//! Sizes and numbers, in and out.

/// Why a size was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    Invalid,
    TooLarge,
}

/// A number of bytes: decimal, with a fraction if a unit follows, or hexadecimal; units are powers of 1024.
pub fn size(text: &str) -> Result<u64, Wrong> {
    if let Some(digits) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let (digits, unit) = split(digits, |c| c.is_ascii_hexdigit());
        // Letters that are digits, too, are digits.
        let value = u64::from_str_radix(digits, 16).map_err(|_| Wrong::Invalid)?;
        return match unit {
            "" => Ok(value),
            _ => Err(Wrong::Invalid),
        };
    }
    let (digits, unit) = split(text, |c| c.is_ascii_digit() || c == '.');
    let scale = match unit {
        "" | "b" | "B" => 1u64,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        "p" | "P" => 1 << 50,
        "e" | "E" => 1 << 60,
        _ => return Err(Wrong::Invalid),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.is_empty() || fraction.contains('.') {
        return Err(Wrong::Invalid);
    }
    let value: u64 = whole.parse().map_err(|_| Wrong::TooLarge)?;
    let mut value = value.checked_mul(scale).ok_or(Wrong::TooLarge)?;
    if fraction.bytes().any(|digit| digit != b'0') {
        if scale == 1 {
            return Err(Wrong::Invalid);
        }
        let part: f64 = format!("0.{fraction}")
            .parse()
            .map_err(|_| Wrong::Invalid)?;
        value = value
            .checked_add((part * scale as f64) as u64)
            .ok_or(Wrong::TooLarge)?;
    }
    Ok(value)
}

fn split(text: &str, digit: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !digit(c)).unwrap_or(text.len()))
}

/// A size for people: three digits, in the unit in which it is less than a thousand.
pub fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    format!("{} {}", three_digits(value), UNITS[unit])
}

/// As C's `%0.3g` for numbers below a thousand.
fn three_digits(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    let before = value.log10().floor() as i32;
    let mut text = format!("{value:.*}", (2 - before).max(0) as usize);
    if text.contains('.') {
        text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(size("64G"), Ok(64 << 30));
        assert_eq!(size("1.5G"), Ok(3 << 29));
        assert_eq!(size("0x100000"), Ok(1 << 20));
        assert_eq!(size("100b"), Ok(100));
        assert_eq!(size("1m"), Ok(1 << 20));
        for wrong in ["", "abc", "1X", "1MB", "1.3", "-1", ".5G", "1..5G"] {
            assert_eq!(size(wrong), Err(Wrong::Invalid), "{wrong}");
        }
        assert_eq!(size("17E"), Err(Wrong::TooLarge));
    }

    /// As `qemu-img info` prints them.
    #[test]
    fn for_people() {
        for (bytes, text) in [
            (0, "0 B"),
            (512, "512 B"),
            (1024, "1 KiB"),
            (1_000_448, "977 KiB"),
            (1_024_000, "0.977 MiB"),
            (5_000_000_000, "4.66 GiB"),
            (12_800, "12.5 KiB"),
            (4_784_128, "4.56 MiB"),
            (1_265_664, "1.21 MiB"),
            (197_632, "193 KiB"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }
}
