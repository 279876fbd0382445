//! An XMPP client, good enough to send and hear messages: TLS from the first byte, PLAIN, bind, presence, rooms, and where it is asked
//! for, acknowledgements of what was sent (XEP-0198) and the archive (XEP-0313).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use rustls::ClientConfig;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use super::xml::{Element, Reader};
use crate::letter::{Letter, Tag};
use crate::link::Event;
use crate::waxwing::api::dial;
use crate::{Outcome, failed};

/// How long a server may take to answer while somebody signs in.
const ANSWERED_WITHIN: Duration = Duration::from_mins(1);
/// A page of the archive.
const PAGE: usize = 250;

/// Where and as whom to sign in.
#[derive(Clone)]
pub struct Door {
    /// The server's port for TLS from the first byte.
    pub address: SocketAddr,
    /// Its domain.
    pub domain: String,
    /// Its certificate.
    pub config: Arc<ClientConfig>,
    /// The name before the `@`.
    pub user: String,
    /// The password.
    pub password: String,
    /// A room to enter.
    pub room: Option<String>,
    /// Whether the server is to say what it has taken in.
    pub acknowledged: bool,
}

impl Door {
    /// The address of the account.
    #[must_use]
    pub fn jid(&self) -> String {
        format!("{}@{}", self.user, self.domain)
    }
}

/// An open stream.
pub struct Stream {
    tls: TlsStream<TcpStream>,
    reader: Reader,
    bytes: BytesMut,
    /// Elements that came while something else was waited for.
    early: VecDeque<Element>,
    acknowledged: bool,
    unacknowledged: VecDeque<Tag>,
    /// Stanzas the server has said it took, and how many of these were told on.
    taken: u32,
    told: u32,
    /// Stanzas that came, for the server's own questions.
    heard: u32,
}

impl Stream {
    /// Signs in, becomes available, enters the room.
    ///
    /// # Errors
    /// When the server cannot be reached or refuses.
    pub async fn open(door: &Door) -> Outcome<Self> {
        let tls = dial(door.address, &door.domain, door.config.clone()).await?;
        let mut stream = Self {
            tls,
            reader: Reader::default(),
            bytes: BytesMut::with_capacity(4096),
            early: VecDeque::new(),
            acknowledged: false,
            unacknowledged: VecDeque::new(),
            taken: 0,
            told: 0,
            heard: 0,
        };
        let signing_in = tokio::time::timeout(ANSWERED_WITHIN, stream.sign_in(door));
        signing_in.await.map_err(|_| format!("{} cannot sign in", door.jid()))??;
        Ok(stream)
    }

    async fn sign_in(&mut self, door: &Door) -> Outcome<()> {
        self.begin(&door.domain).await?;
        let secret = STANDARD.encode(format!("\0{}\0{}", door.user, door.password));
        let auth = format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{secret}</auth>"
        );
        self.say(&auth).await?;
        let answer = self.expect(|e| matches!(e.name.as_str(), "success" | "failure")).await?;
        if answer.name != "success" {
            return failed(format!("{} may not sign in: {answer:?}", door.jid()));
        }
        self.reader = Reader::default();
        self.begin(&door.domain).await?;
        self.ask("bind", "<bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>", "set").await?;
        if door.acknowledged {
            self.say("<enable xmlns='urn:xmpp:sm:3'/>").await?;
            self.expect(|e| e.name == "enabled").await?;
            self.acknowledged = true;
            self.heard = 0;
        }
        self.say("<presence/>").await?;
        if self.acknowledged {
            // The presence counts too.
            self.unacknowledged.push_back(NOTHING);
        }
        if let Some(room) = &door.room {
            let join = format!(
                "<presence to='{room}/{}'><x xmlns='http://jabber.org/protocol/muc'><history maxstanzas='0'/></x></presence>",
                door.user
            );
            self.say(&join).await?;
            let own = format!("{room}/{}", door.user);
            let entered = |e: &Element| e.name == "presence" && e.get("from") == Some(own.as_str());
            let answer = self.expect(entered).await?;
            if answer.get("type") == Some("error") {
                return failed(format!("{own} may not enter: {answer:?}"));
            }
        }
        Ok(())
    }

    async fn begin(&mut self, domain: &str) -> Outcome<()> {
        let header = format!(
            "<?xml version='1.0'?><stream:stream to='{domain}' version='1.0' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
        );
        self.say(&header).await?;
        self.expect(|e| e.name == "features").await.map(drop)
    }

    async fn say(&mut self, text: &str) -> Outcome<()> {
        self.tls.write_all(text.as_bytes()).await?;
        Ok(self.tls.flush().await?)
    }

    /// Asks the server something; what it answers.
    async fn ask(&mut self, id: &str, what: &str, kind: &str) -> Outcome<Element> {
        self.say(&format!("<iq type='{kind}' id='{id}'>{what}</iq>")).await?;
        if self.acknowledged {
            self.unacknowledged.push_back(NOTHING);
        }
        let answer = self.expect(|e| e.name == "iq" && e.get("id") == Some(id)).await?;
        if answer.get("type") == Some("result") {
            return Ok(answer);
        }
        failed(format!("the server refuses {id}: {answer:?}"))
    }

    /// Waits until the server has dealt with everything that was sent before.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn barrier(&mut self) -> Outcome<()> {
        self.ask("barrier", "<ping xmlns='urn:xmpp:ping'/>", "get").await.map(drop)
    }

    /// Everything in the archive of this account: the messages, in order.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn archive(&mut self) -> Outcome<Vec<Tag>> {
        let (mut found, mut after) = (Vec::new(), String::new());
        loop {
            let query = format!(
                "<query xmlns='urn:xmpp:mam:2'><set xmlns='http://jabber.org/protocol/rsm'><max>{PAGE}</max>{after}</set></query>"
            );
            let answer = self.ask("archive", &query, "set").await?;
            // Results come before the answer; what else came stays for later.
            for element in std::mem::take(&mut self.early) {
                match element.at(&["result", "forwarded", "message"]) {
                    Some(message) => found.extend(tag_of(message)),
                    None => self.early.push_back(element),
                }
            }
            let fin = answer.child("fin").ok_or("an archive without an end")?;
            let last = fin.at(&["set", "last"]).map(|last| last.text.clone());
            match (fin.get("complete"), last) {
                (Some("true"), _) | (_, None) => return Ok(found),
                (_, Some(last)) => after = format!("<after>{last}</after>"),
            }
        }
    }

    /// Sends a message.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&mut self, letter: &Letter) -> Outcome<()> {
        self.tls.write_all(&letter.wire).await?;
        if self.acknowledged {
            self.unacknowledged.push_back(letter.tag);
            self.tls.write_all(b"<r xmlns='urn:xmpp:sm:3'/>").await?;
        }
        Ok(self.tls.flush().await?)
    }

    /// The next event.
    ///
    /// # Errors
    /// When the stream ends or a message comes back.
    pub async fn next(&mut self) -> Outcome<Event> {
        loop {
            if let Some(tag) = self.acknowledged_now() {
                return Ok(Event::Accepted(tag));
            }
            let element = self.element().await?;
            match element.name.as_str() {
                "message" => {
                    if element.get("type") == Some("error") {
                        return failed(format!("a message came back: {element:?}"));
                    }
                    return Ok(tag_of(&element).map_or(Event::Other, Event::Delivered));
                }
                "error" => return failed(format!("the stream is over: {element:?}")),
                "a" => self.taken = element.get("h").and_then(|h| h.parse().ok()).unwrap_or(0),
                "r" => {
                    let answer = format!("<a xmlns='urn:xmpp:sm:3' h='{}'/>", self.heard);
                    self.say(&answer).await?;
                }
                _ => return Ok(Event::Other),
            }
        }
    }

    /// A message that the server's latest count covers.
    fn acknowledged_now(&mut self) -> Option<Tag> {
        while self.told < self.taken {
            let tag = self.unacknowledged.pop_front()?;
            self.told += 1;
            if tag != NOTHING {
                return Some(tag);
            }
        }
        None
    }

    async fn expect(&mut self, wanted: impl Fn(&Element) -> bool) -> Outcome<Element> {
        let mut passed = VecDeque::new();
        loop {
            let element = self.element().await?;
            if wanted(&element) {
                passed.append(&mut self.early);
                self.early = passed;
                return Ok(element);
            }
            passed.push_back(element);
        }
    }

    async fn element(&mut self) -> Outcome<Element> {
        if let Some(element) = self.early.pop_front() {
            return Ok(element);
        }
        loop {
            let mut rest: &[u8] = &self.bytes;
            let read = self.reader.read(&mut rest);
            let used = self.bytes.len() - rest.len();
            drop(self.bytes.split_to(used));
            if let Some(element) = read? {
                if matches!(element.name.as_str(), "message" | "presence" | "iq") {
                    self.heard = self.heard.wrapping_add(1);
                }
                return Ok(element);
            }
            if self.tls.read_buf(&mut self.bytes).await? == 0 {
                return failed("the server closed the connection");
            }
        }
    }
}

/// A stanza that is counted but is no message of ours.
const NOTHING: Tag = Tag { sender: u32::MAX, number: u32::MAX };

/// The id that a message carries.
#[must_use]
pub fn id(tag: Tag) -> String {
    format!("m{}", tag.pack())
}

fn tag_of(message: &Element) -> Option<Tag> {
    message.child("body")?;
    message.get("id")?.strip_prefix('m')?.parse().ok().map(Tag::unpack)
}
