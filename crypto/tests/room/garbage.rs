//! Bytes that are nothing, or nearly something: refused, with no panic and no change.

use std::sync::{LazyLock, Mutex};

use crypto::group::{Change, Received};
use crypto::{Certificate, Group, HubGroup, Suite, group_info, key_material, keypackage};
use proptest::prelude::*;

use crate::common::{Device, World, device_id, hub_key, identity, now, room};

/// A room with real messages of every kind, made once.
struct Stage {
    hub: HubGroup,
    bo: Device,
    /// Bundles, commits, messages, Welcomes, KeyPackages.
    real: Vec<Vec<u8>>,
}

static STAGE: LazyLock<Mutex<Stage>> = LazyLock::new(|| {
    let mut world = World::with(Suite::Classic, &["bo/1"]);
    let made = world.package("cy/1");
    let message = world.devices[0].send("hello", &world.dice);
    let leave = world.devices[1].group.leave(&[], &world.dice).unwrap();
    world.devices[1].save();
    let change = Change {
        add: vec![made.public.clone()],
        participants: world.listing("cy/1"),
        renew: true,
        ..Default::default()
    };
    let bundle = world.commit("ana/1", &change);
    let applied = world.apply(&bundle);
    let real = vec![
        bundle.update_request,
        applied.commit,
        applied.welcome.unwrap().message,
        message,
        leave.update_request,
        made.public,
        identity("bo/1").certificate().as_bytes().to_vec(),
        world.hub.to_bytes(),
        world.hub.tree_bytes(),
    ];
    let bo = world.devices.remove(1);
    Mutex::new(Stage { hub: world.hub, bo, real })
});

/// Real bytes with a part overwritten, cut out or put in twice.
fn nearly() -> impl Strategy<Value = (usize, usize, Vec<u8>)> {
    (any::<usize>(), 0..64_usize, prop::collection::vec(any::<u8>(), 0..64))
}

fn try_all(stage: &mut Stage, bytes: &[u8]) {
    let before = stage.hub.to_bytes();
    // A hub takes it only if it is the real thing, which `bytes` may be when nothing was changed.
    drop(stage.hub.apply(bytes, Some(&[0; 64]), now()));
    drop(stage.hub.propose(bytes, Some(&[0; 64]), now()));
    drop(HubGroup::from_bytes(bytes));
    let founder = device_id("ana/1");
    assert!(HubGroup::create(&room(), &hub_key().public(), bytes, bytes, &founder).is_err());
    drop(keypackage::inspect(bytes, now()));
    drop(Certificate::verify(bytes));
    assert!(key_material::verify(bytes).is_err());
    assert!(group_info::verify(bytes).is_err());
    drop(Group::welcome_for(bytes));
    assert!(
        Group::join(&room(), bytes, bytes, &stage.bo.stored, identity("bo/1")).is_err(),
        "nobody joins by garbage"
    );
    assert_eq!(stage.hub.to_bytes(), before);
    let received = stage.bo.group.receive(bytes).unwrap();
    if matches!(received, Received::Unreadable(_)) {
        assert!(stage.bo.group.writes().is_empty(), "unreadable, and nothing changed");
    } else {
        // It was the real thing. Forget that it was opened.
        stage.bo.group = Group::load(stage.bo.stored.clone(), identity("bo/1")).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_that_comes_in_makes_a_hub_or_a_member_panic_or_change(
        which in any::<usize>(),
        (at, cut, put) in nearly(),
    ) {
        let mut stage = STAGE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let real = &stage.real[which % stage.real.len()];
        let start = at % (real.len() + 1);
        let end = (start + cut).min(real.len());
        let bytes = [&real[..start], &put, &real[end..]].concat();
        try_all(&mut stage, &bytes);
        try_all(&mut stage, &put);
    }
}
