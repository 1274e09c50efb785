//! A QMP client.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::screen::Picture;

/// A connection past its negotiation.
pub struct Qmp {
    reader: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Qmp {
    /// Connects to a Unix socket.
    pub fn connect(path: &Path) -> Result<Qmp> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let mut qmp = Qmp {
            reader: BufReader::new(stream),
            events: Vec::new(),
        };
        qmp.line()?.get("QMP").context("no greeting")?;
        qmp.call("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    fn line(&mut self) -> Result<Value> {
        let mut line = String::new();
        if self.reader.read_line(&mut line)? == 0 {
            bail!("QMP: the machine hung up");
        }
        Ok(serde_json::from_str(&line)?)
    }

    /// Runs a command; events that come before its answer are kept.
    pub fn call(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.reader.get_mut(), "{request}")?;
        loop {
            let mut message = self.line()?;
            if message.get("event").is_some() {
                self.events.push(message);
            } else if let Some(error) = message.get("error") {
                bail!(
                    "{command}: {}",
                    error["desc"].as_str().unwrap_or("an error")
                );
            } else {
                return Ok(message["return"].take());
            }
        }
    }

    /// Waits for an event of that name, among those kept too.
    pub fn event(&mut self, name: &str, patience: Duration) -> Result<Value> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(at) = self.events.iter().position(|e| e["event"] == name) {
                return Ok(self.events.remove(at));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("no {name} event came");
            }
            self.reader.get_ref().set_read_timeout(Some(left))?;
            let message = self.line();
            self.reader
                .get_ref()
                .set_read_timeout(Some(Duration::from_secs(60)))?;
            self.events.push(message?);
        }
    }

    /// The screen, as a picture.
    pub fn screen(&mut self, folder: &Path) -> Result<Picture> {
        let path = folder.join("screen.png");
        self.call(
            "screendump",
            json!({ "filename": path.to_string_lossy(), "format": "png" }),
        )?;
        Picture::read(&path)
    }

    /// Presses and releases keys, by QEMU's names, one combination after the other: `"down down ret"`, `"ctrl-alt-delete"`.
    pub fn keys(&mut self, combinations: &str) -> Result<()> {
        for combination in combinations.split_whitespace() {
            let keys: Vec<_> = combination
                .split('-')
                .map(|key| json!({ "type": "qcode", "data": key }))
                .collect();
            self.call("send-key", json!({ "keys": keys, "hold-time": 60 }))?;
            std::thread::sleep(Duration::from_millis(120));
        }
        Ok(())
    }

    /// Types text on an American keyboard.
    pub fn text(&mut self, text: &str) -> Result<()> {
        for character in text.chars() {
            let (shift, key) =
                key_of(character).with_context(|| format!("no key is '{character}'"))?;
            let mut keys = Vec::new();
            if shift {
                keys.push(json!({ "type": "qcode", "data": "shift" }));
            }
            keys.push(json!({ "type": "qcode", "data": key }));
            self.call("send-key", json!({ "keys": keys, "hold-time": 20 }))?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }
}

/// Whether shift is pressed, and QEMU's name of the key.
fn key_of(character: char) -> Option<(bool, String)> {
    const PLAIN: &[(char, &str)] = &[
        (' ', "spc"),
        ('/', "slash"),
        ('-', "minus"),
        ('.', "dot"),
        (',', "comma"),
        (';', "semicolon"),
        ('=', "equal"),
        ('\n', "ret"),
    ];
    const SHIFTED: &[(char, &str)] = &[
        ('>', "dot"),
        ('<', "comma"),
        (':', "semicolon"),
        ('|', "backslash"),
        ('"', "apostrophe"),
        ('_', "minus"),
        ('$', "4"),
        ('&', "7"),
        ('*', "8"),
        ('(', "9"),
        (')', "0"),
    ];
    let find = |table: &[(char, &str)]| {
        let (_, key) = table.iter().find(|(c, _)| *c == character)?;
        Some(key.to_string())
    };
    match character {
        'a'..='z' | '0'..='9' => Some((false, character.into())),
        'A'..='Z' => Some((true, character.to_ascii_lowercase().into())),
        _ => find(PLAIN)
            .map(|key| (false, key))
            .or_else(|| find(SHIFTED).map(|key| (true, key))),
    }
}
