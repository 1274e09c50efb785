//! Emits the code of a loop: as blocks are, but with its own homes of registers, and jumps inside it that go straight
//! there.

use cpu::Key;

use super::assembler::{Alu, Cc, Label, Mem, RAX, RDI, RSP, Reg, Rm};
use super::emitter::{Cause, Emitter, End, Entry, FLAGS_ARE_GONE, InLoop, OUT_OF_VECTORS};
use super::frame::{self, Homes, PINNED, WINDOWS};
use super::loops::{Flags, Loop, Step};
use super::places::AHEAD;
use super::vector::{LOAD, STORE};

/// Vector registers that guest registers may live in: the first tries, and what is tried where instructions need more for
/// themselves.
const VECTORS: [u8; 4] = [10, 8, 5, 0];

/// How many pages a window on trial has, each time that the loop is entered. Where each access is in another page, keeping
/// them costs more than it saves.
const BUDGET: i32 = 4;

impl Emitter {
    /// Emits a loop at an address. How many of its instructions are left to the interpreter.
    pub fn emit_loop(&mut self, origin: usize, key: &Key, found: &mut Loop) -> usize {
        let mut vectors = 0;
        let mut interpreted = vec![false; found.steps.len()];
        let mut unstored = true;
        loop {
            found.settle(VECTORS[vectors]);
            found.find_dead_flags(&interpreted, unstored);
            found.sink_flags(&interpreted, unstored);
            let causes = self.try_loop(origin, key, found, &interpreted);
            if causes.contains(&Some(FLAGS_ARE_GONE)) {
                unstored = false;
                continue;
            }
            if causes.contains(&Some(OUT_OF_VECTORS)) && vectors + 1 < VECTORS.len() {
                vectors += 1;
                continue;
            }
            // What was thought to be emitted, and is not.
            let mut more = false;
            for (known, cause) in interpreted.iter_mut().zip(&causes) {
                more |= cause.is_some() && !*known;
                *known |= cause.is_some();
            }
            if !more {
                return causes.iter().flatten().count();
            }
        }
    }

    fn try_loop(
        &mut self,
        origin: usize,
        key: &Key,
        found: &Loop,
        interpreted: &[bool],
    ) -> Vec<Option<Cause>> {
        self.start(origin, key);
        self.homes = found.homes;
        let interpret = self.asm.label();
        let targets = found.steps.iter().filter(|step| step.target);
        let entries = targets
            .map(|step| Entry {
                offset: step.offset,
                label: self.asm.label(),
                first_round: step.first_round.then(|| self.asm.label()),
                looks: step.flags_looked_at,
                flags: step.flags_before,
            })
            .collect();
        self.in_loop = Some(InLoop {
            entries,
            interpret,
            writes: found.writes,
            vector_writes: found.vector_writes,
            windows: found.windows,
            trials: found.trials,
        });
        self.enter_loop();
        match self.entry(found.head.into()).copied() {
            Some(head) if head.first_round.is_some() || found.steps[0].offset != found.head => {
                self.asm.jmp(head.label_for(None));
            }
            _ => {}
        }
        let mut causes = Vec::new();
        let mut taken = false;
        for (i, step) in found.steps.iter().enumerate() {
            if std::mem::take(&mut taken) {
                causes.push(None);
            } else {
                if let Some(entry) = self.entry(step.offset.into()) {
                    let label = entry.label;
                    self.asm.bind(label);
                    self.forget_the_past();
                }
                self.sunk = step.flags_before.filter(|_| step.flags_looked_at);
                if step.stores_flags {
                    self.store_sunk_now();
                }
                causes.push(self.step(found, i));
                taken = self.took_following;
            }
            self.close_after(step);
            self.sunk = step.flags_after.filter(|_| step.flags_wanted_after);
            match self.end.take() {
                Some(End::Jump(to)) => self.go_to(step.offset, to),
                Some(End::Indirect) => {}
                None => self.go_on(found, i),
            }
        }
        self.first_rounds(found, interpreted);
        self.finish_stubs();
        self.asm.bind(interpret);
        self.interpret_in_loop();
        self.asm.finish();
        causes
    }

    /// Emits one instruction.
    fn step(&mut self, found: &Loop, i: usize) -> Option<Cause> {
        let step = &found.steps[i];
        self.extents = step.extents;
        self.window = step.window.filter(|_| !step.on_trial);
        self.trial = step.window.filter(|_| step.on_trial);
        // With the MMU off there are no windows.
        self.paced = step.paced && !self.strict_memory;
        self.stride = step.stride;
        let after = found.after(i);
        self.following = after.filter(|s| !s.target).map(|s| s.word);
        let ahead = found.straight_from(i).map(|step| step.word);
        self.ahead.clear();
        self.ahead.extend(ahead.take(AHEAD));
        self.straight = self.ahead.len();
        self.leaves_after = after.is_none();
        self.flags_unstored = step.flags == Flags::Unstored;
        let dead = step.flags != Flags::Kept;
        self.instruction(step.word, step.offset, dead).0
    }

    /// Ends windows that an instruction's result ends.
    fn close_after(&mut self, step: &Step) {
        for i in (0..WINDOWS).filter(|i| step.closes >> i & 1 != 0) {
            self.asm.store_constant(8, frame::window(i).limit, 0);
        }
    }

    /// What is executed once where flags come from elsewhere, up to where they do not matter any more.
    fn first_rounds(&mut self, found: &Loop, interpreted: &[bool]) {
        for (from, step) in found.steps.iter().enumerate() {
            let label = self.entry(step.offset.into()).and_then(|e| e.first_round);
            let Some((label, end)) = label.zip(found.first_round(from, interpreted)) else {
                continue;
            };
            self.asm.bind(label);
            self.forget_the_past();
            self.sunk = None;
            let mut taken = false;
            for i in from..end {
                if !std::mem::take(&mut taken) {
                    self.step(found, i);
                    taken = self.took_following;
                }
                self.close_after(&found.steps[i]);
            }
            if let Some(resumed) = self.label_in_loop(found.steps[end].offset.into()) {
                self.asm.jmp(resumed);
            }
        }
    }

    /// Goes on after an instruction: leaves the loop if what follows is outside.
    fn go_on(&mut self, found: &Loop, index: usize) {
        let Some(next) = found.after(index) else {
            self.store_sunk_now();
            let next = found.steps[index].offset + 4;
            return self.leave_to(next.into());
        };
        if next.expects_flags(self.sunk) {
            return;
        }
        self.store_sunk_now();
        if let Some(entry) = self.entry(next.offset.into()).copied()
            && next.flags_before.is_some()
        {
            self.asm.jmp(entry.label_for(None));
        }
    }

    /// Where an instruction begins that is jumped to in the loop.
    pub(super) fn entry(&self, to: i64) -> Option<&Entry> {
        let inside = self.in_loop.as_ref()?;
        inside.entries.iter().find(|e| i64::from(e.offset) == to)
    }

    /// The label of an instruction that is jumped to in the loop.
    pub(super) fn label_in_loop(&self, to: i64) -> Option<Label> {
        self.entry(to).map(|entry| entry.label)
    }

    /// Guest registers that live in another host register than between blocks, or in one where they do not.
    fn moved(&self) -> Vec<(u8, Reg)> {
        let between = Homes::between_blocks();
        let all = (0..32u8).zip(self.homes.general.iter().zip(between.general));
        all.filter_map(|(n, (home, other))| home.filter(|_| *home != other).map(|reg| (n, reg)))
            .collect()
    }

    /// Those that have no home here, but do between blocks.
    fn displaced(&self) -> Vec<(u8, Reg)> {
        let has_home = |n: u8| self.homes.general[usize::from(n)].is_some();
        PINNED.into_iter().filter(|(n, _)| !has_home(*n)).collect()
    }

    /// From where registers are between blocks to where they are in the loop.
    fn enter_loop(&mut self) {
        for (n, reg) in self.displaced() {
            self.asm.store(8, frame::general(n), reg);
        }
        for (n, reg) in self.moved() {
            self.asm.load(true, reg, frame::general(n));
        }
        self.load_vectors();
        self.close_windows(0);
        self.fund_trials();
        self.load_pending();
    }

    /// Has the address of what is polled in its register, if it has one.
    fn load_pending(&mut self) {
        if let Some(reg) = self.homes.pending {
            self.asm.load(true, reg, frame::PENDING);
        }
    }

    /// Compares what is polled with zero.
    pub(super) fn poll(&mut self) {
        let reg = match self.homes.pending {
            Some(reg) => reg,
            None => {
                self.asm.load(true, RAX, frame::PENDING);
                RAX
            }
        };
        self.asm.alu_constant(Alu::Cmp, false, Mem::at(reg, 0), 0);
    }

    /// Forgets the pages that are kept. `pushed`: bytes on the stack.
    fn close_windows(&mut self, pushed: i32) {
        let windows = self.in_loop.as_ref().map_or(0, |l| l.windows);
        for i in 0..windows {
            let limit = frame::window(i).limit;
            let limit = Mem::at(limit.base, limit.disp + pushed);
            self.asm.store_constant(8, limit, 0);
        }
    }

    fn fund_trials(&mut self) {
        let (windows, trials) = self
            .in_loop
            .as_ref()
            .map_or((0, 0), |l| (l.windows, l.trials));
        for i in windows - trials..windows {
            self.asm.store_constant(8, frame::window(i).budget, BUDGET);
        }
    }

    /// The other way, if this is a loop. RAX stays.
    pub(super) fn leave_loop(&mut self) {
        let Some(inside) = &self.in_loop else {
            return;
        };
        let writes = inside.writes;
        for (n, reg) in self.moved() {
            if writes >> n & 1 != 0 {
                self.asm.store(8, frame::general(n), reg);
            }
        }
        for (n, reg) in self.displaced() {
            self.asm.load(true, reg, frame::general(n));
        }
        self.store_vectors();
    }

    fn load_vectors(&mut self) {
        for n in 0..32u8 {
            if let Some(xmm) = self.homes.vectors[usize::from(n)] {
                self.asm.vector2(LOAD, xmm, frame::vector(n));
            }
        }
    }

    fn store_vectors(&mut self) {
        let writes = self.in_loop.as_ref().map_or(0, |l| l.vector_writes);
        for n in 0..32u8 {
            if writes >> n & 1 != 0
                && let Some(xmm) = self.homes.vectors[usize::from(n)]
            {
                self.asm.vector2(STORE, xmm, frame::vector(n));
            }
        }
    }

    /// What instructions of the loop call to be executed by the interpreter, with RSI and RDX as
    /// [`Thunks::interpret`](super::emitter::Thunks::interpret) has them.
    fn interpret_in_loop(&mut self) {
        let homes = self.homes.general;
        let homes = (0..32u8)
            .zip(homes)
            .filter_map(|(n, home)| Some((n, home?)));
        let homes: Vec<(u8, Reg)> = homes.collect();
        for &(n, reg) in &homes {
            self.asm.store(8, frame::general(n), reg);
        }
        self.store_vectors();
        self.asm.store_mxcsr(frame::MXCSR);
        self.asm.alu_constant(Alu::Sub, true, RSP, 8);
        self.asm.lea(true, RDI, frame::MACHINE);
        self.asm
            .constant(RAX, self.thunks.interpret_function as u64);
        self.asm.call_indirect(Rm::Reg(RAX));
        self.asm.alu_constant(Alu::Add, true, RSP, 8);
        self.asm.alu_constant(Alu::Cmp, true, RAX, 1);
        self.asm.jcc_to(Cc::Ne, self.thunks.interpreted);
        for &(n, reg) in &homes {
            self.asm.load(true, reg, frame::general(n));
        }
        self.load_vectors();
        // The translation of any page may have changed.
        self.close_windows(8);
        self.load_pending();
        self.asm.load_mxcsr(frame::MXCSR_START);
        self.asm.ret();
    }
}
