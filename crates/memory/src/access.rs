//! One access to a device's registers.

/// An access to a device, relative to the start of its region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Offset from the start of the region, in bytes.
    pub offset: u64,
    /// Bytes: 1, 2, 4 or 8. Never crosses the end of the region.
    pub width: u8,
    /// The index of the processor that makes it: banked registers (GICv2) depend on it.
    pub cpu: u32,
}

impl Access {
    /// An access by processor 0.
    pub fn new(offset: u64, width: u8) -> Access {
        Access {
            offset,
            width,
            cpu: 0,
        }
    }

    /// The same access, seen from a sub-region that starts at `base`.
    pub fn within(self, base: u64) -> Access {
        Access {
            offset: self.offset - base,
            ..self
        }
    }

    /// All bits of the access's width.
    pub fn mask(self) -> u64 {
        if self.width >= 8 {
            u64::MAX
        } else {
            (1 << (self.width as u32 * 8)) - 1
        }
    }
}

/// What answers accesses to a region of the physical address space.
///
/// Called on a processor's thread with no lock of the bus held. Neither method waits for the host's I/O.
/// Whatever offset, width or value the guest picks, neither panics.
pub trait Mmio: Send + Sync {
    /// The value read, in the low `access.width` bytes; the rest is ignored.
    fn read(&self, access: Access) -> u64;
    /// `value` holds the written bytes, zero-extended.
    fn write(&self, access: Access, value: u64);
}
