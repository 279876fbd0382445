//! Promise 6 of the design, its second half, over real processes: a hostile peer hurts only traffic with that peer. The peer is paired, has a
//! member in the room, and holds real certificates; what it says is garbage, too large, somebody else's, or forged.

use std::time::Duration;

use protocol::mimi::{ApplicationBytes, SubmitMessageRequest, expand};
use protocol::{Code, RoomId, UserId, limit};
use tests::device::Device;
use tests::peer::{Answer, Peer};
use tests::seed::Seed;
use tests::trouble::During as _;
use tests::world::World;
use tests::{Outcome, Trouble, inspect, together};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

const SETTLE: Duration = Duration::from_mins(1);
const C_SAYS: &str = "mimi@c.localhost";

/// `c.localhost` as it speaks to node `to`.
fn hostile(world: &mut World, to: usize, pin: [u8; 32]) -> Outcome<Peer> {
    let c = world.node(2)?;
    let (domain, data) = (c.domain().clone(), c.data().to_owned());
    let node = world.node(to)?;
    Peer::new(&domain, &data, (node.address()?, node.domain().clone()), pin)
}

fn path(what: &str, room: &str) -> Outcome<String> {
    Ok(format!("/v1/{what}/{}", expand("{x}", room)?))
}

fn garbage(seed: &mut Seed, bytes: u64) -> Vec<u8> {
    (0..bytes).map(|_| u8::try_from(seed.draw() & 0xff).unwrap_or_default()).collect()
}

const ENDPOINTS: [&str; 5] = ["keyMaterial", "update", "submitMessage", "groupInfo", "x/backfill"];

/// Answered with a refusal, or by hanging up: never carried out.
fn refused(answer: Option<Answer>, what: &str) -> Outcome<()> {
    match answer {
        None => Ok(()),
        Some(answer) if answer.code().is_some() => Ok(()),
        Some(answer) => Trouble::is(format!("{what} was not refused: {answer:?}")),
    }
}

/// Bytes that mean nothing, and too many of them.
async fn babble(peer: &mut Peer, room: &RoomId, seed: &mut Seed) -> Outcome<u32> {
    let mut said = 0;
    for what in ENDPOINTS.into_iter().chain(["notify"]) {
        let path = path(what, room.as_str())?;
        for bytes in [0, 1, 7, 300, 70_000] {
            let answer = peer.ask(&path, C_SAYS, &[], garbage(seed, bytes)).await?;
            refused(answer, what)?;
            said += 1;
        }
        let answer = peer.ask(&path, C_SAYS, &[], vec![0; limit::PEER_BODY_BYTES + 1]).await?;
        refused(answer, what)?;
        said += 1;
    }
    Ok(said)
}

/// In the name of others.
async fn pretend(peer: &mut Peer, room: &RoomId) -> Outcome<u32> {
    let message = ApplicationBytes::parse(vec![0, 1, 0, 2, 0, 0, 0, 0]);
    let mut said = 0;
    for from in ["mimi@a.localhost", "mimi@b.localhost", "mimi@d.localhost", "c.localhost", ""] {
        for what in ENDPOINTS {
            let answer = peer.ask(&path(what, room.as_str())?, from, &[], vec![1]).await?;
            let code = answer.during("an answer")?.code();
            assert_eq!(code, Some(Code::DomainMismatch), "{what} from {from:?}");
            said += 1;
        }
    }
    if let Ok(message) = message {
        for user in ["mimi://a.localhost/u/ana", "mimi://b.localhost/u/bea"] {
            let body =
                SubmitMessageRequest { message: message.clone(), sender: UserId::parse(user)? };
            let path = path("submitMessage", room.as_str())?;
            let answer = peer.ask(&path, C_SAYS, &[], body.encode()).await?.during("an answer")?;
            assert_eq!(answer.code(), Some(Code::DomainMismatch), "in the name of {user}");
            said += 1;
        }
    }
    // News of rooms that are not this peer's to tell.
    for room in [room.as_str(), "mimi://b.localhost/r/x", "mimi://d.localhost/r/x"] {
        let answer = peer.ask(&path("notify", room)?, C_SAYS, &[], vec![1]).await?;
        let code = answer.during("an answer")?.code();
        assert_eq!(code, Some(Code::DomainMismatch), "news of {room}");
        said += 1;
    }
    Ok(said)
}

/// Bundles that look right for their first half, and messages of a room whose member it has.
async fn forge(peer: &mut Peer, room: &RoomId, real: &[u8], seed: &mut Seed) -> Outcome<u32> {
    let (update, submit) = (path("update", room.as_str())?, path("submitMessage", room.as_str())?);
    let mut said = 0;
    for _ in 0..12 {
        let mut bytes = real.to_vec();
        let at = usize::try_from(seed.between(0, bytes.len() as u64 - 1))?;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << seed.between(0, 7);
        }
        bytes.truncate(usize::try_from(seed.between(1, bytes.len() as u64))?);
        refused(peer.ask(&update, C_SAYS, &[], bytes.clone()).await?, "a forged bundle")?;
        // The wrapper is right, what is in it is not: then the answer itself says no.
        if let Ok(message) = ApplicationBytes::parse(bytes) {
            let sender = UserId::parse("mimi://c.localhost/u/cid")?;
            let body = SubmitMessageRequest { message, sender }.encode();
            let answer = peer.ask(&submit, C_SAYS, &[], body).await?.during("an answer")?;
            if answer.code().is_none() {
                let said = protocol::mimi::SubmitMessageResponse::decode(&answer.body)?;
                let accepted =
                    matches!(said.outcome, protocol::mimi::SubmitOutcome::Accepted { .. });
                assert!(!accepted, "a forged message was accepted: {said:?}");
            }
        }
        said += 1;
    }
    Ok(said)
}

/// Says that the attack is over, also when it failed: or the conversation would go on for ever.
async fn until_over<T>(attack: impl Future<Output = T>, stop: watch::Sender<bool>) -> T {
    let said = attack.await;
    stop.send_replace(true);
    said
}

/// Ana and Bea write to each other until told to stop; how many, and how long the slowest took.
async fn converse(
    (ana, bea): (&Device, &Device),
    room: &RoomId,
    stop: watch::Receiver<bool>,
) -> Outcome<(usize, Duration)> {
    let (mut n, mut slowest) = (0, Duration::ZERO);
    while !*stop.borrow() {
        let speaker = if n % 2 == 0 { ana } else { bea };
        let begun = Instant::now();
        let id = speaker.send(room, &format!("while it shouts {n}")).await?;
        speaker.until_accepted(&id, "with a hostile peer").await?;
        slowest = slowest.max(begun.elapsed());
        n += 1;
        sleep(Duration::from_millis(20)).await;
    }
    Ok((n, slowest))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_peer_hurts_only_traffic_with_that_peer() -> Outcome<()> {
    let mut seed = Seed::from_environment(23);
    let mut world = World::start("hostile", &["a.localhost", "b.localhost", "c.localhost"]).await?;
    let ana = world.person(0, "ana").await?;
    let bea = world.person(1, "bea").await?;
    let cid = world.person(2, "cid").await?;
    // One room without the hostile organisation, one with a member there.
    let room = ana.create_room("ours").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    let shared = ana.create_room("shared").await?;
    for guest in [&bea, &cid] {
        ana.invite(&shared, guest.user()).await?;
        guest.until_active(&shared).await?;
    }
    let id = ana.send(&shared, "seen by the peer").await?;
    ana.until_accepted(&id, "the peer's sample").await?;
    cid.until_count(&shared, 1, SETTLE).await?;
    let sample = inspect::newest(world.node(2)?.data()).await?.body;
    let before = inspect::heads(world.node(0)?.data()).await?;
    let shared_before: Vec<_> =
        before.into_iter().filter(|(name, ..)| name.contains(shared.local())).collect();
    assert_eq!(shared_before.len(), 1);

    let pins = [ana.client()?.whoami().node_key, bea.client()?.whoami().node_key];
    let mut at_hub = hostile(&mut world, 0, pins[0])?;
    let mut at_follower = hostile(&mut world, 1, pins[1])?;
    let (stop, stopped) = watch::channel(false);
    let mut seeds = (seed.branch(), seed.branch());
    let attack = async {
        let mut said = 0;
        for round in 0..3 {
            let room = if round == 0 { &shared } else { &room };
            said += babble(&mut at_hub, room, &mut seeds.0).await?;
            said += pretend(&mut at_hub, room).await?;
            said += forge(&mut at_hub, &shared, &sample, &mut seeds.0).await?;
            said += babble(&mut at_follower, room, &mut seeds.1).await?;
            said += pretend(&mut at_follower, room).await?;
        }
        Outcome::Ok(said)
    };
    let (said, spoken) =
        tokio::join!(until_over(attack, stop), converse((&ana, &bea), &room, stopped.clone()));
    let (said, (spoken, slowest)) = (said?, spoken?);
    assert!(said > 300 && spoken > 20, "{said} attacks during {spoken} messages");
    assert!(slowest < Duration::from_secs(5), "the attack held others up: {slowest:?}");

    // Nothing of it was taken: the shared room stands where it stood, and every database is sound.
    for node in &world.nodes {
        assert!(inspect::sound(node.data()).await?.logs > 0);
    }
    let heads = inspect::heads(world.node(0)?.data()).await?;
    let shared_after: Vec<_> =
        heads.into_iter().filter(|(name, ..)| name.contains(shared.local())).collect();
    assert_eq!(shared_after, shared_before);
    for device in [&ana, &bea] {
        device.until_count(&room, spoken, SETTLE).await?;
        let record = device.record();
        assert!(record.alarms.is_empty() && record.doubles.is_empty(), "{record:?}");
        assert_eq!((record.connects, record.disconnects), (1, 0));
    }
    // The nodes did not even restart, and honest traffic with that organisation still works.
    assert!(world.nodes.iter().all(|n| n.starts() == 1 && n.runs()));
    let speak = [(&ana, &cid), (&cid, &ana)].map(|(who, _)| {
        let shared = &shared;
        async move {
            let id = who.send(shared, &format!("{} afterwards", who.id())).await?;
            who.until_accepted(&id, "afterwards").await
        }
    });
    together(speak).await.into_iter().collect::<Outcome<Vec<_>>>()?;
    for device in [&ana, &bea, &cid] {
        device.until_count(&shared, 3, SETTLE).await?;
    }
    world.passed();
    Ok(())
}
