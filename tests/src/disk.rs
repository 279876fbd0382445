//! A small disk of its own for one test, which can be filled to the last byte.

use std::fs::File;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;
use crate::trouble::During as _;

/// A small file system in memory, taken away when dropped.
pub struct SmallDisk(PathBuf);

/// What [`SmallDisk::fill`] writes at a time.
const BLOCK: usize = 1024 * 1024;

impl SmallDisk {
    /// Makes one at `folder`; none where this user may not.
    #[must_use]
    pub fn mount(folder: &Path, mib: u32) -> Option<Self> {
        std::fs::create_dir_all(folder).ok()?;
        let size = format!("size={mib}m");
        let args = ["-t", "tmpfs", "-o", &size, "tmpfs"];
        let mounted = Command::new("mount").args(args).arg(folder).output().ok()?;
        mounted.status.success().then(|| Self(folder.to_owned()))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }

    /// What is free, in MiB.
    ///
    /// # Errors
    /// When `df` does not say.
    pub fn free_mib(&self) -> Outcome<u64> {
        let output = Command::new("df").args(["-Pm", "."]).current_dir(&self.0).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let free = text.lines().nth(1).and_then(|l| l.split_whitespace().nth(3));
        Ok(free.during("df")?.parse()?)
    }

    /// Fills all but so many MiB.
    ///
    /// # Errors
    /// When the disk fails in another way than by being full.
    pub fn fill(&self, leave_mib: u64) -> Outcome<()> {
        let mut file = File::options().create(true).append(true).open(self.filler())?;
        for _ in leave_mib..self.free_mib()? {
            file.write_all(&[b'x'; BLOCK])?;
        }
        Ok(())
    }

    /// Fills it to the last byte, whatever somebody gives up meanwhile; how many bytes that took.
    ///
    /// # Errors
    /// When the disk fails in another way than by being full.
    pub fn brim(&self) -> Outcome<u64> {
        let mut file = File::options().create(true).append(true).open(self.filler())?;
        let (mut step, mut written) = (BLOCK, 0);
        while step > 0 {
            match file.write(&vec![b'x'; step]) {
                Ok(n) => written += n as u64,
                Err(e) if e.kind() == ErrorKind::StorageFull => step /= 2,
                Err(e) => return Err(e.into()),
            }
        }
        Ok(written)
    }

    /// Gives back what was filled.
    ///
    /// # Errors
    /// When nothing was.
    pub fn free(&self) -> Outcome<()> {
        std::fs::remove_file(self.filler()).during("the filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let gone = Command::new("umount").arg("-l").arg(&self.0).status();
        if !gone.is_ok_and(|s| s.success()) {
            eprintln!("{} is still mounted", self.0.display());
        }
    }
}
