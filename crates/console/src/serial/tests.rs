//! Ports against the other ends of files, sockets and terminals.

use super::*;
use device::serial::{SerialInput, SerialOutput};
use parking_lot::Mutex;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;

type Callback = Box<dyn Fn() + Send + Sync>;

/// A UART with room for four bytes.
#[derive(Default)]
struct Uart {
    fifo: Mutex<Vec<u8>>,
    callback: Mutex<Option<Callback>>,
}

impl SerialInput for Uart {
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut fifo = self.fifo.lock();
        let count = bytes.len().min(4 - fifo.len());
        fifo.extend_from_slice(&bytes[..count]);
        count
    }

    fn on_room(&self, callback: Callback) {
        *self.callback.lock() = Some(callback);
    }
}

impl Uart {
    /// Reads like a guest, until `count` bytes have come.
    fn read(&self, count: usize) -> Vec<u8> {
        let until = Instant::now() + Duration::from_secs(20);
        let mut all = Vec::new();
        while all.len() < count && Instant::now() < until {
            let taken = std::mem::take(&mut *self.fifo.lock());
            if taken.is_empty() {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            all.extend(taken);
            if let Some(callback) = &*self.callback.lock() {
                callback();
            }
        }
        all
    }
}

fn open(spec: &str) -> Arc<SerialPort> {
    SerialPort::open(&SerialSpec::parse(spec).unwrap(), Hooks::default())
        .unwrap()
        .unwrap()
}

fn exchange(port: &SerialPort, uart: &Uart, peer: &mut (impl Read + Write)) {
    // First this way: what the guest says sooner may still go to the peer before.
    peer.write_all(b"to the guest, in small pieces").unwrap();
    assert_eq!(uart.read(29), b"to the guest, in small pieces");
    port.write(b"from the guest");
    let mut back = [0; 14];
    peer.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"from the guest");
}

#[test]
fn file() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log");
    let spec = format!("file:{}", path.display());
    for text in ["first", "second"] {
        let port = open(&spec);
        port.write(text.as_bytes());
        drop(port);
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            text,
            "what was written is there when the port is closed"
        );
    }
    open(&format!("{spec},append=on")).write(b"!");
    assert_eq!(fs::read_to_string(&path).unwrap(), "second!");
    let spec = SerialSpec::parse("file:/nonexistent/log").unwrap();
    let error = SerialPort::open(&spec, Hooks::default())
        .err()
        .unwrap()
        .to_string();
    assert!(
        error.starts_with("serial file '/nonexistent/log': No such file"),
        "{error}"
    );
}

#[test]
fn null_and_none() {
    let port = open("null");
    port.write(&vec![0; 3 << 20]);
    assert_eq!(port.dropped(), 0);
    assert!(
        SerialPort::open(&SerialSpec::None, Hooks::default())
            .unwrap()
            .is_none()
    );
    let missing = SerialSpec::parse("chardev:nobody").unwrap();
    assert!(SerialPort::open(&missing, Hooks::default()).is_err());
}

fn unix_server(path: &Path) -> Arc<SerialPort> {
    open(&format!("unix:{},server=on,wait=off", path.display()))
}

#[test]
fn unix_server_takes_one_client_after_the_other() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("serial");
    let port = unix_server(&path);
    let uart = Arc::new(Uart::default());
    port.connect(uart.clone());
    port.write(b"early ");
    for round in 0..5 {
        let mut peer = UnixStream::connect(&path).unwrap();
        peer.set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        if round == 0 {
            let mut early = [0; 6];
            peer.read_exact(&mut early).unwrap();
            assert_eq!(&early, b"early ", "what came before the client is kept");
        }
        exchange(&port, &uart, &mut peer);
    }
    // Reset the machine's side: a client sees the end, and the socket is gone.
    let mut peer = UnixStream::connect(&path).unwrap();
    exchange(&port, &uart, &mut peer);
    drop(port);
    assert_eq!(peer.read(&mut [0]).unwrap(), 0);
    assert!(!path.exists());
}

#[test]
fn tcp_server_and_client() {
    let server = open("tcp:127.0.0.1:0,server=on,wait=off");
    let address = server.address().unwrap();
    assert!(address.ip().is_loopback());
    let uart = Arc::new(Uart::default());
    server.connect(uart.clone());
    let mut peer = TcpStream::connect(address).unwrap();
    exchange(&server, &uart, &mut peer);

    drop(peer);
    let client = open(&format!("tcp:127.0.0.1:{}", address.port()));
    let other = Arc::new(Uart::default());
    client.connect(other.clone());
    client.write(b"ping");
    assert_eq!(uart.read(4), b"ping");
    server.write(b"pong");
    assert_eq!(other.read(4), b"pong");
}

#[test]
fn output_without_a_reader_is_bounded_and_never_waits() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("serial");
    let port = unix_server(&path);
    let start = Instant::now();
    for n in 0..4096u32 {
        port.write(&n.to_le_bytes().repeat(256));
    }
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(port.dropped(), 3 << 20);
    let mut peer = UnixStream::connect(&path).unwrap();
    let mut first = [0; 4];
    peer.read_exact(&mut first).unwrap();
    assert_eq!(u32::from_le_bytes(first), 3072, "the oldest was dropped");
}

#[test]
fn a_client_that_connects_and_never_reads() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("serial");
    let port = unix_server(&path);
    let peer = UnixStream::connect(&path).unwrap();
    for _ in 0..4096 {
        port.write(&[7; 1024]);
    }
    let start = Instant::now();
    drop(port);
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "the end does not wait for it"
    );
    drop(peer);
}

#[test]
fn a_server_may_wait() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("serial");
    let spec = format!("unix:{},server=on", path.display());
    let opening = std::thread::spawn(move || open(&spec));
    let mut peer = loop {
        match UnixStream::connect(&path) {
            Ok(peer) => break peer,
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    };
    let port = opening.join().unwrap();
    let uart = Arc::new(Uart::default());
    port.connect(uart.clone());
    exchange(&port, &uart, &mut peer);
}

#[test]
fn pty() {
    let port = open("pty");
    let uart = Arc::new(Uart::default());
    port.connect(uart.clone());
    let name = port.location().unwrap();
    for _ in 0..3 {
        let mut peer = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(name)
            .unwrap();
        exchange(&port, &uart, &mut peer);
        // Control characters pass: it is raw.
        peer.write_all(b"\x03\x04\x11\r\n").unwrap();
        assert_eq!(uart.read(5), b"\x03\x04\x11\r\n");
    }
}

#[test]
fn a_terminal_is_put_right() {
    use rustix::termios::{LocalModes, tcgetattr};
    // A pseudo terminal stands for the user's.
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let near = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&near).unwrap();
    unlockpt(&near).unwrap();
    let name = ptsname(&near, Vec::new()).unwrap();
    let terminal = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(name.to_str().unwrap())
        .unwrap();
    let cooked = || {
        tcgetattr(&terminal)
            .unwrap()
            .local_modes
            .contains(LocalModes::ICANON | LocalModes::ECHO)
    };
    assert!(cooked());
    let raw = RawTerminal::new(&terminal, false).unwrap().unwrap();
    assert!(!cooked());
    assert!(
        !tcgetattr(&terminal)
            .unwrap()
            .local_modes
            .contains(LocalModes::ISIG)
    );
    assert!(RawTerminal::new(&terminal, false).is_err(), "one at a time");
    drop(raw);
    assert!(cooked());

    let raw = RawTerminal::new(&terminal, true).unwrap().unwrap();
    assert!(
        tcgetattr(&terminal)
            .unwrap()
            .local_modes
            .contains(LocalModes::ISIG)
    );
    let result = std::thread::spawn(|| panic!("a panic, on purpose")).join();
    assert!(result.is_err() && cooked());
    drop(raw);

    let file = tempfile::tempfile().unwrap();
    assert!(
        RawTerminal::new(&file, false).unwrap().is_none(),
        "no terminal, nothing to do"
    );
}
