//! One connection: greeting, negotiation, commands in, answers and events out.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_channel::{RecvTimeoutError, Sender, bounded};
use machine::control::Handle;
use serde_json::{Value, json};

use super::socket::Stream;
use super::{commands, events};

/// A command of more bytes than this ends the connection.
const COMMAND_BYTES: usize = 1 << 20;
/// Answers and events that wait for a client which does not read; then events are dropped.
const QUEUE: usize = 256;

/// An error as QMP reports it.
#[derive(Debug)]
pub struct QmpError {
    pub class: &'static str,
    pub description: String,
}

impl QmpError {
    /// Of class GenericError.
    pub fn generic(description: impl ToString) -> QmpError {
        QmpError {
            class: "GenericError",
            description: description.to_string(),
        }
    }

    fn not_found(description: String) -> QmpError {
        QmpError {
            class: "CommandNotFound",
            description,
        }
    }
}

/// Serves a client until it hangs up or the machine has ended.
pub fn run(stream: Stream, pretty: bool, machine: &Handle) {
    let Ok(mut writer) = stream.try_clone() else {
        return;
    };
    let Ok(closer) = stream.try_clone() else {
        return;
    };
    let (send, receive) = bounded::<Value>(QUEUE);
    let write = move || {
        for message in receive {
            let text = if pretty {
                serde_json::to_string_pretty(&message)
            } else {
                serde_json::to_string(&message)
            };
            let Ok(text) = text else { continue };
            if writer
                .write_all(text.as_bytes())
                .and_then(|()| writer.write_all(b"\r\n"))
                .is_err()
            {
                break;
            }
        }
        closer.close();
    };
    let Ok(writer) = std::thread::Builder::new()
        .name("qmp writer".into())
        .spawn(write)
    else {
        return;
    };
    let negotiated = Arc::new(AtomicBool::new(false));
    let _ = send.send(json!({ "QMP": { "version": commands::version(), "capabilities": [] } }));
    let open = Arc::new(AtomicBool::new(true));
    forward_events(machine, &send, &negotiated, &open);
    read(stream, machine, &send, &negotiated);
    open.store(false, Ordering::SeqCst);
    drop(send);
    let _ = writer.join();
}

fn forward_events(
    machine: &Handle,
    send: &Sender<Value>,
    negotiated: &Arc<AtomicBool>,
    open: &Arc<AtomicBool>,
) {
    let events = machine.events();
    let (send, negotiated, open) = (send.clone(), negotiated.clone(), open.clone());
    let forward = move || {
        while open.load(Ordering::SeqCst) {
            let (when, event) = match events.recv_timeout(Duration::from_millis(500)) {
                Ok(event) => event,
                Err(RecvTimeoutError::Timeout) => continue,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if !negotiated.load(Ordering::SeqCst) {
                continue;
            }
            if let Err(crossbeam_channel::TrySendError::Disconnected(_)) =
                send.try_send(events::describe(when, &event))
            {
                break;
            }
        }
    };
    if let Err(error) = std::thread::Builder::new()
        .name("qmp events".into())
        .spawn(forward)
    {
        tracing::warn!("QMP: no events: {error}");
    }
}

fn read(mut stream: Stream, machine: &Handle, send: &Sender<Value>, negotiated: &AtomicBool) {
    let mut pending = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return,
            Ok(n) => pending.extend_from_slice(&chunk[..n]),
        }
        loop {
            let mut values = serde_json::Deserializer::from_slice(&pending).into_iter::<Value>();
            let (answer, used) = match values.next() {
                None => break,
                Some(Ok(value)) => (answer(&value, machine, negotiated), values.byte_offset()),
                Some(Err(error)) if error.is_eof() => break,
                Some(Err(error)) => {
                    // What follows on the next line may be sound again.
                    let line = pending
                        .iter()
                        .position(|b| *b == b'\n')
                        .map_or(pending.len(), |at| at + 1);
                    (
                        failure(
                            &QmpError::generic(format!("JSON parse error, {error}")),
                            None,
                        ),
                        line,
                    )
                }
            };
            pending.drain(..used);
            if send.send(answer).is_err() {
                return;
            }
        }
        if pending.len() > COMMAND_BYTES {
            return;
        }
    }
}

fn failure(error: &QmpError, id: Option<&Value>) -> Value {
    with_id(
        json!({ "error": { "class": error.class, "desc": error.description } }),
        id,
    )
}

fn with_id(mut message: Value, id: Option<&Value>) -> Value {
    if let (Some(object), Some(id)) = (message.as_object_mut(), id) {
        object.insert("id".into(), id.clone());
    }
    message
}

fn answer(request: &Value, machine: &Handle, negotiated: &AtomicBool) -> Value {
    let id = request.get("id");
    match command(request, machine, negotiated) {
        Ok(value) => with_id(json!({ "return": value }), id),
        Err(error) => failure(&error, id),
    }
}

fn command(request: &Value, machine: &Handle, negotiated: &AtomicBool) -> Result<Value, QmpError> {
    let object = request
        .as_object()
        .ok_or_else(|| QmpError::generic("QMP input must be a JSON object"))?;
    for key in object.keys() {
        if !["execute", "arguments", "id"].contains(&key.as_str()) {
            return Err(QmpError::generic(format!(
                "QMP input member '{key}' is unexpected"
            )));
        }
    }
    let name = object
        .get("execute")
        .ok_or_else(|| QmpError::generic("QMP input lacks member 'execute'"))?
        .as_str()
        .ok_or_else(|| QmpError::generic("QMP input member 'execute' must be a string"))?;
    let empty = Value::Object(Default::default());
    let arguments = object.get("arguments").unwrap_or(&empty);
    if !arguments.is_object() {
        return Err(QmpError::generic(
            "QMP input member 'arguments' must be an object",
        ));
    }
    if name == "qmp_capabilities" {
        if negotiated.swap(true, Ordering::SeqCst) {
            return Err(QmpError::not_found(
                "Capabilities negotiation is already complete, command ignored".into(),
            ));
        }
        return Ok(json!({}));
    }
    if !negotiated.load(Ordering::SeqCst) {
        return Err(QmpError::not_found(
            "Expecting capabilities negotiation with 'qmp_capabilities'".into(),
        ));
    }
    match commands::find(name) {
        Some(command) => command(arguments, machine),
        None => Err(QmpError::not_found(format!(
            "The command {name} has not been found"
        ))),
    }
}
