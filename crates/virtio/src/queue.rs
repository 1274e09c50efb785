//! Split virtqueues (VIRTIO 2.7), on the ring indices of the crate `virtio-queue`.
//!
//! What the crate leaves open is settled here: it ends a malformed chain as if it were complete, ignores
//! VIRTQ_AVAIL_F_NO_INTERRUPT, and tries an unreadable ring again for ever. A ring that breaks the rules sets
//! DEVICE_NEEDS_RESET and gives no more chains.

use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::{Duration, Instant};

use memory::Dma;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use virtio_queue::{Queue, QueueOwnedT, QueueT};
use vm_memory::{Bytes, GuestAddress};

use crate::chain::Chain;
use crate::interrupts::Interrupts;
use crate::spec::{AVAIL_F_NO_INTERRUPT, descriptor, feature};

/// How the driver set a queue up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueSetup {
    pub size: u16,
    pub enabled: bool,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// Where a running queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueuePosition {
    pub next_available: u16,
    pub next_used: u16,
}

/// The count of resets, shared by a device's queues. Held for reading by whatever writes to the guest on behalf of an
/// epoch; so who holds it for writing knows that nobody does.
pub(crate) type Epoch = RwLock<u64>;

/// Completions before the driver hears of the first of them, if they come fast.
const BATCH: u32 = 16;
/// How long a completion waits for others.
const BATCH_TIME: Duration = Duration::from_micros(50);

/// One virtqueue. Workers take chains and give them back; the transport sets it up and resets it.
pub struct Virtqueue {
    index: u16,
    dma: Dma,
    epoch: Arc<Epoch>,
    interrupts: Arc<Interrupts>,
    ring: Mutex<Option<Ring>>,
}

struct Ring {
    queue: Queue,
    indirect: bool,
    /// The driver has been told not to notify.
    quiet: bool,
    /// Chains given back that the driver has not been told of, and since when.
    unsignalled: u32,
    since: Option<Instant>,
    /// The used index when the driver was last considered for an interrupt.
    considered: u16,
}

impl Virtqueue {
    pub(crate) fn new(
        index: u16,
        dma: Dma,
        epoch: Arc<Epoch>,
        interrupts: Arc<Interrupts>,
    ) -> Virtqueue {
        Virtqueue {
            index,
            dma,
            epoch,
            interrupts,
            ring: Mutex::new(None),
        }
    }

    /// Its number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Guest memory, for reading the buffers of a chain. Writing goes through [`Virtqueue::write`].
    pub fn dma(&self) -> &Dma {
        &self.dma
    }

    /// Starts the ring. One that does not lie in RAM breaks the device.
    pub(crate) fn start(&self, setup: &QueueSetup, features: u64, position: QueuePosition) {
        let size = u64::from(setup.size);
        let spans = [
            (setup.descriptors, size * descriptor::SIZE),
            (setup.available, 6 + size * 2),
            (setup.used, 6 + size * 8),
        ];
        let queue = || -> Option<Queue> {
            let mut queue = Queue::new(setup.size).ok()?;
            queue
                .try_set_desc_table_address(GuestAddress(setup.descriptors))
                .ok()?;
            queue
                .try_set_avail_ring_address(GuestAddress(setup.available))
                .ok()?;
            queue
                .try_set_used_ring_address(GuestAddress(setup.used))
                .ok()?;
            queue.set_event_idx(features & feature::RING_EVENT_IDX != 0);
            queue.set_next_avail(position.next_available);
            queue.set_next_used(position.next_used);
            queue.set_ready(true);
            Some(queue)
        };
        // The library takes an available ring at 0 for one that was never set up.
        let in_memory = setup.available != 0 && spans.iter().all(|s| self.dma.contains(s.0, s.1));
        let Some(queue) = queue().filter(|_| in_memory) else {
            return self.broken("a ring that is not in memory or not aligned");
        };
        let indirect = features & feature::RING_INDIRECT_DESC != 0;
        *self.ring.lock() = Some(Ring {
            queue,
            indirect,
            quiet: false,
            unsignalled: 0,
            since: None,
            considered: position.next_used,
        });
    }

    /// Stops the ring.
    pub(crate) fn stop(&self) {
        *self.ring.lock() = None;
    }

    /// Where the ring is, if it runs.
    pub(crate) fn position(&self) -> Option<QueuePosition> {
        let ring = self.ring.lock();
        ring.as_ref().map(|r| QueuePosition {
            next_available: r.queue.next_avail(),
            next_used: r.queue.next_used(),
        })
    }

    /// Whether the driver enabled it.
    pub fn is_running(&self) -> bool {
        self.ring.lock().is_some()
    }

    fn broken(&self, what: &str) {
        tracing::debug!(queue = self.index, "virtqueue needs reset: {what}");
        self.interrupts.needs_reset();
    }

    /// Takes the next chain that the driver made available, if there is one and the device is still in this epoch
    /// ([`crate::Running::epoch`]). The driver notifies again once this gave none.
    pub fn pop(&self, epoch: u64, chain: &mut Chain) -> bool {
        let now = self.epoch.read();
        if *now != epoch || self.interrupts.is_stopped() {
            return false;
        }
        let mut slot = self.ring.lock();
        let Some(ring) = slot.as_mut() else {
            return false;
        };
        match ring.take(&self.dma, chain) {
            Ok(taken) => {
                chain.epoch = epoch;
                taken
            }
            Err(what) => {
                *slot = None;
                drop(slot);
                self.broken(&what);
                false
            }
        }
    }

    /// Writes to the guest on behalf of a chain, unless the device was reset since it was taken: `None` then.
    pub fn write<R>(&self, chain: &Chain, write: impl FnOnce(&Dma) -> R) -> Option<R> {
        let epoch = self.epoch.read();
        (*epoch == chain.epoch && self.interrupts.bus_master()).then(|| write(&self.dma))
    }

    /// Whether the device was reset since the chain was taken.
    pub fn is_stale(&self, chain: &Chain) -> bool {
        *self.epoch.read() != chain.epoch
    }

    /// Gives a chain back, of which `written` bytes were written. Interrupts the driver if it wants to know now; a few
    /// quick completions share an interrupt, so [`Virtqueue::flush`] follows when there is no more work.
    pub fn complete(&self, chain: &Chain, written: u32) {
        let epoch = self.epoch.read();
        if *epoch != chain.epoch || !self.interrupts.bus_master() {
            return;
        }
        let mut slot = self.ring.lock();
        let Some(ring) = slot.as_mut() else { return };
        if ring
            .queue
            .add_used(self.dma.memory(), chain.head, written)
            .is_err()
        {
            *slot = None;
            drop(slot);
            return self.broken("a used ring that cannot be written");
        }
        ring.unsignalled += 1;
        let since = *ring.since.get_or_insert_with(Instant::now);
        if ring.unsignalled >= BATCH || since.elapsed() >= BATCH_TIME {
            self.signal(ring);
        }
    }

    /// Gives several chains back at once, each with the bytes written to it: the driver sees all of them or none, as for
    /// a packet in several receive buffers (VIRTIO 5.1.6.4.2).
    pub fn complete_together(&self, chains: &[Chain], written: &[u32]) {
        let Some((last, others)) = chains.split_last() else {
            return;
        };
        let epoch = self.epoch.read();
        if *epoch != last.epoch || !self.interrupts.bus_master() {
            return;
        }
        let mut slot = self.ring.lock();
        let Some(ring) = slot.as_mut() else { return };
        let (used, size) = (ring.queue.used_ring(), ring.queue.size());
        let mut next = ring.queue.next_used();
        let mut done = Ok(());
        for (chain, &length) in others.iter().zip(written) {
            let at = used + 4 + u64::from(next % size) * 8;
            let element = u64::from(chain.head) | u64::from(length) << 32;
            done = done.and(self.dma.write(at, &element.to_le_bytes()));
            next = next.wrapping_add(1);
        }
        ring.queue.set_next_used(next);
        let length = written.get(others.len()).copied().unwrap_or(0);
        // The index moves with the last element only.
        let last = ring
            .queue
            .add_used(self.dma.memory(), last.head, length)
            .is_ok();
        if done.is_err() || !last {
            *slot = None;
            drop(slot);
            return self.broken("a used ring that cannot be written");
        }
        ring.unsignalled += chains.len() as u32;
        self.signal(ring);
    }

    /// Un-takes the last `count` chains that [`Virtqueue::pop`] gave in this epoch; they come again.
    pub fn put_back(&self, epoch: u64, count: u16) {
        let now = self.epoch.read();
        if *now == epoch
            && let Some(ring) = self.ring.lock().as_mut()
        {
            let next = ring.queue.next_avail().wrapping_sub(count);
            ring.queue.set_next_avail(next);
        }
    }

    /// Descriptors of the ring as the driver set it up; 0 if it does not run.
    pub fn size(&self) -> u16 {
        self.ring.lock().as_ref().map_or(0, |r| r.queue.size())
    }

    /// Tells the driver of all chains that were given back.
    pub fn flush(&self) {
        let _epoch = self.epoch.read();
        if let Some(ring) = self.ring.lock().as_mut()
            && ring.unsignalled > 0
        {
            self.signal(ring);
        }
    }

    fn signal(&self, ring: &mut Ring) {
        ring.unsignalled = 0;
        ring.since = None;
        if ring.wants_interrupt(&self.dma) {
            self.interrupts.queue(self.index);
        }
    }
}

impl Ring {
    fn take(&mut self, dma: &Dma, chain: &mut Chain) -> Result<bool, String> {
        let memory = dma.memory();
        // Each round but the last finds a chain or sees one come while notifications were off.
        for _ in 0..4 {
            let head = match self.queue.iter(memory) {
                Ok(mut available) => available.next().map(|c| c.head_index()),
                Err(error) => return Err(error.to_string()),
            };
            if let Some(head) = head {
                if !self.quiet && self.queue.disable_notification(memory).is_ok() {
                    self.quiet = true;
                }
                chain.head = head;
                let (table, size) = (self.queue.desc_table(), self.queue.size());
                return match chain.walk(dma, table, size, head, self.indirect) {
                    Ok(()) => Ok(true),
                    Err(error) => Err(error.to_string()),
                };
            }
            self.quiet = false;
            match self.queue.enable_notification(memory) {
                Ok(false) => return Ok(false),
                Ok(true) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err("an available ring that cannot make up its mind".into())
    }

    /// Whether the driver wants to hear of what came since this was last asked (VIRTIO 2.7.7.2, 2.7.10).
    fn wants_interrupt(&mut self, dma: &Dma) -> bool {
        // What was used must be seen before the driver's wish is read.
        fence(Ordering::SeqCst);
        let now = self.queue.next_used();
        let before = std::mem::replace(&mut self.considered, now);
        let read = |address| {
            let value = dma
                .memory()
                .load::<u16>(GuestAddress(address), Ordering::Acquire);
            value.map(u16::from_le).ok()
        };
        let available = self.queue.avail_ring();
        if !self.queue.event_idx_enabled() {
            return read(available).is_none_or(|flags| flags & AVAIL_F_NO_INTERRUPT == 0);
        }
        let event = read(available + 4 + u64::from(self.queue.size()) * 2);
        event.is_none_or(|event| now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before))
    }
}
