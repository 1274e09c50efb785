//! System registers: MRS, MSR and system instructions, with the traps of EL0.

use memory::AddressSpace;

use crate::Core;
use crate::core::{Done, Taken};
use crate::emit::Flow;
use crate::tlbi::Invalidate;
use crate::world::World;

impl Core {
    /// MRS of a register (encoding as [`aarch64::registers::encode`]). `rt` is the instruction's Xt, for the syndrome.
    pub fn read_register(&mut self, world: &dyn World, register: u16, rt: u32) -> Result<u64, Taken> {
        let _ = (world, register, rt);
        Err(self.undefined())
    }

    /// MSR of a register.
    pub fn write_register(&mut self, world: &dyn World, register: u16, rt: u32, value: u64) -> Done {
        let _ = (world, register, rt, value);
        Err(self.undefined())
    }

    /// MSR (immediate): `field` is op1:op2, `immediate` CRm.
    pub fn write_pstate(&mut self, field: u32, immediate: u32) -> Done {
        let _ = (field, immediate);
        Ok(Flow::Ends)
    }

    /// SYS but for DC ZVA: caches, TLB, address translation.
    pub fn system(
        &mut self,
        world: &dyn World,
        tlb: &mut dyn Invalidate,
        register: u16,
        rt: u32,
        value: u64,
    ) -> Done {
        let _: &AddressSpace = world.space();
        let _ = (tlb, register, rt, value);
        Err(self.undefined())
    }

    /// Whether EL0 may use DC ZVA (SCTLR_EL1.DZE); EL1 always may. Takes the trap if not.
    pub fn check_zero_block(&mut self, rt: u32) -> Result<(), Taken> {
        let _ = rt;
        Ok(())
    }

    /// Recomputes the timers' levels, reports changes, and arms the clock for the next deadline.
    pub(crate) fn update_timers(&mut self, world: &dyn World) {
        let _ = world;
    }

    /// How long until the next timer is due.
    pub(crate) fn time_to_deadline(&self) -> Option<std::time::Duration> {
        None
    }

    /// Whether the return to a program being stepped sets PSTATE.SS.
    pub(crate) fn step_on_return(&self, spsr: u32, el: u8) -> bool {
        let _ = (spsr, el);
        false
    }
}
