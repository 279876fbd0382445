//! Carrying a command out: ask others for what it needs, build the handshake, write it down. Handing it in is the
//! stream's work.

use std::time::Duration;

use bytes::Bytes;
use crypto::group::{Bundle, ExternalJoin};
use crypto::{Group, PublicKey, key_material};
use delivery::backoff::{Backoff, uniform};
use delivery::commit::{self, Change};
use protocol::api::{ClaimKeyMaterial, CreateRoom, FetchGroupInfo, SubmitReply};
use protocol::log::Digest;
use protocol::mimi::{ClientOutcome, HandshakeBundle, KeyMaterialResponse, KeyMaterialUserCode};
use protocol::{Code, DeviceId, Refusal, UserId, refusal};

use super::build::{self, Plan};
use super::{mint, outcome, save, want_once};
use crate::core::Work;
use crate::event::Event;
use crate::inner::Inner;
use crate::store::{Action, Attempt, CommandRow, LogPlace, RoomRow, suite};
use crate::{Error, Result, RoomStatus};

/// What has to be asked for before a command can go on.
pub(crate) enum Need {
    /// Nothing: everything that could be done is done.
    Nothing,
    /// The node has to hear of a new room.
    Create(CreateRoom),
    /// Somebody's KeyPackages.
    Packages(UserId, ClaimKeyMaterial),
    /// What an external joiner needs; the hub's key.
    GroupInfo(Box<ExternalJoin>, FetchGroupInfo, PublicKey),
}

/// What came back.
pub(crate) enum Answer {
    /// To [`Need::Create`].
    Created(Result<SubmitReply>),
    /// To [`Need::Packages`]: a MIMI `KeyMaterialResponse`.
    Packages(UserId, Result<Bytes>),
    /// To [`Need::GroupInfo`]: a MIMI `GroupInfoResponse`.
    GroupInfo(Box<ExternalJoin>, PublicKey, Result<Bytes>),
}

/// Carries a command as far as it goes without the log.
///
/// # Errors
/// Ours only; what others did is written down with the command.
pub(crate) async fn carry_out(inner: &Inner, position: u64) -> Result<()> {
    let need = inner.work(async |work| ask(work, position).await).await?;
    let answer = match need {
        Need::Nothing => return Ok(()),
        Need::Create(request) => {
            // The person's devices of today come along; whether that can be learned now decides nothing else.
            if let Err(e) = crate::engine::learn_devices(inner).await {
                tracing::debug!(code = e.code(), "the person's devices are not known");
            }
            Answer::Created(inner.api.create_room(&request).await)
        }
        Need::Packages(user, request) => {
            Answer::Packages(user, inner.api.key_material(&request).await)
        }
        Need::GroupInfo(join, request, hub_key) => {
            Answer::GroupInfo(join, hub_key, inner.api.group_info(&request).await)
        }
    };
    inner.work(async |work| go_on(work, position, answer).await).await
}

/// Goes on with a command once what it needed has come.
///
/// # Errors
/// Ours only.
pub(crate) async fn go_on(work: &mut Work<'_>, position: u64, answer: Answer) -> Result<()> {
    match answer {
        Answer::Created(reply) => created(work, position, reply).await,
        Answer::Packages(user, answer) => {
            let claimed = answer.and_then(|bytes| packages(&bytes, &user));
            claimed_packages(work, position, claimed).await
        }
        Answer::GroupInfo(join, hub_key, answer) => {
            let entropy = &*work.world.entropy;
            let joined = answer
                .and_then(|bytes| join.finish(&bytes, &hub_key, entropy).map_err(Error::crypto));
            enter(work, position, joined).await
        }
    }
}

/// Does what can be done for a command; what has to be asked for.
///
/// # Errors
/// Ours only.
pub(crate) async fn ask(work: &mut Work<'_>, position: u64) -> Result<Need> {
    let Some(command) = work.commands.get(&position).cloned() else { return Ok(Need::Nothing) };
    let row = work.room(&command.room).await?;
    match (&row.status, &command.action) {
        (RoomStatus::Creating, Action::Create(group_info, tree)) => {
            let (group_info, tree) = (group_info.to_vec(), tree.to_vec());
            return Ok(Need::Create(CreateRoom { room: row.room, group_info, tree }));
        }
        (RoomStatus::Joining, Action::Join(hub_key)) => {
            let identity = work.identity.clone();
            let entropy = &*work.world.entropy;
            let (join, request) =
                ExternalJoin::request(&row.room, suite(row.suite)?, identity, entropy)
                    .map_err(Error::crypto)?;
            let request = FetchGroupInfo { room: row.room, request };
            let hub_key = PublicKey::from_bytes(*hub_key);
            return Ok(Need::GroupInfo(Box::new(join), request, hub_key));
        }
        (_, Action::Create(..) | Action::Join(_)) => done(work, command).await?,
        (RoomStatus::Left, _) => {
            refuse(work, command, Refusal::because(Code::NotFound, LEFT)).await?;
        }
        (RoomStatus::Creating | RoomStatus::Joining, _) => later(work, command, None, SOON).await?,
        (RoomStatus::Held { reason, .. }, _) => {
            let refusal = Refusal::because(Code::Unavailable, reason.clone());
            later(work, command, Some(refusal), HELD).await?;
        }
        (RoomStatus::Active, _) => return advance(work, command, row).await,
    }
    Ok(Need::Nothing)
}

const LEFT: &str = "This device is no longer in the room.";
const SOON: Duration = Duration::from_secs(1);
const HELD: Duration = Duration::from_secs(30);

async fn advance(work: &mut Work<'_>, mut command: CommandRow, row: RoomRow) -> Result<Need> {
    let mut group = work.take_group(row.no).await?;
    let plan = build::plan(work, &command, &mut group).await?;
    let mut need = Need::Nothing;
    match plan {
        Plan::Done => done(work, command).await?,
        Plan::Fail(refusal) => {
            if refusal.code == Code::NoKeyPackages {
                // What was claimed is of no use (any more); the next try claims anew.
                command.packages.clear();
            }
            refuse(work, command, refusal).await?;
        }
        Plan::Claim(user) => {
            let request = key_material::request(work.identity, &user, &row.room, &[group.suite()]);
            let claim = ClaimKeyMaterial { room: row.room.clone(), request };
            need = Need::Packages(user, claim);
        }
        Plan::Commit(change) => return build_commit(work, command, &row, group, &change).await,
        Plan::Propose(others) => return propose(work, command, &row, group, &others).await,
        Plan::Wait => later(work, command, None, SOON).await?,
        Plan::Abandon => {
            outcome::left(work, row).await?;
            return Ok(Need::Nothing);
        }
    }
    work.put_group(row.no, group);
    Ok(need)
}

async fn build_commit(
    work: &mut Work<'_>,
    mut command: CommandRow,
    row: &RoomRow,
    mut group: Group,
    change: &crypto::group::Change,
) -> Result<Need> {
    let epoch = group.epoch();
    let now = work.now();
    match group.commit(change, now, &*work.world.entropy) {
        Ok(bundle) => match delivery::policy::judge(&bundle.facts) {
            Ok(()) => {
                let digest = commit_digest(&bundle.update_request)?;
                command.change.built(epoch, digest);
                command.attempt = Some(Attempt {
                    submit_id: mint(work.world),
                    bundle: bundle.update_request,
                    signature: bundle.signature,
                    epoch,
                });
                save(work, command).await?;
            }
            Err(refusal) => {
                group.clear_pending().map_err(Error::crypto)?;
                refuse(work, command, refusal).await?;
            }
        },
        Err(crypto::Error::Refused(refusal)) => {
            // What was claimed for it may be what is wrong with it.
            command.packages.clear();
            if outcome::wants_fresh(&command, &refusal) {
                later(work, command, Some(refusal), SOON).await?;
            } else {
                refuse(work, command, refusal).await?;
            }
        }
        Err(e) => return Err(Error::crypto(e)),
    }
    work.put_group(row.no, group);
    Ok(Need::Nothing)
}

fn commit_digest(update_request: &[u8]) -> Result<Digest> {
    match HandshakeBundle::decode(update_request) {
        Ok(HandshakeBundle::Commit { commit, .. }) => Ok(Digest::of_bytes(commit.as_slice())),
        _ => Err(Error::Crypto("the bundle that was just built cannot be read".to_owned())),
    }
}

async fn propose(
    work: &mut Work<'_>,
    mut command: CommandRow,
    row: &RoomRow,
    mut group: Group,
    others: &[DeviceId],
) -> Result<Need> {
    let epoch = group.epoch();
    match group.leave(others, &*work.world.entropy) {
        Ok(bundle) => {
            command.change.built(epoch, Digest::of_bytes(&bundle.update_request));
            command.attempt = Some(Attempt {
                submit_id: mint(work.world),
                bundle: bundle.update_request,
                signature: bundle.signature,
                epoch,
            });
            save(work, command).await?;
        }
        Err(crypto::Error::Refused(refusal)) => refuse(work, command, refusal).await?,
        Err(e) => return Err(Error::crypto(e)),
    }
    work.put_group(row.no, group);
    Ok(Need::Nothing)
}

async fn created(work: &mut Work<'_>, position: u64, reply: Result<SubmitReply>) -> Result<()> {
    let Some(mut command) = work.commands.get(&position).cloned() else { return Ok(()) };
    let accepted = match reply {
        Ok(SubmitReply::Accepted(accepted)) => accepted,
        Ok(SubmitReply::Stored) => return later(work, command, None, SOON).await,
        Ok(SubmitReply::Refused(refusal)) => return refuse(work, command, refusal).await,
        Err(e) => return trouble(work, command, e).await,
    };
    let mut row = work.room(&command.room).await?;
    command.place = Some((accepted.place.seq, accepted.at));
    done(work, command).await?;
    if row.status == RoomStatus::Creating {
        row.status = RoomStatus::Active;
        row.place.get_or_insert(LogPlace { cursor: accepted.place, chain: accepted.chain });
        work.tx.put_room(&row).await?;
        work.events.push(Event::RoomJoined { room: row.room.clone() });
    }
    founded(work, &row).await
}

/// What a founder does next in a new room.
///
/// # Errors
/// The disk's.
pub(crate) async fn founded(work: &mut Work<'_>, row: &RoomRow) -> Result<()> {
    renew_later(work, row).await?;
    bring_siblings(work, row, &[], Duration::ZERO).await?;
    work.reconsider();
    Ok(())
}

/// Wants the person's other devices in a room, unless they are there, at a random time within `spread`: whichever of them is there
/// does it.
///
/// # Errors
/// The disk's.
pub(crate) async fn bring_siblings(
    work: &mut Work<'_>,
    row: &RoomRow,
    members: &[DeviceId],
    spread: Duration,
) -> Result<()> {
    if work.siblings.iter().all(|sibling| members.contains(sibling)) {
        return Ok(());
    }
    let at = work.now().after(uniform(spread, work.world.entropy.jitter()));
    let own = Action::Add(work.user());
    want_once(work, row, own, at).await
}

/// A new leaf renews itself at a random time between these, so that a room of many newcomers is not renewed all at once.
const RENEW_MIN: Duration = Duration::from_hours(1);
/// See [`RENEW_MIN`]; together below the 72 hours of PROTOCOL §7.2.
const RENEW_SPREAD: Duration = Duration::from_hours(47);

/// Wants the device's keys in a room renewed, in a while.
///
/// # Errors
/// The disk's.
pub(crate) async fn renew_later(work: &mut Work<'_>, row: &RoomRow) -> Result<()> {
    let wait = RENEW_MIN + uniform(RENEW_SPREAD, work.world.entropy.jitter());
    let at = work.now().after(wait);
    want_once(work, row, Action::Renew, at).await
}

/// The KeyPackages in the answer of the target's node.
fn packages(bytes: &[u8], user: &UserId) -> Result<Vec<Vec<u8>>> {
    let answer = KeyMaterialResponse::decode(bytes)
        .map_err(|_| Error::Answer { what: "the request for key material" })?;
    if answer.user != *user {
        return Err(Error::Answer { what: "the request for key material" });
    }
    let refuse = |code: Code, why: &str| Err(Error::Refused(Refusal::because(code, why)));
    match answer.status {
        KeyMaterialUserCode::Success | KeyMaterialUserCode::PartialSuccess => {}
        KeyMaterialUserCode::NoCompatibleMaterial => {
            return Err(Error::Refused(Code::NoKeyPackages.into()));
        }
        KeyMaterialUserCode::UserUnknown | KeyMaterialUserCode::UserDeleted => {
            return refuse(Code::NotFound, "There is no such person at that node.");
        }
        KeyMaterialUserCode::NoConsent | KeyMaterialUserCode::NoConsentForThisRoom => {
            return refuse(Code::NotAllowed, "This person does not want to be added.");
        }
        KeyMaterialUserCode::IncompatibleProtocol => {
            return refuse(Code::UnknownVersion, "That node speaks no common protocol.");
        }
    }
    let packages = answer.clients.into_iter().filter_map(|client| match client.outcome {
        ClientOutcome::Success(package) => Some(package.into_vec()),
        ClientOutcome::Exhausted | ClientOutcome::NothingCompatible(_) => None,
    });
    let packages: Vec<Vec<u8>> = packages.collect();
    if packages.is_empty() { Err(Error::Refused(Code::NoKeyPackages.into())) } else { Ok(packages) }
}

async fn claimed_packages(
    work: &mut Work<'_>,
    position: u64,
    claimed: Result<Vec<Vec<u8>>>,
) -> Result<()> {
    let Some(mut command) = work.commands.get(&position).cloned() else { return Ok(()) };
    match claimed {
        Err(Error::Refused(refusal))
            if refusal.code == Code::NoKeyPackages && gives_up(work, &command) =>
        {
            done(work, command).await
        }
        Ok(packages) => {
            command.packages = packages.into_iter().map(Into::into).collect();
            work.put_command(command.clone()).await?;
            let row = work.room(&command.room).await?;
            if row.status == RoomStatus::Active {
                advance(work, command, row).await?;
            }
            Ok(())
        }
        Err(e) => trouble(work, command, e).await,
    }
}

/// One's own devices are looked after again anyway, so one that never comes online is not asked for without end.
fn gives_up(work: &Work<'_>, command: &CommandRow) -> bool {
    command.tries >= 8 && command.action == Action::Add(work.user())
}

/// Writes down the group that an external commit leads to. It becomes real when the log shows the commit.
async fn enter(work: &mut Work<'_>, position: u64, joined: Result<(Group, Bundle)>) -> Result<()> {
    let Some(mut command) = work.commands.get(&position).cloned() else { return Ok(()) };
    let (group, bundle) = match joined {
        Ok(joined) => joined,
        Err(e @ Error::Crypto(_)) => return Err(e),
        Err(e) => return trouble(work, command, e).await,
    };
    for member in group.members().map_err(Error::crypto)? {
        if let Err(mut alarm) = crate::trust::check(work, &member.certificate).await? {
            alarm.room = Some(command.room.clone());
            work.events.push(Event::Alarm(alarm));
        }
    }
    let before = protocol::Epoch::new(group.epoch().get().saturating_sub(1));
    command.change.built(before, commit_digest(&bundle.update_request)?);
    command.attempt = Some(Attempt {
        submit_id: mint(work.world),
        bundle: bundle.update_request,
        signature: bundle.signature,
        epoch: before,
    });
    work.drop_group(command.no).await?;
    work.put_group(command.no, group);
    save(work, command).await
}

/// It is as wanted.
async fn done(work: &mut Work<'_>, mut command: CommandRow) -> Result<()> {
    command.change = Change::restore(command.change.losses(), commit::State::Done);
    command.attempt = None;
    command.waiting = None;
    save(work, command).await?;
    work.reconsider();
    Ok(())
}

/// It cannot be, for good or for now.
async fn refuse(work: &mut Work<'_>, mut command: CommandRow, refusal: Refusal) -> Result<()> {
    if refusal.code.lasting() == refusal::Lasting::Transient {
        let floor = refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
        let wait = Backoff::STANDARD.delay(command.tries, work.world.entropy.jitter(), floor);
        return later(work, command, Some(refusal), wait).await;
    }
    let entering = matches!(command.action, Action::Create(..) | Action::Join(_));
    let (room, failed) = (command.room.clone(), commit::State::Failed(refusal));
    command.change = Change::restore(command.change.losses(), failed);
    command.attempt = None;
    save(work, command).await?;
    if entering {
        // There will be no such room for this device.
        let row = work.room(&room).await?;
        outcome::left(work, row).await?;
    }
    work.reconsider();
    Ok(())
}

/// Something else than a plain answer came.
async fn trouble(work: &mut Work<'_>, command: CommandRow, error: Error) -> Result<()> {
    let refusal = match error {
        Error::Refused(refusal) => refusal,
        Error::Unreachable { .. } => Refusal::because(Code::Unavailable, error.sentence()),
        other => Refusal::because(Code::Internal, other.sentence()),
    };
    refuse(work, command, refusal).await
}

async fn later(
    work: &mut Work<'_>,
    mut command: CommandRow,
    why: Option<Refusal>,
    wait: Duration,
) -> Result<()> {
    let at = work.now().after(wait);
    command.change = Change::restore(command.change.losses(), commit::State::Build(at));
    if why.is_some() {
        command.tries = command.tries.saturating_add(1);
    }
    command.waiting = why;
    save(work, command).await?;
    work.reconsider();
    Ok(())
}
