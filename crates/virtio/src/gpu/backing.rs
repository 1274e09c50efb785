//! Guest memory behind a resource: a scatter list, checked once.

use memory::Dma;
use serde::{Deserialize, Serialize};

use crate::Segment;

/// Entries of a list at most: 64 MiB in pages of 4 KiB, as drivers that have no larger ones send them.
pub const MOST_ENTRIES: u32 = 16384;

/// A scatter list whose every entry was in RAM when it was attached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backing {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// Where in the resource's bytes it begins.
    start: u64,
    address: u64,
    length: u32,
}

impl Backing {
    /// Out of a guest's list; `None` if an entry is not in RAM.
    pub fn new(dma: &Dma, list: impl IntoIterator<Item = Segment>) -> Option<Backing> {
        let mut entries = Vec::new();
        let mut start = 0u64;
        for Segment { address, length } in list {
            if !dma.contains(address, length.into()) {
                return None;
            }
            if length > 0 {
                entries.push(Entry {
                    start,
                    address,
                    length,
                });
            }
            start = start.checked_add(length.into())?;
        }
        Some(Backing { entries })
    }

    /// Bytes.
    pub fn length(&self) -> u64 {
        self.entries
            .last()
            .map_or(0, |e| e.start + u64::from(e.length))
    }

    /// Host memory that it takes, in bytes.
    pub fn cost(&self) -> u64 {
        (self.entries.len() * size_of::<Entry>()) as u64
    }

    /// What it was made of.
    pub fn segments(&self) -> impl Iterator<Item = Segment> + '_ {
        self.entries.iter().map(|e| Segment {
            address: e.address,
            length: e.length,
        })
    }

    /// Copies bytes out, from `offset` on, until `into` is full or the list ends: how many.
    pub fn read(&self, dma: &Dma, offset: u64, into: &mut [u8]) -> usize {
        let first = self
            .entries
            .partition_point(|e| e.start + u64::from(e.length) <= offset);
        let mut within = offset;
        let mut done = 0;
        for entry in &self.entries[first..] {
            if done == into.len() {
                break;
            }
            let skip = within - entry.start;
            let length = (u64::from(entry.length) - skip).min((into.len() - done) as u64) as usize;
            let part = &mut into[done..done + length];
            if dma.read(entry.address + skip, part).is_err() {
                break;
            }
            done += length;
            within += length as u64;
        }
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Ram;
    use proptest::prelude::*;

    const BASE: u64 = 0x4000_0000;

    #[test]
    fn refuses_what_is_not_ram() {
        let ram = Ram::new(&[(BASE, 0x1000)]).unwrap();
        let segment = |address, length| Segment { address, length };
        assert!(Backing::new(&ram.dma(), [segment(BASE + 0xff0, 0x11)]).is_none());
        assert!(Backing::new(&ram.dma(), [segment(u64::MAX, 2)]).is_none());
        let backing = Backing::new(&ram.dma(), [segment(BASE, 4), segment(BASE, 0)]).unwrap();
        assert_eq!((backing.length(), backing.segments().count()), (4, 1));
        assert_eq!(backing.read(&ram.dma(), 5, &mut [0; 2]), 0);
        assert_eq!(backing.read(&ram.dma(), u64::MAX, &mut [0; 2]), 0);
    }

    proptest! {
        #[test]
        fn reads_as_one_run_of_bytes(
            list in prop::collection::vec((0u64..0x800, 0u32..64), 0..20),
            offset in 0u64..1500, length in 0usize..1500,
        ) {
            let ram = Ram::new(&[(BASE, 0x1000)]).unwrap();
            let bytes: Vec<u8> = (0..0x1000u32).map(|i| ((i * 7) >> 2) as u8).collect();
            ram.dma().write(BASE, &bytes).unwrap();
            let flat: Vec<u8> = list
                .iter()
                .flat_map(|&(at, n)| bytes[at as usize..at as usize + n as usize].to_vec())
                .collect();
            let segments = list.iter().map(|&(at, length)| Segment { address: BASE + at, length });
            let backing = Backing::new(&ram.dma(), segments).unwrap();
            prop_assert_eq!(backing.length(), flat.len() as u64);
            let mut into = vec![0; length];
            let n = backing.read(&ram.dma(), offset, &mut into);
            let expected = flat.get(offset as usize..).unwrap_or(&[]);
            let expected = &expected[..expected.len().min(length)];
            prop_assert_eq!(&into[..n], expected);
        }
    }
}
