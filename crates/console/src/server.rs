//! What servers of many clients have in common: a thread that accepts, one a client, and an end.

use crate::stream::{Listener, Stream};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// More connections than that are closed at once.
const MAX_CLIENTS: usize = 32;

/// Who is connected.
#[derive(Default)]
pub(crate) struct Clients {
    streams: Mutex<BTreeMap<u64, Stream>>,
    next: AtomicU64,
    ended: AtomicBool,
}

impl Clients {
    /// How many they are.
    pub(crate) fn count(&self) -> usize {
        self.streams.lock().len()
    }

    /// Ends all connections.
    pub(crate) fn shut_down(&self) {
        self.streams.lock().values().for_each(Stream::shut_down);
    }

    /// Ends all connections but one.
    pub(crate) fn shut_down_others(&self, but: u64) {
        let streams = self.streams.lock();
        let others = streams.iter().filter(|(id, _)| **id != but);
        others.for_each(|(_, stream)| stream.shut_down());
    }

    /// A new one's number; nothing if there are too many, or no more are wanted.
    fn add(&self, stream: Stream) -> Option<u64> {
        let mut streams = self.streams.lock();
        if streams.len() >= MAX_CLIENTS || self.ended.load(Ordering::SeqCst) {
            stream.shut_down();
            return None;
        }
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        streams.insert(id, stream);
        Some(id)
    }

    fn remove(&self, id: u64) {
        if let Some(stream) = self.streams.lock().remove(&id) {
            stream.shut_down();
        }
    }
}

/// A listener and its threads; dropped, it ends with all its connections.
pub(crate) struct Server {
    clients: Arc<Clients>,
    accepting: Option<JoinHandle<()>>,
    wake: Option<OwnedFd>,
}

impl Server {
    /// Serves each of the clients that come on a thread of its own. `name`: of the threads.
    pub(crate) fn start(
        name: &'static str,
        listener: Listener,
        clients: &Arc<Clients>,
        serve: impl Fn(Stream, u64) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Server> {
        listener.set_nonblocking(true)?;
        let (wait, wake) = end_signal()?;
        let (ours, serve) = (clients.clone(), Arc::new(serve));
        let accepting = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                while wait_for_connection(&listener, &wait) {
                    match listener.accept() {
                        Ok(stream) => begin(name, &ours, stream, &serve),
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                        // The client has gone again, or descriptors have run out for the moment.
                        Err(error) => {
                            tracing::debug!(%error, "accept");
                            std::thread::sleep(Duration::from_millis(50));
                        }
                    }
                }
            })?;
        Ok(Server {
            clients: clients.clone(),
            accepting: Some(accepting),
            wake: Some(wake),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.clients.ended.store(true, Ordering::SeqCst);
        drop(self.wake.take());
        self.clients.shut_down();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn begin<F>(name: &str, clients: &Arc<Clients>, stream: Stream, serve: &Arc<F>)
where
    F: Fn(Stream, u64) -> io::Result<()> + Send + Sync + 'static,
{
    let Ok(kept) = stream.try_clone() else {
        return;
    };
    let Some(id) = clients.add(kept) else {
        return;
    };
    let (ours, serve) = (clients.clone(), serve.clone());
    let spawned = std::thread::Builder::new()
        .name(format!("{name} client"))
        .spawn(move || {
            if let Err(error) = serve(stream, id) {
                tracing::debug!(%error, "a client is gone");
            }
            ours.remove(id);
        });
    if spawned.is_err() {
        clients.remove(id);
    }
}

/// A socket that a killed process left behind is in the way; one that answers, or any other file, stays.
pub(crate) fn remove_dead_socket(path: &std::path::Path) {
    use std::os::unix::fs::FileTypeExt;
    let socket =
        std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if socket {
        let answer = std::os::unix::net::UnixStream::connect(path);
        if matches!(answer, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// A pipe whose reading end wakes its waiter when the writing end is dropped: children must not inherit that.
pub(crate) fn end_signal() -> io::Result<(std::os::fd::OwnedFd, std::os::fd::OwnedFd)> {
    use rustix::io::{FdFlags, fcntl_setfd};
    let (wait, wake) = rustix::pipe::pipe()?;
    fcntl_setfd(&wait, FdFlags::CLOEXEC)?;
    fcntl_setfd(&wake, FdFlags::CLOEXEC)?;
    Ok((wait, wake))
}

/// Waits until `listener` has a connection; false once the other end of `wait` is closed.
pub(crate) fn wait_for_connection(listener: &Listener, wait: &std::os::fd::OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    loop {
        let mut both = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(wait, PollFlags::IN),
        ];
        match poll(&mut both, None) {
            Ok(_) if !both[1].revents().is_empty() => return false,
            Ok(_) if !both[0].revents().is_empty() => return true,
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::error!(%error, "poll");
                return false;
            }
        }
    }
}
