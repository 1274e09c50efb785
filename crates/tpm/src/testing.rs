//! A TPM that answers every command with its own bytes, turned around.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::{Backend, BackendError};

/// Waits until `done`.
pub(crate) fn wait(done: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !done() {
        assert!(Instant::now() < until, "it does not happen");
        std::thread::yield_now();
    }
}

#[derive(Default)]
pub(crate) struct Fake {
    took: Mutex<Vec<(u8, Vec<u8>)>>,
    /// Commands wait, and whether one does.
    held: Mutex<(bool, bool)>,
    freed: Condvar,
    failing: AtomicBool,
    established: AtomicBool,
    resets: AtomicU32,
}

impl Fake {
    pub(crate) fn new() -> Arc<Fake> {
        let fake = Fake::default();
        fake.established.store(true, Ordering::SeqCst);
        Arc::new(fake)
    }

    /// A command of so many bytes.
    pub(crate) fn command(size: usize) -> Vec<u8> {
        let mut command: Vec<u8> = (0..size).map(|n| n as u8).collect();
        command[..2].copy_from_slice(&[0x80, 1]);
        command[2..6].copy_from_slice(&(size as u32).to_be_bytes());
        command
    }

    pub(crate) fn answer(command: &[u8]) -> Vec<u8> {
        let mut answer = command.to_vec();
        answer[6..].reverse();
        answer
    }

    pub(crate) fn took(&self) -> Vec<(u8, Vec<u8>)> {
        std::mem::take(&mut self.took.lock())
    }

    pub(crate) fn fail(&self) {
        self.failing.store(true, Ordering::SeqCst);
    }

    /// Commands take until they are cancelled.
    pub(crate) fn hold(&self, on: bool) {
        self.held.lock().0 = on;
    }

    pub(crate) fn busy(&self) -> bool {
        self.held.lock().1
    }

    pub(crate) fn resets(&self) -> u32 {
        self.resets.load(Ordering::SeqCst)
    }
}

impl Backend for Fake {
    fn execute(&self, locality: u8, command: &[u8]) -> Result<Vec<u8>, BackendError> {
        self.took.lock().push((locality, command.to_vec()));
        let mut held = self.held.lock();
        while held.0 {
            held.1 = true;
            self.freed.wait(&mut held);
        }
        held.1 = false;
        if self.failing.load(Ordering::SeqCst) {
            return Err(BackendError::Nonsense("as the test wants"));
        }
        Ok(Fake::answer(command))
    }

    fn cancel(&self) {
        self.held.lock().0 = false;
        self.freed.notify_all();
    }

    fn reset(&self) -> Result<(), BackendError> {
        self.resets.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn established(&self) -> bool {
        self.established.load(Ordering::SeqCst)
    }

    fn reset_established(&self, _: u8) {
        self.established.store(false, Ordering::SeqCst);
    }

    fn shut_down(&self) {}
}
