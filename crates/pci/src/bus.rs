//! The root bus: slots, ECAM, and the windows of the host bridge.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use device::{Access, Line, LineSink, Mmio, MsiTarget};
use parking_lot::{Mutex, RwLock};

use crate::Function;
use crate::endpoint::Claim;
use crate::host_bridge::HostBridge;

/// Slots of a bus.
const SLOTS: u8 = 32;

/// A window of the host bridge: where the board put it, and the PCI address it begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Guest-physical address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// PCI address (or port) of its first byte.
    pub pci: u64,
}

/// Where the board put things.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BusConfig {
    /// I/O ports.
    pub io: Window,
    /// Memory below 4 GiB.
    pub mem32: Window,
    /// Memory above, if the board has it.
    pub mem64: Option<Window>,
    /// Buses that ECAM spans, 1 MiB each. Only bus 0 has functions.
    pub buses: u16,
}

impl Default for BusConfig {
    /// The `virt` board's.
    fn default() -> Self {
        BusConfig {
            io: Window {
                base: 0x3eff_0000,
                size: 0x1_0000,
                pci: 0,
            },
            mem32: Window {
                base: 0x1000_0000,
                size: 0x2eff_0000,
                pci: 0x1000_0000,
            },
            mem64: Some(Window {
                base: 0x80_0000_0000,
                size: 0x80_0000_0000,
                pci: 0x80_0000_0000,
            }),
            buses: 256,
        }
    }
}

/// Why a function cannot be plugged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlugError {
    #[error("PCI slot {0} is taken")]
    Taken(u8),
    #[error("there is no PCI slot {0}: slots are 0 to 31")]
    NoSuchSlot(u8),
    #[error("all PCI slots are taken")]
    Full,
}

/// The root bus.
pub struct Bus {
    config: BusConfig,
    msi: Arc<dyn MsiTarget>,
    intx: Arc<SharedLines>,
    slots: RwLock<[Option<Arc<dyn Function>>; SLOTS as usize]>,
    /// Bumped by endpoints when what their BARs claim may have changed.
    generation: Arc<AtomicU64>,
    decode: RwLock<Decode>,
}

/// What the BARs of all functions claim, as of a generation.
#[derive(Default)]
struct Decode {
    generation: u64,
    claims: Vec<(Claim, Arc<dyn Function>)>,
}

impl Bus {
    /// A bus with the host bridge in slot 0. INTx of all functions meets in `intx` (INTA to INTD), swizzled by slot.
    pub fn new(config: BusConfig, msi: Arc<dyn MsiTarget>, intx: [Line; 4]) -> Arc<Bus> {
        let bus = Bus {
            config,
            msi,
            intx: Arc::new(SharedLines {
                lines: intx,
                levels: Mutex::new([0; 4]),
            }),
            slots: RwLock::default(),
            generation: Arc::new(AtomicU64::new(1)),
            decode: RwLock::default(),
        };
        bus.plug(Some(0), Arc::new(HostBridge::new()))
            .expect("slot 0 of a new bus is free");
        Arc::new(bus)
    }

    /// What it was made with.
    pub fn config(&self) -> &BusConfig {
        &self.config
    }

    /// Puts a function into a slot, by default the lowest free one from 2 on: 1 is the default network interface's, and
    /// taken only if nothing else is left.
    pub fn plug(&self, slot: Option<u8>, function: Arc<dyn Function>) -> Result<u8, PlugError> {
        let mut slots = self.slots.write();
        let slot = match slot {
            Some(slot) if slot >= SLOTS => return Err(PlugError::NoSuchSlot(slot)),
            Some(slot) if slots[slot as usize].is_some() => return Err(PlugError::Taken(slot)),
            Some(slot) => slot,
            None => (2..SLOTS)
                .chain([1])
                .find(|&s| slots[s as usize].is_none())
                .ok_or(PlugError::Full)?,
        };
        let endpoint = function.endpoint();
        // INTA# of slot n is input n mod 4; the other pins follow (PCI 2.2.6). Single-function devices use INTA# only.
        let line = Line::new(self.intx.clone(), slot.into());
        endpoint.connect(u32::from(slot) << 3, self.msi.clone(), line);
        endpoint.watch(self.generation.clone());
        slots[slot as usize] = Some(function);
        drop(slots);
        self.generation.fetch_add(1, Ordering::SeqCst);
        Ok(slot)
    }

    /// The function in a slot.
    pub fn function(&self, slot: u8) -> Option<Arc<dyn Function>> {
        self.slots.read().get(usize::from(slot))?.clone()
    }

    /// All functions, with their slots.
    pub fn functions(&self) -> Vec<(u8, Arc<dyn Function>)> {
        let slots = self.slots.read();
        (0..SLOTS)
            .filter_map(|s| Some((s, slots[s as usize].clone()?)))
            .collect()
    }

    /// Resets every function.
    pub fn reset(&self) {
        for (_, function) in self.functions() {
            function.reset();
        }
    }

    /// The configuration space of all functions: 4096 bytes each (PCIe 7.2.2).
    pub fn ecam(self: &Arc<Self>) -> Arc<dyn Mmio> {
        Arc::new(Ecam { bus: self.clone() })
    }

    /// The window of I/O ports.
    pub fn io_window(self: &Arc<Self>) -> Arc<dyn Mmio> {
        Arc::new(BridgeWindow {
            bus: self.clone(),
            io: true,
            base: self.config.io.pci,
        })
    }

    /// The window of memory below 4 GiB.
    pub fn mem32_window(self: &Arc<Self>) -> Arc<dyn Mmio> {
        Arc::new(BridgeWindow {
            bus: self.clone(),
            io: false,
            base: self.config.mem32.pci,
        })
    }

    /// The window of memory above 4 GiB. Answers nothing if the board has none.
    pub fn mem64_window(self: &Arc<Self>) -> Arc<dyn Mmio> {
        let base = self.config.mem64.map_or(u64::MAX, |w| w.pci);
        Arc::new(BridgeWindow {
            bus: self.clone(),
            io: false,
            base,
        })
    }

    /// Whose enabled BAR has all of `width` bytes at a PCI address: the function, the BAR, the offset into it.
    fn claimant(&self, io: bool, address: u64, width: u8) -> Option<(Arc<dyn Function>, u8, u64)> {
        let last = address.checked_add(u64::from(width).saturating_sub(1))?;
        let find = |decode: &Decode| {
            let (claim, function) = decode
                .claims
                .iter()
                .find(|(c, _)| c.io == io && c.range.contains(&address) && last < c.range.end)?;
            Some((function.clone(), claim.bar, address - claim.range.start))
        };
        let decode = self.decode.read();
        if decode.generation == self.generation.load(Ordering::SeqCst) {
            return find(&decode);
        }
        drop(decode);
        // Read before the claims: a change while they are collected leads here again.
        let generation = self.generation.load(Ordering::SeqCst);
        let claims = self
            .functions()
            .into_iter()
            .flat_map(|(_, f)| {
                f.endpoint()
                    .claims()
                    .into_iter()
                    .map(move |c| (c, f.clone()))
            })
            .collect();
        let fresh = Decode { generation, claims };
        let found = find(&fresh);
        let mut decode = self.decode.write();
        if decode.generation < generation {
            *decode = fresh;
        }
        found
    }
}

/// Where all functions' INTx lines meet: each of the four is the OR of those that share it.
struct SharedLines {
    lines: [Line; 4],
    /// A bit a slot.
    levels: Mutex<[u32; 4]>,
}

impl LineSink for SharedLines {
    fn set(&self, slot: u32, level: bool) {
        let line = (slot % 4) as usize;
        let bit = 1 << (slot % u32::from(SLOTS));
        let mut levels = self.levels.lock();
        let before = levels[line];
        levels[line] = if level { before | bit } else { before & !bit };
        // Set under the lock, or two functions' changes could arrive in the wrong order.
        if (before != 0) != (levels[line] != 0) {
            self.lines[line].set(levels[line] != 0);
        }
    }
}

struct Ecam {
    bus: Arc<Bus>,
}

impl Ecam {
    /// The function and the register of an access.
    fn decode(&self, offset: u64) -> Option<(Arc<dyn Function>, u16)> {
        let (bus, slot, function) = (offset >> 20, offset >> 15 & 31, offset >> 12 & 7);
        if bus != 0 || function != 0 {
            return None;
        }
        Some((self.bus.function(slot as u8)?, (offset & 0xfff) as u16))
    }
}

/// The aligned-dword pieces of an access: offset, width, shift of its bits.
fn pieces(access: Access) -> impl Iterator<Item = (u64, u8, u32)> {
    let Range { start, end } = access.offset..access.offset.saturating_add(access.width.into());
    let mut at = start;
    std::iter::from_fn(move || {
        let width = end
            .min((at | 3).saturating_add(1))
            .checked_sub(at)
            .filter(|&w| w > 0)?;
        let piece = (at, width as u8, ((at - start) * 8) as u32);
        at += width;
        Some(piece)
    })
}

impl Mmio for Ecam {
    fn read(&self, access: Access) -> u64 {
        pieces(access).fold(0, |value, (at, width, shift)| {
            let part = match self.decode(at) {
                Some((function, register)) => function
                    .config_read(register, width)
                    .unwrap_or_else(|| function.endpoint().read_config(register, width)),
                None => u32::MAX,
            };
            value | (u64::from(part) & Access::new(0, width).mask()) << shift
        })
    }

    fn write(&self, access: Access, value: u64) {
        for (at, width, shift) in pieces(access) {
            if let Some((function, register)) = self.decode(at) {
                let part = (value >> shift & Access::new(0, width).mask()) as u32;
                function.endpoint().write_config(register, width, part);
                function.config_written(register, width);
            }
        }
    }
}

struct BridgeWindow {
    bus: Arc<Bus>,
    io: bool,
    /// PCI address of the window's first byte.
    base: u64,
}

impl BridgeWindow {
    fn claimant(&self, access: Access) -> Option<(Arc<dyn Function>, u8, Access)> {
        let address = self.base.checked_add(access.offset)?;
        let (function, bar, offset) = self.bus.claimant(self.io, address, access.width)?;
        Some((function, bar, Access { offset, ..access }))
    }
}

impl Mmio for BridgeWindow {
    fn read(&self, access: Access) -> u64 {
        let Some((function, bar, access)) = self.claimant(access) else {
            return u64::MAX;
        };
        match function.endpoint().read_msix(bar, access) {
            Some(value) => value,
            None => function.read_bar(bar, access),
        }
    }

    fn write(&self, access: Access, value: u64) {
        let Some((function, bar, access)) = self.claimant(access) else {
            return;
        };
        if !function.endpoint().write_msix(bar, access, value) {
            function.write_bar(bar, access, value);
        }
    }
}
