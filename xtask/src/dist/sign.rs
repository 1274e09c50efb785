//! Ad-hoc code signatures with entitlements, as macOS demands of programs on Apple silicon, written on any host.
//!
//! Layouts by Apple's published headers: Mach-O by `mach-o/loader.h`, signatures by `Kernel/kern/cs_blobs.h`; the DER form of
//! entitlements by TN3125. A signature that is there already (linkers leave one) is replaced.

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

const MH_MAGIC_64: u32 = 0xfeed_facf;
const LC_SEGMENT_64: u32 = 0x19;
const LC_CODE_SIGNATURE: u32 = 0x1d;
/// Bytes of `mach_header_64`.
const HEADER: usize = 32;

const CSMAGIC_EMBEDDED_SIGNATURE: u32 = 0xfade_0cc0;
const CSMAGIC_CODEDIRECTORY: u32 = 0xfade_0c02;
const CSMAGIC_REQUIREMENTS: u32 = 0xfade_0c01;
const CSMAGIC_EMBEDDED_ENTITLEMENTS: u32 = 0xfade_7171;
const CSMAGIC_EMBEDDED_DER_ENTITLEMENTS: u32 = 0xfade_7172;
const CSMAGIC_BLOBWRAPPER: u32 = 0xfade_0b01;
const CSSLOT_CODEDIRECTORY: u32 = 0;
const CSSLOT_REQUIREMENTS: u32 = 2;
const CSSLOT_ENTITLEMENTS: u32 = 5;
const CSSLOT_DER_ENTITLEMENTS: u32 = 7;
const CSSLOT_SIGNATURESLOT: u32 = 0x1_0000;
const CS_ADHOC: u32 = 2;
const CS_EXECSEG_MAIN_BINARY: u64 = 1;
const CS_HASHTYPE_SHA256: u8 = 2;
/// The first version with the executable segment.
const VERSION: u32 = 0x2_0400;
/// Bytes of a code directory of that version before its identifier.
const DIRECTORY: usize = 88;
/// Code is hashed in pages of 4 KiB.
const PAGE_BITS: u8 = 12;
const HASH: usize = 32;

/// The program may use Hypervisor.framework.
pub const ENTITLEMENTS: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
    <key>com.apple.security.hypervisor</key>
    <true/>
</dict>
</plist>
"#;
const ENTITLEMENT: &str = "com.apple.security.hypervisor";

/// What of a Mach-O file the signature is about.
struct Program {
    /// Offsets of load commands.
    signature: usize,
    linkedit: usize,
    /// File range of `__TEXT`.
    text: (u64, u64),
    /// Where the signature begins.
    limit: usize,
}

fn u32_at(file: &[u8], at: usize) -> Result<u32> {
    let bytes = file.get(at..at + 4).context("the file is cut short")?;
    Ok(u32::from_le_bytes(bytes.try_into()?))
}

fn u64_at(file: &[u8], at: usize) -> Result<u64> {
    let bytes = file.get(at..at + 8).context("the file is cut short")?;
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

impl Program {
    fn parse(file: &[u8]) -> Result<Program> {
        ensure!(
            u32_at(file, 0)? == MH_MAGIC_64,
            "it is no 64-bit Mach-O program"
        );
        let commands = u32_at(file, 16)?;
        let (mut at, mut signature, mut linkedit, mut text) = (HEADER, None, None, None);
        for _ in 0..commands {
            let (command, size) = (u32_at(file, at)?, u32_at(file, at + 4)? as usize);
            ensure!(size >= 8, "a load command has no size");
            if command == LC_CODE_SIGNATURE {
                signature = Some(at);
            } else if command == LC_SEGMENT_64 {
                let name = file.get(at + 8..at + 24).context("the file is cut short")?;
                if name.starts_with(b"__LINKEDIT\0") {
                    linkedit = Some(at);
                } else if name.starts_with(b"__TEXT\0") {
                    text = Some((u64_at(file, at + 40)?, u64_at(file, at + 48)?));
                }
            }
            at += size;
        }
        let signature = signature.context("the linker left no room for a signature")?;
        let limit = u32_at(file, signature + 8)? as usize;
        ensure!(
            limit.is_multiple_of(16) && limit <= file.len(),
            "its signature is in an odd place"
        );
        Ok(Program {
            signature,
            linkedit: linkedit.context("it has no __LINKEDIT")?,
            text: text.context("it has no __TEXT")?,
            limit,
        })
    }
}

/// A blob: magic, length, contents; big endian.
fn blob(magic: u32, contents: &[u8]) -> Vec<u8> {
    let mut blob = magic.to_be_bytes().to_vec();
    blob.extend((contents.len() as u32 + 8).to_be_bytes());
    blob.extend(contents);
    blob
}

/// A DER value of a short or two-byte length.
fn der(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut value = vec![tag];
    match contents.len() {
        length @ 0..0x80 => value.push(length as u8),
        length @ 0x80..0x100 => value.extend([0x81, length as u8]),
        length => value.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    value.extend(contents);
    value
}

/// The entitlement as the kernel reads it: version 1, and a set of one key that is true.
fn der_entitlements() -> Vec<u8> {
    let pair = [der(0x0c, ENTITLEMENT.as_bytes()), der(0x01, &[0xff])].concat();
    let set = der(0xb0, &der(0x30, &pair));
    der(0x70, &[der(0x02, &[1]), set].concat())
}

/// The code directory of the file up to its signature.
fn directory(code: &[u8], text: (u64, u64), identifier: &str, special: &[(u32, &[u8])]) -> Vec<u8> {
    let slots = special.iter().map(|(slot, _)| *slot).max().unwrap_or(0) as usize;
    let pages = code.len().div_ceil(1 << PAGE_BITS);
    let hashes = DIRECTORY + identifier.len() + 1 + slots * HASH;
    let length = hashes + pages * HASH;
    let mut out = Vec::with_capacity(length);
    for word in [
        CSMAGIC_CODEDIRECTORY,
        length as u32,
        VERSION,
        CS_ADHOC,
        hashes as u32,
        DIRECTORY as u32,
        slots as u32,
        pages as u32,
        code.len() as u32,
    ] {
        out.extend(word.to_be_bytes());
    }
    out.extend([HASH as u8, CS_HASHTYPE_SHA256, 0, PAGE_BITS]);
    // spare2, scatterOffset, teamOffset, spare3.
    out.extend([0; 16]);
    // codeLimit64, execSegBase, execSegLimit, execSegFlags.
    for word in [0, text.0, text.1, CS_EXECSEG_MAIN_BINARY] {
        out.extend(word.to_be_bytes());
    }
    out.extend(identifier.as_bytes());
    out.push(0);
    // Special slots count down to 1, before the pages.
    for slot in (1..=slots as u32).rev() {
        match special.iter().find(|(number, _)| *number == slot) {
            Some((_, contents)) => out.extend(Sha256::digest(contents)),
            None => out.extend([0; HASH]),
        }
    }
    for page in code.chunks(1 << PAGE_BITS) {
        out.extend(Sha256::digest(page));
    }
    out
}

/// The program, signed ad hoc with the hypervisor entitlement. `identifier`: of the program, such as `org.dormer.dormer`.
pub fn sign(mut file: Vec<u8>, identifier: &str) -> Result<Vec<u8>> {
    let program = Program::parse(&file)?;
    file.truncate(program.limit);
    let requirements = blob(CSMAGIC_REQUIREMENTS, &0u32.to_be_bytes());
    let entitlements = blob(CSMAGIC_EMBEDDED_ENTITLEMENTS, ENTITLEMENTS.as_bytes());
    let der = blob(CSMAGIC_EMBEDDED_DER_ENTITLEMENTS, &der_entitlements());
    let special: [(u32, &[u8]); 3] = [
        (CSSLOT_REQUIREMENTS, &requirements),
        (CSSLOT_ENTITLEMENTS, &entitlements),
        (CSSLOT_DER_ENTITLEMENTS, &der),
    ];
    let assemble = |directory: &[u8]| {
        let wrapper = blob(CSMAGIC_BLOBWRAPPER, &[]);
        let parts: [(u32, &[u8]); 5] = [
            (CSSLOT_CODEDIRECTORY, directory),
            special[0],
            special[1],
            special[2],
            (CSSLOT_SIGNATURESLOT, &wrapper),
        ];
        let mut index = (parts.len() as u32).to_be_bytes().to_vec();
        let mut offset = 12 + 8 * parts.len();
        for (slot, part) in parts {
            index.extend(slot.to_be_bytes());
            index.extend((offset as u32).to_be_bytes());
            offset += part.len();
        }
        let contents = parts.iter().flat_map(|(_, part)| part.iter().copied());
        index.extend(contents);
        blob(CSMAGIC_EMBEDDED_SIGNATURE, &index)
    };
    // The sizes are in the code that is hashed: the signature's length does not depend on the hashes.
    let draft = directory(&file, program.text, identifier, &special);
    let size = assemble(&draft).len().next_multiple_of(16);
    let start = u64_at(&file, program.linkedit + 40)?;
    let in_file = (program.limit + size) as u64 - start;
    put(
        &mut file,
        program.signature + 12,
        &(size as u32).to_le_bytes(),
    );
    put(&mut file, program.linkedit + 48, &in_file.to_le_bytes());
    let in_memory = in_file.next_multiple_of(0x4000);
    put(&mut file, program.linkedit + 32, &in_memory.to_le_bytes());
    let directory = directory(&file, program.text, identifier, &special);
    let mut signature = assemble(&directory);
    signature.resize(size, 0);
    file.extend(signature);
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of 0x5000 bytes with a linker's signature of 0x20 at its end.
    fn program() -> Vec<u8> {
        let mut file = vec![0x5a; 0x5020];
        let mut words = vec![MH_MAGIC_64, 0x0100_000c, 0, 2, 3, 72 + 72 + 16, 0, 0];
        for (name, start, size) in [
            (b"__TEXT\0\0\0\0\0\0", 0u32, 0x4000u32),
            (b"__LINKEDIT\0\0", 0x4000, 0x1020),
        ] {
            words.extend([LC_SEGMENT_64, 72]);
            let name = name
                .chunks(4)
                .map(|c| u32::from_le_bytes(c.try_into().unwrap()));
            words.extend(name);
            words.push(0);
            words.extend([start, 1, 0x4000, 0, start, 0, size, 0, 5, 5, 0, 0]);
        }
        words.extend([LC_CODE_SIGNATURE, 16, 0x5000, 0x20]);
        for (i, word) in words.into_iter().enumerate() {
            put(&mut file, i * 4, &word.to_le_bytes());
        }
        file
    }

    fn be(file: &[u8], at: usize) -> usize {
        u32::from_be_bytes(file[at..at + 4].try_into().unwrap()) as usize
    }

    #[test]
    fn every_page_and_slot_is_hashed() {
        let signed = sign(program(), "org.example").unwrap();
        let again = Program::parse(&signed).unwrap();
        assert_eq!(again.limit, 0x5000);
        assert_eq!(
            signed.len(),
            0x5000 + u32_at(&signed, again.signature + 12).unwrap() as usize
        );
        assert_eq!(
            u64_at(&signed, again.linkedit + 48).unwrap(),
            signed.len() as u64 - 0x4000
        );
        let (code, signature) = signed.split_at(0x5000);
        assert_eq!(be(signature, 0), CSMAGIC_EMBEDDED_SIGNATURE as usize);
        assert_eq!(be(signature, 8), 5);
        let part = |i: usize| {
            let at = be(signature, 12 + 8 * i + 4);
            (
                be(signature, 12 + 8 * i),
                &signature[at..at + be(signature, at + 4)],
            )
        };
        let (_, directory) = part(0);
        let hashes = be(directory, 16);
        for (i, page) in code.chunks(4096).enumerate() {
            let hash = &directory[hashes + i * 32..][..32];
            assert_eq!(hash, &Sha256::digest(page)[..]);
        }
        for i in 1..4 {
            let (slot, contents) = part(i);
            let hash = &directory[hashes - slot * 32..][..32];
            assert_eq!(hash, &Sha256::digest(contents)[..], "slot {slot}");
        }
        assert_eq!(&directory[DIRECTORY..DIRECTORY + 12], b"org.example\0");
        // Signed once more, it is the same.
        assert_eq!(sign(signed.clone(), "org.example").unwrap(), signed);
    }

    #[test]
    fn entitlements_in_der() {
        let mut expected = vec![0x70, 0x2a, 2, 1, 1, 0xb0, 0x25, 0x30, 0x23, 0x0c, 29];
        expected.extend(ENTITLEMENT.as_bytes());
        expected.extend([1, 1, 0xff]);
        expected[1] = (expected.len() - 2) as u8;
        expected[6] = (expected.len() - 7) as u8;
        expected[8] = (expected.len() - 9) as u8;
        assert_eq!(der_entitlements(), expected);
        assert!(ENTITLEMENTS.contains(ENTITLEMENT));
    }

    #[test]
    fn other_files_are_refused() {
        assert!(sign(vec![0; 100], "x").is_err());
        assert!(sign(Vec::new(), "x").is_err());
    }
}
