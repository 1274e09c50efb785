//! What back ends with a thread have in common: what it waits with, its wire, and its end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use polling::Poller;

use crate::OpenError;
use crate::link::Link;

/// A back end's thread, before it is started, while it runs, and after.
pub(crate) struct Waiter {
    poller: Arc<Poller>,
    link: OnceLock<Weak<Link>>,
    ended: AtomicBool,
}

impl Waiter {
    pub(crate) fn new() -> Result<Waiter, OpenError> {
        Ok(Waiter {
            poller: Arc::new(Poller::new().map_err(OpenError::io("cannot wait for sockets"))?),
            link: OnceLock::new(),
            ended: AtomicBool::new(false),
        })
    }

    /// What it waits with.
    pub(crate) fn poller(&self) -> &Arc<Poller> {
        &self.poller
    }

    /// The wire, if it is still there.
    pub(crate) fn link(&self) -> Option<Arc<Link>> {
        self.link.get().and_then(Weak::upgrade)
    }

    /// Starts the thread, once.
    pub(crate) fn start(&self, link: Weak<Link>, run: impl FnOnce() + Send + 'static) {
        if self.link.set(link).is_err() {
            return;
        }
        let started = std::thread::Builder::new()
            .name("network".into())
            .spawn(run);
        if let Err(error) = started {
            tracing::error!("cannot start the thread of a network: {error}");
        }
    }

    /// Wakes the thread.
    pub(crate) fn notify(&self) {
        // It fails only where the poller is broken, and then waiting does too, which is told.
        let _ = self.poller.notify();
    }

    /// Whether the thread is to end.
    pub(crate) fn ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }

    /// Ends the thread: whether nobody did before.
    pub(crate) fn end(&self) -> bool {
        let first = !self.ended.swap(true, Ordering::SeqCst);
        self.notify();
        first
    }
}
