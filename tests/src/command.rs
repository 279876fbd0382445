//! The `waxwing` program, as a person or a script runs it.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::{Child, Command};

use crate::trouble::During as _;
use crate::{Outcome, Trouble, folder};

/// One device's folder, used through the program.
#[derive(Clone, Debug)]
pub struct Waxwing {
    folder: PathBuf,
}

/// What a run said and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// The exit code; none when a signal ended it.
    pub code: Option<i32>,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

impl Ran {
    /// The data as JSON.
    ///
    /// # Errors
    /// When it failed or printed something else.
    pub fn json(&self) -> Outcome<serde_json::Value> {
        self.done()?;
        serde_json::from_str(&self.stdout).during(format!("JSON in {:?}", self.stdout))
    }

    /// The error object on stderr.
    ///
    /// # Errors
    /// When there is none.
    pub fn error(&self) -> Outcome<serde_json::Value> {
        let line = self.stderr.lines().last().unwrap_or_default();
        let value: serde_json::Value = serde_json::from_str(line).during(self.stderr.clone())?;
        value.get("error").cloned().ok_or_else(|| Trouble::new(self.stderr.clone()))
    }

    /// That it ended with 0.
    ///
    /// # Errors
    /// When not.
    pub fn done(&self) -> Outcome<()> {
        if self.code == Some(0) {
            return Ok(());
        }
        Trouble::is(format!("waxwing ended with {:?}: {}{}", self.code, self.stdout, self.stderr))
    }
}

impl Waxwing {
    /// The device in this folder.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn command(&self, args: &[&str]) -> Outcome<Command> {
        let mut command = Command::new(folder::program("waxwing")?);
        command.arg("--dir").arg(&self.folder).args(["-o", "jsonl"]).args(args);
        command.env_clear().stdin(Stdio::null()).kill_on_drop(true);
        Ok(command)
    }

    /// Runs it to its end, with JSON out.
    ///
    /// # Errors
    /// When it cannot be started or takes longer than a minute.
    pub async fn run(&self, args: &[&str]) -> Outcome<Ran> {
        let output = self.command(args)?.output();
        let output = tokio::time::timeout(Duration::from_mins(1), output)
            .await
            .map_err(|_| Trouble::new(format!("waxwing {} hangs", args.join(" "))))??;
        Ok(Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Starts it and lets it run; its stdout is piped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn spawn(&self, args: &[&str]) -> Outcome<Child> {
        let mut command = self.command(args)?;
        Ok(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?)
    }

    /// Registers; the password goes by a file beside the folder.
    ///
    /// # Errors
    /// When it fails.
    pub async fn register(&self, line: &str, name: &str, more: &[&str]) -> Outcome<()> {
        let file = self.folder.with_extension("password");
        std::fs::write(&file, crate::device::PASSWORD)?;
        let file = file.display().to_string();
        let args = ["register", line, "--name", name, "--password-file", &file];
        self.run(&[&args, more].concat()).await?.done()
    }
}
