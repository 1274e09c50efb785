//! The board's own devices: one file or folder each.
//!
//! None of them knows the machine: each holds its interrupt [`device::Line`], its DMA view, a clock and its back end,
//! and is reached through [`device::Mmio`].

pub mod flash;
pub mod fw_cfg;
pub mod ged;
pub mod pl011;
pub mod pl031;
pub mod pl061;
mod primecell;
pub mod ramfb;
