//! Commands, status and query table of the Basic Command Set 0x0001 (Intel "Common Flash Interface (CFI) and Command
//! Sets", application note 646; JEDEC JESD68.01), as the parts Intel StrataFlash J3 and P30 have them.

/// Read array.
pub const READ_ARRAY: u8 = 0xff;
/// Reset of the other command set, which probing drivers write too.
pub const RESET_AMD: u8 = 0xf0;
pub const READ_IDENTIFIER: u8 = 0x90;
pub const READ_QUERY: u8 = 0x98;
pub const READ_STATUS: u8 = 0x70;
pub const CLEAR_STATUS: u8 = 0x50;
pub const PROGRAM: u8 = 0x40;
/// The same by another number.
pub const PROGRAM_ALTERNATE: u8 = 0x10;
pub const WRITE_TO_BUFFER: u8 = 0xe8;
pub const BLOCK_ERASE: u8 = 0x20;
/// Confirms an erase, a buffer or an unlock; resumes.
pub const CONFIRM: u8 = 0xd0;
pub const SUSPEND: u8 = 0xb0;
/// First half of the lock commands.
pub const LOCK_SETUP: u8 = 0x60;
pub const LOCK: u8 = 0x01;
pub const LOCK_DOWN: u8 = 0x2f;
/// Program a protection register, of which there are none.
pub const PROTECTION_PROGRAM: u8 = 0xc0;

/// Status: ready.
pub const SR_READY: u8 = 1 << 7;
/// Erase or lock error; with [`SR_PROGRAM_ERROR`]: wrong command sequence.
pub const SR_ERASE_ERROR: u8 = 1 << 5;
pub const SR_PROGRAM_ERROR: u8 = 1 << 4;
/// The block is protected.
pub const SR_PROTECTED: u8 = 1 << 1;

/// Identifier codes by word address within a block.
pub const ID_MANUFACTURER: u32 = 0;
pub const ID_DEVICE: u32 = 1;
/// Bit 0: the block is locked.
pub const ID_LOCK: u32 = 2;

/// Intel.
pub const MANUFACTURER: u16 = 0x89;
/// What QEMU's board has there.
pub const DEVICE: u16 = 0x18;

/// Bytes of one chip's erase block; two chips make a sector of 256 KiB.
pub const BLOCK_SIZE: u64 = 128 << 10;
/// Words of 16 bits that a chip's write buffer takes: 2 KiB.
pub const BUFFER_WORDS: u16 = 1024;

/// The query table of a chip of `size` bytes, from word address 0 on (JESD68.01, 4.3).
pub fn query(size: u64) -> [u8; 0x60] {
    let mut q = [0; 0x60];
    q[0x10..0x13].copy_from_slice(b"QRY");
    // Primary command set 1, whose extended table is at 0x31.
    q[0x13] = 0x01;
    q[0x15] = 0x31;
    // Vcc from 4.5 to 5.5 V.
    q[0x1b] = 0x45;
    q[0x1c] = 0x55;
    // Typical times as powers of two: word 128 µs, buffer 128 µs, erase 1 ms; at most 16 times that.
    q[0x1f..0x22].copy_from_slice(&[0x07, 0x07, 0x0a]);
    q[0x23..0x26].copy_from_slice(&[0x04, 0x04, 0x04]);
    // Bytes, as a power of two.
    q[0x27] = size.trailing_zeros() as u8;
    // 8 or 16 bits wide.
    q[0x28] = 0x02;
    // Bytes of the write buffer, as a power of two.
    q[0x2a] = (BUFFER_WORDS * 2).trailing_zeros() as u8;
    // One region of equal blocks: their number less one, their size in units of 256 bytes.
    q[0x2c] = 1;
    q[0x2d..0x2f].copy_from_slice(&((size / BLOCK_SIZE - 1) as u16).to_le_bytes());
    q[0x2f..0x31].copy_from_slice(&((BLOCK_SIZE / 256) as u16).to_le_bytes());
    // Extended table, version 1.0, no optional feature; one protection field.
    q[0x31..0x36].copy_from_slice(b"PRI10");
    q[0x3f] = 1;
    q
}
