//! Segments to the guest.

use std::net::SocketAddr;

use crate::checksum;
use crate::frame::{Checksum, Frame, Gso, GsoKind, Offload};
use crate::user::wire::{ETHERNET, Guest, ethernet, ethertype, ip_header};

/// Flags (RFC 9293, 3.1).
pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// A segment's header.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    pub mac: [u8; 6],
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    /// As in the header: scaled.
    pub window: u16,
    /// With SYN only.
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
}

/// Room for all headers.
const HEADERS: usize = ETHERNET + 40 + 20 + 8;

impl Segment {
    /// Hands the segment to the guest with this payload. `segment_size`: cut into segments of so many bytes, by the guest.
    pub fn send(&self, guest: &dyn Guest, payload: [&[u8]; 2], segment_size: Option<u16>) -> bool {
        let mut headers = [0; HEADERS];
        let v4 = self.source.is_ipv4();
        let transport = ETHERNET + if v4 { 20 } else { 40 };
        let options =
            usize::from(self.mss.is_some()) * 4 + usize::from(self.window_scale.is_some()) * 4;
        let end = transport + 20 + options;
        let length = payload[0].len() + payload[1].len();
        ethernet(&mut headers, self.mac, ethertype(self.source.ip()));
        ip_header(
            &mut headers[ETHERNET..],
            self.source.ip(),
            self.destination.ip(),
            6,
            64,
            20 + options + length,
        );
        self.tcp_header(&mut headers[transport..end]);
        let sum = checksum::pseudo_header(
            self.source.ip(),
            self.destination.ip(),
            6,
            20 + options + length,
        );
        let mut offload = Offload::default();
        let value = if guest.accepts().checksum {
            offload.checksum = Checksum::Partial {
                start: transport as u16,
                offset: 16,
            };
            offload.gso = segment_size.map(|size| Gso {
                kind: if v4 { GsoKind::Tcp4 } else { GsoKind::Tcp6 },
                size,
                ecn: false,
            });
            checksum::fold(sum)
        } else {
            checksum::finish(sum, &[&headers[transport..end], payload[0], payload[1]])
        };
        headers[transport + 16..transport + 18].copy_from_slice(&value.to_be_bytes());
        let parts: &[&[u8]] = match (payload[0].is_empty(), payload[1].is_empty()) {
            (true, _) => &[&headers[..end]],
            (_, true) => &[&headers[..end], payload[0]],
            _ => &[&headers[..end], payload[0], payload[1]],
        };
        guest.deliver(&Frame { offload, parts })
    }

    fn tcp_header(&self, bytes: &mut [u8]) {
        bytes[0..2].copy_from_slice(&self.source.port().to_be_bytes());
        bytes[2..4].copy_from_slice(&self.destination.port().to_be_bytes());
        bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.acknowledgement.to_be_bytes());
        bytes[12] = (bytes.len() as u8 / 4) << 4;
        bytes[13] = self.flags;
        bytes[14..16].copy_from_slice(&self.window.to_be_bytes());
        let mut at = 20;
        if let Some(mss) = self.mss {
            let [high, low] = mss.to_be_bytes();
            bytes[at..at + 4].copy_from_slice(&[2, 4, high, low]);
            at += 4;
        }
        if let Some(shift) = self.window_scale {
            bytes[at..at + 4].copy_from_slice(&[1, 3, 3, shift]);
        }
    }
}

/// What the guest sent, in host order.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    pub mac: [u8; 6],
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
    pub mss: Option<u16>,
    pub window_scale: Option<u8>,
    pub payload: &'a [u8],
}

impl Received<'_> {
    pub fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Sequence numbers that it takes up.
    pub fn length(&self) -> u32 {
        self.payload.len() as u32 + u32::from(self.has(SYN)) + u32::from(self.has(FIN))
    }
}
