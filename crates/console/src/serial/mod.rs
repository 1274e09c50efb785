//! Serial lines on standard output, in files, on sockets and on pseudo terminals.
//!
//! [`SerialSpec::parse`] reads what `-serial` takes, [`parse_chardev`] what `-chardev` takes; [`SerialPort::open`] makes the
//! far side of a UART of it. A UART writes into the port ([`SerialOutput`](device::serial::SerialOutput)); bytes for the
//! UART are fed to the [`SerialInput`](device::serial::SerialInput) that [`SerialPort::connect`] is given.

mod escape;
mod options;
mod port;
mod terminal;

pub use escape::{Escape, Typed};
pub use options::{SerialSpec, SpecError, parse_chardev};
pub use port::{Hooks, OpenPortError, OtherSide, SerialPort};
pub use terminal::{RawTerminal, restore_on_signals, restore_terminal};

#[cfg(test)]
mod tests;
