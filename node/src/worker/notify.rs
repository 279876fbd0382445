//! Entries of a room on their way to a follower: by a lane, or because it asked for them.

use delivery::lane::Outcome as Result_;
use delivery::reader::Span;
use federation::client::{Batch, Notified};
use federation::headers::{FanoutRange, MemberEffects};
use protocol::log::EntryKind;
use protocol::mimi::{FanoutMessage, RatchetTreeOption, TreeBytes};
use protocol::{Domain, Seq, limit};

use super::lane::Cargo;
use crate::error::{Error, Outcome, Stop};
use crate::rooms::note::Note;
use crate::store::Tx;
use crate::store::logs::{self, Bodies, Log};

/// What a lane sends next; `None` when nothing of it is kept.
pub(super) async fn load(
    tx: &mut Tx,
    log: &Log,
    peer: &Domain,
    range: (Seq, Seq),
    count: usize,
) -> Outcome<Option<(Cargo, Seq)>> {
    let Some(batch) = batch(tx, log, peer, range, count).await? else { return Ok(None) };
    let last = batch.range.last();
    Ok(Some((Cargo::Entries(batch), last)))
}

/// Entries of `log` for `peer`: after `range.0`, up to `range.1`, at most `count`. They begin later when what comes before is gone.
pub(crate) async fn batch(
    tx: &mut Tx,
    log: &Log,
    peer: &Domain,
    (after, until): (Seq, Seq),
    count: usize,
) -> Outcome<Option<Batch>> {
    let first = after.next().max(log.tail);
    let count = u64::try_from(count).unwrap_or(u64::MAX).clamp(1, limit::BATCH_ENTRIES as u64);
    let last = Seq::new(first.get().saturating_add(count - 1)).min(until);
    let Some(span) = Span::new(first, last) else { return Ok(None) };
    let entries = logs::read(tx, log.id, span, limit::BATCH_BYTES, Bodies::All).await?;
    let prev_chain = logs::chain_at(tx, log, first.prev()).await?;
    let prev_chain = prev_chain.ok_or(damaged("the chain of a log"))?;
    let (mut messages, mut effects, mut bytes) = (Vec::new(), Vec::new(), 0);
    for entry in &entries {
        let note = Note::decode(entry.note.as_deref())?;
        let body = entry.body.as_deref().ok_or(damaged("an entry of a hub without its body"))?;
        let tree = match (entry.kind, note.tree_for(peer)) {
            (EntryKind::Welcome, Some(tree)) => RatchetTreeOption::Full(
                TreeBytes::parse(tree).map_err(|_| damaged("the ratchet tree of a Welcome"))?,
            ),
            _ => RatchetTreeOption::DistributionService,
        };
        let message = FanoutMessage::from_entry(entry.kind, entry.at, body, tree);
        let message = message.map_err(|_| damaged("an entry of a room"))?;
        let size = message.encode().len();
        let mut more = effects.clone();
        more.extend(note.effects_on(peer));
        // A batch must fit a request: trees and long lists of devices end it early, never a single entry.
        let fits =
            bytes + size <= limit::PEER_BODY_BYTES / 2 && MemberEffects::new(more.clone()).is_ok();
        if !messages.is_empty() && !fits {
            break;
        }
        bytes += size;
        effects = more;
        messages.push(message);
    }
    if messages.is_empty() {
        return Ok(None);
    }
    let members = MemberEffects::new(effects)?;
    let n = u32::try_from(messages.len()).unwrap_or(u32::MAX);
    let range = FanoutRange { incarnation: log.incarnation, first, n, prev_chain };
    Ok(Some(Batch { range, members, body: FanoutMessage::encode_batch(&messages).into() }))
}

/// A follower's answer, as the lane sees it; `last` is the last entry that was sent, `from` the first that is for the follower.
pub(super) fn result(answer: Notified, last: Seq, from: Seq) -> Result_ {
    match answer {
        Notified::Stored(head) => Result_::Accepted(head.map_or(last, |h| h.max(last))),
        // One that was restored from a time before it joined begins with its join.
        Notified::Behind(Some(head)) => Result_::Expected(head.next().max(from)),
        Notified::Behind(None) => Result_::Unknown,
    }
}

fn damaged(what: &'static str) -> Stop {
    Stop::Failed(Error::Damaged(what))
}
