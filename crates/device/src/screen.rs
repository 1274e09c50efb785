//! What devices show, and to whom.

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

/// A device with a picture (ramfb, a GPU's scanout). Consoles poll it, 30 times a second or so, only while somebody looks.
pub trait Screen: Send + Sync {
    /// Counts the guest's set-ups of a mode: the console shows the screen whose set-up is the latest. 0: never set up.
    /// Drawn from [`next_setup`].
    fn setup(&self) -> u64;

    /// Puts the present picture into `surface`, resizing it as needed. Returns false, leaving it alone, if there is none
    /// (never set up, or its memory is not RAM).
    fn capture(&self, surface: &mut Surface) -> bool;
}

/// A number larger than all that were drawn before, for [`Screen::setup`].
pub fn next_setup() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
