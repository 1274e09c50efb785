//! The literals of a block (3.1.1.3.1), by Huffman codes where that makes them fewer (4.2).

use super::Bits;
use super::fse::{self, Encoder, Shares};

/// No codeword is longer, in bits.
const LONGEST: u32 = 11;
/// Fewer literals than this are not worth a table.
const FEW: usize = 64;
/// Below this many they are one stream.
const ONE_STREAM: usize = 256;

const RAW: usize = 0;
const REPEATED: usize = 1;
const COMPRESSED: usize = 2;

/// Writes the literals section.
pub(super) fn literals(bytes: &[u8], out: &mut Vec<u8>) {
    if bytes.len() < FEW {
        return plain(bytes, out);
    }
    let counts = count(bytes);
    let symbols = counts.iter().filter(|count| **count != 0).count();
    if symbols == 1 {
        header(REPEATED, bytes.len(), out);
        out.push(bytes[0]);
        return;
    }
    let lengths = code_lengths(&counts);
    let bits: u64 = (counts.iter().zip(&lengths))
        .map(|(count, length)| u64::from(*count) * u64::from(*length))
        .sum();
    // Less than a 64th is not worth the time to unpack it.
    let most = bytes.len() - bytes.len() / 64;
    if bits as usize / 8 + symbols / 4 >= most {
        return plain(bytes, out);
    }
    let (start, streams) = (out.len(), bytes.len() >= ONE_STREAM);
    let (format, width) = match bytes.len() {
        0..1024 => (u64::from(streams), 10),
        1024..16384 => (2, 14),
        _ => (3, 18),
    };
    let head = (4 + 2 * width) / 8;
    out.resize(start + head, 0);
    if !tree(&lengths, out) {
        out.truncate(start);
        return plain(bytes, out);
    }
    compress(bytes, &codes(&lengths), streams, out);
    let size = out.len() - start - head;
    if size >= most {
        out.truncate(start);
        return plain(bytes, out);
    }
    let word =
        COMPRESSED as u64 | format << 2 | (bytes.len() as u64) << 4 | (size as u64) << (4 + width);
    out[start..start + head].copy_from_slice(&word.to_le_bytes()[..head]);
}

fn plain(bytes: &[u8], out: &mut Vec<u8>) {
    header(RAW, bytes.len(), out);
    out.extend_from_slice(bytes);
}

/// The header of literals that are as they are, or one byte again and again.
fn header(kind: usize, size: usize, out: &mut Vec<u8>) {
    match size {
        0..32 => out.push((kind | size << 3) as u8),
        32..4096 => out.extend_from_slice(&((kind | 1 << 2 | size << 4) as u16).to_le_bytes()),
        _ => out.extend_from_slice(&((kind | 3 << 2 | size << 4) as u32).to_le_bytes()[..3]),
    }
}

/// How often each byte comes.
fn count(bytes: &[u8]) -> [u32; 256] {
    // Four tables: the same byte again and again would wait for itself.
    let mut counts = [[0u32; 256]; 4];
    let mut fours = bytes.chunks_exact(4);
    for four in &mut fours {
        for (counts, byte) in counts.iter_mut().zip(four) {
            counts[usize::from(*byte)] += 1;
        }
    }
    for byte in fours.remainder() {
        counts[0][usize::from(*byte)] += 1;
    }
    let [mut sum, others @ ..] = counts;
    for other in others {
        for (sum, count) in sum.iter_mut().zip(other) {
            *sum += count;
        }
    }
    sum
}

/// Lengths of codewords, none above [`LONGEST`], for two symbols at least.
fn code_lengths(counts: &[u32; 256]) -> [u8; 256] {
    let mut sorted: Vec<(u32, u8)> = (0..=255u8)
        .map(|symbol| (counts[usize::from(symbol)], symbol))
        .filter(|(count, _)| *count != 0)
        .collect();
    sorted.sort_unstable();
    let symbols = sorted.len();
    // Two queues: symbols by their counts, and inner nodes, which come into being in the order of theirs.
    let mut weight = [0u32; 256];
    let mut parent = [0u8; 256];
    let mut leaf_parent = [0u8; 256];
    let (mut leaf, mut inner) = (0, 0);
    for node in 0..symbols - 1 {
        for _ in 0..2 {
            if leaf < symbols && (inner >= node || sorted[leaf].0 <= weight[inner]) {
                weight[node] += sorted[leaf].0;
                leaf_parent[leaf] = node as u8;
                leaf += 1;
            } else {
                weight[node] += weight[inner];
                parent[inner] = node as u8;
                inner += 1;
            }
        }
    }
    let mut depth = [0u8; 256];
    for node in (0..symbols.saturating_sub(2)).rev() {
        depth[node] = depth[usize::from(parent[node])] + 1;
    }
    let mut lengths = [0u8; 256];
    let unit = |length: u8| 1i32 << (LONGEST - u32::from(length));
    let mut over = -(1i32 << LONGEST);
    for (leaf, (_, symbol)) in sorted.iter().enumerate() {
        let length = (depth[usize::from(leaf_parent[leaf])] + 1).min(LONGEST as u8);
        lengths[usize::from(*symbol)] = length;
        over += unit(length);
    }
    // Codewords that were cut take more of the code space than there is: the rarest of the others become longer …
    let mut target = LONGEST as u8 - 1;
    while over > 0 {
        for (_, symbol) in &sorted {
            let length = &mut lengths[usize::from(*symbol)];
            if over > 0 && *length == target {
                *length += 1;
                over -= unit(*length);
            }
        }
        target -= 1;
    }
    // … and what that left goes to the most frequent that it is enough for.
    while over < 0 {
        for (_, symbol) in sorted.iter().rev() {
            let length = &mut lengths[usize::from(*symbol)];
            if *length > 1 && unit(*length) <= -over {
                over += unit(*length);
                *length -= 1;
            }
        }
    }
    lengths
}

/// Codewords and their lengths (4.2.1.3): the longest come first, among those of a length the smallest symbols.
fn codes(lengths: &[u8; 256]) -> [(u16, u8); 256] {
    let mut codes = [(0, 0); 256];
    let mut next = 0;
    for length in (1..=LONGEST as u8).rev() {
        for (code, _) in codes.iter_mut().zip(lengths).filter(|(_, l)| **l == length) {
            *code = (next, length);
            next += 1;
        }
        next >>= 1;
    }
    codes
}

/// The description of the codewords (4.2.1): weights of all symbols but the last one, which follows from them. Not
/// all can be described.
fn tree(lengths: &[u8; 256], out: &mut Vec<u8>) -> bool {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let last = lengths.iter().rposition(|length| *length != 0).unwrap_or(0);
    let weights: Vec<u8> = lengths[..last]
        .iter()
        .map(|length| match length {
            0 => 0,
            length => longest + 1 - length,
        })
        .collect();
    let start = out.len();
    out.push(0);
    let packed = pack(&weights, out);
    let size = out.len() - start - 1;
    if packed && size < 128 && (size < weights.len().div_ceil(2) || weights.len() > 128) {
        out[start] = size as u8;
        return true;
    }
    if weights.len() > 128 {
        return false;
    }
    // As they are, two a byte.
    out.truncate(start);
    out.push(127 + weights.len() as u8);
    out.extend(
        weights
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair.get(1).copied().unwrap_or(0)),
    );
    true
}

/// Weights by two states in turns (4.2.1.2), unless all are the same.
fn pack(weights: &[u8], out: &mut Vec<u8>) -> bool {
    let mut counts = [0; fse::SYMBOLS];
    for weight in weights {
        counts[usize::from(*weight)] += 1;
    }
    if counts.iter().filter(|count| **count != 0).count() < 2 {
        return false;
    }
    let shares = Shares::new(&counts, 6);
    shares.write(out);
    let encoder = Encoder::new(&shares);
    let mut bits = Bits::new(out, weights.len() * 8);
    let mut states = [None; 2];
    for (index, weight) in weights.iter().enumerate().rev() {
        match &mut states[index % 2] {
            Some(state) => encoder.put(state, *weight, &mut bits),
            state => *state = Some(encoder.begin(*weight)),
        }
        bits.flush();
    }
    for state in states.iter().rev().flatten() {
        encoder.end(*state, &mut bits);
    }
    bits.end();
    true
}

/// One stream, or four with a table of their sizes before them (4.2.2, 3.1.1.3.1.6).
fn compress(bytes: &[u8], codes: &[(u16, u8); 256], streams: bool, out: &mut Vec<u8>) {
    if !streams {
        return stream(bytes, codes, out);
    }
    let table = out.len();
    out.extend_from_slice(&[0; 6]);
    for (index, part) in bytes.chunks(bytes.len().div_ceil(4)).enumerate() {
        let start = out.len();
        stream(part, codes, out);
        let size = (out.len() - start) as u16;
        if index < 3 {
            let at = table + index * 2;
            out[at..at + 2].copy_from_slice(&size.to_le_bytes());
        }
    }
}

/// From the last byte to the first, since whoever reads it begins at its end.
fn stream(bytes: &[u8], codes: &[(u16, u8); 256], out: &mut Vec<u8>) {
    let mut bits = Bits::new(out, bytes.len() * LONGEST as usize);
    let mut groups = bytes.rchunks_exact(4);
    for four in &mut groups {
        for byte in four.iter().rev() {
            let (code, length) = codes[usize::from(*byte)];
            bits.put(u64::from(code), u32::from(length));
        }
        bits.flush();
    }
    for byte in groups.remainder().iter().rev() {
        let (code, length) = codes[usize::from(*byte)];
        bits.put(u64::from(code), u32::from(length));
    }
    bits.end();
}
