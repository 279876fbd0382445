//! A device whose MLS state has lost step with a room comes in again, visibly and not too often.
//!
//! A hub that was restored from a backup stands in an earlier epoch than the members: it has forgotten changes that they have carried out, and
//! keys that were thrown away do not come back. So the room goes on from where its hub stands, and every device enters it there anew, by an
//! external commit. Nothing that a device has is lost; what was written for the forgotten epochs stays with those who have it.

use std::time::Duration;

use protocol::{Epoch, RoomId};

use crate::core::Work;
use crate::event::{Alarm, AlarmKind, Event};
use crate::store::{Action, RoomRow};
use crate::{Error, Result, RoomStatus, command};

/// A room is not entered anew by itself more often than this: whoever can make that necessary could else make it never end.
const EVERY: Duration = Duration::from_mins(10);

/// The hub refused something because it stands at `epoch`, and what it refused was of a later one. Whether the room is entered anew.
///
/// # Errors
/// The disk's.
pub(crate) async fn hub_is_behind(
    work: &mut Work<'_>,
    room: &RoomId,
    epoch: Epoch,
) -> Result<bool> {
    let row = work.room(room).await?;
    if row.status != RoomStatus::Active {
        return Ok(false);
    }
    let group = work.take_group(row.no).await?;
    let ahead = group.epoch() > epoch;
    work.put_group(row.no, group);
    if !ahead || !work.may_recover(room) {
        return Ok(false);
    }
    again(work, row, AlarmKind::Restored).await.map(|_| true)
}

/// Comes into a room again: the old leaf opens nothing more, and the external commit takes it out of the room.
///
/// # Errors
/// The disk's.
pub(crate) async fn again(
    work: &mut Work<'_>,
    mut row: RoomRow,
    why: AlarmKind,
) -> Result<protocol::SubmitId> {
    let group = work.take_group(row.no).await?;
    let hub_key = *group.hub_key().map_err(Error::crypto)?.as_bytes();
    work.drop_group(row.no).await?;
    row.status = RoomStatus::Joining;
    work.tx.put_room(&row).await?;
    // What was waiting for it is built anew or given up.
    command::withdraw(work, row.no).await?;
    if let Some(sentence) = sentence(why, &row.room) {
        let room = Some(row.room.clone());
        work.events.push(Event::Alarm(Alarm { kind: why, room, device: None, sentence }));
    }
    let now = work.now();
    command::want(work, &row, Action::Join(hub_key), now).await
}

fn sentence(why: AlarmKind, room: &RoomId) -> Option<String> {
    match why {
        AlarmKind::Restored => Some(format!(
            "The hub of the room {room} was restored from a backup and has forgotten changes to the room. This device joins it again; what others \
             write until then is lost here. Look who is in the room: whoever was removed since the backup may be back."
        )),
        AlarmKind::OutOfStep => Some(format!(
            "This device has lost step with the room {room} and joins it again. What others write until then is lost here; ask them to send it again."
        )),
        // Somebody asked for it.
        _ => None,
    }
}

impl Work<'_> {
    /// Whether a room may be entered anew by itself now; if so, not again for a while.
    pub(crate) fn may_recover(&mut self, room: &RoomId) -> bool {
        let now = self.now();
        let lately = self.recovered.get(room).is_some_and(|last| now < last.after(EVERY));
        if !lately {
            self.recovered.insert(room.clone(), now);
        }
        !lately
    }
}
