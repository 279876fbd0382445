//! Asks the person at the terminal; never anybody else.

use std::io::{self, BufRead as _, IsTerminal as _, Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use protocol::limit;

use crate::error::Failure;

/// Whether somebody can be asked.
pub(crate) fn possible() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks for a secret without showing it.
pub(crate) fn secret(question: &str) -> Result<String, Failure> {
    if !possible() {
        return Err(Failure::caller(
            "no-terminal",
            format!("{question} is needed, and there is no terminal to ask at"),
            "give it in a file: see --help",
        ));
    }
    let _hidden = Hidden::start();
    let answer = line(&format!("{question}: "))?;
    eprintln!();
    Ok(answer)
}

/// Asks whether to go on. Where nobody can be asked, it takes `--yes`.
pub(crate) fn confirm(question: &str) -> Result<bool, Failure> {
    if !possible() {
        let message = format!("{question} There is no terminal to ask at");
        return Err(Failure::caller("no-terminal", message, "add --yes if you are sure"));
    }
    let answer = line(&format!("{question} [y/N] "))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn line(question: &str) -> Result<String, Failure> {
    eprint!("{question}");
    let broken = |e: io::Error| Failure::internal(format!("the terminal: {e}"));
    io::stderr().flush().map_err(broken)?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).map_err(broken)?;
    Ok(answer.trim_end_matches(['\r', '\n']).to_owned())
}

/// The first line of a file, for secrets.
pub(crate) fn first_line(path: &Path) -> Result<String, Failure> {
    let file = std::fs::File::open(path).map_err(|e| Failure::file(path, &e))?;
    let mut text = String::new();
    file.take(64 * 1024).read_to_string(&mut text).map_err(|e| Failure::file(path, &e))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// All of stdin, if it is not longer than any message may be.
pub(crate) fn stdin() -> Result<String, Failure> {
    let mut text = String::new();
    let most = u64::try_from(limit::MESSAGE_BYTES).unwrap_or(u64::MAX);
    io::stdin().lock().take(most).read_to_string(&mut text).map_err(|e| {
        Failure::caller("stdin", format!("stdin could not be read as text: {e}"), "send UTF-8")
    })?;
    Ok(text)
}

/// While it lives, the terminal does not show what is typed.
struct Hidden;

impl Hidden {
    fn start() -> Self {
        stty("-echo");
        Self
    }
}

impl Drop for Hidden {
    fn drop(&mut self) {
        stty("echo");
    }
}

fn stty(setting: &str) {
    let ran = Command::new("stty").arg(setting).stdin(Stdio::inherit()).status();
    if !ran.is_ok_and(|s| s.success()) {
        eprintln!("note: the terminal shows what you type");
    }
}
