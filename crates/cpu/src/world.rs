//! What a processor finds around it.

use memory::AddressSpace;

/// The machine, as a processor sees it. Every engine calls it in line, on the processor's thread, so that no half-done
/// instruction has to be resumed.
pub trait World: Sync {
    /// The physical address space.
    fn space(&self) -> &AddressSpace;

    /// Registers of the interrupt controller's processor interface and others that are not the processor's own
    /// (encoding `op0<<14|op1<<11|CRn<<7|CRm<<3|op2`): `None` is undefined.
    fn read_system_register(&self, cpu: u32, register: u16) -> Option<u64>;

    /// The same, written.
    fn write_system_register(&self, cpu: u32, register: u16, value: u64) -> Option<()>;

    /// The level of a private interrupt line of this processor (a timer's, the PMU's; INTID 16 to 31) is now `level`.
    fn private_interrupt(&self, cpu: u32, intid: u32, level: bool);

    /// HVC or SMC from EL1: PSCI and SMCCC. `x` holds X0 to X17 in and the results out. Never faults: an unknown call
    /// puts −1 into X0.
    fn call(&self, cpu: u32, x: &mut [u64; 18]) -> CallOutcome;
}

/// What comes after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The next instruction.
    Resume,
    /// This processor is off (PSCI CPU_OFF, SYSTEM_OFF, SYSTEM_RESET): it leaves its run loop.
    Stop,
    /// PSCI CPU_SUSPEND: it waits as WFI does.
    Wait,
}
