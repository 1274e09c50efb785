//! Get Features and Set Features (NVMe 5.13, 5.21).

use crate::command::{Command, Done};
use crate::controller::Inner;
use crate::spec::{Status, feature};
use crate::state::State;

impl Inner {
    pub(crate) fn get_features(&self, command: &Command) -> Done {
        let state = self.state.lock();
        let features = &state.features;
        let argument = command.dword(11);
        Ok(match command.dword(10) as u8 {
            feature::ARBITRATION => features.arbitration,
            feature::POWER_MANAGEMENT => 0,
            feature::TEMPERATURE_THRESHOLD => {
                let (sensor, kind) = (argument >> 16 & 15, argument >> 20 & 3);
                match (sensor, kind) {
                    (0, 0) => features.over_temperature.into(),
                    (0, 1) => features.under_temperature.into(),
                    _ => return Err(Status::INVALID_FIELD.into()),
                }
            }
            feature::ERROR_RECOVERY => {
                Self::check_namespace(command)?;
                features.error_recovery
            }
            feature::VOLATILE_WRITE_CACHE if self.config.write_cache => features.write_cache.into(),
            feature::NUMBER_OF_QUEUES => self.queue_numbers(),
            feature::INTERRUPT_COALESCING => features.coalescing,
            feature::INTERRUPT_VECTOR => {
                let vector = argument as u16;
                if vector >= self.endpoint.msix_vectors() {
                    return Err(Status::INVALID_FIELD.into());
                }
                // The admin queue's vector is never coalesced.
                let alone = vector == 0 || features.uncoalesced.contains(&vector);
                u32::from(vector) | u32::from(alone) << 16
            }
            feature::WRITE_ATOMICITY => features.write_atomicity,
            feature::ASYNC_EVENTS => features.async_events,
            _ => return Err(Status::INVALID_FIELD.into()),
        })
    }

    /// Number of Queues: zero-based, submission and completion.
    fn queue_numbers(&self) -> u32 {
        let last = u32::from(self.config.queues) - 1;
        last << 16 | last
    }

    pub(crate) fn set_features(&self, command: &Command) -> Done {
        if command.dword(10) >> 31 != 0 {
            return Err(Status::FEATURE_NOT_SAVEABLE.into());
        }
        let mut state = self.state.lock();
        let value = command.dword(11);
        match command.dword(10) as u8 {
            feature::ARBITRATION => state.features.arbitration = value & 0xffff_ff07,
            // There is only power state 0.
            feature::POWER_MANAGEMENT if value & 0x1f == 0 => {}
            feature::TEMPERATURE_THRESHOLD => match (value >> 16 & 15, value >> 20 & 3) {
                (0 | 15, 0) => state.features.over_temperature = value as u16,
                (0 | 15, 1) => state.features.under_temperature = value as u16,
                _ => return Err(Status::INVALID_FIELD.into()),
            },
            feature::ERROR_RECOVERY => {
                Self::check_namespace(command)?;
                state.features.error_recovery = value & 0xffff;
            }
            feature::VOLATILE_WRITE_CACHE if self.config.write_cache => {
                state.features.write_cache = value & 1 != 0;
            }
            feature::NUMBER_OF_QUEUES => {
                if value & 0xffff == 0xffff || value >> 16 == 0xffff {
                    return Err(Status::INVALID_FIELD.into());
                }
                if has_io_queues(&state) {
                    return Err(Status::COMMAND_SEQUENCE_ERROR.into());
                }
                return Ok(self.queue_numbers());
            }
            feature::INTERRUPT_COALESCING => state.features.coalescing = value & 0xffff,
            feature::INTERRUPT_VECTOR => {
                let vector = value as u16;
                if vector >= self.endpoint.msix_vectors() {
                    return Err(Status::INVALID_FIELD.into());
                }
                state.features.uncoalesced.retain(|&v| v != vector);
                if value & 1 << 16 != 0 {
                    state.features.uncoalesced.push(vector);
                }
            }
            feature::WRITE_ATOMICITY => state.features.write_atomicity = value & 1,
            feature::ASYNC_EVENTS => state.features.async_events = value & 0xff,
            _ => return Err(Status::INVALID_FIELD.into()),
        }
        Ok(0)
    }
}

fn has_io_queues(state: &State) -> bool {
    state.sqs[1..].iter().any(Option::is_some) || state.cqs[1..].iter().any(Option::is_some)
}
