//! What the user chose for a user network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

/// A user network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub ipv4: Option<Ipv4>,
    pub ipv6: Option<Ipv6>,
    /// Nothing goes out but what forwards allow.
    pub restricted: bool,
    /// The name that DHCP gives the guest.
    pub hostname: Option<String>,
    pub domain: Option<String>,
    /// The search list of DHCP (RFC 3397).
    pub search: Vec<String>,
    /// A folder that TFTP serves, read-only.
    pub tftp: Option<PathBuf>,
    /// The TFTP server's name in BOOTP and DHCP.
    pub tftp_server_name: Option<String>,
    pub bootfile: Option<String>,
    pub host_forwards: Vec<HostForward>,
    pub guest_forwards: Vec<GuestForward>,
    /// Where names are looked up; empty: what the host's `/etc/resolv.conf` says.
    pub resolvers: Vec<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            ipv4: Some(Ipv4::default()),
            ipv6: Some(Ipv6::default()),
            restricted: false,
            hostname: None,
            domain: None,
            search: Vec::new(),
            tftp: None,
            tftp_server_name: None,
            bootfile: None,
            host_forwards: Vec::new(),
            guest_forwards: Vec::new(),
            resolvers: Vec::new(),
        }
    }
}

/// The IPv4 side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv4 {
    pub net: Ipv4Addr,
    /// Bits of the network.
    pub prefix: u8,
    /// The gateway, and the host's loopback as the guest sees it.
    pub host: Ipv4Addr,
    pub dns: Ipv4Addr,
    /// The first address that DHCP gives.
    pub dhcp_start: Ipv4Addr,
}

impl Default for Ipv4 {
    fn default() -> Self {
        Ipv4::new(Ipv4Addr::new(10, 0, 2, 0), 24)
    }
}

impl Ipv4 {
    /// A network with the usual hosts: gateway .2, DNS .3, leases from .15 on.
    pub fn new(net: Ipv4Addr, prefix: u8) -> Ipv4 {
        let base = u32::from(net) & mask(prefix);
        Ipv4 {
            net: base.into(),
            prefix,
            host: (base | 2).into(),
            dns: (base | 3).into(),
            dhcp_start: (base | 15).into(),
        }
    }

    /// Whether an address is in the network.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u32::from(address) & mask(self.prefix) == u32::from(self.net)
    }

    /// The broadcast address.
    pub fn broadcast(&self) -> Ipv4Addr {
        (u32::from(self.net) | !mask(self.prefix)).into()
    }

    /// The mask.
    pub fn mask(&self) -> Ipv4Addr {
        mask(self.prefix).into()
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix.min(32)))
        .unwrap_or(0)
}

/// The IPv6 side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ipv6 {
    pub prefix: Ipv6Addr,
    pub length: u8,
    pub host: Ipv6Addr,
    pub dns: Ipv6Addr,
}

impl Default for Ipv6 {
    fn default() -> Self {
        Ipv6::new(Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 64)
    }
}

impl Ipv6 {
    /// A network with the usual hosts: gateway ::2, DNS ::3.
    pub fn new(prefix: Ipv6Addr, length: u8) -> Ipv6 {
        let base = u128::from(prefix) & mask6(length);
        Ipv6 {
            prefix: base.into(),
            length,
            host: (base | 2).into(),
            dns: (base | 3).into(),
        }
    }

    /// Whether an address is in the network.
    pub fn contains(&self, address: Ipv6Addr) -> bool {
        u128::from(address) & mask6(self.length) == u128::from(self.prefix)
    }
}

fn mask6(length: u8) -> u128 {
    u128::MAX
        .checked_shl(128 - u32::from(length.min(128)))
        .unwrap_or(0)
}

/// A transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    Tcp,
    Udp,
}

/// `hostfwd`: a port of the host that leads to the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostForward {
    pub transport: Transport,
    pub host: SocketAddr,
    pub guest: SocketAddr,
    /// As the user wrote it.
    pub text: String,
}

/// `guestfwd`: an address of the virtual network that leads to something on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestForward {
    pub server: SocketAddr,
    pub target: Target,
}

/// What a `guestfwd` leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Tcp(SocketAddr),
    Unix(PathBuf),
    /// A command, run by the shell for each connection, with the connection on its standard input and output.
    Command(String),
}

impl Config {
    /// Why this is no network, in the words of QEMU where it has some.
    pub fn check(&self) -> Result<(), String> {
        if self.ipv4.is_none() && self.ipv6.is_none() {
            return Err("IPv4 and IPv6 disabled".into());
        }
        if let Some(v4) = &self.ipv4 {
            if v4.prefix < 4 || v4.prefix > 30 {
                return Err("net= needs a prefix between 4 and 30 bits".into());
            }
            for (name, address) in [
                ("host", v4.host),
                ("dns", v4.dns),
                ("dhcpstart", v4.dhcp_start),
            ] {
                let inside = v4.contains(address) && address != v4.net && address != v4.broadcast();
                if !inside {
                    return Err(format!("{name}={address} is not a host of the network"));
                }
            }
            if v4.host == v4.dns {
                return Err("DNS must be different from host".into());
            }
            if v4.dhcp_start == v4.host || v4.dhcp_start == v4.dns {
                return Err("DHCP must be different from host and DNS".into());
            }
        }
        if let Some(v6) = &self.ipv6 {
            if v6.length > 126 {
                return Err("IPv6 prefix must be at most 126 bits long".into());
            }
            for (name, address) in [("ipv6-host", v6.host), ("ipv6-dns", v6.dns)] {
                if !v6.contains(address) {
                    return Err(format!("{name}={address} is not in the prefix"));
                }
            }
            if v6.host == v6.dns {
                return Err("IPv6 DNS must be different from host".into());
            }
        }
        for name in [&self.hostname, &self.domain, &self.tftp_server_name]
            .into_iter()
            .flatten()
        {
            if name.len() > 255 {
                return Err(format!("'{name}' is too long (at most 255 characters)"));
            }
        }
        if self.bootfile.as_ref().is_some_and(|b| b.len() > 127) {
            return Err("bootfile name is too long (at most 127 characters)".into());
        }
        Ok(())
    }

    /// The addresses at which we answer ourselves.
    pub fn is_ours(&self, address: IpAddr) -> bool {
        let service = match address {
            IpAddr::V4(a) => self.ipv4.is_some_and(|v| a == v.host || a == v.dns),
            IpAddr::V6(a) => {
                a == link_local() || self.ipv6.is_some_and(|v| a == v.host || a == v.dns)
            }
        };
        service || self.guest_forwards.iter().any(|f| f.server.ip() == address)
    }

    /// Where a guest may send from.
    pub fn is_guest(&self, address: IpAddr) -> bool {
        let inside = match address {
            IpAddr::V4(a) => self
                .ipv4
                .is_some_and(|v| v.contains(a) && a != v.net && a != v.broadcast()),
            IpAddr::V6(a) => {
                self.ipv6
                    .is_some_and(|v| v.contains(a) || a.is_unicast_link_local())
                    && !a.is_unspecified()
                    && !a.is_multicast()
            }
        };
        inside && !self.is_ours(address)
    }
}

/// The router's link-local address.
pub fn link_local() -> Ipv6Addr {
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2)
}

/// The MAC address of everything on the virtual network that is not the guest: locally administered, and the gateway's
/// address of QEMU's users.
pub const GATEWAY_MAC: [u8; 6] = [0x52, 0x55, 0x0a, 0x00, 0x02, 0x02];
