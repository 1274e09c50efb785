//! Every instruction of the decode table, on the interpreter and on another implementation of the architecture.
//!
//! - [`corpus`] makes cases out of the table's patterns: encodings, and states they are executed in.
//! - [`oracle`] executes them under `qemu-aarch64`, as a program that knows nothing of Dormer.
//! - [`subject`] executes them under [`cpu::Interpreter`], at EL0 with the same addresses mapped.
//! - [`compare`] says what differs: registers, vectors, flags, FPSR, memory, and where execution went.

pub mod compare;
pub mod corpus;
pub mod oracle;
pub mod random;
pub mod subject;

/// The page of data: all zero but for its last [`DATA`] bytes. No page beside it is mapped.
pub const WINDOW: u64 = 0x4000_1000;
/// Bytes at the end of the window that a case gives.
pub const DATA: usize = 512;
/// A page.
pub const PAGE: u64 = 4096;
/// Where the instruction of the first case is; each has a slot, filled with BRK.
pub const CODE: u64 = 0x4010_0000;
/// Bytes of a slot.
pub const SLOT: u64 = 16;
/// Slots, and the most cases of a batch.
pub const SLOTS: usize = 4096;
/// BRK #0.
pub const BRK: u32 = 0xd420_0000;

/// What an instruction reads and writes.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    pub x: [u64; 31],
    pub sp: u64,
    /// N, Z, C, V in bits 31:28.
    pub nzcv: u32,
    pub fpcr: u32,
    pub fpsr: u32,
    pub v: [u128; 32],
    /// The last bytes of the window.
    pub data: [u8; DATA],
    /// A sum of the others: zero at first.
    pub rest: u64,
}

/// An instruction and the state it is executed in.
#[derive(Clone)]
pub struct Case {
    pub word: u32,
    /// What is executed after it, or [`BRK`].
    pub then: u32,
    pub state: State,
}

/// How an instruction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The next is at this address.
    Next(u64),
    Undefined,
    Breakpoint,
    /// A data access was not permitted.
    DataFault,
    /// A data access was not aligned.
    Alignment,
    /// Something else, that no instruction of the corpus should do.
    Other(u64),
}

/// What came of a case.
#[derive(Clone)]
pub struct Outcome {
    pub end: End,
    pub state: State,
}
