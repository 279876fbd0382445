//! Who is in a room and in which role, and what a commit changes. PROTOCOL §7.3.
//!
//! The list lives in the MLS group context as component 0x0022 (draft-ietf-mimi-protocol-06 section 5.3), so that the hub
//! and every member see the same one and it changes only by a commit.

use tls_codec::{Serialize as _, TlsDeserialize, TlsSerialize, TlsSize, VLBytes};

use crate::{DeviceId, UserId, limit};

/// The component that holds the list: `participant_list`.
pub const PARTICIPANT_LIST: u16 = 0x0022;

/// What a person may do in a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Listed, but kept out.
    Banned,
    /// Sends and reads, adds and removes own devices, leaves.
    Member,
    /// Also adds and removes members.
    Admin,
    /// Also makes and unmakes admins and owners.
    Owner,
}

impl Role {
    /// The `role_index` on the wire.
    #[must_use]
    pub const fn index(self) -> u32 {
        match self {
            Self::Banned => 1,
            Self::Member => 2,
            Self::Admin => 3,
            Self::Owner => 4,
        }
    }

    /// The role with this index. 0 is "not in the list" and no role.
    #[must_use]
    pub const fn from_index(index: u32) -> Option<Self> {
        Some(match index {
            1 => Self::Banned,
            2 => Self::Member,
            3 => Self::Admin,
            4 => Self::Owner,
            _ => return None,
        })
    }

    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Banned => "banned",
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// One person in a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Participant {
    /// Who.
    pub user: UserId,
    /// As what.
    pub role: Role,
}

/// A room's people, in the order they came.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Participants(Vec<Participant>);

/// A change to the list. Indices refer to the list before the change; applied as role changes, removals, additions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParticipantsUpdate {
    /// `(index, new role)`.
    pub changed: Vec<(u32, Role)>,
    /// Indices of people who go.
    pub removed: Vec<u32>,
    /// People who come.
    pub added: Vec<Participant>,
}

/// The list or its change does not make sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("participant list: {0}")]
pub struct ListError(&'static str);

#[derive(Debug, TlsSerialize, TlsDeserialize, TlsSize)]
struct WirePair {
    user: VLBytes,
    role_index: u32,
}

#[derive(Debug, TlsSerialize, TlsDeserialize, TlsSize)]
struct WireIndexPair {
    user_index: u32,
    role_index: u32,
}

#[derive(Debug, TlsSerialize, TlsDeserialize, TlsSize)]
struct WireUpdate {
    changed: Vec<WireIndexPair>,
    removed: Vec<u32>,
    added: Vec<WirePair>,
}

fn from_wire(pair: &WirePair) -> Result<Participant, ListError> {
    let user = std::str::from_utf8(pair.user.as_slice())
        .ok()
        .and_then(|t| UserId::parse(t).ok())
        .ok_or(ListError("a user URI is not valid"))?;
    let role = Role::from_index(pair.role_index).ok_or(ListError("unknown role"))?;
    Ok(Participant { user, role })
}

fn to_wire(p: &Participant) -> WirePair {
    WirePair { user: p.user.as_str().as_bytes().into(), role_index: p.role.index() }
}

fn whole<T: tls_codec::Deserialize>(bytes: &[u8]) -> Result<T, ListError> {
    let mut rest = bytes;
    let value = T::tls_deserialize(&mut rest).map_err(|_| ListError("it is damaged"))?;
    if rest.is_empty() { Ok(value) } else { Err(ListError("bytes after the end")) }
}

impl Participants {
    /// A room of its founder alone.
    #[must_use]
    pub fn founded_by(user: UserId) -> Self {
        Self(vec![Participant { user, role: Role::Owner }])
    }

    /// Everybody in the list.
    #[must_use]
    pub fn list(&self) -> &[Participant] {
        &self.0
    }

    /// The role of `user`.
    #[must_use]
    pub fn role(&self, user: &UserId) -> Option<Role> {
        self.0.iter().find(|p| p.user == *user).map(|p| p.role)
    }

    /// The index of `user`, for a [`ParticipantsUpdate`].
    #[must_use]
    pub fn index(&self, user: &UserId) -> Option<u32> {
        self.0.iter().position(|p| p.user == *user).and_then(|i| u32::try_from(i).ok())
    }

    /// Reads a `ParticipantListData`.
    ///
    /// # Errors
    /// When it is damaged, lists somebody twice, or is longer than a room may be.
    pub fn decode(bytes: &[u8]) -> Result<Self, ListError> {
        let list: Vec<WirePair> = whole(bytes)?;
        Self::checked(list.iter().map(from_wire).collect::<Result<_, _>>()?)
    }

    fn checked(list: Vec<Participant>) -> Result<Self, ListError> {
        if list.len() > limit::DEVICES_PER_ROOM {
            return Err(ListError("it is too long"));
        }
        let mut users: Vec<_> = list.iter().map(|p| &p.user).collect();
        users.sort_unstable();
        users.dedup();
        if users.len() == list.len() {
            Ok(Self(list))
        } else {
            Err(ListError("somebody is listed twice"))
        }
    }

    /// Writes a `ParticipantListData`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let list: Vec<WirePair> = self.0.iter().map(to_wire).collect();
        list.tls_serialize_detached().expect("a list under the limits fits its length fields")
    }

    /// The list after `update`.
    ///
    /// # Errors
    /// When an index is out of range, somebody is touched twice, or the result lists somebody twice.
    pub fn apply(&self, update: &ParticipantsUpdate) -> Result<Self, ListError> {
        let mut touched: Vec<u32> =
            update.changed.iter().map(|(i, _)| *i).chain(update.removed.iter().copied()).collect();
        touched.sort_unstable();
        let distinct = touched.len();
        touched.dedup();
        if touched.len() != distinct {
            return Err(ListError("somebody is changed twice"));
        }
        let mut list: Vec<Option<Participant>> = self.0.iter().cloned().map(Some).collect();
        let at = |i: u32| usize::try_from(i).map_err(|_| ListError("an index is out of range"));
        for (i, role) in &update.changed {
            let slot = list.get_mut(at(*i)?).and_then(Option::as_mut);
            slot.ok_or(ListError("an index is out of range"))?.role = *role;
        }
        for i in &update.removed {
            *list.get_mut(at(*i)?).ok_or(ListError("an index is out of range"))? = None;
        }
        let kept = list.into_iter().flatten();
        Self::checked(kept.chain(update.added.iter().cloned()).collect())
    }
}

impl ParticipantsUpdate {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changed.is_empty() && self.removed.is_empty() && self.added.is_empty()
    }

    /// Reads a `ParticipantListUpdate`.
    ///
    /// # Errors
    /// When it is damaged.
    pub fn decode(bytes: &[u8]) -> Result<Self, ListError> {
        let wire: WireUpdate = whole(bytes)?;
        let role = |i| Role::from_index(i).ok_or(ListError("unknown role"));
        let changed = wire.changed.iter().map(|p| Ok((p.user_index, role(p.role_index)?)));
        Ok(Self {
            changed: changed.collect::<Result<_, _>>()?,
            added: wire.added.iter().map(from_wire).collect::<Result<_, _>>()?,
            removed: wire.removed,
        })
    }

    /// Writes a `ParticipantListUpdate`.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let index = |(user_index, role): &(u32, Role)| WireIndexPair {
            user_index: *user_index,
            role_index: role.index(),
        };
        let wire = WireUpdate {
            changed: self.changed.iter().map(index).collect(),
            removed: self.removed.clone(),
            added: self.added.iter().map(to_wire).collect(),
        };
        wire.tls_serialize_detached().expect("an update under the limits fits its length fields")
    }
}

/// What a commit does to a room, read from the commit itself. `delivery::policy` judges it, at the hub and at every member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitFacts {
    /// Who committed.
    pub committer: DeviceId,
    /// Whether the committer joined by this very commit (external commit).
    pub external: bool,
    /// Devices whose leaves it adds, the external committer included.
    pub added: Vec<DeviceId>,
    /// Devices whose leaves the committer removes by proposals of its own.
    pub removed: Vec<DeviceId>,
    /// Devices that go because they or their user's other devices asked for it in earlier proposals (SelfRemove, Remove).
    pub left: Vec<DeviceId>,
    /// Devices that the hub proposed to remove.
    pub expelled: Vec<DeviceId>,
    /// The list before.
    pub before: Participants,
    /// The list after.
    pub after: Participants,
    /// Every device with a leaf after the commit.
    pub members: Vec<DeviceId>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: &str) -> UserId {
        UserId::parse(&format!("mimi://a.example/u/{n}")).unwrap()
    }

    #[test]
    fn changes_apply_in_order_and_refuse_nonsense() {
        let list = Participants::founded_by(user("ana"));
        let bo = Participant { user: user("bo"), role: Role::Member };
        let add = ParticipantsUpdate { added: vec![bo.clone()], ..Default::default() };
        let two = list.apply(&ParticipantsUpdate::decode(&add.encode()).unwrap()).unwrap();
        assert_eq!(Participants::decode(&two.encode()).unwrap(), two);
        assert_eq!(two.role(&user("bo")), Some(Role::Member));
        assert!(two.apply(&add).is_err(), "listed twice");
        let gone = ParticipantsUpdate { removed: vec![1], ..Default::default() };
        assert_eq!(two.apply(&gone).unwrap(), list);
        for bad in [
            ParticipantsUpdate { removed: vec![2], ..Default::default() },
            ParticipantsUpdate { removed: vec![1, 1], ..Default::default() },
            ParticipantsUpdate { removed: vec![1], changed: vec![(1, Role::Admin)], added: vec![] },
        ] {
            assert!(two.apply(&bad).is_err(), "{bad:?}");
        }
    }
}
