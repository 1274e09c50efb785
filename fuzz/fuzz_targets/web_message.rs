//! What a page sends: a message or an error.
#![no_main]

use dormer_console::web::Message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = Message::parse(text);
});
