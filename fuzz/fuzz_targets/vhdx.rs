//! VHDX images of any bytes.
#![no_main]

use dormer_storage::format::{Source, Vhdx};
use dormer_storage::{Fault, FaultyFile};
use libfuzzer_sys::fuzz_target;
use std::sync::Arc;

fuzz_target!(|bytes: &[u8]| {
    let file = Arc::new(FaultyFile::new(bytes.to_vec(), Fault::None));
    // Checksums stand before everything: what is behind them is reached with them made right, too.
    for file in [file.clone(), Arc::new(FaultyFile::new(Vhdx::with_checksums(bytes.to_vec()), Fault::None))] {
        if let Ok(image) = Vhdx::open(file, "image".into()) {
            look(&image);
        }
    }
});

fn look(image: &dyn Source) {
    let mut buffer = [0; 4096];
    let size = image.size();
    for at in (0..size).step_by(1 << 20).take(64) {
        let count = (size - at).min(4096) as usize;
        let _ = image.extent(at, size - at);
        let _ = image.read(at, &mut buffer[..count]);
    }
}
