//! The command response buffer interface (PTP 1.05, 6.5.3): a command is put into a buffer, started, and its response is
//! in the same buffer.

use std::sync::Arc;

use device::{Access, Device, Mmio, Registers};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::executor::Executor;
use crate::locality::Localities;
use crate::{Backend, BackendError, LOCALITIES, LOCALITY_SIZE};

/// Offsets in a locality (PTP 1.05, table 19).
mod offset {
    pub const LOC_STATE: u64 = 0x00;
    pub const LOC_CTRL: u64 = 0x08;
    pub const LOC_STS: u64 = 0x0c;
    pub const INTF_ID_LOW: u64 = 0x30;
    pub const INTF_ID_HIGH: u64 = 0x34;
    pub const CTRL_REQ: u64 = 0x40;
    pub const CTRL_STS: u64 = 0x44;
    pub const CTRL_CANCEL: u64 = 0x48;
    pub const CTRL_START: u64 = 0x4c;
    pub const CTRL_CMD_SIZE: u64 = 0x58;
    pub const CTRL_CMD_LADDR: u64 = 0x5c;
    pub const CTRL_CMD_HADDR: u64 = 0x60;
    pub const CTRL_RSP_SIZE: u64 = 0x64;
    pub const CTRL_RSP_LADDR: u64 = 0x68;
    pub const CTRL_RSP_HADDR: u64 = 0x6c;
    pub const DATA_BUFFER: u64 = 0x80;
}

/// TPM_LOC_STATE_x.
mod loc_state {
    /// Zero once a dynamic launch has happened.
    pub const TPM_ESTABLISHED: u32 = 1 << 0;
    pub const LOC_ASSIGNED: u32 = 1 << 1;
    pub const ACTIVE_LOCALITY: u32 = 2;
    pub const TPM_REG_VALID_STS: u32 = 1 << 7;
}

/// TPM_LOC_CTRL_x.
mod loc_ctrl {
    pub const REQUEST_ACCESS: u32 = 1 << 0;
    pub const RELINQUISH: u32 = 1 << 1;
    pub const SEIZE: u32 = 1 << 2;
    pub const RESET_ESTABLISHMENT: u32 = 1 << 3;
}

/// TPM_LOC_STS_x.
mod loc_sts {
    pub const GRANTED: u32 = 1 << 0;
    pub const BEEN_SEIZED: u32 = 1 << 1;
}

/// TPM_CRB_CTRL_REQ_x.
const COMMAND_READY: u32 = 1 << 0;
const GO_IDLE: u32 = 1 << 1;
/// TPM_CRB_CTRL_STS_x.
const TPM_IDLE: u32 = 1 << 1;

/// TPM_CRB_INTF_ID_x, low half: CRB interface, version 1, several localities, transfers of 64 bytes, CRB capability and
/// selection, which cannot be changed. High half: vendor and device.
const INTF_ID: u32 = 1 | 1 << 4 | 1 << 8 | 3 << 11 | 1 << 14 | 1 << 17 | 1 << 19;
const VENDOR: u32 = 0x1014 | 1 << 16;

/// Bytes of the data buffer: up to the end of the locality's page.
pub const BUFFER: usize = (LOCALITY_SIZE - offset::DATA_BUFFER) as usize;

/// What the board decides.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name for logs.
    pub name: String,
    /// Where the registers are: they tell the buffer's address.
    pub base: u64,
}

/// Where a command is (PTP 1.05, 6.5.3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    Idle,
    /// Ready, and Reception: the buffer takes a command.
    Ready,
    Execution,
    /// The buffer has a response.
    Completion,
}

/// Everything a guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Counts resets and losses of the TPM: a response of an older count is dropped.
    epoch: u64,
    localities: Localities,
    phase: Phase,
    cancel: bool,
    buffer: Vec<u8>,
}

impl State {
    /// The state after power-on or reset.
    pub fn power_on(_: &Config) -> State {
        State {
            epoch: 0,
            localities: Localities::default(),
            phase: Phase::Idle,
            cancel: false,
            buffer: vec![0; BUFFER],
        }
    }

    /// The locality loses the TPM: what it began comes to nothing.
    fn abandon(&mut self) {
        self.epoch += 1;
        self.phase = Phase::Idle;
        self.cancel = false;
    }
}

/// The device.
pub struct Crb {
    config: Config,
    state: Mutex<State>,
    executor: Executor,
}

impl Crb {
    /// A TPM at `config.base` that has its commands executed by `backend`.
    pub fn new(config: Config, backend: Arc<dyn Backend>) -> Result<Arc<Crb>, BackendError> {
        let crb = Arc::new(Crb {
            state: Mutex::new(State::power_on(&config)),
            config,
            executor: Executor::new(backend),
        });
        let weak = Arc::downgrade(&crb);
        crb.executor.begin(move |epoch, response| {
            if let Some(crb) = weak.upgrade() {
                crb.complete(epoch, &response);
            }
        })?;
        Ok(crb)
    }

    /// The state, for snapshots and tests.
    pub fn save(&self) -> State {
        self.state.lock().clone()
    }

    fn complete(&self, epoch: u64, response: &[u8]) {
        let mut state = self.state.lock();
        if state.epoch != epoch || state.phase != Phase::Execution {
            return;
        }
        let length = response.len().min(BUFFER);
        state.buffer[..length].copy_from_slice(&response[..length]);
        state.phase = Phase::Completion;
    }

    fn write_control(&self, state: &mut State, locality: usize, value: u32) {
        if value & loc_ctrl::RESET_ESTABLISHMENT != 0 && locality >= 3 {
            self.executor.reset_established(locality as u8);
        }
        if value & loc_ctrl::RELINQUISH != 0 {
            if state.localities.relinquish(locality) {
                self.stop(state);
            }
        } else if value & loc_ctrl::SEIZE != 0 {
            if state.localities.seize(locality) {
                self.stop(state);
            }
        } else if value & loc_ctrl::REQUEST_ACCESS != 0 {
            state.localities.clear_seized(locality);
            state.localities.request(locality);
        }
    }

    fn stop(&self, state: &mut State) {
        if state.phase == Phase::Execution {
            self.executor.cancel();
        }
        state.abandon();
    }

    fn write_request(&self, state: &mut State, value: u32) {
        match value & (COMMAND_READY | GO_IDLE) {
            COMMAND_READY if state.phase != Phase::Execution => {
                if state.phase != Phase::Ready {
                    state.buffer.fill(0);
                }
                state.phase = Phase::Ready;
            }
            GO_IDLE if state.phase != Phase::Execution => state.phase = Phase::Idle,
            _ => {}
        }
    }

    fn start(&self, state: &mut State, locality: usize) {
        if state.phase != Phase::Ready {
            return;
        }
        state.phase = Phase::Execution;
        let command = state.buffer.clone();
        self.executor.start(state.epoch, locality as u8, command);
    }
}

impl Registers for Crb {
    fn read_register(&self, at: u64, _: u32) -> u32 {
        let (locality, at) = ((at / LOCALITY_SIZE) as usize, at % LOCALITY_SIZE);
        if locality >= LOCALITIES {
            return u32::MAX;
        }
        let state = self.state.lock();
        let active = state.localities.is_active(locality);
        let bit = |set: bool, bit: u32| if set { bit } else { 0 };
        let buffer = self.config.base + locality as u64 * LOCALITY_SIZE + offset::DATA_BUFFER;
        match at {
            offset::LOC_STATE => {
                let assigned = state.localities.active();
                loc_state::TPM_REG_VALID_STS
                    | bit(!self.executor.established(), loc_state::TPM_ESTABLISHED)
                    | assigned.map_or(0, |active| {
                        loc_state::LOC_ASSIGNED | u32::from(active) << loc_state::ACTIVE_LOCALITY
                    })
            }
            offset::LOC_STS => {
                bit(active, loc_sts::GRANTED)
                    | bit(state.localities.been_seized(locality), loc_sts::BEEN_SEIZED)
            }
            offset::INTF_ID_LOW => INTF_ID,
            offset::INTF_ID_HIGH => VENDOR,
            offset::CTRL_STS => bit(state.phase == Phase::Idle, TPM_IDLE),
            offset::CTRL_CANCEL => state.cancel.into(),
            offset::CTRL_START => (state.phase == Phase::Execution).into(),
            offset::CTRL_CMD_SIZE | offset::CTRL_RSP_SIZE => BUFFER as u32,
            offset::CTRL_CMD_LADDR | offset::CTRL_RSP_LADDR => buffer as u32,
            offset::CTRL_CMD_HADDR | offset::CTRL_RSP_HADDR => (buffer >> 32) as u32,
            offset::DATA_BUFFER.. if active && state.phase != Phase::Execution => {
                let at = (at - offset::DATA_BUFFER) as usize;
                match state.buffer.get(at..at + 4).map(<[u8; 4]>::try_from) {
                    Some(Ok(bytes)) => u32::from_le_bytes(bytes),
                    _ => u32::MAX,
                }
            }
            // The buffer is not for others to see.
            offset::DATA_BUFFER.. => u32::MAX,
            // Requests that are done with, interrupts that there are none of, and what is reserved.
            _ => 0,
        }
    }

    fn write_register(&self, at: u64, _: u32, value: u32, mask: u32) {
        let (locality, at) = ((at / LOCALITY_SIZE) as usize, at % LOCALITY_SIZE);
        if locality >= LOCALITIES {
            return;
        }
        let mut state = self.state.lock();
        if at == offset::LOC_CTRL {
            return self.write_control(&mut state, locality, value);
        }
        if !state.localities.is_active(locality) {
            return;
        }
        match at {
            offset::CTRL_REQ => self.write_request(&mut state, value),
            offset::CTRL_CANCEL => {
                let begun = value & 1 != 0 && !state.cancel;
                state.cancel = value & 1 != 0;
                if begun && state.phase == Phase::Execution {
                    self.executor.cancel();
                }
            }
            offset::CTRL_START if value & 1 != 0 => self.start(&mut state, locality),
            // Linux gives one command after the other without asking for readiness between them: the first byte ends the
            // response.
            offset::DATA_BUFFER.. if matches!(state.phase, Phase::Ready | Phase::Completion) => {
                state.phase = Phase::Ready;
                let at = (at - offset::DATA_BUFFER) as usize;
                if let Some(bytes) = state.buffer.get_mut(at..at + 4) {
                    let old = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                    bytes.copy_from_slice(&(old & !mask | value).to_le_bytes());
                }
            }
            _ => {}
        }
    }
}

impl Mmio for Crb {
    fn read(&self, access: Access) -> u64 {
        self.read_any(access)
    }

    fn write(&self, access: Access, value: u64) {
        self.write_any(access, value);
    }
}

impl Device for Crb {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reset(&self) {
        let epoch = {
            let mut state = self.state.lock();
            state.abandon();
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

    const BASE: u64 = 0x0c00_0000;

    fn crb() -> (Arc<Crb>, Arc<Fake>) {
        let fake = Fake::new();
        let config = Config {
            name: "tpm".into(),
            base: BASE,
        };
        (Crb::new(config, fake.clone()).unwrap(), fake)
    }

    fn read(crb: &Crb, at: u64) -> u32 {
        crb.read(Access::new(at, 4)) as u32
    }

    fn write(crb: &Crb, at: u64, value: u32) {
        crb.write(Access::new(at, 4), value.into());
    }

    /// A command as Linux and EDK II give it: locality, ready, buffer, start, poll, read, idle, relinquish.
    fn command(crb: &Crb, command: &[u8]) -> Vec<u8> {
        write(crb, offset::LOC_CTRL, loc_ctrl::REQUEST_ACCESS);
        assert_eq!(read(crb, offset::LOC_STS), loc_sts::GRANTED);
        assert_eq!(read(crb, offset::LOC_STATE), 0x83);
        write(crb, offset::CTRL_REQ, COMMAND_READY);
        assert_eq!(read(crb, offset::CTRL_REQ), 0);
        assert_eq!(read(crb, offset::CTRL_STS), 0);
        for (n, bytes) in command.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            let at = offset::DATA_BUFFER + n as u64 * 8;
            crb.write(Access::new(at, bytes.len() as u8), u64::from_le_bytes(word));
        }
        write(crb, offset::CTRL_START, 1);
        wait(|| read(crb, offset::CTRL_START) == 0);
        let size =
            u32::from_be_bytes((read(crb, 0x80) >> 16 | read(crb, 0x84) << 16).to_le_bytes());
        let response = (0..u64::from(size))
            .map(|n| crb.read(Access::new(offset::DATA_BUFFER + n, 1)) as u8)
            .collect();
        write(crb, offset::CTRL_REQ, GO_IDLE);
        assert_eq!(read(crb, offset::CTRL_STS), TPM_IDLE);
        write(crb, offset::LOC_CTRL, loc_ctrl::RELINQUISH);
        assert_eq!(read(crb, offset::LOC_STS), 0);
        response
    }

    #[test]
    fn what_it_is() {
        let (crb, _) = crb();
        assert_eq!(read(&crb, 0x30) & 0xff, 0x11, "CRB, version 1");
        assert_eq!(read(&crb, 0x5c), 0x0c00_0080);
        assert_eq!(crb.read(Access::new(0x2068, 8)), 0x0c00_2080);
        assert_eq!(read(&crb, 0x58), 3968);
        assert_eq!(read(&crb, 0x4000), u32::MAX, "the platform's locality");
    }

    #[test]
    fn commands_and_their_responses() {
        let (crb, fake) = crb();
        let sent = Fake::command(60);
        assert_eq!(command(&crb, &sent), Fake::answer(&sent));
        assert_eq!(fake.took(), [(0, sent)]);
        // A header that tells more than the buffer has, or less than a header is.
        for size in [5u32, 5000, u32::MAX] {
            let mut bad = Fake::command(20);
            bad[2..6].copy_from_slice(&size.to_be_bytes());
            assert_eq!(command(&crb, &bad), crate::command::error(0x142));
        }
        fake.fail();
        assert_eq!(
            command(&crb, &Fake::command(12)),
            crate::command::error(0x101)
        );
    }

    /// Linux asks for readiness once for several commands.
    #[test]
    fn commands_in_a_row() {
        let (crb, fake) = crb();
        write(&crb, 0x08, loc_ctrl::REQUEST_ACCESS);
        write(&crb, 0x40, COMMAND_READY);
        for size in [12, 30, 14] {
            let sent = Fake::command(size);
            for (n, byte) in sent.iter().enumerate() {
                crb.write(Access::new(0x80 + n as u64, 1), u64::from(*byte));
            }
            write(&crb, 0x4c, 1);
            wait(|| read(&crb, 0x4c) == 0);
            assert_eq!(fake.took(), [(0, sent)]);
            assert_eq!(crb.read(Access::new(0x85, 1)), size as u64);
        }
        // Nothing new: nothing is started.
        write(&crb, 0x4c, 1);
        assert_eq!(read(&crb, 0x4c), 0);
    }

    #[test]
    fn localities_cannot_disturb_each_other() {
        let (crb, fake) = crb();
        write(&crb, 0x08, loc_ctrl::REQUEST_ACCESS);
        write(&crb, 0x40, COMMAND_READY);
        write(&crb, 0x80, 0x1122_3344);
        // Locality 2 sees no buffer, and what it writes goes nowhere.
        assert_eq!(read(&crb, 0x2080), u32::MAX);
        write(&crb, 0x2080, 0);
        write(&crb, 0x2040, GO_IDLE);
        assert_eq!(read(&crb, 0x80), 0x1122_3344);
        write(&crb, 0x2008, loc_ctrl::REQUEST_ACCESS);
        assert_eq!(read(&crb, 0x200c), 0);
        write(&crb, 0x2008, loc_ctrl::SEIZE);
        assert_eq!(read(&crb, 0x200c), loc_sts::GRANTED);
        assert_eq!(read(&crb, 0x0c), loc_sts::BEEN_SEIZED);
        assert_eq!(read(&crb, 0x2044), TPM_IDLE);
        assert_eq!(read(&crb, 0x00), 0x83 | 2 << 2);
        write(&crb, 0x3008, loc_ctrl::RESET_ESTABLISHMENT);
        wait(|| !fake.established());
    }

    #[test]
    fn cancel_reset_and_loss_drop_the_response() {
        let (crb, fake) = crb();
        let begin = || {
            write(&crb, 0x08, loc_ctrl::REQUEST_ACCESS);
            write(&crb, 0x40, COMMAND_READY);
            let sent = Fake::command(10);
            for (n, byte) in sent.iter().enumerate() {
                crb.write(Access::new(0x80 + n as u64, 1), u64::from(*byte));
            }
            fake.hold(true);
            write(&crb, 0x4c, 1);
            wait(|| fake.busy());
        };
        begin();
        assert_eq!(read(&crb, 0x80), u32::MAX, "not while it executes");
        write(&crb, 0x48, 1);
        wait(|| read(&crb, 0x4c) == 0);
        assert_eq!(read(&crb, 0x48), 1);
        write(&crb, 0x48, 0);
        begin();
        write(&crb, 0x08, loc_ctrl::RELINQUISH);
        wait(|| !fake.busy());
        assert_eq!(crb.save().phase, Phase::Idle);
        begin();
        crb.reset();
        assert_eq!(fake.resets(), 1);
        let fresh = State::power_on(&crb.config);
        assert_eq!(
            State {
                epoch: 0,
                ..crb.save()
            },
            fresh
        );
        crb.shutdown();
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// Nothing that a guest writes breaks it, and afterwards it works.
        #[test]
        fn any_accesses(accesses in prop::collection::vec(
            (0u64..0x5100, prop::sample::select(vec![1u8, 2, 4, 8]), any::<u64>(), any::<bool>()), 0..200)) {
            let (crb, fake) = crb();
            fake.reset_established(3);
            for (at, width, value, write) in accesses {
                // Most of them where registers are.
                let at = if value & 3 == 0 { at } else { at & 0x30ff };
                if write {
                    crb.write(Access::new(at, width), value & value >> 7);
                } else {
                    crb.read(Access::new(at, width));
                }
            }
            crb.reset();
            let sent = Fake::command(16);
            prop_assert_eq!(command(&crb, &sent), Fake::answer(&sent));
        }
    }
}
