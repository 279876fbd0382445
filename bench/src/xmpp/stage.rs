//! Sets a scene at XMPP servers: accounts, and what they will say.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::letter::{Letter, Person, Tag};
use crate::link::Account;
use crate::work::Script;
use crate::{Outcome, failed};

use super::stream::{self, Door};

/// Everybody's password.
pub const PASSWORD: &str = "correct-horse";

/// An XMPP server, as scenes need it.
pub trait Host {
    /// A door without a name.
    fn door(&self) -> Door;
    /// Makes these accounts, with [`PASSWORD`].
    ///
    /// # Errors
    /// When the server cannot have them.
    fn register(&self, names: &[String]) -> Outcome<()>;
}

/// The account of that name.
fn known(host: &dyn Host, name: &str) -> Door {
    Door { user: name.to_owned(), password: PASSWORD.to_owned(), ..host.door() }
}

fn names(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}{n}")).collect()
}

/// What `sender` says to `to`.
fn write(sender: usize, to: &str, kind: &str, script: Script) -> Outcome<Vec<Letter>> {
    let sender = u32::try_from(sender)?;
    let letter = |number| {
        let tag = Tag { sender, number };
        let text = crate::work::text(tag, script.bytes);
        let mut wire = String::new();
        write!(
            wire,
            "<message to='{to}' type='{kind}' id='{}'><body>{text}</body></message>",
            stream::id(tag)
        )?;
        Ok(Letter { tag, content: text.len(), wire: wire.into_bytes().into() })
    };
    (0..u32::try_from(script.letters)?).map(letter).collect()
}

fn person(door: Door, letters: Vec<Letter>) -> Person {
    Person { account: Account::Xmpp(door), letters, seals: Arc::default() }
}

/// People in twos; the second of each two is at the last server.
///
/// # Errors
/// When a server refuses.
pub fn pairs(hosts: &[&dyn Host], count: usize, script: Script) -> Outcome<Vec<[Person; 2]>> {
    let ([home, ..], [.., away]) = (hosts, hosts) else { return failed("there is no server") };
    let (ones, others) = (names("a", count), names("b", count));
    home.register(&ones)?;
    away.register(&others)?;
    let mut pairs = Vec::new();
    for (n, (one, other)) in ones.iter().zip(&others).enumerate() {
        let (one, other) = (known(*home, one), known(*away, other));
        let said = write(2 * n, &other.jid(), "chat", script)?;
        let answered = write(2 * n + 1, &one.jid(), "chat", script)?;
        pairs.push([person(one, said), person(other, answered)]);
    }
    Ok(pairs)
}

/// One room; the first `speakers` have something to say.
///
/// # Errors
/// When the server refuses.
pub fn room(
    host: &dyn Host,
    members: usize,
    speakers: usize,
    script: Script,
) -> Outcome<Vec<Person>> {
    let names = names("m", members);
    host.register(&names)?;
    let room = format!("hall@conference.{}", host.door().domain);
    let mut people = Vec::new();
    for (n, name) in names.iter().enumerate() {
        let script = if n < speakers { script } else { Script { letters: 0, ..script } };
        let door = Door { room: Some(room.clone()), ..known(host, name) };
        people.push(person(door, write(n, &room, "groupchat", script)?));
    }
    Ok(people)
}

/// `senders` people with something to say to the same absent person.
///
/// # Errors
/// When the server refuses.
pub fn absent(host: &dyn Host, senders: usize, script: Script) -> Outcome<(Vec<Person>, Person)> {
    let names = names("s", senders);
    host.register(&names)?;
    host.register(&["absent".to_owned()])?;
    let absent = known(host, "absent");
    let mut people = Vec::new();
    for (n, name) in names.iter().enumerate() {
        // How else would they know when a message is safe?
        let door = Door { acknowledged: true, ..known(host, name) };
        people.push(person(door, write(n, &absent.jid(), "chat", script)?));
    }
    Ok((people, person(absent, Vec::new())))
}

/// People who only sign in.
///
/// # Errors
/// When the server refuses.
pub fn idle(host: &dyn Host, count: usize) -> Outcome<Vec<Account>> {
    let names = names("i", count);
    host.register(&names)?;
    Ok(names.iter().map(|name| Account::Xmpp(known(host, name))).collect())
}
