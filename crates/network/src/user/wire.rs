//! Packets to the guest.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use polling::Poller;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, IpProtocol, Ipv4Packet, Ipv4Repr,
    Ipv6Packet, Ipv6Repr,
};

use super::config::{Config, GATEWAY_MAC, link_local};
use super::fragments;
use crate::checksum;
use crate::frame::{Accepts, Frame};
use crate::link::Link;

/// The largest IP packet that goes to the guest in one piece.
pub const MTU: usize = 1500;
/// Bytes of an Ethernet header.
pub const ETHERNET: usize = 14;
/// Small frames kept while the guest has no room for them.
const STASH: usize = 64;
/// Guests' addresses known at most.
const NEIGHBOURS: usize = 256;

/// Where packets for the guest go.
pub trait Guest {
    /// See [`Link::deliver`].
    fn deliver(&self, frame: &Frame<'_>) -> bool;

    /// See [`Link::nic_accepts`].
    fn accepts(&self) -> Accepts;
}

impl Guest for Link {
    fn deliver(&self, frame: &Frame<'_>) -> bool {
        Link::deliver(self, frame)
    }

    fn accepts(&self) -> Accepts {
        self.nic_accepts()
    }
}

/// What all protocols share.
pub struct Wire {
    pub config: Arc<Config>,
    pub poller: Arc<Poller>,
    /// The guest's MAC addresses by its IP addresses, as seen.
    neighbours: HashMap<IpAddr, [u8; 6]>,
    /// The last address that sent anything: where answers to nobody in particular go.
    pub last_mac: [u8; 6],
    stash: VecDeque<Vec<u8>>,
    next_id: u64,
    ident: u16,
}

/// One call's surroundings.
pub struct Io<'a> {
    pub wire: &'a mut Wire,
    pub guest: &'a dyn Guest,
    pub now: Instant,
}

/// What kind of socket an event is of; the low bits of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Tcp = 0,
    TcpListener = 1,
    Udp = 2,
    UdpListener = 3,
    Icmp = 4,
}

impl Kind {
    /// Out of a key.
    pub fn of(key: usize) -> Option<Kind> {
        Some(match key & 7 {
            0 => Kind::Tcp,
            1 => Kind::TcpListener,
            2 => Kind::Udp,
            3 => Kind::UdpListener,
            4 => Kind::Icmp,
            _ => return None,
        })
    }
}

impl Wire {
    pub fn new(config: Arc<Config>, poller: Arc<Poller>) -> Wire {
        Wire {
            config,
            poller,
            neighbours: HashMap::new(),
            last_mac: [0xff; 6],
            stash: VecDeque::new(),
            next_id: 1,
            ident: 0,
        }
    }

    /// A number that no socket had before, and the key that goes with it.
    pub fn key(&mut self, kind: Kind) -> (u64, usize) {
        let id = self.next_id;
        self.next_id += 1;
        (id, (id as usize) << 3 | kind as usize)
    }

    /// Remembers where a guest's address is. Full: the one that is there stays.
    pub fn learn(&mut self, address: IpAddr, mac: [u8; 6]) {
        if self.neighbours.len() < NEIGHBOURS || self.neighbours.contains_key(&address) {
            self.neighbours.insert(address, mac);
        }
    }

    /// The MAC address of one of the guest's addresses.
    pub fn neighbour(&self, address: IpAddr) -> Option<[u8; 6]> {
        self.neighbours.get(&address).copied()
    }

    /// The next IPv4 identification.
    pub fn ident(&mut self) -> u16 {
        self.ident = self.ident.wrapping_add(1);
        self.ident
    }
}

impl Io<'_> {
    /// Sends a finished frame, or keeps it until there is room. Too many kept: it is lost.
    pub fn frame(&mut self, bytes: Vec<u8>) {
        if self.wire.stash.is_empty() && self.guest.deliver(&Frame::plain(&[&bytes])) {
            return;
        }
        if self.wire.stash.len() < STASH {
            self.wire.stash.push_back(bytes);
        }
    }

    /// Sends what was kept. True if all went.
    pub fn unstash(&mut self) -> bool {
        while let Some(frame) = self.wire.stash.front() {
            if !self.guest.deliver(&Frame::plain(&[frame])) {
                return false;
            }
            self.wire.stash.pop_front();
        }
        true
    }

    /// The guest's MAC for an address; asks for it if it is not known.
    pub fn resolve(&mut self, address: IpAddr) -> Option<[u8; 6]> {
        let known = self.wire.neighbour(address);
        if known.is_none() {
            match address {
                IpAddr::V4(target) => {
                    let v4 = self.wire.config.ipv4?;
                    let arp = ArpRepr::EthernetIpv4 {
                        operation: ArpOperation::Request,
                        source_hardware_addr: EthernetAddress(GATEWAY_MAC),
                        source_protocol_addr: v4.host,
                        target_hardware_addr: EthernetAddress([0; 6]),
                        target_protocol_addr: target,
                    };
                    self.arp([0xff; 6], &arp);
                }
                IpAddr::V6(target) => super::ndp::solicit(self, target),
            }
        }
        known
    }

    /// Sends an ARP packet.
    pub fn arp(&mut self, to: [u8; 6], arp: &ArpRepr) {
        let mut bytes = vec![0; ETHERNET + arp.buffer_len()];
        ethernet(&mut bytes, to, 0x0806);
        arp.emit(&mut ArpPacket::new_unchecked(&mut bytes[ETHERNET..]));
        self.frame(bytes);
    }

    /// Sends an IP packet with this payload to the guest, in fragments if it is too long for one.
    pub fn ip(
        &mut self,
        mac: [u8; 6],
        source: IpAddr,
        destination: IpAddr,
        protocol: u8,
        hop_limit: u8,
        payload: &[u8],
    ) {
        let header = if source.is_ipv4() { 20 } else { 40 };
        if header + payload.len() > MTU {
            for fragment in fragments::split(self, source, destination, protocol, payload) {
                let mut bytes = vec![0; ETHERNET];
                ethernet(&mut bytes, mac, ethertype(source));
                bytes.extend(fragment);
                self.frame(bytes);
            }
            return;
        }
        let mut bytes = vec![0; ETHERNET + header];
        ethernet(&mut bytes, mac, ethertype(source));
        ip_header(
            &mut bytes[ETHERNET..],
            source,
            destination,
            protocol,
            hop_limit,
            payload.len(),
        );
        bytes.extend_from_slice(payload);
        self.frame(bytes);
    }

    /// Sends a UDP datagram to the guest.
    pub fn udp(&mut self, mac: [u8; 6], source: SocketAddr, destination: SocketAddr, data: &[u8]) {
        let length = 8 + data.len();
        let Ok(length16) = u16::try_from(length) else {
            return;
        };
        let mut datagram = Vec::with_capacity(length);
        datagram.extend(source.port().to_be_bytes());
        datagram.extend(destination.port().to_be_bytes());
        datagram.extend(length16.to_be_bytes());
        datagram.extend([0; 2]);
        datagram.extend_from_slice(data);
        let sum = checksum::pseudo_header(source.ip(), destination.ip(), 17, length);
        let sum = match checksum::finish(sum, &[&datagram]) {
            0 => 0xffff,
            sum => sum,
        };
        datagram[6..8].copy_from_slice(&sum.to_be_bytes());
        self.ip(mac, source.ip(), destination.ip(), 17, 64, &datagram);
    }
}

/// The EtherType of an address's family.
pub fn ethertype(address: IpAddr) -> u16 {
    if address.is_ipv4() { 0x0800 } else { 0x86dd }
}

/// Writes an Ethernet header from us.
pub fn ethernet(bytes: &mut [u8], to: [u8; 6], kind: u16) {
    bytes[..6].copy_from_slice(&to);
    bytes[6..12].copy_from_slice(&GATEWAY_MAC);
    bytes[12..14].copy_from_slice(&kind.to_be_bytes());
}

/// Writes an IP header. Both addresses are of one family.
pub fn ip_header(
    bytes: &mut [u8],
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    hop_limit: u8,
    payload_len: usize,
) {
    let next_header = IpProtocol::from(protocol);
    match (source, destination) {
        (IpAddr::V4(src_addr), IpAddr::V4(dst_addr)) => {
            let repr = Ipv4Repr {
                src_addr,
                dst_addr,
                next_header,
                payload_len,
                hop_limit,
            };
            repr.emit(
                &mut Ipv4Packet::new_unchecked(bytes),
                &ChecksumCapabilities::default(),
            );
        }
        (source, destination) => {
            let v6 = |a| match a {
                IpAddr::V6(a) => a,
                IpAddr::V4(a) => a.to_ipv6_mapped(),
            };
            let repr = Ipv6Repr {
                src_addr: v6(source),
                dst_addr: v6(destination),
                next_header,
                payload_len,
                hop_limit,
            };
            repr.emit(&mut Ipv6Packet::new_unchecked(bytes));
        }
    }
}

/// The address from which errors about a packet to `address` come.
pub fn router(config: &Config, address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => config.ipv4.map_or(address, |v| v.host.into()),
        IpAddr::V6(a) if a.is_unicast_link_local() => link_local().into(),
        IpAddr::V6(_) => config.ipv6.map_or(address, |v| v.host.into()),
    }
}
