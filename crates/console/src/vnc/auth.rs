//! VNC authentication (RFC 6143, section 7.2.2).

use des::Des;
use des::cipher::{BlockCipherEncrypt, KeyInit};

pub(super) const CHALLENGE: usize = 16;

/// What a client that knows `password` answers to `challenge`. Only the first eight bytes of a password count, and each
/// byte's bits are in the wrong order: so it has always been.
pub(super) fn response(password: &str, challenge: &[u8; CHALLENGE]) -> [u8; CHALLENGE] {
    let mut key = [0u8; 8];
    for (into, byte) in key.iter_mut().zip(password.bytes()) {
        *into = byte.reverse_bits();
    }
    let cipher = Des::new(&key.into());
    let mut answer = [0; CHALLENGE];
    for (from, into) in challenge.chunks_exact(8).zip(answer.chunks_exact_mut(8)) {
        let mut block = [0; 8];
        block.copy_from_slice(from);
        let mut block = block.into();
        cipher.encrypt_block(&mut block);
        into.copy_from_slice(&block);
    }
    answer
}

/// Compares without telling by the time it takes where the difference is.
pub(super) fn same(a: &[u8; CHALLENGE], b: &[u8; CHALLENGE]) -> bool {
    a.iter()
        .zip(b)
        .fold(0, |difference, (a, b)| difference | (a ^ b))
        == 0
}

/// A challenge that cannot be foreseen.
pub(super) fn challenge() -> std::io::Result<[u8; CHALLENGE]> {
    use std::io::Read;
    let mut bytes = [0; CHALLENGE];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answer() {
        // DES of zeroes under the key of "\x80" bytes reversed, 0x01 each: a weak key with the published result.
        let answer = response("\u{1}\u{1}", &[0; CHALLENGE]);
        assert_eq!(answer[..8], answer[8..]);
        // NIST SP 800-17: key 8001010101010101 encrypts zeroes to 95a8d72813daa94d; parity bits do not count.
        let key_80 = response("\u{1}", &[0; CHALLENGE]);
        assert_eq!(
            key_80[..8],
            [0x95, 0xa8, 0xd7, 0x28, 0x13, 0xda, 0xa9, 0x4d]
        );
        assert!(same(&answer, &response("\u{1}\u{1}", &[0; CHALLENGE])));
        assert!(!same(&answer, &key_80));
        assert_eq!(
            response("12345678", &[3; 16]),
            response("123456789", &[3; 16])
        );
    }
}
