//! The controller: configuration, wiring, and the workers' round.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use device::{Access, Device, Dma, Registers, Ticket, Workers};
use parking_lot::{Mutex, RwLock};
use pci::registers::COMMAND;
use pci::{BarKind, Endpoint, EndpointState, Function, Identity, RestoreError};
use serde::{Deserialize, Serialize};
use storage::Disk;

use crate::command::{Command, Outcome};
use crate::prp::Pieces;
use crate::spec::csts;
use crate::state::State;

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NvmeConfig {
    /// For logs.
    pub name: String,
    /// 20 ASCII characters at most.
    pub serial: String,
    /// 40 ASCII characters at most.
    pub model: String,
    /// 8 ASCII characters at most.
    pub firmware: String,
    /// I/O queue pairs, 1 to 64.
    pub queues: u16,
    /// Whether writes may wait in the host's cache for a flush. The driver may turn that off.
    pub write_cache: bool,
    /// Refuse writes even if the disk takes them.
    pub read_only: bool,
    /// Bytes: 512 or 4096. By default the disk's own.
    pub logical_block_size: Option<u32>,
    /// The namespace's identifiers; without them, made of serial and model.
    pub eui64: Option<u64>,
    pub uuid: Option<[u8; 16]>,
}

impl Default for NvmeConfig {
    fn default() -> Self {
        NvmeConfig {
            name: "nvme".into(),
            serial: "dormer".into(),
            model: "Dormer NVMe Drive".into(),
            firmware: "1.0".into(),
            queues: 64,
            write_cache: true,
            read_only: false,
            logical_block_size: None,
            eui64: None,
            uuid: None,
        }
    }
}

impl NvmeConfig {
    /// FNV-1a over serial and model: the same drive has the same identifiers in every run.
    fn digest(&self, salt: u8) -> u64 {
        let bytes = self
            .serial
            .bytes()
            .chain([0])
            .chain(self.model.bytes())
            .chain([0, salt]);
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
    }

    /// IEEE Extended Unique Identifier, as it goes over the wire; locally administered unless the user gave one.
    pub(crate) fn eui64(&self) -> [u8; 8] {
        let made = || self.digest(0) & !(1 << 56) | 1 << 57;
        self.eui64.unwrap_or_else(made).to_be_bytes()
    }

    /// UUID, version 8 unless the user gave one (RFC 9562, 5.8).
    pub(crate) fn uuid(&self) -> [u8; 16] {
        self.uuid.unwrap_or_else(|| {
            let made = u128::from(self.digest(1)) << 64 | u128::from(self.digest(2));
            let mut bytes = made.to_be_bytes();
            bytes[6] = bytes[6] & 0x0f | 0x80;
            bytes[8] = bytes[8] & 0x3f | 0x80;
            bytes
        })
    }
}

/// Options that make no controller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{option}={value} of {device}: {rule}")]
    Option {
        device: String,
        option: &'static str,
        value: String,
        rule: &'static str,
    },
    #[error("cannot start a thread of {device}: {reason}")]
    Thread { device: String, reason: String },
}

/// All that a guest can observe of the function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NvmeState {
    endpoint: EndpointState,
    controller: State,
}

/// An NVMe controller as a PCI function.
pub struct Nvme {
    pub(crate) inner: Arc<Inner>,
    pub(crate) workers: Workers,
}

/// Locks, in the order they are taken: epoch, state, the endpoint.
pub(crate) struct Inner {
    pub config: NvmeConfig,
    pub endpoint: Endpoint,
    pub dma: Dma,
    pub disk: Arc<dyn Disk>,
    pub read_only: bool,
    /// log2 of the bytes of a logical block.
    pub block_shift: u32,
    /// Counts resets. Held for reading by what writes to the guest on behalf of an epoch.
    pub epoch: RwLock<u64>,
    pub state: Mutex<State>,
    /// While a snapshot is taken.
    pub paused: AtomicBool,
    scratches: Mutex<Vec<Scratch>>,
}

/// What a worker needs again for each command.
#[derive(Default)]
pub(crate) struct Scratch {
    pub buffer: Buffer,
    pub pieces: Pieces,
}

/// A bounce buffer; grows to the largest transfer.
#[derive(Default)]
pub(crate) struct Buffer(Vec<u8>);

impl Buffer {
    pub fn of(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length {
            self.0.resize(length, 0);
        }
        &mut self.0[..length]
    }
}

/// Worker threads.
const THREADS: usize = 4;
/// Commands a worker does before it tells of their completion.
const TURN: usize = 16;
/// A transfer of so many blocks is worth waking another worker for what comes after it.
const LARGE: u64 = 128;

const REGISTERS_BAR: u8 = 0;
const BAR_SIZE: u64 = 0x4000;
const MSIX_TABLE: u32 = 0x2000;
const MSIX_PBA: u32 = 0x3000;

impl Nvme {
    /// A controller with one namespace on `disk`. `dma` is the guest's RAM.
    pub fn new(
        config: NvmeConfig,
        disk: Arc<dyn Disk>,
        dma: Dma,
    ) -> Result<Arc<Nvme>, ConfigError> {
        let check = |ok: bool, option, value: String, rule| {
            let error = ConfigError::Option {
                device: config.name.clone(),
                option,
                value,
                rule,
            };
            if ok { Ok(()) } else { Err(error) }
        };
        let block = config
            .logical_block_size
            .unwrap_or_else(|| disk.block_size());
        check(
            matches!(block, 512 | 4096),
            "logical_block_size",
            block.to_string(),
            "512 or 4096",
        )?;
        check(
            (1..=64).contains(&config.queues),
            "max_ioqpairs",
            config.queues.to_string(),
            "1 to 64",
        )?;
        for (option, text, length, rule) in [
            ("serial", &config.serial, 20, "at most 20 ASCII characters"),
            ("model", &config.model, 40, "at most 40 ASCII characters"),
            (
                "firmware",
                &config.firmware,
                8,
                "at most 8 ASCII characters",
            ),
        ] {
            check(
                text.len() <= length && text.is_ascii(),
                option,
                text.clone(),
                rule,
            )?;
        }
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x0010,
            revision: 2,
            class: 0x01_0802,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        let endpoint = Endpoint::builder(identity)
            .bar(
                REGISTERS_BAR,
                BarKind::Memory64 {
                    prefetchable: false,
                },
                BAR_SIZE,
            )
            .interrupt_pin()
            .msix(config.queues + 1, REGISTERS_BAR, MSIX_TABLE, MSIX_PBA)
            .power_management()
            .express()
            .build();
        let inner = Arc::new(Inner {
            endpoint,
            dma,
            read_only: config.read_only || disk.read_only(),
            block_shift: block.trailing_zeros(),
            epoch: RwLock::new(0),
            state: Mutex::new(State::power_on(config.queues, config.write_cache)),
            paused: AtomicBool::new(false),
            scratches: Mutex::default(),
            disk,
            config,
        });
        let job = inner.clone();
        let workers = Workers::new(&inner.config.name, THREADS, move |ticket| job.work(ticket))
            .map_err(|e| ConfigError::Thread {
                device: inner.config.name.clone(),
                reason: e.to_string(),
            })?;
        Ok(Arc::new(Nvme { inner, workers }))
    }

    /// Waits until nothing is in flight and lets nothing begin until [`Nvme::resume`].
    pub fn pause(&self) {
        self.inner.paused.store(true, Ordering::SeqCst);
        self.workers.drain();
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.inner.paused.store(false, Ordering::SeqCst);
        self.workers.wake();
    }

    /// A copy of the state, for a snapshot. Only while paused.
    pub fn state(&self) -> NvmeState {
        NvmeState {
            endpoint: self.inner.endpoint.state(),
            controller: self.inner.state.lock().clone(),
        }
    }

    /// Takes over a state that [`Nvme::state`] gave.
    pub fn restore(&self, saved: NvmeState) -> Result<(), RestoreError> {
        let mut epoch = self.inner.epoch.write();
        let mut state = self.inner.state.lock();
        let slots = state.sqs.len();
        let queues = &saved.controller;
        let sizes_fit = queues
            .sqs
            .iter()
            .flatten()
            .all(|q| q.size >= 2 && q.head < q.size)
            && queues
                .cqs
                .iter()
                .flatten()
                .all(|q| q.size >= 2 && q.head < q.size && q.tail < q.size)
            && usize::from(queues.next_sq) < slots;
        if queues.sqs.len() != slots || queues.cqs.len() != slots || !sizes_fit {
            return Err(RestoreError);
        }
        self.inner.endpoint.restore(saved.endpoint)?;
        *epoch = epoch.wrapping_add(1);
        *state = saved.controller;
        self.inner.update(&mut state);
        Ok(())
    }
}

impl Inner {
    /// A worker's job: serves all queues until they are empty.
    fn work(&self, ticket: &Ticket) {
        let mut scratch = self.scratches.lock().pop().unwrap_or_default();
        loop {
            let epoch = *self.epoch.read();
            let served = ticket.run(epoch, || {
                self.finish_shutdown(epoch);
                let mut served = 0;
                while served < TURN
                    && let Some(command) = self.fetch(epoch)
                {
                    served += 1;
                    if served == TURN || is_slow(&command) {
                        self.signal_all();
                        ticket.wake();
                    }
                    self.execute(&command, &mut scratch);
                }
                if served > 0 {
                    self.signal_all();
                }
                served
            });
            if served == 0 {
                break;
            }
        }
        self.scratches.lock().push(scratch);
    }

    fn execute(&self, command: &Command, scratch: &mut Scratch) {
        let done = if command.sq == 0 {
            self.admin(command, scratch)
        } else {
            self.io(command, scratch)
        };
        let outcome = match done {
            Ok(value) => Outcome::Done(value),
            Err(outcome) => outcome,
        };
        self.finish(command, outcome);
    }

    /// Does what a shutdown notification asks for (NVMe 7.6.2).
    fn finish_shutdown(&self, epoch: u64) {
        if self.state.lock().csts & csts::SHST != csts::SHST_OCCURRING {
            return;
        }
        if !self.read_only
            && let Err(error) = self.disk.flush()
        {
            tracing::error!(device = self.config.name, "cannot flush the disk: {error}");
        }
        let now = self.epoch.read();
        let mut state = self.state.lock();
        if *now == epoch && state.csts & csts::SHST == csts::SHST_OCCURRING {
            state.csts = state.csts & !csts::SHST | csts::SHST_COMPLETE;
        }
    }
}

/// Whether others should not wait for this one: it is large, or a flush or the like.
fn is_slow(command: &Command) -> bool {
    use crate::spec::nvm;
    let transfer = matches!(command.opcode(), nvm::READ | nvm::WRITE);
    command.sq != 0 && (!transfer || command.blocks() >= LARGE)
}

impl Device for Nvme {
    fn name(&self) -> &str {
        &self.inner.config.name
    }

    fn reset(&self) {
        let mut epoch = self.inner.epoch.write();
        *epoch = epoch.wrapping_add(1);
        let config = &self.inner.config;
        *self.inner.state.lock() = State::power_on(config.queues, config.write_cache);
        self.inner.endpoint.reset();
    }

    fn shutdown(&self) {
        self.workers.drain();
        if !self.inner.read_only
            && let Err(error) = self.inner.disk.flush()
        {
            tracing::error!(
                device = self.inner.config.name,
                "cannot flush the disk: {error}"
            );
        }
    }
}

impl Function for Nvme {
    fn endpoint(&self) -> &Endpoint {
        &self.inner.endpoint
    }

    fn read_bar(&self, _: u8, access: Access) -> u64 {
        self.read_any(access)
    }

    fn write_bar(&self, _: u8, access: Access, value: u64) {
        self.write_any(access, value);
    }

    fn config_written(&self, offset: u16, width: u8) {
        if offset < COMMAND + 2
            && offset + u16::from(width) > COMMAND
            && self.inner.endpoint.bus_master()
        {
            self.workers.wake();
        }
    }
}
