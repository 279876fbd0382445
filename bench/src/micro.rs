//! Single steps of the hot paths, each ready to be repeated.

use crypto::group::{Change, Founding};
use crypto::keypackage::{self, Use};
use crypto::{DeviceIdentity, DeviceKey, Group, HubGroup, IdentityKey, NodeKey, Rows, Suite};
use node::clock::{SystemClock, SystemEntropy};
use openmls::group::PublicGroup;
use openmls::messages::group_info::VerifiableGroupInfo;
use openmls::prelude::{
    MlsMessageBodyIn, MlsMessageIn, ProposalStore, PublicMessageIn, RatchetTreeIn,
};
use openmls_rust_crypto::OpenMlsRustCrypto;
use openmls_traits::OpenMlsProvider as _;
use protocol::room::{Participant, ParticipantsUpdate, Role};
use protocol::{Clock as _, DeviceId, Domain, RoomId, UserId};
use tls_codec::Deserialize as _;

use crate::report::results::Metrics;
use crate::stats::median;
use crate::work::{plan, text};
use crate::{Outcome, failed};

/// Sizes of rooms.
pub const MEMBERS: &[usize] = &[10, 100, 1_000];
/// A commit of ours changes so many entries of the participant list at most.
const ADDED_AT_ONCE: usize = 16;

/// A room of some size: what its hub knows, and what two of its devices know.
pub struct Room {
    /// The hub's side.
    pub hub: HubGroup,
    /// The founder.
    pub founder: Group,
    listener: DeviceIdentity,
    listening: Rows,
}

/// A commit that only renews keys, as a hub gets it.
pub struct Renewal {
    /// The bundle.
    pub bundle: Vec<u8>,
    /// The committer's signature over it.
    pub signature: Vec<u8>,
    /// The commit in it.
    pub commit: Vec<u8>,
}

fn device(domain: &Domain, n: usize) -> Outcome<DeviceIdentity> {
    let user = UserId::new(domain, &format!("u{n}"))?;
    let key = DeviceKey::generate(&SystemEntropy);
    let person = IdentityKey::generate(&SystemEntropy);
    let certificate = person.certify(&DeviceId::new(&user, "d")?, &key.public(), SystemClock.now());
    Ok(DeviceIdentity::new(key, certificate).map_err(|r| r.to_string())?)
}

impl Room {
    /// Makes a room with so many members, each added by a commit that the hub checked.
    ///
    /// # Errors
    /// When the hub refuses one, which is a bug.
    pub fn make(members: usize) -> Outcome<Self> {
        let domain = Domain::parse("a.example")?;
        let hub_key = NodeKey::generate(&SystemEntropy);
        let founding = Founding {
            room: RoomId::new(&domain, "room")?,
            suite: Suite::Classic,
            hub_key: hub_key.public(),
        };
        let first = device(&domain, 0)?;
        let id = first.device().clone();
        let made = Group::create(&founding, first, SystemClock.now(), &SystemEntropy)?;
        let (room, key) = (&founding.room, &founding.hub_key);
        let mut hub = HubGroup::create(room, key, &made.group_info, &made.tree, &id)
            .map_err(|r| r.to_string())?;
        let mut group = made.group;
        let mut joined = None;
        let mut left: Vec<usize> = (1..members.max(2)).collect();
        while !left.is_empty() {
            let some = left.split_off(left.len().saturating_sub(ADDED_AT_ONCE));
            joined = Some(add(&domain, &mut group, &mut hub, &some)?);
        }
        let (listener, listening) = joined.ok_or("nobody joined")?;
        Ok(Self { hub, founder: group, listener, listening })
    }

    /// The listener as of its joining.
    ///
    /// # Errors
    /// When its rows are broken, which is a bug.
    pub fn listener(&self) -> Outcome<Group> {
        Ok(Group::load(self.listening.clone(), self.listener.clone())?)
    }

    /// A message of the founder.
    ///
    /// # Errors
    /// When it cannot be encrypted, which is a bug.
    pub fn message(&mut self) -> Outcome<Vec<u8>> {
        let text = text(crate::letter::Tag { sender: 0, number: 0 }, plan::TEXT_BYTES);
        Ok(self.founder.encrypt(text.as_bytes(), &SystemEntropy)?)
    }

    /// A commit to check; the founder then waits for nothing.
    ///
    /// # Errors
    /// When it cannot be made, which is a bug.
    pub fn renewal(&mut self) -> Outcome<Renewal> {
        let change = Change { renew: true, ..Change::default() };
        let made = self.founder.commit(&change, SystemClock.now(), &SystemEntropy)?;
        let applied =
            self.hub.apply(&made.update_request, Some(&made.signature), SystemClock.now());
        let commit = applied.map_err(|r| r.to_string())?.commit;
        self.founder.clear_pending()?;
        Ok(Renewal { bundle: made.update_request, signature: made.signature, commit })
    }

    /// What the hub does with a commit.
    ///
    /// # Errors
    /// When it refuses.
    pub fn check(&self, renewal: &Renewal) -> Outcome<()> {
        let now = SystemClock.now();
        let applied = self.hub.apply(&renewal.bundle, Some(&renewal.signature), now);
        applied.map(drop).map_err(|r| r.to_string().into())
    }

    /// The same group in the library alone.
    ///
    /// # Errors
    /// When the library does not take it.
    pub fn bare(&self) -> Outcome<Bare> {
        let provider = OpenMlsRustCrypto::default();
        let info = self.hub.group_info().as_slice();
        let info = VerifiableGroupInfo::tls_deserialize_exact(info)?;
        let tree = RatchetTreeIn::tls_deserialize_exact(self.hub.tree_bytes())?;
        let (group, _) = PublicGroup::from_external(
            provider.crypto(),
            provider.storage(),
            tree,
            info,
            ProposalStore::new(),
        )
        .map_err(|e| e.to_string())?;
        Ok(Bare { group, provider })
    }
}

/// OpenMLS's own public group.
pub struct Bare {
    group: PublicGroup,
    provider: OpenMlsRustCrypto,
}

impl Bare {
    /// What the library alone does with a commit.
    ///
    /// # Errors
    /// When it refuses.
    pub fn check(&self, renewal: &Renewal) -> Outcome<()> {
        let message = MlsMessageIn::tls_deserialize_exact(&renewal.commit)?;
        let MlsMessageBodyIn::PublicMessage(message) = message.extract() else {
            return failed("it is no PublicMessage");
        };
        let message: PublicMessageIn = message;
        let processed = self.group.process_message(self.provider.crypto(), message);
        processed.map(drop).map_err(|e| e.to_string().into())
    }
}

/// Microseconds that the hub and the library alone take for a commit in rooms of these sizes; the middle of several runs.
///
/// # Errors
/// When a room cannot be made, which is a bug.
pub fn commits(sizes: &[usize], runs: usize) -> Outcome<[Metrics; 2]> {
    let (mut ours, mut theirs) = (Metrics::new(), Metrics::new());
    for size in sizes {
        let mut room = Room::make(*size)?;
        let renewal = room.renewal()?;
        let bare = room.bare()?;
        let name = format!("us_{size}");
        ours.insert(name.clone(), middle(runs, || room.check(&renewal))?);
        theirs.insert(name, middle(runs, || bare.check(&renewal))?);
    }
    Ok([ours, theirs])
}

fn middle(runs: usize, step: impl Fn() -> Outcome<()>) -> Outcome<f64> {
    let mut values = Vec::new();
    for _ in 0..runs {
        let begun = tokio::time::Instant::now();
        step()?;
        values.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(median(&values))
}

fn add(
    domain: &Domain,
    group: &mut Group,
    hub: &mut HubGroup,
    numbers: &[usize],
) -> Outcome<(DeviceIdentity, Rows)> {
    let now = SystemClock.now();
    let (mut add, mut added, mut last) = (Vec::new(), Vec::new(), None);
    for n in numbers {
        let identity = device(domain, *n)?;
        let made = keypackage::make(Suite::Classic, &identity, Use::Once, now, &SystemEntropy)?;
        add.push(made.public.clone());
        added.push(Participant { user: identity.device().user(), role: Role::Member });
        last = Some((identity, made));
    }
    let participants = ParticipantsUpdate { added, ..Default::default() };
    let change = Change { add, participants, ..Default::default() };
    let made = group.commit(&change, now, &SystemEntropy)?;
    let applied = hub.apply(&made.update_request, Some(&made.signature), now);
    let applied = applied.map_err(|r| r.to_string())?;
    *hub = applied.group;
    group.merge_pending()?;
    let (identity, package) = last.ok_or("nobody is added")?;
    let welcome = applied.welcome.ok_or("no Welcome")?.message;
    let (tree, private) = (hub.tree_bytes(), &package.private);
    let mut joined = Group::join(group.room(), &welcome, &tree, private, identity.clone())?;
    let mut rows = Rows::default();
    rows.apply(&joined.writes());
    Ok((identity, rows))
}
