//! What devices show, and to whom.

use std::sync::Arc;

/// A picture: rows of 32-bit pixels, 0x00RRGGBB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surface {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// `width * height` pixels, no padding.
    pub pixels: Vec<u32>,
}

impl Surface {
    /// A black picture.
    pub fn new(width: u32, height: u32) -> Surface {
        Surface {
            width,
            height,
            pixels: vec![0; width as usize * height as usize],
        }
    }
}

/// A pointer's picture: rows of 32-bit pixels, 0xAARRGGBB, as the guest gave it: most guests' colours are
/// multiplied by alpha.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CursorImage {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// The pixel of the picture that points.
    pub hot_x: u32,
    /// The pixel of the picture that points.
    pub hot_y: u32,
    /// `width * height` pixels, no padding.
    pub pixels: Vec<u32>,
}

/// A pointer that the device draws over its picture (a hardware cursor).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// Where its hot spot is, in pixels of the screen.
    pub x: i32,
    /// Where its hot spot is, in pixels of the screen.
    pub y: i32,
    /// `None`: hidden by the guest.
    pub image: Option<Arc<CursorImage>>,
}

/// A device with a picture (ramfb, a GPU's scanout). Consoles poll it, 60 times a second at the most, only while somebody looks.
pub trait Screen: Send + Sync {
    /// Counts the guest's set-ups of a mode: the console shows the screen whose set-up is the latest. 0: never set up.
    /// Drawn from [`next_setup`].
    fn setup(&self) -> u64;

    /// Whether it has shown anything but black since the device was reset. A driver may set a mode that nothing is ever drawn
    /// to (Linux gives a GPU a console that stays unused while the firmware's frame buffer has the text): such a screen
    /// gives way to one that is drawn to.
    fn drawn(&self) -> bool {
        true
    }

    /// Puts the present picture into `surface`, resizing it as needed. Returns false, leaving it alone, if there is none
    /// (never set up, or its memory is not RAM).
    fn capture(&self, surface: &mut Surface) -> bool;

    /// Counts changes of the picture, if the device knows of them: what was captured at the same count need not be
    /// captured again.
    fn version(&self) -> Option<u64> {
        None
    }

    /// The pointer that belongs over the picture, if the device has one. It is not part of what is captured.
    fn cursor(&self) -> Option<Cursor> {
        None
    }

    /// Somebody who looks would like the picture to have this size in pixels (a window was resized): the guest is told.
    /// False if the device has no way to tell it.
    fn request_size(&self, _width: u32, _height: u32) -> bool {
        false
    }
}

/// A number larger than all that were drawn before, for [`Screen::setup`].
pub fn next_setup() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
