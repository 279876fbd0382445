//! The SDK: one device of one person, as a program sees it.
//!
//! A [`Client`] owns a folder: its account, keys, rooms, outbox and timeline live in one SQLite file there, sealed, and
//! a lock file keeps a second process out. Everything a caller asks for is written down before it returns, so that it
//! survives a crash and a missing network; [`Client::start`] then carries it out in the background.
//!
//! ```no_run
//! # async fn demo() -> Result<(), client::Error> {
//! use client::{Client, Seal};
//! let bot = Client::open("data".as_ref(), Seal::KeyFile).await?;
//! let running = bot.start();
//! let room = bot.create_room(client::RoomOptions::default()).await?;
//! bot.send(&room, "hello").await?;
//! running.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod account;
mod api;
pub mod clock;
mod error;
mod event;
mod net;
mod room;
mod store;
mod stream;

pub use account::{Device, Linking, Place, Registration, Seal, WhoAmI, World};
pub use error::Error;
pub use event::{Alarm, AlarmKind, Event};
pub use room::{
    Failure, Flag, Member, Message, MessageKey, RoomInfo, RoomOptions, RoomStatus, Stage, State,
};

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::room::Role;
use protocol::{DeviceId, RoomId, SubmitId, UserId};
use tokio::sync::broadcast;

/// One device. Cheap to clone; all clones share one store, which is let go when the last one is dropped.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner;

/// The background work of a [`Client`]. Dropping it lets the work go on until the last [`Client`] is dropped.
pub struct Running {
    _inner: Arc<Inner>,
}

impl Running {
    /// Ends the background work at a point where nothing is half done, and waits for it.
    pub async fn shutdown(self) {}
}

impl Client {
    /// Makes a new person from an invitation line, with this as the first device: `name` becomes
    /// `@name@domain-of-the-line`. Needs the node once; a repeat after a lost answer finishes what was begun.
    ///
    /// # Errors
    /// The line is damaged ([`Error::Line`]), the node refuses ([`Error::Refused`]: used invitation, taken name, weak
    /// password), cannot be reached, or shows another key than the line; or the folder already holds an account.
    pub async fn register(
        dir: &Path,
        seal: Seal,
        line: &str,
        name: &str,
        password: &str,
        device_name: &str,
    ) -> Result<Self> {
        let registration = Registration { line, name, password, device_name };
        Self::register_in(Place::new(dir, seal), registration).await
    }

    /// [`Client::register`] with an injected clock and entropy.
    ///
    /// # Errors
    /// As there.
    pub async fn register_in(place: Place, registration: Registration<'_>) -> Result<Self> {
        todo!("{place:?} {registration:?}")
    }

    /// Opens the account in a folder. Does not need the network.
    ///
    /// # Errors
    /// No account there, the wrong passphrase or key, another process has it ([`Error::Locked`]), or the store was
    /// written by a newer program.
    pub async fn open(dir: &Path, seal: Seal) -> Result<Self> {
        Self::open_in(Place::new(dir, seal)).await
    }

    /// [`Client::open`] with an injected clock and entropy.
    ///
    /// # Errors
    /// As there.
    pub async fn open_in(place: Place) -> Result<Self> {
        todo!("{place:?}")
    }

    /// Makes this folder a further device of a person who has one already: `line` comes from [`Client::offer_link`]
    /// on that device and works once, for ten minutes. The new device then joins every room of the person.
    ///
    /// # Errors
    /// As [`Client::register`]; [`protocol::Code::WrongPassword`] when the password is not the person's.
    pub async fn link(
        dir: &Path,
        seal: Seal,
        line: &str,
        password: &str,
        device_name: &str,
    ) -> Result<Self> {
        Self::link_in(Place::new(dir, seal), Linking { line, password, device_name }).await
    }

    /// [`Client::link`] with an injected clock and entropy.
    ///
    /// # Errors
    /// As there.
    pub async fn link_in(place: Place, linking: Linking<'_>) -> Result<Self> {
        todo!("{place:?} {linking:?}")
    }

    /// Starts the background work: connect, receive, send, keep KeyPackages in stock. Call it once per opened client;
    /// a second call returns a handle to the same work.
    #[must_use]
    pub fn start(&self) -> Running {
        Running { _inner: Arc::clone(&self.inner) }
    }

    /// Who this device is and where its node is.
    #[must_use]
    pub fn whoami(&self) -> WhoAmI {
        todo!()
    }

    /// The person's devices, as the node lists them.
    ///
    /// # Errors
    /// The node cannot be reached or refuses.
    pub async fn devices(&self) -> Result<Vec<Device>> {
        todo!()
    }

    /// Revokes another device of this person at the node, at once, and queues its removal from every room.
    ///
    /// # Errors
    /// The node cannot be reached or refuses; the device is this one.
    pub async fn revoke_device(&self, device: &DeviceId) -> Result<()> {
        todo!("{device}")
    }

    /// Leaves a sealed offer for a new device at the node and returns the line to enter there. The line is a secret.
    ///
    /// # Errors
    /// The node cannot be reached or refuses.
    pub async fn offer_link(&self) -> Result<String> {
        todo!()
    }

    /// Makes a room of this person alone. Durable at once; the node learns of it when it can be reached.
    ///
    /// # Errors
    /// The store fails.
    pub async fn create_room(&self, options: RoomOptions) -> Result<RoomId> {
        todo!("{options:?}")
    }

    /// The rooms this device is in, is joining or has left, by id.
    ///
    /// # Errors
    /// The store fails.
    pub async fn rooms(&self) -> Result<Vec<RoomInfo>> {
        todo!()
    }

    /// Asks for `user` to be added, with all devices, as a member. A durable command: follow it with
    /// [`Client::wait`]; it is [`Stage::Accepted`] when the room's hub has taken the commit.
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn invite(&self, room: &RoomId, user: &UserId) -> Result<SubmitId> {
        todo!("{room} {user}")
    }

    /// Asks for `user` to be removed, with all devices. A durable command, as [`Client::invite`].
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn remove(&self, room: &RoomId, user: &UserId) -> Result<SubmitId> {
        todo!("{room} {user}")
    }

    /// Gives `user` another role. A durable command, as [`Client::invite`].
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn set_role(&self, room: &RoomId, user: &UserId, role: Role) -> Result<SubmitId> {
        todo!("{room} {user} {role:?}")
    }

    /// Leaves the room with all devices of this person. A durable command, as [`Client::invite`]; another member's
    /// client carries it out.
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn leave(&self, room: &RoomId) -> Result<SubmitId> {
        todo!("{room}")
    }

    /// Writes a text message into a room. When this returns, the message is durable on this device and is sent as soon
    /// as it can be, exactly once as far as anybody sees.
    ///
    /// # Errors
    /// The room is not one of this device's, or the text is longer than 64 KiB.
    pub async fn send(&self, room: &RoomId, text: &str) -> Result<SubmitId> {
        todo!("{room} {text}")
    }

    /// What became of a submission of this device.
    ///
    /// # Errors
    /// It is not one of this device's.
    pub async fn state(&self, submit_id: &SubmitId) -> Result<State> {
        todo!("{submit_id}")
    }

    /// Waits until a submission is at least at `at_least` or has failed, and returns where it is then.
    ///
    /// # Errors
    /// [`Error::Timeout`] when that took longer than `timeout`; as [`Client::state`].
    pub async fn wait(
        &self,
        submit_id: &SubmitId,
        at_least: Stage,
        timeout: Duration,
    ) -> Result<State> {
        todo!("{submit_id} {at_least:?} {timeout:?}")
    }

    /// Messages of a room in the timeline's order: the first `max` after the message `after`, or from the beginning.
    /// A message that comes late may be inserted before one that was returned already; [`Client::events`] says so.
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn timeline(
        &self,
        room: &RoomId,
        after: Option<MessageKey>,
        max: usize,
    ) -> Result<Vec<Message>> {
        todo!("{room} {after:?} {max}")
    }

    /// The last `max` messages of a room in the timeline's order.
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn latest(&self, room: &RoomId, max: usize) -> Result<Vec<Message>> {
        todo!("{room} {max}")
    }

    /// What happens from now on. A receiver that falls more than 1,024 events behind is told how many it missed and
    /// reads the timeline instead; nothing is lost there.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        todo!()
    }
}
