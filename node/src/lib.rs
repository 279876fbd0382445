//! The node: HTTP, services, SQL, workers. It stores, orders and forwards sealed messages and never holds a key that opens one.
//!
//! | module | holds |
//! |---|---|
//! | [`config`], [`command`], [`telemetry`], [`clock`] | the program around it |
//! | `http` | the listener and the routes; handlers decode, call one service, encode |
//! | `accounts`, `devices`, `keys`, `rooms`, `reading`, `pairing` | services: functions over the shared state |
//! | `stream`, `wake` | pushing to devices that are connected |
//! | `worker` | lanes to peers, retention, the disk watch |
//! | [`store`] | SQL |

mod accounts;
mod app;
pub mod clock;
pub mod command;
pub mod config;
mod devices;
pub mod error;
mod folder;
mod http;
mod inbox;
mod keys;
mod life;
mod nodekey;
mod pairing;
mod quota;
mod reading;
mod rooms;
pub mod store;
mod stream;
pub mod telemetry;
mod wake;
mod worker;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use protocol::{Clock, Entropy};
use tokio::net::TcpListener;

use crate::app::{App, Parts};
use crate::config::Config;
use crate::error::Error;
use crate::folder::Held;
use crate::http::listen::{Server, Tls};
use crate::nodekey::NodeKeys;
use crate::store::disk::Ballast;
use crate::store::{Location, Options, Store, StoreError};
use crate::wake::Wakes;

/// A node, ready to run. Several may live in one process, each with its own data.
pub struct Node {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
    held: Held,
}

impl Node {
    /// Opens the database, reads the keys and binds the port.
    ///
    /// # Errors
    /// When one of them cannot be had; [`Error::Running`] when a node runs on the data directory.
    pub async fn build(
        config: Config,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
    ) -> Result<Self, Error> {
        let domain = config.domain().map_err(|e| Error::Config(e.to_string()))?;
        let held = Held::take(&config.data_dir).await?;
        let keys = NodeKeys::load(&config.data_dir, &domain, entropy.as_ref(), clock.now())?;
        let wakes = Arc::new(Wakes::default());
        let told = wakes.clone();
        let options = Options {
            subscriber: Arc::new(move |wake| told.wake(wake)),
            ..Options::new(location(&config), domain.clone())
        };
        let store = open(options, clock.as_ref(), entropy.as_ref()).await?;
        let incarnation = life::begin(&store, &config.data_dir, entropy.as_ref()).await?;
        let wanted = config.listen.address;
        let bound = TcpListener::bind(wanted).await;
        let listener = bound.map_err(Error::io(format!("cannot listen on {wanted}")))?;
        let address = listener.local_addr().map_err(Error::io("the listener's address"))?;
        // A node that was killed left its address behind; it must not be taken for ours.
        let _none = std::fs::remove_file(config.data_dir.join("address"));
        let parts = Parts { config, domain, incarnation, store, clock, entropy, keys, wakes };
        let app = Arc::new(App::new(parts));
        app.set_port(address.port());
        Ok(Self { app, listener, address, held })
    }

    /// The address that it listens on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` ends or the disk fails under the database, then finishes what is under way, for at most ten seconds.
    ///
    /// # Errors
    /// When it cannot start; [`StoreError::Broken`] when the disk failed.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<(), Error> {
        let Self { app, listener, address, held } = self;
        let tls = Tls::new(app.clone());
        tls.acceptor()?;
        let server = Server {
            tls,
            router: http::router(app.clone()),
            limits: app.config.limits.clone(),
            clock: app.clock.clone(),
        };
        start_workers(&app);
        let stop = app.stop.clone();
        let serving = tokio::spawn(server.run(listener, stop.clone()));
        let file = app.config.data_dir.join("address");
        match write_address(&file, address) {
            // Whoever chose the port knows it; a full disk must not keep the node from giving out what it has.
            Err(error) if app.config.listen.address.port() != 0 => {
                tracing::warn!(%error, "`status` will not say where the node listens");
            }
            written => written?,
        }
        tracing::info!(domain = %app.domain, %address, "the node is ready");
        let broken = tokio::select! {
            () = shutdown => false,
            // What the system holds in memory of the files is not what is on the disk now: only a new start reads what is there.
            () = app.store.failed() => true,
        };
        tracing::info!(broken, "stopping");
        stop.cancel();
        app.tasks.close();
        let drained = tokio::time::timeout(DRAIN, async {
            serving.await?;
            app.tasks.wait().await;
            Ok::<(), Error>(())
        });
        if let Ok(ended) = drained.await {
            ended?;
        } else {
            tracing::warn!("some tasks did not end in time");
        }
        if let Err(error) = life::tick(&app.store, &app.config.data_dir).await {
            tracing::warn!(%error, "how long this life lasted could not be noted");
        }
        app.store.close().await;
        // Whoever looks for the node finds out that it is gone; if the file is gone already, that is the same.
        let _gone = std::fs::remove_file(&file);
        drop(held);
        tracing::info!("stopped");
        if broken { Err(StoreError::Broken.into()) } else { Ok(()) }
    }
}

/// Opens the database. Without a free byte it cannot be opened, and what it holds could not be given out: then the ballast is given up.
async fn open(
    options: Options,
    clock: &dyn Clock,
    entropy: &dyn Entropy,
) -> Result<Store, StoreError> {
    let opened = Store::open(options.clone(), clock, entropy).await;
    let (Err(StoreError::Full), Location::Sqlite(file)) = (&opened, &options.location) else {
        return opened;
    };
    let ballast = Ballast::beside(file, 0);
    if !ballast.path().exists() {
        return opened;
    }
    ballast.free()?;
    tracing::error!(
        "the disk is full: the ballast was given up so that the node can start; free some space"
    );
    Store::open(options, clock, entropy).await
}

const DRAIN: Duration = Duration::from_secs(10);

fn start_workers(app: &Arc<App>) {
    app.tasks.spawn(worker::carrier::run(app.clone()));
    app.tasks.spawn(worker::expiry::run(app.clone()));
    app.tasks.spawn(worker::expiry::tick(app.clone()));
    if let Location::Sqlite(file) = location(&app.config) {
        app.tasks.spawn(worker::expiry::watch_disk(app.clone(), file));
    }
    let (starting, stop) = (app.clone(), app.stop.clone());
    app.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = worker::greet::run(starting) => {}
        }
    });
}

/// The database that the configuration names.
fn location(config: &Config) -> Location {
    let url = &config.database.url;
    if url.starts_with("postgres") {
        return Location::Postgres(url.clone());
    }
    let file = match url.strip_prefix("sqlite://") {
        Some(path) => PathBuf::from(path),
        None => config.data_dir.join("node.db"),
    };
    Location::Sqlite(file)
}

/// Says where the node listens, whole or not at all.
fn write_address(file: &Path, address: SocketAddr) -> Result<(), Error> {
    let failed = |e| Error::io(format!("{} cannot be written", file.display()))(e);
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, format!("{address}\n")).map_err(failed)?;
    std::fs::rename(&fresh, file).map_err(failed)
}
