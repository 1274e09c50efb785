use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::Access;
use pci::Function;
use proptest::prelude::*;

use crate::block::{Block, BlockConfig};
use crate::spec::{capability, common, descriptor, feature, legacy, status};
use crate::testing::{BUFFERS, Buffer, RAM, RAM_SIZE, Rig, TestDisk, wait_for};
use crate::{PciOptions, VirtioPci};

const FEATURES: u64 = feature::VERSION_1 | feature::RING_INDIRECT_DESC;

fn rig() -> Rig {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let block = Block::new("disk", BlockConfig::default(), disk).unwrap();
    Rig::new(Arc::new(block), &PciOptions::default())
}

/// A read of sector 5 to BUFFERS + 0x1000, status at + 0x100.
fn request(rig: &Rig) -> [Buffer; 3] {
    rig.dma.write_u64(BUFFERS, 0).unwrap();
    rig.dma.write_u64(BUFFERS + 8, 5).unwrap();
    [
        (BUFFERS, 16, false),
        (BUFFERS + 0x1000, 512, true),
        (BUFFERS + 0x100, 1, true),
    ]
    .map(|(address, length, writable)| Buffer {
        address,
        length,
        writable,
    })
}

#[test]
fn capabilities_are_where_drivers_know_them() {
    let rig = rig();
    for (kind, at, offset) in [
        (capability::COMMON, 0x40, 0),
        (capability::ISR, 0x50, 0x1000),
        (capability::DEVICE, 0x60, 0x2000),
        (capability::NOTIFY, 0x70, 0x3000),
        (capability::PCI, 0x84, 0),
    ] {
        assert_eq!(rig.structure(kind), Some(at));
        assert_eq!(rig.config(at + 8, 4), offset);
    }
    assert_eq!(rig.config(0x70 + 16, 4), 4);
    assert_eq!(rig.config(0x98, 4), 0x0001_0011);
    assert_eq!(rig.config(0x9c, 8), 0x0000_0801_0000_0001);
}

#[test]
fn negotiation() {
    let mut rig = rig();
    assert_eq!(rig.features() & feature::VERSION_1, feature::VERSION_1);
    rig.set(common::DEVICE_FEATURE_SELECT, 4, 7);
    assert_eq!(rig.get(common::DEVICE_FEATURE, 4), 0);
    assert!(!rig.negotiate(0), "a modern driver says VERSION_1");
    assert!(
        !rig.negotiate(feature::VERSION_1 | 1 << 40),
        "never offered"
    );
    rig.set(common::DEVICE_STATUS, 1, 7);
    assert_eq!(
        rig.status() & status::DRIVER_OK,
        0,
        "not without FEATURES_OK"
    );
    assert!(rig.negotiate(FEATURES));
    rig.set(common::DRIVER_FEATURE, 4, 0);
    assert_eq!(rig.get(common::DRIVER_FEATURE, 4), 1, "frozen");
    // Queue set-up.
    rig.set(common::QUEUE_SIZE, 2, 48);
    assert_eq!(rig.get(common::QUEUE_SIZE, 2), 256, "not a power of two");
    rig.set(common::QUEUE_SIZE, 2, 512);
    assert_eq!(rig.get(common::QUEUE_SIZE, 2), 256, "too large");
    rig.set(common::QUEUE_SIZE, 2, 16);
    rig.set(common::QUEUE_MSIX_VECTOR, 2, 2);
    assert_eq!(
        rig.get(common::QUEUE_MSIX_VECTOR, 2),
        0xffff,
        "no such vector"
    );
    rig.set(common::QUEUE_MSIX_VECTOR, 2, 1);
    assert_eq!(rig.get(common::QUEUE_MSIX_VECTOR, 2), 1);
    rig.set(common::QUEUE_SELECT, 2, 1);
    assert_eq!(rig.get(common::QUEUE_SIZE, 2), 0, "no such queue");
    rig.set(common::DEVICE_STATUS, 1, 0);
    rig.set(common::QUEUE_SELECT, 2, 0);
    assert_eq!(rig.get(common::QUEUE_SIZE, 2), 256);
}

#[test]
fn an_interrupt_by_line_or_message_if_wanted() {
    let mut rig = rig();
    assert!(rig.negotiate(FEATURES));
    rig.go(16);
    let chain = request(&rig);
    rig.submit(0, 0, &chain);
    rig.notify(0);
    assert_eq!(rig.wait(0), (0, 513));
    wait_for("interrupt", || rig.line.load(Ordering::SeqCst));
    assert_eq!(rig.isr(), 1);
    assert!(!rig.line.load(Ordering::SeqCst));
    // VIRTQ_AVAIL_F_NO_INTERRUPT.
    rig.dma.write(rig.rings[0].available, &[1, 0]).unwrap();
    rig.make_available(0, 0);
    rig.notify(0);
    rig.wait(0);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(rig.isr(), 0);
    rig.dma.write(rig.rings[0].available, &[0, 0]).unwrap();
    rig.enable_msix();
    rig.make_available(0, 0);
    rig.notify(0);
    rig.wait(0);
    wait_for("message", || rig.sent.lock().len() == 1);
    assert_eq!(rig.sent.lock()[0].data, 101);
    assert_eq!(rig.sent.lock()[0].device, 2 << 3);
}

#[test]
fn indirect_tables() {
    let mut rig = rig();
    assert!(rig.negotiate(FEATURES));
    rig.go(16);
    let table = BUFFERS + 0x4008;
    for (i, buffer) in request(&rig).into_iter().enumerate() {
        rig.descriptor(table, i as u16, buffer, u16::from(i < 2), i as u16 + 1);
    }
    let whole = Buffer {
        address: table,
        length: 48,
        writable: false,
    };
    rig.descriptor(rig.rings[0].descriptors, 3, whole, descriptor::INDIRECT, 0);
    rig.make_available(0, 3);
    rig.notify(0);
    assert_eq!(rig.wait(0), (3, 513));
}

/// Each of these must set DEVICE_NEEDS_RESET, tell the driver, and be over after a reset.
#[test]
fn broken_rings() {
    type Breakage = fn(&mut Rig);
    let cases: [(&str, Breakage); 8] = [
        ("a loop", |rig| {
            let buffer = Buffer {
                address: BUFFERS,
                length: 1,
                writable: false,
            };
            rig.descriptor(rig.rings[0].descriptors, 0, buffer, descriptor::NEXT, 0);
            rig.make_available(0, 0);
        }),
        ("a head out of range", |rig| rig.make_available(0, 16)),
        ("a next out of range", |rig| {
            let buffer = Buffer {
                address: BUFFERS,
                length: 1,
                writable: false,
            };
            rig.descriptor(rig.rings[0].descriptors, 0, buffer, descriptor::NEXT, 99);
            rig.make_available(0, 0);
        }),
        ("readable after writable", |rig| {
            let mut chain = request(rig);
            chain.reverse();
            rig.submit(0, 0, &chain);
        }),
        ("more available than the ring holds", |rig| {
            rig.dma
                .write(rig.rings[0].available + 2, &17u16.to_le_bytes())
                .unwrap();
        }),
        ("an indirect table in an indirect table", |rig| {
            let table = BUFFERS + 0x4000;
            let buffer = Buffer {
                address: table,
                length: 16,
                writable: false,
            };
            rig.descriptor(table, 0, buffer, descriptor::INDIRECT, 0);
            rig.descriptor(rig.rings[0].descriptors, 0, buffer, descriptor::INDIRECT, 0);
            rig.make_available(0, 0);
        }),
        ("an indirect table outside of memory", |rig| {
            let buffer = Buffer {
                address: u64::MAX - 7,
                length: 32,
                writable: false,
            };
            rig.descriptor(rig.rings[0].descriptors, 0, buffer, descriptor::INDIRECT, 0);
            rig.make_available(0, 0);
        }),
        ("more than 4 GiB", |rig| {
            let buffer = Buffer {
                address: BUFFERS,
                length: u32::MAX,
                writable: false,
            };
            rig.submit(0, 0, &[buffer, buffer]);
        }),
    ];
    let mut rig = rig();
    for (what, breakage) in cases {
        assert!(rig.negotiate(FEATURES), "{what}");
        rig.go(16);
        breakage(&mut rig);
        rig.notify(0);
        wait_for(what, || rig.status() & status::DEVICE_NEEDS_RESET != 0);
        wait_for(what, || rig.isr() & 2 != 0);
        assert_eq!(rig.used_index(0), 0, "{what}");
    }
    assert!(rig.negotiate(feature::VERSION_1));
    rig.go(16);
    assert_eq!(rig.status() & status::DEVICE_NEEDS_RESET, 0);
    let chain = request(&rig);
    rig.submit(0, 0, &chain);
    rig.notify(0);
    assert_eq!(rig.wait(0), (0, 513));
}

#[test]
fn a_ring_outside_of_memory() {
    let mut rig = rig();
    for (register, address) in [
        (common::QUEUE_DESC, RAM + RAM_SIZE - 16),
        (common::QUEUE_DRIVER, 0),
        (common::QUEUE_DEVICE, u64::MAX - 3),
        (common::QUEUE_DESC, RAM + 8),
    ] {
        assert!(rig.negotiate(FEATURES));
        rig.set(common::QUEUE_DESC, 8, RAM);
        rig.set(common::QUEUE_DRIVER, 8, RAM + 0x2000);
        rig.set(common::QUEUE_DEVICE, 8, RAM + 0x4000);
        rig.set(register, 8, address);
        rig.set(common::QUEUE_ENABLE, 2, 1);
        rig.set(common::DEVICE_STATUS, 1, 15);
        assert_ne!(
            rig.status() & status::DEVICE_NEEDS_RESET,
            0,
            "{register:#x}"
        );
    }
}

#[test]
fn the_window_in_configuration_space() {
    let rig = rig();
    let at = rig.structure(capability::PCI).unwrap();
    let aim = |offset: u64, length: u64| {
        rig.set_config(at + 4, 1, 4);
        rig.set_config(at + 8, 4, offset);
        rig.set_config(at + 12, 4, length);
    };
    aim(common::NUM_QUEUES, 2);
    assert_eq!(rig.config(at + 16, 4), 1);
    aim(common::DEVICE_STATUS, 1);
    rig.set_config(at + 16, 1, 3);
    assert_eq!(rig.status(), 3);
    aim(0x2000, 4);
    assert_eq!(rig.config(at + 16, 4), 2048);
    for (offset, length) in [(0x4000, 4), (1, 2), (0, 8), (0xffff_fffc, 4)] {
        aim(offset, length);
        rig.set_config(at + 16, 4, 0xffff_ffff);
        rig.config(at + 16, 4);
    }
    rig.set_config(at + 4, 1, 77);
    rig.config(at + 16, 4);
}

#[test]
fn interfaces_by_choice() {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let block = || Arc::new(Block::new("disk", BlockConfig::default(), disk.clone()).unwrap());
    let options = PciOptions {
        disable_modern: true,
        ..PciOptions::default()
    };
    let rig = Rig::new(block(), &options);
    assert_eq!(rig.config(0x20, 4), 0);
    assert_eq!(rig.structure(capability::COMMON), None);
    assert_eq!(rig.port(legacy::QUEUE_SIZE, 2), 256);
    let none = PciOptions {
        disable_legacy: true,
        disable_modern: true,
        vectors: None,
    };
    assert!(VirtioPci::new(block(), rig.dma.clone(), &none).is_err());
    let quiet = PciOptions {
        vectors: Some(0),
        ..PciOptions::default()
    };
    assert_eq!(
        Rig::new(block(), &quiet).function.endpoint().msix_vectors(),
        0
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Random rings and random register accesses: no panic, no hang, and a reset makes all well.
    #[test]
    fn hostile_rings(
        noise in prop::collection::vec(any::<u16>(), 512),
        accesses in prop::collection::vec(
            (prop::sample::select(vec![0u8, 4]), 0u64..0x3100, prop::sample::select(vec![1u8, 2, 4, 8]), any::<u64>(), any::<bool>()),
            0..60,
        ),
        features: u32,
    ) {
        let mut rig = rig();
        rig.negotiate(feature::VERSION_1 | u64::from(features) & rig.features());
        rig.go(16);
        for (i, word) in noise.iter().enumerate() {
            // Descriptors that point into RAM mostly, with short lengths and few flags.
            let value = match i % 8 {
                0 => *word & 0xfff0,
                1 => 0x4010,
                2 | 3 | 5 => 0,
                4 => *word & 0x3ff,
                6 => *word & 7,
                _ => *word % 20,
            };
            let at = rig.rings[0].descriptors + i as u64 * 2;
            rig.dma.write(at, &value.to_le_bytes()).unwrap();
            rig.dma.write(rig.rings[0].available + 4 + (i as u64 % 16) * 2, &(value % 20).to_le_bytes()).unwrap();
        }
        for round in [3u16, 9, 16, 40] {
            rig.dma.write(rig.rings[0].available + 2, &round.to_le_bytes()).unwrap();
            rig.notify(0);
        }
        for (bar, offset, width, value, write) in accesses {
            let access = Access::new(if bar == 0 { offset % 0x78 } else { offset }, width);
            if write {
                rig.function.write_bar(bar, access, value);
            } else {
                rig.function.read_bar(bar, access);
            }
        }
        rig.dma.fill(RAM, RAM_SIZE, 0).unwrap();
        prop_assert!(rig.negotiate(feature::VERSION_1));
        rig.go(16);
        let chain = request(&rig);
        rig.submit(0, 0, &chain);
        rig.notify(0);
        prop_assert_eq!(rig.wait(0), (0, 513));
    }
}
