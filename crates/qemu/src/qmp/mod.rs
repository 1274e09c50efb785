//! QMP, the machine protocol: JSON commands and events over a socket.
//!
//! A connection is a thread that reads commands ([`session`]); another writes answers and events. Commands themselves
//! are in [`commands`].

mod commands;
mod events;
mod session;
mod socket;

use std::io;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use machine::control::Handle;

pub use socket::{Address, AddressError};
use socket::{Listener, Stream};

/// Connections of a server at once.
const CONNECTIONS: usize = 16;

/// Sockets that are open before the machine is built, so that a machine whose control is not to be had never starts.
#[derive(Default)]
pub struct Servers {
    servers: Vec<Server>,
    sessions: Arc<Sessions>,
}

struct Server {
    address: Address,
    pretty: bool,
    /// Waits for clients; none if we are the client.
    listener: Option<Listener>,
    first: Option<Stream>,
}

impl Servers {
    /// Listens on an address, or connects to it.
    ///
    /// # Errors
    /// It cannot be listened on or connected to.
    pub fn open(&mut self, address: Address, pretty: bool) -> io::Result<()> {
        let (listener, first) = if address.server {
            (Some(address.listen()?), None)
        } else {
            (None, Some(address.connect()?))
        };
        self.servers.push(Server {
            address,
            pretty,
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
                eprintln!("QMP waiting for connection on: {}", server.address);
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
            let (pretty, first) = (server.pretty, server.first.take());
            let (machine, sessions) = (machine.clone(), self.sessions.clone());
            match server.listener.take() {
                Some(listener) => {
                    start(move || accept(&listener, first, pretty, &machine, &sessions))?;
                }
                None => {
                    if let Some(stream) = first {
                        sessions.start(stream, pretty, &machine)?;
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
    fn start(self: &Arc<Self>, stream: Stream, pretty: bool, machine: &Handle) -> io::Result<()> {
        *self.open.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        let place = Place(self.clone());
        let machine = machine.clone();
        start(move || {
            let _place = place;
            session::run(stream, pretty, &machine);
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
    pretty: bool,
    machine: &Handle,
    sessions: &Arc<Sessions>,
) {
    loop {
        let stream = match first.take() {
            Some(stream) => stream,
            None => match listener.accept() {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!("QMP: {error}");
                    std::thread::sleep(Duration::from_millis(100));
                    continue;
                }
            },
        };
        // One too many is hung up on.
        if sessions.count() < CONNECTIONS
            && let Err(error) = sessions.start(stream, pretty, machine)
        {
            tracing::warn!("QMP: {error}");
        }
    }
}

fn start(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name("qmp".into())
        .spawn(work)
        .map(drop)
}
