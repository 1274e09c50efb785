//! The commands.

use std::time::Duration;

use serde_json::{Value, json};

use super::words::{Command, Kind, Run, maybe, needed, word};
use super::{Answer, Failure, Monitor, error, text};

const NAME: &str = "string expected";
const DEVICE: &str = "block device name expected";

/// In the order of their names.
pub const COMMANDS: &[Command] = &[
    Command::new(
        "change",
        "device [-f] filename [format [read-only-mode]]",
        "change a removable medium, optional format, use -f to force the operation; or the password of 'vnc' \
         (change vnc password WORD)",
        &[
            word("device", DEVICE),
            maybe("force", Kind::Switch('f')),
            word("target", "filename expected"),
            maybe("argument", Kind::Word(NAME)),
            maybe("mode", Kind::Word(NAME)),
        ],
        Run::Here(change),
    ),
    Command::new("cont|c", "", "resume emulation", &[], Run::Qmp("cont")),
    Command::new(
        "cpu",
        "index",
        "set the default CPU",
        &[needed("index", Kind::Number)],
        Run::Here(cpu),
    ),
    Command::new(
        "eject",
        "[-f] device",
        "eject a removable medium (use -f to force it)",
        &[maybe("force", Kind::Switch('f')), word("device", DEVICE)],
        Run::Qmp("eject"),
    ),
    Command::new(
        "expire_password",
        "protocol time",
        "set vnc password expire-time",
        &[word("protocol", NAME), word("time", NAME)],
        Run::Qmp("expire_password"),
    ),
    Command::new("help|?", "[cmd]", "show the help", &[], Run::Help),
    Command::new(
        "info",
        "[subcommand]",
        "show various information about the system state",
        &[],
        Run::Info,
    ),
    Command::new(
        "mouse_button",
        "state",
        "change mouse button state (1=L, 2=M, 4=R)",
        &[needed("state", Kind::Number)],
        Run::Here(mouse_button),
    ),
    Command::new(
        "mouse_move",
        "dx dy [dz]",
        "send mouse move events",
        &[
            needed("x", Kind::Number),
            needed("y", Kind::Number),
            maybe("z", Kind::Number),
        ],
        Run::Here(mouse_move),
    ),
    Command::new("quit|q", "", "quit the emulator", &[], Run::Qmp("quit")),
    Command::new(
        "screendump",
        "filename [-f format] [device [head]]",
        "save screen from head 'head' of display device 'device' in specified format 'format' as image 'filename'. \
         Formats: 'png' and 'ppm'",
        &[
            word("filename", "filename expected"),
            maybe("format", Kind::Choice('f')),
            maybe("device", Kind::Word(NAME)),
            maybe("head", Kind::Number),
        ],
        Run::Here(screendump),
    ),
    Command::new(
        "sendkey",
        "keys [hold_ms]",
        "send keys to the VM (e.g. 'sendkey ctrl-alt-f1', default hold time=100 ms)",
        &[word("keys", NAME), maybe("hold", Kind::Number)],
        Run::Here(sendkey),
    ),
    Command::new(
        "set_link",
        "name on|off",
        "change the link status of a network adapter",
        &[word("name", NAME), needed("up", Kind::OnOff)],
        Run::Qmp("set_link"),
    ),
    Command::new(
        "set_password",
        "protocol password [action-if-connected]",
        "set vnc password",
        &[
            word("protocol", NAME),
            word("password", NAME),
            maybe("connected", Kind::Word(NAME)),
        ],
        Run::Qmp("set_password"),
    ),
    Command::new("stop|s", "", "stop emulation", &[], Run::Qmp("stop")),
    Command::new(
        "system_powerdown",
        "",
        "send system power down event",
        &[],
        Run::Qmp("system_powerdown"),
    ),
    Command::new(
        "system_reset",
        "",
        "reset the system",
        &[],
        Run::Qmp("system_reset"),
    ),
];

fn change(monitor: &mut Monitor, given: &Value) -> Answer {
    let device = text(given, "device");
    if device == "vnc" {
        return match (text(given, "target"), given["argument"].as_str()) {
            ("password" | "passwd", Some(password)) => {
                monitor.qmp("change-vnc-password", &json!({ "password": password }))?;
                Ok(String::new())
            }
            ("password" | "passwd", None) => Err(error(
                "give the password on the line: change vnc password WORD",
            )),
            _ => Err(error("a VNC server cannot be moved while it runs")),
        };
    }
    let mut arguments = json!({
        "device": device,
        "filename": text(given, "target"),
        "force": given["force"].as_bool().unwrap_or(false),
    });
    if let Some(format) = given["argument"].as_str() {
        arguments["format"] = format.into();
    }
    match given["mode"].as_str() {
        None => {}
        Some(mode @ ("retain" | "read-only" | "read-write")) => {
            arguments["read-only-mode"] = mode.into();
        }
        Some(other) => return Err(error(format!("invalid parameter value: {other}"))),
    }
    monitor.qmp("blockdev-change-medium", &arguments)?;
    Ok(String::new())
}

fn cpu(monitor: &mut Monitor, given: &Value) -> Answer {
    let index = given["index"].as_u64().and_then(|n| u32::try_from(n).ok());
    match index {
        Some(index) if monitor.choose_processor(index) => Ok(String::new()),
        _ => Err(Failure::Said("invalid CPU index\n".into())),
    }
}

fn screendump(monitor: &mut Monitor, given: &Value) -> Answer {
    if given["head"].as_i64().is_some_and(|head| head < 0) {
        return Err(error("Parameter 'head' expects a positive number"));
    }
    monitor.qmp("screendump", given)?;
    Ok(String::new())
}

fn sendkey(monitor: &mut Monitor, given: &Value) -> Answer {
    let keys = console::keys::combination(text(given, "keys"))
        .map_err(|e| Failure::Said(format!("{e}\n")))?;
    let hold = given["hold"].as_i64().unwrap_or(100).clamp(0, 60_000);
    // In line, so that the next command finds the keys up again.
    let hold = Duration::from_millis(hold.unsigned_abs());
    monitor.machine.board().seat().press_together(&keys, hold);
    Ok(String::new())
}

fn mouse_move(monitor: &mut Monitor, given: &Value) -> Answer {
    let mut events = Vec::new();
    for axis in ["x", "y"] {
        let value = &given[axis];
        events.push(json!({ "type": "rel", "data": { "axis": axis, "value": value } }));
    }
    let turns = given["z"].as_i64().unwrap_or(0).clamp(-127, 127);
    let wheel = if turns > 0 { "wheel-up" } else { "wheel-down" };
    for _ in 0..turns.unsigned_abs() {
        for down in [true, false] {
            events.push(json!({ "type": "btn", "data": { "button": wheel, "down": down } }));
        }
    }
    monitor.qmp("input-send-event", &json!({ "events": events }))?;
    Ok(String::new())
}

fn mouse_button(monitor: &mut Monitor, given: &Value) -> Answer {
    let state = given["state"].as_i64().unwrap_or(0);
    let events = [("left", 1), ("middle", 2), ("right", 4)].map(|(button, bit)| {
        json!({ "type": "btn", "data": { "button": button, "down": state & bit != 0 } })
    });
    monitor.qmp("input-send-event", &json!({ "events": events }))?;
    Ok(String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order() {
        assert!(COMMANDS.is_sorted_by_key(Command::name));
        assert!(super::super::info::COMMANDS.is_sorted_by_key(Command::name));
    }

    #[test]
    fn qmp_knows_what_is_left_to_it() {
        for command in COMMANDS {
            if let Run::Qmp(name) = command.run {
                assert!(crate::qmp::commands::find(name).is_some(), "{name}");
            }
        }
    }
}
