//! A VNC viewer that looks at nothing: it counts the pixels that come (RFC 6143).

use std::io::{BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anyhow::{Result, bail, ensure};
use guests::vnc::{greet, take};

/// Pixels are 32 bits and come as they are.
const RAW: i32 = 0;
/// The screen has another size.
const DESKTOP_SIZE: i32 = -223;

/// A viewer on a thread of its own, which ends with the server.
pub struct Viewer {
    /// Whole pictures so far, by their pixels; or why there are no more.
    pictures: Arc<Mutex<Result<f64, String>>>,
}

impl Viewer {
    /// Connects to a server that asks for no password.
    pub fn start(socket: &Path) -> Result<Viewer> {
        let mut stream = UnixStream::connect(socket)?;
        let size = greet(&mut stream)?;
        let mut encodings = vec![2, 0, 0, 2];
        encodings.extend(RAW.to_be_bytes());
        encodings.extend(DESKTOP_SIZE.to_be_bytes());
        stream.write_all(&encodings)?;
        let mut client = Client {
            input: BufReader::with_capacity(1 << 20, stream.try_clone()?),
            output: stream,
            size,
        };
        let pictures = Arc::new(Mutex::new(Ok(0.0)));
        let counted = pictures.clone();
        std::thread::spawn(move || {
            loop {
                let update = client.update();
                let mut counted = counted.lock().expect("nobody panics with it");
                match (update, &mut *counted) {
                    (Ok(part), Ok(sum)) => *sum += part,
                    (Err(error), counted) => {
                        *counted = Err(error.to_string());
                        return;
                    }
                    (Ok(_), Err(_)) => return,
                }
            }
        });
        Ok(Viewer { pictures })
    }

    /// Whole pictures that have come.
    pub fn pictures(&self) -> Result<f64> {
        let pictures = self.pictures.lock().expect("nobody panics with it").clone();
        pictures.map_err(anyhow::Error::msg)
    }
}

struct Client {
    input: BufReader<UnixStream>,
    output: UnixStream,
    /// Pixels.
    size: (u16, u16),
}

impl Client {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        take(&mut self.input)
    }

    fn number(&mut self) -> Result<u16> {
        Ok(u16::from_be_bytes(self.take()?))
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        let skipped = std::io::copy(&mut (&mut self.input).take(bytes), &mut std::io::sink())?;
        ensure!(skipped == bytes, "the server hung up");
        Ok(())
    }

    /// Asks for what has changed and waits for it; how much of a picture it was.
    fn update(&mut self) -> Result<f64> {
        let mut request = vec![3, 1, 0, 0, 0, 0];
        request.extend(self.size.0.to_be_bytes());
        request.extend(self.size.1.to_be_bytes());
        self.output.write_all(&request)?;
        loop {
            match self.take::<1>()?[0] {
                0 => break,
                2 => {}
                3 => {
                    self.take::<3>()?;
                    let text = u32::from_be_bytes(self.take()?);
                    self.skip(text.into())?;
                }
                other => bail!("a message of type {other}"),
            }
        }
        self.take::<1>()?;
        let mut pixels = 0;
        for _ in 0..self.number()? {
            self.take::<4>()?;
            let (width, height) = (self.number()?, self.number()?);
            match i32::from_be_bytes(self.take()?) {
                RAW => {
                    let part = u64::from(width) * u64::from(height);
                    self.skip(part * 4)?;
                    pixels += part;
                }
                DESKTOP_SIZE => self.size = (width, height),
                other => bail!("pixels in encoding {other}"),
            }
        }
        let all = u64::from(self.size.0) * u64::from(self.size.1);
        Ok(pixels as f64 / all.max(1) as f64)
    }
}
