//! What the board tells of what is plugged into it.

use network::BackendInfo;
use pci::{Function, registers};
use usb::device::Speed;

use super::Board;

/// A PCI function, as its configuration space has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciEntry {
    pub slot: u8,
    /// The user's id, or the name that it was given.
    pub name: String,
    pub vendor: u16,
    pub device: u16,
    pub subsystem_vendor: u16,
    pub subsystem: u16,
    /// Class and subclass.
    pub class: u16,
    /// The line that the firmware has written down, and the pin: 1 is INTA.
    pub interrupt: Option<(u8, u8)>,
    pub bars: Vec<BarEntry>,
}

/// A base address register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarEntry {
    pub index: u8,
    pub io: bool,
    /// Takes two registers.
    pub wide: bool,
    pub prefetchable: bool,
    /// Bytes.
    pub size: u64,
    /// Where the guest has put it, if the function answers there now.
    pub address: Option<u64>,
}

/// A device on a USB controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsbEntry {
    /// Number of the controller.
    pub bus: usize,
    /// Connector, from 1 on.
    pub port: u8,
    /// Mbit/s.
    pub speed: &'static str,
    /// The user's id, or the name that it was given.
    pub name: String,
}

/// A wire: what is on its ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkEntry {
    pub nic: Option<NicEntry>,
    /// The back end's id, and what it is.
    pub backend: Option<(String, BackendInfo)>,
    /// Whether the wire is whole.
    pub up: bool,
}

/// A network card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NicEntry {
    pub name: String,
    pub model: &'static str,
    pub mac: [u8; 6],
}

impl Board {
    /// The functions of the PCI bus, by slot.
    pub fn pci(&self) -> Vec<PciEntry> {
        let functions = self.bus.functions();
        let entries = functions.iter().map(|(slot, f)| pci_entry(*slot, &**f));
        entries.collect()
    }

    /// The devices of the USB controllers.
    pub fn usb(&self) -> Vec<UsbEntry> {
        let controllers = self.usb.iter().enumerate();
        controllers
            .flat_map(|(bus, controller)| {
                let attached = controller.attached().into_iter();
                attached.map(move |(port, speed, name)| UsbEntry {
                    bus,
                    port,
                    speed: match speed {
                        Speed::Low => "1.5",
                        Speed::Full => "12",
                        Speed::High => "480",
                        Speed::Super => "5000",
                    },
                    name,
                })
            })
            .collect()
    }

    /// NICs and back ends: first the NICs, in their order.
    pub fn networks(&self) -> Vec<NetworkEntry> {
        self.links.entries()
    }
}

fn pci_entry(slot: u8, function: &dyn Function) -> PciEntry {
    let endpoint = function.endpoint();
    let word = |offset| endpoint.read_config(offset, 2) as u16;
    let command = word(registers::COMMAND);
    let mut bars = Vec::new();
    for index in 0..6u8 {
        let size = endpoint.bar_size(index);
        if size == 0 {
            continue;
        }
        let offset = registers::BAR0 + 4 * u16::from(index);
        let low = endpoint.read_config(offset, 4);
        let io = low & registers::BAR_IO != 0;
        let wide = !io && low & registers::BAR_64 != 0;
        let high = match wide {
            true => endpoint.read_config(offset + 4, 4),
            false => 0,
        };
        let flags = if io { 0x3 } else { 0xf };
        let address = u64::from(high) << 32 | u64::from(low & !flags);
        let needs = match io {
            true => registers::COMMAND_IO,
            false => registers::COMMAND_MEMORY,
        };
        bars.push(BarEntry {
            index,
            io,
            wide,
            prefetchable: !io && low & registers::BAR_PREFETCHABLE != 0,
            size,
            address: (command & needs != 0 && address != 0).then_some(address),
        });
    }
    let pin = endpoint.read_config(registers::INTERRUPT_PIN, 1) as u8;
    let line = endpoint.read_config(registers::INTERRUPT_LINE, 1) as u8;
    PciEntry {
        slot,
        name: function.name().into(),
        vendor: word(registers::VENDOR_ID),
        device: word(registers::DEVICE_ID),
        subsystem_vendor: word(registers::SUBSYSTEM_VENDOR_ID),
        subsystem: word(registers::SUBSYSTEM_ID),
        class: word(registers::REVISION_ID + 2),
        interrupt: (pin != 0).then_some((line, pin)),
        bars,
    }
}
