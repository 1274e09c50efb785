//! IP fragments (RFC 791; RFC 8200, 4.5), in bounded memory.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use smoltcp::wire::{IpProtocol, Ipv4Packet};

use super::wire::{Io, MTU, ip_header};

/// Datagrams being put together at a time.
const DATAGRAMS: usize = 16;
/// Fragments of one at most.
const FRAGMENTS: usize = 128;
/// How long the rest may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which datagram a fragment is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub protocol: u8,
    pub ident: u32,
}

/// A fragment.
#[derive(Clone, Copy, Debug)]
pub struct Fragment<'a> {
    pub key: Key,
    /// Bytes.
    pub offset: usize,
    pub more: bool,
    pub data: &'a [u8],
}

/// Datagrams of which parts are missing.
#[derive(Default)]
pub struct Reassembly {
    datagrams: Vec<Datagram>,
}

struct Datagram {
    key: Key,
    begun: Instant,
    data: Vec<u8>,
    /// Covered ranges, sorted.
    have: Vec<(usize, usize)>,
    total: Option<usize>,
}

impl Reassembly {
    /// Takes a fragment; gives the payload once it is whole. Overlaps and nonsense end a datagram (RFC 5722).
    pub fn add(&mut self, fragment: &Fragment<'_>, now: Instant) -> Option<Vec<u8>> {
        self.datagrams
            .retain(|d| now.saturating_duration_since(d.begun) < PATIENCE);
        let (start, end) = (fragment.offset, fragment.offset + fragment.data.len());
        let at = self.datagrams.iter().position(|d| d.key == fragment.key);
        let bad = end > 65535
            || fragment.data.is_empty()
            || (fragment.more && !fragment.data.len().is_multiple_of(8));
        if bad {
            if let Some(at) = at {
                self.datagrams.swap_remove(at);
            }
            return None;
        }
        let at = at.unwrap_or_else(|| {
            if self.datagrams.len() == DATAGRAMS {
                let oldest = self
                    .datagrams
                    .iter()
                    .enumerate()
                    .min_by_key(|(_, d)| d.begun);
                if let Some((oldest, _)) = oldest {
                    self.datagrams.swap_remove(oldest);
                }
            }
            self.datagrams.push(Datagram {
                key: fragment.key,
                begun: now,
                data: Vec::new(),
                have: Vec::new(),
                total: None,
            });
            self.datagrams.len() - 1
        });
        let datagram = &mut self.datagrams[at];
        match datagram.place(fragment, start, end) {
            Some(true) => Some(self.datagrams.swap_remove(at).data),
            Some(false) => None,
            None => {
                self.datagrams.swap_remove(at);
                None
            }
        }
    }

    /// Bytes held.
    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.datagrams.iter().map(|d| d.data.capacity()).sum()
    }
}

impl Datagram {
    /// Whether it is whole now; nothing if the fragment does not fit.
    fn place(&mut self, fragment: &Fragment<'_>, start: usize, end: usize) -> Option<bool> {
        // The same once more is no attack, just a retransmission.
        if self.have.contains(&(start, end)) && self.data[start..end] == *fragment.data {
            return Some(false);
        }
        let overlaps = self.have.iter().any(|&(s, e)| start < e && s < end);
        let past = self.total.is_some_and(|total| end > total);
        if overlaps || past || self.have.len() == FRAGMENTS {
            return None;
        }
        if !fragment.more {
            if self.total.is_some() || self.have.iter().any(|&(_, e)| e > end) {
                return None;
            }
            self.total = Some(end);
        }
        if self.data.len() < end {
            self.data.resize(end, 0);
        }
        self.data[start..end].copy_from_slice(fragment.data);
        self.have.push((start, end));
        let covered: usize = self.have.iter().map(|(s, e)| e - s).sum();
        Some(self.total == Some(covered))
    }
}

/// Cuts a payload into IP fragments, headers included.
pub fn split(
    io: &mut Io<'_>,
    source: IpAddr,
    destination: IpAddr,
    protocol: u8,
    payload: &[u8],
) -> Vec<Vec<u8>> {
    let ident = io.wire.ident();
    let header = if source.is_ipv4() { 20 } else { 48 };
    let size = (MTU - header) & !7;
    let pieces = payload.chunks(size);
    let last = pieces.len() - 1;
    let cut = |(i, piece): (usize, &[u8])| {
        let offset = i * size;
        let mut packet = vec![0; header];
        if source.is_ipv4() {
            ip_header(&mut packet, source, destination, protocol, 64, piece.len());
            let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
            ip.set_dont_frag(false);
            ip.set_ident(ident);
            ip.set_more_frags(i < last);
            ip.set_frag_offset(offset as u16);
            ip.fill_checksum();
        } else {
            let next = u8::from(IpProtocol::Ipv6Frag);
            ip_header(&mut packet, source, destination, next, 64, piece.len() + 8);
            packet[40] = protocol;
            let field = offset as u16 | u16::from(i < last);
            packet[42..44].copy_from_slice(&field.to_be_bytes());
            packet[44..48].copy_from_slice(&u32::from(ident).to_be_bytes());
        }
        packet.extend_from_slice(piece);
        packet
    };
    pieces.enumerate().map(cut).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(ident: u32) -> Key {
        Key {
            source: [10, 0, 2, 15].into(),
            destination: [10, 0, 2, 2].into(),
            protocol: 17,
            ident,
        }
    }

    proptest! {
        #[test]
        fn any_order_makes_the_datagram(length in 1usize..9000, seed: u64) {
            let data: Vec<u8> = (0..length).map(|i| (i * 7) as u8).collect();
            let mut pieces: Vec<_> = data.chunks(1480).enumerate().collect();
            let last = pieces.len() - 1;
            let mut state = seed;
            for i in (1..pieces.len()).rev() {
                state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
                pieces.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut reassembly = Reassembly::default();
            let now = Instant::now();
            let count = pieces.len();
            for (n, (i, piece)) in pieces.into_iter().enumerate() {
                let fragment = Fragment { key: key(1), offset: i * 1480, more: i != last, data: piece };
                let whole = reassembly.add(&fragment, now);
                prop_assert_eq!(whole.is_some(), n + 1 == count);
                if let Some(whole) = whole {
                    prop_assert_eq!(&whole, &data);
                }
            }
        }

        #[test]
        fn nonsense_is_bounded(fragments in proptest::collection::vec((0u32..40, 0usize..9000, any::<bool>(), 0usize..1500), 0..300)) {
            let mut reassembly = Reassembly::default();
            let now = Instant::now();
            for (ident, offset, more, length) in fragments {
                let data = vec![1; length];
                reassembly.add(&Fragment { key: key(ident), offset: offset * 8, more, data: &data }, now);
                prop_assert!(reassembly.held() <= DATAGRAMS * 128 * 1024);
            }
        }
    }
}
