//! Reads what the tests print, and keeps the counts.

use std::collections::BTreeSet;

/// What ran, and what did not.
#[derive(Default)]
pub(crate) struct Report {
    /// Steps and tests that passed.
    pub(crate) passed: u64,
    /// Steps and tests that failed.
    pub(crate) failed: u64,
    /// Names of what failed.
    pub(crate) failures: Vec<String>,
    /// What was skipped, and why.
    pub(crate) skipped: BTreeSet<String>,
    quiet: bool,
    failing: bool,
}

impl Report {
    /// Counts one step.
    pub(crate) fn step(&mut self, name: &str, passed: bool) {
        if passed {
            self.passed += 1;
        } else {
            self.failed += 1;
            self.failures.push(name.to_owned());
        }
    }

    /// Takes one line of a test program's output; says whether to show it.
    ///
    /// The output of tests that passed is read for what they skipped, and not shown.
    pub(crate) fn line(&mut self, line: &str) -> bool {
        match line.trim_end() {
            "successes:" => (self.quiet, self.failing) = (true, false),
            "failures:" => (self.quiet, self.failing) = (false, true),
            _ => {}
        }
        if let Some(what) = line.trim().strip_prefix("skipped: ") {
            self.skipped.insert(what.to_owned());
        }
        if let Some(rest) = line.strip_prefix("test ") {
            return self.test(rest);
        }
        let noise = line.trim().is_empty() || line.starts_with("running ");
        !self.quiet && (self.failing || !noise)
    }

    fn test(&mut self, rest: &str) -> bool {
        if let Some(counts) = rest.strip_prefix("result: ") {
            (self.quiet, self.failing) = (false, false);
            let (passed, failed) = (count(counts, "passed"), count(counts, "failed"));
            self.passed += passed;
            self.failed += failed;
            return passed + failed > 0;
        }
        if let Some((name, fate)) = rest.split_once(" ... ") {
            if fate.starts_with("FAILED") {
                self.failures.push(name.to_owned());
                return true;
            }
            if let Some(why) = fate.strip_prefix("ignored") {
                let why = why.trim_start_matches([',', ' ']);
                self.skipped.insert(format!("{name} ({why})"));
            }
            return false;
        }
        !self.quiet
    }

    /// The last words: what was skipped, what failed, and the counts.
    pub(crate) fn print(&self) {
        for what in &self.skipped {
            println!("skipped: {what}");
        }
        for what in &self.failures {
            println!("failed: {what}");
        }
        println!("{} passed, {} failed", self.passed, self.failed);
    }
}

/// The number before `word` in "ok. 5 passed; 0 failed; …".
fn count(text: &str, word: &str) -> u64 {
    text.split([';', '.'])
        .find_map(|part| part.trim().strip_suffix(word))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_failures_and_skips_are_read_from_what_tests_print() {
        let mut report = Report::default();
        let shown: Vec<&str> = "
running 4 tests
test a::one ... ok
test a::two ... FAILED
test a::three ... ignored, needs root
test a::four ... ok

successes:

---- a::one stdout ----
skipped: PostgreSQL: WAXWING_POSTGRES is not set
noise

failures:

---- a::two stdout ----
panicked

test result: FAILED. 2 passed; 1 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.05s
test result: ok. 7 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.05s
"
        .lines()
        .filter(|line| report.line(line))
        .collect();
        assert_eq!((report.passed, report.failed), (9, 1));
        assert_eq!(report.failures, ["a::two"]);
        let skipped: Vec<&str> = report.skipped.iter().map(String::as_str).collect();
        assert_eq!(skipped, ["PostgreSQL: WAXWING_POSTGRES is not set", "a::three (needs root)"]);
        assert!(shown.contains(&"panicked") && !shown.contains(&"noise"), "{shown:?}");
    }
}
