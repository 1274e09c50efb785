//! QMP, the machine protocol: JSON commands and events over a socket.
//!
//! A connection is a thread that reads commands ([`session`]); another writes answers and events. Commands themselves
//! are in [`commands`].

mod commands;
mod events;
mod session;
mod socket;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use machine::control::Handle;

use socket::Listener;
pub use socket::{Address, AddressError};

/// Connections served at once.
const CONNECTIONS: usize = 16;

/// Serves QMP at an address (`unix:PATH,server=on,wait=off`, `tcp:HOST:PORT,server=on`), or connects to it.
///
/// With `wait` (QEMU's default for servers) it returns once somebody has connected.
///
/// # Errors
/// The address cannot be listened on or connected to.
pub fn serve(address: &Address, pretty: bool, machine: Handle) -> io::Result<()> {
    if !address.server {
        let stream = address.connect()?;
        return start(move || session::run(stream, pretty, &machine));
    }
    let listener = address.listen()?;
    let first = if address.wait {
        tracing::info!("QMP waiting for connection on: {address}");
        Some(listener.accept()?)
    } else {
        None
    };
    start(move || accept(&listener, first, pretty, machine))
}

fn accept(listener: &Listener, mut first: Option<socket::Stream>, pretty: bool, machine: Handle) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let stream = match first.take() {
            Some(stream) => stream,
            None => match listener.accept() {
                Ok(stream) => stream,
                Err(error) => {
                    tracing::warn!("QMP: {error}");
                    std::thread::sleep(std::time::Duration::from_millis(100));
                    continue;
                }
            },
        };
        if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS {
            open.fetch_sub(1, Ordering::SeqCst);
            continue;
        }
        let (machine, count) = (machine.clone(), open.clone());
        let started = start(move || {
            session::run(stream, pretty, &machine);
            count.fetch_sub(1, Ordering::SeqCst);
        });
        if started.is_err() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

fn start(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    std::thread::Builder::new()
        .name("qmp".into())
        .spawn(work)
        .map(drop)
}
