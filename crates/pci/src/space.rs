//! The layout of a function's configuration space: what is there at reset, and which bits the guest may write.

use crate::Endpoint;
use crate::registers::*;

/// Who a function is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub vendor: u16,
    pub device: u16,
    pub revision: u8,
    /// Base class << 16 | sub-class << 8 | programming interface.
    pub class: u32,
    pub subsystem_vendor: u16,
    pub subsystem: u16,
}

/// What a BAR asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// Memory below 4 GiB, not prefetchable.
    Memory32,
    /// Memory anywhere; takes two BARs.
    Memory64 { prefetchable: bool },
    /// I/O ports.
    Io,
}

/// A BAR of a layout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bar {
    pub index: u8,
    pub kind: BarKind,
    pub size: u64,
}

/// Where MSI-X structures are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MsixLayout {
    pub capability: u16,
    pub vectors: u16,
    pub bar: u8,
    pub table: u64,
    pub pba: u64,
}

/// Config of an [`Endpoint`]: bytes at reset, and which bits are writable.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    pub reset: Vec<u8>,
    pub writable: Vec<u8>,
    pub bars: Vec<Bar>,
    pub msix: Option<MsixLayout>,
    pub msi: Option<u16>,
    pub power_management: Option<u16>,
    /// Capability ID and offset, in the order they were added.
    pub capabilities: Vec<(u8, u16)>,
}

/// Builds an [`Endpoint`]. Its methods panic where a device's own layout is impossible (sizes, places, overlaps):
/// no guest input is involved.
pub struct EndpointBuilder {
    layout: Layout,
    next: u16,
}

impl EndpointBuilder {
    pub(crate) fn new(identity: Identity) -> EndpointBuilder {
        let mut builder = EndpointBuilder {
            layout: Layout {
                reset: vec![0; CONVENTIONAL_SIZE],
                writable: vec![0; CONVENTIONAL_SIZE],
                bars: Vec::new(),
                msix: None,
                msi: None,
                power_management: None,
                capabilities: Vec::new(),
            },
            next: HEADER_END,
        };
        builder.put(VENDOR_ID, &identity.vendor.to_le_bytes());
        builder.put(DEVICE_ID, &identity.device.to_le_bytes());
        builder.put(
            REVISION_ID,
            &(identity.class << 8 | u32::from(identity.revision)).to_le_bytes(),
        );
        builder.put(
            SUBSYSTEM_VENDOR_ID,
            &identity.subsystem_vendor.to_le_bytes(),
        );
        builder.put(SUBSYSTEM_ID, &identity.subsystem.to_le_bytes());
        builder.allow(
            COMMAND,
            &(COMMAND_BUS_MASTER | COMMAND_PARITY | COMMAND_SERR | COMMAND_INTERRUPT_DISABLE)
                .to_le_bytes(),
        );
        builder.allow(CACHE_LINE_SIZE, &[0xff]);
        builder.allow(INTERRUPT_LINE, &[0xff]);
        builder
    }

    fn put(&mut self, offset: u16, bytes: &[u8]) {
        self.layout.reset[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    fn allow(&mut self, offset: u16, bits: &[u8]) {
        for (mask, bit) in self.layout.writable[offset as usize..].iter_mut().zip(bits) {
            *mask |= bit;
        }
    }

    /// A BAR of `size` bytes, a power of two (at least 16 of memory, 4 to 256 of I/O).
    pub fn bar(mut self, index: u8, kind: BarKind, size: u64) -> Self {
        let wide = matches!(kind, BarKind::Memory64 { .. });
        let taken = |i: u8| {
            self.layout.bars.iter().any(|b| {
                b.index == i || (b.index + 1 == i && matches!(b.kind, BarKind::Memory64 { .. }))
            })
        };
        assert!(
            index < 6 && !taken(index),
            "BAR {index} is taken or does not exist"
        );
        assert!(
            !wide || (index < 5 && !taken(index + 1)),
            "BAR {} is taken or does not exist",
            index + 1
        );
        let range = match kind {
            BarKind::Io => 4..=256,
            BarKind::Memory32 => 16..=1 << 31,
            BarKind::Memory64 { .. } => 16..=1 << 48,
        };
        assert!(
            size.is_power_of_two() && range.contains(&size),
            "a BAR of {size:#x} bytes"
        );
        let (bits, command) = match kind {
            BarKind::Memory32 => (0, COMMAND_MEMORY),
            BarKind::Memory64 { prefetchable } => (
                BAR_64 | if prefetchable { BAR_PREFETCHABLE } else { 0 },
                COMMAND_MEMORY,
            ),
            BarKind::Io => (BAR_IO, COMMAND_IO),
        };
        let offset = BAR0 + u16::from(index) * 4;
        let mask = !(size - 1);
        self.put(offset, &bits.to_le_bytes());
        self.allow(offset, &(mask as u32).to_le_bytes());
        if wide {
            self.allow(offset + 4, &((mask >> 32) as u32).to_le_bytes());
        }
        self.allow(COMMAND, &command.to_le_bytes());
        self.layout.bars.push(Bar { index, kind, size });
        self
    }

    /// INTA#. Which line it leads to is settled when the function is plugged.
    pub fn interrupt_pin(mut self) -> Self {
        self.put(INTERRUPT_PIN, &[1]);
        self
    }

    /// A capability: `body` is what follows its ID and next pointer, `writable` the bits of it that the guest may
    /// write (shorter is all zeroes from there on). [`Endpoint::capability`] tells where it went.
    pub fn capability(mut self, id: u8, body: Vec<u8>, writable: Vec<u8>) -> Self {
        self.add(id, &body, &writable);
        self
    }

    /// Registers of the device's own at a fixed place behind the header, such as xHCI's serial bus release number.
    /// Capabilities that are added later go past them.
    pub fn fixed(mut self, offset: u16, bytes: &[u8], writable: &[u8]) -> Self {
        let end = offset + bytes.len() as u16;
        assert!(
            offset >= self.next
                && end as usize <= CONVENTIONAL_SIZE
                && writable.len() <= bytes.len(),
            "registers at {offset:#x} do not fit"
        );
        self.put(offset, bytes);
        self.allow(offset, writable);
        self.next = end.next_multiple_of(4);
        self
    }

    fn add(&mut self, id: u8, body: &[u8], writable: &[u8]) -> u16 {
        let at = self.next;
        let end = at as usize + 2 + body.len();
        assert!(
            end <= CONVENTIONAL_SIZE && writable.len() <= body.len(),
            "capability {id:#x} does not fit"
        );
        match self.layout.capabilities.last() {
            Some(&(_, last)) => self.put(last + 1, &[at as u8]),
            None => {
                self.put(CAPABILITIES_POINTER, &[at as u8]);
                self.put(STATUS, &STATUS_CAPABILITIES.to_le_bytes());
            }
        }
        self.put(at, &[id, 0]);
        self.put(at + 2, body);
        self.allow(at + 2, writable);
        self.layout.capabilities.push((id, at));
        self.next = (end as u16).next_multiple_of(4);
        at
    }

    /// MSI-X with `vectors` entries; the table and the pending bits lie in memory BAR `bar` at these offsets (multiples
    /// of 8, not overlapping).
    pub fn msix(mut self, vectors: u16, bar: u8, table: u32, pba: u32) -> Self {
        assert!((1..=2048).contains(&vectors), "{vectors} MSI-X vectors");
        assert!(
            table.is_multiple_of(8) && pba.is_multiple_of(8),
            "MSI-X structures are not aligned"
        );
        let mut body = Vec::new();
        body.extend((vectors - 1).to_le_bytes());
        body.extend((table | u32::from(bar)).to_le_bytes());
        body.extend((pba | u32::from(bar)).to_le_bytes());
        let control = (MSIX_ENABLE | MSIX_FUNCTION_MASK).to_le_bytes();
        let capability = self.add(CAPABILITY_MSIX, &body, &control);
        self.layout.msix = Some(MsixLayout {
            capability,
            vectors,
            bar,
            table: table.into(),
            pba: pba.into(),
        });
        self
    }

    /// MSI with up to `vectors` messages (a power of two up to 32), 64-bit addresses and per-vector masks.
    pub fn msi(mut self, vectors: u8) -> Self {
        assert!(
            vectors.is_power_of_two() && vectors <= 32,
            "{vectors} MSI vectors"
        );
        let mut body = vec![0; 22];
        let mut writable = vec![0; 22];
        let control = MSI_64 | MSI_MASKABLE | (vectors.trailing_zeros() as u16) << 1;
        let bits = u32::MAX >> (32 - u32::from(vectors));
        body[0..2].copy_from_slice(&control.to_le_bytes());
        writable[0] = 0x71;
        writable[2..6].copy_from_slice(&0xffff_fffcu32.to_le_bytes());
        writable[6..12].fill(0xff);
        writable[14..18].copy_from_slice(&bits.to_le_bytes());
        self.layout.msi = Some(self.add(CAPABILITY_MSI, &body, &writable));
        self
    }

    /// The PCI Express capability of a Root Complex Integrated Endpoint, and 4096 bytes of configuration space.
    pub fn express(mut self) -> Self {
        let mut body = vec![0; 0x3a];
        let mut writable = vec![0; 0x3a];
        body[0..2].copy_from_slice(&EXPRESS_INTEGRATED_ENDPOINT.to_le_bytes());
        body[2..6].copy_from_slice(&EXPRESS_ROLE_BASED_ERRORS.to_le_bytes());
        body[6..8].copy_from_slice(&EXPRESS_CONTROL_RESET.to_le_bytes());
        // Device Control: the error enables, Relaxed Ordering, payload and request sizes, No Snoop.
        writable[6..8].copy_from_slice(&EXPRESS_CONTROL_WRITABLE.to_le_bytes());
        self.add(CAPABILITY_EXPRESS, &body, &writable);
        for part in [&mut self.layout.reset, &mut self.layout.writable] {
            part.resize(EXPRESS_SIZE, 0);
        }
        self
    }

    /// The power management capability, version 3: D0 and D3hot, whose way back keeps all state.
    pub fn power_management(mut self) -> Self {
        let mut body = vec![0; 6];
        body[0..2].copy_from_slice(&3u16.to_le_bytes());
        body[2..4].copy_from_slice(&PMCSR_NO_SOFT_RESET.to_le_bytes());
        // The state bits are written by hand: D1 and D2 are not there.
        self.layout.power_management = Some(self.add(CAPABILITY_POWER_MANAGEMENT, &body, &[]));
        self
    }

    /// The endpoint, at power-on.
    pub fn build(self) -> Endpoint {
        if let Some(msix) = self.layout.msix {
            let bar = self
                .layout
                .bars
                .iter()
                .find(|b| b.index == msix.bar && b.kind != BarKind::Io);
            let size = bar.expect("the BAR of MSI-X is memory").size;
            let table_end = msix.table + u64::from(msix.vectors) * u64::from(MSIX_ENTRY_SIZE);
            let pba_end = msix.pba + u64::from(msix.vectors).div_ceil(64) * 8;
            assert!(
                table_end <= size && pba_end <= size,
                "MSI-X structures do not fit"
            );
            assert!(
                table_end <= msix.pba || pba_end <= msix.table,
                "MSI-X structures overlap"
            );
        }
        Endpoint::new(self.layout)
    }
}
