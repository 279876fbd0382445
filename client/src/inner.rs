//! What all clones of a client share.

use std::sync::atomic::{AtomicBool, Ordering};

use protocol::SubmitId;
use tokio::sync::{Mutex, MutexGuard, Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::core::{Core, Work};
use crate::net::Dialler;
use crate::room::State;
use crate::store::{Account, Store};
use crate::{Error, Event, Result, WhoAmI, World, command, sender};

/// Events kept for a listener that is slow.
const EVENTS: usize = 1_024;

/// See the module.
pub(crate) struct Inner {
    pub(crate) who: WhoAmI,
    pub(crate) account: Account,
    pub(crate) token: String,
    pub(crate) api: Api,
    pub(crate) dialler: Dialler,
    pub(crate) world: World,
    core: Mutex<Core>,
    events: broadcast::Sender<Event>,
    changes: watch::Sender<u64>,
    taken: watch::Sender<u64>,
    /// Something may have to go out on the stream.
    pub(crate) wake: Notify,
    /// A command may have to be carried out.
    pub(crate) commands: Notify,
    /// KeyPackages may have to be made.
    pub(crate) replenish: Notify,
    /// The background work is to end.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    started: AtomicBool,
}

impl Inner {
    pub(crate) fn new(store: Store, account: Account, world: World) -> Result<Self> {
        let node = account.node();
        let token = account.token.clone().ok_or(Error::Corrupt { table: "account" })?;
        let dialler = Dialler::new(node.clone(), &world.clock)?;
        let who = WhoAmI {
            user: account.user.clone(),
            device: account.device.clone(),
            device_name: account.device_name.clone(),
            node: node.domain,
            host: node.host,
            port: node.port,
            node_key: node.node_key,
            identity_key: *account.identity().public().as_bytes(),
        };
        Ok(Self {
            who,
            api: Api::new(dialler.clone(), Some(token.clone())),
            token,
            dialler,
            core: Mutex::new(Core::new(store, &account, world.clone())?),
            account,
            world,
            events: broadcast::Sender::new(EVENTS),
            changes: watch::Sender::new(0),
            taken: watch::Sender::new(0),
            wake: Notify::new(),
            commands: Notify::new(),
            replenish: Notify::new(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            started: AtomicBool::new(false),
        })
    }

    /// Whether this is the first call.
    pub(crate) fn start_once(&self) -> bool {
        !self.started.swap(true, Ordering::SeqCst)
    }

    pub(crate) async fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().await
    }

    /// Does a piece of work in one transaction, then tells what happened. No network is waited for in between.
    ///
    /// # Errors
    /// The work's, or the disk's. Nothing happened then.
    pub(crate) async fn work<T, F>(&self, work: F) -> Result<T>
    where
        F: AsyncFnOnce(&mut Work<'_>) -> Result<T>,
    {
        let mut core = self.core.lock().await;
        let mut begun = core.begin().await?;
        let value = work(&mut begun).await?;
        let done = begun.commit().await?;
        drop(core);
        for event in done.events {
            self.tell(event);
        }
        if done.nudge {
            self.wake.notify_one();
            self.commands.notify_one();
        }
        Ok(value)
    }

    pub(crate) fn tell(&self, event: Event) {
        if let Event::StateChanged { .. } = event {
            self.changes.send_modify(|n| *n = n.wrapping_add(1));
        }
        // Nobody listening is no failure.
        if self.events.send(event).is_err() {
            tracing::trace!("nobody listens");
        }
    }

    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Moves whenever a submission moved on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Entries were taken in, or it was written down why not.
    pub(crate) fn took_in(&self) {
        self.taken.send_modify(|n| *n = n.wrapping_add(1));
    }

    /// Moves whenever entries were taken in.
    pub(crate) fn taken(&self) -> watch::Receiver<u64> {
        self.taken.subscribe()
    }

    /// How far a submission is.
    ///
    /// # Errors
    /// [`Error::UnknownSubmission`], or the disk's.
    pub(crate) async fn state(&self, id: &SubmitId) -> Result<State> {
        let mut core = self.core.lock().await;
        let mut tx = core.read().await?;
        if let Some(submission) = tx.submission(id).await? {
            drop(tx);
            // The machine is ahead of the row while something is on its way.
            return Ok(sender::state(core.item(id).unwrap_or(&submission.item)));
        }
        match tx.command(id).await? {
            Some(command) => Ok(command::state(&command)),
            None => Err(Error::UnknownSubmission(*id)),
        }
    }
}
