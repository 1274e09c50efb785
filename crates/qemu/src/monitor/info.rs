//! `info`: what the machine tells of itself.

use std::fmt::Write;

use machine::{NetworkEntry, PciEntry};
use serde_json::{Value, json};

use super::words::{Command, Kind, Parameter, Run, maybe};
use super::{Answer, Failure, Monitor, error, text};

/// What all of them have in common: they are done here.
const fn command(
    names: &'static str,
    usage: &'static str,
    purpose: &'static str,
    parameters: &'static [Parameter],
    run: fn(&mut Monitor, &Value) -> Answer,
) -> Command {
    Command::new(names, usage, purpose, parameters, Run::Here(run))
}

/// In the order of their names.
pub const COMMANDS: &[Command] = &[
    command(
        "block",
        "[device]",
        "show info of one block device or all block devices",
        &[maybe("device", Kind::Word(""))],
        block,
    ),
    command("cpus", "", "show infos for each CPU", &[], cpus),
    command("jit", "", "show dynamic compiler info", &[], jit),
    command("kvm", "", "show KVM information", &[], kvm),
    command("name", "", "show the current VM name", &[], name),
    command("network", "", "show the network state", &[], network),
    command("pci", "", "show PCI info", &[], pci),
    command(
        "registers",
        "[-a|vcpu]",
        "show the cpu registers (-a: show register info for all cpus; vcpu: specific vCPU to query; show the current \
         CPU's registers if no argument is specified)",
        &[maybe("all", Kind::Switch('a')), maybe("vcpu", Kind::Number)],
        registers,
    ),
    command(
        "status",
        "",
        "show the current VM status (running|paused)",
        &[],
        status,
    ),
    command("usb", "", "show guest USB devices", &[], usb),
    command("uuid", "", "show the current VM UUID", &[], uuid),
    command("version", "", "show the version of QEMU", &[], version),
    command("vnc", "", "show the vnc server status", &[], vnc),
];

/// A QMP query without arguments.
fn query(monitor: &Monitor, name: &str) -> Result<Value, Failure> {
    monitor.qmp(name, &json!({}))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn status(monitor: &mut Monitor, _: &Value) -> Answer {
    let answer = query(monitor, "query-status")?;
    Ok(match text(&answer, "status") {
        state @ ("running" | "paused") => format!("VM status: {state}\n"),
        other => format!("VM status: paused ({other})\n"),
    })
}

fn version(monitor: &mut Monitor, _: &Value) -> Answer {
    let answer = query(monitor, "query-version")?;
    let number = |name| answer["qemu"][name].as_u64().unwrap_or(0);
    Ok(format!(
        "{}.{}.{} ({})\n",
        number("major"),
        number("minor"),
        number("micro"),
        text(&answer, "package")
    ))
}

fn name(monitor: &mut Monitor, _: &Value) -> Answer {
    let answer = query(monitor, "query-name")?;
    let name = answer["name"].as_str();
    Ok(name.map_or(String::new(), |name| format!("{name}\n")))
}

fn uuid(monitor: &mut Monitor, _: &Value) -> Answer {
    let answer = query(monitor, "query-uuid")?;
    Ok(format!("{}\n", text(&answer, "UUID")))
}

fn kvm(monitor: &mut Monitor, _: &Value) -> Answer {
    let answer = query(monitor, "query-kvm")?;
    let is = |name| answer[name].as_bool().unwrap_or(false);
    let state = match (is("present"), is("enabled")) {
        (true, true) => "enabled",
        (true, false) => "disabled",
        (false, _) => "not compiled",
    };
    Ok(format!("kvm support: {state}\n"))
}

fn cpus(monitor: &mut Monitor, _: &Value) -> Answer {
    let answer = query(monitor, "query-cpus-fast")?;
    let mut said = String::new();
    for cpu in list(&answer) {
        let index = cpu["cpu-index"].as_u64().unwrap_or(0);
        let mark = if index == u64::from(monitor.cpu) {
            '*'
        } else {
            ' '
        };
        let _ = writeln!(said, "{mark} CPU #{index}: thread_id={}", cpu["thread-id"]);
    }
    Ok(said)
}

fn block(monitor: &mut Monitor, given: &Value) -> Answer {
    let answer = query(monitor, "query-block")?;
    let wanted = given["device"].as_str();
    let mut said = String::new();
    for drive in list(&answer) {
        // A drive that began with a node has no name of its own.
        let names = [
            text(drive, "device"),
            text(&drive["inserted"], "node-name"),
            text(drive, "qdev"),
        ];
        let id = names.into_iter().find(|name| !name.is_empty());
        let id = id.unwrap_or_default();
        if wanted.is_some_and(|wanted| wanted != id) {
            continue;
        }
        if !said.is_empty() {
            said.push('\n');
        }
        let inserted = &drive["inserted"];
        if inserted.is_null() {
            let _ = writeln!(said, "{id}: [not inserted]");
        } else {
            let read_only = match inserted["ro"].as_bool() {
                Some(true) => ", read-only",
                _ => "",
            };
            let (file, format) = (text(inserted, "file"), text(inserted, "drv"));
            let _ = writeln!(said, "{id}: {file} ({format}{read_only})");
        }
        let _ = writeln!(said, "    Attached to:      {}", text(drive, "qdev"));
        if drive["removable"].as_bool() == Some(true) {
            let locked = match drive["locked"].as_bool() {
                Some(true) => "locked",
                _ => "not locked",
            };
            let tray = match drive["tray_open"].as_bool() {
                Some(true) => "open",
                _ => "closed",
            };
            let _ = writeln!(said, "    Removable device: {locked}, tray {tray}");
        }
        if let Some(state) = drive["io-status"].as_str()
            && state != "ok"
        {
            let _ = writeln!(said, "    I/O status:       {state}");
        }
        if let Some(depth) = inserted["backing_file_depth"].as_u64()
            && depth > 0
        {
            let _ = writeln!(said, "    Backing file:     (chain depth: {depth})");
        }
    }
    match wanted {
        Some(wanted) if said.is_empty() => Err(error(format!("Device '{wanted}' not found"))),
        _ => Ok(said),
    }
}

fn network(monitor: &mut Monitor, _: &Value) -> Answer {
    let entries = monitor.machine.board().networks();
    Ok(entries.iter().map(network_entry).collect())
}

fn network_entry(entry: &NetworkEntry) -> String {
    let down = if entry.up { "" } else { ",link=down" };
    let mut said = String::new();
    if let Some(nic) = &entry.nic {
        let mac = nic.mac.map(|byte| format!("{byte:02x}")).join(":");
        let _ = writeln!(
            said,
            "{}: index=0,type=nic,model={},macaddr={mac}{down}",
            nic.name, nic.model
        );
    }
    if let Some((id, info)) = &entry.backend {
        let before = if entry.nic.is_some() { " \\ " } else { "" };
        let _ = write!(said, "{before}{id}: index=0,type={}", info.kind);
        if !info.description.is_empty() {
            let _ = write!(said, ",{}", info.description);
        }
        let _ = writeln!(said, "{}", if entry.nic.is_some() { "" } else { down });
    }
    said
}

fn usb(monitor: &mut Monitor, _: &Value) -> Answer {
    let mut said = String::new();
    for device in monitor.machine.board().usb() {
        let _ = writeln!(
            said,
            "  Bus {}, Port {}, Speed {} Mb/s, {}",
            device.bus, device.port, device.speed, device.name
        );
    }
    Ok(said)
}

fn pci(monitor: &mut Monitor, _: &Value) -> Answer {
    let functions = monitor.machine.board().pci();
    Ok(functions.iter().map(pci_entry).collect())
}

fn pci_entry(entry: &PciEntry) -> String {
    let mut said = String::new();
    let class = match class(entry.class) {
        Some(name) => name.to_string(),
        None => format!("Class {:04x}", entry.class),
    };
    let _ = writeln!(said, "  Bus  0, device {:3}, function 0:", entry.slot);
    let _ = writeln!(
        said,
        "    {class}: PCI device {:04x}:{:04x}",
        entry.vendor, entry.device
    );
    let _ = writeln!(
        said,
        "      PCI subsystem {:04x}:{:04x}",
        entry.subsystem_vendor, entry.subsystem
    );
    if let Some((line, pin)) = entry.interrupt {
        let pin = char::from(b'A'.wrapping_add(pin.wrapping_sub(1)));
        let _ = writeln!(said, "      IRQ {line}, pin {pin}");
    }
    for bar in &entry.bars {
        let kind = match (bar.io, bar.wide) {
            (true, _) => "I/O",
            (false, false) => "32 bit memory",
            (false, true) => "64 bit memory",
        };
        let kind = match bar.prefetchable {
            true => kind.replace("memory", "prefetchable memory"),
            false => kind.into(),
        };
        let place = match bar.address {
            Some(at) => format!("at {at:#x} [{:#x}].", at.saturating_add(bar.size - 1)),
            None => "(not mapped)".into(),
        };
        let _ = writeln!(said, "      BAR{}: {kind} {place}", bar.index);
    }
    let _ = writeln!(said, "      id \"{}\"", entry.name);
    said
}

/// Class and subclass (PCI Code and ID Assignment 1.11, 1), of those that the board can have.
fn class(code: u16) -> Option<&'static str> {
    Some(match code {
        0x00ff => "RNG",
        0x0100 => "SCSI controller",
        0x0108 => "NVM controller",
        0x0180 => "Storage controller",
        0x0200 => "Ethernet controller",
        0x0300 => "VGA controller",
        0x0380 => "Display controller",
        0x0403 => "Audio controller",
        0x0600 => "Host bridge",
        0x0c03 => "USB controller",
        _ => return None,
    })
}

fn vnc(monitor: &mut Monitor, _: &Value) -> Answer {
    let consoles = monitor.machine.board().display().guarded();
    if consoles.is_empty() {
        return Ok("None\n".into());
    }
    let mut said = String::new();
    for (number, console) in consoles.iter().enumerate() {
        let info = console.info();
        let name = match number {
            0 => "default".to_string(),
            n => format!("vnc{}", n + 1),
        };
        let auth = if info.password { "vnc" } else { "none" };
        let _ = writeln!(said, "{name}:");
        let _ = writeln!(said, "  Server: {} ({})", info.location, info.family);
        let _ = writeln!(said, "    Auth: {auth} (Sub: none)");
        let _ = writeln!(said, "  Clients: {}", info.clients);
    }
    Ok(said)
}

fn jit(monitor: &mut Monitor, _: &Value) -> Answer {
    let cpus = monitor.machine.processor_threads().len() as u32;
    let mut said = String::new();
    for cpu in 0..cpus {
        if let Some(report) = monitor.machine.report(cpu).map_err(error)? {
            let _ = writeln!(said, "CPU #{cpu}:");
            for line in report.lines() {
                let _ = writeln!(said, "  {line}");
            }
        }
    }
    if said.is_empty() {
        said.push_str(
            "This machine's engine does not translate code, or does not count what it does\n",
        );
    }
    Ok(said)
}

fn registers(monitor: &mut Monitor, given: &Value) -> Answer {
    let cpus = monitor.machine.processor_threads().len() as u32;
    let wanted = if given["all"] == true {
        0..cpus
    } else {
        let index = given["vcpu"].as_i64().unwrap_or(monitor.cpu.into());
        match u32::try_from(index) {
            Ok(cpu) if cpu < cpus => cpu..cpu + 1,
            _ => {
                let said = format!("CPU#{index} not available\n");
                return Err(Failure::Said(said));
            }
        }
    };
    let mut said = String::new();
    for cpu in wanted {
        let state = monitor.machine.registers(cpu).map_err(error)?;
        let _ = write!(said, "\nCPU#{cpu}\n PC={:016x} ", state.pc);
        for (n, x) in state.x.iter().enumerate() {
            let end = if n % 3 == 1 { '\n' } else { ' ' };
            let _ = match n {
                31 => writeln!(said, " SP={x:016x}"),
                _ => write!(said, "X{n:02}={x:016x}{end}"),
            };
        }
        let flag = |bit: u32, name| {
            if state.nzcv >> bit & 1 != 0 {
                name
            } else {
                '-'
            }
        };
        let pstate = state.pstate | state.nzcv | u32::from(state.el) << 2 | u32::from(state.sp_sel);
        let stack = match (state.el, state.sp_sel) {
            (0, _) | (_, false) => 't',
            (_, true) => 'h',
        };
        let flags: String = [flag(31, 'N'), flag(30, 'Z'), flag(29, 'C'), flag(28, 'V')]
            .into_iter()
            .collect();
        let _ = writeln!(said, "PSTATE={pstate:08x} {flags} EL{}{stack}", state.el);
        let _ = writeln!(said, "FPCR={:08x} FPSR={:08x}", state.fpcr, state.fpsr);
        for (n, v) in state.v.iter().enumerate() {
            let end = if n % 2 == 1 { '\n' } else { ' ' };
            let (high, low) = ((v >> 64) as u64, *v as u64);
            let _ = write!(said, "Q{n:02}={high:016x}:{low:016x}{end}");
        }
    }
    Ok(said)
}
