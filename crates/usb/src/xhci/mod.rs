//! `qemu-xhci`: an xHCI host controller on PCI (eXtensible Host Controller Interface for USB, revision 1.2; it says 1.1).
//!
//! - [`State`] is all of it: registers, ports, slots, endpoints, event ring positions.
//! - Register accesses change the state under its lock, which is never held while a device or a disk is waited for.
//! - One worker thread does what doorbells ask: commands, transfers, events, resets. It alone reaches guest memory.
//!
//! `registers`, `trb` and `contexts` have the layouts; `file` the register file's behaviour; `ports`, `interrupters`, `slots`,
//! `rings`, `commands` and `transfers` the parts of the controller they are named for.

mod commands;
mod contexts;
mod file;
mod interrupters;
mod ports;
mod registers;
mod rings;
mod slots;
mod state;
mod transfers;
mod trb;
mod worker;

#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use device::{Access, Clock, Device, Dma, Registers, Timer};
use parking_lot::{Condvar, Mutex};
use pci::{BarKind, Endpoint, Function, Identity};

pub use state::{Config, State};

use crate::device::{Bus, Host, Notifier, Speed, UsbDevice};

/// What the worker and the registers share.
struct Controller {
    config: Config,
    endpoint: Endpoint,
    dma: Dma,
    clock: Clock,
    state: Mutex<State>,
    /// There may be work; goes with `state`.
    work: Condvar,
    /// Held by the worker for a step. Locked before `state`.
    step: Mutex<()>,
    /// The device in each root hub port. Never locked while `state` is waited for.
    plugged: Mutex<Vec<Option<Arc<dyn UsbDevice>>>>,
    timer: OnceLock<Timer>,
    stop: AtomicBool,
}

/// The controller. Dropping it ends its thread.
pub struct Xhci {
    controller: Arc<Controller>,
}

/// Why a controller cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum XhciError {
    /// A number of ports.
    #[error("xHCI has 1 to 15 USB 2 ports and as many USB 3 ports at most, not {p2} and {p3}")]
    Ports { p2: u8, p3: u8 },
    /// The host gave no thread.
    #[error("cannot start a thread for the USB controller: {0}")]
    Thread(#[from] std::io::Error),
}

/// Why a device cannot be plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AttachError {
    /// No such connector, or none whose speed suits the device.
    #[error("the controller has no port {0} for this device")]
    NoSuchPort(u8),
    /// Another device is there.
    #[error("port {0} is taken")]
    Taken(u8),
    /// All are taken.
    #[error("no free port")]
    NoFreePort,
}

impl Xhci {
    /// A controller at power-on, with nothing plugged in. Starts its thread.
    pub fn new(config: Config, dma: Dma, clock: Clock) -> Result<Arc<Xhci>, XhciError> {
        let (p2, p3) = (config.p2, config.p3);
        if !(1..=15).contains(&p2) || !(1..=15).contains(&p3) {
            return Err(XhciError::Ports { p2, p3 });
        }
        let ports = usize::from(p2) + usize::from(p3);
        let identity = Identity {
            vendor: 0x1b36,
            device: 0x000d,
            revision: 1,
            class: 0x0c_03_30,
            subsystem_vendor: 0x1af4,
            subsystem: 0x1100,
        };
        let endpoint = Endpoint::builder(identity)
            .bar(
                0,
                BarKind::Memory64 {
                    prefetchable: false,
                },
                registers::SIZE,
            )
            .interrupt_pin()
            .fixed(
                registers::SBRN,
                &[registers::SBRN_3_0, registers::FLADJ_60000],
                &[0, 0x3f],
            )
            .msix(
                registers::INTERRUPTERS as u16,
                0,
                registers::MSIX_TABLE,
                registers::MSIX_PBA,
            )
            .express()
            .build();
        let state = State::power_on(&config, &[]);
        let controller = Arc::new(Controller {
            config,
            endpoint,
            dma,
            clock: clock.clone(),
            state: Mutex::new(state),
            work: Condvar::new(),
            step: Mutex::new(()),
            plugged: Mutex::new(vec![None; ports]),
            timer: OnceLock::new(),
            stop: AtomicBool::new(false),
        });
        let of_timer = Arc::downgrade(&controller);
        let timer = clock.timer(move || {
            if let Some(controller) = of_timer.upgrade() {
                let mut state = controller.state.lock();
                controller.update(&mut state);
                controller.work.notify_one();
            }
        });
        let _ = controller.timer.set(timer);
        let of_thread = controller.clone();
        std::thread::Builder::new()
            .name("xhci".into())
            .spawn(move || worker::run(&of_thread))?;
        Ok(Arc::new(Xhci { controller }))
    }

    /// Plugs a device in: connector `port` from 1 on, or the first free one. A connector has a USB 3 half, which
    /// SuperSpeed devices use, and a USB 2 half. Returns the connector.
    pub fn attach(&self, port: Option<u8>, device: Arc<dyn UsbDevice>) -> Result<u8, AttachError> {
        let c = &self.controller;
        let config = &c.config;
        let halves = [(Bus::Usb3, config.p3), (Bus::Usb2, config.p2)];
        let mut plugged = c.plugged.lock();
        let mut taken = None;
        let mut found = None;
        'search: for (bus, count) in halves {
            let Some(speed) = device.speed(bus) else {
                continue;
            };
            for connector in 1..=count {
                if port.is_some_and(|p| p != connector) {
                    continue;
                }
                let index = usize::from(config.port(bus, connector)) - 1;
                // A connector holds one device, whichever half it uses.
                let other = if bus == Bus::Usb3 {
                    Bus::Usb2
                } else {
                    Bus::Usb3
                };
                let limit = if other == Bus::Usb2 {
                    config.p2
                } else {
                    config.p3
                };
                let beside = usize::from(config.port(other, connector)) - 1;
                if plugged[index].is_some() || (connector <= limit && plugged[beside].is_some()) {
                    taken = Some(connector);
                    continue;
                }
                found = Some((connector, index, speed));
                break 'search;
            }
        }
        let Some((connector, index, speed)) = found else {
            return Err(match (taken, port) {
                (Some(connector), Some(_)) => AttachError::Taken(connector),
                (Some(_), None) => AttachError::NoFreePort,
                (None, port) => AttachError::NoSuchPort(port.unwrap_or(0)),
            });
        };
        plugged[index] = Some(device.clone());
        drop(plugged);
        let host = PortHost {
            controller: Arc::downgrade(c),
            port: index as u8 + 1,
        };
        device.connect(speed, Notifier::new(Arc::new(host)));
        c.change(|state| state.ports[index].attach(speed));
        Ok(connector)
    }

    /// Pulls out the device in a connector, and returns it.
    pub fn detach(&self, connector: u8) -> Option<Arc<dyn UsbDevice>> {
        let c = &self.controller;
        for (bus, count) in [(Bus::Usb3, c.config.p3), (Bus::Usb2, c.config.p2)] {
            if !(1..=count).contains(&connector) {
                continue;
            }
            let port = c.config.port(bus, connector);
            let Some(device) = c.plugged.lock()[usize::from(port) - 1].take() else {
                continue;
            };
            {
                // Once this is had, no transfer of the device is under way.
                let _step = c.step.lock();
                c.change(|state| {
                    state.ports[usize::from(port) - 1].detach();
                    // What it had to do ends with an error.
                    state.kick_port(port);
                });
            }
            device.disconnect();
            return Some(device);
        }
        None
    }

    /// The speed and name of the device in each connector that has one.
    pub fn attached(&self) -> Vec<(u8, Speed, String)> {
        let c = &self.controller;
        let plugged = c.plugged.lock().clone();
        let state = c.state.lock();
        let mut list = Vec::new();
        for (index, device) in plugged.iter().enumerate() {
            let port = index as u8 + 1;
            let connector = if port > c.config.p3 {
                port - c.config.p3
            } else {
                port
            };
            if let (Some(device), Some(speed)) = (device, state.ports[index].present) {
                list.push((connector, speed, device.name().to_owned()));
            }
        }
        list
    }

    /// A copy of the state, between two steps of the worker.
    pub fn state(&self) -> State {
        let _step = self.controller.step.lock();
        self.controller.state.lock().clone()
    }

    /// Goes on from a copy, with the devices that were plugged in then.
    pub fn restore(&self, saved: State) {
        let _step = self.controller.step.lock();
        self.controller.change(|state| {
            *state = saved;
            state.kick_port(0);
        });
    }
}

impl Drop for Xhci {
    fn drop(&mut self) {
        let _state = self.controller.state.lock();
        self.controller.stop.store(true, Ordering::SeqCst);
        self.controller.work.notify_all();
    }
}

impl Controller {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Changes the state, derives what follows, and lets the worker look.
    fn change(&self, with: impl FnOnce(&mut State)) {
        let mut state = self.state.lock();
        with(&mut state);
        self.update(&mut state);
        self.work.notify_one();
    }
}

impl Registers for Controller {
    fn read_register(&self, offset: u64, _: u32) -> u32 {
        self.state
            .lock()
            .read_register(&self.config, offset, self.clock.now())
    }

    fn write_register(&self, offset: u64, _: u32, value: u32, mask: u32) {
        // 5.1: registers are accessed as whole words.
        if mask != u32::MAX {
            tracing::debug!(offset, "a write of part of an xHCI register");
            return;
        }
        let mut state = self.state.lock();
        let effect = state.write_register(offset, value, self.clock.now());
        self.update(&mut state);
        if effect.work {
            self.work.notify_one();
        }
    }
}

impl Device for Xhci {
    fn name(&self) -> &str {
        &self.controller.config.name
    }

    fn reset(&self) {
        let c = &self.controller;
        let _step = c.step.lock();
        c.endpoint.reset();
        c.devices().iter().for_each(|d| d.power_cycle());
        c.change(|state| state.reset(&c.config));
    }

    fn shutdown(&self) {
        self.controller.devices().iter().for_each(|d| d.shutdown());
    }
}

impl Function for Xhci {
    fn endpoint(&self) -> &Endpoint {
        &self.controller.endpoint
    }

    fn read_bar(&self, _: u8, access: Access) -> u64 {
        self.controller.read_any(access)
    }

    fn write_bar(&self, _: u8, access: Access, value: u64) {
        self.controller.write_any(access, value);
    }

    fn config_written(&self, _: u16, _: u8) {
        // Bus mastering, MSI-X and Interrupt Disable are read where they matter.
        self.controller.change(|_| {});
    }
}

/// A root hub port as its device sees it.
struct PortHost {
    controller: Weak<Controller>,
    port: u8,
}

impl Host for PortHost {
    fn ready(&self, endpoint: u8) {
        let Some(controller) = self.controller.upgrade() else {
            return;
        };
        let number = endpoint & 0xf;
        let dci = if number == 0 {
            1
        } else {
            number << 1 | endpoint >> 7
        };
        controller.change(|state| {
            for slot in 1..=registers::SLOTS as u8 {
                let here = state.slot(slot).is_some_and(|s| s.port == self.port);
                if here && state.endpoint(slot, dci).is_some_and(|e| e.td.is_some()) {
                    state.kick(slot, dci);
                }
            }
        });
    }

    fn wake(&self) {
        let Some(controller) = self.controller.upgrade() else {
            return;
        };
        controller.change(|state| {
            if let Some(port) = state.ports.get_mut(usize::from(self.port) - 1) {
                port.wake();
            }
        });
    }
}
