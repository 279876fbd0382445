//! Another wall clock for one process, by libfaketime. The monotonic clock goes on as it is, as it does when a real clock is set.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tests::node::Node;
use tests::trouble::During as _;
use tests::{Outcome, Trouble};

/// The time of one node.
pub struct Clock {
    file: PathBuf,
}

impl Clock {
    /// Prepares the node: from its next start on, [`Clock::shift`] moves its clock. None where the library is missing and cannot be
    /// installed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn of(node: &mut Node, folder: &Path) -> Outcome<Option<Self>> {
        let Some(library) = find().or_else(install) else { return Ok(None) };
        let clock = Self { file: folder.join(format!("clock-{}", node.domain())) };
        clock.shift(0)?;
        node.set_variable("LD_PRELOAD", library);
        node.set_variable("FAKETIME_TIMESTAMP_FILE", clock.file.as_os_str());
        for (name, value) in [
            ("FAKETIME_NO_CACHE", "1"),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
            ("DONT_FAKE_MONOTONIC", "1"),
            ("NO_FAKE_STAT", "1"),
            ("FAKETIME_DONT_RESET", "1"),
        ] {
            node.set_variable(name, value);
        }
        Ok(Some(clock))
    }

    /// Its clock shows this many seconds more (or less) than ours from now on.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn shift(&self, seconds: i64) -> Outcome<()> {
        // Written aside: the process may read it at any moment.
        let fresh = self.file.with_extension("new");
        fs::write(&fresh, format!("{seconds:+}\n")).during(fresh.display())?;
        fs::rename(&fresh, &self.file).map_err(Trouble::from)
    }
}

fn find() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.flatten().map(|e| e.path());
    let candidates = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1"));
    candidates.into_iter().find(|file| file.is_file())
}

/// With the system's package manager, where this user may.
fn install() -> Option<PathBuf> {
    for args in [
        ["update", "-q", "-y"].as_slice(),
        &["install", "-q", "-y", "--no-install-recommends", "libfaketime"],
    ] {
        let mut command = Command::new("apt-get");
        command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
        if !command.output().ok()?.status.success() {
            return None;
        }
    }
    find()
}
