//! How each thing looks, for people and for programs. The JSON fields are described in docs/CLI.md and are stable.

use std::fmt::Write as _;

use client::{Device, Event, Flag, Member, Message, RoomInfo, State, WhoAmI};
use protocol::{RoomId, SubmitId, Timestamp};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::output::Show;
use crate::text::{visible, visible_lines};

const NEVER: &str = "writing to a String cannot fail";

/// RFC 3339 in UTC, to the millisecond.
fn rfc3339(at: Timestamp) -> String {
    let nanos = i128::from(at.ms()) * 1_000_000;
    OffsetDateTime::from_unix_timestamp_nanos(nanos)
        .ok()
        .and_then(|t| t.format(&Rfc3339).ok())
        .unwrap_or_else(|| at.to_string())
}

/// `2026-11-24 10:02:31`, in UTC.
fn short_time(at: Timestamp) -> String {
    let text = rfc3339(at);
    text.get(..19).unwrap_or(&text).replace('T', " ")
}

/// `{"user", "handle", "device", "device_name", "node", "address", "node_key", "identity_key"}`.
#[derive(Serialize)]
pub(crate) struct WhoJson {
    user: String,
    handle: String,
    device: String,
    device_name: String,
    node: String,
    address: String,
    node_key: String,
    identity_key: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect(NEVER);
        text
    })
}

impl Show for WhoAmI {
    type Json = WhoJson;

    fn json(&self) -> WhoJson {
        WhoJson {
            user: self.user.to_string(),
            handle: self.user.handle(),
            device: self.device.to_string(),
            device_name: self.device_name.clone(),
            node: self.node.to_string(),
            address: format!("{}:{}", self.host, self.port),
            node_key: hex(&self.node_key),
            identity_key: hex(&self.identity_key),
        }
    }

    fn text(&self) -> String {
        format!(
            "{}\ndevice   {} ({})\nnode     {} at {}:{}\nidentity {}",
            self.user.handle(),
            self.device,
            visible(&self.device_name),
            self.node,
            visible(&self.host),
            self.port,
            hex(&self.identity_key)
        )
    }
}

/// `{"device", "name", "created", "seen", "revoked", "this"}`; times in RFC 3339 or null.
#[derive(Serialize)]
pub(crate) struct DeviceJson {
    device: String,
    name: String,
    created: String,
    seen: Option<String>,
    revoked: Option<String>,
    this: bool,
}

impl Show for Device {
    type Json = DeviceJson;

    fn json(&self) -> DeviceJson {
        DeviceJson {
            device: self.device.to_string(),
            name: self.name.clone(),
            created: rfc3339(self.created),
            seen: self.seen.map(rfc3339),
            revoked: self.revoked.map(rfc3339),
            this: self.this,
        }
    }

    fn text(&self) -> String {
        let state = match (self.revoked, self.seen) {
            (Some(at), _) => format!("revoked {}", short_time(at)),
            (None, Some(at)) => format!("seen {}", short_time(at)),
            (None, None) => "never seen".to_owned(),
        };
        let this = if self.this { "  (this one)" } else { "" };
        format!("{}  {}  {state}{this}", self.device, visible(&self.name))
    }
}

/// `{"line"}`: a line to paste elsewhere.
#[derive(Serialize)]
pub(crate) struct LineJson {
    line: String,
}

/// A line to paste elsewhere.
pub(crate) struct Line(pub(crate) String);

impl Show for Line {
    type Json = LineJson;

    fn json(&self) -> LineJson {
        LineJson { line: self.0.clone() }
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}

/// `{"user", "safety_number"}`.
#[derive(Serialize)]
pub(crate) struct ContactJson {
    user: String,
    safety_number: String,
}

/// Somebody, and the number to compare with them.
pub(crate) struct Contact {
    /// Who.
    pub(crate) user: protocol::UserId,
    /// See `Client::safety_number`.
    pub(crate) number: String,
}

impl Show for Contact {
    type Json = ContactJson;

    fn json(&self) -> ContactJson {
        ContactJson { user: self.user.handle(), safety_number: self.number.clone() }
    }

    fn text(&self) -> String {
        format!("{}  {}", self.user.handle(), self.number)
    }
}

/// `{"room", "name", "status", "reason"?, "hub", "suite", "epoch", "seq", "members": [{"user", "role", "devices"}]}`.
#[derive(Serialize)]
pub(crate) struct RoomJson {
    room: String,
    name: Option<String>,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    hub: String,
    suite: u16,
    epoch: u64,
    seq: u64,
    members: Vec<MemberJson>,
}

#[derive(Serialize)]
struct MemberJson {
    user: String,
    role: &'static str,
    devices: Vec<String>,
}

fn held_reason(room: &RoomInfo) -> Option<String> {
    match &room.status {
        client::RoomStatus::Held { seq, reason } => Some(format!("entry {seq}: {reason}")),
        _ => None,
    }
}

impl Show for RoomInfo {
    type Json = RoomJson;

    fn json(&self) -> RoomJson {
        let member = |m: &Member| MemberJson {
            user: m.user.handle(),
            role: m.role.as_str(),
            devices: m.devices.iter().map(ToString::to_string).collect(),
        };
        RoomJson {
            room: self.room.to_string(),
            name: self.name.clone(),
            status: self.status.as_str(),
            reason: held_reason(self),
            hub: self.room.hub().to_string(),
            suite: self.suite,
            epoch: self.epoch.get(),
            seq: self.seq.get(),
            members: self.members.iter().map(member).collect(),
        }
    }

    fn text(&self) -> String {
        let name = self.name.as_deref().map(visible).unwrap_or_default();
        let mut text = format!("{}  {name}  {}", self.room, self.status.as_str());
        if let Some(reason) = held_reason(self) {
            write!(text, "\n    {}", visible(&reason)).expect(NEVER);
        }
        for member in &self.members {
            let devices = member.devices.len();
            let plural = if devices == 1 { "" } else { "s" };
            let (who, role) = (member.user.handle(), member.role.as_str());
            write!(text, "\n    {who} {role} ({devices} device{plural})").expect(NEVER);
        }
        text
    }
}

/// `{"submit_id", "room", "state", "seq", "at", "error"?: {"code", "message"}, "waiting"?: {"code", "message"}}`.
#[derive(Serialize)]
pub(crate) struct SubmissionJson {
    submit_id: String,
    room: String,
    state: &'static str,
    seq: Option<u64>,
    at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RefusedJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<RefusedJson>,
}

#[derive(Serialize)]
struct RefusedJson {
    code: &'static str,
    message: String,
}

impl RefusedJson {
    fn new(failure: &client::Failure) -> Self {
        Self { code: failure.code.as_str(), message: failure.sentence.clone() }
    }
}

/// What became of a submission.
pub(crate) struct Submission<'a> {
    /// Which.
    pub(crate) submit_id: &'a SubmitId,
    /// Where.
    pub(crate) room: &'a RoomId,
    /// How far.
    pub(crate) state: &'a State,
}

impl Show for Submission<'_> {
    type Json = SubmissionJson;

    fn json(&self) -> SubmissionJson {
        SubmissionJson {
            submit_id: self.submit_id.to_string(),
            room: self.room.to_string(),
            state: self.state.as_str(),
            seq: self.state.seq.map(protocol::Seq::get),
            at: self.state.at.map(rfc3339),
            error: self.state.failed.as_ref().map(RefusedJson::new),
            waiting: self.state.waiting.as_ref().map(RefusedJson::new),
        }
    }

    fn text(&self) -> String {
        let place = self.state.seq.map(|s| format!(" as number {s}")).unwrap_or_default();
        let waits =
            self.state.waiting.as_ref().filter(|_| self.state.stage < client::Stage::Accepted);
        let why = self.state.failed.as_ref().or(waits);
        let why = why.map(|f| format!(": {}", visible(&f.sentence)));
        format!("{}{place}{}", self.state.as_str(), why.unwrap_or_default())
    }
}

/// `{"event": "message", "room", "message_id", "submit_id", "sender", "device", "counter", "text", "seq", "at", "written",
/// "late", "flags"}`. `seq` and `at` are null until the room's hub has accepted the message.
#[derive(Serialize)]
pub(crate) struct MessageJson {
    event: &'static str,
    room: String,
    message_id: String,
    submit_id: Option<String>,
    sender: String,
    device: String,
    counter: u64,
    text: String,
    seq: Option<u64>,
    at: Option<String>,
    written: String,
    late: bool,
    flags: Vec<&'static str>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<RefusedJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waiting: Option<RefusedJson>,
}

/// A message and its room.
pub(crate) struct InRoom<'a> {
    /// Where.
    pub(crate) room: &'a RoomId,
    /// What.
    pub(crate) message: &'a Message,
    /// How far it is, when this device wrote it and it has no place yet.
    pub(crate) state: Option<State>,
    /// What the room is called where that is not clear.
    pub(crate) label: Option<String>,
}

impl Show for InRoom<'_> {
    type Json = MessageJson;

    fn json(&self) -> MessageJson {
        let m = self.message;
        MessageJson {
            event: "message",
            room: self.room.to_string(),
            message_id: m.message_id.to_string(),
            submit_id: m.submit_id.map(|s| s.to_string()),
            sender: m.sender.handle(),
            device: m.device.to_string(),
            counter: m.counter,
            text: m.text.clone(),
            seq: m.seq.map(protocol::Seq::get),
            at: m.at.map(rfc3339),
            written: rfc3339(m.written),
            late: m.late,
            flags: m.flags.iter().map(|f| Flag::as_str(*f)).collect(),
            state: self.state.as_ref().map_or("accepted", State::as_str),
            error: self.state.as_ref().and_then(|s| s.failed.as_ref()).map(RefusedJson::new),
            waiting: self.state.as_ref().and_then(|s| s.waiting.as_ref()).map(RefusedJson::new),
        }
    }

    fn text(&self) -> String {
        let m = self.message;
        let mut marks: Vec<String> = m.flags.iter().map(|f| f.as_str().to_owned()).collect();
        if m.late {
            marks.push("late".to_owned());
        }
        let state = self.state.as_ref();
        let failed = state.and_then(|s| s.failed.as_ref());
        match (failed, state.and_then(|s| s.waiting.as_ref())) {
            (Some(why), _) => marks.push(format!("failed: {}", visible(&why.sentence))),
            (None, _) if m.seq.is_some() => {}
            (None, Some(why)) => marks.push(format!("waiting: {}", visible(&why.sentence))),
            (None, None) => marks.push("waiting".to_owned()),
        }
        let marks =
            if marks.is_empty() { String::new() } else { format!(" ({})", marks.join(", ")) };
        let (when, who) = (short_time(m.at.unwrap_or(m.written)), m.sender.handle());
        let room = self.label.as_deref().map(|l| format!("[{}] ", visible(l))).unwrap_or_default();
        format!("{when} {room}{who}{marks}: {}", visible_lines(&m.text))
    }
}

/// Any other event: `{"event", "room"?, …}`.
#[derive(Serialize)]
pub(crate) struct EventJson {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    room: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    submit_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    added: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
}

impl EventJson {
    fn new(event: &'static str, room: Option<&RoomId>) -> Self {
        Self {
            event,
            room: room.map(ToString::to_string),
            submit_id: None,
            state: None,
            seq: None,
            last: None,
            kind: None,
            added: Vec::new(),
            removed: Vec::new(),
            message: None,
        }
    }
}

impl Show for Event {
    type Json = EventJson;

    fn json(&self) -> EventJson {
        let handles =
            |users: &[protocol::UserId]| users.iter().map(protocol::UserId::handle).collect();
        match self {
            Self::Message { room, .. } => EventJson::new("message", Some(room)),
            Self::StateChanged { submit_id, room, state } => EventJson {
                submit_id: Some(submit_id.to_string()),
                state: Some(state.as_str()),
                seq: state.seq.map(protocol::Seq::get),
                message: state.failed.as_ref().map(|f| f.sentence.clone()),
                ..EventJson::new("state", Some(room))
            },
            Self::RoomJoined { room } => EventJson::new("joined", Some(room)),
            Self::RoomLeft { room } => EventJson::new("left", Some(room)),
            Self::MemberChanged { room, added, removed } => EventJson {
                added: handles(added),
                removed: handles(removed),
                ..EventJson::new("members", Some(room))
            },
            Self::Gap { room, first, last, reason } => EventJson {
                seq: Some(first.get()),
                last: Some(last.get()),
                kind: Some(match reason {
                    protocol::api::GapReason::Expired => "expired",
                    protocol::api::GapReason::Lost => "lost",
                }),
                ..EventJson::new("gap", Some(room))
            },
            Self::Alarm(alarm) => EventJson {
                kind: Some(alarm.kind.as_str()),
                message: Some(alarm.sentence.clone()),
                ..EventJson::new("alarm", alarm.room.as_ref())
            },
            Self::Connected => EventJson::new("connected", None),
            Self::Disconnected { cause } => {
                EventJson { message: Some(cause.clone()), ..EventJson::new("disconnected", None) }
            }
            _ => EventJson::new("other", None),
        }
    }

    fn text(&self) -> String {
        let json = self.json();
        let mut words = vec![format!("-- {}", json.event)];
        words.extend(json.room);
        words.extend(json.state.map(str::to_owned));
        words.extend(json.kind.map(str::to_owned));
        words.extend(json.added.iter().map(|u| format!("+{u}")));
        words.extend(json.removed.iter().map(|u| format!("-{u}")));
        match (json.seq, json.last) {
            (Some(first), Some(last)) => words.push(format!("{first} to {last}")),
            (Some(seq), None) => words.push(format!("number {seq}")),
            (None, _) => {}
        }
        words.extend(json.message.map(|m| visible(&m)));
        words.join(" ")
    }
}
