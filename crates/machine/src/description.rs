//! A machine in plain data: what the command line, a VM's folder or a test asks for.

use std::path::PathBuf;

pub use engine::{Icount, Tier, Translation};
pub use firmware::board::TpmInterface;

/// Everything about a machine before it is built.
#[derive(Clone, Debug, PartialEq)]
pub struct Description {
    /// `-name`: for titles and messages.
    pub name: Option<String>,
    /// Processors.
    pub cpus: u32,
    /// Model name, `max` or `host` among them, and its properties in order (`pauth`, `off`).
    pub cpu_model: String,
    pub cpu_properties: Vec<(String, String)>,
    /// RAM in bytes.
    pub memory: u64,
    /// Engines to try, in order; empty: the best of the host.
    pub accelerators: Vec<String>,
    /// How the `jit` engine generates code.
    pub translation: Translation,
    /// Guest time is counted in instructions (`-icount`).
    pub icount: Option<Icount>,
    /// What random numbers of the device tree begin from (`-seed`); `None`: the host's.
    pub seed: Option<u64>,
    /// Whether the device tree has any (`dtb-randomness=`).
    pub dtb_randomness: bool,
    pub gic: GicChoice,
    pub msi: MsiChoice,
    pub acpi: AcpiChoice,
    /// Whether PCIe windows, ECAM and RAM may lie above 4 GiB.
    pub highmem: bool,
    /// `-bios`: an image that goes to flash 0.
    pub bios: Option<PathBuf>,
    /// `if=pflash` drives: code and variables.
    pub pflash: [Option<Drive>; 2],
    pub kernel: Option<PathBuf>,
    pub initrd: Option<PathBuf>,
    /// Kernel command line.
    pub append: Option<String>,
    /// A device tree to use in the place of ours.
    pub dtb: Option<PathBuf>,
    /// Images under names of their own, in the order in which they are opened; drives name them.
    pub nodes: Vec<Node>,
    pub devices: Vec<Device>,
    /// Where sound goes; devices name them by `id`.
    pub audiodevs: Vec<audio::Options>,
    /// Back ends of NICs (`-netdev`).
    pub networks: Vec<Network>,
    /// What listens on their wires (`-object filter-dump`).
    pub filters: Vec<Filter>,
    /// The UART's far side, as `-serial` has it. `None`: not connected.
    pub serial: Option<String>,
    pub rtc: Rtc,
    pub rtc_clock: RtcClock,
    /// The machine stops, rather than starting again, when the guest resets.
    pub no_reboot: bool,
    /// It stays, stopped, when the guest powers off.
    pub no_shutdown: bool,
    /// Processors do not start until told (`-S`).
    pub start_stopped: bool,
    /// Additional fw_cfg files (`-fw_cfg`).
    pub fw_cfg: Vec<(String, Vec<u8>)>,
    /// `-boot menu=on`: seconds that the firmware waits at its prompt, in milliseconds.
    pub boot_menu_timeout: Option<u16>,
    /// SMBIOS type 1 fields by name (`manufacturer`, `product`, `version`, `serial`, `uuid`, `sku`, `family`).
    pub smbios_system: Vec<(String, String)>,
    /// `-uuid`.
    pub uuid: Option<String>,
}

impl Default for Description {
    fn default() -> Self {
        Description {
            name: None,
            cpus: 1,
            cpu_model: "max".into(),
            cpu_properties: Vec::new(),
            memory: 128 << 20,
            accelerators: Vec::new(),
            translation: Translation::default(),
            icount: None,
            seed: None,
            dtb_randomness: true,
            gic: GicChoice::Auto,
            msi: MsiChoice::Auto,
            acpi: AcpiChoice::Auto,
            highmem: true,
            bios: None,
            pflash: [None, None],
            kernel: None,
            initrd: None,
            append: None,
            dtb: None,
            nodes: Vec::new(),
            devices: Vec::new(),
            audiodevs: Vec::new(),
            networks: Vec::new(),
            filters: Vec::new(),
            serial: None,
            rtc: Rtc::Utc,
            rtc_clock: RtcClock::Host,
            no_reboot: false,
            no_shutdown: false,
            start_stopped: false,
            fw_cfg: Vec::new(),
            boot_menu_timeout: None,
            smbios_system: Vec::new(),
            uuid: None,
        }
    }
}

/// Which interrupt controller: the contract's default is GICv3 with a GICv2m frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicChoice {
    Auto,
    V2,
    V3,
}

/// How message-signalled interrupts arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MsiChoice {
    /// v2m, or the ITS where GICv3 was asked for by name.
    Auto,
    Its,
    Gicv2m,
    None,
}

/// Whether the guest gets ACPI tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiChoice {
    /// With firmware.
    Auto,
    Off,
    /// Required: an error without firmware.
    On,
}

/// The real-time clock's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rtc {
    Utc,
    LocalTime,
    /// Seconds since 1970-01-01 at start.
    Date(i64),
}

/// What the real-time clock follows from its start on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtcClock {
    /// The host's time.
    Host,
    /// The guest's, which stands still while the machine is stopped (`clock=vm`).
    Vm,
}

/// A disk: an image, or an empty tray.
#[derive(Clone, Debug, PartialEq)]
pub struct Drive {
    /// `id=`, or the name QEMU gives (`virtio0`, `pflash1`); empty if what is in it is a node.
    pub id: String,
    /// `None`: an empty tray, or a node.
    pub image: Option<storage::ImageOptions>,
    /// The node that is in it.
    pub node: Option<String>,
    /// `media=cdrom`.
    pub cdrom: bool,
    /// Writes go to a temporary overlay, gone with the machine.
    pub snapshot: bool,
    /// What failed reads and writes do (`rerror`, `werror`).
    pub policy: storage::Policy,
}

/// A block node (`-blockdev`): an image, or the file that one is in.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// `node-name=`. A file inside another node's description may go without.
    pub name: Option<String>,
    pub driver: NodeDriver,
    pub read_only: bool,
    /// Where the file may not be written, the node is read-only rather than an error.
    pub auto_read_only: bool,
    /// Past the host's page cache.
    pub direct: bool,
    /// The guest's flushes are ignored.
    pub no_flush: bool,
    pub discard: storage::Discard,
    pub detect_zeroes: storage::DetectZeroes,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeDriver {
    /// `file`, `host_device`: the bytes of a file.
    File {
        filename: PathBuf,
        locking: storage::Locking,
    },
    /// `raw`, `qcow2`: an image in a file.
    Format {
        format: storage::Format,
        file: NodeFile,
        /// `backing=null`: whatever the image says, there is to be none below it.
        alone: bool,
    },
}

/// The file of an image.
#[derive(Clone, Debug, PartialEq)]
pub enum NodeFile {
    /// A node that is there already.
    Named(String),
    Inside(Box<Node>),
}

/// A back end of a NIC.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    pub id: String,
    pub kind: NetworkKind,
}

/// What a back end is.
#[derive(Clone, Debug, PartialEq)]
pub enum NetworkKind {
    User(Box<network::user::Config>),
    Stream(network::stream::Config),
    #[cfg(target_os = "linux")]
    Tap(network::tap::Config),
    Vmnet(network::vmnet::Config),
}

/// Frames of a back end's wire, to a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Filter {
    pub id: String,
    /// The back end's id.
    pub netdev: String,
    pub file: PathBuf,
    pub which: network::pcap::Which,
    /// Bytes kept of each frame.
    pub limit: u32,
}

/// A device of the board's buses.
#[derive(Clone, Debug, PartialEq)]
pub struct Device {
    /// The user's `id=`.
    pub id: Option<String>,
    /// The bus it goes to, by name, if asked for.
    pub bus: Option<String>,
    /// PCI slot (`addr=`) or USB port (`port=`), if asked for.
    pub address: Option<u8>,
    /// Place in the firmware's boot order.
    pub bootindex: Option<i32>,
    pub kind: Kind,
}

/// What a device is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    Xhci {
        p2: u8,
        p3: u8,
    },
    UsbKeyboard,
    UsbTablet,
    UsbMouse,
    UsbStorage {
        drive: Drive,
        serial: Option<String>,
        removable: bool,
    },
    Ramfb,
    VirtioBlk {
        drive: Drive,
        serial: Option<String>,
        queues: Option<u16>,
        modern_only: bool,
    },
    VirtioRng {
        max_bytes: Option<u64>,
        period_ms: Option<u32>,
        modern_only: bool,
    },
    UsbNcm {
        netdev: Option<String>,
        mac: [u8; 6],
    },
    VirtioNet {
        /// The back end's id; without one the NIC has no carrier to anywhere.
        netdev: Option<String>,
        config: virtio::net::NetConfig,
        /// MSI-X vectors, if not as many as there are queues and one.
        vectors: Option<u16>,
        modern_only: bool,
    },
    VirtioGpu {
        max_outputs: u32,
        xres: u32,
        yres: u32,
        edid: bool,
        blob: bool,
        /// Bytes.
        max_hostmem: u64,
    },
    UsbAudio {
        audiodev: String,
    },
    /// An HD Audio controller.
    Hda {
        /// `ich9-intel-hda` rather than `intel-hda`.
        ich9: bool,
        msi: bool,
    },
    /// A codec on its link.
    HdaCodec {
        codec: Codec,
        audiodev: String,
        /// Address on the link, if asked for.
        cad: Option<u8>,
        /// Whether it has volume and mute.
        mixer: bool,
    },
    Nvme {
        drive: Drive,
        serial: String,
    },
    /// A TPM 2.0 of the board; the first is taken.
    Tpm {
        interface: TpmInterface,
        backend: TpmBackend,
    },
}

/// What is behind a TPM's registers.
#[derive(Clone, Debug, PartialEq)]
pub enum TpmBackend {
    /// A swtpm that somebody has started, by its control socket.
    Emulator { socket: PathBuf },
    /// A swtpm of ours.
    Managed {
        /// Folder of what it keeps.
        state: PathBuf,
        /// Without swtpm, whether the machine starts without a TPM rather than not at all.
        optional: bool,
    },
}

/// A codec of HD Audio, by its model's name: `hda-output`, `hda-duplex`, `hda-micro`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    Output,
    Duplex,
    Micro,
}
