//! TCP: connections out, connections in by `hostfwd`.

mod flow;
mod ring;
mod segment;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use smoltcp::wire::{TcpOption, TcpPacket};

use self::flow::{Flow, Key, Phase, Verdict};
use self::segment::{ACK, RST, Received, SYN, Segment};
use super::config::{GATEWAY_MAC, Target, Transport};
use super::icmp;
use super::resolver::Resolver;
use super::route::{Route, route};
use super::watch::Watched;
use super::wire::{Io, Kind};
use crate::OpenError;

/// Connections at most, if the host's limit of open files allows.
const FLOWS: usize = 2048;
/// Connections that are coming about, at most.
const OPENING: usize = 256;
/// How long a connection that is coming about, and one that is there, was silent at least when it gives way to another.
const HALF_OPEN: Duration = Duration::from_secs(2);
const SILENT: Duration = Duration::from_secs(60);
/// Bytes that all connections may hold together when many are open.
const MEMORY: usize = 64 << 20;
/// The least and the most that one may hold in one direction.
const LEAST: usize = 16 << 10;
const MOST: usize = 512 << 10;

/// All connections.
#[derive(Default)]
pub struct Table {
    flows: HashMap<u64, Flow>,
    keys: HashMap<Key, u64>,
    listeners: HashMap<u64, Listener>,
    /// Those that owe the guest an acknowledgement.
    due: Vec<u64>,
    /// Those that the guest had no room for.
    stalled: HashSet<u64>,
    most: usize,
}

struct Listener {
    socket: Watched<TcpListener>,
    guest: SocketAddr,
}

/// What a socket leads to, and whether it is connected already.
struct Connection {
    socket: OwnedFd,
    connected: bool,
}

impl Table {
    /// None yet; `files`: descriptors that connections may use.
    pub fn new(files: usize) -> Table {
        Table {
            most: FLOWS.min(files),
            ..Table::default()
        }
    }

    /// Listens for a `hostfwd`.
    pub fn listen(
        &mut self,
        io: &mut Io<'_>,
        host: SocketAddr,
        guest: SocketAddr,
    ) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(host)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (id, key) = io.wire.key(Kind::TcpListener);
        let mut socket = Watched::new(&io.wire.poller, listener, key)?;
        socket.want(true, false);
        self.listeners.insert(id, Listener { socket, guest });
        Ok(address)
    }

    /// Open connections.
    pub fn count(&self) -> usize {
        self.flows.len()
    }

    /// Bytes that connections hold.
    pub fn memory(&self) -> usize {
        self.flows.values().map(Flow::memory).sum()
    }

    /// Bytes that one connection may hold in one direction.
    fn limit(&self) -> usize {
        (MEMORY / 2 / self.flows.len().max(1)).clamp(LEAST, MOST)
    }

    /// A segment of the guest's. `verify`: its checksum is complete and must be right.
    pub fn segment(
        &mut self,
        io: &mut Io<'_>,
        resolver: &mut Resolver,
        mac: [u8; 6],
        (source, destination): (IpAddr, IpAddr),
        bytes: &[u8],
        verify: bool,
    ) {
        let Ok(packet) = TcpPacket::new_checked(bytes) else {
            return;
        };
        if verify && !packet.verify_checksum(&source.into(), &destination.into()) {
            return;
        }
        let key = Key {
            guest: SocketAddr::new(source, packet.src_port()),
            remote: SocketAddr::new(destination, packet.dst_port()),
        };
        if key.guest.port() == 0 || key.remote.port() == 0 {
            return;
        }
        let mut received = Received {
            mac,
            sequence: packet.seq_number().0 as u32,
            acknowledgement: packet.ack_number().0 as u32,
            flags: bytes[13],
            window: packet.window_len(),
            mss: None,
            window_scale: None,
            payload: packet.payload(),
        };
        if packet.syn() {
            let mut options = packet.options();
            while !options.is_empty()
                && let Ok((rest, option)) = TcpOption::parse(options)
            {
                match option {
                    TcpOption::MaxSegmentSize(mss) => received.mss = Some(mss),
                    TcpOption::WindowScale(shift) => received.window_scale = Some(shift),
                    TcpOption::EndOfList => break,
                    _ => {}
                }
                options = rest;
            }
        }
        match self.keys.get(&key).copied() {
            Some(id) => self.known(io, id, &received),
            None => self.unknown(io, resolver, key, &received),
        }
    }

    fn known(&mut self, io: &mut Io<'_>, id: u64, received: &Received<'_>) {
        let limit = self.limit();
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        flow.limit = limit;
        let verdict = flow.segment(io, received);
        self.after(id, verdict);
    }

    /// Keeps account after a call of a connection's.
    fn after(&mut self, id: u64, verdict: Verdict) {
        if verdict == Verdict::Close {
            if let Some(flow) = self.flows.remove(&id) {
                self.keys.remove(&flow.key);
            }
            self.stalled.remove(&id);
            return;
        }
        if let Some(flow) = self.flows.get(&id) {
            if flow.ack_due && !self.due.contains(&id) {
                self.due.push(id);
            }
            if flow.has_output() {
                self.stalled.insert(id);
            } else {
                self.stalled.remove(&id);
            }
        }
    }

    fn unknown(
        &mut self,
        io: &mut Io<'_>,
        resolver: &mut Resolver,
        key: Key,
        received: &Received<'_>,
    ) {
        if received.has(RST) {
            return;
        }
        if !received.has(SYN) || received.has(ACK) {
            return refuse(io, key, received);
        }
        let route = route(&io.wire.config, resolver, Transport::Tcp, key.remote, 0);
        if route == Route::Refused {
            return refuse(io, key, received);
        }
        let is_opening = |flow: &Flow| flow.phase != Phase::Open;
        let opening = self.flows.values().filter(|f| is_opening(f)).count();
        if opening >= OPENING && !self.evict(io, HALF_OPEN, is_opening) {
            return; // It tries again.
        }
        if self.flows.len() >= self.most && !self.evict(io, SILENT, |_| true) {
            return refuse(io, key, received);
        }
        match connect(io, &route) {
            Ok(connection) => {
                let (id, number) = io.wire.key(Kind::Tcp);
                let socket = match Watched::new(&io.wire.poller, connection.socket, number) {
                    Ok(socket) => socket,
                    Err(error) => {
                        tracing::warn!("cannot watch a connection: {error}");
                        return refuse(io, key, received);
                    }
                };
                let mut flow = Flow::outgoing(io, key, socket, received);
                flow.limit = self.limit();
                if connection.connected {
                    flow.established(io);
                }
                self.flows.insert(id, flow);
                self.keys.insert(key, id);
            }
            Err(error) => {
                tracing::debug!(remote = %key.remote, "cannot connect: {error}");
                match error {
                    Errno::NETUNREACH | Errno::HOSTUNREACH => {
                        icmp::unreachable_tcp(
                            io,
                            received.mac,
                            key.guest,
                            key.remote,
                            received.sequence,
                        );
                    }
                    _ => refuse(io, key, received),
                }
            }
        }
    }

    /// Ends the connection of a kind that has been silent longest, if it was for so long: whether there was one.
    fn evict(&mut self, io: &mut Io<'_>, silent: Duration, kind: impl Fn(&Flow) -> bool) -> bool {
        let of_kind = self.flows.iter().filter(|(_, flow)| kind(flow));
        let Some((&id, flow)) = of_kind.min_by_key(|(_, flow)| flow.progress) else {
            return false;
        };
        if io.now.saturating_duration_since(flow.progress) < silent {
            return false;
        }
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.reset_guest(io);
        }
        self.after(id, Verdict::Close);
        true
    }

    /// The guest sends no more for now: acknowledgements go.
    pub fn flush(&mut self, io: &mut Io<'_>) {
        for id in std::mem::take(&mut self.due) {
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.acknowledge(io);
                let verdict = flow.settled();
                self.after(id, verdict);
            }
        }
    }

    /// The guest has room again.
    pub fn resume(&mut self, io: &mut Io<'_>) {
        let ids: Vec<u64> = self.stalled.iter().copied().collect();
        for id in ids {
            if let Some(flow) = self.flows.get_mut(&id) {
                flow.push(io);
                let verdict = flow.settled();
                self.after(id, verdict);
            }
        }
        self.flush(io);
    }

    /// A connection's socket has something.
    pub fn event(&mut self, io: &mut Io<'_>, id: u64, readable: bool, writable: bool) {
        let limit = self.limit();
        if let Some(flow) = self.flows.get_mut(&id) {
            flow.limit = limit;
            let verdict = flow.event(io, readable, writable);
            self.after(id, verdict);
        }
    }

    /// Somebody wants to get to the guest.
    pub fn accept(&mut self, io: &mut Io<'_>, id: u64) {
        for _ in 0..16 {
            let Some(listener) = self.listeners.get(&id) else {
                return;
            };
            let (socket, from) = match listener.socket.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(error) => return tracing::debug!("cannot accept: {error}"),
            };
            let guest = listener.guest;
            if self.flows.len() >= self.most && !self.evict(io, SILENT, |_| true) {
                continue; // Dropped: the client sees it closed.
            }
            let Some(key) = self.free_key(io, guest, from) else {
                continue;
            };
            let _ = socket.set_nodelay(true);
            if socket.set_nonblocking(true).is_err() {
                continue;
            }
            let (flow_id, number) = io.wire.key(Kind::Tcp);
            match Watched::new(&io.wire.poller, socket.into(), number) {
                Ok(watched) => {
                    let mut flow = Flow::incoming(io, key, watched);
                    flow.limit = self.limit();
                    let verdict = flow.tick(io);
                    self.flows.insert(flow_id, flow);
                    self.keys.insert(key, flow_id);
                    self.after(flow_id, verdict);
                }
                Err(error) => tracing::warn!("cannot watch a connection: {error}"),
            }
        }
    }

    /// How the guest sees a client: by its address if that means the same to the guest, else as the gateway.
    fn free_key(&self, io: &Io<'_>, guest: SocketAddr, from: SocketAddr) -> Option<Key> {
        let remote = seen_by_guest(io, guest, from)?;
        client_addresses(remote)
            .map(|remote| Key { guest, remote })
            .find(|key| !self.keys.contains_key(key))
    }

    /// Time passes: retransmissions, time-outs.
    pub fn tick(&mut self, io: &mut Io<'_>) {
        let ids: Vec<u64> = self.flows.keys().copied().collect();
        for id in ids {
            if let Some(flow) = self.flows.get_mut(&id) {
                let verdict = flow.tick(io);
                self.after(id, verdict);
            }
        }
        self.flush(io);
    }

    /// Whether anything waits for [`Table::tick`] soon.
    pub fn has_deadlines(&self) -> bool {
        self.flows.values().any(Flow::has_deadline)
    }
}

/// A client's address as the guest sees it.
pub fn seen_by_guest(io: &Io<'_>, guest: SocketAddr, from: SocketAddr) -> Option<SocketAddr> {
    let config = &io.wire.config;
    let ip = match from.ip() {
        IpAddr::V6(a) => a.to_ipv4_mapped().map_or(IpAddr::V6(a), IpAddr::V4),
        ip => ip,
    };
    let gateway: IpAddr = match guest.ip() {
        IpAddr::V4(_) => config.ipv4?.host.into(),
        IpAddr::V6(_) => config.ipv6?.host.into(),
    };
    let foreign = ip.is_ipv4() != guest.is_ipv4()
        || ip.is_loopback()
        || config.is_guest(ip)
        || config.is_ours(ip)
        || matches!(ip, IpAddr::V6(a) if a.is_unicast_link_local());
    Some(SocketAddr::new(
        if foreign { gateway } else { ip },
        from.port(),
    ))
}

/// What to try as a client's address: its own port, then others.
pub fn client_addresses(remote: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let ports = std::iter::once(remote.port()).chain(49152..=65535);
    ports.map(move |port| SocketAddr::new(remote.ip(), port))
}

/// Answers a segment of no connection (RFC 9293, 3.10.7.1).
fn refuse(io: &mut Io<'_>, key: Key, received: &Received<'_>) {
    let (sequence, acknowledgement, flags) = if received.has(ACK) {
        (received.acknowledgement, 0, RST)
    } else {
        let next = received.sequence.wrapping_add(received.length());
        (0, next, RST | ACK)
    };
    let segment = Segment {
        mac: received.mac,
        source: key.remote,
        destination: key.guest,
        sequence,
        acknowledgement,
        flags,
        window: 0,
        mss: None,
        window_scale: None,
    };
    debug_assert_ne!(segment.mac, GATEWAY_MAC);
    segment.send(io.guest, [&[]; 2], None);
}

/// Begins a connection of the host's.
fn connect(io: &Io<'_>, route: &Route) -> Result<Connection, Errno> {
    match route {
        Route::Host(address) => stream_to(*address),
        Route::Forward(index) => match &io.wire.config.guest_forwards.get(*index) {
            Some(forward) => match &forward.target {
                Target::Tcp(address) => stream_to(*address),
                Target::Unix(path) => {
                    let socket = UnixStream::connect(path).map_err(errno)?;
                    socket.set_nonblocking(true).map_err(errno)?;
                    Ok(Connection {
                        socket: socket.into(),
                        connected: true,
                    })
                }
                Target::Command(command) => spawn(command).map_err(errno),
            },
            None => Err(Errno::CONNREFUSED),
        },
        Route::Refused => Err(Errno::CONNREFUSED),
    }
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_io_error(&error).unwrap_or(Errno::CONNREFUSED)
}

fn stream_to(address: SocketAddr) -> Result<Connection, Errno> {
    let family = if address.is_ipv4() {
        AddressFamily::INET
    } else {
        AddressFamily::INET6
    };
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    // The guest's TCP decides what to wait for.
    rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
    rustix::net::sockopt::set_socket_keepalive(&socket, true)?;
    let connected = match rustix::net::connect(&socket, &address) {
        Ok(()) => true,
        Err(Errno::INPROGRESS) => false,
        Err(error) => return Err(error),
    };
    Ok(Connection { socket, connected })
}

/// Runs a command with one end of a socket as its standard input and output.
fn spawn(command: &str) -> std::io::Result<Connection> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let input: OwnedFd = theirs.try_clone()?.into();
    let output: OwnedFd = theirs.into();
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .spawn()?;
    // Its end is nobody's business, but somebody must take note of it.
    std::thread::Builder::new()
        .name("guestfwd".into())
        .spawn(move || child.wait())?;
    Ok(Connection {
        socket: ours.into(),
        connected: true,
    })
}

/// Makes a listener's error readable.
pub fn listen_error(text: &str, error: &std::io::Error) -> OpenError {
    OpenError::Invalid(format!(
        "Could not set up host forwarding rule '{text}' ({})",
        crate::reason(error)
    ))
}
