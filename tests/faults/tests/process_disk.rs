//! A disk that fills up under a node, to the low-water mark and then to the last byte, again and again.

use std::path::PathBuf;
use std::time::Duration;

use faults::process::plain::{Plain, Said};
use http::StatusCode;
use protocol::Code;
use protocol::api::Submit;
use tests::device::eventually;
use tests::disk::SmallDisk;
use tests::seed::Seed;
use tests::world::{World, setup};
use tests::{Outcome, folder, inspect};
use tokio::time::{Instant, sleep};

const CYCLES: usize = 5;
const LOW_WATER_MIB: u64 = 24;
/// The node looks at its disk every two seconds.
const LOOK: Duration = Duration::from_secs(4);
/// From the moment there is room again.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_to_the_last_byte_stops_what_is_new_and_nothing_else() -> Outcome<()> {
    let mut seed = Seed::from_environment(41);
    let place = folder::temporary("brim")?;
    let Some(disk) = SmallDisk::mount(&place.path().join("disk"), 256) else {
        println!(
            "skipped: a node on a disk full to the last byte: only root may mount a small one"
        );
        return Ok(());
    };
    let mut node = setup("a.localhost")?;
    node.data = Some(disk.path().join("data"));
    node.settings.push(("disk.low_water_mib".to_owned(), LOW_WATER_MIB.to_string()));
    let mut world = World::start_with("brim", vec![node]).await?;
    let mut ana = Plain::register(world.node(0)?, "ana").await?;
    let mut count = Count::default();
    for cycle in 0..CYCLES {
        until_accepted(&mut ana, 20).await?;
        let sudden = cycle % 2 == 1;
        let waiting = if sudden {
            // Faster than the node looks: the database itself finds no room.
            count.brimful += disk.brim()?;
            until_refused(&mut ana, &mut count).await?
        } else {
            slowly(&disk, seed.between(0, 8), &mut ana, &mut count).await?
        };
        brimful(&disk, &mut ana, &waiting, &mut count).await?;
        if sudden {
            // A node that dies on a full disk comes up on it, and says the same.
            world.node(0)?.kill_nine().await?;
            disk.brim()?;
            world.node(0)?.resume().await?;
            let read = ana.read(0).await?;
            assert_eq!(read.status, StatusCode::OK, "{read:?}");
            refused(&ana.submit(&waiting).await?, &mut count);
        }
        disk.free()?;
        let begun = Instant::now();
        eventually(RECOVERED_WITHIN, "new messages are taken again", async || {
            Ok(ana.submit(&waiting).await?.place())
        })
        .await?;
        count.slowest = count.slowest.max(begun.elapsed());
        assert!(ballast(&disk).exists(), "it takes new messages without its ballast");
        ana.check().await?;
        inspect::sound(world.node(0)?.data()).await?;
    }
    println!(
        "{CYCLES} times full, {} MiB written to the last byte; {} refusals; taken again after at most {} ms",
        count.brimful >> 20,
        count.refusals,
        count.slowest.as_millis()
    );
    assert!(count.brimful > 0 && count.refusals >= 20 * CYCLES, "the disk was not full");
    assert_eq!(world.node(0)?.starts(), 3, "it ended by itself");
    world.node(0)?.stop().await?;
    inspect::sound(world.node(0)?.data()).await?;
    drop(disk);
    world.passed();
    Ok(())
}

/// What was done and seen.
#[derive(Default)]
struct Count {
    /// Bytes that filled the disk up.
    brimful: u64,
    refusals: usize,
    slowest: Duration,
}

fn ballast(disk: &SmallDisk) -> PathBuf {
    disk.path().join("data/node.db.ballast")
}

/// To below the mark, with room left that is for what must go on; then to the last byte. The message that was refused first.
async fn slowly(
    disk: &SmallDisk,
    less: u64,
    ana: &mut Plain,
    count: &mut Count,
) -> Outcome<Submit> {
    disk.fill(LOW_WATER_MIB - 2 - less)?;
    let waiting = until_refused(ana, count).await?;
    assert!(disk.free_mib()? > 4, "it was refused only when there was no room at all");
    goes_on(ana).await?;
    count.brimful += disk.brim()?;
    Ok(waiting)
}

/// No room at all: the ballast is given up, and then its room is taken as well.
async fn brimful(
    disk: &SmallDisk,
    ana: &mut Plain,
    waiting: &Submit,
    count: &mut Count,
) -> Outcome<()> {
    eventually(2 * LOOK, "the ballast is given up", async || {
        Ok((!ballast(disk).exists()).then_some(()))
    })
    .await?;
    // In the room it leaves, deliveries and acknowledgements go on.
    goes_on(ana).await?;
    count.brimful += disk.brim()?;
    for _ in 0..20 {
        refused(&ana.submit(waiting).await?, count);
        let read = ana.read(0).await?;
        assert_eq!(read.status, StatusCode::OK, "delivery needs no room: {read:?}");
        sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Says new things until one is not taken.
async fn until_refused(ana: &mut Plain, count: &mut Count) -> Outcome<Submit> {
    let (said, waiting) = eventually(LOOK, "a refusal", async || {
        let waiting = ana.message("while it is nearly full")?;
        let said = ana.submit(&waiting).await?;
        Ok((!said.status.is_success()).then_some((said, waiting)))
    })
    .await?;
    refused(&said, count);
    Ok(waiting)
}

async fn until_accepted(ana: &mut Plain, n: usize) -> Outcome<()> {
    for i in 0..n {
        let submit = ana.message(&format!("with room {i}"))?;
        let said = ana.submit(&submit).await?;
        assert!(said.place().is_some(), "{said:?}");
    }
    Ok(())
}

#[track_caller]
fn refused(said: &Said, count: &mut Count) {
    assert_eq!(
        (said.status, said.code),
        (StatusCode::INSUFFICIENT_STORAGE, Some(Code::DiskFull)),
        "{said:?}"
    );
    assert!(said.retry_after.is_some_and(|s| s > 0), "no Retry-After: {said:?}");
    count.refusals += 1;
}

/// What is there is given out and acknowledged.
async fn goes_on(ana: &mut Plain) -> Outcome<()> {
    ana.check().await?;
    let newest = ana.accepted.last_key_value().map_or(0, |(seq, _)| *seq);
    let read = ana.read(newest.saturating_sub(5)).await?;
    assert_eq!(read.status, StatusCode::OK, "{read:?}");
    let said = ana.acknowledge(newest).await?;
    assert!(said.status.is_success(), "an acknowledgement is not taken: {said:?}");
    Ok(())
}
