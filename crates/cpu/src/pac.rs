//! Pointer authentication (FEAT_PAuth): where codes sit in pointers (DDI 0487, J1.3 AddPAC, Auth, Strip), and how they
//! are computed, which is implementation defined.
//!
//! The code is a keyed mixing of pointer and modifier, made to be cheap on any host: it resists guessing by programs in
//! the guest, which see only its outputs' upper bits, not an analysis of many of them.

use crate::State;

/// TCR_EL1 fields, for the lower and upper half of the address space.
const TBI: [u32; 2] = [37, 38];
const TBID: [u32; 2] = [51, 52];
const TXSZ: [u32; 2] = [0, 16];

/// Bits `high:low`, both included.
const fn mask(high: u32, low: u32) -> u64 {
    if low > high {
        0
    } else {
        u64::MAX >> (63 - high) & u64::MAX << low
    }
}

const fn is_upper(pointer: u64) -> bool {
    pointer >> 55 & 1 != 0
}

const fn replicate(bit: bool) -> u64 {
    if bit { u64::MAX } else { 0 }
}

/// Whether the top byte of data (else: instruction) pointers of a half is ignored.
fn ignores_top_byte(state: &State, upper: bool, data: bool) -> bool {
    let tcr = state.tcr[1];
    tcr >> TBI[upper as usize] & 1 != 0 && (data || tcr >> TBID[upper as usize] & 1 == 0)
}

/// CalculateBottomPACBit.
fn bottom(state: &State, upper: bool) -> u32 {
    let size = (state.tcr[1] >> TXSZ[upper as usize] & 0x3f) as u32;
    64 - size.clamp(16, 39)
}

/// The pointer with its code's bits made copies of the half's sign, as Strip leaves it.
fn original(pointer: u64, upper: bool, tbi: bool, bottom: u32) -> u64 {
    let field = mask(if tbi { 55 } else { 63 }, bottom);
    pointer & !field | replicate(upper) & field
}

/// Bits of the golden ratio and of pi: with them no operand of a product is small, whatever key a guest sets.
const C: [i32; 2] = [0x9e37_79b9_u32 as i32, 0xa885_a308_u32 as i32];

/// Constants of the code, for who computes it elsewhere; the upper half is copies of the sign.
pub const fn pac_constants() -> [i32; 2] {
    C
}

impl State {
    /// Where codes are in pointers of the lower and the upper half, for instruction and for data keys: the bits that are
    /// copies of bit 55 in a pointer with none, and those of the code itself.
    pub fn pac_masks(&self) -> [[[u64; 2]; 2]; 2] {
        [false, true].map(|data| {
            [false, true].map(|upper| {
                let tbi = ignores_top_byte(self, upper, data);
                let bottom = bottom(self, upper);
                let top = if tbi { 55 } else { 63 };
                [mask(top, bottom), field(tbi, bottom)]
            })
        })
    }
}

/// Bits of a pointer that a code is in.
const fn field(tbi: bool, bottom: u32) -> u64 {
    mask(54, bottom) | if tbi { 0 } else { mask(63, 56) }
}

/// ComputePAC: a product of 128 bits whose halves are multiplied again.
fn code(pointer: u64, modifier: u64, key: [u64; 2]) -> u64 {
    let product = |a: u64, b: u64| {
        let product = u128::from(a) * u128::from(b);
        (product as u64, (product >> 64) as u64)
    };
    let [c0, c1] = C.map(|c| c as u64);
    let (low, high) = product(pointer ^ key[0] ^ c0, modifier ^ key[1] ^ c1);
    let (low, high) = product(low ^ key[1], high ^ key[0]);
    low ^ high
}

/// AddPAC with key 0 IA, 1 IB, 2 DA, 3 DB.
pub(crate) fn add(state: &State, key: u32, pointer: u64, modifier: u64) -> u64 {
    let data = key >= 2;
    // With TBI on in either half, bit 55 says which half; else bit 63 does.
    let either = ignores_top_byte(state, false, data) || ignores_top_byte(state, true, data);
    let upper = if either {
        is_upper(pointer)
    } else {
        pointer >> 63 != 0
    };
    let bottom = bottom(state, upper);
    let tbi = ignores_top_byte(state, is_upper(pointer), data);
    let top = if tbi { 55 } else { 63 };
    let extended = original(pointer, upper, tbi, bottom);
    let mut code = code(extended, modifier, state.pac_keys[key as usize & 3]);
    let extension = mask(top, bottom);
    if pointer & extension != 0 && pointer & extension != extension {
        code ^= 1 << (top - 1);
    }
    let field = field(tbi, bottom);
    let selected = replicate(upper) & 1 << 55;
    pointer & !(field | 1 << 55) | code & field | selected
}

/// Auth: the pointer without its code, or with an error code in it that makes it fault.
pub(crate) fn authenticate(state: &State, key: u32, pointer: u64, modifier: u64) -> u64 {
    let data = key >= 2;
    let upper = is_upper(pointer);
    let bottom = bottom(state, upper);
    let tbi = ignores_top_byte(state, upper, data);
    let original = original(pointer, upper, tbi, bottom);
    let code = code(original, modifier, state.pac_keys[key as usize & 3]);
    let field = field(tbi, bottom);
    if (pointer ^ code) & field == 0 {
        return original;
    }
    // The key's number and its complement: A 01, B 10.
    let error = if key & 1 == 0 { 1 } else { 2 };
    let at = if tbi { 53 } else { 61 };
    original & !(3 << at) | error << at
}

/// Strip.
pub(crate) fn strip(state: &State, data: bool, pointer: u64) -> u64 {
    let upper = is_upper(pointer);
    original(
        pointer,
        upper,
        ignores_top_byte(state, upper, data),
        bottom(state, upper),
    )
}

/// PACGA: the code in the upper half.
pub(crate) fn generic(state: &State, a: u64, b: u64) -> u64 {
    code(a, b, state.pac_keys[4]) & 0xffff_ffff_0000_0000
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(tcr: u64) -> State {
        let mut state = State::zero(0);
        state.tcr[1] = tcr;
        for (i, key) in state.pac_keys.iter_mut().enumerate() {
            *key = [0x0123_4567_89ab_cdef ^ i as u64, 0xfedc_ba98_7654_3210 << i];
        }
        state
    }

    const SIZES: u64 = 16 | 16 << 16;
    const USER_TBI: u64 = SIZES | 1 << 37;

    #[test]
    fn what_is_signed_authenticates_and_strips() {
        for tcr in [SIZES, USER_TBI, USER_TBI | 1 << 51, 25 | 25 << 16 | 3 << 37] {
            let s = state(tcr);
            for pointer in [0x0000_7fff_1234_5678, 0xffff_8000_1234_5678, 0, u64::MAX] {
                let pointer = original(
                    pointer,
                    is_upper(pointer),
                    false,
                    bottom(&s, is_upper(pointer)),
                );
                for key in 0..4 {
                    let signed = add(&s, key, pointer, 42);
                    assert_eq!(
                        authenticate(&s, key, signed, 42),
                        pointer,
                        "{tcr:#x} {pointer:#x}"
                    );
                    assert_eq!(strip(&s, key >= 2, signed), pointer);
                    assert_eq!(is_upper(signed), is_upper(pointer));
                    let wrong = authenticate(&s, key, signed ^ 1 << 54, 42);
                    assert_ne!(wrong, pointer);
                }
            }
        }
    }

    #[test]
    fn a_failure_leaves_the_error_code() {
        let s = state(SIZES);
        let pointer = 0x0000_7fff_1234_5678;
        let signed = add(&s, 0, pointer, 1);
        assert_eq!(authenticate(&s, 0, signed ^ 1 << 50, 1), pointer | 1 << 61);
        let signed = add(&s, 3, pointer, 1);
        assert_eq!(authenticate(&s, 3, signed ^ 1 << 50, 1), pointer | 1 << 62);
        let s = state(USER_TBI);
        let signed = add(&s, 2, pointer | 0xab << 56, 1);
        assert_eq!(signed >> 56, 0xab);
        assert_eq!(
            authenticate(&s, 2, signed ^ 1 << 50, 1),
            pointer | 0xab << 56 | 1 << 53
        );
    }

    #[test]
    fn a_bad_pointer_does_not_become_good() {
        let s = state(SIZES);
        let pointer = 0x0040_7fff_1234_5678;
        let signed = add(&s, 0, pointer, 7);
        assert_ne!(
            authenticate(&s, 0, signed, 7),
            original(pointer, false, false, 48)
        );
    }
}
