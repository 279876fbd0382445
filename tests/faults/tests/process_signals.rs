//! SIGSTOP, SIGTERM and SIGKILL at the wrong moment: a node that stands still, one that is asked to go, and two that go in turn.

use std::time::Duration;

use client::Stage;
use faults::process::plain::{Plain, Said};
use futures_util::StreamExt as _;
use protocol::api::{self, Submit, ToDevice};
use protocol::{Code, RoomId};
use tests::device::{Device, eventually};
use tests::ledger::{self, Stay};
use tests::seed::Seed;
use tests::trouble::During as _;
use tests::world::{World, setup};
use tests::{Outcome, Trouble, inspect, together};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

const SETTLE: Duration = Duration::from_mins(1);

/// Everything that was sent is everywhere, once, in one order.
async fn compare(devices: &[&Device], room: &RoomId) -> Outcome<ledger::Checked> {
    let (mut sent, mut views) = (Vec::new(), Vec::new());
    for device in devices {
        device.until_all_accepted(SETTLE).await?;
        sent.extend(device.sent().await?);
    }
    for device in devices {
        device.until_count(room, sent.len(), SETTLE).await?;
        views.push(device.view(room, Stay::ALWAYS).await?);
    }
    ledger::check(&sent, &views).map_err(Trouble::new)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stands_still_for_seconds_has_no_double_effect() -> Outcome<()> {
    let mut seed = Seed::from_environment(31);
    let mut setups = vec![setup("a.localhost")?, setup("b.localhost")?];
    for setup in &mut setups {
        // So that peers give up on the longest of the halts.
        setup.settings.push(("federation.timeout_ms".to_owned(), "2000".to_owned()));
    }
    let mut world = World::start_with("frozen", setups).await?;
    let ana = world.person(0, "ana").await?;
    let bea = world.person(1, "bea").await?;
    let room = ana.create_room("room").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    let (mut halts, mut held, mut timeouts) = (0, 0, 0);
    for seconds in [1, 10, seed.between(2, 4)] {
        for (frozen, own, other) in [(0, &ana, &bea), (1, &bea, &ana)] {
            let pause = Duration::from_millis(seed.between(0, 50));
            for i in 0..5 {
                other.send(&room, &format!("{halts} before {i}")).await?;
            }
            sleep(pause).await;
            world.node(frozen)?.freeze().await?;
            halts += 1;
            let mut waiting = Vec::new();
            for i in 0..5 {
                waiting.push(own.send(&room, &format!("{halts} at the halted node {i}")).await?);
                other.send(&room, &format!("{halts} at the other node {i}")).await?;
            }
            sleep(Duration::from_secs(seconds)).await;
            if seconds == 10 {
                timeouts += u32::from(told(&world, 1 - frozen).await?.is_some());
            }
            for id in &waiting {
                held += u32::from(own.client()?.state(id).await?.stage < Stage::Stored);
            }
            world.node(frozen)?.thaw().await?;
        }
    }
    let checked = compare(&[&ana, &bea], &room).await?;
    println!(
        "{halts} halts; {held} submissions had to wait for their end; peers told of {timeouts} timeouts"
    );
    assert_eq!((checked.sent, checked.owed), (90, 180));
    assert_eq!((halts, held), (6, 30), "a halted node took something");
    assert_eq!(timeouts, 2, "no peer noticed the longest halts");
    for node in &mut world.nodes {
        assert_eq!(node.starts(), 1);
        node.stop().await?;
        assert!(inspect::sound(node.data()).await?.newest >= 90);
    }
    world.passed();
    Ok(())
}

/// What the node says about the trouble with its one peer.
async fn told(world: &World, i: usize) -> Outcome<Option<String>> {
    let list =
        world.nodes.get(i).during("a node")?.command(&["-o", "json", "peer", "list"]).await?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    let error = list.pointer("/peers/0/last_error").during("the peer's last error")?;
    Ok(error.as_str().map(str::to_owned))
}

/// What became of the requests of one device.
#[derive(Default)]
struct Count {
    answered: usize,
    refused: usize,
    /// Those that the connection broke under: done or not.
    open: Vec<Submit>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_asked_to_go_finishes_what_it_answered() -> Outcome<()> {
    let mut seed = Seed::from_environment(37);
    let mut world = World::start("graceful", &["a.localhost"]).await?;
    let mut people = Vec::new();
    for name in ["ana", "bea", "cid", "dan"] {
        people.push(Plain::register(world.node(0)?, name).await?);
    }
    let (mut answered, mut refused, mut broken) = (0, 0, 0);
    let mut slowest = Duration::ZERO;
    for round in 0..5 {
        let streams = together(people.iter().map(open_stream)).await;
        let streams = streams.into_iter().collect::<Outcome<Vec<_>>>()?;
        let (stop, stopped) = watch::channel(false);
        let node = world.node(0)?;
        let work = together(people.iter_mut().map(|p| talk(p, stopped.clone())));
        let goodbyes = together(streams.into_iter().map(until_closed));
        let quiet = Duration::from_millis(seed.between(200, 900));
        let leave = async {
            sleep(quiet).await;
            let begun = Instant::now();
            node.stop().await?;
            let took = begun.elapsed();
            stop.send_replace(true);
            Outcome::Ok(took)
        };
        let (took, counts, byes) = tokio::join!(leave, work, goodbyes);
        let took = took?;
        slowest = slowest.max(took);
        assert!(took < Duration::from_secs(10), "round {round}: it took {took:?} to go");
        let byes = byes.into_iter().collect::<Outcome<Vec<Code>>>()?;
        assert_eq!(byes, [Code::Unavailable; 4], "every stream is told and closed");
        world.node(0)?.resume().await?;
        for (person, count) in people.iter_mut().zip(counts) {
            let count = count?;
            answered += count.answered;
            refused += count.refused;
            broken += count.open.len();
            // What broke off is handed in again: it has one effect, whether it had one before or not.
            for submit in &count.open {
                let said = person.submit(submit).await?;
                assert!(said.place().is_some(), "{said:?}");
            }
            person.check().await?;
        }
    }
    println!(
        "5 stops, the slowest {} ms; {answered} requests accepted, {refused} refused, {broken} broken off",
        slowest.as_millis()
    );
    assert!(answered >= 200, "only {answered} requests: this was no load");
    // A connection that is closed while its next request is under way may break one request, and no more.
    assert!(broken <= 5 * people.len(), "{broken} requests were cut off");
    world.node(0)?.stop().await?;
    inspect::sound(world.node(0)?.data()).await?;
    world.passed();
    Ok(())
}

/// Says one thing after the other until it is told to stop; a node that is gone takes nothing.
async fn talk(person: &mut Plain, stopped: watch::Receiver<bool>) -> Outcome<Count> {
    let mut count = Count::default();
    let mut n = 0;
    while !*stopped.borrow() {
        n += 1;
        let submit = person.message(&format!("message {n}"))?;
        let before = person.asked;
        match person.submit(&submit).await {
            Ok(said) if said.place().is_some() => count.answered += 1,
            Ok(Said { code: Some(Code::Unavailable), retry_after: Some(_), .. }) => {
                count.refused += 1;
            }
            Ok(said) => return Trouble::is(format!("a node that goes said {said:?}")),
            Err(_) => {
                // Not when it found nobody.
                if person.asked > before {
                    count.open.push(submit);
                }
                while !*stopped.borrow() && person.way.tls().await.is_err() {
                    sleep(Duration::from_millis(20)).await;
                }
            }
        }
    }
    Ok(count)
}

type Stream =
    tokio_tungstenite::WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>;

async fn open_stream(person: &Plain) -> Outcome<Stream> {
    let stream = person.way.tls().await?;
    let mut request = format!("wss://{}/v1/stream", person.way.domain).into_client_request()?;
    let token = format!("Bearer {}", person.token()).parse();
    request.headers_mut().insert("authorization", token?);
    Ok(tokio_tungstenite::client_async(request, stream).await?.0)
}

/// Reads the stream to its close frame; the reason that came before.
async fn until_closed(mut stream: Stream) -> Outcome<Code> {
    let mut reason = None;
    let read = async {
        while let Some(message) = stream.next().await {
            match message? {
                Message::Binary(bytes) => {
                    if let ToDevice::Bye(refusal) = api::decode(&bytes)? {
                        reason = Some(refusal.code);
                    }
                }
                Message::Close(_) => return reason.during("a goodbye before the close frame"),
                _ => {}
            }
        }
        Trouble::is("the stream ended without a close frame")
    };
    timeout(Duration::from_secs(30), read).await.map_err(|_| Trouble::new("no close frame"))?
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_restarted_while_the_receivers_node_is_down_still_delivers() -> Outcome<()> {
    const ROUNDS: usize = 3;
    let mut world = World::start("down", &["a.localhost", "b.localhost"]).await?;
    let mut ana = world.person(0, "ana").await?;
    let bea = world.person(1, "bea").await?;
    let rooms = [ana.create_room("at the hub").await?, bea.create_room("at the follower").await?];
    for (host, guest, room) in [(&ana, &bea, &rooms[0]), (&bea, &ana, &rooms[1])] {
        host.invite(room, guest.user()).await?;
        guest.until_active(room).await?;
    }
    let mut slowest = Duration::ZERO;
    for round in 1..=ROUNDS {
        world.node(1)?.kill_nine().await?;
        // One waits in the room's own log, one in the uplink to its hub.
        let hub = ana.send(&rooms[0], &format!("at the hub {round}")).await?;
        ana.until_accepted(&hub, "with the receiver down").await?;
        let uplink = ana.send(&rooms[1], &format!("for the hub {round}")).await?;
        ana.client()?.wait(&uplink, Stage::Stored, SETTLE).await?;
        // The sender's device and its node go away and come back; one way or the other, in turn.
        ana.go_offline().await;
        if round % 2 == 0 {
            world.node(0)?.stop().await?;
            world.node(0)?.resume().await?;
        } else {
            world.node(0)?.crash().await?;
        }
        sleep(Duration::from_millis(1500)).await;
        let waiting = inspect::waiting(world.node(0)?.data()).await?;
        assert!(waiting >= 2, "{waiting} entries wait at the sender's node");
        let begun = Instant::now();
        world.node(1)?.resume().await?;
        // Nobody says anything more, and the sender's device is off.
        for room in &rooms {
            bea.until_count(room, round, Duration::from_secs(20)).await?;
        }
        slowest = slowest.max(begun.elapsed());
        ana.go_online().await?;
    }
    println!(
        "{ROUNDS} rounds, the slowest delivered {} ms after the receiver's start",
        slowest.as_millis()
    );
    eventually(SETTLE, "ana sees both rooms whole", async || {
        let counts = (ana.count(&rooms[0]).await?, ana.count(&rooms[1]).await?);
        Ok((counts == (ROUNDS, ROUNDS)).then_some(()))
    })
    .await?;
    for device in [&ana, &bea] {
        for room in &rooms {
            assert_eq!(device.count(room).await?, ROUNDS);
        }
        let record = device.record();
        assert!(record.doubles.is_empty() && record.alarms.is_empty(), "{record:?}");
    }
    assert_eq!(world.node(1)?.kills(), 3);
    world.passed();
    Ok(())
}
