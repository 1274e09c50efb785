//! Keys of VNC clients on their way to a US keyboard.

use crate::Seat;
use crate::keys::{CAPS_LOCK, Key, LEFT_SHIFT, RIGHT_SHIFT, from_keysym, from_number};

/// One client's keyboard.
///
/// A client sends characters (keysyms), and guests take keys. Where the character needs another state of Shift than the
/// client's, as when the client's layout is not the guest's, Shift is pressed or released for just that key.
#[derive(Default)]
pub(super) struct Keyboard {
    /// The client's Caps Lock, by the presses that were seen.
    caps: bool,
}

impl Keyboard {
    /// A KeyEvent (RFC 6143, section 7.5.4).
    pub(super) fn keysym(&mut self, seat: &Seat, keysym: u32, down: bool) {
        let Some(found) = from_keysym(keysym) else {
            tracing::debug!("no key for keysym {keysym:#x}");
            return;
        };
        if keysym == CAPS_LOCK && down {
            self.caps = !self.caps;
        }
        let wanted = match found.shift {
            // With Caps Lock, the guest turns the letter's case by itself.
            Some(shift) if found.letter => Some(shift != self.caps),
            other => other,
        };
        // A keypad's or a letter's Shift is not to be touched while a shortcut is pressed.
        let shortcut = [0xe0, 0xe2, 0xe3, 0xe4, 0xe7]
            .iter()
            .any(|usage| seat.holds(Key(*usage)));
        let held = seat.holds(LEFT_SHIFT) || seat.holds(RIGHT_SHIFT);
        match wanted {
            Some(wanted) if down && wanted != held && !shortcut => {
                if wanted {
                    seat.key(LEFT_SHIFT, true);
                    seat.key(found.key, true);
                    seat.key(LEFT_SHIFT, false);
                } else {
                    let shifts: Vec<Key> = [LEFT_SHIFT, RIGHT_SHIFT]
                        .into_iter()
                        .filter(|key| seat.holds(*key))
                        .collect();
                    shifts.iter().for_each(|key| seat.key(*key, false));
                    seat.key(found.key, true);
                    shifts.iter().for_each(|key| seat.key(*key, true));
                }
            }
            _ => seat.key(found.key, down),
        }
    }

    /// A QEMU Extended Key Event, which names the key itself (an XT scan code); the character is for keys that have none.
    pub(super) fn key_code(&mut self, seat: &Seat, keysym: u32, code: u32, down: bool) {
        match from_number(code) {
            Ok(key) => {
                if keysym == CAPS_LOCK && down {
                    self.caps = !self.caps;
                }
                seat.key(key, down);
            }
            Err(_) => self.keysym(seat, keysym, down),
        }
    }
}
