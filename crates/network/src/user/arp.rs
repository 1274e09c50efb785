//! ARP (RFC 826).

use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress};

use super::config::GATEWAY_MAC;
use super::wire::Io;

/// Answers for our addresses, and learns the guest's.
pub fn packet(io: &mut Io<'_>, payload: &[u8]) {
    let Ok(packet) = ArpPacket::new_checked(payload) else {
        return;
    };
    let Ok(ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr: mac,
        source_protocol_addr: source,
        target_protocol_addr: target,
        ..
    }) = ArpRepr::parse(&packet)
    else {
        return;
    };
    if io.wire.config.is_guest(source.into()) && !mac.is_broadcast() && !mac.is_multicast() {
        io.wire.learn(source.into(), mac.0);
    }
    if operation == ArpOperation::Request && io.wire.config.is_ours(target.into()) {
        let reply = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Reply,
            source_hardware_addr: EthernetAddress(GATEWAY_MAC),
            source_protocol_addr: target,
            target_hardware_addr: mac,
            target_protocol_addr: source,
        };
        io.arp(mac.0, &reply);
    }
}
