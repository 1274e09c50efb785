//! The programs, and what they must do on every engine.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use aarch64::esr::{class, status, syndrome, system_iss};
use aarch64::psci::function;
use aarch64::registers as r;
use dormer_engine::{Exit, Vcpu, World};

use crate::assembler::*;
use crate::board::*;

/// The start of most programs: vectors, log, stack, and what hosts start differently.
pub fn prologue(board: &Board) -> Code {
    board.load(&vectors());
    let mut c = Code::at(CODE);
    c.set(r::SCTLR_EL1, 0x30d0_0980).set(r::FAR_EL1, 0);
    board.turn_on_interrupts(&mut c);
    c.set(r::VBAR_EL1, VECTORS)
        .li(28, LOG)
        .li(9, RAM + 0x7_0000)
        .add(31, 9, 0)
        .isb();
    c
}

#[test]
fn exceptions_say_what_happened() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    let mut expected = Vec::new();
    // Vector 5: synchronous, of EL1 with SP_EL1. EL1h, DAIF masked.
    let el1 = |esr: u64, elr: u64, far: u64| [5, esr, elr, far, 0x3c5];

    expected.push(el1(syndrome(class::UNKNOWN, 0), c.address(), 0));
    c.word(0);
    expected.push(el1(syndrome(class::BRK, 0x123), c.address(), 0));
    c.word(0xd420_0000 | 0x123 << 5);
    expected.push(el1(syndrome(class::SVC, 0x42), c.address() + 4, 0));
    c.svc(0x42);
    // FP is off after reset: fmov d0, x0.
    expected.push(el1(syndrome(class::FP, 0x1e0_0000), c.address(), 0));
    c.word(0x9e67_0000);
    // The MMU is off: unaligned accesses of Device memory fault (of guests of guests, not where QEMU is the processor).
    if board.kernel.is_none() {
        c.li(1, DATA + 1);
        expected.push(el1(
            syndrome(class::DATA_ABORT, status::ALIGNMENT),
            c.address(),
            DATA + 1,
        ));
        // ldr x0, [x1]
        c.ldr(0, 1, 0);
    }
    // Nothing is there.
    c.li(1, 0x1000);
    // The kernel's own abort does not say that it was a write.
    let write = if board.kernel.is_some() { 0 } else { 1 << 6 };
    expected.push(el1(
        syndrome(class::DATA_ABORT, status::EXTERNAL | write),
        c.address(),
        0x1000,
    ));
    c.str(0, 1, 0);
    // No such register; one of EL2.
    for register in [r::encode(3, 0, 15, 1, 1), r::encode(3, 4, 1, 1, 0)] {
        expected.push(el1(syndrome(class::UNKNOWN, 0), c.address(), 0x1000));
        c.mrs(0, register);
    }
    // A jump to where no instruction can be.
    c.li(19, 0);
    let fixup = c.words.len() - 1;
    // ret x1, as BR leaves a trace in PSTATE.BTYPE where there is one.
    c.li(1, CODE + 0x802).word(0xd65f_0020);
    c.words[fixup] = 0xd503_201f;
    expected.push(el1(
        syndrome(class::PC_ALIGNMENT, 0),
        CODE + 0x802,
        CODE + 0x802,
    ));
    let back = c.address();
    // x19 must be set before the jump: patch the NOPs with an ADR.
    let by = (back - (CODE + fixup as u64 * 4)) as u32;
    c.words[fixup] = 0x1000_0013 | (by / 4) << 5 | (by & 3) << 29;
    // Instruction abort: nothing to fetch from.
    c.li(1, 0x2000);
    c.word(0x1000_0013 | 2 << 5); // adr x19, .+8
    c.word(0xd65f_0020);
    expected.push(el1(
        syndrome(class::INSTRUCTION_ABORT, status::EXTERNAL),
        0x2000,
        0x2000,
    ));
    // ERET to EL2 is illegal: to ELR, with PSTATE.IL.
    c.word(0x1000_0013 | 7 << 5); // adr x19, .+28
    let at = c.address();
    c.set(r::SPSR_EL1, 0x3c9)
        .set(r::ELR_EL1, 0x4000_0900)
        .eret();
    assert_eq!(c.address(), at + 24);
    expected.push([
        5,
        syndrome(class::ILLEGAL_STATE, 0),
        0x4000_0900,
        0x2000,
        0x10_03c5,
    ]);

    // EL0: vector 9.
    c.drop_to_el0(USER, 0x3c0);
    let mut u = Code::at(USER);
    let el0 = |esr: u64, elr: u64| [9, esr, elr, 0x2000, 0x3c0];
    expected.push(el0(syndrome(class::SVC, 7), u.address() + 4));
    u.svc(7);
    expected.push(el0(syndrome(class::WFX, 1 << 24 | 14 << 20), u.address()));
    u.wfi();
    expected.push(el0(
        syndrome(class::SYSTEM, system_iss(r::CTR_EL0, 3, true)),
        u.address(),
    ));
    u.mrs(3, r::CTR_EL0);
    expected.push(el0(
        syndrome(class::SYSTEM, system_iss(r::CNTVCT_EL0, 4, true)),
        u.address(),
    ));
    u.mrs(4, r::CNTVCT_EL0);
    expected.push(el0(
        syndrome(class::SYSTEM, system_iss(r::DC_CIVAC, 5, false)),
        u.address(),
    ));
    u.msr(r::DC_CIVAC, 5);
    expected.push(el0(
        syndrome(class::SYSTEM, system_iss(r::DC_ZVA, 5, false)),
        u.address(),
    ));
    u.msr(r::DC_ZVA, 5);
    if board.kernel.is_none() {
        // QEMU's processor has OP1 and OP2 of this one the wrong way round.
        let daif_set = system_iss(r::encode(0, 3, 4, 2, 6), 31, false);
        expected.push(el0(syndrome(class::SYSTEM, daif_set), u.address()));
        u.daif_set(2);
    }
    for undefined in [0xd538_1000, 0xd400_0002, 0xd69f_03e0, 0xd508_871f] {
        // mrs of SCTLR_EL1, hvc, eret, tlbi
        expected.push(el0(syndrome(class::UNKNOWN, 0), u.address()));
        u.word(undefined);
    }
    expected.push(el0(syndrome(class::SVC, 0xff), u.address() + 4));
    u.svc(0xff);
    board.load(&c);
    board.load(&u);
    board.run();
    let log = board.log();
    for (i, (seen, wanted)) in log.iter().zip(&expected).enumerate() {
        assert_eq!(seen, wanted, "exception {i}: {seen:x?}, not {wanted:x?}");
    }
    assert_eq!(log.len(), expected.len());
}

pub const NORMAL: u64 = 1 << 10 | 3 << 8;
const USER_PAGE: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const NON_GLOBAL: u64 = 1 << 11;
/// A virtual address with pages of its own.
pub const WINDOW: u64 = 0x8000_0000;
pub const LAST_TABLE: u64 = TABLES + 0x2000;

/// Tables of 4 KiB granules, 39 bits: RAM at its own address as a block, and [`WINDOW`] by pages.
pub fn map_window(board: &Board, pages: &[u64]) {
    board.put(TABLES, NORMAL | 1);
    board.put(TABLES + 8, RAM | NORMAL | 1);
    board.put(TABLES + 16, (TABLES + 0x1000) | 3);
    board.put(TABLES + 0x1000, LAST_TABLE | 3);
    for (i, page) in pages.iter().enumerate() {
        board.put(LAST_TABLE + i as u64 * 8, *page);
    }
}

pub fn mmu_on(c: &mut Code) {
    c.set(r::MAIR_EL1, 0xff)
        .set(r::TTBR0_EL1, TABLES)
        .set(r::TCR_EL1, 25 | 1 << 23 | 5 << 32);
    c.isb().set(r::SCTLR_EL1, 0x30d0_1805).isb();
}

#[test]
fn the_mmu_translates_and_protects() {
    let board = Board::new(1);
    map_window(
        &board,
        &[
            DATA | NORMAL | 3,
            DATA | NORMAL | READ_ONLY | 3,
            DATA | USER_PAGE | NORMAL | 3,
        ],
    );
    let mut c = prologue(&board);
    mmu_on(&mut c);
    c.li(1, WINDOW).li(2, 0x1111).str(2, 1, 8).ldr(3, 1, 8);
    c.li(4, DATA + 0x100).str(3, 4, 0);
    // The same memory, read-only: a read, then a write that faults at level 3.
    c.li(1, WINDOW + 0x1000).ldr(3, 1, 8).str(3, 4, 8);
    let write = c.address();
    c.str(3, 1, 8);
    // Not mapped.
    c.li(1, WINDOW + 0x3000);
    let missing = c.address();
    c.ldr(3, 1, 8);
    // PAN: EL1 may not touch EL0's page; LDTR may.
    c.li(1, WINDOW + 0x2000).word(0xd500_419f); // msr pan, #1
    let pan = c.address();
    c.ldr(3, 1, 8);
    c.word(0xf840_8823).str(3, 4, 16); // ldtr x3, [x1, #8]
    c.word(0xd500_409f).ldr(3, 1, 8).str(3, 4, 24);
    // EL1 never executes what EL0 can write.
    let fetch = WINDOW + 0x2000;
    c.word(0x1000_0013 | 2 << 5).br(1);
    // AT and PAR.
    c.li(1, WINDOW + 0x2008)
        .msr(r::AT_S1E0W, 1)
        .isb()
        .mrs(3, r::PAR_EL1)
        .str(3, 4, 32);
    c.li(1, WINDOW + 0x3008)
        .msr(r::AT_S1E1R, 1)
        .isb()
        .mrs(3, r::PAR_EL1)
        .str(3, 4, 40);
    // A page comes up once it is mapped and the TLB told.
    c.li(1, LAST_TABLE + 0x18)
        .li(2, (DATA + 0x1000) | NORMAL | 3)
        .str(2, 1, 0)
        .dsb();
    c.li(1, WINDOW + 0x3000).li(2, 0x77).str(2, 1, 0);
    c.li(3, LAST_TABLE + 0x18)
        .li(2, DATA | NORMAL | 3)
        .str(2, 3, 0)
        .dsb();
    c.li(2, (WINDOW + 0x3000) >> 12)
        .msr(r::TLBI_VAAE1IS, 2)
        .dsb()
        .isb();
    c.ldr(3, 1, 8).str(3, 4, 48);
    c.svc(0xff);
    board.load(&c);
    board.run();
    let at = |offset| board.get(DATA + 0x100 + offset);
    assert_eq!([at(0), at(8), at(16), at(24), at(48)], [0x1111; 5]);
    assert_eq!(board.get(DATA + 0x1000), 0x77);
    assert_eq!(at(32), 0xff << 56 | DATA | 1 << 11 | 1 << 9 | 3 << 7);
    assert_eq!(
        at(40),
        1 | u64::from(status::TRANSLATION | 3) << 1 | 1 << 11
    );
    let abort = |code: u32| syndrome(class::DATA_ABORT, code | 3);
    let log = board.log();
    let brief: Vec<_> = log.iter().map(|l| (l[1], l[2], l[3])).collect();
    assert_eq!(
        brief[0],
        (abort(status::PERMISSION | 1 << 6), write, WINDOW + 0x1008)
    );
    assert_eq!(
        brief[1],
        (abort(status::TRANSLATION), missing, WINDOW + 0x3008)
    );
    assert_eq!(brief[2], (abort(status::PERMISSION), pan, WINDOW + 0x2008));
    let fetch_fault = syndrome(class::INSTRUCTION_ABORT, status::PERMISSION | 3);
    assert_eq!(brief[3], (fetch_fault, fetch, fetch));
    assert_eq!(log.len(), 5);
}

#[test]
fn address_spaces_are_told_apart_by_asid() {
    let board = Board::new(1);
    map_window(&board, &[DATA | NON_GLOBAL | NORMAL | 3]);
    // Another set of tables, with another page in the window.
    let other = TABLES + 0x10_0000;
    for (offset, value) in [(0, 0), (8, RAM | NORMAL | 1), (16, (other + 0x1000) | 3)] {
        board.put(other + offset, value);
    }
    board.put(other + 0x1000, (other + 0x2000) | 3);
    board.put(other + 0x2000, (DATA + 0x1000) | NON_GLOBAL | NORMAL | 3);
    board.put(DATA, 1);
    board.put(DATA + 0x1000, 2);
    let mut c = prologue(&board);
    mmu_on(&mut c);
    c.li(9, 25 | 1 << 23 | 5 << 32 | 1 << 36)
        .msr(r::TCR_EL1, 9)
        .isb();
    c.li(1, WINDOW).li(4, DATA + 0x100);
    for (tables, asid) in [
        (TABLES, 1),
        (other, 0x101),
        (TABLES, 1),
        (other, 0x101),
        (TABLES, 1),
    ] {
        c.set(r::TTBR0_EL1, tables | asid << 48)
            .isb()
            .ldr(3, 1, 0)
            .push(3, 4);
    }
    // The old entry of ASID 0x101 goes with TLBI ASIDE1.
    c.li(2, other + 0x2000)
        .li(3, DATA | NON_GLOBAL | NORMAL | 3)
        .str(3, 2, 0)
        .dsb();
    c.li(2, 0x101 << 48).msr(r::TLBI_ASIDE1, 2).dsb().isb();
    c.set(r::TTBR0_EL1, other | 0x101 << 48)
        .isb()
        .ldr(3, 1, 0)
        .push(3, 4);
    c.svc(0xff);
    board.load(&c);
    board.run();
    let seen: Vec<_> = (0..6).map(|i| board.get(DATA + 0x100 + i * 8)).collect();
    assert_eq!(seen, [1, 2, 1, 2, 1, 1]);
}

#[test]
fn timers_interrupt() {
    for (control, tval, intid) in [
        (r::CNTV_CTL_EL0, r::CNTV_TVAL_EL0, 27),
        (r::CNTP_CTL_EL0, r::CNTP_TVAL_EL0, 30),
    ] {
        for sleeps in [true, false] {
            let board = Board::new(1);
            let mut c = prologue(&board);
            // 20 ms, waited for in WFI, or spinning.
            let wanted = board.vm.frequency() / 50;
            c.mrs(10, r::CNTVCT_EL0).set(tval, wanted).set(control, 1);
            if sleeps {
                // Masked, so that the interrupt cannot come before WFI.
                c.wfi();
            }
            c.daif_clear(2);
            let wait = c.here();
            c.li(1, LOG).ldr(2, 1, 0).cbz(2, wait);
            c.mrs(11, r::CNTVCT_EL0)
                .li(4, DATA)
                .str(10, 4, 0)
                .str(11, 4, 8);
            c.daif_set(2).svc(0xff);
            board.load(&c);
            let started = Instant::now();
            board.run();
            // Where time is counted in instructions, they may take less than is counted for them.
            if sleeps {
                assert!(started.elapsed() >= Duration::from_millis(20));
            }
            let log = board.log();
            // Vector 6: IRQ of EL1. The INTID is where FAR is otherwise.
            assert_eq!((log[0][0], log[0][3]), (6, intid));
            assert_eq!(log[0][4] & 0x3cf, 0x345);
            let ticks = board.get(DATA + 8) - board.get(DATA);
            assert!(ticks >= wanted, "{ticks}");
            assert_eq!(log.len(), 2);
        }
    }
}

/// A masked timer: WFI wakes up all the same, and nothing is taken until the mask is lifted.
#[test]
fn masked_interrupts_wake_and_wait() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    c.li(4, DATA)
        .set(r::CNTV_TVAL_EL0, 100_000)
        .set(r::CNTV_CTL_EL0, 1)
        .wfi();
    c.mrs(1, r::CNTV_CTL_EL0)
        .str(1, 4, 0)
        .mrs(1, r::ISR_EL1)
        .str(1, 4, 8);
    c.li(1, LOG).ldr(1, 1, 0).str(1, 4, 16);
    let unmask = c.address();
    c.daif_clear(2).word(0xd503_201f).svc(0xff);
    board.load(&c);
    board.run();
    assert_eq!(
        [board.get(DATA), board.get(DATA + 8), board.get(DATA + 16)],
        [5, 0x80, 0]
    );
    let log = board.log();
    assert_eq!((log[0][0], log[0][2]), (6, unmask + 4));
}

#[test]
#[cfg(target_os = "linux")]
fn an_idle_processor_sleeps() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    // Half a second of timer ticks of 4 ms.
    c.li(10, 125);
    let again = c.here();
    c.set(r::CNTV_TVAL_EL0, board.vm.frequency() / 250)
        .set(r::CNTV_CTL_EL0, 1)
        .wfi();
    c.daif_clear(2)
        .isb()
        .daif_set(2)
        .sub(10, 10, 1)
        .cbnz(10, again);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    let cpu_time = || {
        let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
        text.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let mut vcpu = vcpu(&board, 0, CODE);
    let started = Instant::now();
    let before = cpu_time();
    assert_eq!(vcpu.run(&*board), Exit::Off);
    let elapsed = started.elapsed();
    let used = Duration::from_nanos(cpu_time() - before);
    assert!(elapsed >= Duration::from_millis(495), "{elapsed:?}");
    // Where the host is emulated itself, what is beside the sleep takes long.
    let part = if board.kernel.is_some() { 80 } else { 10 };
    assert!(used * 100 < elapsed * part, "{used:?} of {elapsed:?}");
    assert_eq!(board.log().len(), 125);
}

#[test]
fn a_second_processor_is_turned_on_and_off() {
    let board = Board::new(2);
    let mut c = prologue(&board);
    c.turn_on_second(SECOND, 0x1234);
    c.li(4, DATA).str(0, 4, 0x20);
    // Its sign of life comes with SEV.
    let wait = c.here();
    c.wfe().ldr(1, 4, 0).cbz(1, wait);
    c.li(1, 1)
        .li(2, SECOND)
        .psci(function::CPU_ON_64)
        .str(0, 4, 0x28);
    // Let it go, and wait until it is off.
    c.li(1, 1).str(1, 4, 0x10).word(0xd503_209f);
    let poll = c.here();
    c.li(1, 1)
        .li(2, 0)
        .psci(function::AFFINITY_INFO_64)
        .cmp(0, 1)
        .b_if(NE, poll);
    // Again, elsewhere.
    c.turn_on_second(SECOND + 0x1000, 0).str(0, 4, 0x30);
    let done = c.here();
    c.wfi().b(done);
    let mut s = Code::at(SECOND);
    s.li(4, DATA)
        .mrs(1, r::MPIDR_EL1)
        .str(0, 4, 8)
        .dsb()
        .str(1, 4, 0)
        .word(0xd503_209f);
    let hold = s.here();
    s.wfe().ldr(1, 4, 0x10).cbz(1, hold).psci(function::CPU_OFF);
    let mut t = Code::at(SECOND + 0x1000);
    t.mrs(1, r::CURRENTEL)
        .li(4, DATA)
        .str(1, 4, 0x38)
        .psci(function::SYSTEM_OFF);
    board.load(&c);
    board.load(&s);
    board.load(&t);
    board.run();
    let at = |offset| board.get(DATA + offset);
    assert_eq!((at(0), at(8)), (1 << 31 | 1, 0x1234));
    assert_eq!((at(0x20), at(0x28) as i64, at(0x30)), (0, -4, 0));
    assert_eq!(at(0x38), 4);
}

/// One processor reads a page over and over; the other maps another page in its place and, after TLBI and DSB, poisons
/// the first. The reader must never see poison.
#[test]
fn shoot_downs_are_complete_at_dsb() {
    const ROUNDS: u64 = 500;
    const POISON: u64 = 0xdead;
    let (a, b) = (DATA + 0x1000, DATA + 0x2000);
    let board = Board::new(2);
    map_window(&board, &[a | NORMAL | 3]);
    let mut c = prologue(&board);
    mmu_on(&mut c);
    c.li(4, DATA).turn_on_second(SECOND, 0);
    let wait = c.here();
    c.ldr(1, 4, 0).cbz(1, wait);
    c.li(10, ROUNDS)
        .li(11, LAST_TABLE)
        .li(12, WINDOW >> 12)
        .li(15, POISON);
    c.li(5, a)
        .li(6, b)
        .li(7, a | NORMAL | 3)
        .li(8, b | NORMAL | 3);
    let round = c.here();
    for (old, new, descriptor) in [(5, 6, 8), (6, 5, 7)] {
        c.str(31, new, 0).dsb().str(descriptor, 11, 0).dsb();
        c.msr(r::TLBI_VAE1IS, 12).dsb().str(15, old, 0);
    }
    c.sub(10, 10, 1).cbnz(10, round);
    c.psci(function::SYSTEM_OFF);
    let mut s = Code::at(SECOND);
    mmu_on(&mut s);
    s.li(4, DATA).li(1, 1).str(1, 4, 0).li(5, WINDOW).li(6, 0);
    let read = s.here();
    s.ldr(1, 5, 0)
        .add(6, 6, 1)
        .str(6, 4, 16)
        .cbz(1, read)
        .str(1, 4, 8)
        .b(read);
    board.load(&c);
    board.load(&s);
    board.run();
    assert_eq!(board.get(DATA + 8), 0, "a stale translation was used");
    assert!(board.get(DATA + 16) > ROUNDS / 10);
}

/// Two processors that shoot each other's entries down all the time both get on.
#[test]
fn two_processors_in_dsb_do_not_block_each_other() {
    let board = Board::new(2);
    let mut c = prologue(&board);
    c.li(4, DATA).turn_on_second(SECOND, 0);
    let mut s = Code::at(SECOND);
    s.li(4, DATA);
    for (code, mine, other) in [(&mut c, 0, 8), (&mut s, 8, 0)] {
        code.li(10, 1000);
        let again = code.here();
        code.msr(r::TLBI_VMALLE1IS, 31)
            .dsb()
            .sub(10, 10, 1)
            .cbnz(10, again);
        code.li(1, 1).str(1, 4, mine);
        let wait = code.here();
        code.ldr(1, 4, other).cbz(1, wait);
    }
    c.psci(function::SYSTEM_OFF);
    let stay = s.here();
    s.wfi().b(stay);
    board.load(&c);
    board.load(&s);
    board.run();
}

#[test]
fn kicks_end_runs_and_state_can_be_changed() {
    let board = Board::new(1);
    let mut c = Code::at(CODE);
    let spin = c.here();
    c.add(1, 1, 1).cbz(0, spin);
    let sleep = c.here();
    c.wfi().b(sleep);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    let kick_after = |ms: u64| {
        let vm = board.vm.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(ms));
            vm.kick(0);
        })
    };
    // A kick before the run is not lost.
    board.vm.kick(0);
    assert_eq!(vcpu.run(&*board), Exit::Kicked);
    // A slow host may not have got there the first time.
    let mut state = vcpu.state().unwrap();
    for _ in 0..1000 {
        kick_after(20);
        assert_eq!(vcpu.run(&*board), Exit::Kicked);
        state = vcpu.state().unwrap();
        if state.x[1] > 1000 {
            break;
        }
    }
    assert!(state.x[1] > 1000 && state.pc < CODE + 8);
    state.x[0] = 1;
    vcpu.set_state(&state).unwrap();
    for _ in 0..3 {
        let started = Instant::now();
        kick_after(20);
        assert_eq!(vcpu.run(&*board), Exit::Kicked);
        assert!(started.elapsed() >= Duration::from_millis(15));
    }
    let asleep = vcpu.state().unwrap();
    assert!(
        (CODE + 8..CODE + 16).contains(&asleep.pc),
        "{:#x}",
        asleep.pc
    );
    // Reset is power-on.
    vcpu.reset();
    let state = vcpu.state().unwrap();
    assert_eq!(
        (state.pc, state.x[1], state.el, state.pstate),
        (0, 0, 1, 0x3c0)
    );
    let mut wrong = state.clone();
    wrong.el = 2;
    assert!(vcpu.set_state(&wrong).is_err());
}

/// CPU_SUSPEND waits for an interrupt, through kicks. The kernel's may end early.
#[test]
fn suspend_waits_for_an_interrupt() {
    let board = Board::new(1);
    if board.kernel.is_some() {
        return;
    }
    let mut c = prologue(&board);
    c.li(1, 0)
        .psci(function::CPU_SUSPEND_64)
        .li(4, DATA)
        .str(0, 4, 0)
        .psci(function::SYSTEM_OFF);
    board.load(&c);
    board.put(DATA, 0x55);
    let mut vcpu = vcpu(&board, 0, CODE);
    for _ in 0..3 {
        let vm = board.vm.clone();
        let kick = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            vm.kick(0);
        });
        assert_eq!(vcpu.run(&*board), Exit::Kicked);
        kick.join().unwrap();
    }
    assert_eq!(board.get(DATA), 0x55);
    board.private_interrupt(0, 20, true);
    assert_eq!(vcpu.run(&*board), Exit::Off);
    assert_eq!(board.get(DATA), 0);
}

#[test]
fn lines_are_levels_and_fiq_comes_first() {
    let board = Board::new(1);
    if board.kernel.is_some() {
        // No lines.
        return;
    }
    let mut c = prologue(&board);
    c.li(4, DATA).daif_clear(3);
    let spin = c.here();
    c.b(spin);
    board.load(&c);
    // The handlers of IRQ and FIQ log their number and stay.
    for (vector, number) in [(0x280, 6), (0x300, 7)] {
        let mut h = Code::at(VECTORS + vector);
        h.li(20, number).push(20, 28);
        let stay = h.here();
        h.b(stay);
        board.load(&h);
    }
    let mut vcpu = vcpu(&board, 0, CODE);
    // A line that fell again before the run is nothing.
    board.vm.set_irq(0, true);
    board.vm.set_irq(0, false);
    let run = |vcpu: &mut Box<dyn Vcpu>| {
        let vm = board.vm.clone();
        let kick = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            vm.set_irq(0, false);
            vm.set_fiq(0, false);
            vm.kick(0);
        });
        assert_eq!(vcpu.run(&*board), Exit::Kicked);
        kick.join().unwrap();
    };
    run(&mut vcpu);
    assert_eq!(board.get(LOG), 0);
    board.private_interrupt(0, 20, true);
    board.vm.set_fiq(0, true);
    run(&mut vcpu);
    // Vector 7: FIQ of EL1; all are masked then.
    assert_eq!([board.get(LOG), board.get(LOG + 8)], [7, 0]);
}

/// Software step: EL0 runs one instruction at a time.
#[test]
fn the_guest_steps_its_programs() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    // Handler of synchronous exceptions from EL0: logs ELR, arms the next step; ends with the SVC.
    let mut h = Code::at(VECTORS + 0x400);
    h.mrs(20, r::ESR_EL1)
        .mrs(21, r::ELR_EL1)
        .push(20, 28)
        .push(21, 28);
    h.lsr(22, 20, 26).cmp(22, 0x15);
    let on = h.skip_if(NE);
    h.psci(function::SYSTEM_OFF);
    h.land(on);
    h.mrs(23, r::SPSR_EL1)
        .li(24, 1 << 21)
        .word(0xaa18_02f7)
        .msr(r::SPSR_EL1, 23)
        .eret();
    c.set(r::OSLAR_EL1, 0)
        .set(r::MDSCR_EL1, 1)
        .drop_to_el0(USER, 1 << 21);
    let mut u = Code::at(USER);
    u.add(1, 1, 1).add(1, 1, 1).add(1, 1, 1).svc(3);
    board.load(&c);
    board.load(&h);
    board.load(&u);
    board.run();
    let step = syndrome(class::STEP_LOWER, 1 << 24 | status::DEBUG);
    let seen: Vec<_> = (0..8).map(|i| board.get(LOG + i * 8)).collect();
    let svc = syndrome(class::SVC, 3);
    assert_eq!(
        seen,
        [
            step,
            USER + 4,
            step,
            USER + 8,
            step,
            USER + 12,
            svc,
            USER + 16
        ],
        "{seen:x?}"
    );
}

/// A step that is pending from the start has stepped nothing: its syndrome says so.
#[test]
fn a_step_without_an_instruction_has_no_syndrome() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    // Handler of synchronous exceptions from EL0: logs ESR and ELR, arms the next step; ends with the SVC.
    let mut h = Code::at(VECTORS + 0x400);
    h.mrs(20, r::ESR_EL1)
        .mrs(21, r::ELR_EL1)
        .push(20, 28)
        .push(21, 28);
    h.lsr(22, 20, 26).cmp(22, 0x15);
    let on = h.skip_if(NE);
    h.psci(function::SYSTEM_OFF);
    h.land(on);
    h.set(r::SPSR_EL1, 1 << 21).eret();
    // PSTATE.SS is not armed.
    c.set(r::OSLAR_EL1, 0)
        .set(r::MDSCR_EL1, 1)
        .drop_to_el0(USER, 0);
    let mut u = Code::at(USER);
    u.add(1, 1, 1).svc(3);
    board.load(&c);
    board.load(&h);
    board.load(&u);
    board.run();
    let pending = syndrome(class::STEP_LOWER, status::DEBUG);
    let step = syndrome(class::STEP_LOWER, 1 << 24 | status::DEBUG);
    let seen: Vec<_> = (0..6).map(|i| board.get(LOG + i * 8)).collect();
    let svc = syndrome(class::SVC, 3);
    assert_eq!(
        seen,
        [pending, USER, step, USER + 4, svc, USER + 8],
        "{seen:x?}"
    );
}

/// Steps over what hardware hands to its hypervisor: each is one step.
#[test]
fn the_guest_steps_over_trapped_instructions() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    // Handler of synchronous exceptions from EL0: logs class and ELR, arms the next step; ends with the SVC.
    let mut h = Code::at(VECTORS + 0x400);
    h.mrs(20, r::ESR_EL1).lsr(20, 20, 26);
    h.mrs(21, r::ELR_EL1).push(20, 28).push(21, 28);
    h.cmp(20, 0x15);
    let on = h.skip_if(NE);
    h.psci(function::SYSTEM_OFF);
    h.land(on);
    h.set(r::SPSR_EL1, 1 << 21).eret();
    // EL0 may read the physical counter, and clean caches.
    c.set(r::CNTKCTL_EL1, 3)
        .set(r::SCTLR_EL1, 0x30d0_0980 | 1 << 26);
    c.set(r::OSLAR_EL1, 0)
        .set(r::MDSCR_EL1, 1)
        .drop_to_el0(USER, 1 << 21);
    let mut u = Code::at(USER);
    let mut expected = Vec::new();
    u.li(1, DEVICE);
    let start = u.words.len() as u64;
    // str; ldr; ldp; ldr, post-indexed; dc civac
    for word in [
        0xf900_0022,
        0xf940_0023,
        0xa940_1823,
        0xf840_0423,
        0xd50b_7e21,
    ] {
        u.word(word);
    }
    u.mrs(5, r::CNTPCT_EL0);
    for i in 1..=start + 6 {
        expected.extend([u64::from(class::STEP_LOWER), USER + 4 * i]);
    }
    u.svc(3);
    expected.extend([u64::from(class::SVC), u.address()]);
    board.load(&c);
    board.load(&h);
    board.load(&u);
    board.run();
    let seen: Vec<_> = (0..expected.len() as u64)
        .map(|i| board.get(LOG + i * 8))
        .collect();
    assert_eq!(seen, expected, "{seen:x?}");
}

#[test]
fn hardware_breakpoints_and_watchpoints() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    c.set(r::OSLAR_EL1, 0).set(r::MDSCR_EL1, 1 << 15);
    // A breakpoint at EL0's second instruction, a watchpoint on EL0's writes of a word.
    let (bvr, bcr) = (r::DBGBVR0_EL1 + (1 << 3), r::DBGBCR0_EL1 + (1 << 3));
    c.set(bvr, USER + 4).set(bcr, 0xf << 5 | 2 << 1 | 1);
    c.set(r::DBGWVR0_EL1, DATA)
        .set(r::DBGWCR0_EL1, 0xff << 5 | 2 << 3 | 2 << 1 | 1);
    c.drop_to_el0(USER, 0);
    let mut u = Code::at(USER);
    u.add(1, 1, 1).add(2, 2, 1).li(3, DATA).ldr(4, 3, 0);
    let store = u.address();
    u.str(4, 3, 0).svc(0xff);
    board.load(&c);
    board.load(&u);
    board.run();
    let log = board.log();
    assert_eq!(
        log[0][..3],
        [
            9,
            syndrome(class::BREAKPOINT_LOWER, status::DEBUG),
            USER + 4
        ]
    );
    let watch = syndrome(class::WATCHPOINT_LOWER, status::DEBUG | 1 << 6);
    assert_eq!(log[1][..4], [9, watch, store, DATA]);
    assert_eq!(log.len(), 3);
}

#[test]
fn the_cycle_counter_advances() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    c.set(r::PMCR_EL0, 0x45)
        .set(r::PMCNTENSET_EL0, 1 << 31)
        .isb();
    c.mrs(1, r::PMCCNTR_EL0)
        .mrs(2, r::PMCCNTR_EL0)
        .li(4, DATA)
        .str(1, 4, 0)
        .str(2, 4, 8);
    if board.kernel.is_some() {
        // The kernel's monitors interrupt when its own host's do, which an emulated host's need not.
        c.psci(function::SYSTEM_OFF);
    }
    // Overflow of 64 bits interrupts by PPI 23.
    c.set(r::PMINTENSET_EL1, 1 << 31)
        .set(r::PMCCNTR_EL0, u64::MAX - 2_000_000)
        .daif_clear(2);
    let wait = c.here();
    c.li(1, LOG).ldr(1, 1, 0).cbz(1, wait);
    c.mrs(1, r::PMOVSCLR_EL0)
        .str(1, 4, 16)
        .daif_set(2)
        .psci(function::SYSTEM_OFF);
    board.load(&c);
    board.run();
    assert!(board.get(DATA + 8) > board.get(DATA));
    if board.kernel.is_some() {
        return;
    }
    assert_eq!(board.get(DATA + 16), 1 << 31);
    assert_eq!((board.log()[0][0], board.log()[0][3]), (6, 23));
}

/// The guest's counter stands still while the machine is stopped.
#[test]
fn the_counter_goes_with_the_guests_clock() {
    let board = Board::new(1);
    let mut c = Code::at(CODE);
    c.li(4, DATA);
    let again = c.here();
    c.mrs(1, r::CNTVCT_EL0).str(1, 4, 0).b(again);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    let mut run = |ms: u64| {
        let vm = board.vm.clone();
        let kick = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(ms));
            vm.kick(0);
        });
        assert_eq!(vcpu.run(&*board), Exit::Kicked);
        kick.join().unwrap();
        board.get(DATA)
    };
    let before = run(20);
    board.clock.stop();
    std::thread::sleep(Duration::from_millis(300));
    board.clock.start();
    let after = run(20);
    let elapsed = after - before;
    let quarter = board.vm.frequency() / 4;
    assert!((1..quarter).contains(&elapsed), "{elapsed}");
}

#[test]
fn devices_are_reached() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    c.li(1, DEVICE)
        .li(2, 0x1234_5678)
        .str(2, 1, 8)
        .ldr(3, 1, 0)
        .li(4, DATA)
        .str(3, 4, 0);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    board.run();
    assert_eq!(board.written.load(Ordering::SeqCst), 0x1234_5678);
    assert_eq!(board.get(DATA), 0x1234_5678);
    assert_eq!(board.log().len(), 0);
}
