//! VMDK images of any bytes: descriptors, sparse headers, compressed grains.
#![no_main]

mod look;

use dormer_storage::format::Vmdk;
use dormer_storage::{Fault, FaultyFile};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|bytes: &[u8]| {
    let file = Arc::new(FaultyFile::new(bytes.to_vec(), Fault::None));
    // Whatever a descriptor names is the same file again.
    let Ok(image) = Vmdk::open(file.clone(), "image".into(), &|_| Ok(file.clone())) else {
        return;
    };
    look::look(&image, 65536);
});
