//! The interface that instruction semantics are written against.
//!
//! Each A64 instruction is described once, as a function `fn name<E: Emit>(e: &mut E, word: u32) -> Outcome<E>`.
//! Executed at once ([`crate::interpreter`]) it is the interpreter; emitted at once it is a code generator's first tier;
//! recorded it is the second's input. So:
//!
//! - Values are opaque. A host `if` may look at encoding fields and at [`Emit::key`] only, never at a value.
//! - Memory is prove-then-act: [`Emit::access`] over the whole span of the instruction, then reads and writes of the
//!   place. Registers (write-back and destinations) are committed last, after everything that can fail.
//! - Temporaries die with the instruction.
//! - Emitters fold constants.

use aarch64::Extensions;

use crate::vector;

/// How an instruction ended: where the next one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// The one that follows.
    Next,
    /// Decided by a terminator ([`Emit::jump`], [`Emit::exception`], …); nothing after it in the block runs.
    Ends,
}

/// What a semantic function returns. `Stop` is an exception taken in the middle when executing, and cannot happen when
/// emitting.
pub type Outcome<E> = Result<Flow, <E as Emit>::Stop>;

/// The width of an integer operation. Results of `W32` are zero-extended to 64 bits; operands' upper halves are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    W32,
    W64,
}

impl Width {
    /// 32 or 64.
    pub fn bits(self) -> u32 {
        match self {
            Width::W32 => 32,
            Width::W64 => 64,
        }
    }

    /// From an encoding's `sf` bit.
    pub fn from_sf(sf: bool) -> Width {
        if sf { Width::W64 } else { Width::W32 }
    }
}

/// What the surroundings of an instruction are known to be while it is translated: a block's key. Changing any of it
/// ends a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// Exception level, 0 to 3.
    pub el: u8,
    /// PSTATE.SP: whether the stack pointer is SP_ELx (else SP_EL0).
    pub sp_sel: bool,
    /// FP and Advanced SIMD do not trap (CPACR_EL1.FPEN at this exception level).
    pub fp_enabled: bool,
    /// FPCR's control bits (AHP, DN, FZ, RMode, FZ16), as in the register.
    pub fpcr: u32,
    /// SCTLR_ELx.A at this exception level: alignment is checked on every access.
    pub align_check: bool,
    /// SCTLR_ELx.SA/SA0 at this exception level: the stack pointer must be 16-byte aligned where it is the base.
    pub sp_align_check: bool,
    /// PSTATE.UAO: LDTR/STTR behave as LDR/STR.
    pub uao: bool,
    /// Pointer authentication enabled for (IA, IB, DA, DB) at this exception level.
    pub pac: [bool; 4],
    /// What the processor has, for encodings that exist only with an extension; constant for a processor.
    pub extensions: Extensions,
    /// PSTATE.BTYPE is not checked (no BTI in v8.2); kept for later.
    pub btype: u8,
}

/// What an access is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessKind {
    Read,
    Write,
    /// Atomic read-modify-write, compare-and-swap: needs both permissions; faults are reported as for a write unless the read is
    /// not permitted.
    ReadWrite,
}

/// How strictly an access is aligned and ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Plain: aligned only if SCTLR.A says so or the memory is Device.
    Plain,
    /// Load-acquire, store-release (RCsc), also of exclusives and atomics; alignment is always checked (no LSE2).
    AcquireRelease,
    /// LDAPR: RCpc.
    AcquirePc,
    /// Exclusives and atomics without ordering: alignment is always checked.
    Atomic,
    /// Non-temporal and SIMD structure accesses check alignment by element: `bytes` of it.
    Element(u8),
}

/// One memory access of an instruction: the whole span, proven before any of it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Bytes in all.
    pub bytes: u16,
    /// The unit of alignment and single-copy atomicity: bytes, a power of two up to 16.
    pub size: u8,
    pub kind: AccessKind,
    pub order: Order,
    /// LDTR/STTR: as EL0, unless UAO.
    pub unprivileged: bool,
    /// The base register was SP: its alignment is checked if [`Key::sp_align_check`].
    pub sp_base: bool,
}

impl Access {
    /// So many bytes, whose alignment does not matter.
    pub const fn bytes(kind: AccessKind, bytes: u16) -> Access {
        Access {
            bytes,
            size: 1,
            kind,
            order: Order::Plain,
            unprivileged: false,
            sp_base: false,
        }
    }
}

/// Read-modify-write operations (LSE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtomicOperation {
    Add,
    /// AND NOT (LDCLR).
    Clear,
    Xor,
    /// OR (LDSET).
    Set,
    SignedMax,
    SignedMin,
    UnsignedMax,
    UnsignedMin,
    Swap,
}

/// Barriers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Barrier {
    /// DMB with its domain and access types, the CRm field.
    Dmb(u8),
    /// DSB with CRm: also completes TLB and cache maintenance.
    Dsb(u8),
    Isb,
    /// SB, CSDB, SSBB, PSSBB.
    Speculation,
}

/// Instructions that an exception handler is entered for, or that end a block with the processor's help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// Unallocated, or not permitted here: ESR EC 0.
    Undefined,
    Svc(u16),
    Hvc(u16),
    Smc(u16),
    Brk(u16),
    Hlt(u16),
    /// Access to FP or Advanced SIMD that CPACR_EL1 traps: EC 7.
    FpTrap,
    /// Illegal execution state: EC 0xe.
    IllegalState,
    /// PC alignment: EC 0x22.
    PcAlignment,
}

/// Address arithmetic and memory, integer arithmetic, flags, control flow, state: what instructions are made of.
///
/// Integer operations take 64-bit values; with `Width::W32` they use the low halves and zero-extend the result.
pub trait Emit {
    /// A 64-bit integer.
    type Value: Copy;
    /// A truth value.
    type Cond: Copy;
    /// N, Z, C and V.
    type Flags: Copy;
    /// 128 bits.
    type Vector: Copy;
    /// A span of memory that was proven accessible.
    type Place: Copy;
    /// An exception in the middle of an instruction; uninhabited for emitters.
    type Stop;

    // ---- context

    /// What is known of the surroundings.
    fn key(&self) -> &Key;
    /// The address of this instruction plus `offset` (a run-time value: blocks are found by physical address).
    fn pc(&mut self, offset: i64) -> Self::Value;

    // ---- registers

    /// Xn, with 31 as zero.
    fn x(&mut self, n: u32) -> Self::Value;
    /// Xn, with 31 as the stack pointer.
    fn x_or_sp(&mut self, n: u32) -> Self::Value;
    /// Writes Xn; 31 discards.
    fn set_x(&mut self, n: u32, value: Self::Value);
    /// Writes Xn or, with 31, the stack pointer.
    fn set_x_or_sp(&mut self, n: u32, value: Self::Value);
    /// Vn.
    fn v(&mut self, n: u32) -> Self::Vector;
    /// Writes all 128 bits of Vn.
    fn set_v(&mut self, n: u32, value: Self::Vector);

    // ---- integers

    fn constant(&mut self, value: u64) -> Self::Value;
    fn add(&mut self, w: Width, a: Self::Value, b: Self::Value) -> Self::Value;
    fn sub(&mut self, w: Width, a: Self::Value, b: Self::Value) -> Self::Value;
    fn and(&mut self, w: Width, a: Self::Value, b: Self::Value) -> Self::Value;
    fn or(&mut self, w: Width, a: Self::Value, b: Self::Value) -> Self::Value;
    fn xor(&mut self, w: Width, a: Self::Value, b: Self::Value) -> Self::Value;
    fn not(&mut self, w: Width, a: Self::Value) -> Self::Value;
    fn mul(&mut self, w: Width, a: Self::Value, b: Self::Value) -> Self::Value;
    /// Bits 127:64 of the signed or unsigned product.
    fn mul_high(&mut self, signed: bool, a: Self::Value, b: Self::Value) -> Self::Value;
    /// A64 division: by zero gives zero, the overflow of signed division wraps.
    fn div(&mut self, w: Width, signed: bool, a: Self::Value, b: Self::Value) -> Self::Value;
    /// Shifts and rotates take the amount modulo the width.
    fn shl(&mut self, w: Width, a: Self::Value, amount: Self::Value) -> Self::Value;
    fn lsr(&mut self, w: Width, a: Self::Value, amount: Self::Value) -> Self::Value;
    fn asr(&mut self, w: Width, a: Self::Value, amount: Self::Value) -> Self::Value;
    fn ror(&mut self, w: Width, a: Self::Value, amount: Self::Value) -> Self::Value;
    /// By a constant less than the width.
    fn shl_by(&mut self, w: Width, a: Self::Value, amount: u32) -> Self::Value;
    fn lsr_by(&mut self, w: Width, a: Self::Value, amount: u32) -> Self::Value;
    fn asr_by(&mut self, w: Width, a: Self::Value, amount: u32) -> Self::Value;
    fn ror_by(&mut self, w: Width, a: Self::Value, amount: u32) -> Self::Value;
    /// EXTR: bits of high:low from `lsb` on.
    fn extract_pair(
        &mut self,
        w: Width,
        high: Self::Value,
        low: Self::Value,
        lsb: u32,
    ) -> Self::Value;
    /// The low `bits`, sign-extended to 64, then cut to the width.
    fn sign_extend(&mut self, w: Width, a: Self::Value, bits: u32) -> Self::Value;
    /// The low `bits`, zero-extended.
    fn zero_extend(&mut self, a: Self::Value, bits: u32) -> Self::Value;
    fn count_leading_zeros(&mut self, w: Width, a: Self::Value) -> Self::Value;
    fn count_leading_signs(&mut self, w: Width, a: Self::Value) -> Self::Value;
    fn reverse_bits(&mut self, w: Width, a: Self::Value) -> Self::Value;
    /// Reverses the bytes of each `chunk`-bit part (16, 32, 64) of the value.
    fn reverse_bytes(&mut self, w: Width, a: Self::Value, chunk: u32) -> Self::Value;
    /// CRC32 (`castagnoli` false: polynomial 0x04c11db7, else 0x1edc6f41) of `bits` (8 to 64) of data.
    fn crc32(
        &mut self,
        castagnoli: bool,
        accumulator: Self::Value,
        data: Self::Value,
        bits: u32,
    ) -> Self::Value;

    // ---- conditions and flags

    fn select(
        &mut self,
        w: Width,
        condition: Self::Cond,
        yes: Self::Value,
        no: Self::Value,
    ) -> Self::Value;
    fn is_zero(&mut self, w: Width, a: Self::Value) -> Self::Cond;
    fn bit_is_set(&mut self, a: Self::Value, bit: u32) -> Self::Cond;
    fn not_cond(&mut self, a: Self::Cond) -> Self::Cond;
    /// The present flags.
    fn flags(&mut self) -> Self::Flags;
    fn set_flags(&mut self, flags: Self::Flags);
    /// An A64 condition code (0 EQ … 14 AL, 15 NV) on the present flags.
    fn condition(&mut self, code: u32) -> Self::Cond;
    /// The present carry as 0 or 1.
    fn carry(&mut self) -> Self::Value;
    /// a + b + carry (0 or 1) with the flags of that.
    fn add_with_flags(
        &mut self,
        w: Width,
        a: Self::Value,
        b: Self::Value,
        carry: Self::Value,
    ) -> (Self::Value, Self::Flags);
    /// a − b with its flags (C is no borrow).
    fn sub_with_flags(
        &mut self,
        w: Width,
        a: Self::Value,
        b: Self::Value,
    ) -> (Self::Value, Self::Flags);
    /// N and Z of a result, C and V clear.
    fn logic_flags(&mut self, w: Width, result: Self::Value) -> Self::Flags;
    /// NZCV from bits 31:28 of a value.
    fn flags_from(&mut self, value: Self::Value) -> Self::Flags;
    /// NZCV in bits 31:28.
    fn flags_to(&mut self, flags: Self::Flags) -> Self::Value;
    /// CCMP: `flags` if the condition holds, else the constant (bits 3:0 are N, Z, C, V).
    fn select_flags(
        &mut self,
        condition: Self::Cond,
        flags: Self::Flags,
        otherwise: u32,
    ) -> Self::Flags;

    // ---- memory: an instruction has one place at a time; a second `access` ends the first

    /// Proves the whole span accessible (tag bits are stripped here, as TBI says), or stops with the fault.
    fn access(&mut self, address: Self::Value, access: Access) -> Result<Self::Place, Self::Stop>;
    /// `size` bytes (1 to 8) at `offset` into the place, zero-extended. Can only stop with an external abort of a device.
    fn read(
        &mut self,
        place: Self::Place,
        offset: u32,
        size: u8,
    ) -> Result<Self::Value, Self::Stop>;
    fn write(
        &mut self,
        place: Self::Place,
        offset: u32,
        size: u8,
        value: Self::Value,
    ) -> Result<(), Self::Stop>;
    /// LDAR and LDAPR: as `read` at offset 0 of a place proven with that order, ordered.
    fn read_ordered(&mut self, place: Self::Place, size: u8) -> Result<Self::Value, Self::Stop>;
    /// STLR: as `write` at offset 0, ordered.
    fn write_ordered(
        &mut self,
        place: Self::Place,
        size: u8,
        value: Self::Value,
    ) -> Result<(), Self::Stop>;
    /// `size` bytes (1 to 16) into the low end of a vector, zero-extended.
    fn read_vector(
        &mut self,
        place: Self::Place,
        offset: u32,
        size: u8,
    ) -> Result<Self::Vector, Self::Stop>;
    fn write_vector(
        &mut self,
        place: Self::Place,
        offset: u32,
        size: u8,
        value: Self::Vector,
    ) -> Result<(), Self::Stop>;
    /// An atomic read-modify-write of `size` bytes; the old value, zero-extended.
    fn atomic(
        &mut self,
        operation: AtomicOperation,
        place: Self::Place,
        size: u8,
        operand: Self::Value,
    ) -> Result<Self::Value, Self::Stop>;
    /// CAS: stores `new` if memory equals `expected` (their low `size` bytes); the old value, zero-extended.
    fn compare_and_swap(
        &mut self,
        place: Self::Place,
        size: u8,
        expected: Self::Value,
        new: Self::Value,
    ) -> Result<Self::Value, Self::Stop>;
    /// CASP: a pair of `size`-byte values (4 or 8 each), lower address first.
    fn compare_and_swap_pair(
        &mut self,
        place: Self::Place,
        size: u8,
        expected: (Self::Value, Self::Value),
        new: (Self::Value, Self::Value),
    ) -> Result<(Self::Value, Self::Value), Self::Stop>;
    /// LDXR and the like: reads and arms the local monitor. `pair`: two `size`-byte values.
    fn load_exclusive(
        &mut self,
        place: Self::Place,
        size: u8,
        pair: bool,
    ) -> Result<(Self::Value, Self::Value), Self::Stop>;
    /// STXR and the like: the status, 0 for stored. Disarms the monitor.
    fn store_exclusive(
        &mut self,
        place: Self::Place,
        size: u8,
        pair: bool,
        value: (Self::Value, Self::Value),
    ) -> Result<Self::Value, Self::Stop>;
    /// CLREX.
    fn clear_exclusive(&mut self);
    fn barrier(&mut self, barrier: Barrier) -> Outcome<Self>
    where
        Self: Sized;
    /// DC ZVA of the block around the address, with its trap.
    fn zero_block(&mut self, rt: u32, address: Self::Value) -> Result<(), Self::Stop>;

    // ---- vectors and floating point (see `vector::Operation`; results are exact, FPSR is accumulated)

    fn vector_constant(&mut self, value: u128) -> Self::Vector;
    /// A whole operation on up to three vectors; unused operands are ignored.
    fn vector(&mut self, operation: vector::Operation, operands: [Self::Vector; 3])
    -> Self::Vector;
    /// A vector to a general register: UMOV, SMOV, FMOV, FCVT*.
    fn vector_to_value(&mut self, operation: vector::ToValue, a: Self::Vector) -> Self::Value;
    /// A general register to a vector: DUP, INS, FMOV, SCVTF, UCVTF. `into` is the vector that lanes are inserted into.
    fn value_to_vector(
        &mut self,
        operation: vector::FromValue,
        into: Self::Vector,
        a: Self::Value,
    ) -> Self::Vector;
    /// FCMP, FCMPE of scalars.
    fn float_compare(
        &mut self,
        operation: vector::Compare,
        a: Self::Vector,
        b: Self::Vector,
    ) -> Self::Flags;
    fn select_vector(
        &mut self,
        condition: Self::Cond,
        yes: Self::Vector,
        no: Self::Vector,
    ) -> Self::Vector;

    // ---- system

    /// MRS of a register (encoding `op0<<14|op1<<11|CRn<<7|CRm<<3|op2`), with its traps. `rt` is Xt's number, for
    /// syndromes.
    fn read_system_register(&mut self, register: u16, rt: u32) -> Result<Self::Value, Self::Stop>;
    /// MSR of a register. `Ends` where the block's key or translation may change.
    fn write_system_register(
        &mut self,
        register: u16,
        rt: u32,
        value: Self::Value,
    ) -> Outcome<Self>
    where
        Self: Sized;
    /// MSR (immediate): the PSTATE field `op1:op2`, and CRm.
    fn write_pstate(&mut self, field: u32, immediate: u32) -> Outcome<Self>
    where
        Self: Sized;
    /// SYS (`value`: Xt): cache, TLB and address translation instructions other than DC ZVA.
    fn system(&mut self, register: u16, rt: u32, value: Self::Value) -> Outcome<Self>
    where
        Self: Sized;
    /// PACIA and the like: `key` 0 IA, 1 IB, 2 DA, 3 DB. Called only where [`Key::pac`] enables the key.
    fn pac_add(&mut self, key: u32, pointer: Self::Value, modifier: Self::Value) -> Self::Value;
    /// AUTIA and the like. Called only where [`Key::pac`] enables the key.
    fn pac_authenticate(
        &mut self,
        key: u32,
        pointer: Self::Value,
        modifier: Self::Value,
    ) -> Self::Value;
    /// XPACI, XPACD.
    fn pac_strip(&mut self, data: bool, pointer: Self::Value) -> Self::Value;
    /// PACGA.
    fn pac_generic(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// YIELD, WFE, WFI, SEV, SEVL by HINT's number; others do nothing.
    fn hint(&mut self, number: u32) -> Outcome<Self>
    where
        Self: Sized;

    // ---- terminators

    /// To this instruction's address plus `offset`.
    fn jump(&mut self, offset: i64) -> Flow;
    /// The same if the condition holds, else to the next instruction.
    fn jump_if(&mut self, condition: Self::Cond, offset: i64) -> Flow;
    /// To an address, as BR (`call`: as BLR, `return_`: as RET, for prediction).
    fn jump_to(&mut self, target: Self::Value, kind: Jump) -> Flow;
    /// ELR of this exception level.
    fn exception_link(&mut self) -> Self::Value;
    /// ERET to `target`.
    fn exception_return(&mut self, target: Self::Value) -> Outcome<Self>
    where
        Self: Sized;
    /// Takes an exception at this instruction.
    fn exception(&mut self, exception: Exception) -> Outcome<Self>
    where
        Self: Sized;
}

/// Why an indirect branch is taken, for prediction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Jump {
    Branch,
    Call,
    Return,
}
