//! Keys and pointers, from consoles to devices.

/// A key, as USB HID usage on page 0x07 (HID Usage Tables 1.4, section 10): 0x04 is A, 0x28 Return, 0xe0 left Control.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u8);

/// A pointer's buttons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Button {
    Left,
    Right,
    Middle,
    Side,
    Extra,
}

/// One event. Positions are of the whole screen: 0 is the left or top edge, 0x7fff the right or bottom one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Key {
        key: Key,
        down: bool,
    },
    Button {
        button: Button,
        down: bool,
    },
    /// The pointer is now there.
    Position {
        x: u16,
        y: u16,
    },
    /// The pointer moved by so many pixels.
    Motion {
        x: i32,
        y: i32,
    },
    /// The wheel turned; positive is away from the user.
    Wheel {
        steps: i32,
    },
}

/// A device that takes input.
pub trait Input: Send + Sync {
    /// Which events it wants: (keys, absolute positions, relative motions). Buttons and wheel go with the pointers.
    fn wants(&self) -> Wants;

    /// Takes one event. Never waits; a device whose queue is full drops the oldest.
    fn event(&self, event: Event);
}

/// What an [`Input`] device listens to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub keys: bool,
    pub position: bool,
    pub motion: bool,
}
