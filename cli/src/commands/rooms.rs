//! `room create|list|invite|remove|role|rejoin|leave`.

use std::time::Duration;

use client::{Client, RoomInfo, RoomOptions, RoomStatus, Stage};
use protocol::{RoomId, SubmitId, UserId};
use tokio::time::Instant;

use super::messages::catch_up;
use super::{SYNC, expect_room, find_room, follow, online};
use crate::args::{Global, RoomVerb};
use crate::error::{Exit, Failure};
use crate::output::Output;
use crate::prompt;

pub(super) async fn run(global: &Global, output: &Output, verb: RoomVerb) -> Result<Exit, Failure> {
    let patience = global.patience();
    let sync = patience.min(SYNC);
    match verb {
        RoomVerb::List => {
            online(global, |client| async move {
                let synced = catch_up(&client, output, sync).await;
                output.list(&client.rooms().await?)?;
                Ok(synced)
            })
            .await
        }
        RoomVerb::Create { name, post_quantum } => {
            let options = RoomOptions { name, post_quantum };
            online(global, |client| create(client, output, options, patience)).await
        }
        RoomVerb::Invite { room, users } => {
            let change = Change::Invite(parse_users(&users)?);
            online(global, |client| carry_out(client, output, room, change, patience)).await
        }
        RoomVerb::Remove { room, users } => {
            let change = Change::Remove(parse_users(&users)?);
            online(global, |client| carry_out(client, output, room, change, patience)).await
        }
        RoomVerb::Role { room, user, role } => {
            let change = Change::Role(parse_user(&user)?, role.into());
            online(global, |client| carry_out(client, output, room, change, patience)).await
        }
        RoomVerb::Rejoin { room } => {
            let change = Change::Rejoin;
            online(global, |client| carry_out(client, output, room, change, patience)).await
        }
        RoomVerb::Leave { room } => {
            if !global.yes && !prompt::confirm("Leave this room with all your devices?")? {
                return Ok(Exit::Failed);
            }
            let change = Change::Leave;
            online(global, |client| carry_out(client, output, room, change, patience)).await
        }
    }
}

async fn create(
    client: Client,
    output: &Output,
    options: RoomOptions,
    patience: Duration,
) -> Result<Exit, Failure> {
    let room = client.create_room(options).await?;
    let made = tokio::time::timeout(patience, made(&client, &room)).await;
    let info = find_room(&client, room.as_str()).await?;
    output.one(&info)?;
    if let Ok(result) = made {
        return result.map(|()| Exit::Done);
    }
    output.talk(
        "The room is kept on this device; the next command that connects makes it at the node.",
    );
    Ok(Exit::Temporary)
}

/// Waits until the node knows the room.
async fn made(client: &Client, room: &RoomId) -> Result<(), Failure> {
    loop {
        let rooms = client.rooms().await?;
        let creating = |r: &RoomInfo| r.room == *room && r.status == RoomStatus::Creating;
        if !rooms.iter().any(creating) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A change to a room.
enum Change {
    Invite(Vec<UserId>),
    Remove(Vec<UserId>),
    Role(UserId, protocol::room::Role),
    Rejoin,
    Leave,
}

async fn carry_out(
    client: Client,
    output: &Output,
    room: String,
    change: Change,
    patience: Duration,
) -> Result<Exit, Failure> {
    let deadline = Instant::now() + patience;
    if let Change::Remove(users) = &change {
        // Whoever came or went a moment ago counts too; without the node, what this device knows.
        let _known = tokio::time::timeout(patience.min(SYNC), client.caught_up()).await;
        present(&find_room(&client, &room).await?, users)?;
    }
    let room = expect_room(&client, &room, patience).await?.room;
    let mut commands: Vec<SubmitId> = Vec::new();
    match change {
        Change::Invite(users) => {
            for user in users {
                commands.push(client.invite(&room, &user).await?);
            }
        }
        Change::Remove(users) => {
            for user in users {
                commands.push(client.remove(&room, &user).await?);
            }
        }
        Change::Role(user, role) => commands.push(client.set_role(&room, &user, role).await?),
        Change::Rejoin => commands.push(client.rejoin(&room).await?),
        Change::Leave => commands.push(client.leave(&room).await?),
    }
    let mut exits = Vec::new();
    for command in &commands {
        let left = deadline.saturating_duration_since(Instant::now());
        exits.push(follow(&client, output, (command, &room), Stage::Accepted, left).await?);
    }
    Ok(together(&exits))
}

/// Nobody can be removed who is not there.
fn present(info: &RoomInfo, users: &[UserId]) -> Result<(), Failure> {
    match users.iter().find(|u| info.members.iter().all(|m| m.user != **u)) {
        None => Ok(()),
        Some(absent) => Err(Failure::caller(
            "not-found",
            format!("{} is not in this room", absent.handle()),
            "waxwing room list shows who is",
        )),
    }
}

/// One exit code for several commands.
fn together(exits: &[Exit]) -> Exit {
    let failed = exits.iter().find(|e| **e != Exit::Done).copied();
    match failed {
        None => Exit::Done,
        Some(_) if exits.contains(&Exit::Done) => Exit::Partly,
        Some(exit) => exit,
    }
}

pub(super) fn parse_user(text: &str) -> Result<UserId, Failure> {
    UserId::parse_handle(text).map_err(|e| {
        Failure::caller("bad-name", e.to_string(), "write people as @name@organisation.example")
    })
}

fn parse_users(texts: &[String]) -> Result<Vec<UserId>, Failure> {
    texts.iter().map(|t| parse_user(t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_done_and_some_not_is_its_own_exit_code() {
        assert_eq!(together(&[Exit::Done, Exit::Done]), Exit::Done);
        assert_eq!(together(&[Exit::Done, Exit::Failed]), Exit::Partly);
        assert_eq!(together(&[Exit::Temporary, Exit::Failed]), Exit::Temporary);
    }
}
