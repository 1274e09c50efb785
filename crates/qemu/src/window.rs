//! The window, in builds that have one.

#[cfg(feature = "window")]
mod with {
    use std::sync::Arc;

    use console::window::{WindowLoop, WindowOptions};
    use machine::Machine;
    use machine::control::Cause;

    use crate::Error;

    /// A connection to the host's display; the window opens in [`Window::wait`].
    pub struct Window {
        events: WindowLoop,
        options: WindowOptions,
    }

    /// Whether `-display window,…` can have these options.
    pub fn check(text: &str) -> Result<(), Error> {
        WindowOptions::parse(text)
            .map(drop)
            .map_err(|e| Error::new(e.to_string()))
    }

    /// Whether there seems to be a display to open a window on.
    pub fn likely() -> bool {
        let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match std::env::consts::OS {
            // A session by SSH has none.
            "macos" => !set("SSH_CONNECTION"),
            _ => set("WAYLAND_DISPLAY") || set("DISPLAY"),
        }
    }

    impl Window {
        pub fn new(text: &str) -> Result<Window, Error> {
            let options = WindowOptions::parse(text).map_err(|e| Error::new(e.to_string()))?;
            let events = WindowLoop::new().map_err(|e| {
                Error::new(e.to_string())
                    .hint("Use -display web, -display vnc=:1, or -display none")
            })?;
            Ok(Window { events, options })
        }

        /// Shows the machine until its end. On the main thread: the machine is waited for on another.
        pub fn wait(
            self,
            machine: Machine,
            controls: Arc<dyn console::Controls>,
        ) -> Result<Cause, Error> {
            let handle = machine.handle();
            let display = handle.board().display().clone();
            let ender = self.events.ender();
            let waiting = std::thread::Builder::new()
                .name("machine".into())
                .spawn(move || {
                    let cause = machine.wait();
                    ender.end();
                    cause
                })
                .map_err(|e| Error::new(e.to_string()))?;
            let shown = self.events.run(display, controls, &self.options);
            if shown.is_err() {
                let _ = handle.quit(Cause::HostError);
            }
            let cause = waiting.join().unwrap_or(Cause::HostError);
            shown.map_err(|e| Error::new(e.to_string()).of("-display window"))?;
            Ok(cause)
        }
    }
}

#[cfg(not(feature = "window"))]
mod without {
    use std::sync::Arc;

    use machine::Machine;
    use machine::control::Cause;

    use crate::Error;

    /// There is none.
    pub enum Window {}

    fn none() -> Error {
        Error::new("this build of Dormer has no window (its feature 'window' is off)")
            .hint("Use -display web, -display vnc=:1, or -display none")
    }

    pub fn check(_: &str) -> Result<(), Error> {
        Err(none())
    }

    pub fn likely() -> bool {
        false
    }

    impl Window {
        pub fn new(_: &str) -> Result<Window, Error> {
            Err(none())
        }

        pub fn wait(self, _: Machine, _: Arc<dyn console::Controls>) -> Result<Cause, Error> {
            match self {}
        }
    }
}

#[cfg(feature = "window")]
pub use with::{Window, check, likely};
#[cfg(not(feature = "window"))]
pub use without::{Window, check, likely};
