//! The real framework.
//!
//! Every function is looked up at run time: a program so built links on any host, starts on any macOS, and finds out what
//! this one has. A missing library or function is an [`Error`] that names it, never a program that does not start.
#![allow(unsafe_code)] // foreign functions, and nothing else
#![allow(improper_ctypes_definitions)] // vectors: the compiler passes them as the platform does, and is not sure yet

use std::any::Any;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::ptr::{null, null_mut};

use core::arch::aarch64::uint8x16_t;

use super::framework::{Exception, Framework, Handle, Interrupt, Refusal, VcpuExit};
use crate::Error;

/// macOS before this has no `hv_vm_config_*` to ask for address sizes.
const OLDEST: u32 = 13;

const HYPERVISOR: &CStr = c"/System/Library/Frameworks/Hypervisor.framework/Hypervisor";
const FOUNDATION: &CStr = c"/System/Library/Frameworks/Foundation.framework/Foundation";
const IOKIT: &CStr = c"/System/Library/Frameworks/IOKit.framework/IOKit";

/// `hv_vcpu_exit_t`.
#[repr(C)]
struct RawExit {
    reason: u32,
    exception: Exception,
}

type Config = *mut c_void;

/// `hv_ipa_granule_t`, and what its values stand for.
const IPA_GRANULE_4KB: u32 = 0;
const IPA_GRANULE_16KB: u32 = 1;
const GRANULE_4K: u64 = 4 << 10;
const GRANULE_16K: u64 = 16 << 10;

/// Declares the table of functions and how it is filled.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) -> $result:ty;)*) => {
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) -> $result,)*
        }

        impl Functions {
            fn find() -> Result<Functions, Error> {
                let library = open(HYPERVISOR)?;
                Ok(Functions {
                    $($name: {
                        let name = concat!(stringify!($name), "\0");
                        let address = find(library, name)?;
                        // SAFETY: the function of that name has this signature (Hypervisor/hv_vcpu.h, hv_vm.h,
                        // hv_vm_config.h of the macOS SDK).
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) -> $result,
                            >(address)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    hv_vm_config_create: fn() -> Config;
    hv_vm_config_get_default_ipa_size: fn(*mut u32) -> u32;
    hv_vm_config_get_max_ipa_size: fn(*mut u32) -> u32;
    hv_vm_config_set_ipa_size: fn(Config, u32) -> u32;
    hv_vm_create: fn(Config) -> u32;
    hv_vm_destroy: fn() -> u32;
    hv_vm_map: fn(*mut c_void, u64, usize, u64) -> u32;
    hv_vm_unmap: fn(u64, usize) -> u32;
    hv_vm_protect: fn(u64, usize, u64) -> u32;
    hv_vcpu_create: fn(*mut u64, *mut *const RawExit, *mut c_void) -> u32;
    hv_vcpu_destroy: fn(u64) -> u32;
    hv_vcpu_run: fn(u64) -> u32;
    hv_vcpus_exit: fn(*const u64, u32) -> u32;
    hv_vcpu_get_reg: fn(u64, u32, *mut u64) -> u32;
    hv_vcpu_set_reg: fn(u64, u32, u64) -> u32;
    hv_vcpu_get_sys_reg: fn(u64, u16, *mut u64) -> u32;
    hv_vcpu_set_sys_reg: fn(u64, u16, u64) -> u32;
    hv_vcpu_get_simd_fp_reg: fn(u64, u32, *mut uint8x16_t) -> u32;
    // The value is a vector, which the ABI passes in V0: a u128 would go in X2 and X3.
    hv_vcpu_set_simd_fp_reg: fn(u64, u32, uint8x16_t) -> u32;
    hv_vcpu_set_pending_interrupt: fn(u64, u32, bool) -> u32;
    hv_vcpu_set_vtimer_mask: fn(u64, bool) -> u32;
    hv_vcpu_set_vtimer_offset: fn(u64, u64) -> u32;
    hv_vcpu_set_trap_debug_exceptions: fn(u64, bool) -> u32;
    hv_vcpu_set_trap_debug_reg_accesses: fn(u64, bool) -> u32;
    os_release: fn(*mut c_void) -> ();
    mach_absolute_time: fn() -> u64;
}

fn open(path: &CStr) -> Result<*mut c_void, Error> {
    // SAFETY: a string that ends; the library stays loaded.
    let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_GLOBAL) };
    if library.is_null() {
        return Err(Error::Unavailable(format!(
            "this macOS has no {}",
            path.to_string_lossy()
        )));
    }
    Ok(library)
}

/// A function's address; `name` ends in a zero.
fn find(library: *mut c_void, name: &str) -> Result<*mut c_void, Error> {
    // SAFETY: `library` is open, `name` ends in a zero.
    let mut address = unsafe { libc::dlsym(library, name.as_ptr().cast::<c_char>()) };
    if address.is_null() {
        // SAFETY: as above: those of the system's own library.
        address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr().cast::<c_char>()) };
    }
    if address.is_null() {
        return Err(Error::Unavailable(format!(
            "this macOS has no {}: macOS {OLDEST} or later is needed",
            name.trim_end_matches('\0')
        )));
    }
    Ok(address)
}

/// A 32-bit value of sysctl; `None` if there is none of that name.
fn sysctl(name: &CStr) -> Option<u32> {
    let mut value = 0u32;
    let mut size = size_of::<u32>();
    // SAFETY: the buffer is of the size given.
    let result = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            (&raw mut value).cast(),
            &raw mut size,
            null_mut(),
            0,
        )
    };
    (result == 0).then_some(value)
}

/// Why a virtual machine cannot be had on this Mac; `None` if it can.
pub fn missing() -> Option<String> {
    if sysctl(c"kern.hv_support").unwrap_or(0) == 0 {
        return Some(
            "this Mac (or the virtual machine that is one) offers no virtualisation: sysctl kern.hv_support is 0".into(),
        );
    }
    let framework = match Apple::new() {
        Ok(framework) => framework,
        Err(error) => return Some(error.to_string()),
    };
    // The entitlement shows only when a machine is made.
    let ipa_size = framework.default_ipa_size().unwrap_or(36);
    match framework.vm_create(ipa_size, GRANULE_16K) {
        Ok(()) => {
            let _ = framework.vm_destroy();
            None
        }
        Err(refusal) => Some(super::refused("hv_vm_create", refusal).to_string()),
    }
}

thread_local! {
    /// Where the framework says why a run of each vCPU of this thread ended.
    static EXITS: RefCell<HashMap<Handle, *const RawExit>> = RefCell::default();
}

/// Hypervisor.framework.
pub struct Apple {
    f: Functions,
    /// `hv_vm_config_set_ipa_granule`, since macOS 26.
    set_granule: Option<unsafe extern "C" fn(Config, u32) -> u32>,
}

impl Apple {
    /// Finds it.
    pub fn new() -> Result<Apple, Error> {
        let library = open(HYPERVISOR)?;
        let set_granule = find(library, "hv_vm_config_set_ipa_granule\0").ok();
        Ok(Apple {
            f: Functions::find()?,
            // SAFETY: the function of that name has this signature (Hypervisor/hv_vm_config.h of the macOS 26 SDK).
            set_granule: set_granule.map(|address| unsafe {
                std::mem::transmute::<*mut c_void, unsafe extern "C" fn(Config, u32) -> u32>(
                    address,
                )
            }),
        })
    }
}

fn done(result: u32) -> Result<(), Refusal> {
    match result {
        0 => Ok(()),
        code => Err(Refusal(code)),
    }
}

// SAFETY (of every call below): the functions take values and pointers to living ones of the types they are declared with;
// what belongs to a vCPU is called on its thread, as the trait says.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Framework for Apple {
    fn default_ipa_size(&self) -> Result<u32, Refusal> {
        let mut bits = 0;
        done(unsafe { (self.f.hv_vm_config_get_default_ipa_size)(&mut bits) })?;
        Ok(bits)
    }

    fn max_ipa_size(&self) -> Result<u32, Refusal> {
        let mut bits = 0;
        done(unsafe { (self.f.hv_vm_config_get_max_ipa_size)(&mut bits) })?;
        Ok(bits)
    }

    fn chooses_granule(&self) -> bool {
        self.set_granule.is_some()
    }

    fn vm_create(&self, ipa_size: u32, granule: u64) -> Result<(), Refusal> {
        let config = unsafe { (self.f.hv_vm_config_create)() };
        let result = done(unsafe { (self.f.hv_vm_config_set_ipa_size)(config, ipa_size) })
            .and_then(|()| match (self.set_granule, granule) {
                (Some(set), GRANULE_4K) => done(unsafe { set(config, IPA_GRANULE_4KB) }),
                (Some(set), GRANULE_16K) => done(unsafe { set(config, IPA_GRANULE_16KB) }),
                (None, GRANULE_16K) => Ok(()),
                _ => Err(Refusal::UNSUPPORTED),
            })
            .and_then(|()| done(unsafe { (self.f.hv_vm_create)(config) }));
        if !config.is_null() {
            unsafe { (self.f.os_release)(config) };
        }
        result
    }

    fn vm_destroy(&self) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vm_destroy)() })
    }

    fn vm_map(&self, host: usize, ipa: u64, size: u64, flags: u64) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vm_map)(host as *mut c_void, ipa, size as usize, flags) })
    }

    fn vm_unmap(&self, ipa: u64, size: u64) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vm_unmap)(ipa, size as usize) })
    }

    fn vm_protect(&self, ipa: u64, size: u64, flags: u64) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vm_protect)(ipa, size as usize, flags) })
    }

    fn vcpu_create(&self) -> Result<Handle, Refusal> {
        let (mut handle, mut exit) = (0, null());
        done(unsafe { (self.f.hv_vcpu_create)(&mut handle, &mut exit, null_mut()) })?;
        EXITS.with_borrow_mut(|exits| exits.insert(handle, exit));
        Ok(handle)
    }

    fn vcpu_destroy(&self, vcpu: Handle) -> Result<(), Refusal> {
        EXITS.with_borrow_mut(|exits| exits.remove(&vcpu));
        done(unsafe { (self.f.hv_vcpu_destroy)(vcpu) })
    }

    fn vcpu_run(&self, vcpu: Handle) -> Result<VcpuExit, Refusal> {
        let exit = EXITS.with_borrow(|exits| exits.get(&vcpu).copied());
        // Of another thread: the framework would refuse it too.
        let Some(exit) = exit else {
            return Err(Refusal::BAD_ARGUMENT);
        };
        done(unsafe { (self.f.hv_vcpu_run)(vcpu) })?;
        // The framework's own, valid as long as the vCPU; written by its runs only.
        let exit = unsafe { exit.read_volatile() };
        Ok(match exit.reason {
            0 => VcpuExit::Canceled,
            1 => VcpuExit::Exception(exit.exception),
            2 => VcpuExit::VtimerActivated,
            reason => VcpuExit::Unknown(reason),
        })
    }

    fn vcpus_exit(&self, vcpus: &[Handle]) -> Result<(), Refusal> {
        let count = u32::try_from(vcpus.len()).unwrap_or(0);
        done(unsafe { (self.f.hv_vcpus_exit)(vcpus.as_ptr(), count) })
    }

    fn get_reg(&self, vcpu: Handle, reg: u32) -> Result<u64, Refusal> {
        let mut value = 0;
        done(unsafe { (self.f.hv_vcpu_get_reg)(vcpu, reg, &mut value) })?;
        Ok(value)
    }

    fn set_reg(&self, vcpu: Handle, reg: u32, value: u64) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vcpu_set_reg)(vcpu, reg, value) })
    }

    fn get_sys_reg(&self, vcpu: Handle, reg: u16) -> Result<u64, Refusal> {
        let mut value = 0;
        done(unsafe { (self.f.hv_vcpu_get_sys_reg)(vcpu, reg, &mut value) })?;
        Ok(value)
    }

    fn set_sys_reg(&self, vcpu: Handle, reg: u16, value: u64) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vcpu_set_sys_reg)(vcpu, reg, value) })
    }

    fn get_simd_fp_reg(&self, vcpu: Handle, reg: u32) -> Result<u128, Refusal> {
        // Both types are 16 bytes, of which every value is one.
        let mut value: uint8x16_t = unsafe { std::mem::transmute(0u128) };
        done(unsafe { (self.f.hv_vcpu_get_simd_fp_reg)(vcpu, reg, &mut value) })?;
        Ok(unsafe { std::mem::transmute::<uint8x16_t, u128>(value) })
    }

    fn set_simd_fp_reg(&self, vcpu: Handle, reg: u32, value: u128) -> Result<(), Refusal> {
        let value = unsafe { std::mem::transmute::<u128, uint8x16_t>(value) };
        done(unsafe { (self.f.hv_vcpu_set_simd_fp_reg)(vcpu, reg, value) })
    }

    fn set_pending_interrupt(
        &self,
        vcpu: Handle,
        interrupt: Interrupt,
        pending: bool,
    ) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vcpu_set_pending_interrupt)(vcpu, interrupt as u32, pending) })
    }

    fn set_vtimer_mask(&self, vcpu: Handle, masked: bool) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vcpu_set_vtimer_mask)(vcpu, masked) })
    }

    fn set_vtimer_offset(&self, vcpu: Handle, offset: u64) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vcpu_set_vtimer_offset)(vcpu, offset) })
    }

    fn set_trap_debug_exceptions(&self, vcpu: Handle, trap: bool) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vcpu_set_trap_debug_exceptions)(vcpu, trap) })
    }

    fn set_trap_debug_reg_accesses(&self, vcpu: Handle, trap: bool) -> Result<(), Refusal> {
        done(unsafe { (self.f.hv_vcpu_set_trap_debug_reg_accesses)(vcpu, trap) })
    }

    fn counter(&self) -> u64 {
        unsafe { (self.f.mach_absolute_time)() }
    }

    fn counter_frequency(&self) -> u64 {
        let frequency: u64;
        // CNTFRQ_EL0 is readable at EL0 on macOS: `mach_absolute_time` is CNTVCT_EL0 on Apple silicon.
        unsafe {
            core::arch::asm!("mrs {}, cntfrq_el0", out(reg) frequency, options(nomem, nostack));
        }
        frequency
    }

    fn vcpu_thread(&self) {
        // Of two kinds of cores, the fast ones.
        let class = libc::qos_class_t::QOS_CLASS_USER_INTERACTIVE;
        let result = unsafe { libc::pthread_set_qos_class_self_np(class, 0) };
        if result != 0 {
            tracing::debug!(result, "pthread_set_qos_class_self_np");
        }
    }

    fn stay_awake(&self) -> Box<dyn Any + Send + Sync> {
        let activity = Activity::begin();
        let assertion = Assertion::take();
        if activity.is_none() || assertion.is_none() {
            tracing::warn!("the Mac may sleep, or slow this program, while the machine runs");
        }
        Box::new((activity, assertion))
    }
}

/// `NSActivityUserInitiated | NSActivityLatencyCritical` (NSProcessInfo.h), without which a program with no window in sight
/// is slowed (App Nap).
const ACTIVITY: u64 = 0x00ff_ffff | 0xff_0000_0000;

/// An activity of NSProcessInfo. Dropping it ends it.
struct Activity {
    information: *mut c_void,
    token: *mut c_void,
}

// SAFETY: NSProcessInfo's methods may be called from any thread, and the token is only handed back.
unsafe impl Send for Activity {}
// SAFETY: as above.
unsafe impl Sync for Activity {}

/// `objc_msgSend` and what finds its receivers, by the Objective-C runtime's reference.
struct ObjectiveC {
    class: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    selector: unsafe extern "C" fn(*const c_char) -> *mut c_void,
    send: *mut c_void,
}

impl ObjectiveC {
    fn find() -> Option<ObjectiveC> {
        let library = open(FOUNDATION).ok()?;
        let class = find(library, "objc_getClass\0").ok()?;
        let selector = find(library, "sel_registerName\0").ok()?;
        let send = find(library, "objc_msgSend\0").ok()?;
        type Named = unsafe extern "C" fn(*const c_char) -> *mut c_void;
        // SAFETY: both take a C string and give a pointer.
        let (class, selector) = unsafe {
            (
                std::mem::transmute::<*mut c_void, Named>(class),
                std::mem::transmute::<*mut c_void, Named>(selector),
            )
        };
        Some(ObjectiveC {
            class,
            selector,
            send,
        })
    }

    /// A message with no argument, or with one pointer.
    fn send(&self, to: *mut c_void, selector: &CStr, argument: *const c_void) -> *mut c_void {
        type Send = unsafe extern "C" fn(*mut c_void, *mut c_void, *const c_void) -> *mut c_void;
        // SAFETY: receivers are objects of this module's making; an argument too many is ignored by the ABI.
        unsafe {
            let send = std::mem::transmute::<*mut c_void, Send>(self.send);
            send(to, (self.selector)(selector.as_ptr()), argument)
        }
    }
}

impl Activity {
    fn begin() -> Option<Activity> {
        let objc = ObjectiveC::find()?;
        // SAFETY: C strings.
        let (process, string) = unsafe {
            (
                (objc.class)(c"NSProcessInfo".as_ptr()),
                (objc.class)(c"NSString".as_ptr()),
            )
        };
        let information = objc.send(process, c"processInfo", null());
        let reason = objc.send(
            string,
            c"stringWithUTF8String:",
            c"A virtual machine runs".as_ptr().cast(),
        );
        type Begin =
            unsafe extern "C" fn(*mut c_void, *mut c_void, u64, *mut c_void) -> *mut c_void;
        // SAFETY: -[NSProcessInfo beginActivityWithOptions:reason:] takes 64-bit options and an NSString.
        let token = unsafe {
            let begin = std::mem::transmute::<*mut c_void, Begin>(objc.send);
            let selector = (objc.selector)(c"beginActivityWithOptions:reason:".as_ptr());
            begin(information, selector, ACTIVITY, reason)
        };
        if token.is_null() {
            return None;
        }
        objc.send(token, c"retain", null());
        Some(Activity { information, token })
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        if let Some(objc) = ObjectiveC::find() {
            objc.send(self.information, c"endActivity:", self.token);
            objc.send(self.token, c"release", null());
        }
    }
}

/// A power assertion of IOKit: no idle sleep. Dropping it gives it back.
struct Assertion {
    id: u32,
    release: unsafe extern "C" fn(u32) -> i32,
}

/// kIOPMAssertionLevelOn (IOPMLib.h).
const ASSERTION_ON: u32 = 255;
/// kCFStringEncodingUTF8 (CFString.h).
const UTF8: u32 = 0x0800_0100;

impl Assertion {
    fn take() -> Option<Assertion> {
        let iokit = open(IOKIT).ok()?;
        type String = unsafe extern "C" fn(*const c_void, *const c_char, u32) -> *const c_void;
        type Create = unsafe extern "C" fn(*const c_void, u32, *const c_void, *mut u32) -> i32;
        type Release = unsafe extern "C" fn(u32) -> i32;
        type Forget = unsafe extern "C" fn(*const c_void);
        let string = find(iokit, "CFStringCreateWithCString\0").ok()?;
        let forget = find(iokit, "CFRelease\0").ok()?;
        let create = find(iokit, "IOPMAssertionCreateWithName\0").ok()?;
        let release = find(iokit, "IOPMAssertionRelease\0").ok()?;
        // SAFETY: signatures of CFString.h, CFBase.h and IOPMLib.h; strings end; the strings made are released once.
        unsafe {
            let string = std::mem::transmute::<*mut c_void, String>(string);
            let create = std::mem::transmute::<*mut c_void, Create>(create);
            let release = std::mem::transmute::<*mut c_void, Release>(release);
            let forget = std::mem::transmute::<*mut c_void, Forget>(forget);
            let kind = string(null(), c"PreventUserIdleSystemSleep".as_ptr(), UTF8);
            let name = string(null(), c"A virtual machine runs".as_ptr(), UTF8);
            let mut id = 0;
            let result = create(kind, ASSERTION_ON, name, &mut id);
            forget(kind);
            forget(name);
            (result == 0).then_some(Assertion { id, release })
        }
    }
}

impl Drop for Assertion {
    fn drop(&mut self) {
        // SAFETY: the assertion of that number was made by us and is released once.
        unsafe { (self.release)(self.id) };
    }
}
