use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use device::{Access, Device, Line, Mmio, Msi};
use memory::{Dma, Ram};
use parking_lot::{Condvar, Mutex};
use pci::{Bus, BusConfig};
use proptest::prelude::*;
use storage::Disk;

use crate::spec::{self, Status, admin, cns, csts, feature, log, nvm, register};
use crate::{Nvme, NvmeConfig};

const RAM: u64 = 0x4000_0000;
const RAM_SIZE: u64 = 0x80_0000;
const ADMIN_SQ: u64 = RAM;
const ADMIN_CQ: u64 = RAM + 0x1000;
const IO_SQ: u64 = RAM + 0x2000;
const IO_CQ: u64 = RAM + 0x3000;
const LIST: u64 = RAM + 0x8000;
const DATA: u64 = RAM + 0x10_0000;
/// Entries of the queues here.
const ENTRIES: u32 = 16;
const CC: u64 = 6 << 16 | 4 << 20 | 1;

#[derive(Default)]
struct TestDisk {
    data: Mutex<Vec<u8>>,
    flushes: AtomicU32,
    held: Mutex<bool>,
    release: Condvar,
    waiting: AtomicU32,
    fail: AtomicBool,
}

impl TestDisk {
    fn new(size: usize) -> Arc<TestDisk> {
        let data = (0..size).map(|i| (i / 512) as u8).collect();
        Arc::new(TestDisk {
            data: Mutex::new(data),
            ..TestDisk::default()
        })
    }

    fn hold(&self, held: bool) {
        *self.held.lock() = held;
        self.release.notify_all();
    }

    fn span(&self, offset: u64, length: usize) -> io::Result<std::ops::Range<usize>> {
        let mut held = self.held.lock();
        while *held {
            self.waiting.fetch_add(1, Ordering::SeqCst);
            self.release.wait(&mut held);
        }
        if self.fail.load(Ordering::SeqCst) {
            return Err(io::Error::other("made to fail"));
        }
        match usize::try_from(offset)
            .ok()
            .and_then(|o| o.checked_add(length))
        {
            Some(end) if end as u64 <= self.size() => Ok(offset as usize..end),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Disk for TestDisk {
    fn size(&self) -> u64 {
        self.data.lock().len() as u64
    }

    fn read_only(&self) -> bool {
        false
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let span = self.span(offset, into.len())?;
        into.copy_from_slice(&self.data.lock()[span]);
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        let span = self.span(offset, from.len())?;
        self.data.lock()[span].copy_from_slice(from);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.span(0, 0)?;
        self.flushes.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let span = self.span(offset, length as usize)?;
        self.data.lock()[span].fill(0xdd);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> io::Result<()> {
        let span = self.span(offset, length as usize)?;
        self.data.lock()[span].fill(0);
        Ok(())
    }
}

/// A queue pair as the driver sees it.
#[derive(Clone, Copy)]
struct Pair {
    id: u64,
    sq: u64,
    cq: u64,
    tail: u32,
    head: u32,
    phase: bool,
    next_command: u16,
}

impl Pair {
    fn new(id: u64, sq: u64, cq: u64) -> Pair {
        Pair {
            id,
            sq,
            cq,
            tail: 0,
            head: 0,
            phase: true,
            next_command: 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Completion {
    command: u16,
    value: u32,
    status: u16,
    sq_head: u16,
}

/// A driver.
struct Rig {
    nvme: Arc<Nvme>,
    dma: Dma,
    admin: Pair,
    io: Pair,
    bar: Arc<dyn Mmio>,
    ecam: Arc<dyn Mmio>,
    sent: Arc<Mutex<Vec<Msi>>>,
    line: Arc<AtomicBool>,
}

impl Rig {
    fn new(disk: &Arc<TestDisk>) -> Rig {
        Rig::with(
            NvmeConfig {
                serial: "S1".into(),
                ..NvmeConfig::default()
            },
            disk,
        )
    }

    fn with(config: NvmeConfig, disk: &Arc<TestDisk>) -> Rig {
        let ram = Ram::new(&[(RAM, RAM_SIZE)]).unwrap();
        let nvme = Nvme::new(config, disk.clone(), ram.dma()).unwrap();
        let sent = Arc::new(Mutex::new(Vec::new()));
        let messages = sent.clone();
        let probes = [(); 4].map(|()| Line::probe());
        let line = probes[2].1.clone();
        let bus = Bus::new(
            BusConfig::default(),
            Arc::new(move |m| messages.lock().push(m)),
            probes.map(|p| p.0),
        );
        assert_eq!(bus.plug(None, nvme.clone()), Ok(2));
        let rig = Rig {
            nvme,
            dma: ram.dma(),
            admin: Pair::new(0, ADMIN_SQ, ADMIN_CQ),
            io: Pair::new(1, IO_SQ, IO_CQ),
            bar: bus.mem64_window(),
            ecam: bus.ecam(),
            sent,
            line,
        };
        rig.config_write(0x10, 8, 0x80_0000_0000);
        rig.config_write(4, 2, 6);
        rig
    }

    fn config_read(&self, register: u64, width: u8) -> u64 {
        self.ecam.read(Access::new(2 << 15 | register, width)) & Access::new(0, width).mask()
    }

    fn config_write(&self, register: u64, width: u8, value: u64) {
        self.ecam
            .write(Access::new(2 << 15 | register, width), value);
    }

    fn get(&self, offset: u64) -> u32 {
        self.bar.read(Access::new(offset, 4)) as u32
    }

    fn set(&self, offset: u64, value: u64) {
        self.bar.write(Access::new(offset, 4), value);
    }

    fn enable(&mut self) {
        self.set(register::CC, 0);
        assert_eq!(self.get(register::CSTS), 0);
        self.admin = Pair::new(0, ADMIN_SQ, ADMIN_CQ);
        self.io = Pair::new(1, IO_SQ, IO_CQ);
        self.dma.fill(RAM, 0x4000, 0).unwrap();
        self.set(register::AQA, u64::from(ENTRIES - 1) * 0x1_0001);
        self.bar.write(Access::new(register::ASQ, 8), ADMIN_SQ);
        self.set(register::ACQ, ADMIN_CQ);
        self.set(register::ACQ + 4, 0);
        self.set(register::CC, CC);
        assert_eq!(self.get(register::CSTS), csts::RDY);
    }

    fn create_io(&mut self) {
        let size = u64::from(ENTRIES - 1) << 16;
        let cq = command(
            admin::CREATE_CQ,
            0,
            IO_CQ,
            0,
            &[1 | size as u32, 1 << 16 | 3],
        );
        assert_eq!(self.run_admin(cq).status, 0);
        let sq = command(
            admin::CREATE_SQ,
            0,
            IO_SQ,
            0,
            &[1 | size as u32, 1 << 16 | 1],
        );
        assert_eq!(self.run_admin(sq).status, 0);
    }

    fn ready(disk: &Arc<TestDisk>) -> Rig {
        let mut rig = Rig::new(disk);
        rig.enable();
        rig.create_io();
        rig
    }

    fn enable_msix(&self) {
        let mut at = self.config_read(0x34, 1);
        while self.config_read(at, 1) != 0x11 {
            at = self.config_read(at + 1, 1);
        }
        for vector in 0..=(self.config_read(at + 2, 2) & 0x7ff) {
            for (field, value) in [(0, 0x0802_0040), (4, 0), (8, 100 + vector), (12, 0)] {
                self.set(0x2000 + vector * 16 + field, value);
            }
        }
        self.config_write(at + 2, 2, 0x8000);
    }

    /// Puts a command into a queue without ringing. Gives its identifier.
    fn put(dma: &Dma, pair: &mut Pair, mut dwords: [u32; 16]) -> u16 {
        let id = pair.next_command;
        pair.next_command = pair.next_command.wrapping_add(1);
        dwords[0] = dwords[0] & 0xffff | u32::from(id) << 16;
        for (i, dword) in dwords.iter().enumerate() {
            dma.write_u32(pair.sq + u64::from(pair.tail) * 64 + i as u64 * 4, *dword)
                .unwrap();
        }
        pair.tail = (pair.tail + 1) % ENTRIES;
        id
    }

    fn ring(&self, pair: Pair) {
        self.set(register::DOORBELLS + pair.id * 8, pair.tail.into());
    }

    fn has_completion(&self, pair: Pair) -> bool {
        let word = self
            .dma
            .read_u32(pair.cq + u64::from(pair.head) * 16 + 12)
            .unwrap();
        (word >> 16 & 1 != 0) == pair.phase
    }

    fn take(&self, pair: &mut Pair) -> Completion {
        wait_for("completion", || self.has_completion(*pair));
        let at = pair.cq + u64::from(pair.head) * 16;
        let [value, _, middle, last] = [0, 4, 8, 12].map(|o| self.dma.read_u32(at + o).unwrap());
        pair.head = (pair.head + 1) % ENTRIES;
        pair.phase ^= pair.head == 0;
        self.set(register::DOORBELLS + pair.id * 8 + 4, pair.head.into());
        assert_eq!(u64::from(middle >> 16), pair.id);
        let status = (last >> 17) as u16;
        Completion {
            command: last as u16,
            value,
            status: status & 0x3fff,
            sq_head: middle as u16,
        }
    }

    fn run_admin(&mut self, dwords: [u32; 16]) -> Completion {
        let mut pair = self.admin;
        let id = Rig::put(&self.dma, &mut pair, dwords);
        self.ring(pair);
        let completion = self.take(&mut pair);
        self.admin = pair;
        assert_eq!(completion.command, id);
        completion
    }

    fn run_io(&mut self, dwords: [u32; 16]) -> u16 {
        let mut pair = self.io;
        let id = Rig::put(&self.dma, &mut pair, dwords);
        self.ring(pair);
        let completion = self.take(&mut pair);
        self.io = pair;
        assert_eq!(completion.command, id);
        completion.status
    }

    fn bytes(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.dma.read(address, &mut bytes).unwrap();
        bytes
    }

    fn identify(&mut self, cns: u8, namespace: u32) -> (u16, Vec<u8>) {
        let status = self
            .run_admin(command(admin::IDENTIFY, namespace, DATA, 0, &[cns.into()]))
            .status;
        (status, self.bytes(DATA, 4096))
    }
}

/// A command with PRPs and dwords from 10 on.
fn command(opcode: u8, namespace: u32, prp1: u64, prp2: u64, dwords: &[u32]) -> [u32; 16] {
    let mut command = [0; 16];
    command[0] = opcode.into();
    command[1] = namespace;
    for (i, prp) in [prp1, prp2].into_iter().enumerate() {
        command[6 + i * 2] = prp as u32;
        command[7 + i * 2] = (prp >> 32) as u32;
    }
    command[10..10 + dwords.len()].copy_from_slice(dwords);
    command
}

/// An I/O command on `blocks` blocks from `lba`.
fn transfer(opcode: u8, prp1: u64, prp2: u64, lba: u64, blocks: u32) -> [u32; 16] {
    command(
        opcode,
        1,
        prp1,
        prp2,
        &[lba as u32, (lba >> 32) as u32, blocks - 1],
    )
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "no {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}

#[test]
fn registers_and_identity() {
    let rig = Rig::new(&TestDisk::new(1 << 20));
    assert_eq!(rig.config_read(0, 4), 0x0010_1b36);
    assert_eq!(rig.config_read(8, 4), 0x0108_0202);
    assert_eq!(rig.config_read(0x2c, 4), 0x1100_1af4);
    let cap = rig.bar.read(Access::new(register::CAP, 8));
    assert_eq!(cap & 0xffff, 2047);
    assert_eq!(cap >> 37 & 1, 1, "NVM command set");
    assert_eq!(cap >> 32 & 31, 0, "doorbell stride and NSSRS");
    assert_eq!(rig.get(register::VS), 0x1_0400);
    // Not ready: doorbells do nothing. Without queues it cannot be.
    rig.set(register::DOORBELLS, 5);
    rig.set(register::CC, CC);
    assert_eq!(rig.get(register::CSTS), csts::CFS);
    rig.set(register::CC, 0);
    assert_eq!(rig.get(register::CSTS), 0);
}

#[test]
fn identify() {
    let mut rig = Rig::new(&TestDisk::new(1 << 20));
    rig.enable();
    let (status, page) = rig.identify(cns::CONTROLLER, 0);
    assert_eq!(status, 0);
    assert_eq!(&page[4..24], b"S1                  ");
    assert_eq!(page[77], 7);
    assert_eq!((page[512], page[513]), (0x66, 0x44));
    assert!(page[768..].starts_with(b"nqn.2014-08.org.nvmexpress:uuid:"));
    let (status, page) = rig.identify(cns::NAMESPACE, 1);
    assert_eq!(status, 0);
    assert_eq!(page[0..8], 2048u64.to_le_bytes());
    assert_eq!(page[130], 9);
    let (_, page) = rig.identify(cns::ACTIVE_NAMESPACES, 0);
    assert_eq!(page[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    let (_, page) = rig.identify(cns::ACTIVE_NAMESPACES, 1);
    assert_eq!(page[..4], [0; 4]);
    let (_, page) = rig.identify(cns::NAMESPACE_DESCRIPTORS, 1);
    assert_eq!((page[0], page[1], page[12], page[13]), (1, 8, 3, 16));
    assert_eq!(
        rig.identify(cns::NAMESPACE, 2).0,
        Status::INVALID_NAMESPACE.0
    );
    assert_eq!(rig.identify(0x44, 0).0, Status::INVALID_FIELD.0);
    assert_eq!(
        rig.run_admin(command(0x80, 1, 0, 0, &[])).status,
        Status::INVALID_OPCODE.0,
        "Format NVM"
    );
}

#[test]
fn reads_and_writes_through_all_kinds_of_prps() {
    let disk = TestDisk::new(4 << 20);
    let mut rig = Rig::ready(&disk);
    // One page, with an offset; two pages.
    assert_eq!(rig.run_io(transfer(nvm::READ, DATA + 0x200, 0, 5, 2)), 0);
    assert_eq!(
        rig.bytes(DATA + 0x200, 1024),
        disk.data.lock()[5 * 512..7 * 512]
    );
    assert_eq!(
        rig.run_io(transfer(nvm::READ, DATA + 0xe00, DATA + 0x4000, 9, 8)),
        0
    );
    assert_eq!(
        rig.bytes(DATA + 0xe00, 512),
        disk.data.lock()[9 * 512..10 * 512]
    );
    assert_eq!(
        rig.bytes(DATA + 0x4000, 3584),
        disk.data.lock()[10 * 512..17 * 512]
    );
    // A list that begins near the end of its page and goes on in another.
    let pages: Vec<u64> = (0..128).map(|i| DATA + (127 - i) * 0x1000).collect();
    for (i, page) in pages[1..].iter().enumerate() {
        let at = if i < 3 {
            LIST + 0xfe0 + i as u64 * 8
        } else {
            LIST + 0x2000 + (i as u64 - 3) * 8
        };
        rig.dma.write_u64(at, *page).unwrap();
    }
    rig.dma.write_u64(LIST + 0xff8, LIST + 0x2000).unwrap();
    assert_eq!(
        rig.run_io(transfer(nvm::READ, pages[0], LIST + 0xfe0, 100, 1024)),
        0
    );
    for (i, page) in pages.iter().enumerate() {
        let start = 100 * 512 + i * 4096;
        assert_eq!(
            rig.bytes(*page, 4096),
            disk.data.lock()[start..start + 4096],
            "page {i}"
        );
    }
    // And back.
    assert_eq!(
        rig.run_io(transfer(nvm::WRITE, pages[0], LIST + 0xfe0, 4096, 1024)),
        0
    );
    let data = disk.data.lock();
    assert_eq!(
        data[4096 * 512..][..512 << 10],
        data[100 * 512..][..512 << 10]
    );
}

#[test]
fn what_cannot_be_fails() {
    let disk = TestDisk::new(1 << 20);
    let mut rig = Rig::ready(&disk);
    let mut status = |dwords| Status(rig.run_io(dwords));
    assert_eq!(
        status(transfer(nvm::READ, DATA, 0, 2047, 2)),
        Status::LBA_OUT_OF_RANGE
    );
    assert_eq!(
        status(transfer(nvm::READ, DATA, 0, u64::MAX, 1)),
        Status::LBA_OUT_OF_RANGE
    );
    assert_eq!(
        status(transfer(nvm::READ, DATA, LIST, 0, 1025)),
        Status::INVALID_FIELD,
        "past MDTS"
    );
    assert_eq!(
        status(transfer(nvm::READ, DATA, DATA + 8, 0, 16)),
        Status::INVALID_PRP_OFFSET
    );
    assert_eq!(
        status(transfer(nvm::READ, DATA + 1, 0, 0, 1)),
        Status::INVALID_PRP_OFFSET
    );
    assert_eq!(
        status(transfer(nvm::READ, 0x1000, 0, 0, 1)),
        Status::DATA_TRANSFER_ERROR
    );
    assert_eq!(
        status(transfer(nvm::READ, DATA, u64::MAX - 7, 0, 64)),
        Status::DATA_TRANSFER_ERROR
    );
    assert_eq!(
        status(command(nvm::READ, 2, DATA, 0, &[])),
        Status::INVALID_NAMESPACE
    );
    assert_eq!(status(command(0x7f, 1, 0, 0, &[])), Status::INVALID_OPCODE);
    let mut sgl = transfer(nvm::READ, DATA, 0, 0, 1);
    sgl[0] |= 1 << 14;
    assert_eq!(status(sgl), Status::INVALID_FIELD);
    disk.fail.store(true, Ordering::SeqCst);
    assert_eq!(
        status(transfer(nvm::READ, DATA, 0, 0, 1)),
        Status::UNRECOVERED_READ_ERROR
    );
    assert_eq!(
        status(transfer(nvm::WRITE, DATA, 0, 0, 1)),
        Status::WRITE_FAULT
    );
    disk.fail.store(false, Ordering::SeqCst);
    // All of that is in the error log, the latest first.
    let page = command(
        admin::GET_LOG_PAGE,
        0xffff_ffff,
        DATA,
        0,
        &[255 << 16 | u32::from(log::ERRORS)],
    );
    assert_eq!(rig.run_admin(page).status, 0);
    let entries = rig.bytes(DATA, 1024);
    assert_eq!(entries[0..8], 12u64.to_le_bytes());
    assert_eq!(
        u16::from_le_bytes([entries[12], entries[13]]) >> 1 & 0x7ff,
        Status::WRITE_FAULT.0
    );
    assert_eq!(entries[11 * 64..11 * 64 + 8], 1u64.to_le_bytes());
    let config = NvmeConfig {
        read_only: true,
        ..NvmeConfig::default()
    };
    let mut rig = Rig::with(config, &disk);
    rig.enable();
    rig.create_io();
    assert_eq!(
        Status(rig.run_io(transfer(nvm::WRITE, DATA, 0, 0, 1))),
        Status::WRITE_PROTECTED
    );
    let long = NvmeConfig {
        serial: "123456789012345678901".into(),
        ..NvmeConfig::default()
    };
    assert!(Nvme::new(long, disk, rig.dma.clone()).is_err());
}

#[test]
fn the_other_commands() {
    let disk = TestDisk::new(1 << 20);
    let mut rig = Rig::ready(&disk);
    assert_eq!(rig.run_io(command(nvm::FLUSH, 1, 0, 0, &[])), 0);
    assert_eq!(rig.run_io(command(nvm::FLUSH, 0xffff_ffff, 0, 0, &[])), 0);
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 2);
    rig.dma.fill(DATA, 512, 0x77).unwrap();
    let mut fua = transfer(nvm::WRITE, DATA, 0, 1, 1);
    fua[12] |= nvm::FUA;
    assert_eq!(rig.run_io(fua), 0);
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 3);
    assert_eq!(rig.run_io(transfer(nvm::COMPARE, DATA, 0, 1, 1)), 0);
    assert_eq!(
        rig.run_io(transfer(nvm::COMPARE, DATA, 0, 2, 1)),
        Status::COMPARE_FAILURE.0
    );
    assert_eq!(rig.run_io(transfer(nvm::WRITE_ZEROES, 0, 0, 1, 2)), 0);
    assert_eq!(disk.data.lock()[512..1536], [0; 1024]);
    for (i, (length, lba)) in [(1u32, 4u64), (2, 8)].into_iter().enumerate() {
        rig.dma.write_u32(DATA + i as u64 * 16 + 4, length).unwrap();
        rig.dma.write_u64(DATA + i as u64 * 16 + 8, lba).unwrap();
    }
    let deallocate = command(nvm::DATASET_MANAGEMENT, 1, DATA, 0, &[1, nvm::AD]);
    assert_eq!(rig.run_io(deallocate), 0);
    assert_eq!(disk.data.lock()[4 * 512..5 * 512], [0xdd; 512]);
    assert_eq!(disk.data.lock()[5 * 512], 5);
    assert_eq!(disk.data.lock()[8 * 512..10 * 512], [0xdd; 1024]);
    // The write cache off: every write is flushed.
    let cache = u32::from(feature::VOLATILE_WRITE_CACHE);
    assert_eq!(
        rig.run_admin(command(admin::GET_FEATURES, 0, 0, 0, &[cache]))
            .value,
        1
    );
    assert_eq!(
        rig.run_admin(command(admin::SET_FEATURES, 0, 0, 0, &[cache, 0]))
            .status,
        0
    );
    let before = disk.flushes.load(Ordering::SeqCst);
    assert_eq!(rig.run_io(transfer(nvm::WRITE, DATA, 0, 1, 1)), 0);
    assert_eq!(disk.flushes.load(Ordering::SeqCst), before + 1);
}

#[test]
fn features_and_logs() {
    let mut rig = Rig::new(&TestDisk::new(1 << 20));
    rig.enable();
    let queues = u32::from(feature::NUMBER_OF_QUEUES);
    let set = command(admin::SET_FEATURES, 0, 0, 0, &[queues, 0x0003_0003]);
    assert_eq!(rig.run_admin(set).value, 0x003f_003f);
    rig.create_io();
    assert_eq!(rig.run_admin(set).status, Status::COMMAND_SEQUENCE_ERROR.0);
    for (id, value) in [
        (feature::ARBITRATION, 3),
        (feature::TEMPERATURE_THRESHOLD, 350),
        (feature::INTERRUPT_COALESCING, 0x0102),
        (feature::WRITE_ATOMICITY, 1),
        (feature::ASYNC_EVENTS, 0x1f),
    ] {
        let set = command(admin::SET_FEATURES, 0, 0, 0, &[id.into(), value]);
        assert_eq!(rig.run_admin(set).status, 0, "{id:#x}");
        assert_eq!(
            rig.run_admin(command(admin::GET_FEATURES, 0, 0, 0, &[id.into()]))
                .value,
            value
        );
    }
    let save = command(admin::SET_FEATURES, 0, 0, 0, &[1 << 31 | 1, 0]);
    assert_eq!(rig.run_admin(save).status, Status::FEATURE_NOT_SAVEABLE.0);
    assert_eq!(
        rig.run_admin(command(admin::GET_FEATURES, 0, 0, 0, &[0x7f]))
            .status,
        Status::INVALID_FIELD.0
    );
    rig.run_io(transfer(nvm::READ, DATA, 0, 0, 1));
    let page = |id: u8, offset: u32| {
        command(
            admin::GET_LOG_PAGE,
            0xffff_ffff,
            DATA,
            0,
            &[127 << 16 | u32::from(id), 0, offset],
        )
    };
    assert_eq!(rig.run_admin(page(log::SMART, 0)).status, 0);
    let smart = rig.bytes(DATA, 512);
    assert_eq!(u16::from_le_bytes([smart[1], smart[2]]), spec::TEMPERATURE);
    assert_eq!((smart[32], smart[64]), (1, 1));
    assert_eq!(rig.run_admin(page(log::FIRMWARE_SLOT, 0)).status, 0);
    assert_eq!(&rig.bytes(DATA + 8, 3), b"1.0");
    assert_eq!(rig.run_admin(page(log::COMMAND_EFFECTS, 1024)).status, 0);
    assert_eq!(rig.bytes(DATA + 4, 1), [3]);
    assert_eq!(
        rig.run_admin(page(0x70, 0)).status,
        Status::INVALID_LOG_PAGE.0
    );
    assert_eq!(
        rig.run_admin(page(log::SMART, 516)).status,
        Status::INVALID_FIELD.0
    );
    assert_eq!(rig.run_admin(command(admin::ABORT, 0, 0, 0, &[1])).value, 1);
}

#[test]
fn queues_are_made_and_deleted() {
    let disk = TestDisk::new(1 << 20);
    let mut rig = Rig::ready(&disk);
    let mut create = |opcode, id: u32, size: u32, base, dword11| {
        Status(
            rig.run_admin(command(opcode, 0, base, 0, &[size << 16 | id, dword11]))
                .status,
        )
    };
    assert_eq!(
        create(admin::CREATE_CQ, 1, 7, IO_CQ, 3),
        Status::INVALID_QUEUE_ID
    );
    assert_eq!(
        create(admin::CREATE_CQ, 0, 7, IO_CQ, 3),
        Status::INVALID_QUEUE_ID
    );
    assert_eq!(
        create(admin::CREATE_CQ, 65, 7, IO_CQ, 3),
        Status::INVALID_QUEUE_ID
    );
    assert_eq!(
        create(admin::CREATE_CQ, 2, 0, IO_CQ, 3),
        Status::INVALID_QUEUE_SIZE
    );
    assert_eq!(
        create(admin::CREATE_CQ, 2, 2048, IO_CQ, 3),
        Status::INVALID_QUEUE_SIZE
    );
    assert_eq!(
        create(admin::CREATE_CQ, 2, 7, IO_CQ + 4, 3),
        Status::INVALID_PRP_OFFSET
    );
    assert_eq!(
        create(admin::CREATE_CQ, 2, 7, IO_CQ, 2),
        Status::INVALID_FIELD
    );
    assert_eq!(
        create(admin::CREATE_CQ, 2, 7, IO_CQ, 65 << 16 | 3),
        Status::INVALID_INTERRUPT_VECTOR
    );
    assert_eq!(
        create(admin::CREATE_SQ, 2, 7, IO_SQ, 2 << 16 | 1),
        Status::CQ_INVALID
    );
    assert_eq!(
        create(admin::CREATE_SQ, 2, 7, IO_SQ, 1),
        Status::INVALID_QUEUE_ID
    );
    let delete = |opcode, id| command(opcode, 0, 0, 0, &[id]);
    assert_eq!(
        rig.run_admin(delete(admin::DELETE_CQ, 1)).status,
        Status::INVALID_QUEUE_DELETION.0
    );
    assert_eq!(
        rig.run_admin(delete(admin::DELETE_SQ, 0)).status,
        Status::INVALID_QUEUE_ID.0
    );
    // The deletion waits for what is in flight.
    disk.hold(true);
    let mut io = rig.io;
    Rig::put(&rig.dma, &mut io, transfer(nvm::READ, DATA, 0, 0, 1));
    rig.ring(io);
    wait_for("read", || disk.waiting.load(Ordering::SeqCst) == 1);
    let mut pair = rig.admin;
    Rig::put(&rig.dma, &mut pair, delete(admin::DELETE_SQ, 1));
    rig.ring(pair);
    std::thread::sleep(Duration::from_millis(10));
    assert!(!rig.has_completion(pair));
    disk.hold(false);
    assert_eq!(rig.take(&mut pair).status, 0);
    assert_eq!(rig.take(&mut io).status, 0);
    rig.admin = pair;
    assert_eq!(
        rig.run_admin(delete(admin::DELETE_SQ, 1)).status,
        Status::INVALID_QUEUE_ID.0
    );
    assert_eq!(rig.run_admin(delete(admin::DELETE_CQ, 1)).status, 0);
    rig.io = Pair::new(1, IO_SQ, IO_CQ);
    rig.dma.fill(IO_SQ, 0x2000, 0).unwrap();
    rig.create_io();
    assert_eq!(rig.run_io(transfer(nvm::READ, DATA, 0, 0, 1)), 0);
}

#[test]
fn a_full_completion_queue_holds_commands_back() {
    let disk = TestDisk::new(1 << 20);
    let rig = Rig::ready(&disk);
    let mut pair = rig.io;
    let mut seen = Vec::new();
    for round in 0..5u64 {
        for i in 0..15 {
            Rig::put(
                &rig.dma,
                &mut pair,
                transfer(nvm::READ, DATA + i * 512, 0, round * 15 + i, 1),
            );
        }
        rig.ring(pair);
        wait_for("15 completions", || {
            let mut last = pair;
            last.phase ^= last.head + 14 >= ENTRIES;
            last.head = (last.head + 14) % ENTRIES;
            rig.has_completion(last)
        });
        // The queue is full; what comes now has to wait.
        Rig::put(&rig.dma, &mut pair, command(nvm::FLUSH, 1, 0, 0, &[]));
        rig.ring(pair);
        std::thread::sleep(Duration::from_millis(2));
        assert_eq!(disk.flushes.load(Ordering::SeqCst), round as u32);
        for _ in 0..16 {
            let completion = rig.take(&mut pair);
            assert_eq!(completion.status, 0);
            seen.push(completion.command);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, (1..=80).collect::<Vec<u16>>());
}

#[test]
fn interrupts_by_line_and_by_message() {
    let disk = TestDisk::new(1 << 20);
    let mut rig = Rig::new(&disk);
    rig.enable();
    let level = |rig: &Rig| rig.line.load(Ordering::SeqCst);
    let mut pair = rig.admin;
    Rig::put(&rig.dma, &mut pair, command(admin::ABORT, 0, 0, 0, &[]));
    rig.ring(pair);
    wait_for("line", || level(&rig));
    rig.set(register::INTMS, 1);
    assert!(!level(&rig));
    assert_eq!(rig.get(register::INTMC), 1);
    rig.set(register::INTMC, 1);
    assert!(level(&rig));
    rig.take(&mut pair);
    assert!(!level(&rig), "the head has moved on");
    rig.admin = pair;
    rig.create_io();
    rig.enable_msix();
    rig.run_io(transfer(nvm::READ, DATA, 0, 0, 1));
    wait_for("message", || {
        rig.sent
            .lock()
            .iter()
            .any(|m| m.data == 101 && m.device == 2 << 3)
    });
    rig.run_admin(command(admin::ABORT, 0, 0, 0, &[]));
    wait_for("message", || rig.sent.lock().iter().any(|m| m.data == 100));
    assert!(!level(&rig));
}

#[test]
fn events() {
    let rig = Rig::ready(&TestDisk::new(1 << 20));
    let mut pair = rig.admin;
    for _ in 0..5 {
        Rig::put(
            &rig.dma,
            &mut pair,
            command(admin::ASYNC_EVENT_REQUEST, 0, 0, 0, &[]),
        );
    }
    rig.ring(pair);
    assert_eq!(
        rig.take(&mut pair).status,
        Status::AER_LIMIT_EXCEEDED.0,
        "four wait, one does not"
    );
    rig.set(register::DOORBELLS + 8 * 9, 1);
    let event = rig.take(&mut pair);
    assert_eq!(
        (event.status, event.value),
        (0, 0x01_0000),
        "no such doorbell"
    );
    // The next of the type comes only after the log was read.
    rig.set(register::DOORBELLS + 8, 99);
    std::thread::sleep(Duration::from_millis(5));
    assert!(!rig.has_completion(pair));
    Rig::put(
        &rig.dma,
        &mut pair,
        command(admin::GET_LOG_PAGE, 0xffff_ffff, DATA, 0, &[15 << 16 | 1]),
    );
    rig.ring(pair);
    let mut both = [rig.take(&mut pair), rig.take(&mut pair)].map(|c| (c.status, c.value));
    both.sort_unstable();
    assert_eq!(both, [(0, 0), (0, 0x01_0100)], "an invalid value");
    // A completion head past what was posted is one, too.
    rig.set(register::DOORBELLS + 12, 3);
    assert!(!rig.has_completion(pair));
}

#[test]
fn a_reset_drops_what_is_in_flight() {
    let disk = TestDisk::new(1 << 20);
    let mut rig = Rig::ready(&disk);
    disk.hold(true);
    rig.dma.fill(DATA, 512, 0x11).unwrap();
    let mut io = rig.io;
    Rig::put(&rig.dma, &mut io, transfer(nvm::READ, DATA, 0, 9, 1));
    rig.ring(io);
    wait_for("read", || disk.waiting.load(Ordering::SeqCst) == 1);
    // Does not wait for the disk; but the new epoch's commands wait for the old one.
    rig.enable();
    let mut pair = rig.admin;
    Rig::put(&rig.dma, &mut pair, command(admin::ABORT, 0, 0, 0, &[]));
    rig.ring(pair);
    std::thread::sleep(Duration::from_millis(10));
    let early = rig.has_completion(pair);
    disk.hold(false);
    assert!(!early);
    assert_eq!(rig.take(&mut pair).value, 1);
    rig.admin = pair;
    assert_eq!(rig.bytes(DATA, 512), [0x11; 512]);
    assert!(!rig.has_completion(rig.io));
    rig.create_io();
    assert_eq!(rig.run_io(transfer(nvm::READ, DATA, 0, 9, 1)), 0);
    // The machine's reset.
    rig.nvme.reset();
    assert_eq!(rig.config_read(4, 2) & 7, 0);
    rig.config_write(0x10, 8, 0x80_0000_0000);
    rig.config_write(4, 2, 6);
    assert_eq!((rig.get(register::CC), rig.get(register::AQA)), (0, 0));
    rig.enable();
}

#[test]
fn shutdown_flushes() {
    let disk = TestDisk::new(1 << 20);
    let rig = Rig::ready(&disk);
    rig.set(register::CC, CC | 1 << 14);
    wait_for("shutdown", || {
        rig.get(register::CSTS) & csts::SHST == csts::SHST_COMPLETE
    });
    assert_eq!(disk.flushes.load(Ordering::SeqCst), 1);
}

#[test]
fn queues_outside_of_memory_are_fatal() {
    let mut rig = Rig::new(&TestDisk::new(1 << 20));
    rig.enable();
    rig.set(register::CC, 0);
    rig.bar.write(Access::new(register::ACQ, 8), 0x1000);
    rig.set(register::CC, CC);
    let mut pair = Pair::new(0, ADMIN_SQ, ADMIN_CQ);
    Rig::put(&rig.dma, &mut pair, command(admin::ABORT, 0, 0, 0, &[]));
    rig.ring(pair);
    wait_for("fatal status", || rig.get(register::CSTS) & csts::CFS != 0);
    rig.enable();
    rig.run_admin(command(admin::ABORT, 0, 0, 0, &[]));
}

#[test]
fn a_snapshot_goes_on_where_it_was() {
    let disk = TestDisk::new(1 << 20);
    let mut rig = Rig::ready(&disk);
    rig.run_io(transfer(nvm::READ, DATA, 0, 3, 1));
    rig.nvme.pause();
    let mut io = rig.io;
    Rig::put(&rig.dma, &mut io, transfer(nvm::READ, DATA, 0, 7, 1));
    rig.ring(io);
    let state = rig.nvme.state();
    rig.nvme.reset();
    rig.nvme.restore(state.clone()).unwrap();
    assert_eq!(rig.nvme.state(), state);
    assert!(!rig.has_completion(io));
    rig.nvme.resume();
    assert_eq!(rig.take(&mut io).status, 0);
    assert_eq!(rig.bytes(DATA, 512), [7; 512]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Random register accesses and random commands: no panic, no hang, and a reset makes all well.
    #[test]
    fn hostile_drivers(
        accesses in prop::collection::vec(
            (0u64..0x1100, prop::sample::select(vec![1u8, 2, 4, 8]), any::<u64>(), any::<bool>()),
            0..40,
        ),
        commands in prop::collection::vec((0u8..0x10, 0u32..3, any::<[u16; 8]>(), any::<bool>()), 0..40),
    ) {
        let disk = TestDisk::new(1 << 20);
        let mut rig = Rig::ready(&disk);
        let mut pairs = [rig.admin, rig.io];
        for (opcode, namespace, noise, io) in commands {
            let pair = &mut pairs[usize::from(io)];
            let small = |i: usize| u32::from(noise[i]) % 40;
            let prp1 = RAM + 0x10000 + u64::from(noise[0]) * 16;
            let prp2 = RAM + 0x10000 + u64::from(noise[1] & 0xff) * 4096;
            let dword10 = if noise[2] & 1 == 0 { small(3) } else { small(3) | u32::from(noise[4]) << 16 };
            Rig::put(&rig.dma, pair, command(opcode, namespace, prp1, prp2, &[dword10, small(5) << 16 | small(6), small(7)]));
            rig.ring(*pair);
        }
        for (offset, width, value, write) in accesses {
            let access = Access::new(offset, width);
            if write {
                rig.bar.write(access, value);
            } else {
                rig.bar.read(access);
            }
        }
        rig.enable();
        rig.create_io();
        prop_assert_eq!(rig.run_io(transfer(nvm::READ, DATA, 0, 0, 1)), 0);
    }
}
