//! Which work, on what, how often; and what of it goes into the results.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::clock::{Clock, Clocked};
use super::pairs::Pace;
use super::{Script, absent, idle, kill, pairs, room};
use crate::ceiling::{echo, insert};
use crate::letter::Person;
use crate::micro;
use crate::report::results::{Metrics, Work};
use crate::server::{Kind, Server};
use crate::{Outcome, failed, float};

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Pairs of W1 and W6.
    pub pairs: usize,
    /// Messages ready for each person of W1, at a server that is as fast as ours.
    pub letters: usize,
    /// Members of W2, and how many of them speak.
    pub members: (usize, usize),
    /// Senders of W3, and messages of each.
    pub absent: (usize, usize),
    /// Connections of W4.
    pub idle: usize,
    /// Pairs of W5.
    pub across: usize,
    /// Members of the rooms whose commits are checked.
    pub commits: &'static [usize],
    /// Before the time that counts.
    pub warm_up: Duration,
    /// The time that counts.
    pub time: Duration,
}

impl Size {
    /// What the page shows.
    pub const FULL: Self = Self {
        pairs: 100,
        letters: 1_500,
        members: (500, 5),
        absent: (20, 1_000),
        idle: 5_000,
        across: 50,
        commits: micro::MEMBERS,
        warm_up: Duration::from_secs(2),
        time: Duration::from_secs(15),
    };
    /// Everything once, in seconds, to see that it works. The numbers mean nothing.
    pub const QUICK: Self = Self {
        pairs: 4,
        letters: 50,
        members: (12, 2),
        absent: (2, 30),
        idle: 20,
        across: 2,
        commits: &[3, 10],
        warm_up: Duration::from_millis(100),
        time: Duration::from_millis(600),
    };
}

const MIB: f64 = 1_048_576.0;
/// Bytes of text in a message.
pub const TEXT_BYTES: usize = 300;

/// Where and how to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How much of everything.
    pub size: Size,
    /// Each round runs every system once, so that they take turns.
    pub rounds: usize,
    /// What is compared.
    pub kinds: Vec<Kind>,
    /// Where the servers' data go: a folder on the disk to measure.
    pub folder: PathBuf,
    /// Whether the data stay there.
    pub keep: bool,
}

/// Names of the works that there are.
pub const NAMES: &[&str] = &["W1", "W2", "W3", "W4", "W5", "W6", "commit"];
/// The row of the library alone.
pub const LIBRARY: &str = "OpenMLS alone";
/// The rows of the ceilings.
pub const ECHO: &str = "TLS echo";
/// See [`ECHO`].
pub const INSERT: &str = "SQLite insert";

impl Plan {
    /// Runs one work in all rounds.
    ///
    /// # Errors
    /// When a server cannot be started or refuses, with its name.
    pub async fn run(&self, name: &str) -> Outcome<Work> {
        let mut work = Work::default();
        for round in 0..self.rounds {
            if name == "commit" {
                let [ours, theirs] = micro::commits(self.size.commits, 15)?;
                work.add(Kind::Waxwing.name(), ours);
                work.add(LIBRARY, theirs);
                continue;
            }
            if matches!(name, "W1" | "W2") {
                self.ceilings(&mut work, round).await?;
            }
            for kind in &self.kinds {
                if name == "W5" && *kind == Kind::Prosody {
                    continue;
                }
                eprintln!("bench: {name}, round {} of {}: {}", round + 1, self.rounds, kind.name());
                let folder = self.folder.join(format!("{name}-{}-{round}", kind.name()));
                let metrics = self.once(name, *kind, &folder, &work).await;
                let metrics = metrics.map_err(|e| format!("{name} on {}: {e}", kind.name()))?;
                work.add(kind.name(), metrics);
                if !self.keep {
                    std::fs::remove_dir_all(&folder)?;
                }
            }
        }
        Ok(work)
    }

    async fn once(&self, name: &str, kind: Kind, folder: &Path, so_far: &Work) -> Outcome<Metrics> {
        if name == "W5" {
            let mut servers = Server::start_two(kind, folder).await?;
            let metrics = self.across(kind, &servers).await;
            for server in &mut servers {
                server.stop().await;
            }
            return metrics;
        }
        let mut server = Server::start(kind, folder).await?;
        let metrics = match name {
            "W1" => self.w1(kind, &server, folder, so_far).await,
            "W2" => self.w2(kind, &server).await,
            "W3" => self.w3(&server).await,
            "W4" => self.w4(&server).await,
            "W6" => self.w6(kind, &mut server).await,
            other => failed(format!("there is no work {other}; there are {}", NAMES.join(" "))),
        };
        server.stop().await;
        metrics
    }

    async fn ceilings(&self, work: &mut Work, round: usize) -> Outcome<()> {
        eprintln!("bench: ceilings, round {} of {}", round + 1, self.rounds);
        let (size, folder) = (self.size, self.folder.join(format!("ceiling-{round}")));
        let time = (size.warm_up, size.time);
        let echo = echo::measure(&folder.join("echo"), 2 * size.pairs, TEXT_BYTES, time).await?;
        work.add(ECHO, told(&echo));
        let inserted = insert::measure(&folder.join("insert"), TEXT_BYTES, size.time / 3)?;
        let metrics = Metrics::from([
            ("deliveries_per_s".to_owned(), inserted.rows_per_s),
            ("cpu_us".to_owned(), inserted.cpu_us),
            ("written".to_owned(), inserted.written),
        ]);
        work.add(INSERT, metrics);
        Ok(std::fs::remove_dir_all(&folder)?)
    }

    async fn w1(
        &self,
        kind: Kind,
        server: &Server,
        folder: &Path,
        so_far: &Work,
    ) -> Outcome<Metrics> {
        let size = self.size;
        let script = script(kind, size.letters);
        let people = Server::pairs(&[server], size.pairs, script).await?;
        let content = content(&people);
        let clock = Clock::new(server.roots());
        let clocked = pairs::run(people, &clock, Pace::Closed, (size.warm_up, size.time)).await?;
        let mut metrics = told(&clocked);
        metrics.insert("content".to_owned(), content);
        // At half of what the reference can do, a queue is nobody's excuse.
        let peak = match kind {
            Kind::Ejabberd => metrics.get("deliveries_per_s").copied(),
            Kind::Waxwing | Kind::Prosody => {
                so_far.median(Kind::Ejabberd.name(), "deliveries_per_s")
            }
        };
        let Some(peak) = peak else { return Ok(metrics) };
        let second = Server::start(kind, &folder.with_extension("paced")).await;
        let mut second = second?;
        let paced = self.paced(kind, &second, peak / 2.0).await;
        second.stop().await;
        std::fs::remove_dir_all(folder.with_extension("paced"))?;
        metrics.extend(paced?);
        Ok(metrics)
    }

    async fn paced(&self, kind: Kind, server: &Server, rate: f64) -> Outcome<Metrics> {
        let size = self.size;
        let people = 2 * size.pairs;
        let every = Duration::from_secs_f64(float(u64::try_from(people)?) / rate.max(1.0));
        let seconds = (size.warm_up + size.time).as_secs_f64() + 5.0;
        let letters = Duration::from_secs_f64(seconds).as_millis() / every.as_millis().max(1) + 2;
        let script = script(kind, usize::try_from(letters)? * 4);
        let people = Server::pairs(&[server], size.pairs, script).await?;
        let clock = Clock::new(server.roots());
        let time = (size.warm_up, size.time);
        let clocked = pairs::run(people, &clock, Pace::Every(every), time).await?;
        Ok(Metrics::from([
            ("paced_per_s".to_owned(), rate),
            ("paced_p50_ms".to_owned(), clocked.latencies.ms(0.5)),
            ("paced_p99_ms".to_owned(), clocked.latencies.ms(0.99)),
        ]))
    }

    async fn w2(&self, kind: Kind, server: &Server) -> Outcome<Metrics> {
        let size = self.size;
        let (members, speakers) = size.members;
        let people = server.room(members, speakers, script(kind, size.letters)).await?;
        let clock = Clock::new(server.roots());
        Ok(told(&room::run(people, &clock, (size.warm_up, size.time)).await?))
    }

    async fn w3(&self, server: &Server) -> Outcome<Metrics> {
        let (senders, letters) = self.size.absent;
        let script = Script { letters, bytes: TEXT_BYTES };
        let (people, away) = server.absent(senders, script).await?;
        let found = absent::run(people, away, &server.roots()).await?;
        let count = float(found.count);
        let mut metrics = Metrics::new();
        for (name, half) in [("enqueue", found.enqueue), ("drain", found.drain)] {
            let us = half.server.cpu.as_secs_f64() * 1e6 / count;
            metrics.insert(format!("{name}_per_s"), count / half.seconds);
            metrics.insert(format!("{name}_cpu_us"), us);
            metrics
                .insert(format!("{name}_load_cpu_us"), half.load.cpu.as_secs_f64() * 1e6 / count);
        }
        metrics.insert("written".to_owned(), float(found.enqueue.server.written) / count);
        metrics.insert("lost".to_owned(), float(found.lost));
        metrics.insert("doubled".to_owned(), float(found.doubled));
        metrics.insert("disordered".to_owned(), float(found.disordered));
        Ok(metrics)
    }

    async fn w4(&self, server: &Server) -> Outcome<Metrics> {
        let accounts = server.idle(self.size.idle).await?;
        let found = idle::run(&accounts, &server.roots()).await?;
        let count = float(found.count.max(1));
        Ok(Metrics::from([
            ("connections".to_owned(), count),
            ("each_kib".to_owned(), found.each / 1024.0),
            ("before_mib".to_owned(), float(found.before) / MIB),
            ("logins_per_s".to_owned(), count / found.seconds),
            ("login_cpu_us".to_owned(), found.server.cpu.as_secs_f64() * 1e6 / count),
            ("login_load_cpu_us".to_owned(), found.load.cpu.as_secs_f64() * 1e6 / count),
        ]))
    }

    async fn across(&self, kind: Kind, servers: &[Server; 2]) -> Outcome<Metrics> {
        let size = self.size;
        let [a, b] = servers;
        let people = Server::pairs(&[a, b], size.across, script(kind, size.letters)).await?;
        let clock = Clock::new([a.roots(), b.roots()].concat());
        Ok(told(&pairs::run(people, &clock, Pace::Closed, (size.warm_up, size.time)).await?))
    }

    async fn w6(&self, kind: Kind, server: &mut Server) -> Outcome<Metrics> {
        let size = self.size;
        let script = script(kind, size.letters);
        let mut people = Server::pairs(&[server], size.pairs, script).await?;
        acknowledged(&mut people);
        let time = size.warm_up + size.time / 3;
        let found = kill::run(server, people, time).await?;
        Ok(Metrics::from([
            ("confirmed".to_owned(), float(found.confirmed)),
            ("lost".to_owned(), float(found.lost)),
            ("undelivered".to_owned(), float(found.undelivered)),
            ("restart_ms".to_owned(), found.restart.as_secs_f64() * 1e3),
        ]))
    }
}

/// XMPP servers say what they took in only to those who ask.
fn acknowledged(people: &mut [[Person; 2]]) {
    for person in people.iter_mut().flatten() {
        if let crate::link::Account::Xmpp(door) = &mut person.account {
            door.acknowledged = true;
        }
    }
}

/// Only our own node is fast enough to need all the letters.
fn script(kind: Kind, letters: usize) -> Script {
    let share = if kind == Kind::Waxwing { 1 } else { 4 };
    Script { letters: (letters / share).max(10), bytes: TEXT_BYTES }
}

/// Bytes of what the server stores of a message.
fn content(people: &[[Person; 2]]) -> f64 {
    let letter = people.iter().flatten().find_map(|p| p.letters.first());
    letter.map_or(f64::NAN, |l| float(u64::try_from(l.content).unwrap_or_default()))
}

/// The time that counted, as numbers by name.
fn told(clocked: &Clocked) -> Metrics {
    let delivered = float(clocked.delivered.max(1));
    let us = |d: Duration| d.as_secs_f64() * 1e6 / delivered;
    Metrics::from([
        ("deliveries_per_s".to_owned(), delivered / clocked.seconds),
        ("p50_ms".to_owned(), clocked.latencies.ms(0.5)),
        ("p99_ms".to_owned(), clocked.latencies.ms(0.99)),
        ("p999_ms".to_owned(), clocked.latencies.ms(0.999)),
        ("cpu_us".to_owned(), us(clocked.server.cpu)),
        ("load_cpu_us".to_owned(), us(clocked.load.cpu)),
        ("resident_mib".to_owned(), float(clocked.resident) / MIB),
        ("written".to_owned(), float(clocked.server.written) / delivered),
        ("seconds".to_owned(), clocked.seconds),
    ])
}
