//! Getting a vCPU's thread out of the kernel.

use std::cell::Cell;
use std::ptr::null_mut;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

thread_local! {
    /// `immediate_exit` of the `kvm_run` of this thread's vCPU.
    static IMMEDIATE_EXIT: Cell<*mut u8> = const { Cell::new(null_mut()) };
}

/// A processor's thread.
#[derive(Default)]
pub struct Thread {
    kicked: AtomicBool,
    /// Once it is known; none after it has ended.
    id: Mutex<Option<libc::pthread_t>>,
}

fn signal_number() -> libc::c_int {
    libc::SIGRTMIN()
}

/// The signal's handler: KVM_RUN returns at once if it has not begun yet (api.rst, "immediate_exit").
extern "C" fn interrupted(_: libc::c_int) {
    let flag = IMMEDIATE_EXIT.with(Cell::get);
    if !flag.is_null() {
        // SAFETY: set by this thread to a byte that lives as long as its vCPU.
        unsafe { flag.write_volatile(1) };
    }
}

impl Thread {
    /// This thread is the one; `immediate_exit` is where its vCPU's flag is.
    pub fn begin(&self, immediate_exit: *mut u8) {
        static HANDLER: Once = Once::new();
        HANDLER.call_once(|| {
            // SAFETY: the handler is of the right type and does what handlers may.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                let handler: extern "C" fn(libc::c_int) = interrupted;
                action.sa_sigaction = handler as usize;
                libc::sigemptyset(&raw mut action.sa_mask);
                libc::sigaction(signal_number(), &action, null_mut());
            }
        });
        IMMEDIATE_EXIT.with(|flag| flag.set(immediate_exit));
        // SAFETY: no argument.
        *self.id.lock() = Some(unsafe { libc::pthread_self() });
    }

    /// The vCPU goes; called on its thread.
    pub fn end(&self) {
        *self.id.lock() = None;
        IMMEDIATE_EXIT.with(|flag| flag.set(null_mut()));
    }

    pub fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        if let Some(thread) = *self.id.lock() {
            // SAFETY: the thread has not ended: it takes its number out before, under the lock.
            unsafe { libc::pthread_kill(thread, signal_number()) };
        }
    }

    /// Takes a kick, if there is one.
    pub fn kicked(&self) -> bool {
        self.kicked.swap(false, Ordering::SeqCst)
    }
}
