//! Where things are for the programs: one RAM of 2 MiB, mapped at its own addresses and again elsewhere.

/// RAM, and its size.
pub const RAM: u64 = 0x4000_0000;
pub const SIZE: u64 = 0x20_0000;

/// The program; read-only and executable for both exception levels.
pub const CODE: u64 = RAM;
pub const CODE_SIZE: u64 = 0x1_0000;
/// Exception vectors and their handler.
pub const VECTORS: u64 = RAM + 0x1_0000;
/// What the handler writes: a ring of 64 KiB, whose addresses have bit 16 clear.
pub const LOG: u64 = RAM + 0x2_0000;
/// The bit.
pub const LOG_END: u64 = 0x1_0000;
/// What both levels may read and write, but for two pages.
pub const DATA: u64 = RAM + 0x4_0000;
pub const DATA_SIZE: u64 = 0x1_0000;
/// Of the data: read-only.
pub const READ_ONLY: u64 = DATA + 0x8000;
/// Of the data: not mapped.
pub const HOLE: u64 = DATA + 0xc000;
/// Two pages, one of which is at [`FLIP`] at a time.
pub const FLIP_PAGES: [u64; 2] = [RAM + 0x6_0000, RAM + 0x6_1000];
pub const FLIP: u64 = RAM + 0x6_2000;
/// Translation tables: two sets that differ in what is at [`FLIP`]. Writable at these addresses.
pub const TABLES: [u64; 2] = [RAM + 0x8_0000, RAM + 0x9_0000];
/// Into a set of tables: the last level of RAM's own addresses.
pub const LAST_LEVEL: u64 = 0x2000;

/// The same memory again: code to be written, code to be executed, data.
pub const ALIAS: u64 = 0x4020_0000;
pub const WRITABLE_CODE: u64 = ALIAS;
pub const OTHER_CODE: u64 = ALIAS + 0x2_0000;
pub const OTHER_DATA: u64 = ALIAS + 0x4_0000;
/// A device: one register that remembers its last write.
pub const DEVICE: u64 = 0x4040_0000;
/// Its physical address.
pub const DEVICE_AT: u64 = 0x0900_0000;

/// Page attributes (DDI 0487, D8.3): accessed, inner shareable, Normal memory by index 0.
const PAGE: u64 = 3 | 3 << 8 | 1 << 10;
const DEVICE_MEMORY: u64 = 1 << 2;
const EL0: u64 = 1 << 6;
const READS_ONLY: u64 = 1 << 7;
const NOT_GLOBAL: u64 = 1 << 11;
const PXN: u64 = 1 << 53;
const UXN: u64 = 1 << 54;
const NO_CODE: u64 = PXN | UXN;

/// The entry for a page of [`FLIP`].
pub fn flip_entry(which: usize) -> u64 {
    FLIP_PAGES[which & 1] | PAGE | EL0 | NOT_GLOBAL | NO_CODE
}

/// Memory of the tables: (address, entry).
pub fn tables() -> Vec<(u64, u64)> {
    let mut entries = Vec::new();
    for (which, base) in TABLES.into_iter().enumerate() {
        let [level2, own, alias, device] = [0x1000, LAST_LEVEL, 0x3000, 0x4000].map(|o| base + o);
        entries.push((base + 8, level2 | 3));
        entries.push((level2, own | 3));
        entries.push((level2 + 8, alias | 3));
        entries.push((level2 + 16, device | 3));
        let mut map = |table: u64, at: u64, physical: u64, attributes: u64| {
            let index = at >> 12 & 511;
            entries.push((table + 8 * index, physical | PAGE | attributes));
        };
        for page in (0..CODE_SIZE).step_by(4096) {
            map(own, CODE + page, CODE + page, EL0 | READS_ONLY);
            map(alias, WRITABLE_CODE + page, CODE + page, NO_CODE);
            map(alias, OTHER_CODE + page, CODE + page, EL0 | READS_ONLY);
            map(own, LOG + page, LOG + page, NO_CODE);
        }
        // An entry may reach over the ring's end.
        map(own, LOG + LOG_END, LOG + LOG_END, NO_CODE);
        map(own, VECTORS, VECTORS, READS_ONLY | UXN);
        for page in (0..DATA_SIZE).step_by(4096) {
            let more = if DATA + page == READ_ONLY {
                READS_ONLY
            } else {
                0
            };
            if DATA + page != HOLE {
                map(own, DATA + page, DATA + page, EL0 | NO_CODE | more);
            }
            map(alias, OTHER_DATA + page, DATA + page, EL0 | NO_CODE);
        }
        for set in TABLES {
            for page in (0..0x5000).step_by(4096) {
                map(own, set + page, set + page, NO_CODE);
            }
        }
        map(device, DEVICE, DEVICE_AT, DEVICE_MEMORY | EL0 | NO_CODE);
        let index = FLIP >> 12 & 511;
        entries.push((own + 8 * index, flip_entry(which)));
    }
    entries
}
