//! A window: winit for it and its input, softbuffer for its pixels, on macOS, X11 and Wayland.
//!
//! The window belongs to the program's main thread (macOS insists), and shows what all consoles show.
//!
//! Keys go to the guest, but for those under Ctrl and Alt that [`chords`] lists; Ctrl-Alt-G gives the pointer back, or grabs
//! it. With a tablet the guest's pointer follows the host's and nothing need be grabbed; with a mouse, a click grabs.

mod app;
mod chords;
mod layout;
mod options;
mod paint;

use crate::{Controls, Display};
use std::sync::Arc;
use winit::event_loop::{EventLoop, EventLoopProxy};

pub use chords::HELP;
pub use options::{OptionError, WindowOptions};

/// A window that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum WindowError {
    #[error("there is no display to open a window on: {0}")]
    NoDisplay(String),
    #[error("the window cannot be opened: {0}")]
    Open(String),
}

/// What other threads tell the window.
#[derive(Debug)]
enum Wake {
    /// The picture has changed.
    Changed,
    End,
}

/// The connection to the host's display, before a window is opened on it. It stays on the main thread.
pub struct WindowLoop {
    events: EventLoop<Wake>,
}

/// Ends a window from another thread.
#[derive(Clone)]
pub struct Ender(EventLoopProxy<Wake>);

impl Ender {
    /// [`WindowLoop::run`] returns.
    pub fn end(&self) {
        // A loop that has ended needs no telling.
        let _ = self.0.send_event(Wake::End);
    }
}

impl WindowLoop {
    /// Connects to the display.
    ///
    /// # Errors
    /// There is none.
    pub fn new() -> Result<WindowLoop, WindowError> {
        let events = EventLoop::<Wake>::with_user_event()
            .build()
            .map_err(|error| WindowError::NoDisplay(reason(&error.to_string())))?;
        Ok(WindowLoop { events })
    }

    /// What ends the window.
    pub fn ender(&self) -> Ender {
        Ender(self.events.create_proxy())
    }

    /// Opens the window and shows it until it is ended.
    pub fn run(
        self,
        display: Arc<Display>,
        controls: Arc<dyn Controls>,
        options: &WindowOptions,
    ) -> Result<(), WindowError> {
        let mut app = app::App::new(self.events.create_proxy(), display, controls, options);
        self.events
            .run_app(&mut app)
            .map_err(|error| WindowError::Open(reason(&error.to_string())))?;
        app.result()
    }
}

/// What winit says, without the place in its source where it said so.
fn reason(error: &str) -> String {
    let without = || {
        let (_, place) = error.split_once("os error at ")?;
        let (_, rest) = place.split_once(".rs:")?;
        let (_, rest) = rest.split_once(": ")?;
        Some(rest.to_string())
    };
    without().unwrap_or_else(|| error.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn reasons_are_without_places() {
        let from = "os error at /home/me/winit-0.30/src/linux/mod.rs:765: neither A: nor B is set.";
        assert_eq!(super::reason(from), "neither A: nor B is set.");
        assert_eq!(super::reason("not supported"), "not supported");
    }
}
