//! A device's interrupts, whichever way the driver wants them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use pci::Endpoint;
use serde::{Deserialize, Serialize};

use crate::spec::{NO_VECTOR, isr, status};

/// State of the interrupts, and the status that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct InterruptState {
    pub isr: u8,
    /// Device status: here, because a broken ring sets a bit of it.
    pub status: u8,
    pub config_vector: u16,
    pub queue_vectors: Vec<u16>,
    /// Counts changes of the device's configuration.
    pub generation: u8,
}

impl InterruptState {
    pub fn power_on(queues: usize) -> InterruptState {
        InterruptState {
            isr: 0,
            status: 0,
            config_vector: NO_VECTOR,
            queue_vectors: vec![NO_VECTOR; queues],
            generation: 0,
        }
    }
}

/// Sends a device's interrupts: MSI-X if the driver turned it on, else INTx with the ISR status register.
pub struct Interrupts {
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) state: Mutex<InterruptState>,
    /// While a snapshot is taken.
    pub(crate) paused: AtomicBool,
}

impl Interrupts {
    pub(crate) fn new(endpoint: Arc<Endpoint>, queues: usize) -> Interrupts {
        Interrupts {
            endpoint,
            state: Mutex::new(InterruptState::power_on(queues)),
            paused: AtomicBool::new(false),
        }
    }

    /// Whether the device may do DMA.
    pub fn bus_master(&self) -> bool {
        self.endpoint.bus_master()
    }

    /// Buffers of a queue were used.
    pub fn queue(&self, queue: u16) {
        let mut state = self.state.lock();
        let vector = state
            .queue_vectors
            .get(usize::from(queue))
            .copied()
            .unwrap_or(NO_VECTOR);
        self.raise(&mut state, isr::QUEUE, vector);
    }

    /// The device's configuration changed.
    pub fn config_changed(&self) {
        let mut state = self.state.lock();
        state.generation = state.generation.wrapping_add(1);
        if state.status & status::DRIVER_OK != 0 {
            let vector = state.config_vector;
            self.raise(&mut state, isr::CONFIGURATION, vector);
        }
    }

    /// The driver broke the rules; nothing works before a reset (VIRTIO 2.1.2).
    pub fn needs_reset(&self) {
        let mut state = self.state.lock();
        if state.status & status::DEVICE_NEEDS_RESET == 0 {
            state.status |= status::DEVICE_NEEDS_RESET;
            if state.status & status::DRIVER_OK != 0 {
                let vector = state.config_vector;
                self.raise(&mut state, isr::CONFIGURATION, vector);
            }
        }
    }

    /// Whether the device may take no work now: it is paused, may do no DMA, or a ring is broken.
    pub(crate) fn is_stopped(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
            || !self.bus_master()
            || self.state.lock().status & status::DEVICE_NEEDS_RESET != 0
    }

    fn raise(&self, state: &mut InterruptState, bit: u8, vector: u16) {
        if self.endpoint.message_signalled() {
            if vector != NO_VECTOR {
                self.endpoint.signal(vector);
            }
        } else {
            state.isr |= bit;
        }
        self.update(state);
    }

    pub(crate) fn update(&self, state: &InterruptState) {
        self.endpoint.set_intx(state.isr != 0);
    }

    /// A read of ISR status: gives and clears it (VIRTIO 4.1.4.5.1).
    pub(crate) fn take_isr(&self) -> u8 {
        let mut state = self.state.lock();
        let value = std::mem::take(&mut state.isr);
        self.update(&state);
        value
    }
}
