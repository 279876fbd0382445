//! A device's stream to its node. PROTOCOL §6.8.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use protocol::api::{self, Ack, Body, Entries, Reply, SubmitReply, ToDevice, ToNode};
use protocol::{Cursor, Domain, SubmitId};
use rustls::ClientConfig;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::letter::{Letter, Seals, Tag, seal};
use crate::link::Event;
use crate::waxwing::api::dial;
use crate::{Outcome, failed};

/// Where a device signs in, and as whom.
#[derive(Clone)]
pub struct Door {
    /// The node.
    pub address: SocketAddr,
    /// Its name.
    pub domain: Domain,
    /// Its key.
    pub config: Arc<ClientConfig>,
    /// The device's token.
    pub token: String,
}

/// An open stream.
pub struct Socket {
    frames: WebSocketStream<TlsStream<TcpStream>>,
    seals: Arc<Seals>,
    events: VecDeque<Event>,
}

impl Socket {
    /// Connects, upgrades, and waits for the node's greeting.
    ///
    /// # Errors
    /// When the node cannot be reached or refuses.
    pub async fn open(door: &Door, seals: Arc<Seals>) -> Outcome<Self> {
        let tls = dial(door.address, door.domain.as_str(), door.config.clone()).await?;
        let request = Request::builder()
            .uri(format!("wss://{}/v1/stream", door.domain))
            .header("Host", door.domain.as_str())
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", generate_key())
            .header("Authorization", format!("Bearer {}", door.token))
            .body(())?;
        let (frames, _) = client_async(request, tls).await?;
        let mut stream = Self { frames, seals, events: VecDeque::new() };
        match stream.frame().await? {
            ToDevice::Hello(_) => Ok(stream),
            other => failed(format!("the node greets with {other:?}")),
        }
    }

    /// Hands a message in.
    ///
    /// # Errors
    /// When the stream is over.
    pub async fn send(&mut self, letter: &Letter) -> Outcome<()> {
        Ok(self.frames.send(Message::Binary(letter.wire.clone())).await?)
    }

    /// The next event; entries are acknowledged as they come, a frame at a time, as a device does.
    ///
    /// # Errors
    /// When the stream ends or a message is refused.
    pub async fn next(&mut self) -> Outcome<Event> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(event);
            }
            match self.frame().await? {
                ToDevice::Entries(entries) => self.take(&entries).await?,
                ToDevice::Reply(Reply { submit_id, reply }) => match reply {
                    SubmitReply::Accepted(_) | SubmitReply::Stored => {
                        return Ok(Event::Accepted(named(&submit_id)));
                    }
                    SubmitReply::Refused(refusal) => {
                        return failed(format!("a message was refused: {refusal}"));
                    }
                },
                ToDevice::Bye(refusal) => return failed(format!("the node says bye: {refusal}")),
                ToDevice::Hello(_) | ToDevice::Pong(_) => return Ok(Event::Other),
            }
        }
    }

    async fn take(&mut self, entries: &Entries) -> Outcome<()> {
        for entry in &entries.entries {
            let Body::Full(bytes) = &entry.body else { continue };
            if let Some(tag) = seal(bytes).and_then(|s| self.seals.get(&s)) {
                self.events.push_back(Event::Delivered(*tag));
            }
        }
        let Some(last) = entries.entries.last() else { return Ok(()) };
        let cursor = Cursor { incarnation: entries.incarnation, seq: last.seq };
        let ack = ToNode::Ack(Ack { log: entries.log.clone(), cursor });
        Ok(self.frames.send(Message::Binary(api::encode(&ack).into())).await?)
    }

    async fn frame(&mut self) -> Outcome<ToDevice> {
        loop {
            match self.frames.next().await {
                Some(Ok(Message::Binary(bytes))) => return Ok(api::decode(&bytes)?),
                Some(Ok(Message::Close(_))) | None => return failed("the node closed the stream"),
                Some(Ok(_)) => {}
                Some(Err(e)) => return Err(e.into()),
            }
        }
    }
}

/// A SubmitId that says which message it is: the time first, as ids have it, then the tag.
#[must_use]
pub fn name(now: protocol::Timestamp, tag: Tag) -> SubmitId {
    let mut bytes = [0; 10];
    for (byte, of) in bytes.iter_mut().skip(2).zip(tag.pack().to_be_bytes()) {
        *byte = of;
    }
    SubmitId::mint(now, bytes)
}

fn named(id: &SubmitId) -> Tag {
    Tag::unpack(u64::from_be_bytes(id.as_bytes().last_chunk().copied().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_submission_is_known_by_its_id() {
        let tag = Tag { sender: 3, number: 9 };
        assert_eq!(named(&name(protocol::Timestamp::from_ms(1), tag)), tag);
    }
}
