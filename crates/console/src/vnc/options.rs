//! What `-vnc` takes.

use std::path::PathBuf;

/// Port of display 0.
pub(super) const FIRST_PORT: u16 = 5900;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VncAddress {
    /// TCP, at port 5900 + `display`, or the first free one up to 5900 + `to`.
    Tcp {
        host: String,
        display: u16,
        to: Option<u16>,
    },
    /// A Unix socket.
    Unix(PathBuf),
}

/// What happens when clients ask for the display for themselves, which they do by default (`share=`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Share {
    /// A client that wants to be alone is: the others are sent away.
    #[default]
    AllowExclusive,
    /// A client that wants to be alone is refused.
    ForceShared,
    /// All may come, whatever they ask for.
    Ignore,
}

/// `-vnc`'s argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VncOptions {
    pub address: VncAddress,
    /// Clients have to know a password, which is set later; until then none is let in.
    pub password: bool,
    /// The id of the secret that is the password from the start (`password-secret=`).
    pub secret: Option<String>,
    pub share: Share,
    /// The desktop's name in the viewer's title.
    pub name: String,
}

/// An argument that cannot be understood, or asks for what is not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("no vnc port specified in '{0}'")]
    NoPort(String),
    #[error("can't convert to a number: '{0}'")]
    Number(String),
    #[error("Parameter '{name}' does not accept value '{value}'")]
    Value { name: &'static str, value: String },
    #[error("vnc option '{0}' is not supported")]
    NotBuilt(String),
    #[error("Invalid parameter '{0}'")]
    Unknown(String),
}

impl VncOptions {
    /// The first free port from 5900 on, for this machine's users only.
    pub fn local() -> VncOptions {
        VncOptions {
            address: VncAddress::Tcp {
                host: "127.0.0.1".into(),
                display: 0,
                to: Some(99),
            },
            password: false,
            secret: None,
            share: Share::default(),
            name: "Dormer".into(),
        }
    }

    /// Reads `HOST:DISPLAY` or `unix:PATH` and what follows: `to=`, `password=`, `share=`. `None` for `none`, which is no
    /// server.
    ///
    /// Without a host, the server listens on loopback only, unlike QEMU's.
    pub fn parse(text: &str) -> Result<Option<VncOptions>, OptionError> {
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        let mut options = VncOptions::local();
        let none = address == "none";
        options.address = match address.strip_prefix("unix:") {
            _ if none => options.address,
            Some("") => return Err(OptionError::NoPort(address.into())),
            Some(path) => VncAddress::Unix(path.into()),
            None => tcp(address)?,
        };
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, "on"));
            match key {
                "to" => {
                    let VncAddress::Tcp { to, .. } = &mut options.address else {
                        return Err(OptionError::Unknown("to".into()));
                    };
                    *to = Some(number(value)?);
                }
                "password" => options.password = on_off("password", value)?,
                "password-secret" => {
                    options.password = true;
                    options.secret = Some(value.into());
                }
                "share" => {
                    options.share = match value {
                        "allow-exclusive" => Share::AllowExclusive,
                        "force-shared" => Share::ForceShared,
                        "ignore" => Share::Ignore,
                        _ => {
                            return Err(OptionError::Value {
                                name: "share",
                                value: value.into(),
                            });
                        }
                    }
                }
                // Says that no lossy encoding is wanted, and none is ever used.
                "lossy" if !on_off("lossy", value)? => {}
                "websocket" | "reverse" | "tls-creds" | "tls-authz" | "sasl" | "sasl-authz"
                | "acl" | "lossy" | "non-adaptive" | "key-delay-ms" | "audiodev"
                | "power-control" | "id" | "display" | "head" | "connections" | "ipv4" | "ipv6" => {
                    return Err(OptionError::NotBuilt(key.into()));
                }
                _ => return Err(OptionError::Unknown(key.into())),
            }
        }
        Ok((!none).then_some(options))
    }
}

fn tcp(address: &str) -> Result<VncAddress, OptionError> {
    let (host, display) = address
        .rsplit_once(':')
        .ok_or_else(|| OptionError::NoPort(address.into()))?;
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    let host = if host.is_empty() { "127.0.0.1" } else { host };
    Ok(VncAddress::Tcp {
        host: host.into(),
        display: number(display)?,
        to: None,
    })
}

/// A display number, whose port must exist.
fn number(text: &str) -> Result<u16, OptionError> {
    text.parse()
        .ok()
        .filter(|number| *number <= u16::MAX - FIRST_PORT)
        .ok_or_else(|| OptionError::Number(text.into()))
}

fn on_off(name: &'static str, value: &str) -> Result<bool, OptionError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(OptionError::Value {
            name,
            value: value.into(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, display: u16, to: Option<u16>) -> VncAddress {
        VncAddress::Tcp {
            host: host.into(),
            display,
            to,
        }
    }

    fn address(text: &str) -> VncAddress {
        VncOptions::parse(text).unwrap().unwrap().address
    }

    #[test]
    fn addresses() {
        assert_eq!(address(":1"), tcp("127.0.0.1", 1, None));
        assert_eq!(address("0.0.0.0:1"), tcp("0.0.0.0", 1, None));
        assert_eq!(address("[::1]:2,to=9"), tcp("::1", 2, Some(9)));
        assert_eq!(address("unix:/run/x"), VncAddress::Unix("/run/x".into()));
        assert_eq!(VncOptions::parse("none"), Ok(None));
    }

    #[test]
    fn options_and_errors() {
        let options = VncOptions::parse(":0,password=on,share=force-shared,lossy=off")
            .unwrap()
            .unwrap();
        assert!(options.password && options.share == Share::ForceShared);
        let secret = VncOptions::parse(":0,password-secret=s").unwrap().unwrap();
        assert!(secret.password && secret.secret.as_deref() == Some("s"));
        assert!(VncOptions::parse(":0,password").unwrap().unwrap().password);
        let error = |text| VncOptions::parse(text).unwrap_err().to_string();
        assert_eq!(error("localhost"), "no vnc port specified in 'localhost'");
        assert_eq!(error(":x"), "can't convert to a number: 'x'");
        assert_eq!(error(":60000"), "can't convert to a number: '60000'");
        assert_eq!(
            error(":0,websocket=on"),
            "vnc option 'websocket' is not supported"
        );
        assert_eq!(error(":0,frob=1"), "Invalid parameter 'frob'");
        assert_eq!(
            error(":0,share=x"),
            "Parameter 'share' does not accept value 'x'"
        );
        assert!(error("unix:").contains("no vnc port"));
    }
}
