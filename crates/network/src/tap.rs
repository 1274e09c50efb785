//! A TAP interface of a Linux host (Documentation/networking/tuntap.rst).
#![allow(unsafe_code)] // ioctls that rustix does not have, and descriptors by number

use std::fs::File;
use std::io::IoSlice;
use std::mem::size_of;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use polling::Events;
use rustix::io::Errno;

use crate::OpenError;
use crate::frame::{Accepts, Checksum, Frame, Gso, GsoKind, MAX_FRAME, Offload};
use crate::link::{Backend, BackendInfo, Link};
use crate::user::Watched;
use crate::waiter::Waiter;

/// What the user chose.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// The interface's name; the kernel chooses one otherwise.
    pub interface: Option<String>,
    /// A descriptor that was opened for us, in the place of a name.
    pub descriptor: Option<i32>,
    /// What sets the interface up when it is there, and takes it down at the end; each gets its name.
    pub script: Option<String>,
    pub down_script: Option<String>,
}

// linux/if_tun.h, linux/if.h.
const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
const TUNSETOFFLOAD: libc::c_ulong = 0x4004_54d0;
const TUNGETIFF: libc::c_ulong = 0x8004_54d2;
const TUNSETVNETHDRSZ: libc::c_ulong = 0x4004_54d8;
const IFF_TAP: i16 = 2;
const IFF_NO_PI: i16 = 0x1000;
const IFF_VNET_HDR: i16 = 0x4000;
const TUN_F_CSUM: libc::c_ulong = 1;
const TUN_F_TSO4: libc::c_ulong = 2;
const TUN_F_TSO6: libc::c_ulong = 4;
const TUN_F_TSO_ECN: libc::c_ulong = 8;
/// Bytes of `struct virtio_net_hdr`.
const HEADER: usize = 10;

/// `struct ifreq` as far as TUN uses it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    padding: [u8; 22],
}

/// A TAP interface.
pub struct Tap {
    shared: Arc<Shared>,
}

struct Shared {
    file: Mutex<Watched<File>>,
    /// The same interface, for reading and writing without the lock.
    device: File,
    header: bool,
    waiter: Waiter,
    refused: AtomicBool,
    interface: String,
    down_script: Option<String>,
}

impl Tap {
    /// Opens or makes the interface.
    pub fn open(config: &Config) -> Result<Tap, OpenError> {
        let (file, name) = match config.descriptor {
            Some(number) => adopt(number)?,
            None => create(config.interface.as_deref())?,
        };
        let header = vnet_header(&file, &name)?;
        rustix::io::ioctl_fionbio(&file, true).map_err(|e| OpenError::io("tap")(e.into()))?;
        if let Some(script) = &config.script {
            run(script, &name)?;
        }
        let waiter = Waiter::new()?;
        let device = file.try_clone().map_err(OpenError::io("tap"))?;
        let mut watched = Watched::new(waiter.poller(), file, 1)
            .map_err(OpenError::io("cannot wait for a tap"))?;
        watched.want(true, false);
        Ok(Tap {
            shared: Arc::new(Shared {
                file: Mutex::new(watched),
                device,
                header,
                waiter,
                refused: AtomicBool::new(false),
                interface: name,
                down_script: config.down_script.clone(),
            }),
        })
    }
}

/// Takes a descriptor that another program opened for us.
fn adopt(number: i32) -> Result<(File, String), OpenError> {
    // SAFETY: whether the number is an open descriptor is asked of the kernel, which answers EBADF otherwise.
    let known = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if known < 0 || number <= 2 {
        return Err(OpenError::Invalid(format!(
            "fd={number} is not a descriptor that was passed to this program"
        )));
    }
    // SAFETY: the user gives the descriptor to this back end by its number; nothing else here uses it.
    let file = File::from(unsafe { OwnedFd::from_raw_fd(number) });
    let mut request = Request::new("");
    ioctl(&file, TUNGETIFF, &mut request)
        .map_err(OpenError::io(format!("fd={number} is not a tap interface")))?;
    let name = request.name();
    Ok((file, name))
}

fn create(name: Option<&str>) -> Result<(File, String), OpenError> {
    const DEVICE: &str = "/dev/net/tun";
    let file = File::options()
        .read(true)
        .write(true)
        .open(DEVICE)
        .map_err(OpenError::io(format!("could not open {DEVICE}")))?;
    if name.is_some_and(|n| n.len() > 15 || n.contains('\0')) {
        return Err(OpenError::Invalid(
            "ifname= has more than 15 characters".into(),
        ));
    }
    let mut request = Request::new(name.unwrap_or("tap%d"));
    request.flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    ioctl(&file, TUNSETIFF, &mut request).map_err(OpenError::io(format!(
        "could not configure {DEVICE} ({})",
        name.unwrap_or("tap%d")
    )))?;
    let name = request.name();
    Ok((file, name))
}

/// Whether frames have a header with offloads; turns them on.
fn vnet_header(file: &File, name: &str) -> Result<bool, OpenError> {
    let mut request = Request::new("");
    ioctl(file, TUNGETIFF, &mut request).map_err(OpenError::io(format!("tap {name}")))?;
    if request.flags & IFF_VNET_HDR == 0 {
        return Ok(false);
    }
    let mut size = HEADER as libc::c_int;
    ioctl(file, TUNSETVNETHDRSZ, &mut size).map_err(OpenError::io(format!("tap {name}")))?;
    let offloads = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    let set = unsafe { libc::ioctl(file.as_raw_fd(), TUNSETOFFLOAD as _, offloads) };
    if set < 0 {
        tracing::debug!("tap {name} does without offloads");
    }
    Ok(true)
}

impl Request {
    fn new(name: &str) -> Request {
        let mut bytes = [0; 16];
        bytes[..name.len()].copy_from_slice(name.as_bytes());
        Request {
            name: bytes,
            flags: 0,
            padding: [0; 22],
        }
    }

    fn name(&self) -> String {
        let end = self.name.iter().position(|b| *b == 0).unwrap_or(16);
        String::from_utf8_lossy(&self.name[..end]).into_owned()
    }
}

fn ioctl<T>(file: &File, number: libc::c_ulong, argument: &mut T) -> std::io::Result<()> {
    const { assert!(size_of::<Request>() == 40) };
    // SAFETY: the argument is a living value of the type that the request reads or writes: `struct ifreq` or an int.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), number as _, std::ptr::from_mut(argument)) };
    if done < 0 {
        Err(std::io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn run(script: &str, interface: &str) -> Result<(), OpenError> {
    let status = Command::new(script)
        .arg(interface)
        .status()
        .map_err(OpenError::io(format!(
            "could not launch network script {script}"
        )))?;
    if status.success() {
        Ok(())
    } else {
        Err(OpenError::Invalid(format!(
            "network script {script} failed with status {}",
            status.code().unwrap_or(-1)
        )))
    }
}

/// A frame's header as the kernel has it: that of virtio, in the host's byte order.
fn header(offload: &Offload, headers: u16) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    let mut put = |at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    if let Some(gso) = offload.gso {
        put(2, headers);
        put(4, gso.size);
    }
    if let Checksum::Partial { start, offset } = offload.checksum {
        put(6, start);
        put(8, offset);
        bytes[0] = 1;
    }
    bytes[1] = offload.gso.map_or(0, |gso| {
        let kind = match gso.kind {
            GsoKind::Tcp4 => 1,
            GsoKind::Tcp6 => 4,
            GsoKind::Udp => 5,
        };
        kind | if gso.ecn { 0x80 } else { 0 }
    });
    bytes
}

fn offload(bytes: &[u8; HEADER]) -> Offload {
    let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
    let checksum = match bytes[0] & 3 {
        0 => Checksum::Complete,
        2 => Checksum::Valid,
        _ => Checksum::Partial {
            start: word(6),
            offset: word(8),
        },
    };
    let kind = match bytes[1] & 0x7f {
        1 => Some(GsoKind::Tcp4),
        4 => Some(GsoKind::Tcp6),
        5 => Some(GsoKind::Udp),
        _ => None,
    };
    Offload {
        checksum,
        gso: kind.map(|kind| Gso {
            kind,
            size: word(4),
            ecn: bytes[1] & 0x80 != 0,
        }),
    }
}

impl Shared {
    fn run(&self) {
        let mut events = Events::new();
        let mut buffer = vec![0; HEADER + MAX_FRAME];
        let mut held: Option<usize> = None;
        while !self.waiter.ended() {
            events.clear();
            if let Err(error) = self.waiter.poller().wait(&mut events, None) {
                return tracing::error!("a tap stops: {error}");
            }
            let Some(link) = self.waiter.link() else {
                return;
            };
            for _ in 0..64 {
                let length = match held.take() {
                    Some(length) => length,
                    None => match rustix::io::read(&self.device, &mut buffer) {
                        Ok(n) => n,
                        Err(Errno::INTR) => continue,
                        Err(_) => break,
                    },
                };
                if !self.deliver(&link, &buffer[..length]) {
                    held = Some(length);
                    break;
                }
            }
            let refused = self.refused.swap(false, Ordering::SeqCst);
            self.file.lock().want(held.is_none(), false);
            if refused {
                link.backend_ready();
            }
        }
    }

    fn deliver(&self, link: &Link, bytes: &[u8]) -> bool {
        if !self.header {
            return link.deliver(&Frame::plain(&[bytes]));
        }
        match bytes.split_first_chunk::<HEADER>() {
            Some((header, frame)) => link.deliver(&Frame {
                offload: offload(header),
                parts: &[frame],
            }),
            None => true,
        }
    }
}

impl Backend for Tap {
    fn transmit(&self, frame: &Frame<'_>) -> bool {
        let shared = &self.shared;
        let mut start = [0; 128];
        let peeked = frame.peek(&mut start);
        let headers = match frame.offload.checksum {
            Checksum::Partial { start: at, .. } => {
                let offset = start[..peeked].get(usize::from(at) + 12);
                at.saturating_add(offset.map_or(20, |b| u16::from(b >> 4) * 4))
            }
            _ => 0,
        };
        let header = header(&frame.offload, headers);
        let mut slices = Vec::with_capacity(frame.parts.len() + 1);
        if shared.header {
            slices.push(IoSlice::new(&header));
        }
        slices.extend(frame.parts.iter().map(|p| IoSlice::new(p)));
        loop {
            match rustix::io::writev(&shared.device, &slices) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    shared.refused.store(true, Ordering::SeqCst);
                    shared.file.lock().want(true, true);
                    return false;
                }
                // The interface is down, or does not take such a frame: lost, as on a wire.
                _ => return true,
            }
        }
    }

    fn accepts(&self) -> Accepts {
        if self.shared.header {
            Accepts {
                uso: false,
                ..Accepts::ALL
            }
        } else {
            Accepts::default()
        }
    }

    fn receive_ready(&self) {
        self.shared.waiter.notify();
    }

    fn start(&self, link: Weak<Link>) {
        let shared = self.shared.clone();
        self.shared.waiter.start(link, move || shared.run());
    }

    fn info(&self) -> BackendInfo {
        BackendInfo {
            kind: "tap",
            description: format!("ifname={}", self.shared.interface),
        }
    }

    fn stop(&self) {
        if !self.shared.waiter.end() {
            return;
        }
        if let Some(script) = &self.shared.down_script
            && let Err(error) = run(script, &self.shared.interface)
        {
            tracing::warn!("{error}");
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::Fake;
    use crate::link::Nic;

    #[test]
    fn headers_say_what_frames_are() {
        let full = Offload {
            checksum: Checksum::Partial {
                start: 34,
                offset: 16,
            },
            gso: Some(Gso {
                kind: GsoKind::Tcp6,
                size: 1440,
                ecn: true,
            }),
        };
        for sample in [full, Offload::default()] {
            assert_eq!(offload(&header(&sample, 54)), sample);
        }
    }

    #[test]
    fn mistakes_are_told() {
        let open = |config: &Config| match Tap::open(config) {
            Err(error) => error.to_string(),
            Ok(_) => String::new(),
        };
        let long = Config {
            interface: Some("x".repeat(16)),
            ..Config::default()
        };
        assert!(!open(&long).is_empty());
        let closed = Config {
            descriptor: Some(9999),
            ..Config::default()
        };
        assert!(open(&closed).contains("fd=9999"));
    }

    /// With the right to make interfaces (CI has it): frames come and go.
    #[test]
    fn an_interface_of_its_own() {
        let config = Config {
            interface: Some(format!("dm{}", std::process::id() % 100_000)),
            ..Config::default()
        };
        let tap = match Tap::open(&config) {
            Ok(tap) => Arc::new(tap),
            Err(error) => {
                // Without the right to, that is what the user reads.
                assert!(error.to_string().contains("/dev/net/tun"), "{error}");
                return;
            }
        };
        let link = Link::new("n");
        let nic = Arc::new(Fake::new(Accepts::ALL));
        let as_nic: Arc<dyn Nic> = nic.clone();
        link.connect_nic(Arc::downgrade(&as_nic));
        link.connect_backend(tap.clone());
        let up = Command::new("ip")
            .args(["link", "set", &tap.shared.interface, "up"])
            .status();
        if !up.is_ok_and(|s| s.success()) {
            return;
        }
        // A host says something on a new interface by itself: IPv6 does.
        assert!(link.send(&Frame::plain(&[&[0xff; 60]])));
        assert!(tap.shared.device.as_raw_fd() > 0);
    }
}
