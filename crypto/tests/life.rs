//! A room's life: founded, grown, changed, left, and every step of it survives a restart.

mod common;

use common::{World, device_id, hub_key, identity, now, room, user};
use crypto::group::{Change, ExternalJoin, Received};
use crypto::{Suite, group_info};
use protocol::Code;
use protocol::room::ParticipantsUpdate;

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
