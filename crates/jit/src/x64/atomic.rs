//! Atomics and exclusives as locked instructions of the host.
//!
//! Each advances the version of its granule, or tests it, exactly as the interpreter's do: both may run at once.

use cpu::{AtomicOperation, Interpreter};

use super::assembler::{
    Alu, Assembler, Cc, Label, Mem, RAX, RBX, RCX, RDI, RDX, RSI, Reg, ShiftOp,
};
use super::emitter::{Emitter, Node, Place, Value};
use super::frame::{self, SCRATCH};

/// How often a load-exclusive looks whether a store-exclusive of another processor is done, before the interpreter waits.
const PATIENCE: u64 = 100;

/// Pauses after a store-exclusive that failed: who contends does better by turns of several than by one each.
const BACK_OFF: usize = 16;

fn back_off(asm: &mut Assembler) {
    for _ in 0..BACK_OFF {
        asm.pause();
    }
}

impl Emitter {
    /// The address of the version of a place's granule, in a register.
    fn version(&mut self, place: Place) -> Reg {
        let (table, shift, mask) = Interpreter::granules();
        let t = self.take();
        self.asm.load(true, t, place.0);
        self.asm.shift(ShiftOp::Shr, true, t, 4);
        self.asm.load(true, RAX, t);
        self.asm.shift(ShiftOp::Shr, true, RAX, shift);
        self.asm.alu(Alu::Xor, false, t, RAX);
        self.asm.alu_constant(Alu::And, false, t, mask as i32);
        self.asm.constant(RAX, table as u64);
        self.asm.lea(true, t, Mem::indexed(RAX, t, 8, 0));
        t
    }

    /// Makes store-exclusives of earlier loads fail. Where one is at work, the interpreter waits for it.
    fn advance(&mut self, place: Place) {
        let version = self.version(place);
        let slow = self.slow_label();
        self.asm.test_byte(Mem::at(version, 0), 1);
        self.asm.jcc(Cc::Ne, slow);
        self.asm.locked_add(Mem::at(version, 0), 2);
        self.release(version);
    }

    /// The low `size` bytes of a register, and zeros above.
    fn cut_to(&mut self, size: u8, to: Reg, from: Reg) {
        self.asm.load_zero_extended(size, to, from);
    }

    pub(super) fn atomic_operation(
        &mut self,
        operation: AtomicOperation,
        place: Place,
        size: u8,
        operand: Value,
    ) -> Value {
        use AtomicOperation as O;
        let alu = match operation {
            O::Add | O::Swap => None,
            O::Clear => Some(Alu::And),
            O::Xor => Some(Alu::Xor),
            O::Set => Some(Alu::Or),
            O::SignedMax | O::SignedMin | O::UnsignedMax | O::UnsignedMin => None,
        };
        if self.failed.is_some() {
            return Value(0);
        }
        self.advance(place);
        let memory = Mem::at(place.0, 0);
        let reg = self.take();
        self.evaluate(operand, reg);
        match (operation, alu) {
            (O::Add, _) => {
                self.asm.fetch_add(size, memory, reg);
                self.cut_to(size, reg, reg);
            }
            (O::Swap, _) => {
                self.asm.xchg(size, memory, reg);
                self.cut_to(size, reg, reg);
            }
            (_, None) => self.fetch_extreme(operation, memory, size, reg),
            (_, Some(alu)) => {
                if operation == O::Clear {
                    self.asm.not(true, reg);
                }
                let new = self.take();
                self.asm.load_zero_extended(size, RAX, memory);
                let again = self.asm.label();
                self.asm.bind(again);
                self.asm.load(true, new, RAX);
                self.asm.alu(alu, true, new, reg);
                self.asm.compare_exchange(size, memory, new);
                self.asm.jcc(Cc::Ne, again);
                self.cut_to(size, reg, RAX);
                self.release(new);
            }
        }
        self.asm.flags_changed = true;
        self.node(Node::Register(reg))
    }

    /// The larger or smaller of memory and a register to memory; what was there to the register.
    fn fetch_extreme(&mut self, operation: AtomicOperation, memory: Mem, size: u8, operand: Reg) {
        use AtomicOperation as O;
        // The operand is taken where memory compares so with it.
        let take = match operation {
            O::SignedMax => Cc::L,
            O::SignedMin => Cc::G,
            O::UnsignedMax => Cc::B,
            _ => Cc::A,
        };
        let signed = matches!(operation, O::SignedMax | O::SignedMin);
        // RAX has what memory is expected to hold; compared are both with their signs in the upper bits, or zeros.
        let extend = |e: &mut Emitter, to: Reg, from: Reg| match signed {
            true => e.asm.load_sign_extended(true, size, to, from),
            false => e.asm.load_zero_extended(size, to, from),
        };
        extend(self, operand, operand);
        let new = self.take();
        self.asm.load_zero_extended(size, RAX, memory);
        let again = self.asm.label();
        self.asm.bind(again);
        extend(self, new, RAX);
        self.asm.alu(Alu::Cmp, true, new, operand);
        self.asm.cmov(take, true, new, operand);
        self.asm.compare_exchange(size, memory, new);
        self.asm.jcc(Cc::Ne, again);
        self.cut_to(size, operand, RAX);
        self.release(new);
    }

    pub(super) fn swap_if(&mut self, place: Place, size: u8, expected: Value, new: Value) -> Value {
        if self.failed.is_some() {
            return Value(0);
        }
        self.advance(place);
        let reg = self.take();
        self.evaluate(new, reg);
        let old = self.take();
        // RAX serves evaluation too.
        self.evaluate(expected, old);
        self.asm.load(true, RAX, old);
        self.asm.compare_exchange(size, Mem::at(place.0, 0), reg);
        self.cut_to(size, old, RAX);
        self.release(reg);
        self.asm.flags_changed = true;
        self.node(Node::Register(old))
    }

    /// A stack slot with a value.
    fn put_by(&mut self, value: Value) -> Mem {
        let reg = self.in_register(value);
        let slot = self.put_in_slot(reg.0);
        self.release_if(reg);
        frame::slot(slot)
    }

    /// Two words from memory to the low and the high half of a register; `t` is lost.
    fn load_joined(&mut self, to: Reg, t: Reg, words: [Mem; 2]) {
        self.asm.load(false, to, words[0]);
        self.asm.load(false, t, words[1]);
        self.asm.shift(ShiftOp::Shl, true, t, 32);
        self.asm.alu(Alu::Or, true, to, t);
    }

    /// Swaps the pair at RSI if it is the expected one: ZF says whether, RAX and RDX are what was there (of pairs of words,
    /// RAX). RCX is lost.
    fn exchange_pair(&mut self, size: u8, expected: [Mem; 2], new: [Mem; 2]) {
        let pair = Mem::at(RSI, 0);
        if size == 4 {
            self.load_joined(RAX, RDX, expected);
            self.load_joined(RCX, RDX, new);
            self.asm.compare_exchange(8, pair, RCX);
            return;
        }
        // A guest register lives in RBX.
        let kept = self.put_in_slot(RBX);
        self.asm.load(true, RAX, expected[0]);
        self.asm.load(true, RDX, expected[1]);
        self.asm.load(true, RBX, new[0]);
        self.asm.load(true, RCX, new[1]);
        self.asm.compare_exchange_pair(pair);
        self.asm.load(true, RBX, frame::slot(kept));
    }

    pub(super) fn swap_pair_if(
        &mut self,
        place: Place,
        size: u8,
        expected: (Value, Value),
        new: (Value, Value),
    ) -> (Value, Value) {
        if self.failed.is_some() {
            return (Value(0), Value(0));
        }
        self.advance(place);
        let expected = [self.put_by(expected.0), self.put_by(expected.1)];
        let new = [self.put_by(new.0), self.put_by(new.1)];
        self.asm.load(true, RSI, place.0);
        self.exchange_pair(size, expected, new);
        if size == 4 {
            self.asm.load(true, RDX, RAX);
            self.asm.shift(ShiftOp::Shr, true, RDX, 32);
            self.asm.load(false, RAX, RAX);
        }
        // Nothing else is in registers any more.
        SCRATCH.into_iter().for_each(|reg| self.release(reg));
        self.asm.flags_changed = true;
        let [first, second] = [RAX, RDX].map(|reg| {
            let slot = self.put_in_slot(reg);
            self.node(Node::Slot(slot))
        });
        (first, second)
    }

    pub(super) fn load_exclusively(
        &mut self,
        place: Place,
        size: u8,
        pair: bool,
    ) -> (Value, Value) {
        if self.failed.is_some() {
            return (Value(0), Value(0));
        }
        let version = self.version(place);
        // The store-exclusive is soon to write both: read only, they would come here twice where processors contend.
        self.asm.prefetch_to_write(Mem::at(version, 0));
        self.asm.prefetch_to_write(Mem::at(place.0, 0));
        let slow = self.slow_label();
        let seen = self.take();
        let (again, even) = (self.asm.label(), self.asm.label());
        // A store-exclusive that is at work is done at once, unless its thread is not running.
        self.asm.constant(RAX, PATIENCE);
        self.asm.bind(again);
        self.asm.load(true, seen, Mem::at(version, 0));
        self.asm.test_byte(seen, 1);
        self.asm.jcc(Cc::E, even);
        self.asm.pause();
        self.asm.alu_constant(Alu::Sub, false, RAX, 1);
        self.asm.jcc(Cc::Ne, again);
        self.asm.jmp(slow);
        self.asm.bind(even);
        self.release(version);
        self.asm.store(8, frame::MONITOR_VERSION, seen);
        let second = pair.then(|| self.take());
        match second {
            // A pair of words is read at once.
            Some(second) if size == 4 => {
                self.asm.load(true, second, Mem::at(place.0, 0));
                self.asm.load(false, seen, second);
                self.asm.shift(ShiftOp::Shr, true, second, 32);
            }
            // Of others the store-exclusive finds out if they do not belong together.
            Some(second) => {
                self.asm.load(true, seen, Mem::at(place.0, 0));
                self.asm.load(true, second, Mem::at(place.0, 8));
            }
            None => self.asm.load_zero_extended(size, seen, Mem::at(place.0, 0)),
        }
        self.asm.store(8, frame::MONITOR_VALUE, seen);
        if let Some(second) = second {
            self.asm.store(8, frame::MONITOR_SECOND, second);
        }
        self.asm.store(8, frame::MONITOR_HOST, place.0);
        let bytes = i32::from(size) << u32::from(pair);
        self.asm.store_constant(4, frame::MONITOR_BYTES, bytes);
        self.asm.store_constant(1, frame::MONITOR_ARMED, 1);
        self.asm.flags_changed = true;
        let first = self.node(Node::Register(seen));
        let second = second.map(|reg| self.node(Node::Register(reg)));
        (first, second.unwrap_or(first))
    }

    /// Goes to `failed` unless the monitor is armed for the place; it is not any more. The version it saw is in RAX then.
    fn take_monitor(&mut self, place: Reg, bytes: i32, failed: Label) {
        let asm = &mut self.asm;
        asm.load_zero_extended(1, RAX, frame::MONITOR_ARMED);
        asm.store_constant(1, frame::MONITOR_ARMED, 0);
        asm.test(false, RAX, RAX);
        asm.jcc(Cc::E, failed);
        asm.alu(Alu::Cmp, true, place, frame::MONITOR_HOST);
        asm.jcc(Cc::Ne, failed);
        asm.load(false, RAX, frame::MONITOR_BYTES);
        asm.alu_constant(Alu::Cmp, false, RAX, bytes);
        asm.jcc(Cc::Ne, failed);
        asm.load(true, RAX, frame::MONITOR_VERSION);
        asm.test_byte(RAX, 1);
        asm.jcc(Cc::Ne, failed);
    }

    /// The same of a pair.
    pub(super) fn store_pair_exclusively(
        &mut self,
        place: Place,
        size: u8,
        value: (Value, Value),
    ) -> Value {
        if self.failed.is_some() {
            return Value(0);
        }
        let new = [self.put_by(value.0), self.put_by(value.1)];
        let odd = frame::slot(self.take_slot());
        let version = self.version(place);
        // Whichever registers both are in.
        self.asm.load(true, RAX, version);
        self.asm.load(true, RSI, place.0);
        self.asm.load(true, RDI, RAX);
        let (failed, done) = (self.asm.label(), self.asm.label());
        self.take_monitor(RSI, 2 * i32::from(size), failed);
        // Odd: at work.
        self.asm.lea(true, RCX, Mem::at(RAX, 1));
        self.asm.store(8, odd, RCX);
        self.asm.compare_exchange(8, Mem::at(RDI, 0), RCX);
        self.asm.jcc(Cc::Ne, failed);
        let seen = [frame::MONITOR_VALUE, frame::MONITOR_SECOND];
        self.exchange_pair(size, seen, new);
        self.asm.setcc(Cc::Ne, RAX);
        // As after a single one.
        self.asm.load(true, RCX, odd);
        self.asm.alu_constant(Alu::Add, true, RCX, 1);
        self.asm.store(8, Mem::at(RDI, 0), RCX);
        self.asm.load_zero_extended(1, RDX, RAX);
        self.asm.jmp(done);
        self.asm.bind(failed);
        back_off(&mut self.asm);
        self.asm.constant(RDX, 1);
        self.asm.bind(done);
        self.asm.flags_changed = true;
        SCRATCH.into_iter().for_each(|reg| self.release(reg));
        self.take_this(RDX);
        self.node(Node::Register(RDX))
    }

    /// The status: 0 if stored.
    pub(super) fn store_exclusively(&mut self, place: Place, size: u8, value: Value) -> Value {
        if self.failed.is_some() {
            return Value(0);
        }
        let version = self.version(place);
        let value = self.in_register(value);
        let status = self.take();
        let (failed, done) = (self.asm.label(), self.asm.label());
        self.take_monitor(place.0, size.into(), failed);
        let asm = &mut self.asm;
        // Odd: at work.
        asm.lea(true, status, Mem::at(RAX, 1));
        asm.compare_exchange(8, Mem::at(version, 0), status);
        asm.jcc(Cc::Ne, failed);
        asm.load(true, RAX, frame::MONITOR_VALUE);
        asm.compare_exchange(size, Mem::at(place.0, 0), value.0);
        asm.setcc(Cc::Ne, RAX);
        // Even again, and another than before. What an atomic added meanwhile is lost, and does not matter: it was for
        // loads before now, whose versions are all lower.
        asm.alu_constant(Alu::Add, true, status, 1);
        asm.store(8, Mem::at(version, 0), status);
        asm.load_zero_extended(1, status, RAX);
        asm.jmp(done);
        asm.bind(failed);
        back_off(asm);
        asm.constant(status, 1);
        asm.bind(done);
        asm.flags_changed = true;
        self.release_if(value);
        self.release(version);
        self.node(Node::Register(status))
    }

    pub(super) fn disarm(&mut self) {
        self.asm.store_constant(1, frame::MONITOR_ARMED, 0);
    }
}
