//! Functions that generated code calls for single operations. None unwinds: a panic in them ends the process.
#![allow(unsafe_code)] // the machine's pointer comes from generated code

use cpu::Emit;
use cpu::vector::{Compare, FromValue, Operation, ToValue};

use super::frame::{self, Machine};

/// The machine, for the time of a function.
macro_rules! machine {
    ($machine:expr) => {
        // SAFETY: generated code passes its machine, which nothing else accesses while that code runs.
        unsafe { &mut *$machine }
    };
}

pub extern "C" fn crc32(machine: *mut Machine, accumulator: u64, data: u64, bytes: u64) -> u64 {
    let machine = machine!(machine);
    Emit::crc32(
        &mut machine.interpreter,
        false,
        accumulator,
        data,
        8 * bytes as u32,
    )
}

/// The virtual or the physical counter.
pub extern "C" fn counter(machine: *mut Machine, is_virtual: u64) -> u64 {
    let core = machine!(machine).interpreter.core();
    let offset = if is_virtual != 0 {
        core.state.timers.cntvoff
    } else {
        0
    };
    core.shared.counter().wrapping_sub(offset)
}

pub extern "C" fn pac_add(machine: *mut Machine, pointer: u64, modifier: u64, key: u64) -> u64 {
    Emit::pac_add(
        &mut machine!(machine).interpreter,
        key as u32,
        pointer,
        modifier,
    )
}

pub extern "C" fn pac_authenticate(
    machine: *mut Machine,
    pointer: u64,
    modifier: u64,
    key: u64,
) -> u64 {
    Emit::pac_authenticate(
        &mut machine!(machine).interpreter,
        key as u32,
        pointer,
        modifier,
    )
}

pub extern "C" fn pac_strip(machine: *mut Machine, pointer: u64, data: u64) -> u64 {
    Emit::pac_strip(&mut machine!(machine).interpreter, data != 0, pointer)
}

pub extern "C" fn pac_generic(machine: *mut Machine, a: u64, b: u64) -> u64 {
    Emit::pac_generic(&mut machine!(machine).interpreter, a, b)
}

/// From the frame's operands to its result.
pub extern "C" fn vector(machine: *mut Machine, operation: *const Operation) {
    let machine = machine!(machine);
    // SAFETY: the emitter keeps operations as long as the code that names them.
    let operation = unsafe { *operation };
    let operands = machine.frame.operands;
    machine.frame.result = Emit::vector(&mut machine.interpreter, operation, operands);
}

pub extern "C" fn to_value(machine: *mut Machine, operation: *const ToValue) -> u64 {
    let machine = machine!(machine);
    // SAFETY: as in `vector`.
    let operation = unsafe { *operation };
    let operand = machine.frame.operands[0];
    Emit::vector_to_value(&mut machine.interpreter, operation, operand)
}

pub extern "C" fn from_value(machine: *mut Machine, operation: *const FromValue, value: u64) {
    let machine = machine!(machine);
    // SAFETY: as in `vector`.
    let operation = unsafe { *operation };
    let into = machine.frame.operands[0];
    machine.frame.result = Emit::value_to_vector(&mut machine.interpreter, operation, into, value);
}

/// The flags as the frame has them.
pub extern "C" fn compare(machine: *mut Machine, operation: *const Compare) -> u64 {
    let machine = machine!(machine);
    // SAFETY: as in `vector`.
    let operation = unsafe { *operation };
    let [a, b, _] = machine.frame.operands;
    let flags = Emit::float_compare(&mut machine.interpreter, operation, a, b);
    frame::flags_to_host(flags).into()
}
