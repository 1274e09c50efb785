//! What `-serial` and `-chardev` take.

use std::path::PathBuf;

/// A back end of a serial line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SerialSpec {
    /// No serial line at all.
    None,
    /// A line on which nobody listens.
    Null,
    /// Standard input and output. `mux`: Ctrl-A is the way out, as with `-nographic`; `signal`: Ctrl-C ends the program
    /// instead of going to the guest.
    Stdio { mux: bool, signal: bool },
    /// What the guest sends, in a file.
    File { path: PathBuf, append: bool },
    /// A Unix socket.
    Unix {
        path: PathBuf,
        server: bool,
        wait: bool,
    },
    /// A TCP connection; an empty host means loopback.
    Tcp {
        host: String,
        port: u16,
        server: bool,
        wait: bool,
    },
    /// A new pseudo terminal.
    Pty,
    /// A `-chardev` by its name.
    Chardev(String),
}

/// A back end that cannot be understood, or is not built.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    #[error("serial back end '{0}' is not supported")]
    NotBuilt(String),
    #[error("'{0}' is not a valid char driver name")]
    Unknown(String),
    #[error("serial option '{0}' is not supported")]
    OptionNotBuilt(String),
    #[error("Invalid parameter '{0}'")]
    UnknownOption(String),
    #[error("Parameter '{name}' expects 'on' or 'off', not '{value}'")]
    NotOnOff { name: String, value: String },
    #[error("chardev: {kind}: no {what} given")]
    Missing {
        kind: &'static str,
        what: &'static str,
    },
    #[error("'{0}' is not a port number")]
    Port(String),
}

/// Names that QEMU knows and this program does not build.
const NOT_BUILT: &[&str] = &[
    "vc",
    "udp",
    "telnet",
    "websocket",
    "msmouse",
    "wctablet",
    "braille",
    "testdev",
    "pipe",
    "serial",
    "parallel",
    "console",
    "ringbuf",
    "spicevmc",
    "spiceport",
    "hub",
    "dbus",
];

impl SerialSpec {
    /// Reads the argument of `-serial`: `stdio`, `mon:stdio`, `file:PATH`, `unix:PATH,server=on,wait=off`,
    /// `tcp:HOST:PORT`, `pty`, `null`, `none`, `chardev:ID`.
    pub fn parse(text: &str) -> Result<SerialSpec, SpecError> {
        if let Some(rest) = text.strip_prefix("mon:") {
            return match SerialSpec::parse(rest)? {
                SerialSpec::Stdio { .. } => Ok(SerialSpec::Stdio {
                    mux: true,
                    signal: false,
                }),
                _ => Err(SpecError::NotBuilt(text.into())),
            };
        }
        let mut parts = text.split(',');
        let first = parts.next().unwrap_or_default();
        let (kind, rest) = first.split_once(':').unwrap_or((first, ""));
        let mut options = Options::default();
        for part in parts {
            options.set(part)?;
        }
        match kind {
            "stdio" | "null" | "none" | "pty" if !rest.is_empty() => {
                Err(SpecError::Unknown(text.into()))
            }
            "stdio" => options.stdio(),
            "none" => options.done(SerialSpec::None),
            "null" => options.done(SerialSpec::Null),
            "pty" => options.done(SerialSpec::Pty),
            "chardev" if rest.is_empty() => Err(SpecError::Missing {
                kind: "serial",
                what: "chardev",
            }),
            "chardev" => options.done(SerialSpec::Chardev(rest.into())),
            "file" => {
                options.path = Some(rest.into());
                options.file()
            }
            "unix" => {
                options.path = Some(rest.into());
                options.socket()
            }
            "tcp" => {
                let (host, port) = rest.rsplit_once(':').ok_or(SpecError::Missing {
                    kind: "tcp",
                    what: "port",
                })?;
                options.host = Some(host.into());
                options.port = Some(port.into());
                options.socket()
            }
            _ if NOT_BUILT.contains(&kind) || text.starts_with("/dev/") => {
                Err(SpecError::NotBuilt(text.into()))
            }
            _ => Err(SpecError::Unknown(text.into())),
        }
    }
}

/// Reads the argument of `-chardev`, such as `socket,id=s0,path=/run/s,server=on,wait=off`; returns the id too.
pub fn parse_chardev(text: &str) -> Result<(String, SerialSpec), SpecError> {
    let mut parts = text.split(',');
    let kind = parts.next().unwrap_or_default();
    let mut options = Options::default();
    let mut id = String::new();
    for part in parts {
        match part.split_once('=') {
            Some(("id", value)) => id = value.into(),
            Some(("path", value)) => options.path = Some(value.into()),
            Some(("host", value)) => options.host = Some(value.into()),
            Some(("port", value)) => options.port = Some(value.into()),
            _ => options.set(part)?,
        }
    }
    if id.is_empty() {
        return Err(SpecError::Missing {
            kind: "chardev",
            what: "id",
        });
    }
    let spec = match kind {
        "stdio" => options.stdio(),
        "null" => options.done(SerialSpec::Null),
        "pty" => options.done(SerialSpec::Pty),
        "file" => options.file(),
        "socket" => options.socket(),
        _ if NOT_BUILT.contains(&kind) => Err(SpecError::NotBuilt(kind.into())),
        _ => Err(SpecError::Unknown(kind.into())),
    }?;
    Ok((id, spec))
}

#[derive(Default)]
struct Options {
    path: Option<PathBuf>,
    host: Option<String>,
    port: Option<String>,
    server: Option<bool>,
    wait: Option<bool>,
    append: Option<bool>,
    mux: Option<bool>,
    signal: Option<bool>,
}

impl Options {
    fn set(&mut self, part: &str) -> Result<(), SpecError> {
        // Old forms: `server`, `nowait`.
        let (name, value) = match part.split_once('=') {
            Some(pair) => pair,
            None => part
                .strip_prefix("no")
                .filter(|name| *name == "wait")
                .map_or((part, "on"), |name| (name, "off")),
        };
        let on_off = || match value {
            "on" | "yes" | "true" | "y" => Ok(true),
            "off" | "no" | "false" | "n" => Ok(false),
            _ => Err(SpecError::NotOnOff {
                name: name.into(),
                value: value.into(),
            }),
        };
        let into = match name {
            "server" => &mut self.server,
            "wait" => &mut self.wait,
            "append" => &mut self.append,
            "mux" => &mut self.mux,
            "signal" => &mut self.signal,
            // What these say is so anyway.
            "nodelay" if on_off()? => return Ok(()),
            "telnet" | "websocket" | "nodelay" if !on_off()? => return Ok(()),
            "telnet" | "websocket" | "nodelay" | "reconnect" | "reconnect-ms" | "tls-creds"
            | "tls-authz" | "logfile" | "logappend" | "to" | "ipv4" | "ipv6" | "fd"
            | "abstract" | "tight" | "input-path" => {
                return Err(SpecError::OptionNotBuilt(name.into()));
            }
            _ => return Err(SpecError::UnknownOption(name.into())),
        };
        *into = Some(on_off()?);
        Ok(())
    }

    /// Refuses what was given and does not belong to `spec`.
    fn done(self, spec: SerialSpec) -> Result<SerialSpec, SpecError> {
        let stdio = matches!(spec, SerialSpec::Stdio { .. });
        let file = matches!(spec, SerialSpec::File { .. });
        let socket = matches!(spec, SerialSpec::Unix { .. } | SerialSpec::Tcp { .. });
        let tcp = matches!(spec, SerialSpec::Tcp { .. });
        let path = matches!(spec, SerialSpec::File { .. } | SerialSpec::Unix { .. });
        let given = [
            ("path", self.path.is_some(), path),
            ("host", self.host.is_some(), tcp),
            ("port", self.port.is_some(), tcp),
            ("server", self.server.is_some(), socket),
            ("wait", self.wait.is_some(), socket),
            ("append", self.append.is_some(), file),
            ("mux", self.mux == Some(true), stdio),
            ("signal", self.signal.is_some(), stdio),
        ];
        match given.iter().find(|(_, given, belongs)| *given && !belongs) {
            Some((name, ..)) => Err(SpecError::UnknownOption((*name).into())),
            None => Ok(spec),
        }
    }

    fn stdio(self) -> Result<SerialSpec, SpecError> {
        let mux = self.mux.unwrap_or(false);
        let signal = self.signal.unwrap_or(true);
        self.done(SerialSpec::Stdio { mux, signal })
    }

    fn file(self) -> Result<SerialSpec, SpecError> {
        let path = self
            .path
            .clone()
            .filter(|path| !path.as_os_str().is_empty());
        let path = path.ok_or(SpecError::Missing {
            kind: "file",
            what: "path",
        })?;
        let append = self.append.unwrap_or(false);
        self.done(SerialSpec::File { path, append })
    }

    fn socket(self) -> Result<SerialSpec, SpecError> {
        let server = self.server.unwrap_or(false);
        let wait = self.wait.unwrap_or(server);
        if self.wait.is_some() && !server {
            return Err(SpecError::UnknownOption("wait".into()));
        }
        let spec = match (&self.path, &self.port) {
            (Some(path), None) if !path.as_os_str().is_empty() => SerialSpec::Unix {
                path: path.clone(),
                server,
                wait,
            },
            (None, Some(port)) => {
                let number = port.parse().map_err(|_| SpecError::Port(port.clone()))?;
                let host = self.host.as_deref().unwrap_or_default();
                let host = host
                    .strip_prefix('[')
                    .and_then(|host| host.strip_suffix(']'))
                    .unwrap_or(host);
                SerialSpec::Tcp {
                    host: host.into(),
                    port: number,
                    server,
                    wait,
                }
            }
            (Some(_), Some(_)) => return Err(SpecError::UnknownOption("port".into())),
            _ => {
                return Err(SpecError::Missing {
                    kind: "socket",
                    what: "path or port",
                });
            }
        };
        self.done(spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn serial_arguments() {
        let good = |text| SerialSpec::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!(
            good("stdio"),
            SerialSpec::Stdio {
                mux: false,
                signal: true
            }
        );
        assert_eq!(
            good("mon:stdio"),
            SerialSpec::Stdio {
                mux: true,
                signal: false
            }
        );
        assert_eq!(good("none"), SerialSpec::None);
        assert_eq!(good("null"), SerialSpec::Null);
        assert_eq!(good("pty"), SerialSpec::Pty);
        assert_eq!(
            good("file:/tmp/a:b"),
            SerialSpec::File {
                path: "/tmp/a:b".into(),
                append: false
            }
        );
        let unix = |wait| SerialSpec::Unix {
            path: "/run/s".into(),
            server: true,
            wait,
        };
        assert_eq!(good("unix:/run/s,server=on,wait=off"), unix(false));
        assert_eq!(good("unix:/run/s,server,nowait"), unix(false));
        assert_eq!(good("unix:/run/s,server"), unix(true));
        let tcp = |host: &str, server| SerialSpec::Tcp {
            host: host.into(),
            port: 4444,
            server,
            wait: false,
        };
        assert_eq!(good("tcp:localhost:4444"), tcp("localhost", false));
        assert_eq!(good("tcp::4444,server=on,wait=off"), tcp("", true));
        assert_eq!(good("tcp:[::1]:4444"), tcp("::1", false));
        assert_eq!(good("chardev:s0"), SerialSpec::Chardev("s0".into()));
    }

    #[test]
    fn errors_name_the_culprit() {
        let error = |text| SerialSpec::parse(text).unwrap_err().to_string();
        assert_eq!(error("vc"), "serial back end 'vc' is not supported");
        assert_eq!(
            error("vc:80Cx24C"),
            "serial back end 'vc:80Cx24C' is not supported"
        );
        assert_eq!(
            error("/dev/ttyS0"),
            "serial back end '/dev/ttyS0' is not supported"
        );
        assert_eq!(error("frob"), "'frob' is not a valid char driver name");
        assert_eq!(error("tcp:host"), "chardev: tcp: no port given");
        assert_eq!(error("tcp:host:x"), "'x' is not a port number");
        assert_eq!(error("unix:"), "chardev: socket: no path or port given");
        assert_eq!(error("file:"), "chardev: file: no path given");
        assert_eq!(
            error("unix:/s,telnet=on"),
            "serial option 'telnet' is not supported"
        );
        assert_eq!(
            error("unix:/s,server=maybe"),
            "Parameter 'server' expects 'on' or 'off', not 'maybe'"
        );
        assert_eq!(error("stdio,server=on"), "Invalid parameter 'server'");
        assert_eq!(error("null,frob=1"), "Invalid parameter 'frob'");
        assert_eq!(error("unix:/s,wait=off"), "Invalid parameter 'wait'");
    }

    #[test]
    fn chardev_arguments() {
        let (id, spec) =
            parse_chardev("socket,id=s0,host=127.0.0.1,port=5,server=on,wait=off").unwrap();
        let tcp = SerialSpec::Tcp {
            host: "127.0.0.1".into(),
            port: 5,
            server: true,
            wait: false,
        };
        assert_eq!((id.as_str(), spec), ("s0", tcp));
        let (_, stdio) = parse_chardev("stdio,id=c,mux=on,signal=off").unwrap();
        assert_eq!(
            stdio,
            SerialSpec::Stdio {
                mux: true,
                signal: false
            }
        );
        let (_, file) = parse_chardev("file,id=c,path=x,append=on").unwrap();
        assert_eq!(
            file,
            SerialSpec::File {
                path: "x".into(),
                append: true
            }
        );
        assert!(parse_chardev("stdio").is_err());
        assert!(
            parse_chardev("ringbuf,id=r")
                .unwrap_err()
                .to_string()
                .contains("ringbuf")
        );
        assert!(parse_chardev("null,id=n,path=/x").is_err());
    }

    proptest! {
        #[test]
        fn any_text(text in "[a-z:,=/0-9]{0,40}") {
            let _ = SerialSpec::parse(&text);
            let _ = parse_chardev(&text);
        }
    }
}
