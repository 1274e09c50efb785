//! The controller's thread: the only one that reaches guest memory or asks devices for transfers, one step at a time.

use std::sync::Arc;

use device::DmaError;
use parking_lot::MutexGuard;

use super::Controller;
use super::registers::{usbcmd, usbsts};
use super::state::{MFINDEX, MICROFRAME, State};
use super::transfers::{Request, Turn};
use super::trb::{self, Trb, code, kind};
use crate::device::{Packet, UsbDevice};

/// Turns an endpoint takes in a row before others get theirs.
const TURNS: usize = 16;

/// One piece of work.
enum Work {
    Reset,
    Halt,
    PortReset(usize),
    PortEvent(usize),
    Wrap,
    Flush,
    Command,
    Endpoint(u8, u8),
}

impl State {
    /// The most urgent thing to do.
    fn work(&mut self, now: u64, bus_master: bool) -> Option<Work> {
        if self.resetting {
            return Some(Work::Reset);
        }
        if self.halting {
            return Some(Work::Halt);
        }
        if let Some(port) = self.ports.iter().position(|p| p.resetting.is_some()) {
            return Some(Work::PortReset(port));
        }
        if !self.running() || !bus_master {
            return None;
        }
        if self.blocked() {
            return std::mem::take(&mut self.flush_due).then_some(Work::Flush);
        }
        if let Some(port) = self.ports.iter().position(|p| p.event) {
            return Some(Work::PortEvent(port));
        }
        if self.wrap.is_some_and(|at| at <= now) {
            return Some(Work::Wrap);
        }
        if self.command_due() {
            return Some(Work::Command);
        }
        let mut i = 0;
        while i < self.later.len() {
            if self.later[i].0 <= now {
                let (_, slot, dci) = self.later.swap_remove(i);
                self.kick(slot, dci);
            } else {
                i += 1;
            }
        }
        let (slot, dci) = self.queue.pop_front()?;
        Some(Work::Endpoint(slot, dci))
    }
}

/// Runs until the controller is dropped.
pub(super) fn run(controller: &Arc<Controller>) {
    loop {
        {
            let mut state = controller.state.lock();
            loop {
                if controller.stopped() {
                    return;
                }
                if controller.has_work(&state) {
                    break;
                }
                controller.work.wait(&mut state);
            }
        }
        controller.step();
    }
}

impl Controller {
    /// Whether a step would do something. A full event ring waits for the guest.
    fn has_work(&self, state: &State) -> bool {
        if state.resetting || state.halting || state.ports.iter().any(|p| p.resetting.is_some()) {
            return true;
        }
        if !state.running() || !self.endpoint.bus_master() {
            return false;
        }
        if state.blocked() {
            return state.flush_due;
        }
        let now = self.clock.now();
        state.ports.iter().any(|p| p.event)
            || state.wrap.is_some_and(|at| at <= now)
            || state.command_due()
            || !state.queue.is_empty()
            || state.later.iter().any(|&(at, ..)| at <= now)
    }

    /// Does one piece of work.
    fn step(&self) {
        // Whoever holds this knows that no guest memory is touched and no device is asked meanwhile.
        let _step = self.step.lock();
        let mut state = self.state.lock();
        let now = self.clock.now();
        let Some(work) = state.work(now, self.endpoint.bus_master()) else {
            return;
        };
        let result = match work {
            Work::Reset => {
                state.reset(&self.config);
                drop(state);
                self.devices().iter().for_each(|d| d.bus_reset());
                state = self.state.lock();
                Ok(())
            }
            Work::Halt => {
                state.mfindex = state.microframe(now);
                state.halting = false;
                state.usbsts |= usbsts::HCH;
                state.command_running = false;
                state.command_doorbell = false;
                state.wrap = None;
                Ok(())
            }
            Work::PortReset(port) => {
                let device = self.plugged.lock().get(port).cloned().flatten();
                drop(state);
                if let Some(device) = device {
                    device.bus_reset();
                }
                state = self.state.lock();
                if let Some(port) = state.ports.get_mut(port) {
                    port.reset_done();
                }
                state.kick_port(port as u8 + 1);
                Ok(())
            }
            Work::PortEvent(port) => {
                state.ports[port].event = false;
                state.usbsts |= usbsts::PCD;
                let event = Trb {
                    parameter: (port as u64 + 1) << 24,
                    status: u32::from(code::SUCCESS) << 24,
                    control: trb::event(kind::PORT_STATUS_CHANGE_EVENT, 0, 0),
                };
                state.post(&self.dma, 0, event, false)
            }
            Work::Wrap => {
                state.wrap = state
                    .wrap
                    .map(|at| at.max(now.saturating_sub(1)) + MFINDEX * MICROFRAME);
                let event = Trb {
                    parameter: 0,
                    status: u32::from(code::SUCCESS) << 24,
                    control: trb::event(kind::MFINDEX_WRAP_EVENT, 0, 0),
                };
                state.post(&self.dma, 0, event, false)
            }
            Work::Flush => state
                .interrupters
                .iter_mut()
                .try_for_each(|i| i.flush(&self.dma)),
            Work::Command => state.command(&self.dma),
            Work::Endpoint(slot, dci) => {
                if let Some(endpoint) = state.endpoint(slot, dci) {
                    endpoint.queued = false;
                }
                let (result, back) = self.endpoint_turns(state, slot, dci);
                state = back;
                result
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "host system error");
            state.host_system_error();
        }
        self.update(&mut state);
    }

    /// An endpoint's turns. Its device is called with the state unlocked.
    fn endpoint_turns<'a>(
        &'a self,
        mut state: MutexGuard<'a, State>,
        slot: u8,
        dci: u8,
    ) -> (Result<(), DmaError>, MutexGuard<'a, State>) {
        for _ in 0..TURNS {
            let request = match state.turn(&self.dma, slot, dci, self.clock.now()) {
                Err(error) => return (Err(error), state),
                Ok(Turn::Idle) => return (Ok(()), state),
                Ok(Turn::Again) => {
                    self.update(&mut state);
                    if state.blocked() {
                        break;
                    }
                    continue;
                }
                Ok(Turn::Ask(request)) => request,
            };
            let device = self
                .plugged
                .lock()
                .get(usize::from(request.port) - 1)
                .cloned()
                .flatten();
            // Being pulled out: the port tells of it next.
            let Some(device) = device else {
                return (Ok(()), state);
            };
            drop(state);
            let (outcome, done, failed) = self.ask(&*device, &request);
            state = self.state.lock();
            if state.epoch != request.epoch {
                return (Ok(()), state);
            }
            if failed {
                let error = DmaError {
                    address: 0,
                    length: done,
                };
                return (Err(error), state);
            }
            match state.answered(&self.dma, slot, dci, outcome, done) {
                Err(error) => return (Err(error), state),
                Ok(false) => return (Ok(()), state),
                Ok(true) => self.update(&mut state),
            }
            if state.blocked() || !state.running() {
                break;
            }
        }
        state.kick(slot, dci);
        (Ok(()), state)
    }

    fn ask(
        &self,
        device: &dyn UsbDevice,
        request: &Request,
    ) -> (crate::device::Outcome, u64, bool) {
        let mut packet = Packet::guest(&self.dma, &request.pieces, request.limit, request.done);
        let outcome = match request.setup {
            Some(setup) => device.control(setup, &mut packet),
            None => device.transfer(request.address, &mut packet),
        };
        (outcome, packet.done(), packet.failed())
    }

    /// Derives interrupts from the state (4.17) and sets the timer for what comes later.
    pub(super) fn update(&self, state: &mut State) {
        let now = self.clock.now();
        let mut deadline = state.wrap;
        deadline = deadline
            .into_iter()
            .chain(state.later.iter().map(|l| l.0))
            .min();
        let messages = self.endpoint.message_signalled();
        let enabled = state.usbcmd & usbcmd::INTE != 0;
        let running = state.running();
        let mut raised = false;
        let mut line = false;
        for (i, interrupter) in state.interrupters.iter_mut().enumerate() {
            if running {
                let update = interrupter.update(now);
                raised |= update.raised;
                deadline = deadline.into_iter().chain(update.deadline).min();
            }
            if enabled && interrupter.asserted() {
                if messages {
                    interrupter.message_sent();
                    self.endpoint.signal(i as u16);
                } else {
                    line = true;
                }
            }
        }
        if raised {
            state.usbsts |= usbsts::EINT;
        }
        self.endpoint.set_intx(line);
        if let (Some(deadline), Some(timer)) = (deadline, self.timer.get()) {
            timer.arm(deadline);
        }
    }

    /// Devices in the ports.
    pub(super) fn devices(&self) -> Vec<Arc<dyn UsbDevice>> {
        self.plugged.lock().iter().flatten().cloned().collect()
    }
}
