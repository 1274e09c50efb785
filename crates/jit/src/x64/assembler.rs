//! An assembler for the x86-64 instructions that the translator uses.
//!
//! Encodings are those of the Intel 64 manual, volume 2. Bytes go to a buffer; branches are relative, so that they hold
//! wherever the buffer is copied to as a whole, and calls to fixed places are given [`Assembler::origin`].

/// A general register, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reg(pub u8);

pub const RAX: Reg = Reg(0);
pub const RCX: Reg = Reg(1);
pub const RDX: Reg = Reg(2);
pub const RBX: Reg = Reg(3);
pub const RSP: Reg = Reg(4);
pub const RBP: Reg = Reg(5);
pub const RSI: Reg = Reg(6);
pub const RDI: Reg = Reg(7);
pub const R8: Reg = Reg(8);
pub const R9: Reg = Reg(9);
pub const R10: Reg = Reg(10);
pub const R11: Reg = Reg(11);
pub const R12: Reg = Reg(12);
pub const R13: Reg = Reg(13);
pub const R14: Reg = Reg(14);
pub const R15: Reg = Reg(15);

/// A vector register, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Xmm(pub u8);

/// A memory operand: base, index scaled by 1, 2, 4 or 8, displacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    pub base: Reg,
    pub index: Option<(Reg, u8)>,
    pub disp: i32,
}

impl Mem {
    pub const fn at(base: Reg, disp: i32) -> Mem {
        Mem {
            base,
            index: None,
            disp,
        }
    }

    pub const fn indexed(base: Reg, index: Reg, scale: u8, disp: i32) -> Mem {
        Mem {
            base,
            index: Some((index, scale)),
            disp,
        }
    }
}

/// A register or memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rm {
    Reg(Reg),
    Mem(Mem),
}

impl From<Reg> for Rm {
    fn from(reg: Reg) -> Rm {
        Rm::Reg(reg)
    }
}

impl From<Mem> for Rm {
    fn from(mem: Mem) -> Rm {
        Rm::Mem(mem)
    }
}

/// A vector register or memory operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Xm {
    Reg(Xmm),
    Mem(Mem),
}

impl From<Xmm> for Xm {
    fn from(reg: Xmm) -> Xm {
        Xm::Reg(reg)
    }
}

impl From<Mem> for Xm {
    fn from(mem: Mem) -> Xm {
        Xm::Mem(mem)
    }
}

/// Operations of the first opcode map's regular part, by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alu {
    Add = 0,
    Or = 1,
    Adc = 2,
    Sbb = 3,
    And = 4,
    Sub = 5,
    Xor = 6,
    Cmp = 7,
}

/// Shifts, by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ShiftOp {
    Ror = 1,
    Shl = 4,
    Shr = 5,
    Sar = 7,
}

/// Condition codes, by their number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Cc {
    O = 0,
    No = 1,
    B = 2,
    Ae = 3,
    E = 4,
    Ne = 5,
    Be = 6,
    A = 7,
    S = 8,
    Ns = 9,
    P = 10,
    Np = 11,
    L = 12,
    Ge = 13,
    Le = 14,
    G = 15,
}

impl Cc {
    const ALL: [Cc; 16] = [
        Cc::O,
        Cc::No,
        Cc::B,
        Cc::Ae,
        Cc::E,
        Cc::Ne,
        Cc::Be,
        Cc::A,
        Cc::S,
        Cc::Ns,
        Cc::P,
        Cc::Np,
        Cc::L,
        Cc::Ge,
        Cc::Le,
        Cc::G,
    ];

    /// The opposite condition.
    pub fn not(self) -> Cc {
        Cc::ALL[self as usize ^ 1]
    }
}

/// VEX opcode maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Map {
    M0f = 1,
    M0f38 = 2,
    M0f3a = 3,
}

/// Mandatory prefixes, as VEX.pp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Pp {
    None = 0,
    P66 = 1,
    Pf3 = 2,
    Pf2 = 3,
}

/// A VEX instruction: prefix, map, W and opcode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vex(pub Pp, pub Map, pub bool, pub u8);

/// Where code jumps to: bound once, jumped to from anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Label(u32);

#[derive(Clone, Copy)]
struct Fixup {
    /// Of the 32-bit displacement.
    at: u32,
    label: Label,
}

/// The assembler.
#[derive(Default)]
pub struct Assembler {
    pub bytes: Vec<u8>,
    /// The address that the first byte will have.
    pub origin: usize,
    labels: Vec<u32>,
    fixups: Vec<Fixup>,
    /// The host's arithmetic flags were changed since this was last cleared.
    pub flags_changed: bool,
    /// The last vector instruction, if what it writes is in its encoding apart from what it reads.
    result: Option<VectorResult>,
}

/// Where an instruction says which vector register it writes.
struct VectorResult {
    xmm: Xmm,
    at: usize,
    end: usize,
    /// In VEX.vvvv; else in ModRM's register field.
    in_prefix: bool,
}

const UNBOUND: u32 = u32::MAX;

impl Assembler {
    /// Starts anew at an address.
    pub fn restart(&mut self, origin: usize) {
        self.bytes.clear();
        self.labels.clear();
        self.fixups.clear();
        self.origin = origin;
        self.flags_changed = true;
        self.result = None;
    }

    /// Bytes so far.
    pub fn at(&self) -> usize {
        self.bytes.len()
    }

    /// Forgets what was emitted from a position on, which must hold no label.
    pub fn rewind(&mut self, to: usize) {
        self.bytes.truncate(to);
        self.result = None;
        self.fixups.retain(|fixup| (fixup.at as usize) < to);
        for label in &mut self.labels {
            if *label != UNBOUND && *label as usize > to {
                *label = UNBOUND;
            }
        }
    }

    pub fn label(&mut self) -> Label {
        self.labels.push(UNBOUND);
        Label(self.labels.len() as u32 - 1)
    }

    pub fn bind(&mut self, label: Label) {
        debug_assert_eq!(self.labels[label.0 as usize], UNBOUND);
        self.labels[label.0 as usize] = self.bytes.len() as u32;
        self.result = None;
    }

    /// Resolves jumps to labels. Every label jumped to must be bound.
    pub fn finish(&mut self) {
        for fixup in self.fixups.drain(..) {
            let target = self.labels[fixup.label.0 as usize];
            assert_ne!(target, UNBOUND, "a label that is jumped to is bound");
            let relative = target.wrapping_sub(fixup.at + 4);
            let at = fixup.at as usize;
            self.bytes[at..at + 4].copy_from_slice(&relative.to_le_bytes());
        }
    }

    fn byte(&mut self, byte: u8) {
        self.bytes.push(byte);
    }

    fn imm32(&mut self, value: i32) {
        self.bytes.extend_from_slice(&value.to_le_bytes());
    }

    /// REX if needed. `byte_reg`: a register operand of 8 bits above 3 needs one.
    fn rex(&mut self, w: bool, reg: u8, rm: Rm, force: bool) {
        let (x, b) = match rm {
            Rm::Reg(r) => (0, r.0 >> 3),
            Rm::Mem(m) => (m.index.map_or(0, |(i, _)| i.0 >> 3), m.base.0 >> 3),
        };
        let rex = 0x40 | u8::from(w) << 3 | (reg >> 3) << 2 | x << 1 | b;
        if rex != 0x40 || force {
            self.byte(rex);
        }
    }

    fn modrm(&mut self, reg: u8, rm: Rm) {
        let reg = (reg & 7) << 3;
        match rm {
            Rm::Reg(r) => self.byte(0xc0 | reg | r.0 & 7),
            Rm::Mem(m) => {
                let base = m.base.0 & 7;
                let (mode, short) = match m.disp {
                    0 if base != 5 => (0, true),
                    -128..=127 => (0x40, true),
                    _ => (0x80, false),
                };
                match m.index {
                    None if base != 4 => self.byte(mode | reg | base),
                    index => {
                        let (index, scale) = index.map_or((4, 1), |(i, s)| (i.0 & 7, s));
                        debug_assert!(m.index.is_none_or(|(i, _)| i != RSP));
                        self.byte(mode | reg | 4);
                        self.byte((scale.trailing_zeros() as u8) << 6 | index << 3 | base);
                    }
                }
                match (mode, short) {
                    (0, _) => {}
                    (_, true) => self.byte(m.disp as u8),
                    _ => self.imm32(m.disp),
                }
            }
        }
    }

    fn op(&mut self, w: bool, opcode: u8, reg: u8, rm: Rm) {
        self.rex(w, reg, rm, false);
        self.byte(opcode);
        self.modrm(reg, rm);
    }

    fn op0f(&mut self, w: bool, opcode: u8, reg: u8, rm: Rm) {
        self.rex(w, reg, rm, false);
        self.byte(0x0f);
        self.byte(opcode);
        self.modrm(reg, rm);
    }

    // ---- moves

    /// `w`: 64 bits; else 32, zero-extended.
    pub fn load(&mut self, w: bool, to: Reg, from: impl Into<Rm>) {
        let from = from.into();
        if from == Rm::Reg(to) && w {
            return;
        }
        self.op(w, 0x8b, to.0, from);
    }

    /// `size` bytes: 1, 2, 4 or 8.
    pub fn store(&mut self, size: u8, to: Mem, from: Reg) {
        match size {
            1 => {
                self.rex(false, from.0, to.into(), from.0 >= 4);
                self.byte(0x88);
                self.modrm(from.0, to.into());
            }
            2 => {
                self.byte(0x66);
                self.op(false, 0x89, from.0, to.into());
            }
            4 => self.op(false, 0x89, from.0, to.into()),
            _ => self.op(true, 0x89, from.0, to.into()),
        }
    }

    /// A sign-extended constant to memory; `size` 1, 2, 4 or 8.
    pub fn store_constant(&mut self, size: u8, to: Mem, value: i32) {
        match size {
            1 => {
                self.op(false, 0xc6, 0, to.into());
                self.byte(value as u8);
            }
            2 => {
                self.byte(0x66);
                self.op(false, 0xc7, 0, to.into());
                self.bytes.extend_from_slice(&(value as i16).to_le_bytes());
            }
            _ => {
                self.op(size == 8, 0xc7, 0, to.into());
                self.imm32(value);
            }
        }
    }

    /// Leaves the flags alone.
    pub fn constant(&mut self, to: Reg, value: u64) {
        if value <= u64::from(u32::MAX) {
            self.rex(false, 0, to.into(), false);
            self.byte(0xb8 | to.0 & 7);
            self.imm32(value as i32);
        } else if value as i64 >= i64::from(i32::MIN) && (value as i64) < 0 {
            self.op(true, 0xc7, 0, to.into());
            self.imm32(value as i32);
        } else {
            self.rex(true, 0, to.into(), false);
            self.byte(0xb8 | to.0 & 7);
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Zero-extends 1, 2 or 4 bytes to 64 bits.
    pub fn load_zero_extended(&mut self, size: u8, to: Reg, from: impl Into<Rm>) {
        let from = from.into();
        match size {
            1 => {
                let force = matches!(from, Rm::Reg(r) if r.0 >= 4);
                self.rex(false, to.0, from, force);
                self.byte(0x0f);
                self.byte(0xb6);
                self.modrm(to.0, from);
            }
            2 => self.op0f(false, 0xb7, to.0, from),
            4 => self.op(false, 0x8b, to.0, from),
            _ => self.load(true, to, from),
        }
    }

    /// Sign-extends 1, 2 or 4 bytes to 64 bits (`w`) or 32.
    pub fn load_sign_extended(&mut self, w: bool, size: u8, to: Reg, from: impl Into<Rm>) {
        let from = from.into();
        match size {
            1 => {
                let force = matches!(from, Rm::Reg(r) if r.0 >= 4);
                self.rex(w, to.0, from, force);
                self.byte(0x0f);
                self.byte(0xbe);
                self.modrm(to.0, from);
            }
            2 => self.op0f(w, 0xbf, to.0, from),
            4 if w => self.op(true, 0x63, to.0, from),
            _ => self.load(w, to, from),
        }
    }

    pub fn lea(&mut self, w: bool, to: Reg, from: Mem) {
        self.op(w, 0x8d, to.0, from.into());
    }

    /// MOVBE: loads the bytes in reverse order.
    pub fn bswap(&mut self, w: bool, reg: Reg) {
        self.rex(w, 0, reg.into(), false);
        self.byte(0x0f);
        self.byte(0xc8 | reg.0 & 7);
    }

    pub fn xchg(&mut self, size: u8, to: Mem, from: Reg) {
        match size {
            1 => {
                self.rex(false, from.0, to.into(), from.0 >= 4);
                self.byte(0x86);
                self.modrm(from.0, to.into());
            }
            2 => {
                self.byte(0x66);
                self.op(false, 0x87, from.0, to.into());
            }
            _ => self.op(size == 8, 0x87, from.0, to.into()),
        }
    }

    fn locked(&mut self, size: u8, opcode: u8, to: Mem, from: Reg) {
        self.flags_changed = true;
        self.byte(0xf0);
        if size == 2 {
            self.byte(0x66);
        }
        self.rex(size == 8, from.0, to.into(), size == 1 && from.0 >= 4);
        self.byte(0x0f);
        self.byte(opcode | u8::from(size != 1));
        self.modrm(from.0, to.into());
    }

    /// LOCK XADD of `size` bytes.
    pub fn fetch_add(&mut self, size: u8, to: Mem, operand: Reg) {
        self.locked(size, 0xc0, to, operand);
    }

    /// LOCK CMPXCHG of `size` bytes, expecting RAX.
    pub fn compare_exchange(&mut self, size: u8, to: Mem, new: Reg) {
        self.locked(size, 0xb0, to, new);
    }

    /// LOCK CMPXCHG16B: RDX:RAX is expected, RCX:RBX new.
    pub fn compare_exchange_pair(&mut self, to: Mem) {
        self.flags_changed = true;
        self.byte(0xf0);
        self.op0f(true, 0xc7, 1, to.into());
    }

    // ---- arithmetic

    pub fn alu(&mut self, op: Alu, w: bool, to: Reg, from: impl Into<Rm>) {
        self.flags_changed = true;
        self.op(w, (op as u8) << 3 | 3, to.0, from.into());
    }

    pub fn alu_memory(&mut self, op: Alu, w: bool, to: Mem, from: Reg) {
        self.flags_changed = true;
        self.op(w, (op as u8) << 3 | 1, from.0, to.into());
    }

    pub fn alu_constant(&mut self, op: Alu, w: bool, to: impl Into<Rm>, value: i32) {
        self.flags_changed = true;
        let to = to.into();
        if let Ok(short) = i8::try_from(value) {
            self.op(w, 0x83, op as u8, to);
            self.byte(short as u8);
        } else {
            self.op(w, 0x81, op as u8, to);
            self.imm32(value);
        }
    }

    pub fn test(&mut self, w: bool, a: Reg, b: impl Into<Rm>) {
        self.flags_changed = true;
        self.op(w, 0x85, a.0, b.into());
    }

    pub fn test_constant(&mut self, w: bool, a: impl Into<Rm>, value: i32) {
        self.flags_changed = true;
        self.op(w, 0xf7, 0, a.into());
        self.imm32(value);
    }

    /// The low byte.
    pub fn test_byte(&mut self, a: impl Into<Rm>, value: u8) {
        self.flags_changed = true;
        let a = a.into();
        let force = matches!(a, Rm::Reg(r) if r.0 >= 4);
        self.rex(false, 0, a, force);
        self.byte(0xf6);
        self.modrm(0, a);
        self.byte(value);
    }

    /// CF becomes the bit.
    pub fn bit_test(&mut self, w: bool, a: impl Into<Rm>, bit: u8) {
        self.flags_changed = true;
        self.op0f(w, 0xba, 4, a.into());
        self.byte(bit);
    }

    pub fn shift(&mut self, op: ShiftOp, w: bool, reg: Reg, amount: u8) {
        self.flags_changed = true;
        self.op(w, 0xc1, op as u8, reg.into());
        self.byte(amount);
    }

    /// By CL.
    pub fn shift_by_cl(&mut self, op: ShiftOp, w: bool, reg: Reg) {
        self.flags_changed = true;
        self.op(w, 0xd3, op as u8, reg.into());
    }

    /// SHLD by a constant: `to` shifted left, filled from the top of `from`.
    pub fn shift_double_right(&mut self, w: bool, to: Reg, from: Reg, amount: u8) {
        self.flags_changed = true;
        self.op0f(w, 0xac, from.0, to.into());
        self.byte(amount);
    }

    pub fn neg(&mut self, w: bool, reg: Reg) {
        self.flags_changed = true;
        self.op(w, 0xf7, 3, reg.into());
    }

    /// Leaves the flags alone.
    pub fn not(&mut self, w: bool, reg: Reg) {
        self.op(w, 0xf7, 2, reg.into());
    }

    pub fn imul(&mut self, w: bool, to: Reg, from: impl Into<Rm>) {
        self.flags_changed = true;
        self.op0f(w, 0xaf, to.0, from.into());
    }

    /// RDX:RAX = RAX × operand.
    pub fn mul_wide(&mut self, signed: bool, by: impl Into<Rm>) {
        self.flags_changed = true;
        self.op(true, 0xf7, if signed { 5 } else { 4 }, by.into());
    }

    /// RAX = RDX:RAX / operand.
    pub fn div(&mut self, signed: bool, w: bool, by: Reg) {
        self.flags_changed = true;
        self.op(w, 0xf7, if signed { 7 } else { 6 }, by.into());
    }

    /// CDQ, CQO.
    pub fn sign_into_rdx(&mut self, w: bool) {
        if w {
            self.byte(0x48);
        }
        self.byte(0x99);
    }

    pub fn lzcnt(&mut self, w: bool, to: Reg, from: impl Into<Rm>) {
        self.flags_changed = true;
        self.byte(0xf3);
        self.op0f(w, 0xbd, to.0, from.into());
    }

    pub fn tzcnt(&mut self, w: bool, to: Reg, from: impl Into<Rm>) {
        self.flags_changed = true;
        self.byte(0xf3);
        self.op0f(w, 0xbc, to.0, from.into());
    }

    /// CRC32C of `size` bytes of a register into a 32-bit accumulator.
    pub fn crc32(&mut self, size: u8, to: Reg, from: Reg) {
        if size == 2 {
            self.byte(0x66);
        }
        self.byte(0xf2);
        let force = size == 1 && from.0 >= 4;
        self.rex(size == 8, to.0, from.into(), force);
        self.byte(0x0f);
        self.byte(0x38);
        self.byte(if size == 1 { 0xf0 } else { 0xf1 });
        self.modrm(to.0, from.into());
    }

    // ---- flags

    pub fn setcc(&mut self, cc: Cc, to: Reg) {
        self.rex(false, 0, to.into(), to.0 >= 4);
        self.byte(0x0f);
        self.byte(0x90 | cc as u8);
        self.modrm(0, to.into());
    }

    pub fn cmov(&mut self, cc: Cc, w: bool, to: Reg, from: impl Into<Rm>) {
        self.op0f(w, 0x40 | cc as u8, to.0, from.into());
    }

    /// Inverts CF.
    pub fn cmc(&mut self) {
        self.flags_changed = true;
        self.byte(0xf5);
    }

    /// AH = SF, ZF, AF, PF, CF.
    pub fn lahf(&mut self) {
        self.byte(0x9f);
    }

    pub fn sahf(&mut self) {
        self.flags_changed = true;
        self.byte(0x9e);
    }

    /// `or ah, cl`, and the like on AH with the low byte of RCX.
    pub fn or_ah_cl(&mut self) {
        self.flags_changed = true;
        self.bytes.extend_from_slice(&[0x08, 0xcc]);
    }

    // ---- control

    pub fn jmp(&mut self, label: Label) {
        self.byte(0xe9);
        self.fix(label);
    }

    pub fn call(&mut self, label: Label) {
        self.byte(0xe8);
        self.fix(label);
    }

    pub fn jcc(&mut self, cc: Cc, label: Label) {
        self.byte(0x0f);
        self.byte(0x80 | cc as u8);
        self.fix(label);
    }

    /// JRCXZ over a jump. It leaves the flags alone.
    pub fn jmp_unless_rcx_is_zero(&mut self, label: Label) {
        self.byte(0xe3);
        self.byte(5);
        self.jmp(label);
    }

    fn fix(&mut self, label: Label) {
        let at = self.bytes.len() as u32;
        self.fixups.push(Fixup { at, label });
        self.imm32(0);
    }

    pub fn jmp_indirect(&mut self, to: impl Into<Rm>) {
        self.op(false, 0xff, 4, to.into());
    }

    pub fn call_indirect(&mut self, to: impl Into<Rm>) {
        self.op(false, 0xff, 2, to.into());
    }

    /// To a fixed address within 2 GiB of the code.
    pub fn jmp_to(&mut self, target: usize) {
        self.byte(0xe9);
        self.relative(target);
    }

    pub fn jcc_to(&mut self, cc: Cc, target: usize) {
        self.byte(0x0f);
        self.byte(0x80 | cc as u8);
        self.relative(target);
    }

    pub fn call_to(&mut self, target: usize) {
        self.byte(0xe8);
        self.relative(target);
    }

    fn relative(&mut self, target: usize) {
        let next = self.origin.wrapping_add(self.bytes.len() + 4);
        self.imm32(target.wrapping_sub(next) as i32);
    }

    pub fn ret(&mut self) {
        self.byte(0xc3);
    }

    pub fn push(&mut self, reg: Reg) {
        self.rex(false, 0, reg.into(), false);
        self.byte(0x50 | reg.0 & 7);
    }

    pub fn pop(&mut self, reg: Reg) {
        self.rex(false, 0, reg.into(), false);
        self.byte(0x58 | reg.0 & 7);
    }

    /// A full barrier: `lock or dword [rsp], 0`.
    pub fn barrier(&mut self) {
        self.byte(0xf0);
        self.alu_constant(Alu::Or, false, Mem::at(RSP, 0), 0);
    }

    pub fn pause(&mut self) {
        self.bytes.extend_from_slice(&[0xf3, 0x90]);
    }

    /// Has the line ready to be written. Hosts without the instruction take it as one that does nothing.
    pub fn prefetch_to_write(&mut self, line: Mem) {
        self.op0f(false, 0x0d, 1, line.into());
    }

    pub fn load_mxcsr(&mut self, from: Mem) {
        self.op0f(false, 0xae, 2, from.into());
    }

    pub fn store_mxcsr(&mut self, to: Mem) {
        self.op0f(false, 0xae, 3, to.into());
    }

    // ---- VEX

    fn vex(&mut self, v: Vex, reg: u8, vvvv: u8, rm: Rm) {
        let Vex(pp, map, w, opcode) = v;
        let (x, b) = match rm {
            Rm::Reg(r) => (0, r.0 >> 3),
            Rm::Mem(m) => (m.index.map_or(0, |(i, _)| i.0 >> 3), m.base.0 >> 3),
        };
        let r = reg >> 3;
        let last = (!vvvv & 15) << 3 | pp as u8;
        if map == Map::M0f && !w && x == 0 && b == 0 {
            self.bytes.extend_from_slice(&[0xc5, (r ^ 1) << 7 | last]);
        } else {
            let first = (r ^ 1) << 7 | (x ^ 1) << 6 | (b ^ 1) << 5 | map as u8;
            self.bytes
                .extend_from_slice(&[0xc4, first, u8::from(w) << 7 | last]);
        }
        self.byte(opcode);
        self.modrm(reg, rm);
    }

    fn xm(rm: Xm) -> Rm {
        match rm {
            Xm::Reg(x) => Rm::Reg(Reg(x.0)),
            Xm::Mem(m) => Rm::Mem(m),
        }
    }

    /// Remembers that the instruction from `at` writes a vector register.
    fn writes(&mut self, at: usize, xmm: Xmm, in_prefix: bool) {
        self.result = Some(VectorResult {
            xmm,
            at,
            end: self.bytes.len(),
            in_prefix,
        });
    }

    /// Has what was emitted last write one vector register in the place of another; false if it cannot.
    pub fn redirect(&mut self, from: Xmm, to: Xmm) -> bool {
        let Some(result) = self.result.take() else {
            return false;
        };
        if result.xmm != from || result.end != self.bytes.len() {
            return false;
        }
        let bytes = &mut self.bytes[result.at..];
        let long = usize::from(bytes[0] == 0xc4);
        if result.in_prefix {
            bytes[1 + long] = bytes[1 + long] & !0x78 | (!to.0 & 15) << 3;
        } else {
            bytes[1] = bytes[1] & 0x7f | (to.0 >> 3 ^ 1) << 7;
            bytes[3 + long] = bytes[3 + long] & !0x38 | (to.0 & 7) << 3;
        }
        true
    }

    /// `to = a op b`.
    pub fn vector3(&mut self, v: Vex, to: Xmm, a: Xmm, b: impl Into<Xm>) {
        let at = self.bytes.len();
        self.vex(v, to.0, a.0, Assembler::xm(b.into()));
        // Fused multiplications and additions read it too.
        if !matches!(v, Vex(_, Map::M0f38, _, 0x96..=0xbf)) {
            self.writes(at, to, false);
        }
    }

    /// The same with a constant at the end.
    pub fn vector3_constant(&mut self, v: Vex, to: Xmm, a: Xmm, b: impl Into<Xm>, value: u8) {
        let at = self.bytes.len();
        self.vector3(v, to, a, b);
        self.byte(value);
        self.writes(at, to, false);
    }

    /// `to = op a`; of stores, `to` is what is stored.
    pub fn vector2(&mut self, v: Vex, to: Xmm, a: impl Into<Xm>) {
        let at = self.bytes.len();
        self.vex(v, to.0, 0, Assembler::xm(a.into()));
        if !matches!(v, Vex(_, Map::M0f, _, 0x7f | 0xd6)) {
            self.writes(at, to, false);
        }
    }

    pub fn vector2_constant(&mut self, v: Vex, to: Xmm, a: impl Into<Xm>, value: u8) {
        let at = self.bytes.len();
        self.vector2(v, to, a);
        self.byte(value);
        self.writes(at, to, false);
    }

    /// Shifts by a constant: the operation is in ModRM's register field, the destination in VEX.vvvv.
    pub fn vector_shift(&mut self, opcode: u8, extension: u8, to: Xmm, a: Xmm, amount: u8) {
        let at = self.bytes.len();
        let v = Vex(Pp::P66, Map::M0f, false, opcode);
        self.vex(v, extension, to.0, Rm::Reg(Reg(a.0)));
        self.byte(amount);
        self.writes(at, to, true);
    }

    /// Comparisons that set the host's flags.
    pub fn vector_compare_flags(&mut self, v: Vex, a: Xmm, b: impl Into<Xm>) {
        self.flags_changed = true;
        self.vector2(v, a, b);
        self.result = None;
    }

    /// Between a general and a vector register: the vector is ModRM's register field.
    pub fn vector_general(&mut self, v: Vex, vector: Xmm, a: u8, general: impl Into<Rm>) {
        self.vex(v, vector.0, a, general.into());
    }

    /// The same, with the general register in ModRM's register field and a vector as operand.
    pub fn general_vector(&mut self, v: Vex, general: Reg, vector: impl Into<Xm>) {
        self.vex(v, general.0, 0, Assembler::xm(vector.into()));
    }

    /// `to = mask's sign ? b : a`, by lanes of 32 bits.
    pub fn vector_blend(&mut self, to: Xmm, a: Xmm, b: Xmm, mask: Xmm) {
        let blend = Vex(Pp::P66, Map::M0f3a, false, 0x4a);
        self.vector3_constant(blend, to, a, b, mask.0 << 4);
    }

    /// SHA instructions of two operands, by their opcode in the map 0F 38. XMM0 is a third of SHA256RNDS2.
    pub fn sha(&mut self, opcode: u8, to: Xmm, from: Xmm) {
        self.rex(false, to.0, Rm::Reg(Reg(from.0)), false);
        self.bytes.extend_from_slice(&[0x0f, 0x38, opcode]);
        self.modrm(to.0, Rm::Reg(Reg(from.0)));
    }

    /// SHA1RNDS4 with the function of a number.
    pub fn sha1_rounds(&mut self, to: Xmm, from: Xmm, function: u8) {
        self.rex(false, to.0, Rm::Reg(Reg(from.0)), false);
        self.bytes.extend_from_slice(&[0x0f, 0x3a, 0xcc]);
        self.modrm(to.0, Rm::Reg(Reg(from.0)));
        self.byte(function);
    }

    /// One more byte, a constant of the instruction before.
    pub fn trailing(&mut self, value: u8) {
        self.byte(value);
    }

    /// BMI2: SHLX, SHRX, SARX, which leave the flags alone.
    pub fn shift_by(&mut self, op: ShiftOp, w: bool, to: Reg, a: impl Into<Rm>, amount: Reg) {
        let pp = match op {
            ShiftOp::Shl => Pp::P66,
            ShiftOp::Shr => Pp::Pf2,
            _ => Pp::Pf3,
        };
        self.vex(Vex(pp, Map::M0f38, w, 0xf7), to.0, amount.0, a.into());
    }

    /// BMI2: RORX.
    pub fn rotate_right(&mut self, w: bool, to: Reg, a: impl Into<Rm>, amount: u8) {
        self.vex(Vex(Pp::Pf2, Map::M0f3a, w, 0xf0), to.0, 0, a.into());
        self.byte(amount);
    }
}
