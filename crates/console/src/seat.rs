//! Input on its way from consoles to devices.

use crate::frames::Frames;
use crate::keys::{Stroke, Untypable, strokes};
use device::input::{Button, Event, Input, Key, Wants};
use parking_lot::{Mutex, RwLock};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The devices, and what of them is held down by whom.
#[derive(Default)]
pub(crate) struct Routes {
    inputs: RwLock<Vec<Arc<dyn Input>>>,
    held: Mutex<Held>,
}

/// How many seats hold each key and button: a device sees the first press and the last release.
#[derive(Default)]
struct Held {
    keys: BTreeMap<Key, u32>,
    buttons: [u32; 5],
    /// The last absolute position, from which a mouse's motion is made.
    position: Option<(u16, u16)>,
}

const BUTTONS: [Button; 5] = [
    Button::Left,
    Button::Right,
    Button::Middle,
    Button::Side,
    Button::Extra,
];

impl Routes {
    pub(crate) fn add(&self, input: Arc<dyn Input>) {
        self.inputs.write().push(input);
    }

    fn find(&self, wanted: impl Fn(Wants) -> bool) -> Option<Arc<dyn Input>> {
        self.inputs
            .read()
            .iter()
            .rev()
            .find(|input| wanted(input.wants()))
            .cloned()
    }

    fn pointer(&self) -> Option<Arc<dyn Input>> {
        self.find(|wants| wants.position)
            .or_else(|| self.find(|wants| wants.motion))
    }

    pub(crate) fn absolute(&self) -> bool {
        self.find(|wants| wants.position).is_some()
    }

    /// Counts a press or release; true if the device has to know.
    fn count(holders: &mut u32, down: bool) -> bool {
        if down {
            *holders += 1;
            *holders == 1
        } else {
            *holders -= 1;
            *holders == 0
        }
    }

    fn key(&self, key: Key, down: bool) {
        let mut held = self.held.lock();
        if !Routes::count(held.keys.entry(key).or_default(), down) {
            return;
        }
        if !down {
            held.keys.remove(&key);
        }
        // Under the lock, so that two seats' events keep their order.
        if let Some(keyboard) = self.find(|wants| wants.keys) {
            keyboard.event(Event::Key { key, down });
        }
    }

    fn button(&self, index: usize, down: bool) {
        let mut held = self.held.lock();
        if !Routes::count(&mut held.buttons[index], down) {
            return;
        }
        if let Some(pointer) = self.pointer() {
            pointer.event(Event::Button {
                button: BUTTONS[index],
                down,
            });
        }
    }

    fn position(&self, x: u16, y: u16, size: (u32, u32)) {
        let mut held = self.held.lock();
        let before = held.position.replace((x, y));
        if let Some(tablet) = self.find(|wants| wants.position) {
            tablet.event(Event::Position { x, y });
        } else if let (Some(mouse), Some((old_x, old_y))) =
            (self.find(|wants| wants.motion), before)
        {
            // Pixels now less pixels before: rounding does not add up.
            let pixels = |at: u16, size: u32| (u64::from(at) * u64::from(size) / 0x8000) as i32;
            let x = pixels(x, size.0) - pixels(old_x, size.0);
            let y = pixels(y, size.1) - pixels(old_y, size.1);
            if (x, y) != (0, 0) {
                mouse.event(Event::Motion { x, y });
            }
        }
    }
}

/// One console's keyboard and pointer. What it holds down is released when it is dropped: a client that is cut off leaves no
/// key behind.
pub struct Seat {
    routes: Arc<Routes>,
    frames: Arc<Frames>,
    keys: Mutex<Vec<Key>>,
    buttons: Mutex<[bool; 5]>,
}

impl Seat {
    pub(crate) fn new(routes: Arc<Routes>, frames: Arc<Frames>) -> Seat {
        Seat {
            routes,
            frames,
            keys: Mutex::default(),
            buttons: Mutex::default(),
        }
    }

    /// Presses or releases a key. A key that is down already stays so: guests repeat keys by themselves.
    pub fn key(&self, key: Key, down: bool) {
        let mut keys = self.keys.lock();
        match (keys.iter().position(|held| *held == key), down) {
            (None, true) => keys.push(key),
            (Some(at), false) => {
                keys.swap_remove(at);
            }
            _ => return,
        }
        self.routes.key(key, down);
        self.frames.hurry();
    }

    /// Whether this seat holds `key` down.
    pub fn holds(&self, key: Key) -> bool {
        self.keys.lock().contains(&key)
    }

    /// The pointer is at a place of the whole screen: 0 to 0x7fff each way.
    pub fn position(&self, x: u16, y: u16) {
        self.routes
            .position(x.min(0x7fff), y.min(0x7fff), self.frames.size());
        self.frames.hurry();
    }

    /// The pointer is at a pixel.
    pub fn pixel(&self, x: u32, y: u32) {
        let (width, height) = self.frames.size();
        let scale = |at: u32, size: u32| match size {
            0 | 1 => 0,
            // The middle of the pixel would round to itself; the edges reach 0 and 0x7fff.
            _ => (u64::from(at.min(size - 1)) * 0x7fff)
                .div_ceil(u64::from(size - 1))
                .min(0x7fff) as u16,
        };
        self.position(scale(x, width), scale(y, height));
    }

    /// The pointer moved by so many pixels.
    pub fn motion(&self, x: i32, y: i32) {
        if let Some(mouse) = self.routes.find(|wants| wants.motion) {
            mouse.event(Event::Motion { x, y });
            self.frames.hurry();
        }
    }

    /// Presses or releases a button.
    pub fn button(&self, button: Button, down: bool) {
        let index = BUTTONS
            .iter()
            .position(|known| *known == button)
            .unwrap_or(0);
        let mut buttons = self.buttons.lock();
        if buttons[index] != down {
            buttons[index] = down;
            self.routes.button(index, down);
            self.frames.hurry();
        }
    }

    /// Turns the wheel; positive is away from the user.
    pub fn wheel(&self, steps: i32) {
        if let Some(pointer) = self.routes.pointer() {
            pointer.event(Event::Wheel { steps });
            self.frames.hurry();
        }
    }

    /// Presses `keys` one after the other, holds them, and releases them in turn. Waits meanwhile.
    pub fn press_together(&self, keys: &[Key], hold: Duration) {
        for key in keys {
            self.key(*key, true);
        }
        std::thread::sleep(hold);
        for key in keys.iter().rev() {
            self.key(*key, false);
        }
    }

    /// Types text on a US keyboard, `pace` for each press and each release: 20 ms suits firmware as well. Waits meanwhile.
    pub fn type_text(&self, text: &str, pace: Duration) -> Result<(), Untypable> {
        for Stroke { key, shift } in strokes(text)? {
            let keys: &[Key] = if shift {
                &[crate::keys::LEFT_SHIFT, key]
            } else {
                &[key]
            };
            self.press_together(keys, pace);
            std::thread::sleep(pace);
        }
        Ok(())
    }

    /// Releases all that this seat holds down.
    pub fn release_all(&self) {
        for key in std::mem::take(&mut *self.keys.lock()) {
            self.routes.key(key, false);
        }
        for (index, down) in std::mem::take(&mut *self.buttons.lock())
            .into_iter()
            .enumerate()
        {
            if down {
                self.routes.button(index, false);
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.release_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Display;

    struct Recorder(Wants, Mutex<Vec<Event>>);

    impl Recorder {
        fn new(keys: bool, position: bool, motion: bool) -> Arc<Recorder> {
            Arc::new(Recorder(
                Wants {
                    keys,
                    position,
                    motion,
                },
                Mutex::default(),
            ))
        }

        fn take(&self) -> Vec<Event> {
            std::mem::take(&mut *self.1.lock())
        }
    }

    impl Input for Recorder {
        fn wants(&self) -> Wants {
            self.0
        }

        fn event(&self, event: Event) {
            self.1.lock().push(event);
        }
    }

    const A: Key = Key(4);

    #[test]
    fn keys_go_to_the_last_keyboard_and_are_released() {
        let display = Display::new();
        let (first, second) = (
            Recorder::new(true, false, false),
            Recorder::new(true, false, false),
        );
        display.add_input(first.clone());
        display.add_input(second.clone());
        let (seat, other) = (display.seat(), display.seat());
        seat.key(A, true);
        seat.key(A, true);
        other.key(A, true);
        seat.button(Button::Left, true);
        drop(seat);
        assert_eq!(
            second.take(),
            [Event::Key { key: A, down: true }],
            "the other seat still holds it"
        );
        other.key(Key(5), false);
        drop(other);
        assert_eq!(
            second.take(),
            [Event::Key {
                key: A,
                down: false
            }]
        );
        assert!(first.take().is_empty());
    }

    #[test]
    fn positions_become_motion_for_a_mouse() {
        let display = Display::new();
        let mouse = Recorder::new(false, false, true);
        display.add_input(mouse.clone());
        let seat = display.seat();
        assert!(!display.absolute());
        seat.pixel(0, 0);
        seat.pixel(10, 20);
        seat.pixel(639, 479);
        let moved = mouse
            .take()
            .iter()
            .fold((0, 0), |(x, y), event| match event {
                Event::Motion { x: dx, y: dy } => (x + dx, y + dy),
                other => panic!("{other:?}"),
            });
        assert_eq!(moved, (639, 479));

        let tablet = Recorder::new(false, true, false);
        display.add_input(tablet.clone());
        seat.pixel(639, 479);
        seat.button(Button::Right, true);
        seat.wheel(-1);
        let expected = [
            Event::Position {
                x: 0x7fff,
                y: 0x7fff,
            },
            Event::Button {
                button: Button::Right,
                down: true,
            },
            Event::Wheel { steps: -1 },
        ];
        assert_eq!(tablet.take(), expected);
        drop(seat);
        assert_eq!(
            tablet.take(),
            [Event::Button {
                button: Button::Right,
                down: false
            }]
        );
        assert!(mouse.take().is_empty());
    }

    #[test]
    fn text_is_typed() {
        let display = Display::new();
        let keyboard = Recorder::new(true, false, false);
        display.add_input(keyboard.clone());
        display.seat().type_text("a!\n", Duration::ZERO).unwrap();
        let down: Vec<_> = keyboard
            .take()
            .iter()
            .filter_map(|event| match event {
                Event::Key { key, down: true } => Some(key.0),
                _ => None,
            })
            .collect();
        assert_eq!(down, [0x04, 0xe1, 0x1e, 0x28]);
        assert!(display.seat().type_text("ü", Duration::ZERO).is_err());
    }
}
