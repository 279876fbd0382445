//! A disk that fails, is full, stalls or turns bits: nothing that was answered is lost, and nothing is answered that is not there.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use faults::vfs_check::{self, Look, lay_out};
use faults::vfs_disk::{Disk, Event};
use faults::vfs_image::{Image, Player};
use faults::vfs_work::{self, Answer, Answers, Message, Placed, Plan, Stop, Work};
use node::store::logs::LogName;
use node::store::{Store, StoreError};
use protocol::log::EntryKind;
use protocol::{Seq, Timestamp};
use tests::seed::Seed;
use tests::{Outcome, Trouble, folder};
use tokio::time::Instant;

const PLAN: Plan = Plan { rooms: 2, submitters: 3, messages: 40 };

/// What is going to fail, counted from the moment it is said.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Sync(u64),
    Write(u64),
}

/// Submits one message after the other until the store refuses one, or `most` are placed; says why it stopped.
async fn until_refused(
    store: &Store,
    disk: &Disk,
    from: u32,
    first: u32,
    most: u32,
) -> Outcome<(Vec<Answer<Placed>>, Option<StoreError>)> {
    let mut placed = Vec::new();
    for n in first..first + most {
        let room = n % PLAN.rooms;
        let message = Message { from, n };
        match vfs_work::place(store, &vfs_work::room(room)?, message).await {
            Ok(accepted) => {
                let what = Placed { room, message, accepted };
                placed.push(Answer { moment: disk.moment(), what });
            }
            Err(Stop::Store(error)) => return Ok((placed, Some(error))),
            Err(stop) => return Err(stop.into()),
        }
    }
    Ok((placed, None))
}

/// Everything answered is in what a killed program leaves, in what crashes now or at the failure would leave, and in the files.
async fn nothing_is_lost(
    events: &[Event],
    answers: &Answers,
    files: &Path,
    mut chance: Seed,
) -> Outcome<()> {
    let place = folder::temporary("trouble-image")?;
    let failed = events.iter().position(|e| matches!(e, Event::SyncFailed { .. }));
    let mut player = Player::new(events);
    for moment in failed.into_iter().map(|n| n + 1).chain([events.len()]) {
        player.advance(moment);
        for n in 0..4 {
            let image = if n == 0 { player.whole() } else { player.image(&mut chance) };
            let answers = answers.clone_until(moment);
            let folder = place.path().to_owned();
            let look = Look { folder, answers, plan: PLAN, chance: chance.branch() };
            look.at(&image).await?;
        }
    }
    let (folder, answers) = (files.to_owned(), answers.clone());
    Look { folder, answers, plan: PLAN, chance }.files().await?;
    Ok(())
}

/// One run in which `fault` happens to a store that is open and has rooms; says whether it did.
async fn happens(fault: Fault, chance: Seed) -> Outcome<()> {
    let place = folder::temporary("trouble")?;
    let disk = Disk::new()?;
    let store = vfs_work::open(place.path(), Some(&disk)).await?;
    vfs_work::make_rooms(&store, PLAN).await?;
    let made = Answer { moment: disk.moment(), what: () };
    let mut answers = Answers { made: Some(made), ..Answers::default() };
    match fault {
        Fault::Sync(k) => disk.fail_sync(k),
        Fault::Write(k) => disk.fail_write(k),
    }
    let devices = (0..PLAN.submitters).map(|from| until_refused(&store, &disk, from, 0, 400));
    for ended in tests::together(devices).await {
        let (placed, error) = ended?;
        answers.placed.extend(placed);
        match error {
            // Who was in the batch hears what it was, who comes later that it was.
            Some(StoreError::Database(_) | StoreError::Broken) => {}
            other => return Trouble::is(format!("{fault:?}: {other:?}")),
        }
    }
    let syncs = disk.syncs();
    for n in 1_000..1_005 {
        let again = vfs_work::place(&store, &vfs_work::room(0)?, Message { from: 0, n }).await;
        assert!(matches!(again, Err(Stop::Store(StoreError::Broken))), "{fault:?}: {again:?}");
        let name = LogName::Room(vfs_work::room(0)?);
        let seq = Seq::new(1);
        let ack = vfs_work::acknowledge(&store, name, vfs_work::device(0)?, seq).await;
        assert!(matches!(ack, Err(StoreError::Broken)), "{fault:?}: {ack:?}");
    }
    assert_eq!(disk.syncs(), syncs, "it tried again");
    // What is there can still be read.
    let log = vfs_work::find(&store, &LogName::Room(vfs_work::room(0)?)).await?;
    vfs_check::whole(&store, &log.ok_or_else(|| Trouble::new("room 0"))?).await?;
    store.close().await;
    let injected = disk.injected();
    assert_eq!(injected.failed_syncs + injected.failed_writes, 1, "{injected:?}");
    nothing_is_lost(&disk.take_events(), &answers, place.path(), chance).await
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_sync_nothing_more_is_written_and_nothing_answered_is_lost() -> Outcome<()> {
    let mut chance = Seed::from_environment(41);
    for k in 1..=24 {
        happens(Fault::Sync(k), chance.branch()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failed_write_nothing_more_is_written_and_nothing_answered_is_lost() -> Outcome<()>
{
    let mut chance = Seed::from_environment(42);
    for k in 1..=24 {
        happens(Fault::Write(k), chance.branch()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_fails_is_as_serious_as_a_commit_that_fails() -> Outcome<()> {
    let mut chance = Seed::from_environment(43);
    // The first sync is of the commit that fills the log, the next two are of the log and of the database file.
    for k in 2..=3 {
        let place = folder::temporary("checkpoint")?;
        let disk = Disk::new()?;
        let store = vfs_work::open(place.path(), Some(&disk)).await?;
        vfs_work::make_rooms(&store, PLAN).await?;
        let made = Answer { moment: disk.moment(), what: () };
        let mut answers = Answers { made: Some(made), ..Answers::default() };
        disk.fail_sync(k);
        let seq = vfs_work::post(&store, vfs_work::device(0)?, vec![5; 5 << 20]).await?;
        answers.posted.push(Answer { moment: disk.moment(), what: (0, seq) });
        let (placed, error) = until_refused(&store, &disk, 0, 0, 1).await?;
        assert!(placed.is_empty() && matches!(error, Some(StoreError::Broken)), "{k}: {error:?}");
        assert_eq!(disk.injected().failed_syncs, 1);
        store.close().await;
        nothing_is_lost(&disk.take_events(), &answers, place.path(), chance.branch()).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sync_that_fails_while_the_store_is_opened_harms_nothing() -> Outcome<()> {
    let mut chance = Seed::from_environment(44);
    let mut failed = 0;
    for k in 1..=12 {
        let place = folder::temporary("opening")?;
        let disk = Disk::new()?;
        disk.fail_sync(k);
        match vfs_work::open(place.path(), Some(&disk)).await {
            Ok(store) => store.close().await,
            Err(StoreError::Database(_) | StoreError::Broken | StoreError::Migrate(_)) => {
                failed += 1;
            }
            Err(other) => return Err(other.into()),
        }
        let injected = disk.injected().failed_syncs;
        disk.fail_sync(u64::MAX);
        let answers = Answers::default();
        let events = disk.take_events();
        nothing_is_lost(&events, &answers, place.path(), chance.branch()).await?;
        println!("{k}: {injected} failed");
    }
    assert!(failed >= 3, "only {failed} openings failed");
    Ok(())
}

/// Hands in so much that a checkpoint is due, for which the database file has to grow too; none when there is no room.
async fn a_lot(store: &Store, disk: &Disk) -> Outcome<Option<Answer<(u32, Seq)>>> {
    match vfs_work::post(store, vfs_work::device(1)?, vec![3; 5 << 20]).await {
        Ok(seq) => Ok(Some(Answer { moment: disk.moment(), what: (1, seq) })),
        Err(StoreError::Full) => Ok(None),
        Err(other) => Err(other.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_and_everything_goes_on_once_there_is_room() -> Outcome<()> {
    let mut chance = Seed::from_environment(45);
    let place = folder::temporary("full")?;
    let disk = Disk::new()?;
    let store = vfs_work::open(place.path(), Some(&disk)).await?;
    vfs_work::make_rooms(&store, PLAN).await?;
    let made = Answer { moment: disk.moment(), what: () };
    let mut answers = Answers { made: Some(made), ..Answers::default() };
    let room = vfs_work::room(0)?;
    let name = LogName::Room(room.clone());
    let mut refused = 0;
    for cycle in 0..30 {
        // Else what is written finds room where the log was longer before.
        vfs_work::truncate_log(place.path(), &disk).await?;
        disk.limit(Some(chance.between(0, 100_000)));
        let first = cycle * 1_000;
        let devices = (0..2).map(|from| until_refused(&store, &disk, from, first, 120));
        for ended in tests::together(devices).await {
            let (placed, error) = ended?;
            answers.placed.extend(placed);
            match error {
                Some(StoreError::Full) => refused += 1,
                None => {}
                other => return Trouble::is(format!("cycle {cycle}: {other:?}")),
            }
        }
        // Reading needs no room.
        let log = vfs_work::find(&store, &name).await?.ok_or_else(|| Trouble::new("room 0"))?;
        vfs_check::whole(&store, &log).await?;
        // What the ballast is for: cursors move and entries go while nothing new is taken.
        disk.limit(Some(4 << 20));
        let (reader, seq) = (vfs_work::device(0)?, log.head);
        vfs_work::acknowledge(&store, name.clone(), reader, seq).await?;
        answers.acked.push(Answer { moment: disk.moment(), what: (0, 0, seq) });
        let tail = vfs_work::trim(&store, name.clone(), 20).await?;
        answers.trimmed.push(Answer { moment: disk.moment(), what: (0, tail) });
        if cycle % 5 == 4 {
            disk.limit(Some(chance.between(4 << 20, 9 << 20)));
            let posted = a_lot(&store, &disk).await?;
            refused += u32::from(posted.is_none());
            answers.posted.extend(posted);
        }
        disk.limit(None);
        let message = Message { from: 2, n: cycle };
        let accepted = vfs_work::place(&store, &room, message).await?;
        let what = Placed { room: 0, message, accepted };
        answers.placed.push(Answer { moment: disk.moment(), what });
    }
    println!("{refused} refused, {:?}, {} answered", disk.injected(), answers.count());
    assert!(refused >= 20 && disk.injected().full >= 20, "{refused}, {:?}", disk.injected());
    store.close().await;
    nothing_is_lost(&disk.take_events(), &answers, place.path(), chance).await
}

const STALL: Duration = Duration::from_secs(5);
const CROWD: usize = 1_000;

/// Many who submit at the same moment, while a sync stalls: who got a place had to wait for it, who got none heard so at once. Says who got
/// one, and how many did not.
async fn crowd(store: Store, disk: Disk) -> Outcome<(Vec<Answer<Placed>>, usize)> {
    let begun = Instant::now();
    let all = (0..CROWD).map(|n| {
        let (store, disk) = (&store, &disk);
        async move {
            let message = Message { from: 1, n: u32::try_from(n)? };
            let placed = vfs_work::place(store, &vfs_work::room(0)?, message).await;
            Ok::<_, Trouble>((message, placed, disk.moment(), begun.elapsed()))
        }
    });
    let (mut answers, mut busy) = (Vec::new(), 0);
    for one in tests::together(all).await {
        let (message, placed, moment, after) = one?;
        match placed {
            Ok(accepted) => {
                assert!(after >= STALL * 4 / 5, "answered after {after:?}");
                assert!(after < STALL + Duration::from_secs(3), "answered after {after:?}");
                answers.push(Answer { moment, what: Placed { room: 0, message, accepted } });
            }
            Err(Stop::Store(StoreError::Busy)) => {
                busy += 1;
                assert!(after < Duration::from_secs(3), "refused after {after:?}");
            }
            Err(stop) => return Err(stop.into()),
        }
    }
    Ok((answers, busy))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stalled_sync_holds_up_a_bounded_number_loses_none_and_is_over_when_it_is_over()
-> Outcome<()> {
    const QUEUE: usize = 64;
    let place = folder::temporary("stall")?;
    let disk = Disk::new()?;
    let store = vfs_work::open_with(place.path(), Some(&disk), QUEUE).await?;
    vfs_work::make_rooms(&store, PLAN).await?;
    let made = Answer { moment: disk.moment(), what: () };
    let mut answers = Answers { made: Some(made), ..Answers::default() };

    let begun = Instant::now();
    let (placed, error) = until_refused(&store, &disk, 0, 0, 300).await?;
    assert!(error.is_none(), "{error:?}");
    answers.placed.extend(placed);
    let usual = begun.elapsed();

    disk.stall(STALL);
    let crowd = tokio::spawn(crowd(store.clone(), disk.clone()));
    tokio::time::sleep(Duration::from_millis(500)).await;
    // Reading goes on meanwhile.
    let read = Instant::now();
    for _ in 0..20 {
        let log = vfs_work::find(&store, &LogName::Room(vfs_work::room(0)?)).await?;
        vfs_check::whole(&store, &log.ok_or_else(|| Trouble::new("room 0"))?).await?;
    }
    let read = read.elapsed();
    assert!(read < Duration::from_secs(2), "reading took {read:?}");
    let (placed, busy) = crowd.await??;
    let waited = placed.len();
    answers.placed.extend(placed);
    assert_eq!(disk.injected().stalls, 1);
    // Those in the transaction that stalled, and those that fit in the queue.
    assert!((QUEUE..=QUEUE + 2 * 256).contains(&waited), "{waited} waited");
    assert_eq!(waited + busy, CROWD);

    let begun = Instant::now();
    let (placed, error) = until_refused(&store, &disk, 0, 300, 300).await?;
    assert!(error.is_none(), "{error:?}");
    answers.placed.extend(placed);
    let after = begun.elapsed();
    println!("300 messages: {usual:?} before, {after:?} after; {waited} waited, {busy} refused");
    assert!(after < usual * 4 + Duration::from_secs(1), "{usual:?} before, {after:?} after");
    store.close().await;
    nothing_is_lost(&disk.take_events(), &answers, place.path(), Seed::new(46)).await
}

/// By room: kind, time, body.
type Content = Vec<(u32, (EntryKind, Timestamp, Option<Vec<u8>>))>;

/// What became of a database with one bit turned.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Harmless,
    NotOpened,
    NotRead,
    /// Only whoever follows the numbers and the chain sees it, as every device does.
    ChainBroken,
}

/// Everything that is read back.
async fn turned(image: &Image, place: &Path, content: &Content) -> Outcome<Fate> {
    lay_out(place, image)?;
    let Ok(store) = vfs_work::open(place, None).await else { return Ok(Fate::NotOpened) };
    let mut fate = Fate::Harmless;
    for number in 0..PLAN.rooms {
        let found = vfs_work::find(&store, &LogName::Room(vfs_work::room(number)?)).await;
        let Ok(Some(log)) = found else {
            fate = Fate::NotRead;
            continue;
        };
        match vfs_check::read(&store, &log).await {
            Err(_) => fate = Fate::NotRead,
            Ok(entries) => {
                for entry in entries {
                    let (seq, served) = (entry.seq, (entry.kind, entry.at, entry.body));
                    // Under another number it breaks the chain, which is looked at below.
                    if !content.contains(&(number, served)) {
                        return Trouble::is(format!("room {number}, {seq}: altered and served"));
                    }
                }
                if vfs_check::whole(&store, &log).await.is_err() {
                    fate = fate.max(Fate::ChainBroken);
                }
            }
        }
    }
    store.close().await;
    Ok(fate)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_that_turned_is_never_served_as_if_it_were_whole() -> Outcome<()> {
    let mut chance = Seed::from_environment(47);
    let place = folder::temporary("bits")?;
    let disk = Disk::new()?;
    let mut answers = Answers::default();
    let work = Work { folder: place.path(), disk: &disk, plan: PLAN };
    work.session(0, &mut answers, chance.branch()).await?;
    let mut content = Content::new();
    let store = vfs_work::open(place.path(), None).await?;
    for number in 0..PLAN.rooms {
        let log = vfs_work::find(&store, &LogName::Room(vfs_work::room(number)?)).await?;
        let log = log.ok_or_else(|| Trouble::new("a room"))?;
        for entry in vfs_check::whole(&store, &log).await? {
            content.push((number, (entry.kind, entry.at, entry.body)));
        }
    }
    store.close().await;
    let whole = std::fs::read(vfs_work::file(place.path()))?;
    let bodies: Vec<usize> = content
        .iter()
        .filter_map(|(_, (_, _, body))| body.as_ref()?.get(..64))
        .filter_map(|start| whole.windows(start.len()).position(|w| w == start))
        .collect();
    assert!(bodies.len() > 50, "only {} bodies were found in the file", bodies.len());

    let mut fates: BTreeMap<Fate, u32> = BTreeMap::new();
    for n in 0..90_usize {
        // A third anywhere, two thirds where they hurt.
        let at = match bodies.get(n) {
            Some(body) if n < 60 => body + usize::try_from(chance.between(0, 63))?,
            _ => usize::try_from(chance.between(0, whole.len() as u64 - 1))?,
        };
        let mut data = whole.clone();
        if let Some(byte) = data.get_mut(at) {
            *byte ^= 1 << chance.between(0, 7);
        }
        let image = Image { files: [("node.db".to_owned(), data)].into(), ..Image::default() };
        let fate = turned(&image, place.path(), &content).await;
        let fate = fate.map_err(|e| Trouble::new(format!("byte {at}: {e}")))?;
        *fates.entry(fate).or_default() += 1;
    }
    println!("{fates:?}");
    assert!(fates.get(&Fate::NotRead) >= Some(&40), "{fates:?}");
    Ok(())
}
