//! Ethernet frames on their way, with what their sender left for others to do.

/// Bytes of the largest frame: what IP's 16-bit length allows, behind an Ethernet header with a VLAN tag.
pub const MAX_FRAME: usize = 65535 + 18;

/// What a frame's sender did not do. The meaning is that of virtio's `virtio_net_hdr` (VIRTIO 1.2, 5.1.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// The transport checksum.
    pub checksum: Checksum,
    /// The frame stands for many segments.
    pub gso: Option<Gso>,
}

/// What is known of the transport checksum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// It is as it is.
    #[default]
    Complete,
    /// It is known to be right.
    Valid,
    /// At `start + offset` is the sum of the pseudo header; what is to be there covers everything from `start` on.
    Partial { start: u16, offset: u16 },
}

/// Generic segmentation offload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    pub kind: GsoKind,
    /// Bytes of payload in a segment.
    pub size: u16,
    /// TCP's congestion window reduced flag is in the first segment only (RFC 3168).
    pub ecn: bool,
}

/// What is segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GsoKind {
    Tcp4,
    Tcp6,
    /// UDP datagrams of one flow behind one header.
    Udp,
}

/// What a receiver takes unfinished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Accepts {
    /// Partial checksums.
    pub checksum: bool,
    pub tso4: bool,
    pub tso6: bool,
    /// TSO with ECN.
    pub ecn: bool,
    /// UDP segmentation.
    pub uso: bool,
}

impl Accepts {
    /// Everything.
    pub const ALL: Accepts = Accepts {
        checksum: true,
        tso4: true,
        tso6: true,
        ecn: true,
        uso: true,
    };

    /// Whether a frame with this offload can be handed over as it is.
    pub fn takes(&self, offload: &Offload) -> bool {
        let checksum = !matches!(offload.checksum, Checksum::Partial { .. }) || self.checksum;
        let gso = offload.gso.is_none_or(|gso| {
            (!gso.ecn || self.ecn)
                && match gso.kind {
                    GsoKind::Tcp4 => self.tso4,
                    GsoKind::Tcp6 => self.tso6,
                    GsoKind::Udp => self.uso,
                }
        });
        checksum && gso
    }
}

/// An Ethernet frame without its frame check sequence, in one or more pieces.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pub offload: Offload,
    /// Together the frame.
    pub parts: &'a [&'a [u8]],
}

impl<'a> Frame<'a> {
    /// A frame with nothing left to do.
    pub fn plain(parts: &'a [&'a [u8]]) -> Frame<'a> {
        Frame {
            offload: Offload::default(),
            parts,
        }
    }

    /// Bytes.
    pub fn length(&self) -> usize {
        self.parts.iter().map(|p| p.len()).sum()
    }

    /// The first bytes, as many as `into` takes: how many.
    pub fn peek(&self, into: &mut [u8]) -> usize {
        let mut at = 0;
        for part in self.parts {
            let n = part.len().min(into.len() - at);
            into[at..at + n].copy_from_slice(&part[..n]);
            at += n;
        }
        at
    }

    /// All of it in one piece: `scratch` is used if it is in several.
    pub fn contiguous<'b>(&'b self, scratch: &'b mut Vec<u8>) -> &'b [u8] {
        if let [only] = self.parts {
            return only;
        }
        scratch.clear();
        for part in self.parts {
            scratch.extend_from_slice(part);
        }
        scratch
    }

    /// A copy in one piece.
    pub fn to_vec(&self) -> Vec<u8> {
        self.parts.concat()
    }
}
