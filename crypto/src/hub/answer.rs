//! Answering somebody who wants to join by a commit of their own.

use protocol::Refusal;
use protocol::mimi::{
    GroupInfoRatchetTree, PendingProposal, ProposalBytes, RatchetTreeOption, TreeBytes,
};

use super::{HubGroup, Pending};
use crate::group_info::{self, GroupInfoRequest};
use crate::{Error, NodeKey};

impl HubGroup {
    /// Answers a joiner: GroupInfo, tree and pending proposals, sealed to its key, signed by the hub: MIMI
    /// `GroupInfoResponse` bytes. Whether the joiner may is the caller's question.
    ///
    /// # Errors
    /// Ours, or `Malformed` when the request's key is not valid.
    pub fn seal_group_info(
        &self,
        request: &GroupInfoRequest,
        hub_key: &NodeKey,
    ) -> Result<Vec<u8>, Error> {
        let pending = |p: &Pending| {
            let proposal = ProposalBytes::parse(p.message.as_slice())?;
            Ok(PendingProposal { proposal, at: p.at })
        };
        let pending: Result<_, protocol::mimi::Malformed> =
            self.pending.iter().map(pending).collect();
        let content = GroupInfoRatchetTree {
            group_info: self.group_info.clone(),
            tree: RatchetTreeOption::Full(
                TreeBytes::parse(self.tree_bytes()).map_err(Refusal::from)?,
            ),
            pending: pending.map_err(|_| Error::Damaged("a pending proposal"))?,
        };
        Ok(group_info::seal(&self.room, request, &content, hub_key)?)
    }
}
