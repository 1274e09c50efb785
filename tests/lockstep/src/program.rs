//! Programs as trees, and the words they become.

use aarch64::registers as r;
use engine::State;

use crate::layout::{
    CODE, CODE_SIZE, DATA, LOG, LOG_END, OTHER_CODE, RAM, SIZE, TABLES, VECTORS, WRITABLE_CODE,
};
use crate::machine::END;

/// Registers that random instructions leave alone. The link of a function that calls others; loop counters by the depth
/// of functions; the log; the handler's second (saved in TPIDR_EL1).
const LINK: u32 = 24;
const COUNTERS: [u32; 3] = [28, 29, 25];
const LOG_AT: u32 = 26;
/// What the programs' own address arithmetic uses; random instructions may too.
const SCRATCH: u32 = 23;
const OTHER_SCRATCH: u32 = 22;
/// The first and the last that are reserved.
pub const RESERVED: std::ops::RangeInclusive<u32> = LINK..=30;

/// A piece of a program.
#[derive(Clone, Debug)]
pub enum Item {
    /// Instructions in a row, to be kept together.
    Words(Vec<u32>),
    /// So many times; the end by a comparison of the counter, or its flags.
    Loop {
        count: u32,
        by_flags: bool,
        body: Vec<Item>,
    },
    /// A branch over the body: the word of a conditional branch with no displacement.
    Skip { branch: u32, body: Vec<Item> },
    /// One of several ways, by the low bits of a register; through a jump table.
    Table { index: u32, arms: Vec<Vec<Item>> },
    /// A call of a function further down.
    Call { function: usize, how: How },
    /// A call to where nothing can be executed.
    BadCall(u64),
    /// A place for [`Item::Patch`].
    Slot(usize),
    /// Writes an instruction into a slot, as the architecture says to (DDI 0487, B2.2.5).
    Patch {
        slot: usize,
        word: u32,
        /// The address that IC IVAU is given: where it was written, or where it is executed.
        by_alias: bool,
    },
    /// To EL0, if at EL1.
    Drop,
    /// To EL1.
    Rise,
    /// Tells the world the registers.
    Tell,
}

/// How a function is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Direct,
    Pointer,
    /// At its other address.
    Alias,
}

/// A function, and where it begins.
#[derive(Clone, Debug)]
pub struct Function {
    /// Bytes from the start of the code, at the least.
    pub at: u64,
    pub body: Vec<Item>,
}

/// What a program is made of.
#[derive(Clone, Debug)]
pub struct Source {
    /// The first is where it begins. Each calls only those after it, and none is called through more than two others.
    pub functions: Vec<Function>,
    /// Nesting of calls that the function is at.
    pub depth: Vec<usize>,
    pub x: [u64; 31],
    pub v: [u128; 32],
    pub data: Vec<u8>,
    pub fpcr: u32,
    pub nzcv: u32,
    /// SCTLR_EL1 and TCR_EL1 bits besides what all programs have.
    pub sctlr: u64,
    pub tcr: u64,
}

/// A program as it lies in memory.
pub struct Program {
    pub memory: Vec<u8>,
    /// The words of its functions, with their addresses.
    pub words: Vec<(u64, u32)>,
    source: Source,
}

const NOP: u32 = 0xd503_201f;
const ISB: u32 = 0xd503_3fdf;
const DSB: u32 = 0xd503_3b9f;
/// SVC with this brings EL1.
const RISE: u32 = 0x77;

struct Assembler {
    words: Vec<u32>,
    /// Addresses of functions and slots, and what must be told them: index of a `li` of three words.
    functions: Vec<usize>,
    slots: Vec<usize>,
    wanted: Vec<(usize, u32, u64, Want)>,
    calls: Vec<(usize, usize)>,
}

enum Want {
    Function(usize),
    Slot(usize),
}

/// MOVZ and two MOVK of a 48-bit value.
fn li(register: u32, value: u64) -> [u32; 3] {
    let half = |at: u32| (value >> (16 * at)) as u32 & 0xffff;
    [
        0xd280_0000 | half(0) << 5 | register,
        0xf2a0_0000 | half(1) << 5 | register,
        0xf2c0_0000 | half(2) << 5 | register,
    ]
}

/// The same of 64 bits.
pub fn load_immediate(register: u32, value: u64) -> Vec<u32> {
    let mut words = li(register, value).to_vec();
    words.push(0xf2e0_0000 | ((value >> 48) as u32 & 0xffff) << 5 | register);
    words
}

/// MSR (register), SYS.
pub fn msr(register: u16, t: u32) -> u32 {
    0xd500_0000 | u32::from(register) << 5 | t
}

/// MRS.
pub fn mrs(t: u32, register: u16) -> u32 {
    0xd520_0000 | u32::from(register) << 5 | t
}

impl Assembler {
    fn push(&mut self, words: &[u32]) {
        self.words.extend_from_slice(words);
    }

    fn want(&mut self, register: u32, add: u64, want: Want) {
        self.wanted.push((self.words.len(), register, add, want));
        self.push(&[0; 3]);
    }

    fn items(&mut self, items: &[Item], depth: usize) {
        for item in items {
            self.item(item, depth);
        }
    }

    fn item(&mut self, item: &Item, depth: usize) {
        match item {
            Item::Words(words) => self.push(words),
            Item::Loop {
                count,
                by_flags,
                body,
            } => {
                let counter = COUNTERS[depth];
                self.push(&[0xd280_0000 | count << 5 | counter]);
                let top = self.words.len();
                self.items(body, depth);
                let by = |at: usize| ((top as i64 - at as i64) as u32 & 0x7_ffff) << 5;
                if *by_flags {
                    let at = self.words.len() + 1;
                    self.push(&[0xf100_0400 | counter << 5 | counter, 0x5400_0001 | by(at)]);
                } else {
                    let at = self.words.len() + 1;
                    self.push(&[
                        0xd100_0400 | counter << 5 | counter,
                        0xb500_0000 | by(at) | counter,
                    ]);
                }
            }
            Item::Skip { branch, body } => {
                let at = self.words.len();
                self.push(&[*branch]);
                self.items(body, depth);
                let mask = if branch >> 25 & 63 == 0b01_1011 {
                    0x3fff
                } else {
                    0x7_ffff
                };
                self.words[at] |= ((self.words.len() - at) as u32 & mask) << 5;
            }
            Item::Table { index, arms } => self.table(*index, arms, depth),
            Item::Call { function, how } => match how {
                How::Direct => {
                    self.calls.push((self.words.len(), *function));
                    self.push(&[0x9400_0000]);
                }
                How::Pointer | How::Alias => {
                    let add = if *how == How::Alias {
                        OTHER_CODE - CODE
                    } else {
                        0
                    };
                    self.want(SCRATCH, add, Want::Function(*function));
                    self.push(&[0xd63f_0000 | SCRATCH << 5]);
                }
            },
            Item::BadCall(address) => {
                self.push(&load_immediate(SCRATCH, *address));
                self.push(&[0xd63f_0000 | SCRATCH << 5]);
            }
            Item::Slot(slot) => {
                self.slots[*slot] = self.words.len();
                self.push(&[NOP]);
            }
            Item::Patch {
                slot,
                word,
                by_alias,
            } => self.patch(*slot, *word, *by_alias),
            Item::Drop => {
                // adr x23, behind; msr elr_el1, x23; msr spsr_el1, xzr; eret: each undefined at EL0, where it is so already
                self.push(&[
                    0x1000_0000 | 4 << 5 | SCRATCH,
                    msr(r::ELR_EL1, SCRATCH),
                    msr(r::SPSR_EL1, 31),
                    0xd69f_03e0,
                ]);
            }
            Item::Rise => self.push(&[0xd400_0001 | RISE << 5]),
            Item::Tell => self.push(&[0xd400_0002]),
        }
    }

    fn table(&mut self, index: u32, arms: &[Vec<Item>], depth: usize) {
        let mask = arms.len().next_power_of_two().trailing_zeros();
        // and x22, index, #mask; adr x23, table; add x23, x23, x22, lsl #2; br x23
        self.push(&[
            0x9240_0000 | (mask - 1) << 10 | index << 5 | OTHER_SCRATCH,
            0x1000_0000 | 3 << 5 | SCRATCH,
            0x8b00_0800 | OTHER_SCRATCH << 16 | SCRATCH << 5 | SCRATCH,
            0xd61f_0000 | SCRATCH << 5,
        ]);
        let table = self.words.len();
        self.words.resize(table + (1 << mask), 0x1400_0000);
        let mut ends = Vec::new();
        for (i, arm) in arms.iter().enumerate() {
            self.words[table + i] |= (self.words.len() - table - i) as u32;
            self.items(arm, depth);
            ends.push(self.words.len());
            self.push(&[0x1400_0000]);
        }
        // Entries without an arm of their own go to the end.
        ends.extend(table + arms.len()..table + (1 << mask));
        for end in ends {
            self.words[end] |= (self.words.len() - end) as u32;
        }
    }

    fn patch(&mut self, slot: usize, word: u32, by_alias: bool) {
        let (w, s) = (OTHER_SCRATCH, SCRATCH);
        self.want(s, WRITABLE_CODE - CODE, Want::Slot(slot));
        self.push(&li(w, word.into()));
        // str w22, [x23]; dc cvau, x23; dsb
        self.push(&[0xb900_0000 | s << 5 | w, msr(r::DC_CVAU, s), DSB]);
        if !by_alias {
            self.want(s, 0, Want::Slot(slot));
        }
        self.push(&[msr(r::IC_IVAU, s), DSB, ISB]);
    }

    fn function(&mut self, function: &Function, depth: usize, is_first: bool) {
        let at = (function.at / 4) as usize;
        if self.words.len() < at {
            self.words.resize(at, NOP);
        }
        self.functions.push(self.words.len());
        if depth == 1 {
            // mov x24, x30: it must outlive the calls.
            self.push(&[0xaa1e_03e0 | LINK]);
        }
        self.items(&function.body, depth);
        if is_first {
            self.push(&[0xd400_0001 | RISE << 5, 0xd280_0000 | (END as u32) << 5]);
            self.push(&[0xd400_0002, 0x1400_0000]);
        } else if depth == 2 {
            self.push(&[0xd65f_03c0]);
        } else {
            self.push(&[0xd65f_0000 | LINK << 5]);
        }
    }
}

impl Program {
    /// `None` if it does not fit.
    pub fn new(source: Source) -> Option<Program> {
        let mut a = Assembler {
            words: Vec::new(),
            functions: Vec::new(),
            slots: vec![0; SLOTS],
            wanted: Vec::new(),
            calls: Vec::new(),
        };
        for (i, function) in source.functions.iter().enumerate() {
            a.function(function, source.depth[i], i == 0);
        }
        for (at, register, add, want) in &a.wanted {
            let index = match want {
                Want::Function(function) => a.functions[*function],
                Want::Slot(slot) => a.slots[*slot],
            };
            let value = CODE + 4 * index as u64 + add;
            a.words[*at..at + 3].copy_from_slice(&li(*register, value));
        }
        for (at, function) in &a.calls {
            let by = a.functions[*function] as i64 - *at as i64;
            a.words[*at] |= by as u32 & 0x3ff_ffff;
        }
        if a.words.len() as u64 * 4 > CODE_SIZE {
            return None;
        }
        let mut memory = vec![0; SIZE as usize];
        let mut put = |address: u64, word: u32| {
            let at = (address - RAM) as usize;
            memory[at..at + 4].copy_from_slice(&word.to_le_bytes());
        };
        let address = |i: usize| CODE + 4 * i as u64;
        let words: Vec<_> = a
            .words
            .iter()
            .enumerate()
            .map(|(i, word)| (address(i), *word))
            .collect();
        for (address, word) in words.iter().copied().chain(vectors()) {
            put(address, word);
        }
        let data = (DATA - RAM) as usize;
        memory[data..data + source.data.len()].copy_from_slice(&source.data);
        Some(Program {
            memory,
            words: words.into_iter().filter(|(_, w)| *w != NOP).collect(),
            source,
        })
    }

    /// What it was made from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The state that it begins in, out of a reset.
    pub fn start(&self, state: &mut State) {
        let source = &self.source;
        state.x[..31].copy_from_slice(&source.x);
        state.x[31] = DATA + 0x4000;
        state.sp[0] = DATA + 0x5000;
        state.x[LOG_AT as usize] = LOG;
        state.v = source.v;
        state.fpcr = source.fpcr;
        state.nzcv = source.nzcv;
        state.pc = CODE;
        state.vbar[1] = VECTORS;
        state.cpacr[1] = 3 << 20;
        state.ttbr0[1] = TABLES[0];
        // 39 bits, 4 KiB granule, write-back and inner shareable, upper half off, 40 bits out.
        state.tcr[1] = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | 2 << 32 | source.tcr;
        state.mair[1] = 0xff;
        // M, C, SA, SA0, I, DZE, UCT, UCI.
        state.sctlr[1] |= 0x0400_d01d | source.sctlr;
    }
}

/// Slots that a program has.
pub const SLOTS: usize = 6;

/// The vectors: each tells its number to the handler, which logs what happened and goes on with the next instruction, or
/// after a call that went astray.
fn vectors() -> Vec<(u64, u32)> {
    let mut words = Vec::new();
    let (t, log) = (25, LOG_AT);
    let handler = VECTORS + 0x800;
    for entry in 0..16u64 {
        let at = VECTORS + 0x80 * entry;
        let by = (handler - at - 8) / 4;
        for (i, word) in [
            msr(r::TPIDR_EL1, t),
            0xd280_0000 | (entry as u32) << 5 | t,
            0x1400_0000 | by as u32,
        ]
        .into_iter()
        .enumerate()
        {
            words.push((at + 4 * i as u64, word));
        }
    }
    let store = 0xf800_0400 | 8 << 12 | log << 5 | t;
    let mut code = vec![store];
    for register in [r::ESR_EL1, r::FAR_EL1, r::SPSR_EL1, r::ELR_EL1] {
        code.extend([mrs(t, register), store]);
    }
    let restore = mrs(t, r::TPIDR_EL1);
    let eret = 0xd69f_03e0;
    // and x26, x26, #~LOG_END: all ones but one bit. N = 1, immr: the ones start above the bit.
    let bit = LOG_END.trailing_zeros();
    code.push(0x9240_0000 | (63 - bit) << 16 | 62 << 10 | log << 5 | log);
    let lsr = 0xd340_fc00 | 26 << 16 | t << 5 | t;
    let compare = |n: u32| 0xf100_001f | n << 10 | t << 5;
    code.extend([mrs(t, r::ESR_EL1), lsr, compare(0x15)]);
    // b.eq svc (+12); sub x25, x25, #0x20; cmp #2; b.ls lost
    code.extend([
        0x5400_0000 | 12 << 5,
        0xd100_0000 | 0x20 << 10 | t << 5 | t,
        compare(2),
        0x5400_0009 | 6 << 5,
    ]);
    code.extend([
        mrs(t, r::ELR_EL1),
        0x9100_1000 | t << 5 | t,
        msr(r::ELR_EL1, t),
        restore,
        eret,
    ]);
    // lost: msr elr_el1, x30
    code.extend([msr(r::ELR_EL1, 30), restore, eret]);
    // svc: and x25, x25, #0xffff; b.ne out; EL1h.
    code.extend([
        mrs(t, r::ESR_EL1),
        0x9240_3c00 | t << 5 | t,
        compare(RISE),
        0x5400_0001 | 6 << 5,
        mrs(t, r::SPSR_EL1),
        0x927c_ec00 | t << 5 | t,
        0xb240_0000 | t << 5 | t,
        0xb27e_0000 | t << 5 | t,
        msr(r::SPSR_EL1, t),
        restore,
        eret,
    ]);
    for (i, word) in code.into_iter().enumerate() {
        words.push((handler + 4 * i as u64, word));
    }
    words
}
