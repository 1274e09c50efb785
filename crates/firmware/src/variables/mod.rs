//! UEFI variables as EDK II keeps them in flash, and Secure Boot's keys among them.
//!
//! - [`Store`] reads and writes the image that is flash 1: a firmware volume with an authenticated variable store (EDK II,
//!   `Guid/VariableFormat.h`; PI Specification 1.8, volume 3).
//! - [`keys`] makes signature lists of certificates (UEFI Specification 2.10, 32.4.1), and the variables that put a
//!   machine into Secure Boot's user mode.

pub mod guid;
pub mod keys;
mod store;
#[cfg(test)]
mod tests;

pub use guid::Guid;
pub use store::{Attributes, Store, StoreError, Variable};
