//! One TCP connection: the guest's on one side (RFC 9293, 7323, 6298), a socket of the host's on the other.
//!
//! The wire to the guest neither reorders nor loses what it took, so what comes out of order is dropped and asked for
//! again, and what is lost (the guest has no room) is sent again from there on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::ring::Ring;
use super::segment::{ACK, FIN, PSH, RST, Received, SYN, Segment};
use crate::user::watch::Watched;
use crate::user::wire::{Io, MTU};

/// Our window scale: windows up to 512 KiB.
const SHIFT: u8 = 3;
/// The largest segment that stands for many: what IPv4's length allows, with the headers.
const LARGEST: usize = 65535 - 60 - 20;
/// Bytes read from the host at once, so that others have their turn.
const TURN: usize = 256 << 10;
/// Retransmission time-outs.
const RTO_FIRST: Duration = Duration::from_millis(400);
const RTO_LEAST: Duration = Duration::from_millis(200);
const RTO_MOST: Duration = Duration::from_secs(8);
const TRIES: u32 = 12;
/// How long a connection may take to come about.
const OPENING: Duration = Duration::from_secs(30);
/// How long one may be half closed and silent, and how long open and silent (RFC 5382, REQ-5).
const HALF_CLOSED: Duration = Duration::from_secs(600);
const SILENT: Duration = Duration::from_secs(2 * 3600 + 240);

/// The two ends as the guest sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub guest: SocketAddr,
    pub remote: SocketAddr,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The guest wants it; the host is connecting.
    Connecting,
    /// The host is connected; our SYN, ACK is on its way.
    SynReceived,
    /// The host has it; our SYN is on its way.
    SynSent,
    Open,
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Keep,
    /// Over.
    Close,
}

/// A connection.
pub struct Flow {
    pub key: Key,
    pub phase: Phase,
    mac: [u8; 6],
    socket: Watched<OwnedFd>,
    /// Bytes that may wait in either direction.
    pub limit: usize,

    // To the guest. `una`, `nxt`, `max`: acknowledged, next to send, highest sent.
    una: u32,
    nxt: u32,
    max: u32,
    window: u32,
    shift: u8,
    scaled: bool,
    mss: usize,
    /// Bytes from `una` on.
    out: Ring,
    host_eof: bool,
    fin_acked: bool,

    // From the guest.
    initial: u32,
    rcv: u32,
    /// The right edge of the window that the guest knows of.
    edge: u32,
    /// What the host has not taken.
    inp: Ring,
    guest_fin: bool,
    shut: bool,
    pub ack_due: bool,

    deadline: Option<Instant>,
    rto: Duration,
    srtt: Option<(Duration, Duration)>,
    timing: Option<(u32, Instant)>,
    tries: u32,
    duplicates: u32,
    /// Duplicates up to here are of what was sent again already.
    recover: u32,
    begun: Instant,
    /// When anything got on.
    pub progress: Instant,
}

fn before(a: u32, b: u32) -> bool {
    (a.wrapping_sub(b) as i32) < 0
}

impl Flow {
    fn new(io: &Io<'_>, key: Key, socket: Watched<OwnedFd>, phase: Phase) -> Flow {
        let mut seed = [0; 4];
        // Without randomness a sequence number can be guessed, by the host's own programs only.
        let _ = getrandom::fill(&mut seed);
        let initial = u32::from_le_bytes(seed);
        Flow {
            key,
            phase,
            mac: [0; 6],
            socket,
            limit: 64 << 10,
            una: initial,
            nxt: initial,
            max: initial,
            window: 0,
            shift: 0,
            scaled: false,
            mss: 536,
            out: Ring::default(),
            host_eof: false,
            fin_acked: false,
            initial: 0,
            rcv: 0,
            edge: 0,
            inp: Ring::default(),
            guest_fin: false,
            shut: false,
            ack_due: false,
            deadline: None,
            rto: RTO_FIRST,
            srtt: None,
            timing: None,
            tries: 0,
            duplicates: 0,
            recover: initial,
            begun: io.now,
            progress: io.now,
        }
    }

    /// The guest's SYN came, and the host is connecting to where it leads.
    pub fn outgoing(io: &Io<'_>, key: Key, socket: Watched<OwnedFd>, syn: &Received<'_>) -> Flow {
        let mut flow = Flow::new(io, key, socket, Phase::Connecting);
        flow.mac = syn.mac;
        flow.options(syn);
        flow.socket.want(false, true);
        flow
    }

    /// The host accepted a connection for the guest.
    pub fn incoming(io: &Io<'_>, key: Key, socket: Watched<OwnedFd>) -> Flow {
        let mut flow = Flow::new(io, key, socket, Phase::SynSent);
        flow.scaled = true;
        flow.deadline = Some(io.now);
        flow
    }

    /// Bytes of memory.
    pub fn memory(&self) -> usize {
        self.out.capacity() + self.inp.capacity()
    }

    fn options(&mut self, syn: &Received<'_>) {
        self.initial = syn.sequence;
        self.rcv = syn.sequence.wrapping_add(1);
        self.edge = self.rcv;
        let most = MTU - if self.key.guest.is_ipv4() { 40 } else { 60 };
        self.mss = usize::from(syn.mss.unwrap_or(536)).clamp(88, most);
        self.scaled = syn.window_scale.is_some();
        self.shift = syn.window_scale.unwrap_or(0).min(14);
        self.window = syn.window.into();
    }

    fn header(&self, sequence: u32, flags: u8) -> Segment {
        Segment {
            mac: self.mac,
            source: self.key.remote,
            destination: self.key.guest,
            sequence,
            acknowledgement: if flags & ACK != 0 { self.rcv } else { 0 },
            flags,
            window: 0,
            mss: None,
            window_scale: None,
        }
    }

    /// Sets the window to what there is room for; a window that was given is never taken back.
    fn offer(&mut self, segment: &mut Segment) {
        let shift = if self.scaled { SHIFT } else { 0 };
        let free = self.limit.saturating_sub(self.inp.len()) as u32;
        let given = self.edge.wrapping_sub(self.rcv);
        let most = 0xffff << shift;
        let room = free.max(given).min(most) >> shift;
        segment.window = room as u16;
        let edge = self.rcv.wrapping_add(room << shift);
        if before(self.edge, edge) {
            self.edge = edge;
        }
    }

    /// Sends our SYN, with ACK if the guest's came.
    fn send_syn(&mut self, io: &mut Io<'_>) {
        if self.phase == Phase::SynSent {
            match io.resolve(self.key.guest.ip()) {
                Some(mac) => self.mac = mac,
                None => return self.arm(io.now),
            }
        }
        let flags = if self.phase == Phase::SynSent {
            SYN
        } else {
            SYN | ACK
        };
        let mut segment = self.header(self.una, flags);
        let most = MTU - if self.key.guest.is_ipv4() { 40 } else { 60 };
        segment.mss = Some(most as u16);
        segment.window_scale = self.scaled.then_some(SHIFT);
        // The window of a SYN is not scaled (RFC 7323, 2.2).
        segment.window = 0xffff;
        self.edge = self.rcv.wrapping_add(0xffff);
        segment.send(io.guest, [&[]; 2], None);
        self.nxt = self.una.wrapping_add(1);
        self.max = self.nxt;
        self.arm(io.now);
    }

    fn arm(&mut self, now: Instant) {
        self.deadline = Some(now + self.rto);
    }

    /// Tells the guest what has come, if it was not told.
    pub fn acknowledge(&mut self, io: &mut Io<'_>) {
        if !std::mem::take(&mut self.ack_due) || self.phase == Phase::Connecting {
            return;
        }
        let mut segment = self.header(self.nxt, ACK);
        self.offer(&mut segment);
        if !segment.send(io.guest, [&[]; 2], None) {
            self.ack_due = true;
        }
    }

    /// Tells the guest that it is over.
    pub fn reset_guest(&mut self, io: &mut Io<'_>) {
        let segment = match self.phase {
            Phase::SynSent => self.header(self.nxt, RST),
            _ => self.header(self.nxt, RST | ACK),
        };
        if self.phase != Phase::SynSent || self.mac != [0; 6] {
            segment.send(io.guest, [&[]; 2], None);
        }
    }

    /// Makes the host tell its peer that it is over.
    fn reset_host(&mut self) {
        let _ = rustix::net::sockopt::set_socket_linger(&*self.socket, Some(Duration::ZERO));
    }

    /// Unsent data, or an end of data, waits for room.
    pub fn has_output(&self) -> bool {
        let sent = self.nxt.wrapping_sub(self.una) as usize;
        self.phase == Phase::Open
            && (self.out.len() > sent || (self.host_eof && sent == self.out.len()))
            && !self.fin_acked
    }

    /// A segment of the guest's.
    pub fn segment(&mut self, io: &mut Io<'_>, seg: &Received<'_>) -> Verdict {
        if seg.has(RST) {
            return self.reset_by_guest(io, seg);
        }
        match self.phase {
            // It asks again; the host is at it.
            Phase::Connecting => return Verdict::Keep,
            Phase::SynSent => return self.answered(io, seg),
            Phase::SynReceived if seg.has(SYN) && seg.sequence == self.initial => {
                self.send_syn(io);
                return Verdict::Keep;
            }
            _ if seg.has(SYN) => {
                // RFC 5961, 4.2.
                self.ack_due = true;
                return Verdict::Keep;
            }
            Phase::SynReceived | Phase::Open => {}
        }
        if !seg.has(ACK) {
            return Verdict::Keep;
        }
        if before(self.max, seg.acknowledgement) {
            self.ack_due = true;
            return Verdict::Keep;
        }
        if self.phase == Phase::SynReceived {
            if seg.acknowledgement != self.nxt {
                return Verdict::Keep;
            }
            self.opened(io, seg);
        }
        self.mac = seg.mac;
        self.acknowledged(io, seg);
        if self.data(io, seg) == Verdict::Close {
            return Verdict::Close;
        }
        self.push(io);
        self.settle()
    }

    fn reset_by_guest(&mut self, io: &Io<'_>, seg: &Received<'_>) -> Verdict {
        let valid = match self.phase {
            Phase::SynSent => seg.has(ACK) && seg.acknowledgement == self.nxt,
            Phase::Connecting => seg.sequence == self.rcv || seg.sequence == self.initial,
            // RFC 5961, 3.2, but anywhere in the window: nobody else is on this wire.
            _ => !before(seg.sequence, self.rcv) && !before(self.edge, seg.sequence),
        };
        if !valid {
            return Verdict::Keep;
        }
        tracing::trace!(?self.key, age = ?io.now.saturating_duration_since(self.begun), "reset by the guest");
        self.reset_host();
        Verdict::Close
    }

    /// The guest's answer to our SYN.
    fn answered(&mut self, io: &mut Io<'_>, seg: &Received<'_>) -> Verdict {
        if !seg.has(ACK) || seg.acknowledgement != self.nxt || !seg.has(SYN) {
            return Verdict::Keep;
        }
        self.options(seg);
        self.mac = seg.mac;
        self.edge = self.rcv.wrapping_add(0xffff);
        self.opened(io, seg);
        self.ack_due = true;
        Verdict::Keep
    }

    fn opened(&mut self, io: &Io<'_>, seg: &Received<'_>) {
        self.phase = Phase::Open;
        self.una = seg.acknowledgement;
        self.deadline = None;
        self.tries = 0;
        self.rto = RTO_FIRST;
        self.progress = io.now;
        // The window of a SYN is not scaled.
        let shift = if seg.has(SYN) { 0 } else { self.shift };
        self.window = u32::from(seg.window) << shift;
        self.want();
    }

    /// What the guest acknowledges, and how much it takes.
    fn acknowledged(&mut self, io: &mut Io<'_>, seg: &Received<'_>) {
        let ack = seg.acknowledgement;
        if before(ack, self.una) {
            return;
        }
        let window = u32::from(seg.window) << self.shift;
        let count = ack.wrapping_sub(self.una);
        if count > 0 {
            let data = (count as usize).min(self.out.len());
            self.fin_acked |= count as usize > data;
            self.out.consume(data);
            self.una = ack;
            if before(self.nxt, ack) {
                self.nxt = ack;
            }
            (self.tries, self.duplicates) = (0, 0);
            self.progress = io.now;
            if let Some((sequence, at)) = self.timing
                && !before(ack, sequence)
            {
                self.measured(io.now.saturating_duration_since(at));
                self.timing = None;
            }
            self.deadline = None;
            if self.nxt != self.una {
                self.arm(io.now);
            }
        } else if seg.length() == 0 && window == self.window && self.nxt != self.una {
            self.duplicates += 1;
            if self.duplicates == 3 && !before(self.una, self.recover) {
                self.again();
            }
        }
        self.window = window;
    }

    /// Goes back to what was not acknowledged.
    fn again(&mut self) {
        self.recover = self.max;
        self.nxt = self.una;
        self.timing = None;
        self.duplicates = 0;
    }

    /// RFC 6298, 2.
    fn measured(&mut self, rtt: Duration) {
        let (srtt, var) = match self.srtt {
            None => (rtt, rtt / 2),
            Some((srtt, var)) => {
                let difference = srtt.abs_diff(rtt);
                ((srtt * 7 + rtt) / 8, (var * 3 + difference) / 4)
            }
        };
        self.srtt = Some((srtt, var));
        self.rto = (srtt + var * 4).clamp(RTO_LEAST, RTO_MOST);
    }

    /// Takes the segment's data and the end of it.
    fn data(&mut self, io: &mut Io<'_>, seg: &Received<'_>) -> Verdict {
        if seg.length() == 0 {
            // A keep-alive asks about what was acknowledged long ago (RFC 9293, 3.8.4).
            self.ack_due |= before(seg.sequence, self.rcv);
            return Verdict::Keep;
        }
        self.ack_due = true;
        let skip = self.rcv.wrapping_sub(seg.sequence) as i32;
        if skip < 0 || skip as u32 > seg.length() || self.guest_fin {
            return Verdict::Keep;
        }
        let payload = seg.payload.get(skip as usize..).unwrap_or(&[]);
        let room = self.edge.wrapping_sub(self.rcv) as usize;
        let taken = &payload[..payload.len().min(room)];
        self.rcv = self.rcv.wrapping_add(taken.len() as u32);
        if !taken.is_empty() {
            self.progress = io.now;
        }
        if self.write_host(taken).is_err() {
            self.reset_guest(io);
            return Verdict::Close;
        }
        let fin_is_next = seg.sequence.wrapping_add(seg.payload.len() as u32) == self.rcv;
        if seg.has(FIN) && taken.len() == payload.len() && fin_is_next {
            self.rcv = self.rcv.wrapping_add(1);
            self.guest_fin = true;
            self.progress = io.now;
            self.shut_if_done();
        }
        Verdict::Keep
    }

    /// Writes to the host; what it does not take waits.
    fn write_host(&mut self, mut bytes: &[u8]) -> Result<(), Errno> {
        if self.inp.is_empty() {
            while !bytes.is_empty() {
                match rustix::io::write(&*self.socket, bytes) {
                    Ok(n) => bytes = &bytes[n..],
                    Err(Errno::INTR) => {}
                    Err(Errno::AGAIN) => break,
                    Err(error) => return Err(error),
                }
            }
        }
        if !bytes.is_empty() {
            self.inp.extend(bytes);
            self.want();
        }
        Ok(())
    }

    fn shut_if_done(&mut self) {
        if self.guest_fin && self.inp.is_empty() && !self.shut {
            self.shut = true;
            let _ = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Write);
        }
    }

    /// Asks the poller for what matters now.
    fn want(&mut self) {
        let readable = self.phase == Phase::Open && !self.host_eof && self.out.len() < self.limit;
        let writable = !self.inp.is_empty() || self.phase == Phase::Connecting;
        self.socket.want(readable, writable);
    }

    /// Whether both ends are done.
    fn settle(&mut self) -> Verdict {
        self.want();
        if self.fin_acked && self.guest_fin && self.inp.is_empty() && !self.ack_due {
            Verdict::Close
        } else {
            Verdict::Keep
        }
    }

    /// As [`Flow::settle`], after acknowledgements went.
    pub fn settled(&mut self) -> Verdict {
        self.settle()
    }

    /// The host's socket has something.
    pub fn event(&mut self, io: &mut Io<'_>, readable: bool, writable: bool) -> Verdict {
        if self.phase == Phase::Connecting {
            return if writable || readable {
                self.connected(io)
            } else {
                Verdict::Keep
            };
        }
        if writable && !self.inp.is_empty() && self.drain(io) == Verdict::Close {
            return Verdict::Close;
        }
        if readable && self.fill(io) == Verdict::Close {
            return Verdict::Close;
        }
        self.push(io);
        self.settle()
    }

    /// The host's attempt to connect is over.
    fn connected(&mut self, io: &mut Io<'_>) -> Verdict {
        match rustix::net::sockopt::socket_error(&*self.socket) {
            Ok(Ok(())) => {
                self.established(io);
                Verdict::Keep
            }
            Ok(Err(error)) | Err(error) => {
                self.refuse(io, error);
                Verdict::Close
            }
        }
    }

    /// The host is connected.
    pub fn established(&mut self, io: &mut Io<'_>) {
        self.phase = Phase::SynReceived;
        self.socket.want(false, false);
        self.send_syn(io);
    }

    /// The host could not connect.
    fn refuse(&mut self, io: &mut Io<'_>, error: Errno) {
        tracing::debug!(?self.key, %error, "cannot connect");
        if error != Errno::TIMEDOUT {
            self.reset_guest(io);
        }
    }

    /// Writes what waited for the host.
    fn drain(&mut self, io: &mut Io<'_>) -> Verdict {
        let before_drain = self.inp.len();
        while !self.inp.is_empty() {
            let [piece, _] = self.inp.slices(0, self.inp.len());
            match rustix::io::write(&*self.socket, piece) {
                Ok(n) => self.inp.consume(n),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => {
                    self.reset_guest(io);
                    return Verdict::Close;
                }
            }
        }
        if self.inp.len() < before_drain {
            self.progress = io.now;
        }
        self.shut_if_done();
        // A window that grew much, or from nothing, is worth a segment (RFC 9293, 3.8.6.2.2).
        let given = self.edge.wrapping_sub(self.rcv) as usize;
        let free = self.limit.saturating_sub(self.inp.len());
        if free > given + self.limit / 2 || (given < self.mss && free >= self.mss) {
            self.ack_due = true;
            self.acknowledge(io);
        }
        Verdict::Keep
    }

    /// Reads what the host has.
    fn fill(&mut self, io: &mut Io<'_>) -> Verdict {
        let mut left = TURN;
        while !self.host_eof && left > 0 {
            let room = self.limit.saturating_sub(self.out.len()).min(left);
            if room == 0 {
                break;
            }
            match self.out.read_from(&*self.socket, room.min(64 << 10)) {
                Ok(0) => self.host_eof = true,
                Ok(n) => {
                    left -= n;
                    self.progress = io.now;
                    // As many bytes as it had: there is no more, and asking costs.
                    if n < room.min(64 << 10) {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.reset_guest(io);
                    return Verdict::Close;
                }
            }
        }
        Verdict::Keep
    }

    /// Sends the guest what its window and ours allow.
    pub fn push(&mut self, io: &mut Io<'_>) {
        if self.phase != Phase::Open || self.fin_acked {
            return;
        }
        let accepts = io.guest.accepts();
        let large = accepts.checksum
            && if self.key.guest.is_ipv4() {
                accepts.tso4
            } else {
                accepts.tso6
            };
        loop {
            let sent = self.nxt.wrapping_sub(self.una) as usize;
            if sent > self.out.len() {
                return; // The end is on its way.
            }
            let available = self.out.len() - sent;
            let window = (self.window as usize).saturating_sub(sent);
            let mut n = available.min(window).min(LARGEST);
            // Small segments wait for room for large ones, unless nothing else would tell of room.
            if n < self.mss && n < available && sent > 0 {
                return;
            }
            if n > self.mss && !large {
                n = self.mss;
            }
            let fin = self.host_eof && n == available;
            if n == 0 && !fin {
                if available > 0 && self.deadline.is_none() {
                    self.arm(io.now); // Until the window opens, ask (RFC 9293, 3.8.6.1).
                }
                return;
            }
            if !self.emit(io, sent, n, fin) {
                return;
            }
            if fin {
                return;
            }
        }
    }

    /// Sends `n` bytes that lie `offset` behind what is acknowledged. False: there was no room.
    fn emit(&mut self, io: &mut Io<'_>, offset: usize, n: usize, fin: bool) -> bool {
        let mut flags = ACK;
        if fin {
            flags |= FIN;
        }
        if offset + n == self.out.len() && n > 0 {
            flags |= PSH;
        }
        let sequence = self.una.wrapping_add(offset as u32);
        let mut segment = self.header(sequence, flags);
        self.offer(&mut segment);
        let size = (n > self.mss).then_some(self.mss as u16);
        if !segment.send(io.guest, self.out.slices(offset, n), size) {
            return false;
        }
        self.ack_due = false;
        let end = sequence.wrapping_add(n as u32).wrapping_add(fin.into());
        self.nxt = end;
        if before(self.max, end) {
            self.max = end;
            if self.timing.is_none() {
                self.timing = Some((end, io.now));
            }
        }
        if self.deadline.is_none() {
            self.arm(io.now);
        }
        true
    }

    /// Time passes.
    pub fn tick(&mut self, io: &mut Io<'_>) -> Verdict {
        let silent = io.now.saturating_duration_since(self.progress);
        let limit = match self.phase {
            Phase::Open if self.guest_fin || self.host_eof => HALF_CLOSED,
            Phase::Open => SILENT,
            _ => OPENING,
        };
        if silent > limit {
            self.reset_guest(io);
            self.reset_host();
            return Verdict::Close;
        }
        if self.out.capacity() > 64 << 10 || self.inp.capacity() > 64 << 10 {
            self.out.trim();
            self.inp.trim();
        }
        if self.deadline.is_none_or(|deadline| deadline > io.now) {
            return Verdict::Keep;
        }
        match self.phase {
            Phase::Connecting => self.deadline = None,
            Phase::SynSent | Phase::SynReceived => {
                self.backoff();
                self.send_syn(io);
            }
            Phase::Open => return self.expired(io),
        }
        Verdict::Keep
    }

    fn backoff(&mut self) {
        self.tries += 1;
        self.rto = (self.rto * 2).min(RTO_MOST);
    }

    /// Nothing was acknowledged in time, or the window stays shut.
    fn expired(&mut self, io: &mut Io<'_>) -> Verdict {
        self.deadline = None;
        if self.window == 0 && !self.out.is_empty() {
            // A byte beyond the window makes the guest say what its window is.
            self.again();
            self.backoff();
            let fits = self.emit(io, 0, 1, false);
            if fits {
                self.nxt = self.una;
            }
            self.arm(io.now);
            return Verdict::Keep;
        }
        if self.nxt == self.una && !self.has_output() {
            return Verdict::Keep;
        }
        if self.tries >= TRIES {
            self.reset_guest(io);
            self.reset_host();
            return Verdict::Close;
        }
        self.again();
        let before_push = self.nxt;
        self.push(io);
        if self.nxt == before_push {
            // The guest's NIC has no room: that is no loss.
            self.arm(io.now);
        } else {
            self.backoff();
            self.arm(io.now);
        }
        Verdict::Keep
    }

    /// When [`Flow::tick`] has something to do.
    pub fn has_deadline(&self) -> bool {
        self.deadline.is_some()
    }
}
