//! Interfaces that macOS makes for virtual machines, by its vmnet.framework (Apple's reference, "vmnet").
//!
//! Its packets are Ethernet frames. Offloads are not turned on (`vmnet_enable_tso_key`), so they are finished both ways.

#[cfg(target_os = "macos")]
mod apple;
pub mod framework;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use polling::Events;

use crate::OpenError;
use crate::frame::{Accepts, Frame, MAX_FRAME};
use crate::link::{Backend, BackendInfo, Link};
use crate::waiter::Waiter;
use framework::{Batch, Framework, Interface, Parameters, Refusal, Rights, Status};

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    pub mode: Mode,
    /// Other interfaces of vmnet are not reached.
    pub isolated: bool,
}

/// `operating_modes_t`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A network of this Mac and its machines.
    Host {
        addresses: Option<Addresses>,
        /// The UUID of a network of its own, without DHCP.
        network: Option<[u8; 16]>,
    },
    /// That, and the world behind the Mac's address.
    Shared {
        addresses: Option<Addresses>,
        /// A prefix of 64 bits in fd00::/8.
        nat66_prefix: Option<Ipv6Addr>,
    },
    /// The network of one of the Mac's interfaces.
    Bridged { interface: String },
}

/// Addresses that DHCP gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The Mac's own.
    pub start: Ipv4Addr,
    pub end: Ipv4Addr,
    pub mask: Ipv4Addr,
}

impl Mode {
    /// As `-netdev` calls it.
    pub fn name(&self) -> &'static str {
        match self {
            Mode::Host { .. } => "vmnet-host",
            Mode::Shared { .. } => "vmnet-shared",
            Mode::Bridged { .. } => "vmnet-bridged",
        }
    }
}

/// Bytes of an Ethernet header: no frame is shorter.
const HEADER: usize = 14;
/// Bytes of the largest packet where the framework does not say: an MTU of 1500, and a header with a VLAN tag.
const USUAL: usize = 1500 + 18;
/// Batches that are read before others have their turn.
const TURN: usize = 16;
/// The framework does not say when it has room again.
const RETRY: Duration = Duration::from_millis(1);

/// An interface of vmnet.
pub struct Vmnet {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` once it is stopped.
    interface: RwLock<Option<Box<dyn Interface>>>,
    /// Bytes of the largest packet.
    largest: usize,
    departures: Mutex<Departures>,
    /// The NIC has no room, so that news of arrivals can wait.
    held: Arc<AtomicBool>,
    /// The user was told of an error.
    told: AtomicBool,
    waiter: Waiter,
    info: BackendInfo,
}

/// Frames of the guest.
struct Departures {
    batch: Batch,
    /// The framework had no room for them: the thread tries again. So it is with every batch that is full.
    blocked: bool,
    /// A frame was refused since.
    refused: bool,
}

/// What of this host can be bridged; `None` if it does not say.
pub fn bridgeable() -> Option<Vec<String>> {
    #[cfg(target_os = "macos")]
    {
        apple::Apple::new().ok()?.bridgeable()
    }
    #[cfg(not(target_os = "macos"))]
    None
}

/// Interfaces to choose from, in words.
pub fn choices(bridgeable: &[String]) -> String {
    if bridgeable.is_empty() {
        return "macOS offers no interface to bridge".into();
    }
    format!("interfaces that can be bridged: {}", bridgeable.join(", "))
}

impl Vmnet {
    /// Starts an interface.
    pub fn open(config: &Config) -> Result<Vmnet, OpenError> {
        #[cfg(target_os = "macos")]
        {
            Vmnet::on(&apple::Apple::new()?, config)
        }
        #[cfg(not(target_os = "macos"))]
        Err(OpenError::Invalid(format!(
            "no back end '{}': only macOS has it",
            config.mode.name()
        )))
    }

    /// Starts one of this framework's.
    pub fn on(framework: &dyn Framework, config: &Config) -> Result<Vmnet, OpenError> {
        if let Mode::Bridged { interface } = &config.mode
            && let Some(names) = framework.bridgeable()
            && !names.contains(interface)
        {
            return Err(OpenError::Invalid(format!(
                "'{interface}' cannot be bridged; {}",
                choices(&names)
            )));
        }
        let waiter = Waiter::new()?;
        let held = Arc::new(AtomicBool::new(false));
        let (poller, wait) = (waiter.poller().clone(), held.clone());
        let arrived = move || {
            if !wait.load(Ordering::SeqCst) {
                // As `Waiter::notify`.
                let _ = poller.notify();
            }
        };
        let started = framework
            .start(config, Arc::new(arrived))
            .map_err(|refusal| refused(&config.mode, refusal, framework.rights()))?;
        let largest = match started.parameters.max_packet_size {
            0 => USUAL,
            size => usize::try_from(size).map_or(MAX_FRAME, |s| s.clamp(HEADER, MAX_FRAME)),
        };
        Ok(Vmnet {
            shared: Arc::new(Shared {
                interface: RwLock::new(Some(started.interface)),
                largest,
                departures: Mutex::new(Departures {
                    batch: Batch::new(largest),
                    blocked: false,
                    refused: false,
                }),
                held,
                told: AtomicBool::new(false),
                waiter,
                info: BackendInfo {
                    kind: config.mode.name(),
                    description: describe(config, &started.parameters),
                },
            }),
        })
    }
}

/// What the user is told of a start that failed.
fn refused(mode: &Mode, refusal: Refusal, rights: Rights) -> OpenError {
    let denied = matches!(
        refusal,
        Refusal::Status(Status::FAILURE | Status::INVALID_ACCESS | Status::NOT_AUTHORIZED)
    );
    let name = mode.name();
    OpenError::Invalid(match refusal {
        _ if denied && rights.user != 0 && !rights.entitled => format!(
            "vmnet needs root or the entitlement com.apple.vm.networking: this program runs as user {}, and is not \
             signed with it. Start it with sudo, or use -netdev user",
            rights.user
        ),
        Refusal::Status(status) => format!("{name} does not start: {status}"),
        Refusal::Silent => format!("{name} does not start: macOS has not answered"),
        Refusal::Missing(what) => format!("{name} does not start: this macOS has no {what}"),
    })
}

/// One line, with options as they could have been given.
fn describe(config: &Config, parameters: &Parameters) -> String {
    let mut words = Vec::new();
    if let Mode::Bridged { interface } = &config.mode {
        words.push(format!("ifname={interface}"));
    }
    if let Some([start, end, mask]) = &parameters.addresses {
        words.push(format!(
            "start-address={start},end-address={end},subnet-mask={mask}"
        ));
    }
    if config.isolated {
        words.push("isolated=on".into());
    }
    words.push(format!("mtu={}", parameters.mtu));
    words.join(",")
}

impl Shared {
    fn run(&self) {
        let mut events = Events::new();
        let mut arrivals = Batch::new(self.largest);
        while !self.waiter.ended() {
            let Some(link) = self.waiter.link() else {
                return;
            };
            self.receive(&link, &mut arrivals);
            let blocked = self.send_again(&link);
            drop(link);
            events.clear();
            let patience = blocked.then_some(RETRY);
            if let Err(error) = self.waiter.poller().wait(&mut events, patience) {
                return tracing::error!("{} stops: {error}", self.info.kind);
            }
        }
    }

    /// Hands over what has arrived. The framework tells of what arrives after a read that found nothing.
    fn receive(&self, link: &Link, arrivals: &mut Batch) {
        self.held.store(false, Ordering::SeqCst);
        for _ in 0..TURN {
            while let Some(packet) = arrivals.waiting().first() {
                let frame = packet.contents();
                if frame.len() >= HEADER && !link.deliver(&Frame::plain(&[frame])) {
                    self.held.store(true, Ordering::SeqCst);
                    return;
                }
                arrivals.done(1);
            }
            let interface = self.interface.read();
            let Some(interface) = interface.as_ref() else {
                return;
            };
            if let Err(status) = arrivals.fill(|packets| interface.read(packets)) {
                return self.trouble("gives no packets", status);
            }
            if arrivals.waiting().is_empty() {
                return;
            }
        }
        // There may be more.
        self.waiter.notify();
    }

    /// Tries again what the framework had no room for: whether it still has none.
    fn send_again(&self, link: &Link) -> bool {
        let mut departures = self.departures.lock();
        if departures.blocked {
            self.write(&mut departures);
        }
        let blocked = departures.blocked;
        let ready = !blocked && std::mem::take(&mut departures.refused);
        drop(departures);
        if ready {
            link.backend_ready();
        }
        blocked
    }

    /// Writes what waits, as far as there is room for it.
    fn write(&self, departures: &mut Departures) {
        departures.blocked = false;
        let batch = &mut departures.batch;
        while !batch.waiting().is_empty() {
            let interface = self.interface.read();
            let written = match interface.as_ref() {
                Some(interface) => interface.write(batch.waiting()),
                None => Ok(batch.waiting().len()),
            };
            match written {
                Ok(0) | Err(Status::BUFFER_EXHAUSTED) => {
                    departures.blocked = true;
                    return;
                }
                Ok(count) => batch.done(count),
                Err(status) => {
                    self.trouble("takes no packets", status);
                    // Lost, as on a wire.
                    batch.done(batch.waiting().len());
                }
            }
        }
    }

    /// Writes what waits, or leaves it to the thread.
    fn write_or_wait(&self, departures: &mut Departures) {
        if !departures.blocked {
            self.write(departures);
            if departures.blocked {
                self.waiter.notify();
            }
        }
    }

    fn trouble(&self, what: &str, status: Status) {
        if !self.told.swap(true, Ordering::SeqCst) {
            tracing::warn!("{} {what}: {status}", self.info.kind);
        }
    }
}

impl Backend for Vmnet {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        let shared = &self.shared;
        if !(HEADER..=shared.largest).contains(&frame.length()) {
            // What no wire carries.
            return true;
        }
        let mut departures = shared.departures.lock();
        if departures.batch.is_full() {
            departures.refused = true;
            return false;
        }
        departures.batch.push(frame);
        if departures.batch.is_full() {
            shared.write_or_wait(&mut departures);
        }
        true
    }

    fn flush(&self) {
        self.shared
            .write_or_wait(&mut self.shared.departures.lock());
    }

    fn accepts(&self) -> Accepts {
        Accepts::default()
    }

    fn receive_ready(&self) {
        self.shared.waiter.notify();
    }

    fn start(&self, link: Weak<Link>) {
        let shared = self.shared.clone();
        self.shared.waiter.start(link, move || shared.run());
    }

    fn info(&self) -> BackendInfo {
        self.shared.info.clone()
    }

    fn stop(&self) {
        self.shared.waiter.end();
        let interface = self.shared.interface.write().take();
        if let Some(interface) = interface {
            interface.stop();
        }
    }
}

impl Drop for Vmnet {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests;
