//! The distributor's registers (IHI 0069H section 12.9): one Security state, affinity routing always on.

use super::core::Core;
use super::spec::{IIDR, gicd, identification};
use crate::bank::locate;
use crate::{FIRST_SPI, SPIS};

/// The SPI and the half (0 or 1) of the IROUTER register at `offset`.
fn irouter(offset: u64) -> Option<(u32, u32)> {
    let word = offset.checked_sub(gicd::IROUTER + 8 * u64::from(FIRST_SPI))? as u32 / 4;
    (word / 2 < SPIS).then_some((word / 2, word % 2))
}

impl Core {
    pub fn read_gicd(&self, offset: u64) -> u32 {
        if let Some((n, half)) = irouter(offset) {
            return (self.state.irouter[n as usize] >> (32 * half)) as u32;
        }
        if let Some((bank, register)) = locate(offset) {
            return self.read_spis(bank, register);
        }
        match offset {
            gicd::CTLR => self.state.ctlr | gicd::CTLR_ARE | gicd::CTLR_DS,
            gicd::TYPER => {
                let lpis = if self.config.its.is_some() {
                    gicd::TYPER_LPIS
                } else {
                    0
                };
                let mbis = if self.config.message_based_spis {
                    gicd::TYPER_MBIS
                } else {
                    0
                };
                gicd::TYPER_VALUE | lpis | mbis
            }
            gicd::IIDR => IIDR,
            _ => identification(offset, 0x92),
        }
    }

    pub fn write_gicd(&mut self, offset: u64, value: u32, mask: u32) {
        if let Some((n, half)) = irouter(offset) {
            let shift = 32 * half;
            let was = self.state.irouter[n as usize];
            let now = was & !(u64::from(mask) << shift) | u64::from(value) << shift;
            self.state.irouter[n as usize] = now & gicd::IROUTER_MASK;
            self.route(n);
            return;
        }
        if let Some((bank, register)) = locate(offset) {
            self.write_spis(bank, register, value, mask);
            return;
        }
        match offset {
            gicd::CTLR => {
                let writable = (gicd::CTLR_ENABLE_GRP0 | gicd::CTLR_ENABLE_GRP1) & mask;
                self.state.ctlr = self.state.ctlr & !writable | value & writable;
                self.update_all();
            }
            gicd::SETSPI_NSR if self.config.message_based_spis => {
                self.message(value & 0x1fff, true)
            }
            gicd::CLRSPI_NSR if self.config.message_based_spis => {
                self.message(value & 0x1fff, false)
            }
            _ => {}
        }
    }
}
