//! HTTP: the listener, the routes, and how refusals look. A handler decodes, calls one service function, and encodes.

mod auth;
mod body;
mod device;
mod federation;
mod health;
pub(crate) mod listen;
mod stream;
mod unread;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use protocol::{Code, Refusal};

use crate::app::App;
use crate::error::Stop;

/// Every route there is.
pub(crate) fn router(app: Arc<App>) -> Router {
    device::routes()
        .merge(federation::routes())
        .merge(health::routes())
        .fallback(nowhere)
        .method_not_allowed_fallback(nowhere)
        .with_state(app)
}

async fn nowhere() -> Refused {
    Refused(Code::UnknownEndpoint.into())
}

/// The HTTP status of each refusal: the only place where one is chosen. PROTOCOL §3.
pub(crate) const fn status(code: Code) -> StatusCode {
    match code {
        Code::Malformed | Code::UnknownVersion => StatusCode::BAD_REQUEST,
        Code::Unauthenticated | Code::WrongPassword => StatusCode::UNAUTHORIZED,
        Code::NotAllowed
        | Code::BadInvite
        | Code::UnknownPeer
        | Code::PeerCertificate
        | Code::DomainMismatch => StatusCode::FORBIDDEN,
        Code::NotFound | Code::UnknownEndpoint => StatusCode::NOT_FOUND,
        Code::NameTaken
        | Code::Conflict
        | Code::StaleEpoch
        | Code::WrongEpoch
        | Code::MissingProposal
        | Code::NoKeyPackages
        | Code::SeqGap
        | Code::ChainMismatch
        | Code::WrongIncarnation => StatusCode::CONFLICT,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::Invalid | Code::BadCertificate | Code::InvalidCommit | Code::BadKeyPackage => {
            StatusCode::UNPROCESSABLE_ENTITY
        }
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::QueueFull | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DiskFull => StatusCode::INSUFFICIENT_STORAGE,
        Code::PeerUnreachable => StatusCode::BAD_GATEWAY,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A refusal as an HTTP answer.
pub(crate) struct Refused(pub(crate) Refusal);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(refusal)
    }
}

impl From<Stop> for Refused {
    fn from(stop: Stop) -> Self {
        Self(stop.into_refusal())
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let Self(mut refusal) = self;
        let status = status(refusal.code);
        // Whoever is sent away for now is told for how long.
        if matches!(status.as_u16(), 429 | 503 | 507) && refusal.retry_after_ms.is_none() {
            refusal.retry_after_ms = Some(RETRY_DEFAULT_MS);
        }
        let body = serde_json::to_vec(&refusal.to_body()).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(ms) = refusal.retry_after_ms {
            let seconds = Duration::from_millis(u64::from(ms)).as_millis().div_ceil(1000);
            headers
                .insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        response
    }
}

const RETRY_DEFAULT_MS: u32 = 2_000;

/// A CBOR answer.
pub(crate) fn cbor<T: minicbor::Encode<()>>(value: &T) -> Response {
    bytes("application/cbor", protocol::api::encode(value))
}

/// An answer of bytes.
pub(crate) fn bytes(kind: &'static str, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
