//! Guest memory and the map of the guest's physical address space.
//!
//! - [`Ram`] is the guest's RAM: what devices reach by DMA, and nothing else.
//! - [`Dma`] is a device's view of it: bounds-checked copies that tell the translator what they wrote.
//! - [`Access`], [`Mmio`]: one access to a device's registers, and who answers it.
//! - [`AddressSpace`] says what lies at each physical address; processors look things up there.

mod access;
mod code;
mod map;
mod ram;

pub use access::{Access, Mmio};
pub use code::Code;
pub use map::{AddressSpace, Found, MapError, Mapping, RomDevice};
pub use ram::{Dma, DmaError, Ram, RamError, Written};
