//! What a translator needs for its code to go between exception levels and address spaces by itself.

use crate::debug::mdscr;
use crate::exception::pstate;
use crate::tlbi::Invalidation;

use super::Interpreter;
use super::tlb::{Entry, Regime};

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

    /// [`Interpreter::code_version`] of EL0 in the present address space.
    pub fn user_version(&self) -> u64 {
        self.tlb.version(Regime::User)
    }

    /// The exception level, the stack pointer in use or PSTATE were changed in the state.
    pub fn crossed(&mut self) {
        self.core.refresh();
        self.retarget();
    }

    /// MSR of TTBR0_EL1 or TTBR1_EL1 at EL1, but for the PC; false, and nothing is done, if that is not all there is to it.
    pub fn write_table_base(&mut self, register: u16, value: u64) -> bool {
        let plain = self.core.hypervisor.is_none();
        if plain {
            self.core.write_control(register, value);
            self.retarget();
        }
        plain
    }

    /// TLBI at EL1, but for the PC; whether it is one.
    pub fn invalidate_translations(&mut self, register: u16, value: u64) -> bool {
        let Some((invalidation, broadcast)) = Invalidation::decode(register, value) else {
            return false;
        };
        self.core.invalidate(invalidation, broadcast, &mut self.tlb);
        self.forget_code();
        true
    }

    /// IC IVAU where it is permitted; false, and nothing is done, if the TLB does not know the address, or that is not all
    /// there is to it.
    pub fn invalidate_line(&mut self, address: u64) -> bool {
        let set = self.tlb.set(self.regime);
        let known = Entry::holds(set.entry(address).read, address);
        let plain = known && self.core.hypervisor.is_none();
        if plain {
            let physical = set.details(address).physical | address & 0xfff;
            // A line of 64 bytes: CTR_EL0.IminLine.
            self.world().space().code().written(physical & !63, 64);
        }
        plain
    }

    /// MRS at EL1 of a register of the interrupt controller; `None`, and nothing is done, if that is not all there is to it.
    pub fn read_interrupt_register(&mut self, register: u16) -> Option<u64> {
        if self.core.hypervisor.is_some() {
            return None;
        }
        self.world().read_system_register(self.core.index, register)
    }

    /// MSR of the same.
    pub fn write_interrupt_register(&mut self, register: u16, value: u64) -> Option<()> {
        if self.core.hypervisor.is_some() {
            return None;
        }
        self.world()
            .write_system_register(self.core.index, register, value)
    }
}
