//! What a GICv2 is made of: configuration and state, both plain.

use serde::{Deserialize, Serialize};

use super::spec::gicc;
use crate::bank::Bank;
use crate::{SPI_BANKS, SPIS};

/// What the board decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// 1 to 8. Processor `i` is bit `i` of ITARGETSR; its affinity is the board's affair (Aff0 = `i`).
    pub cpus: u32,
    /// Address of the distributor, 64 KiB.
    pub distributor: u64,
    /// Address of the CPU interface, 64 KiB.
    pub cpu_interface: u64,
    /// Address of the v2m frame, 4 KiB.
    pub v2m: Option<u64>,
}

/// Everything that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// GICD_CTLR.
    pub ctlr: u32,
    /// SPIs, 32 a bank.
    pub spis: Vec<Bank>,
    /// GICD_ITARGETSR of each SPI.
    pub targets: Vec<u8>,
    /// What each processor has.
    pub pes: Vec<Pe>,
}

/// One processor's banked registers and CPU interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pe {
    /// SGIs and PPIs. An SGI's latch is set while `sgi_sources` has any.
    pub private: Bank,
    /// For each SGI, the processors that sent it.
    pub sgi_sources: [u8; 16],
    pub ctlr: u32,
    pub pmr: u8,
    pub bpr: u8,
    pub abpr: u8,
    /// Active priorities of group 0, a bit for each of 128 levels.
    pub apr: [u32; 4],
    /// Active priorities of group 1.
    pub nsapr: [u32; 4],
}

impl State {
    /// The state at power-on. With one processor all SPIs go to it.
    pub fn power_on(config: &Config) -> State {
        State {
            ctlr: 0,
            spis: vec![Bank::shared(); SPI_BANKS],
            targets: vec![if config.cpus == 1 { 1 } else { 0 }; SPIS as usize],
            pes: (0..config.cpus).map(|_| Pe::power_on()).collect(),
        }
    }
}

impl Pe {
    /// The state at power-on. SGIs are always enabled.
    pub fn power_on() -> Pe {
        Pe {
            private: Bank {
                enabled: 0xffff,
                ..Bank::private()
            },
            sgi_sources: [0; 16],
            ctlr: 0,
            pmr: 0,
            bpr: 0,
            abpr: gicc::MINIMUM_ABPR,
            apr: [0; 4],
            nsapr: [0; 4],
        }
    }

    /// A snapshot may come from anywhere: fields are brought into the ranges that the rest relies on.
    pub(super) fn check(&mut self) {
        self.bpr &= 7;
        self.abpr = self.abpr.clamp(gicc::MINIMUM_ABPR, 7);
    }
}
