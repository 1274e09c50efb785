//! DHCP and BOOTP (RFC 2131, 2132, 951), for the guests of one network.

use std::net::Ipv4Addr;

use smoltcp::wire::{
    DhcpMessageType, DhcpOpCode, DhcpOption, DhcpOptionWriter, DhcpPacket, EthernetAddress,
};

use super::config::{Config, Ipv4};
use super::wire::Io;

/// UDP ports.
pub const SERVER: u16 = 67;
const CLIENT: u16 = 68;
/// Seconds that a lease is good for.
const LEASE: u32 = 86400;
/// Addresses given out at most.
const LEASES: usize = 256;
/// Bytes of a BOOTP message at least (RFC 1542, 2.1).
const BOOTP: usize = 300;
/// Bytes that everybody takes (RFC 2131, 2).
const LARGEST: usize = 576 - 28;
const MAGIC: u32 = 0x6382_5363;

/// DHCP options (RFC 2132).
mod option {
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const REQUESTED_IP: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const TFTP_SERVER_NAME: u8 = 66;
    pub const BOOTFILE: u8 = 67;
    /// RFC 3397.
    pub const DOMAIN_SEARCH: u8 = 119;
}

/// Who has which address: the n-th from `dhcpstart` on.
#[derive(Default)]
pub struct Leases {
    taken: Vec<EthernetAddress>,
}

impl Leases {
    /// The address of a client: the one it has, or a new one.
    fn address(&mut self, v4: &Ipv4, mac: EthernetAddress) -> Option<Ipv4Addr> {
        let at = match self.taken.iter().position(|m| *m == mac) {
            Some(at) => at,
            None if self.taken.len() < LEASES => {
                let at = self.taken.len();
                nth(v4, at)?;
                self.taken.push(mac);
                at
            }
            None => return None,
        };
        nth(v4, at)
    }
}

/// The n-th address that can be given.
fn nth(v4: &Ipv4, n: usize) -> Option<Ipv4Addr> {
    let start = u32::from(v4.dhcp_start);
    (start..start.saturating_add(LEASES as u32 + 2))
        .map(Ipv4Addr::from)
        .take_while(|a| v4.contains(*a) && *a != v4.broadcast())
        .filter(|a| *a != v4.host && *a != v4.dns)
        .nth(n)
}

/// A message to the server's port.
pub fn message(io: &mut Io<'_>, leases: &mut Leases, mac: [u8; 6], data: &[u8]) {
    let config = io.wire.config.clone();
    let Some(v4) = config.ipv4 else { return };
    let Ok(request) = DhcpPacket::new_checked(data) else {
        return;
    };
    if request.opcode() != DhcpOpCode::Request || request.hardware_len() != 6 {
        return;
    }
    let client = request.client_hardware_address();
    let kind = find(&request, option::MESSAGE_TYPE)
        .and_then(|d| d.first().copied())
        .map(DhcpMessageType::from);
    let server = find(&request, option::SERVER_ID).and_then(address);
    if server.is_some_and(|s| s != v4.host) {
        return; // Somebody else's offer was taken.
    }
    let answer = match kind {
        None => Answer::Bootp,
        Some(DhcpMessageType::Discover) => Answer::Dhcp(DhcpMessageType::Offer),
        Some(DhcpMessageType::Request) => Answer::Dhcp(DhcpMessageType::Ack),
        Some(DhcpMessageType::Inform) => Answer::Inform,
        // What is given stays the client's.
        Some(_) => return,
    };
    let Some(lease) = leases.address(&v4, client) else {
        return tracing::debug!("no address is left for {client}");
    };
    let wanted = find(&request, option::REQUESTED_IP)
        .and_then(address)
        .or_else(|| Some(request.client_ip()).filter(|a| !a.is_unspecified()));
    let refused = answer == Answer::Dhcp(DhcpMessageType::Ack)
        && wanted.is_some_and(|wanted| wanted != lease);
    let answer = if refused {
        Answer::Dhcp(DhcpMessageType::Nak)
    } else {
        answer
    };
    let Some(reply) = reply(&config, &v4, &request, lease, answer) else {
        return tracing::debug!("a DHCP reply does not fit");
    };
    if !refused {
        io.wire.learn(lease.into(), client.0);
    }
    let source = (v4.host, SERVER).into();
    let known = request.client_ip();
    if known.is_unspecified() || refused {
        // Its stack takes only broadcasts for sure (RFC 2131, 4.1).
        let everybody = (Ipv4Addr::BROADCAST, CLIENT).into();
        let to = if request.flags().is_empty() && !refused {
            mac
        } else {
            [0xff; 6]
        };
        io.udp(to, source, everybody, &reply);
    } else {
        io.udp(mac, source, (known, CLIENT).into(), &reply);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Bootp,
    Dhcp(DhcpMessageType),
    /// Parameters only.
    Inform,
}

fn find<'a>(packet: &'a DhcpPacket<&[u8]>, kind: u8) -> Option<&'a [u8]> {
    packet.options().find(|o| o.kind == kind).map(|o| o.data)
}

fn address(data: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from)
}

fn reply(
    config: &Config,
    v4: &Ipv4,
    request: &DhcpPacket<&[u8]>,
    lease: Ipv4Addr,
    answer: Answer,
) -> Option<Vec<u8>> {
    let mut bytes = vec![0; LARGEST];
    let mut packet = DhcpPacket::new_unchecked(&mut bytes[..]);
    packet.set_opcode(DhcpOpCode::Reply);
    packet.set_hardware_type(request.hardware_type());
    packet.set_hardware_len(6);
    packet.set_transaction_id(request.transaction_id());
    packet.set_flags(request.flags());
    packet.set_relay_agent_ip(request.relay_agent_ip());
    packet.set_client_hardware_address(request.client_hardware_address());
    packet.set_magic_number(MAGIC);
    let refused = answer == Answer::Dhcp(DhcpMessageType::Nak);
    if !refused {
        packet.set_client_ip(request.client_ip());
        packet.set_server_ip(v4.host);
        if answer != Answer::Inform {
            packet.set_your_ip(lease);
        }
    }
    let used = {
        let mut room = packet.options_mut();
        options(&mut room, config, v4, answer).ok()?
    };
    if !refused {
        // The fields of BOOTP; the names end with a zero byte.
        if let Some(name) = &config.tftp_server_name {
            put(&mut bytes[44..108], name.as_bytes());
        }
        if let Some(file) = &config.bootfile {
            put(&mut bytes[108..236], file.as_bytes());
        }
    }
    bytes.truncate((240 + used).max(BOOTP));
    Some(bytes)
}

fn put(field: &mut [u8], text: &[u8]) {
    let n = text.len().min(field.len() - 1);
    field[..n].copy_from_slice(&text[..n]);
}

/// Writes the options: how many bytes they take.
fn options(
    room: &mut DhcpOptionWriter<'_>,
    config: &Config,
    v4: &Ipv4,
    answer: Answer,
) -> Result<usize, smoltcp::wire::Error> {
    let mut used = 0;
    let mut emit = |kind: u8, data: &[u8]| {
        used += 2 + data.len();
        room.emit(DhcpOption { kind, data })
    };
    match answer {
        Answer::Bootp => {}
        Answer::Inform => emit(option::MESSAGE_TYPE, &[DhcpMessageType::Ack.into()])?,
        Answer::Dhcp(kind) => emit(option::MESSAGE_TYPE, &[kind.into()])?,
    }
    if answer != Answer::Bootp {
        emit(option::SERVER_ID, &v4.host.octets())?;
    }
    if answer != Answer::Dhcp(DhcpMessageType::Nak) {
        if matches!(answer, Answer::Dhcp(_)) {
            emit(option::LEASE_TIME, &LEASE.to_be_bytes())?;
        }
        emit(option::SUBNET_MASK, &v4.mask().octets())?;
        // A guest that can reach nothing has no router and asks no names.
        if !config.restricted {
            emit(option::ROUTER, &v4.host.octets())?;
            emit(option::DNS, &v4.dns.octets())?;
        }
        for (kind, text) in [
            (option::HOST_NAME, &config.hostname),
            (option::DOMAIN_NAME, &config.domain),
            (option::TFTP_SERVER_NAME, &config.tftp_server_name),
            (option::BOOTFILE, &config.bootfile),
        ] {
            if let Some(text) = text {
                emit(kind, text.as_bytes())?;
            }
        }
        let search = search(&config.search);
        if !search.is_empty() {
            emit(option::DOMAIN_SEARCH, &search)?;
        }
    }
    room.end()?;
    Ok(used + 1)
}

/// The search list in the encoding of DNS, as much of it as fits (RFC 3397, 2).
fn search(names: &[String]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for name in names {
        let before = bytes.len();
        for label in name.split('.').filter(|l| !l.is_empty()) {
            let label = &label.as_bytes()[..label.len().min(63)];
            bytes.push(label.len() as u8);
            bytes.extend_from_slice(label);
        }
        bytes.push(0);
        if bytes.len() > 255 {
            bytes.truncate(before);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_skip_what_is_taken_and_end_with_the_network() {
        let mut v4 = Ipv4::new(Ipv4Addr::new(192, 168, 5, 0), 29);
        v4.dhcp_start = Ipv4Addr::new(192, 168, 5, 1);
        let mut leases = Leases::default();
        let mut give = |n| leases.address(&v4, EthernetAddress([2, 0, 0, 0, 0, n]));
        let host = |n| Some(Ipv4Addr::new(192, 168, 5, n));
        assert_eq!(give(1), host(1));
        assert_eq!(give(2), host(4));
        assert_eq!(give(1), host(1));
        assert_eq!((give(3), give(4), give(5)), (host(5), host(6), None));
    }

    #[test]
    fn search_list() {
        let list = search(&["a.example".into(), "b".into(), "x".repeat(300)]);
        assert_eq!(&list[..13], b"\x01a\x07example\0\x01b");
        assert!(list.len() <= 255);
    }
}
