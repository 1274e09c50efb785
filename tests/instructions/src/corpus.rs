//! Cases out of the decode table's patterns.

use aarch64::Instruction;
use anyhow::Result;

use crate::random::Random;
use crate::subject::Subject;
use crate::{BRK, CODE, Case, DATA, End, PAGE, SLOT, SLOTS, State, WINDOW};

/// Instructions that are left to other tests: of exception levels above EL0, calls, system registers (by
/// [`SYSTEM_WORDS`] instead), and waiting.
const LEFT_OUT: &[&str] = &[
    "svc",
    "hvc",
    "smc",
    "hlt",
    "eret",
    "eret_authenticated",
    "msr_immediate",
    "msr",
    "mrs",
    "sys",
];

/// System instructions with no effect beyond the state: MRS and MSR of NZCV, FPCR and FPSR, and DC ZVA, with Xt to be
/// filled in.
const SYSTEM_WORDS: &[u32] = &[
    0xd53b_4200,
    0xd51b_4200,
    0xd53b_4400,
    0xd51b_4400,
    0xd53b_4420,
    0xd51b_4420,
    0xd50b_7420,
];

/// The instructions that cases are made for.
pub fn instructions() -> impl Iterator<Item = Instruction> {
    let n1 = cpu::Features::model("neoverse-n1")
        .map(|f| f.extensions)
        .unwrap_or_default();
    aarch64::decode::ALL
        .iter()
        .copied()
        .filter(|i| !LEFT_OUT.contains(&i.name()))
        .filter(move |i| i.extension().is_none_or(|e| n1.has(e)))
}

/// A word that matches the pattern. Fields are all zero or all one more often than by chance.
pub fn encoding(instruction: Instruction, random: &mut Random) -> u32 {
    let pattern = instruction.pattern().as_bytes();
    let mut word = 0;
    let mut kinds = [0; 128];
    for kind in &mut kinds {
        *kind = random.below(10);
    }
    for &c in pattern {
        let bit = match c {
            b'0' => 0,
            // Bits that should be one, and what happens if not is open.
            b'1' | b'.' => 1,
            _ => match kinds[usize::from(c & 127)] {
                0 => 0,
                1 => 1,
                _ => random.draw() as u32 & 1,
            },
        };
        word = word << 1 | bit;
    }
    word
}

/// Encodings of the system instructions that are compared.
pub fn system_encoding(random: &mut Random) -> u32 {
    random.pick(SYSTEM_WORDS) | random.below(32) as u32
}

/// A load-exclusive and the store-exclusive to the same address, in registers of their own.
pub fn exclusives(random: &mut Random) -> (u32, u32) {
    let pair = random.one_in(3);
    let size = if pair {
        2 | random.below(2) as u32
    } else {
        random.below(4) as u32
    };
    // Base, status, and two each to load and to store.
    let mut registers = [0; 6];
    let mut used = 0u32;
    for register in &mut registers {
        *register = loop {
            let n = random.below(31) as u32;
            if used >> n & 1 == 0 {
                used |= 1 << n;
                break n;
            }
        };
    }
    let [n, s, t, t2, u, u2] = registers;
    let (second, stored) = if pair { (t2, u2) } else { (31, 31) };
    let common = size << 30 | 0x0800_0000 | u32::from(pair) << 21 | n << 5;
    // Acquire and release or not.
    let mut ordered = || (random.below(2) as u32) << 15;
    let load = common | 1 << 22 | 31 << 16 | ordered() | second << 10 | t;
    let store = common | s << 16 | ordered() | stored << 10 | u;
    (load, store)
}

/// Whether the architecture leaves open what happens (CONSTRAINED UNPREDICTABLE), or a case cannot be run alone.
pub fn is_open(word: u32) -> bool {
    let field = |high: u32, low: u32| word >> low & (u32::MAX >> (31 - (high - low)));
    let (t, n, t2, s) = (field(4, 0), field(9, 5), field(14, 10), field(20, 16));
    let vector = field(26, 26) == 1;
    let load = field(22, 22) == 1;
    let base_is = |register: u32| register == n && n != 31;
    match field(29, 27) {
        // Pairs.
        0b101 => {
            let writes_back = field(23, 23) == 1;
            (load && t == t2) || (writes_back && !vector && (base_is(t) || base_is(t2)))
        }
        // Post- and pre-index.
        0b111 if field(25, 24) == 0 && field(21, 21) == 0 => {
            field(10, 10) == 1 && !vector && base_is(t)
        }
        // Exclusives.
        0b001 if field(26, 24) == 0 && field(23, 23) == 0 => {
            let pair = field(21, 21) == 1;
            if load {
                pair && t == t2
            } else {
                s == t || base_is(s) || (pair && s == t2)
            }
        }
        // WFE and WFI.
        _ => matches!(word, 0xd503_205f | 0xd503_207f),
    }
}

const INTEGERS: &[u64] = &[
    0,
    1,
    2,
    3,
    7,
    8,
    0x1f,
    0x20,
    0x3f,
    0x40,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0x8000,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7fff_ffff_ffff_ffff,
    0x8000_0000_0000_0000,
    0xffff_ffff_0000_0000,
    0xffff_ffff_8000_0000,
    0xffff_ffff_ffff_fffe,
    u64::MAX,
];

fn integer(random: &mut Random) -> u64 {
    match random.below(8) {
        0..=2 => random.pick(INTEGERS),
        3 => random.below(256),
        4 => (random.draw() as i32) as u64,
        5 => 1 << random.below(64),
        6 => CODE + 4 * random.below(4 * SLOTS as u64),
        _ => random.draw(),
    }
}

/// A floating-point number of that format: often special, or such that operations meet.
fn float(random: &mut Random, exponent: u32, fraction: u32) -> u64 {
    let sign = random.below(2) << (exponent + fraction);
    let most = (1u64 << exponent) - 1;
    let bias = most >> 1;
    let ones = (1u64 << fraction) - 1;
    let any = random.draw() & ones;
    let sparse = random.pick(&[
        0,
        1,
        ones,
        ones - 1,
        1 << (fraction - 1),
        ones >> 1,
        any,
        any,
    ]);
    let biased = match random.below(12) {
        0 => 0,
        1 => most,
        2 => most - 1,
        3 => 1,
        4 => random.below(most + 1),
        // Near one, near the ends of integers, near the fraction's length.
        5..=7 => bias.wrapping_add(random.below(9)).wrapping_sub(4),
        8 => bias + random.pick(&[7, 15, 16, 31, 32, 63, 64]),
        9 => bias + u64::from(fraction) - random.below(3),
        10 => random.below(u64::from(fraction) + 3),
        _ => most - random.below(u64::from(fraction) + 3).min(most),
    };
    sign | biased.min(most) << fraction | sparse
}

fn vector(random: &mut Random) -> u128 {
    let mut lanes = |bits: u32, exponent: u32, fraction: u32| {
        (0..128 / bits).fold(0, |v, _| {
            v << bits | u128::from(float(random, exponent, fraction))
        })
    };
    match lanes(16, 5, 10) as u64 % 7 {
        0 => lanes(16, 5, 10),
        1 | 2 => lanes(32, 8, 23),
        3 | 4 => lanes(64, 11, 52),
        5 => {
            let lane = random.pick(&[8, 16, 32, 64]);
            (0..128 / lane).fold(0, |v, _| {
                let value = random.pick(INTEGERS) >> random.pick(&[0, 0, 1, 32]);
                v << lane | u128::from(value) & ((1 << lane) - 1)
            })
        }
        _ => u128::from(random.draw()) << 64 | u128::from(random.draw()),
    }
}

/// A state with no regard to the instruction.
pub fn state(random: &mut Random) -> State {
    let mut fpcr = 0;
    // FZ16, RMode, FZ, DN, AHP.
    for (bits, often) in [
        (1 << 19, 4),
        (1 << 22, 4),
        (1 << 23, 4),
        (1 << 24, 4),
        (1 << 25, 4),
        (1 << 26, 6),
    ] {
        if random.one_in(often) {
            fpcr |= bits;
        }
    }
    let fpsr = if random.one_in(3) {
        random.draw() as u32 & 0x0800_009f
    } else {
        0
    };
    State {
        x: std::array::from_fn(|_| integer(random)),
        sp: WINDOW + PAGE - 256,
        nzcv: (random.below(16) << 28) as u32,
        fpcr,
        fpsr,
        v: std::array::from_fn(|_| vector(random)),
        data: std::array::from_fn(|_| random.draw() as u8),
        rest: 0,
    }
}

/// A state for an instruction: its address, if it makes one, is moved into the window (or now and then not).
pub fn case(word: u32, random: &mut Random, subject: &mut Subject) -> Result<Option<Case>> {
    if is_open(word) {
        return Ok(None);
    }
    let mut case = Case {
        word,
        then: BRK,
        state: state(random),
    };
    let is_memory = word >> 27 & 1 == 1 && word >> 25 & 1 == 0;
    let is_system = word >> 22 == 0xd500_0000 >> 22;
    if !is_memory && !is_system {
        return Ok(Some(case));
    }
    let base = if is_system { word & 31 } else { word >> 5 & 31 } as usize;
    for _ in 0..4 {
        let run = subject.run_alone(&case)?;
        let base = match base {
            31 => &mut case.state.sp,
            n => &mut case.state.x[n],
        };
        match run.outcome.end {
            End::DataFault if !random.one_in(16) => {
                let target = WINDOW + PAGE - DATA as u64 + random.below(DATA as u64 - 64);
                let target = if random.one_in(2) {
                    target
                } else {
                    target & !15
                };
                *base = base.wrapping_add(target.wrapping_sub(run.fault));
            }
            End::Alignment if !random.one_in(8) => {
                *base = base.wrapping_sub(run.fault & 15);
            }
            _ => break,
        }
    }
    Ok(Some(case))
}

/// Whether a branch may be followed: not to another case's instruction.
pub fn lands_well(end: End) -> bool {
    match end {
        End::Next(pc) => {
            !(CODE..CODE + SLOT * SLOTS as u64).contains(&pc) || !(pc & !3).is_multiple_of(SLOT)
        }
        _ => true,
    }
}

/// What fills the slot of a case that is not run.
pub const NOTHING: u32 = BRK;
