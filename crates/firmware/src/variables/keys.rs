//! Secure Boot's keys: certificates, lists of signatures, and the variables that put a machine into user mode.

use std::path::{Path, PathBuf};

use super::guid::{self, Guid};
use super::{Attributes, Store, Variable};

/// When the variables were signed, as firmware is told: before every signed update that there is (2000-01-01). EFI_TIME.
const SIGNED: [u8; 16] = [0xd0, 0x07, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// A certificate (DER) and who answers for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub owner: Guid,
    pub der: Vec<u8>,
}

/// What a machine trusts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Who may change KEK (PK): firmware takes one.
    pub platform: Option<Certificate>,
    /// Who may change db and dbx (KEK).
    pub exchange: Vec<Certificate>,
    /// Whose programs start (db).
    pub allowed: Vec<Certificate>,
    /// Lists of signatures of what does not start (dbx), as they are published. Empty: none.
    pub forbidden: Vec<u8>,
}

/// A file that is no certificate, or not there.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("could not read '{}': {error}", path.display())]
    Read {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("'{}' is no X.509 certificate in PEM or DER", path.display())]
    NotACertificate { path: PathBuf },
    #[error("Microsoft's certificates are not on this host: {} is missing from {}", missing, folders.join(", "))]
    Microsoft {
        missing: &'static str,
        folders: Vec<String>,
    },
    #[error("no random numbers: {0}")]
    Random(std::io::Error),
}

impl Keys {
    /// Writes the variables: PK, KEK, db and dbx, and Secure Boot turned on.
    pub fn enroll(&self, store: &mut Store) {
        let authenticated = |name: &str, vendor, data: Vec<u8>| Variable {
            name: name.into(),
            vendor,
            attributes: Attributes::AUTHENTICATED,
            time: SIGNED,
            count: 0,
            data,
        };
        let list = |certificates: &[Certificate]| {
            certificates
                .iter()
                .flat_map(signature_list)
                .collect::<Vec<u8>>()
        };
        let global = guid::GLOBAL_VARIABLE;
        let database = guid::IMAGE_SECURITY_DATABASE;
        for (name, vendor, data) in [
            ("db", database, list(&self.allowed)),
            ("dbx", database, self.forbidden.clone()),
            ("KEK", global, list(&self.exchange)),
            // Last: with it, firmware is in user mode.
            (
                "PK",
                global,
                self.platform
                    .as_ref()
                    .map(signature_list)
                    .unwrap_or_default(),
            ),
        ] {
            store.remove(name, vendor);
            // A variable without data is none.
            if !data.is_empty() {
                store.put(authenticated(name, vendor, data));
            }
        }
        for (name, vendor, value) in [
            ("SecureBootEnable", guid::SECURE_BOOT_ENABLE, 1),
            ("CustomMode", guid::CUSTOM_MODE, 0),
        ] {
            store.put(Variable {
                name: name.into(),
                vendor,
                attributes: Attributes::BOOT,
                time: [0; 16],
                count: 0,
                data: vec![value],
            });
        }
    }
}

/// EFI_SIGNATURE_LIST of one certificate (UEFI Specification 2.10, 32.4.1).
fn signature_list(certificate: &Certificate) -> Vec<u8> {
    let signature = 16 + certificate.der.len() as u32;
    let mut list = guid::CERT_X509.0.to_vec();
    for size in [28 + signature, 0, signature] {
        list.extend_from_slice(&size.to_le_bytes());
    }
    list.extend_from_slice(&certificate.owner.0);
    list.extend_from_slice(&certificate.der);
    list
}

/// A list of what a variable such as db holds: kind, owner, data. `None` if it is not made of signature lists.
pub fn signatures(mut data: &[u8]) -> Option<Vec<(Guid, Guid, Vec<u8>)>> {
    let mut all = Vec::new();
    while !data.is_empty() {
        let number = |at: usize| {
            let field = data.get(at..at + 4)?.try_into().ok()?;
            Some(u32::from_le_bytes(field) as usize)
        };
        let kind = Guid(data.get(..16)?.try_into().ok()?);
        let (list, header, size) = (number(16)?, number(20)?, number(24)?);
        let body = data.get(28usize.checked_add(header)?..list)?;
        if size < 16 || body.len() % size != 0 {
            return None;
        }
        for one in body.chunks_exact(size) {
            all.push((kind, Guid(one[..16].try_into().ok()?), one[16..].to_vec()));
        }
        data = &data[list..];
    }
    Some(all)
}

/// Reads a certificate in PEM or DER.
pub fn read_certificate(path: &Path) -> Result<Vec<u8>, KeyError> {
    let bytes = std::fs::read(path).map_err(|error| KeyError::Read {
        path: path.into(),
        error,
    })?;
    certificate(&bytes).ok_or_else(|| KeyError::NotACertificate { path: path.into() })
}

fn certificate(bytes: &[u8]) -> Option<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let der = match std::str::from_utf8(bytes) {
        Ok(text) if text.contains(BEGIN) => {
            let (_, rest) = text.split_once(BEGIN)?;
            let (body, _) = rest.split_once(END)?;
            let body: Vec<u8> = body.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
            data_encoding::BASE64.decode(&body).ok()?
        }
        _ => bytes.to_vec(),
    };
    // A SEQUENCE of as many bytes as there are, with a length of two: what certificates are.
    let length = u16::from_be_bytes(der.get(2..4)?.try_into().ok()?);
    (der[..2] == [0x30, 0x82] && usize::from(length) + 4 == der.len()).then_some(der)
}

/// Files of Microsoft's certificates, as the package `virt-firmware` names them: 2011's, which run out in 2026, and 2023's.
const MICROSOFT_EXCHANGE: &[&str] = &["ms-kek-2011.pem", "ms-kek-2023.pem"];
/// Windows itself; what Microsoft signs for others, shim among it; option ROMs.
const MICROSOFT_ALLOWED: &[&str] = &[
    "windows-2011.pem",
    "windows-2023.pem",
    "ms-uefi-2011.pem",
    "ms-uefi-2023.pem",
    "ms-uefi-rom-2023.pem",
];

/// Where the certificates may be: the cache that set-up fills, and distributions' packages.
pub fn certificate_folders() -> Vec<PathBuf> {
    let variable = |name: &str| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    let cache = if cfg!(target_os = "macos") {
        "Library/Caches"
    } else {
        ".cache"
    };
    let caches = [
        variable("DORMER_CACHE"),
        variable("XDG_CACHE_HOME").map(|p| p.join("dormer")),
        variable("HOME").map(|p| p.join(cache).join("dormer")),
    ];
    caches
        .into_iter()
        .flatten()
        .map(|path| path.join("certificates"))
        .chain(["/usr/lib/python3/dist-packages/virt/firmware/certs/microsoft.com".into()])
        .collect()
}

impl Keys {
    /// What Windows and the distributions' shims need, out of the first of `folders` that has it, under a platform key of
    /// the machine's own.
    pub fn microsoft(folders: &[PathBuf]) -> Result<Keys, KeyError> {
        let all = || MICROSOFT_EXCHANGE.iter().chain(MICROSOFT_ALLOWED);
        let missing = |folder: &Path| all().find(|name| !folder.join(name).is_file());
        let folder = folders.iter().find(|folder| missing(folder).is_none());
        let Some(folder) = folder else {
            let best = folders.iter().find(|folder| folder.is_dir());
            return Err(KeyError::Microsoft {
                missing: best
                    .and_then(|folder| missing(folder))
                    .unwrap_or(&MICROSOFT_EXCHANGE[0]),
                folders: folders.iter().map(|f| f.display().to_string()).collect(),
            });
        };
        let read = |names: &[&str]| {
            let one = |name: &&str| {
                Ok(Certificate {
                    owner: guid::MICROSOFT,
                    der: read_certificate(&folder.join(name))?,
                })
            };
            names.iter().map(one).collect::<Result<Vec<_>, KeyError>>()
        };
        Ok(Keys {
            platform: Some(platform_key()?),
            exchange: read(MICROSOFT_EXCHANGE)?,
            allowed: read(MICROSOFT_ALLOWED)?,
            forbidden: Vec::new(),
        })
    }
}

/// A platform key that nobody has the private half of: an RSA modulus out of random numbers, in a certificate whose
/// signature is random too (firmware looks at neither). KEK then changes by whoever can write the store's file, and by
/// nobody in the guest.
pub fn platform_key() -> Result<Certificate, KeyError> {
    let mut random = [0u8; 256 + 256 + 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| std::io::Read::read_exact(&mut file, &mut random))
        .map_err(KeyError::Random)?;
    let (modulus, rest) = random.split_at_mut(256);
    modulus[0] |= 0x80;
    modulus[255] |= 1;
    let (signature, serial) = rest.split_at_mut(256);
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(Certificate {
        owner: guid::DORMER,
        der: self_signed("Dormer platform key", serial, modulus, signature),
    })
}

/// A DER value: tag, length, contents (X.690, 8.1 and 10.1).
fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut value = vec![tag];
    match length {
        0..=0x7f => value.push(length as u8),
        0x80..=0xff => value.extend_from_slice(&[0x81, length as u8]),
        _ => value.extend_from_slice(&[0x82, (length >> 8) as u8, length as u8]),
    }
    parts.iter().for_each(|part| value.extend_from_slice(part));
    value
}

/// An X.509 v3 certificate of an RSA key (RFC 5280, 4.1) with the exponent 65537. Numbers are in big endian.
fn self_signed(name: &str, serial: &[u8], modulus: &[u8], signature: &[u8]) -> Vec<u8> {
    const SEQUENCE: u8 = 0x30;
    const SET: u8 = 0x31;
    const INTEGER: u8 = 0x02;
    const BIT_STRING: u8 = 0x03;
    const NULL: &[u8] = &[0x05, 0];
    const UTC_TIME: u8 = 0x17;
    const GENERALIZED_TIME: u8 = 0x18;
    /// sha256WithRSAEncryption and rsaEncryption (RFC 8017, appendix C), commonName.
    const SHA256_WITH_RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 0x0b];
    const RSA: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];
    const COMMON_NAME: &[u8] = &[0x06, 3, 0x55, 4, 3];
    let algorithm = der(SEQUENCE, &[SHA256_WITH_RSA, NULL]);
    let attribute = der(SEQUENCE, &[COMMON_NAME, &der(0x0c, &[name.as_bytes()])]);
    let name = der(SEQUENCE, &[&der(SET, &[&attribute])]);
    let validity = der(
        SEQUENCE,
        &[
            &der(UTC_TIME, &[b"000101000000Z"]),
            &der(GENERALIZED_TIME, &[b"99991231235959Z"]),
        ],
    );
    // A leading zero keeps the number positive.
    let key = der(
        SEQUENCE,
        &[
            &der(INTEGER, &[&[0], modulus]),
            &der(INTEGER, &[&[1, 0, 1]]),
        ],
    );
    let info = der(
        SEQUENCE,
        &[
            &der(SEQUENCE, &[RSA, NULL]),
            &der(BIT_STRING, &[&[0], &key]),
        ],
    );
    let version = der(0xa0, &[&der(INTEGER, &[&[2]])]);
    let certificate = der(
        SEQUENCE,
        &[
            &version,
            &der(INTEGER, &[serial]),
            &algorithm,
            &name,
            &validity,
            &name,
            &info,
        ],
    );
    der(
        SEQUENCE,
        &[
            &certificate,
            &algorithm,
            &der(BIT_STRING, &[&[0], signature]),
        ],
    )
}
