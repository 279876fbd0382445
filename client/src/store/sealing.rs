//! The key of the store, and sealing under it.

use std::io::{Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use crypto::seal::{SALT_BYTES, SealKey};
use minicbor::{Decode, Encode};
use protocol::Entropy;
use protocol::log::Digest;
use sqlx::{Row as _, SqliteConnection};
use zeroize::Zeroizing;

use super::file_error;
use crate::{Error, Place, Result, Seal};

pub(super) const KEY_FILE: &str = "seal.key";
const PROBE: &[u8] = b"waxwing store 1";

/// Seals values, or leaves them as they are in a store that its owner wanted unsealed.
pub(super) struct Sealer {
    key: Option<SealKey>,
    tags: Zeroizing<[u8; 32]>,
    entropy: Arc<dyn Entropy>,
}

impl Sealer {
    fn new(key: Option<SealKey>, entropy: Arc<dyn Entropy>) -> Self {
        let tags = key
            .as_ref()
            .map(|k| *SealKey::from_secret(k.as_bytes(), "store tags").as_bytes())
            .unwrap_or_default();
        Self { key, tags: Zeroizing::new(tags), entropy }
    }

    /// Seals `value` for the row `row` of `table`.
    pub(super) fn seal(&self, table: &str, row: &[u8], value: &[u8]) -> Vec<u8> {
        match &self.key {
            None => value.to_vec(),
            Some(key) => key.seal(&context(table, row), value, &*self.entropy),
        }
    }

    /// Opens what [`Self::seal`] made for the same row.
    pub(super) fn open(
        &self,
        table: &'static str,
        row: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>> {
        match &self.key {
            None => Ok(Zeroizing::new(sealed.to_vec())),
            Some(key) => {
                key.open(&context(table, row), sealed).map_err(|_| Error::Corrupt { table })
            }
        }
    }

    /// Seals the encoding of `value`.
    pub(super) fn put<T: Encode<()>>(&self, table: &str, row: &[u8], value: &T) -> Vec<u8> {
        let plain = Zeroizing::new(protocol::api::encode(value));
        self.seal(table, row, &plain)
    }

    /// Opens and decodes.
    pub(super) fn get<T: for<'b> Decode<'b, ()>>(
        &self,
        table: &'static str,
        row: &[u8],
        sealed: &[u8],
    ) -> Result<T> {
        let plain = self.open(table, row, sealed)?;
        protocol::api::decode(&plain).map_err(|_| Error::Corrupt { table })
    }

    /// The keyed hash under which the row of `name` is found.
    pub(super) fn tag(&self, table: &str, name: &[u8]) -> [u8; 32] {
        let mut input = Zeroizing::new(self.tags.to_vec());
        input.extend(context(table, name));
        *Digest::of_bytes(&input).as_bytes()
    }
}

fn context(table: &str, row: &[u8]) -> Vec<u8> {
    [table.as_bytes(), &[0], row].concat()
}

/// The sealer of a store: from its `store` row, or for a new store from what `place` wants.
pub(super) async fn open(conn: &mut SqliteConnection, place: &Place) -> Result<Sealer> {
    let row = sqlx::query("SELECT seal, salt, probe FROM store WHERE id = 1");
    let Some(row) = row.fetch_optional(&mut *conn).await? else {
        return create(conn, place).await;
    };
    let salt: Vec<u8> = row.try_get("salt")?;
    let probe: Vec<u8> = row.try_get("probe")?;
    if row.try_get::<i64, _>("seal")? != kind(&place.seal) {
        return Err(Error::WrongSeal);
    }
    let key = match &place.seal {
        Seal::Unsealed => None,
        Seal::Passphrase(phrase) => Some(derive(phrase.clone(), salt).await?),
        Seal::KeyFile => Some(read_key(&place.dir.join(KEY_FILE))?),
    };
    let sealer = Sealer::new(key, Arc::clone(&place.world.entropy));
    match sealer.open("store", b"probe", &probe) {
        Ok(plain) if *plain == PROBE => Ok(sealer),
        _ => Err(Error::WrongSeal),
    }
}

async fn create(conn: &mut SqliteConnection, place: &Place) -> Result<Sealer> {
    let mut salt = vec![0; SALT_BYTES];
    place.world.entropy.fill(&mut salt);
    let key = match &place.seal {
        Seal::Unsealed => None,
        Seal::Passphrase(phrase) if phrase.is_empty() => {
            return Err(Error::Invalid("the passphrase is empty"));
        }
        Seal::Passphrase(phrase) => Some(derive(phrase.clone(), salt.clone()).await?),
        Seal::KeyFile => Some(make_key(&place.dir.join(KEY_FILE), &*place.world.entropy)?),
    };
    let sealer = Sealer::new(key, Arc::clone(&place.world.entropy));
    sqlx::query("INSERT INTO store (id, seal, salt, probe) VALUES (1, $1, $2, $3)")
        .bind(kind(&place.seal))
        .bind(salt)
        .bind(sealer.seal("store", b"probe", PROBE))
        .execute(conn)
        .await?;
    Ok(sealer)
}

const fn kind(seal: &Seal) -> i64 {
    match seal {
        Seal::Unsealed => 0,
        Seal::Passphrase(_) => 1,
        Seal::KeyFile => 2,
    }
}

/// Deriving takes a while and much memory, so it runs off the async threads.
async fn derive(phrase: String, salt: Vec<u8>) -> Result<SealKey> {
    let salt: [u8; SALT_BYTES] = super::fixed(&salt, "store")?;
    let phrase = Zeroizing::new(phrase);
    tokio::task::spawn_blocking(move || SealKey::from_passphrase(&phrase, &salt))
        .await
        .map_err(|e| Error::Crypto(e.to_string()))?
        .map_err(|e| Error::Crypto(e.to_string()))
}

fn read_key(path: &Path) -> Result<SealKey> {
    let mut bytes = Zeroizing::new(Vec::new());
    std::fs::File::open(path)
        .and_then(|f| f.take(33).read_to_end(&mut bytes))
        .map_err(|e| file_error(path, e))?;
    let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| Error::WrongSeal)?;
    Ok(SealKey::from_bytes(key))
}

/// Writes a fresh key; takes one that a crash left behind before the store was made.
fn make_key(path: &Path, entropy: &dyn Entropy) -> Result<SealKey> {
    if path.is_file()
        && let Ok(key) = read_key(path)
    {
        return Ok(key);
    }
    let key = SealKey::generate(entropy);
    let mut options = std::fs::File::options();
    options.create(true).truncate(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(path).and_then(|mut file| {
        file.write_all(key.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|e| file_error(path, e))?;
    Ok(key)
}
