#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dormer_fuzz::media_files::pe(bytes));
