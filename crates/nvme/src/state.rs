//! Everything of the controller that a guest can observe.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::spec::{WARNING_TEMPERATURE, cc};

/// A submission queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SubmissionQueue {
    pub base: u64,
    /// Entries.
    pub size: u32,
    pub head: u32,
    pub tail: u32,
    /// Its completion queue.
    pub cq: u16,
    /// Commands that were fetched and not completed, but for event requests.
    pub in_flight: u32,
    /// The command that deletes it, once nothing is in flight.
    pub deleted_by: Option<u16>,
}

/// A completion queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CompletionQueue {
    pub base: u64,
    /// Entries.
    pub size: u32,
    pub head: u32,
    pub tail: u32,
    pub phase: bool,
    /// Its interrupt vector, if interrupts are enabled.
    pub vector: Option<u16>,
    /// Entries that commands in flight will take.
    pub reserved: u32,
    /// Entries posted since the last message.
    pub unsignalled: u32,
}

impl CompletionQueue {
    /// Entries that are posted and not taken.
    pub fn used(&self) -> u32 {
        (self.tail + self.size - self.head) % self.size
    }

    /// Whether one more command may be fetched for it.
    pub fn has_room(&self) -> bool {
        self.used() + self.reserved + 1 < self.size
    }
}

/// Values of features (NVMe 5.21.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Features {
    pub arbitration: u32,
    pub over_temperature: u16,
    pub under_temperature: u16,
    pub error_recovery: u32,
    pub write_cache: bool,
    pub coalescing: u32,
    /// Vectors with Coalescing Disable.
    pub uncoalesced: Vec<u16>,
    pub write_atomicity: u32,
    pub async_events: u32,
}

/// An entry of the error log (NVMe 5.14.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorEntry {
    pub count: u64,
    pub sq: u16,
    pub command: u16,
    pub status: u16,
    pub lba: u64,
    pub namespace: u32,
}

/// An asynchronous event: type, information, log page (NVMe 5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    pub kind: u8,
    pub information: u8,
    pub log: u8,
}

/// What SMART counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Statistics {
    pub bytes_read: u64,
    pub bytes_written: u64,
    pub reads: u64,
    pub writes: u64,
    pub errors: u64,
}

/// Controller state but for the doings of workers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    pub cc: u32,
    pub csts: u32,
    pub aqa: u32,
    pub asq: u64,
    pub acq: u64,
    /// Vectors masked by INTMS.
    pub masked: u32,
    pub sqs: Vec<Option<SubmissionQueue>>,
    pub cqs: Vec<Option<CompletionQueue>>,
    /// Where the next look for a command begins.
    pub next_sq: u16,
    pub features: Features,
    /// Commands that wait for an event.
    pub event_requests: VecDeque<u16>,
    pub events: VecDeque<Event>,
    /// Event types that wait for their log page to be read, a bit each.
    pub masked_events: u8,
    pub error_log: VecDeque<ErrorEntry>,
    pub statistics: Statistics,
}

impl State {
    /// Power-on state with so many I/O queue pairs.
    pub fn power_on(queues: u16, write_cache: bool) -> State {
        let slots = usize::from(queues) + 1;
        State {
            cc: 0,
            csts: 0,
            aqa: 0,
            asq: 0,
            acq: 0,
            masked: 0,
            sqs: vec![None; slots],
            cqs: vec![None; slots],
            next_sq: 0,
            features: Features {
                arbitration: 0,
                over_temperature: WARNING_TEMPERATURE,
                under_temperature: 0,
                error_recovery: 0,
                write_cache,
                coalescing: 0,
                uncoalesced: Vec::new(),
                write_atomicity: 0,
                async_events: 0,
            },
            event_requests: VecDeque::new(),
            events: VecDeque::new(),
            masked_events: 0,
            error_log: VecDeque::new(),
            statistics: Statistics::default(),
        }
    }

    /// A controller reset: all but the Admin Queue registers, the log and what SMART counts (NVMe 7.3.2).
    pub fn controller_reset(&mut self, write_cache: bool) {
        let fresh = State::power_on(self.sqs.len() as u16 - 1, write_cache);
        *self = State {
            aqa: self.aqa,
            asq: self.asq,
            acq: self.acq,
            error_log: std::mem::take(&mut self.error_log),
            statistics: self.statistics,
            ..fresh
        };
    }

    /// Bytes of a memory page.
    pub fn page_size(&self) -> u64 {
        4096 << cc::mps(self.cc)
    }

    pub fn sq(&mut self, id: u16) -> Option<&mut SubmissionQueue> {
        self.sqs.get_mut(usize::from(id))?.as_mut()
    }

    pub fn cq(&mut self, id: u16) -> Option<&mut CompletionQueue> {
        self.cqs.get_mut(usize::from(id))?.as_mut()
    }
}
