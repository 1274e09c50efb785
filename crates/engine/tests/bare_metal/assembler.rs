//! Just enough of an assembler for the programs here.

use aarch64::psci::function;
use aarch64::registers as r;

/// Condition codes.
pub const EQ: u32 = 0;
pub const NE: u32 = 1;
pub const LS: u32 = 9;

/// A program being written, at an address.
pub struct Code {
    pub base: u64,
    pub words: Vec<u32>,
}

/// A place that a branch goes to.
#[derive(Clone, Copy)]
pub struct Label(usize);

impl Code {
    pub fn at(base: u64) -> Code {
        Code {
            base,
            words: Vec::new(),
        }
    }

    pub fn word(&mut self, word: u32) -> &mut Code {
        self.words.push(word);
        self
    }

    pub fn here(&self) -> Label {
        Label(self.words.len())
    }

    pub fn address(&self) -> u64 {
        self.base + self.words.len() as u64 * 4
    }

    /// Fills with NOPs up to an offset.
    pub fn align_to(&mut self, offset: usize) {
        assert!(self.words.len() * 4 <= offset);
        self.words.resize(offset / 4, 0xd503_201f);
    }

    /// xd = value
    pub fn li(&mut self, d: u32, value: u64) -> &mut Code {
        self.word(0xd280_0000 | (value as u32 & 0xffff) << 5 | d);
        for part in 1..4 {
            let half = (value >> (part * 16)) as u32 & 0xffff;
            if half != 0 {
                self.word(0xf280_0000 | part << 21 | half << 5 | d);
            }
        }
        self
    }

    pub fn add(&mut self, d: u32, n: u32, immediate: u32) -> &mut Code {
        self.word(0x9100_0000 | immediate << 10 | n << 5 | d)
    }

    pub fn sub(&mut self, d: u32, n: u32, immediate: u32) -> &mut Code {
        self.word(0xd100_0000 | immediate << 10 | n << 5 | d)
    }

    pub fn bic(&mut self, d: u32, n: u32, m: u32) -> &mut Code {
        self.word(0x8a20_0000 | m << 16 | n << 5 | d)
    }

    pub fn cmp(&mut self, n: u32, immediate: u32) -> &mut Code {
        self.word(0xf100_001f | immediate << 10 | n << 5)
    }

    pub fn cmp_register(&mut self, n: u32, m: u32) -> &mut Code {
        self.word(0xeb00_001f | m << 16 | n << 5)
    }

    pub fn lsr(&mut self, d: u32, n: u32, shift: u32) -> &mut Code {
        self.word(0xd340_fc00 | shift << 16 | n << 5 | d)
    }

    pub fn ldr(&mut self, t: u32, n: u32, offset: u32) -> &mut Code {
        self.word(0xf940_0000 | (offset / 8) << 10 | n << 5 | t)
    }

    pub fn str(&mut self, t: u32, n: u32, offset: u32) -> &mut Code {
        self.word(0xf900_0000 | (offset / 8) << 10 | n << 5 | t)
    }

    /// Stores and adds 8 to the base.
    pub fn push(&mut self, t: u32, n: u32) -> &mut Code {
        self.word(0xf800_0400 | 8 << 12 | n << 5 | t)
    }

    pub fn mrs(&mut self, t: u32, register: u16) -> &mut Code {
        self.word(0xd520_0000 | u32::from(register) << 5 | t)
    }

    /// MSR (register) and SYS.
    pub fn msr(&mut self, register: u16, t: u32) -> &mut Code {
        self.word(0xd500_0000 | u32::from(register) << 5 | t)
    }

    pub fn set(&mut self, register: u16, value: u64) -> &mut Code {
        self.li(9, value).msr(register, 9)
    }

    pub fn daif_set(&mut self, bits: u32) -> &mut Code {
        self.word(0xd503_40df | bits << 8)
    }

    pub fn daif_clear(&mut self, bits: u32) -> &mut Code {
        self.word(0xd503_40ff | bits << 8)
    }

    pub fn isb(&mut self) -> &mut Code {
        self.word(0xd503_3fdf)
    }

    pub fn dsb(&mut self) -> &mut Code {
        self.word(0xd503_3b9f)
    }

    pub fn wfi(&mut self) -> &mut Code {
        self.word(0xd503_207f)
    }

    pub fn wfe(&mut self) -> &mut Code {
        self.word(0xd503_205f)
    }

    pub fn eret(&mut self) -> &mut Code {
        self.word(0xd69f_03e0)
    }

    pub fn svc(&mut self, immediate: u32) -> &mut Code {
        self.word(0xd400_0001 | immediate << 5)
    }

    pub fn hvc(&mut self) -> &mut Code {
        self.word(0xd400_0002)
    }

    pub fn br(&mut self, n: u32) -> &mut Code {
        self.word(0xd61f_0000 | n << 5)
    }

    /// PSCI call with what is in x1 to x3.
    pub fn psci(&mut self, function: u32) -> &mut Code {
        self.li(0, function.into()).hvc()
    }

    fn displacement(&self, to: Label) -> u32 {
        (to.0 as i64 - self.words.len() as i64) as u32
    }

    /// CPU_ON of the second processor, with its context.
    pub fn turn_on_second(&mut self, entry: u64, context: u64) -> &mut Code {
        self.li(1, 1)
            .li(2, entry)
            .li(3, context)
            .psci(function::CPU_ON_64)
    }

    pub fn b(&mut self, to: Label) -> &mut Code {
        let by = self.displacement(to) & 0x03ff_ffff;
        self.word(0x1400_0000 | by)
    }

    pub fn b_if(&mut self, condition: u32, to: Label) -> &mut Code {
        let by = (self.displacement(to) & 0x7_ffff) << 5;
        self.word(0x5400_0000 | by | condition)
    }

    pub fn cbz(&mut self, t: u32, to: Label) -> &mut Code {
        let by = (self.displacement(to) & 0x7_ffff) << 5;
        self.word(0xb400_0000 | by | t)
    }

    pub fn cbnz(&mut self, t: u32, to: Label) -> &mut Code {
        let by = (self.displacement(to) & 0x7_ffff) << 5;
        self.word(0xb500_0000 | by | t)
    }

    /// A conditional branch to be directed later by [`Code::land`].
    pub fn skip_if(&mut self, condition: u32) -> Label {
        let at = self.here();
        self.word(0x5400_0000 | condition);
        at
    }

    pub fn land(&mut self, from: Label) {
        let by = (self.words.len() - from.0) as u32;
        self.words[from.0] |= by << 5;
    }

    /// Drops to EL0 at `entry`.
    pub fn drop_to_el0(&mut self, entry: u64, spsr: u64) -> &mut Code {
        self.set(r::ELR_EL1, entry).set(r::SPSR_EL1, spsr).eret()
    }
}
