//! The Internet checksum (RFC 1071).

use std::net::IpAddr;

/// The one's complement sum of 16-bit words, unfinished. `sum` continues an earlier one that covered an even number of bytes.
pub fn add(sum: u64, bytes: &[u8]) -> u64 {
    let mut sum = u128::from(sum);
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let mut word = [0; 8];
        word.copy_from_slice(chunk);
        sum += u128::from(u64::from_be_bytes(word));
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        let mut word = [0; 8];
        word[..rest.len()].copy_from_slice(rest);
        sum += u128::from(u64::from_be_bytes(word));
    }
    // One's complement addition does not mind where the carries come in again.
    let folded = (sum as u64 as u128) + (sum >> 64);
    (folded as u64).wrapping_add((folded >> 64) as u64)
}

/// Folds a sum to 16 bits, not inverted.
pub fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The sum of the pseudo header of UDP, TCP and ICMPv6 (RFC 768; RFC 8200, 8.1).
pub fn pseudo_header(source: IpAddr, destination: IpAddr, protocol: u8, length: usize) -> u64 {
    let mut sum = u64::from(protocol) + length as u64;
    for address in [source, destination] {
        sum += u64::from(fold(match address {
            IpAddr::V4(a) => add(0, &a.octets()),
            IpAddr::V6(a) => add(0, &a.octets()),
        }));
    }
    sum
}

/// The finished checksum over parts that together are one run of bytes.
pub fn finish(mut sum: u64, parts: &[&[u8]]) -> u16 {
    let mut odd = false;
    for part in parts {
        let part_sum = fold(add(0, part));
        // A part that begins at an odd place has its bytes the other way round.
        let part_sum = if odd { part_sum.swap_bytes() } else { part_sum };
        sum = u64::from(fold(sum)) + u64::from(part_sum);
        odd ^= part.len() % 2 == 1;
    }
    !fold(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn slow(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !(sum as u16)
    }

    proptest! {
        #[test]
        fn as_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            let cut = cut.min(bytes.len());
            let (a, b) = bytes.split_at(cut);
            let expected = slow(&bytes);
            // Zero has two representations; both are right.
            let got = finish(0, &[a, b]);
            prop_assert!(got == expected || (got.is_multiple_of(0xffff) && expected.is_multiple_of(0xffff)));
        }
    }
}
