//! Stage 1 translation of the EL1&0 regime (DDI 0487, D8).
//!
//! Not there: stage 2, FEAT_LVA, FEAT_LPA, mixed endianness. Shareability and cacheability have no effect; the contiguous
//! bit is a hint that is not taken.

use std::sync::atomic::{AtomicU64, Ordering};

use aarch64::Extension;
use aarch64::esr::status;
use memory::{AddressSpace, Found};

use crate::{Core, DataAccess};

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
    /// A data access that is not aligned: to Device memory it is an alignment fault, before permissions are looked at.
    pub misaligned: bool,
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
            (false, true) => Permissions {
                read: false,
                write: false,
                ..self.el1
            },
        }
    }
}

/// Why there is no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// DFSC or IFSC, level included ([`aarch64::esr::status`]).
    pub status: u32,
}

/// TCR_EL1's fields (D17.2.139).
mod tcr {
    pub const A1: u32 = 22;
    pub const IPS: u32 = 32;
    pub const AS: u32 = 36;
    pub const HA: u32 = 39;
    pub const HD: u32 = 40;
}

/// SCTLR_EL1.M, WXN.
const SCTLR_M: u64 = 1;
const SCTLR_WXN: u64 = 1 << 19;

/// Descriptor bits (D8.3).
mod descriptor {
    pub const VALID: u64 = 1;
    /// At level 3, and of tables.
    pub const TABLE: u64 = 1 << 1;
    /// AP\[1\], AP\[2\].
    pub const USER: u64 = 1 << 6;
    pub const READ_ONLY: u64 = 1 << 7;
    pub const AF: u64 = 1 << 10;
    pub const NG: u64 = 1 << 11;
    pub const DBM: u64 = 1 << 51;
    pub const PXN: u64 = 1 << 53;
    pub const UXN: u64 = 1 << 54;
    pub const PXN_TABLE: u64 = 1 << 59;
    pub const UXN_TABLE: u64 = 1 << 60;
    /// APTable: no access from EL0; no writes.
    pub const NO_USER_TABLE: u64 = 1 << 61;
    pub const READ_ONLY_TABLE: u64 = 1 << 62;
    /// Bits 47:12.
    pub const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
    /// Bits 47:4: a table's base may be that fine.
    pub const ADDRESS_AND_LOW: u64 = 0x0000_ffff_ffff_fff0;
}

/// TCR_EL1 for one half of the address space.
struct Half {
    upper: bool,
    /// Bits of input address.
    input_bits: u32,
    /// log2 of the granule: 12, 14, 16.
    granule_bits: u32,
    /// Walks are disabled.
    disabled: bool,
    top_byte_ignored: bool,
    hierarchy_disabled: bool,
    e0pd: bool,
    table: u64,
}

impl Half {
    fn of(core: &Core, address: u64, execute: bool) -> Half {
        let s = &core.state;
        let f = &core.features;
        let upper = address >> 55 & 1 != 0;
        let t = s.tcr[1];
        let bit = |lower: u32, higher: u32| t >> if upper { higher } else { lower } & 1 != 0;
        let size = (t >> if upper { 16 } else { 0 } & 0x3f).clamp(16, 39) as u32;
        let granule_bits = match (upper, t >> if upper { 30 } else { 14 } & 3) {
            (false, 1) | (true, 3) => 16,
            (false, 2) | (true, 1) if f.granule16 => 14,
            _ => 12,
        };
        let data_only = f.has(Extension::PAuth) && bit(51, 52);
        Half {
            upper,
            input_bits: 64 - size,
            granule_bits,
            disabled: bit(7, 23),
            top_byte_ignored: bit(37, 38) && !(execute && data_only),
            hierarchy_disabled: f.hpds && bit(41, 42),
            e0pd: f.e0pd && bit(55, 56),
            table: if upper { s.ttbr1[1] } else { s.ttbr0[1] },
        }
    }

    /// Whether the bits above the input size are what they must be.
    fn holds(&self, address: u64) -> bool {
        let top = if self.top_byte_ignored {
            (address << 8) as i64 >> 8
        } else {
            address as i64
        };
        let above = top >> self.input_bits;
        above == if self.upper { -1 } else { 0 }
    }
}

/// A descriptor in memory, for updates.
struct Slot {
    host: *mut u8,
    writable: bool,
}

impl Slot {
    /// The slot at `address`, or an external abort: tables are in RAM or in flash that reads as an array.
    fn find(space: &AddressSpace, address: u64, level: u32) -> Result<Slot, Fault> {
        let (host, writable) = match space.find(address, false) {
            Some(Found::Memory {
                host,
                contiguous,
                writable,
            }) if contiguous >= 8 => (host, writable),
            _ => {
                return Err(Fault {
                    status: status::EXTERNAL_ON_WALK | level,
                });
            }
        };
        if !(host as usize).is_multiple_of(8) {
            return Err(Fault {
                status: status::EXTERNAL_ON_WALK | level,
            });
        }
        Ok(Slot { host, writable })
    }

    #[allow(unsafe_code)]
    fn atomic(&self) -> &AtomicU64 {
        // SAFETY: `find` gave 8 bytes of host memory that outlives the address space, aligned; others access it by
        // atomics or volatile accesses only. Read-only memory is only loaded from.
        unsafe { AtomicU64::from_ptr(self.host.cast()) }
    }

    fn load(&self) -> u64 {
        u64::from_le(self.atomic().load(Ordering::Acquire))
    }

    /// Replaces `old` by `new`; whether it was still `old`.
    fn exchange(&self, old: u64, new: u64) -> bool {
        self.atomic()
            .compare_exchange(old.to_le(), new.to_le(), Ordering::SeqCst, Ordering::SeqCst)
            .is_ok()
    }
}

/// A walk updates descriptors that change under it again, this often at most: another processor may keep changing them.
const UPDATE_ATTEMPTS: u32 = 1000;

impl Core {
    /// Translates a virtual address of EL1 or EL0. The address is as the program has it, tag included.
    ///
    /// Reads tables in RAM and in flash; updates access flag and dirty state in RAM where the guest turned that on.
    pub fn translate(
        &self,
        space: &AddressSpace,
        address: u64,
        request: Request,
    ) -> Result<Translation, Fault> {
        for _ in 0..UPDATE_ATTEMPTS {
            if let Some(result) = self.walk(space, address, request, true) {
                return result;
            }
        }
        Err(Fault {
            status: status::ATOMIC_UPDATE,
        })
    }

    /// The same, as AT instructions do it: nothing in memory changes.
    pub(crate) fn probe(
        &self,
        space: &AddressSpace,
        address: u64,
        request: Request,
    ) -> Result<Translation, Fault> {
        self.walk(space, address, request, false)
            .unwrap_or(Err(Fault {
                status: status::ATOMIC_UPDATE,
            }))
    }

    /// Which access a fault of an atomic (or other) access is reported as: of a write, unless a read would have faulted
    /// too (ESR_ELx.WnR).
    pub fn faulting_access(
        &self,
        space: &AddressSpace,
        address: u64,
        request: Request,
    ) -> DataAccess {
        match request.purpose {
            Purpose::Read | Purpose::Execute => DataAccess::Read,
            Purpose::Write => DataAccess::Write,
            Purpose::ReadWrite => {
                let read = Request {
                    purpose: Purpose::Read,
                    ..request
                };
                match self.probe(space, address, read) {
                    Ok(_) => DataAccess::Write,
                    Err(_) => DataAccess::Read,
                }
            }
        }
    }

    /// The current ASID, 8 or 16 bits: what non-global entries are tagged with.
    pub fn asid(&self) -> u16 {
        let s = &self.state;
        let table = if s.tcr[1] >> tcr::A1 & 1 != 0 {
            s.ttbr1[1]
        } else {
            s.ttbr0[1]
        };
        let asid = (table >> 48) as u16;
        if s.tcr[1] >> tcr::AS & 1 != 0 {
            asid
        } else {
            asid & 0xff
        }
    }

    /// Whether stage 1 translation is on (SCTLR_EL1.M).
    pub fn mmu_enabled(&self) -> bool {
        self.state.sctlr[1] & SCTLR_M != 0
    }

    /// With the MMU off: addresses are physical, data is Device memory (D8.2.10).
    fn untranslated(&self, address: u64, request: Request) -> Result<Translation, Fault> {
        let execute = request.purpose == Purpose::Execute;
        let half = Half::of(self, address, execute);
        let physical = if half.top_byte_ignored {
            address & !(0xff << 56)
        } else {
            address
        };
        if physical >> self.features.physical_bits() != 0 {
            return Err(Fault {
                status: status::ADDRESS_SIZE,
            });
        }
        let all = Permissions {
            read: true,
            write: true,
            execute: true,
        };
        Ok(Translation {
            physical,
            block_bits: 48,
            memory: MemoryType::Device,
            attributes: 0,
            shareability: 2,
            el0: all,
            el1: all,
            user: false,
            global: true,
        })
    }

    /// One walk. `None`: a descriptor changed under an update.
    fn walk(
        &self,
        space: &AddressSpace,
        address: u64,
        request: Request,
        update: bool,
    ) -> Option<Result<Translation, Fault>> {
        if !self.mmu_enabled() {
            return Some(self.untranslated(address, request));
        }
        match self.find_leaf(space, address, request) {
            Ok(leaf) => self.finish(address, request, leaf, update),
            Err(fault) => Some(Err(fault)),
        }
    }

    /// Walks the tables down to a valid page or block.
    fn find_leaf(
        &self,
        space: &AddressSpace,
        address: u64,
        request: Request,
    ) -> Result<Leaf, Fault> {
        let half = Half::of(self, address, request.purpose == Purpose::Execute);
        let out_of_range = !half.holds(address) || half.disabled || (half.e0pd && request.el0);
        if out_of_range {
            return Err(Fault {
                status: status::TRANSLATION,
            });
        }
        let output_bits = [32, 36, 40, 42, 44, 48, 48, 48]
            [(self.state.tcr[1] >> tcr::IPS & 7) as usize]
            .min(self.features.physical_bits());
        let stride = half.granule_bits - 3;
        let mut level = 4 - (half.input_bits - half.granule_bits).div_ceil(stride);
        // Bits of the address below what this level's index resolves.
        let mut shift = half.granule_bits + (3 - level) * stride;
        let index_bits = half.input_bits - shift;
        let mut table = half.table & descriptor::ADDRESS_AND_LOW & !((8u64 << index_bits) - 1);
        if table >> output_bits != 0 {
            return Err(Fault {
                status: status::ADDRESS_SIZE,
            });
        }
        let mut hierarchy = 0;
        let input = address & ((1 << half.input_bits) - 1);
        let mut index = input >> shift;
        loop {
            let slot = Slot::find(space, table | index << 3, level)?;
            let value = slot.load();
            let is_table = value & descriptor::TABLE != 0;
            let leaf = match level {
                3 => is_table,
                // 4 KiB granules have blocks at levels 1 and 2, the others at 2.
                2 => !is_table,
                1 => !is_table && half.granule_bits == 12,
                _ => false,
            };
            if value & descriptor::VALID == 0 || (!leaf && (level == 3 || !is_table)) {
                return Err(Fault {
                    status: status::TRANSLATION | level,
                });
            }
            let below = if leaf { shift } else { half.granule_bits };
            let next = value & descriptor::ADDRESS & !((1 << below) - 1);
            if next >> output_bits != 0 {
                return Err(Fault {
                    status: status::ADDRESS_SIZE | level,
                });
            }
            if leaf {
                return Ok(Leaf {
                    slot,
                    value,
                    output: next,
                    hierarchy,
                    level,
                    shift,
                });
            }
            if !half.hierarchy_disabled {
                hierarchy |= value;
            }
            table = next;
            level += 1;
            shift -= stride;
            index = input >> shift & ((1 << stride) - 1);
        }
    }

    /// Access flag, permissions, and updates of a leaf descriptor.
    fn finish(
        &self,
        address: u64,
        request: Request,
        leaf: Leaf,
        update: bool,
    ) -> Option<Result<Translation, Fault>> {
        use descriptor as d;
        let t = self.state.tcr[1];
        let set_access = self.features.hafdbs >= 1 && t >> tcr::HA & 1 != 0;
        let set_dirty = set_access && self.features.hafdbs >= 2 && t >> tcr::HD & 1 != 0;
        let fault = |code: u32| {
            Some(Err(Fault {
                status: code | leaf.level,
            }))
        };
        let mut value = leaf.value;
        if value & d::AF == 0 {
            if !set_access {
                return fault(status::ACCESS_FLAG);
            }
            value |= d::AF;
        }
        // The page is writable, though a first write has to make it so.
        let clean = set_dirty && value & d::DBM != 0 && value & d::READ_ONLY != 0;
        let read_only =
            (value & d::READ_ONLY != 0 && !clean) || leaf.hierarchy & d::READ_ONLY_TABLE != 0;
        let user = value & d::USER != 0 && leaf.hierarchy & d::NO_USER_TABLE == 0;
        let pxn = value & d::PXN != 0 || leaf.hierarchy & d::PXN_TABLE != 0;
        let uxn = value & d::UXN != 0 || leaf.hierarchy & d::UXN_TABLE != 0;
        let wxn = self.state.sctlr[1] & SCTLR_WXN != 0;
        let writable = !read_only;
        let user_writable = user && writable;
        let attributes = (self.state.mair[1] >> ((value >> 2 & 7) * 8)) as u8;
        let mut translation = Translation {
            physical: leaf.output | address & ((1 << leaf.shift) - 1),
            block_bits: leaf.shift as u8,
            memory: if attributes & 0xf0 == 0 {
                MemoryType::Device
            } else {
                MemoryType::Normal
            },
            attributes,
            shareability: (value >> 8 & 3) as u8,
            el0: Permissions {
                read: user,
                write: user_writable,
                execute: !(uxn || (wxn && user_writable)),
            },
            el1: Permissions {
                read: true,
                write: writable,
                // What EL0 can write EL1 never executes.
                execute: !(pxn || user_writable || (wxn && writable)),
            },
            user,
            global: value & d::NG == 0,
        };
        if request.misaligned && translation.memory == MemoryType::Device {
            return Some(Err(Fault {
                status: status::ALIGNMENT,
            }));
        }
        let may = translation.permissions(request.el0, request.pan);
        let permitted = match request.purpose {
            Purpose::Read => may.read,
            Purpose::Write => may.write,
            Purpose::ReadWrite => may.read && may.write,
            Purpose::Execute => may.execute,
        };
        if !permitted {
            return fault(status::PERMISSION);
        }
        if clean {
            if matches!(request.purpose, Purpose::Write | Purpose::ReadWrite) {
                value &= !d::READ_ONLY;
            } else {
                translation.el0.write = false;
                translation.el1.write = false;
            }
        }
        if update && value != leaf.value {
            if !leaf.slot.writable {
                return Some(Err(Fault {
                    status: status::ATOMIC_UPDATE,
                }));
            }
            if !leaf.slot.exchange(leaf.value, value) {
                return None;
            }
        }
        Some(Ok(translation))
    }
}

/// A page or block that a walk found.
struct Leaf {
    slot: Slot,
    value: u64,
    output: u64,
    /// Limits of the tables above: their descriptors, or-ed.
    hierarchy: u64,
    level: u32,
    /// log2 of its bytes.
    shift: u32,
}

#[cfg(test)]
mod tests;
