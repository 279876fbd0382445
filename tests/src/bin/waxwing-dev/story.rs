//! What `cargo xtask dev` shows: people talk across two organisations, and the nodes in between hold only ciphertext.

use std::path::Path;
use std::time::Duration;

use client::{Event, Stage};
use protocol::RoomId;
use tests::command::Waxwing;
use tests::device::Device;
use tests::scan::Canary;
use tests::trouble::During as _;
use tests::{Outcome, inspect};
use tokio::time::timeout;

use crate::cast::Cast;

const LINES: [(&str, &str); 6] = [
    ("ana", "Sunday at noon, by the lake?"),
    ("bea", "Yes! I bring the bread."),
    ("ana's laptop", "And I the cheese. (This is Ana at her other device.)"),
    ("bob", "Then I bring the bicycle pump, as always."),
    ("alf", "It will rain, says the rowan-berries-and-waxwings almanac."),
    ("bea", "Then we take the boathouse."),
];

pub(crate) async fn run(folder: &Path) -> Outcome<()> {
    println!("── two organisations, one node each");
    let cast = Cast::assemble(folder).await?;
    for node in &cast.world.nodes {
        let (domain, address) = (node.domain(), node.address()?);
        println!("{domain} listens at {address}; its data: {}", node.data().display());
    }
    println!("the two nodes are paired: each pins the other's key");
    println!("── people");
    for (label, device) in &cast.devices {
        println!("{label}: {} with device {}", device.user().handle(), device.id());
    }
    println!("── a room that spans both, made by ana, ordered by a.localhost");
    let room = cast.room().await?;
    println!("{room}");
    println!("── the conversation");
    for (who, text) in LINES {
        say(&cast, &room, who, text).await?;
    }
    stored(&cast).await?;
    join_in(cast, folder, &room).await
}

/// Sends a line, prints its states as they change, and waits until everybody shows it.
async fn say(cast: &Cast, room: &RoomId, who: &str, text: &str) -> Outcome<()> {
    let device = cast.device(who)?;
    let mut events = device.client()?.events();
    let submit_id = device.send(room, text).await?;
    println!("{who}: {text}");
    let follow = async {
        let mut shown = String::from("queued");
        while let Ok(event) = events.recv().await {
            let Event::StateChanged { submit_id: id, state, .. } = event else { continue };
            if id == submit_id && !shown.ends_with(state.as_str()) {
                shown.push_str(" → ");
                shown.push_str(state.as_str());
                if state.stage == Stage::Accepted || state.failed.is_some() {
                    break;
                }
            }
        }
        shown
    };
    let shown = timeout(Duration::from_secs(30), follow).await.during("waiting for its states")?;
    let seq = device.until_accepted(&submit_id, "say").await?;
    println!("    {shown} as number {seq}");
    let mut seen = Vec::new();
    for (label, other) in cast.devices.iter().filter(|(label, _)| *label != who) {
        until_shown(other, room, text).await?;
        seen.push(*label);
    }
    println!("    shown to {}", seen.join(", "));
    Ok(())
}

async fn until_shown(device: &Device, room: &RoomId, text: &str) -> Outcome<()> {
    tests::device::eventually(Duration::from_secs(30), text, async || {
        let latest = device.client()?.latest(room, 20).await?;
        Ok(latest.iter().any(|m| m.text == text).then_some(()))
    })
    .await
}

/// Shows one message as each node has it, and that the texts are nowhere in what the nodes stored or logged.
async fn stored(cast: &Cast) -> Outcome<()> {
    println!("── what the nodes have of the last message");
    for node in &cast.world.nodes {
        let message = inspect::newest(node.data()).await?;
        let bytes = message.body.len();
        println!(
            "{}, entry {} of its {} log, {bytes} bytes:",
            node.domain(),
            message.seq,
            message.log
        );
        println!("{}", inspect::hex_dump(message.body.get(..96).unwrap_or(&message.body)));
    }
    for node in &cast.world.nodes {
        let folder = node.config();
        let folder = folder.parent().during("the node's folder")?;
        let mut looked = (0, 0);
        for (_, text) in LINES {
            let found = Canary::new(text).find_in(folder)?;
            looked = (found.files, found.bytes);
            if let Some((path, form)) = found.places.first() {
                return tests::Trouble::is(format!("{text:?} is in {} ({form})", path.display()));
            }
        }
        println!(
            "{}: none of the {} texts is in its {} files ({} bytes: database, log, keys)",
            node.domain(),
            LINES.len(),
            looked.0,
            looked.1
        );
    }
    Ok(())
}

/// Makes a person at each node for whoever sits at the terminal, says how to use them, and shows what comes until Ctrl-C.
async fn join_in(mut cast: Cast, folder: &Path, room: &RoomId) -> Outcome<()> {
    let program = tests::folder::program("waxwing")?;
    let mut lines = Vec::new();
    for (i, name) in ["you-a", "you-b"].into_iter().enumerate() {
        let you = Waxwing::new(&folder.join(name));
        if !you.folder().exists() {
            let line = cast.world.invite(i).await?;
            you.register(&line, "you", &[]).await?;
            // Going online once leaves key packages at the node, so that the person can be added.
            you.run(&["listen", "--timeout", "1"]).await?.done()?;
            let domain = cast.world.node(i)?.domain().clone();
            let user = protocol::UserId::new(&domain, "you")?;
            cast.device("ana")?.invite(room, &user).await?;
        }
        lines.push(format!("{} --dir {}", program.display(), you.folder().display()));
    }
    println!("── join in, from two other shells (you are @you@a.localhost and @you@b.localhost)");
    for line in &lines {
        println!("{line} listen --since last");
    }
    for line in &lines {
        println!("{line} send '{room}' 'Hello from here'");
    }
    println!("(one program at a time per folder: listen as one, send as the other)");
    println!("── bea's screen; Ctrl-C ends everything");
    let mut events = cast.device("bea")?.client()?.events();
    let show = async {
        while let Ok(event) = events.recv().await {
            match event {
                Event::Message { message, .. } => {
                    println!("{}: {}", message.sender.handle(), message.text.escape_debug());
                }
                Event::MemberChanged { added, removed, .. } => {
                    for user in added {
                        println!("-- {} came", user.handle());
                    }
                    for user in removed {
                        println!("-- {} went", user.handle());
                    }
                }
                _ => {}
            }
        }
    };
    tokio::select! {
        () = show => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    println!("── stopping");
    end(cast).await
}

/// Everybody off, then the nodes.
pub(crate) async fn end(mut cast: Cast) -> Outcome<()> {
    for (_, device) in &mut cast.devices {
        device.go_offline().await;
    }
    for node in &mut cast.world.nodes {
        // Ctrl-C at a terminal reached it too.
        if node.runs() {
            node.stop().await?;
        }
    }
    cast.world.passed();
    Ok(())
}
