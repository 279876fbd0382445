//! What these tests share: people at nodes by the program alone, and how its output is read.

use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tests::command::{Ran, Waxwing};
use tests::device::eventually;
use tests::trouble::During as _;
use tests::world::World;
use tests::{Outcome, Trouble};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Child;

pub const SETTLE: Duration = Duration::from_secs(30);
pub const NODES: [&str; 2] = ["a.localhost", "b.localhost"];

/// A new person at node `i`, by the program alone.
pub async fn person(world: &mut World, i: usize, name: &str) -> Outcome<Waxwing> {
    let line = world.invite(i).await?;
    let program = Waxwing::new(&world.device_folder(name));
    program.register(&line, name, &[]).await?;
    Ok(program)
}

pub fn text(value: &Value, key: &str) -> Outcome<String> {
    let found = value.get(key).and_then(Value::as_str);
    Ok(found.during(format!("{key} in {value}"))?.to_owned())
}

/// Exactly these fields, in any order: none was taken away, and a new one is described.
pub fn fields(value: &Value, wanted: &str) {
    let mut has: Vec<&str> =
        value.as_object().map(|o| o.keys().map(String::as_str).collect()).unwrap_or_default();
    let mut wanted: Vec<&str> = wanted.split_whitespace().collect();
    has.sort_unstable();
    wanted.sort_unstable();
    assert_eq!(has, wanted, "{value}");
}

/// It ended with this exit code and this error, and said what to do.
pub fn failed(ran: &Ran, exit: i32, code: &str) -> Outcome<Value> {
    let error = ran.error()?;
    assert_eq!((ran.code, text(&error, "code")?.as_str()), (Some(exit), code), "{error}");
    let optional = error.get("retry_after_ms").map_or("", |_| "retry_after_ms");
    fields(&error, &format!("code message retryable hint docs {optional}"));
    assert!(!text(&error, "message")?.is_empty() && !text(&error, "hint")?.is_empty(), "{error}");
    Ok(error)
}

/// The objects it printed, one a line.
pub fn lines(ran: &Ran) -> Outcome<Vec<Value>> {
    ran.stdout.lines().map(|l| serde_json::from_str(l).during(l.to_owned())).collect()
}

pub const ROOM: &str = "room name status hub suite epoch seq members";
pub const STATE: &str = "submit_id room state seq at";
pub const MESSAGE: &str =
    "event room message_id submit_id sender device counter text seq at written late flags state";

/// The room as the device lists it.
pub async fn listed(program: &Waxwing, room: &str) -> Outcome<Option<Value>> {
    let ran = program.run(&["room", "list"]).await?;
    ran.done()?;
    Ok(lines(&ran)?.into_iter().find(|r| r["room"] == room))
}

pub async fn until_status(program: &Waxwing, room: &str, status: &str) -> Outcome<Value> {
    eventually(SETTLE, &format!("{room} {status}"), async || {
        Ok(listed(program, room).await?.filter(|r| r["status"] == status))
    })
    .await
}

pub fn handles(room: &Value) -> Vec<&str> {
    let members = room["members"].as_array().map(Vec::as_slice).unwrap_or_default();
    members.iter().filter_map(|m| m["user"].as_str()).collect()
}

/// A room of Ana's with Bea in it, both by the program.
pub async fn room_of_two(ana: &Waxwing, bea: &Waxwing, name: &str) -> Outcome<String> {
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

pub async fn read(program: &Waxwing, room: &str) -> Outcome<Vec<Value>> {
    let ran = program.run(&["read", room]).await?;
    ran.done()?;
    lines(&ran)
}

pub fn texts(messages: &[Value]) -> Vec<&str> {
    messages.iter().filter_map(|m| m["text"].as_str()).collect()
}

/// The next object that a running program prints, of this kind.
pub async fn hears(
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
pub async fn listening(
    program: &Waxwing,
    more: &[&str],
) -> Outcome<(Child, tokio::io::Lines<BufReader<tokio::process::ChildStdout>>)> {
    let mut child = program.spawn(&[&["listen"], more].concat())?;
    let mut lines = BufReader::new(child.stdout.take().during("its stdout")?).lines();
    hears(&mut lines, "connected").await?;
    Ok((child, lines))
}

pub fn write(path: &Path, bytes: &[u8]) -> Outcome<()> {
    std::fs::write(path, bytes).during(path.display())
}
