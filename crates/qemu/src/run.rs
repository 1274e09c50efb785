//! Builds and runs what a command line asks for.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use console::serial::{Hooks, SerialPort, SerialSpec, restore_terminal};
use console::vnc::{VncOptions, VncServer};
use console::web::WebServer;
use console::{Controls, RemovableDrive};
use device::serial::SerialOutput;
use firmware::images::{Host, Wanted};
use machine::control::{Cause, Handle, RunState};
use machine::description::Description;
use machine::{Board, BuildError, DriveEntry, Machine};

use crate::Error;
use crate::command_line::{CommandLine, Displays};
use crate::monitor::Place;
use crate::monitor::mux::Mux;
use crate::monitor::terminal::Terminal;
use crate::servers::{self, Address, Protocol};
use crate::window::Window;

/// Nobody listens to the UART.
struct Silence;

impl SerialOutput for Silence {
    fn write(&self, _: &[u8]) {}
}

fn failed(error: impl ToString) -> Error {
    Error::new(error.to_string())
}

/// The board, or what is wrong with which option.
fn build(line: &CommandLine, serial: Arc<dyn SerialOutput>) -> Result<Board, Error> {
    Board::build(&line.machine, serial).map_err(|error| {
        let option = match &error {
            BuildError::Image { drive: name, .. } | BuildError::Node { node: name, .. } => {
                line.drive_options.iter().find(|(id, _)| id == name)
            }
            _ => None,
        };
        match option {
            Some((_, text)) => failed(error).of(text),
            None => failed(error),
        }
    })
}

/// `-machine dumpdtb=FILE`.
pub fn dump_device_tree(mut line: CommandLine, path: &Path) -> Result<(), Error> {
    // The tree of a machine that nothing starts on is as good.
    if line.machine.kernel.is_some() && line.machine.bios.is_none() {
        find_firmware(&mut line.machine)?;
    }
    let board = build(&line, Arc::new(Silence))?;
    std::fs::write(path, board.device_tree()).map_err(|e| {
        Error::new(format!(
            "Failed to save dtb to {}: {}",
            path.display(),
            crate::reason(&e)
        ))
    })
}

/// Runs a machine until its end. `program` is the name it was called by, for messages.
pub fn run(program: &str, mut line: CommandLine) -> Result<(), Error> {
    if line.machine.kernel.is_none() {
        find_firmware(&mut line.machine)?;
    }
    let mut control = control(&line)?;
    let _pidfile = line.pidfile.as_deref().map(Pidfile::write).transpose()?;
    // Filled once the machine runs: keys of a multiplexed terminal end it.
    let running: Arc<OnceLock<Handle>> = Arc::default();
    let port = serial(&line.machine, &running)?;
    let terminal = match line.monitors.contains(&Place::Stdio) {
        true => Some(Terminal::claim().map_err(|e| failed(e).of("-monitor stdio"))?),
        false => None,
    };
    let output: Arc<dyn SerialOutput> = match &port {
        Some(port) => port.clone(),
        None => Arc::new(Silence),
    };
    let board = build(&line, output)?;
    for text in line.warnings.iter().chain(&board.notices()) {
        eprintln!("{program}: warning: {text}");
    }
    // First of all, as without a display nothing is to start.
    let window = window(&line.displays)?;
    let buttons = Arc::new(Buttons {
        name: line.machine.name.clone(),
        running: running.clone(),
    });
    let fallback = !line.displays.chosen && window.is_none();
    let _servers = screens(&board, &line.displays, &line.secrets, &buttons, fallback)?;
    let input = board.serial_input();
    control.wait().map_err(failed)?;
    let machine = Machine::start(board).map_err(failed)?;
    let handle = machine.handle();
    let _ = running.set(handle.clone());
    if let Some(port) = &port {
        port.connect(input);
        if let Some(place) = port.location() {
            println!("char device redirected to {place} (label serial0)");
        }
    }
    end_on_signals(&handle)?;
    control.serve(&handle).map_err(failed)?;
    if let Some(terminal) = &terminal {
        terminal.serve(&handle).map_err(failed)?;
    }
    let cause = match window {
        Some(window) => window.wait(machine, buttons)?,
        None => machine.wait(),
    };
    control.finish();
    if let Some(port) = &port {
        port.finish();
    }
    restore_terminal();
    tracing::info!("the machine ended: {}", cause.name());
    match cause {
        Cause::HostError => Err(Error::new(
            "the machine ended because of an error of the host",
        )),
        _ => Ok(()),
    }
}

/// A machine with nothing to start gets the firmware that the distribution installs.
fn find_firmware(machine: &mut Description) -> Result<(), Error> {
    if machine.bios.is_some() || machine.pflash[0].is_some() {
        return Ok(());
    }
    let found = Host::this().find(Wanted::default()).map_err(failed)?;
    tracing::info!("firmware: {}", found.code.path.display());
    machine.bios = Some(found.code.path);
    Ok(())
}

/// Opens the sockets of `-qmp` and `-monitor`.
fn control(line: &CommandLine) -> Result<servers::Servers, Error> {
    let mut servers = servers::Servers::default();
    for (text, pretty) in &line.qmp {
        let address = Address::parse(text).map_err(failed)?;
        servers
            .open(address, Protocol::Qmp { pretty: *pretty })
            .map_err(|e| Error::new(crate::reason(&e)).of(&format!("-qmp {text}")))?;
    }
    for place in &line.monitors {
        if let Place::Socket(address) = place {
            servers
                .open(address.clone(), Protocol::Monitor)
                .map_err(|e| Error::new(crate::reason(&e)).of(&format!("-monitor {address}")))?;
        }
    }
    Ok(servers)
}

fn serial(
    machine: &Description,
    running: &Arc<OnceLock<Handle>>,
) -> Result<Option<Arc<SerialPort>>, Error> {
    let Some(text) = &machine.serial else {
        return Ok(None);
    };
    let spec = SerialSpec::parse(text).map_err(failed)?;
    let monitor = Mux::new(running.clone());
    let running = running.clone();
    let hooks = Hooks {
        quit: Box::new(move || match running.get() {
            // The port's thread is not the machine's: it may wait for the end.
            Some(handle) => drop(handle.quit(Cause::HostUi)),
            None => {
                restore_terminal();
                std::process::exit(0);
            }
        }),
        monitor: Some(Box::new(monitor)),
    };
    SerialPort::open(&spec, hooks)
        .map_err(|e| Error::new(e.to_string()).of(&format!("-serial {text}")))
}

/// The window asked for; without any display asked for, one if this host has a display.
fn window(displays: &Displays) -> Result<Option<Window>, Error> {
    match &displays.window {
        Some((option, text)) => Window::new(text).map(Some).map_err(|e| e.of(option)),
        None if !displays.chosen && crate::window::likely() => {
            let window = Window::new("");
            if let Err(error) = &window {
                tracing::info!("no window: {error}");
            }
            Ok(window.ok())
        }
        None => Ok(None),
    }
}

/// The machine, for consoles that have buttons for it. Before it runs they do nothing.
struct Buttons {
    name: Option<String>,
    running: Arc<OnceLock<Handle>>,
}

impl Buttons {
    /// What a button can be too late for is no error.
    fn press(&self, what: impl FnOnce(&Handle)) {
        if let Some(handle) = self.running.get() {
            what(handle);
        }
    }

    /// Does something with the drive of that id; or with the first of those whose discs can be changed, those that are wanted
    /// before the others: its name.
    fn with_drive<E: ToString>(
        &self,
        id: Option<&str>,
        wanted: impl Fn(&DriveEntry) -> bool,
        others: bool,
        what: impl FnOnce(&DriveEntry) -> Result<(), E>,
    ) -> Result<String, String> {
        let handle = self.running.get().ok_or("the machine does not run yet")?;
        let mut drives = handle.board().drives().iter().filter(|d| changeable(d));
        let drive = match id {
            Some(id) => drives.find(|drive| drive.holder == id),
            None => {
                let mut drives = drives.filter(|drive| drive.cdrom());
                let first = drives.clone().next().filter(|_| others);
                drives.find(|drive| wanted(drive)).or(first)
            }
        };
        let drive = drive.ok_or("there is no disc in a drive, or no drive")?;
        what(drive).map_err(|error| error.to_string())?;
        Ok(drive.name().into())
    }
}

/// Whether media can be changed in it.
fn changeable(drive: &DriveEntry) -> bool {
    drive.removable && drive.tray_open().is_some()
}

impl Controls for Buttons {
    fn name(&self) -> String {
        self.name.clone().unwrap_or_else(|| "Dormer".into())
    }

    fn state(&self) -> &'static str {
        match self.running.get() {
            Some(handle) => handle.state().name(),
            None => RunState::Prelaunch.name(),
        }
    }

    fn power_button(&self) {
        self.press(Handle::power_button);
    }

    fn reset(&self) {
        self.press(|handle| drop(handle.reset(Cause::HostUi)));
    }

    fn pause(&self) {
        self.press(|handle| drop(handle.stop()));
    }

    fn resume(&self) {
        self.press(|handle| drop(handle.resume()));
    }

    fn quit(&self) {
        self.press(|handle| drop(handle.quit(Cause::HostUi)));
    }

    fn removable_drives(&self) -> Vec<RemovableDrive> {
        let Some(handle) = self.running.get() else {
            return Vec::new();
        };
        let drives = handle.board().drives().iter().filter(|d| changeable(d));
        drives
            .map(|drive| RemovableDrive {
                id: drive.holder.clone(),
                name: drive.name().into(),
                medium: drive.image().map(|image| image.file),
                open: drive.tray_open() == Some(true),
                locked: drive.locked(),
            })
            .collect()
    }

    fn eject(&self, drive: Option<&str>) -> Result<String, String> {
        let full = |drive: &DriveEntry| drive.image().is_some();
        self.with_drive(drive, full, false, |drive| drive.eject(false))
    }

    fn insert(&self, drive: Option<&str>, image: &Path) -> Result<String, String> {
        let empty = |drive: &DriveEntry| drive.image().is_none();
        // Its bytes as they are: what was downloaded is not to name other files of this host as its own.
        let format = Some(storage::Format::Raw);
        self.with_drive(drive, empty, true, |drive| {
            drive.change_medium(image, format, Some(true), false)
        })
    }
}

/// What shows the screen. Each ends when it is dropped.
#[derive(Default)]
struct Servers {
    vnc: Vec<VncServer>,
    web: Vec<WebServer>,
}

/// Starts the servers asked for; as a `fallback`, VNC on the first free port of this host.
fn screens(
    board: &Board,
    displays: &Displays,
    secrets: &[(String, String)],
    buttons: &Arc<Buttons>,
    fallback: bool,
) -> Result<Servers, Error> {
    let mut servers = Servers::default();
    let mut start = |mut options: VncOptions, option: &str| {
        options.name = buttons.name();
        let password = match &options.secret {
            Some(id) => {
                let found = secrets.iter().find(|secret| secret.0 == *id);
                let missing = || Error::new(format!("No secret with id '{id}'")).of(option);
                Some(found.ok_or_else(missing)?.1.as_str())
            }
            None => None,
        };
        let server = VncServer::start(board.display().clone(), &options)
            .map_err(|e| failed(e).of(option))?;
        if password.is_some() {
            server.set_password(password);
        }
        println!("VNC server running on {}", server.location());
        servers.vnc.push(server);
        Ok::<_, Error>(())
    };
    if fallback {
        start(VncOptions::local(), "-display vnc")?;
    }
    for text in &displays.vnc {
        if let Some(options) = VncOptions::parse(text).map_err(failed)? {
            start(options, &format!("-vnc {text}"))?;
        }
    }
    for (option, options) in &displays.web {
        let server = WebServer::start(board.display().clone(), buttons.clone(), options)
            .map_err(|e| failed(e).of(option))?;
        println!("Web console at {}", server.url());
        if !server.address().ip().is_loopback() {
            eprintln!(
                "warning: {option}: the web console is not encrypted, and open to the network for those who know its address"
            );
        }
        servers.web.push(server);
    }
    let _ = std::io::stdout().flush();
    Ok(servers)
}

/// Ends the machine in order on SIGINT, SIGTERM and SIGHUP.
fn end_on_signals(handle: &Handle) -> Result<(), Error> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    let mut signals =
        signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP]).map_err(failed)?;
    let handle = handle.clone();
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            for _ in signals.forever() {
                let _ = handle.quit(Cause::HostSignal);
            }
        })
        .map(drop)
        .map_err(failed)
}

/// A file with our process number, removed at the end.
struct Pidfile<'a>(&'a Path);

impl Pidfile<'_> {
    fn write(path: &Path) -> Result<Pidfile<'_>, Error> {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)
            .and_then(|mut file| writeln!(file, "{}", std::process::id()))
            .map_err(|e| {
                Error::new(format!("cannot create PID file: {}", crate::reason(&e)))
                    .of(&format!("-pidfile {}", path.display()))
            })?;
        Ok(Pidfile(path))
    }
}

impl Drop for Pidfile<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.0);
    }
}
