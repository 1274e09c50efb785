//! Atomics and exclusives as locked instructions of the host.
//!
//! Each advances the version of its granule, or tests it, exactly as the interpreter's do: both may run at once.

use cpu::{AtomicOperation, Interpreter};

use super::assembler::{Alu, Cc, Mem, RAX, Reg, ShiftOp};
use super::emitter::{Emitter, Node, Place, Value};
use super::frame;

/// How often a load-exclusive looks whether a store-exclusive of another processor is done, before the interpreter waits.
const PATIENCE: u64 = 100;

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
            _ => {
                self.fail("atomic maximum");
                None
            }
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
            (_, None) => {
                self.asm.xchg(size, memory, reg);
                self.cut_to(size, reg, reg);
            }
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

    pub(super) fn load_exclusively(&mut self, place: Place, size: u8) -> Value {
        if self.failed.is_some() {
            return Value(0);
        }
        let version = self.version(place);
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
        self.asm.load_zero_extended(size, seen, Mem::at(place.0, 0));
        self.asm.store(8, frame::MONITOR_VALUE, seen);
        self.asm.store(8, frame::MONITOR_HOST, place.0);
        self.asm
            .store_constant(4, frame::MONITOR_BYTES, size.into());
        self.asm.store_constant(1, frame::MONITOR_ARMED, 1);
        self.asm.flags_changed = true;
        self.node(Node::Register(seen))
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
        let asm = &mut self.asm;
        asm.load_zero_extended(1, RAX, frame::MONITOR_ARMED);
        asm.store_constant(1, frame::MONITOR_ARMED, 0);
        asm.test(false, RAX, RAX);
        asm.jcc(Cc::E, failed);
        asm.alu(Alu::Cmp, true, place.0, frame::MONITOR_HOST);
        asm.jcc(Cc::Ne, failed);
        asm.load(false, RAX, frame::MONITOR_BYTES);
        asm.alu_constant(Alu::Cmp, false, RAX, size.into());
        asm.jcc(Cc::Ne, failed);
        asm.load(true, RAX, frame::MONITOR_VERSION);
        asm.test_byte(RAX, 1);
        asm.jcc(Cc::Ne, failed);
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
