//! Versions of memory granules, for exclusive accesses.
//!
//! A store-exclusive is a compare-and-swap against the value that the load-exclusive read. That alone would miss a value
//! that changed and came back (A → B → A), which breaks lock-free stacks. So every granule has a version that
//! store-exclusives and atomics advance, and a store-exclusive succeeds only if it is unchanged. An odd version is a
//! store-exclusive at work.
//!
//! Covered: changes by exclusives and atomics of any processor. Not covered: a plain store in between that writes the
//! very value that was read; and two atomics of different processors that both advanced the version before the
//! load-exclusive and act after its store-exclusive began.

use std::sync::atomic::{AtomicU64, Ordering};

/// Granules that share a version only make store-exclusives fail more often, so a fixed table serves all memory.
const COUNT: usize = 4096;

static VERSIONS: [AtomicU64; COUNT] = [const { AtomicU64::new(0) }; COUNT];

/// The version of the 16 bytes around a host address.
#[inline]
pub fn version(host: usize) -> &'static AtomicU64 {
    let granule = host >> 4;
    &VERSIONS[(granule ^ granule >> 12) & (COUNT - 1)]
}

/// For generated code: the table's address, the shift of the second part of an index, and the mask of one.
pub fn table() -> (usize, u8, u32) {
    (VERSIONS.as_ptr() as usize, 12, COUNT as u32 - 1)
}

/// For a load-exclusive: the version to remember. Waits for a store-exclusive that is at work.
#[inline]
pub fn observe(host: usize) -> u64 {
    let version = version(host);
    for _ in 0..1000 {
        let seen = version.load(Ordering::SeqCst);
        if seen & 1 == 0 {
            return seen;
        }
        std::hint::spin_loop();
    }
    // The other thread sleeps in the middle: an odd version makes the store-exclusive fail, and the guest try again.
    version.load(Ordering::SeqCst)
}

/// For an atomic: makes store-exclusives of earlier loads fail.
#[inline]
pub fn advance(host: usize) {
    let version = version(host);
    while version.load(Ordering::SeqCst) & 1 != 0 {
        std::hint::spin_loop();
    }
    version.fetch_add(2, Ordering::SeqCst);
}

/// For a store-exclusive: runs `store` if the version is still `seen`, and advances it; whether `store` succeeded.
#[inline]
pub fn store_if(host: usize, seen: u64, store: impl FnOnce() -> bool) -> bool {
    let version = version(host);
    if seen & 1 != 0
        || version
            .compare_exchange(seen, seen | 1, Ordering::SeqCst, Ordering::SeqCst)
            .is_err()
    {
        return false;
    }
    let stored = store();
    version.fetch_add(1, Ordering::SeqCst);
    stored
}
