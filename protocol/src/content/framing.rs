//! What kind of thing an application message holds: `ApplicationFraming` (draft-ietf-mls-extensions, content advertisement).

use super::{MESSAGE_STATUS, MIMI_CONTENT};
use crate::limit;
use crate::tls::{Malformed, Reader, Write};

/// The group context component that lists a group's media types: `content_media_types`.
pub const CONTENT_MEDIA_TYPES: u16 = 0x0003;

/// The media types of every room, in the order of the group's list. The first may be left out of a framing.
pub const MEDIA_TYPES: [&str; 2] = [MIMI_CONTENT, MESSAGE_STATUS];

/// Application data of an MLS message: what it is, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplicationFraming {
    /// What it is.
    pub media_type: MediaType,
    /// The bytes.
    pub content: Vec<u8>,
}

/// A media type with its parameters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType {
    /// Such as `application/mimi-content`, at most [`limit::MEDIA_TYPE_BYTES`].
    pub name: String,
    /// At most [`limit::MEDIA_TYPE_PARAMETERS`].
    pub parameters: Vec<Parameter>,
}

/// A parameter of a media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Vec<u8>,
}

impl ApplicationFraming {
    /// Frames `content` as `name`, a media type without parameters.
    #[must_use]
    pub fn new(name: &str, content: Vec<u8>) -> Self {
        Self { media_type: MediaType::named(name), content }
    }

    /// The bytes to encrypt.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        self.media_type.write(&mut out);
        out.put_vector(&self.content);
        out
    }

    /// Reads exactly one. A media type that is left out is the first of [`MEDIA_TYPES`].
    ///
    /// # Errors
    /// When the bytes are not one, or pass a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let media_type = MediaType::read(&mut r)?;
        let content = r.vector_max(limit::MESSAGE_BYTES)?.to_vec();
        r.finish()?;
        Ok(Self { media_type, content })
    }
}

impl MediaType {
    /// One without parameters.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), parameters: Vec::new() }
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.put_vector(self.name.as_bytes());
        out.put_list(&self.parameters, |out, p| {
            out.put_vector(p.name.as_bytes());
            out.put_vector(&p.value);
        });
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let start = *r;
        let name = text(r)?;
        let mut list = r.list()?;
        let mut parameters = Vec::new();
        while !list.is_empty() {
            if parameters.len() == limit::MEDIA_TYPE_PARAMETERS {
                return Err(Malformed::over_limit("a list over its limit", list.at()));
            }
            let name = text(&mut list)?;
            let value = list.vector_max(limit::MEDIA_TYPE_BYTES)?.to_vec();
            parameters.push(Parameter { name, value });
        }
        match (name.is_empty(), parameters.is_empty()) {
            (false, _) => Ok(Self { name, parameters }),
            (true, true) => Ok(Self::named(MIMI_CONTENT)),
            (true, false) => Err(start.fail("parameters of a media type that is left out")),
        }
    }
}

fn text(r: &mut Reader<'_>) -> Result<String, Malformed> {
    let start = *r;
    let bytes = r.vector_max(limit::MEDIA_TYPE_BYTES)?;
    match std::str::from_utf8(bytes) {
        Ok(text) if text.bytes().all(|b| b.is_ascii_graphic()) => Ok(text.to_owned()),
        _ => Err(start.fail("a media type outside of printable ASCII")),
    }
}

/// The data of [`CONTENT_MEDIA_TYPES`] in every room's group context: [`MEDIA_TYPES`].
#[must_use]
pub fn media_type_list() -> Vec<u8> {
    let mut out = Vec::new();
    out.put_list(&MEDIA_TYPES, |out, name| MediaType::named(name).write(out));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_media_type_that_is_left_out_is_the_first_of_the_list() {
        let framed = ApplicationFraming::decode(&[0, 0, 2, 7, 8]).unwrap();
        assert_eq!(framed, ApplicationFraming::new(MIMI_CONTENT, vec![7, 8]));
        assert_eq!(MEDIA_TYPES[0], MIMI_CONTENT);
        assert!(
            ApplicationFraming::decode(&[0, 3, 1, b'a', 0, 1, 7]).is_err(),
            "parameters of none"
        );
    }

    #[test]
    fn framings_survive_and_cut_ones_are_refused() {
        let parameters = vec![Parameter { name: "variant".into(), value: b"GFM".to_vec() }];
        let media_type = MediaType { name: "text/markdown".into(), parameters };
        let framed = ApplicationFraming { media_type, content: vec![9; 70] };
        let bytes = framed.encode();
        assert_eq!(bytes[..2], [13, b't']);
        assert_eq!(ApplicationFraming::decode(&bytes).unwrap(), framed);
        for cut in 0..bytes.len() {
            assert!(ApplicationFraming::decode(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        assert!(ApplicationFraming::decode(&[&bytes[..], &[0]].concat()).is_err());
        assert!(ApplicationFraming::decode(&[2, 0xc3, 0xa4, 0, 0]).is_err(), "not ASCII");
    }

    #[test]
    fn the_list_of_media_types_names_each_once() {
        let bytes = media_type_list();
        let mut list = Reader::new(&bytes).list().unwrap();
        for name in MEDIA_TYPES {
            assert_eq!(MediaType::read(&mut list).unwrap(), MediaType::named(name));
        }
        assert!(list.is_empty());
    }
}
