//! The legacy interface (Virtio PCI Card Specification 0.9.5; VIRTIO 4.1.4.10).

use device::Access;

use super::{Control, VirtioPci};
use crate::queue::QueuePosition;
use crate::spec::{descriptor, legacy, status};

/// Offset and bytes of each register but the device's own.
const FIELDS: [(u64, u8); 10] = [
    (legacy::DEVICE_FEATURES, 4),
    (legacy::DRIVER_FEATURES, 4),
    (legacy::QUEUE_ADDRESS, 4),
    (legacy::QUEUE_SIZE, 2),
    (legacy::QUEUE_SELECT, 2),
    (legacy::QUEUE_NOTIFY, 2),
    (legacy::DEVICE_STATUS, 1),
    (legacy::ISR_STATUS, 1),
    (legacy::CONFIG_MSIX_VECTOR, 2),
    (legacy::QUEUE_MSIX_VECTOR, 2),
];

impl VirtioPci {
    /// Where the device's configuration begins: behind the vectors if MSI-X is on.
    fn legacy_config(&self) -> u64 {
        if self.endpoint.message_signalled() {
            legacy::CONFIG_MSIX
        } else {
            legacy::CONFIG
        }
    }

    pub(super) fn read_legacy(&self, access: Access) -> u64 {
        let config = self.legacy_config();
        if access.offset >= config {
            return self.read_device(access.offset - config, access.width);
        }
        let end = (access.offset + u64::from(access.width)).min(config);
        let mut value = 0;
        for (offset, width) in FIELDS {
            let (first, last) = (
                offset.max(access.offset),
                (offset + u64::from(width)).min(end),
            );
            if first < last {
                let part = u64::from(self.read_legacy_field(offset)) >> ((first - offset) * 8);
                let part = part & Access::new(0, (last - first) as u8).mask();
                value |= part << ((first - access.offset) * 8);
            }
        }
        value
    }

    fn read_legacy_field(&self, offset: u64) -> u32 {
        if offset == legacy::ISR_STATUS {
            return self.interrupts.take_isr().into();
        }
        let control = self.control.lock();
        let queue = control.queues.get(usize::from(control.queue_select));
        let interrupts = self.interrupts.state.lock();
        match offset {
            legacy::DEVICE_FEATURES => self.features as u32,
            legacy::DRIVER_FEATURES => control.driver_features as u32,
            legacy::QUEUE_ADDRESS => queue
                .filter(|q| q.enabled)
                .map_or(0, |q| (q.descriptors / legacy::ALIGN) as u32),
            legacy::QUEUE_SIZE => queue.map_or(0, |q| q.size.into()),
            legacy::QUEUE_SELECT => control.queue_select.into(),
            legacy::DEVICE_STATUS => interrupts.status.into(),
            legacy::CONFIG_MSIX_VECTOR => interrupts.config_vector.into(),
            legacy::QUEUE_MSIX_VECTOR => {
                let vector = interrupts
                    .queue_vectors
                    .get(usize::from(control.queue_select));
                vector.copied().unwrap_or(crate::spec::NO_VECTOR).into()
            }
            _ => 0,
        }
    }

    pub(super) fn write_legacy(&self, access: Access, value: u64) {
        let config = self.legacy_config();
        if access.offset >= config {
            return self.write_device(access.offset - config, access.width, value);
        }
        let end = (access.offset + u64::from(access.width)).min(config);
        for (offset, width) in FIELDS {
            if offset >= access.offset && offset + u64::from(width) <= end {
                let part = value >> ((offset - access.offset) * 8) & Access::new(0, width).mask();
                self.write_legacy_field(offset, part as u32);
            }
        }
    }

    fn write_legacy_field(&self, offset: u64, value: u32) {
        let mut control = self.control.lock();
        match offset {
            legacy::DRIVER_FEATURES if !self.driver_features_frozen() => {
                // A legacy driver has no FEATURES_OK to see what was refused.
                control.driver_features = u64::from(value) & self.features;
            }
            legacy::QUEUE_ADDRESS => self.set_legacy_queue(&mut control, value),
            legacy::QUEUE_SELECT => control.queue_select = value as u16,
            legacy::QUEUE_NOTIFY => {
                // Old drivers use queues before they say DRIVER_OK (VIRTIO 3.1.2).
                let state = self.interrupts.state.lock().status;
                let index = value as usize;
                if !control.running && state & status::DRIVER != 0 && index < self.queues.len() {
                    self.start(&mut control);
                }
                drop(control);
                if index < self.queues.len() {
                    self.device.notify(index as u16);
                }
            }
            legacy::DEVICE_STATUS => self.set_status(&mut control, value as u8, false),
            legacy::CONFIG_MSIX_VECTOR => self.set_config_vector(value as u16),
            legacy::QUEUE_MSIX_VECTOR => self.set_queue_vector(control.queue_select, value as u16),
            _ => {}
        }
    }

    /// The page number of a queue whose parts lie behind each other (VIRTIO 2.7.2); 0 takes it down.
    fn set_legacy_queue(&self, control: &mut Control, page: u32) {
        let selected = usize::from(control.queue_select);
        let Some(setup) = control.queues.get_mut(selected) else {
            return;
        };
        if page == 0 {
            setup.enabled = false;
            self.queues[selected].stop();
            return;
        }
        let size = u64::from(setup.size);
        setup.enabled = true;
        setup.descriptors = u64::from(page) * legacy::ALIGN;
        setup.available = setup.descriptors + size * descriptor::SIZE;
        setup.used = (setup.available + 6 + size * 2).next_multiple_of(legacy::ALIGN);
        if control.running {
            self.queues[selected].start(setup, control.driver_features, QueuePosition::default());
        }
    }
}
