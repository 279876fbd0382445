//! Looks for a text in every byte that a node stored, logged or sent.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::Outcome;
use crate::trouble::During as _;

/// A text as it might lie around: plain, reversed, in UTF-16, in hexadecimal, and in base64 at any alignment.
pub struct Canary {
    forms: Vec<(&'static str, Vec<u8>)>,
}

impl Canary {
    /// What to look for: at least 16 characters that occur nowhere else.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let bytes = text.as_bytes();
        let hex = hex(bytes);
        let utf16 = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let mut forms = vec![
            ("plain", bytes.to_vec()),
            ("reversed", bytes.iter().rev().copied().collect()),
            ("UTF-16", utf16),
            ("hexadecimal", hex.clone().into_bytes()),
            ("hexadecimal", hex.to_uppercase().into_bytes()),
        ];
        for before in [[].as_slice(), &[0], &[0, 0]] {
            // The characters in the middle depend only on the text, whatever stands before and after it.
            let padded = [before, bytes].concat();
            for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
                let middle = encoded.get(4..encoded.len().saturating_sub(4)).unwrap_or_default();
                forms.push(("base64", middle.as_bytes().to_vec()));
            }
        }
        Self { forms }
    }

    /// The form in which it is in `bytes`.
    #[must_use]
    pub fn find(&self, bytes: &[u8]) -> Option<&'static str> {
        self.forms.iter().find(|(_, form)| contains(bytes, form)).map(|(name, _)| *name)
    }

    /// Every file under `folder` that holds it, and in which form; and how many files and bytes were looked at.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn find_in(&self, folder: &Path) -> Outcome<Found> {
        let mut found = Found::default();
        let mut folders = vec![folder.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).during(folder.display())? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.is_file() && !is_ballast(&path) {
                    let bytes = fs::read(&path).during(path.display())?;
                    found.files += 1;
                    found.bytes += bytes.len();
                    if let Some(form) = self.find(&bytes) {
                        found.places.push((path, form));
                    }
                }
            }
        }
        Ok(found)
    }
}

/// A node's ballast is tens of megabytes of nothing.
fn is_ballast(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "ballast")
}

/// What a scan saw.
#[derive(Debug, Default)]
pub struct Found {
    /// Where the text is, and in which form.
    pub places: Vec<(PathBuf, &'static str)>,
    /// Files looked at.
    pub files: usize,
    /// Bytes looked at.
    pub bytes: usize,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a String cannot fail");
        text
    })
}

fn contains(bytes: &[u8], what: &[u8]) -> bool {
    let Some(first) = what.first() else { return false };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|b| b == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(what) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_in_every_form_and_nowhere_else() {
        let text = "canary-7f3a-yellow-feathers";
        let canary = Canary::new(text);
        for before in ["", "x", "xy", "xyz"] {
            let line = format!("{before}{text} and more");
            assert_eq!(canary.find(line.as_bytes()), Some("plain"));
            for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
                let coded = engine.encode(&line);
                assert_eq!(canary.find(coded.as_bytes()), Some("base64"), "{before}");
            }
            assert_eq!(canary.find(hex(line.as_bytes()).as_bytes()), Some("hexadecimal"));
        }
        assert_eq!(canary.find("canary-7f3b-yellow-feathers".repeat(9).as_bytes()), None);
    }
}
