//! All screens and input devices of a machine.

use crate::frames::{Frames, Viewer};
use crate::seat::{Routes, Seat};
use device::input::Input;
use device::screen::{Cursor, Screen, Surface};
use parking_lot::{Mutex, RwLock};
use std::sync::{Arc, Weak};
use std::time::SystemTime;

/// The machine's display: of the screens that are drawn to, the one whose mode the guest set last; and the devices that take input.
pub struct Display {
    screens: Arc<RwLock<Vec<Arc<dyn Screen>>>>,
    heads: RwLock<Vec<Head>>,
    frames: Arc<Frames>,
    routes: Arc<Routes>,
    guarded: Mutex<Vec<Weak<dyn Guarded>>>,
}

/// A console that asks its clients for a password.
pub trait Guarded: Send + Sync {
    /// Sets what new clients have to know; `None` lets nobody in. False if it asks for none.
    fn set_password(&self, password: Option<&str>) -> bool;

    /// The password is good until then; `None`: for ever. False if it asks for none.
    fn expire(&self, at: Option<SystemTime>) -> bool;

    /// Sends its clients away.
    fn disconnect(&self);

    /// Where and how it can be reached.
    fn info(&self) -> GuardedInfo;
}

/// What there is to say of a console on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuardedInfo {
    /// What to give a viewer: an address, or a socket's path.
    pub location: String,
    /// `ipv4`, `ipv6` or `unix`.
    pub family: &'static str,
    /// Whether it asks for a password.
    pub password: bool,
    /// Clients at present.
    pub clients: usize,
}

/// A head of a device that may have several.
struct Head {
    /// The device's id.
    device: String,
    /// From 0 on.
    number: u32,
    screen: Arc<dyn Screen>,
}

impl Display {
    /// Without screens and devices as yet.
    pub fn new() -> Arc<Display> {
        let screens: Arc<RwLock<Vec<Arc<dyn Screen>>>> = Arc::default();
        let mut source = Source {
            screens: screens.clone(),
            last: None,
        };
        let pointers = screens.clone();
        let frames = Frames::new(
            move |surface| source.capture(surface),
            move || cursor(&pointers.read()),
        );
        Arc::new(Display {
            screens,
            heads: RwLock::default(),
            frames,
            routes: Arc::default(),
            guarded: Mutex::default(),
        })
    }

    /// Adds a screen: ramfb, a GPU's first scanout.
    pub fn add_screen(&self, screen: Arc<dyn Screen>) {
        self.screens.write().push(screen);
    }

    /// Adds a head of a device by its name: that alone gives it no part in the picture that consoles show by themselves.
    pub fn add_head(&self, device: &str, number: u32, screen: Arc<dyn Screen>) {
        self.heads.write().push(Head {
            device: device.into(),
            number,
            screen,
        });
    }

    /// A head of a device, by the device's id and its number.
    pub fn head(&self, device: &str, head: u32) -> Option<Arc<dyn Screen>> {
        let heads = self.heads.read();
        let found = heads
            .iter()
            .find(|h| h.device == device && h.number == head);
        found.map(|h| h.screen.clone())
    }

    /// A window or viewer now has room for so many pixels: the guest is asked for a picture of that size. False if no
    /// device can ask it, and the picture is to be scaled.
    pub fn request_size(&self, width: u32, height: u32) -> bool {
        let mut taken = false;
        for screen in self.screens.read().iter() {
            taken |= screen.request_size(width, height);
        }
        taken
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

    /// Adds a console with a password; it is forgotten when it ends.
    pub(crate) fn add_guarded(&self, console: Weak<dyn Guarded>) {
        self.guarded.lock().push(console);
    }

    /// The consoles with passwords.
    pub fn guarded(&self) -> Vec<Arc<dyn Guarded>> {
        self.guarded
            .lock()
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
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

/// What the display's thread captures: nothing as long as the same screen's picture has not changed.
struct Source {
    screens: Arc<RwLock<Vec<Arc<dyn Screen>>>>,
    /// Set-up and version of what was captured last.
    last: Option<(u64, u64)>,
}

impl Source {
    fn capture(&mut self, surface: &mut Surface) -> bool {
        let screens = self.screens.read();
        // Before the picture, so that a change meanwhile is captured the next time.
        let now = latest(&screens)
            .first()
            .and_then(|(setup, screen)| Some((*setup, screen.version()?)));
        if now.is_some() && now == self.last {
            return false;
        }
        let captured = capture(&screens, surface);
        self.last = now.filter(|_| captured);
        captured
    }
}

/// The screens that were ever set up, the latest first; after them those that have only been black.
fn latest(screens: &[Arc<dyn Screen>]) -> Vec<(u64, &Arc<dyn Screen>)> {
    let mut latest: Vec<(bool, u64, &Arc<dyn Screen>)> = screens
        .iter()
        .map(|screen| (screen.drawn(), screen.setup(), screen))
        .filter(|(_, setup, _)| *setup > 0)
        .collect();
    latest.sort_by_key(|(drawn, setup, _)| std::cmp::Reverse((*drawn, *setup)));
    let latest = latest.into_iter();
    latest.map(|(_, setup, screen)| (setup, screen)).collect()
}

/// Captures the screen with the latest set-up; if that has no picture (its memory is gone), the one before it.
fn capture(screens: &[Arc<dyn Screen>], surface: &mut Surface) -> bool {
    latest(screens)
        .iter()
        .any(|(_, screen)| screen.capture(surface) && sound(surface))
}

/// The pointer over the screen with the latest set-up.
fn cursor(screens: &[Arc<dyn Screen>]) -> Option<Cursor> {
    let cursor = latest(screens).first()?.1.cursor()?;
    let sound = cursor.image.as_ref().is_none_or(|image| {
        u64::from(image.width) * u64::from(image.height) == image.pixels.len() as u64
    });
    sound.then_some(cursor)
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

    struct Plain(u64, Mutex<Option<Surface>>);

    /// A screen that a driver has set up; `true`: and drawn to.
    struct SetUp(u64, Mutex<bool>);

    impl Screen for SetUp {
        fn setup(&self) -> u64 {
            self.0
        }

        fn drawn(&self) -> bool {
            *self.1.lock()
        }

        fn capture(&self, surface: &mut Surface) -> bool {
            *surface = Surface::new(16, 16);
            true
        }
    }

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

    /// A screen that tells of its changes.
    struct Told {
        version: Mutex<u64>,
        captures: Mutex<u32>,
        wanted: Mutex<(u32, u32)>,
    }

    impl Screen for Told {
        fn setup(&self) -> u64 {
            1
        }

        fn capture(&self, surface: &mut Surface) -> bool {
            *self.captures.lock() += 1;
            *surface = Surface::new(2, 2);
            true
        }

        fn version(&self) -> Option<u64> {
            Some(*self.version.lock())
        }

        fn cursor(&self) -> Option<Cursor> {
            Some(Cursor {
                x: 1,
                y: 2,
                image: None,
            })
        }

        fn request_size(&self, width: u32, height: u32) -> bool {
            *self.wanted.lock() = (width, height);
            true
        }
    }

    #[test]
    fn an_unchanged_picture_is_captured_once() {
        let told = Arc::new(Told {
            version: Mutex::new(1),
            captures: Mutex::new(0),
            wanted: Mutex::new((0, 0)),
        });
        let screens: Arc<RwLock<Vec<Arc<dyn Screen>>>> = Arc::default();
        screens.write().push(told.clone());
        let mut source = Source {
            screens: screens.clone(),
            last: None,
        };
        let mut surface = Surface::default();
        assert!(source.capture(&mut surface));
        assert!(!source.capture(&mut surface));
        *told.version.lock() = 2;
        assert!(source.capture(&mut surface));
        assert_eq!(*told.captures.lock(), 2);
        assert_eq!(cursor(&screens.read()).unwrap().y, 2);
    }

    #[test]
    fn sizes_are_asked_of_the_device_that_can_tell_its_guest() {
        let display = Display::new();
        display.add_screen(Arc::new(Plain(0, Mutex::default())));
        assert!(!display.request_size(800, 600));
        let told = Arc::new(Told {
            version: Mutex::new(1),
            captures: Mutex::new(0),
            wanted: Mutex::new((0, 0)),
        });
        display.add_screen(told.clone());
        assert!(display.request_size(800, 600));
        assert_eq!(*told.wanted.lock(), (800, 600));
        display.add_head("gpu0", 1, told);
        assert!(display.head("gpu0", 1).is_some() && display.head("gpu0", 0).is_none());
    }

    #[test]
    fn a_screen_that_was_only_black_gives_way() {
        let display = Display::new();
        let early = Plain(next_setup(), Mutex::new(Some(Surface::new(4, 4))));
        let late = Arc::new(SetUp(next_setup(), Mutex::new(false)));
        display.add_screen(late.clone());
        assert_eq!(display.capture().unwrap().width, 16, "better than nothing");
        display.add_screen(Arc::new(early));
        assert_eq!(display.capture().unwrap().width, 4);
        *late.1.lock() = true;
        assert_eq!(display.capture().unwrap().width, 16);
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
