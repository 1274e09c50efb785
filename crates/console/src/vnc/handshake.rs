//! From a new connection to one that may see the display (RFC 6143, sections 7.1 to 7.3).

use super::auth;
use super::spec;
use std::io::{self, Read, Write};

/// Versions of the protocol that differ in the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Version {
    V3_3,
    V3_7,
    V3_8,
}

/// How clients are let in.
pub(super) enum Access {
    Open,
    /// With this password; without one, nobody.
    Password(Option<String>),
}

/// Speaks with a client until it is let in, and returns whether it agrees to share the display.
pub(super) fn greet(stream: &mut (impl Read + Write), access: &Access) -> io::Result<bool> {
    stream.write_all(b"RFB 003.008\n")?;
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let version = version(&line)?;
    let security = match access {
        Access::Open => spec::SECURITY_NONE,
        Access::Password(_) => spec::SECURITY_VNC,
    };
    if version == Version::V3_3 {
        stream.write_all(&u32::from(security).to_be_bytes())?;
    } else {
        stream.write_all(&[1, security])?;
        let mut chosen = [0];
        stream.read_exact(&mut chosen)?;
        if chosen[0] != security {
            return refuse(stream, version, "this type of security was not offered");
        }
    }
    if let Access::Password(password) = access {
        let challenge = auth::challenge()?;
        stream.write_all(&challenge)?;
        let mut answer = [0; auth::CHALLENGE];
        stream.read_exact(&mut answer)?;
        let right = password
            .as_ref()
            .is_some_and(|password| auth::same(&answer, &auth::response(password, &challenge)));
        if !right {
            return refuse(stream, version, "Authentication failed");
        }
        stream.write_all(&0u32.to_be_bytes())?;
    } else if version == Version::V3_8 {
        stream.write_all(&0u32.to_be_bytes())?;
    }
    let mut shared = [0];
    stream.read_exact(&mut shared)?;
    Ok(shared[0] != 0)
}

fn refuse(stream: &mut impl Write, version: Version, reason: &str) -> io::Result<bool> {
    stream.write_all(&1u32.to_be_bytes())?;
    if version == Version::V3_8 {
        stream.write_all(&(reason.len() as u32).to_be_bytes())?;
        stream.write_all(reason.as_bytes())?;
    }
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

/// Other numbers than the three are taken for the one below, as section 7.1.1 has it for 3.3.
fn version(line: &[u8; 12]) -> io::Result<Version> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "not an RFB client");
    let text = std::str::from_utf8(line).map_err(|_| wrong())?;
    let (major, minor) = text
        .strip_prefix("RFB ")
        .and_then(|rest| rest.strip_suffix('\n')?.split_once('.'))
        .ok_or_else(wrong)?;
    let number = |digits: &str| digits.parse::<u32>().map_err(|_| wrong());
    match (number(major)?, number(minor)?) {
        (0..=2, _) => Err(wrong()),
        (3, 0..=6) => Ok(Version::V3_3),
        (3, 7) => Ok(Version::V3_7),
        _ => Ok(Version::V3_8),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn versions() {
        assert_eq!(version(b"RFB 003.003\n").unwrap(), Version::V3_3);
        assert_eq!(version(b"RFB 003.005\n").unwrap(), Version::V3_3);
        assert_eq!(version(b"RFB 003.889\n").unwrap(), Version::V3_8);
        assert!(version(b"GET / HTTP/1").is_err());
    }

    /// A connection of which one side is written beforehand.
    struct Script(io::Cursor<Vec<u8>>, Vec<u8>);

    impl Read for Script {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            self.0.read(into)
        }
    }

    impl Write for Script {
        fn write(&mut self, from: &[u8]) -> io::Result<usize> {
            self.1.write(from)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn hostile_clients_are_not_let_in(bytes in prop::collection::vec(any::<u8>(), 0..64), rfb in any::<bool>()) {
            let mut said = if rfb { b"RFB 003.008\n\x02".to_vec() } else { Vec::new() };
            said.extend(bytes);
            let mut script = Script(io::Cursor::new(said), Vec::new());
            prop_assert!(greet(&mut script, &Access::Password(Some("secret".into()))).is_err());
        }
    }
}
