//! Ways out of a block, and its code out of line.

use cpu::Layout;

use super::assembler::{Alu, Cc, Label, Mem, RAX, RCX};
use super::copies::Copies;
use super::emitter::{Cond, Emitter, End, Exit, Far, Stub};
use super::flags::FlagsOf;
use super::frame;
use super::thunks;

impl Emitter {
    /// A jump to an offset from the page's address, at the end of a block or out of line.
    pub(super) fn leave_to(&mut self, to: i64) {
        if (0..0x1000).contains(&to) {
            self.leave_loop();
            // Patched when linked. Until then it goes to the next instruction, which is the stub.
            let at = self.asm.at() as u32 + 1;
            let stub = at + 4;
            self.asm.jmp_to(self.asm.origin + self.asm.at() + 5);
            self.load_exit_number();
            self.asm.jmp_to(self.thunks.link);
            let (to, far) = (to as i32, None);
            self.exits.push(Exit { at, stub, to, far });
        } else if let Ok(to) = i32::try_from(to) {
            self.leave_page(to);
        } else {
            self.asm.load(true, RAX, frame::PAGE);
            self.asm.constant(RCX, to as u64);
            self.asm.alu(Alu::Add, true, RAX, RCX);
            self.jump_indirect();
        }
    }

    /// Jumps to another page: straight, if it is linked for the present context and page. What goes forwards only ends where
    /// the code does that is in the cache; what goes backwards polls.
    fn leave_page(&mut self, to: i32) {
        self.leave_loop();
        let slow = self.asm.label();
        if to < 0 {
            self.asm.load(true, RAX, frame::PENDING);
            self.asm.alu_constant(Alu::Cmp, false, Mem::at(RAX, 0), 0);
            self.asm.jcc(Cc::Ne, slow);
        }
        let context = self.compare_constant(frame::CONTEXT);
        self.asm.jcc(Cc::Ne, slow);
        let page = self.compare_constant(frame::PAGE);
        self.asm.jcc(Cc::Ne, slow);
        self.asm
            .alu_constant(Alu::Add, true, frame::PAGE, to & -4096);
        let at = self.asm.at() as u32 + 1;
        self.asm.jmp_to(self.asm.origin + self.asm.at() + 5);
        self.asm.bind(slow);
        let patience = self.next_patience;
        self.next_patience = (patience + 1) % frame::PATIENCES as u16;
        self.asm.constant(RAX, i64::from(to) as u64);
        self.asm.constant(RCX, patience.into());
        let stub = self.asm.at() as u32;
        self.load_exit_number();
        self.asm.jmp_to(self.thunks.far);
        let far = Some(Far {
            context,
            page,
            patience,
        });
        self.exits.push(Exit { at, stub, to, far });
    }

    /// Compares 64 bits with a constant that is to be filled in: where that is. It is 0 until then. RCX is changed.
    fn compare_constant(&mut self, with: Mem) -> u32 {
        self.asm.bytes.extend_from_slice(&[0x48, 0xb9]); // mov rcx, constant
        let at = self.asm.at() as u32;
        self.asm.bytes.extend_from_slice(&[0; 8]);
        self.asm.alu(Alu::Cmp, true, RCX, with);
        at
    }

    /// To RSI; the number is filled in when the block is placed.
    fn load_exit_number(&mut self) {
        self.asm.bytes.extend_from_slice(&[0xbe, 0, 0, 0, 0]); // mov esi, exit
    }

    /// Jumps to the guest address in RAX, if it is in the jump cache and nothing wants attention.
    pub(super) fn jump_indirect(&mut self) {
        self.leave_loop();
        thunks::look_up_jump(&mut self.asm, self.thunks.indirect);
    }

    /// Leaves the block for an offset, polling if that is backwards.
    pub(super) fn go_to(&mut self, from: u32, to: i64) {
        // Only calls write a register. What is known in a loop is not known on that way, were it to lead into it.
        let calls = self.committed;
        // A branch on no condition.
        if std::mem::take(&mut self.flags_are_in_host) {
            self.store_flags();
        }
        let entry = self.entry(to).copied().filter(|_| !calls);
        if !entry.is_some_and(|entry| entry.takes(self.sunk)) {
            self.store_sunk_now();
        }
        let sunk = self.sunk;
        let inside = entry.map(|entry| entry.label_for(sunk));
        if to <= i64::from(from) && to >= 0 && !self.paced {
            let attend = self.asm.label();
            self.poll();
            self.stubs.push(Stub::Back {
                from: attend,
                to,
                thunk: self.thunks.indirect,
                flags: false,
                sunk,
            });
            if let Some(label) = inside {
                self.asm.jcc(Cc::E, label);
                return self.asm.jmp(attend);
            }
            self.asm.jcc(Cc::Ne, attend);
            if !calls
                && self.in_loop.is_none()
                && let Some(page) = self.counts_jumps
            {
                let hot = self.asm.label();
                let count = frame::heat(page, to as u32);
                self.asm.alu_constant(Alu::Sub, false, count, 1);
                self.asm.jcc(Cc::S, hot);
                self.stubs.push(Stub::Back {
                    from: hot,
                    to,
                    thunk: self.thunks.hot,
                    flags: false,
                    sunk: None,
                });
            }
        }
        match inside {
            Some(label) => self.asm.jmp(label),
            None => self.leave_to(to),
        }
    }

    /// Jumps back in a loop, polling, with flags that are only in the host's.
    fn go_back_with_flags(&mut self, head: Label, to: i64) {
        let attend = self.asm.label();
        // What compares would change them.
        self.take_this(RCX);
        let pending = match self.homes.pending {
            Some(reg) => reg,
            None => {
                self.asm.load(true, RCX, frame::PENDING);
                RCX
            }
        };
        self.asm.load(false, RCX, Mem::at(pending, 0));
        self.asm.jmp_unless_rcx_is_zero(attend);
        self.release(RCX);
        self.asm.jmp(head);
        self.stubs.push(Stub::Back {
            from: attend,
            to,
            thunk: self.thunks.indirect,
            flags: true,
            sunk: None,
        });
    }

    /// A conditional branch out of the block, which goes on after it.
    pub(super) fn branch(&mut self, cond: Cond, to: i64) {
        let cc = self.condition_code(cond);
        if self.failed.is_some() {
            return;
        }
        let keep = self.asm.flags_changed;
        let flags = std::mem::take(&mut self.flags_are_in_host);
        if to <= i64::from(self.offset) && to >= 0 && !self.paced {
            let over = self.asm.label();
            self.asm.jcc(cc.not(), over);
            match self.entry(to).copied() {
                // Flags that are only in the host's nobody looks at inside.
                Some(head) if flags && !self.committed => self.go_back_with_flags(head.label, to),
                _ => {
                    self.flags_are_in_host = flags;
                    let sunk = self.sunk;
                    self.go_to(self.offset, to);
                    self.sunk = sunk;
                }
            }
            self.asm.bind(over);
        } else if let Some(entry) = self.entry(to).copied() {
            if entry.takes(self.sunk) {
                self.asm.jcc(cc, entry.label_for(self.sunk));
            } else {
                let from = self.asm.label();
                self.asm.jcc(cc, from);
                self.stubs.push(Stub::Edge {
                    from,
                    to: entry.label_for(None),
                    sunk: self.sunk,
                });
            }
        } else {
            let from = self.asm.label();
            self.asm.jcc(cc, from);
            self.stubs.push(Stub::Exit {
                from,
                to,
                flags,
                sunk: self.sunk,
            });
        }
        if flags && self.leaves_after {
            self.store_flags();
        }
        self.asm.flags_changed = keep;
    }

    /// Ends the block after the instruction before `next`, and emits what is out of line.
    pub fn finish(&mut self, next: u32) {
        match self.end.take() {
            Some(End::Jump(to)) => self.go_to(self.offset, to),
            Some(End::Indirect) => {}
            None => self.leave_to(next.into()),
        }
        self.finish_stubs();
        self.asm.finish();
    }

    /// Has the frame have the flags: from the host's, or made again.
    fn store_left(&mut self, in_host: bool, sunk: Option<FlagsOf>) {
        if in_host {
            self.store_flags();
        }
        self.store_sunk(sunk);
    }

    /// Emits what is out of line.
    pub(super) fn finish_stubs(&mut self) {
        // What they find is as it was where they were left for.
        self.copies = Copies::default();
        let mut stubs = std::mem::take(&mut self.stubs);
        self.busy = 0;
        for stub in stubs.drain(..) {
            match stub {
                Stub::Interpret {
                    from,
                    back,
                    word,
                    offset,
                    cause,
                    open,
                    sunk,
                    copies,
                } => {
                    self.asm.bind(from);
                    self.store_sunk(sunk);
                    self.call_interpreter(word, offset, cause);
                    self.close_places(open);
                    for (xmm, n) in copies.iter() {
                        self.load_vector_from(xmm, frame::vector(n));
                    }
                    self.asm.jmp(back);
                }
                Stub::Exit {
                    from,
                    to,
                    flags,
                    sunk,
                } => {
                    self.asm.bind(from);
                    self.store_left(flags, sunk);
                    self.leave_to(to);
                }
                Stub::Edge { from, to, sunk } => {
                    self.asm.bind(from);
                    self.store_sunk(sunk);
                    self.asm.jmp(to);
                }
                Stub::Back {
                    from,
                    to,
                    thunk,
                    flags,
                    sunk,
                } => {
                    self.asm.bind(from);
                    self.store_left(flags, sunk);
                    self.leave_loop();
                    self.asm.load(true, RAX, frame::PAGE);
                    self.asm.alu_constant(Alu::Add, true, RAX, to as i32);
                    self.asm.jmp_to(thunk);
                }
                Stub::Window {
                    from,
                    back,
                    slow,
                    window,
                    stride,
                    address,
                    access,
                    place,
                    entry,
                } => {
                    self.asm.bind(from);
                    // After what wants attention is seen to, the loop is entered anew.
                    self.poll();
                    self.asm.jcc(Cc::Ne, slow);
                    self.look_up_in_tlb(address, access, false, place, entry, slow);
                    let kept = frame::window(window);
                    let homes = self.homes.windows[usize::from(window)];
                    self.asm.load(true, entry, address);
                    self.asm.alu_constant(Alu::And, true, entry, -4096);
                    let ends = [0, access.bytes.into()];
                    self.keep_page(window, ends, [address, entry, place]);
                    if homes.host.is_some() {
                        // The offset in the page.
                        self.asm.load(true, place, entry);
                        self.asm.neg(true, place);
                    }
                    if let Some(stride) = stride {
                        let stride = self.general(stride);
                        self.asm.alu_constant(Alu::Cmp, true, stride, 0);
                        self.asm.jcc(Cc::Ne, back);
                        self.asm.store_constant(8, kept.limit, 0);
                    }
                    self.asm.jmp(back);
                }
                Stub::Trial {
                    from,
                    back,
                    elsewhere,
                    window,
                    access,
                    ends,
                    registers,
                } => {
                    self.asm.bind(from);
                    self.emit_trial(window, access, ends, registers, back, elsewhere);
                }
                Stub::Leader {
                    from,
                    back,
                    slow,
                    number,
                    access,
                    registers: [address, entry, place],
                } => {
                    self.asm.bind(from);
                    self.asm.store_constant(8, frame::place(number), 0);
                    self.look_up_in_tlb(address, access, false, place, entry, slow);
                    self.asm.jmp(back);
                }
                Stub::Near {
                    from,
                    back,
                    slow,
                    base,
                    offset,
                    access,
                    registers,
                } => {
                    self.asm.bind(from);
                    self.emit_near(base, offset, access, registers, slow);
                    self.asm.jmp(back);
                }
                Stub::Strict {
                    from,
                    back,
                    slow,
                    address,
                    page,
                    tag,
                    align,
                } => {
                    self.asm.bind(from);
                    if align > 1 {
                        self.asm.test_byte(address, align - 1);
                        self.asm.jcc(Cc::Ne, slow);
                    }
                    self.asm
                        .alu_constant(Alu::Or, true, page, Layout::THIS.aligned_only as i32);
                    self.asm.alu(Alu::Cmp, true, page, tag);
                    self.asm.jcc(Cc::Ne, slow);
                    self.asm.jmp(back);
                }
                Stub::Function {
                    from,
                    back,
                    operation,
                    function,
                    operands,
                    result,
                } => {
                    self.asm.bind(from);
                    self.call_vector_function(operation, function, operands);
                    self.load_vector_from(result, frame::RESULT);
                    self.asm.jmp(back);
                }
            }
        }
        // Its memory is for the next block's.
        self.stubs = stubs;
    }
}
