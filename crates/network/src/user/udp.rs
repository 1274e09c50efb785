//! UDP: a socket of the host's for each pair of ends, so that only who was asked can answer; and `hostfwd`.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::config::Transport;
use super::icmp::{self, Reason};
use super::resolver::Resolver;
use super::route::{Route, route};
use super::tcp::{client_addresses, seen_by_guest};
use super::watch::Watched;
use super::wire::{Io, Kind};

/// Flows at most, if the host's limit of open files allows.
const FLOWS: usize = 512;
/// How long a flow may be silent (RFC 4787, REQ-5), and one that asked a name server.
const SILENT: Duration = Duration::from_secs(120);
const SILENT_DNS: Duration = Duration::from_secs(20);
/// A name server that did not answer a question for so long: the next one is asked.
const NEXT_SERVER: Duration = Duration::from_secs(2);
/// Datagrams of one flow before others have their turn.
const TURN: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    guest: SocketAddr,
    remote: SocketAddr,
}

/// How answers of the guest get out.
enum Way {
    Socket(Watched<UdpSocket>),
    /// By a `hostfwd`'s socket to its client.
    Listener(u64, SocketAddr),
}

struct Flow {
    key: Key,
    mac: [u8; 6],
    way: Way,
    last: Instant,
    /// Questions asked since anything came back, and when the first was.
    asked: Option<Instant>,
    attempt: usize,
}

struct Listener {
    socket: Watched<UdpSocket>,
    guest: SocketAddr,
}

/// All flows.
#[derive(Default)]
pub struct Table {
    flows: HashMap<u64, Flow>,
    keys: HashMap<Key, u64>,
    listeners: HashMap<u64, Listener>,
    most: usize,
}

impl Table {
    /// None yet; `files`: descriptors that flows may use.
    pub fn new(files: usize) -> Table {
        Table {
            most: FLOWS.min(files),
            ..Table::default()
        }
    }

    /// Flows.
    pub fn count(&self) -> usize {
        self.flows.len()
    }

    /// Listens for a `hostfwd`.
    pub fn listen(
        &mut self,
        io: &mut Io<'_>,
        host: SocketAddr,
        guest: SocketAddr,
    ) -> std::io::Result<SocketAddr> {
        let socket = UdpSocket::bind(host)?;
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let (id, key) = io.wire.key(Kind::UdpListener);
        let mut socket = Watched::new(&io.wire.poller, socket, key)?;
        socket.want(true, false);
        self.listeners.insert(id, Listener { socket, guest });
        Ok(address)
    }

    /// A datagram of the guest's to somewhere else. `packet`: all of it, from the IP header on.
    pub fn datagram(
        &mut self,
        io: &mut Io<'_>,
        resolver: &mut Resolver,
        mac: [u8; 6],
        (guest, remote): (SocketAddr, SocketAddr),
        data: &[u8],
        packet: &[u8],
    ) {
        let key = Key { guest, remote };
        if !self.keys.contains_key(&key) && !self.open(io, resolver, mac, key, packet, 0) {
            return;
        }
        let Some(&id) = self.keys.get(&key) else {
            return;
        };
        let retry = self.flows.get(&id).and_then(|flow| {
            let waiting = flow.asked.filter(|_| is_dns(io, &key))?;
            let long = io.now.saturating_duration_since(waiting) >= NEXT_SERVER;
            long.then_some(flow.attempt + 1)
        });
        if let Some(attempt) = retry {
            self.remove(id);
            if !self.open(io, resolver, mac, key, packet, attempt) {
                return;
            }
        }
        let Some(flow) = self.keys.get(&key).and_then(|id| self.flows.get_mut(id)) else {
            return;
        };
        flow.last = io.now;
        flow.mac = mac;
        flow.asked.get_or_insert(io.now);
        let sent = match &flow.way {
            Way::Socket(socket) => socket.send(data),
            Way::Listener(id, client) => match self.listeners.get(id) {
                Some(listener) => listener.socket.send_to(data, *client),
                None => return,
            },
        };
        if let Err(error) = sent
            && error.kind() == std::io::ErrorKind::ConnectionRefused
        {
            icmp::unreachable(io, mac, guest.ip(), Reason::Port, packet);
        }
    }

    /// Makes a flow: whether it did. If not, the guest was told.
    fn open(
        &mut self,
        io: &mut Io<'_>,
        resolver: &mut Resolver,
        mac: [u8; 6],
        key: Key,
        packet: &[u8],
        attempt: usize,
    ) -> bool {
        let route = route(
            &io.wire.config,
            resolver,
            Transport::Udp,
            key.remote,
            attempt,
        );
        let Route::Host(address) = route else {
            let reason = if io.wire.config.restricted {
                Reason::Prohibited
            } else {
                Reason::Port
            };
            let group = match key.remote.ip() {
                std::net::IpAddr::V4(a) => a.is_multicast() || a.octets()[3] == 255,
                std::net::IpAddr::V6(a) => a.is_multicast(),
            };
            // Never about groups (RFC 1122, 3.2.2).
            if !group {
                icmp::unreachable(io, mac, key.guest.ip(), reason, packet);
            }
            return false;
        };
        if self.flows.len() >= self.most {
            self.drop_oldest();
        }
        let socket = match connected(address) {
            Ok(socket) => socket,
            Err(error) => {
                tracing::debug!(%address, "no UDP flow: {error}");
                icmp::unreachable(io, mac, key.guest.ip(), Reason::Host, packet);
                return false;
            }
        };
        let (id, number) = io.wire.key(Kind::Udp);
        match Watched::new(&io.wire.poller, socket, number) {
            Ok(mut socket) => {
                socket.want(true, false);
                let mut flow = Flow::new(io.now, key, mac, Way::Socket(socket));
                flow.attempt = attempt;
                self.insert(id, flow);
                true
            }
            Err(error) => {
                tracing::warn!("cannot watch a socket: {error}");
                false
            }
        }
    }

    fn insert(&mut self, id: u64, flow: Flow) {
        self.keys.insert(flow.key, id);
        self.flows.insert(id, flow);
    }

    fn remove(&mut self, id: u64) {
        if let Some(flow) = self.flows.remove(&id) {
            self.keys.remove(&flow.key);
        }
    }

    fn drop_oldest(&mut self) {
        let oldest = self.flows.iter().min_by_key(|(_, f)| f.last);
        if let Some((&id, _)) = oldest {
            self.remove(id);
        }
    }

    /// A flow's socket has something.
    pub fn event(&mut self, io: &mut Io<'_>, id: u64, buffer: &mut [u8]) {
        let Some(flow) = self.flows.get_mut(&id) else {
            return;
        };
        let Way::Socket(socket) = &flow.way else {
            return;
        };
        for _ in 0..TURN {
            match socket.recv(buffer) {
                Ok(n) => {
                    flow.last = io.now;
                    flow.asked = None;
                    io.udp(flow.mac, flow.key.remote, flow.key.guest, &buffer[..n]);
                }
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    let Key { guest, remote } = flow.key;
                    icmp::unreachable_port(io, flow.mac, guest, remote, Reason::Port);
                }
                Err(_) => return,
            }
        }
    }

    /// Somebody sends to a `hostfwd`.
    pub fn accept(&mut self, io: &mut Io<'_>, id: u64, buffer: &mut [u8]) {
        for _ in 0..TURN {
            let Some(listener) = self.listeners.get(&id) else {
                return;
            };
            let guest = listener.guest;
            let Ok((n, client)) = listener.socket.recv_from(buffer) else {
                return;
            };
            let Some(key) = self.client_key(io, id, guest, client) else {
                continue;
            };
            let Some(mac) = io.resolve(guest.ip()) else {
                continue; // Lost, as anything that is sent before ARP is done.
            };
            match self.keys.get(&key).and_then(|id| self.flows.get_mut(id)) {
                Some(flow) => flow.last = io.now,
                None => {
                    if self.flows.len() >= self.most {
                        self.drop_oldest();
                    }
                    let (flow_id, _) = io.wire.key(Kind::Udp);
                    self.insert(
                        flow_id,
                        Flow::new(io.now, key, mac, Way::Listener(id, client)),
                    );
                }
            }
            io.udp(mac, key.remote, guest, &buffer[..n]);
        }
    }

    /// How the guest sees a client of a `hostfwd`; the same each time it sends.
    fn client_key(
        &self,
        io: &Io<'_>,
        listener: u64,
        guest: SocketAddr,
        client: SocketAddr,
    ) -> Option<Key> {
        let remote = seen_by_guest(io, guest, client)?;
        client_addresses(remote)
            .map(|remote| Key { guest, remote })
            .find(
                |key| match self.keys.get(key).and_then(|id| self.flows.get(id)) {
                    None => true,
                    Some(flow) => {
                        matches!(flow.way, Way::Listener(l, c) if l == listener && c == client)
                    }
                },
            )
    }

    /// Forgets flows that are silent.
    pub fn tick(&mut self, io: &Io<'_>) {
        let keys = &mut self.keys;
        self.flows.retain(|_, flow| {
            let limit = if is_dns(io, &flow.key) {
                SILENT_DNS
            } else {
                SILENT
            };
            let keep = io.now.saturating_duration_since(flow.last) < limit;
            if !keep {
                keys.remove(&flow.key);
            }
            keep
        });
    }
}

impl Flow {
    fn new(now: Instant, key: Key, mac: [u8; 6], way: Way) -> Flow {
        Flow {
            key,
            mac,
            way,
            last: now,
            asked: None,
            attempt: 0,
        }
    }
}

/// Whether a flow goes to our name server.
fn is_dns(io: &Io<'_>, key: &Key) -> bool {
    let config = &io.wire.config;
    let ours = match key.remote.ip() {
        std::net::IpAddr::V4(a) => config.ipv4.is_some_and(|v| v.dns == a),
        std::net::IpAddr::V6(a) => config.ipv6.is_some_and(|v| v.dns == a),
    };
    ours && key.remote.port() == 53
}

fn connected(to: SocketAddr) -> std::io::Result<UdpSocket> {
    let any: SocketAddr = if to.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any)?;
    socket.set_nonblocking(true)?;
    socket.connect(to)?;
    Ok(socket)
}
