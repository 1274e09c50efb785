//! Whatever a guest writes, the controller neither panics nor hangs nor grows.

use std::sync::Arc;

use device::{Access, Device};
use pci::Function;

use super::driver::*;
use super::*;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// An address in the area everything of the driver lies in, mostly.
    fn address(&mut self) -> u64 {
        match self.below(16) {
            0 => self.next(),
            _ => (RAM + (self.below(0x4_0000) & !0xf)) | self.below(2),
        }
    }
}

fn noise(seed: u64, rounds: usize) {
    let mut random = Random(seed);
    let mut d = Driver::new();
    let keyboard = keyboard(&d);
    let _disk = disk(&d, 1 << 20);
    for round in 0..rounds {
        // A pointer to nowhere halts the controller soon: up again.
        let halted = d.read(OPERATIONAL + operational::USBSTS) & usbsts::HCH != 0;
        if round % 2000 == 0 || (halted && round % 50 == 0) {
            d.xhci.endpoint().write_config(4, 2, 6);
            d.start();
            // The keyboard has connector 1, so the disk is in the second.
            for port in [2, USB2] {
                let slot = d.enumerate(port);
                let endpoints: &[(u8, u32, u32)] = if port == 2 {
                    &[(3, 6, 1024), (4, 2, 1024), (9, 5, 1024)]
                } else {
                    &[(3, 7, 8)]
                };
                assert_eq!(code(&d.configure(slot, endpoints)), 1);
                d.control(slot, setup(0, 9, 1, 0, 0));
            }
        }
        match random.below(20) {
            0..=6 => {
                // A TRB, well-formed in part, somewhere in a ring.
                let (slot, dci) = (1 + random.below(2) as u8, random.below(10) as u8);
                let at = match random.below(3) {
                    0 => RAM + 0x2000 + random.below(64) * 16,
                    1 => d.ring_start(slot, dci) + random.below(64) * 16,
                    _ => random.address() & !0xf,
                };
                let trb = Trb {
                    parameter: random.address(),
                    status: (random.next() as u32) >> random.below(32),
                    control: (random.next() as u32 & 0xff80_03ff)
                        | (random.below(26) as u32) << 10
                        | u32::from(dci) << 16
                        | u32::from(slot) << 24,
                };
                let _ = trb.write(&d.dma, at);
            }
            7..=12 => d.write(DOORBELLS + random.below(4) * 4, random.below(12) as u32),
            13 => d.acknowledge(),
            14 => while d.poll().is_some() {},
            15 => press(&keyboard, 4 + random.below(20) as u8),
            16 => {
                let width = 1 << random.below(4);
                let offset = random.below(registers::SIZE) & !(width - 1);
                d.xhci.read_bar(0, Access::new(offset, width as u8));
                // The run bit stays mostly, or nothing happens any more.
                if offset != OPERATIONAL || random.below(8) == 0 {
                    d.xhci
                        .write_bar(0, Access::new(offset, width as u8), random.next());
                }
            }
            17 => {
                let port = PORTS + random.below(8) * PORT_STRIDE + random.below(4) * 4;
                d.write(
                    port,
                    random.next() as u32 | if random.below(4) == 0 { 0 } else { portsc::PP },
                );
            }
            18 if random.below(20) == 0 => d.xhci.reset(),
            18 => {
                let bytes = random.next().to_le_bytes();
                let _ = d.dma.write(random.address(), &bytes);
            }
            _ => d.xhci.config_written(4, 2),
        }
        if round % 500 == 0 {
            let state = d.xhci.state();
            let backlog = state.interrupters.iter().filter(|i| i.blocked()).count();
            assert!(
                state.queue.len() < 4096 && state.later.len() < 4096 && backlog <= INTERRUPTERS
            );
        }
        if round % 2000 == 1999 {
            d.xhci.reset();
            d.xhci.endpoint().write_config(4, 2, 6);
            // What noise did to the device itself goes with a reset, too.
            assert_eq!(d.xhci.attached().len(), 2);
        }
    }
    // It still works.
    d.start();
    let slot = d.enumerate(USB2);
    assert_eq!(code(&d.configure(slot, &[(3, 7, 8)])), 1);
    assert_eq!(d.control(slot, setup(0, 9, 1, 0, 0)).0, 1);
    d.submit(slot, 3, &[normal(BUFFER, 8, bit::IOC)]);
    press(&keyboard, 4);
    assert_eq!(code(&d.event(kind::TRANSFER_EVENT)), 1);
    let _: Arc<Xhci> = d.xhci.clone();
}

#[test]
fn noise_does_no_harm() {
    for seed in 1..=8u64 {
        noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15), 20_000);
    }
}
