//! Events as QMP has them.

use std::time::{SystemTime, UNIX_EPOCH};

use machine::control::Event;
use serde_json::{Value, json};

/// The JSON of an event.
pub fn describe(when: SystemTime, event: &Event) -> Value {
    let since = when.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (name, data) = match event {
        Event::Stop => ("STOP", None),
        Event::Resume => ("RESUME", None),
        Event::Powerdown => ("POWERDOWN", None),
        Event::Reset(cause) => (
            "RESET",
            Some(json!({ "guest": cause.guest(), "reason": cause.name() })),
        ),
        Event::Shutdown(cause) => (
            "SHUTDOWN",
            Some(json!({ "guest": cause.guest(), "reason": cause.name() })),
        ),
        Event::TrayMoved {
            device,
            holder,
            open,
        } => (
            "DEVICE_TRAY_MOVED",
            Some(json!({ "device": device, "id": holder, "tray-open": open })),
        ),
        Event::BlockIoError {
            device,
            node,
            write,
            no_space,
            reason,
        } => (
            "BLOCK_IO_ERROR",
            Some(json!({
                "device": device,
                "node-name": node,
                "operation": if *write { "write" } else { "read" },
                "action": "stop",
                "nospace": no_space,
                "reason": reason,
            })),
        ),
    };
    let mut message = json!({
        "timestamp": { "seconds": since.as_secs(), "microseconds": since.subsec_micros() },
        "event": name,
    });
    if let (Some(object), Some(data)) = (message.as_object_mut(), data) {
        object.insert("data".into(), data);
    }
    message
}
