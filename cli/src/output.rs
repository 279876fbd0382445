//! How data is printed. Every JSON field is stable: fields may be added, never changed or removed (docs/CLI.md).

use std::io::{IsTerminal as _, Write as _};

use serde::Serialize;

use crate::args::{Form, Global};
use crate::error::Failure;
use crate::text::{visible, visible_json, visible_lines};

/// Prints in the wanted form.
pub(crate) struct Output {
    form: Form,
    quiet: bool,
    colours: bool,
}

/// Something that can be printed in every form.
pub(crate) trait Show {
    /// Its JSON.
    type Json: Serialize;
    /// The stable form for programs.
    fn json(&self) -> Self::Json;
    /// The form for people, without a line break at the end.
    fn text(&self) -> String;
}

impl Output {
    /// As the flags say.
    pub(crate) fn new(global: &Global) -> Self {
        let colours =
            !global.no_color && crate::place::colours_wanted() && std::io::stderr().is_terminal();
        Self { form: global.output, quiet: global.quiet, colours }
    }

    /// Whether programs read along.
    pub(crate) fn for_programs(&self) -> bool {
        self.form != Form::Text
    }

    /// Prints one thing.
    pub(crate) fn one<T: Show>(&self, thing: &T) -> Result<(), Failure> {
        match self.form {
            Form::Text => self.line(&thing.text()),
            Form::Json | Form::Jsonl => self.value(&thing.json()),
        }
    }

    /// Prints a list that has an end: JSON as one array.
    pub(crate) fn list<T: Show>(&self, things: &[T]) -> Result<(), Failure> {
        match self.form {
            Form::Json => self.value(&things.iter().map(Show::json).collect::<Vec<_>>()),
            Form::Text | Form::Jsonl => things.iter().try_for_each(|t| self.one(t)),
        }
    }

    fn value<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let json = serde_json::to_string(value)
            .map_err(|e| Failure::internal(format!("cannot write JSON: {e}")))?;
        self.line(&visible_json(&json))
    }

    /// One line of data, out at once. A reader who went away ends the program quietly, as programs in a pipe do.
    #[expect(clippy::unused_self, reason = "printing goes through the Output")]
    fn line(&self, line: &str) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        match writeln!(out, "{line}").and_then(|()| out.flush()) {
            Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            Err(e) => Err(Failure::internal(format!("cannot write to stdout: {e}"))),
            Ok(()) => Ok(()),
        }
    }

    /// Says something to the person.
    pub(crate) fn talk(&self, sentence: &str) {
        if !self.quiet {
            eprintln!("{}", visible_lines(sentence));
        }
    }

    /// Says what went wrong.
    pub(crate) fn failure(&self, failure: &Failure) {
        if self.for_programs() {
            let json = serde_json::to_string(&failure.json()).unwrap_or_default();
            eprintln!("{}", visible_json(&json));
            return;
        }
        let (red, plain) = if self.colours { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("", "") };
        eprintln!("{red}error[{}]{plain}: {}", failure.code, visible(&failure.message));
        eprintln!("  it means: {}", failure.matters);
        if let Some(wait) = failure.retry_after {
            eprintln!("  wait: {} s", wait.as_secs().max(1));
        }
        eprintln!("  try: {}", visible(&failure.hint));
    }
}
