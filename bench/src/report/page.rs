//! The page: the machine, the targets, a table for each work, the curves.

use std::fmt::Write as _;

use super::results::{Results, Work};
use super::target::{TARGETS, number};
use crate::Outcome;
use crate::work::plan::{ECHO, INSERT, LIBRARY};

/// Rows of a table, in this order; whoever is not named comes after.
const ORDER: &[&str] = &["Waxwing", "ejabberd", "Prosody", ECHO, INSERT, LIBRARY];

/// A work: its name, what it is, and its columns.
struct Section {
    work: &'static str,
    what: &'static str,
    columns: &'static [(&'static str, &'static str)],
}

const DELIVERY: &[(&str, &str)] = &[
    ("deliveries_per_s", "deliveries/s"),
    ("p50_ms", "p50 ms"),
    ("p99_ms", "p99 ms"),
    ("p999_ms", "p99.9 ms"),
    ("cpu_us", "server µs each"),
    ("load_cpu_us", "load µs each"),
    ("resident_mib", "MiB"),
    ("written", "bytes to disk each"),
];

const SECTIONS: &[Section] = &[
    Section {
        work: "W1",
        what: "Two hundred people in pairs, closed loop, 300 bytes of text",
        columns: &[
            ("deliveries_per_s", "deliveries/s"),
            ("p50_ms", "p50 ms"),
            ("p99_ms", "p99 ms"),
            ("p999_ms", "p99.9 ms"),
            ("cpu_us", "server µs each"),
            ("load_cpu_us", "load µs each"),
            ("resident_mib", "MiB"),
            ("written", "bytes to disk each"),
            ("paced_per_s", "at a pace of /s"),
            ("paced_p50_ms", "p50 ms"),
            ("paced_p99_ms", "p99 ms"),
        ],
    },
    Section { work: "W2", what: "One room of 500, five speakers", columns: DELIVERY },
    Section {
        work: "W3",
        what: "20,000 messages to a device that is away; then it takes them in",
        columns: &[
            ("enqueue_per_s", "handed in/s"),
            ("enqueue_cpu_us", "server µs each"),
            ("written", "bytes to disk each"),
            ("drain_per_s", "taken in/s"),
            ("drain_cpu_us", "server µs each"),
            ("lost", "lost"),
            ("doubled", "doubled"),
            ("disordered", "out of order"),
        ],
    },
    Section {
        work: "W4",
        what: "5,000 idle connections",
        columns: &[
            ("each_kib", "KiB per connection"),
            ("before_mib", "MiB before"),
            ("logins_per_s", "logins/s"),
            ("login_cpu_us", "server µs per login"),
            ("login_load_cpu_us", "load µs per login"),
        ],
    },
    Section { work: "W5", what: "Two federated servers, fifty pairs across", columns: DELIVERY },
    Section {
        work: "W6",
        what: "SIGKILL under the load of W1",
        columns: &[
            ("confirmed", "confirmed"),
            ("lost", "lost"),
            ("undelivered", "undelivered"),
            ("restart_ms", "answers again after ms"),
        ],
    },
    Section {
        work: "commit",
        what: "The hub's check of a commit, by members of the room",
        columns: &[("us_10", "10: µs"), ("us_100", "100: µs"), ("us_1000", "1,000: µs")],
    },
];

/// Writes the page.
///
/// # Errors
/// Never: writing into memory does not fail.
pub fn write(results: &Results) -> Outcome<String> {
    let mut page = HEAD.to_owned();
    let machine = &results.machine;
    writeln!(page, "## Machine\n")?;
    writeln!(page, "- {}, {} MiB of memory", machine.processor, number_of(machine.memory_mib))?;
    writeln!(page, "- {}", machine.system)?;
    writeln!(page, "- data on {}", machine.disk)?;
    writeln!(page, "- {}\n", machine.versions.join(", "))?;
    targets(&mut page, results)?;
    for section in SECTIONS {
        if let Some(work) = results.works.get(section.work) {
            table(&mut page, section, work)?;
        }
    }
    if !results.curves.is_empty() {
        writeln!(page, "## How costs grow\n")?;
    }
    for (name, curve) in &results.curves {
        writeln!(page, "![{} by {}](bench/{name}.svg)\n", curve.y, curve.x)?;
        for (line, points) in &curve.lines {
            let points: Vec<String> =
                points.iter().map(|(x, y)| format!("{}: {}", number(*x), number(*y))).collect();
            writeln!(page, "- {line}, {} by {}: {}", curve.y, curve.x, points.join(" · "))?;
        }
        writeln!(page)?;
    }
    Ok(page.trim_end().to_owned() + "\n")
}

fn number_of(count: u64) -> String {
    number(crate::float(count))
}

fn targets(page: &mut String, results: &Results) -> Outcome<()> {
    writeln!(page, "## Targets\n\n| work | what | must | measured | |\n|---|---|---|---|---|")?;
    for target in TARGETS {
        let (value, verdict) = match target.value(results) {
            None => ("–".to_owned(), "not measured"),
            Some(value) if target.bound.holds(value) => (number(value), "met"),
            Some(value) => (number(value), "**not met**"),
        };
        let (work, what, bound) = (target.work, target.what, target.bound.show());
        writeln!(page, "| {work} | {what} | {bound} | {value} | {verdict} |")?;
    }
    Ok(writeln!(page)?)
}

fn table(page: &mut String, section: &Section, work: &Work) -> Outcome<()> {
    writeln!(page, "## {}: {}\n", section.work, section.what)?;
    let names: Vec<&str> = section.columns.iter().map(|(_, name)| *name).collect();
    writeln!(page, "| | {} |", names.join(" | "))?;
    writeln!(page, "|---|{}", "---:|".repeat(names.len()))?;
    let others = work.systems.keys().map(String::as_str).filter(|s| !ORDER.contains(s));
    for system in ORDER.iter().copied().chain(others) {
        let Some(rounds) = work.systems.get(system).and_then(|m| m.values().map(Vec::len).max())
        else {
            continue;
        };
        let cells: Vec<String> = section
            .columns
            .iter()
            .map(|(metric, _)| {
                work.median(system, metric)
                    .filter(|v| v.is_finite())
                    .map_or_else(|| "–".to_owned(), number)
            })
            .collect();
        writeln!(page, "| {system} ({rounds}) | {} |", cells.join(" | "))?;
    }
    Ok(writeln!(page, "\nMeasured on {}.\n", work.day)?)
}

const HEAD: &str = "\
# Benchmarks

Written by `cargo xtask bench`; `cargo xtask bench W1` measures one work again. The numbers behind it are in [bench/results.json](bench/results.json).

- Every system does the same work on the same machine in turns (A B C A B C …), each time from a fresh start. A number is the median of the rounds, whose count stands in parentheses.
- ejabberd keeps accounts, archive and waiting messages in PostgreSQL with its usual durability; Prosody keeps everything in its own files and never syncs. Both have TLS, and their limits on traffic are off, as ours are.
- Our messages are real MLS ciphertext, encrypted before the clock starts. Theirs are the same text, not encrypted end to end.
- **server µs** is user and system time of the server's whole process tree, its database included, per message that arrived; **load µs** is the time of the load generator, which runs on the same machine. Memory is what the tree holds, shared pages counted once. Bytes to disk are what the kernel counts for the tree.
- **TLS echo** sends back what comes, and **SQLite insert** stores rows of the same size, 64 to a synced transaction: what the machine would allow if there were nothing else to do.

";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::results::Metrics;

    #[test]
    fn a_page_says_what_was_met_and_what_was_not_measured() {
        let mut results = Results::default();
        let mut work = Work::default();
        work.add("Waxwing", Metrics::from([("each_kib".to_owned(), 20.0)]));
        work.add("ejabberd", Metrics::from([("each_kib".to_owned(), 100.0)]));
        results.works.insert("W4".to_owned(), work);
        let page = write(&results).unwrap();
        assert!(page.contains("| W4 | KiB of memory per idle connection | ≤ 32 | 20 | met |"));
        assert!(page.contains("to ejabberd's | ≤ 0.143 | 0.2 | **not met** |"), "{page}");
        assert!(page.contains("| – | not measured |"));
        assert!(page.contains("| Waxwing (1) | 20 | – |"), "{page}");
    }
}
