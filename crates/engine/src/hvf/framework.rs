//! Hypervisor.framework as its documentation has it, as far as the engine uses it.
//!
//! Names follow Apple's reference ("Hypervisor", Apple silicon), less the `hv_` in front. On macOS [`super::apple`] answers;
//! tests have a model of their own.

use std::any::Any;
use std::fmt;

/// `hv_vcpu_t`.
pub type Handle = u64;

/// `hv_return_t` that is not `HV_SUCCESS`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Refusal(pub u32);

impl Refusal {
    pub const ERROR: Refusal = Refusal(0xfae9_4001);
    pub const BUSY: Refusal = Refusal(0xfae9_4002);
    pub const BAD_ARGUMENT: Refusal = Refusal(0xfae9_4003);
    pub const NO_RESOURCES: Refusal = Refusal(0xfae9_4005);
    pub const NO_DEVICE: Refusal = Refusal(0xfae9_4006);
    /// The program lacks the entitlement com.apple.security.hypervisor.
    pub const DENIED: Refusal = Refusal(0xfae9_4007);
    pub const UNSUPPORTED: Refusal = Refusal(0xfae9_400f);
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Refusal::ERROR => "HV_ERROR",
            Refusal::BUSY => "HV_BUSY",
            Refusal::BAD_ARGUMENT => "HV_BAD_ARGUMENT",
            Refusal::NO_RESOURCES => "HV_NO_RESOURCES",
            Refusal::NO_DEVICE => "HV_NO_DEVICE",
            Refusal::DENIED => "HV_DENIED",
            Refusal::UNSUPPORTED => "HV_UNSUPPORTED",
            _ => return write!(f, "hv_return_t {:#x}", self.0),
        };
        f.write_str(name)
    }
}

impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `hv_memory_flags_t`.
pub mod memory {
    pub const READ: u64 = 1;
    pub const WRITE: u64 = 1 << 1;
    pub const EXECUTE: u64 = 1 << 2;
}

/// `hv_reg_t`.
pub mod reg {
    /// X0; X1 to X30 follow.
    pub const X0: u32 = 0;
    pub const PC: u32 = 31;
    pub const FPCR: u32 = 32;
    pub const FPSR: u32 = 33;
    pub const CPSR: u32 = 34;
}

/// `hv_interrupt_type_t`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Interrupt {
    Irq = 0,
    Fiq = 1,
}

/// `hv_vcpu_exit_t`: why `hv_vcpu_run` returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VcpuExit {
    /// `hv_vcpus_exit`.
    Canceled,
    Exception(Exception),
    /// The virtual timer fired; it is masked from now on.
    VtimerActivated,
    Unknown(u32),
}

/// `hv_vcpu_exit_exception_t`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Exception {
    /// ESR_EL2.
    pub syndrome: u64,
    /// FAR_EL2.
    pub virtual_address: u64,
    /// Of aborts: the guest-physical address.
    pub physical_address: u64,
}

/// The framework. Methods that take a [`Handle`] are for the thread that created that vCPU, but for
/// [`Framework::vcpus_exit`].
pub trait Framework: Send + Sync {
    /// `hv_vm_config_get_default_ipa_size`: bits of guest-physical addresses without asking for more.
    fn default_ipa_size(&self) -> Result<u32, Refusal>;
    /// `hv_vm_config_get_max_ipa_size`.
    fn max_ipa_size(&self) -> Result<u32, Refusal>;
    /// Whether there is `hv_vm_config_set_ipa_granule`, since macOS 26: mappings may be in units of 4 KiB, not of 16 KiB only.
    fn chooses_granule(&self) -> bool;
    /// `granule`: the unit of mappings, bytes.
    fn vm_create(&self, ipa_size: u32, granule: u64) -> Result<(), Refusal>;
    fn vm_destroy(&self) -> Result<(), Refusal>;
    /// `host` memory of `size` bytes appears at `ipa`, with [`memory`] permissions.
    fn vm_map(&self, host: usize, ipa: u64, size: u64, flags: u64) -> Result<(), Refusal>;
    fn vm_unmap(&self, ipa: u64, size: u64) -> Result<(), Refusal>;
    fn vm_protect(&self, ipa: u64, size: u64, flags: u64) -> Result<(), Refusal>;

    fn vcpu_create(&self) -> Result<Handle, Refusal>;
    fn vcpu_destroy(&self, vcpu: Handle) -> Result<(), Refusal>;
    fn vcpu_run(&self, vcpu: Handle) -> Result<VcpuExit, Refusal>;
    /// Makes the present run of each vCPU return, or its next. From any thread.
    fn vcpus_exit(&self, vcpus: &[Handle]) -> Result<(), Refusal>;
    fn get_reg(&self, vcpu: Handle, reg: u32) -> Result<u64, Refusal>;
    fn set_reg(&self, vcpu: Handle, reg: u32, value: u64) -> Result<(), Refusal>;
    /// `hv_sys_reg_t` is the register's encoding ([`aarch64::registers::encode`]).
    fn get_sys_reg(&self, vcpu: Handle, reg: u16) -> Result<u64, Refusal>;
    fn set_sys_reg(&self, vcpu: Handle, reg: u16, value: u64) -> Result<(), Refusal>;
    fn get_simd_fp_reg(&self, vcpu: Handle, reg: u32) -> Result<u128, Refusal>;
    fn set_simd_fp_reg(&self, vcpu: Handle, reg: u32, value: u128) -> Result<(), Refusal>;
    /// Pends until the next exit, which forgets it.
    fn set_pending_interrupt(
        &self,
        vcpu: Handle,
        interrupt: Interrupt,
        pending: bool,
    ) -> Result<(), Refusal>;
    fn set_vtimer_mask(&self, vcpu: Handle, masked: bool) -> Result<(), Refusal>;
    /// CNTVCT_EL0 is `mach_absolute_time` less this.
    fn set_vtimer_offset(&self, vcpu: Handle, offset: u64) -> Result<(), Refusal>;
    /// Whether the guest's debug exceptions come to us.
    fn set_trap_debug_exceptions(&self, vcpu: Handle, trap: bool) -> Result<(), Refusal>;
    /// Whether the guest's accesses of debug registers come to us.
    fn set_trap_debug_reg_accesses(&self, vcpu: Handle, trap: bool) -> Result<(), Refusal>;

    /// `mach_absolute_time`: the host's counter. It stands still while the host sleeps.
    fn counter(&self) -> u64;
    /// Its ticks a second.
    fn counter_frequency(&self) -> u64;
    /// Called on each vCPU's thread: gives it the scheduling class of what a user waits for.
    fn vcpu_thread(&self);
    /// Keeps the host from idle sleep, and this program from App Nap, until the value is dropped.
    fn stay_awake(&self) -> Box<dyn Any + Send + Sync>;
}
