//! Micro benches: admit, append, encode, decrypt, and the check of a commit by the size of the room.

use bench::micro::{MEMBERS, Room};
use delivery::log::Head;
use delivery::room::{Event, RoomHead, What, admit};
use divan::{Bencher, black_box};
use protocol::api::{self, Body, Entries, Entry, LogRef, ToDevice};
use protocol::log::{Chain, Digest, EntryKind};
use protocol::{Epoch, Incarnation, RoomId, Seq, Timestamp};

fn main() {
    divan::Divan::default().run_benches();
}

/// A message of 300 bytes is so long on the wire.
const CIPHERTEXT: usize = 700;

#[divan::bench]
fn admit_a_message(bencher: Bencher) {
    let body = vec![0x5a; CIPHERTEXT];
    let head = RoomHead {
        incarnation: Incarnation::from_bytes([7; 16]),
        head: Seq::new(41),
        chain: Chain::from_bytes([1; 32]),
        last_at: Timestamp::from_ms(1),
        epoch: Epoch::new(3),
    };
    let event = Event {
        digest: Digest::of_bytes(&body),
        epoch: Epoch::new(3),
        what: What::Application(&body),
    };
    bencher.bench_local(|| admit(black_box(&head), None, &event, Timestamp::from_ms(2)));
}

#[divan::bench]
fn append_to_a_chain(bencher: Bencher) {
    let body = vec![0x5a; CIPHERTEXT];
    let head = Head { seq: Seq::new(41), chain: Chain::from_bytes([1; 32]) };
    bencher.bench_local(|| {
        black_box(&head).append(EntryKind::Application, Timestamp::from_ms(2), &body)
    });
}

#[divan::bench(args = [1, 16, 64])]
fn encode_a_push(bencher: Bencher, entries: u64) {
    let entry = |n| Entry {
        seq: Seq::new(n),
        at: Timestamp::from_ms(n),
        kind: EntryKind::Application.code(),
        body: Body::Full(vec![0x5a; CIPHERTEXT]),
    };
    let frame = ToDevice::Entries(Entries {
        log: LogRef::Room(RoomId::parse("mimi://a.example/r/room").expect("it is a room")),
        incarnation: Incarnation::from_bytes([7; 16]),
        prev_chain: Some(Chain::from_bytes([1; 32])),
        entries: (1..=entries).map(entry).collect(),
        head: Seq::new(entries),
        gap: None,
    });
    bencher.bench_local(|| api::encode(black_box(&frame)));
}

#[divan::bench(args = MEMBERS, sample_count = 20)]
fn encrypt(bencher: Bencher, members: usize) {
    let mut room = Room::make(members).expect("a room can be made");
    bencher.bench_local(|| room.message());
}

#[divan::bench(args = MEMBERS, sample_count = 20, sample_size = 8)]
fn decrypt(bencher: Bencher, members: usize) {
    let mut room = Room::make(members).expect("a room can be made");
    let mut listener = room.listener().expect("the listener is in the room");
    bencher
        .with_inputs(|| room.message().expect("the founder is in the room"))
        .bench_local_values(|message| listener.receive(&message).map(drop));
}

#[divan::bench(args = MEMBERS, sample_count = 20, sample_size = 1)]
fn check_a_commit(bencher: Bencher, members: usize) {
    let mut room = Room::make(members).expect("a room can be made");
    let renewal = room.renewal().expect("a commit can be made");
    bencher.bench_local(|| room.check(&renewal));
}

#[divan::bench(args = MEMBERS, sample_count = 20, sample_size = 1)]
fn check_a_commit_by_the_library_alone(bencher: Bencher, members: usize) {
    let mut room = Room::make(members).expect("a room can be made");
    let renewal = room.renewal().expect("a commit can be made");
    let bare = room.bare().expect("the library takes the group");
    bencher.bench_local(|| bare.check(&renewal));
}
