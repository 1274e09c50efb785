//! Exceptions and returns that are gone through again and again, so that generated code has ways of its own for them: what
//! is rare about them.

use aarch64::esr::{class, status, syndrome};
use aarch64::psci::function;
use aarch64::registers as r;

use crate::assembler::*;
use crate::attacks::boards;
use crate::board::*;
use crate::programs::prologue;

const TURNS: u64 = 24;
/// Vectors: synchronous exceptions and interrupts from EL1, and from EL0.
const FROM_EL1: u64 = VECTORS + 0x200;
const INTERRUPTS_EL1: u64 = VECTORS + 0x280;
const FROM_EL0: u64 = VECTORS + 0x400;
const INTERRUPTS_EL0: u64 = VECTORS + 0x480;

/// Counts a turn of those in X10, and begins the next, or turns the machine off.
fn again(c: &mut Code, start: u64) {
    c.sub(10, 10, 1).li(9, start).cmp(10, 0);
    let over = c.skip_if(EQ);
    c.br(9);
    c.land(over);
    c.psci(function::SYSTEM_OFF);
}

/// Runs a program, whose turns each log what is expected, by every tier. It is made by a function, which is told where
/// its turns begin.
fn check(make: impl Fn(&mut Code, u64) -> Vec<Code>, expected: impl Fn(u64) -> Vec<u64>) {
    for board in boards(1) {
        let mut c = prologue(&board);
        c.li(10, TURNS).li(11, 0);
        let start = c.address();
        for piece in make(&mut c, start) {
            board.load(&piece);
        }
        board.load(&c);
        board.run();
        let expected: Vec<u64> = (0..TURNS).flat_map(&expected).collect();
        let logged: Vec<u64> = (0..expected.len() as u64)
            .map(|i| board.get(LOG + 8 * i))
            .collect();
        assert_eq!(logged, expected, "{logged:x?}");
    }
}

/// An interrupt that waits is taken before the first instruction that it is not masked at.
#[test]
fn a_return_unmasks_what_waits() {
    for (spsr, to, vector) in [
        (0x340, USER, INTERRUPTS_EL0),
        (0x345, SECOND, INTERRUPTS_EL1),
    ] {
        let make = |c: &mut Code, start| {
            c.set(r::CNTV_TVAL_EL0, 0).set(r::CNTV_CTL_EL0, 1);
            let wait = c.here();
            c.mrs(1, r::ISR_EL1).cbz(1, wait);
            c.set(r::ELR_EL1, to).set(r::SPSR_EL1, spsr).eret();
            let mut h = Code::at(vector);
            h.mrs(21, r::ELR_EL1).push(21, 28).push(11, 28);
            h.msr(r::CNTV_CTL_EL0, 31);
            again(&mut h, start);
            let mut u = Code::at(to);
            u.add(11, 11, 1);
            let stay = u.here();
            u.b(stay);
            vec![h, u]
        };
        check(make, |_| vec![to, 0]);
    }
}

/// To EL2, to AArch32, to EL0 on another stack pointer, to a reserved mode; and where IL is set already.
#[test]
fn illegal_returns_stay_where_they_are() {
    for (spsr, seen) in [
        (0x3c9, 0x10_03c5),
        (0x1d0, 0x10_01c5),
        (0x241, 0x10_0245),
        (0x3c2, 0x10_03c5),
        (0x6010_03c5, 0x6010_03c5),
    ] {
        let make = |c: &mut Code, start| {
            c.set(r::ELR_EL1, SECOND).set(r::SPSR_EL1, spsr).eret();
            let mut h = Code::at(FROM_EL1);
            h.mrs(21, r::ESR_EL1).push(21, 28);
            h.mrs(21, r::ELR_EL1).push(21, 28);
            h.mrs(21, r::SPSR_EL1).push(21, 28);
            again(&mut h, start);
            vec![h]
        };
        let esr = syndrome(class::ILLEGAL_STATE, 0);
        check(make, |_| vec![esr, SECOND, seen]);
    }
}

/// What EL1 finds in PSTATE is as SCTLR_EL1 says, which changes from turn to turn.
#[test]
fn exceptions_set_what_sctlr_says() {
    const SPAN: u64 = 1 << 23;
    const DSSBS: u64 = 1 << 44;
    const SSBS: u64 = 1 << 12;
    const PAN: u64 = 1 << 22;
    let make = |c: &mut Code, start| {
        // X11 is 0 and 1 in turn.
        c.li(12, 0x30d0_0980).li(13, (0x30d0_0980 | DSSBS) & !SPAN);
        c.cmp(11, 0);
        // csel x12, x12, x13, eq; eor x11, x11, #1
        c.word(0x9a8d_018c).word(0xd240_016b);
        c.msr(r::SCTLR_EL1, 12).isb();
        c.drop_to_el0(USER, 0x9000_03c0 | SSBS);
        let mut h = Code::at(FROM_EL0);
        h.mrs(21, r::PAN).push(21, 28).mrs(21, r::SSBS).push(21, 28);
        h.mrs(21, r::SPSR_EL1).push(21, 28);
        h.mrs(21, r::DAIF)
            .push(21, 28)
            .mrs(21, r::ELR_EL1)
            .push(21, 28);
        again(&mut h, start);
        let mut u = Code::at(USER);
        u.svc(5);
        vec![h, u]
    };
    check(make, |turn| {
        let (pan, ssbs) = if turn % 2 == 0 { (0, 0) } else { (PAN, SSBS) };
        vec![pan, ssbs, 0x9000_03c0 | SSBS, 0x3c0, USER + 4]
    });
}

/// A load-exclusive before a return does not go with a store-exclusive after it.
#[test]
fn returns_clear_the_monitor() {
    // ldxr x2, [x1]; stxr w3, x2, [x1]
    let (load, store) = (0xc85f_7c22, 0xc803_7c22);
    for (spsr, to) in [(0x3c0, USER), (0x3c5, SECOND)] {
        let make = |c: &mut Code, start| {
            c.li(1, DATA).word(load).word(store).push(3, 28);
            c.set(r::ELR_EL1, to).set(r::SPSR_EL1, spsr);
            c.word(load).eret();
            let mut u = Code::at(to);
            u.word(store).svc(1);
            let handler = |vector| {
                let mut h = Code::at(vector);
                h.push(3, 28);
                again(&mut h, start);
                h
            };
            vec![u, handler(FROM_EL0), handler(FROM_EL1)]
        };
        check(make, |_| vec![0, 1]);
    }
}

/// SVC completes its step before its exception is taken; a return arms the next.
#[test]
fn calls_and_returns_are_steps() {
    let make = |c: &mut Code, start| {
        c.set(r::OSLAR_EL1, 0).set(r::MDSCR_EL1, 1);
        c.drop_to_el0(USER, 1 << 21);
        let mut h = Code::at(FROM_EL0);
        h.mrs(20, r::ESR_EL1).push(20, 28);
        h.mrs(21, r::ELR_EL1).push(21, 28);
        h.lsr(22, 20, 26).cmp(22, 0x15);
        let on = h.skip_if(NE);
        h.mrs(21, r::SPSR_EL1).push(21, 28);
        again(&mut h, start);
        h.land(on);
        h.set(r::SPSR_EL1, 1 << 21).eret();
        let mut u = Code::at(USER);
        u.word(0xd503_201f).svc(3);
        vec![h, u]
    };
    let step = syndrome(class::STEP_LOWER, 1 << 24 | status::DEBUG);
    let call = syndrome(class::SVC, 3);
    check(make, |_| vec![step, USER + 4, call, USER + 8, 0]);
}
