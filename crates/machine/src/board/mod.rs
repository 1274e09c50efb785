//! The `virt` board: its parts, wired and mapped.

mod buses;
mod drives;
mod firmware_files;
mod inventory;
mod kernel_gic;
mod layout;
mod medium;
mod network;
mod nodes;
mod rtc;
mod tpm;
mod wiring;

use std::fs::File;
use std::sync::Arc;

use audio::Audio;
use console::{Display, Seat};
use device::serial::{SerialInput, SerialOutput};
use device::{Clock, Device, Line, Mmio};
use devices::flash::{self, Flash};
use devices::fw_cfg::FwCfg;
use devices::{ged, pl011, pl061};
use engine::psci::{Psci, SystemRequest};
use engine::{Engine, GicPlan, InterruptController as Owner, Vm, World};
use firmware::board::{Gic, Msi, PowerButton, Range};
use gic::{CpuLines, InterruptController};
use memory::{AddressSpace, Mapping, Ram};
use parking_lot::Mutex;
use storage::Stall;
use usb::xhci::Xhci;

pub use drives::{DriveEntry, ImageEntry, MediumError};
pub use inventory::{BarEntry, NetworkEntry, NicEntry, PciEntry, UsbEntry};
pub use nodes::{NodeError, Nodes};

use crate::BuildError;
use crate::description::{AcpiChoice, Description, GicChoice};
use drives::StallHook;
use wiring::{SystemHook, Wiring};

/// PCIe slots' first SPI, INTA.
const FIRST_SPI: u32 = 32;
/// CNTFRQ_EL0 where the engine leaves the choice: QEMU's.
const FREQUENCY: u64 = 62_500_000;

/// A machine's parts. [`crate::Machine`] runs it.
pub struct Board {
    name: Option<String>,
    uuid: String,
    pub(crate) cpus: u32,
    pub(crate) start_stopped: bool,
    pub(crate) no_reboot: bool,
    pub(crate) no_shutdown: bool,
    engine: &'static str,
    pub(crate) vm: Arc<dyn Vm>,
    pub(crate) clock: Clock,
    wiring: Arc<Wiring>,
    /// In the order they are reset: the interrupt controller first, so that lines driven again are seen.
    devices: Vec<Arc<dyn Device>>,
    bus: Arc<pci::Bus>,
    ram: Ram,
    /// What is put into RAM at each power-on.
    boot: firmware_files::Boot,
    power_button: Button,
    display: Arc<Display>,
    /// Keys and pointer of those who control the machine by program.
    seat: Seat,
    /// Where that pointer was put last.
    pointer: Mutex<(u16, u16)>,
    serial: Arc<pl011::Pl011>,
    drives: Vec<DriveEntry>,
    nodes: Arc<Nodes>,
    audios: Vec<Arc<Audio>>,
    links: network::Links,
    usb: Vec<Arc<Xhci>>,
    _flash_locks: Vec<File>,
    on_stall: StallHook,
    on_system_request: SystemHook,
}

enum Button {
    Gpio(Arc<pl061::Pl061>),
    Ged(Arc<ged::Ged>),
}

/// Where a board is put together.
struct Assembly {
    space: Arc<AddressSpace>,
    devices: Vec<Arc<dyn Device>>,
}

impl Assembly {
    fn map(&self, range: Range, device: Arc<dyn Mmio>) -> Result<(), BuildError> {
        Ok(self
            .space
            .map(range.base, range.size, Mapping::Mmio(device))?)
    }

    fn add<D: Device + Mmio + 'static>(
        &mut self,
        range: Range,
        device: &Arc<D>,
    ) -> Result<(), BuildError> {
        self.map(range, device.clone())?;
        self.devices.push(device.clone());
        Ok(())
    }
}

impl Board {
    /// Builds what a description asks for. `serial` is the UART's far side.
    ///
    /// # Errors
    /// Anything of the description that cannot be had, in words for the user.
    pub fn build(
        description: &Description,
        serial: Arc<dyn SerialOutput>,
    ) -> Result<Board, BuildError> {
        let engine = match description.icount {
            // The only one that counts.
            Some(_) if description.accelerators.is_empty() => Box::new(engine::jit::Jit),
            _ => crate::choose_engine(&description.accelerators)?,
        };
        Board::build_on(&*engine, description, serial)
    }

    /// The same on a given engine, whatever the description says.
    pub fn build_on(
        engine: &dyn Engine,
        description: &Description,
        serial: Arc<dyn SerialOutput>,
    ) -> Result<Board, BuildError> {
        let mut features =
            crate::cpu_features(&description.cpu_model, &description.cpu_properties)?;
        features.gic_registers = description.gic != GicChoice::V2;
        let has_firmware = description.bios.is_some() || description.pflash[0].is_some();
        let acpi = match description.acpi {
            AcpiChoice::On if !has_firmware => return Err(BuildError::AcpiWithoutFirmware),
            AcpiChoice::On => true,
            AcpiChoice::Auto => has_firmware,
            AcpiChoice::Off => false,
        };
        let (mut layout, address_bits) =
            layout::layout(description, acpi, features.pmu, engine.address_bits())?;
        let tpm = tpm::open(&description.devices)?;
        layout.tpm = tpm.as_ref().map(tpm::Opened::place);
        if description.icount.is_some() && engine.name() != "jit" {
            return Err(BuildError::IcountWithoutJit);
        }
        let clock = match description.icount {
            Some(_) => Clock::counted(),
            None => Clock::new(),
        };
        clock.stop();
        let config = engine::Config {
            mpidrs: layout.cpus.iter().map(|cpu| cpu.mpidr).collect(),
            features: Arc::new(features),
            frequency: FREQUENCY,
            clock: clock.clone(),
            translation: description.translation.clone(),
            icount: description.icount,
            address_bits,
            granule: granule(&layout),
            gic: gic_plan(&layout),
        };
        let mpidrs = config.mpidrs.clone();
        let vm = engine.create(config)?;
        let mut parts = Assembly {
            space: Arc::new(AddressSpace::new()),
            devices: Vec::new(),
        };
        enough_memory(description.memory)?;
        let ram = Ram::new(
            &layout
                .memory
                .iter()
                .map(|r| (r.base, r.size))
                .collect::<Vec<_>>(),
        )?;
        for (start, size, host) in ram.ranges() {
            parts.space.map(
                start,
                size,
                Mapping::Ram {
                    host: host as usize,
                },
            )?;
            vm.map(start, size, host as usize, true)?;
        }
        ram.report_writes_to(parts.space.code());
        let dma = ram.dma();

        let gic = interrupt_controller(&layout, &vm, dma.clone())?;
        for frame in gic.frames() {
            parts
                .space
                .map(frame.base, frame.size, Mapping::Mmio(frame.mmio))?;
        }
        parts.devices.push(gic.clone());
        let line = |interrupt: u32| gic.spi(interrupt - FIRST_SPI);

        let on_system_request = SystemHook::default();
        let hook = on_system_request.clone();
        let psci = Psci::new(&mpidrs, move |request| {
            if let Some(hook) = hook.get() {
                hook(request);
            }
        });
        let wiring = Arc::new(Wiring::new(
            parts.space.clone(),
            gic.clone(),
            psci,
            description.cpus,
        ));

        let uart = pl011::Pl011::new(
            pl011::Config {
                name: "uart0".into(),
                ..Default::default()
            },
            line(layout.uart.interrupt),
            &clock,
            serial,
        );
        parts.add(layout.uart.registers, &uart)?;
        let rtc = rtc::rtc(description, line(layout.rtc.interrupt), &clock);
        parts.add(layout.rtc.registers, &rtc)?;
        let power_button = match layout.power_button {
            Some(PowerButton::Gpio(place)) => {
                let gpio = pl061::Pl061::new(
                    pl061::Config {
                        name: "gpio".into(),
                    },
                    line(place.interrupt),
                    &clock,
                );
                parts.add(place.registers, &gpio)?;
                Button::Gpio(gpio)
            }
            Some(PowerButton::Ged(place)) => {
                let ged = ged::Ged::new(ged::Config { name: "ged".into() }, line(place.interrupt));
                parts.add(place.registers, &ged)?;
                Button::Ged(ged)
            }
            None => return Err(BuildError::NoPowerButton),
        };
        let fw_cfg = FwCfg::new("fw_cfg", dma.clone());
        parts.add(layout.fw_cfg, &fw_cfg)?;
        if let Some(tpm) = tpm {
            tpm.add(&mut parts)?;
        }
        let flash_locks = flashes(description, &layout, &mut parts, &vm)?;

        let controller = gic.clone();
        let pcie = layout.pcie.as_ref().ok_or(BuildError::NoPcie)?;
        let window = |range: Range, pci: u64| pci::Window {
            base: range.base,
            size: range.size,
            pci,
        };
        let bus = pci::Bus::new(
            pci::BusConfig {
                io: window(pcie.io, 0),
                mem32: window(pcie.memory32, pcie.memory32.base),
                mem64: pcie.memory64.map(|range| window(range, range.base)),
                buses: pcie.buses() as u16,
            },
            Arc::new(move |message| controller.msi(message)),
            pcie.interrupts.map(line),
        );
        parts.map(pcie.ecam, bus.ecam())?;
        parts.map(pcie.io, bus.io_window())?;
        parts.map(pcie.memory32, bus.mem32_window())?;
        if let Some(range) = pcie.memory64 {
            parts.map(range, bus.mem64_window())?;
        }

        let display = Display::new();
        let on_stall = StallHook::default();
        let nodes = Arc::new(Nodes::default());
        for node in &description.nodes {
            nodes.add(node).map_err(|error| BuildError::Node {
                node: node.name.clone().unwrap_or_default(),
                error,
            })?;
        }
        let audios = description.audiodevs.iter().map(Audio::open);
        let audios = audios.collect::<Result<Vec<_>, _>>()?;
        let links = network::Links::open(&description.networks, &description.filters)?;
        let plugged = buses::plug(
            &description.devices,
            links,
            &buses::Surroundings {
                bus: &bus,
                dma: &dma,
                clock: &clock,
                fw_cfg: &fw_cfg,
                display: &display,
                on_stall: &on_stall,
                nodes: &nodes,
                audios: &audios,
                cpus: description.cpus,
            },
        )?;
        parts.devices.extend(plugged.devices);
        let uuid = match &description.uuid {
            Some(uuid) => uuid.clone(),
            None => "00000000-0000-0000-0000-000000000000".into(),
        };
        let boot = firmware_files::prepare(
            description,
            &layout,
            acpi,
            &fw_cfg,
            &plugged.boot_order,
            &ram,
        )?;
        Ok(Board {
            name: description.name.clone(),
            uuid,
            cpus: description.cpus,
            start_stopped: description.start_stopped,
            no_reboot: description.no_reboot,
            no_shutdown: description.no_shutdown,
            engine: engine.name(),
            vm,
            clock,
            wiring,
            devices: parts.devices,
            bus,
            ram,
            boot,
            power_button,
            seat: display.seat(),
            pointer: Mutex::default(),
            display,
            serial: uart,
            drives: plugged.drives,
            nodes,
            audios,
            links: plugged.links,
            usb: plugged.usb,
            _flash_locks: flash_locks,
            on_stall,
            on_system_request,
        })
    }

    /// `-name`.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// `-uuid`, or zeroes.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The engine's name.
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// Screens and input devices.
    pub fn display(&self) -> &Arc<Display> {
        &self.display
    }

    /// Where programs give keys and pointer events.
    pub fn seat(&self) -> &Seat {
        &self.seat
    }

    /// What the user is to be told of the machine's parts, a line each.
    pub fn notices(&self) -> Vec<String> {
        let notices = self.audios.iter().filter_map(|a| a.notice());
        notices.map(str::to_string).collect()
    }

    /// Moves the pointer on one axis or both, 0 to 0x7fff.
    pub fn move_pointer(&self, x: Option<u16>, y: Option<u16>) {
        let mut at = self.pointer.lock();
        *at = (x.unwrap_or(at.0), y.unwrap_or(at.1));
        self.seat.position(at.0, at.1);
    }

    /// What the UART receives from.
    pub fn serial_input(&self) -> Arc<dyn SerialInput> {
        self.serial.clone()
    }

    /// Every drive.
    pub fn drives(&self) -> &[DriveEntry] {
        &self.drives
    }

    /// Images under names of their own.
    pub fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// Cuts or mends the wire of a NIC or back end, by its name: whether there is such a thing.
    pub fn set_link(&self, name: &str, up: bool) -> bool {
        self.links.set_link(name, up)
    }

    /// The device tree as the guest gets it (`dumpdtb=`).
    pub fn device_tree(&self) -> &[u8] {
        &self.boot.device_tree
    }

    pub(crate) fn world(&self) -> &dyn World {
        &*self.wiring
    }

    pub(crate) fn psci(&self) -> &Psci {
        &self.wiring.psci
    }

    /// Power-on state of everything. No processor runs meanwhile.
    pub(crate) fn power_on(&self) {
        // What waits for the host would keep its device from being reset.
        for drive in &self.drives {
            drive.cancel();
        }
        for device in &self.devices {
            device.reset();
        }
        self.bus.reset();
        for drive in &self.drives {
            drive.restart();
        }
        let dma = self.ram.dma();
        for image in &self.boot.images {
            let end = image.address + image.bytes.len() as u64;
            if let Err(error) = dma
                .write(image.address, &image.bytes)
                .and_then(|()| dma.fill(end, image.zeroes, 0))
            {
                tracing::error!(
                    "cannot put an image of {} bytes into RAM: {error}",
                    image.bytes.len()
                );
            }
        }
        self.wiring.psci.reset(self.boot.entry, self.boot.x0);
    }

    pub(crate) fn press_power_button(&self) {
        match &self.power_button {
            Button::Gpio(gpio) => gpio.press(),
            Button::Ged(ged) => ged.press(),
        }
    }

    pub(crate) fn on_system_request(&self, hook: impl Fn(SystemRequest) + Send + Sync + 'static) {
        let _ = self.on_system_request.set(Box::new(hook));
    }

    pub(crate) fn on_stall(&self, hook: impl Fn(&Stall) + Send + Sync + 'static) {
        let _ = self.on_stall.set(Box::new(hook));
    }

    pub(crate) fn retry_disks(&self) {
        for drive in &self.drives {
            drive.retry();
        }
    }

    /// Brings everything to the host's disk.
    pub(crate) fn shut_down(&self) {
        self.links.stop();
        for drive in &self.drives {
            drive.close();
        }
        for device in &self.devices {
            device.shutdown();
        }
        for (_, function) in self.bus.functions() {
            function.shutdown();
        }
        for audio in &self.audios {
            audio.finish();
        }
    }
}

/// More RAM than the host could ever back is refused, as QEMU's users know it: the guest would die of it later.
fn enough_memory(asked: u64) -> Result<(), BuildError> {
    #[cfg(target_os = "linux")]
    {
        let host = rustix::system::sysinfo();
        let unit = u64::from(host.mem_unit);
        let has = (host.totalram as u64)
            .saturating_add(host.totalswap as u64)
            .saturating_mul(unit);
        if asked > has {
            return Err(BuildError::HostMemory { asked, has });
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = asked;
    Ok(())
}

/// The interrupt controller's places, for an engine that has one in its host's kernel.
/// The largest power of two that all guest memory starts and ends at multiples of.
fn granule(layout: &firmware::Board) -> u64 {
    let flash = layout.flash.iter().flatten();
    let ranges = layout.memory.iter().chain(flash);
    let bits = ranges.fold(0, |bits, range| bits | range.base | range.size);
    bits & bits.wrapping_neg()
}

fn gic_plan(layout: &firmware::Board) -> GicPlan {
    match &layout.gic {
        Gic::V2 {
            distributor,
            cpu_interface,
        } => GicPlan::V2 {
            distributor: distributor.base,
            cpu_interface: cpu_interface.base,
        },
        Gic::V3 {
            distributor,
            redistributors,
        } => GicPlan::V3 {
            distributor: distributor.base,
            redistributors: redistributors
                .iter()
                .map(|r| (r.base, (r.size / 0x2_0000) as u32))
                .collect(),
            its: match layout.msi {
                Msi::Its { registers } => Some(registers.base),
                _ => None,
            },
        },
    }
}

fn interrupt_controller(
    layout: &firmware::Board,
    vm: &Arc<dyn Vm>,
    dma: memory::Dma,
) -> Result<Arc<dyn InterruptController>, BuildError> {
    let lines: Vec<_> = (0..layout.cpus.len() as u32)
        .map(|cpu| {
            let (irq, fiq) = (vm.clone(), vm.clone());
            CpuLines {
                irq: Line::new(Arc::new(move |cpu, level| irq.set_irq(cpu, level)), cpu),
                fiq: Line::new(Arc::new(move |cpu, level| fiq.set_fiq(cpu, level)), cpu),
            }
        })
        .collect();
    let v2m = match layout.msi {
        Msi::V2m { frame, .. } => Some(frame.base),
        _ => None,
    };
    if let Owner::InKernel(controller) = vm.interrupt_controller() {
        return Ok(Arc::new(kernel_gic::KernelGic { controller, v2m }));
    }
    Ok(match &layout.gic {
        Gic::V2 {
            distributor,
            cpu_interface,
        } => gic::v2::Gicv2::new(
            gic::v2::Config {
                cpus: lines.len() as u32,
                distributor: distributor.base,
                cpu_interface: cpu_interface.base,
                v2m,
            },
            lines,
        )
        .map_err(|e| BuildError::Gic(e.to_string()))?,
        Gic::V3 {
            distributor,
            redistributors,
        } => gic::v3::Gicv3::new(
            gic::v3::Config {
                affinities: layout.cpus.iter().map(|cpu| affinity(cpu.mpidr)).collect(),
                distributor: distributor.base,
                redistributors: redistributors
                    .iter()
                    .map(|r| (r.base, (r.size / 0x2_0000) as u32))
                    .collect(),
                its: match layout.msi {
                    Msi::Its { registers } => Some(registers.base),
                    _ => None,
                },
                v2m,
                message_based_spis: false,
            },
            lines,
            dma,
        )
        .map_err(|e| BuildError::Gic(e.to_string()))?,
    })
}

/// Aff3 to Aff0 of an MPIDR, packed into 32 bits.
fn affinity(mpidr: u64) -> u32 {
    (mpidr & 0xff_ffff) as u32 | (mpidr >> 8 & 0xff00_0000) as u32
}

/// Both flash devices: firmware from `-bios` or `if=pflash`, and variables.
fn flashes(
    description: &Description,
    layout: &firmware::Board,
    parts: &mut Assembly,
    vm: &Arc<dyn Vm>,
) -> Result<Vec<File>, BuildError> {
    // Files that nothing is written to are kept open for their locks.
    let mut locks = Vec::new();
    let Some(ranges) = layout.flash else {
        return Ok(locks);
    };
    for (i, range) in ranges.into_iter().enumerate() {
        let mut read_only = false;
        let image = match (&description.pflash[i], &description.bios) {
            (Some(drive), _) => {
                let options = drive
                    .image
                    .as_ref()
                    .ok_or_else(|| BuildError::EmptyFlash(drive.id.clone()))?;
                if options.format.is_some_and(|f| f != storage::Format::Raw) {
                    return Err(BuildError::FlashFormat(drive.id.clone()));
                }
                read_only = options.read_only;
                let keep = !read_only && !drive.snapshot;
                let file = storage::open_locked(&options.path, keep, options.locking).map_err(
                    |error| BuildError::Image {
                        drive: drive.id.clone(),
                        error,
                    },
                )?;
                if !keep {
                    locks.push(file.try_clone().map_err(|e| BuildError::Device {
                        name: drive.id.clone(),
                        reason: crate::reason(&e),
                    })?);
                }
                flash::Image::of_file(file, &options.path, range.size, keep)?
            }
            (None, Some(bios)) if i == 0 => flash::Image::Bios(firmware_files::bios(bios)?.into()),
            (None, _) => flash::Image::Blank,
        };
        let config = flash::Config {
            name: format!("flash{i}"),
            size: range.size,
            read_only,
        };
        let flash = Flash::new(config, image, &parts.space)?;
        let rom = flash.rom();
        vm.map(range.base, range.size, rom.host as usize, false)?;
        parts.space.map(range.base, range.size, Mapping::Rom(rom))?;
        parts.devices.push(flash);
    }
    Ok(locks)
}
