//! `-netdev user`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use network::user::{Config, GuestForward, HostForward, Ipv4, Ipv6, Target, Transport};

use crate::Error;
use crate::keyval::KeyValues;

/// Its options.
pub fn parse(values: &mut KeyValues) -> Result<Config, Error> {
    let mut config = Config {
        ipv4: ipv4(values)?,
        ipv6: ipv6(values)?,
        restricted: values.take_bool("restrict")?.unwrap_or(false),
        hostname: values.take("hostname"),
        domain: values.take("domainname"),
        search: values.take_all("dnssearch"),
        tftp: values.take("tftp").map(Into::into),
        tftp_server_name: values.take("tftp-server-name"),
        bootfile: values.take("bootfile"),
        ..Config::default()
    };
    if values.take("smb").is_some() || values.take("smbserver").is_some() {
        return Err(Error::new(
            "Dormer does not have the file server of -netdev user,smb=",
        ));
    }
    for text in values.take_all("resolver") {
        let server = text
            .parse::<SocketAddr>()
            .or_else(|_| text.parse::<IpAddr>().map(|ip| SocketAddr::new(ip, 53)));
        config
            .resolvers
            .push(server.map_err(|_| bad("resolver", &text))?);
    }
    for text in values.take_all("hostfwd") {
        config.host_forwards.push(host_forward(&config, &text)?);
    }
    for text in values.take_all("guestfwd") {
        config.guest_forwards.push(guest_forward(&config, &text)?);
    }
    config.check().map_err(Error::new)?;
    Ok(config)
}

fn bad(key: &str, value: &str) -> Error {
    Error::new(format!("Parameter '{key}' does not take value '{value}'"))
}

fn take<T: FromStr>(values: &mut KeyValues, key: &str) -> Result<Option<T>, Error> {
    match values.take(key) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| bad(key, &text)),
    }
}

fn ipv4(values: &mut KeyValues) -> Result<Option<Ipv4>, Error> {
    let on = values.take_bool("ipv4")?;
    let mut v4 = match values.take("net") {
        None => Ipv4::default(),
        Some(text) => {
            let wrong = || bad("net", &text);
            let (net, prefix) = match text.split_once('/') {
                None => (text.as_str(), None),
                Some((net, prefix)) => (net, Some(prefix)),
            };
            let net: Ipv4Addr = net.parse().map_err(|_| wrong())?;
            let prefix = match prefix {
                // As classes had it.
                None => match net.octets()[0] {
                    0..=127 => 8,
                    128..=191 => 16,
                    _ => 24,
                },
                Some(bits) => match (bits.parse::<u8>(), bits.parse::<Ipv4Addr>()) {
                    (Ok(bits), _) if bits <= 32 => bits,
                    (_, Ok(mask))
                        if u32::from(mask).leading_ones() + u32::from(mask).trailing_zeros()
                            >= 32 =>
                    {
                        u32::from(mask).leading_ones() as u8
                    }
                    _ => return Err(wrong()),
                },
            };
            let mut v4 = Ipv4::new(net, prefix);
            // A host's address in the place of the network's is where the gateway is.
            if net != v4.net {
                v4.host = net;
            }
            v4
        }
    };
    if let Some(host) = take(values, "host")? {
        v4.host = host;
    }
    if let Some(dns) = take(values, "dns")? {
        v4.dns = dns;
    }
    if let Some(start) = take(values, "dhcpstart")? {
        v4.dhcp_start = start;
    }
    Ok(on.unwrap_or(true).then_some(v4))
}

fn ipv6(values: &mut KeyValues) -> Result<Option<Ipv6>, Error> {
    let on = values.take_bool("ipv6")?;
    let net = values.take("ipv6-net");
    let (mut prefix, mut length) = (None, None);
    if let Some(text) = &net {
        let (address, bits) = text.split_once('/').unwrap_or((text, "64"));
        prefix = Some(address.parse().map_err(|_| bad("ipv6-net", text))?);
        length = Some(bits.parse().map_err(|_| bad("ipv6-net", text))?);
    }
    if let Some(given) = take::<Ipv6Addr>(values, "ipv6-prefix")? {
        prefix = Some(given);
    }
    if let Some(given) = take::<u8>(values, "ipv6-prefixlen")? {
        length = Some(given);
    }
    let standard = Ipv6::default();
    let mut v6 = Ipv6::new(
        prefix.unwrap_or(standard.prefix),
        length.unwrap_or(standard.length),
    );
    if let Some(host) = take(values, "ipv6-host")? {
        v6.host = host;
    }
    if let Some(dns) = take(values, "ipv6-dns")? {
        v6.dns = dns;
    }
    Ok(on.unwrap_or(true).then_some(v6))
}

/// `ADDRESS:PORT` with the address in brackets if it is IPv6; what follows it after `end`.
fn endpoint(text: &str, end: char) -> Option<(&str, &str, &str)> {
    let (address, rest) = match text.strip_prefix('[') {
        Some(inner) => {
            let (address, rest) = inner.split_once(']')?;
            (address, rest.strip_prefix(':')?)
        }
        None => text.split_once(':')?,
    };
    match rest.split_once(end) {
        Some((port, rest)) => Some((address, port, rest)),
        None => Some((address, rest, "")),
    }
}

/// `[tcp|udp]:[HOST]:PORT-[GUEST]:PORT`.
fn host_forward(config: &Config, text: &str) -> Result<HostForward, Error> {
    let wrong = |why: &str| {
        Error::new(format!("Invalid host forwarding rule '{text}' ({why})"))
            .hint("Write tcp:[HOSTADDR]:HOSTPORT-[GUESTADDR]:GUESTPORT")
    };
    let (protocol, rest) = text
        .split_once(':')
        .ok_or_else(|| wrong("No : separators"))?;
    let transport = match protocol {
        "" | "tcp" => Transport::Tcp,
        "udp" => Transport::Udp,
        _ => return Err(wrong("Bad protocol name")),
    };
    let (host, host_port, rest) =
        endpoint(rest, '-').ok_or_else(|| wrong("Missing host address"))?;
    let host = match host {
        "" => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
        address => address.parse().map_err(|_| wrong("Bad host address"))?,
    };
    let host_port: u16 = host_port.parse().map_err(|_| wrong("Bad host port"))?;
    if rest.is_empty() {
        return Err(wrong("Missing guest address"));
    }
    let (guest, guest_port, _) = endpoint(rest, '\0').ok_or_else(|| wrong("Missing guest port"))?;
    let guest = match guest {
        "" => match config.ipv4 {
            Some(v4) => v4.dhcp_start.into(),
            None => return Err(wrong("Missing guest address")),
        },
        address => address.parse().map_err(|_| wrong("Bad guest address"))?,
    };
    let guest_port: u16 = guest_port.parse().map_err(|_| wrong("Bad guest port"))?;
    if guest_port == 0 {
        return Err(wrong("Bad guest port"));
    }
    if !config.is_guest(guest) {
        return Err(wrong("Guest address is not in the guest's network"));
    }
    Ok(HostForward {
        transport,
        host: SocketAddr::new(host, host_port),
        guest: SocketAddr::new(guest, guest_port),
        text: text.to_string(),
    })
}

/// `[tcp]:SERVER:PORT-cmd:COMMAND`, `…-tcp:HOST:PORT`, `…-unix:PATH`.
fn guest_forward(config: &Config, text: &str) -> Result<GuestForward, Error> {
    let wrong = |why: &str| {
        Error::new(format!("Invalid guest forwarding rule '{text}' ({why})"))
            .hint("Write tcp:SERVER:PORT-cmd:COMMAND, …-tcp:HOST:PORT or …-unix:PATH")
    };
    let rest = text
        .strip_prefix("tcp:")
        .or_else(|| text.strip_prefix(':'))
        .ok_or_else(|| wrong("only tcp"))?;
    let (server, port, target) =
        endpoint(rest, '-').ok_or_else(|| wrong("Missing server address"))?;
    let server: IpAddr = server.parse().map_err(|_| wrong("Bad server address"))?;
    let port: u16 = port.parse().map_err(|_| wrong("Bad server port"))?;
    let inside = match server {
        IpAddr::V4(a) => config.ipv4.is_some_and(|v| v.contains(a)),
        IpAddr::V6(a) => config.ipv6.is_some_and(|v| v.contains(a)),
    };
    let service = match server {
        IpAddr::V4(a) => config.ipv4.is_some_and(|v| a == v.host || a == v.dns),
        IpAddr::V6(a) => config.ipv6.is_some_and(|v| a == v.host || a == v.dns),
    };
    if !inside || service {
        return Err(wrong("Server address is not free in the guest's network"));
    }
    let target = if let Some(command) = target.strip_prefix("cmd:") {
        Target::Command(command.to_string())
    } else if let Some(address) = target.strip_prefix("tcp:") {
        let resolved = std::net::ToSocketAddrs::to_socket_addrs(address)
            .ok()
            .and_then(|mut a| a.next());
        Target::Tcp(resolved.ok_or_else(|| wrong("Bad address to connect to"))?)
    } else if let Some(path) = target.strip_prefix("unix:") {
        Target::Unix(path.into())
    } else {
        return Err(wrong("Dormer does not have named character devices here"));
    };
    Ok(GuestForward {
        server: SocketAddr::new(server, port),
        target,
    })
}
