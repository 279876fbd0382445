//! A room's life: founded, grown, changed, left, and every step of it survives a restart.

use crate::common::{Device, Dice, World, device_id, hub_key, identity, now, room, user};
use crypto::group::{Change, ExternalJoin, Received, Why};
use crypto::{Error, Group, HubGroup, NodeKey, Rows, Suite, group_info};
use protocol::room::ParticipantsUpdate;
use protocol::{Code, Refusal};

fn life(suite: Suite) {
    let mut world = World::with(suite, &["bo/1", "ana/2"]);
    world.add("bo/1", "bo/2");
    for name in ["ana/1", "bo/1", "ana/2", "bo/2"] {
        world.talk(name);
    }

    // Own keys renewed.
    let bundle = world.commit("bo/2", &Change { renew: true, ..Default::default() });
    world.accept(&bundle);
    world.talk("bo/2");

    // A device removed.
    let change = Change { remove: vec![device_id("bo/2")], ..Default::default() };
    let bundle = world.commit("ana/1", &change);
    let applied = world.accept(&bundle);
    assert_eq!(applied.facts.removed, [device_id("bo/2")]);
    assert!(!world.device("bo/2").group.is_member());
    world.talk("ana/1");

    // A person removed.
    let index = world.hub.participants().unwrap().index(&user("bo")).unwrap();
    let change = Change {
        remove: vec![device_id("bo/1")],
        participants: ParticipantsUpdate { removed: vec![index], ..Default::default() },
        ..Default::default()
    };
    let bundle = world.commit("ana/2", &change);
    world.accept(&bundle);
    assert_eq!(world.hub.participants().unwrap().role(&user("bo")), None);
    world.talk("ana/2");
}

#[test]
fn a_room_lives_and_every_step_survives_a_restart() {
    life(Suite::Classic);
}

#[test]
fn a_room_lives_under_the_hybrid_suite_as_well() {
    life(Suite::Hybrid);
}

#[test]
fn many_devices_come_in_one_commit_each_by_its_own_key_package() {
    let mut world = World::new(Suite::Classic);
    let names = ["bo/1", "bo/2", "cy/1"];
    let made = names.map(|n| world.package(n));
    let mut participants = world.listing("bo/1");
    participants.added.extend(world.listing("cy/1").added);
    let change = Change {
        add: made.iter().map(|m| m.public.clone()).collect(),
        participants,
        ..Default::default()
    };
    let bundle = world.commit("ana/1", &change);
    let welcome = world.accept(&bundle).welcome.unwrap();
    let mut refs = crypto::Group::welcome_for(&welcome.message).unwrap();
    refs.sort_unstable();
    let mut wanted: Vec<_> = made.iter().map(|m| m.reference).collect();
    wanted.sort_unstable();
    assert_eq!(refs, wanted);
    let tree = world.hub.tree_bytes();
    for (name, made) in names.into_iter().zip(&made) {
        let join =
            crypto::Group::join(&room(), &welcome.message, &tree, &made.private, identity(name));
        assert_eq!(join.unwrap().epoch(), world.hub.epoch());
    }
}

/// A further device of a participant enters by its own commit.
fn enter(world: &mut World, name: &'static str) -> crypto::hub::Applied {
    let (join, request) =
        ExternalJoin::request(&room(), Suite::Classic, identity(name), &world.dice).unwrap();
    let request = group_info::verify(&request).unwrap();
    assert_eq!(*request.from.device(), device_id(name));
    let answer = world.hub.seal_group_info(&request, &hub_key()).unwrap();
    let (group, bundle) = join.finish(&answer, &hub_key().public(), &world.dice).unwrap();
    let mut applied =
        world.hub.apply(&bundle.update_request, Some(&bundle.signature), now()).unwrap();
    world.devices.retain(|d| d.name != name);
    let mut device = Device::new(name, group);
    assert!(matches!(device.receive(&applied.commit), Received::OwnCommit { merged: true }));
    world.devices.push(device);
    world.take(&mut applied);
    applied
}

fn external(suite: Suite) {
    let mut world = World::with(suite, &["bo/1"]);
    let applied = enter(&mut world, "bo/2");
    assert!(applied.facts.external);
    assert_eq!(applied.facts.added, [device_id("bo/2")]);
    assert_eq!(applied.facts.committer, device_id("bo/2"));
    assert_eq!(applied.certificates, [identity("bo/2").certificate().clone()]);
    world.talk("bo/2");
    world.talk("ana/1");
    // It is a full member.
    let bundle = world.commit("bo/2", &Change { renew: true, ..Default::default() });
    world.accept(&bundle);
    world.talk("bo/1");
}

#[test]
fn a_further_device_enters_by_its_own_commit() {
    external(Suite::Classic);
    external(Suite::Hybrid);
}

#[test]
fn a_device_that_is_out_of_step_rejoins_and_takes_its_old_leaf_along() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    // bo/1 lost its state.
    let applied = enter(&mut world, "bo/1");
    assert_eq!(applied.facts.removed, [device_id("bo/1")]);
    assert_eq!(applied.facts.added, [device_id("bo/1")]);
    assert_eq!(world.hub.members().unwrap(), [device_id("ana/1"), device_id("bo/1")]);
    world.talk("bo/1");
    world.talk("ana/1");
}

#[test]
fn a_person_leaves_with_every_device_and_somebody_else_commits_it() {
    let mut world = World::with(Suite::Classic, &["bo/1", "bo/2", "cy/1"]);
    let others = [device_id("bo/2")];
    let at = world.devices.iter().position(|d| d.name == "bo/1").unwrap();
    let bundle = world.devices[at].group.leave(&others, &world.dice).unwrap();
    world.devices[at].save();
    assert_eq!(
        world.devices[at].group.pending_proposals().unwrap(),
        [],
        "not before the hub has it"
    );

    let proposed =
        world.hub.propose(&bundle.update_request, Some(&bundle.signature), now()).unwrap();
    assert_eq!(proposed.by, device_id("bo/1"));
    assert_eq!(proposed.leaving, [device_id("bo/1"), device_id("bo/2")]);
    world.hub = HubGroup::from_bytes(&proposed.group.to_bytes()).unwrap();
    assert_eq!(world.hub.leaving(), proposed.leaving);
    for message in &proposed.messages {
        for device in &mut world.devices {
            assert!(matches!(device.receive(message), Received::Proposal(_)), "{}", device.name);
        }
    }
    // Nobody sends before it is carried out.
    let blocked = world.devices[0].group.encrypt(b"too early", &world.dice);
    assert!(matches!(blocked, Err(Error::Refused(r)) if r.code == Code::MissingProposal));

    let index = world.hub.participants().unwrap().index(&user("bo")).unwrap();
    let change = Change {
        // Asking for what is pending anyway does no harm.
        remove: vec![device_id("bo/2")],
        participants: ParticipantsUpdate { removed: vec![index], ..Default::default() },
        ..Default::default()
    };
    let bundle = world.commit("cy/1", &change);
    let applied = world.accept(&bundle);
    let mut left = applied.facts.left.clone();
    left.sort_unstable();
    assert_eq!(left, [device_id("bo/1"), device_id("bo/2")]);
    assert_eq!(applied.facts.removed, []);
    assert_eq!(world.hub.leaving(), []);
    assert!(!world.device("bo/1").group.is_member());
    assert!(!world.device("bo/2").group.is_member());
    world.talk("cy/1");
}

#[test]
fn who_joins_carries_out_departures_and_removals_that_a_join_cannot_carry_are_given_back() {
    let mut world = World::with(Suite::Classic, &["bo/1", "bo/2", "cy/1"]);
    let at = world.devices.iter().position(|d| d.name == "bo/1").unwrap();
    let bundle = world.devices[at].group.leave(&[device_id("bo/2")], &world.dice).unwrap();
    let proposed =
        world.hub.propose(&bundle.update_request, Some(&bundle.signature), now()).unwrap();
    world.hub = proposed.group;
    for message in &proposed.messages {
        for device in &mut world.devices {
            device.receive(message);
        }
    }
    let applied = enter(&mut world, "cy/2");
    assert_eq!(applied.facts.left, [device_id("bo/1")]);
    assert_eq!(applied.lost, [device_id("bo/2")]);
    assert!(!world.device("bo/1").group.is_member());

    // The hub asks again, in the new epoch.
    let expelled = world.hub.expel(&device_id("bo/2"), &hub_key(), now()).unwrap();
    world.hub = HubGroup::from_bytes(&expelled.group.to_bytes()).unwrap();
    for device in world.devices.iter_mut().filter(|d| d.group.is_member()) {
        let Received::Proposal(proposed) = device.receive(&expelled.message) else {
            panic!("{} does not take the hub's proposal", device.name);
        };
        assert_eq!((proposed.by, proposed.device), (None, device_id("bo/2")));
    }
    let bundle = world.commit("ana/1", &Change::default());
    let applied = world.accept(&bundle);
    assert_eq!(applied.facts.expelled, [device_id("bo/2")]);
    world.talk("ana/1");
}

#[test]
fn a_device_that_is_leaving_cannot_commit_and_nobody_leaves_twice() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let bundle = world.device("bo/1").group.leave(&[], &Dice::new()).unwrap();
    let proposed =
        world.hub.propose(&bundle.update_request, Some(&bundle.signature), now()).unwrap();
    world.hub = proposed.group;
    for device in &mut world.devices {
        device.receive(&proposed.messages[0]);
    }
    let again = world.hub.propose(&bundle.update_request, Some(&bundle.signature), now());
    let Refusal { code, epoch, .. } = again.err().unwrap();
    assert_eq!((code, epoch), (Code::WrongEpoch, Some(world.hub.epoch())), "look again");
    let again = world.hub.expel(&device_id("bo/1"), &hub_key(), now());
    assert_eq!(again.err().unwrap().code, Code::WrongEpoch);
    let own = world.device("bo/1").group.commit(&Change::default(), now(), &Dice::new());
    assert!(matches!(own, Err(Error::Refused(r)) if r.code == Code::NotAllowed));
}

#[test]
fn the_loser_of_a_race_drops_its_commit_follows_the_winner_and_builds_again() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let winner = world.commit("bo/1", &Change { renew: true, ..Default::default() });
    let made = world.package("cy/1");
    let change = Change {
        add: vec![made.public],
        participants: world.listing("cy/1"),
        ..Default::default()
    };
    let loser = world.commit("ana/1", &change);
    assert!(world.device("ana/1").group.has_pending_commit());
    world.accept(&winner);
    assert!(!world.device("ana/1").group.has_pending_commit());
    let refused = world.hub.apply(&loser.update_request, Some(&loser.signature), now());
    let Refusal { code, epoch, .. } = refused.err().unwrap();
    assert_eq!((code, epoch), (Code::WrongEpoch, Some(world.hub.epoch())));
    let bundle = world.commit("ana/1", &change);
    world.accept(&bundle);
    world.talk("ana/1");
}

#[test]
fn a_commit_that_the_hub_refuses_is_cleared_and_leaves_nothing_behind() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    // But for the hash of the last own commit, which only serves to know its echo.
    let rows = |device: &Device| -> Rows {
        let rows = device.stored.iter().filter(|(key, _)| *key != b"W");
        rows.map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    };
    let before = rows(world.device("ana/1"));
    world.commit("ana/1", &Change { renew: true, ..Default::default() });
    let ana = world.device("ana/1");
    assert!(ana.group.commit(&Change::default(), now(), &Dice::new()).is_err());
    ana.group.clear_pending().unwrap();
    ana.save();
    assert_eq!(rows(ana), before);
    world.talk("ana/1");
}

#[test]
fn the_echo_of_an_accepted_commit_is_known_even_after_it_was_merged() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let bundle = world.commit("ana/1", &Change { renew: true, ..Default::default() });
    let applied = world.accept(&bundle);
    // Even when the next one is under way.
    let next = world.commit("ana/1", &Change { renew: true, ..Default::default() });
    let echo = world.device("ana/1").receive(&applied.commit);
    assert!(matches!(echo, Received::OwnCommit { merged: true }));
    world.accept(&next);
    let echo = world.device("ana/1").receive(&applied.commit);
    assert!(matches!(echo, Received::OwnCommit { merged: true }));
    let again = world.device("bo/1").receive(&applied.commit);
    assert!(matches!(again, Received::Unreadable(Why::TooOld)));
}

#[test]
fn an_answer_for_joining_opens_only_for_the_one_who_asked_and_only_from_the_hub() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let ask =
        |name| ExternalJoin::request(&room(), Suite::Hybrid, identity(name), &world.dice).unwrap();
    let finish = |join: ExternalJoin, answer: &[u8], key: &NodeKey| {
        join.finish(answer, &key.public(), &world.dice).map(|_| ())
    };
    let (join, request) = ask("bo/2");
    let (other, _) = ask("bo/2");
    let request = group_info::verify(&request).unwrap();
    let answer = world.hub.seal_group_info(&request, &hub_key()).unwrap();
    assert!(finish(other, &answer, &hub_key()).is_err(), "sealed for another key");

    let forged = world.hub.seal_group_info(&request, &NodeKey::from_bytes(&[1; 32])).unwrap();
    let (join2, _) = ask("bo/2");
    assert!(finish(join2, &forged, &hub_key()).is_err(), "not the hub's signature");
    let (join3, request3) = ask("bo/2");
    let request3 = group_info::verify(&request3).unwrap();
    let forged = world.hub.seal_group_info(&request3, &NodeKey::from_bytes(&[1; 32])).unwrap();
    assert!(
        finish(join3, &forged, &NodeKey::from_bytes(&[1; 32])).is_err(),
        "a hub that is not the one in the room's settings"
    );
    finish(join, &answer, &hub_key()).unwrap();
    world.talk("ana/1");
}

#[test]
fn a_stored_hub_group_with_any_byte_changed_is_not_loaded() {
    let world = World::with(Suite::Classic, &["bo/1"]);
    let good = world.hub.to_bytes();
    for i in (0..good.len()).step_by(7) {
        let mut bad = good.clone();
        bad[i] ^= 0x10;
        assert!(HubGroup::from_bytes(&bad).is_err(), "byte {i}");
        assert!(HubGroup::from_bytes(&good[..i]).is_err(), "cut at {i}");
    }
}

#[test]
fn rows_of_another_device_or_with_one_missing_are_not_loaded() {
    let world = World::with(Suite::Classic, &["bo/1"]);
    let rows = world.devices[1].stored.clone();
    assert!(Group::load(rows.clone(), identity("ana/1")).is_err(), "another device's");
    for skip in 0..rows.len() {
        let some = rows.iter().enumerate().filter(|(i, _)| *i != skip);
        let some = some.map(|(_, (k, v))| (k.to_vec(), v.to_vec())).collect();
        // A missing row is found, or it was one that nothing depends on; never a panic.
        if let Ok(mut group) = Group::load(some, identity("bo/1")) {
            assert!(group.writes().is_empty());
        }
    }
}

#[test]
fn groups_can_move_between_threads() {
    fn send<T: Send>() {}
    fn share<T: Sync>() {}
    send::<Group>();
    send::<HubGroup>();
    share::<HubGroup>();
}
