//! The GICv2m frame: a write of an interrupt's number raises that SPI (Arm Base System Architecture, "GICv2m
//! architecture"; Arm DEN 0029 appendix E).

use device::{Access, Mmio, Registers};

use crate::FIRST_SPI;

/// Bytes.
pub const SIZE: u64 = 0x1000;
/// First INTID of the frame.
pub const FIRST: u32 = 80;
/// INTIDs of the frame.
pub const COUNT: u32 = 64;

/// Offsets.
pub const MSI_TYPER: u64 = 0x008;
pub const MSI_SETSPI_NS: u64 = 0x040;
pub const MSI_IIDR: u64 = 0xfcc;

/// As QEMU's `virt` board shows it.
const IIDR: u32 = 0x0510_0000;

/// The SPI (number, not INTID) that a message's data names, if it is one of the frame's.
pub fn spi(data: u32) -> Option<u32> {
    let intid = data & 0x3ff;
    (FIRST..FIRST + COUNT)
        .contains(&intid)
        .then(|| intid - FIRST_SPI)
}

/// The frame; `raise` makes a pulse on an SPI.
pub struct V2m<F: Fn(u32) + Send + Sync> {
    pub raise: F,
}

impl<F: Fn(u32) + Send + Sync> Registers for V2m<F> {
    fn read_register(&self, offset: u64, _cpu: u32) -> u32 {
        match offset {
            MSI_TYPER => FIRST << 16 | COUNT,
            MSI_IIDR => IIDR,
            _ => 0,
        }
    }

    fn write_register(&self, offset: u64, _cpu: u32, value: u32, mask: u32) {
        // 16-bit writes are permitted: they hold all of the number.
        if offset == MSI_SETSPI_NS
            && mask & 0x3ff == 0x3ff
            && let Some(n) = spi(value)
        {
            (self.raise)(n);
        }
    }
}

impl<F: Fn(u32) + Send + Sync> Mmio for V2m<F> {
    fn read(&self, access: Access) -> u64 {
        self.read_any(access)
    }

    fn write(&self, access: Access, value: u64) {
        self.write_any(access, value);
    }
}
