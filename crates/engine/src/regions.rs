//! What an engine has told its host of guest memory: for engines whose hardware has tables of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use memory::{AddressSpace, Found};
use parking_lot::Mutex;

use crate::Error;

/// A span of host memory in the guest's physical address space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Region {
    /// Guest-physical address.
    pub start: u64,
    /// Bytes.
    pub size: u64,
    /// Host address.
    pub host: usize,
    pub writable: bool,
    /// Whether the hardware has it now.
    pub mapped: bool,
}

/// All of a machine's. Memory that is not writable is a flash's: while that is not in array mode, reads of it are the
/// device's too, and the hardware must not answer them.
pub struct Regions {
    regions: Mutex<Vec<Region>>,
    /// [`AddressSpace::generation`] of the last look.
    generation: AtomicU64,
    /// The unit of mappings.
    granule: u64,
}

impl Regions {
    /// None yet; all will be multiples of `granule`.
    pub fn new(granule: u64) -> Regions {
        Regions {
            regions: Mutex::default(),
            generation: AtomicU64::new(u64::MAX),
            granule,
        }
    }

    /// Adds one, which `map` has the hardware take.
    ///
    /// # Errors
    /// It is not aligned, or overlaps another, or `map` failed.
    pub fn add(
        &self,
        start: u64,
        size: u64,
        host: usize,
        writable: bool,
        map: impl FnOnce(&Region) -> Result<(), Error>,
    ) -> Result<(), Error> {
        // Host memory comes in pages of the host's, which the hardware's units are.
        let unaligned = [start, size].iter().any(|value| value % self.granule != 0);
        if unaligned || size == 0 {
            return Err(Error::Host(format!(
                "memory of {size:#x} bytes at {start:#x} is not in whole units of {} KiB",
                self.granule >> 10
            )));
        }
        let mut regions = self.regions.lock();
        if regions
            .iter()
            .any(|r| r.start < start.saturating_add(size) && start < r.start + r.size)
        {
            return Err(Error::Host(format!(
                "memory at {start:#x} overlaps what is mapped"
            )));
        }
        let mut region = Region {
            start,
            size,
            host,
            writable,
            mapped: false,
        };
        map(&region)?;
        region.mapped = true;
        regions.push(region);
        Ok(())
    }

    /// Takes out the one that starts at `start`, which `unmap` has the hardware forget.
    pub fn remove(
        &self,
        start: u64,
        size: u64,
        unmap: impl FnOnce(&Region) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut regions = self.regions.lock();
        let Some(at) = regions
            .iter()
            .position(|r| (r.start, r.size) == (start, size))
        else {
            return Err(Error::Host(format!("no memory is mapped at {start:#x}")));
        };
        if regions[at].mapped {
            unmap(&regions[at])?;
        }
        regions.swap_remove(at);
        Ok(())
    }

    /// The region of memory that can be written in which all of the span lies.
    pub fn writable(&self, start: u64, size: u64) -> Option<Region> {
        let end = start.saturating_add(size);
        let covers = |r: &&Region| r.start <= start && end <= r.start + r.size;
        let regions = self.regions.lock();
        regions.iter().find(|r| r.writable && covers(r)).copied()
    }

    /// Before a processor runs: has the hardware follow what changed in `space`. `change` maps or unmaps a region, as its
    /// `mapped` says it is to be.
    pub fn follow(
        &self,
        space: &AddressSpace,
        mut change: impl FnMut(&Region) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.generation.load(Ordering::Acquire) == space.generation() {
            return Ok(());
        }
        let mut regions = self.regions.lock();
        let generation = space.generation();
        for region in regions.iter_mut().filter(|region| !region.writable) {
            let wanted = matches!(space.find(region.start, false), Some(Found::Memory { .. }));
            if wanted != region.mapped {
                change(&Region {
                    mapped: wanted,
                    ..*region
                })?;
                region.mapped = wanted;
            }
        }
        self.generation.store(generation, Ordering::Release);
        Ok(())
    }
}
