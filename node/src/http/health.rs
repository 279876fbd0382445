//! Whether the node lives and takes work: a status code for whoever watches it, and nothing else.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use http::StatusCode;

use super::auth::Shared;
use crate::app::App;

pub(super) fn routes() -> Router<Arc<App>> {
    Router::new().route("/healthz/live", get(live)).route("/healthz/ready", get(ready))
}

async fn live() -> StatusCode {
    StatusCode::OK
}

/// Ready means that the database answers and new submissions are taken.
async fn ready(State(app): Shared) -> StatusCode {
    let stopping = app.stop.is_cancelled();
    let full = app.room_for_more().is_err();
    if stopping || full || app.store.snapshot().await.is_err() {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    }
}
