//! Accesses to memory near others: through one register, a few bytes apart.
//!
//! The first of them, its *leader*, looks up the page of all that follow in the block, and keeps its host address on the stack;
//! those need no look-up then. Where they are not all in one page, or an instruction since was left to the interpreter, which
//! may change what addresses mean, no address is kept, and each looks its own up.

use cpu::{Access, AccessKind, Key, Order, Width};

use super::assembler::{Alu, Cc, Label, Mem, RAX, Reg, Rm};
use super::emitter::{Binary, Emitter, Node, Place, Stub, Value};
use super::frame::{self, PLACES};
use super::record::Effects;

/// How far apart the first and the last byte are, at most: the further, the more often they are in two pages.
const REACH: i64 = 256;
/// Instructions that are looked at, from the present one on.
pub const AHEAD: usize = 8;

/// A host address that is kept.
#[derive(Clone, Copy, Debug)]
struct Kept {
    /// The guest register that accesses are through, and what is in the page, from its present value on.
    base: u8,
    from: i64,
    to: i64,
    /// What the host address is of.
    offset: i64,
    write: bool,
}

/// What is kept, by where on the stack.
#[derive(Clone, Copy, Debug, Default)]
pub struct Places {
    kept: [Option<Kept>; PLACES as usize],
    next: u8,
}

impl Places {
    /// Which of them hold something.
    fn numbers(&self) -> impl Iterator<Item = u8> + use<> {
        let kept = self.kept;
        (0..PLACES).filter(move |&i| kept[usize::from(i)].is_some())
    }

    /// A register becomes itself and a constant, or something else.
    fn moved(&mut self, n: u8, by: Option<i64>) {
        for entry in &mut self.kept {
            let Some(kept) = entry.as_mut().filter(|kept| kept.base == n) else {
                continue;
            };
            match by {
                Some(by) => {
                    kept.from = kept.from.wrapping_sub(by);
                    kept.to = kept.to.wrapping_sub(by);
                    kept.offset = kept.offset.wrapping_sub(by);
                }
                None => *entry = None,
            }
        }
    }

    /// The one that an access through a register is in, and how far it is from what the host address is of.
    fn find(&self, base: u8, from: i64, bytes: i64, write: bool) -> Option<(u8, i32)> {
        let serves = |kept: &Kept| {
            kept.base == base && kept.from <= from && from + bytes <= kept.to && kept.write >= write
        };
        self.numbers().find_map(|i| {
            let kept = self.kept[usize::from(i)].filter(serves)?;
            Some((i, i32::try_from(from - kept.offset).ok()?))
        })
    }

    /// Where to keep another, in the place of what was through the same register.
    fn put(&mut self, kept: Kept) -> u8 {
        self.moved(kept.base, None);
        let free = (0..PLACES).find(|&i| self.kept[usize::from(i)].is_none());
        let number = free.unwrap_or(self.next);
        self.next = (number + 1) % PLACES;
        self.kept[usize::from(number)] = Some(kept);
        number
    }
}

/// Whether an instruction may access memory through a register, or write that, as far as can be told without decoding it. A
/// wrong answer costs a look-up.
fn concerns(word: u32, base: u8) -> bool {
    let [d, n] = [word, word >> 5].map(|field| field & 31 == u32::from(base));
    // Loads and stores have this bit set, and that clear.
    d || (n && word >> 27 & 1 != 0 && word >> 25 & 1 == 0)
}

/// What is kept for an access, so that it serves those that follow through the same register; `None`: there are none. `ahead`:
/// from the present instruction on.
fn reach(key: &Key, ahead: &[u32], mut kept: Kept) -> Option<Kept> {
    let mut by = 0i64;
    let mut found = false;
    let later = ahead.iter().skip(1).any(|&word| concerns(word, kept.base));
    for (i, &word) in ahead.iter().enumerate().take_while(|_| later) {
        if !concerns(word, kept.base) {
            continue;
        }
        let effects = Effects::of(key, word);
        if let Some(span) = effects.span.filter(|span| i > 0 && span.base == kept.base) {
            let first = by.wrapping_add(span.offset);
            let last = first.saturating_add(span.bytes.into());
            let (from, to) = (kept.from.min(first), kept.to.max(last));
            if to.checked_sub(from).is_some_and(|reach| reach <= REACH) {
                // What can be written can be read, but what is read may never be written.
                let certain = || {
                    ahead[..i]
                        .iter()
                        .all(|&w| Effects::of(key, w).branch.is_none())
                };
                if span.write && !kept.write && !certain() {
                    // It looks up the page for those after it.
                    break;
                }
                kept.write |= span.write;
                (kept.from, kept.to) = (from, to);
                found = true;
            }
        }
        match effects.moved {
            Some((n, more)) if n == kept.base => by = by.wrapping_add(more),
            _ if effects.writes >> kept.base & 1 != 0 => break,
            _ => {}
        }
    }
    found.then_some(kept)
}

impl Emitter {
    /// What an address is: a guest register, and a constant.
    fn near(&self, address: Value) -> Option<(u8, i64)> {
        let register = |value| match self.get(value) {
            Node::Guest(n, _) => Some(n),
            _ => None,
        };
        let small = |c: u64| i64::from(c as i64 as i32) == c as i64;
        let constant = |value| self.constant_of(value).filter(|&c| small(c));
        match self.get(address) {
            Node::Guest(n, _) => Some((n, 0)),
            Node::Binary(Binary::Add, Width::W64, a, b) => {
                Some((register(a)?, constant(b)? as i64))
            }
            Node::Binary(Binary::Sub, Width::W64, a, b) => {
                Some((register(a)?, -(constant(b)? as i64)))
            }
            _ => None,
        }
    }

    /// Forgets host addresses: what addresses mean may change.
    pub(super) fn forget_places(&mut self) {
        self.places = Places::default();
    }

    /// A guest register is written.
    pub(super) fn move_places(&mut self, n: u8, value: Value) {
        let by = self.near(value).filter(|near| near.0 == n);
        self.places.moved(n, by.map(|near| near.1));
    }

    /// After an instruction was left to the interpreter out of line.
    pub(super) fn close_places(&mut self, open: [Option<u8>; PLACES as usize]) {
        for number in open.into_iter().flatten() {
            self.asm.store_constant(8, frame::place(number), 0);
        }
    }

    /// Those that are kept.
    pub(super) fn open_places(&self) -> [Option<u8>; PLACES as usize] {
        let mut open = [None; PLACES as usize];
        for (slot, number) in open.iter_mut().zip(self.places.numbers()) {
            *slot = Some(number);
        }
        open
    }

    /// The place of an access that is near others; `None`: it is not.
    pub(super) fn look_up_near(
        &mut self,
        address: Value,
        access: Access,
        slow: Label,
    ) -> Option<Place> {
        if self.strict_memory
            || access.unprivileged
            || !matches!(access.order, Order::Plain | Order::Element(_))
        {
            return None;
        }
        let (base, offset) = self.near(address)?;
        let bytes = i64::from(access.bytes);
        let write = access.kind != AccessKind::Read;
        let (from, back) = (self.asm.label(), self.asm.label());
        if let Some((number, by)) = self.places.find(base, offset, bytes, write) {
            let (address, entry, place) = (self.take(), self.take(), self.take());
            self.asm.load(true, place, frame::place(number));
            self.asm.test(true, place, place);
            self.asm.jcc(Cc::E, from);
            if by != 0 {
                self.asm.alu_constant(Alu::Add, true, place, by);
            }
            self.asm.bind(back);
            self.stubs.push(Stub::Near {
                from,
                back,
                slow,
                base,
                offset: offset as i32,
                access,
                registers: [address, entry, place],
            });
            self.release(address);
            self.release(entry);
            return Some(Place(place));
        }
        let alone = Kept {
            base,
            from: offset,
            to: offset + bytes,
            offset,
            write,
        };
        let reached = reach(&self.key, &self.ahead, alone);
        if reached.is_none() && self.trial.is_none() {
            return None;
        }
        let kept = reached.unwrap_or(alone);
        let address = self.in_register(address);
        let (entry, place) = (self.take(), self.take());
        let registers = [address.0, entry, place];
        let ends = [kept.from - offset, kept.to - offset].map(|end| end as i32);
        let all = Access {
            kind: if kept.write {
                AccessKind::Write
            } else {
                access.kind
            },
            ..access
        };
        let elsewhere = if reached.is_some() { from } else { slow };
        match self.trial {
            Some(window) => self.look_up_on_trial(window, all, ends, registers, elsewhere),
            None => self.look_up_around(address.0, all, ends, [place, entry], elsewhere),
        }
        if let Some(kept) = reached {
            let number = self.places.put(kept);
            self.asm.store(8, frame::place(number), place);
            self.asm.bind(back);
            self.stubs.push(Stub::Leader {
                from,
                back,
                slow,
                number,
                access,
                registers,
            });
        }
        self.release_if(address);
        self.release(entry);
        Some(Place(place))
    }

    /// The host address of an access to `place`, if all from `ends[0]` to `ends[1]` bytes beyond its address is in the page that
    /// is kept on trial. `registers`: the address, one for the TLB's entry, the place.
    fn look_up_on_trial(
        &mut self,
        window: u8,
        access: Access,
        ends: [i32; 2],
        registers: [Reg; 3],
        elsewhere: Label,
    ) {
        let [address, _, place] = registers;
        let (from, back) = (self.asm.label(), self.asm.label());
        let kept = frame::window(window);
        let homes = self.homes.windows[usize::from(window)];
        self.look_in_window(window, address, ends[0], place, from);
        match homes.host {
            Some(host) => self.asm.alu(Alu::Add, true, place, host),
            None => self.asm.alu(Alu::Add, true, place, kept.host),
        }
        self.asm.bind(back);
        self.stubs.push(Stub::Trial {
            from,
            back,
            elsewhere,
            window,
            access,
            ends,
            registers,
        });
    }

    /// Out of line: an access that is not in the page on trial. Its own is kept then, if that is next to it or there have not
    /// been too many.
    pub(super) fn emit_trial(
        &mut self,
        window: u8,
        access: Access,
        ends: [i32; 2],
        [address, entry, place]: [Reg; 3],
        back: Label,
        elsewhere: Label,
    ) {
        self.look_up_around(address, access, ends, [place, entry], elsewhere);
        let kept = frame::window(window);
        let homes = self.homes.windows[usize::from(window)];
        self.asm.lea(true, entry, Mem::at(address, ends[0]));
        self.asm.alu_constant(Alu::And, true, entry, -4096);
        // RAX: how far it is from the page before.
        self.asm.load(true, RAX, entry);
        match homes.minus_base {
            Some(base) => self.asm.alu(Alu::Add, true, RAX, base),
            None => self.asm.alu(Alu::Sub, true, RAX, kept.base),
        }
        self.asm.alu_constant(Alu::Add, true, RAX, 4096);
        self.asm.alu_constant(Alu::Cmp, true, RAX, 8192);
        let next_to_it = self.asm.label();
        self.asm.jcc(Cc::Be, next_to_it);
        self.asm.alu_constant(Alu::Cmp, true, kept.budget, 0);
        self.asm.jcc(Cc::E, back);
        self.asm.alu_constant(Alu::Sub, true, kept.budget, 1);
        self.asm.bind(next_to_it);
        self.keep_page(window, ends, [address, entry, place]);
        self.asm.jmp(back);
    }

    /// Out of line: an access whose host address is not kept. `registers`: for its address, the TLB's entry, its place.
    pub(super) fn emit_near(
        &mut self,
        base: u8,
        offset: i32,
        access: Access,
        [address, entry, place]: [Reg; 3],
        slow: Label,
    ) {
        match self.general(base) {
            Rm::Reg(reg) => self.asm.lea(true, address, Mem::at(reg, offset)),
            Rm::Mem(from) => {
                self.asm.load(true, address, from);
                self.asm.alu_constant(Alu::Add, true, address, offset);
            }
        }
        self.look_up_in_tlb(address, access, false, place, entry, slow);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::x64::record::tests::key;

    /// What the first access of a program, of 16 bytes, reaches, and whether it is to be written.
    fn reach_of(words: &[u32], offset: i64, write: bool) -> Option<(i64, i64, bool)> {
        let kept = Kept {
            base: 31,
            from: offset,
            to: offset + 16,
            offset,
            write,
        };
        reach(&key(), words, kept).map(|kept| (kept.from, kept.to, kept.write))
    }

    #[test]
    fn a_frame_is_reached_by_its_first_store() {
        // stp x29, x30, [sp, #-48]!; stp x19, x20, [sp, #16]; str x21, [sp, #32]
        let words = [0xa9bd_7bfd, 0xa901_53f3, 0xf900_13f5];
        assert_eq!(reach_of(&words, -48, true), Some((-48, -8, true)));
        // add sp, sp, #16 in between; mov sp, x0
        let words = [0xa9bd_7bfd, 0x9100_43ff, 0xf900_13f5];
        assert_eq!(reach_of(&words, -48, true), Some((-48, 8, true)));
        let words = [0xa9bd_7bfd, 0x9100_001f, 0xf900_13f5];
        assert_eq!(reach_of(&words, -48, true), None);
    }

    #[test]
    fn what_is_written_at_all_events_is_looked_up_to_be_written() {
        // ldp x19, x20, [sp]; ldr x21, [sp, #32]; str x21, [sp, #32]; ldr x21, [sp, #40]
        let mut words = vec![0xa940_53f3, 0xf940_13f5, 0xf900_13f5, 0xf940_17f5];
        assert_eq!(reach_of(&words, 0, false), Some((0, 48, true)));
        // b.eq #8 before the store
        words.insert(2, 0x5400_0040);
        assert_eq!(reach_of(&words, 0, false), Some((0, 40, false)));
        assert_eq!(reach_of(&words, 0, true), Some((0, 48, true)));
    }

    #[test]
    fn what_is_far_is_not_reached() {
        // ldp x19, x20, [sp]; ldr x21, [sp, #256]; ldr x21, [sp, #248]
        let words = [0xa940_53f3, 0xf940_83f5];
        assert_eq!(reach_of(&words, 0, false), None);
        let words = [0xa940_53f3, 0xf940_7ff5];
        assert_eq!(reach_of(&words, 0, false), Some((0, 256, false)));
    }

    #[test]
    fn places_follow_their_register() {
        let mut places = Places::default();
        let kept = Kept {
            base: 1,
            from: 0,
            to: 32,
            offset: 8,
            write: false,
        };
        let number = places.put(kept);
        assert_eq!(places.find(1, 16, 8, false), Some((number, 8)));
        assert_eq!(places.find(1, 16, 8, true), None);
        assert_eq!(places.find(1, 25, 8, false), None);
        assert_eq!(places.find(2, 16, 8, false), None);
        places.moved(1, Some(16));
        assert_eq!(places.find(1, 0, 8, false), Some((number, 8)));
        assert_eq!(places.find(1, -17, 8, false), None);
        places.moved(1, None);
        assert_eq!(places.find(1, 0, 8, false), None);
    }
}
