//! The TPM: its emulator, and its registers on the platform bus.

use std::sync::Arc;

use ::tpm::{Backend, Emulator, Managed, crb, tis};
use firmware::board::{Range, Tpm, TpmInterface};

use super::Assembly;
use crate::BuildError;
use crate::description::{Device, Kind, TpmBackend};

/// Where the registers are: the start of the platform bus.
const REGISTERS: Range = Range::new(0x0c00_0000, ::tpm::SIZE);

/// A TPM whose emulator is there.
pub struct Opened {
    name: String,
    interface: TpmInterface,
    backend: Arc<dyn Backend>,
}

/// The model's name.
pub fn model(interface: TpmInterface) -> &'static str {
    match interface {
        TpmInterface::Crb => "tpm-crb-device",
        TpmInterface::Tis => "tpm-tis-device",
    }
}

/// Connects to, or starts, the emulator of the TPM among `devices`. `None` if there is none, or an optional one cannot be
/// had.
pub fn open(devices: &[Device]) -> Result<Option<Opened>, BuildError> {
    let found = devices.iter().find_map(|device| match &device.kind {
        Kind::Tpm { interface, backend } => Some((device, *interface, backend)),
        _ => None,
    });
    let Some((device, interface, backend)) = found else {
        return Ok(None);
    };
    let name = match &device.id {
        Some(id) => id.clone(),
        None => model(interface).to_string(),
    };
    let fail = |reason: String| BuildError::Device {
        name: name.clone(),
        reason,
    };
    let backend: Arc<dyn Backend> = match backend {
        TpmBackend::Emulator { socket } => {
            Arc::new(Emulator::connect(socket).map_err(|e| fail(e.to_string()))?)
        }
        TpmBackend::Managed { state, optional } => match ::tpm::find_program() {
            Some(program) => {
                Arc::new(Managed::start(&program, state).map_err(|e| fail(e.to_string()))?)
            }
            None if *optional => {
                tracing::warn!(
                    "{name}: the machine has no TPM, as swtpm is not on this host. {}",
                    ::tpm::managed::HINT
                );
                return Ok(None);
            }
            None => {
                return Err(fail(format!(
                    "swtpm, which does a TPM's work, is not on this host\n{}\n\
                     To start without a TPM: -tpmdev managed,…,optional=on",
                    ::tpm::managed::HINT
                )));
            }
        },
    };
    Ok(Some(Opened {
        name,
        interface,
        backend,
    }))
}

impl Opened {
    /// What tables and trees tell.
    pub fn place(&self) -> Tpm {
        Tpm {
            interface: self.interface,
            registers: REGISTERS,
        }
    }

    /// Puts the registers in place.
    pub fn add(self, parts: &mut Assembly) -> Result<(), BuildError> {
        let Opened {
            name,
            interface,
            backend,
        } = self;
        let failed = |error: ::tpm::BackendError| BuildError::Device {
            name: name.clone(),
            reason: error.to_string(),
        };
        match interface {
            TpmInterface::Crb => {
                let config = crb::Config {
                    name: name.clone(),
                    base: REGISTERS.base,
                };
                parts.add(REGISTERS, &crb::Crb::new(config, backend).map_err(failed)?)
            }
            TpmInterface::Tis => {
                let config = tis::Config { name: name.clone() };
                parts.add(REGISTERS, &tis::Tis::new(config, backend).map_err(failed)?)
            }
        }
    }
}
