//! How much of a disk are data.

use crate::format::{Chain, Result};

/// Bytes in units of `cluster` that are not known to be zeroes.
pub fn data_bytes(chain: &Chain, cluster: u64) -> Result<u64> {
    let size = chain.size();
    let (mut found, mut counted, mut at) = (0, 0, 0);
    while at < size {
        let status = chain.status(at, size - at)?;
        if !status.zero() {
            let start = counted.max(at / cluster * cluster);
            let end = (at + status.length).next_multiple_of(cluster);
            found += end.saturating_sub(start);
            counted = counted.max(end);
        }
        at += status.length;
    }
    Ok(found)
}
