//! The common configuration structure (VIRTIO 4.1.4.3).

use device::Access;

use super::{Control, VirtioPci};
use crate::queue::QueuePosition;
use crate::spec::{NO_VECTOR, common};

/// Offset and bytes of each register; the 64-bit ones are written in halves.
const FIELDS: [(u64, u8); 19] = [
    (common::DEVICE_FEATURE_SELECT, 4),
    (common::DEVICE_FEATURE, 4),
    (common::DRIVER_FEATURE_SELECT, 4),
    (common::DRIVER_FEATURE, 4),
    (common::CONFIG_MSIX_VECTOR, 2),
    (common::NUM_QUEUES, 2),
    (common::DEVICE_STATUS, 1),
    (common::CONFIG_GENERATION, 1),
    (common::QUEUE_SELECT, 2),
    (common::QUEUE_SIZE, 2),
    (common::QUEUE_MSIX_VECTOR, 2),
    (common::QUEUE_ENABLE, 2),
    (common::QUEUE_NOTIFY_OFF, 2),
    (common::QUEUE_DESC, 4),
    (common::QUEUE_DESC + 4, 4),
    (common::QUEUE_DRIVER, 4),
    (common::QUEUE_DRIVER + 4, 4),
    (common::QUEUE_DEVICE, 4),
    (common::QUEUE_DEVICE + 4, 4),
];

impl VirtioPci {
    pub(super) fn read_common(&self, access: Access) -> u64 {
        let Some(at) = usize::try_from(access.offset)
            .ok()
            .filter(|&o| o < common::SIZE)
        else {
            return 0;
        };
        let image = self.common_image();
        let mut bytes = [0; 8];
        let length = usize::from(access.width).min(8).min(common::SIZE - at);
        bytes[..length].copy_from_slice(&image[at..at + length]);
        u64::from_le_bytes(bytes)
    }

    /// The structure as it reads now.
    fn common_image(&self) -> [u8; common::SIZE] {
        let control = self.control.lock();
        let interrupts = self.interrupts.state.lock();
        let mut image = [0; common::SIZE];
        let mut put = |offset: u64, bytes: &[u8]| {
            image[offset as usize..][..bytes.len()].copy_from_slice(bytes);
        };
        put(
            common::DEVICE_FEATURE_SELECT,
            &control.device_feature_select.to_le_bytes(),
        );
        put(
            common::DEVICE_FEATURE,
            &half(self.features, control.device_feature_select).to_le_bytes(),
        );
        put(
            common::DRIVER_FEATURE_SELECT,
            &control.driver_feature_select.to_le_bytes(),
        );
        let driver = half(control.driver_features, control.driver_feature_select);
        put(common::DRIVER_FEATURE, &driver.to_le_bytes());
        put(
            common::CONFIG_MSIX_VECTOR,
            &interrupts.config_vector.to_le_bytes(),
        );
        put(
            common::NUM_QUEUES,
            &(self.queues.len() as u16).to_le_bytes(),
        );
        put(common::DEVICE_STATUS, &[interrupts.status]);
        put(common::CONFIG_GENERATION, &[interrupts.generation]);
        put(common::QUEUE_SELECT, &control.queue_select.to_le_bytes());
        let selected = usize::from(control.queue_select);
        let vector = interrupts
            .queue_vectors
            .get(selected)
            .copied()
            .unwrap_or(NO_VECTOR);
        put(common::QUEUE_MSIX_VECTOR, &vector.to_le_bytes());
        // A queue that does not exist has size 0 (VIRTIO 4.1.5.1.3).
        if let Some(queue) = control.queues.get(selected) {
            put(common::QUEUE_SIZE, &queue.size.to_le_bytes());
            put(
                common::QUEUE_ENABLE,
                &u16::from(queue.enabled).to_le_bytes(),
            );
            put(
                common::QUEUE_NOTIFY_OFF,
                &control.queue_select.to_le_bytes(),
            );
            put(common::QUEUE_DESC, &queue.descriptors.to_le_bytes());
            put(common::QUEUE_DRIVER, &queue.available.to_le_bytes());
            put(common::QUEUE_DEVICE, &queue.used.to_le_bytes());
        }
        image
    }

    pub(super) fn write_common(&self, access: Access, value: u64) {
        let end = access.offset + u64::from(access.width);
        let mut control = self.control.lock();
        for (offset, width) in FIELDS {
            if offset >= access.offset && offset + u64::from(width) <= end {
                let part = value >> ((offset - access.offset) * 8) & Access::new(0, width).mask();
                self.write_field(&mut control, offset, part as u32);
            }
        }
    }

    fn write_field(&self, control: &mut Control, offset: u64, value: u32) {
        match offset {
            common::DEVICE_FEATURE_SELECT => control.device_feature_select = value,
            common::DRIVER_FEATURE_SELECT => control.driver_feature_select = value,
            common::DRIVER_FEATURE if !self.driver_features_frozen() => {
                match control.driver_feature_select {
                    0 => set_half(&mut control.driver_features, 0, value),
                    1 => set_half(&mut control.driver_features, 1, value),
                    _ => {}
                }
            }
            common::CONFIG_MSIX_VECTOR => self.set_config_vector(value as u16),
            common::DEVICE_STATUS => self.set_status(control, value as u8, true),
            common::QUEUE_SELECT => control.queue_select = value as u16,
            common::QUEUE_MSIX_VECTOR => self.set_queue_vector(control.queue_select, value as u16),
            _ => self.write_queue_field(control, offset, value),
        }
    }

    fn write_queue_field(&self, control: &mut Control, offset: u64, value: u32) {
        let selected = usize::from(control.queue_select);
        let Some(setup) = control.queues.get_mut(selected) else {
            return;
        };
        // An enabled queue stays as it is until a reset (VIRTIO 4.1.4.3.2).
        if setup.enabled {
            return;
        }
        match offset {
            common::QUEUE_SIZE => {
                let size = value as u16;
                if size.is_power_of_two() && size <= self.sizes[selected] {
                    setup.size = size;
                }
            }
            common::QUEUE_ENABLE if value == 1 => {
                setup.enabled = true;
                if control.running {
                    let features = control.driver_features;
                    self.queues[selected].start(setup, features, QueuePosition::default());
                }
            }
            _ => {
                let which = (offset >> 2 & 1) as u32;
                match offset & !7 {
                    common::QUEUE_DESC => set_half(&mut setup.descriptors, which, value),
                    common::QUEUE_DRIVER => set_half(&mut setup.available, which, value),
                    common::QUEUE_DEVICE => set_half(&mut setup.used, which, value),
                    _ => {}
                }
            }
        }
    }
}

/// One 32-bit half; others than 0 and 1 are zero.
fn half(value: u64, which: u32) -> u32 {
    match which {
        0 => value as u32,
        1 => (value >> 32) as u32,
        _ => 0,
    }
}

fn set_half(value: &mut u64, which: u32, half: u32) {
    let shift = which * 32;
    *value = *value & !(0xffff_ffff << shift) | u64::from(half) << shift;
}
