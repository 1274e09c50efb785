//! Ends of a wire for tests: they keep what they get, and refuse on request.

use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::frame::{Accepts, Frame, Offload};
use crate::link::{Backend, BackendInfo, Link, Nic};

/// A frame that was kept.
pub type Kept = (Offload, Vec<u8>);

/// Either end.
#[derive(Default)]
pub struct Fake {
    /// What came, in order.
    pub frames: Mutex<Vec<Kept>>,
    /// Refuse everything.
    pub full: AtomicBool,
    /// Times that the other end said it has room again.
    pub ready: AtomicUsize,
    pub flushes: AtomicUsize,
    pub accepts: Mutex<Accepts>,
}

impl Fake {
    /// One that takes frames with these offloads.
    pub fn new(accepts: Accepts) -> Fake {
        Fake {
            accepts: Mutex::new(accepts),
            ..Fake::default()
        }
    }

    /// Takes what was kept.
    pub fn take(&self) -> Vec<Kept> {
        std::mem::take(&mut self.frames.lock())
    }

    fn keep(&self, frame: &Frame<'_>) -> bool {
        if self.full.load(Ordering::SeqCst) {
            return false;
        }
        self.frames.lock().push((frame.offload, frame.to_vec()));
        true
    }
}

impl Backend for Fake {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        self.keep(frame)
    }

    fn flush(&self) {
        self.flushes.fetch_add(1, Ordering::SeqCst);
    }

    fn accepts(&self) -> Accepts {
        *self.accepts.lock()
    }

    fn receive_ready(&self) {
        self.ready.fetch_add(1, Ordering::SeqCst);
    }

    fn start(&self, _: Weak<Link>) {}

    fn info(&self) -> BackendInfo {
        BackendInfo {
            kind: "fake",
            description: String::new(),
        }
    }
}

impl Nic for Fake {
    fn receive(&self, frame: &Frame<'_>) -> bool {
        self.keep(frame)
    }

    fn accepts(&self) -> Accepts {
        *self.accepts.lock()
    }

    fn send_ready(&self) {
        self.ready.fetch_add(1, Ordering::SeqCst);
    }

    fn link_changed(&self, _: bool) {}
}
