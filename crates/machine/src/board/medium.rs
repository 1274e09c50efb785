//! A look at an install medium before the machine starts: a download that broke off boots half-way and then fails in ways that
//! tell a user nothing.

use std::sync::Arc;

use media::iso::{Descriptors, SECTOR};
use media::source::Source;
use storage::Disk;

/// Sectors that mastering programs append and count, and that others cut off again: nothing is stored there.
const PADDING: u64 = 150;

/// A disk's bytes, for the readers of media.
struct Medium(Arc<dyn Disk>);

impl Source for Medium {
    fn size(&self) -> u64 {
        self.0.size()
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> media::Result<()> {
        if offset.saturating_add(into.len() as u64) > self.size() {
            return Err(media::Error::Truncated {
                at: offset,
                length: into.len() as u64,
                size: self.size(),
            });
        }
        Ok(self.0.read(offset, into)?)
    }
}

/// How many bytes an ISO 9660 medium says it has (ECMA-119, 8.4.8), if it is longer than its image.
pub fn missing(disk: &Arc<dyn Disk>) -> Option<u64> {
    let source: media::source::Shared = Arc::new(Medium(disk.clone()));
    // What cannot be read as ISO 9660 may be any other medium: the guest will see.
    let volume = Descriptors::read(&source).ok()?.primary?;
    let sectors = u64::from(volume.sectors);
    (sectors.saturating_sub(PADDING) * SECTOR > disk.size()).then_some(sectors * SECTOR)
}

#[cfg(test)]
mod tests {
    use storage::MemoryDisk;

    use super::*;

    fn medium(sectors: u32, image: usize) -> Arc<dyn Disk> {
        let mut bytes = vec![0; image];
        let descriptor = &mut bytes[16 * 2048..17 * 2048];
        descriptor[..7].copy_from_slice(b"\x01CD001\x01");
        descriptor[80..84].copy_from_slice(&sectors.to_le_bytes());
        descriptor[84..88].copy_from_slice(&sectors.to_be_bytes());
        descriptor[128..132].copy_from_slice(&[0, 8, 8, 0]);
        let disk = MemoryDisk::new(image as u64);
        disk.write(0, &bytes).unwrap();
        Arc::new(disk)
    }

    #[test]
    fn a_medium_that_was_cut_short_is_found() {
        assert_eq!(missing(&medium(1000, 1000 * 2048)), None);
        // Padding was cut off.
        assert_eq!(missing(&medium(1000, 850 * 2048)), None);
        assert_eq!(missing(&medium(1000, 849 * 2048)), Some(1000 * 2048));
        // No ISO 9660 medium at all.
        assert_eq!(
            missing(&(Arc::new(MemoryDisk::new(4096)) as Arc<dyn Disk>)),
            None
        );
    }
}
