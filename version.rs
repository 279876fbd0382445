//! The build script of both programs: their version, and the commit that they were built from where that is known.
//!
//! `WAXWING_COMMIT` names it for whoever builds from an archive. In a checkout git is asked, for release builds only: in the others every
//! commit would build the node and all that uses it anew.

use std::env::var_os;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo:rerun-if-env-changed=WAXWING_COMMIT");
    println!("cargo:rerun-if-changed=../version.rs");
    let version = env_text("CARGO_PKG_VERSION");
    let given = env_text("WAXWING_COMMIT");
    let commit = if given.is_empty() { of_checkout() } else { Some(given) };
    let version = commit.map_or(version.clone(), |commit| format!("{version} (commit {commit})"));
    println!("cargo:rustc-env=WAXWING_VERSION={version}");
}

fn env_text(name: &str) -> String {
    var_os(name).and_then(|value| value.into_string().ok()).unwrap_or_default()
}

fn of_checkout() -> Option<String> {
    let root = PathBuf::from(var_os("CARGO_MANIFEST_DIR")?).parent()?.to_owned();
    // An archive that was unpacked inside some other checkout is not of its commit.
    if env_text("PROFILE") != "release" || !root.join(".git").exists() {
        return None;
    }
    let commit = git(&root, &["rev-parse", "--short=12", "HEAD"])?;
    // It grows with every commit and every change of branch.
    let log = root.join(git(&root, &["rev-parse", "--git-path", "logs/HEAD"])?);
    if log.exists() {
        println!("cargo:rerun-if-changed={}", log.display());
    }
    Some(commit)
}

fn git(root: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(root).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}
