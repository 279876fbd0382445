//! One room. Each speaker sends the next message when everybody has the one before, the speaker too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::clock::{Clock, Clocked};
use super::gather::{self, Present};
use crate::letter::{Person, Tag};
use crate::link::Event;
use crate::stats::Latencies;
use crate::{Outcome, failed};

/// Who has still to get what.
struct Board {
    begun: Instant,
    members: u32,
    /// For each speaker.
    speakers: Vec<Speaker>,
}

#[derive(Default)]
struct Speaker {
    /// For each message: when it was sent, in microseconds, and how many have it.
    messages: Vec<(AtomicU64, AtomicU32)>,
    everybody_has_it: Notify,
}

impl Board {
    fn message(&self, tag: Tag) -> Option<(&Speaker, &(AtomicU64, AtomicU32))> {
        let speaker = self.speakers.get(usize::try_from(tag.sender).ok()?)?;
        Some((speaker, speaker.messages.get(usize::try_from(tag.number).ok()?)?))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}

/// Runs the room for the time that counts.
///
/// # Errors
/// When the server refuses anything.
pub async fn run(
    people: Vec<Person>,
    clock: &Clock,
    time: (Duration, Duration),
) -> Outcome<Clocked> {
    let present = gather::all(people).await?;
    let speaker = |p: &Present| Speaker {
        messages: p.letters.iter().map(|_| (AtomicU64::new(0), AtomicU32::new(0))).collect(),
        everybody_has_it: Notify::new(),
    };
    let board = Arc::new(Board {
        begun: Instant::now(),
        members: u32::try_from(present.len())?,
        speakers: present.iter().filter(|p| !p.letters.is_empty()).map(speaker).collect(),
    });
    let mut tasks = Vec::new();
    for (n, present) in present.into_iter().enumerate() {
        let member = Member { present, board: board.clone(), clock: clock.clone(), next: 0 };
        tasks.push(tokio::spawn(member.run(n, clock.counter())));
    }
    if let Err(silence) = clock.begun(tasks.len()).await {
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

struct Member {
    present: Present,
    board: Arc<Board>,
    clock: Clock,
    next: usize,
}

impl Member {
    async fn run(mut self, number: usize, counter: Arc<AtomicU64>) -> Outcome<Latencies> {
        let mut latencies = Latencies::new()?;
        let (clock, board) = (self.clock.clone(), self.board.clone());
        let over = clock.over();
        tokio::pin!(over);
        let speaker = board.speakers.get(number).filter(|_| !self.present.letters.is_empty());
        if speaker.is_some() {
            self.say().await?;
        }
        loop {
            let said = async {
                match speaker {
                    Some(speaker) => speaker.everybody_has_it.notified().await,
                    None => std::future::pending().await,
                }
            };
            let event = tokio::select! {
                () = &mut over => return Ok(latencies),
                event = self.present.link.next() => event?,
                () = said => { self.say().await?; continue }
            };
            let Event::Delivered(tag) = event else { continue };
            let Some((speaker, (sent, have))) = board.message(tag) else {
                return failed("a message that nobody sent arrived");
            };
            counter.fetch_add(1, Ordering::Relaxed);
            if clock.counts() {
                let waited = board.now().saturating_sub(sent.load(Ordering::Relaxed));
                latencies.record(Duration::from_micros(waited));
            }
            if have.fetch_add(1, Ordering::Relaxed) + 1 == board.members {
                speaker.everybody_has_it.notify_one();
            }
        }
    }

    async fn say(&mut self) -> Outcome<()> {
        let Some(letter) = self.present.letters.get(self.next) else {
            self.clock.run_out();
            return Ok(());
        };
        self.next += 1;
        if let Some((_, (sent, _))) = self.board.message(letter.tag) {
            sent.store(self.board.now(), Ordering::Relaxed);
        }
        self.present.link.send(letter).await
    }
}
