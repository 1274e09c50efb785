//! What a USB device is to a host controller.

use std::sync::Arc;

use device::Dma;
use serde::{Deserialize, Serialize};

/// The speed of a link. The numbers are xHCI's default Protocol Speed IDs (xHCI 1.2, 7.2.2.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Speed {
    /// 12 Mbit/s.
    Full = 1,
    /// 1.5 Mbit/s.
    Low = 2,
    /// 480 Mbit/s.
    High = 3,
    /// 5 Gbit/s.
    Super = 4,
}

/// The two halves of a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bus {
    /// Low, full and high speed.
    Usb2,
    /// SuperSpeed.
    Usb3,
}

/// The eight bytes that begin a control transfer (USB 2.0, 9.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setup {
    /// `bmRequestType`.
    pub request_type: u8,
    /// `bRequest`.
    pub request: u8,
    /// `wValue`.
    pub value: u16,
    /// `wIndex`.
    pub index: u16,
    /// `wLength`.
    pub length: u16,
}

impl Setup {
    /// Out of the bytes on the wire.
    pub fn from_bytes(b: [u8; 8]) -> Setup {
        let word = |i: usize| u16::from_le_bytes([b[i], b[i + 1]]);
        Setup {
            request_type: b[0],
            request: b[1],
            value: word(2),
            index: word(4),
            length: word(6),
        }
    }

    /// Whether the data stage goes to the host.
    pub fn is_in(&self) -> bool {
        self.request_type & 0x80 != 0
    }
}

/// How a device answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The transfer is over. Data to the host that left room in the packet ended with a short packet.
    Done,
    /// Nothing (more) now. What was moved stays moved; the controller asks again, with the rest of the packet, after
    /// [`Notifier::ready`].
    Nak,
    /// The endpoint is halted, or the request is not supported.
    Stall,
}

/// A stretch of a transfer's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// In guest memory.
    Memory { address: u64, length: u32 },
    /// In the TRB itself: at most 8 bytes, to the device.
    Immediate { bytes: [u8; 8], length: u32 },
}

impl Piece {
    /// Bytes.
    pub fn length(&self) -> u32 {
        match *self {
            Piece::Memory { length, .. } | Piece::Immediate { length, .. } => length,
        }
    }
}

enum Place<'a> {
    Guest { dma: &'a Dma, pieces: &'a [Piece] },
    Host(&'a mut [u8]),
}

/// The data of a transfer: a device takes bytes from it or puts bytes into it, in order, straight from or to guest memory.
pub struct Packet<'a> {
    place: Place<'a>,
    length: u64,
    done: u64,
    /// The piece `done` lies in, and where it starts.
    piece: usize,
    start: u64,
    failed: bool,
}

impl<'a> Packet<'a> {
    /// Over pieces of guest memory, at most `limit` bytes of them, of which `done` are already moved.
    pub fn guest(dma: &'a Dma, pieces: &'a [Piece], limit: u64, done: u64) -> Packet<'a> {
        let length = pieces
            .iter()
            .map(|p| u64::from(p.length()))
            .sum::<u64>()
            .min(limit);
        let place = Place::Guest { dma, pieces };
        Packet {
            place,
            length,
            done: done.min(length),
            piece: 0,
            start: 0,
            failed: false,
        }
    }

    /// Over host memory.
    pub fn host(bytes: &'a mut [u8]) -> Packet<'a> {
        let length = bytes.len() as u64;
        Packet {
            place: Place::Host(bytes),
            length,
            done: 0,
            piece: 0,
            start: 0,
            failed: false,
        }
    }

    /// Bytes moved so far.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Bytes left.
    pub fn remaining(&self) -> u64 {
        self.length - self.done
    }

    /// Whether guest memory could not be reached.
    pub fn failed(&self) -> bool {
        self.failed
    }

    /// Gives data to the host: as much as there is room for. Returns how much that was.
    pub fn write(&mut self, from: &[u8]) -> usize {
        let n = self.remaining().min(from.len() as u64) as usize;
        let mut at = 0;
        while at < n {
            let (position, done) = (self.done as usize, &from[at..n]);
            let moved = match &mut self.place {
                Place::Host(bytes) => {
                    bytes[position..position + done.len()].copy_from_slice(done);
                    done.len()
                }
                Place::Guest { .. } => match self.span(n - at) {
                    Some((dma, Piece::Memory { address, length })) => {
                        let part = &done[..length as usize];
                        self.failed |= dma.write(address, part).is_err();
                        part.len()
                    }
                    // Data to the host has no place in a TRB.
                    Some((_, Piece::Immediate { length, .. })) => length as usize,
                    None => break,
                },
            };
            self.done += moved as u64;
            at += moved;
        }
        at
    }

    /// Takes data from the host: as much as there is and fits. Returns how much that was.
    pub fn read(&mut self, into: &mut [u8]) -> usize {
        let n = self.remaining().min(into.len() as u64) as usize;
        let mut at = 0;
        while at < n {
            let position = self.done as usize;
            let moved = match &mut self.place {
                Place::Host(bytes) => {
                    into[at..n].copy_from_slice(&bytes[position..position + n - at]);
                    n - at
                }
                Place::Guest { .. } => match self.span(n - at) {
                    Some((dma, Piece::Memory { address, length })) => {
                        let part = &mut into[at..at + length as usize];
                        self.failed |= dma.read(address, part).is_err();
                        part.len()
                    }
                    Some((_, Piece::Immediate { bytes, length })) => {
                        let length = length as usize;
                        into[at..at + length].copy_from_slice(&bytes[..length]);
                        length
                    }
                    None => break,
                },
            };
            self.done += moved as u64;
            at += moved;
        }
        at
    }

    /// The next contiguous stretch, at most `most` bytes and not empty.
    fn span(&mut self, most: usize) -> Option<(&'a Dma, Piece)> {
        let Place::Guest { dma, pieces } = self.place else {
            return None;
        };
        loop {
            let piece = pieces.get(self.piece)?;
            let end = self.start + u64::from(piece.length());
            if self.done >= end {
                self.piece += 1;
                self.start = end;
                continue;
            }
            let within = self.done - self.start;
            let length = (end - self.done).min(most as u64) as u32;
            let span = match *piece {
                Piece::Memory { address, .. } => Piece::Memory {
                    address: address.wrapping_add(within),
                    length,
                },
                Piece::Immediate { bytes, .. } => {
                    let (mut rest, within) = ([0; 8], (within as usize).min(8));
                    let length = (length as usize).min(8 - within);
                    rest[..length].copy_from_slice(&bytes[within..within + length]);
                    if length == 0 {
                        return None;
                    }
                    Piece::Immediate {
                        bytes: rest,
                        length: length as u32,
                    }
                }
            };
            return Some((dma, span));
        }
    }
}

/// What a device tells of its own accord.
pub trait Host: Send + Sync {
    /// The endpoint with this address (0x81: endpoint 1 IN; 0: the control endpoint) may have something new to say
    /// to a transfer it answered with [`Outcome::Nak`].
    fn ready(&self, endpoint: u8);

    /// Remote wake-up: resumes a suspended link. The host has allowed it.
    fn wake(&self);
}

/// A device's way to its host controller. May be called from any thread, also within a call to the device.
#[derive(Clone, Default)]
pub struct Notifier {
    host: Option<Arc<dyn Host>>,
}

impl Notifier {
    /// To `host`.
    pub fn new(host: Arc<dyn Host>) -> Notifier {
        Notifier { host: Some(host) }
    }

    /// See [`Host::ready`].
    pub fn ready(&self, endpoint: u8) {
        if let Some(host) = &self.host {
            host.ready(endpoint);
        }
    }

    /// See [`Host::wake`].
    pub fn wake(&self) {
        if let Some(host) = &self.host {
            host.wake();
        }
    }
}

/// A USB device.
///
/// The controller calls it on its own thread, one call at a time for transfers, and holds none of its locks that
/// [`Notifier`] takes. No call waits for the host's I/O: what takes long is answered with [`Outcome::Nak`] and a notification.
pub trait UsbDevice: Send + Sync {
    /// A short name for logs and errors.
    fn name(&self) -> &str;

    /// The speed it runs at on this half of a connector, if at all.
    fn speed(&self, bus: Bus) -> Option<Speed>;

    /// Plugged in. The link runs at `speed`, one the device named.
    fn connect(&self, speed: Speed, notifier: Notifier);

    /// Pulled out.
    fn disconnect(&self);

    /// Power was cycled or the machine was reset: power-on state, still connected. Transfers in flight are forgotten.
    fn power_cycle(&self);

    /// The bus was reset: the Default state of USB 2.0, 9.1. Transfers in flight are forgotten.
    fn bus_reset(&self);

    /// A control transfer to endpoint 0. The packet holds the data stage's data, or takes it; it is never longer than
    /// `setup.length`. `SET_ADDRESS` never arrives: the controller does that.
    fn control(&self, setup: Setup, data: &mut Packet<'_>) -> Outcome;

    /// A transfer on another endpoint, by its address. After [`Outcome::Nak`] the same transfer comes again, unless
    /// it was cancelled: then any other may.
    fn transfer(&self, endpoint: u8, data: &mut Packet<'_>) -> Outcome;

    /// The machine ends: write back what the host must keep. May wait.
    fn shutdown(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Ram;

    #[test]
    fn packets_cross_pieces_and_remember_how_far_they_came() {
        let ram = Ram::new(&[(0x4000_0000, 0x10000)]).unwrap();
        let dma = ram.dma();
        let pieces = [
            Piece::Memory {
                address: 0x4000_0000,
                length: 3,
            },
            Piece::Memory {
                address: 0x4000_0100,
                length: 0,
            },
            Piece::Memory {
                address: 0x4000_0200,
                length: 4,
            },
        ];
        let mut packet = Packet::guest(&dma, &pieces, 100, 0);
        assert_eq!(packet.write(&[1, 2]), 2);
        let mut packet = Packet::guest(&dma, &pieces, 100, packet.done());
        assert_eq!(packet.write(&[3, 4, 5, 6, 7, 8]), 5);
        assert_eq!(packet.remaining(), 0);
        let mut all = [0; 9];
        assert_eq!(Packet::guest(&dma, &pieces, 6, 0).read(&mut all), 6);
        assert_eq!(all, [1, 2, 3, 4, 5, 6, 0, 0, 0]);

        let odd = [
            Piece::Immediate {
                bytes: [9, 8, 7, 0, 0, 0, 0, 0],
                length: 3,
            },
            Piece::Memory {
                address: 0,
                length: 2,
            },
        ];
        let mut packet = Packet::guest(&dma, &odd, 100, 1);
        assert_eq!(packet.read(&mut all[..2]), 2);
        assert_eq!(all[..2], [8, 7]);
        assert!(!packet.failed());
        assert_eq!(packet.read(&mut all), 2);
        assert!(packet.failed());
    }
}
