//! A guest for tests: smoltcp's stack on the virtual network, driven step by step.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use polling::{Events, Poller};
use smoltcp::iface::{Config as IfaceConfig, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp;
use smoltcp::wire::{EthernetAddress, IpCidr};

use crate::frame::{Accepts, Frame, Offload};
use crate::offload;
use crate::user::{Config, Guest, Nat};

pub const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

/// What the guest's NIC got.
#[derive(Default)]
pub struct Mailbox {
    pub frames: RefCell<VecDeque<(Offload, Vec<u8>)>>,
    pub accepts: RefCell<Accepts>,
    /// Room for frames; more are refused.
    pub room: RefCell<usize>,
}

impl Guest for Mailbox {
    fn deliver(&self, frame: &Frame<'_>) -> bool {
        let mut frames = self.frames.borrow_mut();
        if frames.len() >= *self.room.borrow() {
            return false;
        }
        assert!(self.accepts().takes(&frame.offload));
        frames.push_back((frame.offload, frame.to_vec()));
        true
    }

    fn accepts(&self) -> Accepts {
        *self.accepts.borrow()
    }
}

/// smoltcp's side of the wire.
#[derive(Default)]
pub struct Wire {
    pub to_guest: VecDeque<Vec<u8>>,
    pub from_guest: VecDeque<Vec<u8>>,
}

pub struct Token(Vec<u8>);
pub struct Sender<'a>(&'a mut VecDeque<Vec<u8>>);

impl RxToken for Token {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sender<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl Device for Wire {
    type RxToken<'a> = Token;
    type TxToken<'a> = Sender<'a>;

    fn receive(
        &mut self,
        _: smoltcp::time::Instant,
    ) -> Option<(Self::RxToken<'_>, Self::TxToken<'_>)> {
        let frame = self.to_guest.pop_front()?;
        Some((Token(frame), Sender(&mut self.from_guest)))
    }

    fn transmit(&mut self, _: smoltcp::time::Instant) -> Option<Self::TxToken<'_>> {
        (self.from_guest.len() < 64).then_some(Sender(&mut self.from_guest))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

pub struct Rig {
    pub nat: Nat,
    poller: Arc<Poller>,
    events: Events,
    pub mailbox: Mailbox,
    pub wire: Wire,
    pub iface: Interface,
    pub sockets: SocketSet<'static>,
    begun: Instant,
    /// Frames the guest got, in all.
    pub received: usize,
    /// The largest of them.
    pub largest: usize,
}

impl Rig {
    pub fn new(config: Config) -> Rig {
        let poller = Arc::new(Poller::new().unwrap());
        let mailbox = Mailbox::default();
        *mailbox.room.borrow_mut() = 256;
        let nat = Nat::new(config, poller.clone(), &mailbox, Instant::now()).unwrap();
        let mut wire = Wire::default();
        let mut settings = IfaceConfig::new(EthernetAddress(MAC).into());
        settings.random_seed = 7;
        let mut iface = Interface::new(settings, &mut wire, smoltcp::time::Instant::ZERO);
        iface.update_ip_addrs(|addresses| {
            for (ip, bits) in [("10.0.2.15", 24), ("fec0::15", 64)] {
                let ip: IpAddr = ip.parse().unwrap();
                addresses.push(IpCidr::new(ip.into(), bits)).unwrap();
            }
        });
        let routes = iface.routes_mut();
        routes
            .add_default_ipv4_route("10.0.2.2".parse().unwrap())
            .unwrap();
        routes
            .add_default_ipv6_route("fec0::2".parse().unwrap())
            .unwrap();
        Rig {
            nat,
            poller,
            events: Events::new(),
            mailbox,
            wire,
            iface,
            sockets: SocketSet::new(Vec::new()),
            begun: Instant::now(),
            received: 0,
            largest: 0,
        }
    }

    /// Lets the guest, the network and the host each do what they can.
    pub fn step(&mut self) {
        let elapsed = self.begun.elapsed().as_micros() as i64;
        let now = smoltcp::time::Instant::from_micros(elapsed);
        self.iface.poll(now, &mut self.wire, &mut self.sockets);
        while let Some(frame) = self.wire.from_guest.pop_front() {
            self.nat
                .frame(&self.mailbox, Instant::now(), &Frame::plain(&[&frame]));
        }
        self.nat.flush(&self.mailbox, Instant::now());
        self.events.clear();
        self.poller
            .wait(&mut self.events, Some(Duration::from_millis(1)))
            .unwrap();
        let events: Vec<_> = self.events.iter().collect();
        for event in events {
            self.nat.event(&self.mailbox, Instant::now(), event);
        }
        self.nat.tick(&self.mailbox, Instant::now());
        let frames: Vec<_> = self.mailbox.frames.borrow_mut().drain(..).collect();
        for (offload, bytes) in frames {
            self.received += 1;
            self.largest = self.largest.max(bytes.len());
            let frame = Frame {
                offload,
                parts: &[&bytes],
            };
            offload::finish(&frame, &mut Vec::new(), |finished| {
                self.wire.to_guest.push_back(finished.to_vec());
                true
            });
        }
        self.nat.resume(&self.mailbox, Instant::now());
    }

    /// Steps until `done`.
    pub fn until(&mut self, what: &str, mut done: impl FnMut(&mut Rig) -> bool) {
        let start = Instant::now();
        while !done(self) {
            assert!(start.elapsed() < Duration::from_secs(30), "no {what}");
            self.step();
        }
    }

    /// Frames straight from the guest's NIC.
    pub fn send(&mut self, frame: &[u8]) {
        self.nat
            .frame(&self.mailbox, Instant::now(), &Frame::plain(&[frame]));
    }

    /// Takes the frames that came for the guest, without its stack.
    pub fn take(&mut self) -> Vec<Vec<u8>> {
        self.nat.flush(&self.mailbox, Instant::now());
        self.mailbox
            .frames
            .borrow_mut()
            .drain(..)
            .map(|(_, f)| f)
            .collect()
    }

    pub fn tcp_socket(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 1 << 17]);
        let mut socket = tcp::Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        self.sockets.add(socket)
    }

    pub fn tcp(&mut self, handle: SocketHandle) -> &mut tcp::Socket<'static> {
        self.sockets.get_mut(handle)
    }

    /// Connects the guest; whether it came about.
    pub fn connect(&mut self, to: SocketAddr) -> (SocketHandle, bool) {
        static PORT: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(40000);
        let port = PORT.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let handle = self.tcp_socket();
        let context = self.iface.context();
        self.sockets
            .get_mut::<tcp::Socket>(handle)
            .connect(context, to, port)
            .unwrap();
        self.until("end of connecting", |rig| {
            !matches!(rig.tcp(handle).state(), tcp::State::SynSent)
        });
        let open = self.tcp(handle).state() == tcp::State::Established;
        (handle, open)
    }
}
