//! Pieces decompressed by several threads and taken in order.

use std::collections::BTreeMap;
use std::sync::Mutex;

use crossbeam_channel::unbounded;

use super::SMALL_PIECE;
use crate::error::Result;
use crate::source::{Pieces, Scratch};

/// Bytes of buffers in all.
const MEMORY: u64 = 208 << 20;

/// Takes a piece by its number, or why it cannot be read.
pub(super) type Take<'a> = dyn FnMut(u64, Result<&[u8]>) -> Result<()> + 'a;

/// How many threads decompress, and how many pieces there are at once.
fn depth(pieces: &dyn Pieces, threads: usize) -> (usize, usize) {
    let (piece, stored) = (pieces.piece().max(1), pieces.stored());
    let fitting = (MEMORY / (piece + stored)).max(1) as usize;
    let threads = threads.min(fitting);
    let left = MEMORY.saturating_sub(threads as u64 * stored) / piece;
    (threads, (left as usize).clamp(threads, threads * 2 + 1))
}

/// Hands the pieces `wanted` to `take` in order; one that cannot be read as its error. `scratch` is for a single thread.
pub(super) fn in_order(
    pieces: &dyn Pieces,
    wanted: impl IntoIterator<Item = u64, IntoIter: Send>,
    threads: usize,
    scratch: &mut Scratch,
    take: &mut Take<'_>,
) -> Result<()> {
    let (threads, depth) = depth(pieces, threads);
    let wanted = wanted.into_iter();
    if threads < 2 {
        let mut buffer = std::mem::take(&mut scratch.block);
        for index in wanted {
            let result = pieces.read_piece(index, scratch, &mut buffer);
            take(index, result.map(|()| buffer.as_slice()))?;
        }
        if pieces.piece() <= SMALL_PIECE {
            scratch.block = buffer;
        }
        return Ok(());
    }
    let wanted = Mutex::new(wanted.enumerate());
    let claim = || wanted.lock().unwrap_or_else(|e| e.into_inner()).next();
    // A thread has a buffer before it claims a piece: the next piece to take is always on its way.
    let (give, spare) = unbounded();
    for _ in 0..depth {
        let _ = give.send(Vec::new());
    }
    let (send, receive) = unbounded();
    std::thread::scope(|scope| {
        for _ in 0..threads {
            let (spare, send, claim) = (spare.clone(), send.clone(), &claim);
            scope.spawn(move || {
                let mut scratch = Scratch::default();
                while let Ok(mut buffer) = spare.recv() {
                    let Some((turn, index)) = claim() else {
                        break;
                    };
                    let result = pieces.read_piece(index, &mut scratch, &mut buffer);
                    if send.send((turn, index, result, buffer)).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let mut early = BTreeMap::new();
        let mut next = 0;
        for (turn, index, result, buffer) in receive {
            early.insert(turn, (index, result, buffer));
            while let Some((index, result, buffer)) = early.remove(&next) {
                take(index, result.map(|()| buffer.as_slice()))?;
                next += 1;
                let _ = give.send(buffer);
            }
        }
        // The threads wait for buffers no longer.
        drop(give);
        Ok(())
    })
}
