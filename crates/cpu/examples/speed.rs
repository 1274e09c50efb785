//! How many instructions the interpreter executes a second: `cargo run --release -p dormer-cpu --example speed`.

use std::sync::Arc;
use std::time::Instant;

use dormer_cpu::{CallOutcome, Clock, Core, Features, Interpreter, Shared, World};
use memory::{AddressSpace, Mapping, Ram};

const BASE: u64 = 0x4000_0000;
const CODE: u64 = BASE + 0x1_0000;
const STACK: u64 = BASE + 0x8_0000;
const BUFFER: u64 = BASE + 0x9_0000;

/// Time that stands still: nothing here looks at it.
struct NoClock;

impl Clock for NoClock {
    fn now(&self) -> u64 {
        0
    }

    fn arm(&self, _: u32, _: u64) {}
}

struct Board {
    space: AddressSpace,
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

/// A program: its words, where it begins, and instructions a turn. X0 counts turns; HVC ends it.
struct Program {
    name: &'static str,
    words: &'static [u32],
    instructions: u64,
    turns: u64,
}

const PROGRAMS: &[Program] = &[
    Program {
        name: "integer loop",
        words: &[
            0x8b02_0021, // add x1, x1, x2
            0xca02_0c23, // eor x3, x1, x2, lsl #3
            0x9240_1c64, // and x4, x3, #0xff
            0xcb01_0085, // sub x5, x4, x1
            0xaa03_00a6, // orr x6, x5, x3
            0x9100_0442, // add x2, x2, #1
            0xd343_fcc7, // lsr x7, x6, #3
            0xf100_0400, // subs x0, x0, #1
            0x54ff_ff01, // b.ne .-32
            0xd400_0002, // hvc #0
        ],
        instructions: 9,
        turns: 30_000_000,
    },
    Program {
        name: "loads and stores",
        words: &[
            0x927d_2003, // and x3, x0, #0xff8
            0xf863_6924, // ldr x4, [x9, x3]
            0x8b00_0084, // add x4, x4, x0
            0xf823_6924, // str x4, [x9, x3]
            0xa941_1925, // ldp x5, x6, [x9, #16]
            0xa902_1526, // stp x6, x5, [x9, #32]
            0x3940_1527, // ldrb w7, [x9, #5]
            0x7900_0d27, // strh w7, [x9, #6]
            0xf100_0400, // subs x0, x0, #1
            0x54ff_fee1, // b.ne .-36
            0xd400_0002, // hvc #0
        ],
        instructions: 10,
        turns: 20_000_000,
    },
    Program {
        name: "recursive calls",
        words: &[
            0xaa00_03f3, // mov x19, x0
            0x5280_0180, // mov w0, #12
            0x9400_0004, // bl fib
            0xf100_0673, // subs x19, x19, #1
            0x54ff_ffa1, // b.ne .-12
            0xd400_0002, // hvc #0
            0x7100_081f, // fib: cmp w0, #2
            0x5400_0183, // b.lo 1f
            0xa9be_7bfd, // stp x29, x30, [sp, #-32]!
            0xa901_57f4, // stp x20, x21, [sp, #16]
            0x2a00_03f4, // mov w20, w0
            0x5100_0680, // sub w0, w20, #1
            0x97ff_fffa, // bl fib
            0x2a00_03f5, // mov w21, w0
            0x5100_0a80, // sub w0, w20, #2
            0x97ff_fff7, // bl fib
            0x0b15_0000, // add w0, w0, w21
            0xa941_57f4, // ldp x20, x21, [sp, #16]
            0xa8c2_7bfd, // ldp x29, x30, [sp], #32
            0xd65f_03c0, // 1: ret
        ],
        instructions: 3951,
        turns: 50_000,
    },
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let ram = Ram::new(&[(BASE, 0x10_0000)])?;
    let space = AddressSpace::new();
    for (start, size, host) in ram.ranges() {
        space.map(
            start,
            size,
            Mapping::Ram {
                host: host as usize,
            },
        )?;
    }
    let board = Board { space };
    // One block of 1 GiB: Normal memory, accessed.
    ram.dma().write_u64(BASE + 8, BASE | 1 << 10 | 1)?;
    for program in PROGRAMS {
        for (i, word) in program.words.iter().enumerate() {
            ram.dma().write_u32(CODE + 4 * i as u64, *word)?;
        }
        let features = Arc::new(Features::model("max")?);
        let shared = Arc::new(Shared::new(1, Arc::new(NoClock), 62_500_000));
        let mut interpreter = Interpreter::new(Core::new(0, 0, features, shared));
        let state = &mut interpreter.core_mut().state;
        state.ttbr0[1] = BASE;
        state.tcr[1] = 25 | 1 << 23 | 2 << 32;
        state.mair[1] = 0xff;
        state.sctlr[1] |= 1;
        state.pc = CODE;
        state.x[0] = program.turns;
        state.x[2] = 7;
        state.x[9] = BUFFER;
        state.x[31] = STACK;
        let start = Instant::now();
        interpreter.run(&board);
        let seconds = start.elapsed().as_secs_f64();
        let end = CODE
            + 4 * program
                .words
                .iter()
                .position(|&w| w == 0xd400_0002)
                .unwrap_or(0) as u64;
        assert_eq!(
            interpreter.core().state.pc,
            end + 4,
            "the program ends at its end"
        );
        let millions = (program.instructions * program.turns) as f64 / 1e6;
        println!(
            "{}: {:.0} M instructions/s",
            program.name,
            millions / seconds
        );
    }
    Ok(())
}
