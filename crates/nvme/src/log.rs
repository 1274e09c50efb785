//! Get Log Page (NVMe 5.14).

use crate::command::{Command, Done};
use crate::controller::{Inner, Scratch};
use crate::spec::{
    ALL_NAMESPACES, ERROR_ENTRIES, MAX_TRANSFER, NAMESPACE, Status, TEMPERATURE, admin, log, nvm,
};
use crate::state::State;

impl Inner {
    pub(crate) fn get_log_page(&self, command: &Command, scratch: &mut Scratch) -> Done {
        let page = command.dword(10) as u8;
        let dwords =
            u64::from(command.dword(11) & 0xffff) << 16 | u64::from(command.dword(10) >> 16);
        let length = (dwords + 1) * 4;
        let offset = u64::from(command.dword(13)) << 32 | u64::from(command.dword(12));
        let retain_event = command.dword(10) & 1 << 15 != 0;
        if length > MAX_TRANSFER || !offset.is_multiple_of(4) {
            return Err(Status::INVALID_FIELD.into());
        }
        let mut state = self.state.lock();
        let bytes = match page {
            log::ERRORS => errors(&state),
            log::SMART => {
                if !matches!(command.namespace(), 0 | NAMESPACE | ALL_NAMESPACES) {
                    return Err(Status::INVALID_NAMESPACE.into());
                }
                smart(&state)
            }
            log::FIRMWARE_SLOT => self.firmware_slot(),
            log::COMMAND_EFFECTS => command_effects(),
            _ => return Err(Status::INVALID_LOG_PAGE.into()),
        };
        if offset > bytes.len() as u64 {
            return Err(Status::INVALID_FIELD.into());
        }
        if !retain_event {
            self.event_log_read(&mut state, page);
        }
        drop(state);
        // What lies past the end of the page reads as zero.
        let mut window = bytes[offset as usize..].to_vec();
        window.resize(length as usize, 0);
        self.give(command, &window, scratch)
    }

    fn firmware_slot(&self) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[0] = 1;
        bytes[8..16].fill(b' ');
        for (byte, c) in bytes[8..16].iter_mut().zip(self.config.firmware.bytes()) {
            *byte = c;
        }
        bytes
    }
}

fn errors(state: &State) -> Vec<u8> {
    let mut bytes = vec![0; ERROR_ENTRIES * 64];
    for (entry, into) in state.error_log.iter().zip(bytes.chunks_exact_mut(64)) {
        into[0..8].copy_from_slice(&entry.count.to_le_bytes());
        into[8..10].copy_from_slice(&entry.sq.to_le_bytes());
        into[10..12].copy_from_slice(&entry.command.to_le_bytes());
        into[12..14].copy_from_slice(&entry.status.to_le_bytes());
        // No particular parameter is at fault.
        into[14..16].fill(0xff);
        into[16..24].copy_from_slice(&entry.lba.to_le_bytes());
        into[24..28].copy_from_slice(&entry.namespace.to_le_bytes());
    }
    bytes
}

fn smart(state: &State) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    let mut put = |offset: usize, value: u64| {
        bytes[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
    };
    let statistics = &state.statistics;
    // Thousands of 512 bytes, rounded up.
    put(32, statistics.bytes_read.div_ceil(512_000));
    put(48, statistics.bytes_written.div_ceil(512_000));
    put(64, statistics.reads);
    put(80, statistics.writes);
    put(112, 1); // power cycles
    put(176, statistics.errors);
    let hot = TEMPERATURE >= state.features.over_temperature;
    let cold = TEMPERATURE <= state.features.under_temperature;
    bytes[0] = u8::from(hot || cold) << 1;
    bytes[1..3].copy_from_slice(&TEMPERATURE.to_le_bytes());
    bytes[3] = 100; // spare, per cent
    bytes[4] = 10;
    bytes
}

/// Bit 0: supported. Bit 1: changes data (NVMe 5.14.1.5).
fn command_effects() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    for opcode in [
        admin::DELETE_SQ,
        admin::CREATE_SQ,
        admin::GET_LOG_PAGE,
        admin::DELETE_CQ,
        admin::CREATE_CQ,
        admin::IDENTIFY,
        admin::ABORT,
        admin::SET_FEATURES,
        admin::GET_FEATURES,
        admin::ASYNC_EVENT_REQUEST,
    ] {
        bytes[usize::from(opcode) * 4] = 1;
    }
    for (opcode, effects) in [
        (nvm::FLUSH, 1),
        (nvm::WRITE, 3),
        (nvm::READ, 1),
        (nvm::COMPARE, 1),
        (nvm::WRITE_ZEROES, 3),
        (nvm::DATASET_MANAGEMENT, 3),
    ] {
        bytes[1024 + usize::from(opcode) * 4] = effects;
    }
    bytes
}
