//! A node that may not open one file more.

use std::time::Duration;

use faults::process::plain::Plain;
use faults::process::{files, limit_files, load, logged, opened};
use http::StatusCode;
use tests::Outcome;
use tests::device::eventually;
use tests::trouble::During as _;
use tests::world::World;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// Connections that find no place.
const KNOCKING: usize = 40;

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_a_file_descriptor_left_keeps_its_connections_and_its_database()
-> Outcome<()> {
    let mut world = World::start("files", &["a.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let bea = world.person(0, "bea").await?;
    let room = ana.create_room("room").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    // A process that has done nothing yet has opened nothing that it does not need at once.
    world.node(0)?.crash().await?;
    let mut people = Vec::new();
    for name in ["cid", "dan", "eve", "fay", "gus", "hal"] {
        people.push(Plain::register(world.node(0)?, name).await?);
    }
    world.node(0)?.crash().await?;
    // Whatever it may need of its database later, it has from the beginning.
    let of_database = opened(world.node(0)?, "node.db")?;
    ana.send(&room, "back again").await?;
    bea.until_count(&room, 1, Duration::from_secs(20)).await?;
    all_at_once(&mut people, "before").await?;

    let node = world.node(0)?;
    let before = logged(node, "could not be accepted")?;
    let open = files(node)?;
    limit_files(node, open).await?;
    let address = node.address()?;
    let knocking = tests::together((0..KNOCKING).map(|_| TcpStream::connect(address))).await;
    let knocking = knocking.into_iter().collect::<Result<Vec<_>, _>>()?;
    let node = world.node(0)?;
    let used = load(node, Duration::from_secs(3)).await?;
    let exhausted = logged(node, "could not be accepted")? - before;
    assert!(exhausted > 0, "the node had files left");
    assert!(used < 0.2, "it spends {:.0} % of a processor on what it cannot do", used * 100.0);

    // Those who are in stay in, and the database works for all of them at once.
    let begun = Instant::now();
    for round in 0..10 {
        all_at_once(&mut people, &format!("without files {round}")).await?;
    }
    let id = ana.send(&room, "without files").await?;
    ana.until_accepted(&id, "a stream of before").await?;
    bea.until_count(&room, 2, Duration::from_secs(5)).await?;
    let worked = begun.elapsed();
    let node = world.node(0)?;
    assert!(logged(node, "could not be accepted")? > before + exhausted, "it recovered too early");

    assert_eq!(
        opened(node, "node.db")?,
        of_database,
        "files of the database, at start and under load"
    );
    drop(knocking);
    limit_files(node, 4096).await?;
    let begun = Instant::now();
    let way = people.first().during("a person")?.way.clone();
    eventually(Duration::from_secs(5), "new connections are taken", async || {
        Ok(way.tls().await.ok())
    })
    .await?;
    let recovered = begun.elapsed();
    all_at_once(&mut people, "with files again").await?;
    for person in &mut people {
        person.check().await?;
    }
    println!(
        "{open} files open and not one more: {exhausted} accepts failed in 3 s with {:.1} % of a processor; {} messages in {} ms meanwhile; new connections {} ms after the end",
        used * 100.0,
        10 * people.len() + 1,
        worked.as_millis(),
        recovered.as_millis()
    );
    assert_eq!(world.node(0)?.starts(), 3);
    world.passed();
    Ok(())
}

/// Everybody says something and reads.
async fn all_at_once(people: &mut [Plain], text: &str) -> Outcome<()> {
    let said = tests::together(people.iter_mut().map(async |person| {
        let submit = person.message(text)?;
        Outcome::Ok((person.submit(&submit).await?, person.read(0).await?))
    }));
    for said in said.await {
        let (said, read) = said?;
        assert!(said.place().is_some(), "{said:?}");
        assert_eq!(read.status, StatusCode::OK, "{read:?}");
    }
    Ok(())
}
