//! What `-display web` takes.

/// `-display web`'s arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebOptions {
    /// Address or name to listen on.
    pub host: String,
    /// 0: a free one.
    pub port: u16,
    /// Names of this host, beside its addresses and `localhost`, that browsers may know it by.
    pub names: Vec<String>,
}

/// An argument that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    #[error("web: '{0}' is not HOST:PORT")]
    Address(String),
    #[error("Invalid parameter '{0}'")]
    Unknown(String),
}

impl Default for WebOptions {
    fn default() -> Self {
        WebOptions {
            host: "127.0.0.1".into(),
            port: 0,
            names: Vec::new(),
        }
    }
}

impl WebOptions {
    /// Reads what follows `web`: nothing, `=HOST:PORT`, `=:PORT`, `=PORT`, and `,name=NAME` for a name of this host that
    /// browsers use, once for each. Without a host it is loopback.
    pub fn parse(text: &str) -> Result<WebOptions, OptionError> {
        let mut options = WebOptions::default();
        let mut parts = text.split(',');
        let address = parts.next().unwrap_or_default();
        if let Some(address) = address.strip_prefix('=') {
            let wrong = || OptionError::Address(address.into());
            let (host, port) = match address.rsplit_once(':') {
                Some(("", port)) => (None, port),
                Some((host, port)) => (Some(host), port),
                None => (None, address),
            };
            if let Some(host) = host {
                let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
                if bare.is_none() && host.contains(':') {
                    return Err(wrong());
                }
                options.host = bare.unwrap_or(host).into();
            }
            options.port = port.parse().map_err(|_| wrong())?;
        } else if !address.is_empty() {
            return Err(OptionError::Unknown(address.into()));
        }
        for part in parts {
            match part.split_once('=') {
                Some(("name", name)) if !name.is_empty() => {
                    options.names.push(name.to_ascii_lowercase());
                }
                _ => return Err(OptionError::Unknown(part.into())),
            }
        }
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names() {
        let parse = |text| {
            let options = WebOptions::parse(text).unwrap();
            (options.host, options.port)
        };
        let local = |port| ("127.0.0.1".to_string(), port);
        assert_eq!(parse(""), local(0));
        assert_eq!(parse("=8080"), local(8080));
        assert_eq!(parse("=:8080"), local(8080));
        assert_eq!(parse("=0.0.0.0:1"), ("0.0.0.0".into(), 1));
        assert_eq!(parse("=[::1]:0"), ("::1".into(), 0));
        let named = WebOptions::parse("=:1,name=Vm.lan,name=vm").unwrap();
        assert_eq!(named.names, ["vm.lan", "vm"]);
        for text in [
            "=", "=x", "=a:b", "=::1:80", "=:65536", "x", ",name", ",foo=1",
        ] {
            assert!(WebOptions::parse(text).is_err(), "{text}");
        }
    }
}
