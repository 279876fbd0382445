//! The device API: each handler decodes, calls one service function, and encodes. PROTOCOL §6.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::ws::WebSocketUpgrade;
use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use protocol::api::{
    Ack, ClaimKeyMaterial, CreateRoom, FetchGroupInfo, Login, OfferLink, Read, Register, Revoke,
    Submit, SubmitReply, TakeLink, UploadKeyPackages,
};
use protocol::mimi::CONTENT_TYPE;
use protocol::{Code, Refusal, limit};

use super::auth::{Device, On, Shared};
use super::stream::FRAME_BYTES;
use super::{Refused, body, bytes, cbor};
use crate::app::App;
use crate::rooms::{self, create, group_info};
use crate::{accounts, devices, keys, reading};

type Answer = Result<Response, Refused>;

/// Routes of devices. What a route is missing here does not exist.
pub(super) fn routes() -> Router<Arc<App>> {
    Router::new()
        .route("/v1/node", get(node))
        .route("/v1/register", post(register))
        .route("/v1/login", post(login))
        .route("/v1/devices", get(list_devices))
        .route("/v1/devices/revoke", post(revoke))
        .route("/v1/keypackages", post(upload))
        .route("/v1/keymaterial", post(claim))
        .route("/v1/rooms", get(list_rooms).post(create_room))
        .route("/v1/groupinfo", post(fetch_group_info))
        .route("/v1/submit", post(submit))
        .route("/v1/read", post(read))
        .route("/v1/ack", post(acknowledge))
        .route("/v1/link", post(offer_link))
        .route("/v1/link/take", post(take_link))
        .route("/v1/stream", get(stream))
}

/// Reads and decodes a body of at most `max` bytes.
async fn decoded<T>(app: &App, request: Request<Body>, max: usize) -> Result<T, Refusal>
where
    T: for<'b> minicbor::Decode<'b, ()>,
{
    let (parts, content) = request.into_parts();
    let bytes = body::read(&parts.headers, content, max, app).await?;
    body::decode(&bytes)
}

async fn node(State(app): Shared) -> Response {
    cbor(&app.info())
}

async fn register(State(app): Shared, On(connection): On, request: Request) -> Answer {
    app.quotas.sign_in(connection.address.ip())?;
    let ask: Register = decoded(&app, request, SMALL).await?;
    Ok(cbor(&accounts::register(&app, ask).await?))
}

async fn login(State(app): Shared, On(connection): On, request: Request) -> Answer {
    app.quotas.sign_in(connection.address.ip())?;
    let ask: Login = decoded(&app, request, SMALL).await?;
    Ok(cbor(&accounts::login(&app, ask).await?))
}

async fn list_devices(State(app): Shared, Device(caller): Device) -> Answer {
    Ok(cbor(&devices::list(&app, &caller).await?))
}

async fn revoke(State(app): Shared, Device(caller): Device, request: Request) -> Answer {
    let ask: Revoke = decoded(&app, request, SMALL).await?;
    devices::revoke(&app, &caller, ask.device).await?;
    Ok(nothing())
}

async fn upload(State(app): Shared, Device(caller): Device, request: Request) -> Answer {
    let ask: UploadKeyPackages = decoded(&app, request, PACKAGES).await?;
    Ok(cbor(&keys::upload(&app, &caller, ask).await?))
}

async fn claim(State(app): Shared, Device(caller): Device, request: Request) -> Answer {
    let ask: ClaimKeyMaterial = decoded(&app, request, SMALL).await?;
    Ok(bytes(CONTENT_TYPE, Box::pin(keys::claim(&app, &caller, ask)).await?))
}

async fn list_rooms(State(app): Shared, Device(caller): Device) -> Answer {
    Ok(cbor(&reading::list(&app, &caller).await?))
}

async fn create_room(State(app): Shared, Device(caller): Device, request: Request) -> Answer {
    let ask: CreateRoom = decoded(&app, request, limit::REQUEST_BYTES).await?;
    Ok(cbor(&create::create(&app, &caller, ask).await?))
}

async fn fetch_group_info(State(app): Shared, Device(caller): Device, request: Request) -> Answer {
    let ask: FetchGroupInfo = decoded(&app, request, SMALL).await?;
    Ok(bytes(CONTENT_TYPE, Box::pin(group_info::fetch(&app, &caller, ask)).await?))
}

async fn submit(State(app): Shared, Device(caller): Device, request: Request) -> Answer {
    let ask: Submit = decoded(&app, request, FRAME_BYTES).await?;
    match rooms::submit(&app, &caller, ask).await {
        // A refusal is a refusal on every path, with its status.
        SubmitReply::Refused(refusal) => Err(refusal.into()),
        reply => Ok(cbor(&reply)),
    }
}

async fn read(State(app): Shared, Device(caller): Device, request: Request) -> Answer {
    let ask: Read = decoded(&app, request, SMALL).await?;
    Ok(cbor(&reading::read(&app, &caller, &ask).await?))
}

async fn acknowledge(State(app): Shared, Device(caller): Device, request: Request) -> Answer {
    let ask: Ack = decoded(&app, request, SMALL).await?;
    reading::acknowledge(&app, &caller, vec![ask]).await?;
    Ok(nothing())
}

async fn offer_link(State(app): Shared, Device(caller): Device, request: Request) -> Answer {
    let ask: OfferLink = decoded(&app, request, limit::LINK_BYTES + SMALL).await?;
    devices::offer_link(&app, &caller, ask).await?;
    Ok(nothing())
}

async fn take_link(State(app): Shared, On(connection): On, request: Request) -> Answer {
    app.quotas.sign_in(connection.address.ip())?;
    let ask: TakeLink = decoded(&app, request, SMALL).await?;
    Ok(cbor(&devices::take_link(&app, ask).await?))
}

async fn stream(State(app): Shared, Device(caller): Device, upgrade: Upgrade) -> Answer {
    let upgrade = upgrade.map_err(|_| {
        Refusal::because(
            Code::Malformed,
            "A stream is a WebSocket; the request does not ask for one.",
        )
    })?;
    let newer = Refusal::because(Code::Unavailable, "A newer stream of this device took over.");
    let upgrade = upgrade.max_message_size(FRAME_BYTES).max_frame_size(FRAME_BYTES);
    Ok(upgrade.on_upgrade(move |socket| async move {
        let ticket = app.streams.open(&caller, newer);
        super::stream::serve(app, caller, ticket, socket).await;
    }))
}

type Upgrade = Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>;

fn nothing() -> Response {
    http::StatusCode::NO_CONTENT.into_response()
}

/// Names, keys, signatures, certificates.
const SMALL: usize = 64 * 1024;
const PACKAGES: usize = limit::KEYPACKAGES_PER_UPLOAD * limit::KEYPACKAGE_BYTES + SMALL;
