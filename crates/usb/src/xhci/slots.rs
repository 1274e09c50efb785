//! Device slots and their endpoints (4.5.3, 4.8.3).

use device::{Dma, DmaError};
use serde::{Deserialize, Serialize};

use super::contexts::{self, Context, EndpointState, EndpointType, SlotState};
use super::rings::Ring;
use super::state::State;
use super::transfers::Td;

/// Device context indices: 1 is the control endpoint, 2n OUT n, 2n + 1 IN n.
pub const MOST_ENDPOINTS: usize = 32;

/// Transfer descriptors that one doorbell sets going: more than any ring holds, and an end to one that goes round.
pub const BUDGET: u32 = 0x1_0000;

/// An endpoint that is not disabled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub state: EndpointState,
    pub kind: EndpointType,
    pub to_host: bool,
    pub max_packet: u16,
    /// Service interval: 2^interval microframes.
    pub interval: u8,
    /// The next TRB to be done.
    pub ring: Ring,
    /// Bytes of it that were moved before the endpoint was stopped.
    pub offset: u32,
    /// Event Data Transfer Length Accumulator (4.11.5.2).
    pub edtla: u32,
    /// The rest of a TD is passed over: it ended early.
    pub skipping: bool,
    /// Control: the setup stage that was seen, and whether the device has had the request.
    pub setup: Option<[u8; 8]>,
    pub executed: bool,
    /// What is under way.
    pub td: Option<Td>,
    /// It waits for its turn.
    pub queued: bool,
    /// Its doorbell was rung since its last turn: that starts a stopped endpoint.
    pub rung: bool,
    /// Descriptors left until the next doorbell.
    pub budget: u32,
    /// Isochronous: when the next TD is due, in nanoseconds of guest time; 0: not streaming.
    pub due: u64,
}

impl Endpoint {
    fn new(context: &Context, (kind, to_host): (EndpointType, bool)) -> Endpoint {
        Endpoint {
            state: EndpointState::Running,
            kind,
            to_host,
            max_packet: contexts::endpoint::max_packet(context),
            interval: contexts::endpoint::interval(context),
            ring: Ring::from_pointer(contexts::endpoint::dequeue(context)),
            offset: 0,
            edtla: 0,
            skipping: false,
            setup: None,
            executed: false,
            td: None,
            queued: false,
            rung: false,
            budget: BUDGET,
            due: 0,
        }
    }

    /// Out of an input context; `None` if that is not valid for the device context index.
    pub fn from_input(context: &Context, dci: u8) -> Option<Endpoint> {
        let (kind, to_host) = contexts::endpoint::kind(context)?;
        let control = kind == EndpointType::Control;
        let fits = if control {
            dci == 1
        } else {
            dci > 1 && to_host == (dci & 1 == 1)
        };
        let packet = contexts::endpoint::max_packet(context);
        // MaxPSASize is 0: no streams.
        if !fits || !(1..=1024).contains(&packet) || contexts::endpoint::streams(context) != 0 {
            return None;
        }
        Some(Endpoint::new(context, (kind, to_host)))
    }

    /// Forgets what is under way and starts at `ring`.
    pub fn restart(&mut self, ring: Ring) {
        self.ring = ring;
        self.offset = 0;
        self.edtla = 0;
        self.skipping = false;
        self.setup = None;
        self.executed = false;
        self.td = None;
        self.due = 0;
    }
}

/// A device slot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    pub state: SlotState,
    /// The output device context.
    pub context: u64,
    /// The root hub port, from 1.
    pub port: u8,
    /// By device context index.
    pub endpoints: Vec<Option<Endpoint>>,
}

impl Slot {
    /// After Enable Slot.
    pub fn enabled() -> Slot {
        Slot {
            state: SlotState::Enabled,
            context: 0,
            port: 0,
            endpoints: vec![None; MOST_ENDPOINTS],
        }
    }
}

impl State {
    /// An enabled slot.
    pub fn slot(&mut self, slot: u8) -> Option<&mut Slot> {
        self.slots
            .get_mut(usize::from(slot).checked_sub(1)?)?
            .as_mut()
    }

    /// An endpoint that is not disabled.
    pub fn endpoint(&mut self, slot: u8, dci: u8) -> Option<&mut Endpoint> {
        self.slot(slot)?
            .endpoints
            .get_mut(usize::from(dci))?
            .as_mut()
    }

    /// Queues an endpoint for the worker, unless it is queued.
    pub fn kick(&mut self, slot: u8, dci: u8) {
        if let Some(endpoint) = self.endpoint(slot, dci)
            && !std::mem::replace(&mut endpoint.queued, true)
        {
            self.queue.push_back((slot, dci));
        }
    }

    /// Queues the endpoints of the devices at a port (from 1; 0: all ports) that have something under way.
    pub fn kick_port(&mut self, port: u8) {
        for slot in 1..=self.slots.len() as u8 {
            let Some(s) = self.slot(slot).filter(|s| port == 0 || s.port == port) else {
                continue;
            };
            let busy: Vec<u8> = (1..MOST_ENDPOINTS as u8)
                .filter(|&dci| {
                    s.endpoints[usize::from(dci)]
                        .as_ref()
                        .is_some_and(|e| e.state == EndpointState::Running)
                })
                .collect();
            busy.into_iter().for_each(|dci| self.kick(slot, dci));
        }
    }

    /// A doorbell.
    pub fn doorbell(&mut self, slot: u8, dci: u8) {
        if let Some(endpoint) = self.endpoint(slot, dci) {
            endpoint.budget = BUDGET;
            endpoint.rung = true;
            self.kick(slot, dci);
        }
    }

    /// Writes an endpoint's state and dequeue pointer to its output context.
    pub fn save_endpoint(&mut self, dma: &Dma, slot: u8, dci: u8) -> Result<(), DmaError> {
        let Some(s) = self.slot(slot) else {
            return Ok(());
        };
        let address = contexts::of_device(s.context, dci);
        let mut context = contexts::read(dma, address)?;
        match s.endpoints.get(usize::from(dci)).and_then(Option::as_ref) {
            Some(endpoint) => {
                contexts::endpoint::set_state(&mut context, endpoint.state as u8);
                contexts::endpoint::set_dequeue(&mut context, endpoint.ring.pointer());
            }
            None => contexts::endpoint::set_state(&mut context, 0),
        }
        contexts::write(dma, address, &context)
    }
}
