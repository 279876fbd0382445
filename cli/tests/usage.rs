//! The program from outside, as far as it goes without a node: usage, exit codes, errors for people and for programs.

use std::path::Path;
use std::process::{Command, Output};

fn waxwing(dir: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_waxwing"))
        .args(args)
        .env_clear()
        .env("WAXWING_DIR", dir)
        .output()
        .expect("the program starts")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_wrong_word_is_answered_with_the_right_one_and_exit_code_2() {
    let dir = Path::new("/nonexistent/waxwing");
    let output = waxwing(dir, &["romo"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("'room'"), "{}", stderr(&output));
    assert_eq!(waxwing(dir, &["read", "x", "--limit", "many"]).status.code(), Some(2));
}

#[test]
fn the_version_is_that_of_the_package_and_names_a_commit_or_none() {
    for flag in ["-V", "--version"] {
        let output = waxwing(Path::new("/nonexistent/waxwing"), &[flag]);
        assert_eq!(output.status.code(), Some(0));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let rest = text.trim().strip_prefix(concat!("waxwing ", env!("CARGO_PKG_VERSION")));
        let rest = rest.unwrap_or_else(|| panic!("{text}"));
        let commit = rest.strip_prefix(" (commit ").and_then(|r| r.strip_suffix(')'));
        let named = commit.is_some_and(|c| !c.is_empty() && !c.contains(char::is_whitespace));
        assert!(rest.is_empty() || named, "{text}");
    }
}

#[test]
fn a_folder_without_an_account_says_how_to_get_one() {
    let dir = Path::new("/nonexistent/waxwing");
    let output = waxwing(dir, &["whoami"]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(output.stdout.is_empty());
    let text = stderr(&output);
    assert!(text.starts_with("error[no-account]: ") && text.contains("waxwing register"), "{text}");
    let output = waxwing(dir, &["-o", "json", "whoami"]);
    let json: serde_json::Value = serde_json::from_str(&stderr(&output)).expect("JSON on stderr");
    assert_eq!(json["error"]["code"], "no-account");
    assert_eq!(json["error"]["retryable"], false);
    assert!(json["error"]["hint"].as_str().is_some_and(|h| h.contains("register")));
}

#[test]
fn a_damaged_line_is_refused_before_anything_is_written() {
    let dir = std::env::temp_dir().join(format!("waxwing-usage-{}", std::process::id()));
    let password = dir.with_extension("password");
    std::fs::write(&password, "long enough\n").expect("a temporary file");
    let file = password.display().to_string();
    let line = "waxwing-invite:1:a.example:cut";
    let args = ["register", line, "--name", "ana", "--password-file", &file];
    let output = waxwing(&dir, &args);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    assert!(stderr(&output).starts_with("error[bad-line]"), "{}", stderr(&output));
    assert!(!dir.exists(), "a folder was made for nothing");
    std::fs::remove_file(password).expect("the temporary file is there");
}
