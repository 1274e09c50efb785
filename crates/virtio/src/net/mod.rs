//! The network device (VIRTIO 5.1).

mod filter;
mod header;
pub mod spec;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use ::device::{Ticket, Workers};
use network::{Accepts, Frame, Link, MAX_FRAME, Nic};
use parking_lot::Mutex;

use crate::device::{DeviceKind, Running, VirtioDevice};
use crate::{Chain, ConfigError, Cursor, Interrupts, Virtqueue, spec as transport};
use filter::State;
use spec::{control, feature};

/// What the user chose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    pub mac: [u8; 6],
    /// Pairs of receive and transmit queues; more than one is multi-queue.
    pub queue_pairs: u16,
    /// Descriptors of receive and transmit queues, powers of two from 256 to 1024.
    pub rx_queue_size: u16,
    pub tx_queue_size: u16,
    /// The MTU that the driver is told, if any.
    pub mtu: Option<u16>,
    /// Mbit/s that the driver is told, if any.
    pub speed: Option<u32>,
    /// Features that are not offered, of [`spec::feature`].
    pub without: u64,
}

impl Default for NetConfig {
    fn default() -> Self {
        NetConfig {
            mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
            queue_pairs: 1,
            rx_queue_size: 256,
            tx_queue_size: 256,
            mtu: None,
            speed: None,
            without: 0,
        }
    }
}

/// A virtio network card.
pub struct Net {
    inner: Arc<Inner>,
    workers: Arc<Workers>,
}

struct Inner {
    name: String,
    config: NetConfig,
    features: u64,
    link: Arc<Link>,
    running: Mutex<Option<Arc<Running>>>,
    state: Mutex<State>,
    interrupts: OnceLock<Arc<Interrupts>>,
    workers: OnceLock<Weak<Workers>>,
    /// A frame was refused for want of buffers.
    starved: AtomicBool,
    /// One frame at a time: chains that it takes, and the bytes written to each.
    receiver: Mutex<Receiver>,
    /// Which queue a flow was last sent on.
    steering: Mutex<[u8; STEERING]>,
    buffers: Mutex<Vec<Vec<u8>>>,
}

#[derive(Default)]
struct Receiver {
    chains: Vec<Chain>,
    written: Vec<u32>,
}

/// Frames of one queue before the next has its turn.
const TURN: usize = 64;
/// Entries of the table of flows.
const STEERING: usize = 256;
/// A control command with its tables: no more than this is looked at.
const COMMAND_MAX: usize = 64 << 10;

impl Net {
    /// A card on `link`. `name` is for logs.
    pub fn new(name: &str, config: NetConfig, link: Arc<Link>) -> Result<Net, ConfigError> {
        let check = |ok: bool, option, value: u64, rule| {
            let error = ConfigError::Option {
                device: name.into(),
                option,
                value,
                rule,
            };
            if ok { Ok(()) } else { Err(error) }
        };
        let pairs = config.queue_pairs;
        check(
            (1..=128).contains(&pairs),
            "queues",
            pairs.into(),
            "between 1 and 128",
        )?;
        for (option, size) in [
            ("rx_queue_size", config.rx_queue_size),
            ("tx_queue_size", config.tx_queue_size),
        ] {
            check(
                size.is_power_of_two() && (256..=1024).contains(&size),
                option,
                size.into(),
                "a power of two between 256 and 1024",
            )?;
        }
        if let Some(mtu) = config.mtu {
            check(mtu >= 68, "host_mtu", mtu.into(), "at least 68")?;
        }
        let inner = Arc::new(Inner {
            name: name.into(),
            features: offered(&config),
            state: Mutex::new(State::power_on(config.mac)),
            config,
            link: link.clone(),
            running: Mutex::new(None),
            interrupts: OnceLock::new(),
            workers: OnceLock::new(),
            starved: AtomicBool::new(false),
            receiver: Mutex::default(),
            steering: Mutex::new([0; STEERING]),
            buffers: Mutex::default(),
        });
        let job = inner.clone();
        let workers = Workers::new(name, 1, move |ticket| job.work(ticket)).map_err(|e| {
            ConfigError::Thread {
                device: name.into(),
                reason: e.to_string(),
            }
        })?;
        let workers = Arc::new(workers);
        let _ = inner.workers.set(Arc::downgrade(&workers));
        let nic: Arc<dyn Nic> = inner.clone();
        check(
            link.connect_nic(Arc::downgrade(&nic)),
            "netdev",
            0,
            "in use by another device",
        )?;
        Ok(Net { inner, workers })
    }

    /// The transport's interrupts, for changes of the link. Once.
    pub fn set_interrupts(&self, interrupts: Arc<Interrupts>) {
        let _ = self.inner.interrupts.set(interrupts);
    }

    /// The MAC address that the guest uses now.
    pub fn mac(&self) -> [u8; 6] {
        self.inner.state.lock().mac
    }
}

/// The features of a configuration, with what others depend on (VIRTIO 5.1.3.1).
fn offered(config: &NetConfig) -> u64 {
    let mut features = feature::CSUM
        | feature::GUEST_CSUM
        | feature::CTRL_GUEST_OFFLOADS
        | feature::MAC
        | feature::GUEST_TSO4
        | feature::GUEST_TSO6
        | feature::GUEST_ECN
        | feature::HOST_TSO4
        | feature::HOST_TSO6
        | feature::HOST_ECN
        | feature::HOST_USO
        | feature::MRG_RXBUF
        | feature::STATUS
        | feature::CTRL_VQ
        | feature::CTRL_RX
        | feature::CTRL_VLAN
        | feature::CTRL_RX_EXTRA
        | feature::CTRL_MAC_ADDR;
    for (on, bit) in [
        (config.queue_pairs > 1, feature::MQ),
        (config.mtu.is_some(), feature::MTU),
        (config.speed.is_some(), feature::SPEED_DUPLEX),
    ] {
        if on {
            features |= bit;
        }
    }
    features &= !config.without;
    for (needed, bits) in [
        (
            feature::GUEST_CSUM,
            feature::GUEST_TSO4 | feature::GUEST_TSO6,
        ),
        (
            feature::CSUM,
            feature::HOST_TSO4 | feature::HOST_TSO6 | feature::HOST_USO,
        ),
        (
            feature::CTRL_VQ,
            feature::CTRL_RX
                | feature::CTRL_VLAN
                | feature::MQ
                | feature::CTRL_MAC_ADDR
                | feature::CTRL_GUEST_OFFLOADS,
        ),
        (feature::CTRL_RX, feature::CTRL_RX_EXTRA),
    ] {
        if features & needed == 0 {
            features &= !bits;
        }
    }
    for (any, bit) in [
        (
            feature::GUEST_TSO4 | feature::GUEST_TSO6,
            feature::GUEST_ECN,
        ),
        (feature::HOST_TSO4 | feature::HOST_TSO6, feature::HOST_ECN),
    ] {
        if features & any == 0 {
            features &= !bit;
        }
    }
    features
}

impl VirtioDevice for Net {
    fn name(&self) -> &str {
        &self.inner.name
    }

    fn kind(&self) -> DeviceKind {
        DeviceKind {
            device_type: 1,
            transitional: Some(0x1000),
            class: 0x02_0000,
        }
    }

    fn features(&self) -> u64 {
        self.inner.features
    }

    fn queue_sizes(&self) -> Vec<u16> {
        let config = &self.inner.config;
        let pair = [config.rx_queue_size, config.tx_queue_size];
        let mut sizes = pair.repeat(config.queue_pairs.into());
        if self.inner.features & feature::CTRL_VQ != 0 {
            sizes.push(64);
        }
        sizes
    }

    fn config_size(&self) -> u64 {
        spec::CONFIG_SIZE as u64
    }

    fn read_config(&self, offset: u64, into: &mut [u8]) {
        let bytes = self.inner.config_bytes();
        for (i, byte) in into.iter_mut().enumerate() {
            *byte = bytes.get(offset as usize + i).copied().unwrap_or(0);
        }
    }

    /// Legacy drivers set the address by writing it (VIRTIO 5.1.4.3).
    fn write_config(&self, offset: u64, from: &[u8]) {
        let modern = self
            .inner
            .running
            .lock()
            .as_ref()
            .is_some_and(|r| r.has(transport::feature::VERSION_1));
        if modern {
            return;
        }
        let mut state = self.inner.state.lock();
        for (i, &byte) in from.iter().enumerate() {
            if let Some(place) = state.mac.get_mut((offset - spec::CONFIG_MAC) as usize + i) {
                *place = byte;
            }
        }
    }

    fn start(&self, running: Arc<Running>) {
        *self.inner.running.lock() = Some(running);
        self.inner.starved.store(true, Ordering::SeqCst);
        self.workers.wake();
    }

    fn notify(&self, queue: u16) {
        // Receive buffers matter to nobody unless a frame waits for them.
        let receive = queue.is_multiple_of(2) && queue < self.inner.config.queue_pairs * 2;
        if !receive || queue == 2 || self.inner.starved.load(Ordering::SeqCst) {
            self.workers.wake();
        }
    }

    fn stop(&self) {
        *self.inner.running.lock() = None;
        *self.inner.state.lock() = State::power_on(self.inner.config.mac);
        *self.inner.steering.lock() = [0; STEERING];
    }

    fn drain(&self) {
        self.workers.drain();
        drop(self.inner.receiver.lock());
    }

    fn state(&self) -> Vec<u8> {
        serde_json::to_vec(&*self.inner.state.lock()).unwrap_or_default()
    }

    fn restore(&self, state: &[u8]) -> bool {
        match serde_json::from_slice(state) {
            Ok(state) => {
                *self.inner.state.lock() = state;
                true
            }
            Err(_) => false,
        }
    }
}

impl Nic for Inner {
    fn receive(&self, frame: &Frame<'_>) -> bool {
        let running = self.running.lock().clone();
        let Some(running) = running else {
            return true;
        };
        let mut start = [0; 128];
        let peeked = frame.peek(&mut start);
        let start = &start[..peeked];
        let pairs = {
            let state = self.state.lock();
            if !state.wants(start, running.has(feature::CTRL_VLAN)) {
                return true;
            }
            state.pairs
        };
        let pair = if pairs > 1 {
            let entry = self.steering.lock()[flow(start)];
            u16::from(entry).min(pairs - 1)
        } else {
            0
        };
        let queue = running.queues.get(usize::from(pair) * 2);
        let Some(queue) = queue.filter(|q| q.is_running()) else {
            return true;
        };
        let mut receiver = self.receiver.lock();
        if receiver.receive(&running, queue, frame) {
            return true;
        }
        // Between the refusal and this store the driver may have added buffers and gone unheard: look again.
        self.starved.store(true, Ordering::SeqCst);
        receiver.receive(&running, queue, frame)
    }

    fn accepts(&self) -> Accepts {
        let running = self.running.lock().clone();
        let Some(running) = running else {
            return Accepts::ALL;
        };
        let offloads = self.state.lock().offloads.unwrap_or(u64::MAX);
        let has = |bit| running.has(bit) && offloads & bit != 0;
        Accepts {
            checksum: has(feature::GUEST_CSUM),
            tso4: has(feature::GUEST_TSO4),
            tso6: has(feature::GUEST_TSO6),
            ecn: has(feature::GUEST_ECN),
            uso: false,
        }
    }

    fn send_ready(&self) {
        if let Some(workers) = self.workers.get().and_then(Weak::upgrade) {
            workers.wake();
        }
    }

    fn link_changed(&self, _: bool) {
        if let Some(interrupts) = self.interrupts.get() {
            interrupts.config_changed();
        }
    }
}

/// A place in the table of flows, the same for both directions.
fn flow(frame: &[u8]) -> usize {
    let ports = |at: usize| frame.get(at..at + 4).unwrap_or_default();
    let (addresses, ports) = match frame.get(12..14) {
        Some([8, 0]) => {
            let length = usize::from(frame.get(14).copied().unwrap_or(0) & 15) * 4;
            (frame.get(26..34).unwrap_or_default(), ports(14 + length))
        }
        Some([0x86, 0xdd]) => (frame.get(22..54).unwrap_or_default(), ports(54)),
        _ => (&[][..], &[][..]),
    };
    let sum = |bytes: &[u8]| {
        bytes
            .iter()
            .fold(0u32, |h, &b| h.wrapping_mul(31).wrapping_add(b.into()))
    };
    let half = addresses.len() / 2;
    let ends = sum(&addresses[..half]) ^ sum(&addresses[half..]);
    let half = ports.len() / 2;
    let hash = ends ^ sum(&ports[..half]) ^ sum(&ports[half..]);
    (hash ^ hash >> 8 ^ hash >> 16) as usize % STEERING
}

/// Bytes of the header that both sides agreed on.
fn header_size(running: &Running) -> usize {
    if running.has(transport::feature::VERSION_1) || running.has(feature::MRG_RXBUF) {
        spec::header::SIZE
    } else {
        spec::header::LEGACY_SIZE
    }
}

impl Receiver {
    /// Puts a frame into receive buffers. False: there are not enough; none was used.
    fn receive(&mut self, running: &Running, queue: &Virtqueue, frame: &Frame<'_>) -> bool {
        let header_size = header_size(running);
        let total = (header_size + frame.length()) as u64;
        let mergeable = running.has(feature::MRG_RXBUF);
        let (mut room, mut taken) = (0, 0);
        while room < total && (mergeable || taken == 0) {
            if self.chains.len() == taken {
                self.chains.push(Chain::default());
            }
            if !queue.pop(running.epoch, &mut self.chains[taken]) {
                queue.put_back(running.epoch, taken as u16);
                // A frame that no ring of this size can hold would wait for ever.
                return taken > 0 && taken >= usize::from(queue.size());
            }
            room += self.chains[taken].writable_length();
            taken += 1;
            // An empty ring entry must not make this endless.
            if taken > usize::from(queue.size()) {
                queue.put_back(running.epoch, taken as u16);
                return true;
            }
        }
        let chains = &self.chains[..taken];
        if room < total {
            // Not a receive buffer of the size that this driver must give (VIRTIO 5.1.6.3.1).
            queue.put_back(running.epoch, taken as u16);
            return true;
        }
        let header = header::emit(frame, taken as u16, running.has(feature::GUEST_CSUM));
        self.written.clear();
        let parts = std::iter::once(&header[..header_size]).chain(frame.parts.iter().copied());
        scatter(queue, chains, parts, &mut self.written);
        queue.complete_together(chains, &self.written);
        true
    }
}

/// Copies parts into chains, one full after the other; appends the bytes of each to `written`.
fn scatter<'a>(
    queue: &Virtqueue,
    chains: &[Chain],
    parts: impl Iterator<Item = &'a [u8]>,
    written: &mut Vec<u32>,
) {
    let mut chains = chains.iter();
    let Some(mut chain) = chains.next() else {
        return;
    };
    let mut cursor = Cursor::new(&chain.writable);
    let mut bytes = 0;
    for mut part in parts {
        while !part.is_empty() {
            let copied = queue
                .write(chain, |dma| cursor.write(dma, part))
                .and_then(Result::ok)
                .unwrap_or(part.len());
            part = &part[copied..];
            bytes += copied as u32;
            if !part.is_empty() {
                written.push(bytes);
                bytes = 0;
                let Some(next) = chains.next() else {
                    return;
                };
                chain = next;
                cursor = Cursor::new(&chain.writable);
            }
        }
    }
    written.push(bytes);
}

/// What became of a chain of a transmit queue.
enum Sent {
    Yes,
    /// The back end has no room.
    Refused,
}

impl Inner {
    fn config_bytes(&self) -> [u8; spec::CONFIG_SIZE] {
        let mut bytes = [0; spec::CONFIG_SIZE];
        bytes[..6].copy_from_slice(&self.state.lock().mac);
        let status = if self.link.is_up() {
            spec::STATUS_LINK_UP
        } else {
            0
        };
        bytes[6..8].copy_from_slice(&status.to_le_bytes());
        bytes[8..10].copy_from_slice(&self.config.queue_pairs.to_le_bytes());
        bytes[10..12].copy_from_slice(&self.config.mtu.unwrap_or(0).to_le_bytes());
        // Without a speed both fields say that they are not known.
        let speed = self.config.speed.unwrap_or(u32::MAX);
        bytes[12..16].copy_from_slice(&speed.to_le_bytes());
        bytes[16] = if self.config.speed.is_some() {
            spec::DUPLEX_FULL
        } else {
            0xff
        };
        bytes
    }

    /// The worker's job: everything that the driver gave.
    fn work(&self, ticket: &Ticket) {
        let running = self.running.lock().clone();
        let Some(running) = running else {
            return;
        };
        let mut buffer = self.buffers.lock().pop().unwrap_or_default();
        ticket.run(running.epoch, || {
            if self.starved.swap(false, Ordering::SeqCst) {
                self.link.nic_ready();
            }
            self.control(&running, &mut buffer);
            self.transmit(&running, &mut buffer);
        });
        self.buffers.lock().push(buffer);
    }

    /// The index of the control queue (VIRTIO 5.1.2).
    fn control_index(&self, running: &Running) -> usize {
        if running.has(feature::MQ) {
            usize::from(self.config.queue_pairs) * 2
        } else {
            2
        }
    }

    fn control(&self, running: &Running, buffer: &mut Vec<u8>) {
        if !running.has(feature::CTRL_VQ) {
            return;
        }
        let Some(queue) = running.queues.get(self.control_index(running)) else {
            return;
        };
        let mut chain = Chain::default();
        while queue.pop(running.epoch, &mut chain) {
            let length = chain.readable_length().min(COMMAND_MAX as u64) as usize;
            buffer.resize(length, 0);
            let read = Cursor::new(&chain.readable).read(queue.dma(), buffer);
            let taken = read.is_ok_and(|n| {
                let mut state = self.state.lock();
                state.command(&buffer[..n], running.features, self.config.queue_pairs)
            });
            let answer = if taken { control::OK } else { control::ERR };
            let written = queue
                .write(&chain, |dma| {
                    Cursor::new(&chain.writable).write(dma, &[answer])
                })
                .and_then(Result::ok)
                .unwrap_or(0);
            queue.complete(&chain, written as u32);
        }
        queue.flush();
    }

    fn transmit(&self, running: &Running, buffer: &mut Vec<u8>) {
        let pairs = usize::from(self.state.lock().pairs);
        let header_size = header_size(running);
        let mut chain = Chain::default();
        let mut any = true;
        let mut refused = false;
        while any && !refused {
            any = false;
            for (pair, queues) in running.queues.chunks(2).take(pairs).enumerate() {
                let [_, queue] = queues else { continue };
                for _ in 0..TURN {
                    if !queue.pop(running.epoch, &mut chain) {
                        break;
                    }
                    match self.send(queue, &chain, header_size, pair, buffer) {
                        Sent::Yes => queue.complete(&chain, 0),
                        Sent::Refused => {
                            queue.put_back(running.epoch, 1);
                            refused = true;
                            break;
                        }
                    }
                    any = true;
                }
                queue.flush();
            }
        }
        self.link.flush();
    }

    fn send(
        &self,
        queue: &Virtqueue,
        chain: &Chain,
        header_size: usize,
        pair: usize,
        buffer: &mut Vec<u8>,
    ) -> Sent {
        let length = chain.readable_length();
        if length < header_size as u64 + 14 || length > (header_size + MAX_FRAME) as u64 {
            return Sent::Yes;
        }
        let mut cursor = Cursor::new(&chain.readable);
        let mut header = [0; spec::header::LEGACY_SIZE];
        let header_read = cursor.read(queue.dma(), &mut header);
        cursor.skip((header_size - spec::header::LEGACY_SIZE) as u64);
        buffer.resize(length as usize - header_size, 0);
        let read = cursor.read(queue.dma(), buffer);
        let (Ok(_), Ok(read), Some(offload)) = (header_read, read, header::parse(&header)) else {
            return Sent::Yes;
        };
        let frame: &[u8] = &buffer[..read];
        if self.config.queue_pairs > 1 {
            self.steering.lock()[flow(frame)] = pair as u8;
        }
        let taken = self.link.send(&Frame {
            offload,
            parts: &[frame],
        });
        if taken { Sent::Yes } else { Sent::Refused }
    }
}
