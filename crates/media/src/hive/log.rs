//! Transaction logs of hives, as Windows 8.1 and later write them.

use super::{BASE, Hive, checksum};
use crate::error::{Error, Result};
use crate::fields::Fields;

/// The base block's copy at the log's start takes one sector.
const FIRST_ENTRY: usize = 512;
/// The key of the entries' hashes.
pub(super) const SEED: u64 = 0x82EF_4D88_7A4E_55C5;
/// File types of a log with entries, and of the older one.
const ENTRIES: u32 = 6;
const OLD: [u32; 2] = [1, 2];

struct LogEntry {
    sequence: u32,
    /// Bytes of all bins after this entry.
    length: usize,
    /// Byte of the bins, and what goes there.
    pages: Vec<(usize, Vec<u8>)>,
}

/// Completes a hive that was not written in full; the sequence number of the last entry.
pub(super) fn replay(bytes: &mut Vec<u8>, logs: &[Vec<u8>]) -> Result<u32> {
    let (first, second) = (bytes.le32(4)?, bytes.le32(8)?);
    let base_good = bytes.le32(508)? == checksum(bytes);
    if logs.iter().all(Vec::is_empty) {
        return Err(Error::Unsupported(format!(
            "a registry hive that was not written in full (sequence numbers {first} and {second}{}); its .LOG1 and .LOG2 \
             are needed beside it",
            if base_good { "" } else { ", wrong checksum" }
        )));
    }
    let mut entries = Vec::new();
    let mut old = false;
    let mut base: Option<Vec<u8>> = None;
    for log in logs {
        if log.len() < FIRST_ENTRY || !Hive::probe(log) {
            continue;
        }
        let kind = log.le32(28)?;
        old |= OLD.contains(&kind);
        if kind != ENTRIES || log.le32(508)? != checksum(log) {
            continue;
        }
        base.get_or_insert_with(|| log[..FIRST_ENTRY].to_vec());
        let mut at = FIRST_ENTRY;
        while let Some((entry, size)) = entry(log, at) {
            entries.push(entry);
            at += size;
        }
    }
    entries.sort_by_key(|entry| entry.sequence);
    // With a good base block, entries before its second number are in the hive already.
    if base_good {
        entries.retain(|entry| entry.sequence >= second);
    }
    let refused = |why: &str| {
        Error::Unsupported(format!(
            "a registry hive that was not written in full, and {why}; let Windows load it, or take a good copy"
        ))
    };
    let Some(start) = entries.first().map(|entry| entry.sequence) else {
        return Err(refused(if old {
            "its log is of the kind before Windows 8.1, which is not replayed"
        } else {
            "its logs hold nothing that completes it"
        }));
    };
    if !base_good {
        let base = base.ok_or_else(|| refused("its logs have no good base block"))?;
        bytes[..FIRST_ENTRY].copy_from_slice(&base);
    }
    let mut next = start;
    let mut length = bytes.le32(40)? as usize;
    for entry in entries {
        if entry.sequence != next {
            break;
        }
        let pages: usize = entry.pages.iter().map(|(_, page)| page.len()).sum();
        if entry.length > bytes.len().saturating_sub(BASE) + pages {
            return Err(refused("its log has it grow by more than it holds"));
        }
        next = next.wrapping_add(1);
        length = entry.length;
        if bytes.len() < BASE + length {
            bytes.resize(BASE + length, 0);
        }
        for (at, page) in entry.pages {
            bytes[BASE + at..BASE + at + page.len()].copy_from_slice(&page);
        }
    }
    for (at, value) in [(4, next), (8, next), (28, 0), (40, length as u32)] {
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    let sum = checksum(bytes);
    bytes[508..512].copy_from_slice(&sum.to_le_bytes());
    Ok(next.wrapping_sub(1))
}

/// The entry at `at` and its size; `None` where there is no valid one.
fn entry(log: &[u8], at: usize) -> Option<(LogEntry, usize)> {
    let head = log.span(at, 40).ok()?;
    let size = head.le32(4).ok()? as usize;
    if &head[..4] != b"HvLE" || size < 40 || !size.is_multiple_of(512) {
        return None;
    }
    let entry = log.span(at, size).ok()?;
    let (data_hash, head_hash) = (entry.le64(24).ok()?, entry.le64(32).ok()?);
    if marvin32(SEED, &entry[..32]) != head_hash || marvin32(SEED, &entry[40..]) != data_hash {
        return None;
    }
    let length = entry.le32(16).ok()? as usize;
    let count = entry.le32(20).ok()? as usize;
    if !length.is_multiple_of(4096) || length > super::LARGEST || count > size / 8 {
        return None;
    }
    let mut data = 40 + count * 8;
    let mut pages = Vec::new();
    for reference in entry.get(40..data)?.chunks_exact(8) {
        let (to, bytes) = (
            reference.le32(0).ok()? as usize,
            reference.le32(4).ok()? as usize,
        );
        if to.checked_add(bytes)? > length {
            return None;
        }
        pages.push((to, entry.span(data, bytes).ok()?.to_vec()));
        data += bytes;
    }
    let entry = LogEntry {
        sequence: entry.le32(12).ok()?,
        length,
        pages,
    };
    Some((entry, size))
}

/// A log with its checksum and its entries' hashes made right.
pub(super) fn with_checksums(mut log: Vec<u8>) -> Vec<u8> {
    if log.len() < FIRST_ENTRY {
        return log;
    }
    let sum = checksum(&log);
    log[508..512].copy_from_slice(&sum.to_le_bytes());
    let mut at = FIRST_ENTRY;
    while let Ok(size) = log.le32(at + 4)
        && size >= 40
        && let Some(entry) = log.get_mut(at..at.saturating_add(size as usize))
    {
        let hash = marvin32(SEED, &entry[40..]);
        entry[24..32].copy_from_slice(&hash.to_le_bytes());
        let hash = marvin32(SEED, &entry[..32]);
        entry[32..40].copy_from_slice(&hash.to_le_bytes());
        at += size as usize;
    }
    log
}

/// Marvin32, a keyed hash of Microsoft's.
pub(super) fn marvin32(seed: u64, bytes: &[u8]) -> u64 {
    let (mut low, mut high) = (seed as u32, (seed >> 32) as u32);
    let mut mix = |word: u32| {
        low = low.wrapping_add(word);
        high ^= low;
        low = low.rotate_left(20).wrapping_add(high);
        high = high.rotate_left(9) ^ low;
        low = low.rotate_left(27).wrapping_add(high);
        high = high.rotate_left(19);
    };
    let words = bytes.chunks_exact(4);
    let rest = words.remainder();
    for word in words {
        mix(u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
    }
    let mut last = [0; 4];
    last[..rest.len()].copy_from_slice(rest);
    last[rest.len()] = 0x80;
    mix(u32::from_le_bytes(last));
    mix(0);
    u64::from(low) | u64::from(high) << 32
}
