//! The real framework.
//!
//! Functions and keys are looked up at run time, so that a program links and starts without the framework. What is missing is
//! an error that names it.
#![allow(unsafe_code)] // foreign functions, and nothing else

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr::{null, null_mut};
use std::sync::mpsc;
use std::time::Duration;

use block2::RcBlock;
use dispatch2::{DispatchQueue, DispatchRetained};

use super::framework::{
    Arrived, Framework, Interface, Packet, Parameters, Refusal, Rights, Started, Status,
};
use super::{Addresses, Config, Mode};
use crate::OpenError;

const VMNET: &CStr = c"/System/Library/Frameworks/vmnet.framework/vmnet";
const SECURITY: &CStr = c"/System/Library/Frameworks/Security.framework/Security";
const ENTITLEMENT: &CStr = c"com.apple.vm.networking";

/// How long a start and a stop may take.
const START: Duration = Duration::from_secs(30);
const STOP: Duration = Duration::from_secs(5);

const VMNET_SUCCESS: u32 = 1000;
/// `operating_modes_t`.
const VMNET_HOST_MODE: u64 = 1000;
const VMNET_SHARED_MODE: u64 = 1001;
const VMNET_BRIDGED_MODE: u64 = 1002;
/// `interface_event_t`.
const VMNET_INTERFACE_PACKETS_AVAILABLE: u32 = 1;

/// `xpc_object_t`.
type Object = *mut c_void;
/// `interface_ref`.
type Ref = *mut c_void;
/// `dispatch_queue_t`, and a block.
type Queue = *mut c_void;
type Block = *mut c_void;

/// `struct vmpktdesc`.
#[repr(C)]
struct Descriptor {
    size: usize,
    parts: *mut libc::iovec,
    count: u32,
    flags: u32,
}

/// Declares the table of functions and how it is filled.
macro_rules! functions {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[derive(Clone, Copy)]
        struct Functions {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Functions {
            fn find(library: Library) -> Result<Functions, String> {
                Ok(Functions {
                    $($name: {
                        let address = library.find(concat!(stringify!($name), "\0"))?;
                        // SAFETY: the function of that name has this signature (vmnet/vmnet.h, xpc/xpc.h of the macOS
                        // SDK).
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(address)
                        }
                    },)*
                })
            }
        }
    };
}

functions! {
    vmnet_start_interface: fn(Object, Queue, Block) -> Ref;
    vmnet_stop_interface: fn(Ref, Queue, Block) -> u32;
    vmnet_interface_set_event_callback: fn(Ref, u32, Queue, Block) -> u32;
    vmnet_read: fn(Ref, *mut Descriptor, *mut c_int) -> u32;
    vmnet_write: fn(Ref, *mut Descriptor, *mut c_int) -> u32;
    vmnet_copy_shared_interface_list: fn() -> Object;
    xpc_dictionary_create: fn(*const *const c_char, *const Object, usize) -> Object;
    xpc_dictionary_set_bool: fn(Object, *const c_char, bool);
    xpc_dictionary_set_uint64: fn(Object, *const c_char, u64);
    xpc_dictionary_set_string: fn(Object, *const c_char, *const c_char);
    xpc_dictionary_set_uuid: fn(Object, *const c_char, *const u8);
    xpc_dictionary_get_uint64: fn(Object, *const c_char) -> u64;
    xpc_dictionary_get_string: fn(Object, *const c_char) -> *const c_char;
    xpc_array_get_count: fn(Object) -> usize;
    xpc_array_get_string: fn(Object, usize) -> *const c_char;
    xpc_release: fn(Object);
}

/// A library that was opened; it stays so.
#[derive(Clone, Copy)]
struct Library(*mut c_void);

impl Library {
    fn open(path: &CStr) -> Result<Library, String> {
        // SAFETY: a string that ends.
        let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL) };
        if library.is_null() {
            return Err(path.to_string_lossy().into_owned());
        }
        Ok(Library(library))
    }

    /// An address; `name` ends in a zero. What is missing is the error.
    fn find(self, name: &str) -> Result<*mut c_void, String> {
        let symbol = name.as_ptr().cast::<c_char>();
        // SAFETY: the library is open, `name` ends in a zero. XPC is a part of the system's own library.
        let address = unsafe {
            let here = libc::dlsym(self.0, symbol);
            if here.is_null() {
                libc::dlsym(libc::RTLD_DEFAULT, symbol)
            } else {
                here
            }
        };
        if address.is_null() {
            return Err(name.trim_end_matches('\0').into());
        }
        Ok(address)
    }
}

/// vmnet.framework.
pub struct Apple {
    library: Library,
    f: Functions,
}

impl Apple {
    /// Finds it.
    pub fn new() -> Result<Apple, OpenError> {
        let missing = |what| OpenError::Invalid(format!("this macOS has no {what}"));
        let library = Library::open(VMNET).map_err(missing)?;
        let f = Functions::find(library).map_err(missing)?;
        Ok(Apple { library, f })
    }

    /// A key: `extern const char *` of that name, which ends in a zero.
    fn key(&self, name: &str) -> Result<*const c_char, Refusal> {
        let variable = self.library.find(name).map_err(Refusal::Missing)?;
        // SAFETY: a variable of the library that holds a string for as long as the program runs.
        let key = unsafe { *variable.cast::<*const c_char>() };
        if key.is_null() {
            return Err(Refusal::Missing(name.trim_end_matches('\0').into()));
        }
        Ok(key)
    }

    /// `interface_desc`.
    fn description(&self, config: &Config) -> Result<Description, Refusal> {
        // SAFETY: a dictionary with nothing in it.
        let object = unsafe { (self.f.xpc_dictionary_create)(null(), null(), 0) };
        let it = Description { f: self.f, object };
        let text = |key: &str, text: &str| {
            let key = self.key(key)?;
            let Ok(text) = CString::new(text) else {
                return Err(Refusal::Status(Status::INVALID_ARGUMENT));
            };
            // SAFETY: a dictionary, and strings that end; they are copied.
            unsafe { (self.f.xpc_dictionary_set_string)(object, key, text.as_ptr()) };
            Ok(())
        };
        let flag = |key: &str, value: bool| {
            let key = self.key(key)?;
            // SAFETY: a dictionary, and a string that ends.
            unsafe { (self.f.xpc_dictionary_set_bool)(object, key, value) };
            Ok(())
        };
        let range = |addresses: &Option<Addresses>| {
            let Some(Addresses { start, end, mask }) = addresses else {
                return Ok(());
            };
            text("vmnet_start_address_key\0", &start.to_string())?;
            text("vmnet_end_address_key\0", &end.to_string())?;
            text("vmnet_subnet_mask_key\0", &mask.to_string())
        };
        let mode = match &config.mode {
            Mode::Host { addresses, network } => {
                range(addresses)?;
                if let Some(uuid) = network {
                    let key = self.key("vmnet_network_identifier_key\0")?;
                    // SAFETY: a dictionary, a string that ends, and the 16 bytes of a UUID, which are copied.
                    unsafe { (self.f.xpc_dictionary_set_uuid)(object, key, uuid.as_ptr()) };
                }
                VMNET_HOST_MODE
            }
            Mode::Shared {
                addresses,
                nat66_prefix,
            } => {
                range(addresses)?;
                if let Some(prefix) = nat66_prefix {
                    text("vmnet_nat66_prefix_key\0", &prefix.to_string())?;
                }
                VMNET_SHARED_MODE
            }
            Mode::Bridged { interface } => {
                text("vmnet_shared_interface_name_key\0", interface)?;
                VMNET_BRIDGED_MODE
            }
        };
        let key = self.key("vmnet_operation_mode_key\0")?;
        // SAFETY: a dictionary, and a string that ends.
        unsafe { (self.f.xpc_dictionary_set_uint64)(object, key, mode) };
        // The NIC has an address already.
        flag("vmnet_allocate_mac_address_key\0", false)?;
        if config.isolated {
            flag("vmnet_enable_isolation_key\0", true)?;
        }
        Ok(it)
    }

    /// What takes `interface_param` apart.
    fn reader(&self) -> Result<impl Fn(Object) -> Parameters + use<>, Refusal> {
        let f = self.f;
        let (size, mtu) = (
            self.key("vmnet_max_packet_size_key\0")?,
            self.key("vmnet_mtu_key\0")?,
        );
        let range = [
            self.key("vmnet_start_address_key\0")?,
            self.key("vmnet_end_address_key\0")?,
            self.key("vmnet_subnet_mask_key\0")?,
        ];
        Ok(move |object: Object| {
            // SAFETY: a dictionary, and strings that end; 0 and null where there is no such value.
            let number = |key| unsafe { (f.xpc_dictionary_get_uint64)(object, key) };
            // SAFETY: as above; a string lives as long as the dictionary.
            let text = |key| unsafe { string((f.xpc_dictionary_get_string)(object, key)) };
            let [start, end, mask] = range.map(text);
            Parameters {
                max_packet_size: number(size),
                mtu: number(mtu),
                addresses: match (start, end, mask) {
                    (Some(start), Some(end), Some(mask)) => Some([start, end, mask]),
                    _ => None,
                },
            }
        })
    }
}

/// A dictionary of ours.
struct Description {
    f: Functions,
    object: Object,
}

impl Drop for Description {
    fn drop(&mut self) {
        // SAFETY: it was created, and is released once.
        unsafe { (self.f.xpc_release)(self.object) };
    }
}

/// A copy of a C string; null is none.
///
/// # Safety
///
/// It ends, and lives until then.
unsafe fn string(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: as above.
    let text = unsafe { CStr::from_ptr(text) };
    Some(text.to_string_lossy().into_owned())
}

fn queue_of(queue: &DispatchRetained<DispatchQueue>) -> Queue {
    DispatchRetained::as_ptr(queue).as_ptr().cast()
}

fn done(status: u32) -> Result<(), Status> {
    match status {
        VMNET_SUCCESS => Ok(()),
        code => Err(Status(code)),
    }
}

impl Framework for Apple {
    fn bridgeable(&self) -> Option<Vec<String>> {
        // SAFETY: no arguments.
        let list = unsafe { (self.f.vmnet_copy_shared_interface_list)() };
        if list.is_null() {
            return None;
        }
        // SAFETY: an array of strings, ours to release; each lives as long as it.
        unsafe {
            let count = (self.f.xpc_array_get_count)(list);
            let names = (0..count).filter_map(|n| string((self.f.xpc_array_get_string)(list, n)));
            let names = names.collect();
            (self.f.xpc_release)(list);
            Some(names)
        }
    }

    fn start(&self, config: &Config, arrived: Arrived) -> Result<Started, Refusal> {
        let description = self.description(config)?;
        let read = self.reader()?;
        let queue = DispatchQueue::new("dormer.vmnet", None);
        let (sender, answer) = mpsc::channel();
        let handler = RcBlock::new(move |status: u32, parameters: Object| {
            let parameters = if parameters.is_null() {
                Parameters::default()
            } else {
                read(parameters)
            };
            // Who gave up waiting does not want it.
            let _ = sender.send(done(status).map(|()| parameters));
        });
        // SAFETY: a dictionary, a queue, and a block of the handler's type, all of which the framework retains.
        let interface = unsafe {
            (self.f.vmnet_start_interface)(
                description.object,
                queue_of(&queue),
                RcBlock::as_ptr(&handler).cast(),
            )
        };
        // Without an interface there need not be an answer.
        let patience = if interface.is_null() { STOP } else { START };
        let answer = answer.recv_timeout(patience);
        if interface.is_null() {
            return Err(Refusal::Status(match answer {
                Ok(Err(status)) => status,
                _ => Status::FAILURE,
            }));
        }
        let started = AppleInterface {
            f: self.f,
            interface,
            queue,
        };
        let parameters = match answer {
            Ok(Ok(parameters)) => parameters,
            Ok(Err(status)) => return Err(Refusal::Status(status)),
            Err(_) => {
                started.stop();
                return Err(Refusal::Silent);
            }
        };
        if let Err(status) = started.call_back(arrived) {
            started.stop();
            return Err(Refusal::Status(status));
        }
        Ok(Started {
            interface: Box::new(started),
            parameters,
        })
    }

    fn rights(&self) -> Rights {
        Rights {
            user: rustix::process::geteuid().as_raw(),
            entitled: entitled().unwrap_or(false),
        }
    }
}

/// An interface that runs.
struct AppleInterface {
    f: Functions,
    interface: Ref,
    queue: DispatchRetained<DispatchQueue>,
}

// SAFETY: an interface belongs to no thread: the framework itself calls back on those of a queue.
unsafe impl Send for AppleInterface {}
// SAFETY: as above; reads are one after another and so are writes, as the trait says.
unsafe impl Sync for AppleInterface {}

impl AppleInterface {
    /// Has `arrived` called.
    fn call_back(&self, arrived: Arrived) -> Result<(), Status> {
        let event = RcBlock::new(move |_: u32, _: Object| arrived());
        // SAFETY: an interface that runs, a queue, and a block of the callback's type, which the framework retains.
        done(unsafe {
            (self.f.vmnet_interface_set_event_callback)(
                self.interface,
                VMNET_INTERFACE_PACKETS_AVAILABLE,
                queue_of(&self.queue),
                RcBlock::as_ptr(&event).cast(),
            )
        })
    }
}

impl Interface for AppleInterface {
    fn read(&self, packets: &mut [Packet]) -> Result<usize, Status> {
        let mut parts: Vec<_> = packets
            .iter_mut()
            .map(|packet| libc::iovec {
                iov_base: packet.bytes.as_mut_ptr().cast(),
                iov_len: packet.bytes.len(),
            })
            .collect();
        let mut descriptors = descriptors(&mut parts);
        let mut count = descriptors.len() as c_int;
        // SAFETY: as many descriptors as `count` says, each of a buffer that is ours for the call.
        done(unsafe {
            (self.f.vmnet_read)(self.interface, descriptors.as_mut_ptr(), &raw mut count)
        })?;
        let count = usize::try_from(count).unwrap_or(0).min(packets.len());
        for (packet, descriptor) in packets.iter_mut().zip(&descriptors).take(count) {
            packet.length = descriptor.size;
        }
        Ok(count)
    }

    fn write(&self, packets: &[Packet]) -> Result<usize, Status> {
        let mut parts: Vec<_> = packets
            .iter()
            .map(|packet| libc::iovec {
                iov_base: packet.contents().as_ptr().cast_mut().cast(),
                iov_len: packet.contents().len(),
            })
            .collect();
        let mut descriptors = descriptors(&mut parts);
        let mut count = descriptors.len() as c_int;
        // SAFETY: as many descriptors as `count` says, each of a packet that lives, and is read only.
        done(unsafe {
            (self.f.vmnet_write)(self.interface, descriptors.as_mut_ptr(), &raw mut count)
        })?;
        Ok(usize::try_from(count).unwrap_or(0).min(packets.len()))
    }

    fn stop(&self) {
        let (sender, stopped) = mpsc::channel();
        let handler = RcBlock::new(move |_: u32| {
            let _ = sender.send(());
        });
        // SAFETY: an interface that runs; neither queue nor block turns events off. Then a queue and a block of the handler's
        // type, which the framework retains.
        let status = unsafe {
            (self.f.vmnet_interface_set_event_callback)(self.interface, 0, null_mut(), null_mut());
            (self.f.vmnet_stop_interface)(
                self.interface,
                queue_of(&self.queue),
                RcBlock::as_ptr(&handler).cast(),
            )
        };
        if done(status).is_ok() {
            let _ = stopped.recv_timeout(STOP);
        }
    }
}

/// A descriptor for each packet, of one part.
fn descriptors(parts: &mut [libc::iovec]) -> Vec<Descriptor> {
    parts
        .iter_mut()
        .map(|part| Descriptor {
            size: part.iov_len,
            parts: part,
            count: 1,
            flags: 0,
        })
        .collect()
}

/// Whether the program is signed with the entitlement; `None` if it cannot be told.
fn entitled() -> Option<bool> {
    /// kCFStringEncodingUTF8 (CFString.h).
    const UTF8: u32 = 0x0800_0100;
    type Text = unsafe extern "C" fn(*const c_void, *const c_char, u32) -> *const c_void;
    type Task = unsafe extern "C" fn(*const c_void) -> *const c_void;
    type Value =
        unsafe extern "C" fn(*const c_void, *const c_void, *mut *const c_void) -> *const c_void;
    type Release = unsafe extern "C" fn(*const c_void);
    let library = Library::open(SECURITY).ok()?;
    let text = library.find("CFStringCreateWithCString\0").ok()?;
    let task = library.find("SecTaskCreateFromSelf\0").ok()?;
    let value = library.find("SecTaskCopyValueForEntitlement\0").ok()?;
    let release = library.find("CFRelease\0").ok()?;
    let yes = library.find("kCFBooleanTrue\0").ok()?;
    // SAFETY: signatures of CFString.h, CFBase.h and SecTask.h; `kCFBooleanTrue` is a variable that holds the only object of
    // its value. What was created or copied is released once.
    unsafe {
        let text = std::mem::transmute::<*mut c_void, Text>(text);
        let task = std::mem::transmute::<*mut c_void, Task>(task);
        let value = std::mem::transmute::<*mut c_void, Value>(value);
        let release = std::mem::transmute::<*mut c_void, Release>(release);
        let task = task(null());
        if task.is_null() {
            return None;
        }
        let name = text(null(), ENTITLEMENT.as_ptr(), UTF8);
        let value = value(task, name, null_mut());
        let entitled = !value.is_null() && value == *yes.cast::<*const c_void>();
        for object in [value, name, task] {
            if !object.is_null() {
                release(object);
            }
        }
        Some(entitled)
    }
}
