//! Percentiles of latencies, and medians of rounds.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::{Outcome, float};

/// Latencies, to a microsecond and three digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Latencies {
    /// Nothing recorded yet; takes up to ten minutes.
    ///
    /// # Errors
    /// Never: the bounds are fixed.
    pub fn new() -> Outcome<Self> {
        Ok(Self(Histogram::new_with_bounds(1, 600_000_000, 3)?))
    }

    /// Takes one in.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
    }

    /// Takes all of another's in.
    ///
    /// # Errors
    /// Never: the bounds are the same.
    pub fn add(&mut self, other: &Self) -> Outcome<()> {
        Ok(self.0.add(&other.0)?)
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The latency in milliseconds below which so much of all lie.
    #[must_use]
    pub fn ms(&self, quantile: f64) -> f64 {
        float(self.0.value_at_quantile(quantile)) / 1_000.0
    }
}

/// The middle one; of an even number the mean of the two middle ones.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (low, high) =
        (sorted.get(sorted.len().saturating_sub(1) / 2), sorted.get(sorted.len() / 2));
    match (low, high) {
        (Some(low), Some(high)) => f64::midpoint(*low, *high),
        _ => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_rounds() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latencies = Latencies::new().unwrap();
        for ms in 1..=100 {
            latencies.record(Duration::from_millis(ms));
        }
        assert!((latencies.ms(0.5) - 50.0).abs() < 0.5, "{}", latencies.ms(0.5));
        assert!((latencies.ms(0.99) - 99.0).abs() < 0.5);
    }
}
