//! Deterministic CBOR (RFC 8949 §4.2.1): a reader that takes nothing else, and extensions kept as they came.

use std::collections::BTreeMap;

use minicbor::encode::{Encoder, Write};

use crate::limit;
use crate::tls::{Malformed, Reader};

type Read<T> = Result<T, Malformed>;

/// Extensions that are not fields of [`super::MimiContent`], by key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Extensions(BTreeMap<Vec<u8>, Value>);

/// Key of an extension. Positive numbers belong to IANA, negative ones and texts are private.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Between -(2^53-1) and 2^53-1.
    Number(i64),
    /// 1 to 255 bytes.
    Text(String),
}

/// One valid, deterministic CBOR item, its arrays, maps and tags at most [`limit::EXTENSION_DEPTH`] deep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value(Vec<u8>);

impl Value {
    /// Checks and keeps an item.
    ///
    /// # Errors
    /// When it is not exactly one deterministic item, or too deep.
    pub fn parse(bytes: impl Into<Vec<u8>>) -> Read<Self> {
        let bytes = bytes.into();
        let mut d = Decoder::new(&bytes);
        d.value()?;
        d.finish()?;
        Ok(Self(bytes))
    }

    /// What `write` writes, which must be one item.
    pub(super) fn written(write: impl FnOnce(&mut Encoder<Vec<u8>>) -> Written<Vec<u8>>) -> Self {
        let mut e = Encoder::new(Vec::new());
        write(&mut e).expect("writing to a Vec cannot fail");
        Self(e.into_writer())
    }

    /// The item's bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.0
    }
}

impl Extensions {
    /// The value under `key`.
    #[must_use]
    pub fn get(&self, key: &Key) -> Option<&Value> {
        self.0.get(&key.encoded().ok()?)
    }

    /// Sets the value under `key`.
    ///
    /// # Errors
    /// When the key is out of its bounds, or is 1, 2 or -1, which are fields of [`super::MimiContent`].
    pub fn insert(&mut self, key: &Key, value: Value) -> Read<()> {
        if matches!(key, Key::Number(SENDER | ROOM | HEADER)) {
            return Err(Malformed::new("a key that is a field of its own", 0));
        }
        self.keep(key, value)
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// [`Self::insert`] for any key: a foreign client may use the private one for something else.
    pub(super) fn keep(&mut self, key: &Key, value: Value) -> Read<()> {
        self.0.insert(key.encoded()?, value);
        Ok(())
    }

    /// Writes the map. Bytewise order of the encoded keys is that of [`BTreeMap`].
    pub(super) fn write<W: Write>(&self, e: &mut Encoder<W>) -> Written<W> {
        e.map(self.0.len() as u64)?;
        for (key, value) in &self.0 {
            raw(e, key)?;
            raw(e, &value.0)?;
        }
        Ok(())
    }
}

impl Key {
    fn encoded(&self) -> Read<Vec<u8>> {
        let mut e = Encoder::new(Vec::new());
        let written = match self {
            Self::Number(n) if n.unsigned_abs() > MAX_KEY => {
                return Err(Malformed::new("a key outside of 53 bits", 0));
            }
            Self::Text(t) if t.is_empty() || t.len() > limit::EXTENSION_KEY_BYTES => {
                return Err(Malformed::new("a key that is not 1 to 255 bytes", 0));
            }
            Self::Number(n) => e.i64(*n).map(drop),
            Self::Text(t) => e.str(t).map(drop),
        };
        written.expect("writing to a Vec cannot fail");
        Ok(e.into_writer())
    }
}

/// What the `write` functions of this module's siblings give.
pub(super) type Written<W> = Result<(), minicbor::encode::Error<<W as Write>::Error>>;

fn raw<W: Write>(e: &mut Encoder<W>, bytes: &[u8]) -> Written<W> {
    e.writer_mut().write_all(bytes).map_err(minicbor::encode::Error::write)
}

/// Keys of the extensions that are fields of [`super::MimiContent`].
pub(super) const SENDER: i64 = 1;
pub(super) const ROOM: i64 = 2;
pub(super) const HEADER: i64 = -1;

/// Largest key, either way: what every JSON implementation can hold.
const MAX_KEY: u64 = (1 << 53) - 1;

/// Reads deterministic CBOR. Arrays and maps have their length in front, so nothing has to be looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Decoder<'a>(Reader<'a>);

impl<'a> Decoder<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(Reader::new(bytes))
    }

    pub(super) const fn fail(&self, what: &'static str) -> Malformed {
        self.0.fail(what)
    }

    pub(super) const fn at(&self) -> usize {
        self.0.at()
    }

    pub(super) fn finish(&self) -> Read<()> {
        self.0.finish()
    }

    /// A head of major type 0 to 6: the type and its argument, in the shortest form.
    fn head(&mut self) -> Read<(u8, u64)> {
        let start = *self;
        let first = self.0.u8()?;
        let (argument, least) = match first & 31 {
            24 => (u64::from(self.0.u8()?), 24),
            25 => (u64::from(self.0.u16()?), 1 << 8),
            26 => (u64::from(self.0.u32()?), 1 << 16),
            27 => (self.0.u64()?, 1 << 32),
            28..=30 => return Err(start.fail("a reserved form of CBOR")),
            31 => return Err(start.fail("a length that is not given in front")),
            small => (u64::from(small), 0),
        };
        if argument < least {
            return Err(start.fail("a number longer than needed"));
        }
        Ok((first >> 5, argument))
    }

    fn of(&mut self, major: u8, what: &'static str) -> Read<u64> {
        let start = *self;
        match self.head()? {
            (found, argument) if found == major => Ok(argument),
            _ => Err(start.fail(what)),
        }
    }

    fn taken(&mut self, len: u64) -> Read<&'a [u8]> {
        let len = usize::try_from(len).map_err(|_| self.fail("the bytes end too early"))?;
        self.0.take(len)
    }

    pub(super) fn uint(&mut self) -> Read<u64> {
        self.of(UINT, "not a number")
    }

    /// An unsigned number that fits `T`.
    pub(super) fn number<T: TryFrom<u64>>(&mut self) -> Read<T> {
        let start = *self;
        T::try_from(self.uint()?).map_err(|_| start.fail("a number that is too large"))
    }

    pub(super) fn bytes(&mut self) -> Read<&'a [u8]> {
        let len = self.of(BYTES, "not a byte string")?;
        self.taken(len)
    }

    pub(super) fn array_of<const N: usize>(&mut self) -> Read<[u8; N]> {
        let start = *self;
        self.bytes()?.try_into().map_err(|_| start.fail("a byte string of the wrong length"))
    }

    pub(super) fn text(&mut self) -> Read<&'a str> {
        let start = *self;
        let len = self.of(TEXT, "not a text")?;
        std::str::from_utf8(self.taken(len)?).map_err(|_| start.fail("a text that is not UTF-8"))
    }

    pub(super) fn array(&mut self) -> Read<u64> {
        self.of(ARRAY, "not an array")
    }

    /// An array of exactly `len` items.
    pub(super) fn array_exact(&mut self, len: u64) -> Read<()> {
        let start = *self;
        if self.array()? == len { Ok(()) } else { Err(start.fail("an array of the wrong length")) }
    }

    pub(super) fn map(&mut self) -> Read<u64> {
        self.of(MAP, "not a map")
    }

    pub(super) fn bool(&mut self) -> Read<bool> {
        let start = *self;
        match self.0.u8()? {
            0xf4 => Ok(false),
            0xf5 => Ok(true),
            _ => Err(start.fail("neither true nor false")),
        }
    }

    /// `null`, or what `read` reads.
    pub(super) fn nullable<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Read<T>,
    ) -> Read<Option<T>> {
        if self.0.rest().first() == Some(&0xf6) {
            self.0.u8()?;
            return Ok(None);
        }
        read(self).map(Some)
    }

    /// A key of a map, as [`Key`] bounds it.
    pub(super) fn key(&mut self) -> Read<Key> {
        let start = *self;
        let key = match self.head()? {
            (UINT, n) if n <= MAX_KEY => n.try_into().ok().map(Key::Number),
            (NEGATIVE, n) if n < MAX_KEY => i64::try_from(n).ok().map(|n| Key::Number(-1 - n)),
            (TEXT, len) if (1..=limit::EXTENSION_KEY_BYTES as u64).contains(&len) => {
                std::str::from_utf8(self.taken(len)?).ok().map(|t| Key::Text(t.to_owned()))
            }
            _ => None,
        };
        key.ok_or(start.fail("not a key of a map"))
    }

    /// A key of a map that comes after `last`, bytewise; gives its bytes, to be the next `last`.
    pub(super) fn key_after(&mut self, last: Option<&[u8]>) -> Read<(Key, &'a [u8])> {
        let start = *self;
        let key = self.key()?;
        let bytes = self.0.since(start.at());
        if last.is_some_and(|last| last >= bytes) {
            return Err(start.fail("keys of a map out of order or repeated"));
        }
        Ok((key, bytes))
    }

    /// Any item; gives its bytes.
    pub(super) fn value(&mut self) -> Read<Value> {
        let start = *self;
        let mut open: Vec<Open<'a>> = Vec::new();
        loop {
            let item = *self;
            if let Some(inside) = self.item()? {
                if open.len() == limit::EXTENSION_DEPTH {
                    return Err(item.fail("an extension that is too deep"));
                }
                open.push(inside);
            }
            // Go on where the innermost array or map with something left goes on.
            loop {
                let Some(inside) = open.last_mut() else {
                    return Ok(Value(self.0.since(start.at()).to_vec()));
                };
                if inside.left == 0 {
                    open.pop();
                    continue;
                }
                inside.left -= 1;
                if inside.map {
                    inside.last_key = Some(self.key_after(inside.last_key)?.1);
                }
                break;
            }
        }
    }

    /// The next item, or the head of one that has items inside.
    fn item(&mut self) -> Read<Option<Open<'a>>> {
        if self.0.rest().first().is_some_and(|b| b >> 5 == SPECIAL) {
            return self.special().map(|()| None);
        }
        let start = *self;
        let (major, n) = self.head()?;
        Ok(match major {
            UINT | NEGATIVE => None,
            BYTES => self.taken(n).map(|_| None)?,
            TEXT => {
                *self = start;
                self.text().map(|_| None)?
            }
            ARRAY => Some(Open { left: n, map: false, last_key: None }),
            MAP => Some(Open { left: n, map: true, last_key: None }),
            _ => Some(Open { left: 1, map: false, last_key: None }),
        })
    }

    /// `true`, `null` and their like, and floating-point numbers in the shortest form that keeps them.
    fn special(&mut self) -> Read<()> {
        let start = *self;
        let shortest = match self.0.u8()? & 31 {
            0..24 => true,
            24 => self.0.u8()? >= 32,
            25 => {
                let bits = self.0.u16()?;
                let is_nan = bits & 0x7c00 == 0x7c00 && bits & 0x03ff != 0;
                !is_nan || bits == 0x7e00
            }
            26 => !fits_half(f32::from_bits(self.0.u32()?)),
            27 => !fits_single(f64::from_bits(self.0.u64()?)),
            _ => false,
        };
        if shortest { Ok(()) } else { Err(start.fail("a value that is not in its shortest form")) }
    }
}

/// An array, map or tag whose items are being read.
#[derive(Debug)]
struct Open<'a> {
    left: u64,
    map: bool,
    last_key: Option<&'a [u8]>,
}

fn fits_half(x: f32) -> bool {
    if !x.is_finite() {
        return true;
    }
    // Eleven significant bits, none of them below 2^-24.
    let steps = f64::from(x).abs() * f64::from(1 << 24);
    x.to_bits().trailing_zeros() >= 13 && x.abs() <= 65504.0 && steps.fract().to_bits() == 0
}

fn fits_single(x: f64) -> bool {
    #[expect(clippy::cast_possible_truncation, reason = "whether it truncates is the question")]
    let single = x as f32;
    x.is_nan() || f64::from(single).to_bits() == x.to_bits()
}

const UINT: u8 = 0;
const NEGATIVE: u8 = 1;
const BYTES: u8 = 2;
const TEXT: u8 = 3;
const ARRAY: u8 = 4;
const MAP: u8 = 5;
const SPECIAL: u8 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_deterministic_encoding_of_a_value_is_taken() {
        let good: &[&[u8]] = &[
            &[0x00],
            &[0x17],
            &[0x18, 0x18],
            &[0x19, 0x01, 0x00],
            &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x3b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x41, 0xff],
            &[0x62, 0xc3, 0xa4],
            &[0x80],
            &[0xa2, 0x01, 0x80, 0x20, 0xa0],
            &[0xc1, 0x00],
            &[0xf6],
            &[0xf8, 0x20],
            &[0xf9, 0x7e, 0x00],
            &[0xf9, 0x3c, 0x00],
            &[0xfa, 0x47, 0xc3, 0x50, 0x00],
            &[0xfa, 0x7f, 0x7f, 0xff, 0xff],
            &[0xfb, 0x3f, 0xf1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a],
            &[0x81, 0x81, 0x81, 0x81, 0x00],
        ];
        for v in good {
            assert_eq!(Value::parse(*v).unwrap().as_slice(), *v);
        }
        let bad: &[(&[u8], &str)] = &[
            (&[], "nothing"),
            (&[0x18, 0x17], "long number"),
            (&[0x19, 0x00, 0xff], "long number"),
            (&[0x1a, 0x00, 0x00, 0xff, 0xff], "long number"),
            (&[0x1b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff], "long number"),
            (&[0x38, 0x00], "long negative number"),
            (&[0x58, 0x01, 0x00], "long length"),
            (&[0x42, 0x00], "cut off"),
            (&[0x5f, 0x41, 0x00, 0xff], "indefinite bytes"),
            (&[0x7f, 0xff], "indefinite text"),
            (&[0x9f, 0xff], "indefinite array"),
            (&[0xbf, 0xff], "indefinite map"),
            (&[0x62, 0xc3, 0x28], "not UTF-8"),
            (&[0xa2, 0x20, 0x00, 0x01, 0x00], "keys out of order"),
            (&[0xa2, 0x01, 0x00, 0x01, 0x00], "key twice"),
            (&[0xa1, 0x80, 0x00], "array as key"),
            (&[0xa1, 0x60, 0x00], "empty text as key"),
            (&[0xa1, 0x1b, 0, 0x20, 0, 0, 0, 0, 0, 0, 0], "key of 2^53"),
            (&[0x00, 0x00], "trailing byte"),
            (&[0x1c], "reserved"),
            (&[0xf8, 0x1f], "long simple value"),
            (&[0xff], "break"),
            (&[0xf9, 0x7c, 0x01], "other NaN"),
            (&[0xfa, 0x3f, 0x80, 0x00, 0x00], "long 1.0"),
            (&[0xfa, 0x33, 0x80, 0x00, 0x00], "long 2^-24"),
            (&[0xfa, 0x7f, 0x80, 0x00, 0x00], "long infinity"),
            (&[0xfb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0], "long 1.0"),
            (&[0xfb, 0x7f, 0xf8, 0, 0, 0, 0, 0, 0], "long NaN"),
            (&[0x81, 0x81, 0x81, 0x81, 0x81, 0x00], "five deep"),
            (&[0xc1, 0xc1, 0xc1, 0xc1, 0xc1, 0x00], "five tags deep"),
            (&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], "endless array"),
        ];
        for (v, what) in bad {
            assert!(Value::parse(*v).is_err(), "{what}");
        }
    }

    #[test]
    fn extensions_are_found_by_key_and_keep_reserved_ones_out() {
        let mut e = Extensions::default();
        let value = Value::parse([0x01]).unwrap();
        e.insert(&Key::Text("x".into()), value.clone()).unwrap();
        assert_eq!(e.get(&Key::Text("x".into())), Some(&value));
        assert_eq!(e.get(&Key::Number(7)), None);
        let out_of_bounds = [
            Key::Number(1),
            Key::Number(2),
            Key::Number(-1),
            Key::Number(1 << 53),
            Key::Number(i64::MIN),
            Key::Text(String::new()),
            Key::Text("x".repeat(256)),
        ];
        for key in out_of_bounds {
            assert!(e.insert(&key, value.clone()).is_err(), "{key:?}");
        }
    }
}
