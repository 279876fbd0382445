//! Promise 1 against the power: whatever a crash leaves of what was not synced, everything answered is there.

use faults::vfs_check::{Crashes, Verdict};
use faults::vfs_disk::{Disk, Event, Inode, Lie};
use faults::vfs_work::{Answers, Plan, Work};
use tests::seed::Seed;
use tests::{Outcome, folder};

/// How often the disk did what makes crashes dangerous.
#[derive(Debug, Default)]
struct Seen {
    syncs: usize,
    wal_starts: usize,
    cuts: usize,
    deletes: usize,
    creates: usize,
}

fn seen(events: &[Event]) -> Seen {
    let mut seen = Seen::default();
    let mut logs: Vec<Inode> = Vec::new();
    for event in events {
        match event {
            Event::Create { name, inode } => {
                seen.creates += 1;
                if name.ends_with("-wal") {
                    logs.push(*inode);
                }
            }
            Event::Write { inode, offset: 0, .. } if logs.contains(inode) => seen.wal_starts += 1,
            Event::Write { .. } | Event::FolderSync | Event::SyncFailed { .. } => {}
            Event::Delete { .. } => seen.deletes += 1,
            Event::Truncate { .. } => seen.cuts += 1,
            Event::Sync { .. } => seen.syncs += 1,
        }
    }
    seen
}

/// Work on a disk of its own, perhaps one that lies from the second session on, and the moment when it began to.
async fn work(
    plan: Plan,
    sessions: u32,
    mut chance: Seed,
    lie: Option<Lie>,
) -> Outcome<(Vec<Event>, Answers, usize)> {
    let place = folder::temporary("power")?;
    let disk = Disk::new()?;
    let (mut answers, mut from) = (Answers::default(), 0);
    let work = Work { folder: place.path(), disk: &disk, plan };
    for session in 0..sessions {
        work.session(session, &mut answers, chance.branch()).await?;
        if let (0, Some(lie)) = (session, lie) {
            disk.lie(lie);
            from = disk.moment();
        }
    }
    assert_eq!(lie.is_some(), disk.injected().lies > 0, "{:?}", disk.injected());
    Ok((disk.take_events(), answers, from))
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_answered_survives_a_power_loss_at_any_moment() -> Outcome<()> {
    const IMAGES: usize = 2_000;
    let mut chance = Seed::from_environment(31);
    let plan = Plan { rooms: 3, submitters: 4, messages: 60 };
    let (events, answers, from) = work(plan, 3, chance.branch(), None).await?;
    let seen = seen(&events);
    println!("{} changes, {seen:?}; {} answers", events.len(), answers.count());
    assert!(seen.wal_starts >= 5 && seen.cuts >= 2 && seen.deletes >= 3, "too tame: {seen:?}");

    let (images, bad, keep) = (IMAGES, 5, true);
    let crashes = Crashes { events: &events, answers: &answers, plan, images, from, bad, keep };
    let Verdict { images, damaged, damage, asked, wrong } = crashes.check(chance.branch()).await?;
    println!("{images} images, {damaged} of them damaged: {damage:?}; {asked} answers asked for");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(images, IMAGES);
    assert!(damaged > IMAGES / 4, "only {damaged} images lack anything: no power was lost");
    assert!(damage.missing > 1_000 && damage.torn > 1_000 && damage.names > 10, "{damage:?}");
    assert!(asked > IMAGES * 20, "only {asked} answers were asked for");
    Ok(())
}

/// The same check must see a disk that says it synced and did not.
async fn is_noticed(lie: Lie, images: usize) -> Outcome<()> {
    let mut chance = Seed::from_environment(32);
    let plan = Plan { rooms: 2, submitters: 3, messages: 40 };
    let (events, answers, from) = work(plan, 2, chance.branch(), Some(lie)).await?;
    let (bad, keep) = (1, false);
    let crashes = Crashes { events: &events, answers: &answers, plan, images, from, bad, keep };
    let verdict = crashes.check(chance.branch()).await?;
    println!("{lie:?}: noticed in image {} of {images}: {:?}", verdict.images, verdict.wrong);
    assert!(!verdict.wrong.is_empty(), "{lie:?} was not noticed in {} images", verdict.images);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_never_synced_is_noticed() -> Outcome<()> {
    is_noticed(Lie::Wal, 100).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_never_synced_is_noticed() -> Outcome<()> {
    is_noticed(Lie::Database, 400).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_is_never_synced_is_noticed() -> Outcome<()> {
    is_noticed(Lie::Folder, 200).await
}
