//! The tablet and the mouse (HID 1.11, appendix B.2 for the boot mouse).

use std::collections::VecDeque;

use device::input::{Button, Event, Wants};
use serde::{Deserialize, Serialize};

use super::{Protocol, QUEUE, Report, Reports};

fn bit(button: Button) -> u8 {
    match button {
        Button::Left => 1,
        Button::Right => 2,
        Button::Middle => 4,
        Button::Side => 8,
        Button::Extra => 16,
    }
}

fn with(buttons: u8, button: Button, down: bool) -> u8 {
    if down {
        buttons | bit(button)
    } else {
        buttons & !bit(button)
    }
}

/// One report's worth of a distance, and what is left.
fn part(distance: i32) -> (i8, i32) {
    let now = distance.clamp(-127, 127);
    (now as i8, distance - now)
}

/// Reports that one event may give: a wheel or mouse that is said to move further than this is a broken console.
const MOST: i32 = 127 * (QUEUE as i32 / 4);

/// Where the tablet's pen is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TabletReports {
    buttons: u8,
    x: u16,
    y: u16,
}

impl TabletReports {
    fn report(&self, wheel: i8) -> Report {
        let ([x, xh], [y, yh]) = (self.x.to_le_bytes(), self.y.to_le_bytes());
        Report::new(&[self.buttons, x, xh, y, yh, wheel as u8])
    }
}

impl Reports for TabletReports {
    const NAME: &'static str = "usb-tablet";
    const PRODUCT: &'static str = "Dormer USB Tablet";
    const SUBCLASS: [u8; 2] = [0, 0];
    const PACKET: u16 = 8;
    const WANTS: Wants = Wants {
        keys: false,
        position: true,
        motion: false,
    };

    #[rustfmt::skip]
    const DESCRIPTOR: &'static [u8] = &[
        0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, // Generic Desktop, Mouse, collection (application)
        0x09, 0x01, 0xa1, 0x00,             //   Pointer, collection (physical)
        0x05, 0x09, 0x19, 0x01, 0x29, 0x05, //     buttons 1..5
        0x15, 0x00, 0x25, 0x01, 0x95, 0x05, 0x75, 0x01, 0x81, 0x02,
        0x95, 0x01, 0x75, 0x03, 0x81, 0x01, //     3 constant bits
        0x05, 0x01, 0x09, 0x30, 0x09, 0x31, //     X, Y
        0x15, 0x00, 0x26, 0xff, 0x7f, 0x35, 0x00, 0x46, 0xff, 0x7f,
        0x75, 0x10, 0x95, 0x02, 0x81, 0x02, //     absolute, 0..0x7fff
        0x05, 0x01, 0x09, 0x38,             //     Wheel
        0x15, 0x81, 0x25, 0x7f, 0x35, 0x00, 0x45, 0x00,
        0x75, 0x08, 0x95, 0x01, 0x81, 0x06, //     relative
        0xc0, 0xc0,
    ];

    fn event(&mut self, event: Event, _: Protocol, queue: &mut VecDeque<Report>) {
        match event {
            Event::Position { x, y } => {
                let (x, y) = (x.min(0x7fff), y.min(0x7fff));
                if (self.x, self.y) == (x, y) {
                    return;
                }
                // A place the host has not asked about yet, with the same buttons and no wheel, is passed over.
                // It must not be one that a button changed at.
                let before = self.report(0);
                (self.x, self.y) = (x, y);
                let n = queue.len();
                let passed = n >= 2
                    && queue[n - 1] == before
                    && queue[n - 2].bytes().first() == Some(&self.buttons);
                if passed {
                    queue.pop_back();
                }
                queue.push_back(self.report(0));
            }
            Event::Button { button, down } => {
                let buttons = with(self.buttons, button, down);
                if buttons != self.buttons {
                    self.buttons = buttons;
                    queue.push_back(self.report(0));
                }
            }
            Event::Wheel { steps } => {
                let mut left = steps.clamp(-MOST, MOST);
                while left != 0 {
                    let (now, rest) = part(left);
                    queue.push_back(self.report(now));
                    left = rest;
                }
            }
            Event::Key { .. } | Event::Motion { .. } => {}
        }
    }

    fn current(&self, _: Protocol) -> Report {
        self.report(0)
    }
}

/// The mouse's buttons; motion exists only in reports.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MouseReports {
    buttons: u8,
}

impl MouseReports {
    fn report(&self, protocol: Protocol, x: i8, y: i8, wheel: i8) -> Report {
        let bytes = [self.buttons, x as u8, y as u8, wheel as u8];
        match protocol {
            Protocol::Boot => Report::new(&[bytes[0] & 7, bytes[1], bytes[2]]),
            Protocol::Report => Report::new(&bytes),
        }
    }
}

impl Reports for MouseReports {
    const NAME: &'static str = "usb-mouse";
    const PRODUCT: &'static str = "Dormer USB Mouse";
    const SUBCLASS: [u8; 2] = [1, 2];
    const PACKET: u16 = 4;
    const WANTS: Wants = Wants {
        keys: false,
        position: false,
        motion: true,
    };

    #[rustfmt::skip]
    const DESCRIPTOR: &'static [u8] = &[
        0x05, 0x01, 0x09, 0x02, 0xa1, 0x01, // Generic Desktop, Mouse, collection (application)
        0x09, 0x01, 0xa1, 0x00,             //   Pointer, collection (physical)
        0x05, 0x09, 0x19, 0x01, 0x29, 0x05, //     buttons 1..5
        0x15, 0x00, 0x25, 0x01, 0x95, 0x05, 0x75, 0x01, 0x81, 0x02,
        0x95, 0x01, 0x75, 0x03, 0x81, 0x01, //     3 constant bits
        0x05, 0x01, 0x09, 0x30, 0x09, 0x31, 0x09, 0x38, // X, Y, Wheel
        0x15, 0x81, 0x25, 0x7f, 0x75, 0x08, 0x95, 0x03, 0x81, 0x06,
        0xc0, 0xc0,
    ];

    fn event(&mut self, event: Event, protocol: Protocol, queue: &mut VecDeque<Report>) {
        match event {
            Event::Motion { x, y } => {
                let (mut x, mut y) = (x.clamp(-MOST, MOST), y.clamp(-MOST, MOST));
                // Motion the host has not fetched yet adds up, as long as the buttons are the same.
                if let Some(last) = queue
                    .back()
                    .filter(|r| r.bytes()[0] == self.buttons && r.bytes().len() == 4)
                {
                    let b = last.bytes();
                    if b[3] == 0
                        && queue.len() >= 2
                        && queue[queue.len() - 2].bytes()[0] == self.buttons
                    {
                        (x, y) = (x + i32::from(b[1] as i8), y + i32::from(b[2] as i8));
                        queue.pop_back();
                    }
                }
                while x != 0 || y != 0 {
                    let ((dx, x_left), (dy, y_left)) = (part(x), part(y));
                    queue.push_back(self.report(protocol, dx, dy, 0));
                    (x, y) = (x_left, y_left);
                }
            }
            Event::Button { button, down } => {
                let buttons = with(self.buttons, button, down);
                if buttons != self.buttons {
                    self.buttons = buttons;
                    queue.push_back(self.report(protocol, 0, 0, 0));
                }
            }
            Event::Wheel { steps } if protocol == Protocol::Report => {
                let mut left = steps.clamp(-MOST, MOST);
                while left != 0 {
                    let (now, rest) = part(left);
                    queue.push_back(self.report(protocol, 0, 0, now));
                    left = rest;
                }
            }
            Event::Wheel { .. } | Event::Key { .. } | Event::Position { .. } => {}
        }
    }

    fn current(&self, protocol: Protocol) -> Report {
        self.report(protocol, 0, 0, 0)
    }
}
