//! What firmware and kernels are given: tables, trees, images and where they go.
//!
//! Everything is derived from one plain [`Board`]; nothing here touches a running machine.
//!
//! - [`acpi`] and [`smbios`]: tables, and the fw_cfg files that deliver them.
//! - [`fdt`]: the device tree.
//! - [`loader`]: kernels without firmware, and what firmware is told of them.
//! - [`images`]: where UEFI images are found on the host.
//! - [`variables`]: the store that is flash 1, and Secure Boot's keys.
//! - [`boot_order`]: devices by the names EDK II matches.

pub mod acpi;
pub mod board;
pub mod boot_order;
pub mod fdt;
pub mod images;
pub mod loader;
pub mod smbios;
pub mod variables;

pub use board::Board;
