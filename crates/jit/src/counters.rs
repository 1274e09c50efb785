//! What a translator has done.

use std::fmt;

/// Counts, since the processor was made.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// Blocks made, the guest instructions in them, and those of them that are left to the interpreter.
    pub translations: u64,
    pub instructions: u64,
    pub given_up: u64,
    /// Instructions executed by the interpreter because their code was not executed often enough to be translated.
    pub cold: u64,
    /// Loops made.
    pub loops: u64,
    /// Entries from the run loop, look-ups of addresses that the jump cache lacked, jumps linked.
    pub entries: u64,
    pub lookups: u64,
    /// Of these: because something wanted attention; because the cache's entry is of another name, or of another address.
    pub attended: u64,
    pub other_name: u64,
    pub other_address: u64,
    pub links: u64,
    /// Of the TLB, when last looked at.
    pub tlb: cpu::TlbCounts,
    /// Instructions executed by the interpreter, by cause.
    causes: Vec<(&'static str, u64)>,
}

impl Counters {
    /// Names of causes, in the order of their numbers.
    pub(crate) fn name(&mut self, causes: &[&'static str]) {
        let known = self.causes.len().min(causes.len());
        self.causes
            .extend(causes[known..].iter().map(|&name| (name, 0)));
    }

    /// An instruction is executed by the interpreter.
    pub fn fall_back(&mut self, cause: u32) {
        if let Some(cause) = self.causes.get_mut(cause as usize) {
            cause.1 += 1;
        }
    }

    /// Instructions executed by the interpreter, by cause, the most first.
    pub fn fallbacks(&self) -> Vec<(&'static str, u64)> {
        let mut causes: Vec<_> = self.causes.iter().copied().filter(|c| c.1 != 0).collect();
        causes.sort_by_key(|c| std::cmp::Reverse(c.1));
        causes
    }
}

impl fmt::Display for Counters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "translations {} and {} loops of {} instructions, {} left to the interpreter; executed cold {}",
            self.translations, self.loops, self.instructions, self.given_up, self.cold
        )?;
        writeln!(
            f,
            "entries {}, links {}, look-ups {}: attention {}, other names {}, other addresses {}",
            self.entries,
            self.links,
            self.lookups,
            self.attended,
            self.other_name,
            self.other_address
        )?;
        let tlb = &self.tlb;
        writeln!(
            f,
            "TLB refills {}; invalidations: all {}, ASID {}, address {}; address spaces switched {}",
            tlb.refills, tlb.all, tlb.asid, tlb.address, tlb.switches
        )?;
        for (cause, count) in self.fallbacks() {
            writeln!(f, "executed by the interpreter: {count} ({cause})")?;
        }
        Ok(())
    }
}
