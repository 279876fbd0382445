//! `send`, `retry`, `read`, `listen`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use client::{Client, Event, Message, Stage};
use protocol::{RoomId, Seq, SubmitId};
use tokio::sync::broadcast;

use super::{Heard, SYNC, expect_room, find_room, follow, hear, online};
use crate::args::{Global, Listen, Read, Send, Wait};
use crate::error::{Exit, Failure};
use crate::output::Output;
use crate::show::InRoom;
use crate::{place, prompt};

/// Messages fetched from the store at a time.
const PAGE: usize = 256;

pub(super) async fn send(global: &Global, output: &Output, send: Send) -> Result<Exit, Failure> {
    let text = if send.text == ["-"] {
        let text = prompt::stdin()?;
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    } else {
        send.text.join(" ")
    };
    if text.is_empty() {
        let hint = "waxwing send ROOM TEXT, or - and the text on stdin";
        return Err(Failure::caller("empty", "there is nothing to send", hint));
    }
    if send.wait == Wait::Queued {
        let client = place::open(global).await?;
        let room = find_room(&client, &send.room).await?.room;
        let submit_id = client.send(&room, &text).await?;
        return follow(&client, output, (&submit_id, &room), Stage::Queued, global.patience())
            .await;
    }
    online(global, |client| async move {
        let room = expect_room(&client, &send.room, global.patience()).await?.room;
        let submit_id = client.send(&room, &text).await?;
        follow(&client, output, (&submit_id, &room), send.wait.into(), global.patience()).await
    })
    .await
}

/// Sends a failed message again. The room that it is for is in the state that is printed.
pub(super) async fn retry(
    global: &Global,
    output: &Output,
    submit_id: SubmitId,
) -> Result<Exit, Failure> {
    online(global, |client| async move {
        let room = client.room_of(&submit_id).await?;
        client.retry(&submit_id).await?;
        follow(&client, output, (&submit_id, &room), Stage::Stored, global.patience()).await
    })
    .await
}

pub(super) async fn read(global: &Global, output: &Output, read: Read) -> Result<Exit, Failure> {
    if read.offline {
        let client = place::open(global).await?;
        return print(&client, output, &read).await;
    }
    let limit = global.timeout.unwrap_or(SYNC);
    online(global, |client| async move {
        let synced = catch_up(&client, output, limit).await;
        print(&client, output, &read).await.map(|_| synced)
    })
    .await
}

/// Waits until the device has all that its node has for it; says so when it has not, and how that ends the command.
pub(super) async fn catch_up(client: &Client, output: &Output, limit: Duration) -> Exit {
    let failure: Failure = match tokio::time::timeout(limit, client.caught_up()).await {
        Ok(Ok(())) => return Exit::Done,
        Ok(Err(e)) => e.into(),
        Err(_) => client::Error::Timeout(limit).into(),
    };
    let why = match failure.exit {
        Exit::Temporary => "the node has more for it and did not send all in time",
        _ => failure.message.trim_end_matches('.'),
    };
    output.talk(&format!("This is what the device has; there may be more: {why}."));
    failure.exit
}

async fn print(client: &Client, output: &Output, read: &Read) -> Result<Exit, Failure> {
    let room = find_room(client, &read.room).await?.room;
    let messages = match read.after {
        None => client.latest(&room, read.limit).await?,
        Some(after) => after_seq(client, &room, Seq::new(after), read.limit).await?,
    };
    let mut shown = Vec::new();
    for message in &messages {
        // A place in the log says it all.
        let waiting = message.submit_id.filter(|_| message.seq.is_none());
        let state = match waiting {
            Some(submit_id) => client.state(&submit_id).await.ok(),
            None => None,
        };
        shown.push(InRoom { room: &room, message, state, label: None });
    }
    output.list(&shown)?;
    Ok(Exit::Done)
}

/// The first `limit` messages, in the timeline's order, whose place is after `after`.
async fn after_seq(
    client: &Client,
    room: &RoomId,
    after: Seq,
    limit: usize,
) -> Result<Vec<Message>, Failure> {
    let mut found = Vec::new();
    let mut from = None;
    while found.len() < limit {
        let page = client.timeline(room, from, PAGE).await?;
        let Some(last) = page.last() else { break };
        from = Some(last.key);
        found.extend(page.into_iter().filter(|m| m.seq.is_some_and(|s| s > after)));
    }
    found.truncate(limit);
    Ok(found)
}

pub(super) async fn listen(
    global: &Global,
    output: &Output,
    listen: Listen,
) -> Result<Exit, Failure> {
    let marks = Marks::load(&place::folder(global)?)?;
    let patience = global.timeout;
    online(global, |client| async move {
        let room = match &listen.room {
            Some(text) => Some(expect_room(&client, text, global.patience()).await?.room),
            None => None,
        };
        let count = listen.count;
        let known = client.rooms().await?.into_iter();
        let names = known.filter_map(|r| r.name.map(|name| (r.room, name))).collect();
        let mut ear = Ear {
            events: client.events(),
            everything: listen.events || output.for_programs(),
            client,
            output,
            room,
            names,
            marks,
            left: count,
        };
        if listen.since.is_some() {
            ear.print_missed().await?;
        }
        let forever = Duration::from_secs(u64::from(u32::MAX));
        tokio::select! {
            result = ear.run() => result?,
            () = tokio::time::sleep(patience.unwrap_or(forever)) => {}
            result = tokio::signal::ctrl_c() => {
                result.map_err(|e| Failure::internal(format!("cannot wait for Ctrl-C: {e}")))?;
            }
        }
        // A count that was not reached in time is worth knowing.
        Ok(if ear.left.is_some_and(|left| left > 0) { Exit::Temporary } else { Exit::Done })
    })
    .await
}

/// Prints what comes.
struct Ear<'a> {
    client: Client,
    events: broadcast::Receiver<Event>,
    output: &'a Output,
    room: Option<RoomId>,
    everything: bool,
    names: BTreeMap<RoomId, String>,
    marks: Marks,
    left: Option<u64>,
}

impl Ear<'_> {
    async fn run(&mut self) -> Result<(), Failure> {
        while self.left != Some(0) {
            match hear(&mut self.events).await {
                Heard::Event(event) => self.event(&event)?,
                Heard::Missed => self.print_missed().await?,
                Heard::End => return Ok(()),
            }
        }
        Ok(())
    }

    /// What to call a room in a listing of several.
    fn label(&self, room: &RoomId) -> Option<String> {
        let short = || room.local().chars().take(8).collect();
        self.room.is_none().then(|| self.names.get(room).cloned().unwrap_or_else(short))
    }

    fn wanted(&self, room: &RoomId) -> bool {
        self.room.as_ref().is_none_or(|r| r == room)
    }

    fn event(&mut self, event: &Event) -> Result<(), Failure> {
        if let Event::Message { room, message } = event {
            return if self.wanted(room) { self.message(room, message) } else { Ok(()) };
        }
        if self.everything || matches!(event, Event::Alarm(_) | Event::Gap { .. }) {
            self.output.one(event)?;
        }
        Ok(())
    }

    /// Prints a message unless it was printed before, and remembers that it was.
    fn message(&mut self, room: &RoomId, message: &Message) -> Result<(), Failure> {
        let Some(seq) = message.seq else { return Ok(()) };
        if self.left == Some(0) || seq <= self.marks.get(room) {
            return Ok(());
        }
        self.output.one(&InRoom { room, message, state: None, label: self.label(room) })?;
        self.left = self.left.map(|left| left.saturating_sub(1));
        self.marks.set(room, seq)
    }

    /// Prints everything that no `listen` has printed.
    async fn print_missed(&mut self) -> Result<(), Failure> {
        for info in self.client.rooms().await? {
            if !self.wanted(&info.room) {
                continue;
            }
            // The timeline's order is not that of the places, so the mark moves only when the room is done.
            let room = &info.room;
            let (before, mut last_seq) = (self.marks.get(room), self.marks.get(room));
            let mut from = None;
            while self.left != Some(0) {
                let page = self.client.timeline(room, from, PAGE).await?;
                let Some(last) = page.last() else { break };
                from = Some(last.key);
                let new = page.iter().filter(|m| m.submit_id.is_none());
                for message in new.filter(|m| m.seq.is_some_and(|s| s > before)) {
                    if self.left == Some(0) {
                        return Ok(());
                    }
                    let label = self.label(room);
                    self.output.one(&InRoom { room, message, state: None, label })?;
                    self.left = self.left.map(|left| left.saturating_sub(1));
                    last_seq = last_seq.max(message.seq.unwrap_or_default());
                }
            }
            self.marks.set(room, last_seq)?;
        }
        Ok(())
    }
}

/// The last place in each room that `listen` has printed, in a file of the device's folder.
struct Marks {
    path: PathBuf,
    seqs: BTreeMap<String, u64>,
}

impl Marks {
    fn load(folder: &Path) -> Result<Self, Failure> {
        let path = folder.join("listened.json");
        let seqs = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).unwrap_or_default(),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => BTreeMap::new(),
            Err(e) => return Err(Failure::file(&path, &e)),
        };
        Ok(Self { path, seqs })
    }

    fn get(&self, room: &RoomId) -> Seq {
        Seq::new(self.seqs.get(room.as_str()).copied().unwrap_or_default())
    }

    fn set(&mut self, room: &RoomId, seq: Seq) -> Result<(), Failure> {
        self.seqs.insert(room.to_string(), seq.get());
        let bytes = serde_json::to_vec(&self.seqs)
            .map_err(|e| Failure::internal(format!("cannot write JSON: {e}")))?;
        let new = self.path.with_extension("new");
        std::fs::write(&new, bytes)
            .and_then(|()| std::fs::rename(&new, &self.path))
            .map_err(|e| Failure::file(&self.path, &e))
    }
}
