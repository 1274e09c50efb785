//! The command ring (4.6).

use device::{Dma, DmaError};

use super::contexts::{self, Context, EndpointState, SlotState};
use super::registers::crcr;
use super::rings::{Next, Ring};
use super::slots::{Endpoint, MOST_ENDPOINTS, Slot};
use super::state::State;
use super::trb::{self, Trb, bit, code, kind};

/// Commands that one ring of the doorbell sets going.
pub const BUDGET: u32 = 0x1_0000;

/// How a command ended: completion code and slot.
type Completion = (u8, u8);

/// What keeps a command from its success.
enum Trouble {
    /// Its completion code.
    Code(u8),
    /// Memory could not be reached.
    Dma(DmaError),
}

impl From<DmaError> for Trouble {
    fn from(error: DmaError) -> Trouble {
        Trouble::Dma(error)
    }
}

impl State {
    /// Whether there may be commands to do.
    pub fn command_due(&self) -> bool {
        self.running() && self.command_running && (self.command_stop || self.command_doorbell)
    }

    /// Does one command, or stops the ring.
    pub fn command(&mut self, dma: &Dma) -> Result<(), DmaError> {
        if std::mem::take(&mut self.command_stop) {
            self.command_running = false;
            self.command_doorbell = false;
            let at = self.command_ring.dequeue;
            return self.complete(dma, at, (code::COMMAND_RING_STOPPED, 0));
        }
        if self.command_budget == 0 {
            self.command_doorbell = false;
            return Ok(());
        }
        self.command_budget -= 1;
        let mut told = Vec::new();
        let next = self.command_ring.next(dma, |trb, address| {
            if trb.has(bit::IOC) {
                told.push(address);
            }
        })?;
        for address in told {
            self.complete(dma, address, (code::SUCCESS, 0))?;
        }
        match next {
            Next::Empty => self.command_doorbell = false,
            Next::Loop(address) => {
                self.command_doorbell = false;
                self.complete(dma, address, (code::TRB_ERROR, 0))?;
            }
            Next::Trb(trb, address) => {
                let completion = match self.execute(dma, &trb) {
                    Ok(slot) => (code::SUCCESS, slot),
                    Err(Trouble::Code(code)) => {
                        tracing::debug!(
                            command = trb.kind(),
                            code,
                            slot = trb.slot(),
                            "a command failed"
                        );
                        (code, trb.slot())
                    }
                    Err(Trouble::Dma(error)) => return Err(error),
                };
                self.complete(dma, address, completion)?;
            }
        }
        Ok(())
    }

    fn complete(
        &mut self,
        dma: &Dma,
        address: u64,
        (code, slot): Completion,
    ) -> Result<(), DmaError> {
        let event = Trb {
            parameter: address,
            status: u32::from(code) << 24,
            control: trb::event(kind::COMMAND_COMPLETION_EVENT, slot, 0),
        };
        self.post(dma, 0, event, false)
    }

    fn execute(&mut self, dma: &Dma, trb: &Trb) -> Result<u8, Trouble> {
        let slot = trb.slot();
        match trb.kind() {
            kind::NO_OP_COMMAND => return Ok(0),
            kind::ENABLE_SLOT => return self.enable_slot(),
            kind::GET_PORT_BANDWIDTH => return self.port_bandwidth(dma, trb),
            kind::DISABLE_SLOT..=kind::RESET_DEVICE => {}
            _ => return Err(Trouble::Code(code::TRB_ERROR)),
        }
        if self.slot(slot).is_none() {
            return Err(Trouble::Code(code::SLOT_NOT_ENABLED));
        }
        match trb.kind() {
            kind::DISABLE_SLOT => self.disable_slot(dma, slot)?,
            kind::ADDRESS_DEVICE => self.address_device(dma, slot, trb)?,
            kind::CONFIGURE_ENDPOINT => self.configure_endpoint(dma, slot, trb)?,
            kind::EVALUATE_CONTEXT => self.evaluate_context(dma, slot, trb)?,
            kind::RESET_ENDPOINT => self.reset_endpoint(dma, slot, trb.endpoint())?,
            kind::STOP_ENDPOINT => self.stop_endpoint(dma, slot, trb.endpoint())?,
            kind::SET_TR_DEQUEUE_POINTER => self.set_dequeue(dma, slot, trb)?,
            _ => self.reset_device(dma, slot)?,
        }
        Ok(slot)
    }

    /// 4.6.3.
    fn enable_slot(&mut self) -> Result<u8, Trouble> {
        let enabled = (self.config & 0xff) as usize;
        let free = self.slots.iter().take(enabled).position(Option::is_none);
        let free = free.ok_or(Trouble::Code(code::NO_SLOTS_AVAILABLE))?;
        self.slots[free] = Some(Slot::enabled());
        Ok(free as u8 + 1)
    }

    /// 4.6.4.
    fn disable_slot(&mut self, dma: &Dma, slot: u8) -> Result<(), Trouble> {
        let state = self.slot(slot).map(|s| (s.state, s.context));
        self.slots[usize::from(slot) - 1] = None;
        if let Some((state, base)) = state
            && state != SlotState::Enabled
        {
            let mut context = contexts::read(dma, base)?;
            contexts::slot::set_state(&mut context, SlotState::Enabled, 0);
            contexts::write(dma, base, &context)?;
        }
        Ok(())
    }

    /// Drop and add flags of an input context (6.2.5.1).
    fn flags(dma: &Dma, input: u64) -> Result<(u32, u32), DmaError> {
        let control = contexts::read(dma, input)?;
        Ok((control[0], control[1]))
    }

    /// 4.6.5.
    fn address_device(&mut self, dma: &Dma, slot: u8, trb: &Trb) -> Result<(), Trouble> {
        let block = trb.has(bit::BIT_9);
        let input = trb.parameter & !0xf;
        let state = self.slot(slot).map_or(SlotState::Enabled, |s| s.state);
        if !matches!(
            (state, block),
            (SlotState::Enabled, _) | (SlotState::Default, false)
        ) {
            return Err(Trouble::Code(code::CONTEXT_STATE_ERROR));
        }
        let (drop, add) = State::flags(dma, input)?;
        let mut context = contexts::read(dma, contexts::of_input(input, 0))?;
        let control = contexts::read(dma, contexts::of_input(input, 1))?;
        let port = contexts::slot::port(&context);
        let endpoint = Endpoint::from_input(&control, 1);
        let valid = drop == 0 && add & 3 == 3 && contexts::slot::route(&context) == 0;
        let (true, Some(endpoint)) = (valid, endpoint) else {
            return Err(Trouble::Code(code::PARAMETER_ERROR));
        };
        match self.ports.get(usize::from(port).wrapping_sub(1)) {
            None => return Err(Trouble::Code(code::PARAMETER_ERROR)),
            // SET_ADDRESS finds nobody.
            Some(p) if !block && !p.active() => {
                return Err(Trouble::Code(code::USB_TRANSACTION_ERROR));
            }
            Some(_) => {}
        }
        let entry = self.dcbaap.wrapping_add(u64::from(slot) * 8);
        let base = dma.read_u64(entry)? & !0x3f;
        let state = if block {
            SlotState::Default
        } else {
            SlotState::Addressed
        };
        contexts::slot::set_state(&mut context, state, if block { 0 } else { slot });
        contexts::slot::set_entries(&mut context, 1);
        contexts::write(dma, base, &context)?;
        contexts::write(dma, contexts::of_device(base, 1), &control)?;
        if let Some(s) = self.slot(slot) {
            (s.state, s.context, s.port) = (state, base, port);
            s.endpoints = vec![None; MOST_ENDPOINTS];
            s.endpoints[1] = Some(endpoint);
        }
        Ok(self.save_endpoint(dma, slot, 1)?)
    }

    /// 4.6.6.
    fn configure_endpoint(&mut self, dma: &Dma, slot: u8, trb: &Trb) -> Result<(), Trouble> {
        let Some(s) = self.slot(slot) else {
            return Err(Trouble::Code(code::SLOT_NOT_ENABLED));
        };
        let (state, base) = (s.state, s.context);
        if !matches!(state, SlotState::Addressed | SlotState::Configured) {
            return Err(Trouble::Code(code::CONTEXT_STATE_ERROR));
        }
        let deconfigure = trb.has(bit::BIT_9);
        let input = trb.parameter & !0xf;
        let (drop, add) = if deconfigure {
            (u32::MAX, 0)
        } else {
            State::flags(dma, input)?
        };
        // D0, D1 are reserved, A1 is Evaluate Context's.
        if !deconfigure && (drop & 3 != 0 || add & 2 != 0) {
            return Err(Trouble::Code(code::PARAMETER_ERROR));
        }
        // All is checked before anything changes.
        let mut added: Vec<(u8, Endpoint, Context)> = Vec::new();
        for dci in (2..MOST_ENDPOINTS as u8).filter(|dci| add >> dci & 1 != 0) {
            let context = contexts::read(dma, contexts::of_input(input, dci))?;
            let endpoint =
                Endpoint::from_input(&context, dci).ok_or(Trouble::Code(code::PARAMETER_ERROR))?;
            let exists = s.endpoints[usize::from(dci)].is_some();
            if exists && drop >> dci & 1 == 0 {
                return Err(Trouble::Code(code::PARAMETER_ERROR));
            }
            added.push((dci, endpoint, context));
        }
        let mut changed: Vec<u8> = Vec::new();
        for dci in (2..MOST_ENDPOINTS as u8).filter(|dci| drop >> dci & 1 != 0) {
            if s.endpoints[usize::from(dci)].take().is_some() {
                changed.push(dci);
            }
        }
        for (dci, endpoint, context) in added {
            contexts::write(dma, contexts::of_device(base, dci), &context)?;
            s.endpoints[usize::from(dci)] = Some(endpoint);
            changed.push(dci);
        }
        let last = (1..MOST_ENDPOINTS)
            .rev()
            .find(|&dci| s.endpoints[dci].is_some())
            .unwrap_or(1);
        s.state = if last > 1 {
            SlotState::Configured
        } else {
            SlotState::Addressed
        };
        let state = s.state;
        for dci in changed {
            self.save_endpoint(dma, slot, dci)?;
        }
        let mut context = contexts::read(dma, base)?;
        contexts::slot::set_state(&mut context, state, slot);
        contexts::slot::set_entries(&mut context, last as u8);
        Ok(contexts::write(dma, base, &context)?)
    }

    /// 4.6.7.
    fn evaluate_context(&mut self, dma: &Dma, slot: u8, trb: &Trb) -> Result<(), Trouble> {
        let Some(s) = self.slot(slot) else {
            return Err(Trouble::Code(code::SLOT_NOT_ENABLED));
        };
        if s.state == SlotState::Enabled {
            return Err(Trouble::Code(code::CONTEXT_STATE_ERROR));
        }
        let base = s.context;
        let input = trb.parameter & !0xf;
        let (drop, add) = State::flags(dma, input)?;
        if drop != 0 {
            return Err(Trouble::Code(code::PARAMETER_ERROR));
        }
        let control = contexts::read(dma, contexts::of_input(input, 1))?;
        let max_packet = contexts::endpoint::max_packet(&control);
        if add & 2 != 0 && !(1..=1024).contains(&max_packet) {
            return Err(Trouble::Code(code::PARAMETER_ERROR));
        }
        if add & 1 != 0 {
            let from = contexts::read(dma, contexts::of_input(input, 0))?;
            let mut context = contexts::read(dma, base)?;
            // Max Exit Latency, Interrupter Target.
            context[1] = context[1] & !0xffff | from[1] & 0xffff;
            context[2] = context[2] & 0x003f_ffff | contexts::slot::interrupter(&from) << 22;
            contexts::write(dma, base, &context)?;
        }
        if add & 2 != 0 {
            let at = contexts::of_device(base, 1);
            let mut context = contexts::read(dma, at)?;
            context[1] = context[1] & 0xffff | u32::from(max_packet) << 16;
            contexts::write(dma, at, &context)?;
            if let Some(endpoint) = s.endpoints[1].as_mut() {
                endpoint.max_packet = max_packet;
            }
        }
        Ok(())
    }

    /// The endpoint a command is about, if it is not disabled.
    fn existing(&mut self, slot: u8, dci: u8) -> Result<&mut Endpoint, Trouble> {
        if dci == 0 {
            return Err(Trouble::Code(code::TRB_ERROR));
        }
        self.endpoint(slot, dci)
            .ok_or(Trouble::Code(code::CONTEXT_STATE_ERROR))
    }

    /// 4.6.8.
    fn reset_endpoint(&mut self, dma: &Dma, slot: u8, dci: u8) -> Result<(), Trouble> {
        let endpoint = self.existing(slot, dci)?;
        if endpoint.state != EndpointState::Halted {
            return Err(Trouble::Code(code::CONTEXT_STATE_ERROR));
        }
        endpoint.state = EndpointState::Stopped;
        Ok(self.save_endpoint(dma, slot, dci)?)
    }

    /// 4.6.9.
    fn stop_endpoint(&mut self, dma: &Dma, slot: u8, dci: u8) -> Result<(), Trouble> {
        let endpoint = self.existing(slot, dci)?;
        // A doorbell of before this command counts.
        let rung = std::mem::take(&mut endpoint.rung) && endpoint.state == EndpointState::Stopped;
        if endpoint.state != EndpointState::Running && !rung {
            return Err(Trouble::Code(code::CONTEXT_STATE_ERROR));
        }
        endpoint.state = EndpointState::Stopped;
        self.stop_transfer(dma, slot, dci)?;
        Ok(self.save_endpoint(dma, slot, dci)?)
    }

    /// 4.6.10.
    fn set_dequeue(&mut self, dma: &Dma, slot: u8, trb: &Trb) -> Result<(), Trouble> {
        // Streams are not supported.
        if trb.status >> 16 != 0 || trb.parameter & 0xe != 0 {
            return Err(Trouble::Code(code::TRB_ERROR));
        }
        let dci = trb.endpoint();
        let endpoint = self.existing(slot, dci)?;
        if !matches!(
            endpoint.state,
            EndpointState::Stopped | EndpointState::Error
        ) {
            return Err(Trouble::Code(code::CONTEXT_STATE_ERROR));
        }
        endpoint.state = EndpointState::Stopped;
        endpoint.restart(Ring::from_pointer(trb.parameter));
        Ok(self.save_endpoint(dma, slot, dci)?)
    }

    /// 4.6.11.
    fn reset_device(&mut self, dma: &Dma, slot: u8) -> Result<(), Trouble> {
        let Some(s) = self.slot(slot) else {
            return Err(Trouble::Code(code::SLOT_NOT_ENABLED));
        };
        if !matches!(s.state, SlotState::Addressed | SlotState::Configured) {
            return Err(Trouble::Code(code::CONTEXT_STATE_ERROR));
        }
        s.state = SlotState::Default;
        let base = s.context;
        let mut dropped: Vec<u8> = Vec::new();
        for dci in 2..MOST_ENDPOINTS {
            if s.endpoints[dci].take().is_some() {
                dropped.push(dci as u8);
            }
        }
        for dci in dropped {
            self.save_endpoint(dma, slot, dci)?;
        }
        let mut context = contexts::read(dma, base)?;
        contexts::slot::set_state(&mut context, SlotState::Default, 0);
        contexts::slot::set_entries(&mut context, 1);
        Ok(contexts::write(dma, base, &context)?)
    }

    /// 4.6.15: nothing is reserved, so a port has what periodic transfers may take: 80 % at high speed, 90 % else.
    fn port_bandwidth(&mut self, dma: &Dma, trb: &Trb) -> Result<u8, Trouble> {
        let speed = trb.endpoint() & 0xf;
        let share = match speed {
            3 => 80,
            1 | 2 | 4 => 90,
            _ => return Err(Trouble::Code(code::TRB_ERROR)),
        };
        if trb.slot() != 0 {
            // Hubs, which are not there.
            return Err(Trouble::Code(code::PARAMETER_ERROR));
        }
        let base = trb.parameter & !0xf;
        let mut bytes = vec![0; 1 + self.ports.len()];
        for (byte, port) in bytes[1..].iter_mut().zip(&self.ports) {
            let usb3 = port.bus == crate::device::Bus::Usb3;
            *byte = if usb3 == (speed == 4) { share } else { 0 };
        }
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        dma.write(base, &bytes)?;
        Ok(0)
    }

    /// A write of CRCR's low word. Returns whether the worker has something to do.
    pub fn write_crcr(&mut self, value: u32) -> bool {
        if self.command_running {
            self.command_stop |= value & (crcr::CS | crcr::CA) != 0;
            return self.command_stop;
        }
        let high = self.command_ring.dequeue & !0xffff_ffff;
        self.command_ring = Ring {
            dequeue: high | u64::from(value & !0x3f),
            cycle: value & crcr::RCS != 0,
        };
        false
    }

    /// A write of its high word.
    pub fn write_crcr_high(&mut self, value: u32) {
        if !self.command_running {
            let low = self.command_ring.dequeue & 0xffff_ffff;
            self.command_ring.dequeue = u64::from(value) << 32 | low;
        }
    }
}
