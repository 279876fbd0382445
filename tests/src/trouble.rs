//! One error for everything that can go wrong in a test: a sentence.

use std::fmt;

/// What went wrong, for the person who reads the test's output.
pub struct Trouble(String);

/// What the harness returns.
pub type Outcome<T> = Result<T, Trouble>;

impl Trouble {
    /// Says what went wrong.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }

    /// `Err` of it.
    ///
    /// # Errors
    /// Always.
    pub fn is<T>(sentence: impl Into<String>) -> Outcome<T> {
        Err(Self::new(sentence))
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// A test that returns an error prints it with Debug.
impl fmt::Debug for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<E: std::error::Error> From<E> for Trouble {
    fn from(error: E) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            source = cause.source();
        }
        Self(text)
    }
}

/// Adds where something went wrong.
pub trait During<T> {
    /// Says what was being done.
    ///
    /// # Errors
    /// When it was one.
    fn during(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: Into<Trouble>> During<T> for Result<T, E> {
    fn during(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|e| Trouble(format!("{what}: {}", e.into().0)))
    }
}

impl<T> During<T> for Option<T> {
    fn during(self, what: impl fmt::Display) -> Outcome<T> {
        self.ok_or_else(|| Trouble(format!("{what}: missing")))
    }
}
