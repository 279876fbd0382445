//! The state that everything works on, and the transaction around each piece of work.
//!
//! A [`Work`] is one transaction over rows *and* over what is kept in memory beside them (MLS groups, the outbox, commands).
//! If it is not committed, whatever the reason (an error, a caller that stopped waiting), nothing in memory is trusted any
//! more: the next one starts from the rows. So memory never runs ahead of the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crypto::{DeviceIdentity, Group};
use delivery::clock::Calibration;
use delivery::outbox::{Item, Outbox};
use protocol::{DeviceId, Epoch, RoomId, Seq, SubmitId, Timestamp, UserId};

use crate::store::{Account, CommandRow, RoomNo, RoomRow, Store, Tx};
use crate::{Error, Event, Result, World};

/// MLS groups kept in memory. More are loaded from rows when needed.
const GROUPS: usize = 64;
/// Entries that a connected node has not pushed within this time, although it was asked for them, are not going to come.
const STILL_MAX: Duration = Duration::from_secs(30);

/// What one device works with.
pub(crate) struct Core {
    store: Store,
    identity: DeviceIdentity,
    world: World,
    groups: BTreeMap<RoomNo, Group>,
    outbox: Outbox,
    /// Commands that have not ended, by position.
    commands: BTreeMap<u64, CommandRow>,
    /// Messages whose turn has come but which cannot be encrypted yet.
    postponed: BTreeSet<SubmitId>,
    /// Rooms whose hub is known to be in a later epoch than this device.
    behind: BTreeMap<RoomId, Epoch>,
    /// Rooms whose next entries are waited for: after which entry, and since when on this connection.
    still: BTreeMap<RoomId, (Seq, Timestamp)>,
    /// When rooms were entered anew by themselves.
    recovered: BTreeMap<RoomId, Timestamp>,
    online: bool,
    unsure: bool,
    /// The node's time, as far as this device knows it.
    pub(crate) calibration: Calibration,
    /// Other devices of this person that are not revoked, as the node listed them last.
    pub(crate) siblings: Vec<DeviceId>,
    /// The key with which the own node acts as a hub.
    pub(crate) hub_key: [u8; 32],
}

/// One transaction. See the module.
pub(crate) struct Work<'a> {
    pub(crate) tx: Tx<'a>,
    pub(crate) identity: &'a DeviceIdentity,
    pub(crate) world: &'a World,
    pub(crate) outbox: &'a mut Outbox,
    pub(crate) commands: &'a mut BTreeMap<u64, CommandRow>,
    pub(crate) postponed: &'a mut BTreeSet<SubmitId>,
    pub(crate) behind: &'a mut BTreeMap<RoomId, Epoch>,
    still: &'a mut BTreeMap<RoomId, (Seq, Timestamp)>,
    pub(crate) recovered: &'a mut BTreeMap<RoomId, Timestamp>,
    pub(crate) calibration: &'a Calibration,
    pub(crate) siblings: &'a [DeviceId],
    pub(crate) hub_key: [u8; 32],
    /// Whether somebody has to look for something to do.
    pub(crate) nudge: bool,
    /// What to tell once it is durable.
    pub(crate) events: Vec<Event>,
    groups: &'a mut BTreeMap<RoomNo, Group>,
    touched: BTreeSet<RoomNo>,
    unsure: &'a mut bool,
}

/// What follows from a work that is durable.
#[must_use]
pub(crate) struct Committed {
    /// What to tell.
    pub(crate) events: Vec<Event>,
    /// Whether somebody has to look for something to do.
    pub(crate) nudge: bool,
}

impl Core {
    pub(crate) fn new(store: Store, account: &Account, world: World) -> Result<Self> {
        Ok(Self {
            store,
            identity: account.device_identity()?,
            world,
            groups: BTreeMap::new(),
            outbox: Outbox::default(),
            commands: BTreeMap::new(),
            postponed: BTreeSet::new(),
            behind: BTreeMap::new(),
            still: BTreeMap::new(),
            recovered: BTreeMap::new(),
            online: false,
            // The rows are read with the first work.
            unsure: true,
            calibration: Calibration::default(),
            siblings: Vec::new(),
            hub_key: account.hub_key,
        })
    }

    /// Begins a piece of work.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn begin(&mut self) -> Result<Work<'_>> {
        if self.unsure {
            self.reload().await?;
        }
        while self.groups.len() > GROUPS {
            self.groups.pop_first();
        }
        self.unsure = true;
        let tx = self.store.tx().await?;
        Ok(Work {
            tx,
            identity: &self.identity,
            world: &self.world,
            outbox: &mut self.outbox,
            commands: &mut self.commands,
            postponed: &mut self.postponed,
            behind: &mut self.behind,
            still: &mut self.still,
            recovered: &mut self.recovered,
            calibration: &self.calibration,
            siblings: &self.siblings,
            hub_key: self.hub_key,
            nudge: false,
            events: Vec::new(),
            groups: &mut self.groups,
            touched: BTreeSet::new(),
            unsure: &mut self.unsure,
        })
    }

    /// Begins to read. Nothing may be written through it.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn read(&mut self) -> Result<Tx<'_>> {
        if self.unsure {
            self.reload().await?;
        }
        self.store.tx().await
    }

    /// Tells the outbox whether the node can be reached.
    pub(crate) fn set_online(&mut self, online: bool) {
        self.online = online;
        self.still.clear();
        // Rows say "being sent" or not; both are sent again as they are after a restart, so nothing needs writing.
        self.outbox.online(online);
    }

    /// A message that is on its way.
    pub(crate) fn item(&self, id: &SubmitId) -> Option<&Item> {
        self.outbox.get(id)
    }

    /// Commands that have not ended, by position.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn commands(&mut self) -> Result<&BTreeMap<u64, CommandRow>> {
        if self.unsure {
            self.reload().await?;
        }
        Ok(&self.commands)
    }

    /// What the node had stored may be lost: it lives another life.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn node_restored(&mut self) -> Result<()> {
        let mut work = self.begin().await?;
        work.unstore(None).await?;
        work.commit().await.map(|_| ())
    }

    async fn reload(&mut self) -> Result<()> {
        let mut tx = self.store.tx().await?;
        let items = tx.live_submissions().await?;
        let commands = tx.live_commands().await?;
        drop(tx);
        self.groups.clear();
        self.outbox = Outbox::new(items.into_iter().map(|row| row.item));
        self.outbox.online(self.online);
        self.commands = commands.into_iter().map(|c| (c.position, c)).collect();
        self.postponed.clear();
        self.unsure = false;
        Ok(())
    }
}

impl Work<'_> {
    /// Makes it durable; what to tell.
    ///
    /// # Errors
    /// The disk's; nothing happened then.
    pub(crate) async fn commit(mut self) -> Result<Committed> {
        for no in &self.touched {
            if let Some(group) = self.groups.get_mut(no) {
                let writes = group.writes();
                self.tx.write_group(*no, &writes).await?;
            }
        }
        self.tx.commit().await?;
        *self.unsure = false;
        Ok(Committed { events: self.events, nudge: self.nudge })
    }

    /// The device's own time, now.
    pub(crate) fn now(&self) -> Timestamp {
        self.world.clock.now()
    }

    /// This device's person.
    pub(crate) fn user(&self) -> UserId {
        self.identity.device().user()
    }

    /// A room this device knows.
    ///
    /// # Errors
    /// [`Error::UnknownRoom`].
    pub(crate) async fn room(&mut self, room: &RoomId) -> Result<RoomRow> {
        self.tx.room(room).await?.ok_or_else(|| Error::UnknownRoom(room.clone()))
    }

    /// Takes a room's group out to work on it; [`Self::put_group`] gives it back.
    ///
    /// # Errors
    /// [`Error::Corrupt`] when there is none, or the disk's.
    pub(crate) async fn take_group(&mut self, no: RoomNo) -> Result<Group> {
        if let Some(group) = self.groups.remove(&no) {
            return Ok(group);
        }
        let rows = self.tx.group_rows(no).await?;
        if rows.is_empty() {
            return Err(Error::Corrupt { table: "group_row" });
        }
        Group::load(rows, self.identity.clone()).map_err(Error::crypto)
    }

    /// Gives a group back; what changed in it is written with this work.
    pub(crate) fn put_group(&mut self, no: RoomNo, group: Group) {
        self.groups.insert(no, group);
        self.touched.insert(no);
    }

    /// Forgets a room's MLS state.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn drop_group(&mut self, no: RoomNo) -> Result<()> {
        self.groups.remove(&no);
        self.touched.remove(&no);
        self.tx.drop_group(no).await
    }

    /// Writes a command, in rows and in memory.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn put_command(&mut self, command: CommandRow) -> Result<()> {
        self.tx.put_command(&command).await?;
        self.nudge = true;
        if command.ended() {
            self.commands.remove(&command.position);
        } else {
            self.commands.insert(command.position, command);
        }
        Ok(())
    }

    /// Whether nothing after `seq` of a room has come for so long that it is not going to. The first question starts the time.
    pub(crate) fn stands_still(&mut self, room: &RoomId, seq: Seq) -> bool {
        let now = self.now();
        match self.still.get(room) {
            Some((at, since)) if *at == seq => now >= since.after(STILL_MAX),
            _ => {
                self.still.insert(room.clone(), (seq, now));
                false
            }
        }
    }

    /// What became of whatever is stored, for one room or for all, is not known: it is handed in again, under the same names.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) async fn unstore(&mut self, room: Option<&RoomId>) -> Result<()> {
        let items = match room {
            Some(room) => self.outbox.hub_restored(room),
            None => self.outbox.node_restored(),
        };
        for item in items {
            self.tx.put_item(&item).await?;
        }
        let of_it = |c: &&CommandRow| c.stored && room.is_none_or(|room| c.room == *room);
        let stored: Vec<CommandRow> = self.commands.values().filter(of_it).cloned().collect();
        for command in stored {
            self.put_command(CommandRow { stored: false, ..command }).await?;
        }
        self.nudge = true;
        Ok(())
    }

    /// Something in a room changed: messages that could not be encrypted may try again.
    pub(crate) fn reconsider(&mut self) {
        self.nudge = true;
        let now = self.world.clock.now();
        for id in std::mem::take(self.postponed) {
            self.outbox.postpone(&id, now);
        }
    }
}
