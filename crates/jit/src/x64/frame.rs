//! What generated code works on, and how it reaches it.
//!
//! RBP points into the middle of the state's general registers, so that all of them are within reach of a short
//! displacement. Some guest registers live in host registers all the time that generated code runs ([`Homes`]); the others
//! live in [`State`].

use std::mem::offset_of;
use std::sync::atomic::{AtomicU32, AtomicU64};

use cpu::{Interpreter, Layout, State};

use super::assembler::{
    Mem, R8, R9, R10, R11, R12, R13, R14, R15, RBP, RBX, RCX, RDI, RDX, RSI, RSP, Reg, Xmm,
};

/// What RBP is beyond the start of the state.
const BIAS: usize = 128;

/// Guest registers with a host register between blocks, 31 being the stack pointer.
pub const PINNED: [(u8, Reg); 9] = [
    (0, RBX),
    (1, R12),
    (2, R13),
    (3, R14),
    (4, R15),
    (5, R8),
    (31, R9),
    (19, R10),
    (20, R11),
];

/// Registers that a C function does not keep and that guest registers may live in.
pub const LOST_IN_CALLS: [Reg; 4] = [R8, R9, R10, R11];

/// Registers for temporaries. RAX is beside these: for flags, and where instructions want it.
pub const SCRATCH: [Reg; 4] = [RSI, RDI, RDX, RCX];

/// Vector registers that vectors may be in between operations; two more are for the insides of one.
pub const XMMS: u8 = 14;

/// Eight-byte slots on the stack for temporaries.
pub const SLOTS: u8 = 16;
/// Pages that a loop keeps, at most: on the stack above the slots.
pub const WINDOWS: u8 = 12;
/// Host addresses that a block keeps, at most: on the stack above those.
pub const PLACES: u8 = 4;
/// Bytes of stack that generated code has.
pub const STACK: i32 = 8 * SLOTS as i32 + 32 * WINDOWS as i32 + 8 * PLACES as i32;

/// A page that a loop keeps. An access is in it if its address less the base, unsigned, is below `limit`, which is 0 if no
/// page is kept; and `host` more than that is its host address. What of it is in a register ([`Homes::windows`]) is not here.
#[derive(Clone, Copy)]
pub struct Window {
    pub base: Mem,
    pub limit: Mem,
    pub host: Mem,
    /// Of one on trial: how often another page may yet be kept until the loop is entered anew.
    pub budget: Mem,
}

/// Where a loop has parts of a window in registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WindowHome {
    /// The negative of the base.
    pub minus_base: Option<Reg>,
    pub host: Option<Reg>,
}

pub fn window(i: u8) -> Window {
    let at = |field: i32| Mem::at(RSP, 8 * i32::from(SLOTS) + 32 * i32::from(i) + 8 * field);
    Window {
        base: at(0),
        limit: at(1),
        host: at(2),
        budget: at(3),
    }
}

/// A host address that a block keeps; 0: none.
pub fn place(i: u8) -> Mem {
    Mem::at(
        RSP,
        8 * i32::from(SLOTS) + 32 * i32::from(WINDOWS) + 8 * i32::from(i),
    )
}

pub fn slot(i: u8) -> Mem {
    Mem::at(RSP, 8 * i32::from(i))
}

/// Which guest registers live in host registers, and in which; the others live in the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Homes {
    /// 31 is the stack pointer.
    pub general: [Option<Reg>; 32],
    pub vectors: [Option<Xmm>; 32],
    /// How many vectors have a home: in the host registers of the lowest numbers.
    pub vectors_taken: u8,
    /// Of a loop.
    pub windows: [WindowHome; WINDOWS as usize],
    /// What [`Frame::pending`] points to.
    pub pending: Option<Reg>,
}

impl Homes {
    /// Those of [`PINNED`], which hold between blocks.
    pub fn between_blocks() -> Homes {
        let mut general = [None; 32];
        for (n, reg) in PINNED {
            general[usize::from(n)] = Some(reg);
        }
        Homes {
            general,
            vectors: [None; 32],
            vectors_taken: 0,
            windows: Default::default(),
            pending: None,
        }
    }
}

/// Entries of a jump cache. Linux has some thousands of targets in use at once; with 8192 entries nine of ten look-ups were
/// because two of them had the same.
pub const JUMPS: usize = 32768;

/// Where code is, by virtual address.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Jump {
    pub pc: u64,
    /// [`Frame::context`] that this holds in.
    pub context: u64,
    pub code: u64,
    pub padding: u64,
}

/// What an exception level is known by: [`Frame::context`], 0 for unknown, and its jump cache.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Level {
    pub context: u64,
    pub jumps: *const Jump,
}

impl Default for Level {
    fn default() -> Level {
        Level {
            context: 0,
            jumps: std::ptr::null(),
        }
    }
}

/// What generated code needs beside the state.
#[repr(C, align(16))]
pub struct Frame {
    /// Operands and result of an operation that a function performs.
    pub operands: [u128; 3],
    pub result: u128,
    /// The virtual address of the page that executes.
    pub page: u64,
    /// Not zero: something wants attention.
    pub pending: *const AtomicU32,
    pub jumps: *const Jump,
    /// Not zero: an interrupt line is high.
    pub lines: *const AtomicU32,
    /// The versions of granules.
    pub granules: *const AtomicU64,
    /// Names what the meaning of virtual addresses depends on. Never 0.
    pub context: u64,
    /// The flags as the host has them after a subtraction: OF in bit 0; SF, ZF, and the inverse of C in bits 15, 14, 8.
    pub flags: u32,
    /// MXCSR for generated code, and where it is stored.
    pub mxcsr_start: u32,
    pub mxcsr: u32,
    /// Not zero: generated code has changed the exception level or PSTATE.PAN, which the interpreter is to see.
    pub crossed: u32,
    /// Bits of PSTATE that an exception keeps, and sets; bits of SPSR that PSTATE takes on a return.
    pub entry_keeps: u32,
    pub entry_sets: u32,
    pub return_keeps: u32,
    /// EL0, and EL1 on its own stack pointer, while [`Interpreter::code_versions`] is `levels_version`.
    pub levels: [Level; 2],
    pub levels_version: u64,
    /// Of EL1's data accesses, with PAN clear and set.
    pub kernel_sets: [*const u8; 2],
    /// Jumps back that are still to be taken before a loop is made, by a mixture of where they go: see [`heat`].
    pub heat: [i32; HEATS],
    /// How often a jump to another page is still to be looked up before it is linked: to each jump its own, as long as there
    /// are some.
    pub patience: [i32; PATIENCES],
    /// Constants that code looks up.
    pub pool: [u128; POOL],
    /// Where codes are in pointers of each half, by instruction and by data keys: the bits that are to be the same before
    /// there is one, and its own.
    pub pac_masks: [[[u64; 2]; 2]; 2],
}

/// Counts of jumps back.
pub const HEATS: usize = 4096;
/// Counts of jumps to other pages.
pub const PATIENCES: usize = 4096;
/// Constants that code looks up, at most.
pub const POOL: usize = 256;

/// Which count is that of jumps to an offset into a page.
pub fn heat_index(page: u64, offset: u32) -> usize {
    (page.wrapping_mul(0x9e5) as usize ^ (offset >> 2) as usize) % HEATS
}

/// The count of jumps to an offset into a page.
pub fn heat(page: u64, offset: u32) -> Mem {
    let first = offset_of!(Machine, frame) + offset_of!(Frame, heat);
    in_machine(first + size_of::<i32>() * heat_index(page, offset))
}

/// The count of a jump to another page.
pub fn patience(index: Reg) -> Mem {
    let first = in_machine(offset_of!(Machine, frame) + offset_of!(Frame, patience));
    Mem::indexed(first.base, index, 4, first.disp)
}

/// A constant.
pub fn pool(index: usize) -> Mem {
    let first = offset_of!(Machine, frame) + offset_of!(Frame, pool);
    in_machine(first + size_of::<u128>() * index)
}

/// A processor and its frame.
#[repr(C)]
pub struct Machine {
    pub interpreter: Interpreter,
    pub frame: Frame,
    /// Everything that only functions use.
    pub side: super::translator::Side,
}

const STATE: usize = offset_of!(Machine, interpreter) + Layout::THIS.state;

const fn in_machine(offset: usize) -> Mem {
    Mem::at(RBP, (offset as isize - (STATE + BIAS) as isize) as i32)
}

const fn in_state(offset: usize) -> Mem {
    in_machine(STATE + offset)
}

macro_rules! frame_field {
    ($field:ident) => {
        in_machine(offset_of!(Machine, frame) + offset_of!(Frame, $field))
    };
}
pub const OPERANDS: Mem = frame_field!(operands);
pub const RESULT: Mem = frame_field!(result);
pub const PAGE: Mem = frame_field!(page);
pub const PENDING: Mem = frame_field!(pending);
pub const LINES: Mem = frame_field!(lines);
pub const JUMP_CACHE: Mem = frame_field!(jumps);
pub const GRANULES: Mem = frame_field!(granules);
pub const CONTEXT: Mem = frame_field!(context);
pub const FLAGS: Mem = frame_field!(flags);
pub const MXCSR_START: Mem = frame_field!(mxcsr_start);
pub const MXCSR: Mem = frame_field!(mxcsr);
pub const CROSSED: Mem = frame_field!(crossed);
pub const ENTRY_KEEPS: Mem = frame_field!(entry_keeps);
pub const ENTRY_SETS: Mem = frame_field!(entry_sets);
pub const RETURN_KEEPS: Mem = frame_field!(return_keeps);
pub const LEVELS_VERSION: Mem = frame_field!(levels_version);

/// A field of [`Frame::levels`].
const fn level(which: usize, field: usize) -> Mem {
    let first = frame_field!(levels);
    Mem::at(
        first.base,
        first.disp + (which * size_of::<Level>() + field) as i32,
    )
}

pub fn level_context(which: usize) -> Mem {
    level(which, offset_of!(Level, context))
}

pub fn level_jumps(which: usize) -> Mem {
    level(which, offset_of!(Level, jumps))
}

/// The set of EL1's data accesses.
pub fn kernel_set(pan: bool) -> Mem {
    let first = frame_field!(kernel_sets);
    Mem::at(first.base, first.disp + 8 * i32::from(pan))
}

/// The same; the register holds PAN.
pub fn kernel_set_by(pan: Reg) -> Mem {
    let first = frame_field!(kernel_sets);
    Mem::indexed(first.base, pan, 8, first.disp)
}

/// A mask of [`Frame::pac_masks`] for a key; `half` holds 16 for the upper half, else 0.
pub fn pac_mask(key: usize, half: Reg, which: usize) -> Mem {
    let data = usize::from(key >= 2);
    let masks = offset_of!(Machine, frame) + offset_of!(Frame, pac_masks);
    let mem = in_machine(masks + 32 * data + 8 * which);
    Mem::indexed(mem.base, half, 1, mem.disp)
}

/// The pointers to the TLB sets.
pub const DATA: Mem = in_machine(offset_of!(Machine, interpreter) + Layout::THIS.data);
pub const USER: Mem = in_machine(offset_of!(Machine, interpreter) + Layout::THIS.user);

/// The machine's address, as an operand of LEA.
pub const MACHINE: Mem = in_machine(0);

/// What RBP is to be.
pub fn base(machine: *mut Machine) -> usize {
    machine as usize + STATE + BIAS
}

/// A guest register's place in memory.
pub fn general(n: u8) -> Mem {
    in_state(offset_of!(State, x) + 8 * usize::from(n))
}

pub fn vector(n: u8) -> Mem {
    in_state(offset_of!(State, v) + 16 * usize::from(n))
}

macro_rules! state_field {
    ($($name:ident $field:ident $index:expr;)*) => {
        $(pub const $name: Mem = in_state(offset_of!(State, $field) + 8 * $index);)*
    };
}

state_field! {
    SP_EL0 sp 0;
    SP_EL1 sp 1;
    ELR_EL1 elr 1;
    SPSR_EL1 spsr 1;
    ESR_EL1 esr 1;
    FAR_EL1 far 1;
    TPIDR_EL0 tpidr 0;
    TPIDR_EL1 tpidr 1;
    TPIDRRO_EL0 tpidrro_el0 0;
    SCTLR_EL1 sctlr 1;
    TTBR0_EL1 ttbr0 1;
    TTBR1_EL1 ttbr1 1;
    VBAR_EL1 vbar 1;
    TCR_EL1 tcr 1;
    MAIR_EL1 mair 1;
    CPACR_EL1 cpacr 1;
    CONTEXTIDR_EL1 contextidr 1;
}

/// MDSCR_EL1.
pub const MDSCR_EL1: Mem = in_state(offset_of!(State, debug) + offset_of!(cpu::Debug, mdscr));
/// CNTKCTL_EL1.
pub const CNTKCTL_EL1: Mem = in_state(offset_of!(State, cntkctl_el1));
/// A byte that is not 0 while the next DSB has something to wait for.
pub const WAITS: Mem = in_machine(offset_of!(Machine, interpreter) + Layout::THIS.waits);

/// A byte that is to be 0 after an exception is taken or returned from.
pub const STEPPED: Mem = in_machine(offset_of!(Machine, interpreter) + Layout::THIS.stepped);
/// How many versions of where code is found there were.
pub const VERSIONS: Mem = in_machine(offset_of!(Machine, interpreter) + Layout::THIS.versions);
/// Bytes of the exception level and PSTATE.SP.
pub const LEVEL: Mem = {
    assert!(offset_of!(State, sp_sel) == offset_of!(State, el) + 1);
    in_state(offset_of!(State, el))
};
/// FPSR, but for what the host's MXCSR has of it.
pub const FPSR: Mem = in_state(offset_of!(State, fpsr));
/// The event register.
pub const EVENT: Mem = in_state(offset_of!(State, event));

/// A half of a pointer authentication key.
pub fn pac_key(key: usize, half: usize) -> Mem {
    in_state(offset_of!(State, pac_keys) + 16 * key + 8 * half)
}

pub const PSTATE: Mem = in_state(offset_of!(State, pstate));

macro_rules! monitor_field {
    ($($name:ident $field:ident;)*) => {
        $(pub const $name: Mem =
            in_state(offset_of!(State, monitor) + offset_of!(cpu::Monitor, $field));)*
    };
}

monitor_field! {
    MONITOR_ARMED armed;
    MONITOR_HOST host_address;
    MONITOR_BYTES bytes;
    MONITOR_VALUE value;
    MONITOR_VERSION version;
}

/// The other value of a pair.
pub const MONITOR_SECOND: Mem = Mem::at(MONITOR_VALUE.base, MONITOR_VALUE.disp + 8);

/// NZCV in bits 31:28 as [`Frame::flags`] has it.
pub fn flags_to_host(nzcv: u32) -> u32 {
    let bit = |from: u32, to: u32| (nzcv >> from & 1) << to;
    bit(31, 15) | bit(30, 14) | (bit(29, 8) ^ 1 << 8) | bit(28, 0)
}

/// The other way.
pub fn flags_from_host(flags: u32) -> u32 {
    let bit = |from: u32, to: u32| (flags >> from & 1) << to;
    bit(15, 31) | bit(14, 30) | (bit(8, 29) ^ 1 << 29) | bit(0, 28)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_go_both_ways() {
        for nzcv in 0..16 {
            assert_eq!(flags_from_host(flags_to_host(nzcv << 28)), nzcv << 28);
        }
    }

    #[test]
    fn general_registers_are_near() {
        assert_eq!(general(0).disp, -128);
        assert_eq!(general(31).disp, 120);
        assert_eq!(vector(0).disp % 16, 0);
    }
}
