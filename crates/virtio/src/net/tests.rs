use std::sync::Arc;
use std::sync::atomic::Ordering;

use network::fake::Fake;
use network::{Accepts, Checksum, Frame, Gso, GsoKind, Link, Nic, Offload};
use proptest::prelude::*;

use super::spec::feature;
use super::{Net, NetConfig};
use crate::PciOptions;
use crate::spec::feature as transport;
use crate::testing::{BUFFERS, Buffer, Rig, wait_for};

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];
const ALL: u64 = transport::VERSION_1
    | transport::RING_EVENT_IDX
    | feature::MAC
    | feature::STATUS
    | feature::CSUM
    | feature::GUEST_CSUM
    | feature::GUEST_TSO4
    | feature::HOST_TSO4
    | feature::MRG_RXBUF
    | feature::CTRL_VQ
    | feature::CTRL_RX;

struct Bench {
    rig: Rig,
    far: Arc<Fake>,
    link: Arc<Link>,
    net: Arc<Net>,
}

fn bench(config: NetConfig, features: u64, size: u16) -> Bench {
    let link = Link::new("n0");
    let far = Arc::new(Fake::new(Accepts::ALL));
    link.connect_backend(far.clone());
    let net = Arc::new(Net::new("net", config, link.clone()).unwrap());
    let mut rig = Rig::new(net.clone(), &PciOptions::default());
    net.set_interrupts(rig.function.interrupts().clone());
    assert!(rig.negotiate(features));
    rig.go(size);
    // The device may only take frames once its worker ran.
    Bench {
        rig,
        far,
        link,
        net,
    }
}

fn buffer(at: u64, length: u32, writable: bool) -> Buffer {
    Buffer {
        address: BUFFERS + at,
        length,
        writable,
    }
}

fn frame(length: usize) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|i| i as u8).collect();
    frame[..6].copy_from_slice(&MAC);
    frame
}

impl Bench {
    fn read(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.rig.dma.read(BUFFERS + at, &mut bytes).unwrap();
        bytes
    }

    /// Runs a control command: the answer.
    fn control(&mut self, queue: usize, command: &[u8]) -> u8 {
        self.rig.dma.write(BUFFERS, command).unwrap();
        let chain = [
            buffer(0, command.len() as u32, false),
            buffer(0x1000, 1, true),
        ];
        self.rig.submit(queue, 0, &chain);
        self.rig.notify(queue as u16);
        assert_eq!(self.rig.wait(queue).1, 1);
        self.read(0x1000, 1)[0]
    }
}

#[test]
fn identity_and_configuration() {
    let bench = bench(NetConfig::default(), ALL, 16);
    let rig = &bench.rig;
    assert_eq!(rig.config(0, 4), 0x1000_1af4);
    assert_eq!(rig.config(8, 4), 0x0200_0000);
    assert_eq!(rig.config(0x2c, 4), 0x0001_1af4);
    let mac: Vec<u8> = (0..6).map(|i| rig.device(i, 1) as u8).collect();
    assert_eq!(mac, MAC);
    assert_eq!(rig.device(6, 2), 1);
    assert_eq!(rig.device(8, 2), 1);
    rig.set_device(0, 1, 0);
    assert_eq!(bench.net.mac(), MAC, "a modern driver writes nothing here");
}

#[test]
fn features_keep_their_dependencies() {
    let offered = |without| {
        super::offered(&NetConfig {
            without,
            queue_pairs: 2,
            ..NetConfig::default()
        })
    };
    assert_ne!(offered(0) & feature::MQ, 0);
    let no_checksum = offered(feature::CSUM | feature::GUEST_CSUM);
    assert_eq!(
        no_checksum
            & (feature::HOST_TSO4
                | feature::HOST_ECN
                | feature::HOST_USO
                | feature::GUEST_TSO6
                | feature::GUEST_ECN),
        0
    );
    assert_eq!(
        offered(feature::CTRL_VQ) & (feature::MQ | feature::CTRL_RX_EXTRA),
        0
    );
}

#[test]
fn sends_with_what_the_driver_left_undone() {
    let mut bench = bench(NetConfig::default(), ALL, 16);
    let payload = frame(3000);
    let header = [1, 1, 66, 0, 0xb4, 5, 34, 0, 16, 0, 0, 0];
    bench.rig.dma.write(BUFFERS, &header).unwrap();
    bench.rig.dma.write(BUFFERS + 0x100, &payload).unwrap();
    let chain = [
        buffer(0, 12, false),
        buffer(0x100, 1000, false),
        buffer(0x100 + 1000, 2000, false),
    ];
    bench.rig.submit(1, 0, &chain);
    bench.rig.notify(1);
    assert_eq!(bench.rig.wait(1), (0, 0));
    let sent = bench.far.take();
    let offload = Offload {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        gso: Some(Gso {
            kind: GsoKind::Tcp4,
            size: 1460,
            ecn: false,
        }),
    };
    assert_eq!(sent, [(offload, payload)]);
    wait_for("flush", || bench.far.flushes.load(Ordering::SeqCst) > 0);
    // A header that breaks the rules and a frame that is none go nowhere, but their buffers come back.
    for (header, length) in [
        ([0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 100),
        ([0; 12], 5),
        ([0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 100),
    ] {
        bench.rig.dma.write(BUFFERS, &header).unwrap();
        bench
            .rig
            .submit(1, 4, &[buffer(0, 12, false), buffer(0x100, length, false)]);
        bench.rig.notify(1);
        assert_eq!(bench.rig.wait(1), (4, 0));
    }
    assert_eq!(bench.far.take(), []);
}

#[test]
fn waits_for_a_back_end_without_room() {
    let mut bench = bench(NetConfig::default(), ALL, 16);
    bench.far.full.store(true, Ordering::SeqCst);
    bench.rig.dma.write(BUFFERS, &[0; 12]).unwrap();
    bench
        .rig
        .submit(1, 0, &[buffer(0, 12, false), buffer(0x100, 60, false)]);
    bench.rig.notify(1);
    std::thread::sleep(std::time::Duration::from_millis(20));
    assert_eq!(bench.rig.used_index(1), 0);
    bench.far.full.store(false, Ordering::SeqCst);
    bench.link.backend_ready();
    assert_eq!(bench.rig.wait(1), (0, 0));
    assert_eq!(bench.far.take().len(), 1);
}

#[test]
fn a_packet_in_several_buffers_comes_all_at_once() {
    let mut bench = bench(NetConfig::default(), ALL, 16);
    let payload = frame(2500);
    let offload = Offload {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        gso: Some(Gso {
            kind: GsoKind::Tcp4,
            size: 1000,
            ecn: false,
        }),
    };
    let parts: &[&[u8]] = &[&payload[..54], &payload[54..]];
    let packet = Frame { offload, parts };
    wait_for("the worker", || bench.far.ready.load(Ordering::SeqCst) > 0);
    assert!(!bench.link.deliver(&packet), "no buffers");
    for i in 0..2 {
        bench
            .rig
            .submit(0, i, &[buffer(u64::from(i) * 0x1000, 1024, true)]);
    }
    assert!(!bench.link.deliver(&packet), "too few");
    assert_eq!(bench.rig.used_index(0), 0);
    bench.rig.submit(0, 2, &[buffer(0x2000, 1024, true)]);
    let before = bench.far.ready.load(Ordering::SeqCst);
    bench.rig.notify(0);
    wait_for("word to the back end", || {
        bench.far.ready.load(Ordering::SeqCst) > before
    });
    assert!(bench.link.deliver(&packet));
    assert_eq!(bench.rig.used_index(0), 3);
    assert_eq!(bench.rig.wait(0), (0, 1024));
    assert_eq!(bench.rig.wait(0), (1, 1024));
    assert_eq!(bench.rig.wait(0), (2, 2512 - 2048));
    let header = bench.read(0, 12);
    assert_eq!(header[..2], [1, 1]);
    assert_eq!(header[4..], [0xe8, 3, 34, 0, 16, 0, 3, 0]);
    let mut got = bench.read(12, 1012);
    got.extend(bench.read(0x1000, 1024));
    got.extend(bench.read(0x2000, 464));
    assert_eq!(got, payload);
}

#[test]
fn without_mergeable_buffers_one_must_do() {
    let features = ALL & !feature::MRG_RXBUF;
    let mut bench = bench(NetConfig::default(), features, 16);
    bench
        .rig
        .submit(0, 0, &[buffer(0, 12, true), buffer(0x1000, 100, true)]);
    assert!(
        bench.link.deliver(&Frame::plain(&[&frame(101)])),
        "too large: dropped"
    );
    assert_eq!(bench.rig.used_index(0), 0);
    assert!(bench.link.deliver(&Frame::plain(&[&frame(100)])));
    assert_eq!(bench.rig.wait(0), (0, 112));
    assert_eq!(bench.read(0x1000, 100), frame(100));
}

#[test]
fn undone_work_is_done_for_a_driver_that_takes_none() {
    let features = transport::VERSION_1 | feature::MAC;
    let mut bench = bench(NetConfig::default(), features, 16);
    let mut payload = frame(60);
    payload[12..14].copy_from_slice(&[8, 0]);
    payload[50..52].fill(0);
    let offload = Offload {
        checksum: Checksum::Partial {
            start: 34,
            offset: 16,
        },
        gso: None,
    };
    bench.rig.submit(0, 0, &[buffer(0, 1600, true)]);
    let parts: &[&[u8]] = &[&payload];
    assert!(bench.link.deliver(&Frame { offload, parts }));
    assert_eq!(bench.rig.wait(0), (0, 72));
    assert_eq!(bench.read(0, 10), [0; 10], "no flags");
    let sum = bench.read(12 + 34, 26);
    let total: u32 = sum
        .chunks(2)
        .map(|c| u32::from(c[0]) << 8 | u32::from(c[1]))
        .sum();
    assert_eq!((total & 0xffff) + (total >> 16), 0xffff);
}

#[test]
fn filters_and_control_queue() {
    let mut bench = bench(NetConfig::default(), ALL, 16);
    assert_eq!(bench.control(2, &[0, 0, 0]), 0, "not promiscuous");
    assert_eq!(bench.control(2, &[9, 9]), 1, "no such class");
    assert_eq!(bench.control(2, &[2, 0, 1, 0]), 1, "not negotiated");
    bench.rig.submit(0, 0, &[buffer(0x4000, 1600, true)]);
    let mut other = frame(60);
    other[0] = 2;
    assert!(bench.link.deliver(&Frame::plain(&[&other])));
    assert_eq!(bench.rig.used_index(0), 0);
    assert!(bench.link.deliver(&Frame::plain(&[&frame(60)])));
    assert_eq!(bench.rig.wait(0), (0, 72));
}

#[test]
fn the_link_goes_and_comes() {
    let bench = bench(NetConfig::default(), ALL, 16);
    let generation = bench.rig.get(crate::spec::common::CONFIG_GENERATION, 1);
    bench.link.set_up(false);
    assert_eq!(bench.rig.device(6, 2), 0);
    assert_ne!(
        bench.rig.get(crate::spec::common::CONFIG_GENERATION, 1),
        generation
    );
    assert_eq!(bench.rig.isr(), 2);
    assert!(bench.link.deliver(&Frame::plain(&[&frame(60)])), "lost");
    bench.link.set_up(true);
    assert_eq!(bench.rig.device(6, 2), 1);
}

#[test]
fn several_queues_answer_where_they_were_asked() {
    let config = NetConfig {
        queue_pairs: 2,
        ..NetConfig::default()
    };
    let mut bench = bench(config, ALL | feature::MQ, 16);
    assert_eq!(bench.rig.device(8, 2), 2);
    assert_eq!(bench.control(4, &[4, 0, 2, 0]), 0);
    let mut request = frame(60);
    request[12..15].copy_from_slice(&[8, 0, 0x45]);
    let mut answer = request.clone();
    answer[26..30].copy_from_slice(&request[30..34]);
    answer[30..34].copy_from_slice(&request[26..30]);
    answer[34..36].copy_from_slice(&request[36..38]);
    answer[36..38].copy_from_slice(&request[34..36]);
    bench.rig.dma.write(BUFFERS, &[0; 12]).unwrap();
    bench.rig.dma.write(BUFFERS + 12, &request).unwrap();
    bench.rig.submit(3, 0, &[buffer(0, 72, false)]);
    bench.rig.notify(3);
    bench.rig.wait(3);
    for queue in [0, 2] {
        bench.rig.submit(queue, 0, &[buffer(0x1000, 1600, true)]);
    }
    assert!(bench.link.deliver(&Frame::plain(&[&answer])));
    assert_eq!(bench.rig.wait(2), (0, 72));
    assert_eq!(bench.rig.used_index(0), 0);
}

#[test]
fn a_reset_forgets_and_drops() {
    let mut bench = bench(NetConfig::default(), ALL, 16);
    assert_eq!(bench.control(2, &[0, 0, 0]), 0);
    let state = bench.rig.function.state();
    bench.rig.set(crate::spec::common::DEVICE_STATUS, 1, 0);
    assert!(bench.link.deliver(&Frame::plain(&[&frame(60)])), "dropped");
    bench.rig.function.restore(state.clone()).unwrap();
    assert_eq!(bench.rig.function.state(), state);
}

#[test]
fn one_link_one_nic() {
    let link = Link::new("n0");
    let _first = Net::new("a", NetConfig::default(), link.clone()).unwrap();
    assert!(Net::new("b", NetConfig::default(), link).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Frames of all lengths through chains of all shapes, both ways, whole and in order.
    #[test]
    fn whatever_the_buffers(
        lengths in proptest::collection::vec(14usize..4000, 1..12),
        cuts in proptest::collection::vec(1u32..2000, 1..8),
        header in any::<[u8; 12]>(),
    ) {
        let mut bench = bench(NetConfig::default(), ALL, 256);
        for (i, &cut) in cuts.iter().cycle().take(200).enumerate() {
            bench.rig.submit(0, i as u16, &[buffer(i as u64 * 2048, cut + 12, true)]);
        }
        let mut taken = 0;
        for &length in &lengths {
            let payload = frame(length);
            let before = bench.rig.used_index(0);
            if !bench.link.deliver(&Frame::plain(&[&payload])) {
                prop_assert_eq!(bench.rig.used_index(0), before);
                continue;
            }
            let mut got = Vec::new();
            while bench.rig.used_index(0) != bench.rig.rings[0].seen {
                let (head, n) = bench.rig.wait(0);
                prop_assert_eq!(u64::from(head), taken);
                got.extend(bench.read(taken * 2048, n as usize));
                taken += 1;
            }
            prop_assert_eq!(&got[12..], &payload[..]);
        }
        // Any header at all is answered.
        bench.rig.dma.write(BUFFERS + 0x70_0000 - 0x10_0000, &header).unwrap();
        bench.rig.submit(1, 0, &[buffer(0x60_0000, 200, false)]);
        bench.rig.notify(1);
        prop_assert_eq!(bench.rig.wait(1), (0, 0));
    }
}

#[test]
fn accepts_follows_the_driver() {
    let mut bench = bench(NetConfig::default(), ALL | feature::CTRL_GUEST_OFFLOADS, 16);
    let accepts = bench.link.nic_accepts();
    assert!(accepts.checksum && accepts.tso4 && !accepts.tso6);
    assert_eq!(bench.control(2, &[5, 0, 2, 0, 0, 0, 0, 0, 0, 0]), 0);
    let accepts = bench.link.nic_accepts();
    assert!(accepts.checksum && !accepts.tso4);
    let nic: &dyn Nic = bench.net.inner.as_ref();
    assert!(nic.accepts().checksum);
}
