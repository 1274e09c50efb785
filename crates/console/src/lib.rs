//! What stands between the machine's screens, keyboards, mice and serial lines, and the people who use them.
//!
//! - [`Display`] gathers screens and input devices; [`Viewer`] and [`Seat`] are a console's view of them.
//! - [`keys`] knows keys by QEMU's names, X11 keysyms and XT scan codes, and how to type text.
//! - [`vnc`] is an RFB server, [`web`] a page for browsers, `window` a window; [`screenshot`] writes pictures to files.
//! - [`serial`] puts serial lines on standard output, files, sockets and pseudo terminals.

mod controls;
mod dirty;
mod display;
mod frames;
pub mod keys;
pub mod screenshot;
mod seat;
pub mod serial;
mod server;
mod stream;
mod typist;

pub mod vnc;
pub mod web;
#[cfg(feature = "window")]
pub mod window;

pub use controls::{Controls, RemovableDrive};
pub use display::{Display, Guarded, GuardedInfo};
pub use frames::{Frame, Rectangle, TILE, Viewer};
pub use seat::Seat;
