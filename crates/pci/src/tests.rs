use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::{Access, Device, Line, Mmio, Msi};
use parking_lot::Mutex;
use proptest::prelude::*;

use crate::registers::*;
use crate::{BarKind, Bus, BusConfig, Endpoint, Function, Identity, PlugError};

/// A function that remembers what was written to it and reads as BAR << 32 | offset.
struct Probe {
    endpoint: Endpoint,
    written: Mutex<Vec<(u8, u64, u64)>>,
}

impl Probe {
    fn new(msi: bool) -> Arc<Probe> {
        let identity = Identity {
            vendor: 0x1af4,
            device: 0x1042,
            revision: 1,
            class: 0x01_0802,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        let builder = Endpoint::builder(identity)
            .bar(0, BarKind::Io, 0x40)
            .bar(1, BarKind::Memory32, 0x1000)
            .bar(4, BarKind::Memory64 { prefetchable: true }, 0x4000)
            .interrupt_pin()
            .capability(CAPABILITY_VENDOR, vec![6, 7, 8], vec![0, 0x0f])
            .power_management()
            .express();
        let builder = if msi {
            builder.msi(4)
        } else {
            builder.msix(3, 1, 0, 0x800)
        };
        Arc::new(Probe {
            endpoint: builder.build(),
            written: Mutex::default(),
        })
    }
}

impl Device for Probe {
    fn name(&self) -> &str {
        "probe"
    }

    fn reset(&self) {
        self.endpoint.reset();
    }
}

impl Function for Probe {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn read_bar(&self, bar: u8, access: Access) -> u64 {
        u64::from(bar) << 32 | access.offset
    }

    fn write_bar(&self, bar: u8, access: Access, value: u64) {
        self.written.lock().push((bar, access.offset, value));
    }
}

struct Rig {
    bus: Arc<Bus>,
    probe: Arc<Probe>,
    ecam: Arc<dyn Mmio>,
    sent: Arc<Mutex<Vec<Msi>>>,
    lines: [Arc<AtomicBool>; 4],
}

impl Rig {
    fn new(msi: bool) -> Rig {
        let sent = Arc::new(Mutex::new(Vec::new()));
        let log = sent.clone();
        let lines = [(); 4].map(|()| Line::probe());
        let levels = lines.clone().map(|l| l.1);
        let bus = Bus::new(
            BusConfig::default(),
            Arc::new(move |m| log.lock().push(m)),
            lines.map(|l| l.0),
        );
        let probe = Probe::new(msi);
        assert_eq!(bus.plug(None, probe.clone()), Ok(2));
        let ecam = bus.ecam();
        Rig {
            bus,
            probe,
            ecam,
            sent,
            lines: levels,
        }
    }

    fn read(&self, register: u16, width: u8) -> u64 {
        self.ecam
            .read(Access::new(2 << 15 | u64::from(register), width))
            & Access::new(0, width).mask()
    }

    fn write(&self, register: u16, width: u8, value: u64) {
        self.ecam
            .write(Access::new(2 << 15 | u64::from(register), width), value);
    }

    fn capability(&self, id: u8) -> u16 {
        let mut at = self.read(CAPABILITIES_POINTER, 1) as u16;
        while at != 0 {
            if self.read(at, 1) == u64::from(id) {
                return at;
            }
            at = self.read(at + 1, 1) as u16;
        }
        panic!("no capability {id:#x}");
    }

    fn level(&self, line: usize) -> bool {
        self.lines[line].load(Ordering::SeqCst)
    }
}

#[test]
fn the_host_bridge_and_empty_slots() {
    let rig = Rig::new(false);
    assert_eq!(rig.ecam.read(Access::new(0, 4)), 0x0008_1b36);
    assert_eq!(rig.ecam.read(Access::new(8, 4)), 0x0600_0000);
    assert_eq!(rig.ecam.read(Access::new(0x2c, 4)), 0x1100_1af4);
    for nothing in [1 << 15, 2 << 15 | 1 << 12, 1 << 20, 1 << 20 | 2 << 15] {
        assert_eq!(rig.ecam.read(Access::new(nothing, 4)), 0xffff_ffff);
        rig.ecam.write(Access::new(nothing, 4), 0);
    }
    // A conventional function has 256 bytes, an express one 4096.
    assert_eq!(rig.ecam.read(Access::new(0x100, 4)), 0xffff_ffff);
    assert_eq!(rig.read(0x100, 4), 0);
    assert_eq!(rig.read(0, 8), 0x0010_0000_1042_1af4);
    assert_eq!(rig.read(3, 2), 0x0010);
}

#[test]
fn slots() {
    let rig = Rig::new(false);
    assert_eq!(
        rig.bus.plug(Some(2), Probe::new(false)),
        Err(PlugError::Taken(2))
    );
    assert_eq!(
        rig.bus.plug(Some(32), Probe::new(false)),
        Err(PlugError::NoSuchSlot(32))
    );
    for slot in 3..32 {
        assert_eq!(rig.bus.plug(None, Probe::new(false)), Ok(slot));
    }
    assert_eq!(rig.bus.plug(None, Probe::new(false)), Ok(1));
    assert_eq!(rig.bus.plug(None, Probe::new(false)), Err(PlugError::Full));
    assert_eq!(rig.bus.functions().len(), 32);
}

#[test]
fn sizes_and_decodes_bars() {
    let rig = Rig::new(false);
    for (bar, reads) in [
        (0, 0xffff_ffc1u64),
        (1, 0xffff_f000),
        (2, 0),
        (3, 0),
        (4, 0xffff_c00c),
        (5, 0xffff_ffff),
    ] {
        rig.write(BAR0 + bar * 4, 4, 0xffff_ffff);
        assert_eq!(rig.read(BAR0 + bar * 4, 4), reads, "BAR {bar}");
    }
    rig.write(BAR0, 4, 0x1000);
    rig.write(BAR0 + 4, 4, 0x1234_5000);
    rig.write(BAR0 + 16, 8, 0x80_0001_0000);
    let (io, low, high) = (
        rig.bus.io_window(),
        rig.bus.mem32_window(),
        rig.bus.mem64_window(),
    );
    let at = 0x0234_5008;
    assert_eq!(low.read(Access::new(at, 4)), u64::MAX);
    rig.write(COMMAND, 2, COMMAND_MEMORY.into());
    assert_eq!(io.read(Access::new(0x1004, 2)), u64::MAX);
    assert_eq!(low.read(Access::new(at + 0x900, 4)), 1 << 32 | 0x908);
    assert_eq!(high.read(Access::new(0x1_3ffc, 4)), 4 << 32 | 0x3ffc);
    // Neither past the end nor across it.
    assert_eq!(high.read(Access::new(0x1_4000, 4)), u64::MAX);
    assert_eq!(high.read(Access::new(0x1_3ffc, 8)), u64::MAX);
    rig.write(COMMAND, 2, (COMMAND_MEMORY | COMMAND_IO).into());
    io.write(Access::new(0x1004, 2), 0xabcd);
    assert_eq!(*rig.probe.written.lock(), [(0, 4, 0xabcd)]);
    // A BAR that moves.
    rig.write(BAR0 + 16, 4, 0x2_0000);
    assert_eq!(high.read(Access::new(0x1_0000, 4)), u64::MAX);
    assert_eq!(high.read(Access::new(0x2_0000, 4)), 4 << 32);
    // D3hot answers configuration accesses only, and comes back as it was; D2 is not there.
    let pm = rig.capability(CAPABILITY_POWER_MANAGEMENT) + PMCSR;
    rig.write(pm, 2, 2);
    assert_eq!(high.read(Access::new(0x2_0000, 4)), 4 << 32);
    rig.write(pm, 2, 3);
    assert_eq!(high.read(Access::new(0x2_0000, 4)), u64::MAX);
    rig.write(pm, 2, 0);
    assert_eq!(high.read(Access::new(0x2_0000, 4)), 4 << 32);
    // Reset takes the addresses back.
    rig.bus.reset();
    assert_eq!(high.read(Access::new(0x2_0000, 4)), u64::MAX);
    assert_eq!(rig.read(BAR0 + 16, 4), 0xc);
}

#[test]
fn only_writable_bits_change() {
    let rig = Rig::new(false);
    for offset in (0..0x40).chain([0x2c, 0x34, 0x3d]) {
        rig.write(offset, 1, 0xff);
    }
    assert_eq!(rig.read(0, 4), 0x1042_1af4);
    assert_eq!(rig.read(COMMAND, 2), 0x0547);
    assert_eq!(rig.read(STATUS, 2), 0x0010);
    assert_eq!(rig.read(8, 4), 0x0108_0201);
    assert_eq!(rig.read(0x2c, 4), 0x1100_1af4);
    assert_eq!(rig.read(INTERRUPT_PIN, 1), 1);
    let vendor = rig.capability(CAPABILITY_VENDOR);
    rig.write(vendor, 4, 0xffff_ffff);
    assert_eq!(rig.read(vendor + 2, 2), 0x0f06);
    assert_eq!(
        rig.probe.endpoint.capability(CAPABILITY_VENDOR, 0),
        Some(vendor)
    );
}

#[test]
fn intx_is_swizzled_shared_and_disabled() {
    let rig = Rig::new(false);
    let other = Probe::new(false);
    assert_eq!(rig.bus.plug(Some(6), other.clone()), Ok(6));
    rig.probe.endpoint.set_intx(true);
    other.endpoint.set_intx(true);
    assert!(rig.level(2) && !rig.level(0) && !rig.level(1) && !rig.level(3));
    assert_eq!(rig.read(STATUS, 2), 0x0018);
    rig.write(COMMAND, 2, COMMAND_INTERRUPT_DISABLE.into());
    assert!(rig.level(2), "the other function still asks");
    other.endpoint.set_intx(false);
    assert!(!rig.level(2));
    assert_eq!(rig.read(STATUS, 2), 0x0018);
    rig.write(COMMAND, 2, 0);
    assert!(rig.level(2));
    rig.bus.reset();
    assert!(!rig.level(2));
    assert_eq!(rig.read(STATUS, 2), 0x0010);
}

#[test]
fn msix_masks_and_pending_bits() {
    let rig = Rig::new(false);
    let control = rig.capability(CAPABILITY_MSIX) + MSIX_CONTROL;
    assert_eq!(rig.read(control, 4), 1 << 16 | 2);
    assert_eq!(rig.read(control + 6, 4) & 0xffff_ffff, 0x801);
    rig.write(BAR0 + 4, 4, 0x1000_0000);
    rig.write(COMMAND, 2, (COMMAND_MEMORY | COMMAND_BUS_MASTER).into());
    let window = rig.bus.mem32_window();
    assert_eq!(window.read(Access::new(0x1c, 4)), 1, "vectors start masked");
    window.write(Access::new(0x10, 8), 0x1_0802_0043);
    window.write(Access::new(0x18, 8), 80);
    assert_eq!(window.read(Access::new(0x10, 4)), 0x0802_0040);

    rig.probe.endpoint.signal(1);
    assert!(rig.sent.lock().is_empty(), "MSI-X is off");
    rig.write(control, 2, (MSIX_ENABLE | MSIX_FUNCTION_MASK).into());
    assert!(rig.probe.endpoint.message_signalled());
    rig.probe.endpoint.signal(1);
    rig.probe.endpoint.signal(1);
    rig.probe.endpoint.signal(2);
    rig.probe.endpoint.signal(3);
    assert_eq!(window.read(Access::new(0x800, 8)), 0b110);
    assert!(rig.sent.lock().is_empty());
    rig.write(control, 2, MSIX_ENABLE.into());
    let message = Msi {
        address: 0x1_0802_0040,
        data: 80,
        device: 2 << 3,
    };
    assert_eq!(*rig.sent.lock(), [message]);
    assert_eq!(window.read(Access::new(0x800, 4)), 0b100);
    window.write(Access::new(0x2c, 4), 0xffff_fffe);
    assert_eq!(rig.sent.lock().len(), 2);
    // Messages are memory writes: none without Bus Master.
    rig.write(COMMAND, 2, COMMAND_MEMORY.into());
    rig.probe.endpoint.signal(1);
    assert_eq!(rig.sent.lock().len(), 2);
    rig.write(COMMAND, 2, (COMMAND_MEMORY | COMMAND_BUS_MASTER).into());
    assert_eq!(rig.sent.lock().len(), 3);
    // INTx is silent with MSI-X on.
    rig.probe.endpoint.set_intx(true);
    assert!(!rig.level(2));
    rig.write(control, 2, 0);
    assert!(rig.level(2));
}

#[test]
fn msi_messages() {
    let rig = Rig::new(true);
    let at = rig.capability(CAPABILITY_MSI);
    rig.write(COMMAND, 2, COMMAND_BUS_MASTER.into());
    rig.write(at + MSI_ADDRESS, 8, 0x0802_0040);
    rig.write(at + MSI_DATA, 2, 0x57);
    assert_eq!(rig.read(at + MSI_CONTROL, 2), 0x184);
    rig.write(at + MSI_CONTROL, 2, (1 << 4 | MSI_ENABLE).into());
    for vector in [0, 1, 3] {
        rig.probe.endpoint.signal(vector);
    }
    let data = |rig: &Rig| rig.sent.lock().iter().map(|m| m.data).collect::<Vec<_>>();
    assert_eq!(data(&rig), [0x56, 0x57, 0x57]);
    rig.write(at + MSI_MASK, 4, 2);
    rig.probe.endpoint.signal(1);
    assert_eq!(rig.read(at + MSI_PENDING, 4), 2);
    rig.write(at + MSI_MASK, 4, 0);
    assert_eq!(data(&rig).len(), 4);
    assert_eq!(rig.read(at + MSI_PENDING, 4), 0);
}

#[test]
fn a_saved_state_comes_back() {
    let rig = Rig::new(false);
    rig.write(BAR0 + 4, 4, 0x1000_0000);
    rig.write(COMMAND, 2, COMMAND_MEMORY.into());
    rig.probe.endpoint.set_intx(true);
    let saved = rig.probe.endpoint.state();
    rig.bus.reset();
    rig.probe.endpoint.restore(saved).unwrap();
    assert!(rig.level(2));
    assert_eq!(
        rig.bus.mem32_window().read(Access::new(0x900, 4)),
        1 << 32 | 0x900
    );
    let bridge = rig.bus.function(0).unwrap();
    assert!(
        bridge
            .endpoint()
            .restore(rig.probe.endpoint.state())
            .is_err()
    );
}

proptest! {
    /// Whatever the guest writes where, identity and capability chain stay, and nothing panics.
    #[test]
    fn random_accesses(
        msi: bool,
        accesses in prop::collection::vec(
            (0u8..4, prop::sample::select(vec![1u8, 2, 4, 8]), 0u64..0x2000, any::<u64>(), any::<bool>()),
            1..200,
        ),
    ) {
        let rig = Rig::new(msi);
        let windows =
            [rig.ecam.clone(), rig.bus.io_window(), rig.bus.mem32_window(), rig.bus.mem64_window()];
        let chain = rig.capability(CAPABILITY_EXPRESS);
        for (window, width, offset, value, write) in accesses {
            let base = if window == 0 { 2 << 15 } else { 0 };
            let access = Access::new(base + offset, width);
            if write {
                windows[usize::from(window)].write(access, value);
            } else {
                windows[usize::from(window)].read(access);
            }
            rig.probe.endpoint.signal(value as u16);
            rig.probe.endpoint.set_intx(value & 1 != 0);
            rig.sent.lock().clear();
        }
        prop_assert_eq!(rig.read(0, 4), 0x1042_1af4);
        prop_assert_eq!(rig.capability(CAPABILITY_EXPRESS), chain);
    }
}
