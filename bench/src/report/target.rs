//! What must be reached, as ratios of numbers of the same run.

use super::results::{Results, Work};
use crate::work::plan::{ECHO, LIBRARY};

const OURS: &str = "Waxwing";
const REFERENCE: &str = "ejabberd";

/// On which side of the bound is the good one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// At most.
    AtMost(f64),
    /// At least.
    AtLeast(f64),
}

impl Bound {
    /// Whether a value is on the good side.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
        }
    }

    /// For people.
    #[must_use]
    pub fn show(self) -> String {
        match self {
            Self::AtMost(bound) => format!("≤ {}", number(bound)),
            Self::AtLeast(bound) => format!("≥ {}", number(bound)),
        }
    }
}

/// Three digits are enough for anybody.
#[must_use]
pub fn number(value: f64) -> String {
    let text = match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    };
    match text.split_once('.') {
        Some(_) => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        None => grouped(&text),
    }
}

fn grouped(digits: &str) -> String {
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits), |d| ("-", d));
    let mut out = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    format!("{sign}{out}")
}

/// One target.
pub struct Target {
    /// Which work.
    pub work: &'static str,
    /// What is compared.
    pub what: &'static str,
    /// The bound.
    pub bound: Bound,
    value: fn(&Work) -> Option<f64>,
}

impl Target {
    /// What was reached, if it was measured.
    #[must_use]
    pub fn value(&self, results: &Results) -> Option<f64> {
        (self.value)(results.works.get(self.work)?).filter(|v| v.is_finite())
    }
}

/// Ours, as a multiple of theirs.
fn ratio(work: &Work, metric: &str, theirs: &str) -> Option<f64> {
    Some(work.median(OURS, metric)? / work.median(theirs, metric)?)
}

fn faster(work: &Work, metric: &str) -> Option<f64> {
    ratio(work, metric, REFERENCE)
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target {
        work: "W1",
        what: "processor time per delivered message, to ejabberd's",
        bound: Bound::AtMost(0.05),
        value: |w| ratio(w, "cpu_us", REFERENCE),
    },
    Target {
        work: "W1",
        what: "processor time per delivered message, to the TLS echo's",
        bound: Bound::AtMost(8.0),
        value: |w| ratio(w, "cpu_us", ECHO),
    },
    Target {
        work: "W1",
        what: "deliveries per second, to ejabberd's",
        bound: Bound::AtLeast(20.0),
        value: |w| faster(w, "deliveries_per_s"),
    },
    Target {
        work: "W1",
        what: "p99 latency at half of ejabberd's peak rate, to ejabberd's",
        bound: Bound::AtMost(0.1),
        value: |w| ratio(w, "paced_p99_ms", REFERENCE),
    },
    Target {
        work: "W1",
        what: "bytes written to disk per message, to the ciphertext's",
        bound: Bound::AtMost(3.0),
        value: |w| Some(w.median(OURS, "written")? / w.median(OURS, "content")?),
    },
    Target {
        work: "W2",
        what: "processor time per delivery, to ejabberd's",
        bound: Bound::AtMost(1.0 / 15.0),
        value: |w| ratio(w, "cpu_us", REFERENCE),
    },
    Target {
        work: "W2",
        what: "processor time per delivery, to the TLS echo's",
        bound: Bound::AtMost(2.0),
        value: |w| ratio(w, "cpu_us", ECHO),
    },
    Target {
        work: "W3",
        what: "messages handed in per second, to ejabberd's",
        bound: Bound::AtLeast(20.0),
        value: |w| faster(w, "enqueue_per_s"),
    },
    Target {
        work: "W3",
        what: "messages taken in per second, to ejabberd's",
        bound: Bound::AtLeast(8.0),
        value: |w| faster(w, "drain_per_s"),
    },
    Target {
        work: "W3",
        what: "messages lost, doubled or out of order",
        bound: Bound::AtMost(0.0),
        value: |w| {
            Some(w.sum(OURS, "lost")? + w.sum(OURS, "doubled")? + w.sum(OURS, "disordered")?)
        },
    },
    Target {
        work: "W4",
        what: "KiB of memory per idle connection",
        bound: Bound::AtMost(32.0),
        value: |w| w.median(OURS, "each_kib"),
    },
    Target {
        work: "W4",
        what: "memory per idle connection, to ejabberd's",
        bound: Bound::AtMost(1.0 / 7.0),
        value: |w| ratio(w, "each_kib", REFERENCE),
    },
    Target {
        work: "W4",
        what: "memory per idle connection, to Prosody's",
        bound: Bound::AtMost(0.5),
        value: |w| ratio(w, "each_kib", "Prosody"),
    },
    Target {
        work: "W4",
        what: "logins per second, to ejabberd's",
        bound: Bound::AtLeast(5.0),
        value: |w| faster(w, "logins_per_s"),
    },
    Target {
        work: "W5",
        what: "processor time per delivered message over both servers, to ejabberd's",
        bound: Bound::AtMost(1.0 / 15.0),
        value: |w| ratio(w, "cpu_us", REFERENCE),
    },
    Target {
        work: "W6",
        what: "messages confirmed and lost or undelivered",
        bound: Bound::AtMost(0.0),
        value: |w| w.sum(OURS, "undelivered"),
    },
    Target {
        work: "commit",
        what: "hub's check of a commit at 1,000 members, to OpenMLS's own processing",
        bound: Bound::AtMost(1.5),
        value: |w| ratio(w, "us_1000", LIBRARY),
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::results::Metrics;

    #[test]
    fn numbers_have_three_digits() {
        for (value, text) in
            [(0.0, "0"), (0.0512, "0.051"), (1.5, "1.5"), (42.04, "42"), (1_234_567.0, "1,234,567")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn a_ratio_is_ours_to_theirs() {
        let mut work = Work::default();
        work.add(OURS, Metrics::from([("cpu_us".to_owned(), 50.0)]));
        assert_eq!(ratio(&work, "cpu_us", REFERENCE), None);
        work.add(REFERENCE, Metrics::from([("cpu_us".to_owned(), 2_000.0)]));
        assert_eq!(ratio(&work, "cpu_us", REFERENCE), Some(0.025));
        assert!(Bound::AtMost(0.05).holds(0.025) && !Bound::AtLeast(20.0).holds(19.9));
    }
}
