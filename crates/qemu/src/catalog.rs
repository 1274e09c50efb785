//! The devices that `-device` knows: what is there, and what is not built yet.

/// The kind of value a property takes, as `-device X,help` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Str,
    Bool,
    OnOffAuto,
    Int32,
    Uint8,
    Uint16,
    Uint32,
    Uint64,
    Size,
}

impl Type {
    /// The name in help texts.
    pub fn name(self) -> &'static str {
        match self {
            Type::Str => "str",
            Type::Bool => "bool",
            Type::OnOffAuto => "OnOffAuto",
            Type::Int32 => "int32",
            Type::Uint8 => "uint8",
            Type::Uint16 => "uint16",
            Type::Uint32 => "uint32",
            Type::Uint64 => "uint64",
            Type::Size => "size",
        }
    }
}

/// One property of a device.
#[derive(Clone, Copy, Debug)]
pub struct Property {
    pub name: &'static str,
    pub kind: Type,
    pub description: &'static str,
    pub default: &'static str,
}

/// Headings of `-device help`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    Controller,
    Usb,
    Storage,
    Network,
    Input,
    Display,
    Sound,
    Misc,
}

impl Category {
    /// All, in the order they are listed.
    pub const ALL: [Category; 8] = [
        Category::Controller,
        Category::Usb,
        Category::Storage,
        Category::Network,
        Category::Input,
        Category::Display,
        Category::Sound,
        Category::Misc,
    ];

    /// The heading.
    pub fn heading(self) -> &'static str {
        match self {
            Category::Controller => "Controller/Bridge/Hub devices:",
            Category::Usb => "USB devices:",
            Category::Storage => "Storage devices:",
            Category::Network => "Network devices:",
            Category::Input => "Input devices:",
            Category::Display => "Display devices:",
            Category::Sound => "Sound devices:",
            Category::Misc => "Misc devices:",
        }
    }
}

/// What a device is plugged into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BusKind {
    Pci,
    Usb,
    /// The link of an HD Audio controller.
    Hda,
    /// Part of the board.
    None,
}

/// A device model.
#[derive(Debug)]
pub struct Model {
    pub name: &'static str,
    pub alias: Option<&'static str>,
    pub bus: BusKind,
    pub category: Category,
    pub description: &'static str,
    pub properties: &'static [&'static [Property]],
}

impl Model {
    /// All properties, by name.
    pub fn properties(&self) -> Vec<&'static Property> {
        let mut all: Vec<_> = self
            .properties
            .iter()
            .flat_map(|group| group.iter())
            .collect();
        all.sort_by_key(|p| p.name);
        all
    }

    /// The property of that name.
    pub fn property(&self, name: &str) -> Option<&'static Property> {
        self.properties
            .iter()
            .flat_map(|group| group.iter())
            .find(|p| p.name == name)
    }
}

const fn property(
    name: &'static str,
    kind: Type,
    description: &'static str,
    default: &'static str,
) -> Property {
    Property {
        name,
        kind,
        description,
        default,
    }
}

const PCI: &[Property] = &[property("addr", Type::Str, "Slot, example: 06", "")];
const USB: &[Property] = &[property("port", Type::Str, "Port of the controller", "")];
const VIRTIO: &[Property] = &[property(
    "disable-legacy",
    Type::OnOffAuto,
    "Only the virtio 1.x interface",
    "auto",
)];
const BOOT: &[Property] = &[property(
    "bootindex",
    Type::Int32,
    "Place in the firmware's boot order",
    "",
)];
const DRIVE: &[Property] = &[
    property(
        "drive",
        Type::Str,
        "ID of a -drive to use as a back end",
        "",
    ),
    property("serial", Type::Str, "Serial number", ""),
    property(
        "werror",
        Type::Str,
        "What a failed write does (report/ignore/enospc/stop/auto)",
        "auto",
    ),
    property(
        "rerror",
        Type::Str,
        "What a failed read does (report/ignore/stop/auto)",
        "auto",
    ),
];

const HDA: &[Property] = &[property(
    "msi",
    Type::OnOffAuto,
    "Message-signalled interrupts",
    "auto",
)];
const AUDIO: &[Property] = &[property(
    "audiodev",
    Type::Str,
    "ID of an audiodev to use as a backend",
    "",
)];
const CODEC: &[Property] = &[
    property("cad", Type::Uint32, "Address on the link, 0 to 14", "next"),
    property("mixer", Type::Bool, "Volume and mute", "on"),
];
const NIC: &[Property] = &[
    property(
        "netdev",
        Type::Str,
        "ID of a -netdev to use as a back end",
        "",
    ),
    property(
        "mac",
        Type::Str,
        "Ethernet 6-byte MAC Address, example: 52:54:00:12:34:56",
        "",
    ),
];
const fn feature(name: &'static str) -> Property {
    property(name, Type::Bool, "The feature is offered", "on")
}
const VIRTIO_NET: &[Property] = &[
    property("mq", Type::Bool, "Several queues", "off"),
    property(
        "queues",
        Type::Uint16,
        "Pairs of queues with mq=on",
        "one a processor",
    ),
    property(
        "vectors",
        Type::Uint32,
        "MSI-X vectors",
        "one a queue and one",
    ),
    property("rx_queue_size", Type::Uint16, "Descriptors", "256"),
    property("tx_queue_size", Type::Uint16, "Descriptors", "256"),
    property("host_mtu", Type::Uint16, "MTU that the guest is told", "0"),
    property("speed", Type::Int32, "Mbit/s that the guest is told", "-1"),
    property("duplex", Type::Str, "full", ""),
    property("romfile", Type::Str, "Empty: there are no option ROMs", ""),
    feature("csum"),
    feature("guest_csum"),
    feature("gso"),
    feature("guest_tso4"),
    feature("guest_tso6"),
    feature("guest_ecn"),
    feature("host_tso4"),
    feature("host_tso6"),
    feature("host_ecn"),
    feature("host_uso"),
    feature("mrg_rxbuf"),
    feature("status"),
    feature("ctrl_vq"),
    feature("ctrl_rx"),
    feature("ctrl_vlan"),
    feature("ctrl_rx_extra"),
    feature("ctrl_mac_addr"),
    feature("ctrl_guest_offloads"),
];

/// What is built.
pub const MODELS: &[Model] = &[
    Model {
        name: "qemu-xhci",
        alias: None,
        bus: BusKind::Pci,
        category: Category::Usb,
        description: "USB 3 host controller",
        properties: &[
            PCI,
            &[
                property("p2", Type::Uint32, "USB 2 ports", "4"),
                property("p3", Type::Uint32, "USB 3 ports", "4"),
            ],
        ],
    },
    Model {
        name: "usb-storage",
        alias: None,
        bus: BusKind::Usb,
        category: Category::Storage,
        description: "USB mass storage, bulk-only: disk or CD-ROM",
        properties: &[
            USB,
            BOOT,
            DRIVE,
            &[property(
                "removable",
                Type::Bool,
                "The medium can be removed",
                "off",
            )],
        ],
    },
    Model {
        name: "virtio-blk-pci",
        alias: Some("virtio-blk"),
        bus: BusKind::Pci,
        category: Category::Storage,
        description: "virtio disk",
        properties: &[
            PCI,
            BOOT,
            DRIVE,
            VIRTIO,
            &[property(
                "num-queues",
                Type::Uint16,
                "Request queues",
                "one a processor",
            )],
        ],
    },
    Model {
        name: "nvme",
        alias: None,
        bus: BusKind::Pci,
        category: Category::Storage,
        description: "Non-Volatile Memory Express",
        properties: &[PCI, BOOT, DRIVE],
    },
    Model {
        name: "virtio-net-pci",
        alias: Some("virtio-net"),
        bus: BusKind::Pci,
        category: Category::Network,
        description: "virtio network card",
        properties: &[PCI, BOOT, VIRTIO, NIC, VIRTIO_NET],
    },
    Model {
        name: "usb-ncm",
        alias: None,
        bus: BusKind::Usb,
        category: Category::Network,
        description: "USB network card, CDC NCM; its driver is in the box on Windows 11",
        properties: &[USB, NIC],
    },
    Model {
        name: "usb-kbd",
        alias: None,
        bus: BusKind::Usb,
        category: Category::Input,
        description: "USB keyboard",
        properties: &[USB],
    },
    Model {
        name: "usb-mouse",
        alias: None,
        bus: BusKind::Usb,
        category: Category::Input,
        description: "USB mouse, relative",
        properties: &[USB],
    },
    Model {
        name: "usb-tablet",
        alias: None,
        bus: BusKind::Usb,
        category: Category::Input,
        description: "USB tablet, absolute pointer",
        properties: &[USB],
    },
    Model {
        name: "ramfb",
        alias: None,
        bus: BusKind::None,
        category: Category::Display,
        description: "Frame buffer in guest memory, set up by firmware",
        properties: &[],
    },
    Model {
        name: "virtio-gpu-pci",
        alias: Some("virtio-gpu"),
        bus: BusKind::Pci,
        category: Category::Display,
        description: "virtio GPU, 2D",
        properties: &[
            PCI,
            &[
                property(
                    "max_outputs",
                    Type::Uint32,
                    "Outputs, 1 to 16; the first is connected",
                    "1",
                ),
                property("xres", Type::Uint32, "Width in pixels at first", "1280"),
                property("yres", Type::Uint32, "Height in pixels at first", "800"),
                property("edid", Type::Bool, "Monitors describe themselves", "on"),
                property(
                    "blob",
                    Type::Bool,
                    "The guest may show its memory without copies",
                    "off",
                ),
                property(
                    "max_hostmem",
                    Type::Size,
                    "Host memory for the guest's resources",
                    "256 MiB",
                ),
            ],
        ],
    },
    Model {
        name: "usb-audio",
        alias: None,
        bus: BusKind::Usb,
        category: Category::Sound,
        description: "USB loudspeaker, stereo",
        properties: &[USB, AUDIO],
    },
    Model {
        name: "intel-hda",
        alias: None,
        bus: BusKind::Pci,
        category: Category::Sound,
        description: "Intel HD Audio Controller (ich6)",
        properties: &[PCI, HDA],
    },
    Model {
        name: "ich9-intel-hda",
        alias: None,
        bus: BusKind::Pci,
        category: Category::Sound,
        description: "Intel HD Audio Controller (ich9)",
        properties: &[PCI, HDA],
    },
    Model {
        name: "hda-output",
        alias: None,
        bus: BusKind::Hda,
        category: Category::Sound,
        description: "HDA Audio Codec, output-only (line-out)",
        properties: &[AUDIO, CODEC],
    },
    Model {
        name: "hda-duplex",
        alias: None,
        bus: BusKind::Hda,
        category: Category::Sound,
        description: "HDA Audio Codec, duplex (line-out, line-in)",
        properties: &[AUDIO, CODEC],
    },
    Model {
        name: "hda-micro",
        alias: None,
        bus: BusKind::Hda,
        category: Category::Sound,
        description: "HDA Audio Codec, duplex (speaker, microphone)",
        properties: &[AUDIO, CODEC],
    },
    Model {
        name: "virtio-rng-pci",
        alias: Some("virtio-rng"),
        bus: BusKind::Pci,
        category: Category::Misc,
        description: "virtio entropy source",
        properties: &[
            PCI,
            VIRTIO,
            &[
                property(
                    "rng",
                    Type::Str,
                    "ID of an -object rng-builtin or rng-random",
                    "",
                ),
                property(
                    "max-bytes",
                    Type::Uint64,
                    "Bytes at most in each period",
                    "",
                ),
                property(
                    "period",
                    Type::Uint32,
                    "Length of a period in milliseconds",
                    "65536",
                ),
            ],
        ],
    },
    Model {
        name: "tpm-crb-device",
        alias: Some("tpm-crb"),
        bus: BusKind::None,
        category: Category::Misc,
        description: "TPM 2.0, command response buffer interface",
        properties: &[TPM],
    },
    Model {
        name: "tpm-tis-device",
        alias: Some("tpm-tis"),
        bus: BusKind::None,
        category: Category::Misc,
        description: "TPM 2.0, FIFO (TIS) interface",
        properties: &[TPM],
    },
];

const TPM: &[Property] = &[property("tpmdev", Type::Str, "ID of a -tpmdev", "")];

/// Devices of the `virt` board that people's command lines name and that Dormer does not have yet, and what they are for.
pub const PLANNED: &[(&str, &str)] = &[
    ("e1000", "another network card; use virtio-net-pci"),
    ("e1000e", "another network card; use virtio-net-pci"),
    ("rtl8139", "another network card; use virtio-net-pci"),
    ("usb-net", "RNDIS; use usb-ncm"),
    ("virtio-gpu-gl-pci", "3D; use virtio-gpu-pci"),
    ("virtio-gpu-device", "virtio-mmio; use virtio-gpu-pci"),
    (
        "virtio-vga",
        "VGA, which this board has not; use virtio-gpu-pci, with ramfb for Windows and firmware",
    ),
    ("virtio-ramfb", "two in one; use ramfb and virtio-gpu-pci"),
    (
        "virtio-sound-pci",
        "virtio sound; use intel-hda and hda-duplex",
    ),
    ("virtio-sound", "virtio sound; use intel-hda and hda-duplex"),
    ("AC97", "AC '97; use intel-hda and hda-duplex"),
    ("ES1370", "AudioPCI; use intel-hda and hda-duplex"),
    ("virtio-scsi-pci", "SCSI"),
    ("scsi-hd", "SCSI"),
    ("scsi-cd", "SCSI"),
    ("virtio-serial-pci", "virtio console"),
    ("virtio-serial", "virtio console"),
    ("virtserialport", "virtio console"),
    ("virtio-balloon-pci", "memory balloon"),
    ("virtio-9p-pci", "shared folders"),
    ("vhost-user-fs-pci", "shared folders"),
    ("virtio-keyboard-pci", "virtio input"),
    ("virtio-tablet-pci", "virtio input"),
    ("virtio-mouse-pci", "virtio input"),
    ("nec-usb-xhci", "another USB controller; use qemu-xhci"),
    ("usb-ehci", "another USB controller; use qemu-xhci"),
    ("usb-hub", "USB hubs; use more ports: qemu-xhci,p2=8,p3=8"),
    ("usb-host", "USB pass-through"),
    ("usb-uas", "USB attached SCSI; use usb-storage"),
    ("pcie-root-port", "PCIe root ports"),
    ("ahci", "AHCI"),
    ("ich9-ahci", "AHCI"),
    ("virtio-blk-device", "virtio-mmio; use virtio-blk-pci"),
    ("virtio-net-device", "virtio-mmio"),
    ("virtio-rng-device", "virtio-mmio; use virtio-rng-pci"),
];

/// The model of that name or alias.
pub fn find(name: &str) -> Option<&'static Model> {
    MODELS
        .iter()
        .find(|m| m.name == name || m.alias == Some(name))
}

/// The text of `-device help`.
pub fn list() -> String {
    let mut text = String::new();
    for category in Category::ALL {
        let mut models: Vec<_> = MODELS.iter().filter(|m| m.category == category).collect();
        if models.is_empty() {
            continue;
        }
        models.sort_by_key(|m| m.name);
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(category.heading());
        text.push('\n');
        for model in models {
            text.push_str(&format!("name \"{}\"", model.name));
            match model.bus {
                BusKind::Pci => text.push_str(", bus PCI"),
                BusKind::Usb => text.push_str(", bus usb-bus"),
                BusKind::Hda => text.push_str(", bus HDA"),
                BusKind::None => {}
            }
            if let Some(alias) = model.alias {
                text.push_str(&format!(", alias \"{alias}\""));
            }
            text.push_str(&format!(", desc \"{}\"\n", model.description));
        }
    }
    text
}

/// The text of `-device X,help`.
pub fn describe(model: &Model) -> String {
    let properties = model.properties();
    if properties.is_empty() {
        return format!("There are no options for {}.\n", model.name);
    }
    let mut text = format!("{} options:\n", model.name);
    for p in properties {
        let left = format!("  {}=<{}>", p.name, p.kind.name());
        text.push_str(&format!("{left:<24} - {}", p.description));
        if !p.default.is_empty() {
            text.push_str(&format!(" (default: {})", p.default));
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_either_built_or_planned() {
        let mut names: Vec<_> = MODELS
            .iter()
            .flat_map(|m| [Some(m.name), m.alias])
            .flatten()
            .collect();
        names.extend(PLANNED.iter().map(|p| p.0));
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }

    #[test]
    fn help_lists_every_device_and_its_properties() {
        let text = list();
        for model in MODELS {
            assert!(text.contains(&format!("name \"{}\"", model.name)));
            for p in model.properties() {
                assert!(describe(model).contains(&format!("  {}=<", p.name)));
            }
        }
    }
}
