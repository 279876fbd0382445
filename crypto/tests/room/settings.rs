//! The settings of PROTOCOL §7.2: each test fails under the library's default.

use std::time::Duration;

use crate::common::{Dice, World, days, device_id, identity, now, room};
use crypto::group::{Change, Received, Why};
use crypto::keypackage::{self, Use};
use crypto::{Group, Suite};
use protocol::{Code, limit};

fn renew(world: &mut World, by: &str) {
    let bundle = world.commit(by, &Change { renew: true, ..Default::default() });
    world.accept(&bundle);
}

#[test]
fn a_message_from_before_five_commits_still_opens_and_an_older_one_says_so() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let older = world.devices[0].send("older", &world.dice);
    renew(&mut world, "ana/1");
    let late = world.devices[0].send("late", &world.dice);
    for by in ["ana/1", "bo/1", "ana/1", "bo/1", "ana/1"] {
        renew(&mut world, by);
    }
    assert_eq!(world.device("bo/1").reads(&late), "late");
    assert!(matches!(world.device("bo/1").receive(&older), Received::Unreadable(Why::TooOld)));
}

#[test]
fn a_late_message_opens_after_its_sender_has_left() {
    let mut world = World::with(Suite::Classic, &["bo/1", "cy/1"]);
    let late = world.devices[1].send("late", &world.dice);
    let change = Change { remove: vec![device_id("bo/1")], ..Default::default() };
    let bundle = world.commit("ana/1", &change);
    world.accept(&bundle);
    let Received::Application(message) = world.device("cy/1").receive(&late) else { panic!() };
    assert_eq!(message.from, device_id("bo/1"));
}

#[test]
fn a_message_sixty_places_late_opens_and_each_opens_once() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let dice = Dice::new();
    let ana = &mut world.devices[0];
    let messages: Vec<Vec<u8>> =
        (0..61).map(|n| ana.group.encrypt(format!("{n}").as_bytes(), &dice).unwrap()).collect();
    ana.save();
    let bo = world.device("bo/1");
    assert_eq!(bo.reads(&messages[60]), "60");
    for (n, message) in messages.iter().take(60).enumerate() {
        assert_eq!(bo.reads(message), n.to_string());
    }
    for message in &messages {
        assert!(matches!(bo.receive(message), Received::Unreadable(Why::Duplicate)));
    }
}

#[test]
fn nine_thousand_lost_messages_do_not_silence_their_sender() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let dice = Dice::new();
    let ana = &mut world.devices[0];
    for _ in 0..9000 {
        ana.group.encrypt(b"lost", &dice).unwrap();
    }
    let message = ana.group.encrypt(b"found", &dice).unwrap();
    ana.save();
    assert_eq!(world.device("bo/1").reads(&message), "found");
}

#[test]
fn sizes_say_little() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let dice = Dice::new();
    let mut size = |n: usize| world.devices[0].group.encrypt(&vec![b'x'; n], &dice).unwrap().len();
    let short = size(1);
    assert_eq!(short, size(100));
    assert_eq!(short % limit::PADDING_BYTES, size(300) % limit::PADDING_BYTES);
    assert_eq!(size(300) - short, limit::PADDING_BYTES);
}

#[test]
fn key_packages_are_valid_a_day_back_and_sixty_days_on() {
    let world = World::new(Suite::Classic);
    let (at, made) = (now(), world.package("bo/1"));
    let info = keypackage::inspect(&made.public, at).unwrap();
    assert_eq!(info.reference, made.reference);
    assert_eq!(info.what, Use::Once);
    assert_eq!(info.certificate.device(), &device_id("bo/1"));
    assert!(info.not_before <= at.before(days(1)) && info.not_after >= at.after(days(59)));
    // It can be handed out for 23 days, and then lives long enough for everybody's queue.
    assert!(keypackage::inspect(&made.public, at.after(days(22))).is_ok());
    let late = keypackage::inspect(&made.public, at.after(days(24)));
    assert_eq!(late.unwrap_err().code, Code::BadKeyPackage);
    let early = keypackage::inspect(&made.public, at.before(days(2)));
    assert_eq!(early.unwrap_err().code, Code::BadKeyPackage);
}

#[test]
fn a_clock_some_hours_wrong_makes_key_packages_that_everybody_takes() {
    let mut world = World::new(Suite::Classic);
    for (name, at) in [("bo/1", now().before(days(1) / 4)), ("cy/1", now().after(days(1) / 4))] {
        let made =
            keypackage::make(Suite::Classic, &identity(name), Use::Once, at, &world.dice).unwrap();
        keypackage::inspect(&made.public, now()).unwrap();
        let change = Change {
            add: vec![made.public],
            participants: world.listing(name),
            ..Default::default()
        };
        let bundle = world.commit("ana/1", &change);
        world.accept(&bundle);
    }
}

#[test]
fn hub_and_committer_refuse_a_key_package_that_could_expire_in_somebodys_queue() {
    let mut world = World::new(Suite::Classic);
    let old = now().before(days(30));
    let made =
        keypackage::make(Suite::Classic, &identity("bo/1"), Use::Once, old, &world.dice).unwrap();
    let change = Change {
        add: vec![made.public],
        participants: world.listing("bo/1"),
        ..Default::default()
    };
    let refused = world.devices[0].group.commit(&change, now(), &world.dice);
    assert!(refused.is_err());
    // A committer with a wrong clock builds it; the hub does not take it.
    let bundle = world.devices[0].group.commit(&change, old, &world.dice).unwrap();
    let refused = world.hub.apply(&bundle.update_request, Some(&bundle.signature), now());
    assert_eq!(refused.err().unwrap().code, Code::BadKeyPackage);
}

/// The one test that waits: the library reads the system's clock.
#[test]
fn a_commit_with_an_expired_key_package_is_held_and_harms_nothing() {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    // Expires in 1 to 2 seconds. Committer and hub are told an earlier time.
    let made_at = now().after(Duration::from_secs(2)).before(limit::KEYPACKAGE_LIFETIME);
    let made = keypackage::make(Suite::Classic, &identity("cy/1"), Use::Once, made_at, &world.dice)
        .unwrap();
    let change = Change {
        add: vec![made.public],
        participants: world.listing("cy/1"),
        ..Default::default()
    };
    let before = made_at.after(days(1));
    let bundle = world.devices[0].group.commit(&change, before, &world.dice).unwrap();
    world.devices[0].save();
    let applied = world.hub.apply(&bundle.update_request, Some(&bundle.signature), before).unwrap();
    world.devices[0].follow(&applied.commit);
    let tree = applied.group.tree_bytes();
    let welcome = applied.welcome.unwrap().message;
    while now() <= made.not_after {
        std::thread::sleep(Duration::from_millis(50));
    }

    let bo = world.device("bo/1");
    let stored = bo.stored.clone();
    for _ in 0..2 {
        let held = bo.receive(&applied.commit);
        assert!(matches!(held, Received::Unreadable(Why::WaitForClock)), "{held:?}");
    }
    assert_eq!(bo.stored, stored, "held, and nothing changed");

    // Who is welcomed comes in even so: the leaf was valid when it was added.
    let cy = Group::join(&room(), &welcome, &tree, &made.private, identity("cy/1")).unwrap();
    assert_eq!(cy.epoch(), world.devices[0].group.epoch());
}

#[test]
fn a_last_resort_key_package_serves_again() {
    let mut world = World::new(Suite::Classic);
    let made =
        keypackage::make(Suite::Classic, &identity("bo/1"), Use::LastResort, now(), &world.dice)
            .unwrap();
    assert_eq!(keypackage::inspect(&made.public, now()).unwrap().what, Use::LastResort);
    let change = Change {
        add: vec![made.public.clone()],
        participants: world.listing("bo/1"),
        ..Default::default()
    };
    let bundle = world.commit("ana/1", &change);
    let welcome = world.accept(&bundle).welcome.unwrap().message;
    let tree = world.hub.tree_bytes();
    for _ in 0..2 {
        let mut group =
            Group::join(&room(), &welcome, &tree, &made.private, identity("bo/1")).unwrap();
        let writes = group.writes();
        assert!(writes.delete.is_empty(), "the package's rows are the caller's");
        assert!(writes.put.keys().all(|key| key.first() != Some(&b'K')));
    }
}
