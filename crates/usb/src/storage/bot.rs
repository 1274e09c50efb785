//! Bulk-only transport: command, data, status; and who may say what when the two sides disagree (BOT, 6.7: the
//! thirteen cases, H the host's intent, D the device's).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::scsi::spec::{Sense, sense};
use super::scsi::{Action, Medium, Unit, Work};
use super::{Config, IN, OUT};
use crate::device::{Outcome, Packet};
use crate::standard::Standard;

/// How much is read from or written to the disk at once, in bytes.
pub(super) const CHUNK: usize = 256 * 1024;
/// Chunks between the disk and the host.
const CHUNKS: usize = 3;

const CBW_SIGNATURE: u32 = 0x4342_5355;
const CBW_LENGTH: usize = 31;
const CSW_SIGNATURE: u32 = 0x5342_5355;
/// `bCSWStatus`.
const PASSED: u8 = 0;
const FAILED: u8 = 1;
const PHASE_ERROR: u8 = 2;

/// Data on its way: `data[at..end]`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub data: Vec<u8>,
    pub at: usize,
    pub end: usize,
}

impl Chunk {
    /// An empty one with room for [`CHUNK`] bytes.
    pub fn new(spare: &mut Vec<Vec<u8>>) -> Chunk {
        let data = spare.pop().unwrap_or_else(|| vec![0; CHUNK]);
        Chunk {
            data,
            at: 0,
            end: 0,
        }
    }

    pub fn recycle(self, spare: &mut Vec<Vec<u8>>) {
        if spare.len() < CHUNKS && self.data.len() == CHUNK {
            spare.push(self.data);
        }
    }
}

/// The data stage as the device means it.
#[derive(Clone, Debug, Serialize, Deserialize)]
enum Flow {
    /// No data, or no more.
    None,
    /// Bytes to the host.
    Reply { data: Vec<u8>, at: usize },
    /// From the disk to the host: what is read and not sent, and what is to be read.
    Read {
        ready: VecDeque<Chunk>,
        offset: u64,
        left: u64,
    },
    /// From the host to the disk: what is received and not written, what is still to come.
    Write {
        full: VecDeque<Chunk>,
        filling: Option<Chunk>,
        offset: u64,
        left: u64,
        flush: bool,
    },
    /// Parameters from the host.
    Parameters {
        data: Vec<u8>,
        length: u32,
        of: [u8; 16],
    },
    /// The worker is to do this.
    Work(Work),
}

/// A command from its wrapper to its status.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Exchange {
    tag: u32,
    /// `dCBWDataTransferLength`, and where to.
    length: u32,
    to_host: bool,
    /// Bytes of the data stage so far.
    moved: u32,
    /// The data stage is over, by length, short packet or stall.
    data_over: bool,
    flow: Flow,
    /// `bCSWStatus`, when it is known.
    status: Option<u8>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum Phase {
    /// Waiting for a command block wrapper.
    Command,
    /// The last one was not valid (BOT, 6.6.1): both endpoints stall until Reset Recovery.
    Invalid,
    Exchange(Exchange),
}

/// The state of a `usb-storage` device.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct State {
    pub(super) standard: Standard,
    pub(super) unit: Unit,
    phase: Phase,
    /// Counts the exchanges and resets: a job of an older one has no effect on this one.
    epoch: u64,
}

/// What the worker is to do next.
#[derive(Clone, Debug)]
pub(super) enum Job {
    Read { offset: u64, length: usize },
    Write { offset: u64 },
    Work(Work),
}

/// How it went.
pub(super) enum Done {
    Read(Result<Chunk, Sense>),
    Write(Result<(), Sense>),
    Work(Result<(), Sense>),
}

impl State {
    pub(super) fn power_on(config: &Config) -> State {
        State {
            standard: Standard::default(),
            unit: Unit::power_on(&config.unit),
            phase: Phase::Command,
            epoch: 0,
        }
    }

    pub(super) fn power_cycled(&self, config: &Config) -> State {
        State {
            epoch: self.epoch.wrapping_add(1),
            ..State::power_on(config)
        }
    }

    pub(super) fn bus_reset(&mut self) {
        self.standard = Standard::default();
        self.reset_transport();
    }

    /// Ready for the next command. Halted endpoints stay so (BOT, 3.1).
    pub(super) fn reset_transport(&mut self) {
        self.phase = Phase::Command;
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// After a wrapper that was not valid only the reset request helps.
    pub(super) fn halt_cleared(&mut self, address: u8) {
        if matches!(self.phase, Phase::Invalid) {
            self.standard.halt(address);
        }
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The medium is another one, or none: what is still to be done for a command on the one before fails, and is done on
    /// neither.
    pub(super) fn medium_changed(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        let Phase::Exchange(exchange) = &mut self.phase else {
            return;
        };
        match &mut exchange.flow {
            // What was read still goes out.
            Flow::Read { left, .. } if *left > 0 => *left = 0,
            Flow::Write { .. } | Flow::Parameters { .. } | Flow::Work(_) => {
                exchange.flow = Flow::None;
            }
            Flow::Read { .. } | Flow::Reply { .. } | Flow::None => return,
        }
        exchange.status = Some(FAILED);
        self.unit.fail(sense::MEDIUM_NOT_PRESENT);
    }

    /// The next thing for the worker, out of the state alone.
    pub(super) fn job(&self) -> Option<Job> {
        let Phase::Exchange(exchange) = &self.phase else {
            return None;
        };
        match &exchange.flow {
            Flow::Read {
                ready,
                offset,
                left,
            } if *left > 0 && ready.len() < CHUNKS => {
                let length = (*left).min(CHUNK as u64) as usize;
                Some(Job::Read {
                    offset: *offset,
                    length,
                })
            }
            Flow::Write { full, offset, .. } if !full.is_empty() => {
                Some(Job::Write { offset: *offset })
            }
            Flow::Write {
                filling: None,
                left: 0,
                flush: true,
                ..
            } => Some(Job::Work(Work::Flush)),
            Flow::Work(work) => Some(Job::Work(work.clone())),
            _ => None,
        }
    }

    /// The chunk a [`Job::Write`] is about, while it is at work.
    pub(super) fn take_written(&mut self) -> Option<Chunk> {
        match &mut self.phase {
            Phase::Exchange(Exchange {
                flow: Flow::Write { full, .. },
                ..
            }) => full.front_mut().map(std::mem::take),
            _ => None,
        }
    }

    /// A job of this epoch is done; `written` bytes were its chunk's.
    pub(super) fn job_done(&mut self, done: Done, written: u64) {
        let Phase::Exchange(exchange) = &mut self.phase else {
            return;
        };
        let failed = match (done, &mut exchange.flow) {
            (
                Done::Read(Ok(chunk)),
                Flow::Read {
                    ready,
                    offset,
                    left,
                },
            ) => {
                let length = (chunk.end - chunk.at) as u64;
                *offset = offset.saturating_add(length);
                *left = left.saturating_sub(length);
                ready.push_back(chunk);
                None
            }
            // What was read before the error still goes out.
            (Done::Read(Err(sense)), Flow::Read { left, .. }) => {
                *left = 0;
                Some(sense)
            }
            (
                Done::Write(Ok(())),
                Flow::Write {
                    full,
                    offset,
                    filling,
                    left,
                    flush,
                },
            ) => {
                full.pop_front();
                *offset = offset.saturating_add(written);
                if full.is_empty() && filling.is_none() && *left == 0 && !*flush {
                    exchange.flow = Flow::None;
                    exchange.status = Some(PASSED);
                }
                None
            }
            (Done::Work(Ok(())), Flow::Work(_) | Flow::Write { .. }) => {
                exchange.flow = Flow::None;
                exchange.status = Some(PASSED);
                None
            }
            (Done::Write(Err(sense)) | Done::Work(Err(sense)), _) => {
                exchange.flow = Flow::None;
                Some(sense)
            }
            _ => None,
        };
        if let Some(sense) = failed {
            self.unit.fail(sense);
            exchange.status = Some(FAILED);
        }
    }

    /// A transfer on the bulk-IN endpoint.
    pub(super) fn bulk_in(&mut self, packet: &mut Packet<'_>, spare: &mut Vec<Vec<u8>>) -> Outcome {
        let exchange = match &mut self.phase {
            Phase::Command => return Outcome::Nak,
            Phase::Invalid => return Outcome::Stall,
            Phase::Exchange(exchange) => exchange,
        };
        if exchange.to_host && !exchange.data_over {
            let outcome = exchange.send(packet, spare);
            if outcome == Outcome::Stall {
                self.standard.halt(IN);
            }
            return outcome;
        }
        let Some(status) = exchange.status else {
            return Outcome::Nak;
        };
        let mut csw = [0; 13];
        csw[..4].copy_from_slice(&CSW_SIGNATURE.to_le_bytes());
        csw[4..8].copy_from_slice(&exchange.tag.to_le_bytes());
        csw[8..12].copy_from_slice(&(exchange.length - exchange.moved).to_le_bytes());
        csw[12] = status;
        packet.write(&csw);
        self.phase = Phase::Command;
        self.epoch = self.epoch.wrapping_add(1);
        Outcome::Done
    }

    /// A transfer on the bulk-OUT endpoint.
    pub(super) fn bulk_out(
        &mut self,
        config: &Config,
        medium: Option<Medium>,
        packet: &mut Packet<'_>,
        spare: &mut Vec<Vec<u8>>,
    ) -> Outcome {
        let exchange = match &mut self.phase {
            Phase::Command => return self.command(config, medium, packet),
            Phase::Invalid => return Outcome::Stall,
            Phase::Exchange(exchange) => exchange,
        };
        if exchange.to_host || exchange.data_over {
            // A command before the status of the last one was fetched.
            return Outcome::Nak;
        }
        let outcome = exchange.receive(packet, spare);
        if outcome == Outcome::Stall {
            self.standard.halt(OUT);
        }
        let ready = match &mut exchange.flow {
            Flow::Parameters { data, length, of } if data.len() == *length as usize => {
                Some((std::mem::take(data), *of))
            }
            _ => None,
        };
        if let Some((data, cdb)) = ready {
            let action = self.unit.parameters(&config.unit, medium, &cdb, &data);
            exchange.flow = match action {
                Action::Work(work) => Flow::Work(work),
                action => {
                    exchange.status = Some(if action == Action::Done {
                        PASSED
                    } else {
                        FAILED
                    });
                    Flow::None
                }
            };
        }
        outcome
    }

    /// A command block wrapper (BOT, 5.1).
    fn command(
        &mut self,
        config: &Config,
        medium: Option<Medium>,
        packet: &mut Packet<'_>,
    ) -> Outcome {
        let whole = packet.remaining() == CBW_LENGTH as u64;
        let mut cbw = [0; CBW_LENGTH];
        let n = packet.read(&mut cbw);
        let word = |at: usize| u32::from_le_bytes([cbw[at], cbw[at + 1], cbw[at + 2], cbw[at + 3]]);
        let (lun, cdb_length) = (cbw[13], usize::from(cbw[14]));
        let valid = whole && n == CBW_LENGTH && word(0) == CBW_SIGNATURE && !packet.failed();
        let meaningful = lun & 0xf0 == 0 && (1..=16).contains(&cdb_length);
        if !valid || !meaningful {
            tracing::debug!(
                valid,
                lun,
                cdb_length,
                "a command block wrapper that is none"
            );
            self.phase = Phase::Invalid;
            self.standard.halt(IN);
            self.standard.halt(OUT);
            return Outcome::Stall;
        }
        let mut cdb = [0; 16];
        cdb[..cdb_length].copy_from_slice(&cbw[15..15 + cdb_length]);
        let action = self.unit.execute(&config.unit, medium, lun, &cdb);
        let exchange = Exchange::begin(word(4), word(8), cbw[12] & 0x80 != 0, action);
        self.epoch = self.epoch.wrapping_add(1);
        self.phase = Phase::Exchange(exchange);
        Outcome::Done
    }
}

impl Exchange {
    fn begin(tag: u32, length: u32, in_flag: bool, action: Action) -> Exchange {
        let host = u64::from(length);
        let to_host = in_flag && length > 0;
        let (from, to) = if in_flag { (0, host) } else { (host, 0) };
        let error = (Flow::None, Some(PHASE_ERROR));
        let (flow, status) = match action {
            Action::Done => (Flow::None, Some(PASSED)),
            Action::Fail => (Flow::None, Some(FAILED)),
            Action::Reply(data) if data.is_empty() => (Flow::None, Some(PASSED)),
            // Cases 2 and 10; 7, where what fits is sent.
            Action::Reply(_) if to == 0 => error,
            Action::Reply(mut data) => {
                let status = if data.len() as u64 > to {
                    PHASE_ERROR
                } else {
                    PASSED
                };
                data.truncate(length as usize);
                (Flow::Reply { data, at: 0 }, Some(status))
            }
            // Cases 2, 7, 10.
            Action::Read { length, .. } if length > to => error,
            Action::Read { offset, length } => (
                Flow::Read {
                    ready: VecDeque::new(),
                    offset,
                    left: length,
                },
                Some(PASSED),
            ),
            // Cases 3, 8, 13.
            Action::Write { length, .. } if length > from => error,
            Action::Parameters { length, .. } if u64::from(length) > from => error,
            Action::Write {
                offset,
                length,
                flush,
            } => (
                Flow::Write {
                    full: VecDeque::new(),
                    filling: None,
                    offset,
                    left: length,
                    flush,
                },
                None,
            ),
            Action::Parameters { length, of } => (
                Flow::Parameters {
                    data: Vec::new(),
                    length,
                    of,
                },
                None,
            ),
            Action::Work(work) => (Flow::Work(work), None),
        };
        Exchange {
            tag,
            length,
            to_host,
            moved: 0,
            data_over: length == 0,
            flow,
            status,
        }
    }

    /// The data stage to the host.
    fn send(&mut self, packet: &mut Packet<'_>, spare: &mut Vec<Vec<u8>>) -> Outcome {
        // Work without data that the host expects data of (case 4): nothing can be said before it is done.
        if matches!(self.flow, Flow::Work(_)) {
            return Outcome::Nak;
        }
        while packet.remaining() > 0 {
            let room = (self.length - self.moved) as usize;
            let sent = match &mut self.flow {
                Flow::Reply { data, at } => {
                    let n = packet.write(&data[*at..]);
                    *at += n;
                    if *at == data.len() {
                        self.flow = Flow::None;
                    }
                    n
                }
                Flow::Read { ready, left, .. } => match ready.front_mut() {
                    Some(chunk) => {
                        let end = chunk.end.min(chunk.at + room);
                        let n = packet.write(&chunk.data[chunk.at..end]);
                        chunk.at += n;
                        if chunk.at == chunk.end
                            && let Some(chunk) = ready.pop_front()
                        {
                            chunk.recycle(spare);
                        }
                        n
                    }
                    None if *left > 0 => return Outcome::Nak,
                    None => {
                        self.flow = Flow::None;
                        0
                    }
                },
                _ => break,
            };
            self.moved += sent as u32;
        }
        if self.moved == self.length {
            self.data_over = true;
            return Outcome::Done;
        }
        if packet.remaining() == 0 {
            return Outcome::Done;
        }
        // Less than the host expects (cases 4 and 5; 8): a short packet if there is data in it, a stall otherwise.
        self.data_over = true;
        if packet.done() > 0 {
            Outcome::Done
        } else {
            Outcome::Stall
        }
    }

    /// The data stage from the host.
    fn receive(&mut self, packet: &mut Packet<'_>, spare: &mut Vec<Vec<u8>>) -> Outcome {
        while packet.remaining() > 0 {
            let got = match &mut self.flow {
                Flow::Write {
                    full,
                    filling,
                    left,
                    ..
                } if *left > 0 => {
                    if full.len() >= CHUNKS {
                        return Outcome::Nak;
                    }
                    let chunk = filling.get_or_insert_with(|| Chunk::new(spare));
                    let room = (CHUNK - chunk.end).min((*left).min(CHUNK as u64) as usize);
                    let n = packet.read(&mut chunk.data[chunk.end..chunk.end + room]);
                    chunk.end += n;
                    *left -= n as u64;
                    if chunk.end == CHUNK || *left == 0 {
                        full.extend(filling.take());
                    }
                    n
                }
                Flow::Parameters { data, length, .. } if data.len() < *length as usize => {
                    let at = data.len();
                    let room = (*length as usize - at).min(packet.remaining() as usize);
                    data.resize(at + room, 0);
                    let n = packet.read(&mut data[at..]);
                    data.truncate(at + n);
                    n
                }
                // The device wants no more (cases 9, 11; 10, 13).
                _ => {
                    self.data_over = true;
                    return Outcome::Stall;
                }
            };
            self.moved += got as u32;
        }
        self.data_over = self.moved == self.length;
        Outcome::Done
    }
}
