//! Whether a commit is allowed: who may add, remove, promote, ban and leave. PROTOCOL §7.3.
//!
//! The hub runs this before it gives a commit its place, and every member runs it again before it merges, so that neither a hub nor a member can
//! do what a role does not allow.

use protocol::Refusal;
use protocol::room::CommitFacts;

/// Judges a commit.
///
/// # Errors
/// `NotAllowed` when a role forbids it, `InvalidCommit` when list and leaves do not fit together, `TooLarge` when the room or the commit is too big.
pub fn judge(facts: &CommitFacts) -> Result<(), Refusal> {
    let _ = facts;
    todo!()
}
