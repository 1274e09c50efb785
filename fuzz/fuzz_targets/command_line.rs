//! Command lines: an error at the worst.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let words: Vec<_> = text.split('\n').map(str::to_string).collect();
    let _ = dormer_qemu::command_line::parse(&words);
});
