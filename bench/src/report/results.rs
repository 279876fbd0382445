//! Results of all works, kept beside the page, so that one work can be measured again alone.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::machine::Machine;
use crate::stats::median;

/// Numbers by name. The ending of a name says the unit.
pub type Metrics = BTreeMap<String, f64>;

/// One work: for each system and number its value in each round.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// By system, then by number.
    pub systems: BTreeMap<String, BTreeMap<String, Vec<f64>>>,
    /// The day it was measured.
    #[serde(default)]
    pub day: String,
}

impl Work {
    /// Takes in one round of a system.
    pub fn add(&mut self, system: &str, metrics: Metrics) {
        let values = self.systems.entry(system.to_owned()).or_default();
        for (name, value) in metrics {
            values.entry(name).or_default().push(value);
        }
    }

    /// The middle of all rounds.
    #[must_use]
    pub fn median(&self, system: &str, metric: &str) -> Option<f64> {
        Some(median(self.systems.get(system)?.get(metric)?))
    }

    /// All rounds together.
    #[must_use]
    pub fn sum(&self, system: &str, metric: &str) -> Option<f64> {
        Some(self.systems.get(system)?.get(metric)?.iter().sum())
    }
}

/// How a cost grows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// What grows.
    pub x: String,
    /// What it costs, with its unit.
    pub y: String,
    /// For each line, its points.
    pub lines: BTreeMap<String, Vec<(f64, f64)>>,
}

/// Everything.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Results {
    /// What it was measured on.
    pub machine: Machine,
    /// By name.
    pub works: BTreeMap<String, Work>,
    /// By name.
    pub curves: BTreeMap<String, Curve>,
}

impl Results {
    /// What is kept in `file`; nothing when it is not there.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn load(file: &Path) -> Outcome<Self> {
        if !file.exists() {
            return Ok(Self::default());
        }
        let text = std::fs::read_to_string(file)?;
        Ok(serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()))?)
    }

    /// Keeps it in `file`.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn save(&self, file: &Path) -> Outcome<()> {
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        Ok(std::fs::write(file, serde_json::to_string_pretty(self)? + "\n")?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_are_kept_apart_and_survive_the_file() {
        let mut work = Work::default();
        for value in [3.0, 1.0, 2.0] {
            work.add("Waxwing", Metrics::from([("cpu_us".to_owned(), value)]));
        }
        assert_eq!(work.median("Waxwing", "cpu_us"), Some(2.0));
        assert_eq!(work.sum("Waxwing", "cpu_us"), Some(6.0));
        assert_eq!(work.median("Waxwing", "p99_ms"), None);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/results.json");
        let mut results = Results::default();
        results.works.insert("W1".to_owned(), work.clone());
        results.save(&file).unwrap();
        assert_eq!(Results::load(&file).unwrap().works.get("W1"), Some(&work));
    }
}
