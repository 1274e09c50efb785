//! As much of HTTP/1.1 (RFC 9112) as a page and an upgrade need.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::time::Instant;

/// Heads of requests may be so long, in bytes.
const LONGEST_HEAD: usize = 16 << 10;
const MOST_FIELDS: usize = 64;

/// The head of a request.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) host: Option<String>,
    pub(super) origin: Option<String>,
    /// `Sec-WebSocket-Key`, of a request that asks for a WebSocket of version 13.
    pub(super) websocket_key: Option<String>,
    /// What has come after the head.
    pub(super) rest: Vec<u8>,
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// Reads a head, until `deadline`: one byte now and then keeps nobody waiting. The stream has a read timeout.
pub(super) fn read(stream: &mut impl Read, deadline: Instant) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 2048];
    loop {
        if let Some(request) = parse(&bytes)? {
            return Ok(request);
        }
        if bytes.len() >= LONGEST_HEAD {
            return Err(wrong("the request is too long"));
        }
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&chunk[..n]),
        }
    }
}

/// `None` while the head is not complete.
fn parse(bytes: &[u8]) -> io::Result<Option<Request>> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut head = httparse::Request::new(&mut fields);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(wrong("not a request of HTTP")),
    };
    let field = |name: &str| {
        let mut found = head
            .headers
            .iter()
            .filter(|f| f.name.eq_ignore_ascii_case(name));
        match (found.next(), found.next()) {
            (Some(field), None) => std::str::from_utf8(field.value).ok().map(str::trim),
            // A field given twice could be one thing to us and another to a proxy.
            _ => None,
        }
    };
    let has = |name: &str, word: &str| {
        field(name).is_some_and(|v| v.split(',').any(|w| w.trim().eq_ignore_ascii_case(word)))
    };
    let upgrade = has("connection", "upgrade")
        && has("upgrade", "websocket")
        && field("sec-websocket-version") == Some("13");
    Ok(Some(Request {
        method: head.method.unwrap_or_default().into(),
        path: head.path.unwrap_or_default().into(),
        host: field("host").map(str::to_ascii_lowercase),
        origin: field("origin").map(str::to_ascii_lowercase),
        websocket_key: field("sec-websocket-key")
            .filter(|_| upgrade)
            .map(String::from),
        rest: bytes[length..].to_vec(),
    }))
}

/// Whether `host` (a `Host` field) names this server in a way that no other site can: by an address, as `localhost`, or by
/// one of `names`. A name that an attacker's DNS points here is none of these.
pub(super) fn is_ours(host: &str, names: &[String]) -> bool {
    let (name, port) = match host.strip_prefix('[').and_then(|h| h.split_once(']')) {
        Some((address, port)) => return v6(address) && valid_port(port),
        None => match host.split_once(':') {
            Some((name, _)) => (name, &host[name.len()..]),
            None => (host, ""),
        },
    };
    let known = name == "localhost"
        || name.parse::<std::net::Ipv4Addr>().is_ok()
        || names.iter().any(|ours| ours == name);
    known && valid_port(port)
}

fn v6(address: &str) -> bool {
    matches!(address.parse(), Ok(IpAddr::V6(_)))
}

fn valid_port(text: &str) -> bool {
    match text.strip_prefix(':') {
        Some(port) => port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok(),
        None => text.is_empty(),
    }
}

/// Whether a request of `origin` comes from a page of this server. Programs that are no browsers send none.
pub(super) fn same_origin(origin: Option<&str>, host: &str) -> bool {
    origin.is_none_or(|origin| {
        ["http://", "https://"]
            .iter()
            .any(|scheme| origin.strip_prefix(scheme) == Some(host))
    })
}

/// Writes an answer; the connection ends with it.
pub(super) fn answer(
    stream: &mut impl Write,
    status: &str,
    kind: &str,
    policy: &str,
    body: &[u8],
) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCross-Origin-Resource-Policy: same-origin\r\n\
         Content-Security-Policy: {policy}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn later() -> Instant {
        Instant::now() + Duration::from_secs(60)
    }

    #[test]
    fn requests() {
        let text = "GET /x/socket HTTP/1.1\r\nHost: LocalHost:1\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: abc==\r\nOrigin: http://localhost:1\r\n\r\nmore";
        let request = read(&mut text.as_bytes(), later()).unwrap();
        assert_eq!(
            (request.method.as_str(), request.path.as_str()),
            ("GET", "/x/socket")
        );
        assert_eq!(request.host.as_deref(), Some("localhost:1"));
        assert_eq!(request.websocket_key.as_deref(), Some("abc=="));
        assert_eq!(request.rest, b"more");
        let plain = read(
            &mut &b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"[..],
            later(),
        )
        .unwrap();
        assert_eq!((plain.host, plain.websocket_key), (None, None));
        assert!(read(&mut &b"GET / HTTP/1.1\r\nHost"[..], later()).is_err());
        assert!(read(&mut io::repeat(b'a'), later()).is_err());
        assert!(read(&mut text.as_bytes(), Instant::now()).is_err());
    }

    #[test]
    fn hosts_and_origins() {
        let names = ["vm.lan".to_string()];
        for host in [
            "localhost",
            "127.0.0.1:80",
            "[::1]:80",
            "[::1]",
            "10.0.0.1",
            "vm.lan:8",
        ] {
            assert!(is_ours(host, &names), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "vm.lan.evil",
            "[::1",
            "127.0.0.1:x",
            "1.2.3.4:80:80",
        ] {
            assert!(!is_ours(host, &names), "{host}");
        }
        assert!(same_origin(None, "localhost:1"));
        assert!(same_origin(Some("http://localhost:1"), "localhost:1"));
        assert!(!same_origin(Some("http://localhost:2"), "localhost:1"));
        assert!(!same_origin(Some("null"), "localhost:1"));
    }

    proptest! {
        #[test]
        fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&mut &bytes[..], later());
            let _ = is_ours(&String::from_utf8_lossy(&bytes), &[]);
        }
    }
}
