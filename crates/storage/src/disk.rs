//! A disk as devices see it.

use std::io;

/// A disk or an image of one. Calls wait for the host: devices make them on a worker thread, never on a processor's.
///
/// Offsets and lengths are in bytes and may be any, though whole [`Disk::block_size`] blocks are fastest. An access past
/// the end fails with [`io::ErrorKind::InvalidInput`]. All calls may be made from several threads at once.
pub trait Disk: Send + Sync {
    /// Bytes.
    fn size(&self) -> u64;

    /// Whether writes fail.
    fn read_only(&self) -> bool;

    /// Logical block size in bytes that suits the back end: 512 unless the user says otherwise.
    fn block_size(&self) -> u32 {
        512
    }

    /// Fills `into`.
    fn read(&self, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `from`. It may stay in the host's cache until [`Disk::flush`].
    fn write(&self, offset: u64, from: &[u8]) -> io::Result<()>;

    /// All that was written before is on the host's disk when this returns.
    fn flush(&self) -> io::Result<()>;

    /// The span's contents are of no more use; reads may give the old data or zeroes. May do nothing.
    fn discard(&self, offset: u64, length: u64) -> io::Result<()>;

    /// The span reads as zeroes from now on; `may_unmap` allows to give its space back.
    fn write_zeroes(&self, offset: u64, length: u64, may_unmap: bool) -> io::Result<()>;
}
