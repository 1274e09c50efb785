use std::sync::Arc;

use ::device::screen::{Screen, Surface};
use memory::Ram;
use proptest::prelude::*;

use super::spec::{Refusal, command, ok};
use super::{Gpu, GpuConfig};
use crate::spec::feature as transport;
use crate::testing::{BUFFERS, Buffer, RAM, RAM_SIZE, Rig, wait_for};
use crate::{PciOptions, VirtioDevice};

/// Where requests and answers are, and free memory behind them.
const REQUEST: u64 = BUFFERS;
const ANSWER: u64 = BUFFERS + 0x8000;
const PIXELS: u64 = BUFFERS + 0x1_0000;

struct Driver {
    rig: Rig,
    gpu: Arc<Gpu>,
    screens: Vec<Arc<dyn Screen>>,
}

impl Driver {
    fn new(config: GpuConfig) -> Driver {
        // The rig makes the RAM; the device sees it through the transport's view only after that.
        let ram = Ram::new(&[(RAM, RAM_SIZE)]).unwrap();
        let gpu = Arc::new(Gpu::new("gpu", config, ram.dma()).unwrap());
        let mut rig = Rig::with_ram(gpu.clone(), &PciOptions::default(), ram);
        gpu.connect(rig.function.interrupts());
        let features = rig.features();
        assert!(rig.negotiate(features));
        rig.go(16);
        Driver {
            rig,
            screens: gpu.screens(),
            gpu,
        }
    }

    fn send(&mut self, queue: usize, words: &[u32], answer: u32) -> (u32, Vec<u8>) {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.rig.dma.write(REQUEST, &bytes).unwrap();
        let mut chain = vec![Buffer {
            address: REQUEST,
            length: bytes.len() as u32,
            writable: false,
        }];
        if answer > 0 {
            chain.push(Buffer {
                address: ANSWER,
                length: answer,
                writable: true,
            });
        }
        self.rig.submit(queue, 0, &chain);
        self.rig.notify(queue as u16);
        let (_, written) = self.rig.wait(queue);
        let mut bytes = vec![0; written as usize];
        self.rig.dma.read(ANSWER, &mut bytes).unwrap();
        let code = bytes
            .first_chunk::<4>()
            .map_or(0, |b| u32::from_le_bytes(*b));
        (code, bytes)
    }

    /// A command of the control queue: its answer's type.
    fn command(&mut self, kind: u32, body: &[u32]) -> u32 {
        let words: Vec<u32> = [kind, 0, 0, 0, 0, 0].iter().chain(body).copied().collect();
        self.send(0, &words, 24).0
    }

    fn create(&mut self, id: u32, format: u32, width: u32, height: u32) -> u32 {
        self.command(command::RESOURCE_CREATE_2D, &[id, format, width, height])
    }

    fn attach(&mut self, id: u32, entries: &[(u64, u32)]) -> u32 {
        let mut body = vec![id, entries.len() as u32];
        for &(address, length) in entries {
            body.extend([address as u32, (address >> 32) as u32, length, 0]);
        }
        self.command(command::RESOURCE_ATTACH_BACKING, &body)
    }

    fn transfer(&mut self, id: u32, part: [u32; 4], offset: u32) -> u32 {
        let body = [part[0], part[1], part[2], part[3], offset, 0, id, 0];
        self.command(command::TRANSFER_TO_HOST_2D, &body)
    }

    fn scanout(&mut self, scanout: u32, id: u32, part: [u32; 4]) -> u32 {
        let body = [part[0], part[1], part[2], part[3], scanout, id];
        self.command(command::SET_SCANOUT, &body)
    }

    fn flush(&mut self, id: u32, part: [u32; 4]) -> u32 {
        let body = [part[0], part[1], part[2], part[3], id, 0];
        self.command(command::RESOURCE_FLUSH, &body)
    }

    fn picture(&self, head: usize) -> Option<Surface> {
        let mut surface = Surface::default();
        self.screens[head].capture(&mut surface).then_some(surface)
    }

    /// A resource of 4×2 pixels, number n of them 0xn0n0n0 and shown.
    fn shown() -> Driver {
        let mut d = Driver::new(GpuConfig::default());
        assert_eq!(d.create(1, 2, 4, 2), ok::NODATA);
        for i in 0..8u32 {
            d.rig
                .dma
                .write_u32(PIXELS + u64::from(i) * 4, 0xff00_0000 + i * 0x10_1010)
                .unwrap();
        }
        // Two stretches whose border is inside of a pixel.
        assert_eq!(d.attach(1, &[(PIXELS, 6), (PIXELS + 6, 26)]), ok::NODATA);
        assert_eq!(d.transfer(1, [0, 0, 4, 2], 0), ok::NODATA);
        assert_eq!(d.scanout(0, 1, [0, 0, 4, 2]), ok::NODATA);
        d
    }
}

fn refused(refusal: Refusal) -> u32 {
    refusal as u32
}

#[test]
fn is_who_it_is() {
    let d = Driver::new(GpuConfig {
        blob: true,
        max_outputs: 3,
        ..GpuConfig::default()
    });
    assert_eq!(d.rig.config(0, 4), 0x1050_1af4);
    assert_eq!(d.rig.config(8, 4), 0x0380_0001);
    assert_eq!(d.rig.config(0x2c, 4), 0x1100_1af4);
    let device = d.rig.features() & 0xff_ffff;
    assert_eq!(device, 1 << 1 | 1 << 3, "EDID and blobs, no VIRGL");
    assert_eq!(d.rig.device(8, 4), 3);
    assert_eq!(d.rig.device(12, 4), 0);
    let plain = Gpu::new(
        "gpu",
        GpuConfig {
            edid: false,
            ..GpuConfig::default()
        },
        d.rig.dma.clone(),
    );
    assert_eq!(plain.unwrap().features(), 0);
    for bad in [
        GpuConfig {
            max_outputs: 17,
            ..GpuConfig::default()
        },
        GpuConfig {
            xres: 0,
            ..GpuConfig::default()
        },
    ] {
        assert!(Gpu::new("gpu", bad, d.rig.dma.clone()).is_err());
    }
}

#[test]
fn shows_what_is_transferred_and_flushed() {
    let mut d = Driver::shown();
    let setup = d.screens[0].setup();
    let picture = d.picture(0).unwrap();
    assert_eq!((picture.width, picture.height), (4, 2));
    let expected: Vec<u32> = (0..8).map(|i| i * 0x10_1010).collect();
    assert_eq!(picture.pixels, expected);

    // One pixel changes; it is seen once it is flushed, and only where the flush says.
    d.rig.dma.write_u32(PIXELS + 20, 0x12_3456).unwrap();
    assert_eq!(d.transfer(1, [1, 1, 1, 1], 20), ok::NODATA);
    assert_eq!(d.picture(0).unwrap().pixels, expected);
    let version = d.screens[0].version();
    assert_eq!(d.flush(1, [0, 0, 4, 1]), ok::NODATA);
    assert_eq!(d.picture(0).unwrap().pixels, expected);
    assert_eq!(d.flush(1, [1, 1, 2, 1]), ok::NODATA);
    assert_eq!(d.picture(0).unwrap().pixels[5], 0x12_3456);
    assert!(d.screens[0].version() > version);

    // A part of the resource is a mode of its own.
    assert_eq!(d.scanout(0, 1, [1, 1, 3, 1]), ok::NODATA);
    assert!(d.screens[0].setup() > setup);
    let picture = d.picture(0).unwrap();
    assert_eq!((picture.width, picture.pixels[0]), (3, 0x12_3456));

    // Turned off it is black, and still what the guest programmed last; a reset takes it away.
    assert_eq!(d.scanout(0, 0, [0; 4]), ok::NODATA);
    assert_eq!(d.picture(0).unwrap().pixels, [0; 3]);
    assert!(d.screens[0].setup() > setup);
    d.rig.set(crate::spec::common::DEVICE_STATUS, 1, 0);
    assert_eq!(d.picture(0), None);
    assert_eq!(d.screens[0].setup(), 0);
}

#[test]
fn a_mode_without_a_picture_is_told_apart() {
    let mut d = Driver::shown();
    assert!(d.screens[0].drawn());
    assert_eq!(d.scanout(0, 0, [0; 4]), ok::NODATA);
    assert!(d.screens[0].drawn(), "turned off for a while");
    d.rig.set(crate::spec::common::DEVICE_STATUS, 1, 0);
    assert!(!d.screens[0].drawn());

    let head = super::scanout::Head::new(
        super::scanout::Wish {
            enabled: true,
            width: 4,
            height: 2,
        },
        Box::new(|| ()),
    );
    head.set(4, 2);
    let all = super::scanout::Rectangle {
        x: 0,
        y: 0,
        width: 4,
        height: 2,
    };
    head.change(all, |_, row| row.fill(0xff00_0000));
    assert!(head.setup() > 0 && !head.drawn());
    head.change(all, |y, row| row[3] = y);
    assert!(head.drawn());
}

#[test]
fn refuses_what_cannot_be() {
    let mut d = Driver::shown();
    let id = refused(Refusal::InvalidResourceId);
    let parameter = refused(Refusal::InvalidParameter);
    assert_eq!(d.create(1, 1, 4, 4), id);
    assert_eq!(d.create(0, 1, 4, 4), id);
    assert_eq!(d.create(2, 5, 4, 4), parameter);
    assert_eq!(d.create(2, 1, 0, 4), parameter);
    assert_eq!(d.create(2, 1, u32::MAX, u32::MAX), parameter);
    assert_eq!(d.create(2, 1, 8192, 8193), refused(Refusal::OutOfMemory));
    assert_eq!(d.create(2, 1, 8192, 8000), ok::NODATA);
    assert_eq!(d.create(3, 1, 8192, 1000), refused(Refusal::OutOfMemory));
    assert_eq!(d.command(command::RESOURCE_UNREF, &[2, 0]), ok::NODATA);
    assert_eq!(d.command(command::RESOURCE_UNREF, &[2, 0]), id);
    assert_eq!(d.attach(9, &[]), id);
    assert_eq!(d.attach(1, &[]), refused(Refusal::Unspecified));
    assert_eq!(d.create(4, 1, 2, 2), ok::NODATA);
    assert_eq!(
        d.transfer(4, [0, 0, 2, 2], 0),
        refused(Refusal::Unspecified)
    );
    assert_eq!(d.attach(4, &[(0x1000, 16)]), refused(Refusal::Unspecified));
    assert_eq!(
        d.command(command::RESOURCE_ATTACH_BACKING, &[4, 16385]),
        refused(Refusal::Unspecified)
    );
    assert_eq!(d.transfer(1, [3, 0, 2, 1], 0), parameter);
    assert_eq!(d.transfer(1, [u32::MAX, 0, 2, 1], 0), parameter);
    assert_eq!(
        d.transfer(1, [0, 0, 4, 2], u32::MAX),
        ok::NODATA,
        "nothing there to copy"
    );
    assert_eq!(d.flush(1, [0, 1, 4, 2]), parameter);
    assert_eq!(d.flush(7, [0, 0, 1, 1]), id);
    assert_eq!(
        d.scanout(1, 1, [0, 0, 4, 2]),
        refused(Refusal::InvalidScanoutId)
    );
    assert_eq!(d.scanout(0, 1, [0, 0, 5, 2]), parameter);
    assert_eq!(d.scanout(0, 1, [0, 0, 0, 2]), parameter);
    assert_eq!(d.scanout(0, 7, [0, 0, 4, 2]), id);
    assert_eq!(
        d.command(command::RESOURCE_DETACH_BACKING, &[1, 0]),
        ok::NODATA
    );
    assert_eq!(d.command(command::RESOURCE_DETACH_BACKING, &[1, 0]), id);
    for unknown in [0, 0x0108, 0x010c, 0x0200, 0x0300, u32::MAX] {
        assert_eq!(
            d.command(unknown, &[0; 8]),
            refused(Refusal::Unspecified),
            "{unknown:#x}"
        );
    }
    assert_eq!(
        d.command(command::SET_SCANOUT, &[0, 0]),
        refused(Refusal::Unspecified)
    );
    assert_eq!(d.send(0, &[command::GET_DISPLAY_INFO], 24).1.len(), 0);
    // A resource that is shown and goes leaves black.
    assert_eq!(d.command(command::RESOURCE_UNREF, &[1, 0]), ok::NODATA);
    assert_eq!(d.picture(0).unwrap().pixels, [0; 8]);
}

#[test]
fn fences_are_answered() {
    let mut d = Driver::new(GpuConfig::default());
    let (_, answer) = d.send(0, &[command::GET_DISPLAY_INFO, 1, 7, 8, 9, 0], 0x1000);
    let words: Vec<u32> = answer
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| u32::from_le_bytes(*b))
        .collect();
    assert_eq!(words[..6], [ok::DISPLAY_INFO, 1, 7, 8, 9, 0]);
    assert_eq!(words[6..12], [0, 0, 1280, 800, 1, 0]);
    assert_eq!(
        (words.len(), words[12..].iter().max()),
        (6 + 16 * 6, Some(&0))
    );
    let (_, answer) = d.send(0, &[command::GET_DISPLAY_INFO, 0, 7, 8, 9, 0], 0x1000);
    assert_eq!(answer[8..24], [0; 16]);
}

#[test]
fn sizes_that_are_asked_for_reach_the_driver() {
    let mut d = Driver::new(GpuConfig {
        max_outputs: 2,
        ..GpuConfig::default()
    });
    d.rig.enable_msix();
    let generation = d.rig.get(crate::spec::common::CONFIG_GENERATION, 1);
    assert!(d.screens[0].request_size(1920, 1080));
    assert_eq!(d.rig.device(0, 4), 1, "events_read");
    assert_eq!(d.rig.sent.lock().last().map(|m| m.data), Some(100));
    assert_ne!(
        d.rig.get(crate::spec::common::CONFIG_GENERATION, 1),
        generation
    );
    d.rig.set_device(4, 4, 1);
    assert_eq!(d.rig.device(0, 4), 0);
    // The same size is no news.
    assert!(d.screens[0].request_size(1920, 1080));
    assert_eq!(d.rig.device(0, 4), 0);
    // The second output is connected once somebody looks at it.
    assert!(d.screens[1].request_size(10, 100_000));
    let (_, answer) = d.send(0, &[command::GET_DISPLAY_INFO, 0, 0, 0, 0, 0], 0x1000);
    let word = |i: usize| u32::from_le_bytes(answer[i * 4..][..4].try_into().unwrap());
    assert_eq!([word(8), word(9), word(10)], [1920, 1080, 1]);
    assert_eq!([word(14), word(15), word(16)], [320, 16384, 1]);
    let (code, answer) = d.send(0, &[command::GET_EDID, 0, 0, 0, 0, 0, 0, 0], 0x1000);
    assert_eq!((code, answer.len()), (ok::EDID, 24 + 8 + 1024));
    assert_eq!(answer[24..28], 128u32.to_le_bytes());
    // 1920 in the preferred timing.
    assert_eq!((answer[32 + 56], answer[32 + 58] >> 4), (0x80, 7));
    assert_eq!(
        d.command(command::GET_EDID, &[2, 0]),
        refused(Refusal::InvalidScanoutId)
    );
}

#[test]
fn pointers_lie_over_the_picture() {
    let mut d = Driver::shown();
    assert_eq!(d.screens[0].cursor(), None);
    assert_eq!(d.create(5, 1, 64, 64), ok::NODATA);
    d.rig.dma.write_u32(PIXELS + 0x100, 0x8011_2233).unwrap();
    assert_eq!(d.attach(5, &[(PIXELS + 0x100, 0x4000)]), ok::NODATA);
    assert_eq!(d.transfer(5, [0, 0, 64, 64], 0), ok::NODATA);
    let header = |kind| [kind, 0, 0, 0, 0, 0];
    let mut words = header(command::UPDATE_CURSOR).to_vec();
    words.extend([0, 10, 20, 0, 5, 3, 100, 0]);
    d.send(1, &words, 0);
    let cursor = d.screens[0].cursor().unwrap();
    let image = cursor.image.unwrap();
    assert_eq!(
        (cursor.x, cursor.y, image.hot_x, image.hot_y),
        (10, 20, 3, 63)
    );
    assert_eq!((image.pixels.len(), image.pixels[0]), (4096, 0x8011_2233));
    let mut words = header(command::MOVE_CURSOR).to_vec();
    words.extend([0, u32::MAX, 21, 0, 0, 0, 0, 0]);
    d.send(1, &words, 0);
    let cursor = d.screens[0].cursor().unwrap();
    assert_eq!((cursor.x, cursor.y, cursor.image.is_some()), (-1, 21, true));
    let mut words = header(command::UPDATE_CURSOR).to_vec();
    words.extend([0, 1, 1, 0, 0, 0, 0, 0]);
    d.send(1, &words, 0);
    assert_eq!(d.screens[0].cursor().unwrap().image, None);
}

#[test]
fn blobs_are_guest_memory() {
    let mut d = Driver::new(GpuConfig {
        blob: true,
        ..GpuConfig::default()
    });
    let create = |d: &mut Driver, id: u32, memory: u32, size: u32, length: u32| {
        let at = PIXELS as u32;
        let body = [id, memory, 1, 1, 0, 0, size, 0, at, 0, length, 0];
        d.command(command::RESOURCE_CREATE_BLOB, &body)
    };
    let parameter = refused(Refusal::InvalidParameter);
    assert_eq!(create(&mut d, 1, 2, 64, 64), parameter);
    assert_eq!(create(&mut d, 1, 1, 65, 64), parameter);
    assert_eq!(create(&mut d, 1, 1, 64, 64), ok::NODATA);
    let show = |d: &mut Driver, height: u32, stride: u32| {
        let body = [
            0, 0, 2, height, 0, 1, 2, height, 2, 0, stride, 0, 0, 0, 8, 0, 0, 0,
        ];
        d.command(command::SET_SCANOUT_BLOB, &body)
    };
    assert_eq!(show(&mut d, 4, 16), ok::NODATA);
    assert_eq!(show(&mut d, 5, 16), parameter);
    assert_eq!(show(&mut d, 4, 4), parameter);
    assert_eq!(show(&mut d, 4, u32::MAX), parameter);
    // Offset 8, second row, second pixel.
    d.rig
        .dma
        .write_u32(PIXELS + 8 + 16 + 4, 0xff12_3456)
        .unwrap();
    assert_eq!(d.picture(0).unwrap().pixels[3], 0);
    assert_eq!(d.flush(1, [0, 0, 100, 100]), ok::NODATA);
    assert_eq!(d.picture(0).unwrap().pixels[3], 0x12_3456);
    assert_eq!(
        d.scanout(0, 1, [0, 0, 2, 2]),
        refused(Refusal::InvalidResourceId)
    );
    assert_eq!(d.transfer(1, [0, 0, 1, 1], 0), parameter);
}

#[test]
fn goes_on_from_a_saved_state() {
    let d = Driver::shown();
    let saved = d.rig.function.state();
    let gpu = d.gpu.state();
    let twin = Driver::new(GpuConfig::default());
    assert!(twin.gpu.restore(&gpu));
    assert_eq!(twin.gpu.state(), gpu);
    let mut cut = gpu.clone();
    cut.pop();
    assert!(!twin.gpu.restore(&cut) && !twin.gpu.restore(&[]));
    let picture = d.picture(0);
    let before = d.screens[0].setup();
    d.rig.function.restore(saved).unwrap();
    assert_eq!(d.picture(0), picture);
    assert!(d.screens[0].setup() > before);
}

/// Words that are often near something.
fn word() -> impl Strategy<Value = u32> {
    prop_oneof![
        0u32..6,
        Just(64),
        Just(4096),
        Just(PIXELS as u32),
        any::<u32>()
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the commands, each is answered, and host memory is bounded.
    #[test]
    fn survives_any_commands(
        commands in prop::collection::vec(
            (0usize..2, 0u32..14, prop::collection::vec(word(), 0..20)), 1..40)
    ) {
        let limit = 1 << 20;
        let mut d = Driver::new(GpuConfig {
            blob: true,
            max_outputs: 2,
            max_hostmem: limit,
            ..GpuConfig::default()
        });
        for (queue, kind, body) in commands {
            let kind = if queue == 1 { 0x300 + kind % 3 } else { 0x100 + kind };
            let words: Vec<u32> = [kind, 1, 0, 0, 0, 0].into_iter().chain(body).collect();
            d.send(queue, &words, 0x1000);
            let state = d.gpu.inner.state.lock();
            prop_assert!(state.0.is_sound(&d.gpu.inner.config, &d.rig.dma));
            let shown: u64 = d.gpu.inner.heads.iter().map(|h| h.cost()).sum();
            prop_assert!(shown <= limit);
        }
        wait_for("an idle device", || d.rig.status() & 64 == 0);
        prop_assert!(transport::VERSION_1 & d.rig.features() != 0);
    }
}
