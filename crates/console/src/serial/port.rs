//! An open back end: buffers, threads and who is at the other end.

use super::escape::{Escape, HELP, Typed};
use super::options::SerialSpec;
use super::terminal::{self, RawTerminal};
use crate::server::{end_signal, remove_dead_socket, wait_for_connection};
use crate::stream::{Listener, Stream};
use device::serial::{SerialInput, SerialOutput};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::time::{Duration, Instant};

/// What the guest has sent and nobody has taken: beyond this, the oldest is dropped.
const BUFFER: usize = 1 << 20;

/// How long the end of a port waits for some of its last bytes to go out.
const LAST_BYTES: Duration = Duration::from_millis(500);

/// A back end that does not open.
#[derive(Debug, thiserror::Error)]
pub enum OpenPortError {
    #[error("serial {what}: {error}")]
    Io { what: String, error: io::Error },
    #[error("chardev '{0}' not found")]
    Chardev(String),
}

/// What was typed and the guest has not taken: pieces, most of them a key. Beyond it the keyboard waits.
const TYPED: usize = 4096;

/// What keys of a multiplexed terminal do. They are called on the port's own thread.
pub struct Hooks {
    /// Ctrl-A x.
    pub quit: Box<dyn Fn() + Send + Sync>,
    /// Ctrl-A c; `None` where there is no monitor, which the user is then told.
    pub monitor: Option<Box<dyn OtherSide>>,
}

/// What the keyboard of a multiplexed terminal belongs to after Ctrl-A c, until the next. What the guest sends is shown all
/// the same. The port's own thread calls it, and nothing else is typed meanwhile.
pub trait OtherSide: Send {
    /// It has the keyboard now: what is to be shown.
    fn enter(&mut self) -> Vec<u8>;

    /// Takes what was typed: what is to be shown.
    fn typed(&mut self, bytes: &[u8]) -> Vec<u8>;
}

impl Default for Hooks {
    /// Ctrl-A x ends the process, and nothing else is there.
    fn default() -> Hooks {
        let quit = || {
            terminal::restore_terminal();
            std::process::exit(0);
        };
        Hooks {
            quit: Box::new(quit),
            monitor: None,
        }
    }
}

/// The far side of a UART.
pub struct SerialPort {
    shared: Arc<Shared>,
    /// Ends the accepting thread when dropped.
    wake: Option<OwnedFd>,
    terminal: Option<RawTerminal>,
    /// Where the other end is: a pseudo terminal's name, a socket's address.
    location: Option<String>,
    socket: Option<PathBuf>,
    address: Option<SocketAddr>,
    /// The far side of a pseudo terminal, without which reading the near side fails while nobody is there.
    _far: Option<File>,
}

struct Shared {
    output: Mutex<Output>,
    /// Output has come, has gone, or the end has.
    moved: Condvar,
    input: Mutex<Input>,
    /// The UART has room, has come, or the end has.
    room: Condvar,
}

#[derive(Default)]
struct Output {
    bytes: VecDeque<u8>,
    /// The thread that takes the bytes, by number; 0: nobody, and they wait, up to the bound.
    writer: u64,
    writers: u64,
    writing: bool,
    /// The connection that there is.
    stream: Option<Stream>,
    ended: bool,
    dropped: u64,
}

#[derive(Default)]
struct Input {
    uart: Option<Arc<dyn SerialInput>>,
    /// Counts calls of the UART's `on_room`.
    room: u64,
    ended: bool,
}

type Peer = (Box<dyn Read + Send>, Box<dyn Write + Send>);

impl SerialPort {
    /// Opens a back end. A server with `wait` waits here for its first connection. `None` is for no port at all.
    pub fn open(spec: &SerialSpec, hooks: Hooks) -> Result<Option<Arc<SerialPort>>, OpenPortError> {
        let shared = Arc::new(Shared {
            output: Mutex::default(),
            moved: Condvar::new(),
            input: Mutex::default(),
            room: Condvar::new(),
        });
        let mut port = SerialPort {
            shared,
            wake: None,
            terminal: None,
            location: None,
            socket: None,
            address: None,
            _far: None,
        };
        let what = format!("{spec:?}");
        let opened = match spec {
            SerialSpec::None => return Ok(None),
            SerialSpec::Chardev(id) => return Err(OpenPortError::Chardev(id.clone())),
            SerialSpec::Null => {
                port.shared.discard();
                Ok(())
            }
            SerialSpec::Stdio { mux, signal } => port.open_stdio(*mux, *signal, hooks),
            SerialSpec::File { path, append } => port.open_file(path, *append),
            SerialSpec::Pty => port.open_pty(),
            SerialSpec::Unix {
                path,
                server: false,
                ..
            } => UnixStream::connect(path)
                .and_then(|stream| port.shared.attach_stream(Stream::Unix(stream))),
            SerialSpec::Tcp {
                host,
                port: number,
                server: false,
                ..
            } => TcpStream::connect((or_loopback(host), *number)).and_then(|stream| {
                stream.set_nodelay(true)?;
                port.shared.attach_stream(Stream::Tcp(stream))
            }),
            SerialSpec::Unix {
                path,
                server: true,
                wait,
            } => {
                remove_dead_socket(path);
                UnixListener::bind(path).and_then(|listener| {
                    port.socket = Some(path.clone());
                    port.location = Some(format!("unix:{}", path.display()));
                    port.serve(Listener::Unix(listener), *wait)
                })
            }
            SerialSpec::Tcp {
                host,
                port: number,
                server: true,
                wait,
            } => TcpListener::bind((or_loopback(host), *number)).and_then(|listener| {
                let address = listener.local_addr()?;
                port.address = Some(address);
                port.location = Some(format!("tcp:{address}"));
                port.serve(Listener::Tcp(listener), *wait)
            }),
        };
        opened.map_err(|error| OpenPortError::Io {
            what: name(spec).unwrap_or(what),
            error,
        })?;
        Ok(Some(Arc::new(port)))
    }

    /// Gives what is typed to `uart` from now on.
    pub fn connect(&self, uart: Arc<dyn SerialInput>) {
        let weak = Arc::downgrade(&self.shared);
        uart.on_room(Box::new(move || {
            if let Some(shared) = weak.upgrade() {
                shared.input.lock().room += 1;
                shared.room.notify_all();
            }
        }));
        self.shared.input.lock().uart = Some(uart);
        self.shared.room.notify_all();
    }

    /// What users have to know to reach the other end: a pseudo terminal's name, a socket's address.
    pub fn location(&self) -> Option<&str> {
        self.location.as_deref()
    }

    /// A TCP server's address: port 0 in the specification takes any.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Waits until what the guest has sent is out; half a second at most in which nobody takes any. A port that others still
    /// hold at the end of the process is not dropped.
    pub fn finish(&self) {
        self.shared.finish();
    }

    /// Bytes that were dropped because nobody took them.
    pub fn dropped(&self) -> u64 {
        self.shared.output.lock().dropped
    }

    fn open_stdio(&mut self, mux: bool, signal: bool, hooks: Hooks) -> io::Result<()> {
        self.terminal = RawTerminal::new(rustix::stdio::stdin(), signal)?;
        // Not the locked, buffered ones: raw bytes, as they come.
        let input = File::from(rustix::stdio::stdin().try_clone_to_owned()?);
        let output = File::from(rustix::stdio::stdout().try_clone_to_owned()?);
        self.shared.start_writer(Box::new(output))?;
        let shared = self.shared.clone();
        if !mux {
            return shared.clone().spawn("serial input", move || {
                shared.read_all(Box::new(input), Shared::feed);
            });
        }
        // A guest that takes nothing, as one that is stopped, is not to be in the way of the keys that are not its own.
        let (guest, typed) = sync_channel::<Vec<u8>>(TYPED);
        let feeding = shared.clone();
        shared.clone().spawn("serial feed", move || {
            while typed.recv().is_ok_and(|bytes| feeding.feed(&bytes)) {}
        })?;
        let mut terminal = Multiplexer {
            escape: Escape::default(),
            hooks,
            guest,
            other_side: false,
        };
        shared.clone().spawn("serial input", move || {
            shared.read_all(Box::new(input), |shared, bytes| {
                terminal.take(shared, bytes)
            });
        })
    }

    fn open_file(&mut self, path: &PathBuf, append: bool) -> io::Result<()> {
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .append(append)
            .truncate(!append)
            .open(path)?;
        self.shared.start_writer(Box::new(file))?;
        Ok(())
    }

    fn open_pty(&mut self) -> io::Result<()> {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY)?;
        rustix::io::fcntl_setfd(&near, rustix::io::FdFlags::CLOEXEC)?;
        grantpt(&near)?;
        unlockpt(&near)?;
        let name = ptsname(&near, Vec::new())?;
        let name = name.to_str().map_err(io::Error::other)?.to_string();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, libc::O_NOCTTY);
        let far = options.open(&name)?;
        terminal::make_raw(&far)?;
        self._far = Some(far);
        self.location = Some(name);
        let near = File::from(near);
        let reader = near.try_clone()?;
        self.shared.start_writer(Box::new(near))?;
        let shared = self.shared.clone();
        self.shared.clone().spawn("serial input", move || {
            shared.read_all(Box::new(reader), Shared::feed)
        })
    }

    /// Takes one connection after the other.
    fn serve(&mut self, listener: Listener, wait: bool) -> io::Result<()> {
        if wait {
            tracing::warn!(
                "waiting for a connection to {}",
                self.location.as_deref().unwrap_or("a serial line")
            );
            let stream = listener.accept()?;
            self.shared.attach_stream(stream)?;
        }
        let (ended, wake) = end_signal()?;
        listener.set_nonblocking(true)?;
        self.wake = Some(wake);
        let shared = self.shared.clone();
        self.shared.clone().spawn("serial socket", move || {
            while shared.wait_until_free() && wait_for_connection(&listener, &ended) {
                match listener.accept() {
                    Ok(stream) => {
                        if let Err(error) = stream
                            .set_nonblocking(false)
                            .and_then(|()| shared.attach_stream(stream))
                        {
                            tracing::debug!(%error, "a serial line's connection");
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) => {
                        tracing::debug!(%error, "accept");
                        std::thread::sleep(Duration::from_millis(50));
                    }
                }
            }
        })
    }
}

/// A terminal that is the guest's and the monitor's, in turn.
struct Multiplexer {
    escape: Escape,
    hooks: Hooks,
    guest: SyncSender<Vec<u8>>,
    /// The monitor has the keyboard.
    other_side: bool,
}

impl Multiplexer {
    /// Takes what was typed. False once the port has ended.
    fn take(&mut self, shared: &Shared, bytes: &[u8]) -> bool {
        // What has the same receiver goes there in one piece.
        let mut together = Vec::new();
        for byte in bytes {
            match self.escape.feed(*byte) {
                Typed::Here(byte) => together.push(byte),
                Typed::Nothing => {}
                command => {
                    if !self.pass(shared, std::mem::take(&mut together)) {
                        return false;
                    }
                    self.command(shared, command);
                }
            }
        }
        self.pass(shared, together)
    }

    fn pass(&mut self, shared: &Shared, bytes: Vec<u8>) -> bool {
        match &mut self.hooks.monitor {
            _ if bytes.is_empty() => true,
            Some(monitor) if self.other_side => {
                shared.print(&monitor.typed(&bytes));
                true
            }
            _ => self.guest.send(bytes).is_ok(),
        }
    }

    fn command(&mut self, shared: &Shared, command: Typed) {
        match command {
            Typed::Help => shared.print(HELP.as_bytes()),
            Typed::Quit => (self.hooks.quit)(),
            Typed::Break => shared.send_break(),
            Typed::Monitor => match &mut self.hooks.monitor {
                Some(monitor) => {
                    self.other_side = !self.other_side;
                    if self.other_side {
                        shared.print(&monitor.enter());
                    }
                }
                None => shared.print(b"\r\nthere is no monitor on this terminal\r\n"),
            },
            Typed::Here(_) | Typed::Nothing => {}
        }
    }
}

fn or_loopback(host: &str) -> &str {
    if host.is_empty() { "127.0.0.1" } else { host }
}

/// A back end in an error message.
fn name(spec: &SerialSpec) -> Option<String> {
    match spec {
        SerialSpec::File { path, .. } => Some(format!("file '{}'", path.display())),
        SerialSpec::Unix { path, .. } => Some(format!("socket '{}'", path.display())),
        SerialSpec::Tcp { host, port, .. } => Some(format!("socket '{host}:{port}'")),
        SerialSpec::Stdio { .. } => Some("stdio".into()),
        SerialSpec::Pty => Some("pty".into()),
        _ => None,
    }
}

impl SerialOutput for SerialPort {
    fn write(&self, bytes: &[u8]) {
        self.shared.print(bytes);
    }
}

impl Drop for SerialPort {
    fn drop(&mut self) {
        self.finish();
        {
            let mut output = self.shared.output.lock();
            output.ended = true;
            if let Some(stream) = output.stream.take() {
                stream.shut_down();
            }
        }
        self.shared.input.lock().ended = true;
        self.shared.moved.notify_all();
        self.shared.room.notify_all();
        drop(self.wake.take());
        if let Some(path) = &self.socket {
            let _ = std::fs::remove_file(path);
        }
        drop(self.terminal.take());
    }
}

impl Shared {
    fn spawn(self: Arc<Self>, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        std::thread::Builder::new()
            .name(name.into())
            .spawn(work)
            .map(|_| ())
    }

    fn finish(&self) {
        let mut output = self.output.lock();
        let mut left = usize::MAX;
        let mut until = Instant::now();
        while output.writer != 0 && (output.writing || !output.bytes.is_empty()) {
            if output.bytes.len() != left {
                left = output.bytes.len();
                until = Instant::now() + LAST_BYTES;
            }
            if self.moved.wait_until(&mut output, until).timed_out() {
                break;
            }
        }
    }

    /// Whatever is sent is gone.
    fn discard(&self) {
        self.output.lock().ended = true;
    }

    /// Puts bytes into the output, and drops the oldest beyond the bound.
    fn print(&self, bytes: &[u8]) {
        let mut output = self.output.lock();
        if output.ended {
            return;
        }
        let bytes = &bytes[bytes.len().saturating_sub(BUFFER)..];
        let excess = (output.bytes.len() + bytes.len()).saturating_sub(BUFFER);
        output.bytes.drain(..excess);
        output.dropped += excess as u64;
        output.bytes.extend(bytes);
        drop(output);
        self.moved.notify_all();
    }

    /// Gives bytes to the UART as it has room, waiting meanwhile. False once the port has ended.
    fn feed(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            let mut input = self.input.lock();
            let uart = loop {
                if input.ended {
                    return false;
                }
                match &input.uart {
                    Some(uart) => break uart.clone(),
                    None => self.room.wait(&mut input),
                }
            };
            let room = input.room;
            drop(input);
            // Without the lock: the UART may call `on_room` from inside.
            let taken = uart.receive(bytes).min(bytes.len());
            bytes = &bytes[taken..];
            if !bytes.is_empty() {
                let mut input = self.input.lock();
                while input.room == room && !input.ended {
                    self.room.wait(&mut input);
                }
            }
        }
        true
    }

    /// Tells the UART of a break condition; one that has no room for it misses it.
    fn send_break(&self) {
        let uart = self.input.lock().uart.clone();
        if let Some(uart) = uart {
            uart.receive_break();
        }
    }

    /// Reads until the other end is gone, or `each` returns false.
    fn read_all(
        &self,
        mut from: Box<dyn Read + Send>,
        mut each: impl FnMut(&Shared, &[u8]) -> bool,
    ) {
        let mut buffer = [0; 4096];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if !each(self, &buffer[..count]) {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::debug!(%error, "serial input");
                    return;
                }
            }
        }
    }

    /// Starts the thread that takes the output, and returns its number.
    fn start_writer(self: &Arc<Self>, into: Box<dyn Write + Send>) -> io::Result<u64> {
        let number = {
            let mut output = self.output.lock();
            output.writers += 1;
            output.writer = output.writers;
            output.writers
        };
        let shared = self.clone();
        let spawned = self
            .clone()
            .spawn("serial output", move || shared.write_all(number, into));
        spawned.inspect_err(|_| self.end_writer(number))?;
        Ok(number)
    }

    /// The writer's other end is gone.
    fn end_writer(&self, number: u64) {
        let mut output = self.output.lock();
        if output.writer == number {
            output.writer = 0;
            output.stream = None;
        }
        drop(output);
        self.moved.notify_all();
    }

    /// Writes output until the port ends or the other end is gone.
    fn write_all(&self, number: u64, mut into: Box<dyn Write + Send>) {
        loop {
            let chunk: Vec<u8> = {
                let mut output = self.output.lock();
                while output.writer == number && output.bytes.is_empty() && !output.ended {
                    self.moved.wait(&mut output);
                }
                if output.writer != number || output.bytes.is_empty() {
                    break;
                }
                output.writing = true;
                let count = output.bytes.len().min(16 << 10);
                output.bytes.drain(..count).collect()
            };
            let result = into.write_all(&chunk).and_then(|()| into.flush());
            self.output.lock().writing = false;
            self.moved.notify_all();
            if let Err(error) = result {
                tracing::debug!(%error, "serial output");
                break;
            }
        }
        self.end_writer(number);
    }

    /// Serves a connection on threads of its own, until it ends.
    fn attach_stream(self: &Arc<Self>, stream: Stream) -> io::Result<()> {
        let peer: Peer = (Box::new(stream.try_clone()?), Box::new(stream.try_clone()?));
        let kept = stream.try_clone()?;
        let number = self.start_writer(peer.1)?;
        self.output.lock().stream = Some(kept);
        let shared = self.clone();
        self.clone().spawn("serial input", move || {
            shared.read_all(peer.0, Shared::feed);
            // The other end is gone: the writing side has to notice, and the next connection may come.
            stream.shut_down();
            shared.end_writer(number);
        })
    }

    /// Waits until no connection is there. False once the port has ended.
    fn wait_until_free(&self) -> bool {
        let mut output = self.output.lock();
        while (output.writer != 0 || output.writing) && !output.ended {
            self.moved.wait(&mut output);
        }
        !output.ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    /// Says what it gets.
    struct Other;

    impl OtherSide for Other {
        fn enter(&mut self) -> Vec<u8> {
            b"<in>".to_vec()
        }

        fn typed(&mut self, bytes: &[u8]) -> Vec<u8> {
            [b"<", bytes, b">"].concat()
        }
    }

    fn shared() -> Shared {
        Shared {
            output: Mutex::default(),
            moved: Condvar::new(),
            input: Mutex::default(),
            room: Condvar::new(),
        }
    }

    #[test]
    fn the_keyboard_changes_sides_whatever_the_guest_does() {
        let shared = shared();
        let ended = Arc::new(AtomicBool::new(false));
        let told = ended.clone();
        // Nobody takes what is typed for the guest: it waits.
        let (guest, typed) = sync_channel(TYPED);
        let mut terminal = Multiplexer {
            escape: Escape::default(),
            hooks: Hooks {
                quit: Box::new(move || told.store(true, Ordering::SeqCst)),
                monitor: Some(Box::new(Other)),
            },
            guest,
            other_side: false,
        };
        for _ in 0..40 {
            assert!(terminal.take(&shared, b"x"));
        }
        assert!(terminal.take(&shared, b"y\x01\x01z\x01cinfo\n\x01"));
        assert!(terminal.take(&shared, b"cback"));
        let guest: Vec<u8> = typed.try_iter().flatten().collect();
        assert_eq!(guest, [&[b'x'; 40][..], b"y\x01zback"].concat());
        let shown: Vec<u8> = shared.output.lock().bytes.iter().copied().collect();
        assert_eq!(shown, b"<in><info\n>");
        assert!(!ended.load(Ordering::SeqCst));
        assert!(terminal.take(&shared, b"\x01x"));
        assert!(ended.load(Ordering::SeqCst));
        // The port has ended.
        drop(typed);
        assert!(!terminal.take(&shared, b"x"));
    }

    /// Takes its time.
    struct Slow(Arc<Mutex<usize>>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            std::thread::sleep(LAST_BYTES / 4);
            *self.0.lock() += bytes.len();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_end_waits_for_as_long_as_bytes_are_taken() {
        let shared = Arc::new(shared());
        let taken = Arc::new(Mutex::new(0));
        shared.start_writer(Box::new(Slow(taken.clone()))).unwrap();
        shared.print(&[b'x'; 100_000]);
        shared.finish();
        assert_eq!(*taken.lock(), 100_000);
    }

    #[test]
    fn without_a_monitor_the_keyboard_stays() {
        let shared = shared();
        let (guest, typed) = sync_channel(TYPED);
        let mut terminal = Multiplexer {
            escape: Escape::default(),
            hooks: Hooks::default(),
            guest,
            other_side: false,
        };
        assert!(terminal.take(&shared, b"\x01ca"));
        assert_eq!(typed.try_recv().unwrap(), b"a");
        let shown: Vec<u8> = shared.output.lock().bytes.iter().copied().collect();
        assert!(shown.starts_with(b"\r\nthere is no monitor"));
    }
}
