//! `cargo xtask test`: everything a contributor must pass, in order, whatever fails before; one summary at the end.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, ExitCode, Stdio};

use crate::postgres::{Cluster, VARIABLE};
use crate::report::Report;
use crate::{cargo, guard, program};

/// Runs it all, or with a filter only the tests that match.
pub(crate) fn run(filter: Option<&str>) -> ExitCode {
    let mut suite = Suite::new();
    if filter.is_none() {
        suite.step("formatting", cargo(&["fmt", "--all", "--check"]));
        let clippy = ["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"];
        suite.step("clippy", cargo(&clippy));
    }
    // The tests start the programs, so these must be as new as the tests.
    if !suite.step("build", cargo(&["build", "--workspace", "--bins"])) {
        return suite.finish();
    }
    suite.tests(filter);
    if filter.is_none() {
        // Speed depends on the disk and its other users, so the bench tells here and judges nothing.
        suite.program("bench: group commit", "group_commit", &[]);
        suite.program("dev check", "waxwing-dev", &["--check"]);
        let mut docs = cargo(&["doc", "--workspace", "--no-deps"]);
        docs.env("RUSTDOCFLAGS", "-D warnings");
        suite.step("documentation", docs);
    } else {
        println!("skipped: everything but the tests that match (no filter runs all)");
    }
    suite.finish()
}

struct Suite {
    report: Report,
    started: std::time::Instant,
}

impl Suite {
    fn new() -> Self {
        Self { report: Report::default(), started: now() }
    }

    /// Runs one command; says whether it passed.
    fn step(&mut self, name: &str, mut command: Command) -> bool {
        println!("── {name}");
        let begun = now();
        command.stdin(Stdio::null());
        let passed = match guard::run(command, |_| Ok(())) {
            Ok(status) => status.success(),
            Err(e) => {
                println!("cannot run it: {e}");
                false
            }
        };
        println!("   {name}: {} in {} s", word(passed), begun.elapsed().as_secs());
        self.report.step(name, passed);
        passed
    }

    /// Runs a program of this workspace.
    fn program(&mut self, name: &str, binary: &str, args: &[&str]) {
        match program(binary) {
            Ok(path) => {
                let mut command = Command::new(path);
                command.args(args).current_dir(crate::root());
                self.step(name, command);
            }
            Err(sentence) => {
                println!("── {name}\n   {sentence}");
                self.report.step(name, false);
            }
        }
    }

    /// All tests of the workspace, with PostgreSQL beside them.
    fn tests(&mut self, filter: Option<&str>) {
        println!("── tests");
        let begun = now();
        let mut command = cargo(&["test", "--workspace", "--no-fail-fast"]);
        command.args(filter).args(["--", "--show-output"]);
        let cluster = if std::env::var_os(VARIABLE).is_some() { None } else { self.cluster() };
        if let Some(cluster) = &cluster {
            command.env(VARIABLE, &cluster.url);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let report = &mut self.report;
        let before = report.failed;
        let ran = guard::run(command, |child| {
            let Some(output) = child.stdout.take() else { return Ok(()) };
            for line in BufReader::new(output).split(b'\n') {
                let line = line?;
                let line = String::from_utf8_lossy(&line);
                if report.line(&line) {
                    println!("{line}");
                }
            }
            Ok(())
        });
        let passed = match ran {
            Ok(status) => status.success(),
            Err(e) => {
                println!("cannot run them: {e}");
                false
            }
        };
        // A test program that crashed or did not build has no counts of its own.
        if !passed && self.report.failed == before {
            self.report.step("tests (a test program did not build or crashed)", false);
        }
        println!("   tests: {} in {} s", word(passed), begun.elapsed().as_secs());
    }

    fn cluster(&mut self) -> Option<Cluster> {
        match Cluster::start() {
            Ok(cluster) => Some(cluster),
            Err(sentence) => {
                self.report.skipped.insert(format!("everything on PostgreSQL: {sentence}"));
                None
            }
        }
    }

    fn finish(self) -> ExitCode {
        println!("── {} s in all", self.started.elapsed().as_secs());
        self.report.print();
        if self.report.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

const fn word(passed: bool) -> &'static str {
    if passed { "passed" } else { "FAILED" }
}

#[expect(clippy::disallowed_methods, reason = "only tells the person how long a step took")]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}
