//! qcow2 images of any bytes: opened, read, checked, mended, written to.
#![no_main]

use dormer_storage::format::{FormatError, Source};
use dormer_storage::qcow2::{Access, Preallocation, Qcow2, Repair};
use dormer_storage::{Fault, FaultyFile};
use libfuzzer_sys::fuzz_target;
use std::path::Path;
use std::sync::Arc;

fn nothing_below(_: u64, into: &mut [u8]) -> Result<(), FormatError> {
    into.fill(0);
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    for (write, damaged) in [(false, true), (true, true), (true, false)] {
        let file = Arc::new(FaultyFile::new(bytes.to_vec(), Fault::Full(8 << 20)));
        let access = Access {
            write,
            damaged,
            durable: true,
        };
        let Ok(image) = Qcow2::open(file, Path::new("image"), None, access) else {
            continue;
        };
        let mut buffer = [0; 4096];
        let size = image.disk_size();
        for at in (0..size.min(1 << 20)).step_by(4096) {
            let count = (size - at).min(4096) as usize;
            let _ = image.extent(at, size - at);
            let _ = image.read(at, &mut buffer[..count]);
        }
        let _ = image.check(Repair::Nothing);
        if write && damaged {
            let _ = image.check(Repair::All);
        } else if write {
            let part = size.min(5000) as usize;
            let _ = image.write(0, &vec![1; part], &nothing_below);
            let _ = image.create_snapshot("fuzz");
            let _ = image.write(0, &vec![2; part], &nothing_below);
            let _ = image.delete_snapshot("1");
            let _ = image.reclaim(true, &|_, _| Ok(()));
            let _ = image.resize(size / 1024 * 512 + 512, Preallocation::Off, None, &nothing_below);
            let _ = image.close();
        }
    }
});
