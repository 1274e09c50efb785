//! The distribution's kernel on the network: a lease, names, both ways, IPv4 and IPv6.

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use common::{PATIENCE, dormer};
use guests::initrd;
use guests::run::{Builder, Machine};

/// What udhcpc runs.
const LEASE: &[u8] = br#"#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
ip route add default via $router
echo "nameserver $dns" > /etc/resolv.conf
echo "dormer: lease $ip/$mask $router $dns $hostname"
"#;

/// Ports come as variables by the kernel's command line, so that the initrd is one for all runs.
const SCRIPT: &str = r#"
ip link set lo up
n=0; until card=$(ls /sys/class/net | grep -v -e lo -e sit -e tunl | head -n 1) && [ -n "$card" ]; do
  n=$((n+1)); [ $n -gt 600 ] && break; sleep 0.1; done
echo "dormer: card $card $(cat /sys/class/net/$card/address)"
ip link set $card up
udhcpc -i $card -n -q -t 10 -s /bin/lease 2>/dev/null
echo "dormer: ping $(ping -c 3 -i 0.2 10.0.2.2 | grep -o '[0-9] packets received')"
echo "dormer: name $(nslookup -type=a dormer.example 10.0.2.3 | grep -A1 '^Name' | tail -n 1)"
wget -q -O /tmp/got http://10.0.2.2:$http/ ; echo "dormer: got $(md5sum < /tmp/got)"
nc 10.0.2.2 $sink < /tmp/got ; echo "dormer: sent"
n=0; until ip -6 addr show dev $card | grep -q 'inet6 fec0.*scope' && ! ip -6 addr show dev $card | grep -q tentative; do
  n=$((n+1)); [ $n -gt 100 ] && break; sleep 0.1; done
echo "dormer: six $(ip -6 addr show dev $card | grep -o 'fec0[^ ]*')"
wget -q -O /tmp/six "http://[fec0::2]:$http6/" ; echo "dormer: got6 $(md5sum < /tmp/six)"
nc -l -p 7 < /tmp/got &
until netstat -ltn 2>/dev/null | grep -q ":7 "; do sleep 0.1; done
echo "dormer: listening"
wait
dmesg -r | grep '^<[0-4]>' | grep -i -e virtio -e net -e ncm -e cdc -e usb
echo "dormer: done"
poweroff -f
"#;

fn pattern(length: usize) -> Vec<u8> {
    (0..length).map(|i| ((i * 31) >> 3) as u8).collect()
}

const LENGTH: usize = 3_000_000;

/// A server of one page, the pattern.
fn serve(address: &str) -> Result<u16> {
    let listener = TcpListener::bind((address, 0))?;
    let port = listener.local_addr()?.port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {LENGTH}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                let _ = stream.write_all(&pattern(LENGTH));
                let _ = stream.shutdown(std::net::Shutdown::Write);
                let _ = stream.read_to_end(&mut Vec::new());
            });
        }
    });
    Ok(port)
}

/// A name server that knows one address for every name (RFC 1035, 4.1).
fn names() -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let address = socket.local_addr()?;
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((n, from)) = socket.recv_from(&mut query) {
            let mut answer = query[..n].to_vec();
            let end = answer[12..].iter().position(|b| *b == 0).unwrap_or(0) + 12 + 5;
            answer.truncate(end);
            answer[2] = 0x81;
            answer[3] = 0x80;
            answer[6..12].copy_from_slice(&[0, 1, 0, 0, 0, 0]);
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 77]);
            let _ = socket.send_to(&answer, from);
        }
    });
    Ok(address)
}

/// What the guest said after `dormer: KEY `.
fn said<'a>(log: &'a str, key: &str) -> Option<&'a str> {
    log.lines().find_map(|line| {
        let rest = line.trim().strip_prefix("dormer: ")?.strip_prefix(key)?;
        Some(rest.trim())
    })
}

fn start(devices: &str, modules: &[&str], ports: &str, netdev: &str) -> Result<Machine> {
    let mut all = vec!["virtio_pci", "xhci-pci"];
    all.extend(modules);
    start_with(
        devices,
        &all,
        SCRIPT,
        &[("bin/lease", LEASE)],
        ports,
        netdev,
    )
}

fn start_with(
    devices: &str,
    modules: &[&str],
    script: &str,
    files: &[(&str, &[u8])],
    ports: &str,
    netdev: &str,
) -> Result<Machine> {
    let kernel = guests::kernel()?;
    let initrd = initrd::build(&kernel, modules, script, files)?;
    Builder::new(dormer())
        .args("-machine virt -cpu max -m 512M -smp 2 -nodefaults")
        .args(devices)
        .arg("-netdev")
        .arg(netdev)
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(format!("console=ttyAMA0 {ports}"))
        .start()
}

fn on_the_network(devices: &str, modules: &[&str], capture: bool) -> Result<String> {
    let (http, http6) = (serve("127.0.0.1")?, serve("::1")?);
    let sink = TcpListener::bind("127.0.0.1:0")?;
    let port = sink.local_addr()?.port();
    let sink = std::thread::spawn(move || -> std::io::Result<Vec<u8>> {
        let (mut stream, _) = sink.accept()?;
        let mut got = Vec::new();
        stream.read_to_end(&mut got)?;
        Ok(got)
    });
    // Somebody else may take the port meanwhile, but hardly this one.
    let forwarded = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let folder = tempfile::tempdir()?;
    let dump = folder.path().join("wire.pcap");
    let devices = if capture {
        format!(
            "{devices} -object filter-dump,id=f,netdev=n,file={}",
            dump.display()
        )
    } else {
        devices.to_string()
    };
    let mut machine = start(
        &devices,
        modules,
        &format!("http={http} http6={http6} sink={port}"),
        &format!(
            "user,id=n,hostname=guest,resolver={},hostfwd=tcp:127.0.0.1:{}-:7",
            names()?,
            forwarded.port()
        ),
    )?;
    machine.expect("dormer: listening", PATIENCE)?;
    let mut client = TcpStream::connect(forwarded)?;
    client.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut got = Vec::new();
    client
        .read_to_end(&mut got)
        .with_context(|| format!("after {} bytes\n{}", got.len(), machine.log()))?;
    drop(client);
    machine.expect("dormer: done", PATIENCE)?;
    ensure!(machine.wait(Duration::from_secs(60))?.success());
    let log = machine.log();
    ensure!(
        got == pattern(LENGTH),
        "{} bytes by hostfwd\n{log}",
        got.len()
    );
    let sent = sink.join().ok().context("the sink panicked")??;
    ensure!(sent == pattern(LENGTH), "{} bytes sent\n{log}", sent.len());
    let digest = said(&log, "got").unwrap_or_default().to_string();
    for (key, value) in [
        ("lease", "10.0.2.15/24 10.0.2.2 10.0.2.3 guest"),
        ("ping", "3 packets received"),
        ("name", "Address: 192.0.2.77"),
        ("got6", &digest),
    ] {
        ensure!(
            said(&log, key) == Some(value),
            "{key} is {:?}, not {value}\n{log}",
            said(&log, key)
        );
    }
    ensure!(
        said(&log, "six").is_some_and(|a| a.starts_with("fec0::5054:ff:fe12:3456/64")),
        "{:?}\n{log}",
        said(&log, "six")
    );
    if capture {
        let size = std::fs::metadata(&dump)?.len();
        ensure!(size > 4 * LENGTH as u64, "the capture has {size} bytes");
    }
    Ok(log)
}

#[test]
fn by_virtio() -> Result<()> {
    let log = on_the_network(
        "-device virtio-net-pci,netdev=n,mq=on",
        &["virtio_net"],
        true,
    )?;
    ensure!(said(&log, "card").is_some_and(|c| c.ends_with("52:54:00:12:34:56")));
    Ok(())
}

/// By the driver for CDC's Network Control Model.
#[test]
fn by_usb() -> Result<()> {
    let log = on_the_network(
        "-device qemu-xhci -device usb-ncm,netdev=n",
        &["cdc_ncm", "usbnet"],
        false,
    )?;
    ensure!(said(&log, "card").is_some_and(|c| c.ends_with("52:54:00:12:34:56")));
    Ok(())
}

#[cfg(target_os = "linux")]
const HOSTILE: &str = r#"
until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done
ulimit -n 4096
ip link set lo up; ip link set eth0 up; ip addr add 10.0.2.15/24 dev eth0; sleep 1
echo "dormer: before"
hostile 15 10.0.2.2 $http eth0 || echo "failed"
echo "dormer: after"
wget -q -O /tmp/got http://10.0.2.2:$http/ ; echo "dormer: got $(wc -c < /tmp/got)"
poweroff -f
"#;

/// Bytes that a process has resident, and its open files.
#[cfg(target_os = "linux")]
fn held(process: u32) -> Result<(u64, usize)> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"))
        .context("no resident set")?;
    let files = std::fs::read_dir(format!("/proc/{process}/fd"))?.count();
    Ok((resident.parse::<u64>()? << 10, files))
}

/// It floods, spoofs, half-opens, fragments and never reads: memory and files stay in bounds, the server it floods serves
/// others, and then it is served itself.
#[cfg(target_os = "linux")]
#[test]
fn a_hostile_guest_harms_nobody() -> Result<()> {
    const RAM: u64 = 512 << 20;
    let port = serve("127.0.0.1")?;
    let hostile = std::fs::read(guests::bench::tool("hostile")?)?;
    let mut machine = start_with(
        "-device virtio-net-pci,netdev=n",
        &["virtio_pci", "virtio_net"],
        HOSTILE,
        &[("bin/hostile", &hostile)],
        &format!("http={port}"),
        "user,id=n",
    )?;
    machine.expect("dormer: before", PATIENCE)?;
    let (mut most, mut files, mut served) = (0, 0, 0);
    while !machine.log().contains("dormer: after") {
        let (bytes, open) = held(machine.id())?;
        (most, files) = (most.max(bytes), files.max(open));
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
        let mut got = Vec::new();
        stream.read_to_end(&mut got)?;
        ensure!(
            got.len() > LENGTH,
            "the host was served {} bytes",
            got.len()
        );
        served += 1;
        ensure!(served < 3000, "it does not end\n{}", machine.log());
        std::thread::sleep(Duration::from_millis(100));
    }
    machine.expect("dormer: got ", PATIENCE)?;
    ensure!(machine.wait(Duration::from_secs(60))?.success());
    let log = machine.log();
    ensure!(log.contains("hostile: 800 held"), "{log}");
    ensure!(served > 5, "the host was served {served} times");
    ensure!(
        said(&log, "got") == Some(&LENGTH.to_string()),
        "the guest got {:?}\n{log}",
        said(&log, "got")
    );
    // All of the guest's memory, code and its translation, and what the network may hold (96 MiB).
    ensure!(most < RAM + (256 << 20), "{} MiB", most >> 20);
    ensure!(files < 2000, "{files} open files");
    Ok(())
}
