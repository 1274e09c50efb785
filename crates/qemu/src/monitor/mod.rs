//! The monitor: commands that people type, in the words of QEMU's.
//!
//! - [`Monitor`] runs a line and answers it; [`words`] takes the line apart, [`commands`] and [`info`] have what there is.
//!   What QMP has a command for is done by that command.
//! - [`Session`] is a conversation: greeting, prompt, a line under construction ([`editor`]).
//! - [`socket`], [`terminal`] and [`mux`] are where one is held: a client of a socket, the user's terminal, and the other
//!   side of a terminal that the serial line has too.

mod commands;
mod editor;
mod info;
pub mod mux;
pub mod socket;
mod telnet;
pub mod terminal;
#[cfg(test)]
mod tests;
mod words;

use machine::control::Handle;
use serde_json::Value;

use crate::qmp::{QmpError, commands as qmp};
use crate::servers::Address;
use editor::{Editor, Line};
use words::Command;

/// A line of more bytes than this is refused.
pub const LINE_BYTES: usize = 4096;

/// What stands before a command.
const PROMPT: &str = "(qemu) ";

/// Where a monitor is spoken with, as `-monitor` has it.
#[derive(Clone, Debug, PartialEq)]
pub enum Place {
    /// The terminal, or whatever standard input and output are.
    Stdio,
    Socket(Address),
}

impl Place {
    /// Reads the argument of `-monitor`; `None` for no monitor.
    ///
    /// # Errors
    /// It names no place, or one where Dormer has no monitor; in words for the user.
    pub fn parse(text: &str) -> Result<Option<Place>, crate::Error> {
        match text.split([':', ',']).next().unwrap_or_default() {
            "none" | "null" if text.len() == 4 => Ok(None),
            "stdio" if text == "stdio" => Ok(Some(Place::Stdio)),
            "stdio" => Err(crate::Error::new(
                "Dormer's monitor takes no options on stdio",
            )),
            kind @ ("vc" | "pty" | "chardev" | "file" | "pipe" | "udp" | "websocket" | "mon") => {
                let text = format!("Dormer does not have its monitor on '{kind}'");
                Err(crate::Error::new(text)
                    .hint("Use stdio, unix:PATH, tcp:HOST:PORT or telnet:HOST:PORT"))
            }
            _ => {
                let address = Address::parse(text).map_err(|e| crate::Error::new(e.to_string()))?;
                Ok(Some(Place::Socket(address)))
            }
        }
    }
}

/// Why a command was not done.
#[derive(Debug)]
enum Failure {
    /// In the monitor's own words.
    Said(String),
    /// In QMP's, after `Error: `.
    Qmp(QmpError),
}

impl From<QmpError> for Failure {
    fn from(error: QmpError) -> Failure {
        Failure::Qmp(error)
    }
}

type Answer = Result<String, Failure>;

/// Runs commands on a machine.
pub struct Monitor {
    machine: Handle,
    /// The processor that `info registers` shows, as `cpu` chooses it.
    cpu: u32,
}

impl Monitor {
    /// With processor 0 chosen.
    pub fn new(machine: &Handle) -> Monitor {
        Monitor {
            machine: machine.clone(),
            cpu: 0,
        }
    }

    /// Chooses the processor of `info registers`: whether there is such a one.
    pub fn choose_processor(&mut self, cpu: u32) -> bool {
        let there = (cpu as usize) < self.machine.processor_threads().len();
        if there {
            self.cpu = cpu;
        }
        there
    }

    /// Runs a command. Its answer is empty, or lines that end with `\r\n`.
    pub fn execute(&mut self, line: &str) -> String {
        if line.len() > LINE_BYTES {
            return TOO_LONG.into();
        }
        let said = match self.run(line) {
            Ok(said) | Err(Failure::Said(said)) => said,
            Err(Failure::Qmp(error)) => format!("Error: {}\n", error.description),
        };
        said.replace('\n', "\r\n")
    }

    fn run(&mut self, line: &str) -> Answer {
        let line = line.trim();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        if name.is_empty() {
            return Ok(String::new());
        }
        let Some(command) = Command::find(commands::COMMANDS, name) else {
            return Err(unknown(name));
        };
        match command.run {
            words::Run::Help => help(rest),
            words::Run::Info => self.info(rest),
            _ => self.do_it(command, "", rest),
        }
    }

    /// `info WHAT`; alone, what there is.
    fn info(&mut self, rest: &str) -> Answer {
        let rest = rest.trim();
        let (name, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        if name.is_empty() {
            return help("info");
        }
        match Command::find(info::COMMANDS, name) {
            Some(command) => self.do_it(command, "info ", rest),
            None => Err(unknown(&format!("info {name}"))),
        }
    }

    fn do_it(&mut self, command: &Command, family: &str, rest: &str) -> Answer {
        let arguments = command.arguments(rest).map_err(|what| {
            let name = command.name();
            Failure::Said(format!(
                "{what}\nTry \"help {family}{name}\" for more information\n"
            ))
        })?;
        match command.run {
            words::Run::Qmp(name) => self.qmp(name, &arguments).map(|_| String::new()),
            words::Run::Here(run) => run(self, &arguments),
            words::Run::Help | words::Run::Info => Ok(String::new()),
        }
    }

    /// The result of a QMP command.
    fn qmp(&self, name: &str, arguments: &Value) -> Result<Value, Failure> {
        match qmp::find(name) {
            Some(command) => Ok(command(arguments, &self.machine)?),
            None => Err(unknown(name)),
        }
    }

    /// Whether the machine has ended: then nobody is asked for more.
    fn ended(&self) -> bool {
        use crossbeam_channel::TryRecvError::Disconnected;
        self.machine.events().try_recv() == Err(Disconnected)
    }
}

const TOO_LONG: &str = "the line is too long\r\n";

/// What could not be done.
fn error(why: impl ToString) -> Failure {
    Failure::Said(format!("Error: {}\n", why.to_string()))
}

/// A member of an object; none is an empty text.
fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

fn unknown(name: &str) -> Failure {
    Failure::Said(format!("unknown command: '{name}'\n"))
}

/// `help`, `help COMMAND` and `help info WHAT`.
fn help(rest: &str) -> Answer {
    let mut names = rest.split_whitespace();
    let all = |family: &str, commands: &[Command]| {
        let lines = commands.iter().map(|c| format!("{family}{}\n", c.help()));
        lines.collect::<String>()
    };
    let one = |family: &str, commands: &[Command], name: &str| {
        let found = Command::find(commands, name).map(|c| format!("{family}{}\n", c.help()));
        found.ok_or_else(|| unknown(&format!("{family}{name}")))
    };
    match (names.next(), names.next()) {
        (None, _) => Ok(all("", commands::COMMANDS)),
        (Some("info"), None) => Ok(all("info ", info::COMMANDS)),
        (Some("info"), Some(name)) => one("info ", info::COMMANDS, name),
        (Some(name), _) => one("", commands::COMMANDS, name),
    }
}

/// A conversation with somebody at a keyboard, or with a program that writes lines.
pub struct Session {
    monitor: Monitor,
    editor: Editor,
}

impl Session {
    /// `echo`: the other end shows what is typed only if it is sent back.
    pub fn new(machine: &Handle, echo: bool) -> Session {
        Session {
            monitor: Monitor::new(machine),
            editor: Editor::new(echo),
        }
    }

    /// What is shown first.
    pub fn greeting(&self) -> Vec<u8> {
        let (major, minor, micro) = crate::help::QEMU_VERSION;
        format!(
            "QEMU {major}.{minor}.{micro} monitor - type 'help' for more information\r\n{PROMPT}"
        )
        .into()
    }

    /// What is shown when the keyboard comes back to the monitor; a line that was begun is forgotten.
    pub fn again(&mut self) -> Vec<u8> {
        self.editor.forget();
        format!("\r\n{PROMPT}").into()
    }

    /// Takes what was typed; what is to be shown for it.
    pub fn typed(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut shown = Vec::new();
        for byte in bytes {
            let answer = match self.editor.feed(*byte, &mut shown) {
                Line::Begun => continue,
                Line::Whole(line) => self.monitor.execute(&line),
                Line::TooLong => TOO_LONG.into(),
            };
            shown.extend_from_slice(answer.as_bytes());
            if self.monitor.ended() {
                break;
            }
            shown.extend_from_slice(PROMPT.as_bytes());
        }
        shown
    }
}
