use proptest::prelude::*;
use protocol::Code::{InvalidCommit, NotAllowed, TooLarge};
use protocol::room::{Participant, ParticipantsUpdate};

use super::*;

fn user(name: &str) -> UserId {
    UserId::parse(&format!("mimi://a.example/u/{name}")).unwrap()
}

/// `ana1` is ana's device 1.
fn device(name: &str) -> DeviceId {
    let (user_name, n) = name.split_at(name.len() - 1);
    DeviceId::new(&user(user_name), n).unwrap()
}

fn list(people: &[(&str, Role)]) -> Participants {
    let added = people.iter().map(|(n, role)| Participant { user: user(n), role: *role }).collect();
    let update = ParticipantsUpdate { added, ..Default::default() };
    Participants::default().apply(&update).unwrap()
}

/// A commit in a room of ana (owner, two devices), bo (admin), cy (member, two devices), di (member), ed (owner), al (admin) and mal (banned).
#[derive(Clone, Debug)]
struct Draft(CommitFacts);

fn by(committer: &str) -> Draft {
    let before = list(&[
        ("ana", Role::Owner),
        ("bo", Role::Admin),
        ("cy", Role::Member),
        ("di", Role::Member),
        ("mal", Role::Banned),
        ("ed", Role::Owner),
        ("al", Role::Admin),
    ]);
    Draft(CommitFacts {
        committer: device(committer),
        external: false,
        added: vec![],
        removed: vec![],
        left: vec![],
        expelled: vec![],
        after: before.clone(),
        before,
        members: ["ana1", "ana2", "bo1", "cy1", "cy2", "di1", "ed1", "al1"].map(device).to_vec(),
    })
}

impl Draft {
    fn add(mut self, name: &str) -> Self {
        self.0.added.push(device(name));
        self.0.members.push(device(name));
        self
    }
    fn goes(&mut self, name: &str) -> DeviceId {
        self.0.members.retain(|m| *m != device(name));
        device(name)
    }
    fn remove(mut self, name: &str) -> Self {
        let d = self.goes(name);
        self.0.removed.push(d);
        self
    }
    fn leave(mut self, name: &str) -> Self {
        let d = self.goes(name);
        self.0.left.push(d);
        self
    }
    fn expel(mut self, name: &str) -> Self {
        let d = self.goes(name);
        self.0.expelled.push(d);
        self
    }
    /// Gives a person a role, `None` striking them from the list.
    fn role(mut self, name: &str, role: Option<Role>) -> Self {
        let index = self.0.after.index(&user(name));
        let update = match (index, role) {
            (Some(i), Some(role)) => {
                ParticipantsUpdate { changed: vec![(i, role)], ..Default::default() }
            }
            (Some(i), None) => ParticipantsUpdate { removed: vec![i], ..Default::default() },
            (None, role) => ParticipantsUpdate {
                added: vec![Participant { user: user(name), role: role.unwrap() }],
                ..Default::default()
            },
        };
        self.0.after = self.0.after.apply(&update).unwrap();
        self
    }
    fn strike(self, name: &str) -> Self {
        self.role(name, None)
    }
    /// Ends a chain with something irregular.
    fn with(mut self, change: impl FnOnce(&mut CommitFacts)) -> Self {
        change(&mut self.0);
        self
    }
}

/// `name` joins by an external commit.
fn joins(name: &str) -> Draft {
    by(name).with(|f| {
        f.external = true;
        f.added.push(f.committer.clone());
        if !f.members.contains(&f.committer) {
            f.members.push(f.committer.clone());
        }
    })
}

fn check(cases: Vec<(&str, Draft, Option<Code>)>) {
    for (name, draft, expected) in cases {
        let found = judge(&draft.0).map_err(|r| r.code).err();
        assert_eq!(found, expected, "{name}: {:?}", judge(&draft.0));
    }
}

#[test]
fn what_a_member_may() {
    check(vec![
        ("an empty commit", by("cy1"), None),
        ("adds an own device", by("cy1").add("cy3"), None),
        ("removes an own device", by("cy1").remove("cy2"), None),
        ("replaces an own device", by("cy1").remove("cy2").add("cy3"), None),
        ("adds a person", by("cy1").add("eve1").role("eve", Some(Role::Member)), Some(NotAllowed)),
        (
            "lists a person without device",
            by("cy1").role("eve", Some(Role::Member)),
            Some(NotAllowed),
        ),
        ("adds another's device", by("cy1").add("di2"), Some(NotAllowed)),
        ("removes another's device", by("cy1").remove("di1"), Some(NotAllowed)),
        ("removes a person", by("cy1").remove("di1").strike("di"), Some(NotAllowed)),
        ("strikes a banned person", by("cy1").strike("mal"), Some(NotAllowed)),
        ("unbans", by("cy1").role("mal", Some(Role::Member)), Some(NotAllowed)),
        ("bans", by("cy1").remove("di1").role("di", Some(Role::Banned)), Some(NotAllowed)),
        ("promotes itself", by("cy1").role("cy", Some(Role::Admin)), Some(NotAllowed)),
        ("promotes another", by("cy1").role("di", Some(Role::Admin)), Some(NotAllowed)),
        ("demotes an admin", by("cy1").role("bo", Some(Role::Member)), Some(NotAllowed)),
    ]);
}

#[test]
fn what_an_admin_may() {
    check(vec![
        ("adds a member", by("bo1").add("eve1").add("eve2").role("eve", Some(Role::Member)), None),
        ("lists a member who has no device yet", by("bo1").role("eve", Some(Role::Member)), None),
        ("adds an admin", by("bo1").add("eve1").role("eve", Some(Role::Admin)), Some(NotAllowed)),
        ("adds an owner", by("bo1").add("eve1").role("eve", Some(Role::Owner)), Some(NotAllowed)),
        ("adds a device of somebody listed", by("bo1").add("di2"), None),
        ("removes a member", by("bo1").remove("cy1").remove("cy2").strike("cy"), None),
        ("bans a member", by("bo1").remove("di1").role("di", Some(Role::Banned)), None),
        ("removes a device of a member", by("bo1").remove("cy2"), None),
        ("unbans", by("bo1").role("mal", Some(Role::Member)), None),
        ("unbans and adds", by("bo1").role("mal", Some(Role::Member)).add("mal1"), None),
        ("strikes a banned person", by("bo1").strike("mal"), None),
        ("bans somebody not listed", by("bo1").role("eve", Some(Role::Banned)), None),
        ("removes an admin", by("bo1").remove("al1").strike("al"), Some(NotAllowed)),
        ("removes an owner", by("bo1").remove("ed1").strike("ed"), Some(NotAllowed)),
        ("removes a device of an owner", by("bo1").remove("ana2"), Some(NotAllowed)),
        ("bans an admin", by("bo1").remove("al1").role("al", Some(Role::Banned)), Some(NotAllowed)),
        ("promotes a member", by("bo1").role("di", Some(Role::Admin)), Some(NotAllowed)),
        ("makes a banned person admin", by("bo1").role("mal", Some(Role::Admin)), Some(NotAllowed)),
        ("demotes an admin", by("bo1").role("al", Some(Role::Member)), Some(NotAllowed)),
        ("steps down", by("bo1").role("bo", Some(Role::Member)), None),
        ("makes itself owner", by("bo1").role("bo", Some(Role::Owner)), Some(NotAllowed)),
    ]);
}

#[test]
fn what_an_owner_may() {
    check(vec![
        ("adds an owner", by("ana1").add("eve1").role("eve", Some(Role::Owner)), None),
        (
            "promotes and demotes",
            by("ana1").role("cy", Some(Role::Admin)).role("bo", Some(Role::Member)),
            None,
        ),
        ("removes an admin", by("ana1").remove("bo1").strike("bo"), None),
        ("removes another owner", by("ana1").remove("ed1").strike("ed"), None),
        ("bans another owner", by("ana1").remove("ed1").role("ed", Some(Role::Banned)), None),
        ("steps down beside another owner", by("ana1").role("ana", Some(Role::Member)), None),
        (
            "steps down as the last one",
            by("ana1").role("ed", Some(Role::Member)).role("ana", Some(Role::Admin)),
            Some(NotAllowed),
        ),
        (
            "hands over",
            by("ana1")
                .role("ed", Some(Role::Member))
                .role("ana", Some(Role::Admin))
                .role("cy", Some(Role::Owner)),
            None,
        ),
    ]);
}

#[test]
fn leaving_and_being_expelled() {
    let cy_left = by("di1").leave("cy1").leave("cy2");
    let both_owners = by("cy1").leave("ana1").leave("ana2").leave("ed1").strike("ana");
    check(vec![
        ("a member carries out a leave", cy_left.clone().strike("cy"), None),
        ("devices leave, the person stays listed", cy_left, None),
        ("one of two devices left", by("di1").leave("cy1").strike("cy"), Some(InvalidCommit)),
        (
            "struck with a device that was removed",
            by("di1").leave("cy1").remove("cy2").strike("cy"),
            Some(NotAllowed),
        ),
        (
            "one device revoked, the other left",
            by("di1").leave("cy1").expel("cy2").strike("cy"),
            None,
        ),
        (
            "struck because the hub expelled",
            by("di1").expel("cy1").expel("cy2").strike("cy"),
            Some(NotAllowed),
        ),
        ("the hub expels a device of an owner", by("cy1").expel("ana2"), None),
        (
            "a member strikes an owner who left",
            by("cy1").leave("ana1").leave("ana2").strike("ana"),
            None,
        ),
        ("the last owner is struck", both_owners.strike("ed"), Some(NotAllowed)),
        (
            "a leave is no licence to ban",
            by("di1").leave("cy1").leave("cy2").role("cy", Some(Role::Banned)),
            Some(NotAllowed),
        ),
        ("nobody strikes without a leave", by("di1").strike("cy"), Some(InvalidCommit)),
        ("the committer leaves", by("di1").leave("di1").strike("di"), Some(InvalidCommit)),
    ]);
}

#[test]
fn external_commits() {
    check(vec![
        ("a further device", joins("cy3"), None),
        (
            "the first device of somebody listed",
            joins("bo2").with(|f| f.members.retain(|m| *m != device("bo1"))),
            None,
        ),
        (
            "a device replaces its own leaf",
            joins("cy2").with(|f| f.removed.push(device("cy2"))),
            None,
        ),
        ("a new device replaces the old one", joins("cy3").remove("cy2"), None),
        ("a stranger", joins("eve1"), Some(InvalidCommit)),
        (
            "a stranger who lists itself",
            joins("eve1").role("eve", Some(Role::Member)),
            Some(NotAllowed),
        ),
        ("a banned person", joins("mal1"), Some(InvalidCommit)),
        (
            "a banned person who unbans itself",
            joins("mal1").role("mal", Some(Role::Member)),
            Some(NotAllowed),
        ),
        ("with a role", joins("cy3").role("cy", Some(Role::Owner)), Some(InvalidCommit)),
        (
            "an owner changes the list",
            joins("ana3").role("di", Some(Role::Admin)),
            Some(InvalidCommit),
        ),
        ("removes somebody else", joins("ana3").remove("di1"), Some(NotAllowed)),
        ("removes two own devices", joins("cy3").remove("cy1").remove("cy2"), Some(NotAllowed)),
        ("adds another", joins("cy3").add("cy4"), Some(InvalidCommit)),
        ("adds nobody", joins("cy1").with(|f| f.added.clear()), Some(InvalidCommit)),
        ("carries out a leave", joins("cy3").leave("di1"), None),
    ]);
}

#[test]
fn list_and_leaves_fit_together() {
    check(vec![
        ("a leaf without a listed owner", by("ana1").add("eve1"), Some(InvalidCommit)),
        ("a leaf of a banned person", by("ana1").add("mal1"), Some(InvalidCommit)),
        ("struck, but the leaf stays", by("ana1").strike("di"), Some(InvalidCommit)),
        (
            "banned, but a leaf stays",
            by("ana1").remove("cy1").role("cy", Some(Role::Banned)),
            Some(InvalidCommit),
        ),
        (
            "added twice",
            by("ana1").add("di2").with(|f| f.added.push(device("di2"))),
            Some(InvalidCommit),
        ),
        ("two leaves", by("ana1").with(|f| f.members.push(device("di1"))), Some(InvalidCommit)),
        (
            "added without a leaf",
            by("ana1").with(|f| f.added.push(device("di2"))),
            Some(InvalidCommit),
        ),
        (
            "removed with a leaf",
            by("ana1").with(|f| f.removed.push(device("di1"))),
            Some(InvalidCommit),
        ),
        (
            "removed and left",
            by("ana1").remove("di1").with(|f| f.left.push(device("di1"))),
            Some(InvalidCommit),
        ),
        ("removed and added", by("ana1").remove("di1").add("di1"), Some(InvalidCommit)),
        ("committer without leaf", by("cy3"), Some(InvalidCommit)),
        (
            "committer not listed",
            by("ana1").with(|f| f.before = list(&[("ed", Role::Owner)])),
            Some(NotAllowed),
        ),
        (
            "too many added",
            (0..=limit::ADDS_PER_COMMIT).fold(by("ana1"), |d, i| {
                let eve = DeviceId::new(&user("ana"), &format!("x{i}")).unwrap();
                d.with(|f| {
                    f.added.push(eve.clone());
                    f.members.push(eve);
                })
            }),
            Some(TooLarge),
        ),
        (
            "too many devices",
            by("ana1").with(|f| {
                let many = (0..limit::DEVICES_PER_ROOM)
                    .map(|i| DeviceId::new(&user("ana"), &format!("x{i}")).unwrap());
                f.members.extend(many);
            }),
            Some(TooLarge),
        ),
        (
            "too many are removed",
            by("ana1").with(|f| f.removed = named("ana", "x", 0..=limit::ADDS_PER_COMMIT)),
            Some(TooLarge),
        ),
    ]);
}

/// Devices with names of about `2 * name.len()` bytes.
fn named(user_name: &str, name: &str, numbers: impl IntoIterator<Item = usize>) -> Vec<DeviceId> {
    let one = |i| DeviceId::new(&user(user_name), &format!("{name}{i:03}")).unwrap();
    numbers.into_iter().map(one).collect()
}

#[test]
fn a_commit_of_which_no_node_could_be_told_in_one_header_is_refused() {
    let long = "n".repeat(100);
    let (joins, goes) = (named("ana", &long, 0..200), named("ana", &long, 200..400));
    let draft = |added: &[DeviceId], left: &[DeviceId]| {
        by("ana1").with(|f| {
            f.added = added.to_vec();
            f.members.extend(added.iter().cloned());
            f.left = left.to_vec();
        })
    };
    // 100 bytes of name and 23 of user, sign, place and space, each.
    check(vec![
        ("those who come fit", draft(&joins, &[]), None),
        ("those who go fit", draft(&[], &goes), None),
        ("both do not", draft(&joins, &goes), Some(TooLarge)),
    ]);
    let far = UserId::parse("mimi://b.example/u/ana").unwrap();
    let far: Vec<_> =
        (0..200).map(|i| DeviceId::new(&far, &format!("{long}{i:03}")).unwrap()).collect();
    check(vec![("another node is told in a header of its own", draft(&joins, &far), None)]);
}

#[test]
fn leaves_that_the_next_commit_could_not_announce_are_not_taken() {
    let long = "n".repeat(100);
    let (pending, leaving) = (named("ana", &long, 0..200), named("ana", &long, 200..400));
    assert!(judge_pending(&[], &leaving).is_ok());
    assert_eq!(judge_pending(&pending, &leaving).unwrap_err().code, Code::QueueFull);
    assert!(judge_pending(&pending, &leaving[..100]).is_ok());
}

#[test]
fn a_wish_to_leave_is_judged_before_it_binds_the_next_commit() {
    let room = by("ana1").0.before;
    for (name, ok) in [("ana", true), ("cy", true), ("mal", false), ("eve", false)] {
        assert_eq!(judge_leave(&room, &user(name)).is_ok(), ok, "{name}");
    }
    let one = list(&[("ana", Role::Owner), ("cy", Role::Admin), ("mal", Role::Banned)]);
    assert_eq!(judge_leave(&one, &user("ana")).unwrap_err().code, NotAllowed);
    assert!(judge_leave(&one, &user("cy")).is_ok());
    let alone = list(&[("ana", Role::Owner), ("mal", Role::Banned)]);
    assert!(judge_leave(&alone, &user("ana")).is_ok(), "nobody is left behind");
}

#[derive(Clone, Debug)]
enum Act {
    Add(String),
    Remove(String),
    Leave(String),
    Expel(String),
    Role(String, Option<Role>),
}

fn act() -> impl Strategy<Value = Act> {
    let person = prop::sample::select(vec!["ana", "bo", "cy", "di", "mal", "ed", "al", "eve"]);
    let one = (person.clone(), 1u8..4).prop_map(|(p, n)| format!("{p}{n}"));
    let role = prop::sample::select(vec![
        None,
        Some(Role::Banned),
        Some(Role::Member),
        Some(Role::Admin),
        Some(Role::Owner),
    ]);
    prop_oneof![
        2 => one.clone().prop_map(Act::Add),
        2 => one.clone().prop_map(Act::Remove),
        2 => one.clone().prop_map(Act::Leave),
        1 => one.prop_map(Act::Expel),
        3 => (person, role).prop_map(|(p, r)| Act::Role(p.to_owned(), r)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Whatever a commit does: if it is allowed, the room it leaves is sound, and everything that its committer's role does not allow was asked for by those concerned.
    #[test]
    fn an_allowed_commit_leaves_a_sound_room_and_exceeds_no_role(
        committer in prop::sample::select(vec!["ana1", "bo1", "cy1", "di1"]),
        acts in prop::collection::vec(act(), 0..4),
    ) {
        let mut draft = by(committer);
        for act in acts {
            draft = match act {
                Act::Add(d) if !draft.0.members.contains(&device(&d)) => draft.add(&d),
                Act::Remove(d) if draft.0.members.contains(&device(&d)) => draft.remove(&d),
                Act::Leave(d) if draft.0.members.contains(&device(&d)) => draft.leave(&d),
                Act::Expel(d) if draft.0.members.contains(&device(&d)) => draft.expel(&d),
                Act::Role(p, role) if role.is_some() || draft.0.after.index(&user(&p)).is_some() => draft.role(&p, role),
                _ => draft,
            };
        }
        let facts = draft.0;
        if judge(&facts).is_err() { return Ok(()); }
        let own = facts.committer.user();
        let role = facts.before.role(&own).unwrap();
        prop_assert!(facts.after.list().iter().any(|p| p.role == Role::Owner));
        prop_assert!(facts.members.iter().all(|d| facts.after.role(&d.user()).is_some_and(|r| r != Role::Banned)));
        for p in facts.before.list() {
            let after = facts.after.role(&p.user);
            let went = facts.left.iter().any(|d| d.user() == p.user) && after.is_none();
            let same = after == Some(p.role) && !facts.removed.iter().any(|d| d.user() == p.user);
            if p.user == own {
                prop_assert!(after.is_some_and(|a| a <= p.role));
            } else if !(went || same) {
                prop_assert!(role == Role::Owner || role == Role::Admin && p.role <= Role::Member, "{:?}", p);
                prop_assert!(role == Role::Owner || after.is_none_or(|a| a <= Role::Member), "{:?}", p);
            }
        }
        for p in facts.after.list().iter().filter(|p| facts.before.role(&p.user).is_none()) {
            prop_assert!(role == Role::Owner || role == Role::Admin && p.role <= Role::Member);
        }
        for d in &facts.added {
            prop_assert!(d.user() == own || role >= Role::Admin);
        }
    }
}
