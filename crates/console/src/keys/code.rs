//! Keys by their places, as browsers and windows name them: the `code` of W3C's "UI Events KeyboardEvent code Values".

use device::input::Key;

/// (name, HID usage of page 7)
const CODES: &[(&str, u8)] = &[
    ("Enter", 0x28),
    ("Escape", 0x29),
    ("Backspace", 0x2a),
    ("Tab", 0x2b),
    ("Space", 0x2c),
    ("Minus", 0x2d),
    ("Equal", 0x2e),
    ("BracketLeft", 0x2f),
    ("BracketRight", 0x30),
    ("Backslash", 0x31),
    ("Semicolon", 0x33),
    ("Quote", 0x34),
    ("Backquote", 0x35),
    ("Comma", 0x36),
    ("Period", 0x37),
    ("Slash", 0x38),
    ("CapsLock", 0x39),
    ("PrintScreen", 0x46),
    ("ScrollLock", 0x47),
    ("Pause", 0x48),
    ("Insert", 0x49),
    ("Home", 0x4a),
    ("PageUp", 0x4b),
    ("Delete", 0x4c),
    ("End", 0x4d),
    ("PageDown", 0x4e),
    ("ArrowRight", 0x4f),
    ("ArrowLeft", 0x50),
    ("ArrowDown", 0x51),
    ("ArrowUp", 0x52),
    ("NumLock", 0x53),
    ("NumpadDivide", 0x54),
    ("NumpadMultiply", 0x55),
    ("NumpadSubtract", 0x56),
    ("NumpadAdd", 0x57),
    ("NumpadEnter", 0x58),
    ("NumpadDecimal", 0x63),
    ("IntlBackslash", 0x64),
    ("ContextMenu", 0x65),
    ("Power", 0x66),
    ("NumpadEqual", 0x67),
    ("Open", 0x74),
    ("Help", 0x75),
    ("Props", 0x76),
    ("Select", 0x77),
    ("Again", 0x79),
    ("Undo", 0x7a),
    ("Cut", 0x7b),
    ("Copy", 0x7c),
    ("Paste", 0x7d),
    ("Find", 0x7e),
    ("AudioVolumeMute", 0x7f),
    ("AudioVolumeUp", 0x80),
    ("AudioVolumeDown", 0x81),
    ("NumpadComma", 0x85),
    ("IntlRo", 0x87),
    ("KanaMode", 0x88),
    ("IntlYen", 0x89),
    ("Convert", 0x8a),
    ("NonConvert", 0x8b),
    ("Lang1", 0x90),
    ("Lang2", 0x91),
    ("Lang3", 0x92),
    ("Lang4", 0x93),
    ("Lang5", 0x94),
    ("ControlLeft", 0xe0),
    ("ShiftLeft", 0xe1),
    ("AltLeft", 0xe2),
    ("MetaLeft", 0xe3),
    ("ControlRight", 0xe4),
    ("ShiftRight", 0xe5),
    ("AltRight", 0xe6),
    ("MetaRight", 0xe7),
    // Older browsers.
    ("OSLeft", 0xe3),
    ("OSRight", 0xe7),
];

/// The key at the place of `code`, whatever the user's layout makes of it. `None` for keys that USB keyboards do not have
/// on that page.
pub fn from_code(code: &str) -> Option<Key> {
    let one = |prefix: &str| match code.strip_prefix(prefix).map(str::as_bytes) {
        Some(&[byte]) => Some(byte),
        _ => None,
    };
    if let Some(letter @ b'A'..=b'Z') = one("Key") {
        return Some(Key(0x04 + letter - b'A'));
    }
    let digit = |digit: u8, one: u8| match digit {
        b'0' => Some(Key(one + 9)),
        b'1'..=b'9' => Some(Key(one + digit - b'1')),
        _ => None,
    };
    if let Some(number) = one("Digit") {
        return digit(number, 0x1e);
    }
    if let Some(number) = one("Numpad") {
        return digit(number, 0x59);
    }
    if let Some(number) = code.strip_prefix('F').and_then(|n| n.parse::<u8>().ok()) {
        return match number {
            1..=12 => Some(Key(0x3a + number - 1)),
            13..=24 => Some(Key(0x68 + number - 13)),
            _ => None,
        };
    }
    CODES
        .iter()
        .find(|(name, _)| *name == code)
        .map(|(_, usage)| Key(*usage))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes() {
        for (code, usage) in [
            ("KeyA", 0x04),
            ("KeyZ", 0x1d),
            ("Digit1", 0x1e),
            ("Digit0", 0x27),
            ("Numpad0", 0x62),
            ("Numpad9", 0x61),
            ("F1", 0x3a),
            ("F12", 0x45),
            ("F13", 0x68),
            ("F24", 0x73),
            ("NumpadEnter", 0x58),
            ("AltRight", 0xe6),
        ] {
            assert_eq!(from_code(code), Some(Key(usage)), "{code}");
        }
        for code in [
            "",
            "Key",
            "KeyÄ",
            "Keya",
            "F0",
            "F25",
            "Fn",
            "Digit10",
            "BrightnessUp",
        ] {
            assert_eq!(from_code(code), None, "{code}");
        }
    }
}
