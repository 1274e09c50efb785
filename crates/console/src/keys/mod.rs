//! Keys by name, by X11 keysym, by XT scan code, and by what they type.
//!
//! Devices take USB HID usages ([`Key`]); consoles know keys in other ways.

mod code;
mod keysym;
mod table;
mod text;

pub use code::from_code;
pub use device::input::Key;
pub use keysym::{CAPS_LOCK, Keysym, from_keysym};
pub use text::{Stroke, Untypable, strokes};

use table::TABLE;

/// Usage 0xe1.
pub const LEFT_SHIFT: Key = Key(0xe1);
/// Usage 0xe5.
pub const RIGHT_SHIFT: Key = Key(0xe5);

/// A key that cannot be pressed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No key has this name or number.
    #[error("invalid parameter: {0}")]
    Unknown(String),
    /// QEMU knows the key, but keyboards of USB HID page 7 do not have it: the media and system keys.
    #[error("key '{0}' is not on a USB keyboard")]
    NotOnKeyboard(String),
    /// More than [`MAX_TOGETHER`].
    #[error("too many keys")]
    TooMany,
}

/// The most keys of one combination.
pub const MAX_TOGETHER: usize = 16;

/// A key by its `QKeyCode` name of QEMU's QAPI schema, such as `ret`, `kp_enter` or `shift_r`.
pub fn from_name(name: &str) -> Result<Key, KeyError> {
    match TABLE.iter().find(|entry| entry.name == name) {
        Some(entry) => entry
            .key()
            .ok_or_else(|| KeyError::NotOnKeyboard(name.into())),
        None => Err(KeyError::Unknown(name.into())),
    }
}

/// A key by its PC XT scan code (set 1), where 0x80 stands for the prefix 0xe0: QEMU's key numbers, and the key codes of
/// its VNC extension.
pub fn from_number(number: u32) -> Result<Key, KeyError> {
    let unknown = || KeyError::Unknown(format!("{number:#x}"));
    let number = u8::try_from(number)
        .ok()
        .filter(|number| *number != 0)
        .ok_or_else(unknown)?;
    // Where two names share a code (`asterisk` and `kp_multiply`), they share the key.
    match TABLE.iter().find(|entry| entry.number == number) {
        Some(entry) => entry
            .key()
            .ok_or_else(|| KeyError::NotOnKeyboard(entry.name.into())),
        None => Err(unknown()),
    }
}

/// The name of a key: the first that it has.
pub fn name(key: Key) -> Option<&'static str> {
    TABLE
        .iter()
        .find(|entry| entry.key() == Some(key))
        .map(|entry| entry.name)
}

/// All names, whether USB keyboards have the key or not.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|entry| entry.name)
}

/// Keys to be pressed together, as QEMU's `sendkey` takes them: `ctrl-alt-delete`, `shift-a`, `0x1c`.
pub fn combination(text: &str) -> Result<Vec<Key>, KeyError> {
    let mut keys = Vec::new();
    for word in text.split('-') {
        if keys.len() == MAX_TOGETHER {
            return Err(KeyError::TooMany);
        }
        let number = word
            .strip_prefix("0x")
            .and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let key = match number {
            Some(number) => from_number(number)?,
            // HMP's old names.
            None => from_name(match word {
                "<" => "less",
                other => other,
            })?,
        };
        keys.push(key);
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// As QEMU 10.0 lists them in `query-qmp-schema`.
    const QKEYCODES: &str = "unmapped shift shift_r alt alt_r ctrl ctrl_r menu esc 1 2 3 4 5 6 7 8 9 0 minus equal \
        backspace tab q w e r t y u i o p bracket_left bracket_right ret a s d f g h j k l semicolon apostrophe \
        grave_accent backslash z x c v b n m comma dot slash asterisk spc caps_lock f1 f2 f3 f4 f5 f6 f7 f8 f9 f10 \
        num_lock scroll_lock kp_divide kp_multiply kp_subtract kp_add kp_enter kp_decimal sysrq kp_0 kp_1 kp_2 kp_3 \
        kp_4 kp_5 kp_6 kp_7 kp_8 kp_9 less f11 f12 print home pgup pgdn end left up down right insert delete stop \
        again props undo front copy open paste find cut lf help meta_l meta_r compose pause ro hiragana henkan yen \
        muhenkan katakanahiragana kp_comma kp_equals power sleep wake audionext audioprev audiostop audioplay \
        audiomute volumeup volumedown mediaselect mail calculator computer ac_home ac_back ac_forward ac_refresh \
        ac_bookmarks lang1 lang2 f13 f14 f15 f16 f17 f18 f19 f20 f21 f22 f23 f24";

    #[test]
    fn every_qkeycode_is_known() {
        let expected: BTreeSet<&str> = QKEYCODES.split_whitespace().collect();
        assert_eq!(names().collect::<BTreeSet<_>>(), expected);
        assert_eq!(names().count(), expected.len());
    }

    #[test]
    fn keys_by_name_and_number() {
        for (name, number, usage) in [
            ("a", 0x1e, 0x04),
            ("ret", 0x1c, 0x28),
            ("kp_enter", 0x9c, 0x58),
            ("delete", 0xd3, 0x4c),
            ("ctrl", 0x1d, 0xe0),
            ("meta_l", 0xdb, 0xe3),
            ("f12", 0x58, 0x45),
            ("less", 0x56, 0x64),
        ] {
            assert_eq!(from_name(name), Ok(Key(usage)));
            assert_eq!(from_number(number), Ok(Key(usage)));
        }
        assert_eq!(
            from_name("audionext"),
            Err(KeyError::NotOnKeyboard("audionext".into()))
        );
        for number in [0, 0x100, 0x7f, u32::MAX] {
            assert!(from_number(number).is_err());
        }
        assert_eq!(name(Key(0x28)), Some("ret"));
    }

    #[test]
    fn usages_and_numbers_are_told_apart() {
        let shared = ["asterisk", "kp_multiply", "sysrq", "print", "unmapped"];
        let mut usages = BTreeSet::new();
        let mut numbers = BTreeSet::new();
        for entry in TABLE.iter().filter(|entry| !shared.contains(&entry.name)) {
            assert!(
                entry.number == 0 || numbers.insert(entry.number),
                "{}",
                entry.name
            );
            assert!(
                entry.usage == 0 || usages.insert(entry.usage),
                "{}",
                entry.name
            );
        }
    }

    #[test]
    fn combinations() {
        assert_eq!(
            combination("ctrl-alt-delete"),
            Ok(vec![Key(0xe0), Key(0xe2), Key(0x4c)])
        );
        assert_eq!(combination("0x1c"), Ok(vec![Key(0x28)]));
        assert_eq!(
            combination("ctrl-foo").unwrap_err().to_string(),
            "invalid parameter: foo"
        );
        assert!(combination("").is_err());
        assert_eq!(combination(&["a"; 17].join("-")), Err(KeyError::TooMany));
    }
}
