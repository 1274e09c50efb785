//! From options to a machine's description.

use std::path::PathBuf;

use machine::description::{
    AcpiChoice, Codec, Description, Device, Drive, GicChoice, Icount, Kind, MsiChoice, Rtc,
    RtcClock, TpmInterface,
};
use storage::{Cache, Discard, Format, ImageOptions, OnError, Policy};

use crate::Error;
use crate::catalog::{self, BusKind};
use crate::keyval::{KeyValues, parse_bool, parse_number, parse_size};
use crate::monitor::Place;
use crate::network::Networks;
use crate::options::{Given, split};
use crate::rtc;
use crate::servers::Address;
use crate::sound::Sound;

mod tpm;

use tpm::Tpms;

/// What a command line asks for.
#[derive(Debug)]
pub enum Request {
    /// Print a text and end.
    Print(String),
    /// Write the device tree to a file and end.
    DumpDtb(Box<CommandLine>, PathBuf),
    /// Run a machine.
    Run(Box<CommandLine>),
}

/// A machine and what surrounds it.
#[derive(Debug, Default)]
pub struct CommandLine {
    pub machine: Description,
    pub displays: Displays,
    /// Passwords and the like, by their ids (`-object secret`).
    pub secrets: Vec<(String, String)>,
    /// QMP servers: (socket specification, indented).
    pub qmp: Vec<(String, bool)>,
    pub pidfile: Option<PathBuf>,
    /// Drives by their ids, nodes by their names: the options that they come from, for messages.
    pub drive_options: Vec<(String, String)>,
    /// What the user is told, a line each, before the machine runs.
    pub warnings: Vec<String>,
    /// Where the monitor is spoken with.
    pub monitors: Vec<Place>,
}

/// Where the screen is shown.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Displays {
    /// Whether `-display` or `-vnc` was given.
    pub chosen: bool,
    /// VNC servers, as `-vnc` has them.
    pub vnc: Vec<String>,
    /// The window: the option as written, and what it asks for.
    pub window: Option<(String, String)>,
    /// Web consoles: the options as written, for messages, and what they ask for.
    pub web: Vec<(String, console::web::WebOptions)>,
}

/// A `-drive` that no device has taken yet.
struct Pending {
    drive: Drive,
    interface: Interface,
    index: Option<u64>,
    text: String,
    used: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Interface {
    None,
    Virtio,
    Pflash,
}

/// Reads the arguments that follow the program's name.
pub fn parse(arguments: &[String]) -> Result<Request, Error> {
    let given = split(arguments)?;
    if given.iter().any(|g| g.name == "help") {
        return Ok(Request::Print(crate::help::usage()));
    }
    if given.iter().any(|g| g.name == "version") {
        return Ok(Request::Print(crate::help::version()));
    }
    if let Some(text) = crate::help::requested(&given)? {
        return Ok(Request::Print(text));
    }
    let mut line = CommandLine::default();
    let mut dump = None;
    let mut named = false;
    line.machine.acpi = AcpiChoice::Auto;
    for option in &given {
        match option.name {
            "machine" => {
                named |= machine_options(&mut line.machine, &mut dump, option)
                    .map_err(|e| at(e, option))?
            }
            "accel" => accelerator(&mut line.machine, option).map_err(|e| at(e, option))?,
            "enable-kvm" => line.machine.accelerators.push("kvm".into()),
            _ => {}
        }
    }
    if !named {
        return Err(Error::new("No machine specified, and there is no default")
            .hint("Use -machine help to list supported machines"));
    }
    check_accelerators(&given, &line.machine)?;
    let mut sound = Sound::default();
    for option in given
        .iter()
        .filter(|g| matches!(g.name, "audiodev" | "audio"))
    {
        sound.take(option).map_err(|e| at(e, option))?;
    }
    let mut drives = Vec::new();
    let mut sources = Vec::new();
    let mut tpms = Tpms::parse(&given)?;
    let mut networks = Networks::default();
    let snapshot = given.iter().any(|g| g.name == "snapshot");
    for option in &given {
        match option.name {
            "netdev" | "nic" | "net" => networks.option(option.name, &option.value),
            "blockdev" => blockdev(&mut line, option),
            _ => plain(&mut line, &mut drives, &mut sources, &mut networks, option),
        }
        .map_err(|e| at(e, option))?;
    }
    standard_input(&mut line, &given)?;
    for pending in &mut drives {
        pending.drive.snapshot |= snapshot;
        let id = &pending.drive.id;
        if node_names(&line.machine).any(|name| name == id) {
            let conflict = format!("Device name '{id}' conflicts with an existing node name");
            return Err(Error::new(conflict).of(&pending.text));
        }
    }
    if snapshot && !line.machine.nodes.is_empty() {
        return Err(
            Error::new("Dormer does not have -snapshot for block nodes (-blockdev)")
                .hint("Use -drive, or an overlay of your own: dormer disk create"),
        );
    }
    networks.finish(!given.iter().any(|g| g.name == "nodefaults"))?;
    line.machine.devices = std::mem::take(&mut networks.nics);
    for option in given.iter().filter(|g| g.name == "device") {
        let device = device(
            &mut drives,
            &sources,
            &mut networks,
            &mut sound,
            &mut tpms,
            &line.machine,
            option,
        )
        .map_err(|e| at(e, option))?;
        line.machine.devices.push(device);
    }
    let has_usb = |d: &Device| matches!(d.kind, Kind::Xhci { .. });
    if !networks.usb_nics.is_empty() && !line.machine.devices.iter().any(has_usb) {
        return Err(
            Error::new("-nic model=usb-ncm: No 'usb-bus' bus found for device 'usb-ncm'")
                .hint("Add -device qemu-xhci"),
        );
    }
    line.machine.devices.append(&mut networks.usb_nics);
    line.machine.devices.extend(sound.devices()?);
    line.machine.audiodevs = sound.options;
    for id in networks.unused() {
        line.warnings.push(format!("netdev {id} has no peer"));
    }
    line.machine.networks = networks.networks;
    line.machine.filters = networks.filters;
    let texts = drives.iter().map(|p| (p.drive.id.clone(), p.text.clone()));
    line.drive_options.extend(texts);
    place_drives(&mut line.machine, drives)?;
    tpms.finish(&mut line.machine.devices)?;
    if line.machine.bios.is_some() && line.machine.pflash[0].is_some() {
        return Err(
            Error::new("The first serial flash cannot be used with -bios")
                .hint("Give the firmware either by -bios or by -drive if=pflash"),
        );
    }
    if line.machine.kernel.is_none() {
        for (set, name) in [
            (line.machine.append.is_some(), "-append"),
            (line.machine.initrd.is_some(), "-initrd"),
        ] {
            if set {
                return Err(Error::new(format!(
                    "{name} only allowed with -kernel option"
                )));
            }
        }
    }
    let line = Box::new(line);
    Ok(match dump {
        Some(path) => Request::DumpDtb(line, path),
        None => Request::Run(line),
    })
}

/// What `-nographic` puts on standard input and output, which only one can have.
fn standard_input(line: &mut CommandLine, given: &[Given]) -> Result<(), Error> {
    use console::serial::SerialSpec;
    let option = |name| given.iter().rfind(|g| g.name == name);
    let serial = line.machine.serial.as_deref();
    let serial = serial.and_then(|text| SerialSpec::parse(text).ok());
    let taken = matches!(serial, Some(SerialSpec::Stdio { .. }));
    if option("nographic").is_some() {
        match (serial.is_some(), option("monitor").is_some()) {
            (false, false) => line.machine.serial = Some("mon:stdio".into()),
            // The keyboard is all the guest's: no Ctrl-A, no Ctrl-C.
            (false, true) if !line.monitors.contains(&Place::Stdio) => {
                line.machine.serial = Some("stdio,signal=off".into());
            }
            (false, true) => return Err(taken_by("-nographic")),
            (true, false) if !taken => line.monitors.push(Place::Stdio),
            (true, _) => {}
        }
    }
    let monitors = line.monitors.iter().filter(|m| **m == Place::Stdio).count();
    if monitors + usize::from(taken) > 1 {
        let text = option("monitor").map_or("-monitor", |g| g.text.as_str());
        return Err(taken_by(text));
    }
    Ok(())
}

fn taken_by(option: &str) -> Error {
    Error::new("cannot use stdio by multiple character devices")
        .of(option)
        .hint("-serial mon:stdio is both: Ctrl-A c switches between them")
}

fn at(error: Error, option: &Given) -> Error {
    error.of(&option.text)
}

/// `-machine`: true if it names the machine.
fn machine_options(
    machine: &mut Description,
    dump: &mut Option<PathBuf>,
    option: &Given,
) -> Result<bool, Error> {
    let mut values = KeyValues::parse(&option.value, Some("type"));
    let name = values.take("type");
    if let Some(name) = &name
        && name != "virt"
        && !name
            .strip_prefix("virt-")
            .is_some_and(|v| v.split('.').all(|n| n.parse::<u32>().is_ok()))
    {
        return Err(Error::new(format!("unsupported machine type: \"{name}\""))
            .hint("Use -machine help to list supported machines"));
    }
    if let Some(list) = values.take("accel") {
        machine.accelerators = list.split(':').map(engine_name).collect();
    }
    if let Some(value) = values.take("gic-version") {
        machine.gic = match value.as_str() {
            "2" => GicChoice::V2,
            "3" | "max" | "host" => GicChoice::V3,
            "4" => return Err(Error::new("Dormer has no GICv4 yet").hint("Use gic-version=3")),
            _ => {
                return Err(Error::new("Invalid gic-version value")
                    .hint("Valid values are 3, 2, host, max."));
            }
        };
    }
    if let Some(value) = values.take("msi") {
        machine.msi = match value.as_str() {
            "its" => MsiChoice::Its,
            "gicv2m" => MsiChoice::Gicv2m,
            "none" | "off" => MsiChoice::None,
            "auto" => MsiChoice::Auto,
            _ => {
                return Err(Error::new("Invalid msi value")
                    .hint("Valid values are auto, its, gicv2m, none."));
            }
        };
    }
    if let Some(its) = values.take_bool("its")?
        && !its
        && machine.msi == MsiChoice::Auto
    {
        machine.msi = MsiChoice::None;
    }
    if let Some(value) = values.take("acpi") {
        machine.acpi = match value.as_str() {
            "auto" => AcpiChoice::Auto,
            "force" => AcpiChoice::On,
            value => match parse_bool("acpi", value)? {
                true => AcpiChoice::Auto,
                false => AcpiChoice::Off,
            },
        };
    }
    if let Some(highmem) = values.take_bool("highmem")? {
        machine.highmem = highmem;
    }
    if let Some(randomness) = values.take_bool("dtb-randomness")? {
        machine.dtb_randomness = randomness;
    }
    if let Some(path) = values.take("dumpdtb") {
        *dump = Some(path.into());
    }
    if let Some(path) = values.take("kernel") {
        machine.kernel = Some(path.into());
    }
    if let Some(path) = values.take("initrd") {
        machine.initrd = Some(path.into());
    }
    if let Some(text) = values.take("append") {
        machine.append = Some(text);
    }
    if let Some(path) = values.take("dtb") {
        machine.dtb = Some(path.into());
    }
    if let Some(path) = values.take("firmware") {
        machine.bios = Some(path.into());
    }
    for (key, what) in [
        ("virtualization", "EL2 for guests"),
        ("secure", "EL3 for guests"),
        ("mte", "memory tagging"),
        ("ras", "RAS"),
        ("usb", "a default USB controller"),
    ] {
        if values.take_bool(key)? == Some(true) {
            return Err(Error::new(format!(
                "Dormer does not have {what} yet ({key}=on)"
            )));
        }
    }
    if let Some(iommu) = values.take("iommu")
        && iommu != "none"
    {
        return Err(Error::new(format!(
            "Dormer does not have an IOMMU yet (iommu={iommu})"
        )));
    }
    match values.rest().next() {
        Some((key, _)) => Err(
            Error::new(format!("Property 'virt-machine.{key}' not found"))
                .hint("Use -machine virt,help to list its properties"),
        ),
        None => Ok(name.is_some()),
    }
}

/// Our name of an engine that QEMU's users call something else.
fn engine_name(name: &str) -> String {
    match name {
        "tcg" => "jit".into(),
        name => name.into(),
    }
}

fn accelerator(machine: &mut Description, option: &Given) -> Result<(), Error> {
    let mut values = KeyValues::parse(&option.value, Some("accel"));
    let names = values.take("accel").unwrap_or_default();
    machine
        .accelerators
        .extend(names.split(':').map(engine_name));
    if let Some(threads) = values.take("thread")
        && threads != "multi"
    {
        return Err(Error::new(format!(
            "Dormer runs every processor on a thread of its own (thread={threads})"
        ))
        .hint("Leave thread= out, or say thread=multi"));
    }
    if names.split(':').any(|name| engine_name(name) == "jit") {
        translation(machine, &mut values)?;
    }
    match values.rest().next() {
        Some((key, _)) => Err(Error::new(format!(
            "Property '{names}-accel.{key}' not found"
        ))),
        None => Ok(()),
    }
}

/// Options of the `jit` engine: `tb-size` as QEMU has it, in MiB, and our own.
fn translation(machine: &mut Description, values: &mut KeyValues) -> Result<(), Error> {
    let translation = &mut machine.translation;
    if let Some(tier) = values.take("tier") {
        translation.tier = tier.parse().map_err(|e| Error::new(format!("{e}")))?;
    }
    if let Some(times) = values.take("warm") {
        let times: u8 = times.parse().map_err(|_| {
            Error::new(format!(
                "Parameter 'warm' expects a number up to 255, not '{times}'"
            ))
        })?;
        translation.warm = Some(times);
    }
    if let Some(jumps) = values.take("hot") {
        let jumps: u32 = jumps
            .parse()
            .map_err(|_| Error::new(format!("Parameter 'hot' expects a number, not '{jumps}'")))?;
        translation.hot = Some(jumps);
    }
    if let Some(size) = values.take("tb-size") {
        let mebibytes: u64 = size.parse().map_err(|_| {
            Error::new(format!(
                "Parameter 'tb-size' expects a number, not '{size}'"
            ))
        })?;
        // As QEMU has it, 0 is the default.
        translation.cache = match mebibytes {
            0 => None,
            n => Some(n.saturating_mul(1 << 20)),
        };
    }
    if let Some(on) = values.take_bool("perfmap")? {
        translation.perf_map = on;
    }
    if let Some(features) = values.take("host-features") {
        for feature in features.split(':') {
            let name = feature.strip_prefix('-').ok_or_else(|| {
                Error::new(format!(
                    "host-features takes features to do without, as -{feature}"
                ))
            })?;
            translation.masked.push(name.into());
        }
    }
    Ok(())
}

/// An accelerator that this host does not have is an error even where a later one would do only if none is left.
fn check_accelerators(given: &[Given], machine: &Description) -> Result<(), Error> {
    let wanted = &machine.accelerators;
    let host = machine::accelerators();
    if wanted.is_empty()
        || wanted
            .iter()
            .any(|name| host.iter().any(|a| a.name == name && a.available.is_ok()))
    {
        return Ok(());
    }
    let name = &wanted[0];
    let option = given
        .iter()
        .find(|g| g.name == "accel")
        .map(|g| g.text.as_str());
    let error = Error::new(format!("invalid accelerator {name}"));
    let error = option.map_or(error.clone(), |text| error.of(text));
    let why = host
        .iter()
        .find(|a| a.name == name)
        .and_then(|a| a.available.as_ref().err());
    let here: Vec<_> = host
        .iter()
        .filter(|a| a.available.is_ok())
        .map(|a| a.name)
        .collect();
    let mut hint = why
        .map(|why| format!("{name}: {why}\n"))
        .unwrap_or_default();
    hint.push_str(&format!("This host has: {}", here.join(", ")));
    Err(error.hint(hint))
}

/// Options that stand for themselves.
fn plain(
    line: &mut CommandLine,
    drives: &mut Vec<Pending>,
    sources: &mut Vec<String>,
    networks: &mut Networks,
    option: &Given,
) -> Result<(), Error> {
    let machine = &mut line.machine;
    let value = option.value.as_str();
    match option.name {
        "cpu" => {
            let mut parts = value.split(',');
            machine.cpu_model = parts.next().unwrap_or_default().to_string();
            machine.cpu_properties = parts
                .map(|p| match p.split_once('=') {
                    Some((key, value)) => (key.to_string(), value.to_string()),
                    None if p.starts_with('+') => (p[1..].to_string(), "on".to_string()),
                    None if p.starts_with('-') => (p[1..].to_string(), "off".to_string()),
                    None => (p.to_string(), "on".to_string()),
                })
                .collect();
            machine::check_cpu(&machine.cpu_model, &machine.cpu_properties)
                .map_err(|e| Error::new(e.to_string()).hint("Use -cpu help to list the models"))?;
        }
        "m" => machine.memory = memory(value)?,
        "smp" => machine.cpus = processors(value)?,
        "name" => {
            let mut values = KeyValues::parse(value, Some("guest"));
            machine.name = values.take("guest");
            values.take("process");
            values.take_bool("debug-threads")?;
            values.finish()?;
        }
        "uuid" => {
            machine::parse_uuid(value)
                .ok_or_else(|| Error::new("failed to parse UUID string: wrong format"))?;
            machine.uuid = Some(value.to_string());
        }
        "bios" | "firmware" => machine.bios = Some(value.into()),
        "kernel" => machine.kernel = Some(value.into()),
        "initrd" => machine.initrd = Some(value.into()),
        "append" => machine.append = Some(value.to_string()),
        "dtb" => machine.dtb = Some(value.into()),
        "drive" => drives.push(drive(value, &option.text, None, drives.len())?),
        "pflash" => drives.push(drive(
            &format!("if=pflash,format=raw,file={value}"),
            &option.text,
            None,
            drives.len(),
        )?),
        "cdrom" => drives.push(drive(
            &format!("media=cdrom,index=2,file={value}"),
            &option.text,
            None,
            drives.len(),
        )?),
        "hda" | "hdb" | "hdc" | "hdd" => {
            let index = u64::from(option.name.as_bytes()[2] - b'a');
            drives.push(drive(
                &format!("file={value}"),
                &option.text,
                Some(index),
                drives.len(),
            )?);
        }
        "object" => object(value, sources, networks, &mut line.secrets)?,
        "serial" => serial(machine, value)?,
        "monitor" => line.monitors.extend(Place::parse(value)?),
        "qmp" | "qmp-pretty" => {
            let address = Address::parse(value).map_err(|e| Error::new(e.to_string()))?;
            if address.telnet {
                return Err(
                    Error::new("Dormer speaks QMP on plain sockets only").hint("Leave telnet out")
                );
            }
            line.qmp
                .push((value.to_string(), option.name == "qmp-pretty"));
        }
        "display" => display(&mut line.displays, value)?,
        "vnc" => vnc(&mut line.displays, value)?,
        "nographic" => line.displays.chosen = true,
        "no-reboot" => machine.no_reboot = true,
        "no-shutdown" => machine.no_shutdown = true,
        "action" => {
            let mut values = KeyValues::parse(value, None);
            match values.take("reboot").as_deref() {
                None | Some("reset") => {}
                Some("shutdown") => machine.no_reboot = true,
                Some(other) => {
                    return Err(Error::new(format!(
                        "Parameter 'reboot' does not accept value '{other}'"
                    )));
                }
            }
            match values.take("shutdown").as_deref() {
                None | Some("poweroff") => {}
                Some("pause") => machine.no_shutdown = true,
                Some(other) => {
                    return Err(Error::new(format!(
                        "Parameter 'shutdown' does not accept value '{other}'"
                    )));
                }
            }
            values.finish()?;
        }
        "S" => machine.start_stopped = true,
        "rtc" => {
            let mut values = KeyValues::parse(value, None);
            machine.rtc = match values.take("base").as_deref() {
                None | Some("utc") => Rtc::Utc,
                Some("localtime") => Rtc::LocalTime,
                Some(date) => Rtc::Date(rtc::parse_date(date).ok_or_else(|| {
                    Error::new("invalid datetime format")
                        .hint("valid formats: '2006-06-17T16:01:21' or '2006-06-17'")
                })?),
            };
            machine.rtc_clock = match values.take("clock").as_deref() {
                None | Some("host") => RtcClock::Host,
                Some("vm") => RtcClock::Vm,
                Some(other) => {
                    return Err(Error::new(format!(
                        "Dormer's clock follows the host's or the guest's only (clock={other})"
                    ))
                    .hint("Use clock=host or clock=vm"));
                }
            };
            match values.take("driftfix").as_deref() {
                None | Some("none") => {}
                Some(other) => {
                    return Err(Error::new(format!("Dormer does not have driftfix={other}")));
                }
            }
            values.finish()?;
        }
        "icount" => machine.icount = Some(icount(value)?),
        "seed" => machine.seed = Some(parse_number("seed", value)?),
        "boot" => boot(machine, value)?,
        "fw_cfg" => machine.fw_cfg.push(fw_cfg(value)?),
        "smbios" => smbios(machine, value)?,
        "vga" if value != "none" => line.warnings.push(
            "A -vga option was passed but this machine type does not use that option; \
             No VGA device has been created (use -device virtio-gpu-pci, -device ramfb, or both)"
                .into(),
        ),
        "parallel" if value != "none" => {
            return Err(Error::new("This board has no parallel port").hint("Use -parallel none"));
        }
        "pidfile" => line.pidfile = Some(value.into()),
        _ => {}
    }
    Ok(())
}

/// `-icount`.
fn icount(value: &str) -> Result<Icount, Error> {
    let mut values = KeyValues::parse(value, Some("shift"));
    for key in ["rr", "rrfile", "rrsnapshot"] {
        if let Some(value) = values.take(key) {
            return Err(Error::new(format!(
                "Dormer does not record and replay machines yet ({key}={value})"
            )));
        }
    }
    if values.take_bool("align")? == Some(true) {
        return Err(Error::new(
            "Dormer does not hold the guest's time back to the host's (align=on)",
        )
        .hint("Leave align out"));
    }
    let sleep = values.take_bool("sleep")?.unwrap_or(true);
    let shift = match values.take("shift").as_deref() {
        Some("auto") => {
            return Err(Error::new(
                "Dormer does not choose the speed of instructions (shift=auto)",
            )
            .hint("Give a number: an instruction takes 2^shift nanoseconds"));
        }
        Some(shift) => shift
            .parse()
            .ok()
            .filter(|shift| *shift <= Icount::MOST_SHIFT)
            .ok_or_else(|| {
                Error::new("icount: Invalid shift value").hint("Give a number from 0 to 10")
            })?,
        None => {
            return Err(Error::new("icount: no shift was given")
                .hint("Give shift=N: an instruction takes 2^N nanoseconds"));
        }
    };
    values.finish()?;
    Ok(Icount { shift, sleep })
}

fn memory(value: &str) -> Result<u64, Error> {
    let mut values = KeyValues::parse(value, Some("size"));
    let size = match values.take("size") {
        Some(size) => parse_size("size", &size, 1 << 20)?,
        None => 128 << 20,
    };
    for key in ["slots", "maxmem"] {
        if values.take(key).is_some() {
            return Err(Error::new(format!(
                "Dormer does not have memory hot plug yet ({key}=)"
            )));
        }
    }
    values.finish()?;
    // QEMU's own rule: none is the default, and sizes are whole pages.
    let size = if size == 0 { 128 << 20 } else { size };
    size.checked_next_multiple_of(1 << 20)
        .ok_or_else(|| Error::new(format!("{value}: more memory than any machine has")))
}

fn processors(value: &str) -> Result<u32, Error> {
    let mut values = KeyValues::parse(value, Some("cpus"));
    let cpus = values.take_number("cpus")?;
    let maximum = values.take_number("maxcpus")?;
    let mut product = 1u64;
    let mut any = false;
    for key in [
        "drawers", "books", "sockets", "dies", "clusters", "modules", "cores", "threads",
    ] {
        if let Some(n) = values.take_number(key)? {
            any = true;
            product = product.saturating_mul(n);
        }
    }
    values.finish()?;
    if cpus == Some(0) || product == 0 {
        return Err(Error::new(
            "Invalid CPU topology: CPU topology parameters must be greater than zero",
        ));
    }
    let cpus = cpus.unwrap_or(if any { product } else { 1 });
    let all = maximum.unwrap_or(cpus);
    if all > cpus {
        return Err(Error::new(
            "Dormer does not have CPU hot plug (maxcpus= more than cpus=)",
        ));
    }
    if all < cpus {
        return Err(Error::new(
            "Invalid CPU topology: maxcpus must be equal to or greater than smp",
        ));
    }
    if any && !cpus.is_multiple_of(product) {
        return Err(Error::new(
            "Invalid CPU topology: product of the hierarchy must match maxcpus",
        ));
    }
    if cpus > u64::from(machine::MAX_CPUS) {
        return Err(Error::new(format!(
            "Invalid SMP CPUs {cpus}. The max CPUs supported by machine 'virt' is {}",
            machine::MAX_CPUS
        )));
    }
    Ok(cpus as u32)
}

/// `-blockdev`: images under names of their own, each before those that name it.
fn blockdev(line: &mut CommandLine, option: &Given) -> Result<(), Error> {
    let node = crate::blockdev::parse(&option.value).map_err(Error::new)?;
    let name = node.name.clone().unwrap_or_default();
    line.drive_options.push((name, option.text.clone()));
    line.machine.nodes.push(node);
    Ok(())
}

/// The names that nodes were given.
fn node_names(machine: &Description) -> impl Iterator<Item = &str> {
    machine.nodes.iter().flat_map(crate::blockdev::names)
}

fn drive(value: &str, text: &str, index: Option<u64>, so_far: usize) -> Result<Pending, Error> {
    let mut values = KeyValues::parse(value, None);
    let interface = match values.take("if").as_deref() {
        None | Some("virtio") => Interface::Virtio,
        Some("none") => Interface::None,
        Some("pflash") => Interface::Pflash,
        Some(known @ ("ide" | "scsi" | "sd" | "mtd" | "floppy" | "xen")) => {
            return Err(Error::new(format!(
                "machine type does not support if={known},bus=0,unit=0"
            ))
            .hint("Use if=virtio, if=none with a -device, or if=pflash"));
        }
        Some(other) => return Err(Error::new(format!("unsupported bus type '{other}'"))),
    };
    let cdrom = match values.take("media").as_deref() {
        None | Some("disk") => false,
        Some("cdrom") => true,
        Some(other) => return Err(Error::new(format!("'{other}' invalid media"))),
    };
    let index = match (values.take_number("index")?, values.take_number("unit")?) {
        (Some(n), _) | (None, Some(n)) => Some(n),
        (None, None) => index,
    };
    values.take_number("bus")?;
    let read_only = match (
        values.take_bool("readonly")?,
        values.take_bool("read-only")?,
    ) {
        (Some(v), _) | (None, Some(v)) => v,
        (None, None) => false,
    };
    let image = match values.take("file").filter(|f| !f.is_empty()) {
        None => None,
        Some(file) => {
            let mut image = ImageOptions::new(file);
            image.read_only = read_only || cdrom;
            if let Some(format) = values.take("format").or_else(|| values.take("driver")) {
                image.format = Some(
                    format
                        .parse::<Format>()
                        .map_err(|_| Error::new(format!("Unknown driver '{format}'")))?,
                );
            }
            if let Some(cache) = values.take("cache") {
                image.cache = cache
                    .parse::<Cache>()
                    .map_err(|_| Error::new(format!("invalid cache option: '{cache}'")))?;
            }
            if let Some(discard) = values.take("discard") {
                image.discard = discard
                    .parse::<Discard>()
                    .map_err(|_| Error::new("Invalid discard option"))?;
            }
            if let Some(detect) = values.take("detect-zeroes") {
                image.detect_zeroes = detect
                    .parse()
                    .map_err(|e: storage::UnknownOption| Error::new(e.to_string()))?;
            }
            if let Some(locking) = values.take("file.locking") {
                image.locking = locking
                    .parse()
                    .map_err(|e: storage::UnknownOption| Error::new(e.to_string()))?;
            }
            Some(image)
        }
    };
    if image.is_none() && !cdrom && interface != Interface::None {
        return Err(Error::new("Device needs media, but drive is empty"));
    }
    let name = match interface {
        Interface::None => "none",
        Interface::Virtio => "virtio",
        Interface::Pflash => "pflash",
    };
    let id = values
        .take("id")
        .unwrap_or_else(|| format!("{name}{}", index.unwrap_or(so_far as u64)));
    // What people add to go faster: threads or io_uring are ours to choose.
    if let Some(aio) = values.take("aio")
        && !["threads", "native", "io_uring"].contains(&aio.as_str())
    {
        return Err(Error::new(format!(
            "Parameter 'aio' does not accept value '{aio}'"
        )));
    }
    let drive = Drive {
        id,
        image,
        node: None,
        cdrom,
        snapshot: values.take_bool("snapshot")?.unwrap_or(false),
        policy: policy(&mut values, Policy::default())?,
    };
    if let Some((key, _)) = values.rest().next() {
        return Err(Error::new(format!(
            "Dormer does not have the drive option '{key}'"
        )));
    }
    Ok(Pending {
        drive,
        interface,
        index,
        text: text.to_string(),
        used: false,
    })
}

/// `werror` and `rerror`, in the place of `default`.
fn policy(values: &mut KeyValues, default: Policy) -> Result<Policy, Error> {
    let mut word = |key: &str, default: OnError| match values.take(key).as_deref() {
        None | Some("auto") => Ok(default),
        Some(value) => value
            .parse()
            .map_err(|_| Error::new(format!("'{value}' invalid {key} action"))),
    };
    let write = word("werror", default.write)?;
    let read = word("rerror", default.read)?;
    if read == OnError::Enospc {
        return Err(Error::new("'enospc' invalid read error action"));
    }
    Ok(Policy { read, write })
}

fn object(
    value: &str,
    sources: &mut Vec<String>,
    networks: &mut Networks,
    secrets: &mut Vec<(String, String)>,
) -> Result<(), Error> {
    let mut values = KeyValues::parse(value, Some("qom-type"));
    let kind = values.take("qom-type").unwrap_or_default();
    let id = values
        .take("id")
        .ok_or_else(|| Error::new("Parameter 'id' is missing"))?;
    match kind.as_str() {
        "secret" => {
            if secrets.iter().any(|secret| secret.0 == id) {
                return Err(Error::new(format!(
                    "attempt to add duplicate property '{id}'"
                )));
            }
            secrets.push((id, secret(&mut values)?));
            return Ok(values.finish()?);
        }
        "rng-builtin" => {}
        "filter-dump" => {
            networks.filter_dump(id.clone(), &mut values)?;
            return Ok(values.finish()?);
        }
        "rng-random" => match values.take("filename").as_deref() {
            None | Some("/dev/urandom" | "/dev/random") => {}
            Some(other) => {
                return Err(Error::new(format!(
                    "Dormer takes entropy from the host's generator only ('{other}')"
                )));
            }
        },
        other => {
            return Err(
                Error::new(format!("Dormer does not have the object type '{other}'"))
                    .hint("It has: rng-builtin, rng-random, filter-dump, secret"),
            );
        }
    }
    values.finish()?;
    sources.push(id);
    Ok(())
}

/// The text of `-object secret`.
fn secret(values: &mut KeyValues) -> Result<String, Error> {
    let raw = match (values.take("data"), values.take("file")) {
        (Some(data), None) => data.into_bytes(),
        (None, Some(path)) => std::fs::read(&path)
            .map_err(|e| Error::new(format!("Unable to read {path}: {}", crate::reason(&e))))?,
        (Some(_), Some(_)) => {
            return Err(Error::new("'file' and 'data' are mutually exclusive"));
        }
        (None, None) => return Err(Error::new("Must provide 'file' or 'data'")),
    };
    for key in ["keyid", "iv"] {
        if values.take(key).is_some() {
            return Err(Error::new(format!(
                "Dormer does not have encrypted secrets ({key}=)"
            )));
        }
    }
    let plain = match values.take("format").as_deref() {
        None | Some("raw") => raw,
        Some("base64") => {
            let text: Vec<u8> = raw
                .into_iter()
                .filter(|b| !b.is_ascii_whitespace())
                .collect();
            data_encoding::BASE64
                .decode(&text)
                .map_err(|_| Error::new("Base64 data is not valid"))?
        }
        Some(other) => {
            return Err(Error::new(format!(
                "Parameter 'format' does not accept value '{other}'"
            )));
        }
    };
    String::from_utf8(plain).map_err(|_| Error::new("Data from secret is not valid UTF-8"))
}

fn serial(machine: &mut Description, value: &str) -> Result<(), Error> {
    if machine.serial.is_some() && value != "none" {
        return Err(Error::new("This board has one serial port"));
    }
    console::serial::SerialSpec::parse(value).map_err(|e| Error::new(e.to_string()))?;
    machine.serial = Some(value.to_string());
    Ok(())
}

fn display(displays: &mut Displays, value: &str) -> Result<(), Error> {
    displays.chosen = true;
    let (kind, rest) = value.split_once(',').unwrap_or((value, ""));
    match kind {
        "none" if rest.is_empty() => Ok(()),
        // `vnc=:1` and `vnc,…` are older and newer spellings of -vnc.
        _ if kind.starts_with("vnc=") => vnc(displays, &value["vnc=".len()..]),
        _ if kind == "web" || kind.starts_with("web=") => {
            let options = console::web::WebOptions::parse(&value["web".len()..])
                .map_err(|e| Error::new(e.to_string()).hint("Use -display web=127.0.0.1:PORT"))?;
            displays.web.push((format!("-display {value}"), options));
            Ok(())
        }
        "window" | "gtk" | "sdl" | "cocoa" => {
            crate::window::check(rest)?;
            displays.window = Some((format!("-display {value}"), rest.to_string()));
            Ok(())
        }
        "default" if rest.is_empty() => {
            displays.chosen = false;
            Ok(())
        }
        "spice-app" | "curses" | "egl-headless" | "dbus" => Err(Error::new(format!(
            "Dormer does not have the display '{kind}' yet"
        ))
        .hint("Use -display window, -display web, -display vnc=:1, or -display none")),
        _ => Err(
            Error::new(format!("Parameter 'type' does not accept value '{kind}'"))
                .hint("Use -display window, -display web, -display vnc=:N, or -display none"),
        ),
    }
}

fn vnc(displays: &mut Displays, value: &str) -> Result<(), Error> {
    displays.chosen = true;
    if value != "none" {
        console::vnc::VncOptions::parse(value).map_err(|e| Error::new(e.to_string()))?;
        displays.vnc.push(value.to_string());
    }
    Ok(())
}

fn boot(machine: &mut Description, value: &str) -> Result<(), Error> {
    let mut values = KeyValues::parse(value, Some("order"));
    for key in ["order", "once"] {
        if let Some(order) = values.take(key) {
            return Err(match order.chars().find(|c| !('a'..='p').contains(c)) {
                Some(c) => Error::new(format!("Invalid boot device '{c}'")),
                None => Error::new("UEFI firmware does not take boot letters")
                    .hint("Give the device a place instead: -device …,bootindex=1"),
            });
        }
    }
    let menu = values.take_bool("menu")?.unwrap_or(false);
    let splash = values.take_number("splash-time")?;
    if menu || splash.is_some() {
        machine.boot_menu_timeout = Some(splash.unwrap_or(3000).min(0xffff) as u16);
    }
    // The firmware is told the order in any case; `strict` asks for no other devices, which EDK II never tries.
    values.take_bool("strict")?;
    Ok(values.finish()?)
}

fn fw_cfg(value: &str) -> Result<(String, Vec<u8>), Error> {
    let mut values = KeyValues::parse(value, Some("name"));
    let name = values
        .take("name")
        .ok_or_else(|| Error::new("Parameter 'name' is missing"))?;
    let data = match (values.take("file"), values.take("string")) {
        (Some(file), None) => std::fs::read(&file)
            .map_err(|e| Error::new(format!("can't load {file}: {}", crate::reason(&e))))?,
        (None, Some(text)) => text.into_bytes(),
        _ => return Err(Error::new("exactly one of 'file' and 'string' is needed")),
    };
    values.finish()?;
    if name.len() > 55 {
        return Err(Error::new("name too long (max. 55 char)"));
    }
    if !name.starts_with("opt/") {
        return Err(
            Error::new(format!("the name '{name}' is not the user's to give"))
                .hint("Names of your own begin with opt/"),
        );
    }
    Ok((name, data))
}

fn smbios(machine: &mut Description, value: &str) -> Result<(), Error> {
    let mut values = KeyValues::parse(value, None);
    match values.take_number("type")? {
        Some(1) => {}
        Some(n) => {
            return Err(Error::new(format!(
                "Dormer sets the fields of SMBIOS type 1 only (type={n})"
            )));
        }
        None => return Err(Error::new("Parameter 'type' is missing")),
    }
    for key in [
        "manufacturer",
        "product",
        "version",
        "serial",
        "uuid",
        "sku",
        "family",
    ] {
        if let Some(text) = values.take(key) {
            machine.smbios_system.push((key.to_string(), text));
        }
    }
    Ok(values.finish()?)
}

/// One `-device`.
fn device(
    drives: &mut [Pending],
    sources: &[String],
    networks: &mut Networks,
    sound: &mut Sound,
    tpms: &mut Tpms,
    machine: &Description,
    option: &Given,
) -> Result<Device, Error> {
    let before = &machine.devices;
    let mut values = KeyValues::parse(&option.value, Some("driver"));
    let name = values.take("driver").unwrap_or_default();
    let Some(model) = catalog::find(&name) else {
        return Err(match catalog::PLANNED.iter().find(|p| p.0 == name) {
            Some((_, what)) => Error::new(format!(
                "Dormer does not have the device '{name}' yet ({what})"
            ))
            .hint("Use -device help to list the devices there are"),
            None => Error::new(format!("'{name}' is not a valid device model name"))
                .hint("Use -device help to list the devices there are"),
        });
    };
    let id = values.take("id");
    if let Some(id) = &id
        && before.iter().any(|d| d.id.as_ref() == Some(id))
    {
        return Err(Error::new(format!("Duplicate device ID '{id}'")));
    }
    let bus = values.take("bus");
    for (key, value) in values.rest().collect::<Vec<_>>() {
        let Some(property) = model.property(key) else {
            return Err(
                Error::new(format!("Property '{}.{key}' not found", model.name)).hint(format!(
                    "Use -device {},help to list its properties",
                    model.name
                )),
            );
        };
        check_value(model.name, property, value)?;
    }
    match (model.bus, &bus) {
        (BusKind::Pci, Some(bus)) if bus != "pcie.0" => {
            return Err(
                Error::new(format!("Bus '{bus}' not found")).hint("PCI devices go to bus=pcie.0")
            );
        }
        (BusKind::Usb, bus) => {
            let named = |d: &&Device| match bus {
                None => true,
                Some(bus) => {
                    d.id.as_deref() == bus.strip_suffix(".0")
                        || (d.id.is_none() && bus == "usb-bus.0")
                }
            };
            if !before
                .iter()
                .filter(|d| matches!(d.kind, Kind::Xhci { .. }))
                .any(|d| named(&d))
            {
                return Err(match bus {
                    None => Error::new(format!(
                        "No 'usb-bus' bus found for device '{}'",
                        model.name
                    ))
                    .hint("Add -device qemu-xhci before it"),
                    Some(bus) => Error::new(format!("Bus '{bus}' not found")),
                });
            }
        }
        (BusKind::Hda, bus) => {
            let named = |d: &&Device| match bus {
                None => true,
                Some(bus) => {
                    d.id.as_deref() == bus.strip_suffix(".0") || (d.id.is_none() && bus == "hda.0")
                }
            };
            let mut controllers = before.iter().filter(|d| matches!(d.kind, Kind::Hda { .. }));
            if !controllers.any(|d| named(&d)) {
                return Err(match bus {
                    None => Error::new(format!("No 'HDA' bus found for device '{}'", model.name))
                        .hint("Add -device intel-hda before it"),
                    Some(bus) => Error::new(format!("Bus '{bus}' not found")),
                });
            }
        }
        _ => {}
    }
    let address = match (values.take("addr"), values.take("port")) {
        (Some(address), _) => Some(slot(&address)?),
        (None, Some(port)) => Some(
            port.parse()
                .map_err(|_| Error::new(format!("Dormer has no USB port '{port}'")))?,
        ),
        (None, None) => None,
    };
    let bootindex = match values.take("bootindex") {
        Some(text) => match text.parse::<i32>() {
            Ok(n) if n >= 0 => {
                if before.iter().any(|d| d.bootindex == Some(n)) {
                    return Err(Error::new(format!(
                        "The bootindex {n} has already been used"
                    )));
                }
                Some(n)
            }
            Ok(-1) => None,
            _ => {
                return Err(Error::new(
                    "Parameter 'bootindex' expects a number of 0 or more",
                ));
            }
        },
        None => None,
    };
    let modern_only = matches!(
        values.take("disable-legacy").as_deref(),
        Some("on" | "true" | "yes")
    );
    let serial = values.take("serial");
    let kind = match model.name {
        "qemu-xhci" => Kind::Xhci {
            p2: ports(&mut values, "p2")?,
            p3: ports(&mut values, "p3")?,
        },
        "usb-kbd" => Kind::UsbKeyboard,
        "usb-tablet" => Kind::UsbTablet,
        "usb-mouse" => Kind::UsbMouse,
        "usb-storage" => Kind::UsbStorage {
            drive: take_drive(drives, machine, &mut values, model.name, "usb-storage")?,
            serial,
            removable: values.take_bool("removable")?.unwrap_or(false),
        },
        "ramfb" => {
            if before.iter().any(|d| d.kind == Kind::Ramfb) {
                return Err(Error::new("There is one ramfb already"));
            }
            Kind::Ramfb
        }
        "virtio-blk-pci" => Kind::VirtioBlk {
            drive: take_drive(
                drives,
                machine,
                &mut values,
                model.name,
                "virtio-blk-device",
            )?,
            serial,
            queues: values
                .take_number("num-queues")?
                .map(|n| n.clamp(1, 64) as u16),
            modern_only,
        },
        "virtio-rng-pci" => {
            if let Some(rng) = values.take("rng")
                && !sources.contains(&rng)
            {
                return Err(Error::new(format!("Device '{rng}' not found"))
                    .hint("Add -object rng-builtin,id=…"));
            }
            Kind::VirtioRng {
                max_bytes: values.take_number("max-bytes")?,
                period_ms: values
                    .take_number("period")?
                    .map(|n| n.min(u64::from(u32::MAX)) as u32),
                modern_only,
            }
        }
        "usb-ncm" => networks.usb_ncm(&mut values)?,
        "virtio-net-pci" => networks.virtio_net(&mut values, modern_only, machine.cpus)?,
        "virtio-gpu-pci" => {
            let number = |values: &mut KeyValues, key, default: u32| {
                Ok::<_, Error>(values.take_number(key)?.map_or(default, |n| n as u32))
            };
            Kind::VirtioGpu {
                max_outputs: match number(&mut values, "max_outputs", 1)? {
                    n @ 1..=16 => n,
                    0 => return Err(Error::new("max_outputs must be >= 1")),
                    _ => return Err(Error::new("invalid max_outputs > 16")),
                },
                xres: number(&mut values, "xres", 1280)?,
                yres: number(&mut values, "yres", 800)?,
                edid: values.take_bool("edid")?.unwrap_or(true),
                blob: values.take_bool("blob")?.unwrap_or(false),
                max_hostmem: values.take_size("max_hostmem")?.unwrap_or(256 << 20),
            }
        }
        "usb-audio" => Kind::UsbAudio {
            audiodev: sound.of_device(values.take("audiodev"))?,
        },
        "intel-hda" | "ich9-intel-hda" => Kind::Hda {
            ich9: model.name != "intel-hda",
            msi: match values.take("msi").as_deref() {
                None | Some("auto") => true,
                Some(value) => parse_bool("msi", value)?,
            },
        },
        "hda-output" | "hda-duplex" | "hda-micro" => Kind::HdaCodec {
            codec: match model.name {
                "hda-output" => Codec::Output,
                "hda-duplex" => Codec::Duplex,
                _ => Codec::Micro,
            },
            audiodev: sound.of_device(values.take("audiodev"))?,
            cad: match values.take_number("cad")? {
                None | Some(0xffff_ffff) => None,
                Some(n @ 0..=14) => Some(n as u8),
                Some(_) => return Err(Error::new("HDA audio codec address is full")),
            },
            mixer: values.take_bool("mixer")?.unwrap_or(true),
        },
        "nvme" => {
            let drive = take_drive(drives, machine, &mut values, model.name, "nvme")?;
            let serial = serial.ok_or_else(|| {
                Error::new("serial property not set").hint("Add serial=… with any text of your own")
            })?;
            Kind::Nvme { drive, serial }
        }
        "tpm-crb-device" | "tpm-tis-device" => {
            if before.iter().any(|d| matches!(d.kind, Kind::Tpm { .. })) {
                return Err(Error::new("There is one TPM already"));
            }
            Kind::Tpm {
                interface: match model.name {
                    "tpm-crb-device" => TpmInterface::Crb,
                    _ => TpmInterface::Tis,
                },
                backend: tpms.take(values.take("tpmdev"))?,
            }
        }
        other => {
            return Err(Error::new(format!(
                "'{other}' is not a valid device model name"
            )));
        }
    };
    Ok(Device {
        id,
        bus,
        address,
        bootindex,
        kind,
    })
}

fn check_value(model: &str, property: &catalog::Property, value: &str) -> Result<(), Error> {
    use catalog::Type;
    let bad = |what: &str| Error::new(format!("Parameter '{}' expects {what}", property.name));
    match property.kind {
        Type::Bool => parse_bool(property.name, value).map(drop)?,
        Type::OnOffAuto if value == "auto" => {}
        Type::OnOffAuto => parse_bool(property.name, value).map(drop)?,
        Type::Int32 => drop(value.parse::<i32>().map_err(|_| bad("a number"))?),
        Type::Size => drop(parse_size(property.name, value, 1)?),
        Type::Str => {}
        Type::Uint8 | Type::Uint16 | Type::Uint32 | Type::Uint64 => {
            let maximum = match property.kind {
                Type::Uint8 => u64::from(u8::MAX),
                Type::Uint16 => u64::from(u16::MAX),
                Type::Uint32 => u64::from(u32::MAX),
                _ => u64::MAX,
            };
            if parse_number(property.name, value)? > maximum {
                return Err(bad(&format!(
                    "a number of at most {maximum} (device '{model}')"
                )));
            }
        }
    }
    Ok(())
}

pub(crate) fn slot(address: &str) -> Result<u8, Error> {
    let (slot, function) = address.split_once('.').unwrap_or((address, "0"));
    let bad = || Error::new(format!("Property 'addr' doesn't take value '{address}'"));
    let slot = u8::from_str_radix(slot.trim_start_matches("0x"), 16).map_err(|_| bad())?;
    if function != "0" {
        return Err(Error::new(format!(
            "Dormer has no devices of several functions yet (addr={address})"
        )));
    }
    if slot > 31 { Err(bad()) } else { Ok(slot) }
}

fn ports(values: &mut KeyValues, key: &'static str) -> Result<u8, Error> {
    match values.take_number(key)? {
        None => Ok(4),
        Some(n @ 0..=15) => Ok(n as u8),
        Some(n) => Err(Error::new(format!(
            "{key}={n}: a controller has at most 15 ports of a kind"
        ))),
    }
}

fn take_drive(
    drives: &mut [Pending],
    machine: &Description,
    values: &mut KeyValues,
    model: &str,
    holder: &str,
) -> Result<Drive, Error> {
    let id = values.take("drive").ok_or_else(|| {
        Error::new("drive property not set").hint(format!(
            "Add -drive file=…,if=none,id=ID and -device {model},drive=ID"
        ))
    })?;
    if node_names(machine).any(|name| name == id) {
        return Ok(Drive {
            id: String::new(),
            image: None,
            node: Some(id),
            cdrom: false,
            snapshot: false,
            policy: policy(values, Policy::default())?,
        });
    }
    let Some(pending) = drives.iter_mut().find(|p| p.drive.id == id) else {
        return Err(
            Error::new(format!("Property '{holder}.drive' can't find value '{id}'"))
                .hint(format!("Add -drive file=…,if=none,id={id}")),
        );
    };
    if pending.interface != Interface::None {
        return Err(Error::new(format!("Drive '{id}' is already in use because it has been automatically connected to another device"))
            .hint("did you need 'if=none' in the drive options?"));
    }
    if pending.used {
        return Err(Error::new(format!(
            "Drive '{id}' is already in use by another block device"
        )));
    }
    pending.used = true;
    let mut drive = pending.drive.clone();
    drive.policy = policy(values, drive.policy)?;
    Ok(drive)
}

/// Drives that go to a place by themselves.
fn place_drives(machine: &mut Description, drives: Vec<Pending>) -> Result<(), Error> {
    let mut next = 0;
    let mut ids = std::collections::HashSet::new();
    for pending in drives {
        let Pending {
            drive,
            interface,
            index,
            text,
            used,
        } = pending;
        let duplicate = !ids.insert(drive.id.clone());
        // Two flashes of one unit have one name by that; the unit is what is wrong.
        if duplicate && interface != Interface::Pflash {
            return Err(Error::new(format!("Duplicate ID '{}' for drive", drive.id)).of(&text));
        }
        match interface {
            Interface::None => {
                if !used && drive.image.is_some() {
                    tracing::warn!("the drive '{}' is not used by any device", drive.id);
                }
            }
            Interface::Pflash => {
                let unit = index.unwrap_or(next);
                next = unit + 1;
                let Some(place) = machine.pflash.get_mut(unit as usize) else {
                    return Err(
                        Error::new("This board has two flash devices, unit 0 and 1").of(&text)
                    );
                };
                if place.is_some() {
                    return Err(Error::new(format!(
                        "drive with bus=0, unit={unit} (index={unit}) exists"
                    ))
                    .of(&text));
                }
                *place = Some(drive);
            }
            Interface::Virtio => {
                let kind = Kind::VirtioBlk {
                    drive,
                    serial: None,
                    queues: None,
                    modern_only: false,
                };
                machine.devices.push(Device {
                    id: None,
                    bus: None,
                    address: None,
                    bootindex: None,
                    kind,
                });
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
