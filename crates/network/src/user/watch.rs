//! Sockets that a poller watches.
#![allow(unsafe_code)] // the poller wants a promise that it is told before a socket closes

use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;

use polling::{Event, PollMode, Poller};

/// A socket that tells when it can be read or written, until it is dropped.
pub struct Watched<T: AsFd + AsRawFd> {
    socket: T,
    poller: Arc<Poller>,
    key: usize,
    interest: (bool, bool),
}

impl<T: AsFd + AsRawFd> Watched<T> {
    /// Watches a socket; `key` comes with its events. Nothing is of interest yet.
    pub fn new(poller: &Arc<Poller>, socket: T, key: usize) -> io::Result<Watched<T>> {
        // SAFETY: the socket is deleted from the poller in `drop`, before it is closed, and is not given away.
        unsafe { poller.add_with_mode(socket.as_raw_fd(), Event::none(key), PollMode::Level)? };
        Ok(Watched {
            socket,
            poller: poller.clone(),
            key,
            interest: (false, false),
        })
    }

    /// Says what is of interest from now on.
    pub fn want(&mut self, readable: bool, writable: bool) {
        if self.interest == (readable, writable) {
            return;
        }
        let event = Event::new(self.key, readable, writable);
        match self
            .poller
            .modify_with_mode(&self.socket, event, PollMode::Level)
        {
            Ok(()) => self.interest = (readable, writable),
            Err(error) => tracing::error!("cannot watch a socket: {error}"),
        }
    }
}

impl<T: AsFd + AsRawFd> Deref for Watched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.socket
    }
}

impl<T: AsFd + AsRawFd> Drop for Watched<T> {
    fn drop(&mut self) {
        let _ = self.poller.delete(&self.socket);
    }
}
