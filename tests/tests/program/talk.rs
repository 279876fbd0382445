//! Talking: rooms, messages, devices, a node that is away.

use serde_json::Value;
use tests::Outcome;
use tests::command::Waxwing;
use tests::device::eventually;
use tests::trouble::During as _;
use tests::world::World;

use crate::common::{
    MESSAGE, NODES, SETTLE, STATE, failed, fields, handles, hears, lines, listed, listening,
    person, read, room_of_two, text, texts, until_status, write,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_command_after_an_invitation_knows_the_room() -> Outcome<()> {
    let mut world = World::start("invited", &["a.localhost"]).await?;
    let ana = person(&mut world, 0, "ana").await?;
    let made = ana.run(&["room", "create", "picnic"]).await?.json()?;
    let room = text(&made, "room")?;
    for (name, command) in
        [("cid", ["send", &room, "here I am"].as_slice()), ("dan", &["read", &room])]
    {
        let guest = person(&mut world, 0, name).await?;
        let unknown = guest.run(command).await?;
        failed(&unknown, 1, "unknown-room")?;
        let who = format!("@{name}@a.localhost");
        ana.run(&["room", "invite", "picnic", &who]).await?.done()?;
        guest.run(command).await?.done()?;
    }
    assert_eq!(texts(&read(&ana, &room).await?), ["here I am"]);
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_people_do_everything_with_the_program_alone() -> Outcome<()> {
    let mut world = World::start("program", &NODES).await?;
    let (ana, bea) = (person(&mut world, 0, "ana").await?, person(&mut world, 1, "bea").await?);
    let who = bea.run(&["whoami"]).await?.json()?;
    fields(&who, "user handle device device_name node address node_key identity_key");
    assert_eq!(
        (who["handle"].as_str(), who["node"].as_str()),
        (Some("@bea@b.localhost"), Some("b.localhost"))
    );
    let room = room_of_two(&ana, &bea, "picnic").await?;

    let sent =
        ana.run(&["send", "picnic", "--wait", "accepted", "Sunday", "at noon?"]).await?.json()?;
    fields(&sent, STATE);
    assert_eq!(sent["state"], "accepted");
    // One `read` has it, however long the node takes to hand it over: nothing is guessed from silence.
    eventually(SETTLE, "the message at bea's node", async || {
        Ok(texts(&read(&bea, &room).await?).contains(&"Sunday at noon?").then_some(()))
    })
    .await?;
    let shown = read(&bea, &room).await?;
    fields(&shown[0], MESSAGE);
    assert_eq!(
        (&shown[0]["sender"], &shown[0]["seq"]),
        (&Value::from("@ana@a.localhost"), &sent["seq"])
    );

    // Bea hears it as it comes, and a further listen begins where this one ended.
    let (mut child, mut heard) = listening(&bea, &["--count", "1"]).await?;
    ana.run(&["send", "picnic", "bring salt"]).await?.done()?;
    let message = hears(&mut heard, "message").await?;
    fields(&message, MESSAGE);
    assert_eq!(message["text"], "bring salt");
    assert!(child.wait().await?.success());
    bea.run(&["send", &room, "I will"]).await?.done()?;
    ana.run(&["send", "picnic", "and pepper"]).await?.done()?;
    let since = bea.run(&["listen", "--since", "last", "--count", "1", "--timeout", "20"]).await?;
    since.done()?;
    let since: Vec<Value> =
        lines(&since)?.into_iter().filter(|e| e["event"] == "message").collect();
    assert_eq!(texts(&since), ["and pepper"], "neither again nor left out");
    let both = ["Sunday at noon?", "bring salt", "I will", "and pepper"];
    for program in [&ana, &bea] {
        eventually(SETTLE, "the same four", async || {
            Ok((texts(&read(program, &room).await?) == both).then_some(()))
        })
        .await?;
    }
    assert_eq!(texts(&lines(&bea.run(&["read", &room, "--limit", "2"]).await?)?), &both[2..]);
    let offline = bea.run(&["read", &room, "--offline"]).await?;
    assert_eq!(texts(&lines(&offline)?), both);

    // Out and in again, and away for good.
    let gone = ana.run(&["room", "remove", "picnic", "@bea@b.localhost"]).await?.json()?;
    assert_eq!(gone["state"], "accepted");
    until_status(&bea, &room, "left").await?;
    let absent = ana.run(&["room", "remove", "picnic", "@bea@b.localhost"]).await?;
    failed(&absent, 1, "not-found")?;
    ana.run(&["room", "invite", "picnic", "@bea@b.localhost"]).await?.done()?;
    let again = until_status(&bea, &room, "active").await?;
    assert_eq!(handles(&again), ["@ana@a.localhost", "@bea@b.localhost"]);
    failed(&bea.run(&["room", "leave", &room]).await?, 1, "no-terminal")?;
    // Somebody who stays has to carry it out.
    let (mut ana_online, _heard) = listening(&ana, &[]).await?;
    bea.run(&["--yes", "room", "leave", &room]).await?.done()?;
    until_status(&bea, &room, "left").await?;
    ana_online.kill().await?;
    let left = listed(&ana, &room).await?.during("the room")?;
    assert_eq!(handles(&left), ["@ana@a.localhost"]);
    failed(&bea.run(&["send", &room, "too late"]).await?, 1, "unknown-room")?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_are_linked_listed_and_shut_out() -> Outcome<()> {
    let mut world = World::start("devices", &["a.localhost"]).await?;
    let ana = person(&mut world, 0, "ana").await?;
    let line = text(&ana.run(&["devices", "add"]).await?.json()?, "line")?;
    let laptop = Waxwing::new(&world.device_folder("laptop"));
    let password = ana.folder().with_extension("password").display().to_string();
    let args = ["link", &line, "--device-name", "laptop", "--password-file", &password];
    let who = laptop.run(&args).await?.json()?;
    assert_eq!(who["device_name"], "laptop");
    // The line alone is worth nothing.
    let other = ana.folder().with_extension("other");
    write(&other, b"another password\n")?;
    let (thief, other) = (Waxwing::new(&world.device_folder("thief")), other.display().to_string());
    let ran = thief.run(&["link", &line, "--password-file", &other]).await?;
    failed(&ran, 1, "wrong-password")?;

    let ran = ana.run(&["devices", "list"]).await?;
    let devices = lines(&ran)?;
    assert_eq!(devices.len(), 2);
    for device in &devices {
        fields(device, "device name created seen revoked this");
        assert_eq!(device["this"] == true, device["device"] != who["device"]);
        assert_eq!(device["revoked"], Value::Null);
    }
    failed(&ana.run(&["devices", "revoke", "laptop"]).await?, 1, "no-terminal")?;
    failed(&ana.run(&["--yes", "devices", "revoke", "phone"]).await?, 1, "unknown-device")?;
    let own = text(&ana.run(&["whoami"]).await?.json()?, "device")?;
    failed(&ana.run(&["--yes", "devices", "revoke", &own]).await?, 1, "invalid")?;
    let revoked = ana.run(&["--yes", "devices", "revoke", "laptop"]).await?.json()?;
    assert!(revoked["device"] == who["device"] && revoked["revoked"].is_string(), "{revoked}");
    let error = failed(&laptop.run(&["devices"]).await?, 1, "unauthenticated")?;
    assert!(text(&error, "hint")?.contains("waxwing link"), "{error}");
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_written_without_the_node_is_sent_once_by_the_next_command() -> Outcome<()> {
    let mut world = World::start("unreached", &NODES).await?;
    let (ana, bea) = (person(&mut world, 0, "ana").await?, person(&mut world, 1, "bea").await?);
    let room = room_of_two(&ana, &bea, "ops").await?;
    ana.run(&["send", "ops", "before", "--wait", "accepted"]).await?.done()?;
    world.node(0)?.kill_nine().await?;

    // 3: the node is unreachable. What the device has is printed all the same, and the code says that there may be more.
    let ran = ana.run(&["devices"]).await?;
    let error = failed(&ran, 3, "unreachable")?;
    assert_eq!(error["retryable"], true);
    let ran = ana.run(&["read", "ops"]).await?;
    assert_eq!((ran.code, texts(&lines(&ran)?)), (Some(3), vec!["before"]));
    assert!(ran.stderr.contains("may be more"), "{}", ran.stderr);
    assert_eq!(ana.run(&["room", "list"]).await?.code, Some(3));
    assert_eq!(ana.run(&["read", "ops", "--offline"]).await?.code, Some(0));

    // 75: kept, and sent by the next command that connects.
    let ran = ana.run(&["--timeout", "2", "send", "ops", "while it is down"]).await?;
    assert_eq!(ran.code, Some(75), "{ran:?}");
    let waiting: Value = serde_json::from_str(&ran.stdout)?;
    assert_eq!(waiting["state"], "queued");
    assert!(ran.stderr.contains("do not ask again"), "{}", ran.stderr);
    let id = text(&waiting, "submit_id")?;
    failed(&ana.run(&["retry", &id]).await?, 1, "invalid")?;
    failed(
        &ana.run(&["retry", "00000000000000000000000000000000"]).await?,
        1,
        "unknown-submission",
    )?;
    let waits = ana.run(&["read", "ops", "--offline"]).await?;
    assert_eq!(lines(&waits)?.last().map(|m| m["seq"].clone()), Some(Value::Null));
    world.node(0)?.resume().await?;
    ana.run(&["send", "ops", "after", "--wait", "accepted"]).await?.done()?;
    let all = ["before", "while it is down", "after"];
    for program in [&ana, &bea] {
        eventually(SETTLE, "once, in order", async || {
            Ok((texts(&read(program, &room).await?) == all).then_some(()))
        })
        .await?;
    }

    // 6: one of two could be invited.
    let people =
        ["--timeout", "4", "room", "invite", "ops", "@bea@b.localhost", "@nobody@b.localhost"];
    let ran = ana.run(&people).await?;
    let states: Vec<Value> = lines(&ran)?;
    assert_eq!((ran.code, states.len()), (Some(6), 2), "{ran:?}");
    assert_eq!(states[0]["state"], "accepted", "she is in already");
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processes_never_share_one_devices_state() -> Outcome<()> {
    let mut world = World::start("shared", &["a.localhost"]).await?;
    let ana = person(&mut world, 0, "ana").await?;
    let room = text(&ana.run(&["room", "create", "alone"]).await?.json()?, "room")?;
    let (mut child, mut heard) = listening(&ana, &[]).await?;
    for args in
        [&["send", &room, "from the second"] as &[&str], &["whoami"], &["read", &room, "--offline"]]
    {
        let error = failed(&ana.run(args).await?, 75, "locked")?;
        assert!(error["retryable"] == true && text(&error, "hint")?.contains("--dir"), "{error}");
    }
    // The first one still works, and when it is killed nothing is left behind that locks anybody out.
    assert!(child.try_wait()?.is_none());
    child.kill().await?;
    assert!(tokio::time::timeout(SETTLE, heard.next_line()).await.is_ok());
    ana.run(&["send", &room, "after it", "--wait", "accepted"]).await?.done()?;
    assert_eq!(texts(&read(&ana, &room).await?), ["after it"]);
    world.passed();
    Ok(())
}
