//! Interrupt lines and message-signalled interrupts.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a line leads to: an input of the interrupt controller, a processor's IRQ input, a test's record.
pub trait LineSink: Send + Sync {
    /// Input `number` is now at `level`.
    fn set(&self, number: u32, level: bool);
}

impl<F: Fn(u32, bool) + Send + Sync> LineSink for F {
    fn set(&self, number: u32, level: bool) {
        self(number, level);
    }
}

/// One interrupt line. The device that holds it drives it; where it leads is the board's affair.
#[derive(Clone)]
pub struct Line {
    sink: Arc<dyn LineSink>,
    number: u32,
}

impl Line {
    /// A line to input `number` of `sink`.
    pub fn new(sink: Arc<dyn LineSink>, number: u32) -> Line {
        Line { sink, number }
    }

    /// A line that leads nowhere.
    pub fn unconnected() -> Line {
        Line::new(Arc::new(|_, _| {}), 0)
    }

    /// A line and a view of its level, for tests.
    pub fn probe() -> (Line, Arc<AtomicBool>) {
        let level = Arc::new(AtomicBool::new(false));
        let seen = level.clone();
        (
            Line::new(Arc::new(move |_, l| seen.store(l, Ordering::SeqCst)), 0),
            level,
        )
    }

    /// Drives the line. Setting the same level again is harmless.
    pub fn set(&self, level: bool) {
        self.sink.set(self.number, level);
    }

    /// A rising and a falling edge, for edge-triggered inputs.
    pub fn pulse(&self) {
        self.set(true);
        self.set(false);
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Line({})", self.number)
    }
}

/// A message-signalled interrupt: a write of `data` to `address` by the requester `device`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msi {
    /// Where the message goes.
    pub address: u64,
    /// What it says.
    pub data: u32,
    /// The requester ID: bus << 8 | device << 3 | function.
    pub device: u32,
}

/// Takes messages to the interrupt controller (v2m frame, ITS) and nowhere else: a message to RAM or to another
/// device is dropped, so that it cannot re-enter a device.
pub trait MsiTarget: Send + Sync {
    fn send(&self, message: Msi);
}

impl<F: Fn(Msi) + Send + Sync> MsiTarget for F {
    fn send(&self, message: Msi) {
        self(message);
    }
}
