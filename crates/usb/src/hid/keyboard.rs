//! The boot keyboard (HID 1.11, appendix B.1).

use std::collections::VecDeque;

use device::input::{Event, Key, Wants};
use serde::{Deserialize, Serialize};

use super::{Protocol, Report, Reports};

/// Usage of left Control; the eight modifiers follow each other.
const FIRST_MODIFIER: u8 = 0xe0;
const LAST_MODIFIER: u8 = 0xe7;
/// "ErrorRollOver": more keys are down than a report holds.
const ROLL_OVER: u8 = 1;
/// Usages below are no keys.
const FIRST_KEY: u8 = 4;
/// The keys a report holds.
const KEYS: usize = 6;

/// The lamps (HID 1.11, B.1: the output report).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leds {
    pub num_lock: bool,
    pub caps_lock: bool,
    pub scroll_lock: bool,
    pub compose: bool,
    pub kana: bool,
}

/// What is held down.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyboardReports {
    modifiers: u8,
    /// In the order they went down.
    keys: Vec<u8>,
    /// The output report.
    lamps: u8,
}

impl Reports for KeyboardReports {
    const NAME: &'static str = "usb-kbd";
    const PRODUCT: &'static str = "Dormer USB Keyboard";
    const SUBCLASS: [u8; 2] = [1, 1];
    const PACKET: u16 = 8;
    const WANTS: Wants = Wants {
        keys: true,
        position: false,
        motion: false,
    };

    #[rustfmt::skip]
    const DESCRIPTOR: &'static [u8] = &[
        0x05, 0x01, 0x09, 0x06, 0xa1, 0x01, // Generic Desktop, Keyboard, collection (application)
        0x05, 0x07, 0x19, 0xe0, 0x29, 0xe7, //   keyboard usages: the modifiers
        0x15, 0x00, 0x25, 0x01, 0x75, 0x01, 0x95, 0x08, 0x81, 0x02, // 8 bits
        0x95, 0x01, 0x75, 0x08, 0x81, 0x01, //   a constant byte
        0x05, 0x08, 0x19, 0x01, 0x29, 0x05, //   LEDs 1..5
        0x95, 0x05, 0x75, 0x01, 0x91, 0x02, //   5 output bits
        0x95, 0x01, 0x75, 0x03, 0x91, 0x01, //   3 constant bits
        0x05, 0x07, 0x19, 0x00, 0x2a, 0xff, 0x00, // keyboard usages 0..255
        0x15, 0x00, 0x26, 0xff, 0x00, 0x95, 0x06, 0x75, 0x08, 0x81, 0x00, // an array of six
        0xc0,
    ];

    fn event(&mut self, event: Event, protocol: Protocol, queue: &mut VecDeque<Report>) {
        let Event::Key {
            key: Key(key),
            down,
        } = event
        else {
            return;
        };
        let before = (self.modifiers, self.keys.clone());
        match key {
            FIRST_MODIFIER..=LAST_MODIFIER => {
                let bit = 1 << (key - FIRST_MODIFIER);
                self.modifiers = if down {
                    self.modifiers | bit
                } else {
                    self.modifiers & !bit
                };
            }
            FIRST_KEY.. if down && !self.keys.contains(&key) => self.keys.push(key),
            FIRST_KEY.. if !down => self.keys.retain(|&k| k != key),
            _ => {}
        }
        // The host repeats held keys by itself: a key that is down going down again is no news.
        if before != (self.modifiers, self.keys.clone()) {
            queue.push_back(self.current(protocol));
        }
    }

    fn current(&self, _: Protocol) -> Report {
        let mut bytes = [0; 8];
        bytes[0] = self.modifiers;
        if self.keys.len() > KEYS {
            bytes[2..].fill(ROLL_OVER);
        } else {
            bytes[2..2 + self.keys.len()].copy_from_slice(&self.keys);
        }
        Report::new(&bytes)
    }

    fn output(&mut self, bytes: &[u8]) -> bool {
        match bytes.first() {
            Some(&lamps) => {
                self.lamps = lamps;
                true
            }
            None => false,
        }
    }
}

impl super::Keyboard {
    /// The lamps as the guest set them.
    pub fn leds(&self) -> Leds {
        let lamps = self.state.lock().reports.lamps;
        Leds {
            num_lock: lamps & 1 != 0,
            caps_lock: lamps & 2 != 0,
            scroll_lock: lamps & 4 != 0,
            compose: lamps & 8 != 0,
            kana: lamps & 16 != 0,
        }
    }
}
