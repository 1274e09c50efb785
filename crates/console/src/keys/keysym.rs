//! X11 keysyms, which VNC clients send.

use super::text::stroke;
use device::input::Key;

/// XK_Caps_Lock.
pub const CAPS_LOCK: u32 = 0xffe5;

/// The key of a keysym on a US keyboard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keysym {
    pub key: Key,
    /// For a keysym that stands for a character: whether Shift must be held for it.
    pub shift: Option<bool>,
    /// It is a letter, on which Caps Lock acts like Shift.
    pub letter: bool,
}

/// Looks a keysym up. `None` for what a US keyboard does not have.
pub fn from_keysym(keysym: u32) -> Option<Keysym> {
    // Latin-1 keysyms are characters; since X11R6.9 0x01000000 + a code point is one too.
    let character = match keysym {
        0x20..=0x7e => char::from_u32(keysym),
        0x0100_0020..=0x0100_007e => char::from_u32(keysym - 0x0100_0000),
        _ => None,
    };
    if let Some(c) = character {
        let stroke = stroke(c)?;
        return Some(Keysym {
            key: stroke.key,
            shift: Some(stroke.shift),
            letter: c.is_ascii_alphabetic(),
        });
    }
    let usage = match keysym {
        0xff08 => 0x2a,                              // BackSpace
        0xff09 | 0xfe20 => 0x2b,                     // Tab, ISO_Left_Tab
        0xff0a | 0xff0d => 0x28,                     // Linefeed, Return
        0xff13 => 0x48,                              // Pause
        0xff6b => 0x48,                              // Break
        0xff14 => 0x47,                              // Scroll_Lock
        0xff15 | 0xff61 => 0x46,                     // Sys_Req, Print
        0xff1b => 0x29,                              // Escape
        0xff22 => 0x8b,                              // Muhenkan
        0xff23 => 0x8a,                              // Henkan_Mode
        0xff27 => 0x88,                              // Hiragana_Katakana
        0xff31 => 0x90,                              // Hangul
        0xff34 => 0x91,                              // Hangul_Hanja
        0xff50 => 0x4a,                              // Home
        0xff51 => 0x50,                              // Left
        0xff52 => 0x52,                              // Up
        0xff53 => 0x4f,                              // Right
        0xff54 => 0x51,                              // Down
        0xff55 => 0x4b,                              // Page_Up
        0xff56 => 0x4e,                              // Page_Down
        0xff57 => 0x4d,                              // End
        0xff60 => 0x77,                              // Select
        0xff62 => 0x74,                              // Execute
        0xff63 => 0x49,                              // Insert
        0xff65 => 0x7a,                              // Undo
        0xff66 => 0x79,                              // Redo
        0xff67 => 0x65,                              // Menu: the application key
        0xff68 => 0x7e,                              // Find
        0xff69 => 0x78,                              // Cancel
        0xff6a => 0x75,                              // Help
        0xff7f => 0x53,                              // Num_Lock
        0xff80 => 0x2c,                              // KP_Space
        0xff89 => 0x2b,                              // KP_Tab
        0xff8d => 0x58,                              // KP_Enter
        0xff91..=0xff94 => 0x3a + (keysym - 0xff91), // KP_F1 to KP_F4
        0xff95 => 0x5f,                              // KP_Home
        0xff96 => 0x5c,                              // KP_Left
        0xff97 => 0x60,                              // KP_Up
        0xff98 => 0x5e,                              // KP_Right
        0xff99 => 0x5a,                              // KP_Down
        0xff9a => 0x61,                              // KP_Page_Up
        0xff9b => 0x5b,                              // KP_Page_Down
        0xff9c => 0x59,                              // KP_End
        0xff9d => 0x5d,                              // KP_Begin
        0xff9e => 0x62,                              // KP_Insert
        0xff9f => 0x63,                              // KP_Delete
        0xffaa => 0x55,                              // KP_Multiply
        0xffab => 0x57,                              // KP_Add
        0xffac => 0x85,                              // KP_Separator
        0xffad => 0x56,                              // KP_Subtract
        0xffae => 0x63,                              // KP_Decimal
        0xffaf => 0x54,                              // KP_Divide
        0xffb0 => 0x62,                              // KP_0
        0xffb1..=0xffb9 => 0x59 + (keysym - 0xffb1), // KP_1 to KP_9
        0xffbd => 0x67,                              // KP_Equal
        0xffbe..=0xffc9 => 0x3a + (keysym - 0xffbe), // F1 to F12
        0xffca..=0xffd5 => 0x68 + (keysym - 0xffca), // F13 to F24
        0xffe1 => 0xe1,                              // Shift_L
        0xffe2 => 0xe5,                              // Shift_R
        0xffe3 => 0xe0,                              // Control_L
        0xffe4 => 0xe4,                              // Control_R
        CAPS_LOCK | 0xffe6 => 0x39,                  // Caps_Lock, Shift_Lock
        0xffe7 | 0xffeb => 0xe3,                     // Meta_L, Super_L
        0xffe8 | 0xffec => 0xe7,                     // Meta_R, Super_R
        0xffe9 => 0xe2,                              // Alt_L
        0xffea | 0xfe03 | 0xff7e => 0xe6,            // Alt_R, ISO_Level3_Shift, Mode_switch
        0xffff => 0x4c,                              // Delete
        0xa5 => 0x89,                                // yen
        0x1008_ff11 => 0x81,                         // XF86AudioLowerVolume
        0x1008_ff12 => 0x7f,                         // XF86AudioMute
        0x1008_ff13 => 0x80,                         // XF86AudioRaiseVolume
        _ => return None,
    };
    Some(Keysym {
        key: Key(usage as u8),
        shift: None,
        letter: false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn keysyms() {
        let key = |keysym| from_keysym(keysym).unwrap().key.0;
        assert_eq!(
            from_keysym(u32::from('A')),
            Some(Keysym {
                key: Key(4),
                shift: Some(true),
                letter: true
            })
        );
        assert_eq!(from_keysym(0x0100_0061).unwrap().shift, Some(false));
        assert_eq!(
            [key(0xffbe), key(0xffc9), key(0xffca), key(0xffd5)],
            [0x3a, 0x45, 0x68, 0x73]
        );
        assert_eq!(
            [key(0xff0d), key(0xff1b), key(0xffff), key(0xff8d)],
            [0x28, 0x29, 0x4c, 0x58]
        );
        assert_eq!([key(0xffb0), key(0xffb1), key(0xffb9)], [0x62, 0x59, 0x61]);
        assert_eq!(from_keysym(0), None);
        assert_eq!(from_keysym(0xfc), None, "udiaeresis");
    }

    proptest! {
        #[test]
        fn any_keysym(keysym in any::<u32>()) {
            if let Some(found) = from_keysym(keysym) {
                prop_assert!(found.key.0 != 0);
            }
        }
    }
}
