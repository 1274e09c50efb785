//! The virtual network: what the guest sends goes to whom it is for.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use polling::{Event, Poller};
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, Icmpv6Packet, IpProtocol, Ipv4Packet, Ipv6ExtHeader,
    Ipv6Packet, UdpPacket,
};

use super::config::{Config, GATEWAY_MAC, Transport};
use super::fragments::{Fragment, Key, Reassembly};
use super::resolver::Resolver;
use super::wire::{Guest, Io, Kind, Wire};
use super::{arp, dhcp, icmp, ndp, tcp, tftp, udp};
use crate::OpenError;
use crate::frame::{Checksum, Frame};

/// How often time-outs are looked at while any is set, and while there is anything at all.
const TICK: Duration = Duration::from_millis(50);
const SLOW_TICK: Duration = Duration::from_secs(1);
/// How often the network is announced to IPv6 hosts (RFC 4861, 6.2.1).
const ANNOUNCE: Duration = Duration::from_secs(300);

/// The network, without its thread: everything happens in calls.
pub struct Nat {
    wire: Wire,
    resolver: Resolver,
    tcp: tcp::Table,
    udp: udp::Table,
    icmp: icmp::Table,
    leases: dhcp::Leases,
    tftp: tftp::Transfers,
    fragments: Reassembly,
    last_tick: Instant,
    announced: Option<Instant>,
    scratch: Vec<u8>,
    datagram: Vec<u8>,
    ports: Vec<SocketAddr>,
}

/// What is in an IP packet.
struct Inner<'a> {
    mac: [u8; 6],
    /// From and to.
    ends: (IpAddr, IpAddr),
    protocol: IpProtocol,
    payload: &'a [u8],
    /// All of it, from the IP header on, to quote in errors.
    packet: &'a [u8],
    /// Whether the guest finished the checksum.
    verify: bool,
}

/// What a network uses now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub connections: usize,
    pub udp_flows: usize,
    pub echo_flows: usize,
    /// Bytes in connections' buffers.
    pub memory: usize,
}

impl Nat {
    /// A network; ports of `hostfwd`s are open when this returns.
    pub fn new(
        config: Config,
        poller: Arc<Poller>,
        guest: &dyn Guest,
        now: Instant,
    ) -> Result<Nat, OpenError> {
        config.check().map_err(OpenError::Invalid)?;
        if let Some(folder) = &config.tftp
            && !folder.is_dir()
        {
            return Err(OpenError::Invalid(format!(
                "tftp={} is not a folder",
                folder.display()
            )));
        }
        let resolver = if config.resolvers.is_empty() {
            Resolver::file(Path::new("/etc/resolv.conf"))
        } else {
            Resolver::fixed(config.resolvers.clone())
        };
        let files = files();
        let config = Arc::new(config);
        let mut nat = Nat {
            wire: Wire::new(config.clone(), poller),
            resolver,
            tcp: tcp::Table::new(files / 2),
            udp: udp::Table::new(files / 4),
            icmp: icmp::Table::default(),
            leases: dhcp::Leases::default(),
            tftp: tftp::Transfers::default(),
            fragments: Reassembly::default(),
            last_tick: now,
            announced: None,
            scratch: Vec::new(),
            datagram: vec![0; 65536],
            ports: Vec::new(),
        };
        for forward in &config.host_forwards {
            let mut io = Io {
                wire: &mut nat.wire,
                guest,
                now,
            };
            let opened = match forward.transport {
                Transport::Tcp => nat.tcp.listen(&mut io, forward.host, forward.guest),
                Transport::Udp => nat.udp.listen(&mut io, forward.host, forward.guest),
            };
            nat.ports
                .push(opened.map_err(|e| tcp::listen_error(&forward.text, &e))?);
        }
        Ok(nat)
    }

    /// The addresses that `hostfwd`s listen at, in their order.
    pub fn ports(&self) -> &[SocketAddr] {
        &self.ports
    }

    /// What it uses.
    pub fn usage(&self) -> Usage {
        Usage {
            connections: self.tcp.count(),
            udp_flows: self.udp.count(),
            echo_flows: self.icmp.count(),
            memory: self.tcp.memory(),
        }
    }

    /// A frame of the guest's.
    pub fn frame(&mut self, guest: &dyn Guest, now: Instant, frame: &Frame<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let bytes = frame.contiguous(&mut scratch);
        let verify = frame.offload.checksum == Checksum::Complete;
        self.ethernet(guest, now, bytes, verify);
        self.scratch = scratch;
    }

    fn ethernet(&mut self, guest: &dyn Guest, now: Instant, bytes: &[u8], verify: bool) {
        let Ok(ethernet) = EthernetFrame::new_checked(bytes) else {
            return;
        };
        let (mac, to) = (ethernet.src_addr(), ethernet.dst_addr());
        if !mac.is_unicast() || mac.0 == GATEWAY_MAC || (to.is_unicast() && to.0 != GATEWAY_MAC) {
            return;
        }
        self.wire.last_mac = mac.0;
        let mut io = Io {
            wire: &mut self.wire,
            guest,
            now,
        };
        match ethernet.ethertype() {
            EthernetProtocol::Arp if io.wire.config.ipv4.is_some() => {
                arp::packet(&mut io, ethernet.payload());
            }
            EthernetProtocol::Ipv4 if io.wire.config.ipv4.is_some() => {
                self.ipv4(guest, now, mac.0, ethernet.payload(), verify);
            }
            EthernetProtocol::Ipv6 if io.wire.config.ipv6.is_some() => {
                self.ipv6(guest, now, mac.0, ethernet.payload(), verify);
            }
            _ => {}
        }
    }

    fn ipv4(&mut self, guest: &dyn Guest, now: Instant, mac: [u8; 6], bytes: &[u8], verify: bool) {
        let Ok(packet) = Ipv4Packet::new_checked(bytes) else {
            return;
        };
        if packet.version() != 4 || packet.header_len() < 20 || !packet.verify_checksum() {
            return;
        }
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let protocol = packet.next_header();
        if source.is_unspecified() {
            // Only who asks for an address has none.
            if protocol == IpProtocol::Udp && !packet.more_frags() && packet.frag_offset() == 0 {
                self.without_address(guest, now, mac, destination, packet.payload());
            }
            return;
        }
        if !self.wire.config.is_guest(source.into()) {
            return;
        }
        self.wire.learn(source.into(), mac);
        let ends = (IpAddr::from(source), IpAddr::from(destination));
        if packet.more_frags() || packet.frag_offset() != 0 {
            let fragment = Fragment {
                key: Key {
                    source: ends.0,
                    destination: ends.1,
                    protocol: protocol.into(),
                    ident: packet.ident().into(),
                },
                offset: packet.frag_offset().into(),
                more: packet.more_frags(),
                data: packet.payload(),
            };
            if let Some(whole) = self.fragments.add(&fragment, now) {
                let inner = Inner {
                    mac,
                    ends,
                    protocol,
                    payload: &whole,
                    packet: bytes,
                    verify: true,
                };
                self.transport(guest, now, &inner);
            }
            return;
        }
        let inner = Inner {
            mac,
            ends,
            protocol,
            payload: packet.payload(),
            packet: bytes,
            verify,
        };
        self.transport(guest, now, &inner);
    }

    /// A datagram of a guest that asks for its address.
    fn without_address(
        &mut self,
        guest: &dyn Guest,
        now: Instant,
        mac: [u8; 6],
        destination: Ipv4Addr,
        bytes: &[u8],
    ) {
        let ours = destination.is_broadcast() || self.wire.config.is_ours(destination.into());
        let Ok(udp) = UdpPacket::new_checked(bytes) else {
            return;
        };
        if ours && udp.dst_port() == dhcp::SERVER {
            let mut io = Io {
                wire: &mut self.wire,
                guest,
                now,
            };
            dhcp::message(&mut io, &mut self.leases, mac, udp.payload());
        }
    }

    fn ipv6(&mut self, guest: &dyn Guest, now: Instant, mac: [u8; 6], bytes: &[u8], verify: bool) {
        let Ok(packet) = Ipv6Packet::new_checked(bytes) else {
            return;
        };
        if packet.version() != 6 {
            return;
        }
        let (source, destination) = (packet.src_addr(), packet.dst_addr());
        let (mut protocol, mut payload) = (packet.next_header(), packet.payload());
        // Hop-by-hop and destination options: nothing in them concerns us (RFC 8200, 4.1).
        for _ in 0..4 {
            if !matches!(protocol, IpProtocol::HopByHop | IpProtocol::Ipv6Opts) {
                break;
            }
            let Ok(header) = Ipv6ExtHeader::new_checked(payload) else {
                return;
            };
            let length = usize::from(header.header_len()) * 8 + 8;
            protocol = header.next_header();
            let Some(rest) = payload.get(length..) else {
                return;
            };
            payload = rest;
        }
        if protocol == IpProtocol::Icmpv6
            && payload
                .first()
                .is_some_and(|kind| (133..=137).contains(kind))
        {
            let known = source.is_unspecified() || self.wire.config.is_guest(source.into());
            let valid = Icmpv6Packet::new_checked(payload)
                .is_ok_and(|p| p.verify_checksum(&source, &destination));
            // RFC 4861, 6.1.1, 7.1.1.
            if known && valid && packet.hop_limit() == 255 {
                if !source.is_unspecified() {
                    self.wire.learn(source.into(), mac);
                }
                let mut io = Io {
                    wire: &mut self.wire,
                    guest,
                    now,
                };
                ndp::message(&mut io, mac, source, payload);
            }
            return;
        }
        if !self.wire.config.is_guest(source.into()) {
            return;
        }
        self.wire.learn(source.into(), mac);
        let ends = (IpAddr::from(source), IpAddr::from(destination));
        if protocol == IpProtocol::Ipv6Frag {
            let Some((header, data)) = payload.split_first_chunk::<8>() else {
                return;
            };
            let field = u16::from_be_bytes([header[2], header[3]]);
            let fragment = Fragment {
                key: Key {
                    source: ends.0,
                    destination: ends.1,
                    protocol: header[0],
                    ident: u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                },
                offset: usize::from(field & !7),
                more: field & 1 != 0,
                data,
            };
            let inner = IpProtocol::from(header[0]);
            if let Some(whole) = self.fragments.add(&fragment, now) {
                let inner = Inner {
                    mac,
                    ends,
                    protocol: inner,
                    payload: &whole,
                    packet: bytes,
                    verify: true,
                };
                self.transport(guest, now, &inner);
            }
            return;
        }
        let inner = Inner {
            mac,
            ends,
            protocol,
            payload,
            packet: bytes,
            verify,
        };
        self.transport(guest, now, &inner);
    }

    fn transport(&mut self, guest: &dyn Guest, now: Instant, inner: &Inner<'_>) {
        let Inner {
            mac, ends, payload, ..
        } = *inner;
        let mut io = Io {
            wire: &mut self.wire,
            guest,
            now,
        };
        match inner.protocol {
            IpProtocol::Tcp => {
                let verify = inner.verify;
                self.tcp
                    .segment(&mut io, &mut self.resolver, mac, ends, payload, verify);
            }
            IpProtocol::Udp => self.udp(guest, now, inner),
            IpProtocol::Icmp if ends.0.is_ipv4() => self.icmp.message(&mut io, mac, ends, payload),
            IpProtocol::Icmpv6 if ends.0.is_ipv6() => {
                self.icmp.message(&mut io, mac, ends, payload);
            }
            _ => {}
        }
    }

    fn udp(&mut self, guest: &dyn Guest, now: Instant, inner: &Inner<'_>) {
        let Inner { mac, ends, .. } = *inner;
        let Ok(udp) = UdpPacket::new_checked(inner.payload) else {
            return;
        };
        if inner.verify && !udp.verify_checksum(&ends.0.into(), &ends.1.into()) {
            return;
        }
        let (from, to) = (
            SocketAddr::new(ends.0, udp.src_port()),
            SocketAddr::new(ends.1, udp.dst_port()),
        );
        let mut io = Io {
            wire: &mut self.wire,
            guest,
            now,
        };
        let config = io.wire.config.clone();
        let gateway = match to.ip() {
            IpAddr::V4(a) => config.ipv4.is_some_and(|v| v.host == a || a.is_broadcast()),
            IpAddr::V6(a) => config.ipv6.is_some_and(|v| v.host == a),
        };
        match to.port() {
            dhcp::SERVER if gateway && to.is_ipv4() => {
                dhcp::message(&mut io, &mut self.leases, mac, udp.payload());
            }
            tftp::PORT if gateway && config.tftp.is_some() => {
                self.tftp.datagram(&mut io, mac, (from, to), udp.payload());
            }
            0 => {}
            _ if from.port() == 0 => {}
            _ => self.udp.datagram(
                &mut io,
                &mut self.resolver,
                mac,
                (from, to),
                udp.payload(),
                inner.packet,
            ),
        }
    }

    /// The guest sends no more for now.
    pub fn flush(&mut self, guest: &dyn Guest, now: Instant) {
        self.tcp.flush(&mut Io {
            wire: &mut self.wire,
            guest,
            now,
        });
    }

    /// The guest has room again.
    pub fn resume(&mut self, guest: &dyn Guest, now: Instant) {
        let mut io = Io {
            wire: &mut self.wire,
            guest,
            now,
        };
        if io.unstash() {
            self.tcp.resume(&mut io);
        }
    }

    /// A socket of the host's has something.
    pub fn event(&mut self, guest: &dyn Guest, now: Instant, event: Event) {
        let id = (event.key >> 3) as u64;
        let mut io = Io {
            wire: &mut self.wire,
            guest,
            now,
        };
        let buffer = &mut self.datagram;
        match Kind::of(event.key) {
            Some(Kind::Tcp) => self.tcp.event(&mut io, id, event.readable, event.writable),
            Some(Kind::TcpListener) => self.tcp.accept(&mut io, id),
            Some(Kind::Udp) => self.udp.event(&mut io, id, buffer),
            Some(Kind::UdpListener) => self.udp.accept(&mut io, id, buffer),
            Some(Kind::Icmp) => self.icmp.event(&mut io, id, buffer),
            None => {}
        }
    }

    /// Time passes. Call it after every wait.
    pub fn tick(&mut self, guest: &dyn Guest, now: Instant) {
        if now.saturating_duration_since(self.last_tick) < TICK {
            return;
        }
        self.last_tick = now;
        let mut io = Io {
            wire: &mut self.wire,
            guest,
            now,
        };
        io.unstash();
        self.tcp.tick(&mut io);
        self.udp.tick(&io);
        self.icmp.tick(now);
        let due = self
            .announced
            .is_none_or(|at| now.saturating_duration_since(at) >= ANNOUNCE);
        if due && io.wire.config.ipv6.is_some() && io.wire.last_mac != [0xff; 6] {
            self.announced = Some(now);
            ndp::announce(&mut io);
        }
    }

    /// How long may be waited before [`Nat::tick`].
    pub fn patience(&self) -> Duration {
        if self.tcp.has_deadlines() {
            TICK
        } else if self.tcp.count() + self.udp.count() + self.icmp.count() > 0 {
            SLOW_TICK
        } else {
            ANNOUNCE
        }
    }
}

/// Descriptors that a network may use, after raising the limit of this process as far as it goes.
fn files() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const ENOUGH: u64 = 16384;
    let limit = getrlimit(Resource::Nofile);
    let most = limit.maximum.unwrap_or(ENOUGH).min(ENOUGH);
    let mut current = limit.current.unwrap_or(ENOUGH);
    if current < most {
        let raised = Rlimit {
            current: Some(most),
            maximum: limit.maximum,
        };
        if setrlimit(Resource::Nofile, raised).is_ok() {
            current = most;
        }
    }
    // Some are for disks, consoles, other networks.
    (current as usize).saturating_sub(128).max(64)
}
