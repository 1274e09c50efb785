//! Admin commands (NVMe 5).

use crate::command::{Command, Done, Outcome};
use crate::controller::{Inner, Scratch};
use crate::spec::{self, CQE_SHIFT, MAX_ENTRIES, SQE_SHIFT, Status, admin, cc};
use crate::state::{CompletionQueue, SubmissionQueue};

impl Inner {
    pub(crate) fn admin(&self, command: &Command, scratch: &mut Scratch) -> Done {
        if !command.is_plain() {
            return Err(Status::INVALID_FIELD.into());
        }
        match command.opcode() {
            admin::DELETE_SQ => self.delete_sq(command),
            admin::CREATE_SQ => self.create_sq(command),
            admin::DELETE_CQ => self.delete_cq(command),
            admin::CREATE_CQ => self.create_cq(command),
            admin::IDENTIFY => self.identify(command, scratch),
            admin::GET_LOG_PAGE => self.get_log_page(command, scratch),
            admin::SET_FEATURES => self.set_features(command),
            admin::GET_FEATURES => self.get_features(command),
            admin::ASYNC_EVENT_REQUEST => self.request_event(command),
            // Bit 0: not aborted. What is in flight is at the host, out of reach.
            admin::ABORT => Ok(1),
            _ => Err(Status::INVALID_OPCODE.into()),
        }
    }

    /// Identifier, entries and base of a queue to create.
    fn new_queue(
        &self,
        command: &Command,
        exists: bool,
        entry: (u32, u32),
    ) -> Result<(u32, u64), Outcome> {
        let id = command.dword(10) & 0xffff;
        let size = (command.dword(10) >> 16) + 1;
        if id == 0 || id > self.config.queues.into() || exists {
            return Err(Status::INVALID_QUEUE_ID.into());
        }
        if !(2..=MAX_ENTRIES).contains(&size) || entry.0 != entry.1 {
            return Err(Status::INVALID_QUEUE_SIZE.into());
        }
        let base = command.prps().0;
        // CAP.CQR: physically contiguous queues only.
        if command.dword(11) & 1 == 0 {
            return Err(Status::INVALID_FIELD.into());
        }
        if !base.is_multiple_of(command.page_size) {
            return Err(Status::INVALID_PRP_OFFSET.into());
        }
        Ok((size, base))
    }

    fn create_cq(&self, command: &Command) -> Done {
        let mut state = self.state.lock();
        let id = command.dword(10) as u16;
        let entry = (cc::iocqes(state.cc), CQE_SHIFT);
        let (size, base) = self.new_queue(command, state.cq(id).is_some(), entry)?;
        let vector = (command.dword(11) >> 16) as u16;
        if vector >= self.endpoint.msix_vectors() {
            return Err(Status::INVALID_INTERRUPT_VECTOR.into());
        }
        let enabled = command.dword(11) & 2 != 0;
        state.cqs[usize::from(id)] =
            Some(CompletionQueue::new(base, size, enabled.then_some(vector)));
        Ok(0)
    }

    fn create_sq(&self, command: &Command) -> Done {
        let mut state = self.state.lock();
        let id = command.dword(10) as u16;
        let entry = (cc::iosqes(state.cc), SQE_SHIFT);
        let (size, base) = self.new_queue(command, state.sq(id).is_some(), entry)?;
        let cq = (command.dword(11) >> 16) as u16;
        if cq == 0 || cq > self.config.queues {
            return Err(Status::INVALID_QUEUE_ID.into());
        }
        if state.cq(cq).is_none() {
            return Err(Status::CQ_INVALID.into());
        }
        state.sqs[usize::from(id)] = Some(SubmissionQueue {
            base,
            size,
            head: 0,
            tail: 0,
            cq,
            in_flight: 0,
            deleted_by: None,
        });
        Ok(0)
    }

    fn delete_sq(&self, command: &Command) -> Done {
        let mut state = self.state.lock();
        let id = command.dword(10) as u16;
        match state.sq(id).filter(|sq| id != 0 && sq.deleted_by.is_none()) {
            // It completes when what was fetched from the queue is over.
            Some(sq) => {
                sq.deleted_by = Some(command.id());
                Err(Outcome::Deleting(id))
            }
            None => Err(Status::INVALID_QUEUE_ID.into()),
        }
    }

    fn delete_cq(&self, command: &Command) -> Done {
        let mut state = self.state.lock();
        let id = command.dword(10) as u16;
        if id == 0 || state.cq(id).is_none() {
            return Err(Status::INVALID_QUEUE_ID.into());
        }
        if state.sqs.iter().flatten().any(|sq| sq.cq == id) {
            return Err(Status::INVALID_QUEUE_DELETION.into());
        }
        self.signal(&mut state, id);
        state.cqs[usize::from(id)] = None;
        Ok(0)
    }

    /// Checks that a command means the only namespace.
    pub(crate) fn check_namespace(command: &Command) -> Result<(), Outcome> {
        if command.namespace() == spec::NAMESPACE {
            Ok(())
        } else {
            Err(Status::INVALID_NAMESPACE.into())
        }
    }
}
