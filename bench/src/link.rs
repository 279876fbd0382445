//! A connection of a device, whatever the system.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::Outcome;
use crate::letter::{Letter, Seals, Tag};
use crate::waxwing::socket::{self, Socket};
use crate::xmpp::stream::{self, Stream};

/// How a device signs in.
#[derive(Clone)]
pub enum Account {
    /// At a node, with a token.
    Waxwing(socket::Door),
    /// With a name and a password.
    Xmpp(stream::Door),
}

/// What a connection tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A message arrived here.
    Delivered(Tag),
    /// The server has said that a message of this device is safe.
    Accepted(Tag),
    /// Anything else.
    Other,
}

/// An open connection.
pub enum Link {
    /// To a node.
    Waxwing(Box<Socket>),
    /// To an XMPP server.
    Xmpp(Box<Stream>),
}

impl Account {
    /// Signs in; returns when messages can come and go.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn connect(&self, seals: Arc<Seals>) -> Outcome<Link> {
        Ok(match self {
            Self::Waxwing(door) => Link::Waxwing(Box::new(Socket::open(door, seals).await?)),
            Self::Xmpp(door) => Link::Xmpp(Box::new(Stream::open(door).await?)),
        })
    }
}

impl Link {
    /// Sends a message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, letter: &Letter) -> Outcome<()> {
        match self {
            Self::Waxwing(socket) => socket.send(letter).await,
            Self::Xmpp(stream) => stream.send(letter).await,
        }
    }

    /// The next thing that happens. May be dropped while it waits.
    ///
    /// # Errors
    /// When the connection ends, or the server refuses a message.
    pub async fn next(&mut self) -> Outcome<Event> {
        match self {
            Self::Waxwing(socket) => socket.next().await,
            Self::Xmpp(stream) => stream.next().await,
        }
    }

    /// Takes what comes until nothing has come for a while.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn settle(&mut self, quiet: Duration) -> Outcome<VecDeque<Event>> {
        let mut events = VecDeque::new();
        while let Ok(event) = tokio::time::timeout(quiet, self.next()).await {
            events.push_back(event?);
        }
        Ok(events)
    }
}
