//! Neighbour discovery and router advertisements (RFC 4861, 4862, 8106).

use std::net::{IpAddr, Ipv6Addr};

use super::config::{GATEWAY_MAC, link_local};
use super::icmp;
use super::wire::Io;

const ROUTER_SOLICITATION: u8 = 133;
const ROUTER_ADVERTISEMENT: u8 = 134;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Options.
const SOURCE_ADDRESS: u8 = 1;
const TARGET_ADDRESS: u8 = 2;
const PREFIX: u8 = 3;
const MTU: u8 = 5;
const RDNSS: u8 = 25;
/// Seconds.
const ROUTER_LIFETIME: u16 = 1800;
const PREFIX_LIFETIME: u32 = 86400;

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A message of neighbour discovery (types 133 to 137).
pub fn message(io: &mut Io<'_>, mac: [u8; 6], source: Ipv6Addr, message: &[u8]) {
    match message.first() {
        Some(&ROUTER_SOLICITATION) => {
            let to = if source.is_unspecified() {
                ALL_NODES
            } else {
                source
            };
            advertise_router(io, mac, to);
        }
        Some(&NEIGHBOUR_SOLICITATION) => {
            let Some(target) = message.get(8..24) else {
                return;
            };
            let Ok(target) = <[u8; 16]>::try_from(target).map(Ipv6Addr::from) else {
                return;
            };
            if io.wire.config.is_ours(target.into()) {
                advertise_neighbour(io, mac, source, target);
            }
        }
        // What the guest says of itself is learned from any packet.
        _ => {}
    }
}

fn advertise_neighbour(io: &mut Io<'_>, mac: [u8; 6], source: Ipv6Addr, target: Ipv6Addr) {
    // Whoever tests whether its address is in use has none yet (RFC 4862, 5.4.3).
    let (to, solicited) = if source.is_unspecified() {
        (ALL_NODES, 0)
    } else {
        (source, 0x40)
    };
    let mut message = vec![
        NEIGHBOUR_ADVERTISEMENT,
        0,
        0,
        0,
        0x80 | solicited | 0x20,
        0,
        0,
        0,
    ];
    message.extend(target.octets());
    message.extend([TARGET_ADDRESS, 1]);
    message.extend(GATEWAY_MAC);
    let mac = if source.is_unspecified() {
        multicast_mac(ALL_NODES)
    } else {
        mac
    };
    icmp::send(io, mac, (target.into(), to.into()), &mut message);
}

/// Asks who has an address of the guest's.
pub fn solicit(io: &mut Io<'_>, target: Ipv6Addr) {
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&target.octets()[13..]);
    let group = Ipv6Addr::from(group);
    let mut message = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    message.extend(target.octets());
    message.extend([SOURCE_ADDRESS, 1]);
    message.extend(GATEWAY_MAC);
    icmp::send(
        io,
        multicast_mac(group),
        (link_local().into(), group.into()),
        &mut message,
    );
}

/// Tells everybody of the network.
pub fn announce(io: &mut Io<'_>) {
    advertise_router(io, multicast_mac(ALL_NODES), ALL_NODES);
}

fn advertise_router(io: &mut Io<'_>, mac: [u8; 6], to: Ipv6Addr) {
    let config = io.wire.config.clone();
    let Some(v6) = config.ipv6 else { return };
    let mut message = vec![ROUTER_ADVERTISEMENT, 0, 0, 0, 64, 0];
    // A guest that can reach nothing gets addresses, but no router.
    let lifetime = if config.restricted {
        0
    } else {
        ROUTER_LIFETIME
    };
    message.extend(lifetime.to_be_bytes());
    message.extend([0; 8]);
    message.extend([SOURCE_ADDRESS, 1]);
    message.extend(GATEWAY_MAC);
    message.extend([MTU, 1, 0, 0]);
    message.extend(1500u32.to_be_bytes());
    // On link, and for autonomous configuration if its length allows (RFC 4862, 5.5.3).
    let autonomous = if v6.length == 64 { 0x40 } else { 0 };
    message.extend([PREFIX, 4, v6.length, 0x80 | autonomous]);
    message.extend(PREFIX_LIFETIME.to_be_bytes());
    message.extend((PREFIX_LIFETIME / 6).to_be_bytes());
    message.extend([0; 4]);
    message.extend(v6.prefix.octets());
    if !config.restricted {
        message.extend([RDNSS, 3, 0, 0]);
        message.extend(u32::from(ROUTER_LIFETIME).to_be_bytes());
        message.extend(v6.dns.octets());
    }
    let mac = if to == ALL_NODES {
        multicast_mac(to)
    } else {
        mac
    };
    icmp::send(
        io,
        mac,
        (IpAddr::from(link_local()), to.into()),
        &mut message,
    );
}

/// RFC 2464, 7.
fn multicast_mac(group: Ipv6Addr) -> [u8; 6] {
    let octets = group.octets();
    let mut mac = [0x33; 6];
    mac[2..].copy_from_slice(&octets[12..]);
    mac
}
