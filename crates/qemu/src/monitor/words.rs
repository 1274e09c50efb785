//! A line's words, and the arguments that a command makes of them.

use serde_json::{Map, Value};

use super::{Answer, Monitor};

/// A command: its names, what it takes, what it does.
pub struct Command {
    /// The name, and a shorter one if there is: `stop|s`.
    pub names: &'static str,
    /// What it takes, for people.
    pub usage: &'static str,
    /// What it does, for people.
    pub purpose: &'static str,
    pub parameters: &'static [Parameter],
    pub run: Run,
}

/// How a command is done.
pub enum Run {
    /// By the QMP command of that name, to which the parameters' names are known.
    Qmp(&'static str),
    Here(fn(&mut Monitor, &Value) -> Answer),
    /// Tells of commands.
    Help,
    /// Has commands of its own.
    Info,
}

/// One argument.
pub struct Parameter {
    /// Its name in the object that a command gets.
    pub name: &'static str,
    pub kind: Kind,
    pub required: bool,
}

/// What an argument looks like.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// Any word. With it, what is said of one that is missing.
    Word(&'static str),
    /// A whole number, decimal or `0x`.
    Number,
    OnOff,
    /// `-c`, anywhere.
    Switch(char),
    /// `-c WORD`, anywhere.
    Choice(char),
}

/// A word that has to be there.
pub const fn word(name: &'static str, missing: &'static str) -> Parameter {
    Parameter {
        name,
        kind: Kind::Word(missing),
        required: true,
    }
}

/// One that may be.
pub const fn maybe(name: &'static str, kind: Kind) -> Parameter {
    Parameter {
        name,
        kind,
        required: false,
    }
}

/// A number, or `on` or `off`, that has to be there.
pub const fn needed(name: &'static str, kind: Kind) -> Parameter {
    Parameter {
        name,
        kind,
        required: true,
    }
}

impl Command {
    /// A row of a table of commands.
    pub const fn new(
        names: &'static str,
        usage: &'static str,
        purpose: &'static str,
        parameters: &'static [Parameter],
        run: Run,
    ) -> Command {
        Command {
            names,
            usage,
            purpose,
            parameters,
            run,
        }
    }

    /// The command of that name among `commands`.
    pub fn find<'a>(commands: &'a [Command], name: &str) -> Option<&'a Command> {
        commands
            .iter()
            .find(|c| c.names.split('|').any(|n| n == name))
    }

    /// The first of its names.
    pub fn name(&self) -> &'static str {
        self.names.split('|').next().unwrap_or_default()
    }

    /// Its line in a list.
    pub fn help(&self) -> String {
        format!("{} {} -- {}", self.names, self.usage, self.purpose)
    }

    /// The object that the command gets, of the text after its name.
    ///
    /// # Errors
    /// What is wrong, without a new line.
    pub fn arguments(&self, text: &str) -> Result<Value, String> {
        let mut given = Map::new();
        let mut words = split(text).map_err(|what| format!("{}: {what}", self.names))?;
        words.reverse();
        let mut places = self.parameters.iter().filter(|p| !p.is_option());
        let mut next = places.next();
        while let Some((word, quoted)) = words.pop() {
            if let Some(letter) = self.option(&word, quoted) {
                let option = self.parameters.iter().find(|p| match p.kind {
                    Kind::Switch(c) | Kind::Choice(c) => c == letter,
                    _ => false,
                });
                let unsupported = || format!("{}: unsupported option -{letter}", self.names);
                let option = option.ok_or_else(unsupported)?;
                let value = match option.kind {
                    Kind::Switch(_) => Value::Bool(true),
                    _ => match words.pop() {
                        Some((word, _)) => word.into(),
                        None => return Err(format!("{}: string expected", self.names)),
                    },
                };
                given.insert(option.name.into(), value);
                continue;
            }
            let Some(parameter) = next else {
                return Err(format!(
                    "{}: extraneous characters at the end of line",
                    self.names
                ));
            };
            let value = match parameter.kind {
                Kind::Number => number(&word)?.into(),
                Kind::OnOff => on_off(&word)?.into(),
                _ => word.into(),
            };
            given.insert(parameter.name.into(), value);
            next = places.next();
        }
        match next {
            Some(missing) if missing.required => Err(match missing.kind {
                Kind::Word(what) => format!("{}: {what}", self.names),
                Kind::OnOff => EXPECTED.into(),
                _ => "unexpected end of expression".into(),
            }),
            _ => Ok(Value::Object(given)),
        }
    }

    /// The letter of an option, if the word is one and the command has any.
    fn option(&self, word: &str, quoted: bool) -> Option<char> {
        let letter = word.strip_prefix('-')?.chars().next()?;
        let any = self.parameters.iter().any(Parameter::is_option);
        (any && !quoted && !letter.is_ascii_digit()).then_some(letter)
    }
}

impl Parameter {
    fn is_option(&self) -> bool {
        matches!(self.kind, Kind::Switch(_) | Kind::Choice(_))
    }
}

/// Splits at spaces; words in quotes may have some, and `\n`, `\r`, `\\`, `\'` and `\"`. Says of each whether it was quoted.
fn split(text: &str) -> Result<Vec<(String, bool)>, String> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let mut word = String::new();
        match chars.peek() {
            None => return Ok(words),
            Some('"') => {
                chars.next();
                loop {
                    match chars.next() {
                        None => return Err("unterminated string".into()),
                        Some('"') => break,
                        Some('\\') => match chars.next() {
                            Some('n') => word.push('\n'),
                            Some('r') => word.push('\r'),
                            Some(c @ ('\\' | '\'' | '"')) => word.push(c),
                            Some(c) => return Err(format!("unsupported escape code: '\\{c}'")),
                            None => return Err("unterminated string".into()),
                        },
                        Some(c) => word.push(c),
                    }
                }
                words.push((word, true));
            }
            Some(_) => {
                while let Some(c) = chars.next_if(|c| !c.is_whitespace()) {
                    word.push(c);
                }
                words.push((word, false));
            }
        }
    }
}

fn number(word: &str) -> Result<i64, String> {
    let (negative, digits) = match word.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, word),
    };
    let value = match digits.strip_prefix("0x") {
        Some(digits) => i64::from_str_radix(digits, 16),
        None => digits.parse(),
    };
    // A sign of its own is no digit.
    match value {
        Ok(value) if !digits.starts_with(['+', '-']) && value >= 0 => {
            Ok(if negative { -value } else { value })
        }
        _ => {
            let wrong = digits.chars().find(|c| !c.is_ascii_digit());
            Err(match wrong {
                Some(c) => format!("invalid char '{c}' in expression"),
                None => "the number is out of range".into(),
            })
        }
    }
}

const EXPECTED: &str = "Expected 'on' or 'off'";

fn on_off(word: &str) -> Result<bool, String> {
    match word {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(EXPECTED.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    const SHOT: Command = Command {
        names: "shot|p",
        usage: "",
        purpose: "",
        parameters: &[
            word("file", "filename expected"),
            maybe("format", Kind::Choice('f')),
            maybe("all", Kind::Switch('a')),
            maybe("head", Kind::Number),
            maybe("up", Kind::OnOff),
        ],
        run: Run::Help,
    };

    #[test]
    fn arguments_by_place_and_by_letter() {
        let good = |text| SHOT.arguments(text).unwrap();
        assert_eq!(good(" x "), json!({ "file": "x" }));
        assert_eq!(
            good("\"a \\\"b\\n\" -f png 0x10 -a off"),
            json!({ "file": "a \"b\n", "format": "png", "head": 16, "all": true, "up": false })
        );
        assert_eq!(
            good("-f png x -3"),
            json!({ "file": "x", "format": "png", "head": -3 })
        );
        assert_eq!(good("\"-x\""), json!({ "file": "-x" }));
        assert_eq!(good("-"), json!({ "file": "-" }));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let bad = |text| SHOT.arguments(text).unwrap_err();
        assert_eq!(bad(""), "shot|p: filename expected");
        assert_eq!(bad("x -y"), "shot|p: unsupported option -y");
        assert_eq!(bad("x -f"), "shot|p: string expected");
        assert_eq!(bad("x 5y"), "invalid char 'y' in expression");
        assert_eq!(bad("x 99999999999999999999"), "the number is out of range");
        assert_eq!(bad("x 1 maybe"), "Expected 'on' or 'off'");
        assert_eq!(
            bad("x 1 on y"),
            "shot|p: extraneous characters at the end of line"
        );
        assert_eq!(bad("\"x"), "shot|p: unterminated string");
        assert_eq!(bad("\"x\\q\""), "shot|p: unsupported escape code: '\\q'");
    }

    proptest! {
        #[test]
        fn any_text(text in "[-a-z0-9 \"\\\\+x]{0,40}") {
            let _ = SHOT.arguments(&text);
        }

        #[test]
        fn any_characters(text in "\\PC{0,40}") {
            let _ = SHOT.arguments(&text);
        }
    }
}
