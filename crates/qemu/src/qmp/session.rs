//! One connection: greeting, negotiation, commands in, answers and events out.

use std::io::{self, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use crossbeam_channel::{Receiver, Sender, bounded};
use machine::control::{Event, Handle};
use serde_json::{Value, json};

use super::{commands, events};
use crate::servers::Stream;

/// A command of more bytes than this ends the connection.
const COMMAND_BYTES: usize = 1 << 20;
/// Answers that wait for a client which does not read; then its commands wait, too.
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

    /// Of class DeviceNotFound.
    pub fn device_not_found(description: impl ToString) -> QmpError {
        QmpError {
            class: "DeviceNotFound",
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
    let Ok(output) = stream.try_clone() else {
        return;
    };
    let (send, answers) = bounded::<Value>(QUEUE);
    let negotiated = Arc::new(AtomicBool::new(false));
    let writer = Writer {
        output,
        pretty,
        negotiated: negotiated.clone(),
        events: machine.events(),
        answers,
    };
    let Ok(writer) = std::thread::Builder::new()
        .name("qmp writer".into())
        .spawn(move || writer.run())
    else {
        return;
    };
    let _ = send.send(json!({ "QMP": { "version": commands::version(), "capabilities": [] } }));
    read(stream, machine, &send, &negotiated);
    drop(send);
    let _ = writer.join();
}

/// What goes out. What a command brought about goes out before its answer.
struct Writer {
    output: Stream,
    pretty: bool,
    negotiated: Arc<AtomicBool>,
    events: Receiver<(SystemTime, Event)>,
    answers: Receiver<Value>,
}

impl Writer {
    /// Until the reader ends, the client is gone, or the machine has ended and all is said.
    fn run(mut self) {
        let _ = self.serve();
        self.output.close();
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut ended = false;
        while !ended {
            crossbeam_channel::select! {
                recv(self.events) -> event => match event {
                    Ok(event) => self.event(event)?,
                    Err(_) => ended = true,
                },
                recv(self.answers) -> answer => match answer {
                    Ok(answer) => self.answer(&answer)?,
                    Err(_) => return Ok(()),
                },
            }
        }
        // No more commands; the reader ends, and with it the answers.
        self.output.close_reading();
        while let Ok(answer) = self.answers.recv() {
            self.answer(&answer)?;
        }
        Ok(())
    }

    fn answer(&mut self, answer: &Value) -> io::Result<()> {
        while let Ok(event) = self.events.try_recv() {
            self.event(event)?;
        }
        self.message(answer)
    }

    fn event(&mut self, (when, event): (SystemTime, Event)) -> io::Result<()> {
        if self.negotiated.load(Ordering::SeqCst) {
            self.message(&events::describe(when, &event))?;
        }
        Ok(())
    }

    fn message(&mut self, message: &Value) -> io::Result<()> {
        let mut text = if self.pretty {
            serde_json::to_string_pretty(message)?
        } else {
            serde_json::to_string(message)?
        };
        text.push_str("\r\n");
        self.output.write_all(text.as_bytes())
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
            let error = QmpError::generic("JSON parse error, a command is too long");
            let _ = send.send(failure(&error, None));
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
