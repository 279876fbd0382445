//! Who is calling: a device by its token, a peer by its certificate and `From`.

use std::sync::Arc;

use axum::extract::{FromRequestParts, State};
use federation::verify::{Caller, Claim};
use http::header::AUTHORIZATION;
use http::request::Parts;
use protocol::{Code, DeviceId, Refusal};

use super::Refused;
use super::listen::Connection;
use crate::app::App;
use crate::devices;
use crate::error::Outcome;
use crate::store::peers::{self, PeerState};

/// A device whose token was checked for this request.
pub(super) struct Device(pub(super) DeviceId);

impl FromRequestParts<Arc<App>> for Device {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        // A request with a peer's certificate is a peer's, whatever token it carries.
        let header = parts.headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok());
        let token = header.and_then(|h| h.strip_prefix("Bearer "));
        let token = token.ok_or(Refusal::from(Code::Unauthenticated))?;
        let device = devices::by_token(app, token).await?;
        app.quotas.request(&device)?;
        Ok(Self(device))
    }
}

/// A paired peer, proven for this request: certificate, pinned key and `From` agree.
pub(super) struct Peer(pub(super) Caller);

impl FromRequestParts<Arc<App>> for Peer {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        let connection = parts.extensions.get::<Connection>().cloned();
        Self::check(app, connection, parts).await
    }
}

impl Peer {
    async fn check(
        app: &Arc<App>,
        connection: Option<Connection>,
        parts: &Parts,
    ) -> Result<Self, Refused> {
        peer(app, connection.as_ref(), parts).await.map(Self).map_err(|stop| {
            let refusal = stop.into_refusal();
            let address = connection.map(|c| c.address.to_string());
            // Without the last segment, which names a room or a person.
            let path = parts.uri.path();
            let endpoint = path.rsplit_once('/').map_or(path, |(front, _)| front);
            tracing::warn!(address, %refusal, endpoint, "a peer's request was refused");
            Refused(refusal)
        })
    }
}

/// A peer, if it is one, on a route that is open to all. Whoever is none is not refused and not logged.
pub(super) struct Passing;

impl FromRequestParts<Arc<App>> for Passing {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, Refused> {
        let connection = parts.extensions.get::<Connection>().cloned();
        if connection.as_ref().is_some_and(|c| c.certificate.is_some()) {
            // A stranger with a certificate gets the same answer as anybody.
            drop(peer(app, connection.as_ref(), parts).await);
        }
        Ok(Self)
    }
}

async fn peer(app: &Arc<App>, connection: Option<&Connection>, parts: &Parts) -> Outcome<Caller> {
    let certificate = connection.and_then(|c| c.certificate.as_ref());
    let claim = Claim::of(certificate, &parts.headers, app.now())?;
    let found = peers::find(&mut app.store.snapshot().await?, claim.domain()).await?;
    let row = found.filter(|p| p.state != PeerState::Blocked);
    let caller = claim.confirm(row.as_ref().map(|p| &p.node_key))?;
    app.quotas.peer(caller.domain())?;
    crate::worker::peers::contact(app, caller.domain());
    Ok(caller)
}

/// The connection that a request came on.
pub(super) struct On(pub(super) Connection);

impl FromRequestParts<Arc<App>> for On {
    type Rejection = Refused;

    async fn from_request_parts(parts: &mut Parts, _: &Arc<App>) -> Result<Self, Refused> {
        let connection = parts.extensions.get::<Connection>().cloned();
        connection.map(Self).ok_or(Refused(Refusal::new(Code::Internal)))
    }
}

/// Shorthand for the shared state in handlers.
pub(super) type Shared = State<Arc<App>>;
