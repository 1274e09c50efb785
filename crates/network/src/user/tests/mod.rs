mod hostile;
mod rig;

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use smoltcp::socket::{dhcpv4, icmp, tcp, udp};
use smoltcp::wire::{Icmpv4Packet, Icmpv4Repr};

use super::{Config, GuestForward, HostForward, Target, Transport};
use crate::frame::Accepts;
use rig::Rig;

const GATEWAY: &str = "10.0.2.2";

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

/// A server on the host's loopback for one connection.
fn serve<R: Send + 'static>(
    address: &str,
    job: impl FnOnce(TcpStream) -> R + Send + 'static,
) -> (u16, std::thread::JoinHandle<R>) {
    let listener = TcpListener::bind(at(address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        job(stream)
    });
    (port, thread)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31) >> 3) as u8).collect()
}

/// Compares without printing megabytes.
fn same(got: &[u8], expected: &[u8]) {
    assert_eq!(got.len(), expected.len());
    assert!(got == expected);
}

/// Sends all, then closes the guest's half, and receives until the other half closes.
fn exchange(rig: &mut Rig, handle: smoltcp::iface::SocketHandle, data: &[u8]) -> Vec<u8> {
    let (mut sent, mut got) = (0, Vec::new());
    rig.until("end of the exchange", |rig| {
        let socket = rig.tcp(handle);
        if socket.can_send() && sent < data.len() {
            sent += socket.send_slice(&data[sent..]).unwrap();
            if sent == data.len() {
                socket.close();
            }
        }
        while socket.can_recv() {
            socket
                .recv(|bytes| {
                    got.extend_from_slice(bytes);
                    (bytes.len(), ())
                })
                .unwrap();
        }
        sent == data.len() && !socket.may_recv()
    });
    got
}

#[test]
fn dhcp_gives_a_lease_and_what_goes_with_it() {
    let mut rig = Rig::new(Config {
        hostname: Some("guest".into()),
        ..Config::default()
    });
    rig.iface.update_ip_addrs(|a| a.clear());
    let handle = rig.sockets.add(dhcpv4::Socket::new());
    let mut lease = None;
    rig.until("lease", |rig| {
        if let Some(dhcpv4::Event::Configured(config)) =
            rig.sockets.get_mut::<dhcpv4::Socket>(handle).poll()
        {
            lease = Some((config.address, config.router, config.dns_servers.to_vec()));
        }
        lease.is_some()
    });
    let (address, router, dns) = lease.unwrap();
    assert_eq!(address.to_string(), "10.0.2.15/24");
    assert_eq!(router, Some(Ipv4Addr::new(10, 0, 2, 2)));
    assert_eq!(dns, [Ipv4Addr::new(10, 0, 2, 3)]);
}

/// Megabytes both ways at once, and each half closed by itself.
fn both_ways(accepts: Accepts, guest_view: &str, host: &'static str) -> Rig {
    let mut rig = Rig::new(Config::default());
    *rig.mailbox.accepts.borrow_mut() = accepts;
    let (port, server) = serve(host, |mut stream| {
        let mut writer = stream.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            writer.write_all(&pattern(3_000_000)).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        thread.join().unwrap();
        got
    });
    let (handle, open) = rig.connect(at(guest_view, port));
    assert!(open);
    let got = exchange(&mut rig, handle, &pattern(2_000_000));
    same(&got, &pattern(3_000_000));
    same(&server.join().unwrap(), &pattern(2_000_000));
    rig.until("the connection's end", |rig| {
        rig.nat.usage().connections == 0
    });
    rig
}

#[test]
fn tcp_both_ways() {
    let rig = both_ways(Accepts::default(), GATEWAY, "127.0.0.1");
    assert!(rig.largest <= 1514);
}

#[test]
fn tcp_in_large_segments_for_a_guest_that_takes_them() {
    let rig = both_ways(Accepts::ALL, GATEWAY, "127.0.0.1");
    assert!(rig.largest > 10_000, "{}", rig.largest);
    assert!(rig.received < 1500, "{}", rig.received);
}

#[test]
fn tcp_over_ipv6() {
    both_ways(Accepts::ALL, "fec0::2", "::1");
}

#[test]
fn a_guest_short_of_room_loses_nothing() {
    let mut rig = Rig::new(Config::default());
    *rig.mailbox.room.borrow_mut() = 2;
    let (port, server) = serve("127.0.0.1", |mut stream| {
        stream.write_all(&pattern(400_000)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // Unread data would make the close a reset.
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let (handle, open) = rig.connect(at(GATEWAY, port));
    assert!(open);
    same(&exchange(&mut rig, handle, b"x"), &pattern(400_000));
    server.join().unwrap();
}

#[test]
fn nobody_listens() {
    let mut rig = Rig::new(Config::default());
    let port = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert!(!rig.connect(at(GATEWAY, port)).1);
    assert!(!rig.connect(at("10.0.2.3", 80)).1, "the name server");
    assert!(!rig.connect(at("127.0.0.1", port)).1);
    assert_eq!(rig.nat.usage().connections, 0);
}

#[test]
fn a_reset_goes_through_both_ways() {
    let mut rig = Rig::new(Config::default());
    let (port, server) = serve("127.0.0.1", |mut stream| {
        let mut byte = [0];
        stream.read(&mut byte)
    });
    let (handle, _) = rig.connect(at(GATEWAY, port));
    rig.tcp(handle).abort();
    rig.until("reset", |rig| rig.nat.usage().connections == 0);
    assert!(server.join().unwrap().is_err());
    let (port, server) = serve("127.0.0.1", |stream| {
        // Unread data makes a close a reset.
        std::thread::sleep(Duration::from_millis(50));
        drop(stream);
    });
    let (handle, _) = rig.connect(at(GATEWAY, port));
    rig.tcp(handle).send_slice(b"unread").unwrap();
    rig.until("reset", |rig| rig.tcp(handle).state() == tcp::State::Closed);
    server.join().unwrap();
}

#[test]
fn restricted_means_nothing_but_forwards() {
    let forward = HostForward {
        transport: Transport::Tcp,
        host: at("127.0.0.1", 0),
        guest: at("10.0.2.15", 22),
        text: String::new(),
    };
    let mut rig = Rig::new(Config {
        restricted: true,
        host_forwards: vec![forward],
        ..Config::default()
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    assert!(!rig.connect(at(GATEWAY, port)).1);
    assert!(!rig.connect(at("192.0.2.1", 80)).1);
    into_the_guest(&mut rig);
}

/// The host's client of a `hostfwd` talks to the guest's server.
fn into_the_guest(rig: &mut Rig) {
    let port = rig.nat.ports()[0];
    let handle = rig.tcp_socket();
    rig.tcp(handle).listen(22).unwrap();
    let client = std::thread::spawn(move || {
        let mut stream = TcpStream::connect(port).unwrap();
        stream.write_all(&pattern(100_000)).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut got = Vec::new();
        stream.read_to_end(&mut got).unwrap();
        got
    });
    rig.until("client", |rig| rig.tcp(handle).may_send());
    let remote = rig.tcp(handle).remote_endpoint().unwrap().addr;
    assert_eq!(IpAddr::from(remote), at(GATEWAY, 0).ip());
    let got = exchange(rig, handle, b"hello from the guest");
    same(&got, &pattern(100_000));
    assert_eq!(client.join().unwrap(), b"hello from the guest");
}

#[test]
fn host_forward() {
    let forward = HostForward {
        transport: Transport::Tcp,
        host: at("127.0.0.1", 0),
        guest: at("10.0.2.15", 22),
        text: String::new(),
    };
    let mut rig = Rig::new(Config {
        host_forwards: vec![forward],
        ..Config::default()
    });
    into_the_guest(&mut rig);
}

#[test]
fn guest_forward_to_a_command() {
    let forward = GuestForward {
        server: at("10.0.2.100", 7),
        target: Target::Command("tr a-z A-Z".into()),
    };
    let mut rig = Rig::new(Config {
        restricted: true,
        guest_forwards: vec![forward],
        ..Config::default()
    });
    let (handle, open) = rig.connect(at("10.0.2.100", 7));
    assert!(open);
    assert_eq!(exchange(&mut rig, handle, b"shout"), b"SHOUT");
}

fn udp_socket(rig: &mut Rig, port: u16) -> smoltcp::iface::SocketHandle {
    let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 16], vec![0; 1 << 17]);
    let mut socket = udp::Socket::new(buffer(), buffer());
    socket.bind(port).unwrap();
    rig.sockets.add(socket)
}

/// What the guest gets back for a datagram.
fn ask(
    rig: &mut Rig,
    handle: smoltcp::iface::SocketHandle,
    to: SocketAddr,
    data: &[u8],
) -> Vec<u8> {
    rig.sockets
        .get_mut::<udp::Socket>(handle)
        .send_slice(data, to)
        .unwrap();
    let mut got = None;
    rig.until("answer", |rig| {
        let socket = rig.sockets.get_mut::<udp::Socket>(handle);
        if let Ok((bytes, from)) = socket.recv() {
            assert_eq!(
                SocketAddr::new(from.endpoint.addr.into(), from.endpoint.port),
                to
            );
            got = Some(bytes.to_vec());
        }
        got.is_some()
    });
    got.unwrap()
}

fn echo_server(address: &str) -> SocketAddr {
    let socket = UdpSocket::bind(at(address, 0)).unwrap();
    let local = socket.local_addr().unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 65536];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            buffer[..n].reverse();
            let _ = socket.send_to(&buffer[..n], from);
        }
    });
    local
}

#[test]
fn udp_and_names() {
    let server = echo_server("127.0.0.1");
    let mut rig = Rig::new(Config {
        resolvers: vec![server],
        ..Config::default()
    });
    let handle = udp_socket(&mut rig, 5000);
    let gateway = at(GATEWAY, server.port());
    assert_eq!(ask(&mut rig, handle, gateway, b"abc"), b"cba");
    assert_eq!(ask(&mut rig, handle, gateway, b""), b"");
    assert_eq!(
        ask(&mut rig, handle, at("10.0.2.3", 53), b"name?"),
        b"?eman"
    );
    assert_eq!(rig.nat.usage().udp_flows, 2);
}

#[test]
fn udp_over_ipv6() {
    let server = echo_server("::1");
    let mut rig = Rig::new(Config::default());
    let handle = udp_socket(&mut rig, 5000);
    let gateway = at("fec0::2", server.port());
    assert_eq!(ask(&mut rig, handle, gateway, b"abc"), b"cba");
}

#[test]
fn udp_forward() {
    let forward = HostForward {
        transport: Transport::Udp,
        host: at("127.0.0.1", 0),
        guest: at("10.0.2.15", 53),
        text: String::new(),
    };
    let mut rig = Rig::new(Config {
        host_forwards: vec![forward],
        ..Config::default()
    });
    let port = rig.nat.ports()[0];
    let handle = udp_socket(&mut rig, 53);
    let client = std::thread::spawn(move || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        let mut buffer = [0; 100];
        for _ in 0..50 {
            socket.send_to(b"ping", port).unwrap();
            if let Ok((n, from)) = socket.recv_from(&mut buffer) {
                return (buffer[..n].to_vec(), from == port);
            }
        }
        panic!("no answer");
    });
    rig.until("client", |rig| {
        let socket = rig.sockets.get_mut::<udp::Socket>(handle);
        if let Ok((bytes, from)) = socket.recv() {
            let bytes = bytes.to_vec();
            assert_eq!(IpAddr::from(from.endpoint.addr), at(GATEWAY, 0).ip());
            socket
                .send_slice(&[&bytes[..], b" pong"].concat(), from.endpoint)
                .unwrap();
        }
        client.is_finished()
    });
    assert_eq!(client.join().unwrap(), (b"ping pong".to_vec(), true));
}

#[test]
fn ping() {
    let mut rig = Rig::new(Config::default());
    let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 4096]);
    let mut socket = icmp::Socket::new(buffer(), buffer());
    socket.bind(icmp::Endpoint::Ident(77)).unwrap();
    let handle = rig.sockets.add(socket);
    let request = Icmpv4Repr::EchoRequest {
        ident: 77,
        seq_no: 1,
        data: b"are you there",
    };
    let socket = rig.sockets.get_mut::<icmp::Socket>(handle);
    let room = socket
        .send(request.buffer_len(), at(GATEWAY, 0).ip().into())
        .unwrap();
    request.emit(
        &mut Icmpv4Packet::new_unchecked(room),
        &smoltcp::phy::ChecksumCapabilities::default(),
    );
    rig.until("echo", |rig| {
        let socket = rig.sockets.get_mut::<icmp::Socket>(handle);
        match socket.recv() {
            Ok((bytes, _)) => {
                assert_eq!((bytes[0], &bytes[8..]), (0, &b"are you there"[..]));
                true
            }
            Err(_) => false,
        }
    });
}

#[test]
fn hundreds_of_connections_at_once() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = std::thread::spawn(move || {
        let streams: Vec<_> = (0..300).map(|_| listener.accept().unwrap().0).collect();
        for mut stream in streams {
            stream.write_all(b"hello").unwrap();
        }
    });
    let mut rig = Rig::new(Config::default());
    let handles: Vec<_> = (0..300)
        .map(|i| {
            let buffer = || tcp::SocketBuffer::new(vec![0; 64]);
            let handle = rig.sockets.add(tcp::Socket::new(buffer(), buffer()));
            let context = rig.iface.context();
            rig.sockets
                .get_mut::<tcp::Socket>(handle)
                .connect(context, at(GATEWAY, port), 20000 + i)
                .unwrap();
            handle
        })
        .collect();
    rig.until("all of them", |rig| {
        handles
            .iter()
            .all(|h| rig.sockets.get::<tcp::Socket>(*h).recv_queue() == 5)
    });
    server.join().unwrap();
}
