//! The virtio GPU: commands of both queues.
#![no_main]

use std::sync::Arc;
use std::time::{Duration, Instant};

use dormer_device::{Access, Line};
use dormer_memory::Ram;
use dormer_pci::Function;
use dormer_virtio::gpu::{Gpu, GpuConfig};
use dormer_virtio::{PciOptions, VirtioPci};
use libfuzzer_sys::fuzz_target;

const RAM: u64 = 0x4000_0000;
const RING: u64 = RAM + 0x1000;
const REQUEST: u64 = RAM + 0x8000;
const ANSWER: u64 = RAM + 0x1_0000;

fuzz_target!(|commands: Vec<(bool, Vec<u8>)>| {
    let Ok(ram) = Ram::new(&[(RAM, 0x10_0000)]) else {
        return;
    };
    let dma = ram.dma();
    let config = GpuConfig {
        blob: true,
        max_outputs: 2,
        max_hostmem: 1 << 20,
        ..GpuConfig::default()
    };
    let Ok(gpu) = Gpu::new("gpu", config, dma.clone()) else {
        return;
    };
    let Ok(function) = VirtioPci::new(Arc::new(gpu), dma.clone(), &PciOptions::default()) else {
        return;
    };
    function.endpoint().connect(8, Arc::new(|_| {}), Line::unconnected());
    function.endpoint().write_config(4, 2, 6);
    let set = |at: u64, width: u8, value: u64| function.write_bar(4, Access::new(at, width), value);
    // The steps of VIRTIO 3.1.1, with VERSION_1 alone.
    set(0x14, 1, 3);
    set(0x08, 4, 1);
    set(0x0c, 4, 1);
    set(0x14, 1, 11);
    for queue in 0..2u64 {
        let base = RING + queue * 0x3000;
        set(0x16, 2, queue);
        set(0x18, 2, 16);
        set(0x20, 8, base);
        set(0x28, 8, base + 0x1000);
        set(0x30, 8, base + 0x2000);
        set(0x1c, 2, 1);
    }
    set(0x14, 1, 15);
    let mut made = [0u16; 2];
    for (cursor, bytes) in commands {
        let queue = usize::from(cursor);
        let base = RING + queue as u64 * 0x3000;
        let bytes = &bytes[..bytes.len().min(0x7000)];
        let _ = dma.write(REQUEST, bytes);
        for (slot, address, length, flags) in [
            (0, REQUEST, bytes.len() as u32, 1 | 1 << 16),
            (1, ANSWER, 0x1000, 2),
        ] {
            let at = base + slot * 16;
            let _ = dma.write_u64(at, address);
            let _ = dma.write_u32(at + 8, length);
            let _ = dma.write_u32(at + 12, flags);
        }
        made[queue] = made[queue].wrapping_add(1);
        let _ = dma.write(base + 0x1002, &made[queue].to_le_bytes());
        set(0x3000 + queue as u64 * 4, 2, queue as u64);
        let start = Instant::now();
        let mut used = [0; 2];
        while dma.read(base + 0x2002, &mut used).is_ok() && u16::from_le_bytes(used) != made[queue]
        {
            assert!(start.elapsed() < Duration::from_secs(10), "a command hangs");
            std::thread::yield_now();
        }
    }
});
