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
mod arrears;
pub mod clock;
mod command;
mod core;
mod engine;
mod enter;
mod error;
mod event;
mod inner;
mod net;
mod receiver;
mod recover;
mod room;
mod rooms;
mod sender;
mod store;
mod stream;
#[cfg(test)]
#[expect(clippy::large_futures, reason = "a test's own future may be large")]
mod tests;
mod timeline;
mod trust;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use protocol::api::{GapReason, Revoke};
use protocol::room::Role;
use protocol::{DeviceId, RoomId, Seq, SubmitId, UserId};
use tokio::sync::broadcast;

pub use account::{Device, Linking, Place, Registration, Seal, WhoAmI, World};
pub use error::Error;
pub use event::{Alarm, AlarmKind, Event};
pub use room::{
    Failure, Flag, Member, Message, MessageKey, RoomInfo, RoomOptions, RoomStatus, Stage, State,
};

use crate::inner::Inner;
use crate::store::{Account, Action, Store};

/// What this crate's functions return.
pub type Result<T> = std::result::Result<T, Error>;

/// One device. Cheap to clone; all clones share one store, which is let go when the last one is dropped.
///
/// A call that has begun runs to its end even if its caller stops waiting: a message is then written down or not, never half.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
    _owner: Arc<Owner>,
}

/// Ends the background work with the last [`Client`] and [`Running`].
struct Owner(Arc<Inner>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.stop.cancel();
    }
}

/// The background work of a [`Client`]. Dropping it changes nothing: the work goes on until the last [`Client`] is dropped.
pub struct Running {
    client: Client,
}

impl Running {
    /// Ends the background work and waits for it. The client can still read and write its store afterwards; nothing of what
    /// it writes is sent before it is opened and started again.
    pub async fn shutdown(self) {
        self.client.inner.stop.cancel();
        self.client.inner.tasks.close();
        self.client.inner.tasks.wait().await;
    }
}

impl Client {
    /// Runs on its own, so that a caller who holds the future without polling it holds nobody else up.
    async fn apart<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.inner.tasks.spawn(work).await.unwrap_or(Err(Error::Stopped))
    }

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
        enter::register(place, registration).await
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
        let nothing = || Error::NoAccount(place.dir.display().to_string());
        if !Store::exists(&place.dir) {
            return Err(nothing());
        }
        let mut store = Store::open(&place).await?;
        let account = store.tx().await?.account().await?;
        match account {
            Some(account) if account.token.is_some() => Self::assemble(store, account, place.world),
            _ => Err(nothing()),
        }
    }

    pub(crate) fn assemble(store: Store, account: Account, world: World) -> Result<Self> {
        let inner = Arc::new(Inner::new(store, account, world)?);
        Ok(Self { _owner: Arc::new(Owner(Arc::clone(&inner))), inner })
    }

    /// Makes this folder a further device of a person who has one already: `line` comes from [`Client::offer_link`]
    /// on that device and works for ten minutes. The new device then joins every room of the person.
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
        enter::link(place, linking).await
    }

    /// Brings the node's stock of this device's KeyPackages up to what it should be, so that others can invite this person
    /// from now on. The background work does it too; this is for a program that ends right after [`Client::register`].
    ///
    /// # Errors
    /// The node cannot be reached or refuses.
    pub async fn stock_up(&self) -> Result<()> {
        let inner = Arc::clone(&self.inner);
        self.apart(async move { engine::replenish(&inner).await }).await
    }

    /// Starts the background work: connect, receive, send, keep KeyPackages in stock. Call it once per opened client;
    /// a second call returns a handle to the same work.
    #[must_use]
    pub fn start(&self) -> Running {
        if self.inner.start_once() {
            self.inner.tasks.spawn(engine::run(Arc::clone(&self.inner)));
        }
        Running { client: self.clone() }
    }

    /// Waits until this device has taken in everything that its node had for it when this was called. Needs the background work, and
    /// waits for as long as that is not connected: the caller sets the time.
    ///
    /// # Errors
    /// The node cannot be reached or refuses now ([`Error::Unreachable`], [`Error::Refused`], [`Error::NodeKey`]), or the store fails.
    pub async fn caught_up(&self) -> Result<()> {
        arrears::settle(self).await
    }

    /// Who this device is and where its node is.
    #[must_use]
    pub fn whoami(&self) -> WhoAmI {
        self.inner.who.clone()
    }

    /// The person's devices, as the node lists them.
    ///
    /// # Errors
    /// The node cannot be reached or refuses.
    pub async fn devices(&self) -> Result<Vec<Device>> {
        let devices = self.inner.api.devices().await?.devices;
        let this = &self.inner.who.device;
        Ok(devices
            .into_iter()
            .map(|d| Device {
                this: d.device == *this,
                device: d.device,
                name: d.name,
                created: d.created,
                seen: d.seen,
                revoked: d.revoked,
            })
            .collect())
    }

    /// Revokes another device of this person at the node, at once, and queues its removal from every room.
    ///
    /// # Errors
    /// The node cannot be reached or refuses; the device is this one.
    pub async fn revoke_device(&self, device: &DeviceId) -> Result<()> {
        if *device == self.inner.who.device {
            return Err(Error::Invalid("a device cannot revoke itself; use another one"));
        }
        self.inner.api.revoke(&Revoke { device: device.clone() }).await?;
        let (inner, device) = (Arc::clone(&self.inner), device.clone());
        self.apart(async move { inner.work(async |work| engine::expel(work, &device).await).await })
            .await
    }

    /// Leaves a sealed offer for a new device at the node and returns the line to enter there. The line is a secret.
    ///
    /// # Errors
    /// The node cannot be reached or refuses.
    pub async fn offer_link(&self) -> Result<String> {
        let inner = Arc::clone(&self.inner);
        let offered = async move { inner.work(async |work| rooms::offered(work).await).await };
        let (rooms, pins) = self.apart(offered).await?;
        enter::offer(&self.inner.api, &self.inner.account, rooms, pins, &self.inner.world).await
    }

    /// Makes a room of this person alone. Durable at once; the node learns of it when it can be reached.
    ///
    /// # Errors
    /// The store fails.
    pub async fn create_room(&self, options: RoomOptions) -> Result<RoomId> {
        if options.name.as_ref().is_some_and(|name| name.len() > 256) {
            return Err(Error::Invalid("a room's name has at most 256 bytes"));
        }
        let inner = Arc::clone(&self.inner);
        self.apart(async move { inner.work(async |work| rooms::found(work, options).await).await })
            .await
    }

    /// The rooms this device is in, is joining or has left, by id.
    ///
    /// # Errors
    /// The store fails.
    pub async fn rooms(&self) -> Result<Vec<RoomInfo>> {
        let inner = Arc::clone(&self.inner);
        self.apart(async move { inner.work(async |work| rooms::list(work).await).await }).await
    }

    /// Asks for `user` to be added, with all devices, as a member. A durable command: follow it with
    /// [`Client::wait`]; it is [`Stage::Accepted`] when the room's hub has taken the commit.
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn invite(&self, room: &RoomId, user: &UserId) -> Result<SubmitId> {
        self.command(room, Action::Add(user.clone())).await
    }

    /// Asks for `user` to be removed, with all devices. A durable command, as [`Client::invite`].
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn remove(&self, room: &RoomId, user: &UserId) -> Result<SubmitId> {
        self.command(room, Action::Remove(user.clone())).await
    }

    /// Gives `user` another role. A durable command, as [`Client::invite`].
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn set_role(&self, room: &RoomId, user: &UserId, role: Role) -> Result<SubmitId> {
        self.command(room, Action::SetRole(user.clone(), role.index())).await
    }

    /// Leaves the room with all devices of this person. A durable command, as [`Client::invite`]; another member's
    /// client carries it out.
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn leave(&self, room: &RoomId) -> Result<SubmitId> {
        self.command(room, Action::Leave).await
    }

    async fn command(&self, room: &RoomId, action: Action) -> Result<SubmitId> {
        let (inner, room) = (Arc::clone(&self.inner), room.clone());
        self.apart(async move {
            inner.work(async |work| command::asked(work, &room, action).await).await
        })
        .await
    }

    /// Comes into a held room again by a new leaf, when waiting does not help ([`RoomStatus::Held`] says why it is held). What was
    /// written since the entry that holds it up is lost to this device, and shown as a gap; everybody sees that it came anew.
    ///
    /// # Errors
    /// The room is not held.
    pub async fn rejoin(&self, room: &RoomId) -> Result<SubmitId> {
        let (inner, room) = (Arc::clone(&self.inner), room.clone());
        self.apart(async move { inner.work(async |work| rooms::rejoin(work, &room).await).await })
            .await
    }

    /// Writes a text message into a room. When this returns, the message is durable on this device and is sent as soon
    /// as it can be, exactly once as far as anybody sees.
    ///
    /// # Errors
    /// The room is not one of this device's, or the text is longer than 64 KiB.
    pub async fn send(&self, room: &RoomId, text: &str) -> Result<SubmitId> {
        let (inner, room, text) = (Arc::clone(&self.inner), room.clone(), text.to_owned());
        self.apart(
            async move { inner.work(async |work| sender::write(work, &room, &text).await).await },
        )
        .await
    }

    /// Tries a failed message again, at its old place in the order.
    ///
    /// # Errors
    /// It is not a message of this device, or has not failed.
    pub async fn retry(&self, submit_id: &SubmitId) -> Result<()> {
        let (inner, id) = (Arc::clone(&self.inner), *submit_id);
        self.apart(async move { inner.work(async |work| sender::retry(work, &id).await).await })
            .await
    }

    /// The room that a message of this device is for.
    ///
    /// # Errors
    /// It is not a message of this device.
    pub async fn room_of(&self, submit_id: &SubmitId) -> Result<RoomId> {
        let (inner, id) = (Arc::clone(&self.inner), *submit_id);
        let row = async move { inner.core().await.read().await?.submission(&id).await };
        let row = self.apart(row).await?;
        row.map(|row| row.item.room).ok_or(Error::UnknownSubmission(*submit_id))
    }

    /// What became of a submission of this device.
    ///
    /// # Errors
    /// It is not one of this device's.
    pub async fn state(&self, submit_id: &SubmitId) -> Result<State> {
        let (inner, id) = (Arc::clone(&self.inner), *submit_id);
        self.apart(async move { inner.state(&id).await }).await
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
        let mut changes = self.inner.changes();
        let reached = async {
            loop {
                let state = self.state(submit_id).await?;
                if state.failed.is_some() || state.stage >= at_least {
                    return Ok(state);
                }
                changes.changed().await.map_err(|_| Error::Stopped)?;
            }
        };
        tokio::time::timeout(timeout, reached).await.unwrap_or(Err(Error::Timeout(timeout)))
    }

    /// Messages of a room in the timeline's order: the first `max` after the message `after`, or from the beginning.
    /// A message that comes late may be inserted before one that was returned already; [`Message::late`] says so.
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn timeline(
        &self,
        room: &RoomId,
        after: Option<MessageKey>,
        max: usize,
    ) -> Result<Vec<Message>> {
        let (inner, room) = (Arc::clone(&self.inner), room.clone());
        let page = async move { timeline::page(&mut *inner.core().await, &room, after, max).await };
        self.apart(page).await
    }

    /// The last `max` messages of a room in the timeline's order.
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn latest(&self, room: &RoomId, max: usize) -> Result<Vec<Message>> {
        let (inner, room) = (Arc::clone(&self.inner), room.clone());
        self.apart(async move { timeline::latest(&mut *inner.core().await, &room, max).await })
            .await
    }

    /// What happens from now on. A receiver that falls more than 1,024 events behind is told how many it missed and
    /// reads the timeline instead; nothing is lost there.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.listen()
    }

    /// Entries of a room that this device should have shown and never will: the first and the last seq of each range, and why.
    /// `None` is "it cannot be decrypted here".
    ///
    /// # Errors
    /// The room is not one of this device's.
    pub async fn gaps(&self, room: &RoomId) -> Result<Vec<(Seq, Seq, Option<GapReason>)>> {
        let (inner, room) = (Arc::clone(&self.inner), room.clone());
        self.apart(async move { timeline::gaps(&mut *inner.core().await, &room).await }).await
    }

    /// The number that this person and `user` compare over another channel: the same on both sides, or somebody is in between.
    ///
    /// # Errors
    /// This device has never met `user`.
    pub async fn safety_number(&self, user: &UserId) -> Result<String> {
        let (inner, whose) = (Arc::clone(&self.inner), user.clone());
        let pin = async move { inner.core().await.read().await?.pin(&whose).await };
        let pin = self.apart(pin).await?;
        let pin = pin.ok_or(Error::Invalid("this device has not met that person yet"))?;
        let who = &self.inner.who;
        let own = crypto::PublicKey::from_bytes(who.identity_key);
        let theirs = crypto::PublicKey::from_bytes(pin.key);
        Ok(crypto::safety_number((&who.user, &own), (user, &theirs)))
    }

    /// Accepts the other identity key that `user` showed ([`AlarmKind::IdentityChanged`]). Rooms held because of it go on.
    ///
    /// # Errors
    /// `user` has shown no other key.
    pub async fn accept_identity(&self, user: &UserId) -> Result<()> {
        let (inner, user) = (Arc::clone(&self.inner), user.clone());
        self.apart(async move { inner.work(async |work| trust::accept(work, &user).await).await })
            .await
    }
}
