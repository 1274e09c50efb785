//! Litmus tests: what two processors may see of each other's accesses, by the Arm Architecture Reference Manual, B2.3.
//!
//! Two processors go through an array of pairs of locations side by side, each executing its part on each pair, as fast as
//! they can; a hundred times over. Of no pair may both have seen what the memory model forbids. (Without its barriers, `stores
//! pass no loads` fails on x86-64 within the first rounds.)

use std::sync::Arc;

use aarch64::psci::function;

use crate::assembler::*;
use crate::attacks::boards;
use crate::board::*;
use crate::programs::{map_window, mmu_on, prologue};

const PAIRS: u64 = 256;
const ROUNDS: u64 = 100;
/// Of one pair: `x`, and `y` in another line.
const PAIR: u32 = 128;
const LOCATIONS: u64 = RAM + 0x20_0000;
/// What each processor saw: two words for each pair of each round.
const SEEN: [u64; 2] = [RAM + 0x30_0000, RAM + 0x40_0000];
/// Where each says which round it is at.
const AT: [u32; 2] = [0x200, 0x280];

// Registers of a part: addresses of the pair, what is stored in this round, and two results.
const X: u32 = 20;
const Y: u32 = 21;
const NEW: u32 = 22;
const FIRST: u32 = 0;
const SECOND_RESULT: u32 = 1;

impl Code {
    fn dmb(&mut self) -> &mut Code {
        self.word(0xd503_3bbf)
    }

    fn dmb_stores(&mut self) -> &mut Code {
        self.word(0xd503_3abf)
    }

    fn dmb_loads(&mut self) -> &mut Code {
        self.word(0xd503_39bf)
    }

    fn stlr(&mut self, t: u32, n: u32) -> &mut Code {
        self.word(0xc89f_fc00 | n << 5 | t)
    }

    fn ldar(&mut self, t: u32, n: u32) -> &mut Code {
        self.word(0xc8df_fc00 | n << 5 | t)
    }

    fn ldxr(&mut self, t: u32, n: u32) -> &mut Code {
        self.word(0xc85f_7c00 | n << 5 | t)
    }

    fn stxr(&mut self, s: u32, t: u32, n: u32) -> &mut Code {
        self.word(0xc800_7c00 | s << 16 | n << 5 | t)
    }

    fn swpal(&mut self, s: u32, t: u32, n: u32) -> &mut Code {
        self.word(0xf8e0_8000 | s << 16 | n << 5 | t)
    }

    /// Waits until the other processor is at the round in a register, too.
    fn meet(&mut self, me: usize, round: u32) {
        self.str(round, 4, AT[me]).dmb();
        let wait = self.here();
        self.ldr(9, 4, AT[1 - me])
            .cmp_register(9, round)
            .b_if(LOWER, wait);
    }
}

const LOWER: u32 = 3;

/// The beginnings of both processors' programs, with translation on and x4 at [`DATA`]; the first turns the second on.
fn begin(board: &Board) -> [Code; 2] {
    map_window(board, &[]);
    let mut first = prologue(board);
    mmu_on(&mut first);
    first.li(4, DATA).turn_on_second(SECOND, 0);
    let mut second = Code::at(SECOND);
    mmu_on(&mut second);
    for code in [&mut first, &mut second] {
        code.li(4, DATA);
    }
    [first, second]
}

/// Ends both programs and runs them.
fn run(board: &Arc<Board>, [mut first, mut second]: [Code; 2]) {
    first.psci(function::SYSTEM_OFF);
    let stay = second.here();
    second.wfi().b(stay);
    board.load(&first);
    board.load(&second);
    board.run();
}

/// What a processor does with a pair.
type Part = fn(&mut Code);

/// A litmus test.
struct Litmus {
    parts: [Part; 2],
    /// Whether the results of both processors, with the value stored in the round, are forbidden.
    forbidden: fn([u64; 2], [u64; 2], u64) -> bool,
}

impl Litmus {
    fn run(&self, name: &str) {
        for board in boards(2) {
            let mut programs = begin(&board);
            for (me, code) in programs.iter_mut().enumerate() {
                code.li(NEW, 0).li(23, SEEN[me]).li(24, ROUNDS);
                let round = code.here();
                code.add(NEW, NEW, 1);
                code.li(X, LOCATIONS).li(25, PAIRS);
                code.meet(me, NEW);
                let pair = code.here();
                code.add(Y, X, PAIR / 2);
                self.parts[me](code);
                code.push(FIRST, 23)
                    .push(SECOND_RESULT, 23)
                    .add(X, X, PAIR)
                    .sub(25, 25, 1)
                    .cbnz(25, pair)
                    .cmp_register(NEW, 24)
                    .b_if(NE, round);
                code.li(NEW, ROUNDS + 1);
                code.meet(me, NEW);
            }
            run(&board, programs);
            let mut count = 0;
            for i in 0..ROUNDS * PAIRS {
                let seen = SEEN.map(|at| [0, 8].map(|word| board.get(at + 16 * i + word)));
                let stored = i / PAIRS + 1;
                count += u32::from((self.forbidden)(seen[0], seen[1], stored));
                assert!(
                    seen.iter().flatten().all(|&value| value <= stored),
                    "{name}: {seen:?} in round {stored}"
                );
            }
            assert_eq!(count, 0, "{name}: what is forbidden was seen");
        }
    }
}

#[test]
fn stores_pass_no_loads() {
    let forbidden = |a: [u64; 2], b: [u64; 2], new| a[0] < new && b[0] < new;
    let ways: [(&str, [Part; 2]); 4] = [
        (
            "DMB",
            [
                |c| {
                    c.str(NEW, X, 0).dmb().ldr(FIRST, Y, 0);
                },
                |c| {
                    c.str(NEW, Y, 0).dmb().ldr(FIRST, X, 0);
                },
            ],
        ),
        (
            "STLR, LDAR",
            [
                |c| {
                    c.stlr(NEW, X).ldar(FIRST, Y);
                },
                |c| {
                    c.stlr(NEW, Y).ldar(FIRST, X);
                },
            ],
        ),
        (
            "SWPAL, LDAR",
            [
                |c| {
                    c.swpal(NEW, 10, X).ldar(FIRST, Y);
                },
                |c| {
                    c.swpal(NEW, 10, Y).ldar(FIRST, X);
                },
            ],
        ),
        (
            "DSB of one, DMB of the other",
            [
                |c| {
                    c.str(NEW, X, 0).dsb().ldr(FIRST, Y, 0);
                },
                |c| {
                    c.str(NEW, Y, 0).dmb().ldr(FIRST, X, 0);
                },
            ],
        ),
    ];
    for (name, parts) in ways {
        Litmus { parts, forbidden }.run(name);
    }
}

#[test]
fn messages_are_passed_in_order() {
    // The flag is seen, what it announces is not.
    let forbidden = |_: [u64; 2], b: [u64; 2], new| b[0] == new && b[1] < new;
    let ways: [(&str, [Part; 2]); 4] = [
        (
            "DMB ISHST, DMB ISHLD",
            [
                |c| {
                    c.str(NEW, X, 0).dmb_stores().str(NEW, Y, 0);
                },
                |c| {
                    c.ldr(FIRST, Y, 0).dmb_loads().ldr(SECOND_RESULT, X, 0);
                },
            ],
        ),
        (
            "STLR, LDAR",
            [
                |c| {
                    c.str(NEW, X, 0).stlr(NEW, Y);
                },
                |c| {
                    c.ldar(FIRST, Y).ldr(SECOND_RESULT, X, 0);
                },
            ],
        ),
        (
            "a dependency",
            [
                |c| {
                    c.str(NEW, X, 0).stlr(NEW, Y);
                },
                // x10 = X + (first & 0)
                |c| {
                    c.ldr(FIRST, Y, 0).bic(10, FIRST, FIRST);
                    c.word(0x8b00_0000 | 10 << 16 | X << 5 | 10)
                        .ldr(SECOND_RESULT, 10, 0);
                },
            ],
        ),
        (
            "STXR, LDAR",
            [
                |c| {
                    c.str(NEW, X, 0).dmb();
                    let again = c.here();
                    c.ldxr(10, Y).stxr(11, NEW, Y).cbnz(11, again);
                },
                |c| {
                    c.ldar(FIRST, Y).ldr(SECOND_RESULT, X, 0);
                },
            ],
        ),
    ];
    for (name, parts) in ways {
        Litmus { parts, forbidden }.run(name);
    }
}

#[test]
fn loads_see_nothing_that_depends_on_them() {
    let forbidden = |a: [u64; 2], b: [u64; 2], new| a[0] == new && b[0] == new;
    let parts: [Part; 2] = [
        |c| {
            c.ldr(FIRST, X, 0).dmb().str(NEW, Y, 0);
        },
        |c| {
            c.ldar(FIRST, Y).str(NEW, X, 0);
        },
    ];
    Litmus { parts, forbidden }.run("load buffering");
}

#[test]
fn a_location_does_not_go_back() {
    let forbidden = |_: [u64; 2], b: [u64; 2], _| b[0] > b[1];
    let parts: [Part; 2] = [
        |c| {
            c.str(NEW, X, 0);
        },
        |c| {
            c.ldr(FIRST, X, 0).ldr(SECOND_RESULT, X, 0);
        },
    ];
    Litmus { parts, forbidden }.run("coherence");
}

/// What one processor adds to a location, the other does not lose, whatever each adds by.
#[test]
fn updates_are_not_lost() {
    const TURNS: u64 = 3000;
    let ways: [(&str, Part); 4] = [
        ("LDXR, STXR", |c| {
            let again = c.here();
            c.ldxr(10, X).add(10, 10, 1).stxr(11, 10, X).cbnz(11, again);
        }),
        ("LDAXR, STLXR", |c| {
            let again = c.here();
            c.word(0xc85f_fc00 | X << 5 | 10).add(10, 10, 1);
            c.word(0xc800_fc00 | 11 << 16 | X << 5 | 10).cbnz(11, again);
        }),
        ("LDADD", |c| {
            c.li(10, 1).word(0xf820_0000 | 10 << 16 | X << 5 | 11);
        }),
        ("CASAL", |c| {
            c.ldr(10, X, 0);
            let again = c.here();
            // x12 is what was there.
            c.add(12, 10, 0).add(11, 10, 1);
            c.word(0xc8e0_fc00 | 12 << 16 | X << 5 | 11)
                .cmp_register(12, 10);
            let done = c.skip_if(EQ);
            c.add(10, 12, 0).b(again);
            c.land(done);
        }),
    ];
    for (first_name, first_way) in ways {
        for (second_name, second_way) in ways {
            for board in boards(2) {
                let mut programs = begin(&board);
                let ways = [first_way, second_way];
                for (me, (code, way)) in programs.iter_mut().zip(ways).enumerate() {
                    code.li(X, LOCATIONS).li(25, TURNS).li(NEW, 1);
                    code.meet(me, NEW);
                    let again = code.here();
                    way(code);
                    code.sub(25, 25, 1).cbnz(25, again).li(NEW, 2);
                    code.meet(me, NEW);
                }
                run(&board, programs);
                let sum = board.get(LOCATIONS);
                assert_eq!(sum, 2 * TURNS, "{first_name} beside {second_name}");
            }
        }
    }
}

/// One processor adds to a word by exclusives; the other counts in one byte of it by plain stores, which are not lost.
#[test]
fn an_exclusive_store_does_not_undo_a_plain_one() {
    const TURNS: u64 = 20_000;
    for board in boards(2) {
        let [mut first, mut second] = begin(&board);
        first.li(X, LOCATIONS).li(25, TURNS).li(NEW, 1);
        first.meet(0, NEW);
        let again = first.here();
        // ldxr w10, [x20]; stxr w11, w10, [x20], 0x100 more in between
        first.word(0x885f_7c00 | X << 5 | 10).add(10, 10, 0x100);
        first
            .word(0x8800_7c00 | 11 << 16 | X << 5 | 10)
            .cbnz(11, again)
            .sub(25, 25, 1)
            .cbnz(25, again)
            .li(NEW, 2);
        first.meet(0, NEW);
        second.li(X, LOCATIONS).li(12, 0).li(13, 0);
        second.li(NEW, 1);
        second.meet(1, NEW);
        let again = second.here();
        // strb w12, [x20]; ldrb w14, [x20]: x13 counts where that is something else
        second.add(12, 12, 1).word(0x1200_1c00 | 12 << 5 | 12);
        second
            .word(0x3900_0000 | X << 5 | 12)
            .word(0x3940_0000 | X << 5 | 14)
            .cmp_register(12, 14);
        let right = second.skip_if(EQ);
        second.add(13, 13, 1).str(13, 4, 0);
        second.land(right);
        second.ldr(9, 4, AT[0]).cmp(9, 2).b_if(NE, again);
        second.li(NEW, 2);
        second.meet(1, NEW);
        run(&board, [first, second]);
        assert_eq!(board.get(DATA), 0, "plain stores that were undone");
        let word = board.get(LOCATIONS) as u32;
        assert_eq!(word >> 8, TURNS as u32, "exclusive stores that were lost");
    }
}

/// A value that comes back does not hide that it was away: between load and store of the one, the other changes it, and back.
/// Where nobody does, it is stored.
#[test]
fn an_exclusive_store_fails_though_the_value_is_back() {
    const TURNS: u64 = 1000;
    // x10 and x11 are free, x13 is 7 and x14 is -7.
    let ways: [(&str, Part, bool); 5] = [
        (
            "stores",
            |c| {
                for value in [13, 31] {
                    let again = c.here();
                    c.ldxr(10, X).stxr(11, value, X).cbnz(11, again);
                }
            },
            true,
        ),
        (
            "sums",
            |c| {
                for by in [13, 14] {
                    let again = c.here();
                    // add x12, x10, xN
                    c.ldxr(10, X).word(0x8b00_0000 | by << 16 | 10 << 5 | 12);
                    c.stxr(11, 12, X).cbnz(11, again);
                }
            },
            true,
        ),
        (
            "LDADD",
            |c| {
                for by in [13, 14] {
                    c.word(0xf820_0000 | by << 16 | X << 5 | 11);
                }
            },
            true,
        ),
        ("LDXR", |c| _ = c.ldxr(10, X), false),
        ("nothing", |_| {}, false),
    ];
    for (name, way, fails) in ways {
        for board in boards(2) {
            let mut programs = begin(&board);
            for (me, code) in programs.iter_mut().enumerate() {
                code.li(X, LOCATIONS).li(13, 7).li(14, 7u64.wrapping_neg());
                code.li(NEW, 1).li(25, 0);
                let again = code.here();
                if me == 0 {
                    code.ldxr(10, X);
                }
                code.meet(me, NEW);
                if me == 1 {
                    way(code);
                }
                code.add(NEW, NEW, 1);
                code.meet(me, NEW);
                if me == 0 {
                    // x25: how often it failed.
                    code.stxr(11, 31, X)
                        .word(0x8b00_0000 | 11 << 16 | 25 << 5 | 25);
                }
                code.add(NEW, NEW, 1)
                    .li(12, 2 * TURNS)
                    .cmp_register(NEW, 12)
                    .b_if(LOWER, again);
                code.meet(me, NEW);
                if me == 0 {
                    code.str(25, 4, 0);
                }
            }
            run(&board, programs);
            let failed = if fails { TURNS } else { 0 };
            assert_eq!(board.get(DATA), failed, "{name}");
            assert_eq!(board.get(LOCATIONS), 0);
        }
    }
}
