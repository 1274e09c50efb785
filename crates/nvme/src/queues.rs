//! Fetching commands and posting completions (NVMe 4.1, 4.6).

use std::sync::atomic::Ordering;

use crate::command::{Command, Outcome};
use crate::controller::Inner;
use crate::spec::{ERROR_ENTRIES, Status, csts};
use crate::state::{CompletionQueue, ErrorEntry, State, SubmissionQueue};

/// Completions before a message goes out, if there is more to do.
const BATCH: u32 = 16;

impl Inner {
    /// Sets up the admin queues as CC.EN goes to one; whether they can be.
    pub(crate) fn create_admin_queues(&self, state: &mut State) -> bool {
        let size = |bits: u32| (bits & 0xfff) + 1;
        let (sq_size, cq_size) = (size(state.aqa), size(state.aqa >> 16));
        let page = state.page_size();
        if sq_size < 2
            || cq_size < 2
            || !state.asq.is_multiple_of(page)
            || !state.acq.is_multiple_of(page)
        {
            return false;
        }
        state.sqs[0] = Some(SubmissionQueue {
            base: state.asq,
            size: sq_size,
            head: 0,
            tail: 0,
            cq: 0,
            in_flight: 0,
            deleted_by: None,
        });
        state.cqs[0] = Some(CompletionQueue::new(state.acq, cq_size, Some(0)));
        true
    }

    /// Takes the next command of any submission queue, in turn, whose completion queue has room for it.
    pub(crate) fn fetch(&self, epoch: u64) -> Option<Command> {
        let now = self.epoch.read();
        if *now != epoch || self.paused.load(Ordering::SeqCst) || !self.endpoint.bus_master() {
            return None;
        }
        let mut state = self.state.lock();
        if state.csts & (csts::RDY | csts::CFS) != csts::RDY {
            return None;
        }
        let count = state.sqs.len() as u16;
        let first = state.next_sq;
        for id in (first..count).chain(0..first) {
            let Some(sq) = &state.sqs[usize::from(id)] else {
                continue;
            };
            if sq.head == sq.tail || sq.deleted_by.is_some() {
                continue;
            }
            let (cq, at) = (sq.cq, sq.base.wrapping_add(u64::from(sq.head) * 64));
            if !state.cq(cq).is_some_and(|c| c.has_room()) {
                continue;
            }
            let mut bytes = [0; 64];
            if self.dma.read(at, &mut bytes).is_err() {
                self.fatal(&mut state, "a submission queue outside of memory");
                return None;
            }
            let mut dwords = [0; 16];
            for (dword, bytes) in dwords.iter_mut().zip(bytes.chunks_exact(4)) {
                *dword = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            }
            state.next_sq = (id + 1) % count;
            let page_size = state.page_size();
            if let Some(cq) = state.cq(cq) {
                cq.reserved += 1;
            }
            if let Some(sq) = state.sq(id) {
                sq.head = (sq.head + 1) % sq.size;
                sq.in_flight += 1;
            }
            return Some(Command {
                epoch,
                sq: id,
                dwords,
                page_size,
            });
        }
        None
    }

    /// Ends a command: posts its completion, unless it completes later or the controller was reset.
    pub(crate) fn finish(&self, command: &Command, outcome: Outcome) {
        let epoch = self.epoch.read();
        if *epoch != command.epoch || outcome == Outcome::Stale {
            return;
        }
        let mut state = self.state.lock();
        let Some(sq) = state.sq(command.sq) else {
            return;
        };
        sq.in_flight -= 1;
        let cq = sq.cq;
        // A deletion keeps its entry of the completion queue until it is over.
        if !matches!(outcome, Outcome::Deleting(_))
            && let Some(cq) = state.cq(cq)
        {
            cq.reserved -= 1;
        }
        match outcome {
            Outcome::Done(value) => {
                self.post(&mut state, command.sq, command.id(), value, Status::SUCCESS)
            }
            Outcome::Failed(status) => {
                record_error(&mut state, command, status);
                self.post(&mut state, command.sq, command.id(), 0, status);
            }
            Outcome::Waiting => self.post_events(&mut state),
            Outcome::Deleting(id) => self.finish_deletion(&mut state, id),
            Outcome::Stale => {}
        }
        self.finish_deletion(&mut state, command.sq);
        self.update(&mut state);
    }

    /// Deletes a submission queue whose deletion waited for its last command.
    fn finish_deletion(&self, state: &mut State, id: u16) {
        let Some(sq) = state.sq(id) else { return };
        if let Some(command) = sq.deleted_by
            && sq.in_flight == 0
        {
            state.sqs[usize::from(id)] = None;
            if let Some(cq) = state.cq(0) {
                cq.reserved -= 1;
            }
            self.post(state, 0, command, 0, Status::SUCCESS);
        }
    }

    /// Writes a completion queue entry. There is room: the caller has reserved or checked it.
    pub(crate) fn post(
        &self,
        state: &mut State,
        sq_id: u16,
        command: u16,
        value: u32,
        status: Status,
    ) {
        let Some(sq) = state.sq(sq_id) else { return };
        let (sq_head, cq_id) = (sq.head, sq.cq);
        let Some(cq) = state.cq(cq_id) else { return };
        let at = cq.base.wrapping_add(u64::from(cq.tail) * 16);
        let tail = u32::from(command) | u32::from(cq.phase) << 16 | u32::from(status.field()) << 17;
        cq.tail = (cq.tail + 1) % cq.size;
        cq.phase ^= cq.tail == 0;
        cq.unsignalled += 1;
        let full = cq.unsignalled >= BATCH;
        let mut head = [0; 12];
        head[..4].copy_from_slice(&value.to_le_bytes());
        head[8..].copy_from_slice(&(sq_head | u32::from(sq_id) << 16).to_le_bytes());
        // The dword with the phase goes last: a driver that polls it finds the rest in place.
        let written = self
            .dma
            .write(at, &head)
            .and_then(|()| self.dma.write_u32(at + 12, tail));
        if written.is_err() {
            self.fatal(state, "a completion queue outside of memory");
        } else if full {
            self.signal(state, cq_id);
        }
    }

    /// The controller cannot go on (NVMe 9.5).
    pub(crate) fn fatal(&self, state: &mut State, what: &str) {
        tracing::debug!(device = self.config.name, "controller fatal status: {what}");
        state.csts |= csts::CFS;
    }
}

impl CompletionQueue {
    pub(crate) fn new(base: u64, size: u32, vector: Option<u16>) -> CompletionQueue {
        CompletionQueue {
            base,
            size,
            head: 0,
            tail: 0,
            phase: true,
            vector,
            reserved: 0,
            unsignalled: 0,
        }
    }
}

fn record_error(state: &mut State, command: &Command, status: Status) {
    state.statistics.errors = state.statistics.errors.wrapping_add(1);
    let io = command.sq != 0;
    state.error_log.push_front(ErrorEntry {
        count: state.statistics.errors,
        sq: command.sq,
        command: command.id(),
        status: status.field() << 1,
        lba: if io { command.lba() } else { 0 },
        namespace: command.namespace(),
    });
    state.error_log.truncate(ERROR_ENTRIES);
}
