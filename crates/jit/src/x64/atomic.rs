//! Atomics and exclusives as locked instructions of the host.
//!
//! Each watches the version of its granule, advances or tests it, exactly as the interpreter's do: both may run at once. A
//! load-exclusive and its store with only work on registers between are one compare-and-swap.

use cpu::{AtomicOperation, Interpreter};

use super::assembler::{
    Alu, Assembler, Cc, Label, Mem, RAX, RBX, RCX, RDI, RDX, RSI, Reg, Rm, ShiftOp,
};
use super::emitter::{Emitter, Node, Place, Value};
use super::frame::{self, SCRATCH};
use super::record::fields;

/// How often a load-exclusive looks whether a store-exclusive of another processor is done, before the interpreter waits.
const PATIENCE: u64 = 100;

/// Pauses after a store-exclusive that failed: who contends does better by turns of several than by one each.
const BACK_OFF: usize = 16;

/// Of versions, as generated code has them.
const AT_WORK: u8 = Interpreter::AT_WORK as u8;
const WATCHED: u8 = Interpreter::WATCHED as u8;

/// LDXR or LDAXR, and STXR or STLXR, of one register, with their fields blanked.
const LOAD: (u32, u32) = (0x3fff_7c00, 0x085f_7c00);
const STORE: (u32, u32) = (0x3fe0_7c00, 0x0800_7c00);

/// A load-exclusive that left the monitor alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Loaded {
    /// What was loaded is in this register until it is stored; `None`: it is kept beside.
    register: Option<u8>,
    /// Where its store-exclusive is: in words from here at first, then in the page.
    store: u32,
}

fn is(word: u32, (mask, value): (u32, u32)) -> bool {
    word & mask == value
}

/// Of a load-exclusive at the beginning of `words`, which are all executed in turn: its store, if there is nothing between but
/// work on registers other than the address.
fn store_of(words: &[u32]) -> Option<Loaded> {
    let (&load, after) = words.split_first()?;
    let [value, base, _] = fields(load);
    if !is(load, LOAD) || value == base || value == 31 {
        return None;
    }
    // C4.1: data processing, immediate or of registers.
    let works = |word: u32| word >> 26 & 7 == 4 || word >> 25 & 7 == 5;
    let at = after
        .iter()
        .position(|&word| !works(word) || fields(word)[0] == base)?;
    let store = after[at];
    let [new, to, status] = fields(store);
    let fits = is(store, STORE) && store >> 30 == load >> 30 && to == base;
    // What a store-exclusive does whose status is in its other registers is not laid down.
    if !fits || [new, base].contains(&status) {
        return None;
    }
    let changed = after[..at].iter().any(|&word| fields(word)[0] == value);
    Some(Loaded {
        register: (!changed).then_some(value),
        store: 1 + at as u32,
    })
}

fn back_off(asm: &mut Assembler) {
    for _ in 0..BACK_OFF {
        asm.pause();
    }
}

impl Emitter {
    /// The address of the version of a place's granule, in a register.
    fn version(&mut self, place: Place) -> Reg {
        let (shift, mask) = Interpreter::GRANULE_INDEX;
        let t = self.take();
        self.asm.load(true, t, place.0);
        self.asm.shift(ShiftOp::Shr, true, t, 4);
        self.asm.load(true, RAX, t);
        self.asm.shift(ShiftOp::Shr, true, RAX, shift);
        self.asm.alu(Alu::Xor, false, t, RAX);
        self.asm.alu_constant(Alu::And, false, t, mask as i32);
        self.asm.load(true, RAX, frame::GRANULES);
        self.asm.lea(true, t, Mem::indexed(RAX, t, 8, 0));
        t
    }

    /// Makes store-exclusives of earlier loads fail, if somebody watches the granule. Where one is at work, the interpreter
    /// waits for it.
    fn advance(&mut self, place: Place) {
        let version = self.version(place);
        let slow = self.slow_label();
        let unwatched = self.asm.label();
        let next = self.take();
        self.asm.load(true, RAX, Mem::at(version, 0));
        self.asm.test_byte(RAX, AT_WORK | WATCHED);
        self.asm.jcc(Cc::E, unwatched);
        self.asm.test_byte(RAX, AT_WORK);
        self.asm.jcc(Cc::Ne, slow);
        // The next version, unwatched.
        self.asm.lea(true, next, Mem::at(RAX, WATCHED.into()));
        self.asm.compare_exchange(8, Mem::at(version, 0), next);
        self.asm.jcc(Cc::Ne, slow);
        self.asm.bind(unwatched);
        self.release(next);
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
        if let Some(load) = self.store_ahead() {
            return self.load_and_store_later(place, size, load);
        }
        let version = self.version(place);
        // The store-exclusive is soon to write both: read only, they would come here twice where processors contend.
        self.asm.prefetch_to_write(Mem::at(version, 0));
        self.asm.prefetch_to_write(Mem::at(place.0, 0));
        let slow = self.slow_label();
        let (seen, patience) = (self.take(), self.take());
        let (again, even, known) = (self.asm.label(), self.asm.label(), self.asm.label());
        // A store-exclusive that is at work is done at once, unless its thread is not running.
        self.asm.constant(patience, PATIENCE);
        self.asm.bind(again);
        self.asm.load(true, RAX, Mem::at(version, 0));
        self.asm.test_byte(RAX, AT_WORK);
        self.asm.jcc(Cc::E, even);
        self.asm.pause();
        self.asm.alu_constant(Alu::Sub, false, patience, 1);
        self.asm.jcc(Cc::Ne, again);
        self.asm.jmp(slow);
        self.asm.bind(even);
        self.asm.load(true, seen, RAX);
        self.asm.alu_constant(Alu::Or, true, seen, WATCHED.into());
        self.asm.alu(Alu::Cmp, true, RAX, seen);
        self.asm.jcc(Cc::E, known);
        self.asm.compare_exchange(8, Mem::at(version, 0), seen);
        self.asm.jcc(Cc::Ne, slow);
        self.asm.bind(known);
        self.release(patience);
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

    /// The store-exclusive of this instruction, if both can do without the monitor.
    fn store_ahead(&self) -> Option<Loaded> {
        if !is(self.word, LOAD) || self.strict_memory {
            return None;
        }
        store_of(&self.ahead[..self.straight.min(self.ahead.len())])
    }

    /// Whether the access that is to be looked up is a load-exclusive, and its store-exclusive stores there without looking.
    pub(super) fn stores_later(&self) -> bool {
        self.store_ahead().is_some()
    }

    /// The load of this store-exclusive, if both do without the monitor.
    fn load_of_this(&self) -> Option<Loaded> {
        self.exclusive.filter(|load| load.store == self.offset)
    }

    /// The place of a store-exclusive that its load-exclusive has looked up.
    pub(super) fn looked_up(&mut self) -> Option<Place> {
        self.load_of_this()?;
        let place = self.take();
        self.asm.load(true, place, frame::MONITOR_HOST);
        Some(Place(place))
    }

    /// A load-exclusive with nothing between it and its store that another processor could see or be seen by: both together
    /// are one compare-and-swap against what is loaded. That it may have been changed to something else and back does not
    /// matter, as nothing was done with it. So neither is the version watched nor the monitor armed; but where the
    /// interpreter has to load, both are, and it has to store as well.
    fn load_and_store_later(&mut self, place: Place, size: u8, load: Loaded) -> (Value, Value) {
        self.exclusive = Some(Loaded {
            store: self.offset + 4 * load.store,
            ..load
        });
        self.asm.prefetch_to_write(Mem::at(place.0, 0));
        self.advance(place);
        self.asm.store(8, frame::MONITOR_HOST, place.0);
        self.asm.store_constant(1, frame::MONITOR_ARMED, 0);
        let seen = self.take();
        self.asm.load_zero_extended(size, seen, Mem::at(place.0, 0));
        if load.register.is_none() {
            self.asm.store(8, frame::MONITOR_VALUE, seen);
        }
        self.asm.flags_changed = true;
        let value = self.node(Node::Register(seen));
        (value, value)
    }

    /// The store-exclusive of [`Emitter::load_and_store_later`]: its status.
    fn store_now(&mut self, place: Place, size: u8, value: Value, load: Loaded) -> Value {
        let slow = self.slow_label();
        self.asm.test_byte(frame::MONITOR_ARMED, 1);
        self.asm.jcc(Cc::Ne, slow);
        let value = self.in_register(value);
        match load.register.map(|n| self.general(n)) {
            Some(Rm::Reg(reg)) => self.asm.load(true, RAX, reg),
            Some(Rm::Mem(from)) => self.asm.load(true, RAX, from),
            None => self.asm.load(true, RAX, frame::MONITOR_VALUE),
        }
        let status = self.take();
        let done = self.asm.label();
        self.asm.constant(status, 0);
        self.asm
            .compare_exchange(size, Mem::at(place.0, 0), value.0);
        self.asm.jcc(Cc::E, done);
        back_off(&mut self.asm);
        self.asm.constant(status, 1);
        self.asm.bind(done);
        self.asm.flags_changed = true;
        self.release_if(value);
        self.node(Node::Register(status))
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
        asm.test_byte(RAX, AT_WORK);
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
        self.asm.lea(true, RCX, Mem::at(RAX, AT_WORK.into()));
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
        if let Some(load) = self.load_of_this() {
            return self.store_now(place, size, value, load);
        }
        let version = self.version(place);
        let value = self.in_register(value);
        let status = self.take();
        let (failed, done) = (self.asm.label(), self.asm.label());
        self.take_monitor(place.0, size.into(), failed);
        let asm = &mut self.asm;
        // Odd: at work.
        asm.lea(true, status, Mem::at(RAX, AT_WORK.into()));
        asm.compare_exchange(8, Mem::at(version, 0), status);
        asm.jcc(Cc::Ne, failed);
        asm.load(true, RAX, frame::MONITOR_VALUE);
        asm.compare_exchange(size, Mem::at(place.0, 0), value.0);
        asm.setcc(Cc::Ne, RAX);
        // Even again, another than before, and unwatched.
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

#[cfg(test)]
mod tests {
    use super::*;

    const LDXR: u32 = 0xc85f_7c22; // ldxr x2, [x1]
    const STXR: u32 = 0xc800_7c23; // stxr w0, x3, [x1]
    const ADD: u32 = 0x9100_0443; // add x3, x2, #1

    /// Where the store is, and whether what was loaded stays in its register.
    fn store(words: &[u32]) -> Option<(u32, bool)> {
        store_of(words).map(|load| (load.store, load.register == Some(2)))
    }

    #[test]
    fn a_store_exclusive_is_found_behind_work_on_registers() {
        assert_eq!(store(&[LDXR, STXR]), Some((1, true)));
        assert_eq!(store(&[LDXR, ADD, STXR]), Some((2, true)));
        // ldaxr; add x2, x2, #1; eor x3, x2, x4; stlxr
        let words = [LDXR | 1 << 15, 0x9100_0442, 0xca04_0043, STXR | 1 << 15];
        assert_eq!(store(&words), Some((3, false)));
        assert_eq!(store(&words[..3]), None);
    }

    #[test]
    fn what_another_processor_could_notice_parts_them() {
        // ldr x3, [x4]; str x3, [x4]; ldadd x3, x4, [x5]; b.eq #8; dmb ish; clrex
        for between in [
            0xf940_0083,
            0xf900_0083,
            0xf823_00a4,
            0x5400_0040,
            0xd503_3bbf,
            0xd503_3f5f,
        ] {
            assert_eq!(store(&[LDXR, between, STXR]), None, "{between:#x}");
        }
    }

    #[test]
    fn a_store_exclusive_elsewhere_is_another() {
        // Of a word; through x4; with its status where the address is, or the value; after add x1, x1, #16.
        let others = [
            STXR ^ 1 << 30,
            STXR & !(31 << 5) | 4 << 5,
            STXR | 1 << 16,
            STXR | 3 << 16,
        ];
        for other in others {
            assert_eq!(store(&[LDXR, other]), None, "{other:#x}");
        }
        assert_eq!(store(&[LDXR, 0x9100_4021, STXR]), None);
        // ldxr x1, [x1]; ldxr xzr, [x1]
        assert_eq!(store(&[0xc85f_7c21, STXR]), None);
        assert_eq!(store(&[0xc85f_7c3f, STXR]), None);
    }
}
