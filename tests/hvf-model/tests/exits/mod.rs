//! One test a kind of exit, and the rules of the framework that the engine lives by.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use aarch64::esr::{abort, class, status, syndrome};
use aarch64::psci::function;
use aarch64::registers as r;
use devices::pl031;
use engine::hvf::Hvf;
use engine::hvf::framework::{Exception, Framework, Refusal, VcpuExit};
use engine::jit::Jit;
use engine::{Config, Engine, Error, Exit, Features, GicPlan, State};
use hvf_model::{Model, Options};
use memory::{Access, Mapping, Mmio, RomDevice};

use crate::assembler::*;
use crate::board::*;
use crate::tracking::load_writers;

/// A board on a model that can be looked at.
fn modelled(cpus: u32, options: Options) -> (Arc<Board>, Arc<Model>) {
    let model = Model::new(options);
    (Board::on(&Hvf::new(model.clone()), cpus), model)
}

fn begin(board: &Board) -> Code {
    board.load(&vectors());
    let mut c = Code::at(CODE);
    c.set(r::VBAR_EL1, VECTORS).li(28, LOG).isb();
    c
}

/// Every form of access to a device: what comes into registers, what of them stays, and where the base goes.
fn accesses(board: &Arc<Board>) {
    let mut c = begin(board);
    // Advanced SIMD on.
    c.set(r::CPACR_EL1, 3 << 20).isb();
    c.li(1, DEVICE).li(2, 0x8182_8384_8586_8788).str(2, 1, 0);
    c.li(4, DATA);
    for (word, result) in [
        (0x3940_0023, 3),  // ldrb w3, [x1]
        (0x39c0_0023, 3),  // ldrsb w3, [x1]
        (0x3980_0023, 3),  // ldrsb x3, [x1]
        (0x7940_0023, 3),  // ldrh w3, [x1]
        (0x79c0_0023, 3),  // ldrsh w3, [x1]
        (0x7980_0023, 3),  // ldrsh x3, [x1]
        (0xb940_0023, 3),  // ldr w3, [x1]
        (0xb980_0023, 3),  // ldrsw x3, [x1]
        (0xf940_0023, 3),  // ldr x3, [x1]
        (0xf840_0023, 3),  // ldur x3, [x1]
        (0xf87f_6823, 3),  // ldr x3, [x1, xzr]
        (0xc8df_fc23, 3),  // ldar x3, [x1]
        (0xf940_003f, 31), // ldr xzr, [x1]
        (0xf840_8423, 1),  // ldr x3, [x1], #8
        (0xf85f_8c23, 1),  // ldr x3, [x1, #-8]!
        (0xa940_1823, 6),  // ldp x3, x6, [x1]
        (0x2940_1823, 6),  // ldp w3, w6, [x1]
        (0x3dc0_0020, 3),  // ldr q0, [x1]
        (0xfc40_8420, 1),  // ldr d0, [x1], #8
        (0xfc5f_8c20, 1),  // ldr d0, [x1, #-8]!
    ] {
        c.li(3, 0x5555_5555_5555_5555).li(6, 0x6666);
        c.word(word).push(3, 4).push(6, 4);
        // The result as such; XZR's is zero.
        c.push(result, 4);
        // fmov x3, d0
        c.word(0x9e66_0003).push(3, 4);
    }
    for word in [
        0x3900_003f, // strb wzr, [x1]
        0x7900_0022, // strh w2, [x1]
        0xb900_0022, // str w2, [x1]
        0xf900_003f, // str xzr, [x1]
        0xf800_8422, // str x2, [x1], #8
        0xf81f_8c22, // str x2, [x1, #-8]!
        0xa900_7c22, // stp x2, xzr, [x1]
        0x3d80_0020, // str q0, [x1]
        0xc89f_fc22, // stlr x2, [x1]
    ] {
        c.word(word).word(0xf940_0023).push(3, 4).push(1, 4);
    }
    // Nothing is there: read, write, pair.
    c.li(7, 0x1000);
    for word in [0xf940_00e3, 0xb900_00e2, 0xa940_18e3, 0xa900_18e3] {
        c.word(word);
    }
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    board.run();
}

#[test]
fn accesses_are_as_on_the_interpreter() {
    let reference = Board::on(&Jit, 1);
    accesses(&reference);
    let (board, model) = modelled(1, Options::default());
    accesses(&board);
    for at in (DATA..DATA + 0x800).step_by(8) {
        assert_eq!(board.get(at), reference.get(at), "{at:#x}");
    }
    assert_eq!(board.log(), reference.log());
    assert_eq!(board.log().len(), 4);
    let abort = |write: u32| syndrome(class::DATA_ABORT, status::EXTERNAL | write);
    assert_eq!(board.log()[0][1], abort(0));
    assert_eq!(
        board.log()[1][1..4],
        [abort(1 << 6), board.log()[1][2], 0x1000]
    );
    let counts = &model.counts;
    assert!(counts.no_syndrome.load(Ordering::Relaxed) >= 12);
    assert!(counts.exits(class::DATA_ABORT_LOWER) >= 40);
}

/// DC CIVAC of a device: nothing happens, and execution goes on after it.
#[test]
fn cache_maintenance_of_a_device_does_nothing() {
    let (board, model) = modelled(1, Options::default());
    let mut c = begin(&board);
    // dc civac, x1; dc cvac, x1
    c.li(1, DEVICE).word(0xd50b_7e21).word(0xd50b_7a21);
    // And of nothing.
    c.li(1, 0x1000).word(0xd50b_7e21);
    c.li(4, DATA)
        .li(2, 7)
        .str(2, 4, 0)
        .psci(function::SYSTEM_OFF);
    board.load(&c);
    board.run();
    assert_eq!((board.get(DATA), board.log().len()), (7, 0));
    assert_eq!(model.counts.maintenance.load(Ordering::Relaxed), 3);
}

/// A host may have cache operations that the shadow does not know: they are not executed there.
#[test]
fn cache_maintenance_of_any_kind_does_nothing() {
    let (board, model) = modelled(1, Options::default());
    let mut c = begin(&board);
    // What stands for it is undefined here.
    let code = Code {
        base: CODE,
        words: vec![0],
    };
    let mut rest = Code::at(CODE + 4);
    rest.words = std::mem::take(&mut c.words);
    rest.li(4, DATA).li(2, 7).str(2, 4, 0);
    rest.psci(function::SYSTEM_OFF);
    board.load(&code);
    board.load(&rest);
    let maintenance = abort::CACHE_MAINTENANCE | abort::WRITE | status::TRANSLATION | 3;
    model.inject(VcpuExit::Exception(Exception {
        syndrome: syndrome(class::DATA_ABORT_LOWER, maintenance),
        virtual_address: 0x1000,
        physical_address: 0x1000,
    }));
    board.run();
    assert_eq!((board.get(DATA), board.log().len()), (7, 0));
}

/// HVC and SMC go on after themselves, once, whether the call is known or not.
#[test]
fn calls_return_behind_themselves() {
    let (board, model) = modelled(1, Options::default());
    let mut c = begin(&board);
    c.li(4, DATA).li(5, 0);
    for word in [0xd400_0002u32, 0xd400_0003] {
        for id in [0xc300_0001u64, function::VERSION.into()] {
            // hvc or smc; the addition after it is executed once.
            c.li(0, id).word(word).add(5, 5, 1).push(0, 4).push(5, 4);
        }
    }
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    board.run();
    let seen: Vec<_> = (0..8).map(|i| board.get(DATA + 8 * i)).collect();
    let (unknown, version) = (u64::MAX, 0x1_0001);
    assert_eq!(seen, [unknown, 1, version, 2, unknown, 3, version, 4]);
    // And SYSTEM_OFF.
    assert_eq!((model.counts.exits(0x16), model.counts.exits(0x17)), (3, 2));
    assert_eq!(board.log().len(), 0);
}

/// A trapped register that nobody has: the guest's instruction is undefined, and nothing else of its state is touched.
#[test]
fn registers_that_nobody_has_are_undefined() {
    let (board, model) = modelled(1, Options::default());
    let mut c = begin(&board);
    c.li(3, 0x33);
    let read = c.address();
    c.mrs(3, r::ICC_RPR_EL1);
    let write = c.address();
    c.msr(r::ICC_SRE_EL1, 3);
    // And one that we have, of the zero register and to it.
    c.msr(r::CNTP_CVAL_EL0, 3).mrs(31, r::CNTP_CVAL_EL0);
    c.mrs(5, r::CNTP_CVAL_EL0)
        .msr(r::CNTP_CVAL_EL0, 31)
        .mrs(6, r::CNTP_CVAL_EL0);
    c.li(4, DATA).push(3, 4).push(5, 4).push(6, 4);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    board.run();
    let seen = [0, 8, 16].map(|offset| board.get(DATA + offset));
    assert_eq!(seen, [0x33, 0x33, 0]);
    let undefined = |at| [5, syndrome(class::UNKNOWN, 0), at, 0, 0x3c5];
    assert_eq!(board.log(), [undefined(read), undefined(write)]);
    assert_eq!(model.counts.exits(class::SYSTEM), 7);
}

/// WFE, where the host traps it: it does not wait for an interrupt that may never come.
#[test]
fn events_are_not_waited_for() {
    let trap_events = true;
    let (board, model) = modelled(
        1,
        Options {
            trap_events,
            ..Options::default()
        },
    );
    let mut c = begin(&board);
    c.wfe().wfe().li(4, DATA).li(5, 1).str(5, 4, 0);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    board.run();
    assert_eq!((board.get(DATA), model.counts.exits(class::WFX)), (1, 2));
}

/// Has the timer fire so many times, each so many ticks after the last, and ends. Only an interrupt ends a wait.
fn fires_in_turn(c: &mut Code, count: u64, ticks: u64) {
    c.li(10, count).daif_clear(2);
    let again = c.here();
    c.set(r::CNTV_TVAL_EL0, ticks).set(r::CNTV_CTL_EL0, 1);
    let spin = c.here();
    c.mrs(1, r::CNTV_CTL_EL0).cbnz(1, spin);
    c.sub(10, 10, 1).cbnz(10, again).psci(function::SYSTEM_OFF);
}

/// A fire that the host tells before its clock is at the deadline: it is unmasked, and comes again when it is.
#[test]
fn early_fires_are_not_lost() {
    // 50 µs.
    let counter_ahead = 1200;
    let (board, _) = modelled(
        1,
        Options {
            counter_ahead,
            ..Options::default()
        },
    );
    let mut c = begin(&board);
    fires_in_turn(&mut c, 20, 2_400);
    board.load(&c);
    board.run();
    assert_eq!(board.log().len(), 20);
}

/// What nobody has heard of ends the run with words, and stops nothing else.
#[test]
fn unknown_exits_are_told() {
    let (board, model) = modelled(1, Options::default());
    let mut c = begin(&board);
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    model.inject(VcpuExit::Unknown(77));
    let fault = |exit| match exit {
        Exit::Fault(what) => what,
        other => panic!("{other:?}"),
    };
    let said = fault(vcpu.run(&*board));
    assert!(said.contains("77"), "{said}");
    // An exception class that is none.
    model.inject(VcpuExit::Exception(Exception {
        syndrome: 0x3f << 26 | 0x55,
        ..Exception::default()
    }));
    let said = fault(vcpu.run(&*board));
    let words = ["0x3f", "0xfc000055", "0x40000000"];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");
    assert_eq!(vcpu.run(&*board), Exit::Off);
}

/// Writes of tracked memory are noted once a page, whatever instruction makes them, and the memory is as it was written.
#[test]
fn written_pages_are_known() {
    const PAGE: u64 = 16 << 10;
    const AREA: u64 = RAM + 0x20_0000;
    let (board, model) = modelled(2, Options::default());
    // swp x2, x3, [x1]
    load_writers(&board, begin(&board), PAGE, (7, 0xf822_8023));
    let size = 16 * PAGE;
    board.vm.track_writes(AREA, size, true).unwrap();
    assert!(board.vm.track_writes(AREA + PAGE, PAGE, true).is_err());
    assert!(board.vm.track_writes(AREA + 0x1000, PAGE, true).is_err());
    assert!(board.vm.track_writes(DEVICE & !0x3fff, PAGE, true).is_err());
    board.run();
    assert_eq!(board.log().len(), 0, "{:x?}", board.log());
    let page = |n| AREA + n * PAGE;
    let taken = board.vm.take_writes(AREA, size).unwrap();
    assert_eq!(taken, [(page(0), PAGE), (page(2), 6 * PAGE)], "{taken:x?}");
    assert_eq!(board.get(AREA + 8), 0x77);
    assert_eq!(
        (
            board.get(page(3) - 8),
            board.get(page(3)),
            board.get(page(7))
        ),
        (0x77, 0x77, 0x77)
    );
    // An exit a page, and no more: the first was written twice.
    assert_eq!(model.counts.exits(class::DATA_ABORT_LOWER), 7);
    // Taken, they are noted anew; no longer tracked, not at all.
    assert_eq!(board.vm.take_writes(AREA, size).unwrap(), []);
    board.vm.track_writes(AREA, size, false).unwrap();
    assert_eq!(board.vm.take_writes(AREA, size).unwrap(), []);
}

/// Pages that were taken are noted again, and writes go on while they are taken.
#[test]
fn written_pages_are_taken_while_the_guest_writes() {
    const PAGE: u64 = 16 << 10;
    const AREA: u64 = RAM + 0x20_0000;
    let (board, _) = modelled(1, Options::default());
    let mut c = begin(&board);
    c.li(1, AREA).li(2, 0);
    let again = c.here();
    c.add(2, 2, 1).str(2, 1, 0).b(again);
    board.load(&c);
    board.vm.track_writes(AREA, 4 * PAGE, true).unwrap();
    let mut vcpu = vcpu(&board, 0, CODE);
    let vm = board.vm.clone();
    let taker = std::thread::spawn(move || {
        let start = Instant::now();
        let mut noted = 0;
        while noted < 50 && start.elapsed() < Duration::from_secs(30) {
            let taken = vm.take_writes(AREA, 4 * PAGE).unwrap();
            assert!(taken.is_empty() || taken == [(AREA, PAGE)]);
            noted += taken.len();
            std::thread::sleep(Duration::from_micros(500));
        }
        vm.kick(0);
        noted
    });
    assert_eq!(vcpu.run(&*board), Exit::Kicked);
    let noted = taker.join().unwrap();
    assert_eq!(noted, 50);
    let state = vcpu.state().unwrap();
    assert!(board.get(AREA) + 1 >= state.x[2]);
}

/// Fires that cancellations swallow are made up for.
#[test]
fn lost_fires_are_found() {
    let lose_fires = true;
    let (board, model) = modelled(
        1,
        Options {
            lose_fires,
            ..Options::default()
        },
    );
    let mut c = begin(&board);
    // 1 ms.
    fires_in_turn(&mut c, 200, 24_000);
    board.load(&c);
    let stop = Arc::new(AtomicBool::new(false));
    let kicker = {
        let (stop, vm) = (stop.clone(), board.vm.clone());
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                vm.kick(0);
                std::thread::sleep(Duration::from_micros(20));
            }
        })
    };
    board.run();
    stop.store(true, Ordering::SeqCst);
    kicker.join().unwrap();
    assert_eq!(board.log().len(), 200);
    assert!(model.counts.lost.load(Ordering::Relaxed) > 0);
}

/// The virtual timer masks itself at each fire and must be unmasked after it: many in a row come.
#[test]
fn the_timer_is_unmasked_again() {
    let (board, model) = modelled(1, Options::default());
    let mut c = begin(&board);
    fires_in_turn(&mut c, 20, 2_400);
    board.load(&c);
    board.run();
    assert_eq!(board.log().len(), 20);
    // Exit kind 65 is the timer's.
    assert!(model.counts.exits(65) >= 10);
}

/// Flash: read and executed from memory, written and, in command mode, read through the device.
struct Flash {
    array_mode: Arc<AtomicBool>,
    changed: Box<dyn Fn() + Send + Sync>,
    writes: AtomicU64,
}

impl Mmio for Flash {
    fn read(&self, _: Access) -> u64 {
        0x7777
    }

    fn write(&self, _: Access, value: u64) {
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.array_mode.store(value == 0xff, Ordering::SeqCst);
        (self.changed)();
    }
}

#[test]
fn flash_is_memory_in_array_mode_only() {
    const FLASH: u64 = 0x0400_0000;
    const SIZE: u64 = 64 << 10;
    let (board, model) = modelled(1, Options::default());
    let contents = memory::Ram::new(&[(FLASH, SIZE)]).unwrap();
    let host = contents.ranges().next().unwrap().2;
    // mov x6, #3; ret
    for (i, word) in [0xd280_0066u32, 0xd65f_03c0].into_iter().enumerate() {
        let at = FLASH + 0x100 + 4 * i as u64;
        contents.dma().write_u32(at, word).unwrap();
    }
    contents.dma().write_u64(FLASH, 0x1234).unwrap();
    let array_mode = Arc::new(AtomicBool::new(true));
    let weak = Arc::downgrade(&board);
    let flash = Arc::new(Flash {
        array_mode: array_mode.clone(),
        changed: Box::new(move || {
            if let Some(board) = weak.upgrade() {
                board.space.changed();
            }
        }),
        writes: AtomicU64::new(0),
    });
    let rom = RomDevice {
        host,
        size: SIZE,
        array_mode,
        device: flash.clone(),
    };
    board.vm.map(FLASH, SIZE, host as usize, false).unwrap();
    board
        .space
        .map(FLASH, SIZE, Mapping::Rom(Arc::new(rom)))
        .unwrap();
    let mut c = begin(&board);
    c.li(1, FLASH).li(4, DATA);
    // Memory; command mode; array mode again, and code.
    c.ldr(3, 1, 0).push(3, 4);
    c.li(2, 0x98).str(2, 1, 0).ldr(3, 1, 0).push(3, 4);
    c.li(2, 0xff).str(2, 1, 0).ldr(3, 1, 0).push(3, 4);
    c.li(5, FLASH + 0x100).word(0xd63f_00a0).push(6, 4); // blr x5
    // Code in command mode is an abort.
    c.li(2, 0x98).str(2, 1, 0);
    c.word(0x1000_0013 | 2 << 5); // adr x19, .+8
    c.word(0xd61f_00a0); // br x5
    c.psci(function::SYSTEM_OFF);
    board.load(&c);
    board.run();
    let seen: Vec<_> = (0..4).map(|i| board.get(DATA + 8 * i)).collect();
    assert_eq!(seen, [0x1234, 0x7777, 0x1234, 3]);
    assert_eq!(flash.writes.load(Ordering::SeqCst), 3);
    let log = board.log();
    assert_eq!(log.len(), 1);
    let abort = syndrome(class::INSTRUCTION_ABORT, status::EXTERNAL);
    assert_eq!(log[0][1..4], [abort, FLASH + 0x100, FLASH + 0x100]);
    assert!(model.counts.exits(class::INSTRUCTION_ABORT_LOWER) >= 1);
}

/// Guest tables that are not in memory: an external abort on the walk.
#[test]
fn walks_into_nothing_abort() {
    let (board, _) = modelled(1, Options::default());
    let mut c = begin(&board);
    c.set(r::TCR_EL1, 25 | 1 << 23 | 2 << 32);
    board.put(TABLES, 0);
    // 1 GiB at RAM, and a table at 0x1000, where nothing is, for the window of the third.
    board.put(TABLES + 8, RAM | 0x405 | 1 << 10);
    board.put(TABLES + 16, 0x1000 | 3);
    c.set(r::MAIR_EL1, 0xff00).set(r::TTBR0_EL1, TABLES).isb();
    c.mrs(9, r::SCTLR_EL1)
        .li(10, 1)
        .word(0xaa0a_0129) // orr x9, x9, x10
        .msr(r::SCTLR_EL1, 9)
        .isb();
    c.li(1, 0x8000_0000).ldr(3, 1, 0).psci(function::SYSTEM_OFF);
    board.load(&c);
    board.run();
    let abort = syndrome(class::DATA_ABORT, status::EXTERNAL_ON_WALK | 2);
    assert_eq!(board.log()[0][1], abort, "{:x?}", board.log());
    assert_eq!(board.log()[0][3], 0x8000_0000);
}

/// Registers that a guest can read back, of all kinds: the hardware's, the timers', debugging, performance monitors.
fn registers() -> Vec<u16> {
    let mut registers = vec![
        r::SCTLR_EL1,
        r::CPACR_EL1,
        r::TTBR0_EL1,
        r::TTBR1_EL1,
        r::TCR_EL1,
        r::MAIR_EL1,
        r::AMAIR_EL1,
        r::VBAR_EL1,
        r::ELR_EL1,
        r::SPSR_EL1,
        r::ESR_EL1,
        r::FAR_EL1,
        r::AFSR0_EL1,
        r::AFSR1_EL1,
        r::PAR_EL1,
        r::CONTEXTIDR_EL1,
        r::TPIDR_EL0,
        r::TPIDR_EL1,
        r::TPIDRRO_EL0,
        r::CSSELR_EL1,
        r::CNTKCTL_EL1,
        r::SP_EL0,
        r::FPCR,
        r::FPSR,
        r::CNTV_CTL_EL0,
        r::CNTV_CVAL_EL0,
        r::CNTP_CTL_EL0,
        r::CNTP_CVAL_EL0,
        r::MDSCR_EL1,
        r::OSLSR_EL1,
        r::DBGCLAIMCLR_EL1,
        r::PMCNTENSET_EL0,
        r::PMINTENSET_EL1,
        r::PMSELR_EL0,
        r::PMUSERENR_EL0,
        r::PMCCFILTR_EL0,
        r::MPIDR_EL1,
    ];
    registers.extend((0..6u16).flat_map(|n| [r::DBGBVR0_EL1 + n * 8, r::DBGBCR0_EL1 + n * 8]));
    registers.extend((0..4u16).flat_map(|n| [r::DBGWVR0_EL1 + n * 8, r::DBGWCR0_EL1 + n * 8]));
    // Of the keys, two a CRm.
    registers.extend((0..4).flat_map(|n| [r::APIAKEYLO_EL1 + n, r::APDAKEYLO_EL1 + n]));
    registers.extend([r::APGAKEYLO_EL1, r::APGAKEYHI_EL1]);
    registers
}

/// A state with something in every register.
fn full_state(mut state: State) -> State {
    let value = |n: u64| 0x0123_4567_89ab_cdef_u64.rotate_left(n as u32 * 5) ^ n;
    for n in 5..31 {
        state.x[n] = value(n as u64);
    }
    for (n, v) in state.v.iter_mut().enumerate() {
        *v = u128::from(value(n as u64)) << 64 | u128::from(value(40 + n as u64));
    }
    state.pc = CODE;
    (state.nzcv, state.fpsr, state.fpcr) = (0xa000_0000, 0x1f, 0x0300_0000);
    state.sp = [0x7c10, 0x7d20, 0, 0];
    state.x[31] = 0x7d20;
    state.vbar[1] = VECTORS;
    state.elr[1] = 0x1234_5678;
    state.spsr[1] = 0x6000_0345;
    state.esr[1] = 0x5600_0007;
    state.far[1] = value(50);
    state.cpacr[1] = 3 << 20;
    state.tpidr = [value(1), value(2), 0, 0];
    state.tpidrro_el0 = value(3);
    (state.ttbr0[1], state.ttbr1[1]) = (TABLES | 5 << 48, TABLES + 0x1000);
    state.tcr[1] = 25 | 1 << 23 | 2 << 32;
    state.mair[1] = 0xff44_0400;
    state.contextidr[1] = 0x4321;
    state.csselr_el1 = 2;
    state.cntkctl_el1 = 3;
    state.par_el1 = 0x0801;
    for (n, key) in state.pac_keys.iter_mut().enumerate() {
        *key = [value(60 + n as u64), value(70 + n as u64)];
    }
    // Enabled and masked, not yet due; masked.
    (state.timers.cntv_ctl, state.timers.cntv_cval) = (3, 1 << 60);
    (state.timers.cntp_ctl, state.timers.cntp_cval) = (2, 1 << 61);
    let d = &mut state.debug;
    (d.mdscr, d.os_lock, d.claim) = (1 << 12 | 1 << 13, false, 0x5a);
    for (n, value) in d.breakpoint_value.iter_mut().enumerate() {
        *value = 0x1000 * n as u64 + 4;
    }
    d.breakpoint_control = [0x1e4, 0x1e2, 0x1e6, 0, 0x1e4, 0x1e0];
    for (n, value) in d.watchpoint_value.iter_mut().enumerate() {
        *value = 0x2000 * n as u64 + 8;
    }
    d.watchpoint_control = [0x1ff6, 0x1fe4, 0x3e, 0];
    state.pmu.pmcnten = 1 << 31;
    state.pmu.pminten = 1 << 31;
    state.pmu.pmselr = 31;
    state.pmu.pmuserenr = 0xd;
    state.pmu.pmccfiltr = 1 << 30;
    state
}

/// What a guest that starts with that state finds in its registers, and the state that it leaves.
fn found(state: &State) -> (Vec<u64>, State) {
    let (board, _) = modelled(1, Options::default());
    let registers = registers();
    let mut c = Code::at(CODE);
    c.li(4, DATA);
    for n in 5..31 {
        c.push(n, 4);
    }
    // add x3, sp, #0
    c.add(3, 31, 0).push(3, 4);
    for register in &registers {
        c.mrs(3, *register).push(3, 4);
    }
    for n in 0..32 {
        // str q, [x4], #16
        c.word(0x3c81_0480 | n);
    }
    let stay = c.here();
    c.wfi().b(stay);
    board.load(&c);
    let mut vcpu = board.vm.vcpu(0).unwrap();
    vcpu.set_state(state).unwrap();
    assert_eq!(
        serde_json::to_string(&vcpu.state().unwrap()).unwrap(),
        serde_json::to_string(state).unwrap()
    );
    let vm = board.vm.clone();
    let kick = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        vm.kick(0);
    });
    assert_eq!(vcpu.run(&*board), Exit::Kicked);
    kick.join().unwrap();
    let count = 26 + 1 + registers.len() as u64 + 64;
    let values = (0..count).map(|i| board.get(DATA + 8 * i)).collect();
    (values, vcpu.state().unwrap())
}

/// A processor goes on in another machine with every register as it left it.
#[test]
fn all_state_moves_to_another_machine() {
    let power_on = {
        let (board, _) = modelled(1, Options::default());
        let mut vcpu = board.vm.vcpu(0).unwrap();
        vcpu.state().unwrap()
    };
    let state = full_state(power_on.clone());
    let (first, left) = found(&state);
    // By its serial form, as a snapshot keeps it; it starts at the beginning again.
    let kept = serde_json::to_string(&left).unwrap();
    let mut moved: State = serde_json::from_str(&kept).unwrap();
    moved.pc = CODE;
    let (second, _) = found(&moved);
    assert_eq!(first, second);
    // The guest found what was put in, not what was there.
    let (other, _) = found(&State {
        pc: CODE,
        cpacr: [0, 3 << 20, 0, 0],
        ..power_on
    });
    for (i, register) in registers().into_iter().enumerate() {
        let same = [r::SCTLR_EL1, r::CPACR_EL1, r::AMAIR_EL1, r::AFSR0_EL1]
            .iter()
            .chain(&[r::AFSR1_EL1, r::MPIDR_EL1])
            .any(|r| *r == register);
        let name = r::name(register);
        // Those whose value above is that of power-on.
        let zero = [r::DBGBCR0_EL1 + 3 * 8, r::DBGWCR0_EL1 + 3 * 8].contains(&register);
        assert!(same || zero || first[27 + i] != other[27 + i], "{name:?}");
    }
    assert_eq!(first[0], state.x[5]);
    assert_eq!(first[26], state.x[31]);
    let v31 = first.len() - 2;
    assert_eq!(
        u128::from(first[v31]) | u128::from(first[v31 + 1]) << 64,
        state.v[31]
    );
}

/// All that the hardware holds comes back as it was given.
#[test]
fn state_comes_back() {
    let (board, _) = modelled(1, Options::default());
    let mut vcpu = board.vm.vcpu(0).unwrap();
    let mut state = vcpu.state().unwrap();
    for (n, x) in state.x.iter_mut().enumerate() {
        *x = 0x1111 * n as u64;
    }
    for (n, v) in state.v.iter_mut().enumerate() {
        *v = (n as u128) << 120 | 0x55;
    }
    state.pc = CODE + 0x40;
    (state.nzcv, state.fpsr) = (0xa000_0000, 0x1f);
    state.el = 0;
    state.sp_sel = false;
    state.sp = [0x7c1f, 0x2000, 0, 0];
    state.x[31] = 0x7c1f;
    state.vbar[1] = 0x8000;
    state.tpidr = [1, 2, 0, 0];
    state.ttbr0[1] = TABLES;
    state.pac_keys[3] = [8, 9];
    state.timers.cntv_cval = 1 << 60;
    state.timers.cntp_cval = 1 << 61;
    state.debug.mdscr = 1 << 12;
    state.debug.breakpoint_value[1] = 0x40;
    state.pmu.pmselr = 3;
    vcpu.set_state(&state).unwrap();
    let back = vcpu.state().unwrap();
    assert_eq!(format!("{back:?}"), format!("{state:?}"));
}

/// A machine for nobody.
fn config(address_bits: u32, model: &str) -> Config {
    Config {
        mpidrs: vec![0],
        features: Arc::new(Features::model(model).unwrap()),
        frequency: 1,
        clock: device::Clock::new(),
        translation: engine::Translation::default(),
        icount: None,
        address_bits,
        granule: 64 << 10,
        gic: GicPlan::V2 {
            distributor: 0x0800_0000,
            cpu_interface: 0x0801_0000,
        },
    }
}

/// Memory in units of 4 KiB needs macOS 26; memory that needs no such units does not get them.
#[test]
fn small_units_of_memory_need_a_new_macos() {
    let create = |chooses_granule, granule| {
        let model = Model::new(Options {
            chooses_granule,
            ..Options::default()
        });
        Hvf::new(model).create(Config {
            granule,
            ..config(36, "max")
        })
    };
    let ram = memory::Ram::new(&[(0, 0x1_0000)]).unwrap();
    let host = ram.ranges().next().unwrap().2 as usize;
    for (new, granule, unit) in [
        (false, 16 << 10, 16u64 << 10),
        (true, 1 << 20, 16 << 10),
        (true, 8 << 10, 4 << 10),
        (true, 4 << 10, 4 << 10),
    ] {
        let vm = create(new, granule).unwrap();
        vm.map(unit, unit, host, true).unwrap();
        assert!(vm.map(0x10_0000, unit / 2, host, true).is_err());
        vm.track_writes(unit, unit, true).unwrap();
        vm.unmap(unit, unit).unwrap();
    }
    for (new, granule) in [(false, 8 << 10), (false, 4 << 10), (true, 2 << 10)] {
        match create(new, granule) {
            Err(Error::Unavailable(said)) => {
                assert!(said.contains("macOS 26") && said.contains("-m"), "{said}");
            }
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("a machine"),
        }
    }
}

/// The host sleeps for an hour: the guest's counter and timer go on as if nothing had been, and its clock is right.
#[test]
fn the_host_sleeps() {
    const RTC: u64 = 0x0901_0000;
    const HOUR: u64 = 3600;
    let (board, model) = modelled(1, Options::default());
    let time = model.clone();
    let clock = pl031::Pl031::with_host_time(
        pl031::Config::default(),
        device::Line::unconnected(),
        &board.clock,
        Arc::new(move || time.time_of_day()),
    );
    board.space.map(RTC, 0x1000, Mapping::Mmio(clock)).unwrap();
    let mut c = begin(&board);
    // A timer that the host sleeps through, if it is slow to get there.
    c.set(r::CNTV_TVAL_EL0, 2_400_000).set(r::CNTV_CTL_EL0, 1);
    c.li(1, RTC).li(4, DATA).daif_clear(2);
    let again = c.here();
    // ldr w2, [x1]
    c.mrs(3, r::CNTVCT_EL0).word(0xb940_0022);
    c.str(3, 4, 0).str(2, 4, 8).b(again);
    board.load(&c);
    let mut vcpu = vcpu(&board, 0, CODE);
    let mut look = |until: &dyn Fn() -> bool| {
        board.put(DATA + 8, 0);
        while board.get(DATA + 8) == 0 || !until() {
            let vm = board.vm.clone();
            let kick = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(5));
                vm.kick(0);
            });
            assert_eq!(vcpu.run(&*board), Exit::Kicked);
            kick.join().unwrap();
        }
        (board.get(DATA), board.get(DATA + 8))
    };
    let (counter, seconds) = look(&|| true);
    model.sleep(Duration::from_secs(HOUR));
    let (later, after) = look(&|| board.log().len() == 1);
    let ticks = HOUR / 2 * board.vm.frequency();
    assert!(
        (1..ticks).contains(&(later - counter)),
        "{}",
        later - counter
    );
    let passed = after - seconds;
    assert!((HOUR..HOUR + HOUR / 2).contains(&passed), "{passed}");
    assert_eq!(board.log()[0][3], 27);
}

#[test]
fn refusals_say_what_to_do() {
    let hvf = |options| Hvf::new(Model::new(options));
    let refusal = |engine: &Hvf, config| match engine.create(config) {
        Err(Error::Unavailable(reason)) => reason,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a machine"),
    };
    let unsigned = Options {
        entitled: false,
        ..Options::default()
    };
    let said = refusal(&hvf(unsigned), config(36, "max"));
    assert!(said.contains("com.apple.security.hypervisor"), "{said}");
    let said = refusal(&hvf(Options::default()), config(48, "max"));
    assert!(said.contains("48 bits") && said.contains("40"), "{said}");
    let said = refusal(&hvf(Options::default()), config(36, "cortex-a57"));
    assert!(said.contains("-cpu host"), "{said}");
}

/// The framework's objects go with the engine's, and the host may sleep again.
#[test]
fn nothing_is_left_behind() {
    let model = Model::new(Options::default());
    for _ in 0..2 {
        let board = Board::on(&Hvf::new(model.clone()), 2);
        assert_eq!(model.counts.awake.load(Ordering::SeqCst), 1);
        // A second machine in one process is refused.
        assert_eq!(model.vm_create(36, 16 << 10), Err(Refusal::BUSY));
        let mut c = begin(&board);
        c.psci(function::SYSTEM_OFF);
        board.load(&c);
        board.run();
        drop(board);
        assert_eq!(model.counts.awake.load(Ordering::SeqCst), 0);
    }
    assert_eq!(model.counts.threads.load(Ordering::Relaxed), 4);
}

/// The model's own: a vCPU belongs to its thread, and mappings to the granule.
#[test]
fn the_model_keeps_the_rules() {
    let model = Model::new(Options::default());
    model.vm_create(36, 16 << 10).unwrap();
    let vcpu = model.vcpu_create().unwrap();
    let other = model.clone();
    let result = std::thread::spawn(move || other.get_reg(vcpu, 0)).join();
    assert_eq!(result.unwrap(), Err(Refusal::BAD_ARGUMENT));
    let ram = memory::Ram::new(&[(0, 0x10000)]).unwrap();
    let host = ram.ranges().next().unwrap().2 as usize;
    for (ipa, size) in [(0x1000, 0x4000), (0x4000, 0x1000), (1 << 36, 0x4000)] {
        assert_eq!(model.vm_map(host, ipa, size, 7), Err(Refusal::BAD_ARGUMENT));
    }
    model.vm_map(host, 0x4000, 0x4000, 7).unwrap();
    // A cancellation before the run ends it.
    model.vcpus_exit(&[vcpu]).unwrap();
    let exit = model.vcpu_run(vcpu).unwrap();
    assert_eq!(exit, engine::hvf::framework::VcpuExit::Canceled);
}
