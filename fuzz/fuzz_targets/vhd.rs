//! VHD images of any bytes.
#![no_main]

use dormer_storage::format::{Source, Vpc};
use dormer_storage::{Fault, FaultyFile};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|bytes: &[u8]| {
    for bytes in [bytes.to_vec(), Vpc::with_checksums(bytes.to_vec())] {
        let file = Arc::new(FaultyFile::new(bytes, Fault::None));
        let Ok(image) = Vpc::open(file, "image".into()) else {
            continue;
        };
        let mut buffer = [0; 4096];
        let size = image.size();
        for at in (0..size).step_by(1 << 20).take(64) {
            let count = (size - at).min(4096) as usize;
            let _ = image.extent(at, size - at);
            let _ = image.read(at, &mut buffer[..count]);
        }
    }
});
