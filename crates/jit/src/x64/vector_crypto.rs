//! AES, SHA-1 and SHA-256 by the host's instructions for them.
//!
//! The host's SHA instructions have words in the opposite order, add SHA-1's constants themselves, and hold SHA-256's
//! state as {A, B, E, F} and {C, D, G, H} (Intel 64 manual, volume 2).

use aarch64::Instruction;
use cpu::vector::Crypto;

use super::assembler::{Map, Pp, Vex, Xmm};
use super::emitter::{Emitter, Vector};
use super::record::fields;
use super::vector::{ADD_S, LOAD, OR, SHUFFLE_WORDS, SUB_S, T0, T1, XOR, v3a, v38};

const SHUFFLE_TWO: Vex = Vex(Pp::None, Map::M0f, false, 0xc6);
const ALIGN: Vex = v3a(0x0f);
/// SHA-256's state as Arm has it, from the host's halves and the other way.
const ABCD: u8 = 0xbb;
const EFGH: u8 = 0x11;
/// The lanes of 32 bits in reverse.
const REVERSE: u8 = 0x1b;

impl Emitter {
    pub(super) fn crypto(&mut self, op: Crypto, [a, b, c]: [Vector; 3]) -> Option<Vector> {
        match op {
            Crypto::AesE | Crypto::AesD | Crypto::AesMc | Crypto::AesImc => self.aes(op, a, b),
            _ if !self.features.sha => None,
            Crypto::Sha1C => Some(self.sha1_rounds(0, 0x5a82_7999, [a, b, c])),
            Crypto::Sha1P => Some(self.sha1_rounds(1, 0x6ed9_eba1, [a, b, c])),
            Crypto::Sha1M => Some(self.sha1_rounds(2, 0x8f1b_bcdc, [a, b, c])),
            Crypto::Sha1H => {
                let x = self.low(a, 4);
                let to = self.new_xmm();
                self.rotate(to, x, 30);
                Some(self.in_new(to))
            }
            Crypto::Sha1Su0 => {
                let (x, y, z) = (self.xmm(a), self.xmm(b), self.operand128(c));
                let to = self.new_xmm();
                self.asm.vector3_constant(ALIGN, to, y, x, 8);
                self.asm.vector3(XOR, to, to, x);
                self.asm.vector3(XOR, to, to, z);
                Some(self.in_new(to))
            }
            Crypto::Sha1Su1 => {
                let (x, y) = (self.xmm(a), self.xmm(b));
                let (to, t) = (self.new_xmm(), self.new_xmm());
                // Words shifted down by one, then all turned by 1; the last also has the first, turned by 2.
                self.asm.vector_shift(0x73, 3, t, y, 4);
                self.asm.vector3(XOR, t, t, x);
                self.asm.vector_shift(0x73, 7, to, t, 12);
                self.rotate(to, to, 2);
                self.rotate(t, t, 1);
                self.asm.vector3(XOR, to, to, t);
                Some(self.in_new(to))
            }
            Crypto::Sha256H => Some(self.sha256_rounds(a, b, c, ABCD)),
            Crypto::Sha256H2 => Some(self.sha256_rounds(b, a, c, EFGH)),
            Crypto::Sha256Su0 => {
                let (x, y) = (self.xmm(a), self.xmm(b));
                let to = self.new_xmm();
                self.asm.vector2(LOAD, to, x);
                self.asm.sha(0xcc, to, y);
                Some(self.in_new(to))
            }
            Crypto::Sha256Su1 => {
                let (x, y, z) = (self.xmm(a), self.xmm(b), self.xmm(c));
                let to = self.new_xmm();
                self.asm.vector3_constant(ALIGN, to, z, y, 4);
                self.asm.vector3(ADD_S, to, to, x);
                self.asm.sha(0xcd, to, z);
                Some(self.in_new(to))
            }
        }
    }

    fn aes(&mut self, op: Crypto, a: Vector, b: Vector) -> Option<Vector> {
        if !self.features.aes {
            return None;
        }
        let to;
        match op {
            Crypto::AesE | Crypto::AesD => {
                let (x, y) = (self.xmm(a), self.operand128(b));
                to = self.new_xmm();
                self.asm.vector3(XOR, to, x, y);
                let zero = self.constant_operand(0, T0);
                // The host has a round and its columns' mixture in one, and the last round without.
                self.took_following = self.mixes_columns(op);
                let round = v38(match (op, self.took_following) {
                    (Crypto::AesE, true) => 0xdc,
                    (Crypto::AesE, false) => 0xdd,
                    (_, true) => 0xde,
                    (_, false) => 0xdf,
                });
                self.asm.vector3(round, to, to, zero);
            }
            Crypto::AesMc => {
                let x = self.xmm(a);
                to = self.new_xmm();
                self.asm.vector3(XOR, T0, T0, T0);
                self.asm.vector3(v38(0xdf), to, x, T0);
                self.asm.vector3(v38(0xdc), to, to, T0);
            }
            _ => {
                let x = self.operand128(a);
                to = self.new_xmm();
                self.asm.vector2(v38(0xdb), to, x);
            }
        }
        Some(self.in_new(to))
    }

    /// Whether the instruction after this AESE or AESD is the AESMC or AESIMC of its result in place.
    fn mixes_columns(&self, op: Crypto) -> bool {
        match self.following_in_place() {
            Some((_, Instruction::aesmc)) => op == Crypto::AesE,
            Some((_, Instruction::aesimc)) => op == Crypto::AesD,
            _ => false,
        }
    }

    /// Lanes of 32 bits turned left. T0 is changed; `to` may be `from`.
    fn rotate(&mut self, to: Xmm, from: Xmm, by: u8) {
        self.asm.vector_shift(0x72, 2, T0, from, 32 - by);
        self.asm.vector_shift(0x72, 6, to, from, by);
        self.asm.vector3(OR, to, to, T0);
    }

    /// Four rounds of SHA-1 with the function of a number, whose constant the message has already.
    fn sha1_rounds(&mut self, function: u8, constant: u32, [a, b, c]: [Vector; 3]) -> Vector {
        let (x, e, w) = (self.xmm(a), self.xmm(b), self.xmm(c));
        let (to, message) = (self.new_xmm(), self.new_xmm());
        self.load_constant(T0, u128::from(constant) * 0x1_0000_0001_0000_0001_0000_0001);
        self.asm.vector3(SUB_S, message, w, T0);
        self.asm
            .vector2_constant(SHUFFLE_WORDS, message, message, REVERSE);
        self.asm.vector_shift(0x73, 7, T0, e, 12);
        self.asm.vector3(ADD_S, message, message, T0);
        self.asm.vector2_constant(SHUFFLE_WORDS, to, x, REVERSE);
        self.asm.sha1_rounds(to, message, function);
        self.asm.vector2_constant(SHUFFLE_WORDS, to, to, REVERSE);
        self.in_new(to)
    }

    /// Of a SHA256H, the register that the SHA256H2 after it writes, if that is the other half of the same four rounds: it
    /// reads {a, b, c, d} from another register.
    fn other_half(&self) -> Option<u8> {
        let (word, Instruction::sha256h2) = self.following_instruction()? else {
            return None;
        };
        let [abcd, efgh, message] = fields(self.word);
        let [d, n, m] = fields(word);
        let same = d == efgh && m == message && ![d, n, m].contains(&abcd);
        (same && self.are_copies(n, abcd)).then_some(efgh)
    }

    /// Four rounds of SHA-256 on {a, b, c, d} and {e, f, g, h}; which half of the state is wanted, by the shuffle that
    /// makes it of the host's two.
    fn sha256_rounds(&mut self, abcd: Vector, efgh: Vector, message: Vector, half: u8) -> Vector {
        let (x, y, w) = (self.xmm(abcd), self.xmm(efgh), self.xmm(message));
        // The host takes the message from here.
        let implicit = Xmm(0);
        let mut other = || loop {
            let xmm = self.new_xmm();
            if xmm != implicit || self.failed.is_some() {
                break xmm;
            }
        };
        let (abef, cdgh) = (other(), other());
        self.asm.vector3_constant(SHUFFLE_TWO, abef, y, x, 0x11);
        self.asm.vector3_constant(SHUFFLE_TWO, cdgh, y, x, 0xbb);
        self.asm.vector2(LOAD, T1, implicit);
        self.asm.vector2(LOAD, implicit, w);
        self.asm.sha(0xcb, cdgh, abef);
        self.asm
            .vector2_constant(SHUFFLE_WORDS, implicit, implicit, 0x0e);
        self.asm.sha(0xcb, abef, cdgh);
        self.asm.vector2(LOAD, implicit, T1);
        if half == ABCD
            && let Some(efgh) = self.other_half()
        {
            self.took_following = true;
            self.asm.vector3_constant(SHUFFLE_TWO, T0, abef, cdgh, EFGH);
            let other = self.in_new(T0);
            self.write_vector_register(efgh, other);
        }
        self.asm
            .vector3_constant(SHUFFLE_TWO, abef, abef, cdgh, half);
        self.in_new(abef)
    }
}
