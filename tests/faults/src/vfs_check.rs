//! Opens what a crash left behind, with the ordinary file system, and asks for everything that was answered before it.
//!
//! | asked | must be |
//! |---|---|
//! | open | without an error, whatever the image |
//! | `PRAGMA integrity_check` | ok |
//! | each room and inbox | numbers without a gap, digests and chain right from tail to head |
//! | each answered message | where it was answered: number, time, chain; in its room if not trimmed since |
//! | each answered cursor, item, trimming | at least there |
//! | places | one submission for each, and no two of the same |
//! | answered messages handed in again | the same answer |
//! | a new one | the place after the head |

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use delivery::reader::Span;
use node::store::logs::{self, Bodies, Entry, Log, LogName};
use node::store::readers::{self, Reader};
use node::store::{Store, StoreError};
use protocol::Seq;
use protocol::log::Digest;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};
use tests::seed::Seed;
use tests::trouble::During as _;
use tests::{Outcome, Trouble, folder};

use crate::vfs_disk::Event;
use crate::vfs_image::{Damage, Image, Player};
use crate::vfs_work::{self, Answers, Message, Placed, Plan};

/// How many images, of which run.
#[derive(Clone, Copy)]
pub struct Crashes<'a> {
    /// What the disk recorded.
    pub events: &'a [Event],
    /// What was answered meanwhile.
    pub answers: &'a Answers,
    /// What was to do.
    pub plan: Plan,
    /// Images to check, at most.
    pub images: usize,
    /// Only of moments from this one on.
    pub from: usize,
    /// Stop when so many are bad.
    pub bad: usize,
    /// Keep bad images for a person to look at.
    pub keep: bool,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Images checked.
    pub images: usize,
    /// Those in which something was missing, torn or not named.
    pub damaged: usize,
    /// All of that together.
    pub damage: Damage,
    /// Answers that were asked for, over all images.
    pub asked: usize,
    /// What was wrong, by image.
    pub wrong: Vec<String>,
}

/// Images of the same moment.
const EACH: usize = 4;

impl Crashes<'_> {
    /// Makes and checks them.
    ///
    /// # Errors
    /// When the checker itself cannot work.
    pub async fn check(self, mut chance: Seed) -> Outcome<Verdict> {
        let moments = self.moments(&mut chance);
        let mut verdict = Verdict::default();
        let mut player = Player::new(self.events);
        let places: Vec<_> =
            (0..EACH).map(|_| folder::temporary("crash")).collect::<Outcome<_>>()?;
        for moment in moments {
            player.advance(moment);
            let images: Vec<Image> = (0..EACH).map(|_| player.image(&mut chance)).collect();
            for image in &images {
                let damage = image.damage;
                verdict.damaged += usize::from(damage.missing + damage.torn + damage.names > 0);
                verdict.damage += damage;
            }
            let looks = images.iter().zip(&places).map(|(image, place)| {
                let look = Look {
                    folder: place.path().to_owned(),
                    answers: self.answers.clone_until(moment),
                    plan: self.plan,
                    chance: chance.branch(),
                };
                let files = image.clone();
                tokio::spawn(async move { look.at(&files).await })
            });
            for (look, image) in looks.collect::<Vec<_>>().into_iter().zip(&images) {
                verdict.images += 1;
                match look.await? {
                    Ok(asked) => verdict.asked += asked,
                    Err(wrong) => {
                        let damage = image.damage;
                        let count = self.events.len();
                        verdict.wrong.push(format!(
                            "after {moment} of {count} changes, {damage:?}: {wrong}{}",
                            if self.keep { keep(image)? } else { String::new() }
                        ));
                    }
                }
            }
            if verdict.wrong.len() >= self.bad {
                break;
            }
        }
        Ok(verdict)
    }

    /// Anywhere; right before a sync, when most is at stake; right after an answer, when nothing of it may be; and while the name of a file
    /// is not safe.
    fn moments(&self, chance: &mut Seed) -> Vec<usize> {
        let syncs: Vec<usize> = (0..self.events.len())
            .filter(|n| matches!(self.events.get(*n), Some(Event::Sync { .. })))
            .collect();
        let mut unnamed = false;
        let mut nameless = Vec::new();
        for (n, event) in self.events.iter().enumerate() {
            match event {
                Event::Create { .. } | Event::Delete { .. } => unnamed = true,
                Event::FolderSync => unnamed = false,
                _ => {}
            }
            nameless.extend(unnamed.then_some(n + 1));
        }
        let one_of = |chance: &mut Seed, n: usize| {
            usize::try_from(chance.between(0, n.saturating_sub(1) as u64)).unwrap_or(0)
        };
        let draw = |n: usize| {
            let chosen = match n % 4 {
                0 => syncs.get(one_of(chance, syncs.len())).copied(),
                1 => {
                    let placed = &self.answers.placed;
                    placed.get(one_of(chance, placed.len())).map(|p| p.moment)
                }
                2 => nameless.get(one_of(chance, nameless.len())).copied(),
                _ => None,
            };
            chosen.unwrap_or_else(|| one_of(chance, self.events.len() + 1))
        };
        let drawn = (0..self.images.div_ceil(EACH)).map(draw);
        let mut moments: Vec<usize> = drawn.filter(|moment| *moment >= self.from).collect();
        moments.sort_unstable();
        moments
    }
}

impl Answers {
    /// What was answered by then.
    #[must_use]
    pub fn clone_until(&self, moment: usize) -> Self {
        Self {
            made: self.made.filter(|a| a.moment <= moment),
            placed: self.placed.iter().filter(|a| a.moment <= moment).copied().collect(),
            acked: self.acked.iter().filter(|a| a.moment <= moment).copied().collect(),
            posted: self.posted.iter().filter(|a| a.moment <= moment).copied().collect(),
            trimmed: self.trimmed.iter().filter(|a| a.moment <= moment).copied().collect(),
        }
    }
}

/// Puts an image where a person can look at it.
fn keep(image: &Image) -> Outcome<String> {
    let kept = folder::temporary("bad-image")?.keep();
    lay_out(&kept, image)?;
    Ok(format!(" (kept in {})", kept.display()))
}

/// Writes the files of an image into `folder`, and nothing else.
///
/// # Errors
/// When they cannot be written.
pub fn lay_out(folder: &Path, image: &Image) -> Outcome<()> {
    for old in std::fs::read_dir(folder)? {
        std::fs::remove_file(old?.path())?;
    }
    for (name, data) in &image.files {
        std::fs::write(folder.join(name), data)?;
    }
    Ok(())
}

/// A look at one image.
pub struct Look {
    /// Where to put it.
    pub folder: PathBuf,
    /// What must be in it.
    pub answers: Answers,
    /// What was to do.
    pub plan: Plan,
    /// For what is looked at by sample.
    pub chance: Seed,
}

impl Look {
    /// Lays the image out, opens it and asks; says how many answers were asked for.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn at(mut self, image: &Image) -> Outcome<usize> {
        lay_out(&self.folder, image)?;
        if self.chance.between(0, 3) == 0 {
            // The index of the log is never synced: whatever is in it must not matter.
            let shm: Vec<u8> = (0..4_096).flat_map(|_| self.chance.draw().to_le_bytes()).collect();
            std::fs::write(self.folder.join("node.db-shm"), shm)?;
        }
        self.files().await
    }

    /// The same of the files that lie in the folder.
    ///
    /// # Errors
    /// What is wrong with them.
    pub async fn files(&mut self) -> Outcome<usize> {
        let store = vfs_work::open(&self.folder, None).await.during("opening")?;
        let options = SqliteConnectOptions::new().filename(vfs_work::file(&self.folder));
        let mut db = options.connect().await?;
        let asked = self.ask(&store, &mut db).await;
        db.close().await?;
        store.close().await;
        asked
    }

    async fn ask(&mut self, store: &Store, db: &mut SqliteConnection) -> Outcome<usize> {
        let lines: Vec<(String,)> =
            sqlx::query_as("PRAGMA integrity_check").fetch_all(&mut *db).await?;
        if !matches!(lines.as_slice(), [(line,)] if line == "ok") {
            return Trouble::is(format!("integrity_check: {lines:?}"));
        }
        let mut tails = BTreeMap::new();
        let mut places = submissions(db).await?;
        for number in 0..self.plan.rooms {
            let name = LogName::Room(vfs_work::room(number)?);
            let Some(log) = vfs_work::find(store, &name).await? else {
                if self.answers.made.is_some() {
                    return Trouble::is(format!("room {number} is gone"));
                }
                return Ok(0);
            };
            tails.insert(number, log.tail);
            let entries = whole(store, &log).await.during(format!("room {number}"))?;
            let places = places.remove(&number).unwrap_or_default();
            self.room(number, &log, &entries, &places)?;
        }
        self.cursors(store).await?;
        self.inboxes(store).await?;
        for (number, tail) in self.answers.trimmed.iter().map(|a| a.what) {
            if tails.get(&number).is_none_or(|found| *found < tail) {
                return Trouble::is(format!("room {number} was trimmed to {tail}"));
            }
        }
        self.again(store).await?;
        Ok(self.answers.count())
    }

    fn room(&self, number: u32, log: &Log, entries: &[Entry], places: &Places) -> Outcome<()> {
        let seqs: BTreeSet<u64> = (1..=log.head.get()).collect();
        if !places.keys().eq(&seqs) {
            return Trouble::is(format!("room {number}: {} places to {}", places.len(), log.head));
        }
        for Placed { message, accepted, .. } in
            self.answers.placed.iter().map(|a| a.what).filter(|p| p.room == number)
        {
            let seq = accepted.place.seq;
            let expected = (message, accepted.at.ms(), upper_hex(accepted.chain.as_bytes()));
            if places.get(&seq.get()) != Some(&expected) {
                let found = places.get(&seq.get()).map(|p| p.0);
                return Trouble::is(format!(
                    "room {number}: {message:?} was answered place {seq}, where there is {found:?}"
                ));
            }
            let n = seq.get().checked_sub(log.tail.get()).and_then(|n| usize::try_from(n).ok());
            let entry = n.and_then(|n| entries.get(n));
            if entry.map_or(seq >= log.tail, |e| e.chain != accepted.chain || e.at != accepted.at) {
                return Trouble::is(format!("room {number}: the entry {seq} is not {message:?}"));
            }
        }
        for entry in entries {
            let message = places.get(&entry.seq.get()).map(|p| p.0).during("a message")?;
            if entry.body != Some(message.body()) {
                return Trouble::is(format!("room {number}: {message:?} has another body"));
            }
        }
        Ok(())
    }

    async fn cursors(&self, store: &Store) -> Outcome<()> {
        let mut last: BTreeMap<(u32, u32), Seq> = BTreeMap::new();
        for (room, device, seq) in self.answers.acked.iter().map(|a| a.what) {
            let cursor = last.entry((room, device)).or_default();
            *cursor = (*cursor).max(seq);
        }
        let mut snapshot = store.snapshot().await?;
        let mut found = BTreeMap::new();
        for number in 0..self.plan.submitters {
            let reader = Reader::Device(vfs_work::device(number)?);
            for (log, stay) in readers::of_reader(&mut snapshot, &reader, 1_000).await? {
                found.insert((log.name, number), stay.cursor);
            }
        }
        for ((number, device), seq) in last {
            let name = LogName::Room(vfs_work::room(number)?);
            let cursor = found.get(&(name, device)).copied();
            if cursor.is_none_or(|cursor| cursor < seq) {
                return Trouble::is(format!(
                    "room {number}: device {device} acknowledged {seq}, its cursor is {cursor:?}"
                ));
            }
        }
        Ok(())
    }

    async fn inboxes(&self, store: &Store) -> Outcome<()> {
        let mut last: BTreeMap<u32, Seq> = BTreeMap::new();
        for (device, seq) in self.answers.posted.iter().map(|a| a.what) {
            let head = last.entry(device).or_default();
            *head = (*head).max(seq);
        }
        for (number, seq) in last {
            let name = LogName::Inbox(vfs_work::device(number)?);
            let log = vfs_work::find(store, &name).await?.during("an inbox")?;
            whole(store, &log).await.during(format!("inbox {number}"))?;
            if log.head < seq {
                return Trouble::is(format!("inbox {number}: {seq} is missing after {}", log.head));
            }
        }
        Ok(())
    }

    /// The same answers once more, and a place for something new.
    async fn again(&mut self, store: &Store) -> Outcome<()> {
        let placed = &self.answers.placed;
        let mut latest: Vec<_> = placed.iter().collect();
        latest.sort_by_key(|a| std::cmp::Reverse(a.moment));
        let mut asked: Vec<Placed> = latest.into_iter().take(4).map(|a| a.what).collect();
        for _ in 0..4 {
            let n = usize::try_from(self.chance.draw() % (placed.len().max(1) as u64))?;
            asked.extend(placed.get(n).map(|a| a.what));
        }
        for Placed { room, message, accepted } in asked {
            let answer = vfs_work::place(store, &vfs_work::room(room)?, message).await?;
            if answer != accepted {
                return Trouble::is(format!(
                    "{message:?} was answered {accepted:?}, now {answer:?}"
                ));
            }
        }
        let name = vfs_work::room(0)?;
        let before = vfs_work::find(store, &LogName::Room(name.clone())).await?;
        let before = before.during("room 0")?.head;
        let new = vfs_work::place(store, &name, Message { from: 0, n: u32::MAX }).await?;
        if new.place.seq == before.next() {
            Ok(())
        } else {
            Trouble::is(format!("a new message got {} after {before}", new.place.seq))
        }
    }
}

type Places = BTreeMap<u64, (Message, u64, String)>;

/// What is remembered of submissions: by room, by seq, which message and with what chain.
async fn submissions(db: &mut SqliteConnection) -> Outcome<BTreeMap<u32, Places>> {
    // In one row: each is handed over from the connection's thread by itself.
    let (lines,): (Option<String>,) = sqlx::query_as(
        "SELECT group_concat(concat_ws(' ', room, hex(submit_key), seq, at_ms, hex(chain)), char(10)) FROM \
         (SELECT room, submit_key, seq, at_ms, chain FROM submission UNION ALL \
         SELECT name, submit_key, seq, at_ms, e.chain FROM entry e JOIN log l ON l.id = log_id WHERE submit_key IS NOT NULL)",
    )
    .fetch_one(db)
    .await?;
    let mut found: BTreeMap<u32, Places> = BTreeMap::new();
    let mut count = 0;
    for line in lines.iter().flat_map(|lines| lines.lines()) {
        count += 1;
        let mut columns = line.split(' ');
        let mut column = || columns.next().during("a column");
        let number = column()?.rsplit_once("/r").during("a room")?.1.parse()?;
        let (from, n) = column()?.split_at_checked(16).during("a key")?;
        let number_of = |text| u64::from_str_radix(text, 16).map(u32::try_from);
        let message = Message { from: number_of(from)??, n: number_of(n)?? };
        let (seq, at) = (column()?.parse()?, column()?.parse()?);
        let chain = column()?.to_owned();
        found.entry(number).or_default().insert(seq, (message, at, chain));
    }
    let kept: usize = found.values().map(BTreeMap::len).sum();
    if kept == count { Ok(found) } else { Trouble::is("two submissions have the same place") }
}

fn upper_hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| format!("{text}{byte:02X}"))
}

/// All entries of a log, when they are whole: numbers, digests and chain.
///
/// # Errors
/// When they are not.
pub async fn whole(store: &Store, log: &Log) -> Outcome<Vec<Entry>> {
    let entries = read(store, log).await?;
    let (mut seq, mut chain) = (log.tail.prev(), log.tail_chain);
    for entry in &entries {
        seq = seq.next();
        let body = entry.body.as_deref().during("a body")?;
        let digest = Digest::of_entry(entry.kind, entry.at, body);
        chain = chain.next(seq, &digest);
        if entry.seq != seq || entry.digest != digest || entry.chain != chain {
            return Trouble::is(format!("the entry {} is broken ({seq} expected)", entry.seq));
        }
    }
    if seq == log.head && chain == log.chain {
        Ok(entries)
    } else {
        Trouble::is(format!("it ends at {seq}, its head is {}", log.head))
    }
}

/// All entries of a log as they are.
///
/// # Errors
/// When the store fails.
pub async fn read(store: &Store, log: &Log) -> Result<Vec<Entry>, StoreError> {
    let mut entries: Vec<Entry> = Vec::new();
    let mut snapshot = store.snapshot().await?;
    // What comes before a damaged entry is read without an error; what comes next is not.
    loop {
        let first = entries.last().map_or(log.tail, |entry| entry.seq.next());
        let Some(span) = Span::new(first, log.head) else { return Ok(entries) };
        let more = logs::read(&mut snapshot, log.id, span, 1 << 30, Bodies::All).await?;
        if more.is_empty() {
            return Ok(entries);
        }
        entries.extend(more);
    }
}
