//! swtpm over its control socket, by swtpm_ioctls(3).
//!
//! The control channel takes a command number and its data in big endian, and answers with a TPM result code and data. One
//! of its commands hands over a socket on which TPM commands and responses go as they are.

use std::io::{self, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use crate::command::{self, HEADER, LARGEST};
use crate::{Backend, BackendError};

/// Control commands.
mod cmd {
    pub const GET_CAPABILITY: u32 = 0x01;
    pub const INIT: u32 = 0x02;
    pub const SHUTDOWN: u32 = 0x03;
    pub const GET_TPMESTABLISHED: u32 = 0x04;
    pub const SET_LOCALITY: u32 = 0x05;
    pub const CANCEL_TPM_CMD: u32 = 0x09;
    pub const RESET_TPMESTABLISHED: u32 = 0x0b;
    pub const STOP: u32 = 0x0e;
    pub const SET_DATAFD: u32 = 0x10;
    pub const SET_BUFFERSIZE: u32 = 0x11;
}

/// What GET_CAPABILITY tells, as far as it is needed.
const NEEDED: &[(u64, &str)] = &[
    (1 << 0, "CMD_INIT"),
    (1 << 1, "CMD_SHUTDOWN"),
    (1 << 2, "CMD_GET_TPMESTABLISHED"),
    (1 << 3, "CMD_SET_LOCALITY"),
    (1 << 7, "CMD_RESET_TPMESTABLISHED"),
    (1 << 10, "CMD_STOP"),
    (1 << 12, "CMD_SET_DATAFD"),
    (1 << 13, "CMD_SET_BUFFERSIZE"),
];

/// The emulator answers control commands within this, the first CMD_INIT (which makes a TPM) included.
const CONTROL: Duration = Duration::from_secs(30);

/// The longest TPM command: making an RSA key can take a while on a busy host.
const COMMAND: Duration = Duration::from_secs(300);

/// A connected emulator.
pub struct Emulator {
    control: Mutex<UnixStream>,
    data: Mutex<Data>,
    /// Wakes what waits for `data`.
    end: UnixStream,
    ended: AtomicBool,
}

struct Data {
    socket: UnixStream,
    /// As last set.
    locality: u8,
}

impl Emulator {
    /// Connects to the control socket at `path`.
    ///
    /// # Errors
    /// Nobody listens there, or it is no swtpm with what is needed.
    pub fn connect(path: &Path) -> Result<Emulator, BackendError> {
        let control = UnixStream::connect(path).map_err(|error| BackendError::Connect {
            path: path.display().to_string(),
            error,
        })?;
        Emulator::new(control)
    }

    /// An emulator at the other end of `control`.
    pub fn new(control: UnixStream) -> Result<Emulator, BackendError> {
        Emulator::patient(control, CONTROL)
    }

    /// One that answers control commands within `patience`.
    fn patient(control: UnixStream, patience: Duration) -> Result<Emulator, BackendError> {
        control.set_read_timeout(Some(patience))?;
        control.set_write_timeout(Some(patience))?;
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(COMMAND))?;
        ours.set_write_timeout(Some(CONTROL))?;
        let emulator = Emulator {
            control: Mutex::new(control),
            end: ours.try_clone()?,
            data: Mutex::new(Data {
                socket: ours,
                locality: 0,
            }),
            ended: AtomicBool::new(false),
        };
        emulator.capabilities()?;
        emulator.hand_over(&theirs)?;
        Ok(emulator)
    }

    /// Sends a control command and reads its answer's first `length` bytes at least.
    fn exchange(
        control: &mut UnixStream,
        number: u32,
        data: &[u8],
        length: usize,
    ) -> io::Result<Vec<u8>> {
        let mut message = number.to_be_bytes().to_vec();
        message.extend_from_slice(data);
        control.write_all(&message)?;
        receive(control, length)
    }

    /// A control command whose answer starts with a result code; what follows that.
    fn command(
        &self,
        what: &'static str,
        number: u32,
        data: &[u8],
        more: usize,
    ) -> Result<Vec<u8>, BackendError> {
        let answer = Emulator::exchange(&mut self.control.lock(), number, data, 4 + more)?;
        checked(what, &answer)
    }

    fn capabilities(&self) -> Result<(), BackendError> {
        // The one answer without a result code.
        let answer = Emulator::exchange(&mut self.control.lock(), cmd::GET_CAPABILITY, &[], 8)?;
        let bytes = answer.get(..8).and_then(|bytes| bytes.try_into().ok());
        let has = u64::from_be_bytes(bytes.ok_or(BackendError::Nonsense("its capabilities"))?);
        match NEEDED.iter().find(|(bit, _)| has & bit == 0) {
            Some((_, name)) => Err(BackendError::Lacks(name)),
            None => Ok(()),
        }
    }

    /// CMD_SET_DATAFD, which carries a socket.
    fn hand_over(&self, socket: &UnixStream) -> Result<(), BackendError> {
        let mut control = self.control.lock();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let sockets = [socket.as_fd()];
        if !ancillary.push(SendAncillaryMessage::ScmRights(&sockets)) {
            return Err(BackendError::Nonsense("no room for a descriptor"));
        }
        let number = cmd::SET_DATAFD.to_be_bytes();
        let message = [io::IoSlice::new(&number)];
        sendmsg(&*control, &message, &mut ancillary, SendFlags::empty())
            .map_err(io::Error::from)?;
        let answer = receive(&mut control, 4)?;
        checked("a socket for commands", &answer).map(drop)
    }

    /// `_TPM_Init`, with buffers as large as the interfaces'.
    fn init(&self) -> Result<(), BackendError> {
        self.command("to stop", cmd::STOP, &[], 0)?;
        let size = (LARGEST as u32).to_be_bytes();
        self.command("its buffer's size", cmd::SET_BUFFERSIZE, &size, 12)?;
        // No flags: what is kept for a suspended machine is not read.
        self.command("to start", cmd::INIT, &[0; 4], 0)?;
        Ok(())
    }
}

/// Reads an answer, which the emulator sends at once, of at least `length` bytes.
fn receive(control: &mut UnixStream, length: usize) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; 64];
    let mut have = 0;
    while have < length {
        match control.read(&mut answer[have..]) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => have += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        // A refusal can be the result code alone.
        if have == 4 && answer[..4] != [0; 4] {
            break;
        }
    }
    answer.truncate(have);
    Ok(answer)
}

fn checked(what: &'static str, answer: &[u8]) -> Result<Vec<u8>, BackendError> {
    match answer.split_first_chunk::<4>() {
        Some(([0, 0, 0, 0], rest)) => Ok(rest.to_vec()),
        Some((code, _)) => Err(BackendError::Refused {
            what,
            code: u32::from_be_bytes(*code),
        }),
        None => Err(BackendError::Nonsense("an answer without a result")),
    }
}

impl Backend for Emulator {
    fn execute(&self, locality: u8, command: &[u8]) -> Result<Vec<u8>, BackendError> {
        let mut data = self.data.lock();
        if data.locality != locality {
            self.command("the locality", cmd::SET_LOCALITY, &[locality], 0)?;
            data.locality = locality;
        }
        let socket = &mut data.socket;
        socket.write_all(command)?;
        let mut response = vec![0; HEADER];
        socket.read_exact(&mut response)?;
        let size = match command::size(&response) {
            Some(size) if (HEADER..=LARGEST).contains(&size) => size,
            _ => {
                // What follows cannot be told from the next response.
                let _ = socket.shutdown(std::net::Shutdown::Both);
                return Err(BackendError::Nonsense("a response of an impossible size"));
            }
        };
        response.resize(size, 0);
        socket.read_exact(&mut response[HEADER..])?;
        Ok(response)
    }

    fn cancel(&self) {
        if let Err(error) = self.command("to cancel", cmd::CANCEL_TPM_CMD, &[], 0) {
            tracing::debug!("{error}");
        }
    }

    fn reset(&self) -> Result<(), BackendError> {
        self.init()?;
        // A TPM starts in locality 0.
        self.command("the locality", cmd::SET_LOCALITY, &[0], 0)?;
        self.data.lock().locality = 0;
        Ok(())
    }

    fn established(&self) -> bool {
        match self.command("the established bit", cmd::GET_TPMESTABLISHED, &[], 1) {
            Ok(rest) => rest.first().is_some_and(|bit| *bit != 0),
            Err(error) => {
                tracing::debug!("{error}");
                false
            }
        }
    }

    fn reset_established(&self, locality: u8) {
        let data = [locality];
        let number = cmd::RESET_TPMESTABLISHED;
        if let Err(error) = self.command("to reset the established bit", number, &data, 0) {
            tracing::debug!("{error}");
        }
    }

    fn shut_down(&self) {
        if self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = self.command("to end", cmd::SHUTDOWN, &[], 0) {
            tracing::warn!("the TPM emulator did not end in order: {error}");
        }
        let _ = self.end.shutdown(std::net::Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    /// An emulator that gives these answers to control commands, one each, then closes.
    fn answers(given: Vec<Vec<u8>>) -> Result<Emulator, BackendError> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let thread = std::thread::spawn(move || {
            let mut buffer = [0; 64];
            for answer in given {
                if theirs.read(&mut buffer).unwrap_or(0) == 0 || theirs.write_all(&answer).is_err()
                {
                    return;
                }
            }
        });
        let emulator = Emulator::patient(ours, Duration::from_millis(100));
        if emulator.is_err() {
            let _ = thread.join();
        }
        emulator
    }

    const ALL: [u8; 8] = [0, 0, 0, 0, 0, 0, 0xff, 0xff];

    #[test]
    fn what_it_refuses_is_told() {
        let text = |given: &[&[u8]]| {
            let given = given.iter().map(|a| a.to_vec()).collect();
            answers(given)
                .err()
                .map(|e| e.to_string())
                .unwrap_or_default()
        };
        assert_eq!(
            text(&[&[0, 0, 0, 0, 0, 0, 0xef, 0xff]]),
            "the TPM emulator does not have CMD_SET_DATAFD"
        );
        assert!(text(&[&ALL, &[0, 0, 0, 9]]).contains("(error 0x9)"));
        assert!(text(&[&ALL]).contains("is gone"));
        assert!(text(&[&[0, 0]]).contains("is gone"));
        let emulator = answers(vec![ALL.to_vec(), vec![0; 4], vec![0, 0, 0, 3]]).unwrap();
        assert!(
            emulator
                .reset()
                .unwrap_err()
                .to_string()
                .contains("refuses to stop")
        );
        assert!(!emulator.established(), "it is gone by now");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Whatever it answers, we say so and go on.
        #[test]
        fn any_answers(given in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8)) {
            let mut all = vec![ALL.to_vec(), vec![0; 4]];
            all.extend(given);
            if let Ok(emulator) = answers(all) {
                let _ = emulator.reset();
                emulator.established();
                emulator.reset_established(3);
            }
        }

        /// Responses of any size in the header.
        #[test]
        fn any_response(response in prop::collection::vec(any::<u8>(), 0..64), size in any::<u16>()) {
            let (control, mut other) = UnixStream::pair().unwrap();
            let thread = std::thread::spawn(move || {
                let mut buffer = [0; 64];
                let _ = other.read(&mut buffer);
                let _ = other.write_all(&ALL);
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut ancillary = rustix::net::RecvAncillaryBuffer::new(&mut space);
                let mut into = [io::IoSliceMut::new(&mut buffer)];
                rustix::net::recvmsg(&other, &mut into, &mut ancillary, rustix::net::RecvFlags::empty()).unwrap();
                let socket = ancillary.drain().find_map(|message| match message {
                    rustix::net::RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                    _ => None,
                });
                let _ = other.write_all(&[0; 4]);
                let mut data = UnixStream::from(socket.unwrap());
                let mut command = [0; 10];
                data.read_exact(&mut command).unwrap();
                let _ = data.write_all(&response);
            });
            let emulator = Arc::new(Emulator::new(control).unwrap());
            let mut command = crate::testing::Fake::command(10);
            command[8..].copy_from_slice(&size.to_be_bytes());
            if let Ok(response) = emulator.execute(0, &command) {
                prop_assert_eq!(command::size(&response), Some(response.len()));
            }
            thread.join().unwrap();
        }
    }
}
