//! The identification registers that end every PrimeCell's 4 KiB (Arm DDI 0183, 0190, 0224: PeriphID0–3 at 0xfe0,
//! PCellID0–3 at 0xff0).

/// `PCellID0`–`PCellID3`, the same for all PrimeCells.
const PCELL_ID: [u8; 4] = [0x0d, 0xf0, 0x05, 0xb1];

/// What the identification register at `offset` reads, or `None` if there is none at that offset.
pub(crate) fn identification(peripheral: [u8; 4], offset: u64) -> Option<u32> {
    let index = (offset.checked_sub(0xfe0)? / 4) as usize;
    match index {
        0..4 => Some(u32::from(peripheral[index])),
        4..8 => Some(u32::from(PCELL_ID[index - 4])),
        _ => None,
    }
}
