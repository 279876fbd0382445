//! Reading a request's body under three bounds: its size, its pace, and its type.

use std::time::Duration;

use axum::body::{Body, Bytes};
use http::HeaderMap;
use http::header::CONTENT_LENGTH;
use http_body_util::BodyExt as _;
use protocol::{Code, Refusal};
use tokio::time::{Instant, timeout_at};

use crate::app::App;

/// Reads at most `max` bytes. The body gets `body_ms`, and after that one more second for every
/// `body_bytes_per_second` that arrived, so that a slow phone succeeds and a dripping attacker does not.
pub(super) async fn read(
    headers: &HeaderMap,
    mut body: Body,
    max: usize,
    app: &App,
) -> Result<Bytes, Refusal> {
    let limits = &app.config.limits;
    let too_large =
        || Refusal::because(Code::TooLarge, format!("the body is larger than {max} bytes"));
    let announced = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if announced.is_some_and(|n| n > max as u64) {
        return Err(too_large());
    }
    // All bodies under way share a budget, each as much of it as has arrived: large ones must not add up to the node's memory.
    let busy = |_| Refusal::because(Code::Unavailable, "Too much is coming in at once.");
    let mut held = app.bodies.try_acquire_many(0).map_err(busy)?;
    let start = tokio_now();
    let mut all: Vec<u8> = Vec::new();
    loop {
        let earned = (all.len() as u64).saturating_mul(1000) / limits.body_bytes_per_second.max(1);
        let deadline = start + Duration::from_millis(limits.body_ms.saturating_add(earned));
        let frame = match timeout_at(deadline, body.frame()).await {
            Err(_) => return Err(Refusal::because(Code::Unavailable, "the body came too slowly")),
            Ok(None) => return Ok(all.into()),
            Ok(Some(Err(_))) => {
                return Err(Refusal::because(Code::Malformed, "the body was cut off"));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        // Trailers carry nothing we use.
        if let Ok(data) = frame.into_data() {
            if all.len().saturating_add(data.len()) > max {
                return Err(too_large());
            }
            let kib = all.len().saturating_add(data.len()).div_ceil(1024);
            let more = u32::try_from(kib.saturating_sub(held.num_permits())).unwrap_or(u32::MAX);
            held.merge(app.bodies.try_acquire_many(more).map_err(busy)?);
            all.extend_from_slice(&data);
        }
    }
}

/// Tokio's clock paces I/O; nothing stored depends on it.
pub(super) fn tokio_now() -> Instant {
    Instant::now()
}

/// Decodes a body that must be exactly one `T`.
pub(super) fn decode<T>(bytes: &[u8]) -> Result<T, Refusal>
where
    T: for<'b> minicbor::Decode<'b, ()>,
{
    protocol::api::decode(bytes).map_err(|e| Refusal::because(Code::Malformed, e.to_string()))
}
