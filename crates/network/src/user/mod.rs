//! `user`: a network for a guest, made of this host's ordinary sockets.
//!
//! The guest sees a router with a DHCP server (10.0.2.2), a name server (10.0.2.3) and everything that this host can
//! reach. Connections end here: what the guest says to a far TCP is acknowledged by us, and said again by the host's TCP.
//! The host's loopback is behind the router's address and nowhere else.
//!
//! [`Nat`] is the network; [`User`] gives it a thread that waits for the host's sockets. What the guest sends is dealt
//! with at once, on the NIC's worker.

mod arp;
mod config;
mod dhcp;
mod fragments;
mod icmp;
mod nat;
mod ndp;
mod resolver;
mod route;
mod tcp;
#[cfg(test)]
mod tests;

mod tftp;
mod udp;
mod watch;
mod wire;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use polling::Events;

pub use config::{Config, GATEWAY_MAC, GuestForward, HostForward, Ipv4, Ipv6, Target, Transport};
pub use nat::{Nat, Usage};
pub(crate) use watch::Watched;
pub use wire::Guest;

use crate::OpenError;
use crate::frame::{Accepts, Frame};
use crate::link::{Backend, BackendInfo, Link};
use crate::waiter::Waiter;

/// A user network with its thread.
pub struct User {
    shared: Arc<Shared>,
}

struct Shared {
    nat: Mutex<Nat>,
    waiter: Waiter,
    /// The poller waits longer than a time-out that was set meanwhile.
    waits_long: AtomicBool,
    description: String,
}

/// Nobody is on the wire yet.
struct Nobody;

impl Guest for Nobody {
    fn deliver(&self, _: &Frame<'_>) -> bool {
        true
    }

    fn accepts(&self) -> Accepts {
        Accepts::ALL
    }
}

impl User {
    /// A network; its ports are open when this returns.
    pub fn new(config: Config) -> Result<User, OpenError> {
        let waiter = Waiter::new()?;
        let description = match (&config.ipv4, &config.ipv6) {
            (Some(v4), _) => format!(
                "net={}/{},restrict={}",
                v4.net,
                v4.prefix,
                if config.restricted { "on" } else { "off" }
            ),
            (None, Some(v6)) => format!("ipv6-net={}/{}", v6.prefix, v6.length),
            (None, None) => String::new(),
        };
        let nat = Nat::new(config, waiter.poller().clone(), &Nobody, Instant::now())?;
        Ok(User {
            shared: Arc::new(Shared {
                nat: Mutex::new(nat),
                waiter,
                waits_long: AtomicBool::new(false),
                description,
            }),
        })
    }

    /// The addresses that `hostfwd`s listen at, in their order.
    pub fn ports(&self) -> Vec<SocketAddr> {
        self.shared.nat.lock().ports().to_vec()
    }

    /// What it uses now.
    pub fn usage(&self) -> Usage {
        self.shared.nat.lock().usage()
    }
}

impl Shared {
    /// The thread: waits for sockets, and for time to pass.
    fn run(&self) {
        let mut events = Events::new();
        while !self.waiter.ended() {
            let patience = {
                let nat = self.nat.lock();
                let patience = nat.patience();
                self.waits_long
                    .store(patience > Duration::from_millis(50), Ordering::SeqCst);
                patience
            };
            events.clear();
            if let Err(error) = self.waiter.poller().wait(&mut events, Some(patience)) {
                tracing::error!("the user network stops: {error}");
                return;
            }
            let Some(link) = self.waiter.link() else {
                return;
            };
            let mut nat = self.nat.lock();
            let now = Instant::now();
            for event in events.iter() {
                nat.event(&*link, now, event);
            }
            nat.tick(&*link, now);
        }
    }

    /// Wakes the thread if it must wait less long than it meant to.
    fn hurry(&self, nat: &Nat) {
        if self.waits_long.load(Ordering::SeqCst)
            && nat.patience() <= Duration::from_millis(50)
            && self.waits_long.swap(false, Ordering::SeqCst)
        {
            self.waiter.notify();
        }
    }
}

impl Backend for User {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        if let Some(link) = self.shared.waiter.link() {
            let mut nat = self.shared.nat.lock();
            nat.frame(&*link, Instant::now(), frame);
        }
        true
    }

    fn flush(&self) {
        if let Some(link) = self.shared.waiter.link() {
            let mut nat = self.shared.nat.lock();
            nat.flush(&*link, Instant::now());
            self.shared.hurry(&nat);
        }
    }

    fn accepts(&self) -> Accepts {
        Accepts {
            uso: false,
            ..Accepts::ALL
        }
    }

    fn receive_ready(&self) {
        if let Some(link) = self.shared.waiter.link() {
            let mut nat = self.shared.nat.lock();
            nat.resume(&*link, Instant::now());
            self.shared.hurry(&nat);
        }
    }

    fn start(&self, link: Weak<Link>) {
        let shared = self.shared.clone();
        self.shared.waiter.start(link, move || shared.run());
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            kind: "user",
            description: self.shared.description.clone(),
        }
    }

    fn stop(&self) {
        self.shared.waiter.end();
    }
}

impl Drop for User {
    fn drop(&mut self) {
        self.stop();
    }
}
