//! What guests write is known, on engines that track it.

use std::sync::atomic::Ordering;

use aarch64::psci::function;
use aarch64::registers as r;
use dormer_engine::Exit;

use crate::assembler::*;
use crate::board::*;
use crate::programs::prologue;

/// The largest page of any host's.
const PAGE: u64 = 64 << 10;
const AREA: u64 = RAM + 0x20_0000;
const SIZE: u64 = 16 * PAGE;

/// What was taken of a span, in [`PAGE`]s counted from [`AREA`].
fn taken(board: &Board, start: u64, size: u64) -> Vec<u64> {
    let mut pages = Vec::new();
    for (at, size) in board.vm.take_writes(start, size).unwrap() {
        assert!(size > 0 && at.is_multiple_of(4096) && size.is_multiple_of(4096));
        pages.extend((at - AREA) / PAGE..=(at + size - 1 - AREA) / PAGE);
    }
    pages.dedup();
    pages
}

/// Loads programs for two processors, the first one's after `c`, that write pages 0 and 2 to 6 from [`AREA`] on by several
/// instructions and read page 1; and execute one more instruction with the address of a page in X1.
pub fn load_writers(board: &Board, mut c: Code, page: u64, more: (u64, u32)) {
    c.set(r::CPACR_EL1, 3 << 20).isb();
    c.turn_on_second(SECOND, 0);
    c.li(1, AREA).li(2, 0x77).li(4, DATA);
    let wait = c.here();
    c.ldr(5, 4, 0).cbz(5, wait);
    c.str(2, 1, 0).str(2, 1, 8);
    c.li(1, AREA + page).ldr(3, 1, 0);
    for (number, word) in [
        (3, 0xa93f_8822), // stp x2, x2, [x1, #-8]
        (5, 0x3d80_0020), // str q0, [x1]
        (6, 0xc89f_fc22), // stlr x2, [x1]
        more,
    ] {
        c.li(1, AREA + number * page).word(word);
    }
    c.psci(function::SYSTEM_OFF);
    let mut s = Code::at(SECOND);
    s.li(1, AREA + 4 * page).str(1, 1, 0);
    s.li(4, DATA).str(1, 4, 0);
    let stay = s.here();
    s.wfi().b(stay);
    board.load(&c);
    board.load(&s);
}

/// Whatever instruction writes, on whatever processor; what is read is not told, and what is taken is noted anew.
#[test]
fn written_memory_is_known() {
    let board = Board::new(2);
    // ldxrb w3, [x1]
    load_writers(&board, prologue(&board), PAGE, (9, 0x085f_7c23));
    let track = |start, size, on| board.vm.track_writes(start, size, on);
    track(AREA, SIZE, true).unwrap();
    assert!(track(AREA + PAGE, PAGE, true).is_err());
    assert!(track(AREA + SIZE + 0x100, PAGE, true).is_err());
    assert!(track(DEVICE & !(PAGE - 1), PAGE, true).is_err());
    assert!(taken(&board, AREA, SIZE).is_empty());
    board.run();
    assert_eq!(board.log().len(), 0, "{:x?}", board.log());
    // A part of it; the rest stays noted.
    assert_eq!(taken(&board, AREA, PAGE), [0]);
    assert_eq!(taken(&board, AREA, SIZE), [2, 3, 4, 5, 6]);
    assert!(taken(&board, AREA, SIZE).is_empty());
    assert_eq!(board.get(AREA + 8), 0x77);
    assert_eq!(board.get(AREA + 3 * PAGE - 8), 0x77);
}

/// Spans beside each other are tracked apart, from when on they are.
#[test]
fn spans_are_tracked_apart() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    c.li(1, AREA).li(2, AREA + 4 * PAGE).li(3, DEVICE).li(4, 1);
    let again = c.here();
    c.str(4, 1, 0).str(4, 2, 0).str(4, 3, 0).b(again);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    // Until the loop was gone through once at least.
    let mut round = || {
        for _ in 0..2 {
            board.written.store(0, Ordering::SeqCst);
            let kick = {
                let board = board.clone();
                std::thread::spawn(move || {
                    while board.written.load(Ordering::SeqCst) == 0 {
                        std::thread::yield_now();
                    }
                    board.vm.kick(0);
                })
            };
            assert_eq!(vcpu.run(&*board), Exit::Kicked);
            kick.join().unwrap();
        }
    };
    let track = |page: u64, on| {
        let at = AREA + page * PAGE;
        board.vm.track_writes(at, 2 * PAGE, on).unwrap();
    };
    round();
    track(0, true);
    round();
    // What was written before it was tracked is not told.
    track(4, true);
    assert_eq!(taken(&board, AREA, SIZE), [0]);
    round();
    assert_eq!(taken(&board, AREA, SIZE), [0, 4]);
    track(0, false);
    round();
    assert_eq!(taken(&board, AREA, SIZE), [4]);
    track(4, false);
    round();
    assert!(taken(&board, AREA, SIZE).is_empty());
}
