//! Where this device's data is, and what opens it. The only place that reads the environment.

use std::path::{Path, PathBuf};

use client::{Client, Seal};

use crate::args::{Global, SignIn};
use crate::error::{Exit, Failure};
use crate::prompt;

/// The file that says, beside an unsealed store, that it is one.
const UNSEALED: &str = "UNSEALED";
/// The SDK's key file (see [`Seal::KeyFile`]).
const KEY_FILE: &str = "seal.key";

/// The device's folder: `--dir`, `WAXWING_DIR`, or the XDG data folder.
pub(crate) fn folder(global: &Global) -> Result<PathBuf, Failure> {
    if let Some(dir) = &global.dir {
        return usable(dir.clone());
    }
    let set = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("XDG_DATA_HOME")
        .filter(|p| p.is_absolute())
        .or_else(|| set("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("waxwing"))
        .ok_or_else(|| Failure {
            exit: Exit::Configuration,
            ..Failure::caller("no-folder", "HOME is not set, so there is no folder", "--dir FOLDER")
        })
}

/// Whether text may be coloured.
pub(crate) fn colours_wanted() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|v| !v.is_empty());
    !set("NO_COLOR") && std::env::var_os("TERM").is_none_or(|t| t != "dumb")
}

/// What the computer is called, for a device's name.
pub(crate) fn computer() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.map_or_else(|_| "computer".to_owned(), |n| n.trim().chars().take(32).collect())
}

/// A folder, or nothing yet.
fn usable(dir: PathBuf) -> Result<PathBuf, Failure> {
    match std::fs::read_dir(&dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => Err(Failure::caller(
            "file",
            format!("{} is not a folder", dir.display()),
            "--dir FOLDER with the folder of a device, or one that does not exist yet",
        )),
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::file(&dir, &e)),
        _ => Ok(dir),
    }
}

fn given_passphrase(global: &Global) -> Result<Option<String>, Failure> {
    if let Some(file) = &global.passphrase_file {
        return prompt::first_line(file).map(Some);
    }
    match std::env::var_os("WAXWING_PASSPHRASE") {
        None => Ok(None),
        Some(value) => value.into_string().map(Some).map_err(|_| Failure {
            exit: Exit::Configuration,
            ..Failure::caller(
                "passphrase",
                "WAXWING_PASSPHRASE is not UTF-8",
                "use --passphrase-file",
            )
        }),
    }
}

/// How a new folder is sealed.
pub(crate) fn new_seal(global: &Global, sign_in: &SignIn) -> Result<Seal, Failure> {
    if sign_in.unsealed {
        eprintln!("warning: --unsealed: anybody who reads this disk reads the messages");
        return Ok(Seal::Unsealed);
    }
    if let Some(passphrase) = given_passphrase(global)? {
        return Ok(Seal::Passphrase(passphrase));
    }
    if !sign_in.passphrase {
        return Ok(Seal::KeyFile);
    }
    let passphrase = prompt::secret("New passphrase")?;
    if passphrase == prompt::secret("The same again")? {
        Ok(Seal::Passphrase(passphrase))
    } else {
        Err(Failure::caller("passphrase", "the two passphrases differ", "try again"))
    }
}

/// Notes how a new folder was sealed, where the SDK's own files do not say it.
pub(crate) fn note_seal(folder: &Path, seal: &Seal) -> Result<(), Failure> {
    if matches!(seal, Seal::Unsealed) {
        let path = folder.join(UNSEALED);
        std::fs::write(&path, "This device's messages are readable on this disk.\n")
            .map_err(|e| Failure::file(&path, &e))?;
    }
    Ok(())
}

/// Opens the device, asking for the passphrase if it must.
pub(crate) async fn open(global: &Global) -> Result<Client, Failure> {
    let folder = folder(global)?;
    let seal = if folder.join(UNSEALED).exists() {
        Seal::Unsealed
    } else if let Some(passphrase) = given_passphrase(global)? {
        Seal::Passphrase(passphrase)
    } else if folder.join(KEY_FILE).exists() || !folder.exists() {
        Seal::KeyFile
    } else if prompt::possible() {
        Seal::Passphrase(prompt::secret("Passphrase")?)
    } else {
        // Without a key file or a passphrase the SDK says what is wrong.
        Seal::KeyFile
    };
    Ok(Client::open(&folder, seal).await?)
}
