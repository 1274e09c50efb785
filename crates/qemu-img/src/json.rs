//! JSON in the layout that QEMU's programs print.

use std::fmt::Write;

/// A value. Members stay in the order they are given.
#[derive(Clone, Debug, PartialEq)]
pub enum Json {
    Text(String),
    Number(u64),
    Bool(bool),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    pub fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into())
    }

    /// Four spaces a level, empty lists and objects over two lines.
    pub fn pretty(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, 0);
        out
    }

    fn write(&self, out: &mut String, depth: usize) {
        match self {
            Json::Text(text) => quote(out, text),
            Json::Number(number) => {
                let _ = write!(out, "{number}");
            }
            Json::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Json::List(items) => lines(out, depth, ('[', ']'), items, |out, item, depth| {
                item.write(out, depth);
            }),
            Json::Object(members) => {
                lines(out, depth, ('{', '}'), members, |out, member, depth| {
                    quote(out, member.0);
                    out.push_str(": ");
                    member.1.write(out, depth);
                })
            }
        }
    }
}

fn lines<T>(
    out: &mut String,
    depth: usize,
    brackets: (char, char),
    items: &[T],
    write: impl Fn(&mut String, &T, usize),
) {
    out.push(brackets.0);
    for (index, item) in items.iter().enumerate() {
        out.push_str(if index == 0 { "\n" } else { ",\n" });
        out.push_str(&"    ".repeat(depth + 1));
        write(out, item, depth + 1);
    }
    out.push('\n');
    out.push_str(&"    ".repeat(depth));
    out.push(brackets.1);
}

fn quote(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            c if (' '..='~').contains(&c) => out.push(c),
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04X}");
                }
            }
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout() {
        let value = Json::Object(vec![
            ("a", Json::List(vec![])),
            ("b", Json::Object(vec![("c", Json::Number(1))])),
            ("d", Json::text("é\"\u{1}")),
        ]);
        assert_eq!(
            value.pretty(),
            "{\n    \"a\": [\n    ],\n    \"b\": {\n        \"c\": 1\n    },\n    \"d\": \"\\u00E9\\\"\\u0001\"\n}"
        );
    }
}
