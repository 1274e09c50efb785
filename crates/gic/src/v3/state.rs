//! What a GICv3 is made of: configuration and state, both plain.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::spec::{FIRST_LPI, INTIDS, PRIORITY_MASK, gicr, gits, icc};
use crate::bank::Bank;
use crate::{SPI_BANKS, SPIS};

/// What the board decides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Each processor's affinity, Aff3 << 24 | Aff2 << 16 | Aff1 << 8 | Aff0. At most 512, all different.
    pub affinities: Vec<u32>,
    /// Address of the distributor, 64 KiB.
    pub distributor: u64,
    /// Regions of redistributors: address, and how many there are room for (128 KiB each). Filled in order.
    pub redistributors: Vec<(u64, u32)>,
    /// Address of the ITS, 128 KiB. Without one there are no LPIs.
    pub its: Option<u64>,
    /// Address of the v2m frame, 4 KiB.
    pub v2m: Option<u64>,
    /// Whether GICD_SETSPI_NSR and GICD_CLRSPI_NSR are there (GICD_TYPER.MBIS). QEMU's board has none.
    pub message_based_spis: bool,
}

/// The affinity of processor `cpu` on QEMU's `virt` board with a GICv3: sixteen in a cluster.
pub fn affinity(cpu: u32) -> u32 {
    (cpu / 16) << 8 | (cpu % 16)
}

/// Everything that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// GICD_CTLR's group enables.
    pub ctlr: u32,
    /// SPIs, 32 a bank.
    pub spis: Vec<Bank>,
    /// GICD_IROUTER of each SPI.
    pub irouter: Vec<u64>,
    /// What each processor has.
    pub pes: Vec<Pe>,
}

/// One processor's redistributor and CPU interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pe {
    /// SGIs and PPIs.
    pub private: Bank,
    pub waker: u32,
    pub enable_lpis: bool,
    pub propbaser: u64,
    /// Without PTZ, which is kept in `pending_table_zero`.
    pub pendbaser: u64,
    pub pending_table_zero: bool,
    /// Pending LPIs and their configuration bytes, read when they became pending or were invalidated last.
    pub lpis: BTreeMap<u32, u8>,
    pub pmr: u8,
    pub bpr0: u8,
    pub bpr1: u8,
    pub ap0r: u32,
    pub ap1r: u32,
    /// ICC_CTLR_EL1's CBPR.
    pub cbpr: bool,
    /// ICC_CTLR_EL1's EOImode.
    pub eoimode: bool,
    pub igrpen0: bool,
    pub igrpen1: bool,
}

/// The ITS.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ItsState {
    pub enabled: bool,
    pub cbaser: u64,
    /// Offset of the next command that software writes.
    pub cwriter: u64,
    /// Offset of the next command to execute.
    pub creadr: u64,
    /// The queue could not be read; waits for CWRITER.Retry.
    pub stalled: bool,
    /// GITS_BASER0 (devices) and GITS_BASER1 (collections).
    pub baser: [u64; 2],
}

impl State {
    /// The state at power-on.
    pub fn power_on(config: &Config) -> State {
        State {
            ctlr: 0,
            spis: vec![Bank::shared(); SPI_BANKS],
            irouter: vec![0; SPIS as usize],
            pes: config.affinities.iter().map(|_| Pe::power_on()).collect(),
        }
    }
}

impl Pe {
    /// The state at power-on.
    pub fn power_on() -> Pe {
        Pe {
            private: Bank::private(),
            waker: gicr::WAKER_PROCESSOR_SLEEP | gicr::WAKER_CHILDREN_ASLEEP,
            enable_lpis: false,
            propbaser: 0,
            pendbaser: 0,
            pending_table_zero: false,
            lpis: BTreeMap::new(),
            pmr: 0,
            bpr0: icc::MINIMUM_BPR0,
            bpr1: icc::MINIMUM_BPR1,
            ap0r: 0,
            ap1r: 0,
            cbpr: false,
            eoimode: false,
            igrpen0: false,
            igrpen1: false,
        }
    }
}

impl ItsState {
    /// The state at power-on.
    pub fn power_on() -> ItsState {
        ItsState {
            enabled: false,
            cbaser: 0,
            cwriter: 0,
            creadr: 0,
            stalled: false,
            baser: [
                gits::BASER_DEVICES | gits::BASER_RESET,
                gits::BASER_COLLECTIONS | gits::BASER_RESET,
            ],
        }
    }
}

/// A snapshot may come from anywhere: fields are brought into the ranges that the rest relies on.
impl Pe {
    pub(super) fn check(&mut self) {
        self.pmr &= PRIORITY_MASK;
        self.bpr0 = self.bpr0.clamp(icc::MINIMUM_BPR0, 7);
        self.bpr1 = self.bpr1.clamp(icc::MINIMUM_BPR1, 7);
        self.propbaser &= gicr::PROPBASER_MASK;
        self.pendbaser &= gicr::PENDBASER_MASK;
        self.lpis
            .retain(|intid, _| (FIRST_LPI..INTIDS).contains(intid));
    }
}

/// As [`Pe::check`].
impl ItsState {
    pub(super) fn checked(self) -> ItsState {
        let fixed = [gits::BASER_DEVICES, gits::BASER_COLLECTIONS];
        let baser = |i: usize| self.baser[i] & gits::BASER_WRITABLE | fixed[i];
        ItsState {
            cbaser: self.cbaser & gits::CBASER_MASK,
            cwriter: self.cwriter & gits::QUEUE_OFFSET,
            creadr: self.creadr & gits::QUEUE_OFFSET,
            baser: [baser(0), baser(1)],
            ..self
        }
    }
}
