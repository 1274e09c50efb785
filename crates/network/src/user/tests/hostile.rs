//! A guest that means harm: it floods, spoofs, half-opens, fragments and never reads.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl, TcpPacket, TcpRepr, TcpSeqNumber,
};

use super::rig::{MAC, Rig};
use super::{GATEWAY, at, exchange, pattern, same, serve};
use crate::checksum;
use crate::user::{Config, GATEWAY_MAC};

fn ipv4(source: [u8; 4], destination: [u8; 4], protocol: u8, payload: &[u8]) -> Vec<u8> {
    let ip = Ipv4Repr {
        src_addr: source.into(),
        dst_addr: destination.into(),
        next_header: IpProtocol::from(protocol),
        payload_len: payload.len(),
        hop_limit: 64,
    };
    let mut frame = vec![0; 34];
    frame[..6].copy_from_slice(&GATEWAY_MAC);
    frame[6..12].copy_from_slice(&MAC);
    frame[12] = 8;
    let caps = ChecksumCapabilities::default();
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &caps);
    frame.extend_from_slice(payload);
    frame
}

fn udp(source: [u8; 4], destination: [u8; 4], ports: (u16, u16), data: &[u8]) -> Vec<u8> {
    let mut payload = Vec::from(ports.0.to_be_bytes());
    payload.extend(ports.1.to_be_bytes());
    payload.extend((8 + data.len() as u16).to_be_bytes());
    payload.extend([0, 0]);
    payload.extend_from_slice(data);
    let sum = checksum::pseudo_header(source.into(), destination.into(), 17, payload.len());
    let sum = checksum::finish(sum, &[&payload]);
    payload[6..8].copy_from_slice(&sum.to_be_bytes());
    ipv4(source, destination, 17, &payload)
}

fn tcp(
    source: [u8; 4],
    destination: [u8; 4],
    ports: (u16, u16),
    control: TcpControl,
    sequence: u32,
    ack: Option<u32>,
) -> Vec<u8> {
    let repr = TcpRepr {
        src_port: ports.0,
        dst_port: ports.1,
        control,
        seq_number: TcpSeqNumber(sequence as i32),
        ack_number: ack.map(|a| TcpSeqNumber(a as i32)),
        window_len: 65535,
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: [None; 3],
        timestamp: None,
        payload: &[],
    };
    let mut payload = vec![0; repr.buffer_len()];
    let (s, d) = (
        IpAddr::from(source).into(),
        IpAddr::from(destination).into(),
    );
    repr.emit(
        &mut TcpPacket::new_unchecked(&mut payload[..]),
        &s,
        &d,
        &ChecksumCapabilities::default(),
    );
    ipv4(source, destination, 6, &payload)
}

const GUEST: [u8; 4] = [10, 0, 2, 15];
const HOST: [u8; 4] = [10, 0, 2, 2];

/// The network still serves who behaves.
fn still_works(rig: &mut Rig) {
    *rig.mailbox.room.borrow_mut() = 256;
    rig.take();
    let (port, server) = serve("127.0.0.1", |mut stream| {
        stream.write_all(&pattern(50_000)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let (handle, open) = rig.connect(at(GATEWAY, port));
    assert!(open);
    same(&exchange(rig, handle, b"x"), &pattern(50_000));
    server.join().unwrap();
}

#[test]
fn spoofed_sources_reach_nobody() {
    let mut rig = Rig::new(Config::default());
    let victim = UdpSocket::bind("127.0.0.1:0").unwrap();
    victim
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let port = victim.local_addr().unwrap().port();
    for source in [
        [10, 0, 2, 2],
        [10, 0, 2, 3],
        [10, 0, 2, 0],
        [10, 0, 2, 255],
        [127, 0, 0, 1],
        [192, 0, 2, 1],
        [255; 4],
        [224, 0, 0, 1],
        [0; 4],
    ] {
        rig.send(&udp(source, HOST, (1000, port), b"spoof"));
        rig.send(&tcp(source, HOST, (1000, port), TcpControl::Syn, 1, None));
    }
    for destination in [
        [127, 0, 0, 1],
        [0; 4],
        [127, 9, 9, 9],
        [255; 4],
        [10, 0, 2, 255],
    ] {
        rig.send(&udp(GUEST, destination, (1000, port), b"around"));
    }
    rig.step();
    assert!(victim.recv(&mut [0; 100]).is_err());
    let usage = rig.nat.usage();
    assert_eq!((usage.connections, usage.udp_flows), (0, 0));
    rig.send(&udp(GUEST, HOST, (1000, port), b"honest"));
    assert_eq!(victim.recv(&mut [0; 100]).unwrap(), 6);
    still_works(&mut rig);
}

#[test]
fn floods_of_syns_are_bounded() {
    let mut rig = Rig::new(Config::default());
    *rig.mailbox.room.borrow_mut() = 0;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    for i in 0..20_000u32 {
        let source = [10, 0, 2, 15 + (i % 200) as u8];
        rig.send(&tcp(
            source,
            HOST,
            (i as u16 | 1, port),
            TcpControl::Syn,
            i,
            None,
        ));
        if i % 1000 == 0 {
            rig.step();
        }
        let usage = rig.nat.usage();
        assert!(
            usage.connections <= 300 && usage.memory <= 32 << 20,
            "{usage:?}"
        );
    }
    drop(listener);
    // Reset by the guest, they go.
    *rig.mailbox.room.borrow_mut() = 1 << 20;
    std::thread::sleep(Duration::from_secs(1));
    rig.until("answers", |rig| {
        let frames = rig.take();
        for frame in frames {
            if let Ok(ip) = Ipv4Packet::new_checked(&frame[14..])
                && let Ok(packet) = TcpPacket::new_checked(ip.payload())
                && packet.syn()
            {
                let ports = (packet.dst_port(), packet.src_port());
                let (next, ack) = (packet.ack_number().0 as u32, packet.seq_number().0 as u32);
                let guest = ip.dst_addr().octets();
                rig.send(&tcp(
                    guest,
                    HOST,
                    ports,
                    TcpControl::Rst,
                    next,
                    Some(ack + 1),
                ));
            }
        }
        rig.nat.usage().connections == 0
    });
    still_works(&mut rig);
}

#[test]
fn half_open_connections_give_way() {
    let mut rig = Rig::new(Config::default());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    *rig.mailbox.room.borrow_mut() = 1 << 20;
    for i in 0..1000u16 {
        let source = [10, 0, 2, 16 + (i % 200) as u8];
        rig.send(&tcp(
            source,
            HOST,
            (1000 + i, port),
            TcpControl::Syn,
            1,
            None,
        ));
    }
    let held = rig.nat.usage().connections;
    assert!((100..=300).contains(&held), "{held}");
    std::thread::sleep(Duration::from_secs(3));
    still_works(&mut rig);
}

#[test]
fn floods_of_datagrams_and_pings_are_bounded() {
    let mut rig = Rig::new(Config::default());
    *rig.mailbox.room.borrow_mut() = 0;
    for i in 0..20_000u32 {
        rig.send(&udp(GUEST, HOST, (i as u16 | 1, 9), &[0; 400]));
        let mut echo = vec![8, 0, 0, 0, (i >> 8) as u8, i as u8, 0, 0];
        let sum = checksum::finish(0, &[&echo]);
        echo[2..4].copy_from_slice(&sum.to_be_bytes());
        rig.send(&ipv4(GUEST, HOST, 1, &echo));
        rig.send(&ipv4(GUEST, [127, 0, 0, 2], 1, &echo));
        let usage = rig.nat.usage();
        assert!(
            usage.udp_flows <= 512 && usage.echo_flows <= 64,
            "{usage:?}"
        );
    }
    still_works(&mut rig);
}

#[test]
fn fragments_are_bounded_and_whole_ones_arrive() {
    let mut rig = Rig::new(Config::default());
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let port = server.local_addr().unwrap().port();
    let fragment = |ident: u16, offset: u16, more: bool, data: &[u8]| {
        let mut frame = ipv4(GUEST, HOST, 17, data);
        let mut ip = Ipv4Packet::new_unchecked(&mut frame[14..]);
        ip.set_dont_frag(false);
        ip.set_ident(ident);
        ip.set_frag_offset(offset);
        ip.set_more_frags(more);
        ip.fill_checksum();
        frame
    };
    for i in 0..50_000u32 {
        rig.send(&fragment(
            i as u16,
            (i % 40 * 1480) as u16,
            true,
            &[0; 1480],
        ));
    }
    assert_eq!(rig.nat.usage().udp_flows, 0);
    // A datagram of 6000 bytes.
    let whole = udp(GUEST, HOST, (1000, port), &pattern(6000));
    for (i, piece) in whole[34..].chunks(1480).enumerate() {
        rig.send(&fragment(9, (i * 1480) as u16, i < 4, piece));
    }
    let mut buffer = [0; 65536];
    let (n, from) = server.recv_from(&mut buffer).unwrap();
    same(&buffer[..n], &pattern(6000));
    // And back, in fragments.
    rig.take();
    server.send_to(&pattern(5000), from).unwrap();
    let mut frames = Vec::new();
    let start = Instant::now();
    while frames.len() < 4 && start.elapsed() < Duration::from_secs(5) {
        rig.step();
        let got = rig.wire.to_guest.drain(..);
        frames.extend(got.filter(|f| f[12..14] == [8, 0]));
    }
    assert_eq!(frames.len(), 4);
    assert!(frames.iter().all(|f| f.len() <= 1514));
    still_works(&mut rig);
}

#[test]
fn guests_that_never_read_hold_little() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let mut rig = Rig::new(Config::default());
    let mut streams = Vec::new();
    // They say nothing after the handshake, and their window is full soon.
    for i in 0..200u16 {
        let ports = (10_000 + i, port);
        rig.send(&tcp(GUEST, HOST, ports, TcpControl::Syn, 1, None));
        let start = Instant::now();
        loop {
            let answer = rig.take().into_iter().find_map(|frame| {
                let ip = Ipv4Packet::new_checked(&frame[14..]).ok()?;
                let packet = TcpPacket::new_checked(ip.payload()).ok()?;
                (packet.syn() && packet.dst_port() == ports.0).then(|| packet.seq_number().0 as u32)
            });
            if let Some(sequence) = answer {
                let ack = Some(sequence.wrapping_add(1));
                rig.send(&tcp(GUEST, HOST, ports, TcpControl::None, 2, ack));
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(10));
            rig.step();
            let back: Vec<_> = rig.wire.to_guest.drain(..).collect();
            for frame in back {
                rig.mailbox
                    .frames
                    .borrow_mut()
                    .push_back((Default::default(), frame));
            }
        }
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).unwrap();
            streams.push(stream);
        }
    }
    let chunk = vec![0; 1 << 20];
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        for stream in &mut streams {
            let _ = stream.write(&chunk);
        }
        rig.step();
        rig.wire.to_guest.clear();
        let usage = rig.nat.usage();
        assert!(usage.memory <= 96 << 20, "{usage:?}");
    }
    still_works(&mut rig);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any bytes at all, also where headers are right so far.
    #[test]
    fn noise(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        kind in 0..6,
        protocol in prop::sample::select(vec![0u8, 1, 6, 17, 44, 58, 60]),
        port in prop::sample::select(vec![53u16, 67, 69, 547, 7]),
    ) {
        let mut rig = Rig::new(Config::default());
        let mut frame = match kind {
            0 => bytes.clone(),
            1 => ipv4(GUEST, HOST, protocol, &bytes),
            2 => udp([0; 4], [255; 4], (68, port), &bytes),
            3 => udp(GUEST, HOST, (1024, port), &bytes),
            4 => {
                let mut frame = ipv4(GUEST, HOST, protocol, &[]);
                frame.truncate(14);
                frame[12..14].copy_from_slice(&[0x86, 0xdd]);
                let mut header = vec![0x60, 0, 0, 0];
                header.extend((bytes.len() as u16).to_be_bytes());
                header.extend([protocol, 255]);
                for last in [0x15, 2] {
                    let mut address = [0; 16];
                    address[..2].copy_from_slice(&[0xfe, 0xc0]);
                    address[15] = last;
                    header.extend(address);
                }
                frame.extend(header);
                frame.extend(&bytes);
                frame
            }
            _ => {
                let mut frame = ipv4(GUEST, HOST, 6, &[]);
                frame.truncate(14);
                frame[12..14].copy_from_slice(&[8, 6]);
                frame.extend(&bytes);
                frame
            }
        };
        rig.send(&frame);
        for i in 0..frame.len().min(60) {
            frame[i] ^= 0xff;
            rig.send(&frame);
            frame[i] ^= 0xff;
        }
        rig.step();
        let usage = rig.nat.usage();
        prop_assert!(usage.connections <= 64 && usage.udp_flows <= 64);
    }
}

#[test]
fn the_host_is_reached_by_who_may_only() {
    // A server on an address of the host that is not its loopback's usual one.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut rig = Rig::new(Config::default());
    for address in ["127.0.0.1", "127.1.1.1", "0.0.0.0", "10.0.2.3", "10.0.2.99"] {
        let to: SocketAddr = at(address, port);
        let IpAddr::V4(v4) = to.ip() else { continue };
        rig.send(&tcp(
            GUEST,
            v4.octets(),
            (999, port),
            TcpControl::Syn,
            1,
            None,
        ));
        assert_eq!(rig.nat.usage().connections, 0, "{address}");
    }
}
