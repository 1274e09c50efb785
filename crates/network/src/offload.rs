//! What a sender left undone, done: checksums and segments for receivers that take neither.

use std::net::IpAddr;

use smoltcp::wire::{EthernetProtocol, IpProtocol, Ipv4Packet, Ipv6Packet, TcpPacket, UdpPacket};

use crate::checksum;
use crate::frame::{Checksum, Frame, GsoKind};

/// Completes a partial checksum in place. Nonsense is left as it is: the receiver drops it.
fn complete(frame: &mut [u8], start: u16, offset: u16) {
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    if at + 2 > frame.len() {
        return;
    }
    // The place holds the sum of the pseudo header, so it takes part as it is.
    let value = checksum::finish(0, &[&frame[start..]]);
    let value = if value == 0 { 0xffff } else { value };
    frame[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Where the network and transport headers of a frame are.
struct Layout {
    ip: usize,
    transport: usize,
    version4: bool,
}

/// Finds the headers, behind at most two VLAN tags.
fn layout(frame: &[u8]) -> Option<Layout> {
    let mut at = 12;
    let mut kind = u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]);
    for _ in 0..2 {
        if kind == 0x8100 || kind == 0x88a8 {
            at += 4;
            kind = u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]);
        }
    }
    let ip = at + 2;
    match EthernetProtocol::from(kind) {
        EthernetProtocol::Ipv4 => {
            let packet = Ipv4Packet::new_checked(frame.get(ip..)?).ok()?;
            Some(Layout {
                ip,
                transport: ip + usize::from(packet.header_len()),
                version4: true,
            })
        }
        EthernetProtocol::Ipv6 => {
            let packet = Ipv6Packet::new_checked(frame.get(ip..)?).ok()?;
            matches!(packet.next_header(), IpProtocol::Tcp | IpProtocol::Udp).then_some(Layout {
                ip,
                transport: ip + 40,
                version4: false,
            })
        }
        _ => None,
    }
}

/// Calls `each` with finished frames, in order, until it refuses one. `scratch` is reused. False if one was refused.
pub fn finish(
    frame: &Frame<'_>,
    scratch: &mut Vec<u8>,
    mut each: impl FnMut(&[u8]) -> bool,
) -> bool {
    let mut whole = frame.to_vec();
    let Some(gso) = frame.offload.gso else {
        if let Checksum::Partial { start, offset } = frame.offload.checksum {
            complete(&mut whole, start, offset);
        }
        return each(&whole);
    };
    let Some(layout) = layout(&whole) else {
        return true;
    };
    let header_length = match gso.kind {
        GsoKind::Tcp4 | GsoKind::Tcp6 => match TcpPacket::new_checked(&whole[layout.transport..]) {
            Ok(tcp) => usize::from(tcp.header_len()),
            Err(_) => return true,
        },
        GsoKind::Udp => 8,
    };
    let (headers, size) = (layout.transport + header_length, usize::from(gso.size));
    if size == 0 || headers > whole.len() {
        return true;
    }
    let payload = whole.split_off(headers);
    let pieces = payload.chunks(size).count();
    for (i, piece) in payload.chunks(size).enumerate() {
        scratch.clear();
        scratch.extend_from_slice(&whole);
        scratch.extend_from_slice(piece);
        let place = Place {
            first: i == 0,
            last: i + 1 == pieces,
            index: i,
            offset: i * size,
        };
        rewrite(scratch, &layout, gso.kind, &place);
        if !each(scratch) {
            return false;
        }
    }
    true
}

/// Which segment of how many.
struct Place {
    first: bool,
    last: bool,
    index: usize,
    offset: usize,
}

/// Makes the copied headers those of one segment.
fn rewrite(segment: &mut [u8], layout: &Layout, kind: GsoKind, place: &Place) {
    let (source, destination): (IpAddr, IpAddr);
    let length = segment.len();
    if layout.version4 {
        let mut ip = Ipv4Packet::new_unchecked(&mut segment[layout.ip..]);
        ip.set_total_len((length - layout.ip) as u16);
        let ident = ip.ident().wrapping_add(place.index as u16);
        ip.set_ident(ident);
        ip.fill_checksum();
        (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    } else {
        let mut ip = Ipv6Packet::new_unchecked(&mut segment[layout.ip..]);
        ip.set_payload_len((length - layout.ip - 40) as u16);
        (source, destination) = (ip.src_addr().into(), ip.dst_addr().into());
    }
    let transport = &mut segment[layout.transport..];
    let (source, destination) = (source.into(), destination.into());
    if kind == GsoKind::Udp {
        let mut udp = UdpPacket::new_unchecked(transport);
        udp.set_len((length - layout.transport) as u16);
        udp.fill_checksum(&source, &destination);
        return;
    }
    let mut tcp = TcpPacket::new_unchecked(transport);
    tcp.set_seq_number(tcp.seq_number() + place.offset);
    if !place.last {
        tcp.set_fin(false);
        tcp.set_psh(false);
    }
    if !place.first {
        tcp.set_cwr(false);
    }
    tcp.fill_checksum(&source, &destination);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Gso, Offload};
    use proptest::prelude::*;
    use smoltcp::phy::ChecksumCapabilities;
    use smoltcp::wire::{Ipv4Repr, TcpControl, TcpRepr, TcpSeqNumber};

    fn tcp_frame(payload: &[u8]) -> Vec<u8> {
        let tcp = TcpRepr {
            src_port: 1,
            dst_port: 2,
            control: TcpControl::Fin,
            seq_number: TcpSeqNumber(-3),
            ack_number: Some(TcpSeqNumber(7)),
            window_len: 100,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: None,
            payload,
        };
        let ip = Ipv4Repr {
            src_addr: [10, 0, 2, 15].into(),
            dst_addr: [10, 0, 2, 2].into(),
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let mut frame = vec![0; 34 + tcp.buffer_len()];
        frame[12] = 8;
        let caps = ChecksumCapabilities::default();
        ip.emit(&mut Ipv4Packet::new_unchecked(&mut frame[14..]), &caps);
        let (s, d) = (ip.src_addr.into(), ip.dst_addr.into());
        tcp.emit(
            &mut TcpPacket::new_unchecked(&mut frame[34..]),
            &s,
            &d,
            &caps,
        );
        frame
    }

    proptest! {
        #[test]
        fn segments_carry_all_of_the_payload(length in 1usize..5000, size in 1u16..1500) {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            let frame = tcp_frame(&payload);
            let offload = Offload {
                checksum: Checksum::Partial { start: 34, offset: 16 },
                gso: Some(Gso { kind: GsoKind::Tcp4, size, ecn: false }),
            };
            let (mut got, mut fins, mut next) = (Vec::new(), 0, TcpSeqNumber(-3));
            let done = finish(&Frame { offload, parts: &[&frame] }, &mut Vec::new(), |segment| {
                let ip = Ipv4Packet::new_checked(&segment[14..]).unwrap();
                assert!(ip.verify_checksum());
                assert_eq!(usize::from(ip.total_len()), segment.len() - 14);
                let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
                assert!(tcp.verify_checksum(&ip.src_addr().into(), &ip.dst_addr().into()));
                assert_eq!(tcp.seq_number(), next);
                assert!(tcp.payload().len() <= usize::from(size));
                next += tcp.payload().len();
                got.extend_from_slice(tcp.payload());
                fins += usize::from(tcp.fin());
                true
            });
            prop_assert!(done);
            prop_assert_eq!(got, payload);
            prop_assert_eq!(fins, 1);
        }

        #[test]
        fn nonsense_does_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200), start: u16, offset: u16, size: u16, kind in 0..3) {
            let kind = [GsoKind::Tcp4, GsoKind::Tcp6, GsoKind::Udp][kind as usize];
            for gso in [None, Some(Gso { kind, size, ecn: true })] {
                let offload = Offload { checksum: Checksum::Partial { start, offset }, gso };
                finish(&Frame { offload, parts: &[&bytes] }, &mut Vec::new(), |_| true);
            }
        }
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        let whole = tcp_frame(b"hello");
        let mut partial = whole.clone();
        let sum = checksum::pseudo_header(
            IpAddr::from([10, 0, 2, 15]),
            IpAddr::from([10, 0, 2, 2]),
            6,
            whole.len() - 34,
        );
        partial[50..52].copy_from_slice(&checksum::fold(sum).to_be_bytes());
        let offload = Offload {
            checksum: Checksum::Partial {
                start: 34,
                offset: 16,
            },
            gso: None,
        };
        let parts: &[&[u8]] = &[&partial[..20], &partial[20..]];
        finish(&Frame { offload, parts }, &mut Vec::new(), |frame| {
            assert_eq!(frame, whole);
            true
        });
    }
}
