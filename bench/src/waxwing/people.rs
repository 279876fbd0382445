//! People and devices, written into a node's database: registering ten thousand by hand would take longer than all measurements.

use crypto::{DeviceIdentity, DeviceKey, IdentityKey, password, token};
use node::clock::{SystemClock, SystemEntropy};
use node::store::accounts::{self, Account};
use node::store::devices::{self, Device as Row};
use node::store::logs::{self, LogName, Start};
use node::store::{StoreError, Tx, identity, readers};
use protocol::log::Chain;
use protocol::{Clock as _, DeviceId, Seq, Timestamp, UserId};

use crate::Outcome;
use crate::waxwing::node::Node;

/// So many rows of people go into one transaction.
const AT_ONCE: usize = 500;

/// A device that is signed in.
#[derive(Clone)]
pub struct Device {
    /// Who it is.
    pub identity: DeviceIdentity,
    /// What it signs in with.
    pub token: String,
}

impl Device {
    /// Its name.
    #[must_use]
    pub fn id(&self) -> &DeviceId {
        self.identity.device()
    }

    /// Its person.
    #[must_use]
    pub fn user(&self) -> UserId {
        self.id().user()
    }
}

/// Writes `count` people with a device each; their names begin with `prefix`.
///
/// # Errors
/// When the database refuses.
pub async fn register(node: &Node, prefix: &str, count: usize) -> Outcome<Vec<Device>> {
    let now = SystemClock.now();
    // Everybody has the same password, which nobody uses: hashing is meant to be slow.
    let password_hash = password::hash("correct horse", &SystemEntropy);
    let mut devices = Vec::with_capacity(count);
    let mut rows = Vec::with_capacity(count);
    for n in 0..count {
        let person = IdentityKey::generate(&SystemEntropy);
        let user = UserId::new(&node.domain, &format!("{prefix}{n}"))?;
        let key = DeviceKey::generate(&SystemEntropy);
        let id = DeviceId::new(&user, "phone")?;
        let certificate = person.certify(&id, &key.public(), now);
        let account = Account {
            user,
            identity_key: *person.public().as_bytes(),
            password_hash: password_hash.clone(),
            created: now,
            suspended: None,
        };
        let row = Row {
            device: id,
            name: "bench".to_owned(),
            certificate: certificate.as_bytes().to_vec(),
            created: now,
            seen: None,
            revoked: None,
        };
        let token = token::make(&SystemEntropy);
        rows.push((account, row, token::hash(&token)));
        let refused = |r: protocol::Refusal| r.to_string();
        devices.push(Device {
            identity: DeviceIdentity::new(key, certificate).map_err(refused)?,
            token,
        });
    }
    let store = node.store().await?;
    while !rows.is_empty() {
        let some = rows.split_off(rows.len().saturating_sub(AT_ONCE));
        store.write::<_, StoreError, _>(move |tx| Box::pin(write(tx, some, now))).await?;
    }
    store.close().await;
    Ok(devices)
}

async fn write(
    tx: &mut Tx,
    rows: Vec<(Account, Row, [u8; 32])>,
    now: Timestamp,
) -> Result<(), StoreError> {
    let own = identity::load(tx).await?;
    for (account, device, token) in rows {
        accounts::create(tx, &account).await?;
        devices::create(tx, &device).await?;
        let start = Start {
            incarnation: own.incarnation,
            seq: Seq::new(0),
            chain: Chain::from_bytes([0; 32]),
            at: Timestamp::from_ms(0),
        };
        let name = LogName::Inbox(device.device.clone());
        if let Some(inbox) = logs::create(tx, &name, &own.domain, &start, now).await? {
            readers::add(tx, inbox, &device.device.clone().into(), Seq::new(1)).await?;
        }
        devices::add_token(tx, &token, &device.device, now).await?;
    }
    Ok(())
}
