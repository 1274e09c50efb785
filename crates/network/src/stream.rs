//! Another machine at the far end, over a socket: each frame behind its length, 32 bits in network order.
//!
//! This is what QEMU's `-netdev socket` and `-netdev stream` speak.

use std::collections::VecDeque;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use polling::{Events, Poller};
use rustix::io::Errno;

use crate::OpenError;
use crate::frame::{Accepts, Frame};
use crate::link::{Backend, BackendInfo, Link};
use crate::user::Watched;
use crate::waiter::Waiter;

/// Where the socket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    Inet(SocketAddr),
    Unix(PathBuf),
}

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub address: Address,
    /// Waits for the other machine; else connects to it.
    pub server: bool,
    /// A client tries again after so long if it has no connection; without it, once.
    pub reconnect: Option<Duration>,
}

/// Bytes of the largest frame taken from the other side (QEMU's limit).
const LARGEST: usize = 68 << 10;
/// Bytes for the other side that may wait.
const WAITING: usize = 256 << 10;
/// Keys of the poller.
const LISTENER: usize = 1;
const PEER: usize = 2;

/// A wire to another machine.
pub struct Stream {
    shared: Arc<Shared>,
}

struct Shared {
    inner: Mutex<Inner>,
    waiter: Waiter,
    /// A frame was refused for want of room.
    refused: AtomicBool,
    description: String,
}

struct Inner {
    config: Config,
    listener: Option<Watched<OwnedFd>>,
    peer: Option<Watched<OwnedFd>>,
    /// From the other side, not whole yet.
    incoming: Vec<u8>,
    /// To the other side.
    outgoing: VecDeque<u8>,
    /// The NIC had no room for the frame that `incoming` begins with.
    held: bool,
    retry: Option<Instant>,
}

impl Address {
    fn connect(&self) -> std::io::Result<OwnedFd> {
        let socket: OwnedFd = match self {
            Address::Inet(address) => {
                let stream = TcpStream::connect_timeout(address, Duration::from_secs(5))?;
                stream.set_nodelay(true)?;
                stream.into()
            }
            Address::Unix(path) => UnixStream::connect(path)?.into(),
        };
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(socket)
    }

    fn listen(&self) -> std::io::Result<OwnedFd> {
        let socket: OwnedFd = match self {
            Address::Inet(address) => TcpListener::bind(address)?.into(),
            Address::Unix(path) => {
                // What an earlier run left behind is nobody's.
                if UnixStream::connect(path).is_err() {
                    let _ = std::fs::remove_file(path);
                }
                UnixListener::bind(path)?.into()
            }
        };
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(socket)
    }

    fn name(&self) -> String {
        match self {
            Address::Inet(address) => address.to_string(),
            Address::Unix(path) => path.display().to_string(),
        }
    }
}

impl Stream {
    /// Listens, or connects (unless it may try again later).
    pub fn open(config: Config) -> Result<Stream, OpenError> {
        let waiter = Waiter::new()?;
        let name = config.address.name();
        let watch = |socket: OwnedFd, key| {
            let watched = Watched::new(waiter.poller(), socket, key);
            let mut watched = watched.map_err(OpenError::io("cannot wait for a socket"))?;
            watched.want(true, false);
            Ok::<_, OpenError>(watched)
        };
        let mut inner = Inner {
            config: config.clone(),
            listener: None,
            peer: None,
            incoming: Vec::new(),
            outgoing: VecDeque::new(),
            held: false,
            retry: None,
        };
        if config.server {
            let socket = config.address.listen();
            let socket = socket.map_err(OpenError::io(format!("can't bind to {name}")))?;
            inner.listener = Some(watch(socket, LISTENER)?);
        } else {
            match (config.address.connect(), config.reconnect) {
                (Ok(socket), _) => inner.peer = Some(watch(socket, PEER)?),
                (Err(_), Some(after)) => inner.retry = Some(Instant::now() + after),
                (Err(error), None) => {
                    return Err(OpenError::io(format!("can't connect to {name}"))(error));
                }
            }
        }
        let role = if config.server { "listening on" } else { "to" };
        Ok(Stream {
            shared: Arc::new(Shared {
                inner: Mutex::new(inner),
                waiter,
                refused: AtomicBool::new(false),
                description: format!("{role} {name}"),
            }),
        })
    }
}

impl Shared {
    fn run(&self) {
        let mut events = Events::new();
        while !self.waiter.ended() {
            let patience = self
                .inner
                .lock()
                .retry
                .map(|at| at.saturating_duration_since(Instant::now()));
            events.clear();
            if let Err(error) = self.waiter.poller().wait(&mut events, patience) {
                return tracing::error!("a network socket stops: {error}");
            }
            let Some(link) = self.waiter.link() else {
                return;
            };
            let mut inner = self.inner.lock();
            inner.connect_again(self.waiter.poller());
            for event in events.iter() {
                match event.key {
                    LISTENER => inner.accept(self.waiter.poller()),
                    _ => {
                        if event.writable {
                            inner.write();
                        }
                        if event.readable && !inner.held {
                            inner.read();
                        }
                    }
                }
            }
            inner.deliver(&link);
            let room = inner.outgoing.len() < WAITING / 2;
            inner.want();
            drop(inner);
            if room && self.refused.swap(false, Ordering::SeqCst) {
                link.backend_ready();
            }
        }
    }
}

impl Inner {
    fn connect_again(&mut self, poller: &Arc<Poller>) {
        let Some(after) = self.config.reconnect else {
            return;
        };
        if self.peer.is_none() && self.retry.is_some_and(|at| at <= Instant::now()) {
            match self.config.address.connect() {
                Ok(socket) => self.join(poller, socket),
                Err(_) => self.retry = Some(Instant::now() + after),
            }
        }
    }

    fn join(&mut self, poller: &Arc<Poller>, socket: OwnedFd) {
        self.retry = None;
        match Watched::new(poller, socket, PEER) {
            Ok(peer) => self.peer = Some(peer),
            Err(error) => tracing::warn!("cannot wait for a socket: {error}"),
        }
    }

    /// One peer at a time; others wait in the listener's queue.
    fn accept(&mut self, poller: &Arc<Poller>) {
        if self.peer.is_some() {
            return;
        }
        let accepted = match &self.listener {
            Some(listener) => rustix::net::accept(&**listener),
            None => return,
        };
        if let Ok(socket) = accepted
            && rustix::io::ioctl_fionbio(&socket, true).is_ok()
        {
            let _ = rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC);
            let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
            self.join(poller, socket);
        }
    }

    /// The peer is gone.
    fn leave(&mut self) {
        self.peer = None;
        self.incoming.clear();
        self.outgoing.clear();
        self.held = false;
        if let Some(after) = self.config.reconnect.filter(|_| !self.config.server) {
            self.retry = Some(Instant::now() + after);
        }
    }

    fn read(&mut self) {
        let Some(peer) = &self.peer else { return };
        let mut chunk = [0; 64 << 10];
        match rustix::io::read(&**peer, &mut chunk) {
            Ok(0) => self.leave(),
            Ok(n) => self.incoming.extend_from_slice(&chunk[..n]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => self.leave(),
        }
    }

    fn write(&mut self) {
        while !self.outgoing.is_empty() {
            let Some(peer) = &self.peer else { return };
            let (piece, _) = self.outgoing.as_slices();
            match rustix::io::write(&**peer, piece) {
                Ok(n) => drop(self.outgoing.drain(..n)),
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR) => {}
                Err(_) => return self.leave(),
            }
        }
    }

    /// Hands whole frames to the guest.
    fn deliver(&mut self, link: &Link) {
        self.held = false;
        let mut at = 0;
        while let Some(length) = self.incoming[at..].first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if length > LARGEST {
                tracing::warn!("a frame of {length} bytes on a network socket: it is closed");
                return self.leave();
            }
            let Some(frame) = self.incoming.get(at + 4..at + 4 + length) else {
                break;
            };
            if !link.deliver(&Frame::plain(&[frame])) {
                self.held = true;
                break;
            }
            at += 4 + length;
        }
        self.incoming.drain(..at);
    }

    fn want(&mut self) {
        let (readable, writable) = (!self.held, !self.outgoing.is_empty());
        let listening = self.peer.is_none();
        if let Some(peer) = &mut self.peer {
            peer.want(readable, writable);
        }
        if let Some(listener) = &mut self.listener {
            listener.want(listening, false);
        }
    }
}

impl Backend for Stream {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        let mut inner = self.shared.inner.lock();
        if inner.peer.is_none() {
            return true;
        }
        if inner.outgoing.len() >= WAITING {
            self.shared.refused.store(true, Ordering::SeqCst);
            return false;
        }
        let idle = inner.outgoing.is_empty();
        let length = (frame.length() as u32).to_be_bytes();
        inner.outgoing.extend(length);
        for part in frame.parts {
            inner.outgoing.extend(*part);
        }
        if idle {
            inner.write();
            inner.want();
        }
        true
    }

    fn accepts(&self) -> Accepts {
        Accepts::default()
    }

    fn receive_ready(&self) {
        self.shared.waiter.notify();
    }

    fn start(&self, link: Weak<Link>) {
        let shared = self.shared.clone();
        self.shared.waiter.start(link, move || shared.run());
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            kind: "stream",
            description: self.shared.description.clone(),
        }
    }

    fn stop(&self) {
        self.shared.waiter.end();
        let config = &self.shared.inner.lock().config;
        if let (true, Address::Unix(path)) = (config.server, &config.address) {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.shared.waiter.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use crate::link::Nic;

    fn end(config: Config) -> (Arc<Link>, Arc<Fake>, Arc<Stream>) {
        let link = Link::new("n");
        let nic = Arc::new(Fake::default());
        let as_nic: Arc<dyn Nic> = nic.clone();
        link.connect_nic(Arc::downgrade(&as_nic));
        let stream = Arc::new(Stream::open(config).unwrap());
        link.connect_backend(stream.clone());
        (link, nic, stream)
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let start = Instant::now();
        while !done() {
            assert!(start.elapsed() < Duration::from_secs(20), "no {what}");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn pair() -> [(Arc<Link>, Arc<Fake>, Arc<Stream>); 2] {
        let folder = tempfile::tempdir().unwrap();
        let config = |server| Config {
            address: Address::Unix(folder.path().join("wire")),
            server,
            reconnect: None,
        };
        let a = end(config(true));
        let b = end(config(false));
        until("connection", || a.2.shared.inner.lock().peer.is_some());
        [a, b]
    }

    #[test]
    fn frames_go_both_ways_whole() {
        let [a, b] = pair();
        for n in 0..200usize {
            let frame = vec![n as u8; 14 + n * 7];
            let (head, tail) = frame.split_at(n % 14);
            until("room", || a.0.send(&Frame::plain(&[head, tail])));
            until("room", || b.0.send(&Frame::plain(&[&frame])));
        }
        for end in [&a, &b] {
            until("frames", || end.1.frames.lock().len() == 200);
            let frames = end.1.take();
            assert!(
                frames
                    .iter()
                    .enumerate()
                    .all(|(n, f)| f.1 == vec![n as u8; 14 + n * 7])
            );
        }
    }

    #[test]
    fn nothing_grows_when_the_far_end_does_not_take_it() {
        let [a, b] = pair();
        b.1.full.store(true, Ordering::SeqCst);
        let frame = vec![7; 1500];
        let mut sent = 0;
        let start = Instant::now();
        while start.elapsed() < Duration::from_millis(300) {
            if a.0.send(&Frame::plain(&[&frame])) {
                sent += 1;
            } else {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(a.2.shared.inner.lock().outgoing.len() <= WAITING + 2000);
            assert!(b.2.shared.inner.lock().incoming.len() <= 200 << 10);
        }
        assert!(!a.0.send(&Frame::plain(&[&frame])), "it is full");
        b.1.full.store(false, Ordering::SeqCst);
        b.0.nic_ready();
        until("all frames", || b.1.frames.lock().len() == sent);
        until("word of room", || a.1.ready.load(Ordering::SeqCst) > 0);
    }

    #[test]
    fn a_client_comes_back_and_a_server_takes_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let config = |server| Config {
            address: Address::Unix(folder.path().join("wire")),
            server,
            reconnect: Some(Duration::from_millis(10)),
        };
        let early = end(config(false));
        assert!(early.0.send(&Frame::plain(&[&[0; 60]])), "lost");
        let server = end(config(true));
        until("connection", || server.2.shared.inner.lock().peer.is_some());
        drop(early);
        until("end", || server.2.shared.inner.lock().peer.is_none());
        let later = end(config(false));
        until("frame", || {
            later.0.send(&Frame::plain(&[&[1; 60]]));
            !server.1.frames.lock().is_empty()
        });
    }

    #[test]
    fn nobody_there() {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            address: Address::Unix(folder.path().join("wire")),
            server: false,
            reconnect: None,
        };
        let error = Stream::open(config).err().unwrap().to_string();
        assert!(error.starts_with("can't connect to"), "{error}");
    }
}
