//! People in pairs. In a closed loop each has one message under way and sends the next when it has arrived; at a pace each sends when its
//! time has come, whatever is still under way, and latency counts from then.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::clock::{Clock, Clocked};
use super::gather::{self, Present};
use crate::letter::{Letter, Person};
use crate::link::{Event, Link};
use crate::stats::Latencies;
use crate::{Outcome, failed};

/// When to send the next message.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// When the one before has arrived.
    Closed,
    /// Each person once in so long.
    Every(Duration),
}

/// Runs the pairs for the time that counts.
///
/// # Errors
/// When a server refuses anything.
pub async fn run(
    pairs: Vec<[Person; 2]>,
    clock: &Clock,
    pace: Pace,
    time: (Duration, Duration),
) -> Outcome<Clocked> {
    let mut present = gather::all(pairs.into_iter().flatten().collect()).await?.into_iter();
    let mut tasks = Vec::new();
    let mut started = 0_u32;
    while let (Some(one), Some(other)) = (present.next(), present.next()) {
        let (clock, counter) = (clock.clone(), clock.counter());
        let talk = Talk { sides: [Side::new(one), Side::new(other)], clock, counter };
        let offset = offset(pace, started);
        started += 1;
        tasks.push(tokio::spawn(talk.run(pace, offset)));
    }
    if let Err(silence) = clock.begun(2 * tasks.len()).await {
        for task in tasks.into_iter().filter(tokio::task::JoinHandle::is_finished) {
            task.await??;
        }
        return Err(silence);
    }
    let mut clocked = clock.run(time.0, time.1).await;
    for task in tasks {
        clocked.latencies.add(&task.await??)?;
    }
    Ok(clocked)
}

/// Pairs at a pace do not all send at the same moment.
fn offset(pace: Pace, pair: u32) -> Duration {
    match pace {
        Pace::Closed => Duration::ZERO,
        // The golden ratio spreads any number of them evenly.
        Pace::Every(every) => every.mul_f64((f64::from(pair) * 0.618_034).fract()),
    }
}

struct Side {
    link: Link,
    letters: Vec<Letter>,
    sent: Vec<Instant>,
}

impl Side {
    fn new(present: Present) -> Self {
        let sent = Vec::with_capacity(present.letters.len());
        Self { link: present.link, letters: present.letters, sent }
    }

    /// Says the next thing; false when there is none.
    async fn say(&mut self, due: Instant) -> Outcome<bool> {
        let Some(letter) = self.letters.get(self.sent.len()) else { return Ok(false) };
        self.sent.push(due);
        self.link.send(letter).await?;
        Ok(true)
    }
}

struct Talk {
    sides: [Side; 2],
    clock: Clock,
    counter: Arc<AtomicU64>,
}

impl Talk {
    async fn run(mut self, pace: Pace, offset: Duration) -> Outcome<Latencies> {
        let mut latencies = Latencies::new()?;
        let clock = self.clock.clone();
        let over = clock.over();
        tokio::pin!(over);
        let mut due = Instant::now() + offset;
        let paced = matches!(pace, Pace::Every(_));
        if !paced {
            self.say_both(due).await?;
        }
        loop {
            let [one, other] = &mut self.sides;
            let (event, speaker) = tokio::select! {
                () = &mut over => return Ok(latencies),
                event = one.link.next() => (event?, other),
                event = other.link.next() => (event?, one),
                () = sleep_until(due), if paced => {
                    self.say_both(due).await?;
                    if let Pace::Every(every) = pace {
                        due += every;
                    }
                    continue;
                }
            };
            let Event::Delivered(tag) = event else { continue };
            let number = usize::try_from(tag.number)?;
            let Some(sent) = speaker.sent.get(number) else {
                return failed("a message arrived before it was sent");
            };
            let now = Instant::now();
            self.counter.fetch_add(1, Ordering::Relaxed);
            if clock.counts() {
                latencies.record(now.saturating_duration_since(*sent));
            }
            if !paced && !speaker.say(now).await? {
                clock.run_out();
            }
        }
    }

    async fn say_both(&mut self, due: Instant) -> Outcome<()> {
        for side in &mut self.sides {
            if !side.say(due).await? {
                self.clock.run_out();
            }
        }
        Ok(())
    }
}
