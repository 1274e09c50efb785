//! A Debian mirror of what one installation wants, and a server of it on the host's loopback.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;
use sha2::{Digest, Sha256};

use crate::packages::{Suite, run, with_dependencies};
use crate::{cache, initrd};

/// The base system, as debootstrap chooses it.
const BASE: [&str; 2] = ["?priority(required)", "?priority(important)"];

/// A mirror with the base system of a suite, these packages, all with what they depend on, and one package of the installer's
/// kind. Its folder in the cache, with `debian/dists` and `debian/pool`. The index is not signed.
pub fn mirror(suite: Suite, packages: &[&str], installer: &Path) -> Result<PathBuf> {
    let key = format!("{suite:?} {packages:?} {}", installer.display());
    let name = format!("mirror/{:016x}", initrd::fingerprint(key.as_bytes()));
    cache::once(&name, |root| {
        let path = &root.join("debian");
        let wanted: Vec<_> = BASE.iter().chain(packages).copied().collect();
        let downloads = path.join("downloads");
        let stanzas = with_dependencies(suite, &wanted, &downloads)?;
        for stanza in &stanzas {
            place_package(stanza, &downloads, path)?;
        }
        fs::remove_dir_all(&downloads)?;
        fs::copy(installer, path.join("pool/installer.udeb"))?;
        let udeb = fs::read(installer)?;
        let control = run(Command::new("dpkg-deb").arg("-f").arg(installer))?;
        let udeb = format!(
            "{}\nFilename: pool/installer.udeb\nSize: {}\nSHA256: {}\n",
            control.trim(),
            udeb.len(),
            hexadecimal(&udeb)
        );
        let mut sums = String::new();
        for (place, index) in [
            // debootstrap loses a package that no empty line follows.
            ("main/binary-arm64", stanzas.join("\n\n") + "\n\n"),
            ("main/debian-installer/binary-arm64", udeb),
        ] {
            let folder = path.join("dists").join(suite.name()).join(place);
            fs::create_dir_all(&folder)?;
            let mut packed = GzEncoder::new(Vec::new(), Compression::best());
            packed.write_all(index.as_bytes())?;
            for (name, data) in [
                ("Packages", index.into_bytes()),
                ("Packages.gz", packed.finish()?),
            ] {
                let (sum, bytes) = (hexadecimal(&data), data.len());
                sums += &format!(" {sum} {bytes} {place}/{name}\n");
                fs::write(folder.join(name), data)?;
            }
        }
        write_release(path, suite, &sums)
    })
}

/// The indices' index (Debian wiki, DebianRepository/Format), and the smaller one that the installer looks for to see whether
/// the mirror has its architecture.
fn write_release(path: &Path, suite: Suite, sums: &str) -> Result<()> {
    let date = run(Command::new("date")
        .env("LC_ALL", "C")
        .args(["-u", "+%a, %d %b %Y %H:%M:%S UTC"]))?;
    let (code, date) = (suite.name(), date.trim());
    let folder = path.join("dists").join(code);
    fs::write(
        folder.join("Release"),
        format!(
            "Origin: Debian\nLabel: Debian\nSuite: {code}\nCodename: {code}\nDate: {date}\nArchitectures: arm64\n\
             Components: main\nSHA256:\n{sums}"
        ),
    )?;
    fs::write(
        folder.join("main/binary-arm64/Release"),
        format!(
            "Archive: {code}\nOrigin: Debian\nLabel: Debian\nComponent: main\nArchitecture: arm64\n"
        ),
    )?;
    Ok(())
}

/// Moves a package's file to where the index says that it is.
fn place_package(stanza: &str, downloads: &Path, mirror: &Path) -> Result<()> {
    let field = |name: &str| {
        let found = stanza.lines().find_map(|line| line.strip_prefix(name));
        found.with_context(|| format!("a package without '{name}': {stanza}"))
    };
    let path = Path::new(field("Filename: ")?);
    let relative = path
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    ensure!(relative, "{} leads out of the mirror", path.display());
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    let file = downloads.join(format!(
        "{}_{}_{}.{extension}",
        field("Package: ")?,
        field("Version: ")?.replace(':', "%3a"),
        field("Architecture: ")?
    ));
    let to = mirror.join(path);
    if let Some(folder) = to.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::rename(&file, &to).with_context(|| format!("apt did not download {}", file.display()))
}

fn hexadecimal(data: &[u8]) -> String {
    let sum = Sha256::digest(data);
    sum.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A web server of a folder on the host's loopback. It lives as long as the process.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    folder: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Beside those of the folder, by path.
    documents: HashMap<String, Vec<u8>>,
    /// Paths asked for, and how many bytes they were answered with.
    served: Vec<(String, Option<u64>)>,
}

impl Server {
    /// Starts it.
    pub fn start(folder: &Path) -> Result<Server> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            folder: folder.into(),
            state: Mutex::default(),
        });
        let of_thread = shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = of_thread.clone();
                // A client that breaks off is its own loss.
                std::thread::spawn(move || drop(shared.converse(&stream)));
            }
        });
        Ok(Server { address, shared })
    }

    /// Its port on the loopback.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// One more document, such as `/preseed.cfg`.
    pub fn add(&self, path: &str, data: Vec<u8>) {
        self.shared.with(|state| {
            state.documents.insert(path.into(), data);
        });
    }

    /// A document, as a client may have put it.
    pub fn document(&self, path: &str) -> Option<Vec<u8>> {
        self.shared.with(|state| state.documents.get(path).cloned())
    }

    /// Files that were sent, and their bytes.
    pub fn served(&self) -> (usize, u64) {
        self.shared.with(|state| {
            let sent = state.served.iter().filter_map(|served| served.1);
            sent.fold((0, 0), |(files, bytes), sent| (files + 1, bytes + sent))
        })
    }

    /// Paths that were asked for and are not here.
    pub fn missed(&self) -> Vec<String> {
        self.shared.with(|state| {
            let missed = state.served.iter().filter(|served| served.1.is_none());
            missed.map(|(path, _)| path.clone()).collect()
        })
    }
}

impl Shared {
    fn with<T>(&self, what: impl FnOnce(&mut State) -> T) -> T {
        let mut state = match self.state.lock() {
            Ok(state) => state,
            Err(poisoned) => poisoned.into_inner(),
        };
        what(&mut state)
    }

    /// Requests one after the other (RFC 9112), as apt sends them without waiting for answers.
    fn converse(&self, stream: &TcpStream) -> Result<()> {
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        loop {
            let mut head = Vec::new();
            loop {
                let mut line = String::new();
                if reader.by_ref().take(8192).read_line(&mut line)? == 0 {
                    return Ok(());
                }
                let line = line.trim_end();
                if line.is_empty() {
                    break;
                }
                head.push(line.to_string());
                ensure!(head.len() < 100, "a head without an end");
            }
            let mut words = head.first().map_or("", String::as_str).split(' ');
            let (method, path) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
            let path = decoded(path);
            let header = |name: &str| {
                head.iter().find_map(|line| {
                    let (key, value) = line.split_once(':')?;
                    key.eq_ignore_ascii_case(name).then(|| value.trim())
                })
            };
            if method == "PUT" {
                let length = header("content-length").unwrap_or("0").parse::<u64>()?;
                ensure!(length <= 1 << 30, "{length} bytes are too many");
                if header("expect").is_some() {
                    writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                let mut data = Vec::new();
                reader.by_ref().take(length).read_to_end(&mut data)?;
                self.with(|state| state.documents.insert(path, data));
                writer.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")?;
                continue;
            }
            let found = self.find(&path);
            let sent = found.as_ref().map(|data| data.len() as u64);
            self.with(|state| state.served.push((path, sent)));
            let status = if sent.is_some() {
                "200 OK"
            } else {
                "404 Not Found"
            };
            let length = sent.unwrap_or(0);
            write!(
                writer,
                "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n"
            )?;
            if method == "GET" {
                writer.write_all(&found.unwrap_or_default())?;
            }
        }
    }

    fn find(&self, path: &str) -> Option<Vec<u8>> {
        if let Some(data) = self.with(|state| state.documents.get(path).cloned()) {
            return Some(data);
        }
        let path = Path::new(path.strip_prefix('/')?);
        let inside = path
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)));
        inside
            .then(|| fs::read(self.folder.join(path)).ok())
            .flatten()
    }
}

/// A path without its percent signs (RFC 3986, 2.1).
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((byte, tail)) = rest.split_first() {
        let code = tail.get(..2).and_then(|digits| {
            let digits = std::str::from_utf8(digits).ok()?;
            u8::from_str_radix(digits, 16).ok()
        });
        (bytes, rest) = match (byte, code) {
            (b'%', Some(code)) => (push(bytes, code), &tail[2..]),
            _ => (push(bytes, *byte), tail),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn push(mut bytes: Vec<u8>, byte: u8) -> Vec<u8> {
    bytes.push(byte);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(stream: &mut TcpStream, request: &str) -> (String, Vec<u8>) {
        stream.write_all(request.as_bytes()).unwrap();
        let mut reader = BufReader::new(stream);
        let (mut status, mut length) = (String::new(), 0);
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            if status.is_empty() {
                status = line.trim().into();
            } else if let Some(value) = line.strip_prefix("Content-Length: ") {
                length = value.trim().parse().unwrap();
            } else if line.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        (status, body)
    }

    #[test]
    fn files_and_documents_on_one_connection() {
        let folder = std::env::temp_dir().join(format!("dormer-mirror-{}", std::process::id()));
        fs::create_dir_all(folder.join("pool")).unwrap();
        fs::write(folder.join("pool/a_1:2+b.deb"), b"package").unwrap();
        let server = Server::start(&folder).unwrap();
        server.add("/preseed.cfg", b"answers".to_vec());
        let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
        let mut get = |path: &str| {
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n");
            ask(&mut stream, &request)
        };
        assert_eq!(get("/preseed.cfg").1, b"answers");
        assert_eq!(get("/pool/a_1%3a2%2Bb.deb").1, b"package");
        for path in ["/../etc/passwd", "//etc/passwd", "/%2e%2e/x", "/none", ""] {
            assert_eq!(get(path).0, "HTTP/1.1 404 Not Found", "{path}");
        }
        let put = "PUT /up HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi";
        assert_eq!(ask(&mut stream, put).0, "HTTP/1.1 201 Created");
        assert_eq!(server.document("/up").unwrap(), b"hi");
        assert_eq!(server.served(), (2, 14));
        assert_eq!(server.missed().len(), 5);
        fs::remove_dir_all(&folder).unwrap();
    }
}
