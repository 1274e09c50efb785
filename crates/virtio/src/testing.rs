//! A driver for tests: it finds the device through configuration space and drives its rings in guest RAM.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use device::{Access, Line, Mmio, Msi};
use memory::{Dma, Ram};
use parking_lot::{Condvar, Mutex};
use pci::{Bus, BusConfig};
use storage::Disk;

use crate::spec::{capability, common, feature, legacy, status};
use crate::{PciOptions, VirtioDevice, VirtioPci};

pub(crate) const RAM: u64 = 0x4000_0000;
pub(crate) const RAM_SIZE: u64 = 0x80_0000;
/// Where rings and buffers begin.
const RINGS: u64 = RAM + 0x1_0000;
pub(crate) const BUFFERS: u64 = RAM + 0x10_0000;
const MODERN: u64 = 0x1000_0000;
const MSIX: u64 = 0x1001_0000;
const PORTS: u64 = 0x1000;

/// A disk in memory that can be held up and made to fail.
#[derive(Default)]
pub(crate) struct TestDisk {
    pub data: Mutex<Vec<u8>>,
    pub read_only: bool,
    pub flushes: Mutex<u32>,
    pub held: Mutex<bool>,
    pub release: Condvar,
    pub waiting: Mutex<u32>,
    pub fail: AtomicBool,
}

impl TestDisk {
    pub fn new(size: usize) -> TestDisk {
        TestDisk {
            data: Mutex::new((0..size).map(|i| (i / 512) as u8).collect()),
            ..TestDisk::default()
        }
    }

    pub fn hold(&self) {
        *self.held.lock() = true;
    }

    pub fn release(&self) {
        *self.held.lock() = false;
        self.release.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        let mut held = self.held.lock();
        while *held {
            *self.waiting.lock() += 1;
            self.release.wait(&mut held);
        }
        if self.fail.load(Ordering::SeqCst) {
            Err(io::Error::other("made to fail"))
        } else {
            Ok(())
        }
    }

    fn span(&self, offset: u64, length: u64) -> io::Result<std::ops::Range<usize>> {
        match offset.checked_add(length) {
            Some(end) if end <= self.size() => Ok(offset as usize..end as usize),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }
}

impl Disk for TestDisk {
    fn size(&self) -> u64 {
        self.data.lock().len() as u64
    }

    fn read_only(&self) -> bool {
        self.read_only
    }

    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.pass()?;
        let span = self.span(offset, into.len() as u64)?;
        into.copy_from_slice(&self.data.lock()[span]);
        Ok(())
    }

    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()> {
        self.pass()?;
        let span = self.span(offset, from.len() as u64)?;
        self.data.lock()[span].copy_from_slice(from);
        Ok(())
    }

    fn flush(&self) -> io::Result<()> {
        self.pass()?;
        *self.flushes.lock() += 1;
        Ok(())
    }

    fn discard(&self, offset: u64, length: u64) -> io::Result<()> {
        let span = self.span(offset, length)?;
        self.data.lock()[span].fill(0xdd);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64, _: bool) -> io::Result<()> {
        let span = self.span(offset, length)?;
        self.data.lock()[span].fill(0);
        Ok(())
    }
}

/// One descriptor of a chain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Buffer {
    pub address: u64,
    pub length: u32,
    pub writable: bool,
}

/// A queue as the driver sees it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ring {
    pub size: u16,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
    pub made: u16,
    pub seen: u16,
}

pub(crate) struct Rig {
    pub dma: Dma,
    pub function: Arc<VirtioPci>,
    pub sent: Arc<Mutex<Vec<Msi>>>,
    pub line: Arc<AtomicBool>,
    pub rings: Vec<Ring>,
    pub legacy: bool,
    pub event_idx: bool,
    ecam: Arc<dyn Mmio>,
    io: Arc<dyn Mmio>,
    memory: Arc<dyn Mmio>,
    _ram: Ram,
}

impl Rig {
    pub fn new(device: Arc<dyn VirtioDevice>, options: &PciOptions) -> Rig {
        let ram = Ram::new(&[(RAM, RAM_SIZE)]).unwrap();
        Rig::with_ram(device, options, ram)
    }

    pub fn with_ram(device: Arc<dyn VirtioDevice>, options: &PciOptions, ram: Ram) -> Rig {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let log = sent.clone();
        let probes = [(); 4].map(|()| Line::probe());
        let line = probes[2].1.clone();
        let bus = Bus::new(
            BusConfig::default(),
            Arc::new(move |m| log.lock().push(m)),
            probes.map(|p| p.0),
        );
        let function = VirtioPci::new(device, ram.dma(), options).unwrap();
        assert_eq!(bus.plug(None, function.clone()), Ok(2));
        let rig = Rig {
            dma: ram.dma(),
            function,
            sent,
            line,
            rings: Vec::new(),
            legacy: false,
            event_idx: false,
            ecam: bus.ecam(),
            io: bus.io_window(),
            memory: bus.mem32_window(),
            _ram: ram,
        };
        rig.set_config(0x10, 4, PORTS);
        rig.set_config(0x14, 4, MSIX);
        rig.set_config(0x20, 8, MODERN);
        rig.set_config(4, 2, 7);
        rig
    }

    pub fn config(&self, register: u64, width: u8) -> u64 {
        self.ecam.read(Access::new(2 << 15 | register, width)) & Access::new(0, width).mask()
    }

    pub fn set_config(&self, register: u64, width: u8, value: u64) {
        self.ecam
            .write(Access::new(2 << 15 | register, width), value);
    }

    /// Where a virtio structure is: BAR and offset, as the capability says.
    pub fn structure(&self, kind: u8) -> Option<u64> {
        let mut at = self.config(0x34, 1);
        while at != 0 {
            if self.config(at, 1) == 9 && self.config(at + 3, 1) == u64::from(kind) {
                return Some(at);
            }
            at = self.config(at + 1, 1);
        }
        None
    }

    fn modern_offset(&self, kind: u8) -> u64 {
        let at = self.structure(kind).expect("a modern device");
        assert_eq!(self.config(at + 4, 1), 4);
        MODERN - 0x1000_0000 + self.config(at + 8, 4)
    }

    pub fn get(&self, register: u64, width: u8) -> u64 {
        let offset = self.modern_offset(capability::COMMON) + register;
        self.memory.read(Access::new(offset, width)) & Access::new(0, width).mask()
    }

    pub fn set(&self, register: u64, width: u8, value: u64) {
        let offset = self.modern_offset(capability::COMMON) + register;
        self.memory.write(Access::new(offset, width), value);
    }

    pub fn device(&self, register: u64, width: u8) -> u64 {
        let read = if self.legacy {
            self.io
                .read(Access::new(PORTS + self.legacy_device() + register, width))
        } else {
            self.memory.read(Access::new(
                self.modern_offset(capability::DEVICE) + register,
                width,
            ))
        };
        read & Access::new(0, width).mask()
    }

    pub fn set_device(&self, register: u64, width: u8, value: u64) {
        self.memory.write(
            Access::new(self.modern_offset(capability::DEVICE) + register, width),
            value,
        );
    }

    fn legacy_device(&self) -> u64 {
        if self.function_msix() {
            legacy::CONFIG_MSIX
        } else {
            legacy::CONFIG
        }
    }

    fn function_msix(&self) -> bool {
        use pci::Function;
        self.function.endpoint().message_signalled()
    }

    pub fn port(&self, register: u64, width: u8) -> u64 {
        self.io.read(Access::new(PORTS + register, width)) & Access::new(0, width).mask()
    }

    pub fn set_port(&self, register: u64, width: u8, value: u64) {
        self.io.write(Access::new(PORTS + register, width), value);
    }

    pub fn isr(&self) -> u64 {
        self.memory
            .read(Access::new(self.modern_offset(capability::ISR), 1))
            & 0xff
    }

    /// Turns MSI-X on, with vector n sending data 100 + n.
    pub fn enable_msix(&self) {
        let mut at = self.config(0x34, 1);
        while self.config(at, 1) != 0x11 {
            at = self.config(at + 1, 1);
        }
        let vectors = self.config(at + 2, 2) + 1;
        for vector in 0..vectors {
            for (field, value) in [(0, 0x0802_0040), (4, 0), (8, 100 + vector), (12, 0)] {
                let offset = MSIX - 0x1000_0000 + vector * 16 + field;
                self.memory.write(Access::new(offset, 4), value);
            }
        }
        self.set_config(at + 2, 2, 0x8000);
    }

    pub fn status(&self) -> u8 {
        if self.legacy {
            self.port(legacy::DEVICE_STATUS, 1) as u8
        } else {
            self.get(common::DEVICE_STATUS, 1) as u8
        }
    }

    pub fn features(&self) -> u64 {
        let half = |which| {
            self.set(common::DEVICE_FEATURE_SELECT, 4, which);
            self.get(common::DEVICE_FEATURE, 4)
        };
        half(0) | half(1) << 32
    }

    /// The steps of VIRTIO 3.1.1 up to FEATURES_OK; whether the device agreed.
    pub fn negotiate(&mut self, features: u64) -> bool {
        self.event_idx = features & feature::RING_EVENT_IDX != 0;
        self.set(common::DEVICE_STATUS, 1, 0);
        assert_eq!(self.status(), 0);
        let mut now = status::ACKNOWLEDGE | status::DRIVER;
        self.set(common::DEVICE_STATUS, 1, now.into());
        for which in 0..2 {
            self.set(common::DRIVER_FEATURE_SELECT, 4, which);
            self.set(
                common::DRIVER_FEATURE,
                4,
                features >> (which * 32) & 0xffff_ffff,
            );
        }
        now |= status::FEATURES_OK;
        self.set(common::DEVICE_STATUS, 1, now.into());
        self.status() & status::FEATURES_OK != 0
    }

    /// Sets the queues up and says DRIVER_OK.
    pub fn go(&mut self, size: u16) {
        let queues = self.get(common::NUM_QUEUES, 2);
        self.set(common::CONFIG_MSIX_VECTOR, 2, 0);
        self.rings.clear();
        for queue in 0..queues {
            let base = RINGS + queue * 0x4000;
            let ring = Ring {
                size,
                descriptors: base,
                available: base + 0x2000,
                used: base + 0x3000,
                made: 0,
                seen: 0,
            };
            self.dma.fill(base, 0x4000, 0).unwrap();
            self.set(common::QUEUE_SELECT, 2, queue);
            self.set(common::QUEUE_SIZE, 2, size.into());
            self.set(common::QUEUE_MSIX_VECTOR, 2, queue + 1);
            self.set(common::QUEUE_DESC, 8, ring.descriptors);
            self.set(common::QUEUE_DRIVER, 4, ring.available);
            self.set(common::QUEUE_DEVICE, 4, ring.used);
            self.set(common::QUEUE_ENABLE, 2, 1);
            self.rings.push(ring);
        }
        let now = self.status() | status::DRIVER_OK;
        self.set(common::DEVICE_STATUS, 1, now.into());
    }

    /// A legacy driver's set-up.
    pub fn go_legacy(&mut self, features: u64) {
        self.legacy = true;
        self.event_idx = features & feature::RING_EVENT_IDX != 0;
        self.set_port(legacy::DEVICE_STATUS, 1, 0);
        self.set_port(legacy::DEVICE_STATUS, 1, 3);
        self.set_port(legacy::DRIVER_FEATURES, 4, features);
        self.set_port(legacy::QUEUE_SELECT, 2, 0);
        let size = self.port(legacy::QUEUE_SIZE, 2) as u16;
        let available = RINGS + u64::from(size) * 16;
        let used = (available + 6 + u64::from(size) * 2).next_multiple_of(4096);
        self.dma.fill(RINGS, 0x8000, 0).unwrap();
        self.rings = vec![Ring {
            size,
            descriptors: RINGS,
            available,
            used,
            made: 0,
            seen: 0,
        }];
        self.set_port(legacy::QUEUE_ADDRESS, 4, RINGS / 4096);
        assert_eq!(self.port(legacy::QUEUE_ADDRESS, 4), RINGS / 4096);
        self.set_port(legacy::DEVICE_STATUS, 1, 7);
    }

    pub fn descriptor(&self, table: u64, index: u16, buffer: Buffer, flags: u16, next: u16) {
        let at = table + u64::from(index) * 16;
        let flags = flags | if buffer.writable { 2 } else { 0 };
        self.dma.write_u64(at, buffer.address).unwrap();
        self.dma.write_u32(at + 8, buffer.length).unwrap();
        self.dma
            .write_u32(at + 12, u32::from(flags) | u32::from(next) << 16)
            .unwrap();
    }

    /// Puts a chain into descriptors from `first` on and makes it available.
    pub fn submit(&mut self, queue: usize, first: u16, chain: &[Buffer]) {
        let ring = self.rings[queue];
        for (i, &buffer) in chain.iter().enumerate() {
            let index = first + i as u16;
            let last = i + 1 == chain.len();
            self.descriptor(ring.descriptors, index, buffer, u16::from(!last), index + 1);
        }
        self.make_available(queue, first);
    }

    pub fn make_available(&mut self, queue: usize, head: u16) {
        let ring = &mut self.rings[queue];
        let slot = ring.available + 4 + u64::from(ring.made % ring.size) * 2;
        self.dma.write(slot, &head.to_le_bytes()).unwrap();
        ring.made = ring.made.wrapping_add(1);
        self.dma
            .write(ring.available + 2, &ring.made.to_le_bytes())
            .unwrap();
    }

    pub fn notify(&self, queue: u16) {
        if self.legacy {
            self.set_port(legacy::QUEUE_NOTIFY, 2, queue.into());
        } else {
            let at = self.structure(capability::NOTIFY).unwrap();
            let multiplier = self.config(at + 16, 4);
            let offset = self.modern_offset(capability::NOTIFY) + u64::from(queue) * multiplier;
            self.memory.write(Access::new(offset, 2), queue.into());
        }
    }

    pub fn used_index(&self, queue: usize) -> u16 {
        let mut bytes = [0; 2];
        self.dma
            .read(self.rings[queue].used + 2, &mut bytes)
            .unwrap();
        u16::from_le_bytes(bytes)
    }

    /// Takes the next used element, as soon as it is there.
    pub fn wait(&mut self, queue: usize) -> (u16, u32) {
        let seen = self.rings[queue].seen;
        wait_for("a used buffer", || self.used_index(queue) != seen);
        let ring = &mut self.rings[queue];
        let slot = ring.used + 4 + u64::from(ring.seen % ring.size) * 8;
        ring.seen = ring.seen.wrapping_add(1);
        if self.event_idx {
            self.dma
                .write(
                    ring.available + 4 + u64::from(ring.size) * 2,
                    &ring.seen.to_le_bytes(),
                )
                .unwrap();
        }
        (
            self.dma.read_u32(slot).unwrap() as u16,
            self.dma.read_u32(slot + 4).unwrap(),
        )
    }
}

/// Waits for a condition that another thread brings about.
pub(crate) fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(20), "no {what}");
        std::thread::sleep(Duration::from_micros(100));
    }
}
