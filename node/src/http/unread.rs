//! Requests that are refused before their body was read. HTTP/2 resets a stream whose body nobody takes, and the refusal is
//! lost with it, so the rest of the body is read and thrown away before the answer goes out, within bounds.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use hyper::body::{Body as Content, Frame, Incoming, SizeHint};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// What comes back of a body that was dropped before its end.
pub(super) type Left = oneshot::Receiver<Incoming>;

/// A body that is handed back when it is dropped.
struct Watched {
    inner: Option<Incoming>,
    back: Option<oneshot::Sender<Incoming>>,
}

/// The same request, and where the unread part of its body turns up.
pub(super) fn watch(request: Request<Incoming>) -> (Request<Body>, Left) {
    let (back, left) = oneshot::channel();
    let watched = |inner| Body::new(Watched { inner: Some(inner), back: Some(back) });
    (request.map(watched), left)
}

/// Reads what is left of a body, at most 4 MiB and for at most three seconds.
pub(super) async fn drain(mut left: Left) {
    let Ok(mut body) = left.try_recv() else { return };
    let rest = async {
        let mut read = 0_usize;
        while let Some(Ok(frame)) = body.frame().await {
            read = read.saturating_add(frame.data_ref().map_or(0, Bytes::len));
            if read > DRAIN_BYTES {
                return;
            }
        }
    };
    // Whoever has not sent it all by then is answered all the same.
    let _late = timeout(DRAIN_TIME, rest).await;
}

const DRAIN_BYTES: usize = 4 * 1024 * 1024;
const DRAIN_TIME: Duration = Duration::from_secs(3);

impl Content for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.inner {
            Some(inner) => Pin::new(inner).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Content::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map(Content::size_hint).unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if let (Some(inner), Some(back)) = (self.inner.take(), self.back.take())
            && !inner.is_end_stream()
        {
            // Nobody waits for it when the request was given up.
            let _given_up = back.send(inner);
        }
    }
}
