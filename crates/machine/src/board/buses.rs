//! Devices on PCI and USB.

use std::collections::HashMap;
use std::sync::Arc;

use audio::Audio;
use console::Display;
use device::{Clock, Device};
use devices::fw_cfg::FwCfg;
use devices::ramfb::Ramfb;
use firmware::boot_order::{BootDevice, Slot, Target};
use memory::Dma;
use pci::Function;
use storage::Disk;
use usb::device::UsbDevice;
use usb::xhci::Xhci;

use super::drives::{DriveEntry, StallHook};
use super::network::Links;
use super::nodes::Nodes;
use crate::BuildError;
use crate::description::{self, Codec, Drive, Kind};

/// What devices are plugged into.
pub struct Surroundings<'a> {
    pub bus: &'a Arc<pci::Bus>,
    pub dma: &'a Dma,
    pub clock: &'a Clock,
    pub fw_cfg: &'a Arc<FwCfg>,
    pub display: &'a Arc<Display>,
    pub on_stall: &'a StallHook,
    pub nodes: &'a Arc<Nodes>,
    pub audios: &'a [Arc<Audio>],
    pub cpus: u32,
}

/// What came of it.
#[derive(Default)]
pub struct Plugged {
    /// Devices that are not functions of the bus.
    pub devices: Vec<Arc<dyn Device>>,
    pub drives: Vec<DriveEntry>,
    pub links: Links,
    /// USB controllers, in order.
    pub usb: Vec<Arc<Xhci>>,
    /// Firmware's names of devices with a `bootindex`, in order.
    pub boot_order: Vec<BootDevice>,
}

/// A controller and where it is.
struct Controller {
    id: Option<String>,
    slot: u8,
    xhci: Arc<Xhci>,
}

/// An HD Audio controller and its codecs' bus.
struct Link {
    id: Option<String>,
    hda: Arc<hda::Hda>,
}

/// Plugs in all devices, in order, the NICs to these wires.
pub fn plug(
    devices: &[description::Device],
    wires: Links,
    around: &Surroundings,
) -> Result<Plugged, BuildError> {
    let mut plugged = Plugged {
        links: wires,
        ..Plugged::default()
    };
    let mut controllers: Vec<Controller> = Vec::new();
    let mut links: Vec<Link> = Vec::new();
    let mut boot: Vec<(i32, BootDevice)> = Vec::new();
    let mut counts: HashMap<&'static str, u32> = HashMap::new();
    for device in devices {
        let model = model(&device.kind);
        let count = counts.entry(model).or_default();
        let name = device
            .id
            .clone()
            .unwrap_or_else(|| format!("{model}.{count}"));
        *count += 1;
        let fail = |reason: String| BuildError::Device {
            name: name.clone(),
            reason,
        };
        let mut open = |drive: &Drive, removable| {
            let holder = match &device.id {
                Some(id) => format!("/machine/peripheral/{id}"),
                None => format!("/machine/peripheral-anon/{name}"),
            };
            let (entry, disk) =
                DriveEntry::open(drive, holder, removable, around.on_stall, around.nodes)?;
            plugged.drives.push(entry);
            Ok::<_, BuildError>(disk)
        };
        let needed = |disk: Option<Arc<dyn Disk>>| {
            disk.ok_or_else(|| fail("Device needs media, but drive is empty".into()))
        };
        let mut path = None;
        match &device.kind {
            Kind::Xhci { p2, p3 } => {
                let config = usb::xhci::Config {
                    name: name.clone(),
                    p2: *p2,
                    p3: *p3,
                };
                let xhci = Xhci::new(config, around.dma.clone(), around.clock.clone())
                    .map_err(|e| fail(e.to_string()))?;
                let slot = on_bus(around, device, xhci.clone()).map_err(|e| fail(e.to_string()))?;
                plugged.usb.push(xhci.clone());
                controllers.push(Controller {
                    id: device.id.clone(),
                    slot,
                    xhci,
                });
            }
            Kind::UsbKeyboard | Kind::UsbTablet | Kind::UsbMouse => {
                let config = usb::hid::Config {
                    name: name.clone(),
                    serial: name.clone(),
                    high_speed: true,
                };
                let clock = around.clock.clone();
                match device.kind {
                    Kind::UsbKeyboard => {
                        let keyboard = usb::hid::Keyboard::new(config, clock);
                        around.display.add_input(keyboard.clone());
                        on_port(&controllers, device, keyboard)
                    }
                    Kind::UsbTablet => {
                        let tablet = usb::hid::Tablet::new(config, clock);
                        around.display.add_input(tablet.clone());
                        on_port(&controllers, device, tablet)
                    }
                    _ => {
                        let mouse = usb::hid::Mouse::new(config, clock);
                        around.display.add_input(mouse.clone());
                        on_port(&controllers, device, mouse)
                    }
                }
                .map_err(fail)?;
            }
            Kind::UsbStorage {
                drive,
                serial,
                removable,
            } => {
                let disk = open(drive, *removable || drive.cdrom)?;
                if !drive.cdrom && !removable {
                    needed(disk.clone())?;
                }
                let kind = if drive.cdrom {
                    usb::storage::scsi::Kind::Cdrom
                } else {
                    usb::storage::scsi::Kind::Disk
                };
                let config = usb::storage::Config {
                    name: name.clone(),
                    unit: usb::storage::scsi::Config {
                        kind,
                        removable: *removable,
                        serial: serial.clone().unwrap_or_else(|| name.clone()),
                        product: String::new(),
                    },
                };
                let storage =
                    usb::storage::UsbStorage::new(config, disk).map_err(|e| fail(e.to_string()))?;
                if let Some(entry) = plugged.drives.last() {
                    entry.set_tray(&storage);
                }
                let (slot, port) = on_port(&controllers, device, storage).map_err(fail)?;
                path = Some((
                    slot,
                    Target::UsbStorage {
                        ports: vec![port],
                        lun: 0,
                    },
                ));
            }
            Kind::Ramfb => {
                let ramfb = Ramfb::new(&name, around.dma.clone());
                let shown = ramfb.clone();
                around
                    .fw_cfg
                    .add_writable_file("etc/ramfb", vec![0; 28], move |file| shown.configure(file))
                    .map_err(|e| fail(e.to_string()))?;
                around.display.add_screen(ramfb.clone());
                plugged.devices.push(ramfb);
            }
            Kind::VirtioBlk {
                drive,
                serial,
                queues,
                modern_only,
            } => {
                let disk = needed(open(drive, false)?)?;
                let config = virtio::block::BlockConfig {
                    serial: serial.clone().unwrap_or_default(),
                    num_queues: queues.unwrap_or(around.cpus.clamp(1, 16) as u16),
                    read_only: drive.cdrom,
                    discard: true,
                    ..Default::default()
                };
                let block = virtio::block::Block::new(&name, config, disk)
                    .map_err(|e| fail(e.to_string()))?;
                let slot =
                    on_virtio(around, device, Arc::new(block), *modern_only).map_err(fail)?;
                path = Some((slot, Target::VirtioBlk));
            }
            Kind::VirtioRng {
                max_bytes,
                period_ms,
                modern_only,
            } => {
                let mut config = virtio::rng::RngConfig {
                    max_bytes: *max_bytes,
                    ..Default::default()
                };
                if let Some(period) = period_ms {
                    config.period = *period;
                }
                let rng = virtio::rng::Rng::new(&name, config, around.clock)
                    .map_err(|e| fail(e.to_string()))?;
                on_virtio(around, device, Arc::new(rng), *modern_only).map_err(fail)?;
            }
            Kind::UsbNcm { netdev, mac } => {
                let link = plugged
                    .links
                    .take(netdev.as_deref(), &name, model, *mac)
                    .map_err(|why| fail(format!("Property 'usb-ncm.netdev' {why}")))?;
                let config = usb::ncm::Config {
                    name: name.clone(),
                    mac: *mac,
                };
                let ncm = usb::ncm::Ncm::new(config, link)
                    .ok_or_else(|| fail("its netdev is in use".into()))?;
                on_port(&controllers, device, ncm).map_err(fail)?;
            }
            Kind::VirtioNet {
                netdev,
                config,
                vectors,
                modern_only,
            } => {
                let link = plugged
                    .links
                    .take(netdev.as_deref(), &name, model, config.mac)
                    .map_err(|why| fail(format!("Property 'virtio-net-device.netdev' {why}")))?;
                let options = virtio::PciOptions {
                    disable_legacy: *modern_only,
                    vectors: *vectors,
                    ..Default::default()
                };
                let slot = nic(around, device, &name, config, link, &options).map_err(fail)?;
                path = Some((slot, Target::Network));
            }
            Kind::VirtioGpu {
                max_outputs,
                xres,
                yres,
                edid,
                blob,
                max_hostmem,
            } => {
                let config = virtio::gpu::GpuConfig {
                    max_outputs: *max_outputs,
                    xres: *xres,
                    yres: *yres,
                    edid: *edid,
                    blob: *blob,
                    max_hostmem: *max_hostmem,
                };
                gpu(around, device, &name, config).map_err(fail)?;
            }
            Kind::UsbAudio { audiodev } => {
                let config = usb::sound::Config {
                    name: name.clone(),
                    serial: name.clone(),
                };
                let back_end = audio(around, audiodev).map_err(fail)?;
                let speaker = usb::sound::UsbAudio::new(config, back_end);
                on_port(&controllers, device, speaker).map_err(fail)?;
            }
            Kind::Hda { ich9, msi } => {
                let config = hda::Config {
                    name: name.clone(),
                    chip: if *ich9 {
                        hda::Chip::Ich9
                    } else {
                        hda::Chip::Ich6
                    },
                    msi: *msi,
                };
                let hda = hda::Hda::new(config, around.dma.clone(), around.clock);
                on_bus(around, device, hda.clone()).map_err(|e| fail(e.to_string()))?;
                let id = device.id.clone();
                links.push(Link { id, hda });
            }
            Kind::HdaCodec { .. } => on_link(&links, around, device, &name).map_err(fail)?,
            Kind::Nvme { drive, serial } => {
                let disk = needed(open(drive, false)?)?;
                let config = nvme::NvmeConfig {
                    name: name.clone(),
                    serial: serial.clone(),
                    ..Default::default()
                };
                let nvme = nvme::Nvme::new(config, disk, around.dma.clone())
                    .map_err(|e| fail(e.to_string()))?;
                let slot = on_bus(around, device, nvme).map_err(|e| fail(e.to_string()))?;
                path = Some((slot, Target::Nvme { namespace: 1 }));
            }
            // On the board, not on a bus.
            Kind::Tpm { .. } => {}
        }
        if let Some(index) = device.bootindex {
            let (slot, target) = path
                .ok_or_else(|| fail("firmware cannot boot from this device (bootindex)".into()))?;
            boot.push((
                index,
                BootDevice {
                    bridges: Vec::new(),
                    slot: Slot::new(slot),
                    target,
                },
            ));
        }
    }
    boot.sort_by_key(|(index, _)| *index);
    plugged.boot_order = boot.into_iter().map(|(_, path)| path).collect();
    Ok(plugged)
}

fn model(kind: &Kind) -> &'static str {
    match kind {
        Kind::Xhci { .. } => "qemu-xhci",
        Kind::UsbKeyboard => "usb-kbd",
        Kind::UsbTablet => "usb-tablet",
        Kind::UsbMouse => "usb-mouse",
        Kind::UsbStorage { .. } => "usb-storage",
        Kind::Ramfb => "ramfb",
        Kind::VirtioBlk { .. } => "virtio-blk-pci",
        Kind::VirtioRng { .. } => "virtio-rng-pci",
        Kind::UsbNcm { .. } => "usb-ncm",
        Kind::VirtioNet { .. } => "virtio-net-pci",
        Kind::VirtioGpu { .. } => "virtio-gpu-pci",
        Kind::UsbAudio { .. } => "usb-audio",
        Kind::Hda { ich9: false, .. } => "intel-hda",
        Kind::Hda { ich9: true, .. } => "ich9-intel-hda",
        Kind::HdaCodec { codec, .. } => match codec {
            Codec::Output => "hda-output",
            Codec::Duplex => "hda-duplex",
            Codec::Micro => "hda-micro",
        },
        Kind::Nvme { .. } => "nvme",
        Kind::Tpm { interface, .. } => super::tpm::model(*interface),
    }
}

fn on_bus(
    around: &Surroundings,
    device: &description::Device,
    function: Arc<dyn Function>,
) -> Result<u8, pci::PlugError> {
    around.bus.plug(device.address, function)
}

fn on_virtio(
    around: &Surroundings,
    device: &description::Device,
    kind: Arc<dyn virtio::VirtioDevice>,
    modern_only: bool,
) -> Result<u8, String> {
    let options = virtio::PciOptions {
        disable_legacy: modern_only,
        ..Default::default()
    };
    let function =
        virtio::VirtioPci::new(kind, around.dma.clone(), &options).map_err(|e| e.to_string())?;
    on_bus(around, device, function).map_err(|e| e.to_string())
}

fn nic(
    around: &Surroundings,
    device: &description::Device,
    name: &str,
    config: &virtio::net::NetConfig,
    link: Arc<network::Link>,
    options: &virtio::PciOptions,
) -> Result<u8, String> {
    let net = virtio::net::Net::new(name, config.clone(), link).map_err(|e| e.to_string())?;
    let net = Arc::new(net);
    let function = virtio::VirtioPci::new(net.clone(), around.dma.clone(), options)
        .map_err(|e| e.to_string())?;
    net.set_interrupts(function.interrupts().clone());
    on_bus(around, device, function).map_err(|e| e.to_string())
}

fn gpu(
    around: &Surroundings,
    device: &description::Device,
    name: &str,
    config: virtio::gpu::GpuConfig,
) -> Result<(), String> {
    let gpu = virtio::gpu::Gpu::new(name, config, around.dma.clone()).map_err(|e| e.to_string())?;
    let gpu = Arc::new(gpu);
    let options = virtio::PciOptions::default();
    let function = virtio::VirtioPci::new(gpu.clone(), around.dma.clone(), &options)
        .map_err(|e| e.to_string())?;
    gpu.connect(function.interrupts());
    on_bus(around, device, function).map_err(|e| e.to_string())?;
    for (head, screen) in (0..).zip(gpu.screens()) {
        if head == 0 {
            around.display.add_screen(screen.clone());
        }
        around.display.add_head(name, head, screen);
    }
    Ok(())
}

/// The back end of that name.
fn audio<'a>(around: &'a Surroundings, id: &str) -> Result<&'a Arc<Audio>, String> {
    let found = around.audios.iter().find(|a| a.id() == id);
    found.ok_or_else(|| format!("audiodev '{id}' not found"))
}

/// Puts a codec on its controller's link: by the bus's name, or the first controller's.
fn on_link(
    links: &[Link],
    around: &Surroundings,
    device: &description::Device,
    name: &str,
) -> Result<(), String> {
    let Kind::HdaCodec {
        codec,
        audiodev,
        cad,
        mixer,
    } = &device.kind
    else {
        return Ok(());
    };
    let wanted = |link: &&Link| {
        device.bus.as_ref().is_none_or(|bus| {
            link.id
                .as_deref()
                .map_or(bus == "hda.0", |id| bus.strip_suffix(".0") == Some(id))
        })
    };
    let link = links.iter().find(wanted);
    let link = link.ok_or("No 'HDA' bus found")?;
    let config = hda::CodecConfig {
        model: match codec {
            Codec::Output => hda::CodecModel::Output,
            Codec::Duplex => hda::CodecModel::Duplex,
            Codec::Micro => hda::CodecModel::Micro,
        },
        mixer: *mixer,
    };
    let audio = audio(around, audiodev)?;
    let attached = link.hda.attach(*cad, name, config, audio);
    attached.map(drop).map_err(|e| e.to_string())
}

/// Attaches a device to its controller: by the bus's name, or the first with a free port. Slot of the controller, port.
fn on_port(
    controllers: &[Controller],
    device: &description::Device,
    what: Arc<dyn UsbDevice>,
) -> Result<(u8, u8), String> {
    let mut refusal = "No 'usb-bus' bus found".to_string();
    for controller in controllers {
        let wanted = device.bus.as_ref().is_none_or(|bus| {
            controller
                .id
                .as_deref()
                .map_or(bus == "usb-bus.0", |id| bus.strip_suffix(".0") == Some(id))
        });
        if !wanted {
            continue;
        }
        match controller.xhci.attach(device.address, what.clone()) {
            Ok(port) => return Ok((controller.slot, port)),
            Err(error) => refusal = error.to_string(),
        }
    }
    Err(refusal)
}
