//! A VNC server: the Remote Framebuffer Protocol 3.3, 3.7 and 3.8 (RFC 6143), with the extensions that QEMU's users know.

mod auth;
mod encode;
mod handshake;
mod keyboard;
mod options;
mod pixel;
mod server;
mod session;
mod spec;

pub use options::{OptionError, Share, VncAddress, VncOptions};
pub use server::{StartError, VncServer};

#[cfg(test)]
mod tests;
