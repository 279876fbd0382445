//! Gets what is compared with from the system's packages, where this user may; nothing that comes with it is left running.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::{Outcome, failed, process};

/// ejabberd with its archive in PostgreSQL.
pub const EJABBERD: &[(&str, &str)] = &[
    ("/usr/sbin/ejabberdctl", "ejabberd"),
    ("/usr/lib/erlang/lib/p1_pgsql-*", "erlang-p1-pgsql"),
    ("/usr/lib/postgresql/*/bin/initdb", "postgresql"),
];
/// Prosody with its archive in its own files.
pub const PROSODY: &[(&str, &str)] =
    &[("/usr/bin/prosody", "prosody"), ("/usr/lib/*/lua/*/ssl.so", "lua-sec")];

/// While it is there, packages do not start their services.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// Installs what is missing.
///
/// # Errors
/// A sentence that says what is missing and why it cannot be had.
pub fn install(wanted: &[(&str, &str)]) -> Outcome<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(file, _)| find(file).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if process::output(Command::new("id").arg("-u"))? != "0" {
        return failed(format!(
            "{names} is not installed, and only root may install it; try: sudo apt-get install {names}"
        ));
    }
    eprintln!("bench: installing {names}");
    let quiet = Quiet::begin()?;
    apt(&["update", "-q", "-q", "-y"])?;
    let install = ["install", "-q", "-q", "-y", "--no-install-recommends"];
    apt(&[&install, missing.as_slice()].concat())?;
    drop(quiet);
    match wanted.iter().find(|(file, _)| find(file).is_none()) {
        None => Ok(()),
        Some((file, package)) => {
            failed(format!("{package} was installed, but {file} is not there"))
        }
    }
}

fn apt(args: &[&str]) -> Outcome<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command.stdout(Stdio::null());
    let status = command.status().map_err(|e| format!("apt-get: {e}"))?;
    if status.success() { Ok(()) } else { failed(format!("apt-get {} failed", args.join(" "))) }
}

/// Keeps services from starting, unless the system has its own word on that.
struct Quiet(bool);

impl Quiet {
    fn begin() -> Outcome<Self> {
        if Path::new(POLICY).exists() {
            return Ok(Self(false));
        }
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))?;
        Ok(Self(true))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        if self.0
            && let Err(e) = fs::remove_file(POLICY)
        {
            eprintln!("bench: {POLICY} cannot be removed: {e}");
        }
    }
}

/// The last file, in order of names, that fits a path in which `*` stands for the rest or the start of a name.
#[must_use]
pub fn find(pattern: &str) -> Option<std::path::PathBuf> {
    let mut found = vec![std::path::PathBuf::from("/")];
    for part in pattern.split('/').filter(|p| !p.is_empty()) {
        let Some((front, back)) = part.split_once('*') else {
            found = found.into_iter().map(|f| f.join(part)).filter(|f| f.exists()).collect();
            continue;
        };
        let mut next = Vec::new();
        for folder in found {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                if name.starts_with(front) && name.ends_with(back) {
                    next.push(entry.path());
                }
            }
        }
        next.sort();
        found = next;
    }
    found.pop()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_a_part_of_a_name() {
        assert!(find("/pro*/self/sta*us").is_some_and(|f| f.ends_with("self/status")));
        assert!(find("/proc/self/no-such-*").is_none());
    }
}
