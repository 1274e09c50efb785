//! VHDX images of any bytes, where a VHDX has them: a file of megabytes would be tried a few times a second.
#![no_main]

mod look;

use dormer_storage::format::Vhdx;
use dormer_storage::{Fault, FaultyFile};
use libfuzzer_sys::fuzz_target;
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

fuzz_target!(|parts: &[u8]| {
    let mut bytes = vec![0; (3 << 20) + (128 << 10)];
    for (part, place) in parts.chunks(PART).zip(PLACES) {
        bytes[place..place + part.len()].copy_from_slice(part);
    }
    let file = Arc::new(FaultyFile::new(bytes.clone(), Fault::None));
    // Checksums stand before everything: what is behind them is reached with them made right, too.
    for file in [
        file.clone(),
        Arc::new(FaultyFile::new(Vhdx::with_checksums(bytes), Fault::None)),
    ] {
        if let Ok(image) = Vhdx::open(file, "image".into()) {
            look::look(&image, 1 << 20);
        }
    }
});
