//! What is done to images at rest: copying, comparing, rebasing, committing.

mod commit;
mod compare;
mod copy;
mod measure;
mod punch;
mod rebase;

pub use commit::commit;
pub use compare::{Comparison, compare};
pub use copy::{CopyOptions, Sources, copy};
pub use measure::data_bytes;
pub use punch::punch_zeroes;
pub use rebase::rebase;

use crate::format::Result;

/// Told now and then how far a long command is: done, of how much. What it fails with ends the command, with everything
/// left whole.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) -> Result<()> + Sync);

/// For those who do not care.
pub fn no_progress(_done: u64, _of: u64) -> Result<()> {
    Ok(())
}

/// Bytes that are read, compared or written at once: they should stay in a processor's own cache.
const CHUNK: u64 = 1 << 20;
