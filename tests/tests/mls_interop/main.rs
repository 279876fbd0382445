//! Conformance with another MLS implementation, the crate mls-rs: its clients are devices in our rooms, ours are devices in
//! rooms it founded, and the hub follows both. Everything of ours goes through the API that nodes and clients use; everything
//! of theirs is made from RFC 9420 and PROTOCOL alone.
//!
//! What mls-rs 0.57 cannot do, each with a test that will say so when a later one can:
//!
//! - follow a commit with an AppDataUpdate (a change of the participant list) or take a SelfRemove. To it both are custom
//!   proposals, and those it writes and reads as one byte string, `opaque data<V>`; what the drafts define has another shape,
//!   so its decoder stops before any rule of the application (`MlsRules`) is asked. Nothing happens to its state, and it
//!   comes back by an external commit;
//! - make one of the two, for the same reason. So it cannot bring a new person in, only devices of people who are listed;
//! - the hybrid suite: its RustCrypto provider does not have it.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper of tests may fail the test"
)]

mod room;

use std::time::Duration;

use crypto::Suite;
use crypto::group::{Change, Received, Why};
use crypto::keypackage::{self, Use};
use mls_rs::error::MlsError;
use mls_rs::group::ReceivedMessage;
use mls_rs::group::proposal::CustomProposal;
use mls_rs::identity::basic::BasicIdentityProvider;
use mls_rs::{CipherSuite, Client, CryptoProvider as _, MlsMessage};
use mls_rs_crypto_rustcrypto::RustCryptoProvider;
use protocol::mimi::{CommitBytes, HandshakeBundle, KeyPackageBytes, ProposalBytes};
use protocol::room::{Participant, ParticipantsUpdate, Role};
use protocol::{Code, limit};

use room::{
    APP_DATA_UPDATE, Dice, Room, SELF_REMOVE, SUITE, bound, bundle_of, client, client_of, device,
    hub_key, identity, message, now, package, removal, renewal, secret, signing, suite, user,
    vector,
};

#[test]
fn an_mls_rs_client_joins_a_room_of_ours_and_both_read_each_other() {
    let mut room = Room::of_ours("ana/1");
    room.invite("ana/1", "bo/1", &client("bo/1"));
    room.talk();

    // What is padded to one size is read as what it was.
    let texts = ["", "short", "some words more than that"];
    let sent = texts.map(|t| room.ours("ana/1").group.encrypt(t.as_bytes(), &Dice).unwrap());
    assert!(sent.iter().all(|m| m.len() == sent[0].len()), "padding hides the length");
    for (text, message) in texts.iter().zip(&sent) {
        assert_eq!(room.theirs("bo/1").reads(message, "ana/1"), *text);
    }
}

#[test]
fn a_device_of_ours_joins_a_room_made_by_mls_rs_and_both_read_each_other() {
    let mut room = Room::of_theirs("ana/1", &client("ana/1"));
    assert_eq!(room.hub.epoch().get(), 0);
    room.invite_ours("ana/1", "ana/2");
    room.talk();
    assert_eq!(room.ours("ana/2").group.hub_key().unwrap(), hub_key().public());

    // Ours may do there what it may do at home.
    let participants = ParticipantsUpdate {
        added: vec![Participant { user: user("bo"), role: Role::Admin }],
        ..Default::default()
    };
    let bundle = room
        .ours("ana/2")
        .group
        .commit(&Change { participants, ..Default::default() }, now(), &Dice)
        .unwrap();
    let applied = room.take(&(bundle.update_request, bundle.signature));
    room.follow_ours(&applied);
    let group = &room.ours("ana/2").group;
    assert_eq!(group.participants().unwrap().role(&user("bo")), Some(Role::Admin));
}

#[test]
fn commits_go_both_ways() {
    let mut room = Room::of_ours("ana/1");
    room.invite("ana/1", "bo/1", &client("bo/1"));

    room.commit("ana/1", &renewal());
    room.talk();
    let own = room.theirs("bo/1").commit();
    assert!(own.contains_update_path);
    let applied = room.accept(&bundle_of("bo/1", &own));
    assert_eq!(applied.facts.committer, device("bo/1"));
    assert_eq!(applied.certificates, [identity("bo/1").certificate().clone()]);
    room.talk();

    room.invite_ours("bo/1", "bo/2");
    room.invite("ana/1", "bo/3", &client("bo/3"));
    room.invite_ours("bo/3", "bo/4");
    room.talk();

    // A blank in the middle of the tree, then one at its end; made by either side.
    let leaf = room.theirs("bo/3").members().iter().position(|d| *d == Some(device("bo/2")));
    let leaf = u32::try_from(leaf.unwrap()).unwrap();
    let builder = room.theirs("bo/3").group.commit_builder().authenticated_data(bound());
    let output = builder.remove_member(leaf).unwrap().build().unwrap();
    let applied = room.accept(&bundle_of("bo/3", &output));
    assert_eq!(applied.facts.removed, [device("bo/2")]);
    room.talk();
    let applied = room.commit("bo/4", &removal("bo/3"));
    assert_eq!(applied.facts.removed, [device("bo/3")]);
    room.talk();
    room.invite("bo/4", "bo/5", &client("bo/5"));
    room.commit("ana/1", &renewal());
    room.talk();
}

#[test]
fn of_two_commits_at_once_the_loser_follows_the_winner() {
    let mut room = Room::of_ours("ana/1");
    room.invite("ana/1", "bo/1", &client("bo/1"));
    for ours_wins in [true, false] {
        let ours = room.ours("ana/1").group.commit(&renewal(), now(), &Dice).unwrap();
        let ours = (ours.update_request, ours.signature);
        let output = room.theirs("bo/1").commit();
        let theirs = bundle_of("bo/1", &output);
        let (winner, loser) = if ours_wins { (ours, theirs) } else { (theirs, ours) };
        room.accept(&winner);
        let refused = room.hub.apply(&loser.0, Some(&loser.1), now()).err().unwrap();
        assert_eq!(refused.code, Code::WrongEpoch);
        room.talk();
    }
}

#[test]
fn a_message_that_a_commit_overtook_is_read_by_either_side() {
    let mut room = Room::of_ours("ana/1");
    room.invite("ana/1", "bo/1", &client("bo/1"));
    for by_ours in [true, false] {
        let ours = room.ours("ana/1").group.encrypt(b"late", &Dice).unwrap();
        let theirs = room.theirs("bo/1").send("late");
        if by_ours {
            room.commit("ana/1", &renewal());
        } else {
            let output = room.theirs("bo/1").commit();
            room.accept(&bundle_of("bo/1", &output));
        }
        room.talk();
        assert_eq!(room.theirs("bo/1").reads(&ours, "ana/1"), "late");
        assert_eq!(room.ours("ana/1").reads(&theirs, "bo/1"), "late");
    }
}

#[test]
fn each_enters_by_an_external_commit() {
    let mut room = Room::of_theirs("ana/1", &client("ana/1"));
    let applied = room.enter_ours("ana/2");
    assert!(applied.facts.external);
    room.talk();
    let applied = room.enter("ana/3", &client("ana/3"));
    assert_eq!(applied.facts.added, [device("ana/3")]);
    room.talk();

    // Again, in the place of an earlier leaf.
    let applied = room.enter_ours("ana/2");
    assert_eq!(applied.facts.removed, [device("ana/2")]);
    let applied = room.enter("ana/1", &client("ana/1"));
    assert_eq!(applied.facts.removed, [device("ana/1")]);
    room.talk();
}

#[test]
fn mls_rs_carries_out_what_the_hub_proposes() {
    let mut room = Room::of_ours("ana/1");
    room.invite("ana/1", "bo/1", &client("bo/1"));
    room.invite_ours("bo/1", "bo/2");
    let expelled = room.hub.expel(&device("bo/2"), &hub_key(), now()).unwrap();
    room.hub = expelled.group;
    for ours in &mut room.ours {
        let received = ours.group.receive(&expelled.message).unwrap();
        assert!(matches!(received, Received::Proposal(_)), "{received:?}");
    }
    let received = room.theirs("bo/1").process(&expelled.message);
    assert!(matches!(received, ReceivedMessage::Proposal(_)));

    let output = room.theirs("bo/1").commit();
    let applied = room.accept(&bundle_of("bo/1", &output));
    assert_eq!(applied.facts.expelled, [device("bo/2")]);
    room.talk();
}

#[test]
fn mls_rs_cannot_read_an_app_data_update_and_comes_back_by_an_external_commit() {
    let mut room = Room::of_ours("ana/1");
    room.invite("ana/1", "bo/1", &client("bo/1"));
    let participants = ParticipantsUpdate {
        added: vec![Participant { user: user("cy"), role: Role::Member }],
        ..Default::default()
    };
    let change = Change { participants, ..Default::default() };
    let bundle = room.ours("ana/1").group.commit(&change, now(), &Dice).unwrap();
    let applied = room.take(&(bundle.update_request, bundle.signature));
    room.follow_ours(&applied);

    // It stops at the bytes, before any of its rules; see the head of this file.
    assert!(MlsMessage::from_bytes(&applied.commit).is_err());
    assert_eq!(room.theirs("bo/1").group.current_epoch(), room.hub.epoch().get() - 1);
    let hello = room.ours("ana/1").group.encrypt(b"hello", &Dice).unwrap();
    let processed = room.theirs("bo/1").group.process_incoming_message(message(&hello));
    assert!(processed.is_err());

    let applied = room.enter("bo/1", &client("bo/1"));
    assert_eq!(applied.facts.removed, [device("bo/1")]);
    assert_eq!(room.hub.participants().unwrap().role(&user("cy")), Some(Role::Member));
    room.talk();
}

#[test]
fn mls_rs_cannot_make_an_app_data_update_or_a_self_remove() {
    let mut room = Room::of_ours("ana/1");
    room.invite("ana/1", "bo/1", &client("bo/1"));
    let them = &mut room.theirs("bo/1").group;
    let update = ParticipantsUpdate { changed: vec![(1, Role::Admin)], ..Default::default() };
    let update = [&[0x00, 0x22, 0x01][..], &vector(&update.encode())].concat();
    let update = CustomProposal::new(APP_DATA_UPDATE, update);
    let builder = them.commit_builder().authenticated_data(bound());
    let commit = builder.custom_proposal(update).build().unwrap().commit_message;
    assert!(CommitBytes::parse(commit.to_bytes().unwrap()).is_err());
    them.clear_pending_commit();
    let leave = CustomProposal::new(SELF_REMOVE, Vec::new());
    let leave = them.propose_custom(leave, bound()).unwrap();
    assert!(ProposalBytes::parse(leave.to_bytes().unwrap()).is_err());
    them.clear_proposal_cache();
    room.talk();
}

#[test]
fn mls_rs_has_no_hybrid_suite() {
    let hybrid = CipherSuite::new(Suite::Hybrid.code());
    assert!(RustCryptoProvider::default().cipher_suite_provider(hybrid).is_none());
}

#[test]
fn mls_rs_cannot_read_a_self_remove_and_comes_back_by_an_external_commit() {
    let mut room = Room::of_ours("ana/1");
    room.invite("ana/1", "bo/1", &client("bo/1"));
    room.invite_ours("bo/1", "bo/2");
    let leave = room.ours("bo/2").group.leave(&[], &Dice).unwrap();
    let proposed = room.hub.propose(&leave.update_request, Some(&leave.signature), now()).unwrap();
    room.hub = proposed.group;
    let proposal = &proposed.messages[0];
    for ours in &mut room.ours {
        let received = ours.group.receive(proposal).unwrap();
        assert!(matches!(received, Received::Proposal(_)), "{received:?}");
    }
    assert!(MlsMessage::from_bytes(proposal).is_err());

    // While it is pending the hub takes no commit without it, so neither of mls-rs.
    let output = room.theirs("bo/1").commit();
    let (update_request, signature) = bundle_of("bo/1", &output);
    let refused = room.hub.apply(&update_request, Some(&signature), now()).err().unwrap();
    assert_eq!(refused.code, Code::MissingProposal);
    room.theirs("bo/1").group.clear_pending_commit();

    let bundle = room.ours("ana/1").group.commit(&Change::default(), now(), &Dice).unwrap();
    let applied = room.take(&(bundle.update_request, bundle.signature));
    assert_eq!(applied.facts.left, [device("bo/2")]);
    room.follow_ours(&applied);
    let commit = message(&applied.commit);
    let processed = room.theirs("bo/1").group.process_incoming_message(commit);
    assert!(matches!(processed, Err(MlsError::ProposalNotFound)), "{processed:?}");

    room.enter("bo/1", &client("bo/1"));
    room.talk();
}

#[test]
fn what_mls_allows_and_rooms_do_not_is_refused_by_hub_and_members_alike() {
    let mut room = Room::of_ours("ana/1");
    room.invite("ana/1", "bo/1", &client("bo/1"));
    let unnamed = client_of(
        signing(b"stranger", identity("cy/1").certificate().key().as_bytes()),
        secret(&identity("cy/1")),
    );
    let unnamed = message(&KeyPackageBytes::parse(package(&unnamed)).unwrap().to_message());
    let elsewhere = b"mimi://a.example/r/y".to_vec();

    let them = &mut room.theirs("bo/1").group;
    let context = them.context().extensions.clone();
    let mut outputs = Vec::new();
    outputs.push(("bound to nothing", Code::InvalidCommit, them.commit(Vec::new()).unwrap()));
    them.clear_pending_commit();
    outputs.push(("bound elsewhere", Code::InvalidCommit, them.commit(elsewhere).unwrap()));
    them.clear_pending_commit();
    let builder = them.commit_builder().authenticated_data(bound());
    let settings = builder.set_group_context_ext(context).unwrap().build().unwrap();
    outputs.push(("new settings", Code::InvalidCommit, settings));
    them.clear_pending_commit();
    let builder = them.commit_builder().authenticated_data(bound());
    let ghost = builder.add_member(unnamed).unwrap().build().unwrap();
    outputs.push(("a device without certificate", Code::BadCertificate, ghost));
    them.clear_pending_commit();

    for (name, code, output) in &outputs {
        let (update_request, signature) = bundle_of("bo/1", output);
        let refused = room.hub.apply(&update_request, Some(&signature), now()).err().unwrap();
        assert_eq!(refused.code, *code, "{name}: {refused:?}");
        let commit = output.commit_message.to_bytes().unwrap();
        let received = room.ours("ana/1").group.receive(&commit).unwrap();
        let Received::Unreadable(Why::Forged(why)) = received else {
            panic!("{name}: {received:?}");
        };
        assert_eq!(why, refused.detail, "{name}");
    }

    // New keys by a proposal: in rooms everybody commits them.
    let update = room.theirs("bo/1").group.propose_update(bound()).unwrap().to_bytes().unwrap();
    let proposals = HandshakeBundle::Proposals {
        first: ProposalBytes::parse(update.clone()).unwrap(),
        more: Vec::new(),
    };
    let refused = room.hub.propose(&proposals.encode(), None, now()).err().unwrap();
    assert_eq!(refused.code, Code::NotAllowed);
    let received = room.ours("ana/1").group.receive(&update).unwrap();
    assert!(matches!(received, Received::Unreadable(Why::Forged(_))), "{received:?}");
    room.theirs("bo/1").group.clear_proposal_cache();

    // Nothing of it has left a trace.
    room.agree();
    room.talk();
    room.commit("ana/1", &renewal());
    room.talk();
}

#[test]
fn a_key_package_of_mls_rs_is_judged_like_ours() {
    let client = client("bo/1");
    let made = package(&client);
    let info = keypackage::inspect(&made, now()).unwrap();
    let wrapped = message(&KeyPackageBytes::parse(made).unwrap().to_message());
    let reference = wrapped.key_package_reference(&suite()).unwrap().unwrap();
    assert_eq!(info.reference.as_bytes()[..], *reference);
    assert_eq!(info.certificate, *identity("bo/1").certificate());
    assert_eq!((info.suite, info.what), (Suite::Classic, Use::Once));

    // mls-rs's own year is more than what we take; a device that does not know our rooms cannot be in them.
    let year = Duration::from_hours(365 * 24);
    let longer = client.to_builder(None).key_package_lifetime(year).build();
    let bare = Client::builder()
        .identity_provider(BasicIdentityProvider)
        .crypto_provider(RustCryptoProvider::default())
        .signing_identity(
            client.signing_identity().unwrap().0.clone(),
            secret(&identity("bo/1")),
            SUITE,
        )
        .key_package_lifetime(limit::KEYPACKAGE_LIFETIME)
        .build();
    for refused in [package(&longer), package(&bare)] {
        let refused = keypackage::inspect(&refused, now()).err().unwrap();
        assert_eq!(refused.code, Code::BadKeyPackage);
    }
}
