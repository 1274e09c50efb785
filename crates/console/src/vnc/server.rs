//! The server: who may connect, and who is connected.

use super::handshake::{self, Access};
use super::options::{FIRST_PORT, Share, VncAddress, VncOptions};
use super::session;
use crate::server::{Clients, Server, remove_dead_socket};
use crate::stream::{Listener, Stream};
use crate::{Display, Guarded, GuardedInfo};
use parking_lot::Mutex;
use std::io;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

/// A handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(60);

/// A client that takes no data for so long is gone.
const WRITE: Duration = Duration::from_secs(30);

/// After wrong passwords, so that guessing takes time.
const WRONG_PASSWORD: Duration = Duration::from_secs(1);

/// A server that does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(
        "Failed to find an available port for VNC on {host}: displays {first} to {last} are in use"
    )]
    NoPort { host: String, first: u16, last: u16 },
    #[error("VNC cannot listen on {address}: {error}")]
    Listen { address: String, error: io::Error },
}

/// A VNC server; it ends when it is dropped.
pub struct VncServer {
    shared: Arc<Shared>,
    // Ends before its socket's file goes.
    server: Option<Server>,
    socket: Option<SocketAddr>,
    path: Option<PathBuf>,
}

pub(super) struct Shared {
    pub(super) display: Arc<Display>,
    pub(super) name: String,
    location: String,
    family: &'static str,
    share: Share,
    password: Option<Mutex<Password>>,
    /// Greeted or not.
    clients: Arc<Clients>,
}

/// What clients have to know, and until when it is good.
#[derive(Default)]
struct Password {
    text: Option<String>,
    until: Option<SystemTime>,
}

impl Password {
    fn now(&self) -> Option<String> {
        let good = self.until.is_none_or(|until| SystemTime::now() < until);
        self.text.clone().filter(|_| good)
    }
}

impl Guarded for Shared {
    fn set_password(&self, password: Option<&str>) -> bool {
        let Some(current) = &self.password else {
            return false;
        };
        current.lock().text = password.map(str::to_string);
        true
    }

    fn expire(&self, at: Option<SystemTime>) -> bool {
        let Some(current) = &self.password else {
            return false;
        };
        current.lock().until = at;
        true
    }

    fn disconnect(&self) {
        self.clients.shut_down();
    }

    fn info(&self) -> GuardedInfo {
        GuardedInfo {
            location: self.location.clone(),
            family: self.family,
            password: self.password.is_some(),
            clients: self.clients.count(),
        }
    }
}

impl VncServer {
    /// Listens, and serves on threads of its own.
    pub fn start(display: Arc<Display>, options: &VncOptions) -> Result<VncServer, StartError> {
        let (listener, socket, path) = listen(&options.address)?;
        let failed = |error: io::Error| StartError::Listen {
            address: "a socket".into(),
            error,
        };
        let shared = Arc::new(Shared {
            display,
            name: options.name.clone(),
            location: match (&socket, &path) {
                (Some(socket), _) => socket.to_string(),
                (None, Some(path)) => path.display().to_string(),
                (None, None) => String::new(),
            },
            family: match &socket {
                Some(SocketAddr::V4(_)) => "ipv4",
                Some(SocketAddr::V6(_)) => "ipv6",
                None => "unix",
            },
            share: options.share,
            password: options.password.then(Mutex::default),
            clients: Arc::default(),
        });
        let guarded: Weak<dyn Guarded> = Arc::<Shared>::downgrade(&shared);
        shared.display.add_guarded(guarded);
        let serving = shared.clone();
        let server = Server::start("vnc", listener, &shared.clients, move |stream, id| {
            serve(&serving, stream, id)
        })
        .map_err(failed)?;
        Ok(VncServer {
            shared,
            server: Some(server),
            socket,
            path,
        })
    }

    /// Where it listens, with TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        self.socket
    }

    /// The display number of its port, with TCP.
    pub fn display(&self) -> Option<u16> {
        self.socket
            .and_then(|socket| socket.port().checked_sub(FIRST_PORT))
    }

    /// What to give a viewer: `127.0.0.1:5901` or the socket's path.
    pub fn location(&self) -> String {
        match (&self.socket, &self.path) {
            (Some(socket), _) => socket.to_string(),
            (None, Some(path)) => format!("unix:{}", path.display()),
            (None, None) => String::new(),
        }
    }

    /// Sets the password that new clients have to know; `None` lets nobody in. Returns false if the server was started
    /// without `password=on`, and nothing changes.
    pub fn set_password(&self, password: Option<&str>) -> bool {
        Guarded::set_password(&*self.shared, password)
    }

    /// Connections, greeted or not.
    pub fn clients(&self) -> usize {
        self.shared.clients.count()
    }
}

impl Drop for VncServer {
    fn drop(&mut self) {
        drop(self.server.take());
        if let Some(path) = &self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn listen(
    address: &VncAddress,
) -> Result<(Listener, Option<SocketAddr>, Option<PathBuf>), StartError> {
    match address {
        VncAddress::Tcp { host, display, to } => {
            let last = to.unwrap_or(*display).max(*display);
            for port in *display..=last {
                let port = FIRST_PORT.saturating_add(port);
                let failed = |error| StartError::Listen {
                    address: format!("{host}:{port}"),
                    error,
                };
                let sockets: Vec<SocketAddr> = (host.as_str(), port)
                    .to_socket_addrs()
                    .map_err(failed)?
                    .collect();
                match TcpListener::bind(&sockets[..]) {
                    Ok(listener) => {
                        let socket = listener.local_addr().map_err(failed)?;
                        return Ok((Listener::Tcp(listener), Some(socket), None));
                    }
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse && to.is_some() => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            Err(StartError::NoPort {
                host: host.clone(),
                first: *display,
                last,
            })
        }
        VncAddress::Unix(path) => {
            let failed = |error| StartError::Listen {
                address: format!("unix:{}", path.display()),
                error,
            };
            remove_dead_socket(path);
            let listener = UnixListener::bind(path).map_err(failed)?;
            Ok((Listener::Unix(listener), None, Some(path.clone())))
        }
    }
}

fn serve(shared: &Arc<Shared>, mut stream: Stream, id: u64) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_timeouts(Some(HANDSHAKE), Some(WRITE))?;
    let access = match &shared.password {
        None => Access::Open,
        Some(password) => Access::Password(password.lock().now()),
    };
    let share = handshake::greet(&mut stream, &access).inspect_err(|error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            std::thread::sleep(WRONG_PASSWORD);
        }
    })?;
    if !share {
        match shared.share {
            Share::Ignore => {}
            Share::ForceShared => {
                return Err(io::Error::new(
                    io::ErrorKind::PermissionDenied,
                    "the display is shared",
                ));
            }
            Share::AllowExclusive => shared.clients.shut_down_others(id),
        }
    }
    stream.set_timeouts(None, Some(WRITE))?;
    session::run(stream, shared)
}
