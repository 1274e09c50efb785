//! PL011 UART (Arm DDI 0183G), and thereby the SBSA generic UART.
//!
//! Sent characters go to the [`SerialOutput`] at once, so the transmit FIFO is always empty. As on QEMU's board the
//! enable bits of UARTCR do not gate the data paths: programs that never set them still print, and what is typed before
//! a driver has set up the line is kept rather than lost.

pub mod registers;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use device::serial::{SerialInput, SerialOutput};
use device::{Access, Clock, Device, Line, Mmio, Registers, Timer};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::primecell;
use registers::*;

/// What the board decides about a UART.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// Name for logs.
    pub name: String,
    /// Frequency of UARTCLK in Hz, which the divisors divide.
    pub clock: u32,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            name: "pl011".into(),
            clock: 24_000_000,
        }
    }
}

/// Everything a guest can observe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    receive: VecDeque<u8>,
    /// Places in `receive` of the characters that stand for a break, in order.
    breaks: VecDeque<usize>,
    /// The next character read carries the overrun flag.
    overrun: bool,
    rsr: u32,
    ilpr: u32,
    ibrd: u32,
    fbrd: u32,
    lcr_h: u32,
    cr: u32,
    ifls: u32,
    imsc: u32,
    /// UARTRIS. The modem lines' bits, and those that FIFO levels have set.
    ris: u32,
    dmacr: u32,
    /// Guest time at which the receive timeout is reached, if it runs.
    timeout: Option<u64>,
    /// [`SerialInput::receive`] took less than all and the back end waits to hear of room.
    starved: bool,
}

impl State {
    /// The state after power-on or reset (DDI 0183G, table 3-1).
    pub fn power_on(_: &Config) -> State {
        State {
            receive: VecDeque::new(),
            breaks: VecDeque::new(),
            overrun: false,
            rsr: 0,
            ilpr: 0,
            ibrd: 0,
            fbrd: 0,
            lcr_h: 0,
            cr: CR_TXE | CR_RXE,
            ifls: 0x12,
            imsc: 0,
            ris: 0,
            dmacr: 0,
            timeout: None,
            starved: false,
        }
    }

    /// Characters the receive side holds: a FIFO, or one register without it.
    fn depth(&self) -> usize {
        if self.lcr_h & LCR_H_FEN != 0 {
            FIFO_DEPTH
        } else {
            1
        }
    }

    /// Characters that raise the receive interrupt (UARTIFLS.RXIFLSEL).
    fn receive_trigger(&self) -> usize {
        if self.lcr_h & LCR_H_FEN == 0 {
            return 1;
        }
        match self.ifls >> 3 & 7 {
            0 => FIFO_DEPTH / 8,
            1 => FIFO_DEPTH / 4,
            2 => FIFO_DEPTH / 2,
            3 => FIFO_DEPTH * 3 / 4,
            _ => FIFO_DEPTH * 7 / 8,
        }
    }

    fn flags(&self) -> u32 {
        let mut flags = FR_TXFE;
        if self.receive.is_empty() {
            flags |= FR_RXFE;
        }
        if self.receive.len() >= self.depth() {
            flags |= FR_RXFF;
        }
        flags | self.modem_lines()
    }

    /// The modem inputs: inactive, or what the outputs are in loop-back mode (2.4.7).
    fn modem_lines(&self) -> u32 {
        if self.cr & CR_LBE == 0 {
            return 0;
        }
        [
            (CR_RTS, FR_CTS),
            (CR_DTR, FR_DSR),
            (CR_OUT1, FR_DCD),
            (CR_OUT2, FR_RI),
        ]
        .into_iter()
        .filter(|(output, _)| self.cr & output != 0)
        .fold(0, |lines, (_, input)| lines | input)
    }

    /// Nanoseconds of 32 bit periods, after which what waits in the FIFO interrupts (3.3.11, 2.8.3).
    fn timeout_length(&self, clock: u32) -> u64 {
        let divisor = u64::from(self.ibrd << 6 | self.fbrd);
        // 16 clocks a bit and divisors in 64ths. Kept to a range that no guest takes for a hang or for a storm.
        let length = 32 * 16 * divisor * 1_000_000_000 / 64 / u64::from(clock.max(1));
        length.clamp(20_000, 5_000_000)
    }

    fn put(&mut self, byte: u8, now: u64, clock: u32) {
        if self.receive.len() >= self.depth() {
            self.overrun = true;
            self.rsr |= RSR_OE;
            self.ris |= INT_OE;
            return;
        }
        self.receive.push_back(byte);
        if self.receive.len() >= self.receive_trigger() {
            self.ris |= INT_RX;
        }
        self.timeout = Some(now.saturating_add(self.timeout_length(clock)));
    }

    /// A break: a character of zeroes with a flag (DDI 0183G, 3.3.1: one is loaded for each). Without room it is lost.
    fn put_break(&mut self, now: u64, clock: u32) {
        let place = self.receive.len();
        if place < self.depth() {
            self.breaks.push_back(place);
            self.ris |= INT_BE;
        }
        self.put(0, now, clock);
    }

    fn take(&mut self, now: u64, clock: u32) -> u32 {
        let byte = self.receive.pop_front();
        let mut value = u32::from(byte.unwrap_or(0));
        let is_break = byte.is_some() && self.breaks.front() == Some(&0);
        if is_break {
            self.breaks.pop_front();
            value |= DR_BE;
        }
        // UARTRSR tells of the character that was read last, but for the overrun (3.3.2).
        self.rsr = self.rsr & !RSR_BE | if is_break { RSR_BE } else { 0 };
        if byte.is_some() {
            self.breaks.iter_mut().for_each(|place| *place -= 1);
        }
        if std::mem::take(&mut self.overrun) {
            value |= DR_OE;
        }
        if self.receive.len() < self.receive_trigger() {
            self.ris &= !INT_RX;
        }
        if self.receive.is_empty() {
            self.ris &= !INT_RT;
        }
        self.restart_timeout(now, clock);
        value
    }

    /// Counts anew for what is still there; a driver that stops half-way is told again.
    fn restart_timeout(&mut self, now: u64, clock: u32) {
        self.timeout = match self.receive.is_empty() {
            true => None,
            false => Some(now.saturating_add(self.timeout_length(clock))),
        };
    }

    fn write_control(&mut self, cr: u32) {
        let before = self.modem_lines();
        self.cr = cr & 0xff87;
        let changed = before ^ self.modem_lines();
        for (line, interrupt) in [
            (FR_CTS, INT_CTS),
            (FR_DSR, INT_DSR),
            (FR_DCD, INT_DCD),
            (FR_RI, INT_RI),
        ] {
            if changed & line != 0 {
                self.ris |= interrupt;
            }
        }
    }
}

type Callback = Arc<dyn Fn() + Send + Sync>;

/// The device.
pub struct Pl011 {
    config: Config,
    state: Mutex<State>,
    line: Line,
    clock: Clock,
    timer: Timer,
    output: Arc<dyn SerialOutput>,
    room: Mutex<Option<Callback>>,
}

impl Pl011 {
    /// A UART that sends to `output` and interrupts by `line` (level-high).
    pub fn new(
        config: Config,
        line: Line,
        clock: &Clock,
        output: Arc<dyn SerialOutput>,
    ) -> Arc<Pl011> {
        Arc::new_cyclic(|this: &Weak<Pl011>| {
            let this = this.clone();
            Pl011 {
                state: Mutex::new(State::power_on(&config)),
                config,
                line,
                clock: clock.clone(),
                timer: clock.timer(move || {
                    if let Some(uart) = this.upgrade() {
                        uart.timed_out();
                    }
                }),
                output,
                room: Mutex::new(None),
            }
        })
    }

    /// The state, for a snapshot.
    pub fn save(&self) -> State {
        self.state.lock().clone()
    }

    /// Takes over a saved state.
    pub fn restore(&self, mut state: State) {
        state.receive.truncate(state.depth());
        // Places ascend, and are taken one by one.
        let length = state.receive.len();
        let mut above = None;
        state.breaks.retain(|place| {
            let good = *place < length && above.is_none_or(|above| *place > above);
            if good {
                above = Some(*place);
            }
            good
        });
        state.ibrd &= 0xffff;
        state.fbrd &= 0x3f;
        let mut now = self.state.lock();
        *now = state;
        self.update(&now);
        drop(now);
        self.tell_of_room();
    }

    /// Derives the interrupt line and the timer from the state.
    fn update(&self, state: &State) {
        self.line.set(state.ris & state.imsc != 0);
        match state.timeout {
            Some(deadline) if state.ris & INT_RT == 0 => self.timer.arm(deadline),
            _ => self.timer.cancel(),
        }
    }

    fn timed_out(&self) {
        let mut state = self.state.lock();
        if state
            .timeout
            .is_some_and(|deadline| deadline <= self.clock.now())
        {
            state.timeout = None;
            state.ris |= INT_RT;
            self.update(&state);
        }
    }

    /// Tells a back end that had to wait, once there is room; with no lock held, since it will call back.
    fn tell_of_room(&self) {
        let mut state = self.state.lock();
        if !state.starved || state.receive.len() >= state.depth() {
            return;
        }
        state.starved = false;
        drop(state);
        let callback = self.room.lock().clone();
        if let Some(callback) = callback {
            callback();
        }
    }
}

impl Registers for Pl011 {
    fn read_register(&self, offset: u64, _: u32) -> u32 {
        let mut state = self.state.lock();
        match offset {
            UARTDR => {
                let value = state.take(self.clock.now(), self.config.clock);
                self.update(&state);
                drop(state);
                self.tell_of_room();
                value
            }
            UARTRSR_ECR => state.rsr,
            UARTFR => state.flags(),
            UARTILPR => state.ilpr,
            UARTIBRD => state.ibrd,
            UARTFBRD => state.fbrd,
            UARTLCR_H => state.lcr_h,
            UARTCR => state.cr,
            UARTIFLS => state.ifls,
            UARTIMSC => state.imsc,
            UARTRIS => state.ris,
            UARTMIS => state.ris & state.imsc,
            UARTDMACR => state.dmacr,
            _ => primecell::identification(PERIPHERAL_ID, offset).unwrap_or_else(|| {
                tracing::debug!(name = self.config.name, offset, "read of no register");
                0
            }),
        }
    }

    fn write_register(&self, offset: u64, _: u32, value: u32, mask: u32) {
        let mut state = self.state.lock();
        let merge = |old: u32| old & !mask | value;
        match offset {
            UARTDR if mask & 0xff == 0 => return,
            UARTDR => {
                state.ris |= INT_TX;
                let byte = value as u8;
                if state.cr & CR_LBE != 0 {
                    state.put(byte, self.clock.now(), self.config.clock);
                    self.update(&state);
                } else {
                    self.update(&state);
                    drop(state);
                    self.output.write(&[byte]);
                }
                return;
            }
            UARTRSR_ECR => state.rsr = 0,
            UARTILPR => state.ilpr = merge(state.ilpr) & 0xff,
            UARTIBRD => state.ibrd = merge(state.ibrd) & 0xffff,
            UARTFBRD => state.fbrd = merge(state.fbrd) & 0x3f,
            UARTLCR_H => {
                let new = merge(state.lcr_h) & 0xff;
                // Drivers empty the FIFOs by turning them off and on.
                if (state.lcr_h ^ new) & LCR_H_FEN != 0 {
                    state.receive.clear();
                    state.breaks.clear();
                    state.overrun = false;
                    state.ris &= !(INT_RX | INT_RT);
                    state.timeout = None;
                }
                state.lcr_h = new;
            }
            UARTCR => {
                let new = merge(state.cr);
                state.write_control(new);
            }
            UARTIFLS => state.ifls = merge(state.ifls) & 0x3f,
            UARTIMSC => state.imsc = merge(state.imsc) & INT_ALL,
            UARTICR => {
                state.ris &= !value;
                if value & (INT_RX | INT_RT) != 0 {
                    state.restart_timeout(self.clock.now(), self.config.clock);
                }
            }
            UARTDMACR => {
                state.dmacr = merge(state.dmacr) & 7;
                if state.dmacr & 3 != 0 {
                    tracing::debug!(name = self.config.name, "no DMA controller is connected");
                }
            }
            _ => tracing::debug!(
                name = self.config.name,
                offset,
                value,
                "write to no register"
            ),
        }
        self.update(&state);
        drop(state);
        self.tell_of_room();
    }
}

impl Mmio for Pl011 {
    fn read(&self, access: Access) -> u64 {
        self.read_any(access)
    }

    fn write(&self, access: Access, value: u64) {
        self.write_any(access, value);
    }
}

impl SerialInput for Pl011 {
    fn receive(&self, bytes: &[u8]) -> usize {
        let mut state = self.state.lock();
        let room = state.depth().saturating_sub(state.receive.len());
        let taken = room.min(bytes.len());
        let now = self.clock.now();
        for &byte in &bytes[..taken] {
            state.put(byte, now, self.config.clock);
        }
        state.starved |= taken < bytes.len();
        self.update(&state);
        taken
    }

    fn receive_break(&self) {
        let mut state = self.state.lock();
        state.put_break(self.clock.now(), self.config.clock);
        self.update(&state);
    }

    fn on_room(&self, callback: Box<dyn Fn() + Send + Sync>) {
        *self.room.lock() = Some(Arc::from(callback));
    }
}

impl Device for Pl011 {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn reset(&self) {
        let mut state = self.state.lock();
        // The back end's wait is no part of the machine: it is told of the room that a reset makes.
        let starved = state.starved;
        *state = State {
            starved,
            ..State::power_on(&self.config)
        };
        self.update(&state);
        drop(state);
        self.tell_of_room();
    }
}
