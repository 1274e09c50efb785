//! The MSI-X table and pending bits (PCI 6.8.2).

use serde::{Deserialize, Serialize};

use crate::registers::*;

/// State of MSI-X beside the capability itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Msix {
    /// Address, upper address, data, vector control of each vector.
    pub table: Vec<[u32; 4]>,
    /// One bit a vector.
    pub pending: Vec<u64>,
}

impl Msix {
    pub fn power_on(vectors: u16) -> Msix {
        Msix {
            table: vec![[0, 0, 0, MSIX_VECTOR_MASKED]; vectors.into()],
            pending: vec![0; usize::from(vectors).div_ceil(64)],
        }
    }

    pub fn set_pending(&mut self, vector: u16) {
        if usize::from(vector) < self.table.len() {
            self.pending[usize::from(vector / 64)] |= 1 << (vector % 64);
        }
    }

    /// Takes the message of some vector that is pending and not masked: address and data.
    pub fn take_message(&mut self) -> Option<(u64, u32)> {
        for (i, word) in self.pending.iter_mut().enumerate() {
            let mut left = *word;
            while left != 0 {
                let bit = left.trailing_zeros();
                left &= left - 1;
                let [low, high, data, control] = *self.table.get(i * 64 + bit as usize)?;
                if control & MSIX_VECTOR_MASKED == 0 {
                    *word &= !(1 << bit);
                    return Some((u64::from(high) << 32 | u64::from(low), data));
                }
            }
        }
        None
    }

    /// One byte of the table. An access of another width or alignment than 4 or 8 is undefined (PCI 6.8.2); bytes
    /// define it.
    pub fn table_byte(&self, offset: u64) -> u8 {
        let entry = self.table.get((offset / 16) as usize);
        entry.map_or(0, |e| {
            e[(offset / 4 % 4) as usize].to_le_bytes()[(offset % 4) as usize]
        })
    }

    pub fn set_table_byte(&mut self, offset: u64, value: u8) {
        let Some(entry) = self.table.get_mut((offset / 16) as usize) else {
            return;
        };
        let field = (offset / 4 % 4) as usize;
        let mut bytes = entry[field].to_le_bytes();
        bytes[(offset % 4) as usize] = value;
        let writable = [!3, !0, !0, MSIX_VECTOR_MASKED];
        entry[field] = u32::from_le_bytes(bytes) & writable[field];
    }

    pub fn pending_byte(&self, offset: u64) -> u8 {
        self.pending
            .get((offset / 8) as usize)
            .map_or(0, |w| w.to_le_bytes()[(offset % 8) as usize])
    }
}
