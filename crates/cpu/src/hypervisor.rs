//! What a hypervisor beneath the guest could take, for models of one.

/// Something that traps of EL2 could catch, told before it has any effect: the state is that before the instruction, and
/// its PC the instruction's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A synchronous exception is about to be taken at EL1: class and syndrome as for ESR_EL1, and the address of FAR_EL1.
    Synchronous {
        class: u32,
        iss: u32,
        far: Option<u64>,
    },
    /// WFI.
    WaitForInterrupt,
    /// WFE.
    WaitForEvent,
    /// MRS of a register that EL1 and EL0 may read here (encoding as [`aarch64::registers::encode`]) to Xt.
    ReadRegister { register: u16, rt: u32 },
    /// MSR of a register that they may write here, from Xt.
    WriteRegister { register: u16, rt: u32 },
    /// HVC (or SMC) from EL1.
    Call { smc: bool, immediate: u16 },
}

/// Sees every [`Event`] of a processor, on its thread. What it takes it ends by unwinding
/// ([`std::panic::resume_unwind`]) out of the run, which leaves the state as the event found it; what it returns from
/// goes on as if it were not there.
pub trait Hypervisor: Send + Sync {
    fn event(&self, event: Event);
}
