//! The nodes this one talks to, and the invitations that make them peers. PROTOCOL §9.3.

use federation::Reach;
use federation::pairing::Offer;
use protocol::{Domain, Timestamp};

use super::row::{Column, execute, fetch_all, fetch_one, fetch_optional, ms, row};
use super::{StoreError, Tx};

/// How we stand with a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerState {
    /// Both sides know each other.
    Active,
    /// An operator of ours wants no traffic with it.
    Blocked,
}

impl PeerState {
    /// The word in the column `state`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Blocked => "blocked",
        }
    }

    fn from_column(text: &str) -> Result<Self, StoreError> {
        Ok(match text {
            "active" => Self::Active,
            "blocked" => Self::Blocked,
            _ => return Err(Column("peer", "state").corrupt()),
        })
    }
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub domain: Domain,
    /// Where to dial.
    pub host: String,
    /// Where to dial.
    pub port: u16,
    /// Its pinned Ed25519 key.
    pub node_key: [u8; 32],
    /// Where its host may lead.
    pub reach: Reach,
    /// How we stand.
    pub state: PeerState,
    /// When it was added.
    pub added: Timestamp,
    /// When it was last heard from or reached.
    pub last_contact: Option<Timestamp>,
    /// What went wrong since.
    pub last_error: Option<String>,
}

impl Peer {
    /// Whom to dial; nobody when it is blocked.
    #[must_use]
    pub fn open(self) -> Option<federation::Peer> {
        let Self { domain, host, port, node_key, reach, state, .. } = self;
        match state {
            PeerState::Active => Some(federation::Peer { domain, node_key, host, port, reach }),
            PeerState::Blocked => None,
        }
    }
}

row! {
    struct PeerRow {
        domain: String, host: String, port: i64, node_key: Vec<u8>, reach: String, state: String, added_ms: i64,
        last_contact_ms: Option<i64>, last_error: Option<String>,
    }
}

row! {
    struct OfferRow { expires_ms: i64, used_by: Option<String> }
}

impl TryFrom<OfferRow> for Offer {
    type Error = StoreError;
    fn try_from(r: OfferRow) -> Result<Self, StoreError> {
        let used_by = r.used_by.map(|d| Column("peer_invite", "used_by").parse(&d)).transpose()?;
        Ok(Self { expires: Column("peer_invite", "expires_ms").time(r.expires_ms)?, used_by })
    }
}

impl TryFrom<PeerRow> for Peer {
    type Error = StoreError;
    fn try_from(r: PeerRow) -> Result<Self, StoreError> {
        Ok(Self {
            domain: Column("peer", "domain").parse(&r.domain)?,
            host: r.host,
            port: Column("peer", "port").number(r.port)?,
            node_key: Column("peer", "node_key").bytes(&r.node_key)?,
            reach: reach(&r.reach)?,
            state: PeerState::from_column(&r.state)?,
            added: Column("peer", "added_ms").time(r.added_ms)?,
            last_contact: Column("peer", "last_contact_ms").time_opt(r.last_contact_ms)?,
            last_error: r.last_error,
        })
    }
}

fn reach(text: &str) -> Result<Reach, StoreError> {
    match text {
        "public" => Ok(Reach::Public),
        "anywhere" => Ok(Reach::Anywhere),
        _ => Err(Column("peer", "reach").corrupt()),
    }
}

const fn reach_column(reach: Reach) -> &'static str {
    match reach {
        Reach::Public => "public",
        Reach::Anywhere => "anywhere",
    }
}

/// Writes a peer, new or changed; what is known of contacts with it stays.
///
/// # Errors
/// When the database fails.
pub async fn save(tx: &mut Tx, peer: &Peer) -> Result<(), StoreError> {
    execute!(
        tx,
        "INSERT INTO peer (domain, host, port, node_key, reach, state, added_ms, last_contact_ms, last_error) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (domain) DO UPDATE SET host = excluded.host, port = excluded.port, \
         node_key = excluded.node_key, reach = excluded.reach, state = excluded.state",
        peer.domain.as_str(),
        peer.host.as_str(),
        i64::from(peer.port),
        peer.node_key.as_slice(),
        reach_column(peer.reach),
        peer.state.as_str(),
        ms(peer.added),
        peer.last_contact.map(ms),
        peer.last_error.as_deref()
    )?;
    Ok(())
}

/// The peer of that name.
///
/// # Errors
/// When the database fails.
pub async fn find(tx: &mut Tx, domain: &Domain) -> Result<Option<Peer>, StoreError> {
    fetch_optional!(
        tx,
        PeerRow,
        "SELECT domain, host, port, node_key, reach, state, added_ms, last_contact_ms, last_error FROM peer WHERE domain = $1",
        domain.as_str()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// All peers, by name. Each was added by a person, so they are few.
///
/// # Errors
/// When the database fails.
pub async fn list(tx: &mut Tx) -> Result<Vec<Peer>, StoreError> {
    let rows = fetch_all!(
        tx,
        PeerRow,
        "SELECT domain, host, port, node_key, reach, state, added_ms, last_contact_ms, last_error FROM peer ORDER BY domain"
    )?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// Changes how we stand. False when there is no such peer.
///
/// # Errors
/// When the database fails.
pub async fn set_state(tx: &mut Tx, domain: &Domain, state: PeerState) -> Result<bool, StoreError> {
    let changed = execute!(
        tx,
        "UPDATE peer SET state = $2 WHERE domain = $1",
        domain.as_str(),
        state.as_str()
    )?;
    Ok(changed > 0)
}

/// Notes that a peer was heard from or reached; its last error is past.
///
/// # Errors
/// When the database fails.
pub async fn contact(tx: &mut Tx, domain: &Domain, now: Timestamp) -> Result<(), StoreError> {
    execute!(
        tx,
        "UPDATE peer SET last_contact_ms = $2, last_error = NULL WHERE domain = $1",
        domain.as_str(),
        ms(now)
    )?;
    Ok(())
}

/// Notes why a peer could not be reached.
///
/// # Errors
/// When the database fails.
pub async fn failed(tx: &mut Tx, domain: &Domain, error: &str) -> Result<(), StoreError> {
    execute!(tx, "UPDATE peer SET last_error = $2 WHERE domain = $1", domain.as_str(), error)?;
    Ok(())
}

/// How many rooms are shared with a peer: such as this node orders and it has a member in, and such as it orders and we have a member in.
///
/// # Errors
/// When the database fails.
pub async fn shared_rooms(tx: &mut Tx, domain: &Domain) -> Result<u64, StoreError> {
    let (count,) = fetch_one!(
        tx,
        (i64,),
        "SELECT COUNT(*) FROM log l \
         WHERE (l.kind = 'room' AND EXISTS (SELECT 1 FROM member m WHERE m.log_id = l.id AND m.domain = $1)) \
         OR (l.kind = 'replica' AND l.hub = $1 AND EXISTS (SELECT 1 FROM member m WHERE m.log_id = l.id))",
        domain.as_str()
    )?;
    Column("log", "id").number(count)
}

/// Forgets a peer, how deliveries to it went, and the lines that it used, which would let it in again. What waits for it stays in its logs.
/// False when there is none.
///
/// # Errors
/// When the database fails.
pub async fn remove(tx: &mut Tx, domain: &Domain) -> Result<bool, StoreError> {
    execute!(tx, "DELETE FROM lane WHERE reader = $1", domain.as_str())?;
    execute!(tx, "DELETE FROM peer_invite WHERE used_by = $1", domain.as_str())?;
    let removed = execute!(tx, "DELETE FROM peer WHERE domain = $1", domain.as_str())?;
    Ok(removed > 0)
}

/// Writes an invitation to become a peer, known by the SHA-256 of its secret.
///
/// # Errors
/// When the database fails.
pub async fn create_invite(
    tx: &mut Tx,
    hash: &[u8; 32],
    created: Timestamp,
    expires: Timestamp,
) -> Result<(), StoreError> {
    execute!(
        tx,
        "INSERT INTO peer_invite (hash, created_ms, expires_ms, used_by) VALUES ($1, $2, $3, NULL)",
        hash.as_slice(),
        ms(created),
        ms(expires)
    )?;
    Ok(())
}

/// The invitation with this hash, for `federation::pairing::accept` to decide about.
///
/// # Errors
/// When the database fails.
pub async fn find_invite(tx: &mut Tx, hash: &[u8; 32]) -> Result<Option<Offer>, StoreError> {
    fetch_optional!(
        tx,
        OfferRow,
        "SELECT expires_ms, used_by FROM peer_invite WHERE hash = $1",
        hash.as_slice()
    )?
    .map(TryInto::try_into)
    .transpose()
}

/// Takes an invitation for `domain`. True once; later only for the same node, so that a lost reply can be repeated.
///
/// # Errors
/// When the database fails.
pub async fn take_invite(
    tx: &mut Tx,
    hash: &[u8; 32],
    domain: &Domain,
    now: Timestamp,
) -> Result<bool, StoreError> {
    let taken = execute!(
        tx,
        "UPDATE peer_invite SET used_by = $2 WHERE hash = $1 AND ((used_by IS NULL AND expires_ms > $3) OR used_by = $2)",
        hash.as_slice(),
        domain.as_str(),
        ms(now)
    )?;
    Ok(taken > 0)
}

/// Forgets invitations that expired before `before`.
///
/// # Errors
/// When the database fails.
pub async fn purge_invites(tx: &mut Tx, before: Timestamp) -> Result<u64, StoreError> {
    execute!(tx, "DELETE FROM peer_invite WHERE expires_ms < $1", ms(before))
}
