//! A whole node, with people on it, on a disk that stalls and then fails.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use client::Seal;
use faults::vfs_disk::Disk;
use node::Node;
use node::clock::{SystemClock, SystemEntropy};
use node::config::{Config, Flags};
use node::error::Error;
use node::store::StoreError;
use protocol::RoomId;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tests::device::Device;
use tests::trouble::During as _;
use tests::{Outcome, Trouble, folder};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

/// A node that runs in this process.
struct Running {
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Result<(), Error>>,
}

impl Running {
    async fn start(config: &Path, address: SocketAddr) -> Outcome<Self> {
        let mut settings =
            Config::load(config, &Flags::default()).map_err(|e| Trouble::new(e.what))?;
        settings.listen.address = address;
        settings.public.host = "127.0.0.1".into();
        let node = Node::build(settings, Arc::new(SystemClock), Arc::new(SystemEntropy)).await?;
        let (stop, stopped) = oneshot::channel::<()>();
        let ended = tokio::spawn(node.run(async move { drop(stopped.await) }));
        Ok(Self { stop, ended })
    }

    async fn stop(self) -> Outcome<()> {
        drop(self.stop);
        Ok(self.ended.await??)
    }
}

/// Runs the operator's program.
async fn operate(config: &Path, args: &[&str], port: &str) -> Outcome<String> {
    let mut command = tokio::process::Command::new(folder::program("waxwing-node")?);
    command.arg("--config").arg(config).args(args);
    command.env("WAXWING_NODE_PUBLIC__HOST", "127.0.0.1");
    command.env("WAXWING_NODE_PUBLIC__PORT", port);
    let output = command.output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    let line = output.status.success().then(|| String::from_utf8_lossy(&output.stdout));
    Ok(line.during(said)?.trim().to_owned())
}

/// A folder with a node that was set up in it, and an address that is free.
struct Place {
    folder: tempfile::TempDir,
    config: PathBuf,
    data: PathBuf,
    address: SocketAddr,
}

impl Place {
    async fn make(name: &str) -> Outcome<Self> {
        let folder = folder::temporary(name)?;
        let (config, data) = (folder.path().join("node.toml"), folder.path().join("data"));
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let told = data.display().to_string();
        operate(&config, &["init", "--domain", "a.example", "--data-dir", &told], "1").await?;
        Ok(Self { folder, config, data, address })
    }

    async fn start(&self) -> Outcome<Running> {
        Running::start(&self.config, self.address).await
    }

    /// A new person.
    async fn person(&self, name: &str) -> Outcome<Device> {
        let port = self.address.port().to_string();
        let line = operate(&self.config, &["invite", "create"], &port).await?;
        Device::register(&self.folder.path().join(name), Seal::Unsealed, &line, name).await
    }
}

const LIMIT: Duration = Duration::from_secs(20);

/// A room of both, and how many items it shows.
async fn room_of(ana: &Device, bea: &Device) -> Outcome<(RoomId, usize)> {
    let room = ana.create_room("room").await?;
    ana.invite(&room, bea.user()).await?;
    bea.until_active(&room).await?;
    let count = bea.count(&room).await?;
    Ok((room, count))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_waits_for_a_slow_disk_ends_on_a_failed_one_and_loses_nothing() -> Outcome<()> {
    let place = Place::make("node-trouble").await?;
    let disk = Disk::under(&place.data)?;
    let node = place.start().await?;
    let (ana, bea) = (place.person("ana").await?, place.person("bea").await?);
    let (room, before) = room_of(&ana, &bea).await?;

    // A stall: late, and nothing worse.
    disk.stall(Duration::from_secs(5));
    let begun = Instant::now();
    for n in 0..20 {
        ana.send(&room, &format!("stalled {n}")).await?;
    }
    ana.until_all_accepted(LIMIT).await?;
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    bea.until_count(&room, before + 20, LIMIT).await?;

    // A failure: the node ends, and says why.
    disk.fail_sync(1);
    for n in 0..20 {
        ana.send(&room, &format!("failed {n}")).await?;
    }
    let ended = timeout(LIMIT, node.ended).await.during("the node ends by itself")??;
    assert!(matches!(ended, Err(Error::Store(StoreError::Broken))), "{ended:?}");
    drop(node.stop);
    assert_eq!((disk.injected().failed_syncs, disk.injected().stalls), (1, 1));

    // Started again it has everything, once.
    let node = place.start().await?;
    ana.until_all_accepted(LIMIT).await?;
    bea.until_count(&room, before + 40, LIMIT).await?;
    assert_eq!(bea.count(&room).await?, before + 40);
    node.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_entry_holds_up_its_room_and_no_other() -> Outcome<()> {
    let place = Place::make("node-damaged").await?;
    let node = place.start().await?;
    let (ana, mut bea) = (place.person("ana").await?, place.person("bea").await?);
    let (bad, bad_count) = room_of(&ana, &bea).await?;
    let (good, good_count) = room_of(&ana, &bea).await?;
    bea.go_offline().await;
    for n in 0..10 {
        ana.send(&bad, &format!("bad {n}")).await?;
        ana.send(&good, &format!("good {n}")).await?;
    }
    ana.until_all_accepted(LIMIT).await?;
    node.stop().await?;

    // The fourth from the end: six before it can still be given out.
    let file = place.data.join("node.db");
    let mut db = SqliteConnectOptions::new().filename(file).connect().await?;
    let (log, seq, mut body): (i64, i64, Vec<u8>) = sqlx::query_as(
        "SELECT log_id, seq, body FROM entry JOIN log ON log.id = log_id \
         WHERE log.kind = 'room' AND log.name = $1 AND seq = head - 3",
    )
    .bind(bad.as_str())
    .fetch_one(&mut db)
    .await?;
    *body.last_mut().during("a byte")? ^= 1;
    let damaged = sqlx::query("UPDATE entry SET body = $1 WHERE log_id = $2 AND seq = $3");
    damaged.bind(body).bind(log).bind(seq).execute(&mut db).await?;
    db.close().await?;

    let node = place.start().await?;
    bea.go_online().await?;
    bea.until_count(&good, good_count + 10, LIMIT).await?;
    bea.until_count(&bad, bad_count + 6, LIMIT).await?;
    // It stays so when more comes.
    ana.send(&bad, "more").await?;
    ana.send(&good, "more").await?;
    ana.until_all_accepted(LIMIT).await?;
    bea.until_count(&good, good_count + 11, LIMIT).await?;
    assert_eq!(bea.count(&bad).await?, bad_count + 6);
    node.stop().await
}
