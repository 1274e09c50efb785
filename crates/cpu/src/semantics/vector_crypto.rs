//! AES, SHA-1 and SHA-256: Arm DDI 0487, C4.1.90.

use crate::emit::{Emit, Flow, Outcome};
use crate::vector::{Crypto, Operation};

use super::vector::{check_enabled, rows};
use super::{rd, rm, rn};

rows! {
    aese => destination_and_one(Crypto::AesE);
    aesd => destination_and_one(Crypto::AesD);
    aesmc => one(Crypto::AesMc);
    aesimc => one(Crypto::AesImc);
    sha1c => three(Crypto::Sha1C);
    sha1p => three(Crypto::Sha1P);
    sha1m => three(Crypto::Sha1M);
    sha1su0 => three(Crypto::Sha1Su0);
    sha256h => three(Crypto::Sha256H);
    sha256h2 => three(Crypto::Sha256H2);
    sha256su1 => three(Crypto::Sha256Su1);
    sha1h => one(Crypto::Sha1H);
    sha1su1 => destination_and_one(Crypto::Sha1Su1);
    sha256su0 => destination_and_one(Crypto::Sha256Su0);
}

fn one<E: Emit>(e: &mut E, word: u32, operation: Crypto) -> Outcome<E> {
    check_enabled!(e);
    let n = e.v(rn(word));
    let result = e.vector(Operation::Crypto(operation), [n, n, n]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn destination_and_one<E: Emit>(e: &mut E, word: u32, operation: Crypto) -> Outcome<E> {
    check_enabled!(e);
    let (d, n) = (e.v(rd(word)), e.v(rn(word)));
    let result = e.vector(Operation::Crypto(operation), [d, n, n]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}

fn three<E: Emit>(e: &mut E, word: u32, operation: Crypto) -> Outcome<E> {
    check_enabled!(e);
    let (d, n, m) = (e.v(rd(word)), e.v(rn(word)), e.v(rm(word)));
    let result = e.vector(Operation::Crypto(operation), [d, n, m]);
    e.set_v(rd(word), result);
    Ok(Flow::Next)
}
