//! The PCI transport (VIRTIO 4.1): modern, legacy, or both at once ("transitional").

mod common;
mod legacy;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use device::{Access, Device, Dma};
use parking_lot::{Mutex, RwLock};
use pci::registers::{CAPABILITY_VENDOR, COMMAND};
use pci::{BarKind, Endpoint, EndpointState, Function, Identity, RestoreError};
use serde::{Deserialize, Serialize};

use crate::device::{Running, VirtioDevice};
use crate::interrupts::{InterruptState, Interrupts};
use crate::queue::{Epoch, QueuePosition, QueueSetup, Virtqueue};
use crate::spec::{capability, feature, legacy as legacy_registers, status};

/// Vendor ID of all virtio devices.
const VENDOR: u16 = 0x1af4;
/// BARs.
const LEGACY_BAR: u8 = 0;
const MSIX_BAR: u8 = 1;
const MODERN_BAR: u8 = 4;
/// What is where in the modern BAR, each of 4 KiB.
const COMMON_OFFSET: u64 = 0;
const ISR_OFFSET: u64 = 0x1000;
const DEVICE_OFFSET: u64 = 0x2000;
const NOTIFY_OFFSET: u64 = 0x3000;
const MODERN_SIZE: u64 = 0x4000;
/// Bytes between the notification registers of two queues.
const NOTIFY_MULTIPLIER: u32 = 4;

/// How a device sits on the bus.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PciOptions {
    /// No legacy interface, and the IDs of a device that never had one.
    pub disable_legacy: bool,
    /// No modern interface.
    pub disable_modern: bool,
    /// MSI-X vectors, by default one a queue and one for the configuration; 0 for no MSI-X.
    pub vectors: Option<u16>,
}

/// Options that make no device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "a virtio device needs its legacy or its modern interface: disable-legacy and disable-modern are both on"
    )]
    NoInterface,
    #[error("{0} has no legacy interface: disable-modern cannot be on")]
    NoLegacy(String),
    #[error("{0} MSI-X vectors: at most 2048")]
    Vectors(u16),
    #[error("{option}={value} of {device}: {rule}")]
    Option {
        device: String,
        option: &'static str,
        value: u64,
        rule: &'static str,
    },
    #[error("cannot start a thread of {device}: {reason}")]
    Thread { device: String, reason: String },
}

/// State of the transport beside interrupts and rings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Control {
    device_feature_select: u32,
    driver_feature_select: u32,
    driver_features: u64,
    queue_select: u16,
    queues: Vec<QueueSetup>,
    /// DRIVER_OK was set, and the device started.
    running: bool,
}

impl Control {
    fn power_on(sizes: &[u16]) -> Control {
        Control {
            device_feature_select: 0,
            driver_feature_select: 0,
            driver_features: 0,
            queue_select: 0,
            queues: sizes
                .iter()
                .map(|&size| QueueSetup {
                    size,
                    ..QueueSetup::default()
                })
                .collect(),
            running: false,
        }
    }
}

/// All that a guest can observe of a virtio function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtioPciState {
    endpoint: EndpointState,
    control: Control,
    interrupts: InterruptState,
    positions: Vec<Option<QueuePosition>>,
    device: Vec<u8>,
}

/// A virtio device as a PCI function.
///
/// Locks, in the order they are taken: control, epoch, a ring, interrupts, the endpoint.
pub struct VirtioPci {
    device: Arc<dyn VirtioDevice>,
    endpoint: Arc<Endpoint>,
    interrupts: Arc<Interrupts>,
    epoch: Arc<Epoch>,
    queues: Vec<Arc<Virtqueue>>,
    /// Maximum sizes.
    sizes: Vec<u16>,
    /// Offered feature bits.
    features: u64,
    /// Where the PCI configuration access capability is.
    window: Option<u16>,
    control: Mutex<Control>,
}

impl VirtioPci {
    /// A function for this device. `dma` is the guest's RAM.
    pub fn new(
        device: Arc<dyn VirtioDevice>,
        dma: Dma,
        options: &PciOptions,
    ) -> Result<Arc<VirtioPci>, ConfigError> {
        let kind = device.kind();
        if options.disable_legacy && options.disable_modern {
            return Err(ConfigError::NoInterface);
        }
        let transitional = kind.transitional.filter(|_| !options.disable_legacy);
        if options.disable_modern && transitional.is_none() {
            return Err(ConfigError::NoLegacy(device.name().into()));
        }
        let sizes = device.queue_sizes();
        let vectors = options.vectors.unwrap_or(sizes.len() as u16 + 1);
        if vectors > 2048 {
            return Err(ConfigError::Vectors(vectors));
        }
        let identity = Identity {
            vendor: VENDOR,
            device: transitional.unwrap_or(0x1040 + kind.device_type),
            revision: if transitional.is_some() { 0 } else { 1 },
            class: kind.class,
            subsystem_vendor: VENDOR,
            subsystem: if transitional.is_some() {
                kind.device_type
            } else {
                0x1100
            },
        };
        let mut builder = Endpoint::builder(identity).interrupt_pin();
        if transitional.is_some() {
            let size = (legacy_registers::CONFIG_MSIX + device.config_size()).next_power_of_two();
            builder = builder.bar(LEGACY_BAR, BarKind::Io, size.min(256));
        }
        let mut features =
            device.features() | feature::RING_INDIRECT_DESC | feature::RING_EVENT_IDX;
        if transitional.is_some() {
            features |= feature::ANY_LAYOUT;
        }
        if !options.disable_modern {
            features |= feature::VERSION_1;
            builder = builder.bar(
                MODERN_BAR,
                BarKind::Memory64 { prefetchable: true },
                MODERN_SIZE,
            );
            for (kind, offset) in [
                (capability::COMMON, COMMON_OFFSET),
                (capability::ISR, ISR_OFFSET),
                (capability::DEVICE, DEVICE_OFFSET),
                (capability::NOTIFY, NOTIFY_OFFSET),
            ] {
                builder =
                    builder.capability(CAPABILITY_VENDOR, structure(kind, offset), Vec::new());
            }
            let mut writable = vec![0; 18];
            writable[2] = 0xff;
            writable[6..].fill(0xff);
            builder =
                builder.capability(CAPABILITY_VENDOR, structure(capability::PCI, 0), writable);
        }
        if vectors > 0 {
            let pba = (u32::from(vectors) * 16).next_power_of_two().max(0x800);
            let size = (u64::from(pba) * 2).max(0x1000);
            builder = builder
                .bar(MSIX_BAR, BarKind::Memory32, size)
                .msix(vectors, MSIX_BAR, 0, pba);
        }
        let endpoint = Arc::new(builder.build());
        let interrupts = Arc::new(Interrupts::new(endpoint.clone(), sizes.len()));
        let epoch = Arc::new(RwLock::new(0));
        let queue = |index| Virtqueue::new(index, dma.clone(), epoch.clone(), interrupts.clone());
        Ok(Arc::new(VirtioPci {
            window: (!options.disable_modern)
                .then(|| endpoint.capability(CAPABILITY_VENDOR, 4))
                .flatten(),
            queues: (0..sizes.len() as u16)
                .map(|i| Arc::new(queue(i)))
                .collect(),
            control: Mutex::new(Control::power_on(&sizes)),
            device,
            endpoint,
            interrupts,
            epoch,
            sizes,
            features,
        }))
    }

    /// The interrupts, for a device that changes its configuration by itself.
    pub fn interrupts(&self) -> &Arc<Interrupts> {
        &self.interrupts
    }

    /// Waits until nothing is in flight and lets nothing begin until [`VirtioPci::resume`].
    pub fn pause(&self) {
        self.interrupts.paused.store(true, Ordering::SeqCst);
        self.device.drain();
    }

    /// Ends a pause.
    pub fn resume(&self) {
        self.interrupts.paused.store(false, Ordering::SeqCst);
        self.kick();
    }

    /// A copy of the state, for a snapshot. Only while paused.
    pub fn state(&self) -> VirtioPciState {
        let control = self.control.lock();
        VirtioPciState {
            endpoint: self.endpoint.state(),
            control: control.clone(),
            interrupts: self.interrupts.state.lock().clone(),
            positions: self.queues.iter().map(|q| q.position()).collect(),
            device: self.device.state(),
        }
    }

    /// Takes over a state that [`VirtioPci::state`] gave.
    pub fn restore(&self, state: VirtioPciState) -> Result<(), RestoreError> {
        let mut control = self.control.lock();
        let queues = self.queues.len();
        if state.control.queues.len() != queues
            || state.interrupts.queue_vectors.len() != queues
            || state.positions.len() != queues
        {
            return Err(RestoreError);
        }
        self.reset_with(&mut control);
        self.endpoint.restore(state.endpoint)?;
        if !self.device.restore(&state.device) {
            return Err(RestoreError);
        }
        *self.interrupts.state.lock() = state.interrupts;
        *control = state.control;
        if control.running {
            for ((queue, setup), position) in
                self.queues.iter().zip(&control.queues).zip(state.positions)
            {
                if let Some(position) = position {
                    queue.start(setup, control.driver_features, position);
                }
            }
            self.start_device(&control);
        }
        let interrupts = self.interrupts.state.lock();
        self.interrupts.update(&interrupts);
        Ok(())
    }

    /// Power-on state of everything but configuration space (VIRTIO 2.4).
    fn reset_with(&self, control: &mut Control) {
        let mut epoch = self.epoch.write();
        *epoch = epoch.wrapping_add(1);
        for queue in &self.queues {
            queue.stop();
        }
        let mut interrupts = self.interrupts.state.lock();
        *interrupts = InterruptState::power_on(self.queues.len());
        self.interrupts.update(&interrupts);
        drop(interrupts);
        drop(epoch);
        self.device.stop();
        *control = Control::power_on(&self.sizes);
    }

    /// The driver wrote the device status (VIRTIO 2.1, 3.1.1).
    fn set_status(&self, control: &mut Control, value: u8, modern: bool) {
        if value == 0 {
            return self.reset_with(control);
        }
        let mut interrupts = self.interrupts.state.lock();
        let before = interrupts.status;
        // Bits are set one after the other and cleared by a reset only.
        let mut now = before | value & !status::DEVICE_NEEDS_RESET;
        let negotiated = control.driver_features & !self.features == 0
            && (!modern || control.driver_features & feature::VERSION_1 != 0);
        if !negotiated && before & status::FEATURES_OK == 0 {
            now &= !status::FEATURES_OK;
        }
        // A modern driver that goes on without FEATURES_OK is not served (VIRTIO 3.1.1, step 6).
        if modern && now & status::FEATURES_OK == 0 {
            now &= !status::DRIVER_OK;
        }
        interrupts.status = now;
        drop(interrupts);
        if now & status::DRIVER_OK != 0 && !control.running {
            self.start(control);
        }
    }

    fn start(&self, control: &mut Control) {
        control.running = true;
        for (queue, setup) in self.queues.iter().zip(&control.queues) {
            if setup.enabled {
                queue.start(setup, control.driver_features, QueuePosition::default());
            }
        }
        self.start_device(control);
    }

    fn start_device(&self, control: &Control) {
        self.device.start(Arc::new(Running {
            queues: self.queues.clone(),
            features: control.driver_features,
            epoch: *self.epoch.read(),
        }));
    }

    /// Has the device look at all of its queues.
    fn kick(&self) {
        if self.control.lock().running {
            for queue in &self.queues {
                self.device.notify(queue.index());
            }
        }
    }

    fn driver_features_frozen(&self) -> bool {
        self.interrupts.state.lock().status & status::FEATURES_OK != 0
    }

    fn set_queue_vector(&self, queue: u16, vector: u16) {
        if let Some(slot) = self
            .interrupts
            .state
            .lock()
            .queue_vectors
            .get_mut(usize::from(queue))
        {
            *slot = self.checked_vector(vector);
        }
    }

    fn set_config_vector(&self, vector: u16) {
        self.interrupts.state.lock().config_vector = self.checked_vector(vector);
    }

    /// A vector that does not exist is refused by giving back none (VIRTIO 4.1.5.1.2.1).
    fn checked_vector(&self, vector: u16) -> u16 {
        if vector < self.endpoint.msix_vectors() {
            vector
        } else {
            crate::spec::NO_VECTOR
        }
    }

    fn read_device(&self, offset: u64, width: u8) -> u64 {
        let mut bytes = [0; 8];
        let size = self.device.config_size();
        if offset < size {
            let length = u64::from(width.min(8)).min(size - offset) as usize;
            self.device.read_config(offset, &mut bytes[..length]);
        }
        u64::from_le_bytes(bytes)
    }

    fn write_device(&self, offset: u64, width: u8, value: u64) {
        let size = self.device.config_size();
        if offset < size {
            let length = u64::from(width.min(8)).min(size - offset) as usize;
            self.device
                .write_config(offset, &value.to_le_bytes()[..length]);
        }
    }

    /// The access that the PCI configuration access capability describes (VIRTIO 4.1.4.9): BAR and access.
    fn windowed(&self, at: u16) -> Option<(u8, Access)> {
        let bar = self.endpoint.read_config(at + capability::PCI_BAR, 1) as u8;
        let offset = u64::from(self.endpoint.read_config(at + capability::PCI_OFFSET, 4));
        let width = self.endpoint.read_config(at + capability::PCI_LENGTH, 4);
        let fits = matches!(width, 1 | 2 | 4)
            && offset.is_multiple_of(width.into())
            && offset + u64::from(width) <= self.endpoint.bar_size(bar);
        fits.then(|| (bar, Access::new(offset, width as u8)))
    }

    /// Whether an access to configuration space touches the window's data.
    fn window_touched(&self, offset: u16, width: u8) -> Option<u16> {
        let at = self.window?;
        let data = at + capability::PCI_DATA;
        (offset < data + 4 && offset + u16::from(width) > data).then_some(at)
    }
}

/// A `virtio_pci_cap` without its ID and next pointer (VIRTIO 4.1.4).
fn structure(kind: u8, offset: u64) -> Vec<u8> {
    let extra = matches!(kind, capability::NOTIFY | capability::PCI);
    let length = if extra { 20 } else { 16 };
    let bar = if kind == capability::PCI {
        0
    } else {
        MODERN_BAR
    };
    let size = if kind == capability::PCI {
        0u32
    } else {
        0x1000
    };
    let mut body = vec![length, kind, bar, 0, 0, 0];
    body.extend((offset as u32).to_le_bytes());
    body.extend(size.to_le_bytes());
    match kind {
        capability::NOTIFY => body.extend(NOTIFY_MULTIPLIER.to_le_bytes()),
        capability::PCI => body.extend([0; 4]),
        _ => {}
    }
    body
}

impl Device for VirtioPci {
    fn name(&self) -> &str {
        self.device.name()
    }

    fn reset(&self) {
        self.reset_with(&mut self.control.lock());
        self.endpoint.reset();
    }

    fn shutdown(&self) {
        self.device.shutdown();
    }
}

impl Function for VirtioPci {
    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn read_bar(&self, bar: u8, access: Access) -> u64 {
        match (bar, access.offset) {
            (LEGACY_BAR, _) => self.read_legacy(access),
            (MODERN_BAR, COMMON_OFFSET..ISR_OFFSET) => self.read_common(access),
            (MODERN_BAR, ISR_OFFSET) => self.interrupts.take_isr().into(),
            (MODERN_BAR, DEVICE_OFFSET..NOTIFY_OFFSET) => {
                self.read_device(access.offset - DEVICE_OFFSET, access.width)
            }
            _ => 0,
        }
    }

    fn write_bar(&self, bar: u8, access: Access, value: u64) {
        match (bar, access.offset) {
            (LEGACY_BAR, _) => self.write_legacy(access, value),
            (MODERN_BAR, COMMON_OFFSET..ISR_OFFSET) => self.write_common(access, value),
            (MODERN_BAR, DEVICE_OFFSET..NOTIFY_OFFSET) => {
                self.write_device(access.offset - DEVICE_OFFSET, access.width, value);
            }
            (MODERN_BAR, NOTIFY_OFFSET..MODERN_SIZE) => {
                let queue = (access.offset - NOTIFY_OFFSET) / u64::from(NOTIFY_MULTIPLIER);
                if queue < self.queues.len() as u64 {
                    self.device.notify(queue as u16);
                }
            }
            _ => {}
        }
    }

    fn config_read(&self, offset: u16, width: u8) -> Option<u32> {
        let at = self.window_touched(offset, width)?;
        let data = at + capability::PCI_DATA;
        let (bar, access) = self.windowed(at)?;
        let value = self
            .endpoint
            .read_msix(bar, access)
            .unwrap_or_else(|| self.read_bar(bar, access));
        let value = (value & access.mask()) as u32;
        self.endpoint.set_config(data, &value.to_le_bytes());
        None
    }

    fn config_written(&self, offset: u16, width: u8) {
        if offset < COMMAND + 2 && offset + u16::from(width) > COMMAND && self.endpoint.bus_master()
        {
            self.kick();
        }
        let Some(at) = self.window_touched(offset, width) else {
            return;
        };
        let Some((bar, access)) = self.windowed(at) else {
            return;
        };
        let value =
            u64::from(self.endpoint.read_config(at + capability::PCI_DATA, 4)) & access.mask();
        if !self.endpoint.write_msix(bar, access, value) {
            self.write_bar(bar, access, value);
        }
    }
}
