//! The interface of instruction semantics, for [`Emitter`].

use aarch64::registers as r;
use cpu::registers::sctlr;
use cpu::vector::{self, Operation};
use cpu::{
    Access, AccessKind, AtomicOperation, Barrier, Emit, Exception, Flow, Jump, Key, Order, Outcome,
    Width, semantics,
};

use super::assembler::{Mem, RAX, ShiftOp};
use super::emitter::{
    Binary, Cond, Emitter, End, Flags, Node, Place, Place128, Test, Unary, Value, Vector,
};
use super::frame;
use super::functions;

/// What instructions cannot do while they are emitted.
#[derive(Clone, Copy, Debug)]
pub enum Never {}

/// Runs the semantics of an instruction on what emits or records them.
pub fn run<E: Emit<Stop = Never>>(e: &mut E, word: u32) -> Flow {
    let outcome = match aarch64::decode(word, e.key().extensions) {
        Some(instruction) => semantics::instruction(e, instruction, word),
        None => semantics::undefined(e, word),
    };
    match outcome {
        Ok(flow) => flow,
        Err(never) => match never {},
    }
}

fn cut(w: Width, value: u64) -> u64 {
    match w {
        Width::W32 => value as u32 as u64,
        Width::W64 => value,
    }
}

impl Emitter {
    fn binary_node(&mut self, op: Binary, w: Width, a: Value, b: Value) -> Value {
        self.node(Node::Binary(op, w, a, b))
    }

    /// The value, cut to the width.
    fn narrowed(&mut self, w: Width, a: Value) -> Value {
        match w {
            Width::W64 => a,
            Width::W32 => self.node(Node::Unary(Unary::ZeroExtend(32), Width::W64, a)),
        }
    }

    /// Whether two values are the same register.
    fn is_same(&self, a: Value, b: Value) -> bool {
        let registers = (self.get(a), self.get(b));
        matches!(registers, (Node::Guest(a, _), Node::Guest(b, _)) if a == b)
    }

    fn shift_node(&mut self, op: ShiftOp, w: Width, a: Value, amount: u32) -> Value {
        let amount = amount & (w.bits() - 1);
        if let Some(c) = self.constant_of(a) {
            let bits = w.bits();
            let c = cut(w, c);
            let value = match op {
                ShiftOp::Shl => c << amount,
                ShiftOp::Shr => c >> amount,
                ShiftOp::Sar => (((c << (64 - bits)) as i64) >> (64 - bits) >> amount) as u64,
                _ if amount == 0 => c,
                _ => c >> amount | c << (bits - amount),
            };
            return self.constant(cut(w, value));
        }
        if amount == 0 {
            return self.narrowed(w, a);
        }
        self.node(Node::Shift(op, w, a, amount as u8))
    }

    fn commit_check(&mut self) {
        if self.committed {
            self.fail("memory after registers");
        }
    }

    /// Stores a value in the place.
    fn put(&mut self, offset: u32, size: u8, value: Value) {
        if self.failed.is_some() {
            return;
        }
        self.commit_check();
        let to = self.memory(offset as i32);
        match self.constant_of(value) {
            Some(c) if size < 8 || i32::try_from(c as i64).is_ok() => {
                self.asm.store_constant(size, to, c as i32);
            }
            _ => {
                let reg = self.in_register(value);
                self.asm.store(size, to, reg.0);
                self.release_if(reg);
            }
        }
    }

    /// The memory of a system register that is read or written with no more to it, and whether by which level.
    fn plain_register(&self, register: u16, write: bool) -> Option<Mem> {
        let el1 = self.key.el == 1;
        Some(match register {
            r::TPIDR_EL0 => frame::TPIDR_EL0,
            r::TPIDRRO_EL0 if el1 || !write => frame::TPIDRRO_EL0,
            _ if !el1 => return None,
            r::TPIDR_EL1 => frame::TPIDR_EL1,
            r::SP_EL0 if self.key.sp_sel => frame::SP_EL0,
            r::ELR_EL1 => frame::ELR_EL1,
            r::FAR_EL1 => frame::FAR_EL1,
            r::ESR_EL1 if !write => frame::ESR_EL1,
            r::SPSR_EL1 if !write => frame::SPSR_EL1,
            r::SCTLR_EL1 if !write => frame::SCTLR_EL1,
            r::TTBR0_EL1 if !write => frame::TTBR0_EL1,
            r::TTBR1_EL1 if !write => frame::TTBR1_EL1,
            r::VBAR_EL1 if !write => frame::VBAR_EL1,
            r::TCR_EL1 if !write => frame::TCR_EL1,
            r::MAIR_EL1 if !write => frame::MAIR_EL1,
            r::CPACR_EL1 if !write => frame::CPACR_EL1,
            r::CONTEXTIDR_EL1 if !write => frame::CONTEXTIDR_EL1,
            _ => return None,
        })
    }
}

impl Emit for Emitter {
    type Value = Value;
    type Cond = Cond;
    type Flags = Flags;
    type Vector = Vector;
    type Place = Place;
    type Stop = Never;

    fn key(&self) -> &Key {
        &self.key
    }

    fn pc(&mut self, offset: i64) -> Value {
        self.node(Node::Pc(i64::from(self.offset).wrapping_add(offset)))
    }

    // ---- registers

    fn x(&mut self, n: u32) -> Value {
        match n & 31 {
            31 => self.node(Node::Constant(0)),
            n => self.x_or_sp(n),
        }
    }

    fn x_or_sp(&mut self, n: u32) -> Value {
        let n = n & 31;
        self.node(Node::Guest(n as u8, self.epochs[n as usize]))
    }

    fn set_x(&mut self, n: u32, value: Value) {
        if n & 31 != 31 {
            self.write_general((n & 31) as u8, value);
        }
    }

    fn set_x_or_sp(&mut self, n: u32, value: Value) {
        self.write_general((n & 31) as u8, value);
    }

    fn v(&mut self, n: u32) -> Vector {
        let n = n & 31;
        self.vector_at(Place128::Guest(n as u8, self.vector_epochs[n as usize]))
    }

    fn set_v(&mut self, n: u32, value: Vector) {
        self.write_vector_register((n & 31) as u8, value);
    }

    // ---- integers

    fn constant(&mut self, value: u64) -> Value {
        self.node(Node::Constant(value))
    }

    fn add(&mut self, w: Width, a: Value, b: Value) -> Value {
        match (self.get(a), self.get(b)) {
            (Node::Constant(a), Node::Constant(b)) => self.constant(cut(w, a.wrapping_add(b))),
            (Node::Pc(offset), Node::Constant(c)) if w == Width::W64 => {
                self.node(Node::Pc(offset.wrapping_add(c as i64)))
            }
            (_, Node::Constant(0)) => self.narrowed(w, a),
            (Node::Constant(0), _) => self.narrowed(w, b),
            _ => self.binary_node(Binary::Add, w, a, b),
        }
    }

    fn sub(&mut self, w: Width, a: Value, b: Value) -> Value {
        match (self.get(a), self.get(b)) {
            (Node::Constant(a), Node::Constant(b)) => self.constant(cut(w, a.wrapping_sub(b))),
            (_, Node::Constant(0)) => self.narrowed(w, a),
            _ => self.binary_node(Binary::Sub, w, a, b),
        }
    }

    fn and(&mut self, w: Width, a: Value, b: Value) -> Value {
        match (self.get(a), self.get(b)) {
            (Node::Constant(a), Node::Constant(b)) => self.constant(cut(w, a & b)),
            // The page's address: what executes is in the page.
            (Node::Pc(offset), Node::Constant(0xffff_ffff_ffff_f000)) if w == Width::W64 => {
                self.node(Node::Pc(offset & !0xfff))
            }
            _ => self.binary_node(Binary::And, w, a, b),
        }
    }

    fn or(&mut self, w: Width, a: Value, b: Value) -> Value {
        match (self.get(a), self.get(b)) {
            (Node::Constant(a), Node::Constant(b)) => self.constant(cut(w, a | b)),
            (_, Node::Constant(0)) => self.narrowed(w, a),
            (Node::Constant(0), _) => self.narrowed(w, b),
            _ => self.binary_node(Binary::Or, w, a, b),
        }
    }

    fn xor(&mut self, w: Width, a: Value, b: Value) -> Value {
        match (self.get(a), self.get(b)) {
            (Node::Constant(a), Node::Constant(b)) => self.constant(cut(w, a ^ b)),
            _ => self.binary_node(Binary::Xor, w, a, b),
        }
    }

    fn not(&mut self, w: Width, a: Value) -> Value {
        match self.get(a) {
            Node::Constant(a) => self.constant(cut(w, !a)),
            _ => self.node(Node::Unary(Unary::Not, w, a)),
        }
    }

    fn mul(&mut self, w: Width, a: Value, b: Value) -> Value {
        self.binary_node(Binary::Mul, w, a, b)
    }

    fn mul_high(&mut self, signed: bool, a: Value, b: Value) -> Value {
        self.binary_node(Binary::MulHigh(signed), Width::W64, a, b)
    }

    fn div(&mut self, w: Width, signed: bool, a: Value, b: Value) -> Value {
        self.binary_node(Binary::Div(signed), w, a, b)
    }

    fn shl(&mut self, w: Width, a: Value, amount: Value) -> Value {
        self.node(Node::ShiftBy(ShiftOp::Shl, w, a, amount))
    }

    fn lsr(&mut self, w: Width, a: Value, amount: Value) -> Value {
        self.node(Node::ShiftBy(ShiftOp::Shr, w, a, amount))
    }

    fn asr(&mut self, w: Width, a: Value, amount: Value) -> Value {
        self.node(Node::ShiftBy(ShiftOp::Sar, w, a, amount))
    }

    fn ror(&mut self, w: Width, a: Value, amount: Value) -> Value {
        self.node(Node::ShiftBy(ShiftOp::Ror, w, a, amount))
    }

    fn shl_by(&mut self, w: Width, a: Value, amount: u32) -> Value {
        self.shift_node(ShiftOp::Shl, w, a, amount)
    }

    fn lsr_by(&mut self, w: Width, a: Value, amount: u32) -> Value {
        self.shift_node(ShiftOp::Shr, w, a, amount)
    }

    fn asr_by(&mut self, w: Width, a: Value, amount: u32) -> Value {
        self.shift_node(ShiftOp::Sar, w, a, amount)
    }

    fn ror_by(&mut self, w: Width, a: Value, amount: u32) -> Value {
        self.shift_node(ShiftOp::Ror, w, a, amount)
    }

    fn extract_pair(&mut self, w: Width, high: Value, low: Value, lsb: u32) -> Value {
        match lsb & (w.bits() - 1) {
            0 => self.narrowed(w, low),
            // A rotation.
            lsb if self.is_same(high, low) => self.shift_node(ShiftOp::Ror, w, low, lsb),
            lsb => self.node(Node::ExtractPair(w, high, low, lsb as u8)),
        }
    }

    fn sign_extend(&mut self, w: Width, a: Value, bits: u32) -> Value {
        if let Some(c) = self.constant_of(a) {
            let unused = (64 - bits) & 63;
            return self.constant(cut(w, ((c << unused) as i64 >> unused) as u64));
        }
        self.node(Node::Unary(Unary::SignExtend(bits.min(64) as u8), w, a))
    }

    fn zero_extend(&mut self, a: Value, bits: u32) -> Value {
        if let Some(c) = self.constant_of(a) {
            return self.constant(c & (u64::MAX >> ((64 - bits) & 63)));
        }
        self.node(Node::Unary(
            Unary::ZeroExtend(bits.min(64) as u8),
            Width::W64,
            a,
        ))
    }

    fn count_leading_zeros(&mut self, w: Width, a: Value) -> Value {
        self.node(Node::Unary(Unary::LeadingZeros, w, a))
    }

    fn count_leading_signs(&mut self, w: Width, a: Value) -> Value {
        self.node(Node::Unary(Unary::LeadingSigns, w, a))
    }

    fn reverse_bits(&mut self, w: Width, a: Value) -> Value {
        self.took_following = self.counts_zeros(w);
        let operation = if self.took_following {
            Unary::TrailingZeros
        } else {
            Unary::ReverseBits
        };
        self.node(Node::Unary(operation, w, a))
    }

    fn reverse_bytes(&mut self, w: Width, a: Value, chunk: u32) -> Value {
        self.node(Node::Unary(Unary::ReverseBytes(chunk as u8), w, a))
    }

    fn crc32(&mut self, castagnoli: bool, accumulator: Value, data: Value, bits: u32) -> Value {
        if castagnoli {
            let to = self.take();
            let (data, accumulator) = (self.in_register(data), accumulator);
            self.evaluate(accumulator, to);
            self.asm.crc32((bits / 8) as u8, to, data.0);
            // The upper half of the accumulator does not count.
            self.asm.load(false, to, to);
            self.release_if(data);
            return self.node(Node::Register(to));
        }
        let size = self.constant((bits / 8).into());
        self.call(
            functions::crc32 as *const () as usize,
            &[accumulator, data, size],
        )
    }

    // ---- conditions and flags

    fn select(&mut self, w: Width, condition: Cond, yes: Value, no: Value) -> Value {
        self.node(Node::Select(w, condition, yes, no))
    }

    fn is_zero(&mut self, w: Width, a: Value) -> Cond {
        match self.constant_of(a) {
            Some(c) => Cond {
                test: Test::True,
                not: cut(w, c) != 0,
            },
            None => Cond {
                test: Test::Zero(w, a),
                not: false,
            },
        }
    }

    fn bit_is_set(&mut self, a: Value, bit: u32) -> Cond {
        match self.constant_of(a) {
            Some(c) => Cond {
                test: Test::True,
                not: c >> (bit & 63) & 1 == 0,
            },
            None => Cond {
                test: Test::Bit(a, (bit & 63) as u8),
                not: false,
            },
        }
    }

    fn not_cond(&mut self, a: Cond) -> Cond {
        Cond { not: !a.not, ..a }
    }

    fn flags(&mut self) -> Flags {
        Flags::Current
    }

    fn set_flags(&mut self, flags: Flags) {
        self.write_flags(flags);
    }

    fn condition(&mut self, code: u32) -> Cond {
        let test = if code & 14 == 14 {
            Test::True
        } else {
            Test::Code((code & 15) as u8)
        };
        Cond { test, not: false }
    }

    fn carry(&mut self) -> Value {
        self.node(Node::Carry)
    }

    fn add_with_flags(&mut self, w: Width, a: Value, b: Value, carry: Value) -> (Value, Flags) {
        let carry = match self.get(carry) {
            Node::Constant(0) => false,
            Node::Carry => true,
            _ => {
                self.fail("carry");
                false
            }
        };
        let value = self.node(Node::WithFlags {
            subtract: false,
            w,
            a,
            b,
            carry,
        });
        (value, Flags::Of(value))
    }

    fn sub_with_flags(&mut self, w: Width, a: Value, b: Value) -> (Value, Flags) {
        let value = self.node(Node::WithFlags {
            subtract: true,
            w,
            a,
            b,
            carry: false,
        });
        (value, Flags::Of(value))
    }

    fn logic_flags(&mut self, w: Width, result: Value) -> Flags {
        Flags::Logic(w, result)
    }

    fn flags_from(&mut self, value: Value) -> Flags {
        Flags::From(value)
    }

    fn flags_to(&mut self, flags: Flags) -> Value {
        if !matches!(flags, Flags::Current) {
            self.fail("flags as a value");
        }
        self.flags_to_register()
    }

    fn select_flags(&mut self, condition: Cond, flags: Flags, otherwise: u32) -> Flags {
        if !matches!(flags, Flags::Of(_)) {
            self.fail("selected flags");
        }
        self.selections.push((condition, flags, otherwise));
        Flags::Select((self.selections.len() - 1) as u16)
    }

    // ---- memory

    fn access(&mut self, address: Value, access: Access) -> Result<Place, Never> {
        let align = match access.order {
            Order::Plain => self.key.align_check.then_some(access.size),
            Order::Element(unit) => self.key.align_check.then_some(unit),
            _ => Some(access.size),
        };
        Ok(self.look_up(address, access, align))
    }

    fn read(&mut self, _: Place, offset: u32, size: u8) -> Result<Value, Never> {
        Ok(self.node(Node::Read {
            offset: offset as i32,
            size,
        }))
    }

    fn write(&mut self, _: Place, offset: u32, size: u8, value: Value) -> Result<(), Never> {
        self.put(offset, size, value);
        Ok(())
    }

    fn read_ordered(&mut self, place: Place, size: u8) -> Result<Value, Never> {
        // The host orders loads.
        self.read(place, 0, size)
    }

    fn write_ordered(&mut self, place: Place, size: u8, value: Value) -> Result<(), Never> {
        if self.failed.is_none() {
            let reg = self.take();
            self.evaluate(value, reg);
            self.asm.xchg(size, Mem::at(place.0, 0), reg);
            self.release(reg);
        }
        Ok(())
    }

    fn read_vector(&mut self, _: Place, offset: u32, size: u8) -> Result<Vector, Never> {
        let from = self.memory(offset as i32);
        Ok(self.load_vector(from, size))
    }

    fn write_vector(
        &mut self,
        _: Place,
        offset: u32,
        size: u8,
        value: Vector,
    ) -> Result<(), Never> {
        self.commit_check();
        let to = self.memory(offset as i32);
        self.store_vector(to, size, value);
        Ok(())
    }

    fn atomic(
        &mut self,
        operation: AtomicOperation,
        place: Place,
        size: u8,
        operand: Value,
    ) -> Result<Value, Never> {
        Ok(self.atomic_operation(operation, place, size, operand))
    }

    fn compare_and_swap(
        &mut self,
        place: Place,
        size: u8,
        expected: Value,
        new: Value,
    ) -> Result<Value, Never> {
        Ok(self.swap_if(place, size, expected, new))
    }

    fn compare_and_swap_pair(
        &mut self,
        place: Place,
        size: u8,
        expected: (Value, Value),
        new: (Value, Value),
    ) -> Result<(Value, Value), Never> {
        Ok(self.swap_pair_if(place, size, expected, new))
    }

    fn load_exclusive(
        &mut self,
        place: Place,
        size: u8,
        pair: bool,
    ) -> Result<(Value, Value), Never> {
        Ok(self.load_exclusively(place, size, pair))
    }

    fn store_exclusive(
        &mut self,
        place: Place,
        size: u8,
        pair: bool,
        value: (Value, Value),
    ) -> Result<Value, Never> {
        Ok(match pair {
            true => self.store_pair_exclusively(place, size, value),
            false => self.store_exclusively(place, size, value.0),
        })
    }

    fn clear_exclusive(&mut self) {
        self.disarm();
    }

    fn barrier(&mut self, barrier: Barrier) -> Outcome<Self> {
        match barrier {
            Barrier::Dmb(domain) => {
                // The host keeps all orders but that of a load after a store. Types: 1 loads, 2 stores.
                if !matches!(domain & 3, 1 | 2) {
                    self.asm.barrier();
                }
                Ok(Flow::Next)
            }
            Barrier::Speculation => Ok(Flow::Next),
            Barrier::Dsb(_) => {
                self.forget_places();
                self.data_barrier();
                Ok(Flow::Next)
            }
            Barrier::Isb => {
                self.forget_places();
                self.instruction_barrier();
                Ok(Flow::Next)
            }
        }
    }

    fn zero_block(&mut self, _: u32, address: Value) -> Result<(), Never> {
        self.slow_unless_allowed(sctlr::DZE);
        let mask = self.constant(!63);
        let address = self.and(Width::W64, address, mask);
        let access = Access::bytes(AccessKind::Write, 64);
        // Device memory is not zeroed so, but faults.
        let strict = std::mem::take(&mut self.strict_memory);
        self.look_up(address, access, None);
        self.strict_memory = strict;
        let zero = self.vector_at(Place128::Constant(0));
        for offset in [0, 16, 32, 48] {
            let to = self.memory(offset);
            self.store_vector(to, 16, zero);
        }
        Ok(())
    }

    // ---- vectors and floating point

    fn vector_constant(&mut self, value: u128) -> Vector {
        self.vector_at(Place128::Constant(value))
    }

    fn vector(&mut self, operation: Operation, operands: [Vector; 3]) -> Vector {
        self.vector_operation(operation, operands)
    }

    fn vector_to_value(&mut self, operation: vector::ToValue, a: Vector) -> Value {
        self.vector_to_general(operation, a)
    }

    fn value_to_vector(&mut self, operation: vector::FromValue, into: Vector, a: Value) -> Vector {
        self.general_to_vector(operation, into, a)
    }

    fn float_compare(&mut self, operation: vector::Compare, a: Vector, b: Vector) -> Flags {
        self.compare_floats(operation, a, b)
    }

    fn select_vector(&mut self, condition: Cond, yes: Vector, no: Vector) -> Vector {
        self.choose_vector(condition, yes, no)
    }

    // ---- system

    fn read_system_register(&mut self, register: u16, _: u32) -> Result<Value, Never> {
        if register == r::NZCV {
            return Ok(self.flags_to_register());
        }
        if register == r::FPCR && self.key.fp_enabled {
            return Ok(self.constant(self.key.fpcr.into()));
        }
        if register == r::FPSR && self.key.fp_enabled {
            return Ok(self.status_register());
        }
        if register == r::DAIF && self.key.el == 1 {
            return Ok(self.masks());
        }
        if let Some(value) = self.constant_register(register) {
            return Ok(value);
        }
        if matches!(register, r::CNTVCT_EL0 | r::CNTPCT_EL0) {
            return Ok(self.counter(register, functions::counter as *const () as usize));
        }
        if self.is_interrupt_register(register) {
            return Ok(self.read_interrupt_register(register));
        }
        let plain = self.plain_register(register, false);
        match plain.or_else(|| self.key_register(register)) {
            Some(from) => {
                let to = self.take();
                self.asm.load(true, to, from);
                Ok(self.node(Node::Register(to)))
            }
            None => {
                self.fail("mrs");
                Ok(self.constant(0))
            }
        }
    }

    fn write_system_register(&mut self, register: u16, _: u32, value: Value) -> Outcome<Self> {
        if register == r::NZCV {
            self.write_flags(Flags::From(value));
            return Ok(Flow::Next);
        }
        if register == r::FPSR && self.key.fp_enabled {
            self.write_status_register(value);
            return Ok(Flow::Next);
        }
        self.forget_places();
        if register == r::DAIF && self.key.el == 1 {
            self.write_masks(value);
            return Ok(Flow::Next);
        }
        if self.write_half(register, value) || self.write_by_function(register, value) {
            return Ok(Flow::Next);
        }
        let plain = self.plain_register(register, true);
        match plain.or_else(|| self.key_register(register)) {
            Some(to) => {
                let reg = self.in_register(value);
                self.asm.store(8, to, reg.0);
                self.release_if(reg);
            }
            None => self.fail("msr"),
        }
        Ok(Flow::Next)
    }

    fn write_pstate(&mut self, field: u32, immediate: u32) -> Outcome<Self> {
        self.forget_places();
        match field {
            0x1e => self.change_masks(true, immediate),
            0x1f => self.change_masks(false, immediate),
            4 if self.change_pan(immediate & 1 != 0) => {}
            _ => self.fail("pstate"),
        }
        Ok(if self.failed.is_some() {
            Flow::Ends
        } else {
            Flow::Next
        })
    }

    fn system(&mut self, register: u16, _: u32, value: Value) -> Outcome<Self> {
        self.forget_places();
        if !self.clean_data_cache(register, value) && !self.invalidate(register, value) {
            self.fail("sys");
        }
        Ok(Flow::Next)
    }

    fn pac_add(&mut self, key: u32, pointer: Value, modifier: Value) -> Value {
        self.authenticated(false, key, pointer, modifier)
    }

    fn pac_authenticate(&mut self, key: u32, pointer: Value, modifier: Value) -> Value {
        self.authenticated(true, key, pointer, modifier)
    }

    fn pac_strip(&mut self, data: bool, pointer: Value) -> Value {
        let data = self.constant(data.into());
        self.call(functions::pac_strip as *const () as usize, &[pointer, data])
    }

    fn pac_generic(&mut self, a: Value, b: Value) -> Value {
        self.call(functions::pac_generic as *const () as usize, &[a, b])
    }

    fn hint(&mut self, number: u32) -> Outcome<Self> {
        if number == 1 {
            // YIELD, in loops that wait.
            self.asm.pause();
            return Ok(Flow::Next);
        }
        if (2..=5).contains(&number) {
            self.fail("hint");
            return Ok(Flow::Ends);
        }
        Ok(Flow::Next)
    }

    // ---- terminators

    fn jump(&mut self, offset: i64) -> Flow {
        self.end = Some(End::Jump(i64::from(self.offset).wrapping_add(offset)));
        Flow::Ends
    }

    fn jump_if(&mut self, condition: Cond, offset: i64) -> Flow {
        let to = i64::from(self.offset).wrapping_add(offset);
        if let Test::True = condition.test {
            if condition.not {
                return Flow::Next;
            }
            self.end = Some(End::Jump(to));
            return Flow::Ends;
        }
        self.branch(condition, to);
        // The block goes on with what follows.
        Flow::Next
    }

    fn jump_to(&mut self, target: Value, _: Jump) -> Flow {
        self.evaluate(target, RAX);
        if self.failed.is_none() {
            self.jump_indirect();
        }
        self.end = Some(End::Indirect);
        Flow::Ends
    }

    fn exception_link(&mut self) -> Value {
        self.return_address()
    }

    fn exception_return(&mut self, target: Value) -> Outcome<Self> {
        self.return_to(target);
        Ok(Flow::Ends)
    }

    fn exception(&mut self, exception: Exception) -> Outcome<Self> {
        self.fail(match exception {
            Exception::Svc(_) => {
                self.supervisor_call();
                return Ok(Flow::Ends);
            }
            Exception::Hvc(_) | Exception::Smc(_) => "call",
            Exception::FpTrap => "fp trap",
            _ => "exception",
        });
        Ok(Flow::Ends)
    }
}
