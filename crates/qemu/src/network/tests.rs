use super::*;
use machine::description::NetworkKind;
use network::user::{Config, Target, Transport};

fn networks(options: &[(&str, &str)]) -> Result<Networks, Error> {
    let mut networks = Networks::default();
    for (name, value) in options {
        networks.option(name, value)?;
    }
    networks.finish(true)?;
    Ok(networks)
}

fn user(value: &str) -> Config {
    let networks = networks(&[("netdev", &format!("user,id=n0,{value}"))]).unwrap();
    match &networks.networks[0].kind {
        NetworkKind::User(config) => (**config).clone(),
        other => panic!("{other:?}"),
    }
}

fn error(options: &[(&str, &str)]) -> String {
    networks(options)
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default()
}

#[test]
fn a_default_nic_unless_somebody_speaks_of_the_network() {
    let nics = |options: &[(&str, &str)]| networks(options).unwrap().nics;
    let first = nics(&[]);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].address, Some(1));
    assert!(matches!(&first[0].kind, Kind::VirtioNet { config, .. } if config.mac[5] == 0x56));
    assert!(nics(&[("nic", "none")]).is_empty());
    assert!(nics(&[("net", "none")]).is_empty());
    assert!(nics(&[("netdev", "user,id=a")]).is_empty());
    let mut quiet = Networks::default();
    quiet.finish(false).unwrap();
    assert!(quiet.nics.is_empty());
    assert_eq!(
        nics(&[
            ("nic", "user,model=virtio-net-pci"),
            ("nic", "user,mac=52:54:00:00:00:01")
        ])
        .len(),
        2
    );
    let old = networks(&[("net", "nic,model=virtio"), ("net", "user,hostfwd=::0-:22")]).unwrap();
    assert_eq!((old.nics.len(), old.networks.len()), (1, 1));
    assert_eq!(old.unused().count(), 0);
}

#[test]
fn a_nic_on_a_usb_bus() {
    let all = networks(&[
        ("nic", "user,model=usb-ncm,mac=52:54:00:00:00:07,id=u"),
        ("nic", "user"),
    ])
    .unwrap();
    assert_eq!((all.nics.len(), all.usb_nics.len()), (1, 1));
    // The name is the back end's.
    assert_eq!(all.networks[0].id, "u");
    assert!(matches!(&all.usb_nics[0].kind, Kind::UsbNcm { netdev: Some(_), mac } if mac[5] == 7));
    assert_eq!(all.unused().count(), 0);
    for bad in ["user,model=usb-ncm,addr=3", "user,model=usb-ncm,vectors=2"] {
        assert!(networks(&[("nic", bad)]).is_err(), "{bad}");
    }
}

#[test]
fn addresses_are_each_given_once() {
    let mut networks = Networks::default();
    assert_eq!(
        networks.mac(Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]))[5],
        0x56
    );
    assert_eq!(networks.mac(None)[5], 0x57);
    assert_eq!(
        parse_mac("52:54:0:12:34:56").unwrap(),
        [0x52, 0x54, 0, 0x12, 0x34, 0x56]
    );
    for bad in [
        "",
        "52:54:00:12:34",
        "52:54:00:12:34:567",
        "01:00:00:00:00:00",
        "x:0:0:0:0:0",
    ] {
        assert!(parse_mac(bad).is_err(), "{bad}");
    }
}

#[test]
fn user_options() {
    let plain = user("");
    assert_eq!(plain, Config::default());
    let config = user(
        "net=192.168.76.0/24,host=192.168.76.1,dhcpstart=192.168.76.9,hostname=h,domainname=d,dnssearch=a,dnssearch=b,restrict=on,ipv6=off",
    );
    let v4 = config.ipv4.unwrap();
    assert_eq!(
        (
            v4.host.octets()[3],
            v4.dns.octets()[3],
            v4.dhcp_start.octets()[3]
        ),
        (1, 3, 9)
    );
    assert!(config.restricted && config.ipv6.is_none());
    assert_eq!(config.search, ["a", "b"]);
    assert_eq!(user("net=10.9.8.0/255.255.255.0").ipv4.unwrap().prefix, 24);
    assert_eq!(user("resolver=192.0.2.1").resolvers[0].port(), 53);
    let v6 = user("ipv6-prefix=fd00::,ipv6-prefixlen=64").ipv6.unwrap();
    assert_eq!(v6.host, "fd00::2".parse::<std::net::Ipv6Addr>().unwrap());
}

#[test]
fn forwards() {
    let config = user("hostfwd=tcp::2222-:22,hostfwd=udp:127.0.0.1:53-10.0.2.20:5353");
    let [ssh, dns] = &config.host_forwards[..] else {
        panic!()
    };
    assert_eq!(ssh.host, "0.0.0.0:2222".parse().unwrap());
    assert_eq!(ssh.guest, "10.0.2.15:22".parse().unwrap());
    assert_eq!(dns.transport, Transport::Udp);
    let six = user("hostfwd=tcp:[::1]:80-[fec0::15]:80");
    assert_eq!(six.host_forwards[0].host, "[::1]:80".parse().unwrap());
    let config =
        user("guestfwd=tcp:10.0.2.100:6667-cmd:nc -l,,x,guestfwd=tcp:10.0.2.101:1-unix:/s");
    assert_eq!(
        config.guest_forwards[0].target,
        Target::Command("nc -l,x".into())
    );
    assert_eq!(config.guest_forwards[1].target, Target::Unix("/s".into()));
    for (rule, why) in [
        ("hostfwd=tcp::x-:22", "Bad host port"),
        ("hostfwd=tcp::22", "Missing guest address"),
        ("hostfwd=sctp::1-:2", "Bad protocol name"),
        ("hostfwd=tcp::1-10.0.3.1:2", "not in the guest's network"),
        ("hostfwd=tcp::1-:0", "Bad guest port"),
        ("guestfwd=tcp:10.0.2.2:1-cmd:x", "not free"),
        ("guestfwd=tcp:10.0.2.9:1-chr0", "named character devices"),
    ] {
        let text = error(&[("netdev", &format!("user,id=n,{rule}"))]);
        assert!(text.contains(why), "{rule}: {text}");
    }
}

#[test]
fn what_qemus_users_know() {
    for (option, message) in [
        (("netdev", "user"), "Parameter 'id' is missing"),
        (
            ("netdev", "nonsense,id=n"),
            "Parameter 'type' does not accept value 'nonsense'",
        ),
        (
            ("netdev", "user,id=n,foo=1"),
            "Parameter 'foo' is unexpected",
        ),
        (("nic", "user,model=e1000"), "Unsupported NIC model: e1000"),
        (
            ("netdev", "user,id=n,ipv4=off,ipv6=off"),
            "IPv4 and IPv6 disabled",
        ),
        (
            ("netdev", "user,id=n,smb=/x"),
            "Dormer does not have the file server",
        ),
        (
            ("netdev", "vde,id=n"),
            "Dormer does not have the back end 'vde'",
        ),
        (
            ("netdev", "user,id=n,dns=10.0.2.2"),
            "DNS must be different from host",
        ),
    ] {
        let text = error(&[option]);
        assert!(text.starts_with(message), "{option:?}: {text}");
    }
    let twice = error(&[("netdev", "user,id=n"), ("netdev", "user,id=n")]);
    assert_eq!(twice, "Duplicate ID 'n' for netdev");
    let mut two = networks(&[("netdev", "user,id=n")]).unwrap();
    let mut device = |text: &str| {
        two.virtio_net(&mut KeyValues::parse(text, None), false, 2)
            .map_err(|e| e.to_string())
    };
    assert!(device("netdev=n,mq=on,csum=off").is_ok());
    assert!(device("netdev=n").unwrap_err().contains("it's in use"));
    assert!(
        device("netdev=m")
            .unwrap_err()
            .contains("can't find value 'm'")
    );
    assert!(device("romfile=x").is_err() && device("romfile=").is_ok());
}

#[test]
fn dumps() {
    let mut networks = Networks::default();
    let mut add = |text: &str| networks.filter_dump("f".into(), &mut KeyValues::parse(text, None));
    add("netdev=n,file=x.pcap,maxlen=96,queue=tx").unwrap();
    assert!(add("netdev=n").is_err());
    assert!(add("netdev=n,file=x,queue=up").is_err());
    assert_eq!(networks.filters[0].limit, 96);
    assert_eq!(networks.filters[0].which, Which::FromGuest);
}

fn kind(value: &str) -> NetworkKind {
    networks(&[("netdev", value)]).unwrap().networks[0]
        .kind
        .clone()
}

#[test]
fn wires_to_other_machines() {
    use network::stream::{Address, Config};
    let inet = |server| {
        NetworkKind::Stream(Config {
            address: Address::Inet("127.0.0.1:1234".parse().unwrap()),
            server,
            reconnect: None,
        })
    };
    assert_eq!(kind("socket,id=n,listen=127.0.0.1:1234"), inet(true));
    assert_eq!(kind("socket,id=n,connect=127.0.0.1:1234"), inet(false));
    let stream = "stream,id=n,addr.type=inet,addr.host=127.0.0.1,addr.port=1234";
    assert_eq!(kind(stream), inet(false));
    assert_eq!(kind(&format!("{stream},server=on")), inet(true));
    assert_eq!(
        kind("stream,id=n,addr.type=unix,addr.path=/x,reconnect-ms=500"),
        NetworkKind::Stream(Config {
            address: Address::Unix("/x".into()),
            server: false,
            reconnect: Some(std::time::Duration::from_millis(500)),
        })
    );
    for (option, message) in [
        (
            "socket,id=n",
            "exactly one of listen= and connect= is required",
        ),
        (
            "socket,id=n,mcast=230.0.0.1:1",
            "Dormer does not have -netdev socket,mcast=",
        ),
        (
            "stream,id=n,addr.type=vsock",
            "Parameter 'addr.type' does not accept value 'vsock'",
        ),
        (
            "stream,id=n,addr.type=inet,addr.host=127.0.0.1",
            "Parameter 'addr.port' is missing",
        ),
        (
            "dgram,id=n",
            "Dormer does not have the back end 'dgram' yet",
        ),
    ] {
        let text = error(&[("netdev", option)]);
        assert!(text.starts_with(message), "{option}: {text}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn taps() {
    use network::tap::Config;
    assert_eq!(
        kind("tap,id=n,ifname=tap0,script=no,downscript=no"),
        NetworkKind::Tap(Config {
            interface: Some("tap0".into()),
            ..Config::default()
        })
    );
    assert_eq!(
        kind("tap,id=n,fd=7"),
        NetworkKind::Tap(Config {
            descriptor: Some(7),
            ..Config::default()
        })
    );
    let NetworkKind::Tap(plain) = kind("tap,id=n") else {
        panic!()
    };
    assert_eq!(plain.script.as_deref(), Some("/etc/qemu-ifup"));
    for (option, message) in [
        ("tap,id=n,script=no,vhost=on", "Dormer does not have vhost"),
        (
            "tap,id=n,fd=7,ifname=x",
            "ifname=, script=, downscript= are invalid with fd=",
        ),
    ] {
        let text = error(&[("netdev", option)]);
        assert!(text.contains(message), "{option}: {text}");
    }
}

fn vmnet(text: &str) -> Result<network::vmnet::Config, String> {
    let (kind, options) = text.split_once(',').unwrap_or((text, ""));
    let mut values = KeyValues::parse(options, None);
    let config = backends::vmnet(kind, &mut values).map_err(|e| e.to_string())?;
    values.finish().map_err(|e| e.to_string())?;
    Ok(config)
}

#[test]
fn interfaces_of_a_mac() {
    use network::vmnet::{Addresses, Config, Mode};
    let plain = Config {
        mode: Mode::Shared {
            addresses: None,
            nat66_prefix: None,
        },
        isolated: false,
    };
    assert_eq!(vmnet("vmnet-shared"), Ok(plain));
    let range = "start-address=192.168.77.1,end-address=192.168.77.99,subnet-mask=255.255.255.0";
    let addresses = Some(Addresses {
        start: "192.168.77.1".parse().unwrap(),
        end: "192.168.77.99".parse().unwrap(),
        mask: "255.255.255.0".parse().unwrap(),
    });
    assert_eq!(
        vmnet(&format!(
            "vmnet-shared,{range},nat66-prefix=fd12:3456::,isolated=on"
        )),
        Ok(Config {
            mode: Mode::Shared {
                addresses,
                nat66_prefix: Some("fd12:3456::".parse().unwrap()),
            },
            isolated: true,
        })
    );
    assert_eq!(
        vmnet(&format!(
            "vmnet-host,{range},net-uuid=00112233-4455-6677-8899-aabbccddeeff"
        )),
        Ok(Config {
            mode: Mode::Host {
                addresses,
                network: Some(0x00112233445566778899aabbccddeeff_u128.to_be_bytes()),
            },
            isolated: false,
        })
    );
    assert_eq!(
        vmnet("vmnet-bridged,ifname=en0,isolated=off"),
        Ok(Config {
            mode: Mode::Bridged {
                interface: "en0".into(),
            },
            isolated: false,
        })
    );
    for (options, message) in [
        ("vmnet-bridged", "Parameter 'ifname' is missing"),
        ("vmnet-shared,start-address=10.0.0.1", "go together"),
        (
            "vmnet-host,start-address=10.0.0.1,subnet-mask=255.0.0.0",
            "go together",
        ),
        ("vmnet-shared,end-address=10.0.0", "is no IPv4 address"),
        (
            "vmnet-shared,start-address=8.8.8.8,end-address=8.8.8.9,subnet-mask=255.0.0.0",
            "start-address=8.8.8.8 is not of a private network",
        ),
        (
            "vmnet-shared,start-address=10.0.0.1,end-address=10.0.0.9,subnet-mask=255.0.255.0",
            "is no mask",
        ),
        (
            "vmnet-shared,start-address=10.0.0.1,end-address=10.0.1.9,subnet-mask=255.255.255.0",
            "in one network",
        ),
        (
            "vmnet-shared,start-address=10.0.0.9,end-address=10.0.0.1,subnet-mask=255.255.255.0",
            "is not behind",
        ),
        ("vmnet-shared,nat66-prefix=2001:db8::", "in fd00::/8"),
        ("vmnet-shared,nat66-prefix=fd00::1", "64 bits"),
        ("vmnet-shared,nat66-prefix=fd00::/64", "is no IPv6 prefix"),
        ("vmnet-host,net-uuid=1234", "net-uuid=1234 is no UUID"),
        ("vmnet-shared,isolated=perhaps", "isolated"),
        // What another of them has.
        ("vmnet-host,nat66-prefix=fd00::", "nat66-prefix"),
        (
            "vmnet-shared,net-uuid=00112233-4455-6677-8899-aabbccddeeff",
            "net-uuid",
        ),
        ("vmnet-shared,ifname=en0", "ifname"),
        (
            "vmnet-bridged,ifname=en0,start-address=10.0.0.1",
            "start-address",
        ),
    ] {
        let error = vmnet(options).unwrap_err();
        assert!(error.contains(message), "{options}: {error}");
    }
    #[cfg(not(target_os = "macos"))]
    for kind in ["vmnet-host", "vmnet-shared", "vmnet-bridged"] {
        // Whatever its options say.
        let text = error(&[("netdev", &format!("{kind},id=n,isolated=perhaps"))]);
        assert_eq!(
            text,
            format!("no back end '{kind}': only macOS has it\nUse -netdev user")
        );
    }
}
