//! The viewer's side of VNC (RFC 6143).

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Result, ensure};

/// Has a server that asks for no password begin; the size of its screen in pixels. Pixels are as the server likes them, which
/// has to be 32 bits.
pub fn greet(stream: &mut (impl Read + Write)) -> Result<(u16, u16)> {
    take::<12>(stream)?;
    stream.write_all(b"RFB 003.008\n")?;
    let kinds = take::<1>(stream)?[0];
    let mut offered = vec![0; kinds.into()];
    stream.read_exact(&mut offered)?;
    ensure!(offered.contains(&1), "the server asks for a password");
    stream.write_all(&[1])?;
    ensure!(take(stream)? == [0; 4], "the server lets nobody in");
    // Shared.
    stream.write_all(&[1])?;
    let width = u16::from_be_bytes(take(stream)?);
    let height = u16::from_be_bytes(take(stream)?);
    let format: [u8; 16] = take(stream)?;
    ensure!(format[0] == 32, "pixels of {} bits", format[0]);
    let mut name = vec![0; u32::from_be_bytes(take(stream)?) as usize];
    stream.read_exact(&mut name)?;
    Ok((width, height))
}

/// The next bytes of a stream.
pub fn take<const N: usize>(stream: &mut impl Read) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// A client that only asks for a size, in pixels (the Extended Desktop Size extension).
pub fn ask_for_size(address: &str, width: u16, height: u16) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    greet(&mut stream)?;
    // SetEncodings: ExtendedDesktopSize; SetDesktopSize with one screen.
    let mut message = vec![2, 0, 0, 1];
    message.extend((-308i32).to_be_bytes());
    message.extend([251, 0]);
    message.extend(width.to_be_bytes());
    message.extend(height.to_be_bytes());
    message.extend([1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    message.extend(width.to_be_bytes());
    message.extend(height.to_be_bytes());
    message.extend([0; 4]);
    stream.write_all(&message)?;
    // The server has read it all when it answers a request for an update.
    stream.write_all(&[3, 0, 0, 0, 0, 0, 0, 1, 0, 1])?;
    take::<4>(&mut stream)?;
    Ok(())
}
