//! Guest time counted in instructions: the bare-metal programs on it, and what it is for.

#[path = "bare_metal/assembler.rs"]
mod assembler;
#[path = "bare_metal/board.rs"]
mod board;
#[path = "bare_metal/debugging.rs"]
mod debugging;
#[path = "bare_metal/programs.rs"]
mod programs;

use std::sync::Arc;
use std::time::{Duration, Instant};

use aarch64::psci::function;
use aarch64::registers as r;
use dormer_engine::jit::Jit;
use dormer_engine::{
    AddressBits, Config, Engine, Error, Exit, Icount, Tier, Translation, Vcpu, Vm,
};

use assembler::Code;
use board::{Board, CODE, DATA, SECOND, vcpu};
use programs::prologue;

/// The engine under test.
fn engine() -> Box<dyn Engine> {
    Box::new(Counting(Icount {
        shift: 3,
        sleep: true,
    }))
}

/// `jit` on a counted clock.
struct Counting(Icount);

impl Engine for Counting {
    fn name(&self) -> &'static str {
        Jit.name()
    }

    fn address_bits(&self) -> AddressBits {
        Jit.address_bits()
    }

    fn create(&self, config: Config) -> Result<Arc<dyn Vm>, Error> {
        Jit.create(Config {
            clock: device::Clock::counted(),
            // A tick is a nanosecond.
            frequency: config.frequency.max(1_000_000_000),
            icount: Some(self.0),
            ..config
        })
    }
}

fn counting(shift: u8, sleep: bool, cpus: u32) -> Arc<Board> {
    Board::on(&Counting(Icount { shift, sleep }), cpus)
}

fn executed(vcpu: &mut dyn Vcpu) -> u64 {
    let report = vcpu.report().unwrap();
    report.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn time_is_instructions() {
    for shift in [0, 3, 10] {
        let board = counting(shift, true, 1);
        let mut c = Code::at(CODE);
        c.mrs(1, r::CNTVCT_EL0).li(3, 1000);
        let again = c.here();
        c.sub(3, 3, 1).cbnz(3, again);
        c.mrs(2, r::CNTVCT_EL0).psci(function::SYSTEM_OFF);
        board.load(&c);
        let mut vcpu = vcpu(&board, 0, CODE);
        assert_eq!(vcpu.run(&*board), Exit::Off);
        let state = vcpu.state().unwrap();
        assert_eq!(state.x[1], 0);
        // The first reading, and what sets the loop up.
        assert_eq!(state.x[2], (2 + 2 * 1000) << shift);
        // The second reading, and two that make the call, before the call itself.
        assert_eq!(executed(&mut *vcpu), 2002 + 1 + 2 + 1);
    }
}

#[test]
fn an_interrupt_comes_at_its_instruction() {
    let seen = || {
        let board = counting(2, false, 1);
        let mut c = prologue(&board);
        c.set(r::CNTV_TVAL_EL0, 100_001).set(r::CNTV_CTL_EL0, 1);
        c.daif_clear(2).li(5, 0);
        let again = c.here();
        // The handler turns the timer off.
        c.add(5, 5, 1).mrs(7, r::CNTV_CTL_EL0).cbnz(7, again);
        c.psci(function::SYSTEM_OFF);
        board.load(&c);
        let mut vcpu = vcpu(&board, 0, CODE);
        assert_eq!(vcpu.run(&*board), Exit::Off);
        let log = board.log();
        assert_eq!(log.len(), 1);
        let state = vcpu.state().unwrap();
        (state.x, log, executed(&mut *vcpu))
    };
    let first = seen();
    // 100,001 ns are 25,001 instructions; three a turn.
    assert!((8325..8334).contains(&first.0[5]), "{first:x?}");
    assert_eq!(first, seen());
}

/// Two processors race for a word with no regard for each other.
fn race(kick: bool) -> (u64, u64, u64, u64) {
    const TURNS: u64 = 100_000;
    let board = counting(3, false, 2);
    let body = |c: &mut Code, factor: u32| {
        c.li(10, DATA).li(11, TURNS).li(12, factor.into());
        let again = c.here();
        // x13 = [x10]; x13 = x13 * x12 + x11; [x10] = x13
        c.ldr(13, 10, 0)
            .word(0x9b0c_2dad)
            .str(13, 10, 0)
            .sub(11, 11, 1)
            .cbnz(11, again);
    };
    let mut c = prologue(&board);
    c.turn_on_second(SECOND, 0);
    body(&mut c, 3);
    let wait = c.here();
    c.wfe().ldr(14, 10, 8).cbz(14, wait);
    c.mrs(15, r::CNTVCT_EL0)
        .str(15, 10, 16)
        .psci(function::SYSTEM_OFF);
    let mut second = Code::at(SECOND);
    body(&mut second, 5);
    second.mrs(15, r::CNTVCT_EL0).str(15, 10, 24);
    second.li(14, 1).str(14, 10, 8).psci(function::CPU_OFF);
    board.load(&c);
    board.load(&second);
    let kicks = kick.then(|| {
        let board = board.clone();
        std::thread::spawn(move || {
            while !board.stop.load(std::sync::atomic::Ordering::SeqCst) {
                board.vm.kick(0);
                board.vm.kick(1);
                std::thread::sleep(Duration::from_micros(50));
            }
        })
    });
    board.run();
    if let Some(kicks) = kicks {
        kicks.join().unwrap();
    }
    (
        board.get(DATA),
        board.get(DATA + 8),
        board.get(DATA + 16),
        board.get(DATA + 24),
    )
}

#[test]
fn processors_take_turns_that_repeat() {
    let first = race(false);
    assert_eq!(first.1, 1);
    for _ in 0..3 {
        assert_eq!(race(false), first);
    }
    // Runs that are interrupted go on where they were.
    assert_eq!(race(true), first);
}

/// How many store-exclusives of a long loop fail.
fn failures() -> u64 {
    let board = counting(0, false, 1);
    let mut c = Code::at(CODE);
    c.li(10, DATA).li(11, 100_000).li(5, 0);
    let again = c.here();
    // ldxr x1, [x10]; …; stxr w2, x1, [x10]; add x5, x5, x2
    c.word(0xc85f_7d41);
    for _ in 0..40 {
        c.add(1, 1, 1);
    }
    c.word(0xc802_7d41)
        .word(0x8b02_00a5)
        .sub(11, 11, 1)
        .cbnz(11, again);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    assert_eq!(vcpu.run(&*board), Exit::Off);
    vcpu.state().unwrap().x[5]
}

/// Another machine of this process does atomics everywhere, as processors at other host addresses might.
#[test]
fn store_exclusives_fail_by_what_the_machine_does_alone() {
    let quiet = failures();
    let other = Board::on(&Jit, 1);
    let mut c = Code::at(CODE);
    let all = c.here();
    c.li(10, DATA).li(11, 1 << 12);
    let again = c.here();
    // ldadd x1, x2, [x10]
    c.word(0xf821_0142).add(10, 10, 16).sub(11, 11, 1);
    c.cbnz(11, again).b(all);
    other.load(&c);
    let mut vcpu = vcpu(&other, 0, CODE);
    std::thread::scope(|scope| {
        let disturbed = scope.spawn(|| {
            let disturbed = failures();
            other.vm.kick(0);
            disturbed
        });
        assert_eq!(vcpu.run(&*other), Exit::Kicked);
        assert_eq!(disturbed.join().unwrap(), quiet);
    });
}

/// WFI for so many nanoseconds, again and again, and the time at its end.
fn naps(sleep: bool, nap: u64, count: u64) -> (u64, u64, Duration) {
    let board = counting(0, sleep, 1);
    let mut c = prologue(&board);
    c.li(10, count);
    let again = c.here();
    c.set(r::CNTV_TVAL_EL0, nap).set(r::CNTV_CTL_EL0, 1).wfi();
    c.mrs(11, r::CNTVCT_EL0).mrs(12, r::CNTV_CVAL_EL0);
    c.sub(10, 10, 1).cbnz(10, again);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    let started = Instant::now();
    assert_eq!(vcpu.run(&*board), Exit::Off);
    let state = vcpu.state().unwrap();
    (state.x[11], state.x[12], started.elapsed())
}

#[test]
fn waits_end_at_the_deadline() {
    // TVAL is 32 bits, signed: two seconds are the most.
    let (woken, deadline, elapsed) = naps(false, 2_000_000_000, 1000);
    // The time of the first instruction after it.
    assert_eq!(woken, deadline);
    assert!(woken >= 2_000_000_000_000);
    assert!(elapsed < Duration::from_secs(60), "{elapsed:?}");
    let (woken, deadline, elapsed) = naps(true, 20_000_000, 5);
    assert_eq!(woken, deadline);
    assert!(elapsed >= Duration::from_millis(99), "{elapsed:?}");
}

#[test]
fn a_kick_ends_what_waits() {
    let board = counting(0, true, 2);
    let mut c = Code::at(CODE);
    let again = c.here();
    c.wfi().b(again);
    board.load(&c);
    let mut first = vcpu(&board, 0, CODE);
    let kick = |cpu: u32| {
        let vm = board.vm.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            vm.kick(cpu);
        })
    };
    // All wait, and there is no deadline.
    let kicker = kick(0);
    assert_eq!(first.run(&*board), Exit::Kicked);
    kicker.join().unwrap();
    // The other has the turn, outside of a run.
    let mut second = vcpu(&board, 1, CODE);
    let kicker = kick(1);
    assert_eq!(second.run(&*board), Exit::Kicked);
    kicker.join().unwrap();
    // A deadline that never comes is none.
    let mut c = Code::at(CODE);
    c.set(r::CNTV_CVAL_EL0, u64::MAX).set(r::CNTV_CTL_EL0, 1);
    let again = c.here();
    c.wfi().b(again);
    let board = counting(0, false, 1);
    board.load(&c);
    let mut only = vcpu(&board, 0, CODE);
    let vm = board.vm.clone();
    let kicker = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(20));
        vm.kick(0);
    });
    assert_eq!(only.run(&*board), Exit::Kicked);
    kicker.join().unwrap();
    assert!(executed(&mut *only) < 100);
}

#[test]
fn generated_code_does_not_count() {
    let config = |tier, clock| Config {
        mpidrs: vec![0],
        features: Arc::new(dormer_engine::Features::model("max").unwrap()),
        frequency: 62_500_000,
        clock,
        translation: Translation {
            tier,
            ..Translation::default()
        },
        icount: Some(Icount {
            shift: 0,
            sleep: true,
        }),
        address_bits: 40,
        granule: 4096,
        gic: dormer_engine::GicPlan::V2 {
            distributor: 0,
            cpu_interface: 0x1000,
        },
    };
    let refusal = |config| Jit.create(config).err().unwrap().to_string();
    let counted = device::Clock::counted;
    assert!(refusal(config(Tier::Baseline, counted())).contains("tier="));
    assert!(refusal(config(Tier::Auto, device::Clock::new())).contains("counted clock"));
    assert!(Jit.create(config(Tier::Interpreter, counted())).is_ok());
}
