//! The decode table: which A64 instruction a word is.
//!
//! One line an instruction: a pattern of 32 characters, most significant bit first, and a name. `0` and `1` must match;
//! letters are fields (named for the reader: `d`, `n`, `m`, `t` registers, `i` immediate, …) and `.` bits that are
//! ignored. `if X` after the name makes it unallocated where [`Extension::X`](Extension) is absent. The first row that
//! matches wins; a test proves that no row is hidden and lists the pairs that overlap.
//!
//! What a pattern cannot say (a field value that is reserved) the semantic function of that name says, by taking
//! Undefined.
//!
//! [`instructions`](crate::instructions) hands all rows to a macro, so that the enum here, and the dispatch to semantic
//! functions elsewhere, come from the same lines.

mod base;
mod vector;

use std::sync::OnceLock;

/// A part of the architecture that a processor may lack, where its absence makes instructions undefined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Extension {
    /// CRC32 (ID_AA64ISAR0_EL1.CRC32).
    Crc32,
    /// Large System Extensions: atomics (ID_AA64ISAR0_EL1.Atomic).
    Lse,
    /// Limited ordering regions (ID_AA64MMFR1_EL1.LO).
    Lor,
    /// Privileged access never: MSR PAN (ID_AA64MMFR1_EL1.PAN).
    Pan,
    /// User access override: MSR UAO (ID_AA64MMFR2_EL1.UAO).
    Uao,
    /// SQRDMLAH, SQRDMLSH (ID_AA64ISAR0_EL1.RDM).
    Rdm,
    /// AESE and the like (ID_AA64ISAR0_EL1.AES).
    Aes,
    /// PMULL of 64 bits (ID_AA64ISAR0_EL1.AES = 2).
    Pmull,
    /// SHA-1 (ID_AA64ISAR0_EL1.SHA1).
    Sha1,
    /// SHA-256 (ID_AA64ISAR0_EL1.SHA2).
    Sha256,
    /// UDOT, SDOT (ID_AA64ISAR0_EL1.DP).
    DotProd,
    /// Half-precision arithmetic (ID_AA64PFR0_EL1.FP, AdvSIMD).
    Fp16,
    /// LDAPR (ID_AA64ISAR1_EL1.LRCPC).
    Rcpc,
    /// Pointer authentication (ID_AA64ISAR1_EL1.APA, API).
    PAuth,
    /// Complex numbers (ID_AA64ISAR1_EL1.FCMA).
    Fcma,
    /// FJCVTZS (ID_AA64ISAR1_EL1.JSCVT).
    JsCvt,
    /// SB (ID_AA64ISAR1_EL1.SB).
    Sb,
    /// Speculative store bypass: MSR SSBS (ID_AA64PFR1_EL1.SSBS).
    Ssbs,
    /// Data-independent timing: MSR DIT (ID_AA64PFR0_EL1.DIT).
    Dit,
    /// Cache clean to the point of persistence (ID_AA64ISAR1_EL1.DPB).
    DcPop,
}

/// The set of [`Extension`]s that a processor has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extensions(u32);

impl Extensions {
    /// None of them: Armv8.0 with Advanced SIMD.
    pub const NONE: Extensions = Extensions(0);

    /// This set and one more.
    pub const fn with(self, extension: Extension) -> Extensions {
        Extensions(self.0 | 1 << extension as u32)
    }

    /// This set but for one.
    pub const fn without(self, extension: Extension) -> Extensions {
        Extensions(self.0 & !(1 << extension as u32))
    }

    /// Whether the processor has it.
    pub const fn has(self, extension: Extension) -> bool {
        self.0 & 1 << extension as u32 != 0
    }
}

/// Hands all rows of the decode table to a macro: `instructions!(m)` becomes `m! { "pattern" name; "pattern" name if
/// Extension; … }`, base instructions first. Further arguments come before the rows.
#[macro_export]
macro_rules! instructions {
    ($macro:ident) => {
        $crate::base_instructions! { $macro }
    };
}

macro_rules! define_instructions {
    ($($pattern:literal $name:ident $(if $extension:ident)?;)*) => {
        /// The instructions of the decode table, named as the semantic functions are.
        #[allow(non_camel_case_types)]
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u16)]
        pub enum Instruction {
            $($name,)*
        }

        /// All of them, in the table's order.
        pub const ALL: &[Instruction] = &[$(Instruction::$name,)*];

        /// The table's rows, by `Instruction as usize`.
        const ROWS: &[Row] = &[$(Row {
            pattern: $pattern,
            mask: bits_of($pattern, b'0') | bits_of($pattern, b'1'),
            value: bits_of($pattern, b'1'),
            name: stringify!($name),
            extension: define_instructions!(@ $($extension)?),
        },)*];
    };
    (@) => { None };
    (@ $extension:ident) => { Some(Extension::$extension) };
}

instructions!(define_instructions);

struct Row {
    pattern: &'static str,
    mask: u32,
    value: u32,
    name: &'static str,
    extension: Option<Extension>,
}

const fn bits_of(pattern: &str, wanted: u8) -> u32 {
    let pattern = pattern.as_bytes();
    assert!(pattern.len() == 32, "a pattern has 32 characters");
    let mut bits = 0;
    let mut i = 0;
    while i < 32 {
        bits = bits << 1 | (pattern[i] == wanted) as u32;
        i += 1;
    }
    bits
}

impl Instruction {
    /// Its pattern, as in the table.
    pub fn pattern(self) -> &'static str {
        ROWS[self as usize].pattern
    }

    /// Its name, as in the table.
    pub fn name(self) -> &'static str {
        ROWS[self as usize].name
    }

    /// The bits that its pattern fixes, and their values.
    pub fn mask_and_value(self) -> (u32, u32) {
        let row = &ROWS[self as usize];
        (row.mask, row.value)
    }

    /// What a processor must have for it to be allocated.
    pub fn extension(self) -> Option<Extension> {
        ROWS[self as usize].extension
    }
}

/// The bits that tell most instructions apart: 31:21, 15:14 and 11:10.
const INDEX_BITS: u32 = 15;

const fn index_of(word: u32) -> usize {
    ((word >> 21) << 4 | word >> 12 & 0xc | word >> 10 & 3) as usize
}

/// For each index the rows that may match, in order.
struct Index {
    /// Where in `candidates` each index's begin; one more at the end.
    starts: Vec<u32>,
    candidates: Vec<Instruction>,
}

fn index() -> &'static Index {
    static INDEX: OnceLock<Index> = OnceLock::new();
    INDEX.get_or_init(|| {
        let mut starts = Vec::with_capacity((1 << INDEX_BITS) + 1);
        let mut candidates = Vec::new();
        for index in 0..1u32 << INDEX_BITS {
            starts.push(candidates.len() as u32);
            let word = index >> 4 << 21 | (index & 0xc) << 12 | (index & 3) << 10;
            let known = 0x7ff << 21 | 3 << 14 | 3 << 10;
            for &instruction in ALL {
                let (mask, value) = instruction.mask_and_value();
                if (word ^ value) & mask & known == 0 {
                    candidates.push(instruction);
                }
            }
        }
        starts.push(candidates.len() as u32);
        Index { starts, candidates }
    })
}

/// The instruction that a word is on a processor with these extensions; `None` where it is unallocated.
pub fn decode(word: u32, extensions: Extensions) -> Option<Instruction> {
    let index = index();
    let i = index_of(word);
    let candidates = index.starts[i] as usize..index.starts[i + 1] as usize;
    let found = index.candidates[candidates]
        .iter()
        .copied()
        .find(|instruction| {
            let (mask, value) = instruction.mask_and_value();
            word & mask == value
        })?;
    found
        .extension()
        .is_none_or(|extension| extensions.has(extension))
        .then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERYTHING: Extensions = Extensions(u32::MAX);

    #[test]
    fn every_row_is_reached() {
        for (i, &a) in ALL.iter().enumerate() {
            let (mask, value) = a.mask_and_value();
            for &earlier in &ALL[..i] {
                let (mask_b, value_b) = earlier.mask_and_value();
                let hidden = mask_b & !mask == 0 && value & mask_b == value_b;
                assert!(!hidden, "{} hides {}", earlier.name(), a.name());
                // Where rows overlap, the earlier one must be the special case of the later one.
                let overlap = (value ^ value_b) & mask & mask_b == 0;
                assert!(
                    !overlap || mask & !mask_b == 0,
                    "{} and {} cross",
                    earlier.name(),
                    a.name()
                );
            }
            // Its own fields all clear or all set may be what a special case before it takes; not both.
            let reached = [value, value | !mask].map(|word| decode(word, EVERYTHING));
            assert!(reached.contains(&Some(a)), "{} is not reached", a.name());
        }
    }

    #[test]
    fn the_index_agrees_with_the_table() {
        let mut word = 0x1234_5678u32;
        for _ in 0..200_000 {
            word = word.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let word = word ^ word >> 15;
            let plain = ALL.iter().copied().find(|i| {
                let (mask, value) = i.mask_and_value();
                word & mask == value
            });
            assert_eq!(decode(word, EVERYTHING), plain, "{word:#010x}");
        }
    }

    #[test]
    fn knows_some_words() {
        let name = |word| decode(word, EVERYTHING).map(|i| i.name());
        assert_eq!(name(0xd503_201f), Some("hint")); // nop
        assert_eq!(name(0x9100_0420), Some("add_immediate")); // add x0, x1, #1
        assert_eq!(name(0xd65f_03c0), Some("ret"));
        assert_eq!(name(0xa9bf_7bfd), Some("store_pair")); // stp x29, x30, [sp, #-16]!
        assert_eq!(name(0xf940_0000), Some("load_offset")); // ldr x0, [x0]
        assert_eq!(name(0xd538_0000), Some("mrs")); // mrs x0, midr_el1
        assert_eq!(name(0xc85f_7c20), Some("load_exclusive")); // ldxr x0, [x1]
        assert_eq!(name(0), None); // udf #0
        assert_eq!(
            decode(0xb8bf_c020, EVERYTHING).map(|i| i.name()),
            Some("ldapr")
        );
        assert_eq!(decode(0xb8bf_c020, Extensions::NONE), None);
    }
}
