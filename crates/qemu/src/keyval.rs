//! Option strings: `key=value,key=value`, with `,,` for a comma in a value and a first key that may be left out.

/// The parts of one option string, in order; a later value of a key takes the place of an earlier one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct KeyValues {
    entries: Vec<(String, String)>,
    taken: Vec<bool>,
}

/// What is wrong with an option string or a value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    #[error("Invalid parameter '{0}'")]
    UnknownKey(String),
    #[error("Parameter '{0}' is missing")]
    Missing(&'static str),
    #[error("Parameter '{0}' expects 'on' or 'off'")]
    Bool(String),
    #[error("Parameter '{0}' expects a number")]
    Number(String),
    #[error(
        "Parameter '{0}' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, mega-, giga-, tera-, peta-\nand exabytes, respectively."
    )]
    Size(String),
}

impl KeyValues {
    /// Splits `text`. A first part without `=` is the value of `implied`; others without `=` are switches (`key` is on, `nokey` off).
    pub fn parse(text: &str, implied: Option<&str>) -> KeyValues {
        let mut parts = vec![String::new()];
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                ',' if chars.peek() == Some(&',') => {
                    chars.next();
                    if let Some(last) = parts.last_mut() {
                        last.push(',');
                    }
                }
                ',' => parts.push(String::new()),
                c => {
                    if let Some(last) = parts.last_mut() {
                        last.push(c);
                    }
                }
            }
        }
        let mut entries = Vec::new();
        for (i, part) in parts.into_iter().enumerate() {
            let entry = match part.split_once('=') {
                Some((key, value)) => (key.to_string(), value.to_string()),
                None if part.is_empty() => continue,
                None => match (i, implied) {
                    (0, Some(key)) => (key.to_string(), part),
                    _ => match part.strip_prefix("no") {
                        Some(key) if !key.is_empty() && !KEEPS_NO.contains(&part.as_str()) => {
                            (key.to_string(), "off".to_string())
                        }
                        _ => (part, "on".to_string()),
                    },
                },
            };
            entries.push(entry);
        }
        let taken = vec![false; entries.len()];
        KeyValues { entries, taken }
    }

    /// All entries, in order.
    pub fn entries(&self) -> &[(String, String)] {
        &self.entries
    }

    /// Takes the value of `key`.
    pub fn take(&mut self, key: &str) -> Option<String> {
        let mut found = None;
        for ((name, value), taken) in self.entries.iter().zip(&mut self.taken) {
            if name == key {
                *taken = true;
                found = Some(value.clone());
            }
        }
        found
    }

    /// Takes all values of a key that may be given several times.
    pub fn take_all(&mut self, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        for ((name, value), taken) in self.entries.iter().zip(&mut self.taken) {
            if name == key {
                *taken = true;
                found.push(value.clone());
            }
        }
        found
    }

    /// Takes an `on`/`off` value.
    pub fn take_bool(&mut self, key: &str) -> Result<Option<bool>, ValueError> {
        self.take(key).map(|v| parse_bool(key, &v)).transpose()
    }

    /// Takes a number, decimal or `0x`.
    pub fn take_number(&mut self, key: &str) -> Result<Option<u64>, ValueError> {
        self.take(key).map(|v| parse_number(key, &v)).transpose()
    }

    /// Takes a size: bytes with an optional suffix.
    pub fn take_size(&mut self, key: &str) -> Result<Option<u64>, ValueError> {
        self.take(key).map(|v| parse_size(key, &v, 1)).transpose()
    }

    /// The entries nobody took.
    pub fn rest(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries
            .iter()
            .zip(&self.taken)
            .filter(|(_, taken)| !**taken)
            .map(|((k, v), _)| (k.as_str(), v.as_str()))
    }

    /// An error if an entry is left.
    pub fn finish(&self) -> Result<(), ValueError> {
        match self.rest().next() {
            Some((key, _)) => Err(ValueError::UnknownKey(key.to_string())),
            None => Ok(()),
        }
    }
}

/// Switches whose names begin with `no` by themselves.
const KEEPS_NO: [&str; 3] = ["none", "nodelay", "node-name"];

/// `on`, `yes`, `true`, `y` or `off`, `no`, `false`, `n`.
pub fn parse_bool(key: &str, value: &str) -> Result<bool, ValueError> {
    match value {
        "on" | "yes" | "true" | "y" => Ok(true),
        "off" | "no" | "false" | "n" => Ok(false),
        _ => Err(ValueError::Bool(key.to_string())),
    }
}

/// A number, decimal or `0x`.
pub fn parse_number(key: &str, value: &str) -> Result<u64, ValueError> {
    let parsed = match value
        .strip_prefix("0x")
        .or_else(|| value.strip_prefix("0X"))
    {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| ValueError::Number(key.to_string()))
}

/// A size in bytes: a number, possibly fractional, with a suffix B, k, M, G, T, P or E; without one, in units of `unit`.
pub fn parse_size(key: &str, value: &str, unit: u64) -> Result<u64, ValueError> {
    let error = || ValueError::Size(key.to_string());
    if value.starts_with("0x") || value.starts_with("0X") {
        return parse_number(key, value)
            .ok()
            .and_then(|n| n.checked_mul(unit))
            .ok_or_else(error);
    }
    let digits = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let (number, suffix) = value.split_at(digits);
    let unit = match suffix {
        "" => unit,
        "b" | "B" => 1,
        "k" | "K" => 1 << 10,
        "m" | "M" => 1 << 20,
        "g" | "G" => 1 << 30,
        "t" | "T" => 1 << 40,
        "p" | "P" => 1 << 50,
        "e" | "E" => 1 << 60,
        _ => return Err(error()),
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || (fraction.is_empty() && number.contains('.')) {
        return Err(error());
    }
    let whole = whole
        .parse::<u64>()
        .ok()
        .and_then(|n| n.checked_mul(unit))
        .ok_or_else(error)?;
    let mut part = 0u64;
    let mut scale = 1u64;
    for digit in fraction.bytes().take(9) {
        part = part * 10 + u64::from(digit.wrapping_sub(b'0'));
        scale *= 10;
    }
    let part = (u128::from(part) * u128::from(unit) / u128::from(scale)) as u64;
    whole.checked_add(part).ok_or_else(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_implied_keys_and_switches() {
        let mut options =
            KeyValues::parse("virt,acpi=off,file=a,,b.img,nowait,server", Some("type"));
        assert_eq!(options.take("type").as_deref(), Some("virt"));
        assert_eq!(options.take_bool("acpi"), Ok(Some(false)));
        assert_eq!(options.take("file").as_deref(), Some("a,b.img"));
        assert_eq!(options.take_bool("wait"), Ok(Some(false)));
        assert_eq!(
            options.finish(),
            Err(ValueError::UnknownKey("server".into()))
        );
        assert_eq!(options.take_bool("server"), Ok(Some(true)));
        assert_eq!(options.finish(), Ok(()));
    }

    #[test]
    fn the_last_value_counts() {
        let mut options = KeyValues::parse("a=1,a=0x10", None);
        assert_eq!(options.take_number("a"), Ok(Some(16)));
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("size", "4G", 1 << 20), Ok(4 << 30));
        assert_eq!(parse_size("size", "512", 1 << 20), Ok(512 << 20));
        assert_eq!(parse_size("size", "1.5k", 1), Ok(1536));
        assert_eq!(parse_size("size", "0x10", 1), Ok(16));
        for bad in ["", "foo", "1x", "-1", "99999999999E", "1.", ".5"] {
            assert!(parse_size("size", bad, 1).is_err(), "{bad}");
        }
    }
}
