//! All screens and input devices of a machine.

use crate::frames::{Frames, Viewer};
use crate::seat::{Routes, Seat};
use device::input::Input;
use device::screen::{Screen, Surface};
use parking_lot::RwLock;
use std::sync::Arc;

/// The machine's display: the screen whose mode the guest set last, and the devices that take input.
pub struct Display {
    screens: Arc<RwLock<Vec<Arc<dyn Screen>>>>,
    frames: Arc<Frames>,
    routes: Arc<Routes>,
}

impl Display {
    /// Without screens and devices as yet.
    pub fn new() -> Arc<Display> {
        let screens: Arc<RwLock<Vec<Arc<dyn Screen>>>> = Arc::default();
        let source = screens.clone();
        let frames = Frames::new(move |surface| capture(&source.read(), surface));
        Arc::new(Display {
            screens,
            frames,
            routes: Arc::default(),
        })
    }

    /// Adds a screen: ramfb, a GPU's scanout.
    pub fn add_screen(&self, screen: Arc<dyn Screen>) {
        self.screens.write().push(screen);
    }

    /// Adds a keyboard, tablet or mouse. Of several that want the same, the one added last gets it.
    pub fn add_input(&self, input: Arc<dyn Input>) {
        self.routes.add(input);
    }

    /// A view of the picture, for one console or one client of it. `on_change` is called on the display's own thread when
    /// the picture has changed while the viewer was looking; it must not wait.
    pub fn viewer(&self, on_change: impl Fn() + Send + Sync + 'static) -> Viewer {
        self.frames.viewer(Arc::new(on_change))
    }

    /// A place to give input from, for one console or one client of it.
    pub fn seat(&self) -> Seat {
        Seat::new(self.routes.clone(), self.frames.clone())
    }

    /// The picture as it is now; `None` if no screen was ever set up.
    pub fn capture(&self) -> Option<Surface> {
        let mut surface = Surface::default();
        capture(&self.screens.read(), &mut surface).then_some(surface)
    }

    /// Whether a device takes absolute positions.
    pub fn absolute(&self) -> bool {
        self.routes.absolute()
    }
}

/// Captures the screen with the latest set-up; if that has no picture (its memory is gone), the one before it.
fn capture(screens: &[Arc<dyn Screen>], surface: &mut Surface) -> bool {
    let mut latest: Vec<(u64, &Arc<dyn Screen>)> = screens
        .iter()
        .map(|screen| (screen.setup(), screen))
        .filter(|(setup, _)| *setup > 0)
        .collect();
    latest.sort_by_key(|(setup, _)| std::cmp::Reverse(*setup));
    latest
        .iter()
        .any(|(_, screen)| screen.capture(surface) && sound(surface))
}

/// A device's picture is trusted only as far as its sizes agree.
fn sound(surface: &Surface) -> bool {
    let pixels = u64::from(surface.width) * u64::from(surface.height);
    pixels > 0
        && pixels == surface.pixels.len() as u64
        && surface.width <= 16384
        && surface.height <= 16384
}

#[cfg(test)]
mod tests {
    use super::*;
    use device::screen::next_setup;
    use parking_lot::Mutex;

    struct Plain(u64, Mutex<Option<Surface>>);

    impl Screen for Plain {
        fn setup(&self) -> u64 {
            self.0
        }

        fn capture(&self, surface: &mut Surface) -> bool {
            self.1.lock().as_ref().is_some_and(|own| {
                surface.clone_from(own);
                true
            })
        }
    }

    #[test]
    fn the_latest_setup_is_shown() {
        let display = Display::new();
        assert_eq!(display.capture(), None);
        let early = Arc::new(Plain(next_setup(), Mutex::new(Some(Surface::new(4, 4)))));
        let late = Arc::new(Plain(next_setup(), Mutex::new(Some(Surface::new(8, 8)))));
        display.add_screen(late.clone());
        display.add_screen(early);
        display.add_screen(Arc::new(Plain(0, Mutex::new(Some(Surface::new(1, 1))))));
        assert_eq!(display.capture().unwrap().width, 8);
        *late.1.lock() = None;
        assert_eq!(
            display.capture().unwrap().width,
            4,
            "a screen without a picture gives way"
        );
        *late.1.lock() = Some(Surface {
            width: 100,
            height: 100,
            pixels: vec![0; 3],
        });
        assert_eq!(
            display.capture().unwrap().width,
            4,
            "so does one with a wrong picture"
        );
    }
}
