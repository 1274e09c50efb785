//! The web console: one page for browsers, with screen, keyboard, pointer and the machine's buttons.
//!
//! A small HTTP/1.1 server of our own gives out the page and upgrades one address to a WebSocket (RFC 6455), which carries
//! the picture's changed parts ([`session`]) and the user's input ([`message`]). Whoever knows the token in the address may
//! do all that the page can; the server listens on loopback unless it is told otherwise.

mod http;
mod message;
mod options;
mod server;
mod session;

pub use message::Message;
pub use options::{OptionError, WebOptions};
pub use server::{StartError, WebServer};

#[cfg(test)]
mod tests;
