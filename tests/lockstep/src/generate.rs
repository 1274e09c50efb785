//! Random programs.

use aarch64::registers as r;
use aarch64::{Instruction, decode};
use engine::Features;
use instructions::corpus;
use instructions::random::Random;

use crate::layout::{
    CODE, CODE_SIZE, DATA, DATA_SIZE, DEVICE, FLIP, HOLE, LAST_LEVEL, OTHER_DATA, READ_ONLY,
    TABLES, flip_entry,
};
use crate::program::{
    Function, How, Item, Program, RESERVED, SLOTS, Source, load_immediate, mrs, msr,
};

/// Makes programs.
pub struct Generator {
    instructions: Vec<Instruction>,
    extensions: aarch64::Extensions,
}

/// System registers that hold what is put into them, or what the program did before.
const READABLE: &[u16] = &[
    r::NZCV,
    r::FPCR,
    r::FPSR,
    r::DAIF,
    r::CURRENTEL,
    r::SPSEL,
    r::SP_EL0,
    r::TPIDR_EL0,
    r::TPIDRRO_EL0,
    r::ESR_EL1,
    r::FAR_EL1,
    r::ELR_EL1,
    r::SPSR_EL1,
    r::PAR_EL1,
    r::PAN,
    r::UAO,
    r::TTBR0_EL1,
    r::TTBR1_EL1,
    r::MIDR_EL1,
    r::CTR_EL0,
    r::DCZID_EL0,
    r::CONTEXTIDR_EL1,
    r::APIAKEYLO_EL1,
    r::APDBKEYLO_EL1,
];

/// And those that may be written anything.
const WRITABLE: &[u16] = &[
    r::NZCV,
    r::FPSR,
    r::TPIDR_EL0,
    r::TPIDRRO_EL0,
    r::SP_EL0,
    r::PAR_EL1,
    r::CONTEXTIDR_EL1,
    r::SPSR_EL1,
    r::ESR_EL1,
    r::DAIF,
    r::APIAKEYLO_EL1,
    r::APIBKEYHI_EL1,
    r::APDAKEYHI_EL1,
    r::APDBKEYLO_EL1,
    r::APGAKEYLO_EL1,
];

/// Whole words: barriers, hints (with those that sign X17), CLREX; DAIF, PAN, UAO and SPSel by immediates; SVC.
const SYSTEM_WORDS: &[u32] = &[
    0xd503_3bbf, // dmb ish
    0xd503_39bf, // dmb ishld
    0xd503_3abf, // dmb ishst
    0xd503_3b9f, // dsb ish
    0xd503_3fdf, // isb
    0xd503_3f5f, // clrex
    0xd503_203f, // yield
    0xd503_201f, // nop
    0xd500_419f, // msr pan, #1
    0xd500_409f, // msr pan, #0
    0xd500_417f, // msr uao, #1
    0xd500_407f, // msr uao, #0
    0xd500_40bf, // msr spsel, #0
    0xd500_41bf, // msr spsel, #1
    0xd503_4fdf, // msr daifset, #15
    0xd503_48ff, // msr daifclr, #8
    0xd503_4fff, // msr daifclr, #15
    0xd503_211f, // pacia1716
    0xd503_215f, // pacib1716
    0xd503_219f, // autia1716
    0xd503_21df, // autib1716
    0xd400_0001, // svc #0
    0xd420_0040, // brk #2
    0xd508_871f, // tlbi vmalle1
    0xd508_831f, // tlbi vmalle1is
];

const INVALIDATIONS: &[u16] = &[
    r::TLBI_VAE1,
    r::TLBI_VAE1IS,
    r::TLBI_VALE1,
    r::TLBI_VALE1IS,
    r::TLBI_VAAE1,
    r::TLBI_VAAE1IS,
    r::TLBI_VAALE1,
    r::TLBI_VAALE1IS,
    r::TLBI_ASIDE1,
    r::TLBI_ASIDE1IS,
];

impl Generator {
    /// For the processor that the programs run on.
    pub fn new() -> Generator {
        let extensions = Features::model("max")
            .map(|f| f.extensions)
            .unwrap_or_default();
        let instructions = decode::ALL
            .iter()
            .copied()
            .filter(|i| i.extension().is_none_or(|e| extensions.has(e)))
            // Branches, exceptions and system instructions are the programs' structure.
            .filter(|i| i.mask_and_value().1 >> 26 & 7 != 0b101)
            .collect();
        Generator {
            instructions,
            extensions,
        }
    }

    /// The program of a seed.
    pub fn program(&self, seed: u64) -> Program {
        let mut random = Random::new(seed);
        loop {
            let source = self.source(&mut random);
            if cost(&source) <= MOST_INSTRUCTIONS
                && let Some(program) = Program::new(source)
            {
                return program;
            }
        }
    }

    fn source(&self, random: &mut Random) -> Source {
        let mut depth = vec![0, 1, 1];
        depth.extend((0..1 + random.below(3)).map(|_| 2));
        let mut at = 0;
        let mut functions = Vec::new();
        for (index, level) in depth.iter().enumerate() {
            let mut writer = Writer {
                generator: self,
                random,
                depth: *level,
                callees: if *level == 2 {
                    Vec::new()
                } else {
                    (index + 1..depth.len())
                        .filter(|other| depth[*other] > *level)
                        .collect()
                },
                in_loop: false,
            };
            let items = 4 + writer.random.below(14);
            let body = writer.items(items);
            functions.push(Function { at, body });
            // Now and then a function crosses into the next page.
            at += if random.one_in(2) {
                0x1000 - 4 * random.below(24)
            } else {
                0x400 * random.below(8)
            };
        }
        let state = corpus::state(random);
        let data = (0..DATA_SIZE).map(|_| random.draw() as u8).collect();
        Source {
            functions,
            depth,
            x: state.x,
            v: state.v,
            data,
            fpcr: state.fpcr,
            nzcv: state.nzcv,
            // A; EnIA, EnIB, EnDA, EnDB; SPAN off.
            sctlr: if random.one_in(10) { 1 << 1 } else { 0 }
                | random.pick(&[0, 1 << 31 | 1 << 30 | 1 << 27 | 1 << 13]),
            // TBI0; TBID0; 16-bit ASIDs.
            tcr: random.pick(&[0, 1 << 37, 1 << 37 | 1 << 51]) | random.pick(&[0, 1 << 36]),
        }
    }
}

impl Default for Generator {
    fn default() -> Generator {
        Generator::new()
    }
}

struct Writer<'a> {
    generator: &'a Generator,
    random: &'a mut Random,
    depth: usize,
    callees: Vec<usize>,
    in_loop: bool,
}

impl Writer<'_> {
    fn items(&mut self, count: u64) -> Vec<Item> {
        let mut items = Vec::new();
        for _ in 0..count {
            if !self.in_loop && self.random.one_in(16) {
                items.extend(self.walk());
            } else if !self.in_loop && self.random.one_in(24) {
                items.push(self.walks_in_a_loop());
            } else if !self.in_loop && self.random.one_in(24) {
                items.extend(self.follow());
            } else if !self.in_loop && self.random.one_in(24) {
                items.extend(self.stride());
            } else {
                items.push(self.item());
            }
        }
        items
    }

    /// Where something begins to walk: often near the end of what it may access.
    fn start_of_walk(&mut self) -> u64 {
        match self.random.below(4) {
            0 => READ_ONLY.wrapping_sub(self.random.below(400)),
            1 => HOLE.wrapping_sub(self.random.below(400)),
            _ => DATA + 0x2000 + self.random.below(0x1000),
        }
    }

    /// How often a loop goes round: less where it is in others.
    fn rounds(&mut self) -> u32 {
        self.random.pick(&[3, 40, 200]) / (1 + self.depth as u32 * 2) + 1
    }

    /// A loop that walks through memory, over the ends of pages and of what is mapped.
    fn walk(&mut self) -> [Item; 2] {
        let base = self.random.below(20) as u32;
        let start = self.start_of_walk();
        let mut body = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            if self.random.one_in(3) {
                body.push(Item::Words(vec![self.but(&[base], Writer::flags)]));
            }
            let step = (self.random.below(96) as u32).wrapping_sub(32) & 0x1ff;
            let value = (self.random.below(2) as u32) + 20;
            let word = self.random.pick(&[
                0xf840_0400, // ldr x, [n], #step
                0xf800_0400, // str x, [n], #step
                0x3840_0c00, // ldrb w, [n, #step]!
                0x7800_0c00, // strh w, [n, #step]!
                0x3cc0_0400, // ldr q, [n], #step
                0x3c80_0400, // str q, [n], #step
            ]);
            body.push(Item::Words(vec![word | step << 12 | base << 5 | value]));
            if self.random.one_in(2) {
                body.push(Item::Words(vec![self.but(&[base], Writer::arithmetic)]));
            }
        }
        let walk = Item::Loop {
            count: self.rounds(),
            by_flags: self.random.one_in(2),
            body,
        };
        [Item::Words(load_immediate(base, start)), walk]
    }

    /// Loops in a loop that walk by a register, which changes from one to the next and may be zero.
    fn stride(&mut self) -> [Item; 2] {
        let (base, index, by, value) = (self.random.below(18) as u32, 18, 22, 20);
        let start = self.start_of_walk();
        let access = self.random.pick(&[
            0xf860_6800, // ldr x, [n, m]
            0xf820_6800, // str x, [n, m]
            0x3860_6800, // ldrb w, [n, m]
            0x3820_6800, // strb w, [n, m]
            0x3ca0_6800, // str q, [n, m]
        ]);
        let counter = 23;
        let count = self.rounds();
        let mut inner = vec![
            0xd280_0000 | count << 5 | counter, // movz
            access | index << 16 | base << 5 | value,
            0x8b00_0000 | by << 16 | index << 5 | index, // add index, index, by
        ];
        if self.random.one_in(2) {
            inner.push(self.but(&[base, index, by, counter], Writer::arithmetic));
        }
        inner.push(0xf100_0400 | counter << 5 | counter); // subs counter, counter, #1
        let back = 1i64 - inner.len() as i64;
        inner.push(BACK_UNLESS_EQUAL | (back as u32 & 0x7_ffff) << 5);
        let less = 1 + self.random.below(9) as u32;
        let outer = Item::Loop {
            count: 1 + self.random.below(4) as u32,
            by_flags: self.random.one_in(2),
            // sub by, by, #less
            body: vec![
                Item::Words(inner),
                Item::Words(vec![0xd100_0000 | less << 10 | by << 5 | by]),
            ],
        };
        let mut words = load_immediate(base, start);
        words.extend(load_immediate(index, 0));
        words.extend(load_immediate(by, u64::from(less) * self.random.below(4)));
        [Item::Words(words), outer]
    }

    /// A loop that follows a ring of nodes, here and there in memory, and does something at each.
    fn follow(&mut self) -> [Item; 2] {
        let (at, next) = (
            self.random.below(10) as u32,
            10 + self.random.below(8) as u32,
        );
        let value = 20;
        // Nodes next to each other, at the ends of pages, anywhere.
        let page = DATA + 0x2000 + 0x1000 * self.random.below(3);
        let nodes: Vec<u64> = (0..2 + self.random.below(4))
            .map(|_| match self.random.below(8) {
                0..=3 => page + 8 * self.random.below(64),
                4 => {
                    let ends = [page + 0x1000, READ_ONLY, HOLE, FLIP + 0x1000];
                    self.random.pick(&ends) - 8 * (1 + self.random.below(4))
                }
                5 => page + self.random.below(0x2000),
                _ => self.address(),
            })
            .collect();
        let mut words = Vec::new();
        for (i, &node) in nodes.iter().enumerate() {
            words.extend(load_immediate(at, node));
            words.extend(load_immediate(next, nodes[(i + 1) % nodes.len()]));
            words.push(0xf900_0000 | at << 5 | next); // str next, [at]
        }
        let mut body = Vec::new();
        let around = |this: &mut Self, body: &mut Vec<Item>, base: u32| {
            for _ in 0..this.random.below(3) {
                let word = match this.random.below(3) {
                    0 => this.but(&[at, next], Writer::flags),
                    1 => this.but(&[at, next], Writer::arithmetic),
                    _ => {
                        let offset = (this.random.below(40) as u32).wrapping_sub(16) & 0x1ff;
                        let word = this.random.pick(&[
                            0xf840_0000, // ldur x, [n, #offset]
                            0xb800_0000, // stur w, [n, #offset]
                            0x3840_0000, // ldurb w, [n, #offset]
                            0x3c80_0000, // stur q, [n, #offset]
                        ]);
                        word | offset << 12 | base << 5 | value
                    }
                };
                body.push(Item::Words(vec![word]));
            }
        };
        around(self, &mut body, at);
        if self.random.one_in(2) {
            // ldr at, [at]
            body.push(Item::Words(vec![0xf940_0000 | at << 5 | at]));
        } else {
            // ldr next, [at]; mov at, next
            body.push(Item::Words(vec![0xf940_0000 | at << 5 | next]));
            around(self, &mut body, next);
            body.push(Item::Words(vec![0xaa00_03e0 | next << 16 | at]));
        }
        let walk = Item::Loop {
            count: self.rounds(),
            by_flags: self.random.one_in(2),
            body,
        };
        [Item::Words(words), walk]
    }

    /// One of such instructions that leaves registers alone, as far as its destination tells.
    fn but(&mut self, registers: &[u32], make: fn(&mut Self) -> u32) -> u32 {
        loop {
            let word = make(self);
            if !registers.contains(&(word & 31)) {
                return word;
            }
        }
    }

    /// A loop with loops in it that walk up to where they are to end, with flags that are live where accesses fault.
    fn walks_in_a_loop(&mut self) -> Item {
        let mut body = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            body.push(Item::Words(self.walk_to_an_end()));
            if self.random.one_in(2) {
                body.push(Item::Words(self.conditions()));
            }
        }
        Item::Loop {
            count: self.random.pick(&[2, 5, 12]),
            by_flags: self.random.one_in(2),
            body,
        }
    }

    fn walk_to_an_end(&mut self) -> Vec<u32> {
        let at = self.random.below(10) as u32;
        let end = 10 + self.random.below(10) as u32;
        let step = 1 + self.random.below(40);
        let times = self.random.pick(&[1, 2, 9, MOST_STEPS]);
        let start = match self.random.below(3) {
            0 => HOLE.wrapping_sub(self.random.below(400)),
            1 => READ_ONLY.wrapping_sub(self.random.below(400)),
            _ => DATA + 0x2000 + self.random.below(0x1000),
        };
        let mut words = load_immediate(at, start);
        words.extend(load_immediate(end, start.wrapping_add(step * times)));
        if self.random.one_in(2) {
            words.push(self.but(&[at, end], Writer::flags));
        }
        let top = words.len();
        for _ in 0..1 + self.random.below(2) {
            let value = 20 + self.random.below(2) as u32;
            let word = self.random.pick(&[
                0xf840_0000, // ldur x, [n]
                0xb800_0000, // stur w, [n]
                0x3840_0000, // ldurb w, [n]
                0x3c80_0000, // stur q, [n]
            ]);
            words.push(word | at << 5 | value);
            match self.random.below(4) {
                0 => words.push(self.but(&[at, end], Writer::flags)),
                1 => words.push(self.but(&[at, end], Writer::looks_at_flags)),
                2 => words.push(self.but(&[at, end], Writer::arithmetic)),
                _ => {}
            }
        }
        let add = 0x9100_0000 | (step as u32) << 10 | at << 5 | at;
        let compare = self.random.pick(&[
            0xeb00_001f | at << 16 | end << 5, // cmp end, at
            0xeb00_001f | end << 16 | at << 5,
        ]);
        words.push(add);
        words.push(compare);
        let back = (top as i64 - words.len() as i64) as u32 & 0x7_ffff;
        words.push(BACK_UNLESS_EQUAL | back << 5);
        words
    }

    fn item(&mut self) -> Item {
        match self.random.below(100) {
            0..=7 if !self.in_loop => {
                self.in_loop = true;
                let count = self.random.pick(&[2, 3, 10, 50, 300, 3000]);
                let count = count / (1 + self.depth as u32 * 2) + 1;
                let n = 1 + self.random.below(8);
                let body = self.items(n);
                self.in_loop = false;
                Item::Loop {
                    count,
                    by_flags: self.random.one_in(2),
                    body,
                }
            }
            8..=17 => {
                let n = 1 + self.random.below(4);
                Item::Skip {
                    branch: self.branch(),
                    body: self.items(n),
                }
            }
            18..=20 => {
                let arms = 2 + self.random.below(3);
                Item::Table {
                    index: self.random.below(22) as u32,
                    arms: (0..arms)
                        .map(|_| {
                            let n = self.random.below(3);
                            self.items(n)
                        })
                        .collect(),
                }
            }
            21..=28 if !self.callees.is_empty() => Item::Call {
                function: self.random.pick(&self.callees.clone()),
                how: self.random.pick(&[How::Direct, How::Pointer, How::Alias]),
            },
            29 if self.depth < 2 => Item::BadCall(self.random.pick(&[
                HOLE,
                DATA,
                CODE + 2,
                0,
                0x8000_0000_0000,
                0xffff_0000_0000_0000,
            ])),
            30..=32 => Item::Slot(self.random.below(SLOTS as u64) as usize),
            33..=35 => Item::Patch {
                slot: self.random.below(SLOTS as u64) as usize,
                word: self.simple(),
                by_alias: self.random.one_in(2),
            },
            36 => Item::Drop,
            37 | 38 => Item::Rise,
            39 => Item::Tell,
            40..=45 => Item::Words(self.system()),
            46..=68 => Item::Words(self.memory()),
            69 | 70 => Item::Words(self.exclusive()),
            71 => Item::Words(self.aes_round()),
            72 => Item::Words(self.bit_search()),
            73..=76 => Item::Words(self.conditions()),
            77 => Item::Words(self.hash_rounds()),
            _ => {
                let n = 1 + self.random.below(6);
                Item::Words((0..n).map(|_| self.arithmetic()).collect())
            }
        }
    }

    /// What translators may take as one: AESE and AESMC, AESD and AESIMC, of one register or not.
    fn aes_round(&mut self) -> Vec<u32> {
        let (d, n) = (self.random.below(32) as u32, self.random.below(32) as u32);
        let other = if self.random.one_in(4) { n } else { d };
        let first = self.random.pick(&[0x4e28_4800, 0x4e28_5800]);
        let second = self.random.pick(&[0x4e28_6800, 0x4e28_7800]);
        vec![first | n << 5 | d, second | other << 5 | d]
    }

    /// The same: SHA256H and SHA256H2 of one state, which is moved before, or of others.
    fn hash_rounds(&mut self) -> Vec<u32> {
        let registers = [(); 4].map(|()| self.random.below(32) as u32);
        let [abcd, efgh, copy, message] = registers;
        let pair = [[abcd, copy], [copy, abcd]];
        let [to, from] = self.random.pick(&pair);
        let mut words = vec![0x4ea0_1c00 | from << 16 | from << 5 | to];
        if self.random.one_in(4) {
            // add v.4s, v.4s, v.4s
            let d = self.random.pick(&registers);
            words.push(0x4ea0_8400 | message << 16 | d << 5 | d);
        }
        words.push(0x5e00_4000 | message << 16 | efgh << 5 | abcd);
        let mut odd = |usual: u32| {
            let other = self.random.pick(&registers);
            if self.random.one_in(8) { other } else { usual }
        };
        words.push(0x5e00_5000 | odd(message) << 16 | odd(copy) << 5 | odd(efgh));
        words
    }

    /// The same: RBIT and CLZ, of one register and width or not.
    fn bit_search(&mut self) -> Vec<u32> {
        let (d, n) = (self.random.below(22) as u32, self.random.below(22) as u32);
        let other = if self.random.one_in(4) { n } else { d };
        let width = |random: &mut Random| (random.below(4).min(1) as u32) << 31;
        let first = 0x5ac0_0000 | width(self.random);
        let second = 0x5ac0_1000 | width(self.random);
        vec![first | n << 5 | d, second | other << 5 | d]
    }

    /// Flags, and what looks at them, with other instructions between that change what they are of or not.
    fn conditions(&mut self) -> Vec<u32> {
        let mut words = vec![self.flags()];
        for _ in 0..self.random.below(3) {
            words.push(self.arithmetic());
        }
        for _ in 0..1 + self.random.below(3) {
            words.push(self.looks_at_flags());
            if self.random.one_in(3) {
                words.push(self.arithmetic());
            }
        }
        words
    }

    /// A comparison, or arithmetic that sets flags.
    fn flags(&mut self) -> u32 {
        let register = |random: &mut Random| random.below(22) as u32;
        let (n, m) = (register(self.random), register(self.random));
        let d = match self.random.below(3) {
            0 => 31,
            1 => n,
            _ => register(self.random),
        };
        let x = (self.random.below(2) as u32) << 31;
        let immediate = (self.random.below(4096) as u32) << 10;
        let word = self.random.pick(&[
            0x6b00_0000 | m << 16,  // subs
            0x6b00_0000 | 31 << 16, // subs of zero
            0x2b00_0000 | m << 16,  // adds
            0x6a00_0000 | m << 16,  // ands
            0x6a20_0000 | m << 16,  // bics
            0x7100_0000 | immediate,
            0x3100_0000 | immediate,
            0x7200_0000 | (immediate & 0x7800) | (x >> 31) << 22, // ands of some low ones
        ]);
        word | x | n << 5 | d
    }

    /// A selection, a conditional comparison, or arithmetic with carry.
    fn looks_at_flags(&mut self) -> u32 {
        let register = |random: &mut Random| random.below(22) as u32;
        let (d, n, m) = (
            register(self.random),
            register(self.random),
            register(self.random),
        );
        let condition = (self.random.below(16) as u32) << 12;
        let nzcv = self.random.below(16) as u32;
        let x = (self.random.below(2) as u32) << 31;
        let word = self.random.pick(&[
            0x1a80_0000 | condition | d,    // csel
            0x1a80_0400 | condition | d,    // csinc
            0x5a80_0000 | condition | d,    // csinv
            0x5a80_0400 | condition | d,    // csneg
            0x7a40_0000 | condition | nzcv, // ccmp
            0x3a40_0000 | condition | nzcv, // ccmn
            0x1a00_0000 | d,                // adc
            0x7a00_0000 | d,                // sbcs
        ]);
        word | x | m << 16 | n << 5
    }

    /// A conditional branch: by flags, a register, or a bit of one.
    fn branch(&mut self) -> u32 {
        let t = self.random.below(23) as u32;
        let x = (self.random.below(2) as u32) << 31;
        match self.random.below(4) {
            0 | 1 => 0x5400_0000 | self.random.below(14) as u32,
            2 => 0x3400_0000 | x | (self.random.below(2) as u32) << 24 | t,
            _ => {
                let bit = (self.random.below(32) as u32) << 19;
                0x3600_0000 | x | (self.random.below(2) as u32) << 24 | bit | t
            }
        }
    }

    /// What a slot may hold: an addition to a register.
    fn simple(&mut self) -> u32 {
        let (d, n) = (self.random.below(22) as u32, self.random.below(22) as u32);
        0x9100_0000 | (self.random.below(4096) as u32) << 10 | n << 5 | d
    }

    fn any(&mut self) -> u32 {
        let instruction = self.random.pick(&self.generator.instructions);
        corpus::encoding(instruction, self.random)
    }

    fn arithmetic(&mut self) -> u32 {
        loop {
            let word = self.any();
            let is_defined = decode(word, self.generator.extensions).is_some();
            if !is_memory(word)
                && !RESERVED.contains(&(word & 31))
                && (is_defined || self.random.one_in(64))
            {
                return word;
            }
        }
    }

    fn address(&mut self) -> u64 {
        let random = &mut *self.random;
        let at = match random.below(32) {
            0 => READ_ONLY.wrapping_sub(random.below(80)),
            1 => HOLE.wrapping_sub(random.below(80)),
            2 => READ_ONLY + random.below(4096),
            3 => DATA + DATA_SIZE - random.below(80),
            4 => CODE + random.below(CODE_SIZE),
            5 => DEVICE + 8 * random.below(4),
            6 => DEVICE + random.below(24),
            7 | 8 => FLIP + random.below(4096),
            9..=11 => OTHER_DATA + random.below(0x2000),
            12 => random.draw(),
            _ => DATA + 0x2000 + random.below(0x1000),
        };
        let at = if random.one_in(2) { at & !15 } else { at };
        // A tag, which counts or not as TCR_EL1.TBI0 says.
        if random.one_in(16) {
            at | random.draw() << 56
        } else {
            at
        }
    }

    /// A load, store or atomic operation, and before it what makes its address.
    fn memory(&mut self) -> Vec<u32> {
        let word = loop {
            let word = self.any();
            if is_memory(word)
                && !corpus::is_open(word)
                && decode(word, self.generator.extensions).is_some()
                && is_contained(word)
            {
                break word;
            }
        };
        // Literals: not too far.
        if word >> 27 & 7 == 0b011 && word >> 24 & 3 == 0 {
            let by = (self.random.below(2000) as i64 - 1000) as u32 & 0x7_ffff;
            return vec![word & !(0x7_ffff << 5) | by << 5];
        }
        let mut words = Vec::new();
        let (n, m) = (word >> 5 & 31, word >> 16 & 31);
        let by_register = word >> 27 & 7 == 0b111
            && word >> 24 & 3 == 0
            && word >> 21 & 1 == 1
            && word >> 10 & 3 == 2;
        if by_register && m != 31 {
            let offset = self.random.pick(&[0, 1, 8, 0x40, u64::MAX, 0x10, 3]);
            words.extend(load_immediate(m, offset));
        }
        let address = self.address();
        if n == 31 {
            words.extend(load_immediate(21, address));
            words.push(0x9100_001f | 21 << 5);
        } else {
            words.extend(load_immediate(n, address));
        }
        words.push(word);
        words
    }

    /// A pair of a load and a store, exclusive, with something between.
    fn exclusive(&mut self) -> Vec<u32> {
        let (load, store) = loop {
            let (load, store) = corpus::exclusives(self.random);
            if is_contained(load) && is_contained(store) && load & 31 < 24 && store & 31 < 24 {
                break (load, store);
            }
        };
        let n = load >> 5 & 31;
        let address = (DATA + 0x2000 + self.random.below(0x800)) & !15;
        let mut words = load_immediate(n, address);
        words.push(load);
        for _ in 0..self.random.below(3) {
            // add w, w, #1: from what was loaded to what is stored, or to itself.
            let to = self.random.pick(&[store & 31, load & 31]);
            words.push(0x1100_0400 | (load & 31) << 5 | to);
        }
        if self.random.one_in(8) {
            // Something stores there in between.
            words.push(0xf900_0000 | n << 5 | (load & 31));
        }
        words.push(store);
        words
    }

    fn system(&mut self) -> Vec<u32> {
        let t = self.random.below(24) as u32;
        match self.random.below(15) {
            0..=2 => vec![mrs(t, self.random.pick(READABLE))],
            3 => vec![msr(self.random.pick(WRITABLE), t)],
            4 => {
                // FZ16, RMode, FZ, DN, AHP.
                let fpcr = self.random.draw() & 0x07c8_0000;
                let fpcr = if self.random.one_in(2) { 0 } else { fpcr };
                let mut words = load_immediate(t, fpcr);
                words.push(msr(r::FPCR, t));
                words
            }
            5 => {
                let mut words = load_immediate(t, self.address());
                let operation =
                    self.random
                        .pick(&[r::DC_ZVA, r::DC_CVAC, r::DC_CIVAC, r::DC_CVAU, r::IC_IVAU]);
                words.push(msr(operation, t));
                words
            }
            6 => {
                let mut words = load_immediate(t, self.address());
                let operation =
                    self.random
                        .pick(&[r::AT_S1E1R, r::AT_S1E1W, r::AT_S1E0R, r::AT_S1E0W]);
                words.extend([msr(operation, t), 0xd503_3fdf, mrs(t, r::PAR_EL1)]);
                words
            }
            7 | 8 => self.remap(),
            9 => {
                // Another address space: other tables, another ASID.
                let asid = self.random.below(4) << 48;
                let base = self.random.pick(&TABLES);
                let mut words = load_immediate(t, base | asid);
                // Of the upper half there is nothing to be had.
                let register = if self.random.one_in(8) {
                    r::TTBR1_EL1
                } else {
                    r::TTBR0_EL1
                };
                words.extend([msr(register, t), 0xd503_3fdf]);
                words
            }
            10 | 11 => {
                // A page or an address space, by an ASID that may be in use.
                let asid = self.random.below(4) << 48;
                let page = self.address() >> 12 & 0xfff_ffff_ffff;
                let mut words = load_immediate(t, asid | page);
                words.push(msr(self.random.pick(INVALIDATIONS), t));
                words
            }
            _ => vec![self.random.pick(SYSTEM_WORDS)],
        }
    }

    /// Puts another page at [`FLIP`], in either set of tables, and says so; or breaks the mapping.
    fn remap(&mut self) -> Vec<u32> {
        let (a, t) = (21, 20);
        let entry = self.random.pick(&TABLES) + LAST_LEVEL + 8 * (FLIP >> 12 & 511);
        let value = match self.random.below(4) {
            0 => 0,
            n => flip_entry(n as usize),
        };
        let mut words = load_immediate(a, entry);
        words.extend(load_immediate(t, value));
        // str x20, [x21]; dsb ishst
        words.extend([0xf900_0000 | a << 5 | t, 0xd503_3a9f]);
        words.extend(load_immediate(a, FLIP >> 12));
        words.push(msr(self.random.pick(&[r::TLBI_VAAE1IS, r::TLBI_VAAE1]), a));
        words.extend([0xd503_3b9f, 0xd503_3fdf]);
        words
    }
}

/// Rounds of a loop that walks to an end, at most.
const MOST_STEPS: u64 = 40;
/// B.NE.
const BACK_UNLESS_EQUAL: u32 = 0x5400_0001;

/// Instructions of a program, exceptions not counted, at most.
const MOST_INSTRUCTIONS: u64 = 100_000;

/// Instructions of a program, about.
fn cost(source: &Source) -> u64 {
    let mut functions = vec![0; source.functions.len()];
    for (i, function) in source.functions.iter().enumerate().rev() {
        functions[i] = cost_of(&function.body, &functions);
    }
    functions[0]
}

fn cost_of(items: &[Item], functions: &[u64]) -> u64 {
    let of = |item: &Item| match item {
        Item::Words(words) => {
            let is_walk = words
                .last()
                .is_some_and(|w| w & 0xff80_001f == BACK_UNLESS_EQUAL | 1 << 23);
            words.len() as u64 * if is_walk { MOST_STEPS } else { 1 }
        }
        Item::Loop { count, body, .. } => {
            u64::from(*count).saturating_mul(2 + cost_of(body, functions))
        }
        Item::Skip { body, .. } => 1 + cost_of(body, functions),
        Item::Table { arms, .. } => {
            let arms = arms.iter().map(|arm| cost_of(arm, functions));
            6 + arms.max().unwrap_or(0)
        }
        Item::Call { function, .. } => functions[*function] + 5,
        Item::Slot(_) | Item::Tell => 1,
        Item::Patch { .. } | Item::Drop | Item::Rise | Item::BadCall(_) => 30,
    };
    items
        .iter()
        .fold(0, |sum, item| sum.saturating_add(of(item)))
}

fn is_memory(word: u32) -> bool {
    word >> 27 & 1 == 1 && word >> 25 & 1 == 0
}

/// Whether a load or store writes no register that programs keep for themselves, and reads its index from none.
fn is_contained(word: u32) -> bool {
    let reserved = |low: u32| RESERVED.contains(&(word >> low & 31));
    let class = word >> 27 & 7;
    let by_register = class == 0b111 && word >> 21 & 1 == 1 && word >> 24 & 3 == 0;
    let second = matches!(class, 0b101 | 0b001) && reserved(10);
    // Status, compared registers, indices.
    let third = (class == 0b001 || by_register) && (reserved(16) || word >> 16 & 31 == 23);
    !reserved(0) && !reserved(5) && !second && !third
}
