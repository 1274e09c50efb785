//! Makes blocks: from guest instructions to code in the cache.
#![allow(unsafe_code)] // guest instructions by their host address

use cpu::{Code, Flow, Interpreter, semantics};
use memory::Code as Marks;

use super::cache::{BLOCK_BYTES, BlockId};
use super::emit::Never;
use super::frame::Machine;

impl Machine {
    /// Makes the block that starts at an offset into the page of code at the PC.
    pub(super) fn translate(&mut self, code: Code, offset: u32) -> BlockId {
        let key = *self.interpreter.core().key();
        let mut limit = self.side.limit;
        loop {
            let origin = self.side.cache.reserve();
            self.side.emitter.start(origin, &key);
            let count = self.emit_block(code, offset, limit);
            if self.side.emitter.asm.bytes.len() > BLOCK_BYTES {
                // A single instruction takes a fraction of that.
                limit = limit.div_ceil(2);
                continue;
            }
            self.side.counters.translations += 1;
            self.side.counters.name(&self.side.emitter.causes);
            self.side.counters.instructions += u64::from(count);
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
            return self.side.cache.place(
                page,
                offset,
                count,
                &mut emitter.asm.bytes,
                &emitter.exits,
            );
        }
    }

    /// Emits up to `limit` instructions; how many.
    fn emit_block(&mut self, code: Code, offset: u32, limit: usize) -> u32 {
        let marks = self.interpreter.present_world().space().code().clone();
        let emitter = &mut self.side.emitter;
        let extensions = self.interpreter.core().key().extensions;
        let mut at = offset;
        let mut count = 0;
        while (count as usize) < limit && at < 0x1000 {
            if count == 0 || at & 63 == 0 {
                mark(&mut self.interpreter, &marks, code.physical | u64::from(at));
            }
            // SAFETY: `code.host` is a page of host memory, and this an aligned word in it.
            let word = unsafe { code.host.add(at as usize).cast::<u32>().read_volatile() };
            let word = u32::from_le(word);
            let mut flow = Flow::Next;
            let cause = emitter.instruction(word, at, false, |e| {
                let outcome: Result<Flow, Never> = match aarch64::decode(word, extensions) {
                    Some(instruction) => semantics::instruction(e, instruction, word),
                    None => semantics::undefined(e, word),
                };
                match outcome {
                    Ok(f) => flow = f,
                    Err(never) => match never {},
                }
            });
            if cause.is_some() {
                self.side.counters.given_up += 1;
            }
            at += 4;
            count += 1;
            if flow == Flow::Ends {
                break;
            }
        }
        emitter.finish(at);
        count
    }
}

/// Makes writes to the line of an instruction known, before it is read.
fn mark(interpreter: &mut Interpreter, marks: &Marks, physical: u64) {
    if marks.mark(physical, 4) == 0 {
        interpreter.protect_code(Marks::slot(physical));
    }
}
