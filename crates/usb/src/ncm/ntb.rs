//! Transfer blocks: many frames in one transfer (NCM 1.0, 3).

use super::spec::ALIGN;

/// The two layouts: offsets of 16 or of 32 bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Format {
    #[default]
    Ntb16,
    Ntb32,
}

const NTH16: u32 = u32::from_le_bytes(*b"NCMH");
const NDP16: u32 = u32::from_le_bytes(*b"NCM0");
const NTH32: u32 = u32::from_le_bytes(*b"ncmh");
const NDP32: u32 = u32::from_le_bytes(*b"ncm0");
/// Tables in one block at most; more is a loop.
const TABLES: usize = 32;

impl Format {
    /// Bytes of block header, table header, table entry.
    fn sizes(self) -> (usize, usize, usize) {
        match self {
            Format::Ntb16 => (12, 8, 4),
            Format::Ntb32 => (16, 16, 8),
        }
    }

    /// Bytes of a block with these frames.
    pub fn length(self, frames: impl Iterator<Item = usize> + Clone) -> usize {
        let (header, table, entry) = self.sizes();
        let count = frames.clone().count();
        let start = header + table + entry * (count + 1);
        frames.fold(start, |at, length| at.next_multiple_of(ALIGN) + length)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    let pair = bytes.get(at..at.checked_add(2)?)?;
    Some(usize::from(u16::from_le_bytes([pair[0], pair[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    usize::try_from(u32::from_le_bytes([word[0], word[1], word[2], word[3]])).ok()
}

/// How long the block is that begins like this, if it says so: 0 means until the transfer's end.
pub fn block_length(format: Format, bytes: &[u8]) -> Option<usize> {
    match format {
        Format::Ntb16 => u16_at(bytes, 8),
        Format::Ntb32 => u32_at(bytes, 8),
    }
}

/// The frames of a block. What breaks the rules ends it; what came before stays.
pub fn parse(format: Format, block: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut frames = Vec::new();
    let _ = walk(format, block, &mut frames);
    frames
}

fn walk(format: Format, block: &[u8], frames: &mut Vec<std::ops::Range<usize>>) -> Option<()> {
    let (signature, table_signature) = match format {
        Format::Ntb16 => (NTH16, NDP16),
        Format::Ntb32 => (NTH32, NDP32),
    };
    let (header, table_header, entry) = format.sizes();
    if u32_at(block, 0)? != signature as usize || u16_at(block, 4)? != header {
        return None;
    }
    let number = |at| match format {
        Format::Ntb16 => u16_at(block, at),
        Format::Ntb32 => u32_at(block, at),
    };
    let width = entry / 2;
    let mut table = number(8 + width)?;
    // All frames together are no longer than the block unless they overlap, which only an attack does.
    let mut budget = block.len();
    for _ in 0..TABLES {
        if table == 0 {
            return Some(());
        }
        // With a checksum behind each frame it would end in 1: we do not offer that.
        if u32_at(block, table)? != table_signature as usize {
            return None;
        }
        let length = u16_at(block, table.checked_add(4)?)?;
        let end = table.checked_add(length)?;
        let mut at = table.checked_add(table_header)?;
        while at.checked_add(entry)? <= end {
            let (index, length) = (number(at)?, number(at + width)?);
            if index == 0 || length == 0 {
                break;
            }
            let frame = index..index.checked_add(length)?;
            block.get(frame.clone())?;
            budget = budget.checked_sub(length)?;
            frames.push(frame);
            at += entry;
        }
        table = match format {
            Format::Ntb16 => number(table + 6)?,
            Format::Ntb32 => number(table + 8)?,
        };
    }
    None
}

/// Makes a block of frames. They fit [`Format::length`]; with 16-bit offsets in 64 KiB.
pub fn build(format: Format, sequence: u16, frames: &[Vec<u8>]) -> Vec<u8> {
    let (header, table_header, entry) = format.sizes();
    let total = format.length(frames.iter().map(Vec::len));
    let mut block = Vec::with_capacity(total);
    let put = |block: &mut Vec<u8>, value: usize| match format {
        Format::Ntb16 => block.extend((value as u16).to_le_bytes()),
        Format::Ntb32 => block.extend((value as u32).to_le_bytes()),
    };
    let (signature, table_signature) = match format {
        Format::Ntb16 => (NTH16, NDP16),
        Format::Ntb32 => (NTH32, NDP32),
    };
    block.extend(signature.to_le_bytes());
    block.extend((header as u16).to_le_bytes());
    block.extend(sequence.to_le_bytes());
    put(&mut block, total);
    put(&mut block, header);
    let table_length = table_header + entry * (frames.len() + 1);
    block.extend(table_signature.to_le_bytes());
    block.extend((table_length as u16).to_le_bytes());
    // No next table; the wide format has reserved fields around it.
    block.resize(header + table_header, 0);
    let mut at = header + table_length;
    for frame in frames {
        at = at.next_multiple_of(ALIGN);
        put(&mut block, at);
        put(&mut block, frame.len());
        at += frame.len();
    }
    put(&mut block, 0);
    put(&mut block, 0);
    for frame in frames {
        block.resize(block.len().next_multiple_of(ALIGN), 0);
        block.extend_from_slice(frame);
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            lengths in proptest::collection::vec(1usize..1515, 1..20),
            wide: bool,
            sequence: u16,
        ) {
            let format = if wide { Format::Ntb32 } else { Format::Ntb16 };
            let frames: Vec<Vec<u8>> = lengths.iter().map(|&n| (0..n).map(|i| (i + n) as u8).collect()).collect();
            let block = build(format, sequence, &frames);
            prop_assert_eq!(block.len(), format.length(lengths.iter().copied()));
            prop_assert_eq!(block_length(format, &block), Some(block.len()));
            let got: Vec<_> = parse(format, &block).into_iter().map(|r| block[r].to_vec()).collect();
            prop_assert_eq!(got, frames);
        }

        #[test]
        fn nonsense_ends_and_stays_inside(mut block in proptest::collection::vec(any::<u8>(), 0..200), wide: bool, next in 0u8..60) {
            let format = if wide { Format::Ntb32 } else { Format::Ntb16 };
            for right in [false, true] {
                if right {
                    let start = build(format, 0, &[vec![1; 8]]);
                    let n = start.len().min(block.len());
                    block[..n].copy_from_slice(&start[..n]);
                    if block.len() > 24 {
                        block[18] = next;
                        block[24] = next;
                    }
                }
                let frames = parse(format, &block);
                let total: usize = frames.iter().map(|r| r.len()).sum();
                prop_assert!(total <= block.len());
                prop_assert!(frames.iter().all(|r| r.end <= block.len()));
            }
        }
    }

    #[test]
    fn a_table_that_leads_to_itself_ends() {
        let mut block = build(Format::Ntb16, 0, &[]);
        block[18] = 12;
        assert!(parse(Format::Ntb16, &block).is_empty());
    }
}
