//! Memory for generated code, mapped twice: writable in one place and executable in another, never both in one.
#![allow(unsafe_code)] // mappings, and copies into them

use std::io;
use std::ptr::NonNull;

use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A span of memory with two addresses.
pub struct Region {
    writable: NonNull<u8>,
    executable: NonNull<u8>,
    size: usize,
}

// SAFETY: it owns its mappings.
unsafe impl Send for Region {}

impl Region {
    /// `size` bytes, a multiple of the page size. Pages take memory once they are written.
    pub fn new(size: usize) -> io::Result<Region> {
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
        let address = |at: *mut std::ffi::c_void| {
            NonNull::new(at.cast()).ok_or_else(|| io::Error::other("a mapping at address zero"))
        };
        Ok(Region {
            writable: address(writable)?,
            executable: address(executable)?,
            size,
        })
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
