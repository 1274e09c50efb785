//! What the device says of itself.

use crate::device::Speed;
use crate::spec::{attributes, descriptor, transfer};
use crate::standard::{self, Descriptors, Endpoint, Interface};

use super::spec::{MS_COMPAT_ID, MS_OS_20_UUID, MS_OS_20_WINDOWS, MS_VENDOR, SEGMENT, ms_os_20};
use super::{IN, NOTIFICATIONS, OUT};

/// The string with the MAC address.
pub const MAC_STRING: u8 = 4;
/// Interfaces.
pub const CONTROL: u8 = 0;
pub const DATA: u8 = 1;

fn endpoints(speed: Speed) -> [Endpoint; 3] {
    let (bulk, interval) = match speed {
        Speed::Super => (1024, 9),
        Speed::High => (512, 9),
        Speed::Full | Speed::Low => (64, 32),
    };
    let bulk = |address| Endpoint {
        address,
        kind: transfer::BULK,
        max_packet: bulk,
        interval: 0,
        max_burst: 15,
    };
    let notifications = Endpoint {
        address: NOTIFICATIONS,
        kind: transfer::INTERRUPT,
        max_packet: 16,
        interval,
        max_burst: 0,
    };
    [notifications, bulk(IN), bulk(OUT)]
}

/// What the standard requests need; the configuration is [`configuration`].
pub fn for_requests(speed: Speed, serial: &str) -> Descriptors {
    let interface = |speed| Interface {
        class: [2, 0x0d, 0],
        extra: Vec::new(),
        endpoints: endpoints(speed).into(),
    };
    Descriptors {
        speed,
        vendor: 0x46f4,
        product: 0x0003,
        manufacturer_name: "Dormer",
        product_name: "Dormer USB Network",
        serial: serial.into(),
        self_powered: true,
        remote_wakeup: false,
        milliamperes: 0,
        interface: interface(speed),
        other_speed: (speed == Speed::High).then(|| interface(Speed::Full)),
    }
}

/// The device descriptor: USB 2.01 at least, or nobody asks for a Binary Object Store (USB 2.0 ECN Link Power Management, 3).
pub fn device(mut device: Vec<u8>) -> Vec<u8> {
    let version = u16::from_le_bytes([device[2], device[3]]).max(0x0201);
    device[2..4].copy_from_slice(&version.to_le_bytes());
    composite(device)
}

/// The device descriptor (or its qualifier): several interfaces make one function (USB ECN, Interface Association).
pub fn composite(mut device: Vec<u8>) -> Vec<u8> {
    device[4..7].copy_from_slice(&[0xef, 2, 1]);
    device
}

/// A configuration descriptor of this type, at this speed.
pub fn configuration(kind: u8, speed: Speed) -> Vec<u8> {
    let mut d = vec![
        9,
        kind,
        0,
        0,
        2,
        1,
        0,
        attributes::ONE | attributes::SELF_POWERED,
        0,
    ];
    d.extend([8, 11, CONTROL, 2, 2, 0x0d, 0, 0]);
    let [notifications, bulk_in, bulk_out] = endpoints(speed);
    d.extend([9, descriptor::INTERFACE, CONTROL, 0, 1, 2, 0x0d, 0, 0]);
    // Header (CDC 1.20), union, Ethernet networking, NCM (version 1.0; packet filter, input size with a count).
    d.extend([5, 0x24, 0x00, 0x20, 0x01]);
    d.extend([5, 0x24, 0x06, CONTROL, DATA]);
    let [low, high] = SEGMENT.to_le_bytes();
    d.extend([
        13, 0x24, 0x0f, MAC_STRING, 0, 0, 0, 0, low, high, 0, 0x80, 0,
    ]);
    d.extend([6, 0x24, 0x1a, 0x00, 0x01, 0x21]);
    endpoint(&mut d, &notifications, speed);
    d.extend([9, descriptor::INTERFACE, DATA, 0, 0, 0x0a, 0, 1, 0]);
    d.extend([9, descriptor::INTERFACE, DATA, 1, 2, 0x0a, 0, 1, 0]);
    endpoint(&mut d, &bulk_in, speed);
    endpoint(&mut d, &bulk_out, speed);
    let total = (d.len() as u16).to_le_bytes();
    d[2..4].copy_from_slice(&total);
    d
}

fn endpoint(d: &mut Vec<u8>, e: &Endpoint, speed: Speed) {
    let [low, high] = e.max_packet.to_le_bytes();
    d.extend([
        7,
        descriptor::ENDPOINT,
        e.address,
        e.kind,
        low,
        high,
        e.interval,
    ]);
    if speed == Speed::Super {
        let per_interval = if e.kind == transfer::BULK {
            [0, 0]
        } else {
            [low, high]
        };
        d.extend([6, descriptor::SUPERSPEED_ENDPOINT_COMPANION, e.max_burst, 0]);
        d.extend(per_interval);
    }
}

/// A string descriptor.
pub fn string(text: &str) -> Vec<u8> {
    let units: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let mut d = vec![2 + units.len() as u8, descriptor::STRING];
    d.extend(units);
    d
}

/// The string by which Windows knows that there are OS descriptors: with the vendor code behind it.
pub fn ms_string() -> Vec<u8> {
    let mut d = string("MSFT100");
    d.extend([MS_VENDOR, 0]);
    d[0] = d.len() as u8;
    d
}

/// The extended compat ID: the first interface's function is bound by the in-box driver UsbNcm.
pub fn ms_compat_id() -> Vec<u8> {
    let mut d = Vec::from(40u32.to_le_bytes());
    d.extend([0x00, 0x01]);
    d.extend(MS_COMPAT_ID.to_le_bytes());
    d.extend([1, 0, 0, 0, 0, 0, 0, 0]);
    d.extend([CONTROL, 1]);
    d.extend(*b"WINNCM\0\0");
    d.extend([0; 14]);
    d
}

/// The Binary Object Store, with the capability by which Windows 8.1 and later know that there is an OS 2.0 descriptor set.
pub fn bos(speed: Speed) -> Vec<u8> {
    let mut platform = vec![28, descriptor::DEVICE_CAPABILITY, 5, 0];
    platform.extend(MS_OS_20_UUID);
    platform.extend(MS_OS_20_WINDOWS.to_le_bytes());
    platform.extend((ms_descriptor_set().len() as u16).to_le_bytes());
    // No alternate enumeration.
    platform.extend([MS_VENDOR, 0]);
    standard::bos(speed, &platform)
}

/// The OS 2.0 descriptor set: the function at the first interface is bound by the in-box driver UsbNcm.
pub fn ms_descriptor_set() -> Vec<u8> {
    let mut compatible = Vec::from(20u16.to_le_bytes());
    compatible.extend(ms_os_20::FEATURE_COMPATIBLE_ID.to_le_bytes());
    compatible.extend(*b"WINNCM\0\0");
    compatible.extend([0; 8]);
    let subset = |kind: u16, of: u8, inner: &[u8]| {
        let mut d = Vec::from(8u16.to_le_bytes());
        d.extend(kind.to_le_bytes());
        d.extend([of, 0]);
        d.extend((8 + inner.len() as u16).to_le_bytes());
        d.extend(inner);
        d
    };
    let function = subset(ms_os_20::SUBSET_HEADER_FUNCTION, CONTROL, &compatible);
    // "bConfigurationValue", but what Windows compares it with is the configuration's index.
    let configuration = subset(ms_os_20::SUBSET_HEADER_CONFIGURATION, 0, &function);
    let mut d = Vec::from(10u16.to_le_bytes());
    d.extend(ms_os_20::SET_HEADER.to_le_bytes());
    d.extend(MS_OS_20_WINDOWS.to_le_bytes());
    d.extend((10 + configuration.len() as u16).to_le_bytes());
    d.extend(configuration);
    d
}
