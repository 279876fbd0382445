//! House rules as a test: arrows between crates, sizes, banned words, migration pairs, and that every clause the code cites exists.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Which of our crates each crate may use. An arrow that is not here fails.
const ARROWS: &[(&str, &[&str])] = &[
    ("protocol", &[]),
    ("crypto", &["protocol"]),
    ("delivery", &["protocol"]),
    ("federation", &["protocol", "crypto", "delivery"]),
    ("client", &["protocol", "crypto", "delivery"]),
    ("node", &["protocol", "crypto", "delivery", "federation"]),
    ("cli", &["protocol", "crypto", "delivery", "client"]),
    ("bench", &["protocol", "crypto", "delivery", "federation", "client", "node"]),
    ("tests", &["protocol", "crypto", "delivery", "federation", "client", "node"]),
    ("tests/simulation", &["protocol", "delivery"]),
    ("tests/faults", &["protocol", "crypto", "delivery", "federation", "client", "node", "tests"]),
    ("xtask", &[]),
];

/// Which foreign crates each crate must not use.
const BANNED_CRATES: &[(&str, &[&str])] = &[
    ("protocol", &["tokio", "sqlx", "hyper", "openmls", "axum", "rustls", "getrandom", "time"]),
    ("crypto", &["tokio", "sqlx", "hyper", "axum", "rustls"]),
    ("delivery", &["tokio", "sqlx", "hyper", "openmls", "axum", "rustls", "getrandom", "serde"]),
    ("federation", &["sqlx", "openmls", "axum"]),
];

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("the tests crate lies in the workspace")
        .to_owned()
}

fn walk(dir: &Path, ending: &str, out: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                walk(&path, ending, out);
            }
        } else if path.to_string_lossy().ends_with(ending) {
            out.push(path);
        }
    }
}

fn files(ending: &str) -> Vec<(PathBuf, String)> {
    let mut paths = Vec::new();
    walk(&root(), ending, &mut paths);
    paths.sort();
    assert!(!paths.is_empty(), "found no {ending} files: the walk is broken");
    let read = |p: PathBuf| {
        let text = fs::read_to_string(&p).expect("a file that was listed can be read");
        (p.strip_prefix(root()).expect("it lies under the root").to_owned(), text)
    };
    paths.into_iter().map(read).collect()
}

/// The names under `[dependencies]` of a manifest; dev-dependencies are free.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let parsed: toml::Table = manifest.parse().expect("cargo reads it too");
    let table = parsed.get("dependencies").and_then(|d| d.as_table()).cloned().unwrap_or_default();
    table.keys().cloned().collect()
}

#[test]
fn crates_use_only_what_their_layer_allows() {
    let ours: BTreeSet<&str> = ARROWS.iter().map(|(n, _)| *n).collect();
    let workspace: toml::Table =
        fs::read_to_string(root().join("Cargo.toml")).unwrap().parse().unwrap();
    let members: BTreeSet<String> = workspace["workspace"]["members"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m.as_str().unwrap().to_owned())
        .collect();
    assert_eq!(members, ours.iter().map(|s| (*s).to_owned()).collect(), "a crate without a layer");
    let banned: BTreeMap<&str, &[&str]> = BANNED_CRATES.iter().copied().collect();
    let mut wrong = Vec::new();
    for (name, allowed) in ARROWS {
        let manifest = fs::read_to_string(root().join(name).join("Cargo.toml")).unwrap();
        for dependency in dependencies(&manifest) {
            if ours.contains(dependency.as_str()) && !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{name} -> {dependency} is not an arrow of the design"));
            }
            if banned.get(name).is_some_and(|b| b.contains(&dependency.as_str())) {
                wrong.push(format!("{name} must not use {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Lines that are code: not blank, not a comment, before the inline tests.
fn code_lines(text: &str) -> Vec<&str> {
    let code = text.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    code.lines().filter(|l| !l.trim().is_empty() && !l.trim().starts_with("//")).collect()
}

fn is_test_code(path: &Path) -> bool {
    let p = path.to_string_lossy();
    p.starts_with("tests/") || p.contains("/tests/") || p.ends_with("/tests.rs")
}

#[test]
fn files_stay_small() {
    let long: Vec<_> = files(".rs")
        .iter()
        .filter(|(p, t)| !is_test_code(p) && code_lines(t).len() > FILE_LINES)
        .map(|(p, t)| format!("{}: {} code lines", p.display(), code_lines(t).len()))
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES} code lines:\n{}", long.join("\n"));
}

/// `(first line, length)` of each function, by brace depth. Good enough because the code is formatted by rustfmt.
fn functions(text: &str) -> Vec<(usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        let start = line.trim_start();
        let is_fn = [
            "fn ",
            "pub fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) fn ",
            "pub(crate) async fn ",
            "const fn ",
            "pub const fn ",
        ]
        .iter()
        .any(|p| start.starts_with(p));
        if !is_fn {
            continue;
        }
        let indent = line.len() - start.len();
        let close = format!("{}}}", " ".repeat(indent));
        let end = lines.iter().skip(i).position(|l| {
            *l == close || l.ends_with(';') && l.len() - l.trim_start().len() == indent
        });
        found.push((i + 1, end.map_or(1, |n| n + 1)));
    }
    found
}

#[test]
fn functions_stay_small() {
    let mut long = Vec::new();
    let mut seen = 0;
    for (path, text) in files(".rs") {
        for (line, length) in functions(&text) {
            seen += 1;
            // The signature and the closing brace come on top of the body that clippy counts.
            if length > FUNCTION_LINES + 12 {
                long.push(format!("{}:{line}: {length} lines", path.display()));
            }
        }
    }
    assert!(seen > 100, "the reading of functions is broken: {seen}");
    assert!(long.is_empty(), "over {FUNCTION_LINES} lines:\n{}", long.join("\n"));
}

/// `(what, why, files where it may stand)`.
const BANNED_TEXT: &[(&str, &str, &[&str])] = &[
    ("SystemTime::now", "time comes from a Clock", &["node/src/clock.rs", "client/src/clock.rs"]),
    (
        "getrandom::fill",
        "chance comes from an Entropy",
        &["node/src/clock.rs", "client/src/clock.rs"],
    ),
    ("thread_rng(", "chance comes from an Entropy", &[]),
    ("rand::rng(", "chance comes from an Entropy", &[]),
    ("Uuid::new_v4", "chance comes from an Entropy", &[]),
    ("unbounded_channel", "every queue has a bound", &[]),
    ("AssertSqlSafe", "SQL is static text", &[]),
    ("todo!(", "unfinished", &[]),
    ("unimplemented!(", "unfinished", &[]),
    ("#[ignore", "a test that does not run proves nothing", &[]),
    ("#[allow(", "use #[expect(lint, reason = ...)]", &[]),
    ("unsafe {", "no unsafe", &["tests/faults/src/vfs.rs"]),
];

#[test]
fn banned_words_stay_out() {
    let mut wrong = Vec::new();
    for (path, text) in files(".rs") {
        if path.ends_with("tidy.rs") {
            continue;
        }
        let shown = path.to_string_lossy().into_owned();
        for (word, why, allowed) in BANNED_TEXT {
            let test_may =
                is_test_code(&path) && (word.contains("SystemTime") || word.contains("getrandom"));
            if test_may || allowed.contains(&shown.as_str()) {
                continue;
            }
            // Inline tests may read the clock; everything else counts for the whole file.
            let scope = if word.contains("SystemTime") || word.contains("getrandom") {
                code_lines(&text).join("\n")
            } else {
                text.clone()
            };
            if scope.contains(word) {
                wrong.push(format!("{shown}: {word}: {why}"));
            }
        }
        if shown.starts_with("delivery/src") || shown.starts_with("protocol/src") {
            for word in ["async ", ".await", "HashMap", "HashSet"] {
                if code_lines(&text).join("\n").contains(word) {
                    wrong.push(format!(
                        "{shown}: {word}: this crate is pure and its order is defined"
                    ));
                }
            }
        }
        if !shown.starts_with("node/src/store")
            && !shown.starts_with("client/src/store")
            && !is_test_code(&path)
            && !shown.starts_with("bench")
        {
            for word in ["sqlx::query", "query_as("] {
                if text.contains(word) {
                    wrong.push(format!("{shown}: {word}: SQL lives in the stores"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn both_databases_have_the_same_migrations() {
    let names = |dialect: &str| -> Vec<String> {
        let dir = root().join("migrations/node").join(dialect);
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    assert!(!names("sqlite").is_empty());
    assert_eq!(names("sqlite"), names("postgres"));
}

/// Every `§n` and `§n.m` after the word PROTOCOL.
fn cited(text: &str) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for (at, _) in text.match_indices("PROTOCOL §") {
        let rest = &text[at + "PROTOCOL §".len()..];
        let clause: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == '.').collect();
        out.insert(clause.trim_end_matches('.').to_owned());
    }
    out
}

#[test]
fn every_cited_clause_exists() {
    let protocol = fs::read_to_string(root().join("docs/PROTOCOL.md")).unwrap();
    let clauses: BTreeSet<String> = protocol
        .lines()
        .filter(|l| l.starts_with("## ") || l.starts_with("### "))
        .filter_map(|l| l.trim_start_matches('#').split_whitespace().next())
        .map(|n| n.trim_end_matches('.').to_owned())
        .collect();
    let mut cites = 0;
    let mut missing = Vec::new();
    for (path, text) in files(".rs").into_iter().chain(files(".sql")) {
        if path.ends_with("tidy.rs") {
            continue;
        }
        for clause in cited(&text) {
            cites += 1;
            if !clauses.contains(&clause) {
                missing.push(format!("{}: PROTOCOL §{clause}", path.display()));
            }
        }
    }
    assert!(cites > 20, "the reading of citations is broken: {cites}");
    assert!(missing.is_empty(), "no such clause:\n{}", missing.join("\n"));
}

#[test]
fn every_refusal_code_is_in_the_protocol() {
    let protocol = fs::read_to_string(root().join("docs/PROTOCOL.md")).unwrap();
    for code in protocol::Code::ALL {
        assert!(protocol.contains(&format!("| `{code}` |")), "{code} is not in PROTOCOL section 3");
    }
}

#[test]
fn the_documents_a_newcomer_needs_are_there() {
    for name in [
        "README.md",
        "CHANGELOG.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "docs/ARCHITECTURE.md",
        "docs/PROTOCOL.md",
        "docs/THREAT-MODEL.md",
    ] {
        assert!(root().join(name).is_file(), "{name} is missing");
    }
    assert!(fs::read_dir(root().join("docs/decisions")).unwrap().count() > 0);
}
