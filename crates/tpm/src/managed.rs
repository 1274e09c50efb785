//! swtpm as a child process, with its state in a folder of the machine's.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::fd::{AsFd, AsRawFd};
use rustix::io::{FdFlags, fcntl_setfd};

use crate::{Backend, BackendError, Emulator};

/// It ends within this once it is told to.
const END: Duration = Duration::from_secs(5);

/// A running swtpm of our own; it ends with the value.
pub struct Managed {
    emulator: Emulator,
    child: Mutex<Child>,
    /// Held for as long as the state is in use.
    _lock: fs::File,
}

/// swtpm, if this host has it: on the PATH, or where Homebrew puts it.
pub fn find_program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/opt/homebrew/bin".into(), "/usr/local/bin".into()])
        .map(|folder| folder.join("swtpm"))
        .find(|program| program.is_file())
}

/// How to get it, for those who have not.
pub const HINT: &str = if cfg!(target_os = "macos") {
    "Install it with: brew install swtpm"
} else {
    "Install it with your distribution's package manager: apt install swtpm, dnf install swtpm, …"
};

impl Managed {
    /// Starts swtpm on `state`, a folder that is made if need be and that one machine uses at a time. A folder without a TPM
    /// gets a new one.
    pub fn start(program: &Path, state: &Path) -> Result<Managed, BackendError> {
        let failed = |what: &str, error: std::io::Error| {
            BackendError::Start(format!("{what} '{}': {error}", state.display()))
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(state)
            .map_err(|e| failed("cannot make the folder", e))?;
        let lock = fs::OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(state.join("lock"))
            .map_err(|e| failed("cannot write to", e))?;
        lock.try_lock().map_err(|_| {
            BackendError::Start(format!("another machine uses '{}'", state.display()))
        })?;
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = spawn(program, state, theirs)?;
        match Emulator::new(ours) {
            Ok(emulator) => Ok(Managed {
                emulator,
                child: Mutex::new(child),
                _lock: lock,
            }),
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                let mut said = String::new();
                if let Some(errors) = child.stderr.take() {
                    let _ = errors.take(4096).read_to_string(&mut said);
                }
                let said = said.trim();
                Err(BackendError::Start(match said.is_empty() {
                    true => error.to_string(),
                    false => said.to_string(),
                }))
            }
        }
    }

    /// The process, for tests.
    pub fn id(&self) -> u32 {
        self.child.lock().id()
    }
}

fn spawn(program: &Path, state: &Path, control: UnixStream) -> Result<Child, BackendError> {
    // Inherited by the child, and closed here once it runs.
    fcntl_setfd(control.as_fd(), FdFlags::empty()).map_err(std::io::Error::from)?;
    Command::new(program)
        .args(["socket", "--tpm2", "--terminate", "--tpmstate"])
        .arg(format!("dir={}", state.display()))
        .arg("--ctrl")
        .arg(format!("type=unixio,clientfd={}", control.as_raw_fd()))
        // Ctrl-C on our terminal is for us: the TPM ends in order, after the machine.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| BackendError::Start(format!("{}: {error}", program.display())))
}

impl Backend for Managed {
    fn execute(&self, locality: u8, command: &[u8]) -> Result<Vec<u8>, BackendError> {
        self.emulator.execute(locality, command)
    }

    fn cancel(&self) {
        self.emulator.cancel();
    }

    fn reset(&self) -> Result<(), BackendError> {
        self.emulator.reset()
    }

    fn established(&self) -> bool {
        self.emulator.established()
    }

    fn reset_established(&self, locality: u8) {
        self.emulator.reset_established(locality);
    }

    fn shut_down(&self) {
        self.emulator.shut_down();
        let mut child = self.child.lock();
        let until = Instant::now() + END;
        while Instant::now() < until {
            match child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
        tracing::warn!("swtpm did not end by itself");
        let _ = child.kill();
        let _ = child.wait();
    }
}

impl Drop for Managed {
    fn drop(&mut self) {
        self.shut_down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crb::{Config, Crb};
    use device::{Access, Device, Mmio};
    use std::sync::Arc;

    fn program() -> PathBuf {
        find_program().expect("this test needs swtpm: `cargo xtask setup` installs it")
    }

    /// TPM2_Startup(CLEAR), TPM2_GetRandom(16), TPM2_PCR_Read of PCR 16 (SHA-256), TPM2_PCR_Event of 4 bytes to it.
    const STARTUP: &[u8] = &[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x44, 0, 0];
    const RANDOM: &[u8] = &[0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x7b, 0, 16];
    const PCR_READ: &[u8] = &[
        0x80, 1, 0, 0, 0, 20, 0, 0, 1, 0x7e, 0, 0, 0, 1, 0, 0x0b, 3, 0, 0, 1,
    ];
    const PCR_EVENT: &[u8] = &[
        0x80, 2, 0, 0, 0, 33, 0, 0, 1, 0x3c, 0, 0, 0, 16, 0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 1, 0, 0,
        0, 4, 1, 2, 3, 4,
    ];

    /// The code of a response.
    fn code(response: &[u8]) -> u32 {
        u32::from_be_bytes(response[6..10].try_into().unwrap())
    }

    #[test]
    fn a_tpm_of_our_own_and_again_the_next_day() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("win11.tpm");
        let tpm = Managed::start(&program(), &state).unwrap();
        let error = Managed::start(&program(), &state)
            .err()
            .unwrap()
            .to_string();
        assert!(error.contains("another machine uses"), "{error}");
        tpm.reset().unwrap();
        assert!(!tpm.established());
        // TPM_RC_INITIALIZE before a Startup.
        assert_eq!(code(&tpm.execute(0, RANDOM).unwrap()), 0x100);
        assert_eq!(code(&tpm.execute(0, STARTUP).unwrap()), 0);
        let random = tpm.execute(0, RANDOM).unwrap();
        assert_eq!((code(&random), random.len()), (0, 28));
        assert_ne!(random, tpm.execute(1, RANDOM).unwrap());
        assert_eq!(code(&tpm.execute(0, PCR_EVENT).unwrap()), 0);
        let extended = tpm.execute(0, PCR_READ).unwrap();
        assert!(
            extended[extended.len() - 32..]
                .iter()
                .any(|byte| *byte != 0)
        );
        // A reset is one of the TPM too.
        tpm.reset().unwrap();
        assert_eq!(code(&tpm.execute(0, STARTUP).unwrap()), 0);
        let fresh = tpm.execute(0, PCR_READ).unwrap();
        assert!(fresh[fresh.len() - 32..].iter().all(|byte| *byte == 0));
        tpm.shut_down();
        assert!(tpm.execute(0, RANDOM).is_err());
        drop(tpm);
        let kept = fs::read(state.join("tpm2-00.permall")).unwrap();
        let tpm = Managed::start(&program(), &state).unwrap();
        tpm.reset().unwrap();
        assert_eq!(code(&tpm.execute(0, STARTUP).unwrap()), 0);
        drop(tpm);
        assert_eq!(
            kept.len(),
            fs::read(state.join("tpm2-00.permall")).unwrap().len()
        );
    }

    #[test]
    fn a_killed_emulator_is_an_error_not_a_hang() {
        let folder = tempfile::tempdir().unwrap();
        let tpm = Managed::start(&program(), folder.path()).unwrap();
        tpm.reset().unwrap();
        tpm.child.lock().kill().unwrap();
        assert!(tpm.execute(0, STARTUP).is_err());
        assert!(tpm.reset().is_err());
    }

    #[test]
    fn a_folder_that_cannot_be_is_told() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Managed::start(&program(), &file.path().join("x"))
            .err()
            .unwrap();
        assert!(
            error.to_string().contains("cannot make the folder"),
            "{error}"
        );
        let folder = tempfile::tempdir().unwrap();
        let error = Managed::start(Path::new("/nonexistent/swtpm"), folder.path())
            .err()
            .unwrap();
        assert!(error.to_string().contains("/nonexistent/swtpm"), "{error}");
    }

    #[test]
    fn through_the_registers() {
        let folder = tempfile::tempdir().unwrap();
        let tpm = Managed::start(&program(), folder.path()).unwrap();
        let config = Config {
            name: "tpm".into(),
            base: 0,
        };
        let crb = Crb::new(config, Arc::new(tpm)).unwrap();
        crb.reset();
        let write = |at, value| crb.write(Access::new(at, 4), value);
        write(0x08, 1);
        for (command, length) in [(STARTUP, 10), (RANDOM, 28)] {
            write(0x40, 1);
            for (n, byte) in command.iter().enumerate() {
                crb.write(Access::new(0x80 + n as u64, 1), u64::from(*byte));
            }
            write(0x4c, 1);
            crate::testing::wait(|| crb.read(Access::new(0x4c, 4)) == 0);
            assert_eq!(crb.read(Access::new(0x85, 1)), length);
            assert_eq!(crb.read(Access::new(0x86, 4)), 0);
        }
        crb.shutdown();
    }
}
