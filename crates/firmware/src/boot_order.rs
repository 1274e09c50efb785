//! The firmware's boot order: the fw_cfg file `bootorder`, one OpenFirmware device path a line.
//!
//! Paths have the forms that EDK II's `QemuBootOrderLib` matches and that QEMU's board gives. EDK II looks at the slot of
//! a device it does not know by name, so any PCI device can be named.

use std::fmt;

/// fw_cfg file.
pub const FILE: &str = "bootorder";
/// fw_cfg file: milliseconds that the firmware waits at its prompt, 16 bits little-endian.
pub const MENU_WAIT: &str = "etc/boot-menu-wait";

/// The root bridge. It has no address of its own on this board; firmware takes any.
const ROOT: &str = "/pci@ffffffffffffffff";

/// A slot and function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    pub device: u8,
    pub function: u8,
}

impl Slot {
    /// Function 0 of a slot.
    pub fn new(device: u8) -> Slot {
        Slot {
            device,
            function: 0,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.function {
            0 => write!(f, "{:x}", self.device),
            function => write!(f, "{:x},{function:x}", self.device),
        }
    }
}

/// What a path leads to, behind the slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    VirtioBlk,
    Network,
    Scsi {
        target: u16,
        lun: u16,
    },
    Nvme {
        namespace: u32,
    },
    /// Mass storage at a port of an xHCI controller; before the last come the ports of the hubs on the way. Ports
    /// count from 1.
    UsbStorage {
        ports: Vec<u8>,
        lun: u8,
    },
    /// A disk at a port of an AHCI controller.
    Sata {
        port: u8,
    },
    /// Any other device: vendor and device ID.
    Pci {
        vendor: u16,
        device: u16,
    },
}

/// A device to boot from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootDevice {
    /// The bridges on the way from the root bus.
    pub bridges: Vec<Slot>,
    pub slot: Slot,
    pub target: Target,
}

impl fmt::Display for BootDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(ROOT)?;
        for bridge in &self.bridges {
            write!(f, "/pci-bridge@{bridge}")?;
        }
        let slot = self.slot;
        match &self.target {
            Target::VirtioBlk => write!(f, "/scsi@{slot}/disk@0,0"),
            Target::Network => write!(f, "/ethernet@{slot}/ethernet-phy@0"),
            Target::Scsi { target, lun } => {
                write!(f, "/scsi@{slot}/channel@0/disk@{target:x},{lun:x}")
            }
            Target::Nvme { namespace } => {
                write!(f, "/pci1b36,0010@{slot}/namespace@{namespace:x},0")
            }
            Target::UsbStorage { ports, lun } => {
                write!(f, "/usb@{slot}")?;
                for (i, port) in ports.iter().enumerate() {
                    let kind = if i + 1 < ports.len() {
                        "hub"
                    } else {
                        "storage"
                    };
                    write!(f, "/{kind}@{port:x}")?;
                }
                write!(f, "/channel@0/disk@0,{lun:x}")
            }
            Target::Sata { port } => write!(f, "/pci8086,2922@{slot}/drive@{port:x}/disk@0"),
            Target::Pci { vendor, device } => write!(f, "/pci{vendor:04x},{device:04x}@{slot}"),
        }
    }
}

/// The file's contents, first choice first: lines, with a NUL at the end.
pub fn file(devices: &[BootDevice]) -> Vec<u8> {
    let lines: Vec<String> = devices.iter().map(BootDevice::to_string).collect();
    let mut bytes = lines.join("\n").into_bytes();
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_the_board_is_seen_to_give() {
        let at = |slot, target| BootDevice {
            bridges: vec![],
            slot: Slot::new(slot),
            target,
        };
        let usb = |ports: &[u8]| Target::UsbStorage {
            ports: ports.to_vec(),
            lun: 0,
        };
        let behind = BootDevice {
            bridges: vec![Slot::new(6)],
            slot: Slot::new(0),
            target: Target::Nvme { namespace: 1 },
        };
        // Observed in QEMU's fw_cfg.
        let expected = [
            (at(1, Target::VirtioBlk), "/scsi@1/disk@0,0"),
            (
                at(2, Target::Nvme { namespace: 1 }),
                "/pci1b36,0010@2/namespace@1,0",
            ),
            (at(3, usb(&[1])), "/usb@3/storage@1/channel@0/disk@0,0"),
            (
                at(4, Target::Scsi { target: 1, lun: 0 }),
                "/scsi@4/channel@0/disk@1,0",
            ),
            (at(5, Target::Network), "/ethernet@5/ethernet-phy@0"),
            (
                at(3, usb(&[3, 2])),
                "/usb@3/hub@3/storage@2/channel@0/disk@0,0",
            ),
            (behind, "/pci-bridge@6/pci1b36,0010@0/namespace@1,0"),
            (
                at(7, Target::Sata { port: 0 }),
                "/pci8086,2922@7/drive@0/disk@0",
            ),
        ];
        for (device, path) in &expected {
            assert_eq!(device.to_string(), format!("/pci@ffffffffffffffff{path}"));
        }
        let devices: Vec<_> = expected.iter().take(2).map(|e| e.0.clone()).collect();
        let bytes = file(&devices);
        assert_eq!(bytes.last(), Some(&0));
        assert_eq!(bytes.iter().filter(|b| **b == b'\n').count(), 1);
        let function = Slot {
            device: 0x1f,
            function: 2,
        };
        assert_eq!(function.to_string(), "1f,2");
    }
}
