//! What a translator needs for its code to go between exception levels and address spaces by itself.

use crate::debug::mdscr;
use crate::exception::pstate;

use super::Interpreter;
use super::tlb::Regime;

/// What the translation of code at EL0, and at EL1 on its own stack pointer, depends on beside
/// [`Interpreter::code_versions`]; and what PSTATE becomes on the way from one to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    sctlr: u64,
    cpacr: u64,
    fpcr: u32,
    /// The present ASID.
    pub asid: u16,
}

impl Interpreter {
    /// What is around crossings between exception levels; `None` if those do more than change PSTATE, the stack pointer and
    /// the registers that tell of an exception.
    pub fn surroundings(&self) -> Option<Surroundings> {
        let core = &self.core;
        let debugs = core.state.debug.mdscr & (mdscr::SS | mdscr::MDE) != 0;
        if debugs || core.counts_some_level_only() || core.hypervisor.is_some() {
            return None;
        }
        Some(Surroundings {
            sctlr: core.state.sctlr[1],
            cpacr: core.state.cpacr[1],
            fpcr: core.state.fpcr,
            asid: self.tlb.address_space(),
        })
    }

    /// Bits of PSTATE that an exception to EL1 keeps, bits that it sets, and bits of SPSR that an exception return that is
    /// legal takes. PSTATE.SS is none of them.
    pub fn pstate_in_crossings(&self) -> (u32, u32, u32) {
        let (keeps, sets) = self.core.pstate_on_entry();
        (keeps, sets, self.core.pstate_bits() & !pstate::SS)
    }

    /// Sets of data accesses of EL1, with PSTATE.PAN clear and set.
    pub fn kernel_sets(&self) -> [*const u8; 2] {
        [false, true].map(|pan| {
            let set = self.tlb.pointer(Regime::Kernel { pan });
            set.as_ptr().cast_const().cast()
        })
    }

    /// The exception level, the stack pointer in use or PSTATE were changed in the state.
    pub fn crossed(&mut self) {
        self.core.refresh();
        self.retarget();
    }
}
