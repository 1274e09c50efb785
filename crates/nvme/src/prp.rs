//! Physical Region Pages: where a command's data are (NVMe 4.3).

use memory::Dma;

use crate::command::{Command, Outcome};
use crate::spec::{MAX_TRANSFER, Status};

/// Address and bytes of each piece of a transfer.
pub(crate) type Pieces = Vec<(u64, u32)>;

/// Lists the pieces of a command's data of `length` bytes, at most [`MAX_TRANSFER`].
pub(crate) fn walk(
    dma: &Dma,
    command: &Command,
    length: u64,
    pieces: &mut Pieces,
) -> Result<(), Outcome> {
    pieces.clear();
    if length == 0 || length > MAX_TRANSFER {
        return Err(Status::INVALID_FIELD.into());
    }
    let page = command.page_size;
    let (prp1, prp2) = command.prps();
    if !prp1.is_multiple_of(4) {
        return Err(Status::INVALID_PRP_OFFSET.into());
    }
    let mut left = length;
    let first = left.min(page - prp1 % page);
    pieces.push((prp1, first as u32));
    left -= first;
    if left == 0 {
        return Ok(());
    }
    if left <= page {
        return add(pieces, prp2, left, page);
    }
    // A list, which may begin anywhere in its page. The last entry of a page that does not end the transfer points to
    // the next page of the list.
    if !prp2.is_multiple_of(8) {
        return Err(Status::INVALID_PRP_OFFSET.into());
    }
    let mut entry = prp2;
    while left > 0 {
        let address = dma
            .read_u64(entry)
            .map_err(|_| Status::DATA_TRANSFER_ERROR)?;
        if entry % page == page - 8 && left > page {
            if !address.is_multiple_of(page) {
                return Err(Status::INVALID_PRP_OFFSET.into());
            }
            entry = address;
            // Each page of a list has an entry at least that is not a link, so this ends.
            continue;
        }
        let part = left.min(page);
        add(pieces, address, part, page)?;
        left -= part;
        entry = entry.wrapping_add(8);
    }
    Ok(())
}

fn add(pieces: &mut Pieces, address: u64, length: u64, page: u64) -> Result<(), Outcome> {
    if !address.is_multiple_of(page) {
        return Err(Status::INVALID_PRP_OFFSET.into());
    }
    // Neighbours become one: fewer, longer copies.
    match pieces.last_mut() {
        Some((start, bytes)) if start.wrapping_add(u64::from(*bytes)) == address => {
            *bytes += length as u32
        }
        _ => pieces.push((address, length as u32)),
    }
    Ok(())
}
