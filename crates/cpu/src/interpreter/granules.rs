//! Versions of memory granules, for exclusive accesses.
//!
//! A store-exclusive is a compare-and-swap against the value that the load-exclusive read. That alone would miss a value
//! that changed and came back (A → B → A), which breaks lock-free stacks. So every granule has a version, and a
//! store-exclusive succeeds only if it is unchanged. A load-exclusive has it watched, and whoever stores exclusively or
//! atomically where somebody watches advances it; nobody watches then. Atomics where nobody watches, most of them, cost no
//! more than the host's. A version is odd while a store-exclusive is at work.
//!
//! Covered: changes by exclusives and atomics of any processor. Not covered: a plain store in between that writes the
//! very value that was read; and two atomics of different processors that both found the granule unwatched before the
//! load-exclusive and act after it.

use std::sync::atomic::{AtomicU64, Ordering};

/// Granules that share a version only make store-exclusives fail more often, so a fixed table serves all memory.
const COUNT: usize = 4096;

/// Of an index: the shift of its second part, and its mask.
pub const SHIFT: u8 = 12;
pub const MASK: u32 = COUNT as u32 - 1;

/// The versions of a machine's memory.
pub struct Granules(Box<[AtomicU64; COUNT]>);

impl Default for Granules {
    fn default() -> Granules {
        Granules(Box::new([const { AtomicU64::new(0) }; COUNT]))
    }
}

/// In a version: a store-exclusive is at work, somebody watches.
pub const AT_WORK: u64 = 1;
pub const WATCHED: u64 = 2;

impl Granules {
    /// The version of the 16 bytes around a host address.
    #[inline]
    fn version(&self, host: usize) -> &AtomicU64 {
        let granule = host >> 4;
        &self.0[(granule ^ granule >> SHIFT) & MASK as usize]
    }

    /// For generated code.
    pub fn table(&self) -> *const AtomicU64 {
        self.0.as_ptr()
    }

    /// For a load-exclusive: the version to remember, which is watched from now on. Waits for a store-exclusive that is at work.
    #[inline]
    pub fn observe(&self, host: usize) -> u64 {
        let version = self.version(host);
        for _ in 0..1000 {
            let seen = version.load(Ordering::SeqCst);
            if seen & AT_WORK != 0 {
                std::hint::spin_loop();
                continue;
            }
            let watched = seen | WATCHED;
            if seen == watched || replace(version, seen, watched) {
                return watched;
            }
        }
        // The other thread sleeps in the middle: an odd version makes the store-exclusive fail, and the guest try again.
        AT_WORK
    }

    /// For an atomic: makes store-exclusives of earlier loads fail.
    #[inline]
    pub fn advance(&self, host: usize) {
        let version = self.version(host);
        loop {
            let seen = version.load(Ordering::SeqCst);
            if seen & AT_WORK != 0 {
                std::hint::spin_loop();
            } else if seen & WATCHED == 0 || replace(version, seen, seen + WATCHED) {
                // The next version, unwatched.
                return;
            }
        }
    }

    /// For a store-exclusive: runs `store` if the version is still `seen`, and advances it; whether `store` succeeded.
    #[inline]
    pub fn store_if(&self, host: usize, seen: u64, store: impl FnOnce() -> bool) -> bool {
        let version = self.version(host);
        if seen & AT_WORK != 0 || !replace(version, seen, seen | AT_WORK) {
            return false;
        }
        let stored = store();
        // The next version, unwatched: nobody changes one at work.
        version.store(seen + WATCHED, Ordering::SeqCst);
        stored
    }
}

#[inline]
fn replace(version: &AtomicU64, seen: u64, new: u64) -> bool {
    let order = Ordering::SeqCst;
    version.compare_exchange(seen, new, order, order).is_ok()
}
