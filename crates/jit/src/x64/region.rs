//! Memory for generated code, mapped twice: writable in one place and executable in another, never both in one.
#![allow(unsafe_code)] // mappings, and copies into them

use std::io;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{
    MapFlags, MprotectFlags, MremapFlags, ProtFlags, mmap, mmap_anonymous, mprotect, mremap, munmap,
};

/// A span of memory with two addresses.
pub struct Region {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    size: usize,
}

/// The writable and the executable address.
type Mapped = (*mut std::ffi::c_void, *mut std::ffi::c_void);

// SAFETY: it owns its mappings.
unsafe impl Send for Region {}

impl Region {
    /// `size` bytes, a multiple of the page size. Pages take memory once they are written. `anonymous`: they have no file,
    /// so that `perf` takes names of what is in them from its map.
    pub fn new(size: usize, anonymous: bool) -> io::Result<Region> {
        let (writable, executable) = if anonymous {
            Region::without_file(size)?
        } else {
            Region::of_file(size)?
        };
        let address = |at: *mut std::ffi::c_void| {
            NonNull::new(at.cast()).ok_or_else(|| io::Error::other("a mapping at address zero"))
        };
        Ok(Region {
            writable: address(writable)?,
            executable: address(executable)?,
            size,
        })
    }

    fn without_file(size: usize) -> io::Result<Mapped> {
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of the host's choice.
        let writable =
            unsafe { mmap_anonymous(std::ptr::null_mut(), size, protection, MapFlags::SHARED) }?;
        // SAFETY: of a shared mapping, as if it had no size: the same pages at another address too. What is executable is
        // not writable any more.
        let executable = unsafe {
            mremap(writable, 0, size, MremapFlags::MAYMOVE).and_then(|executable| {
                let protection = MprotectFlags::READ | MprotectFlags::EXEC;
                match mprotect(executable, size, protection) {
                    Ok(()) => Ok(executable),
                    Err(error) => munmap(executable, size).and(Err(error)),
                }
            })
        };
        match executable {
            Ok(executable) => Ok((writable, executable)),
            Err(error) => {
                // SAFETY: just mapped, and nothing points into it.
                unsafe { munmap(writable, size) }?;
                Err(error.into())
            }
        }
    }

    fn of_file(size: usize) -> io::Result<Mapped> {
        let file = memfd_create("dormer-code", MemfdFlags::CLOEXEC)?;
        ftruncate(&file, size as u64)?;
        let map = |protection| {
            // SAFETY: a new mapping at an address of the host's choice.
            unsafe {
                mmap(
                    std::ptr::null_mut(),
                    size,
                    protection,
                    MapFlags::SHARED,
                    &file,
                    0,
                )
            }
        };
        let writable = map(ProtFlags::READ | ProtFlags::WRITE)?;
        let executable = match map(ProtFlags::READ | ProtFlags::EXEC) {
            Ok(address) => address,
            Err(error) => {
                // SAFETY: just mapped, and nothing points into it.
                unsafe { munmap(writable, size) }?;
                return Err(error.into());
            }
        };
        Ok((writable, executable))
    }

    pub fn size(&self) -> usize {
        self.size
    }

    /// Where code at an offset executes.
    pub fn address(&self, at: usize) -> usize {
        self.executable.as_ptr() as usize + at
    }

    /// Writes code at an offset. Panics if that is outside.
    pub fn put(&mut self, at: usize, code: &[u8]) {
        assert!(at <= self.size && code.len() <= self.size - at);
        // SAFETY: in bounds, as just checked; the mapping is ours, and no reference into it exists.
        unsafe {
            std::ptr::copy_nonoverlapping(
                code.as_ptr(),
                self.writable.as_ptr().add(at),
                code.len(),
            );
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        for at in [self.writable, self.executable] {
            // SAFETY: mapped in `new` with that size; code in it runs only while the region is borrowed.
            let _ = unsafe { munmap(at.as_ptr().cast(), self.size) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_addresses_are_of_the_same_memory() {
        for anonymous in [false, true] {
            let mut region = Region::new(8192, anonymous).unwrap();
            // mov eax, 42; ret
            region.put(4096, &[0xb8, 42, 0, 0, 0, 0xc3]);
            // SAFETY: that is a function, executable as long as the region lives.
            let function: extern "C" fn() -> u32 =
                unsafe { std::mem::transmute(region.address(4096)) };
            assert_eq!(function(), 42);
        }
    }
}
