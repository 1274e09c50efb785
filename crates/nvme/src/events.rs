//! Asynchronous events (NVMe 5.2).

use crate::command::{Command, Done, Outcome};
use crate::controller::Inner;
use crate::spec::{MAX_EVENT_REQUESTS, Status, log};
use crate::state::{Event, State};

/// Event type: error status.
const ERROR: u8 = 0;
/// Error information: a doorbell of a queue that does not exist; a value that is none.
pub(crate) const INVALID_DOORBELL_REGISTER: u8 = 0;
pub(crate) const INVALID_DOORBELL_VALUE: u8 = 1;

impl Inner {
    /// Notes an error event and tells it if a request waits.
    pub(crate) fn error_event(&self, state: &mut State, information: u8) {
        let event = Event {
            kind: ERROR,
            information,
            log: log::ERRORS,
        };
        // One of a kind at a time: the log has the rest.
        if !state.events.iter().any(|e| e.kind == event.kind) {
            state.events.push_back(event);
        }
        self.post_events(state);
        for id in 0..state.cqs.len() as u16 {
            self.signal(state, id);
        }
        self.update(state);
    }

    /// A request for an event. It holds no entry of the completion queue while it waits.
    pub(crate) fn request_event(&self, command: &Command) -> Done {
        let mut state = self.state.lock();
        if state.event_requests.len() >= MAX_EVENT_REQUESTS {
            return Err(Status::AER_LIMIT_EXCEEDED.into());
        }
        state.event_requests.push_back(command.id());
        Err(Outcome::Waiting)
    }

    /// Completes requests with events, as far as there are both, and room.
    pub(crate) fn post_events(&self, state: &mut State) {
        loop {
            let masked = state.masked_events;
            let Some(at) = state.events.iter().position(|e| masked & 1 << e.kind == 0) else {
                return;
            };
            if !state.cq(0).is_some_and(|c| c.has_room()) {
                return;
            }
            let Some(command) = state.event_requests.pop_front() else {
                return;
            };
            let Some(event) = state.events.remove(at) else {
                return;
            };
            state.masked_events |= 1 << event.kind;
            let value = u32::from(event.kind)
                | u32::from(event.information) << 8
                | u32::from(event.log) << 16;
            self.post(state, 0, command, value, Status::SUCCESS);
        }
    }

    /// The log page of an event type was read: events of that type come again.
    pub(crate) fn event_log_read(&self, state: &mut State, page: u8) {
        if page == log::ERRORS {
            state.masked_events &= !(1 << ERROR);
            self.post_events(state);
        }
    }
}
