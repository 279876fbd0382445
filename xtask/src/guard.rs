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
/// The long form of `kill` is the one that every shell takes with a group.
const END_GROUP: &str = r#"read _
kill -s TERM -- "-$1" 2>/dev/null || exit 0
for i in 1 2 3 4 5 6 7 8 9 10; do sleep 0.2; kill -s 0 -- "-$1" 2>/dev/null || exit 0; done
kill -s KILL -- "-$1" 2>/dev/null
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether anything of the group is left.
    fn there(group: &str) -> bool {
        let mut kill = Command::new("sh");
        kill.args(["-c", "kill -s 0 -- \"-$1\" 2>/dev/null", "sh", group]);
        kill.status().unwrap().success()
    }

    #[test]
    fn what_a_command_leaves_running_ends_with_it() {
        let mut command = Command::new("sh");
        command.args(["-c", "sleep 300 & echo $$; exit 3"]).stdout(Stdio::piped());
        let mut group = String::new();
        let status = run(command, |child| {
            let output = child.stdout.take().expect("it is piped");
            io::BufRead::read_line(&mut io::BufReader::new(output), &mut group).map(drop)
        });
        assert_eq!(status.unwrap().code(), Some(3));
        assert!(!group.trim().is_empty() && !there(group.trim()), "{group} is still there");
    }

    #[test]
    fn a_guard_whose_starter_dies_ends_the_group() {
        // The outer shell plays a build that is killed: its pipe closes, and nothing else tells the guard.
        let mut group = Command::new("sleep").arg("300").process_group(0).spawn().unwrap();
        let id = group.id().to_string();
        assert!(there(&id));
        let mut guard = Guard::start(END_GROUP, &[&id], None).unwrap();
        drop(guard.shell.stdin.take());
        group.wait().unwrap();
        assert!(!there(&id));
    }
}
