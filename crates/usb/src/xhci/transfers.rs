//! Transfer rings: descriptors, what devices make of them, and the events that tell of it (3.2.9, 4.10, 4.11).

use device::{Dma, DmaError};
use serde::{Deserialize, Serialize};

use super::contexts::{EndpointState, EndpointType};
use super::registers::INTERRUPTERS;
use super::rings::{Next, Ring};
use super::slots::Endpoint;
use super::state::{MICROFRAME, State};
use super::trb::{self, Trb, bit, code, kind};
use crate::device::{Outcome, Piece, Setup};

/// TRBs taken at once. A longer descriptor is done in parts.
const MOST_TRBS: usize = 256;
/// Isochronous transfers are made up for by so many nanoseconds at most when the host was late. A longer burst would
/// take all that a driver has queued before it could queue more: the stream is late rather than broken.
const MOST_LATE: u64 = 4_000_000;

/// A TRB of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TdTrb {
    trb: Trb,
    address: u64,
    /// The ring at this TRB and past it.
    at: Ring,
    after: Ring,
    /// Bytes moved before the endpoint was last stopped.
    skip: u32,
}

impl TdTrb {
    fn has_data(&self) -> bool {
        matches!(
            self.trb.kind(),
            kind::NORMAL | kind::DATA_STAGE | kind::ISOCH
        )
    }

    /// Bytes it is about, this time.
    fn length(&self) -> u32 {
        if self.has_data() {
            self.trb.length().saturating_sub(self.skip)
        } else {
            0
        }
    }

    fn piece(&self, to_host: bool) -> Piece {
        if self.trb.has(bit::IDT) && !to_host {
            let (mut bytes, skip) = ([0; 8], self.skip.min(8) as usize);
            let from = self.trb.parameter.to_le_bytes();
            bytes[..8 - skip].copy_from_slice(&from[skip..]);
            return Piece::Immediate {
                bytes,
                length: self.length().min(8 - skip as u32),
            };
        }
        Piece::Memory {
            address: self.trb.parameter.wrapping_add(self.skip.into()),
            length: self.length(),
        }
    }
}

/// A transfer descriptor, or a part of one, under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Td {
    trbs: Vec<TdTrb>,
    /// Bytes moved.
    done: u64,
    /// The descriptor ends with it.
    last: bool,
}

impl Td {
    fn total(&self) -> u64 {
        self.trbs.iter().map(|t| u64::from(t.length())).sum()
    }
}

/// What is next on an endpoint's ring.
enum Gathered {
    Nothing,
    /// A TRB that cannot be here.
    Bad(TdTrb),
    Td(Td),
}

/// What the worker is to ask a device.
pub struct Request {
    /// The root hub port, from 1.
    pub port: u8,
    /// The endpoint's address; 0 for a control transfer.
    pub address: u8,
    pub setup: Option<Setup>,
    pub pieces: Vec<Piece>,
    pub limit: u64,
    pub done: u64,
    /// The controller's epoch.
    pub epoch: u64,
}

/// What is to be done with an endpoint.
pub enum Turn {
    /// Nothing now.
    Idle,
    /// Something was done; there may be more.
    Again,
    Ask(Request),
}

/// How a descriptor ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// All of it, or a short packet.
    Done,
    /// An error at the byte it came to; the endpoint halts.
    Failed(u8),
    /// Stop Endpoint.
    Stopped,
}

fn gather(endpoint: &Endpoint, dma: &Dma) -> Result<Gathered, DmaError> {
    let mut ring = endpoint.ring;
    let mut td = Td {
        trbs: Vec::new(),
        done: 0,
        last: false,
    };
    let (mut bytes, mut cut) = (0u64, 0);
    let packet = u64::from(endpoint.max_packet.max(1));
    let mut skip = endpoint.offset;
    while td.trbs.len() < MOST_TRBS {
        let mut links = Vec::new();
        let start = ring;
        let next = ring.next(dma, |trb, address| links.push((trb, address)))?;
        let trbs = &mut td.trbs;
        let made = |trb, address, at, after, skip| TdTrb {
            trb,
            address,
            at,
            after,
            skip,
        };
        // Links that want an event take part, once the TRB behind them is there.
        let take_links = |trbs: &mut Vec<TdTrb>| {
            let wanted = links.iter().filter(|(trb, _)| trb.has(bit::IOC));
            trbs.extend(wanted.map(|&(trb, address)| made(trb, address, start, start, 0)));
        };
        match next {
            Next::Empty => break,
            Next::Loop(address) => {
                return Ok(Gathered::Bad(made(
                    Trb::default(),
                    address,
                    start,
                    start,
                    0,
                )));
            }
            Next::Trb(trb, address) => {
                let at = Ring {
                    dequeue: address,
                    cycle: trb.has(bit::CYCLE),
                };
                let mut this = made(trb, address, at, ring, 0);
                let first = trbs.iter().all(|t| t.trb.kind() == kind::LINK);
                if !endpoint.skipping && !allowed(endpoint, &trb, first, trbs) {
                    return Ok(Gathered::Bad(this));
                }
                take_links(trbs);
                if this.has_data() {
                    this.skip = std::mem::take(&mut skip).min(trb.length());
                }
                bytes += u64::from(this.length());
                trbs.push(this);
                if bytes.is_multiple_of(packet) {
                    cut = trbs.len();
                }
                if !trb.has(bit::CHAIN) || trb.kind() == kind::SETUP_STAGE {
                    td.last = true;
                    return Ok(Gathered::Td(td));
                }
            }
        }
    }
    // The end of the descriptor is not there yet, or far away. Whole packets of it can be done.
    let full = td.trbs.len() >= MOST_TRBS;
    if full && endpoint.kind == EndpointType::Control && !endpoint.skipping {
        return Ok(Gathered::Bad(td.trbs[0]));
    }
    let divisible = matches!(endpoint.kind, EndpointType::Bulk | EndpointType::Interrupt);
    if endpoint.skipping || (full && cut == 0) {
        cut = td.trbs.len();
    } else if !divisible && !full {
        cut = 0;
    }
    td.trbs.truncate(cut);
    // Zero bytes of data are no packet unless the descriptor ends with them.
    if td.trbs.is_empty() || (!endpoint.skipping && !full && td.total() == 0) {
        return Ok(Gathered::Nothing);
    }
    Ok(Gathered::Td(td))
}

/// Whether a TRB may follow what was gathered (4.11.2).
fn allowed(endpoint: &Endpoint, trb: &Trb, first: bool, before: &[TdTrb]) -> bool {
    let stage = before
        .iter()
        .find(|t| t.trb.kind() != kind::LINK)
        .map(|t| t.trb.kind());
    match (trb.kind(), endpoint.kind) {
        (kind::EVENT_DATA | kind::NO_OP, _) => true,
        (kind::SETUP_STAGE | kind::DATA_STAGE | kind::STATUS_STAGE, EndpointType::Control) => first,
        (kind::NORMAL, EndpointType::Control) => {
            matches!(
                stage,
                Some(kind::DATA_STAGE | kind::NORMAL | kind::EVENT_DATA)
            ) && before.iter().any(|t| t.trb.kind() == kind::DATA_STAGE)
        }
        (kind::ISOCH, EndpointType::Isoch) => first,
        (kind::NORMAL, EndpointType::Isoch) => !first,
        (kind::NORMAL, EndpointType::Bulk | EndpointType::Interrupt) => true,
        _ => false,
    }
}

impl State {
    /// Takes an endpoint's turn as far as it goes without its device.
    pub fn turn(&mut self, dma: &Dma, slot: u8, dci: u8, now: u64) -> Result<Turn, DmaError> {
        let Some(port) = self.slot(slot).map(|s| s.port) else {
            return Ok(Turn::Idle);
        };
        let epoch = self.epoch;
        let (active, present) = match self.ports.get(usize::from(port).wrapping_sub(1)) {
            Some(port) => (port.active(), port.connected),
            None => (false, false),
        };
        let Some(endpoint) = self.endpoint(slot, dci) else {
            return Ok(Turn::Idle);
        };
        if std::mem::take(&mut endpoint.rung) && endpoint.state == EndpointState::Stopped {
            endpoint.state = EndpointState::Running;
            self.save_endpoint(dma, slot, dci)?;
        }
        let Some(endpoint) = self.endpoint(slot, dci) else {
            return Ok(Turn::Idle);
        };
        if endpoint.state != EndpointState::Running || (present && !active) {
            return Ok(Turn::Idle);
        }
        if endpoint.td.is_none() {
            if endpoint.budget == 0 {
                return Ok(Turn::Idle);
            }
            match gather(endpoint, dma)? {
                Gathered::Nothing => {
                    return self.ran_dry(dma, slot, dci, now).map(|()| Turn::Idle);
                }
                Gathered::Bad(trb) => {
                    tracing::debug!(slot, dci, kind = trb.trb.kind(), "a TRB out of place");
                    endpoint.budget -= 1;
                    endpoint.state = EndpointState::Error;
                    endpoint.ring = trb.at;
                    self.transfer_event(dma, slot, dci, &trb, code::TRB_ERROR, trb.trb.length())?;
                    self.save_endpoint(dma, slot, dci)?;
                    return Ok(Turn::Idle);
                }
                Gathered::Td(td) => {
                    endpoint.budget -= 1;
                    endpoint.td = Some(td);
                }
            }
        }
        let Some(td) = &endpoint.td else {
            return Ok(Turn::Idle);
        };
        let first = td.trbs.iter().find(|t| t.trb.kind() != kind::LINK);
        let first = first.map_or(kind::NO_OP, |t| t.trb.kind());
        let data = td.trbs.iter().any(TdTrb::has_data);
        if endpoint.skipping || (!data && first != kind::STATUS_STAGE && first != kind::SETUP_STAGE)
        {
            return self.retire(dma, slot, dci, End::Done).map(|()| Turn::Again);
        }
        if !present {
            self.retire(dma, slot, dci, End::Failed(code::USB_TRANSACTION_ERROR))?;
            return Ok(Turn::Idle);
        }
        let mut request = Request {
            port,
            address: dci >> 1 | (dci & 1) << 7,
            setup: None,
            pieces: Vec::new(),
            limit: u64::MAX,
            done: td.done,
            epoch,
        };
        if endpoint.kind == EndpointType::Control {
            let bad = match first {
                kind::SETUP_STAGE => {
                    let trb = td.trbs[td.trbs.len() - 1].trb;
                    let valid = trb.has(bit::IDT) && trb.length() == 8;
                    if valid {
                        endpoint.setup = Some(trb.parameter.to_le_bytes());
                        endpoint.executed = false;
                        return self.retire(dma, slot, dci, End::Done).map(|()| Turn::Again);
                    }
                    true
                }
                // A stage without its setup, or a second data stage.
                kind::DATA_STAGE => endpoint.setup.is_none() || endpoint.executed,
                _ => endpoint.setup.is_none(),
            };
            let Some(setup) = endpoint.setup.filter(|_| !bad) else {
                self.retire(dma, slot, dci, End::Failed(code::TRB_ERROR))?;
                return Ok(Turn::Idle);
            };
            let setup = Setup::from_bytes(setup);
            if first == kind::STATUS_STAGE && endpoint.executed {
                endpoint.setup = None;
                return self.retire(dma, slot, dci, End::Done).map(|()| Turn::Again);
            }
            request.address = 0;
            request.setup = Some(setup);
            request.limit = setup.length.into();
            request.pieces = td
                .trbs
                .iter()
                .filter(|t| t.has_data())
                .map(|t| t.piece(setup.is_in()))
                .collect();
            return Ok(Turn::Ask(request));
        }
        if endpoint.kind == EndpointType::Isoch && !self.isoch_due(slot, dci, now) {
            return Ok(Turn::Idle);
        }
        if let Some(endpoint) = self.endpoint(slot, dci)
            && let Some(td) = &endpoint.td
        {
            request.pieces = td
                .trbs
                .iter()
                .filter(|t| t.has_data())
                .map(|t| t.piece(endpoint.to_host))
                .collect();
        }
        Ok(Turn::Ask(request))
    }

    /// A device answered; `done` bytes are moved by now. Returns whether there may be more to do.
    pub fn answered(
        &mut self,
        dma: &Dma,
        slot: u8,
        dci: u8,
        outcome: Outcome,
        done: u64,
    ) -> Result<bool, DmaError> {
        let Some(endpoint) = self.endpoint(slot, dci) else {
            return Ok(false);
        };
        let isoch = endpoint.kind == EndpointType::Isoch;
        let to_host = match endpoint.setup {
            Some(setup) => Setup::from_bytes(setup).is_in(),
            None => endpoint.to_host,
        };
        let Some(td) = &mut endpoint.td else {
            return Ok(false);
        };
        td.done = done;
        match outcome {
            Outcome::Nak if !isoch => return Ok(false),
            Outcome::Stall if !isoch => {
                self.retire(dma, slot, dci, End::Failed(code::STALL_ERROR))?;
                return Ok(false);
            }
            _ => {}
        }
        // What the device did not want of an OUT transfer it said yes to is gone all the same.
        if !to_host {
            td.done = td.total();
        }
        if isoch {
            endpoint.due = endpoint
                .due
                .saturating_add(MICROFRAME << endpoint.interval.min(15));
        }
        if endpoint.kind == EndpointType::Control {
            let status = td.trbs.iter().any(|t| t.trb.kind() == kind::STATUS_STAGE);
            endpoint.executed = true;
            if status {
                endpoint.setup = None;
            }
        }
        self.retire(dma, slot, dci, End::Done)?;
        Ok(true)
    }

    /// Stop Endpoint found a descriptor under way.
    pub fn stop_transfer(&mut self, dma: &Dma, slot: u8, dci: u8) -> Result<(), DmaError> {
        self.retire(dma, slot, dci, End::Stopped)
    }

    /// Ends the descriptor under way: events, and the ring's new position.
    fn retire(&mut self, dma: &Dma, slot: u8, dci: u8, end: End) -> Result<(), DmaError> {
        let Some(endpoint) = self.endpoint(slot, dci) else {
            return Ok(());
        };
        let Some(td) = endpoint.td.take() else {
            return Ok(());
        };
        let isoch = endpoint.kind == EndpointType::Isoch;
        endpoint.offset = 0;
        let mut left = td.done;
        let mut status = if endpoint.skipping {
            code::SHORT_PACKET
        } else {
            code::SUCCESS
        };
        let count = td.trbs.len();
        for (i, t) in td.trbs.iter().enumerate() {
            let Some(endpoint) = self.endpoint(slot, dci) else {
                return Ok(());
            };
            let want = t.length();
            let n = u64::from(want).min(left) as u32;
            left -= u64::from(n);
            endpoint.edtla = endpoint.edtla.wrapping_add(n) & 0xff_ffff;
            let bare = matches!(t.trb.kind(), kind::LINK | kind::EVENT_DATA);
            let here = end != End::Done
                && (n < want || i + 1 == count || (want == 0 && left == 0 && !bare));
            if here {
                endpoint.ring = t.at;
                let residual = want - n;
                let with = match end {
                    End::Failed(with) => {
                        let error = with == code::TRB_ERROR;
                        endpoint.state = if error {
                            EndpointState::Error
                        } else {
                            EndpointState::Halted
                        };
                        endpoint.setup = None;
                        with
                    }
                    _ => {
                        endpoint.offset = t.skip.saturating_add(n);
                        code::STOPPED
                    }
                };
                self.transfer_event(dma, slot, dci, t, with, residual)?;
                return self.save_endpoint(dma, slot, dci);
            }
            endpoint.ring = t.after;
            let short = n < want;
            let first_short = short && status == code::SUCCESS;
            if short {
                status = code::SHORT_PACKET;
            }
            let wanted =
                t.trb.has(bit::IOC) || (first_short && t.has_data() && t.trb.has(bit::ISP));
            if t.trb.kind() == kind::EVENT_DATA {
                let length = std::mem::take(&mut endpoint.edtla);
                if wanted {
                    let event = Trb {
                        parameter: t.trb.parameter,
                        status: u32::from(status) << 24 | length,
                        control: trb::event(kind::TRANSFER_EVENT, slot, dci) | bit::ED,
                    };
                    self.post(dma, t.trb.interrupter(), event, t.trb.blocks_interrupt())?;
                }
            } else if wanted {
                self.transfer_event(dma, slot, dci, t, status, want - n)?;
            }
        }
        if let Some(endpoint) = self.endpoint(slot, dci) {
            endpoint.skipping =
                !td.last && (endpoint.skipping || (status != code::SUCCESS && !isoch));
            if td.last {
                endpoint.edtla = 0;
            }
        }
        Ok(())
    }

    fn transfer_event(
        &mut self,
        dma: &Dma,
        slot: u8,
        dci: u8,
        of: &TdTrb,
        status: u8,
        residual: u32,
    ) -> Result<(), DmaError> {
        let event = Trb {
            parameter: of.address,
            status: u32::from(status) << 24 | residual & 0xff_ffff,
            control: trb::event(kind::TRANSFER_EVENT, slot, dci),
        };
        let quiet =
            of.trb.blocks_interrupt() && matches!(status, code::SUCCESS | code::SHORT_PACKET);
        self.post(dma, of.trb.interrupter(), event, quiet)
    }

    /// Posts an event.
    pub fn post(
        &mut self,
        dma: &Dma,
        interrupter: usize,
        event: Trb,
        quiet: bool,
    ) -> Result<(), DmaError> {
        let at = if interrupter < INTERRUPTERS {
            interrupter
        } else {
            0
        };
        self.interrupters[at].post(dma, event, quiet)
    }

    /// An isochronous stream has nothing to send or no room when it is due (4.10.3.1); told once.
    fn ran_dry(&mut self, dma: &Dma, slot: u8, dci: u8, now: u64) -> Result<(), DmaError> {
        let Some(endpoint) = self.endpoint(slot, dci) else {
            return Ok(());
        };
        if endpoint.kind != EndpointType::Isoch || endpoint.due == 0 {
            return Ok(());
        }
        let due = endpoint.due;
        if now < due {
            self.look_later(due, slot, dci);
            return Ok(());
        }
        endpoint.due = 0;
        let status = if endpoint.to_host {
            code::RING_OVERRUN
        } else {
            code::RING_UNDERRUN
        };
        let event = Trb {
            parameter: 0,
            status: u32::from(status) << 24,
            control: trb::event(kind::TRANSFER_EVENT, slot, dci),
        };
        self.post(dma, 0, event, false)
    }

    /// Whether an isochronous descriptor's time has come; otherwise it is noted when it comes (4.11.2.5).
    fn isoch_due(&mut self, slot: u8, dci: u8, now: u64) -> bool {
        let zero = self.mfindex_zero;
        let Some(endpoint) = self.endpoint(slot, dci) else {
            return false;
        };
        let Some(trb) = endpoint
            .td
            .as_ref()
            .and_then(|td| td.trbs.iter().find(|t| t.has_data()))
        else {
            return true;
        };
        if endpoint.due == 0 {
            let period = MICROFRAME << endpoint.interval.min(15);
            endpoint.due = now.saturating_add(period);
            if !trb.trb.has(bit::SIA) {
                // The frame it names, of the next 2048 milliseconds' 895 (4.11.2.5); past ones start now.
                let frame = u64::from(trb.trb.control >> 20 & 0x7ff);
                let current = now.saturating_sub(zero) / (8 * MICROFRAME);
                let ahead = frame.wrapping_sub(current) & 0x7ff;
                if ahead <= 895 {
                    endpoint.due = (zero + (current + ahead) * 8 * MICROFRAME).max(now + 1);
                }
            }
        } else if now > endpoint.due.saturating_add(MOST_LATE) {
            // Time stood still or the worker was late: what is made up for is no more than drivers have queued.
            endpoint.due = now - MOST_LATE;
        }
        if now >= endpoint.due {
            return true;
        }
        let due = endpoint.due;
        self.look_later(due, slot, dci);
        false
    }

    /// Takes the endpoint's next turn at that time.
    fn look_later(&mut self, at: u64, slot: u8, dci: u8) {
        self.later.retain(|&(_, s, d)| (s, d) != (slot, dci));
        self.later.push((at, slot, dci));
    }
}
