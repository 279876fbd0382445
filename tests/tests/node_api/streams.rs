//! Streams: pushes, acknowledgements, submissions, and how they end.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use protocol::api::{self, Ack, Entries, LogRef, Ping, Revoke, SubmitReply, ToDevice, ToNode};
use protocol::{Code, Cursor, Seq, limit};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use crate::support::{Device, TestNode, tls};

struct Socket(WebSocketStream<tokio_rustls::client::TlsStream<tokio::net::TcpStream>>);

impl Socket {
    async fn open(node: &TestNode, device: &Device) -> Self {
        let stream = tls(node.address, &node.domain, node.info.node_key, "http/1.1").await;
        let mut request = format!("wss://{}/v1/stream", node.domain).into_client_request().unwrap();
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {}", device.token).parse().unwrap());
        let (socket, _) = tokio_tungstenite::client_async(request, stream).await.unwrap();
        let mut socket = Self(socket);
        assert!(
            matches!(socket.next().await, Some(ToDevice::Hello(info)) if info.domain == node.domain)
        );
        socket
    }

    async fn send(&mut self, frame: &ToNode) {
        self.0.send(Message::Binary(api::encode(frame).into())).await.unwrap();
    }

    /// The next frame; `None` when the stream has ended.
    async fn next(&mut self) -> Option<ToDevice> {
        loop {
            let message =
                timeout(Duration::from_secs(10), self.0.next()).await.expect("a frame in time");
            match message? {
                Ok(Message::Binary(bytes)) => return Some(api::decode(&bytes).unwrap()),
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    async fn entries(&mut self) -> Entries {
        match self.next().await {
            Some(ToDevice::Entries(entries)) => entries,
            other => panic!("{other:?}"),
        }
    }

    async fn bye(&mut self) -> Code {
        loop {
            match self.next().await {
                Some(ToDevice::Bye(refusal)) => return refusal.code,
                Some(_) => {}
                None => panic!("ended without a reason"),
            }
        }
    }

    async fn quiet(&mut self) {
        let frame = timeout(Duration::from_millis(300), self.0.next()).await;
        assert!(frame.is_err(), "{frame:?}");
    }
}

fn ack(entries: &Entries) -> ToNode {
    let seq = entries.entries.last().unwrap().seq;
    ToNode::Ack(Ack {
        log: entries.log.clone(),
        cursor: Cursor { incarnation: entries.incarnation, seq },
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_are_pushed_as_they_come_and_again_until_they_are_acknowledged() {
    let node = TestNode::start("a.example").await;
    let (ana, mut bo) = (node.person("ana").await, node.person("bo").await);
    bo.device.upload(3).await;
    let mut room = ana.device.found().await;
    let mut stream = Socket::open(&node, &bo.device).await;
    stream.quiet().await;

    ana.device.add(&mut room, &bo.user()).await.unwrap();
    let welcome = stream.entries().await;
    assert_eq!(welcome.log, LogRef::Inbox, "the inbox first: it opens the room");
    stream.send(&ack(&welcome)).await;
    let after = stream.entries().await;
    assert!(
        matches!(after.entries[0].body, api::Body::Withheld(_)),
        "the Welcome entry of the room is for others"
    );
    ana.device.say(&mut room, "one").await.unwrap();
    let one = stream.entries().await;
    ana.device.say(&mut room, "two").await.unwrap();
    let two = stream.entries().await;
    assert_eq!(two.entries[0].seq, one.entries[0].seq.next());

    // Nothing was acknowledged in the room, so a new stream gets it all again, and the old one is told to go.
    let mut newer = Socket::open(&node, &bo.device).await;
    assert_eq!(stream.bye().await, Code::Unavailable);
    let again = newer.entries().await;
    assert_eq!(again.entries.last().unwrap().seq, two.entries[0].seq);
    assert_eq!(again.prev_chain, after.prev_chain);
    newer.send(&ack(&again)).await;
    newer.send(&ToNode::Rewind(again.log.clone())).await;
    newer.quiet().await;
    drop(newer);
    let mut last = Socket::open(&node, &bo.device).await;
    last.quiet().await;
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn submissions_and_pings_are_answered_on_the_stream() {
    let node = TestNode::start("a.example").await;
    let ana = node.person("ana").await;
    let mut room = ana.device.found().await;
    let mut stream = Socket::open(&node, &ana.device).await;
    stream.send(&ToNode::Ping(Ping { token: 42 })).await;
    assert!(
        matches!(stream.next().await, Some(ToDevice::Pong(pong)) if pong.token == 42 && pong.now.ms() > 0)
    );
    let messages: Vec<_> = (0..20).map(|n| Device::message(&mut room, &n.to_string())).collect();
    for message in &messages {
        stream.send(&ToNode::Submit(message.clone())).await;
    }
    let (mut places, mut echoes) = (Vec::new(), 0);
    while places.len() < 20 || echoes < 20 {
        match stream.next().await.unwrap() {
            ToDevice::Reply(reply) => {
                let SubmitReply::Accepted(accepted) = reply.reply else { panic!("{reply:?}") };
                assert_eq!(
                    reply.submit_id,
                    messages[places.len()].submit_id,
                    "in the order they came"
                );
                places.push(accepted.place.seq.get());
            }
            ToDevice::Entries(entries) => echoes += entries.entries.len(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(places, (1..=20).collect::<Vec<_>>());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_does_not_acknowledge_gets_a_window_and_no_more() {
    let node = TestNode::with("a.example", "\n[limits]\nsubmits_per_second = 100000\n").await;
    let ana = node.person("ana").await;
    let mut room = ana.device.found().await;
    let total = limit::WINDOW_ENTRIES + 100;
    {
        let mut sender = Socket::open(&node, &ana.device).await;
        for n in 0..total {
            sender.send(&ToNode::Submit(Device::message(&mut room, &n.to_string()))).await;
        }
        let mut answered = 0;
        while answered < total {
            if let Some(ToDevice::Reply(_)) = sender.next().await {
                answered += 1;
            }
        }
    }
    let mut stream = Socket::open(&node, &ana.device).await;
    let mut got = Vec::new();
    while got.len() < usize::try_from(limit::WINDOW_ENTRIES).unwrap() {
        got.extend(stream.entries().await.entries);
    }
    stream.quiet().await;
    let log = LogRef::Room(room.room().clone());
    let cursor = Cursor { incarnation: node.info.incarnation, seq: got.last().unwrap().seq };
    stream.send(&ToNode::Ack(Ack { log, cursor })).await;
    while got.len() < usize::try_from(total).unwrap() {
        got.extend(stream.entries().await.entries);
    }
    let seqs: Vec<u64> = got.iter().map(|e| e.seq.get()).collect();
    assert_eq!(seqs, (1..=total).collect::<Vec<_>>(), "each once, in order");
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn revoking_a_device_ends_its_open_stream() {
    let node = TestNode::start("a.example").await;
    let ana = node.person("ana").await;
    let mut stream = Socket::open(&node, &ana.device).await;
    let revoke = Revoke { device: ana.device.id().clone() };
    assert!(ana.device.post("/v1/devices/revoke", &revoke).await.status.is_success());
    assert_eq!(stream.bye().await, Code::Unauthenticated);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_on_the_stream_ends_it_with_the_reason() {
    let node = TestNode::start("a.example").await;
    let ana = node.person("ana").await;
    for bad in [
        Message::Text("hello".into()),
        Message::Binary(vec![0xff; 9].into()),
        Message::Binary(Vec::new().into()),
    ] {
        let mut stream = Socket::open(&node, &ana.device).await;
        stream.0.send(bad).await.unwrap();
        assert_eq!(stream.bye().await, Code::Malformed);
    }
    // Foreign logs and numbers from the future.
    let mut stream = Socket::open(&node, &ana.device).await;
    let cursor = Cursor { incarnation: node.info.incarnation, seq: Seq::new(99) };
    stream.send(&ToNode::Ack(Ack { log: LogRef::Inbox, cursor })).await;
    assert!(matches!(stream.bye().await, Code::Malformed | Code::Invalid));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_stream_is_closed_and_a_stopping_node_says_so() {
    let node = TestNode::with("a.example", "\n[limits]\nstream_idle_ms = 500\n").await;
    let ana = node.person("ana").await;
    let mut stream = Socket::open(&node, &ana.device).await;
    assert_eq!(stream.bye().await, Code::Unavailable);
    let mut stream = Socket::open(&node, &ana.device).await;
    let (_, bye) = tokio::join!(node.stop(), stream.bye());
    assert_eq!(bye, Code::Unavailable);
}
