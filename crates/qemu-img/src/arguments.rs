//! Options as GNU's `getopt_long` takes them: anywhere on the line, grouped, abbreviated, until `--`.

/// An option that a verb knows.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    short: Option<char>,
    long: &'static str,
    value: bool,
}

/// An option without a value.
pub const fn switch(short: char, long: &'static str) -> Flag {
    Flag {
        short: Some(short),
        long,
        value: false,
    }
}

/// An option with a value.
pub const fn value(short: char, long: &'static str) -> Flag {
    Flag {
        short: Some(short),
        long,
        value: true,
    }
}

/// A switch without a letter.
pub const fn long_switch(long: &'static str) -> Flag {
    Flag {
        short: None,
        long,
        value: false,
    }
}

/// An option with a value, without a letter.
pub const fn long_value(long: &'static str) -> Flag {
    Flag {
        short: None,
        long,
        value: true,
    }
}

/// A parsed command line.
#[derive(Debug, Default)]
pub struct Arguments {
    options: Vec<(&'static str, String)>,
    /// What is no option, in order.
    pub names: Vec<String>,
}

impl Arguments {
    /// An error is in the words of `getopt_long`.
    pub fn parse(flags: &[Flag], words: &[String]) -> Result<Arguments, String> {
        let mut parsed = Arguments::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            if word == "--" {
                parsed.names.extend(words.cloned());
                break;
            }
            if let Some(long) = word.strip_prefix("--") {
                let (name, given) = match long.split_once('=') {
                    Some((name, given)) => (name, Some(given.to_string())),
                    None => (long, None),
                };
                let flag = find_long(flags, name)?;
                let given = match (flag.value, given) {
                    (true, None) => words
                        .next()
                        .cloned()
                        .ok_or_else(|| format!("option '--{}' requires an argument", flag.long))?,
                    (false, Some(_)) => {
                        return Err(format!(
                            "option '--{}' doesn't allow an argument",
                            flag.long
                        ));
                    }
                    (_, given) => given.unwrap_or_default(),
                };
                parsed.options.push((flag.long, given));
            } else if word.len() > 1 && word.starts_with('-') {
                let letters = word[1..].char_indices();
                for (at, letter) in letters {
                    let flag = flags
                        .iter()
                        .find(|flag| flag.short == Some(letter))
                        .ok_or_else(|| format!("invalid option -- '{letter}'"))?;
                    if !flag.value {
                        parsed.options.push((flag.long, String::new()));
                        continue;
                    }
                    let rest = &word[1 + at + letter.len_utf8()..];
                    let given = if rest.is_empty() {
                        words
                            .next()
                            .cloned()
                            .ok_or_else(|| format!("option requires an argument -- '{letter}'"))?
                    } else {
                        rest.to_string()
                    };
                    parsed.options.push((flag.long, given));
                    break;
                }
            } else {
                parsed.names.push(word.clone());
            }
        }
        Ok(parsed)
    }

    pub fn has(&self, long: &str) -> bool {
        self.options.iter().any(|(name, _)| *name == long)
    }

    /// The value that was given last.
    pub fn get(&self, long: &str) -> Option<&str> {
        let found = self.options.iter().rfind(|(name, _)| *name == long)?;
        Some(&found.1)
    }

    pub fn all<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        self.options
            .iter()
            .filter(move |(name, _)| *name == long)
            .map(|(_, value)| value.as_str())
    }

    /// Those of the options that were given which are among `longs`, in order.
    pub fn given(&self, longs: &[&str]) -> Vec<(&'static str, &str)> {
        self.options
            .iter()
            .filter(|(name, _)| longs.contains(name))
            .map(|(name, value)| (*name, value.as_str()))
            .collect()
    }
}

fn find_long(flags: &[Flag], name: &str) -> Result<Flag, String> {
    if let Some(flag) = flags.iter().find(|flag| flag.long == name) {
        return Ok(*flag);
    }
    let mut found = flags.iter().filter(|flag| flag.long.starts_with(name));
    match (found.next(), found.next()) {
        (Some(flag), None) if !name.is_empty() => Ok(*flag),
        (Some(_), Some(_)) => Err(format!("option '--{name}' is ambiguous")),
        _ => Err(format!("unrecognized option '--{name}'")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLAGS: &[Flag] = &[
        switch('q', "quiet"),
        value('f', "format"),
        value('o', "options"),
        long_switch("shrink"),
    ];

    fn parse(line: &str) -> Result<Arguments, String> {
        let words: Vec<String> = line.split(' ').map(String::from).collect();
        Arguments::parse(FLAGS, &words)
    }

    #[test]
    fn options_are_found_anywhere() {
        let parsed = parse("a -qf raw b --shrink -ofoo --opt=bar -- -1 --quiet").unwrap();
        assert_eq!(parsed.names, ["a", "b", "-1", "--quiet"]);
        assert!(parsed.has("quiet") && parsed.has("shrink"));
        assert_eq!(parsed.get("format"), Some("raw"));
        assert_eq!(parsed.all("options").collect::<Vec<_>>(), ["foo", "bar"]);
    }

    #[test]
    fn errors_are_getopts() {
        assert_eq!(parse("-Z").unwrap_err(), "invalid option -- 'Z'");
        assert_eq!(
            parse("-f").unwrap_err(),
            "option requires an argument -- 'f'"
        );
        assert_eq!(parse("--foo").unwrap_err(), "unrecognized option '--foo'");
        assert_eq!(
            parse("--format").unwrap_err(),
            "option '--format' requires an argument"
        );
        assert_eq!(
            parse("--quiet=1").unwrap_err(),
            "option '--quiet' doesn't allow an argument"
        );
    }
}
