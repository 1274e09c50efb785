//! VMDK images of any bytes: descriptors, sparse headers, compressed grains.
#![no_main]

use dormer_storage::format::{Source, Vmdk};
use dormer_storage::{Fault, FaultyFile};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|bytes: &[u8]| {
    let file = Arc::new(FaultyFile::new(bytes.to_vec(), Fault::None));
    // Whatever a descriptor names is the same file again.
    let Ok(image) = Vmdk::open(file.clone(), "image".into(), &|_| Ok(file.clone())) else {
        return;
    };
    let mut buffer = [0; 4096];
    let size = image.size();
    for at in (0..size).step_by(65536).take(64) {
        let count = (size - at).min(4096) as usize;
        let _ = image.extent(at, size - at);
        let _ = image.read(at, &mut buffer[..count]);
    }
});
