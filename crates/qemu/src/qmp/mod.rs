//! QMP, the machine protocol: JSON commands and events over a socket.
//!
//! A connection is a thread that reads commands ([`session`]); another writes answers and events. Commands themselves
//! are in [`commands`], which the monitor for people uses as well.

pub mod commands;
mod events;
pub mod session;

pub use session::QmpError;
