//! A PostgreSQL server that is killed, hung up, closed for writing and filled under a node that works.

use std::time::Duration;

use faults::process::cluster::Cluster;
use faults::process::plain::{Plain, Said};
use protocol::Code;
use protocol::api::Submit;
use tests::disk::SmallDisk;
use tests::seed::Seed;
use tests::trouble::During as _;
use tests::world::{World, setup};
use tests::{Outcome, Trouble, folder, together};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// The node waits two seconds for a connection, once for whoever is first in the queue and once for the next, and a little goes by on the way.
const ANSWERED_WITHIN: Duration = Duration::from_millis(4_500);
/// From the moment the database works again.
const RECOVERED_WITHIN: Duration = Duration::from_secs(5);

/// What people were told while the database was in trouble.
#[derive(Default)]
struct Told {
    accepted: usize,
    refused: usize,
    slowest: Duration,
    /// Not taken, or not known to be.
    open: Vec<Submit>,
}

/// Says one thing after the other until told to stop. Whatever is not taken is refused with a code and a time to wait, soon.
async fn talk(person: &mut Plain, stopped: watch::Receiver<bool>) -> Outcome<Told> {
    let (mut told, mut n) = (Told::default(), 0);
    while !*stopped.borrow() {
        n += 1;
        let submit = person.message(&format!("message {n}"))?;
        let said = person.submit(&submit).await?;
        told.slowest = told.slowest.max(said.took);
        match said {
            said if said.place().is_some() => told.accepted += 1,
            Said {
                code: Some(Code::Unavailable | Code::DiskFull), retry_after: Some(_), ..
            } => {
                told.refused += 1;
                told.open.push(submit);
                sleep(Duration::from_millis(100)).await;
            }
            said => return Trouble::is(format!("while the database is in trouble: {said:?}")),
        }
    }
    Ok(told)
}

/// Lets people talk while `trouble` happens to the database and ends; `Ok` of what they were told. Then everything that was accepted is
/// there, and what was refused is taken once.
async fn under_load<F>(name: &str, people: &mut [Plain], trouble: F) -> Outcome<Told>
where
    F: Future<Output = Outcome<()>>,
{
    let (stop, stopped) = watch::channel(false);
    let talking = together(people.iter_mut().map(|p| talk(p, stopped.clone())));
    let troubled = async {
        let done = trouble.await;
        let begun = Instant::now();
        stop.send_replace(true);
        done.map(|()| begun)
    };
    let (told, ended) = tokio::join!(talking, troubled);
    let ended = ended.during(name)?;
    let mut all = Told::default();
    for (person, told) in people.iter_mut().zip(told) {
        let told = told.during(name)?;
        all.accepted += told.accepted;
        all.refused += told.refused;
        all.slowest = all.slowest.max(told.slowest);
        for submit in told.open {
            // Once the database works, everything is taken within the time to recover.
            let mut said = person.submit(&submit).await?;
            while said.place().is_none() && ended.elapsed() < RECOVERED_WITHIN {
                sleep(Duration::from_millis(100)).await;
                said = person.submit(&submit).await?;
            }
            said.place().during(format!("{name}: not taken again: {said:?}"))?;
        }
    }
    let recovered = ended.elapsed();
    for person in &mut *people {
        let there = person.check().await?;
        // Its room's beginning is no entry: exactly what was accepted is there.
        assert_eq!(there, person.accepted.len(), "{name}");
    }
    println!(
        "{name}: {} accepted, {} refused, the slowest answer after {} ms; all taken {} ms after the end",
        all.accepted,
        all.refused,
        all.slowest.as_millis(),
        recovered.as_millis()
    );
    assert!(all.accepted > 0, "{name}: nobody worked");
    assert!(all.refused > 0, "{name}: there was no trouble");
    assert!(all.slowest < ANSWERED_WITHIN, "{name}: an answer took {:?}", all.slowest);
    Ok(all)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_server_in_trouble_costs_time_and_no_message() -> Outcome<()> {
    let mut seed = Seed::from_environment(43);
    let place = folder::temporary("cluster")?;
    let Some(cluster) = Cluster::start(&place.path().join("cluster"), 160)? else {
        println!(
            "skipped: PostgreSQL killed, hung up, read-only and full: it is not installed, or may not run here"
        );
        return Ok(());
    };
    let mut node = setup("a.localhost")?;
    node.settings.push(("database.url".to_owned(), cluster.url()));
    let mut world = World::start_with("in-trouble", vec![node]).await?;
    let mut people = Vec::new();
    for name in ["ana", "bea", "cid", "dan"] {
        people.push(Plain::register(world.node(0)?, name).await?);
    }
    let mut pause = move || Duration::from_millis(seed.between(200, 600));
    for _ in 0..2 {
        let down = Duration::from_secs(5) + pause();
        under_load("killed", &mut people, async {
            sleep(pause()).await;
            cluster.kill()?;
            sleep(down).await;
            cluster.resume()
        })
        .await?;
    }
    under_load("hung up", &mut people, async {
        let mut ended = 0;
        for _ in 0..8 {
            sleep(pause()).await;
            ended += cluster.hang_up().await?;
        }
        if ended >= 8 { Ok(()) } else { Trouble::is(format!("only {ended} connections ended")) }
    })
    .await?;
    under_load("read-only", &mut people, async {
        sleep(pause()).await;
        cluster.read_only(true).await?;
        sleep(Duration::from_secs(2)).await;
        cluster.read_only(false).await
    })
    .await?;
    match cluster.disk() {
        None => println!("skipped: PostgreSQL on a full disk: only root may mount a small one"),
        Some(disk) => {
            for _ in 0..2 {
                under_load("full", &mut people, async {
                    sleep(pause()).await;
                    full(&cluster, disk).await
                })
                .await?;
            }
        }
    }
    let connections = cluster.connections().await?;
    assert!((1..=6).contains(&connections), "{connections} connections: some were leaked");
    assert_eq!(world.node(0)?.starts(), 1, "it did not even restart");
    world.node(0)?.stop().await?;
    drop(cluster);
    world.passed();
    Ok(())
}

/// No room for three seconds. A server that gave up because of it is started again, as its service manager would.
async fn full(cluster: &Cluster, disk: &SmallDisk) -> Outcome<()> {
    let mut written = 0;
    for _ in 0..30 {
        written += disk.brim()?;
        sleep(Duration::from_millis(100)).await;
    }
    disk.free()?;
    if written == 0 {
        return Trouble::is("the disk was full before");
    }
    if cluster.runs() { Ok(()) } else { cluster.resume() }
}
