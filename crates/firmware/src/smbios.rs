//! SMBIOS 3.0 tables (DMTF DSP0134) and their delivery by fw_cfg.

use serde::{Deserialize, Serialize};

use crate::board::Board;

/// fw_cfg files.
pub const ANCHOR: &str = "etc/smbios/smbios-anchor";
pub const TABLES: &str = "etc/smbios/smbios-tables";

/// What the tables say beside what the board is. Empty strings are left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// Type 0.
    pub firmware: Firmware,
    /// Type 1.
    pub system: System,
    /// Type 4: what Windows' PC Health Check shows as the processor.
    pub processor: String,
    /// Processor speed in MHz.
    pub speed: u16,
}

/// Type 0 (7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firmware {
    pub vendor: String,
    pub version: String,
    /// Month/day/year.
    pub date: String,
}

/// Type 1 (7.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    pub manufacturer: String,
    pub product: String,
    pub version: String,
    pub serial: String,
    pub sku: String,
    pub family: String,
    /// As RFC 9562 has it: big-endian fields. All zero: not set.
    pub uuid: [u8; 16],
}

impl Default for Config {
    fn default() -> Self {
        Config {
            firmware: Firmware {
                vendor: "Dormer".into(),
                version: env!("CARGO_PKG_VERSION").into(),
                date: "01/01/2025".into(),
            },
            system: System {
                manufacturer: "Dormer".into(),
                product: "Dormer Virtual Machine".into(),
                version: "virt".into(),
                ..System::default()
            },
            processor: "virt".into(),
            speed: 2000,
        }
    }
}

/// Structure types.
const FIRMWARE: u8 = 0;
const SYSTEM: u8 = 1;
const CHASSIS: u8 = 3;
const PROCESSOR: u8 = 4;
const MEMORY_ARRAY: u8 = 16;
const MEMORY_DEVICE: u8 = 17;
const MEMORY_RANGE: u8 = 19;
const BOOT_INFORMATION: u8 = 32;
const END: u8 = 127;

/// Not stated.
const NO_HANDLE: u16 = 0xffff;
/// No error information structure (7.17).
const NO_ERROR: u16 = 0xfffe;

/// The fw_cfg files that carry the tables: name and contents.
pub fn files(board: &Board, config: &Config) -> [(&'static str, Vec<u8>); 2] {
    let tables = tables(board, config);
    [(ANCHOR, anchor(&tables)), (TABLES, tables)]
}

/// The 64-bit entry point (5.2.2); firmware fills in the address.
fn anchor(tables: &[u8]) -> Vec<u8> {
    let mut anchor = b"_SM3_".to_vec();
    // Checksum, length, version 3.0.0, revision of the entry point, reserved.
    anchor.extend([0, 24, 3, 0, 0, 1, 0]);
    anchor.extend((tables.len() as u32).to_le_bytes());
    anchor.extend([0; 8]);
    let sum = anchor.iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
    anchor[5] = sum.wrapping_neg();
    anchor
}

/// A structure in the making: formatted area and strings.
struct Structure {
    bytes: Vec<u8>,
    strings: Vec<u8>,
    count: u8,
}

impl Structure {
    /// The `n`th of its type; the handle follows from both.
    fn new(kind: u8, n: u16) -> Structure {
        let mut bytes = vec![kind, 0];
        bytes.extend(handle(kind, n).to_le_bytes());
        Structure {
            bytes,
            strings: Vec::new(),
            count: 0,
        }
    }

    fn u8(mut self, value: u8) -> Structure {
        self.bytes.push(value);
        self
    }

    fn u16(mut self, value: u16) -> Structure {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    fn u32(mut self, value: u32) -> Structure {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Structure {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    /// A reference to a string (6.1.3), or 0 for an empty one. NULs would end it, so they go.
    fn string(mut self, text: &str) -> Structure {
        let text: Vec<u8> = text.bytes().filter(|b| *b != 0).collect();
        if text.is_empty() {
            return self.u8(0);
        }
        self.count += 1;
        self.strings.extend(text);
        self.strings.push(0);
        let number = self.count;
        self.u8(number)
    }

    fn finish(mut self, to: &mut Vec<u8>) {
        self.bytes[1] = self.bytes.len() as u8;
        to.extend(self.bytes);
        to.extend(&self.strings);
        // The set of strings ends with an empty one; without strings two NULs stand.
        to.extend(if self.strings.is_empty() {
            &[0, 0][..]
        } else {
            &[0]
        });
    }
}

fn handle(kind: u8, n: u16) -> u16 {
    (u16::from(kind) << 8).wrapping_add(n)
}

fn tables(board: &Board, config: &Config) -> Vec<u8> {
    let mut to = Vec::new();
    firmware(&config.firmware).finish(&mut to);
    system(&config.system).finish(&mut to);
    chassis(&config.system).finish(&mut to);
    for socket in 0..board.topology.sockets.clamp(1, 255) as u16 {
        processor(board, config, socket).finish(&mut to);
    }
    memory_array(board).finish(&mut to);
    memory_device(board, config).finish(&mut to);
    for (n, range) in board.memory.iter().enumerate() {
        let (start, end) = (range.base, range.end() - 1);
        let structure = Structure::new(MEMORY_RANGE, n as u16);
        // In KiB where that fits, else in bytes in the extended fields (7.20).
        let structure = if end >> 10 < u64::from(u32::MAX) {
            let structure = structure.u32((start >> 10) as u32).u32((end >> 10) as u32);
            structure.u16(handle(MEMORY_ARRAY, 0)).u8(1).u64(0).u64(0)
        } else {
            let structure = structure.u32(u32::MAX).u32(u32::MAX);
            structure
                .u16(handle(MEMORY_ARRAY, 0))
                .u8(1)
                .u64(start)
                .u64(end)
        };
        structure.finish(&mut to);
    }
    // No boot error.
    Structure::new(BOOT_INFORMATION, 0)
        .u32(0)
        .u16(0)
        .u8(0)
        .finish(&mut to);
    Structure::new(END, 0).finish(&mut to);
    to
}

/// Type 0 (7.1).
fn firmware(firmware: &Firmware) -> Structure {
    /// Characteristics are not stated; extension byte 2: targeted content, UEFI, a virtual machine.
    const NOT_STATED: u64 = 1 << 3;
    const EXTENSION_2: u8 = 1 << 2 | 1 << 3 | 1 << 4;
    let structure = Structure::new(FIRMWARE, 0)
        .string(&firmware.vendor)
        .string(&firmware.version);
    let structure = structure
        .u16(0)
        .string(&firmware.date)
        .u8(0)
        .u64(NOT_STATED);
    // Releases of firmware and embedded controller: none.
    structure
        .u8(0)
        .u8(EXTENSION_2)
        .u8(0)
        .u8(0)
        .u8(0xff)
        .u8(0xff)
}

/// Type 1 (7.2).
fn system(system: &System) -> Structure {
    /// Power switch.
    const WAKE_UP: u8 = 6;
    let mut structure = Structure::new(SYSTEM, 0)
        .string(&system.manufacturer)
        .string(&system.product)
        .string(&system.version)
        .string(&system.serial);
    // Time fields are little-endian here (7.2.1).
    let mut uuid = system.uuid;
    uuid[..4].reverse();
    uuid[4..6].reverse();
    uuid[6..8].reverse();
    structure.bytes.extend(uuid);
    structure
        .u8(WAKE_UP)
        .string(&system.sku)
        .string(&system.family)
}

/// Type 3 (7.4).
fn chassis(system: &System) -> Structure {
    const OTHER: u8 = 1;
    const SAFE: u8 = 3;
    const UNKNOWN: u8 = 2;
    let structure = Structure::new(CHASSIS, 0)
        .string(&system.manufacturer)
        .u8(OTHER);
    let structure = structure.string(&system.version).string("").string("");
    // States of boot, power supply and temperature; security; OEM; height, cords, elements and their length; SKU.
    let structure = structure.u8(SAFE).u8(SAFE).u8(SAFE).u8(UNKNOWN).u32(0);
    structure.u8(0).u8(0).u8(0).u8(0).string("")
}

/// Type 4 (7.5).
fn processor(board: &Board, config: &Config, socket: u16) -> Structure {
    const CENTRAL_PROCESSOR: u8 = 3;
    const FAMILY_2: u8 = 0xfe;
    const FAMILY_ARMV8: u16 = 0x101;
    /// Populated and enabled.
    const STATUS: u8 = 0x41;
    const UPGRADE_OTHER: u8 = 1;
    /// 64 bits; several cores; several threads a core are added.
    const CHARACTERISTICS: u16 = 1 << 2 | 1 << 3;
    const THREADS: u16 = 1 << 4;
    let per_socket = board.cpus.len() as u32 / board.topology.sockets.max(1);
    let threads = u16::try_from(per_socket).unwrap_or(u16::MAX).max(1);
    let cores = (threads / board.topology.threads.clamp(1, 255) as u16).max(1);
    let narrow = |n: u16| u8::try_from(n).unwrap_or(0xff);
    let more = if board.topology.threads > 1 {
        THREADS
    } else {
        0
    };
    let structure = Structure::new(PROCESSOR, socket)
        .string(&format!("CPU {socket}"))
        .u8(CENTRAL_PROCESSOR)
        .u8(FAMILY_2)
        .string(&config.system.manufacturer)
        .u64(0)
        .string(&config.processor)
        // Voltage and external clock: not stated. Speeds.
        .u8(0)
        .u16(0)
        .u16(config.speed)
        .u16(config.speed)
        .u8(STATUS)
        .u8(UPGRADE_OTHER)
        .u16(NO_HANDLE)
        .u16(NO_HANDLE)
        .u16(NO_HANDLE)
        .string("")
        .string("")
        .string("");
    let structure = structure
        .u8(narrow(cores))
        .u8(narrow(cores))
        .u8(narrow(threads));
    let structure = structure.u16(CHARACTERISTICS | more).u16(FAMILY_ARMV8);
    structure.u16(cores).u16(cores).u16(threads)
}

/// Type 16 (7.17).
fn memory_array(board: &Board) -> Structure {
    const OTHER: u8 = 1;
    const SYSTEM_MEMORY: u8 = 3;
    const MULTI_BIT_ECC: u8 = 6;
    /// Look into the extended field.
    const EXTENDED: u32 = 0x8000_0000;
    let size = board.ram_size();
    let structure = Structure::new(MEMORY_ARRAY, 0)
        .u8(OTHER)
        .u8(SYSTEM_MEMORY)
        .u8(MULTI_BIT_ECC);
    let (kib, bytes) = match size >> 10 {
        kib if kib < u64::from(EXTENDED) => (kib as u32, 0),
        _ => (EXTENDED, size),
    };
    structure.u32(kib).u16(NO_ERROR).u16(1).u64(bytes)
}

/// Type 17 (7.18).
fn memory_device(board: &Board, config: &Config) -> Structure {
    const UNKNOWN_WIDTH: u16 = 0xffff;
    const DIMM: u8 = 9;
    const RAM: u8 = 7;
    const OTHER: u16 = 1 << 1;
    /// Look into the extended field.
    const EXTENDED: u16 = 0x7fff;
    let mib = board.ram_size() >> 20;
    let (size, extended) = match mib {
        mib if mib < u64::from(EXTENDED) => (mib as u16, 0),
        mib => (EXTENDED, mib.min(0x7fff_ffff) as u32),
    };
    let structure = Structure::new(MEMORY_DEVICE, 0)
        .u16(handle(MEMORY_ARRAY, 0))
        .u16(NO_ERROR);
    let structure = structure
        .u16(UNKNOWN_WIDTH)
        .u16(UNKNOWN_WIDTH)
        .u16(size)
        .u8(DIMM)
        .u8(0);
    let structure = structure
        .string("DIMM 0")
        .string("")
        .u8(RAM)
        .u16(OTHER)
        .u16(0);
    let structure = structure
        .string(&config.system.manufacturer)
        .string("")
        .string("")
        .string("");
    structure.u8(0).u32(extended).u16(0).u16(0).u16(0).u16(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each structure: formatted area and strings.
    fn parse(mut bytes: &[u8]) -> Vec<(Vec<u8>, Vec<String>)> {
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let length = usize::from(bytes[1]);
            let (formatted, mut rest) = bytes.split_at(length);
            let mut strings = Vec::new();
            if rest[0] == 0 {
                rest = &rest[1..];
            }
            while rest[0] != 0 {
                let end = rest.iter().position(|b| *b == 0).unwrap();
                strings.push(String::from_utf8(rest[..end].to_vec()).unwrap());
                rest = &rest[end + 1..];
            }
            all.push((formatted.to_vec(), strings));
            bytes = &rest[1..];
        }
        all
    }

    #[test]
    fn structures_have_the_lengths_of_the_specification() {
        let mut config = Config::default();
        config.system.serial = "S\0N".into();
        config.system.uuid = *b"\x00\x11\x22\x33\x44\x55\x66\x77\x88\x99\xaa\xbb\xcc\xdd\xee\xff";
        config.processor = "A processor".into();
        let [(_, anchor), (_, tables)] = files(&Board::virt(6, 5 << 30), &config);
        let all = parse(&tables);
        let shape: Vec<(u8, u8)> = all.iter().map(|(f, _)| (f[0], f[1])).collect();
        let expected = [
            (0, 24),
            (1, 27),
            (3, 22),
            (4, 48),
            (16, 23),
            (17, 40),
            (19, 31),
            (32, 11),
            (127, 4),
        ];
        assert_eq!(shape, expected);
        assert_eq!(all[1].1[3], "SN");
        assert_eq!(
            all[1].0[8..16],
            [0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66]
        );
        let processor = &all[3];
        assert_eq!(
            processor.1[usize::from(processor.0[0x10]) - 1],
            "A processor"
        );
        assert_eq!(processor.0[0x23..0x26], [6, 6, 6]);
        assert_eq!(all[5].0[0x0c..0x0e], 5120u16.to_le_bytes());
        assert_eq!(all[6].0[4..8], (0x4000_0000u32 >> 10).to_le_bytes());
        assert_eq!(anchor.len(), 24);
        assert_eq!(anchor.iter().fold(0u8, |s, b| s.wrapping_add(*b)), 0);
        assert_eq!(anchor[12..16], (tables.len() as u32).to_le_bytes());
    }

    #[test]
    fn large_memory_goes_to_the_extended_fields() {
        let [_, (_, tables)] = files(&Board::virt(1, 5 << 40), &Config::default());
        let all = parse(&tables);
        let find = |kind| &all.iter().find(|(f, _)| f[0] == kind).unwrap().0;
        assert_eq!(find(16)[7..11], 0x8000_0000u32.to_le_bytes());
        assert_eq!(find(16)[15..23], (5u64 << 40).to_le_bytes());
        assert_eq!(find(17)[0x0c..0x0e], 0x7fffu16.to_le_bytes());
        assert_eq!(find(17)[0x1c..0x20], (5u32 << 20).to_le_bytes());
        assert_eq!(find(19)[15..23], 0x4000_0000u64.to_le_bytes());
    }
}
