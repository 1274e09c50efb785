//! Debuggers outside of the guest: what they ask for ends runs.

use std::sync::{Arc, Weak};

use aarch64::esr::{class, syndrome};
use aarch64::psci::function;
use aarch64::registers as r;
use dormer_engine::{Debugger, Exit, Stop, Vcpu, Vm, Watch, World};
use memory::{Access, Mapping, Mmio};

use crate::assembler::*;
use crate::board::*;
use crate::programs::prologue;

fn stepping() -> Debugger {
    Debugger {
        step: true,
        ..Debugger::default()
    }
}

/// Runs once more; what stopped it, and where.
fn stop(board: &Board, vcpu: &mut Box<dyn Vcpu>) -> (Stop, u64) {
    match vcpu.run(board) {
        Exit::Debug(stop) => (stop, vcpu.state().unwrap().pc),
        other => panic!("{other:?}"),
    }
}

/// One instruction a run, also of those that hardware hands to its hypervisor; and the guest sees nothing of it.
#[test]
fn a_debugger_steps() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    c.li(1, DEVICE).li(2, 0x1234).li(4, DATA);
    let start = c.address();
    let mut expected = Vec::new();
    let next = |c: &Code, expected: &mut Vec<u64>| expected.push(c.address());
    // str x2, [x1]; ldp x5, x6, [x1]; ldr x7, [x1]; cntpct; dc civac of the device; wfi; daifclr
    for word in [0xf900_0022, 0xa940_1825, 0xf940_0027] {
        c.word(word);
        next(&c, &mut expected);
    }
    c.mrs(8, r::CNTPCT_EL0);
    next(&c, &mut expected);
    c.word(0xd50b_7e21);
    next(&c, &mut expected);
    c.wfi();
    next(&c, &mut expected);
    c.word(0xd280_0000 | (function::VERSION & 0xffff) << 5);
    next(&c, &mut expected);
    c.word(0xf2a0_0000 | (function::VERSION >> 16) << 5);
    next(&c, &mut expected);
    for word in [0xd400_0002u32, 0xd503_201f, 0xd400_0003] {
        // hvc, nop, smc
        c.word(word);
        next(&c, &mut expected);
    }
    // An exception of the instruction itself, which saves PSTATE as it was before it.
    let undefined = c.address();
    c.word(0);
    expected.push(VECTORS + 0x200);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    vcpu.debug(&Debugger {
        breakpoints: vec![start],
        ..Debugger::default()
    })
    .unwrap();
    assert_eq!(stop(&board, &mut vcpu), (Stop::Breakpoint, start));
    vcpu.debug(&stepping()).unwrap();
    for (i, at) in expected.iter().enumerate() {
        assert_eq!(stop(&board, &mut vcpu), (Stop::Step, *at), "step {i}");
    }
    let state = vcpu.state().unwrap();
    assert_eq!(
        (state.x[5], state.x[7], state.x[8] > 0),
        (0x1234, 0x1234, true)
    );
    // Neither PSTATE nor what the handler finds of it says that it is stepped.
    assert_eq!(state.pstate & 1 << 21, 0);
    vcpu.debug(&Debugger::default()).unwrap();
    assert_eq!(vcpu.run(&*board), Exit::Off);
    let log = board.log();
    assert_eq!(log.len(), 1);
    assert_eq!(
        log[0][..3],
        [5, syndrome(class::UNKNOWN, 0), undefined],
        "{:x?}",
        log[0]
    );
    assert_eq!(log[0][4] & 1 << 21, 0);
}

/// A device that kicks who writes to it.
struct Kicker(Weak<dyn Vm>);

const KICKER: u64 = 0x0a00_0000;

impl Mmio for Kicker {
    fn read(&self, _: Access) -> u64 {
        0
    }

    fn write(&self, access: Access, _: u64) {
        if let Some(vm) = self.0.upgrade() {
            vm.kick(access.cpu);
        }
    }
}

/// A kick in the middle of a step, and an interrupt in its place, leave it one step.
#[test]
fn a_step_survives_kicks_and_interrupts() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    c.daif_clear(2);
    c.li(1, KICKER);
    let at = c.address();
    // nop; str x1, [x1]; nop; nop
    c.word(0xd503_201f).word(0xf900_0021);
    c.word(0xd503_201f).word(0xd503_201f);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    let kicker = Kicker(Arc::downgrade(&board.vm));
    board
        .space
        .map(KICKER, 0x1000, Mapping::Mmio(Arc::new(kicker)))
        .unwrap();
    let mut vcpu = vcpu(&board, 0, CODE);
    vcpu.debug(&Debugger {
        breakpoints: vec![at],
        ..Debugger::default()
    })
    .unwrap();
    assert_eq!(stop(&board, &mut vcpu), (Stop::Breakpoint, at));
    vcpu.debug(&stepping()).unwrap();
    board.vm.kick(0);
    assert_eq!(vcpu.run(&*board), Exit::Kicked);
    assert_eq!(vcpu.state().unwrap().pstate & 1 << 21, 0);
    assert_eq!(stop(&board, &mut vcpu), (Stop::Step, at + 4));
    // A kick behind the instruction.
    assert_eq!(vcpu.run(&*board), Exit::Kicked);
    assert_eq!(stop(&board, &mut vcpu), (Stop::Step, at + 8));
    board.private_interrupt(0, 20, true);
    // Taken before the instruction; the handler's first is the next.
    let (why, pc) = stop(&board, &mut vcpu);
    assert_eq!(why, Stop::Step);
    assert!(pc == VECTORS + 0x280 || pc == VECTORS + 0x284, "{pc:#x}");
}

#[test]
fn a_debugger_has_breakpoints_at_both_levels() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    let first = c.address();
    c.add(1, 1, 1).drop_to_el0(USER, 0);
    let mut u = Code::at(USER);
    u.add(1, 1, 1);
    let second = u.address();
    u.add(1, 1, 1).svc(0xff);
    board.load(&c);
    board.load(&u);
    let mut vcpu = vcpu(&board, 0, CODE);
    let both = Debugger {
        breakpoints: vec![first, second],
        ..Debugger::default()
    };
    for (at, x1) in [(first, 0), (second, 2)] {
        vcpu.debug(&both).unwrap();
        assert_eq!(stop(&board, &mut vcpu), (Stop::Breakpoint, at));
        assert_eq!(vcpu.state().unwrap().x[1], x1);
        // On from it.
        vcpu.debug(&stepping()).unwrap();
        assert_eq!(stop(&board, &mut vcpu), (Stop::Step, at + 4));
    }
    vcpu.debug(&both).unwrap();
    assert_eq!(vcpu.run(&*board), Exit::Off);
}

#[test]
fn a_debugger_watches_accesses() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    c.li(1, DATA).li(2, 7);
    let mut at = Vec::new();
    for word in [
        0xb900_0822, // str w2, [x1, #8]
        0xb940_0823, // ldr w3, [x1, #8]
        0xb940_0c23, // ldr w3, [x1, #12]
        0x3900_2822, // strb w2, [x1, #10]
        0xf940_4023, // ldr x3, [x1, #128]
        0xf900_5c22, // str x2, [x1, #184]
        0xf900_6022, // str x2, [x1, #192]
    ] {
        at.push(c.address());
        c.word(word);
    }
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    let watch = |address, bytes, read, write| Watch {
        address,
        bytes,
        read,
        write,
    };
    let wanted = Debugger {
        watchpoints: vec![
            watch(DATA + 8, 4, false, true),
            watch(DATA + 128, 64, true, true),
        ],
        ..Debugger::default()
    };
    for (i, address) in [(0, 8), (3, 10), (4, 128), (5, 184)] {
        vcpu.debug(&wanted).unwrap();
        let seen = stop(&board, &mut vcpu);
        assert_eq!(seen, (Stop::Watchpoint(DATA + address), at[i]));
        vcpu.debug(&stepping()).unwrap();
        assert_eq!(stop(&board, &mut vcpu), (Stop::Step, at[i] + 4));
    }
    vcpu.debug(&wanted).unwrap();
    assert_eq!(vcpu.run(&*board), Exit::Off);
    assert_eq!(board.get(DATA + 184), 7);
    // What hardware cannot watch.
    for (address, bytes) in [(DATA, 3), (DATA + 4, 8)] {
        let wanted = Debugger {
            watchpoints: vec![watch(address, bytes, true, true)],
            ..Debugger::default()
        };
        assert!(vcpu.debug(&wanted).is_err());
    }
}

/// BRK is the debugger's only if it wants it.
#[test]
fn breaks_are_the_debuggers_or_the_guests() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    let at = c.address();
    c.word(0xd420_0000 | 0x42 << 5);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    vcpu.debug(&Debugger {
        breaks: true,
        ..Debugger::default()
    })
    .unwrap();
    for _ in 0..2 {
        assert_eq!(stop(&board, &mut vcpu), (Stop::Break(0x42), at));
    }
    // Another debugger, which does not.
    vcpu.debug(&Debugger {
        breakpoints: vec![DATA],
        ..Debugger::default()
    })
    .unwrap();
    assert_eq!(vcpu.run(&*board), Exit::Off);
    let log = board.log();
    assert_eq!(log[0][..3], [5, syndrome(class::BRK, 0x42), at]);
    assert_eq!(log.len(), 1);
}

/// The guest's own breakpoints are there again when the debugger is gone.
#[test]
fn the_guests_breakpoints_outlive_a_debugger() {
    let board = Board::new(1);
    let mut c = prologue(&board);
    c.set(r::OSLAR_EL1, 0).set(r::MDSCR_EL1, 1 << 15);
    c.set(r::DBGBVR0_EL1, USER + 4)
        .set(r::DBGBCR0_EL1, 0xf << 5 | 2 << 1 | 1);
    let stop_here = c.address();
    c.mrs(5, r::DBGBVR0_EL1).mrs(6, r::MDSCR_EL1);
    c.drop_to_el0(USER, 0);
    let mut u = Code::at(USER);
    u.add(1, 1, 1).add(1, 1, 1).svc(0xff);
    board.load(&c);
    board.load(&u);
    let mut vcpu = vcpu(&board, 0, CODE);
    vcpu.debug(&Debugger {
        breakpoints: vec![stop_here],
        ..Debugger::default()
    })
    .unwrap();
    assert_eq!(stop(&board, &mut vcpu), (Stop::Breakpoint, stop_here));
    // It reads its own registers meanwhile.
    vcpu.debug(&stepping()).unwrap();
    for i in 1..3 {
        assert_eq!(stop(&board, &mut vcpu), (Stop::Step, stop_here + 4 * i));
    }
    let state = vcpu.state().unwrap();
    assert_eq!((state.x[5], state.x[6]), (USER + 4, 1 << 15));
    vcpu.debug(&Debugger::default()).unwrap();
    assert_eq!(vcpu.run(&*board), Exit::Off);
    let log = board.log();
    assert_eq!((log[0][1] >> 26, log[0][2]), (0x30, USER + 4));
    assert_eq!(log.len(), 2);
}
