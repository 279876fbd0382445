//! What a node serves to its peers. Each request proves its sender anew: certificate, pinned key, `From`, and the names in the body.
//! PROTOCOL §9.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use bytes::Bytes;
use delivery::room::Known;
use federation::headers::{self, BundleSignature, FanoutRange, MemberEffects};
use federation::pairing::PairRequest;
use federation::verify::{Claim, Verified};
use federation::{directory, endpoint, pairing as pair_wire};
use http::{HeaderMap, StatusCode};
use protocol::mimi::{
    BackfillRequest, CONTENT_TYPE, FanoutMessage, SubmitMessageRequest, SubmitMessageResponse,
    SubmitOutcome, UpdateOutcome, UpdateRoomResponse,
};
use protocol::{Code, Epoch, Refusal, RoomId, Timestamp, limit};

use super::auth::{On, Passing, Peer, Shared};
use super::{Refused, body, bytes};
use crate::app::App;
use crate::error::Outcome;
use crate::rooms::backfill::give;
use crate::rooms::receive::{Incoming, Received, receive};
use crate::rooms::{self, Application, Handed, Origin, group_info};
use crate::worker::backfill;
use crate::{keys, pairing};

type Answer = Result<Response, Refused>;

/// Routes of peers.
pub(super) fn routes() -> Router<Arc<App>> {
    let one = |path: &str| format!("{path}{{uri}}");
    Router::new()
        .route(endpoint::DIRECTORY, get(show_directory))
        .route(endpoint::PAIR, post(pair))
        .route(&one(endpoint::KEY_MATERIAL), post(key_material))
        .route(&one(endpoint::UPDATE), post(update))
        .route(&one(endpoint::SUBMIT_MESSAGE), post(submit_message))
        .route(&one(endpoint::NOTIFY), post(notify))
        .route(&one(endpoint::GROUP_INFO), post(fetch_group_info))
        .route(&one(endpoint::BACKFILL), post(give_backfill))
}

/// Open to anyone; a peer that asks shows that it is there.
async fn show_directory(State(app): Shared, _: Passing) -> Answer {
    let (_, port) = app.public_address();
    let base = directory::base_url(&app.domain, port);
    let ours = directory::ours(&base, app.keys.identity().node_key());
    let json = serde_json::to_vec(&ours).map_err(|_| Refusal::new(Code::Internal))?;
    let mut response = bytes("application/json", json);
    let age = http::HeaderValue::from_static("max-age=3600");
    response.headers_mut().insert(http::header::CACHE_CONTROL, age);
    Ok(response)
}

async fn content(app: &App, request: Request, max: usize) -> Result<(HeaderMap, Bytes), Refusal> {
    let (parts, content) = request.into_parts();
    let read = body::read(&parts.headers, content, max, app).await?;
    Ok((parts.headers, read))
}

/// The room that a path names, when we are its hub.
fn hubbed(app: &App, uri: &str) -> Result<RoomId, Refusal> {
    let room = named(uri)?;
    if *room.hub() == app.domain { Ok(room) } else { Err(Code::NotFound.into()) }
}

fn named(uri: &str) -> Result<RoomId, Refusal> {
    RoomId::parse(uri).map_err(|e| Refusal::because(Code::Malformed, e.to_string()))
}

async fn pair(State(app): Shared, On(connection): On, request: Request) -> Answer {
    app.quotas.sign_in(connection.address.ip())?;
    let (headers, content) = content(&app, request, pair_wire::BODY_BYTES).await?;
    let claim = Claim::of(connection.certificate.as_ref(), &headers, app.now());
    let paired = async {
        let ask = PairRequest::decode(&content)?;
        pairing::accept(&app, claim?, ask, connection.address.ip()).await
    };
    match paired.await {
        Ok(answer) => Ok(bytes("application/json", answer.encode())),
        Err(stop) => {
            let refusal = stop.into_refusal();
            tracing::warn!(address = %connection.address, %refusal, "pairing was refused");
            Err(refusal.into())
        }
    }
}

async fn key_material(State(app): Shared, Peer(caller): Peer, request: Request) -> Answer {
    let (_, content) = content(&app, request, limit::REQUEST_BYTES).await?;
    let answer = Box::pin(keys::of_peer(&app, caller.domain(), content.into())).await;
    Ok(bytes(CONTENT_TYPE, answer?))
}

async fn submit_message(
    State(app): Shared,
    Peer(caller): Peer,
    Path(uri): Path<String>,
    request: Request,
) -> Answer {
    let room = hubbed(&app, &uri)?;
    let (_, content) = content(&app, request, limit::REQUEST_BYTES).await?;
    let decoded = SubmitMessageRequest::decode(&content).map_err(malformed)?;
    let sender = decoded.sender.domain().clone();
    let (caller, ask) = caller.vouch(decoded, [&sender])?.into_parts();
    let message = ask.message.into_vec();
    let origin = Origin::peer(caller.domain(), &room, &message);
    let placed = async {
        let message = Application::of_peer(&room, message, ask.sender)?;
        rooms::submit_application(&app, origin, message).await
    };
    let outcome = match place(placed.await)? {
        Ok(at) => SubmitOutcome::Accepted { at, frank: None },
        Err(Refusal { code: Code::StaleEpoch, epoch, .. }) => {
            SubmitOutcome::EpochTooOld(epoch.unwrap_or(Epoch::new(0)))
        }
        // MIMI calls this notAllowed too, but the device can do something about it.
        Err(refusal) if refusal.code == Code::WrongEpoch => return Err(refusal.into()),
        Err(_) => SubmitOutcome::NotAllowed,
    };
    Ok(bytes(CONTENT_TYPE, SubmitMessageResponse { outcome }.encode()))
}

async fn update(
    State(app): Shared,
    Peer(caller): Peer,
    Path(uri): Path<String>,
    request: Request,
) -> Answer {
    let room = hubbed(&app, &uri)?;
    let (headers, content) = content(&app, request, limit::BUNDLE_BYTES).await?;
    // A node of another kind sends no signature; ours always does, and then it must be right.
    let signature = if headers.contains_key(headers::BUNDLE_SIG) {
        Some(BundleSignature::read(&headers)?.as_bytes().to_vec())
    } else {
        None
    };
    let handed = Handed::of_peer(&room, content.into(), signature)?;
    let origin = Origin::peer(caller.domain(), &room, handed.message());
    let placed = place(rooms::submit_handshake(&app, origin, handed).await)?;
    let detail = |r: &Refusal| format!("{}: {}", r.code, r.detail);
    let answer = match placed {
        Ok(at) => UpdateRoomResponse { outcome: UpdateOutcome::Success(at), detail: String::new() },
        Err(refusal) => {
            let outcome = match (refusal.code, refusal.epoch) {
                (Code::WrongEpoch | Code::StaleEpoch, Some(epoch)) => {
                    UpdateOutcome::WrongEpoch(epoch)
                }
                (Code::InvalidCommit | Code::MissingProposal | Code::BadKeyPackage, _) => {
                    UpdateOutcome::InvalidProposal(Vec::new())
                }
                _ => UpdateOutcome::NotAllowed,
            };
            UpdateRoomResponse { outcome, detail: detail(&refusal) }
        }
    };
    Ok(bytes(CONTENT_TYPE, answer.encode()))
}

/// MIMI's answers say no in a struct of their own where the sender can do something about it; the rest is HTTP.
fn place(result: Outcome<Known>) -> Result<Result<Timestamp, Refusal>, Refused> {
    let refusal = match result {
        Ok(Known::Accepted(accepted)) => return Ok(Ok(accepted.at)),
        Ok(Known::Stored | Known::Refused) => Refusal::new(Code::Unavailable),
        Err(stop) => stop.into_refusal(),
    };
    match refusal.code {
        Code::StaleEpoch
        | Code::WrongEpoch
        | Code::NotAllowed
        | Code::NotFound
        | Code::InvalidCommit
        | Code::MissingProposal
        | Code::BadKeyPackage
        | Code::BadCertificate => Ok(Err(refusal)),
        _ => Err(refusal.into()),
    }
}

async fn notify(
    State(app): Shared,
    Peer(caller): Peer,
    Path(uri): Path<String>,
    request: Request,
) -> Answer {
    let room = named(&uri)?;
    let (headers, content) = content(&app, request, limit::PEER_BODY_BYTES).await?;
    let hub = room.hub().clone();
    let verified: Verified<RoomId> = caller.vouch(room, [&hub])?;
    let (_, room) = verified.into_parts();
    app.room_for_more()?;
    let incoming = Incoming {
        range: FanoutRange::read(&headers)?,
        members: MemberEffects::read(&headers, &app.domain)?,
        messages: FanoutMessage::decode_batch(&content).map_err(malformed)?,
        rest_gone: false,
        room: room.clone(),
    };
    match receive(&app, incoming).await? {
        Received::Stored(head) => {
            let mut response = StatusCode::CREATED.into_response();
            headers::write_head(response.headers_mut(), head);
            Ok(response)
        }
        Received::Behind(head) => {
            backfill::start(&app, &room);
            let mut response = Refused(Refusal::new(Code::SeqGap)).into_response();
            headers::write_head(response.headers_mut(), head);
            Ok(response)
        }
    }
}

async fn fetch_group_info(
    State(app): Shared,
    Peer(caller): Peer,
    Path(uri): Path<String>,
    request: Request,
) -> Answer {
    let room = hubbed(&app, &uri)?;
    let (_, content) = content(&app, request, limit::REQUEST_BYTES).await?;
    let answer = group_info::of_peer(&app, caller.domain(), &room, content.into()).await;
    Ok(bytes(CONTENT_TYPE, answer?))
}

async fn give_backfill(
    State(app): Shared,
    Peer(caller): Peer,
    Path(uri): Path<String>,
    request: Request,
) -> Answer {
    let room = hubbed(&app, &uri)?;
    let (_, content) = content(&app, request, 64).await?;
    let ask = BackfillRequest::decode(&content).map_err(malformed)?;
    let batch = give(&app, caller.domain(), &room, ask).await?;
    let mut response = bytes(CONTENT_TYPE, batch.body.into());
    batch.range.write(response.headers_mut());
    batch.members.write(response.headers_mut());
    Ok(response)
}

fn malformed(error: impl std::fmt::Display) -> Refusal {
    Refusal::because(Code::Malformed, error.to_string())
}
