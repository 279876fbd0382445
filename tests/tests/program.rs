//! The `waxwing` program itself against real nodes: what a person and a script can do with it, what it prints, and how it ends.

#![expect(
    clippy::indexing_slicing,
    reason = "a field that JSON lacks is null, and a list that is too short fails the test"
)]

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::command::{Ran, Waxwing};
use tests::device::eventually;
use tests::node::lead_line;
use tests::proxy::Proxy;
use tests::trouble::During as _;
use tests::world::{World, setup};
use tests::{Outcome, Trouble, inspect};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

const SETTLE: Duration = Duration::from_secs(30);
const NODES: [&str; 2] = ["a.localhost", "b.localhost"];

/// A new person at node `i`, by the program alone.
async fn person(world: &mut World, i: usize, name: &str) -> Outcome<Waxwing> {
    let line = world.invite(i).await?;
    let program = Waxwing::new(&world.device_folder(name));
    program.register(&line, name, &[]).await?;
    Ok(program)
}

fn text(value: &Value, key: &str) -> Outcome<String> {
    let found = value.get(key).and_then(Value::as_str);
    Ok(found.during(format!("{key} in {value}"))?.to_owned())
}

/// Exactly these fields, in any order: none was taken away, and a new one is described.
fn fields(value: &Value, wanted: &str) {
    let mut has: Vec<&str> =
        value.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
    let mut wanted: Vec<&str> = wanted.split_whitespace().collect();
    has.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(has, wanted, "{value}");
}

/// It ended with this exit code and this error, and said what to do.
fn failed(ran: &Ran, exit: i32, code: &str) -> Outcome<Value> {
    let error = ran.error()?;
    assert_eq!((ran.code, text(&error, "code")?.as_str()), (Some(exit), code), "{error}");
    let optional = error.get("retry_after_ms").map_or("", |_| "retry_after_ms");
    fields(&error, &format!("code message retryable hint docs {optional}"));
    assert!(!text(&error, "message")?.is_empty() && !text(&error, "hint")?.is_empty(), "{error}");
    Ok(error)
}

/// The objects it printed, one a line.
fn lines(ran: &Ran) -> Outcome<Vec<Value>> {
    ran.stdout.lines().map(|l| serde_json::from_str(l).during(l.to_owned())).collect()
}

const ROOM: &str = "room name status hub suite epoch seq members";
const STATE: &str = "submit_id room state seq at";
const MESSAGE: &str =
    "event room message_id submit_id sender device counter text seq at written late flags state";

/// The room as the device lists it.
async fn listed(program: &Waxwing, room: &str) -> Outcome<Option<Value>> {
    let ran = program.run(&["room", "list"]).await?;
    ran.done()?;
    Ok(lines(&ran)?.into_iter().find(|r| r["room"] == room))
}

async fn until_status(program: &Waxwing, room: &str, status: &str) -> Outcome<Value> {
    eventually(SETTLE, &format!("{room} {status}"), async || {
        Ok(listed(program, room).await?.filter(|r| r["status"] == status))
    })
    .await
}

fn handles(room: &Value) -> Vec<&str> {
    let members = room["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().filter_map(|m| m["user"].as_str()).collect()
}

/// A room of Ana's with Bea in it, both by the program.
async fn room_of_two(ana: &Waxwing, bea: &Waxwing, name: &str) -> Outcome<String> {
    let made = ana.run(&["room", "create", name]).await?.json()?;
    fields(&made, ROOM);
    assert_eq!((made["name"].as_str(), made["status"].as_str()), (Some(name), Some("active")));
    let room = text(&made, "room")?;
    let invited = ana.run(&["room", "invite", name, "@bea@b.localhost"]).await?.json()?;
    fields(&invited, STATE);
    assert_eq!(
        (invited["state"].as_str(), invited["room"].as_str()),
        (Some("accepted"), Some(room.as_str()))
    );
    until_status(bea, &room, "active").await?;
    Ok(room)
}

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

async fn read(program: &Waxwing, room: &str) -> Outcome<Vec<Value>> {
    let ran = program.run(&["read", room]).await?;
    ran.done()?;
    lines(&ran)
}

fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().filter_map(|m| m["text"].as_str()).collect()
}

/// The next object that a running program prints, of this kind.
async fn hears(
    lines: &mut tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
    event: &str,
) -> Outcome<Value> {
    let next = async {
        while let Some(line) = lines.next_line().await? {
            let value: Value = serde_json::from_str(&line)?;
            if value["event"] == event {
                return Ok(value);
            }
        }
        Trouble::is(format!("it ended without {event}"))
    };
    let heard = tokio::time::timeout(SETTLE, next).await;
    heard.map_err(|_| Trouble::new(format!("no {event} in time")))?
}

/// `listen`, connected; while it runs it holds the folder.
async fn listening(
    program: &Waxwing,
    more: &[&str],
) -> Outcome<(Child, tokio::io::Lines<BufReader<tokio::process::ChildStdout>>)> {
    let mut child = program.spawn(&[&["listen"], more].concat())?;
    let mut lines = BufReader::new(child.stdout.take().during("its stdout")?).lines();
    hears(&mut lines, "connected").await?;
    Ok((child, lines))
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

fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    std::fs::write(path, bytes).during(path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_cannot_be_opened_is_told_in_a_sentence() -> Outcome<()> {
    let mut world = World::start("stores", &["a.localhost"]).await?;
    let line = world.invite(0).await?;
    let ana = Waxwing::new(&world.device_folder("ana"));
    let passphrase = ana.folder().with_extension("passphrase");
    write(&passphrase, b"the right one\n")?;
    let file = passphrase.display().to_string();
    ana.register(&line, "ana", &["--passphrase-file", &file]).await?;
    ana.run(&["whoami", "--passphrase-file", &file]).await?.done()?;
    for wrong in ["the wrong one\n", "\n"] {
        write(&passphrase, wrong.as_bytes())?;
        let error =
            failed(&ana.run(&["whoami", "--passphrase-file", &file]).await?, 1, "wrong-seal")?;
        assert!(text(&error, "hint")?.contains("--passphrase-file"), "{error}");
    }
    failed(&ana.run(&["whoami"]).await?, 1, "wrong-seal")?;
    write(&passphrase, b"the right one\n")?;
    ana.run(&["whoami", "--passphrase-file", &file]).await?.done()?;

    let bea = person(&mut world, 0, "bea").await?;
    let store = bea.folder().join("client.db");
    // What is in the journal would hide what is wrong with the file.
    inspect::fold(&store).await?;
    let sound = std::fs::read(&store)?;
    let mut torn = sound.clone();
    torn.iter_mut().skip(2_000).step_by(3).for_each(|b| *b ^= 0x5a);
    let garbage =
        b"this is no database at all, and it is long enough to be taken for one. ".repeat(200);
    for bytes in [garbage.as_slice(), &torn, b"short"] {
        write(&store, bytes)?;
        let ran = bea.run(&["whoami"]).await?;
        let error = ran.error()?;
        let (message, code) = (text(&error, "message")?, text(&error, "code")?);
        assert_eq!(ran.code, Some(70), "{error}");
        assert!(code == "damaged" || code == "corrupt", "{error}");
        for raw in ["SQLite", "sqlite", "code:", "malformed", "error returned"] {
            assert!(!message.contains(raw), "{message}");
        }
        assert!(
            message.contains("damaged") && text(&error, "hint")?.contains("waxwing link"),
            "{error}"
        );
        assert_eq!(std::fs::read(&store)?, bytes, "it was written to");
    }
    write(&store, &sound)?;
    bea.run(&["whoami"]).await?.done()?;
    world.passed();
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_node_and_too_many_tries_have_their_own_exit_codes() -> Outcome<()> {
    let mut strict = setup("a.localhost")?;
    strict.settings.push(("limits.sign_ins_per_minute".to_owned(), "2".to_owned()));
    let mut world = World::start_with("codes", vec![strict, setup("b.localhost")?]).await?;
    // 4: behind the address of a line is another node than the line was made by.
    let line = world.node(1)?.invite().await?;
    let elsewhere = lead_line(&line, world.node(0)?.address()?)?;
    let stranger = Waxwing::new(&world.device_folder("stranger"));
    let password = stranger.folder().with_extension("password");
    write(&password, b"correct horse battery\n")?;
    let password = password.display().to_string();
    let register = |line| ["register", line, "--name", "bea", "--password-file", password.as_str()];
    let error = failed(&stranger.run(&register(&elsewhere)).await?, 4, "node-key")?;
    assert!(text(&error, "message")?.contains("Nothing was sent"), "{error}");

    // 4 too for a device that knows its node: whoever answers there now gets nothing.
    let hop = Proxy::start().await?;
    hop.lead_to(world.node(1)?.address()?);
    let bea = Waxwing::new(&world.device_folder("bea"));
    bea.register(&lead_line(&line, hop.address())?, "bea", &[]).await?;
    hop.lead_to(world.node(0)?.address()?);
    hop.cut();
    failed(&bea.run(&["devices"]).await?, 4, "node-key")?;
    let room = bea.run(&["room", "list"]).await?;
    assert_eq!(room.code, Some(4), "{room:?}");

    // 5: too many tries; the error says how long to wait.
    let line = world.invite(0).await?;
    Waxwing::new(&world.device_folder("ana")).register(&line, "ana", &[]).await?;
    let limited = eventually(SETTLE, "the node has enough", async || {
        let ran = stranger.run(&register(&line)).await?;
        Ok((ran.code == Some(5)).then_some(ran))
    })
    .await?;
    let error = failed(&limited, 5, "rate-limited")?;
    assert!(
        error["retry_after_ms"].as_u64().is_some_and(|ms| ms > 0) && error["retryable"] == true
    );
    // 1: not the node's fault and not for later.
    failed(&bea.run(&["read", "nowhere", "--offline"]).await?, 1, "unknown-room")?;
    failed(
        &bea.run(&["register", &line, "--name", "ana", "--password-file", &password]).await?,
        1,
        "account-exists",
    )?;
    world.passed();
    Ok(())
}
