//! `usb-storage`: a disk or CD-ROM drive by bulk-only transport (USB Mass Storage Class, Bulk-Only Transport 1.0).

mod bot;
pub mod scsi;
mod worker;

#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Arc, OnceLock};

use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};
use storage::Disk;

pub use bot::State;
pub use scsi::Kind;

use crate::device::{Bus, Notifier, Outcome, Packet, Setup, Speed, UsbDevice};
use crate::spec::transfer;
use crate::standard::{Answer, Descriptors, Endpoint, Interface};

/// Bulk-IN and bulk-OUT.
const IN: u8 = 0x81;
const OUT: u8 = 0x02;

/// Class requests (BOT, 3).
mod request {
    pub const RESET: u8 = 0xff;
    pub const GET_MAX_LUN: u8 = 0xfe;
}

/// What a `usb-storage` device is made as.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name in logs, the user's `id=`.
    pub name: String,
    /// The logical unit.
    pub unit: scsi::Config,
}

/// The medium and the state; what the worker and the controller share.
struct Inner {
    state: State,
    medium: Option<Arc<dyn Disk>>,
    notifier: Notifier,
    speed: Speed,
    /// The worker is at a job, which is not part of the state.
    busy: bool,
    stop: bool,
    /// Chunk buffers that are free.
    spare: Vec<Vec<u8>>,
}

struct Shared {
    config: Config,
    inner: Mutex<Inner>,
    /// There is a job, or none any more.
    changed: Condvar,
    on_tray: OnceLock<Box<dyn Fn(bool) + Send + Sync>>,
}

/// The guest holds the medium in its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked;

/// A `usb-storage` device. Its disk is read and written by a thread of its own.
pub struct UsbStorage {
    shared: Arc<Shared>,
}

/// The medium as the logical unit sees it.
fn medium(config: &Config, disk: Option<&Arc<dyn Disk>>) -> Option<scsi::Medium> {
    let disk = disk?;
    let (block_size, read_only) = match config.unit.kind {
        Kind::Cdrom => (2048, true),
        Kind::Disk => (disk.block_size().max(512), disk.read_only()),
    };
    Some(scsi::Medium {
        blocks: disk.size() / u64::from(block_size),
        block_size,
        read_only,
    })
}

impl UsbStorage {
    /// An unplugged one, with that medium in it. Starts its thread.
    pub fn new(config: Config, medium: Option<Arc<dyn Disk>>) -> std::io::Result<Arc<UsbStorage>> {
        let inner = Inner {
            state: State::power_on(&config),
            medium,
            notifier: Notifier::default(),
            speed: Speed::Super,
            busy: false,
            stop: false,
            spare: Vec::new(),
        };
        let shared = Arc::new(Shared {
            config,
            inner: Mutex::new(inner),
            changed: Condvar::new(),
            on_tray: OnceLock::new(),
        });
        let of_thread = shared.clone();
        std::thread::Builder::new()
            .name("usb-storage".into())
            .spawn(move || worker::run(&of_thread))?;
        Ok(Arc::new(UsbStorage { shared }))
    }

    /// Puts another medium in, or takes the one there is out; the tray is to be open ([`UsbStorage::open_tray`]). When this
    /// returns, nothing is under way on the medium before.
    pub fn change_medium(&self, medium: Option<Arc<dyn Disk>>) {
        let mut inner = self.shared.inner.lock();
        inner.state.medium_changed();
        inner.medium = medium;
        let notifier = inner.notifier.clone();
        drop(inner);
        // Commands of the one before have ended: the guest may fetch their status.
        notifier.ready(IN);
        notifier.ready(OUT);
        drop(self.shared.idle());
    }

    /// Opens the tray, if the guest does not hold the medium in its place or if it is forced. A guest that does is asked to
    /// let it go.
    ///
    /// # Errors
    /// The tray stays closed.
    pub fn open_tray(&self, force: bool) -> Result<(), Locked> {
        let mut inner = self.shared.inner.lock();
        let present = inner.medium.is_some();
        let unit = &mut inner.state.unit;
        if unit.loaded() && unit.prevents_removal() && !force {
            unit.ask_to_eject();
            return Err(Locked);
        }
        let moved = unit.open_tray(present);
        drop(inner);
        self.shared.tray_moved(moved, true);
        Ok(())
    }

    /// Closes the tray, on whatever lies in it.
    pub fn close_tray(&self) {
        let mut inner = self.shared.inner.lock();
        let present = inner.medium.is_some();
        let moved = inner.state.unit.close_tray(present);
        drop(inner);
        self.shared.tray_moved(moved, false);
    }

    /// Has `hook` called whenever the tray has moved, by the guest or by us, with whether it is open; once for a device.
    pub fn on_tray(&self, hook: impl Fn(bool) + Send + Sync + 'static) {
        let _ = self.shared.on_tray.set(Box::new(hook));
    }

    /// Whether the guest holds the medium in its place.
    pub fn locked(&self) -> bool {
        self.shared.inner.lock().state.unit.prevents_removal()
    }

    /// Whether the tray is open.
    pub fn tray_open(&self) -> bool {
        !self.shared.inner.lock().state.unit.loaded()
    }

    /// The medium.
    pub fn medium(&self) -> Option<Arc<dyn Disk>> {
        self.shared.inner.lock().medium.clone()
    }

    /// A copy of the state. Waits for the job that is under way.
    pub fn state(&self) -> State {
        self.shared.idle().state.clone()
    }

    /// Goes on from a copy.
    pub fn restore(&self, state: State) {
        self.shared.idle().state = state;
        self.shared.changed.notify_all();
    }
}

impl Shared {
    fn tray_moved(&self, moved: bool, open: bool) {
        if moved && let Some(hook) = self.on_tray.get() {
            hook(open);
        }
    }

    fn idle(&self) -> parking_lot::MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock();
        while inner.busy {
            self.changed.wait(&mut inner);
        }
        inner
    }

    fn interface(speed: Speed) -> Interface {
        let max_packet = match speed {
            Speed::Super => 1024,
            Speed::High => 512,
            Speed::Full | Speed::Low => 64,
        };
        let endpoint = |address| Endpoint {
            address,
            kind: transfer::BULK,
            max_packet,
            interval: 0,
            max_burst: 15,
        };
        // SCSI transparent command set, bulk-only.
        Interface {
            class: [8, 6, 0x50],
            extra: Vec::new(),
            endpoints: vec![endpoint(IN), endpoint(OUT)],
        }
    }

    fn descriptors(&self, speed: Speed) -> Descriptors {
        // BOT, 4.1.1: the serial number is twelve characters of 0..9, A..F at least. Windows ignores others.
        let mut serial = self.config.unit.serial.clone();
        if serial.is_empty() {
            serial = "000000000001".into();
        }
        Descriptors {
            speed,
            vendor: 0x46f4,
            product: 0x0001,
            manufacturer_name: "Dormer",
            product_name: match self.config.unit.kind {
                Kind::Disk => "Dormer USB Disk",
                Kind::Cdrom => "Dormer USB CD-ROM",
            },
            serial,
            self_powered: true,
            remote_wakeup: false,
            milliamperes: 0,
            interface: Self::interface(speed),
            other_speed: (speed == Speed::High).then(|| Self::interface(Speed::Full)),
        }
    }
}

impl UsbDevice for UsbStorage {
    fn name(&self) -> &str {
        if self.shared.config.name.is_empty() {
            "usb-storage"
        } else {
            &self.shared.config.name
        }
    }

    fn speed(&self, bus: Bus) -> Option<Speed> {
        Some(match bus {
            Bus::Usb2 => Speed::High,
            Bus::Usb3 => Speed::Super,
        })
    }

    fn connect(&self, speed: Speed, notifier: Notifier) {
        let mut inner = self.shared.inner.lock();
        inner.notifier = notifier;
        inner.speed = speed;
    }

    fn disconnect(&self) {
        let mut inner = self.shared.inner.lock();
        inner.notifier = Notifier::default();
        inner.state.bus_reset();
    }

    fn power_cycle(&self) {
        // What was handed to the worker is written before anything that comes later: it does one thing at a time.
        let mut inner = self.shared.idle();
        inner.state = inner.state.power_cycled(&self.shared.config);
    }

    fn bus_reset(&self) {
        self.shared.inner.lock().state.bus_reset();
    }

    fn control(&self, setup: Setup, data: &mut Packet<'_>) -> Outcome {
        let mut inner = self.shared.inner.lock();
        let descriptors = self.shared.descriptors(inner.speed);
        match inner.state.standard.request(&descriptors, setup, data) {
            Answer::Answered(outcome) => outcome,
            Answer::Configured => {
                inner.state.reset_transport();
                Outcome::Done
            }
            Answer::HaltCleared(address) => {
                inner.state.halt_cleared(address);
                Outcome::Done
            }
            Answer::NotStandard => match (setup.request_type, setup.request) {
                (0x21, request::RESET) if setup.value == 0 && setup.length == 0 => {
                    inner.state.reset_transport();
                    Outcome::Done
                }
                (0xa1, request::GET_MAX_LUN) if setup.value == 0 => {
                    data.write(&[0]);
                    Outcome::Done
                }
                _ => Outcome::Stall,
            },
        }
    }

    fn transfer(&self, endpoint: u8, data: &mut Packet<'_>) -> Outcome {
        let mut inner = self.shared.inner.lock();
        let Inner {
            state,
            medium: disk,
            spare,
            ..
        } = &mut *inner;
        if !matches!(endpoint, IN | OUT)
            || state.standard.configuration == 0
            || state.standard.halted(endpoint)
        {
            return Outcome::Stall;
        }
        let closed = state.unit.loaded();
        let outcome = if endpoint == IN {
            state.bulk_in(data, spare)
        } else {
            let medium = medium(&self.shared.config, disk.as_ref());
            state.bulk_out(&self.shared.config, medium, data, spare)
        };
        if state.job().is_some() {
            self.shared.changed.notify_all();
        }
        let open = !state.unit.loaded();
        drop(inner);
        self.shared.tray_moved(open == closed, open);
        outcome
    }

    fn shutdown(&self) {
        let disk = self.shared.idle().medium.clone();
        if let Some(disk) = disk.filter(|d| !d.read_only())
            && let Err(error) = disk.flush()
        {
            tracing::error!(device = self.name(), %error, "cannot write the disk back");
        }
    }
}

impl Drop for UsbStorage {
    fn drop(&mut self) {
        self.shared.inner.lock().stop = true;
        self.shared.changed.notify_all();
    }
}
