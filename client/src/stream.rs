//! The stream: one WebSocket on which the node pushes entries and the device acknowledges and submits. PROTOCOL §6.8.

use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt as _, StreamExt as _};
use http::Request;
use protocol::api::{self, ToDevice, ToNode};
use protocol::limit;
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::api::refused;
use crate::net::{Alpn, Dialler};
use crate::{Error, Result};

/// How long the upgrade may take.
const UPGRADE_MAX: Duration = Duration::from_secs(10);
/// How long one frame may take to be handed to the system: a node that takes nothing for so long is gone.
const WRITE_MAX: Duration = Duration::from_secs(30);

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// What the node says.
pub(crate) struct Incoming {
    source: SplitStream<Socket>,
    address: Dialler,
}

/// What the device says.
pub(crate) struct Outgoing {
    sink: SplitSink<Socket, Message>,
    address: Dialler,
}

/// Opens the stream.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::NodeKey`], or [`Error::Refused`] when the node does not let this device in.
pub(crate) async fn open(dialler: &Dialler, token: &str) -> Result<(Incoming, Outgoing)> {
    let tls = dialler.dial(Alpn::H1).await?;
    let domain = dialler.node().domain.as_str();
    let request = Request::builder()
        .uri(format!("wss://{domain}/v1/stream"))
        .header("Host", domain)
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", generate_key())
        .header("Authorization", format!("Bearer {token}"))
        .body(())
        .map_err(|e| dialler.node().unreachable(&e))?;
    // The largest message is an inbox item with a Welcome and a ratchet tree.
    let config = WebSocketConfig::default()
        .max_message_size(Some(limit::PEER_BODY_BYTES))
        .max_frame_size(Some(limit::PEER_BODY_BYTES));
    let upgrade = client_async_with_config(request, tls, Some(config));
    let (socket, _) = tokio::time::timeout(UPGRADE_MAX, upgrade)
        .await
        .map_err(|_| dialler.node().unreachable(&"no answer within 10 s"))?
        .map_err(|e| upgrade_error(dialler, e))?;
    let (sink, source) = socket.split();
    let address = dialler.clone();
    Ok((Incoming { source, address: address.clone() }, Outgoing { sink, address }))
}

fn upgrade_error(dialler: &Dialler, error: tungstenite::Error) -> Error {
    match error {
        tungstenite::Error::Http(response) => {
            let body = response.body().as_deref().unwrap_or_default();
            Error::Refused(refused(response.status(), body))
        }
        other => dialler.node().unreachable(&other),
    }
}

impl Incoming {
    /// The next frame; an error when the stream is over. Safe to drop while waiting.
    ///
    /// # Errors
    /// [`Error::Unreachable`] at the end, [`Error::Answer`] when a frame cannot be read.
    pub(crate) async fn next(&mut self) -> Result<ToDevice> {
        loop {
            match self.source.next().await {
                Some(Ok(Message::Binary(bytes))) => {
                    return api::decode(&bytes).map_err(|_| Error::Answer { what: "the stream" });
                }
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_))) | None => {
                    return Err(self.address.node().unreachable(&"the node closed the stream"));
                }
                Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                    return Err(Error::Answer { what: "the stream" });
                }
                Some(Err(e)) => return Err(self.address.node().unreachable(&e)),
            }
        }
    }
}

impl Outgoing {
    /// Sends one frame.
    ///
    /// # Errors
    /// [`Error::Unreachable`]; the stream is over then.
    pub(crate) async fn send(&mut self, frame: &ToNode) -> Result<()> {
        let message = Message::Binary(api::encode(frame).into());
        match tokio::time::timeout(WRITE_MAX, self.sink.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(self.address.node().unreachable(&e)),
            Err(_) => Err(self.address.node().unreachable(&"the node takes nothing any more")),
        }
    }

    /// Says goodbye, as far as the network lets us.
    pub(crate) async fn close(mut self) {
        let bye = tokio::time::timeout(Duration::from_secs(1), self.sink.close());
        if !matches!(bye.await, Ok(Ok(()))) {
            tracing::debug!("the stream was gone before it was closed");
        }
    }
}
