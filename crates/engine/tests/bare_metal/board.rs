//! The least board: RAM, a few words of device, an interrupt controller of two registers.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use aarch64::registers as r;
use dormer_engine::psci::{Order, Psci};
use dormer_engine::{
    CallOutcome, Config, Engine, Exit, Features, GicPlan, InterruptController, KernelController,
    Vcpu, Vm, World,
};
use memory::{AddressSpace, Mapping, Ram};

use crate::assembler::Code;

/// RAM, and where things are in it.
pub const RAM: u64 = 0x4000_0000;
pub const RAM_SIZE: u64 = 0x80_0000;
pub const CODE: u64 = RAM;
pub const SECOND: u64 = RAM + 0x8000;
pub const VECTORS: u64 = RAM + 0x1_0000;
pub const USER: u64 = RAM + 0x1_8000;
pub const LOG: u64 = RAM + 0x2_0000;
pub const DATA: u64 = RAM + 0x4_0000;
pub const TABLES: u64 = RAM + 0x10_0000;
/// A device that remembers its last write.
pub const DEVICE: u64 = 0x0900_0000;
/// The interrupt controller, where it is the kernel's.
const DISTRIBUTOR: u64 = 0x0800_0000;
const REDISTRIBUTORS: u64 = 0x080a_0000;

/// For guests of emulated hosts, too.
const PATIENCE: Duration = Duration::from_secs(240);

pub struct Board {
    pub space: AddressSpace,
    pub ram: Ram,
    pub vm: Arc<dyn Vm>,
    pub clock: device::Clock,
    pub psci: Psci,
    /// Private interrupts at their levels, a bit an INTID.
    pub private: Vec<AtomicU32>,
    pub stop: Arc<AtomicBool>,
    /// The interrupt controller and PSCI are the host kernel's: there are no lines to drive.
    pub kernel: Option<Arc<dyn KernelController>>,
    pub written: Arc<AtomicU64>,
}

struct Latch(Arc<AtomicU64>);

impl memory::Mmio for Latch {
    fn read(&self, _: memory::Access) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    fn write(&self, _: memory::Access, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
}

impl World for Board {
    fn space(&self) -> &AddressSpace {
        &self.space
    }

    fn read_system_register(&self, cpu: u32, register: u16) -> Option<u64> {
        match register {
            r::ICC_IAR1_EL1 => {
                let pending = self.private[cpu as usize].load(Ordering::SeqCst);
                Some(if pending == 0 {
                    1023
                } else {
                    pending.trailing_zeros().into()
                })
            }
            _ => None,
        }
    }

    fn write_system_register(&self, _: u32, register: u16, _: u64) -> Option<()> {
        (register == r::ICC_EOIR1_EL1).then_some(())
    }

    fn private_interrupt(&self, cpu: u32, intid: u32, level: bool) {
        if let Some(kernel) = &self.kernel {
            return kernel.set_ppi(cpu, intid, level);
        }
        let mask = &self.private[cpu as usize];
        if level {
            mask.fetch_or(1 << intid, Ordering::SeqCst);
        } else {
            mask.fetch_and(!(1 << intid), Ordering::SeqCst);
        }
        self.vm.set_irq(cpu, mask.load(Ordering::SeqCst) != 0);
    }

    fn call(&self, cpu: u32, x: &mut [u64; 18]) -> CallOutcome {
        self.psci.call(cpu, x)
    }
}

impl Board {
    /// On the engine under test.
    pub fn new(cpus: u32) -> Arc<Board> {
        Board::on(&*crate::engine(), cpus)
    }

    /// On that engine.
    pub fn on(engine: &dyn Engine, cpus: u32) -> Arc<Board> {
        Board::with(engine, cpus, dormer_engine::Translation::default())
    }

    /// The same, with options for the generation of code.
    pub fn with(
        engine: &dyn Engine,
        cpus: u32,
        translation: dormer_engine::Translation,
    ) -> Arc<Board> {
        let ram = Ram::new(&[(RAM, RAM_SIZE)]).unwrap();
        let space = AddressSpace::new();
        for (start, size, host) in ram.ranges() {
            space
                .map(
                    start,
                    size,
                    Mapping::Ram {
                        host: host as usize,
                    },
                )
                .unwrap();
        }
        let written = Arc::new(AtomicU64::new(0));
        space
            .map(
                DEVICE,
                0x1000,
                Mapping::Mmio(Arc::new(Latch(written.clone()))),
            )
            .unwrap();
        let mpidrs: Vec<u64> = (0..u64::from(cpus)).collect();
        let config = Config {
            mpidrs: mpidrs.clone(),
            features: Arc::new(Features::model("max").unwrap()),
            frequency: 62_500_000,
            clock: device::Clock::new(),
            translation,
            icount: None,
            address_bits: 40,
            granule: RAM_SIZE,
            gic: GicPlan::V3 {
                distributor: DISTRIBUTOR,
                redistributors: vec![(REDISTRIBUTORS, cpus)],
                its: None,
            },
        };
        let clock = config.clock.clone();
        let vm = engine.create(config).unwrap();
        for (start, size, host) in ram.ranges() {
            vm.map(start, size, host as usize, true).unwrap();
        }
        let stop = Arc::new(AtomicBool::new(false));
        let ender = Arc::new(OnceLock::<std::sync::Weak<Board>>::new());
        let ending = ender.clone();
        let psci = Psci::new(&mpidrs, move |_| {
            if let Some(board) = ending.get().and_then(|b| b.upgrade()) {
                board.end();
            }
        });
        let kernel = match vm.interrupt_controller() {
            InterruptController::Ours => None,
            InterruptController::InKernel(controller) => Some(controller),
        };
        let private = (0..cpus).map(|_| AtomicU32::new(0)).collect();
        let board = Arc::new(Board {
            space,
            ram,
            vm,
            clock,
            psci,
            private,
            stop,
            kernel,
            written,
        });
        ender.set(Arc::downgrade(&board)).unwrap();
        board
    }

    /// Makes every processor's thread end.
    pub fn end(&self) {
        self.stop.store(true, Ordering::SeqCst);
        for cpu in 0..self.private.len() as u32 {
            self.vm.kick(cpu);
            self.psci.interrupt(cpu);
        }
    }

    pub fn load(&self, code: &Code) {
        for (i, word) in code.words.iter().enumerate() {
            self.ram
                .dma()
                .write_u32(code.base + i as u64 * 4, *word)
                .unwrap();
        }
    }

    pub fn put(&self, address: u64, value: u64) {
        self.ram.dma().write_u64(address, value).unwrap();
    }

    pub fn get(&self, address: u64) -> u64 {
        self.ram.dma().read_u64(address).unwrap()
    }

    /// Runs processor `cpu` on a thread until the machine ends.
    pub fn spawn(self: &Arc<Board>, cpu: u32) -> JoinHandle<()> {
        let board = self.clone();
        std::thread::spawn(move || {
            let mut vcpu = board.vm.vcpu(cpu).unwrap();
            let powers = board.vm.powers_processors();
            while !board.stop.load(Ordering::SeqCst) {
                // Where PSCI is the kernel's, the others wait inside of their runs to be turned on.
                let order = match powers {
                    true => None,
                    false => Some(board.psci.wait(cpu)),
                };
                if order.is_none() && cpu == 0 {
                    vcpu.start(CODE, 0).unwrap();
                }
                if let Some(Order::Start { entry, context }) = order {
                    vcpu.start(entry, context).unwrap();
                }
                if matches!(order, None | Some(Order::Start { .. })) {
                    while !board.stop.load(Ordering::SeqCst) {
                        match vcpu.run(&*board) {
                            Exit::Kicked => {}
                            Exit::Off => break,
                            Exit::Debug(stop) => panic!("{stop:?}"),
                            Exit::Fault(what) => panic!("{what}"),
                        }
                    }
                }
            }
        })
    }

    /// Starts processor 0 at [`CODE`] and runs all until the guest turns the machine off. Fails when that takes too long.
    pub fn run(self: &Arc<Board>) {
        self.psci.reset(CODE, 0);
        let threads: Vec<_> = (0..self.private.len() as u32)
            .map(|i| self.spawn(i))
            .collect();
        let start = Instant::now();
        let mut late = false;
        while !threads.iter().all(JoinHandle::is_finished) {
            if start.elapsed() > PATIENCE && !late {
                late = true;
                self.end();
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert!(
            !late,
            "the guest did not end in time; it logged {:x?}",
            self.log().iter().take(40).collect::<Vec<_>>()
        );
    }

    /// Has the guest turn on the interrupt controller for the first processor, if that is the kernel's.
    pub fn turn_on_interrupts(&self, c: &mut Code) {
        if self.kernel.is_none() {
            return;
        }
        let mut write = |address: u64, value: u64| {
            // str w2, [x1]
            c.li(1, address).li(2, value).word(0xb900_0022);
        };
        // GICD_CTLR: affinity routing, group 1.
        write(DISTRIBUTOR, 1 << 4 | 1 << 1);
        // GICR_WAKER; of private interrupts: group 1, enabled.
        write(REDISTRIBUTORS + 0x14, 0);
        let private = REDISTRIBUTORS + 0x1_0000;
        write(private + 0x80, 0xffff_ffff);
        write(private + 0x100, 0xffff_ffff);
        c.set(r::ICC_SRE_EL1, 7).isb();
        c.set(r::ICC_PMR_EL1, 0xff).set(r::ICC_IGRPEN1_EL1, 1).isb();
        c.li(1, 0).li(2, 0);
    }

    /// What the vectors logged: entry, ESR, ELR, FAR, SPSR of each exception.
    pub fn log(&self) -> Vec<[u64; 5]> {
        let mut log = Vec::new();
        let mut at = LOG;
        while at < RAM + RAM_SIZE - 40 && self.get(at) != 0 {
            log.push([0, 8, 16, 24, 32].map(|offset| self.get(at + offset)));
            at += 40;
        }
        log
    }
}

/// A processor of its own, to be run by the test itself; kicked after a while, so that no test hangs.
pub fn vcpu(board: &Board, cpu: u32, entry: u64) -> Box<dyn Vcpu> {
    // Some hosts have one virtual machine a process: it is not to outlive its test.
    let vm = Arc::downgrade(&board.vm);
    std::thread::spawn(move || {
        std::thread::sleep(PATIENCE);
        if let Some(vm) = vm.upgrade() {
            vm.kick(cpu);
        }
    });
    let mut vcpu = board.vm.vcpu(cpu).unwrap();
    vcpu.start(entry, 0).unwrap();
    vcpu
}

/// Vectors that log every exception at x28 and go on after the instruction; at x19 where that makes no sense. An SVC of
/// 0xff ends the machine. Interrupts: the INTID is logged in the place of FAR, and the timers and the performance monitors' interrupt are turned off. Uses x20 to
/// x27.
pub fn vectors() -> Code {
    let mut c = Code::at(VECTORS);
    for entry in 0..16u64 {
        c.align_to(entry as usize * 0x80);
        let body = VECTORS + 0x800 + entry % 4 * 0x200;
        c.li(20, entry + 1);
        let by = (body.wrapping_sub(c.address()) / 4) as u32;
        c.word(0x1400_0000 | by);
    }
    for kind in 0..4 {
        c.align_to(0x800 + kind * 0x200);
        c.mrs(21, r::ESR_EL1)
            .mrs(22, r::ELR_EL1)
            .mrs(23, r::FAR_EL1)
            .mrs(24, r::SPSR_EL1);
        // mov w21, w21: of what KVM makes itself, Linux 6.1 extends the sign.
        c.word(0x2a15_03f5);
        if kind == 1 || kind == 2 {
            c.mrs(23, r::ICC_IAR1_EL1);
        }
        for register in 20..25 {
            c.push(register, 28);
        }
        if kind == 1 || kind == 2 {
            c.msr(r::CNTV_CTL_EL0, 31)
                .msr(r::CNTP_CTL_EL0, 31)
                .msr(r::ICC_EOIR1_EL1, 23);
            c.li(26, 1 << 31).msr(r::PMINTENCLR_EL1, 26).eret();
            continue;
        }
        // SVC: go on there, or end.
        c.lsr(25, 21, 26).cmp(25, 0x15);
        let other = c.skip_if(crate::assembler::NE);
        c.li(26, 0x5600_00ff).cmp_register(21, 26);
        let on = c.skip_if(crate::assembler::NE);
        c.psci(aarch64::psci::function::SYSTEM_OFF);
        c.land(on);
        c.eret();
        c.land(other);
        // Illegal state, instruction aborts and PC alignment: to x19, without IL.
        c.cmp(25, 0x0e);
        let illegal = c.skip_if(crate::assembler::EQ);
        c.sub(25, 25, 0x20).cmp(25, 2);
        let lost = c.skip_if(crate::assembler::LS);
        c.add(22, 22, 4).msr(r::ELR_EL1, 22).eret();
        c.land(illegal);
        c.land(lost);
        c.li(26, 1 << 20)
            .bic(24, 24, 26)
            .msr(r::SPSR_EL1, 24)
            .msr(r::ELR_EL1, 19)
            .eret();
    }
    c
}
