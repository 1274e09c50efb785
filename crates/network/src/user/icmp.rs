//! ICMP and ICMPv6 echo (RFC 792, RFC 4443): ours answered here, others' by the host's unprivileged ICMP sockets.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, Protocol, SocketType, ipproto};
use smoltcp::wire::{Icmpv4Packet, Icmpv6Packet};

use super::route::{may_leave4, may_leave6};
use super::watch::Watched;
use super::wire::{Io, Kind, router};
use crate::checksum;

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
/// Message types.
const ECHO_REPLY: u8 = 0;
const UNREACHABLE: u8 = 3;
const ECHO_REQUEST: u8 = 8;
const UNREACHABLE_V6: u8 = 1;
pub const ECHO_REQUEST_V6: u8 = 128;
const ECHO_REPLY_V6: u8 = 129;
/// Echo flows at a time, and how long one may be silent.
const FLOWS: usize = 64;
const SILENT: Duration = Duration::from_secs(30);

/// Why a packet cannot go where it should: codes of destination unreachable (RFC 792; RFC 4443, 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Port,
    Host,
    Prohibited,
}

impl Reason {
    fn code(self, v4: bool) -> u8 {
        match (self, v4) {
            (Reason::Port, true) => 3,
            (Reason::Host, true) => 1,
            (Reason::Prohibited, true) => 13,
            (Reason::Port, false) => 4,
            (Reason::Host, false) => 3,
            (Reason::Prohibited, false) => 1,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    guest: IpAddr,
    remote: IpAddr,
    ident: u16,
}

struct Echo {
    key: Key,
    mac: [u8; 6],
    socket: Watched<OwnedFd>,
    last: Instant,
}

/// Echo flows to the outside.
#[derive(Default)]
pub struct Table {
    flows: HashMap<u64, Echo>,
    keys: HashMap<Key, u64>,
    told: bool,
}

impl Table {
    /// An ICMP or ICMPv6 message of the guest's.
    pub fn message(
        &mut self,
        io: &mut Io<'_>,
        mac: [u8; 6],
        (source, destination): (IpAddr, IpAddr),
        message: &[u8],
    ) {
        let valid = match (source, destination) {
            (IpAddr::V4(_), IpAddr::V4(_)) => {
                Icmpv4Packet::new_checked(message).is_ok_and(|p| p.verify_checksum())
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                Icmpv6Packet::new_checked(message).is_ok_and(|p| p.verify_checksum(&s, &d))
            }
            _ => false,
        };
        let request = if source.is_ipv4() {
            ECHO_REQUEST
        } else {
            ECHO_REQUEST_V6
        };
        if !valid || message.len() < 8 || message[0] != request || message[1] != 0 {
            return;
        }
        if io.wire.config.is_ours(destination) {
            return reply(io, mac, (destination, source), message);
        }
        let may_leave = match destination {
            IpAddr::V4(a) => may_leave4(a) && !io.wire.config.ipv4.is_some_and(|v| v.contains(a)),
            IpAddr::V6(a) => may_leave6(a) && !io.wire.config.ipv6.is_some_and(|v| v.contains(a)),
        };
        if may_leave && !io.wire.config.restricted {
            self.outside(io, mac, (source, destination), message);
        }
    }

    fn outside(
        &mut self,
        io: &mut Io<'_>,
        mac: [u8; 6],
        (source, destination): (IpAddr, IpAddr),
        message: &[u8],
    ) {
        let key = Key {
            guest: source,
            remote: destination,
            ident: u16::from_be_bytes([message[4], message[5]]),
        };
        let id = match self.keys.get(&key) {
            Some(&id) => id,
            None => {
                let socket = match open(destination) {
                    Ok(socket) => socket,
                    Err(error) => {
                        if !std::mem::replace(&mut self.told, true) {
                            tracing::info!("guests cannot ping beyond this host: {error}");
                        }
                        return;
                    }
                };
                if self.flows.len() >= FLOWS {
                    self.drop_oldest();
                }
                let (id, number) = io.wire.key(Kind::Icmp);
                let Ok(mut socket) = Watched::new(&io.wire.poller, socket, number) else {
                    return;
                };
                socket.want(true, false);
                let last = io.now;
                self.flows.insert(
                    id,
                    Echo {
                        key,
                        mac,
                        socket,
                        last,
                    },
                );
                self.keys.insert(key, id);
                id
            }
        };
        if let Some(echo) = self.flows.get_mut(&id) {
            echo.last = io.now;
            let _ = rustix::io::write(&*echo.socket, message);
        }
    }

    fn drop_oldest(&mut self) {
        if let Some((&id, echo)) = self.flows.iter().min_by_key(|(_, e)| e.last) {
            self.keys.remove(&echo.key);
            self.flows.remove(&id);
        }
    }

    /// Answers came.
    pub fn event(&mut self, io: &mut Io<'_>, id: u64, buffer: &mut [u8]) {
        let Some(echo) = self.flows.get(&id) else {
            return;
        };
        for _ in 0..16 {
            let Ok(n) = rustix::io::read(&*echo.socket, &mut *buffer) else {
                return;
            };
            let mut message = &buffer[..n];
            let v4 = echo.key.remote.is_ipv4();
            // macOS gives the IP header too.
            if v4 && message.first().is_some_and(|b| b >> 4 == 4) {
                let header = usize::from(message[0] & 15) * 4;
                message = message.get(header..).unwrap_or(&[]);
            }
            let kind = if v4 { ECHO_REPLY } else { ECHO_REPLY_V6 };
            if message.len() < 8 || message[0] != kind {
                continue;
            }
            let mut message = message.to_vec();
            message[4..6].copy_from_slice(&echo.key.ident.to_be_bytes());
            send(
                io,
                echo.mac,
                (echo.key.remote, echo.key.guest),
                &mut message,
            );
        }
    }

    /// Forgets flows that are silent.
    pub fn tick(&mut self, now: Instant) {
        let keys = &mut self.keys;
        self.flows.retain(|_, echo| {
            let keep = now.saturating_duration_since(echo.last) < SILENT;
            if !keep {
                keys.remove(&echo.key);
            }
            keep
        });
    }

    /// Flows.
    pub fn count(&self) -> usize {
        self.flows.len()
    }
}

/// An unprivileged ICMP socket to an address (on Linux if `net.ipv4.ping_group_range` allows).
fn open(to: IpAddr) -> rustix::io::Result<OwnedFd> {
    let (family, protocol): (_, Protocol) = if to.is_ipv4() {
        (AddressFamily::INET, ipproto::ICMP)
    } else {
        (AddressFamily::INET6, ipproto::ICMPV6)
    };
    let socket = rustix::net::socket(family, SocketType::DGRAM, Some(protocol))?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    rustix::net::connect(&socket, &SocketAddr::new(to, 0))?;
    Ok(socket)
}

/// Answers an echo request.
fn reply(io: &mut Io<'_>, mac: [u8; 6], ends: (IpAddr, IpAddr), request: &[u8]) {
    let mut message = request.to_vec();
    message[0] = if ends.0.is_ipv4() {
        ECHO_REPLY
    } else {
        ECHO_REPLY_V6
    };
    send(io, mac, ends, &mut message);
}

/// Sends a message with its checksum set.
pub fn send(
    io: &mut Io<'_>,
    mac: [u8; 6],
    (source, destination): (IpAddr, IpAddr),
    message: &mut [u8],
) {
    message[2..4].fill(0);
    let (protocol, sum) = if source.is_ipv4() {
        (ICMP, 0)
    } else {
        let sum = checksum::pseudo_header(source, destination, ICMPV6, message.len());
        (ICMPV6, sum)
    };
    let sum = checksum::finish(sum, &[message]);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    // Neighbour discovery must not have been forwarded (RFC 4861, 7.1).
    let hop_limit = if protocol == ICMPV6 && (133..=137).contains(&message[0]) {
        255
    } else {
        64
    };
    io.ip(mac, source, destination, protocol, hop_limit, message);
}

/// Tells the guest that its packet went nowhere. `packet`: what it sent, from its IP header on.
pub fn unreachable(io: &mut Io<'_>, mac: [u8; 6], source: IpAddr, reason: Reason, packet: &[u8]) {
    let v4 = source.is_ipv4();
    let kept = packet.len().min(if v4 { 28 + 8 } else { 1200 });
    let kind = if v4 { UNREACHABLE } else { UNREACHABLE_V6 };
    let mut message = vec![kind, reason.code(v4), 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&packet[..kept]);
    let from = router(&io.wire.config, source);
    send(io, mac, (from, source), &mut message);
}

/// The same for a datagram or segment of which only the ends are known.
pub fn unreachable_port(
    io: &mut Io<'_>,
    mac: [u8; 6],
    guest: SocketAddr,
    remote: SocketAddr,
    reason: Reason,
) {
    let mut transport = Vec::from(guest.port().to_be_bytes());
    transport.extend(remote.port().to_be_bytes());
    transport.extend([0, 8, 0, 0]);
    quote(io, mac, guest, remote, 17, reason, &transport);
}

/// No way to a host that a SYN was for.
pub fn unreachable_tcp(
    io: &mut Io<'_>,
    mac: [u8; 6],
    guest: SocketAddr,
    remote: SocketAddr,
    sequence: u32,
) {
    let mut transport = Vec::from(guest.port().to_be_bytes());
    transport.extend(remote.port().to_be_bytes());
    transport.extend(sequence.to_be_bytes());
    transport.extend([0; 12]);
    quote(io, mac, guest, remote, 6, Reason::Host, &transport);
}

fn quote(
    io: &mut Io<'_>,
    mac: [u8; 6],
    guest: SocketAddr,
    remote: SocketAddr,
    protocol: u8,
    reason: Reason,
    transport: &[u8],
) {
    let header = if guest.is_ipv4() { 20 } else { 40 };
    let mut packet = vec![0; header];
    super::wire::ip_header(
        &mut packet,
        guest.ip(),
        remote.ip(),
        protocol,
        64,
        transport.len(),
    );
    packet.extend_from_slice(transport);
    unreachable(io, mac, guest.ip(), reason, &packet);
}
