//! `waxwing-node peer`: blocking, unblocking and forgetting another organisation's node, and how much one may bring.

use std::time::Duration;

use client::{RoomStatus, Stage};
use protocol::{Code, RoomId};
use serde_json::Value;
use tests::device::{Device, eventually};
use tests::peer::Peer;
use tests::trouble::During as _;
use tests::world::{World, setup};
use tests::{Outcome, Trouble};
use tokio::time::sleep;

use crate::common::{NODES, fields, text};

/// What an operator's change takes to reach everything, the sweep of the lanes included.
const SETTLE: Duration = Duration::from_mins(1);

/// What the operator of node `i` is told.
async fn ask(world: &mut World, i: usize, args: &[&str]) -> Outcome<Value> {
    world.node(i)?.run(&[&["-o", "json"], args].concat(), &[]).await?.json()
}

async fn refused(world: &mut World, i: usize, args: &[&str], code: &str) -> Outcome<()> {
    let ran = world.node(i)?.run(&[&["-o", "json"], args].concat(), &[]).await?;
    let error = ran.error()?;
    assert_eq!((ran.code, error["code"].as_str()), (Some(1), Some(code)), "{error}");
    fields(&error, "code message at why retryable hint");
    Ok(())
}

/// Ana at a.localhost and Bea at b.localhost in one room that a.localhost orders.
async fn two(world: &mut World) -> Outcome<(Device, Device, RoomId)> {
    let (ana, bea) = (world.person(0, "ana").await?, world.person(1, "bea").await?);
    let room = ana.create_room("both").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    let id = bea.send(&room, "before").await?;
    bea.until_accepted(&id, "before").await?;
    ana.until_count(&room, 1, SETTLE).await?;
    Ok((ana, bea, room))
}

/// b.localhost as it speaks to a.localhost.
fn of_b(world: &mut World, pin: [u8; 32]) -> Outcome<Peer> {
    let b = world.node(1)?;
    let (domain, data) = (b.domain().clone(), b.data().to_owned());
    let a = world.node(0)?;
    Peer::new(&domain, &data, (a.address()?, a.domain().clone()), pin)
}

async fn says(peer: &mut Peer) -> Outcome<Option<Code>> {
    let path = "/v1/groupInfo/mimi%3A%2F%2Fa.localhost%2Fr%2Fx";
    let answer = peer.ask(path, "mimi@b.localhost", &[], vec![1]).await?;
    Ok(answer.during("an answer")?.code())
}

const PEER: &str = "domain host port node_key state added_ms last_contact_ms last_error queued";

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_peer_is_cut_off_at_once_in_both_directions_and_goes_on_when_unblocked()
-> Outcome<()> {
    let mut world = World::start("block", &NODES).await?;
    let (ana, bea, room) = two(&mut world).await?;
    let mut peer = of_b(&mut world, ana.client()?.whoami().node_key)?;
    assert_eq!(says(&mut peer).await?, Some(Code::Malformed));
    let blocked = ask(&mut world, 0, &["peer", "block", "b.localhost"]).await?;
    fields(&blocked, PEER);
    assert_eq!(blocked["state"], "blocked");
    // The very next request on the same connection.
    assert_eq!(says(&mut peer).await?, Some(Code::UnknownPeer));
    refused(&mut world, 0, &["peer", "block", "c.localhost"], "NO-PEER").await?;

    let to_bea = ana.send(&room, "to bea").await?;
    ana.until_accepted(&to_bea, "at its own node").await?;
    let to_ana = bea.send(&room, "to ana").await?;
    bea.client()?.wait(&to_ana, Stage::Stored, SETTLE).await?;
    sleep(Duration::from_secs(3)).await;
    for restarted in [false, true] {
        let listed = ask(&mut world, 0, &["peer", "list"]).await?;
        let row = &listed["peers"][0];
        // Not even tried: that nothing goes is not the peer's fault.
        assert!(row["queued"].as_u64() > Some(0) && row["last_error"].is_null(), "{row}");
        assert_eq!((ana.count(&room).await?, bea.count(&room).await?), (2, 1), "{restarted}");
        if !restarted {
            world.node(0)?.crash().await?;
            sleep(Duration::from_secs(3)).await;
        }
    }
    assert!(world.node(0)?.command(&["status"]).await?.contains("b.localhost blocked"));

    // Neither a new line nor one that it has used lets it in.
    let line = text(&ask(&mut world, 0, &["peer", "invite"]).await?, "line")?;
    let ran = world.node(1)?.run(&["-o", "json", "peer", "add", &line], &[]).await?;
    assert_eq!(ran.error()?["code"], "UNKNOWN-PEER", "{ran:?}");
    let line = text(&ask(&mut world, 1, &["peer", "invite"]).await?, "line")?;
    refused(&mut world, 0, &["peer", "add", &line], "BLOCKED").await?;

    let open = ask(&mut world, 0, &["peer", "unblock", "b.localhost"]).await?;
    assert_eq!(open["state"], "active");
    for device in [&ana, &bea] {
        device.until_count(&room, 3, SETTLE).await?;
    }
    let texts = async |device: &Device| -> Outcome<Vec<String>> {
        Ok(device.timeline(&room).await?.into_iter().map(|m| m.text).collect())
    };
    assert_eq!(texts(&ana).await?, texts(&bea).await?);
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_is_forgotten_and_only_a_new_line_makes_it_one_again() -> Outcome<()> {
    let mut world = World::start("forget", &NODES).await?;
    refused(&mut world, 0, &["peer", "remove", "c.localhost"], "NO-PEER").await?;
    // No room is shared yet: nothing to ask about. A line that was used does not work again.
    let used = text(&ask(&mut world, 0, &["peer", "invite"]).await?, "line")?;
    ask(&mut world, 1, &["peer", "add", &used]).await?;
    let gone = ask(&mut world, 0, &["peer", "remove", "b.localhost"]).await?;
    fields(&gone, "domain shared_rooms");
    assert_eq!(
        (&gone["shared_rooms"], ask(&mut world, 0, &["peer", "list"]).await?["peers"][0].is_null()),
        (&Value::from(0), true)
    );
    let ran = world.node(1)?.run(&["-o", "json", "peer", "add", &used], &[]).await?;
    assert_eq!(ran.error()?["code"], "BAD-INVITE", "{ran:?}");
    let line = text(&ask(&mut world, 0, &["peer", "invite"]).await?, "line")?;
    ask(&mut world, 1, &["peer", "add", &line]).await?;

    let (ana, bea, room) = two(&mut world).await?;
    let mut peer = of_b(&mut world, ana.client()?.whoami().node_key)?;
    for i in 0..2 {
        let other = if i == 0 { "b.localhost" } else { "a.localhost" };
        refused(&mut world, i, &["peer", "remove", other], "SHARED-ROOMS").await?;
    }
    assert_eq!(says(&mut peer).await?, Some(Code::Malformed), "it still is one");
    let gone = ask(&mut world, 0, &["peer", "remove", "b.localhost", "--yes"]).await?;
    assert_eq!(gone["shared_rooms"], 1);
    assert_eq!(says(&mut peer).await?, Some(Code::UnknownPeer));
    let id = ana.send(&room, "while it is none").await?;
    ana.until_accepted(&id, "at its own node").await?;
    sleep(Duration::from_secs(2)).await;
    assert_eq!(bea.count(&room).await?, 1);

    let line = text(&ask(&mut world, 0, &["peer", "invite"]).await?, "line")?;
    ask(&mut world, 1, &["peer", "add", &line]).await?;
    bea.until_count(&room, 2, SETTLE).await?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_brings_as_many_rooms_as_it_may_and_the_others_wait_there() -> Outcome<()> {
    let mut bounded = setup("b.localhost")?;
    bounded.settings.push(("limits.rooms_per_peer".to_owned(), "2".to_owned()));
    let mut world = World::start_with("many-rooms", vec![setup("a.localhost")?, bounded]).await?;
    let (ana, bea) = (world.person(0, "ana").await?, world.person(1, "bea").await?);
    let mut rooms = Vec::new();
    for i in 0..3 {
        let room = ana.create_room(&format!("room {i}")).await?;
        ana.invite(&room, bea.user()).await?;
        if i < 2 {
            bea.until_active(&room).await?;
        }
        rooms.push(room);
    }
    let [first, .., last] = rooms.as_slice() else { return Trouble::is("no rooms") };
    eventually(SETTLE, "the hub is told", async || {
        let peers = ask(&mut world, 0, &["peer", "list"]).await?;
        let error = peers["peers"][0]["last_error"].as_str().unwrap_or_default().to_owned();
        Ok(error.contains("queue-full").then_some(()))
    })
    .await?;
    assert!(bea.room(last).await?.is_none());
    // Rooms that it has brought before go on.
    let id = ana.send(first, "still here").await?;
    ana.until_accepted(&id, "in a room from before").await?;
    bea.until_count(first, 1, SETTLE).await?;
    // The operator allows more: what waited comes.
    let b = world.node(1)?;
    b.stop().await?;
    b.set("limits.rooms_per_peer", "3");
    b.resume().await?;
    // The hub comes again when it was told to, half a minute after the last refusal.
    eventually(SETTLE, "the last room", async || {
        Ok(bea.room(last).await?.filter(|r| r.status == RoomStatus::Active))
    })
    .await?;
    let id = ana.send(last, "and here").await?;
    ana.until_accepted(&id, "in the last room").await?;
    bea.until_count(last, 1, SETTLE).await?;
    world.passed();
    Ok(())
}
