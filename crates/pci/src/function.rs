//! What a device on the bus implements.

use device::{Access, Device};

use crate::Endpoint;

/// A PCI function. Nothing of the bus or of the endpoint is locked while one of these is called.
///
/// Offsets are relative to the BAR, and an access never crosses its end. The MSI-X table and PBA never reach the device.
pub trait Function: Device {
    /// Its configuration space.
    fn endpoint(&self) -> &Endpoint;

    /// A read of a BAR, as [`device::Mmio::read`].
    fn read_bar(&self, bar: u8, access: Access) -> u64;

    /// A write to a BAR, as [`device::Mmio::write`].
    fn write_bar(&self, bar: u8, access: Access, value: u64);

    /// The guest reads configuration space in this range: `Some` answers in the place of what the endpoint holds. For
    /// registers whose reads do something (virtio's access through configuration space).
    fn config_read(&self, _offset: u16, _width: u8) -> Option<u32> {
        None
    }

    /// The guest wrote configuration space in this range (the command register, a capability of the device's own); the
    /// endpoint has taken it in.
    fn config_written(&self, _offset: u16, _width: u8) {}
}
