//! System instructions (SYS): cache maintenance, address translation, TLB maintenance.

use aarch64::Extension;
use aarch64::esr::status;
use aarch64::registers as r;

use super::sctlr;
use crate::core::{Core, Done, Taken};
use crate::emit::Flow;
use crate::exception::{DataAccess, pstate};
use crate::mmu::{Fault, MemoryType, Purpose, Request, Translation};
use crate::tlbi::{Invalidate, Invalidation};
use crate::world::World;

impl Core {
    /// SYS but for DC ZVA: caches, TLB, address translation. Memory is coherent, so that maintenance of data caches has
    /// only its faults; that of instruction caches is for translated code.
    pub fn system(
        &mut self,
        world: &dyn World,
        tlb: &mut dyn Invalidate,
        register: u16,
        rt: u32,
        value: u64,
    ) -> Done {
        let (_, op1, crn, crm, _) = r::fields(register);
        if self.state.el == 0 && op1 != 3 {
            return Err(self.undefined());
        }
        match register {
            r::IC_IALLU | r::IC_IALLUIS => {
                tlb.invalidate(&Invalidation::AllCode);
                if register == r::IC_IALLUIS {
                    self.tell_others(Invalidation::AllCode);
                }
                Ok(Flow::Ends)
            }
            r::DC_ISW | r::DC_CSW | r::DC_CISW => Ok(Flow::Next),
            r::DC_IVAC => {
                self.check_maintenance(world, value, Purpose::Write)?;
                Ok(Flow::Next)
            }
            r::DC_CVAP if !self.features.has(Extension::DcPop) => Err(self.undefined()),
            r::IC_IVAU | r::DC_CVAC | r::DC_CVAU | r::DC_CVAP | r::DC_CIVAC => {
                if self.state.el == 0 && self.state.sctlr[1] & sctlr::UCI == 0 {
                    return Err(self.system_trap(register, rt, false));
                }
                let physical = self.check_maintenance(world, value, Purpose::Read)?;
                if register != r::IC_IVAU {
                    return Ok(Flow::Next);
                }
                // A line of 64 bytes: CTR_EL0.IminLine.
                world.space().code().written(physical & !63, 64);
                Ok(Flow::Ends)
            }
            r::AT_S1E1R | r::AT_S1E1W | r::AT_S1E0R | r::AT_S1E0W => {
                self.address_translation(world, register, value)
            }
            r::AT_S1E1RP | r::AT_S1E1WP if self.features.has(Extension::Pan) => {
                self.address_translation(world, register, value)
            }
            _ if op1 == 0 && crn == 8 && matches!(crm, 3 | 7) => {
                match Invalidation::decode(register, value) {
                    Some((invalidation, broadcast)) => {
                        self.invalidate(invalidation, broadcast, tlb);
                        Ok(Flow::Ends)
                    }
                    None => Err(self.undefined()),
                }
            }
            _ => {
                tracing::debug!(
                    cpu = self.index,
                    register = r::name(register),
                    "SYS of no instruction"
                );
                Err(self.undefined())
            }
        }
    }

    /// Whether EL0 may use DC ZVA (SCTLR_EL1.DZE); EL1 always may. Takes the trap if not.
    pub fn check_zero_block(&mut self, rt: u32) -> Result<(), Taken> {
        if self.state.el == 0 && self.state.sctlr[1] & sctlr::DZE == 0 {
            return Err(self.system_trap(r::DC_ZVA, rt, false));
        }
        Ok(())
    }

    /// Cache maintenance by address takes the faults of its translation; the physical address.
    fn check_maintenance(
        &mut self,
        world: &dyn World,
        address: u64,
        purpose: Purpose,
    ) -> Result<u64, Taken> {
        // At EL1 nothing but writing (DC IVAC) needs a permission, and PAN does not apply.
        let request = Request {
            purpose,
            el0: self.state.el == 0,
            pan: false,
            misaligned: false,
        };
        match self.translate(world.space(), address, request) {
            // A hypervisor's tables do not map it.
            Ok(found)
                if self.hypervisor.is_some()
                    && world.space().find(found.physical, false).is_none() =>
            {
                let fault = Fault {
                    status: status::EXTERNAL,
                };
                Err(self.data_abort(fault, address, DataAccess::CacheMaintenance))
            }
            Ok(found) => Ok(found.physical),
            Err(fault) => Err(self.data_abort(fault, address, DataAccess::CacheMaintenance)),
        }
    }

    /// AT: the result goes to PAR_EL1.
    fn address_translation(&mut self, world: &dyn World, register: u16, address: u64) -> Done {
        let write = matches!(register, r::AT_S1E1W | r::AT_S1E0W | r::AT_S1E1WP);
        let with_pan = matches!(register, r::AT_S1E1RP | r::AT_S1E1WP);
        let request = Request {
            purpose: if write { Purpose::Write } else { Purpose::Read },
            el0: matches!(register, r::AT_S1E0R | r::AT_S1E0W),
            pan: with_pan && self.state.pstate & pstate::PAN != 0,
            misaligned: false,
        };
        match self.probe(world.space(), address, request) {
            Err(fault) if is_external(fault) => {
                Err(self.data_abort(fault, address, DataAccess::CacheMaintenance))
            }
            result => {
                self.state.par_el1 = par(result);
                Ok(Flow::Next)
            }
        }
    }
}

fn is_external(fault: Fault) -> bool {
    fault.status & !3 == status::EXTERNAL_ON_WALK
}

/// PAR_EL1 (D17.2.113).
fn par(result: Result<Translation, Fault>) -> u64 {
    const RES1: u64 = 1 << 11;
    match result {
        Err(fault) => 1 | u64::from(fault.status) << 1 | RES1,
        Ok(t) => {
            let shareability = match t.memory {
                MemoryType::Device => 2,
                // Non-cacheable memory is outer shareable.
                MemoryType::Normal if t.attributes == 0x44 => 2,
                MemoryType::Normal => t.shareability.into(),
            };
            u64::from(t.attributes) << 56
                | t.physical & 0x0000_ffff_ffff_f000
                | RES1
                | 1 << 9
                | shareability << 7
        }
    }
}
