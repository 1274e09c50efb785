//! Kernels as users give them: raw, compressed, zboot, ELF.
#![no_main]

use dormer_firmware::loader::Kernel;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|file: &[u8]| {
    let _ = Kernel::parse(file);
});
