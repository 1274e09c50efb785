//! What consoles see of an output.

use std::sync::Arc;

use ::device::screen::{Cursor, CursorImage, Screen, Surface, next_setup};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

/// A part of a picture, in pixels.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rectangle {
    pub x: u32,
    pub y: u32,
    pub width: u32,
    pub height: u32,
}

impl Rectangle {
    /// Whether it lies in a picture of that size.
    pub fn is_within(&self, width: u32, height: u32) -> bool {
        let end = |start: u32, length: u32| u64::from(start) + u64::from(length);
        end(self.x, self.width) <= width.into() && end(self.y, self.height) <= height.into()
    }

    /// What two have in common; `None` if nothing.
    pub fn intersection(&self, other: &Rectangle) -> Option<Rectangle> {
        let common = |a: u32, a_length: u32, b: u32, b_length: u32| {
            let start = a.max(b);
            let end = (u64::from(a) + u64::from(a_length)).min(u64::from(b) + u64::from(b_length));
            let length = end.checked_sub(start.into()).filter(|n| *n > 0)?;
            Some((start, length as u32))
        };
        let (x, width) = common(self.x, self.width, other.x, other.width)?;
        let (y, height) = common(self.y, self.height, other.y, other.height)?;
        Some(Rectangle {
            x,
            y,
            width,
            height,
        })
    }
}

/// The size that whoever looks at an output would like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Connected.
    pub enabled: bool,
    pub width: u32,
    pub height: u32,
}

/// What the console's side of an output holds: none of it is the machine's state, all of it is made anew from that.
#[derive(Default)]
struct Shown {
    surface: Surface,
    setup: u64,
    version: u64,
    cursor: Option<Cursor>,
    /// [`Screen::drawn`].
    drawn: bool,
}

/// Called when the wish of an output has changed.
pub type OnWish = Box<dyn Fn() + Send + Sync>;

/// An output, as consoles have it: the picture as of the guest's last flush.
pub struct Head {
    shown: Mutex<Shown>,
    wish: Mutex<Wish>,
    on_wish: OnWish,
}

/// Smaller pictures are of no use to any guest.
const LEAST: (u32, u32) = (320, 200);
/// The display's own limit.
pub const LARGEST: u32 = 16384;

impl Head {
    /// With nothing shown.
    pub fn new(wish: Wish, on_wish: OnWish) -> Arc<Head> {
        Arc::new(Head {
            shown: Mutex::default(),
            wish: Mutex::new(wish),
            on_wish,
        })
    }

    pub fn wish(&self) -> Wish {
        *self.wish.lock()
    }

    /// Bytes of host memory that its picture takes.
    pub fn cost(&self) -> u64 {
        self.shown.lock().surface.pixels.len() as u64 * 4
    }

    /// The guest has set a mode: the picture has this size, and is black where nothing is put into it.
    pub fn set(&self, width: u32, height: u32) {
        let mut shown = self.shown.lock();
        if (shown.surface.width, shown.surface.height) != (width, height) {
            shown.surface = Surface::new(width, height);
        }
        shown.setup = next_setup();
        shown.version += 1;
    }

    /// The guest has turned the output off: black, but still what it programmed last.
    pub fn blank(&self) {
        let mut shown = self.shown.lock();
        shown.surface.pixels.fill(0);
        shown.version += 1;
    }

    /// The device was reset: nothing is shown.
    pub fn clear(&self) {
        let mut shown = self.shown.lock();
        *shown = Shown {
            version: shown.version + 1,
            ..Shown::default()
        };
    }

    /// Changes rows of the picture: `row` is called with the row's number (from the picture's top) and the pixels of `part`.
    pub fn change(&self, part: Rectangle, mut row: impl FnMut(u32, &mut [u32])) {
        let mut shown = self.shown.lock();
        let shown = &mut *shown;
        let surface = &mut shown.surface;
        if !part.is_within(surface.width, surface.height) {
            return;
        }
        for y in part.y..part.y + part.height {
            let start = y as usize * surface.width as usize + part.x as usize;
            let pixels = &mut surface.pixels[start..start + part.width as usize];
            row(y, pixels);
            shown.drawn = shown.drawn || pixels.iter().any(|pixel| pixel & 0xff_ffff != 0);
        }
        shown.version += 1;
    }

    /// The pointer is somewhere else.
    pub fn move_cursor(&self, x: i32, y: i32) {
        let cursor = &mut self.shown.lock().cursor;
        let image = cursor.take().and_then(|c| c.image);
        *cursor = Some(Cursor { x, y, image });
    }

    /// The pointer looks different.
    pub fn set_cursor(&self, x: i32, y: i32, image: Option<CursorImage>) {
        let image = image.map(Arc::new);
        self.shown.lock().cursor = Some(Cursor { x, y, image });
    }
}

impl Screen for Head {
    fn setup(&self) -> u64 {
        self.shown.lock().setup
    }

    fn drawn(&self) -> bool {
        self.shown.lock().drawn
    }

    fn capture(&self, surface: &mut Surface) -> bool {
        let shown = self.shown.lock();
        if shown.setup == 0 {
            return false;
        }
        surface.width = shown.surface.width;
        surface.height = shown.surface.height;
        surface.pixels.clone_from(&shown.surface.pixels);
        true
    }

    fn version(&self) -> Option<u64> {
        Some(self.shown.lock().version)
    }

    fn cursor(&self) -> Option<Cursor> {
        self.shown.lock().cursor.clone()
    }

    fn request_size(&self, width: u32, height: u32) -> bool {
        let wish = Wish {
            enabled: true,
            width: width.clamp(LEAST.0, LARGEST),
            height: height.clamp(LEAST.1, LARGEST),
        };
        let before = std::mem::replace(&mut *self.wish.lock(), wish);
        if before != wish {
            (self.on_wish)();
        }
        true
    }
}
