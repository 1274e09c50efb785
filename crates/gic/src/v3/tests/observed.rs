//! A random walk that must go as it went on QEMU: see `tests/observed`.

use super::*;
use crate::random::{INTIDS, Observed, Random};

fn step(b: &Board, op: u32, n: u32, random: &mut Random, taken: &mut Vec<u32>) -> u64 {
    let sgi = b.sgi(0);
    let bank = if n < 32 { sgi } else { GICD + 4 };
    let bit = 1u32 << (n % 32);
    let mut value = 0xff_ffff;
    match op {
        0 => b.w(bank + 0x80, random.next()),
        1 | 2 => b.w(bank + 0x100, random.few() | bit),
        3 => b.w(bank + 0x180, bit),
        4 | 5 => b.w(bank + 0x200, bit),
        6 => b.w(bank + 0x280, bit),
        7 if random.below(4) == 0 => b.w(bank + 0x300, bit),
        7 => b.w(bank + 0x380, bit),
        8 | 9 => {
            let base = if n < 32 { sgi } else { GICD };
            b.w8(base + 0x400 + u64::from(n), random.next() as u8 & 0xf8);
        }
        10 => b.w(
            if n < 32 { sgi + 0xc04 } else { GICD + 0xc08 },
            random.next(),
        ),
        11 => {
            let to = random.below(4);
            if n >= 32 {
                b.w64(GICD + 0x6000 + 8 * u64::from(n), u64::from(to % 3));
            }
        }
        12 => {
            let pmr = random.next() & 0xff;
            b.set(
                0,
                PMR_EL1,
                if random.below(3) != 0 {
                    pmr | 0xc0
                } else {
                    pmr
                }
                .into(),
            );
        }
        13 => {
            let bpr = random.below(8).into();
            b.set(
                0,
                if random.below(2) != 0 {
                    BPR0_EL1
                } else {
                    BPR1_EL1
                },
                bpr,
            );
        }
        14 => {
            let ctlr = random.below(4);
            b.set(
                0,
                CTLR_EL1,
                if random.below(2) != 0 { ctlr & 1 } else { ctlr }.into(),
            );
        }
        15 => {
            let enable = u64::from(random.below(4) != 0);
            b.set(
                0,
                if random.below(2) != 0 {
                    IGRPEN0_EL1
                } else {
                    IGRPEN1_EL1
                },
                enable,
            );
        }
        16 => b.w(
            GICD,
            if random.below(8) != 0 {
                3
            } else {
                random.below(4)
            },
        ),
        17..=20 => {
            value = b.get(0, if op < 19 { IAR0_EL1 } else { IAR1_EL1 });
            if value < 1020 && taken.len() < 64 {
                taken.push(value as u32);
            }
        }
        21 | 22 => {
            let which = random.below(8);
            let intid = if which != 0 {
                taken.pop().unwrap_or(n)
            } else {
                n
            };
            let register = match which {
                7 => DIR_EL1,
                _ if random.below(2) != 0 => EOIR0_EL1,
                _ => EOIR1_EL1,
            };
            b.set(0, register, intid.into());
        }
        _ => {
            let sgi = u64::from(random.below(4)) << 24;
            let register = [SGI0R_EL1, SGI1R_EL1, ASGI1R_EL1][random.below(3) as usize];
            let to = if random.below(4) == 0 {
                1 << 40
            } else {
                random.below(8).into()
            };
            b.set(0, register, sgi | to);
        }
    }
    value
}

#[test]
fn goes_as_on_qemu() {
    let b = Board::new(3, false);
    let sgi = b.sgi(0);
    let mut observed = Observed::new(include_str!("../../../tests/observed/walk3.txt"));
    let mut random = Random(88172645463325252);
    let mut taken = vec![];
    b.w(GICD, 3);
    b.set(0, PMR_EL1, 0xf8);
    b.set(0, IGRPEN0_EL1, 1);
    b.set(0, IGRPEN1_EL1, 1);
    for _ in 0..observed.steps() {
        let op = random.below(24);
        let n = INTIDS[random.below(12) as usize];
        let value = step(&b, op, n, &mut random, &mut taken);
        observed.step(&[
            value,
            u64::from(b.irq(0)) << 1 | u64::from(b.fiq(0)),
            b.get(0, HPPIR0_EL1),
            b.get(0, HPPIR1_EL1),
            b.get(0, RPR_EL1),
            b.get(0, AP0R0_EL1),
            b.get(0, AP1R0_EL1),
            b.get(0, BPR1_EL1),
            b.r(GICD + 0x204).into(),
            b.r(GICD + 0x304).into(),
            b.r(sgi + 0x200).into(),
            b.r(sgi + 0x300).into(),
            b.r(sgi + 0x2_0200).into(),
        ]);
    }
    assert_eq!(observed.steps(), 20000);
}
