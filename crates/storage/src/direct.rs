//! Files past the host's page cache, for code that reads and writes whatever bytes it likes.

use crate::buffer::Buffer;
use crate::host::Host;
use parking_lot::RwLock;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Direct access is in multiples of this, in bytes; no drive of today has larger blocks.
const BLOCK: u64 = 4096;
/// Bytes that are copied at once.
const PIECE: u64 = 1 << 20;

/// A file that is open twice.
pub(crate) struct Direct {
    /// Has the lock, and does what is not reading and writing.
    plain: File,
    direct: File,
    /// Held alone to change parts of blocks, which are read before and written back whole.
    blocks: RwLock<()>,
}

impl Direct {
    /// `direct` is the same file as `plain`, opened for direct access.
    pub(crate) fn new(plain: File, direct: File) -> Direct {
        Direct {
            plain,
            direct,
            blocks: RwLock::new(()),
        }
    }

    /// Reads whole blocks up to the end of the file: how many bytes of them there are.
    fn read_blocks(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut have = 0;
        while have < into.len() {
            let count = Host::read_at(&self.direct, offset + have as u64, &mut into[have..])?;
            have += count;
            // What follows the end of the file is not in whole blocks.
            if count == 0 || !(have as u64).is_multiple_of(BLOCK) {
                break;
            }
        }
        Ok(have)
    }

    /// Writes a piece of the file.
    fn write_piece(&self, offset: u64, from: &[u8], buffer: &mut Buffer) -> io::Result<()> {
        let end = offset + from.len() as u64;
        let (first, last) = (offset / BLOCK * BLOCK, end.next_multiple_of(BLOCK));
        let whole = buffer.first((last - first) as usize);
        let inside = (offset - first) as usize;
        if (first, last) == (offset, end) {
            let _shared = self.blocks.read();
            whole.copy_from_slice(from);
            return self.direct.write_all_at(whole, first);
        }
        let _alone = self.blocks.write();
        let length = Host::length(&self.plain)?;
        let have = self.read_blocks(first, whole)?;
        whole[have..].fill(0);
        whole[inside..inside + from.len()].copy_from_slice(from);
        self.direct.write_all_at(whole, first)?;
        // The last block of the file need not be whole.
        if last > length.max(end) && !is_device(&self.plain)? {
            self.plain.set_len(length.max(end))?;
        }
        Ok(())
    }
}

fn is_device(file: &File) -> io::Result<bool> {
    Ok(!file.metadata()?.is_file())
}

impl Host for Direct {
    fn length(&self) -> io::Result<u64> {
        Host::length(&self.plain)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut buffer = Buffer::default();
        let mut have = 0;
        let _shared = self.blocks.read();
        while have < into.len() {
            let at = offset + have as u64;
            let first = at / BLOCK * BLOCK;
            let wanted = (into.len() - have) as u64;
            let last = (at + wanted).next_multiple_of(BLOCK).min(first + PIECE);
            let whole = buffer.first((last - first) as usize);
            let count = self.read_blocks(first, whole)?;
            let inside = (at - first) as usize;
            let now = count.saturating_sub(inside).min(into.len() - have);
            into[have..have + now]
                .copy_from_slice(&whole[inside.min(count)..inside.min(count) + now]);
            have += now;
            if count < whole.len() {
                break;
            }
        }
        Ok(have)
    }

    fn write_at(&self, mut offset: u64, mut from: &[u8]) -> io::Result<()> {
        let mut buffer = Buffer::default();
        while !from.is_empty() {
            let end = (offset / BLOCK * BLOCK + PIECE).min(offset + from.len() as u64);
            let (now, later) = from.split_at((end - offset) as usize);
            self.write_piece(offset, now, &mut buffer)?;
            offset = end;
            from = later;
        }
        Ok(())
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        let _alone = self.blocks.write();
        Host::set_length(&self.plain, length)
    }

    fn sync(&self) -> io::Result<()> {
        Host::sync(&self.plain)
    }

    fn punch(&self, offset: u64, length: u64) -> io::Result<()> {
        let _alone = self.blocks.write();
        Host::punch(&self.plain, offset, length)
    }

    fn reserve(&self, offset: u64, length: u64) -> io::Result<()> {
        Host::reserve(&self.plain, offset, length)
    }

    fn span(&self, offset: u64) -> io::Result<(bool, u64)> {
        Host::span(&self.plain, offset)
    }

    fn allocated(&self) -> io::Result<u64> {
        Host::allocated(&self.plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Any spans of a file, against the same in memory.
    #[test]
    fn any_bytes() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("file");
        let open = |direct| crate::image::open_file(&path, true, direct);
        File::create(&path).unwrap();
        let Ok(direct) = open(true) else {
            eprintln!("not run: no direct access here");
            return;
        };
        let file = Direct::new(open(false).unwrap(), direct);
        let mut model: Vec<u8> = Vec::new();
        let mut x = 7u64;
        let mut random = |below: u64| {
            x = x.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (x >> 33) % below
        };
        for round in 0..400u64 {
            let offset = random(3 << 20) / [1, 512, 4096][(round % 3) as usize]
                * [1, 512, 4096][(round % 3) as usize];
            let length = match random(8) {
                0 => random(2 << 20),
                1..3 => random(64) * 4096,
                _ => random(10_000),
            } as usize;
            if round % 2 == 0 {
                let from = vec![round as u8 + 1; length];
                file.write_at(offset, &from).unwrap();
                let end = offset as usize + length;
                if length > 0 && model.len() < end {
                    model.resize(end, 0);
                }
                if length > 0 {
                    model[offset as usize..end].copy_from_slice(&from);
                }
            } else {
                let mut into = vec![0xee; length];
                let have = file.read_at(offset, &mut into).unwrap();
                let start = (offset as usize).min(model.len());
                let end = (offset as usize + length).min(model.len());
                assert!(
                    into[..have] == model[start..end.max(start)],
                    "{round}: {offset} {length}"
                );
            }
            if round % 50 == 49 {
                let length = random(3 << 20);
                file.set_length(length).unwrap();
                model.resize(length as usize, 0);
            }
            assert_eq!(file.length().unwrap(), model.len() as u64, "{round}");
        }
        assert!(std::fs::read(&path).unwrap() == model);
    }
}
