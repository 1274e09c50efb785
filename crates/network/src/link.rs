//! The wire between a NIC and a back end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::{Mutex, RwLock};

use crate::frame::{Accepts, Frame};
use crate::offload;

/// A guest's network card, as the wire sees it.
///
/// Called on a back end's threads. Nothing here waits.
pub trait Nic: Send + Sync {
    /// Takes a frame for the guest. False: there is no room, and [`Link::nic_ready`] will say when there is. A NIC that
    /// cannot ever use the frame (no driver, another address) takes it and drops it.
    fn receive(&self, frame: &Frame<'_>) -> bool;

    /// What the guest's driver takes unfinished, as of now.
    fn accepts(&self) -> Accepts;

    /// The back end refused a frame earlier and has room now.
    fn send_ready(&self);

    /// The wire was cut or mended ([`Link::set_up`]).
    fn link_changed(&self, up: bool);
}

/// Words about a back end for `query`s and logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendInfo {
    /// `user`, `tap`, …
    pub kind: &'static str,
    /// One line.
    pub description: String,
}

/// The far side of the wire.
///
/// `transmit` and `receive_ready` are called on a NIC's worker, never on a processor's thread. Nothing here waits.
pub trait Backend: Send + Sync {
    /// Takes a frame from the guest. False: there is no room, and [`Link::backend_ready`] will say when there is.
    fn transmit(&self, frame: &Frame<'_>) -> bool;

    /// The NIC has no more frames for now: answers that waited for more can go.
    fn flush(&self) {}

    /// What it takes unfinished.
    fn accepts(&self) -> Accepts;

    /// The NIC refused a frame earlier and has room now.
    fn receive_ready(&self);

    /// Begins: from now on frames may go to `link`.
    fn start(&self, link: Weak<Link>);

    /// What it is.
    fn info(&self) -> BackendInfo;

    /// The machine ends.
    fn stop(&self) {}
}

/// Sees (and may drop) what goes by.
pub trait Filter: Send + Sync {
    /// A frame that the guest sends (`true`) or gets. It was accepted.
    fn passed(&self, frame: &Frame<'_>, from_guest: bool);

    /// The machine ends.
    fn stop(&self) {}
}

/// A wire.
pub struct Link {
    id: String,
    up: AtomicBool,
    nic: OnceLock<Weak<dyn Nic>>,
    backend: OnceLock<Arc<dyn Backend>>,
    filters: RwLock<Vec<Arc<dyn Filter>>>,
    /// Room for segments, one a direction.
    scratch: [Mutex<Vec<u8>>; 2],
}

impl Link {
    /// A wire with nothing on it. `id` is the back end's.
    pub fn new(id: &str) -> Arc<Link> {
        Arc::new(Link {
            id: id.into(),
            up: AtomicBool::new(true),
            nic: OnceLock::new(),
            backend: OnceLock::new(),
            filters: RwLock::default(),
            scratch: Default::default(),
        })
    }

    /// The back end's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Puts the back end on and starts it. Once; a second is ignored.
    pub fn connect_backend(self: &Arc<Self>, backend: Arc<dyn Backend>) {
        if self.backend.set(backend.clone()).is_ok() {
            backend.start(Arc::downgrade(self));
        }
    }

    /// Puts the NIC on: whether there was none.
    pub fn connect_nic(&self, nic: Weak<dyn Nic>) -> bool {
        self.nic.set(nic).is_ok()
    }

    /// Whether a NIC is on it.
    pub fn has_nic(&self) -> bool {
        self.nic.get().is_some()
    }

    /// The back end.
    pub fn backend(&self) -> Option<&Arc<dyn Backend>> {
        self.backend.get()
    }

    /// Adds a filter.
    pub fn add_filter(&self, filter: Arc<dyn Filter>) {
        self.filters.write().push(filter);
    }

    /// Whether the wire is whole.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::SeqCst)
    }

    /// Cuts or mends it; the guest sees its carrier go or come.
    pub fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::SeqCst) != up
            && let Some(nic) = self.nic()
        {
            nic.link_changed(up);
            nic.send_ready();
        }
    }

    fn nic(&self) -> Option<Arc<dyn Nic>> {
        self.nic.get().and_then(Weak::upgrade)
    }

    /// What the NIC takes unfinished.
    pub fn nic_accepts(&self) -> Accepts {
        self.nic().map_or(Accepts::default(), |nic| nic.accepts())
    }

    /// A frame from the guest. False: try again after [`Nic::send_ready`].
    pub fn send(&self, frame: &Frame<'_>) -> bool {
        let Some(backend) = self.backend.get().filter(|_| self.is_up()) else {
            return true;
        };
        let taken = self.pass(frame, backend.accepts(), 0, |f| backend.transmit(f));
        if taken {
            self.filter(frame, true);
        }
        taken
    }

    /// The guest sends no more for now.
    pub fn flush(&self) {
        if let Some(backend) = self.backend.get() {
            backend.flush();
        }
    }

    /// A frame for the guest. False: try again after [`Backend::receive_ready`].
    pub fn deliver(&self, frame: &Frame<'_>) -> bool {
        let Some(nic) = self.nic().filter(|_| self.is_up()) else {
            return true;
        };
        let taken = self.pass(frame, nic.accepts(), 1, |f| nic.receive(f));
        if taken {
            self.filter(frame, false);
        }
        taken
    }

    /// Hands a frame over, finished as far as the receiver needs it.
    fn pass(
        &self,
        frame: &Frame<'_>,
        accepts: Accepts,
        direction: usize,
        take: impl Fn(&Frame<'_>) -> bool,
    ) -> bool {
        if accepts.takes(&frame.offload) {
            return take(frame);
        }
        let mut scratch = self.scratch[direction].lock();
        let mut any = false;
        let all = offload::finish(frame, &mut scratch, |finished| {
            let taken = take(&Frame::plain(&[finished]));
            any |= taken;
            taken
        });
        // Of a frame that went in part the rest is lost, as on any wire; another try would send its beginning twice.
        all || any
    }

    fn filter(&self, frame: &Frame<'_>, from_guest: bool) {
        for filter in self.filters.read().iter() {
            filter.passed(frame, from_guest);
        }
    }

    /// The NIC has room for frames again.
    pub fn nic_ready(&self) {
        if let Some(backend) = self.backend.get() {
            backend.receive_ready();
        }
    }

    /// The back end has room for frames again.
    pub fn backend_ready(&self) {
        if let Some(nic) = self.nic() {
            nic.send_ready();
        }
    }

    /// The machine ends.
    pub fn stop(&self) {
        if let Some(backend) = self.backend.get() {
            backend.stop();
        }
        for filter in self.filters.read().iter() {
            filter.stop();
        }
    }
}
