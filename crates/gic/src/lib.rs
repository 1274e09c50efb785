//! Arm's Generic Interrupt Controller.
//!
//! - [`v3::Gicv3`]: distributor, redistributors, CPU interfaces by system registers, and an ITS if configured
//!   (Arm IHI 0069, GICv3).
//! - [`v2::Gicv2`]: distributor and memory-mapped CPU interfaces (Arm IHI 0048, GICv2).
//! - [`v2m`]: the frame that turns message-signalled interrupts into SPIs (Arm Base System Architecture, appendix
//!   on GICv2m), with either of them.
//!
//! The board and the engines see an [`InterruptController`] and drive its inputs by lines; its outputs are each
//! processor's IRQ and FIQ lines, [`CpuLines`]. Both are states of one kind: [`bank::Bank`] has what an interrupt has
//! in either version.

pub mod bank;
mod inputs;
mod outputs;
#[cfg(test)]
mod random;
pub mod v2;
pub mod v2m;
pub mod v3;

use std::sync::Arc;

use device::{Device, Line, Mmio, Msi};

/// An interrupt controller, whoever provides it.
pub trait InterruptController: Device {
    /// What the board is to map: every register frame with its address and size.
    fn frames(&self) -> Vec<Frame>;

    /// The input of SPI `n` (INTID 32 + `n`). One that does not exist leads nowhere.
    fn spi(&self, n: u32) -> Line;

    /// The input of a private interrupt, INTID 16 to 31, of one processor. One that does not exist leads nowhere.
    fn ppi(&self, cpu: u32, intid: u32) -> Line;

    /// Reads a system register of processor `cpu`'s CPU interface. `register` is [`system_register`]'s encoding.
    /// `None`: not there (or write-only): UNDEFINED.
    fn read_system_register(&self, cpu: u32, register: u32) -> Option<u64>;

    /// Writes one. `None`: not there (or read-only): UNDEFINED.
    fn write_system_register(&self, cpu: u32, register: u32, value: u64) -> Option<()>;

    /// Takes a message. One that is for neither the v2m frame nor the ITS is dropped.
    fn msi(&self, message: Msi);
}

/// A register frame and where it lies.
#[derive(Clone)]
pub struct Frame {
    /// A name for logs.
    pub name: &'static str,
    /// Physical address.
    pub base: u64,
    /// Bytes.
    pub size: u64,
    /// Who answers.
    pub mmio: Arc<dyn Mmio>,
}

/// One processor's interrupt inputs.
///
/// They follow the interrupt that is to be taken whatever the processor's PSTATE masks say: a WFI wakes by them. A line
/// is set only when its level changes, with no lock of the interrupt controller's state held; what is behind it must
/// not call the interrupt controller back.
#[derive(Clone, Debug)]
pub struct CpuLines {
    pub irq: Line,
    pub fiq: Line,
}

impl CpuLines {
    /// Lines that lead nowhere.
    pub fn unconnected() -> CpuLines {
        CpuLines {
            irq: Line::unconnected(),
            fiq: Line::unconnected(),
        }
    }
}

/// A system register's encoding as one number: op0 << 14 | op1 << 11 | CRn << 7 | CRm << 3 | op2, the order of the
/// fields in MSR and MRS.
pub const fn system_register(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> u32 {
    op0 << 14 | op1 << 11 | crn << 7 | crm << 3 | op2
}

/// Why a snapshot's state does not fit this interrupt controller.
#[derive(Debug, thiserror::Error)]
#[error("the interrupt controller's state does not fit: {what} is {found}, not {expected}")]
pub struct StateError {
    /// What is of a different size.
    pub what: &'static str,
    /// In the state.
    pub found: usize,
    /// In this machine.
    pub expected: usize,
}

/// SPIs, INTIDs 32 to 287, as on QEMU's `virt` board.
pub const SPIS: u32 = 256;
/// Banks of SPIs.
pub(crate) const SPI_BANKS: usize = SPIS as usize / 32;
/// The private interrupts' end: SGIs are 0 to 15, PPIs 16 to 31.
pub(crate) const FIRST_SPI: u32 = 32;
/// "No pending interrupt", IHI 0069 section 2.2.1.
pub(crate) const SPURIOUS: u32 = 1023;
