//! The state of the controller.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::interrupters::{Interrupter, Position};
use super::ports::Port;
use super::registers::{INTERRUPTERS, SLOTS, usbcmd, usbsts};
use super::rings::Ring;
use super::slots::Slot;
use crate::device::{Bus, Speed};

/// What a controller is made as.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name in logs, the user's `id=`.
    pub name: String,
    /// USB 2 and USB 3 ports: QEMU's `p2=` and `p3=`, 1 to 15 each.
    pub p2: u8,
    pub p3: u8,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            name: "qemu-xhci".into(),
            p2: 4,
            p3: 4,
        }
    }
}

impl Config {
    /// The root hub port (from 1) of a connector's half; the USB 3 ports come first.
    pub fn port(&self, bus: Bus, connector: u8) -> u8 {
        match bus {
            Bus::Usb3 => connector,
            Bus::Usb2 => self.p3 + connector,
        }
    }
}

/// The state of the controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub usbcmd: u32,
    pub usbsts: u32,
    pub dnctrl: u32,
    pub dcbaap: u64,
    pub config: u32,
    /// CRCR: the position; CRR; a stop was asked for.
    pub command_ring: Ring,
    pub command_running: bool,
    pub command_stop: bool,
    /// Doorbell 0 was rung; commands left until it is rung again.
    pub command_doorbell: bool,
    pub command_budget: u32,
    pub ports: Vec<Port>,
    /// From slot 1 on; `None`: disabled.
    pub slots: Vec<Option<Slot>>,
    pub interrupters: Vec<Interrupter>,
    /// Endpoints that wait for their turn.
    pub queue: VecDeque<(u8, u8)>,
    /// An event ring that was full may have room again.
    pub flush_due: bool,
    /// HCRST was written; the worker has yet to do it.
    pub resetting: bool,
    /// RS was cleared; the worker has yet to halt.
    pub halting: bool,
    /// Guest time at MFINDEX 0, in nanoseconds; while halted, the microframe it stopped at.
    pub mfindex_zero: u64,
    pub mfindex: u32,
    /// Isochronous endpoints whose time has not come: guest time, slot, endpoint.
    pub later: Vec<(u64, u8, u8)>,
    /// When the next MFINDEX Wrap Event is due.
    pub wrap: Option<u64>,
    /// The event rings' positions as CSS saved them (4.23.2).
    pub saved: Option<Vec<Position>>,
    /// Counts resets: what was begun before one has no effect after it.
    pub epoch: u64,
}

/// Nanoseconds of a microframe.
pub const MICROFRAME: u64 = 125_000;
/// MFINDEX has 14 bits.
pub const MFINDEX: u64 = 0x4000;

impl State {
    /// At power-on, with these devices in the ports.
    pub fn power_on(config: &Config, present: &[Option<Speed>]) -> State {
        let bus = |i: usize| {
            if i < usize::from(config.p3) {
                Bus::Usb3
            } else {
                Bus::Usb2
            }
        };
        let ports = usize::from(config.p2) + usize::from(config.p3);
        let port = |i: usize| Port::power_on(bus(i), present.get(i).copied().flatten());
        State {
            usbcmd: 0,
            usbsts: usbsts::HCH,
            dnctrl: 0,
            dcbaap: 0,
            config: 0,
            command_ring: Ring::default(),
            command_running: false,
            command_stop: false,
            command_doorbell: false,
            command_budget: 0,
            ports: (0..ports).map(port).collect(),
            slots: vec![None; SLOTS],
            interrupters: vec![Interrupter::power_on(); INTERRUPTERS],
            queue: VecDeque::new(),
            flush_due: false,
            resetting: false,
            halting: false,
            mfindex_zero: 0,
            mfindex: 0,
            later: Vec::new(),
            wrap: None,
            saved: None,
            epoch: 0,
        }
    }

    /// Back to power-on; the devices stay plugged in.
    pub fn reset(&mut self, config: &Config) {
        let present: Vec<_> = self.ports.iter().map(|p| p.present).collect();
        let epoch = self.epoch.wrapping_add(1);
        *self = State {
            epoch,
            ..State::power_on(config, &present)
        };
    }

    /// Running: commands and transfers are done, events are written.
    pub fn running(&self) -> bool {
        self.usbsts & usbsts::HCH == 0
    }

    /// Whether an event ring is full.
    pub fn blocked(&self) -> bool {
        self.interrupters.iter().any(Interrupter::blocked)
    }

    /// Host system error (4.10.2.6): halts.
    pub fn host_system_error(&mut self) {
        self.usbsts |= usbsts::HSE;
        self.usbcmd &= !usbcmd::RUN;
        self.halting = true;
    }

    /// MFINDEX.
    pub fn microframe(&self, now: u64) -> u32 {
        if self.running() {
            (now.saturating_sub(self.mfindex_zero) / MICROFRAME % MFINDEX) as u32
        } else {
            self.mfindex
        }
    }
}
