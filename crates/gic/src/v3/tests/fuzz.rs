//! Accesses at random: nothing may panic or hang, and what is derived must be what it would be if derived anew.

use super::its::*;
use super::*;
use crate::random::Random;

const REGISTERS: [u32; 20] = [
    PMR_EL1,
    IAR0_EL1,
    EOIR0_EL1,
    HPPIR0_EL1,
    BPR0_EL1,
    AP0R0_EL1,
    AP1R0_EL1,
    DIR_EL1,
    RPR_EL1,
    SGI1R_EL1,
    ASGI1R_EL1,
    SGI0R_EL1,
    IAR1_EL1,
    EOIR1_EL1,
    HPPIR1_EL1,
    BPR1_EL1,
    CTLR_EL1,
    SRE_EL1,
    IGRPEN0_EL1,
    IGRPEN1_EL1,
];

/// A value with some structure: small, an address in RAM, or anything.
fn value(random: &mut Random) -> u64 {
    match random.below(5) {
        0 => random.below(300).into(),
        1 => u64::from(random.below(60000)) + 8000,
        2 => (RAM + u64::from(random.below(0x40_0000))) | 1 << 63,
        3 => 1 << random.below(64),
        _ => random.next64(),
    }
}

fn command(random: &mut Random) -> [u64; 4] {
    let device = u64::from(random.below(4));
    let id = u64::from(random.below(8));
    let lpi = u64::from(8192 + random.below(8));
    let collection = u64::from(random.below(4));
    let cpu = u64::from(random.below(4));
    match random.below(14) {
        0 => mapd(device, 3, ITT + device * 0x1000),
        1 | 2 => mapc(collection, cpu),
        3..=5 => mapti(device, id, lpi, collection),
        6 => [0xd, 0, collection, 0],
        7 => [0xe, 0, cpu << 16, u64::from(random.below(3)) << 16],
        8 => [device << 32 | 1, id, collection, 0],
        9 => [value(random), value(random), value(random), value(random)],
        _ => event([3, 4, 0xc, 0xf][random.below(4) as usize], device, id),
    }
}

/// Makes one access; whether that took an LPI.
fn one(b: &Board, random: &mut Random) -> bool {
    let cpu = random.below(4);
    match random.below(16) {
        0..=2 => {
            let frame = &b.frames[random.below(b.frames.len() as u32) as usize];
            let width = [1, 2, 4, 8][random.below(4) as usize];
            let within = if random.below(2) == 0 {
                0x1000
            } else {
                frame.size as u32
            };
            let offset = u64::from(random.below(within - 8));
            let access = Access { offset, width, cpu };
            if random.below(3) == 0 {
                frame.mmio.read(access);
            } else {
                frame.mmio.write(access, value(random) & access.mask());
            }
        }
        3 | 4 => {
            let intid = b.get(cpu % 3, IAR1_EL1);
            if random.below(4) != 0 {
                b.set(cpu % 3, EOIR1_EL1, intid);
            }
            return intid >= 8192;
        }
        5 => {
            let register = REGISTERS[random.below(20) as usize];
            b.gic.read_system_register(cpu, register);
        }
        6 | 7 => {
            let register = REGISTERS[random.below(20) as usize];
            b.gic.write_system_register(cpu, register, value(random));
        }
        8 => b.gic.spi(random.below(260)).set(random.below(2) == 0),
        9 => b.gic.ppi(cpu, random.below(40)).set(random.below(16) == 0),
        10 => b.signal(random.below(5), random.below(9)),
        11 => b.property(u64::from(8192 + random.below(8)), random.next() as u8),
        12 => {
            let address = [GITS + 0x1_0040, V2M + 0x40, value(random)][random.below(3) as usize];
            let message = Msi {
                address,
                data: value(random) as u32,
                device: value(random) as u32,
            };
            b.gic.msi(message);
        }
        13 if random.below(8) == 0 => {
            let at = RAM + 0x2_0000 + u64::from(random.below(0x4000)) * 8;
            b.dma.write_u64(at, value(random)).unwrap();
        }
        _ => {
            let at = b.r64(GITS + gits::CREADR) & 0xffe0;
            for (i, word) in command(random).into_iter().enumerate() {
                b.dma.write_u64(QUEUE + at + 8 * i as u64, word).unwrap();
            }
            b.w64(GITS + gits::CWRITER, (at + 32) % 0x1_0000);
        }
    }
    false
}

#[test]
fn survives_anything() {
    for seed in 1..=6 {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ seed);
        let b = its_board(3);
        let mut lpis = 0;
        for step in 0..20_000 {
            if step % 200 == 199 {
                b.gic.reset();
                b.open(3);
                open_its(&b, 3);
            }
            lpis += u32::from(one(&b, &mut random));
            if step % 50 == 0 {
                let saved = b.gic.save();
                let lines: Vec<_> = (0..3).map(|cpu| (b.irq(cpu), b.fiq(cpu))).collect();
                b.gic.restore(saved.clone()).unwrap();
                assert_eq!(b.gic.save(), saved);
                let one_of_n = saved
                    .state
                    .irouter
                    .iter()
                    .any(|r| r & gicd::IROUTER_IRM != 0);
                let anew: Vec<_> = (0..3).map(|cpu| (b.irq(cpu), b.fiq(cpu))).collect();
                assert!(one_of_n || lines == anew, "seed {seed}, step {step}");
            }
        }
        assert!(lpis > 20, "the walk gets as far as LPIs: {lpis}");
    }
}

/// Lines end at what the state wants, however threads race.
#[test]
fn lines_settle() {
    let b = Board::ready(2, false);
    b.enable(40, 0x80);
    b.enable(41, 0x80);
    std::thread::scope(|scope| {
        for n in [8, 9] {
            let line = b.gic.spi(n);
            scope.spawn(move || (0..20_000).for_each(|i| line.set(i % 2 == 0)));
        }
        let b = &b;
        scope.spawn(move || {
            for _ in 0..20_000 {
                let intid = b.get(0, IAR1_EL1);
                b.set(0, EOIR1_EL1, intid);
            }
        });
    });
    assert!(!b.irq(0));
    b.gic.spi(8).set(true);
    assert!(b.irq(0));
}
