//! Makes blocks: from guest instructions to code in the cache.
#![allow(unsafe_code)] // guest instructions by their host address

use cpu::{Code, Flow, Interpreter};
use memory::Code as Marks;

use super::cache::{self, BLOCK_BYTES, BlockId};
use super::frame::Machine;
use super::loops::Search;
use super::places::AHEAD;

impl Machine {
    /// Makes the block that starts at an offset into the page of code at the PC.
    pub(super) fn translate(&mut self, code: Code, offset: u32) -> BlockId {
        let key = *self.interpreter.core().key();
        self.side.emitter.strict_memory = !self.interpreter.translates();
        let mut limit = self.side.limit;
        loop {
            let origin = self.side.cache.reserve();
            self.side.emitter.start(origin, &key);
            self.side.emitter.counts_jumps = self.side.hot.map(|_| code.physical >> 12);
            let count = self.emit_block(code, offset, limit);
            if self.side.emitter.asm.bytes.len() > BLOCK_BYTES {
                // A single instruction takes a fraction of that.
                limit = limit.div_ceil(2);
                continue;
            }
            self.side.counters.translations += 1;
            self.side.counters.name(&self.side.emitter.causes);
            self.side.counters.instructions += u64::from(count);
            let (first, last) = (offset >> 6, (offset + 4 * count.max(1) - 4) >> 6);
            let lines = (u64::MAX << first) & (u64::MAX >> (63 - last.min(63)));
            return self.place(code, offset, lines, false);
        }
    }

    /// Has the code that was emitted executed for what is at an offset into the page of code at the PC.
    fn place(&mut self, code: Code, offset: u32, lines: u64, loops: bool) -> BlockId {
        let number = self.side.key;
        let page = match self.side.cache.page(code.physical, number) {
            Some(page) => page,
            None => {
                let space = self.interpreter.present_world().space();
                let ram = matches!(
                    space.find(code.physical, true),
                    Some(memory::Found::Memory { writable: true, .. })
                );
                self.side.cache.add_page(code.physical, number, !ram)
            }
        };
        let emitter = &mut self.side.emitter;
        let known = &mut self.side.pooled;
        self.frame.pool[*known..emitter.pool.len()].copy_from_slice(&emitter.pool[*known..]);
        *known = emitter.pool.len();
        if let Some(map) = &self.side.perf_map {
            let address = self.frame.page | u64::from(offset);
            let el = self.interpreter.core().key().el;
            map.add(emitter.asm.origin, emitter.asm.bytes.len(), el, address);
        }
        for far in emitter.exits.iter().filter_map(|exit| exit.far) {
            self.frame.patience[usize::from(far.patience)] = cache::PATIENCE;
        }
        self.side.cache.place(
            page,
            offset,
            lines,
            loops,
            &mut emitter.asm.bytes,
            &emitter.exits,
        )
    }

    /// Makes the loop with its head at an offset into the page of code at the PC, if there is one; whether there is.
    pub(super) fn translate_loop(&mut self, code: Code, offset: u32) -> bool {
        let key = *self.interpreter.core().key();
        let marks = self.interpreter.present_world().space().code().clone();
        let interpreter = &mut self.interpreter;
        let mut marked = 0u64;
        let read = |offset: u32| {
            if marked >> (offset >> 6) & 1 == 0 {
                marked |= 1 << (offset >> 6);
                mark(interpreter, &marks, code.physical | u64::from(offset));
            }
            word_at(code, offset)
        };
        let Some(mut found) = (Search { key: &key, read }).find(offset) else {
            return false;
        };
        self.side.emitter.strict_memory = !self.interpreter.translates();
        let origin = self.side.cache.reserve();
        let emitter = &mut self.side.emitter;
        let given_up = emitter.emit_loop(origin, &key, &mut found);
        self.side.counters.name(&emitter.causes);
        if emitter.asm.bytes.len() > BLOCK_BYTES {
            return false;
        }
        self.side.counters.loops += 1;
        self.side.counters.instructions += found.steps.len() as u64;
        self.side.counters.given_up += given_up as u64;
        self.place(code, offset, found.lines, true);
        true
    }

    /// Emits up to `limit` instructions; how many.
    fn emit_block(&mut self, code: Code, offset: u32, limit: usize) -> u32 {
        let marks = self.interpreter.present_world().space().code().clone();
        let emitter = &mut self.side.emitter;
        let mut at = offset;
        let mut count = 0;
        while (count as usize) < limit && at < 0x1000 {
            if count == 0 || at & 63 == 0 {
                mark(&mut self.interpreter, &marks, code.physical | u64::from(at));
            }
            let word = word_at(code, at);
            let near = AHEAD.min(limit - count as usize);
            let ahead = (at..0x1000).step_by(4).take(near);
            emitter.ahead.clear();
            emitter.ahead.extend(ahead.map(|at| word_at(code, at)));
            // Of the next line, which is not marked yet, nothing is read.
            let in_line = (64 - at as usize % 64) / 4;
            emitter.straight = in_line.min(limit - count as usize);
            emitter.following = (emitter.straight > 1).then(|| word_at(code, at + 4));
            let (cause, flow) = emitter.instruction(word, at, false);
            if cause.is_some() {
                self.side.counters.given_up += 1;
            }
            let taken = 1 + u32::from(emitter.took_following);
            at += 4 * taken;
            count += taken;
            emitter
                .ahead
                .drain(..(taken as usize).min(emitter.ahead.len()));
            if flow == Flow::Ends {
                break;
            }
        }
        emitter.finish(at);
        count
    }
}

/// The instruction at an offset into a page.
pub(super) fn word_at(code: Code, offset: u32) -> u32 {
    let offset = (offset & 0xffc) as usize;
    // SAFETY: `code.host` is a page of host memory, and this an aligned word in it.
    u32::from_le(unsafe { code.host.add(offset).cast::<u32>().read_volatile() })
}

/// Makes writes to the line of an instruction known, before it is read.
fn mark(interpreter: &mut Interpreter, marks: &Marks, physical: u64) {
    if marks.mark(physical, 4) == 0 {
        interpreter.protect_code(Marks::slot(physical));
    }
}
