use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

use super::framework::{Arrived, Packet, Started};
use super::*;
use crate::fake::Fake;
use crate::frame::{Checksum, Offload};
use crate::link::Nic;

/// An interface whose far end is the test.
#[derive(Default)]
struct Far {
    arrived: Mutex<Option<Arrived>>,
    arrivals: Mutex<VecDeque<Vec<u8>>>,
    written: Mutex<Vec<Vec<u8>>>,
    /// Packets that a write takes at most.
    room: AtomicUsize,
    /// What calls answer instead.
    error: Mutex<Option<Status>>,
    reads: AtomicUsize,
    writes: AtomicUsize,
    stops: AtomicUsize,
}

impl Far {
    fn sends(&self, packets: impl IntoIterator<Item = Vec<u8>>) {
        self.arrivals.lock().extend(packets);
        let arrived = self.arrived.lock().clone().unwrap();
        arrived();
    }
}

struct Near(Arc<Far>);

impl Interface for Near {
    fn read(&self, packets: &mut [Packet]) -> Result<usize, Status> {
        assert_eq!(self.0.stops.load(Ordering::SeqCst), 0, "read after stop");
        self.0.reads.fetch_add(1, Ordering::SeqCst);
        if let Some(status) = *self.0.error.lock() {
            return Err(status);
        }
        let mut arrivals = self.0.arrivals.lock();
        let mut count = 0;
        for packet in packets {
            let Some(bytes) = arrivals.pop_front() else {
                break;
            };
            packet.bytes[..bytes.len()].copy_from_slice(&bytes);
            packet.length = bytes.len();
            count += 1;
        }
        Ok(count)
    }

    fn write(&self, packets: &[Packet]) -> Result<usize, Status> {
        assert_eq!(self.0.stops.load(Ordering::SeqCst), 0, "write after stop");
        self.0.writes.fetch_add(1, Ordering::SeqCst);
        if let Some(status) = *self.0.error.lock() {
            return Err(status);
        }
        let count = packets.len().min(self.0.room.load(Ordering::SeqCst));
        if count == 0 {
            return Err(Status::BUFFER_EXHAUSTED);
        }
        let contents = packets[..count].iter().map(|p| p.contents().to_vec());
        self.0.written.lock().extend(contents);
        Ok(count)
    }

    fn stop(&self) {
        self.0.stops.fetch_add(1, Ordering::SeqCst);
    }
}

struct Model {
    far: Arc<Far>,
    parameters: Parameters,
    refusal: Option<Refusal>,
    bridgeable: Option<Vec<String>>,
    rights: Rights,
}

impl Model {
    fn new() -> Model {
        let far = Far::default();
        far.room.store(usize::MAX, Ordering::SeqCst);
        Model {
            far: Arc::new(far),
            parameters: Parameters {
                max_packet_size: 1518,
                mtu: 1500,
                addresses: None,
            },
            refusal: None,
            bridgeable: None,
            rights: Rights {
                user: 0,
                entitled: false,
            },
        }
    }
}

impl Framework for Model {
    fn bridgeable(&self) -> Option<Vec<String>> {
        self.bridgeable.clone()
    }

    fn start(&self, _: &Config, arrived: Arrived) -> Result<Started, Refusal> {
        if let Some(refusal) = &self.refusal {
            return Err(refusal.clone());
        }
        *self.far.arrived.lock() = Some(arrived);
        Ok(Started {
            interface: Box::new(Near(self.far.clone())),
            parameters: self.parameters.clone(),
        })
    }

    fn rights(&self) -> Rights {
        self.rights
    }
}

fn shared() -> Config {
    Config {
        mode: Mode::Shared {
            addresses: None,
            nat66_prefix: None,
        },
        isolated: false,
    }
}

fn bridged(interface: &str) -> Config {
    Config {
        mode: Mode::Bridged {
            interface: interface.into(),
        },
        isolated: true,
    }
}

struct Wire {
    far: Arc<Far>,
    vmnet: Arc<Vmnet>,
    link: Arc<Link>,
    nic: Arc<Fake>,
}

fn wire(model: &Model) -> Wire {
    let link = Link::new("n");
    let nic = Arc::new(Fake::default());
    let as_nic: Arc<dyn Nic> = nic.clone();
    link.connect_nic(Arc::downgrade(&as_nic));
    let vmnet = Arc::new(Vmnet::on(model, &shared()).unwrap());
    link.connect_backend(vmnet.clone());
    Wire {
        far: model.far.clone(),
        vmnet,
        link,
        nic,
    }
}

fn until(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "no {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The n-th of many frames of different sizes.
fn frame(n: usize) -> Vec<u8> {
    let mut frame = vec![n as u8; 60 + n * 7 % 1400];
    frame[..8].copy_from_slice(&(n as u64).to_be_bytes());
    frame
}

fn frames(range: std::ops::Range<usize>) -> Vec<Vec<u8>> {
    range.map(frame).collect()
}

fn contents(nic: &Fake) -> Vec<Vec<u8>> {
    nic.take().into_iter().map(|(_, bytes)| bytes).collect()
}

#[test]
fn frames_go_both_ways_whole() {
    let wire = wire(&Model::new());
    // More than one turn of the thread takes.
    let many = 5000;
    wire.far.sends(frames(0..many));
    until("frames", || wire.nic.frames.lock().len() == many);
    assert_eq!(contents(&wire.nic), frames(0..many));
    for n in 0..500 {
        let frame = frame(n);
        let (head, tail) = frame.split_at(14);
        assert!(wire.link.send(&Frame::plain(&[head, tail])));
    }
    wire.link.flush();
    assert_eq!(*wire.far.written.lock(), frames(0..500));
    // A call takes many.
    assert!(wire.far.writes.load(Ordering::SeqCst) <= 5);
    wire.link.flush();
    assert!(wire.far.writes.load(Ordering::SeqCst) <= 5);
}

#[test]
fn a_nic_without_room_gets_its_frames_later() {
    let wire = wire(&Model::new());
    wire.nic.full.store(true, Ordering::SeqCst);
    wire.far.sends(frames(0..1000));
    until("read", || wire.far.arrivals.lock().len() < 1000);
    let reads = wire.far.reads.load(Ordering::SeqCst);
    for n in 1000..1010 {
        wire.far.sends([frame(n)]);
    }
    // What is not taken stays with the framework: no more than a batch is here.
    wire.link.nic_ready();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(wire.far.reads.load(Ordering::SeqCst), reads);
    assert_eq!(wire.far.arrivals.lock().len(), 1010 - 128);
    wire.nic.full.store(false, Ordering::SeqCst);
    wire.link.nic_ready();
    until("frames", || wire.nic.frames.lock().len() == 1010);
    assert_eq!(contents(&wire.nic), frames(0..1010));
    // And news is listened to again.
    wire.far.sends([frame(3)]);
    until("frame", || wire.nic.frames.lock().len() == 1);
}

#[test]
fn a_guest_waits_for_a_kernel_without_buffers() {
    let wire = wire(&Model::new());
    wire.far.room.store(0, Ordering::SeqCst);
    let mut sent = 0;
    while wire.link.send(&Frame::plain(&[&frame(sent)])) {
        sent += 1;
        assert!(sent <= 128, "nothing grows");
    }
    assert!(wire.far.written.lock().is_empty());
    let tried_again = || {
        let writes = wire.far.writes.load(Ordering::SeqCst);
        until("other tries", || {
            wire.far.writes.load(Ordering::SeqCst) > writes + 2
        });
    };
    tried_again();
    assert_eq!(wire.nic.ready.load(Ordering::SeqCst), 0);
    // It takes a few at a time, then more.
    wire.far.room.store(3, Ordering::SeqCst);
    until("word of room", || {
        wire.nic.ready.load(Ordering::SeqCst) == 1
    });
    assert!(wire.link.send(&Frame::plain(&[&frame(sent)])));
    wire.link.flush();
    until("frames", || wire.far.written.lock().len() == sent + 1);
    assert_eq!(*wire.far.written.lock(), frames(0..sent + 1));

    // What a flush could not write goes by itself.
    wire.far.room.store(0, Ordering::SeqCst);
    assert!(wire.link.send(&Frame::plain(&[&frame(7)])));
    wire.link.flush();
    tried_again();
    wire.far.room.store(1, Ordering::SeqCst);
    until("frame", || wire.far.written.lock().len() == sent + 2);
}

#[test]
fn what_no_wire_carries_is_lost() {
    let wire = wire(&Model::new());
    for length in [0, 13, 1519, MAX_FRAME] {
        assert!(wire.link.send(&Frame::plain(&[&vec![1; length]])));
    }
    assert!(wire.link.send(&Frame::plain(&[&[2; 1518]])));
    wire.link.flush();
    assert_eq!(*wire.far.written.lock(), [vec![2; 1518]]);
    wire.far.sends([vec![], vec![1; 13], vec![2; 14]]);
    until("frame", || !wire.nic.frames.lock().is_empty());
    assert_eq!(contents(&wire.nic), [vec![2; 14]]);

    // An error takes the batch with it, not the wire.
    *wire.far.error.lock() = Some(Status::SETUP_INCOMPLETE);
    assert!(wire.link.send(&Frame::plain(&[&[3; 60]])));
    wire.link.flush();
    wire.far.sends([vec![4; 60]]);
    *wire.far.error.lock() = None;
    assert!(wire.link.send(&Frame::plain(&[&[5; 60]])));
    wire.link.flush();
    assert_eq!(wire.far.written.lock().last(), Some(&vec![5; 60]));
    wire.far.sends([vec![6; 60]]);
    until("frames", || wire.nic.frames.lock().len() == 2);
}

#[test]
fn a_framework_may_say_anything_of_sizes() {
    for (size, largest) in [(0, USUAL), (1, HEADER), (9018, 9018), (u64::MAX, MAX_FRAME)] {
        let mut model = Model::new();
        model.parameters.max_packet_size = size;
        let wire = wire(&model);
        assert!(wire.link.send(&Frame::plain(&[&vec![1; largest + 1]])));
        assert!(wire.link.send(&Frame::plain(&[&vec![2; largest]])));
        wire.link.flush();
        assert_eq!(*wire.far.written.lock(), [vec![2; largest]], "{size}");
    }
    let mut batch = Batch::new(64);
    batch.fill(|packets| Ok(packets.len() + 1)).unwrap();
    batch.done(usize::from(u16::MAX));
    assert!(batch.waiting().is_empty() && !batch.is_full());
    let long = Packet {
        bytes: vec![0; 4].into(),
        length: 5,
    };
    assert_eq!(long.contents().len(), 4);
}

#[test]
fn checksums_are_made_first() {
    let wire = wire(&Model::new());
    let mut frame = vec![0; 60];
    frame[40] = 0x12;
    let offload = Offload {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        gso: None,
    };
    assert!(wire.link.send(&Frame {
        offload,
        parts: &[&frame],
    }));
    wire.link.flush();
    let written = wire.far.written.lock();
    assert_eq!(written[0][50..52], [!0x12, 0xff]);
}

#[test]
fn it_is_stopped_once() {
    let wire = wire(&Model::new());
    wire.link.send(&Frame::plain(&[&[0; 60]]));
    wire.link.stop();
    wire.link.stop();
    until("end", || Arc::strong_count(&wire.vmnet.shared) == 1);
    // Who still sends does not wait.
    for _ in 0..1000 {
        assert!(wire.link.send(&Frame::plain(&[&[0; 60]])));
    }
    wire.link.flush();
    wire.far.sends([vec![0; 60]]);
    let far = wire.far.clone();
    drop(wire);
    assert_eq!(far.stops.load(Ordering::SeqCst), 1);
    assert!(far.written.lock().is_empty());
}

#[test]
fn what_is_told_of_it() {
    let mut model = Model::new();
    let told = |model: &Model, config| Vmnet::on(model, &config).unwrap().info();
    assert_eq!(
        told(&model, bridged("en0")),
        BackendInfo {
            kind: "vmnet-bridged",
            description: "ifname=en0,isolated=on,mtu=1500".into(),
        }
    );
    model.parameters.addresses =
        Some(["192.168.64.1", "192.168.64.254", "255.255.255.0"].map(String::from));
    assert_eq!(
        told(&model, shared()),
        BackendInfo {
            kind: "vmnet-shared",
            description:
                "start-address=192.168.64.1,end-address=192.168.64.254,subnet-mask=255.255.255.0,mtu=1500"
                    .into(),
        }
    );
}

#[test]
fn why_there_is_none() {
    let mut model = Model::new();
    let why = |model: &Model, config| match Vmnet::on(model, &config) {
        Err(error) => error.to_string(),
        Ok(_) => String::new(),
    };
    model.bridgeable = Some(vec!["en0".into(), "en1".into()]);
    assert_eq!(why(&model, bridged("en1")), "");
    assert_eq!(
        why(&model, bridged("en7")),
        "'en7' cannot be bridged; interfaces that can be bridged: en0, en1"
    );
    model.bridgeable = Some(Vec::new());
    assert!(why(&model, bridged("en0")).contains("macOS offers no interface"));

    model.bridgeable = None;
    model.rights.user = 501;
    for status in [
        Status::FAILURE,
        Status::INVALID_ACCESS,
        Status::NOT_AUTHORIZED,
    ] {
        model.refusal = Some(Refusal::Status(status));
        let denied = why(&model, shared());
        for words in [
            "root or the entitlement com.apple.vm.networking",
            "user 501",
            "sudo",
            "-netdev user",
        ] {
            assert!(denied.contains(words), "{denied}");
        }
    }
    // Who has the rights is told something else.
    for rights in [(0, false), (501, true)] {
        let (user, entitled) = rights;
        model.rights = Rights { user, entitled };
        model.refusal = Some(Refusal::Status(Status::FAILURE));
        let error = why(&model, shared());
        assert!(error.contains("VMNET_FAILURE") && !error.contains("sudo"));
    }
    model.rights.user = 501;
    model.refusal = Some(Refusal::Status(Status::SHARING_SERVICE_BUSY));
    assert!(why(&model, shared()).contains("Internet Sharing"));
    model.refusal = Some(Refusal::Silent);
    assert!(why(&model, shared()).contains("not answered"));
    model.refusal = Some(Refusal::Missing("vmnet_mtu_key".into()));
    assert!(why(&model, shared()).contains("no vmnet_mtu_key"));

    let words: std::collections::HashSet<_> =
        (1001..=1011).map(|code| Status(code).to_string()).collect();
    assert_eq!(words.len(), 11);
    assert!(words.contains("vmnet's code 1011"));
    #[cfg(not(target_os = "macos"))]
    assert!(matches!(Vmnet::open(&shared()), Err(e) if e.to_string().contains("only macOS")));
}

/// With the right to make interfaces there is one; without, the user reads which right that is.
#[cfg(target_os = "macos")]
#[test]
fn an_interface_of_its_own() {
    if let Some(names) = bridgeable() {
        assert!(names.iter().all(|name| !name.is_empty()));
    }
    match Vmnet::open(&shared()) {
        Ok(vmnet) => {
            assert!(vmnet.info().description.contains("mtu="));
            assert!(vmnet.transmit(&Frame::plain(&[&[0xff; 60]])));
            vmnet.flush();
            vmnet.stop();
        }
        Err(error) => assert!(error.to_string().contains("vmnet"), "{error}"),
    }
}
