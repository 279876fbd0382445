//! Makes text from others safe to show on a terminal.

use std::fmt::Write as _;

/// Whether a terminal might act on the character, or a reader be deceived by it: control characters, and the invisible
/// ones that turn the direction of writing around or hide in it.
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// One line of text with everything hidden made visible: `\e`, `\u{202e}`, and so on.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{1b}' => out.push_str("\\e"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if hidden(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

/// A message's text: its line breaks kept, each further line marked so that it cannot pass for a message of its own.
pub(crate) fn visible_lines(text: &str) -> String {
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n    | ")
}

/// JSON in which no character is hidden: they only occur inside strings, where JSON has an escape for each.
pub(crate) fn visible_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let mut units = [0; 2];
    for c in json.chars() {
        if hidden(c) && c != '\n' {
            for unit in c.encode_utf16(&mut units) {
                write!(out, "\\u{unit:04x}").expect("writing to a String cannot fail");
            }
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_a_terminal_acts_on_gets_through() {
        assert_eq!(visible("a\u{1b}[31mb\u{9b}2J"), "a\\e[31mb\\u{9b}2J");
        assert_eq!(visible("x\u{202e}y\r\n"), "x\\u{202e}y\\r\\n");
        assert_eq!(visible("grüße 👩‍👩‍👧 ok"), "grüße 👩‍👩‍👧 ok");
        assert_eq!(visible_lines("one\n12:00 @bob@b: two"), "one\n    | 12:00 @bob@b: two");
        for code in (0..0x20).chain(0x7f..0xa0) {
            let c = char::from_u32(code).unwrap();
            assert!(!visible(&c.to_string()).chars().any(char::is_control), "{code:x}");
        }
    }

    #[test]
    fn json_stays_the_same_value() {
        let text = "a\u{1b}\u{9b}\u{202e}\u{e0041}\n\"";
        let json = visible_json(&serde_json::to_string(text).unwrap());
        assert!(json.is_ascii(), "{json}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }
}
