//! The commands.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use device::input::{Button, Key};
use machine::control::{Cause, Handle, RunState};
use machine::{DriveEntry, ImageEntry, MediumError, NodeError};
use serde::Deserialize;
use serde_json::{Value, json};
use storage::{Cache, DetectZeroes};

use super::session::QmpError;

/// A command: arguments (an object) to its result.
pub type Command = fn(&Value, &Handle) -> Result<Value, QmpError>;

const COMMANDS: &[(&str, Command)] = &[
    ("blockdev-add", blockdev_add),
    ("blockdev-change-medium", blockdev_change_medium),
    ("blockdev-close-tray", blockdev_close_tray),
    ("blockdev-del", blockdev_del),
    ("blockdev-insert-medium", blockdev_insert_medium),
    ("blockdev-open-tray", blockdev_open_tray),
    ("blockdev-remove-medium", blockdev_remove_medium),
    ("change-vnc-password", change_vnc_password),
    ("cont", cont),
    ("eject", eject),
    ("expire_password", expire_password),
    ("human-monitor-command", human_monitor_command),
    ("input-send-event", input_send_event),
    ("query-block", query_block),
    ("query-commands", query_commands),
    ("query-cpus-fast", query_cpus_fast),
    ("query-events", query_events),
    ("query-kvm", query_kvm),
    ("query-name", query_name),
    ("query-named-block-nodes", query_named_block_nodes),
    ("query-status", query_status),
    ("query-target", query_target),
    ("query-uuid", query_uuid),
    ("query-version", query_version),
    ("quit", quit),
    ("screendump", screendump),
    ("send-key", send_key),
    ("set_link", set_link),
    ("set_password", set_password),
    ("stop", stop),
    ("system_powerdown", system_powerdown),
    ("system_reset", system_reset),
];

/// The command of that name.
pub fn find(name: &str) -> Option<Command> {
    COMMANDS.iter().find(|c| c.0 == name).map(|c| c.1)
}

/// The version object of the greeting and of `query-version`.
pub fn version() -> Value {
    let (major, minor, micro) = crate::help::QEMU_VERSION;
    json!({
        "qemu": { "major": major, "minor": minor, "micro": micro },
        "package": format!("Dormer {}", env!("CARGO_PKG_VERSION")),
    })
}

/// Reads arguments into a structure; unknown members are refused by name.
fn arguments<'a, T: Deserialize<'a>>(value: &'a Value) -> Result<T, QmpError> {
    T::deserialize(value).map_err(|error| {
        let text = error.to_string();
        let quoted = |text: &str| text.split('`').nth(1).map(str::to_string);
        QmpError::generic(match quoted(&text) {
            Some(name) if text.starts_with("unknown field") => {
                format!("Parameter '{name}' is unexpected")
            }
            Some(name) if text.starts_with("missing field") => {
                format!("Parameter '{name}' is missing")
            }
            _ => text,
        })
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

fn none(value: &Value) -> Result<(), QmpError> {
    arguments::<Nothing>(value).map(drop)
}

fn query_version(value: &Value, _: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    Ok(version())
}

fn query_commands(value: &Value, _: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    let names = COMMANDS.iter().map(|c| c.0).chain(["qmp_capabilities"]);
    Ok(names.map(|name| json!({ "name": name })).collect())
}

fn query_events(value: &Value, _: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    let names = [
        "BLOCK_IO_ERROR",
        "DEVICE_TRAY_MOVED",
        "POWERDOWN",
        "RESET",
        "RESUME",
        "SHUTDOWN",
        "STOP",
    ];
    Ok(names.iter().map(|name| json!({ "name": name })).collect())
}

fn query_status(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    let state = machine.state();
    Ok(json!({ "status": state.name(), "running": state == RunState::Running }))
}

fn query_kvm(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    let engine = machine.board().engine();
    let present = machine::accelerators()
        .iter()
        .any(|a| a.name == "kvm" && a.available.is_ok());
    Ok(json!({ "enabled": engine == "kvm", "present": present }))
}

fn query_name(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    Ok(match machine.board().name() {
        Some(name) => json!({ "name": name }),
        None => json!({}),
    })
}

fn query_uuid(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    Ok(json!({ "UUID": machine.board().uuid() }))
}

fn query_target(value: &Value, _: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    Ok(json!({ "arch": "aarch64" }))
}

fn set_link(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        name: String,
        up: bool,
    }
    let given: Arguments = arguments(value)?;
    if machine.board().set_link(&given.name, given.up) {
        Ok(json!({}))
    } else {
        Err(QmpError::device_not_found(format!(
            "Device '{}' not found",
            given.name
        )))
    }
}

fn query_cpus_fast(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    let threads = machine.processor_threads();
    Ok(threads
        .iter()
        .enumerate()
        .map(|(cpu, thread)| {
            json!({
                "cpu-index": cpu,
                "thread-id": thread,
                "target": "aarch64",
                "qom-path": format!("/machine/unattached/device[{cpu}]"),
                "props": { "core-id": cpu },
            })
        })
        .collect())
}

fn query_block(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    Ok(machine
        .board()
        .drives()
        .iter()
        .map(|drive| {
            let mut entry = json!({
                "device": drive.id,
                "qdev": drive.holder,
                "type": "unknown",
                "removable": drive.removable,
                "locked": drive.locked(),
            });
            if let Some(object) = entry.as_object_mut() {
                if drive.removable
                    && let Some(open) = drive.tray_open()
                {
                    object.insert("tray_open".into(), open.into());
                }
                if let Some(image) = &drive.image() {
                    let status = if drive.stalled() { "nospace" } else { "ok" };
                    object.insert("io-status".into(), status.into());
                    object.insert("inserted".into(), node(image));
                }
            }
            entry
        })
        .collect())
}

/// An image as QMP has it (`BlockDeviceInfo`): nothing is throttled.
fn node(image: &ImageEntry) -> Value {
    let direct = matches!(image.cache, Cache::None | Cache::DirectSync);
    let through = matches!(image.cache, Cache::Writethrough | Cache::DirectSync);
    let detect_zeroes = match image.detect_zeroes {
        DetectZeroes::Off => "off",
        DetectZeroes::On => "on",
        DetectZeroes::Unmap => "unmap",
    };
    let mut node = json!({
        "file": image.file,
        "node-name": image.node,
        "drv": image.format,
        "ro": image.read_only,
        "active": true,
        "encrypted": false,
        "backing_file_depth": image.backing_depth,
        "detect_zeroes": detect_zeroes,
        "write_threshold": 0,
        "cache": {
            "writeback": !through,
            "direct": direct,
            "no-flush": image.cache == Cache::Unsafe,
        },
        "image": {
            "filename": image.file,
            "format": image.format,
            "virtual-size": image.size,
            "dirty-flag": false,
        },
    });
    for limit in ["bps", "bps_rd", "bps_wr", "iops", "iops_rd", "iops_wr"] {
        node[limit] = 0.into();
    }
    if let Some(backing) = &image.backing {
        node["backing_file"] = backing.as_str().into();
    }
    node
}

/// Nodes with names of their own, and what `-drive` has opened, by the drives' names.
fn query_named_block_nodes(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        /// Backing images are not listed in full either way.
        #[serde(default, rename = "flat")]
        _flat: bool,
    }
    let _: Arguments = arguments(value)?;
    let mut nodes = machine.board().nodes().list();
    let images = machine
        .board()
        .drives()
        .iter()
        .filter_map(DriveEntry::image);
    for image in images {
        if nodes.iter().all(|node| node.node != image.node) {
            nodes.push(image);
        }
    }
    Ok(nodes.iter().map(node).collect())
}

fn blockdev_add(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    let node = crate::blockdev::root(value).map_err(QmpError::generic)?;
    let drives = machine.board().drives();
    for name in crate::blockdev::names(&node) {
        if drives.iter().any(|drive| drive.id == name) {
            return Err(QmpError::generic(format!(
                "node-name={name} is conflicting with a device id"
            )));
        }
    }
    machine
        .board()
        .nodes()
        .add(&node)
        .map_err(QmpError::generic)?;
    Ok(json!({}))
}

/// Whether `-drive` has opened an image that goes by that name, the drive's.
fn belongs_to_drive(machine: &Handle, name: &str) -> bool {
    let mut images = machine
        .board()
        .drives()
        .iter()
        .filter_map(DriveEntry::image);
    images.any(|image| image.node == name)
}

fn blockdev_del(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Arguments {
        node_name: String,
    }
    let name = arguments::<Arguments>(value)?.node_name;
    let deleted = machine.board().nodes().delete(&name);
    deleted.map_err(|error| match error {
        NodeError::NothingToDelete(_) if belongs_to_drive(machine, &name) => {
            QmpError::generic(NodeError::InDrive(name))
        }
        other => QmpError::generic(other),
    })?;
    Ok(json!({}))
}

fn blockdev_insert_medium(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Arguments {
        id: String,
        node_name: String,
    }
    let given: Arguments = arguments(value)?;
    let drive = drive(machine, None, Some(&given.id))?;
    let inserted = drive.insert_medium(&given.node_name);
    inserted.map_err(|error| match error {
        MediumError::Node(NodeError::NotFound(name)) if belongs_to_drive(machine, &name) => {
            QmpError::generic(NodeError::InUse(name))
        }
        other => QmpError::generic(other),
    })?;
    Ok(json!({}))
}

/// A drive by its own name, or by its device's: an id, or a path.
fn drive<'a>(
    machine: &'a Handle,
    device: Option<&str>,
    id: Option<&str>,
) -> Result<&'a DriveEntry, QmpError> {
    let mut drives = machine.board().drives().iter();
    let (name, found) = match (device, id) {
        (Some(device), None) => {
            let named = |drive: &&DriveEntry| !device.is_empty() && drive.id == device;
            (device, drives.find(named))
        }
        (None, Some(id)) => {
            let path = format!("/machine/peripheral/{id}");
            let found = drives.find(|drive| drive.holder == id || drive.holder == path);
            (id, found)
        }
        _ => return Err(QmpError::generic("Need exactly one of 'device' and 'id'")),
    };
    found.ok_or_else(|| QmpError::device_not_found(format!("Device '{name}' not found")))
}

/// Which drive, and whether what the guest holds is taken all the same.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tray {
    device: Option<String>,
    id: Option<String>,
    #[serde(default)]
    force: bool,
}

impl Tray {
    fn drive<'a>(&self, machine: &'a Handle) -> Result<&'a DriveEntry, QmpError> {
        drive(machine, self.device.as_deref(), self.id.as_deref())
    }
}

fn eject(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    let given: Tray = arguments(value)?;
    let drive = given.drive(machine)?;
    drive.eject(given.force).map_err(QmpError::generic)?;
    Ok(json!({}))
}

fn blockdev_open_tray(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    let given: Tray = arguments(value)?;
    match given.drive(machine)?.open_tray(given.force) {
        // The guest has been asked, and DEVICE_TRAY_MOVED tells when it obeys.
        Ok(()) | Err(MediumError::Locked(_)) => Ok(json!({})),
        Err(error) => Err(QmpError::generic(error)),
    }
}

fn blockdev_close_tray(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        device: Option<String>,
        id: Option<String>,
    }
    let given: Arguments = arguments(value)?;
    let drive = drive(machine, given.device.as_deref(), given.id.as_deref())?;
    drive.close_tray().map_err(QmpError::generic)?;
    Ok(json!({}))
}

fn blockdev_remove_medium(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        id: String,
    }
    let given: Arguments = arguments(value)?;
    let drive = drive(machine, None, Some(&given.id))?;
    drive.remove_medium().map_err(QmpError::generic)?;
    Ok(json!({}))
}

fn blockdev_change_medium(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Arguments {
        device: Option<String>,
        id: Option<String>,
        filename: String,
        format: Option<String>,
        #[serde(default)]
        force: bool,
        read_only_mode: Option<String>,
    }
    let given: Arguments = arguments(value)?;
    let read_only = match given.read_only_mode.as_deref() {
        None | Some("retain") => None,
        Some("read-only") => Some(true),
        Some("read-write") => Some(false),
        Some(other) => {
            return Err(QmpError::generic(format!(
                "Parameter 'read-only-mode' does not accept value '{other}'"
            )));
        }
    };
    let drive = drive(machine, given.device.as_deref(), given.id.as_deref())?;
    let format = given.format.map(|format| {
        let unknown = |_| QmpError::generic(format!("Unknown driver '{format}'"));
        format.parse().map_err(unknown)
    });
    drive
        .change_medium(
            Path::new(&given.filename),
            format.transpose()?,
            read_only,
            given.force,
        )
        .map_err(QmpError::generic)?;
    Ok(json!({}))
}

fn stop(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    machine.stop().map_err(QmpError::generic)?;
    Ok(json!({}))
}

fn cont(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    machine.resume().map_err(QmpError::generic)?;
    Ok(json!({}))
}

fn system_reset(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    machine
        .reset(Cause::HostQmpReset)
        .map_err(QmpError::generic)?;
    Ok(json!({}))
}

fn system_powerdown(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    machine.power_button();
    Ok(json!({}))
}

fn quit(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    none(value)?;
    // The program ends once its clients have their answers.
    machine
        .quit(Cause::HostQmpQuit)
        .map_err(QmpError::generic)?;
    Ok(json!({}))
}

/// The consoles with passwords, if `protocol` is theirs.
fn guarded(protocol: &str, machine: &Handle) -> Result<Vec<Arc<dyn console::Guarded>>, QmpError> {
    match protocol {
        "vnc" => Ok(machine.board().display().guarded()),
        other => Err(QmpError::generic(format!(
            "Parameter 'protocol' does not accept value '{other}'"
        ))),
    }
}

fn set_password(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        protocol: String,
        password: String,
        connected: Option<String>,
    }
    let given: Arguments = arguments(value)?;
    let disconnect = match given.connected.as_deref() {
        None | Some("keep") => false,
        Some("disconnect") => true,
        Some("fail") => return Err(QmpError::generic("VNC knows 'keep' and 'disconnect' only")),
        Some(other) => {
            return Err(QmpError::generic(format!(
                "Parameter 'connected' does not accept value '{other}'"
            )));
        }
    };
    let consoles = guarded(&given.protocol, machine)?;
    let set = |console: &Arc<dyn console::Guarded>| console.set_password(Some(&given.password));
    if consoles.iter().filter(|console| set(console)).count() == 0 {
        return Err(QmpError::generic("Could not set password"));
    }
    if disconnect {
        consoles.iter().for_each(|console| console.disconnect());
    }
    Ok(json!({}))
}

fn change_vnc_password(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        password: String,
    }
    let given: Arguments = arguments(value)?;
    let again = json!({ "protocol": "vnc", "password": given.password });
    set_password(&again, machine)
}

fn expire_password(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        protocol: String,
        time: String,
    }
    let given: Arguments = arguments(value)?;
    let at = expiry(&given.time).ok_or_else(|| {
        QmpError::generic(format!(
            "Parameter 'time' does not accept value '{}'",
            given.time
        ))
    })?;
    let consoles = guarded(&given.protocol, machine)?;
    if consoles.iter().filter(|console| console.expire(at)).count() == 0 {
        return Err(QmpError::generic("Could not set password expire time"));
    }
    Ok(json!({}))
}

/// `now`, `never`, `+SECONDS` from now, or seconds since 1970.
fn expiry(text: &str) -> Option<Option<SystemTime>> {
    let seconds = |text: &str| text.parse().ok().map(Duration::from_secs);
    match text {
        "now" => Some(Some(SystemTime::now())),
        "never" => Some(None),
        _ => match text.strip_prefix('+') {
            Some(text) => SystemTime::now().checked_add(seconds(text)?).map(Some),
            None => SystemTime::UNIX_EPOCH.checked_add(seconds(text)?).map(Some),
        },
    }
}

/// A line of the monitor for people, and what that answers.
fn human_monitor_command(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Arguments {
        command_line: String,
        cpu_index: Option<u32>,
    }
    let given: Arguments = arguments(value)?;
    let mut monitor = crate::monitor::Monitor::new(machine);
    if let Some(cpu) = given.cpu_index
        && !monitor.choose_processor(cpu)
    {
        return Err(QmpError::generic(
            "Parameter 'cpu-index' expects a CPU number",
        ));
    }
    Ok(monitor.execute(&given.command_line).into())
}

fn screendump(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        filename: String,
        format: Option<String>,
        device: Option<String>,
        head: Option<u64>,
    }
    let given: Arguments = arguments(value)?;
    let write: fn(&device::screen::Surface, std::fs::File) -> std::io::Result<()> =
        match given.format.as_deref() {
            None | Some("ppm") => console::screenshot::write_ppm,
            Some("png") => console::screenshot::write_png,
            Some(other) => {
                return Err(QmpError::generic(format!(
                    "Parameter 'format' does not accept value '{other}'"
                )));
            }
        };
    let display = machine.board().display();
    let picture = match (given.device.as_deref(), given.head.unwrap_or(0)) {
        (None, 0) => display.capture(),
        (None, _) => {
            return Err(QmpError::generic(
                "'head' must be specified together with 'device'",
            ));
        }
        (Some(device), head) => {
            let screen = u32::try_from(head)
                .ok()
                .and_then(|head| display.head(device, head))
                .ok_or_else(|| {
                    QmpError::generic(format!("Device '{device}' has no screen {head}"))
                })?;
            let mut surface = device::screen::Surface::default();
            screen.capture(&mut surface).then_some(surface)
        }
    };
    let surface =
        picture.ok_or_else(|| QmpError::generic("there is no picture on the screen yet"))?;
    std::fs::File::create(&given.filename)
        .and_then(|file| write(&surface, file))
        .map_err(|e| {
            QmpError::generic(format!(
                "failed to open file '{}': {}",
                given.filename,
                crate::reason(&e)
            ))
        })?;
    Ok(json!({}))
}

/// QMP's KeyValue: a name or a number.
#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
enum KeyValue {
    Qcode(String),
    Number(u32),
}

impl KeyValue {
    fn key(&self) -> Result<Key, QmpError> {
        match self {
            KeyValue::Qcode(name) => console::keys::from_name(name).map_err(|_| {
                QmpError::generic(format!("Parameter 'data' does not accept value '{name}'"))
            }),
            KeyValue::Number(number) => {
                console::keys::from_number(*number).map_err(QmpError::generic)
            }
        }
    }
}

fn send_key(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        keys: Vec<KeyValue>,
        #[serde(rename = "hold-time")]
        hold_time: Option<u64>,
    }
    let given: Arguments = arguments(value)?;
    let keys = given
        .keys
        .iter()
        .map(KeyValue::key)
        .collect::<Result<Vec<_>, _>>()?;
    // In line, so that commands that follow find the keys up again.
    let hold = Duration::from_millis(given.hold_time.unwrap_or(100).min(60_000));
    machine.board().seat().press_together(&keys, hold);
    Ok(json!({}))
}

#[derive(Deserialize)]
#[serde(tag = "type", content = "data", rename_all = "lowercase")]
enum InputEvent {
    Key { key: KeyValue, down: bool },
    Btn { button: String, down: bool },
    Abs { axis: String, value: i64 },
    Rel { axis: String, value: i64 },
}

fn input_send_event(value: &Value, machine: &Handle) -> Result<Value, QmpError> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Arguments {
        events: Vec<InputEvent>,
        device: Option<String>,
        head: Option<u64>,
    }
    let given: Arguments = arguments(value)?;
    if given.device.is_some() || given.head.is_some_and(|head| head != 0) {
        return Err(QmpError::generic(
            "this machine has one screen: leave device and head out",
        ));
    }
    let seat = machine.board().seat();
    let (mut x, mut y) = (None, None);
    let mut motion = (0i32, 0i32);
    let mut sends: Vec<Send> = Vec::new();
    for event in &given.events {
        match event {
            InputEvent::Key { key, down } => sends.push(Send::Key(key.key()?, *down)),
            InputEvent::Btn { button, down } => sends.push(match button.as_str() {
                "left" => Send::Button(Button::Left, *down),
                "right" => Send::Button(Button::Right, *down),
                "middle" => Send::Button(Button::Middle, *down),
                "side" => Send::Button(Button::Side, *down),
                "extra" => Send::Button(Button::Extra, *down),
                // A step of the wheel is its press.
                "wheel-up" => Send::Wheel(i32::from(*down)),
                "wheel-down" => Send::Wheel(-i32::from(*down)),
                other => {
                    return Err(QmpError::generic(format!(
                        "Parameter 'button' does not accept value '{other}'"
                    )));
                }
            }),
            InputEvent::Abs { axis, value } => {
                let value = Some((*value).clamp(0, 0x7fff) as u16);
                match axis.as_str() {
                    "x" => x = value,
                    "y" => y = value,
                    other => return Err(axis_error(other)),
                }
            }
            InputEvent::Rel { axis, value } => {
                let value = (*value).clamp(-0x7fff, 0x7fff) as i32;
                match axis.as_str() {
                    "x" => motion.0 = motion.0.saturating_add(value),
                    "y" => motion.1 = motion.1.saturating_add(value),
                    other => return Err(axis_error(other)),
                }
            }
        }
    }
    // The pointer is where it is said to be before its buttons go down.
    if motion != (0, 0) {
        seat.motion(motion.0, motion.1);
    }
    if x.is_some() || y.is_some() {
        machine.board().move_pointer(x, y);
    }
    for send in sends {
        match send {
            Send::Key(key, down) => seat.key(key, down),
            Send::Button(button, down) => seat.button(button, down),
            Send::Wheel(0) => {}
            Send::Wheel(steps) => seat.wheel(steps),
        }
    }
    Ok(json!({}))
}

/// What goes to the seat once every event is known to be sound.
enum Send {
    Key(Key, bool),
    Button(Button, bool),
    Wheel(i32),
}

fn axis_error(axis: &str) -> QmpError {
    QmpError::generic(format!("Parameter 'axis' does not accept value '{axis}'"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiries() {
        assert_eq!(expiry("never"), Some(None));
        let at = expiry("100").flatten();
        assert_eq!(at, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(100)));
        assert!(expiry("+60").flatten() > expiry("now").flatten());
        for text in ["", "x", "+", "-1", "+99999999999999999999"] {
            assert_eq!(expiry(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_in_order() {
        assert!(COMMANDS.is_sorted_by_key(|c| c.0));
    }
}
