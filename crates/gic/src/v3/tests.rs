//! The distributor, redistributors and CPU interfaces by the specification; tests of the rest beside it.

mod fuzz;
mod its;
mod observed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use device::{Access, Device, Msi};
use memory::Ram;

use super::spec::icc::*;
use super::spec::{gicd, gicr, gits};
use super::*;

const RAM: u64 = 0x4000_0000;
const GICD: u64 = 0x0800_0000;
const GITS: u64 = 0x0808_0000;
const GICR: u64 = 0x080a_0000;
const V2M: u64 = 0x0802_0000;
const GICR2: u64 = 0x40_0000_0000;

/// A board with nothing but the GIC.
struct Board {
    gic: Arc<Gicv3>,
    frames: Vec<Frame>,
    irq: Vec<Arc<AtomicBool>>,
    fiq: Vec<Arc<AtomicBool>>,
    dma: Dma,
}

fn config(cpus: u32, its: bool) -> Config {
    Config {
        affinities: (0..cpus).map(affinity).collect(),
        distributor: GICD,
        redistributors: vec![(GICR, 3), (GICR2, 1000)],
        its: its.then_some(GITS),
        v2m: Some(V2M),
        message_based_spis: false,
    }
}

impl Board {
    fn new(cpus: u32, its: bool) -> Board {
        let ram = Ram::new(&[(RAM, 0x40_0000)]).unwrap();
        let (mut lines, mut irq, mut fiq) = (vec![], vec![], vec![]);
        for _ in 0..cpus {
            let (i, f) = (Line::probe(), Line::probe());
            irq.push(i.1);
            fiq.push(f.1);
            lines.push(CpuLines { irq: i.0, fiq: f.0 });
        }
        let gic = Gicv3::new(config(cpus, its), lines, ram.dma()).unwrap();
        Board {
            frames: gic.frames(),
            gic,
            irq,
            fiq,
            dma: ram.dma(),
        }
    }

    /// With the groups enabled everywhere, all of group 1, nothing masked.
    fn ready(cpus: u32, its: bool) -> Board {
        let b = Board::new(cpus, its);
        b.open(cpus);
        b
    }

    fn open(&self, cpus: u32) {
        self.w(GICD, 3);
        for i in 0..9 {
            self.w(GICD + 0x80 + 4 * i, u32::MAX);
        }
        for cpu in 0..cpus {
            self.w(self.sgi(cpu) + 0x80, u32::MAX);
            self.w(self.sgi(cpu) + 0x100, u32::MAX);
            self.set(cpu, PMR_EL1, 0xf8);
            self.set(cpu, IGRPEN0_EL1, 1);
            self.set(cpu, IGRPEN1_EL1, 1);
        }
    }

    fn rd(&self, cpu: u32) -> u64 {
        let cpu = u64::from(cpu);
        if cpu < 3 {
            GICR + cpu * 0x2_0000
        } else {
            GICR2 + (cpu - 3) * 0x2_0000
        }
    }

    fn sgi(&self, cpu: u32) -> u64 {
        self.rd(cpu) + gicr::FRAME
    }

    fn at(&self, address: u64) -> (&Frame, u64) {
        let frame = self
            .frames
            .iter()
            .find(|f| (f.base..f.base + f.size).contains(&address));
        let frame = frame.unwrap_or_else(|| panic!("nothing at {address:#x}"));
        (frame, address - frame.base)
    }

    fn r(&self, address: u64) -> u32 {
        let (frame, offset) = self.at(address);
        frame.mmio.read(Access::new(offset, 4)) as u32
    }

    fn w(&self, address: u64, value: u32) {
        let (frame, offset) = self.at(address);
        frame.mmio.write(Access::new(offset, 4), value.into());
    }

    fn r64(&self, address: u64) -> u64 {
        let (frame, offset) = self.at(address);
        frame.mmio.read(Access::new(offset, 8))
    }

    fn w64(&self, address: u64, value: u64) {
        let (frame, offset) = self.at(address);
        frame.mmio.write(Access::new(offset, 8), value);
    }

    fn w8(&self, address: u64, value: u8) {
        let (frame, offset) = self.at(address);
        frame.mmio.write(Access::new(offset, 1), value.into());
    }

    fn get(&self, cpu: u32, register: u32) -> u64 {
        self.gic.read_system_register(cpu, register).unwrap()
    }

    fn set(&self, cpu: u32, register: u32, value: u64) {
        self.gic
            .write_system_register(cpu, register, value)
            .unwrap();
    }

    fn irq(&self, cpu: usize) -> bool {
        self.irq[cpu].load(SeqCst)
    }

    fn fiq(&self, cpu: usize) -> bool {
        self.fiq[cpu].load(SeqCst)
    }

    /// Enables SPI INTID `intid` at a priority.
    fn enable(&self, intid: u32, priority: u8) {
        let (word, bit) = (u64::from(intid / 32) * 4, 1 << (intid % 32));
        self.w8(GICD + 0x400 + u64::from(intid), priority);
        self.w(GICD + 0x100 + word, bit);
    }

    fn make_edge(&self, intid: u32) {
        let at = GICD + 0xc00 + u64::from(intid / 16) * 4;
        self.w(at, self.r(at) | 2 << (intid % 16 * 2));
    }
}

#[test]
fn shows_what_qemu_shows() {
    let b = Board::new(20, true);
    let gicd = [
        (0, 0x50),
        (4, 0x37a_0008),
        (8, 0x43b),
        (0xffe0, 0x92),
        (0xffe8, 0x3b),
    ];
    for (offset, value) in gicd {
        assert_eq!(b.r(GICD + offset), value, "{offset:#x}");
    }
    b.w(GICD, u32::MAX);
    assert_eq!(b.r(GICD), 0x53);
    assert_eq!(b.r(GICR), 2);
    assert_eq!(b.r(GICR + 0x14), 6);
    assert_eq!(b.r64(GICR + 8), 0x100_0001);
    assert_eq!(b.r64(b.rd(2) + 8), 0x2_0100_0211, "the last of its region");
    assert_eq!(b.r64(b.rd(17) + 8), 0x101_0100_1101);
    assert_eq!(b.r64(b.rd(19) + 8), 0x103_0100_1311);
    assert_eq!(b.r(GICR + 0x1_0c00), 0xaaaa_aaaa);
    assert_eq!(b.r(GITS), 0x8000_0000);
    assert_eq!(b.r64(GITS + 8), 0x1f_0001_efb1);
    assert_eq!(b.r64(GITS + 0x100), 0x107_0000_0000_0200);
    assert_eq!(b.r64(GITS + 0x108), 0x407_0000_0000_0200);
    b.w64(GITS + 0x100, 0x7fff_ffff_ffff_ffff);
    assert_eq!(b.r64(GITS + 0x100), 0x79e7_ffff_ffff_ffff);
    assert_eq!(b.get(0, CTLR_EL1), 0x8c00);
    assert_eq!(b.get(0, SRE_EL1), 7);
    assert_eq!((b.get(0, BPR0_EL1), b.get(0, BPR1_EL1)), (2, 3));
    assert_eq!((b.get(0, RPR_EL1), b.get(0, IAR1_EL1)), (0xff, 1023));
    assert_eq!(b.gic.read_system_register(0, EOIR1_EL1), None);
    assert_eq!(b.gic.write_system_register(0, IAR1_EL1, 0), None);
    assert_eq!(
        b.gic
            .read_system_register(0, crate::system_register(3, 0, 12, 9, 1)),
        None
    );
    let without = Board::new(2, false);
    assert_eq!(without.r(GICD + 4), 0x378_0008);
    assert_eq!(without.r64(GICR + 8) & 1, 0);
    assert_eq!(without.r(GICR), 0);
}

#[test]
fn a_level_interrupt_from_line_to_end() {
    let b = Board::ready(2, false);
    let line = b.gic.spi(1);
    line.set(true);
    assert!(!b.irq(0), "not enabled");
    b.enable(33, 0x80);
    assert!(b.irq(0) && !b.irq(1) && !b.fiq(0));
    assert_eq!(b.get(1, IAR1_EL1), 1023);
    assert_eq!(b.get(0, IAR0_EL1), 1023, "it is of group 1");
    assert_eq!(b.get(0, HPPIR1_EL1), 33);
    assert_eq!(b.get(0, IAR1_EL1), 33);
    assert_eq!(b.get(0, RPR_EL1), 0x80);
    assert!(!b.irq(0));
    assert_eq!(
        (b.r(GICD + 0x204), b.r(GICD + 0x304)),
        (2, 2),
        "active and pending"
    );
    b.set(0, EOIR1_EL1, 33);
    assert!(b.irq(0), "the line is still high");
    assert_eq!(b.get(0, IAR1_EL1), 33);
    line.set(false);
    b.set(0, EOIR1_EL1, 33);
    assert!(!b.irq(0));
    assert_eq!((b.r(GICD + 0x204), b.r(GICD + 0x304)), (0, 0));
}

#[test]
fn an_edge_counts_while_active() {
    let b = Board::ready(1, false);
    b.make_edge(40);
    b.enable(40, 0x80);
    let line = b.gic.spi(8);
    line.set(true);
    line.set(true);
    assert_eq!(b.get(0, IAR1_EL1), 40);
    assert!(!b.irq(0));
    line.pulse();
    line.set(false);
    b.set(0, EOIR1_EL1, 40);
    assert!(!b.irq(0), "the level was high already: no edge; it fell");
    line.pulse();
    assert_eq!(b.get(0, IAR1_EL1), 40);
    line.pulse();
    line.pulse();
    assert_eq!(b.r(GICD + 0x204), 1 << 8);
    b.set(0, EOIR1_EL1, 40);
    assert_eq!(b.get(0, IAR1_EL1), 40, "two edges are one");
    b.set(0, EOIR1_EL1, 40);
    assert!(!b.irq(0));
}

#[test]
fn preemption_goes_by_group_priority() {
    let b = Board::ready(1, false);
    for (intid, priority) in [(40, 0xa0), (41, 0xa8), (42, 0x98), (43, 0x40)] {
        b.enable(intid, priority);
    }
    b.set(0, BPR1_EL1, 5);
    let line = |n: u32| b.gic.spi(n - 32);
    line(41).set(true);
    assert_eq!(b.get(0, IAR1_EL1), 41);
    assert_eq!(
        b.get(0, RPR_EL1),
        0xa0,
        "the running priority is the group priority"
    );
    line(40).set(true);
    assert!(!b.irq(0), "the same group priority does not preempt");
    line(42).set(true);
    assert!(b.irq(0));
    assert_eq!(b.get(0, IAR1_EL1), 42);
    line(43).set(true);
    assert_eq!(b.get(0, IAR1_EL1), 43);
    assert_eq!(
        b.get(0, AP1R0_EL1),
        1 << (0x40 / 8) | 1 << (0x80 / 8) | 1 << (0xa0 / 8)
    );
    for n in [43, 42, 41] {
        line(n).set(false);
        b.set(0, EOIR1_EL1, n.into());
    }
    assert_eq!(b.get(0, RPR_EL1), 0xff);
    assert_eq!(b.get(0, IAR1_EL1), 40);
}

#[test]
fn masks() {
    let b = Board::ready(1, false);
    b.enable(40, 0x80);
    b.gic.spi(8).set(true);
    assert!(b.irq(0));
    b.set(0, PMR_EL1, 0x80);
    assert!(!b.irq(0), "the priority must be higher than the mask");
    assert_eq!(b.get(0, IAR1_EL1), 1023);
    assert_eq!(b.get(0, HPPIR1_EL1), 40);
    b.set(0, PMR_EL1, 0x88);
    assert!(b.irq(0));
    b.set(0, IGRPEN1_EL1, 0);
    assert!(!b.irq(0));
    b.set(0, IGRPEN1_EL1, 1);
    b.w(GICD, 1);
    assert!(!b.irq(0));
    b.w(GICD, 2);
    assert!(b.irq(0));
    b.w(GICD + 0x184, 1 << 8);
    assert!(!b.irq(0));
}

#[test]
fn end_and_deactivation_apart() {
    let b = Board::ready(1, false);
    b.set(0, CTLR_EL1, 2);
    b.enable(40, 0x80);
    b.enable(41, 0x80);
    b.gic.spi(8).set(true);
    assert_eq!(b.get(0, IAR1_EL1), 40);
    b.set(0, EOIR1_EL1, 40);
    assert_eq!(b.get(0, RPR_EL1), 0xff);
    assert_eq!(b.r(GICD + 0x304), 1 << 8);
    assert!(!b.irq(0), "still active");
    b.gic.spi(9).set(true);
    assert_eq!(b.get(0, IAR1_EL1), 41, "the priority has dropped");
    b.set(0, EOIR1_EL1, 41);
    b.set(0, DIR_EL1, 40);
    assert!(b.irq(0));
    b.set(0, CTLR_EL1, 0);
    assert_eq!(b.get(0, IAR1_EL1), 40);
    b.set(0, DIR_EL1, 40);
    assert_eq!(
        b.r(GICD + 0x304) >> 8 & 1,
        1,
        "DIR does nothing with EOImode 0"
    );
}

#[test]
fn group_0_is_fiq() {
    let b = Board::ready(1, false);
    b.enable(40, 0x80);
    b.enable(41, 0x40);
    b.w(GICD + 0x84, !(1 << 9));
    b.gic.spi(8).set(true);
    assert!(b.irq(0));
    b.gic.spi(9).set(true);
    assert!(b.fiq(0) && !b.irq(0), "one at a time: the more urgent");
    assert_eq!((b.get(0, HPPIR1_EL1), b.get(0, HPPIR0_EL1)), (1023, 41));
    assert_eq!(b.get(0, IAR1_EL1), 1023);
    assert_eq!(b.get(0, IAR0_EL1), 41);
    assert_eq!((b.get(0, AP0R0_EL1), b.get(0, AP1R0_EL1)), (1 << 8, 0));
    b.set(0, EOIR1_EL1, 41);
    assert_eq!(b.get(0, RPR_EL1), 0x40, "EOIR1 does not end group 0");
    b.gic.spi(9).set(false);
    b.set(0, EOIR0_EL1, 41);
    assert!(b.irq(0) && !b.fiq(0));
}

#[test]
fn sgis() {
    let b = Board::ready(20, false);
    // Aff1 = 1: processors 16 to 19; Aff0 1 and 3, and 9, which is not there.
    b.set(0, SGI1R_EL1, 5 << 24 | 1 << 16 | 0x20a);
    let hit: Vec<usize> = (0..20).filter(|&cpu| b.irq(cpu)).collect();
    assert_eq!(hit, [17, 19]);
    assert_eq!(b.get(17, IAR1_EL1), 5);
    b.set(17, EOIR1_EL1, 5);
    assert!(!b.irq(17));
    assert_eq!(b.get(19, IAR1_EL1), 5);
    b.set(4, SGI1R_EL1, 1 << 40 | 2 << 24 | 0xffff);
    assert!((0..20).all(|cpu| b.irq(cpu) == (cpu != 4 && cpu != 19)));
    b.set(19, EOIR1_EL1, 5);
    assert!(b.irq(19));
    // Range selector 1: Aff0 from 16 on, which is nobody.
    b.set(0, SGI1R_EL1, 1 << 44 | 3 << 24 | 0xffff);
    assert_eq!(b.r(b.sgi(1) + 0x200), 1 << 2);
    // Group 0's register reaches group 0 interrupts only.
    b.set(0, SGI0R_EL1, 7 << 24 | 2);
    assert_eq!(b.r(b.sgi(1) + 0x200), 1 << 2);
    b.w(b.sgi(1) + 0x80, !(1 << 7));
    b.set(0, SGI0R_EL1, 7 << 24 | 2);
    assert_eq!(b.r(b.sgi(1) + 0x200), 1 << 7 | 1 << 2);
}

#[test]
fn ppis_are_private() {
    let b = Board::ready(2, false);
    let timer = b.gic.ppi(1, 27);
    timer.set(true);
    assert!(b.irq(1) && !b.irq(0));
    assert_eq!(b.get(1, IAR1_EL1), 27);
    b.set(1, EOIR1_EL1, 27);
    assert!(b.irq(1));
    b.w(b.sgi(1) + 0x180, 1 << 27);
    assert!(!b.irq(1));
    assert_eq!(b.r(b.sgi(1) + 0x200), 1 << 27);
    b.gic.ppi(2, 27).set(true);
    b.gic.ppi(1, 15).set(true);
    b.gic.spi(256).set(true);
    assert!(!b.irq(1));
}

#[test]
fn routing() {
    let b = Board::ready(18, false);
    b.enable(40, 0x80);
    b.gic.spi(8).set(true);
    assert!(b.irq(0));
    b.w64(GICD + 0x6000 + 8 * 40, 0x101);
    assert!(!b.irq(0) && b.irq(17));
    b.w64(GICD + 0x6000 + 8 * 40, 0x1_0000_0101);
    assert!((0..18).all(|cpu| !b.irq(cpu)), "nobody has that affinity");
    // 1 of N goes to who takes group 1.
    for cpu in 0..18 {
        b.set(cpu, IGRPEN1_EL1, 0);
    }
    b.w64(GICD + 0x6000 + 8 * 40, gicd::IROUTER_IRM);
    assert!((0..18).all(|cpu| !b.irq(cpu)));
    b.set(5, IGRPEN1_EL1, 1);
    assert!(b.irq(5));
    b.set(5, IGRPEN1_EL1, 0);
    b.set(6, IGRPEN1_EL1, 1);
    b.set(3, IGRPEN1_EL1, 1);
    let taken: Vec<u64> = (0..18).map(|cpu| b.get(cpu, IAR1_EL1)).collect();
    assert_eq!(taken.iter().filter(|&&intid| intid == 40).count(), 1);
    assert_eq!(taken[3], 40);
    // Another one goes to a processor that is idle.
    b.w64(GICD + 0x6000 + 8 * 41, gicd::IROUTER_IRM);
    b.enable(41, 0x80);
    b.gic.spi(9).set(true);
    assert!(b.irq(6));
}

#[test]
fn v2m_messages() {
    let b = Board::ready(1, false);
    assert_eq!(b.r(V2M + 8), 0x0050_0040);
    b.make_edge(80);
    b.make_edge(143);
    b.enable(80, 0x80);
    b.enable(143, 0x90);
    let send = |data| {
        b.gic.msi(Msi {
            address: V2M + 0x40,
            data,
            device: 8,
        })
    };
    send(79);
    send(144);
    send(1023);
    send(0);
    b.gic.msi(Msi {
        address: V2M + 0x44,
        data: 80,
        device: 8,
    });
    assert!(!b.irq(0));
    send(143);
    b.w(V2M + 0x40, 80);
    assert_eq!((b.get(0, IAR1_EL1), b.r(GICD + 0x210)), (80, 1 << 15));
    b.set(0, EOIR1_EL1, 80);
    assert_eq!(b.get(0, IAR1_EL1), 143);
}

#[test]
fn message_based_spis_by_configuration() {
    let ram = Ram::new(&[(RAM, 0x1_0000)]).unwrap();
    let config = Config {
        message_based_spis: true,
        ..config(1, false)
    };
    let gic = Gicv3::new(config, vec![CpuLines::unconnected()], ram.dma()).unwrap();
    let gicd = &gic.frames()[0].mmio;
    assert_eq!(gicd.read(Access::new(4, 4)) >> 16 & 1, 1);
    gicd.write(Access::new(0x40, 4), 33);
    gic.msi(Msi {
        address: GICD + 0x40,
        data: 34,
        device: 0,
    });
    assert_eq!(gicd.read(Access::new(0x204, 4)), 6);
    gicd.write(Access::new(0x48, 4), 33);
    assert_eq!(gicd.read(Access::new(0x204, 4)), 4);
}

#[test]
fn snapshot_and_reset() {
    use its::*;
    let b = its_board(3);
    b.property(8200, 0xa1);
    b.commands(&[mapd(0x10, 5, ITT), mapc(3, 2), mapti(0x10, 4, 8200, 3)]);
    b.signal(0x10, 4);
    b.enable(40, 0x40);
    b.gic.spi(8).set(true);
    b.gic.ppi(1, 27).set(true);
    assert_eq!(b.get(0, IAR1_EL1), 40);
    let text = serde_json::to_string(&b.gic.save()).unwrap();

    let other = Board::new(3, true);
    other
        .gic
        .restore(serde_json::from_str(&text).unwrap())
        .unwrap();
    assert_eq!(other.gic.save(), b.gic.save());
    assert!(!other.irq(0) && other.irq(1) && other.irq(2));
    assert_eq!(other.get(2, IAR1_EL1), 8200);
    other.gic.spi(8).set(true);
    other.set(0, EOIR1_EL1, 40);
    assert!(other.irq(0));
    other.gic.spi(8).set(false);
    assert!(!other.irq(0));
    assert!(Board::new(2, true).gic.restore(b.gic.save()).is_err());
    assert!(Board::new(3, false).gic.restore(b.gic.save()).is_err());

    b.gic.reset();
    assert!((0..3).all(|cpu| !b.irq(cpu) && !b.fiq(cpu)));
    let mut expected = State::power_on(&config(3, true));
    expected.spis[0].level = 1 << 8;
    expected.pes[1].private.level = 1 << 27;
    assert_eq!(
        b.gic.save().state,
        expected,
        "only the wires keep their levels"
    );
    assert_eq!(b.gic.save().its, Some(ItsState::power_on()));
}

#[test]
fn refuses_impossible_machines() {
    let ram = Ram::new(&[(RAM, 0x1_0000)]).unwrap();
    let make = |config: Config, lines: usize| {
        Gicv3::new(config, vec![CpuLines::unconnected(); lines], ram.dma()).err()
    };
    assert!(matches!(
        make(config(0, false), 0),
        Some(ConfigError::Processors(0))
    ));
    assert!(matches!(
        make(config(2, false), 1),
        Some(ConfigError::Lines { .. })
    ));
    let small = Config {
        redistributors: vec![(GICR, 1)],
        ..config(2, false)
    };
    assert!(matches!(
        make(small, 2),
        Some(ConfigError::Room { room: 1, cpus: 2 })
    ));
    let same = Config {
        affinities: vec![1, 1],
        ..config(2, false)
    };
    assert!(matches!(make(same, 2), Some(ConfigError::Affinity(1))));
    assert!(make(config(512, true), 512).is_none());
}
