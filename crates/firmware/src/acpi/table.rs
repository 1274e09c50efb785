//! A table's bytes: the header all share, and fields appended in order.

use acpi_tables::sdt::Sdt;

/// Who made the tables. Tools show it; nothing matches on it.
pub(super) const OEM_ID: [u8; 6] = *b"DORMER";
pub(super) const OEM_TABLE_ID: [u8; 8] = *b"VIRT    ";
pub(super) const OEM_REVISION: u32 = 1;

/// Bytes of the header (ACPI 6.3, table 5-28).
pub(super) const HEADER: usize = 36;

/// A finished table with its header; `body` is what follows it.
pub(super) fn table(signature: &[u8; 4], revision: u8, body: Body) -> Vec<u8> {
    let mut sdt = Sdt::new(
        *signature,
        HEADER as u32,
        revision,
        OEM_ID,
        OEM_TABLE_ID,
        OEM_REVISION,
    );
    sdt.append_slice(&body.0);
    sdt.as_slice().to_vec()
}

/// Little-endian fields, one after the other.
#[derive(Default)]
pub(super) struct Body(pub Vec<u8>);

impl Body {
    pub fn u8(self, value: u8) -> Body {
        self.bytes(&[value])
    }

    pub fn u16(self, value: u16) -> Body {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u32(self, value: u32) -> Body {
        self.bytes(&value.to_le_bytes())
    }

    pub fn u64(self, value: u64) -> Body {
        self.bytes(&value.to_le_bytes())
    }

    pub fn bytes(mut self, bytes: &[u8]) -> Body {
        self.0.extend_from_slice(bytes);
        self
    }

    pub fn zeroes(mut self, count: usize) -> Body {
        self.0.resize(self.0.len() + count, 0);
        self
    }

    /// A generic address structure (5.2.3.2) of 32-bit registers in memory.
    pub fn memory32(self, address: u64) -> Body {
        self.u8(0).u8(32).u8(0).u8(3).u64(address)
    }
}
