//! The time that counts, between warming up and the end, and what was used in it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use crate::process::{self, Usage};
use crate::stats::Latencies;
use crate::{Outcome, failed};

/// Shared by all who work and the one who measures.
#[derive(Clone)]
pub struct Clock(Arc<Inner>);

struct Inner {
    roots: Vec<u32>,
    counters: Mutex<Vec<Arc<AtomicU64>>>,
    phase: watch::Sender<Phase>,
    out_of_letters: AtomicBool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    WarmUp,
    Counts,
    Over,
}

/// What the time that counts gave.
#[derive(Clone, Debug)]
pub struct Clocked {
    /// How long it was.
    pub seconds: f64,
    /// What was delivered in it.
    pub delivered: u64,
    /// From sending to delivery.
    pub latencies: Latencies,
    /// What the servers used.
    pub server: Usage,
    /// What this process used to make the load.
    pub load: Usage,
    /// Bytes of memory of the servers at its end.
    pub resident: u64,
}

/// The first messages take no longer.
const BEGUN_WITHIN: Duration = Duration::from_mins(1);
/// How often it is looked whether somebody has nothing left to say.
const LOOK: Duration = Duration::from_millis(20);

impl Clock {
    /// For servers with these processes.
    #[must_use]
    pub fn new(roots: Vec<u32>) -> Self {
        Self(Arc::new(Inner {
            roots,
            counters: Mutex::default(),
            phase: watch::Sender::new(Phase::WarmUp),
            out_of_letters: AtomicBool::new(false),
        }))
    }

    /// Somebody's count of what was delivered.
    #[must_use]
    pub fn counter(&self) -> Arc<AtomicU64> {
        let counter = Arc::new(AtomicU64::new(0));
        let counters = &self.0.counters;
        counters.lock().unwrap_or_else(PoisonError::into_inner).push(counter.clone());
        counter
    }

    /// Whether what happens now counts.
    #[must_use]
    pub fn counts(&self) -> bool {
        *self.0.phase.borrow() == Phase::Counts
    }

    /// Whether all is over.
    #[must_use]
    pub fn is_over(&self) -> bool {
        *self.0.phase.borrow() == Phase::Over
    }

    /// Waits for the end.
    pub async fn over(&self) {
        let mut phase = self.0.phase.subscribe();
        // The sender lives as long as this clock.
        drop(phase.wait_for(|p| *p == Phase::Over).await);
    }

    /// Somebody has nothing left to say: the time that counts ends here.
    pub fn run_out(&self) {
        self.0.out_of_letters.store(true, Ordering::Relaxed);
    }

    fn delivered(&self) -> u64 {
        let counters = self.0.counters.lock().unwrap_or_else(PoisonError::into_inner);
        counters.iter().map(|c| c.load(Ordering::Relaxed)).sum()
    }

    /// Waits until so much was delivered: connections between servers, for one, come about with the first message.
    ///
    /// # Errors
    /// When that takes longer than a minute.
    pub async fn begun(&self, delivered: usize) -> Outcome<()> {
        let end = Instant::now() + BEGUN_WITHIN;
        let wanted = u64::try_from(delivered)?;
        while self.delivered() < wanted {
            if Instant::now() > end {
                let count = self.delivered();
                return failed(format!("only {count} of the first {wanted} messages arrived"));
            }
            sleep(LOOK).await;
        }
        Ok(())
    }

    /// Lets the others work: first for warming up, then for `time`, or until somebody has nothing left to say.
    pub async fn run(&self, warm_up: Duration, time: Duration) -> Clocked {
        sleep(warm_up).await;
        let before = (process::usage(&self.0.roots), process::own(), self.delivered());
        let begun = Instant::now();
        self.0.phase.send_replace(Phase::Counts);
        let end = begun + time;
        while Instant::now() < end && !self.0.out_of_letters.load(Ordering::Relaxed) {
            sleep_until(end.min(Instant::now() + LOOK)).await;
        }
        let after = (process::usage(&self.0.roots), process::own(), self.delivered());
        let seconds = begun.elapsed().as_secs_f64();
        let resident = process::resident(&self.0.roots);
        self.0.phase.send_replace(Phase::Over);
        Clocked {
            seconds,
            delivered: after.2.saturating_sub(before.2),
            latencies: Latencies::new().expect("the bounds are fixed"),
            server: after.0.since(before.0),
            load: after.1.since(before.1),
            resident,
        }
    }
}
