//! The types of `-netdev`.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;
use std::time::Duration;

use machine::description::NetworkKind;
use network::stream::{Address, Config};
use network::vmnet::{self, Addresses, Mode};

use crate::Error;
use crate::keyval::KeyValues;

/// A back end of that type.
pub fn parse(kind: &str, values: &mut KeyValues) -> Result<NetworkKind, Error> {
    match kind {
        "user" => super::user::parse(values).map(|c| NetworkKind::User(Box::new(c))),
        "socket" => socket(values).map(NetworkKind::Stream),
        "stream" => stream(values).map(NetworkKind::Stream),
        #[cfg(target_os = "linux")]
        "tap" => tap(values).map(NetworkKind::Tap),
        #[cfg(not(target_os = "linux"))]
        "tap" => Err(Error::new("this host has no tap interfaces").hint("Use -netdev user")),
        "vmnet-host" | "vmnet-shared" | "vmnet-bridged" => {
            if !cfg!(target_os = "macos") {
                let why = format!("no back end '{kind}': only macOS has it");
                return Err(Error::new(why).hint("Use -netdev user"));
            }
            vmnet(kind, values).map(NetworkKind::Vmnet)
        }
        "dgram" | "hubport" => Err(Error::new(format!(
            "Dormer does not have the back end '{kind}' yet"
        ))
        .hint("Use -netdev help to list those there are")),
        "bridge" | "l2tpv3" | "vde" | "netmap" | "vhost-user" | "vhost-vdpa" | "af-xdp"
        | "passt" => Err(
            Error::new(format!("Dormer does not have the back end '{kind}'"))
                .hint("Use -netdev help to list those there are"),
        ),
        _ => Err(
            Error::new(format!("Parameter 'type' does not accept value '{kind}'"))
                .hint("Use -netdev help to list the types"),
        ),
    }
}

fn missing(key: &str) -> Error {
    Error::new(format!("Parameter '{key}' is missing"))
}

fn resolve(host: &str, port: &str) -> Result<SocketAddr, Error> {
    let bad = || Error::new(format!("address resolution failed for {host}:{port}"));
    let port: u16 = port.parse().map_err(|_| bad())?;
    let host = match host {
        "" => "0.0.0.0",
        host => host.trim_start_matches('[').trim_end_matches(']'),
    };
    (host, port)
        .to_socket_addrs()
        .map_err(|_| bad())?
        .next()
        .ok_or_else(bad)
}

/// `-netdev socket`: the older spelling.
fn socket(values: &mut KeyValues) -> Result<Config, Error> {
    for key in ["mcast", "udp", "fd", "localaddr"] {
        if values.take(key).is_some() {
            return Err(
                Error::new(format!("Dormer does not have -netdev socket,{key}="))
                    .hint("Use listen= and connect=, or -netdev stream"),
            );
        }
    }
    let (address, server) = match (values.take("listen"), values.take("connect")) {
        (Some(address), None) => (address, true),
        (None, Some(address)) => (address, false),
        _ => {
            return Err(Error::new(
                "exactly one of listen= and connect= is required",
            ));
        }
    };
    let (host, port) = address
        .rsplit_once(':')
        .ok_or_else(|| Error::new(format!("host address '{address}' doesn't contain ':'")))?;
    Ok(Config {
        address: Address::Inet(resolve(host, port)?),
        server,
        reconnect: None,
    })
}

/// `-netdev stream`.
fn stream(values: &mut KeyValues) -> Result<Config, Error> {
    let server = values.take_bool("server")?.unwrap_or(false);
    let address = match values.take("addr.type").as_deref() {
        Some("inet") => {
            let host = values
                .take("addr.host")
                .ok_or_else(|| missing("addr.host"))?;
            let port = values
                .take("addr.port")
                .ok_or_else(|| missing("addr.port"))?;
            Address::Inet(resolve(&host, &port)?)
        }
        Some("unix") => {
            let path = values
                .take("addr.path")
                .ok_or_else(|| missing("addr.path"))?;
            Address::Unix(path.into())
        }
        Some(other) => {
            return Err(Error::new(format!(
                "Parameter 'addr.type' does not accept value '{other}'"
            ))
            .hint("Dormer has inet and unix"));
        }
        None => return Err(missing("addr.type")),
    };
    let seconds = values.take_number("reconnect")?.map(Duration::from_secs);
    let milliseconds = values
        .take_number("reconnect-ms")?
        .map(Duration::from_millis);
    let reconnect = seconds.or(milliseconds).filter(|d| !d.is_zero());
    if server && reconnect.is_some() {
        return Err(Error::new(
            "'reconnect' option is incompatible with socket in server mode",
        ));
    }
    Ok(Config {
        address,
        server,
        reconnect,
    })
}

#[cfg(target_os = "linux")]
fn tap(values: &mut KeyValues) -> Result<network::tap::Config, Error> {
    for key in ["vhost", "vhostforce"] {
        if values.take_bool(key)? == Some(true) {
            return Err(Error::new(format!("Dormer does not have vhost ({key}=on)"))
                .hint("Leave it out: frames go through this program"));
        }
    }
    for key in [
        "vhostfd", "vhostfds", "fds", "queues", "helper", "br", "sndbuf",
    ] {
        if values.take(key).is_some() {
            return Err(Error::new(format!(
                "Dormer does not have the tap option '{key}'"
            )));
        }
    }
    if values.take_bool("vnet_hdr")? == Some(false) {
        return Err(Error::new(
            "Dormer always takes offloads from a tap (vnet_hdr=off)",
        ));
    }
    let interface = values.take("ifname");
    let given = [values.take("script"), values.take("downscript")];
    if let Some(number) = values.take("fd") {
        if interface.is_some() || given.iter().any(Option::is_some) {
            return Err(Error::new(
                "ifname=, script=, downscript= are invalid with fd=",
            ));
        }
        let descriptor = number
            .parse()
            .map_err(|_| Error::new(format!("file descriptor named '{number}' not found")))?;
        return Ok(network::tap::Config {
            descriptor: Some(descriptor),
            ..Default::default()
        });
    }
    // As QEMU: without a word the distribution's scripts run.
    let script = |given: Option<String>, default: &str| match given.as_deref() {
        None => Some(default.to_string()),
        Some("no" | "") => None,
        Some(path) => Some(path.to_string()),
    };
    let [up, down] = given;
    Ok(network::tap::Config {
        interface,
        descriptor: None,
        script: script(up, "/etc/qemu-ifup"),
        down_script: script(down, "/etc/qemu-ifdown"),
    })
}

/// `-netdev vmnet-host`, `vmnet-shared`, `vmnet-bridged`.
pub(super) fn vmnet(kind: &str, values: &mut KeyValues) -> Result<vmnet::Config, Error> {
    let isolated = values.take_bool("isolated")?.unwrap_or(false);
    let mode = match kind {
        "vmnet-bridged" => Mode::Bridged {
            interface: values.take("ifname").ok_or_else(|| {
                let error = missing("ifname");
                match vmnet::bridgeable() {
                    Some(names) => error.hint(vmnet::choices(&names)),
                    None => error,
                }
            })?,
        },
        "vmnet-host" => Mode::Host {
            addresses: addresses(values)?,
            network: match values.take("net-uuid") {
                Some(text) => Some(
                    machine::parse_uuid(&text)
                        .ok_or_else(|| Error::new(format!("net-uuid={text} is no UUID")))?,
                ),
                None => None,
            },
        },
        _ => Mode::Shared {
            addresses: addresses(values)?,
            nat66_prefix: prefix(values)?,
        },
    };
    Ok(vmnet::Config { mode, isolated })
}

/// An option that is an address.
fn address<A: FromStr>(values: &mut KeyValues, key: &str, what: &str) -> Result<Option<A>, Error> {
    let Some(text) = values.take(key) else {
        return Ok(None);
    };
    let parsed = text.parse().map(Some);
    parsed.map_err(|_| Error::new(format!("{key}={text} is no {what}")))
}

/// The range of DHCP's addresses: all three options, or none (vmnet.h, `vmnet_start_address_key`).
fn addresses(values: &mut KeyValues) -> Result<Option<Addresses>, Error> {
    let mut take = |key: &str| address::<Ipv4Addr>(values, key, "IPv4 address");
    let (start, end, mask) = (
        take("start-address")?,
        take("end-address")?,
        take("subnet-mask")?,
    );
    let (start, end, mask) = match (start, end, mask) {
        (None, None, None) => return Ok(None),
        (Some(start), Some(end), Some(mask)) => (start, end, mask),
        _ => {
            return Err(Error::new(
                "start-address=, end-address= and subnet-mask= go together: give all three or none",
            ));
        }
    };
    for (key, address) in [("start-address", start), ("end-address", end)] {
        if !address.is_private() {
            return Err(Error::new(format!(
                "{key}={address} is not of a private network (RFC 1918)"
            )));
        }
    }
    let bits = mask.to_bits();
    if bits.leading_ones() != bits.count_ones() {
        return Err(Error::new(format!("subnet-mask={mask} is no mask")));
    }
    if start & mask != end & mask || start >= end {
        return Err(Error::new(format!(
            "end-address={end} is not behind start-address={start} in one network"
        )));
    }
    Ok(Some(Addresses { start, end, mask }))
}

/// A prefix of unique local addresses (vmnet.h, `vmnet_nat66_prefix_key`; RFC 4193).
fn prefix(values: &mut KeyValues) -> Result<Option<Ipv6Addr>, Error> {
    let prefix = address::<Ipv6Addr>(values, "nat66-prefix", "IPv6 prefix")?;
    match prefix {
        Some(prefix) if prefix.octets()[0] != 0xfd || prefix.octets()[8..] != [0; 8] => {
            Err(Error::new(format!(
                "nat66-prefix={prefix} is not a prefix of 64 bits in fd00::/8"
            )))
        }
        _ => Ok(prefix),
    }
}
