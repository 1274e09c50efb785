//! The redistributors' registers (IHI 0069H sections 12.10 and 12.11).

use super::core::Core;
use super::spec::{IIDR, gicr, identification};
use crate::bank::{BankRegister, locate};

/// The bank register at `offset` of SGI_base: there is one bank.
fn sgi_register(offset: u64) -> Option<BankRegister> {
    let (bank, register) = locate(offset.checked_sub(gicr::FRAME)?)?;
    (bank == 0).then_some(register)
}

fn merge(was: u64, high: bool, value: u32, mask: u32) -> u64 {
    let shift = if high { 32 } else { 0 };
    was & !(u64::from(mask) << shift) | u64::from(value) << shift
}

impl Core {
    fn lpis(&self) -> bool {
        self.config.its.is_some()
    }

    /// Whether processor `cpu`'s redistributor is the last of its region.
    fn is_last(&self, cpu: usize) -> bool {
        let mut end = 0;
        self.config.redistributors.iter().any(|&(_, count)| {
            end += count as usize;
            cpu + 1 == end
        }) || cpu + 1 == self.cpus()
    }

    /// GICR_TYPER.
    fn gicr_typer(&self, cpu: usize) -> u64 {
        let affinity = self.config.affinities[cpu];
        let plpis = if self.lpis() { gicr::TYPER_PLPIS } else { 0 };
        let last = if self.is_last(cpu) {
            gicr::TYPER_LAST
        } else {
            0
        };
        u64::from(affinity) << 32
            | u64::from(plpis | last | gicr::TYPER_COMMON_LPI_AFF | (cpu as u32) << 8)
    }

    pub fn read_gicr(&self, cpu: usize, offset: u64) -> u32 {
        let pe = &self.state.pes[cpu];
        if let Some(register) = sgi_register(offset) {
            return self.read_private(cpu, register);
        }
        match offset {
            gicr::CTLR if self.lpis() => u32::from(pe.enable_lpis) | gicr::CTLR_CES,
            gicr::IIDR => IIDR,
            gicr::TYPER => self.gicr_typer(cpu) as u32,
            gicr::TYPER_HIGH => (self.gicr_typer(cpu) >> 32) as u32,
            gicr::WAKER => pe.waker,
            gicr::PROPBASER => pe.propbaser as u32,
            gicr::PROPBASER_HIGH => (pe.propbaser >> 32) as u32,
            gicr::PENDBASER => pe.pendbaser as u32,
            gicr::PENDBASER_HIGH => (pe.pendbaser >> 32) as u32,
            _ => identification(offset, 0x93),
        }
    }

    pub fn write_gicr(&mut self, cpu: usize, offset: u64, value: u32, mask: u32) {
        if let Some(register) = sgi_register(offset) {
            self.write_private(cpu, register, value, mask);
            return;
        }
        let lpis = self.lpis();
        let pe = self.pe(cpu);
        match offset {
            gicr::CTLR if lpis && mask & gicr::CTLR_ENABLE_LPIS != 0 => {
                self.enable_lpis(cpu, value & gicr::CTLR_ENABLE_LPIS != 0);
            }
            // Interrupts are signalled whatever it says: nothing here has power to save, and there are guests that rely
            // on firmware at EL3 having cleared it.
            gicr::WAKER if mask & gicr::WAKER_PROCESSOR_SLEEP != 0 => {
                pe.waker = match value & gicr::WAKER_PROCESSOR_SLEEP {
                    0 => 0,
                    _ => gicr::WAKER_PROCESSOR_SLEEP | gicr::WAKER_CHILDREN_ASLEEP,
                };
            }
            // With EnableLPIs set, writes are UNPREDICTABLE: ignored.
            gicr::PROPBASER | gicr::PROPBASER_HIGH if lpis && !pe.enable_lpis => {
                let high = offset == gicr::PROPBASER_HIGH;
                pe.propbaser = merge(pe.propbaser, high, value, mask) & gicr::PROPBASER_MASK;
            }
            gicr::PENDBASER | gicr::PENDBASER_HIGH if lpis && !pe.enable_lpis => {
                let high = offset == gicr::PENDBASER_HIGH;
                let written = merge(pe.pendbaser, high, value, mask);
                if high && mask >> 30 & 1 != 0 {
                    pe.pending_table_zero = written & gicr::PENDBASER_PTZ != 0;
                }
                pe.pendbaser = written & gicr::PENDBASER_MASK;
            }
            _ => {}
        }
    }
}
