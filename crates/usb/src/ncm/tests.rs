use std::sync::atomic::{AtomicU32, Ordering};

use network::fake::Fake;
use proptest::prelude::*;

use super::*;
use crate::device::Host;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

#[derive(Default)]
struct Ready(AtomicU32);

impl Host for Ready {
    fn ready(&self, endpoint: u8) {
        self.0.fetch_or(1 << (endpoint & 15), Ordering::SeqCst);
    }

    fn wake(&self) {}
}

struct Bench {
    ncm: Arc<Ncm>,
    far: Arc<Fake>,
    link: Arc<Link>,
    ready: Arc<Ready>,
}

fn bench() -> Bench {
    let link = Link::new("n0");
    let far = Arc::new(Fake::default());
    link.connect_backend(far.clone());
    let config = Config {
        name: String::new(),
        mac: MAC,
    };
    let ncm = Ncm::new(config, link.clone()).unwrap();
    let ready = Arc::new(Ready::default());
    ncm.connect(Speed::High, Notifier::new(ready.clone()));
    Bench {
        ncm,
        far,
        link,
        ready,
    }
}

impl Bench {
    fn control(&self, bytes: [u8; 8], data: &[u8]) -> (Outcome, Vec<u8>) {
        let setup = Setup::from_bytes(bytes);
        let mut buffer = vec![0; setup.length.into()];
        buffer[..data.len()].copy_from_slice(data);
        let mut packet = Packet::host(&mut buffer);
        let outcome = self.ncm.control(setup, &mut packet);
        let n = packet.done() as usize;
        buffer.truncate(n);
        (outcome, buffer)
    }

    fn bulk_in(&self, endpoint: u8, length: usize) -> Option<Vec<u8>> {
        let mut buffer = vec![0; length];
        let mut packet = Packet::host(&mut buffer);
        let outcome = self.ncm.transfer(endpoint, &mut packet);
        let n = packet.done() as usize;
        buffer.truncate(n);
        (outcome == Outcome::Done).then_some(buffer)
    }

    fn bulk_out(&self, bytes: &[u8]) -> Outcome {
        let mut buffer = bytes.to_vec();
        self.ncm.transfer(OUT, &mut Packet::host(&mut buffer))
    }

    /// As drivers do it: configuration, format, size, then the data interface.
    fn configure(&self, wide: bool, size: u32) {
        assert_eq!(self.control([0, 9, 1, 0, 0, 0, 0, 0], &[]).0, Outcome::Done);
        let format = u8::from(wide);
        let set = [0x21, request::SET_NTB_FORMAT, format, 0, 0, 0, 0, 0];
        assert_eq!(self.control(set, &[]).0, Outcome::Done);
        let set = [0x21, request::SET_NTB_INPUT_SIZE, 0, 0, 0, 0, 4, 0];
        assert_eq!(self.control(set, &size.to_le_bytes()).0, Outcome::Done);
        assert_eq!(
            self.control([1, 11, 1, 0, 1, 0, 0, 0], &[]).0,
            Outcome::Done
        );
    }
}

fn frame(length: usize, to: [u8; 6]) -> Vec<u8> {
    let mut frame: Vec<u8> = (0..length).map(|i| i as u8).collect();
    frame[..6].copy_from_slice(&to);
    frame
}

#[test]
fn descriptors_are_well_formed() {
    let bench = bench();
    let (_, device) = bench.control([0x80, 6, 0, 1, 0, 0, 18, 0], &[]);
    assert_eq!(device[4..7], [0xef, 2, 1]);
    let (_, all) = bench.control([0x80, 6, 0, 2, 0, 0, 0xff, 0], &[]);
    assert_eq!(u16::from_le_bytes([all[2], all[3]]) as usize, all.len());
    let (mut at, mut endpoints) = (0, 0);
    while at < all.len() {
        endpoints += usize::from(all[at + 1] == descriptor::ENDPOINT);
        at += usize::from(all[at]);
    }
    assert_eq!((at, endpoints), (all.len(), 3));
    let (_, mac) = bench.control([0x80, 6, MAC_STRING, 3, 9, 4, 64, 0], &[]);
    assert_eq!(mac, descriptors::string("525400123456"));
}

#[test]
fn windows_finds_its_own_driver() {
    let bench = bench();
    let (_, string) = bench.control([0x80, 6, 0xee, 3, 0, 0, 18, 0], &[]);
    assert_eq!((string.len(), string[0]), (18, 18));
    assert_eq!(&string[2..4], b"M\0");
    let vendor = string[16];
    let (outcome, head) = bench.control([0xc0, vendor, 0, 0, 4, 0, 16, 0], &[]);
    assert_eq!((outcome, head[0], head[8]), (Outcome::Done, 40, 1));
    let (_, id) = bench.control([0xc0, vendor, 0, 0, 4, 0, 40, 0], &[]);
    assert_eq!(id.len(), 40);
    assert_eq!(&id[18..26], b"WINNCM\0\0");
    let (outcome, _) = bench.control([0xc1, vendor, 0, 0, 5, 0, 10, 0], &[]);
    assert_eq!(outcome, Outcome::Stall);
}

/// Microsoft OS 2.0 Descriptors Specification, tables 4, 5, 10 to 13.
#[test]
fn windows_11_finds_its_own_driver() {
    for speed in [Speed::High, Speed::Super] {
        let bench = bench();
        bench.ncm.connect(speed, Notifier::new(bench.ready.clone()));
        let (_, device) = bench.control([0x80, 6, 0, 1, 0, 0, 18, 0], &[]);
        assert!(u16::from_le_bytes([device[2], device[3]]) >= 0x0201);
        let (_, bos) = bench.control([0x80, 6, 0, 15, 0, 0, 0xff, 0], &[]);
        assert_eq!(u16::from_le_bytes([bos[2], bos[3]]) as usize, bos.len());
        let mut capabilities = Vec::new();
        let mut at = 5;
        while at < bos.len() {
            let length = usize::from(bos[at]);
            capabilities.push(&bos[at..at + length]);
            at += length;
        }
        assert_eq!(capabilities.len(), usize::from(bos[4]));
        let platform = capabilities.iter().find(|c| c[2] == 5).unwrap();
        assert_eq!(
            platform[..24],
            [
                28, 16, 5, 0, 0xdf, 0x60, 0xdd, 0xd8, 0x89, 0x45, 0xc7, 0x4c, 0x9c, 0xd2, 0x65,
                0x9d, 0x9e, 0x64, 0x8a, 0x9f, 0, 0, 3, 6
            ]
        );
        let [low, high, vendor, alternate] = platform[24..] else {
            panic!("{platform:?}");
        };
        assert_eq!(alternate, 0);
        let (outcome, set) = bench.control([0xc0, vendor, 0, 0, 7, 0, low, high], &[]);
        assert_eq!(outcome, Outcome::Done);
        assert_eq!(set.len(), usize::from(u16::from_le_bytes([low, high])));
        assert_eq!(set[..10], [10, 0, 0, 0, 0, 0, 3, 6, low, high]);
        assert_eq!(set[10..18], [8, 0, 1, 0, 0, 0, 36, 0]);
        assert_eq!(set[18..26], [8, 0, 2, 0, CONTROL, 0, 28, 0]);
        assert_eq!(set[26..38], *b"\x14\0\x03\0WINNCM\0\0");
        assert_eq!(set[38..], [0; 8]);
    }
}

#[test]
fn set_up_and_notifications() {
    let bench = bench();
    let (_, p) = bench.control([0xa1, request::GET_NTB_PARAMETERS, 0, 0, 0, 0, 28, 0], &[]);
    assert_eq!((p.len(), p[0], p[2]), (28, 28, 3));
    assert_eq!(bench.bulk_in(IN, 512), None);
    let small = [0x21, request::SET_NTB_INPUT_SIZE, 0, 0, 0, 0, 4, 0];
    assert_eq!(
        bench.control(small, &2047u32.to_le_bytes()).0,
        Outcome::Stall
    );
    bench.configure(false, 16384);
    assert_eq!(bench.control([0x81, 10, 0, 0, 1, 0, 1, 0], &[]).1, [1]);
    let format = [0x21, request::SET_NTB_FORMAT, 1, 0, 0, 0, 0, 0];
    assert_eq!(
        bench.control(format, &[]).0,
        Outcome::Stall,
        "not while it is on"
    );
    let speed = bench.bulk_in(NOTIFICATIONS, 16).unwrap();
    assert_eq!((speed[1], speed.len()), (0x2a, 16));
    let up = bench.bulk_in(NOTIFICATIONS, 16).unwrap();
    assert_eq!(up, [0xa1, 0, 1, 0, 0, 0, 0, 0]);
    assert_eq!(bench.bulk_in(NOTIFICATIONS, 16), None);
    bench.link.set_up(false);
    assert_eq!(bench.bulk_in(NOTIFICATIONS, 16).unwrap()[2], 0);
    assert_ne!(bench.ready.0.load(Ordering::SeqCst) & 2, 0);
}

#[test]
fn a_full_queue_holds_the_back_end_up() {
    let bench = bench();
    bench.configure(false, 16384);
    let one = frame(1514, MAC);
    let mut taken = 0;
    while bench.link.deliver(&Frame::plain(&[&one])) {
        taken += 1;
        assert!(taken < 1000);
    }
    assert!(taken > 100);
    let before = bench.far.ready.load(Ordering::SeqCst);
    let block = bench.bulk_in(IN, 16384).unwrap();
    assert!(block.len() > 12000 && block.len() <= 16384);
    assert_eq!(bench.far.ready.load(Ordering::SeqCst), before + 1);
}

#[test]
fn a_back_end_without_room_holds_the_guest_up() {
    let bench = bench();
    bench.configure(false, 16384);
    bench.far.full.store(true, Ordering::SeqCst);
    let frames = [frame(60, [2; 6]), frame(70, [2; 6])];
    let mut block = ntb::build(Format::Ntb16, 0, &frames);
    let length = block.len() as u64;
    let mut packet = Packet::host(&mut block);
    // All of it was taken, and the transfer goes on: nobody else would come back for the frames.
    assert_eq!(bench.ncm.transfer(OUT, &mut packet), Outcome::Nak);
    assert_eq!(packet.done(), length);
    assert_eq!(bench.ncm.transfer(OUT, &mut packet), Outcome::Nak);
    bench.far.full.store(false, Ordering::SeqCst);
    bench.link.backend_ready();
    assert_ne!(bench.ready.0.load(Ordering::SeqCst) & 8, 0);
    assert_eq!(bench.ncm.transfer(OUT, &mut packet), Outcome::Done);
    let more = ntb::build(Format::Ntb16, 1, &[frame(80, [2; 6])]);
    assert_eq!(bench.bulk_out(&more), Outcome::Done);
    let lengths: Vec<_> = bench.far.take().iter().map(|f| f.1.len()).collect();
    assert_eq!(lengths, [60, 70, 80]);
}

#[test]
fn filters() {
    let bench = bench();
    bench.configure(false, 16384);
    let set = |bits: u8| {
        let setup = [
            0x21,
            request::SET_ETHERNET_PACKET_FILTER,
            bits,
            0,
            0,
            0,
            0,
            0,
        ];
        assert_eq!(bench.control(setup, &[]).0, Outcome::Done);
    };
    let comes = |to: [u8; 6]| {
        bench.link.deliver(&Frame::plain(&[&frame(60, to)]));
        bench.bulk_in(IN, 16384).is_some()
    };
    set(filter::DIRECTED as u8);
    assert!(comes(MAC) && !comes([0xff; 6]) && !comes([2; 6]));
    set(filter::PROMISCUOUS as u8);
    assert!(comes([2; 6]));
}

proptest! {
    /// Frames go both ways whole, whatever the sizes of transfers.
    #[test]
    fn frames_both_ways(
        lengths in proptest::collection::vec(14usize..1515, 1..30),
        wide: bool,
        size in 2048u32..32768,
        transfer in prop::sample::select(vec![512usize, 1024, 4096, 32768]),
    ) {
        let bench = bench();
        bench.configure(wide, size);
        let format = if wide { Format::Ntb32 } else { Format::Ntb16 };
        let frames: Vec<_> = lengths.iter().map(|&n| frame(n, MAC)).collect();
        for frame in &frames {
            prop_assert!(bench.link.deliver(&Frame::plain(&[frame])));
        }
        let mut got = Vec::new();
        let mut block = Vec::new();
        while let Some(piece) = bench.bulk_in(IN, transfer) {
            block.extend(&piece);
            if ntb::block_length(format, &block) == Some(block.len()) {
                prop_assert!(block.len() <= size as usize);
                got.extend(ntb::parse(format, &block).into_iter().map(|r| block[r].to_vec()));
                block.clear();
            }
        }
        prop_assert_eq!(&got, &frames);
        // Out, in pieces of whole packets.
        for chunk in frames.chunks(8) {
            let block = ntb::build(format, 0, chunk);
            for piece in block.chunks(transfer) {
                prop_assert_eq!(bench.bulk_out(piece), Outcome::Done);
            }
        }
        let sent: Vec<_> = bench.far.take().into_iter().map(|f| f.1).collect();
        prop_assert_eq!(sent, frames);
    }

    #[test]
    fn any_request_and_block_is_answered(
        setup: [u8; 8],
        blocks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..600), 0..4),
        wide: bool,
    ) {
        let bench = bench();
        bench.configure(wide, 4096);
        bench.control(setup, &[]);
        for block in blocks {
            bench.bulk_out(&block);
        }
    }
}
