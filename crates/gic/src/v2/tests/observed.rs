//! A random walk that must go as it went on QEMU (see `tests/observed`), and one that must not panic.

use super::*;
use crate::random::{INTIDS, Observed, Random};

fn step(b: &Board, op: u32, n: u32, random: &mut Random, taken: &mut Vec<u32>) -> u32 {
    let bank = GICD + u64::from(n / 32) * 4;
    let bit = 1u32 << (n % 32);
    let mut value = 0xff_ffff;
    match op {
        0 => b.w(0, bank + 0x80, random.next()),
        1 | 2 => b.w(0, bank + 0x100, random.few() | bit),
        3 => b.w(0, bank + 0x180, bit),
        4 | 5 => b.w(0, bank + 0x200, bit),
        6 => b.w(0, bank + 0x280, bit),
        7 if random.below(4) == 0 => b.w(0, bank + 0x300, bit),
        7 => b.w(0, bank + 0x380, bit),
        8 | 9 => b.w8(0, GICD + 0x400 + u64::from(n), random.next() as u8),
        10 => b.w(
            0,
            GICD + if n < 32 { 0xc04 } else { 0xc08 },
            random.next() & 0xaaaa_aaaa,
        ),
        11 | 12 => {
            let pmr = random.next() & 0xff;
            b.w(
                0,
                GICC + gicc::PMR,
                if random.below(3) != 0 {
                    pmr | 0xc0
                } else {
                    pmr
                },
            );
        }
        13 => {
            let bpr = random.below(7);
            if b.r(0, GICC + gicc::RPR) == 0xff {
                b.w(0, GICC + gicc::BPR, bpr);
                b.w(0, GICC + gicc::ABPR, bpr + 1);
            }
        }
        14 | 15 => {
            let ctlr = random.next() & 0x21f;
            let ctlr = if random.below(2) != 0 {
                ctlr & 0x1f
            } else {
                ctlr
            };
            b.w(0, GICC + gicc::CTLR, ctlr | 3);
        }
        16..=19 => {
            value = b.iar(0);
            if value & 0x3ff < 1020 && taken.len() < 64 {
                taken.push(value);
            }
        }
        20..=22 => {
            let which = random.below(8);
            let intid = if which != 0 {
                taken.pop().unwrap_or(n)
            } else {
                n
            };
            b.w(
                0,
                GICC + if which == 7 { gicc::DIR } else { gicc::EOIR },
                intid,
            );
        }
        _ => {
            let filter = random.below(3) << 24;
            let targets = random.below(8) << 16;
            b.w(0, GICD + gicd::SGIR, filter | targets | random.below(4));
        }
    }
    value
}

#[test]
fn goes_as_on_qemu() {
    let b = Board::new(3);
    let mut observed = Observed::new(include_str!("../../../tests/observed/walk2.txt"));
    let mut random = Random(88172645463325252);
    let mut taken = vec![];
    for i in (32..64).step_by(4) {
        b.w(0, GICD + 0x800 + i, 0x0101_0101);
    }
    b.w(0, GICD, 3);
    b.w(0, GICC + gicc::PMR, 0xff);
    b.w(0, GICC, 3);
    for _ in 0..observed.steps() {
        let op = random.below(24);
        let n = INTIDS[random.below(12) as usize];
        let value = step(&b, op, n, &mut random, &mut taken);
        let mut answers = vec![
            value,
            u32::from(b.irq(0)) << 1 | u32::from(b.fiq(0)),
            b.r(0, GICC + gicc::RPR),
        ];
        answers.extend((0..8).map(|i| b.r(0, GICC + gicc::APR + 4 * i)));
        answers.push(b.r(0, GICC));
        answers.extend([0x204, 0x304, 0x200, 0x300, 0xf20].map(|offset| b.r(0, GICD + offset)));
        let answers: Vec<u64> = answers.into_iter().map(u64::from).collect();
        observed.step(&answers);
    }
    assert_eq!(observed.steps(), 20000);
}

#[test]
fn survives_anything() {
    for cpus in [1, 3, 8] {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(cpus));
        let b = Board::ready(cpus);
        for step in 0..30_000 {
            let frame = &b.frames[random.below(3) as usize];
            let width = [1, 2, 4, 8][random.below(4) as usize];
            let within = if random.below(8) != 0 {
                0x1000
            } else {
                frame.size as u32
            };
            let offset = u64::from(random.below(within.min(frame.size as u32) - 8));
            let access = Access {
                offset,
                width,
                cpu: random.below(cpus + 1),
            };
            match random.below(8) {
                0..=2 => drop(frame.mmio.read(access)),
                3..=5 => frame.mmio.write(access, random.next64() & access.mask()),
                6 => b.gic.spi(random.below(260)).set(random.below(2) == 0),
                _ => b
                    .gic
                    .ppi(random.below(9), random.below(40))
                    .set(random.below(2) == 0),
            }
            let _ = (b.iar(random.below(cpus)), b.r(0, GICC + gicc::HPPIR));
            if step % 50 == 0 {
                let lines: Vec<_> = (0..cpus as usize).map(|i| (b.irq(i), b.fiq(i))).collect();
                b.gic.restore(b.gic.save()).unwrap();
                let anew: Vec<_> = (0..cpus as usize).map(|i| (b.irq(i), b.fiq(i))).collect();
                assert_eq!(lines, anew, "step {step}");
            }
        }
    }
}
