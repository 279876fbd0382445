//! Elements out of a stream of bytes.

use rxml::error::EndOrError;
use rxml::{Event, Parse as _, Parser};

use crate::{Outcome, failed};

/// An element of a stream, with everything in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name, without namespace: what the servers send is told apart by that.
    pub name: String,
    /// Attributes, without namespaces.
    pub attributes: Vec<(String, String)>,
    /// Text right inside.
    pub text: String,
    /// Elements inside.
    pub children: Vec<Element>,
}

impl Element {
    /// An attribute.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The first element of that name right inside.
    #[must_use]
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|c| c.name == name)
    }

    /// The element at the end of a path of names.
    #[must_use]
    pub fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |element, name| element.child(name))
    }
}

/// Reads one stream: its outer element stays open, the elements in it are given out when they are whole.
#[derive(Default)]
pub struct Reader {
    parser: Parser,
    /// The outer element and what is open in it.
    open: Vec<Element>,
}

/// Deeper than anything these servers send.
const DEPTH: usize = 64;

impl Reader {
    /// Reads from the front of `bytes`; the next whole element, or nothing until there is more.
    ///
    /// # Errors
    /// When it is not the XML of a stream, or the stream has ended.
    pub fn read(&mut self, bytes: &mut &[u8]) -> Outcome<Option<Element>> {
        loop {
            let event = match self.parser.parse(bytes, false) {
                Ok(Some(event)) => event,
                Ok(None) => return failed("the stream has ended"),
                Err(EndOrError::NeedMoreData) => return Ok(None),
                Err(EndOrError::Error(e)) => return failed(format!("not XML: {e}")),
            };
            match event {
                Event::XmlDeclaration(..) => {}
                Event::StartElement(_, (_, name), attributes) => {
                    if self.open.len() >= DEPTH {
                        return failed("elements are nested too deeply");
                    }
                    let attributes = attributes
                        .into_iter()
                        .map(|((_, name), value)| (name.to_string(), value))
                        .collect();
                    let name = name.to_string();
                    self.open.push(Element { name, attributes, ..Element::default() });
                }
                Event::Text(_, text) => {
                    if let Some(element) = self.open.last_mut() {
                        element.text.push_str(&text);
                    }
                }
                Event::EndElement(_) => {
                    let Some(whole) = self.open.pop() else { continue };
                    match self.open.len() {
                        0 => return failed("the server closed the stream"),
                        1 => return Ok(Some(whole)),
                        _ => {
                            if let Some(parent) = self.open.last_mut() {
                                parent.children.push(whole);
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_out_whole_however_the_bytes_come() {
        let text = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' xmlns:stream='s' id='1'>\
                    <message id='m1'><body>one &amp; two</body></message><a h='3'/>";
        let mut reader = Reader::default();
        let mut found = Vec::new();
        for byte in text.as_bytes() {
            let mut one = std::slice::from_ref(byte);
            while let Some(element) = reader.read(&mut one).unwrap() {
                found.push(element);
            }
        }
        assert_eq!(found.len(), 2, "{found:?}");
        assert_eq!(found[0].get("id"), Some("m1"));
        assert_eq!(found[0].child("body").unwrap().text, "one & two");
        assert_eq!((found[1].name.as_str(), found[1].get("h")), ("a", Some("3")));
        assert!(reader.read(&mut &b"</stream:stream>"[..]).is_err());
    }
}
