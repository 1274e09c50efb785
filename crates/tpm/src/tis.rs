//! The FIFO interface (PTP 1.05, 6.5.2), which is TIS 1.3's with TPM 2.0's additions: commands are written, and responses
//! read, through one register.

use std::sync::Arc;

use device::{Access, Device, Mmio};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::command::{self, HEADER, LARGEST};
use crate::executor::Executor;
use crate::locality::Localities;
use crate::{Backend, BackendError, LOCALITIES, LOCALITY_SIZE};

/// Offsets in a locality (PTP 1.05, table 11).
mod offset {
    pub const ACCESS: u64 = 0x00;
    pub const INTF_CAPABILITY: u64 = 0x14;
    pub const STS: u64 = 0x18;
    pub const DATA_FIFO: u64 = 0x24;
    pub const INTERFACE_ID: u64 = 0x30;
    pub const XDATA_FIFO: u64 = 0x80;
    pub const XDATA_FIFO_END: u64 = 0xc0;
    pub const DID_VID: u64 = 0xf00;
    pub const RID: u64 = 0xf04;
}

/// TPM_ACCESS_x.
mod access {
    /// Zero once a dynamic launch has happened.
    pub const TPM_ESTABLISHMENT: u8 = 1 << 0;
    pub const REQUEST_USE: u8 = 1 << 1;
    pub const PENDING_REQUEST: u8 = 1 << 2;
    pub const SEIZE: u8 = 1 << 3;
    pub const BEEN_SEIZED: u8 = 1 << 4;
    pub const ACTIVE_LOCALITY: u8 = 1 << 5;
    pub const TPM_REG_VALID_STS: u8 = 1 << 7;
}

/// TPM_STS_x.
mod sts {
    pub const RESPONSE_RETRY: u32 = 1 << 1;
    pub const SELF_TEST_DONE: u32 = 1 << 2;
    pub const EXPECT: u32 = 1 << 3;
    pub const DATA_AVAIL: u32 = 1 << 4;
    pub const TPM_GO: u32 = 1 << 5;
    pub const COMMAND_READY: u32 = 1 << 6;
    pub const STS_VALID: u32 = 1 << 7;
    pub const BURST_COUNT: u32 = 8;
    pub const COMMAND_CANCEL: u32 = 1 << 24;
    pub const RESET_ESTABLISHMENT: u32 = 1 << 25;
    /// TPM 2.0.
    pub const FAMILY: u32 = 1 << 26;
}

/// TPM_INTF_CAPABILITY_x: TPM 2.0 by PTP, transfers of 64 bytes, and no interrupts.
const INTF_CAPABILITY: u32 = 3 << 28 | 3 << 9;
/// TPM_INTERFACE_ID_x: FIFO as PTP has it, version 0, several localities, transfers of 64 bytes, FIFO capability and
/// selection, which cannot be changed.
const INTERFACE_ID: u32 = 1 << 8 | 3 << 11 | 1 << 13 | 1 << 19;
const DID_VID: u32 = 0x1014 | 1 << 16;
const RID: u32 = 1;

/// Bytes that can be moved without looking at the status again, at most.
const BURST: usize = 64;

/// What the board decides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name for logs.
    pub name: String,
}

/// Where a command is (PTP 1.05, 6.5.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Idle,
    Ready,
    Reception,
    Execution,
    Completion,
}

/// Everything a guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Counts resets and losses of the TPM: a response of an older count is dropped.
    epoch: u64,
    localities: Localities,
    phase: Phase,
    /// The command that is written, or the response.
    buffer: Vec<u8>,
    /// How much of the response has been read.
    read: usize,
}

impl State {
    /// The state after power-on or reset.
    pub fn power_on(_: &Config) -> State {
        State {
            epoch: 0,
            localities: Localities::default(),
            phase: Phase::Idle,
            buffer: Vec::new(),
            read: 0,
        }
    }

    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.buffer.clear();
        self.read = 0;
    }

    /// Whether more of the command is to come: its header is not there yet, or tells so.
    fn expects(&self) -> bool {
        match command::size(&self.buffer) {
            _ if self.buffer.len() < HEADER => true,
            // What tells less than a header, or more than there is room for, is complete: the executor refuses it.
            Some(size) => self.buffer.len() < size && size <= LARGEST,
            None => true,
        }
    }

    fn status(&self) -> u32 {
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let left = self.buffer.len() - self.read;
        let (status, burst) = match self.phase {
            Phase::Idle => (0, 0),
            Phase::Ready => (sts::COMMAND_READY, BURST),
            Phase::Reception => {
                let room = LARGEST - self.buffer.len();
                (bit(self.expects(), sts::EXPECT), room.min(BURST))
            }
            Phase::Execution => (0, 0),
            Phase::Completion => (bit(left > 0, sts::DATA_AVAIL), left.min(BURST)),
        };
        status
            | sts::STS_VALID
            | sts::SELF_TEST_DONE
            | sts::FAMILY
            | (burst as u32) << sts::BURST_COUNT
    }

    fn push(&mut self, byte: u8) {
        if self.phase == Phase::Ready {
            self.enter(Phase::Reception);
        }
        if self.phase == Phase::Reception && self.buffer.len() < LARGEST && self.expects() {
            self.buffer.push(byte);
        }
    }

    fn pull(&mut self) -> u8 {
        let byte = match self.phase {
            Phase::Completion => self.buffer.get(self.read).copied(),
            _ => None,
        };
        self.read += usize::from(byte.is_some());
        byte.unwrap_or(0xff)
    }
}

/// The device.
pub struct Tis {
    config: Config,
    state: Mutex<State>,
    executor: Executor,
}

impl Tis {
    /// A TPM that has its commands executed by `backend`.
    pub fn new(config: Config, backend: Arc<dyn Backend>) -> Result<Arc<Tis>, BackendError> {
        let tis = Arc::new(Tis {
            state: Mutex::new(State::power_on(&config)),
            config,
            executor: Executor::new(backend),
        });
        let weak = Arc::downgrade(&tis);
        tis.executor.begin(move |epoch, response| {
            if let Some(tis) = weak.upgrade() {
                tis.complete(epoch, response);
            }
        })?;
        Ok(tis)
    }

    /// The state, for snapshots and tests.
    pub fn save(&self) -> State {
        self.state.lock().clone()
    }

    fn complete(&self, epoch: u64, response: Vec<u8>) {
        let mut state = self.state.lock();
        if state.epoch == epoch && state.phase == Phase::Execution {
            state.enter(Phase::Completion);
            state.buffer = response;
        }
    }

    /// The locality's command comes to nothing.
    fn abandon(&self, state: &mut State, phase: Phase) {
        if state.phase == Phase::Execution {
            self.executor.cancel();
        }
        state.epoch += 1;
        state.enter(phase);
    }

    fn access(&self, state: &State, locality: usize) -> u8 {
        let localities = &state.localities;
        let bit = |set: bool, bit: u8| if set { bit } else { 0 };
        access::TPM_REG_VALID_STS
            | bit(localities.is_active(locality), access::ACTIVE_LOCALITY)
            | bit(localities.been_seized(locality), access::BEEN_SEIZED)
            | bit(localities.others_request(locality), access::PENDING_REQUEST)
            | bit(localities.requested(locality), access::REQUEST_USE)
            | bit(!self.executor.established(), access::TPM_ESTABLISHMENT)
    }

    /// Exactly one bit may be written (PTP 1.05, 6.5.2.4).
    fn write_access(&self, state: &mut State, locality: usize, value: u8) {
        match value {
            access::ACTIVE_LOCALITY if state.localities.relinquish(locality) => {
                self.abandon(state, Phase::Idle);
            }
            access::BEEN_SEIZED => state.localities.clear_seized(locality),
            access::SEIZE if state.localities.seize(locality) => {
                self.abandon(state, Phase::Idle);
            }
            access::REQUEST_USE => state.localities.request(locality),
            _ => {}
        }
    }

    fn write_status(&self, state: &mut State, locality: usize, value: u32) {
        if value & sts::RESET_ESTABLISHMENT != 0 && locality >= 3 {
            self.executor.reset_established(locality as u8);
        }
        if value & sts::COMMAND_CANCEL != 0 && state.phase == Phase::Execution {
            self.executor.cancel();
        }
        match value & (sts::COMMAND_READY | sts::TPM_GO | sts::RESPONSE_RETRY) {
            // From Reception and Execution it aborts, and the TPM is idle; software asks again until it is ready.
            sts::COMMAND_READY => match state.phase {
                Phase::Reception | Phase::Execution => self.abandon(state, Phase::Idle),
                Phase::Idle | Phase::Ready | Phase::Completion => state.enter(Phase::Ready),
            },
            sts::TPM_GO if state.phase == Phase::Reception && !state.expects() => {
                state.phase = Phase::Execution;
                let command = std::mem::take(&mut state.buffer);
                self.executor.start(state.epoch, locality as u8, command);
            }
            sts::RESPONSE_RETRY if state.phase == Phase::Completion => state.read = 0,
            _ => {}
        }
    }

    /// One byte of a register that is no FIFO.
    fn byte(&self, state: &State, locality: usize, at: u64) -> u8 {
        let active = state.localities.is_active(locality);
        let register = match at & !3 {
            offset::ACCESS => {
                return if at == 0 {
                    self.access(state, locality)
                } else {
                    0xff
                };
            }
            offset::INTF_CAPABILITY => INTF_CAPABILITY,
            offset::STS if active => state.status(),
            offset::STS => u32::MAX,
            offset::INTERFACE_ID => INTERFACE_ID,
            offset::DID_VID => DID_VID,
            offset::RID => RID,
            _ => 0,
        };
        register.to_le_bytes()[(at & 3) as usize]
    }
}

/// Whether an offset is the FIFO's: XDATA_FIFO is the same one, for wide accesses.
fn fifo(at: u64) -> bool {
    (offset::DATA_FIFO..offset::DATA_FIFO + 4).contains(&at)
        || (offset::XDATA_FIFO..offset::XDATA_FIFO_END).contains(&at)
}

impl Mmio for Tis {
    fn read(&self, access: Access) -> u64 {
        let (locality, at) = (
            (access.offset / LOCALITY_SIZE) as usize,
            access.offset % LOCALITY_SIZE,
        );
        if locality >= LOCALITIES {
            return u64::MAX;
        }
        let mut state = self.state.lock();
        (0..u64::from(access.width)).fold(0, |value, n| {
            let byte = if !fifo(at) {
                self.byte(&state, locality, at + n)
            } else if state.localities.is_active(locality) {
                state.pull()
            } else {
                0xff
            };
            value | u64::from(byte) << (8 * n)
        })
    }

    fn write(&self, access: Access, value: u64) {
        let (locality, at) = (
            (access.offset / LOCALITY_SIZE) as usize,
            access.offset % LOCALITY_SIZE,
        );
        if locality >= LOCALITIES {
            return;
        }
        let mut state = self.state.lock();
        if at == offset::ACCESS {
            return self.write_access(&mut state, locality, value as u8);
        }
        if !state.localities.is_active(locality) {
            return;
        }
        if fifo(at) {
            for n in 0..access.width {
                state.push((value >> (8 * n)) as u8);
            }
        } else if at & !3 == offset::STS {
            let value = (value as u32) << (8 * (at & 3));
            self.write_status(&mut state, locality, value);
        }
    }
}

impl Device for Tis {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reset(&self) {
        let epoch = {
            let mut state = self.state.lock();
            state.epoch += 1;
            state.enter(Phase::Idle);
            state.epoch
        };
        self.executor.reset();
        *self.state.lock() = State {
            epoch,
            ..State::power_on(&self.config)
        };
    }

    fn shutdown(&self) {
        self.executor.shut_down();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Fake, wait};
    use proptest::prelude::*;

    fn tis() -> (Arc<Tis>, Arc<Fake>) {
        let fake = Fake::new();
        let config = Config { name: "tpm".into() };
        (Tis::new(config, fake.clone()).unwrap(), fake)
    }

    fn status(tis: &Tis) -> u32 {
        tis.read(Access::new(offset::STS, 4)) as u32
    }

    fn write(tis: &Tis, at: u64, value: u8) {
        tis.write(Access::new(at, 1), value.into());
    }

    /// A command as drivers of TIS give it: `wide` by 32 bits.
    fn command(tis: &Tis, command: &[u8], wide: bool) -> Vec<u8> {
        write(tis, offset::ACCESS, access::REQUEST_USE);
        assert_eq!(tis.read(Access::new(0, 1)), 0xa1);
        write(tis, offset::STS, sts::COMMAND_READY as u8);
        assert_ne!(status(tis) & sts::COMMAND_READY, 0);
        let step = if wide { 4 } else { 1 };
        for bytes in command.chunks(step) {
            assert_ne!(status(tis) >> 8 & 0xffff, 0);
            let value = bytes.iter().rev().fold(0, |v, b| v << 8 | u64::from(*b));
            tis.write(Access::new(offset::DATA_FIFO, bytes.len() as u8), value);
        }
        assert_eq!(status(tis) & sts::EXPECT, 0);
        write(tis, offset::STS, sts::TPM_GO as u8);
        wait(|| status(tis) & sts::DATA_AVAIL != 0);
        let mut response = Vec::new();
        while status(tis) & sts::DATA_AVAIL != 0 {
            response.push(tis.read(Access::new(offset::DATA_FIFO, 1)) as u8);
        }
        write(tis, offset::STS, sts::RESPONSE_RETRY as u8);
        assert_eq!(status(tis) >> 8 & 0xffff, response.len().min(BURST) as u32);
        write(tis, offset::STS, sts::COMMAND_READY as u8);
        write(tis, offset::ACCESS, access::ACTIVE_LOCALITY);
        assert_eq!(tis.read(Access::new(0, 1)), 0x81);
        response
    }

    #[test]
    fn commands_and_their_responses() {
        let (tis, fake) = tis();
        assert_eq!(tis.read(Access::new(0x30, 4)) & 0xf, 0, "FIFO");
        for (size, wide) in [(10, false), (12, true), (4000, true), (4096, false)] {
            let sent = Fake::command(size);
            assert_eq!(command(&tis, &sent, wide), Fake::answer(&sent));
            assert_eq!(fake.took(), [(0, sent)]);
        }
        let mut long = Fake::command(10);
        long[2] = 1;
        assert_eq!(command(&tis, &long, false), command::error(0x142));
    }

    #[test]
    fn localities_and_aborts() {
        let (tis, fake) = tis();
        assert_eq!(
            tis.read(Access::new(0x18, 4)),
            0xffff_ffff,
            "nobody is active"
        );
        write(&tis, 0, access::REQUEST_USE);
        write(&tis, 0x1000, access::REQUEST_USE);
        assert_eq!(tis.read(Access::new(0x1000, 1)), 0x83);
        assert_eq!(tis.read(Access::new(0, 1)), 0xa5);
        fake.hold(true);
        write(&tis, 0x18, sts::COMMAND_READY as u8);
        for byte in Fake::command(10) {
            write(&tis, 0x24, byte);
        }
        write(&tis, 0x18, sts::TPM_GO as u8);
        wait(|| fake.busy());
        // Aborted: idle at first, then ready.
        write(&tis, 0x18, sts::COMMAND_READY as u8);
        assert_eq!(status(&tis) & (sts::COMMAND_READY | sts::DATA_AVAIL), 0);
        write(&tis, 0x18, sts::COMMAND_READY as u8);
        assert_ne!(status(&tis) & sts::COMMAND_READY, 0);
        wait(|| !fake.busy());
        write(&tis, 0, access::ACTIVE_LOCALITY);
        assert_eq!(tis.read(Access::new(0x1000, 1)), 0xa1, "who waited has it");
        write(&tis, 0x2000, access::SEIZE);
        assert_eq!(tis.read(Access::new(0x1000, 1)), 0x91);
        write(&tis, 0x1000, access::BEEN_SEIZED);
        assert_eq!(tis.read(Access::new(0x1000, 1)), 0x81);
        tis.reset();
        assert_eq!((tis.read(Access::new(0x2000, 1)), fake.resets()), (0x80, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Nothing that a guest writes breaks it, and afterwards it works.
        #[test]
        fn any_accesses(accesses in prop::collection::vec(
            (0u64..0x5100, prop::sample::select(vec![1u8, 2, 4, 8]), any::<u64>(), any::<bool>()), 0..300)) {
            let (tis, fake) = tis();
            fake.reset_established(3);
            for (at, width, value, write) in accesses {
                let at = if value & 3 == 0 { at } else { at & 0x303c };
                if write {
                    tis.write(Access::new(at, width), if value & 4 == 0 { value } else { 1 << (value >> 61) });
                } else {
                    tis.read(Access::new(at, width));
                }
            }
            tis.reset();
            let sent = Fake::command(16);
            prop_assert_eq!(command(&tis, &sent, false), Fake::answer(&sent));
        }
    }
}
