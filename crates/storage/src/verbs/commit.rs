//! Writing what an image has into one below it.

use super::{CHUNK, Progress};
use crate::buffer::Buffer;
use crate::format::{Chain, Kind, Result};
use crate::qcow2::Preallocation;

/// Writes what the layers above `base` have into that layer, which was opened for writing. What it is told is on the drive
/// when this returns; nothing above is changed.
pub fn commit(chain: &Chain, base: usize, progress: Progress<'_>) -> Result<()> {
    let size = chain.size();
    if chain.layers[base].node.source().size() < size {
        chain.resize_layer(base, size, Preallocation::Off)?;
    }
    let mut buffer = Buffer::new(CHUNK as usize);
    let mut at = 0;
    while at < size {
        progress(at, size)?;
        let status = chain.status_below(0, base, at, size - at)?;
        match status.kind {
            // Where a layer ends short of the one above it, zeroes show instead of what the base has.
            Kind::Unallocated if status.depth + 1 < base => {
                chain.zero_layer(base, at, status.length, true)?;
                at += status.length;
            }
            Kind::Unallocated => at += status.length,
            Kind::Zero { .. } => {
                chain.zero_layer(base, at, status.length, true)?;
                at += status.length;
            }
            Kind::Data { .. } => {
                let length = status.length.min(CHUNK - at % CHUNK);
                let now = &mut buffer[..length as usize];
                chain.layers[status.depth].node.source().read(at, now)?;
                chain.write_layer(base, at, now)?;
                at += length;
            }
        }
    }
    chain.layers[base].flush()?;
    progress(size, size)
}
