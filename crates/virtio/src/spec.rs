//! Registers, bits and numbers of the specification.

/// Device status bits (VIRTIO 2.1).
pub mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const DEVICE_NEEDS_RESET: u8 = 64;
    pub const FAILED: u8 = 128;
}

/// Feature bits of no particular device (VIRTIO 6, 6.3).
pub mod feature {
    pub const ANY_LAYOUT: u64 = 1 << 27;
    pub const RING_INDIRECT_DESC: u64 = 1 << 28;
    pub const RING_EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
}

/// Descriptor flags (VIRTIO 2.7.5).
pub mod descriptor {
    pub const NEXT: u16 = 1;
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
    /// Bytes of a descriptor.
    pub const SIZE: u64 = 16;
}

/// Available ring flag: no interrupts, please (VIRTIO 2.7.6).
pub const AVAIL_F_NO_INTERRUPT: u16 = 1;

/// The vector that stands for none (VIRTIO 4.1.5.1.2).
pub const NO_VECTOR: u16 = 0xffff;

/// ISR status bits (VIRTIO 4.1.4.5).
pub mod isr {
    pub const QUEUE: u8 = 1;
    pub const CONFIGURATION: u8 = 2;
}

/// Types of PCI capability (VIRTIO 4.1.4).
pub mod capability {
    pub const COMMON: u8 = 1;
    pub const NOTIFY: u8 = 2;
    pub const ISR: u8 = 3;
    pub const DEVICE: u8 = 4;
    pub const PCI: u8 = 5;
    /// From the start of the PCI configuration access capability.
    pub const PCI_BAR: u16 = 4;
    pub const PCI_OFFSET: u16 = 8;
    pub const PCI_LENGTH: u16 = 12;
    pub const PCI_DATA: u16 = 16;
}

/// The common configuration structure (VIRTIO 4.1.4.3).
pub mod common {
    pub const DEVICE_FEATURE_SELECT: u64 = 0x00;
    pub const DEVICE_FEATURE: u64 = 0x04;
    pub const DRIVER_FEATURE_SELECT: u64 = 0x08;
    pub const DRIVER_FEATURE: u64 = 0x0c;
    pub const CONFIG_MSIX_VECTOR: u64 = 0x10;
    pub const NUM_QUEUES: u64 = 0x12;
    pub const DEVICE_STATUS: u64 = 0x14;
    pub const CONFIG_GENERATION: u64 = 0x15;
    pub const QUEUE_SELECT: u64 = 0x16;
    pub const QUEUE_SIZE: u64 = 0x18;
    pub const QUEUE_MSIX_VECTOR: u64 = 0x1a;
    pub const QUEUE_ENABLE: u64 = 0x1c;
    pub const QUEUE_NOTIFY_OFF: u64 = 0x1e;
    pub const QUEUE_DESC: u64 = 0x20;
    pub const QUEUE_DRIVER: u64 = 0x28;
    pub const QUEUE_DEVICE: u64 = 0x30;
    /// Bytes, without the fields that belong to features that are not offered.
    pub const SIZE: usize = 0x38;
}

/// The legacy interface's I/O BAR (Virtio PCI Card Specification 0.9.5, 2.2.2; VIRTIO 4.1.4.10).
pub mod legacy {
    pub const DEVICE_FEATURES: u64 = 0;
    pub const DRIVER_FEATURES: u64 = 4;
    pub const QUEUE_ADDRESS: u64 = 8;
    pub const QUEUE_SIZE: u64 = 12;
    pub const QUEUE_SELECT: u64 = 14;
    pub const QUEUE_NOTIFY: u64 = 16;
    pub const DEVICE_STATUS: u64 = 18;
    pub const ISR_STATUS: u64 = 19;
    /// Only while MSI-X is on.
    pub const CONFIG_MSIX_VECTOR: u64 = 20;
    /// Only while MSI-X is on.
    pub const QUEUE_MSIX_VECTOR: u64 = 22;
    /// Where the device's configuration begins, without MSI-X and with it.
    pub const CONFIG: u64 = 20;
    pub const CONFIG_MSIX: u64 = 24;
    /// Alignment of the used ring, and the unit of QUEUE_ADDRESS.
    pub const ALIGN: u64 = 4096;
}
