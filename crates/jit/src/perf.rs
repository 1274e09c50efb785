//! A map of generated code for `perf`: a line a block, of its address, its size and its name (tools/perf/Documentation/
//! jit-interface.txt of Linux).

use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;

/// The map of this process, `/tmp/perf-PID.map`.
#[derive(Debug)]
pub struct PerfMap {
    file: File,
}

impl PerfMap {
    /// Where `perf` looks for it.
    pub fn path() -> PathBuf {
        format!("/tmp/perf-{}.map", std::process::id()).into()
    }

    /// An empty map. What has its name already (someone else's file or link) is an error, not written to.
    pub fn create() -> io::Result<PerfMap> {
        let file = File::create_new(PerfMap::path())?;
        Ok(PerfMap { file })
    }

    /// Adds the code of a block of guest code at an address of an exception level.
    pub fn add(&self, code: usize, size: usize, el: u8, address: u64) {
        let line = format!("{code:x} {size:x} guest EL{el} {address:#x}\n");
        // A map that lacks a block is of use all the same.
        if let Err(error) = (&self.file).write_all(line.as_bytes()) {
            tracing::debug!(%error, "the perf map cannot be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_a_line() {
        let _ = std::fs::remove_file(PerfMap::path());
        let map = PerfMap::create().unwrap();
        assert!(PerfMap::create().is_err());
        map.add(0x7f00_0000_1000, 0x40, 1, 0xffff_8000_0801_0000);
        let text = std::fs::read_to_string(PerfMap::path()).unwrap();
        std::fs::remove_file(PerfMap::path()).unwrap();
        assert_eq!(text, "7f0000001000 40 guest EL1 0xffff800008010000\n");
    }
}
