//! Measurements side by side: Waxwing, and what people would pick instead.
//!
//! | module | holds |
//! |---|---|
//! | [`process`], [`machine`], [`stats`] | what is measured: processor time, memory and writes of whole process trees; percentiles |
//! | [`letter`], [`link`], [`server`] | what every system has: people, prepared messages, connections, processes |
//! | [`waxwing`] | our node, its people and rooms, its streams |
//! | [`xmpp`] | ejabberd, Prosody, and a client for both |
//! | [`ceiling`] | what TLS and the disk alone would allow |
//! | [`work`] | the work W1 to W6 |
//! | [`curve`] | how costs grow |
//! | [`micro`] | single steps, for the micro benches |
//! | [`report`] | results, ratios, the page and its plots |

pub mod ceiling;
pub mod curve;
pub mod letter;
pub mod link;
pub mod machine;
pub mod micro;
pub mod process;
pub mod report;
pub mod server;
pub mod stats;
pub mod tls;
pub mod waxwing;
pub mod work;
pub mod xmpp;

/// What went wrong, for the person at the terminal.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;
/// What a step of a measurement gives.
pub type Outcome<T> = Result<T, Failure>;

/// A failure with this sentence.
///
/// # Errors
/// Always.
pub fn failed<T>(what: impl Into<String>) -> Outcome<T> {
    Err(what.into().into())
}

/// A count as a number to divide.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
pub fn float(count: u64) -> f64 {
    count as f64
}
