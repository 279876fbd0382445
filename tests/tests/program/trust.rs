//! What only a person can decide: whether somebody is who they were, whether a message goes again, whether a room is entered anew.

use serde_json::Value;
use tests::device::eventually;
use tests::trouble::During as _;
use tests::world::World;
use tests::{Outcome, inspect};

use crate::common::{
    NODES, SETTLE, STATE, failed, fields, lines, listed, person, read, room_of_two, text, texts,
    until_status,
};

const BEA: &str = "@bea@b.localhost";

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_shows_another_identity_is_refused_until_a_person_accepts_it() -> Outcome<()> {
    let mut world = World::start("identity", &NODES).await?;
    let backup = world.root().join("backup");
    world.node(1)?.stop().await?;
    world.node(1)?.back_up(&backup)?;
    world.node(1)?.resume().await?;
    let (ana, bea) = (person(&mut world, 0, "ana").await?, person(&mut world, 1, "bea").await?);
    room_of_two(&ana, &bea, "before").await?;
    let number = ana.run(&["contact", "verify", BEA]).await?.json()?;
    fields(&number, "user safety_number");
    let number = text(&number, "safety_number")?;
    let theirs = bea.run(&["contact", "verify", "@ana@a.localhost"]).await?.json()?;
    assert_eq!(text(&theirs, "safety_number")?, number, "both compare the same number");
    failed(&ana.run(&["contact", "accept", BEA]).await?, 1, "no-terminal")?;
    failed(&ana.run(&["--yes", "contact", "accept", BEA]).await?, 1, "invalid")?;

    // Bea's node loses everything since that copy, and she sets herself up anew.
    world.node(1)?.stop().await?;
    world.node(1)?.put_back(&backup, false)?;
    world.node(1)?.resume().await?;
    let anew = person(&mut world, 1, "bea").await?;
    ana.run(&["room", "create", "after"]).await?.done()?;
    let ran = ana.run(&["room", "invite", "after", BEA]).await?;
    let refused: Value = serde_json::from_str(&ran.stdout).during(format!("{ran:?}"))?;
    assert_eq!(
        (ran.code, refused["error"]["code"].as_str()),
        (Some(4), Some("bad-certificate")),
        "{ran:?}"
    );
    assert!(text(&refused["error"], "message")?.contains("Compare safety numbers"), "{refused}");

    // Somebody who has never met her adds her to a room that Ana is in: there, too, Ana must decide.
    let cid = person(&mut world, 0, "cid").await?;
    let made = cid.run(&["room", "create", "plan"]).await?.json()?;
    let plan = text(&made, "room")?;
    cid.run(&["room", "invite", "plan", "@ana@a.localhost"]).await?.done()?;
    until_status(&ana, &plan, "active").await?;
    cid.run(&["room", "invite", "plan", BEA]).await?.done()?;
    cid.run(&["send", "plan", "welcome, both", "--wait", "accepted"]).await?.done()?;
    let held = until_status(&ana, &plan, "held").await?;
    assert!(text(&held, "reason")?.contains("identity"), "{held}");

    let accepted = ana.run(&["--yes", "contact", "accept", BEA]).await?.json()?;
    fields(&accepted, "user safety_number");
    let other = text(&accepted, "safety_number")?;
    assert_ne!(other, number);
    until_status(&ana, &plan, "active").await?;
    assert_eq!(texts(&read(&ana, &plan).await?), ["welcome, both"]);
    let invited = ana.run(&["room", "invite", "after", BEA]).await?.json()?;
    assert_eq!(invited["state"], "accepted");
    until_status(&anew, &text(&invited, "room")?, "active").await?;
    let theirs = anew.run(&["contact", "verify", "@ana@a.localhost"]).await?.json()?;
    assert_eq!(text(&theirs, "safety_number")?, other);
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_failed_goes_again_when_a_person_says_so() -> Outcome<()> {
    let mut world = World::start("retry", &NODES).await?;
    let (ana, bea) = (person(&mut world, 0, "ana").await?, person(&mut world, 1, "bea").await?);
    let room = room_of_two(&ana, &bea, "ops").await?;
    let queued = bea.run(&["send", &room, "written too late", "--wait", "queued"]).await?.json()?;
    let id = text(&queued, "submit_id")?;
    ana.run(&["room", "remove", "ops", BEA]).await?.done()?;
    until_status(&bea, &room, "left").await?;
    let shown = eventually(SETTLE, "the message has failed", async || {
        let shown = lines(&bea.run(&["read", &room, "--offline"]).await?)?;
        Ok(shown.into_iter().find(|m| m["state"] == "failed"))
    })
    .await?;
    assert!(shown["submit_id"] == id.as_str() && shown["error"]["code"].is_string(), "{shown}");
    failed(&bea.run(&["retry", &id]).await?, 1, "unknown-room")?;

    ana.run(&["room", "invite", "ops", BEA]).await?.done()?;
    until_status(&bea, &room, "active").await?;
    let again = bea.run(&["retry", &id]).await?.json()?;
    fields(&again, STATE);
    assert!(again["submit_id"] == id.as_str() && again["room"] == room.as_str(), "{again}");
    for program in [&ana, &bea] {
        eventually(SETTLE, "the message, once", async || {
            let shown = read(program, &room).await?;
            let there = texts(&shown) == ["written too late"];
            Ok((there && shown[0]["state"] == "accepted").then_some(()))
        })
        .await?;
    }
    failed(&bea.run(&["retry", &id]).await?, 1, "invalid")?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_that_waiting_does_not_mend_is_entered_again() -> Outcome<()> {
    let mut world = World::start("rejoin", &["a.localhost"]).await?;
    let (ana, dan) = (person(&mut world, 0, "ana").await?, person(&mut world, 0, "dan").await?);
    let made = ana.run(&["room", "create", "ops"]).await?.json()?;
    let room = text(&made, "room")?;
    ana.run(&["room", "invite", "ops", "@dan@a.localhost"]).await?.done()?;
    until_status(&dan, &room, "active").await?;
    ana.run(&["send", "ops", "before", "--wait", "accepted"]).await?.done()?;
    failed(&ana.run(&["room", "rejoin", "ops"]).await?, 1, "invalid")?;

    // The hub's log has a change that nobody can carry out.
    world.node(0)?.stop().await?;
    inspect::add_no_commit(world.node(0)?.data(), &room).await?;
    world.node(0)?.resume().await?;
    for program in [&ana, &dan] {
        let held = until_status(program, &room, "held").await?;
        assert!(text(&held, "reason")?.starts_with("entry "), "{held}");
    }
    // The hub is not held: what she writes has its place, and is lost to those who come in after it.
    ana.run(&["send", "ops", "written meanwhile"]).await?.done()?;
    for program in [&ana, &dan] {
        let came = program.run(&["room", "rejoin", &room]).await?.json()?;
        fields(&came, STATE);
        assert_eq!(came["state"], "accepted");
        until_status(program, &room, "active").await?;
    }
    dan.run(&["send", &room, "after", "--wait", "accepted"]).await?.done()?;
    eventually(SETTLE, "both go on", async || {
        let (ana, dan) = (read(&ana, &room).await?, read(&dan, &room).await?);
        let whole = texts(&ana) == ["before", "written meanwhile", "after"];
        Ok((whole && texts(&dan) == ["before", "after"]).then_some(()))
    })
    .await?;
    let listed = listed(&dan, &room).await?.during("the room")?;
    assert_eq!(listed["members"].as_array().map(Vec::len), Some(2), "{listed}");
    world.passed();
    Ok(())
}
