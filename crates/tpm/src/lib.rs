//! TPM 2.0: the interfaces that guests see, and the emulators that do the work.
//!
//! - [`crb`] and [`tis`] are the register interfaces of the TCG PC Client Platform TPM Profile Specification for TPM 2.0
//!   (PTP) 1.05: the command response buffer, and the FIFO that is also TIS.
//! - [`Backend`] executes commands; [`emulator`] is swtpm over its control socket, [`managed`] starts swtpm itself.
//!
//! Commands run on a thread of their own, so that processors never wait for the TPM.

mod command;
pub mod crb;
pub mod emulator;
mod executor;
mod locality;
pub mod managed;
pub mod tis;

#[cfg(test)]
mod testing;

pub use emulator::Emulator;
pub use managed::{Managed, find_program};

/// Localities that software has (PTP 1.05, 3.2); 4 is the platform's.
pub const LOCALITIES: usize = 4;

/// Bytes of the registers of one locality.
pub const LOCALITY_SIZE: u64 = 0x1000;

/// Bytes of a TPM's registers: five localities, the last of which answers nobody.
pub const SIZE: u64 = 5 * LOCALITY_SIZE;

/// What executes commands.
pub trait Backend: Send + Sync {
    /// Executes one command, whose header is sound, and waits for its response.
    ///
    /// # Errors
    /// The TPM is gone, or answers nonsense.
    fn execute(&self, locality: u8, command: &[u8]) -> Result<Vec<u8>, BackendError>;

    /// Asks the TPM to give up the command that it executes. Does not wait for that.
    fn cancel(&self);

    /// `_TPM_Init`: back to power-on, before a TPM2_Startup.
    fn reset(&self) -> Result<(), BackendError>;

    /// Whether a dynamic launch has happened since the bit was reset.
    fn established(&self) -> bool;

    /// Resets the bit of [`Backend::established`], from locality 3 or 4.
    fn reset_established(&self, locality: u8);

    /// The machine ends: the TPM writes what it must keep.
    fn shut_down(&self);
}

/// A TPM that does not work.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    #[error("cannot connect to the TPM emulator at '{path}': {error}")]
    Connect { path: String, error: std::io::Error },
    #[error("the TPM emulator is gone: {0}")]
    Io(#[from] std::io::Error),
    #[error("the TPM emulator does not have {0}")]
    Lacks(&'static str),
    #[error("the TPM emulator refuses {what} (error {code:#x})")]
    Refused { what: &'static str, code: u32 },
    #[error("the TPM emulator answers nonsense: {0}")]
    Nonsense(&'static str),
    #[error("swtpm cannot be started: {0}")]
    Start(String),
}
