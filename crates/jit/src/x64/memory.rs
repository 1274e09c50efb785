//! Accesses to memory: by the TLB, in line, or by the page that a loop keeps.

use cpu::{Access, AccessKind, Layout, Order};

use super::assembler::{Alu, Cc, Label, Mem, RAX, Reg, Rm, ShiftOp};
use super::emitter::{Emitter, Place, Stub, Value};
use super::frame;

impl Emitter {
    /// The label to go to for the interpreter to execute the instruction.
    pub(super) fn slow_label(&mut self) -> Label {
        match self.slow {
            Some((from, _)) => from,
            None => {
                let labels = (self.asm.label(), self.asm.label());
                self.slow = Some(labels);
                labels.0
            }
        }
    }

    /// Memory at an offset into the present place.
    pub(super) fn memory(&self, offset: i32) -> Mem {
        match self.page_of_place {
            Some(page) => Mem::indexed(page, self.place, 1, offset),
            None => Mem::at(self.place, offset),
        }
    }

    /// Looks a span of memory up in the TLB: the host address, in a register of its own.
    pub(super) fn look_up(&mut self, address: Value, access: Access, align: Option<u8>) -> Place {
        if self.accessed || self.committed {
            self.fail("second access");
        }
        self.accessed = true;
        self.page_of_place = None;
        if self.failed.is_some() {
            return Place(RAX);
        }
        if let Some(place) = self.looked_up() {
            self.place = place.0;
            return place;
        }
        let access = Access {
            kind: match self.stores_later() {
                true => AccessKind::Write,
                false => access.kind,
            },
            ..access
        };
        let slow = self.slow_label();
        if access.sp_base && self.key.sp_align_check && !self.stack_is_aligned {
            match self.general(31) {
                Rm::Reg(sp) => self.asm.test_byte(sp, 15),
                Rm::Mem(sp) => self.asm.test_byte(sp, 15),
            }
            self.asm.jcc(Cc::Ne, slow);
            self.stack_is_aligned = true;
        }
        let window = self.window.filter(|_| !self.strict_memory);
        let align = align.unwrap_or(1);
        if window.is_none()
            && align == 1
            && let Some(place) = self.look_up_near(address, access, slow)
        {
            self.place = place.0;
            return place;
        }
        let address = self.in_register(address);
        // Of an access that is to be aligned as a whole, the page is compared and the alignment in one.
        let at_once = window.is_none() && u16::from(align) == access.bytes;
        if align > 1 && !at_once {
            self.asm.test_byte(address.0, align - 1);
            self.asm.jcc(Cc::Ne, slow);
        }
        let entry = self.take();
        let place = self.take();
        match window {
            Some(window) => {
                let (from, back) = (self.asm.label(), self.asm.label());
                let kept = frame::window(window);
                let homes = self.homes.windows[usize::from(window)];
                self.look_in_window(window, address.0, 0, place, from);
                let plain = matches!(access.order, Order::Plain | Order::Element(_));
                match homes.host {
                    Some(host) if plain => {
                        self.asm.bind(back);
                        self.page_of_place = Some(host);
                    }
                    Some(host) => {
                        self.asm.bind(back);
                        self.asm.alu(Alu::Add, true, place, host);
                    }
                    None => {
                        self.asm.alu(Alu::Add, true, place, kept.host);
                        self.asm.bind(back);
                    }
                }
                self.stubs.push(Stub::Window {
                    from,
                    back,
                    slow,
                    window,
                    stride: self.stride,
                    address: address.0,
                    access,
                    place,
                    entry,
                });
            }
            None => {
                let whole = at_once && align > 1;
                self.look_up_in_tlb(address.0, access, whole, place, entry, slow);
            }
        }
        self.release_if(address);
        self.release(entry);
        self.place = place;
        Place(place)
    }

    /// How far the byte `first` bytes beyond an address is in the page of a window, to `to`; goes to `elsewhere` if the access
    /// is not in that.
    pub(super) fn look_in_window(
        &mut self,
        window: u8,
        address: Reg,
        first: i32,
        to: Reg,
        elsewhere: Label,
    ) {
        let kept = frame::window(window);
        match self.homes.windows[usize::from(window)].minus_base {
            Some(base) => {
                let offset = Mem::indexed(address, base, 1, first);
                self.asm.lea(true, to, offset);
            }
            None => {
                if first == 0 {
                    self.asm.load(true, to, address);
                } else {
                    self.asm.lea(true, to, Mem::at(address, first));
                }
                self.asm.alu(Alu::Sub, true, to, kept.base);
            }
        }
        self.asm.alu(Alu::Cmp, true, to, kept.limit);
        self.asm.jcc(Cc::Ae, elsewhere);
    }

    /// Has a window keep the page in `entry`, that all from `ends[0]` to `ends[1]` bytes beyond an address with a host address is
    /// in. If the window's host address is in a register, `entry` is the page less the address then.
    pub(super) fn keep_page(
        &mut self,
        window: u8,
        ends: [i32; 2],
        [address, entry, host]: [Reg; 3],
    ) {
        let kept = frame::window(window);
        let homes = self.homes.windows[usize::from(window)];
        match homes.minus_base {
            Some(base) => {
                self.asm.load(true, base, entry);
                self.asm.neg(true, base);
            }
            None => self.asm.store(8, kept.base, entry),
        }
        // The host address of the access, less how far the first byte is in the page.
        self.asm.alu(Alu::Sub, true, entry, address);
        let first = Mem::indexed(entry, host, 1, -ends[0]);
        match homes.host {
            Some(reg) => self.asm.lea(true, reg, first),
            None => {
                self.asm.lea(true, entry, first);
                self.asm.store(8, kept.host, entry);
            }
        }
        let limit = 4097 - (ends[1] - ends[0]);
        self.asm.store_constant(8, kept.limit, limit);
    }

    /// The TLB's entry for a byte `from` bytes beyond an address.
    fn find_entry(&mut self, address: Reg, from: i32, access: Access, entry: Reg) {
        let layout = &Layout::THIS;
        // The entry's place in the array: bits of the page's number times its size.
        let size_bits = layout.entry.trailing_zeros() as u8;
        if from == 0 {
            self.asm.load(false, entry, address);
        } else {
            self.asm.lea(false, entry, Mem::at(address, from));
        }
        self.asm.shift(ShiftOp::Shr, false, entry, 12 - size_bits);
        let mask = ((layout.count - 1) << size_bits) as i32;
        self.asm.alu_constant(Alu::And, false, entry, mask);
        let set = if access.unprivileged {
            frame::USER
        } else {
            frame::DATA
        };
        self.asm.alu(Alu::Add, true, entry, set);
    }

    /// What an entry is compared with, for an access.
    pub(super) fn tag(access: Access, entry: Reg) -> Mem {
        let layout = &Layout::THIS;
        let tag = match access.kind {
            AccessKind::Read => layout.read,
            AccessKind::Write | AccessKind::ReadWrite => layout.write,
        };
        Mem::at(entry, (layout.entries + tag) as i32)
    }

    /// The host address of an address in the page of an entry, to `page`.
    fn by_entry(&mut self, address: Reg, page: Reg, entry: Reg) {
        let layout = &Layout::THIS;
        let addend = Mem::at(entry, (layout.entries + layout.addend) as i32);
        self.asm.load(true, page, addend);
        self.asm.alu(Alu::Add, true, page, address);
    }

    /// The host address of an access, by the TLB's entry in `entry`, to `page`, if the entry is that of all from `ends[0]` to
    /// `ends[1]` bytes beyond the address; else goes to `elsewhere`.
    pub(super) fn look_up_around(
        &mut self,
        address: Reg,
        access: Access,
        ends: [i32; 2],
        [page, entry]: [Reg; 2],
        elsewhere: Label,
    ) {
        self.find_entry(address, ends[0], access, entry);
        self.asm.lea(true, page, Mem::at(address, ends[1] - 1));
        self.asm.alu_constant(Alu::And, true, page, -4096);
        self.asm.alu(Alu::Cmp, true, page, Self::tag(access, entry));
        self.asm.jcc(Cc::Ne, elsewhere);
        self.by_entry(address, page, entry);
    }

    /// The host address of an access, by the TLB's entry in `entry`, to `page`. `aligned`: goes to `slow` unless the address
    /// is a multiple of the access's bytes.
    pub(super) fn look_up_in_tlb(
        &mut self,
        address: Reg,
        access: Access,
        aligned: bool,
        page: Reg,
        entry: Reg,
        slow: Label,
    ) {
        self.find_entry(address, 0, access, entry);
        let last = i32::from(access.bytes) - 1;
        if aligned {
            // Low bits that are set match no entry.
            self.asm.load(true, page, address);
            self.asm.alu_constant(Alu::And, true, page, -4096 | last);
        } else {
            // The page of the last byte: of another page than the first, it does not match this entry.
            if last > 0 {
                self.asm.lea(true, page, Mem::at(address, last));
            } else {
                self.asm.load(true, page, address);
            }
            self.asm.alu_constant(Alu::And, true, page, -4096);
        }
        let tag = Self::tag(access, entry);
        self.asm.alu(Alu::Cmp, true, page, tag);
        let align = match access.order {
            Order::Plain => access.size,
            Order::Element(unit) => unit,
            _ => 0,
        };
        if self.strict_memory && align != 0 {
            let (from, back) = (self.asm.label(), self.asm.label());
            self.asm.jcc(Cc::Ne, from);
            self.asm.bind(back);
            self.stubs.push(Stub::Strict {
                from,
                back,
                slow,
                address,
                page,
                tag,
                align,
            });
        } else {
            self.asm.jcc(Cc::Ne, slow);
        }
        self.by_entry(address, page, entry);
    }
}
