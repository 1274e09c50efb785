//! Transfer blocks of a USB network card: frames inside the block, and no more of them than it is long.
#![no_main]

use dormer_usb::ncm::ntb::{Format, parse};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|block: &[u8]| {
    for format in [Format::Ntb16, Format::Ntb32] {
        let frames = parse(format, block);
        let total: usize = frames.iter().map(|frame| block[frame.clone()].len()).sum();
        assert!(total <= block.len());
    }
});
