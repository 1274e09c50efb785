//! A medium that boots another of its images, without a copy of it.

use std::io;
use std::sync::Arc;

use storage::Disk;

use crate::error::{Error, Result};
use crate::filesystem;
use crate::iso::{BootCatalog, Descriptors, SECTOR};
use crate::source::{DiskSource, Shared};
use crate::udf::Udf;

/// Where Windows media keep the image that does not ask for a key.
pub const NO_PROMPT: &str = "efi/microsoft/boot/efisys_noprompt.bin";

/// A disk some of whose bytes read as others. It cannot be written.
pub struct PatchedDisk {
    below: Arc<dyn Disk>,
    /// First byte and what is there, in order, not overlapping.
    patches: Vec<(u64, Vec<u8>)>,
}

impl PatchedDisk {
    /// The patches may come in any order, but must lie within the disk and not overlap.
    pub fn new(below: Arc<dyn Disk>, mut patches: Vec<(u64, Vec<u8>)>) -> Result<PatchedDisk> {
        patches.sort_by_key(|(at, _)| *at);
        for (at, bytes) in &patches {
            crate::source::within(below.size(), *at, bytes.len() as u64)?;
        }
        for pair in patches.windows(2) {
            if pair[0].0 + pair[0].1.len() as u64 > pair[1].0 {
                return Err(Error::Unsupported("patches that overlap".into()));
            }
        }
        Ok(PatchedDisk { below, patches })
    }
}

fn refused<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::PermissionDenied,
        "install media are read-only",
    ))
}

impl Disk for PatchedDisk {
    fn size(&self) -> u64 {
        self.below.size()
    }
    fn read_only(&self) -> bool {
        true
    }
    fn block_size(&self) -> u32 {
        self.below.block_size()
    }
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.below.read(offset, into)?;
        let end = offset.saturating_add(into.len() as u64);
        for (at, bytes) in &self.patches {
            let from = offset.max(*at);
            let to = end.min(at + bytes.len() as u64);
            if from < to {
                let length = (to - from) as usize;
                let (into_at, bytes_at) = ((from - offset) as usize, (from - at) as usize);
                into[into_at..into_at + length]
                    .copy_from_slice(&bytes[bytes_at..bytes_at + length]);
            }
        }
        Ok(())
    }
    fn write(&self, _: u64, _: &[u8]) -> io::Result<()> {
        refused()
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
    fn discard(&self, _: u64, _: u64) -> io::Result<()> {
        refused()
    }
    fn write_zeroes(&self, _: u64, _: u64, _: bool) -> io::Result<()> {
        refused()
    }
}

/// The medium with its UEFI boot entry pointing at the file `image` of its own UDF (or ISO 9660) tree, such as [`NO_PROMPT`].
pub fn boot_from(medium: Arc<dyn Disk>, image: &str) -> Result<PatchedDisk> {
    let source: Shared = Arc::new(DiskSource(medium.clone()));
    let (at, size) = {
        let descriptors = Descriptors::read(&source)?;
        let file = match Udf::read(&source) {
            Ok(udf) => filesystem::open(&udf, image)?,
            Err(error) => match (&descriptors.joliet, &descriptors.primary) {
                (Some(volume), _) | (None, Some(volume)) => filesystem::open(volume, image)?,
                _ => return Err(error),
            },
        };
        let (at, there) = file
            .place(0)
            .ok_or_else(|| Error::Unsupported(format!("{image} is not stored as it is")))?;
        if there < file.size() {
            return Err(Error::Unsupported(format!(
                "{image} lies in pieces on the medium; firmware boots from one piece only"
            )));
        }
        (at, file.size())
    };
    let (entry, head) = efi_entry(&source)?;
    if at % SECTOR != 0 {
        return Err(Error::Unsupported(format!(
            "{image} does not begin at a sector"
        )));
    }
    let start = u32::try_from(at / SECTOR)
        .map_err(|_| Error::Unsupported(format!("{image} lies past 8 TiB")))?;
    // 0 and 1 mean "to the end of the medium" and stay; else the count is the image's, or 0 if it does not fit.
    let sectors = match entry.sectors {
        0 | 1 => entry.sectors,
        _ => u16::try_from(size.div_ceil(512)).unwrap_or(0),
    };
    let mut bytes = head;
    bytes[6..8].copy_from_slice(&sectors.to_le_bytes());
    bytes[8..12].copy_from_slice(&start.to_le_bytes());
    PatchedDisk::new(medium, vec![(entry.at, bytes)])
}

fn efi_entry(source: &Shared) -> Result<(crate::iso::BootEntry, Vec<u8>)> {
    let catalog = Descriptors::read(source)?
        .boot_catalog
        .ok_or_else(|| Error::NotFound("an El Torito boot record".into()))?;
    let catalog = BootCatalog::read(source, catalog)?;
    let entry = catalog
        .efi()
        .ok_or_else(|| Error::NotFound("a boot entry for UEFI".into()))?;
    Ok((entry.clone(), source.read_vec(entry.at, 32)?))
}
