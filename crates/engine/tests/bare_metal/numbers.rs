//! Results of floating point that a host computes otherwise than Arm: they are Arm's whatever executes the instruction.

use aarch64::psci::function;
use aarch64::registers as r;

use crate::attacks::boards;
use crate::board::*;
use crate::programs::prologue;

const FMUL: u32 = 0x1e60_0800;
const FMUL_2D: u32 = 0x6e60_dc00;
/// With the zero in V3.
const FMADD: u32 = 0x1f40_0c00;

const IOC: u64 = 1;
const UFC: u64 = 1 << 3;
const IXC: u64 = 1 << 4;

const ONE: u64 = 0x3ff0_0000_0000_0000;
const SMALLEST: u64 = 0x0010_0000_0000_0000;

/// Operation, operands, result, FPSR.
const CASES: [(u32, u64, u64, u64, u64); 9] = [
    // (1 + 2^-27) (1 - 2^-27) of the smallest normal number: tiny before it is rounded to that number, and not after
    // (DDI 0487, FPRound: tininess is detected before rounding).
    (
        FMUL,
        0x3ff0_0000_0200_0000,
        0x000f_ffff_fe00_0000,
        SMALLEST,
        UFC | IXC,
    ),
    (
        FMUL_2D,
        0x3ff0_0000_0200_0000,
        0x000f_ffff_fe00_0000,
        SMALLEST,
        UFC | IXC,
    ),
    (
        FMADD,
        0x3ff0_0000_0200_0000,
        0x000f_ffff_fe00_0000,
        SMALLEST,
        UFC | IXC,
    ),
    (
        FMUL,
        0xbff0_0000_0200_0000,
        0x000f_ffff_fe00_0000,
        1 << 63 | SMALLEST,
        UFC | IXC,
    ),
    // Exact: no underflow.
    (FMUL, ONE, SMALLEST, SMALLEST, 0),
    // A signaling NaN comes before a quiet one, whichever operand it is (FPProcessNaNs).
    (
        FMUL,
        0x7ff8_0000_0000_0001,
        0x7ff0_0000_0000_0002,
        0x7ff8_0000_0000_0002,
        IOC,
    ),
    (
        FMUL_2D,
        0x7ff8_0000_0000_0001,
        0x7ff0_0000_0000_0002,
        0x7ff8_0000_0000_0002,
        IOC,
    ),
    // Zero times infinity: the default NaN, which is positive.
    (FMUL, 0, 0x7ff0_0000_0000_0000, 0x7ff8_0000_0000_0000, IOC),
    (
        FMUL_2D,
        0,
        0x7ff0_0000_0000_0000,
        0x7ff8_0000_0000_0000,
        IOC,
    ),
];

#[test]
fn tiny_results_and_nans_are_arms() {
    for board in boards(1) {
        let mut c = prologue(&board);
        c.set(r::CPACR_EL1, 3 << 20).isb();
        c.li(20, DATA).li(0, 0).word(0x6f00_e403); // movi v3.2d, #0
        for (operation, a, b, ..) in CASES {
            // Often enough for every tier.
            c.li(1, a).li(2, b).li(10, 10);
            // dup v1.2d, x1; dup v2.2d, x2
            c.word(0x4e08_0c21).word(0x4e08_0c42);
            let again = c.here();
            // msr fpsr, x0; OPERATION 0, 1, 2; mrs x5, fpsr; umov x6, v0.d[0]
            c.word(0xd51b_4420)
                .word(operation | 2 << 16 | 1 << 5)
                .word(0xd53b_4425)
                .word(0x4e08_3c06);
            c.sub(10, 10, 1).cbnz(10, again);
            c.str(6, 20, 0).str(5, 20, 8).add(20, 20, 16);
        }
        c.psci(function::SYSTEM_OFF);
        board.load(&c);
        board.run();
        for (i, (operation, a, b, result, flags)) in CASES.into_iter().enumerate() {
            let at = DATA + 16 * i as u64;
            assert_eq!(
                (board.get(at), board.get(at + 8)),
                (result, flags),
                "{operation:x} of {a:x}, {b:x}"
            );
        }
    }
}
