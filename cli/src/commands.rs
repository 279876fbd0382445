//! One function per command, and what they share: opening the device, going online, finding a room by what people call it.

mod account;
mod contacts;
mod messages;
mod rooms;

use std::future::Future;
use std::time::Duration;

use client::{Client, Event, RoomInfo, Running, Stage, State};
use protocol::{Code, RoomId, SubmitId};
use tokio::sync::broadcast;

use crate::args::{Args, Command, Global};
use crate::error::{Exit, Failure};
use crate::output::Output;
use crate::place;
use crate::show::Submission;
use crate::text::visible;

const UNKNOWN_ROOM: &str = "unknown-room";
/// How long to wait for what is new before going on with what this device has.
const SYNC: Duration = Duration::from_secs(10);
/// What takes longer than this is worth asking about.
const PROMPT: Duration = Duration::from_secs(1);

/// Does what was asked.
pub(crate) async fn run(args: Args, output: &Output) -> Result<Exit, Failure> {
    let global = &args.global;
    match args.command {
        Command::Register(register) => account::register(global, output, register).await,
        Command::Link(link) => account::link(global, output, link).await,
        Command::Whoami => account::whoami(global, output).await,
        Command::Devices { verb } => account::devices(global, output, verb).await,
        Command::Room { verb } => rooms::run(global, output, verb).await,
        Command::Contact { verb } => contacts::run(global, output, verb).await,
        Command::Retry { submit_id } => messages::retry(global, output, submit_id).await,
        Command::Send(send) => messages::send(global, output, send).await,
        Command::Read(read) => messages::read(global, output, read).await,
        Command::Listen(listen) => messages::listen(global, output, listen).await,
    }
}

/// A device whose background work runs while a command needs it.
struct Online {
    client: Client,
    running: Running,
}

impl Online {
    /// Opens the device and goes online.
    async fn open(global: &Global) -> Result<Self, Failure> {
        let client = place::open(global).await?;
        Ok(Self { running: client.start(), client })
    }

    /// Runs `work`, then ends the background work at a point where nothing is half done.
    async fn finish<T>(self, work: Result<T, Failure>) -> Result<T, Failure> {
        self.running.shutdown().await;
        work
    }
}

/// Opens, goes online, does `work`, and leaves nothing half done.
async fn online<T, W, F>(global: &Global, work: W) -> Result<T, Failure>
where
    W: FnOnce(Client) -> F,
    F: Future<Output = Result<T, Failure>>,
{
    let online = Online::open(global).await?;
    let result = work(online.client.clone()).await;
    online.finish(result).await
}

/// [`find_room`], online: a room that this device was invited into a moment ago counts too.
async fn expect_room(client: &Client, text: &str, patience: Duration) -> Result<RoomInfo, Failure> {
    match find_room(client, text).await {
        Err(failure) if failure.code == UNKNOWN_ROOM => {
            // Without the node it is as unknown as before, and the second look says so.
            let _known = tokio::time::timeout(patience.min(SYNC), client.caught_up()).await;
            find_room(client, text).await
        }
        found => found,
    }
}

/// Finds the room that `text` means: a URI, a name given on this device, or the beginning of an id.
async fn find_room(client: &Client, text: &str) -> Result<RoomInfo, Failure> {
    let rooms = client.rooms().await?;
    let one_of = |found: Vec<&RoomInfo>| match found.as_slice() {
        [] => None,
        [one] => Some(Ok((*one).clone())),
        several => Some(Err(Failure::caller(
            "ambiguous-room",
            format!(
                "{} could be {}",
                visible(text),
                several.iter().map(|r| r.room.as_str()).collect::<Vec<_>>().join(" or ")
            ),
            "write more of its id, or the whole URI",
        ))),
    };
    let by = |test: &dyn Fn(&RoomInfo) -> bool| one_of(rooms.iter().filter(|r| test(r)).collect());
    by(&|r| r.room.as_str() == text)
        .or_else(|| by(&|r| r.name.as_deref() == Some(text)))
        .or_else(|| by(&|r| !text.is_empty() && r.room.local().starts_with(text)))
        .unwrap_or_else(|| {
            Err(Failure::caller(
                UNKNOWN_ROOM,
                format!("this device is in no room that {} could mean", visible(text)),
                "waxwing room list",
            ))
        })
}

/// Waits until a command has come so far, and prints where it is.
async fn follow(
    client: &Client,
    output: &Output,
    (submit_id, room): (&SubmitId, &RoomId),
    at_least: Stage,
    patience: Duration,
) -> Result<Exit, Failure> {
    let (waited, trouble) = wait(client, submit_id, at_least, patience).await?;
    let (state, exit) = match waited {
        Ok(state) => {
            let exit = state.failed.as_ref().map(|f| crate::error::exit_of_code(f.code));
            (state, exit.unwrap_or(Exit::Done))
        }
        Err(client::Error::Timeout(_)) => {
            let state = client.state(submit_id).await?;
            output.talk(&unfinished(&state, room, trouble.as_ref()));
            (state, Exit::Temporary)
        }
        Err(other) => return Err(other.into()),
    };
    output.one(&Submission { submit_id, room, state: &state })?;
    Ok(exit)
}

/// Waits as [`Client::wait`] does. When that takes long, the node is asked whether it lets this device in, and what was in the
/// way is given beside the result.
async fn wait(
    client: &Client,
    submit_id: &SubmitId,
    at_least: Stage,
    patience: Duration,
) -> Result<(client::Result<State>, Option<client::Error>), Failure> {
    let waited = client.wait(submit_id, at_least, patience);
    tokio::pin!(waited);
    let asked = async {
        tokio::time::sleep(PROMPT).await;
        client.devices().await.err()
    };
    let trouble = tokio::select! {
        state = &mut waited => return Ok((state, None)),
        trouble = asked => trouble,
    };
    match trouble {
        Some(client::Error::Refused(r)) if r.code == Code::Unauthenticated => {
            Err(client::Error::Refused(r).into())
        }
        other => Ok((waited.await, other)),
    }
}

/// Where something is that did not come as far as was wanted, and why.
fn unfinished(state: &State, room: &RoomId, trouble: Option<&client::Error>) -> String {
    let place = if state.stage >= Stage::Stored {
        format!("Your node has it and waits for the node of {}; do not ask again.", room.hub())
    } else {
        "It is kept on this device and goes out with the next command that connects; do not ask again."
            .to_owned()
    };
    let said = state.waiting.as_ref().map(|w| w.sentence.clone());
    match said.or_else(|| trouble.map(client::Error::sentence)) {
        Some(why) => format!("{place} The last reason: {why}"),
        None => place,
    }
}

/// The next event, or how many were missed.
enum Heard {
    /// It.
    Event(Box<Event>),
    /// So many were missed because this program was too slow; the store has them all.
    Missed,
    /// There will be none.
    End,
}

async fn hear(events: &mut broadcast::Receiver<Event>) -> Heard {
    match events.recv().await {
        Ok(event) => Heard::Event(Box::new(event)),
        Err(broadcast::error::RecvError::Lagged(_)) => Heard::Missed,
        Err(broadcast::error::RecvError::Closed) => Heard::End,
    }
}
