//! Promise 7 of the design, and the second sentence of promise 2, over real processes: a backup that is put back, and entries that expired.

use std::collections::BTreeSet;
use std::time::Duration;

use client::{Flag, Message};
use protocol::RoomId;
use protocol::api::GapReason;
use tests::device::{Device, eventually};
use tests::world::World;
use tests::{Outcome, inspect};

const SETTLE: Duration = Duration::from_mins(1);

/// Ana and Alf at the hub, Bea at the follower, in a room of Ana's.
struct Cast {
    ana: Device,
    alf: Device,
    bea: Device,
    room: RoomId,
}

impl Cast {
    async fn of(world: &mut World) -> Outcome<Self> {
        let ana = world.person(0, "ana").await?;
        let alf = world.person(0, "alf").await?;
        let bea = world.person(1, "bea").await?;
        let room = ana.create_room("room").await?;
        for guest in [&alf, &bea] {
            ana.invite(&room, guest.user()).await?;
            guest.until_active(&room).await?;
        }
        Ok(Self { ana, alf, bea, room })
    }

    /// Ana and Bea say `n` each, and everything is accepted.
    async fn talk(&self, when: &str, n: usize) -> Outcome<()> {
        for i in 1..=n {
            self.ana.send(&self.room, &format!("ana {when} {i}")).await?;
            self.bea.send(&self.room, &format!("bea {when} {i}")).await?;
        }
        for device in [&self.ana, &self.bea] {
            device.until_all_accepted(SETTLE).await?;
        }
        Ok(())
    }
}

/// What a device shows of what the two said, in its order.
fn by<'a>(timeline: &'a [Message], device: &Device) -> Vec<&'a Message> {
    timeline.iter().filter(|m| m.device == *device.id()).collect()
}

fn texts(who: &str, whens: &[(&str, usize)]) -> Vec<String> {
    let said = |(when, n): &(&str, usize)| {
        (1..=*n).map(|i| format!("{who} {when} {i}")).collect::<Vec<_>>()
    };
    whens.iter().flat_map(said).collect()
}

/// Both talkers' messages, each once, in the order and with the numbers that they were written with.
fn whole(timeline: &[Message], cast: &Cast, whens: &[(&str, usize)]) {
    for (device, who) in [(&cast.ana, "ana"), (&cast.bea, "bea")] {
        let shown = by(timeline, device);
        let said: Vec<&str> = shown.iter().map(|m| m.text.as_str()).collect();
        assert_eq!(said, texts(who, whens));
        let counters: Vec<u64> = shown.iter().map(|m| m.counter).collect();
        assert!(counters.is_sorted_by(|a, b| a + 1 == *b), "numbers used again: {counters:?}");
        assert!(shown.iter().all(|m| m.flags.is_empty()), "{shown:?}");
    }
    let ids: BTreeSet<_> = timeline.iter().map(|m| m.message_id).collect();
    assert_eq!(ids.len(), timeline.len(), "something is shown twice");
}

/// As [`whole`], but of what the hub had accepted and lost again something may be missing; where it is, the next one says so.
fn told_of_losses(timeline: &[Message], cast: &Cast, whens: &[(&str, usize)], sure: &[&str]) {
    for (device, who) in [(&cast.ana, "ana"), (&cast.bea, "bea")] {
        let shown = by(timeline, device);
        let said = texts(who, whens);
        let mut rest = said.iter();
        for message in &shown {
            assert!(
                rest.any(|t| *t == message.text),
                "{:?} is doubled or out of order",
                message.text
            );
        }
        for text in said.iter().filter(|t| sure.iter().any(|when| t.contains(when))) {
            assert!(shown.iter().any(|m| m.text == *text), "{text:?} is lost, which the hub has");
        }
        let first = shown.first().map_or(1, |m| m.counter);
        let before =
            std::iter::once(first.saturating_sub(1)).chain(shown.iter().map(|m| m.counter));
        for (message, before) in shown.iter().zip(before) {
            assert!(message.counter > before, "a number is used again: {message:?}");
            let hole = message.counter > before + 1;
            assert_eq!(message.flags.contains(&Flag::GapBefore), hole, "{message:?}");
        }
    }
    let ids: BTreeSet<_> = timeline.iter().map(|m| m.message_id).collect();
    assert_eq!(ids.len(), timeline.len(), "something is shown twice");
}

/// It shows these texts.
async fn shows(device: &Device, room: &RoomId, wanted: &[&str]) -> Outcome<()> {
    eventually(SETTLE, "it shows what the hub has", async || {
        let timeline = device.timeline(room).await?;
        let all = wanted.iter().all(|text| timeline.iter().any(|m| m.text == *text));
        Ok(all.then_some(()))
    })
    .await
}

fn same(one: &[Message], other: &[Message]) {
    let order = |t: &[Message]| t.iter().map(|m| m.text.clone()).collect::<Vec<_>>();
    assert_eq!(order(one), order(other));
}

/// What both show is in the same order.
fn agree(one: &[Message], other: &[Message]) {
    let order = |t: &[Message], o: &[Message]| {
        let both = t.iter().filter(|m| o.iter().any(|n| n.message_id == m.message_id));
        both.map(|m| m.text.clone()).collect::<Vec<_>>()
    };
    assert_eq!(order(one, other), order(other, one));
}

fn says(device: &Device, kind: &str) -> bool {
    device.record().alarms.iter().any(|a| a.starts_with(kind))
}

/// It says that the hub was restored.
async fn told(device: &Device) -> Outcome<()> {
    let what = "the restore is noticed";
    eventually(SETTLE, what, async || Ok(says(device, "restored").then_some(()))).await
}

/// `whole`: the backup brings everything back, so that only the operator can know; else the node finds it out by itself.
async fn hub_restored(name: &str, whole_copy: bool) -> Outcome<()> {
    let mut world = World::start(name, &["a.localhost", "b.localhost"]).await?;
    let mut cast = Cast::of(&mut world).await?;
    cast.talk("before", 5).await?;
    cast.alf.until_count(&cast.room, 10, SETTLE).await?;
    let backup = world.root().join("backup");
    let hub = world.node(0)?;
    hub.stop().await?;
    hub.back_up(&backup)?;
    hub.resume().await?;
    // Alf is away and will never get what is accepted now.
    cast.alf.go_offline().await;
    cast.talk("lost", 7).await?;
    for device in [&cast.ana, &cast.bea] {
        device.until_count(&cast.room, 24, SETTLE).await?;
    }
    // In the middle of traffic: these are on their way when the hub goes.
    for i in 1..=3 {
        cast.ana.send(&cast.room, &format!("ana meanwhile {i}")).await?;
        cast.bea.send(&cast.room, &format!("bea meanwhile {i}")).await?;
    }
    let hub = world.node(0)?;
    hub.kill_nine().await?;
    hub.put_back(&backup, whole_copy)?;
    if whole_copy {
        let said = hub.command(&["-o", "json", "restored"]).await?;
        assert!(said.contains("\"new\""), "{said}");
    }
    hub.resume().await?;
    for device in [&cast.ana, &cast.bea] {
        device.until_all_accepted(SETTLE).await?;
    }
    cast.talk("after", 6).await?;
    let whens = [("before", 5), ("lost", 7), ("meanwhile", 3), ("after", 6)];
    for device in [&cast.ana, &cast.bea] {
        shows(device, &cast.room, &["ana after 6", "bea after 6"]).await?;
        let timeline = device.timeline(&cast.room).await?;
        told_of_losses(&timeline, &cast, &whens, &["before", "lost", "after"]);
        assert_eq!(device.record().doubles, Vec::new());
        told(device).await?;
    }
    agree(&cast.ana.timeline(&cast.room).await?, &cast.bea.timeline(&cast.room).await?);

    // Alf missed what only the lost part of the hub's database had: he is told where something is missing.
    cast.alf.go_online().await?;
    shows(&cast.alf, &cast.room, &["ana after 6", "bea after 6"]).await?;
    told(&cast.alf).await?;
    let timeline = cast.alf.timeline(&cast.room).await?;
    told_of_losses(&timeline, &cast, &whens, &["before", "after"]);
    for device in [&cast.ana, &cast.bea] {
        let flagged = by(&timeline, device).iter().any(|m| m.flags.contains(&Flag::GapBefore));
        assert!(flagged, "seven messages are missing, and nothing says so");
    }
    // And he is heard.
    let id = cast.alf.send(&cast.room, "alf is back").await?;
    cast.alf.until_accepted(&id, "alf's").await?;
    shows(&cast.bea, &cast.room, &["alf is back"]).await?;
    for node in &world.nodes {
        inspect::sound(node.data()).await?;
    }
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring_a_backup_never_breaks_a_room_and_never_reuses_a_number() -> Outcome<()> {
    hub_restored("restore", false).await
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring_a_backup_that_hides_it_never_breaks_a_room_once_the_operator_says_so()
-> Outcome<()> {
    hub_restored("restored", true).await
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring_a_backup_of_a_follower_loses_nothing() -> Outcome<()> {
    let mut world = World::start("follower", &["a.localhost", "b.localhost"]).await?;
    let cast = Cast::of(&mut world).await?;
    cast.talk("before", 5).await?;
    let backup = world.root().join("backup");
    let follower = world.node(1)?;
    follower.stop().await?;
    follower.back_up(&backup)?;
    follower.resume().await?;
    cast.talk("between", 7).await?;
    for i in 1..=3 {
        cast.ana.send(&cast.room, &format!("ana meanwhile {i}")).await?;
        cast.bea.send(&cast.room, &format!("bea meanwhile {i}")).await?;
    }
    let follower = world.node(1)?;
    follower.kill_nine().await?;
    follower.put_back(&backup, false)?;
    follower.resume().await?;
    for device in [&cast.ana, &cast.bea] {
        device.until_all_accepted(SETTLE).await?;
    }
    cast.talk("after", 6).await?;
    let whens = [("before", 5), ("between", 7), ("meanwhile", 3), ("after", 6)];
    for device in [&cast.ana, &cast.alf, &cast.bea] {
        device.until_count(&cast.room, 42, SETTLE).await?;
        let timeline = device.timeline(&cast.room).await?;
        whole(&timeline, &cast, &whens);
        assert_eq!(device.record().doubles, Vec::new());
        let seqs: BTreeSet<_> = timeline.iter().map(|m| m.seq).collect();
        assert_eq!(seqs.len(), timeline.len(), "a place of the hub holds two messages");
    }
    same(&cast.ana.timeline(&cast.room).await?, &cast.bea.timeline(&cast.room).await?);
    for node in &world.nodes {
        inspect::sound(node.data()).await?;
    }
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn restoring_a_backup_from_before_a_change_of_members_never_breaks_the_room() -> Outcome<()> {
    let mut world = World::start("members", &["a.localhost", "b.localhost"]).await?;
    let cast = Cast::of(&mut world).await?;
    cast.talk("before", 3).await?;
    let backup = world.root().join("backup");
    let hub = world.node(0)?;
    hub.stop().await?;
    hub.back_up(&backup)?;
    hub.resume().await?;
    // The hub forgets this commit, and everybody else has carried it out.
    cast.ana.remove(&cast.room, cast.alf.user()).await?;
    cast.talk("lost", 3).await?;
    cast.bea.until_count(&cast.room, 12, SETTLE).await?;
    let hub = world.node(0)?;
    hub.kill_nine().await?;
    hub.put_back(&backup, false)?;
    hub.resume().await?;
    let ids = [
        (&cast.ana, cast.ana.send(&cast.room, "ana after").await?),
        (&cast.bea, cast.bea.send(&cast.room, "bea after").await?),
    ];
    for (device, id) in ids {
        device.until_accepted(&id, "after the restore").await?;
    }
    // Nobody had to do anything: both are told, came in anew, and understand each other.
    eventually(SETTLE, "both are in the same epoch", async || {
        let ana = cast.ana.until_active(&cast.room).await?;
        let bea = cast.bea.until_active(&cast.room).await?;
        Ok((ana.epoch == bea.epoch && ana.members == bea.members).then_some(()))
    })
    .await?;
    cast.talk("healed", 3).await?;
    for device in [&cast.ana, &cast.bea] {
        eventually(SETTLE, "what is said now", async || {
            let timeline = device.timeline(&cast.room).await?;
            let healed = timeline.iter().filter(|m| m.text.contains("healed") && m.seq.is_some());
            Ok((healed.count() == 6).then_some(()))
        })
        .await?;
        let told = says(device, "restored") || says(device, "out-of-step");
        assert!(told, "{:?}", device.record().alarms);
        let timeline = device.timeline(&cast.room).await?;
        let ids: BTreeSet<_> = timeline.iter().map(|m| m.message_id).collect();
        assert_eq!((ids.len(), device.record().doubles.len()), (timeline.len(), 0), "doubled");
        for (who, other) in [("ana", &cast.ana), ("bea", &cast.bea)] {
            let shown = by(&timeline, other);
            let counters: Vec<u64> = shown.iter().map(|m| m.counter).collect();
            assert!(counters.is_sorted_by(|a, b| a < b), "numbers again: {counters:?}");
            for text in texts(who, &[("before", 3), ("lost", 3), ("healed", 3)]) {
                assert!(shown.iter().any(|m| m.text == text), "{} lost {text:?}", device.id());
            }
            // What was said while somebody was out of step may be missing here, but not silently.
            let gap = shown.iter().any(|m| m.flags.contains(&Flag::GapBefore));
            let after = shown.iter().any(|m| m.text == format!("{who} after"));
            assert!(after || gap, "{} misses {who}'s message and shows no gap", device.id());
        }
    }
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_expires_or_is_dropped_shows_up_as_a_gap_with_the_reason() -> Outcome<()> {
    let mut world = World::start("expires", &["a.localhost", "b.localhost"]).await?;
    let mut cast = Cast::of(&mut world).await?;
    cast.talk("before", 2).await?;
    for device in [&cast.alf, &cast.bea] {
        device.until_count(&cast.room, 4, SETTLE).await?;
    }
    // One waits at the hub itself, the other behind a node that is away.
    cast.alf.go_offline().await;
    world.node(1)?.stop().await?;
    let first = cast.ana.room(&cast.room).await?.map(|r| r.seq.get() + 1).unwrap_or_default();
    for i in 1..=5 {
        let id = cast.ana.send(&cast.room, &format!("ana expired {i}")).await?;
        cast.ana.until_accepted(&id, "with nobody there").await?;
    }
    let hub = world.node(0)?;
    hub.stop().await?;
    assert!(inspect::age(hub.data(), Duration::from_hours(31 * 24)).await? >= 5);
    hub.resume().await?;
    let data = hub.data().to_owned();
    eventually(SETTLE, "the sweep", async || {
        Ok((inspect::sound(&data).await?.entries == 0).then_some(()))
    })
    .await?;
    let id = cast.ana.send(&cast.room, "ana after").await?;
    cast.ana.until_accepted(&id, "after the sweep").await?;
    world.node(1)?.resume().await?;
    cast.alf.go_online().await?;
    for device in [&cast.alf, &cast.bea] {
        device.until_count(&cast.room, 5, SETTLE).await?;
        let gaps: Vec<_> = device
            .client()?
            .gaps(&cast.room)
            .await?
            .into_iter()
            .map(|(first, last, reason)| (first.get(), last.get(), reason))
            .collect();
        let reason = GapReason::Expired;
        assert_eq!(gaps, [(first, first + 4, Some(reason))], "{}", device.id());
        let told = |a: &String| a.contains(&format!("{first} to {}: {reason:?}", first + 4));
        assert!(device.record().alarms.iter().any(told), "{:?}", device.record().alarms);
        let timeline = device.timeline(&cast.room).await?;
        let after = timeline.iter().find(|m| m.text == "ana after");
        assert!(after.is_some_and(|m| m.flags == [Flag::GapBefore]), "{after:?}");
        let before = timeline.iter().filter(|m| m.text != "ana after");
        assert!(before.clone().count() == 4 && before.clone().all(|m| m.flags.is_empty()));
    }
    // Both can still speak.
    for device in [&cast.alf, &cast.bea] {
        let id = device.send(&cast.room, &format!("{} goes on", device.id())).await?;
        device.until_accepted(&id, "after the gap").await?;
    }
    cast.ana.until_count(&cast.room, 12, SETTLE).await?;
    world.passed();
    Ok(())
}
