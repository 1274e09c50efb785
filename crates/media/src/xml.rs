//! Small XML documents as trees.

use quick_xml::Reader;
use quick_xml::events::Event;

use crate::error::{Error, Result};

/// Elements in elements beyond which a document is refused.
const DEPTH: usize = 64;

/// An element.
#[derive(Default, Debug)]
pub(crate) struct Element {
    pub name: String,
    pub attributes: Vec<(String, String)>,
    pub text: String,
    pub children: Vec<Element>,
}

impl Element {
    /// The outermost element of a document.
    pub fn parse(document: &str, what: &'static str) -> Result<Element> {
        let mut reader = Reader::from_str(document);
        let mut open = vec![Element::default()];
        loop {
            let at = reader.buffer_position();
            let damaged = |problem: String| Error::damaged(what, at, problem);
            match reader
                .read_event()
                .map_err(|error| damaged(error.to_string()))?
            {
                Event::Start(start) => {
                    if open.len() > DEPTH {
                        return Err(damaged("elements nest too deep".into()));
                    }
                    open.push(element(&start));
                }
                Event::Empty(start) => {
                    let element = element(&start);
                    if let Some(parent) = open.last_mut() {
                        parent.children.push(element);
                    }
                }
                Event::End(_) => {
                    let element = open.pop().unwrap_or_default();
                    match open.last_mut() {
                        Some(parent) => parent.children.push(element),
                        None => return Err(damaged("an element ends that did not begin".into())),
                    }
                }
                Event::Text(text) => {
                    if let Some(parent) = open.last_mut() {
                        parent.text.push_str(&text);
                    }
                }
                Event::CData(text) => {
                    if let Some(parent) = open.last_mut() {
                        parent.text.push_str(&text);
                    }
                }
                Event::GeneralRef(name) => {
                    let name = name.to_string();
                    let text = match name.as_str() {
                        "amp" => Some('&'),
                        "lt" => Some('<'),
                        "gt" => Some('>'),
                        "quot" => Some('"'),
                        "apos" => Some('\''),
                        _ => name.strip_prefix('#').and_then(|n| {
                            match n.strip_prefix('x') {
                                Some(hex) => u32::from_str_radix(hex, 16),
                                None => n.parse(),
                            }
                            .ok()
                            .and_then(char::from_u32)
                        }),
                    };
                    if let Some(parent) = open.last_mut() {
                        parent
                            .text
                            .push(text.unwrap_or(char::REPLACEMENT_CHARACTER));
                    }
                }
                Event::Eof => break,
                _ => {}
            }
        }
        if open.len() != 1 {
            return Err(Error::damaged(
                what,
                document.len() as u64,
                "it ends within an element",
            ));
        }
        open.pop()
            .and_then(|top| top.children.into_iter().next())
            .ok_or_else(|| Error::damaged(what, 0, "it is empty"))
    }

    /// The first child of a name.
    pub fn child(&self, name: &str) -> Option<&Element> {
        self.children.iter().find(|c| c.name == name)
    }

    /// The text of the element that a path such as `WINDOWS/VERSION/BUILD` leads to, if there is any.
    pub fn at(&self, path: &str) -> Option<&str> {
        let mut element = self;
        for name in path.split('/') {
            element = element.child(name)?;
        }
        Some(element.text.trim()).filter(|text| !text.is_empty())
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, value)| value.as_str())
    }
}

fn element(start: &quick_xml::events::BytesStart<'_>) -> Element {
    Element {
        name: start.name().as_ref().to_string(),
        attributes: start
            .attributes()
            .flatten()
            .map(|a| (a.key.as_ref().to_string(), a.value.to_string()))
            .collect(),
        ..Element::default()
    }
}
