//! What lies at each physical address.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};

use parking_lot::RwLock;

use crate::{Access, Code, Mmio};

/// Memory that reads like RAM while it is in array mode and whose writes (and, in command mode, reads) go to a device:
/// NOR flash. Host memory of `size` bytes at `host` must stay valid as long as the value lives.
pub struct RomDevice {
    /// Host address of the contents.
    pub host: *mut u8,
    /// Bytes.
    pub size: u64,
    /// Whether reads and fetches go straight to `host`. The device changes it and then calls
    /// [`AddressSpace::changed`].
    pub array_mode: Arc<AtomicBool>,
    /// Takes writes always, reads when not in array mode.
    pub device: Arc<dyn Mmio>,
}

#[allow(unsafe_code)]
// SAFETY: the pointer is only handed out; those who dereference it do so as they do guest RAM, by volatile or atomic accesses.
unsafe impl Send for RomDevice {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl Sync for RomDevice {}

/// What a region of the map is.
#[derive(Clone)]
pub enum Mapping {
    /// Guest RAM at a host address. The memory must outlive the address space.
    Ram { host: usize },
    /// Memory that cannot be written: a write finds nothing there.
    ReadOnly { host: usize },
    /// Flash.
    Rom(Arc<RomDevice>),
    /// Device registers.
    Mmio(Arc<dyn Mmio>),
}

#[derive(Clone)]
struct Region {
    start: u64,
    size: u64,
    mapping: Mapping,
}

/// What was found at an address.
#[derive(Clone)]
pub enum Found {
    /// Host memory; readable, and writable if so said. The span holds for `contiguous` bytes from the address on.
    Memory {
        host: *mut u8,
        contiguous: u64,
        writable: bool,
    },
    /// A device's registers: the device, and the offset into its region.
    Device {
        device: Arc<dyn Mmio>,
        offset: u64,
        contiguous: u64,
    },
}

/// A region overlaps another.
#[derive(Debug, thiserror::Error)]
#[error("the region at {start:#x} + {size:#x} overlaps another")]
pub struct MapError {
    pub start: u64,
    pub size: u64,
}

/// The guest's physical address space.
#[derive(Default)]
pub struct AddressSpace {
    regions: RwLock<Vec<Region>>,
    largest: Largest,
    generation: AtomicU64,
    code: Arc<Code>,
}

/// The largest region of RAM, found without a lock: walks of translation tables look here most.
#[derive(Default)]
struct Largest {
    /// Odd while the others change.
    version: AtomicU64,
    start: AtomicU64,
    size: AtomicU64,
    host: AtomicUsize,
}

impl Largest {
    /// The host address of what is at `address`, and how much of the region follows.
    fn find(&self, address: u64) -> Option<(usize, u64)> {
        let version = self.version.load(Ordering::Acquire);
        let offset = address.wrapping_sub(self.start.load(Ordering::Relaxed));
        let size = self.size.load(Ordering::Relaxed);
        let host = self.host.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        let same = version & 1 == 0 && self.version.load(Ordering::Relaxed) == version;
        (same && offset < size).then(|| (host.wrapping_add(offset as usize), size - offset))
    }

    /// Follows a change of the regions, whose lock is held.
    fn follow(&self, regions: &[Region]) {
        let ram = regions.iter().filter_map(|r| match r.mapping {
            Mapping::Ram { host } => Some((r.size, r.start, host)),
            _ => None,
        });
        let (size, start, host) = ram.max().unwrap_or_default();
        self.version.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        self.start.store(start, Ordering::Relaxed);
        self.size.store(size, Ordering::Relaxed);
        self.host.store(host, Ordering::Relaxed);
        self.version.fetch_add(1, Ordering::SeqCst);
    }
}

impl AddressSpace {
    /// An empty one.
    pub fn new() -> AddressSpace {
        AddressSpace::default()
    }

    /// Puts a region in place.
    pub fn map(&self, start: u64, size: u64, mapping: Mapping) -> Result<(), MapError> {
        let error = || MapError { start, size };
        let end = start.checked_add(size).ok_or_else(error)?;
        let mut regions = self.regions.write();
        let at = regions.partition_point(|r| r.start < start);
        if (at > 0 && regions[at - 1].start + regions[at - 1].size > start)
            || regions.get(at).is_some_and(|r| r.start < end)
        {
            return Err(error());
        }
        regions.insert(
            at,
            Region {
                start,
                size,
                mapping,
            },
        );
        self.largest.follow(&regions);
        drop(regions);
        self.changed();
        Ok(())
    }

    /// Takes out the region that starts at `start`; whether there was one.
    pub fn unmap(&self, start: u64) -> bool {
        let mut regions = self.regions.write();
        let Some(at) = regions.iter().position(|r| r.start == start) else {
            return false;
        };
        regions.remove(at);
        self.largest.follow(&regions);
        drop(regions);
        self.changed();
        true
    }

    /// Every region: its start, its size, and what it is.
    pub fn regions(&self) -> Vec<(u64, u64, Mapping)> {
        let regions = self.regions.read();
        let of = |r: &Region| (r.start, r.size, r.mapping.clone());
        regions.iter().map(of).collect()
    }

    /// What of this memory was translated.
    pub fn code(&self) -> &Arc<Code> {
        &self.code
    }

    /// Says that what reads, writes or fetches reach has changed: cached look-ups of an older
    /// [`AddressSpace::generation`] are stale.
    pub fn changed(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts the changes of the map. Processors compare it to know when their cached look-ups are stale.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What answers at `address`, or `None` where nothing does (an external abort).
    #[inline]
    pub fn find(&self, address: u64, write: bool) -> Option<Found> {
        match self.largest.find(address) {
            Some((host, contiguous)) => Some(Found::Memory {
                host: host as *mut u8,
                contiguous,
                writable: true,
            }),
            None => self.find_region(address, write),
        }
    }

    fn find_region(&self, address: u64, write: bool) -> Option<Found> {
        let regions = self.regions.read();
        let at = regions
            .partition_point(|r| r.start <= address)
            .checked_sub(1)?;
        let region = &regions[at];
        let offset = address - region.start;
        if offset >= region.size {
            return None;
        }
        let contiguous = region.size - offset;
        Some(match &region.mapping {
            Mapping::Ram { host } => Found::Memory {
                host: (host + offset as usize) as *mut u8,
                contiguous,
                writable: true,
            },
            Mapping::ReadOnly { .. } if write => return None,
            Mapping::ReadOnly { host } => Found::Memory {
                host: (host + offset as usize) as *mut u8,
                contiguous,
                writable: false,
            },
            Mapping::Rom(rom) if !write && rom.array_mode.load(Ordering::Acquire) => {
                Found::Memory {
                    host: rom.host.wrapping_add(offset as usize),
                    contiguous,
                    writable: false,
                }
            }
            Mapping::Rom(rom) => Found::Device {
                device: rom.device.clone(),
                offset,
                contiguous,
            },
            Mapping::Mmio(device) => Found::Device {
                device: device.clone(),
                offset,
                contiguous,
            },
        })
    }

    /// Reads device registers (or memory) on a processor's behalf: `None` where nothing answers. An access that
    /// crosses out of the region is refused.
    pub fn read(&self, cpu: u32, address: u64, width: u8) -> Option<u64> {
        match self.find(address, false)? {
            Found::Device {
                device,
                offset,
                contiguous,
            } if u64::from(width) <= contiguous => {
                let access = Access { offset, width, cpu };
                Some(device.read(access) & access.mask())
            }
            Found::Memory {
                host, contiguous, ..
            } if u64::from(width) <= contiguous => {
                let mut bytes = [0; 8];
                for (i, byte) in bytes.iter_mut().enumerate().take(width as usize) {
                    #[allow(unsafe_code)]
                    // SAFETY: inside the region's host memory, which outlives the address space.
                    let value = unsafe { host.add(i).read_volatile() };
                    *byte = value;
                }
                Some(u64::from_le_bytes(bytes))
            }
            _ => None,
        }
    }

    /// Writes device registers (or memory) on a processor's behalf: `None` where nothing answers.
    pub fn write(&self, cpu: u32, address: u64, width: u8, value: u64) -> Option<()> {
        match self.find(address, true)? {
            Found::Device {
                device,
                offset,
                contiguous,
            } if u64::from(width) <= contiguous => {
                let access = Access { offset, width, cpu };
                device.write(access, value & access.mask());
                Some(())
            }
            Found::Memory {
                host,
                contiguous,
                writable: true,
            } if u64::from(width) <= contiguous => {
                for (i, byte) in value.to_le_bytes().iter().enumerate().take(width as usize) {
                    #[allow(unsafe_code)]
                    // SAFETY: inside the region's host memory, which outlives the address space.
                    unsafe {
                        host.add(i).write_volatile(*byte)
                    };
                }
                Some(())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Echo;

    impl Mmio for Echo {
        fn read(&self, access: Access) -> u64 {
            access.offset << 8 | u64::from(access.width)
        }

        fn write(&self, _: Access, _: u64) {}
    }

    #[test]
    fn finds_the_region_and_nothing_beside_it() {
        let space = AddressSpace::new();
        space
            .map(0x1000, 0x100, Mapping::Mmio(Arc::new(Echo)))
            .unwrap();
        let before = space.generation();
        assert!(space.map(0x10ff, 1, Mapping::Mmio(Arc::new(Echo))).is_err());
        assert!(space.map(0xfff, 2, Mapping::Mmio(Arc::new(Echo))).is_err());
        space
            .map(0x1100, 0x10, Mapping::Mmio(Arc::new(Echo)))
            .unwrap();
        assert_ne!(space.generation(), before);
        assert_eq!(space.read(0, 0x1004, 4), Some(0x404));
        assert_eq!(space.read(0, 0x1104, 4), Some(0x404));
        assert_eq!(space.read(0, 0x110e, 4), None);
        assert_eq!(space.read(0, 0xfff, 1), None);
        assert!(space.unmap(0x1100));
        assert_eq!(space.read(0, 0x1104, 4), None);
    }

    #[test]
    fn ram_of_any_size_is_found_while_it_is_there() {
        let space = AddressSpace::new();
        let host = |at: u64| match space.find(at, true) {
            Some(Found::Memory {
                host, contiguous, ..
            }) => Some((host as usize, contiguous)),
            _ => None,
        };
        space
            .map(0x1000, 0x1000, Mapping::Ram { host: 0x10_0000 })
            .unwrap();
        space
            .map(0x4000, 0x2000, Mapping::Ram { host: 0x20_0000 })
            .unwrap();
        assert_eq!(host(0x0fff), None);
        assert_eq!(host(0x1010), Some((0x10_0010, 0xff0)));
        assert_eq!(host(0x4000), Some((0x20_0000, 0x2000)));
        assert_eq!(host(0x5fff), Some((0x20_1fff, 1)));
        assert_eq!(host(0x6000), None);
        assert!(space.unmap(0x4000));
        assert_eq!(host(0x4000), None);
        assert_eq!(host(0x1010), Some((0x10_0010, 0xff0)));
        assert!(space.unmap(0x1000));
        assert_eq!(host(0x1010), None);
    }

    #[test]
    fn read_only_memory_takes_no_write() {
        let bytes = [1u8, 2, 3, 4];
        let space = AddressSpace::new();
        let host = bytes.as_ptr() as usize;
        space.map(0x1000, 4, Mapping::ReadOnly { host }).unwrap();
        assert_eq!(space.read(0, 0x1000, 4), Some(0x0403_0201));
        assert_eq!(space.write(0, 0x1000, 4, 0), None);
        assert_eq!(bytes[0], 1);
    }
}
