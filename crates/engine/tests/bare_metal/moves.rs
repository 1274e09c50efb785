//! A processor's state goes on in another machine.

use std::time::{Duration, Instant};

use aarch64::registers as r;
use dormer_engine::{Exit, State, Vcpu};

use crate::assembler::*;
use crate::board::*;

/// Registers, and values that none of them has at power-on.
const REGISTERS: &[(u16, u64)] = &[
    (r::TPIDR_EL0, 0x1111_2222_3333_4444),
    (r::TPIDR_EL1, 0x5555_6666_7777_8888),
    (r::TPIDRRO_EL0, 0x9999_aaaa_bbbb_cccc),
    (r::CONTEXTIDR_EL1, 0x4321),
    (r::TTBR0_EL1, TABLES | 5 << 48),
    (r::TTBR1_EL1, TABLES + 0x1000),
    (r::MAIR_EL1, 0xff44_0400),
    (r::VBAR_EL1, VECTORS),
    (r::ELR_EL1, 0x1234_5678),
    (r::SPSR_EL1, 0x6000_0345),
    (r::ESR_EL1, 0x5600_0007),
    (r::FAR_EL1, 0x0123_4567_89ab_cdef),
    (r::CNTKCTL_EL1, 3),
    (r::CNTV_CVAL_EL0, 1 << 60),
    (r::CNTV_CTL_EL0, 2),
    (r::MDSCR_EL1, 1 << 12),
    (r::DBGBVR0_EL1, 0x4004),
    (r::DBGBCR0_EL1, 0x1e4),
    (r::DBGWVR0_EL1, 0x8008),
    (r::DBGWCR0_EL1, 0x1ff4),
    (r::PMUSERENR_EL0, 0xd),
    (r::PMCCFILTR_EL0, 1 << 30),
];

/// Reads them all, the last general and vector registers and the stack pointer to [`DATA`], and waits.
fn tell(c: &mut Code) {
    c.li(4, DATA);
    for (register, _) in REGISTERS {
        c.mrs(3, *register).push(3, 4);
    }
    c.push(30, 4).add(3, 31, 0).push(3, 4);
    // str q31, [x4], #16; then a sign that all is told
    c.word(0x3c81_049f).li(3, 1).push(3, 4);
    let stay = c.here();
    c.b(stay);
}

const TOLD: u64 = REGISTERS.len() as u64 + 4;

/// Runs it until all is told.
fn told(board: &Board, vcpu: &mut Box<dyn Vcpu>) -> Vec<u64> {
    let start = Instant::now();
    while board.get(DATA + TOLD * 8) == 0 {
        assert!(start.elapsed() < Duration::from_secs(60));
        let vm = board.vm.clone();
        let kick = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            vm.kick(0);
        });
        assert_eq!(vcpu.run(board), Exit::Kicked);
        kick.join().unwrap();
    }
    (0..TOLD).map(|i| board.get(DATA + i * 8)).collect()
}

/// What a guest that starts with that state tells; with none, after it has set everything.
fn guest(state: Option<&State>) -> (Vec<u64>, State) {
    let board = Board::new(1);
    let mut c = Code::at(CODE);
    c.set(r::CPACR_EL1, 3 << 20).set(r::OSLAR_EL1, 0).isb();
    for (register, value) in REGISTERS {
        c.set(*register, *value);
    }
    c.li(30, 0xfeed).li(9, 0x7d20).add(31, 9, 0);
    // dup v31.2d, x30
    c.word(0x4e08_0fdf).isb();
    tell(&mut c);
    board.load(&c);
    let mut second = Code::at(SECOND);
    tell(&mut second);
    board.load(&second);
    let mut vcpu = vcpu(&board, 0, CODE);
    if let Some(state) = state {
        vcpu.set_state(&State {
            pc: SECOND,
            ..state.clone()
        })
        .unwrap();
    }
    let told = told(&board, &mut vcpu);
    let state = vcpu.state().unwrap();
    (told, state)
}

#[test]
fn state_goes_on_in_another_machine() {
    let power_on = {
        let board = Board::new(1);
        let mut vcpu = board.vm.vcpu(0).unwrap();
        vcpu.reset();
        let mut state = vcpu.state().unwrap();
        state.cpacr[1] = 3 << 20;
        state
    };
    let (first, state) = guest(None);
    let (second, _) = guest(Some(&state));
    for (i, (register, _)) in REGISTERS.iter().enumerate() {
        assert_eq!(first[i], second[i], "{:?}", r::name(*register));
    }
    assert_eq!(first, second);
    assert_eq!(first[REGISTERS.len()..], [0xfeed, 0x7d20, 0xfeed, 0xfeed]);
    // It is what was put there that moved.
    let (other, _) = guest(Some(&power_on));
    for (i, (register, _)) in REGISTERS.iter().enumerate() {
        assert_ne!(first[i], other[i], "{:?}", r::name(*register));
    }
}
