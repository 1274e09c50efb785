//! INF files ("INF File Sections and Directives", Microsoft).

use std::collections::HashMap;

use serde::Serialize;

/// Devices of one INF; the largest of Windows' own name a few thousand.
const MODELS: usize = 1 << 16;
/// Characters of a text whose tokens are replaced ("INF files have strings of 4096 characters at most").
const TEXT: usize = 4096;

/// An INF as sections of lines.
pub struct Inf {
    /// By lower-case name; sections of one name are one section.
    sections: HashMap<String, Vec<Line>>,
    strings: HashMap<String, String>,
}

/// `key = value, value …`, or values alone.
struct Line {
    key: Option<String>,
    values: Vec<String>,
}

/// A device that an INF names.
#[derive(Clone, Debug, Serialize)]
pub struct Model {
    pub description: String,
    /// Its hardware identifier, such as `PCI\VEN_1AF4&DEV_1001`.
    pub id: String,
    /// The decoration of its section: `NTarm64.10.0…16299`; empty for x86 of long ago.
    pub target: String,
}

impl Model {
    /// Whether the section is for a processor: decorations without one are for all.
    pub fn is_for(&self, architecture: &str) -> bool {
        let target = self.target.to_ascii_lowercase();
        let Some(rest) = target.strip_prefix("nt") else {
            return architecture.eq_ignore_ascii_case("x86");
        };
        let processor = rest.split('.').next().unwrap_or_default();
        let wanted = match architecture.to_ascii_lowercase().as_str() {
            "x64" => "amd64".to_string(),
            other => other.to_string(),
        };
        processor.is_empty() || processor == wanted
    }
}

impl Inf {
    /// Reads the file: UTF-16 or UTF-8 with their marks, else what Windows calls ANSI. What is no line of an INF is passed over.
    pub fn parse(bytes: &[u8]) -> Inf {
        let text = match encoding_rs::Encoding::for_bom(bytes) {
            Some((encoding, mark)) => encoding.decode_without_bom_handling(&bytes[mark..]).0,
            None => {
                encoding_rs::WINDOWS_1252
                    .decode_without_bom_handling(bytes)
                    .0
            }
        };
        let mut inf = Inf {
            sections: HashMap::new(),
            strings: HashMap::new(),
        };
        let mut section = String::new();
        let mut pending = String::new();
        for line in text.lines() {
            let line = without_comment(line).trim();
            if let Some(part) = line.strip_suffix('\\') {
                pending.push_str(part);
                continue;
            }
            let whole = std::mem::take(&mut pending) + line;
            let whole = whole.trim();
            if let Some(name) = whole.strip_prefix('[').and_then(|l| l.split(']').next()) {
                section = name.trim().to_lowercase();
            } else if !whole.is_empty() {
                let line = Line::parse(whole);
                if section == "strings"
                    && let (Some(key), Some(value)) = (&line.key, line.values.first())
                {
                    inf.strings.insert(key.to_lowercase(), value.clone());
                }
                inf.sections.entry(section.clone()).or_default().push(line);
            }
        }
        inf
    }

    fn lines(&self, section: &str) -> &[Line] {
        self.sections
            .get(&section.to_lowercase())
            .map_or(&[], Vec::as_slice)
    }

    /// The text with its `%tokens%` replaced.
    fn text(&self, text: &str) -> String {
        let mut out = String::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('%') {
            out.push_str(before);
            let Some((token, tail)) = after.split_once('%') else {
                out.push('%');
                rest = after;
                break;
            };
            match self.strings.get(&token.to_lowercase()) {
                _ if token.is_empty() => out.push('%'),
                Some(value) => out.push_str(value),
                None => {
                    out.push('%');
                    out.push_str(token);
                    out.push('%');
                }
            }
            rest = tail;
            if out.len() > TEXT {
                rest = "";
            }
        }
        out.push_str(rest);
        if let Some((at, _)) = out.char_indices().nth(TEXT) {
            out.truncate(at);
        }
        out
    }

    /// The first value of an entry of `[Version]`.
    pub fn version(&self, key: &str) -> Option<String> {
        self.version_values(key)?.first().map(|v| self.text(v))
    }

    fn version_values(&self, key: &str) -> Option<&[String]> {
        self.lines("version")
            .iter()
            .find(|line| {
                line.key
                    .as_deref()
                    .is_some_and(|k| k.eq_ignore_ascii_case(key))
            })
            .map(|line| line.values.as_slice())
    }

    /// `DriverVer`: date and version.
    pub fn driver_version(&self) -> Option<(String, String)> {
        let values = self.version_values("DriverVer")?;
        Some((self.text(values.first()?), self.text(values.get(1)?)))
    }

    /// `CatalogFile`, or its variant for 64-bit Arm, or for NT.
    pub fn catalog(&self) -> Option<String> {
        ["CatalogFile.NTarm64", "CatalogFile", "CatalogFile.NT"]
            .iter()
            .find_map(|key| self.version(key))
    }

    /// All devices, [`MODELS`] at most.
    pub fn models(&self) -> Vec<Model> {
        let mut models = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for maker in self.lines("manufacturer") {
            let Some(base) = maker.values.first() else {
                continue;
            };
            let base = self.text(base);
            let mut targets = vec![String::new()];
            targets.extend(maker.values[1..].iter().map(|t| self.text(t)));
            for target in targets {
                let section = if target.is_empty() {
                    base.clone()
                } else {
                    format!("{base}.{target}")
                };
                if !seen.insert(section.to_lowercase()) {
                    continue;
                }
                for line in self.lines(&section) {
                    // The install section first, then identifiers.
                    for id in line.values.iter().skip(1).filter(|id| !id.is_empty()) {
                        if models.len() >= MODELS {
                            return models;
                        }
                        models.push(Model {
                            description: self.text(line.key.as_deref().unwrap_or_default()),
                            id: self.text(id),
                            target: target.clone(),
                        });
                    }
                }
            }
        }
        models
    }
}

/// Up to a semicolon outside of quotes.
fn without_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ';' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

impl Line {
    fn parse(line: &str) -> Line {
        let (key, values) = match split(line, '=') {
            Some((key, values)) => (Some(unquoted(key)), values),
            None => (None, line),
        };
        let mut list = Vec::new();
        let mut rest = values;
        while let Some((value, tail)) = split(rest, ',') {
            list.push(unquoted(value));
            rest = tail;
        }
        list.push(unquoted(rest));
        Line { key, values: list }
    }
}

/// Splits at the first `at` outside of quotes.
fn split(text: &str, at: char) -> Option<(&str, &str)> {
    let mut quoted = false;
    for (index, c) in text.char_indices() {
        if c == '"' {
            quoted = !quoted;
        } else if c == at && !quoted {
            return Some((&text[..index], &text[index + c.len_utf8()..]));
        }
    }
    None
}

fn unquoted(text: &str) -> String {
    text.trim()
        .replace("\"\"", "\u{1}")
        .replace('"', "")
        .replace('\u{1}', "\"")
}
