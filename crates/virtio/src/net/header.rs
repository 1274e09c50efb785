//! The header in front of every packet (VIRTIO 5.1.6).

use network::{Checksum, Frame, Gso, GsoKind, Offload};

use super::spec::header;

/// What a driver's header says; nothing if it breaks the rules (VIRTIO 5.1.6.2).
pub fn parse(bytes: &[u8; header::LEGACY_SIZE]) -> Option<Offload> {
    let word = |i: usize| u16::from_le_bytes([bytes[i], bytes[i + 1]]);
    let (flags, gso_type) = (bytes[0], bytes[1]);
    let checksum = if flags & header::NEEDS_CSUM != 0 {
        Checksum::Partial {
            start: word(6),
            offset: word(8),
        }
    } else {
        Checksum::Complete
    };
    let kind = match gso_type & !header::GSO_ECN {
        header::GSO_NONE => None,
        header::GSO_TCPV4 => Some(GsoKind::Tcp4),
        header::GSO_TCPV6 => Some(GsoKind::Tcp6),
        header::GSO_UDP_L4 => Some(GsoKind::Udp),
        _ => return None,
    };
    let gso = match kind {
        None => None,
        // Segments have checksums of their own, so the driver leaves them all.
        Some(_) if word(4) == 0 || checksum == Checksum::Complete => return None,
        Some(kind) => Some(Gso {
            kind,
            size: word(4),
            ecn: gso_type & header::GSO_ECN != 0,
        }),
    };
    Some(Offload { checksum, gso })
}

/// The header for a frame that the guest gets, in `buffers` buffers. `checksums`: the driver takes what is said of them.
pub fn emit(frame: &Frame<'_>, buffers: u16, checksums: bool) -> [u8; header::SIZE] {
    let mut bytes = [0; header::SIZE];
    let mut put = |at: usize, value: u16| bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
    put(10, buffers);
    let mut flags = 0;
    let mut gso_type = header::GSO_NONE;
    match frame.offload.checksum {
        Checksum::Partial { start, offset } if checksums => {
            flags = header::NEEDS_CSUM;
            put(6, start);
            put(8, offset);
            if let Some(gso) = frame.offload.gso {
                gso_type = match gso.kind {
                    GsoKind::Tcp4 => header::GSO_TCPV4,
                    GsoKind::Tcp6 => header::GSO_TCPV6,
                    GsoKind::Udp => header::GSO_UDP_L4,
                } | if gso.ecn { header::GSO_ECN } else { 0 };
                put(2, header_length(frame, start, gso.kind));
                put(4, gso.size);
            }
        }
        Checksum::Valid if checksums => flags = header::DATA_VALID,
        _ => {}
    }
    bytes[0] = flags;
    bytes[1] = gso_type;
    bytes
}

/// Bytes of all headers, the transport's included.
fn header_length(frame: &Frame<'_>, transport: u16, kind: GsoKind) -> u16 {
    if kind == GsoKind::Udp {
        return transport.saturating_add(8);
    }
    let mut start = [0; 128];
    let length = frame.peek(&mut start);
    let data_offset = start[..length]
        .get(usize::from(transport) + 12)
        .map_or(5, |b| b >> 4);
    transport.saturating_add(u16::from(data_offset) * 4)
}
