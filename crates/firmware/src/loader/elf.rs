//! ELF64 programs for AArch64 (System V ABI, chapters 4 and 5; ELF for the Arm 64-bit Architecture).

use super::image::{u32_at, u64_at};
use super::{Kernel, LoadError, Segment};

const CLASS_64: u8 = 2;
const LITTLE_ENDIAN: u8 = 1;
const EM_AARCH64: u16 = 183;
const PT_LOAD: u32 = 1;
const HEADER: usize = 64;
const PROGRAM_HEADER: usize = 56;

pub(super) fn is_elf(file: &[u8]) -> bool {
    file.starts_with(b"\x7fELF")
}

fn u16_at(file: &[u8], at: usize) -> Option<u16> {
    let bytes = file.get(at..at.checked_add(2)?)?;
    bytes.try_into().ok().map(u16::from_le_bytes)
}

pub(super) fn parse(file: &[u8]) -> Result<Kernel, LoadError> {
    let wrong = |text: &str| LoadError::WrongMachine(text.into());
    if file.len() < HEADER {
        return Err(LoadError::Truncated("its ELF header is incomplete"));
    }
    if file[4] != CLASS_64 {
        return Err(wrong("it is a 32-bit ELF program"));
    }
    if file[5] != LITTLE_ENDIAN {
        return Err(wrong("it is a big-endian ELF program"));
    }
    let short = || LoadError::Truncated("its ELF header is incomplete");
    let machine = u16_at(file, 18).ok_or_else(short)?;
    if machine != EM_AARCH64 {
        return Err(LoadError::WrongMachine(format!(
            "its ELF machine number is {machine}"
        )));
    }
    let mut entry = u64_at(file, 24).ok_or_else(short)?;
    let table = u64_at(file, 32).ok_or_else(short)?;
    let entry_size = usize::from(u16_at(file, 54).ok_or_else(short)?);
    let count = usize::from(u16_at(file, 56).ok_or_else(short)?);
    if count > 0 && entry_size < PROGRAM_HEADER {
        return Err(LoadError::Corrupt(
            "its program headers are too small".into(),
        ));
    }
    let mut segments = Vec::new();
    let virtual_entry = entry;
    let mut total = 0usize;
    for i in 0..count {
        let at = usize::try_from(table)
            .ok()
            .and_then(|t| t.checked_add(i * entry_size));
        let header = at.and_then(|at| file.get(at..at.checked_add(PROGRAM_HEADER)?));
        let Some(header) = header else {
            return Err(LoadError::Truncated(
                "its program headers are past the end of the file",
            ));
        };
        if u32_at(header, 0) != Some(PT_LOAD) {
            continue;
        }
        let field = |at| u64_at(header, at).unwrap_or(0);
        let (offset, virtual_, physical) = (field(8), field(16), field(24));
        let (file_size, memory_size) = (field(32), field(40));
        if memory_size == 0 {
            continue;
        }
        if file_size > memory_size {
            return Err(LoadError::Corrupt(
                "a segment is larger in the file than in memory".into(),
            ));
        }
        let bytes = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(file_size).ok());
        let bytes = bytes.and_then(|(o, n)| file.get(o..o.checked_add(n)?));
        let Some(bytes) = bytes else {
            return Err(LoadError::Truncated(
                "a segment is past the end of the file",
            ));
        };
        if physical.checked_add(memory_size).is_none() {
            return Err(LoadError::Corrupt(
                "a segment wraps around the address space".into(),
            ));
        }
        // Segments may share the file's bytes: many headers must not make much of little.
        total = total.saturating_add(bytes.len());
        if total > super::LARGEST_KERNEL {
            return Err(LoadError::TooLarge);
        }
        // The entry point is a virtual address; the MMU is off.
        if let Some(within) = virtual_entry
            .checked_sub(virtual_)
            .filter(|w| *w < memory_size)
        {
            entry = physical + within;
        }
        segments.push(Segment {
            address: physical,
            bytes: bytes.into(),
            size: memory_size,
        });
    }
    if segments.is_empty() {
        return Err(LoadError::Corrupt("it has no segment to load".into()));
    }
    Ok(Kernel::Elf { segments, entry })
}
