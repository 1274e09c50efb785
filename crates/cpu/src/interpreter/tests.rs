//! Small programs, executed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ::memory::{AddressSpace, Dma, Mapping, Mmio, Ram};

use super::*;
use crate::core::{Clock, Shared};
use crate::features::Features;
use crate::world::CallOutcome;

const BASE: u64 = 0x4000_0000;
const SIZE: u64 = 0x20_0000;
const CODE: u64 = BASE + 0x1_0000;
const VECTORS: u64 = BASE + 0x8000;
const DATA: u64 = BASE + 0x4_0000;
/// Where the second block of the tests' mapping puts the device.
const DEVICE: u64 = 0x0900_0000;

const HVC: u32 = 0xd400_0002;

struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> u64 {
        0
    }

    fn arm(&self, _: u32, _: u64) {}
}

/// Remembers the last write, and gives it back with the offset in the upper half.
#[derive(Default)]
struct Register(AtomicU64);

impl Mmio for Register {
    fn read(&self, access: ::memory::Access) -> u64 {
        access.offset << 56 | self.0.load(Ordering::SeqCst)
    }

    fn write(&self, access: ::memory::Access, value: u64) {
        self.0
            .store(value ^ u64::from(access.width) << 48, Ordering::SeqCst);
    }
}

struct Board {
    space: AddressSpace,
    dma: Dma,
    shared: Arc<Shared>,
}

impl World for Board {
    fn space(&self) -> &AddressSpace {
        &self.space
    }

    fn read_system_register(&self, _: u32, _: u16) -> Option<u64> {
        None
    }

    fn write_system_register(&self, _: u32, _: u16, _: u64) -> Option<()> {
        None
    }

    fn private_interrupt(&self, _: u32, _: u32, _: bool) {}

    fn call(&self, _: u32, _: &mut [u64; 18]) -> CallOutcome {
        CallOutcome::Stop
    }
}

impl Board {
    fn new(cpus: u32) -> Board {
        let ram = Ram::new(&[(BASE, SIZE)]).unwrap();
        let space = AddressSpace::new();
        for (start, size, host) in ram.ranges() {
            space
                .map(
                    start,
                    size,
                    Mapping::Ram {
                        host: host as usize,
                    },
                )
                .unwrap();
        }
        space
            .map(DEVICE, 0x1000, Mapping::Mmio(Arc::new(Register::default())))
            .unwrap();
        let dma = ram.dma();
        // Every vector calls out.
        for vector in 0..16 {
            dma.write_u32(VECTORS + 0x80 * vector, HVC).unwrap();
        }
        // Blocks of 1 GiB: the first Device, the second Normal; accessed.
        dma.write_u64(BASE, 1 << 10 | 1 << 2 | 1).unwrap();
        dma.write_u64(BASE + 8, BASE | 1 << 10 | 1).unwrap();
        let shared = Arc::new(Shared::new(cpus, Arc::new(NoClock), 62_500_000));
        Board { space, dma, shared }
    }

    fn load(&self, words: &[u32]) {
        for (i, word) in words.iter().enumerate() {
            self.dma.write_u32(CODE + 4 * i as u64, *word).unwrap();
        }
    }

    fn processor(&self, index: u32) -> Interpreter {
        let features = Arc::new(Features::model("max").unwrap());
        let core = Core::new(index, u64::from(index), features, self.shared.clone());
        let mut interpreter = Interpreter::new(core);
        let state = &mut interpreter.core_mut().state;
        state.ttbr0[1] = BASE;
        state.tcr[1] = 25 | 1 << 23 | 2 << 32;
        state.mair[1] = 0xff;
        state.sctlr[1] |= 1;
        state.cpacr[1] = 3 << 20;
        state.vbar[1] = VECTORS;
        state.pc = CODE;
        state.x[31] = DATA + 0x1000;
        interpreter
    }

    /// Runs words, with an HVC after them, at EL1; the processor afterwards.
    fn run(&self, words: &[u32], set_up: impl FnOnce(&mut crate::State)) -> Interpreter {
        self.load(words);
        self.dma
            .write_u32(CODE + 4 * words.len() as u64, HVC)
            .unwrap();
        let mut interpreter = self.processor(0);
        set_up(&mut interpreter.core_mut().state);
        assert_eq!(interpreter.run(self), Exit::Off);
        interpreter
    }
}

/// The exception class that was taken, if the program ended in a vector.
fn class(interpreter: &Interpreter) -> Option<u64> {
    let state = &interpreter.core().state;
    (VECTORS..VECTORS + 0x800)
        .contains(&state.pc)
        .then_some(state.esr[1] >> 26)
}

#[test]
fn computes() {
    let board = Board::new(1);
    // movz x0, #0x1234, lsl #48; movn w1, #5; adds x2, x0, x1, lsl #1; cset x3, mi; extr x4, x0, x1, #8
    let words = [
        0xd2e2_4680,
        0x1280_00a1,
        0xab01_0402,
        0x9a9f_57e3,
        0x93c1_2004,
    ];
    let done = board.run(&words, |_| {});
    let x = &done.core().state.x;
    assert_eq!(x[0], 0x1234_0000_0000_0000);
    assert_eq!(x[1], 0xffff_fffa);
    assert_eq!(x[2], 0x1234_0001_ffff_fff4);
    assert_eq!(x[3], 0);
    assert_eq!(x[4], 0x00ff_ffff);
    assert_eq!(class(&done), None);
}

#[test]
fn accesses_cross_pages_and_fault_whole() {
    let board = Board::new(1);
    // str x1, [x0]; ldr x2, [x0]; ldp x3, x4, [x0, #-8]
    let words = [0xf900_0001, 0xf940_0002, 0xa97f_9003];
    let done = board.run(&words, |s| {
        s.x[0] = DATA + 0xffd;
        s.x[1] = 0x1122_3344_5566_7788;
    });
    let x = &done.core().state.x;
    assert_eq!((x[2], x[4]), (x[1], x[1]));
    assert_eq!(class(&done), None);
    // The second half of the pair is not mapped: nothing is loaded, the fault is where that half begins.
    let done = board.run(&[0xa940_0803], |s| {
        s.x[0] = BASE + (1 << 30) - 8;
        s.x[3] = 7;
    });
    let state = &done.core().state;
    assert_eq!(class(&done), Some(0x25));
    assert_eq!(state.far[1], BASE + (1 << 30));
    assert_eq!(state.elr[1], CODE);
    assert_eq!(state.x[3], 7);
}

#[test]
fn devices_are_reached_in_widths_they_know() {
    let board = Board::new(1);
    // str w1, [x0, #4]; ldr x2, [x0]; stp x1, x1, [x0, #16]; ldrb w3, [x0, #9]
    let words = [0xb900_0401, 0xf940_0002, 0xa901_0401, 0x3940_2403];
    let done = board.run(&words, |s| {
        s.x[0] = DEVICE;
        s.x[1] = 0xaa;
    });
    let x = &done.core().state.x;
    assert_eq!(class(&done), None);
    assert_eq!(x[2], 4 << 48 | 0xaa);
    assert_eq!(x[3], 0xaa);
    // Unaligned, and an atomic: faults.
    let unaligned = board.run(&[0xf940_0002], |s| s.x[0] = DEVICE + 1);
    assert_eq!(class(&unaligned), Some(0x25));
    assert_eq!(unaligned.core().state.esr[1] & 0x3f, 0x21);
    let atomic = board.run(&[0xf821_0002], |s| s.x[0] = DEVICE);
    assert_eq!(atomic.core().state.esr[1] & 0x3f, 0x35);
    // Nothing there.
    let nothing = board.run(&[0xf940_0002], |s| s.x[0] = 0x1000_0000);
    assert_eq!(nothing.core().state.esr[1] & 0x3f, 0x10);
    assert_eq!(nothing.core().state.far[1], 0x1000_0000);
    // And nothing to execute.
    let nothing = board.run(&[0xd61f_0000], |s| s.x[0] = 0x1000_0000);
    assert_eq!(class(&nothing), Some(0x21));
}

#[test]
fn alignment_is_checked_where_it_must_be() {
    let board = Board::new(1);
    let fault = |word: u32, set_up: fn(&mut crate::State)| {
        let done = board.run(&[word], |s| {
            s.x[0] = DATA + 1;
            set_up(s);
        });
        class(&done).map(|class| (class, done.core().state.esr[1] & 0x3f))
    };
    assert_eq!(fault(0xf940_0001, |_| {}), None); // ldr x1, [x0]
    assert_eq!(fault(0xf940_0001, |s| s.sctlr[1] |= 2), Some((0x25, 0x21)));
    assert_eq!(fault(0x3940_0001, |s| s.sctlr[1] |= 2), None); // ldrb
    // Also where the page was just accessed: ldrb, ldr
    let known = board.run(&[0x3940_0001, 0xf940_0001], |s| {
        s.sctlr[1] |= 2;
        s.x[0] = DATA + 1;
    });
    assert_eq!(class(&known), Some(0x25));
    assert_eq!(fault(0xc8df_fc01, |_| {}), Some((0x25, 0x21))); // ldar x1, [x0]
    assert_eq!(fault(0xc85f_7c01, |_| {}), Some((0x25, 0x21))); // ldxr x1, [x0]
    assert_eq!(fault(0xf822_0001, |_| {}), Some((0x25, 0x21))); // ldadd x2, x1, [x0]
    assert_eq!(fault(0xf940_03e1, |s| s.x[31] += 8), None); // ldr x1, [sp]
    let check = |s: &mut crate::State| {
        s.x[31] += 8;
        s.sctlr[1] |= 8;
    };
    assert_eq!(fault(0xf940_03e1, check), Some((0x26, 0)));
    assert_eq!(fault(0xf980_03e0, check), None); // prfm pldl1keep, [sp]
    // br to an odd address
    assert_eq!(fault(0xd61f_0000, |_| {}), Some((0x22, 0)));
}

#[test]
fn code_that_changes_itself_is_executed_as_it_is() {
    let board = Board::new(1);
    let words = [
        0x1000_0082, // adr x2, 1f
        0x5280_0020, // 0: mov w0, #1
        0x8b00_0021, // add x1, x1, x0
        0xb900_0043, // str w3, [x2]
        0x9100_0421, // 1: add x1, x1, #1, replaced by add x1, x1, #16
    ];
    let done = board.run(&words, |s| s.x[3] = 0x9100_4021);
    assert_eq!(done.core().state.x[1], 17);
}

#[test]
fn exclusives_store_once() {
    let board = Board::new(1);
    // ldxr x1, [x0]; add x1, x1, #1; stxr w2, x1, [x0]; stxr w3, x1, [x0]
    let words = [0xc85f_7c01, 0x9100_0421, 0xc802_7c01, 0xc803_7c01];
    let done = board.run(&words, |s| s.x[0] = DATA);
    assert_eq!(done.core().state.x[2], 0);
    assert_eq!(done.core().state.x[3], 1);
    assert_eq!(board.dma.read_u64(DATA), Ok(1));
    // An atomic in between that changes nothing is seen: ldxr; ldadd xzr, x4; stxr
    let words = [0xc85f_7c01, 0xf83f_0004, 0xc802_7c01];
    let done = board.run(&words, |s| s.x[0] = DATA);
    assert_eq!(done.core().state.x[2], 1);
    // ldaxp x1, x2, [x0]; stlxp w3, x2, x1, [x0]
    board.dma.write_u64(DATA + 8, 9).unwrap();
    let done = board.run(&[0xc87f_8801, 0xc823_8402], |s| s.x[0] = DATA);
    assert_eq!(done.core().state.x[3], 0);
    assert_eq!(board.dma.read_u64(DATA), Ok(9));
    assert_eq!(board.dma.read_u64(DATA + 8), Ok(1));
}

#[test]
fn pairs_are_compared_and_swapped() {
    let board = Board::new(1);
    board.dma.write_u64(DATA, 1).unwrap();
    board.dma.write_u64(DATA + 8, 2).unwrap();
    // casp x2, x3, x4, x5, [x0], twice
    let done = board.run(&[0x4822_7c04, 0x4822_7c04], |s| {
        s.x[0] = DATA;
        s.x[2..6].copy_from_slice(&[1, 2, 3, 4]);
    });
    assert_eq!(done.core().state.x[2..4], [3, 4]);
    assert_eq!(board.dma.read_u64(DATA), Ok(3));
    // casp w2, w3, w4, w5, [x0]
    let done = board.run(&[0x0822_7c04], |s| {
        s.x[0] = DATA;
        s.x[2..6].copy_from_slice(&[3 | 7 << 32, 0, 5, 6]);
    });
    assert_eq!(done.core().state.x[2..4], [3, 0]);
    assert_eq!(board.dma.read_u64(DATA), Ok(5 | 6 << 32));
    // Odd registers are reserved.
    assert_eq!(class(&board.run(&[0x4823_7c04], |_| {})), Some(0));
}

#[test]
fn processors_count_together() {
    let board = Board::new(2);
    let words = [
        0xc85f_7c01, // 0: ldxr x1, [x0]
        0x9100_0421, // add x1, x1, #1
        0xc802_7c01, // stxr w2, x1, [x0]
        0x35ff_ffa2, // cbnz w2, 0b
        0xf825_0024, // ldadd x5, x4, [x1 → see below]
        0xf100_0463, // subs x3, x3, #1
        0x54ff_ff41, // b.ne 0b
        HVC,
    ];
    let mut words = words;
    words[4] = 0xf825_0004; // ldadd x5, x4, [x0]
    board.load(&words);
    let count = |index| {
        let mut interpreter = board.processor(index);
        let state = &mut interpreter.core_mut().state;
        state.x[0] = DATA;
        state.x[3] = 20_000;
        state.x[5] = 1;
        assert_eq!(interpreter.run(&board), Exit::Off);
    };
    std::thread::scope(|scope| {
        scope.spawn(|| count(0));
        scope.spawn(|| count(1));
    });
    assert_eq!(board.dma.read_u64(DATA), Ok(80_000));
}

#[test]
fn a_block_is_zeroed_and_the_event_is_at_el1() {
    let board = Board::new(1);
    board.dma.fill(DATA, 192, 0xff).unwrap();
    let done = board.run(&[0xd50b_7420], |s| s.x[0] = DATA + 70); // dc zva, x0
    assert_eq!(class(&done), None);
    assert_eq!(board.dma.read_u64(DATA + 56), Ok(u64::MAX));
    for at in (64..128).step_by(8) {
        assert_eq!(board.dma.read_u64(DATA + at), Ok(0));
    }
    assert_eq!(board.dma.read_u64(DATA + 128), Ok(u64::MAX));
    // The address of a fault is the one given, wherever in the block it is (MemZero).
    let device = board.run(&[0xd50b_7420], |s| s.x[0] = DEVICE + 70);
    assert_eq!(device.core().state.esr[1] & 0x3f, 0x21);
    assert_eq!(device.core().state.far[1], DEVICE + 70);
    let nowhere = board.run(&[0xd50b_7420], |s| s.x[0] = 0x80_0000_0046);
    assert_eq!(nowhere.core().state.far[1], 0x80_0000_0046);
}

#[test]
fn pointers_are_authenticated() {
    let board = Board::new(1);
    let keys = |s: &mut crate::State| {
        s.pac_keys = [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]];
        s.sctlr[1] |= 1 << 31 | 1 << 30;
        s.x[0] = DATA;
        s.x[1] = 77;
    };
    // pacia x0, x1; mov x2, x0; autia x0, x1; autia x2, x0
    let done = board.run(&[0xdac1_0020, 0xaa00_03e2, 0xdac1_1020, 0xdac1_1002], keys);
    let x = &done.core().state.x;
    assert_eq!(x[0], DATA);
    assert_eq!(x[2], DATA | 1 << 61);
    // Data keys are off: nothing happens.
    assert_eq!(board.run(&[0xdac1_0820], keys).core().state.x[0], DATA);
    // Paciasp; autiasp through the stack pointer, and RETAA.
    let words = [0xd503_233f, 0xd65f_0bff];
    let done = board.run(&words, |s| {
        keys(s);
        s.x[30] = CODE + 8;
    });
    assert_eq!(class(&done), None);
    // ldraa x3, [x0, #8], with a key that is off
    board.dma.write_u64(DATA + 8, 99).unwrap();
    assert_eq!(board.run(&[0xf820_1403], keys).core().state.x[3], 99);
}

#[test]
fn a_state_changed_from_outside_forgets_translations() {
    let board = Board::new(1);
    board.dma.write_u64(DATA, 5).unwrap();
    let mut processor = board.run(&[0xf940_0001], |s| s.x[0] = DATA); // ldr x1, [x0]
    assert_eq!(processor.core().state.x[1], 5);
    // Tables elsewhere, that map nothing.
    let state = &mut processor.core_mut().state;
    state.ttbr0[1] = BASE + 0x2000;
    state.vbar[1] = 0;
    state.pc = CODE;
    assert_eq!(processor.step(&board), None);
    assert_eq!(class(&processor), None);
    assert_eq!(processor.core().state.esr[1] >> 26, 0x21);
    assert_eq!(processor.core().state.far[1], CODE);
}

#[test]
fn what_is_absent_is_undefined() {
    let board = Board::new(1);
    for word in [
        0,
        0x1ac1_4c20,
        0xf8c0_0c00,
        0x9b40_0000 | 1 << 29,
        0x2a01_8020,
    ] {
        assert_eq!(class(&board.run(&[word], |_| {})), Some(0), "{word:#010x}");
    }
    // HVC at EL0
    let done = board.run(&[HVC], |s| {
        s.select_stack(0, false);
    });
    assert_eq!(class(&done), Some(0));
    assert_eq!(done.core().state.pc & 0x780, 0x400);
}

#[test]
fn any_words_at_all() {
    let board = Board::new(1);
    let mut random = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random
    };
    let mut interpreter = board.processor(0);
    for round in 0..200_000u32 {
        let pattern = aarch64::decode::ALL[next() as usize % aarch64::decode::ALL.len()];
        let (mask, value) = pattern.mask_and_value();
        let word = if next() % 8 == 0 {
            next() as u32
        } else {
            next() as u32 & !mask | value
        };
        board.load(&[word]);
        let state = &mut interpreter.core_mut().state;
        state.pc = CODE;
        state.el = (round >> 4 & 1) as u8;
        for x in &mut state.x {
            let any = next();
            *x = match any & 3 {
                0 => DATA + (any >> 8 & 0xffff),
                1 => DEVICE + (any >> 8 & 0xfff),
                2 => any,
                _ => any & 0xff,
            };
        }
        // Waiting is tested elsewhere; here nobody would end it.
        if matches!(pattern.name(), "hint" | "msr" | "msr_immediate") || word >> 22 == 0x354 {
            continue;
        }
        interpreter.core().signals.set_irq(false);
        interpreter.step(&board);
    }
}
