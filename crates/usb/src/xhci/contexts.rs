//! Device contexts in guest memory (6.2).

use device::{Dma, DmaError};
use serde::{Deserialize, Serialize};

/// Bytes of one context: HCCPARAMS1.CSZ is 0.
pub const SIZE: u64 = 32;

/// A context's eight words.
pub type Context = [u32; 8];

/// Reads the context at `address`.
pub fn read(dma: &Dma, address: u64) -> Result<Context, DmaError> {
    let mut context = [0; 8];
    for (word, at) in context.iter_mut().zip((0..).step_by(4)) {
        *word = dma.read_u32(address.wrapping_add(at))?;
    }
    Ok(context)
}

/// Writes the context at `address`.
pub fn write(dma: &Dma, address: u64, context: &Context) -> Result<(), DmaError> {
    for (word, at) in context.iter().zip((0..).step_by(4)) {
        dma.write_u32(address.wrapping_add(at), *word)?;
    }
    Ok(())
}

/// Where the context of index `dci` is in the device context at `base`.
pub fn of_device(base: u64, dci: u8) -> u64 {
    base.wrapping_add(u64::from(dci) * SIZE)
}

/// Where it is in the input context at `base`: one further, behind the input control context.
pub fn of_input(base: u64, dci: u8) -> u64 {
    of_device(base, dci).wrapping_add(SIZE)
}

/// Slot states, table 6-7.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum SlotState {
    /// Disabled or enabled.
    Enabled = 0,
    Default = 1,
    Addressed = 2,
    Configured = 3,
}

/// Endpoint states, table 6-8.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointState {
    Running = 1,
    Halted = 2,
    Stopped = 3,
    Error = 4,
}

/// Endpoint types, table 6-9.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointType {
    Isoch,
    Bulk,
    Interrupt,
    Control,
}

/// Fields of a slot context, 6.2.2.
pub mod slot {
    use super::Context;

    pub fn route(c: &Context) -> u32 {
        c[0] & 0xf_ffff
    }

    pub fn set_entries(c: &mut Context, entries: u8) {
        c[0] = c[0] & 0x07ff_ffff | u32::from(entries) << 27;
    }

    pub fn port(c: &Context) -> u8 {
        (c[1] >> 16) as u8
    }

    pub fn interrupter(c: &Context) -> u32 {
        c[2] >> 22
    }

    /// State and address.
    pub fn set_state(c: &mut Context, state: super::SlotState, address: u8) {
        c[3] = (state as u32) << 27 | u32::from(address);
    }
}

/// Fields of an endpoint context, 6.2.3.
pub mod endpoint {
    use super::{Context, EndpointType};

    pub fn set_state(c: &mut Context, state: u8) {
        c[0] = c[0] & !7 | u32::from(state);
    }

    pub fn streams(c: &Context) -> u32 {
        c[0] >> 10 & 0x1f
    }

    pub fn interval(c: &Context) -> u8 {
        (c[0] >> 16) as u8
    }

    /// The type, and whether data goes to the host; `None`: not valid.
    pub fn kind(c: &Context) -> Option<(EndpointType, bool)> {
        Some(match c[1] >> 3 & 7 {
            1 => (EndpointType::Isoch, false),
            2 => (EndpointType::Bulk, false),
            3 => (EndpointType::Interrupt, false),
            4 => (EndpointType::Control, false),
            5 => (EndpointType::Isoch, true),
            6 => (EndpointType::Bulk, true),
            7 => (EndpointType::Interrupt, true),
            _ => return None,
        })
    }

    pub fn max_packet(c: &Context) -> u16 {
        (c[1] >> 16) as u16
    }

    pub fn dequeue(c: &Context) -> u64 {
        u64::from(c[3]) << 32 | u64::from(c[2])
    }

    pub fn set_dequeue(c: &mut Context, pointer: u64) {
        c[2] = pointer as u32;
        c[3] = (pointer >> 32) as u32;
    }
}
