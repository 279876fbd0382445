//! Every decision of delivery, as pure code: what is admitted, where it goes, who still needs it, when to try again.
//!
//! Nothing here is async, reads a clock, rolls dice or does I/O: time and chance come in as arguments. Two shapes only. A
//! *rule* takes a small head and gives a decision. A *machine* takes facts and says with `next(now)` what to do; whoever drives
//! it carries the step out and reports back. Both are as easy to run a million times in a simulator as once in a node.
//!
//! | module | decides |
//! |---|---|
//! | [`room`] | whether a hub admits a submission, and at which place |
//! | [`log`] | what an append gives, and what a replica does with a batch |
//! | [`reader`] | what an acknowledgement does, what to send a reader next, where readers begin and end |
//! | [`stream`] | which log of a device's stream is served next |
//! | [`retention`] | which entries may go |
//! | [`age`] | how far time has gone, whatever the wall clock says |
//! | [`quota`] | whether a queue takes one more |
//! | [`disk`] | whether a node with this much free space takes anything new |
//! | [`backoff`] | how long to wait before the next attempt |
//! | [`lane`] | when to send what to one peer, and what its answer means |
//! | [`breaker`] | whether a peer that did not answer is dialled at all |
//! | [`commit`] | whose commit stands, what the next one must hold, who commits a leave |
//! | [`policy`] | whether a commit is allowed |
//! | [`outbox`] | what a device submits next, and the state a person sees |
//! | [`timeline`] | the order in which messages are shown |
//! | [`sender`] | what a message's own header proves about its sender and its hub |
//! | [`clock`] | the node's time as a device knows it |

pub mod age;
pub mod backoff;
pub mod breaker;
pub mod clock;
pub mod commit;
pub mod disk;
pub mod lane;
pub mod log;
pub mod outbox;
pub mod policy;
pub mod quota;
pub mod reader;
pub mod retention;
pub mod room;
pub mod sender;
pub mod stream;
pub mod timeline;
