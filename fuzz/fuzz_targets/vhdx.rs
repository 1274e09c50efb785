//! VHDX images of any bytes, where a VHDX has them; between these a file of megabytes is zeroes that nobody keeps.
#![no_main]

mod look;

use dormer_storage::format::Vhdx;
use dormer_storage::host::Host;
use libfuzzer_sys::fuzz_target;
use std::io;
use std::sync::Arc;

/// Where files that QEMU makes have head, headers, region tables, log, block table, metadata, and what these name.
const PLACES: [usize; 9] = [
    0,
    64 << 10,
    128 << 10,
    192 << 10,
    256 << 10,
    1 << 20,
    2 << 20,
    3 << 20,
    (3 << 20) + (64 << 10),
];
/// Bytes at each.
const PART: usize = 2048;
/// All that has a checksum lies before.
const HEAD: usize = 320 << 10;
/// Of the file.
const LENGTH: u64 = (3 << 20) + (128 << 10);

/// A file that is zeroes but for these parts, each with its place.
struct Sparse(Vec<(u64, Vec<u8>)>);

impl Host for Sparse {
    fn length(&self) -> io::Result<u64> {
        Ok(LENGTH)
    }

    fn read_at(&self, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let count = LENGTH.saturating_sub(offset).min(into.len() as u64);
        let end = offset.saturating_add(count);
        into[..count as usize].fill(0);
        for (place, bytes) in &self.0 {
            let (from, to) = (offset.max(*place), end.min(place + bytes.len() as u64));
            if from < to {
                into[(from - offset) as usize..(to - offset) as usize]
                    .copy_from_slice(&bytes[(from - place) as usize..(to - place) as usize]);
            }
        }
        Ok(count as usize)
    }

    fn write_at(&self, _: u64, _: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn set_length(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|parts: &[u8]| {
    let mut head = vec![0; HEAD];
    let mut rest = Vec::new();
    for (part, place) in parts.chunks(PART).zip(PLACES) {
        match head.get_mut(place..place + part.len()) {
            Some(there) => there.copy_from_slice(part),
            None => rest.push((place as u64, part.to_vec())),
        }
    }
    // Checksums stand before everything: what is behind them is reached with them made right, too.
    for head in [head.clone(), Vhdx::with_checksums(head)] {
        let mut all = rest.clone();
        all.push((0, head));
        if let Ok(image) = Vhdx::open(Arc::new(Sparse(all)), "image".into()) {
            look::look(&image, 1 << 20);
        }
    }
});
