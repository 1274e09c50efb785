//! Offsets and bits of configuration space.

/// Vendor ID (PCI 6.2.1).
pub const VENDOR_ID: u16 = 0x00;
/// Device ID.
pub const DEVICE_ID: u16 = 0x02;
/// Command (PCI 6.2.2).
pub const COMMAND: u16 = 0x04;
/// Status (PCI 6.2.3).
pub const STATUS: u16 = 0x06;
/// Revision ID, one byte; the class code follows in three.
pub const REVISION_ID: u16 = 0x08;
/// Cache Line Size, one byte.
pub const CACHE_LINE_SIZE: u16 = 0x0c;
/// Base Address Registers, six of four bytes (PCI 6.2.5).
pub const BAR0: u16 = 0x10;
/// Subsystem Vendor ID.
pub const SUBSYSTEM_VENDOR_ID: u16 = 0x2c;
/// Subsystem ID.
pub const SUBSYSTEM_ID: u16 = 0x2e;
/// Capabilities Pointer, one byte (PCI 6.7).
pub const CAPABILITIES_POINTER: u16 = 0x34;
/// Interrupt Line, one byte.
pub const INTERRUPT_LINE: u16 = 0x3c;
/// Interrupt Pin, one byte.
pub const INTERRUPT_PIN: u16 = 0x3d;
/// Where the header ends.
pub const HEADER_END: u16 = 0x40;

/// Bytes of a conventional function's configuration space.
pub const CONVENTIONAL_SIZE: usize = 256;
/// Bytes of a PCI Express function's configuration space.
pub const EXPRESS_SIZE: usize = 4096;

/// Command: I/O Space.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command: Memory Space.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command: Bus Master.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command: Parity Error Response.
pub const COMMAND_PARITY: u16 = 1 << 6;
/// Command: SERR# Enable.
pub const COMMAND_SERR: u16 = 1 << 8;
/// Command: Interrupt Disable.
pub const COMMAND_INTERRUPT_DISABLE: u16 = 1 << 10;

/// Status: Interrupt Status.
pub const STATUS_INTERRUPT: u16 = 1 << 3;
/// Status: Capabilities List.
pub const STATUS_CAPABILITIES: u16 = 1 << 4;

/// BAR: I/O Space Indicator.
pub const BAR_IO: u32 = 1;
/// BAR: a 64-bit memory BAR.
pub const BAR_64: u32 = 2 << 1;
/// BAR: Prefetchable.
pub const BAR_PREFETCHABLE: u32 = 1 << 3;

/// Capability IDs (PCI appendix H).
pub const CAPABILITY_POWER_MANAGEMENT: u8 = 0x01;
pub const CAPABILITY_MSI: u8 = 0x05;
pub const CAPABILITY_VENDOR: u8 = 0x09;
pub const CAPABILITY_EXPRESS: u8 = 0x10;
pub const CAPABILITY_MSIX: u8 = 0x11;

/// Power Management Control/Status, from the start of the capability (PCI Power Management 1.2, 3.2.4).
pub const PMCSR: u16 = 4;
/// PMCSR: No_Soft_Reset.
pub const PMCSR_NO_SOFT_RESET: u16 = 1 << 3;

/// MSI Message Control, from the start of the capability (PCI 6.8.1.3).
pub const MSI_CONTROL: u16 = 2;
/// MSI Message Address.
pub const MSI_ADDRESS: u16 = 4;
/// MSI Message Upper Address.
pub const MSI_UPPER_ADDRESS: u16 = 8;
/// MSI Message Data, of a 64-bit capability.
pub const MSI_DATA: u16 = 12;
/// MSI Mask Bits, of a 64-bit capability.
pub const MSI_MASK: u16 = 16;
/// MSI Pending Bits, of a 64-bit capability.
pub const MSI_PENDING: u16 = 20;
/// Message Control: MSI Enable.
pub const MSI_ENABLE: u16 = 1 << 0;
/// Message Control: 64 bit address capable.
pub const MSI_64: u16 = 1 << 7;
/// Message Control: Per-vector masking capable.
pub const MSI_MASKABLE: u16 = 1 << 8;

/// MSI-X Message Control, from the start of the capability (PCI 6.8.2.3).
pub const MSIX_CONTROL: u16 = 2;
/// Message Control: Function Mask.
pub const MSIX_FUNCTION_MASK: u16 = 1 << 14;
/// Message Control: MSI-X Enable.
pub const MSIX_ENABLE: u16 = 1 << 15;
/// Bytes of an MSI-X table entry (PCI 6.8.2.6).
pub const MSIX_ENTRY_SIZE: u32 = 16;
/// Vector Control: Mask Bit.
pub const MSIX_VECTOR_MASKED: u32 = 1;

/// PCI Express Capabilities: version 2, Root Complex Integrated Endpoint (PCIe 7.5.3.2).
pub const EXPRESS_INTEGRATED_ENDPOINT: u16 = 0x0092;
/// Device Capabilities: Role-Based Error Reporting (PCIe 7.5.3.3).
pub const EXPRESS_ROLE_BASED_ERRORS: u32 = 1 << 15;
/// Device Control: what software may write (PCIe 7.5.3.4).
pub const EXPRESS_CONTROL_WRITABLE: u16 = 0x78ff;
/// Device Control after reset: Relaxed Ordering, No Snoop, reads of up to 512 bytes.
pub const EXPRESS_CONTROL_RESET: u16 = 0x2810;
