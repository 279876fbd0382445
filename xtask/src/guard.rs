//! Leaves no process behind, however this one ends.
//!
//! A guard is a small shell in a process group of its own that waits on a pipe. The pipe closes when we drop it or when this
//! process dies in any way (Ctrl-C, SIGKILL, a closed terminal); then the shell cleans up.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A shell script that runs once this process has ended or let go of it.
pub(crate) struct Guard {
    shell: Child,
}

impl Guard {
    /// Starts `script`, as another system user where one is given. Its `read` returns when the time to clean up has come;
    /// `args` are its `$1`, `$2`, and so on.
    pub(crate) fn start(script: &str, args: &[&str], user: Option<(u32, u32)>) -> io::Result<Self> {
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "xtask-guard"]).args(args).stdin(Stdio::piped());
        if let Some((uid, gid)) = user {
            shell.uid(uid).gid(gid).current_dir("/");
        }
        shell.process_group(0).spawn().map(|shell| Self { shell })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.shell.stdin.take());
        if let Err(e) = self.shell.wait() {
            eprintln!("xtask: a clean-up shell went away: {e}");
        }
    }
}

/// Asks the group to end, and after a moment makes it.
const END_GROUP: &str = r#"read _
kill -TERM -- "-$1" 2>/dev/null || exit 0
for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2; kill -0 -- "-$1" 2>/dev/null || exit 0; done
kill -KILL -- "-$1" 2>/dev/null
exit 0"#;

/// Starts `command` in a process group of its own, lets `work` follow it, waits for it, and ends whatever it left running.
pub(crate) fn run<F>(mut command: Command, work: F) -> io::Result<ExitStatus>
where
    F: FnOnce(&mut Child) -> io::Result<()>,
{
    let mut child = command.process_group(0).spawn()?;
    let guard = Guard::start(END_GROUP, &[&child.id().to_string()], None);
    let worked = work(&mut child);
    let status = child.wait();
    drop(guard?);
    worked?;
    status
}
