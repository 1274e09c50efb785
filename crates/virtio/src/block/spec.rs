//! Numbers of the block device (VIRTIO 5.2).

/// Feature bits (VIRTIO 5.2.3).
pub mod feature {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const GEOMETRY: u64 = 1 << 4;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// Offsets in the configuration (VIRTIO 5.2.4).
pub const CAPACITY: usize = 0;
pub const SEG_MAX: usize = 12;
pub const CYLINDERS: usize = 16;
pub const HEADS: usize = 18;
pub const BLK_SIZE: usize = 20;
pub const PHYSICAL_BLOCK_EXP: usize = 24;
pub const MIN_IO_SIZE: usize = 26;
pub const WRITEBACK: usize = 32;
pub const NUM_QUEUES: usize = 34;
pub const MAX_DISCARD_SECTORS: usize = 36;
pub const MAX_DISCARD_SEG: usize = 40;
pub const DISCARD_SECTOR_ALIGNMENT: usize = 44;
pub const MAX_WRITE_ZEROES_SECTORS: usize = 48;
pub const MAX_WRITE_ZEROES_SEG: usize = 52;
pub const WRITE_ZEROES_MAY_UNMAP: usize = 56;
/// Bytes of the configuration.
pub const CONFIG_SIZE: usize = 60;

/// Sectors of one range to discard or zero: 2 GiB.
pub const MAX_SECTORS: u32 = 0x3f_ffff;
/// Ranges of one request to discard or zero.
pub const MAX_SEGMENTS: u32 = 16;

/// Request types (VIRTIO 5.2.6).
pub const T_IN: u32 = 0;
pub const T_OUT: u32 = 1;
pub const T_FLUSH: u32 = 4;
pub const T_GET_ID: u32 = 8;
pub const T_DISCARD: u32 = 11;
pub const T_WRITE_ZEROES: u32 = 13;

/// Status of a request.
pub const S_OK: u8 = 0;
pub const S_IOERR: u8 = 1;
pub const S_UNSUPP: u8 = 2;

/// Bytes of a request's header: type, reserved, sector.
pub const HEADER_SIZE: usize = 16;
/// Bytes of what GET_ID gives.
pub const ID_SIZE: usize = 20;
/// Bytes of a range to discard or zero: sector, count, flags.
pub const RANGE_SIZE: usize = 16;
/// Flag of a range: its space may be given back.
pub const RANGE_UNMAP: u32 = 1;
/// The unit of all addresses.
pub const SECTOR: u64 = 512;
