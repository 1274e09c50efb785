//! What a virtio device implements.

use std::sync::Arc;

use crate::Virtqueue;

/// Who a device is on the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceKind {
    /// Device type (VIRTIO 5): 1 network, 2 block, 4 entropy, 16 GPU …
    pub device_type: u16,
    /// PCI device ID of the transitional device, if there is one (VIRTIO 4.1.2.1).
    pub transitional: Option<u16>,
    /// PCI class: base << 16 | sub-class << 8 | interface.
    pub class: u32,
}

/// What a device gets when the driver sets DRIVER_OK.
pub struct Running {
    /// All queues; those that the driver did not enable give no chains.
    pub queues: Vec<Arc<Virtqueue>>,
    /// The features that both sides agreed on.
    pub features: u64,
    /// Which life of the device this is.
    pub epoch: u64,
}

impl Running {
    /// Whether all of these feature bits were negotiated.
    pub fn has(&self, features: u64) -> bool {
        self.features & features == features
    }
}

/// A virtio device, behind whatever transport.
///
/// All methods are called on a processor's thread and never wait for the host: they wake a worker. `start`, `stop` and the
/// configuration accesses are called with the transport locked, so they use queues and interrupts only.
pub trait VirtioDevice: Send + Sync {
    /// A short name for logs.
    fn name(&self) -> &str;

    /// Type, IDs and class.
    fn kind(&self) -> DeviceKind;

    /// Feature bits of this type of device (bits 0 to 23, and 50 up).
    fn features(&self) -> u64;

    /// The size of each queue, powers of two: how many there are and what the driver may at most ask for.
    fn queue_sizes(&self) -> Vec<u16>;

    /// Bytes of the device-specific configuration.
    fn config_size(&self) -> u64 {
        0
    }

    /// Reads the device-specific configuration; within [`VirtioDevice::config_size`].
    fn read_config(&self, _offset: u64, into: &mut [u8]) {
        into.fill(0);
    }

    /// Writes the device-specific configuration; within [`VirtioDevice::config_size`].
    fn write_config(&self, _offset: u64, _from: &[u8]) {}

    /// The driver is ready. Work that queues up from now on is the device's.
    fn start(&self, running: Arc<Running>);

    /// There may be something new in this queue. The device may also look at all.
    fn notify(&self, queue: u16);

    /// The driver (or the machine) reset the device: back to power-on state. What is in flight goes nowhere from now
    /// on; the queues see to that.
    fn stop(&self);

    /// Waits until no work is in flight. The transport lets none begin meanwhile.
    fn drain(&self) {}

    /// What of its configuration the guest changed, for a snapshot.
    fn state(&self) -> Vec<u8> {
        Vec::new()
    }

    /// Takes over what [`VirtioDevice::state`] gave; whether it fits.
    fn restore(&self, state: &[u8]) -> bool {
        state.is_empty()
    }

    /// Before the machine ends: what the host must keep is written back. May wait.
    fn shutdown(&self) {}
}
