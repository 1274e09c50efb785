//! What a data abort says of the access: DDI 0487, D17.2.37, "ISS encoding for an exception from a Data Abort". Written by
//! the manual's instruction classes (C4.1.94), apart from the interpreter's decoder.

const ISV: u32 = 1 << 24;
const AR: u32 = 1 << 14;
const SF: u32 = 1 << 15;
const SSE: u32 = 1 << 21;

/// ISV, SAS, SSE, SRT, SF and AR of the instruction: all zero unless it loads or stores one general-purpose register,
/// without writeback, and is neither exclusive nor atomic.
pub fn access(word: u32) -> u32 {
    let bits = |high: u32, low: u32| word >> low & ((1 << (high - low + 1)) - 1);
    let (size, rt) = (bits(31, 30), bits(4, 0));
    let vector = bits(26, 26) != 0;
    let describe = |size: u32, signed: bool, wide: bool, ordered: bool| {
        ISV | size << 22
            | rt << 16
            | if signed { SSE } else { 0 }
            | if wide { SF } else { 0 }
            | if ordered { AR } else { 0 }
    };
    // Load register (literal).
    if bits(29, 27) == 0b011 && bits(25, 24) == 0 && !vector {
        return match size {
            0 => describe(2, false, false, false),
            1 => describe(3, false, true, false),
            2 => describe(2, true, true, false),
            _ => 0,
        };
    }
    // Load/store ordered: LDAR, STLR, LDLAR, STLLR.
    if bits(29, 24) == 0b00_1000 && bits(23, 23) == 1 && bits(21, 21) == 0 {
        return describe(size, false, size == 3, bits(15, 15) == 1);
    }
    if bits(29, 27) != 0b111 || vector {
        return 0;
    }
    let described = match bits(25, 24) {
        // Unsigned immediate.
        1 => true,
        // Unscaled, unprivileged.
        0 if bits(21, 21) == 0 => matches!(bits(11, 10), 0 | 2),
        // Register offset.
        0 => bits(11, 10) == 2,
        _ => false,
    };
    if !described {
        return 0;
    }
    match bits(23, 22) {
        0 | 1 => describe(size, false, size == 3, false),
        // Signed, to 64 bits; of size 3 it is a prefetch, which does not fault.
        2 if size < 3 => describe(size, true, true, false),
        3 if size < 2 => describe(size, true, false, false),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_the_manual() {
        // ldr w3, [x1]
        assert_eq!(access(0xb940_0023), ISV | 2 << 22 | 3 << 16);
        // ldrsh x4, [x1, #2]
        assert_eq!(access(0x7980_0424), ISV | 1 << 22 | SSE | 4 << 16 | SF);
        // ldrsb w4, [x1, x2]
        assert_eq!(access(0x38e2_6824), ISV | SSE | 4 << 16);
        // strb wzr, [x1]
        assert_eq!(access(0x3900_003f), ISV | 31 << 16);
        // ldtr x0, [x1]
        assert_eq!(access(0xf840_0820), ISV | 3 << 22 | SF);
        // stlr w0, [x1]; ldar x2, [x1]
        assert_eq!(access(0x889f_fc20), ISV | 2 << 22 | AR);
        assert_eq!(access(0xc8df_fc22), ISV | 3 << 22 | 2 << 16 | SF | AR);
        // ldr x0, [x1], #8; ldp x0, x1, [x2]; ldr q0, [x1]; ldxr x0, [x1]; ldadd x0, x1, [x2]
        for word in [
            0xf840_8420,
            0xa940_0440,
            0x3dc0_0020,
            0xc85f_7c20,
            0xf820_0041,
        ] {
            assert_eq!(access(word), 0, "{word:#x}");
        }
    }
}
