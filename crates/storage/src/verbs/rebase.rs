//! Putting an image over another one without changing what it shows.

use super::{CHUNK, Progress};
use crate::buffer::Buffer;
use crate::format::{Chain, FormatError, Kind, Result};
use crate::host::is_zero;
use crate::qcow2::Compressor;

/// Copies into the top layer of `chain`, a qcow2 image, what would change if `new` (nothing if `None`) were below it instead
/// of what is. The backing file's name is then to be set by the caller.
pub fn rebase(
    chain: &Chain,
    new: Option<&Chain>,
    compress: bool,
    progress: Progress<'_>,
) -> Result<()> {
    let image = chain.top().qcow2().ok_or(FormatError::Unsupported)?;
    let size = chain.size();
    let cluster = image.cluster_bytes();
    let chunk = CHUNK.max(cluster);
    let mut compressor = compress.then(|| Compressor::new(image.compression()));
    let (mut old_bytes, mut new_bytes) = (Buffer::new(chunk as usize), Buffer::new(chunk as usize));
    let mut at = 0;
    while at < size {
        progress(at, size)?;
        let status = chain.status_below(0, 1, at, size - at)?;
        if status.kind != Kind::Unallocated {
            at += status.length;
            continue;
        }
        let length = status.length.min(chunk - at % chunk);
        let old = &mut old_bytes[..length as usize];
        let fresh = &mut new_bytes[..length as usize];
        // What both have from the same layer, or have not at all, need not be read.
        let zero = |chain: Option<&Chain>, first: usize| -> Result<bool> {
            let Some(chain) = chain else { return Ok(true) };
            let status = chain.status_below(first, chain.layers.len().max(first), at, length)?;
            Ok(status.zero() && status.length == length)
        };
        if zero(Some(chain), 1)? && zero(new, 0)? {
            at += length;
            continue;
        }
        chain.read_below(1, at, old)?;
        match new {
            Some(new) => new.read_below(0, at, fresh)?,
            None => fresh.fill(0),
        }
        for (index, (old, fresh)) in old
            .chunks(cluster as usize)
            .zip(fresh.chunks(cluster as usize))
            .enumerate()
        {
            if old == fresh {
                continue;
            }
            let place = at + index as u64 * cluster;
            if is_zero(old) {
                image.write_zeroes(place, old.len() as u64, true, false, &|offset, into| {
                    chain.read_below(1, offset, into)
                })?;
                continue;
            }
            if let Some(compressor) = &mut compressor {
                let mut whole = old.to_vec();
                whole.resize(cluster as usize, 0);
                if let Some(packed) = compressor.compress(&whole) {
                    image.write_compressed(place, &packed)?;
                    continue;
                }
            }
            chain.write(place, old)?;
        }
        at += length;
    }
    image.close()?;
    progress(size, size)
}
