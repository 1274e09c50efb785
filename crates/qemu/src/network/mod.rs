//! `-netdev`, `-nic`, `-net`, `-object filter-dump`: back ends, and the NICs that come by these options.

mod backends;
mod user;

use std::collections::HashSet;

use machine::description::{Device, Filter, Kind, Network};
use network::pcap::Which;
use virtio::net::NetConfig;
use virtio::net::spec::feature;

use crate::Error;
use crate::keyval::{KeyValues, parse_bool};

/// `-netdev help`: what this host has.
pub const BACKENDS: &str = if cfg!(target_os = "linux") {
    "Available netdev backend types:\nsocket\nstream\nuser\ntap\n"
} else if cfg!(target_os = "macos") {
    "Available netdev backend types:\nsocket\nstream\nuser\nvmnet-host\nvmnet-shared\nvmnet-bridged\n"
} else {
    "Available netdev backend types:\nsocket\nstream\nuser\n"
};

/// NIC models of `-nic`.
pub const MODELS: &str = "\
Available NIC models:
usb-ncm (on a USB bus; its driver is in the box on Windows 11)
virtio-net-pci (aka virtio)
";

/// What the network options ask for.
#[derive(Default)]
pub struct Networks {
    pub networks: Vec<Network>,
    pub filters: Vec<Filter>,
    /// NICs of `-nic` and `-net`, which come before all `-device`s.
    pub nics: Vec<Device>,
    /// Those on a USB bus, which come after all `-device`s.
    pub usb_nics: Vec<Device>,
    /// Back ends that a NIC has.
    used: HashSet<String>,
    /// Addresses that are given.
    macs: HashSet<[u8; 6]>,
    /// An option spoke of the network, so there is no default NIC.
    chosen: bool,
    /// `-net`'s NICs and back ends that wait for each other.
    hub_nics: Vec<Nic>,
    hub_networks: Vec<String>,
}

/// A NIC to be.
struct Nic {
    usb: bool,
    netdev: Option<String>,
    mac: Option<[u8; 6]>,
    id: Option<String>,
    vectors: Option<u16>,
    address: Option<u8>,
}

impl Networks {
    /// One option: `-netdev`, `-nic` or `-net`.
    pub fn option(&mut self, name: &str, value: &str) -> Result<(), Error> {
        self.chosen = true;
        match name {
            "netdev" => {
                let mut values = KeyValues::parse(value, Some("type"));
                let kind = values
                    .take("type")
                    .ok_or_else(|| Error::new("Parameter 'type' is missing"))?;
                let id = values
                    .take("id")
                    .ok_or_else(|| Error::new("Parameter 'id' is missing"))?;
                self.backend(&kind, id, values)
            }
            "nic" => self.nic(value),
            _ => self.net(value),
        }
    }

    fn backend(&mut self, kind: &str, id: String, mut values: KeyValues) -> Result<(), Error> {
        if self.networks.iter().any(|n| n.id == id) {
            return Err(Error::new(format!("Duplicate ID '{id}' for netdev")));
        }
        let kind = backends::parse(kind, &mut values)?;
        if let Some((key, _)) = values.rest().next() {
            return Err(Error::new(format!("Parameter '{key}' is unexpected")));
        }
        self.networks.push(Network { id, kind });
        Ok(())
    }

    /// A name for a back end that has none.
    fn free_id(&self) -> String {
        (0..)
            .map(|n| format!("#net{n}"))
            .find(|id| self.networks.iter().all(|network| network.id != *id))
            .unwrap_or_default()
    }

    fn nic(&mut self, value: &str) -> Result<(), Error> {
        let mut values = KeyValues::parse(value, Some("type"));
        let kind = values
            .take("type")
            .ok_or_else(|| Error::new("Parameter 'type' is missing"))?;
        let mut nic = nic_values(&mut values)?;
        if kind == "none" {
            values.finish()?;
            return Ok(());
        }
        let id = nic.id.take().unwrap_or_else(|| self.free_id());
        self.backend(&kind, id.clone(), values)?;
        nic.netdev = Some(id);
        self.add(nic)
    }

    fn net(&mut self, value: &str) -> Result<(), Error> {
        let mut values = KeyValues::parse(value, Some("type"));
        let kind = values
            .take("type")
            .ok_or_else(|| Error::new("Parameter 'type' is missing"))?;
        match kind.as_str() {
            "none" => Ok(values.finish()?),
            "nic" => {
                let mut nic = nic_values(&mut values)?;
                nic.netdev = values.take("netdev");
                values.take("name");
                values.finish()?;
                if nic.netdev.is_some() {
                    self.add(nic)
                } else {
                    self.hub_nics.push(nic);
                    Ok(())
                }
            }
            _ => {
                let id = values
                    .take("name")
                    .or_else(|| values.take("id"))
                    .unwrap_or_else(|| self.free_id());
                self.backend(&kind, id.clone(), values)?;
                self.hub_networks.push(id);
                Ok(())
            }
        }
    }

    /// The options are read: the NICs of `-net` find their back ends, and the default NIC comes if none was spoken of.
    pub fn finish(&mut self, defaults: bool) -> Result<(), Error> {
        if self.hub_nics.len() > 1 || self.hub_networks.len() > 1 {
            return Err(Error::new(
                "Dormer does not have hubs: one -net nic and one back end at most",
            )
            .hint("Use -nic, or -netdev with -device virtio-net-pci,netdev=…"));
        }
        for mut nic in std::mem::take(&mut self.hub_nics) {
            nic.netdev = self.hub_networks.pop();
            self.add(nic)?;
        }
        if !self.chosen && defaults {
            self.nic("user")?;
        }
        Ok(())
    }

    fn add(&mut self, nic: Nic) -> Result<(), Error> {
        if nic.usb {
            if let Some(netdev) = &nic.netdev {
                self.claim(netdev, "usb-ncm")?;
            }
            let mac = self.mac(nic.mac);
            self.usb_nics.push(Device {
                id: nic.id,
                bus: None,
                address: None,
                bootindex: None,
                kind: Kind::UsbNcm {
                    netdev: nic.netdev,
                    mac,
                },
            });
            return Ok(());
        }
        if let Some(netdev) = &nic.netdev {
            self.claim(netdev, "virtio-net-device")?;
        }
        let mac = self.mac(nic.mac);
        // The first is where the default NIC of QEMU's board is.
        let first = self.nics.is_empty().then_some(1);
        self.nics.push(Device {
            id: nic.id,
            bus: None,
            address: nic.address.or(first),
            bootindex: None,
            kind: Kind::VirtioNet {
                netdev: nic.netdev,
                config: NetConfig {
                    mac,
                    ..NetConfig::default()
                },
                vectors: nic.vectors,
                modern_only: false,
            },
        });
        Ok(())
    }

    /// A back end for a NIC of this type.
    pub fn claim(&mut self, netdev: &str, holder: &str) -> Result<(), Error> {
        if self.networks.iter().all(|n| n.id != netdev) {
            return Err(Error::new(format!(
                "Property '{holder}.netdev' can't find value '{netdev}'"
            ))
            .hint(format!("Add -netdev user,id={netdev}")));
        }
        if !self.used.insert(netdev.to_string()) {
            return Err(Error::new(format!(
                "Property '{holder}.netdev' can't take value '{netdev}', it's in use"
            )));
        }
        Ok(())
    }

    /// The address that was asked for, or the next free one.
    pub fn mac(&mut self, wanted: Option<[u8; 6]>) -> [u8; 6] {
        let mac = wanted.unwrap_or_else(|| {
            (0x56..=0xff)
                .map(|last| [0x52, 0x54, 0, 0x12, 0x34, last])
                .find(|mac| !self.macs.contains(mac))
                .unwrap_or([0x52, 0x54, 0, 0x12, 0x34, 0x55])
        });
        self.macs.insert(mac);
        mac
    }

    /// Back ends that no NIC has.
    pub fn unused(&self) -> impl Iterator<Item = &str> {
        self.networks
            .iter()
            .map(|n| n.id.as_str())
            .filter(|id| !self.used.contains(*id))
    }

    /// `-object filter-dump`.
    pub fn filter_dump(&mut self, id: String, values: &mut KeyValues) -> Result<(), Error> {
        let mut needed = |key: &'static str| {
            values
                .take(key)
                .ok_or_else(|| Error::new(format!("Parameter '{key}' is missing")))
        };
        let (netdev, file) = (needed("netdev")?, needed("file")?);
        let which = match values.take("queue").as_deref() {
            None | Some("all") => Which::All,
            Some("tx") => Which::FromGuest,
            Some("rx") => Which::ToGuest,
            Some(other) => {
                return Err(Error::new(format!("invalid parameter 'queue': '{other}'")));
            }
        };
        let limit = match values.take_size("maxlen")?.unwrap_or(65536) {
            0 => {
                return Err(Error::new(
                    "Property 'filter-dump.maxlen' doesn't take value '0'",
                ));
            }
            n => u32::try_from(n).unwrap_or(u32::MAX),
        };
        if let Some("off") = values.take("status").as_deref() {
            return Err(Error::new(
                "Dormer cannot turn filters on later (status=off)",
            ));
        }
        self.filters.push(Filter {
            id,
            netdev,
            file: file.into(),
            which,
            limit,
        });
        Ok(())
    }

    /// A `-device usb-ncm`.
    pub fn usb_ncm(&mut self, values: &mut KeyValues) -> Result<Kind, Error> {
        let mac = values.take("mac").map(|m| parse_mac(&m)).transpose()?;
        let netdev = values.take("netdev");
        if let Some(netdev) = &netdev {
            self.claim(netdev, "usb-ncm")?;
        }
        Ok(Kind::UsbNcm {
            netdev,
            mac: self.mac(mac),
        })
    }

    /// A `-device virtio-net-pci`.
    pub fn virtio_net(
        &mut self,
        values: &mut KeyValues,
        modern_only: bool,
        cpus: u32,
    ) -> Result<Kind, Error> {
        let mac = values.take("mac").map(|m| parse_mac(&m)).transpose()?;
        let netdev = values.take("netdev");
        if let Some(netdev) = &netdev {
            self.claim(netdev, "virtio-net-device")?;
        }
        let mut config = NetConfig {
            mac: self.mac(mac),
            ..NetConfig::default()
        };
        let vectors = values.take_number("vectors")?.map(|n| n as u16);
        if values.take_bool("mq")?.unwrap_or(false) {
            config.queue_pairs = match values.take_number("queues")? {
                Some(n) => n as u16,
                None => cpus.clamp(1, 16) as u16,
            };
        }
        for (key, size) in [
            ("rx_queue_size", &mut config.rx_queue_size),
            ("tx_queue_size", &mut config.tx_queue_size),
        ] {
            if let Some(n) = values.take_number(key)? {
                *size = n as u16;
            }
        }
        config.mtu = values
            .take_number("host_mtu")?
            .map(|n| n as u16)
            .filter(|n| *n != 0);
        config.speed = match values.take("speed") {
            Some(text) => match text.parse::<i32>() {
                Ok(-1) => None,
                Ok(n) if n >= 0 => Some(n as u32),
                _ => return Err(Error::new("'speed' must be between 0 and INT_MAX")),
            },
            None => None,
        };
        if let Some(duplex) = values.take("duplex")
            && duplex != "full"
        {
            return Err(Error::new(format!(
                "Dormer's wires are full duplex (duplex={duplex})"
            )));
        }
        for (key, bits) in FEATURES {
            if let Some(value) = values.take(key)
                && !parse_bool(key, &value)?
            {
                config.without |= bits;
            }
        }
        rom(values)?;
        Ok(Kind::VirtioNet {
            netdev,
            config,
            vectors,
            modern_only,
        })
    }
}

/// Properties that keep features from being offered.
pub const FEATURES: [(&str, u64); 18] = [
    ("csum", feature::CSUM),
    ("guest_csum", feature::GUEST_CSUM),
    (
        "gso",
        feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_ECN | feature::HOST_USO,
    ),
    ("guest_tso4", feature::GUEST_TSO4),
    ("guest_tso6", feature::GUEST_TSO6),
    ("guest_ecn", feature::GUEST_ECN),
    ("host_tso4", feature::HOST_TSO4),
    ("host_tso6", feature::HOST_TSO6),
    ("host_ecn", feature::HOST_ECN),
    ("host_uso", feature::HOST_USO),
    ("mrg_rxbuf", feature::MRG_RXBUF),
    ("status", feature::STATUS),
    ("ctrl_vq", feature::CTRL_VQ),
    ("ctrl_rx", feature::CTRL_RX),
    ("ctrl_vlan", feature::CTRL_VLAN),
    ("ctrl_rx_extra", feature::CTRL_RX_EXTRA),
    ("ctrl_mac_addr", feature::CTRL_MAC_ADDR),
    ("ctrl_guest_offloads", feature::CTRL_GUEST_OFFLOADS),
];

/// Option ROMs are for PCs; an empty one or none is what everybody gets.
fn rom(values: &mut KeyValues) -> Result<(), Error> {
    if let Some(file) = values.take("romfile").filter(|f| !f.is_empty()) {
        return Err(
            Error::new(format!("Dormer does not have option ROMs (romfile={file})"))
                .hint("The firmware has its own driver for this device"),
        );
    }
    Ok(())
}

/// What `-nic` and `-net nic` say of the NIC.
fn nic_values(values: &mut KeyValues) -> Result<Nic, Error> {
    let usb = match values.take("model").as_deref() {
        None | Some("virtio" | "virtio-net" | "virtio-net-pci") => false,
        Some("usb-ncm") => true,
        Some(model) => {
            return Err(Error::new(format!("Unsupported NIC model: {model}"))
                .hint("Use -nic model=help to list the models there are"));
        }
    };
    let mac = match (values.take("mac"), values.take("macaddr")) {
        (Some(mac), _) | (None, Some(mac)) => Some(parse_mac(&mac)?),
        (None, None) => None,
    };
    let address = values
        .take("addr")
        .map(|a| crate::command_line::slot(&a))
        .transpose()?;
    let vectors = values.take_number("vectors")?.map(|n| n as u16);
    if usb && (address.is_some() || vectors.is_some()) {
        return Err(Error::new(
            "addr= and vectors= are of PCI devices, and usb-ncm is on a USB bus",
        ));
    }
    Ok(Nic {
        usb,
        netdev: None,
        mac,
        id: values.take("id"),
        vectors,
        address,
    })
}

/// Six bytes in hexadecimal, with colons or dashes; no group address.
pub fn parse_mac(text: &str) -> Result<[u8; 6], Error> {
    let bad = || Error::new(format!("invalid syntax for ethernet address '{text}'"));
    let mut mac = [0; 6];
    let parts: Vec<_> = text.split([':', '-']).collect();
    if parts.len() != 6 {
        return Err(bad());
    }
    for (byte, part) in mac.iter_mut().zip(parts) {
        if part.is_empty() || part.len() > 2 {
            return Err(bad());
        }
        *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
    }
    if mac[0] & 1 != 0 {
        return Err(Error::new(
            "NIC cannot have multicast MAC address (odd 1st byte)",
        ));
    }
    Ok(mac)
}

#[cfg(test)]
mod tests;
