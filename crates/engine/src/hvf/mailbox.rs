//! What reaches a vCPU from other threads.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::framework::{Framework, Handle};

/// One processor's.
#[derive(Default)]
pub struct Mailbox {
    irq: AtomicBool,
    fiq: AtomicBool,
    kick: AtomicBool,
    /// A deadline passed.
    timer: AtomicBool,
    /// In `hv_vcpu_run`, or about to be.
    running: AtomicBool,
    /// The handle plus 1; 0 before there is one.
    handle: AtomicU64,
    sleep: Mutex<bool>,
    wake: Condvar,
}

impl Mailbox {
    pub fn created(&self, handle: Handle) {
        self.handle.store(handle + 1, Ordering::SeqCst);
    }

    pub fn destroyed(&self) {
        self.handle.store(0, Ordering::SeqCst);
    }

    pub fn irq(&self) -> bool {
        self.irq.load(Ordering::SeqCst)
    }

    pub fn fiq(&self) -> bool {
        self.fiq.load(Ordering::SeqCst)
    }

    pub fn set_irq(&self, level: bool, framework: &dyn Framework) {
        if !self.irq.swap(level, Ordering::SeqCst) && level {
            self.disturb(framework);
        }
    }

    pub fn set_fiq(&self, level: bool, framework: &dyn Framework) {
        if !self.fiq.swap(level, Ordering::SeqCst) && level {
            self.disturb(framework);
        }
    }

    pub fn kick(&self, framework: &dyn Framework) {
        self.kick.store(true, Ordering::SeqCst);
        self.disturb(framework);
    }

    pub fn deadline_passed(&self, framework: &dyn Framework) {
        self.timer.store(true, Ordering::SeqCst);
        self.disturb(framework);
    }

    /// Takes a kick, if there is one.
    pub fn kicked(&self) -> bool {
        self.kick.swap(false, Ordering::SeqCst)
    }

    /// Takes the news of a deadline.
    pub fn timer(&self) -> bool {
        self.timer.swap(false, Ordering::SeqCst)
    }

    /// Says that a run begins: from here on it is ended by [`Framework::vcpus_exit`]. False if there is something to see
    /// to before.
    pub fn begin(&self, irq: bool, fiq: bool) -> bool {
        self.running.store(true, Ordering::SeqCst);
        let news = self.kick.load(Ordering::SeqCst)
            || self.timer.load(Ordering::SeqCst)
            || (self.irq(), self.fiq()) != (irq, fiq);
        if news {
            self.end();
        }
        !news
    }

    pub fn end(&self) {
        self.running.store(false, Ordering::SeqCst);
    }

    /// Ends the run of its vCPU, or its wait: the framework's cancellation does not wake a thread of ours that sleeps.
    fn disturb(&self, framework: &dyn Framework) {
        if self.running.load(Ordering::SeqCst) {
            let handle = self.handle.load(Ordering::SeqCst);
            if handle != 0
                && let Err(refusal) = framework.vcpus_exit(&[handle - 1])
            {
                tracing::debug!(%refusal, "hv_vcpus_exit");
            }
        }
        *self.sleep.lock() = true;
        self.wake.notify_all();
    }

    /// Sleeps until something is there to see to, or for `timeout` at most.
    pub fn sleep(&self, timeout: Option<Duration>) {
        let mut disturbed = self.sleep.lock();
        if !*disturbed {
            match timeout {
                Some(timeout) => {
                    self.wake.wait_for(&mut disturbed, timeout);
                }
                None => self.wake.wait(&mut disturbed),
            }
        }
        *disturbed = false;
    }
}
