//! Sets a scene at a node: people, rooms, and what they will say, encrypted.

use std::sync::Arc;

use crypto::Group;
use node::clock::{SystemClock, SystemEntropy};
use protocol::api::{Payload, Submit, ToNode, encode};
use protocol::{Clock as _, RoomId};

use crate::letter::{Letter, Person, Seals, Tag, seal};
use crate::link::Account;
use crate::waxwing::node::Node;
use crate::waxwing::people::{self, Device};
use crate::waxwing::{rooms, socket};
use crate::work::Script;
use crate::{Outcome, failed};

/// How this device signs in.
#[must_use]
pub fn account(node: &Node, device: &Device) -> Account {
    Account::Waxwing(socket::Door {
        address: node.address,
        domain: node.domain.clone(),
        config: node.h1.clone(),
        token: device.token.clone(),
    })
}

/// People in twos, each two in a room of their own at the first node; the second of each two is at the last node.
///
/// # Errors
/// When a node refuses.
pub async fn pairs(nodes: &[&Node], count: usize, script: Script) -> Outcome<Vec<[Person; 2]>> {
    let ([home, ..], [.., away]) = (nodes, nodes) else { return failed("there is no node") };
    let (ones, others) =
        (people::register(home, "a", count).await?, people::register(away, "b", count).await?);
    let (home_api, away_api) = (home.api().await?, away.api().await?);
    let mut groups = Vec::new();
    for (one, other) in ones.iter().zip(&others) {
        let speakers = [(&home_api, one), (&away_api, other)];
        groups.push(rooms::found(home, &speakers, &[]).await?);
    }
    let spoken = write_all(groups, script).await?;
    let mut pairs = Vec::new();
    for ((one, other), spoken) in ones.iter().zip(&others).zip(spoken) {
        let [(said, seals), (answered, answers)] = spoken_by_two(spoken)?;
        pairs.push([
            Person { account: account(home, one), letters: said, seals: Arc::new(answers) },
            Person { account: account(away, other), letters: answered, seals: Arc::new(seals) },
        ]);
    }
    Ok(pairs)
}

type Spoken = (Vec<Letter>, Seals);

fn spoken_by_two(spoken: Vec<Spoken>) -> Outcome<[Spoken; 2]> {
    spoken.try_into().map_err(|_| "a pair is two".into())
}

/// One room; the first `speakers` have something to say.
///
/// # Errors
/// When the node refuses.
pub async fn room(
    node: &Node,
    members: usize,
    speakers: usize,
    script: Script,
) -> Outcome<Vec<Person>> {
    let devices = people::register(node, "m", members).await?;
    let api = node.api().await?;
    let (speaking, silent) = devices.split_at(speakers.min(devices.len()));
    let speaking: Vec<_> = speaking.iter().map(|device| (&api, device)).collect();
    let groups = rooms::found(node, &speaking, silent).await?;
    let spoken = write_all(vec![groups], script).await?.into_iter().next().unwrap_or_default();
    let (letters, seals): (Vec<_>, Vec<_>) = spoken.into_iter().unzip();
    let seals: Arc<Seals> = Arc::new(seals.into_iter().flatten().collect());
    let letters = letters.into_iter().map(Some).chain(std::iter::repeat_with(|| None));
    let person = |(device, letters): (&Device, Option<Vec<Letter>>)| Person {
        account: account(node, device),
        letters: letters.unwrap_or_default(),
        seals: seals.clone(),
    };
    Ok(devices.iter().zip(letters).map(person).collect())
}

/// `senders` people with something to say, each in a room with the same absent person.
///
/// # Errors
/// When the node refuses.
pub async fn absent(node: &Node, senders: usize, script: Script) -> Outcome<(Vec<Person>, Person)> {
    let devices = people::register(node, "s", senders).await?;
    let absent = people::register(node, "absent", 1).await?.into_iter().next().ok_or("nobody")?;
    let api = node.api().await?;
    let mut groups = Vec::new();
    for device in &devices {
        let mut two = rooms::found(node, &[(&api, device), (&api, &absent)], &[]).await?;
        two.truncate(1);
        groups.push(two);
    }
    let (mut people, mut seals) = (Vec::new(), Seals::new());
    for (device, spoken) in devices.iter().zip(write_all(groups, script).await?) {
        let (letters, known) = spoken.into_iter().next().unwrap_or_default();
        seals.extend(known);
        people.push(Person { account: account(node, device), letters, seals: Arc::default() });
    }
    let absent =
        Person { account: account(node, &absent), letters: Vec::new(), seals: Arc::new(seals) };
    Ok((people, absent))
}

/// Somebody alone in a room, with something to say.
///
/// # Errors
/// When the node refuses.
pub async fn speaker(node: &Node, script: Script) -> Outcome<(RoomId, Person)> {
    let device = people::register(node, "speaker", 1).await?.into_iter().next().ok_or("nobody")?;
    let api = node.api().await?;
    let groups = rooms::found(node, &[(&api, &device)], &[]).await?;
    let room = groups.first().ok_or("no room")?.room().clone();
    let spoken = write_all(vec![groups], script).await?.into_iter().flatten().next();
    let (letters, _) = spoken.ok_or("nothing was said")?;
    Ok((room, Person { account: account(node, &device), letters, seals: Arc::default() }))
}

/// Encrypts everything that the speakers of these rooms will say, on all processors.
async fn write_all(rooms: Vec<Vec<Group>>, script: Script) -> Outcome<Vec<Vec<Spoken>>> {
    let mut first = 0;
    let mut work = Vec::new();
    for groups in rooms {
        let sender = first;
        first += u32::try_from(groups.len())?;
        work.push(tokio::task::spawn_blocking(move || {
            groups
                .into_iter()
                .zip(sender..)
                .map(|(group, sender)| write(group, sender, script))
                .collect::<Outcome<Vec<_>>>()
        }));
    }
    let mut written = Vec::new();
    for room in work {
        written.push(room.await??);
    }
    Ok(written)
}

fn write(mut group: Group, sender: u32, script: Script) -> Outcome<Spoken> {
    let (mut letters, mut seals) = (Vec::new(), Seals::new());
    let room = group.room().clone();
    for number in 0..u32::try_from(script.letters)? {
        let tag = Tag { sender, number };
        let text = crate::work::text(tag, script.bytes);
        let message = group.encrypt(text.as_bytes(), &SystemEntropy)?;
        seals.insert(seal(&message).ok_or("a message is longer than its seal")?, tag);
        let submit_id = socket::name(SystemClock.now(), tag);
        let content = message.len();
        let payload = Payload::Application(message);
        let submit = ToNode::Submit(Submit { submit_id, room: room.clone(), payload });
        letters.push(Letter { tag, wire: encode(&submit).into(), content });
    }
    Ok((letters, seals))
}
