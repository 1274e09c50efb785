//! VHD images of any bytes.
#![no_main]

mod look;

use dormer_storage::format::Vpc;
use dormer_storage::{Fault, FaultyFile};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|bytes: &[u8]| {
    for bytes in [bytes.to_vec(), Vpc::with_checksums(bytes.to_vec())] {
        let file = Arc::new(FaultyFile::new(bytes, Fault::None));
        let Ok(image) = Vpc::open(file, "image".into()) else {
            continue;
        };
        look::look(&image, 1 << 20);
    }
});
