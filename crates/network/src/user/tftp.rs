//! TFTP, for reading only (RFC 1350, 2347, 2348, 2349).

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use super::wire::Io;

/// UDP port.
pub const PORT: u16 = 69;
const READ: u16 = 1;
const WRITE: u16 = 2;
const DATA: u16 = 3;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 5;
const OPTIONS: u16 = 6;
/// Error codes.
const NOT_FOUND: u16 = 1;
const ACCESS: u16 = 2;
const ILLEGAL: u16 = 4;
const UNKNOWN_ID: u16 = 5;
/// Transfers at a time, and how long one may be silent.
const TRANSFERS: usize = 16;
const SILENT: Duration = Duration::from_secs(20);
/// Bytes of a block; at most one that fits the wire in one piece.
const BLOCK: usize = 512;
const LARGEST_BLOCK: usize = 1468;

/// Transfers under way, by the client.
#[derive(Default)]
pub struct Transfers {
    active: HashMap<SocketAddr, Transfer>,
}

struct Transfer {
    server: SocketAddr,
    file: File,
    size: u64,
    block_size: usize,
    /// Blocks acknowledged.
    done: u64,
    last: Instant,
}

impl Transfers {
    /// A datagram to our TFTP port.
    pub fn datagram(
        &mut self,
        io: &mut Io<'_>,
        mac: [u8; 6],
        (guest, server): (SocketAddr, SocketAddr),
        data: &[u8],
    ) {
        let Some(folder) = io.wire.config.tftp.clone() else {
            return;
        };
        self.active
            .retain(|_, t| io.now.saturating_duration_since(t.last) < SILENT);
        let Some((kind, body)) = data.split_first_chunk::<2>() else {
            return;
        };
        let answer = match u16::from_be_bytes(*kind) {
            READ => self.begin(io.now, &folder, guest, server, body),
            WRITE => Err((ACCESS, "this server is for reading only")),
            ACKNOWLEDGE => match self.acknowledged(io.now, guest, body) {
                Some(answer) => answer,
                None => return,
            },
            ERROR => {
                self.active.remove(&guest);
                return;
            }
            _ => Err((ILLEGAL, "illegal operation")),
        };
        let bytes = answer.unwrap_or_else(|(code, text)| {
            self.active.remove(&guest);
            let mut bytes = Vec::from(ERROR.to_be_bytes());
            bytes.extend(code.to_be_bytes());
            bytes.extend(text.bytes().chain([0]));
            bytes
        });
        io.udp(mac, server, guest, &bytes);
    }

    fn begin(
        &mut self,
        now: Instant,
        folder: &Path,
        guest: SocketAddr,
        server: SocketAddr,
        request: &[u8],
    ) -> Result<Vec<u8>, (u16, &'static str)> {
        let mut words = request
            .split(|b| *b == 0)
            .map(|w| std::str::from_utf8(w).unwrap_or_default());
        let (Some(name), Some(mode)) = (words.next(), words.next()) else {
            return Err((ILLEGAL, "no file name"));
        };
        if !mode.eq_ignore_ascii_case("octet") {
            return Err((ILLEGAL, "only octet mode"));
        }
        let path = beneath(folder, name).ok_or((ACCESS, "no such path here"))?;
        let open = File::open(&path).and_then(|f| Ok((f.metadata()?, f)));
        let (metadata, file) = open.map_err(|_| (NOT_FOUND, "file not found"))?;
        if !metadata.is_file() {
            return Err((NOT_FOUND, "not a file"));
        }
        if self.active.len() >= TRANSFERS && !self.active.contains_key(&guest) {
            return Err((0, "too many transfers"));
        }
        let mut transfer = Transfer {
            server,
            file,
            size: metadata.len(),
            block_size: BLOCK,
            done: 0,
            last: now,
        };
        let mut accepted = Vec::new();
        while let (Some(option), Some(value)) = (words.next(), words.next()) {
            let option = option.to_ascii_lowercase();
            let value = match (option.as_str(), value.parse::<u64>()) {
                ("blksize", Ok(size)) if size >= 8 => {
                    transfer.block_size = (size as usize).min(LARGEST_BLOCK);
                    transfer.block_size as u64
                }
                ("tsize", Ok(_)) => transfer.size,
                ("timeout", Ok(seconds @ 1..=255)) => seconds,
                _ => continue,
            };
            accepted.extend(option.bytes().chain([0]));
            accepted.extend(value.to_string().bytes().chain([0]));
        }
        let answer = if accepted.is_empty() {
            transfer.block()?
        } else {
            let mut bytes = Vec::from(OPTIONS.to_be_bytes());
            bytes.extend(accepted);
            bytes
        };
        self.active.insert(guest, transfer);
        Ok(answer)
    }

    /// The client has a block: the next one, if there is one.
    fn acknowledged(
        &mut self,
        now: Instant,
        guest: SocketAddr,
        body: &[u8],
    ) -> Option<Result<Vec<u8>, (u16, &'static str)>> {
        let Some(transfer) = self.active.get_mut(&guest) else {
            return Some(Err((UNKNOWN_ID, "no transfer of yours")));
        };
        let block = u16::from_be_bytes(*body.first_chunk()?);
        transfer.last = now;
        // Block numbers wrap around in files of many blocks.
        if block == (transfer.done + 1) as u16 && transfer.sent() {
            transfer.done += 1;
            if transfer.done * transfer.block_size as u64 > transfer.size {
                self.active.remove(&guest);
                return None;
            }
        } else if block != transfer.done as u16 {
            return None;
        }
        Some(transfer.block())
    }

    /// Transfers under way.
    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.active.len()
    }
}

impl Transfer {
    /// Whether there is a block to acknowledge.
    fn sent(&self) -> bool {
        self.done * self.block_size as u64 <= self.size
    }

    /// The block after those that were acknowledged.
    fn block(&self) -> Result<Vec<u8>, (u16, &'static str)> {
        let offset = self.done * self.block_size as u64;
        let length = self.size.saturating_sub(offset).min(self.block_size as u64) as usize;
        let mut bytes = Vec::from(DATA.to_be_bytes());
        bytes.extend(((self.done + 1) as u16).to_be_bytes());
        bytes.resize(4 + length, 0);
        self.file
            .read_exact_at(&mut bytes[4..], offset)
            .map_err(|_| (0, "cannot read the file"))?;
        tracing::trace!(server = %self.server, block = self.done + 1, "TFTP");
        Ok(bytes)
    }
}

/// The file of that name in the folder, wherever links in it lead, but never outside.
fn beneath(folder: &Path, name: &str) -> Option<PathBuf> {
    let name = name.replace('\\', "/");
    let relative = Path::new(name.trim_start_matches('/'));
    let plain = relative
        .components()
        .all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
    if !plain || name.is_empty() {
        return None;
    }
    let folder = folder.canonicalize().ok()?;
    let path = folder.join(relative);
    match path.canonicalize() {
        Ok(real) => real.starts_with(&folder).then_some(real),
        // Not there: opening it says so.
        Err(_) => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_outside_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("tftp");
        std::fs::create_dir(&folder).unwrap();
        std::fs::write(root.path().join("secret"), "x").unwrap();
        std::fs::write(folder.join("a"), "x").unwrap();
        std::os::unix::fs::symlink("../secret", folder.join("link")).unwrap();
        assert!(beneath(&folder, "a").is_some());
        assert!(beneath(&folder, "/a").is_some());
        assert!(beneath(&folder, "\\a").is_some());
        for outside in ["../secret", "x/../../secret", "..\\secret", "link", ""] {
            assert_eq!(beneath(&folder, outside), None, "{outside}");
        }
    }

    proptest! {
        #[test]
        fn a_file_arrives_whole(size in 0usize..5000, block_size in 8usize..2000) {
            let root = tempfile::tempdir().unwrap();
            let data: Vec<u8> = (0..size).map(|i| i as u8).collect();
            std::fs::write(root.path().join("f"), &data).unwrap();
            let mut transfers = Transfers::default();
            let (guest, server) = ("10.0.2.15:1000".parse().unwrap(), "10.0.2.2:69".parse().unwrap());
            let request = format!("f\0octet\0blksize\0{block_size}\0tsize\00\0");
            let now = Instant::now();
            let options = transfers.begin(now, root.path(), guest, server, request.as_bytes()).unwrap();
            prop_assert_eq!(options[1], 6);
            let mut got = Vec::new();
            let mut block = 0u16;
            while let Some(answer) = transfers.acknowledged(now, guest, &block.to_be_bytes()) {
                let bytes = answer.unwrap();
                block += 1;
                prop_assert_eq!(&bytes[..4], &[0, 3, (block >> 8) as u8, block as u8]);
                got.extend_from_slice(&bytes[4..]);
                prop_assert!(block < 2000);
            }
            prop_assert_eq!(got, data);
            prop_assert_eq!(transfers.count(), 0);
        }
    }
}
