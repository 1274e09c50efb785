use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::spec::{self, *};
use super::{Block, BlockConfig};
use crate::PciOptions;
use crate::spec::{feature as ring, status};
use crate::testing::{BUFFERS, Buffer, Rig, TestDisk, wait_for};

const FEATURES: u64 = ring::VERSION_1
    | ring::RING_EVENT_IDX
    | ring::RING_INDIRECT_DESC
    | feature::FLUSH
    | feature::CONFIG_WCE
    | feature::DISCARD
    | feature::WRITE_ZEROES;
const HEADER: u64 = BUFFERS;
const STATUS: u64 = BUFFERS + 0x100;
const DATA: u64 = BUFFERS + 0x1000;

fn rig_with(config: BlockConfig, disk: &Arc<TestDisk>) -> Rig {
    let block = Block::new("disk", config, disk.clone()).unwrap();
    Rig::new(Arc::new(block), &PciOptions::default())
}

fn rig(disk: &Arc<TestDisk>) -> Rig {
    let mut rig = rig_with(
        BlockConfig {
            serial: "S-1".into(),
            ..BlockConfig::default()
        },
        disk,
    );
    assert!(rig.negotiate(FEATURES));
    rig.go(64);
    rig
}

fn header(rig: &Rig, kind: u32, sector: u64) {
    rig.dma.write_u64(HEADER, kind.into()).unwrap();
    rig.dma.write_u64(HEADER + 8, sector).unwrap();
    rig.dma.write(STATUS, &[0xee]).unwrap();
}

fn chain(data: &[(u64, u32)], writable: bool) -> Vec<Buffer> {
    let mut chain = vec![Buffer {
        address: HEADER,
        length: 16,
        writable: false,
    }];
    chain.extend(data.iter().map(|&(address, length)| Buffer {
        address,
        length,
        writable,
    }));
    chain.push(Buffer {
        address: STATUS,
        length: 1,
        writable: true,
    });
    chain
}

/// One request: status and used length.
fn request(
    rig: &mut Rig,
    kind: u32,
    sector: u64,
    data: &[(u64, u32)],
    writable: bool,
) -> (u8, u32) {
    header(rig, kind, sector);
    rig.submit(0, 0, &chain(data, writable));
    rig.notify(0);
    let (head, length) = rig.wait(0);
    assert_eq!(head, 0);
    let mut status = [0];
    rig.dma.read(STATUS, &mut status).unwrap();
    (status[0], length)
}

fn bytes(rig: &Rig, address: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    rig.dma.read(address, &mut bytes).unwrap();
    bytes
}

#[test]
fn identity_and_configuration() {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let rig = rig(&disk);
    assert_eq!(rig.config(0, 4), 0x1001_1af4);
    assert_eq!(rig.config(8, 4), 0x0100_0000);
    assert_eq!(rig.config(0x2c, 4), 0x0002_1af4);
    assert_eq!(rig.device(CAPACITY as u64, 8), 2048);
    assert_eq!(rig.device(SEG_MAX as u64, 4), 254);
    assert_eq!(rig.device(BLK_SIZE as u64, 4), 512);
    assert_eq!(rig.device(WRITEBACK as u64, 1), 1);
    assert_eq!(rig.device(0x100, 4), 0);
    let modern = PciOptions {
        disable_legacy: true,
        ..PciOptions::default()
    };
    let block = Block::new("disk", BlockConfig::default(), disk).unwrap();
    let rig = Rig::new(Arc::new(block), &modern);
    assert_eq!(rig.config(0, 4), 0x1042_1af4);
    assert_eq!(rig.config(8, 4), 0x0100_0001);
    assert_eq!(rig.config(0x2c, 4), 0x1100_1af4);
    assert_eq!(rig.config(0x10, 4), 0, "no legacy BAR");
}

#[test]
fn reads_writes_and_flushes() {
    let disk = Arc::new(TestDisk::new(4 << 20));
    let mut rig = rig(&disk);
    assert_eq!(
        request(
            &mut rig,
            T_IN,
            3,
            &[(DATA, 512), (DATA + 0x2000, 1024)],
            true
        ),
        (S_OK, 1537)
    );
    assert_eq!(bytes(&rig, DATA, 512), [3; 512]);
    assert_eq!(
        bytes(&rig, DATA + 0x2000, 1024),
        [[4; 512], [5; 512]].concat()
    );
    rig.dma.fill(DATA, 4096, 0x5a).unwrap();
    assert_eq!(
        request(&mut rig, T_OUT, 8, &[(DATA, 4096)], false),
        (S_OK, 1)
    );
    assert_eq!(disk.data.lock()[8 * 512..16 * 512], [0x5a; 4096]);
    assert_eq!(disk.data.lock()[16 * 512], 16);
    assert_eq!(*disk.flushes.lock(), 0);
    assert_eq!(request(&mut rig, T_FLUSH, 0, &[], false), (S_OK, 1));
    assert_eq!(*disk.flushes.lock(), 1);
    // Write-through by the driver's choice.
    rig.set_device(WRITEBACK as u64, 1, 0);
    request(&mut rig, T_OUT, 8, &[(DATA, 512)], false);
    assert_eq!(*disk.flushes.lock(), 2);
    // Larger than what goes through the host at once.
    assert_eq!(
        request(&mut rig, T_IN, 0, &[(DATA, 3 << 20)], true),
        (S_OK, (3 << 20) + 1)
    );
    assert_eq!(bytes(&rig, DATA, 3 << 20), disk.data.lock()[..3 << 20]);
}

#[test]
fn identification_discard_and_zeroes() {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let mut rig = rig(&disk);
    assert_eq!(
        request(&mut rig, T_GET_ID, 0, &[(DATA, 20)], true),
        (S_OK, 21)
    );
    assert_eq!(&bytes(&rig, DATA, 5), b"S-1\0\0");
    let range = |rig: &Rig, sector: u64, count: u32, flags: u32| {
        rig.dma.write_u64(DATA, sector).unwrap();
        rig.dma
            .write_u64(DATA + 8, u64::from(flags) << 32 | u64::from(count))
            .unwrap();
    };
    range(&rig, 2, 1, 0);
    assert_eq!(
        request(&mut rig, T_DISCARD, 0, &[(DATA, 16)], false).0,
        S_OK
    );
    assert_eq!(disk.data.lock()[1024..1536], [0xdd; 512]);
    range(&rig, 3, 2, RANGE_UNMAP);
    assert_eq!(
        request(&mut rig, T_WRITE_ZEROES, 0, &[(DATA, 16)], false).0,
        S_OK
    );
    assert_eq!(disk.data.lock()[1536..2560], [0; 1024]);
    assert_eq!(disk.data.lock()[2560], 5);
    assert_eq!(
        request(&mut rig, T_DISCARD, 0, &[(DATA, 16)], false).0,
        S_UNSUPP,
        "a flag of zeroes only"
    );
    range(&rig, 2047, 2, 0);
    assert_eq!(
        request(&mut rig, T_WRITE_ZEROES, 0, &[(DATA, 16)], false).0,
        S_IOERR
    );
    assert_eq!(
        request(&mut rig, T_WRITE_ZEROES, 0, &[(DATA, 12)], false).0,
        S_IOERR
    );
}

#[test]
fn what_cannot_be_fails() {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let mut rig = rig(&disk);
    assert_eq!(
        request(&mut rig, T_IN, 2047, &[(DATA, 1024)], true),
        (S_IOERR, 0)
    );
    assert_eq!(
        request(&mut rig, T_IN, u64::MAX, &[(DATA, 512)], true).0,
        S_IOERR
    );
    assert_eq!(request(&mut rig, T_IN, 0, &[(DATA, 500)], true).0, S_IOERR);
    assert_eq!(
        request(&mut rig, T_OUT, 2048, &[(DATA, 512)], false).0,
        S_IOERR
    );
    assert_eq!(
        request(&mut rig, T_IN, 0, &[(0x100, 512)], true).0,
        S_IOERR,
        "not in RAM"
    );
    assert_eq!(request(&mut rig, 99, 0, &[], false).0, S_UNSUPP);
    disk.fail.store(true, Ordering::SeqCst);
    assert_eq!(request(&mut rig, T_IN, 0, &[(DATA, 512)], true).0, S_IOERR);
    assert_eq!(request(&mut rig, T_FLUSH, 0, &[], false).0, S_IOERR);
    disk.fail.store(false, Ordering::SeqCst);
    // A read-only disk.
    let config = BlockConfig {
        read_only: true,
        ..BlockConfig::default()
    };
    let mut rig = rig_with(config, &disk);
    assert_eq!(
        rig.features() & (feature::RO | feature::DISCARD | feature::WRITE_ZEROES),
        feature::RO
    );
    assert!(!rig.negotiate(FEATURES), "features that were not offered");
    assert!(rig.negotiate(ring::VERSION_1 | feature::RO));
    rig.go(64);
    assert_eq!(
        request(&mut rig, T_OUT, 0, &[(DATA, 512)], false).0,
        S_IOERR
    );
    // Options.
    for config in [
        BlockConfig {
            num_queues: 0,
            ..BlockConfig::default()
        },
        BlockConfig {
            queue_size: 100,
            ..BlockConfig::default()
        },
        BlockConfig {
            logical_block_size: Some(1000),
            ..BlockConfig::default()
        },
    ] {
        assert!(Block::new("disk", config, disk.clone()).is_err());
    }
}

#[test]
fn blocks_of_4096_bytes() {
    let disk = Arc::new(TestDisk::new((1 << 20) + 512));
    let config = BlockConfig {
        logical_block_size: Some(4096),
        ..BlockConfig::default()
    };
    let mut rig = rig_with(config, &disk);
    assert!(rig.negotiate(FEATURES));
    rig.go(64);
    assert_eq!(rig.device(CAPACITY as u64, 8), 2048);
    assert_eq!(rig.device(BLK_SIZE as u64, 4), 4096);
    assert_eq!(request(&mut rig, T_IN, 8, &[(DATA, 4096)], true).0, S_OK);
    assert_eq!(request(&mut rig, T_IN, 4, &[(DATA, 4096)], true).0, S_IOERR);
}

#[test]
fn the_legacy_interface() {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let mut rig = rig_with(BlockConfig::default(), &disk);
    rig.go_legacy(feature::FLUSH);
    assert_eq!(rig.device(CAPACITY as u64, 8), 2048);
    // Header, data and status in one descriptor each way do as well.
    header(&rig, T_IN, 7);
    rig.submit(0, 0, &chain(&[(DATA, 512)], true));
    rig.notify(0);
    assert_eq!(rig.wait(0), (0, 513));
    assert_eq!(bytes(&rig, DATA, 512), [7; 512]);
    wait_for("interrupt", || rig.line.load(Ordering::SeqCst));
    assert_eq!(rig.port(crate::spec::legacy::ISR_STATUS, 1), 1);
    assert!(!rig.line.load(Ordering::SeqCst));
    assert_eq!(rig.port(crate::spec::legacy::ISR_STATUS, 1), 0);
    // With MSI-X the configuration moves behind the vectors.
    rig.enable_msix();
    assert_eq!(rig.device(CAPACITY as u64, 8), 2048);
    rig.set_port(crate::spec::legacy::QUEUE_MSIX_VECTOR, 2, 1);
    header(&rig, T_IN, 7);
    rig.submit(0, 0, &chain(&[(DATA, 512)], true));
    rig.notify(0);
    rig.wait(0);
    wait_for("message", || rig.sent.lock().iter().any(|m| m.data == 101));
}

#[test]
fn several_queues_and_a_deep_one() {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let mut rig = rig_with(
        BlockConfig {
            num_queues: 3,
            ..BlockConfig::default()
        },
        &disk,
    );
    rig.enable_msix();
    assert!(rig.negotiate(FEATURES | feature::MQ));
    rig.go(64);
    for queue in 0..3 {
        for slot in 0..20u64 {
            let header = HEADER + slot * 32;
            rig.dma.write_u64(header, T_IN.into()).unwrap();
            rig.dma.write_u64(header + 8, slot).unwrap();
            rig.dma.write(header + 16, &[0xee]).unwrap();
            let chain = [
                (header, 16, false),
                (DATA + slot * 512, 512, true),
                (header + 16, 1, true),
            ]
            .map(|(address, length, writable)| Buffer {
                address,
                length,
                writable,
            });
            rig.submit(queue, slot as u16 * 3, &chain);
        }
        rig.dma.fill(DATA, 20 * 512, 0xff).unwrap();
        rig.notify(queue as u16);
        let mut heads: Vec<u16> = (0..20).map(|_| rig.wait(queue).0).collect();
        heads.sort_unstable();
        assert_eq!(heads, (0..20).map(|i| i * 3).collect::<Vec<_>>());
        assert_eq!(bytes(&rig, DATA, 20 * 512), disk.data.lock()[..20 * 512]);
        let vector = 101 + queue as u32;
        wait_for("message", || {
            rig.sent.lock().iter().any(|m| m.data == vector)
        });
        assert!(rig.sent.lock().iter().filter(|m| m.data == vector).count() <= 20);
    }
}

#[test]
fn a_reset_drops_what_is_in_flight() {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let mut rig = rig(&disk);
    disk.hold();
    header(&rig, T_IN, 9);
    rig.dma.fill(DATA, 512, 0x11).unwrap();
    rig.submit(0, 0, &chain(&[(DATA, 512)], true));
    rig.notify(0);
    wait_for("request in the disk", || *disk.waiting.lock() == 1);
    // Does not wait for the disk.
    assert!(rig.negotiate(FEATURES));
    rig.go(64);
    header(&rig, T_FLUSH, 0);
    rig.submit(0, 0, &chain(&[], false));
    rig.notify(0);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(rig.used_index(0), 0, "the new epoch waits for the old one");
    disk.release();
    assert_eq!(rig.wait(0), (0, 1));
    assert_eq!(rig.used_index(0), 1);
    assert_eq!(
        bytes(&rig, DATA, 512),
        [0x11; 512],
        "the old read went nowhere"
    );
    assert_eq!(
        request(&mut rig, T_IN, 1, &[(DATA, 512)], true),
        (S_OK, 513)
    );
}

#[test]
fn a_snapshot_goes_on_where_it_was() {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let mut rig = rig(&disk);
    request(&mut rig, T_IN, 1, &[(DATA, 512)], true);
    rig.set_device(WRITEBACK as u64, 1, 0);
    rig.function.pause();
    header(&rig, T_IN, 6);
    rig.submit(0, 0, &chain(&[(DATA, 512)], true));
    rig.notify(0);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(rig.used_index(0), 1, "paused");
    let state = rig.function.state();
    device::Device::reset(&*rig.function);
    assert_eq!(rig.used_index(0), 1);
    rig.function.restore(state.clone()).unwrap();
    assert_eq!(rig.function.state(), state);
    rig.function.resume();
    assert_eq!(rig.wait(0), (0, 513));
    assert_eq!(bytes(&rig, DATA, 512), [6; 512]);
    assert_eq!(rig.device(spec::WRITEBACK as u64, 1), 0);
}

#[test]
fn without_bus_mastering_there_is_no_dma() {
    let disk = Arc::new(TestDisk::new(1 << 20));
    let mut rig = rig(&disk);
    rig.set_config(4, 2, 3);
    header(&rig, T_IN, 6);
    rig.submit(0, 0, &chain(&[(DATA, 512)], true));
    rig.notify(0);
    std::thread::sleep(std::time::Duration::from_millis(5));
    assert_eq!(rig.used_index(0), 0);
    rig.set_config(4, 2, 7);
    assert_eq!(rig.wait(0), (0, 513));
    assert_eq!(rig.status() & status::DEVICE_NEEDS_RESET, 0);
}
