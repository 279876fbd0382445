//! A TCP hop on loopback that passes bytes on, and on request loses, delays or cuts them.
//!
//! It sees only TLS. What it did is counted, so that a test can show that the fault really happened.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::Outcome;
use crate::trouble::During as _;

/// Bytes captured at most, in both directions together.
const CAPTURE_BYTES: usize = 64 * 1024 * 1024;

/// A hop. Dropping it closes its port and every connection through it.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

struct Shared {
    target: Mutex<Option<SocketAddr>>,
    /// Connections of an older generation are cut.
    generation: watch::Sender<u64>,
    closed: AtomicBool,
    delay_ms: AtomicU64,
    /// Replies still to be lost.
    lose_replies: AtomicU64,
    lost_replies: AtomicU64,
    cut: AtomicU64,
    refused: AtomicU64,
    passed: AtomicU64,
    capture: Mutex<Option<Vec<u8>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Opens a port. Until [`Proxy::lead_to`] says where it leads, connections are closed at once.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn start() -> Outcome<Self> {
        Self::start_at(0).await
    }

    /// The same, on a port it had before.
    ///
    /// # Errors
    /// When somebody else has it.
    pub async fn start_at(port: u16) -> Outcome<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).await;
        let listener = listener.during(format!("port {port} for a proxy"))?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            target: Mutex::new(None),
            generation: watch::Sender::new(0),
            closed: AtomicBool::new(false),
            delay_ms: AtomicU64::new(0),
            lose_replies: AtomicU64::new(0),
            lost_replies: AtomicU64::new(0),
            cut: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            passed: AtomicU64::new(0),
            capture: Mutex::new(None),
        });
        let listening = tokio::spawn(listen(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, listening })
    }

    /// Its port.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where new connections lead.
    pub fn lead_to(&self, target: SocketAddr) {
        *lock(&self.shared.target) = Some(target);
    }

    /// Cuts every connection that is open; new ones work.
    pub fn cut(&self) {
        self.shared.generation.send_modify(|g| *g += 1);
    }

    /// Cuts every connection and refuses new ones until [`Proxy::open`].
    pub fn close(&self) {
        self.shared.closed.store(true, Ordering::SeqCst);
        self.cut();
    }

    /// Ends [`Proxy::close`].
    pub fn open(&self) {
        self.shared.closed.store(false, Ordering::SeqCst);
    }

    /// Holds every piece of data back for so long, in both directions.
    pub fn delay(&self, by: Duration) {
        let ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.shared.delay_ms.store(ms, Ordering::SeqCst);
    }

    /// Loses the next `n` replies: once something has passed towards the node, what comes back on that connection is thrown
    /// away and the connection cut.
    pub fn lose_replies(&self, n: u64) {
        self.shared.lose_replies.store(n, Ordering::SeqCst);
    }

    /// Keeps a copy of everything that passes from now on, up to 64 MiB.
    pub fn capture(&self) {
        *lock(&self.shared.capture) = Some(Vec::new());
    }

    /// What [`Proxy::capture`] kept.
    #[must_use]
    pub fn captured(&self) -> Vec<u8> {
        lock(&self.shared.capture).clone().unwrap_or_default()
    }

    /// Replies that were lost.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.shared.lost_replies.load(Ordering::SeqCst)
    }

    /// Open connections that were cut.
    #[must_use]
    pub fn cuts(&self) -> u64 {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// Connections that were refused, because it was closed or led nowhere.
    #[must_use]
    pub fn refusals(&self) -> u64 {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Bytes that passed, in both directions together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.shared.passed.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
        self.cut();
    }
}

async fn listen(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        tokio::spawn(connection(stream, Arc::clone(&shared)));
    }
}

async fn connection(near: TcpStream, shared: Arc<Shared>) {
    let mut generation = shared.generation.subscribe();
    generation.mark_unchanged();
    let target = if shared.closed.load(Ordering::SeqCst) { None } else { *lock(&shared.target) };
    let far = match target {
        None => None,
        Some(target) => TcpStream::connect(target).await.ok(),
    };
    let Some(far) = far else {
        shared.refused.fetch_add(1, Ordering::SeqCst);
        return;
    };
    // Without this, a small piece waits for the acknowledgement of the one before.
    if near.set_nodelay(true).and_then(|()| far.set_nodelay(true)).is_err() {
        return;
    }
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    // Set while a reply on this connection is to be lost.
    let doomed = Arc::new(AtomicBool::new(false));
    tokio::select! {
        () = upwards(near_read, far_write, &shared, &doomed) => {}
        () = downwards(far_read, near_write, &shared, &doomed) => {}
        _ = generation.changed() => {
            shared.cut.fetch_add(1, Ordering::SeqCst);
        }
    }
}

async fn upwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    doomed: &AtomicBool,
) {
    let mut piece = vec![0; 16 * 1024];
    while let Some(bytes) = next(&mut from, &mut piece, shared).await {
        let lose = shared
            .lose_replies
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        if lose.is_ok() {
            doomed.store(true, Ordering::SeqCst);
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
    // A half-closed connection still carries replies.
    if to.shutdown().await.is_ok() {
        std::future::pending::<()>().await;
    }
}

async fn downwards(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    shared: &Shared,
    doomed: &AtomicBool,
) {
    let mut piece = vec![0; 16 * 1024];
    while let Some(bytes) = next(&mut from, &mut piece, shared).await {
        if doomed.load(Ordering::SeqCst) {
            shared.lost_replies.fetch_add(1, Ordering::SeqCst);
            return;
        }
        if to.write_all(bytes).await.is_err() {
            return;
        }
    }
}

async fn next<'a>(
    from: &mut OwnedReadHalf,
    piece: &'a mut [u8],
    shared: &Shared,
) -> Option<&'a [u8]> {
    let n = from.read(piece).await.ok().filter(|n| *n > 0)?;
    let delay = shared.delay_ms.load(Ordering::SeqCst);
    if delay > 0 {
        tokio::time::sleep(Duration::from_millis(delay)).await;
    }
    let bytes = piece.get(..n)?;
    shared.passed.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::SeqCst);
    if let Some(kept) = lock(&shared.capture).as_mut()
        && kept.len() + n <= CAPTURE_BYTES
    {
        kept.extend_from_slice(bytes);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut r, mut w) = stream.split();
                    tokio::io::copy(&mut r, &mut w).await.ok();
                });
            }
        });
        address
    }

    async fn say(proxy: &Proxy, text: &[u8]) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(proxy.address()).await.ok()?;
        stream.write_all(text).await.ok()?;
        let mut back = vec![0; text.len()];
        stream.read_exact(&mut back).await.ok()?;
        Some(back)
    }

    #[tokio::test]
    async fn every_fault_happens_when_asked_for_and_is_counted() {
        let proxy = Proxy::start().await.unwrap();
        assert_eq!(say(&proxy, b"nowhere").await, None);
        proxy.lead_to(echo().await);
        proxy.capture();
        assert_eq!(say(&proxy, b"hello").await.as_deref(), Some(b"hello".as_slice()));
        assert_eq!((proxy.lost(), proxy.cuts(), proxy.refusals()), (0, 0, 1));
        proxy.lose_replies(1);
        assert_eq!(say(&proxy, b"lost").await, None);
        assert_eq!((proxy.lost(), proxy.bytes()), (1, 18));
        assert_eq!(say(&proxy, b"again").await.as_deref(), Some(b"again".as_slice()));
        assert_eq!(proxy.captured(), b"hellohellolostlostagainagain");
        let mut open = TcpStream::connect(proxy.address()).await.unwrap();
        open.write_all(b"x").await.unwrap();
        open.read_exact(&mut [0]).await.unwrap();
        proxy.close();
        assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0);
        assert_eq!(say(&proxy, b"closed").await, None);
        assert!(proxy.cuts() >= 1 && proxy.refusals() == 2);
        proxy.open();
        assert!(say(&proxy, b"open").await.is_some());
    }
}
