//! What an instruction reads, writes and may do, found by running its semantics on an emitter that only takes notes.

use aarch64::registers as r;
use cpu::vector::{self, Operation};
use cpu::{
    Access, AccessKind, AtomicOperation, Barrier, Emit, Exception, Flow, Jump, Key, Outcome, Width,
};

use super::emit::{Never, run};
use super::flags::{FlagsOf, Operand, Operation as FlagsOperation};

/// What is known of an instruction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Effects {
    /// General registers by bit, 31 being the stack pointer.
    pub reads: u32,
    pub writes: u32,
    pub vector_reads: u32,
    pub vector_writes: u32,
    /// Of those written: no more than the low 4, 8 bytes of them are not zero.
    pub four: u32,
    pub eight: u32,
    pub reads_flags: bool,
    /// And not only by condition codes.
    pub reads_all_flags: bool,
    pub writes_flags: bool,
    /// What they are of, by the registers as they are after the instruction.
    pub flags_of: Option<FlagsOf>,
    /// General registers that are set to sums: of what, at most.
    pub sums: u32,
    pub sum_terms: u32,
    /// Memory is at a sum of these registers, and constants.
    pub address: Option<u32>,
    /// The same, of one register and a constant.
    pub span: Option<Span>,
    /// A register that is moved on by a constant.
    pub moved: Option<(u8, i64)>,
    /// The same as far as its low half goes.
    pub low_moved: Option<(u8, i64)>,
    /// It may be left to the interpreter at run time, which looks at all of the state.
    pub may_stop: bool,
    /// It works on more of the processor than registers and memory.
    pub system: bool,
    /// Where it may go, from its own address.
    pub branch: Option<i64>,
    /// What follows it is not executed after it, but for an exception.
    pub ends: bool,
}

/// Memory that is accessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The register that it is at, 31 being the stack pointer, and how far from there.
    pub base: u8,
    pub offset: i64,
    pub bytes: u16,
    pub write: bool,
}

impl Effects {
    /// Of an instruction.
    pub fn of(key: &Key, word: u32) -> Effects {
        let mut recorder = Recorder {
            key,
            effects: Effects::default(),
        };
        recorder.effects.ends = run(&mut recorder, word) == Flow::Ends;
        let mut effects = recorder.effects;
        effects.flags_of = effects.flags_of.and_then(|of| effects.after(of));
        effects
    }

    /// Whether it goes where a register says.
    pub fn goes_anywhere(&self) -> bool {
        self.ends && self.branch.is_none()
    }

    /// What flags are of after the instruction, by the registers as they are then, if those still tell.
    pub fn after(&self, of: FlagsOf) -> Option<FlagsOf> {
        let moved = if of.w == Width::W64 {
            self.moved
        } else {
            self.low_moved
        };
        let after = |operand: Operand| match operand.register {
            Some(n) if self.writes >> n & 1 != 0 => match moved {
                Some((register, by)) if register == n => operand.plus(by.wrapping_neg()),
                _ => None,
            },
            _ => Some(operand),
        };
        Some(FlagsOf {
            a: after(of.a)?,
            b: after(of.b)?,
            ..of
        })
    }
}

/// The registers in an instruction's fields Rd or Rt, Rn, and Rm or Rs.
pub fn fields(word: u32) -> [u8; 3] {
    [0, 5, 16].map(|shift| (word >> shift & 31) as u8)
}

/// How many low bytes of a result may be other than zero.
pub fn extent(operation: Operation) -> u8 {
    match operation {
        Operation::Low(shape)
        | Operation::Integer(_, shape)
        | Operation::IntegerUnary(_, shape)
        | Operation::IntegerAccumulate(_, shape)
        | Operation::Pairwise(_, shape)
        | Operation::Shift(_, shape, _)
        | Operation::Logic(_, shape)
        | Operation::Select(shape)
        | Operation::Permute(_, shape)
        | Operation::Float(_, shape)
        | Operation::FloatUnary(_, shape)
        | Operation::FloatMultiplyAdd { shape, .. }
        | Operation::FloatRound { shape, .. }
        | Operation::FixedToFloat { shape, .. }
        | Operation::FloatToFixed { shape, .. }
        | Operation::Duplicate { shape, .. }
        | Operation::Extract { shape, .. } => shape.bytes.max(4),
        Operation::FloatConvert { to, .. } => (to.bytes() as u8).max(4),
        _ => 16,
    }
}

/// The same of a vector made from a general register.
pub fn extent_from(operation: vector::FromValue) -> u8 {
    match operation {
        vector::FromValue::Move(lane) => (lane.bytes() as u8).max(4),
        vector::FromValue::FixedToFloat { to, .. } => (to.bytes() as u8).max(4),
        vector::FromValue::Duplicate(shape) => shape.bytes.max(4),
        vector::FromValue::Insert { .. } => 16,
    }
}

/// The same of a constant.
pub fn extent_of_constant(value: u128) -> u8 {
    match value {
        0..=0xffff_ffff => 4,
        0x1_0000_0000..=0xffff_ffff_ffff_ffff => 8,
        _ => 16,
    }
}

struct Recorder<'a> {
    key: &'a Key,
    effects: Effects,
}

impl Recorder<'_> {
    fn write(&mut self, n: u32, value: Term) {
        let bit = 1 << (n & 31);
        self.effects.writes |= bit;
        if let Some(terms) = value.terms {
            self.effects.sums |= bit;
            self.effects.sum_terms |= terms;
        }
        // A register may be written twice.
        for moved in [&mut self.effects.moved, &mut self.effects.low_moved] {
            *moved = moved.filter(|(base, _)| u32::from(*base) != n & 31);
        }
        if let Some((base, by)) = value.one()
            && u32::from(base) == n & 31
        {
            self.effects.moved = Some((base, by));
        }
        if let Some((base, by)) = value.low_one()
            && u32::from(base) == n & 31
        {
            self.effects.low_moved = Some((base, by));
        }
    }

    fn flags_of(operation: FlagsOperation, w: Width, a: Term, b: Term) -> Option<FlagsOf> {
        let (a, b) = a.operand(w).zip(b.operand(w))?;
        Some(FlagsOf { operation, w, a, b })
    }

    fn system(&mut self) -> Outcome<Self> {
        self.effects.system = true;
        Ok(Flow::Ends)
    }
}

/// A value.
#[derive(Clone, Copy)]
struct Term {
    /// If it is a sum, of these registers and constants.
    terms: Option<u32>,
    /// If it is no more than one register, or none, and a constant: the constant.
    by: Option<i64>,
    /// The same as far as the low half goes.
    low: Option<i64>,
}

const OTHER: Term = Term {
    terms: None,
    by: None,
    low: None,
};

impl Term {
    fn constant(by: i64) -> Term {
        Term {
            terms: Some(0),
            by: Some(by),
            low: Some(by),
        }
    }

    fn plus(self, w: Width, other: Term) -> Term {
        let single = self.terms == Some(0) || other.terms == Some(0);
        let sum = |a: Option<i64>, b: Option<i64>| {
            let both = a.zip(b).filter(|_| single);
            both.map(|(a, b)| a.wrapping_add(b))
        };
        Term {
            terms: self.terms.zip(other.terms).map(|(a, b)| a | b),
            by: sum(self.by, other.by).filter(|_| w == Width::W64),
            low: sum(self.low, other.low),
        }
    }

    fn minus(self, w: Width, other: Term) -> Term {
        let constant = other.terms == Some(0);
        let minus = |by: Option<i64>| by.filter(|_| constant).map(i64::wrapping_neg);
        let other = Term {
            by: minus(other.by),
            low: minus(other.low),
            ..other
        };
        self.plus(w, other)
    }

    /// Of a part of it, or a multiple.
    fn inexact(self) -> Term {
        Term {
            by: None,
            low: None,
            ..self
        }
    }

    /// The one register that it is a constant beyond, and that.
    fn one(self) -> Option<(u8, i64)> {
        let terms = self.terms.filter(|terms| terms.is_power_of_two())?;
        Some((terms.trailing_zeros() as u8, self.by?))
    }

    /// The same as far as the low half goes.
    fn low_one(self) -> Option<(u8, i64)> {
        Term {
            by: self.low,
            ..self
        }
        .one()
    }

    /// What flags of that width may be of.
    fn operand(self, w: Width) -> Option<Operand> {
        let by = if w == Width::W64 { self.by } else { self.low };
        let register = match self.terms? {
            0 => None,
            terms if terms.is_power_of_two() => Some(terms.trailing_zeros() as u8),
            _ => return None,
        };
        Some(Operand {
            register,
            plus: i32::try_from(by?).ok()?,
        })
    }
}

/// A vector: how many of its low bytes may be other than zero.
type Extent = u8;

impl Emit for Recorder<'_> {
    type Value = Term;
    type Cond = ();
    type Flags = Option<FlagsOf>;
    type Vector = Extent;
    type Place = ();
    type Stop = Never;

    fn key(&self) -> &Key {
        self.key
    }

    fn pc(&mut self, _: i64) -> Term {
        Term::constant(0).inexact()
    }

    fn x(&mut self, n: u32) -> Term {
        match n & 31 {
            31 => Term::constant(0),
            n => self.x_or_sp(n),
        }
    }

    fn x_or_sp(&mut self, n: u32) -> Term {
        let bit = 1 << (n & 31);
        self.effects.reads |= bit;
        Term {
            terms: Some(bit),
            by: Some(0),
            low: Some(0),
        }
    }

    fn set_x(&mut self, n: u32, value: Term) {
        if n & 31 != 31 {
            self.write(n, value);
        }
    }

    fn set_x_or_sp(&mut self, n: u32, value: Term) {
        self.write(n, value);
    }

    fn v(&mut self, n: u32) -> Extent {
        self.effects.vector_reads |= 1 << (n & 31);
        16
    }

    fn set_v(&mut self, n: u32, value: Extent) {
        let bit = 1 << (n & 31);
        self.effects.vector_writes |= bit;
        match value {
            4 => self.effects.four |= bit,
            8 => self.effects.eight |= bit,
            _ => {}
        }
    }

    fn constant(&mut self, value: u64) -> Term {
        Term::constant(value as i64)
    }

    fn add(&mut self, w: Width, a: Term, b: Term) -> Term {
        a.plus(w, b)
    }

    fn sub(&mut self, w: Width, a: Term, b: Term) -> Term {
        a.minus(w, b)
    }

    fn and(&mut self, _: Width, _: Term, _: Term) -> Term {
        OTHER
    }

    fn or(&mut self, _: Width, a: Term, b: Term) -> Term {
        // A register is moved by OR with zero.
        match (a.terms, b.terms) {
            (Some(0), _) => b.inexact(),
            (_, Some(0)) => a.inexact(),
            _ => OTHER,
        }
    }

    fn xor(&mut self, _: Width, _: Term, _: Term) -> Term {
        OTHER
    }

    fn not(&mut self, _: Width, _: Term) -> Term {
        OTHER
    }

    fn mul(&mut self, _: Width, _: Term, _: Term) -> Term {
        OTHER
    }

    fn mul_high(&mut self, _: bool, _: Term, _: Term) -> Term {
        OTHER
    }

    fn div(&mut self, _: Width, _: bool, _: Term, _: Term) -> Term {
        OTHER
    }

    fn shl(&mut self, _: Width, _: Term, _: Term) -> Term {
        OTHER
    }

    fn lsr(&mut self, _: Width, _: Term, _: Term) -> Term {
        OTHER
    }

    fn asr(&mut self, _: Width, _: Term, _: Term) -> Term {
        OTHER
    }

    fn ror(&mut self, _: Width, _: Term, _: Term) -> Term {
        OTHER
    }

    fn shl_by(&mut self, w: Width, a: Term, amount: u32) -> Term {
        match amount & (w.bits() - 1) {
            0 => Term {
                by: a.by.filter(|_| w == Width::W64),
                ..a
            },
            _ => a.inexact(),
        }
    }

    fn lsr_by(&mut self, _: Width, _: Term, _: u32) -> Term {
        OTHER
    }

    fn asr_by(&mut self, _: Width, _: Term, _: u32) -> Term {
        OTHER
    }

    fn ror_by(&mut self, _: Width, _: Term, _: u32) -> Term {
        OTHER
    }

    fn extract_pair(&mut self, _: Width, _: Term, _: Term, _: u32) -> Term {
        OTHER
    }

    fn sign_extend(&mut self, _: Width, a: Term, _: u32) -> Term {
        a.inexact()
    }

    fn zero_extend(&mut self, a: Term, _: u32) -> Term {
        a.inexact()
    }

    fn count_leading_zeros(&mut self, _: Width, _: Term) -> Term {
        OTHER
    }

    fn count_leading_signs(&mut self, _: Width, _: Term) -> Term {
        OTHER
    }

    fn reverse_bits(&mut self, _: Width, _: Term) -> Term {
        OTHER
    }

    fn reverse_bytes(&mut self, _: Width, _: Term, _: u32) -> Term {
        OTHER
    }

    fn crc32(&mut self, _: bool, _: Term, _: Term, _: u32) -> Term {
        OTHER
    }

    fn select(&mut self, _: Width, (): (), _: Term, _: Term) -> Term {
        OTHER
    }

    fn is_zero(&mut self, _: Width, _: Term) {}
    fn bit_is_set(&mut self, _: Term, _: u32) {}
    fn not_cond(&mut self, (): ()) {}

    fn flags(&mut self) -> Option<FlagsOf> {
        self.effects.reads_flags = true;
        self.effects.reads_all_flags = true;
        None
    }

    fn set_flags(&mut self, flags: Option<FlagsOf>) {
        self.effects.writes_flags = true;
        self.effects.flags_of = flags;
    }

    fn condition(&mut self, _: u32) {
        self.effects.reads_flags = true;
    }

    fn carry(&mut self) -> Term {
        self.effects.reads_flags = true;
        self.effects.reads_all_flags = true;
        OTHER
    }

    fn add_with_flags(
        &mut self,
        w: Width,
        a: Term,
        b: Term,
        carry: Term,
    ) -> (Term, Option<FlagsOf>) {
        let flags = Recorder::flags_of(FlagsOperation::Sum, w, a, b);
        let sum = a.plus(w, b).plus(w, carry);
        (sum, flags.filter(|_| carry.by == Some(0)))
    }

    fn sub_with_flags(&mut self, w: Width, a: Term, b: Term) -> (Term, Option<FlagsOf>) {
        let flags = Recorder::flags_of(FlagsOperation::Difference, w, a, b);
        (a.minus(w, b), flags)
    }

    fn logic_flags(&mut self, _: Width, _: Term) -> Option<FlagsOf> {
        None
    }

    fn flags_from(&mut self, _: Term) -> Option<FlagsOf> {
        None
    }

    fn flags_to(&mut self, _: Option<FlagsOf>) -> Term {
        OTHER
    }

    fn select_flags(&mut self, (): (), _: Option<FlagsOf>, _: u32) -> Option<FlagsOf> {
        None
    }

    fn access(&mut self, address: Term, access: Access) -> Result<(), Never> {
        self.effects.may_stop = true;
        self.effects.address = address.terms;
        self.effects.span = address.one().map(|(base, offset)| Span {
            base,
            offset,
            bytes: access.bytes,
            write: access.kind != AccessKind::Read,
        });
        Ok(())
    }

    fn read(&mut self, (): (), _: u32, _: u8) -> Result<Term, Never> {
        Ok(OTHER)
    }

    fn write(&mut self, (): (), _: u32, _: u8, _: Term) -> Result<(), Never> {
        Ok(())
    }

    fn read_ordered(&mut self, (): (), _: u8) -> Result<Term, Never> {
        Ok(OTHER)
    }

    fn write_ordered(&mut self, (): (), _: u8, _: Term) -> Result<(), Never> {
        Ok(())
    }

    fn read_vector(&mut self, (): (), _: u32, size: u8) -> Result<Extent, Never> {
        Ok(size.max(4))
    }

    fn write_vector(&mut self, (): (), _: u32, _: u8, _: Extent) -> Result<(), Never> {
        Ok(())
    }

    fn atomic(&mut self, _: AtomicOperation, (): (), _: u8, _: Term) -> Result<Term, Never> {
        Ok(OTHER)
    }

    fn compare_and_swap(&mut self, (): (), _: u8, _: Term, _: Term) -> Result<Term, Never> {
        Ok(OTHER)
    }

    fn compare_and_swap_pair(
        &mut self,
        (): (),
        _: u8,
        _: (Term, Term),
        _: (Term, Term),
    ) -> Result<(Term, Term), Never> {
        Ok((OTHER, OTHER))
    }

    fn load_exclusive(&mut self, (): (), _: u8, _: bool) -> Result<(Term, Term), Never> {
        Ok((OTHER, OTHER))
    }

    fn store_exclusive(&mut self, (): (), _: u8, _: bool, _: (Term, Term)) -> Result<Term, Never> {
        Ok(OTHER)
    }

    fn clear_exclusive(&mut self) {}

    fn barrier(&mut self, barrier: Barrier) -> Outcome<Self> {
        match barrier {
            Barrier::Dmb(_) | Barrier::Speculation => Ok(Flow::Next),
            Barrier::Dsb(_) | Barrier::Isb => self.system(),
        }
    }

    fn zero_block(&mut self, _: u32, _: Term) -> Result<(), Never> {
        self.effects.may_stop = true;
        Ok(())
    }

    fn vector_constant(&mut self, value: u128) -> Extent {
        extent_of_constant(value)
    }

    fn vector(&mut self, operation: Operation, _: [Extent; 3]) -> Extent {
        extent(operation)
    }

    fn vector_to_value(&mut self, _: vector::ToValue, _: Extent) -> Term {
        OTHER
    }

    fn value_to_vector(&mut self, operation: vector::FromValue, _: Extent, _: Term) -> Extent {
        extent_from(operation)
    }

    fn float_compare(&mut self, _: vector::Compare, _: Extent, _: Extent) -> Option<FlagsOf> {
        None
    }

    fn select_vector(&mut self, (): (), yes: Extent, no: Extent) -> Extent {
        yes.max(no)
    }

    fn read_system_register(&mut self, register: u16, _: u32) -> Result<Term, Never> {
        match register {
            r::NZCV => {
                self.effects.reads_flags = true;
                self.effects.reads_all_flags = true;
            }
            r::FPCR if self.key.fp_enabled => {}
            r::TPIDR_EL0 | r::TPIDRRO_EL0 => {}
            r::TPIDR_EL1 | r::SP_EL0 if self.key.el == 1 => {}
            _ => self.effects.system = true,
        }
        Ok(OTHER)
    }

    fn write_system_register(&mut self, register: u16, _: u32, _: Term) -> Outcome<Self> {
        if register == r::NZCV {
            self.effects.writes_flags = true;
            return Ok(Flow::Next);
        }
        self.system()
    }

    fn write_pstate(&mut self, _: u32, _: u32) -> Outcome<Self> {
        self.system()
    }

    fn system(&mut self, _: u16, _: u32, _: Term) -> Outcome<Self> {
        Recorder::system(self)
    }

    fn pac_add(&mut self, _: u32, _: Term, _: Term) -> Term {
        OTHER
    }

    fn pac_authenticate(&mut self, _: u32, _: Term, _: Term) -> Term {
        OTHER
    }

    fn pac_strip(&mut self, _: bool, _: Term) -> Term {
        OTHER
    }

    fn pac_generic(&mut self, _: Term, _: Term) -> Term {
        OTHER
    }

    fn hint(&mut self, number: u32) -> Outcome<Self> {
        if (2..=5).contains(&number) {
            return Recorder::system(self);
        }
        Ok(Flow::Next)
    }

    fn jump(&mut self, offset: i64) -> Flow {
        self.effects.branch = Some(offset);
        Flow::Ends
    }

    fn jump_if(&mut self, (): (), offset: i64) -> Flow {
        self.effects.branch = Some(offset);
        Flow::Next
    }

    fn jump_to(&mut self, _: Term, _: Jump) -> Flow {
        Flow::Ends
    }

    fn exception_link(&mut self) -> Term {
        self.effects.system = true;
        OTHER
    }

    fn exception_return(&mut self, _: Term) -> Outcome<Self> {
        Recorder::system(self)
    }

    fn exception(&mut self, _: Exception) -> Outcome<Self> {
        Recorder::system(self)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A key of EL0.
    pub fn key() -> Key {
        Key {
            el: 0,
            sp_sel: false,
            fp_enabled: true,
            fpcr: 0,
            align_check: false,
            sp_align_check: true,
            uao: false,
            pac: [false; 4],
            extensions: Default::default(),
            btype: 0,
        }
    }

    #[test]
    fn what_is_near_a_register_is_known() {
        let key = key();
        let of = |word| Effects::of(&key, word);
        let span = |base, offset, bytes, write| {
            Some(Span {
                base,
                offset,
                bytes,
                write,
            })
        };
        // ldr x0, [x1], #8; str w0, [sp, #4]; ldr x0, [x1, x2]
        assert_eq!(of(0xf840_8420).span, span(1, 0, 8, false));
        assert_eq!(of(0xf840_8420).moved, Some((1, 8)));
        assert_eq!(of(0xb900_07e0).span, span(31, 4, 4, true));
        assert_eq!(of(0xf862_6820).span, None);
        // sub sp, sp, #16; add x1, x2, #8; add w1, w1, #8; add x1, x1, x1; mov x1, x2; neg x1, x1
        assert_eq!(of(0xd100_43ff).moved, Some((31, -16)));
        for word in [
            0x9100_2041,
            0x1100_2021,
            0x8b01_0021,
            0xaa02_03e1,
            0xcb01_03e1,
        ] {
            assert_eq!(of(word).moved, None);
        }
    }
}
