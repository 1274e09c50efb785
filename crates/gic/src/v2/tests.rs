mod observed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use device::{Access, Device, Msi};

use super::*;

const GICD: u64 = 0x0800_0000;
const GICC: u64 = 0x0801_0000;
const V2M: u64 = 0x0802_0000;

/// A board with nothing but the GIC.
struct Board {
    gic: Arc<Gicv2>,
    frames: Vec<Frame>,
    irq: Vec<Arc<AtomicBool>>,
    fiq: Vec<Arc<AtomicBool>>,
}

fn config(cpus: u32) -> Config {
    Config {
        cpus,
        distributor: GICD,
        cpu_interface: GICC,
        v2m: Some(V2M),
    }
}

impl Board {
    fn new(cpus: u32) -> Board {
        let (mut lines, mut irq, mut fiq) = (vec![], vec![], vec![]);
        for _ in 0..cpus {
            let (i, f) = (Line::probe(), Line::probe());
            irq.push(i.1);
            fiq.push(f.1);
            lines.push(CpuLines { irq: i.0, fiq: f.0 });
        }
        let gic = Gicv2::new(config(cpus), lines).unwrap();
        Board {
            frames: gic.frames(),
            gic,
            irq,
            fiq,
        }
    }

    /// As Linux leaves it: group 0 and 1 enabled, nothing masked, SPIs to processor 0.
    fn ready(cpus: u32) -> Board {
        let b = Board::new(cpus);
        b.w(0, GICD, 3);
        for i in (32..288).step_by(4) {
            b.w(0, GICD + 0x800 + i, 0x0101_0101);
        }
        for cpu in 0..cpus {
            b.w(cpu, GICC + 4, 0xf0);
            b.w(cpu, GICC, 3);
        }
        b
    }

    fn access(&self, cpu: u32, address: u64, width: u8) -> (&Frame, Access) {
        let frame = self
            .frames
            .iter()
            .find(|f| (f.base..f.base + f.size).contains(&address));
        let frame = frame.unwrap_or_else(|| panic!("nothing at {address:#x}"));
        (
            frame,
            Access {
                offset: address - frame.base,
                width,
                cpu,
            },
        )
    }

    fn r(&self, cpu: u32, address: u64) -> u32 {
        let (frame, access) = self.access(cpu, address, 4);
        frame.mmio.read(access) as u32
    }

    fn w(&self, cpu: u32, address: u64, value: u32) {
        let (frame, access) = self.access(cpu, address, 4);
        frame.mmio.write(access, value.into());
    }

    fn w8(&self, cpu: u32, address: u64, value: u8) {
        let (frame, access) = self.access(cpu, address, 1);
        frame.mmio.write(access, value.into());
    }

    fn iar(&self, cpu: u32) -> u32 {
        self.r(cpu, GICC + gicc::IAR)
    }

    fn eoi(&self, cpu: u32, value: u32) {
        self.w(cpu, GICC + gicc::EOIR, value);
    }

    fn irq(&self, cpu: usize) -> bool {
        self.irq[cpu].load(SeqCst)
    }

    fn fiq(&self, cpu: usize) -> bool {
        self.fiq[cpu].load(SeqCst)
    }

    fn enable(&self, intid: u32, priority: u8) {
        self.w8(0, GICD + 0x400 + u64::from(intid), priority);
        self.w(
            0,
            GICD + 0x100 + u64::from(intid / 32) * 4,
            1 << (intid % 32),
        );
    }
}

#[test]
fn shows_what_qemu_shows() {
    let b = Board::new(3);
    let observed = [
        (GICD + 4, 0x48),
        (GICD + 8, 0x43b),
        (GICD + 0x100, 0xffff),
        (GICD + 0xc00, 0xaaaa_aaaa),
        (GICD + 0xfe0, 0x90),
        (GICD + 0xfe8, 0x2b),
        (GICC + 0xc, 0x3ff),
        (GICC + 0x14, 0xff),
        (GICC + 0x1c, 1),
        (GICC + 0xfc, 0x2_043b),
        (V2M + 8, 0x0050_0040),
        (V2M + 0xfcc, 0x0510_0000),
    ];
    for (address, value) in observed {
        assert_eq!(b.r(0, address), value, "{address:#x}");
    }
    b.w(0, GICC, u32::MAX);
    assert_eq!(b.r(0, GICC), 0x21f);
    b.w(0, GICD + 0x180, u32::MAX);
    assert_eq!(b.r(0, GICD + 0x100), 0xffff, "SGIs cannot be disabled");
    for cpu in 0..3 {
        assert_eq!(b.r(cpu, GICD + 0x800), 0x0101_0101 << cpu);
    }
    b.w(0, GICD + 0x820, u32::MAX);
    assert_eq!(b.r(0, GICD + 0x820), 0x0707_0707);
    let one = Board::new(1);
    one.w(0, GICD + 0x820, u32::MAX);
    assert_eq!((one.r(0, GICD + 0x800), one.r(0, GICD + 0x820)), (0, 0));
    assert_eq!(
        one.gic
            .read_system_register(0, crate::v3::spec::icc::PMR_EL1),
        None
    );
}

#[test]
fn an_spi_with_two_targets_is_taken_once() {
    let b = Board::ready(2);
    b.enable(40, 0x80);
    b.w8(0, GICD + 0x800 + 40, 3);
    b.gic.spi(8).set(true);
    assert!(b.irq(0) && b.irq(1));
    assert_eq!(b.iar(1), 40);
    assert!(!b.irq(0) && !b.irq(1));
    assert_eq!(b.iar(0), 1023);
    b.eoi(1, 40);
    assert!(b.irq(0), "the line is still high");
    b.gic.spi(8).set(false);
    assert!(!b.irq(0) && !b.irq(1));
}

#[test]
fn sgis_tell_their_source() {
    let b = Board::ready(4);
    b.w(1, GICD + gicd::SGIR, 1 << 16 | 5);
    b.w(3, GICD + gicd::SGIR, 1 << 24 | 5);
    b.w(2, GICD + gicd::SGIR, 2 << 24 | 6);
    assert_eq!(b.r(0, GICD + gicd::SPENDSGIR + 4), 0x0a00);
    assert!(b.irq(0) && b.irq(1) && b.irq(2) && !b.irq(3));
    assert_eq!(b.r(0, GICC + gicc::HPPIR), 1 << 10 | 5);
    assert_eq!(b.iar(0), 1 << 10 | 5);
    assert!(!b.irq(0), "one SGI is active at a time");
    b.eoi(0, 1 << 10 | 5);
    assert_eq!(b.iar(0), 3 << 10 | 5);
    b.eoi(0, 3 << 10 | 5);
    assert_eq!(b.iar(0), 1023);
    // ICPENDR does not touch SGIs, CPENDSGIR does.
    b.w(1, GICD + 0x280, 0xffff);
    assert_eq!(b.r(1, GICD + 0x200), 1 << 5);
    b.w8(1, GICD + gicd::CPENDSGIR + 5, 8);
    assert_eq!(b.r(1, GICD + 0x200), 0);
    b.w8(1, GICD + gicd::SPENDSGIR + 5, 0xff);
    assert_eq!(b.r(1, GICD + gicd::SPENDSGIR + 4), 0x0f00);
    assert_eq!(b.iar(1), 5);
}

#[test]
fn groups_and_acknowledge_control() {
    let b = Board::ready(1);
    b.enable(40, 0x80);
    b.enable(41, 0x40);
    b.w(0, GICD + 0x84, 1 << 8);
    b.gic.spi(8).set(true);
    assert_eq!((b.iar(0), b.r(0, GICC + gicc::HPPIR)), (1022, 1022));
    b.gic.spi(9).set(true);
    assert!(b.irq(0) && !b.fiq(0));
    b.w(0, GICC, 3 | gicc::CTLR_FIQ_EN);
    assert!(!b.irq(0) && b.fiq(0));
    assert_eq!(b.r(0, GICC + gicc::AIAR), 1023);
    assert_eq!(b.iar(0), 41);
    b.gic.spi(9).set(false);
    b.eoi(0, 41);
    assert!(b.irq(0) && !b.fiq(0));
    assert_eq!(b.r(0, GICC + gicc::AHPPIR), 40);
    assert_eq!(b.r(0, GICC + gicc::AIAR), 40);
    assert_eq!(
        (b.r(0, GICC + gicc::APR + 8), b.r(0, GICC + gicc::NSAPR + 8)),
        (0, 1)
    );
    b.w(0, GICC + gicc::AEOIR, 40);
    assert_eq!(b.r(0, GICC + gicc::RPR), 0xff);
    b.w(0, GICC, 3 | gicc::CTLR_ACK_CTL);
    assert_eq!(b.iar(0), 40);
    b.eoi(0, 40);
    assert_eq!(b.r(0, GICC + gicc::RPR), 0xff);
}

#[test]
fn end_and_deactivation_apart() {
    let b = Board::ready(1);
    b.w(0, GICC, 3 | gicc::CTLR_EOIMODE);
    b.enable(40, 0x80);
    b.gic.spi(8).set(true);
    assert_eq!(b.iar(0), 40);
    assert_eq!(b.r(0, GICC + gicc::RPR), 0x80);
    b.eoi(0, 40);
    assert_eq!(
        (b.r(0, GICC + gicc::RPR), b.r(0, GICD + 0x304)),
        (0xff, 1 << 8)
    );
    assert!(!b.irq(0));
    b.w(0, GICC + gicc::DIR, 40);
    assert!(b.irq(0));
}

#[test]
fn preemption_and_masks() {
    let b = Board::ready(1);
    for (intid, priority) in [(40, 0x80), (41, 0x7e), (42, 0x60)] {
        b.enable(intid, priority);
    }
    b.w(0, GICC + gicc::BPR, 4);
    b.gic.spi(8).set(true);
    assert_eq!(b.iar(0), 40);
    b.gic.spi(9).set(true);
    assert_eq!(b.iar(0), 41, "0x60 by group");
    assert_eq!(b.r(0, GICC + gicc::RPR), 0x60);
    b.gic.spi(10).set(true);
    assert!(!b.irq(0), "the same group priority");
    b.w(0, GICC + gicc::PMR, 0x60);
    b.eoi(0, 41);
    b.gic.spi(9).set(false);
    assert!(!b.irq(0), "masked");
    b.w(0, GICC + gicc::PMR, 0x61);
    assert_eq!(b.iar(0), 42);
}

#[test]
fn v2m_messages_snapshot_and_reset() {
    let b = Board::ready(2);
    b.w(0, GICD + 0xc00 + 5 * 4, 2);
    b.enable(80, 0x80);
    b.gic.msi(Msi {
        address: V2M + 0x40,
        data: 80,
        device: 0,
    });
    b.gic.ppi(1, 27).set(true);
    b.w(1, GICD + 0x100, 1 << 27);
    assert!(b.irq(0) && b.irq(1));
    let text = serde_json::to_string(&b.gic.save()).unwrap();
    let other = Board::new(2);
    other
        .gic
        .restore(serde_json::from_str(&text).unwrap())
        .unwrap();
    assert!(other.irq(0) && other.irq(1));
    assert_eq!((other.iar(0), other.iar(1)), (80, 27));
    assert!(Board::new(1).gic.restore(b.gic.save()).is_err());
    b.gic.reset();
    assert!(!b.irq(0) && !b.irq(1));
    let mut expected = State::power_on(&config(2));
    expected.pes[1].private.level = 1 << 27;
    assert_eq!(b.gic.save(), expected);
}
