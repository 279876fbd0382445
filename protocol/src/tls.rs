//! TLS presentation language with the length fields of RFC 9420 §2.1.2: the one reader and the one writer of this crate.
//!
//! The reader never allocates, never recurses and never looks past the vector it is in.

use crate::refusal::{Code, Refusal};

/// Bytes that are not what they should be. Says what and where, never what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct Malformed {
    what: &'static str,
    at: usize,
    over_limit: bool,
}

impl Malformed {
    pub(crate) const fn new(what: &'static str, at: usize) -> Self {
        Self { what, at, over_limit: false }
    }

    pub(crate) const fn over_limit(what: &'static str, at: usize) -> Self {
        Self { what, at, over_limit: true }
    }

    /// The same, found in a part that starts at `start`.
    pub(crate) const fn moved(self, start: usize) -> Self {
        Self { at: self.at + start, ..self }
    }

    /// What is wrong.
    #[must_use]
    pub const fn what(&self) -> &'static str {
        self.what
    }

    /// Where, counted in bytes from the start of what was read.
    #[must_use]
    pub const fn at(&self) -> usize {
        self.at
    }

    /// The refusal code: [`Code::TooLarge`] when only a limit was passed, else [`Code::Malformed`].
    #[must_use]
    pub const fn code(&self) -> Code {
        if self.over_limit { Code::TooLarge } else { Code::Malformed }
    }
}

impl From<Malformed> for Refusal {
    fn from(m: Malformed) -> Self {
        Self::because(m.code(), m.to_string())
    }
}

/// A place in some bytes, and the end that must not be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reader<'a> {
    whole: &'a [u8],
    at: usize,
    end: usize,
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { whole: bytes, at: 0, end: bytes.len() }
    }

    pub(crate) const fn at(&self) -> usize {
        self.at
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.at >= self.end
    }

    pub(crate) const fn fail(&self, what: &'static str) -> Malformed {
        Malformed::new(what, self.at)
    }

    /// Everything not read yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.whole.get(self.at..self.end).unwrap_or_default()
    }

    /// Everything read since `start`, an earlier [`Self::at`].
    pub(crate) fn since(&self, start: usize) -> &'a [u8] {
        self.whole.get(start..self.at).unwrap_or_default()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let taken = self.rest().get(..len).ok_or(self.fail("the bytes end too early"))?;
        self.at += len;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let failed = self.fail("the bytes end too early");
        self.take(N)?.try_into().map_err(|_| failed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_be_bytes)
    }

    /// A length field. RFC 9420 §2.1.2: one, two or four bytes, and always the shortest that fits.
    fn length(&mut self) -> Result<usize, Malformed> {
        let start = *self;
        let first = self.u8()?;
        let high = u32::from(first & 0x3f);
        let (length, least) = match first >> 6 {
            0 => (high, 0),
            1 => (high << 8 | u32::from(self.u8()?), 1 << 6),
            2 => {
                let [a, b, c] = self.array()?;
                (high << 24 | u32::from_be_bytes([0, a, b, c]), 1 << 14)
            }
            _ => return Err(start.fail("a length field of an unknown form")),
        };
        if length < least {
            return Err(start.fail("a length field longer than needed"));
        }
        usize::try_from(length).map_err(|_| start.fail("a length field that is too large"))
    }

    /// `opaque x<V>`.
    pub(crate) fn vector(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.length()?;
        self.take(length)
    }

    /// `opaque x<V>` of at most `max` bytes.
    pub(crate) fn vector_max(&mut self, max: usize) -> Result<&'a [u8], Malformed> {
        let at = self.at;
        let bytes = self.vector()?;
        if bytes.len() > max {
            return Err(Malformed::over_limit("a field over its limit", at));
        }
        Ok(bytes)
    }

    /// `T x<V>`: a reader of the items, to be read until it is empty.
    pub(crate) fn list(&mut self) -> Result<Self, Malformed> {
        let length = self.length()?;
        let items = Self { end: self.at + length, ..*self };
        self.take(length)?;
        Ok(items)
    }

    /// `optional<T>`: whether the value follows.
    pub(crate) fn optional(&mut self) -> Result<bool, Malformed> {
        let start = *self;
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(start.fail("an optional that is neither absent nor present")),
        }
    }

    /// Whether all was read.
    pub(crate) fn finish(&self) -> Result<(), Malformed> {
        if self.is_empty() { Ok(()) } else { Err(self.fail("bytes after the end")) }
    }
}

/// Appends to bytes in the same language.
pub(crate) trait Write {
    fn put_u8(&mut self, n: u8);
    fn put_u16(&mut self, n: u16);
    fn put_u64(&mut self, n: u64);
    fn put_raw(&mut self, bytes: &[u8]);
    /// `opaque x<V>`.
    fn put_vector(&mut self, bytes: &[u8]);
    /// `T x<V>`.
    fn put_list<T>(&mut self, items: &[T], put: impl Fn(&mut Vec<u8>, &T));
    /// `optional<T>`.
    fn put_optional<T>(&mut self, value: Option<&T>, put: impl Fn(&mut Vec<u8>, &T));
}

impl Write for Vec<u8> {
    fn put_u8(&mut self, n: u8) {
        self.push(n);
    }

    fn put_u16(&mut self, n: u16) {
        self.extend_from_slice(&n.to_be_bytes());
    }

    fn put_u64(&mut self, n: u64) {
        self.extend_from_slice(&n.to_be_bytes());
    }

    fn put_raw(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_vector(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len())
            .ok()
            .filter(|n| *n < 1 << 30)
            .expect("every field is far below a gigabyte (protocol::limit)");
        match length {
            0..0x40 => self.put_raw(length.to_be_bytes().split_at(3).1),
            0x40..0x4000 => self.put_raw((length | 0x4000).to_be_bytes().split_at(2).1),
            _ => self.put_raw(&(length | 0x8000_0000).to_be_bytes()),
        }
        self.put_raw(bytes);
    }

    fn put_list<T>(&mut self, items: &[T], put: impl Fn(&mut Vec<u8>, &T)) {
        let mut bytes = Vec::new();
        for item in items {
            put(&mut bytes, item);
        }
        self.put_vector(&bytes);
    }

    fn put_optional<T>(&mut self, value: Option<&T>, put: impl Fn(&mut Vec<u8>, &T)) {
        self.put_u8(u8::from(value.is_some()));
        if let Some(value) = value {
            put(self, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_fields_take_the_shortest_form_only() {
        // The first bytes of each form, with its length.
        for len in [0, 1, 0x3f, 0x40, 0x3fff, 0x4000, 0x1_0000] {
            let mut bytes = Vec::new();
            bytes.put_vector(&vec![7; len]);
            let mut r = Reader::new(&bytes);
            assert_eq!(r.vector().unwrap().len(), len);
            r.finish().unwrap();
        }
        for long in [&[0x40, 0x3f][..], &[0x80, 0, 0x3f, 0xff], &[0x80, 0, 0, 1], &[0xc0; 8]] {
            let mut bytes = long.to_vec();
            bytes.resize(0x4100, 0);
            assert!(Reader::new(&bytes).vector().is_err(), "{long:x?}");
        }
        for short in [&[][..], &[1], &[0x40], &[0x7f, 0xff], &[0x80, 0], &[0xbf, 0xff, 0xff, 0xff]]
        {
            assert!(Reader::new(short).vector().is_err(), "{short:x?}");
        }
    }

    #[test]
    fn a_list_does_not_reach_past_its_end() {
        let mut list = Reader::new(&[2, 0, 1, 0, 2]).list().unwrap();
        assert_eq!(list.u16().unwrap(), 1);
        assert!(list.is_empty());
        assert!(list.u8().is_err());
    }
}
