//! Unix and TCP sockets.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use crate::keyval::{KeyValues, ValueError};

/// A socket's address and how it is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Address {
    place: Place,
    /// Listen, rather than connect.
    pub server: bool,
    /// A server waits for its first client before the machine starts.
    pub wait: bool,
    /// The other end is a telnet program (RFC 854).
    pub telnet: bool,
}

#[derive(Clone, Debug, PartialEq)]
enum Place {
    Unix(PathBuf),
    Tcp(String, u16),
}

/// What is wrong with an address.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum AddressError {
    #[error("'{0}' is not a valid char driver")]
    Kind(String),
    #[error("parse error: {0}")]
    Parse(String),
    #[error(transparent)]
    Value(#[from] ValueError),
}

impl Address {
    /// From `unix:PATH[,server=on][,wait=off]`, `tcp:[HOST]:PORT[,…]` or `telnet:[HOST]:PORT[,…]`.
    pub fn parse(text: &str) -> Result<Address, AddressError> {
        let mut values = KeyValues::parse(text, Some("place"));
        let place = values.take("place").unwrap_or_default();
        let (place, mut telnet) = match place.strip_prefix("telnet:") {
            Some(rest) => (format!("tcp:{rest}"), true),
            None => (place, false),
        };
        let place = if let Some(path) = place.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(AddressError::Parse(text.into()));
            }
            Place::Unix(path.into())
        } else if let Some(rest) = place.strip_prefix("tcp:") {
            let error = || AddressError::Parse(text.into());
            let (host, port) = rest.rsplit_once(':').ok_or_else(error)?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            // No host is this host alone: a control socket is not for the network.
            let host = if host.is_empty() { "127.0.0.1" } else { host };
            Place::Tcp(host.into(), port.parse().map_err(|_| error())?)
        } else {
            let kind = place.split(':').next().unwrap_or_default();
            return Err(AddressError::Kind(kind.into()));
        };
        let server = values.take_bool("server")?.unwrap_or(false);
        let wait = values.take_bool("wait")?.unwrap_or(true);
        if matches!(place, Place::Tcp(..)) {
            telnet |= values.take_bool("telnet")?.unwrap_or(false);
        }
        values.finish()?;
        Ok(Address {
            place,
            server,
            wait,
            telnet,
        })
    }

    pub(super) fn listen(&self) -> io::Result<Listener> {
        match &self.place {
            #[cfg(unix)]
            Place::Unix(path) => {
                // What an ended machine left behind is in the way; a living one answers.
                if UnixStream::connect(path).is_ok() {
                    return Err(io::Error::new(
                        io::ErrorKind::AddrInUse,
                        "Address already in use",
                    ));
                }
                use std::os::unix::fs::FileTypeExt;
                if std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket()) {
                    std::fs::remove_file(path)?;
                }
                UnixListener::bind(path).map(Listener::Unix)
            }
            #[cfg(not(unix))]
            Place::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Place::Tcp(host, port) => TcpListener::bind((host.as_str(), *port)).map(Listener::Tcp),
        }
    }

    /// Takes a server's file away, so that nobody tries to connect to what has ended.
    pub(super) fn remove(&self) {
        if let (Place::Unix(path), true) = (&self.place, self.server) {
            let _ = std::fs::remove_file(path);
        }
    }

    pub(super) fn connect(&self) -> io::Result<Stream> {
        match &self.place {
            #[cfg(unix)]
            Place::Unix(path) => UnixStream::connect(path).map(Stream::Unix),
            #[cfg(not(unix))]
            Place::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
            Place::Tcp(host, port) => TcpStream::connect((host.as_str(), *port)).map(Stream::Tcp),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Unix(path) => write!(f, "unix:{}", path.display()),
            Place::Tcp(host, port) => write!(f, "tcp:{host}:{port}"),
        }
    }
}

pub(super) enum Listener {
    #[cfg(unix)]
    Unix(UnixListener),
    Tcp(TcpListener),
}

impl Listener {
    pub fn accept(&self) -> io::Result<Stream> {
        match self {
            #[cfg(unix)]
            Listener::Unix(listener) => listener.accept().map(|(stream, _)| Stream::Unix(stream)),
            Listener::Tcp(listener) => listener.accept().map(|(stream, _)| Stream::Tcp(stream)),
        }
    }
}

pub enum Stream {
    #[cfg(unix)]
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    pub fn try_clone(&self) -> io::Result<Stream> {
        match self {
            #[cfg(unix)]
            Stream::Unix(stream) => stream.try_clone().map(Stream::Unix),
            Stream::Tcp(stream) => stream.try_clone().map(Stream::Tcp),
        }
    }

    /// Nothing more is read, by any clone.
    pub fn close_reading(&self) {
        let read = std::net::Shutdown::Read;
        let _ = match self {
            #[cfg(unix)]
            Stream::Unix(stream) => stream.shutdown(read),
            Stream::Tcp(stream) => stream.shutdown(read),
        };
    }

    /// Ends both directions, for all clones.
    pub fn close(&self) {
        let both = std::net::Shutdown::Both;
        let _ = match self {
            #[cfg(unix)]
            Stream::Unix(stream) => stream.shutdown(both),
            Stream::Tcp(stream) => stream.shutdown(both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Stream::Unix(stream) => stream.read(into),
            Stream::Tcp(stream) => stream.read(into),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            #[cfg(unix)]
            Stream::Unix(stream) => stream.write(from),
            Stream::Tcp(stream) => stream.write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let address = Address::parse("unix:/tmp/q,server=on,wait=off").unwrap();
        assert_eq!(
            address,
            Address {
                place: Place::Unix("/tmp/q".into()),
                server: true,
                wait: false,
                telnet: false
            }
        );
        let address = Address::parse("tcp::4444,server,nowait").unwrap();
        assert_eq!(
            address,
            Address {
                place: Place::Tcp("127.0.0.1".into(), 4444),
                server: true,
                wait: false,
                telnet: false
            }
        );
        for telnet in [
            "telnet::4444,server,nowait",
            "tcp::4444,telnet=on,server,nowait",
        ] {
            let expected = Address {
                telnet: true,
                ..address.clone()
            };
            assert_eq!(Address::parse(telnet), Ok(expected), "{telnet}");
        }
        assert_eq!(Address::parse("foo"), Err(AddressError::Kind("foo".into())));
        for bad in [
            "unix:",
            "tcp:x",
            "tcp:h:99999",
            "unix:/a,speed=9",
            "unix:/a,telnet=on",
        ] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
