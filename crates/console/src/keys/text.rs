//! Typing on a US keyboard.

use device::input::Key;

/// A key, with or without Shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stroke {
    pub key: Key,
    pub shift: bool,
}

/// A character that a US keyboard does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' cannot be typed on a US keyboard")]
pub struct Untypable(pub char);

/// The strokes that type `text`. A newline is Return.
pub fn strokes(text: &str) -> Result<Vec<Stroke>, Untypable> {
    text.chars()
        .filter(|c| *c != '\r')
        .map(|c| stroke(c).ok_or(Untypable(c)))
        .collect()
}

/// The stroke that types one character.
pub(super) fn stroke(c: char) -> Option<Stroke> {
    /// Keys that are not letters or digits: usage, without Shift, with Shift.
    const SYMBOLS: &[(u8, char, char)] = &[
        (0x2d, '-', '_'),
        (0x2e, '=', '+'),
        (0x2f, '[', '{'),
        (0x30, ']', '}'),
        (0x31, '\\', '|'),
        (0x33, ';', ':'),
        (0x34, '\'', '"'),
        (0x35, '`', '~'),
        (0x36, ',', '<'),
        (0x37, '.', '>'),
        (0x38, '/', '?'),
    ];
    let plain = |usage| {
        Some(Stroke {
            key: Key(usage),
            shift: false,
        })
    };
    let shifted = |usage| {
        Some(Stroke {
            key: Key(usage),
            shift: true,
        })
    };
    match c {
        'a'..='z' => plain(0x04 + (c as u8 - b'a')),
        'A'..='Z' => shifted(0x04 + (c as u8 - b'A')),
        '1'..='9' => plain(0x1e + (c as u8 - b'1')),
        '0' => plain(0x27),
        '\n' => plain(0x28),
        '\x1b' => plain(0x29),
        '\x08' => plain(0x2a),
        '\t' => plain(0x2b),
        ' ' => plain(0x2c),
        _ => {
            if let Some(digit) = "!@#$%^&*()".find(c) {
                return shifted(0x1e + digit as u8);
            }
            SYMBOLS.iter().find_map(|(usage, low, high)| match c {
                _ if c == *low => plain(*usage),
                _ if c == *high => shifted(*usage),
                _ => None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_ascii_can_be_typed() {
        let mut seen = Vec::new();
        for c in ' '..='~' {
            let stroke = stroke(c).unwrap_or_else(|| panic!("{c:?}"));
            assert!(!seen.contains(&stroke), "{c:?} shares its stroke");
            seen.push(stroke);
        }
        assert_eq!(strokes("é"), Err(Untypable('é')));
        assert_eq!(
            strokes(")?\r\n").unwrap()[0],
            Stroke {
                key: Key(0x27),
                shift: true
            }
        );
        assert_eq!(strokes("\r\n").unwrap().len(), 1);
    }
}
