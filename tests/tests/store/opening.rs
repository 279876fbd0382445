//! Opening a database: of another version, and on a full disk.

use std::fs;
use std::path::Path;

use node::store::disk::{self, Ballast};
use node::store::logs::{self, LogName};
use node::store::{Location, Older, Options, Store, StoreError};
use sqlx::Connection as _;

use crate::harness::{
    Counting, Db, Still, chain, domain, entry, log_with, on_both, read, room, seq, write,
};

/// Pretends that a newer program was here.
async fn raise_schema(location: &Location) {
    const SQL: &str = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
        SELECT 4711, 'from the future', success, checksum, 1 FROM _sqlx_migrations WHERE version = 1";
    match location {
        Location::Sqlite(path) => {
            let url = format!("sqlite://{}", path.display());
            let mut c = sqlx::SqliteConnection::connect(&url).await.unwrap();
            sqlx::query(SQL).execute(&mut c).await.unwrap();
            c.close().await.unwrap();
        }
        Location::Postgres(url) => {
            let mut c = sqlx::PgConnection::connect(url).await.unwrap();
            sqlx::query(SQL).execute(&mut c).await.unwrap();
            c.close().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    on_both(async |db| {
        db.open().await.close().await;
        raise_schema(&db.location).await;
        let bytes = |db: &Db| match &db.location {
            Location::Sqlite(path) => fs::read(path).unwrap(),
            Location::Postgres(_) => Vec::new(),
        };
        let before = bytes(db);
        for _ in 0..2 {
            let refused = db.try_open(db.options()).await.err().unwrap();
            assert!(
                matches!(refused, StoreError::NewerSchema { found: 4711, known: 1 }),
                "{refused}"
            );
            assert!(
                refused
                    .to_string()
                    .starts_with("the database has schema 4711, this program knows only up to 1")
            );
        }
        assert!(bytes(db) == before);
    })
    .await;
}

#[tokio::test]
async fn an_older_schema_is_left_alone_where_a_node_may_run_on_it() {
    on_both(async |db| {
        // As old as can be: nothing was ever made in it.
        if let Location::Sqlite(path) = &db.location {
            fs::write(path, "").unwrap();
        }
        let careful = || Options { older: Older::Refuse, ..db.options() };
        for _ in 0..2 {
            let refused = db.try_open(careful()).await.err().unwrap();
            assert!(matches!(refused, StoreError::OlderSchema { found: 0, known: 1 }), "{refused}");
            if let Location::Sqlite(path) = &db.location {
                assert_eq!(fs::read(path).unwrap(), b"");
            }
        }
        db.open().await.close().await;
        db.try_open(careful()).await.unwrap().close().await;
    })
    .await;
}

async fn open(options: Options) -> Result<Store, StoreError> {
    Store::open(options, &Still(1), &Counting::default()).await
}

/// A file system of 80 MiB, where this machine lets us have one.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=80m", "tmpfs"])
            .arg(folder.path())
            .output()
            .is_ok_and(|out| out.status.success());
        mounted.then_some(Self(folder))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        std::process::Command::new("umount").arg(self.path()).status().unwrap();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_the_ballast_gives_room_to_drain() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: full disk (cannot mount a small file system)");
        return;
    };
    let path = disk.path().join("node.db");
    let options = Options {
        create: true,
        ..Options::new(Location::Sqlite(path.clone()), domain("a.example"))
    };
    let store = open(options.clone()).await.unwrap();
    let log = log_with(&store, LogName::Room(room("x")), 0).await;
    let ballast = Ballast::beside(&path, 0);
    ballast.build().unwrap();
    assert!(disk::free_bytes(disk.path()).unwrap() < 16 << 20);
    let append = async |n: u64| {
        store
            .write::<_, StoreError, _>(move |tx| {
                Box::pin(async move { logs::append(tx, log, &[entry(n, 200_000)]).await })
            })
            .await
    };
    let mut stored = 0;
    let failed = loop {
        match append(stored + 1).await {
            Ok(()) => stored += 1,
            Err(e) => break e,
        }
        assert!(stored < 1_000, "the disk never gets full");
    };
    assert!(matches!(failed, StoreError::Full), "{failed}");
    assert!(matches!(append(stored + 1).await, Err(StoreError::Full)));
    let head = read!(store, tx => logs::get(tx, log).await).head;
    assert_eq!(head, seq(stored), "what was answered is there, what was refused is not");

    ballast.free().unwrap();
    let trimmed = write!(store, tx => {
        let log = logs::get(tx, log).await?;
        logs::trim(tx, &log, seq(stored)).await
    });
    assert_eq!(trimmed.entries, stored);
    append(stored + 1).await.unwrap();
    let log_row = read!(store, tx => logs::get(tx, log).await);
    assert_eq!((log_row.head, log_row.chain), (seq(stored + 1), chain(stored + 1)));
    store.close().await;
    let store = open(options).await.unwrap();
    assert_eq!(read!(store, tx => logs::get(tx, log).await).head, seq(stored + 1));
    store.close().await;
}

/// Writes until not one byte more fits.
fn brim(folder: &Path) {
    let mut file = fs::File::create(folder.join("filler")).unwrap();
    for size in [1 << 20, 4096, 1] {
        let block = vec![b'x'; size];
        while std::io::Write::write_all(&mut file, &block).is_ok() {}
    }
}

#[tokio::test]
async fn a_disk_without_a_free_byte_is_told_when_the_database_is_opened() {
    let Some(disk) = SmallDisk::mount() else {
        println!("skipped: opening on a full disk (cannot mount a small file system)");
        return;
    };
    let path = disk.path().join("node.db");
    let options = Options {
        create: true,
        ..Options::new(Location::Sqlite(path.clone()), domain("a.example"))
    };
    let store = open(options.clone()).await.unwrap();
    log_with(&store, LogName::Room(room("x")), 3).await;
    store.close().await;
    let ballast = Ballast::beside(&path, 0);
    ballast.build().unwrap();
    brim(disk.path());
    let before = fs::read(&path).unwrap();
    let refused = open(options.clone()).await.err().unwrap();
    assert!(matches!(refused, StoreError::Full), "{refused}");
    assert!(fs::read(&path).unwrap() == before);
    ballast.free().unwrap();
    let store = open(options).await.unwrap();
    let log = read!(store, tx => logs::find(tx, &LogName::Room(room("x"))).await).unwrap();
    assert_eq!(log.head, seq(3));
    store.close().await;
}
