//! Where what a guest sends may go.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::config::{Config, Transport};
use super::resolver::Resolver;

/// Where a flow leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// To this address from the host.
    Host(SocketAddr),
    /// To a `guestfwd`, by its index.
    Forward(usize),
    /// Nowhere, and the guest is told.
    Refused,
}

/// Decides. `attempt` counts a guest's tries at the resolver.
pub fn route(
    config: &Config,
    resolver: &mut Resolver,
    transport: Transport,
    to: SocketAddr,
    attempt: usize,
) -> Route {
    if transport == Transport::Tcp
        && let Some(i) = config.guest_forwards.iter().position(|f| f.server == to)
    {
        return Route::Forward(i);
    }
    if config.restricted {
        return Route::Refused;
    }
    let host = match to.ip() {
        IpAddr::V4(address) => {
            let Some(v4) = config.ipv4 else {
                return Route::Refused;
            };
            if address == v4.host {
                Ipv4Addr::LOCALHOST.into()
            } else if address == v4.dns {
                return name_server(resolver, to.port(), attempt);
            } else if v4.contains(address) || !may_leave4(address) {
                return Route::Refused;
            } else {
                to.ip()
            }
        }
        IpAddr::V6(address) => {
            let Some(v6) = config.ipv6 else {
                return Route::Refused;
            };
            if address == v6.host {
                Ipv6Addr::LOCALHOST.into()
            } else if address == v6.dns {
                return name_server(resolver, to.port(), attempt);
            } else if v6.contains(address) || !may_leave6(address) {
                return Route::Refused;
            } else {
                to.ip()
            }
        }
    };
    Route::Host(SocketAddr::new(host, to.port()))
}

fn name_server(resolver: &mut Resolver, port: u16, attempt: usize) -> Route {
    match resolver.server(attempt).filter(|_| port == 53) {
        Some(server) => Route::Host(server),
        None => Route::Refused,
    }
}

/// Addresses that mean something else on the host than in the guest never leave: this host (0/8, 127/8), groups, broadcast.
pub fn may_leave4(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// The same; addresses that stand for IPv4 ones must not be a way around (RFC 4291, 2.5.5).
pub fn may_leave6(address: Ipv6Addr) -> bool {
    let compatible = address.segments()[..6] == [0; 6];
    !compatible
        && address.to_ipv4_mapped().is_none()
        && !address.is_multicast()
        && !address.is_unicast_link_local()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn to(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn ask(config: &Config, address: &str) -> Route {
        let mut resolver = Resolver::fixed(vec![to("192.0.2.53:5353")]);
        route(config, &mut resolver, Transport::Tcp, to(address), 0)
    }

    #[test]
    fn loopback_only_by_the_gateway() {
        let config = Config::default();
        assert_eq!(ask(&config, "10.0.2.2:80"), Route::Host(to("127.0.0.1:80")));
        assert_eq!(ask(&config, "[fec0::2]:80"), Route::Host(to("[::1]:80")));
        assert_eq!(
            ask(&config, "10.0.2.3:53"),
            Route::Host(to("192.0.2.53:5353"))
        );
        assert_eq!(
            ask(&config, "192.0.2.1:80"),
            Route::Host(to("192.0.2.1:80"))
        );
        for refused in [
            "127.0.0.1:80",
            "127.1.2.3:80",
            "0.0.0.0:80",
            "0.1.2.3:80",
            "10.0.2.3:80",
            "10.0.2.77:80",
            "224.0.0.1:80",
            "255.255.255.255:80",
            "[::]:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "[::127.0.0.1]:80",
            "[fec0::77]:80",
            "[fe80::1]:80",
            "[ff02::1]:80",
        ] {
            assert_eq!(ask(&config, refused), Route::Refused, "{refused}");
        }
    }

    proptest! {
        #[test]
        fn restricted_lets_nothing_out(ip: [u8; 16], port: u16, four: bool) {
            let config = Config { restricted: true, ..Config::default() };
            let ip: IpAddr = if four { <[u8; 4]>::try_from(&ip[..4]).unwrap().into() } else { ip.into() };
            let mut resolver = Resolver::fixed(vec![to("192.0.2.53:53")]);
            for transport in [Transport::Tcp, Transport::Udp] {
                let route = route(&config, &mut resolver, transport, SocketAddr::new(ip, port), 0);
                prop_assert_eq!(route, Route::Refused);
            }
        }
    }
}
