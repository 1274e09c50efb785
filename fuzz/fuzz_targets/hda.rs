//! HD Audio: register accesses, verbs, buffer lists in guest memory.
#![no_main]

use std::sync::Arc;

use dormer_audio::{Audio, Driver, Options};
use dormer_device::{Access, Clock, Line};
use dormer_hda::{Chip, CodecConfig, CodecModel, Config, Hda};
use dormer_memory::Ram;
use dormer_pci::Function;
use libfuzzer_sys::fuzz_target;

const RAM: u64 = 0x4000_0000;
const SIZE: usize = 0x1_0000;

fuzz_target!(|input: (Vec<u8>, Vec<(u16, u8, u32)>)| {
    let (memory, accesses) = input;
    let Ok(ram) = Ram::new(&[(RAM, SIZE as u64)]) else {
        return;
    };
    let dma = ram.dma();
    let _ = dma.write(RAM, &memory[..memory.len().min(SIZE)]);
    let config = Config {
        name: "hda".into(),
        chip: Chip::Ich6,
        msi: true,
    };
    let hda = Hda::new(config, dma, &Clock::new());
    let Ok(audio) = Audio::open(&Options::new("none", Driver::None)) else {
        return;
    };
    let codec = CodecConfig {
        model: CodecModel::Duplex,
        mixer: true,
    };
    let _ = hda.attach(None, "codec", codec, &audio);
    hda.endpoint().connect(8, Arc::new(|_| {}), Line::unconnected());
    hda.endpoint().write_config(4, 2, 6);
    hda.write_bar(0, Access::new(8, 4), 1);
    for (offset, width, value) in accesses {
        let access = Access::new(u64::from(offset & 0x3fff), 1 << (width & 3));
        // Half of the values point into memory.
        let value = if width & 4 != 0 {
            RAM as u32 | value & 0xffff
        } else {
            value
        };
        hda.write_bar(0, access, value.into());
        hda.read_bar(0, access);
    }
});
