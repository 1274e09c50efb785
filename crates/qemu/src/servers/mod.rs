//! Sockets on which the machine is controlled: by QMP, or by people at the monitor.

mod socket;

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use machine::control::Handle;

use socket::Listener;
pub use socket::{Address, AddressError, Stream};

use crate::{monitor, qmp};

/// Connections of a server at once.
const CONNECTIONS: usize = 16;

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// JSON, indented if `pretty`.
    Qmp { pretty: bool },
    /// Commands that people type.
    Monitor,
}

/// Sockets that are open before the machine is built, so that a machine whose control is not to be had never starts.
#[derive(Default)]
pub struct Servers {
    servers: Vec<Server>,
    sessions: Arc<Sessions>,
}

struct Server {
    address: Address,
    protocol: Protocol,
    /// Waits for clients; none if we are the client.
    listener: Option<Listener>,
    first: Option<Stream>,
}

impl Servers {
    /// Listens on an address, or connects to it.
    ///
    /// # Errors
    /// It cannot be listened on or connected to.
    pub fn open(&mut self, address: Address, protocol: Protocol) -> io::Result<()> {
        let (listener, first) = if address.server {
            (Some(address.listen()?), None)
        } else {
            (None, Some(address.connect()?))
        };
        self.servers.push(Server {
            address,
            protocol,
            listener,
            first,
        });
        Ok(())
    }

    /// Servers with `wait` (QEMU's default) wait for their first clients.
    ///
    /// # Errors
    /// Of the host's.
    pub fn wait(&mut self) -> io::Result<()> {
        for server in &mut self.servers {
            if let (Some(listener), true) = (&server.listener, server.address.wait) {
                let name = server.protocol.name();
                eprintln!("{name} waiting for connection on: {}", server.address);
                server.first = Some(listener.accept()?);
            }
        }
        Ok(())
    }

    /// Serves the clients from now on.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn serve(&mut self, machine: &Handle) -> io::Result<()> {
        for server in &mut self.servers {
            let (service, first) = (server.service(), server.first.take());
            let (machine, sessions) = (machine.clone(), self.sessions.clone());
            match server.listener.take() {
                Some(listener) => {
                    start(move || accept(&listener, first, service, &machine, &sessions))?;
                }
                None => {
                    if let Some(stream) = first {
                        sessions.start(stream, service, &machine)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// The machine has ended: waits a little until the clients have been told.
    pub fn finish(&self) {
        self.sessions.wait(Duration::from_secs(1));
    }
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Protocol::Qmp { .. } => "QMP",
            Protocol::Monitor => "monitor",
        }
    }
}

/// What each client of a server gets.
#[derive(Clone, Copy)]
struct Service {
    protocol: Protocol,
    telnet: bool,
}

impl Server {
    fn service(&self) -> Service {
        Service {
            protocol: self.protocol,
            telnet: self.address.telnet,
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for server in &self.servers {
            server.address.remove();
        }
    }
}

/// Counts the clients.
#[derive(Default)]
struct Sessions {
    open: Mutex<usize>,
    closed: Condvar,
}

impl Sessions {
    fn start(
        self: &Arc<Self>,
        stream: Stream,
        service: Service,
        machine: &Handle,
    ) -> io::Result<()> {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let place = Place(self.clone());
        let machine = machine.clone();
        start(move || {
            let _place = place;
            match service.protocol {
                Protocol::Qmp { pretty } => qmp::session::run(stream, pretty, &machine),
                Protocol::Monitor => monitor::socket::run(stream, service.telnet, &machine),
            }
        })
    }

    fn count(&self) -> usize {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        while *open > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            open = self
                .closed
                .wait_timeout(open, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }
}

/// A client's place, given back when it goes.
struct Place(Arc<Sessions>);

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.open.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        self.0.closed.notify_all();
    }
}

fn accept(
    listener: &Listener,
    mut first: Option<Stream>,
    service: Service,
    machine: &Handle,
    sessions: &Arc<Sessions>,
) {
    loop {
        let stream = match first.take() {
            Some(stream) => stream,
            None => match listener.accept() {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!("{}: {error}", service.protocol.name());
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            },
        };
        // One too many is hung up on.
        if sessions.count() < CONNECTIONS
            && let Err(error) = sessions.start(stream, service, machine)
        {
            tracing::warn!("{}: {error}", service.protocol.name());
        }
    }
}

fn start(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name("monitor".into())
        .spawn(work)
        .map(drop)
}
