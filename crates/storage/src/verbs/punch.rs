//! Holes where a raw image has zeroes.

use super::{CHUNK, Progress};
use crate::buffer::Buffer;
use crate::format::{Chain, FormatError, Node, Result};
use crate::host::is_zero;

/// Bytes of the smallest hole.
const PAGE: usize = 4096;

/// Gives the space of zeroes in a raw image back to the host. The contents stay.
pub fn punch_zeroes(chain: &Chain, progress: Progress<'_>) -> Result<()> {
    let Node::Raw(raw) = &chain.top().node else {
        return Err(FormatError::Unsupported);
    };
    let size = raw.host().length()?;
    let mut buffer = Buffer::new(CHUNK as usize);
    let mut at = 0;
    while at < size {
        progress(at, size)?;
        let (data, end) = raw.host().span(at)?;
        if !data && end > at {
            at = end;
            continue;
        }
        let length = (CHUNK - at % CHUNK)
            .min(size - at)
            .min(end.max(at + 1) - at);
        let now = &mut buffer[..length as usize];
        raw.host().read_exact_at(at, now)?;
        let mut start = None;
        for (index, page) in now.chunks(PAGE).enumerate() {
            let place = index * PAGE;
            let zero = page.len() == PAGE && is_zero(page);
            match (zero, start) {
                (true, None) => start = Some(place),
                (false, Some(from)) => {
                    raw.host().punch(at + from as u64, (place - from) as u64)?;
                    start = None;
                }
                _ => {}
            }
        }
        if let Some(from) = start {
            raw.host().punch(at + from as u64, length - from as u64)?;
        }
        at += length;
    }
    progress(size, size)
}
