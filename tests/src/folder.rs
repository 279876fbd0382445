//! Where tests put their files, and where the programs are.

use std::path::{Path, PathBuf};

use crate::trouble::During as _;
use crate::{Outcome, Trouble};

/// A new folder that goes when dropped: in memory where there is a memory file system, because a slow disk would be all that is measured.
///
/// # Errors
/// When it cannot be made.
pub fn temporary(name: &str) -> Outcome<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let parent = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    tempfile::Builder::new()
        .prefix(&format!("waxwing-{name}-"))
        .tempdir_in(&parent)
        .during(format!("a folder in {}", parent.display()))
}

/// A program of this workspace, which lies beside the test that runs (or one folder up).
///
/// # Errors
/// When it was not built.
pub fn program(name: &str) -> Outcome<PathBuf> {
    let me = std::env::current_exe()?;
    let file = format!("{name}{}", std::env::consts::EXE_SUFFIX);
    me.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(&file))
        .find(|path| path.is_file())
        .ok_or_else(|| {
            Trouble::new(format!("{name} was not built; run: cargo build --workspace --bins"))
        })
}
