//! Where names are looked up: the servers that the host uses.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// The host's name servers, as they are now.
pub struct Resolver {
    file: Option<PathBuf>,
    servers: Vec<SocketAddr>,
    read: Option<(Instant, Option<SystemTime>)>,
}

/// How old what was read may be.
const FRESH: Duration = Duration::from_secs(2);

impl Resolver {
    /// These servers.
    pub fn fixed(servers: Vec<SocketAddr>) -> Resolver {
        Resolver {
            file: None,
            servers,
            read: None,
        }
    }

    /// Those that a file in the format of resolv.conf(5) names; it may change.
    pub fn file(path: &Path) -> Resolver {
        Resolver {
            file: Some(path.into()),
            servers: Vec::new(),
            read: None,
        }
    }

    /// The server for the n-th attempt, in turn.
    pub fn server(&mut self, attempt: usize) -> Option<SocketAddr> {
        self.refresh();
        let count = self.servers.len().max(1);
        self.servers.get(attempt % count).copied()
    }

    fn refresh(&mut self) {
        let Some(file) = &self.file else { return };
        let now = Instant::now();
        if self
            .read
            .is_some_and(|(at, _)| now.saturating_duration_since(at) < FRESH)
        {
            return;
        }
        let changed = std::fs::metadata(file).and_then(|m| m.modified()).ok();
        if self.read.is_none_or(|(_, before)| before != changed) {
            let text = std::fs::read_to_string(file).unwrap_or_default();
            self.servers = parse(&text);
        }
        self.read = Some((now, changed));
    }
}

/// The `nameserver` lines of a resolv.conf. Without any, the resolver of this host itself (resolv.conf(5)).
fn parse(text: &str) -> Vec<SocketAddr> {
    let servers: Vec<_> = text
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            (words.next()? == "nameserver").then_some(())?;
            address(words.next()?)
        })
        .take(8)
        .collect();
    if servers.is_empty() {
        vec![SocketAddr::from(([127, 0, 0, 1], 53))]
    } else {
        servers
    }
}

/// An address, with its scope if it has one (`fe80::1%eth0`).
fn address(text: &str) -> Option<SocketAddr> {
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Some(SocketAddr::new(ip, 53));
    }
    let (ip, scope) = text.split_once('%')?;
    let ip: Ipv6Addr = ip.parse().ok()?;
    let scope = scope.parse().ok().or_else(|| interface(scope))?;
    Some(SocketAddrV6::new(ip, 53, 0, scope).into())
}

/// The index of an interface of the host.
fn interface(name: &str) -> Option<u32> {
    #[cfg(target_os = "linux")]
    {
        let path = Path::new("/sys/class/net").join(name).join("ifindex");
        std::fs::read_to_string(path).ok()?.trim().parse().ok()
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = name;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_in_turn() {
        let text = "# c\nsearch x\nnameserver 192.0.2.1\nnameserver fe80::1%7\nnameserver bad\n";
        let servers = parse(text);
        assert_eq!(servers[0], "192.0.2.1:53".parse().unwrap());
        assert_eq!(servers[1], "[fe80::1%7]:53".parse().unwrap());
        assert_eq!(servers.len(), 2);
        let mut resolver = Resolver::fixed(servers.clone());
        assert_eq!(resolver.server(3), Some(servers[1]));
        assert_eq!(parse(""), ["127.0.0.1:53".parse().unwrap()]);
        assert_eq!(Resolver::fixed(Vec::new()).server(1), None);
    }

    #[test]
    fn the_file_is_read_when_needed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("resolv.conf");
        std::fs::write(&path, "nameserver 192.0.2.9").unwrap();
        let mut resolver = Resolver::file(&path);
        assert_eq!(resolver.server(0), "192.0.2.9:53".parse().ok());
    }
}
