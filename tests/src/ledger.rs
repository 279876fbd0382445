//! What was sent, what each device shows, and the checker that compares the two.
//!
//! | invariant | says |
//! |---|---|
//! | I1 | what was accepted is shown on every device that was in the room at its place |
//! | I2 | nothing is shown twice |
//! | I3 | one sender's messages are in the order of that sender's counter, without a hole |
//! | I4 | devices that hold the same messages show the same order |
//! | I5 | one place holds one message, the same everywhere |
//! | I11 | nothing could not be decrypted, and nobody cried wolf |
//! | I12 | a device shows nothing from before it came or after it went |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use protocol::{DeviceId, MessageId, SubmitId};

/// One message that somebody sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// With which device.
    pub device: DeviceId,
    /// The submission.
    pub submit_id: SubmitId,
    /// Its text, which nobody else sends.
    pub text: String,
    /// Its place, once accepted; none when it was not.
    pub seq: Option<u64>,
}

/// One message as a device shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Its id.
    pub message_id: MessageId,
    /// Who wrote it.
    pub sender: DeviceId,
    /// The sender's number for it.
    pub counter: u64,
    /// Its text.
    pub text: String,
    /// Its place.
    pub seq: Option<u64>,
    /// What is odd about it.
    pub flags: Vec<&'static str>,
}

/// Which part of the room a device was there for. Between the two bounds of a side it may show a message or not.
#[derive(Clone, Copy, Debug)]
pub struct Stay {
    /// Nothing up to here may be shown.
    pub nothing_through: u64,
    /// Everything after this must be shown …
    pub all_after: u64,
    /// … up to here.
    pub all_through: u64,
    /// Nothing after this may be shown.
    pub nothing_after: u64,
}

impl Stay {
    /// There from the beginning to the end.
    pub const ALWAYS: Self =
        Self { nothing_through: 0, all_after: 0, all_through: u64::MAX, nothing_after: u64::MAX };
}

/// What one device shows, and what it said on the way.
#[derive(Clone, Debug)]
pub struct View {
    /// Which.
    pub device: DeviceId,
    /// When it was in the room.
    pub stay: Stay,
    /// The timeline, in its order.
    pub timeline: Vec<Shown>,
    /// Alarms and gaps it raised, as text.
    pub alarms: Vec<String>,
    /// Messages it announced more than once.
    pub doubles: Vec<MessageId>,
}

/// What was checked. A check of nothing proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Messages sent.
    pub sent: usize,
    /// Messages that devices had to show, all devices together.
    pub owed: usize,
    /// Pairs of devices compared.
    pub pairs: usize,
}

/// Compares. Every message must have been accepted by now.
///
/// # Errors
/// Every violation, one a line.
pub fn check(sent: &[Sent], views: &[View]) -> Result<Checked, String> {
    let mut wrong = Vec::new();
    let mut checked = Checked { sent: sent.len(), ..Checked::default() };
    for message in sent.iter().filter(|m| m.seq.is_none()) {
        wrong.push(format!("I1: {:?} of {} was never accepted", message.text, message.device));
    }
    for view in views {
        checked.owed += nothing_lost(sent, view, &mut wrong);
        nothing_twice(view, &mut wrong);
        sender_order(view, &mut wrong);
        quiet(view, &mut wrong);
    }
    places(sent, views, &mut wrong);
    for (i, one) in views.iter().enumerate() {
        for other in views.iter().skip(i + 1) {
            checked.pairs += 1;
            same_order(one, other, &mut wrong);
        }
    }
    if wrong.is_empty() {
        return Ok(checked);
    }
    let mut text = format!("{} violations", wrong.len());
    for line in wrong.iter().take(40) {
        write!(text, "\n  {line}").expect("writing to a String cannot fail");
    }
    Err(text)
}

/// I1 and I12; how many messages the device had to show.
fn nothing_lost(sent: &[Sent], view: &View, wrong: &mut Vec<String>) -> usize {
    let stay = view.stay;
    let shown: BTreeSet<(&DeviceId, &str)> =
        view.timeline.iter().map(|m| (&m.sender, m.text.as_str())).collect();
    let mut owed = 0;
    for message in sent {
        let Some(seq) = message.seq else { continue };
        if seq > stay.all_after && seq <= stay.all_through {
            owed += 1;
            if !shown.contains(&(&message.device, message.text.as_str())) {
                wrong.push(format!("I1: {} lost {:?} (seq {seq})", view.device, message.text));
            }
        }
    }
    let written: BTreeSet<(&DeviceId, &str)> =
        sent.iter().map(|m| (&m.device, m.text.as_str())).collect();
    for message in &view.timeline {
        if !written.contains(&(&message.sender, message.text.as_str())) {
            wrong.push(format!("I1: {} shows {:?}, which nobody sent", view.device, message.text));
        }
        let outside = |seq: u64| seq <= stay.nothing_through || seq > stay.nothing_after;
        if message.seq.is_some_and(outside) {
            wrong.push(format!(
                "I12: {} was there for {stay:?} and shows {:?} (seq {:?})",
                view.device, message.text, message.seq
            ));
        }
    }
    owed
}

/// I2.
fn nothing_twice(view: &View, wrong: &mut Vec<String>) {
    let (mut ids, mut numbers, mut texts) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for m in &view.timeline {
        let fresh = [
            ids.insert(m.message_id),
            numbers.insert((&m.sender, m.counter)),
            texts.insert((&m.sender, &m.text)),
        ];
        if fresh.contains(&false) {
            wrong.push(format!("I2: {} shows {:?} twice", view.device, m.text));
        }
    }
    for id in &view.doubles {
        wrong.push(format!("I2: {} announced {id} twice", view.device));
    }
}

/// I3.
fn sender_order(view: &View, wrong: &mut Vec<String>) {
    let mut last: BTreeMap<&DeviceId, u64> = BTreeMap::new();
    for m in &view.timeline {
        let before = last.insert(&m.sender, m.counter);
        // The first one seen may have any number: earlier ones may be from before the device came.
        if before.is_some_and(|before| m.counter != before + 1) {
            wrong.push(format!(
                "I3: on {}, {} goes from {before:?} to {} at {:?}",
                view.device, m.sender, m.counter, m.text
            ));
        }
    }
}

/// I5.
fn places(sent: &[Sent], views: &[View], wrong: &mut Vec<String>) {
    let known = sent.iter().filter_map(|m| Some((m.seq?, m.text.as_str())));
    let shown = views.iter().flat_map(|v| &v.timeline);
    let seen = shown.filter_map(|m| Some((m.seq?, m.text.as_str())));
    let mut holds: BTreeMap<u64, &str> = BTreeMap::new();
    for (seq, text) in known.chain(seen) {
        let first = *holds.entry(seq).or_insert(text);
        if first != text {
            wrong.push(format!("I5: place {seq} holds both {first:?} and {text:?}"));
        }
    }
}

/// I4.
fn same_order(one: &View, other: &View, wrong: &mut Vec<String>) {
    let ids = |view: &View| view.timeline.iter().map(|m| m.message_id).collect::<BTreeSet<_>>();
    let both: BTreeSet<_> = ids(one).intersection(&ids(other)).copied().collect();
    let order = |view: &View| {
        let common = view.timeline.iter().filter(|m| both.contains(&m.message_id));
        common.map(|m| (m.message_id, m.seq, m.text.clone())).collect::<Vec<_>>()
    };
    let (here, there) = (order(one), order(other));
    if let Some(at) = here.iter().zip(&there).position(|(a, b)| a != b) {
        wrong.push(format!(
            "I4: {} and {} differ at {at}: {:?} and {:?}",
            one.device,
            other.device,
            here.get(at),
            there.get(at)
        ));
    }
}

/// I11.
fn quiet(view: &View, wrong: &mut Vec<String>) {
    for alarm in &view.alarms {
        wrong.push(format!("I11: {} said: {alarm}", view.device));
    }
    for m in view.timeline.iter().filter(|m| !m.flags.is_empty()) {
        wrong.push(format!("I11: {} flags {:?} as {:?}", view.device, m.text, m.flags));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        DeviceId::parse(&format!("mimi://a.example/d/{name}/1")).unwrap()
    }

    fn sent(sender: &str, n: u64, seq: u64) -> Sent {
        let submit_id = SubmitId::from_bytes([u8::try_from(n).unwrap(); 16]);
        let text = format!("{sender} {n}");
        Sent { device: device(sender), submit_id, text, seq: Some(seq) }
    }

    fn shown(m: &Sent, counter: u64) -> Shown {
        let mut id = [0; 32];
        id[0] = u8::try_from(m.seq.unwrap()).unwrap();
        Shown {
            message_id: MessageId::from_bytes(id),
            sender: m.device.clone(),
            counter,
            text: m.text.clone(),
            seq: m.seq,
            flags: vec![],
        }
    }

    fn view(name: &str, timeline: Vec<Shown>) -> View {
        let (alarms, doubles) = (vec![], vec![]);
        View { device: device(name), stay: Stay::ALWAYS, timeline, alarms, doubles }
    }

    /// Four messages, two devices that show them all.
    fn honest() -> (Vec<Sent>, Vec<View>) {
        let sent = vec![sent("ana", 1, 2), sent("bea", 1, 3), sent("ana", 2, 5), sent("bea", 2, 6)];
        let line: Vec<_> =
            sent.iter().zip([1, 1, 2, 2]).map(|(m, counter)| shown(m, counter)).collect();
        (sent, vec![view("ana", line.clone()), view("bea", line)])
    }

    #[test]
    fn an_honest_run_passes_and_says_how_much_was_checked() {
        let (sent, views) = honest();
        assert_eq!(check(&sent, &views), Ok(Checked { sent: 4, owed: 8, pairs: 1 }));
    }

    #[test]
    fn every_planted_fault_is_caught_by_its_invariant() {
        type Fault = fn(&mut Vec<Sent>, &mut Vec<View>);
        let faults: [(&str, Fault); 13] = [
            ("I1", |_, v| drop(v[1].timeline.pop())),
            ("I1", |s, _| s[3].seq = None),
            ("I1", |s, _| drop(s.remove(0))),
            ("I2", |_, v| v[0].timeline.extend_from_within(3..)),
            ("I2", |_, v| v[0].doubles.push(MessageId::from_bytes([9; 32]))),
            ("I3", |_, v| v[0].timeline.swap(0, 2)),
            ("I3", |_, v| v[0].timeline[2].counter = 3),
            ("I4", |_, v| v[1].timeline.swap(0, 1)),
            ("I5", |_, v| v[1].timeline[1].seq = Some(2)),
            ("I5", |s, _| s[1].seq = Some(2)),
            ("I11", |_, v| v[0].alarms.push("fork".into())),
            ("I11", |_, v| v[0].timeline[1].flags.push("gap-before")),
            ("I12", |_, v| v[1].stay.nothing_through = 2),
        ];
        for (i, (invariant, fault)) in faults.iter().enumerate() {
            let (mut sent, mut views) = honest();
            fault(&mut sent, &mut views);
            let found = check(&sent, &views).expect_err("a fault");
            assert!(found.contains(&format!("{invariant}:")), "fault {i}: {found}");
        }
    }

    #[test]
    fn a_device_that_came_late_and_went_early_owes_only_its_time() {
        let (sent, mut views) = honest();
        views[1].timeline = views[1].timeline[1..3].to_vec();
        views[1].stay = Stay { nothing_through: 2, all_after: 2, all_through: 5, nothing_after: 5 };
        assert_eq!(check(&sent, &views), Ok(Checked { sent: 4, owed: 6, pairs: 1 }));
    }
}
