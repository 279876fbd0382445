//! The work that every system is given.
//!
//! | work | is |
//! |---|---|
//! | W1 [`pairs`] | two hundred people in pairs, each with one message under way |
//! | W2 [`room`] | one room of 500, five speakers |
//! | W3 [`absent`] | 20,000 messages to a device that is away, then it comes |
//! | W4 [`idle`] | 5,000 devices that only sign in |
//! | W5 [`pairs`] | fifty pairs across two servers |
//! | W6 [`kill`] | W1, and SIGKILL in the middle of it |

pub mod absent;
pub mod clock;
pub mod gather;
pub mod idle;
pub mod kill;
pub mod pairs;
pub mod plan;
pub mod room;

use crate::letter::Tag;

/// What a speaker has to say.
#[derive(Clone, Copy, Debug)]
pub struct Script {
    /// How many messages.
    pub letters: usize,
    /// Bytes of text in each.
    pub bytes: usize,
}

/// A text of so many bytes that is different for every message.
#[must_use]
pub fn text(tag: Tag, bytes: usize) -> String {
    let mut text = format!("{} says {}: ", tag.sender, tag.number);
    while text.len() < bytes {
        text.push_str("letters sealed with wax, carried by wing; ");
    }
    text.truncate(bytes);
    text
}
