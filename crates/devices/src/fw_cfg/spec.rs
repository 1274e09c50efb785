//! The interface, as in "QEMU Firmware Configuration (fw_cfg) Device" (qemu.org, Specifications): registers of the
//! memory-mapped form, keys, the directory and the DMA descriptor.

/// Data register: 1 to 8 bytes a read, in the item's order.
pub const DATA: u64 = 0;
/// Selector register: 16 bits, big-endian.
pub const SELECTOR: u64 = 8;
/// DMA address register: 64 bits, big-endian; the lower half starts the transfer.
pub const DMA: u64 = 16;
/// Size of the register block in bytes.
pub const SIZE: u64 = 0x18;

/// What the DMA register reads, big-endian: "QEMU CFG".
pub const DMA_SIGNATURE: u64 = 0x5145_4d55_2043_4647;

/// Selector: a write is meant, which the data register no longer takes.
pub const KEY_WRITE: u16 = 1 << 14;

/// Keys of the fixed items.
pub mod key {
    /// "QEMU".
    pub const SIGNATURE: u16 = 0x00;
    /// Bit 0: the traditional interface; bit 1: DMA. 32 bits.
    pub const FEATURES: u16 = 0x01;
    /// 16 bytes.
    pub const UUID: u16 = 0x02;
    /// Bytes of RAM; 64 bits.
    pub const RAM_SIZE: u16 = 0x03;
    /// 1: no graphical console. 16 bits.
    pub const NO_GRAPHIC: u16 = 0x04;
    /// Processors; 16 bits.
    pub const CPUS: u16 = 0x05;
    pub const KERNEL_ADDRESS: u16 = 0x07;
    /// 32 bits.
    pub const KERNEL_SIZE: u16 = 0x08;
    pub const INITRD_ADDRESS: u16 = 0x0a;
    /// 32 bits.
    pub const INITRD_SIZE: u16 = 0x0b;
    /// 16 bits.
    pub const BOOT_MENU: u16 = 0x0e;
    /// 16 bits.
    pub const MAX_CPUS: u16 = 0x0f;
    pub const KERNEL_DATA: u16 = 0x11;
    pub const INITRD_DATA: u16 = 0x12;
    /// 32 bits, with the closing NUL.
    pub const COMMAND_LINE_SIZE: u16 = 0x14;
    pub const COMMAND_LINE: u16 = 0x15;
    /// Set-up part of an x86 kernel; empty here.
    pub const SETUP_SIZE: u16 = 0x17;
    pub const SETUP_DATA: u16 = 0x18;
    /// The directory.
    pub const FILE_DIRECTORY: u16 = 0x19;
    /// The first file.
    pub const FIRST_FILE: u16 = 0x20;
    /// One past the last key there can be.
    pub const END: u16 = 0x4000;
}

/// [`key::FEATURES`]: both interfaces.
pub const FEATURES: u32 = 3;

/// Bytes of a directory entry: size, key, reserved, name.
pub const DIRECTORY_ENTRY: usize = 64;
/// Bytes of a file's name with its closing NUL.
pub const FILE_NAME: usize = 56;

/// DMA control: the transfer failed.
pub const CONTROL_ERROR: u32 = 1 << 0;
pub const CONTROL_READ: u32 = 1 << 1;
pub const CONTROL_SKIP: u32 = 1 << 2;
/// Select the key in the upper half first.
pub const CONTROL_SELECT: u32 = 1 << 3;
pub const CONTROL_WRITE: u32 = 1 << 4;
