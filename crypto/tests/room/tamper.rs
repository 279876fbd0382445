//! What is refused, by the hub and by every member for itself, and that a refusal harms nothing.

use crypto::group::{Change, CommitBundle, Received, Why};
use crypto::{NodeKey, Suite};
use protocol::mimi::{CommitBytes, HandshakeBundle, WelcomeBytes};
use protocol::{Code, Refusal};

use crate::common::{Dice, World, device_id, hub_key, now};

fn refused(world: &World, bundle: &[u8], signature: Option<&[u8]>) -> Refusal {
    world.hub.apply(bundle, signature, now()).err().expect("it is refused")
}

/// The parts of a bundle, to change one of them.
fn parts(bundle: &CommitBundle) -> HandshakeBundle {
    HandshakeBundle::decode(&bundle.update_request).unwrap()
}

/// Flips a bit of the commit, `from_end` bytes from its end.
fn flip(bundle: &CommitBundle, from_end: usize) -> Vec<u8> {
    let mut parts = parts(bundle);
    if let HandshakeBundle::Commit { commit, .. } = &mut parts {
        let mut bytes = commit.as_slice().to_vec();
        let at = bytes.len() - from_end;
        bytes[at] ^= 1;
        *commit = CommitBytes::parse(bytes).unwrap();
    }
    parts.encode()
}

fn renewal() -> Change {
    Change { renew: true, ..Default::default() }
}

#[test]
fn a_confirmation_tag_changed_on_the_way_is_refused_even_without_a_signature() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let bundle = world.commit("ana/1", &renewal());
    // The commit ends in confirmation_tag<V> and membership_tag<V>, 33 bytes each.
    let bad = flip(&bundle, 34);
    assert_eq!(refused(&world, &bad, None).code, Code::InvalidCommit);
    assert_eq!(refused(&world, &bad, Some(&bundle.signature)).code, Code::InvalidCommit);
    world.accept(&bundle);
}

#[test]
fn a_membership_tag_changed_on_the_way_is_refused_by_the_bundles_signature() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let bundle = world.commit("ana/1", &renewal());
    let bad = flip(&bundle, 1);
    assert_eq!(refused(&world, &bad, Some(&bundle.signature)).code, Code::InvalidCommit);
    // What a hub would pass on without the signature, no member takes.
    let wedged = world.hub.apply(&bad, None, now()).unwrap();
    let taken = world.device("bo/1").receive(&wedged.commit);
    assert!(matches!(taken, Received::Unreadable(Why::Forged(_))), "{taken:?}");
    world.accept(&bundle);
}

#[test]
fn no_byte_of_a_bundle_can_change() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let made = world.package("cy/1");
    let change = Change {
        add: vec![made.public],
        participants: world.listing("cy/1"),
        renew: true,
        ..Default::default()
    };
    let bundle = world.commit("ana/1", &change);
    for i in (0..bundle.update_request.len()).step_by(11) {
        let mut bad = bundle.update_request.clone();
        bad[i] ^= 1;
        refused(&world, &bad, Some(&bundle.signature));
        refused(&world, &bundle.update_request[..i], Some(&bundle.signature));
    }
    for i in 0..bundle.signature.len() {
        let mut bad = bundle.signature.clone();
        bad[i] ^= 1;
        refused(&world, &bundle.update_request, Some(&bad));
    }
    refused(&world, &bundle.update_request, Some(&[]));
    world.accept(&bundle);
}

#[test]
fn no_byte_of_a_commit_can_change_for_a_member() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let bundle = world.commit("ana/1", &renewal());
    let applied = world.apply(&bundle);
    let stored = world.device("bo/1").stored.clone();
    for i in (0..applied.commit.len()).step_by(5) {
        let mut bad = applied.commit.clone();
        bad[i] ^= 1;
        let received = world.device("bo/1").group.receive(&bad).unwrap();
        assert!(matches!(received, Received::Unreadable(_)), "byte {i}: {received:?}");
    }
    world.device("bo/1").save();
    assert_eq!(world.device("bo/1").stored, stored);
    world.accept(&bundle);
}

#[test]
fn no_byte_of_a_message_can_change_and_a_forgery_does_not_use_its_key_up() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let message = world.devices[0].send("hello", &world.dice);
    for i in (0..message.len()).step_by(3) {
        let mut bad = message.clone();
        bad[i] ^= 1;
        let received = world.device("bo/1").receive(&bad);
        assert!(matches!(received, Received::Unreadable(_)), "byte {i}: {received:?}");
    }
    assert_eq!(world.device("bo/1").reads(&message), "hello");
}

#[test]
fn a_welcome_of_another_commit_is_refused() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let add = |world: &mut World, by: &str, name: &'static str| {
        let change = Change {
            add: vec![world.package(name).public],
            participants: world.listing(name),
            ..Default::default()
        };
        world.commit(by, &change)
    };
    let one = add(&mut world, "ana/1", "cy/1");
    let two = add(&mut world, "bo/1", "di/1");
    let welcome = |bundle: &CommitBundle| -> Option<WelcomeBytes> {
        match parts(bundle) {
            HandshakeBundle::Commit { welcome, .. } => welcome,
            HandshakeBundle::Proposals { .. } => None,
        }
    };
    for other in [welcome(&two), None] {
        let mut bad = parts(&one);
        if let HandshakeBundle::Commit { welcome, .. } = &mut bad {
            *welcome = other;
        }
        assert_eq!(refused(&world, &bad.encode(), None).code, Code::InvalidCommit);
    }
    let mut renewed = World::with(Suite::Classic, &["bo/1"]);
    let renewal = renewed.commit("ana/1", &renewal());
    let mut bad = parts(&renewal);
    if let HandshakeBundle::Commit { welcome: w, .. } = &mut bad {
        *w = welcome(&one);
    }
    assert_eq!(refused(&renewed, &bad.encode(), None).code, Code::InvalidCommit);
    world.accept(&one);
}

#[test]
fn a_group_info_of_another_commit_is_refused() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let (one, two) = (world.commit("ana/1", &renewal()), world.commit("bo/1", &renewal()));
    let (mut bad, other) = (parts(&one), parts(&two));
    if let (
        HandshakeBundle::Commit { group_info, .. },
        HandshakeBundle::Commit { group_info: other, .. },
    ) = (&mut bad, other)
    {
        *group_info = other;
    }
    assert_eq!(refused(&world, &bad.encode(), None).code, Code::InvalidCommit);
    world.accept(&two);
}

#[test]
fn what_was_accepted_is_not_accepted_again() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let bundle = world.commit("ana/1", &renewal());
    world.accept(&bundle);
    let again = refused(&world, &bundle.update_request, Some(&bundle.signature));
    assert_eq!((again.code, again.epoch), (Code::WrongEpoch, Some(world.hub.epoch())));
    let message = world.devices[0].send("once", &world.dice);
    assert_eq!(world.device("bo/1").reads(&message), "once");
    let again = world.device("bo/1").receive(&message);
    assert!(matches!(again, Received::Unreadable(Why::Duplicate)));
}

#[test]
fn a_commit_that_leaves_out_a_pending_departure_is_refused() {
    let mut world = World::with(Suite::Classic, &["bo/1", "cy/1"]);
    // ana/1 has not heard of it.
    let stale = world.commit("ana/1", &renewal());
    let expelled = world.hub.expel(&device_id("cy/1"), &hub_key(), now()).unwrap();
    world.hub = expelled.group;
    let refusal = refused(&world, &stale.update_request, Some(&stale.signature));
    assert_eq!(refusal.code, Code::MissingProposal);
    world.device("ana/1").group.clear_pending().unwrap();
    for device in &mut world.devices {
        device.receive(&expelled.message);
    }
    let bundle = world.commit("ana/1", &Change::default());
    world.accept(&bundle);
}

#[test]
fn only_the_hub_expels_and_only_a_user_takes_its_own_devices_away() {
    let mut world = World::with(Suite::Classic, &["bo/1", "cy/1"]);
    let fake = NodeKey::from_bytes(&[1; 32]);
    assert!(world.hub.expel(&device_id("cy/1"), &fake, now()).is_err());
    let stranger = world.hub.expel(&device_id("di/1"), &hub_key(), now());
    assert_eq!(stranger.err().unwrap().code, Code::NotFound);
    let other = world.device("bo/1").group.leave(&[device_id("cy/1")], &Dice::new());
    assert!(other.is_err());
}
