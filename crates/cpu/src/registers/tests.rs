use std::sync::Mutex;
use std::sync::atomic::Ordering;

use aarch64::registers as r;
use memory::AddressSpace;

use super::*;
use crate::core::tests::{Still, core, still};
use crate::signals::attention;
use crate::tlbi::{Invalidate, Invalidation};
use crate::world::CallOutcome;
use crate::{Exit, State};

/// Remembers private interrupts and invalidations.
#[derive(Default)]
struct Recorder {
    space: AddressSpace,
    interrupts: Mutex<Vec<(u32, bool)>>,
}

impl World for Recorder {
    fn space(&self) -> &AddressSpace {
        &self.space
    }

    fn read_system_register(&self, _: u32, register: u16) -> Option<u64> {
        (register == r::ICC_SRE_EL1).then_some(7)
    }

    fn write_system_register(&self, _: u32, register: u16, _: u64) -> Option<()> {
        (register == r::ICC_PMR_EL1).then_some(())
    }

    fn private_interrupt(&self, _: u32, intid: u32, level: bool) {
        self.interrupts.lock().unwrap().push((intid, level));
    }

    fn call(&self, _: u32, x: &mut [u64; 18]) -> CallOutcome {
        x[0] = u64::MAX;
        CallOutcome::Resume
    }
}

#[derive(Default)]
struct Log(Vec<Invalidation>);

impl Invalidate for Log {
    fn invalidate(&mut self, invalidation: &Invalidation) {
        self.0.push(*invalidation);
    }
}

#[test]
fn reserved_bits_stay() {
    let world = Recorder::default();
    let mut c = core("max");
    for (register, zeros, ones) in [
        // EE, E0E, nAA, IESB, BT are not there.
        (r::SCTLR_EL1, 0x3050_0980, 0x0000_1000_fcdd_fb9fu64),
        (r::VBAR_EL1, 0, !0x7ff),
        (r::CPACR_EL1, 0, 3 << 20),
        (r::FPCR, 0, 0x07c8_0000),
        (r::FPSR, 0, 0x0800_009f),
        (r::NZCV, 0, 0xf000_0000),
        (r::DAIF, 0, 0x3c0),
        (r::CNTKCTL_EL1, 0, 0x3ff),
        (r::CSSELR_EL1, 0, 0xf),
        (r::MDSCR_EL1, 0, 0xb001),
        (r::TPIDR_EL1, 0, u64::MAX),
        (r::APGAKEYHI_EL1, 0, u64::MAX),
        (r::LORC_EL1, 0, 0),
        (r::PAN, 0, 1 << 22),
        (r::PMCR_EL0, 0, 0x79),
    ] {
        c.state.cpacr[1] = 3 << 20;
        c.refresh();
        for (value, wanted) in [(0, zeros), (u64::MAX, ones)] {
            let name = r::name(register);
            assert!(
                c.write_register(&world, register, 0, value).is_ok(),
                "{name}"
            );
            if register == r::CPACR_EL1 {
                assert_eq!(c.key().fp_enabled, value != 0);
            }
            let read = c.read_register(&world, register, 0);
            assert_eq!(read, Ok(wanted), "{name}");
        }
    }
    let mut old = core("cortex-a57");
    for register in [
        r::PAN,
        r::UAO,
        r::SSBS,
        r::DIT,
        r::APIAKEYLO_EL1,
        r::LORC_EL1,
    ] {
        assert_eq!(old.write_register(&world, register, 0, 0), Err(Taken));
        assert_eq!(old.read_register(&world, register, 0), Err(Taken));
    }
    // Without PAN, SPAN is RES1.
    old.write_register(&world, r::SCTLR_EL1, 0, 0).unwrap();
    assert_ne!(old.state.sctlr[1] & 1 << 23, 0);
}

#[test]
fn translation_controls_make_cached_translations_stale() {
    let world = Recorder::default();
    let mut c = core("max");
    let mut epoch = c.translation_epoch;
    for (register, value, stale) in [
        (r::TCR_EL1, 25, true),
        (r::TCR_EL1, 25, false),
        (r::MAIR_EL1, 0xff, true),
        (r::SCTLR_EL1, 0x30d0_0981, true),
        // EnIA, A, C
        (r::SCTLR_EL1, 0xb0d0_0987, false),
        (r::SCTLR_EL1, 0xb0d8_0987, true),
        (r::TTBR0_EL1, 1 << 48 | 0x4000_0000, false),
        (r::TTBR1_EL1, 0x4000_0000, false),
    ] {
        assert_eq!(c.write_register(&world, register, 0, value), Ok(Flow::Ends));
        assert_eq!(c.translation_epoch != epoch, stale, "{}", r::name(register));
        epoch = c.translation_epoch;
    }
    assert_eq!(c.asid(), 1);
}

#[test]
fn timers_follow_the_clock() {
    let world = Recorder::default();
    let (mut c, clock): (Core, std::sync::Arc<Still>) = still("max");
    let last = |world: &Recorder| world.interrupts.lock().unwrap().last().copied();
    clock.now.store(1600, Ordering::SeqCst);
    assert_eq!(c.read_register(&world, r::CNTVCT_EL0, 0), Ok(100));
    c.write_register(&world, r::CNTV_TVAL_EL0, 0, 50).unwrap();
    c.write_register(&world, r::CNTV_CTL_EL0, 0, 1).unwrap();
    assert_eq!(clock.armed.load(Ordering::SeqCst), 2400);
    assert_eq!(c.read_register(&world, r::CNTV_CTL_EL0, 0), Ok(1));
    clock.now.store(2399, Ordering::SeqCst);
    assert_eq!(c.read_register(&world, r::CNTV_TVAL_EL0, 0), Ok(1));
    clock.now.store(2400, Ordering::SeqCst);
    let mut tlb = Log::default();
    c.signals.raise(attention::TIMER);
    assert_eq!(c.service(&world, &mut tlb), None);
    assert_eq!(last(&world), Some((27, true)));
    assert_eq!(c.read_register(&world, r::CNTV_CTL_EL0, 0), Ok(5));
    // The mask lowers it; a count that is past shows as a negative value.
    c.write_register(&world, r::CNTV_CTL_EL0, 0, 3).unwrap();
    assert_eq!(last(&world), Some((27, false)));
    clock.now.store(4000, Ordering::SeqCst);
    assert_eq!(
        c.read_register(&world, r::CNTV_TVAL_EL0, 0),
        Ok(0xffff_ff9c)
    );
    // The compare value that never comes.
    c.write_register(&world, r::CNTP_CVAL_EL0, 0, u64::MAX)
        .unwrap();
    c.write_register(&world, r::CNTP_CTL_EL0, 0, 1).unwrap();
    assert_eq!(clock.armed.load(Ordering::SeqCst), u64::MAX);
}

#[test]
fn the_cycle_counter_filters_and_overflows() {
    let world = Recorder::default();
    let (mut c, clock) = still("max");
    let set = |c: &mut Core, register, value| c.write_register(&world, register, 0, value).unwrap();
    let read = |c: &mut Core| c.read_register(&world, r::PMCCNTR_EL0, 0).unwrap();
    set(&mut c, r::PMCNTENSET_EL0, u64::MAX);
    assert_eq!(c.read_register(&world, r::PMCNTENCLR_EL0, 0), Ok(1 << 31));
    clock.now.store(100, Ordering::SeqCst);
    assert_eq!(read(&mut c), 0);
    set(&mut c, r::PMCR_EL0, 1);
    clock.now.store(150, Ordering::SeqCst);
    assert_eq!(read(&mut c), 50);
    // Not at EL1.
    set(&mut c, r::PMCCFILTR_EL0, 1 << 31);
    clock.now.store(250, Ordering::SeqCst);
    assert_eq!(read(&mut c), 50);
    set(&mut c, r::PMCCFILTR_EL0, 0);
    // 32 bits, with the interrupt.
    set(&mut c, r::PMCCNTR_EL0, 0xffff_ff00);
    set(&mut c, r::PMINTENSET_EL1, 1 << 31);
    assert_eq!(clock.armed.load(Ordering::SeqCst), 250 + 0x100);
    clock.now.store(250 + 0x100, Ordering::SeqCst);
    assert_eq!(read(&mut c), 1 << 32);
    c.update_timers(&world);
    assert_eq!(world.interrupts.lock().unwrap().last(), Some(&(23, true)));
    set(&mut c, r::PMOVSCLR_EL0, 1 << 31);
    assert_eq!(world.interrupts.lock().unwrap().last(), Some(&(23, false)));
    // One in 64.
    set(&mut c, r::PMCR_EL0, 0xd);
    clock.now.fetch_add(640, Ordering::SeqCst);
    assert_eq!(read(&mut c), 10);
    // EL0, by PMUSERENR_EL0.
    c.state.el = 0;
    assert_eq!(c.read_register(&world, r::PMCCNTR_EL0, 7), Err(Taken));
    assert_eq!(c.state.esr[1] >> 26, 0x18);
    c.state.pmu.pmuserenr = 4;
    c.state.el = 0;
    assert!(c.read_register(&world, r::PMCCNTR_EL0, 7).is_ok());
    assert_eq!(c.write_register(&world, r::PMCCNTR_EL0, 7, 0), Err(Taken));
    let mut none = core("max");
    let mut features = (*none.features).clone();
    features.pmu = false;
    none.features = features.into();
    assert_eq!(none.read_register(&world, r::PMCCNTR_EL0, 0), Err(Taken));
    assert_eq!(none.state.esr[1] >> 26, 0);
}

#[test]
fn tlb_maintenance_reaches_the_others() {
    let world = Recorder::default();
    let mut c = core("max");
    let mut tlb = Log::default();
    let value = 0x1234u64 << 48 | 0x800_0000_0000 | 0x56;
    c.system(&world, &mut tlb, r::TLBI_VAE1IS, 0, value)
        .unwrap();
    let wanted = Invalidation::Address {
        address: 0xff80_0000_0005_6000,
        asid: Some(0x1234),
    };
    assert_eq!(tlb.0, [wanted]);
    let other = c.shared.processors()[1].clone();
    assert_eq!(other.pending.load(Ordering::SeqCst), attention::TLBI);
    let mut seen = Vec::new();
    other.drain(|i| seen.push(*i));
    assert_eq!(seen, [wanted]);
    // Not the local form.
    c.system(&world, &mut tlb, r::TLBI_ASIDE1, 0, value)
        .unwrap();
    assert_eq!(tlb.0[1], Invalidation::Asid(0x1234));
    other.drain(|_| panic!("it is local"));
    // A queue that nobody drains becomes one of everything.
    for _ in 0..1000 {
        c.system(&world, &mut tlb, r::TLBI_VAAE1IS, 0, value)
            .unwrap();
    }
    let mut count = 0;
    let mut all = false;
    other.drain(|i| {
        count += 1;
        all |= *i == Invalidation::All;
    });
    assert!(all && count <= 65);
    // The other does not run: DSB does not wait.
    c.synchronize(&mut tlb);
    assert_eq!(
        c.system(&world, &mut tlb, r::encode(1, 0, 8, 7, 4), 0, 0),
        Err(Taken)
    );
}

#[test]
fn exceptions_set_the_state_of_the_manual() {
    let world = Recorder::default();
    let mut c = core("max");
    c.state.vbar[1] = 0x8000;
    // SPAN clear, DSSBS set.
    c.write_register(&world, r::SCTLR_EL1, 0, 1 << 44).unwrap();
    c.state.spsr[1] = 0x6080_1000;
    c.state.elr[1] = 0x1_0000;
    c.state.sp[0] = 0x77;
    c.state.x[31] = 0x99;
    c.exception_return();
    // UAO and SSBS come with SPSR.
    let s = &c.state;
    assert_eq!((s.el, s.sp_sel, s.pc, s.x[31]), (0, false, 0x1_0000, 0x77));
    assert_eq!((s.nzcv, s.pstate), (0x6000_0000, 0x80_1000));
    c.exception(&world, crate::Exception::Svc(9));
    let s = &c.state;
    assert_eq!((s.el, s.sp_sel, s.pc, s.x[31]), (1, true, 0x8400, 0x99));
    assert_eq!(s.spsr[1], 0x6080_1000);
    assert_eq!((s.elr[1], s.esr[1]), (0x1_0004, 0x5600_0009));
    // DAIF, PAN (SPAN = 0), SSBS (DSSBS = 1); UAO is gone.
    assert_eq!(s.pstate, 0x40_13c0);
    // AArch32, EL2, EL0 with SP_EL1, EL3: illegal.
    for spsr in [0x10u64, 0x9, 0x1, 0xd, 0x6] {
        let before = c.state.clone();
        c.state.spsr[1] = spsr | 0x8000_0080;
        c.state.elr[1] = 0x4446;
        c.exception_return();
        let s = &c.state;
        assert_eq!((s.el, s.sp_sel, s.pc), (1, true, 0x4446), "{spsr:#x}");
        assert_eq!((s.nzcv, s.pstate), (1 << 31, 0x10_1080), "{spsr:#x}");
        c.set_state(before);
    }
}

/// A kick and a stop at once lose neither.
#[test]
fn stopping_outlives_a_kick() {
    struct Stops(Recorder);
    impl World for Stops {
        fn space(&self) -> &AddressSpace {
            &self.0.space
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
    let world = Stops(Recorder::default());
    let mut c = core("max");
    let mut tlb = Log::default();
    c.exception(&world, crate::Exception::Hvc(0));
    c.signals.kick();
    assert_eq!(c.service(&world, &mut tlb), Some(Exit::Off));
    assert_eq!(c.service(&world, &mut tlb), Some(Exit::Kicked));
    assert_eq!(c.service(&world, &mut tlb), None);
}

/// Every encoding, at both levels, with odd values: no panic, and EL0 reaches little.
#[test]
fn survives_every_encoding() {
    let world = Recorder::default();
    let mut tlb = Log::default();
    let mut readable = 0;
    for model in crate::MODELS {
        let (mut c, clock) = still(model);
        for value in [0, u64::MAX, 0xdead_beef_8765_4321] {
            for register in 0..=u16::MAX {
                for el in [1, 0] {
                    let state = State::power_on(c.state.mpidr);
                    if register & 0xff == 0 {
                        c.set_state(state);
                        clock.now.fetch_add(1 << 40, Ordering::SeqCst);
                    }
                    c.state.select_stack(el, el == 1);
                    if register >> 14 == 1 {
                        let _ = c.system(&world, &mut tlb, register, 3, value);
                    } else {
                        let read = c.read_register(&world, register, 3).is_ok();
                        readable += u32::from(read && el == 0);
                        c.state.select_stack(el, el == 1);
                        let _ = c.write_register(&world, register, 3, value);
                    }
                    let _ = c.write_pstate(u32::from(register & 0x3f), u32::from(register >> 6));
                    c.state.pstate &= !pstate::IL;
                }
                tlb.0.clear();
            }
        }
    }
    assert!(readable > 10);
}
